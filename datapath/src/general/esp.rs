//! ESP of any algorithm, in either mode, round what is behind a place in a packet (RFC 4303 §3).

use super::{association::Association, packet::Packet};
use crate::{
    crypto::IcvVerified,
    drop::DropReason,
    esp::{is_padding, sealed_len},
    wire,
};
use portcullis_sadb::Algorithm;

/// Octets of pad length and next header.
const TRAILER: usize = 2;

/// Padding makes text and trailer end on a multiple of this at least (RFC 4303 §2.4).
const ALIGN: usize = 4;

/// The longest text whose ESP packet has at most `room` octets.
pub fn text_for(algorithm: Algorithm, room: usize) -> usize {
    let align = algorithm.block().max(ALIGN);
    let room = room.saturating_sub(wire::ESP + algorithm.iv_len() + algorithm.icv_len());
    (room - room % align).saturating_sub(TRAILER)
}

/// Seals what is behind `at`, of protocol `next`. The ESP header is there afterwards.
///
/// # Errors
/// [`DropReason::NoHeadroom`], [`DropReason::NoTailroom`].
pub fn seal(
    packet: &mut Packet,
    at: usize,
    next: u8,
    with: &Association,
    seq: u64,
) -> Result<(), DropReason> {
    let algorithm = with.sa.algorithm;
    let text = packet.len() - at;
    let head_len = wire::ESP + algorithm.iv_len();
    let pad = sealed_len(algorithm, text) - head_len - text - TRAILER - algorithm.icv_len();
    // 1. Padding and trailer (RFC 4303 §2.4).
    packet.extend(pad + TRAILER + algorithm.icv_len())?;
    let trailer = &mut packet.bytes_mut()[at + text..];
    (1..=pad).for_each(|i| trailer[i - 1] = i as u8);
    (trailer[pad], trailer[pad + 1]) = (pad as u8, next);
    // 2. Header, and room for the IV.
    let head = packet.insert(at, head_len)?;
    head[..4].copy_from_slice(&with.sa.spi.0.to_be_bytes());
    head[4..8].copy_from_slice(&(seq as u32).to_be_bytes());
    with.suite.seal(&mut packet.bytes_mut()[at..], seq, with.sa.esn);
    Ok(())
}

/// Opens what is behind `at`, where the ESP header is. It stays, with its trailer, for [`unwrap`].
pub fn open(packet: &mut Packet, at: usize, with: &Association, seq: u64) -> Option<IcvVerified> {
    with.suite.open(packet.bytes_mut().get_mut(at..)?, seq, with.sa.esn)
}

/// Takes header and trailer off what was opened. Returns the protocol of what is behind `at` then.
///
/// # Errors
/// [`DropReason::BadPadding`], [`DropReason::Dummy`].
pub fn unwrap(packet: &mut Packet, at: usize, with: &Association, _: IcvVerified) -> Result<u8, DropReason> {
    let algorithm = with.sa.algorithm;
    let head = wire::ESP + algorithm.iv_len();
    let text = packet.bytes().get(at + head..).ok_or(DropReason::BadPadding)?;
    let text = text.get(..text.len().saturating_sub(algorithm.icv_len())).unwrap_or_default();
    let Some((body, [pad, next])) = text.split_last_chunk::<TRAILER>() else {
        return Err(DropReason::BadPadding);
    };
    let (pad, next) = (*pad as usize, *next);
    let Some(len) = body.len().checked_sub(pad) else { return Err(DropReason::BadPadding) };
    // RFC 4303 §2.4: the receiver should inspect the padding.
    if !is_padding(&body[len..], pad) {
        return Err(DropReason::BadPadding);
    }
    if next == wire::protocol::NONE {
        return Err(DropReason::Dummy); // RFC 4303 §2.6
    }
    packet.truncate(at + head + len);
    packet.remove(at, head);
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_sadb::Protocol;

    #[test]
    fn the_longest_text_that_fits_is_as_long_as_its_packet_says() {
        for algorithm in Algorithm::all_for(Protocol::Esp) {
            for room in 100..300 {
                let text = text_for(algorithm, room);
                let (fits, over) = (sealed_len(algorithm, text), sealed_len(algorithm, text + 1));
                assert!(fits <= room && room < over, "{} {room}: {text}", algorithm.name());
            }
        }
    }
}
