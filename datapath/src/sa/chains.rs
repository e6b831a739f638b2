//! From an SPI to a worker's outbound SAs: chains of states, short and seldom gone along.
//!
//! The peers choose these SPIs, each by itself, so that more than one SA may have the same.

use crate::memory::Table;

/// SAs for each chain that there is room for.
const SAS_PER_CHAIN: u32 = 4;

/// The outbound states, by SPI.
pub(super) struct Chains {
    /// Of each chain: one more than the index of its first state, or 0.
    heads: Table<u32>,
    /// By state: what comes behind it, as above.
    next: Table<u32>,
}

impl Chains {
    /// Octets for each SA that there is room for, at least.
    pub(super) const OCTETS: usize = size_of::<u32>() / SAS_PER_CHAIN as usize;
    /// Octets for each state.
    pub(super) const OCTETS_OF_STATE: usize = size_of::<u32>();

    pub(super) fn new(max_sas: u32) -> Chains {
        let heads = max_sas.div_ceil(SAS_PER_CHAIN).next_power_of_two() as usize;
        Chains { heads: Table::filled(heads, 0), next: Table::new(max_sas as usize) }
    }

    fn head(&self, spi: u32) -> usize {
        // The bits above those that choose the worker, whose SPIs all are.
        let hash = (spi as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        hash as usize & (self.heads.len() - 1)
    }

    /// The states in the chain of an SPI, and of others.
    pub(super) fn of(&self, spi: u32) -> impl Iterator<Item = u32> + '_ {
        let behind = |i: &u32| self.next[*i as usize].checked_sub(1);
        std::iter::successors(self.heads[self.head(spi)].checked_sub(1), behind)
    }

    /// Puts a state, which is in no chain, into that of its SPI.
    pub(super) fn insert(&mut self, spi: u32, state: u32) {
        while self.next.len() <= state as usize {
            self.next.push(0);
        }
        let head = self.head(spi);
        self.next[state as usize] = std::mem::replace(&mut self.heads[head], state + 1);
    }

    /// Takes a state out of the chain of its SPI, if it is in there.
    pub(super) fn remove(&mut self, spi: u32, state: u32) {
        let head = self.head(spi);
        let before = self.of(spi).find(|i| self.next[*i as usize] == state + 1);
        match before {
            Some(before) => self.next[before as usize] = self.next[state as usize],
            None if self.heads[head] == state + 1 => self.heads[head] = self.next[state as usize],
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn like_a_map(
            max_sas in 1u32..40,
            steps in prop::collection::vec((0u32..6, any::<prop::sample::Index>()), 1..200),
        ) {
            let (mut chains, mut map) = (Chains::new(max_sas), BTreeMap::new());
            for (spi, state) in steps {
                let state = state.index(max_sas as usize) as u32;
                match map.remove(&state) {
                    Some(spi) => chains.remove(spi, state),
                    None => {
                        chains.insert(spi, state);
                        map.insert(state, spi);
                    }
                }
                for spi in 0..6 {
                    let mut found: Vec<_> = chains.of(spi).collect();
                    found.sort_unstable();
                    let is_one = |i: &u32| chains.head(map[i]) == chains.head(spi);
                    prop_assert_eq!(found, map.keys().copied().filter(is_one).collect::<Vec<_>>());
                }
            }
        }
    }
}
