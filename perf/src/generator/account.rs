//! What is received of each flow: how many packets, and which of them again, out of order, or not at all.

/// Numbers behind the highest of which it is known whether they were received.
pub const WINDOW: u64 = 256;

/// One flow's packets. A cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub struct Account {
    /// The number after the highest received, with all 64 bits.
    next: u64,
    /// Packets received once.
    received: u64,
    duplicates: u32,
    reordered: u32,
    stale: u32,
    /// Bit n of the ring: whether the last number that is n modulo the window was received.
    seen: [u64; WINDOW as usize / 64],
}

const _: () = assert!(size_of::<Account>() == 64);

/// The same of several flows, or of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Packets received once, each counted once.
    pub received: u64,
    /// Packets received again.
    pub duplicates: u64,
    /// Of those received once, those that came after one with a higher number (RFC 4737 §3.3).
    pub reordered: u64,
    /// Packets so late that nobody knows whether they had come before; not among those received.
    pub stale: u64,
}

impl Default for Account {
    fn default() -> Account {
        Account {
            next: 0,
            received: 0,
            duplicates: 0,
            reordered: 0,
            stale: 0,
            seen: [0; WINDOW as usize / 64],
        }
    }
}

impl Account {
    /// A packet of this number, of which the lower 32 bits are told: it is less than 2^31 packets from the one that
    /// comes next.
    #[inline]
    pub fn count(&mut self, number: u32) {
        let ahead = number.wrapping_sub(self.next as u32) as i32;
        if ahead < 0 {
            return self.count_late(ahead.unsigned_abs() as u64);
        }
        // What was left out has not been received.
        for left_out in 0..(ahead as u64).min(WINDOW) {
            self.set(self.next + left_out, false);
        }
        let number = self.next + ahead as u64;
        self.set(number, true);
        self.next = number + 1;
        self.received += 1;
    }

    #[cold]
    fn count_late(&mut self, behind: u64) {
        if behind > WINDOW || behind > self.next {
            self.stale += 1;
            return;
        }
        let number = self.next - behind;
        if self.seen[Account::word(number)] >> (number % 64) & 1 == 1 {
            self.duplicates += 1;
        } else {
            self.set(number, true);
            self.received += 1;
            self.reordered += 1;
        }
    }

    fn word(number: u64) -> usize {
        (number % WINDOW / 64) as usize
    }

    #[inline]
    fn set(&mut self, number: u64, seen: bool) {
        let (word, bit) = (&mut self.seen[Account::word(number)], number % 64);
        *word = *word & !(1 << bit) | (seen as u64) << bit;
    }

    /// What was counted.
    pub fn tally(&self) -> Tally {
        Tally {
            received: self.received,
            duplicates: self.duplicates as u64,
            reordered: self.reordered as u64,
            stale: self.stale as u64,
        }
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Tally>>(all: I) -> Tally {
        all.fold(Tally::default(), |a, b| Tally {
            received: a.received + b.received,
            duplicates: a.duplicates + b.duplicates,
            reordered: a.reordered + b.reordered,
            stale: a.stale + b.stale,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// All numbers that came, and nothing else.
    #[derive(Default)]
    struct Model {
        came: HashSet<u64>,
        highest: Option<u64>,
        tally: Tally,
    }

    impl Model {
        fn count(&mut self, number: u64) {
            let late = self.highest.is_some_and(|highest| number <= highest);
            if late && self.highest.unwrap() - number >= WINDOW {
                self.tally.stale += 1;
            } else if !self.came.insert(number) {
                self.tally.duplicates += 1;
            } else {
                self.tally.received += 1;
                self.tally.reordered += u64::from(late);
            }
            self.highest = self.highest.max(Some(number));
        }
    }

    proptest! {
        /// Steps to and fro, most of them one ahead, by numbers that may run over 32 bits.
        #[test]
        fn it_counts_as_a_set_of_all_numbers_does(
            start in prop_oneof![Just(0u64), Just(u32::MAX as u64 - 200)],
            steps in prop::collection::vec(prop_oneof![3 => Just(1i64), 1 => -300i64..300, 1 => Just(0), 1 => -3i64..4], 1..2000),
        ) {
            let (mut account, mut model) = (Account::default(), Model::default());
            // As a flow that has come as far, less what a test has no time for.
            account.next = start;
            let mut number = start as i64;
            for step in steps {
                number = (number + step).max(start as i64);
                account.count(number as u32);
                model.count(number as u64);
            }
            prop_assert_eq!(account.tally(), model.tally);
        }
    }

    #[test]
    fn the_edges_of_the_window() {
        let w = WINDOW as u32;
        let tally = |numbers: &[u32]| {
            let mut account = Account::default();
            numbers.iter().for_each(|n| account.count(*n));
            account.tally()
        };
        // The oldest number that is known of, and the one before that.
        assert_eq!(tally(&[w, 1]), Tally { received: 2, reordered: 1, ..Tally::default() });
        assert_eq!(tally(&[w, 0]), Tally { received: 1, stale: 1, ..Tally::default() });
        // A leap over the whole window forgets it.
        assert_eq!(tally(&[0, 2 * w, 2 * w - 1]), Tally { received: 3, reordered: 1, ..Tally::default() });
        assert_eq!(tally(&[5, 5 + w, 6]), Tally { received: 3, reordered: 1, ..Tally::default() });
    }
}
