//! Policies, and how one lies in the region.

use crate::{
    Direction, Fields, Flow, Populate, Prefix, Selector, SlotIndex,
    layout::shared,
    sa::{address, address_words},
    selector::ports_match,
    spd::{Masked, Tuple},
    sync::{AtomicU32, AtomicU64, Ordering},
};
use std::ops::RangeInclusive;

/// What to do with what a policy matches (RFC 4301 §4.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Action {
    /// By IPsec.
    Protect = 1,
    /// Let it through in clear.
    Bypass = 2,
    /// Drop it.
    Discard = 3,
}

/// Where a policy is in the SPD.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyIndex(pub u32);

/// A policy (RFC 4301 §4.4.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Inbound policies are asked for what comes from the network, outbound ones for what goes there.
    pub direction: Direction,
    /// Which packets.
    pub selector: Selector,
    /// The lowest wins.
    pub priority: u32,
    /// What to do.
    pub action: Action,
    /// Protect: ties it to its SAs. Inbound: the `reqid` that the SA must have.
    pub reqid: u32,
    /// Protect, outbound: the SA in use; the one part of a policy that changes while it lives. Of one that has
    /// [`Classes`](crate::Classes), that of packets of no special class.
    pub sa: Option<SlotIndex>,
}

/// What a lookup found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyHit {
    /// Which policy.
    pub index: PolicyIndex,
    /// What to do.
    pub action: Action,
    /// The SA in use, for Protect and outbound, when the lookup came to it: who keeps a hit asks
    /// [`Reader::policy_sa`](crate::Reader::policy_sa) for each packet.
    pub sa: Option<SlotIndex>,
    /// The policy's `reqid`.
    pub reqid: u32,
    /// The policy's priority.
    pub priority: u32,
}

pub(crate) const FREE: u32 = 0;
pub(crate) const LIVE: u32 = 1;
pub(crate) const RETIRED: u32 = 2;

shared! {
    /// One policy in the region: two cache lines, the first has what a lookup compares. Its SA is in
    /// [`PolicySas`](crate::policy_sa::PolicySas).
    #[repr(C, align(128))]
    pub(crate) struct PolicySlot {
        pub(crate) state: AtomicU32,
        /// The next in the chain: index + 1, or 0.
        pub(crate) next: AtomicU32,
        pub(crate) priority: AtomicU32,
        /// Protocol, whether any protocol, action, fields that are populated from packets: 8 bits each.
        kinds: AtomicU32,
        /// [`Tuple::bits`].
        tuple: AtomicU64,
        src: [AtomicU64; 2],
        dst: [AtomicU64; 2],
        /// Source ports first and last, destination ports first and last, 16 bits each.
        ports: AtomicU64,
        pub(crate) reqid: AtomicU32,
        /// The policy that it was populated from: index + 1, or 0.
        above: AtomicU32,
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<PolicySlot>() == 128 && align_of::<PolicySlot>() == 128);

impl PolicySlot {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> PolicySlot {
        let (half, word) = (|| AtomicU32::new(0), || AtomicU64::new(0));
        PolicySlot {
            state: half(),
            next: half(),
            priority: half(),
            kinds: half(),
            tuple: word(),
            src: [word(), word()],
            dst: [word(), word()],
            ports: word(),
            reqid: half(),
            above: half(),
        }
    }

    /// Writer: fills a free slot; readers meet it once it is linked and live.
    pub(crate) fn fill(&self, policy: &Policy, populate: Populate) {
        let s = &policy.selector;
        let store = |to: &[AtomicU64; 2], words: [u64; 2]| {
            to[0].store(words[0], Ordering::Relaxed);
            to[1].store(words[1], Ordering::Relaxed);
        };
        store(&self.src, address_words(s.src.addr));
        store(&self.dst, address_words(s.dst.addr));
        let ports = [*s.src_ports.start(), *s.src_ports.end(), *s.dst_ports.start(), *s.dst_ports.end()];
        let packed = ports.iter().rev().fold(0u64, |w, p| w << 16 | *p as u64);
        self.ports.store(packed, Ordering::Relaxed);
        self.tuple.store(Tuple::of(policy).bits(), Ordering::Relaxed);
        self.priority.store(policy.priority, Ordering::Relaxed);
        self.reqid.store(policy.reqid, Ordering::Relaxed);
        let kinds = s.protocol.unwrap_or(0) as u32
            | (s.protocol.is_none() as u32) << 8
            | (policy.action as u32) << 16
            | (populate.fields().0 as u32) << 24;
        self.above.store(populate.above().map_or(0, |p| p.0 + 1), Ordering::Relaxed);
        self.kinds.store(kinds, Ordering::Relaxed);
        self.state.store(LIVE, Ordering::Release); // pairs with the Acquire in `policy`
    }

    /// Writer: no lookup has it any more. Part of a change, which `bump` ends and orders.
    pub(crate) fn retire(&self) {
        self.state.store(RETIRED, Ordering::Relaxed);
    }

    fn port_ranges(&self) -> (RangeInclusive<u16>, RangeInclusive<u16>) {
        let p = self.ports.load(Ordering::Relaxed);
        (p as u16..=(p >> 16) as u16, (p >> 32) as u16..=(p >> 48) as u16)
    }

    pub(crate) fn action(&self) -> Action {
        match self.kinds.load(Ordering::Relaxed) >> 16 & 0xff {
            1 => Action::Protect,
            2 => Action::Bypass,
            _ => Action::Discard,
        }
    }

    pub(crate) fn populate(&self) -> Populate {
        match (self.above(), (self.kinds.load(Ordering::Relaxed) >> 24) as u8) {
            (Some(above), _) => Populate::Above(above),
            (None, 0) => Populate::No,
            (None, fields) => Populate::From(Fields(fields)),
        }
    }

    pub(crate) fn above(&self) -> Option<PolicyIndex> {
        self.above.load(Ordering::Relaxed).checked_sub(1).map(PolicyIndex)
    }

    /// Bits of the addresses that it leaves open: the fewer, the earlier it comes among those of its priority.
    pub(crate) fn open_bits(&self) -> u16 {
        let t = Tuple::from_bits(self.tuple.load(Ordering::Relaxed));
        2 * u8::MAX as u16 - t.src_len as u16 - t.dst_len as u16
    }

    pub(crate) fn matches(&self, m: &Masked, flow: &Flow) -> bool {
        let load = |w: &[AtomicU64; 2]| [w[0].load(Ordering::Relaxed), w[1].load(Ordering::Relaxed)];
        // What it was filled with came with the chain.
        if self.state.load(Ordering::Relaxed) != LIVE
            || self.tuple.load(Ordering::Relaxed) != m.tuple
            || load(&self.src) != m.src
            || load(&self.dst) != m.dst
        {
            return false;
        }
        let kinds = self.kinds.load(Ordering::Relaxed);
        let protocol = kinds >> 8 & 1 == 1 || kinds as u8 == flow.protocol;
        let (src_ports, dst_ports) = self.port_ranges();
        protocol && ports_match(&src_ports, &dst_ports, flow.ports)
    }

    /// The policy in this slot, if one lives there, without its SA.
    pub(crate) fn policy(&self) -> Option<Policy> {
        (self.state.load(Ordering::Acquire) == LIVE).then(|| self.decode()).flatten()
    }

    /// The policy that is or was in this slot, without its SA.
    pub(crate) fn decode(&self) -> Option<Policy> {
        let t = Tuple::from_bits(self.tuple.load(Ordering::Relaxed));
        let load =
            |w: &[AtomicU64; 2]| address(t.v4, &[w[0].load(Ordering::Relaxed), w[1].load(Ordering::Relaxed)]);
        let kinds = self.kinds.load(Ordering::Relaxed);
        let (src_ports, dst_ports) = self.port_ranges();
        Some(Policy {
            direction: t.direction.try_into().ok()?,
            selector: Selector {
                src: Prefix::new(load(&self.src), t.src_len)?,
                dst: Prefix::new(load(&self.dst), t.dst_len)?,
                protocol: (kinds >> 8 & 1 == 0).then_some(kinds as u8),
                src_ports,
                dst_ports,
            },
            priority: self.priority.load(Ordering::Relaxed),
            action: self.action(),
            reqid: self.reqid.load(Ordering::Relaxed),
            sa: None,
        })
    }
}
