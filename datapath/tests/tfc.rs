//! Traffic flow confidentiality, through whole gateways in memory: packets of one size and at a rate (RFC 9347), and dummy
//! packets (RFC 4303 §2.6).

#[path = "../crypto/tests/rustcrypto/mod.rs"]
mod rustcrypto;
mod testbed;

use portcullis_datapath::{drop::DropReason, pool::FrameCache, wire};
use portcullis_sadb::*;
use testbed::*;

const ETHERNET: usize = 14;
const PACKET_SIZE: usize = 1400;

/// Two gateways, and packets between the hosts behind them.
struct Pair {
    gateways: [Gateway; 2],
    cache: FrameCache,
}

impl Pair {
    fn new(tunnel: Tunnel) -> Pair {
        Pair::of([tunnel, tunnel])
    }

    fn of([one, two]: [Tunnel; 2]) -> Pair {
        let pool = memory(4096);
        let gateways = [Gateway::new(one, 1, &pool), Gateway::new(two, 2, &pool)];
        Pair { gateways, cache: pool.cache() }
    }

    /// What comes out of gateway `n` in a millisecond, if these frames come in at a port.
    fn pass<'a>(
        &mut self,
        n: usize,
        port: usize,
        frames: impl IntoIterator<Item = &'a Vec<u8>>,
    ) -> Vec<Vec<u8>> {
        let gateway = &mut self.gateways[n - 1];
        for bytes in frames {
            gateway.ends[0][port].send(frame(&mut self.cache, bytes)).unwrap();
        }
        gateway.turn();
        let mut out = vec![];
        for (to, frame) in gateway.collect() {
            let mut bytes = vec![0; frame.total_len()];
            frame.gather(&mut bytes);
            self.cache.give(frame);
            // What it sends by itself to the other is another matter.
            if to != port {
                out.push(bytes);
            }
        }
        out
    }

    fn seal(&mut self, clear: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.pass(1, LAN, clear)
    }

    fn open(&mut self, sealed: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.pass(2, WAN, sealed)
    }

    /// What gateway `n` has dropped, by reason.
    fn drops(&self, n: usize) -> Vec<(DropReason, u64)> {
        let drops = self.gateways[n - 1].drops();
        DropReason::ALL.iter().map(|r| (*r, drops[*r as usize])).filter(|(_, n)| *n > 0).collect()
    }
}

/// A packet of so many octets behind its UDP header, which differ by `i`.
fn clear(i: usize, octets: usize) -> Vec<u8> {
    let v4 = !i.is_multiple_of(3);
    let mut packet = udp(inside(1, v4), inside(2, v4), octets.max(8), 64);
    let at = packet.len() - 8;
    packet[at..].copy_from_slice(&(i as u64).to_be_bytes());
    packet
}

/// As it is when two gateways have forwarded it.
fn forwarded(frame: &[u8]) -> Vec<u8> {
    let mut ip = frame[ETHERNET..].to_vec();
    wire::decrement_ttl(&mut ip).unwrap();
    wire::decrement_ttl(&mut ip).unwrap();
    ip
}

fn check_delivered<'a>(delivered: &[Vec<u8>], sent: impl IntoIterator<Item = &'a Vec<u8>>) {
    let delivered: Vec<_> = delivered.iter().map(|frame| &frame[ETHERNET..]).collect();
    let sent: Vec<_> = sent.into_iter().map(|frame| forwarded(frame)).collect();
    assert_eq!(delivered.len(), sent.len());
    assert!(delivered.iter().zip(&sent).all(|(d, s)| d == s));
}

fn aggfrag(packets_per_sec: u32, fragments: bool) -> Tunnel {
    let aggfrag = Some(Aggfrag { packet_size: PACKET_SIZE as u16, packets_per_sec, fragments });
    Tunnel { mtu: 9000, handling: Handling { aggfrag, ..Handling::default() }, ..Tunnel::default() }
}

fn dummies(dummies_per_sec: u16, tfc_pad: u16) -> Tunnel {
    Tunnel { handling: Handling { dummies_per_sec, tfc_pad, ..Handling::default() }, ..Tunnel::default() }
}

#[test]
fn a_hub_protects_again_what_comes_in_payloads() {
    let mut pair = Pair::new(aggfrag(0, true));
    let selector = |src: &str, dst: &str| Selector::between(src.parse().unwrap(), dst.parse().unwrap());
    let (action, reqid, priority) = (Action::Protect, 1, 10);
    // What comes from 10.1/16 goes on to 10.7/16, which is behind gateway 1 too.
    let there = selector("10.1.0.0/16", "10.7.0.0/16");
    let policy = |direction, sa| Policy { direction, selector: there.clone(), priority, action, reqid, sa };
    let sa = Some(pair.gateways[0].outbound);
    pair.gateways[0].sadb.add_policy(&policy(Direction::Outbound, sa)).unwrap();
    let sa = Some(pair.gateways[1].outbound);
    for (direction, sa) in [(Direction::Inbound, None), (Direction::Outbound, sa)] {
        pair.gateways[1].sadb.add_policy(&policy(direction, sa)).unwrap();
    }
    let sealed = pair.seal(&[udp(inside(1, true), ip("10.7.0.9"), 100, 64)]);
    assert_eq!(sealed.len(), 1);
    let hub = &mut pair.gateways[1];
    let onward = hub.pass(WAN, frame(&mut pair.cache, &sealed[0]));
    let [(WAN, again)] = &onward[..] else { panic!("{onward:?}") };
    assert_eq!(again.bytes()[23], 50, "never in clear");
}

#[test]
fn all_sizes_are_delivered_once_and_in_order_in_packets_of_one_size() {
    let cbc = Algorithm::all().find(|a| a.is_for(Protocol::Esp) && a.block() == 16).expect("in the table");
    for (seed, fragments) in [(1, true), (2, false)] {
        for outer_v4 in [true, false] {
            for (algorithm, udp) in
                [(Algorithm::AES_GCM_128, false), (Algorithm::AES_GCM_128, true), (cbc, false)]
            {
                let mut pair = Pair::new(Tunnel { algorithm, outer_v4, udp, ..aggfrag(0, fragments) });
                let mut random = Random(seed);
                let (mut sent, mut size) = (0, None);
                for _ in 0..30 {
                    let n = 1 + random.below(30);
                    let most = if fragments { 5000 } else { 1200 };
                    let packets: Vec<_> = (0..n).map(|i| clear(sent + i, random.below(most))).collect();
                    sent += n;
                    let sealed = pair.seal(&packets);
                    for frame in &sealed {
                        let size = *size.get_or_insert(frame.len());
                        assert_eq!(frame.len(), size);
                        // Nothing of the outer header is from inside (RFC 9347 §2.2.5).
                        let tos = if outer_v4 { frame[15] } else { frame[14] << 4 | frame[15] >> 4 };
                        assert_eq!(tos, 0);
                    }
                    let octets: usize = packets.iter().map(|p| p.len() - ETHERNET).sum();
                    assert!(!fragments || sealed.len() <= octets.div_ceil(1200), "they are aggregated");
                    let delivered = pair.open(&sealed);
                    check_delivered(&delivered, &packets);
                }
                let size = size.expect("some came") - ETHERNET;
                let least = PACKET_SIZE - (algorithm.block().max(4) - 1);
                assert!((least..=PACKET_SIZE).contains(&size), "{size}");
                assert!(algorithm == cbc || udp || size == PACKET_SIZE);
                assert_eq!((pair.drops(1), pair.drops(2)), (vec![], vec![]));
            }
        }
    }
}

/// What a packet of gateway 1 in IPv4 has inside, by RustCrypto: payload, and next header.
fn inside_of(frame: &[u8], seq: u64) -> (Vec<u8>, u8) {
    let esp = &frame[ETHERNET + wire::IPV4..];
    let (head, sealed) = esp.split_at(16);
    let (material, iv) = (key(2, Algorithm::AES_GCM_128), *head.last_chunk().unwrap());
    // RFC 4106 §5: SPI and extended sequence number.
    let aad = [&head[..4], &seq.to_be_bytes()].concat();
    // The key stream takes away what it has put on.
    let mut text = rustcrypto::seal(&material, iv, &aad, &sealed[..sealed.len() - 16]);
    text.truncate(sealed.len() - 16);
    assert_eq!(rustcrypto::seal(&material, iv, &aad, &text), sealed);
    let [.., pad, next] = text[..] else { panic!("no trailer") };
    assert_eq!(pad, 0);
    text.truncate(text.len() - 2);
    (text, next)
}

#[test]
fn payloads_are_as_the_rfc_draws_them_and_all_padding_only_when_idle() {
    let mut pair = Pair::new(aggfrag(1000, true));
    let idle: usize = (0..5).map(|_| pair.seal(&[]).len()).sum();
    // RFC 9347 §A: packets of 800, 800, 60, 240 and 4000 octets; here in 1342.
    let packets = [800, 800, 60, 240, 4000].map(|octets| clear(1, octets - 28));
    let mut sealed = pair.seal(&packets);
    sealed.extend((0..6).flat_map(|_| pair.seal(&[])));
    let (mut offsets, mut stream) = (vec![], vec![]);
    for (frame, seq) in sealed.iter().zip(idle as u64 + 1..) {
        let (payload, next) = inside_of(frame, seq);
        assert_eq!((next, payload.len()), (144, 1346)); // RFC 9347 §6.1
        offsets.push(wire::be32(&payload, 0)); // sub-type 0, reserved, BlockOffset
        stream.extend_from_slice(&payload[4..]);
    }
    assert_eq!(offsets, [0, 258, 3216, 1874, 532, 0, 0]);
    let mut expected = vec![];
    for packet in &packets {
        expected.extend_from_slice(&packet[ETHERNET..]);
        let at = expected.len() - (packet.len() - ETHERNET);
        wire::decrement_ttl(&mut expected[at..]).unwrap();
    }
    expected.resize(7 * 1342, 0); // RFC 9347 §6.1.3.3: a pad data block
    assert!(stream == expected);
}

#[test]
fn what_fits_no_payload_and_must_not_be_cut_is_too_big() {
    let mut pair = Pair::new(Tunnel { tells: true, ..aggfrag(0, false) });
    // IPv4 without DF: cut before. IPv6: its source is told (RFC 9347 §2.2.7, RFC 4301 §8).
    let sealed = pair.seal(&[clear(1, 2000)]);
    assert_eq!((sealed.len(), pair.open(&sealed).len()), (2, 2));
    let gateway = &mut pair.gateways[0];
    let told = gateway.pass(LAN, frame(&mut pair.cache, &clear(0, 2000)));
    assert!(matches!(&told[..], [(LAN, _)]));
    told.into_iter().for_each(|(_, frame)| pair.cache.give(frame));
    assert_eq!(pair.drops(1), [(DropReason::TooBig, 1)]);
}

#[test]
fn at_a_rate_the_number_of_packets_is_the_rate_times_time_whatever_the_load() {
    for (per_sec, outer_v4) in [(100, true), (1000, true), (2500, false)] {
        for per_ms in [0.0, 0.05, 1.0, 8.0] {
            let mut pair = Pair::new(Tunnel { outer_v4, ..aggfrag(per_sec, true) });
            let mut random = Random(7);
            let (mut sent, mut left, mut delivered) = (vec![], vec![], vec![]);
            for ms in 0..2500 {
                let mut packets = vec![];
                // RFC 9347 §2.4.1, also before the first packet, and after the last.
                while ms < 2000 && (sent.len() as f64) < ms as f64 * per_ms {
                    packets.push(clear(sent.len(), random.below(1300)));
                    sent.push(packets[packets.len() - 1].clone());
                }
                let sealed = pair.seal(&packets);
                assert!(sealed.iter().all(|frame| frame.len() == ETHERNET + PACKET_SIZE));
                left.push(sealed.len());
                delivered.extend(pair.open(&sealed));
            }
            let in_window: usize = left[100..2100].iter().sum();
            assert_eq!(in_window as u32, 2 * per_sec, "{per_ms} packets a ms");
            let even = per_sec.div_ceil(1000) as usize;
            assert!(left[100..].iter().all(|n| *n <= even), "they leave evenly");
            let drops = pair.drops(1);
            let full = drops.iter().find(|(r, _)| *r == DropReason::AggfragQueueFull).map_or(0, |(_, n)| *n);
            assert_eq!(drops.len(), usize::from(full > 0), "{drops:?}");
            assert_eq!(full > 0, per_ms * 680.0 > per_sec as f64 * 1.4, "{full} of {} dropped", sent.len());
            // What was queued last has still to leave, if there was too much.
            assert!(full > 0 || delivered.len() == sent.len());
            assert!((delivered.len() as u64) + full <= sent.len() as u64);
            let mut all = sent.iter().map(|frame| forwarded(frame));
            for frame in &delivered {
                assert!(all.any(|packet| packet == frame[ETHERNET..]), "once and in order");
            }
            assert_eq!(pair.drops(2), []);
        }
    }
}

#[test]
fn a_pause_is_made_up_for_by_a_burst_at_most_and_a_rekey_is_not_waited_for() {
    let mut pair = Pair::new(aggfrag(1000, true));
    (0..10).for_each(|_| drop(pair.seal(&[])));
    pair.gateways[0].now_ms += 10_000;
    assert_eq!(pair.seal(&[]).len(), 64);
    assert_eq!(pair.seal(&[]).len(), 1);
    // Another SA in its place: it is met without a packet.
    let gateway = &mut pair.gateways[0];
    let mut next = sa(&aggfrag(1000, true), 1, 1, 2);
    next.spi = Spi(spi(2) + 16);
    gateway.sadb.publish(&next).unwrap();
    gateway.sadb.retire(gateway.outbound).unwrap();
    let spis: Vec<_> = (0..1100).flat_map(|_| pair.seal(&[])).map(|frame| wire::be32(&frame, 34)).collect();
    let (before, after): (Vec<u32>, Vec<u32>) = spis.iter().partition(|s| **s == spi(2));
    assert_eq!(before, [] as [u32; 0], "it is retired");
    assert!(after.len() > 90 && after.iter().all(|s| *s == next.spi.0), "{}", after.len());
}

#[test]
fn a_lost_packet_loses_what_it_carried_and_no_more() {
    for fragments in [true, false] {
        let mut pair = Pair::new(aggfrag(0, fragments));
        let octets = if fragments { 2000 } else { 200 };
        let (mut kept, mut delivered, mut cut) = (vec![], vec![], 0);
        for i in 0..200 {
            let packet = clear(i, octets);
            let mut sealed = pair.seal(std::slice::from_ref(&packet));
            assert_eq!(sealed.len(), 1 + usize::from(fragments));
            if i % 7 == 3 {
                sealed.remove(i / 7 % sealed.len());
                cut += sealed.len() as u64;
            } else {
                kept.push(packet);
            }
            delivered.extend(pair.open(&sealed));
        }
        // What waits behind the last that was lost does so until it is given up (RFC 9347 §2.2.3).
        pair.gateways[1].now_ms += 200;
        delivered.extend(pair.open(&[]));
        check_delivered(&delivered, &kept);
        assert_eq!(pair.drops(1), []);
        // A second half whose first is missing is not seen as a packet.
        let drops = pair.drops(2);
        let incomplete =
            drops.iter().find(|(r, _)| *r == DropReason::AggfragIncomplete).map_or(0, |(_, n)| *n);
        assert!(drops.len() <= 1 && incomplete <= cut && (cut == 0 || incomplete > 0), "{drops:?} of {cut}");
    }
}

#[test]
fn packets_out_of_order_are_put_in_order() {
    for window in 1..=3 {
        let mut pair = Pair::new(aggfrag(0, true));
        let packets: Vec<_> = (0..120).map(|i| clear(i, 900 + i)).collect();
        let mut sealed = pair.seal(&packets);
        sealed.chunks_mut(1 + window).for_each(|chunk| chunk.reverse());
        let delivered: Vec<_> = sealed.iter().flat_map(|f| pair.open(std::slice::from_ref(f))).collect();
        check_delivered(&delivered, &packets);
        assert_eq!(pair.drops(2), []);
        // The same again are replays, whatever they carry.
        assert_eq!(pair.open(&sealed[..1]), [] as [Vec<u8>; 0]);
        assert_eq!(pair.drops(2), [(DropReason::ReplayDuplicate, 1)]);
    }
}

#[test]
fn who_waits_for_a_lost_packet_gives_it_up() {
    let mut pair = Pair::new(aggfrag(0, true));
    let packets: Vec<_> = (0..3).map(|i| clear(i, 100)).collect();
    let sealed: Vec<_> = packets.iter().flat_map(|p| pair.seal(std::slice::from_ref(p))).collect();
    check_delivered(&pair.open(&sealed[..1]), &packets[..1]);
    assert_eq!(pair.open(&sealed[2..]), [] as [Vec<u8>; 0]);
    pair.gateways[1].now_ms += 98;
    assert_eq!(pair.open(&[]), [] as [Vec<u8>; 0]);
    check_delivered(&pair.open(&[]), &packets[2..]);
    assert_eq!(pair.open(&sealed[1..2]), [] as [Vec<u8>; 0]);
    assert_eq!(pair.drops(2), [(DropReason::AggfragLate, 1)]);
}

#[test]
fn payloads_are_for_who_knows_them() {
    let (with, without) = (aggfrag(0, true), Tunnel::default());
    let mut pair = Pair::of([with, without]);
    let sealed = pair.seal(&[clear(1, 100)]);
    assert_eq!(pair.open(&sealed), [] as [Vec<u8>; 0]);
    assert_eq!(pair.drops(2), [(DropReason::BadInner, 1)]);
    // RFC 9347 §2.3: no sender mixes. What one sends that knows of no AGGFRAG is a packet all the same.
    let mut pair = Pair::of([without, with]);
    for i in 0..10 {
        let packet = clear(i, 100);
        let sealed = pair.seal(std::slice::from_ref(&packet));
        check_delivered(&pair.open(&sealed), [&packet]);
    }
    // An inner packet that the policies do not let in by this SA (RFC 4301 §5.2).
    let mut pair = Pair::new(with);
    for gateway in &mut pair.gateways[1..] {
        let stranger = gateway.reader.policies().filter(|(_, p)| p.direction == Direction::Inbound);
        let stranger: Vec<_> = stranger.map(|(i, _)| i).collect();
        stranger.into_iter().for_each(|i| gateway.sadb.remove_policy(i).unwrap());
    }
    let sealed = pair.seal(&[clear(1, 100), clear(2, 100)]);
    assert_eq!((sealed.len(), pair.open(&sealed)), (1, vec![]));
    assert_eq!(pair.drops(2), [(DropReason::SelectorMismatch, 2)]);
}

#[test]
fn dummies_leave_while_there_is_nothing_else_and_are_dropped() {
    for (mode, outer_v4) in
        [(Mode::Tunnel, true), (Mode::Tunnel, false), (Mode::Transport, true), (Mode::Transport, false)]
    {
        let mut sizes_of = vec![];
        for tfc_pad in [0, 500, u16::MAX] {
            let mut pair = Pair::new(Tunnel { mode, outer_v4, ..dummies(100, tfc_pad) });
            (0..100).for_each(|_| drop(pair.seal(&[])));
            let before = pair.gateways[0].drops();
            let (mut left, mut delivered) = (vec![], 0);
            for _ in 0..2000 {
                let sealed = pair.seal(&[]);
                delivered += pair.open(&sealed).len();
                left.extend(sealed);
            }
            assert_eq!((left.len(), delivered), (200, 0));
            // RFC 4303 §2.6: discarded without an error.
            assert_eq!(pair.drops(2), [(DropReason::Dummy, 200)]);
            assert_eq!(before, pair.gateways[0].drops());
            let mut sizes: Vec<_> = left.iter().map(|frame| frame.len() - ETHERNET).collect();
            sizes_of.push(sizes.clone());
            sizes.sort_unstable();
            sizes.dedup();
            assert!(sizes.iter().all(|size| *size <= 1500));
            if tfc_pad == 0 {
                assert!(sizes.len() > 100 && sizes[0] < 150 && sizes[sizes.len() - 1] > 1350, "{sizes:?}");
            } else {
                assert_eq!(sizes.len(), 1);
                assert!(if tfc_pad == 500 { sizes[0] < 600 } else { sizes[0] > 1490 }, "{sizes:?}");
            }
            // A packet each 9 ms, less than a dummy's time: none leaves.
            let v4 = if mode == Mode::Tunnel { 1 } else { usize::from(outer_v4) };
            for i in 0..50 {
                let packet = clear(v4, 8 + i);
                let sealed = pair.seal(std::slice::from_ref(&packet));
                assert_eq!(sealed.len(), 1);
                if tfc_pad > 0 && mode == Mode::Tunnel {
                    assert_eq!(sealed[0].len() - ETHERNET, sizes[0], "as long as dummies");
                }
                check_delivered(&pair.open(&sealed), [&packet]);
                assert_eq!((0..8).map(|_| pair.seal(&[]).len()).sum::<usize>(), 0);
            }
        }
        assert_ne!(sizes_of[0], sizes_of[1]);
    }
}
