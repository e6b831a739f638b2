//! Vendor IDs: what an end can do besides (RFC 2408 §3.16).

use crate::{
    connection::Connection,
    kept::{keep, keep_enum},
    message::isakmp::{Chain, Payload},
};

/// RFC 3947 §3.1.
const NAT_T: [u8; 16] = *b"\x4a\x13\x1c\x81\x07\x03\x58\x45\x5c\x57\x28\xf2\x0e\x95\x45\x2f";
/// draft-ietf-ipsec-nat-t-ike-03, and 02 in both ways that there are of it: as RFC 3947, with other numbers.
const NAT_T_DRAFTS: [[u8; 16]; 3] = [
    *b"\x7d\x94\x19\xa6\x53\x10\xca\x6f\x2c\x17\x9d\x92\x15\x52\x9d\x56",
    *b"\x90\xcb\x80\x91\x3e\xbb\x69\x6e\x08\x63\x81\xb5\xec\x42\x7b\x1f",
    *b"\xcd\x60\x46\x43\x35\xdf\x21\xf8\x7c\xfd\xb2\xfc\x68\xb6\xa4\x48",
];
/// RFC 3706 §5.2, version 1.0.
const DPD: [u8; 16] = *b"\xaf\xca\xd7\x13\x68\xa1\xf1\xc9\x6b\x86\x96\xfc\x77\x57\x01\x00";

/// draft-beaulieu-ike-xauth-02 §2.
const XAUTH: [u8; 8] = *b"\x09\x00\x26\x89\xdf\xd6\xb7\x12";

/// Parts of messages, as several vendors have them. Some have flags behind it.
const FRAGMENTATION: [u8; 16] = *b"\x40\x48\xb7\xd5\x6e\xbc\xe8\x85\x25\xe7\xde\x7f\x00\xd6\xc2\xd3";

/// How NATs are traversed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum NatT {
    /// As in the drafts that are like the RFC.
    Draft,
    /// RFC 3947.
    Rfc,
}

/// What the peer can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Abilities {
    pub nat_t: Option<NatT>,
    pub dpd: bool,
    /// It can put parts of messages together.
    pub fragments: bool,
}

impl Abilities {
    /// What a message says, besides what is known.
    pub fn learn(&mut self, chain: &Chain) {
        for id in chain.vendor_ids() {
            let nat_t = match id {
                id if id == NAT_T => Some(NatT::Rfc),
                id if NAT_T_DRAFTS.iter().any(|draft| id == draft) => Some(NatT::Draft),
                _ => None,
            };
            self.nat_t = self.nat_t.max(nat_t);
            // The last octet is the minor version.
            self.dpd |= id.len() == DPD.len() && id[..15] == DPD[..15];
            self.fragments |= id.starts_with(&FRAGMENTATION);
        }
    }
}

/// What we say in our first message, also of users, if there are any.
pub(super) fn payloads(connection: &Connection) -> Vec<Payload> {
    let has_user = connection.ikev1.as_ref().is_some_and(|v1| v1.xauth.is_some());
    let [draft_03, draft_02n, _] = NAT_T_DRAFTS;
    let all = [NAT_T, draft_03, draft_02n, DPD].map(|id| Payload::VendorId(id.to_vec()));
    let fragments = connection.says_fragments.then(|| Payload::VendorId(FRAGMENTATION.to_vec()));
    let xauth = has_user.then(|| Payload::VendorId(XAUTH.to_vec()));
    all.into_iter().chain(fragments).chain(xauth).collect()
}

keep!(Abilities { nat_t, dpd, fragments });
keep_enum!(NatT { 0 => Draft, 1 => Rfc });
