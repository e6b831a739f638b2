//! ESP in tunnel mode (RFC 4303), around the crypto: what is done before a packet is sealed, and after it is
//! opened.
//!
//! ```text
//!  outer IP | (UDP) | SPI, sequence number | IV | inner packet | padding, length, next header | ICV
//!                   ^ authenticated .............................................................
//!                                               ^ encrypted ....................................
//! ```

use crate::{
    crypto::{self, ICV, IcvVerified},
    drop::DropReason,
    frame::Frame,
    wire::{self, Addr, ESP, Ip, protocol},
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Algorithm, Encryption, Sa};
use std::net::IpAddr;

/// Octets of the IV (RFC 4106 §3.1).
pub const IV: usize = 8;

/// Octets of pad length and next header.
const TRAILER: usize = 2;

/// Octets behind the padding.
const BEHIND: usize = TRAILER + ICV;

/// Padding makes the encrypted part end on a multiple of this (RFC 4303 §2.4).
const ALIGN: usize = 4;

/// Octets behind a packet that encapsulation may want.
pub const TRAILER_ROOM: usize = ALIGN - 1 + TRAILER + ICV;

/// Octets of an ESP packet of any algorithm around `text` octets, from the SPI to the end of the ICV (RFC 4303 §2).
pub fn sealed_len(algorithm: Algorithm, text: usize) -> usize {
    let align = algorithm.block().max(ALIGN);
    ESP + algorithm.iv_len() + (text + TRAILER).next_multiple_of(align) + algorithm.icv_len()
}

/// Don't fragment (RFC 791 §3.1).
const DF: u16 = 0x4000;

/// TTL or hop limit of outer headers.
const OUTER_TTL: u8 = 64;

/// A whole NAT-keepalive, at its longest.
pub type Keepalive = ArrayVec<u8, { wire::IPV6 + wire::UDP + 1 }>;

/// The headers in front of each packet of an outbound SA, but for lengths, checksum and what comes from the
/// inner packet. One cache line.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct OuterHeader {
    /// As on the wire.
    bytes: [u8; wire::IPV6 + wire::UDP],
    /// IPv4: the sum of its words, for the checksum.
    sum: u32,
    /// The next IPv4 identification of this SA.
    id: u16,
    len: u8,
    v4: bool,
    udp: bool,
    has_checksum: bool,
    /// Which place of the peer it is of ([`portcullis_sadb::Reader::endpoint_version`]), its lower half.
    version: u32,
}

const _: () = assert!(size_of::<OuterHeader>() == 64);

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
        if let Some(udp) = sa.udp {
            bytes[len..len + 2].copy_from_slice(&udp.src_port.to_be_bytes());
            bytes[len + 2..len + 4].copy_from_slice(&udp.dst_port.to_be_bytes());
            len += wire::UDP;
        }
        let sum = if v4 { wire::sum(&bytes[..wire::IPV4]) } else { 0 };
        // RFC 6935 §5: a tunnel may do without, if its payload is protected by itself.
        let has_checksum = !v4 && sa.udp.is_some_and(|udp| !udp.zero_checksum);
        OuterHeader { bytes, sum, id: 0, len: len as u8, v4, udp: sa.udp.is_some(), has_checksum, version: 0 }
    }

    /// The same, of this version of the peer's place.
    #[must_use]
    pub fn of_version(self, version: u64) -> OuterHeader {
        OuterHeader { version: version as u32, ..self }
    }

    /// Whether it has a UDP header (RFC 3948 §2.1).
    #[inline]
    pub fn is_in_udp(&self) -> bool {
        self.udp
    }

    /// Whether it is of this version of the peer's place. Of 2^32 one after the other no two are taken for one.
    #[inline]
    pub fn is_of_version(&self, version: u64) -> bool {
        self.version == version as u32
    }

    /// The header that another place of the peer asks for, with identifications that go on.
    #[must_use]
    pub fn moved(&self, sa: &Sa, version: u64) -> OuterHeader {
        OuterHeader::new(sa).numbered_after(self.id).of_version(version)
    }

    /// Whether packets with this header in UDP come from this place.
    #[inline]
    pub fn is_from(&self, src: Addr, port: u16) -> bool {
        let (at, ip_len) = if self.v4 { (12, wire::IPV4) } else { (8, wire::IPV6) };
        let bits = match self.v4 {
            true => wire::be32(&self.bytes, at) as u128,
            false => u128::from_be_bytes(*self.bytes[at..].first_chunk().expect("16 octets")),
        };
        src == Addr { bits, v4: self.v4 } && port == wire::be16(&self.bytes, ip_len)
    }

    /// A NAT-keepalive (RFC 3948 §2.3) by the same way: one octet in UDP, which is sealed by nothing.
    pub fn keepalive(&self) -> Keepalive {
        let (len, ip_len) = (self.len(), if self.v4 { wire::IPV4 } else { wire::IPV6 });
        let (mut packet, total) = (Keepalive::new(), len + 1);
        packet.extend(self.bytes[..len].iter().copied().chain([0xff]));
        let udp_len = ((total - ip_len) as u16).to_be_bytes();
        packet[ip_len + 4..ip_len + 6].copy_from_slice(&udp_len);
        if self.v4 {
            packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&DF.to_be_bytes());
            let checksum = !wire::fold(self.sum + total as u32 + DF as u32);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            packet[4..6].copy_from_slice(&udp_len);
            self.add_checksum(&mut packet);
        }
        packet
    }

    /// The same, with IPv4 identifications after this one: not those of all other SAs between the two (RFC 6864 §4.3).
    #[must_use]
    pub fn numbered_after(self, id: u16) -> OuterHeader {
        OuterHeader { id, ..self }
    }

    /// Where packets go.
    #[inline]
    pub fn dst(&self) -> Addr {
        match self.v4 {
            true => Addr { bits: wire::be32(&self.bytes, 16) as u128, v4: true },
            false => {
                let octets = *self.bytes[24..].first_chunk().expect("16 octets");
                Addr { bits: u128::from_be_bytes(octets), v4: false }
            }
        }
    }

    /// Octets before the ESP header.
    #[allow(clippy::len_without_is_empty)]
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Octets of a whole outer packet around an inner packet of `inner` octets.
    #[inline]
    pub fn outer_len(&self, inner: usize) -> usize {
        self.len() + ESP + IV + (inner + TRAILER).next_multiple_of(ALIGN) + ICV
    }

    /// The largest inner packet whose outer packet has at most `mtu` octets.
    pub fn inner_mtu(&self, mtu: usize) -> usize {
        let room = mtu.saturating_sub(self.len() + ESP + IV + ICV);
        (room - room % ALIGN).saturating_sub(TRAILER)
    }

    /// Puts headers and trailer round an inner packet, to be sealed (RFC 4303 §3.3). The frame is the inner packet,
    /// whose header `inner` has, and nothing else. What is to be sealed starts at [`OuterHeader::text`] and goes to the
    /// end of the frame; with the octets in front of it that a [`Job`](crate::crypto::Job) wants, it is returned.
    ///
    /// # Errors
    /// [`DropReason::NoHeadroom`], [`DropReason::NoTailroom`].
    #[inline]
    pub fn encap<'a>(
        &mut self,
        frame: &'a mut Frame,
        inner: &Ip,
        spi: u32,
        seq: u64,
    ) -> Result<&'a mut [u8], DropReason> {
        // Of each a copy of its own, in which all lengths are known.
        match (self.v4, self.udp) {
            (true, false) => self.wrap::<{ wire::IPV4 + ESP + IV }>(frame, inner, spi, seq),
            (true, true) => self.wrap::<{ wire::IPV4 + wire::UDP + ESP + IV }>(frame, inner, spi, seq),
            (false, false) => self.wrap::<{ wire::IPV6 + ESP + IV }>(frame, inner, spi, seq),
            (false, true) => self.wrap::<{ wire::IPV6 + wire::UDP + ESP + IV }>(frame, inner, spi, seq),
        }
    }

    #[inline(always)]
    fn wrap<'a, const HEAD: usize>(
        &mut self,
        frame: &'a mut Frame,
        inner: &Ip,
        spi: u32,
        seq: u64,
    ) -> Result<&'a mut [u8], DropReason> {
        // 1. Padding and trailer (RFC 4303 §2.4, §3.3.2 step 2): at most five octets, of the room for the ICV too.
        let len = frame.len();
        debug_assert_eq!(len, inner.len(), "the inner packet alone");
        let pad = (len + TRAILER).wrapping_neg() % ALIGN;
        let behind = pad + TRAILER + ICV;
        if !frame.surround(HEAD, behind) {
            return Err(no_room(frame, HEAD));
        }
        let total = HEAD + len + behind;
        let bytes = frame.bytes_mut();
        let (head, text) = bytes.split_first_chunk_mut::<HEAD>().expect("just pushed");
        text[len..][..8].copy_from_slice(&TRAILERS[usize::from(inner.is_v4())][pad]);
        // 2. Outer header (RFC 4301 §5.1.2), in whole words: what is read soon must not be written in pieces.
        if self.v4 {
            self.fill_v4(head.first_chunk_mut().expect("long enough"), inner, total)
        } else {
            self.fill_v6(head.first_chunk_mut().expect("long enough"), inner, total)
        }
        if self.udp {
            let (at, ip_len) = (HEAD - ESP - IV - wire::UDP, if self.v4 { wire::IPV4 } else { wire::IPV6 });
            let lengths = ((total - ip_len) as u32) << 16; // RFC 3948 §2.1: no checksum
            head[at..at + 4].copy_from_slice(&self.bytes[ip_len..ip_len + 4]);
            head[at + 4..at + 8].copy_from_slice(&lengths.to_be_bytes());
        }
        // 3. ESP header and IV. The IV is the sequence number: a counter (RFC 4106 §3.1).
        let esp = (spi as u64) << 32 | seq as u32 as u64;
        head[HEAD - ESP - IV..HEAD - IV].copy_from_slice(&esp.to_be_bytes());
        head[HEAD - IV..].copy_from_slice(&seq.to_be_bytes());
        Ok(&mut bytes[HEAD - crypto::HEAD..])
    }

    #[inline]
    fn fill_v4(&mut self, head: &mut [u8; wire::IPV4], inner: &Ip, total: usize) {
        // DSCP, and ECN in normal mode (RFC 6040 §4.1).
        let first = 0x4500_0000 | (inner.tos as u32) << 16 | total as u32;
        let mut sum = self.sum + inner.tos as u32 + total as u32;
        let second = if inner.df {
            sum += 0x4000;
            0x4000 // its identification means nothing (RFC 6864 §4.1)
        } else {
            self.id = self.id.wrapping_add(1);
            sum += self.id as u32;
            (self.id as u32) << 16
        };
        let third = wire::be32(&self.bytes, 8) | !wire::fold(sum) as u32;
        head[..8].copy_from_slice(&((first as u64) << 32 | second as u64).to_be_bytes());
        head[8..12].copy_from_slice(&third.to_be_bytes());
        head[12..20].copy_from_slice(&self.bytes[12..20]);
    }

    #[inline]
    fn fill_v6(&self, head: &mut [u8; wire::IPV6], inner: &Ip, total: usize) {
        let first = 0x6000_0000 | (inner.tos as u32) << 20;
        let second = ((total - wire::IPV6) as u32) << 16 | (self.bytes[6] as u32) << 8 | OUTER_TTL as u32;
        head[..8].copy_from_slice(&((first as u64) << 32 | second as u64).to_be_bytes());
        head[8..40].copy_from_slice(&self.bytes[8..40]);
    }

    /// Where the part to be sealed starts, in a frame that was encapsulated.
    #[inline]
    pub fn text(&self) -> usize {
        self.len() + ESP + IV
    }

    /// Whether anything is left to be done after sealing.
    #[inline]
    pub fn has_checksum(&self) -> bool {
        self.has_checksum
    }

    /// After sealing: the UDP checksum, which IPv6 wants if the SA does not do without (RFC 8200 §8.1); in IPv4 it is 0
    /// (RFC 3948 §2.1).
    #[inline]
    pub fn sealed(&self, frame: &mut Frame) {
        if self.has_checksum() {
            self.add_checksum(frame.bytes_mut());
        }
    }

    /// Of a whole packet of IPv6 in UDP, whose checksum is zero.
    fn add_checksum(&self, packet: &mut [u8]) {
        let length = (packet.len() - wire::IPV6) as u32;
        let pseudo = wire::sum(&packet[8..wire::IPV6]) + length + protocol::UDP as u32;
        let checksum = !wire::fold(pseudo + wire::fold(wire::sum(&packet[wire::IPV6..])) as u32);
        let checksum = if checksum == 0 { 0xffff } else { checksum };
        packet[wire::IPV6 + 6..wire::IPV6 + 8].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cold]
fn no_room(frame: &Frame, front: usize) -> DropReason {
    if frame.headroom() < front { DropReason::NoHeadroom } else { DropReason::NoTailroom }
}

/// What follows an inner packet of IPv6 or IPv4, by the octets of padding: these, their number, the next header; what
/// comes behind belongs to the ICV.
static TRAILERS: [[[u8; 8]; ALIGN]; 2] = {
    let mut all = [[[0; 8]; ALIGN]; 2];
    let mut pad = 0;
    while pad < ALIGN {
        let mut i = 0;
        while i < pad {
            (all[0][pad][i], all[1][pad][i]) = (i as u8 + 1, i as u8 + 1);
            i += 1;
        }
        (all[0][pad][pad], all[1][pad][pad]) = (pad as u8, pad as u8);
        (all[0][pad][pad + 1], all[1][pad][pad + 1]) = (protocol::IPV6, protocol::IPV4);
        pad += 1;
    }
    all
};

/// Octets that an ESP packet has at least, from its SPI on: headers, trailer, ICV.
pub const SMALLEST: usize = ESP + IV + ALIGN + ICV;

/// Whether an algorithm's packets have the form that this file makes, and are what the batch kernels seal and open.
pub const fn is_supported(algorithm: Algorithm) -> bool {
    matches!(algorithm.encryption(), Encryption::AesGcm128 | Encryption::AesGcm192 | Encryption::AesGcm256)
}

/// Takes headers and trailer off a packet that was opened (RFC 4303 §3.4.4, RFC 4301 §5.2.1). The frame
/// begins at the outer IP header; `text` is where the decrypted part starts. Afterwards it is the inner packet,
/// whose header `inner` has.
///
/// # Errors
/// [`DropReason::BadPadding`], [`DropReason::Dummy`], [`DropReason::BadInner`], [`DropReason::EcnDrop`].
#[inline]
pub fn decap(
    frame: &mut Frame,
    text: usize,
    outer_tos: u8,
    inner: &mut Ip,
    _proof: IcvVerified,
) -> Result<(), DropReason> {
    // 1. Trailer and padding.
    let bytes = frame.bytes();
    let Some((body, [pad, next_header, ..])) = bytes.get(text..).and_then(<[u8]>::split_last_chunk::<BEHIND>)
    else {
        return Err(DropReason::BadPadding);
    };
    let Some(len) = body.len().checked_sub(*pad as usize) else { return Err(DropReason::BadPadding) };
    // RFC 4303 §2.4: the receiver should inspect the padding.
    if !is_padding(&bytes[text + len..], *pad as usize) {
        return Err(DropReason::BadPadding);
    }
    // 2. The inner packet. What follows it is traffic flow confidentiality padding (RFC 4303 §2.7).
    let v4 = match *next_header {
        protocol::IPV4 => true,
        protocol::IPV6 => false,
        protocol::NONE => return Err(DropReason::Dummy), // RFC 4303 §2.6
        _ => return Err(DropReason::BadInner),
    };
    let packet = &body[..len];
    let parsed = match packet.first().map(|b| b >> 4) {
        Some(4) if v4 => inner.parse_v4(packet),
        Some(6) if !v4 => inner.parse_v6(packet),
        _ => return Err(DropReason::BadInner),
    };
    if parsed.is_err() {
        return Err(DropReason::BadInner);
    }
    frame.keep(text, inner.len());
    // 3. ECN. Where the outer header tells nothing, there is nothing to do.
    if outer_tos & 3 == NOT_ECT {
        return Ok(());
    }
    let ecn = decapsulated_ecn(inner.tos & 3, outer_tos & 3).ok_or(DropReason::EcnDrop)?;
    if ecn != inner.tos & 3 {
        wire::set_ecn(frame.bytes_mut(), ecn);
    }
    Ok(())
}

/// Brings what [`decap`] looks at into the CPU's cache.
#[inline]
pub fn prefetch_opened(frame: &Frame, text: usize) {
    frame.prefetch_at(text);
    frame.prefetch_at(text + wire::IPV4 + wire::UDP);
    frame.prefetch_at(frame.len().saturating_sub(BEHIND));
}

/// Whether so many octets are 1, 2, 3 and so on. Behind them there are [`BEHIND`] octets.
#[inline]
pub(crate) fn is_padding(from: &[u8], pad: usize) -> bool {
    match from.first_chunk() {
        // In one word, as far as it is padding.
        Some(word) if pad < 8 => {
            let differ = u64::from_le_bytes(*word) ^ 0x0807_0605_0403_0201;
            differ & ((1 << (8 * pad)) - 1) == 0
        }
        _ => from.iter().zip(1..=pad as u8).all(|(octet, expected)| *octet == expected),
    }
}

const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const CE: u8 = 3;

/// The ECN field to forward (RFC 6040 §4.2, figure 4). `None`: drop.
pub(crate) fn decapsulated_ecn(inner: u8, outer: u8) -> Option<u8> {
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
