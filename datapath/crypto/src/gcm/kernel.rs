//! AES-GCM of many packets at a time (NIST SP 800-38D, RFC 4106), once for vectors of all widths.
//!
//! A packet is a *stream* of blocks. Stream block 0 is J0: its key stream makes the ICV, and what the hash sees in
//! its place is the additional data. Blocks 1 to n are the text. The 16 octets in front of the text lie where
//! block 0 would, so that all of it is loaded and stored in vectors from there on, and block 0 put back.
//!
//! ```text
//!  memory          | SPI, sequence number, IV |  text ...            | ICV |
//!  key stream      | E(J0)                    |  E(J0+1) E(J0+2) ... |
//!  hash            | additional data          |  ciphertext ...      | lengths |
//! ```
//!
//! - Packets of up to a chunk ([`Vector::CHUNK`]) go through [`short`], as many at a time as a vector has lanes: their
//!   rounds side by side, then their hashes, which are reduced together, each in a lane.
//!   With vectors of 512 bits, two of them share each vector ([`pair`]).
//! - Longer ones go through [`long`], a chunk at a time: the hash of one chunk is computed between the rounds of the
//!   next, and that of a packet's end between the rounds of the next packet's beginning, since neither keeps the CPU
//!   busy alone. Left to itself the compiler would put one behind the other, so all of it is [pinned](Vector::pinned).
//!   Where chunks are is for a [`Place`] to say: a packet may lie in
//!   segments.
//! - A chunk's blocks are multiplied by descending powers of H and reduced together. In long packets products are
//!   Karatsuba's, of three multiplications, where additions cost less than a fourth.
//! - Where the last vector has room, the block of lengths goes into it.
//!
//! No branch and no address depends on keys, texts or ICVs: on lengths only. That an ICV is right is told in bits.
//!
//! Dangers: every function here needs the CPU features of its vectors, and the memory that [`Job`] names. That
//! is what *unsafe* means in this file, of all of them; the entry points at its end say which features.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function's contract is the same; see above")]

use super::super::{Expanded, HEAD, ICV, Job};
use super::{
    ghash::{Sum, halves, powers},
    key::Key,
    pair,
    place::{Place, Staging},
    vector::{Lanes, Vector, is_zero},
};
use crate::BATCH;
use core::{arch::x86_64::*, array::from_fn};

const _: () = assert!(HEAD == 16 && ICV == 16);

impl<'a> Job<'a> {
    #[inline(always)]
    pub(super) unsafe fn key(&self) -> &'a Key {
        match &self.key.expanded {
            Expanded::Gcm(key) => key,
            Expanded::Portable(..) => core::hint::unreachable_unchecked(),
        }
    }

    /// Asks for the memory that is used first. That of a key is at hand, if it is the one of `now`.
    #[inline(always)]
    pub(super) unsafe fn prefetch(&self, now: &Job<'_>) {
        if !core::ptr::eq(self.key(), now.key()) {
            self.key().prefetch();
            if self.len > 16 * 7 {
                self.key().prefetch_chunk();
            }
        }
        // Of a packet in segments, their list, and whatever is behind: asking does nothing.
        for octet in [self.text.wrapping_sub(HEAD), self.text.wrapping_add(self.len as usize)] {
            _mm_prefetch::<_MM_HINT_T0>(octet.cast());
        }
    }

    /// Blocks of the stream.
    #[inline(always)]
    fn blocks(&self) -> usize {
        1 + (self.len as usize).div_ceil(16)
    }

    #[inline(always)]
    unsafe fn nonce(&self) -> __m128i {
        __m128i::load((&raw const self.nonce).cast())
    }

    #[inline(always)]
    unsafe fn aad(&self) -> __m128i {
        __m128i::load((&raw const self.aad).cast()).reversed()
    }

    /// The last block of the hash.
    #[inline(always)]
    pub(super) unsafe fn lengths(&self) -> __m128i {
        _mm_set_epi64x(8 * self.aad.len as i64, 8 * self.len as i64)
    }

    /// Behind the text of a packet in one piece.
    #[inline(always)]
    pub(super) fn behind(&self) -> *mut u8 {
        self.text.wrapping_add(self.len as usize)
    }

    #[inline(always)]
    pub(super) unsafe fn set_icv(&self, to: *mut u8, icv: __m128i) {
        if self.icv == 16 {
            return icv.store(to);
        }
        _mm_storel_epi64(to.cast(), icv);
        if self.icv == 12 {
            to.add(8).cast::<i32>().write_unaligned(_mm_extract_epi32(icv, 2));
        }
    }
}

/// Says the body for each number below a constant: a loop that is sure to be unrolled.
macro_rules! each {
    ($i:ident < $n:expr => $body:block) => { each!(@ $i $n, $body, 0 1 2 3 4 5 6 7) };
    (@ $i:ident $n:expr, $body:block, $($k:literal)+) => { $( if $k < $n { let $i: usize = $k; $body } )+ };
}
pub(super) use each;

// --- AES in counter mode (FIPS 197, NIST SP 800-38D §6.5) ---

#[inline(always)]
unsafe fn round_key<V: Vector>(key: *const Key, round: usize) -> V {
    V::splat(__m128i::load((&raw const (*key).round_keys).cast::<u8>().add(16 * round)))
}

/// The block of zeros, encrypted: H, for the making of a key.
#[target_feature(enable = "avx,aes,pclmulqdq,ssse3")]
pub(super) unsafe fn encrypted_zero(key: *const Key, rounds: usize) -> [u8; 16] {
    let mut s = round_key::<__m128i>(key, 0);
    for round in 1..rounds {
        s = s.aesenc(round_key(key, round));
    }
    let mut block = [0; 16];
    s.aesenclast(round_key(key, rounds)).store(block.as_mut_ptr());
    block
}

#[repr(C, align(64))]
pub(super) struct Numbers([[u32; 4]; 16]);

/// The numbers 1 to 16, where a counter block has its last octet.
pub(super) static NUMBERS: Numbers = {
    let mut n = [[0; 4]; 16];
    let mut i = 0;
    while i < 16 {
        n[i][3] = (i as u32 + 1) << 24;
        i += 1;
    }
    Numbers(n)
};

/// The counter blocks of a part, whose stream begins with block `first`, a multiple of a chunk.
struct Counters<V> {
    base: V,
    key: V,
    /// Both added.
    whitened: V,
    first: u32,
}

impl<V: Vector> Counters<V> {
    #[inline(always)]
    unsafe fn new(nonce: __m128i, first: u32, key: V) -> Counters<V> {
        let first_on_wire = _mm_set_epi32(first.swap_bytes() as i32, 0, 0, 0);
        let base = V::splat(nonce.xor(first_on_wire));
        Counters { base, key, whitened: base.xor(key), first }
    }

    /// Vector `y` of the part's counter blocks, with the first round key added. Block i has counter i + 1.
    #[inline(always)]
    unsafe fn block(&self, y: usize) -> V {
        let numbers = V::load((&raw const NUMBERS).cast::<u8>().add(16 * V::BLOCKS * y));
        if self.first == 0 || V::BLOCKS * (y + 1) < V::CHUNK {
            // No carry: the number has no bit that `first` has.
            self.whitened.xor(numbers)
        } else if (self.first as usize & 0xff) + V::CHUNK < 256 {
            // A carry within the last octet.
            self.base.add32(numbers).xor(self.key)
        } else {
            self.base.counter_swapped().add32(numbers.counter_swapped()).counter_swapped().xor(self.key)
        }
    }
}

// --- Both ---

/// Blocks of a packet's stream from one on: at most a chunk.
#[derive(Clone, Copy)]
struct Part {
    /// Where its first block is in memory.
    at: *mut u8,
    /// Which block of the stream that is.
    first: u32,
    blocks: usize,
    /// Octets up to the end of the text, if that is in it.
    octets: usize,
    /// Where the ICV is, if so.
    icv: *mut u8,
}

impl Part {
    #[inline(always)]
    fn new(p: &Job<'_>, at: *mut u8, first: usize, blocks: usize) -> Part {
        let octets = p.len as usize + 16 - 16 * first;
        Part { at, first: first as u32, blocks, octets, icv: at.wrapping_add(octets) }
    }

    #[inline(always)]
    fn whole(p: &Job<'_>) -> Part {
        Part { icv: p.behind(), ..Part::new(p, p.text.wrapping_sub(16), 0, p.blocks()) }
    }
}

/// What of a packet's ends a part has met.
#[derive(Clone, Copy)]
struct Ends {
    /// E(J0).
    mask: __m128i,
    /// The ICV that came with it.
    icv: __m128i,
}

/// Between the rounds of AES-128, but for the last: behind each of so many is `work` done in [`transform`].
pub(super) const STEPS: usize = 8;

/// En- or decrypts one part of each of `G` packets, in `NV` vectors each. `work` is done between the rounds; `hash` is
/// told what is to be hashed, turned over.
#[inline(always)]
unsafe fn transform<V: Vector, const G: usize, const NV: usize, const OPEN: bool>(
    (ps, parts): (&[&Job<'_>; G], &[Part; G]),
    (is_first, is_last): (bool, bool),
    mut work: impl FnMut(usize),
    mut hash: impl FnMut(usize, usize, V),
) -> [Ends; G] {
    let mut s = [[V::zero(); NV]; G];
    each!(g < G => {
        let first = if is_first { 0 } else { parts[g].first };
        let counters = Counters::new(ps[g].nonce(), first, round_key::<V>(ps[g].key(), 0));
        each!(y < NV => { s[g][y] = counters.block(y); });
    });
    let rounds = ps[0].key().head.rounds as usize;
    macro_rules! round {
        ($round:expr) => {
            each!(g < G => {
                let key = round_key::<V>(ps[g].key(), $round);
                each!(y < NV => { s[g][y] = s[g][y].aesenc(key); });
            })
        };
    }
    each!(i < STEPS => {
        round!(i + 1);
        // Between rounds a packet in one part has no work.
        if !(is_first && is_last) {
            each!(g < G => { each!(y < NV => { s[g][y] = s[g][y].pinned(); }); });
        }
        work(i + 1);
    });
    round!(STEPS + 1);
    for round in STEPS + 2..rounds {
        round!(round);
    }
    let mut ends = [Ends { mask: _mm_setzero_si128(), icv: _mm_setzero_si128() }; G];
    each!(g < G => {
        let (p, part) = (ps[g], &parts[g]);
        if OPEN && is_last {
            // Before the last block is stored over its beginning.
            ends[g].icv = __m128i::load(part.icv);
        }
        let key = round_key::<V>(p.key(), rounds);
        each!(y < NV => {
            let stream = s[g][y].aesenclast(key);
            let at = part.at.add(16 * V::BLOCKS * y);
            let (is_end, blocks) = (is_last && y + 1 == NV, part.blocks - V::BLOCKS * y);
            let input = if is_end { V::load_blocks(at, blocks) } else { V::load(at) };
            let mut output = input.xor(stream);
            let mut x = if OPEN { input } else { output };
            if is_end {
                x = x.keep(part.octets - 16 * V::BLOCKS * y);
            }
            x = x.reversed();
            if is_first && y == 0 {
                ends[g].mask = stream.block(0);
                output = output.with_block0_of(input);
                x = x.with_block0_of(V::from_block(p.aad()));
            }
            if is_end { output.store_blocks(at, blocks) } else { output.store(at) }
            hash(g, y, x);
        });
    });
    ends
}

/// The ICV of a packet. Opened, zero if the one that came with it is right.
#[inline(always)]
unsafe fn icv<const OPEN: bool>(p: &Job<'_>, sum: Sum<__m128i>, ends: &Ends) -> __m128i {
    let icv = sum.reduce_high().reversed().xor(ends.mask);
    if OPEN { icv.xor(ends.icv).keep(p.icv as usize) } else { icv }
}

/// En- or decrypts packets, as many as a vector has lanes at most, and hashes them. Which are right, if opened. `HAS_ROOM`:
/// the last vectors have a lane for the lengths.
#[inline(always)]
unsafe fn group<V: Lanes, const G: usize, const NV: usize, const OPEN: bool, const HAS_ROOM: bool>(
    ps: [&Job<'_>; G],
) -> [bool; G] {
    // All have as many.
    let blocks = const { V::BLOCKS * NV - HAS_ROOM as usize };
    let parts: [Part; G] = from_fn(
        #[inline(always)]
        |g| Part { blocks, ..Part::whole(ps[g]) },
    );
    let mut sums = [Sum::<V>::zero(); G];
    let ends = transform::<V, G, NV, OPEN>(
        (&ps, &parts),
        (true, true),
        |_| {},
        #[inline(always)]
        |g, y, block| {
            let has_lengths = HAS_ROOM && y + 1 == NV;
            let lane = blocks - V::BLOCKS * y;
            let x = if has_lengths { block.with_block(lane, ps[g].lengths()) } else { block };
            let n = blocks + 1 - V::BLOCKS * y;
            sums[g].add_schoolbook(x, powers(ps[g].key(), n));
        },
    );
    let second = G - 1;
    let mut sum = sums[0].beside(sums[second]);
    if !HAS_ROOM {
        let lengths = V::beside(ps[0].lengths(), ps[second].lengths());
        let h = V::beside(powers(ps[0].key(), 1), powers(ps[second].key(), 1));
        sum.add_schoolbook(lengths, h);
    }
    let masks = V::beside(ends[0].mask, ends[second].mask);
    let icvs = sum.reduce_low().reduce_high().reversed().xor(masks);
    let mut good = [false; G];
    if OPEN {
        let differ = icvs.xor(V::beside(ends[0].icv, ends[second].icv));
        let counts = V::splat(_mm_set1_epi8(-1).keep(ps[0].icv as usize));
        good.copy_from_slice(&differ.and(counts).are_zero()[..G]);
    } else {
        each!(g < G => { ps[g].set_icv(parts[g].icv, icvs.block(g)); });
    }
    good
}

/// Packets of one kind, of at most a chunk, `G` at a time. While a group is worked on, the memory of the next is asked for.
#[inline(always)]
unsafe fn short<
    V: Lanes,
    const G: usize,
    const NV: usize,
    const OPEN: bool,
    const HAS_ROOM: bool,
    const PAIRS: bool,
>(
    ps: &[Job<'_>],
    order: &[u8],
    good: &mut [bool],
) {
    let order = if PAIRS { pair::pairs::<NV, OPEN, HAS_ROOM>(ps, order, good) } else { order };
    let (groups, rest) = order.as_chunks::<G>();
    for (n, of) in groups.iter().enumerate() {
        let now: [&Job<'_>; G] = from_fn(
            #[inline(always)]
            |g| ps.get_unchecked(of[g] as usize),
        );
        if let Some(next) = groups.get(n + 1) {
            each!(g < G => { ps.get_unchecked(next[g] as usize).prefetch(now[g]); });
        }
        let told = group::<V, G, NV, OPEN, HAS_ROOM>(now);
        if OPEN {
            each!(g < G => { *good.get_unchecked_mut(of[g] as usize) = told[g]; });
        }
    }
    if G > 1 && !rest.is_empty() {
        short::<V, 1, NV, OPEN, HAS_ROOM, false>(ps, rest, good);
    }
}

/// Long packets from one to that whose text is asked for.
const LATER: usize = 2;

/// What is left to do of a long packet that is all en- or decrypted: the hash of its last part, in `N` vectors at most.
#[derive(Clone, Copy)]
struct Tail<'a, V, const N: usize> {
    /// The packet, if there is any.
    p: Option<&'a Job<'a>>,
    /// Its place among the jobs.
    index: u8,
    x: [V; N],
    vectors: usize,
    blocks: usize,
    icv: *mut u8,
    ends: Ends,
}

impl<V: Vector, const N: usize> Tail<'_, V, N> {
    /// Nothing is left to do. All of it is there all the same: whatever the stack has may be secret.
    #[inline(always)]
    unsafe fn none() -> Self {
        let zero = __m128i::zero();
        let (x, ends) = ([V::zero(); N], Ends { mask: zero, icv: zero });
        Tail { p: None, index: 0, x, vectors: 0, blocks: 0, icv: core::ptr::null_mut(), ends }
    }

    /// A part of the work, which is done in [`STEPS`] steps from 1 on, in this order.
    #[inline(always)]
    unsafe fn step(&self, step: usize, (sum, folded): (&mut Sum<V>, &mut Sum<__m128i>)) {
        let Some(p) = self.p else { return };
        each!(y < N => {
            if step == y * 4 / N + 1 && y < self.vectors {
                sum.add(self.x[y], powers(p.key(), self.blocks + 1 - V::BLOCKS * y));
            }
        });
        match step {
            1..5 => sum.pin(),
            5 => *folded = sum.settled().folded(),
            6 => folded.add_schoolbook(p.lengths(), powers(p.key(), 1)),
            7 => *folded = folded.reduce_low(),
            _ => {}
        }
        if (5..8).contains(&step) {
            folded.pin();
        }
    }

    /// When all steps are done: the ICV is stored, or `good` told of it.
    #[inline(always)]
    unsafe fn finish<const OPEN: bool>(&self, folded: Sum<__m128i>, good: &mut [bool]) {
        let Some(p) = self.p else { return };
        let icv = icv::<OPEN>(p, folded, &self.ends);
        if OPEN {
            *good.get_unchecked_mut(self.index as usize) = is_zero(icv);
        } else {
            p.set_icv(self.icv, icv);
        }
    }

    /// All of it.
    #[inline(always)]
    unsafe fn hash<const OPEN: bool>(&self, good: &mut [bool]) {
        let (mut sum, mut folded) = (Sum::zero(), Sum::zero());
        each!(i < STEPS => { self.step(i + 1, (&mut sum, &mut folded)); });
        self.finish::<OPEN>(folded, good);
    }
}

/// A packet of more than a chunk, which is `N` vectors. While it is worked on, the text of a later one is asked for, and
/// what is left of the one `before` is done.
#[inline(always)]
unsafe fn long<'a, V: Vector, const N: usize, const OPEN: bool, const SEGMENTS: bool>(
    (p, index, later): (&'a Job<'a>, u8, &Job<'_>),
    before: Tail<'a, V, N>,
    good: &mut [bool],
) -> Tail<'a, V, N> {
    let (ps, blocks) = ([p], p.blocks());
    // The last part has a block at least, so that its end is met there.
    let chunks = (blocks - 1) / V::CHUNK;
    let mut x = [V::zero(); N];
    // Its own are in the cache, if it was the later one of those before it. No CPU guesses the next packet's lines, and
    // another core's are far. One in segments is seldom followed by others.
    let ask = |chunk: usize| {
        if SEGMENTS {
            return;
        }
        let text = later.text.wrapping_add(16 * V::CHUNK * chunk);
        each!(line < V::CHUNK / 4 => { _mm_prefetch::<_MM_HINT_T0>(text.wrapping_add(64 * line).cast()); });
    };
    ask(0);
    let (mut place, mut staging) = (Place::<SEGMENTS>::of(p), Staging::new());
    let part = [Part::new(p, place.enter(16 * V::CHUNK, &mut staging), 0, V::CHUNK)];
    let (mut sum, mut folded) = (Sum::<V>::zero(), Sum::<__m128i>::zero());
    let [Ends { mask, .. }] = transform::<V, 1, N, OPEN>(
        (&ps, &part),
        (true, false),
        #[inline(always)]
        |step| before.step(step, (&mut sum, &mut folded)),
        #[inline(always)]
        |_, y, block| x[y] = block,
    );
    before.finish::<OPEN>(folded, good);
    place.leave(16 * V::CHUNK, &staging);
    let both: [V; N] = from_fn(
        #[inline(always)]
        |y| halves(powers::<V>(p.key(), V::CHUNK - V::BLOCKS * y)),
    );
    let mut hash = _mm_setzero_si128();
    let mut chunk = 1;
    while chunk < chunks {
        // All that lie together, or one.
        let octets = 16 * V::CHUNK * (chunks - chunk);
        let n = (place.together(octets) / (16 * V::CHUNK)).max(1);
        let at = place.enter(16 * V::CHUNK * n, &mut staging);
        for i in 0..n {
            ask(chunk + i);
            let part = [Part::new(p, at.wrapping_add(16 * V::CHUNK * i), (chunk + i) * V::CHUNK, V::CHUNK)];
            let (mut sum, mut folded) = (Sum::<V>::zero(), Sum::<__m128i>::zero());
            let mut next = [V::zero(); N];
            x[0] = x[0].xor(V::from_block(hash));
            transform::<V, 1, N, OPEN>(
                (&ps, &part),
                (false, false),
                #[inline(always)]
                |step| {
                    each!(y < N => {
                        if step == y * 4 / N + 1 {
                            sum.add_karatsuba(x[y], powers(p.key(), V::CHUNK - V::BLOCKS * y), both[y]);
                        }
                    });
                    match step {
                        1..5 => sum.pin(),
                        5 => {
                            folded = sum.karatsuba().folded().reduce_low();
                            folded.pin();
                        }
                        7 => hash = folded.reduce_high().pinned(),
                        _ => {}
                    }
                },
                #[inline(always)]
                |_, y, block| next[y] = block,
            );
            x = next;
        }
        place.leave(16 * V::CHUNK * n, &staging);
        chunk += n;
    }
    ask(chunks);
    x[0] = x[0].xor(V::from_block(hash));
    let first = chunks * V::CHUNK;
    let octets = HEAD + p.len as usize + ICV - 16 * first;
    let last = Part::new(p, place.enter(octets, &mut staging), first, blocks - first);
    let of = (p, index, mask);
    let tail = match last.blocks.div_ceil(V::BLOCKS) {
        1 => end::<V, N, 1, OPEN>(of, last, x),
        2 => end::<V, N, 2, OPEN>(of, last, x),
        3 => end::<V, N, 3, OPEN>(of, last, x),
        4 => end::<V, N, 4, OPEN>(of, last, x),
        5 if N > 4 => end::<V, N, 5, OPEN>(of, last, x),
        6 if N > 4 => end::<V, N, 6, OPEN>(of, last, x),
        7 if N > 4 => end::<V, N, 7, OPEN>(of, last, x),
        _ => end::<V, N, N, OPEN>(of, last, x),
    };
    if !SEGMENTS {
        return tail;
    }
    // The ICV goes where the last part is, before that is left.
    tail.hash::<OPEN>(good);
    place.leave(octets, &staging);
    Tail::none()
}

/// The last part of a long packet, and the hash of the chunk before it.
#[inline(always)]
unsafe fn end<'a, V: Vector, const N: usize, const NV: usize, const OPEN: bool>(
    (p, index, mask): (&'a Job<'a>, u8, __m128i),
    part: Part,
    x: [V; N],
) -> Tail<'a, V, N> {
    let (mut sum, mut folded, mut hash) = (Sum::<V>::zero(), Sum::<__m128i>::zero(), _mm_setzero_si128());
    let mut last = [V::zero(); N];
    let [Ends { icv, .. }] = transform::<V, 1, NV, OPEN>(
        (&[p], &[part]),
        (false, true),
        #[inline(always)]
        |step| {
            each!(y < N => {
                if step == y * 4 / N + 1 {
                    sum.add(x[y], powers(p.key(), V::CHUNK - V::BLOCKS * y));
                }
            });
            match step {
                1..5 => sum.pin(),
                5 => folded = sum.settled().folded(),
                6 => folded = folded.reduce_low(),
                8 => hash = folded.reduce_high().pinned(),
                _ => {}
            }
            if step == 5 || step == 6 {
                folded.pin();
            }
        },
        #[inline(always)]
        |_, y, block| last[y] = block,
    );
    last[0] = last[0].xor(V::from_block(hash));
    Tail {
        p: Some(p),
        index,
        x: last,
        vectors: NV,
        blocks: part.blocks,
        icv: part.icv,
        ends: Ends { mask, icv },
    }
}

/// All packets, in `order`, which ascends by kind: `S` is for short ones, `G` at a time, `L` for long ones, of `N`
/// vectors a chunk. Opened, `good` tells of each packet whether its ICV is right; it has room for all.
#[inline(always)]
unsafe fn batch<S: Lanes, L: Vector, const N: usize, const G: usize, const PAIRS: bool, const OPEN: bool>(
    ps: &[Job<'_>],
    order: &[u8],
    good: &mut [bool],
) {
    let mut rest = order;
    let mut tail = Tail::<'_, L, N>::none();
    while let [first, .., last] | [first @ last] = rest {
        let p = ps.get_unchecked(*first as usize);
        if p.blocks() > S::CHUNK {
            if let [_, next, ..] = rest {
                ps.get_unchecked(*next as usize).prefetch(p);
            }
            let later = rest.get(LATER).map_or(p, |i| ps.get_unchecked(*i as usize));
            let of = (p, *first, later);
            tail = match p.list() {
                None => long::<L, N, OPEN, false>(of, tail, good),
                Some(_) => long::<L, N, OPEN, true>(of, tail, good),
            };
            rest = &rest[1..];
            continue;
        }
        let kind = |i: &u8| ps.get_unchecked(*i as usize).kind;
        let run = match kind(last) == p.kind {
            true => rest.len(),
            false => rest.iter().take_while(|i| kind(i) == p.kind).count(),
        };
        let (run, after) = rest.split_at_unchecked(run);
        rest = after;
        macro_rules! short {
            ($g:expr, $nv:literal) => {
                // One block a vector: never room for another.
                if S::BLOCKS > 1 && !p.blocks().is_multiple_of(S::BLOCKS) {
                    short::<S, { $g }, $nv, OPEN, true, PAIRS>(ps, run, good)
                } else {
                    short::<S, { $g }, $nv, OPEN, false, PAIRS>(ps, run, good)
                }
            };
        }
        match p.blocks().div_ceil(S::BLOCKS) {
            1 => short!(G, 1),
            2 => short!(G, 2),
            3 => short!(G, 3),
            4 => short!(G, 4),
            5 => short!(G, 5),
            6 => short!(G, 6),
            7 => short!(G, 7),
            _ => short!(1, 8),
        }
    }
    tail.hash::<OPEN>(good);
}

macro_rules! entry_points {
    ($seal:ident, $open:ident: $features:literal, $short:ty, $long:ty, $n:literal, $g:literal, $pairs:literal) => {
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $seal(ps: &[Job<'_>], order: &[u8]) {
            batch::<$short, $long, $n, $g, $pairs, false>(ps, order, &mut [])
        }
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $open(ps: &[Job<'_>], order: &[u8], good: &mut [bool; BATCH]) {
            batch::<$short, $long, $n, $g, $pairs, true>(ps, order, good)
        }
    };
}

entry_points!(seal512, open512: "avx2,bmi2,aes,pclmulqdq,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl,avx512dq",
    __m256i, __m512i, 4, 1, true);
entry_points!(seal256, open256: "avx2,bmi2,aes,pclmulqdq,vaes,vpclmulqdq", __m256i, __m256i, 8, 2, false);
entry_points!(seal128, open128: "avx,ssse3,aes,pclmulqdq", __m128i, __m128i, 8, 1, false);
