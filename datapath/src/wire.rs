//! Headers as they are on the wire: the one place where byte order is decoded.
//!
//! Parsing takes the lengths that headers claim against the bytes that are there; whoever has an [`Ip`]
//! may slice by its offsets.

use crate::drop::DropReason;
use portcullis_sadb::Flow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Octets of an IPv4 header without options.
pub const IPV4: usize = 20;
/// Octets of an IPv6 header.
pub const IPV6: usize = 40;
/// Octets of a UDP header.
pub const UDP: usize = 8;
/// Octets of SPI and sequence number (RFC 4303 §2).
pub const ESP: usize = 8;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];

/// IP protocol numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// IPv4 in IP: the next header of a tunnel-mode payload.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ESP.
    pub const ESP: u8 = 50;
    /// AH.
    pub const AH: u8 = 51;
    /// No next header: a dummy packet, in ESP.
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
}

/// 16 bits at an offset, or 0 behind the end; callers have checked the length.
#[inline]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// 32 bits at an offset, or 0 behind the end; callers have checked the length.
#[inline]
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// What an Ethernet frame carries, and where that starts.
#[inline]
pub fn ethernet(frame: &[u8]) -> Result<(u16, usize), DropReason> {
    let mut at = ETHERNET;
    for _ in 0..=VLAN_TAGS.len() {
        if frame.len() < at {
            return Err(DropReason::Malformed);
        }
        let ethertype = be16(frame, at - 2);
        if !VLAN_TAGS.contains(&ethertype) {
            return Ok((ethertype, at));
        }
        at += 4;
    }
    Ok((VLAN_TAGS[0], at - 4))
}

/// Where a packet is in the datagram it was cut from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The whole datagram.
    Whole,
    /// A first fragment: its headers can be seen.
    First,
    /// A later fragment.
    Later,
}

/// An IP address in a form that is quick to move and to compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Addr {
    /// IPv6 in 128 bits, IPv4 in the lowest 32.
    pub bits: u128,
    /// Which of the two.
    pub v4: bool,
}

impl From<IpAddr> for Addr {
    #[inline]
    fn from(addr: IpAddr) -> Addr {
        match addr {
            IpAddr::V4(a) => Addr { bits: a.to_bits() as u128, v4: true },
            IpAddr::V6(a) => Addr { bits: a.to_bits(), v4: false },
        }
    }
}

impl From<Addr> for IpAddr {
    #[inline]
    fn from(addr: Addr) -> IpAddr {
        match addr.v4 {
            true => IpAddr::V4(Ipv4Addr::from_bits(addr.bits as u32)),
            false => IpAddr::V6(Ipv6Addr::from_bits(addr.bits)),
        }
    }
}

/// A parsed IP header with its extension headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    src: u128,
    dst: u128,
    v4: bool,
    /// The upper protocol, or ESP or AH.
    pub protocol: u8,
    /// Where the upper protocol starts.
    pub payload: usize,
    /// Length of the whole packet in octets, as the header says; what follows it is link-layer padding.
    pub len: usize,
    /// Type of service or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4: don't fragment. Always set for IPv6.
    pub df: bool,
    /// Whole or fragment.
    pub place: Place,
}

impl Ip {
    /// What stands where there is no packet.
    pub const NONE: Ip = Ip {
        src: 0,
        dst: 0,
        v4: true,
        protocol: 0,
        payload: 0,
        len: 0,
        tos: 0,
        ttl: 0,
        df: false,
        place: Place::Whole,
    };

    /// Parses a packet of either version.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] where lengths do not fit.
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Ip, DropReason> {
        let mut ip = Ip::NONE;
        match packet.first().map(|b| b >> 4) {
            Some(4) => ip.parse_v4(packet)?,
            Some(6) => ip.parse_v6(packet)?,
            _ => return Err(DropReason::Malformed),
        }
        Ok(ip)
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Addr {
        Addr { bits: self.src, v4: self.v4 }
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Addr {
        Addr { bits: self.dst, v4: self.v4 }
    }

    /// The same header with other addresses, both of one version.
    #[must_use]
    pub fn between(self, src: Addr, dst: Addr) -> Ip {
        Ip { src: src.bits, dst: dst.bits, v4: src.v4, ..self }
    }

    /// Whether it is IPv4.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.v4
    }

    /// Becomes what an IPv4 packet's header says.
    #[inline]
    pub(crate) fn parse_v4(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let h: &[u8; IPV4] = packet.first_chunk().ok_or(DropReason::Malformed)?;
        let payload = (h[0] & 15) as usize * 4;
        let len = be16(h, 2) as usize;
        if payload < IPV4 || len < payload || packet.len() < len {
            return Err(DropReason::Malformed);
        }
        let offset = be16(h, 6);
        self.place = match (offset & 0x1fff, offset & 0x2000) {
            (0, 0) => Place::Whole,
            (0, _) => Place::First,
            _ => Place::Later,
        };
        self.src = be32(h, 12) as u128;
        self.dst = be32(h, 16) as u128;
        self.v4 = true;
        self.protocol = h[9];
        self.payload = payload;
        self.len = len;
        self.tos = h[1];
        self.ttl = h[8];
        self.df = offset & 0x4000 != 0;
        Ok(())
    }

    /// Becomes what an IPv6 packet's headers say.
    #[inline]
    pub(crate) fn parse_v6(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let h: &[u8; IPV6] = packet.first_chunk().ok_or(DropReason::Malformed)?;
        let len = IPV6 + be16(h, 4) as usize;
        if packet.len() < len {
            return Err(DropReason::Malformed);
        }
        self.src = u128::from_be_bytes(*h[8..24].first_chunk().expect("16 octets"));
        self.dst = u128::from_be_bytes(*h[24..40].first_chunk().expect("16 octets"));
        self.v4 = false;
        self.protocol = h[6];
        self.payload = IPV6;
        self.len = len;
        self.tos = h[0] << 4 | h[1] >> 4;
        self.ttl = h[7];
        self.df = true;
        self.place = Place::Whole;
        self.skip_extensions(&packet[..len])
    }

    /// Goes over the extension headers that may stand before ESP, AH or an upper protocol (RFC 8200 §4.1).
    fn skip_extensions(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        const MOST: usize = 8;
        for _ in 0..MOST {
            let at = self.payload;
            let next = packet.get(at..at + 8);
            match self.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    let next = next.ok_or(DropReason::Malformed)?;
                    (self.protocol, self.payload) = (next[0], at + 8 + next[1] as usize * 8);
                }
                protocol::FRAGMENT => {
                    let next = next.ok_or(DropReason::Malformed)?;
                    (self.protocol, self.payload) = (next[0], at + 8);
                    let offset = be16(next, 2);
                    self.place = match (offset & 0xfff8, offset & 1) {
                        (0, 0) => Place::Whole, // an atomic fragment (RFC 6946)
                        (0, _) => Place::First,
                        _ => Place::Later,
                    };
                    if self.place == Place::Later {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
            if self.payload > packet.len() {
                return Err(DropReason::Malformed);
            }
        }
        Err(DropReason::Malformed)
    }

    /// The fields that selectors look at. Only whole packets and first fragments show ports.
    pub fn flow(&self, packet: &[u8]) -> Flow {
        use protocol::{SCTP, TCP, UDP, UDP_LITE};
        let shown = self.place != Place::Later && matches!(self.protocol, TCP | UDP | SCTP | UDP_LITE);
        let ports =
            packet.get(self.payload..self.payload + 4).filter(|_| shown && self.payload + 4 <= self.len);
        Flow {
            src: self.src().into(),
            dst: self.dst().into(),
            protocol: self.protocol,
            ports: ports.map(|p| (be16(p, 0), be16(p, 2))),
        }
    }
}

/// Ones' complement sum of big-endian 16-bit words, to be folded (RFC 1071).
#[inline]
pub fn sum(bytes: &[u8]) -> u32 {
    // Whatever the byte order, the sum is the same but for the order of its own octets (RFC 1071 §2): words of 32
    // bits as they are in memory, then turned over once.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|w| u32::from_ne_bytes(*w) as u64).sum();
    if !rest.is_empty() {
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        sum += u32::from_ne_bytes(last) as u64;
    }
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    u16::from_be(fold(sum as u32)) as u32
}

/// Folds a sum to 16 bits, not complemented.
#[inline]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

/// Whether the checksum of an IPv4 header is right. `header` is the header with its options.
#[inline]
pub fn ipv4_checksum_ok(header: &[u8]) -> bool {
    fold(sum(header)) == 0xffff
}

/// A checksum after a word under it changed (RFC 1624 §3).
#[inline]
pub fn updated(checksum: u16, from: u16, to: u16) -> u16 {
    !fold(!checksum as u32 + !from as u32 + to as u32)
}

/// Decrements TTL or hop limit, as whoever forwards a packet must (RFC 1812 §5.3.1, RFC 8200 §3).
///
/// # Errors
/// [`DropReason::TtlExceeded`] if it would reach 0; the packet is as it was.
#[inline]
pub fn decrement_ttl(packet: &mut [u8]) -> Result<(), DropReason> {
    let v4 = packet[0] >> 4 == 4;
    let at = if v4 { 8 } else { 7 };
    if packet[at] <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    packet[at] -= 1;
    if v4 {
        // The TTL is the high octet of its word.
        let checksum = updated(be16(packet, 10), 0x0100, 0);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    Ok(())
}

/// Changes the ECN bits of a packet's header.
pub fn set_ecn(packet: &mut [u8], ecn: u8) {
    if packet[0] >> 4 == 4 {
        let before = be16(packet, 0);
        packet[1] = packet[1] & !3 | ecn & 3;
        let checksum = updated(be16(packet, 10), before, be16(packet, 0));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        packet[1] = packet[1] & !0x30 | (ecn & 3) << 4;
    }
}

#[cfg(test)]
mod tests;
