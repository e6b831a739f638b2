//! Generated traffic: packets are what they say, what comes back is accounted for, and ESP is opened by the gateway's own
//! inbound path with the counters that are expected.

use arrayvec::ArrayVec;
use portcullis_datapath::{
    batch::BATCH,
    crypto::Aead,
    drop::DropReason,
    fib::Mac,
    frame::Frame,
    pool::{FrameCache, FramePool},
    port::{BURST, Port, memory::MemoryPort},
    umem::{HugePages, Umem},
    wire::{self, ETHERNET, IPV6, Ip, NAT_T_PORT, protocol},
};
use portcullis_perf::{
    gateway::{Gateway, Lane, SOURCE, Setup, destination},
    generator::{
        Generator, GeneratorError,
        disturbance::{Disturbance, DisturbanceError, Rates},
        flows::{Addresses, Choice, Flows, Ports},
        pace::Pace,
        receiver::Receiver,
        sealer::{Sealer, SealerError},
        writer::{Stream, StreamError},
    },
    traffic::Mix,
};
use portcullis_sadb::{Algorithm, Direction, Encryption, Integrity, Sa};
use std::{cell::Cell, net::IpAddr, sync::Arc};

const HZ: f64 = 1e9;
const MACS: (Mac, Mac) = (Mac([2, 0, 0, 0, 2, 0]), Mac([2, 0, 0, 0, 1, 0]));

fn pool(chunks: u32) -> Arc<FramePool> {
    FramePool::new(Umem::new(chunks, 4096, HugePages::Off).unwrap().0)
}

fn stream(mix: &str, src: &str, dst: &str, flows: u32) -> Stream {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    Stream {
        dst_mac: MACS.1,
        src_mac: MACS.0,
        mix: mix.parse().unwrap(),
        flows: Flows {
            dst: Addresses { first: dst, count: flows },
            src_ports: Ports { first: 2000, count: 7 },
            count: flows,
            packets: Choice::Random,
            ..Flows::one(src, dst)
        },
        stamped: true,
        first_flow: 0,
        run: 9,
    }
}

/// All frames that wait at a port.
fn waiting(port: &mut MemoryPort, cache: &mut FrameCache) -> Vec<Frame> {
    let (mut all, mut list) = (vec![], ArrayVec::<Frame, BATCH>::new());
    loop {
        port.rx(&mut list, cache);
        if list.is_empty() {
            return all;
        }
        all.extend(list.drain(..));
    }
}

fn octets(frame: &Frame) -> Vec<u8> {
    let mut octets = vec![0; frame.total_len()];
    frame.gather(&mut octets);
    octets
}

#[test]
fn packets_are_what_they_say_and_come_back_as_they_were_sent() {
    for (mix, src, dst) in [
        ("64:3,570:2,1518:1", "10.0.0.9", "11.0.0.0"),
        ("84:3,1280:2", "fd00::9", "fd00:1::"),
        ("9000,46", "10.0.0.9", "11.0.0.0"),
        ("9000,64", "fd00::9", "fd00:1::"),
    ] {
        let (pool, stream) = (pool(1024), stream(mix, src, dst, 50));
        let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 512));
        let mut generator = Generator::new(&stream, HZ).unwrap();
        let mut receiver = Receiver::new(stream.run, 50, HZ);
        let mut lengths = vec![];
        for turn in 0..20u64 {
            assert_eq!(generator.turn(&mut near, &mut cache, || turn * 1000), BURST);
            let frames = waiting(&mut far, &mut cache);
            for frame in &frames {
                let packet = &octets(frame)[ETHERNET..];
                let ip = Ip::parse(packet).unwrap();
                lengths.push(ip.len() as u16);
                assert_eq!((ip.len(), ip.protocol()), (packet.len(), protocol::UDP));
                assert!((2000..2007).contains(&ip.src_port().unwrap()));
                let udp = &packet[ip.payload()..];
                assert_eq!(wire::be16(udp, 4) as usize, udp.len());
                if !ip.is_v4() {
                    let pseudo = wire::sum(&packet[8..IPV6]) + udp.len() as u32 + protocol::UDP as u32;
                    assert_eq!(wire::fold(pseudo + wire::fold(wire::sum(udp)) as u32), 0xffff);
                }
            }
            receiver.count(&frames, turn * 1000 + 500);
            frames.into_iter().for_each(|frame| cache.give(frame));
        }
        let (sent, received) = (generator.sent(), receiver.received());
        assert_eq!((sent.frames, sent.refused, sent.short), (20 * BURST as u64, 0, 0));
        assert_eq!(
            (received.frames, received.foreign, received.tally.received),
            (sent.frames, 0, sent.frames)
        );
        assert_eq!((received.tally.duplicates, received.tally.reordered), (0, 0));
        let of_flows: Vec<u64> = receiver.flows().map(|tally| tally.received).collect();
        assert_eq!(of_flows, generator.written().map(u64::from).collect::<Vec<_>>());
        // As often as their weights say, within one pattern.
        let pattern = mix.parse::<Mix>().unwrap().pattern(1);
        for len in &pattern {
            let count = |lengths: &[u16]| lengths.iter().filter(|n| *n == len).count();
            assert_eq!(
                count(&lengths[..lengths.len() / pattern.len() * pattern.len()]) * pattern.len(),
                count(&pattern) * (lengths.len() / pattern.len() * pattern.len())
            );
        }
        let half = receiver.latency.at(0.5).as_nanos() as f64;
        assert!((half - 500.0).abs() < 1.0, "{half}");
    }
}

#[test]
fn frames_that_are_lost_copied_or_foreign_are_told_apart() {
    let (pool, stream) = (pool(256), stream("64", "10.0.0.9", "11.0.0.0", 1));
    let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 128));
    let mut generator = Generator::new(&stream, HZ).unwrap();
    let mut receiver = Receiver::new(stream.run, 1, HZ);
    generator.turn(&mut near, &mut cache, || 0);
    let mut frames = waiting(&mut far, &mut cache);
    cache.give(frames.remove(10));
    frames.swap(20, 21);
    receiver.count(&frames, 0);
    receiver.count(&frames[5..8], 0);
    assert_eq!(receiver.own(), 63 + 3);
    frames[0].bytes_mut()[ETHERNET + 9] = protocol::TCP;
    frames[1].bytes_mut()[ETHERNET + 30] ^= 1;
    frames[2].truncate(40);
    receiver.count(&frames[..3], 0);
    let received = receiver.received();
    assert_eq!((received.frames, received.foreign, receiver.own()), (63 + 3 + 3, 3, 63 + 3));
    let tally = received.tally;
    assert_eq!((tally.received, tally.duplicates, tally.reordered, tally.stale), (63, 3, 1, 0));
    frames.into_iter().for_each(|frame| cache.give(frame));
}

/// A clock that a test moves.
#[test]
fn a_late_generator_catches_up_and_says_how_late_it_was() {
    let (pool, stream) = (pool(1024), stream("64", "10.0.0.9", "11.0.0.0", 4));
    let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 512));
    let mut generator = Generator::new(&stream, HZ).unwrap();
    let mut receiver = Receiver::new(stream.run, 4, HZ);
    generator.set_pace(Some(Pace::new(0, HZ, 1e7))); // one in 100 clocks
    let now = Cell::new(0);
    let mut step = |clocks: u64| {
        now.set(now.get() + clocks);
        let mut sent = 0;
        loop {
            match generator.turn(&mut near, &mut cache, || now.get()) {
                0 => break,
                frames => sent += frames,
            }
        }
        while receiver.receive(&mut far, &mut cache, || now.get()) > 0 {}
        sent
    };
    assert_eq!(step(0), 1);
    assert_eq!((step(99), step(1), step(1000)), (0, 1, 10));
    // It was away for so long: all that was due leaves at once, in bursts, and each packet is as late as it is.
    assert_eq!(step(20_000), 200);
    let received = receiver.received().tally.received;
    assert_eq!((received, receiver.latency.count()), (212, 212));
    assert_eq!(receiver.latency.max().as_nanos(), 19_900 / 16 * 16 + 16 - 1, "as the histogram rounds it");
    assert!(generator.lateness.max().as_nanos() >= 19_900);
    assert_eq!(generator.lateness.count(), 212, "each frame has its own");
    assert!(generator.lateness.at(12.0 / 212.0).as_nanos() <= 900, "those of the bursts that were in time");
    assert!(generator.lateness.at(0.5).as_nanos() > 900, "most of the others");
}

#[test]
fn what_the_port_refuses_is_lost_when_it_is_paced_and_waits_when_not() {
    let (pool, stream) = (pool(1024), stream("64", "10.0.0.9", "11.0.0.0", 1));
    let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 100));
    let mut generator = Generator::new(&stream, HZ).unwrap();
    for _ in 0..4 {
        generator.turn(&mut near, &mut cache, || 0);
    }
    assert_eq!((generator.sent().frames, generator.sent().refused), (100, 0));
    waiting(&mut far, &mut cache).into_iter().for_each(|frame| cache.give(frame));
    generator.turn(&mut near, &mut cache, || 0);
    assert_eq!(generator.sent().frames, 128, "the rest of the second burst");
    generator.set_pace(Some(Pace::new(0, HZ, HZ)));
    while generator.turn(&mut near, &mut cache, || 199) > 0 {}
    assert_eq!((generator.sent().frames, generator.sent().refused), (200, 128));
}

struct Opened {
    lane: Lane,
    gateway: Gateway,
    cache: FrameCache,
    setup: Setup,
}

/// A gateway that opens what is sealed with these SAs.
fn opener(pool: &Arc<FramePool>, sas: u32, nat_t: bool) -> Opened {
    let (algorithm, aead) = (Algorithm::AES_GCM_128, Aead::best());
    let setup = Setup { sas, workers: 1, metered: false, algorithm, aead, nat_t };
    let (gateway, mut lanes) = Gateway::new(&setup, Direction::Inbound, pool, 1024).unwrap();
    Opened { lane: lanes.remove(0), gateway, cache: pool.cache(), setup }
}

fn sealed(opened: &Opened, rates: &Rates, distance: usize) -> Generator {
    let setup = &opened.setup;
    let sas: Vec<Sa> = (0..setup.sas).map(|i| setup.sa(i, Direction::Outbound)).collect();
    let stream = stream("64:2,570,1400", &SOURCE.to_string(), &destination(0).to_string(), setup.sas);
    let generator = Generator::new(&stream, HZ).unwrap();
    let generator = generator.sealed(Sealer::new(&sas, MACS, setup.aead).unwrap(), 4096).unwrap();
    generator.disturbed(Disturbance::new(rates, distance, 3).unwrap()).unwrap()
}

#[test]
fn esp_is_opened_and_what_is_replayed_forged_and_reordered_is_counted() {
    for (sas, nat_t) in [(1, false), (64, false), (64, true)] {
        let pool = pool(4096);
        let mut opened = opener(&pool, sas, nat_t);
        let mut generator = sealed(&opened, &Rates { replayed: 0.05, forged: 0.03, reordered: 0.02 }, 40);
        let mut receiver = Receiver::new(9, sas as usize, HZ);
        let mut pass = |generator: &mut Generator, ends: bool| {
            let Opened { lane, cache, .. } = &mut opened;
            let all = if ends {
                generator.finish(&mut lane.wan, cache, || 0)
            } else {
                generator.turn(&mut lane.wan, cache, || 0) > 0
            };
            while lane.engine.turn(1) {}
            while receiver.receive(&mut lane.lan, cache, || 0) > 0 {}
            all
        };
        (0..400).for_each(|_| assert!(pass(&mut generator, false)));
        while !pass(&mut generator, true) {}
        let (sent, written): (_, u64) = (generator.sent(), generator.written().map(u64::from).sum());
        let done = sent.disturbed;
        assert!(done.replayed > 1000 && done.forged > 600 && done.reordered > 400, "{done:?}");
        assert_eq!(sent.frames, written + done.replayed + done.forged);
        let tally = receiver.received().tally;
        assert_eq!(
            (tally.received, tally.duplicates, tally.stale),
            (written, 0, 0),
            "SAs: {sas}, NAT-T: {nat_t}"
        );
        assert!(tally.reordered > 0 && tally.reordered <= done.reordered, "{tally:?}");
        let gateway = &opened.gateway;
        assert_eq!(gateway.dropped(DropReason::IcvMismatch), done.forged);
        assert_eq!(gateway.dropped(DropReason::ReplayDuplicate), done.replayed);
        assert_eq!(gateway.drops(), done.forged + done.replayed);
    }
}

/// With ESN, a number behind the window is taken for one that is still to come (RFC 4303 §A2.2), which the ICV is not of.
#[test]
fn copies_from_behind_the_window_do_not_verify() {
    let pool = pool(8192);
    let mut opened = opener(&pool, 1, false);
    let mut generator = sealed(&opened, &Rates { replayed: 0.01, ..Rates::default() }, 3000);
    for _ in 0..200 {
        let Opened { lane, cache, .. } = &mut opened;
        generator.turn(&mut lane.wan, cache, || 0);
        while lane.engine.turn(1) {}
        waiting(&mut lane.lan, cache).into_iter().for_each(|frame| cache.give(frame));
    }
    let done = generator.sent().disturbed;
    assert!(done.replayed > 50, "{done:?}");
    assert_eq!(opened.gateway.dropped(DropReason::IcvMismatch), done.replayed);
    generator.close(&mut opened.cache);
}

#[test]
fn with_nat_t_esp_is_in_udp() {
    let pool = pool(256);
    let opened = opener(&pool, 1, true);
    let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 128));
    sealed(&opened, &Rates::default(), 1).turn(&mut near, &mut cache, || 0);
    for frame in waiting(&mut far, &mut cache) {
        let ip = Ip::parse(&frame.bytes()[ETHERNET..]).unwrap();
        assert_eq!(
            (ip.protocol(), ip.src_port(), ip.dst_port()),
            (protocol::UDP, Some(NAT_T_PORT), Some(NAT_T_PORT))
        );
        cache.give(frame);
    }
}

#[test]
fn copies_take_the_place_of_packets_to_come() {
    let pool = pool(1024);
    let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 512));
    let rates = Rates { replayed: 0.25, ..Rates::default() };
    let generator = Generator::new(&stream("64", "10.0.0.9", "11.0.0.0", 1), HZ).unwrap();
    let mut generator = generator.disturbed(Disturbance::new(&rates, 5, 1).unwrap()).unwrap();
    generator.set_pace(Some(Pace::new(0, HZ, 1e7)));
    for now in (0..=1_000_000).step_by(1000) {
        generator.turn(&mut near, &mut cache, || now);
        waiting(&mut far, &mut cache).into_iter().for_each(|frame| cache.give(frame));
    }
    let sent = generator.sent();
    assert!((9_990..=10_010).contains(&sent.frames), "{sent:?}");
    assert!((1_900..2_100).contains(&sent.disturbed.replayed), "a fifth of all: {sent:?}");
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let v4 = |mix| stream(mix, "10.0.0.9", "11.0.0.0", 1);
    let short = Generator::new(&v4("43"), HZ).err().unwrap();
    assert!(matches!(short, GeneratorError::Stream(StreamError::TooShort { octets: 43, least: 44 })));
    assert!(Generator::new(&Stream { stamped: false, ..v4("28") }, HZ).is_ok());
    let v6 = Generator::new(&stream("63", "fd00::1", "fd00::2", 1), HZ).err().unwrap();
    assert!(matches!(v6, GeneratorError::Stream(StreamError::TooShort { octets: 63, least: 64 })));
    for (rates, distance) in [
        (Rates { forged: 1.1, ..Rates::default() }, 1),
        (Rates { reordered: -0.1, ..Rates::default() }, 1),
        (Rates { replayed: f64::NAN, ..Rates::default() }, 1),
        (Rates::default(), 0),
        (Rates::default(), 65_537),
    ] {
        assert!(Disturbance::new(&rates, distance, 1).is_err(), "{rates:?} {distance}");
    }
    let forged = Disturbance::new(&Rates { forged: 0.1, ..Rates::default() }, 1, 1).unwrap();
    let clear = Generator::new(&v4("64"), HZ).unwrap().disturbed(forged).err().unwrap();
    assert!(matches!(clear, GeneratorError::Disturbance(DisturbanceError::Clear)));
    let opened = opener(&pool(64), 1, false);
    let sa = opened.setup.sa(0, Direction::Outbound);
    let sealer = Sealer::new(std::slice::from_ref(&sa), MACS, Aead::best()).unwrap();
    let long = Generator::new(&v4("9000"), HZ).unwrap().sealed(sealer, 4096).err().unwrap();
    assert!(matches!(long, GeneratorError::TooLong { octets: 9000, .. }));
    let chacha = Algorithm::new(Encryption::ChaCha20Poly1305, Integrity::None).unwrap();
    let other = Sa { algorithm: chacha, ..sa };
    assert!(matches!(Sealer::new(&[other], MACS, Aead::best()), Err(SealerError::Algorithm { .. })));
    assert!(matches!(Sealer::new(&[], MACS, Aead::best()), Err(SealerError::None)));
}
