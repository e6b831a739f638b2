//! The anti-replay window (RFC 4303 §3.4.3, RFC 4303 §A2).
//!
//! Two verbs: [`ReplayWindow::check`] before the crypto, on what a packet claims; [`ReplayWindow::commit`]
//! after it, with the proof that the ICV was right. Commit checks again, since two copies in one batch both
//! pass the check.
//!
//! The window is in words of 64 numbers. The word of the highest number is at hand, beside that number: packets in
//! order need nothing else. Those to the left of it are in a [`Ring`], which is touched once in 64 packets, or by one
//! that comes late. No bit is ever shifted (RFC 6479). All is of 64-bit sequence numbers; [`ReplayWindow::infer`] finds
//! the high half of what the wire carries.

use crate::{crypto::IcvVerified, drop::DropReason};

/// Words of the smaller rings, which need no memory of their own: 1024 packets.
const SMALL: usize = 1024 / 64;

/// How far back a packet may be, for the inference of its high half, where no window says so.
const UNCHECKED_REACH: u32 = 1 << 20;

/// The right edge of the window of an inbound SA.
pub struct ReplayWindow {
    /// The highest number received.
    top: u64,
    /// Of the 64 numbers of its word those that were received.
    word: u64,
    /// Packets, a multiple of 64; 0 if the check is off.
    size: u32,
    esn: bool,
}

/// The words of a window to the left of the top's: a power of two, at least as many as it reaches back.
pub struct Ring {
    small: [u64; SMALL],
    /// The words of a larger window.
    large: Option<Box<[u64]>>,
}

impl Ring {
    /// For windows of `size` packets. Those over 1024 packets allocate.
    pub fn new(size: u32) -> Ring {
        let words = (size as usize / 64).next_power_of_two();
        let large = (words > SMALL).then(|| vec![0; words].into_boxed_slice());
        Ring { small: [0; SMALL], large }
    }

    fn word(&self, n: u64) -> u64 {
        let words = self.large.as_deref().unwrap_or(&self.small);
        words[n as usize & (words.len() - 1)]
    }

    fn words(&mut self) -> &mut [u64] {
        self.large.as_deref_mut().unwrap_or(&mut self.small)
    }

    fn word_mut(&mut self, n: u64) -> &mut u64 {
        let words = self.words();
        let n = n as usize & (words.len() - 1);
        &mut words[n]
    }
}

impl ReplayWindow {
    /// A window of `size` packets, a multiple of 64, or 0 for no check, that takes every number up to `highest` as
    /// received: what a restarted datapath does. The ring is one for that size.
    pub fn new(size: u32, esn: bool, highest: u64, ring: &mut Ring) -> ReplayWindow {
        let seen = if highest == 0 { 0 } else { u64::MAX };
        ring.words().fill(seen);
        // Bits of the top word above `highest` are of numbers still to come.
        ReplayWindow { top: highest, word: seen >> (63 - highest % 64), size, esn }
    }

    /// The highest number received.
    #[inline]
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Whether sequence numbers are extended (RFC 4303 §2.2.1).
    #[inline]
    pub fn esn(&self) -> bool {
        self.esn
    }

    /// The 64-bit number of a packet from the half that the wire carries: the one from the left edge on (RFC 4303
    /// §A2.2).
    #[inline(always)]
    pub fn infer(&self, seq_lo: u32) -> u64 {
        if !self.esn {
            return seq_lo as u64;
        }
        let reach = if self.size == 0 { UNCHECKED_REACH } else { self.size };
        // Before the first number there is none: what would be there is far ahead, and its ICV will tell.
        let left = self.top.saturating_sub(reach as u64 - 1);
        left.wrapping_add(seq_lo.wrapping_sub(left as u32) as u64)
    }

    /// Whether a packet may be new, by what it claims.
    ///
    /// # Errors
    /// [`DropReason::ReplayDuplicate`], [`DropReason::ReplayTooOld`].
    #[inline(always)]
    pub fn check(&self, seq: u64, ring: &Ring) -> Result<(), DropReason> {
        if seq > self.top { Ok(()) } else { self.check_late(seq, ring) }
    }

    #[inline(never)]
    fn check_late(&self, seq: u64, ring: &Ring) -> Result<(), DropReason> {
        if self.size == 0 {
            return Ok(());
        }
        // RFC 4303 §3.3.3: the first number is 1.
        if seq == 0 || self.top - seq >= self.size as u64 {
            return Err(DropReason::ReplayTooOld);
        }
        let n = seq / 64;
        let word = if n == self.top / 64 { self.word } else { ring.word(n) };
        if word >> (seq % 64) & 1 == 1 { Err(DropReason::ReplayDuplicate) } else { Ok(()) }
    }

    /// Takes a number as received. Only a packet whose ICV was right may move the window.
    ///
    /// # Errors
    /// As [`ReplayWindow::check`]; the window is as it was.
    #[inline(always)]
    pub fn commit(&mut self, seq: u64, ring: &mut Ring, _proof: IcvVerified) -> Result<(), DropReason> {
        if seq <= self.top {
            return self.commit_late(seq, ring);
        }
        if seq / 64 != self.top / 64 {
            self.enter(seq / 64, ring);
        }
        self.top = seq;
        self.word |= 1 << (seq % 64);
        Ok(())
    }

    #[inline(never)]
    fn commit_late(&mut self, seq: u64, ring: &mut Ring) -> Result<(), DropReason> {
        self.check_late(seq, ring)?;
        let n = seq / 64;
        *(if n == self.top / 64 { &mut self.word } else { ring.word_mut(n) }) |= 1 << (seq % 64);
        Ok(())
    }

    /// The top's word is to be another: those up to it hold bits of long ago.
    #[inline(never)]
    fn enter(&mut self, to: u64, ring: &mut Ring) {
        let from = self.top / 64;
        *ring.word_mut(from) = self.word;
        let passed = (to - from - 1).min(ring.words().len() as u64);
        (to - passed..to).for_each(|n| *ring.word_mut(n) = 0);
        self.word = 0;
    }
}

#[cfg(test)]
mod tests;
