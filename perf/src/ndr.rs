//! `portcullis bench ndr`: the rates of gateways in memory by MLRsearch, and how quiet the machine was meanwhile.
//!
//! Noise only ever takes from a device, and a lower bound holds where at most half of its trials lose more than they may
//! (RFC 9971 §4.6.5): what comes now and then is outvoted by what does not. What slows the core down for as long as a
//! search takes is not, and no search can tell it from a slower device. So a piece of arithmetic that is always the same is
//! timed after each trial: rates that differ by no more than it does say nothing of the gateways.

use crate::{
    clock::{self, Machine},
    device::{InMemory, Way},
    gateway::Setup,
    interface::pin,
    plan::{packet::Tunnel, profile::esp},
    search::{Found, GoalResult, Progress, Search, goal::Goal},
    traffic::Mix,
    trial::{Device, Load, Trial},
};
use clap::Args;
use portcullis_datapath::crypto::Aead;
use portcullis_sadb::Algorithm;
use serde_json::{Value, json};
use std::{
    error::Error,
    fmt::Write as _,
    io::{IsTerminal, Write as _, stderr},
    thread,
    time::Duration,
};

/// The least load that is tried, in frames per second.
const MIN: Load = Load(1e3);
/// Where results are from.
const WHERE: &str = "in memory";

/// Gateways in memory, and their traffic.
#[derive(Args, Debug)]
pub struct Pair {
    /// What of the pair is measured: the gateway that seals, the one that opens, or both, one after the other.
    #[arg(long, value_name = "encap|decap|both", default_value = "both")]
    way: Way,
    /// Octets of clear IP packets: a number, imix, or a list with weights as 64:28,570:16,1518:4.
    #[arg(long, value_name = "SIZES", default_value = "64")]
    sizes: Mix,
    /// SAs, each of a flow, hit at random.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sas: u32,
    /// What packets are sealed with, an algorithm of ESP.
    #[arg(long, value_name = "NAME", default_value = "aes-gcm-128", value_parser = algorithm)]
    algorithm: Algorithm,
    /// ESP in UDP, as behind a NAT.
    #[arg(long)]
    udp: bool,
    /// Of the flows.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// What is asked of the search.
#[derive(Args, Debug)]
#[command(
    after_help = "In memory: no NIC, no kernel. Frames are due by the clock of the gateways' own turns, which stands still \
                  while frames are made and counted, and wait in a ring of 2048.\n\nExamples:\n  \
                  portcullis bench ndr --quick\n  \
                  portcullis bench ndr --way encap --sizes imix --sas 1000 --algorithm aes-gcm-256 --json"
)]
pub struct Options {
    #[command(flatten)]
    pair: Pair,
    /// Workers, each on a core of its own, the first on --core: with its part of the load, and SAs that are its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// The greatest load to try, in frames per second.
    #[arg(long, value_name = "PPS", default_value_t = 100e6)]
    max: f64,
    /// An answer within a minute or so: bounds of 1 %, and 5 trials of half a second, in place of 21 of one.
    #[arg(long)]
    quick: bool,
    /// Only the rate without loss.
    #[arg(long)]
    ndr_only: bool,
    /// As JSON, with stable keys.
    #[arg(long)]
    json: bool,
}

/// Pairs of gateways, one for each worker, and how quiet it is.
struct Pairs {
    pairs: Vec<InMemory>,
    first_core: Option<usize>,
    noise: Noise,
}

/// How quiet the machine was.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Noise {
    /// Clocks of a piece of arithmetic after each trial.
    pieces: Vec<u64>,
    /// Turns of gateways that were interrupted.
    interrupted: u64,
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    esp(name)
        .ok_or_else(|| format!("no algorithm '{name}' of ESP; say one as aes-gcm-128 or chacha20-poly1305"))
}

impl Pair {
    /// The gateways, for a worker of this number, whose flows are its own.
    ///
    /// # Errors
    /// What there is no memory for, or sizes that do not fit.
    pub fn device(&self, worker: u32) -> Result<InMemory, Box<dyn Error>> {
        let &Pair { sas, algorithm, udp: nat_t, .. } = self;
        let setup = Setup { sas, workers: 1, metered: false, algorithm, aead: Aead::best(), nat_t };
        InMemory::new(&setup, self.way, &self.sizes, self.seed + u64::from(worker))
    }

    /// Gbit/s of inner and of outer IP packets.
    fn gbits(&self, pps: f64) -> (f64, f64) {
        let tunnel = Tunnel { v6: false, udp: self.udp };
        let outer = |octets: u16| f64::from(tunnel.outer_len(self.algorithm, octets.into()));
        let gbits = |octets: f64| 8.0 * octets * pps / 1e9;
        (gbits(self.sizes.mean_of(f64::from)), gbits(self.sizes.mean_of(outer)))
    }
}

impl Device for Pairs {
    fn trial(&mut self, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
        let part = Load(load.0 / self.pairs.len() as f64);
        let trials: Vec<Trial> = match self.pairs.as_mut_slice() {
            [pair] => vec![pair.trial(part, duration)?],
            pairs => thread::scope(|scope| {
                let cores = self.first_core.unwrap_or(0)..;
                let started: Vec<_> = pairs
                    .iter_mut()
                    .zip(cores)
                    .map(|(pair, core)| {
                        scope.spawn(move || {
                            pin(Some(core)).map_err(|e| e.to_string())?;
                            pair.trial(part, duration).map_err(|e| e.to_string())
                        })
                    })
                    .collect();
                let trials =
                    started.into_iter().map(|t| t.join().map_err(|_| "a worker panicked".to_owned())?);
                trials.collect::<Result<_, String>>()
            })?,
        };
        self.noise.pieces.push(clock::piece());
        self.noise.interrupted += self.pairs.iter().map(|pair| pair.details().interrupted).sum::<u64>();
        let sum = |of: fn(&Trial) -> u64| trials.iter().map(of).sum();
        let taken = trials.iter().map(|t| t.taken).max().unwrap_or_default();
        Ok(Trial { offered: load, sent: sum(|t| t.sent), received: sum(|t| t.received), duration, taken })
    }
}

impl Noise {
    /// The median piece, and by how much nine of ten pieces differ, as a part of it.
    fn pieces(&self) -> (u64, f64) {
        let mut pieces = self.pieces.clone();
        pieces.sort_unstable();
        let at = |part: f64| pieces[((pieces.len() - 1) as f64 * part).round() as usize];
        if pieces.is_empty() {
            return (0, 0.0);
        }
        (at(0.5), (at(0.95) - at(0.05)) as f64 / at(0.5).max(1) as f64)
    }
}

impl Options {
    fn goals(&self) -> Vec<Goal> {
        let goals = if self.ndr_only { vec![Goal::NDR] } else { vec![Goal::NDR, Goal::PDR] };
        let shorter = |goal: Goal| Goal {
            final_duration: Duration::from_millis(500),
            duration_sum: Duration::from_millis(2500),
            width: 0.01,
            ..goal
        };
        if self.quick { goals.into_iter().map(shorter).collect() } else { goals }
    }

    /// Searches, tells of its progress on stderr, and returns what is to be printed.
    ///
    /// # Errors
    /// More workers than cores, what there is no memory for, a search that cannot be.
    pub fn run(&self, first_core: Option<usize>) -> Result<String, Box<dyn Error>> {
        let cores = thread::available_parallelism()?.get();
        if self.workers as usize > cores {
            return Err(
                format!("--workers {}: there are {cores} cores, and each has one", self.workers).into()
            );
        }
        let pairs = (0..self.workers).map(|worker| self.pair.device(worker)).collect::<Result<_, _>>()?;
        let mut device = Pairs { pairs, first_core, noise: Noise::default() };
        let search = Search { goals: self.goals(), min: MIN, max: Load(self.max) };
        let mut told = Duration::ZERO;
        let found = search.run(&mut device, &mut |progress| tell(progress, &mut told))?;
        if stderr().is_terminal() {
            _ = write!(stderr(), "\r\x1b[K");
        }
        let result = self.result(&found, &device.noise);
        Ok(if self.json { format!("{result:#}\n") } else { text(&result)? })
    }

    fn result(&self, found: &Found, noise: &Noise) -> Value {
        let (clocks, spread) = noise.pieces();
        let goal = |r: &GoalResult| {
            let (inner, outer) = r.bounds.lower.map(|load| self.pair.gbits(load.0)).unzip();
            json!({
                "goal": r.goal.name, "loss_ratio": r.goal.loss_ratio, "width": r.goal.width, "regular": r.is_regular(),
                "lower_pps": r.bounds.lower.map(|l| l.0), "upper_pps": r.bounds.upper.map(|u| u.0),
                "throughput_pps": r.throughput, "inner_gbits": inner, "outer_gbits": outer, "trials": r.trials,
            })
        };
        json!({
            "where": WHERE, "cpu": Machine::this().cpu, "way": format!("{:?}", self.pair.way).to_lowercase(),
            "sizes": self.pair.sizes.to_string(), "sas": self.pair.sas, "workers": self.workers,
            "algorithm": self.pair.algorithm.name(), "quick": self.quick,
            "goals": found.results.iter().map(goal).collect::<Vec<_>>(),
            "trials": found.trials.count(), "seconds": found.trials.taken().as_secs_f64(),
            "noise": { "piece_clocks": clocks, "piece_spread": spread, "interrupted_turns": noise.interrupted },
        })
    }
}

/// Tells of a trial: on a terminal of each, elsewhere every ten seconds.
fn tell(progress: &Progress, told: &mut Duration) {
    let (mut out, trial) = (stderr(), &progress.trial);
    let (mpps, loss) = (trial.offered.0 / 1e6, 100.0 * trial.loss_ratio());
    let line = format!(
        "{}: trial {} at {mpps:.3} Mpps lost {loss:.3} %, about {:.0} s left",
        progress.goal,
        progress.trials,
        progress.left.as_secs_f64()
    );
    // Who cannot be told is not waiting.
    if out.is_terminal() {
        _ = write!(out, "\r\x1b[K{line}");
    } else if progress.taken >= *told + Duration::from_secs(10) {
        *told = progress.taken;
        _ = writeln!(out, "{line}");
    }
}

/// The result for people.
fn text(result: &Value) -> Result<String, std::fmt::Error> {
    let word = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let number = |of: &Value, key: &str| of[key].as_f64();
    let mpps = |pps: Option<f64>| pps.map_or("none".to_owned(), |pps| format!("{:.3}", pps / 1e6));
    let mut out = String::new();
    writeln!(
        out,
        "{} on {}: {}, {} octets, {} SAs of {}, {} workers",
        word(result, "where"),
        word(result, "cpu"),
        word(result, "way"),
        word(result, "sizes"),
        result["sas"],
        word(result, "algorithm"),
        result["workers"]
    )?;
    for goal in result["goals"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "{}: {} Mpps, {:.2} Gbit/s inside and {:.2} outside; from {} to {} Mpps{}",
            word(goal, "goal"),
            mpps(number(goal, "throughput_pps")),
            number(goal, "inner_gbits").unwrap_or(0.0),
            number(goal, "outer_gbits").unwrap_or(0.0),
            mpps(number(goal, "lower_pps")),
            mpps(number(goal, "upper_pps")),
            if goal["regular"] == true { "" } else { ", which is not as near as it should be" }
        )?;
    }
    let noise = &result["noise"];
    writeln!(
        out,
        "{} trials in {:.0} s{}; {} turns were interrupted, and the same arithmetic took from trial to trial up to {:.1} % more",
        result["trials"],
        number(result, "seconds").unwrap_or(0.0),
        if result["quick"] == true { ", fewer and shorter than RFC 9971 has them" } else { "" },
        noise["interrupted_turns"],
        100.0 * number(noise, "piece_spread").unwrap_or(0.0)
    )?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Shell {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Result<Options, String> {
        let words = [&["ndr"], words].concat();
        Shell::try_parse_from(words).map(|shell| shell.options).map_err(|e| e.to_string())
    }

    #[test]
    fn workers_have_their_part_of_the_load_and_all_is_counted() {
        let workers = thread::available_parallelism().unwrap().get().min(2) as u32;
        let pair = options(&["--sizes", "imix", "--sas", "3"]).unwrap().pair;
        let pairs = (0..workers).map(|worker| pair.device(worker).unwrap()).collect();
        let mut pairs = Pairs { pairs, first_core: None, noise: Noise::default() };
        let trial = pairs.trial(Load(20_000.0), Duration::from_millis(20)).unwrap();
        assert_eq!((trial.offered, trial.sent, trial.received), (Load(20_000.0), 400, 400));
        assert_eq!(pairs.noise.pieces.len(), 1);
    }

    #[test]
    fn noise_is_what_nine_of_ten_pieces_differ_by() {
        assert_eq!(Noise::default().pieces(), (0, 0.0));
        let mut noise = Noise { pieces: (0..=100).map(|n| 1000 + n).rev().collect(), interrupted: 0 };
        noise.pieces[0] = 1_000_000;
        assert_eq!(noise.pieces(), (1050, 90.0 / 1050.0));
    }

    #[test]
    fn rates_are_told_inside_and_outside_of_the_tunnel() {
        // 64 octets in a tunnel: IPv4 20, ESP 8, IV 8, pad to a multiple of four with 2 octets of trailer, ICV 16.
        let pair = options(&[]).unwrap().pair;
        assert_eq!(pair.gbits(1e9), (512.0, 8.0 * f64::from(20 + 8 + 8 + 68 + 16)));
        let in_udp = options(&["--udp"]).unwrap().pair;
        assert_eq!(in_udp.gbits(1e9).1 - pair.gbits(1e9).1, 64.0);
    }

    #[test]
    fn what_cannot_be_searched_is_named() {
        let of =
            |words: &[&str]| options(words).and_then(|o| o.run(None).map_err(|e| e.to_string())).unwrap_err();
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

    #[test]
    fn a_quick_search_is_a_search() {
        for goal in options(&["--quick"]).unwrap().goals() {
            goal.check().unwrap();
        }
        assert_eq!(options(&["--ndr-only"]).unwrap().goals(), [Goal::NDR]);
        assert_eq!(options(&[]).unwrap().goals(), [Goal::NDR, Goal::PDR]);
    }
}
