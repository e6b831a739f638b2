//! Packets: a type, a name behind an octet with its length where there is one, and a message.

use super::{MAX_PACKET, Malformed, Reader, Why};

/// A packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks for something.
    Request {
        /// The command.
        name: &'a str,
        /// What it says.
        message: &'a [u8],
    },
    /// What comes of it.
    Response(&'a [u8]),
    /// There is no such command.
    UnknownRequest,
    /// A client wants to hear of an event.
    Register(&'a str),
    /// It does not any more.
    Unregister(&'a str),
    /// So be it.
    Confirm,
    /// There is no such event.
    UnknownEvent,
    /// Something has happened.
    Event {
        /// What.
        name: &'a str,
        /// More of it.
        message: &'a [u8],
    },
}

impl<'a> Packet<'a> {
    /// Reads a packet, without the length before it.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong at which octet. Messages are not looked into.
    pub fn parse(octets: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let mut reader = Reader::new(octets);
        let packet = match reader.octet()? {
            0 => Packet::Request { name: reader.name()?, message: reader.rest() },
            1 => Packet::Response(reader.rest()),
            2 => Packet::UnknownRequest,
            3 => Packet::Register(reader.name()?),
            4 => Packet::Unregister(reader.name()?),
            5 => Packet::Confirm,
            6 => Packet::UnknownEvent,
            7 => Packet::Event { name: reader.name()?, message: reader.rest() },
            other => return Err(Malformed { why: Why::PacketType(other), offset: 0 }),
        };
        if reader.is_at_end() { Ok(packet) } else { Err(reader.error(Why::Trailing)) }
    }

    /// Writes it behind what is there, with its length before it.
    ///
    /// # Errors
    /// [`Why::TooLong`], or [`Why::Name`] of a name that is empty or too long.
    pub fn emit(&self, into: &mut Vec<u8>) -> Result<(), Malformed> {
        let (code, name, message): (u8, Option<&str>, &[u8]) = match *self {
            Packet::Request { name, message } => (0, Some(name), message),
            Packet::Response(message) => (1, None, message),
            Packet::UnknownRequest => (2, None, &[]),
            Packet::Register(name) => (3, Some(name), &[]),
            Packet::Unregister(name) => (4, Some(name), &[]),
            Packet::Confirm => (5, None, &[]),
            Packet::UnknownEvent => (6, None, &[]),
            Packet::Event { name, message } => (7, Some(name), message),
        };
        let length = 1 + name.map_or(0, |name| 1 + name.len()) + message.len();
        if length > MAX_PACKET {
            return Err(Malformed { why: Why::TooLong(length), offset: 0 });
        }
        let name_length = match name.map_or(Ok(1), |name| u8::try_from(name.len())) {
            Ok(length) if length > 0 => length,
            _ => return Err(Malformed { why: Why::Name, offset: 1 }),
        };
        into.extend((length as u32).to_be_bytes());
        into.push(code);
        if let Some(name) = name {
            into.push(name_length);
            into.extend(name.as_bytes());
        }
        into.extend(message);
        Ok(())
    }
}

/// Messages may have secrets.
impl std::fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Packet::Request { name, message } => write!(f, "Request({name}, {} octets)", message.len()),
            Packet::Response(message) => write!(f, "Response({} octets)", message.len()),
            Packet::UnknownRequest => f.write_str("UnknownRequest"),
            Packet::Register(name) => write!(f, "Register({name})"),
            Packet::Unregister(name) => write!(f, "Unregister({name})"),
            Packet::Confirm => f.write_str("Confirm"),
            Packet::UnknownEvent => f.write_str("UnknownEvent"),
            Packet::Event { name, message } => write!(f, "Event({name}, {} octets)", message.len()),
        }
    }
}
