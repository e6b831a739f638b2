//! What the SPD says of a flow, with a small cache in front of the shared index.
//!
//! A line of the cache holds one flow's decision and the version of the SPD it was taken from: after any
//! change of the SPD every line is stale, and is filled again when its flow is next seen. Which SA a policy uses
//! is not part of that: it is asked for each packet.

use crate::wire::{self, Addr, Ip, Place, protocol};
use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::{Action, Direction, Flow, PolicyIndex, Reader, SlotIndex};

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
    /// With the SA that this policy uses.
    Protect(PolicyIndex),
    /// The `reqid` that the SA must have, or none if no Protect policy lets the flow in.
    Inner(Option<u32>),
}

/// A [`Flow`] in five words, which are quick to hash and to compare: source, destination, and the rest.
#[derive(Clone, Copy, Debug)]
pub struct FlowKey([u64; 5]);

impl PartialEq for FlowKey {
    /// Without the call that comparing arrays is.
    #[inline]
    fn eq(&self, other: &FlowKey) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Eq for FlowKey {}

/// In the last word of a key.
const HAS_PORTS: u64 = 1 << 8;
const IS_V6: u64 = 1 << 9;
const IS_INNER: u64 = 1 << 10;

impl FlowKey {
    /// What stands where there is no flow.
    pub const NONE: FlowKey = FlowKey([0; 5]);

    /// The flow of a packet. Only whole packets and first fragments show ports.
    #[inline]
    pub fn of(ip: &Ip, packet: &[u8]) -> FlowKey {
        use protocol::{SCTP, TCP, UDP, UDP_LITE};
        let has_ports = matches!(ip.protocol, TCP | UDP | SCTP | UDP_LITE)
            && ip.place != Place::Later
            && ip.payload + 4 <= ip.len
            && ip.len <= packet.len();
        let ports = if has_ports { wire::be32(packet, ip.payload) } else { 0 };
        let rest = (ports as u64) << 32 | ip.protocol as u64 | if has_ports { HAS_PORTS } else { 0 };
        let rest = rest | if ip.is_v4() { 0 } else { IS_V6 };
        let (src, dst) = (ip.src().bits, ip.dst().bits);
        FlowKey([(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64, rest])
    }

    /// The same, after decapsulation.
    fn inner(self) -> FlowKey {
        let FlowKey([a, b, c, d, rest]) = self;
        FlowKey([a, b, c, d, rest | IS_INNER])
    }

    fn flow(&self) -> Flow {
        let FlowKey([a, b, c, d, rest]) = *self;
        let addr =
            |high, low| Addr { bits: (high as u128) << 64 | low as u128, v4: rest & IS_V6 == 0 }.into();
        Flow {
            src: addr(a, b),
            dst: addr(c, d),
            protocol: rest as u8,
            ports: (rest & HAS_PORTS != 0).then_some(((rest >> 48) as u16, (rest >> 32) as u16)),
        }
    }

    #[inline]
    fn hash(&self) -> u64 {
        let FlowKey([a, b, c, d, rest]) = *self;
        let mut h = (a.rotate_left(32) ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h = (h.rotate_left(32) ^ c.rotate_left(32) ^ d).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        (h ^ rest).wrapping_mul(0x9e37_79b9_7f4a_7c15)
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

/// One worker's cache of decisions.
pub struct FlowCache {
    /// Pairs of lines: a flow is in one of the two of its hash.
    lines: Box<[[Line; 2]]>,
    shift: u32,
    spd_version: u64,
    workers: u32,
}

/// Flows that are cached, at least and at most, by how many policies there can be.
const FLOWS: (u32, u32) = (1 << 12, 1 << 18);

impl FlowCache {
    /// An empty cache for one of `workers` workers, and as many flows as there may be policies, twice.
    pub fn new(workers: u32, max_policies: u32) -> FlowCache {
        let pairs = max_policies.next_power_of_two().clamp(FLOWS.0, FLOWS.1) as usize;
        let unused = Line { key: FlowKey::NONE, spd_version: u64::MAX, decision: Decision::Inner(None) };
        let lines = vec![[unused; 2]; pairs].into_boxed_slice();
        FlowCache { lines, shift: 64 - pairs.trailing_zeros(), spd_version: 0, workers }
    }

    /// Once per turn: which version of the SPD the decisions must come from.
    pub fn turn(&mut self, reader: &Reader) {
        self.spd_version = reader.spd_version();
    }

    /// Brings what [`FlowCache::clear`] looks at into the CPU's cache.
    #[inline]
    pub fn prefetch(&self, key: &FlowKey) {
        portcullis_sadb::prefetch(&self.lines[self.pair(key)]);
    }

    /// The same for [`FlowCache::inner`].
    #[inline]
    pub fn prefetch_inner(&self, key: &FlowKey) {
        self.prefetch(&key.inner());
    }

    /// What to do with a clear packet of this flow.
    #[inline]
    pub fn clear(&mut self, reader: &Reader, key: &FlowKey) -> Clear {
        match self.decide(*key, |flow| decide_clear(reader, flow)) {
            Decision::Clear(clear) => clear,
            Decision::Protect(policy) => self.protect(reader, policy),
            Decision::Inner(_) => Clear::NoPolicy,
        }
    }

    /// The `reqid` of the policy that lets a decapsulated packet of this flow in (RFC 4301 §5.2).
    #[inline]
    pub fn inner(&mut self, reader: &Reader, key: &FlowKey) -> Option<u32> {
        let decide = |flow: &Flow| {
            let hit = reader.lookup(Direction::Inbound, flow).filter(|h| h.action == Action::Protect);
            Decision::Inner(hit.map(|h| h.reqid))
        };
        match self.decide(key.inner(), decide) {
            Decision::Inner(reqid) => reqid,
            Decision::Clear(_) | Decision::Protect(_) => None,
        }
    }

    /// What the policy says now, in a version of the SPD that is this turn's.
    #[inline]
    fn protect(&self, reader: &Reader, policy: PolicyIndex) -> Clear {
        let with = |slot| {
            let spi = reader.spi(slot)?;
            Some(Clear::Protect { slot, owner: worker_of_spi(spi.0, self.workers) })
        };
        reader.policy_sa(policy).and_then(with).unwrap_or(Clear::NoSa)
    }

    #[inline]
    fn pair(&self, key: &FlowKey) -> usize {
        (key.hash() >> self.shift) as usize
    }

    #[inline]
    fn decide(&mut self, key: FlowKey, decide: impl FnOnce(&Flow) -> Decision) -> Decision {
        let (at, version) = (self.pair(&key), self.spd_version);
        let [first, second] = &mut self.lines[at];
        if first.key == key && first.spd_version == version {
            return first.decision;
        }
        if second.key == key && second.spd_version == version {
            return second.decision;
        }
        let decision = decide(&key.flow());
        *second = *first;
        *first = Line { key, spd_version: version, decision };
        decision
    }
}

/// A flow that the inbound policies want protected must not come in clear, whatever the outbound ones say of it.
#[cold]
fn decide_clear(reader: &Reader, flow: &Flow) -> Decision {
    let inbound = reader.lookup(Direction::Inbound, flow).map(|h| h.action);
    if inbound == Some(Action::Protect) {
        return Decision::Clear(Clear::Unprotected); // RFC 4301 §5.2
    }
    let outbound = reader.lookup(Direction::Outbound, flow).map(|h| (h.action, h.index));
    Decision::Clear(match (outbound, inbound) {
        (Some((Action::Protect, policy)), _) => return Decision::Protect(policy),
        (Some((Action::Discard, _)), _) | (None, Some(Action::Discard)) => Clear::Discard,
        (Some((Action::Bypass, _)), _) | (None, Some(Action::Bypass)) => Clear::Bypass,
        (None, _) => Clear::NoPolicy,
    })
}
