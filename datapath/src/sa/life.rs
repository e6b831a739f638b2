//! How long an SA is good for, and when iked is told (RFC 4301 §4.4.2.1).
//!
//! The plain path looks at none of this: it uses the sequence numbers that were reserved, and of an SA with a lifetime
//! only so many are reserved as it may surely send. What is over its hard limit is not sent. Where numbers have 32 bits, iked is
//! told before they are used up (RFC 4303 §3.3.3).

use super::{RESERVED_BLOCK, SaTable};
use crate::{drop::DropReason, loan::LOANED};
use portcullis_sadb::{
    ABOUT, Direction, Event, EventKind, Generation, Handling, Lifetime, Limits, Reader, Runtime, SaCounters,
    WorkerRuntime,
};

/// SAs whose lifetime is looked at, at most, in a look.
const LOOKED_AT: usize = 4096;

/// Numbers of 32 bits after which iked should make another SA: nine tenths. As lifetimes, it is looked at about once a second,
/// and numbers are left for minutes.
const LOW: u64 = (1 << 32) / 10 * 9;

/// With fewer reserved numbers than this an SA with a lifetime gets more before it runs out of them.
const FEW: u64 = RESERVED_BLOCK / 2;

/// Packets that have numbers and are not counted yet, at most: those on loan.
const UNCOUNTED: u64 = LOANED as u64;

/// Octets of a packet, at most.
const LARGEST: u64 = u16::MAX as u64;

/// How far an SA is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Age {
    /// It may be used on.
    Good,
    /// iked should make another.
    Soft,
    /// Nothing passes any more.
    Hard,
}

/// The lifetime of an SA that has one.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    lifetime: Lifetime,
    born_secs: u32,
    /// Packets that were counted when it was last looked whether it is idle, and when that was.
    packets: u64,
    /// 0: not yet.
    used_secs: u32,
}

impl Life {
    /// None where there is no limit.
    pub fn of(handling: &Handling) -> Option<Life> {
        let Handling { lifetime, born_secs, .. } = *handling;
        let has_one = lifetime != Lifetime::default();
        has_one.then_some(Life { lifetime, born_secs, packets: 0, used_secs: 0 })
    }

    /// How far it is, by what was counted.
    pub fn age(&self, so_far: &SaCounters, now_secs: u32) -> Age {
        let secs = now_secs.saturating_sub(self.born_secs);
        let is_over = |limits: &Limits| {
            let over = |limit, value| limit != 0 && value >= limit;
            over(limits.bytes, so_far.bytes)
                || over(limits.packets, so_far.packets)
                || over(limits.secs as u64, secs as u64)
        };
        match (is_over(&self.lifetime.hard), is_over(&self.lifetime.soft)) {
            (true, _) => Age::Hard,
            (_, true) => Age::Soft,
            _ => Age::Good,
        }
    }

    /// Packets, and at least one, after which it must be looked at again: none of its limits is reached by fewer, whatever
    /// their size.
    pub fn packets_to_go(&self, so_far: &SaCounters) -> u64 {
        let to_go = |limits: &Limits| {
            let left = |limit: u64, used: u64, each: u64| match limit.saturating_sub(used) {
                _ if limit == 0 || used >= limit => u64::MAX,
                left => left / each,
            };
            left(limits.packets, so_far.packets, 1).min(left(limits.bytes, so_far.bytes, LARGEST))
        };
        to_go(&self.lifetime.soft).min(to_go(&self.lifetime.hard)).max(1)
    }

    /// Whether one more packet of so many octets would be over a hard limit.
    pub fn is_last_straw(&self, so_far: &SaCounters, octets: usize) -> bool {
        let hard = self.lifetime.hard.bytes;
        hard != 0 && so_far.bytes + octets as u64 > hard
    }

    /// Whether it has been idle for too long, by what was counted.
    pub fn is_idle(&mut self, so_far: &SaCounters, now_secs: u32) -> bool {
        // It is not idle before it was looked at once.
        if so_far.packets != self.packets || self.used_secs == 0 {
            (self.packets, self.used_secs) = (so_far.packets, now_secs);
        }
        self.lifetime.idle_secs != 0 && now_secs.saturating_sub(self.used_secs) >= self.lifetime.idle_secs
    }
}

impl SaTable {
    /// Reserves a sequence number at least for a packet of so many octets, as far as the SA's lifetime allows.
    ///
    /// # Errors
    /// [`DropReason::SeqExhausted`] (RFC 4303 §3.3.3), [`DropReason::SaExpired`]: iked has been told.
    pub fn reserve(
        &mut self,
        i: u32,
        octets: usize,
        (reader, runtime, iked): (&Reader, &Runtime, &WorkerRuntime),
        now_secs: u32,
    ) -> Result<(), DropReason> {
        let state = self.get(i);
        if state.has_ended {
            return Err(DropReason::SaExpired);
        }
        if state.assigned_seq != state.reserved_seq {
            return Ok(());
        }
        let mut numbers = RESERVED_BLOCK;
        if state.is_limited {
            self.tell_one(i, reader, runtime);
            let so_far = runtime.sa(self.get(i).slot).counters();
            let is_over = self.look_at(i, (runtime, iked), now_secs);
            let Some(Some(life)) = self.lives.get(i as usize) else { return Err(DropReason::SaExpired) };
            if is_over || life.is_last_straw(&so_far, octets) {
                self.tell_once(i, EventKind::HardLifetime, so_far.bytes, (runtime, iked));
                self.end(i);
                return Err(DropReason::SaExpired);
            }
            numbers = numbers.min(life.packets_to_go(&so_far));
        }
        let state = self.get_mut(i);
        if state.reserve(numbers, runtime) {
            return Ok(());
        }
        let value = state.assigned_seq();
        self.tell_once(i, EventKind::SeqExhausted, value, (runtime, iked));
        Err(DropReason::SeqExhausted)
    }

    /// Reserves more numbers for an SA with a lifetime, whose packets were told just now, so that it seldom leaves the plain
    /// path for them: none that could be over a limit.
    #[inline]
    pub(super) fn refill(&mut self, i: u32, runtime: &Runtime) {
        if let Some(Some(state)) = self.states.get(i as usize)
            && state.limited_left().is_some_and(|left| left < FEW)
        {
            self.refill_one(i, runtime);
        }
    }

    #[cold]
    fn refill_one(&mut self, i: u32, runtime: &Runtime) {
        let (Some(Some(state)), Some(Some(life))) =
            (self.states.get_mut(i as usize), self.lives.get(i as usize))
        else {
            return;
        };
        let is_good = !state.has_ended && state.sad_version == self.sad_version;
        if !is_good || state.direction != Direction::Outbound {
            return;
        }
        let so_far = runtime.sa(state.slot).counters();
        // Whether its time is over is looked at elsewhere.
        if life.age(&so_far, 0) == Age::Hard {
            return;
        }
        let to_go = life.packets_to_go(&so_far).saturating_sub(UNCOUNTED);
        let left = state.limited_left().unwrap_or_default();
        if let Some(more @ 1..) = to_go.min(RESERVED_BLOCK).checked_sub(left) {
            state.reserve(more, runtime);
        }
    }

    /// Looks whether an SA has reached a limit, and tells iked. True if it is not to be used any more.
    fn look_at(&mut self, i: u32, (runtime, iked): (&Runtime, &WorkerRuntime), now_secs: u32) -> bool {
        let Some(Some(state)) = self.states.get(i as usize) else { return false };
        if state.may_run_out() && state.assigned_seq >= LOW {
            self.tell_once(i, EventKind::SeqLow, state.assigned_seq, (runtime, iked));
        }
        let Some(Some(life)) = self.lives.get_mut(i as usize) else { return false };
        let so_far = runtime.sa(state.slot).counters();
        let (age, is_idle) = (life.age(&so_far, now_secs), life.is_idle(&so_far, now_secs));
        if is_idle {
            self.tell_once(i, EventKind::Idle, so_far.packets, (runtime, iked));
        }
        match age {
            Age::Good => {}
            Age::Soft => self.tell_once(i, EventKind::SoftLifetime, so_far.bytes, (runtime, iked)),
            Age::Hard => {
                self.tell_once(i, EventKind::HardLifetime, so_far.bytes, (runtime, iked));
                self.end(i);
            }
        }
        age == Age::Hard
    }

    /// Nothing goes the plain way any more for an SA, and no number is left of those reserved.
    pub(super) fn end(&mut self, i: u32) {
        let state = self.get_mut(i);
        state.assigned_seq = state.reserved_seq;
        state.has_ended = true;
        let spi = state.spi;
        self.keys[i as usize] = None;
        self.spis.remove(spi, i);
    }

    /// Looks at the SAs that have a lifetime or few numbers, some at a time: all of them in some seconds.
    pub fn look_at_lives(
        &mut self,
        (reader, runtime, iked): (&Reader, &Runtime, &WorkerRuntime),
        now_secs: u32,
    ) {
        for _ in 0..LOOKED_AT.min(self.limited.len()) {
            self.looked_at = (self.looked_at + 1) % self.limited.len().max(1);
            let Some((i, generation)) = self.limited.get(self.looked_at).copied() else { continue };
            match self.states.get(i as usize) {
                Some(Some(state)) if state.generation == generation => {
                    let is_alive = reader.generation(state.slot) == Some(state.generation);
                    if is_alive {
                        self.tell_one(i, reader, runtime);
                        self.look_at(i, (runtime, iked), now_secs);
                    }
                }
                _ => {
                    self.limited.swap_remove(self.looked_at);
                }
            }
        }
    }

    /// Whether an SA is at its end.
    pub fn is_expired(&self, i: u32) -> bool {
        self.get(i).has_ended
    }

    fn tell_once(&self, i: u32, kind: EventKind, value: u64, (runtime, iked): (&Runtime, &WorkerRuntime)) {
        let (slot, generation) = (self.get(i).slot, self.get(i).generation);
        let line = runtime.sa(slot);
        // What does not fit into the ring is told later.
        if !line.was_told(kind) && iked.tell(&Event { kind, slot, generation, value, about: [0; ABOUT] }) {
            line.told(kind);
        }
    }

    /// Has an SA with a lifetime or few numbers looked at.
    pub(super) fn limit(&mut self, i: u32, generation: Generation) {
        if self.limited.len() == self.limited.capacity() {
            let states = &self.states;
            self.limited.retain(|(i, generation)| {
                states[*i as usize].as_ref().is_some_and(|sa| sa.generation == *generation)
            });
        }
        self.limited.push((i, generation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(soft: Limits, hard: Limits) -> Life {
        let lifetime = Lifetime { soft, hard, idle_secs: 10 };
        let handling = Handling { lifetime, born_secs: 100, ..Handling::default() };
        Life::of(&handling).expect("it has one")
    }

    fn counted(packets: u64, bytes: u64) -> SaCounters {
        SaCounters { packets, bytes, ..SaCounters::default() }
    }

    #[test]
    fn each_limit_counts_by_itself() {
        let limits = |bytes, packets, secs| Limits { bytes, packets, secs };
        for (soft, hard, counted, now, age) in [
            (limits(0, 0, 0), limits(0, 0, 0), counted(1 << 60, 1 << 60), u32::MAX, Age::Good),
            (limits(100, 0, 0), limits(200, 0, 0), counted(1, 99), 100, Age::Good),
            (limits(100, 0, 0), limits(200, 0, 0), counted(1, 100), 100, Age::Soft),
            (limits(100, 0, 0), limits(200, 0, 0), counted(1, 200), 100, Age::Hard),
            (limits(0, 5, 0), limits(0, 6, 0), counted(5, 0), 100, Age::Soft),
            (limits(0, 5, 0), limits(0, 6, 0), counted(6, 0), 100, Age::Hard),
            (limits(0, 0, 30), limits(0, 0, 60), counted(0, 0), 129, Age::Good),
            (limits(0, 0, 30), limits(0, 0, 60), counted(0, 0), 130, Age::Soft),
            (limits(0, 0, 30), limits(0, 0, 60), counted(0, 0), 160, Age::Hard),
        ] {
            assert_eq!(life(soft, hard).age(&counted, now), age);
        }
    }

    #[test]
    fn so_many_packets_reach_no_limit_whatever_their_size() {
        let limits = |bytes, packets| Limits { bytes, packets, secs: 0 };
        let life = life(limits(1_000_000, 0), limits(2_000_000, 40));
        assert_eq!(life.packets_to_go(&counted(0, 0)), 15);
        assert_eq!(life.packets_to_go(&counted(0, 999_999)), 1);
        assert_eq!(life.packets_to_go(&counted(0, 1_000_000)), 15);
        assert_eq!(life.packets_to_go(&counted(39, 0)), 1);
        assert!(life.is_last_straw(&counted(0, 1_999_000), 1001));
        assert!(!life.is_last_straw(&counted(0, 1_999_000), 1000));
    }

    #[test]
    fn idle_is_what_counts_nothing_for_so_long() {
        let mut life = life(Limits::default(), Limits::default());
        assert!(!life.is_idle(&counted(0, 0), 100), "not at once, whenever the machine was started");
        assert!(!life.is_idle(&counted(0, 0), 109));
        assert!(life.is_idle(&counted(0, 0), 110));
        assert!(!life.is_idle(&counted(1, 0), 111));
        assert!(!life.is_idle(&counted(1, 0), 120));
        assert!(life.is_idle(&counted(1, 0), 121));
    }
}
