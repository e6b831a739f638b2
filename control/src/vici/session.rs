//! A client of ours: octets in, requests out; answers and events in, octets out.
//!
//! ```text
//! read at most wanted() octets -> handle_octets -> request(), once it is whole -> respond or respond_unknown
//!                                                  event, whenever something happens
//! outbound() -> write -> handle_sent
//! ```
//!
//! A client has one request at a time: while one waits for its answer, no octets are wanted, and what the client sends
//! stays in its socket. What events it hears of is kept here. A request may have secrets and is wiped.

use super::{
    MAX_PACKET, Malformed, Why,
    message::{self, Message},
    packet::Packet,
};
use crate::swanctl::tree::Branch;
use zeroize::Zeroizing;

/// Octets of a packet's length.
const LENGTH: usize = 4;

/// A client.
pub struct Session {
    /// Events that there are.
    events: &'static [&'static str],
    /// Those that it hears of.
    heard: Vec<&'static str>,
    inbound: Inbound,
    outbound: Vec<u8>,
    /// How much of `outbound` is sent.
    sent: usize,
}

/// What a client sends.
enum Inbound {
    /// The length of a packet, as far as it has come.
    Length(Vec<u8>),
    /// A packet, as far as it has come. It has its whole room from the start: one that grows leaves copies behind.
    Packet(Zeroizing<Vec<u8>>, usize),
    /// A request that is not answered.
    Request(Zeroizing<Vec<u8>>),
}

/// What a client asks for.
pub struct Request<'a> {
    /// The command.
    pub name: &'a str,
    message: &'a [u8],
}

impl<'a> Request<'a> {
    /// What it says.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong at which octet.
    pub fn message(&self) -> Result<Branch<'a>, Malformed> {
        message::parse(self.message)
    }
}

impl Session {
    /// A client that may hear of these events.
    pub fn new(events: &'static [&'static str]) -> Session {
        Session { events, heard: vec![], inbound: Inbound::Length(vec![]), outbound: vec![], sent: 0 }
    }

    /// How many octets it takes now; none while a request waits for its answer.
    pub fn wanted(&self) -> usize {
        match &self.inbound {
            Inbound::Length(octets) => LENGTH - octets.len(),
            Inbound::Packet(octets, length) => length - octets.len(),
            Inbound::Request(_) => 0,
        }
    }

    /// Takes what the client has sent, at most as much as is wanted.
    ///
    /// # Errors
    /// [`Malformed`]: nothing can follow, and the client is to be left.
    pub fn handle_octets(&mut self, octets: &[u8]) -> Result<(), Malformed> {
        if octets.len() > self.wanted() {
            return Err(Malformed { why: Why::Unwanted, offset: 0 });
        }
        match &mut self.inbound {
            Inbound::Length(length) => length.extend(octets),
            Inbound::Packet(packet, _) => packet.extend(octets),
            Inbound::Request(_) => {}
        }
        if self.wanted() > 0 {
            return Ok(());
        }
        match std::mem::replace(&mut self.inbound, Inbound::Length(vec![])) {
            Inbound::Length(octets) => {
                let length = octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet));
                match length {
                    0 => return Err(Malformed { why: Why::Cut, offset: 0 }),
                    length if length > MAX_PACKET => {
                        return Err(Malformed { why: Why::TooLong(length), offset: 0 });
                    }
                    length => {
                        let packet = Zeroizing::new(Vec::with_capacity(length));
                        self.inbound = Inbound::Packet(packet, length);
                    }
                }
            }
            Inbound::Packet(packet, _) => self.handle_packet(packet)?,
            request => self.inbound = request,
        }
        Ok(())
    }

    fn handle_packet(&mut self, octets: Zeroizing<Vec<u8>>) -> Result<(), Malformed> {
        match Packet::parse(&octets)? {
            Packet::Request { .. } => self.inbound = Inbound::Request(octets),
            Packet::Register(name) => {
                let event = self.events.iter().copied().find(|event| *event == name);
                let is_heard = event.is_some_and(|event| self.heard.contains(&event));
                self.heard.extend(event.filter(|_| !is_heard));
                self.emit(if event.is_some() { Packet::Confirm } else { Packet::UnknownEvent });
            }
            Packet::Unregister(name) => {
                let before = self.heard.len();
                self.heard.retain(|event| *event != name);
                let was_heard = self.heard.len() < before;
                self.emit(if was_heard { Packet::Confirm } else { Packet::UnknownEvent });
            }
            _ => return Err(Malformed { why: Why::PacketType(octets[0]), offset: 0 }),
        }
        Ok(())
    }

    /// The request that waits for its answer.
    pub fn request(&self) -> Option<Request<'_>> {
        let Inbound::Request(octets) = &self.inbound else { return None };
        match Packet::parse(octets) {
            Ok(Packet::Request { name, message }) => Some(Request { name, message }),
            _ => None,
        }
    }

    /// Answers it.
    pub fn respond(&mut self, message: &Message) {
        self.answer(Packet::Response(message.octets()));
    }

    /// Answers that there is no such command.
    pub fn respond_unknown(&mut self) {
        self.answer(Packet::UnknownRequest);
    }

    /// Whether it hears of an event: if not, there is no need to write one.
    pub fn hears_of(&self, event: &str) -> bool {
        self.heard.contains(&event)
    }

    /// Tells of an event, if it hears of that.
    pub fn event(&mut self, name: &str, message: &Message) {
        if self.hears_of(name) {
            self.emit(Packet::Event { name, message: message.octets() });
        }
    }

    /// What is to be sent. If that becomes much, the client does not read, and had better hear of no more events.
    pub fn outbound(&self) -> &[u8] {
        &self.outbound[self.sent..]
    }

    /// So many of the first octets to be sent are.
    pub fn handle_sent(&mut self, octets: usize) {
        self.sent = (self.sent + octets).min(self.outbound.len());
        // What is sent goes when it is half of all, so that no octet is moved twice for long.
        if self.sent * 2 >= self.outbound.len() {
            self.outbound.drain(..self.sent);
            self.sent = 0;
        }
    }

    fn answer(&mut self, packet: Packet<'_>) {
        debug_assert!(self.request().is_some(), "nothing was asked");
        if matches!(self.inbound, Inbound::Request(_)) {
            self.inbound = Inbound::Length(vec![]);
            self.emit(packet);
        }
    }

    /// Messages have room in a packet, and names of events are short.
    fn emit(&mut self, packet: Packet<'_>) {
        let emitted = packet.emit(&mut self.outbound);
        debug_assert_eq!(emitted, Ok(()));
    }
}
