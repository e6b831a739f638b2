//! Headers as they are on the wire: the one place where byte order is decoded.
//!
//! Parsing takes the lengths that headers claim against the bytes that are there; whoever has an [`Ip`]
//! may slice by its offsets.

mod ip;
mod ports;

use crate::drop::DropReason;
pub use ip::{Addr, FlowKey, Ip, Place};
pub use ports::UdpPorts;

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
/// The UDP port of ESP in UDP, if no others are said (RFC 3948 §2).
pub const NAT_T_PORT: u16 = 4500;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];

/// IP protocol numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP: the next header of a tunnel-mode payload.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// AH.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// No next header: a dummy packet, in ESP.
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Mobility Header (RFC 6275 §6.1).
    pub const MOBILITY: u8 = 135;
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
    let header: &[u8; ETHERNET] = frame.first_chunk().ok_or(DropReason::Malformed)?;
    let ethertype = u16::from_be_bytes([header[12], header[13]]);
    if VLAN_TAGS.contains(&ethertype) { behind_tags(frame) } else { Ok((ethertype, ETHERNET)) }
}

fn behind_tags(frame: &[u8]) -> Result<(u16, usize), DropReason> {
    let mut at = ETHERNET;
    for _ in 0..VLAN_TAGS.len() {
        at += 4;
        if frame.len() < at {
            return Err(DropReason::Malformed);
        }
        let ethertype = be16(frame, at - 2);
        if !VLAN_TAGS.contains(&ethertype) {
            return Ok((ethertype, at));
        }
    }
    Ok((VLAN_TAGS[0], at))
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
    let head: &mut [u8; 12] = packet.first_chunk_mut().ok_or(DropReason::Malformed)?;
    if head[0] >> 4 != 4 {
        if head[7] <= 1 {
            return Err(DropReason::TtlExceeded);
        }
        head[7] -= 1;
        return Ok(());
    }
    // TTL, protocol and checksum as one word, the TTL lowest. The octet of the checksum that the TTL counts in is then
    // the lower one, and sums are the same in either order but for the order of their octets (RFC 1071 §2).
    let word = u32::from_le_bytes(*head[8..].first_chunk().expect("4 of 12 octets"));
    if word & 0xff <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let carry = u32::from(word >= 0xfffe_0000); // RFC 1624 §3: all ones are never sent
    let word = word.wrapping_add((1 + carry) << 16) - 1;
    head[8..].copy_from_slice(&word.to_le_bytes());
    Ok(())
}

/// Counts the TTL or hop limit of a packet up again, which [`decrement_ttl`] has counted down.
pub fn increment_ttl(packet: &mut [u8]) {
    if packet[0] >> 4 != 4 {
        packet[7] = packet[7].saturating_add(1);
        return;
    }
    let before = be16(packet, 8);
    packet[8] = packet[8].saturating_add(1);
    let checksum = updated(be16(packet, 10), before, be16(packet, 8));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Changes the ECN bits of a packet's header.
pub fn set_ecn(packet: &mut [u8], ecn: u8) {
    let tos = if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 };
    set_tos(packet, tos & !3 | ecn & 3);
}

/// Changes type of service or traffic class in a packet's header.
pub fn set_tos(packet: &mut [u8], tos: u8) {
    if packet[0] >> 4 == 4 {
        let before = be16(packet, 0);
        packet[1] = tos;
        let checksum = updated(be16(packet, 10), before, be16(packet, 0));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        packet[0] = packet[0] & 0xf0 | tos >> 4;
        packet[1] = packet[1] & 0x0f | tos << 4;
    }
}

#[cfg(test)]
mod tests;
