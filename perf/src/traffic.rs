//! Clear packets: how long they are, and how their frames are made.

use portcullis_datapath::{frame::Frame, pool::FrameCache, wire};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// Length of the clear IP packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// All the same.
    Octets(u16),
    /// 28 of 64, 16 of 570 and 4 of 1518 octets, mixed.
    Imix,
}

/// What the issue asks for.
pub const SIZES: [Size; 8] = [
    Size::Octets(64),
    Size::Octets(128),
    Size::Octets(256),
    Size::Octets(576),
    Size::Octets(1024),
    Size::Octets(1400),
    Size::Octets(9000),
    Size::Imix,
];

const IMIX: [(usize, u16); 3] = [(28, 64), (16, 570), (4, 1518)];
/// The smallest packet: IPv4 and UDP headers.
const SMALLEST: u16 = 28;
/// The largest: it fits a port of [`MTU`](crate::gateway::MTU) once encapsulated.
const LARGEST: u16 = 9000;

impl Size {
    /// Lengths to be repeated, in an order that is the same each time.
    pub fn pattern(self) -> Vec<u16> {
        match self {
            Size::Octets(n) => vec![n],
            Size::Imix => {
                let mut lengths: Vec<u16> = IMIX.iter().flat_map(|&(n, len)| vec![len; n]).collect();
                Random::new(1).shuffle(&mut lengths);
                lengths
            }
        }
    }

    /// Octets of a packet, on average.
    pub fn mean(self) -> f64 {
        let pattern = self.pattern();
        pattern.iter().map(|n| *n as f64).sum::<f64>() / pattern.len() as f64
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Octets(n) => write!(f, "{n}"),
            Size::Imix => f.write_str("IMIX"),
        }
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(s: &str) -> Result<Size, String> {
        match s.parse() {
            Ok(n) if (SMALLEST..=LARGEST).contains(&n) => Ok(Size::Octets(n)),
            _ if s.eq_ignore_ascii_case("imix") => Ok(Size::Imix),
            _ => Err(format!("a size is from {SMALLEST} to {LARGEST}, or imix")),
        }
    }
}

/// Makes frames of UDP packets, copying them from a template.
pub struct Template {
    bytes: Vec<u8>,
}

impl Template {
    /// Packets from one source; the destination comes later.
    pub fn new(src: Ipv4Addr) -> Template {
        let mut bytes = vec![2; wire::ETHERNET - 2];
        bytes.extend([8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, wire::protocol::UDP, 0, 0]);
        bytes.extend(src.octets());
        bytes.extend([0; 4]);
        bytes.extend([0x12, 0x34, 0, 53, 0, 0, 0, 0]);
        bytes.extend((0..LARGEST - SMALLEST).map(|i| i as u8));
        Template { bytes }
    }

    /// Makes `frame` a packet of `len` octets to `dst`. False if `cache` has too few chunks.
    #[must_use]
    pub fn fill(&mut self, frame: &mut Frame, len: u16, dst: Ipv4Addr, cache: &mut FrameCache) -> bool {
        let ip = &mut self.bytes[wire::ETHERNET..];
        ip[2..4].copy_from_slice(&len.to_be_bytes());
        ip[10..12].fill(0);
        ip[16..20].copy_from_slice(&dst.octets());
        let checksum = !wire::fold(wire::sum(&ip[..wire::IPV4]));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip[24..26].copy_from_slice(&(len - wire::IPV4 as u16).to_be_bytes());
        frame.scatter(&self.bytes[..wire::ETHERNET + len as usize], cache)
    }
}

/// A deterministic stream of numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * n as u64) >> 32) as u32
    }
    /// Puts the items in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}
