//! Which NAT mappings must be kept alive: those of SAs in UDP that have not sent anything for some time (RFC 3948 §4).
//!
//! No packet pays for it: whether an SA has sent anything is seen by its sequence number, when it is looked at. All are
//! looked at in turn, a few at a time: each within a second of the look before, so that a keepalive leaves within two of its
//! time.

use super::SaTable;
use arrayvec::ArrayVec;
use portcullis_sadb::{Direction, Generation, Reader, Sa, SlotIndex};

/// SAs that one look looks at.
pub const LOOKED_AT: usize = 256;

/// How long it takes to look at all, if a look every millisecond is enough for that.
const ROUND_MS: u64 = 500;

/// An SA with a mapping. Of longer numbers it has the lower halves: looks are so much nearer to each other.
struct Kept {
    slot: SlotIndex,
    generation: u32,
    /// Its last sequence number when it was last looked at, and since when it has been that one, or since when a keepalive
    /// has left.
    seq: u32,
    since_ms: u32,
    every_secs: u16,
    was_looked_at: bool,
}

impl Kept {
    /// Whether it is due for a keepalive, whose last number is this one now.
    fn is_due(&mut self, seq: u32, now_ms: u32) -> bool {
        if !self.was_looked_at || self.seq != seq {
            (self.was_looked_at, self.seq, self.since_ms) = (true, seq, now_ms);
        }
        let is_due = now_ms.wrapping_sub(self.since_ms) >= u32::from(self.every_secs) * 1000;
        if is_due {
            self.since_ms = now_ms;
        }
        is_due
    }
}

/// All of a worker.
pub(super) struct Keepalives {
    all: Vec<Kept>,
    at: usize,
    due_ms: u64,
}

impl Keepalives {
    /// Octets for each SA that there is room for.
    pub(super) const OCTETS: usize = size_of::<Kept>();

    pub(super) fn new(room: usize) -> Keepalives {
        Keepalives { all: Vec::with_capacity(room), at: 0, due_ms: 0 }
    }

    /// Whether an SA has a mapping to be kept alive.
    pub(super) fn is_for(sa: &Sa) -> bool {
        sa.direction == Direction::Outbound && sa.udp.is_some_and(|udp| udp.keepalive_secs > 0)
    }
}

impl SaTable {
    /// Has an SA's mapping kept alive from now on.
    pub(super) fn keep_alive(&mut self, slot: SlotIndex, generation: Generation, sa: &Sa) {
        if self.keepalives.all.len() == self.keepalives.all.capacity() {
            let mut all = std::mem::take(&mut self.keepalives.all);
            all.retain(|kept| self.state_of(kept).is_some());
            self.keepalives.all = all;
        }
        let every_secs = sa.udp.map_or(0, |udp| udp.keepalive_secs);
        let generation = generation.0 as u32;
        let kept = Kept { slot, generation, seq: 0, since_ms: 0, every_secs, was_looked_at: false };
        self.keepalives.all.push(kept);
        self.keepalives.due_ms = 0;
        self.has_news = true;
    }

    /// The state of an SA, if it still has one.
    fn state_of(&self, kept: &Kept) -> Option<u32> {
        let i = self.index(kept.slot)?;
        let state = self.states[i as usize].as_ref()?;
        (state.generation.0 as u32 == kept.generation).then_some(i)
    }

    /// When mappings are next to be looked at.
    #[inline]
    pub fn mappings_due_ms(&self) -> u64 {
        if self.keepalives.all.is_empty() { u64::MAX } else { self.keepalives.due_ms }
    }

    /// Looks at some of the mappings, if it is time to: those SAs, which are as ones that `find` returned this turn, are to
    /// send a keepalive now.
    pub fn idle_mappings(&mut self, reader: &Reader, now_ms: u64) -> ArrayVec<u32, LOOKED_AT> {
        let mut idle = ArrayVec::new();
        if now_ms < self.mappings_due_ms() {
            return idle;
        }
        let looks = LOOKED_AT.min(self.keepalives.all.len());
        for _ in 0..looks {
            let Some(kept) = self.keepalives.all.get(self.keepalives.at) else {
                self.keepalives.at = 0;
                break;
            };
            let Some(i) = self.state_of(kept).filter(|i| self.is_there(*i, reader)) else {
                self.keepalives.all.swap_remove(self.keepalives.at);
                continue;
            };
            let (seq, has_ended) = (self.get(i).assigned_seq as u32, self.is_expired(i));
            let is_due = self.keepalives.all[self.keepalives.at].is_due(seq, now_ms as u32);
            if is_due && !has_ended {
                idle.push(i);
            }
            self.keepalives.at += 1;
        }
        let all = self.keepalives.all.len().max(1) as u64;
        self.keepalives.due_ms = now_ms + (ROUND_MS * looks as u64 / all).clamp(1, ROUND_MS);
        idle
    }
}
