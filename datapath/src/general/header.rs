//! IP headers: the outer one of a tunnel, and a packet's own in transport mode.

use super::{headers::Headers, packet::Packet};
use crate::{
    drop::DropReason,
    wire::{self, IPV4, IPV6, Ip, UDP, be16, protocol},
};
use portcullis_sadb::{DfBit, Dscp, OUTER_TTL, Sa, UdpEncap};
use std::net::IpAddr;

const DF: u16 = 0x4000;

/// CE, or not ECN-capable (RFC 3168 §5).
const NOT_ECT: u8 = 0;

/// What an outer header takes from the packet inside, before that is sealed.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    tos: u8,
    ttl: u8,
    df: bool,
    flow: u32,
    /// The outer packet is to be cut.
    pub may_be_cut: bool,
}

impl Inner {
    /// Of no packet, or of several, of which nothing is to be seen (RFC 9347 §2.2.5).
    pub const NONE: Inner = Inner { tos: 0, ttl: OUTER_TTL, df: false, flow: 0, may_be_cut: false };

    /// Of a packet whose header `ip` is.
    pub fn of(packet: &[u8], ip: &Ip) -> Inner {
        let ttl = packet.get(if ip.is_v4() { 8 } else { 7 }).copied().unwrap_or_default();
        Inner { tos: ip.tos, ttl, df: ip.df, flow: (ip.key().hash() >> 44) as u32, may_be_cut: false }
    }
}

/// DF of an SA's outer header (RFC 4301 §8.1).
pub fn is_df(sa: &Sa, inner_df: bool) -> bool {
    match sa.handling.df {
        DfBit::Copy => inner_df,
        DfBit::Set => true,
        DfBit::Clear => false,
    }
}

/// Octets of an SA's outer IP header.
pub fn outer_len(sa: &Sa) -> usize {
    if sa.dst.is_ipv4() { IPV4 } else { IPV6 }
}

/// Puts the outer IP header of a tunnel in front (RFC 4301 §5.1.2), and says where it ends and which octet names what is
/// there. What it is, and how long, [`enclose`] or [`settle`] will tell. `id` is of IPv4.
///
/// # Errors
/// [`DropReason::NoHeadroom`].
pub fn outer(packet: &mut Packet, sa: &Sa, inner: Inner, id: u16) -> Result<(usize, usize), DropReason> {
    let handling = &sa.handling;
    let dscp = match &handling.dscp {
        Dscp::Copy => inner.tos >> 2,
        Dscp::Set(dscp) => *dscp,
        Dscp::Map(map) => map[(inner.tos >> 2) as usize],
    };
    // RFC 6040 §4.1: normal mode, or compatibility mode.
    let tos = dscp << 2 | if handling.ecn { inner.tos & 3 } else { NOT_ECT };
    let ttl = if handling.ttl == 0 { inner.ttl } else { handling.ttl };
    match (sa.src, sa.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let h = packet.insert(0, IPV4)?;
            (h[0], h[1], h[8]) = (0x45, tos, ttl);
            // Without DF it may be cut, and needs an identification (RFC 6864 §4).
            let df = is_df(sa, inner.df) && !inner.may_be_cut;
            h[4..6].copy_from_slice(&(if df { 0 } else { id }).to_be_bytes());
            h[6..8].copy_from_slice(&(if df { DF } else { 0 }).to_be_bytes());
            h[12..16].copy_from_slice(&src.octets());
            h[16..20].copy_from_slice(&dst.octets());
            Ok((IPV4, 9))
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let label = if handling.flow_label { inner.flow & 0xf_ffff } else { 0 };
            let h = packet.insert(0, IPV6)?;
            h[..4].copy_from_slice(&(6 << 28 | (tos as u32) << 20 | label).to_be_bytes());
            h[7] = ttl;
            h[8..24].copy_from_slice(&src.octets());
            h[24..40].copy_from_slice(&dst.octets());
            Ok((IPV6, 6))
        }
        _ => Err(DropReason::Malformed), // no SADB has such
    }
}

/// Makes a packet's headers fit what is of `protocol` at a place, in UDP if the SA says so.
///
/// # Errors
/// [`DropReason::NoHeadroom`], [`DropReason::TooBig`], [`DropReason::Malformed`].
pub fn enclose(
    packet: &mut Packet,
    (at, named_at): (usize, usize),
    sa: &Sa,
    protocol: u8,
) -> Result<(), DropReason> {
    match sa.udp {
        Some(encap) => udp(packet, (at, named_at), encap),
        None => settle(packet, named_at, protocol),
    }
}

/// The UDP header of what is encapsulated (RFC 3948 §2.1): without a checksum in IPv4, with one in IPv6 if it is not to do
/// without (RFC 6935 §5).
fn udp(packet: &mut Packet, (at, named_at): (usize, usize), encap: UdpEncap) -> Result<(), DropReason> {
    packet.insert(at, UDP)?;
    settle(packet, named_at, protocol::UDP)?;
    let bytes = packet.bytes_mut();
    let length = (bytes.len() - at) as u16;
    let h = bytes.get_mut(at..at + UDP).ok_or(DropReason::Malformed)?;
    for (to, from) in h.as_chunks_mut().0.iter_mut().zip([encap.src_port, encap.dst_port, length, 0]) {
        *to = from.to_be_bytes();
    }
    if bytes[0] >> 4 == 6 && !encap.zero_checksum {
        let checksum = upper_checksum(bytes, at, protocol::UDP);
        bytes[at + 6..at + 8].copy_from_slice(&checksum.to_be_bytes());
    }
    Ok(())
}

/// The checksum of an upper protocol at a place, whose own field is zero there (RFC 8200 §8.1, RFC 768, RFC 9293 §3.1).
pub fn upper_checksum(packet: &[u8], at: usize, protocol: u8) -> u16 {
    let addresses = if packet[0] >> 4 == 4 { 12..IPV4 } else { 8..IPV6 };
    let upper = &packet[at..];
    let folded = |bytes| wire::fold(wire::sum(bytes)) as u32;
    let checksum =
        !wire::fold(folded(&packet[addresses]) + folded(upper) + upper.len() as u32 + protocol as u32);
    // RFC 768: one that is 0 is sent as all ones.
    if checksum == 0 { 0xffff } else { checksum }
}

/// Makes a packet's IP header say how long it is now, and that what the octet at `named_at` names is `protocol`.
///
/// # Errors
/// [`DropReason::TooBig`] over 65,535 octets, [`DropReason::Malformed`].
pub fn settle(packet: &mut Packet, named_at: usize, protocol: u8) -> Result<(), DropReason> {
    let bytes = packet.bytes_mut();
    let v4 = bytes.first().ok_or(DropReason::Malformed)? >> 4 == 4;
    *bytes.get_mut(named_at).ok_or(DropReason::Malformed)? = protocol;
    let len = bytes.len() - if v4 { 0 } else { IPV6.min(bytes.len()) };
    let len: u16 = len.try_into().map_err(|_| DropReason::TooBig)?;
    if v4 {
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        let header = (bytes[0] & 15) as usize * 4;
        bytes[10..12].fill(0);
        let checksum = !wire::fold(wire::sum(bytes.get(..header).ok_or(DropReason::Malformed)?));
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
    }
    Ok(())
}

/// Where ESP or AH goes in a packet in transport mode, and the octet that will name it: behind the IPv4 header, or behind
/// the IPv6 headers that those on the way look at (RFC 4303 §3.1.1, RFC 4302 §3.1.1).
///
/// # Errors
/// [`DropReason::Malformed`].
pub fn transport_place(packet: &[u8], ip: &Ip) -> Result<(usize, usize), DropReason> {
    if ip.is_v4() {
        return Ok((ip.payload(), 9));
    }
    let mut headers = Headers::of(packet);
    let mut place = (headers.at, headers.named_at);
    loop {
        let kind = headers.protocol;
        if !headers.skip()? {
            return Ok(place);
        }
        if matches!(kind, protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT) {
            place = (headers.at, headers.named_at);
        }
    }
}

/// The octet that names what is at a place in a packet.
///
/// # Errors
/// [`DropReason::Malformed`].
pub fn named_at(packet: &[u8], ip: &Ip, at: usize) -> Result<usize, DropReason> {
    if ip.is_v4() {
        return Ok(9);
    }
    let mut headers = Headers::of(packet);
    while headers.at < at {
        if !headers.skip()? {
            return Err(DropReason::Malformed);
        }
    }
    if headers.at == at { Ok(headers.named_at) } else { Err(DropReason::Malformed) }
}

/// Makes the checksum of TCP or UDP right again after a NAT has changed the addresses of a packet in transport mode,
/// whose ICV was right (RFC 3948 §3.1.2).
pub fn mend_checksum(packet: &mut [u8], ip: &Ip) {
    let field = match ip.protocol() {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return,
    };
    let (at, field) = (ip.payload(), ip.payload() + field);
    if packet.len() < field + 2 || ip.protocol() == protocol::UDP && be16(packet, field) == 0 && ip.is_v4() {
        return; // UDP without a checksum
    }
    packet[field..field + 2].fill(0);
    let checksum = upper_checksum(packet, at, ip.protocol());
    packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}
