//! IDci and IDcr: what a child SA is for, as identifications (RFC 2407 §4.6.2, RFC 2409 §5.5).

use crate::{
    message::{IdType, Identification},
    traffic_selector::TrafficSelector,
};
use portcullis_sadb::ANY_PORT;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A selector as an identification. Nothing of what IKEv1 cannot say: several ports, and not all.
pub(super) fn emit(selector: &TrafficSelector) -> Option<Identification> {
    let ports = selector.ports();
    let port = match ports {
        any if any == ANY_PORT => 0,
        one if one.start() == one.end() => *one.start(),
        _ => return None,
    };
    let octets = |address| match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (first, last) = selector.addresses();
    let (host, subnet, range) = match first {
        IpAddr::V4(_) => (IdType::ID_IPV4_ADDR, IdType::ID_IPV4_ADDR_SUBNET, IdType::ID_IPV4_ADDR_RANGE),
        IpAddr::V6(_) => (IdType::ID_IPV6_ADDR, IdType::ID_IPV6_ADDR_SUBNET, IdType::ID_IPV6_ADDR_RANGE),
    };
    let (kind, data) = match mask(first, last) {
        _ if first == last => (host, octets(first)),
        Some(mask) => (subnet, [octets(first), octets(mask)].concat()),
        None => (range, [octets(first), octets(last)].concat()),
    };
    let [high, low] = port.to_be_bytes();
    Some(Identification { kind, reserved: [selector.protocol().unwrap_or(0), high, low], data })
}

/// The mask of a subnet, if these are its first and last address.
fn mask(first: IpAddr, last: IpAddr) -> Option<IpAddr> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            let mask = !(first.to_bits() ^ last.to_bits());
            let is_subnet = mask.leading_ones() + mask.trailing_zeros() == 32 && first.to_bits() & !mask == 0;
            is_subnet.then_some(Ipv4Addr::from(mask).into())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            let mask = !(first.to_bits() ^ last.to_bits());
            let is_subnet =
                mask.leading_ones() + mask.trailing_zeros() == 128 && first.to_bits() & !mask == 0;
            is_subnet.then_some(Ipv6Addr::from(mask).into())
        }
        _ => None,
    }
}

/// The selector that an identification is; nothing if it is of names, or of nothing.
pub(super) fn parse(id: &Identification) -> Option<TrafficSelector> {
    let data = &id.data[..];
    let v4 = |octets: &[u8]| Some(Ipv4Addr::from(*octets.first_chunk::<4>()?));
    let v6 = |octets: &[u8]| Some(Ipv6Addr::from(*octets.first_chunk::<16>()?));
    let (first, last): (IpAddr, IpAddr) = match (id.kind, data.len()) {
        (IdType::ID_IPV4_ADDR, 4) => (v4(data)?.into(), v4(data)?.into()),
        (IdType::ID_IPV6_ADDR, 16) => (v6(data)?.into(), v6(data)?.into()),
        (IdType::ID_IPV4_ADDR_RANGE, 8) => (v4(data)?.into(), v4(&data[4..])?.into()),
        (IdType::ID_IPV6_ADDR_RANGE, 32) => (v6(data)?.into(), v6(&data[16..])?.into()),
        (IdType::ID_IPV4_ADDR_SUBNET, 8) => {
            let (address, mask) = (v4(data)?.to_bits(), v4(&data[4..])?.to_bits());
            let is_mask = mask.leading_ones() + mask.trailing_zeros() >= 32;
            let ends = (Ipv4Addr::from(address & mask).into(), Ipv4Addr::from(address | !mask).into());
            is_mask.then_some(ends)?
        }
        (IdType::ID_IPV6_ADDR_SUBNET, 32) => {
            let (address, mask) = (v6(data)?.to_bits(), v6(&data[16..])?.to_bits());
            let is_mask = mask.leading_ones() + mask.trailing_zeros() >= 128;
            let ends = (Ipv6Addr::from(address & mask).into(), Ipv6Addr::from(address | !mask).into());
            is_mask.then_some(ends)?
        }
        _ => return None,
    };
    let [protocol, high, low] = id.reserved;
    let ports = match u16::from_be_bytes([high, low]) {
        0 => ANY_PORT,
        port => port..=port,
    };
    TrafficSelector::between(first, last)?.of(protocol, ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic_selector::ConfiguredSelectors;

    // RFC 2407 §4.6.2
    #[test]
    fn selectors_are_identifications() {
        for (text, kind, reserved) in [
            ("10.1.0.0/16", IdType::ID_IPV4_ADDR_SUBNET, [0, 0, 0]),
            ("0.0.0.0/0", IdType::ID_IPV4_ADDR_SUBNET, [0, 0, 0]),
            ("10.1.2.3/32[tcp/80]", IdType::ID_IPV4_ADDR, [6, 0, 80]),
            ("10.1.2.3-10.1.2.9", IdType::ID_IPV4_ADDR_RANGE, [0, 0, 0]),
            ("2001:db8::/32[udp]", IdType::ID_IPV6_ADDR_SUBNET, [17, 0, 0]),
            ("2001:db8::1", IdType::ID_IPV6_ADDR, [0, 0, 0]),
            ("::/0", IdType::ID_IPV6_ADDR_SUBNET, [0, 0, 0]),
            ("2001:db8::1-2001:db8::5", IdType::ID_IPV6_ADDR_RANGE, [0, 0, 0]),
        ] {
            let selectors = ConfiguredSelectors::parse([text]).unwrap().with(&[]);
            let selector = *selectors.iter().next().unwrap();
            let id = emit(&selector).unwrap();
            assert_eq!((id.kind, id.reserved), (kind, reserved), "{text}");
            assert_eq!(parse(&id), Some(selector), "{text}");
        }
        let ports = ConfiguredSelectors::parse(["10.1.2.3[tcp/80-90]"]).unwrap().with(&[]);
        assert_eq!(emit(ports.iter().next().unwrap()), None);
    }

    #[test]
    fn what_is_no_selector_is_none() {
        for (kind, data) in [
            (IdType::ID_FQDN, &b"a.example.org"[..]),
            (IdType::ID_IPV4_ADDR, &[1, 2, 3]),
            (IdType::ID_IPV4_ADDR_SUBNET, &[10, 0, 0, 0, 255, 0, 255, 0]),
            (IdType::ID_IPV4_ADDR_RANGE, &[10, 0, 0, 2, 10, 0, 0, 1]),
        ] {
            assert_eq!(parse(&Identification::new(kind, data)), None, "{kind}");
        }
        let port_alone =
            Identification { reserved: [0, 0, 80], ..Identification::new(IdType::ID_IPV4_ADDR, &[1; 4]) };
        assert_eq!(parse(&port_alone), None);
    }
}
