//! Each order of arrival, each kind of overlap, floods, and a naive model beside it.

use super::*;
use crate::{
    general::{
        fragment::{FRAGMENT_HEADER, fragments},
        packets::{octets, v4, v6},
    },
    wire::{IPV4, Ip, ipv4_checksum_ok, set_ecn},
};
use Outcome::{Done, Held, Refused};
use proptest::prelude::*;

const SMALL: Limits = Limits { octets: 4 * BLOCK, datagrams: 4, fragments: 8, v4_ms: 30_000, v6_ms: 60_000 };

/// A reassembly and what it writes to.
struct Side(Reassembly, Vec<u8>);

impl Side {
    fn new(limits: Limits) -> Side {
        Side(Reassembly::new(limits), vec![0xee; LARGEST])
    }

    fn at(&mut self, now_ms: u64, packet: &[u8]) -> Outcome {
        self.0.insert(From::Clear, now_ms, packet, &mut self.1)
    }

    fn insert(&mut self, packet: &[u8]) -> Outcome {
        self.at(0, packet)
    }

    /// The datagram that the last of these makes whole.
    fn whole<P: AsRef<[u8]>>(&mut self, packets: &[P]) -> &[u8] {
        let (last, others) = packets.split_last().unwrap();
        for packet in others {
            assert_eq!(self.insert(packet.as_ref()), Held);
        }
        match self.insert(last.as_ref()) {
            Done(len) => &self.1[..len],
            other => panic!("{other:?}"),
        }
    }

    fn drops(&mut self) -> Vec<(DropReason, u64)> {
        let mut drops = vec![];
        self.0.drain_drops(|reason, n| drops.push((reason, n)));
        drops
    }

    fn is_empty(&self) -> bool {
        self.0.datagrams() == 0 && self.0.octets() == 0
    }
}

fn cut(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let emit = |f: super::super::fragment::Fragment<'_>| {
        let mut bytes = vec![0; f.len()];
        f.emit(&mut bytes);
        bytes
    };
    fragments(packet, mtu, 77).unwrap().map(emit).collect()
}

/// A fragment of UDP, of octets `start..end` of a fixed content.
fn part(is_v4: bool, id: u16, start: usize, end: usize, more: bool) -> Vec<u8> {
    piece(is_v4, id, start, &octets(end)[start..], more)
}

fn piece(is_v4: bool, id: u16, start: usize, data: &[u8], more: bool) -> Vec<u8> {
    if is_v4 {
        return v4(17, id, (start / 8) as u16 | if more { MF } else { 0 }, &[], data);
    }
    let mut payload = vec![17, 0, 0, 0, 0, 0, 0, 0];
    payload[2..4].copy_from_slice(&(start as u16 | more as u16).to_be_bytes());
    payload[6..8].copy_from_slice(&id.to_be_bytes());
    payload.extend(data);
    v6(protocol::FRAGMENT, &payload)
}

const MF: u16 = 0x2000;

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let insert_everywhere = |p: Vec<usize>| {
        (0..n).map(move |at| {
            let mut p = p.clone();
            p.insert(at, n - 1);
            p
        })
    };
    permutations(n - 1).into_iter().flat_map(insert_everywhere).collect()
}

#[test]
fn every_order_gives_the_same_datagram() {
    let hop = [17, 0, 1, 4, 0, 0, 0, 0];
    let v6_with_options = v6(protocol::HOP_BY_HOP, &[&hop[..], &octets(4000)].concat());
    for packet in [
        v4(17, 5, 0, &[], &octets(4000)),
        v4(50, 5, 0, &[0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0], &octets(4001)),
        v6(17, &octets(4000)),
        v6_with_options,
    ] {
        for n in 2..=4 {
            let parts = cut(&packet, 48 + 4096_usize.div_ceil(n).next_multiple_of(8));
            assert_eq!(parts.len(), n);
            for order in permutations(n) {
                let mut side = Side::new(SMALL);
                let arrival: Vec<_> = order.iter().map(|i| &parts[*i]).collect();
                assert_eq!(side.whole(&arrival), packet, "{order:?}");
                assert!(side.is_empty());
            }
        }
    }
}

#[test]
fn the_largest_datagrams_fit_and_larger_ones_do_not() {
    for packet in [v4(17, 1, 0, &[], &octets(LARGEST - IPV4)), v6(17, &octets(LARGEST - IPV6))] {
        let mut side = Side::new(Limits { octets: 32 * BLOCK, ..Limits::default() });
        assert_eq!(side.whole(&cut(&packet, 9000)), packet);
    }
    // RFC 8200 §4.5: the "ping of death": an end that no length can say.
    for is_v4 in [true, false] {
        let mut side = Side::new(SMALL);
        let last = piece(is_v4, 1, 65_528, &[0; 8], false);
        assert_eq!(side.insert(&last), Refused(DropReason::ReassemblyTooLong));
        assert!(side.is_empty());
    }
    // With the options of the first it is too long, though no fragment says so.
    let mut side = Side::new(Limits::default());
    let first = v4(17, 1, MF, &[1; 40], &octets(65_504)[..65_400]);
    assert_eq!(side.insert(&first), Held);
    let last = v4(17, 1, 65_400 / 8, &[], &[0; 115]);
    assert_eq!(side.insert(&last), Refused(DropReason::ReassemblyTooLong));
    assert_eq!(side.drops(), [(DropReason::ReassemblyTooLong, 1)]);
}

#[test]
fn the_headers_are_those_of_the_first() {
    let (mut first, mut last) = (part(true, 1, 0, 16, true), part(true, 1, 16, 20, false));
    (first[8], last[8]) = (9, 33);
    first[1] = 0xb8;
    first[6] |= 0x40;
    crate::general::fragment::write_checksum(&mut first[..IPV4]);
    crate::general::fragment::write_checksum(&mut last[..IPV4]);
    let mut side = Side::new(SMALL);
    let whole = side.whole(&[last, first]);
    assert!(ipv4_checksum_ok(&whole[..IPV4]));
    assert_eq!((whole[1], whole[8], whole.len()), (0xb8, 9, 40));
    assert_eq!(whole[6..8], [0x40, 0], "DF stays, MF and offset go");
    // RFC 8200 §4.5: the next header is that of the first fragment, whatever the others say.
    let mut last = part(false, 1, 16, 20, false);
    last[40] = 6;
    let whole = side.whole(&[last, part(false, 1, 0, 16, true)]);
    assert_eq!((whole[6], whole.len(), &whole[40..]), (17, 60, &octets(20)[..]));
}

#[test]
fn overlaps_of_every_kind_take_the_datagram_with_them() {
    // What is held, and what comes then: inside, around, over either edge, same start, same end.
    let overlaps = [
        ((16, 48, true), (24, 40, true)),
        ((16, 48, true), (8, 56, true)),
        ((16, 48, true), (8, 24, true)),
        ((16, 48, true), (40, 56, true)),
        ((16, 48, true), (16, 32, true)),
        ((16, 48, true), (32, 48, true)),
        ((16, 48, true), (16, 56, true)),
        ((16, 48, true), (16, 48, false)),
        ((16, 48, false), (16, 48, true)),
        ((0, 24, true), (16, 40, false)),
        // No overlap, and yet they contradict each other on the end.
        ((16, 48, false), (48, 56, true)),
        ((16, 48, false), (56, 60, false)),
        ((16, 48, true), (8, 15, false)),
        ((16, 48, false), (8, 15, false)),
    ];
    for is_v4 in [true, false] {
        for ((start, end, more), (from, to, then_more)) in overlaps {
            let mut side = Side::new(SMALL);
            assert_eq!(side.insert(&part(is_v4, 1, start, end, more)), Held);
            let then = part(is_v4, 1, from, to, then_more);
            // RFC 5722 §4: also those that come later are discarded.
            assert_eq!(side.insert(&then), Refused(DropReason::FragmentOverlap), "{start}-{end} {from}-{to}");
            assert_eq!(side.insert(&part(is_v4, 1, 0, 8, true)), Refused(DropReason::FragmentOverlap));
            assert_eq!(side.drops(), [(DropReason::FragmentOverlap, 1)]);
            assert_eq!((side.0.datagrams(), side.0.octets()), (1, 0));
        }
    }
}

#[test]
fn a_duplicate_is_ignored_and_a_forged_one_is_an_overlap() {
    for is_v4 in [true, false] {
        let mut side = Side::new(SMALL);
        for (start, end, more) in [(0, 16, true), (16, 24, false)] {
            let mut other = Side::new(SMALL);
            let first = part(is_v4, 1, start, end, more);
            assert_eq!(other.insert(&first), Held);
            assert_eq!(other.insert(&first), Refused(DropReason::FragmentDuplicate)); // RFC 8200 §4.5
            assert_eq!(other.drops(), []);
            let forged = piece(is_v4, 1, start, &vec![0xaa; end - start], more);
            assert_eq!(other.insert(&forged), Refused(DropReason::FragmentOverlap));
        }
        assert_eq!(side.insert(&part(is_v4, 1, 0, 16, true)), Held);
        assert_eq!(side.insert(&part(is_v4, 1, 0, 16, true)), Refused(DropReason::FragmentDuplicate));
        assert_eq!(side.insert(&part(is_v4, 1, 16, 24, false)), Done(24 + if is_v4 { IPV4 } else { IPV6 }));
    }
}

#[test]
fn fragments_wrong_in_themselves_are_dropped_alone() {
    for is_v4 in [true, false] {
        let mut side = Side::new(SMALL);
        let bad = [
            (piece(is_v4, 1, 8, &[], true), DropReason::Malformed),
            (piece(is_v4, 1, 8, &[], false), DropReason::Malformed),
            (piece(is_v4, 1, 8, &[0; 12], true), DropReason::Malformed),
            (piece(is_v4, 1, 0, &[0; 7], true), DropReason::Malformed),
        ];
        assert_eq!(side.insert(&part(is_v4, 1, 0, 8, true)), Held);
        for (packet, reason) in bad {
            assert_eq!(side.insert(&packet), Refused(reason));
        }
        assert_eq!(side.insert(&part(is_v4, 1, 8, 12, false)), Done(12 + if is_v4 { IPV4 } else { IPV6 }));
    }
    let mut broken = part(true, 1, 0, 8, true);
    broken[8] += 1;
    let mut side = Side::new(SMALL);
    assert_eq!(side.insert(&broken), Refused(DropReason::BadChecksum));
    assert_eq!(side.insert(&[]), Refused(DropReason::Malformed));
}

#[test]
fn first_fragments_show_the_upper_header() {
    // RFC 1858 §3, RFC 3128 §3.
    let tcp = |flags, n| v4(protocol::TCP, 1, flags, &[], &octets(n));
    let mut side = Side::new(SMALL);
    assert_eq!(side.insert(&tcp(MF, 16)), Refused(DropReason::FragmentTooSmall));
    assert_eq!(side.insert(&tcp(MF | 1, 8)), Refused(DropReason::FragmentTooSmall));
    assert_eq!(side.insert(&tcp(2, 8)), Refused(DropReason::FragmentTooSmall));
    assert!(side.is_empty());
    assert_eq!(side.insert(&tcp(MF, 24)), Held);
    assert_eq!(side.insert(&v4(protocol::AH, 2, MF, &[], &octets(8))), Refused(DropReason::FragmentTooSmall));
    assert_eq!(side.insert(&v4(protocol::ESP, 3, MF, &[], &octets(8))), Held);
    // RFC 7112 §5: the whole chain of headers, and the upper one.
    let first = |next: u8, data: &[u8]| {
        let head = [next, 0, 0, 1, 0, 0, 0, 9];
        v6(protocol::FRAGMENT, &[&head[..], data].concat())
    };
    let mut options = octets(24);
    (options[0], options[1]) = (protocol::UDP, 1); // 16 octets, then UDP
    assert_eq!(side.insert(&first(protocol::DESTINATION_OPTIONS, &options[..16])), small());
    assert_eq!(side.insert(&first(protocol::TCP, &octets(16))), small());
    (options[0], options[1]) = (protocol::UDP, 3);
    assert_eq!(side.insert(&first(protocol::DESTINATION_OPTIONS, &options)), small());
    (options[0], options[1]) = (protocol::UDP, 1);
    assert_eq!(side.insert(&first(protocol::DESTINATION_OPTIONS, &options)), Held);
}

fn small() -> Outcome {
    Refused(DropReason::FragmentTooSmall)
}

#[test]
fn atomic_fragments_and_whole_packets_are_whole() {
    let mut side = Side::new(SMALL);
    assert_eq!(side.insert(&part(false, 9, 0, 16, true)), Held);
    // RFC 6946 §4: whatever is held for the same identification.
    let atomic = part(false, 9, 0, 21, false);
    assert_eq!(side.whole(&[atomic]), v6(17, &octets(21)));
    assert_eq!(side.0.datagrams(), 1);
    for packet in [v6(17, &octets(9)), v4(17, 3, 0x4000, &[], &octets(9)), v6(17, &[])] {
        assert_eq!(side.whole(&[&packet]), packet);
    }
    let hop = [protocol::FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
    let atomic = v6(protocol::HOP_BY_HOP, &[&hop[..], &[17, 0, 0, 0, 0, 0, 0, 1], &octets(8)].concat());
    let plain = v6(protocol::HOP_BY_HOP, &[&[17][..], &hop[1..], &octets(8)].concat());
    assert_eq!(side.whole(&[atomic]), plain);
}

#[test]
fn ecn_of_the_fragments_is_combined() {
    const EXPECTED: [[Option<u8>; 4]; 4] = [
        // Not-ECT, ECT(1), ECT(0), CE in the second; rows: in the first (RFC 3168 §5.3).
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(2), Some(2), Some(3)],
        [None, Some(3), Some(3), Some(3)],
    ];
    for is_v4 in [true, false] {
        for (first, row) in EXPECTED.iter().enumerate() {
            for (last, expected) in row.iter().enumerate() {
                let mut side = Side::new(SMALL);
                let mut parts = [part(is_v4, 1, 0, 16, true), part(is_v4, 1, 16, 20, false)];
                set_ecn(&mut parts[0], first as u8);
                set_ecn(&mut parts[1], last as u8);
                assert_eq!(side.insert(&parts[1]), Held);
                match (side.insert(&parts[0]), expected) {
                    (Done(len), Some(ecn)) => {
                        assert_eq!(Ip::parse(&side.1[..len]).unwrap().tos & 3, *ecn, "{first} {last}");
                    }
                    (outcome, None) => {
                        assert_eq!(outcome, Refused(DropReason::EcnDrop), "{first} {last}");
                        assert_eq!(side.drops(), [(DropReason::EcnDrop, 1)]);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn time_runs_out() {
    let mut side = Side::new(Limits { octets: 8 * BLOCK, ..SMALL });
    let first = part(true, 1, 0, 16, true);
    assert_eq!(side.at(1000, &first), Held);
    assert_eq!(side.at(2000, &part(true, 2, 16, 24, true)), Held);
    assert_eq!(side.at(2000, &part(false, 3, 0, 4000, true)), Held);
    assert_eq!(side.at(3000, &part(true, 4, 0, 16, true)), Held);
    assert_eq!(side.at(3000, &part(true, 4, 8, 24, true)), Refused(DropReason::FragmentOverlap));
    let mut told = vec![];
    let mut expire = |side: &mut Side, now| {
        told.clear();
        side.0.expire(now, |e| told.push((e.src.v4, e.first.map(<[u8]>::to_vec))));
        told.clone()
    };
    assert_eq!(expire(&mut side, 30_999), []);
    assert_eq!(expire(&mut side, 31_000), [(true, Some(first))]);
    // RFC 792: none is sent if the first fragment is not there.
    assert_eq!(expire(&mut side, 32_999), [(true, None)]);
    assert_eq!(side.at(32_999, &part(true, 4, 0, 8, true)), Refused(DropReason::FragmentOverlap));
    assert_eq!(expire(&mut side, 33_000), [], "a refused one goes in silence");
    assert_eq!(side.at(33_000, &part(true, 4, 0, 8, true)), Held);
    assert_eq!(expire(&mut side, 61_999), []);
    let expired = expire(&mut side, 62_000);
    assert_eq!(expired, [(false, Some(part(false, 3, 0, 4000, true)))], "in all its blocks");
    assert_eq!(expire(&mut side, 63_000).len(), 1);
    assert!(side.is_empty());
    assert_eq!(side.drops(), [(DropReason::FragmentOverlap, 1), (DropReason::FragmentTimeout, 4)]);
}

#[test]
fn a_flood_of_datagrams_evicts_the_oldest() {
    let mut side = Side::new(SMALL);
    for id in 0..1000 {
        assert_eq!(side.at(id as u64, &part(id % 2 == 0, id, 0, 16, true)), Held);
        assert!(side.0.datagrams() <= 4 && side.0.octets() <= SMALL.octets);
    }
    assert_eq!(side.drops(), [(DropReason::FragmentEvicted, 996)]);
    for id in 996..1000 {
        assert!(
            matches!(side.insert(&part(id % 2 == 0, id, 16, 20, false)), Done(_)),
            "the youngest are there"
        );
    }
    assert!(side.is_empty());
}

#[test]
fn a_flood_of_octets_evicts_the_oldest() {
    // Each datagram takes two blocks of the four.
    let mut side = Side::new(Limits { datagrams: 100, ..SMALL });
    for id in 0..100 {
        assert_eq!(side.insert(&part(true, id, 0, 3000, true)), Held);
        assert!(side.0.octets() <= SMALL.octets);
    }
    assert_eq!(side.drops(), [(DropReason::FragmentEvicted, 98)]);
    // One that is alone too large for the arena evicts itself in the end.
    for at in 0..2 {
        assert_eq!(side.insert(&part(true, 500, at * 4096, at * 4096 + 4096, true)), Held);
    }
    assert_eq!(side.insert(&part(true, 500, 8192, 12_288, true)), Refused(DropReason::FragmentEvicted));
    assert_eq!(side.drops(), [(DropReason::FragmentEvicted, 4)]);
    assert!(side.is_empty());
}

#[test]
fn a_flood_of_refused_datagrams_is_bounded_and_a_flood_of_octets_leaves_them_refused() {
    let mut side = Side::new(SMALL);
    for id in 0..100 {
        assert_eq!(side.at(id as u64, &part(id % 2 == 0, id, 0, 16, true)), Held);
        let then = part(id % 2 == 0, id, 8, 24, true);
        assert_eq!(side.at(id as u64, &then), Refused(DropReason::FragmentOverlap));
        assert!(side.0.datagrams() <= 4 && side.0.octets() == 0);
    }
    assert_eq!(side.drops(), [(DropReason::FragmentOverlap, 100)]);
    let mut side = Side::new(Limits { datagrams: 100, ..SMALL });
    for (now, start, end) in [(0, 0, 16), (1, 8, 24)] {
        side.at(now, &part(true, 7, start, end, true));
    }
    for id in 10..50 {
        assert_eq!(side.at(2, &part(true, id, 0, 3000, true)), Held);
    }
    assert_eq!(side.at(3, &part(true, 7, 24, 32, true)), Refused(DropReason::FragmentOverlap));
}

#[test]
fn a_flood_of_fragments_ends_their_datagram() {
    let mut side = Side::new(SMALL);
    for i in 0..8 {
        assert_eq!(side.insert(&part(true, 1, i * 8, i * 8 + 8, true)), Held);
    }
    assert_eq!(side.insert(&part(true, 1, 64, 72, true)), Refused(DropReason::FragmentTooMany));
    assert_eq!(side.insert(&part(true, 1, 72, 80, true)), Refused(DropReason::FragmentTooMany));
    assert_eq!(side.drops(), [(DropReason::FragmentTooMany, 8)]);
}

#[test]
fn what_names_a_datagram_keeps_it_from_others() {
    let mut side = Side::new(SMALL);
    let first = part(true, 1, 0, 16, true);
    assert_eq!(side.insert(&first), Held);
    let with = |change: fn(&mut Vec<u8>)| {
        let mut last = part(true, 1, 16, 20, false);
        change(&mut last);
        crate::general::fragment::write_checksum(&mut last[..IPV4]);
        last
    };
    for other in [with(|p| p[15] = 9), with(|p| p[19] = 9), with(|p| p[5] = 9), with(|p| p[9] = 50)] {
        assert_eq!(side.insert(&other), Held);
    }
    let mut side = Side::new(SMALL);
    assert_eq!(side.insert(&first), Held);
    assert_eq!(side.insert(&with(|_| ())), Done(40));
}

/// Octets `start..end` in units of 8, of which content, and whether more follow.
#[derive(Clone, Copy, Debug)]
struct Step {
    start: usize,
    end: usize,
    more: bool,
    forged: bool,
    datagram: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0usize..6, 1usize..4, prop::bool::weighted(0.7), prop::bool::weighted(0.1), any::<bool>())
        .prop_map(|(start, n, more, forged, datagram)| Step { start, end: start + n, more, forged, datagram })
}

/// What a datagram is, in as many words.
#[derive(Default)]
struct Model {
    steps: Vec<Step>,
    is_refused: bool,
}

impl Model {
    /// What becomes of a step, and whether the datagram is whole, with which content.
    fn step(&mut self, s: Step) -> Result<Option<Vec<u8>>, DropReason> {
        if self.is_refused {
            return Err(DropReason::FragmentOverlap);
        }
        if s.start == 0 && !s.more {
            return Ok(Some(content(s)));
        }
        let same = |h: &Step| (h.start, h.end, h.more, h.forged) == (s.start, s.end, s.more, s.forged);
        if self.steps.iter().any(same) {
            return Err(DropReason::FragmentDuplicate);
        }
        let contradicts = |h: &Step| {
            (h.start < s.end && s.start < h.end)
                || (!h.more && s.end >= h.end)
                || (!s.more && h.end > s.end)
                || (!h.more && !s.more)
        };
        if self.steps.iter().any(contradicts) {
            *self = Model { is_refused: true, ..Model::default() };
            return Err(DropReason::FragmentOverlap);
        }
        self.steps.push(s);
        self.steps.sort_by_key(|s| s.start);
        let mut whole = vec![];
        for s in &self.steps {
            if s.start * 8 != whole.len() {
                return Ok(None);
            }
            whole.extend(content(*s));
        }
        if self.steps.last().unwrap().more {
            return Ok(None);
        }
        self.steps.clear();
        Ok(Some(whole))
    }
}

fn content(s: Step) -> Vec<u8> {
    let mut data = octets(s.end * 8)[s.start * 8..].to_vec();
    if s.forged {
        data.iter_mut().for_each(|octet| *octet ^= 0x55);
    }
    data
}

proptest! {
    /// Two datagrams whose fragments come in any order, overlapping, forged and again.
    #[test]
    fn it_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..40), is_v4: bool) {
        let mut side = Side::new(Limits { fragments: 40, ..SMALL });
        let mut models = [Model::default(), Model::default()];
        for s in steps {
            let packet = piece(is_v4, s.datagram as u16, s.start * 8, &content(s), s.more);
            let outcome = side.insert(&packet);
            // Whole by itself: without regard to the datagram (an IPv4 packet is then no fragment at all).
            let expected = match s.start == 0 && !s.more {
                true => Ok(Some(content(s))),
                false => models[s.datagram as usize].step(s),
            };
            match (outcome, expected) {
                (Done(len), Ok(Some(data))) => {
                    prop_assert_eq!(&side.1[len - data.len()..len], &data[..]);
                    prop_assert!(Ip::parse(&side.1[..len]).is_ok());
                }
                (Held, Ok(None)) => {}
                (Refused(reason), Err(expected)) => prop_assert_eq!(reason, expected),
                other => prop_assert!(false, "{:?} for {:?}", other, s),
            }
        }
    }

    #[test]
    fn what_was_cut_is_put_together(len in 1usize..9000, mtu in 576usize..2000, seed: u64, is_v4: bool) {
        let packet = if is_v4 { v4(17, 1, 0, &[], &octets(len)) } else { v6(17, &octets(len)) };
        let mut parts = cut(&packet, mtu);
        let mut state = seed | 1;
        for i in (1..parts.len()).rev() {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            parts.swap(i, (state >> 33) as usize % (i + 1));
        }
        let mut side = Side::new(Limits { datagrams: 4, ..Limits::default() });
        prop_assert_eq!(side.whole(&parts), packet);
        prop_assert!(side.is_empty());
    }

    #[test]
    fn any_octets_are_taken_or_refused(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 40..90), 1..20),
    ) {
        let mut side = Side::new(SMALL);
        for (i, mut packet) in packets.into_iter().enumerate() {
            packet[0] = 0x60;
            let len = (packet.len() - IPV6) as u16;
            packet[4..6].copy_from_slice(&len.to_be_bytes());
            packet[6] = [protocol::FRAGMENT, protocol::HOP_BY_HOP][i % 2];
            packet[8..40].fill(0);
            if packet.len() > IPV6 + FRAGMENT_HEADER {
                packet[IPV6 + 4..IPV6 + 8].fill(0);
            }
            if let Done(len) = side.insert(&packet) {
                prop_assert!(len <= LARGEST);
            }
            prop_assert!(side.0.octets() <= SMALL.octets && side.0.datagrams() <= SMALL.datagrams);
        }
    }
}

/// What is known of a datagram is where its fragments came from, too.
#[test]
fn fragments_from_elsewhere_are_of_another_datagram() {
    for is_v4 in [true, false] {
        let mut side = Side::new(SMALL);
        let (first, last) = (part(is_v4, 1, 0, 16, true), part(is_v4, 1, 16, 24, false));
        let froms = [From::Clear, From::Opened, From::Sealed];
        for from in froms {
            assert_eq!(side.0.insert(from, 0, &first, &mut side.1), Held);
        }
        assert!(matches!(side.0.insert(From::Opened, 0, &last, &mut side.1), Done(_)));
        let mut late = vec![];
        side.0.expire(60_000, |expired| late.push(expired.from));
        assert_eq!(late, [From::Clear, From::Sealed]);
    }
}
