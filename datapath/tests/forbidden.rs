//! Packets that leave by no SA, through a whole gateway in memory: what iked is asked for (RFC 4301 §5.1), and what
//! their sources are told (RFC 4301 §5.1.1).

mod testbed;

use portcullis_datapath::{drop::DropReason, general::fragment::fragments, pool::FrameCache, wire};
use portcullis_sadb::*;
use std::net::IpAddr;
use testbed::*;

struct Bench {
    gateway: Gateway,
    cache: FrameCache,
}

impl Bench {
    /// Gateway 1, with the policies of its tunnel above all others.
    fn new(tells: bool) -> Bench {
        let pool = memory(2048);
        let mut gateway = Gateway::new(Tunnel { tells: true, ..Tunnel::default() }, 1, &pool);
        let inside: Vec<Prefix> = ["10.1.0.0/16", "fd00:1::/32"].map(|p| p.parse().unwrap()).into();
        gateway.workers.iter_mut().filter(|_| tells).for_each(|w| w.tell_prohibited(&inside));
        Bench { gateway, cache: pool.cache() }
    }

    fn add(&mut self, action: Action, direction: Direction, dst: &str, populate: Populate) -> PolicyIndex {
        let dst: Prefix = dst.parse().unwrap();
        let net = if dst.addr().is_ipv4() { "10.1.0.0/16" } else { "fd00:1::/32" };
        let selector = Selector::between(net.parse().unwrap(), dst);
        let policy = Policy { direction, selector, priority: 10, action, reqid: 9, sa: None };
        self.gateway.sadb.add_populated(&policy, populate).unwrap()
    }

    /// What comes of a frame at the LAN: why it was dropped, and what else left where, from its IP header on.
    fn pass(&mut self, bytes: &[u8]) -> (Option<DropReason>, Vec<(usize, Vec<u8>)>) {
        let before = self.gateway.drops();
        let passed = self.gateway.pass(LAN, frame(&mut self.cache, bytes));
        let mut out = vec![];
        for (port, frame) in passed {
            let mut bytes = vec![0; frame.total_len()];
            frame.gather(&mut bytes);
            out.push((port, bytes[14..].to_vec()));
            self.cache.give(frame);
        }
        (self.gateway.dropped_since(&before), out)
    }

    /// What iked was asked for.
    fn asked(&mut self) -> Vec<(PolicyIndex, Flow)> {
        let events = std::iter::from_fn(|| self.gateway.sadb.poll_event());
        events
            .map(|e| {
                assert_eq!(e.kind, EventKind::Acquire);
                (PolicyIndex(e.value as u32), Flow::from_words(&e.about))
            })
            .collect()
    }

    fn wait(&mut self, ms: u64) {
        self.gateway.now_ms += ms;
    }
}

fn flow(src: IpAddr, dst: IpAddr) -> Flow {
    Flow { src, dst, protocol: 17, ports: Some((0x1234, 53)) }
}

/// Type and code of the one ICMP message that left at the LAN; it is from the gateway and about the packet.
fn told(out: &[(usize, Vec<u8>)], about: &[u8], v4: bool) -> (u8, u8) {
    let [(LAN, message)] = out else { panic!("{out:02x?}") };
    let at = if v4 { 20 } else { 40 };
    let ip = wire::Ip::parse(message).unwrap();
    assert_eq!(IpAddr::from(ip.src()), lan(1, v4));
    assert_eq!(message[at + 8..], about[14..][..message.len() - at - 8]);
    (message[at], message[at + 1])
}

#[test]
fn a_trap_asks_for_an_sa_and_sends_by_it_once_there_is_one() {
    for (dst, v4) in [("10.5.0.0/16", true), ("fd00:5::/32", false)] {
        let mut bench = Bench::new(false);
        let trap = bench.add(Action::Protect, Direction::Outbound, dst, Populate::No);
        let dst = ip(if v4 { "10.5.0.9" } else { "fd00:5::9" });
        let (src, packet) = (inside(1, v4), udp(inside(1, v4), dst, 40, 64));
        assert_eq!(bench.pass(&packet), (Some(DropReason::NoSa), vec![]));
        assert_eq!(bench.asked(), [(trap, flow(src, dst))]);
        // Of a trap all packets ask for the same.
        let other = udp(src, ip(if v4 { "10.5.7.7" } else { "fd00:5::7" }), 40, 64);
        assert_eq!(bench.pass(&other), (Some(DropReason::NoSa), vec![]));
        assert!(bench.asked().is_empty());
        bench.wait(1000);
        assert_eq!(bench.pass(&packet), (Some(DropReason::NoSa), vec![]));
        assert_eq!(bench.asked().len(), 1);
        let outbound = bench.gateway.outbound;
        bench.gateway.sadb.set_policy_sa(trap, Some(outbound)).unwrap();
        let (dropped, out) = bench.pass(&packet);
        assert_eq!((dropped, out.len(), out[0].0), (None, 1, WAN));
        assert!(bench.asked().is_empty());
    }
}

#[test]
fn a_policy_that_is_populated_asks_for_an_sa_for_what_each_kind_of_packet_has() {
    let mut bench = Bench::new(false);
    let fields = Fields::DST | Fields::PROTOCOL | Fields::DST_PORT;
    let from = bench.add(Action::Protect, Direction::Outbound, "10.5.0.0/16", Populate::From(fields));
    let (src, first, second) = (inside(1, true), ip("10.5.0.1"), ip("10.5.0.2"));
    let packet = |src, dst| udp(src, dst, 40, 64);
    for (packet, is_asked) in [
        (packet(src, first), true),
        (packet(src, second), true),
        // The source is not populated: the SA would be the same.
        (packet(ip("10.1.7.7"), first), false),
    ] {
        assert_eq!(bench.pass(&packet).0, Some(DropReason::NoSa));
        assert_eq!(bench.asked().len(), usize::from(is_asked));
    }
    // As iked does: only what has the same goes by the SA.
    let (policy, outbound) = (bench.gateway.sadb.policy(from).unwrap(), bench.gateway.outbound);
    let selector = policy.selector.populated(fields, &flow(src, first)).unwrap();
    let populated = Policy { selector, sa: Some(outbound), ..policy };
    bench.gateway.sadb.add_populated(&populated, Populate::Above(from)).unwrap();
    assert_eq!(bench.pass(&packet(src, first)).1.len(), 1);
    assert_eq!(bench.pass(&packet(ip("10.1.7.7"), first)).1.len(), 1);
    assert_eq!(bench.pass(&packet(src, second)), (Some(DropReason::NoSa), vec![]));
    let mut other_port = packet(src, first);
    other_port[14 + 20 + 3] = 54;
    assert_eq!(bench.pass(&other_port).0, Some(DropReason::NoSa));
    assert_eq!(bench.asked().len(), 1);
    // RFC 4301 §4.4.2.2, §7: a fragment shows its port when its datagram is whole.
    let long = udp(src, ip("10.5.0.3"), 3000, 64);
    let mut dropped = vec![];
    for piece in fragments(&long[14..], 1400, 1).unwrap() {
        dropped.extend(bench.pass(&[&long[..14], &piece.head, piece.body].concat()).0);
    }
    assert_eq!(dropped, [DropReason::NoSa]);
    assert_eq!(bench.asked(), [(from, flow(src, ip("10.5.0.3")))]);
}

#[test]
fn jumbo_packets_ask_too_and_their_sources_are_told() {
    let mut bench = Bench::new(true);
    let trap = bench.add(Action::Protect, Direction::Outbound, "10.5.0.0/16", Populate::No);
    let (src, dst) = (inside(1, true), ip("10.5.0.9"));
    assert_eq!(bench.pass(&udp(src, dst, 8000, 64)), (Some(DropReason::NoSa), vec![]));
    assert_eq!(bench.asked(), [(trap, flow(src, dst))]);
    for (dst, ttl, kind) in [("10.77.0.9", 64, (3, 13)), ("10.2.0.9", 1, (11, 0))] {
        let packet = udp(src, ip(dst), 8000, ttl);
        let (dropped, out) = bench.pass(&packet);
        assert!(dropped.is_some());
        assert_eq!(told(&out, &packet, true), kind);
    }
}

/// Whatever comes for others, and as often as it comes: a trap asks once a second.
#[test]
fn a_trap_asks_once_a_second_in_a_flood_of_others() {
    let mut bench = Bench::new(false);
    bench.add(Action::Protect, Direction::Outbound, "10.5.0.0/16", Populate::From(Fields::DST));
    let traps = ["10.6.0.0/16", "10.7.0.0/16"]
        .map(|dst| bench.add(Action::Protect, Direction::Outbound, dst, Populate::No));
    let mut asked = vec![];
    for turn in 0..3000u32 {
        let flood = (0..60).map(|n| format!("10.5.{}.{}", turn % 200, n % 250));
        let all = flood.chain((0..3).map(|n| format!("10.6.0.{n}"))).chain(["10.7.0.1".into()]);
        for dst in all {
            let packet = udp(inside(1, true), ip(&dst), 40, 64);
            bench.gateway.ends[0][LAN].send(frame(&mut bench.cache, &packet)).unwrap();
        }
        bench.gateway.turn();
        let now = bench.gateway.now_ms;
        asked.extend(bench.asked().into_iter().map(|(policy, _)| (policy, now)));
    }
    let seconds = bench.gateway.now_ms.div_ceil(1000) as usize;
    for trap in traps {
        let times: Vec<_> = asked.iter().filter(|(policy, _)| *policy == trap).map(|(_, ms)| ms).collect();
        assert!(times.len() == seconds && times.is_sorted_by(|a, b| **b == **a + 1000), "{times:?}");
    }
    let iked = bench.gateway.sadb.runtime().worker(0).unwrap();
    assert!(iked.acquires_untold > 0 && iked.events_lost == 0);
}

#[test]
fn a_flood_of_flows_is_dropped_and_counted() {
    let mut bench = Bench::new(false);
    bench.add(Action::Protect, Direction::Outbound, "10.5.0.0/16", Populate::From(Fields::DST));
    let before = bench.gateway.drops();
    let mut sent = 0;
    for round in 0..40u32 {
        for n in 0..100 {
            let dst = std::net::Ipv4Addr::from_bits(10 << 24 | 5 << 16 | (round * 100 + n));
            let packet = udp(inside(1, true), dst.into(), 40, 64);
            bench.gateway.ends[0][LAN].send(frame(&mut bench.cache, &packet)).unwrap();
            sent += 1;
        }
        bench.gateway.turn();
    }
    // What was not looked at is counted with what is.
    bench.wait(10);
    let packet = udp(inside(1, true), ip("10.5.0.0"), 40, 64);
    assert_eq!(bench.pass(&packet), (Some(DropReason::NoSa), vec![]));
    sent += 1;
    let asked = bench.asked().len() as u64;
    let counted = bench.gateway.drops()[DropReason::NoSa as usize] - before[DropReason::NoSa as usize];
    let untold = bench.gateway.sadb.runtime().worker(0).unwrap();
    assert_eq!(counted, sent);
    assert!((64..=70).contains(&asked), "{asked}");
    assert_eq!((untold.acquires_untold, untold.events_lost), (sent - 1 - asked, 0));
}

#[test]
fn the_source_of_what_a_policy_forbids_is_told_if_that_is_wished_for() {
    for tells in [true, false] {
        let mut bench = Bench::new(tells);
        bench.add(Action::Discard, Direction::Outbound, "10.5.0.0/16", Populate::No);
        bench.add(Action::Discard, Direction::Outbound, "fd00:5::/32", Populate::No);
        for (dst, v4, reason, kind) in [
            ("10.5.0.9", true, DropReason::PolicyDiscard, (3, 13)),
            ("fd00:5::9", false, DropReason::PolicyDiscard, (1, 1)),
            // Of what no policy is about, the last one is Discard (RFC 4301 §4.4.1).
            ("10.77.0.9", true, DropReason::NoPolicy, (3, 13)),
            ("fd00:77::9", false, DropReason::NoPolicy, (1, 1)),
        ] {
            let packet = udp(inside(1, v4), ip(dst), 40, 64);
            let (dropped, out) = bench.pass(&packet);
            assert_eq!(dropped, Some(reason), "{dst}");
            match tells {
                true => assert_eq!(told(&out, &packet, v4), kind, "RFC 4301 §5.1.1"),
                false => assert!(out.is_empty()),
            }
        }
        // Its rate has an end (RFC 4443 §2.4(f)), and begins again.
        let packet = udp(inside(1, true), ip("10.5.0.9"), 40, 64);
        for _ in 0..250 {
            bench.gateway.ends[0][LAN].send(frame(&mut bench.cache, &packet)).unwrap();
        }
        bench.gateway.turn();
        let answers = bench.gateway.collect();
        let wanted = if tells { 90..=110 } else { 0..=0 };
        assert!(wanted.contains(&answers.len()), "{}", answers.len());
        answers.into_iter().for_each(|(_, frame)| bench.cache.give(frame));
        bench.wait(10_000);
        assert_eq!(bench.pass(&packet).1.len(), usize::from(tells));
    }
}

/// RFC 1122 §3.2.2, RFC 4443 §2.4(e).
#[test]
fn nobody_is_told_of_groups_later_fragments_and_errors() {
    let mut bench = Bench::new(true);
    bench.add(Action::Discard, Direction::Outbound, "0.0.0.0/0", Populate::No);
    let discarded = (Some(DropReason::PolicyDiscard), vec![]);
    let (src, dst) = (inside(1, true), ip("10.5.0.9"));
    assert_eq!(bench.pass(&udp(src, ip("224.0.0.5"), 40, 64)), discarded);
    let mut error = vec![2; 12];
    error.extend(ethernet_ip(src, dst, 1, 64, &[&[3, 1, 0, 0, 0, 0, 0, 0][..], &[0x45; 28]].concat()));
    assert_eq!(bench.pass(&error), discarded);
    let long = udp(src, dst, 3000, 64);
    let mut answers = vec![];
    for piece in fragments(&long[14..], 1400, 1).unwrap() {
        let (dropped, out) = bench.pass(&[&long[..14], &piece.head, piece.body].concat());
        assert_eq!(dropped, Some(DropReason::PolicyDiscard));
        answers.push(out.len());
    }
    assert_eq!(answers, [1, 0, 0], "the first one's source is told");
}

/// RFC 4301 §5.1.1 is about what goes out: who is outside is told nothing of what may not come in.
#[test]
fn nobody_outside_is_told_what_may_not_come_in() {
    let mut bench = Bench::new(true);
    let selector = Selector::between("10.6.0.0/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap());
    let (direction, action) = (Direction::Inbound, Action::Discard);
    let policy = Policy { direction, selector, priority: 1, action, reqid: 0, sa: None };
    bench.gateway.sadb.add_policy(&policy).unwrap();
    for (src, reason) in [
        ("10.6.0.9", DropReason::PolicyDiscard),
        ("10.2.0.9", DropReason::Unprotected),
        ("10.7.0.9", DropReason::NoPolicy),
    ] {
        let before = bench.gateway.drops();
        let packet = frame(&mut bench.cache, &udp(ip(src), inside(1, true), 40, 64));
        assert!(bench.gateway.pass(WAN, packet).is_empty(), "{src}");
        assert_eq!(bench.gateway.dropped_since(&before), Some(reason));
    }
}

/// RFC 4301 §5.1.1: the peer cannot be reached. Not at once: iked may be about to.
#[test]
fn the_source_is_told_when_an_sa_does_not_come() {
    for (dst, net, v4, kind) in
        [("10.5.0.9", "10.5.0.0/16", true, (3, 1)), ("fd00:5::9", "fd00:5::/32", false, (1, 3))]
    {
        for tells in [true, false] {
            let mut bench = Bench::new(tells);
            bench.add(Action::Protect, Direction::Outbound, net, Populate::From(Fields::DST));
            let packet = udp(inside(1, v4), ip(dst), 40, 64);
            assert_eq!(bench.pass(&packet), (Some(DropReason::NoSa), vec![]));
            bench.wait(900);
            assert_eq!(bench.pass(&packet), (Some(DropReason::NoSa), vec![]));
            bench.wait(100);
            let (dropped, out) = bench.pass(&packet);
            assert_eq!(dropped, Some(DropReason::NoSa));
            match tells {
                true => assert_eq!(told(&out, &packet, v4), kind),
                false => assert!(out.is_empty()),
            }
        }
    }
}
