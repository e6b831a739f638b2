use super::*;
use proptest::prelude::*;

/// An IPv4 packet with a right checksum.
fn v4(options: usize, ttl: u8, offset: u16, payload: &[u8]) -> Vec<u8> {
    let header = IPV4 + options;
    let mut p = vec![0; header];
    p[0] = 0x40 | (header / 4) as u8;
    p[2..4].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    p[6..8].copy_from_slice(&offset.to_be_bytes());
    (p[8], p[9]) = (ttl, 17);
    p[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let checksum = !fold(sum(&p));
    p[10..12].copy_from_slice(&checksum.to_be_bytes());
    p.extend(payload);
    p
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0; IPV6];
    p[0] = 0x60;
    p[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    (p[6], p[7]) = (next, 64);
    (p[8], p[23], p[24], p[39]) = (0xfd, 1, 0xfd, 2);
    p.extend(payload);
    p
}

#[test]
fn vlan_tags_are_passed_over_twice_and_no_more() {
    let frame = |tags: usize| {
        let mut f = vec![0; 12];
        (0..tags).for_each(|_| f.extend([0x81, 0, 0, 5]));
        f.extend([0x86, 0xdd]);
        f
    };
    assert_eq!(ethernet(&frame(0)), Ok((ETHERTYPE_IPV6, 14)));
    assert_eq!(ethernet(&frame(2)), Ok((ETHERTYPE_IPV6, 22)));
    assert_eq!(ethernet(&frame(3)).map(|f| f.0), Ok(0x8100));
    assert_eq!(ethernet(&frame(0)[..13]), Err(DropReason::Malformed));
    assert_eq!(ethernet(&frame(1)[..17]), Err(DropReason::Malformed));
}

#[test]
fn ports_are_shown_by_whole_packets_and_first_fragments() {
    let udp = [0, 53, 0x12, 0x34, 0, 8, 0, 0];
    for (offset, ports) in [(0, true), (0x2000, true), (0x2001, false), (1, false)] {
        let p = v4(4, 64, offset, &udp);
        let ip = Ip::parse(&p).unwrap();
        assert_eq!((ip.payload(), ip.len()), (24, 32));
        assert_eq!(ip.flow().ports, ports.then_some((53, 0x1234)), "{offset:#x}");
    }
    let p = v4(0, 64, 0, &udp[..3]);
    assert_eq!(Ip::parse(&p).unwrap().flow().ports, None, "too short for ports");
}

#[test]
fn ipv6_extension_headers_lead_to_the_upper_protocol() {
    let mut payload = vec![protocol::ROUTING, 1];
    payload.extend([0; 14]);
    payload.extend([protocol::FRAGMENT, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend([protocol::DESTINATION_OPTIONS, 0, 0, 1, 0, 0, 0, 9]);
    payload.extend([protocol::UDP, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    let mut p = v6(protocol::HOP_BY_HOP, &payload);
    let ip = Ip::parse(&p).unwrap();
    assert_eq!((ip.protocol(), ip.payload(), ip.place), (protocol::UDP, IPV6 + 40, Place::First));
    assert_eq!(ip.flow().ports, Some((1, 2)));
    p[IPV6 + 24 + 2] = 1; // a later fragment: what follows is no header
    let ip = Ip::parse(&p).unwrap();
    assert_eq!((ip.place, ip.flow().ports), (Place::Later, None));
    p[IPV6 + 1] = 200; // an extension longer than the packet
    assert_eq!(Ip::parse(&p), Err(DropReason::Malformed));
}

#[test]
fn lengths_that_do_not_fit_are_malformed() {
    let whole = v4(0, 64, 0, &[0; 8]);
    for n in 0..whole.len() {
        assert_eq!(Ip::parse(&whole[..n]), Err(DropReason::Malformed), "{n}");
    }
    let whole = v6(17, &[0; 8]);
    for n in 0..whole.len() {
        assert_eq!(Ip::parse(&whole[..n]), Err(DropReason::Malformed), "{n}");
    }
    let mut short = v4(0, 64, 0, &[]);
    short[0] = 0x44;
    assert_eq!(Ip::parse(&short), Err(DropReason::Malformed));
}

proptest! {
    #[test]
    fn parsing_never_panics_and_stays_inside(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ethernet(&bytes);
        if let Ok(ip) = Ip::parse(&bytes) {
            prop_assert!(ip.payload() <= ip.len() && ip.len() <= bytes.len());
            ip.flow();
        }
    }

    #[test]
    fn the_checksum_stays_right(ttl: u8, tos: u8, ecn in 0u8..4, id: u16) {
        let mut p = v4(0, ttl, 0, &[]);
        p[1] = tos;
        p[4..6].copy_from_slice(&id.to_be_bytes());
        p[10..12].fill(0);
        let checksum = !fold(sum(&p));
        p[10..12].copy_from_slice(&checksum.to_be_bytes());
        let result = decrement_ttl(&mut p);
        prop_assert_eq!(result.is_ok(), ttl > 1);
        prop_assert_eq!(p[8], if ttl > 1 { ttl - 1 } else { ttl });
        prop_assert!(ipv4_checksum_ok(&p));
        if result.is_ok() {
            increment_ttl(&mut p);
            prop_assert!(ipv4_checksum_ok(&p) && p[8] == ttl);
        }
        set_ecn(&mut p, ecn);
        prop_assert!(ipv4_checksum_ok(&p) && p[1] == tos & !3 | ecn);
    }
}

#[test]
fn types_of_messages_stand_in_the_place_of_ports() {
    // RFC 4301 §4.4.1.1: the type in the upper octet, then ICMP's code; Mobility Headers have their type as third octet.
    let message = [3, 4, 5, 6, 0, 0, 0, 0];
    for (upper, number) in
        [(protocol::ICMP, 0x0304), (protocol::ICMPV6, 0x0304), (protocol::MOBILITY, 0x0500)]
    {
        let mut p = v6(upper, &message);
        assert_eq!(Ip::parse(&p).unwrap().flow().ports, Some((number, number)), "{upper}");
        p = v6(upper, &message[..3]);
        assert_eq!(Ip::parse(&p).unwrap().flow().ports, None, "{upper}, too short");
        let later = [&[upper, 0, 0, 9, 0, 0, 0, 1], &message[..]].concat();
        p = v6(protocol::FRAGMENT, &later);
        assert_eq!(Ip::parse(&p).unwrap().flow().ports, None, "{upper}, a later fragment");
    }
    for upper in [protocol::ESP, protocol::AH, 47] {
        assert_eq!(Ip::parse(&v6(upper, &message)).unwrap().flow().ports, None, "{upper}");
    }
}
