//! The longest burst of frames, back to back at one rate, of which none is lost (RFC 2544 §26.4), and what it says of the
//! buffers in front of a gateway (RFC 9004 §6).

use super::{
    Measure,
    ndr::Pace,
    pairs::{Pairs, Workers},
    progress::Bar,
};
use crate::{
    report::{Report, Table},
    search::goal::Goal,
    trial::{Device, Load},
};
use clap::Args;
use serde_json::json;
use std::{error::Error, time::Duration};

/// The longest burst that is tried, in frames and in seconds: more is no burst.
const MOST: u64 = 1 << 24;
const MOST_SECONDS: f64 = 2.0;

/// Of which gateways, and how often.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  portcullis bench burst --rate 30e6\n  portcullis bench burst --sizes imix --repeat 50"
)]
pub struct Options {
    #[command(flatten)]
    workers: Workers,
    #[command(flatten)]
    pace: Pace,
    /// Frames per second of the burst [default: twice the rate without loss, which is searched for].
    #[arg(long, value_name = "PPS")]
    rate: Option<f64>,
    /// So many times, of which the mean counts (RFC 2544 §26.4: 50 or more).
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
}

/// Whether a burst of so many frames loses none.
fn passes(pairs: &mut Pairs, rate: f64, frames: u64) -> Result<bool, Box<dyn Error>> {
    // Half a frame more, so that rounding takes none away.
    let trial = pairs.trial(Load(rate), Duration::from_secs_f64((frames as f64 + 0.5) / rate))?;
    // What the source could not send in time is lost, too.
    Ok(trial.received >= trial.asked())
}

/// Frames of the longest that is tried at a rate.
fn most(rate: f64) -> u64 {
    MOST.min((rate * MOST_SECONDS) as u64)
}

/// What is left, where so many of all took so long.
fn left(spent: Duration, done: u32, all: u32) -> Duration {
    spent / done * (all - done)
}

/// The longest that does.
fn longest(pairs: &mut Pairs, rate: f64) -> Result<u64, Box<dyn Error>> {
    let most = most(rate);
    let (mut lower, mut upper) = (0, most.min(64));
    while passes(pairs, rate, upper)? {
        if upper == most {
            return Ok(most);
        }
        (lower, upper) = (upper, most.min(2 * upper));
    }
    while upper - lower > 1 {
        let middle = lower.midpoint(upper);
        *if passes(pairs, rate, middle)? { &mut lower } else { &mut upper } = middle;
    }
    Ok(lower)
}

impl Measure for Options {
    fn measure(&self, core: Option<usize>) -> Result<Report, Box<dyn Error>> {
        if let Some(rate) = self.rate.filter(|rate| most(*rate) == 0 || !rate.is_finite()) {
            return Err(format!(
                "--rate {rate}: of a burst, which takes {MOST_SECONDS} s at most, this is no rate"
            )
            .into());
        }
        let mut pairs = self.workers.pairs(core)?;
        let found = self.pace.search(&mut pairs, &[Goal::NDR], "")?;
        let throughput = found.results[0].throughput.ok_or("each load loses frames: there is no NDR")?;
        let rate = self.rate.unwrap_or(2.0 * throughput);
        let (mut bursts, mut bar) = (vec![], Bar::default());
        for n in 1..=self.repeat {
            bursts.push(longest(&mut pairs, rate)?);
            bar.tell(&format!("burst {n} of {}", self.repeat), left(bar.spent(), n, self.repeat));
        }
        drop(bar);
        let mean = bursts.iter().sum::<u64>() as f64 / bursts.len() as f64;
        let (least, longest) = (bursts.iter().min().copied(), bursts.iter().max().copied());
        // RFC 9004 §6.4: while the burst comes in, some of it goes out.
        let implied = mean / rate;
        let corrected = implied - implied * (throughput / rate).min(1.0);
        let is_endless = longest.is_some_and(|frames| frames >= most(rate).div_ceil(2));
        let data = json!({
            "rate_pps": rate, "throughput_pps": throughput, "frames": bursts, "mean_frames": mean,
            "buffer_us": corrected * 1e6, "endless": is_endless,
        });
        let mut table =
            Table::new(&["Burst at, Mpps", "NDR, Mpps", "Frames, mean", "Least", "Most", "Buffer, us"]);
        table.rows.push(vec![
            format!("{:.3}", rate / 1e6),
            format!("{:.3}", throughput / 1e6),
            format!("{mean:.1}"),
            least.unwrap_or(0).to_string(),
            longest.unwrap_or(0).to_string(),
            format!("{:.2}", corrected * 1e6),
        ]);
        let note = match is_endless {
            true => "It has no end: the rate is one that the gateways can do for ever.",
            false => "The buffer is what RFC 9004 §6.4 corrects: less what went out while the burst came in.",
        };
        let told = ("burst", "Longest burst without loss", note);
        let mut report = self.workers.report(told, data, table, vec![], &[&pairs.noise]);
        report.measure("burst", "frames", true, bursts.iter().map(|n| *n as f64).collect());
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    // A ring of 2048 frames is what a burst that comes at once has room in, and what was taken out of it meanwhile.
    #[test]
    fn a_burst_is_as_long_as_there_is_room() {
        let options: Options = parsed(&[]).unwrap();
        let mut pairs = options.workers.pairs(None).unwrap();
        let frames = longest(&mut pairs, 1e9).unwrap();
        assert!((2048..4096).contains(&frames), "{frames}");
    }

    #[test]
    fn a_burst_is_no_longer_than_two_seconds() {
        let options: Options = parsed(&[]).unwrap();
        let mut pairs = options.workers.pairs(None).unwrap();
        // All that is tried passes, and no more.
        assert_eq!([0.5, 7.0, 100.0].map(|rate| longest(&mut pairs, rate).unwrap()), [1, 14, 200]);
        for rate in ["1e-30", "0.4", "0", "nan", "inf"] {
            let options: Options = parsed(&["--rate", rate]).unwrap();
            let error = options.measure(None).map(drop).unwrap_err().to_string();
            assert!(error.starts_with("--rate ") && error.contains("no rate"), "{rate}: {error}");
        }
    }

    #[test]
    fn what_is_left_goes_by_what_was() {
        let second = Duration::from_secs(1);
        assert_eq!((left(10 * second, 2, 5), left(10 * second, 5, 5)), (15 * second, Duration::ZERO));
    }
}
