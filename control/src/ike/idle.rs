//! Child SAs that nothing goes by any more, in or out: `inactivity` of swanctl.conf.
//!
//! The datapath tells of one SA of the two, and of none that nothing has ever gone by. So the packets of both are counted now and
//! then.

use super::{Ike, report};
use portcullis_sadb::{Sadb, Spi};
use std::collections::{BTreeSet, HashMap};

/// Looks in the time that a child SA may be idle for.
const LOOKS: u64 = 4;

/// Child SAs that end when they are idle.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// By our SPI.
    children: HashMap<u32, Look>,
    /// When each is looked at next.
    due: BTreeSet<(u64, u32)>,
}

/// What was seen of a child SA.
#[derive(Debug)]
struct Look {
    /// Packets, in and out.
    packets: u64,
    /// Since when there are so many.
    since_ms: u64,
    idle_ms: u64,
    due_ms: u64,
}

impl Idle {
    /// A child SA is there, and may be idle for so long; 0 is for ever.
    pub fn begin(&mut self, spi_in: u32, idle_secs: u32, now_ms: u64) {
        if idle_secs > 0 {
            let idle_ms = u64::from(idle_secs) * 1000;
            let due_ms = now_ms + idle_ms / LOOKS;
            self.children.insert(spi_in, Look { packets: 0, since_ms: now_ms, idle_ms, due_ms });
            self.due.insert((due_ms, spi_in));
        }
    }

    /// It is gone.
    pub fn forget(&mut self, spi_in: u32) {
        if let Some(look) = self.children.remove(&spi_in) {
            self.due.remove(&(look.due_ms, spi_in));
        }
    }

    /// When something is to be done.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.first().map(|(ms, _)| *ms)
    }

    /// One that is to be looked at.
    fn due(&self, now_ms: u64) -> Option<u32> {
        self.due.first().filter(|(ms, _)| *ms <= now_ms).map(|(_, spi_in)| *spi_in)
    }

    /// So many packets have gone by a child SA, in and out. Whether none has for as long as it may be idle: then it is not looked
    /// at any more.
    fn look(&mut self, spi_in: u32, packets: u64, now_ms: u64) -> bool {
        let Some(look) = self.children.get_mut(&spi_in) else { return false };
        if look.packets != packets {
            (look.packets, look.since_ms) = (packets, now_ms);
        }
        let ends_ms = look.since_ms + look.idle_ms;
        if ends_ms <= now_ms {
            self.forget(spi_in);
            return true;
        }
        let due_ms = ends_ms.min(now_ms + look.idle_ms / LOOKS);
        self.due.remove(&(std::mem::replace(&mut look.due_ms, due_ms), spi_in));
        self.due.insert((due_ms, spi_in));
        false
    }
}

impl Ike {
    /// Ends what is idle.
    pub(super) fn end_idle(&mut self, sadb: &mut Sadb) {
        let now_ms = self.now_ms();
        while let Some(spi_in) = self.idle.due(now_ms) {
            self.end_if_idle(spi_in, sadb);
        }
    }

    /// Ends a child SA if it is idle.
    pub(super) fn end_if_idle(&mut self, spi_in: u32, sadb: &mut Sadb) {
        let now_ms = self.now_ms();
        let slots = self.children.installed(spi_in).map(|child| [child.inbound, child.outbound]);
        let packets =
            slots.into_iter().flatten().map(|slot| report::counters(sadb, slot).packets).sum::<u64>();
        if self.idle.look(spi_in, packets, now_ms) {
            tracing::info!("child SA {}: nothing has come or gone by it", Spi(spi_in));
            self.with(sadb, |engine, cx| engine.terminate_child(spi_in, cx));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_goes_by_either_way_for_so_long_is_idle() {
        let mut idle = Idle::default();
        idle.begin(1, 0, 0);
        assert_eq!(idle.due_ms(), None);
        // Looked at whenever it is due: when it ends, by the packets that there are then.
        let mut ends = |spi, packets: fn(u64) -> u64| {
            idle.begin(spi, 100, 1000);
            while let Some(now_ms) = idle.due_ms().filter(|ms| *ms < 1_000_000) {
                if idle.due(now_ms) == Some(spi) && idle.look(spi, packets(now_ms), now_ms) {
                    assert_eq!(idle.due_ms(), None);
                    return Some(now_ms);
                }
            }
            idle.forget(spi);
            None
        };
        assert_eq!(ends(2, |_| 0), Some(101_000), "never used");
        assert_eq!(ends(3, |now_ms| now_ms / 99_000), None, "by one of its SAs alone");
        let last = ends(4, |now_ms| now_ms.min(300_000)).unwrap();
        assert!((400_000..=425_000).contains(&last), "{last}");
        assert!(idle.children.is_empty() && !idle.look(4, 1, 2_000_000));
    }
}
