//! Times between events, as a histogram of clocks.

use hdrhistogram::Histogram;
use std::time::Duration;

/// The longest that is told apart, in clocks: half an hour and more.
const LONGEST: u64 = 1 << 42;
/// Of each time, so many decimal digits are kept.
const DIGITS: u8 = 3;

/// How often each time was seen. Nothing is allocated after the start.
#[derive(Clone, Debug)]
pub struct Times {
    clocks: Histogram<u64>,
    hz: f64,
}

impl Times {
    /// None yet, by a clock of `hz` per second.
    pub fn new(hz: f64) -> Times {
        let clocks = Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("bounds that there are");
        Times { clocks, hz }
    }

    /// One of so many clocks.
    #[inline]
    pub fn record(&mut self, clocks: u64) {
        self.clocks.saturating_record(clocks);
    }

    /// As many of so many clocks.
    #[inline]
    pub fn record_many(&mut self, clocks: u64, count: u64) {
        self.clocks.saturating_record_n(clocks, count);
    }

    /// Those of another, by the same clock.
    pub fn add(&mut self, other: &Times) {
        // Both have the same bounds.
        _ = self.clocks.add(&other.clocks);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.clocks.reset();
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.clocks.len()
    }

    /// The time that this part of them, from 0 to 1, does not exceed.
    pub fn at(&self, quantile: f64) -> Duration {
        self.duration(self.clocks.value_at_quantile(quantile))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.duration(self.clocks.max())
    }

    fn duration(&self, clocks: u64) -> Duration {
        Duration::from_secs_f64(clocks as f64 / self.hz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_clock_that_was_told() {
        let mut times = Times::new(1e9);
        (1..=100_000).for_each(|n| times.record(n));
        for (quantile, nanos) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999_99, 100_000.0)] {
            let at = times.at(quantile).as_nanos() as f64;
            assert!((at / nanos - 1.0).abs() < 2e-3, "{quantile}: {at}");
        }
        times.record(u64::MAX);
        times.record_many(7, 9);
        assert_eq!(times.count(), 100_010);
        times.clear();
        assert_eq!((times.count(), times.max()), (0, Duration::ZERO));
    }
}
