//! Packets that ask for an SA: iked is told which policy, and of what packet (RFC 4301 §5.1, RFC 7296 §2.9).
//!
//! Anybody behind the gateway can send packets of any number of flows. So there is an end to what is remembered, and to
//! what is told; what is not told is counted, and asks again with its next packet.

use super::icmp::RateLimit;
use portcullis_sadb::{
    ABOUT, Event, EventKind, Flow, Generation, PolicyIndex, Reader, SlotIndex, WorkerRuntime,
};
use std::collections::VecDeque;

/// What is remembered, at most.
const REMEMBERED: usize = 256;

/// How often iked is told the same.
const AGAIN_MS: u64 = 1000;

/// How long it is remembered that something was asked for.
const FORGET_MS: u64 = 10_000;

/// What is told, a second and at once.
const RATE: (u32, u32) = (100, 64);

/// What one SA would be for.
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
    /// In the order in which they were first told.
    asked: VecDeque<Asked>,
    rate: RateLimit,
}

impl Default for Acquires {
    fn default() -> Acquires {
        Acquires { asked: VecDeque::with_capacity(REMEMBERED), rate: RateLimit::new(RATE.0, RATE.1) }
    }
}

impl Acquires {
    /// A packet is for a policy that has no SA. True if the same was asked for long ago, and there is none yet: its source
    /// may be told so.
    pub fn ask(
        &mut self,
        policy: PolicyIndex,
        flow: &Flow,
        (reader, iked): (&Reader, &WorkerRuntime),
        now_ms: u64,
    ) -> bool {
        // RFC 4301 §4.4.2.2: what does not show what is to be populated is dropped, and gets no SA.
        let Some(fields) = reader.populate(policy).fields().of(flow) else { return false };
        while self.asked.front().is_some_and(|asked| asked.first_ms + FORGET_MS <= now_ms) {
            self.asked.pop_front();
        }
        let mut tell = || {
            let event = Event {
                kind: EventKind::Acquire,
                slot: SlotIndex(0),
                generation: Generation(0),
                value: policy.0 as u64,
                about: flow.words(),
            };
            let is_told = self.rate.take(now_ms) && iked.tell(&event);
            if !is_told {
                iked.count_acquires_untold(1);
            }
            is_told
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
        let mut acquires = Acquires::default();
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
        let mut acquires = Acquires::default();
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
