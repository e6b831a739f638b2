//! Latency at parts of what a gateway can do, from when each frame was due to when it was received, so that nothing is left
//! to be corrected for coordinated omission.
//!
//! In memory, frames due while the gateways work are put into their ring behind that turn, and count from when they were due:
//! the generator's own error is how late it was for the burst of a frame, which is told beside it. Between interfaces that is so,
//! too, and besides how long packets may have waited until they were received: both are in their latency, and the gateways' is less.

use super::{Measure, ndr::Pace, pairs::Workers, progress::Bar};
use crate::{
    generator::times::Times,
    report::{Axis, Plot, Report, Series, Table},
    search::goal::Goal,
    trial::{Device, Load},
};
use clap::Args;
use serde_json::{Value, json};
use std::{error::Error, time::Duration};

/// Percent of frames that were not slower.
pub(super) const PERCENTS: [f64; 7] = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0];
/// Percent of the rate with half a percent of loss.
const PARTS: [u32; 3] = [10, 50, 90];
/// Frames per second of a gateway that has nothing else to do.
const IDLE: f64 = 1000.0;

/// Of which gateways, and for how long.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  portcullis bench latency --quick\n  \
                        portcullis bench latency --sizes imix --pdr 3e6 --seconds 30 --write latency.html")]
pub struct Options {
    #[command(flatten)]
    workers: Workers,
    #[command(flatten)]
    pace: Pace,
    /// The rate with half a percent of loss, in frames per second; searched for by default.
    #[arg(long, value_name = "PPS")]
    pdr: Option<f64>,
    /// How long each load is offered, by the gateways' clock [default: 10, or 2 with --quick].
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
}

/// What was seen at a load.
struct Seen {
    name: String,
    load: f64,
    loss_ratio: f64,
    latency: Times,
    late: Times,
    waits: Option<Times>,
}

impl Options {
    fn duration(&self) -> Result<Duration, Box<dyn Error>> {
        let seconds = self.seconds.unwrap_or(if self.pace.quick { 2.0 } else { 10.0 });
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) if (0.01..=1e5).contains(&seconds) => Ok(duration),
            _ => Err(format!("--seconds {seconds}: from 0.01 to 100000").into()),
        }
    }
}

pub(super) fn micros(times: &Times, percent: f64) -> f64 {
    times.at(percent / 100.0).as_secs_f64() * 1e6
}

pub(super) fn json_of(times: &Times) -> Value {
    PERCENTS.iter().map(|percent| (percent.to_string(), micros(times, *percent))).collect()
}

/// Latency by how many frames in one are slower, as far as that many were seen.
fn curve(seen: &Seen) -> Series {
    let last = (seen.latency.count().max(1) as f64).log10().min(6.0);
    let steps = (last * 8.0).floor() as i32;
    let point = |step: i32| {
        let slower = 10f64.powf(-f64::from(step) / 8.0);
        (1.0 / slower, micros(&seen.latency, 100.0 * (1.0 - slower)).max(1e-3))
    };
    Series { name: seen.name.clone(), points: (0..=steps).map(point).collect() }
}

impl Measure for Options {
    fn measure(&self, core: Option<usize>) -> Result<Report, Box<dyn Error>> {
        let duration = self.duration()?;
        let mut pairs = self.workers.pairs(core)?;
        let pdr = match self.pdr {
            Some(pdr) if pdr > 0.0 && pdr.is_finite() => pdr,
            Some(pdr) => return Err(format!("--pdr {pdr}: a rate is above 0").into()),
            None => {
                let found = self.pace.search(&mut pairs, &[Goal::PDR], "")?;
                found.results[0].throughput.ok_or("no load loses half a percent or less: there is no PDR")?
            }
        };
        let parts = PARTS.map(|part| (format!("{part} % of PDR"), pdr * f64::from(part) / 100.0));
        let loads: Vec<_> = [("idle".to_owned(), IDLE.min(pdr))].into_iter().chain(parts).collect();
        let (mut seen, mut bar) = (vec![], Bar::default());
        for (n, (name, load)) in loads.iter().enumerate() {
            bar.tell(&format!("latency, {name}"), duration * (loads.len() - n) as u32);
            let trial = pairs.trial(Load(*load), duration)?;
            let (latency, late, waits) = (pairs.latency(), pairs.lateness(), pairs.waits().cloned());
            let (name, loss_ratio) = (name.clone(), trial.loss_ratio());
            seen.push(Seen { name, load: *load, loss_ratio, latency, late, waits });
        }
        drop(bar);
        let load = |seen: &Seen| {
            json!({
                "load": seen.name, "pps": seen.load, "loss_ratio": seen.loss_ratio, "frames": seen.latency.count(),
                "latency_us": json_of(&seen.latency), "generator_late_us": json_of(&seen.late),
                "receiver_late_us": seen.waits.as_ref().map(json_of),
            })
        };
        let loads: Vec<_> = seen.iter().map(load).collect();
        let data = json!({ "pdr_pps": pdr, "seconds": duration.as_secs_f64(), "loads": loads });
        let head = ["Load", "Mpps", "Lost, %"].map(str::to_owned).into_iter();
        let head: Vec<_> = head.chain(PERCENTS.iter().map(|percent| format!("{percent} %, us"))).collect();
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        let mut figures = vec![];
        for one in &seen {
            let own = [("", &one.latency), (", generator late", &one.late)];
            for (of, times) in own.into_iter().chain(one.waits.iter().map(|waits| (", receiver late", waits)))
            {
                let numbers = PERCENTS.iter().map(|percent| format!("{:.3}", micros(times, *percent)));
                let [mpps, lost] = match of {
                    "" => [format!("{:.3}", one.load / 1e6), format!("{:.3}", 100.0 * one.loss_ratio)],
                    _ => [String::new(), String::new()],
                };
                let name = format!("{}{of}", one.name);
                table.rows.push([name, mpps, lost].into_iter().chain(numbers).collect());
            }
            for percent in [50.0, 99.0, 99.9] {
                let name = format!("latency {percent} %, {}", one.name);
                // Nothing that came is not soon.
                let came = (one.latency.count() > 0).then(|| micros(&one.latency, percent));
                figures.push((name, came));
            }
        }
        let plot = Plot {
            title: "Latency by how rare it is".to_owned(),
            x: Axis::log("one frame in so many is slower"),
            y: Axis::log("microseconds"),
            series: seen.iter().map(curve).collect(),
        };
        let note = "From when a frame was due to when it was received: nothing is left to be corrected for coordinated omission.";
        let told = ("latency", "Latency", note);
        let mut report = self.workers.report(told, data, table, vec![plot], &[&pairs.noise]);
        for (name, micros) in figures {
            report.measure(&name, "us", false, micros.into_iter().collect());
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    fn options(words: &[&str]) -> Options {
        parsed(words).unwrap()
    }

    #[test]
    fn latency_is_told_for_each_load() {
        let report =
            options(&["--pdr", "20000", "--seconds", "0.05", "--sizes", "imix"]).measure(None).unwrap();
        let loads = report.data["loads"].as_array().unwrap();
        let names: Vec<_> = loads.iter().map(|load| load["load"].as_str().unwrap()).collect();
        assert_eq!(names, ["idle", "10 % of PDR", "50 % of PDR", "90 % of PDR"]);
        for (load, frames) in loads.iter().zip([50, 100, 500, 900]) {
            assert_eq!((load["frames"].as_u64(), load["loss_ratio"].as_f64()), (Some(frames), Some(0.0)));
            let [half, most] = ["50", "100"].map(|percent| load["latency_us"][percent].as_f64().unwrap());
            assert!(half > 0.0 && half <= most, "{load}");
        }
        assert_eq!((report.figures.len(), report.sections[0].table.rows.len()), (12, 8));
        assert!(report.sections[0].plots[0].to_svg().unwrap().contains("<svg"));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let error = |words: &[&str]| options(words).measure(None).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error(&["--seconds", "0"]), "--seconds 0: from 0.01 to 100000");
        assert_eq!(error(&["--pdr", "0"]), "--pdr 0: a rate is above 0");
    }
}
