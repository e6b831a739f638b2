//! What a host costs: measured once, kept in a file of JSON, and asked by the planner.

mod fitted;

use super::{
    fit::FitError,
    model::{Estimate, Model, Per, Point, Reach},
    shares::Sizes,
};
use portcullis_sadb::{Algorithm, Protocol};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// What a file of a profile says it is.
pub const FORMAT: &str = "portcullis-profile";

/// The version of the format. Files of others are not read.
pub const VERSION: u32 = 2;

/// How a profile is come by.
pub const HOW: &str = "make one on the host, as `portcullis bench calibrate --help` says";

/// The kind of ports that cost nothing beside what a worker does: those in memory.
pub const MEMORY: &str = "memory";

/// Which half of a gateway's work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Clear packets to ESP.
    Encap,
    /// ESP to clear packets.
    Decap,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Encap => "encap",
            Way::Decap => "decap",
        })
    }
}

/// A measurement.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// The algorithm's name.
    pub algorithm: String,
    /// Which half of the way.
    pub direction: Way,
    /// Inner packets.
    pub sizes: Sizes,
    /// SAs of all workers together, each hit as often as the others.
    pub sas: u32,
    /// Workers.
    pub workers: u32,
    /// What kind of ports: `memory`, `veth` or `nic`.
    pub port: String,
    /// Packets of a batch, on average.
    pub batch: f64,
    /// Clocks for each packet, of all workers together.
    pub clocks: f64,
    /// Standard deviation of that, as a part of it.
    pub spread: f64,
    /// The same by hop, where that was measured: in a run of its own, so that the sum is not quite `clocks`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hops: BTreeMap<String, f64>,
}

impl Sample {
    /// What its packets are, as each worker sees them.
    pub fn point(&self) -> Point<'_> {
        Point { sizes: &self.sizes, sas: share(self.sas, self.workers), batch: self.batch }
    }
}

/// SAs that each of some workers has: 1 at least, if it has anything to do.
pub fn share(sas: u32, workers: u32) -> f64 {
    (f64::from(sas) / f64::from(workers.max(1))).max(1.0)
}

/// The machine that was measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The CPU, as the kernel names it.
    pub cpu: String,
    /// Clocks per second of what counted them: the TSC.
    pub clocks_per_sec: f64,
    /// The kernel.
    pub kernel: String,
    /// What seals and opens AES-GCM.
    pub crypto: String,
    /// The version of Portcullis.
    pub portcullis: String,
}

/// Octets that processes take.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Of all processes, without an SA; none if that was not measured.
    pub fixed: Option<u64>,
    /// Chunks of the umem for a queue of a port.
    pub per_queue: u64,
    /// Chunks of the umem for a worker.
    pub per_worker: u64,
    /// An SA and its policy in the shared regions.
    pub per_sa: u64,
    /// An SA's state in the worker that owns it.
    pub per_sa_of_owner: u64,
    /// What finds an SA's state, in each worker.
    pub per_sa_and_worker: u64,
    /// A tunnel in iked's own memory: its IKE SA and what belongs to that; none if that was not measured.
    pub per_tunnel: Option<u64>,
    /// What a packet touches of its SA, at most.
    pub touched_by_packet: u64,
}

/// iked's CPU time for one thing, of all its threads.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct IkeCost {
    /// The key exchange, as `swanctl.conf` names it: `curve25519`.
    pub key_exchange: String,
    /// How ends prove who they are: `psk`, `ecdsa-256`.
    pub authentication: String,
    /// Microseconds to set up a tunnel: an IKE SA and a child SA.
    pub set_up_us: Estimate,
    /// Microseconds to rekey a child SA with a key exchange of its own.
    pub rekey_us: Estimate,
}

/// What is known of a host by itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Host {
    /// The machine.
    pub machine: Machine,
    /// Packets of a batch of a worker that has much to do.
    pub batch: f64,
    /// Octets of a packet that fit a chunk of the umem.
    pub chunk: u32,
    /// Octets.
    pub memory: Memory,
    /// What tunnels cost.
    pub ike: Vec<IkeCost>,
}

/// What packets of an algorithm cost in a direction, in memory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PathCost {
    /// The algorithm's name.
    pub algorithm: String,
    /// The direction.
    pub direction: Way,
    /// All of a worker's clocks.
    pub whole: Model,
    /// Those of each hop, if they were measured.
    pub hops: BTreeMap<String, Model>,
    /// What more it takes several workers, by their number.
    pub workers: Vec<WorkersCost>,
}

/// What several workers take for a packet beside what one takes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorkersCost {
    /// How many.
    pub workers: u32,
    /// More clocks than one with its share of the SAs takes: none if they are not in each other's way. Where they share a
    /// core, it depends on what keeps that busy.
    pub extra: Model,
}

/// What real ports take beside what memory's do.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PortCost {
    /// What kind: `veth`, `nic`.
    pub kind: String,
    /// The direction.
    pub direction: Way,
    /// Clocks of workers and, where they are on the same cores, of the kernel.
    pub extra: Model,
}

/// All that is known of a host.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// What is known by itself.
    pub host: Host,
    /// Clocks of packets.
    pub paths: Vec<PathCost>,
    /// Real ports.
    pub ports: Vec<PortCost>,
    /// What all of these were fitted to.
    pub samples: Vec<Sample>,
}

/// Why there is no profile.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// The file.
    #[error("cannot read the profile {}: {source}; {HOW}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file.
    #[error("cannot write the profile {}: {source}", .file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no JSON, or not of this form.
    #[error("{}: not a profile: {source}; {HOW}", .file.display())]
    Form {
        /// The file.
        file: PathBuf,
        /// What and where.
        source: serde_json::Error,
    },
    /// It is something else.
    #[error("{}: not a profile: it has no \"format\": \"{FORMAT}\"; {HOW}", .file.display())]
    Other {
        /// The file.
        file: PathBuf,
    },
    /// Of another version.
    #[error("{}: a profile of version {version}, and this program reads version {VERSION}; {HOW}, or use the \
             program that made it", .file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: String,
    },
    /// Numbers that no host has.
    #[error("{}: {what} is {value}, which cannot be; {HOW}", .file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// Which.
        what: String,
        /// Its value.
        value: f64,
    },
    /// Samples that no model comes of.
    #[error("{algorithm}, {direction}: {source}")]
    Fit {
        /// Of which.
        algorithm: String,
        /// Of which.
        direction: Way,
        /// Why.
        source: FitError,
    },
    /// There are samples of ports or workers whose algorithm was not measured in memory with one worker.
    #[error(
        "{algorithm}, {direction}: no sample in memory of one worker; ports and workers are compared with these"
    )]
    NothingToCompare {
        /// Of which.
        algorithm: String,
        /// Of which.
        direction: Way,
    },
}

impl Profile {
    /// From a file.
    ///
    /// # Errors
    /// [`ProfileError`] says what to do.
    pub fn load(file: &Path) -> Result<Profile, ProfileError> {
        let text =
            fs::read_to_string(file).map_err(|source| ProfileError::Read { file: file.into(), source })?;
        Profile::parse(&text, file)
    }

    /// From the text of a file, which errors name.
    ///
    /// # Errors
    /// As [`Profile::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Profile, ProfileError> {
        let form = |source| ProfileError::Form { file: file.into(), source };
        let value: serde_json::Value = serde_json::from_str(text).map_err(form)?;
        // The version first: what else there is depends on it.
        if value.get("format").and_then(|f| f.as_str()) != Some(FORMAT) {
            return Err(ProfileError::Other { file: file.into() });
        }
        match value.get("version") {
            Some(version) if version.as_u64() == Some(VERSION.into()) => {}
            other => {
                let version = other.map_or("unknown".to_owned(), ToString::to_string);
                return Err(ProfileError::Version { file: file.into(), version });
            }
        }
        let profile: Profile = serde_json::from_value(value).map_err(form)?;
        profile.check().map_err(|(what, value)| ProfileError::Value { file: file.into(), what, value })?;
        Ok(profile)
    }

    /// Into a file.
    ///
    /// # Errors
    /// [`ProfileError::Write`].
    pub fn save(&self, file: &Path) -> Result<(), ProfileError> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::from);
        let written = text.and_then(|text| fs::write(file, text + "\n"));
        written.map_err(|source| ProfileError::Write { file: file.into(), source })
    }

    /// What is not as any host is, and would make nonsense of all answers.
    fn check(&self) -> Result<(), (String, f64)> {
        let positive = |what: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err((what.to_owned(), value)),
        };
        positive("host.machine.clocks_per_sec", self.host.machine.clocks_per_sec)?;
        positive("host.batch", self.host.batch)?;
        positive("host.chunk", self.host.chunk.into())?;
        let hops = self.paths.iter().flat_map(|path| path.hops.values());
        let of_several = self.paths.iter().flat_map(|path| path.workers.iter().map(|w| &w.extra));
        let models = self.paths.iter().map(|path| &path.whole).chain(hops).chain(of_several);
        for model in models.chain(self.ports.iter().map(|port| &port.extra)) {
            let square = model.covariance.len() == model.terms.len()
                && model.covariance.iter().all(|row| row.len() == model.terms.len());
            positive("the number of a model's covariances", if square { 1.0 } else { 0.0 })?;
            if model.noise.is_nan() || model.noise < 0.0 {
                return Err(("the noise of a model".to_owned(), model.noise));
            }
            for term in &model.terms {
                if !(term.clocks.is_finite() && term.clocks >= 0.0) {
                    return Err(("the clocks of a term".to_owned(), term.clocks));
                }
                if let Per::ManySas { from, to, .. } = term.per {
                    positive("the first SA of a term", from.into())?;
                    positive("the SAs of a term", f64::from(to) - f64::from(from))?;
                }
            }
        }
        for path in &self.paths {
            positive(
                "the clocks of a path's smallest packets",
                path.of_smallest(|p| path.whole.predict(p).value),
            )?;
            let mut before = 1;
            for WorkersCost { workers, .. } in &path.workers {
                positive(
                    "the number of some workers, less that of those before them,",
                    f64::from(*workers) - f64::from(before),
                )?;
                before = *workers;
            }
        }
        Ok(())
    }

    /// The path of an algorithm in a direction.
    pub fn path(&self, algorithm: &str, direction: Way) -> Option<&PathCost> {
        self.paths.iter().find(|path| path.algorithm == algorithm && path.direction == direction)
    }

    /// Names of the algorithms that were measured in all these directions, each once.
    pub fn algorithms(&self, ways: &[Way]) -> Vec<&str> {
        let known = |name: &&str| ways.iter().all(|way| self.path(name, *way).is_some());
        let mut names: Vec<&str> = self.paths.iter().map(|path| path.algorithm.as_str()).collect();
        names.retain(known);
        names.dedup();
        names
    }

    /// Ports of a kind, other than those in memory, in a direction.
    fn port(&self, kind: &str, direction: Way) -> Option<&PortCost> {
        self.ports.iter().find(|port| port.kind == kind && port.direction == direction)
    }

    /// Kinds of ports that were measured in all these directions, from those of most use.
    pub fn port_kinds(&self, ways: &[Way]) -> Vec<&str> {
        let known = |kind: &&str| ways.iter().all(|way| self.port(kind, *way).is_some());
        let others = self.ports.iter().map(|port| port.kind.as_str());
        let others = others.filter(|kind| !["nic", "veth"].contains(kind) && known(kind));
        let mut kinds: Vec<&str> =
            ["nic", "veth"].into_iter().filter(known).chain(others).chain([MEMORY]).collect();
        kinds.dedup();
        kinds
    }

    /// Clocks of all workers together for a packet, if that path and these ports were measured, and what of it lies
    /// outside of what was. `sas` is of all workers.
    pub fn predict(
        &self,
        (algorithm, direction): (&str, Way),
        sizes: &Sizes,
        (sas, workers): (u32, u32),
        port: &str,
    ) -> Option<(Estimate, Vec<String>)> {
        let point = Point { sizes, sas: share(sas, workers), batch: self.host.batch };
        let path = self.path(algorithm, direction)?;
        let mut beyond = path.whole.beyond(&point);
        let mut clocks = path.whole.predict(&point).plus(path.extra(&point, workers));
        if port != MEMORY {
            let of_port = self.port(port, direction)?.extra.predict(&point);
            clocks = clocks.plus(of_port.times(path.on_ports(workers)));
        }
        if let Some(several) = path.workers.last().filter(|_| workers > 1) {
            beyond.extend(several.extra.beyond(&point));
            beyond.sort();
            beyond.dedup();
        }
        let most = path.workers.last().map_or(1, |w| w.workers);
        if workers > most {
            beyond.push(format!("{workers} workers (1 to {most} were measured)"));
        }
        Some((clocks, beyond))
    }
}

impl PathCost {
    /// What several workers take beside what one takes, between those that were measured by the logarithm of their number, and
    /// beyond them as it went on. More of them are never less in each other's way.
    fn extra(&self, point: &Point<'_>, workers: u32) -> Estimate {
        let mut known = vec![(1, Estimate::default())];
        for several in &self.workers {
            let (_, before) = known[known.len() - 1];
            let extra = several.extra.predict(point);
            let (value, high) = (extra.value.max(before.value), extra.high().max(before.high()));
            known.push((several.workers, Estimate { value, give_or_take: high - value }));
        }
        let behind = known.iter().position(|(w, _)| *w >= workers).unwrap_or(known.len() - 1);
        let [(fewer, from), (more, to)] = [known[behind.saturating_sub(1)], known[behind]];
        let ln = |w: u32| f64::from(w.max(1)).ln();
        let part = match fewer == more {
            true => 0.0,
            false => (ln(workers) - ln(fewer)) / (ln(more) - ln(fewer)),
        };
        let between = |of: fn(Estimate) -> f64| of(from) + part * (of(to) - of(from));
        let value = between(|e| e.value).max(0.0);
        Estimate { value, give_or_take: (between(Estimate::high) - value).max(0.0) }
    }

    /// How many times as much ports take with several workers as with one: what no size and no number of SAs changes, so that
    /// more of these never take less. It is what the smallest packets say.
    fn on_ports(&self, workers: u32) -> f64 {
        self.of_smallest(|least| 1.0 + self.extra(least, workers).value / self.whole.predict(least).value)
    }

    /// Of the smallest packets and the fewest SAs that were measured.
    fn of_smallest(&self, of: impl Fn(&Point<'_>) -> f64) -> f64 {
        let Reach { octets, sas, .. } = self.whole.reach;
        of(&Point { sizes: &Sizes::only(octets.0), sas: f64::from(sas.0.max(1)), batch: f64::INFINITY })
    }
}

/// The algorithm of ESP of that name.
pub fn esp(name: &str) -> Option<Algorithm> {
    Algorithm::by_name(Protocol::Esp, name)
}
