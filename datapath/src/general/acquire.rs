//! Packets that ask for an SA: iked is told which policy, and of what packet (RFC 4301 §5.1, RFC 7296 §2.9).
//!
//! Anybody behind the gateway can send packets of any number of flows. A policy that one SA is for is asked for once a
//! second, whatever comes of others. Where packets say what SAs are for, there is an end to what is looked at, remembered,
//! and told; what is not is counted, and asks again with its next packet.

use super::icmp::RateLimit;
use portcullis_sadb::{
    ABOUT, Event, EventKind, Fields, Flow, Generation, PolicyIndex, Reader, SlotIndex, WorkerRuntime,
};
use std::collections::VecDeque;

/// What is remembered, at most.
const REMEMBERED: usize = 256;

/// How often iked is told the same.
const AGAIN_MS: u64 = 1000;

/// How long it is remembered that something was asked for.
const FORGET_MS: u64 = 10_000;

/// When it is told after all what could not be.
const RETRY_MS: u64 = 10;

/// What is told of policies that are populated, a second and at once.
const RATE: (u32, u32) = (100, 64);

/// What is looked at to see whether it is to be told.
const LOOKS: (u32, u32) = (100_000, 64);

/// A policy that one SA is for.
#[derive(Clone, Copy, Default, Debug)]
struct Trap {
    /// When it is next asked for.
    due_ms: u64,
    /// Until when it is remembered that it was.
    until_ms: u64,
}

impl Trap {
    /// Whether it was asked for long ago.
    fn is_overdue(&self, now_ms: u64) -> bool {
        self.until_ms + AGAIN_MS <= now_ms + FORGET_MS
    }
}

/// What one SA of a policy that is populated would be for.
#[derive(Debug)]
struct Asked {
    policy: PolicyIndex,
    /// What the packet has in the fields that the policy is populated with.
    fields: [u64; ABOUT],
    first_ms: u64,
    told_ms: u64,
}

/// What a worker has asked iked for.
#[derive(Debug)]
pub struct Acquires {
    /// By policy.
    traps: Vec<Trap>,
    looks: RateLimit,
    unseen: u64,
    /// In the order in which they were first told.
    asked: VecDeque<Asked>,
    rate: RateLimit,
}

impl Acquires {
    /// Of at most so many policies.
    pub fn new(policies: u32) -> Acquires {
        Acquires {
            traps: vec![Trap::default(); policies as usize],
            looks: RateLimit::new(LOOKS.0, LOOKS.1),
            unseen: 0,
            asked: VecDeque::with_capacity(REMEMBERED),
            rate: RateLimit::new(RATE.0, RATE.1),
        }
    }

    /// Whether a packet that is for a policy without an SA is to be asked for.
    pub fn minds(&mut self, policy: PolicyIndex, reader: &Reader, now_ms: u64) -> bool {
        if reader.populate(policy).fields() == Fields::NONE {
            return self.traps.get(policy.0 as usize).is_some_and(|trap| trap.due_ms <= now_ms);
        }
        let minds = self.looks.take(now_ms);
        self.unseen += u64::from(!minds);
        minds
    }

    /// Counts what was not looked at.
    pub fn settle(&mut self, iked: &WorkerRuntime) {
        if self.unseen > 0 {
            iked.count_acquires_untold(std::mem::take(&mut self.unseen));
        }
    }

    /// A packet is for a policy that has no SA. True if the same was asked for long ago, and there is none yet: its source
    /// may be told so.
    pub fn ask(
        &mut self,
        policy: PolicyIndex,
        flow: &Flow,
        (reader, iked): (&Reader, &WorkerRuntime),
        now_ms: u64,
    ) -> bool {
        let tell = || {
            let event = Event {
                kind: EventKind::Acquire,
                slot: SlotIndex(0),
                generation: Generation(0),
                value: policy.0 as u64,
                about: flow.words(),
            };
            let is_told = iked.tell(&event);
            if !is_told {
                iked.count_acquires_untold(1);
            }
            is_told
        };
        let fields = reader.populate(policy).fields();
        if fields == Fields::NONE {
            return self.ask_once(policy, tell, now_ms);
        }
        // RFC 4301 §4.4.2.2: what does not show what is to be populated is dropped, and gets no SA.
        let Some(fields) = fields.of(flow) else { return false };
        while self.asked.front().is_some_and(|asked| asked.first_ms + FORGET_MS <= now_ms) {
            self.asked.pop_front();
        }
        let mut tell = || match self.rate.take(now_ms) {
            true => tell(),
            false => {
                iked.count_acquires_untold(1);
                false
            }
        };
        let is_full = self.asked.len() == REMEMBERED;
        match self.asked.iter_mut().find(|asked| (asked.policy, asked.fields) == (policy, fields)) {
            Some(asked) => {
                if asked.told_ms + AGAIN_MS <= now_ms && tell() {
                    asked.told_ms = now_ms;
                }
                asked.first_ms + AGAIN_MS <= now_ms
            }
            None if is_full => {
                iked.count_acquires_untold(1);
                false
            }
            None => {
                if tell() {
                    self.asked.push_back(Asked { policy, fields, first_ms: now_ms, told_ms: now_ms });
                }
                false
            }
        }
    }

    /// All packets of a trap would have the same SA.
    fn ask_once(&mut self, policy: PolicyIndex, tell: impl FnOnce() -> bool, now_ms: u64) -> bool {
        let Some(trap) = self.traps.get_mut(policy.0 as usize) else { return false };
        if trap.until_ms <= now_ms {
            trap.until_ms = now_ms + FORGET_MS;
        }
        if trap.due_ms <= now_ms {
            trap.due_ms = now_ms + if tell() { AGAIN_MS } else { RETRY_MS };
        }
        trap.is_overdue(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_sadb::{Action, Direction, Fields, Policy, Populate, Sadb, Selector, Sizes};

    fn flow(src: u32, port: u16) -> Flow {
        Flow {
            src: std::net::Ipv4Addr::from_bits(10 << 24 | src).into(),
            dst: [10, 2, 0, 1].into(),
            protocol: 17,
            ports: Some((port, 53)),
        }
    }

    fn sadb(fields: Fields) -> (Sadb, Reader, WorkerRuntime, PolicyIndex) {
        let (mut sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas: 4, max_policies: 4 }).unwrap();
        let any = "10.0.0.0/8".parse().unwrap();
        let policy = Policy {
            direction: Direction::Outbound,
            selector: Selector::between(any, any),
            priority: 1,
            action: Action::Protect,
            reqid: 1,
            sa: None,
        };
        let index = sadb.add_populated(&policy, Populate::From(fields)).unwrap();
        (sadb, reader, runtime.worker(0), index)
    }

    #[test]
    fn the_same_is_told_once_a_second() {
        let (mut sadb, reader, iked, policy) = sadb(Fields::SRC);
        let mut acquires = Acquires::new(4);
        let mut told = |sadb: &mut Sadb, flow, now_ms| {
            let is_overdue = acquires.ask(policy, &flow, (&reader, &iked), now_ms);
            let events: Vec<_> = std::iter::from_fn(|| sadb.poll_event()).collect();
            for event in &events {
                assert_eq!((event.kind, event.value), (EventKind::Acquire, policy.0 as u64));
                assert_eq!(Flow::from_words(&event.about), flow);
            }
            (events.len(), is_overdue)
        };
        assert_eq!(told(&mut sadb, flow(1, 1), 0), (1, false));
        // Of another port, for which the SA would be the same; of another source.
        assert_eq!(told(&mut sadb, flow(1, 2), 999), (0, false));
        assert_eq!(told(&mut sadb, flow(2, 2), 999), (1, false));
        assert_eq!(told(&mut sadb, flow(1, 2), 1000), (1, true));
        assert_eq!(told(&mut sadb, flow(1, 2), 1500), (0, true));
        assert_eq!(told(&mut sadb, flow(2, 2), 1998), (0, false));
        assert_eq!(told(&mut sadb, flow(2, 2), 2000), (1, true));
        assert_eq!(told(&mut sadb, flow(1, 1), 10_000), (1, false), "forgotten");
    }

    #[test]
    fn a_flood_is_counted_and_leaves_room_for_what_comes_after() {
        let (mut sadb, reader, iked, policy) = sadb(Fields::SRC | Fields::SRC_PORT);
        let mut acquires = Acquires::new(4);
        let octets = acquires.asked.capacity();
        for n in 0..100_000 {
            acquires.ask(policy, &flow(n, n as u16), (&reader, &iked), n as u64 / 100);
        }
        let mut events = std::iter::from_fn(|| sadb.poll_event()).count() as u64;
        // At once, and in a second; what was told is in the ring.
        assert!((64..=64 + 101).contains(&events), "{events}");
        assert_eq!(sadb.runtime().worker(0).unwrap().acquires_untold + events, 100_000);
        // iked is away: half of its ring is left for others.
        for n in 0..100_000 {
            acquires.ask(policy, &flow(n, n as u16), (&reader, &iked), 10_000 + n as u64);
        }
        events = std::iter::from_fn(|| sadb.poll_event()).count() as u64;
        assert_eq!((events, sadb.runtime().worker(0).unwrap().events_lost), (256, 0));
        assert_eq!(acquires.asked.capacity(), octets);
        // And an hour later a new flow is told at once.
        acquires.ask(policy, &flow(7, 7), (&reader, &iked), 3_600_000);
        assert_eq!(sadb.poll_event().map(|e| Flow::from_words(&e.about)), Some(flow(7, 7)));
        // A fragment does not show its port.
        acquires.ask(policy, &Flow { ports: None, ..flow(8, 8) }, (&reader, &iked), 3_600_000);
        assert_eq!(sadb.poll_event(), None);
    }
}
