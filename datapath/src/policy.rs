//! What the SPD says of a flow, with a small cache in front of the shared index.
//!
//! A line of the cache holds one flow's decision and the version of the SPD it was taken from: after any
//! change of the SPD every line is stale, and is filled again when its flow is next seen.

use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::{Action, Direction, Flow, Reader, SlotIndex};

/// What to do with a packet that came in clear (RFC 4301 §5.1 and §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clear {
    /// Encapsulate it with this SA, which belongs to this worker.
    Protect {
        /// The SA.
        slot: SlotIndex,
        /// The worker that owns it.
        owner: u32,
    },
    /// A policy wants it protected, and there is no SA for it now.
    NoSa,
    /// Forward it as it is.
    Bypass,
    /// Drop it.
    Discard,
    /// Drop it: the other side should have protected it.
    Unprotected,
    /// Drop it: no policy matches.
    NoPolicy,
}

/// What is known of a flow: as a clear packet, or as one that came out of a tunnel.
#[derive(Clone, Copy)]
enum Decision {
    Clear(Clear),
    /// The `reqid` that the SA must have, or none if no Protect policy lets the flow in.
    Inner(Option<u32>),
}

#[derive(Clone, Copy)]
struct Line {
    flow: Flow,
    spd_version: u64,
    inner: bool,
    decision: Decision,
}

/// One worker's cache of decisions.
pub struct FlowCache {
    lines: Box<[Option<Line>]>,
    spd_version: u64,
    workers: u32,
}

const LINES: usize = 4096;

impl FlowCache {
    /// An empty cache for one of `workers` workers.
    pub fn new(workers: u32) -> FlowCache {
        FlowCache { lines: vec![None; LINES].into_boxed_slice(), spd_version: 0, workers }
    }

    /// Once per turn: which version of the SPD the decisions must come from.
    pub fn turn(&mut self, reader: &Reader) {
        self.spd_version = reader.spd_version();
    }

    /// What to do with a clear packet of this flow.
    pub fn clear(&mut self, reader: &Reader, flow: &Flow) -> Clear {
        let workers = self.workers;
        match self.decide(flow, false, || Decision::Clear(decide_clear(reader, flow, workers))) {
            Decision::Clear(clear) => clear,
            Decision::Inner(_) => Clear::NoPolicy,
        }
    }

    /// The `reqid` of the policy that lets a decapsulated packet of this flow in (RFC 4301 §5.2).
    pub fn inner(&mut self, reader: &Reader, flow: &Flow) -> Option<u32> {
        let decide = || {
            let hit = reader.lookup(Direction::Inbound, flow);
            Decision::Inner(hit.filter(|h| h.action == Action::Protect).map(|h| h.reqid))
        };
        match self.decide(flow, true, decide) {
            Decision::Inner(reqid) => reqid,
            Decision::Clear(_) => None,
        }
    }

    fn decide(&mut self, flow: &Flow, inner: bool, decide: impl FnOnce() -> Decision) -> Decision {
        let line = &mut self.lines[line_of(flow) ^ inner as usize];
        match line {
            Some(l) if l.spd_version == self.spd_version && l.inner == inner && l.flow == *flow => l.decision,
            _ => {
                let decision = decide();
                *line = Some(Line { flow: *flow, spd_version: self.spd_version, inner, decision });
                decision
            }
        }
    }
}

/// A flow that the inbound policies want protected must not come in clear, whatever the outbound ones say of it.
fn decide_clear(reader: &Reader, flow: &Flow, workers: u32) -> Clear {
    let inbound = reader.lookup(Direction::Inbound, flow).map(|h| h.action);
    if inbound == Some(Action::Protect) {
        return Clear::Unprotected; // RFC 4301 §5.2
    }
    let outbound = reader.lookup(Direction::Outbound, flow);
    match (outbound.map(|h| (h.action, h.sa)), inbound) {
        (Some((Action::Protect, Some(slot))), _) => match reader.spi(slot) {
            Some(spi) => Clear::Protect { slot, owner: worker_of_spi(spi.0, workers) },
            None => Clear::NoSa,
        },
        (Some((Action::Protect, None)), _) => Clear::NoSa,
        (Some((Action::Discard, _)), _) | (None, Some(Action::Discard)) => Clear::Discard,
        (Some((Action::Bypass, _)), _) | (None, Some(Action::Bypass)) => Clear::Bypass,
        (None, _) => Clear::NoPolicy,
    }
}

fn line_of(flow: &Flow) -> usize {
    use std::net::IpAddr;
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => a.to_bits() as u64,
        IpAddr::V6(a) => (a.to_bits() >> 64) as u64 ^ a.to_bits() as u64,
    };
    let (sport, dport) = flow.ports.unwrap_or_default();
    let mut h = bits(flow.src).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h = (h ^ bits(flow.dst)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    h ^= (sport as u64) << 48 | (dport as u64) << 32 | flow.protocol as u64;
    h = h.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (h >> 40) as usize & (LINES - 1)
}
