//! Several SAs under one policy, one for each class of traffic (RFC 4301 §4.1), through whole gateways in memory.

mod testbed;

use portcullis_datapath::{drop::DropReason, wire};
use portcullis_sadb::*;
use testbed::*;

/// DSCPs of two classes, and those that have none.
const CLASSES: [&[u8]; 2] = [&[46, 44], &[34]];

/// Of a DSCP the class: 0 is that of all others.
fn class_of(dscp: u8) -> usize {
    CLASSES.iter().position(|dscps| dscps.contains(&dscp)).map_or(0, |class| class + 1)
}

/// SPI of packets of a class to gateway N.
fn class_spi(n: u8, class: usize) -> u32 {
    spi(n) + 0x100 * class as u32
}

struct Pair {
    gateways: [Gateway; 2],
    cache: portcullis_datapath::pool::FrameCache,
    /// The SAs of gateway 1's packets, at gateway 1 and at gateway 2.
    sas: [Vec<SlotIndex>; 2],
}

impl Pair {
    fn new(tunnel: Tunnel) -> Pair {
        let pool = memory(4096);
        let mut gateways = [1, 2].map(|n| Gateway::new(tunnel, n, &pool));
        let mut sas = [vec![gateways[0].outbound], vec![gateways[1].inbound]];
        for (n, gateway) in (1u8..).zip(&mut gateways) {
            let mut classes = Classes::new(Some(gateway.outbound));
            for (class, dscps) in (1..).zip(CLASSES) {
                let mut publish = |from, to| {
                    let sa = sa(&tunnel, n, from, to);
                    let key: Vec<u8> = sa.key.bytes().iter().map(|b| b ^ (16 * class as u8)).collect();
                    let sa = Sa { spi: Spi(class_spi(to, class)), key: Key::new(&key).unwrap(), ..sa };
                    gateway.sadb.publish(&sa).unwrap()
                };
                let (inbound, outbound) = (publish(3 - n, n), publish(n, 3 - n));
                classes.add(dscps, Some(outbound));
                sas[n as usize - 1].push(if n == 1 { outbound } else { inbound });
            }
            let outbound = |(i, p): (PolicyIndex, Policy)| (p.direction == Direction::Outbound).then_some(i);
            for index in gateway.sadb.policies().filter_map(outbound).collect::<Vec<_>>() {
                gateway.sadb.set_policy_classes(index, &classes).unwrap();
            }
        }
        Pair { gateways, cache: pool.cache(), sas }
    }

    /// What gateway 1 makes of packets that come in at once at its LAN.
    fn seal(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.pass(0, LAN, WAN, packets)
    }

    /// What comes out at the LAN of gateway 2.
    fn open(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.pass(1, WAN, LAN, packets)
    }

    fn pass(&mut self, gateway: usize, from: usize, to: usize, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let gateway = &mut self.gateways[gateway];
        for bytes in packets {
            gateway.ends[0][from].send(frame(&mut self.cache, bytes)).unwrap();
        }
        gateway.turn();
        let mut out = vec![];
        for (port, frame) in gateway.collect() {
            assert_eq!(port, to);
            let mut bytes = vec![0; frame.total_len()];
            frame.gather(&mut bytes);
            out.push(bytes);
            self.cache.give(frame);
        }
        out
    }
}

fn packet(v4: bool, dscp: u8, id: u32) -> Vec<u8> {
    let mut packet = udp(inside(1, v4), inside(2, v4), 40, 64);
    wire::set_tos(&mut packet[14..], dscp << 2);
    let end = packet.len();
    packet[end - 4..].copy_from_slice(&id.to_be_bytes());
    packet
}

fn id(packet: &[u8]) -> u32 {
    wire::be32(packet, packet.len() - 4)
}

fn sealed_spi(packet: &[u8], outer_v4: bool) -> u32 {
    wire::be32(packet, 14 + if outer_v4 { 20 } else { 40 })
}

/// One that goes the plain way, and one that goes the general way.
fn algorithms() -> [Algorithm; 2] {
    [Algorithm::AES_GCM_128, Algorithm::by_name(Protocol::Esp, "chacha20-poly1305").expect("in the table")]
}

#[test]
fn each_dscp_leaves_by_its_sa_and_all_others_by_the_default() {
    for algorithm in algorithms() {
        for (outer_v4, workers, lends) in
            [(true, 1, false), (false, 1, false), (true, 3, false), (true, 2, true)]
        {
            let mut pair = Pair::new(Tunnel { algorithm, outer_v4, workers, lends, ..Tunnel::default() });
            let mut ids = vec![];
            for v4 in [true, false] {
                // In one batch, and one flow.
                let packets: Vec<_> = (0..64).map(|dscp| packet(v4, dscp, 100 + dscp as u32)).collect();
                let sealed = pair.seal(&packets);
                assert_eq!(sealed.len(), 64);
                let mut expected = [0; 3];
                (0..64).for_each(|dscp| expected[class_of(dscp)] += 1);
                let count =
                    |class| sealed.iter().filter(|p| sealed_spi(p, outer_v4) == class_spi(2, class)).count();
                assert_eq!([0, 1, 2].map(count), expected, "RFC 4301 §4.1");
                for bytes in pair.open(&sealed) {
                    let dscp = (id(&bytes) - 100) as u8;
                    ids.push((v4, dscp));
                }
            }
            ids.sort();
            let all: Vec<_> =
                [false, true].into_iter().flat_map(|v4| (0..64).map(move |d| (v4, d))).collect();
            assert_eq!(ids, all, "each came out once");
            // Which packets each SA had is what its counters say.
            pair.gateways.iter_mut().for_each(|g| (0..8).for_each(|_| g.turn()));
            for (gateway, sas) in pair.gateways.iter().zip(&pair.sas) {
                let counted = |slot: &SlotIndex| gateway.sadb.runtime().sa(*slot).unwrap().counters.packets;
                assert_eq!(sas.iter().map(counted).collect::<Vec<_>>(), [2 * 61, 2 * 2, 2]);
            }
        }
    }
}

/// What classes are for: a router lets 46 pass first, and what waited is not left of a window for that.
#[test]
fn packets_that_other_classes_overtake_are_in_their_window() {
    for algorithm in algorithms() {
        for by_class in [true, false] {
            // Without ESN: with it, what is left of the window is taken for the next 2^32 (RFC 4303 §A2.1).
            let tunnel = Tunnel { algorithm, window: 64, esn: false, ..Tunnel::default() };
            let mut pair = Pair::new(tunnel);
            if !by_class {
                let gateway = &mut pair.gateways[0];
                let policies: Vec<_> = gateway.sadb.policies().collect();
                for (index, _) in policies.into_iter().filter(|(_, p)| p.sa.is_some()) {
                    gateway.sadb.set_policy_sa(index, Some(gateway.outbound)).unwrap();
                }
            }
            let (mut first, mut later) = (vec![], vec![]);
            for round in 0..40 {
                // Eight packets, four of each class.
                let packets: Vec<_> =
                    (0..8).map(|i| packet(true, [46, 0][i as usize % 2], 8 * round + i)).collect();
                for (i, sealed) in pair.seal(&packets).into_iter().enumerate() {
                    // By the ESP trailer nothing tells the class: the DSCP was copied to the outer header.
                    assert_eq!(sealed[15] >> 2, [46, 0][i % 2]);
                    if i % 2 == 0 { first.push(sealed) } else { later.push(sealed) }
                }
            }
            let before = pair.gateways[1].drops();
            let mut delivered = 0;
            for batch in first.chunks(64).chain(later.chunks(64)) {
                delivered += pair.open(batch).len();
            }
            let too_old = DropReason::ReplayTooOld as usize;
            let dropped = pair.gateways[1].drops()[too_old] - before[too_old];
            match by_class {
                true => assert_eq!((delivered, dropped), (320, 0), "RFC 4301 §4.1"),
                // Of 320 numbers, those up to 319 - 64 are not in the window any more.
                false => assert_eq!((delivered, dropped), (160 + 33, 127), "{:?}", pair.gateways[1].drops()),
            }
        }
    }
}

#[test]
fn a_class_is_rekeyed_by_itself_and_one_without_an_sa_does_not_leave() {
    for algorithm in algorithms() {
        let tunnel = Tunnel { algorithm, ..Tunnel::default() };
        let mut pair = Pair::new(tunnel);
        let spis = |pair: &mut Pair| -> Vec<u32> {
            let packets: Vec<_> = [0, 46, 34].map(|dscp| packet(true, dscp, 0)).to_vec();
            let mut spis: Vec<_> = pair.seal(&packets).iter().map(|p| sealed_spi(p, true)).collect();
            spis.sort();
            spis
        };
        assert_eq!(spis(&mut pair), [0, 1, 2].map(|class| class_spi(2, class)));
        let gateway = &mut pair.gateways[0];
        let version = gateway.reader.spd_version();
        let old = pair.sas[0][1];
        let (_, sa) = gateway.sadb.sa(old).unwrap();
        let key: Vec<u8> = sa.key.bytes().iter().map(|b| !b).collect();
        let new = Sa { spi: Spi(class_spi(2, 7)), key: Key::new(&key).unwrap(), ..sa };
        let new = gateway.sadb.publish(&new).unwrap();
        let mut classes = Classes::new(Some(pair.sas[0][0]));
        classes.add(CLASSES[0], Some(new));
        classes.add(CLASSES[1], Some(pair.sas[0][2]));
        for (index, _) in gateway.reader.policies().filter(|(_, p)| p.sa.is_some()) {
            gateway.sadb.set_policy_classes(index, &classes).unwrap();
        }
        gateway.sadb.retire(old).unwrap();
        assert_eq!(gateway.reader.spd_version(), version, "what workers have decided stays");
        assert_eq!(spis(&mut pair), [0, 2, 7].map(|class| class_spi(2, class)));
        // A class without an SA does not leave by another.
        pair.gateways[0].sadb.retire(new).unwrap();
        let before = pair.gateways[0].drops();
        assert_eq!(spis(&mut pair), [0, 2].map(|class| class_spi(2, class)));
        assert_eq!(pair.gateways[0].dropped_since(&before), Some(DropReason::NoSa));
    }
}
