//! The maximum segment size that TCP's SYNs offer, lowered to what fits through a tunnel (RFC 9293 §3.7.1).

use crate::{
    drop::DropReason,
    wire::{IPV4, IPV6, Ip, Place, be16, protocol, updated},
};

/// Octets of a TCP header without options.
const HEADER: usize = 20;
/// Where the flags are.
const FLAGS: usize = 13;
const SYN: u8 = 2;
/// Where the checksum is.
const CHECKSUM: usize = 16;

/// The segment size whose packets are of `mtu` octets, without options (RFC 9293 §3.7.1).
pub fn of_mtu(mtu: u16, is_v4: bool) -> u16 {
    mtu.saturating_sub((HEADER + if is_v4 { IPV4 } else { IPV6 }) as u16)
}

/// Lowers the segment size in a SYN, if it is over `mss`, and says whether it was. A SYN without one is left as it is:
/// its sender takes small segments anyhow (RFC 9293 §3.7.1). All other packets are left too.
///
/// # Errors
/// As [`Ip::parse`].
pub fn clamp(packet: &mut [u8], mss: u16) -> Result<bool, DropReason> {
    let ip = Ip::parse(packet)?;
    if ip.protocol() != protocol::TCP || ip.place == Place::Later {
        return Ok(false);
    }
    let segment = &mut packet[ip.payload()..ip.len()];
    if segment.len() < HEADER || segment[FLAGS] & SYN == 0 {
        return Ok(false);
    }
    let end = ((segment[12] >> 4) as usize * 4).min(segment.len());
    let mut was_lowered = false;
    let mut at = HEADER;
    // RFC 9293 §3.1: 0 ends the options, 1 is alone, all others say their length. All sizes are lowered, since nobody
    // says which of several counts.
    while at < end && segment[at] != 0 {
        let octets = match segment[at] {
            1 => 1,
            _ if at + 1 < end => segment[at + 1] as usize,
            _ => break,
        };
        let is_alone = segment[at] == 1;
        if octets < 2 && !is_alone || at + octets > end {
            break;
        }
        if segment[at] == 2 && octets == 4 {
            was_lowered |= lower(segment, at + 2, mss);
        }
        at += octets;
    }
    Ok(was_lowered)
}

/// Lowers the 16 bits at an offset of a segment.
fn lower(segment: &mut [u8], at: usize, mss: u16) -> bool {
    let offered = be16(segment, at);
    if offered <= mss {
        return false;
    }
    segment[at..at + 2].copy_from_slice(&mss.to_be_bytes());
    // RFC 1624 §3. At an odd offset the two octets count in two words, each in the other half.
    let word = |size: u16| if at.is_multiple_of(2) { size } else { size.swap_bytes() };
    let checksum = updated(be16(segment, CHECKSUM), word(offered), word(mss));
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
    true
}

#[cfg(test)]
mod tests;
