//! An SA for each class of traffic under one policy (RFC 4301 §4.1).
//!
//! Routers send packets of different DSCPs in an order of their own. In one SA, those that come late would be left of the
//! replay window; so each class has an SA, with a window of its own.
//!
//! A set has its place by its policy's index, and is read if the policy's word says [`SlotIndex::BY_CLASS`]. A rekey of a
//! class stores one word. While a set is given other classes, a reader may see a part of the change: the packet then goes
//! by another SA of the same policy. No class is without its SA on the way from one that has one to another.

use crate::{
    SlotIndex,
    layout::shared,
    sync::{AtomicU32, AtomicU64, Ordering},
};

/// Classes of a policy, at most.
pub const CLASSES: usize = 8;

/// DSCPs that there are (RFC 2474 §3).
pub const DSCPS: usize = 64;

/// The SAs of a policy, by class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Classes {
    /// Of each DSCP the class.
    of: [u8; DSCPS],
    sas: [Option<SlotIndex>; CLASSES],
    used: usize,
}

impl Classes {
    /// One class, which has all DSCPs.
    pub fn new(sa: Option<SlotIndex>) -> Classes {
        let mut sas = [None; CLASSES];
        sas[0] = sa;
        Classes { of: [0; DSCPS], sas, used: 1 }
    }

    /// One class more, which takes these DSCPs from the others. False if there are too many, or a DSCP is none.
    #[must_use]
    pub fn add(&mut self, dscps: &[u8], sa: Option<SlotIndex>) -> bool {
        let fits = self.used < CLASSES && dscps.iter().all(|dscp| (*dscp as usize) < DSCPS);
        if fits {
            dscps.iter().for_each(|dscp| self.of[*dscp as usize] = self.used as u8);
            self.sas[self.used] = sa;
            self.used += 1;
        }
        fits
    }

    /// The SA of packets with a DSCP.
    pub fn sa(&self, dscp: u8) -> Option<SlotIndex> {
        self.sas[self.of[dscp as usize % DSCPS] as usize]
    }

    /// All SAs, the first that of the DSCPs that no class was added for.
    pub fn sas(&self) -> impl Iterator<Item = SlotIndex> + '_ {
        self.sas.iter().copied().flatten()
    }
}

/// DSCPs whose classes stand in a word.
const PER_WORD: usize = 16;

shared! {
    /// The classes of a policy in the region: one cache line.
    #[repr(C, align(64))]
    pub(crate) struct ClassSet {
        /// Of each DSCP the class, 4 bits each, the lowest first.
        of: [AtomicU64; 4],
        /// Of each class the slot + 1, or 0.
        sas: [AtomicU32; 8],
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<ClassSet>() == 64 && PER_WORD * 4 == DSCPS);

impl ClassSet {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> ClassSet {
        ClassSet {
            of: std::array::from_fn(|_| AtomicU64::new(0)),
            sas: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    fn class(&self, dscp: usize) -> usize {
        // Pairs with the Release in `set`: who finds a DSCP in a class finds the class with its SA.
        let word = self.of[dscp / PER_WORD % 4].load(Ordering::Acquire);
        (word >> (dscp % PER_WORD * 4)) as usize % CLASSES
    }

    fn sa_of(&self, class: usize) -> Option<SlotIndex> {
        // Pairs with the Release in `set` and `point`: the SA was published before.
        self.sas[class].load(Ordering::Acquire).checked_sub(1).map(SlotIndex)
    }

    /// The SA of packets with a DSCP.
    pub(crate) fn sa(&self, dscp: u8) -> Option<SlotIndex> {
        self.sa_of(self.class(dscp as usize))
    }

    /// The SA of the DSCPs that no class was added for.
    pub(crate) fn default_sa(&self) -> Option<SlotIndex> {
        self.sa_of(0)
    }

    /// All SAs.
    pub(crate) fn sas(&self) -> impl Iterator<Item = SlotIndex> + '_ {
        (0..CLASSES).filter_map(|class| self.sa_of(class))
    }

    /// As it is now.
    pub(crate) fn get(&self) -> Classes {
        let of: [u8; DSCPS] = std::array::from_fn(|dscp| self.class(dscp) as u8);
        let sas = std::array::from_fn(|class| self.sa_of(class));
        let used = 1 + of.iter().copied().max().unwrap_or(0) as usize;
        Classes { of, sas, used }
    }

    fn point(&self, class: usize, sa: Option<SlotIndex>) {
        let word = sa.map_or(0, |s| s.0 + 1);
        if self.sas[class].load(Ordering::Relaxed) != word {
            self.sas[class].store(word, Ordering::Release); // pairs with the Acquire in `sa_of`
        }
    }

    /// Writer: other classes, or other SAs of these. What stays is not stored again.
    pub(crate) fn set(&self, classes: &Classes) {
        let (some, none): (Vec<_>, Vec<_>) = classes.sas.iter().enumerate().partition(|(_, sa)| sa.is_some());
        some.into_iter().for_each(|(class, sa)| self.point(class, *sa));
        for (word, of) in self.of.iter().zip(classes.of.as_chunks::<PER_WORD>().0) {
            let packed = of.iter().rev().fold(0, |packed, class| packed << 4 | *class as u64);
            if word.load(Ordering::Relaxed) != packed {
                word.store(packed, Ordering::Release); // pairs with the Acquire in `class`
            }
        }
        none.into_iter().for_each(|(class, sa)| self.point(class, *sa));
    }

    /// Writer: an SA goes; its class has none from now on.
    pub(crate) fn forget(&self, sa: SlotIndex) {
        for class in (0..CLASSES).filter(|class| self.sa_of(*class) == Some(sa)) {
            self.point(class, None);
        }
    }
}
