//! Policies with several SAs: one for each class of traffic (RFC 4301 §4.1), or one for each worker (RFC 9611).
//!
//! Routers send packets of different DSCPs in an order of their own. In one SA, those that come late would be left of the
//! replay window; so each class has an SA, with a window of its own. Workers that have an SA each need not hand what they
//! receive to the one that has the sequence numbers.
//!
//! A set has its place by its policy's index: a word for each DSCP, or for each worker, as the policy's word says
//! (`policy_sa.rs`). A rekey stores the words of one class or of one worker. While a policy is given other classes, a
//! reader may see a part of the change: the packet then goes by another SA of the same policy. No DSCP is without its SA on
//! the way from one to another.

use crate::{
    SlotIndex,
    layout::shared,
    sync::{AtomicU32, Ordering},
};

/// DSCPs that there are (RFC 2474 §3).
pub const DSCPS: usize = 64;

/// The SAs of a policy, by class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Classes {
    /// Of each DSCP.
    sas: [Option<SlotIndex>; DSCPS],
    /// Of those that no class was added for.
    default: Option<SlotIndex>,
}

impl Classes {
    /// One class, which has all DSCPs.
    pub fn new(sa: Option<SlotIndex>) -> Classes {
        Classes { sas: [sa; DSCPS], default: sa }
    }

    /// One class more, which takes these DSCPs from the others.
    pub fn add(&mut self, dscps: &[u8], sa: Option<SlotIndex>) {
        dscps.iter().for_each(|dscp| self.sas[*dscp as usize % DSCPS] = sa);
    }

    pub(crate) fn of(sa: impl Fn(usize) -> Option<SlotIndex>, default: Option<SlotIndex>) -> Classes {
        Classes { sas: std::array::from_fn(sa), default }
    }

    /// The SA of packets with a DSCP.
    pub fn sa(&self, dscp: u8) -> Option<SlotIndex> {
        self.sas[dscp as usize % DSCPS]
    }

    /// The SA of the DSCPs that no class was added for.
    pub fn default_sa(&self) -> Option<SlotIndex> {
        self.default
    }

    /// All SAs that packets leave by, some of them several times.
    pub fn sas(&self) -> impl Iterator<Item = SlotIndex> + '_ {
        self.sas.iter().copied().chain([self.default]).flatten()
    }
}

/// Words of a set.
pub(crate) const SET: usize = if cfg!(loom) { 2 } else { 64 };

shared! {
    /// The SAs of a policy in the region, beside the one that its word names: slot + 1, or 0.
    #[repr(C, align(64))]
    pub(crate) struct SaSet {
        sas: [AtomicU32; SET],
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SaSet>() == 256 && DSCPS <= SET && crate::layout::MAX_WORKERS <= SET);

impl SaSet {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> SaSet {
        SaSet { sas: std::array::from_fn(|_| AtomicU32::new(0)) }
    }

    /// The SA of a DSCP, or of a worker.
    pub(crate) fn get(&self, of: usize) -> Option<SlotIndex> {
        // Pairs with the Release in `point`: the SA was published before.
        self.sas.get(of)?.load(Ordering::Acquire).checked_sub(1).map(SlotIndex)
    }

    /// All of them, some several times.
    pub(crate) fn sas(&self) -> impl Iterator<Item = SlotIndex> + '_ {
        (0..SET).filter_map(|of| self.get(of))
    }

    /// Writer: another SA, or none. What stays is not stored again.
    pub(crate) fn point(&self, of: usize, sa: Option<SlotIndex>) {
        if self.get(of) != sa {
            self.sas[of].store(sa.map_or(0, |s| s.0 + 1), Ordering::Release); // pairs with the Acquire in `get`
        }
    }

    /// Writer: an SA goes.
    pub(crate) fn forget(&self, sa: SlotIndex) {
        for of in (0..SET).filter(|of| self.get(*of) == Some(sa)) {
            self.point(of, None);
        }
    }
}
