//! A packet cut to an MTU (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! Each fragment is a new head and a slice of the packet, so that it is copied once, to where it is sent from.
//! Whether a packet may be cut is for the caller to say: by its DF bit, and as its source if it is IPv6.

use super::headers::Headers;
use crate::{
    drop::DropReason,
    wire::{IPV4, IPV6, Ip, be16, fold, protocol, sum},
};
use arrayvec::ArrayVec;

/// Octets of the longest head: an IPv6 header and extension headers before the fragment header.
pub const HEAD: usize = 256;

/// Octets of an IPv6 fragment header.
pub const FRAGMENT_HEADER: usize = 8;

/// IPv4: more fragments follow.
pub(super) const MF: u16 = 0x2000;
/// IPv4: the offset, in 8 octets.
pub(super) const OFFSET: u16 = 0x1fff;

/// The headers of a fragment.
pub type Head = ArrayVec<u8, HEAD>;

/// One fragment of a packet.
pub struct Fragment<'a> {
    /// Its headers, all right.
    pub head: Head,
    /// What follows them.
    pub body: &'a [u8],
}

impl Fragment<'_> {
    /// Octets of head and body.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Copies it to the start of `out`, which has room. Returns its length.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let (head, body) = out[..self.len()].split_at_mut(self.head.len());
        head.copy_from_slice(&self.head);
        body.copy_from_slice(self.body);
        self.len()
    }
}

/// The fragments of a packet, in order.
pub struct Fragments<'a> {
    first: Head,
    /// What the others have, without the IPv4 options that are not copied.
    later: Head,
    /// What is left of the data.
    data: &'a [u8],
    /// Octets of the datagram before it.
    offset: usize,
    /// More fragments follow the last one: the packet is itself a fragment.
    more: bool,
    is_first: bool,
    kind: Kind,
    mtu: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It fits; nothing changes.
    Whole,
    V4,
    V6,
    Done,
}

/// Cuts a packet into fragments of at most `mtu` octets; one that fits is left as it is.
///
/// `id` is the identification of an IPv6 packet's fragments, which no other packet between the same addresses has
/// had recently (RFC 8200 §4.5). IPv4 packets keep their own, and their DF bit.
///
/// # Errors
/// [`DropReason::TooBig`] if the MTU has no room for headers and 8 octets, if the headers are over [`HEAD`], or if it
/// is an IPv6 fragment, which only its source may cut; [`DropReason::Malformed`], [`DropReason::BadChecksum`].
pub fn fragments(packet: &[u8], mtu: usize, id: u32) -> Result<Fragments<'_>, DropReason> {
    let ip = Ip::parse(packet)?;
    let packet = &packet[..ip.len()];
    let fragments = match (packet.len() <= mtu, ip.is_v4()) {
        (true, _) => {
            let (head, data) = packet.split_at(if ip.is_v4() { IPV4 } else { IPV6 });
            let head = Head::try_from(head).expect("shorter than the longest");
            let later = Head::new();
            Fragments {
                first: head,
                later,
                data,
                offset: 0,
                more: false,
                is_first: true,
                kind: Kind::Whole,
                mtu,
            }
        }
        (false, true) => v4(packet, ip.payload(), mtu)?,
        (false, false) => v6(packet, mtu, id)?,
    };
    if fragments.kind != Kind::Whole && mtu < fragments.first.len() + 8 {
        return Err(DropReason::TooBig);
    }
    Ok(fragments)
}

fn v4(packet: &[u8], payload: usize, mtu: usize) -> Result<Fragments<'_>, DropReason> {
    let (head, data) = packet.split_at(payload);
    let word = be16(head, 6);
    let (offset, more) = ((word & OFFSET) as usize * 8, word & MF != 0);
    if offset + data.len() > u16::MAX as usize || more && !data.len().is_multiple_of(8) {
        return Err(DropReason::Malformed);
    }
    let first = Head::try_from(head).expect("at most 60 octets");
    let mut later = Head::try_from(&head[..IPV4]).expect("20 octets");
    copied_options(&head[IPV4..], &mut later)?;
    later[0] = 0x40 | (later.len() / 4) as u8;
    Ok(Fragments { first, later, data, offset, more, is_first: true, kind: Kind::V4, mtu })
}

/// Appends the options that go into every fragment, those with the copied flag (RFC 791 §3.1).
fn copied_options(mut options: &[u8], head: &mut Head) -> Result<(), DropReason> {
    const COPIED: u8 = 0x80;
    while let [kind, rest @ ..] = options {
        let octets = match (kind, rest) {
            (0, _) => break,
            (1, _) => 1,
            (_, [octets, ..]) if *octets >= 2 => *octets as usize,
            _ => return Err(DropReason::Malformed),
        };
        let (option, rest) = options.split_at_checked(octets).ok_or(DropReason::Malformed)?;
        if kind & COPIED != 0 {
            head.extend(option.iter().copied());
        }
        options = rest;
    }
    while !head.len().is_multiple_of(4) {
        head.push(0);
    }
    Ok(())
}

fn v6(packet: &[u8], mtu: usize, id: u32) -> Result<Fragments<'_>, DropReason> {
    // RFC 8200 §4.5: what each node on the way looks at stays in front, with the destination options before a routing
    // header. The rest is cut.
    let mut headers = Headers::of(packet);
    let mut cut = headers;
    loop {
        let kind = headers.protocol;
        if kind == protocol::FRAGMENT {
            return Err(DropReason::TooBig); // RFC 8200 §4.5: only the source cuts, and does so once
        }
        if !headers.skip()? {
            break;
        }
        if matches!(kind, protocol::HOP_BY_HOP | protocol::ROUTING) {
            cut = headers;
        }
    }
    let (front, data) = packet.split_at(cut.at);
    if front.len() + FRAGMENT_HEADER > HEAD {
        return Err(DropReason::TooBig);
    }
    let mut head = Head::try_from(front).expect("checked above");
    head[cut.named_at] = protocol::FRAGMENT;
    head.extend([cut.protocol, 0, 0, 0]);
    head.extend(id.to_be_bytes());
    let later = head.clone();
    Ok(Fragments { first: head, later, data, offset: 0, more: false, is_first: true, kind: Kind::V6, mtu })
}

impl<'a> Iterator for Fragments<'a> {
    type Item = Fragment<'a>;

    fn next(&mut self) -> Option<Fragment<'a>> {
        let mut head = if self.is_first { self.first.clone() } else { self.later.clone() };
        self.is_first = false;
        let room = self.mtu.saturating_sub(head.len());
        let is_last = self.data.len() <= room;
        let (body, rest) = self.data.split_at(if is_last { self.data.len() } else { room & !7 });
        let more = self.more || !is_last;
        let offset = self.offset as u16;
        match self.kind {
            Kind::Done => return None,
            Kind::Whole => {}
            Kind::V4 => {
                let kept = be16(&head, 6) & !(MF | OFFSET);
                let word = kept | (offset / 8) | if more { MF } else { 0 };
                let len = (head.len() + body.len()) as u16;
                head[2..4].copy_from_slice(&len.to_be_bytes());
                head[6..8].copy_from_slice(&word.to_be_bytes());
                write_checksum(&mut head);
            }
            Kind::V6 => {
                let len = (head.len() - IPV6 + body.len()) as u16;
                head[4..6].copy_from_slice(&len.to_be_bytes());
                let at = head.len() - FRAGMENT_HEADER;
                head[at + 2..at + 4].copy_from_slice(&(offset | more as u16).to_be_bytes());
            }
        }
        self.offset += body.len();
        self.data = rest;
        if is_last {
            self.kind = Kind::Done;
        }
        Some(Fragment { head, body })
    }
}

/// Computes the checksum of an IPv4 header anew.
pub(super) fn write_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let checksum = !fold(sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests;
