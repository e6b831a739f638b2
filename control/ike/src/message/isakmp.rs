//! ISAKMP messages, of IKEv1, as they are on the wire (RFC 2408 §3, RFC 2407 §4.6). Header, attributes, and what else has the
//! same form as in IKEv2 are shared with it.
//!
//! What is encrypted is all behind the header, and has zeroes behind its last payload. HASH payloads are over the octets of all
//! payloads behind them, and others over the bodies of payloads: [`Chain`] says where they are.

mod attributes;
mod notify;
mod proposal;

pub use attributes::{Attributes, AttributesType, XauthAttributeType};
pub use notify::{Delete, Notify, NotifyType, cookies};
pub use proposal::{Proposal, SecurityAssociation, Transform};

use super::{
    Attribute, Certificate, CertificateRequest, Flags, Header, Identification, Malformed, Oversized,
    PayloadType, Version,
    octets::{Reader, Writer},
    proposal::{emit_attributes, parse_attributes},
};
use std::ops::Range;

/// The IPsec DOI (RFC 2407 §4.2).
const IPSEC_DOI: u32 = 1;

/// Octets of most payloads, at most.
const ROOM: usize = 1024;

/// Octets of a nonce (RFC 2409 §5).
const NONCE: std::ops::RangeInclusive<usize> = 8..=256;

/// A payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// SA: what is proposed, or what was chosen.
    SecurityAssociation(SecurityAssociation),
    /// KE: a public value.
    KeyExchange(Vec<u8>),
    /// ID.
    Identification(Identification),
    /// CERT.
    Certificate(Certificate),
    /// CR.
    CertificateRequest(CertificateRequest),
    /// HASH.
    Hash(Vec<u8>),
    /// SIG.
    Signature(Vec<u8>),
    /// NONCE: 8 to 256 random octets.
    Nonce(Vec<u8>),
    /// N.
    Notify(Notify),
    /// D.
    Delete(Delete),
    /// VID.
    VendorId(Vec<u8>),
    /// Attributes of a configuration, or of XAUTH.
    Attributes(Attributes),
    /// NAT-D: a hash of an address; of the drafts, if so.
    NatDetection(Vec<u8>, bool),
    /// NAT-OA: an address, as an identification; of the drafts, if so.
    NatOriginal(Identification, bool),
    /// A part of a message.
    Fragment(Fragment),
    /// A payload of a type that is none of these.
    Unknown(PayloadType, Vec<u8>),
}

/// A part of a message, from its header on, as several vendors cut them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Which message of the exchange it is of.
    pub id: u16,
    /// Which part it is, from 1 on.
    pub number: u8,
    /// Whether it is the last.
    pub is_last: bool,
    /// The octets.
    pub data: Vec<u8>,
}

impl Payload {
    /// Its type.
    pub const fn kind(&self) -> PayloadType {
        match self {
            Payload::SecurityAssociation(_) => PayloadType::SA_V1,
            Payload::KeyExchange(_) => PayloadType::KE_V1,
            Payload::Identification(_) => PayloadType::ID,
            Payload::Certificate(_) => PayloadType::CERT_V1,
            Payload::CertificateRequest(_) => PayloadType::CERTREQ_V1,
            Payload::Hash(_) => PayloadType::HASH,
            Payload::Signature(_) => PayloadType::SIG,
            Payload::Nonce(_) => PayloadType::NONCE_V1,
            Payload::Notify(_) => PayloadType::N_V1,
            Payload::Delete(_) => PayloadType::D_V1,
            Payload::VendorId(_) => PayloadType::V_V1,
            Payload::Attributes(_) => PayloadType::ATTRIBUTES,
            Payload::NatDetection(_, false) => PayloadType::NAT_D,
            Payload::NatDetection(_, true) => PayloadType::NAT_D_DRAFT,
            Payload::NatOriginal(_, false) => PayloadType::NAT_OA,
            Payload::NatOriginal(_, true) => PayloadType::NAT_OA_DRAFT,
            Payload::Fragment(_) => PayloadType::FRAGMENT,
            Payload::Unknown(kind, _) => *kind,
        }
    }

    fn parse(kind: PayloadType, mut r: Reader<'_>) -> Result<Payload, Malformed> {
        Ok(match kind {
            PayloadType::SA_V1 => Payload::SecurityAssociation(SecurityAssociation::parse(r)?),
            PayloadType::KE_V1 => Payload::KeyExchange(r.rest().to_vec()),
            PayloadType::ID => Payload::Identification(Identification::parse(r)?),
            PayloadType::CERT_V1 => Payload::Certificate(Certificate::parse(r)?),
            PayloadType::CERTREQ_V1 => Payload::CertificateRequest(CertificateRequest::parse(r)?),
            PayloadType::HASH => Payload::Hash(r.rest().to_vec()),
            PayloadType::SIG => Payload::Signature(r.rest().to_vec()),
            PayloadType::NONCE_V1 => {
                let malformed = r.malformed("Nonce Data");
                let nonce = r.rest();
                // RFC 2409 §5
                if !NONCE.contains(&nonce.len()) {
                    return Err(malformed);
                }
                Payload::Nonce(nonce.to_vec())
            }
            PayloadType::N_V1 => Payload::Notify(notify::parse(r)?),
            PayloadType::D_V1 => Payload::Delete(Delete::parse(r)?),
            PayloadType::V_V1 => Payload::VendorId(r.rest().to_vec()),
            PayloadType::ATTRIBUTES => Payload::Attributes(Attributes::parse(r)?),
            PayloadType::NAT_D => Payload::NatDetection(r.rest().to_vec(), false),
            PayloadType::NAT_D_DRAFT => Payload::NatDetection(r.rest().to_vec(), true),
            PayloadType::NAT_OA => Payload::NatOriginal(Identification::parse(r)?, false),
            PayloadType::NAT_OA_DRAFT => Payload::NatOriginal(Identification::parse(r)?, true),
            PayloadType::FRAGMENT => Payload::Fragment(Fragment::parse(r)?),
            _ => Payload::Unknown(kind, r.rest().to_vec()),
        })
    }

    fn emit(&self, w: &mut Writer) {
        match self {
            Payload::SecurityAssociation(sa) => sa.emit(w),
            Payload::Identification(id) | Payload::NatOriginal(id, _) => id.emit(w),
            Payload::Certificate(certificate) => certificate.emit(w),
            Payload::CertificateRequest(request) => request.emit(w),
            Payload::Notify(notify) => notify::emit(notify, w),
            Payload::Delete(delete) => delete.emit(w),
            Payload::Attributes(attributes) => attributes.emit(w),
            Payload::Fragment(fragment) => fragment.emit(w),
            Payload::KeyExchange(octets)
            | Payload::Hash(octets)
            | Payload::Signature(octets)
            | Payload::Nonce(octets)
            | Payload::VendorId(octets)
            | Payload::NatDetection(octets, _)
            | Payload::Unknown(_, octets) => w.octets(octets),
        }
    }
}

impl Fragment {
    fn parse(mut r: Reader<'_>) -> Result<Fragment, Malformed> {
        let id = r.u16("Fragment ID")?;
        let malformed = r.malformed("Fragment Number");
        let number = r.u8("Fragment Number")?;
        let is_last = r.u8("Flags")? & 1 != 0;
        if number == 0 {
            return Err(malformed);
        }
        Ok(Fragment { id, number, is_last, data: r.rest().to_vec() })
    }

    fn emit(&self, w: &mut Writer) {
        w.u16(self.id);
        w.octets(&[self.number, self.is_last.into()]);
        w.octets(&self.data);
    }
}

/// Payloads in their order, and where they are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// The payloads.
    pub payloads: Vec<Payload>,
    /// Where the body of each is, behind its generic header, in what was parsed.
    pub bodies: Vec<Range<usize>>,
}

impl Chain {
    /// Reads the payloads that are behind a header; `first` is the type of the first. Behind the last there may be zeroes where
    /// they were encrypted.
    pub fn parse(first: PayloadType, octets: &[u8], is_padded: bool) -> Result<Chain, Malformed> {
        let mut rest = Reader::new(None, octets, 0);
        let mut chain = Chain::default();
        let mut kind = first;
        while kind != PayloadType::NONE {
            rest = rest.of(kind);
            let ([next, _], body) = rest.frame("Payload Length")?;
            chain.bodies.push(body.offset()..rest.offset());
            chain.payloads.push(Payload::parse(kind, body)?);
            kind = PayloadType(next);
        }
        if !is_padded {
            rest.end("octets behind the last payload")?;
        }
        Ok(chain)
    }

    /// The octets of the payloads behind the first, of what was parsed.
    pub fn behind_first<'a>(&self, octets: &'a [u8]) -> &'a [u8] {
        match (self.bodies.first(), self.bodies.last()) {
            (Some(first), Some(last)) => octets.get(first.end..last.end).unwrap_or_default(),
            _ => &[],
        }
    }

    /// The body of the first payload of a type, of what was parsed.
    pub fn body<'a>(&self, kind: PayloadType, octets: &'a [u8]) -> Option<&'a [u8]> {
        let at = self.payloads.iter().position(|payload| payload.kind() == kind)?;
        octets.get(self.bodies[at].clone())
    }
}

/// What payloads are in octets, and the type of the first.
pub fn emit(payloads: &[Payload]) -> Result<(PayloadType, Vec<u8>), Oversized> {
    let mut w = Writer::with_room(ROOM);
    let next = payloads.iter().skip(1).map(Payload::kind).chain([PayloadType::NONE]);
    for (payload, next) in payloads.iter().zip(next) {
        w.frame([next.0, 0], "Payload Length", |w| payload.emit(w));
    }
    Ok((payloads.first().map_or(PayloadType::NONE, Payload::kind), w.finish()?))
}

/// The attributes that fill octets, as in notifications.
pub fn attributes(octets: &[u8]) -> Result<Vec<Attribute>, Malformed> {
    parse_attributes(Reader::new(None, octets, 0))
}

/// The octets of attributes.
pub fn attribute_octets(all: &[Attribute]) -> Vec<u8> {
    let mut w = Writer::default();
    emit_attributes(all, &mut w);
    w.finish().unwrap_or_default()
}

/// The body of a payload, which hashes are over.
pub fn body(payload: &Payload) -> Result<Vec<u8>, Oversized> {
    let mut w = Writer::default();
    payload.emit(&mut w);
    w.finish()
}

/// A message of these octets behind its header.
pub fn message(header: &Header, first: PayloadType, body: &[u8]) -> Result<Vec<u8>, Oversized> {
    let mut w = Writer::default();
    Header { version: Version::V1, ..*header }.emit(first, &mut w);
    w.octets(body);
    let length = w.len();
    w.patch_u32(super::header::LENGTH_AT, length);
    w.finish()
}

/// Whether all behind the header is encrypted.
pub fn is_encrypted(header: &Header) -> bool {
    header.flags.contains(Flags::ENCRYPTION)
}

/// The first payload of a type.
macro_rules! first_of {
    ($($(#[doc = $doc:literal])+ $name:ident: $variant:ident -> $content:ty;)+) => {
        impl Chain {
            $($(#[doc = $doc])+
            pub fn $name(&self) -> Option<&$content> {
                self.payloads.iter().find_map(|payload| match payload {
                    Payload::$variant(content) => Some(content as &$content),
                    _ => None,
                })
            })+
        }
    };
}

first_of! {
    /// SA.
    security_association: SecurityAssociation -> SecurityAssociation;
    /// KE.
    key_exchange: KeyExchange -> [u8];
    /// ID.
    identification: Identification -> Identification;
    /// HASH.
    hash: Hash -> [u8];
    /// SIG.
    signature: Signature -> [u8];
    /// NONCE.
    nonce: Nonce -> [u8];
    /// Attributes.
    attributes: Attributes -> Attributes;
    /// A part of a message.
    fragment: Fragment -> Fragment;
}

impl Chain {
    /// All identifications, as IDci and IDcr.
    pub fn identifications(&self) -> impl Iterator<Item = &Identification> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::Identification(id) => Some(id),
            _ => None,
        })
    }

    /// All notifications.
    pub fn notifies(&self) -> impl Iterator<Item = &Notify> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::Notify(notify) => Some(notify),
            _ => None,
        })
    }

    /// Certificates and what goes with them.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::Certificate(certificate) => Some(certificate),
            _ => None,
        })
    }

    /// All vendor IDs.
    pub fn vendor_ids(&self) -> impl Iterator<Item = &[u8]> {
        self.payloads.iter().filter_map(|payload| match payload {
            Payload::VendorId(id) => Some(&**id),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
