//! `portcullis bench`: what gateways can do, as reports.

pub mod between;
pub mod blocked;
pub mod burst;
pub mod latency;
pub mod merge;
pub mod ndr;
pub mod pairs;
pub mod progress;
pub mod scaling;
pub mod soak;
#[cfg(feature = "ike")]
pub mod tunnels;

use crate::{
    plan::{calibrate, predictions},
    report::{
        Output, Report,
        compare::{self, Verdict},
    },
};
use clap::{Args, Subcommand};
use serde_json::json;
use std::{error::Error, path::PathBuf};

/// What to measure.
#[derive(Subcommand, Debug)]
pub enum Bench {
    /// Searches gateways by MLRsearch (RFC 9971) for the rate without loss, and the one with half a percent.
    Ndr(Box<Told<ndr::Options>>),
    /// Latency at parts of the rate with half a percent of loss, and idle, to 99.999 %.
    Latency(Box<Told<latency::Options>>),
    /// The longest burst that loses nothing (RFC 2544 §26.4, RFC 9004).
    Burst(Box<Told<burst::Options>>),
    /// One rate for long, and how much of all the time after it may have loss.
    Soak(Box<Told<soak::Options>>),
    /// For how long nothing goes through while something is done to gateways, as a restart or a rekey (RFC 6201).
    Blocked(Box<Told<blocked::Options>>),
    /// How many tunnels a gateway sets up in a second, and how soon packets go through them.
    #[cfg(feature = "ike")]
    Tunnels(Box<Told<tunnels::Options>>),
    /// The rate without loss by sizes, SAs and workers.
    Scaling(Box<Told<scaling::Options>>),
    /// Whether the second of two reports is better or worse than the first, and how sure that is.
    Compare(Compare),
    /// One report of several.
    Report(Box<Told<merge::Options>>),
    /// Makes the profile of a host, by which `portcullis plan` reckons, of what portcullis-path measured there.
    Calibrate(calibrate::Options),
    /// How far what a profile predicts is from what was measured, and it was not made of.
    Predictions(predictions::Options),
}

/// A measurement, and how its report is told.
#[derive(Args, Debug)]
pub struct Told<T: Args> {
    #[command(flatten)]
    what: T,
    #[command(flatten)]
    output: Output,
}

/// Two reports.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 nothing is worse, 1 they cannot be compared, 3 something is worse, or is not in the second, 4 nothing \
                        can be told: each was measured once."
)]
pub struct Compare {
    /// A report, as `--write FILE.json` has written it.
    first: PathBuf,
    /// Another.
    second: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// What measures.
pub trait Measure {
    /// Measures, on this core and those behind it.
    ///
    /// # Errors
    /// What cannot be measured, and why.
    fn measure(&self, core: Option<usize>) -> Result<Report, Box<dyn Error>>;
}

impl<T: Args + Measure> Told<T> {
    fn run(&self, core: Option<usize>) -> Result<String, Box<dyn Error>> {
        self.output.check()?;
        self.output.tell(&self.what.measure(core)?)
    }
}

impl Compare {
    fn run(&self) -> Result<(String, u8), Box<dyn Error>> {
        self.output.check()?;
        let [one, other] = [Report::read(&self.first)?, Report::read(&self.second)?];
        let differences = compare::differences(&one, &other)?;
        let verdicts: Vec<_> = differences.iter().map(|d| d.verdict).collect();
        let told: Vec<_> = differences
            .iter()
            .map(|d| {
                let (low, high) = d.change.1.unzip();
                json!({
                    "figure": d.name, "unit": d.unit, "first": d.means[0], "second": d.means[1], "change": d.change.0,
                    "low": low, "high": high, "verdict": d.verdict.to_string(),
                })
            })
            .collect();
        let note = format!(
            "First: {} on {}. Second: {} on {}.",
            one.title, one.host.cpu, other.title, other.host.cpu
        );
        let report = Report::new(
            "Comparison",
            &one.taken,
            json!({ "bench": "compare", "differences": told }),
        )
        .with("Figures", &note, compare::table(&differences), vec![]);
        Ok((self.output.tell(&report)?, code(&verdicts)))
    }
}

/// The exit code that says so.
fn code(verdicts: &[Verdict]) -> u8 {
    let is_worse = verdicts.iter().any(|of| matches!(of, Verdict::Worse | Verdict::Gone));
    let is_unknown = verdicts.iter().all(|of| *of == Verdict::Once);
    match (is_worse, is_unknown) {
        (true, _) => 3,
        (_, true) => 4,
        _ => 0,
    }
}

impl Bench {
    /// What is to be printed, and the exit code.
    ///
    /// # Errors
    /// What cannot be measured, read or written.
    pub fn run(&self, core: Option<usize>) -> Result<(String, u8), Box<dyn Error>> {
        let text = match self {
            Bench::Ndr(told) => told.run(core),
            Bench::Latency(told) => told.run(core),
            Bench::Burst(told) => told.run(core),
            Bench::Soak(told) => told.run(core),
            Bench::Blocked(told) => told.run(core),
            #[cfg(feature = "ike")]
            Bench::Tunnels(told) => told.run(core),
            Bench::Scaling(told) => told.run(core),
            Bench::Report(told) => told.run(core),
            Bench::Compare(compare) => return compare.run(),
            Bench::Calibrate(options) => options.run().map_err(Into::into),
            Bench::Predictions(options) => options.run().map_err(Into::into),
        }?;
        Ok((text, 0))
    }
}

/// Options of a command line.
#[cfg(test)]
fn parsed<T: Args>(words: &[&str]) -> Result<T, String> {
    let command = T::augment_args(clap::Command::new("bench").no_binary_name(true));
    let matches = command.try_get_matches_from(words).map_err(|e| e.to_string())?;
    T::from_arg_matches(&matches).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Form;
    use std::fs;

    #[test]
    fn what_is_worse_ends_with_another_code() {
        let dir = std::env::temp_dir().join(format!("portcullis-compare-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let write = |name: &str, samples: &[f64]| {
            let mut report = Report::new("Rates", "in memory", json!({}));
            report.measure("NDR", "Mpps", true, samples.to_vec());
            let path = dir.join(name);
            fs::write(&path, report.to_form(Form::Json).unwrap()).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let [slow, fast] = [write("slow", &[1.0, 1.01, 0.99]), write("fast", &[2.0, 2.01, 1.99])];
        let run = |words: &[&str]| parsed::<Compare>(words).unwrap().run();
        let (text, of_worse) = run(&[&fast, &slow, "--json"]).unwrap();
        assert!(text.contains("\"verdict\": \"worse\""), "{text}");
        assert_eq!((of_worse, run(&[&slow, &fast]).unwrap().1, run(&[&slow, &slow]).unwrap().1), (3, 0, 0));
        let [once, none] = [write("once", &[1.0]), write("none", &[])];
        assert_eq!((run(&[&slow, &once]).unwrap().1, run(&[&slow, &none]).unwrap().1), (4, 3));
        assert_eq!((code(&[Verdict::Once, Verdict::Same]), code(&[Verdict::Once, Verdict::Gone])), (0, 3));
        assert!(run(&[&slow, "/nowhere"]).unwrap_err().to_string().starts_with("/nowhere: "));
        fs::remove_dir_all(&dir).unwrap();
    }
}
