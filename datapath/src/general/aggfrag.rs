//! AGGFRAG payloads of ESP, as IP traffic flow security has them (RFC 9347): inner packets aggregated and fragmented
//! over payloads of one size.
//!
//! What is sent is one stream of data blocks, cut where a payload is full:
//!
//! ```text
//!  payload 1                     payload 2                     payload 3
//!  | 0 | packet | begin of B ... | n | ... end of B | packet C  | 0 | pad                    |
//!        BlockOffset ^             ^ octets of the stream before the next data block begins
//! ```
//!
//! An inner packet is a data block as it is, since its first four bits tell what it is, and its own header how long.
//! A [`Sender`] fills payloads, a [`Receiver`] takes them in any order. When to send, and how long to wait for what is
//! missing, is the caller's; so is that inner packets are what the SA's policy lets in.

mod assembly;
mod receiver;
mod sender;

use crate::{
    drop::DropReason,
    wire::{IPV4, IPV6, be16, be32},
};
pub use receiver::Receiver;
pub use sender::{Filled, Sender};

/// The next header of such a payload (RFC 9347 §6.1).
pub const NEXT_HEADER: u8 = 144;

/// Octets of the header without congestion control (RFC 9347 §6.1.1).
pub const HEADER: usize = 4;

/// Octets of the header with congestion control (RFC 9347 §6.1.2).
pub const CONGESTION_HEADER: usize = 24;

/// Octets of the largest inner packet, of IPv6.
const LARGEST: usize = IPV6 + u16::MAX as usize;

/// What either side tells the other about congestion (RFC 9347 §6.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Congestion {
    /// The path MTU is being probed: what is missing need not be loss.
    pub probing: bool,
    /// The loss rate is also of packets that came with CE.
    pub ce: bool,
    /// One loss event in so many packets; 0 for none.
    pub loss_event_rate: u32,
    /// The sender's round-trip time; 0 if it knows none. Of this and the delays what is over the field is told as its
    /// most.
    pub rtt_us: u32,
    /// How long ago what is echoed came.
    pub echo_delay_us: u32,
    /// Time between two packets of this side.
    pub transmit_delay_us: u32,
    /// To be echoed.
    pub tval: u32,
    /// The `tval` of the other side.
    pub techo: u32,
}

/// The head of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Octets of data before the first data block that begins, here or in a later payload.
    pub block_offset: u16,
    /// With sub-type 1.
    pub congestion: Option<Congestion>,
}

/// Bits of the round-trip time, and of either delay.
const RTT_BITS: u32 = 22;
const DELAY_BITS: u32 = 21;

impl Header {
    /// Octets of a header, with congestion control or without.
    pub const fn octets(with_congestion: bool) -> usize {
        if with_congestion { CONGESTION_HEADER } else { HEADER }
    }

    /// Reads the head of a payload, and says where its data start.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] if it is cut short or of another sub-type.
    pub fn parse(payload: &[u8]) -> Result<(Header, usize), DropReason> {
        let sub_type = *payload.first().ok_or(DropReason::Malformed)?;
        let octets = match sub_type {
            0 | 1 => Header::octets(sub_type == 1),
            _ => return Err(DropReason::Malformed),
        };
        let head = payload.get(..octets).ok_or(DropReason::Malformed)?;
        let congestion = (sub_type == 1).then(|| {
            let delays = (be32(head, 8) as u64) << 32 | be32(head, 12) as u64;
            let field = |shift: u32, bits: u32| (delays >> shift) as u32 & ((1 << bits) - 1);
            Congestion {
                probing: head[1] & 2 != 0,
                ce: head[1] & 1 != 0,
                loss_event_rate: be32(head, 4),
                rtt_us: field(2 * DELAY_BITS, RTT_BITS),
                echo_delay_us: field(DELAY_BITS, DELAY_BITS),
                transmit_delay_us: field(0, DELAY_BITS),
                tval: be32(head, 16),
                techo: be32(head, 20),
            }
        });
        Ok((Header { block_offset: be16(head, 2), congestion }, octets))
    }

    /// Writes it to the start of `out`, which has room. Returns its octets.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let octets = Header::octets(self.congestion.is_some());
        let head = &mut out[..octets];
        head[0] = self.congestion.is_some() as u8;
        head[1] = 0;
        head[2..4].copy_from_slice(&self.block_offset.to_be_bytes());
        if let Some(c) = &self.congestion {
            // RFC 9347 §6.1.2: what is larger is told as the largest.
            let field = |value: u32, bits: u32| value.min((1 << bits) - 1) as u64;
            let delays = field(c.rtt_us, RTT_BITS) << (2 * DELAY_BITS)
                | field(c.echo_delay_us, DELAY_BITS) << DELAY_BITS
                | field(c.transmit_delay_us, DELAY_BITS);
            head[1] = (c.probing as u8) << 1 | c.ce as u8;
            head[4..8].copy_from_slice(&c.loss_event_rate.to_be_bytes());
            head[8..16].copy_from_slice(&delays.to_be_bytes());
            head[16..20].copy_from_slice(&c.tval.to_be_bytes());
            head[20..24].copy_from_slice(&c.techo.to_be_bytes());
        }
        octets
    }
}

/// What a data block is, by its first octets (RFC 9347 §6.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Block {
    /// Padding, to the end of the payload.
    Pad,
    /// An inner packet of so many octets.
    Packet(usize),
    /// An inner packet whose length is not shown yet.
    Short,
    /// None of these.
    Bad,
}

/// Octets of a data block that always show its length.
const SHOWN: usize = 6;

impl Block {
    /// What begins here, where at least one octet is.
    fn at(start: &[u8]) -> Block {
        match (start[0] >> 4, start.len()) {
            (0, _) => Block::Pad,
            (4, ..4) | (6, ..SHOWN) => Block::Short,
            (4, _) if be16(start, 2) as usize >= IPV4 => Block::Packet(be16(start, 2) as usize),
            (6, _) => Block::Packet(IPV6 + be16(start, 4) as usize),
            _ => Block::Bad,
        }
    }
}

#[cfg(test)]
mod tests;
