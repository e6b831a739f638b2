//! Identifications of what may be cut (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! Workers send between the same addresses, each by itself: so a worker's number is in the upper bits of all of its
//! identifications, as many bits as it takes, and no two workers have the same in use (RFC 6864 §4.3).

/// Those of a worker.
pub(super) struct Ids {
    worker: u32,
    /// Bits of a worker's number.
    bits: u32,
    /// Counts what was identified.
    pub(super) last: u32,
}

impl Ids {
    /// Of one worker of so many.
    pub(super) fn new((worker, workers): (u32, u32)) -> Ids {
        Ids { worker, bits: workers.next_power_of_two().trailing_zeros(), last: 0 }
    }

    /// The next one, of IPv4.
    pub(super) fn next_v4(&mut self) -> u16 {
        self.next_of(u16::BITS) as u16
    }

    /// The next one, of IPv6.
    pub(super) fn next_v6(&mut self) -> u32 {
        self.next_of(u32::BITS) as u32
    }

    fn next_of(&mut self, bits: u32) -> u64 {
        self.last = self.last.wrapping_add(1);
        let low = bits - self.bits;
        u64::from(self.worker) << low | u64::from(self.last) & ((1 << low) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_workers_have_the_same_and_none_repeats_soon() {
        for workers in [1, 2, 3, 64] {
            let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
            for worker in 0..workers {
                let mut ids = Ids::new((worker, workers));
                ids.last = u32::MAX - 200;
                for _ in 0..300 {
                    assert!(v4.insert(ids.next_v4()) && v6.insert(ids.next_v6()), "{worker} of {workers}");
                }
            }
        }
    }

    #[test]
    fn they_begin_where_they_are_said_to() {
        let mut ids = Ids::new((1, 2));
        ids.last = 0x1234_5677;
        assert_eq!(ids.next_v6(), 0x9234_5678);
        assert_eq!(ids.next_v4(), 0xd679);
    }
}
