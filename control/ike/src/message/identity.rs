//! IDi and IDr (RFC 7296 §3.5).

use super::{
    Malformed,
    octets::{Reader, Writer},
    registry::registry,
};
use std::net::IpAddr;

registry! {
    /// Types of identifications.
    IdType(u8) {
        ID_IPV4_ADDR = 1,
        ID_FQDN = 2,
        ID_RFC822_ADDR = 3,
        // Of IKEv1 alone (RFC 2407 §4.6.2.1).
        ID_IPV4_ADDR_SUBNET = 4,
        ID_IPV6_ADDR = 5,
        ID_IPV6_ADDR_SUBNET = 6,
        ID_IPV4_ADDR_RANGE = 7,
        ID_IPV6_ADDR_RANGE = 8,
        ID_DER_ASN1_DN = 9,
        ID_DER_ASN1_GN = 10,
        ID_KEY_ID = 11,
        ID_NULL = 13, // RFC 7619 §2.1
    }
}

/// Who somebody says to be. Nothing here says that it is so, nor that the data is what the type needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identification {
    /// The type of the data.
    pub kind: IdType,
    /// Of no meaning in IKEv2, and kept only because AUTH is over it; 0 in what we send. In IKEv1 a protocol and a port.
    pub reserved: [u8; 3],
    /// The Identification Data.
    pub data: Vec<u8>,
}

impl Identification {
    /// One to send.
    pub fn new(kind: IdType, data: &[u8]) -> Identification {
        Identification { kind, reserved: [0; 3], data: data.to_vec() }
    }

    /// That of an address.
    pub fn of_address(address: IpAddr) -> Identification {
        match address {
            IpAddr::V4(ip) => Identification::new(IdType::ID_IPV4_ADDR, &ip.octets()),
            IpAddr::V6(ip) => Identification::new(IdType::ID_IPV6_ADDR, &ip.octets()),
        }
    }

    pub(super) fn parse(mut r: Reader<'_>) -> Result<Identification, Malformed> {
        let kind = IdType(r.u8("ID Type")?);
        let reserved = r.array("RESERVED")?;
        Ok(Identification { kind, reserved, data: r.rest().to_vec() })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.octets(&self.body());
    }

    /// The body of the payload, which AUTH is over: RestOfInitIDPayload or RestOfRespIDPayload (RFC 7296 §2.15).
    pub fn body(&self) -> Vec<u8> {
        [&[self.kind.0], &self.reserved[..], &self.data].concat()
    }
}
