//! The general path: packets that the plain one has no code for, one at a time, each in one piece.
//!
//! The plain path takes AES-GCM tunnels, and packets that are whole and fit. What is not that comes here: SAs of other
//! modes, protocols, algorithms and [handling](portcullis_sadb::Handling); fragments; what is too long or has come too
//! far, for which there is an ICMP message to be sent. Both paths share SAs, sequence numbers, windows and counters, and
//! what is in use by none of them costs the plain path nothing.
//!
//! A packet is copied into a [`Packet`](packet::Packet), goes all its way there, and is copied out again, in as many
//! frames as it takes: a copy is a small part of what other ciphers cost.

pub mod aggfrag;
mod ah;
mod association;
mod esp;
pub mod fragment;
mod gre;
mod header;
pub(crate) mod headers;
pub mod icmp;
mod inbound;
pub mod mss;
mod outbound;
mod packet;
#[cfg(test)]
mod packets;
pub mod pmtu;
pub mod reassembly;

use crate::{
    batch::BATCH,
    drop::DropReason,
    fib::Fib,
    frame::Frame,
    policy::FlowCache,
    pool::FrameCache,
    sa::SaTable,
    wire::{Addr, ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip},
};
use arrayvec::ArrayVec;
pub use association::Association;
use inbound::Opened;
use packet::Packet;
use portcullis_sadb::{Reader, Runtime, WorkerRuntime};
use std::collections::VecDeque;

/// Why a packet is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It is as received, from its IP header, and a fragment or whatever else no hop wants.
    Received,
    /// As received, for an inbound SA.
    Inbound,
    /// As received, in clear, for the outbound policies.
    Outbound,
    /// Another worker has sealed it, for an SA of this one around it.
    Nested,
    /// An outbound SA's, sealed on the plain path, and too long for its next hop.
    Sealed,
    /// On its way to its destination, and refused.
    Refused(DropReason),
}

/// Where a packet goes from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// By the route to this address.
    Route(Addr),
    /// In again, as if it had been received.
    Receive,
    /// To another worker.
    Worker {
        /// Which.
        owner: u32,
        /// It is in an SA already.
        is_sealed: bool,
    },
}

/// The EtherType of what is handed to another worker as [`Why::Nested`]: one for local experiments (IEEE 802), which means
/// something between workers only.
pub const NESTED: u16 = 0x88b5;

/// Frames that leave in a turn, at most.
const OUTGOING: usize = 1024;

/// Packets that are cut at a time: one, and one in which its pieces are nested.
const SPARE: usize = 2;

/// What else a packet meets on its way.
pub struct Env<'a> {
    /// The worker's SAs.
    pub sas: &'a mut SaTable,
    /// Its decisions.
    pub flows: &'a mut FlowCache,
    /// The SADB.
    pub reader: &'a Reader,
    /// What others are told.
    pub runtime: &'a Runtime,
    /// Its line to iked.
    pub iked: &'a WorkerRuntime,
    /// Free frames.
    pub cache: &'a mut FrameCache,
    /// Routes.
    pub fib: &'a Fib,
    /// Now.
    pub now_ms: u64,
}

/// A worker's general path.
pub struct General {
    waiting: ArrayVec<(Frame, Why, u32), { 2 * BATCH }>,
    outgoing: VecDeque<(Frame, To)>,
    packet: Packet,
    /// For what is cut, while its pieces go on.
    spare: Vec<Packet>,
    /// The identification of what was cut last.
    id: u32,
    layers: usize,
}

impl Default for General {
    fn default() -> General {
        General {
            waiting: ArrayVec::new(),
            outgoing: VecDeque::with_capacity(OUTGOING),
            packet: Packet::default(),
            spare: std::iter::repeat_with(Packet::default).take(SPARE).collect(),
            id: 0,
            layers: 0,
        }
    }
}

impl General {
    /// Takes a frame in. If it is [`Why::Sealed`], `sa` is the worker's index of its SA.
    ///
    /// # Errors
    /// The frame, if there are too many.
    pub fn take(&mut self, frame: Frame, why: Why, sa: u32) -> Result<(), Frame> {
        self.waiting.try_push((frame, why, sa)).map_err(|full| full.element().0)
    }

    /// Whether there is anything to do.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.outgoing.is_empty()
    }

    /// Takes what is waiting through. What is dropped is given to `drop`.
    pub fn work(&mut self, env: &mut Env<'_>, mut drop: impl FnMut(Frame, DropReason, &mut FrameCache)) {
        for (frame, why, sa) in std::mem::take(&mut self.waiting) {
            match self.pass(env, &frame, why, sa) {
                Ok(()) => env.cache.give(frame),
                Err(reason) => drop(frame, reason, env.cache),
            }
        }
    }

    /// The next frame that goes from here, and where to.
    pub fn next(&mut self) -> Option<(Frame, To)> {
        self.outgoing.pop_front()
    }

    fn pass(&mut self, env: &mut Env<'_>, frame: &Frame, why: Why, sa: u32) -> Result<(), DropReason> {
        self.packet.take(frame);
        let ip = self.parse()?;
        match why {
            Why::Received => Err(DropReason::Fragment),
            Why::Inbound => match self.inbound(env)? {
                Opened::Again => self.put(env, To::Receive),
                Opened::Packet(ip) => self.forward(env, &ip),
            },
            Why::Outbound => self.outbound(env, ip, false),
            Why::Nested => self.outbound(env, ip, true),
            Why::Refused(DropReason::TooBig) => self.route(env, ip.dst()),
            Why::Refused(reason) => Err(reason),
            Why::Sealed => {
                let ip = self.unseal(env, sa, &ip)?;
                self.protect(env, sa, &ip)
            }
        }
    }

    /// The inner packet of one that was sealed on the plain path. Its number is used up.
    fn unseal(&mut self, env: &mut Env<'_>, i: u32, ip: &Ip) -> Result<Ip, DropReason> {
        let with = env.sas.associate(i, env.reader).ok_or(DropReason::NoSa)?;
        let at = ip.payload() + if with.sa.udp.is_some() { crate::wire::UDP } else { 0 };
        let iv = self.packet.bytes().get(at + crate::wire::ESP..).and_then(|b| b.first_chunk());
        // On the plain path, the IV is the number.
        let seq = u64::from_be_bytes(*iv.ok_or(DropReason::TooBig)?);
        let proof = esp::open(&mut self.packet, at, with, seq).ok_or(DropReason::TooBig)?;
        esp::unwrap(&mut self.packet, at, with, proof)?;
        self.packet.pull(at);
        self.parse()
    }

    /// The header of the packet, which ends where that says.
    fn parse(&mut self) -> Result<Ip, DropReason> {
        let ip = Ip::parse(self.packet.bytes())?;
        self.packet.truncate(ip.len());
        Ok(ip)
    }

    /// Has the packet leave.
    fn put(&mut self, env: &mut Env<'_>, to: To) -> Result<(), DropReason> {
        if self.outgoing.len() == OUTGOING {
            return Err(DropReason::TxFull);
        }
        let v4 = self.packet.bytes().first().is_some_and(|b| b >> 4 == 4);
        let ethertype = match to {
            To::Worker { is_sealed: true, .. } => Some(NESTED),
            To::Route(_) => None,
            _ => Some(if v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }),
        };
        if let Some(ethertype) = ethertype {
            self.packet.insert(0, ETHERNET)?[ETHERNET - 2..].copy_from_slice(&ethertype.to_be_bytes());
        }
        let frame = self.packet.to_frame(env.cache)?;
        self.outgoing.push_back((frame, to));
        Ok(())
    }

    /// Gives all frames to `drop`, at the worker's end.
    pub fn close(&mut self, mut drop: impl FnMut(Frame)) {
        self.waiting.drain(..).for_each(|(frame, ..)| drop(frame));
        self.outgoing.drain(..).for_each(|(frame, _)| drop(frame));
    }
}
