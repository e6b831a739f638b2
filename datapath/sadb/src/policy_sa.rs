//! Which SA each policy uses: a word per policy, apart from what a policy *is*.
//!
//! A rekey points a policy to another SA. That changes one word here and not the version of the SPD, so that what
//! workers have decided of their flows stays: a decision names the policy, and each packet asks for its SA.
//!
//! The words are dense, sixteen to a cache line. A word is stored with Release and loaded with Acquire: who finds a
//! slot in it finds the SA published. Which SA that is can change between any two loads.
//!
//! # Danger: a policy's index is used again
//! A worker may keep an index beside the version of the SPD that it read before it looked the policy up. It may ask
//! for its SA in any turn in which it has read the version again since its epoch was announced, and found it the
//! same. Until that turn ends the index is that policy's: whoever removes a policy changes the version first and advances the epoch then, the index
//! is given to another policy only when all workers have announced that epoch, and who announces it sees the version
//! changed. A policy that is removed under the worker keeps its word until then; the SA that it names is not used
//! again before, but may be retired.
//!
//! A policy has its word before a lookup can find it. Where no policy is, the word is 0.
//!
//! The word of a policy that has several SAs says so, so that it names no slot to those who take it for one; which they are
//! stands elsewhere (`sa_set.rs`): where each policy has one, nothing is spent on that. There is an SA for each class of
//! traffic; or some workers have one of their own, and all others use the one that the word names.

use crate::{
    PolicyIndex, SlotIndex,
    layout::MAX_SAS,
    sync::{AtomicU32, Ordering},
};

/// What the SAs of a policy are asked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum By {
    /// There is one, or none.
    Nothing = 0,
    /// There is one for each DSCP.
    Dscp = 1 << 31,
    /// Some workers have one of their own.
    Worker = 1 << 30,
}

/// The part of a word that names an SA.
const SLOT: u32 = !(By::Dscp as u32 | By::Worker as u32);
const _: () = assert!(MAX_SAS < SLOT);

/// For each policy the slot + 1, or 0, of outbound Protect policies that have an SA; and what more there are asked by.
#[derive(Clone, Copy)]
pub(crate) struct PolicySas<'a>(pub(crate) &'a [AtomicU32]);

impl<'a> PolicySas<'a> {
    /// The SA that a policy uses now, or a number that is no slot, where there are several.
    #[inline]
    pub(crate) fn get(self, index: PolicyIndex) -> Option<SlotIndex> {
        // Pairs with the Release in `point`: the SA was published before.
        self.word(index)?.load(Ordering::Acquire).checked_sub(1).map(SlotIndex)
    }

    #[inline]
    pub(crate) fn word(self, index: PolicyIndex) -> Option<&'a AtomicU32> {
        self.0.get(index.0 as usize)
    }

    /// What a policy's SAs are asked by, and the SA that its word names.
    pub(crate) fn uses(self, index: PolicyIndex) -> (By, Option<SlotIndex>) {
        // Pairs with the Release in `point`: the SA was published before, and those of its set stand there.
        let word = self.word(index).map_or(0, |word| word.load(Ordering::Acquire));
        let by = match word & !SLOT {
            by if by == By::Dscp as u32 => By::Dscp,
            by if by == By::Worker as u32 => By::Worker,
            _ => By::Nothing,
        };
        (by, (word & SLOT).checked_sub(1).map(SlotIndex))
    }

    /// Writer: gives a policy another SA, or none. If others are asked for, they are in its set.
    pub(crate) fn point(self, index: PolicyIndex, by: By, sa: Option<SlotIndex>) {
        // Pairs with the Acquire in `get` and `uses`.
        self.0[index.0 as usize].store(sa.map_or(0, |s| s.0 + 1) | by as u32, Ordering::Release);
    }
}
