//! The gateways that are measured, pairs in memory, one for each worker, or what stands between two interfaces, and how quiet
//! the machine was meanwhile.
//!
//! Noise only ever takes from a device. What comes now and then is outvoted by what does not; what slows the core down for as
//! long as a measurement takes is not, and no measurement can tell it from a slower device. So a piece of arithmetic that is
//! always the same is timed after each trial: figures that differ by no more than it does say nothing of the gateways.

use super::between::Between;
use crate::{
    clock,
    device::{InMemory, Way},
    gateway::Setup,
    generator::times::Times,
    interface::{cores, pin},
    plan::{packet::Tunnel, profile::esp},
    report::{Plot, Report, Table},
    traffic::{Mix, Size},
    trial::{Device, Load, Trial},
    wire::Wire,
};
use clap::Args;
use portcullis_datapath::crypto::Aead;
use portcullis_sadb::Algorithm;
use serde_json::{Value, json};
use std::{error::Error, thread, time::Duration};

/// Where results are from, if not from interfaces.
const IN_MEMORY: &str = "in memory";

/// Gateways, and their traffic.
#[derive(Args, Clone, Debug)]
pub struct Pair {
    /// What of the pair is measured: the gateway that seals, the one that opens, or both, one after the other.
    #[arg(long, value_name = "encap|decap|both", default_value = "both")]
    pub way: Way,
    /// Octets of clear IP packets: a number, imix, or a list with weights as 64:28,570:16,1518:4 [default: 64].
    #[arg(long, value_name = "SIZES")]
    pub sizes: Option<Mix>,
    /// SAs, each of a flow, hit at random. Between interfaces: destination addresses, whatever the gateways have for them
    /// [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub sas: Option<u32>,
    /// What packets are sealed with, an algorithm of ESP. Between interfaces only rates outside follow from it and from --udp.
    #[arg(long, value_name = "NAME", default_value = "aes-gcm-128", value_parser = algorithm)]
    algorithm: Algorithm,
    /// ESP in UDP, as behind a NAT.
    #[arg(long)]
    udp: bool,
    /// Of the flows.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Pairs of gateways, one for each worker, or those between two interfaces.
#[derive(Args, Clone, Debug)]
pub struct Workers {
    /// What each is.
    #[command(flatten)]
    pub pair: Pair,
    /// Where they are, if not in memory.
    #[command(flatten)]
    pub between: Between,
    /// Workers, each on a core of its own, the first on --core: with its part of the load, and SAs that are its own
    /// [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Option<u32>,
}

/// They, and how quiet it is.
pub struct Pairs {
    device: Measured,
    first_core: Option<usize>,
    /// While they were measured.
    pub noise: Noise,
}

/// What is measured.
enum Measured {
    /// A pair for each worker.
    InMemory(Vec<InMemory>),
    /// Whatever is between two interfaces.
    Between(Box<Wire>),
}

/// How quiet the machine was.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Noise {
    /// Clocks of a piece of arithmetic after each trial.
    pieces: Vec<u64>,
    /// Turns of gateways that were interrupted, of those in memory.
    interrupted: Option<u64>,
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    esp(name)
        .ok_or_else(|| format!("no algorithm '{name}' of ESP; say one as aes-gcm-128 or chacha20-poly1305"))
}

impl Pair {
    /// Octets of clear IP packets.
    pub fn sizes(&self) -> Mix {
        self.sizes.clone().unwrap_or(Size::Octets(64).into())
    }

    /// SAs.
    pub fn sas(&self) -> u32 {
        self.sas.unwrap_or(1)
    }

    /// The gateways, for a worker of this number, whose flows are its own.
    ///
    /// # Errors
    /// What there is no memory for, or sizes that do not fit.
    pub fn device(&self, worker: u32) -> Result<InMemory, Box<dyn Error>> {
        let &Pair { algorithm, udp: nat_t, .. } = self;
        let setup =
            Setup { sas: self.sas(), workers: 1, metered: false, algorithm, aead: Aead::best(), nat_t };
        InMemory::new(&setup, self.way, &self.sizes(), self.seed + u64::from(worker))
    }

    /// Gbit/s of inner and of outer IP packets.
    pub fn gbits(&self, pps: f64) -> (f64, f64) {
        let tunnel = Tunnel { v6: false, udp: self.udp };
        let outer = |octets: u16| f64::from(tunnel.outer_len(self.algorithm, octets.into()));
        let gbits = |octets: f64| 8.0 * octets * pps / 1e9;
        (gbits(self.sizes().mean_of(f64::from)), gbits(self.sizes().mean_of(outer)))
    }
}

impl Workers {
    /// Workers.
    pub fn workers(&self) -> u32 {
        self.workers.unwrap_or(1)
    }

    /// Whether there can be such gateways, and such packets.
    ///
    /// # Errors
    /// More workers than cores, or any number of them, or a way, where gateways are not ours; as [`Between::check`].
    pub fn check(&self) -> Result<(), String> {
        let cores = cores();
        if self.between.is_used() && (self.workers(), self.pair.way) != (1, Way::Both) {
            return Err(
                "--workers and --way are of gateways in memory: those between interfaces have theirs".into(),
            );
        }
        let workers = self.workers();
        if workers as usize > cores {
            return Err(format!("--workers {workers}: there are {cores} cores, and each has one"));
        }
        self.between.check(&self.pair.sizes())
    }

    /// The gateways.
    ///
    /// # Errors
    /// As [`Workers::check`]; what [`Pair::device`] and [`Wire::open`] cannot have.
    pub fn pairs(&self, first_core: Option<usize>) -> Result<Pairs, Box<dyn Error>> {
        self.check()?;
        if let Some(wire) =
            self.between.open(&self.pair.sizes(), self.pair.sas(), self.pair.seed, first_core)?
        {
            return Ok(Pairs {
                device: Measured::Between(Box::new(wire)),
                first_core,
                noise: Noise::default(),
            });
        }
        let pairs = (0..self.workers()).map(|worker| self.pair.device(worker)).collect::<Result<_, _>>()?;
        Ok(Pairs { device: Measured::InMemory(pairs), first_core, noise: Noise::default() })
    }

    /// What they are, in a line.
    pub fn line(&self) -> String {
        let (pair, workers) = (&self.pair, self.workers());
        let (sizes, sas) = (pair.sizes(), pair.sas());
        if let Some(ends) = self.between.line() {
            return format!("{ends}, {sizes} octets, {sas} destinations");
        }
        let way = format!("{:?}", pair.way).to_lowercase();
        let udp = if pair.udp { ", in UDP" } else { "" };
        let name = pair.algorithm.name();
        format!("{way}, {sizes} octets, {sas} SAs of {name}{udp}, {workers} workers")
    }

    /// Where they are measured.
    pub fn place(&self) -> String {
        self.between.place().unwrap_or_else(|| IN_MEMORY.to_owned())
    }

    /// A report of what was measured of them, by its keys, with a table and plots, and how quiet it was each time.
    pub fn report(
        &self,
        (bench, title, note): (&str, &str, &str),
        mut data: Value,
        table: Table,
        plots: Vec<Plot>,
        noises: &[&Noise],
    ) -> Report {
        data["bench"] = bench.into();
        data["where"] = self.place().into();
        data["gateways"] = self.json();
        data["noise"] = noises.iter().map(|noise| noise.json()).collect();
        let rows = noises.iter().map(|noise| noise.row()).collect();
        let mut report = Report::new(&format!("{title} of {}", self.line()), &self.place(), data);
        report = report.with(title, note, table, plots);
        if let Some(table) = self.between.table() {
            report = report.with("Interfaces", "", table, vec![]);
        }
        report.with("Noise of the machine", "", Table { rows, ..Table::new(&NOISE) }, vec![])
    }

    /// The same, with stable keys.
    pub fn json(&self) -> Value {
        json!({
            "way": format!("{:?}", self.pair.way).to_lowercase(), "sizes": self.pair.sizes().to_string(),
            "sas": self.pair.sas(), "workers": self.workers(), "algorithm": self.pair.algorithm.name(), "udp": self.pair.udp,
            "between": self.between.json(),
        })
    }
}

/// What is said of noise.
const NOISE: [&str; 3] =
    ["Turns that were interrupted", "The same arithmetic, clocks", "From trial to trial, up to"];

impl Pairs {
    /// Latency of the last trial's packets, by the devices' clocks, from when each was due.
    pub fn latency(&self) -> Times {
        match &self.device {
            Measured::InMemory(pairs) => all(pairs, InMemory::latency),
            Measured::Between(wire) => wire.latency().clone(),
        }
    }

    /// By how much the last trial's frames were late, each as the first of its burst: the generator's own error.
    pub fn lateness(&self) -> Times {
        match &self.device {
            Measured::InMemory(pairs) => all(pairs, InMemory::lateness),
            Measured::Between(wire) => wire.lateness(),
        }
    }

    /// How long packets of the last trial may have waited to be received, which they do not in memory.
    pub fn waits(&self) -> Option<&Times> {
        match &self.device {
            Measured::InMemory(_) => None,
            Measured::Between(wire) => Some(wire.waits()),
        }
    }

    /// What is between interfaces, if that is what is measured.
    pub fn wire(&mut self) -> Option<&mut Wire> {
        match &mut self.device {
            Measured::InMemory(_) => None,
            Measured::Between(wire) => Some(wire),
        }
    }
}

fn all(pairs: &[InMemory], of: fn(&InMemory) -> &Times) -> Times {
    let mut all = of(&pairs[0]).clone();
    pairs[1..].iter().for_each(|pair| all.add(of(pair)));
    all
}

/// One load for all, each on a core of its own.
fn together(
    pairs: &mut [InMemory],
    first_core: usize,
    load: Load,
    duration: Duration,
) -> Result<Trial, Box<dyn Error>> {
    let part = Load(load.0 / pairs.len() as f64);
    let trials: Vec<Trial> = match pairs {
        [pair] => vec![pair.trial(part, duration)?],
        pairs => thread::scope(|scope| {
            let started: Vec<_> = pairs
                .iter_mut()
                .zip(first_core..)
                .map(|(pair, core)| {
                    scope.spawn(move || {
                        pin(Some(core)).map_err(|e| e.to_string())?;
                        pair.trial(part, duration).map_err(|e| e.to_string())
                    })
                })
                .collect();
            let trials = started.into_iter().map(|t| t.join().map_err(|_| "a worker panicked".to_owned())?);
            trials.collect::<Result<_, String>>()
        })?,
    };
    let sum = |of: fn(&Trial) -> u64| trials.iter().map(of).sum();
    let taken = trials.iter().map(|t| t.taken).max().unwrap_or_default();
    Ok(Trial { offered: load, sent: sum(|t| t.sent), received: sum(|t| t.received), duration, taken })
}

impl Device for Pairs {
    fn trial(&mut self, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
        let trial = match &mut self.device {
            Measured::InMemory(pairs) => {
                let trial = together(pairs, self.first_core.unwrap_or(0), load, duration)?;
                let interrupted = pairs.iter().map(|pair| pair.details().interrupted).sum::<u64>();
                *self.noise.interrupted.get_or_insert_default() += interrupted;
                trial
            }
            Measured::Between(wire) => wire.trial(load, duration)?,
        };
        self.noise.time();
        Ok(trial)
    }
}

impl Noise {
    /// Times a piece of arithmetic, on this core.
    pub fn time(&mut self) {
        self.pieces.push(clock::piece());
    }

    /// The median piece, and by how much nine of ten pieces differ, as a part of it; none if none was timed.
    fn pieces(&self) -> Option<(u64, f64)> {
        let mut pieces = self.pieces.clone();
        pieces.sort_unstable();
        let at = |part: f64| pieces[((pieces.len() - 1) as f64 * part).round() as usize];
        let spread = || (at(0.95) - at(0.05)) as f64 / at(0.5).max(1) as f64;
        (!pieces.is_empty()).then(|| (at(0.5), spread()))
    }

    /// Turns that were interrupted, for people.
    pub fn interrupted(&self) -> String {
        self.interrupted.map_or("-".to_owned(), |turns| turns.to_string())
    }

    /// With stable keys; null is what was not looked at.
    pub fn json(&self) -> Value {
        let (clocks, spread) = self.pieces().unzip();
        json!({ "piece_clocks": clocks, "piece_spread": spread, "interrupted_turns": self.interrupted })
    }

    /// For people, as [`NOISE`] names it.
    fn row(&self) -> Vec<String> {
        let (clocks, spread) = self.pieces().map_or(("-".to_owned(), "-".to_owned()), |(clocks, spread)| {
            (clocks.to_string(), format!("{:.1} % more", 100.0 * spread))
        });
        vec![self.interrupted(), clocks, spread]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    fn workers(words: &[&str]) -> Workers {
        parsed(words).unwrap()
    }

    #[test]
    fn workers_have_their_part_of_the_load_and_all_is_counted() {
        let count = cores().min(2).to_string();
        let mut pairs = workers(&["--sizes", "imix", "--sas", "3", "--workers", &count]).pairs(None).unwrap();
        let trial = pairs.trial(Load(20_000.0), Duration::from_millis(20)).unwrap();
        assert_eq!((trial.offered, trial.sent, trial.received), (Load(20_000.0), 400, 400));
        assert_eq!((pairs.noise.pieces.len(), pairs.latency().count()), (1, 400));
    }

    #[test]
    fn noise_is_what_nine_of_ten_pieces_differ_by() {
        let mut noise = Noise { pieces: (0..=100).map(|n| 1000 + n).rev().collect(), interrupted: Some(3) };
        noise.pieces[0] = 1_000_000;
        assert_eq!(noise.pieces(), Some((1050, 90.0 / 1050.0)));
        assert_eq!(noise.row(), ["3", "1050", "8.6 % more"]);
    }

    #[test]
    fn what_was_not_looked_at_was_not_quiet() {
        let mut noise = Noise::default();
        assert_eq!(noise.row(), ["-", "-", "-"]);
        assert!(noise.json()["interrupted_turns"].is_null() && noise.json()["piece_clocks"].is_null());
        noise.time();
        assert_eq!((noise.pieces.len(), &noise.row()[0][..], &noise.row()[2][..]), (1, "-", "0.0 % more"));
    }

    #[test]
    fn rates_are_told_inside_and_outside_of_the_tunnel() {
        // 64 octets in a tunnel: IPv4 20, ESP 8, IV 8, pad to a multiple of four with 2 octets of trailer, ICV 16.
        let pair = workers(&[]).pair;
        assert_eq!(pair.gbits(1e9), (512.0, 8.0 * f64::from(20 + 8 + 8 + 68 + 16)));
        let in_udp = workers(&["--udp"]).pair;
        assert_eq!(in_udp.gbits(1e9).1 - pair.gbits(1e9).1, 64.0);
    }
}
