//! The example of RFC 9347, and streams that are cut, lost and reordered, beside a model that only counts octets.

use super::*;
use crate::general::packets::{octets, v4, v6};
use proptest::prelude::*;

/// An inner packet of so many octets in all.
fn packet(is_v4: bool, octets_in_all: usize, id: u16) -> Vec<u8> {
    let data: Vec<u8> = octets(octets_in_all).iter().map(|octet| octet ^ id as u8).collect();
    match is_v4 {
        true => v4(17, id, 0, &[], &data[20.min(octets_in_all)..]),
        false => v6(17, &data[40.min(octets_in_all)..]),
    }
}

fn fill(sender: &mut Sender, octets: usize) -> (Vec<u8>, Filled) {
    let mut out = vec![0xee; octets];
    let filled = sender.payload(None, &mut out);
    (out, filled)
}

fn accept(receiver: &mut Receiver, seq: u64, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut got = vec![];
    receiver.accept(seq, payload, |packet| got.push(packet.to_vec())).unwrap();
    got
}

fn drops(receiver: &mut Receiver) -> Vec<(DropReason, u64)> {
    let mut drops = vec![];
    receiver.drain_drops(|reason, n| drops.push((reason, n)));
    drops
}

/// RFC 9347 §A: packets of 800, 800, 60, 240 and 4000 octets in payloads of 1500 octets of data blocks.
#[test]
fn example_of_the_rfc() {
    let packets = [800, 800, 60, 240, 4000].map(|n| packet(true, n, n as u16));
    let mut sender = Sender::new(6000, true);
    packets.iter().for_each(|p| sender.push(p).unwrap());
    let payloads: Vec<_> = (0..4).map(|_| fill(&mut sender, HEADER + 1500)).collect();
    let offsets: Vec<_> = payloads.iter().map(|(p, _)| be32(p, 0)).collect();
    assert_eq!(offsets, [0, 100, 2900, 1400], "sub-type 0, no flags, BlockOffset");
    let octets: Vec<_> = payloads.iter().map(|(_, filled)| (filled.octets, filled.packets)).collect();
    assert_eq!(octets, [(1500, 1), (1500, 3), (1500, 0), (1400, 1)]);
    let stream: Vec<u8> =
        payloads.iter().flat_map(|(p, filled)| &p[HEADER..][..filled.octets]).copied().collect();
    assert_eq!(stream, packets.concat());
    assert_eq!(payloads[3].0[HEADER + 1400..], [0; 100], "a pad data block"); // RFC 9347 §6.1.3.3

    let mut receiver = Receiver::new(3, 1504, 1);
    let got: Vec<_> = (1..).zip(&payloads).map(|(seq, (p, _))| accept(&mut receiver, seq, p)).collect();
    assert_eq!(got[0], packets[..1]);
    assert_eq!(got[1], packets[1..4]);
    assert_eq!((&got[2][..], &got[3][..]), (&[][..], &packets[4..]));
    assert_eq!((drops(&mut receiver), receiver.lost()), (vec![], 0));
}

#[test]
fn congestion_header_as_the_rfc_draws_it() {
    let congestion = Congestion {
        probing: true,
        ce: true,
        loss_event_rate: 0x0102_0304,
        rtt_us: 0x2a_aaaa,
        echo_delay_us: 0x15_5555,
        transmit_delay_us: 1,
        tval: 0xa1a2_a3a4,
        techo: 0xb1b2_b3b4,
    };
    // RFC 9347 §6.1.2: 22, 21 and 21 bits: 10101010..., 10101..., 0...01.
    let drawn = [
        [1, 3, 0x12, 0x34],
        [1, 2, 3, 4],
        [0b1010_1010, 0b1010_1010, 0b1010_1010, 0b1010_1010],
        [0b1010_1010, 0b1010_0000, 0, 1],
        [0xa1, 0xa2, 0xa3, 0xa4],
        [0xb1, 0xb2, 0xb3, 0xb4],
    ]
    .concat();
    let header = Header { block_offset: 0x1234, congestion: Some(congestion) };
    let mut out = [0xee; 24];
    assert_eq!((header.emit(&mut out), &out[..]), (24, &drawn[..]));
    assert_eq!(Header::parse(&drawn), Ok((header, 24)));
    // What is larger is told as the largest.
    let large =
        Congestion { rtt_us: u32::MAX, echo_delay_us: 1 << 21, transmit_delay_us: u32::MAX, ..congestion };
    Header { block_offset: 0, congestion: Some(large) }.emit(&mut out);
    assert_eq!(out[8..16], [0xff; 8]);
    for n in 0..24 {
        assert_eq!(Header::parse(&drawn[..n]), Err(DropReason::Malformed));
    }
    // Reserved bits are ignored; other sub-types are not known.
    assert_eq!(Header::parse(&[0, 0xff, 0, 7]), Ok((Header { block_offset: 7, congestion: None }, 4)));
    assert_eq!(Header::parse(&[2, 0, 0, 0, 0, 0, 0, 0]), Err(DropReason::Malformed));
    let mut sender = Sender::new(100, true);
    sender.push(&packet(false, 48, 1)).unwrap();
    let mut out = [0xee; 24 + 30];
    assert_eq!(sender.payload(Some(congestion), &mut out).octets, 30);
    assert_eq!(sender.payload(Some(congestion), &mut out).octets, 18);
    assert_eq!(Header::parse(&out), Ok((Header { block_offset: 18, congestion: Some(congestion) }, 24)));
}

#[test]
fn all_padding_may_stand_between_fragments() {
    let long = packet(true, 2000, 1);
    let mut sender = Sender::new(4000, true);
    sender.push(&long).unwrap();
    let (first, _) = fill(&mut sender, 1004);
    let (second, _) = fill(&mut sender, 1004);
    let (pad, filled) = fill(&mut sender, 1004);
    assert_eq!((filled, &pad[..]), (Filled::default(), &[0; 1004][..]));
    let mut receiver = Receiver::new(3, 1004, 1);
    // RFC 9347 §2.2.3, §2.2.4: neither padding nor an empty payload ends what was begun.
    assert_eq!(accept(&mut receiver, 1, &first), [] as [Vec<u8>; 0]);
    assert_eq!(accept(&mut receiver, 2, &pad), [] as [Vec<u8>; 0]);
    assert_eq!(accept(&mut receiver, 3, &pad[..4]), [] as [Vec<u8>; 0]);
    assert_eq!(accept(&mut receiver, 4, &second), [long]);
    assert_eq!(drops(&mut receiver), []);
}

#[test]
fn without_fragments_each_packet_is_in_one_payload() {
    let mut sender = Sender::new(4000, false);
    let packets = [400, 400, 300, 900, 500].map(|n| packet(n % 200 == 0, n, n as u16));
    packets.iter().for_each(|p| sender.push(p).unwrap());
    // RFC 9347 §6.1.4, the D bit: a single data block for each.
    let mut filled = vec![];
    let mut receiver = Receiver::new(0, 804, 1);
    let mut got = vec![];
    for seq in 1..=3 {
        let (payload, f) = fill(&mut sender, 804);
        assert_eq!(be16(&payload, 2), 0);
        filled.push((f.octets, f.packets, f.too_big));
        got.extend(accept(&mut receiver, seq, &payload));
    }
    assert_eq!(filled, [(800, 2, 0), (300, 1, 0), (500, 1, 1)]);
    assert_eq!(got, [&packets[..3], &packets[4..]].concat(), "900 octets fit into no payload");
    assert_eq!(sender.queued(), 0);
}

#[test]
fn the_queue_is_bounded_and_takes_whole_packets() {
    let mut sender = Sender::new(100, true);
    for bad in
        [&[][..], &[0x45], &[0x00; 40], &[0x50; 40], &packet(true, 60, 1)[..59], &packet(false, 60, 1)[..5]]
    {
        assert_eq!(sender.push(bad), Err(DropReason::BadInner));
    }
    let padded = [packet(true, 60, 1), vec![0; 6]].concat();
    assert_eq!((sender.push(&padded), sender.queued()), (Ok(()), 60));
    assert_eq!(sender.push(&packet(true, 41, 1)), Err(DropReason::AggfragQueueFull));
    assert_eq!((sender.push(&packet(true, 40, 1)), sender.queued()), (Ok(()), 100));
    let mut none = Sender::new(0, true);
    assert_eq!(none.push(&packet(true, 20, 1)), Err(DropReason::AggfragQueueFull));
    assert_eq!(fill(&mut none, 8), (vec![0; 8], Filled::default()));
}

#[test]
fn a_fragment_that_would_not_show_its_length_is_not_begun() {
    let mut sender = Sender::new(1000, true);
    let packets = [packet(false, 95, 1), packet(false, 50, 2)];
    packets.iter().for_each(|p| sender.push(p).unwrap());
    let (payload, filled) = fill(&mut sender, 104);
    assert_eq!((filled.octets, &payload[99..]), (95, &[0; 5][..]));
    assert_eq!(fill(&mut sender, 104).1.octets, 50);
    // Others begin them, and their lengths are then known later (RFC 9347 §2.2.3).
    let stream = [packet(true, 25, 1), packet(false, 50, 2), packet(true, 31, 3)];
    for cut in 1..8 {
        let bytes = stream.concat();
        let mut receiver = Receiver::new(0, 2000, 1);
        let mut got = vec![];
        for (seq, at) in (1..).zip((0..bytes.len()).step_by(cut)) {
            let starts = [0, 25, 75, 106];
            let next = starts.iter().find(|start| **start >= at).unwrap();
            let data = &bytes[at..(at + cut).min(bytes.len())];
            let payload = [&[0, 0, 0, (next - at) as u8][..], data].concat();
            got.extend(accept(&mut receiver, seq, &payload));
        }
        assert_eq!(got, stream, "{cut} octets a payload");
    }
}

#[test]
fn what_the_window_has_passed_is_late() {
    let mut receiver = Receiver::new(3, 100, 1);
    let one = |n: u16| [&[0, 0, 0, 0][..], &packet(true, 30, n)].concat();
    assert_eq!(accept(&mut receiver, 4, &one(4)), [] as [Vec<u8>; 0]);
    assert!(receiver.is_waiting());
    let refused = |r: &mut Receiver, seq, payload: &[u8]| r.accept(seq, payload, |_| panic!()).unwrap_err();
    assert_eq!(refused(&mut receiver, 4, &one(4)), DropReason::ReplayDuplicate);
    assert_eq!(refused(&mut receiver, 4, &[0; 101]), DropReason::TooBig);
    assert_eq!(accept(&mut receiver, 5, &one(5)), [packet(true, 30, 4)][..0]);
    // 5 is four ahead of 1: the window has moved, and 1 is lost.
    assert_eq!(refused(&mut receiver, 1, &one(1)), DropReason::AggfragLate);
    assert_eq!(accept(&mut receiver, 2, &one(2)), [packet(true, 30, 2)]);
    assert_eq!(accept(&mut receiver, 3, &one(3)), [3, 4, 5].map(|n| packet(true, 30, n)));
    assert!(!receiver.is_waiting());
    assert_eq!(accept(&mut receiver, 8, &one(8)), [] as [Vec<u8>; 0]);
    let mut got = vec![];
    receiver.give_up(|p| got.push(p.to_vec()));
    assert_eq!(got, [packet(true, 30, 8)], "the timer has run out");
    receiver.give_up(|_| panic!());
    let far = u64::MAX - 5;
    assert_eq!(accept(&mut receiver, far, &one(1)), [] as [Vec<u8>; 0]);
    assert_eq!(accept(&mut receiver, far - 3, &one(9)), [packet(true, 30, 9)]);
    assert_eq!(receiver.lost(), 1 + 2 + (far - 3 - 9));
}

#[test]
fn payloads_that_disagree_lose_what_they_share_and_no_more() {
    let inner = packet(true, 100, 1);
    let other = packet(true, 40, 2);
    let begin = [&[0, 0, 0, 0][..], &inner[..60]].concat();
    // RFC 9347 §2.5: BlockOffsets that are not the rest of the packet.
    for (offset, data) in [
        (0, other.clone()),
        (39, [&inner[60..99], &other].concat()),
        (41, [&inner[60..], &[9], &other[..]].concat()),
    ] {
        let mut receiver = Receiver::new(3, 1000, 1);
        assert_eq!(accept(&mut receiver, 1, &begin), [] as [Vec<u8>; 0]);
        let payload = [&[0, 0, 0, offset][..], &data].concat();
        assert_eq!(accept(&mut receiver, 2, &payload), std::slice::from_ref(&other), "{offset}");
        assert_eq!(drops(&mut receiver), [(DropReason::AggfragIncomplete, 1)]);
    }
    // One that ends before its length is shown, and one that is larger than any packet.
    let mut receiver = Receiver::new(3, LARGEST + HEADER, 1);
    assert_eq!(accept(&mut receiver, 1, &[0, 0, 0, 0, 0x45]), [] as [Vec<u8>; 0]);
    let payload = [&[0, 0, 0, 2, 0, 0][..], &other].concat();
    assert_eq!(accept(&mut receiver, 2, &payload), std::slice::from_ref(&other));
    let largest = [&[0, 0, 0, 0, 0x60, 0, 0, 0, 0xff, 0xff][..], &[0; 60_000]].concat();
    assert_eq!(accept(&mut receiver, 3, &largest), [] as [Vec<u8>; 0]);
    let payload = [&[0, 0, 0xff, 0xff][..], &[0; 60_000]].concat();
    assert_eq!(accept(&mut receiver, 4, &payload), [] as [Vec<u8>; 0]);
    assert_eq!(drops(&mut receiver), [(DropReason::AggfragIncomplete, 2)]);
    // An unknown sub-type, or data that are no data block, and what is well after it.
    let mut receiver = Receiver::new(3, 1000, 1);
    let bad = [&[0, 0, 0, 0][..], &other, &[0x70; 30]].concat();
    assert_eq!(accept(&mut receiver, 1, &bad), std::slice::from_ref(&other));
    assert_eq!(accept(&mut receiver, 2, &begin), [] as [Vec<u8>; 0]);
    assert_eq!(accept(&mut receiver, 3, &[9; 30]), [] as [Vec<u8>; 0]);
    let rest = [&[0, 0, 0, 40][..], &inner[60..], &other].concat();
    assert_eq!(accept(&mut receiver, 4, &rest), [other]);
    assert_eq!(drops(&mut receiver), [(DropReason::AggfragIncomplete, 1), (DropReason::BadInner, 2)]);
}

/// A sent payload, with which octets of the stream it carries.
struct Sent {
    seq: u64,
    bytes: Vec<u8>,
    octets: std::ops::Range<usize>,
}

/// Sends packets, a few at a time, in payloads of changing sizes.
fn send(packets: &[Vec<u8>], sizes: &[usize], may_fragment: bool) -> Vec<Sent> {
    let mut sender = Sender::new(5000, may_fragment);
    let (mut waiting, mut sent, mut at) = (packets.iter(), vec![], 0);
    let mut next = waiting.next();
    let mut sizes = sizes.iter().cycle();
    while next.is_some() || sender.queued() > 0 {
        for _ in 0..3 {
            if next.is_some_and(|packet| sender.push(packet).is_ok()) {
                next = waiting.next();
            }
        }
        let (bytes, filled) = fill(&mut sender, HEADER + sizes.next().unwrap());
        assert_eq!(filled.too_big, 0);
        sent.push(Sent { seq: sent.len() as u64 + 1, bytes, octets: at..at + filled.octets });
        at += filled.octets;
    }
    sent
}

proptest! {
    /// What is delivered is, in order, each packet all of whose octets came.
    #[test]
    fn a_packet_is_delivered_if_all_of_it_came(
        shapes in proptest::collection::vec((any::<bool>(), 40usize..1600), 1..40),
        sizes in proptest::collection::vec(prop_oneof![1usize..60, 100usize..1600], 1..5),
        window in 0usize..6,
        loss in prop_oneof![Just(0u64), 0u64..60],
        seed: u64,
    ) {
        let packets: Vec<_> =
            shapes.iter().enumerate().map(|(i, (is_v4, n))| packet(*is_v4, *n, i as u16)).collect();
        let mut state = seed;
        let mut random = |below: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % below
        };
        let sent = send(&packets, &sizes, true);
        let came: Vec<_> = sent.iter().filter(|_| random(100) >= loss).collect();
        // None is overtaken by one that is more than the window ahead of it.
        let mut arrival: Vec<_> = came.iter().map(|s| (s.seq + random(window as u64 + 1), *s)).collect();
        arrival.sort_by_key(|(time, s)| (*time, s.seq));

        let mut receiver = Receiver::new(window, 2000, 1);
        let mut got = vec![];
        for (_, s) in &arrival {
            got.extend(accept(&mut receiver, s.seq, &s.bytes));
        }
        while receiver.is_waiting() {
            receiver.give_up(|packet| got.push(packet.to_vec()));
        }
        let mut at = 0;
        let expected: Vec<_> = packets.iter().filter(|packet| {
            let octets = at..at + packet.len();
            at = octets.end;
            let of_it = |s: &Sent| s.octets.start.max(octets.start) < s.octets.end.min(octets.end);
            let n: usize = came.iter().filter(|s| of_it(s))
                .map(|s| s.octets.end.min(octets.end) - s.octets.start.max(octets.start)).sum();
            n == packet.len()
        }).cloned().collect();
        prop_assert_eq!(got, expected);
        prop_assert!(loss > 0 || drops(&mut receiver).is_empty());
        let last = came.last().map_or(0, |s| s.seq);
        prop_assert_eq!(receiver.lost(), last - came.len() as u64);
    }

    #[test]
    fn without_fragments_a_lost_payload_is_all_that_is_lost(
        sizes in proptest::collection::vec(40usize..500, 1..30), lost in 0usize..10,
    ) {
        let packets: Vec<_> = sizes.iter().enumerate().map(|(i, n)| packet(true, *n, i as u16)).collect();
        let sent = send(&packets, &[500], false);
        let mut receiver = Receiver::new(0, 504, 1);
        let mut got = vec![];
        for s in sent.iter().filter(|s| s.seq != lost as u64) {
            got.extend(accept(&mut receiver, s.seq, &s.bytes));
        }
        let gone = sent.iter().find(|s| s.seq == lost as u64).map_or(0..0, |s| s.octets.clone());
        let mut at = 0;
        let expected: Vec<_> = packets.iter().filter(|packet| {
            let start = at;
            at += packet.len();
            !gone.contains(&start)
        }).cloned().collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(drops(&mut receiver), vec![]);
    }

    #[test]
    fn any_octets_are_read_to_some_end(
        payloads in proptest::collection::vec((0u64..12, proptest::collection::vec(prop_oneof![Just(0u8), Just(0x45), any::<u8>()], 0..90)), 0..30),
    ) {
        let mut receiver = Receiver::new(3, 80, 1);
        for (seq, mut payload) in payloads {
            if let Some(sub_type) = payload.first_mut() {
                *sub_type &= 1;
            }
            let _ = receiver.accept(seq, &payload, |packet| assert!(packet.len() >= 20));
        }
        receiver.give_up(|packet| assert!(packet.len() >= 20));
    }
}
