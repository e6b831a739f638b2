//! What selectors are made of, and what they look at in a packet.

use crate::{
    ABOUT, SadbError,
    sa::{address, address_words},
};
use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

/// An address prefix, without bits behind its length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    pub(crate) addr: IpAddr,
    pub(crate) len: u8,
}

impl Prefix {
    /// The prefix of that length, or `None` if the length is too large; bits behind it are cleared.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        if len > bits {
            return None;
        }
        Some(Prefix { addr: address(addr.is_ipv4(), &masked(address_words(addr), len)), len })
    }

    /// Its address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Its length in bits.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether an address is in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4()
            && Prefix::new(addr, self.len).is_some_and(|p| p.addr == self.addr)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = SadbError;
    /// `address/length`, or an address alone.
    fn from_str(s: &str) -> Result<Prefix, SadbError> {
        let bad = || SadbError::BadPrefix(s.to_owned());
        let (addr, len) = s.split_once('/').map_or((s, None), |(a, l)| (a, Some(l)));
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let len = match len {
            Some(l) => l.parse().map_err(|_| bad())?,
            None if addr.is_ipv4() => 32,
            None => 128,
        };
        Prefix::new(addr, len).ok_or_else(bad)
    }
}

/// Which packets a policy is about (RFC 4301 §4.4.1.1).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Selector {
    /// Source.
    pub src: Prefix,
    /// Destination, of the same family.
    pub dst: Prefix,
    /// Upper protocol; `None` is any.
    pub protocol: Option<u8>,
    /// Source ports, or what stands in their place in [`Flow::ports`]: [`ANY_PORT`], [`OPAQUE_PORT`] or some.
    pub src_ports: RangeInclusive<u16>,
    /// Destination ports, likewise.
    pub dst_ports: RangeInclusive<u16>,
}

/// Any port, also where none can be seen.
pub const ANY_PORT: RangeInclusive<u16> = 0..=u16::MAX;

/// Only where no port can be seen, as in a later fragment (RFC 4301 §4.4.1.1): an empty range, as in IKEv2's traffic
/// selectors (RFC 7296 §3.13.1).
pub const OPAQUE_PORT: RangeInclusive<u16> = RangeInclusive::new(u16::MAX, 0);

/// Whether what a packet shows of its ports is in two ranges.
pub(crate) fn ports_match(
    src: &RangeInclusive<u16>,
    dst: &RangeInclusive<u16>,
    ports: Option<(u16, u16)>,
) -> bool {
    let unseen = |range: &RangeInclusive<u16>| *range == ANY_PORT || *range == OPAQUE_PORT;
    match ports {
        Some((s, d)) => src.contains(&s) && dst.contains(&d),
        None => unseen(src) && unseen(dst),
    }
}

impl Selector {
    /// All traffic between two prefixes.
    pub fn between(src: Prefix, dst: Prefix) -> Selector {
        Selector { src, dst, protocol: None, src_ports: ANY_PORT, dst_ports: ANY_PORT }
    }

    /// Whether it matches a flow. A flow without ports matches only selectors that do not ask for any.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.src.contains(flow.src)
            && self.dst.contains(flow.dst)
            && self.protocol.is_none_or(|p| p == flow.protocol)
            && ports_match(&self.src_ports, &self.dst_ports, flow.ports)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.src, self.dst)?;
        if let Some(p) = self.protocol {
            write!(f, ", protocol {p}")?;
        }
        for (name, ports) in [("source", &self.src_ports), ("destination", &self.dst_ports)] {
            match (ports.start(), ports.end()) {
                _ if *ports == ANY_PORT => {}
                _ if *ports == OPAQUE_PORT => write!(f, ", {name} port opaque")?,
                (first, last) if first == last => write!(f, ", {name} port {first}")?,
                (first, last) => write!(f, ", {name} port {first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The fields of a packet that selectors look at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Upper protocol.
    pub protocol: u8,
    /// Source and destination port, where the protocol has them and the packet shows them. Of ICMP both are the type,
    /// in the upper octet, and the code; of Mobility Headers the type alone, in the upper octet (RFC 4301 §4.4.1.1).
    pub ports: Option<(u16, u16)>,
}

/// In the last of a flow's words: protocol in the lowest octet, then this, ports in the upper half.
pub(crate) const HAS_PORTS: u64 = 1 << 9;

impl Flow {
    /// In five words, for an [`Event`](crate::Event): source, destination, and the rest.
    pub fn words(&self) -> [u64; ABOUT] {
        let ([a, b], [c, d]) = (address_words(self.src), address_words(self.dst));
        let (source, destination) = self.ports.unwrap_or_default();
        let rest = self.protocol as u64
            | (self.src.is_ipv4() as u64) << 8
            | if self.ports.is_some() { HAS_PORTS } else { 0 }
            | (source as u64) << 48
            | (destination as u64) << 32;
        [a, b, c, d, rest]
    }

    /// What [`Flow::words`] wrote; of any other words, some flow.
    pub fn from_words(words: &[u64; ABOUT]) -> Flow {
        let [a, b, c, d, rest] = *words;
        let v4 = rest >> 8 & 1 == 1;
        Flow {
            src: address(v4, &[a, b]),
            dst: address(v4, &[c, d]),
            protocol: rest as u8,
            ports: (rest & HAS_PORTS != 0).then_some(((rest >> 48) as u16, (rest >> 32) as u16)),
        }
    }
}

/// The first `len` bits of an address; IPv4 lengths count from the top as well.
pub(crate) fn masked(words: [u64; 2], len: u8) -> [u64; 2] {
    let mask = |n: u8| if n == 0 { 0 } else { u64::MAX << (64 - n.min(64)) };
    [words[0] & mask(len), words[1] & mask(len.saturating_sub(64))]
}
