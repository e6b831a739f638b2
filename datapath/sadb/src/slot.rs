//! A slot of the SAD: one SA at a time, published whole.
//!
//! One process writes, any number read. The generation is even while nothing is there and odd while an SA is:
//!
//! ```text
//! writer: even -> body -> (Release) odd .......... (retire) even -> all epochs passed -> wipe -> free
//! reader: generation (Acquire), odd? -> body -> (Acquire fence) generation again, the same? -> use the copy
//! ```
//!
//! A reader that began with one generation never uses words of another: if it copied any word of a later
//! body, the fences make it see the later generation too.

use crate::{
    Generation, Spi,
    layout::shared,
    sa::{self, BODY_WORDS, SaWords},
    sync::{AtomicU64, Ordering, fence},
};

shared! {
    /// 320 octets: five cache lines. Tests make it smaller.
    #[repr(C, align(64))]
    pub(crate) struct Slot<const N: usize = BODY_WORDS> {
        generation: AtomicU64,
        body: [AtomicU64; N],
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 320 && align_of::<Slot>() == 64);

impl<const N: usize> Slot<N> {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Slot<N> {
        Slot { generation: AtomicU64::new(0), body: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// The SA that lives here now.
    pub(crate) fn generation(&self) -> Option<Generation> {
        // Pairs with the Release in `publish`.
        let g = self.generation.load(Ordering::Acquire);
        (g & 1 == 1).then_some(Generation(g))
    }

    pub(crate) fn raw_generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The SPI of what lives here; a hint, since it may be gone at once.
    pub(crate) fn spi(&self) -> Option<Spi> {
        self.generation()?;
        Some(Spi(self.body[0].load(Ordering::Relaxed) as u32))
    }

    /// What says which worker's it is; a hint, too.
    pub(crate) fn whose(&self) -> Option<(Spi, Option<u8>)> {
        self.generation()?;
        Some(sa::whose(|at| self.body.get(at).map_or(0, |word| word.load(Ordering::Relaxed))))
    }

    /// A whole copy of the body, with the generation it belongs to.
    pub(crate) fn copy(&self) -> Option<(Generation, SaWords<N>)> {
        let generation = self.generation()?;
        let words = SaWords(std::array::from_fn(|i| self.body[i].load(Ordering::Relaxed)));
        // Pairs with the Release fence in `publish`: who read a word of a later body sees that this one was retired.
        fence(Ordering::Acquire);
        (self.generation.load(Ordering::Relaxed) == generation.0).then_some((generation, words))
    }

    /// Writer: fills an empty slot and lets readers in.
    pub(crate) fn publish(&self, words: &SaWords<N>) -> Generation {
        let even = self.raw_generation();
        debug_assert!(even & 1 == 0);
        // Orders the retirement of the former body before the words of the new one, for `copy`.
        fence(Ordering::Release);
        for (to, from) in self.body.iter().zip(&words.0) {
            to.store(*from, Ordering::Relaxed);
        }
        self.generation.store(even + 1, Ordering::Release); // pairs with the Acquire in `generation`
        Generation(even + 1)
    }

    /// Writer: lets no new reader in. The body stays until `wipe`.
    pub(crate) fn retire(&self) {
        let odd = self.raw_generation();
        debug_assert!(odd & 1 == 1);
        // Told to workers by the epoch that follows, to all others by the fences in `passed` and `publish`.
        self.generation.store(odd + 1, Ordering::Relaxed);
    }

    /// Writer: zeroizes the body of a retired slot that no reader can still be in.
    pub(crate) fn wipe(&self) {
        debug_assert!(self.raw_generation() & 1 == 0);
        for word in &self.body {
            word.store(0, Ordering::Relaxed);
        }
        // Nobody reads them, but they must not be optimised away.
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Whether any word of a body is left.
    pub(crate) fn is_wiped(&self) -> bool {
        self.body.iter().all(|w| w.load(Ordering::Relaxed) == 0)
    }
}
