//! One SA on several workers: nothing is lost, nothing is overtaken, and it is what one worker alone would have made.

mod testbed;

use portcullis_datapath::{drop::DropReason, frame::Frame, pool::FrameCache, wire};
use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::{Handling, Lifetime, Limits};
use std::sync::{
    Arc, Barrier,
    atomic::{AtomicBool, Ordering},
};
use testbed::*;

const FRAMES: u32 = 4096;
const WORKERS: u32 = 3;

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

fn tunnel() -> Tunnel {
    Tunnel { workers: WORKERS, lends: true, mtu: 9000, ..Tunnel::default() }
}

/// The same, of SAs that leave the plain path for new numbers again and again: few packets of any size are sure to be under
/// their limit.
fn limited(packets: u64) -> Tunnel {
    let hard = Limits { bytes: (packets + 20) * u64::from(u16::MAX), ..Limits::default() };
    let handling = Handling { lifetime: Lifetime { hard, ..Lifetime::default() }, ..Handling::default() };
    Tunnel { handling, ..tunnel() }
}

/// The worker that owns the SA to gateway `n`.
fn owner(n: u8) -> usize {
    worker_of_spi(spi(n), WORKERS) as usize
}

/// A packet with a number in its payload.
fn numbered(n: u32, len: usize) -> Vec<u8> {
    let mut packet = udp(inside(1, true), inside(2, true), len, 64);
    let at = packet.len() - len;
    packet[at..at + 4].copy_from_slice(&n.to_be_bytes());
    packet
}

fn number(packet: &[u8]) -> u32 {
    wire::be32(packet, 14 + wire::IPV4 + wire::UDP)
}

fn bytes(frame: Frame, cache: &mut FrameCache) -> Vec<u8> {
    let mut bytes = vec![0; frame.total_len()];
    frame.gather(&mut bytes);
    cache.give(frame);
    bytes
}

/// Packets of all sizes, jumbos among them, through workers that turn in any order.
#[test]
fn in_whatever_order_workers_turn_packets_keep_theirs() {
    for seed in 0..40 {
        let pool = memory(FRAMES);
        let mut cache = pool.cache();
        let packets = 600;
        let tunnel = if seed % 2 == 0 { tunnel() } else { limited(packets as u64 / 10) };
        // A small window, which takes nothing that others of its batch have overtaken.
        let tunnel = Tunnel { window: 64, ..tunnel };
        let (mut one, mut two) = (Gateway::new(tunnel, 1, &pool), Gateway::new(tunnel, 2, &pool));
        let mut random = Random(seed);
        let (mut sent, mut sealed, mut opened) = (vec![], vec![], vec![]);
        while opened.len() < packets {
            if sent.len() < packets {
                for _ in 0..random.below(100).min((packets - sent.len()) as u64) {
                    let len = match random.below(40) {
                        0 => 4500 + random.below(4000),
                        n if n < 20 => 4 + random.below(60),
                        _ => 4 + random.below(1400),
                    };
                    let packet = numbered(sent.len() as u32, len as usize);
                    one.ends[owner(2)][LAN].send(frame(&mut cache, &packet)).unwrap();
                    sent.push(packet);
                }
            }
            for gateway in [&mut one, &mut two] {
                let now_ms = gateway.now_ms;
                let workers = gateway.workers.len() as u64;
                for _ in 0..random.below(8) {
                    gateway.workers[random.below(workers) as usize].turn(now_ms);
                }
            }
            for (port, frame) in one.collect() {
                assert_eq!(port, WAN);
                let esp = bytes(frame, &mut cache);
                sealed.push(wire::be32(&esp, 14 + wire::IPV4 + 4));
                two.ends[owner(2)][WAN].send(testbed::frame(&mut cache, &esp)).unwrap();
            }
            opened.extend(two.collect().into_iter().map(|(_, frame)| bytes(frame, &mut cache)));
            one.now_ms += 1;
            two.now_ms += 1;
            assert!(one.now_ms < 100_000, "seed {seed}: {} of {packets} arrived", opened.len());
        }
        assert_eq!(
            sealed,
            (1..=packets as u32).collect::<Vec<_>>(),
            "seed {seed}: each number once, in order"
        );
        for (n, (sent, opened)) in sent.iter().zip(&opened).enumerate() {
            assert_eq!((number(opened), opened.len()), (n as u32, sent.len()), "seed {seed}");
            assert_eq!(opened[14 + wire::IPV4..], sent[14 + wire::IPV4..], "seed {seed}");
        }
        one.stop(&mut cache);
        two.stop(&mut cache);
        drop(cache);
        assert_eq!(pool.free(), FRAMES as usize, "no frame leaks");
    }
}

/// Workers on threads of their own.
#[test]
fn threads_seal_and_open_one_sa_in_order() {
    pass_by_threads(tunnel(), 30_000);
}

/// The same, where some of the packets are numbered on the general path, while others are on loan.
#[test]
fn threads_seal_and_open_one_sa_with_a_lifetime_in_order() {
    pass_by_threads(limited(600), 30_000);
}

fn pass_by_threads(tunnel: Tunnel, packets: u32) {
    let pool = memory(FRAMES);
    let mut cache = pool.cache();
    let (mut one, mut two) = (Gateway::new(tunnel, 1, &pool), Gateway::new(tunnel, 2, &pool));
    let stop = Arc::new(AtomicBool::new(false));
    let workers = std::mem::take(&mut one.workers).into_iter().chain(std::mem::take(&mut two.workers));
    let start = Arc::new(Barrier::new(2 * WORKERS as usize + 1));
    let threads: Vec<_> = workers
        .map(|mut worker| {
            let (stop, start) = (stop.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                worker.run(&stop);
            })
        })
        .collect();
    start.wait();
    let (mut sent, mut sealed, mut opened, mut idle) = (0, 0, 0, 0u64);
    while opened < packets {
        idle += 1;
        assert!(idle < 500_000_000, "{opened} of {sent} arrived; {:?} {:?}", one.drops(), two.drops());
        if sent < packets
            && sent - opened < 400
            && let packet = numbered(sent, 4 + sent as usize * 7 % 1400)
            && one.ends[owner(2)][LAN].send(frame(&mut cache, &packet)).is_ok()
        {
            sent += 1;
        }
        for (_, esp) in one.collect() {
            sealed += 1;
            assert_eq!(wire::be32(esp.bytes(), 14 + wire::IPV4 + 4), sealed, "no number is overtaken");
            two.ends[owner(2)][WAN].send(esp).unwrap();
        }
        for (_, clear) in two.collect() {
            assert_eq!(number(clear.bytes()), opened, "no packet is overtaken");
            (opened, idle) = (opened + 1, 0);
            cache.give(clear);
        }
    }
    stop.store(true, Ordering::Relaxed);
    one.stop(&mut cache);
    two.stop(&mut cache);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(cache);
    assert_eq!(pool.free(), FRAMES as usize, "no frame leaks");
}

/// What is bad is found by whoever opens it, and counted by whose SA it is.
#[test]
fn what_is_forged_or_sent_twice_is_counted_as_ever() {
    let pool = memory(FRAMES);
    let mut cache = pool.cache();
    let (mut one, mut two) = (Gateway::new(tunnel(), 1, &pool), Gateway::new(tunnel(), 2, &pool));
    for n in 0..100 {
        one.ends[owner(2)][LAN].send(frame(&mut cache, &numbered(n, 500))).unwrap();
    }
    one.turn();
    let sealed: Vec<_> = one.collect().into_iter().map(|(_, frame)| bytes(frame, &mut cache)).collect();
    assert_eq!(sealed.len(), 100);
    for (n, esp) in sealed.iter().enumerate() {
        let mut forged = esp.clone();
        forged[100] ^= (n % 2) as u8;
        two.ends[owner(2)][WAN].send(frame(&mut cache, &forged)).unwrap();
        two.ends[owner(2)][WAN].send(frame(&mut cache, esp)).unwrap();
    }
    two.turn();
    let opened: Vec<_> = two.collect().into_iter().map(|(_, f)| number(&bytes(f, &mut cache))).collect();
    assert_eq!(opened, (0..100).collect::<Vec<_>>());
    let drops = two.drops();
    let count = |reason: DropReason| drops[reason as usize];
    assert_eq!((count(DropReason::IcvMismatch), count(DropReason::ReplayDuplicate)), (50, 50));
    assert_eq!(drops.iter().sum::<u64>(), 100);
    one.stop(&mut cache);
    two.stop(&mut cache);
    drop(cache);
    assert_eq!(pool.free(), FRAMES as usize);
}

/// Borrowers are told of numbers one after the other at once, and of all others too.
#[test]
fn what_comes_with_gaps_and_out_of_order_is_opened_by_its_own_number() {
    let pool = memory(FRAMES);
    let mut cache = pool.cache();
    let (mut one, mut two) = (Gateway::new(tunnel(), 1, &pool), Gateway::new(tunnel(), 2, &pool));
    for n in 0..200 {
        one.ends[owner(2)][LAN].send(frame(&mut cache, &numbered(n, 300))).unwrap();
    }
    one.turn();
    let mut sealed: Vec<_> = one.collect().into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(sealed.len(), 200);
    for n in (0..200).rev().step_by(7) {
        cache.give(sealed.remove(n));
    }
    let mut random = Random(1);
    for n in 50..150 {
        sealed.swap(n, n + random.below(10) as usize);
    }
    let sent: Vec<u32> = sealed.iter().map(|esp| wire::be32(esp.bytes(), 14 + wire::IPV4 + 4) - 1).collect();
    sealed.into_iter().for_each(|esp| two.ends[owner(2)][WAN].send(esp).unwrap());
    two.turn();
    let opened: Vec<_> = two.collect().into_iter().map(|(_, f)| number(&bytes(f, &mut cache))).collect();
    assert_eq!(opened, sent);
    one.stop(&mut cache);
    two.stop(&mut cache);
    drop(cache);
    assert_eq!(pool.free(), FRAMES as usize, "no frame leaks");
}

/// SAs that are retired, and workers that end, while packets of theirs are out.
#[test]
fn what_is_out_when_its_sa_or_its_worker_ends_is_dropped_and_comes_back() {
    for ends_first in [false, true] {
        let pool = memory(FRAMES);
        let mut cache = pool.cache();
        let mut one = Gateway::new(tunnel(), 1, &pool);
        for n in 0..200 {
            one.ends[owner(2)][LAN].send(frame(&mut cache, &numbered(n, 300))).unwrap();
        }
        // Two turns of the owner: two batches are lent, and nobody has done any.
        one.workers[owner(2)].turn(1);
        if ends_first {
            one.stop(&mut cache);
        } else {
            for index in one.reader.policies().map(|(index, _)| index).collect::<Vec<_>>() {
                let _ = one.sadb.set_policy_sa(index, None);
            }
            one.sadb.retire(one.outbound).unwrap();
            one.turn();
            assert!(one.collect().is_empty());
            assert_eq!(one.drops()[DropReason::NoSa as usize], 200);
            one.stop(&mut cache);
        }
        drop((one, cache));
        assert_eq!(pool.free(), FRAMES as usize, "no frame leaks");
    }
}

/// The slot of an SA whose packets are out is another's when they are back.
#[test]
fn what_is_out_is_not_sent_by_whoever_has_its_slot_now() {
    let pool = memory(FRAMES);
    let mut cache = pool.cache();
    let mut one = Gateway::new(tunnel(), 1, &pool);
    for len in [300, 600, 300] {
        one.ends[owner(2)][LAN].send(frame(&mut cache, &numbered(0, len))).unwrap();
    }
    one.workers[owner(2)].turn(1);
    let before = one.sadb.sa(one.outbound).unwrap().0;
    let indices: Vec<_> = one.reader.policies().filter(|(_, p)| p.sa.is_some()).map(|(i, _)| i).collect();
    indices.iter().for_each(|index| one.sadb.set_policy_sa(*index, None).unwrap());
    one.sadb.retire(one.outbound).unwrap();
    // Each announces its epoch; the owner seals what nobody took, and does not look at what is back before its next turn.
    one.workers.iter_mut().for_each(|worker| _ = worker.turn(2));
    let again = one.sadb.publish(&sa(&tunnel(), 1, 1, 2)).unwrap();
    let after = one.sadb.sa(again).unwrap().0;
    assert!(again == one.outbound && after > before, "the same slot, another SA");
    indices.iter().for_each(|index| one.sadb.set_policy_sa(*index, Some(again)).unwrap());
    one.turn();
    assert!(one.collect().is_empty());
    assert_eq!(one.drops()[DropReason::NoSa as usize], 3);
    assert!(one.sadb.poll_event().is_none());
    one.stop(&mut cache);
    drop((one, cache));
    assert_eq!(pool.free(), FRAMES as usize, "no frame leaks");
}
