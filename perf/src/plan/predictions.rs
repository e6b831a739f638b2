//! How far what a profile predicts is from what was measured.

use super::{
    calibrate::{CalibrateError, samples},
    fit::median,
    profile::{Profile, ProfileError, Sample},
};
use clap::Args;
use serde::Serialize;
use std::{fmt::Write, path::PathBuf};
use thiserror::Error;

/// Which profile, and what it is compared with.
#[derive(Args, Debug)]
#[command(
    after_help = "What the profile was made of is left out: it says nothing of how well it predicts.\n\nExample:\n  \
                  portcullis-path --sizes 200,800 --sas 300,20000 --arrival owner --json others.json\n  \
                  portcullis bench predictions --profile host.json --measured others.json"
)]
pub struct Options {
    /// The profile, a file of `portcullis bench calibrate`.
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// What `portcullis-path --json FILE` or `perf/calibrate --held-out` wrote on the same host.
    #[arg(long, value_name = "FILE", required = true)]
    measured: Vec<PathBuf>,
    /// As JSON, with stable keys.
    #[arg(long)]
    json: bool,
}

/// Why there is no comparison.
#[derive(Debug, Error)]
pub enum PredictionsError {
    /// The measurements.
    #[error(transparent)]
    Measured(#[from] CalibrateError),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The profile has nothing of the kind.
    #[error("the profile says nothing of {0}; make one of measurements that have it, too")]
    Unknown(String),
    /// All of it is what the profile was made of.
    #[error("the profile was made of all that was measured; measure other sizes or numbers of SAs")]
    Nothing,
}

/// What was measured, beside what was predicted.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Prediction {
    /// What was measured.
    #[serde(flatten)]
    pub sample: Sample,
    /// Clocks that the profile predicts.
    pub predicted: f64,
    /// With a chance of 95 % no farther from it than this.
    pub give_or_take: f64,
    /// What was measured less what was predicted, as a part of that.
    pub off: f64,
}

/// All of them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Predictions {
    /// Each.
    pub predictions: Vec<Prediction>,
    /// The middle of how far they are off, either way.
    pub median: f64,
    /// The farthest.
    pub worst: f64,
    /// How many are as near as the profile says of itself.
    pub inside: usize,
}

impl Predictions {
    /// What a profile predicts for samples that it was not made of.
    ///
    /// # Errors
    /// [`PredictionsError::Unknown`], [`PredictionsError::Nothing`].
    pub fn new(profile: &Profile, samples: Vec<Sample>) -> Result<Predictions, PredictionsError> {
        let what = |s: &Sample| {
            (s.algorithm.clone(), s.direction, s.sizes.clone(), s.sas, s.workers, s.port.clone())
        };
        let mut predictions = vec![];
        for sample in samples {
            if profile.samples.iter().any(|known| what(known) == what(&sample)) {
                continue;
            }
            let path = (&*sample.algorithm, sample.direction);
            let known = profile.predict(path, &sample.sizes, (sample.sas, sample.workers), &sample.port);
            let (clocks, _) = known.ok_or_else(|| {
                PredictionsError::Unknown(format!("{} {} over {}", path.1, path.0, sample.port))
            })?;
            let off = sample.clocks / clocks.value - 1.0;
            let (predicted, give_or_take) = (clocks.value, clocks.give_or_take);
            predictions.push(Prediction { sample, predicted, give_or_take, off });
        }
        if predictions.is_empty() {
            return Err(PredictionsError::Nothing);
        }
        let off = || predictions.iter().map(|p| p.off.abs());
        let inside = predictions.iter().filter(|p| (p.sample.clocks - p.predicted).abs() <= p.give_or_take);
        let (median, worst, inside) = (median(off().collect()), off().fold(0.0, f64::max), inside.count());
        Ok(Predictions { predictions, median, worst, inside })
    }

    /// A table.
    pub fn told(&self) -> String {
        let mut out = String::new();
        _ = writeln!(
            out,
            "{:<7}{:<13}{:<8}{:>8}{:>8}{:>9}{:>10}{:>11}{:>9}{:>9}",
            "", "algorithm", "port", "octets", "SAs", "workers", "measured", "predicted", "+-", "off"
        );
        for Prediction { sample, predicted, give_or_take, off } in &self.predictions {
            let Sample { algorithm, direction, sizes, sas, workers, port, clocks, .. } = sample;
            let (direction, sizes) = (direction.to_string(), sizes.to_string());
            _ = writeln!(
                out,
                "{direction:<7}{algorithm:<13}{port:<8}{sizes:>8}{sas:>8}{workers:>9}{clocks:>10.0}{predicted:>11.0}\
                 {give_or_take:>9.0}{:>7.1} %",
                off * 100.0
            );
        }
        let (n, inside) = (self.predictions.len(), self.inside);
        _ = writeln!(
            out,
            "clocks for each packet; {n} that the profile was not made of: {:.1} % off in the middle, {:.1} % at worst, \
             {inside} as near as it says",
            self.median * 100.0,
            self.worst * 100.0
        );
        out
    }
}

impl Options {
    /// What is to be printed.
    ///
    /// # Errors
    /// [`PredictionsError`].
    pub fn run(&self) -> Result<String, PredictionsError> {
        let profile = Profile::load(&self.profile)?;
        let mut measured = vec![];
        for file in &self.measured {
            measured.extend(samples(file)?);
        }
        let predictions = Predictions::new(&profile, measured)?;
        Ok(match self.json {
            true => format!("{:#}\n", serde_json::json!(predictions)),
            false => predictions.told(),
        })
    }
}
