//! The general path, through whole gateways in memory: every mode, protocol and algorithm, there and back.

mod testbed;

use portcullis_datapath::{
    drop::DropReason,
    general::{
        self,
        fragment::fragments,
        icmp,
        reassembly::{self, Outcome, Reassembly},
    },
    wire,
};
use portcullis_sadb::*;
use testbed::{pair::*, *};

#[test]
fn every_algorithm_in_every_mode_there_and_back() {
    let mut cases = 0;
    for protocol in [Protocol::Esp, Protocol::Ah] {
        for algorithm in Algorithm::all().filter(|a| a.is_for(protocol)) {
            for mode in [Mode::Tunnel, Mode::Transport] {
                for (v4, outer_v4) in [(true, true), (true, false), (false, true), (false, false)] {
                    if mode == Mode::Transport && v4 != outer_v4 {
                        continue;
                    }
                    for (esn, udp) in [(true, false), (false, false), (true, protocol == Protocol::Esp)] {
                        let tunnel =
                            Tunnel { algorithm, protocol, mode, outer_v4, esn, udp, ..Tunnel::default() };
                        let mut pair = Pair::new(tunnel);
                        for (n, from) in [(0, 1), (1, 2), (7, 1), (40, 1), (41, 2), (1200, 1)] {
                            let packet = udp_between(from, v4, n);
                            let (sealed, delivered) = pair.pass(from, &packet);
                            let name = format!("{} {mode:?} {v4} in {outer_v4}, {n}", algorithm.name());
                            assert_eq!(delivered.len(), 1, "{name}: {sealed:02x?}");
                            assert_eq!(delivered[0][14..], forwarded(packet[14..].to_vec()), "{name}");
                            assert_ne!(sealed[0], packet);
                            cases += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{cases} packets");
}

#[test]
fn what_is_too_long_is_cut_or_its_source_is_told() {
    for algorithm in algorithms() {
        for outer_v4 in [true, false] {
            let tunnel = Tunnel { algorithm, outer_v4, ..Tunnel::default() };
            let mut pair = Pair::new(tunnel);
            // IPv4 without DF: cut before, and whole again at the host (RFC 4301 §8.1).
            for payload in [1460, 1472, 3000, 9000] {
                let packet = udp_between(1, true, payload);
                let (sealed, delivered) = pair.pass(1, &packet);
                let sizes: Vec<_> = sealed.iter().map(Vec::len).collect();
                assert!(
                    sizes.len() > 1 && sizes.iter().all(|s| *s <= 14 + 1500),
                    "{sizes:?}: {:?}",
                    pair.gateways[0].drops()
                );
                let mut whole = vec![];
                for piece in &delivered {
                    assert!(piece.len() <= 1500);
                    whole.extend_from_slice(&piece[34..]);
                }
                assert_eq!(whole, packet[34..], "{payload} octets");
            }
            // With DF, and IPv6: told (RFC 1191 §4, RFC 4443 §3.2). What is told fits.
            for v4 in [true, false] {
                let make = |payload| {
                    let packet = udp_between(1, v4, payload);
                    if v4 { with_df(packet) } else { packet }
                };
                let before = pair.gateways[0].drops();
                let told = out_of(&mut pair, LAN, &make(1472 - if v4 { 0 } else { 20 }));
                assert_eq!(pair.gateways[0].dropped_since(&before), Some(DropReason::TooBig));
                let [(LAN, message)] = &told[..] else { panic!("{told:02x?}") };
                let (at, kind, code) = if v4 { (20, 3, 4) } else { (40, 2, 0) };
                assert_eq!((message[at], message[at + 1]), (kind, code));
                let mtu = wire::be32(message, at + 4) as usize;
                let from = if v4 { &message[12..16] } else { &message[8..24] };
                match lan(1, v4) {
                    std::net::IpAddr::V4(a) => assert_eq!(from, a.octets()),
                    std::net::IpAddr::V6(a) => assert_eq!(from, a.octets()),
                }
                let header = if v4 { 28 } else { 48 };
                let (sealed, delivered) = pair.pass(1, &make(mtu - header));
                assert_eq!((sealed.len(), delivered.len()), (1, 1));
                assert!(out_of(&mut pair, LAN, &make(mtu - header + 1))[0].0 == LAN);
            }
        }
    }
}

#[test]
fn an_outer_packet_without_df_is_cut_and_put_together_again() {
    for algorithm in algorithms() {
        for (outer_v4, protocol) in [(true, Protocol::Esp), (true, Protocol::Ah)] {
            let algorithm = match protocol {
                Protocol::Esp => algorithm,
                Protocol::Ah => Algorithm::by_name(protocol, "hmac-sha2-256-128").expect("in the table"),
            };
            for udp in [false, protocol == Protocol::Esp] {
                let handling = Handling { df: DfBit::Clear, ..Handling::default() };
                let mut pair =
                    Pair::new(Tunnel { algorithm, protocol, outer_v4, udp, handling, ..Tunnel::default() });
                let packet = with_df(udp_between(1, true, 1472));
                let (sealed, delivered) = pair.pass(1, &packet);
                assert_eq!(sealed.len(), 2);
                assert_eq!(delivered.len(), 1, "{} {udp}", algorithm.name());
                assert_eq!(delivered[0][14..], forwarded(packet[14..].to_vec()));
            }
        }
    }
}

#[test]
fn fragments_of_esp_meet_in_any_order() {
    for algorithm in algorithms() {
        for (outer_v4, udp) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut pair = Pair::new(Tunnel { algorithm, outer_v4, udp, ..Tunnel::default() });
            for backwards in [false, true] {
                let packet = udp_between(1, true, 700);
                let sealed = out_of(&mut pair, LAN, &packet).remove(0).1;
                let mut pieces: Vec<Vec<u8>> = fragments(&sealed, 300, 7 + u32::from(backwards))
                    .unwrap()
                    .map(|piece| {
                        [
                            &[2; 12][..],
                            if outer_v4 { &[8, 0] } else { &[0x86, 0xdd] },
                            &piece.head,
                            piece.body,
                        ]
                        .concat()
                    })
                    .collect();
                assert!(pieces.len() > 2);
                if backwards {
                    pieces.reverse();
                }
                let mut delivered = vec![];
                for piece in &pieces {
                    for (port, frame) in pair.gateways[1].pass(WAN, frame(&mut pair.cache, piece)) {
                        assert_eq!(port, LAN);
                        delivered.push(octets(&frame));
                        pair.cache.give(frame);
                    }
                }
                assert_eq!(delivered.len(), 1, "{} {outer_v4} {udp} {backwards}", algorithm.name());
                assert_eq!(delivered[0][14..], forwarded(packet[14..].to_vec()));
            }
        }
    }
}

#[test]
fn what_a_host_has_cut_is_put_together_for_transport_mode() {
    // RFC 4303 §3.3.4: ESP is on whole datagrams, and cut behind it, by a bump in the wire too.
    for (protocol, name) in [
        (Protocol::Esp, "aes-gcm-128"),
        (Protocol::Esp, "aes-cbc-128+hmac-sha2-256-128"),
        (Protocol::Ah, "hmac-sha2-256-128"),
    ] {
        let algorithm = Algorithm::by_name(protocol, name).expect("in the table");
        for (outer_v4, udp) in [(true, false), (false, false), (true, true), (false, true)] {
            if udp && protocol == Protocol::Ah {
                continue;
            }
            let name = format!("{name} {outer_v4} {udp}");
            let mode = Mode::Transport;
            let mut pair =
                Pair::new(Tunnel { algorithm, protocol, mode, outer_v4, udp, ..Tunnel::default() });
            for (id, payload) in [(1, 1500), (2, 3000), (3, 9000)] {
                let packet = udp_between(1, outer_v4, payload);
                let (mut sealed, mut delivered) = (vec![], vec![]);
                for piece in fragments(&packet[14..], 1400, id).unwrap() {
                    let (more, out) = pair.pass(1, &[&packet[..14], &piece.head, piece.body].concat());
                    sealed.extend(more);
                    delivered.extend(out);
                }
                assert!(sealed.len() > 1 && sealed.iter().all(|s| s.len() <= 14 + 1500), "{name}");
                let (mut host, mut whole) = (Reassembly::new(reassembly::Limits::default()), vec![0; 10_000]);
                let mut outcome = Outcome::Held;
                for piece in &delivered {
                    assert!(piece.len() <= 14 + 1500);
                    outcome = host.insert(general::From::Clear, 0, &piece[14..], &mut whole);
                }
                let Outcome::Done(octets) = outcome else { panic!("{name} {payload}: {outcome:?}") };
                assert_eq!(whole[..octets], forwarded(packet[14..].to_vec()), "{name} {payload}");
            }
            // Fragments that are in no SA do not come in, whatever may have been in them.
            let plain = udp_between(1, outer_v4, 3000);
            let before = pair.gateways[1].drops();
            for piece in fragments(&plain[14..], 1400, 9).unwrap() {
                let bytes = [&plain[..14], &piece.head, piece.body].concat();
                assert!(pair.gateways[1].pass(WAN, frame(&mut pair.cache, &bytes)).is_empty(), "{name}");
            }
            assert_eq!(pair.gateways[1].dropped_since(&before), Some(DropReason::Unprotected), "{name}");
        }
    }
}

/// RFC 1191 §4, RFC 8200 §5: that the outer packet was cut says nothing of the inner one.
#[test]
fn what_is_inside_of_fragments_is_cut_no_more_than_else() {
    for algorithm in algorithms() {
        for v4 in [true, false] {
            let handling = Handling { df: DfBit::Clear, ..Handling::default() };
            let tunnel = Tunnel { algorithm, handling, tells: true, ..Tunnel::default() };
            let pool = memory(1024);
            let mut cache = pool.cache();
            let mut one = Gateway::new(Tunnel { mtu: 1600, ..tunnel }, 1, &pool);
            let mut two = Gateway::new(Tunnel { mtu: 1400, ..tunnel }, 2, &pool);
            let packet = udp_between(1, v4, if v4 { 1472 } else { 1452 });
            let packet = if v4 { with_df(packet) } else { packet };
            let sealed = one.pass(LAN, frame(&mut cache, &packet)).remove(0).1;
            let (bytes, before) = (octets(&sealed), two.drops());
            cache.give(sealed);
            for piece in fragments(&bytes[14..], 1000, 7).unwrap() {
                let piece = [&bytes[..14], &piece.head, piece.body].concat();
                two.pass(WAN, frame(&mut cache, &piece)).into_iter().for_each(|(port, frame)| {
                    assert_eq!(port, WAN, "what its source is told, by the tunnel");
                    cache.give(frame);
                });
            }
            let reason = two.dropped_since(&before);
            assert_eq!(reason, Some(DropReason::TooBig), "{v4}, {}", algorithm.name());
        }
    }
}

#[test]
fn who_comes_too_far_is_told() {
    for algorithm in algorithms() {
        let mut pair = Pair::new(Tunnel { algorithm, ..Tunnel::default() });
        for v4 in [true, false] {
            let before = pair.gateways[0].drops();
            let told = out_of(&mut pair, LAN, &udp(inside(1, v4), inside(2, v4), 8, 1));
            assert_eq!(pair.gateways[0].dropped_since(&before), Some(DropReason::TtlExceeded));
            let [(LAN, message)] = &told[..] else { panic!("{told:02x?}") };
            let (at, kind) = if v4 { (20, 11) } else { (40, 3) };
            assert_eq!((message[at], message[at + 1]), (kind, 0), "RFC 792, RFC 4443 §3.3");
        }
        // What comes out of the tunnel with its last hop: told through the tunnel.
        let mut sealed =
            pair.gateways[0].pass(LAN, frame(&mut pair.cache, &udp(inside(1, true), inside(2, true), 8, 2)));
        let mut answer = pair.gateways[1].pass(WAN, sealed.remove(0).1);
        let (port, answer) = answer.remove(0);
        assert_eq!(port, WAN);
        let (port, told) = pair.gateways[0].pass(WAN, answer).remove(0);
        assert_eq!((port, octets(&told)[34..36].to_vec()), (LAN, vec![11, 0]));
        pair.cache.give(told);
    }
    const { assert!(icmp::MOST_V4 == 576) };
}

#[test]
fn what_is_over_its_hard_limit_is_not_sent_and_iked_is_told_once() {
    let limits = |bytes, packets, secs| Limits { bytes, packets, secs };
    for algorithm in algorithms() {
        for (soft, hard, payload, passing) in [
            (limits(0, 3, 0), limits(0, 5, 0), 100, 5),
            (limits(0, 0, 0), limits(0, 5000, 0), 10, 5000),
            (limits(40_000, 0, 0), limits(70_000, 0, 0), 972, 70),
            (limits(0, 0, 0), limits(0, 0, 60), 8, 0),
        ] {
            let lifetime = Lifetime { soft, hard, idle_secs: 0 };
            let handling = Handling { lifetime, ..Handling::default() };
            let mut pair = Pair::new(Tunnel { algorithm, handling, ..Tunnel::default() });
            let packet = udp_between(1, true, payload);
            if hard.secs != 0 {
                assert_eq!(out_of(&mut pair, LAN, &packet).len(), 1);
                pair.gateways[0].now_ms = 61_000;
                pair.gateways[0].turn();
            }
            let before = pair.gateways[0].drops();
            let sent = (0..passing + 20).filter(|_| !out_of(&mut pair, LAN, &packet).is_empty()).count();
            assert_eq!(sent, passing, "{} {hard:?}", algorithm.name());
            let dropped = pair.gateways[0].drops()[DropReason::SaExpired as usize];
            assert_eq!(dropped - before[DropReason::SaExpired as usize], 20);
            // Of both SAs, if it is time that ends them.
            let outbound = pair.gateways[0].outbound;
            let events: Vec<_> = std::iter::from_fn(|| pair.gateways[0].sadb.poll_event())
                .filter(|e| e.slot == outbound)
                .map(|e| e.kind)
                .collect();
            let expected = match soft {
                Limits { bytes: 0, packets: 0, .. } => vec![EventKind::HardLifetime],
                _ => vec![EventKind::SoftLifetime, EventKind::HardLifetime],
            };
            assert_eq!(events, expected);
        }
    }
}

/// Sizes of IMIX: 28 of 64 octets, 16 of 570, 4 of 1500 that would have been 1518.
const IMIX: [(usize, usize); 3] = [(28, 64), (16, 570), (4, 1400)];

#[test]
fn imix_with_reordered_and_duplicated_packets_is_delivered_once() {
    const ROUNDS: usize = 60;
    for algorithm in algorithms() {
        for esn in [false, true] {
            let mut pair = Pair::new(Tunnel { algorithm, esn, ..Tunnel::default() });
            let mut random = Random(0x1234_5678_9abc_def1);
            println!("seed {:#x}", random.0);
            let mut on_the_wire: Vec<Vec<u8>> = vec![];
            let mut sent = std::collections::HashSet::new();
            for round in 0..ROUNDS {
                for (n, octets) in IMIX {
                    for k in 0..n {
                        let mut packet = udp(inside(1, true), inside(2, true), octets - 28, 64);
                        let number = (round * 100 + k) as u32 | (octets as u32) << 16;
                        packet[42..46].copy_from_slice(&number.to_be_bytes());
                        assert!(sent.insert(number));
                        on_the_wire.push(
                            [vec![2; 12], vec![8, 0], out_of(&mut pair, LAN, &packet).remove(0).1].concat(),
                        );
                    }
                }
            }
            let originals = on_the_wire.len();
            // 5 % go some places back, within the window, and 1 % come twice.
            for i in 0..originals {
                if random.below(20) == 0 {
                    let to = (i + 1 + random.below(200)).min(originals - 1);
                    on_the_wire[i..=to].rotate_left(1);
                }
            }
            let mut duplicates = 0;
            let mut with_twins = vec![];
            for packet in on_the_wire {
                if random.below(100) == 0 {
                    with_twins.push(packet.clone());
                    duplicates += 1;
                }
                with_twins.push(packet);
            }
            let before = pair.gateways[1].drops();
            let mut delivered = std::collections::HashSet::new();
            for packet in &with_twins {
                for (port, frame) in pair.gateways[1].pass(WAN, frame(&mut pair.cache, packet)) {
                    assert_eq!(port, LAN);
                    let number = u32::from_be_bytes(octets(&frame)[42..46].try_into().unwrap());
                    assert!(delivered.insert(number), "twice");
                    pair.cache.give(frame);
                }
            }
            let refused = pair.gateways[1].drops()[DropReason::ReplayDuplicate as usize]
                - before[DropReason::ReplayDuplicate as usize];
            assert_eq!((&delivered, refused), (&sent, duplicates), "RFC 4303 §3.4.3");
            let record = pair.gateways[1].sadb.runtime().sa(pair.gateways[1].inbound).unwrap();
            assert_eq!(record.counters.replay_duplicates, duplicates);
            assert!(record.counters.out_of_order > 100 && (1..1024).contains(&record.farthest_late));
            println!(
                "{originals} packets, {} out of order, {duplicates} of them twice ({}): {} delivered, {refused} refused",
                record.counters.out_of_order,
                algorithm.name(),
                delivered.len()
            );
        }
    }
}

#[test]
fn a_hub_protects_again_what_goes_on_from_one_tunnel_into_another() {
    for algorithm in algorithms() {
        let mut pair = Pair::new(Tunnel { algorithm, mtu: 9200, ..Tunnel::default() });
        // What comes from 10.1/16 goes on to 10.7/16, which is behind gateway 1 too.
        let hub = &mut pair.gateways[1];
        let selector = |src: &str, dst: &str| Selector::between(src.parse().unwrap(), dst.parse().unwrap());
        let (action, reqid, priority) = (Action::Protect, 1, 10);
        let there = selector("10.1.0.0/16", "10.7.0.0/16");
        let sa = Some(hub.outbound);
        for (direction, sa) in [(Direction::Inbound, None), (Direction::Outbound, sa)] {
            let selector = there.clone();
            hub.sadb.add_policy(&Policy { direction, selector, priority, action, reqid, sa }).unwrap();
        }
        let spoke = &mut pair.gateways[0];
        let sa = Some(spoke.outbound);
        let policy = Policy { direction: Direction::Outbound, selector: there, priority, action, reqid, sa };
        spoke.sadb.add_policy(&policy).unwrap();
        for octets_of in [100, 1900, 3000, 8900] {
            let clear = udp(inside(1, true), ip("10.7.0.9"), octets_of, 64);
            let sealed = out_of(&mut pair, LAN, &clear).remove(0).1;
            let arriving = [&[2; 12][..], &[8, 0], &sealed].concat();
            let mut onward = pair.gateways[1].pass(WAN, frame(&mut pair.cache, &arriving));
            let (port, again) = onward.remove(0);
            let bytes = octets(&again);
            assert!(onward.is_empty() && port == WAN && bytes[23] == 50, "never in clear: {bytes:02x?}");
            assert_eq!(bytes.len(), 14 + sealed.len(), "{octets_of}");
            pair.cache.give(again);
        }
    }
}

#[test]
fn what_is_for_the_gateway_itself_goes_to_its_kernel() {
    for (algorithm, has_kernel) in algorithms().into_iter().flat_map(|a| [(a, true), (a, false)]) {
        let mut pair = Pair::new(Tunnel { algorithm, has_kernel, ..Tunnel::default() });
        for (v4, ttl) in [(true, 64), (true, 2), (false, 64), (false, 2)] {
            let clear = udp(inside(1, v4), lan(2, v4), 100, ttl);
            let sealed = pair.gateways[0].pass(LAN, frame(&mut pair.cache, &clear)).remove(0).1;
            let before = pair.gateways[1].drops();
            let delivered = pair.gateways[1].pass(WAN, sealed);
            if !has_kernel && ttl > 2 {
                assert!(delivered.is_empty());
                assert_eq!(pair.gateways[1].dropped_since(&before), Some(DropReason::LocalDelivery));
            }
            if !has_kernel {
                continue;
            }
            let [(LAN, at_kernel)] = &delivered[..] else {
                panic!("{algorithm:?} {v4} {ttl}: {delivered:?}")
            };
            let (mut once, bytes) = (clear[14..].to_vec(), octets(at_kernel));
            // One gateway has forwarded it.
            wire::decrement_ttl(&mut once).unwrap();
            assert_eq!((&bytes[..6], &bytes[14..]), (&KERNEL[..], &once[..]), "{algorithm:?} {v4} {ttl}");
        }
        // What is longer than it takes is cut, or its source is told, through the tunnel.
        for v4 in [true, false].into_iter().filter(|_| has_kernel) {
            let sealed =
                pair.gateways[0].pass(LAN, frame(&mut pair.cache, &udp(inside(1, v4), lan(2, v4), 1380, 64)));
            let mut out = pair.gateways[1].pass(WAN, sealed.into_iter().next().unwrap().1);
            let ports: Vec<_> = out.iter().map(|(port, _)| *port).collect();
            let told = out.remove(0).1;
            if v4 {
                assert_eq!(ports, [LAN; 2]);
                continue;
            }
            assert_eq!(ports, [WAN]);
            let (port, message) = pair.gateways[0].pass(WAN, told).remove(0);
            assert_eq!((port, octets(&message)[54..56].to_vec()), (LAN, vec![2, 0]), "RFC 4443 §3.2");
        }
        // In clear it is not let in.
        let before = pair.gateways[1].drops();
        let clear = udp(inside(1, true), lan(2, true), 100, 64);
        assert!(pair.gateways[1].pass(WAN, frame(&mut pair.cache, &clear)).is_empty());
        assert_eq!(pair.gateways[1].dropped_since(&before), Some(DropReason::Unprotected));
    }
}

#[test]
fn what_the_kernel_sends_has_its_last_hop_at_the_peer() {
    for algorithm in algorithms() {
        let mut pair = Pair::new(Tunnel { algorithm, has_kernel: true, ..Tunnel::default() });
        for v4 in [true, false] {
            for (ttl, arrives) in [(1, 1), (2, 1), (255, 254)] {
                let own = |ttl| udp(lan(1, v4), lan(2, v4), 100, ttl);
                let (sealed, delivered) = pair.pass(1, &own(ttl));
                assert_eq!((sealed.len(), delivered.len()), (1, 1));
                assert_eq!(delivered[0][14..], own(arrives)[14..]);
            }
            // What does not fit is told to it, as from where it was to go.
            let long = udp(lan(1, v4), inside(2, v4), 1440, 64);
            let long = if v4 { with_df(long) } else { long };
            let told = out_of(&mut pair, LAN, &long);
            let [(LAN, message)] = &told[..] else { panic!("{told:02x?}") };
            let ip = wire::Ip::parse(message).unwrap();
            assert_eq!((ip.src(), ip.dst()), (inside(2, v4).into(), lan(1, v4).into()));
            let (at, kind) = if v4 { (20, 3) } else { (40, 2) };
            assert_eq!(message[at], kind, "RFC 792, RFC 4443 §3.2");
        }
    }
}

#[test]
fn gre_between_two_gateways_is_carried_in_transport_mode() {
    for algorithm in algorithms() {
        for (v4, outer_v4, esn) in [(true, true, true), (false, true, false), (true, false, true)] {
            let handling = Handling { gre: true, ..Handling::default() };
            let tunnel =
                Tunnel { algorithm, outer_v4, esn, mode: Mode::Transport, handling, ..Tunnel::default() };
            let mut pair = Pair::new(tunnel);
            for n in [0, 1, 2, 3, 1000] {
                let packet = udp_between(1, v4, n);
                let (sealed, delivered) = pair.pass(1, &packet);
                assert_eq!((sealed.len(), delivered.len()), (1, 1));
                assert_eq!(delivered[0][14..], forwarded(packet[14..].to_vec()));
                // ESP header and trailer, and the four octets of RFC 2784 §2.1 under an outer header.
                let more = sealed[0].len() - packet.len();
                assert!(more >= 4 + if outer_v4 { 20 } else { 40 } + 8 + 2 + 16, "{more}");
            }
        }
    }
}

#[test]
fn an_sa_in_another_is_sealed_and_opened_twice() {
    for algorithm in algorithms() {
        let mut pair = bundle(algorithm);
        let packet = udp_between(1, true, 300);
        let (sealed, delivered) = pair.pass(1, &packet);
        // RFC 4302 §3.1.2: the outermost header is AH's, and what it has inside is ESP.
        assert_eq!((sealed[0][14 + 9], sealed[0][14 + 20]), (51, 50));
        assert_eq!(delivered.len(), 1);
        assert_eq!(delivered[0][14..], forwarded(packet[14..].to_vec()));
    }
}

/// Two gateways whose ESP tunnel goes in AH between them (RFC 4302 §3.1.2).
fn bundle(algorithm: Algorithm) -> Pair {
    let handling = Handling { nested: true, ..Handling::default() };
    bundled(Tunnel { algorithm, handling, ..Tunnel::default() })
}

/// The same, of this tunnel.
fn bundled(tunnel: Tunnel) -> Pair {
    let outside = Algorithm::by_name(Protocol::Ah, "hmac-sha2-256-128").expect("in the table");
    let algorithm = tunnel.algorithm;
    let mut pair = Pair::new(tunnel);
    for (n, gateway) in (1u8..).zip(&mut pair.gateways) {
        let inside = sa(&Tunnel { algorithm, ..Tunnel::default() }, n, 1, 2);
        let ah = Sa {
            spi: Spi(spi(9)),
            protocol: Protocol::Ah,
            mode: Mode::Transport,
            algorithm: outside,
            reqid: 2,
            key: Key::new(&[7; 32]).unwrap(),
            ..inside
        };
        let slot = gateway.sadb.publish(&ah).unwrap();
        let host = |n| Prefix::new(outer(n, true), 32).unwrap();
        let mut selector = Selector::between(host(1), host(2));
        selector.protocol = Some(if tunnel.udp { 17 } else { 50 });
        let outbound = n == 1;
        let direction = if outbound { Direction::Outbound } else { Direction::Inbound };
        let (action, sa) = (Action::Protect, outbound.then_some(slot));
        gateway.sadb.add_policy(&Policy { direction, selector, priority: 1, action, reqid: 2, sa }).unwrap();
    }
    pair
}

/// RFC 3948 §4: of an SA that is in another, a keepalive leaves in that.
#[test]
fn a_keepalive_of_an_sa_in_another_leaves_in_that() {
    let encap = UdpEncap { keepalive_secs: 20, ..UdpEncap::between(4500, 4500) };
    let handling = Handling { nested: true, ..Handling::default() };
    let mut pair = bundled(Tunnel { handling, udp: true, encap, ..Tunnel::default() });
    let mut sent = vec![];
    while pair.gateways[0].now_ms < 25_000 {
        pair.gateways[0].now_ms += 49;
        pair.gateways[0].turn();
        for (port, frame) in pair.gateways[0].collect() {
            sent.push((port, octets(&frame)[14..].to_vec()));
            pair.cache.give(frame);
        }
    }
    // AH (51), and in it UDP (17) with one octet.
    let [(WAN, keepalive)] = &sent[..] else { panic!("{sent:02x?}") };
    assert_eq!((keepalive[9], keepalive[20], keepalive.last()), (51, 17, Some(&0xff)));
}

#[test]
fn an_sa_in_another_learns_what_fits_into_that() {
    for algorithm in algorithms() {
        let mut pair = bundle(algorithm);
        // 1500 less AH (RFC 4302 §2), the outer IP header and ESP. The first that is too long is lost, and known of.
        let packet = |payload| with_df(udp_between(1, true, payload));
        let before = pair.gateways[0].drops();
        assert_eq!(out_of(&mut pair, LAN, &packet(1410)), []);
        assert_eq!(pair.gateways[0].dropped_since(&before), Some(DropReason::TooBig));
        let told = out_of(&mut pair, LAN, &packet(1410));
        let [(LAN, message)] = &told[..] else { panic!("{told:02x?}") };
        assert_eq!((message[20], message[21]), (3, 4)); // RFC 1191 §4
        let mtu = wire::be32(message, 24) as usize;
        let (sealed, delivered) = pair.pass(1, &packet(mtu - 28));
        assert_eq!((sealed.len(), delivered.len()), (1, 1), "{mtu}");
        assert!(sealed[0].len() <= 14 + 1500 && sealed[0].len() > 14 + 1500 - 4, "{}", sealed[0].len());
    }
}

#[test]
fn fields_of_headers_are_as_the_sa_asks() {
    let mut map: [u8; 64] = std::array::from_fn(|i| i as u8);
    map[46] = 34;
    for (handling, tos, ttl) in [
        (Handling { dscp: Dscp::Copy, ttl: 7, ..Handling::default() }, 46 << 2 | 1, 7),
        (Handling { dscp: Dscp::Set(10), ..Handling::default() }, 10 << 2 | 1, OUTER_TTL),
        (Handling { dscp: Dscp::Map(map), ttl: 0, ..Handling::default() }, 34 << 2 | 1, 63),
        (Handling { ecn: false, ..Handling::default() }, 46 << 2, OUTER_TTL),
    ] {
        for (outer_v4, flow_label) in [(true, false), (false, true), (false, false)] {
            let handling = Handling { flow_label, decap_dscp: true, ..handling };
            let mut pair = Pair::new(Tunnel { outer_v4, handling, ..Tunnel::default() });
            let mut packet = udp_between(1, true, 50);
            wire::set_tos(&mut packet[14..], 46 << 2 | 1);
            let (sealed, delivered) = pair.pass(1, &packet);
            let header = &sealed[0][14..];
            if outer_v4 {
                assert_eq!((header[1], header[8]), (tos, ttl), "RFC 2983 §3.1, RFC 6040 §4.1");
            } else {
                let first = wire::be32(header, 0);
                assert_eq!(((first >> 20) as u8, header[7]), (tos, ttl));
                assert_eq!(first & 0xf_ffff != 0, flow_label, "RFC 6438 §3");
            }
            // The DSCP of the outer header has come back, the inner ECN has stayed (RFC 2983 §4.1).
            assert_eq!(delivered[0][15], tos & !3 | 1);
        }
    }
}

/// RFC 4303 §A3: after a loss of 2^32 packets, and of twice as many, the receiver finds the high half of numbers anew,
/// however many packets come at once.
#[test]
fn a_receiver_finds_a_sender_that_is_far_ahead() {
    let ah = Algorithm::by_name(Protocol::Ah, "hmac-sha2-256-128").expect("in the table");
    let cases =
        algorithms().map(|algorithm| (Protocol::Esp, algorithm)).into_iter().chain([(Protocol::Ah, ah)]);
    for (protocol, algorithm) in cases {
        for (lends, at_once) in [false, true].into_iter().flat_map(|l| [1, 40, 100].map(|n| (l, n))) {
            let workers = if lends { 2 } else { 1 };
            finds_anew(
                Tunnel { tells: true, algorithm, protocol, lends, workers, ..Tunnel::default() },
                at_once,
            );
        }
    }
}

fn finds_anew(tunnel: Tunnel, at_once: usize) {
    let name = format!("{}, {at_once} at once, lent: {}", tunnel.algorithm.name(), tunnel.lends);
    let pool = memory(2048);
    let gateways = [1, 2].map(|n| Gateway::new(tunnel, n, &pool));
    let mut pair = Pair { gateways, cache: pool.cache() };
    let packet = udp_between(1, true, 100);
    // What the last of them was on the wire, and how many came through.
    let delivered = |pair: &mut Pair, at_once: usize| {
        let Pair { gateways: [one, two], cache } = pair;
        (0..at_once).for_each(|_| one.ends[0][LAN].send(frame(cache, &packet)).unwrap());
        one.turn();
        let mut sealed = vec![];
        for (_, frame) in one.collect() {
            sealed = octets(&frame);
            two.ends[0][WAN].send(frame).unwrap();
        }
        two.turn();
        let delivered = two.collect();
        let n = delivered.len();
        delivered.into_iter().for_each(|(_, frame)| cache.give(frame));
        (sealed, n)
    };
    assert_eq!(delivered(&mut pair, at_once).1, at_once);
    for ahead in [1u64, 3] {
        let one = &mut pair.gateways[0];
        one.runtime.sa(one.outbound).reserve((ahead << 32) + 0x50_0000 * ahead);
        one.start(1, &pool);
        let wrong = |pair: &Pair| pair.gateways[1].drops()[DropReason::IcvMismatch as usize];
        let (before, mut sent) = (wrong(&pair), 0);
        while sent < 5000 {
            sent += at_once;
            if delivered(&mut pair, at_once).1 > 0 {
                break;
            }
        }
        // Those that were on their way with the last that counts are lost with it.
        let lost = wrong(&pair) - before;
        assert!((1024..1024 + at_once as u64).contains(&lost) && sent < 5000, "{name}: {lost} of {sent}");
        // As if nothing had been.
        for _ in 0..100 / at_once {
            let (sealed, n) = delivered(&mut pair, at_once);
            assert_eq!(n, at_once, "{name}");
            let before = pair.gateways[1].drops();
            assert!(pair.gateways[1].pass(WAN, frame(&mut pair.cache, &sealed)).is_empty());
            assert_eq!(pair.gateways[1].dropped_since(&before), Some(DropReason::ReplayDuplicate));
        }
    }
    // What somebody forges has no such effect.
    let (mut forged, _) = delivered(&mut pair, 1);
    *forged.last_mut().unwrap() ^= 1;
    for n in 0..5000u32 {
        let at = 14 + 20 + if tunnel.protocol == Protocol::Esp { 4 } else { 8 };
        forged[at..at + 4].copy_from_slice(&(0x9000_0000 + n).to_be_bytes());
        assert!(pair.gateways[1].pass(WAN, frame(&mut pair.cache, &forged)).is_empty());
        if n % 1100 == 0 {
            assert_eq!(delivered(&mut pair, at_once).1, at_once, "{name}: after {n} forged ones");
        }
    }
    assert_eq!(delivered(&mut pair, at_once).1, at_once);
}
