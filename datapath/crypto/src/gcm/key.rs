//! An expanded AES-GCM key: powers of the hash key, and the round keys.

use super::{super::Head, ghash, kernel};
use core::arch::x86_64::*;
use zeroize::Zeroize;

/// Powers of H that are kept: as many as blocks are hashed at once, and one for the lengths.
pub(super) const POWERS: usize = 17;

/// Round keys of AES-256.
const ROUND_KEYS: usize = 15;

/// Powers of H, round keys, and what jobs take from a key. It is wiped when it is dropped.
///
/// Powers descend, so that a vector of consecutive blocks loads the powers that it is to be multiplied by. A
/// short packet uses the last few, right in front of the head and the round keys: with AES-128 and 64 octets, five
/// lines in a row are all that it touches. A vector that reaches past H^1 reads what is there, and multiplies it by zero.
///
/// H^17 is the last in a cache line. So a chunk's powers and the head each begin with one.
#[repr(C, align(16))]
pub(in super::super) struct Key {
    /// H^17 ... H^1, as `ghash::Sum` has them: reflected, and multiplied by x.
    pub(super) powers: [u128; POWERS],
    pub(in super::super) head: Head,
    pub(super) round_keys: [u128; ROUND_KEYS],
}

const _: () = assert!(size_of::<Key>() == 528 && size_of::<Head>() == 16);

impl Drop for Key {
    fn drop(&mut self) {
        self.powers.zeroize();
        self.round_keys.zeroize();
        self.head.salt.zeroize();
    }
}

impl Key {
    /// Expands a key of 16, 24 or 32 octets; `None` for any other length.
    pub(in super::super) fn new(key: &[u8], head: Head) -> Option<Key> {
        if !matches!(key.len(), 16 | 24 | 32) || !super::is_available(super::Aead::AesNi) {
            return None;
        }
        let mut expanded = Key { powers: [0; POWERS], head, round_keys: [0; ROUND_KEYS] };
        // SAFETY: the CPU has the features; the length is one of a key.
        unsafe { expanded.expand(key) };
        Some(expanded)
    }

    /// Brings what a short packet needs with AES-128 into the CPU's cache: five lines from H^8 on.
    #[inline]
    pub(in super::super) fn prefetch(&self) {
        portcullis_sadb::prefetch(&self.powers[POWERS - 8]);
        portcullis_sadb::prefetch(&self.powers[POWERS - 4]);
        portcullis_sadb::prefetch(&self.head);
        portcullis_sadb::prefetch(&self.round_keys[3]);
        portcullis_sadb::prefetch(&self.round_keys[7]);
    }

    /// Besides, what a longer packet needs: the lines of H^16 to H^9.
    #[inline]
    pub(super) fn prefetch_chunk(&self) {
        portcullis_sadb::prefetch(&self.powers[POWERS - 16]);
        portcullis_sadb::prefetch(&self.powers[POWERS - 12]);
    }

    /// FIPS 197 §5.2, and NIST SP 800-38D §7.1 step 1.
    ///
    /// # Safety
    /// The CPU has the features, and `key` has 16, 24 or 32 octets.
    #[target_feature(enable = "avx,aes,pclmulqdq,ssse3")]
    unsafe fn expand(&mut self, key: &[u8]) {
        let (nk, rounds) = (key.len() / 4, key.len() / 4 + 6);
        let mut words = [0u32; 4 * ROUND_KEYS];
        for (word, octets) in words.iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes([octets[0], octets[1], octets[2], octets[3]]);
        }
        let mut rcon = 1;
        for i in nk..4 * (rounds + 1) {
            let mut word = words[i - 1];
            if i % nk == 0 {
                word = substituted(word).rotate_right(8) ^ rcon;
                rcon = (rcon << 1) ^ if rcon & 0x80 != 0 { 0x11b } else { 0 };
            } else if nk > 6 && i % nk == 4 {
                word = substituted(word);
            }
            words[i] = words[i - nk] ^ word;
        }
        for (key, w) in self.round_keys.iter_mut().zip(words.chunks_exact(4)) {
            *key = w[0] as u128 | (w[1] as u128) << 32 | (w[2] as u128) << 64 | (w[3] as u128) << 96;
        }
        words.zeroize();
        // SAFETY: the CPU has the features.
        let h = u128::from_be_bytes(unsafe { kernel::encrypted_zero(self, rounds) });
        // Times x: what is shifted out comes back as the polynomial, whichever it is.
        let h = h << 1 ^ (0xc200_0000_0000_0000_0000_0000_0000_0001 & (h >> 127).wrapping_neg());
        let mut power = h;
        for slot in self.powers.iter_mut().rev() {
            *slot = power;
            // SAFETY: the CPU has the features.
            power = unsafe { ghash::multiplied(power, h) };
        }
    }
}

/// FIPS 197 §5.1.1, of each octet of a word, in constant time: a round without its key, of a block whose columns are
/// the same, so that shifted rows are, too.
#[target_feature(enable = "aes")]
fn substituted(word: u32) -> u32 {
    let block = _mm_aesenclast_si128(_mm_set1_epi32(word as i32), _mm_setzero_si128());
    _mm_cvtsi128_si32(block) as u32
}
