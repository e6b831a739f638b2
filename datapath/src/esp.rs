//! ESP in tunnel mode (RFC 4303), around the crypto: what is done before a packet is sealed, and after it is
//! opened.
//!
//! ```text
//!  outer IP | (UDP) | SPI, sequence number | IV | inner packet | padding, length, next header | ICV
//!                   ^ authenticated .............................................................
//!                                               ^ encrypted ....................................
//! ```

use crate::{
    crypto::{ICV, IcvVerified},
    drop::DropReason,
    frame::Frame,
    wire::{self, ESP, Ip, protocol},
};
use portcullis_sadb::{Algorithm, Sa};
use std::net::IpAddr;

/// Octets of the IV (RFC 4106 §3.1).
pub const IV: usize = 8;

/// Octets of pad length and next header.
const TRAILER: usize = 2;

/// Padding makes the encrypted part end on a multiple of this (RFC 4303 §2.4).
const ALIGN: usize = 4;

/// Octets behind a packet that encapsulation may want.
pub const TRAILER_ROOM: usize = ALIGN - 1 + TRAILER + ICV;

/// TTL or hop limit of outer headers.
const OUTER_TTL: u8 = 64;

/// The headers in front of each packet of an outbound SA, but for lengths, checksum and what comes from the
/// inner packet.
#[derive(Clone, Debug)]
pub struct OuterHeader {
    bytes: [u8; wire::IPV6 + wire::UDP],
    len: u8,
    v4: bool,
    udp: bool,
    dst: IpAddr,
    /// The next IPv4 identification of this SA.
    id: u16,
}

impl OuterHeader {
    /// The headers that an SA asks for.
    pub fn new(sa: &Sa) -> OuterHeader {
        let mut bytes = [0; wire::IPV6 + wire::UDP];
        let proto = if sa.udp.is_some() { protocol::UDP } else { protocol::ESP };
        let (v4, ip_len) = match (sa.src, sa.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                (bytes[0], bytes[8], bytes[9]) = (0x45, OUTER_TTL, proto);
                bytes[12..16].copy_from_slice(&src.octets());
                bytes[16..20].copy_from_slice(&dst.octets());
                (true, wire::IPV4)
            }
            (src, dst) => {
                let octets = |a: IpAddr| match a {
                    IpAddr::V6(a) => a.octets(),
                    IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
                };
                (bytes[0], bytes[6], bytes[7]) = (0x60, proto, OUTER_TTL);
                bytes[8..24].copy_from_slice(&octets(src));
                bytes[24..40].copy_from_slice(&octets(dst));
                (false, wire::IPV6)
            }
        };
        let mut len = ip_len;
        if let Some((sport, dport)) = sa.udp {
            bytes[len..len + 2].copy_from_slice(&sport.to_be_bytes());
            bytes[len + 2..len + 4].copy_from_slice(&dport.to_be_bytes());
            len += wire::UDP;
        }
        OuterHeader { bytes, len: len as u8, v4, udp: sa.udp.is_some(), dst: sa.dst, id: 0 }
    }

    /// Where packets go.
    pub fn dst(&self) -> IpAddr {
        self.dst
    }

    /// Octets before the ESP header.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Octets of a whole outer packet around an inner packet of `inner` octets.
    pub fn outer_len(&self, inner: usize) -> usize {
        self.len() + ESP + IV + (inner + TRAILER).next_multiple_of(ALIGN) + ICV
    }

    /// The largest inner packet whose outer packet has at most `mtu` octets.
    pub fn inner_mtu(&self, mtu: usize) -> usize {
        let room = mtu.saturating_sub(self.len() + ESP + IV + ICV);
        (room - room % ALIGN).saturating_sub(TRAILER)
    }

    /// Puts headers and trailer round an inner packet, to be sealed (RFC 4303 §3.3). The frame begins at the
    /// inner IP header, which `inner` describes. What is to be sealed starts at [`OuterHeader::text`] and goes
    /// to the end of the frame.
    ///
    /// # Errors
    /// [`DropReason::NoHeadroom`], [`DropReason::NoTailroom`]; the frame may have grown.
    pub fn encap(&mut self, frame: &mut Frame, inner: &Ip, spi: u32, seq: u64) -> Result<(), DropReason> {
        let len = self.len();
        // 1. Padding and trailer (RFC 4303 §3.3.2, step 2).
        frame.truncate(inner.len);
        let pad = (inner.len + TRAILER).next_multiple_of(ALIGN) - inner.len - TRAILER;
        if !frame.extend(pad + TRAILER + ICV) {
            return Err(DropReason::NoTailroom);
        }
        let trailer = &mut frame.bytes_mut()[inner.len..];
        for (i, octet) in trailer[..pad].iter_mut().enumerate() {
            *octet = i as u8 + 1; // RFC 4303 §2.4
        }
        trailer[pad] = pad as u8;
        trailer[pad + 1] = if inner.is_v4() { protocol::IPV4 } else { protocol::IPV6 };
        // 2. ESP header and IV. The IV is the sequence number: a counter (RFC 4106 §3.1).
        if !frame.push(len + ESP + IV) {
            return Err(DropReason::NoHeadroom);
        }
        let total = frame.len();
        let bytes = frame.bytes_mut();
        bytes[len..len + 4].copy_from_slice(&spi.to_be_bytes());
        bytes[len + 4..len + 8].copy_from_slice(&(seq as u32).to_be_bytes());
        bytes[len + ESP..len + ESP + IV].copy_from_slice(&seq.to_be_bytes());
        // 3. Outer header (RFC 4301 §5.1.2).
        bytes[..len].copy_from_slice(&self.bytes[..len]);
        self.fill(bytes, inner, total);
        Ok(())
    }

    /// What of an outer header changes from packet to packet.
    fn fill(&mut self, bytes: &mut [u8], inner: &Ip, total: usize) {
        let ip_len = if self.v4 { wire::IPV4 } else { wire::IPV6 };
        if self.v4 {
            bytes[1] = inner.tos; // DSCP, and ECN in normal mode (RFC 6040 §4.1)
            bytes[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            if inner.df {
                bytes[6] = 0x40; // its identification means nothing (RFC 6864 §4.1)
            } else {
                self.id = self.id.wrapping_add(1);
                bytes[4..6].copy_from_slice(&self.id.to_be_bytes());
            }
            let checksum = !wire::fold(wire::sum(&bytes[..ip_len]));
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            bytes[0] |= inner.tos >> 4;
            bytes[1] = inner.tos << 4;
            bytes[4..6].copy_from_slice(&((total - ip_len) as u16).to_be_bytes());
        }
        if self.udp {
            let at = ip_len + 4;
            bytes[at..at + 2].copy_from_slice(&((total - ip_len) as u16).to_be_bytes());
        }
    }

    /// Where the part to be sealed starts, in a frame that was encapsulated.
    pub fn text(&self) -> usize {
        self.len() + ESP + IV
    }

    /// After sealing: the UDP checksum, which IPv6 wants (RFC 8200 §8.1); in IPv4 it is 0 (RFC 3948 §2.1).
    pub fn sealed(&self, frame: &mut Frame) {
        if self.udp && !self.v4 {
            let bytes = frame.bytes_mut();
            let length = (bytes.len() - wire::IPV6) as u32;
            let pseudo = wire::sum(&bytes[8..wire::IPV6]) + length + protocol::UDP as u32;
            let checksum = !wire::fold(pseudo + wire::fold(wire::sum(&bytes[wire::IPV6..])) as u32);
            let checksum = if checksum == 0 { 0xffff } else { checksum };
            bytes[wire::IPV6 + 6..wire::IPV6 + 8].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

/// Octets that an ESP packet has at least, from its SPI on: headers, trailer, ICV.
pub const SMALLEST: usize = ESP + IV + ALIGN + ICV;

/// Whether an algorithm's packets have the form that this file makes.
pub const fn is_supported(algorithm: Algorithm) -> bool {
    algorithm.iv_len() == IV && algorithm.icv_len() == ICV
}

/// Takes headers and trailer off a packet that was opened (RFC 4303 §3.4.4, RFC 4301 §5.2.1). The frame
/// begins at the outer IP header; `text` is where the decrypted part starts. Afterwards it is the inner packet.
///
/// # Errors
/// [`DropReason::BadPadding`], [`DropReason::Dummy`], [`DropReason::BadInner`], [`DropReason::EcnDrop`].
pub fn decap(frame: &mut Frame, text: usize, outer_tos: u8, _proof: IcvVerified) -> Result<Ip, DropReason> {
    // 1. Trailer and padding.
    frame.truncate(frame.len() - ICV);
    frame.pull(text);
    let bytes = frame.bytes();
    let [.., pad, next_header] = *bytes else { return Err(DropReason::BadPadding) };
    let Some(len) = bytes.len().checked_sub(TRAILER + pad as usize) else {
        return Err(DropReason::BadPadding);
    };
    let padding = &bytes[len..len + pad as usize];
    // RFC 4303 §2.4: the receiver should inspect the padding.
    if padding.iter().enumerate().any(|(i, octet)| *octet != i as u8 + 1) {
        return Err(DropReason::BadPadding);
    }
    // 2. The inner packet. What follows it is traffic flow confidentiality padding (RFC 4303 §2.7).
    let v4 = match next_header {
        protocol::IPV4 => true,
        protocol::IPV6 => false,
        protocol::NONE => return Err(DropReason::Dummy), // RFC 4303 §2.6
        _ => return Err(DropReason::BadInner),
    };
    let inner = Ip::parse(&bytes[..len]).map_err(|_| DropReason::BadInner)?;
    if inner.is_v4() != v4 || v4 && !wire::ipv4_checksum_ok(&bytes[..(bytes[0] & 15) as usize * 4]) {
        return Err(DropReason::BadInner);
    }
    frame.truncate(inner.len);
    // 3. ECN.
    let ecn = decapsulated_ecn(inner.tos & 3, outer_tos & 3).ok_or(DropReason::EcnDrop)?;
    if ecn != inner.tos & 3 {
        wire::set_ecn(frame.bytes_mut(), ecn);
    }
    Ok(inner)
}

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const CE: u8 = 3;

/// The ECN field to forward (RFC 6040 §4.2, figure 4). `None`: drop.
fn decapsulated_ecn(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (CE, _) => Some(CE),
        (_, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

#[cfg(test)]
mod tests;
