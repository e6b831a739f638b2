//! Several SAs under one policy, one for each worker (RFC 9611), through whole gateways in memory.

mod testbed;

use portcullis_datapath::{drop::DropReason, wire};
use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::*;
use testbed::*;

const WORKERS: u32 = 3;

/// SPI of packets to gateway N of a worker's own SA, which belongs elsewhere by itself.
fn own_spi(n: u8, worker: u32, round: u32) -> u32 {
    let elsewhere = |spi: &u32| worker_of_spi(*spi, WORKERS) != worker;
    let first = 0x4000 * (u32::from(n) + 1) + 0x100 * worker + 0x1000 * round;
    (first..).find(elsewhere).unwrap()
}

struct Pair {
    gateways: [Gateway; 2],
    cache: portcullis_datapath::pool::FrameCache,
    tunnel: Tunnel,
}

impl Pair {
    fn new(tunnel: Tunnel) -> Pair {
        let tunnel = Tunnel { workers: WORKERS, ..tunnel };
        let pool = memory(4096);
        let gateways = [1, 2].map(|n| Gateway::new(tunnel, n, &pool));
        Pair { gateways, cache: pool.cache(), tunnel }
    }

    /// A worker of gateway 1 has an SA of its own from now on. Returns its slot.
    fn own(&mut self, worker: u32, round: u32) -> SlotIndex {
        let tunnel = self.tunnel;
        let publish = |gateway: &mut Gateway, me: u8| {
            let sa = sa(&tunnel, me, 1, 2);
            let key: Vec<u8> = sa.key.bytes().iter().map(|b| b ^ (16 + 4 * worker + round) as u8).collect();
            let (spi, own) = (Spi(own_spi(2, worker, round)), (me == 1).then_some(worker as u8));
            gateway.sadb.publish(&Sa { spi, worker: own, key: Key::new(&key).unwrap(), ..sa }).unwrap()
        };
        publish(&mut self.gateways[1], 2);
        let outbound = publish(&mut self.gateways[0], 1);
        for index in self.outbound() {
            self.gateways[0].sadb.set_worker_sa(index, worker as u8, Some(outbound)).unwrap();
        }
        outbound
    }

    fn outbound(&self) -> Vec<PolicyIndex> {
        let policies = self.gateways[0].sadb.policies();
        policies.filter(|(_, p)| p.direction == Direction::Outbound).map(|(index, _)| index).collect()
    }

    /// What gateway 1 makes of packets that a worker receives at the LAN: each once, by its SPI.
    fn seal(&mut self, worker: u32, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.pass(0, (worker, LAN), packets)
    }

    /// What comes out at the LAN of gateway 2.
    fn open(&mut self, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.pass(1, (0, WAN), packets)
    }

    fn pass(&mut self, gateway: usize, (worker, from): (u32, usize), packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let gateway = &mut self.gateways[gateway];
        for bytes in packets {
            gateway.ends[worker as usize][from].send(frame(&mut self.cache, bytes)).unwrap();
        }
        gateway.turn();
        let mut out = vec![];
        for (_, frame) in gateway.collect() {
            let mut bytes = vec![0; frame.total_len()];
            frame.gather(&mut bytes);
            out.push(bytes);
            self.cache.give(frame);
        }
        out
    }

    /// The SPI by which a worker's packets leave, and whether it was handed on.
    fn leaves_by(&mut self, worker: u32) -> (u32, bool) {
        let before = self.handed();
        let sealed = self.seal(worker, &[packet(worker, 0)]);
        assert_eq!(sealed.len(), 1, "{:?}", self.gateways[0].drops());
        let spi = wire::be32(&sealed[0], 14 + 20);
        let opened = self.open(&sealed);
        assert_eq!(opened.len(), 1, "{:?}", self.gateways[1].drops());
        (spi, self.handed() != before)
    }

    fn handed(&self) -> u64 {
        let runtime = self.gateways[0].sadb.runtime();
        (0..WORKERS as usize).map(|w| runtime.worker(w).unwrap().traffic.handed).sum()
    }
}

fn packet(flow: u32, n: u32) -> Vec<u8> {
    let mut packet = udp(inside(1, true), inside(2, true), 40, 64);
    packet[14 + 20..14 + 22].copy_from_slice(&(5000 + flow as u16).to_be_bytes());
    let end = packet.len();
    packet[end - 8..end - 4].copy_from_slice(&flow.to_be_bytes());
    packet[end - 4..].copy_from_slice(&n.to_be_bytes());
    packet
}

fn flow_and_number(packet: &[u8]) -> (u32, u32) {
    (wire::be32(packet, packet.len() - 8), wire::be32(packet, packet.len() - 4))
}

/// One that goes the plain way, and one that goes the general way.
fn algorithms() -> [Algorithm; 2] {
    [Algorithm::AES_GCM_128, Algorithm::by_name(Protocol::Esp, "chacha20-poly1305").expect("in the table")]
}

#[test]
fn each_worker_seals_what_it_receives_and_hands_nothing_on() {
    for algorithm in algorithms() {
        let mut pair = Pair::new(Tunnel { algorithm, ..Tunnel::default() });
        // All share one before: who does not own it hands its packets on.
        let owner = worker_of_spi(spi(2), WORKERS);
        for worker in 0..WORKERS {
            assert_eq!(pair.leaves_by(worker), (spi(2), worker != owner));
        }
        (0..WORKERS).for_each(|worker| _ = pair.own(worker, 0));
        let handed = pair.handed();
        let mut arrived = vec![];
        for n in 0..200 {
            let mut sealed = vec![];
            for worker in 0..WORKERS {
                let own = pair.seal(worker, &[packet(worker, 2 * n), packet(worker, 2 * n + 1)]);
                assert!(own.iter().all(|p| wire::be32(p, 14 + 20) == own_spi(2, worker, 0)), "RFC 9611 §3");
                sealed.extend(own);
            }
            arrived.extend(pair.open(&sealed).iter().map(|packet| flow_and_number(packet)));
        }
        assert_eq!(pair.handed(), handed);
        for worker in 0..WORKERS {
            let of_flow: Vec<_> =
                arrived.iter().filter(|(flow, _)| *flow == worker).map(|(_, n)| *n).collect();
            assert_eq!(of_flow, (0..400).collect::<Vec<_>>(), "in order, and each once");
        }
    }
}

#[test]
fn a_worker_is_rekeyed_by_itself_and_without_its_own_uses_the_one_for_all() {
    for algorithm in algorithms() {
        let mut pair = Pair::new(Tunnel { algorithm, ..Tunnel::default() });
        let owner = worker_of_spi(spi(2), WORKERS);
        let other = (owner + 1) % WORKERS;
        let [first, _] = [other, owner].map(|worker| pair.own(worker, 0));
        let version = pair.gateways[0].reader.spd_version();
        let by = |pair: &mut Pair| [0, 1, 2].map(|step| pair.leaves_by((owner + step) % WORKERS));
        let own = |worker, round| (own_spi(2, worker, round), false);
        let last = (owner + 2) % WORKERS;
        // Who has none hands on to the owner of the one for all, and that has one of its own.
        assert_eq!(by(&mut pair), [own(owner, 0), own(other, 0), (own_spi(2, owner, 0), true)]);
        // RFC 7296 §2.8: the one is replaced.
        let second = pair.own(other, 1);
        pair.gateways[0].sadb.retire(first).unwrap();
        assert_eq!(by(&mut pair), [own(owner, 0), own(other, 1), (own_spi(2, owner, 0), true)]);
        // RFC 9611 §3: it goes, and its worker is not without one.
        pair.gateways[0].sadb.retire(second).unwrap();
        assert_eq!(pair.leaves_by(other), (own_spi(2, owner, 0), true));
        for index in pair.outbound() {
            pair.gateways[0].sadb.set_worker_sa(index, owner as u8, None).unwrap();
        }
        for worker in [owner, other, last] {
            assert_eq!(pair.leaves_by(worker), (spi(2), worker != owner));
        }
        assert_eq!(pair.gateways[0].reader.spd_version(), version, "what workers have decided stays");
        // Without any, it does not leave.
        let slot = pair.gateways[0].outbound;
        pair.gateways[0].sadb.retire(slot).unwrap();
        let before = pair.gateways[0].drops();
        assert_eq!(pair.seal(other, &[packet(other, 0)]), Vec::<Vec<u8>>::new());
        assert_eq!(pair.gateways[0].dropped_since(&before), Some(DropReason::NoSa));
    }
}

/// Whatever else waits, each port has its turn.
#[test]
fn neither_what_others_hand_on_nor_a_busy_port_starves_a_port() {
    for port in [LAN, WAN] {
        let mut pair = Pair::new(Tunnel { lends: false, ..Tunnel::default() });
        let owner = worker_of_spi(spi(2), WORKERS) as usize;
        let [one, _] = &mut pair.gateways;
        let mut send = |gateway: &mut Gateway, worker: usize, port: usize, frames: usize, len: usize| {
            let bytes = udp(inside(1, true), inside(2, true), len, 64);
            for _ in 0..frames {
                gateway.ends[worker][port].send(frame(&mut pair.cache, &bytes)).unwrap();
            }
        };
        let other = (owner + 1) % WORKERS as usize;
        send(one, other, LAN, 256, 40);
        while one.workers[other].turn(0) {}
        send(one, owner, LAN + WAN - port, 256, 40);
        send(one, owner, port, 1, 400);
        for _ in 0..2 {
            one.workers[owner].turn(0);
        }
        assert!(one.collect().iter().any(|(_, frame)| frame.total_len() > 400), "port {port}");
    }
}
