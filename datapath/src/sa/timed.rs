//! SAs that have something to send, or to give up, as time passes: [`General`](crate::general::General) looks at them by the
//! worker's clock.

use super::{SaTable, keepalive::Keepalives, owner_of};
use crate::general::Tfc;
use portcullis_sadb::{Reader, Runtime, SlotIndex};

/// Slots that one [`SaTable::seek`] looks at.
const SOUGHT: usize = 4096;

impl SaTable {
    /// States whose associations are to be looked at as time passes. They need not be there any more.
    pub fn timed(&self) -> &[u32] {
        &self.timed
    }

    /// Whether there are new ones among them.
    #[inline]
    pub fn has_news(&self) -> bool {
        self.has_news
    }

    /// The same, once.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Meets SAs that send by themselves before a packet asks for them: looks at some slots, if the SAD has changed since
    /// all were looked at.
    pub fn seek(&mut self, reader: &Reader, runtime: &Runtime) {
        if self.sought == (0, self.sad_version) {
            return;
        }
        for _ in 0..SOUGHT {
            if self.sought.0 == 0 {
                self.sought.1 = self.sad_version;
            }
            let slot = SlotIndex(self.sought.0 as u32);
            self.sought.0 += 1;
            if !self.is_met(slot, reader)
                && let Some((_, sa)) = reader.copy_sa(slot)
                && (Tfc::sends_by_itself(&sa) || Keepalives::is_for(&sa))
            {
                self.find(slot, reader, runtime);
            }
            if self.sought.0 >= self.index.len() {
                self.sought.0 = 0;
                return;
            }
        }
    }

    /// Whether the SA in a slot has a state here, or is another worker's, or none is there.
    fn is_met(&self, slot: SlotIndex, reader: &Reader) -> bool {
        let Some(whose) = reader.whose(slot) else { return true };
        let state = self.index(slot).and_then(|i| self.states[i as usize].as_ref());
        owner_of(whose, self.workers) != self.me
            || state.is_some_and(|state| reader.generation(slot) == Some(state.generation))
    }
}
