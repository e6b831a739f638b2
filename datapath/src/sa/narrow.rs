//! Which outbound SAs have learned of a path with a lower MTU than they ask for, until they believe it no more
//! (RFC 4301 §8.2.2).

use super::SaTable;
use crate::memory::Table;

/// SAs that one look looks at.
const LOOKED_AT: usize = 4096;

/// All of a worker.
pub(super) struct Narrow {
    states: Vec<u32>,
    /// By state, whether it is among them; it may be another SA's by now.
    is_listed: Table<bool>,
    at: usize,
}

impl Narrow {
    /// Octets for each SA that there is room for.
    pub(super) const OCTETS: usize = size_of::<u32>() + size_of::<bool>();

    pub(super) fn new(room: usize) -> Narrow {
        Narrow { states: Vec::with_capacity(room), is_listed: Table::filled(room, false), at: 0 }
    }

    fn insert(&mut self, state: u32) {
        if !std::mem::replace(&mut self.is_listed[state as usize], true) {
            self.states.push(state);
        }
    }
}

impl SaTable {
    /// Takes it that packets of an SA which has an association are to have at most so many octets, for the time being
    /// (RFC 4301 §8.2).
    pub fn learn_mtu(&mut self, i: u32, mtu: u16, now_ms: u64) {
        let Some(Some(with)) = self.associations.get_mut(i as usize) else { return };
        with.pmtu.learn(mtu, now_ms);
        let most = if with.sa.mtu == 0 { u16::MAX } else { with.sa.mtu };
        self.get_mut(i).mtu = self.association(i).map_or(0, |with| with.pmtu.effective_mtu(most, now_ms));
        self.narrow.insert(i);
    }

    /// Lets go of what is too old to be believed of paths, of some SAs at a time.
    pub fn age(&mut self, now_ms: u64) {
        for _ in 0..LOOKED_AT.min(self.narrow.states.len()) {
            if self.narrow.at >= self.narrow.states.len() {
                self.narrow.at = 0;
            }
            let i = self.narrow.states[self.narrow.at];
            if self.is_narrow(i, now_ms) {
                self.narrow.at += 1;
            } else {
                self.narrow.states.swap_remove(self.narrow.at);
                self.narrow.is_listed[i as usize] = false;
            }
        }
    }

    /// Whether an SA still believes what it has learned. If not, it is as it was before.
    fn is_narrow(&mut self, i: u32, now_ms: u64) -> bool {
        let (Some(Some(state)), Some(Some(with))) =
            (self.states.get_mut(i as usize), self.associations.get(i as usize))
        else {
            return false;
        };
        let is_narrow = with.pmtu.effective_mtu(u16::MAX, now_ms) < u16::MAX;
        if !is_narrow {
            state.mtu = with.sa.mtu;
        }
        is_narrow
    }
}
