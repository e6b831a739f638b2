//! The general path: packets that the plain one has no code for, one at a time, each in one piece.
//!
//! The plain path takes AES-GCM tunnels, and packets that are whole and fit. What is not that comes here: SAs of other
//! modes, protocols, algorithms and [handling](portcullis_sadb::Handling); fragments; what is too long or has come too
//! far, for which there is an ICMP message to be sent. Both paths share SAs, sequence numbers, windows and counters, and
//! what is in use by none of them costs the plain path nothing.
//!
//! A packet is copied into a `Packet`, goes all its way there, and is copied out again, in as many
//! frames as it takes: a copy is a small part of what other ciphers cost.

mod acquire;
pub mod aggfrag;
mod ah;
mod association;
mod esp;
pub mod fragment;
mod gre;
mod header;
pub(crate) mod headers;
pub mod icmp;
mod ids;
mod inbound;
pub mod mss;
mod outbound;
mod packet;
#[cfg(test)]
mod packets;
pub mod pmtu;
pub mod reassembly;
mod tfc;
mod told;

use crate::{
    batch::BATCH,
    drop::DropReason,
    fib::{Fib, Resolution},
    frame::Frame,
    policy::FlowCache,
    pool::FrameCache,
    sa::SaTable,
    wire::{self, Addr, ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, Place, protocol},
};
use acquire::Acquires;
use arrayvec::ArrayVec;
pub use association::Association;
use icmp::{Problem, RateLimit};
use ids::Ids;
use inbound::Opened;
use packet::Packet;
use portcullis_sadb::{PolicyIndex, Prefix, Reader, Runtime, WorkerRuntime};
use reassembly::{Limits, Outcome, Reassembly};
use std::collections::VecDeque;
pub(crate) use tfc::Tfc;
use told::Prohibited;

/// Why a packet is here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It is as received, from its IP header: a fragment, or longer than any other hop wants.
    Received,
    /// As received, for an inbound SA.
    Inbound,
    /// As received, in clear, for the outbound policies.
    Outbound,
    /// Another worker has sealed it, for an SA of this one around it.
    Nested,
    /// An outbound SA's, sealed on the plain path, and too long for its next hop.
    Sealed,
    /// As received: a router says that a packet was too big for it, which may be one of ours.
    TooBig,
    /// As it came, or on its way to its destination, and refused.
    Refused(DropReason),
    /// The same, of what came out of an SA.
    RefusedInside(DropReason),
    /// It came out of an SA, and its policy lets it in; the outbound policies want it protected again.
    Onward,
}

impl Why {
    /// Why it is dropped where it cannot be here.
    pub fn dropped(self) -> DropReason {
        match self {
            Why::Refused(reason) | Why::RefusedInside(reason) => reason,
            Why::Sealed => DropReason::TooBig,
            _ => DropReason::NoFrame,
        }
    }
}

/// Where a packet comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum From {
    /// In clear.
    Clear,
    /// Out of an SA.
    Opened,
    /// Sealed by us.
    Sealed,
}

/// Where a packet goes from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// By the route to this address.
    Route(Addr),
    /// To the kernel, for which it is: from this address.
    Kernel(Addr),
    /// In again, as if it had been received.
    Receive,
    /// To another worker.
    Worker {
        /// Which.
        owner: u32,
        /// It is in an SA already.
        is_sealed: bool,
    },
    /// The same, for what came out of an SA of ours.
    Onward {
        /// Which.
        owner: u32,
    },
}

/// The EtherType of what is handed to another worker as [`Why::Nested`]: one for local experiments (IEEE 802), which means
/// something between workers only.
pub const NESTED: u16 = 0x88b5;

/// The same of [`Why::Onward`].
pub const ONWARD: u16 = 0x88b6;

/// Frames that leave in a turn, at most.
const OUTGOING: usize = 1024;

/// Packets that are cut or opened at a time: one of several packets, one of these that is cut, and one in which its
/// pieces are nested.
const SPARE: usize = 3;

/// How often it is looked for what does not come any more.
const LOOK_MS: u64 = 100;

/// Datagrams whose sources are told in a look, at most, that they did not come whole.
const LATE: usize = 16;

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
    /// Now, of a clock that only goes forward.
    pub now_ms: u64,
    /// Now, by the machine's boot clock.
    pub now_secs: u32,
}

/// A worker's general path.
pub struct General {
    waiting: ArrayVec<(Frame, Why, u32), { 2 * BATCH }>,
    outgoing: VecDeque<(Frame, To)>,
    packet: Packet,
    /// For what is cut or has several inside, while these go on.
    spare: Vec<Packet>,
    ids: Ids,
    layers: usize,
    from: From,
    /// The packet came in fragments.
    was_cut: bool,
    /// Errors that may be sent.
    errors: RateLimit,
    /// What was said of packets that were too big, of SAs that may be other workers'.
    asks_others: RateLimit,
    /// Who is told of packets that policies forbid.
    tells_prohibited: Prohibited,
    /// What iked was asked for.
    acquires: Acquires,
    reassembly: Reassembly,
    /// What came too late, for a moment.
    late: Vec<(From, Addr, Vec<u8>)>,
    /// When it is looked for what does not come any more.
    due_ms: u64,
    /// Outbound SAs whose inner packets leave at the end of this turn.
    unsent: Vec<u32>,
    /// When an SA next has something to send or to give up by itself.
    next_ms: u64,
    /// Packets that were dropped apart from the frames that brought them.
    drops: [u64; DropReason::ALL.len()],
}

impl General {
    /// Of a worker of so many, and an SPD of at most so many policies.
    pub fn new(who: (u32, u32), policies: u32) -> General {
        General {
            waiting: ArrayVec::new(),
            outgoing: VecDeque::with_capacity(OUTGOING),
            packet: Packet::default(),
            spare: std::iter::repeat_with(Packet::default).take(SPARE).collect(),
            ids: Ids::new(who),
            layers: 0,
            from: From::Clear,
            was_cut: false,
            errors: RateLimit::new(told::RATE.0, told::RATE.1),
            asks_others: RateLimit::new(pmtu::OTHERS.0, pmtu::OTHERS.1),
            tells_prohibited: Prohibited::default(),
            acquires: Acquires::new(policies),
            reassembly: Reassembly::new(Limits::default()),
            late: vec![(From::Clear, Addr { bits: 0, v4: true }, Vec::with_capacity(icmp::MOST_V6)); LATE],
            due_ms: 0,
            unsent: Vec::with_capacity(2 * BATCH),
            next_ms: u64::MAX,
            drops: [0; DropReason::ALL.len()],
        }
    }

    /// Takes a frame in. If it is [`Why::Sealed`], `sa` is the worker's index of its SA.
    ///
    /// # Errors
    /// The frame, if there are too many.
    pub fn take(&mut self, frame: Frame, why: Why, sa: u32) -> Result<(), Frame> {
        self.waiting.try_push((frame, why, sa)).map_err(|full| full.element().0)
    }

    /// Identifications of what is cut begin here: with a number that nobody can guess (RFC 7739 §5).
    pub fn identify_from(&mut self, first: u32) {
        self.ids.last = first;
    }

    /// From now on, hosts in these networks are told of packets that policies forbid (RFC 4301 §5.1.1).
    pub fn tell_prohibited(&mut self, hosts: &[Prefix]) {
        self.tells_prohibited = Prohibited::to(hosts);
    }

    /// Whether somebody may be told of a packet that was refused for this reason, so that it is to be taken in. Nothing was
    /// done to it before: no hop says these of what it has changed.
    pub fn minds(&mut self, reason: DropReason, source: Addr, now_ms: u64) -> bool {
        match reason {
            DropReason::TtlExceeded => true,
            DropReason::PolicyDiscard | DropReason::NoPolicy => self.tells_prohibited.minds(source, now_ms),
            _ => false,
        }
    }

    /// Whether iked may be asked for an SA of a policy that has none, for a packet that is to be taken in then.
    pub fn asks(&mut self, policy: PolicyIndex, reader: &Reader, now_ms: u64) -> bool {
        self.acquires.minds(policy, reader, now_ms)
    }

    /// Whether there is anything to do.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.outgoing.is_empty()
    }

    /// Takes what is waiting through. What is dropped is given to `drop`: a frame, or so many of before.
    pub fn work(
        &mut self,
        env: &mut Env<'_>,
        mut drop: impl FnMut(Option<Frame>, u64, DropReason, &mut FrameCache),
    ) {
        for (frame, why, sa) in std::mem::take(&mut self.waiting) {
            match self.pass(env, &frame, why, sa) {
                Ok(()) => env.cache.give(frame),
                Err(reason) => drop(Some(frame), 1, reason, env.cache),
            }
        }
        self.acquires.settle(env.iked);
        self.tick(env);
        self.send_rest(env);
        self.reassembly.drain_drops(|reason, n| drop(None, n, reason, env.cache));
        for (reason, n) in DropReason::ALL.iter().zip(&mut self.drops).filter(|(_, n)| **n > 0) {
            drop(None, std::mem::take(n), *reason, env.cache);
        }
    }

    /// Looks at the SAs that have something to send or to give up as time passes.
    fn tick(&mut self, env: &mut Env<'_>) {
        for i in env.sas.idle_mappings(env.reader, env.now_ms) {
            self.send_keepalive(env, i);
        }
        let has_news = env.sas.take_news();
        if env.now_ms < self.next_ms && !has_news {
            return;
        }
        env.sas.seek(env.reader, env.runtime);
        self.next_ms = u64::MAX;
        let mut n = 0;
        while let Some(i) = env.sas.timed().get(n).copied() {
            n += 1;
            if env.sas.is_there(i, env.reader) {
                let next_ms = self.send_due(env, i).min(self.give_up(env, i));
                self.next_ms = self.next_ms.min(next_ms);
            }
        }
    }

    fn count(&mut self, reason: DropReason, n: u64) {
        self.drops[reason as usize] += n;
    }

    /// Whether it is to be looked at this without a frame.
    #[inline]
    pub fn is_due(&self, now_ms: u64, sas: &SaTable) -> bool {
        self.is_late(now_ms) || now_ms >= self.next_ms(sas) || sas.has_news()
    }

    /// Whether [`General::look`] has something to do.
    pub fn is_late(&self, now_ms: u64) -> bool {
        now_ms >= self.due_ms && self.reassembly.datagrams() > 0
    }

    /// When an SA next has something to send or to give up by itself.
    #[inline]
    pub fn next_ms(&self, sas: &SaTable) -> u64 {
        self.next_ms.min(sas.mappings_due_ms())
    }

    /// Lets go of what does not come any more; to be called before [`General::work`].
    pub fn look(&mut self, env: &mut Env<'_>) {
        self.due_ms = env.now_ms + LOOK_MS;
        let (mut late, mut lates) = (std::mem::take(&mut self.late), 0);
        self.reassembly.expire(env.now_ms, |expired| {
            if let (Some(first), Some((from, source, about))) = (expired.first, late.get_mut(lates)) {
                (*from, *source) = (expired.from, expired.src);
                about.clear();
                about.extend(first.iter().copied().take(icmp::MOST_V6));
                lates += 1;
            }
        });
        // RFC 792, RFC 8200 §4.5: the source is told, if the first fragment is there.
        for (from, source, first) in &late[..lates] {
            self.from = *from;
            self.tell_about(env, Problem::ReassemblyTime, *source, Some(first));
        }
        self.late = late;
    }

    /// The next frame that goes from here, and where to.
    pub fn poll_outgoing(&mut self) -> Option<(Frame, To)> {
        self.outgoing.pop_front()
    }

    fn pass(&mut self, env: &mut Env<'_>, frame: &Frame, why: Why, sa: u32) -> Result<(), DropReason> {
        self.packet.take(frame);
        self.was_cut = false;
        self.from = match why {
            Why::Received | Why::Inbound | Why::Outbound | Why::TooBig | Why::Sealed | Why::Refused(_) => {
                From::Clear
            }
            Why::RefusedInside(_) | Why::Onward => From::Opened,
            Why::Nested => From::Sealed,
        };
        let ip = self.parse()?;
        match why {
            Why::Received => self.receive_any(env, &ip),
            Why::Inbound => self.receive(env),
            Why::Outbound | Why::Nested | Why::Onward => self.outbound(env, ip),
            Why::TooBig => self.learn_path(env, ip),
            Why::Refused(DropReason::TooBig) | Why::RefusedInside(DropReason::TooBig) => {
                self.route(env, ip.dst())
            }
            // Its policy is looked for again: it says what is to be told, and to whom.
            Why::Refused(DropReason::NoSa | DropReason::PolicyDiscard | DropReason::NoPolicy) => {
                self.outbound(env, ip)
            }
            Why::RefusedInside(DropReason::LocalDelivery) => {
                // It is not forwarded after all.
                wire::increment_ttl(self.packet.bytes_mut());
                self.deliver_locally(env, &ip)
            }
            Why::RefusedInside(DropReason::TtlExceeded) if env.is_own(ip.dst()) => {
                self.deliver_locally(env, &ip)
            }
            // What the kernel sends itself is not forwarded, so that its last hop is the peer (RFC 4301 §5.1.2.1).
            Why::Refused(DropReason::TtlExceeded) if env.is_own(ip.src()) => self.outbound(env, ip),
            Why::Refused(reason) | Why::RefusedInside(reason) => {
                if reason == DropReason::TtlExceeded {
                    self.tell(env, Problem::HopLimit, &ip);
                }
                Err(reason)
            }
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
        let ip = self.parse()?;
        // It was counted, and will be again if it leaves.
        env.sas.uncount(i, ip.len(), env.reader, env.runtime);
        Ok(ip)
    }

    /// The header of the packet, which ends where that says.
    fn parse(&mut self) -> Result<Ip, DropReason> {
        let ip = Ip::parse(self.packet.bytes())?;
        self.packet.truncate(ip.len());
        Ok(ip)
    }

    /// To where it is for; of a fragment, once its datagram is whole.
    fn receive_any(&mut self, env: &mut Env<'_>, ip: &Ip) -> Result<(), DropReason> {
        if ip.place == Place::Whole {
            let is_protected = inbound::header_of(self.packet.bytes(), ip, env.sas.udp_ports()).is_some();
            return if is_protected { self.receive(env) } else { self.outbound(env, *ip) };
        }
        let is_protected = matches!(ip.protocol(), protocol::ESP | protocol::AH);
        // ESP in UDP is for the gateway or a host behind it; what is in clear must show its ports if any policy looks at
        // these (RFC 4301 §7).
        let is_ours =
            is_protected || ip.protocol() == protocol::UDP && (env.is_own(ip.dst()) || env.is_to_be_esp(ip));
        if !is_ours && !env.flows.select_ports() {
            return self.outbound(env, *ip);
        }
        match self.put_together(env)? {
            Some(ip) => self.receive_any(env, &ip),
            None => Ok(()),
        }
    }

    /// Adds the packet, a fragment, to its datagram, which is the packet then if it is whole.
    fn put_together(&mut self, env: &Env<'_>) -> Result<Option<Ip>, DropReason> {
        let mut whole = self.spare.pop().ok_or(DropReason::Fragment)?;
        let mut outcome = Outcome::Held;
        whole.fill(|out| {
            outcome = self.reassembly.insert(self.from, env.now_ms, self.packet.bytes(), out);
            if let Outcome::Done(octets) = outcome { octets } else { 0 }
        });
        std::mem::swap(&mut self.packet, &mut whole);
        self.spare.push(whole);
        match outcome {
            Outcome::Held => Ok(None),
            Outcome::Refused(reason) => Err(reason),
            Outcome::Done(_) => {
                self.was_cut = true;
                self.parse().map(Some)
            }
        }
    }

    /// What is for an SA of ours.
    fn receive(&mut self, env: &mut Env<'_>) -> Result<(), DropReason> {
        match self.inbound(env)? {
            Opened::At(owner) => self.put(env, To::Worker { owner, is_sealed: false }),
            Opened::Packet(ip, is_host) => {
                // What was cut was outside: of what is inside only if it was opened in the place of the host behind us,
                // which would have put it together.
                self.was_cut = is_host;
                self.from = From::Opened;
                self.outbound(env, ip)
            }
            Opened::Gone => Ok(()),
        }
    }

    /// Has the kernel have the packet, which is for one of its addresses.
    ///
    /// # Errors
    /// Why not: [`DropReason::LocalDelivery`] if no port leads there.
    fn deliver_locally(&mut self, env: &mut Env<'_>, ip: &Ip) -> Result<(), DropReason> {
        match env.fib.to_kernel(ip.src().into()) {
            Some(Resolution::Send { mtu, .. }) => self.put_cut(env, To::Kernel(ip.src()), mtu as usize),
            _ => Err(DropReason::LocalDelivery),
        }
    }

    /// Has the packet leave.
    fn put(&mut self, env: &mut Env<'_>, to: To) -> Result<(), DropReason> {
        let frame = framed(self.packet.bytes(), to, env.cache)?;
        self.leave(env, frame, to)
    }

    /// Has a frame leave.
    fn leave(&mut self, env: &mut Env<'_>, frame: Frame, to: To) -> Result<(), DropReason> {
        if self.outgoing.len() == OUTGOING {
            env.cache.give(frame);
            return Err(DropReason::TxFull);
        }
        self.outgoing.push_back((frame, to));
        Ok(())
    }

    /// Gives all frames to `drop`, at the worker's end.
    pub fn close(&mut self, mut drop: impl FnMut(Frame)) {
        self.waiting.drain(..).for_each(|(frame, ..)| drop(frame));
        self.outgoing.drain(..).for_each(|(frame, _)| drop(frame));
    }
}

/// A packet as it is given to the next hop, which makes its Ethernet header, or to a worker, with one that says what it is.
fn framed(packet: &[u8], to: To, cache: &mut FrameCache) -> Result<Frame, DropReason> {
    let ethertype = match (to, packet.first().map(|b| b >> 4)) {
        (To::Route(_) | To::Kernel(_), _) => return packet::frame(&[packet], cache),
        (To::Worker { is_sealed: true, .. }, _) => NESTED,
        (To::Onward { .. }, _) => ONWARD,
        (_, Some(4)) => ETHERTYPE_IPV4,
        _ => ETHERTYPE_IPV6,
    };
    let mut header = [0; ETHERNET];
    header[ETHERNET - 2..].copy_from_slice(&ethertype.to_be_bytes());
    packet::frame(&[&header, packet], cache)
}
