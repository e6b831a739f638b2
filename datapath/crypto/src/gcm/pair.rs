//! Short packets two by two, beside each other in vectors of 512 bits: two blocks of each packet a vector.
//!
//! An AES round of both is one instruction, and so is a product of their hashes. The hash of a pair is computed between
//! the rounds of the next pair: a CPU looks ahead by some hundred instructions, and what is encrypted has to be hashed
//! behind that, so that it would wait at each pair for the one to end and the other to begin. The compiler would put one
//! behind the other, too; hence what is [pinned](Vector::pinned).
//!
//! What *unsafe* means here is what it means in [`kernel`](super::kernel).
#![allow(unsafe_op_in_unsafe_fn, reason = "each function's contract is the same; see above")]

use super::{
    super::Job,
    ghash::{Sum, powers},
    kernel::{NUMBERS, STEPS, each},
    vector::{Lanes, Vector},
};
use core::arch::x86_64::*;

/// Two packets of as many blocks.
type Pair<'a> = [&'a Job<'a>; 2];

/// What of each packet is in lanes of its own.
const SECOND: __mmask8 = 0xf0;
const FIRST_BLOCKS: __mmask8 = 0b0011_0011;
const LAST_BLOCKS: __mmask8 = 0b1100_1100;

/// A block of each packet, in all its lanes.
#[inline(always)]
unsafe fn blocks(of: Pair<'_>, block: impl Fn(&Job<'_>) -> *const u8) -> __m512i {
    let first = __m512i::splat(__m128i::load(block(of[0])));
    _mm512_mask_broadcast_i64x2(first, SECOND, __m128i::load(block(of[1])))
}

/// Two blocks of each.
#[inline(always)]
unsafe fn beside(first: __m256i, second: __m256i) -> __m512i {
    _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1)
}

/// What is still to be hashed of a pair: `NV` vectors of both, turned over.
#[derive(Clone, Copy)]
struct Hash<'a, const NV: usize> {
    of: Pair<'a>,
    x: [__m512i; NV],
    /// E(J0) of each.
    masks: __m256i,
    /// The ICVs that came with them.
    icvs: __m256i,
}

impl<'a, const NV: usize> Hash<'a, NV> {
    /// Of nothing: no use is to be made of what comes of it.
    #[inline(always)]
    unsafe fn none(of: Pair<'a>) -> Hash<'a, NV> {
        Hash { of, x: [__m512i::zero(); NV], masks: __m256i::zero(), icvs: __m256i::zero() }
    }

    /// What is done behind one of the first [`STEPS`] rounds.
    #[inline(always)]
    unsafe fn step<const HAS_ROOM: bool>(
        &self,
        step: usize,
        sum: &mut Sum<__m512i>,
        folded: &mut Sum<__m256i>,
    ) {
        let keys = [self.of[0].key(), self.of[1].key()];
        let power = |key| powers::<__m128i>(key, 1);
        each!(y < NV => {
            if step == y * 4 / NV + 1 {
                let n = const { 2 * NV + !HAS_ROOM as usize } - 2 * y;
                sum.add_schoolbook(self.x[y], beside(powers(keys[0], n), powers(keys[1], n)));
            }
        });
        match step {
            1..5 => sum.pin(),
            5 => {
                *folded = sum.folded_beside();
                if !HAS_ROOM {
                    let lengths = __m256i::beside(self.of[0].lengths(), self.of[1].lengths());
                    let h = __m256i::beside(power(keys[0]), power(keys[1]));
                    folded.add_schoolbook(lengths, h);
                }
                folded.pin();
            }
            6 => {
                *folded = folded.reduce_low();
                folded.pin();
            }
            _ => {}
        }
    }

    /// When all steps are done: ICVs are stored, or it is told which are right.
    #[inline(always)]
    unsafe fn finish<const OPEN: bool>(&self, folded: Sum<__m256i>) -> [bool; 2] {
        let icvs = folded.reduce_high().reversed().xor(self.masks);
        if OPEN {
            let counts = __m256i::splat(_mm_set1_epi8(-1).keep(self.of[0].icv as usize));
            return icvs.xor(self.icvs).and(counts).are_zero();
        }
        each!(g < 2 => { self.of[g].set_icv(self.of[g].behind(), icvs.block(g)); });
        [true; 2]
    }

    /// All of it.
    #[inline(always)]
    unsafe fn all<const OPEN: bool, const HAS_ROOM: bool>(&self) -> [bool; 2] {
        let (mut sum, mut folded) = (Sum::zero(), Sum::zero());
        each!(i < STEPS => { self.step::<HAS_ROOM>(i + 1, &mut sum, &mut folded); });
        self.finish::<OPEN>(folded)
    }
}

/// En- or decrypts a pair, and does between the rounds what is to be done about the one before.
#[inline(always)]
unsafe fn transform<'a, const NV: usize, const OPEN: bool, const HAS_ROOM: bool>(
    of: Pair<'a>,
    before: &Hash<'_, NV>,
) -> (Hash<'a, NV>, Sum<__m256i>) {
    let round_key =
        |round: usize| blocks(of, |p| (&raw const p.key().round_keys).cast::<u8>().wrapping_add(16 * round));
    let whitened = blocks(of, |p| (&raw const p.nonce).cast()).xor(round_key(0));
    let mut s = [__m512i::zero(); NV];
    each!(y < NV => {
        let numbers = __m256i::load((&raw const NUMBERS).cast::<u8>().add(32 * y));
        s[y] = whitened.xor(_mm512_broadcast_i64x4(numbers));
    });
    let rounds = of[0].key().head.rounds as usize;
    let (mut sum, mut folded) = (Sum::zero(), Sum::zero());
    macro_rules! round {
        ($round:expr) => {
            let key = round_key($round);
            each!(y < NV => { s[y] = s[y].aesenc(key); });
        };
    }
    each!(i < STEPS => {
        round!(i + 1);
        each!(y < NV => { s[y] = s[y].pinned(); });
        before.step::<HAS_ROOM>(i + 1, &mut sum, &mut folded);
    });
    round!(STEPS + 1);
    for round in STEPS + 2..rounds {
        round!(round);
    }
    let key = round_key(rounds);
    // Before the last blocks are stored over their beginnings.
    let icvs = __m256i::beside(__m128i::load(of[0].behind()), __m128i::load(of[1].behind()));
    let mut hash = Hash { icvs, ..Hash::none(of) };
    each!(y < NV => {
        let stream = s[y].aesenclast(key);
        let at = |g: usize| of[g].text.wrapping_sub(16).wrapping_add(32 * y);
        let is_end = y + 1 == NV;
        let input = match is_end && HAS_ROOM {
            true => beside(__m256i::load_blocks(at(0), 1), __m256i::load_blocks(at(1), 1)),
            false => beside(__m256i::load(at(0)), __m256i::load(at(1))),
        };
        let mut output = input.xor(stream);
        let mut x = if OPEN { input } else { output };
        if is_end {
            let octets = |g: usize| _bzhi_u32(u32::MAX, of[g].len as u32 + 16 - 32 * y as u32);
            x = _mm512_maskz_mov_epi8(octets(0) as u64 | (octets(1) as u64) << 32, x);
        }
        if y == 0 {
            hash.masks = _mm512_castsi512_si256(_mm512_shuffle_i64x2::<0b10_00_10_00>(stream, stream));
            output = _mm512_mask_blend_epi64(FIRST_BLOCKS, output, input);
            x = _mm512_mask_blend_epi64(FIRST_BLOCKS, x, blocks(of, |p| (&raw const p.aad).cast()));
        }
        x = x.reversed();
        if is_end && HAS_ROOM {
            let lengths = _mm512_mask_broadcast_i64x2(__m512i::splat(of[0].lengths()), SECOND, of[1].lengths());
            x = _mm512_mask_blend_epi64(LAST_BLOCKS, x, lengths);
            output.block(0).store(at(0));
            output.block(2).store(at(1));
        } else {
            _mm512_castsi512_si256(output).store(at(0));
            _mm512_extracti64x4_epi64(output, 1).store(at(1));
        }
        hash.x[y] = x;
    });
    (hash, folded)
}

/// Packets of one kind, of `NV` vectors, two by two. What is left over is returned. While a pair is worked on, the memory of
/// the next is asked for.
#[inline(always)]
pub(super) unsafe fn pairs<'o, const NV: usize, const OPEN: bool, const HAS_ROOM: bool>(
    ps: &[Job<'_>],
    order: &'o [u8],
    good: &mut [bool],
) -> &'o [u8] {
    let (pairs, rest) = order.as_chunks::<2>();
    let Some(first) = pairs.first() else { return rest };
    let of = |pair: &[u8; 2]| [ps.get_unchecked(pair[0] as usize), ps.get_unchecked(pair[1] as usize)];
    let mut tell = |pair: &[u8; 2], told: [bool; 2]| {
        if OPEN {
            each!(g < 2 => { *good.get_unchecked_mut(pair[g] as usize) = told[g]; });
        }
    };
    let (mut hash, _) = transform::<NV, OPEN, HAS_ROOM>(of(first), &Hash::none(of(first)));
    let mut last = first;
    for (n, pair) in pairs.iter().enumerate().skip(1) {
        let now = of(pair);
        if let Some(next) = pairs.get(n + 1) {
            each!(g < 2 => { of(next)[g].prefetch(now[g]); });
        }
        let (next, folded) = transform::<NV, OPEN, HAS_ROOM>(now, &hash);
        tell(last, hash.finish::<OPEN>(folded));
        (hash, last) = (next, pair);
    }
    tell(last, hash.all::<OPEN, HAS_ROOM>());
    rest
}
