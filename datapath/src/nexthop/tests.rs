use super::*;
use crate::{
    fib::{Hop, Neighbours, PortLink, Prefix, Route, Routes, RoutesBuilder},
    frame::META,
};
use std::ptr::NonNull;

const CHUNK: usize = 2048;

/// Frames over memory of their own, with the count of those not given back.
struct Chunks {
    memory: Vec<Vec<u64>>,
    out: usize,
}

impl Chunks {
    fn new() -> Chunks {
        Chunks { memory: vec![], out: 0 }
    }

    fn frame(&mut self, packet: &[u8], offset: usize) -> Frame {
        let mut chunk = vec![0u64; CHUNK / 8];
        let start = NonNull::new(chunk.as_mut_ptr()).unwrap().cast::<u8>();
        self.memory.push(chunk);
        self.out += 1;
        // SAFETY: the chunk is CHUNK zeroed bytes, aligned to 8, of this frame alone, and lives as long as `self`.
        let mut frame = unsafe { Frame::from_chunk(start, CHUNK as u16, offset as u16, packet.len() as u16) };
        frame.bytes_mut().copy_from_slice(packet);
        frame
    }

    fn v4(&mut self, len: u16) -> Frame {
        let mut packet = vec![0u8; 40];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        self.frame(&packet, META + 64)
    }

    /// What a worker would see, the frame given back.
    fn done(&mut self, routed: Routed) -> Seen {
        match routed {
            Routed::Held => Seen::Held,
            Routed::Send { port, frame } => {
                self.out -= 1;
                Seen::Sent(port, frame.bytes()[..ETHERNET].to_vec())
            }
            Routed::Drop { frame: _, reason } => {
                self.out -= 1;
                Seen::Dropped(reason)
            }
        }
    }
}

#[derive(PartialEq, Eq, Debug, Clone)]
enum Seen {
    Held,
    Sent(u8, Vec<u8>),
    Dropped(DropReason),
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// 10.0.0.0/16 and fd00::/64 on port 0, 10.1.0.0/16 on port 1; these neighbours.
fn fib(version: u64, neighbours: &[(u8, &str)]) -> Arc<Fib> {
    let ports = (0..2u8).map(|n| PortLink {
        interface: format!("p{n}"),
        ifindex: 10 + n as u32,
        mac: Mac([2, 0, 0, 0, 0, n]),
        mtu: 1500,
        up: true,
        kernel: None,
    });
    let macs: Neighbours = neighbours.iter().map(|(p, a)| ((*p, ip(a)), Mac([6, 0, 0, 0, 0, 9]))).collect();
    Arc::new(Fib::new(version, Arc::new(ports.collect()), routes(), Arc::new(macs)))
}

fn routes() -> Arc<Routes> {
    let mut routes = RoutesBuilder::default();
    routes.local(Prefix::host(ip("10.0.0.1")));
    for (addr, len, port) in [("10.0.0.0", 16, 0), ("10.1.0.0", 16, 1), ("fd00::", 64, 0)] {
        let hop = Hop { port: Some(port), gateway: None, mtu: 0, weight: 1, kernel: None };
        routes.route(Prefix { addr: ip(addr), len }, &Route::Unicast(vec![hop]));
    }
    Arc::new(routes.build())
}

fn ethernet(port: u8, ethertype: [u8; 2]) -> Vec<u8> {
    [[6, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, port]].concat().into_iter().chain(ethertype).collect()
}

fn turn(hops: &mut NextHops, chunks: &mut Chunks, now_ms: u64) -> Vec<Seen> {
    let mut seen = vec![];
    hops.turn(now_ms, |routed| seen.push(chunks.done(routed)));
    seen
}

#[test]
fn writes_the_ethernet_header_or_says_why_not() {
    let mut chunks = Chunks::new();
    let (mut hops, _publisher) = NextHops::new(fib(1, &[(0, "10.0.0.2"), (0, "fd00::2"), (1, "10.1.0.2")]));
    let mut v6 = [0u8; 40];
    v6[0] = 0x60;
    let too_big6 = {
        let mut p = v6;
        p[4..6].copy_from_slice(&1461u16.to_be_bytes());
        p
    };
    let full = |p: &[u8]| (p.to_vec(), META + 64);
    for (frame, dst, expected) in [
        (chunks.v4(1500), "10.0.0.2", Seen::Sent(0, ethernet(0, [8, 0]))),
        (chunks.v4(40), "10.1.0.2", Seen::Sent(1, ethernet(1, [8, 0]))),
        (chunks.v4(1501), "10.0.0.2", Seen::Dropped(DropReason::TooBig)),
        (chunks.v4(40), "10.0.0.1", Seen::Dropped(DropReason::LocalDelivery)),
        (chunks.v4(40), "10.9.0.1", Seen::Dropped(DropReason::NoRoute)),
        (chunks.frame(&full(&v6).0, full(&v6).1), "fd00::2", Seen::Sent(0, ethernet(0, [0x86, 0xdd]))),
        (chunks.frame(&too_big6, META + 64), "fd00::2", Seen::Dropped(DropReason::TooBig)),
        (chunks.frame(&v6, META + 14), "fd00::2", Seen::Sent(0, ethernet(0, [0x86, 0xdd]))),
        (chunks.frame(&v6, META + 13), "fd00::2", Seen::Dropped(DropReason::NoHeadroom)),
        (chunks.frame(&[], META + 64), "10.0.0.2", Seen::Dropped(DropReason::Malformed)),
        (chunks.frame(&[0x45, 0, 0], META + 64), "10.0.0.2", Seen::Dropped(DropReason::Malformed)),
        (chunks.frame(&[0; 40], META + 64), "10.0.0.2", Seen::Dropped(DropReason::Malformed)),
    ] {
        let (bytes, offset, mut via) = (frame.bytes().to_vec(), frame.offset(), Via::NONE);
        assert_eq!(chunks.done(hops.route(frame, &mut via, || ip(dst).into())), expected, "{dst}");
        // Where there is a way it is kept, and good for the next packet without a look at where it is going.
        if matches!(hops.resolve(ip(dst)), Resolution::Send { .. }) {
            let (again, before) = (chunks.frame(&bytes, offset), via);
            let seen = chunks.done(hops.route(again, &mut via, || unreachable!()));
            assert_eq!((seen, via), (expected, before), "{dst}");
        } else {
            assert_eq!(via, Via::NONE);
        }
    }
    assert_eq!(chunks.out, 0);
}

#[test]
fn holds_until_resolved_and_asks_once() {
    let mut chunks = Chunks::new();
    let (mut hops, publisher) = NextHops::new(fib(1, &[]));
    assert!(turn(&mut hops, &mut chunks, 5000).is_empty());
    for dst in ["10.0.0.2", "10.0.0.2", "10.1.0.3", "10.0.0.2"] {
        let frame = chunks.v4(40);
        assert_eq!(chunks.done(hops.route(frame, &mut Via::NONE.clone(), || ip(dst).into())), Seen::Held);
    }
    assert_eq!(publisher.wanted(), Some((0, ip("10.0.0.2"))));
    assert_eq!(publisher.wanted(), Some((1, ip("10.1.0.3"))));
    assert_eq!(publisher.wanted(), None);

    // A snapshot that does not help changes nothing; one that helps lets the right ones go.
    publisher.publish(&fib(2, &[]));
    assert!(turn(&mut hops, &mut chunks, 5001).is_empty());
    publisher.publish(&fib(3, &[(0, "10.0.0.2")]));
    assert_eq!(turn(&mut hops, &mut chunks, 5002), vec![Seen::Sent(0, ethernet(0, [8, 0])); 3]);
    assert_eq!(publisher.wanted(), None);

    assert!(turn(&mut hops, &mut chunks, 5999).is_empty());
    assert_eq!(turn(&mut hops, &mut chunks, 6000), [Seen::Dropped(DropReason::NeighbourUnresolved)]);
    assert_eq!((chunks.out, hops.held()), (0, 0));
}

#[test]
fn full_buffers_drop_the_newest() {
    let mut chunks = Chunks::new();
    let (mut hops, publisher) = NextHops::new(fib(1, &[]));
    let dropped = Seen::Dropped(DropReason::NeighbourUnresolved);
    let hold = |hops: &mut NextHops, chunks: &mut Chunks, n: usize, dst: &str| {
        let mut held = 0;
        for _ in 0..n {
            let frame = chunks.v4(40);
            match chunks.done(hops.route(frame, &mut Via::NONE.clone(), || ip(dst).into())) {
                Seen::Held => held += 1,
                seen => assert_eq!(seen, dropped),
            }
        }
        held
    };
    for n in 2..5 {
        assert_eq!(hold(&mut hops, &mut chunks, 100, &format!("10.0.0.{n}")), HELD_PER_NEIGHBOUR);
    }
    assert_eq!(hold(&mut hops, &mut chunks, 60, "10.0.0.5"), 60);
    assert_eq!(hold(&mut hops, &mut chunks, 60, "10.0.0.6"), 4);
    assert_eq!(hold(&mut hops, &mut chunks, 60, "10.0.0.7"), 0);
    assert_eq!(hops.held(), HELD_FRAMES);
    let wanted: Vec<_> = std::iter::from_fn(|| publisher.wanted()).collect();
    assert_eq!(wanted.len(), 5);

    let mut drained = 0;
    hops.drain(|routed| {
        assert_eq!(chunks.done(routed), dropped);
        drained += 1;
    });
    assert_eq!((drained, chunks.out), (HELD_FRAMES, 0));
}

#[test]
fn a_full_request_ring_is_asked_again() {
    let mut chunks = Chunks::new();
    let (mut hops, publisher) = NextHops::new(fib(1, &[]));
    for n in 0..70 {
        let frame = chunks.v4(40);
        assert_eq!(
            chunks.done(hops.route(frame, &mut Via::NONE.clone(), || ip(&format!("10.0.1.{n}")).into())),
            Seen::Held
        );
    }
    let asked = |publisher: &Publisher| std::iter::from_fn(|| publisher.wanted()).count();
    assert_eq!(asked(&publisher), 64);
    publisher.publish(&fib(2, &[]));
    assert!(turn(&mut hops, &mut chunks, 1).is_empty());
    assert_eq!(asked(&publisher), 6);
    hops.drain(|routed| drop(chunks.done(routed)));
    assert_eq!(chunks.out, 0);
}

#[test]
fn snapshots_are_freed_by_the_publisher_only() {
    let mut chunks = Chunks::new();
    let first = fib(1, &[]);
    let (mut hops, publisher) = NextHops::new(first.clone());
    let second = fib(2, &[(0, "10.0.0.2")]);
    assert!(matches!(hops.resolve(ip("10.0.0.2")), Resolution::Unresolved { .. }));
    publisher.publish(&second);
    assert!(turn(&mut hops, &mut chunks, 1).is_empty());
    assert!(matches!(hops.resolve(ip("10.0.0.2")), Resolution::Send { .. }));
    assert_eq!(hops.fib().version(), 2);
    assert_eq!(Arc::strong_count(&first), 2);
    publisher.reclaim();
    assert_eq!(Arc::strong_count(&first), 1);

    // A publisher that takes nothing back stops the worker from taking more, not from working.
    let stuck: Vec<_> = (3..10).map(|v| fib(v, &[])).collect();
    for fib in &stuck {
        publisher.0.fresh.force_push(fib.clone());
        assert!(turn(&mut hops, &mut chunks, 1).is_empty());
    }
    assert_eq!(hops.fib().version(), 6);
    publisher.reclaim();
    assert!(turn(&mut hops, &mut chunks, 1).is_empty());
    assert_eq!(hops.fib().version(), 9);
    assert!(matches!(hops.resolve(ip("10.0.0.2")), Resolution::Unresolved { .. }));
}

#[test]
fn a_kept_way_of_an_older_snapshot_is_not_taken() {
    let mut chunks = Chunks::new();
    let (mut hops, publisher) = NextHops::new(fib(1, &[(0, "10.0.0.2")]));
    let mut via = Via::NONE;
    let send = |hops: &mut NextHops, chunks: &mut Chunks, via: &mut Via| {
        let frame = chunks.v4(40);
        chunks.done(hops.route(frame, via, || ip("10.0.0.2").into()))
    };
    assert_eq!(send(&mut hops, &mut chunks, &mut via), Seen::Sent(0, ethernet(0, [8, 0])));
    publisher.publish(&fib(2, &[]));
    assert!(turn(&mut hops, &mut chunks, 1).is_empty());
    assert_eq!(send(&mut hops, &mut chunks, &mut via), Seen::Held);
    publisher.publish(&fib(3, &[(0, "10.0.0.2")]));
    assert_eq!(turn(&mut hops, &mut chunks, 2), [Seen::Sent(0, ethernet(0, [8, 0]))]);
    assert_eq!(send(&mut hops, &mut chunks, &mut via), Seen::Sent(0, ethernet(0, [8, 0])));
    assert_eq!(chunks.out, 0);
}

#[test]
fn neighbours_that_there_is_no_room_for_are_looked_up_each_time() {
    let mut chunks = Chunks::new();
    let addresses: Vec<String> =
        (256..ADJACENCIES + 1256).map(|n| format!("10.0.{}.{}", n >> 8, n & 255)).collect();
    let mac = |n: usize| Mac([6, 0, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
    let ports = fib(1, &[]).ports().to_vec();
    let neighbours: Neighbours = addresses.iter().enumerate().map(|(n, a)| ((0, ip(a)), mac(n))).collect();
    let table = Fib::new(1, Arc::new(ports), routes(), Arc::new(neighbours));
    let (mut hops, _publisher) = NextHops::new(Arc::new(table));
    let mut vias = vec![Via::NONE; addresses.len()];
    for _ in 0..2 {
        for (n, (address, via)) in addresses.iter().zip(&mut vias).enumerate() {
            let frame = chunks.v4(40);
            let Seen::Sent(0, header) = chunks.done(hops.route(frame, via, || ip(address).into())) else {
                panic!("{address}")
            };
            assert_eq!(header[..6], mac(n).0, "{address}");
        }
    }
    let kept = vias.iter().filter(|via| **via != Via::NONE).count();
    assert!((ADJACENCIES / 2..=ADJACENCIES).contains(&kept), "{kept}");
}

#[test]
fn a_kept_way_marks_its_neighbour_as_used_each_second() {
    let mut chunks = Chunks::new();
    let fib = fib(1, &[(0, "10.0.0.2")]);
    let (mut hops, _publisher) = NextHops::new(fib.clone());
    let (mut used_at, mut via) = (vec![], Via::NONE);
    for now_ms in (0..4000).step_by(100) {
        assert!(turn(&mut hops, &mut chunks, now_ms).is_empty());
        let frame = chunks.v4(40);
        assert!(matches!(chunks.done(hops.route(frame, &mut via, || ip("10.0.0.2").into())), Seen::Sent(..)));
        fib.neighbours().take_used(|_, _| used_at.push(now_ms));
    }
    assert_eq!(used_at, [0, 1000, 2000, 3000]);
}
