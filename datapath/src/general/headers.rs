//! The chain of IPv6 headers, gone over one by one (RFC 8200 §4).

use crate::{
    drop::DropReason,
    wire::{IPV6, protocol},
};

/// Extension headers that a packet may have, as [`Ip::parse`](crate::wire::Ip::parse) has it.
const MOST: u8 = 7;

/// A place in the chain.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    packet: &'a [u8],
    /// What is here.
    pub protocol: u8,
    /// Where it starts.
    pub at: usize,
    /// The octet that names it.
    pub named_at: usize,
    left: u8,
}

impl<'a> Headers<'a> {
    /// What follows the IPv6 header of a packet, which has one.
    pub fn of(packet: &'a [u8]) -> Headers<'a> {
        Headers { packet, protocol: packet[6], at: IPV6, named_at: 6, left: MOST }
    }

    /// A header in the middle of a packet.
    pub fn at(packet: &'a [u8], protocol: u8, at: usize) -> Headers<'a> {
        Headers { packet, protocol, at, named_at: at, left: MOST }
    }

    /// Goes over the extension header that is here. False at one that is none.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] if it ends behind the packet, or there are too many.
    pub fn skip(&mut self) -> Result<bool, DropReason> {
        let header = self.packet.get(self.at..self.at + 8).ok_or(DropReason::Malformed);
        let octets = match self.protocol {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                8 + header?[1] as usize * 8
            }
            protocol::FRAGMENT => header?.len(),
            _ => return Ok(false),
        };
        self.left = self.left.checked_sub(1).ok_or(DropReason::Malformed)?;
        (self.protocol, self.named_at, self.at) = (header?[0], self.at, self.at + octets);
        if self.at > self.packet.len() { Err(DropReason::Malformed) } else { Ok(true) }
    }
}
