//! From an SPI to its slot, without a lock: an open hash table of buckets, each one cache line.
//!
//! A bucket has seven entries and a count of those that wanted it and went on to a later bucket. A reader
//! looks at the home bucket, and goes on only while that count is not 0: one line in the common case. Entries
//! are single words, written at once, and never move.
//!
//! A count needs no order: each that it ever has while an entry is in the table includes that entry. Nor does what
//! takes an entry out: the epoch that follows tells the workers.

use crate::{
    SlotIndex, Spi,
    layout::shared,
    sync::{AtomicU64, Ordering},
};

const ENTRIES: usize = if cfg!(loom) { 1 } else { 7 };

shared! {
    /// SPI in the high half, slot + 1 in the low half; 0 is free.
    #[repr(C, align(64))]
    pub(crate) struct Bucket {
        entries: [AtomicU64; ENTRIES],
        /// Entries that passed by this full bucket.
        overflow: AtomicU64,
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);

/// Buckets for so many SAs, at most 4 of 7 entries used on average.
pub(crate) fn buckets_for(max_sas: u32) -> usize {
    (max_sas as usize).div_ceil(4).next_power_of_two()
}

/// The index over its buckets, whose number is a power of two.
#[derive(Clone, Copy)]
pub(crate) struct SpiIndex<'a> {
    pub(crate) buckets: &'a [Bucket],
    pub(crate) seed: u64,
}

impl<'a> SpiIndex<'a> {
    fn home(&self, spi: Spi) -> usize {
        let h = (spi.0 as u64 ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (h >> 32) as usize & (self.buckets.len() - 1)
    }

    fn probe(&self, spi: Spi) -> impl Iterator<Item = &'a Bucket> + use<'a> {
        let (buckets, home) = (self.buckets, self.home(spi));
        (0..buckets.len()).map(move |i| &buckets[(home + i) & (buckets.len() - 1)])
    }

    /// The bucket that a reader will look at first.
    #[cfg(test)]
    pub(crate) fn home_bucket(&self, spi: Spi) -> &'a Bucket {
        &self.buckets[self.home(spi)]
    }

    /// The slot of an SPI. The caller checks what it finds there.
    #[inline]
    pub(crate) fn find(&self, spi: Spi) -> Option<SlotIndex> {
        for bucket in self.probe(spi) {
            for entry in &bucket.entries {
                // Pairs with the Release in `insert`: who finds a slot finds what was published in it.
                let entry = entry.load(Ordering::Acquire);
                if (entry >> 32) as u32 == spi.0 && entry != 0 {
                    return (entry as u32).checked_sub(1).map(SlotIndex);
                }
            }
            if bucket.overflow.load(Ordering::Relaxed) == 0 {
                return None;
            }
        }
        None
    }

    /// Writer. False if the table is full.
    pub(crate) fn insert(&self, spi: Spi, slot: SlotIndex) -> bool {
        let word = (spi.0 as u64) << 32 | (slot.0 as u64 + 1);
        let Some(full) = self.probe(spi).position(|b| b.free_entry().is_some()) else { return false };
        // First the way, then the entry: whoever is cut off in between leaves a count too high, which only
        // costs a look.
        for bucket in self.probe(spi).take(full) {
            bucket.overflow.fetch_add(1, Ordering::Relaxed);
        }
        let entry =
            self.probe(spi).nth(full).and_then(Bucket::free_entry).expect("seen above, and one writer");
        entry.store(word, Ordering::Release); // pairs with the Acquire in `find`
        true
    }

    /// Writer.
    pub(crate) fn remove(&self, spi: Spi) {
        let at = self.probe(spi).enumerate().find_map(|(i, b)| b.entry_of(spi).map(|e| (i, e)));
        let Some((passed, entry)) = at else { return };
        entry.store(0, Ordering::Relaxed);
        for bucket in self.probe(spi).take(passed) {
            bucket.overflow.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Writer, after a predecessor was cut off: drops the entries that `keep` does not want, and counts the
    /// overflows anew. Readers go on: a count is never below what is in the table.
    pub(crate) fn repair(&self, keep: impl Fn(Spi, SlotIndex) -> bool) {
        let mask = self.buckets.len() - 1;
        let mut overflow = vec![0u64; self.buckets.len()];
        for (at, bucket) in self.buckets.iter().enumerate() {
            for entry in &bucket.entries {
                let word = entry.load(Ordering::Relaxed);
                let spi = Spi((word >> 32) as u32);
                if word == 0 {
                } else if (word as u32) == 0 || !keep(spi, SlotIndex(word as u32 - 1)) {
                    entry.store(0, Ordering::Relaxed);
                } else {
                    let home = self.home(spi);
                    let passed = at.wrapping_sub(home) & mask;
                    (0..passed).for_each(|i| overflow[(home + i) & mask] += 1);
                }
            }
        }
        for (bucket, count) in self.buckets.iter().zip(overflow) {
            bucket.overflow.store(count, Ordering::Relaxed);
        }
    }
}

impl Bucket {
    #[cfg(all(test, not(loom)))]
    pub(crate) fn words(&self) -> (Vec<u64>, u64) {
        let entries = self.entries.iter().map(|e| e.load(Ordering::Relaxed)).collect();
        (entries, self.overflow.load(Ordering::Relaxed))
    }

    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Bucket {
        Bucket { entries: std::array::from_fn(|_| AtomicU64::new(0)), overflow: AtomicU64::new(0) }
    }

    fn free_entry(&self) -> Option<&AtomicU64> {
        self.entries.iter().find(|e| e.load(Ordering::Relaxed) == 0)
    }

    fn entry_of(&self, spi: Spi) -> Option<&AtomicU64> {
        self.entries.iter().find(|e| {
            let word = e.load(Ordering::Relaxed);
            word != 0 && (word >> 32) as u32 == spi.0
        })
    }
}
