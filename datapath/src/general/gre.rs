//! GRE between the two gateways of an SA in transport mode (RFC 2784, RFC 2890).

use super::packet::Packet;
use crate::{
    drop::DropReason,
    wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, be16},
};

/// Octets of the header that [`push`] makes.
pub const GRE: usize = 4;

/// A checksum and what is reserved beside it, a key, a sequence number: four octets each, if they are there.
const OPTIONAL: [u16; 3] = [0x8000, 0x2000, 0x1000];

/// The version, and bits that must be zero (RFC 2784 §2.3).
const UNKNOWN: u16 = 0x4fff;

/// Puts a GRE header in front of an IP packet.
///
/// # Errors
/// [`DropReason::NoHeadroom`].
pub fn push(packet: &mut Packet) -> Result<(), DropReason> {
    let v4 = packet.bytes().first().is_some_and(|b| b >> 4 == 4);
    let head = packet.insert(0, GRE)?;
    head[2..].copy_from_slice(&(if v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }).to_be_bytes());
    Ok(())
}

/// Takes off all up to the IP packet in the GRE header at a place. A checksum in it tells nothing that the ICV did not.
///
/// # Errors
/// [`DropReason::BadInner`].
pub fn pull(packet: &mut Packet, at: usize) -> Result<(), DropReason> {
    let head = packet.bytes().get(at..at + GRE).ok_or(DropReason::BadInner)?;
    let (flags, ethertype) = (be16(head, 0), be16(head, 2));
    if flags & UNKNOWN != 0 || !matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
        return Err(DropReason::BadInner);
    }
    let optional = OPTIONAL.iter().filter(|flag| flags & **flag != 0).count() * 4;
    packet.pull(at + GRE + optional);
    Ok(())
}
