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
/// Octets of a frame besides its IP packet.
const ETHERNET_AND_FCS: u16 = wire::ETHERNET as u16 + 4;
/// Packets of a pattern, at most.
pub const MAX_PATTERN: usize = 10_000;
/// The smallest packet: IPv4 and UDP headers.
const SMALLEST: u16 = 28;
/// The largest: it fits a port of [`MTU`](crate::gateway::MTU) once encapsulated.
const LARGEST: u16 = 9000;

impl Size {
    /// Lengths to be repeated, in an order that is the same each time.
    pub fn pattern(self) -> Vec<u16> {
        Mix::from(self).pattern(1)
    }

    /// Octets of a packet, on average.
    pub fn mean(self) -> f64 {
        Mix::from(self).mean()
    }
}

/// Lengths of packets, and how many there are of each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mix(Vec<(usize, u16)>);

impl From<Size> for Mix {
    fn from(size: Size) -> Mix {
        match size {
            Size::Octets(n) => Mix(vec![(1, n)]),
            Size::Imix => Mix(IMIX.to_vec()),
        }
    }
}

impl Mix {
    /// So many packets of each length. `None` if there are none, or more than [`MAX_PATTERN`].
    pub fn new(parts: Vec<(usize, u16)>) -> Option<Mix> {
        let packets = parts.iter().try_fold(0usize, |sum, (n, _)| sum.checked_add(*n))?;
        (1..=MAX_PATTERN).contains(&packets).then_some(Mix(parts))
    }

    /// Lengths to be repeated, in an order that a seed makes.
    pub fn pattern(&self, seed: u64) -> Vec<u16> {
        let mut lengths: Vec<u16> = self.0.iter().flat_map(|&(n, len)| vec![len; n]).collect();
        Random::new(seed).shuffle(&mut lengths);
        lengths
    }

    /// The same mix of IP packets, where lengths are those of frames with their FCS.
    #[must_use]
    pub fn of_frames(&self) -> Mix {
        Mix(self.0.iter().map(|(n, len)| (*n, len.saturating_sub(ETHERNET_AND_FCS))).collect())
    }

    /// Octets of the longest packet.
    pub fn longest(&self) -> u16 {
        self.0.iter().map(|(_, len)| *len).max().unwrap_or(0)
    }

    /// Octets of a packet, on average.
    pub fn mean(&self) -> f64 {
        self.mean_of(f64::from)
    }

    /// What follows from the octets of a packet, on average.
    pub fn mean_of(&self, of: impl Fn(u16) -> f64) -> f64 {
        let packets: usize = self.0.iter().map(|(n, _)| n).sum();
        self.0.iter().map(|&(n, len)| n as f64 * of(len)).sum::<f64>() / packets as f64
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [(_, octets)] => write!(f, "{octets}"),
            parts if parts == IMIX => f.write_str("IMIX"),
            parts => {
                let parts: Vec<String> = parts.iter().map(|(n, len)| format!("{len}:{n}")).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

impl FromStr for Mix {
    type Err = String;

    /// A [`Size`], or lengths with their weights: `64:28,570:16,1518:4`.
    fn from_str(s: &str) -> Result<Mix, String> {
        if !s.contains([':', ',']) {
            return Ok(s.parse::<Size>()?.into());
        }
        let part = |part: &str| {
            let (octets, weight) = part.split_once(':').unwrap_or((part, "1"));
            let octets = octets.parse().ok().filter(|n| (SMALLEST..=LARGEST).contains(n));
            Some((weight.parse().ok()?, octets?))
        };
        s.split(',').map(part).collect::<Option<_>>().and_then(Mix::new).ok_or_else(|| {
            format!("'{s}' is no mix such as 64:28,570:16: octets from {SMALLEST} to {LARGEST}, and weights of at most {MAX_PATTERN} in all")
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_each_length_as_often_as_its_weight_says() {
        for (mix, parts) in [
            ("64", &[(64u16, 1usize)][..]),
            ("imix", &[(64, 28), (570, 16), (1518, 4)]),
            ("100:3,9000:2,28", &[(100, 3), (9000, 2), (28, 1)]),
        ] {
            let mix: Mix = mix.parse().unwrap();
            let pattern = mix.pattern(7);
            for (len, weight) in parts {
                assert_eq!(pattern.iter().filter(|n| *n == len).count(), *weight, "{len}");
            }
            assert_eq!(mix.longest(), parts.iter().map(|part| part.0).max().unwrap());
            let mean = pattern.iter().map(|n| *n as f64).sum::<f64>() / pattern.len() as f64;
            assert_eq!((pattern.len(), mix.mean()), (parts.iter().map(|p| p.1).sum(), mean));
            assert_eq!(pattern, mix.pattern(7));
            assert_eq!(mix.to_string().parse(), Ok(mix));
        }
        let imix = Mix::from(Size::Imix);
        assert_ne!(imix.pattern(1), imix.pattern(2));
        assert_eq!(Size::Imix.pattern(), imix.pattern(1));
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for bad in [
            "",
            "27",
            "64:",
            "64:0",
            ":3",
            "64:1,9001:1",
            "64:1,,",
            "64:10001",
            "64:99999999999999999999",
            "a:1",
        ] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
