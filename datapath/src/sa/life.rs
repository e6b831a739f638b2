//! How long an SA is good for, and when iked is told (RFC 4301 §4.4.2.1).
//!
//! The plain path looks at none of this: it uses the sequence numbers that were reserved, and of an SA with a lifetime
//! only so many are reserved as it may surely send. What is over its hard limit is not sent.

use portcullis_sadb::{Handling, Lifetime, Limits, SaCounters};

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
