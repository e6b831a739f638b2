//! A soak of gateways: one load for long, and what it says of all the time after it ([`crate::soak`]).

use super::{Measure, pairs::Workers, progress::Bar};
use crate::{
    clock::some_seconds,
    report::{Axis, Plot, Report, Series, Table},
    soak::Soak,
    trial::Load,
};
use clap::Args;
use serde_json::json;
use std::{error::Error, time::Duration};

/// Of the bound.
const CONFIDENCE: f64 = 0.95;

/// Of which gateways, and for how long.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  portcullis bench soak --rate 2e6 --trials 3600 --write soak.html")]
pub struct Options {
    #[command(flatten)]
    workers: Workers,
    /// Frames per second.
    #[arg(long, value_name = "PPS")]
    rate: f64,
    /// Trials.
    #[arg(long, value_name = "N", default_value_t = 60)]
    trials: u32,
    /// How long a trial is.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = some_seconds)]
    seconds: Duration,
    /// A trial that loses a larger part has high loss.
    #[arg(long, value_name = "RATIO", default_value_t = 0.0)]
    loss_ratio: f64,
}

impl Measure for Options {
    fn measure(&self, core: Option<usize>) -> Result<Report, Box<dyn Error>> {
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Err(format!("--rate {}: a rate is above 0", self.rate).into());
        }
        let mut pairs = self.workers.pairs(core)?;
        let soak = Soak {
            load: Load(self.rate),
            trial: self.seconds,
            trials: self.trials,
            loss_ratio: self.loss_ratio,
        };
        let (mut losses, mut bar) = (vec![], Bar::default());
        let soaked = soak.run(&mut pairs, &mut |trial, now| {
            losses.push((f64::from(now.trials), 100.0 * trial.loss_ratio()));
            let left = now.taken.div_f64(now.trials.into()) * (self.trials - now.trials);
            bar.tell(
                &format!("trial {} of {}, {} of high loss", now.trials, self.trials, now.high_loss),
                left,
            );
        })?;
        drop(bar);
        let bound = soaked.bound(CONFIDENCE);
        let of_a_million: Vec<f64> = losses.iter().map(|(_, percent)| 1e4 * percent).collect();
        let data = json!({
            "pps": self.rate, "trial_seconds": self.seconds.as_secs_f64(), "trials": soaked.trials, "high_loss_trials": soaked.high_loss,
            "asked": soaked.asked, "lost": soaked.lost, "worst_loss_ratio": soaked.worst, "loss_ratio": self.loss_ratio,
            "high_loss_bound": bound, "confidence": CONFIDENCE,
        });
        let mut table = Table::new(&[
            "Mpps",
            "Trials",
            "Of high loss",
            "Frames",
            "Lost",
            "Worst trial, %",
            "Bound at 95 %, %",
        ]);
        table.rows.push(vec![
            format!("{:.3}", self.rate / 1e6),
            soaked.trials.to_string(),
            soaked.high_loss.to_string(),
            soaked.asked.to_string(),
            soaked.lost.to_string(),
            format!("{:.4}", 100.0 * soaked.worst),
            format!("{:.3}", 100.0 * bound),
        ]);
        let plot = Plot {
            title: "Loss by trial".to_owned(),
            x: Axis::linear("trial"),
            y: Axis::linear("percent lost"),
            series: vec![Series { name: format!("{:.3} Mpps", self.rate / 1e6), points: losses }],
        };
        let note = "At most such a part of all trials, those to come as well, has high loss, with a confidence of 95 % (Clopper and Pearson).";
        let told = ("soak", "Soak", note);
        let mut report = self.workers.report(told, data, table, vec![plot], &[&pairs.noise]);
        report.measure("lost of a million", "frames", false, of_a_million);
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    #[test]
    fn each_trial_is_told() {
        let words = ["--rate", "20000", "--trials", "3", "--seconds", "0.01"];
        let report = parsed::<Options>(&words).unwrap().measure(None).unwrap();
        assert_eq!((report.data["asked"].as_u64(), report.data["lost"].as_u64()), (Some(600), Some(0)));
        assert_eq!(report.figures[0].samples, [0.0; 3]);
        assert_eq!(report.sections[0].plots[0].series[0].points.len(), 3);
        let error = parsed::<Options>(&["--rate", "0"]).unwrap().measure(None).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "--rate 0: a rate is above 0");
    }
}
