//! What the trials of one load say of a goal: whether the load is a lower or an upper bound (RFC 9971 §6.1, appendix A),
//! and its conditional throughput (§6.2, appendix B).

use super::goal::Goal;
use crate::trial::{Load, Trial};
use std::time::Duration;

/// What a load is to a goal (RFC 9971 §4.7.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// Holds the goal, whatever the trials that are missing say.
    Lower,
    /// Does not.
    Upper,
    /// The trials that are missing decide.
    Undecided,
}

/// Durations of a load's trials, summed as one goal sees them: full-length or short, with high or with low loss.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(super) struct Sums {
    pub(super) full_high: Duration,
    pub(super) full_low: Duration,
    pub(super) short_high: Duration,
    pub(super) short_low: Duration,
}

impl Sums {
    pub(super) fn of(goal: &Goal, trials: &[Trial]) -> Sums {
        let mut sums = Sums::default();
        for trial in trials {
            let full = trial.duration >= goal.final_duration;
            let sum = match (full, trial.loss_ratio() > goal.loss_ratio) {
                (true, true) => &mut sums.full_high,
                (true, false) => &mut sums.full_low,
                (false, true) => &mut sums.short_high,
                (false, false) => &mut sums.short_low,
            };
            *sum += trial.duration;
        }
        sums
    }

    /// High loss of full-length trials, and of short ones what is not balanced by short ones with low loss.
    pub(super) fn effective_high(&self, goal: &Goal) -> Duration {
        let balancing = self.short_low.mul_f64(goal.exceed_ratio / (1.0 - goal.exceed_ratio));
        self.full_high + self.short_high.saturating_sub(balancing)
    }

    /// The sum that exceed ratios are parts of: at least the goal's duration sum, some of which may be missing.
    pub(super) fn whole(&self, goal: &Goal) -> Duration {
        goal.duration_sum.max(self.effective_high(goal) + self.full_low)
    }

    /// The exceed ratio if all that is missing has low loss.
    pub(super) fn optimistic(&self, goal: &Goal) -> f64 {
        self.effective_high(goal).div_duration_f64(self.whole(goal))
    }

    /// The exceed ratio if all that is missing has high loss.
    pub(super) fn pessimistic(&self, goal: &Goal) -> f64 {
        let whole = self.whole(goal);
        (whole - self.full_low).div_duration_f64(whole)
    }

    pub(super) fn bound(&self, goal: &Goal) -> Bound {
        if self.optimistic(goal) > goal.exceed_ratio {
            Bound::Upper
        } else if self.pessimistic(goal) <= goal.exceed_ratio {
            Bound::Lower
        } else {
            Bound::Undecided
        }
    }
}

/// What the trials, all of one load, make of it.
pub fn classify(goal: &Goal, trials: &[Trial]) -> Bound {
    Sums::of(goal, trials).bound(goal)
}

/// Frames per second that pass in the full-length trial, in order of loss, up to which all but the exceed ratio are; what
/// is missing of the duration sum counts as lost. The trials are all of this load.
pub fn conditional_throughput(goal: &Goal, load: Load, trials: &[Trial]) -> f64 {
    let mut full: Vec<_> = trials.iter().filter(|t| t.duration >= goal.final_duration).collect();
    full.sort_by(|a, b| a.loss_ratio().total_cmp(&b.loss_ratio()));
    let whole = goal.duration_sum.max(full.iter().map(|t| t.duration).sum());
    let mut remaining = whole.mul_f64(1.0 - goal.exceed_ratio);
    for trial in full {
        remaining = remaining.saturating_sub(trial.duration);
        if remaining.is_zero() {
            return load.0 * (1.0 - trial.loss_ratio());
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A trial of so many quarters of a second, that loses 0, 1 or 2 of a thousand frames.
    fn trial((quarters, lost): (u64, u64)) -> Trial {
        let duration = Duration::from_millis(250 * quarters);
        let offered = Load(1000.0 / duration.as_secs_f64());
        Trial { offered, sent: 1000, received: 1000 - lost, duration, taken: duration }
    }

    /// Not one quarter: its exceed coefficient, a third, is not a whole number of nanoseconds.
    fn exceed_quarters() -> impl Strategy<Value = u32> {
        prop::sample::select(vec![0, 2, 3])
    }

    fn goals() -> impl Strategy<Value = Goal> {
        (1..6u64, 0..20u64, exceed_quarters(), prop::sample::select(vec![0.0, 0.001])).prop_map(
            |(quarters, more, exceed, loss_ratio)| Goal {
                final_duration: Duration::from_millis(250 * quarters),
                duration_sum: Duration::from_millis(250 * (quarters + more)),
                exceed_ratio: f64::from(exceed) / 4.0,
                loss_ratio,
                ..Goal::NDR
            },
        )
    }

    fn trials() -> impl Strategy<Value = Vec<Trial>> {
        prop::collection::vec((1..8u64, 0..3u64).prop_map(trial), 0..12)
    }

    /// The text's "certain to hold, whatever the results in the time that remains" (RFC 9971 §4.7.2), taken literally, in
    /// quarters of a second and of the exceed ratio: each result that the missing time could have is tried.
    fn slow(goal: &Goal, trials: &[Trial]) -> Bound {
        let quarters = |d: Duration| (d.as_millis() / 250) as i64;
        let exceed = (goal.exceed_ratio * 4.0) as i64;
        let (mut full_high, mut full_low, mut short_high, mut short_low) = (0, 0, 0, 0);
        for t in trials {
            let lossy = (t.sent - t.received) as f64 / t.sent as f64 > goal.loss_ratio;
            let len = quarters(t.duration);
            match (len >= quarters(goal.final_duration), lossy) {
                (true, true) => full_high += len,
                (true, false) => full_low += len,
                (false, true) => short_high += len,
                (false, false) => short_low += len,
            }
        }
        // In units of 1/(4 - exceed) quarters, so that all are whole.
        let unit = 4 - exceed;
        let high = full_high * unit + (short_high * unit - short_low * exceed).max(0);
        let low = full_low * unit;
        let missing = (quarters(goal.duration_sum) * unit - high - low).max(0);
        let holds = |of_missing: i64| (high + of_missing) * 4 <= (high + low + missing) * exceed;
        let results: Vec<bool> = (0..=missing).map(holds).collect();
        match (results.iter().all(|h| *h), results.iter().any(|h| *h)) {
            (true, _) => Bound::Lower,
            (_, false) => Bound::Upper,
            _ => Bound::Undecided,
        }
    }

    proptest! {
        #[test]
        fn classified_as_by_trying_each_result(goal in goals(), trials in trials()) {
            prop_assert_eq!(classify(&goal, &trials), slow(&goal, &trials));
        }

        #[test]
        fn the_order_of_trials_does_not_matter(goal in goals(), trials in trials()) {
            let backwards: Vec<_> = trials.iter().rev().copied().collect();
            prop_assert_eq!(classify(&goal, &trials), classify(&goal, &backwards));
            let of = |t: &[Trial]| conditional_throughput(&goal, Load(1e6), t);
            prop_assert_eq!(of(&trials), of(&backwards));
        }

        // RFC 9971 §5.4
        #[test]
        fn a_duration_sum_of_full_length_trials_decides(goal in goals(), lost in prop::collection::vec(0..3u64, 24)) {
            let quarters = (goal.final_duration.as_millis() / 250) as u64;
            let enough = goal.duration_sum.div_duration_f64(goal.final_duration).ceil() as usize;
            let trials: Vec<_> = lost[..enough].iter().map(|lost| trial((quarters, *lost))).collect();
            prop_assert_ne!(classify(&goal, &trials), Bound::Undecided);
        }

        // RFC 9971 §6.2.1
        #[test]
        fn throughput_of_a_lower_bound_has_low_loss(goal in goals(), trials in trials()) {
            let throughput = conditional_throughput(&goal, Load(1e6), &trials);
            if classify(&goal, &trials) == Bound::Lower {
                prop_assert!(throughput >= 1e6 * (1.0 - goal.loss_ratio));
            }
        }
    }
}
