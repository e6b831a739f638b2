use super::*;
use crate::{
    general::packets::{octets, v4, v6},
    wire::{Place, be32, ipv4_checksum_ok},
};
use proptest::prelude::*;

fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    fragments(packet, mtu, 0x0102_0304)
        .unwrap()
        .map(|f| {
            let mut bytes = vec![0; f.len()];
            assert_eq!(f.emit(&mut bytes), bytes.len());
            bytes
        })
        .collect()
}

/// Offset in octets, whether more follow, the data: read from the bytes, not by the code under test.
fn v4_parts(f: &[u8]) -> (usize, bool, &[u8]) {
    let word = u16::from_be_bytes([f[6], f[7]]);
    ((word & 0x1fff) as usize * 8, word & 0x2000 != 0, &f[(f[0] & 15) as usize * 4..])
}

#[test]
fn rfc_791_example() {
    // RFC 791 §A, example 2: 452 octets of data over an MTU of 280 are 256 and 196 octets, the second at 32 * 8.
    let packet = v4(1, 111, 0, &[], &octets(452));
    let parts = cut(&packet, 280);
    let heads: Vec<_> = parts.iter().map(|f| (be16(f, 2), be16(f, 4), be16(f, 6), f.len())).collect();
    assert_eq!(heads, [(276, 111, 0x2000, 276), (216, 111, 32, 216)]);
    assert!(parts.iter().all(|f| ipv4_checksum_ok(&f[..20])));
}

#[test]
fn options_go_into_each_fragment_by_their_copy_bit() {
    // NOP, router alert (copied), record route (not copied), end.
    let options = [1, 0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0];
    let packet = v4(17, 1, 0, &options, &octets(100));
    let parts = cut(&packet, 68);
    assert_eq!(parts[0][20..36], packet[20..36], "the first has all"); // RFC 791 §3.2
    for f in &parts[1..] {
        assert_eq!(f[0], 0x46);
        assert_eq!(f[20..24], [0x94, 4, 0, 0]);
        assert!(ipv4_checksum_ok(&f[..24]));
    }
    let sizes: Vec<_> = parts.iter().map(|f| v4_parts(f).2.len()).collect();
    assert_eq!(sizes, [32, 40, 28]);
    for bad in [[0x94, 1, 0, 0], [0x94, 5, 0, 0], [1, 1, 1, 0x94]] {
        let packet = v4(17, 1, 0, &bad, &octets(100));
        assert_eq!(fragments(&packet, 68, 0).err(), Some(DropReason::Malformed), "{bad:?}");
    }
}

#[test]
fn a_fragment_is_cut_again() {
    for (flags, last_more) in [(0x2000 | 5, true), (5, false), (0x4000 | 5, false)] {
        let packet = v4(17, 9, flags, &[], &octets(64));
        let parts = cut(&packet, 52);
        let found: Vec<_> = parts.iter().map(|f| (v4_parts(f).0, v4_parts(f).1)).collect();
        assert_eq!(found, [(40, true), (72, last_more)]);
        assert!(parts.iter().all(|f| be16(f, 6) & 0x4000 == flags & 0x4000), "DF is the caller's concern");
    }
    let odd = v4(17, 9, 0x2000, &[], &octets(61));
    assert_eq!(fragments(&odd, 52, 0).err(), Some(DropReason::Malformed));
    let long = v4(17, 9, 0x1fff, &[], &octets(61));
    assert_eq!(fragments(&long, 52, 0).err(), Some(DropReason::Malformed));
}

#[test]
fn ipv6_is_cut_behind_what_each_hop_looks_at() {
    let hop = [protocol::DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0];
    let options = [protocol::ROUTING, 0, 1, 4, 0, 0, 0, 0];
    let routing = [protocol::DESTINATION_OPTIONS, 0, 4, 0, 0, 0, 0, 0];
    let last = [protocol::UDP, 0, 1, 4, 0, 0, 0, 0];
    let payload = [&hop[..], &options, &routing, &last, &octets(200)].concat();
    let packet = v6(protocol::HOP_BY_HOP, &payload);
    let parts = cut(&packet, 136);
    let mut data = vec![];
    for (i, f) in parts.iter().enumerate() {
        // RFC 8200 §4.5: the unfragmentable part, its last header now naming the fragment header.
        assert_eq!((f.len() - 40, f[6]), (be16(f, 4) as usize, protocol::HOP_BY_HOP));
        assert_eq!(f[40..56], packet[40..56]);
        assert_eq!(f[56], protocol::FRAGMENT);
        assert_eq!(f[57..64], packet[57..64]);
        assert_eq!((f[64], f[65]), (protocol::DESTINATION_OPTIONS, 0));
        assert_eq!(be16(f, 66), data.len() as u16 | u16::from(i + 1 < parts.len()));
        assert_eq!(be32(f, 68), 0x0102_0304);
        data.extend(&f[72..]);
    }
    assert_eq!((parts.len(), &data[..]), (4, &packet[64..]));
    for f in &parts {
        assert!(matches!(Ip::parse(f).unwrap().place, Place::First | Place::Later));
    }
}

#[test]
fn what_cannot_be_cut_says_so() {
    let packet = v4(17, 1, 0, &[], &octets(100));
    assert_eq!(fragments(&packet, 27, 0).err(), Some(DropReason::TooBig));
    assert_eq!(cut(&packet, 28).len(), 13);
    let packet = v6(17, &octets(100));
    assert_eq!(fragments(&packet, 55, 0).err(), Some(DropReason::TooBig));
    assert_eq!(cut(&packet, 56).len(), 13);
    let fragment = v6(protocol::FRAGMENT, &[&[17, 0, 0, 1, 0, 0, 0, 9][..], &octets(104)].concat());
    assert_eq!(fragments(&fragment, 100, 0).err(), Some(DropReason::TooBig));
    let mut long = vec![0; 8 + 8 * 26];
    (long[0], long[1]) = (17, 26);
    let packet = v6(protocol::HOP_BY_HOP, &[&long[..], &octets(500)].concat());
    assert_eq!(fragments(&packet, 600, 0).err(), Some(DropReason::TooBig));
    assert!(fragments(&[], 600, 0).is_err());
}

proptest! {
    /// A naive model puts the parts together: by offset, into a vector.
    #[test]
    fn the_parts_are_the_packet(len in 0usize..4000, mtu in 68usize..1600, id: u16, words in 0usize..11, is_v4: bool) {
        let data = octets(len);
        let packet = if is_v4 { v4(17, id, 0, &vec![1; words * 4], &data) } else { v6(17, &data) };
        let head = packet.len() - len;
        let parts = cut(&packet, mtu);
        if packet.len() <= mtu {
            prop_assert_eq!(parts, vec![packet]);
            return Ok(());
        }
        let mut model: Vec<u8> = vec![];
        for (i, f) in parts.iter().enumerate() {
            prop_assert!(f.len() <= mtu);
            let (offset, more, part) = match is_v4 {
                true => v4_parts(f),
                false => {
                    let word = u16::from_be_bytes([f[42], f[43]]);
                    ((word & !7) as usize, word & 1 != 0, &f[48..])
                }
            };
            prop_assert!(Ip::parse(f).is_ok());
            prop_assert_eq!(offset, model.len());
            prop_assert_eq!(more, i + 1 < parts.len());
            prop_assert!(!more || part.len() % 8 == 0 && f.len() + 8 > mtu);
            model.extend(part);
        }
        prop_assert_eq!(&model[..], &packet[head..]);
    }

    #[test]
    fn any_octets_are_cut_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), mtu in 0usize..200, v: u8) {
        if let Some(first) = bytes.first_mut() {
            *first = if v & 1 == 0 { 0x40 | v >> 4 } else { 0x60 };
        }
        if bytes.len() >= 60 {
            let n = bytes.len() as u16;
            if v & 1 == 0 {
                bytes[2..4].copy_from_slice(&n.to_be_bytes());
                let header = (bytes[0] & 15) as usize * 4;
                if header >= 20 {
                    write_checksum(&mut bytes[..header]);
                }
            } else {
                bytes[4..6].copy_from_slice(&(n - 40).to_be_bytes());
                bytes[6] = [0, 43, 44, 60, 17][v as usize / 2 % 5];
            }
        }
        if let Ok(parts) = fragments(&bytes, mtu, 1) {
            prop_assert!(parts.map(|f| f.len()).all(|n| n <= mtu));
        }
    }
}
