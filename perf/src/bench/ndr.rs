//! The rates of gateways by MLRsearch. A lower bound holds where at most half of its trials lose more than they may (RFC 9971
//! §4.6.5).

use super::{
    Measure,
    pairs::{Noise, Pairs, Workers},
    progress::Bar,
};
use crate::{
    report::{Report, Table},
    search::{Found, GoalResult, Search, goal::Goal},
    trial::Load,
};
use clap::Args;
use serde_json::{Value, json};
use std::{error::Error, time::Duration};

/// The least load that is tried, in frames per second.
const MIN: Load = Load(1e3);

/// What is asked of the search.
#[derive(Args, Debug)]
#[command(
    after_help = "In memory there is no NIC and no kernel: frames are due by the clock of the gateways' own turns, which stands still \
                  while frames are made and counted, and wait in a ring of 2048.\n\nExamples:\n  \
                  portcullis bench ndr --quick\n  \
                  portcullis bench ndr --way encap --sizes imix --sas 1000 --algorithm aes-gcm-256 --write ndr.html\n  \
                  portcullis bench ndr --out eth1 --in eth2 --dst-mac 02:00:00:00:00:01 --src 10.0.1.2 --dst 10.0.2.2 --max 20e6"
)]
pub struct Options {
    #[command(flatten)]
    workers: Workers,
    #[command(flatten)]
    pace: Pace,
    /// Only the rate without loss.
    #[arg(long)]
    ndr_only: bool,
    /// So many searches, whose rates have a scatter by which reports can be compared.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

/// How long a search takes.
#[derive(Args, Clone, Debug)]
pub struct Pace {
    /// The greatest load to try, in frames per second.
    #[arg(long, value_name = "PPS", default_value_t = 100e6)]
    pub max: f64,
    /// An answer within a minute or so: bounds of 1 %, and 5 trials of half a second, in place of 21 of one.
    #[arg(long)]
    pub quick: bool,
}

impl Pace {
    /// A goal, as it is or shorter.
    pub fn goal(&self, goal: Goal) -> Goal {
        match self.quick {
            true => Goal {
                final_duration: Duration::from_millis(500),
                duration_sum: Duration::from_millis(2500),
                width: 0.01,
                ..goal
            },
            false => goal,
        }
    }

    /// Searches, and tells of it.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn search(&self, pairs: &mut Pairs, goals: &[Goal], what: &str) -> Result<Found, Box<dyn Error>> {
        let goals = goals.iter().cloned().map(|goal| self.goal(goal)).collect();
        let mut bar = Bar::default();
        Search { goals, min: MIN, max: Load(self.max) }.run(pairs, &mut |progress| {
            let (mpps, loss) = (progress.trial.offered.0 / 1e6, 100.0 * progress.trial.loss_ratio());
            let goal = progress.goal;
            let line = format!("{what}{goal}: trial {} at {mpps:.3} Mpps lost {loss:.3} %", progress.trials);
            bar.tell(&line, progress.left);
        })
    }
}

/// A search.
struct Run {
    found: Found,
    noise: Noise,
}

impl Options {
    fn goals(&self) -> Vec<Goal> {
        if self.ndr_only { vec![Goal::NDR] } else { vec![Goal::NDR, Goal::PDR] }
    }

    fn json(&self, Run { found, noise }: &Run) -> Value {
        let goal = |r: &GoalResult| {
            let (inner, outer) = r.throughput.map(|pps| self.workers.pair.gbits(pps)).unzip();
            json!({
                "goal": r.goal.name, "loss_ratio": r.goal.loss_ratio, "width": r.goal.width, "regular": r.is_regular(),
                "lower_pps": r.bounds.lower.map(|l| l.0), "upper_pps": r.bounds.upper.map(|u| u.0),
                "throughput_pps": r.throughput, "inner_gbits": inner, "outer_gbits": outer, "trials": r.trials,
            })
        };
        json!({
            "goals": found.results.iter().map(goal).collect::<Vec<_>>(), "trials": found.trials.count(),
            "seconds": found.trials.taken().as_secs_f64(), "noise": noise.json(),
        })
    }

    fn rows(&self, Run { found, .. }: &Run) -> Vec<Vec<String>> {
        let mpps = |pps: Option<f64>| pps.map_or("none".to_owned(), |pps| format!("{:.3}", pps / 1e6));
        let row = |r: &GoalResult| {
            let (inner, outer) = self.workers.pair.gbits(r.throughput.unwrap_or(0.0));
            let name = if r.is_regular() { "" } else { ", bounds not as near as they should be" };
            vec![
                format!("{}{name}", r.goal.name),
                mpps(r.throughput),
                format!("{inner:.2}"),
                format!("{outer:.2}"),
                mpps(r.bounds.lower.map(|l| l.0)),
                mpps(r.bounds.upper.map(|u| u.0)),
                r.trials.to_string(),
            ]
        };
        found.results.iter().map(row).collect()
    }
}

impl Measure for Options {
    fn measure(&self, core: Option<usize>) -> Result<Report, Box<dyn Error>> {
        let mut runs = vec![];
        for n in 1..=self.runs {
            let mut pairs = self.workers.pairs(core)?;
            let what = if self.runs > 1 { format!("run {n} of {}: ", self.runs) } else { String::new() };
            let found = self.pace.search(&mut pairs, &self.goals(), &what)?;
            runs.push(Run { found, noise: pairs.noise });
        }
        let rows = runs.iter().flat_map(|run| self.rows(run)).collect();
        let noises: Vec<_> = runs.iter().map(|run| &run.noise).collect();
        let note = match self.pace.quick {
            true => {
                "Quick: bounds of 1 %, by 5 trials of half a second, where RFC 9971 has 0.5 % and 21 of one."
            }
            false => "",
        };
        let all: Vec<_> = runs.iter().map(|run| self.json(run)).collect();
        let data = json!({ "quick": self.pace.quick, "runs": all });
        let table = Table { rows, ..Table::new(&HEAD) };
        let mut report = self.workers.report(("ndr", "Rates", note), data, table, vec![], &noises);
        for (at, goal) in self.goals().iter().enumerate() {
            report.measure(goal.name, "Mpps", true, rates(&runs, at));
        }
        Ok(report)
    }
}

/// Mpps of each run for a goal: 0 of one that found no rate.
fn rates(runs: &[Run], goal: usize) -> Vec<f64> {
    runs.iter().map(|run| run.found.results[goal].throughput.unwrap_or(0.0) / 1e6).collect()
}

const HEAD: [&str; 7] =
    ["Goal", "Mpps", "Gbit/s inside", "Gbit/s outside", "Lower bound, Mpps", "Upper bound, Mpps", "Trials"];

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};
    use crate::trial::{Device, Trial};

    fn options(words: &[&str]) -> Result<Options, String> {
        parsed(words)
    }

    #[test]
    fn what_cannot_be_searched_is_named() {
        let of = |words: &[&str]| {
            let tried = options(words).and_then(|o| o.measure(None).map_err(|e| e.to_string()));
            tried.map(|_| ()).unwrap_err()
        };
        for (words, told) in [
            (&["--algorithm", "rot13"][..], "no algorithm 'rot13' of ESP"),
            (&["--sizes", "9001"], "a size is from 28 to 9000"),
            (&["--sas", "0"], "0 is not in 1..=100000"),
            (&["--workers", "64"], "--workers 64: there are"),
            (&["--max", "1"], "loads from 1000 to 1 frames per second"),
        ] {
            let error = of(words);
            assert!(error.contains(told), "{words:?}: {error}");
        }
    }

    /// Nothing passes.
    struct Broken;

    impl Device for Broken {
        fn trial(&mut self, offered: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
            let sent = (offered.0 * duration.as_secs_f64()) as u64;
            Ok(Trial { offered, sent, received: 0, duration, taken: duration })
        }
    }

    #[test]
    fn no_rate_is_the_worst_of_all() {
        let search = Search { goals: vec![Goal::NDR], min: MIN, max: Load(1e6) };
        let found = search.run(&mut Broken, &mut |_| {}).unwrap();
        assert_eq!(rates(&[Run { found, noise: Noise::default() }], 0), [0.0]);
    }

    #[test]
    fn a_quick_search_is_a_search() {
        let quick = options(&["--quick"]).unwrap();
        quick.goals().into_iter().for_each(|goal| quick.pace.goal(goal).check().unwrap());
        assert_eq!(options(&["--ndr-only"]).unwrap().goals(), [Goal::NDR]);
        assert_eq!(options(&[]).unwrap().goals(), [Goal::NDR, Goal::PDR]);
    }
}
