//! The SPD: ordered policies, found by tuple-space search while the writer goes on changing them.
//!
//! A *tuple* is a way to mask a flow: prefix lengths, and whether protocol and ports are exact. A lookup
//! masks the flow by each tuple in use (a handful, for real policies) and follows one short hash chain;
//! of what matches, the lowest priority wins, then the longer prefixes, then the older policy. Tuples that
//! cannot win any more are skipped.
//!
//! Slots in a chain are unlinked first and used again only when every worker's epoch has passed, so a reader
//! that stands on one still finds its way to the end of the chain.
//!
//! A lookup that meets two changes could see the second and not the first: of a policy that replaces another,
//! neither; and a wider Bypass would win for a moment. So a lookup during which the version changed starts
//! again. One change by itself is seen or not seen. Who copies policies and is no worker does the same for each.

use crate::{
    Direction, SadbError, SlotIndex,
    layout::shared,
    sa::{address, address_words},
    sync::{AtomicU32, AtomicU64, Ordering, fence},
};
use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

/// Tuples per direction, at most.
pub const MAX_TUPLES: usize = if cfg!(loom) { 2 } else { 512 };

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

/// An address prefix, without bits behind its length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// The prefix of that length, or `None` if the length is too large; bits behind it are cleared.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        if len > bits {
            return None;
        }
        Some(Prefix { addr: address(addr.is_ipv4(), &masked(address_words(addr), len)), len })
    }

    /// Its address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Its length in bits.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether an address is in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4()
            && Prefix::new(addr, self.len).is_some_and(|p| p.addr == self.addr)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for Prefix {
    type Err = SadbError;
    /// `address/length`, or an address alone.
    fn from_str(s: &str) -> Result<Prefix, SadbError> {
        let bad = || SadbError::BadPrefix(s.to_owned());
        let (addr, len) = s.split_once('/').map_or((s, None), |(a, l)| (a, Some(l)));
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let len = match len {
            Some(l) => l.parse().map_err(|_| bad())?,
            None if addr.is_ipv4() => 32,
            None => 128,
        };
        Prefix::new(addr, len).ok_or_else(bad)
    }
}

/// Which packets a policy is about (RFC 4301 §4.4.1.1).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Selector {
    /// Source.
    pub src: Prefix,
    /// Destination, of the same family.
    pub dst: Prefix,
    /// Upper protocol; `None` is any.
    pub protocol: Option<u8>,
    /// Source ports; `0..=65535` is any.
    pub src_ports: RangeInclusive<u16>,
    /// Destination ports; `0..=65535` is any.
    pub dst_ports: RangeInclusive<u16>,
}

/// Any port.
pub const ANY_PORT: RangeInclusive<u16> = 0..=u16::MAX;

impl Selector {
    /// All traffic between two prefixes.
    pub fn between(src: Prefix, dst: Prefix) -> Selector {
        Selector { src, dst, protocol: None, src_ports: ANY_PORT, dst_ports: ANY_PORT }
    }

    /// Whether it matches a flow. A flow without ports matches only selectors that do not ask for any.
    pub fn matches(&self, flow: &Flow) -> bool {
        let ports = match flow.ports {
            Some((s, d)) => self.src_ports.contains(&s) && self.dst_ports.contains(&d),
            None => self.src_ports == ANY_PORT && self.dst_ports == ANY_PORT,
        };
        self.src.contains(flow.src)
            && self.dst.contains(flow.dst)
            && self.protocol.is_none_or(|p| p == flow.protocol)
            && ports
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.src, self.dst)?;
        if let Some(p) = self.protocol {
            write!(f, ", protocol {p}")?;
        }
        for (name, ports) in [("source", &self.src_ports), ("destination", &self.dst_ports)] {
            if *ports != ANY_PORT {
                write!(f, ", {name} port {}-{}", ports.start(), ports.end())?;
            }
        }
        Ok(())
    }
}

/// The fields of a packet that selectors look at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Upper protocol.
    pub protocol: u8,
    /// Source and destination port, where the protocol has them and the packet shows them.
    pub ports: Option<(u16, u16)>,
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
    /// Protect, outbound: the SA in use.
    pub sa: Option<SlotIndex>,
}

/// What a lookup found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PolicyHit {
    /// Which policy.
    pub index: PolicyIndex,
    /// What to do.
    pub action: Action,
    /// The SA in use, for Protect and outbound.
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
    /// One policy in the region: two cache lines, the first has what a lookup compares.
    #[repr(C, align(128))]
    pub(crate) struct PolicySlot {
        pub(crate) state: AtomicU32,
        /// The next in the chain: index + 1, or 0.
        pub(crate) next: AtomicU32,
        /// Outbound Protect: slot + 1, or 0.
        pub(crate) sa: AtomicU32,
        pub(crate) priority: AtomicU32,
        /// [`Tuple::bits`].
        tuple: AtomicU64,
        src: [AtomicU64; 2],
        dst: [AtomicU64; 2],
        /// Source ports first and last, destination ports first and last, 16 bits each.
        ports: AtomicU64,
        pub(crate) reqid: AtomicU32,
        /// Protocol, whether any protocol, action: 8 bits each.
        kinds: AtomicU32,
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<PolicySlot>() == 128 && align_of::<PolicySlot>() == 128);

/// One way to mask a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Tuple {
    direction: u8,
    v4: bool,
    src_len: u8,
    dst_len: u8,
    protocol_exact: bool,
    src_port_exact: bool,
    dst_port_exact: bool,
}

impl Tuple {
    fn of(policy: &Policy) -> Tuple {
        let s = &policy.selector;
        let exact = |r: &RangeInclusive<u16>| r.start() == r.end();
        Tuple {
            direction: policy.direction as u8,
            v4: s.src.addr.is_ipv4(),
            src_len: s.src.len,
            dst_len: s.dst.len,
            protocol_exact: s.protocol.is_some(),
            src_port_exact: exact(&s.src_ports),
            dst_port_exact: exact(&s.dst_ports),
        }
    }

    /// Never 0.
    pub(crate) fn bits(self) -> u64 {
        self.direction as u64
            | (self.v4 as u64) << 8
            | (self.protocol_exact as u64) << 9
            | (self.src_port_exact as u64) << 10
            | (self.dst_port_exact as u64) << 11
            | (self.src_len as u64) << 16
            | (self.dst_len as u64) << 24
    }

    fn from_bits(bits: u64) -> Tuple {
        let bit = |i: u32| bits >> i & 1 == 1;
        Tuple {
            direction: bits as u8,
            v4: bit(8),
            protocol_exact: bit(9),
            src_port_exact: bit(10),
            dst_port_exact: bit(11),
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
    pub(crate) heads: &'a [AtomicU32],
    /// `MAX_TUPLES` for inbound, then as many for outbound.
    pub(crate) tuples: &'a [TupleSlot],
    /// Advanced behind each change.
    pub(crate) version: &'a AtomicU64,
    pub(crate) seed: u64,
}

/// How often a reader starts again; a writer that is faster than that is not one of ours.
const ATTEMPTS: usize = if cfg!(loom) { 3 } else { 100 };

/// Chain heads for so many policies.
pub(crate) fn heads_for(max_policies: u32) -> usize {
    (max_policies as usize * 2).next_power_of_two()
}

/// A flow or a selector as one tuple sees it.
struct Masked {
    tuple: u64,
    src: [u64; 2],
    dst: [u64; 2],
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

    /// A policy, whole, for a reader that no epoch keeps its slot from being used again: before a slot is filled
    /// again there is a version in which its former policy was retired.
    pub(crate) fn copy(&self, index: PolicyIndex) -> Option<Policy> {
        let slot = self.policies.get(index.0 as usize)?;
        self.in_one_version(|| slot.policy())
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
            // And with the Release in `point`.
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
        let mut best: Option<((u32, u16, u32), &PolicySlot)> = None;
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
                    let specific = u16::MAX - t.src_len as u16 - t.dst_len as u16;
                    let rank = (policy.priority.load(Ordering::Relaxed), specific, index.0);
                    if best.is_none_or(|(b, _)| rank < b) {
                        best = Some((rank, policy));
                    }
                }
            }
        }
        best.map(|((priority, _, index), policy)| PolicyHit {
            index: PolicyIndex(index),
            action: policy.action(),
            sa: policy.sa.load(Ordering::Relaxed).checked_sub(1).map(SlotIndex),
            reqid: policy.reqid.load(Ordering::Relaxed),
            priority,
        })
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

    /// A live policy with the same direction, selector and priority.
    pub(crate) fn twin(&self, policy: &Policy) -> Option<PolicyIndex> {
        self.chain(self.head(&Spd::masked_policy(policy)))
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

impl PolicySlot {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> PolicySlot {
        let (half, word) = (|| AtomicU32::new(0), || AtomicU64::new(0));
        PolicySlot {
            state: half(),
            next: half(),
            sa: half(),
            priority: half(),
            tuple: word(),
            src: [word(), word()],
            dst: [word(), word()],
            ports: word(),
            reqid: half(),
            kinds: half(),
        }
    }

    /// Writer: fills a free slot; readers meet it once it is linked and live.
    pub(crate) fn fill(&self, policy: &Policy) {
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
            | (policy.action as u32) << 16;
        self.kinds.store(kinds, Ordering::Relaxed);
        self.sa.store(policy.sa.map_or(0, |s| s.0 + 1), Ordering::Relaxed);
        self.state.store(LIVE, Ordering::Release); // pairs with the Acquire in `policy`
    }

    /// Writer: gives a policy another SA, or none.
    pub(crate) fn point(&self, sa: Option<SlotIndex>) {
        // Pairs with the Acquire fence in `in_one_version`: who finds the SA here finds it published.
        self.sa.store(sa.map_or(0, |s| s.0 + 1), Ordering::Release);
    }

    /// Writer: no lookup has it any more. Part of a change, which `bump` ends and orders.
    pub(crate) fn retire(&self) {
        self.state.store(RETIRED, Ordering::Relaxed);
    }

    fn port_ranges(&self) -> (RangeInclusive<u16>, RangeInclusive<u16>) {
        let p = self.ports.load(Ordering::Relaxed);
        (p as u16..=(p >> 16) as u16, (p >> 32) as u16..=(p >> 48) as u16)
    }

    fn action(&self) -> Action {
        match self.kinds.load(Ordering::Relaxed) >> 16 & 0xff {
            1 => Action::Protect,
            2 => Action::Bypass,
            _ => Action::Discard,
        }
    }

    fn matches(&self, m: &Masked, flow: &Flow) -> bool {
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
        protocol
            && match flow.ports {
                Some((s, d)) => src_ports.contains(&s) && dst_ports.contains(&d),
                None => src_ports == ANY_PORT && dst_ports == ANY_PORT,
            }
    }

    /// The policy in this slot, if one lives there.
    pub(crate) fn policy(&self) -> Option<Policy> {
        (self.state.load(Ordering::Acquire) == LIVE).then(|| self.decode()).flatten()
    }

    /// The policy that is or was in this slot.
    pub(crate) fn decode(&self) -> Option<Policy> {
        let t = Tuple::from_bits(self.tuple.load(Ordering::Relaxed));
        let load =
            |w: &[AtomicU64; 2]| address(t.v4, &[w[0].load(Ordering::Relaxed), w[1].load(Ordering::Relaxed)]);
        let kinds = self.kinds.load(Ordering::Relaxed);
        let (src_ports, dst_ports) = self.port_ranges();
        let sa = self.sa.load(Ordering::Relaxed).checked_sub(1).map(SlotIndex);
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
            sa,
        })
    }
}

/// The first `len` bits of an address; IPv4 lengths count from the top as well.
fn masked(words: [u64; 2], len: u8) -> [u64; 2] {
    let mask = |n: u8| if n == 0 { 0 } else { u64::MAX << (64 - n.min(64)) };
    [words[0] & mask(len), words[1] & mask(len.saturating_sub(64))]
}
