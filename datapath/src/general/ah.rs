//! AH, over a packet with what is behind a place in it (RFC 4302).
//!
//! The ICV is over the whole packet as the receiver will see it: fields that change on the way are zero, those whose
//! change can be told have their last value (RFC 4302 §3.3.3.1, Appendix A).

use super::{association::Association, header, headers::Headers, packet::Packet};
use crate::{
    crypto::IcvVerified,
    drop::DropReason,
    wire::{self, IPV4, IPV6, protocol},
};
use arrayvec::ArrayVec;

/// Octets of the fields before the ICV field.
pub const FIXED: usize = 12;

/// Octets of the headers in front of an AH, at most.
const FRONT: usize = 512;

/// Octets of an ICV, at most.
const ICV: usize = 32;

/// IPv4 options that do not change on the way (RFC 4302 §A1): end, no operation, security, extended and
/// commercial security, router alert, sender directed delivery.
const IMMUTABLE: [u8; 7] = [0, 1, 130, 133, 134, 148, 149];

/// IPv4 options with the way that a packet is to take, loose and strict.
const SOURCE_ROUTES: [u8; 2] = [131, 137];

/// IPv6 options whose data may change (RFC 8200 §4.2).
const MAY_CHANGE: u8 = 0x20;

type Front = ArrayVec<u8, FRONT>;

/// Octets of an AH: a multiple of 4, in IPv6 of 8 (RFC 4302 §2.2).
pub fn len(with: &Association, v4: bool) -> usize {
    let algorithm = with.sa.algorithm;
    (FIXED + algorithm.iv_len() + algorithm.icv_len()).next_multiple_of(if v4 { 4 } else { 8 })
}

/// Puts an AH at a place, before something of protocol `next`, which the octet at `named_at` names.
///
/// # Errors
/// [`DropReason::NoHeadroom`], [`DropReason::Malformed`].
pub fn seal(
    packet: &mut Packet,
    (at, named_at): (usize, usize),
    next: u8,
    with: &Association,
    seq: u64,
) -> Result<(), DropReason> {
    let v4 = packet.bytes()[0] >> 4 == 4;
    let (algorithm, len) = (with.sa.algorithm, len(with, v4));
    let head = packet.insert(at, len)?;
    (head[0], head[1]) = (next, (len / 4 - 2) as u8);
    head[4..8].copy_from_slice(&with.sa.spi.0.to_be_bytes());
    head[8..12].copy_from_slice(&(seq as u32).to_be_bytes());
    header::settle(packet, named_at, protocol::AH)?;
    let front = front(&packet.bytes()[..at], true)?;
    let (head, body) =
        packet.bytes().get(at..).and_then(|b| b.split_at_checked(len)).ok_or(DropReason::Malformed)?;
    let (iv, mut icv) = (iv(with, seq.to_be_bytes()), [0; ICV]);
    let icv = &mut icv[..algorithm.icv_len()];
    // RFC 4543 §4: the IV is part of the ICV field, zero as it is.
    if !with.suite.ah_icv(&[&front, head, body], seq, with.sa.esn, iv, icv) {
        return Err(DropReason::Malformed);
    }
    let field = &mut packet.bytes_mut()[at + FIXED..];
    let iv = iv.unwrap_or_default();
    let (iv_at, icv_at) = field.split_at_mut(algorithm.iv_len());
    iv_at.copy_from_slice(&iv[..iv_at.len()]);
    icv_at[..icv.len()].copy_from_slice(icv);
    Ok(())
}

fn iv(with: &Association, iv: [u8; 8]) -> Option<[u8; 8]> {
    (with.sa.algorithm.iv_len() > 0).then_some(iv)
}

/// Verifies the AH at a place. It stays, for [`unwrap`].
pub fn open(packet: &Packet, at: usize, with: &Association, seq: u64) -> Option<IcvVerified> {
    let algorithm = with.sa.algorithm;
    let (front_octets, rest) = packet.bytes().split_at_checked(at)?;
    let (head, body) = rest.split_at_checked(head_len(rest)?)?;
    let field = head.get(FIXED..)?;
    let (iv_octets, icv) = field.split_at_checked(algorithm.iv_len())?;
    let (icv, padding) = icv.split_at_checked(algorithm.icv_len())?;
    // No more than what makes it fit (RFC 4302 §2.6); some make IPv4's a multiple of 8, too.
    if padding.len() >= 8 {
        return None;
    }
    let front = front(front_octets, false).ok()?;
    let iv = iv(with, iv_octets.first_chunk().copied().unwrap_or_default());
    let zeros = [0; 8 + ICV];
    let pieces: [&[u8]; 5] =
        [&front, &head[..FIXED], &zeros[..algorithm.iv_len() + algorithm.icv_len()], padding, body];
    with.suite.ah_verify(&pieces, seq, with.sa.esn, iv, icv)
}

/// Octets of the AH that these begin with, as it says.
fn head_len(ah: &[u8]) -> Option<usize> {
    Some((*ah.get(1)? as usize + 2) * 4)
}

/// Takes the AH at a place off a packet. Returns what protocol is there then.
///
/// # Errors
/// [`DropReason::Malformed`].
pub fn unwrap(packet: &mut Packet, at: usize, _: IcvVerified) -> Result<u8, DropReason> {
    let ah = packet.bytes().get(at..).filter(|ah| ah.len() >= FIXED).ok_or(DropReason::Malformed)?;
    let (next, len) = (ah[0], head_len(ah).unwrap_or_default());
    if ah.len() < len {
        return Err(DropReason::Malformed);
    }
    packet.remove(at, len);
    Ok(next)
}

/// The headers in front of an AH as they are authenticated. `is_sent`: they have yet to go their way.
fn front(headers: &[u8], is_sent: bool) -> Result<Front, DropReason> {
    let mut front = Front::try_from(headers).map_err(|_| DropReason::Malformed)?;
    match front.first().map(|b| b >> 4) {
        Some(4) if front.len() >= IPV4 => v4(&mut front, is_sent)?,
        Some(6) if front.len() >= IPV6 => v6(&mut front, is_sent)?,
        _ => return Err(DropReason::Malformed),
    }
    Ok(front)
}

/// RFC 4302 §3.3.3.1.1.
fn v4(front: &mut Front, is_sent: bool) -> Result<(), DropReason> {
    front[1] = 0; // DSCP and ECN
    front[6..9].fill(0); // flags, fragment offset, TTL
    front[10..12].fill(0); // checksum
    let mut at = IPV4;
    while let Some(kind) = front.get(at).copied() {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => *front.get(at + 1).ok_or(DropReason::Malformed)? as usize,
        };
        if len == 0 || kind > 1 && len < 2 || at + len > front.len() {
            return Err(DropReason::Malformed);
        }
        if SOURCE_ROUTES.contains(&kind) && is_sent && len >= 7 {
            // Where it will be when it arrives: the last address, if there is any way left.
            let pointer = front[at + 2] as usize;
            if pointer < len {
                front.copy_within(at + len - 4..at + len, 16);
            }
        }
        if !IMMUTABLE.contains(&kind) {
            front[at..at + len].fill(0);
        }
        at += len;
    }
    Ok(())
}

/// RFC 4302 §3.3.3.1.2.
fn v6(front: &mut Front, is_sent: bool) -> Result<(), DropReason> {
    front[0] = 0x60;
    front[1..4].fill(0); // traffic class and flow label
    front[7] = 0; // hop limit
    let walked = front.clone();
    let mut headers = Headers::of(&walked);
    while headers.at < walked.len() {
        let (kind, from) = (headers.protocol, headers.at);
        if !headers.skip()? {
            return Err(DropReason::Malformed);
        }
        let header = &mut front[from..headers.at];
        match kind {
            protocol::HOP_BY_HOP | protocol::DESTINATION_OPTIONS => options(header)?,
            protocol::ROUTING if is_sent => {
                let mut dst: [u8; 16] = *walked[24..].first_chunk().ok_or(DropReason::Malformed)?;
                arrive(header, &mut dst)?;
                front[24..40].copy_from_slice(&dst);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Zeroes the data of options that may change on the way (RFC 4302 §3.3.3.1.2.2).
fn options(header: &mut [u8]) -> Result<(), DropReason> {
    let mut at = 2;
    while let Some(kind) = header.get(at).copied() {
        if kind == 0 {
            at += 1; // Pad1
            continue;
        }
        let len = *header.get(at + 1).ok_or(DropReason::Malformed)? as usize;
        let data = header.get_mut(at + 2..at + 2 + len).ok_or(DropReason::Malformed)?;
        if kind & MAY_CHANGE != 0 {
            data.fill(0);
        }
        at += 2 + len;
    }
    Ok(())
}

/// A routing header of type 0 or 2, and the destination, as they are when the packet arrives: the header's addresses
/// have each taken the place of the one before (RFC 8200 §4.4, RFC 6275 §6.4).
fn arrive(header: &mut [u8], dst: &mut [u8; 16]) -> Result<(), DropReason> {
    let left = header[3] as usize;
    if !matches!(header[2], 0 | 2) || left == 0 {
        return Ok(());
    }
    let (addresses, _) = header[8..].as_chunks_mut::<16>();
    let first = addresses.len().checked_sub(left).ok_or(DropReason::Malformed)?;
    for address in &mut addresses[first..] {
        std::mem::swap(address, dst);
    }
    header[3] = 0;
    Ok(())
}

/// The SPI and the number that an AH has.
pub fn fields(ah: &[u8]) -> Option<(u32, u32)> {
    (ah.len() >= FIXED).then(|| (wire::be32(ah, 4), wire::be32(ah, 8)))
}
