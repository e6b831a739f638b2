//! From an SPI to a worker's state of its SA: an open hash table, eight entries to a cache line.
//!
//! It holds what this worker has met, and says nothing of the SA that has the SPI now: who finds a state looks at it.

use crate::memory::Table;
use portcullis_sadb::prefetch_at;

/// Where an SPI's state is.
#[derive(Clone, Copy)]
struct Entry {
    spi: u32,
    /// One more than the index, or 0: free.
    state: u32,
}

const FREE: Entry = Entry { spi: 0, state: 0 };

/// The inbound SAs that have a state, by SPI. At least half of the entries are free.
pub(super) struct Spis {
    entries: Table<Entry>,
    shift: u32,
}

impl Spis {
    /// Octets for each SA that there is room for, at least.
    pub(super) const OCTETS: usize = 2 * size_of::<Entry>();

    pub(super) fn new(max_sas: u32) -> Spis {
        let room = (2 * max_sas as usize).next_power_of_two();
        Spis { entries: Table::filled(room, FREE), shift: u64::BITS - room.trailing_zeros() }
    }

    #[inline]
    fn home(&self, spi: u32) -> usize {
        ((spi as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline]
    pub(super) fn prefetch(&self, spi: u32) {
        prefetch_at(self.entries.as_ptr().wrapping_add(self.home(spi)));
    }

    #[inline]
    pub(super) fn find(&self, spi: u32) -> Option<u32> {
        let mut at = self.home(spi);
        loop {
            let entry = self.entries[at];
            if entry.spi == spi || entry.state == 0 {
                return entry.state.checked_sub(1);
            }
            at = (at + 1) & (self.entries.len() - 1);
        }
    }

    /// Puts a state where its SPI will be looked for, in place of any other of that SPI.
    pub(super) fn insert(&mut self, spi: u32, state: u32) {
        let mut at = self.home(spi);
        while self.entries[at].state != 0 && self.entries[at].spi != spi {
            at = (at + 1) & (self.entries.len() - 1);
        }
        self.entries[at] = Entry { spi, state: state + 1 };
    }

    /// Takes a state out, if it is the one of this SPI; those behind it that can be nearer their homes move up.
    pub(super) fn remove(&mut self, spi: u32, state: u32) {
        let mask = self.entries.len() - 1;
        let mut hole = self.home(spi);
        while self.entries[hole].state != 0 && self.entries[hole].spi != spi {
            hole = (hole + 1) & mask;
        }
        if self.entries[hole].state != state + 1 {
            return;
        }
        self.entries[hole] = FREE;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry.state == 0 {
                return;
            }
            let from_home = at.wrapping_sub(self.home(entry.spi)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                (self.entries[hole], self.entries[at], hole) = (entry, FREE, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn like_a_map(
            max_sas in 1u32..40,
            steps in prop::collection::vec((any::<bool>(), 0u32..60, 0u32..40), 1..300),
        ) {
            let (mut spis, mut map) = (Spis::new(max_sas), HashMap::new());
            for (put, spi, state) in steps {
                if put && (map.len() < max_sas as usize || map.contains_key(&spi)) {
                    spis.insert(spi, state);
                    map.insert(spi, state);
                } else if !put {
                    spis.remove(spi, state);
                    if map.get(&spi) == Some(&state) {
                        map.remove(&spi);
                    }
                }
                for spi in 0..60 {
                    prop_assert_eq!(spis.find(spi), map.get(&spi).copied(), "SPI {}", spi);
                }
            }
        }
    }
}
