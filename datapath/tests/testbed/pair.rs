//! Two gateways, and packets from one to the other.

use super::*;
use portcullis_datapath::wire;

/// A tunnel of two gateways, and packets between the hosts behind them.
pub struct Pair {
    pub gateways: [Gateway; 2],
    pub cache: FrameCache,
}

impl Pair {
    pub fn new(tunnel: Tunnel) -> Pair {
        let tunnel = Tunnel { tells: true, ..tunnel };
        let pool = memory(2048);
        let gateways = [1, 2].map(|n| Gateway::new(tunnel, n, &pool));
        Pair { gateways, cache: pool.cache() }
    }

    /// What comes of a frame that goes in at the LAN of gateway `from`: at its WAN, and at the other's LAN.
    pub fn pass(&mut self, from: u8, bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
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

pub fn octets(frame: &Frame) -> Vec<u8> {
    let mut bytes = vec![0; frame.total_len()];
    frame.gather(&mut bytes);
    bytes
}

/// A packet as it is when two gateways have forwarded it.
pub fn forwarded(mut ip: Vec<u8>) -> Vec<u8> {
    wire::decrement_ttl(&mut ip).unwrap();
    wire::decrement_ttl(&mut ip).unwrap();
    ip
}

pub fn udp_between(from: u8, v4: bool, payload: usize) -> Vec<u8> {
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
pub fn algorithms() -> [Algorithm; 2] {
    let name = "chacha20-poly1305";
    [Algorithm::AES_GCM_128, Algorithm::by_name(Protocol::Esp, name).expect("in the table")]
}

/// A packet that must not be cut.
pub fn with_df(mut packet: Vec<u8>) -> Vec<u8> {
    packet[20] |= 0x40;
    packet[24..26].fill(0);
    let checksum = !wire::fold(wire::sum(&packet[14..34]));
    packet[24..26].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// What came out of gateway 1 at a port, if there is anything; the frames go back.
pub fn out_of(pair: &mut Pair, port: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let passed = pair.gateways[0].pass(port, frame(&mut pair.cache, bytes));
    let out = passed.iter().map(|(port, frame)| (*port, octets(frame)[14..].to_vec())).collect();
    passed.into_iter().for_each(|(_, frame)| pair.cache.give(frame));
    out
}
