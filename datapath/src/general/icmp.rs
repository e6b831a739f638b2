//! ICMP errors: those that the gateway sends, and those about its own packets (RFC 792, RFC 4443).
//!
//! What we send is never an answer to an error, to what is not the first fragment, or to many at once; and the caller
//! asks a [`RateLimit`] before. What we read is from anybody (RFC 4301 §8.2.1): it names an SA, and only a
//! [`Pmtu`](super::pmtu::Pmtu) with a floor should believe it.

use super::headers::Headers;
use crate::{
    general::fragment::{OFFSET, write_checksum},
    wire::{Addr, IPV4, IPV6, Ip, Place, UDP, UdpPorts, be16, be32, fold, protocol, sum},
};

/// Octets of an ICMP error before what it is about.
const HEADER: usize = 8;

/// Octets of the longest IPv4 error (RFC 1812 §4.3.2.3).
pub const MOST_V4: usize = 576;

/// Octets of the longest IPv6 error (RFC 4443 §2.4).
pub const MOST_V6: usize = 1280;

/// TTL or hop limit of what we send.
const TTL: u8 = 64;

/// What is wrong with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// It is over the MTU of its next hop, and may not be cut (RFC 1191 §4, RFC 4443 §3.2).
    TooBig {
        /// Octets of a packet that would get through. At least 68 and 1280 are told.
        mtu: u16,
    },
    /// Its TTL or hop limit is used up (RFC 792, RFC 4443 §3.3).
    HopLimit,
    /// The rest of its datagram did not come in time.
    ReassemblyTime,
    /// A policy forbids it (RFC 4301 §5.1.1, RFC 1812 §5.2.7.1, RFC 4443 §3.1).
    Prohibited,
    /// There is no SA for it, as the peer cannot be reached (RFC 4301 §5.1.1, RFC 792, RFC 4443 §3.1).
    Unreachable,
}

impl Problem {
    /// Type, code, and what stands in the second word.
    fn message(self, is_v4: bool) -> (u8, u8, u32) {
        match (self, is_v4) {
            (Problem::TooBig { mtu }, true) => (3, 4, mtu.max(68) as u32),
            // RFC 8200 §5: no link has less, and nobody believes it (RFC 8201 §4).
            (Problem::TooBig { mtu }, false) => (2, 0, mtu.max(1280) as u32),
            (Problem::HopLimit, true) => (11, 0, 0),
            (Problem::HopLimit, false) => (3, 0, 0),
            (Problem::ReassemblyTime, true) => (11, 1, 0),
            (Problem::ReassemblyTime, false) => (3, 1, 0),
            (Problem::Prohibited, true) => (3, 13, 0),
            (Problem::Prohibited, false) => (1, 1, 0),
            (Problem::Unreachable, true) => (3, 1, 0),
            (Problem::Unreachable, false) => (1, 3, 0),
        }
    }
}

/// Writes the error about `packet`, to its source and from `from`, an address of ours of the same version. Returns
/// its length, or none if no error may be sent about this packet. `out` has room for [`MOST_V4`] or [`MOST_V6`] octets.
pub fn emit(problem: Problem, from: Addr, packet: &[u8], out: &mut [u8]) -> Option<usize> {
    let ip = Ip::parse(packet).ok()?;
    let packet = &packet[..ip.len()];
    if from.v4 != ip.is_v4() || !may_answer(problem, &ip, packet) {
        return None;
    }
    let (head, most) = if from.v4 { (IPV4, MOST_V4) } else { (IPV6, MOST_V6) };
    let about = &packet[..packet.len().min(most - head - HEADER)];
    let len = head + HEADER + about.len();
    let out = out.get_mut(..len)?;
    let (kind, code, word) = problem.message(from.v4);
    let (ip_header, message) = out.split_at_mut(head);
    message[..4].copy_from_slice(&[kind, code, 0, 0]);
    message[4..8].copy_from_slice(&word.to_be_bytes());
    message[8..].copy_from_slice(about);
    ip_header.fill(0);
    if from.v4 {
        // RFC 1812 §4.3.2.5: of the precedence of routing. RFC 6864 §4.1: with DF, so that it needs no identification.
        (ip_header[0], ip_header[1], ip_header[6]) = (0x45, 0xc0, 0x40);
        ip_header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        (ip_header[8], ip_header[9]) = (TTL, protocol::ICMP);
        ip_header[12..16].copy_from_slice(&(from.bits as u32).to_be_bytes());
        ip_header[16..20].copy_from_slice(&packet[12..16]);
        write_checksum(ip_header);
    } else {
        ip_header[0] = 0x60;
        ip_header[4..6].copy_from_slice(&((len - IPV6) as u16).to_be_bytes());
        (ip_header[6], ip_header[7]) = (protocol::ICMPV6, TTL);
        ip_header[8..24].copy_from_slice(&from.bits.to_be_bytes());
        ip_header[24..40].copy_from_slice(&packet[8..24]);
    }
    let checksum = !total(ip_header, message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(len)
}

/// The sum that makes a message's checksum: of IPv6 with the pseudo-header (RFC 4443 §2.3).
fn total(ip_header: &[u8], message: &[u8]) -> u16 {
    let pseudo = match ip_header[0] >> 4 {
        4 => 0,
        _ => sum(&ip_header[8..40]) + message.len() as u32 + protocol::ICMPV6 as u32,
    };
    fold(pseudo + sum(message))
}

/// RFC 1122 §3.2.2, RFC 4443 §2.4(e): no error about an error, about later fragments, or to or from many.
fn may_answer(problem: Problem, ip: &Ip, packet: &[u8]) -> bool {
    let kind = packet.get(ip.payload()).copied();
    let is_error = match ip.protocol() {
        protocol::ICMP if ip.is_v4() => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        protocol::ICMPV6 if !ip.is_v4() => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    };
    // RFC 4443 §2.4(e.3): the path MTU may be that of a group.
    let to_many = is_group(ip.dst()) && (ip.is_v4() || !matches!(problem, Problem::TooBig { .. }));
    ip.place != Place::Later && !is_error && !to_many && is_host(ip.src())
}

/// Whether an address is of a group, or of all.
fn is_group(addr: Addr) -> bool {
    match addr.v4 {
        true => addr.bits >> 28 == 0xe || addr.bits == u32::MAX as u128,
        false => addr.bits >> 120 == 0xff,
    }
}

/// Whether an address is that of one host that can be reached (RFC 1812 §4.2.2.11).
fn is_host(addr: Addr) -> bool {
    match addr.v4 {
        true => !matches!(addr.bits >> 24, 0 | 127 | 224..),
        false => addr.bits > 1 && !is_group(addr),
    }
}

/// What a packet of ours carried that was too big for a router on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// ESP.
    Esp {
        /// Its SPI.
        spi: u32,
    },
    /// AH.
    Ah {
        /// Its SPI.
        spi: u32,
    },
    /// UDP.
    Udp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
        /// The SPI of ESP in it, if the router showed so much, and it is not IKE (RFC 3948 §2.2).
        spi: Option<u32>,
    },
}

impl Carried {
    /// The SPI of ESP, AH, or what stands in its place in UDP; it is never 0 (RFC 4303 §2.1).
    pub fn spi(self) -> Option<u32> {
        let spi = match self {
            Carried::Esp { spi } | Carried::Ah { spi } => Some(spi),
            Carried::Udp { spi, .. } => spi,
        };
        spi.filter(|spi| *spi != 0)
    }
}

/// What a router says of a packet of ours. Anybody can say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooBig {
    /// Outer source address of our packet.
    pub src: Addr,
    /// Outer destination address.
    pub dst: Addr,
    /// What it carried.
    pub carried: Carried,
    /// Octets of an outer packet that gets through.
    pub mtu: u16,
}

impl TooBig {
    /// Reads a "fragmentation needed" or "packet too big" about ESP, AH or UDP, of which 8 octets are shown at least
    /// (RFC 4301 §8.2.1). None for all else, for what is wrong, and for MTUs that no IPv6 link has (RFC 8201 §4).
    pub fn parse(packet: &[u8]) -> Option<TooBig> {
        let ip = Ip::parse(packet).ok()?;
        let Shown { src, dst, len, carried } = shown(packet, &ip)?;
        let (head, message) = packet[..ip.len()].split_at(ip.payload());
        let mtu = match (ip.is_v4(), be32(message, 4)) {
            // RFC 1191 §4: the lower half of the word.
            (true, word) if word as u16 == 0 => plateau_below(len),
            (true, word) => word as u16,
            (false, ..1280) => return None,
            (false, mtu) => mtu.min(u16::MAX as u32) as u16,
        };
        (total(head, message) == 0xffff).then_some(TooBig { src, dst, carried, mtu })
    }
}

/// The SPI that is shown of what was too big, in ESP, AH or ESP in UDP from or to one of our ports, be the message right
/// or wrong: steering has seen the same.
pub fn spi_too_big(packet: &[u8], ip: &Ip, ports: &UdpPorts) -> Option<u32> {
    let carried = shown(packet, ip)?.carried;
    match carried {
        Carried::Udp { src_port, dst_port, .. } if !ports.has(src_port) && !ports.has(dst_port) => None,
        _ => carried.spi(),
    }
}

/// What a message shows of a packet.
struct Shown {
    src: Addr,
    dst: Addr,
    len: u16,
    carried: Carried,
}

fn shown(packet: &[u8], ip: &Ip) -> Option<Shown> {
    let message = packet.get(ip.payload()..ip.len()).filter(|_| ip.place == Place::Whole)?;
    let (head, about) = message.split_at_checked(HEADER)?;
    match (ip.protocol(), head[0], head[1]) {
        (protocol::ICMP, 3, 4) if ip.is_v4() => shown_v4(about),
        // RFC 4443 §3.2: the code is not looked at.
        (protocol::ICMPV6, 2, _) if !ip.is_v4() => shown_v6(about),
        _ => None,
    }
}

fn shown_v4(about: &[u8]) -> Option<Shown> {
    let head: &[u8; IPV4] = about.first_chunk()?;
    let (payload, len) = ((head[0] & 15) as usize * 4, be16(head, 2));
    if head[0] >> 4 != 4 || payload < IPV4 || be16(head, 6) & OFFSET != 0 {
        return None;
    }
    let addr = |at: usize| Addr { bits: be32(head, at) as u128, v4: true };
    let carried = carried(head[9], about[..about.len().min(len as usize)].get(payload..)?)?;
    Some(Shown { src: addr(12), dst: addr(16), len, carried })
}

/// RFC 1191 §5: old routers say no MTU; it is the next below of those that networks have (RFC 1191 §7.1).
fn plateau_below(len: u16) -> u16 {
    const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    PLATEAUS.into_iter().find(|plateau| *plateau < len).unwrap_or(68)
}

fn shown_v6(about: &[u8]) -> Option<Shown> {
    let head: &[u8; IPV6] = about.first_chunk()?;
    if head[0] >> 4 != 6 {
        return None;
    }
    let len = be16(head, 4);
    let about = &about[..about.len().min(IPV6 + len as usize)];
    let mut headers = Headers::of(about);
    loop {
        let is_fragment = headers.protocol == protocol::FRAGMENT;
        if is_fragment && be16(about.get(headers.at..headers.at + 4)?, 2) & !7 != 0 {
            return None; // it shows no header
        }
        if !headers.skip().ok()? {
            break;
        }
    }
    let addr = |at: usize| Addr {
        bits: u128::from_be_bytes(*head[at..].first_chunk().expect("16 of 40 octets")),
        v4: false,
    };
    let carried = carried(headers.protocol, &about[headers.at..])?;
    Some(Shown { src: addr(8), dst: addr(24), len, carried })
}

fn carried(upper: u8, shown: &[u8]) -> Option<Carried> {
    if shown.len() < 8 {
        return None;
    }
    match upper {
        protocol::ESP => Some(Carried::Esp { spi: be32(shown, 0) }),
        protocol::AH => Some(Carried::Ah { spi: be32(shown, 4) }),
        protocol::UDP => {
            let spi = shown.get(UDP..UDP + 4).map(|spi| be32(spi, 0)).filter(|spi| *spi != 0);
            Some(Carried::Udp { src_port: be16(shown, 0), dst_port: be16(shown, 2), spi })
        }
        _ => None,
    }
}

/// How many errors are sent at most: so many a second on average, so many at once (RFC 4443 §2.4(f), RFC 1812
/// §4.3.2.8).
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    per_second: u32,
    /// In thousandths, as all below.
    burst: u64,
    tokens: u64,
    last_ms: u64,
}

impl RateLimit {
    /// All of `burst` may be sent at once to begin with.
    pub fn new(per_second: u32, burst: u32) -> RateLimit {
        let burst = burst as u64 * 1000;
        RateLimit { per_second, burst, tokens: burst, last_ms: 0 }
    }

    /// Whether one more may be sent now.
    pub fn take(&mut self, now_ms: u64) -> bool {
        let passed = now_ms.saturating_sub(self.last_ms);
        self.last_ms = self.last_ms.max(now_ms);
        self.tokens =
            passed.saturating_mul(self.per_second as u64).saturating_add(self.tokens).min(self.burst);
        let left = self.tokens.checked_sub(1000);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests;
