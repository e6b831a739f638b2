//! Frames by chance. The same seed gives the same frames.

use super::tables::{ALL4, ALL6, BYPASS4, BYPASS6, HERE4, HERE6, OWN4, OWN6, PEER4, PEER6, THERE4, THERE6};
use super::{
    AH, ARP, DESTINATION_OPTIONS, ESP, FRAGMENT, HOP_BY_HOP, ICMP, ICMP6, IPV4, IPV6, NO_NEXT, Piece,
    ROUTING, SERVICE_VLAN, TCP, UDP, VLAN, ah, esp, ethernet, fragment, ipv4_with, ipv6, options, routing,
    too_big, udp,
};

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// A frame as it might come in, whole.
pub fn frame(rng: &mut Rng) -> Vec<u8> {
    let tags: &[u16] = match rng.below(8) {
        0 => &[VLAN],
        1 => &[SERVICE_VLAN, VLAN],
        2 => &[VLAN, VLAN],
        3 if rng.one_in(3) => &[SERVICE_VLAN, VLAN, VLAN],
        _ => &[],
    };
    let (ether_type, packet) = match rng.below(16) {
        0 => {
            let len = rng.below(60);
            (rng.pick(&[ARP, 0x88cc, 0x05dc, 0x8847]), rng.bytes(len))
        }
        1..9 => (IPV4, datagram_v4(rng)),
        _ => (IPV6, datagram_v6(rng)),
    };
    let mut frame = ethernet(tags, ether_type, &packet);
    // IEEE 802.3: the least length of a frame.
    if rng.one_in(2) && frame.len() < 60 {
        frame.resize(60, 0);
    }
    frame
}

/// A frame with a few bytes or its length wrong.
pub fn mutated(rng: &mut Rng) -> Vec<u8> {
    let mut frame = frame(rng);
    for _ in 0..=rng.below(4) {
        // Most headers are in the first bytes.
        let at = if rng.one_in(4) { rng.below(frame.len()) } else { rng.below(frame.len().min(96)) };
        match rng.below(5) {
            0 => frame[at] ^= 1 << rng.below(8),
            1 => frame[at] = rng.pick(&[0, 1, 4, 17, 43, 44, 50, 51, 60, 0x45, 0x60, 0x7f, 0xfe, 0xff]),
            2 => frame[at] = rng.next() as u8,
            3 => frame.truncate(at.max(14)),
            _ => {
                let len = rng.below(24);
                frame.extend(rng.bytes(len));
            }
        }
    }
    frame
}

fn piece(rng: &mut Rng) -> Piece {
    let offset = if rng.one_in(2) { 0 } else { 1 + rng.below(200) as u16 };
    (rng.below(12) as u32, offset, offset == 0 || rng.one_in(2))
}

fn datagram_v4(rng: &mut Rng) -> Vec<u8> {
    let near = [OWN4, PEER4, HERE4, THERE4, ALL4, BYPASS4];
    let src = rng.pick(&near);
    let dst = match rng.below(12) {
        0 => rng.pick(&[[224, 0, 0, 5], [239, 255, 1, 1], [255; 4], [0; 4], [8, 8, 8, 8]]),
        _ => rng.pick(&near),
    };
    let piece = rng.one_in(4).then(|| piece(rng));
    let (protocol, payload) = upper(rng, ICMP);
    let options = if rng.one_in(4) { 1 + rng.below(10) as u8 } else { 0 };
    ipv4_with(src, dst, protocol, options, piece, &payload)
}

fn datagram_v6(rng: &mut Rng) -> Vec<u8> {
    const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const GROUP: [u8; 16] = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let near = [OWN6, PEER6, HERE6, THERE6, ALL6, BYPASS6];
    let src = if rng.one_in(12) { LINK_LOCAL } else { rng.pick(&near) };
    let dst = if rng.one_in(12) { rng.pick(&[LINK_LOCAL, GROUP]) } else { rng.pick(&near) };
    let (mut next, mut payload) = upper(rng, ICMP6);
    let extensions = if rng.one_in(2) { rng.below(11) } else { 0 };
    for _ in 0..extensions {
        let more = if rng.one_in(8) { rng.below(24) as u8 } else { rng.below(2) as u8 };
        let before = rng.pick(&[HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, FRAGMENT]);
        payload = match before {
            ROUTING => routing(next, rng.below(2) as u8, &payload),
            // Atomic, now and then (RFC 6946 §2.1).
            FRAGMENT if rng.one_in(3) => fragment(next, (rng.below(12) as u32, 0, false), &payload),
            FRAGMENT => fragment(next, piece(rng), &payload),
            _ => options(next, more, &payload),
        };
        next = before;
    }
    ipv6(src, dst, next, &payload)
}

fn upper(rng: &mut Rng, icmp: u8) -> (u8, Vec<u8>) {
    let spi = if rng.one_in(3) { rng.next() as u32 } else { 0x1000 + rng.below(8) as u32 };
    let len = rng.below(64);
    match rng.below(12) {
        0 | 1 => (ESP, esp(spi, len)),
        2 => (AH, ah(ESP, spi, &esp(spi ^ 1, len))),
        3 | 4 => {
            let inner = match rng.below(6) {
                0 => [vec![0; 4], rng.bytes(28)].concat(),
                1 => vec![0xff],
                2 => vec![0xff; len],
                3 => rng.bytes(len),
                _ => esp(spi, len),
            };
            (UDP, udp(rng.pick(&[4500, 40_000]), rng.pick(&[4500, 4510]), &inner))
        }
        5 => (UDP, udp(500, 500, &rng.bytes(len))),
        6 => (UDP, udp(4500, rng.pick(&[53, 501, 4501]), &rng.bytes(len))),
        7 => (TCP, rng.bytes(20 + len)),
        8 => (icmp, rng.bytes(8 + len)),
        9 | 10 => {
            let mut message = too_big(icmp, rng.pick(&[0, 1000, 1400]), &shown(rng, icmp));
            if rng.one_in(8) {
                let at = rng.below(2);
                message[at] = rng.below(6) as u8;
            }
            (icmp, message)
        }
        _ => (rng.pick(&[NO_NEXT, 135, 47, 4, 41, 255]), rng.bytes(len)),
    }
}

/// What a router shows of a packet that it is about: as a rule one of ours.
fn shown(rng: &mut Rng, icmp: u8) -> Vec<u8> {
    let spi = 0x1000 + rng.below(8) as u32;
    let len = rng.below(24);
    let (mut protocol, mut payload) = match rng.below(6) {
        0 | 1 => (ESP, esp(spi, len)),
        2 => (AH, ah(ESP, spi, &esp(spi ^ 1, len))),
        3 => {
            let spi = if rng.one_in(4) { 0 } else { spi };
            let ports = rng.pick(&[(4500, 4500), (4510, 40_000), (40_000, 4500), (40_000, 53)]);
            (UDP, udp(ports.0, ports.1, &esp(spi, len)))
        }
        4 => (UDP, udp(500, 500, &rng.bytes(len))),
        _ => (TCP, rng.bytes(len)),
    };
    let piece = rng.one_in(4).then(|| piece(rng));
    let mut packet = if icmp == ICMP {
        let options = if rng.one_in(4) { 1 + rng.below(10) as u8 } else { 0 };
        ipv4_with(OWN4, PEER4, protocol, options, piece, &payload)
    } else {
        if let Some(piece) = piece {
            (protocol, payload) = (FRAGMENT, fragment(protocol, piece, &payload));
        }
        let extensions = if rng.one_in(4) { 1 + rng.below(9) } else { 0 };
        for _ in 0..extensions {
            (protocol, payload) = (DESTINATION_OPTIONS, options(protocol, 0, &payload));
        }
        ipv6(OWN6, PEER6, protocol, &payload)
    };
    if rng.one_in(4) {
        packet.truncate(rng.below(packet.len()));
    }
    packet
}
