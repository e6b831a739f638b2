//! A soak: one rate for long, and what it says of all the time after it. Loss comes in bursts, so frames are no
//! independent draws, and a bound from their number would be far too good. Trials are what is counted: with the
//! confidence asked for, at most such a part of them has high loss (Clopper and Pearson, 1934), as long as what comes is
//! as what was, and a disturbance is over when the next trial begins.

use crate::trial::{Device, Load, Trial};
use std::{error::Error, time::Duration};

/// What to do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Soak {
    /// The load, all the time.
    pub load: Load,
    /// The duration of a trial.
    pub trial: Duration,
    /// How many there are.
    pub trials: u32,
    /// A trial that loses a larger part of its frames than this has high loss.
    pub loss_ratio: f64,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Soaked {
    /// Trials.
    pub trials: u32,
    /// Those with high loss.
    pub high_loss: u32,
    /// Frames that were asked for.
    pub asked: u64,
    /// Frames that were lost.
    pub lost: u64,
    /// The loss ratio of the worst trial.
    pub worst: f64,
    /// The time it took.
    pub taken: Duration,
}

impl Soak {
    /// Soaks, and tells of each trial what is known after it.
    ///
    /// # Errors
    /// Values that make no sense; what the device says.
    pub fn run(
        &self,
        device: &mut dyn Device,
        watch: &mut dyn FnMut(&Trial, &Soaked),
    ) -> Result<Soaked, Box<dyn Error>> {
        if self.trials == 0 || self.trial.is_zero() {
            return Err("a soak takes a trial at least, and a trial some time".into());
        }
        if !(0.0..1.0).contains(&self.loss_ratio) {
            return Err("the loss ratio must be at least 0, and below 1".into());
        }
        let mut soaked = Soaked::default();
        for _ in 0..self.trials {
            let trial = device.trial(self.load, self.trial)?;
            let loss_ratio = trial.loss_ratio();
            soaked.trials += 1;
            soaked.high_loss += u32::from(loss_ratio > self.loss_ratio);
            soaked.asked += trial.asked();
            soaked.lost += trial.asked().saturating_sub(trial.received);
            soaked.worst = soaked.worst.max(loss_ratio);
            soaked.taken += trial.taken;
            watch(&trial, &soaked);
        }
        Ok(soaked)
    }
}

impl Soaked {
    /// The part of all trials, to come as well, that has high loss: at most this, with a confidence of 0.95, say.
    pub fn bound(&self, confidence: f64) -> f64 {
        upper_bound(self.high_loss, self.trials, confidence)
    }
}

/// The greatest probability of an event that, in so many independent draws, happens no more often than it did with a
/// probability of one less the confidence: the exact one-sided bound of Clopper and Pearson.
fn upper_bound(events: u32, draws: u32, confidence: f64) -> f64 {
    if events >= draws {
        return 1.0;
    }
    let (mut lower, mut upper) = (f64::from(events) / f64::from(draws), 1.0);
    while upper - lower > 1e-12 {
        let middle = (lower + upper) / 2.0;
        *if at_most(events, draws, middle) > 1.0 - confidence { &mut lower } else { &mut upper } = middle;
    }
    upper
}

/// The probability of at most so many events in so many draws, from the logarithm of each term to the next.
fn at_most(events: u32, draws: u32, probability: f64) -> f64 {
    let odds = (probability / (1.0 - probability)).ln();
    let mut term = f64::from(draws) * (-probability).ln_1p();
    let mut sum = term.exp();
    for event in 0..events {
        term += (f64::from(draws - event) / f64::from(event + 1)).ln() + odds;
        sum += term.exp();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::{Edge, Simulated};

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-4 * b
    }

    #[test]
    fn bounds_are_the_published_ones() {
        // No event: 1 - (1 - confidence)^(1/draws), the "rule of three" for many draws.
        assert!(near(upper_bound(0, 10, 0.95), 1.0 - 0.05f64.powf(0.1)));
        assert!(near(upper_bound(0, 3600, 0.95), 1.0 - 0.05f64.powf(1.0 / 3600.0)));
        // One-sided 97.5 % is the upper end of the two-sided 95 %: 1 of 10 is 0.25 % to 44.5 %, 5 of 10 18.7 % to 81.3 %.
        assert!((upper_bound(1, 10, 0.975) - 0.4450).abs() < 5e-5);
        assert!((upper_bound(5, 10, 0.975) - 0.8129).abs() < 5e-5);
        assert_eq!(upper_bound(10, 10, 0.95), 1.0);
    }

    #[test]
    fn a_bound_grows_with_events_and_shrinks_with_draws() {
        for draws in [10, 100, 1000] {
            let bounds: Vec<_> = (0..=draws).step_by(10).map(|n| upper_bound(n, draws, 0.95)).collect();
            assert!(bounds.windows(2).all(|w| w[0] < w[1]));
            assert!(upper_bound(1, 2 * draws, 0.95) < upper_bound(1, draws, 0.95));
            assert!(upper_bound(1, draws, 0.9) < upper_bound(1, draws, 0.99));
        }
    }

    #[test]
    fn the_bound_covers_as_often_as_it_says() {
        let (edge, load) = (Edge::Paused(0.05, Duration::from_millis(5)), Load(1e6));
        let truth = 1.0 - f64::exp(-0.05);
        let soak = Soak { load, trial: Duration::from_secs(1), trials: 200, loss_ratio: 0.0 };
        let covered = (0..1000u64).filter(|seed| {
            let mut device = Simulated::new(1.1e6, edge, *seed);
            let soaked = soak.run(&mut device, &mut |_, _| {}).unwrap();
            assert_eq!((soaked.trials, soaked.asked, soaked.taken.as_secs()), (200, 200_000_000, 200));
            soaked.bound(0.95) >= truth
        });
        // 950 are expected, and somewhat more since events are whole; 4 deviations below that do not happen.
        assert!(covered.count() > 922);
    }

    #[test]
    fn losses_are_summed() {
        let soak = Soak { load: Load(1.01e6), trial: Duration::from_secs(1), trials: 60, loss_ratio: 0.005 };
        let mut told = 0;
        let mut device = Simulated::new(1e6, Edge::Sharp, 1);
        let soaked = soak.run(&mut device, &mut |_, now| told = now.trials).unwrap();
        assert_eq!((soaked.high_loss, soaked.lost, soaked.bound(0.95), told), (60, 600_000, 1.0, 60));
        let generous = Soak { loss_ratio: 0.01, ..soak }.run(&mut device, &mut |_, _| {}).unwrap();
        assert_eq!((generous.high_loss, generous.lost), (0, 600_000));
        assert!(near(generous.worst, 0.01 / 1.01));
        assert!(Soak { trials: 0, ..soak }.run(&mut device, &mut |_, _| {}).is_err());
    }
}
