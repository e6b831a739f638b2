use super::*;
use crate::{
    general::packets::{octets, v4, v6},
    wire::{fold, sum},
};
use proptest::prelude::*;

const ACK: u8 = 16;

/// A segment with options and a checksum of zero, from port 1000 to 80.
fn segment(flags: u8, options: &[u8], data: usize) -> Vec<u8> {
    let header = HEADER + options.len().next_multiple_of(4);
    let mut s = vec![0; header];
    s[..4].copy_from_slice(&[3, 0xe8, 0, 80]);
    (s[12], s[FLAGS]) = ((header as u8 / 4) << 4, flags);
    s[HEADER..HEADER + options.len()].copy_from_slice(options);
    s.extend(octets(data));
    s
}

/// The sum over pseudo-header and segment: 0xffff if the checksum is right (RFC 9293 §3.1).
fn total(packet: &[u8]) -> u16 {
    let ip = Ip::parse(packet).unwrap();
    let addresses = if ip.is_v4() { &packet[12..20] } else { &packet[8..40] };
    let segment = &packet[ip.payload()..];
    fold(sum(addresses) + protocol::TCP as u32 + segment.len() as u32 + sum(segment))
}

fn packets(flags: u8, options: &[u8], data: usize) -> [Vec<u8>; 3] {
    let tcp = segment(flags, options, data);
    let hop = [protocol::TCP, 0, 1, 4, 0, 0, 0, 0];
    let mut all = [
        v4(protocol::TCP, 1, 0, &[1; 4], &tcp),
        v6(protocol::TCP, &tcp),
        v6(protocol::HOP_BY_HOP, &[&hop[..], &tcp].concat()),
    ];
    for p in &mut all {
        let at = Ip::parse(p).unwrap().payload() + CHECKSUM;
        let checksum = !total(p);
        p[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(total(p), 0xffff);
    }
    all
}

fn offered(packet: &[u8], at: usize) -> u16 {
    be16(packet, Ip::parse(packet).unwrap().payload() + HEADER + at)
}

#[test]
fn a_larger_size_is_lowered_wherever_it_stands() {
    for (options, at) in [
        (&[2, 4, 5, 0xb4][..], 2),
        (&[1, 2, 4, 5, 0xb4, 0], 3),
        (&[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 5, 0xb4], 12),
        (&[3, 3, 7, 2, 4, 5, 0xb4, 1], 5),
    ] {
        for flags in [SYN, SYN | ACK] {
            for before in packets(flags, options, 3) {
                for (mss, expected) in [(1300, Some(1300)), (1459, Some(1459)), (1460, None), (9000, None)] {
                    let mut p = before.clone();
                    assert_eq!(clamp(&mut p, mss), Ok(expected.is_some()));
                    assert_eq!(offered(&p, at), expected.unwrap_or(1460));
                    assert_eq!(total(&p), 0xffff, "RFC 1624 §3");
                    assert!(expected.is_some() || p == before);
                }
            }
        }
    }
}

#[test]
fn all_else_is_left() {
    let size = [2, 4, 5, 0xb4];
    let left = |mut p: Vec<u8>| {
        let before = p.clone();
        assert_eq!(clamp(&mut p, 500), Ok(false));
        assert_eq!(p, before);
    };
    packets(ACK, &size, 0).into_iter().for_each(left);
    packets(SYN, &[], 0).into_iter().for_each(left); // RFC 9293 §3.7.1: the default is small
    packets(SYN, &[], 40).into_iter().for_each(left);
    // Ends, lengths of nothing, lengths over the end, a size of another length.
    for options in [
        &[0, 2, 4, 5, 0xb4, 0, 0, 0][..],
        &[9, 0, 2, 4, 5, 0xb4, 0, 0],
        &[9, 1, 2, 4, 5, 0xb4, 0, 0],
        &[9, 9, 2, 4, 5, 0xb4, 0, 0],
        &[2, 3, 5, 0xb4],
        &[2, 6, 5, 0xb4, 1, 1, 1, 1],
        &[1, 1, 1, 2],
        &[1, 1, 2, 4],
    ] {
        packets(SYN, options, 8).into_iter().for_each(left);
    }
    left(v4(protocol::UDP, 1, 0, &[], &segment(SYN, &size, 0)));
    left(v4(protocol::TCP, 1, 3, &[], &segment(SYN, &size, 0)));
    left(v4(protocol::TCP, 1, 0, &[], &segment(SYN, &size, 0)[..19]));
    left(v4(protocol::TCP, 1, 0, &[], &segment(SYN, &size, 0)[..23]));
    let mut short = segment(SYN, &size, 0);
    short[12] = 0x40;
    left(v4(protocol::TCP, 1, 0, &[], &short));
}

#[test]
fn sizes_follow_from_the_mtu() {
    assert_eq!((of_mtu(1500, true), of_mtu(1500, false), of_mtu(30, false)), (1460, 1440, 0));
    let mut p = packets(SYN, &[2, 4, 5, 0xb4, 2, 4, 5, 0xb4], 0)[0].clone();
    assert_eq!(clamp(&mut p, 1300), Ok(true));
    assert_eq!((offered(&p, 2), offered(&p, 6)), (1300, 1300), "whichever counts");
}

proptest! {
    #[test]
    fn the_checksum_stays_right_and_the_walk_ends(
        options in proptest::collection::vec(prop_oneof![0u8..5, any::<u8>()], 0..40),
        mss: u16, data in 0usize..9,
    ) {
        for before in packets(SYN, &options, data) {
            let mut p = before.clone();
            let was_lowered = clamp(&mut p, mss).unwrap();
            prop_assert_eq!(was_lowered, p != before);
            prop_assert!(matches!(total(&p), 0xffff));
            prop_assert_eq!(clamp(&mut p, mss), Ok(false), "once is enough");
        }
    }

    #[test]
    fn any_octets_are_left_or_lowered(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), mss: u16) {
        let _ = clamp(&mut bytes, mss);
    }
}
