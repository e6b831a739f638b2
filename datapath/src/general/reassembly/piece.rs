//! A fragment, read, and refused if it is wrong in itself.

use super::{DropReason, From, HEAD, Headers, IPV6, Key, LARGEST, protocol};
use crate::{
    general::fragment::{FRAGMENT_HEADER, MF, OFFSET},
    wire::{Ip, be16, be32},
};

/// A fragment's parts.
pub(super) struct Piece<'a> {
    pub key: Key,
    /// All headers before the data, with the fragment header.
    pub head: &'a [u8],
    pub data: &'a [u8],
    /// Octets of the datagram before the data.
    pub offset: usize,
    /// Whether more follow.
    pub more: bool,
    pub ecn: u8,
    /// Of IPv6: the octet that names the fragment header, or 0 if there is none.
    pub named_at: u8,
}

impl<'a> Piece<'a> {
    pub fn parse(from: From, packet: &'a [u8]) -> Result<Piece<'a>, DropReason> {
        let piece = match packet.first().map(|first| first >> 4) {
            Some(4) => Piece::parse_v4(from, packet)?,
            Some(6) => Piece::parse_v6(from, packet)?,
            _ => return Err(DropReason::Malformed),
        };
        if !piece.is_whole() {
            piece.check()?;
        }
        Ok(piece)
    }

    fn parse_v4(from: From, packet: &'a [u8]) -> Result<Piece<'a>, DropReason> {
        let ip = Ip::parse(packet)?;
        let (head, data) = packet[..ip.len()].split_at(ip.payload());
        let word = be16(head, 6);
        let id = be16(head, 4) as u32;
        Ok(Piece {
            key: Key { from, src: ip.src(), dst: ip.dst(), id, protocol: ip.protocol() },
            head,
            data,
            offset: (word & OFFSET) as usize * 8,
            more: word & MF != 0,
            ecn: ip.tos & 3,
            named_at: 0,
        })
    }

    fn parse_v6(from: From, packet: &'a [u8]) -> Result<Piece<'a>, DropReason> {
        let ip = match Ip::parse(packet) {
            Ok(ip) => ip,
            // RFC 7112 §5: a first fragment whose headers go on behind it.
            Err(_) if is_cut_in_its_headers(packet) => return Err(DropReason::FragmentTooSmall),
            Err(reason) => return Err(reason),
        };
        let packet = &packet[..ip.len()];
        let mut headers = Headers::of(packet);
        while headers.protocol != protocol::FRAGMENT {
            if !headers.skip()? {
                let (head, data) = packet.split_at(IPV6);
                let key = Key { from, src: ip.src(), dst: ip.dst(), id: 0, protocol: 0 };
                return Ok(Piece { key, head, data, offset: 0, more: false, ecn: ip.tos & 3, named_at: 0 });
            }
        }
        let (head, data) = packet.split_at(headers.at + FRAGMENT_HEADER);
        let named_at = u8::try_from(headers.named_at).map_err(|_| DropReason::Malformed)?;
        let word = be16(head, headers.at + 2);
        let id = be32(head, headers.at + 4);
        Ok(Piece {
            // RFC 8200 §4.5: the next headers of the others say nothing.
            key: Key { from, src: ip.src(), dst: ip.dst(), id, protocol: 0 },
            head,
            data,
            offset: (word & !7) as usize,
            more: word & 1 != 0,
            ecn: ip.tos & 3,
            named_at,
        })
    }

    /// Whether it is the whole datagram. An atomic fragment is, whatever others have its identification
    /// (RFC 6946 §4).
    pub fn is_whole(&self) -> bool {
        self.offset == 0 && !self.more
    }

    /// Writes the whole datagram that it is.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, DropReason> {
        let head = self.head.len() - if self.named_at == 0 { 0 } else { FRAGMENT_HEADER };
        let len = head + self.data.len();
        let out = out.get_mut(..len).ok_or(DropReason::ReassemblyTooLong)?;
        out[..head].copy_from_slice(&self.head[..head]);
        out[head..].copy_from_slice(self.data);
        if self.named_at != 0 {
            out[self.named_at as usize] = self.head[head];
            out[4..6].copy_from_slice(&((len - IPV6) as u16).to_be_bytes());
        }
        Ok(len)
    }

    fn is_v4(&self) -> bool {
        self.key.src.v4
    }

    /// What the upper protocol is. A later IPv6 fragment does not tell.
    fn upper(&self) -> Result<(u8, usize), DropReason> {
        match self.is_v4() {
            true => Ok((self.key.protocol, self.data.len())),
            false => upper_v6(self.head, self.data),
        }
    }

    fn check(&self) -> Result<(), DropReason> {
        let octets = self.data.len();
        // RFC 8200 §4.5: all but the last are of whole units; one of none says nothing.
        if octets == 0 || self.more && !octets.is_multiple_of(8) || self.head.len() > HEAD {
            return Err(DropReason::Malformed);
        }
        let head = self.head.len() - if self.is_v4() { 0 } else { FRAGMENT_HEADER };
        if head + self.offset + octets > LARGEST {
            return Err(DropReason::ReassemblyTooLong); // RFC 8200 §4.5
        }
        if self.offset == 0 {
            // RFC 1858 §3, RFC 7112 §5: whoever filters by it must see the upper protocol's header.
            let (upper, shown) = self.upper()?;
            if shown < header_octets(upper) {
                return Err(DropReason::FragmentTooSmall);
            }
        } else if self.is_v4()
            && self.key.protocol == protocol::TCP
            && self.offset < header_octets(protocol::TCP)
        {
            return Err(DropReason::FragmentTooSmall); // RFC 3128 §3
        }
        Ok(())
    }
}

/// Octets of a header, as far as a policy looks at it; of most protocols 8.
fn header_octets(upper: u8) -> usize {
    match upper {
        protocol::TCP => 20,
        protocol::AH | protocol::SCTP => 12,
        protocol::NONE => 0,
        _ => 8,
    }
}

/// The upper protocol of a first fragment, and how many octets are there of it.
fn upper_v6(head: &[u8], data: &[u8]) -> Result<(u8, usize), DropReason> {
    let next = head[head.len() - FRAGMENT_HEADER];
    let mut headers = Headers::at(data, next, 0);
    loop {
        match headers.skip() {
            Ok(true) => {}
            Ok(false) => return Ok((headers.protocol, data.len() - headers.at)),
            Err(_) => return Err(DropReason::FragmentTooSmall),
        }
    }
}

/// Whether a packet that cannot be parsed is a first fragment that is too short for its headers.
fn is_cut_in_its_headers(packet: &[u8]) -> bool {
    let len = IPV6 + be16(packet, 4) as usize;
    let Some(packet) = packet.get(..len).filter(|_| len > IPV6) else { return false };
    let mut headers = Headers::of(packet);
    while headers.protocol != protocol::FRAGMENT {
        if !headers.skip().unwrap_or(false) {
            return false;
        }
    }
    let (head, data) = packet.split_at((headers.at + FRAGMENT_HEADER).min(packet.len()));
    let word = be16(head, headers.at + 2);
    head.len() == headers.at + FRAGMENT_HEADER
        && word & !7 == 0
        && word & 1 != 0
        && upper_v6(head, data).is_err()
}
