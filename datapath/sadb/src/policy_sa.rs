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
//! The word of a policy that has several SAs says so ([`SlotIndex::BY_CLASS`]), and which they are stands elsewhere
//! (`class_set.rs`): where each policy has one, nothing is spent on that.

use crate::{
    PolicyIndex, SlotIndex,
    sync::{AtomicU32, Ordering},
};

/// For each policy the slot + 1, or 0: outbound Protect policies that have an SA.
#[derive(Clone, Copy)]
pub(crate) struct PolicySas<'a>(pub(crate) &'a [AtomicU32]);

impl<'a> PolicySas<'a> {
    /// The SA that a policy uses now, or [`SlotIndex::BY_CLASS`].
    #[inline]
    pub(crate) fn get(self, index: PolicyIndex) -> Option<SlotIndex> {
        // Pairs with the Release in `point`: the SA was published before.
        self.word(index)?.load(Ordering::Acquire).checked_sub(1).map(SlotIndex)
    }

    #[inline]
    pub(crate) fn word(self, index: PolicyIndex) -> Option<&'a AtomicU32> {
        self.0.get(index.0 as usize)
    }

    /// Writer: gives a policy another SA, or none.
    pub(crate) fn point(self, index: PolicyIndex, sa: Option<SlotIndex>) {
        // Pairs with the Acquire in `get`.
        self.0[index.0 as usize].store(sa.map_or(0, |s| s.0 + 1), Ordering::Release);
    }
}
