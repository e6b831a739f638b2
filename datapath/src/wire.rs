//! Headers as they are on the wire: the one place where byte order is decoded.
//!
//! Parsing takes the lengths that headers claim against the bytes that are there; whoever has an [`Ip`]
//! may slice by its offsets.

use crate::drop::DropReason;
use portcullis_sadb::Flow;
use std::net::IpAddr;

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
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

/// 32 bits at an offset, or 0 behind the end; callers have checked the length.
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// What an Ethernet frame carries, and where that starts.
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

/// A parsed IP header with its extension headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
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
    /// Parses a packet of either version.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] where lengths do not fit.
    pub fn parse(packet: &[u8]) -> Result<Ip, DropReason> {
        match packet.first().map(|b| b >> 4) {
            Some(4) => Ip::parse_v4(packet),
            Some(6) => Ip::parse_v6(packet),
            _ => Err(DropReason::Malformed),
        }
    }

    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    fn parse_v4(packet: &[u8]) -> Result<Ip, DropReason> {
        let h: &[u8; IPV4] = packet.first_chunk().ok_or(DropReason::Malformed)?;
        let payload = (h[0] & 15) as usize * 4;
        let len = be16(h, 2) as usize;
        if payload < IPV4 || len < payload || packet.len() < len {
            return Err(DropReason::Malformed);
        }
        let offset = be16(h, 6);
        let place = match (offset & 0x1fff, offset & 0x2000) {
            (0, 0) => Place::Whole,
            (0, _) => Place::First,
            _ => Place::Later,
        };
        Ok(Ip {
            src: IpAddr::from([h[12], h[13], h[14], h[15]]),
            dst: IpAddr::from([h[16], h[17], h[18], h[19]]),
            protocol: h[9],
            payload,
            len,
            tos: h[1],
            ttl: h[8],
            df: offset & 0x4000 != 0,
            place,
        })
    }

    fn parse_v6(packet: &[u8]) -> Result<Ip, DropReason> {
        let h: &[u8; IPV6] = packet.first_chunk().ok_or(DropReason::Malformed)?;
        let len = IPV6 + be16(h, 4) as usize;
        if packet.len() < len {
            return Err(DropReason::Malformed);
        }
        let mut ip = Ip {
            src: IpAddr::from(*h[8..24].first_chunk::<16>().expect("16 octets")),
            dst: IpAddr::from(*h[24..40].first_chunk::<16>().expect("16 octets")),
            protocol: h[6],
            payload: IPV6,
            len,
            tos: h[0] << 4 | h[1] >> 4,
            ttl: h[7],
            df: true,
            place: Place::Whole,
        };
        ip.skip_extensions(&packet[..len])?;
        Ok(ip)
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
            src: self.src,
            dst: self.dst,
            protocol: self.protocol,
            ports: ports.map(|p| (be16(p, 0), be16(p, 2))),
        }
    }
}

/// Ones' complement sum of big-endian 16-bit words, to be folded (RFC 1071).
pub fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let whole: u32 = words.iter().map(|w| u16::from_be_bytes(*w) as u32).sum();
    whole + rest.first().map_or(0, |b| (*b as u32) << 8)
}

/// Folds a sum to 16 bits, not complemented.
pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether the checksum of an IPv4 header is right. `header` is the header with its options.
pub fn ipv4_checksum_ok(header: &[u8]) -> bool {
    fold(sum(header)) == 0xffff
}

/// A checksum after a word under it changed (RFC 1624 §3).
pub fn updated(checksum: u16, from: u16, to: u16) -> u16 {
    !fold(!checksum as u32 + !from as u32 + to as u32)
}

/// Decrements TTL or hop limit, as whoever forwards a packet must (RFC 1812 §5.3.1, RFC 8200 §3).
///
/// # Errors
/// [`DropReason::TtlExceeded`] if it would reach 0; the packet is as it was.
pub fn decrement_ttl(packet: &mut [u8]) -> Result<(), DropReason> {
    let v4 = packet[0] >> 4 == 4;
    let at = if v4 { 8 } else { 7 };
    if packet[at] <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let before = be16(packet, at & !1);
    packet[at] -= 1;
    if v4 {
        let checksum = updated(be16(packet, 10), before, be16(packet, at));
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
