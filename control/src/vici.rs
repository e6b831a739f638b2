//! VICI, the protocol by which `swanctl` and others ask an IKE daemon.
//!
//! A client sends packets with a length before each (`packet.rs`): commands and what events it wants to hear of. Each
//! is answered, in order. What a command or an event says is a tree of sections, keys and lists (`message.rs`), the
//! same that `swanctl.conf` is read into, so that `load-conn` has the keys of its `connections`. A [`Session`] is one
//! client of ours, without its socket (`socket.rs`), by which it asks what is in `command.rs`.
//!
//! [`Session`]: session::Session

mod command;
mod connections;
mod control;
mod listing;
mod load;
pub mod message;
mod names;
pub mod packet;
mod redirect;
mod sas;
mod selection;
pub mod session;
pub mod socket;

use thiserror::Error;

/// Octets of a packet, at most, without its length.
pub const MAX_PACKET: usize = 512 * 1024;

/// Octets that are not VICI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{why}, at octet {offset}")]
pub struct Malformed {
    /// What is wrong.
    pub why: Why,
    /// Where in the packet or message.
    pub offset: usize,
}

/// What is wrong with octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[allow(missing_docs, reason = "their texts tell")]
pub enum Why {
    #[error("a packet of {0} octets, where {MAX_PACKET} are the most")]
    TooLong(usize),
    #[error("more octets than were wanted")]
    Unwanted,
    #[error("the end is missing")]
    Cut,
    #[error("a packet of type {0}, which is not a client's")]
    PacketType(u8),
    #[error("octets behind the end")]
    Trailing,
    #[error("a name that is empty, or not text in UTF-8")]
    Name,
    #[error("an element of type {0}")]
    ElementType(u8),
    #[error("an item that is in no list")]
    NoList,
    #[error("something in a list that is no item")]
    NoItem,
    #[error("the end of a section that did not begin")]
    NoSection,
    #[error("too many sections in each other")]
    TooDeep,
}

/// Octets that are taken one after the other.
struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(octets: &'a [u8]) -> Reader<'a> {
        Reader { octets, at: 0 }
    }

    fn error(&self, why: Why) -> Malformed {
        Malformed { why, offset: self.at }
    }

    fn is_at_end(&self) -> bool {
        self.at == self.octets.len()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.octets[self.at..].get(..n).ok_or(self.error(Why::Cut))?;
        self.at += n;
        Ok(taken)
    }

    fn octet(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// Behind an octet with its length.
    fn name(&mut self) -> Result<&'a str, Malformed> {
        let wrong = self.error(Why::Name);
        let length = self.octet()?.into();
        let name = str::from_utf8(self.take(length)?).map_err(|_| wrong)?;
        if name.is_empty() { Err(wrong) } else { Ok(name) }
    }

    /// Behind two octets with its length.
    fn value(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.take(2)?;
        self.take(u16::from_be_bytes([length[0], length[1]]).into())
    }

    fn rest(&mut self) -> &'a [u8] {
        let rest = &self.octets[self.at..];
        self.at = self.octets.len();
        rest
    }
}

#[cfg(test)]
mod tests;
