//! The general path, through whole gateways in memory: every mode, protocol and algorithm, there and back.

mod testbed;

use portcullis_datapath::wire;
use portcullis_sadb::*;
use testbed::*;

/// A tunnel of two gateways, and packets between the hosts behind them.
struct Pair {
    gateways: [Gateway; 2],
    cache: portcullis_datapath::pool::FrameCache,
}

impl Pair {
    fn new(tunnel: Tunnel) -> Pair {
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
