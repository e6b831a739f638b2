//! GHASH (NIST SP 800-38D §6.4): products of blocks and powers of H, summed and reduced.
//!
//! What *unsafe* means here is what it means in [`kernel`](super::kernel): the CPU has the features of the vectors, and
//! pointers to keys are to keys.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function's contract is the same; see above")]

use super::{
    key::{Key, POWERS},
    vector::{Lanes, Vector},
};
use core::arch::x86_64::*;

/// Sums of products, not yet reduced: of low halves, of high halves, and of mixed ones.
///
/// Blocks are reflected, H multiplied by x: then a product is reduced by two multiplications (S. Gueron's method).
#[derive(Clone, Copy)]
pub(super) struct Sum<V> {
    low: V,
    middle: V,
    high: V,
}

impl<V: Vector> Sum<V> {
    #[inline(always)]
    pub(super) unsafe fn zero() -> Sum<V> {
        Sum { low: V::zero(), middle: V::zero(), high: V::zero() }
    }

    /// Adds x·h; `both` is the sum of h's halves. The middle lacks low and high until [`Sum::karatsuba`].
    #[inline(always)]
    pub(super) unsafe fn add_karatsuba(&mut self, x: V, h: V, both: V) {
        self.low = self.low.xor(x.clmul::<0x00>(h));
        self.high = self.high.xor(x.clmul::<0x11>(h));
        self.middle = self.middle.xor(halves(x).clmul::<0x00>(both));
    }

    #[inline(always)]
    pub(super) unsafe fn karatsuba(self) -> Sum<V> {
        Sum { middle: self.middle.xor3(self.low, self.high), ..self }
    }

    #[inline(always)]
    pub(super) unsafe fn add_schoolbook(&mut self, x: V, h: V) {
        self.low = self.low.xor(x.clmul::<0x00>(h));
        self.high = self.high.xor(x.clmul::<0x11>(h));
        self.middle = self.middle.xor3(x.clmul::<0x01>(h), x.clmul::<0x10>(h));
    }

    /// Adds x·h, whichever way is faster when the sum of h's halves is not known; [`Sum::settled`] goes with it.
    #[inline(always)]
    pub(super) unsafe fn add(&mut self, x: V, h: V) {
        if V::KARATSUBA { self.add_karatsuba(x, h, halves(h)) } else { self.add_schoolbook(x, h) }
    }

    #[inline(always)]
    pub(super) unsafe fn settled(self) -> Sum<V> {
        if V::KARATSUBA { self.karatsuba() } else { self }
    }

    /// See [`Vector::pinned`].
    #[inline(always)]
    pub(super) unsafe fn pin(&mut self) {
        (self.low, self.middle, self.high) = (self.low.pinned(), self.middle.pinned(), self.high.pinned());
    }

    /// The sum of all lanes.
    #[inline(always)]
    pub(super) unsafe fn folded(self) -> Sum<__m128i> {
        Sum { low: self.low.sum(), middle: self.middle.sum(), high: self.high.sum() }
    }

    /// First half of the reduction: what is low goes to the middle.
    #[inline(always)]
    pub(super) unsafe fn reduce_low(self) -> Sum<V> {
        let carry = V::splat(polynomial()).clmul::<0x01>(self.low);
        Sum { middle: self.middle.xor3(self.low.swapped(), carry), ..self }
    }

    /// Second half: what is in the middle goes to the high block, which is the result.
    #[inline(always)]
    pub(super) unsafe fn reduce_high(self) -> V {
        let carry = V::splat(polynomial()).clmul::<0x01>(self.middle);
        self.high.xor3(self.middle.swapped(), carry)
    }
}

impl<V: Lanes> Sum<V> {
    /// The sum of all lanes in lane 0, and that of another's in lane 1, if there is one.
    #[inline(always)]
    pub(super) unsafe fn beside(self, second: Self) -> Self {
        Sum {
            low: self.low.sums(second.low),
            middle: self.middle.sums(second.middle),
            high: self.high.sums(second.high),
        }
    }
}

impl Sum<__m512i> {
    /// Of two packets, two lanes each: the sum of the first's in lane 0, that of the second's in lane 1.
    #[inline(always)]
    pub(super) unsafe fn folded_beside(self) -> Sum<__m256i> {
        let folded = |a, b| {
            _mm512_shuffle_i64x2::<0b10_00_10_00>(a, b).xor(_mm512_shuffle_i64x2::<0b11_01_11_01>(a, b))
        };
        let (ends, middle) = (folded(self.low, self.high), folded(self.middle, self.middle));
        Sum {
            low: _mm512_castsi512_si256(ends),
            middle: _mm512_castsi512_si256(middle),
            high: _mm512_extracti64x4_epi64(ends, 1),
        }
    }
}

/// x^128 + x^127 + x^126 + x^121 + 1, reflected: its high half.
#[inline(always)]
unsafe fn polynomial() -> __m128i {
    _mm_set_epi64x(0xc200_0000_0000_0000_u64 as i64, 1)
}

/// The sum of a block's halves, in its low half.
#[inline(always)]
pub(super) unsafe fn halves<V: Vector>(x: V) -> V {
    x.xor(x.swapped())
}

/// Powers of H from the `n`-th down, in consecutive lanes.
#[inline(always)]
pub(super) unsafe fn powers<V: Vector>(key: *const Key, n: usize) -> V {
    V::load((&raw const (*key).powers).cast::<u8>().add(16 * (POWERS - n)))
}

/// The product of two powers of H, for the making of a key.
#[target_feature(enable = "avx,aes,pclmulqdq,ssse3")]
pub(super) unsafe fn multiplied(a: u128, b: u128) -> u128 {
    let mut sum = Sum::<__m128i>::zero();
    sum.add_schoolbook(__m128i::load((&raw const a).cast()), __m128i::load((&raw const b).cast()));
    let mut product = 0u128;
    sum.reduce_low().reduce_high().store((&raw mut product).cast());
    product
}
