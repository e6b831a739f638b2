//! The anti-replay window (RFC 4303 §3.4.3, RFC 4303 §A2).
//!
//! Two verbs: [`ReplayWindow::check`] before the crypto, on what a packet claims; [`ReplayWindow::commit`]
//! after it, with the proof that the ICV was right. Commit checks again, since two copies in one batch both
//! pass the check.
//!
//! The window is a ring of 64-bit words, at least one more than it needs (RFC 6479), and a power of two: the word that the window's left
//! edge is leaving is wiped as a whole when the right edge enters it, so no bit is ever shifted. The top of
//! the window and the ring are of 64-bit sequence numbers; [`ReplayWindow::infer`] finds the high half of
//! what the wire carries.

use crate::{crypto::IcvVerified, drop::DropReason};

/// Words of the smaller windows, which are kept in line: 1024 packets and the word to wipe.
const INLINE: usize = (1024 / 64 + 1usize).next_power_of_two();

/// How far back a packet may be, for the inference of its high half, where no window says so.
const UNCHECKED_REACH: u32 = 1 << 20;

/// Which sequence numbers of an inbound SA were received.
pub struct ReplayWindow {
    /// The highest number received.
    top: u64,
    /// Packets, a multiple of 64; 0 if the check is off.
    size: u64,
    /// Words of the ring, less one.
    mask: u64,
    esn: bool,
    /// The words of a larger window.
    large: Option<Box<[u64]>>,
    inline: [u64; INLINE],
}

impl ReplayWindow {
    /// A window of `size` packets, a multiple of 64, or 0 for no check. Windows over 1024 packets allocate.
    pub fn new(size: u32, esn: bool) -> ReplayWindow {
        let words = (size as usize / 64 + 1).next_power_of_two();
        let large = (words > INLINE).then(|| vec![0; words].into_boxed_slice());
        let mask = words.max(INLINE) as u64 - 1;
        ReplayWindow { top: 0, size: size as u64, mask, esn, large, inline: [0; INLINE] }
    }

    /// Takes every number up to `highest` as received: what a restarted datapath does.
    pub fn resume(&mut self, highest: u64) {
        self.top = highest;
        if highest == 0 {
            return self.words().fill(0);
        }
        self.words().fill(u64::MAX);
        // Bits of the top word above `highest` are of numbers still to come.
        let within = highest % 64;
        let n = self.index(highest);
        self.words()[n] = if within == 63 { u64::MAX } else { (1 << (within + 1)) - 1 };
    }

    /// The highest number received.
    pub fn top(&self) -> u64 {
        self.top
    }

    /// The 64-bit number of a packet from the half that the wire carries (RFC 4303 §A2.2).
    pub fn infer(&self, seq_lo: u32) -> u64 {
        if !self.esn {
            return seq_lo as u64;
        }
        let (top_hi, top_lo) = (self.top >> 32, self.top as u32);
        let size = if self.size == 0 { UNCHECKED_REACH } else { self.size as u32 };
        let bottom = top_lo.wrapping_sub(size - 1);
        let one_subspace = top_lo >= size - 1;
        let hi = match (one_subspace, seq_lo >= bottom) {
            (true, true) => top_hi,
            (true, false) => top_hi + 1,
            // The window reaches back into the former subspace. Before the first there is none: the packet is
            // far ahead, and its ICV will tell.
            (false, true) => top_hi.saturating_sub(1),
            (false, false) => top_hi,
        };
        hi << 32 | seq_lo as u64
    }

    /// Whether a packet may be new, by what it claims.
    ///
    /// # Errors
    /// [`DropReason::ReplayDuplicate`], [`DropReason::ReplayTooOld`].
    #[inline]
    pub fn check(&self, seq: u64) -> Result<(), DropReason> {
        if self.size == 0 {
            return Ok(());
        }
        // RFC 4303 §3.3.3: the first number is 1.
        if seq == 0 || self.top.checked_sub(self.size).is_some_and(|left| seq <= left) {
            return Err(DropReason::ReplayTooOld);
        }
        if seq <= self.top && self.bit(seq) {
            return Err(DropReason::ReplayDuplicate);
        }
        Ok(())
    }

    /// Takes a number as received. Only a packet whose ICV was right may move the window.
    ///
    /// # Errors
    /// As [`ReplayWindow::check`]; the window is as it was.
    #[inline]
    pub fn commit(&mut self, seq: u64, _proof: IcvVerified) -> Result<(), DropReason> {
        self.check(seq)?;
        if self.size != 0 {
            self.take(seq);
        }
        self.top = self.top.max(seq);
        Ok(())
    }

    fn take(&mut self, seq: u64) {
        let (from, to) = (self.top / 64, seq / 64);
        if to > from {
            // Words that the right edge enters hold bits of long ago.
            let entered = (to - from).min(self.words().len() as u64);
            for word in to + 1 - entered..=to {
                let n = self.ring(word);
                self.words()[n] = 0;
            }
        }
        let n = self.index(seq);
        self.words()[n] |= 1 << (seq % 64);
    }

    fn bit(&self, seq: u64) -> bool {
        self.large.as_deref().unwrap_or(&self.inline)[self.index(seq)] >> (seq % 64) & 1 == 1
    }

    fn words(&mut self) -> &mut [u64] {
        self.large.as_deref_mut().unwrap_or(&mut self.inline)
    }

    fn index(&self, seq: u64) -> usize {
        self.ring(seq / 64)
    }

    fn ring(&self, word: u64) -> usize {
        (word & self.mask) as usize
    }
}

#[cfg(test)]
mod tests;
