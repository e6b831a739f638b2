//! MLRsearch (RFC 9971): one search for several rates of a device, as the one without loss and the one with half a percent.
//!
//! A search narrows the bounds of each goal from target to target (`goal.rs`), and all goals share all trials. Which load is
//! tried next (`narrow.rs`) follows from the bounds, and from where the last target left them; it is tried until it is
//! decided. Where each target finds its bounds within those of the last one, two loads are decided for each, which is the
//! least there can be at the end. Where it does not, because of noise or because short trials show less than long ones, it
//! looks farther and farther from them.
//!
//! Dangers: a load that noise has made an upper bound hides all above it (§5.3.3), so a search errs to the low side; and
//! what a device buffers passes in short trials and is lost in long ones, so only full-length trials make a lower bound.

pub mod bound;
#[cfg(test)]
mod example;
pub mod goal;
mod narrow;
#[cfg(test)]
mod tests;

use crate::trial::{Device, Load, Trial};
use bound::{Bound, classify, conditional_throughput};
use goal::{Goal, TARGETS};
use narrow::Guess;
use std::{collections::BTreeMap, error::Error, time::Duration};

/// What to search for, and where.
#[derive(Clone, PartialEq, Debug)]
pub struct Search {
    /// The goals. Those of less loss belong first: what they need of smaller loads is better known early (§5.3.4).
    pub goals: Vec<Goal>,
    /// The least load to try: some frames at the shortest duration, at least.
    pub min: Load,
    /// The greatest: what the source, or the line, is good for.
    pub max: Load,
}

/// All trials of a search, by load.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Trials(BTreeMap<Load, Vec<Trial>>);

/// The relevant bounds (§4.8): the smallest upper one, and the largest lower one below that.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bounds {
    /// None where the least load is an upper bound.
    pub lower: Option<Load>,
    /// None where the greatest load is a lower bound.
    pub upper: Option<Load>,
}

/// What was found for a goal (§4.8.4).
#[derive(Clone, PartialEq, Debug)]
pub struct GoalResult {
    /// The goal.
    pub goal: Goal,
    /// The relevant bounds.
    pub bounds: Bounds,
    /// Conditional throughput in frames per second, if there is a lower bound.
    pub throughput: Option<f64>,
    /// Trials that were made for this goal; others' were used, too.
    pub trials: usize,
    /// The time that these took.
    pub taken: Duration,
}

/// What a search has found.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// A result for each goal, in their order.
    pub results: Vec<GoalResult>,
    /// What they are made of.
    pub trials: Trials,
}

/// How far a search is, after each trial.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Progress {
    /// The goal that the trial was for.
    pub goal: &'static str,
    /// The trial.
    pub trial: Trial,
    /// Trials until now.
    pub trials: usize,
    /// The time they took.
    pub taken: Duration,
    /// The time that is left, about: on a device without noise.
    pub left: Duration,
}

impl Bounds {
    /// Whether they are as near as the goal wants them.
    pub fn are_within(&self, width: f64) -> bool {
        matches!((self.lower, self.upper), (Some(l), Some(u)) if l.0 >= u.0 * (1.0 - width))
    }
}

impl GoalResult {
    /// Whether both bounds were found, and as near as the goal wants them (§4.8.4.1).
    pub fn is_regular(&self) -> bool {
        self.bounds.are_within(self.goal.width)
    }
}

impl Trials {
    /// All, by load and then in the order that they were made in.
    pub fn iter(&self) -> impl Iterator<Item = &Trial> {
        self.0.values().flatten()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The time that they took in all.
    pub fn taken(&self) -> Duration {
        self.iter().map(|t| t.taken).sum()
    }

    fn bounds(&self, goal: &Goal) -> Bounds {
        let mut bounds = Bounds { lower: None, upper: None };
        for (load, trials) in &self.0 {
            match classify(goal, trials) {
                Bound::Lower => bounds.lower = Some(*load),
                Bound::Upper => {
                    bounds.upper = Some(*load);
                    break;
                }
                Bound::Undecided => {}
            }
        }
        bounds
    }
}

impl Search {
    /// Searches, and tells of each trial.
    ///
    /// # Errors
    /// What is wrong with the goals or the limits; what the device says.
    pub fn run(
        &self,
        device: &mut dyn Device,
        watch: &mut dyn FnMut(&Progress),
    ) -> Result<Found, Box<dyn Error>> {
        self.check()?;
        let targets = self.goals.iter().map(Goal::targets).collect();
        let spent = vec![Default::default(); self.goals.len()];
        Running { search: self, targets, spent, device, watch, trials: Trials::default() }.run()
    }

    fn check(&self) -> Result<(), Box<dyn Error>> {
        if self.goals.is_empty() {
            return Err("a search without goals".into());
        }
        let (min, max) = (self.min.0, self.max.0);
        if !(min > 0.0 && min < max && max.is_finite()) {
            let wrong = "the least must be above zero and below the greatest";
            return Err(format!("loads from {min} to {max} frames per second: {wrong}").into());
        }
        self.goals.iter().try_for_each(Goal::check)
    }
}

/// A search on its way.
struct Running<'a> {
    search: &'a Search,
    /// The targets of each goal.
    targets: Vec<[Goal; TARGETS]>,
    /// What was spent on each.
    spent: Vec<[Spent; TARGETS]>,
    device: &'a mut dyn Device,
    watch: &'a mut dyn FnMut(&Progress),
    trials: Trials,
}

#[derive(Clone, Copy, Default)]
struct Spent {
    trials: usize,
    taken: Duration,
}

/// A target: the number of its goal, and its own.
type Focus = (usize, usize);

impl Running<'_> {
    fn run(mut self) -> Result<Found, Box<dyn Error>> {
        // The forwarding rate at the greatest load shows where to begin (§1.1).
        let first = &self.targets[0][0];
        let (duration, width) = (first.final_duration, first.width);
        let rate = self.trial((0, 0), self.search.max, duration)?.forwarding_rate();
        let mut guesses = vec![Guess::around(Load(rate), width); self.targets.len()];
        for target in 0..TARGETS - 1 {
            self.narrow_all(target, &mut guesses)?;
        }
        // A trial for one goal may change what its load is to another, whose bounds are then not where they were.
        let mut before = 0;
        while before < self.trials.count() {
            before = self.trials.count();
            self.narrow_all(TARGETS - 1, &mut guesses)?;
        }
        let results = (0..self.targets.len()).map(|goal| self.result(goal)).collect();
        Ok(Found { results, trials: self.trials })
    }

    fn narrow_all(&mut self, target: usize, guesses: &mut [Guess]) -> Result<(), Box<dyn Error>> {
        for (goal, guess) in guesses.iter_mut().enumerate() {
            *guess = guess.refine(self.narrow((goal, target), *guess)?);
        }
        Ok(())
    }

    fn narrow(&mut self, focus: Focus, guess: Guess) -> Result<Bounds, Box<dyn Error>> {
        let target = self.targets[focus.0][focus.1].clone();
        loop {
            let bounds = self.trials.bounds(&target);
            let limits = (self.search.min, self.search.max);
            let Some(load) = narrow::next(bounds, guess, target.width, limits) else { return Ok(bounds) };
            self.trial(focus, load, target.final_duration)?;
        }
    }

    fn trial(&mut self, focus: Focus, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
        let trial = Trial { offered: load, duration, ..self.device.trial(load, duration)? };
        self.trials.0.entry(load).or_default().push(trial);
        let spent = &mut self.spent[focus.0][focus.1];
        spent.trials += 1;
        spent.taken += trial.taken;
        let (trials, taken, left) = (self.trials.count(), self.trials.taken(), self.left(focus));
        (self.watch)(&Progress { goal: self.search.goals[focus.0].name, trial, trials, taken, left });
        Ok(trial)
    }

    /// Each target takes about a duration sum: half of it for either bound. What else a trial takes goes by the past.
    fn left(&self, (goal, target): Focus) -> Duration {
        let asked: Duration = self.trials.iter().map(|t| t.duration).sum();
        let share = self.trials.taken().div_duration_f64(asked);
        let about = |(g, t): Focus| self.targets[g][t].duration_sum.mul_f64(share);
        let all = (0..TARGETS).flat_map(|t| (0..self.targets.len()).map(move |g| (g, t)));
        let later: Duration = all.filter(|(g, t)| (*t, *g) > (target, goal)).map(about).sum();
        later + about((goal, target)).saturating_sub(self.spent[goal][target].taken)
    }

    fn result(&self, goal: usize) -> GoalResult {
        let (spent, goal) = (&self.spent[goal], self.search.goals[goal].clone());
        let bounds = self.trials.bounds(&goal);
        let throughput = bounds.lower.map(|load| conditional_throughput(&goal, load, &self.trials.0[&load]));
        let (trials, taken) = (spent.iter().map(|s| s.trials).sum(), spent.iter().map(|s| s.taken).sum());
        GoalResult { goal, bounds, throughput, trials, taken }
    }
}
