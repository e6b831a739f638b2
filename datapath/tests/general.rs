//! The general path, through whole gateways in memory: every mode, protocol and algorithm, there and back.

mod testbed;

use portcullis_datapath::{
    drop::DropReason,
    general::{fragment::fragments, icmp},
    wire,
};
use portcullis_sadb::*;
use testbed::*;

/// A tunnel of two gateways, and packets between the hosts behind them.
struct Pair {
    gateways: [Gateway; 2],
    cache: portcullis_datapath::pool::FrameCache,
}

impl Pair {
    fn new(tunnel: Tunnel) -> Pair {
        let tunnel = Tunnel { tells: true, ..tunnel };
        let pool = memory(2048);
        let gateways = [1, 2].map(|n| Gateway::new(tunnel, n, &pool));
        Pair { gateways, cache: pool.cache() }
    }

    /// What comes of a frame that goes in at the LAN of gateway `from`: at its WAN, and at the other's LAN.
    fn pass(&mut self, from: u8, bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let [a, b] = &mut self.gateways;
        let (here, there) = if from == 1 { (a, b) } else { (b, a) };
        let sealed = here.pass(LAN, frame(&mut self.cache, bytes));
        let (mut on_the_wire, mut delivered) = (vec![], vec![]);
        for (port, frame) in sealed {
            on_the_wire.push(octets(&frame));
            assert_eq!(port, WAN, "{:02x?}", octets(&frame));
            for (port, frame) in there.pass(WAN, frame) {
                delivered.push(octets(&frame));
                assert_eq!(port, LAN);
                self.cache.give(frame);
            }
        }
        (on_the_wire, delivered)
    }
}

fn octets(frame: &portcullis_datapath::frame::Frame) -> Vec<u8> {
    let mut bytes = vec![0; frame.total_len()];
    frame.gather(&mut bytes);
    bytes
}

/// A packet as it is when two gateways have forwarded it.
fn forwarded(mut ip: Vec<u8>) -> Vec<u8> {
    wire::decrement_ttl(&mut ip).unwrap();
    wire::decrement_ttl(&mut ip).unwrap();
    ip
}

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

fn udp_between(from: u8, v4: bool, payload: usize) -> Vec<u8> {
    let mut packet = udp(inside(from, v4), inside(3 - from, v4), payload, 64);
    // A right checksum, which transport mode in UDP makes again.
    let at = 14 + if v4 { 20 } else { 40 };
    let addresses = if v4 { 26..34 } else { 22..54 };
    let sum = wire::sum(&packet[at..]) + wire::sum(&packet[addresses]) + (payload + 8) as u32 + 17;
    let checksum = match !wire::fold(sum) {
        0 => 0xffff,
        checksum => checksum,
    };
    packet[at + 6..at + 8].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// An algorithm that goes the general way, and one that goes the plain way.
fn algorithms() -> [Algorithm; 2] {
    let name = "chacha20-poly1305";
    [Algorithm::AES_GCM_128, Algorithm::by_name(Protocol::Esp, name).expect("in the table")]
}

/// A packet that must not be cut.
fn with_df(mut packet: Vec<u8>) -> Vec<u8> {
    packet[20] |= 0x40;
    packet[24..26].fill(0);
    let checksum = !wire::fold(wire::sum(&packet[14..34]));
    packet[24..26].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// What came out of gateway 1 at a port, if there is anything; the frames go back.
fn out_of(pair: &mut Pair, port: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let passed = pair.gateways[0].pass(port, frame(&mut pair.cache, bytes));
    let out = passed.iter().map(|(port, frame)| (*port, octets(frame)[14..].to_vec())).collect();
    passed.into_iter().for_each(|(_, frame)| pair.cache.give(frame));
    out
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
