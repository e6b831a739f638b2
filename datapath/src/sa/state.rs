//! What a worker knows of one SA: what its packets need, and what others have not been told of yet.

use crate::{
    drop::DropReason,
    esp::OuterHeader,
    general::Association,
    nexthop::Via,
    replay::{ReplayWindow, Ring},
    wire::Addr,
};
use portcullis_sadb::{Direction, Generation, Lifetime, Runtime, Sa, SaCounters, SlotIndex};

/// Sequence numbers reserved at a time in the runtime region, before any of them is used.
pub const RESERVED_BLOCK: u64 = 4096;

/// A restarted datapath takes numbers up to the next multiple of this as seen, of an SA whose top was not told.
pub(super) const SEEN_AHEAD: u64 = 16;

/// Packets and octets that the runtime region does not know of yet.
///
/// It lies two octets behind a multiple of four: the compiler reads 16 bits that begin at one as 32, and the CPU then waits
/// until those that the packet before this one has written are in its cache.
#[derive(Clone, Copy, Default)]
#[repr(C, packed(2))]
pub(super) struct Untold {
    pub(super) packets: u16,
    pub(super) octets: u32,
}

impl Untold {
    #[inline(always)]
    pub(super) fn count(&mut self, packets: u16, octets: usize) {
        self.packets += packets;
        self.octets += octets as u32;
    }

    /// Takes back a packet. False if it is not among these.
    pub(super) fn take_back(&mut self, octets: usize) -> bool {
        let left = (self.packets.checked_sub(1), self.octets.checked_sub(octets as u32));
        if let (Some(packets), Some(octets)) = left {
            *self = Untold { packets, octets };
        }
        matches!(left, (Some(_), Some(_)))
    }

    /// Whether to tell it now, while there is room for what else the turn brings.
    #[inline]
    pub(super) fn is_much(self) -> bool {
        self.octets >= 1 << 31 || self.packets >= 1 << 15
    }

    pub(super) fn counters(self) -> SaCounters {
        SaCounters { packets: self.packets as u64, bytes: self.octets as u64, ..SaCounters::default() }
    }
}

/// What each packet that comes in reads and changes of its SA, but for its key: one cache line.
#[repr(C, align(64))]
pub struct InboundSa {
    /// Which sequence numbers were received, as far as packets in order need it.
    pub(super) window: ReplayWindow,
    pub(super) dst: [u64; 2],
    /// The version of the SAD in which the slot was last looked at, without its upper half: long before the lower one
    /// comes round, [`SaTable::sweep`](super::SaTable::sweep) has let go of what is gone.
    pub(super) sad_version: u32,
    pub(super) slot: SlotIndex,
    pub(super) spi: u32,
    /// The policy that it serves.
    pub reqid: u32,
    pub(super) way: u8,
    /// Whether it is in the queue of those with something to tell.
    pub(super) waits: bool,
    pub(super) untold: Untold,
}

const _: () = assert!(size_of::<Option<InboundSa>>() == 64);

/// How packets come, but for their destination: in which version of IP, and whether in UDP.
#[inline]
fn way(dst: &Addr, udp: bool) -> u8 {
    u8::from(dst.v4) | u8::from(udp) << 1
}

impl InboundSa {
    pub(super) fn new(slot: SlotIndex, sa: &Sa, window: ReplayWindow) -> InboundSa {
        let dst = Addr::from(sa.dst);
        InboundSa {
            window,
            dst: [dst.bits as u64, (dst.bits >> 64) as u64],
            sad_version: 0,
            slot,
            spi: sa.spi.0,
            reqid: sa.reqid,
            untold: Untold::default(),
            way: way(&dst, sa.udp.is_some()),
            waits: false,
        }
    }

    /// Takes a number for what the wire carries of it, if it may be new (RFC 4303 §3.4.3). Asks memory for what has to be
    /// told if so.
    ///
    /// # Errors
    /// As [`ReplayWindow::check`].
    #[inline(always)]
    pub fn check(&self, seq_lo: u32, ring: &Ring, runtime: &Runtime) -> Result<u64, DropReason> {
        let seq = self.window.infer(seq_lo);
        self.window.check(seq, ring)?;
        if !self.is_told(seq) {
            runtime.prefetch_sa(self.slot);
        }
        Ok(seq)
    }

    /// Whether a restarted datapath would take this number as seen, and the SA waits to tell the rest.
    #[inline(always)]
    pub(super) fn is_told(&self, seq: u64) -> bool {
        self.waits && seq <= self.window.top() | (SEEN_AHEAD - 1)
    }

    /// Whether a packet came the way that this SA was made for. Its source is not looked at: a peer behind a NAT may
    /// move, and the ICV tells who it is ([`SaTable::follow`](super::SaTable::follow)).
    #[inline(always)]
    pub fn is_way_of(&self, dst: Addr, udp: bool) -> bool {
        self.dst == [dst.bits as u64, (dst.bits >> 64) as u64] && self.way == way(&dst, udp)
    }
}

/// Whether the peer of an inbound SA is followed to where its packets come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Following {
    /// It is where it is said to be.
    Not,
    /// It is.
    Yes,
    /// It is, and iked is told that it has moved, and has not said where it is since.
    Told,
}

impl Following {
    fn of(sa: &Sa) -> Following {
        let follows = sa.direction == Direction::Inbound && sa.udp.is_some_and(|udp| udp.follow_peer);
        if follows { Following::Yes } else { Following::Not }
    }
}

/// What one worker needs of one SA besides: two cache lines.
#[repr(C, align(64))]
pub struct SaState {
    /// Which SA of its slot it is.
    pub generation: Generation,
    /// The version of the SAD in which the slot was last looked at.
    pub(super) sad_version: u64,
    /// The last outbound sequence number that was assigned, and the last that is reserved.
    pub(super) assigned_seq: u64,
    pub(super) reserved_seq: u64,
    /// Where its packets go.
    pub via: Via,
    /// Where the SA is in the SADB.
    pub slot: SlotIndex,
    /// The SPI.
    pub spi: u32,
    /// The largest outer packet, or 0 where only the interface limits it.
    pub mtu: u16,
    /// Of outbound packets.
    pub(super) untold: Untold,
    /// Which way.
    pub direction: Direction,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// It has a lifetime, by which numbers are reserved.
    pub(super) is_limited: bool,
    /// It goes the plain way, or did before it came to its end.
    pub(super) is_plain: bool,
    /// It is over a hard limit.
    pub(super) has_ended: bool,
    /// Whether the peer is followed, if inbound.
    pub(super) following: Following,
    /// What goes in front of each packet, if outbound; else what is in front of the peer's.
    pub outer: OuterHeader,
}

const _: () = assert!(std::mem::offset_of!(SaState, outer) == 64 && size_of::<Option<SaState>>() == 128);
const _: () = assert!(std::mem::offset_of!(SaState, untold) % 4 == 2);
const _: () = assert!(std::mem::offset_of!(InboundSa, untold) % 4 == 2);

impl SaState {
    /// Takes up an SA that this worker meets for the first time where a predecessor left off.
    pub(super) fn load(slot: SlotIndex, generation: Generation, sa: &Sa, runtime: &Runtime) -> SaState {
        let line = runtime.sa(slot);
        line.adopt(generation);
        SaState {
            generation,
            sad_version: 0,
            // None of the block that was begun is used again.
            assigned_seq: line.reserved_seq(),
            reserved_seq: line.reserved_seq(),
            untold: Untold::default(),
            via: Via::NONE,
            slot,
            spi: sa.spi.0,
            mtu: sa.mtu,
            direction: sa.direction,
            esn: sa.esn,
            is_limited: sa.handling.lifetime != Lifetime::default(),
            is_plain: !Association::is_for(sa),
            has_ended: false,
            following: Following::of(sa),
            outer: OuterHeader::new(sa).numbered_after((sa.spi.0.wrapping_mul(0x9e37_79b9) >> 16) as u16),
        }
    }

    /// Whether there is a next sequence number. If not, they are used up (RFC 4303 §3.3.3), or it is for
    /// [`SaTable::reserve`](super::SaTable::reserve) to say.
    #[inline(always)]
    pub fn has_seq(&mut self, runtime: &Runtime) -> bool {
        self.assigned_seq != self.reserved_seq || !self.is_limited && self.reserve(RESERVED_BLOCK, runtime)
    }

    /// Whether its numbers may be used up while it lives: those of 64 bits are not.
    pub(super) fn may_run_out(&self) -> bool {
        self.direction == Direction::Outbound && !self.esn
    }

    /// How many of the reserved numbers are left, if it has a lifetime by which more are reserved.
    #[inline]
    pub(super) fn limited_left(&self) -> Option<u64> {
        self.is_limited.then(|| self.reserved_seq - self.assigned_seq)
    }

    /// Assigns the next sequence number: there is one.
    #[inline(always)]
    pub fn next_seq(&mut self) -> u64 {
        debug_assert!(self.assigned_seq < self.reserved_seq, "asked before");
        self.assigned_seq += 1;
        self.assigned_seq
    }

    /// The sequence number of the last packet, or the last that a predecessor may have used.
    pub fn assigned_seq(&self) -> u64 {
        self.assigned_seq
    }

    /// Counts packets that were sealed, of a batch. True if [`SaTable::note`](super::SaTable::note) is to be called in this turn.
    #[inline(always)]
    #[must_use = "the SA is not told otherwise"]
    pub fn count(&mut self, packets: u16, octets: usize) -> bool {
        self.untold.count(packets, octets);
        self.untold.packets == packets || self.untold.is_much()
    }

    /// Reserves so many numbers, or as many as there are. False if there are none.
    #[cold]
    pub(super) fn reserve(&mut self, numbers: u64, runtime: &Runtime) -> bool {
        let last = if self.esn { u64::MAX } else { u32::MAX as u64 };
        let left = last.saturating_sub(self.reserved_seq);
        if left > 0 {
            self.reserved_seq += left.min(numbers);
            runtime.sa(self.slot).reserve(self.reserved_seq);
        }
        left > 0
    }
}
