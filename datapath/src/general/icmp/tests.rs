use super::*;
use crate::{
    general::packets::{octets, v4, v6},
    wire::{decrement_ttl, ipv4_checksum_ok},
};
use Problem::{HopLimit, Prohibited, ReassemblyTime, TooBig as Large};
use proptest::prelude::*;
use std::net::IpAddr;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn gateway(is_v4: bool) -> Addr {
    addr(if is_v4 { "192.0.2.1" } else { "2001:db8::1" })
}

fn error(problem: Problem, packet: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0xee; 1300];
    let len = emit(problem, gateway(packet[0] >> 4 == 4), packet, &mut out)?;
    out.truncate(len);
    Some(out)
}

#[test]
fn types_codes_and_mtus() {
    for (problem, of_v4, of_v6) in [
        (Large { mtu: 1400 }, [3, 4, 1400], [2, 0, 1400]), // RFC 1191 §4, RFC 4443 §3.2
        (Large { mtu: 50 }, [3, 4, 68], [2, 0, 1280]),     // RFC 8200 §5
        (HopLimit, [11, 0, 0], [3, 0, 0]),
        (ReassemblyTime, [11, 1, 0], [3, 1, 0]),
        (Prohibited, [3, 13, 0], [1, 1, 0]),
    ] {
        for (packet, head, expected, src, dst) in [
            (v4(17, 7, 0, &[], &octets(30)), IPV4, of_v4, "192.0.2.1", "10.0.0.1"),
            (v6(17, &octets(30)), IPV6, of_v6, "2001:db8::1", "fd00::1"),
        ] {
            let e = error(problem, &packet).unwrap();
            let ip = Ip::parse(&e).unwrap();
            assert_eq!((ip.src(), ip.dst(), ip.len()), (addr(src), addr(dst), e.len()));
            assert_eq!([e[head] as u32, e[head + 1] as u32, be32(&e, head + 4)], expected);
            assert_eq!(e[head + 8..], packet, "{problem:?}");
            assert_eq!(total(&e[..head], &e[head..]), 0xffff);
        }
    }
    let e = error(HopLimit, &v4(17, 7, 0, &[], &octets(30))).unwrap();
    assert!(ipv4_checksum_ok(&e[..20]) && e[9] == protocol::ICMP);
}

#[test]
fn as_much_is_shown_as_fits() {
    // RFC 1812 §4.3.2.3, RFC 4443 §2.4(c).
    for n in [0, 500, 528, 529, 1400, 9000] {
        let packet = v4(17, 7, 0, &[], &octets(n));
        let e = error(HopLimit, &packet).unwrap();
        assert_eq!(e.len(), (28 + 20 + n).min(576));
        assert_eq!(e[28..], packet[..e.len() - 28]);
    }
    for n in [0, 1192, 1193, 9000] {
        let packet = v6(17, &octets(n));
        let e = error(HopLimit, &packet).unwrap();
        assert_eq!(e.len(), (48 + 40 + n).min(1280));
        assert_eq!(e[48..], packet[..e.len() - 48]);
    }
    assert_eq!(emit(HopLimit, gateway(true), &v4(17, 7, 0, &[], &octets(30)), &mut [0; 77]), None);
    assert_eq!(emit(HopLimit, gateway(false), &v4(17, 7, 0, &[], &octets(30)), &mut [0; 1280]), None);
}

#[test]
fn what_must_not_be_answered_is_not() {
    // RFC 1122 §3.2.2, RFC 4443 §2.4(e).
    let icmp = |kind: u8| v4(protocol::ICMP, 1, 0, &[], &[kind, 0, 0, 0, 0, 0, 0, 0]);
    let icmp6 = |kind: u8| v6(protocol::ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    for kind in 0..=255 {
        assert_eq!(error(HopLimit, &icmp(kind)).is_none(), [3, 4, 5, 11, 12].contains(&kind), "{kind}");
        assert_eq!(error(HopLimit, &icmp6(kind)).is_none(), kind < 128 || kind == 137, "{kind}");
    }
    assert!(error(HopLimit, &v4(protocol::ICMP, 1, 0, &[], &[])).is_none());
    let hop = [protocol::ICMPV6, 0, 1, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0];
    assert!(
        error(HopLimit, &v6(protocol::HOP_BY_HOP, &hop)).is_none(),
        "an error behind an extension header"
    );

    assert!(error(HopLimit, &v4(17, 1, 0x2000, &[], &octets(16))).is_some());
    assert!(error(HopLimit, &v4(17, 1, 0x2001, &[], &octets(16))).is_none());
    assert!(error(HopLimit, &v4(17, 1, 1, &[], &octets(16))).is_none());
    let later = [17, 0, 0, 9, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    assert!(error(HopLimit, &v6(protocol::FRAGMENT, &later)).is_none());

    let v4_between = |src: [u8; 4], dst: [u8; 4]| {
        let mut p = v4(17, 1, 0, &[], &octets(16));
        p[12..16].copy_from_slice(&src);
        p[16..20].copy_from_slice(&dst);
        write_checksum(&mut p[..20]);
        p
    };
    let host = [10, 0, 0, 1];
    assert!(error(Large { mtu: 1000 }, &v4_between(host, host)).is_some());
    for bad in [[0, 0, 0, 0], [224, 0, 0, 1], [239, 1, 1, 1], [255; 4], [127, 0, 0, 1], [250, 1, 1, 1]] {
        assert!(error(Large { mtu: 1000 }, &v4_between(bad, host)).is_none(), "from {bad:?}");
    }
    for bad in [[224, 0, 0, 1], [255; 4]] {
        assert!(error(Large { mtu: 1000 }, &v4_between(host, bad)).is_none(), "to {bad:?}");
    }
    let v6_between = |src: &str, dst: &str| {
        let mut p = v6(17, &octets(16));
        p[8..24].copy_from_slice(&addr(src).bits.to_be_bytes());
        p[24..40].copy_from_slice(&addr(dst).bits.to_be_bytes());
        p
    };
    for (src, dst, large, other) in [
        ("fd00::1", "fd00::2", true, true),
        ("fd00::1", "ff02::1", true, false), // RFC 4443 §2.4(e.3)
        ("::", "fd00::2", false, false),
        ("::1", "fd00::2", false, false),
        ("ff02::1", "fd00::2", false, false),
    ] {
        let p = v6_between(src, dst);
        assert_eq!(error(Large { mtu: 1300 }, &p).is_some(), large, "{src} {dst}");
        assert_eq!(error(Prohibited, &p).is_some(), other, "{src} {dst}");
    }
    let mut broken = v4(17, 1, 0, &[], &octets(16));
    broken[11] ^= 1;
    assert!(error(HopLimit, &broken).is_none());
}

/// A "fragmentation needed" or "packet too big" about a packet, of which so many octets are shown.
fn too_big(mtu: u16, packet: &[u8], shown: usize) -> Vec<u8> {
    let message = |kind: u8, code: u8, word: u32| {
        [&[kind, code, 0, 0][..], &word.to_be_bytes(), &packet[..shown]].concat()
    };
    match packet[0] >> 4 {
        4 => checked(v4(protocol::ICMP, 9, 0, &[], &message(3, 4, mtu as u32))),
        _ => checked(v6(protocol::ICMPV6, &message(2, 0, mtu as u32))),
    }
}

/// With the ICMP checksum put right.
fn checked(mut p: Vec<u8>) -> Vec<u8> {
    let at = Ip::parse(&p).unwrap().payload();
    p[at + 2..at + 4].fill(0);
    let checksum = !total(&p[..at], &p[at..]);
    p[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    p
}

fn sealed(is_v4: bool, upper: u8, data: &[u8]) -> Vec<u8> {
    if is_v4 { v4(upper, 1, 0x4000, &[], data) } else { v6(upper, data) }
}

#[test]
fn our_own_packets_are_known_by_eight_octets() {
    let esp = [0xca, 0xfe, 0, 1, 0, 0, 0, 7, 9, 9, 9, 9];
    let ah = [50, 4, 0, 0, 0xca, 0xfe, 0, 2, 0, 0, 0, 7];
    let udp = [0x11, 0x94, 0x30, 0x39, 0, 20, 0, 0, 0xca, 0xfe, 0, 3];
    let ike = [0x11, 0x94, 0x30, 0x39, 0, 20, 0, 0, 0, 0, 0, 0];
    let ports = |spi| Carried::Udp { src_port: 4500, dst_port: 12345, spi };
    for is_v4 in [true, false] {
        let head = if is_v4 { IPV4 } else { IPV6 };
        let (src, dst) = if is_v4 { ("10.0.0.1", "10.0.0.2") } else { ("fd00::1", "fd00::2") };
        for (upper, data, shown, carried) in [
            (protocol::ESP, esp, 8, Carried::Esp { spi: 0xcafe_0001 }),
            (protocol::ESP, esp, 12, Carried::Esp { spi: 0xcafe_0001 }),
            (protocol::AH, ah, 8, Carried::Ah { spi: 0xcafe_0002 }),
            (protocol::UDP, udp, 8, ports(None)),
            (protocol::UDP, udp, 11, ports(None)),
            (protocol::UDP, udp, 12, ports(Some(0xcafe_0003))),
            (protocol::UDP, ike, 12, ports(None)),
        ] {
            let packet = sealed(is_v4, upper, &data);
            let read = TooBig::parse(&too_big(1400, &packet, head + shown));
            assert_eq!(read, Some(TooBig { src: addr(src), dst: addr(dst), carried, mtu: 1400 }));
            assert_eq!(TooBig::parse(&too_big(1400, &packet, head + 7)), None);
        }
        assert_eq!(TooBig::parse(&too_big(1400, &sealed(is_v4, protocol::TCP, &esp), head + 8)), None);
        let mut wrong = too_big(1400, &sealed(is_v4, protocol::ESP, &esp), head + 8);
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(TooBig::parse(&wrong), None, "its checksum is wrong");
    }
}

#[test]
fn what_the_way_changed_in_our_packet_does_not_matter() {
    let mut packet = v4(protocol::ESP, 1, 0x4000, &[0x94, 4, 0, 0], &octets(64));
    decrement_ttl(&mut packet).unwrap();
    packet[10] ^= 0x55; // its checksum is not ours to check
    let read = TooBig::parse(&too_big(1300, &packet, 24 + 8)).unwrap();
    assert_eq!((read.carried, read.mtu), (Carried::Esp { spi: be32(&octets(4), 0) }, 1300));
    packet[7] = 1;
    assert_eq!(TooBig::parse(&too_big(1300, &packet, 32)), None, "a later fragment shows no SPI");
    // RFC 4443 §3.2, over a fragment header and destination options.
    let front = [protocol::DESTINATION_OPTIONS, 0, 0, 1, 0, 0, 0, 9, 50, 0, 1, 4, 0, 0, 0, 0];
    let packet = v6(protocol::FRAGMENT, &[&front[..], &octets(64)].concat());
    let read = TooBig::parse(&too_big(1300, &packet, 64)).unwrap();
    assert_eq!(read.carried, Carried::Esp { spi: be32(&octets(4), 0) });
    let mut later = packet.clone();
    later[43] = 9;
    assert_eq!(TooBig::parse(&too_big(1300, &later, 64)), None);
}

#[test]
fn mtus_that_are_none() {
    // RFC 1191 §5: by the plateau below the length that our packet had.
    for (len, mtu) in [
        (65_000, 32_000),
        (1500, 1492),
        (1492, 1006),
        (1420, 1006),
        (576, 508),
        (297, 296),
        (296, 68),
        (60, 68),
    ] {
        let mut packet = v4(protocol::ESP, 1, 0x4000, &[], &octets(64));
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        assert_eq!(TooBig::parse(&too_big(0, &packet, 28)).unwrap().mtu, mtu, "{len}");
    }
    let packet = v6(protocol::ESP, &octets(64));
    assert_eq!(TooBig::parse(&too_big(1279, &packet, 48)), None); // RFC 8201 §4
    assert_eq!(TooBig::parse(&too_big(1280, &packet, 48)).unwrap().mtu, 1280);
    let mut large = too_big(0, &packet, 48);
    large[44..48].copy_from_slice(&0x0010_0000_u32.to_be_bytes());
    assert_eq!(TooBig::parse(&checked(large)).unwrap().mtu, u16::MAX);
}

#[test]
fn the_rate_is_limited() {
    let mut limit = RateLimit::new(10, 3);
    let mut sent = |now| (0..10).filter(|_| limit.take(now)).count();
    assert_eq!(sent(5), 3, "the burst");
    assert_eq!([sent(104), sent(105), sent(205), sent(400)], [0, 1, 1, 1]);
    assert_eq!([sent(405), sent(10_000), sent(u64::MAX)], [1, 3, 3]);
    assert_eq!(sent(0), 0, "time that goes back gives nothing");
    assert!(!RateLimit::new(1000, 0).take(1000));
    let mut limit = RateLimit::new(7, 1);
    assert_eq!((0..10_000).filter(|now| limit.take(*now)).count(), 70, "the average");
}

proptest! {
    #[test]
    fn any_octets_are_answered_or_not(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), is_v4: bool, kind: u8) {
        let _ = TooBig::parse(&bytes);
        if bytes.len() >= 60 {
            let n = bytes.len() as u16;
            if is_v4 {
                (bytes[0], bytes[9]) = (0x45, protocol::ICMP);
                bytes[2..4].copy_from_slice(&n.to_be_bytes());
                bytes[6..8].fill(0);
                write_checksum(&mut bytes[..20]);
                (bytes[20], bytes[21], bytes[28]) = (3, 4, 0x45);
            } else {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(n - 40).to_be_bytes());
                (bytes[6], bytes[40], bytes[48]) = (protocol::ICMPV6, 2, 0x60);
                bytes[44..48].copy_from_slice(&[0, 0, 6, 0]);
            }
            let packet = checked(bytes);
            let _ = TooBig::parse(&packet);
            let mut out = [0; MOST_V6];
            let problem = [HopLimit, ReassemblyTime, Prohibited, Large { mtu: 1300 }][kind as usize % 4];
            if let Some(len) = emit(problem, gateway(is_v4), &packet, &mut out) {
                prop_assert!(Ip::parse(&out[..len]).is_ok_and(|ip| ip.len() == len));
                prop_assert!(emit(HopLimit, gateway(is_v4), &out[..len], &mut [0; MOST_V6]).is_none());
            }
        }
    }
}
