//! Which NAT mappings must be kept alive: those of SAs in UDP that have not sent anything for some time (RFC 3948 §4).
//!
//! No packet pays for it: whether an SA has sent anything is seen by its sequence number, when it is looked at. All are
//! looked at in turn, a few at a time, each at least so often that a keepalive leaves within a second of its time.

use super::SaTable;
use arrayvec::ArrayVec;
use portcullis_sadb::{Direction, Generation, Reader, Sa};

/// SAs that one look looks at.
pub const LOOKED_AT: usize = 256;

/// How long it takes to look at all, if a look every millisecond is enough for that.
const ROUND_MS: u64 = 500;

/// An SA with a mapping.
struct Kept {
    state: u32,
    generation: Generation,
    every_ms: u64,
    /// Its last sequence number when it was last looked at, and since when it has been that one, or since when a keepalive
    /// has left; none before it was looked at.
    seq: u64,
    since_ms: Option<u64>,
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
    pub(super) fn keep_alive(&mut self, i: u32, generation: Generation, sa: &Sa) {
        let states = &self.states;
        let all = &mut self.keepalives.all;
        if all.len() == all.capacity() {
            let is_there = |k: &Kept| {
                states[k.state as usize].as_ref().is_some_and(|state| state.generation == k.generation)
            };
            all.retain(is_there);
        }
        let every_ms = sa.udp.map_or(0, |udp| udp.keepalive_secs as u64 * 1000);
        let seq = states[i as usize].as_ref().map_or(0, |state| state.assigned_seq);
        all.push(Kept { state: i, generation, every_ms, seq, since_ms: None });
        self.keepalives.due_ms = 0;
        self.has_news = true;
    }

    /// When mappings are next to be looked at.
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
            let Some(Kept { state, generation, .. }) = self.keepalives.all.get(self.keepalives.at) else {
                self.keepalives.at = 0;
                break;
            };
            let (i, generation) = (*state, *generation);
            let is_it = self.states[i as usize].as_ref().is_some_and(|state| state.generation == generation);
            if !is_it || !self.is_there(i, reader) {
                self.keepalives.all.swap_remove(self.keepalives.at);
                continue;
            }
            let (seq, has_ended) = (self.get(i).assigned_seq, self.is_expired(i));
            let kept = &mut self.keepalives.all[self.keepalives.at];
            let since_ms = match kept.since_ms {
                Some(since_ms) if kept.seq == seq => since_ms,
                _ => now_ms,
            };
            let is_idle = now_ms - since_ms >= kept.every_ms;
            (kept.seq, kept.since_ms) = (seq, Some(if is_idle { now_ms } else { since_ms }));
            if is_idle && !has_ended {
                idle.push(i);
            }
            self.keepalives.at += 1;
        }
        let all = self.keepalives.all.len().max(1) as u64;
        self.keepalives.due_ms = now_ms + (ROUND_MS * looks as u64 / all).clamp(1, ROUND_MS);
        idle
    }
}
