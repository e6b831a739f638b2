//! The SPD: ordered policies, found by tuple-space search while the writer goes on changing them.
//!
//! A *tuple* is a way to mask a flow: prefix lengths, and whether protocol and ports are exact. A lookup
//! masks the flow by each tuple in use (a handful, for real policies) and follows one short hash chain;
//! of what matches, the lowest priority wins, then the longer prefixes, then the older policy. One that was
//! populated from a packet has the place of the one it was populated from, and comes just before it (`populate.rs`).
//! Tuples that cannot win any more are skipped.
//!
//! Slots in a chain are unlinked first and used again only when every worker's epoch has passed, so a reader
//! that stands on one still finds its way to the end of the chain.
//!
//! A lookup that meets two changes could see the second and not the first: of a policy that replaces another,
//! neither; and a wider Bypass would win for a moment. So a lookup during which the version changed starts
//! again. One change by itself is seen or not seen. Who copies policies and is no worker does the same for each.
//! Which SA a policy uses changes by itself and without a version: `policy_sa.rs`.

use crate::{
    ANY_PORT, Direction, Flow, Policy, PolicyHit, PolicyIndex, Populate, SlotIndex,
    layout::shared,
    policy::PolicySlot,
    policy_sa::{By, PolicySas},
    sa::address_words,
    sa_set::SaSet,
    selector::masked,
    sync::{AtomicU32, AtomicU64, Ordering, fence},
};
use std::ops::RangeInclusive;

/// Tuples per direction, at most.
pub const MAX_TUPLES: usize = if cfg!(loom) { 2 } else { 512 };

/// One way to mask a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Tuple {
    pub(crate) direction: u8,
    pub(crate) v4: bool,
    pub(crate) src_len: u8,
    pub(crate) dst_len: u8,
    protocol_exact: bool,
    src_port_exact: bool,
    dst_port_exact: bool,
    /// A range of ports, not all: only who asks for it is looked at with it.
    port_ranges: bool,
}

impl Tuple {
    pub(crate) fn of(policy: &Policy) -> Tuple {
        let s = &policy.selector;
        let exact = |r: &RangeInclusive<u16>| r.start() == r.end();
        let range = |r: &RangeInclusive<u16>| r.start() < r.end() && *r != ANY_PORT;
        Tuple {
            direction: policy.direction as u8,
            v4: s.src.addr.is_ipv4(),
            src_len: s.src.len,
            dst_len: s.dst.len,
            protocol_exact: s.protocol.is_some(),
            src_port_exact: exact(&s.src_ports),
            dst_port_exact: exact(&s.dst_ports),
            port_ranges: range(&s.src_ports) || range(&s.dst_ports),
        }
    }

    /// Never 0.
    pub(crate) fn bits(self) -> u64 {
        self.direction as u64
            | (self.v4 as u64) << 8
            | (self.protocol_exact as u64) << 9
            | (self.src_port_exact as u64) << 10
            | (self.dst_port_exact as u64) << 11
            | (self.port_ranges as u64) << 12
            | (self.src_len as u64) << 16
            | (self.dst_len as u64) << 24
    }

    pub(crate) fn from_bits(bits: u64) -> Tuple {
        let bit = |i: u32| bits >> i & 1 == 1;
        Tuple {
            direction: bits as u8,
            v4: bit(8),
            protocol_exact: bit(9),
            src_port_exact: bit(10),
            dst_port_exact: bit(11),
            port_ranges: bit(12),
            src_len: (bits >> 16) as u8,
            dst_len: (bits >> 24) as u8,
        }
    }
}

shared! {
    /// A tuple in use, in the region.
    #[repr(C)]
    pub(crate) struct TupleSlot {
        /// [`Tuple::bits`], or 0.
        pub(crate) bits: AtomicU64,
        /// No policy of it has a lower priority than this.
        pub(crate) best: AtomicU32,
        pub(crate) count: AtomicU32,
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<TupleSlot>() == 16);

impl TupleSlot {
    /// Writer: what a lookup may rely on. It is told before a policy is linked and after one was retired, so it
    /// is never too strict.
    pub(crate) fn set(&self, bits: u64, best: u32, count: u32) {
        let change = |word: &AtomicU32, value| {
            if word.load(Ordering::Relaxed) != value {
                word.store(value, Ordering::Relaxed);
            }
        };
        change(&self.best, best);
        change(&self.count, count);
        if self.bits.load(Ordering::Relaxed) != bits {
            self.bits.store(bits, Ordering::Relaxed);
        }
    }
}

/// The SPD over its parts of the region.
#[derive(Clone, Copy)]
pub(crate) struct Spd<'a> {
    pub(crate) policies: &'a [PolicySlot],
    pub(crate) sas: PolicySas<'a>,
    /// By policy: of those with several.
    pub(crate) sets: &'a [SaSet],
    pub(crate) heads: &'a [AtomicU32],
    /// `MAX_TUPLES` for inbound, then as many for outbound.
    pub(crate) tuples: &'a [TupleSlot],
    /// Advanced behind each change, but not when a policy is pointed to another SA.
    pub(crate) version: &'a AtomicU64,
    pub(crate) seed: u64,
}

/// The lowest wins: priority, open bits and index of the policy that gives a policy its place, whether that is itself, and
/// its own index.
type Rank = (u32, u16, u32, bool, u32);

/// How often a reader starts again; a writer that is faster than that is not one of ours.
const ATTEMPTS: usize = if cfg!(loom) { 3 } else { 100 };

/// Chain heads for so many policies.
pub(crate) fn heads_for(max_policies: u32) -> usize {
    (max_policies as usize * 2).next_power_of_two()
}

/// A flow or a selector as one tuple sees it.
pub(crate) struct Masked {
    pub(crate) tuple: u64,
    pub(crate) src: [u64; 2],
    pub(crate) dst: [u64; 2],
    protocol: u8,
    ports: (u16, u16),
}

impl<'a> Spd<'a> {
    pub(crate) fn tuples_of(&self, direction: Direction) -> &'a [TupleSlot] {
        match direction {
            Direction::Inbound => &self.tuples[..MAX_TUPLES],
            Direction::Outbound => &self.tuples[MAX_TUPLES..],
        }
    }

    fn head(&self, m: &Masked) -> &'a AtomicU32 {
        let mut h = self.seed;
        for word in [
            m.tuple,
            m.src[0],
            m.src[1],
            m.dst[0],
            m.dst[1],
            m.protocol as u64 | (m.ports.0 as u64) << 8 | (m.ports.1 as u64) << 24,
        ] {
            h = (h ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            h ^= h >> 32;
        }
        &self.heads[h as usize & (self.heads.len() - 1)]
    }

    /// Policies of a chain, in its order. Bounded, whatever the links say. A link points to what was linked before: who
    /// has the first knows them all.
    fn chain(&self, head: &AtomicU32) -> impl Iterator<Item = (PolicyIndex, &'a PolicySlot)> {
        let policies = self.policies;
        let mut at = head.load(Ordering::Acquire); // pairs with the Release in `link`
        (0..policies.len()).map_while(move |_| {
            let index = at.checked_sub(1)?;
            let slot = policies.get(index as usize)?;
            at = slot.next.load(Ordering::Relaxed);
            Some((PolicyIndex(index), slot))
        })
    }

    /// The policy for a flow, of one version of the SPD.
    pub(crate) fn lookup(&self, direction: Direction, flow: &Flow) -> Option<PolicyHit> {
        self.in_one_version(|| self.search(direction, flow))
    }

    /// Whether any policy asks for what fragments do not show: ports, or in IPv6 the protocol behind extension headers that
    /// were cut off (RFC 8200 §4.5).
    pub(crate) fn selects_ports(&self) -> bool {
        self.tuples.iter().any(|slot| {
            let t = Tuple::from_bits(slot.bits.load(Ordering::Relaxed));
            let ports = t.src_port_exact || t.dst_port_exact || t.port_ranges;
            let asks = ports || t.protocol_exact && !t.v4;
            asks && slot.count.load(Ordering::Relaxed) > 0
        })
    }

    /// A policy, whole, for a reader that no epoch keeps its slot from being used again: before a slot is filled
    /// again there is a version in which its former policy was retired.
    pub(crate) fn copy(&self, index: PolicyIndex) -> Option<Policy> {
        self.in_one_version(|| self.policy(index))
    }

    /// The policy in a slot, if one lives there.
    pub(crate) fn policy(&self, index: PolicyIndex) -> Option<Policy> {
        // Its word after its state: the word was there before it lived.
        let policy = self.policies.get(index.0 as usize)?.policy()?;
        Some(Policy { sa: self.sa(index), ..policy })
    }

    /// The SA that a policy uses, for packets of no special class and workers without one of their own.
    pub(crate) fn sa(&self, index: PolicyIndex) -> Option<SlotIndex> {
        self.sas.uses(index).1
    }

    /// The SA that a policy uses for packets with a DSCP that a worker has received.
    pub(crate) fn sa_for(&self, index: PolicyIndex, dscp: u8, worker: u32) -> Option<SlotIndex> {
        let set = self.sets.get(index.0 as usize);
        match self.sas.uses(index) {
            (By::Nothing, sa) => sa,
            (By::Dscp, _) => set?.get(dscp as usize),
            // RFC 9611 §3: who has none of its own uses that for all.
            (By::Worker, sa) => set?.get(worker as usize).or(sa),
        }
    }

    /// The set of a policy that has one asked so.
    pub(crate) fn set(&self, index: PolicyIndex, by: By) -> Option<&'a SaSet> {
        let has_it = by != By::Nothing && self.sas.uses(index).0 == by;
        self.sets.get(index.0 as usize).filter(|_| has_it)
    }

    /// All SAs that a policy uses, some several times.
    pub(crate) fn all_sas(&self, index: PolicyIndex) -> Vec<SlotIndex> {
        let (by, sa) = self.sas.uses(index);
        self.set(index, by).into_iter().flat_map(SaSet::sas).chain(sa).collect()
    }

    /// Writer: puts a policy into a free slot, for `link`.
    pub(crate) fn fill(&self, index: PolicyIndex, policy: &Policy, populate: Populate) {
        self.sas.point(index, By::Nothing, policy.sa);
        self.policies[index.0 as usize].fill(policy, populate);
    }

    /// Reads again while the version changes under it.
    #[inline]
    fn in_one_version<T>(&self, read: impl Fn() -> Option<T>) -> Option<T> {
        let mut found = None;
        for _ in 0..ATTEMPTS {
            // Pairs with the Release in `bump`: what is read has all changes up to this version.
            let version = self.version.load(Ordering::Acquire);
            found = read();
            // Pairs with the Release fence in `bump`: who saw any part of two changes sees the version between.
            fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) == version {
                break;
            }
        }
        found
    }

    /// Writer: ends a change.
    pub(crate) fn bump(&self) {
        self.version.store(self.version.load(Ordering::Relaxed) + 1, Ordering::Release);
        // Orders this version before every store of the next change, relaxed ones too, for `in_one_version`.
        fence(Ordering::Release);
    }

    fn search(&self, direction: Direction, flow: &Flow) -> Option<PolicyHit> {
        if flow.src.is_ipv4() != flow.dst.is_ipv4() {
            return None;
        }
        let (src, dst) = (address_words(flow.src), address_words(flow.dst));
        let mut best: Option<(Rank, &PolicySlot)> = None;
        for slot in self.tuples_of(direction) {
            let bits = slot.bits.load(Ordering::Relaxed);
            if bits == 0 {
                // Tuples fill up from the front, and are never taken out of the middle.
                break;
            }
            let t = Tuple::from_bits(bits);
            let hopeless = best.is_some_and(|(b, _)| slot.best.load(Ordering::Relaxed) > b.0);
            if t.v4 != flow.src.is_ipv4() || hopeless || slot.count.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if flow.ports.is_none() && (t.src_port_exact || t.dst_port_exact) {
                continue;
            }
            let ports = flow.ports.unwrap_or_default();
            let m = Masked {
                tuple: bits,
                src: masked(src, t.src_len),
                dst: masked(dst, t.dst_len),
                protocol: if t.protocol_exact { flow.protocol } else { 0 },
                ports: (
                    if t.src_port_exact { ports.0 } else { 0 },
                    if t.dst_port_exact { ports.1 } else { 0 },
                ),
            };
            for (index, policy) in self.chain(self.head(&m)) {
                if policy.matches(&m, flow) {
                    let rank = self.rank(index, policy);
                    if best.is_none_or(|(b, _)| rank < b) {
                        best = Some((rank, policy));
                    }
                }
            }
        }
        best.map(|((priority, .., index), policy)| PolicyHit {
            index: PolicyIndex(index),
            action: policy.action(),
            sa: self.sa(PolicyIndex(index)),
            reqid: policy.reqid.load(Ordering::Relaxed),
            priority,
        })
    }

    fn rank(&self, index: PolicyIndex, policy: &PolicySlot) -> Rank {
        let priority = policy.priority.load(Ordering::Relaxed);
        let above = policy.above().and_then(|above| Some((above, self.policies.get(above.0 as usize)?)));
        match above {
            Some((of, from)) => (priority, from.open_bits(), of.0, false, index.0),
            None => (priority, policy.open_bits(), index.0, true, index.0),
        }
    }

    fn masked_policy(policy: &Policy) -> Masked {
        let (t, s) = (Tuple::of(policy), &policy.selector);
        Masked {
            tuple: t.bits(),
            src: address_words(s.src.addr),
            dst: address_words(s.dst.addr),
            protocol: s.protocol.unwrap_or(0),
            ports: (
                if t.src_port_exact { *s.src_ports.start() } else { 0 },
                if t.dst_port_exact { *s.dst_ports.start() } else { 0 },
            ),
        }
    }

    /// A live policy with the same direction, selector and priority, which is populated from the same one, if from any.
    pub(crate) fn twin(&self, policy: &Policy, populate: Populate) -> Option<PolicyIndex> {
        self.chain(self.head(&Spd::masked_policy(policy)))
            .filter(|(_, slot)| slot.above() == populate.above())
            .find(|(_, slot)| {
                slot.policy().is_some_and(|p| {
                    p.selector == policy.selector
                        && p.direction == policy.direction
                        && p.priority == policy.priority
                })
            })
            .map(|(i, _)| i)
    }

    /// Whether a policy is in its chain.
    pub(crate) fn is_linked(&self, index: PolicyIndex, policy: &Policy) -> bool {
        self.chain(self.head(&Spd::masked_policy(policy))).any(|(i, _)| i == index)
    }

    /// Writer: puts a filled slot in front of its chain.
    pub(crate) fn link(&self, index: PolicyIndex, policy: &Policy) {
        let head = self.head(&Spd::masked_policy(policy));
        self.policies[index.0 as usize].next.store(head.load(Ordering::Relaxed), Ordering::Relaxed);
        head.store(index.0 + 1, Ordering::Release); // pairs with the Acquire in `chain`
    }

    /// Writer: takes a slot out of its chain; its own link stays, for readers that stand on it.
    pub(crate) fn unlink(&self, index: PolicyIndex, policy: &Policy) {
        let head = self.head(&Spd::masked_policy(policy));
        let next = self.policies[index.0 as usize].next.load(Ordering::Relaxed);
        if head.load(Ordering::Relaxed) == index.0 + 1 {
            return head.store(next, Ordering::Relaxed);
        }
        if let Some((_, before)) =
            self.chain(head).find(|(_, s)| s.next.load(Ordering::Relaxed) == index.0 + 1)
        {
            before.next.store(next, Ordering::Relaxed);
        }
    }

    /// The tuple of a policy, as bits.
    pub(crate) fn tuple_bits(policy: &Policy) -> u64 {
        Tuple::of(policy).bits()
    }
}
