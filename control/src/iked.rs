//! The control process: it takes over the regions or makes them, installs what is configured, and answers on
//! its socket.

use crate::{
    config::{ConfigError, Connections, MANUAL_KEYS},
    install::{InstallError, install},
    report::{ConnectionReport, Report, SaReport},
};
use portcullis_machine::Machine;
use portcullis_sadb::{Direction, RegionError, SADB_FILE, Sa, Sadb, Sizes};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The control socket, in the regions' directory.
pub const SOCKET_FILE: &str = "iked.sock";

/// Why iked does not run.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum IkedError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Machine(#[from] portcullis_machine::strict::ConfigError),
    #[error(transparent)]
    Region(#[from] RegionError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Install(Vec<InstallError>),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path}: has manual keys, and the regions are new. With the same keys, sequence numbers that were used \
         before would be used again, and AES-GCM is broken by that (RFC 8221 §4, RFC 4106 §3). If these keys were never \
         used, or this is a lab, write `{MANUAL_KEYS} = true` at the head of the file"
    )]
    ManualKeys { path: PathBuf },
    #[error(
        "[regions] max_sas = {max_sas} and max_policies = {max_policies}, but the regions in {directory} were made for {found:?}; `portcullis down --forget` removes them, which ends their SAs"
    )]
    Resized { directory: PathBuf, max_sas: u32, max_policies: u32, found: Sizes },
}

/// What may be asked on the control socket: a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is installed.
    Status,
    /// Installs a connection that was taken down.
    Up {
        /// Its name.
        name: String,
    },
    /// Takes a connection out.
    Down {
        /// Its name.
        name: String,
    },
    /// Reads the connections anew.
    Reload,
}

/// What it answers: a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// It was not done.
    Error {
        /// Why.
        error: String,
    },
    /// It was done.
    Done {
        /// What was done.
        done: String,
    },
    /// What was asked for.
    Report(Report),
}

/// The state of the process.
#[derive(Debug)]
pub struct Iked {
    sadb: Sadb,
    config: PathBuf,
    connections: Connections,
    /// Connections that were taken down by hand.
    down: BTreeSet<String>,
}

impl Iked {
    /// Takes over the regions that a predecessor left, or makes new ones, and installs what is configured.
    ///
    /// # Errors
    /// [`IkedError`]; all of the configuration can be installed, or it is an error.
    pub fn start(config: &Path, random: [u64; 2]) -> Result<Iked, IkedError> {
        let machine = Machine::load(config)?;
        let connections = Connections::load(config)?;
        let directory = &machine.regions.directory;
        let io = |source| IkedError::Io { path: directory.clone(), source };
        fs::create_dir_all(directory).map_err(io)?;
        let sizes = Sizes { max_sas: machine.regions.max_sas, max_policies: machine.regions.max_policies };
        let sadb = match Sadb::open(directory) {
            Ok(sadb) if sadb.sizes() != sizes => {
                let (max_sas, max_policies) = (sizes.max_sas, sizes.max_policies);
                let (directory, found) = (directory.clone(), sadb.sizes());
                return Err(IkedError::Resized { directory, max_sas, max_policies, found });
            }
            Ok(sadb) => sadb,
            Err(RegionError::Missing { .. }) => {
                if !connections.connections.is_empty() && !connections.manual_keys_acknowledged {
                    return Err(IkedError::ManualKeys { path: config.join(crate::config::CONNECTIONS_FILE) });
                }
                Sadb::create(directory, &sizes, random)?
            }
            Err(e) => return Err(e.into()),
        };
        let mut iked = Iked { sadb, config: config.to_owned(), connections, down: BTreeSet::new() };
        iked.install().map_err(IkedError::Install)?;
        Ok(iked)
    }

    /// What waits for the workers is done, and what they tell is taken. To be called now and then.
    pub fn turn(&mut self) {
        self.sadb.reclaim();
        while let Some(event) = self.sadb.poll_event() {
            let name = self.sadb.sa(event.slot).map(|(_, sa)| sa.name.to_string()).unwrap_or_default();
            tracing::warn!("connection '{name}': {:?} at {}", event.kind, event.value);
        }
    }

    /// Answers a line.
    pub fn answer(&mut self, line: &str) -> Answer {
        match serde_json::from_str(line) {
            Ok(request) => self.handle(request).unwrap_or_else(|error| Answer::Error { error }),
            Err(e) => Answer::Error { error: format!("not a request: {e}") },
        }
    }

    fn handle(&mut self, request: Request) -> Result<Answer, String> {
        match request {
            Request::Status => Ok(Answer::Report(self.report())),
            Request::Up { name } => {
                self.known(&name)?;
                self.down.remove(&name);
                self.change(format!("connection '{name}' is up"))
            }
            Request::Down { name } => {
                self.known(&name)?;
                self.down.insert(name.clone());
                self.change(format!("connection '{name}' is down"))
            }
            Request::Reload => {
                self.connections = Connections::load(&self.config).map_err(|e| e.to_string())?;
                let connections = &self.connections.connections;
                self.down.retain(|name| connections.iter().any(|c| c.name == *name));
                self.change("connections are reloaded".into())
            }
        }
    }

    fn known(&self, name: &str) -> Result<(), String> {
        let names: Vec<_> = self.connections.connections.iter().map(|c| c.name.as_str()).collect();
        match names.contains(&name) {
            true => Ok(()),
            false => Err(format!("no connection '{name}'; there are: {}", names.join(", "))),
        }
    }

    fn change(&mut self, done: String) -> Result<Answer, String> {
        match self.install() {
            Ok(()) => Ok(Answer::Done { done }),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }

    fn install(&mut self) -> Result<(), Vec<InstallError>> {
        let mut wanted = self.connections.clone();
        wanted.connections.retain(|c| !self.down.contains(&c.name));
        let (changes, errors) = install(&mut self.sadb, &wanted);
        tracing::info!(
            "SAs: {} kept, {} published, {} retired; {} errors",
            changes.kept,
            changes.published,
            changes.retired,
            errors.len()
        );
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn report(&self) -> Report {
        let installed: Vec<_> = self.sadb.sas().collect();
        let connections = self.connections.connections.iter().map(|c| {
            let of = |direction| {
                let found = installed
                    .iter()
                    .find(|(_, _, sa)| sa.name.as_str() == c.name && sa.direction == direction);
                found.map(|(slot, generation, sa)| sa_report(slot.0, generation.0, sa))
            };
            ConnectionReport {
                name: c.name.clone(),
                up: !self.down.contains(&c.name),
                local: c.local.to_string(),
                remote: c.remote.to_string(),
                local_ts: c.local_ts.iter().map(ToString::to_string).collect(),
                remote_ts: c.remote_ts.iter().map(ToString::to_string).collect(),
                algorithm: c.algorithm.name().to_owned(),
                key: "(hidden)".to_owned(),
                inbound: of(Direction::Inbound),
                outbound: of(Direction::Outbound),
            }
        });
        Report {
            pid: std::process::id(),
            keys_locked: self.sadb.guard().not_locked.is_none(),
            policies: self.sadb.policies().count(),
            connections: connections.collect(),
        }
    }
}

fn sa_report(slot: u32, generation: u64, sa: &Sa) -> SaReport {
    SaReport {
        spi: sa.spi.to_string(),
        slot,
        generation,
        esn: sa.esn,
        replay_window: sa.replay_window,
        udp_encap: sa.udp.is_some(),
    }
}

/// Removes the regions of a directory, for good: their SAs end, and with them the record of used numbers.
///
/// # Errors
/// [`RegionError::InUse`] while a daemon has them.
pub fn forget(directory: &Path) -> Result<(), IkedError> {
    let sadb = match Sadb::open(directory) {
        Ok(mut sadb) => {
            let slots: Vec<_> = sadb.sas().map(|(slot, ..)| slot).collect();
            for slot in slots {
                // Wiped below, as no datapath can be using it.
                let _ = sadb.retire(slot);
            }
            sadb.reclaim();
            Some(sadb)
        }
        Err(RegionError::InUse { path, pid }) => return Err(RegionError::InUse { path, pid }.into()),
        Err(_) => None,
    };
    for file in [SADB_FILE, portcullis_sadb::RUNTIME_FILE] {
        let path = directory.join(file);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(IkedError::Io { path, source });
            }
            _ => {}
        }
    }
    drop(sadb);
    Ok(())
}
