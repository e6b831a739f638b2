//! CP (RFC 7296 §3.15).

use super::{
    Malformed,
    octets::{Reader, Writer},
    registry::registry,
};
use std::net::IpAddr;

registry! {
    /// What is done with the attributes.
    ConfigurationType(u8) {
        CFG_REQUEST = 1,
        CFG_REPLY = 2,
        CFG_SET = 3,
        CFG_ACK = 4,
    }
}

registry! {
    /// What an attribute is: 15 bits.
    ConfigurationAttributeType(u16) {
        INTERNAL_IP4_ADDRESS = 1,
        INTERNAL_IP4_NETMASK = 2,
        INTERNAL_IP4_DNS = 3,
        INTERNAL_IP4_NBNS = 4,
        INTERNAL_IP4_DHCP = 6,
        APPLICATION_VERSION = 7,
        INTERNAL_IP6_ADDRESS = 8,
        INTERNAL_IP6_DNS = 10,
        INTERNAL_IP6_DHCP = 12,
        INTERNAL_IP4_SUBNET = 13,
        SUPPORTED_ATTRIBUTES = 14,
        INTERNAL_IP6_SUBNET = 15,
        INTERNAL_IP6_LINK = 17, // RFC 5739
        INTERNAL_IP6_PREFIX = 18,
        P_CSCF_IP4_ADDRESS = 20, // RFC 7651
        P_CSCF_IP6_ADDRESS = 21,
        INTERNAL_DNS_DOMAIN = 25, // RFC 8598
        INTERNAL_DNSSEC_TA = 26,
        ENCDNS_IP4 = 27, // RFC 9464
        ENCDNS_IP6 = 28,
        ENCDNS_DIGEST_INFO = 29,
        INTERNAL_IP4_SERVER = 23456, // of other vendors, as strongSwan has them
        INTERNAL_IP6_SERVER = 23457,
        UNITY_SPLIT_INCLUDE = 28676,
        UNITY_LOCAL_LAN = 28678,
    }
}

/// The length of a prefix of which there is one address (RFC 7296 §3.15.1).
const ONE_HOST: u8 = 128;

/// The bit beside the type of an attribute.
const RESERVED: u16 = 0x8000;

/// What a peer asks to be configured with, or is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// Whether it asks or tells.
    pub kind: ConfigurationType,
    /// What about.
    pub attributes: Vec<ConfigurationAttribute>,
}

/// One thing of a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigurationAttribute {
    /// What it is.
    pub kind: ConfigurationAttributeType,
    /// Its value; empty in requests that leave it to the other side.
    pub value: Vec<u8>,
}

impl ConfigurationAttribute {
    /// One that asks for a value, and has none.
    pub fn asking(kind: ConfigurationAttributeType) -> ConfigurationAttribute {
        ConfigurationAttribute { kind, value: vec![] }
    }

    /// One that is an address.
    pub fn of_address(kind: ConfigurationAttributeType, address: IpAddr) -> ConfigurationAttribute {
        let value = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) if kind == ConfigurationAttributeType::INTERNAL_IP6_ADDRESS => {
                [&v6.octets()[..], &[ONE_HOST]].concat()
            }
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        ConfigurationAttribute { kind, value }
    }

    /// The address that it is, with whatever prefix there is behind one of IPv6; `None` where it is of another length.
    pub fn address(&self) -> Option<IpAddr> {
        match &self.value[..] {
            [a, b, c, d] => Some([*a, *b, *c, *d].into()),
            value if matches!(value.len(), 16 | 17) => value.first_chunk::<16>().map(|v6| (*v6).into()),
            _ => None,
        }
    }
}

impl Configuration {
    pub(super) fn parse(mut r: Reader<'_>) -> Result<Configuration, Malformed> {
        let kind = ConfigurationType(r.u8("CFG Type")?);
        r.array::<3>("RESERVED")?;
        let mut attributes = vec![];
        while !r.is_empty() {
            let kind = ConfigurationAttributeType(r.u16("Attribute Type")? & !RESERVED);
            let length = r.u16("Length")?;
            let value = r.take(length.into(), "Value")?.to_vec();
            attributes.push(ConfigurationAttribute { kind, value });
        }
        Ok(Configuration { kind, attributes })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.octets(&[self.kind.0, 0, 0, 0]);
        for attribute in &self.attributes {
            w.u16(attribute.kind.0 & !RESERVED);
            w.len16(attribute.value.len(), "Length");
            w.octets(&attribute.value);
        }
    }
}
