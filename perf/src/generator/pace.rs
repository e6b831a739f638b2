//! When frames are due: one after the other at a rate, by a clock that is an argument.
//!
//! Frame n is due n intervals after the first, whatever became of those before: who is late catches up, a burst at a time,
//! and each frame says when it was due and not when it left. So a device that stalls is not asked for less meanwhile, and
//! what its stall costs is seen in all frames that were due in it (coordinated omission).

/// Fractions of a clock are counted in 2^-64.
const FRACTION: u32 = 64;

/// A clock for frames.
#[derive(Clone, Debug)]
pub struct Pace {
    next: u128,
    interval: u128,
}

/// Clocks for which nobody waits, some decades: few enough that the next frames' fit, too.
const NEVER: f64 = (1u64 << 62) as f64;

impl Pace {
    /// `rate` frames per second, the first at `start`, by a clock of `hz` per second. Both are above 0.
    pub fn new(start: u64, hz: f64, rate: f64) -> Pace {
        // The interval's own parts, since a float has only 53 bits.
        let interval = (hz / rate).min(NEVER);
        let (whole, part) = (interval.floor(), interval.fract());
        let interval = (whole as u128) << FRACTION | (part * (FRACTION as f64).exp2()) as u128;
        Pace { next: (start as u128) << FRACTION, interval }
    }

    /// When the next frame is due.
    #[inline]
    pub fn next(&self) -> u64 {
        // What has a fraction is due at the next whole clock.
        ((self.next + ((1 << FRACTION) - 1)) >> FRACTION) as u64
    }

    /// When the next frame is due, which is asked for only once.
    #[inline]
    pub fn take(&mut self) -> u64 {
        let due = self.next();
        self.next += self.interval;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames due up to `now`.
    fn due(pace: &mut Pace, now: u64) -> u64 {
        std::iter::from_fn(|| (pace.next() <= now).then(|| pace.take())).count() as u64
    }

    #[test]
    fn what_is_due_after_decades_is_not_due_before() {
        for rate in [1e-9, 1e-30, f64::MIN_POSITIVE] {
            let mut pace = Pace::new(1 << 60, 3e9, rate);
            assert_eq!((pace.take(), pace.take() > 1 << 61), (1 << 60, true), "{rate}");
            assert!(pace.take() > 1 << 62);
        }
    }

    proptest! {
        #[test]
        fn frame_n_is_due_after_n_intervals(start in 0u64..1 << 48, hz in 1e6..1e10, rate in 1.0..1e8) {
            let mut pace = Pace::new(start, hz, rate);
            for n in 0..1000 {
                let at = start as f64 + n as f64 * hz / rate;
                let due = pace.take() as f64;
                prop_assert!(due - at > -0.1 && due - at < 1.1, "frame {n}: {due}, and not {at}");
            }
        }

        /// However late somebody looks, it is as many frames as time has passed.
        #[test]
        fn who_looks_late_finds_all(looks in prop::collection::vec(0u64..100_000, 1..50), rate in 1e3..2e7) {
            let hz = 2.5e9;
            let (mut pace, mut now, mut found) = (Pace::new(0, hz, rate), 0, 0);
            for look in looks {
                now += look;
                found += due(&mut pace, now);
                let all = (now as f64 * rate / hz).floor() as i64 + 1;
                prop_assert!((found as i64 - all).abs() <= 1, "{found} of {all} at {now}");
            }
        }
    }

    #[test]
    fn a_second_has_as_many_frames_as_the_rate_says() {
        for rate in [1.0, 3.0, 1e6, 14_880_952.0, 20e6] {
            let (mut pace, hz) = (Pace::new(5, 2_445_406_000.0, rate), 2_445_406_000);
            assert_eq!(due(&mut pace, 5 + hz - 1), rate as u64, "{rate}");
        }
    }
}
