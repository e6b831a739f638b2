//! SAs of ESP that are in SAs of AH (RFC 2401 §4.3), through whole gateways in memory.

mod testbed;

use portcullis_datapath::{drop::DropReason, wire};
use portcullis_sadb::*;
use testbed::{pair::*, *};

/// Two gateways whose SAs of ESP are in SAs of AH, each in its own (RFC 2401 §4.3).
fn in_ah(tunnel: Tunnel) -> Pair {
    let mut pair = Pair::new(tunnel);
    let algorithm = Algorithm::by_name(Protocol::Ah, "hmac-sha2-256-128").expect("in the table");
    for (me, gateway) in (1u8..).zip(&mut pair.gateways) {
        for (from, to) in [(3 - me, me), (me, 3 - me)] {
            let inner = sa(&tunnel, me, from, to);
            // Of another worker than the one that the SPI of ESP would name.
            let of = |spi| portcullis_ebpf::worker_of_spi(spi, tunnel.workers);
            let around = (spi(to) + 0x100..).find(|around| tunnel.workers == 1 || of(*around) != of(spi(to)));
            let outer = Sa {
                spi: Spi(around.unwrap()),
                protocol: Protocol::Ah,
                mode: Mode::Transport,
                algorithm,
                reqid: 0,
                handling: Handling::default(),
                key: Key::new(&[to; 32]).unwrap(),
                ..inner.clone()
            };
            let inbound = me == to;
            gateway.sadb.retire(if inbound { gateway.inbound } else { gateway.outbound }).unwrap();
            let slot = gateway.sadb.publish(&outer).unwrap();
            let around = Some(Around { slot, spi: outer.spi });
            let slot = gateway.sadb.publish(&Sa { around, ..inner }).unwrap();
            if inbound {
                gateway.inbound = slot;
                continue;
            }
            gateway.outbound = slot;
            let outbound: Vec<_> =
                gateway.sadb.policies().filter(|(_, p)| p.direction == Direction::Outbound).collect();
            outbound.iter().for_each(|(index, _)| gateway.sadb.set_policy_sa(*index, Some(slot)).unwrap());
        }
    }
    pair
}

#[test]
fn a_bundle_is_ip_and_ah_and_esp_and_nothing_less_is_taken() {
    for (algorithm, mode, outer_v4, workers) in algorithms()
        .into_iter()
        .flat_map(|algorithm| [Mode::Tunnel, Mode::Transport].map(|mode| (algorithm, mode)))
        .flat_map(|(algorithm, mode)| {
            [(true, 1), (false, 2)].map(|(v4, workers)| (algorithm, mode, v4, workers))
        })
    {
        let tunnel =
            Tunnel { algorithm, mode, outer_v4, workers, lends: false, tells: true, ..Tunnel::default() };
        let mut pair = in_ah(tunnel);
        let inner_v4 = mode == Mode::Tunnel || outer_v4;
        let packet = udp_between(1, inner_v4, 300);
        // The whole packets, and what they have behind IP.
        let at = 14 + if outer_v4 { 20 } else { 40 };
        for from in [1, 2, 1] {
            let packet = udp_between(from, inner_v4, 300);
            let (sealed, delivered) = pair.pass(from, &packet);
            assert_eq!(sealed.len(), 1);
            let next = sealed[0][if outer_v4 { 14 + 9 } else { 14 + 6 }];
            assert_eq!((next, sealed[0][at]), (51, 50), "RFC 2401 §4.3, RFC 4302 §3.1");
            assert_eq!(delivered.len(), 1, "{mode:?} {workers}");
            assert_eq!(delivered[0][14..], forwarded(packet[14..].to_vec()));
        }
        // Each SA counts.
        for gateway in &pair.gateways {
            let counted: Vec<_> = gateway.sadb.sas().map(|(_, _, sa)| sa.protocol).collect();
            assert_eq!(counted.len(), 4);
        }
        // RFC 2401 §5.2.1: ESP without its AH, and AH without ESP, are not the bundle.
        let sent = pair.gateways[0].pass(LAN, frame(&mut pair.cache, &packet));
        let whole = octets(&sent[0].1);
        sent.into_iter().for_each(|(_, frame)| pair.cache.give(frame));
        let ah = (usize::from(whole[at + 1]) + 2) * 4;
        let mut bare = whole.clone();
        bare.drain(at..at + ah);
        if outer_v4 {
            let len = (bare.len() - 14) as u16;
            bare[16..18].copy_from_slice(&len.to_be_bytes());
            bare[14 + 9] = 50;
            bare[24..26].copy_from_slice(&[0, 0]);
            let checksum = !wire::fold(wire::sum(&bare[14..34]));
            bare[24..26].copy_from_slice(&checksum.to_be_bytes());
        } else {
            let len = (bare.len() - 54) as u16;
            bare[18..20].copy_from_slice(&len.to_be_bytes());
            bare[14 + 6] = 50;
        }
        let other = &mut pair.gateways[1];
        let before = other.drops();
        assert!(other.pass(WAN, frame(&mut pair.cache, &bare)).is_empty());
        assert_eq!(other.dropped_since(&before), Some(DropReason::SaMismatch), "{mode:?} {workers}");
        // The bundle itself is taken behind that.
        let delivered = other.pass(WAN, frame(&mut pair.cache, &whole));
        assert_eq!(delivered.len(), 1);
        delivered.into_iter().for_each(|(_, frame)| pair.cache.give(frame));
    }
}

#[test]
fn a_bundle_has_room_for_both_headers() {
    for algorithm in algorithms() {
        let mut pair = in_ah(Tunnel { algorithm, tells: true, ..Tunnel::default() });
        let packet = |payload| with_df(udp_between(1, true, payload));
        // Nothing is lost to learn it: the first is told what fits.
        let told = out_of(&mut pair, LAN, &packet(1440));
        let [(LAN, message)] = &told[..] else { panic!("{told:02x?}") };
        assert_eq!((message[20], message[21]), (3, 4)); // RFC 1191 §4
        let mtu = wire::be32(message, 24) as usize;
        let (sealed, delivered) = pair.pass(1, &packet(mtu - 28));
        assert_eq!((sealed.len(), delivered.len()), (1, 1), "{mtu}");
        assert!(sealed[0].len() <= 14 + 1500 && sealed[0].len() > 14 + 1500 - 16, "{}", sealed[0].len());
    }
}

#[test]
fn the_ah_of_a_bundle_brings_nothing_but_its_esp() {
    let mut pair = in_ah(Tunnel { mode: Mode::Transport, ..Tunnel::default() });
    // Whoever has the key of AH alone.
    let sender = &mut pair.gateways[0].sadb;
    let is_ah = |sa: &Sa| (sa.direction, sa.protocol) == (Direction::Outbound, Protocol::Ah);
    let ah = sender.sas().find(|(.., sa)| is_ah(sa)).map(|(slot, ..)| slot);
    let policies: Vec<_> = sender.policies().filter(|(_, p)| p.direction == Direction::Outbound).collect();
    policies.iter().for_each(|(index, _)| sender.set_policy_sa(*index, ah).unwrap());
    let before = pair.gateways[1].drops();
    let (sealed, delivered) = pair.pass(1, &udp_between(1, true, 300));
    assert_eq!((sealed[0][14 + 9], sealed[0][14 + 20], delivered.len()), (51, 17, 0));
    assert_eq!(pair.gateways[1].dropped_since(&before), Some(DropReason::SelectorMismatch));
}

/// AH that is around nothing is for the policies that have its `reqid`, also if that is the one of bundles' AH.
#[test]
fn ah_alone_is_for_its_policies() {
    for mode in [Mode::Tunnel, Mode::Transport] {
        let algorithm = Algorithm::by_name(Protocol::Ah, "hmac-sha2-256-128").expect("in the table");
        let tunnel = Tunnel { algorithm, mode, protocol: Protocol::Ah, ..Tunnel::default() };
        let mut pair = Pair::new(tunnel);
        let receiver = &mut pair.gateways[1];
        receiver.sadb.retire(receiver.inbound).unwrap();
        receiver.inbound = receiver.sadb.publish(&Sa { reqid: 0, ..sa(&tunnel, 2, 1, 2) }).unwrap();
        let packet = udp_between(1, true, 300);
        let before = receiver.drops();
        assert!(pair.pass(1, &packet).1.is_empty());
        let receiver = &mut pair.gateways[1];
        assert_eq!(receiver.dropped_since(&before), Some(DropReason::SelectorMismatch), "{mode:?}");
        let policies: Vec<_> = receiver.sadb.policies().collect();
        policies.iter().for_each(|(index, _)| receiver.sadb.set_policy_reqid(*index, 0).unwrap());
        let (sealed, delivered) = pair.pass(1, &packet);
        assert_eq!((sealed[0][14 + 9], delivered.len()), (51, 1), "{mode:?}");
        assert_eq!(delivered[0][14..], forwarded(packet[14..].to_vec()));
    }
}
