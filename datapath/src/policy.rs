//! What the SPD says of a flow, with a cache in front of the shared index.
//!
//! A line of the cache holds one flow's decision and the version of the SPD it was taken from: after policies came or
//! went every line is stale, and is filled again when its flow is next seen. That a policy was given another SA
//! changes nothing here: which SA it has now is asked of the SADB for each packet.
//!
//! Besides, a line remembers where the SA was found, or where the packets went. Both are checked before they are used.

use crate::{drop::DropReason, memory::Table, nexthop::Via, wire::FlowKey};
use portcullis_sadb::{Action, Direction, Flow, PolicyIndex, Reader};

/// What to do with a flow's packets (RFC 4301 §5.1 and §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// In clear: encapsulate it with the SA that this policy has now.
    Protect {
        /// The policy.
        policy: PolicyIndex,
        /// The SA's place in the worker's table, the last time.
        state: u32,
    },
    /// In clear: forward it as it is.
    Bypass {
        /// Where it went, the last time.
        via: Via,
    },
    /// Decapsulated: let it in, if it came by the right SA.
    LetIn {
        /// What the SA must have for its `reqid`.
        reqid: u32,
        /// Where it went, the last time.
        via: Via,
    },
    /// Decapsulated: let it in, if it came by the right SA, and protect it again on its way on.
    LetOn {
        /// What the SA must have for its `reqid`.
        reqid: u32,
    },
    /// Drop it.
    Drop(DropReason),
}

impl Decision {
    /// With another place where the SA was found.
    pub fn found_at(self, state: u32) -> Decision {
        match self {
            Decision::Protect { policy, .. } => Decision::Protect { policy, state },
            other => other,
        }
    }

    /// With another way that a packet went.
    pub fn went(self, via: Via) -> Decision {
        match self {
            Decision::Bypass { .. } => Decision::Bypass { via },
            Decision::LetIn { reqid, .. } => Decision::LetIn { reqid, via },
            other => other,
        }
    }
}

/// One cache line of memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    key: FlowKey,
    spd_version: u64,
    decision: Decision,
}

const _: () = assert!(size_of::<Line>() == 64);

/// The two lines where a flow may be.
pub type Homes = [u32; 2];

/// One worker's cache of decisions. A flow is in one of its two homes; who needs a home that is taken sends the other
/// flow to its second (cuckoo hashing), so that few have no room while half of the lines are free.
pub struct FlowCache {
    lines: Table<Line>,
    shift: u32,
    spd_version: u64,
    selects_ports: bool,
}

/// Lines, at least and at most, by how many policies there can be.
const LINES: (u32, u32) = (1 << 13, 1 << 19);

/// Flows that are sent to their other home, at most, to make room for one; the last is forgotten.
const MOVES: usize = 8;

impl FlowCache {
    /// An empty cache, for twice as many flows as there may be policies.
    pub fn new(max_policies: u32) -> FlowCache {
        let lines = (2 * max_policies).next_power_of_two().clamp(LINES.0, LINES.1) as usize;
        let unused = Line {
            key: FlowKey::NONE,
            spd_version: u64::MAX,
            decision: Decision::Drop(DropReason::NoPolicy),
        };
        FlowCache {
            lines: Table::filled(lines, unused),
            shift: 64 - lines.trailing_zeros(),
            spd_version: 0,
            selects_ports: false,
        }
    }

    /// Once per turn: which version of the SPD the decisions must come from.
    pub fn turn(&mut self, reader: &Reader) {
        let version = reader.spd_version();
        if version != self.spd_version {
            self.spd_version = version;
            self.selects_ports = reader.selects_ports();
        }
    }

    /// Whether any policy looks at ports, so that fragments must not be decided on by themselves (RFC 4301 §7).
    pub fn select_ports(&self) -> bool {
        self.selects_ports
    }

    /// Where a flow may be. Brings it into the CPU's cache.
    #[inline(always)]
    pub fn homes(&self, key: &FlowKey) -> Homes {
        let homes = self.places(key);
        for home in homes {
            portcullis_sadb::prefetch_at(self.lines.as_ptr().wrapping_add(home as usize));
        }
        homes
    }

    /// What to do with a clear packet of this flow, and the line that says so.
    #[inline(always)]
    pub fn clear(&mut self, reader: &Reader, homes: Homes, key: FlowKey) -> (u32, Decision) {
        self.decide(homes, key, |flow| decide_clear(reader, flow))
    }

    /// What to do with a decapsulated packet of a flow that is [`FlowKey::inner`] (RFC 4301 §5.2).
    #[inline(always)]
    pub fn inner(&mut self, reader: &Reader, homes: Homes, key: FlowKey) -> (u32, Decision) {
        self.decide(homes, key, |flow| decide_inner(reader, flow))
    }

    /// Remembers something with a flow's decision, if it is still in its line.
    pub fn keep(&mut self, line: u32, key: FlowKey, change: impl FnOnce(Decision) -> Decision) {
        let line = &mut self.lines[line as usize];
        if line.key == key && line.spd_version == self.spd_version {
            line.decision = change(line.decision);
        }
    }

    #[inline(always)]
    fn places(&self, key: &FlowKey) -> Homes {
        let hash = key.hash();
        let other = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        [(hash >> self.shift) as u32, (other >> self.shift) as u32]
    }

    #[inline(always)]
    fn decide(
        &mut self,
        homes: Homes,
        key: FlowKey,
        decide: impl FnOnce(&Flow) -> Decision,
    ) -> (u32, Decision) {
        let is_there = |home: &u32| {
            let line = &self.lines[*home as usize];
            line.key == key && line.spd_version == self.spd_version
        };
        let line = match homes.into_iter().find(is_there) {
            Some(home) => home,
            None => {
                let decision = decide(&key.flow());
                self.place(homes, Line { key, spd_version: self.spd_version, decision })
            }
        };
        (line, self.lines[line as usize].decision)
    }

    /// Puts a line into one of its homes, where it is then. Returns which.
    #[cold]
    fn place(&mut self, homes: Homes, mut line: Line) -> u32 {
        let is_free = |line: &Line| line.spd_version != self.spd_version;
        let home = homes[usize::from(
            !is_free(&self.lines[homes[0] as usize]) && is_free(&self.lines[homes[1] as usize]),
        )];
        let mut at = home;
        for _ in 0..=MOVES {
            std::mem::swap(&mut self.lines[at as usize], &mut line);
            if line.spd_version != self.spd_version {
                break;
            }
            let [first, second] = self.places(&line.key);
            at = if at == first { second } else { first };
            if at == home {
                break;
            }
        }
        home
    }
}

/// A flow that the inbound policies want protected must not come in clear, whatever the outbound ones say of it. Nor must one
/// that they discard, if none of the outbound ones comes before that.
#[cold]
fn decide_clear(reader: &Reader, flow: &Flow) -> Decision {
    let inbound = reader.lookup(Direction::Inbound, flow).map(|h| (h.action, h.priority));
    if let Some((Action::Protect, _)) = inbound {
        return Decision::Drop(DropReason::Unprotected); // RFC 4301 §5.2
    }
    let outbound = reader.lookup(Direction::Outbound, flow);
    let is_before = |priority| outbound.is_none_or(|h| priority < h.priority);
    match (outbound.map(|h| (h.action, h.index)), inbound) {
        (_, Some((Action::Discard, priority))) if is_before(priority) => {
            Decision::Drop(DropReason::PolicyDiscard)
        }
        (Some((Action::Protect, policy)), _) => Decision::Protect { policy, state: u32::MAX },
        (Some((Action::Discard, _)), _) => Decision::Drop(DropReason::PolicyDiscard),
        (Some((Action::Bypass, _)), _) | (None, Some((Action::Bypass, _))) => {
            Decision::Bypass { via: Via::NONE }
        }
        (None, _) => Decision::Drop(DropReason::NoPolicy),
    }
}

#[cold]
fn decide_inner(reader: &Reader, flow: &Flow) -> Decision {
    let Some(hit) = reader.lookup(Direction::Inbound, flow).filter(|h| h.action == Action::Protect) else {
        return Decision::Drop(DropReason::SelectorMismatch);
    };
    // What goes on from one tunnel into another, as at a hub, leaves by the outbound policies (RFC 4301 §5.1).
    match reader.lookup(Direction::Outbound, flow).map(|h| h.action) {
        Some(Action::Protect | Action::Discard) => Decision::LetOn { reqid: hit.reqid },
        Some(Action::Bypass) | None => Decision::LetIn { reqid: hit.reqid, via: Via::NONE },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_sadb::{Policy, Sadb, Selector, Sizes};

    /// RFC 4301 §5.2: whether the policies discard what comes in clear from 10.9 to 10.1.
    fn is_discarded(inbound: (Action, u32), outbound: Option<(Action, u32)>) -> bool {
        let (mut sadb, reader, _) = Sadb::heap(&Sizes { max_sas: 4, max_policies: 8 }).unwrap();
        let net = |text: &str| text.parse().unwrap();
        let narrow = Selector::between(net("10.9.0.0/16"), net("10.1.0.0/16"));
        let wide = Selector::between(net("10.0.0.0/8"), net("10.0.0.0/8"));
        let mut add = |direction, selector, (action, priority)| {
            sadb.add_policy(&Policy { direction, selector, priority, action, reqid: 0, sa: None }).unwrap();
        };
        add(Direction::Inbound, narrow, inbound);
        outbound.into_iter().for_each(|outbound| add(Direction::Outbound, wide.clone(), outbound));
        let (from, to) = ("10.9.0.5".parse().unwrap(), "10.1.0.5".parse().unwrap());
        let decision = decide_clear(&reader, &Flow { src: from, dst: to, protocol: 17, ports: Some((1, 2)) });
        decision == Decision::Drop(DropReason::PolicyDiscard)
    }

    #[test]
    fn an_inbound_discard_holds_against_all_that_does_not_come_before_it() {
        use Action::{Bypass, Discard, Protect};
        assert!(is_discarded((Discard, 50), None));
        for outbound in [Bypass, Protect] {
            assert!(is_discarded((Discard, 50), Some((outbound, 100))), "{outbound:?}");
            assert!(!is_discarded((Discard, 100), Some((outbound, 100))), "{outbound:?}");
            assert!(!is_discarded((Discard, u32::MAX), Some((outbound, 100))), "one for all that is left");
        }
        assert!(is_discarded((Bypass, 50), Some((Discard, 100))));
        assert!(!is_discarded((Bypass, 50), Some((Bypass, 100))));
    }
}
