//! The profile of this host, from what `portcullis-path` has measured on it.

use super::{
    model::Estimate,
    profile::{
        FORMAT, Host, IkeCost, MEMORY, Machine, Memory, Profile, ProfileError, Sample, VERSION, Way,
        WorkersCost,
    },
    shares::Sizes,
};
use clap::Args;
use portcullis_datapath::{batch::BATCH, crypto::Aead, pool::RX_OFFSET, sa::SaTable, wire::ETHERNET};
use portcullis_sadb::{MAX_SAS, Sizes as Regions};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Entries of each ring, and octets of a chunk, of a gateway whose configuration says nothing else.
const RING: u64 = 2048;
const CHUNK: u64 = 4096;

/// Chunks that each worker has for itself.
const OF_WORKER: u64 = 256;

/// Parts of a round that portcullis-path measures.
const PARTS: f64 = 3.0;

/// How a profile is made.
#[derive(Args, Debug)]
#[command(
    after_help = "Example, on a quiet machine:\n  portcullis-path --sas 1,1024,10000,100000 --arrival owner --json 128.json\n  \
                        portcullis-path --sas 1,1024,10000,100000 --arrival owner --algorithm aes-gcm-256 --json 256.json\n  \
                        portcullis bench calibrate --measured 128.json --measured 256.json --profile host.json\n\n\
                        perf/calibrate does all of it, and over veth, too."
)]
pub struct Options {
    /// What `portcullis-path --json FILE` or `perf/calibrate` wrote on this host; once for each algorithm.
    #[arg(long, value_name = "FILE", required = true)]
    measured: Vec<PathBuf>,
    /// What `perf/calibrate` wrote of tunnels' costs on this host.
    #[arg(long, value_name = "FILE")]
    ike: Option<PathBuf>,
    /// Where to write the profile.
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
}

/// Why there is no profile.
#[derive(Debug, Error)]
pub enum CalibrateError {
    /// A file of measurements.
    #[error("cannot read {}: {source}; make it by `portcullis-path --json FILE`", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{}: not what portcullis-path writes: {source}; make it by `portcullis-path --json FILE`", .file.display())]
    Form {
        /// The file.
        file: PathBuf,
        /// What and where.
        source: serde_json::Error,
    },
    /// A file of what tunnels cost.
    #[error("{}: not what perf/calibrate writes of tunnels: {what}; make it by perf/calibrate", .file.display())]
    Ike {
        /// The file.
        file: PathBuf,
        /// What and where.
        what: String,
    },
    /// Files of different machines.
    #[error("{} is of {cpu}, by {crypto}, and the first file is not; a profile is of one host", .file.display())]
    OtherMachine {
        /// The file.
        file: PathBuf,
        /// Its CPU.
        cpu: String,
        /// What seals there.
        crypto: String,
    },
    /// No profile comes of the samples, or it cannot be written.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// What `portcullis-path --json` writes.
#[derive(Deserialize)]
struct Measured {
    cpu: String,
    tsc_hz: f64,
    rounds: f64,
    algorithm: String,
    crypto: String,
    /// `perf/calibrate` says so over veth; portcullis-path measures in memory.
    #[serde(default = "memory_port")]
    port: String,
    cells: Vec<Cell>,
    throughput: Vec<Throughput>,
}

fn memory_port() -> String {
    MEMORY.to_owned()
}

/// Clocks of one worker, in memory.
#[derive(Deserialize)]
struct Cell {
    direction: Way,
    sas: u32,
    size: Sizes,
    hops: Option<BTreeMap<String, f64>>,
    /// Clocks of a packet, of which a tenth of the rounds took less.
    undisturbed: f64,
    least: f64,
}

/// What several workers do by the clock on the wall.
#[derive(Deserialize)]
struct Throughput {
    direction: Way,
    sas: u32,
    size: Sizes,
    workers: u32,
    /// Packets per second, of which a tenth of the rounds did more.
    undisturbed: f64,
    most: f64,
}

/// What `perf/calibrate` writes of tunnels.
#[derive(Deserialize)]
struct MeasuredIke {
    /// Octets of iked's own memory.
    per_tunnel: u64,
    costs: Vec<MeasuredCost>,
}

/// iked's CPU time, once for each round.
#[derive(Deserialize)]
struct MeasuredCost {
    authentication: String,
    key_exchange: String,
    set_up_us: Vec<f64>,
    rekey_us: Vec<f64>,
}

/// What a file of tunnels' costs says: each cost, and the memory of a tunnel.
fn ike(file: &Path) -> Result<(Vec<IkeCost>, u64), CalibrateError> {
    let wrong = |what: String| CalibrateError::Ike { file: file.into(), what };
    let MeasuredIke { per_tunnel, costs } =
        serde_json::from_str(&read(file)?).map_err(|e| wrong(e.to_string()))?;
    let cost = |cost: MeasuredCost| {
        let MeasuredCost { authentication, key_exchange, set_up_us, rekey_us } = cost;
        let estimate = |of: &str, measured: &[f64]| match measured {
            [] => Err(wrong(format!("no {of} of {key_exchange} with {authentication}"))),
            _ => Ok(Estimate::of(measured)),
        };
        let (set_up_us, rekey_us) = (estimate("set_up_us", &set_up_us)?, estimate("rekey_us", &rekey_us)?);
        Ok(IkeCost { key_exchange, authentication, set_up_us, rekey_us })
    };
    Ok((costs.into_iter().map(cost).collect::<Result<_, CalibrateError>>()?, per_tunnel))
}

impl Options {
    /// Makes the profile, and tells how well it fits.
    ///
    /// # Errors
    /// [`CalibrateError`].
    pub fn run(&self) -> Result<String, CalibrateError> {
        let texts = self.measured.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
        let files: Vec<(&Path, &str)> = self.measured.iter().zip(&texts).map(|(f, t)| (&**f, &**t)).collect();
        let tunnels = self.ike.as_deref().map(ike).transpose()?;
        let profile = profile(&files, tunnels)?;
        profile.save(&self.profile)?;
        Ok(told(&profile))
    }
}

fn read(file: &Path) -> Result<String, CalibrateError> {
    fs::read_to_string(file).map_err(|source| CalibrateError::Read { file: file.into(), source })
}

fn parse(file: &Path, text: &str) -> Result<Measured, CalibrateError> {
    serde_json::from_str(text).map_err(|source| CalibrateError::Form { file: file.into(), source })
}

/// What a file of measurements says.
///
/// # Errors
/// [`CalibrateError`].
pub fn samples(file: &Path) -> Result<Vec<Sample>, CalibrateError> {
    Ok(parse(file, &read(file)?)?.samples().collect())
}

/// The profile of what files say, and of what tunnels cost: iked's time for each kind, and its memory for one.
///
/// # Errors
/// [`CalibrateError`], but for reading.
pub fn profile(
    files: &[(&Path, &str)],
    tunnels: Option<(Vec<IkeCost>, u64)>,
) -> Result<Profile, CalibrateError> {
    let (mut samples, mut first) = (vec![], None::<Measured>);
    for (file, text) in files {
        let measured = parse(file, text)?;
        samples.extend(measured.samples());
        match &first {
            Some(first) if (&first.cpu, &first.crypto) != (&measured.cpu, &measured.crypto) => {
                let Measured { cpu, crypto, .. } = measured;
                return Err(CalibrateError::OtherMachine { file: file.into(), cpu, crypto });
            }
            Some(_) => {}
            None => first = Some(measured),
        }
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let machine = Machine {
        cpu: first.as_ref().map_or_else(String::new, |m| m.cpu.clone()),
        clocks_per_sec: first.as_ref().map_or(0.0, |m| m.tsc_hz),
        kernel: kernel.trim().to_owned(),
        crypto: first.map_or_else(String::new, |m| m.crypto),
        portcullis: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let room = CHUNK as u32 - RX_OFFSET as u32 - ETHERNET as u32;
    let (ike, per_tunnel) = tunnels.map_or((vec![], None), |(costs, octets)| (costs, Some(octets)));
    let memory = Memory { per_tunnel, ..memory() };
    let host = Host { machine, batch: BATCH as f64, chunk: room, memory, ike };
    Ok(Profile::fit(host, samples)?)
}

/// What the structures of this version take. What processes take beside them is not measured here.
fn memory() -> Memory {
    let regions = Regions { max_sas: MAX_SAS, max_policies: MAX_SAS / 2 }.bytes_per_sa();
    let worker = SaTable::bytes_per_sa(Aead::best());
    Memory {
        fixed: None,
        per_queue: RING * CHUNK,
        per_worker: OF_WORKER * CHUNK,
        per_sa: (regions.slot + regions.index + regions.runtime + regions.policies) as u64,
        per_sa_of_owner: worker.state as u64,
        per_sa_and_worker: worker.index as u64,
        per_tunnel: None,
        touched_by_packet: worker.state as u64,
    }
}

impl Measured {
    fn samples(&self) -> impl Iterator<Item = Sample> {
        let sample = |direction, size: &Sizes, (sas, workers), clocks: f64, spread, hops| Sample {
            algorithm: self.algorithm.clone(),
            direction,
            sizes: size.clone(),
            sas,
            workers,
            port: self.port.clone(),
            batch: BATCH as f64,
            clocks,
            spread,
            hops,
        };
        // Hops are measured by gateways of their own, whose clocks for the whole way are not a worker's.
        let hops = |cell: &Cell| {
            let same = |c: &&Cell| (c.direction, c.sas, &c.size) == (cell.direction, cell.sas, &cell.size);
            let mut metered = self.cells.iter().filter(same);
            metered.find_map(|c| c.hops.clone()).unwrap_or_default()
        };
        let alone = self.cells.iter().filter(|cell| cell.hops.is_none()).map(move |cell| {
            let (clocks, spread) = (cell.undisturbed, self.spread(cell.least / cell.undisturbed));
            sample(cell.direction, &cell.size, (cell.sas, 1), clocks, spread, hops(cell))
        });
        let several = self.throughput.iter().filter(|t| t.workers > 1).map(move |t| {
            let clocks = f64::from(t.workers) * self.tsc_hz / t.undisturbed;
            let spread = self.spread(t.undisturbed / t.most);
            sample(t.direction, &t.size, (t.sas, t.workers), clocks, spread, BTreeMap::new())
        });
        alone.chain(several).collect::<Vec<_>>().into_iter()
    }

    /// The standard deviation of the tenth of some values, as a part of it, of which the least of all is this part. The other
    /// side says nothing: what else the machine does makes values too high, and never too low.
    fn spread(&self, least: f64) -> f64 {
        let n = (self.rounds * PARTS).max(2.0);
        // Of n values of a normal distribution the extreme is about the first number of standard deviations from the middle,
        // and the tenth the second.
        let deviation = (1.0 - least).max(0.0) / ((2.0 * n.ln()).sqrt() - 1.28).max(0.5);
        deviation * 1.71 / n.sqrt()
    }
}

/// How well a profile fits what it was fitted to.
fn told(profile: &Profile) -> String {
    let mut out = format!("{FORMAT} {VERSION}: {} samples\n", profile.samples.len());
    let residuals = profile.residuals();
    for path in &profile.paths {
        let of = |workers_too: bool| {
            let is_of = |s: &Sample| {
                s.algorithm == path.algorithm
                    && s.direction == path.direction
                    && (s.workers > 1) == workers_too
            };
            let off = residuals.iter().filter(|(s, _)| is_of(s)).map(|(_, off)| off.abs() * 100.0);
            let mut off: Vec<f64> = off.collect();
            off.sort_by(f64::total_cmp);
            let worst = off.last().copied()?;
            Some(format!("{:.1} % off in the middle, {worst:.1} % at worst", off[off.len() / 2]))
        };
        _ = write!(out, "{} {}: {}", path.direction, path.algorithm, of(false).unwrap_or_default());
        _ = writeln!(out, "{}", of(true).map_or(String::new(), |w| format!("; several workers: {w}")));
        for term in &path.whole.terms {
            _ = writeln!(out, "  {:9.3} clocks for each {:?}", term.clocks, term.per);
        }
        for WorkersCost { workers, extra } in &path.workers {
            for term in extra.terms.iter().filter(|term| term.clocks > 0.0) {
                _ = writeln!(
                    out,
                    "  {:9.3} more for each {:?} with {workers} workers",
                    term.clocks, term.per
                );
            }
        }
    }
    for IkeCost { key_exchange, authentication, set_up_us, rekey_us } in &profile.host.ike {
        _ = writeln!(
            out,
            "{key_exchange} with {authentication}: {:.0} +- {:.0} us of iked's time to set up a tunnel, {:.0} +- {:.0} us to rekey one",
            set_up_us.value, set_up_us.give_or_take, rekey_us.value, rekey_us.give_or_take
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What portcullis-path or `perf/calibrate` writes, of what takes so many clocks.
    fn measured(port: Option<&str>, sas: &[u32], clocks: impl Fn(u32, u32) -> f64) -> String {
        let cell = |octets: u32, sas: u32| {
            let clocks = clocks(octets, sas);
            serde_json::json!({"direction": "encap", "sas": sas, "size": octets.to_string(), "hops": null,
                               "undisturbed": clocks, "least": clocks})
        };
        let cells = [64, 128, 256, 576, 1400].into_iter().flat_map(|n| sas.iter().map(move |sas| (n, *sas)));
        let cells: Vec<_> = cells.map(|(octets, sas)| cell(octets, sas)).collect();
        let mut all = serde_json::json!({"cpu": "made by hand", "tsc_hz": 1e9, "rounds": 3, "algorithm": "aes-gcm-128",
                                         "crypto": "none", "cells": cells, "throughput": []});
        if let Some(port) = port {
            all["port"] = port.into();
        }
        all.to_string()
    }

    #[test]
    fn files_say_over_which_ports() {
        let of_sas = |sas: u32| if sas > 1 { 90.0 } else { 0.0 };
        let in_memory =
            measured(None, &[1, 1000], |octets, sas| 100.0 + 0.25 * f64::from(octets) + of_sas(sas));
        let over_veth = measured(Some("veth"), &[1], |octets, _| 3100.0 + 0.5 * f64::from(octets));
        let file = Path::new("a.json");
        let profile = profile(&[(file, &in_memory), (file, &over_veth)], None).unwrap();
        assert_eq!(profile.port_kinds(&[Way::Encap]), ["veth", MEMORY]);
        for (port, clocks) in [(MEMORY, 300.0), ("veth", 3500.0)] {
            let path = ("aes-gcm-128", Way::Encap);
            let (told, _) = profile.predict(path, &Sizes::only(800), (1, 1), port).unwrap();
            assert!((told.value - clocks).abs() < 1.0, "{port}: {told:?}");
        }
        let error = super::profile(&[(file, "{}")], None).unwrap_err().to_string();
        assert!(error.contains("a.json: not what portcullis-path writes"), "{error}");
    }

    #[test]
    fn tunnels_cost_what_was_measured() {
        let file = std::env::temp_dir().join(format!("portcullis-ike-{}.json", std::process::id()));
        let told = |rekeys: &[f64]| {
            let cost = serde_json::json!({"authentication": "psk", "key_exchange": "curve25519",
                                          "set_up_us": [290.0, 310.0], "rekey_us": rekeys});
            fs::write(&file, serde_json::json!({"per_tunnel": 4042, "costs": [cost]}).to_string()).unwrap();
            ike(&file)
        };
        let (costs, per_tunnel) = told(&[200.0]).unwrap();
        assert_eq!((costs[0].set_up_us.value, costs[0].rekey_us.value, per_tunnel), (300.0, 200.0, 4042));
        let error = told(&[]).unwrap_err().to_string();
        assert!(error.contains("no rekey_us of curve25519 with psk; make it by perf/calibrate"), "{error}");
        let in_memory = measured(None, &[1, 1000], |octets, _| f64::from(octets));
        let profile = profile(&[(&file, &in_memory)], Some((costs.clone(), per_tunnel))).unwrap();
        assert_eq!((profile.host.ike, profile.host.memory.per_tunnel), (costs, Some(4042)));
        fs::remove_file(&file).unwrap();
    }
}
