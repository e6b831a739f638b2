//! Search goals (RFC 9971 §4.6): what a load must hold to count as one that the device can do, and how near to its edge
//! the search has to come.

use std::{error::Error, time::Duration};

/// Targets of a goal, the goal itself among them.
pub(super) const TARGETS: usize = 4;
/// How much narrower each is than the one before. Less than two: half of what one target leaves is within the width of the
/// next, whatever is rounded.
const STEP: f64 = 1.9;

/// A search goal.
#[derive(Clone, PartialEq, Debug)]
pub struct Goal {
    /// Its name in reports.
    pub name: &'static str,
    /// The least duration of a full-length trial.
    pub final_duration: Duration,
    /// The duration of the first trials, which only show where to look. At most `final_duration`.
    pub initial_duration: Duration,
    /// Full-length trials of one load that take so long in all always classify it.
    pub duration_sum: Duration,
    /// A trial that loses a larger part of its frames than this has high loss. From 0, below 1.
    pub loss_ratio: f64,
    /// The part of the trials, by duration, that may have high loss at a lower bound. From 0, below 1.
    pub exceed_ratio: f64,
    /// How far the bounds may be apart at the end, as a part of the upper one. Above 0, below 1.
    pub width: f64,
}

impl Goal {
    /// The non-drop rate: no frame is lost.
    pub const NDR: Goal = Goal {
        name: "NDR",
        final_duration: Duration::from_secs(1),
        initial_duration: Duration::from_millis(100),
        duration_sum: Duration::from_secs(21),
        loss_ratio: 0.0,
        exceed_ratio: 0.5,
        width: 0.005,
    };
    /// The partial drop rate: at most 0.5 % of frames are lost.
    pub const PDR: Goal = Goal { name: "PDR", loss_ratio: 0.005, ..Goal::NDR };

    /// The goals on the way to this one, which itself is the last: few and short trials over a wide interval, then more
    /// and longer ones over what is left of it. The last goes to half the width: bounds that noise has moved are then
    /// still about where the rate is.
    pub(super) fn targets(&self) -> [Goal; TARGETS] {
        let several = self.duration_sum.div_duration_f64(self.final_duration).sqrt();
        let coarse = |steps, final_duration: Duration, trials: f64| Goal {
            final_duration,
            duration_sum: final_duration.mul_f64(trials),
            width: (self.width / 2.0 * STEP.powi(steps)).min(0.5),
            ..self.clone()
        };
        [
            coarse(3, self.initial_duration, 1.0),
            coarse(2, self.final_duration, 1.0),
            coarse(1, self.final_duration, several),
            Goal { width: self.width / 2.0, ..self.clone() },
        ]
    }

    /// # Errors
    /// Which value no search can work with, and what it may be.
    pub fn check(&self) -> Result<(), Box<dyn Error>> {
        let wrong = |what: &str| Err(format!("goal {}: {what}", self.name).into());
        if self.initial_duration.is_zero() || self.initial_duration > self.final_duration {
            return wrong("the initial trial duration must be above zero, and at most the final one");
        }
        if self.duration_sum < self.final_duration {
            return wrong("the duration sum must be at least the final trial duration");
        }
        if !(0.0..1.0).contains(&self.loss_ratio) || !(0.0..1.0).contains(&self.exceed_ratio) {
            return wrong("the loss ratio and the exceed ratio must be at least 0, and below 1");
        }
        // Narrower, and the loads between the bounds are no longer told apart by their frames.
        if !(1e-6..1.0).contains(&self.width) {
            return wrong("the width must be at least 0.000001, and below 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_get_narrower_and_longer_and_end_within_the_goal() {
        let targets = Goal::PDR.targets();
        assert_eq!(targets[TARGETS - 1], Goal { width: Goal::PDR.width / 2.0, ..Goal::PDR });
        assert_eq!(targets[0].final_duration, Goal::PDR.initial_duration);
        for pair in targets.windows(2) {
            assert!(pair[0].final_duration <= pair[1].final_duration);
            assert!(pair[0].duration_sum <= pair[1].duration_sum);
            assert!(pair[0].width > pair[1].width);
            // The middle of bounds that are as far apart as they may be is near enough to either for the next target.
            let (lower, upper) = (1.0 - pair[0].width, 1.0);
            let middle = f64::sqrt(lower * upper);
            assert!(lower >= middle * (1.0 - pair[1].width) && middle >= upper * (1.0 - pair[1].width));
        }
        assert!(targets.iter().all(|t| t.check().is_ok()));
    }

    #[test]
    fn what_no_search_can_work_with_is_named() {
        let zero = Duration::ZERO;
        for (wrong, told) in [
            (Goal { initial_duration: zero, ..Goal::NDR }, "initial trial duration"),
            (Goal { initial_duration: Duration::from_secs(2), ..Goal::NDR }, "initial trial duration"),
            (Goal { duration_sum: zero, ..Goal::NDR }, "duration sum"),
            (Goal { loss_ratio: 1.0, ..Goal::NDR }, "loss ratio"),
            (Goal { exceed_ratio: -0.1, ..Goal::NDR }, "exceed ratio"),
            (Goal { exceed_ratio: f64::NAN, ..Goal::NDR }, "exceed ratio"),
            (Goal { width: 0.0, ..Goal::NDR }, "width"),
        ] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.starts_with("goal NDR: ") && error.contains(told), "{error}");
        }
    }
}
