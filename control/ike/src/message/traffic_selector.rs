//! TSi and TSr (RFC 7296 §3.13).

use super::{
    Malformed,
    octets::{Reader, Writer},
    registry::registry,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

registry! {
    /// Types of traffic selectors.
    TsType(u8) {
        TS_IPV4_ADDR_RANGE = 7,
        TS_IPV6_ADDR_RANGE = 8,
        TS_FC_ADDR_RANGE = 9, // RFC 4595
        TS_SECLABEL = 10, // RFC 9478
    }
}

/// A traffic selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TrafficSelector {
    /// Packets by addresses, protocol and ports.
    Range(TsRange),
    /// One of a type that is neither of the two above.
    Unknown {
        /// Its type.
        kind: TsType,
        /// The octet behind the type: in some types the protocol, in others reserved.
        octet: u8,
        /// What is behind the length.
        data: Vec<u8>,
    },
}

/// Packets by addresses, protocol and ports.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TsRange {
    /// The IP protocol; 0 is any.
    pub protocol: u8,
    /// The ports, or types of ICMP messages and of Mobility Headers; 0 to 65535 is any, and 65535 to 0 those that
    /// cannot be seen ("OPAQUE", RFC 7296 §3.13.1).
    pub ports: RangeInclusive<u16>,
    /// The addresses. Nothing says that the first is not above the last.
    pub addresses: Addresses,
}

/// Addresses of one family, the first and the last.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Addresses {
    /// TS_IPV4_ADDR_RANGE.
    V4(RangeInclusive<Ipv4Addr>),
    /// TS_IPV6_ADDR_RANGE.
    V6(RangeInclusive<Ipv6Addr>),
}

impl Addresses {
    /// The first and the last.
    pub fn bounds(&self) -> (IpAddr, IpAddr) {
        match self {
            Addresses::V4(range) => ((*range.start()).into(), (*range.end()).into()),
            Addresses::V6(range) => ((*range.start()).into(), (*range.end()).into()),
        }
    }
}

pub(super) fn parse_all(mut r: Reader<'_>) -> Result<Vec<TrafficSelector>, Malformed> {
    let count_at = r.offset();
    let count = r.u8("Number of TSs")?;
    r.array::<3>("RESERVED")?;
    let mut selectors = vec![];
    while !r.is_empty() {
        let ([kind, octet], body) = r.frame("Selector Length")?;
        selectors.push(parse(TsType(kind), octet, body)?);
    }
    if selectors.len() != usize::from(count) {
        return Err(r.malformed_at("Number of TSs", count_at));
    }
    Ok(selectors)
}

fn parse(kind: TsType, octet: u8, mut r: Reader<'_>) -> Result<TrafficSelector, Malformed> {
    if !matches!(kind, TsType::TS_IPV4_ADDR_RANGE | TsType::TS_IPV6_ADDR_RANGE) {
        return Ok(TrafficSelector::Unknown { kind, octet, data: r.rest().to_vec() });
    }
    let ports = r.u16("Start Port")?..=r.u16("End Port")?;
    let addresses = if kind == TsType::TS_IPV4_ADDR_RANGE {
        let start = Ipv4Addr::from(r.array::<4>("Starting Address")?);
        Addresses::V4(start..=r.array::<4>("Ending Address")?.into())
    } else {
        let start = Ipv6Addr::from(r.array::<16>("Starting Address")?);
        Addresses::V6(start..=r.array::<16>("Ending Address")?.into())
    };
    r.end("Selector Length")?;
    Ok(TrafficSelector::Range(TsRange { protocol: octet, ports, addresses }))
}

pub(super) fn emit_all(selectors: &[TrafficSelector], w: &mut Writer) {
    w.len8(selectors.len(), "Number of TSs");
    w.octets(&[0; 3]);
    for selector in selectors {
        emit(selector, w);
    }
}

fn emit(selector: &TrafficSelector, w: &mut Writer) {
    let head = match selector {
        TrafficSelector::Range(range) => {
            let kind = match range.addresses {
                Addresses::V4(_) => TsType::TS_IPV4_ADDR_RANGE,
                Addresses::V6(_) => TsType::TS_IPV6_ADDR_RANGE,
            };
            [kind.0, range.protocol]
        }
        TrafficSelector::Unknown { kind, octet, .. } => [kind.0, *octet],
    };
    w.frame(head, "Selector Length", |w| match selector {
        TrafficSelector::Range(TsRange { ports, addresses, .. }) => {
            w.u16(*ports.start());
            w.u16(*ports.end());
            match addresses {
                Addresses::V4(range) => {
                    w.octets(&range.start().octets());
                    w.octets(&range.end().octets());
                }
                Addresses::V6(range) => {
                    w.octets(&range.start().octets());
                    w.octets(&range.end().octets());
                }
            }
        }
        TrafficSelector::Unknown { data, .. } => w.octets(data),
    });
}
