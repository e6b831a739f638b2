//! Vectors of one, two or four 128-bit blocks: the instructions that the kernel is made of.
//!
//! Each method is one or a few instructions, and is inlined into the kernel's entry points, which alone say
//! which CPU features they need. That is what *unsafe* means here: the CPU has the features that the type's
//! implementation names, and pointers are to as many octets as the method moves.
#![allow(unsafe_op_in_unsafe_fn, reason = "each method's contract is the same; see above")]

use core::arch::{asm, x86_64::*};

/// Blocks that are hashed at once, at most.
pub(super) const MOST: usize = 16;

/// Some 128-bit blocks side by side, lane 0 first in memory.
pub(super) trait Vector: Copy {
    /// Lanes.
    const BLOCKS: usize;
    /// Blocks that are hashed at once.
    const CHUNK: usize;
    /// Whether three multiplications and a few sums beat four multiplications.
    const KARATSUBA: bool;
    unsafe fn zero() -> Self;
    unsafe fn load(p: *const u8) -> Self;
    /// The first `blocks` lanes; zeros in the others. `1 <= blocks <= BLOCKS`.
    unsafe fn load_blocks(p: *const u8, blocks: usize) -> Self;
    unsafe fn store(self, p: *mut u8);
    /// The first `blocks` lanes. `1 <= blocks <= BLOCKS`.
    unsafe fn store_blocks(self, p: *mut u8, blocks: usize);
    /// The same block in each lane.
    unsafe fn splat(block: __m128i) -> Self;
    /// The block in lane 0, zeros in the others.
    unsafe fn from_block(block: __m128i) -> Self;
    /// Lane `i`, a constant.
    unsafe fn block(self, i: usize) -> __m128i;
    /// Lane 0 of `other`, and the rest of `self`.
    unsafe fn with_block0_of(self, other: Self) -> Self;
    /// `block` in lane `i` but the first; `1 <= i < BLOCKS`.
    unsafe fn with_block(self, i: usize, block: __m128i) -> Self;
    /// Zeros in all but the first `n` octets. `1 <= n <= 16 * BLOCKS`.
    unsafe fn keep(self, n: usize) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    unsafe fn xor3(self, a: Self, b: Self) -> Self;
    /// Adds the 32-bit integers.
    unsafe fn add32(self, other: Self) -> Self;
    /// Reverses the octets of each block.
    unsafe fn reversed(self) -> Self;
    /// Reverses the octets of each block's last 32-bit integer.
    unsafe fn counter_swapped(self) -> Self;
    /// Exchanges the halves of each block.
    unsafe fn swapped(self) -> Self;
    unsafe fn aesenc(self, key: Self) -> Self;
    unsafe fn aesenclast(self, key: Self) -> Self;
    /// Carry-less products of a half of each block: `0x00` low by low, `0x11` high by high, and so on.
    unsafe fn clmul<const HALVES: i32>(self, other: Self) -> Self;
    /// The sum of all lanes.
    unsafe fn sum(self) -> __m128i;
    /// The same, which the compiler moves neither ahead of what is pinned before nor behind what is pinned later.
    unsafe fn pinned(self) -> Self;
}

/// Vectors in whose lanes short packets are hashed side by side: one packet, or two.
pub(super) trait Lanes: Vector {
    /// A block in lane 0, and another in lane 1, if there is one.
    unsafe fn beside(first: __m128i, second: __m128i) -> Self;
    /// The sum of all lanes in lane 0, and that of another's in lane 1, if there is one.
    unsafe fn sums(self, second: Self) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    /// Which lanes are zero, in constant time.
    unsafe fn are_zero(self) -> [bool; 2];
}

const REVERSE: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
const REVERSE_TOP: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 14, 13, 12];

#[inline(always)]
unsafe fn constant(bytes: &[u8; 16]) -> __m128i {
    _mm_loadu_si128(bytes.as_ptr().cast())
}

/// 32 octets of ones, then as many zeros: a mask for any number of octets is a load from it.
static ONES: [u8; 64] = {
    let mut m = [0; 64];
    let mut i = 0;
    while i < 32 {
        m[i] = 0xff;
        i += 1;
    }
    m
};

/// AES-NI, PCLMULQDQ, SSSE3 and AVX.
impl Vector for __m128i {
    const BLOCKS: usize = 1;
    const CHUNK: usize = 8;
    const KARATSUBA: bool = true;
    #[inline(always)]
    unsafe fn zero() -> Self {
        _mm_setzero_si128()
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self {
        _mm_loadu_si128(p.cast())
    }
    #[inline(always)]
    unsafe fn load_blocks(p: *const u8, _: usize) -> Self {
        Self::load(p)
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8) {
        _mm_storeu_si128(p.cast(), self)
    }
    #[inline(always)]
    unsafe fn store_blocks(self, p: *mut u8, _: usize) {
        self.store(p)
    }
    #[inline(always)]
    unsafe fn splat(block: __m128i) -> Self {
        block
    }
    #[inline(always)]
    unsafe fn from_block(block: __m128i) -> Self {
        block
    }
    #[inline(always)]
    unsafe fn block(self, _: usize) -> __m128i {
        self
    }
    #[inline(always)]
    unsafe fn with_block0_of(self, other: Self) -> Self {
        other
    }
    #[inline(always)]
    unsafe fn with_block(self, _: usize, block: __m128i) -> Self {
        let _ = block;
        self
    }
    #[inline(always)]
    unsafe fn keep(self, n: usize) -> Self {
        _mm_and_si128(self, _mm_loadu_si128(ONES.as_ptr().add(32 - n).cast()))
    }
    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        _mm_xor_si128(self, other)
    }
    #[inline(always)]
    unsafe fn xor3(self, a: Self, b: Self) -> Self {
        _mm_xor_si128(_mm_xor_si128(a, b), self)
    }
    #[inline(always)]
    unsafe fn add32(self, other: Self) -> Self {
        _mm_add_epi32(self, other)
    }
    #[inline(always)]
    unsafe fn reversed(self) -> Self {
        _mm_shuffle_epi8(self, constant(&REVERSE))
    }
    #[inline(always)]
    unsafe fn counter_swapped(self) -> Self {
        _mm_shuffle_epi8(self, constant(&REVERSE_TOP))
    }
    #[inline(always)]
    unsafe fn swapped(self) -> Self {
        _mm_shuffle_epi32(self, 0x4e)
    }
    #[inline(always)]
    unsafe fn aesenc(self, key: Self) -> Self {
        _mm_aesenc_si128(self, key)
    }
    #[inline(always)]
    unsafe fn aesenclast(self, key: Self) -> Self {
        _mm_aesenclast_si128(self, key)
    }
    #[inline(always)]
    unsafe fn clmul<const HALVES: i32>(self, other: Self) -> Self {
        _mm_clmulepi64_si128(self, other, HALVES)
    }
    #[inline(always)]
    unsafe fn sum(self) -> __m128i {
        self
    }
    #[inline(always)]
    unsafe fn pinned(mut self) -> Self {
        asm!("/* {0} */", inout(xmm_reg) self, options(nomem, nostack, preserves_flags));
        self
    }
}

impl Lanes for __m128i {
    #[inline(always)]
    unsafe fn beside(first: __m128i, _: __m128i) -> Self {
        first
    }
    #[inline(always)]
    unsafe fn sums(self, _: Self) -> Self {
        self
    }
    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        _mm_and_si128(self, other)
    }
    #[inline(always)]
    unsafe fn are_zero(self) -> [bool; 2] {
        [is_zero(self); 2]
    }
}

/// VAES, VPCLMULQDQ and AVX2.
impl Vector for __m256i {
    const BLOCKS: usize = 2;
    const CHUNK: usize = 16;
    const KARATSUBA: bool = true;
    #[inline(always)]
    unsafe fn zero() -> Self {
        _mm256_setzero_si256()
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self {
        _mm256_loadu_si256(p.cast())
    }
    #[inline(always)]
    unsafe fn load_blocks(p: *const u8, blocks: usize) -> Self {
        if blocks == 2 { Self::load(p) } else { Self::from_block(__m128i::load(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8) {
        _mm256_storeu_si256(p.cast(), self)
    }
    #[inline(always)]
    unsafe fn store_blocks(self, p: *mut u8, blocks: usize) {
        self.block(0).store(p);
        if blocks == 2 {
            self.block(1).store(p.add(16));
        }
    }
    #[inline(always)]
    unsafe fn splat(block: __m128i) -> Self {
        _mm256_broadcastsi128_si256(block)
    }
    #[inline(always)]
    unsafe fn from_block(block: __m128i) -> Self {
        _mm256_zextsi128_si256(block)
    }
    #[inline(always)]
    unsafe fn block(self, i: usize) -> __m128i {
        if i == 0 { _mm256_castsi256_si128(self) } else { _mm256_extracti128_si256(self, 1) }
    }
    #[inline(always)]
    unsafe fn with_block0_of(self, other: Self) -> Self {
        _mm256_blend_epi32(self, other, 0x0f)
    }
    #[inline(always)]
    unsafe fn with_block(self, _: usize, block: __m128i) -> Self {
        _mm256_inserti128_si256(self, block, 1)
    }
    #[inline(always)]
    unsafe fn keep(self, n: usize) -> Self {
        _mm256_and_si256(self, _mm256_loadu_si256(ONES.as_ptr().add(32 - n).cast()))
    }
    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        _mm256_xor_si256(self, other)
    }
    #[inline(always)]
    unsafe fn xor3(self, a: Self, b: Self) -> Self {
        _mm256_xor_si256(_mm256_xor_si256(a, b), self)
    }
    #[inline(always)]
    unsafe fn add32(self, other: Self) -> Self {
        _mm256_add_epi32(self, other)
    }
    #[inline(always)]
    unsafe fn reversed(self) -> Self {
        _mm256_shuffle_epi8(self, Self::splat(constant(&REVERSE)))
    }
    #[inline(always)]
    unsafe fn counter_swapped(self) -> Self {
        _mm256_shuffle_epi8(self, Self::splat(constant(&REVERSE_TOP)))
    }
    #[inline(always)]
    unsafe fn swapped(self) -> Self {
        _mm256_shuffle_epi32(self, 0x4e)
    }
    #[inline(always)]
    unsafe fn aesenc(self, key: Self) -> Self {
        _mm256_aesenc_epi128(self, key)
    }
    #[inline(always)]
    unsafe fn aesenclast(self, key: Self) -> Self {
        _mm256_aesenclast_epi128(self, key)
    }
    #[inline(always)]
    unsafe fn clmul<const HALVES: i32>(self, other: Self) -> Self {
        _mm256_clmulepi64_epi128(self, other, HALVES)
    }
    #[inline(always)]
    unsafe fn sum(self) -> __m128i {
        self.block(0).xor(self.block(1))
    }
    #[inline(always)]
    unsafe fn pinned(self) -> Self {
        #[inline]
        #[target_feature(enable = "avx")]
        fn pinned(mut v: __m256i) -> __m256i {
            // SAFETY: there is no instruction in it.
            unsafe { asm!("/* {0} */", inout(ymm_reg) v, options(nomem, nostack, preserves_flags)) };
            v
        }
        pinned(self)
    }
}

impl Lanes for __m256i {
    #[inline(always)]
    unsafe fn beside(first: __m128i, second: __m128i) -> Self {
        _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1)
    }
    #[inline(always)]
    unsafe fn sums(self, second: Self) -> Self {
        _mm256_permute2x128_si256::<0x20>(self, second).xor(_mm256_permute2x128_si256::<0x31>(self, second))
    }
    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        _mm256_and_si256(self, other)
    }
    #[inline(always)]
    unsafe fn are_zero(self) -> [bool; 2] {
        let halves = _mm256_cmpeq_epi64(self, Self::zero());
        let bits = _mm256_movemask_pd(_mm256_castsi256_pd(halves));
        [bits & 3 == 3, bits & 12 == 12]
    }
}

/// VAES, VPCLMULQDQ, and AVX-512 F, BW, VL and DQ.
impl Vector for __m512i {
    const BLOCKS: usize = 4;
    const CHUNK: usize = 16;
    const KARATSUBA: bool = false;
    #[inline(always)]
    unsafe fn zero() -> Self {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self {
        _mm512_loadu_si512(p.cast())
    }
    #[inline(always)]
    unsafe fn load_blocks(p: *const u8, blocks: usize) -> Self {
        _mm512_maskz_loadu_epi64(lanes(blocks), p.cast())
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8) {
        _mm512_storeu_si512(p.cast(), self)
    }
    #[inline(always)]
    unsafe fn store_blocks(self, p: *mut u8, blocks: usize) {
        _mm512_mask_storeu_epi64(p.cast(), lanes(blocks), self)
    }
    #[inline(always)]
    unsafe fn splat(block: __m128i) -> Self {
        _mm512_broadcast_i32x4(block)
    }
    #[inline(always)]
    unsafe fn from_block(block: __m128i) -> Self {
        _mm512_zextsi128_si512(block)
    }
    #[inline(always)]
    unsafe fn block(self, i: usize) -> __m128i {
        match i {
            0 => _mm512_castsi512_si128(self),
            1 => _mm512_extracti32x4_epi32(self, 1),
            2 => _mm512_extracti32x4_epi32(self, 2),
            _ => _mm512_extracti32x4_epi32(self, 3),
        }
    }
    #[inline(always)]
    unsafe fn with_block0_of(self, other: Self) -> Self {
        _mm512_mask_blend_epi64(0b11, self, other)
    }
    #[inline(always)]
    unsafe fn with_block(self, i: usize, block: __m128i) -> Self {
        _mm512_mask_broadcast_i32x4(self, 0b1111 << (4 * i), block)
    }
    #[inline(always)]
    unsafe fn keep(self, n: usize) -> Self {
        _mm512_maskz_mov_epi8(_bzhi_u64(u64::MAX, n as u32), self)
    }
    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        _mm512_xor_si512(self, other)
    }
    #[inline(always)]
    unsafe fn xor3(self, a: Self, b: Self) -> Self {
        _mm512_ternarylogic_epi64(self, a, b, 0x96)
    }
    #[inline(always)]
    unsafe fn add32(self, other: Self) -> Self {
        _mm512_add_epi32(self, other)
    }
    #[inline(always)]
    unsafe fn reversed(self) -> Self {
        _mm512_shuffle_epi8(self, Self::splat(constant(&REVERSE)))
    }
    #[inline(always)]
    unsafe fn counter_swapped(self) -> Self {
        _mm512_shuffle_epi8(self, Self::splat(constant(&REVERSE_TOP)))
    }
    #[inline(always)]
    unsafe fn swapped(self) -> Self {
        _mm512_shuffle_epi32(self, 0x4e)
    }
    #[inline(always)]
    unsafe fn aesenc(self, key: Self) -> Self {
        _mm512_aesenc_epi128(self, key)
    }
    #[inline(always)]
    unsafe fn aesenclast(self, key: Self) -> Self {
        _mm512_aesenclast_epi128(self, key)
    }
    #[inline(always)]
    unsafe fn clmul<const HALVES: i32>(self, other: Self) -> Self {
        _mm512_clmulepi64_epi128(self, other, HALVES)
    }
    #[inline(always)]
    unsafe fn sum(self) -> __m128i {
        _mm512_castsi512_si256(self).xor(_mm512_extracti64x4_epi64(self, 1)).sum()
    }
    #[inline(always)]
    unsafe fn pinned(self) -> Self {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn pinned(mut v: __m512i) -> __m512i {
            // SAFETY: there is no instruction in it.
            unsafe { asm!("/* {0} */", inout(zmm_reg) v, options(nomem, nostack, preserves_flags)) };
            v
        }
        pinned(self)
    }
}

/// Whether a block is zero, in constant time.
#[inline(always)]
pub(super) unsafe fn is_zero(block: __m128i) -> bool {
    _mm_testz_si128(block, block) != 0
}

/// Two bits for each block.
#[inline(always)]
unsafe fn lanes(blocks: usize) -> u8 {
    _bzhi_u32(0xff, 2 * blocks as u32) as u8
}
