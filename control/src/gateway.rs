//! Both daemons together: what `portcullis up` and `portcullis down` do.

use crate::{
    client,
    daemon::{Daemon, DaemonError, Stopped, Turn},
    iked::{self, IkedError, SOCKET_FILE},
    status::DATAPATH_FILE,
};
use clap::ValueEnum;
use portcullis_machine::Machine;
use portcullis_sadb::RuntimeReader;
use std::{fs, path::Path};
use thiserror::Error;

/// Why the gateway does not come up, or down.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// A daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The regions.
    #[error(transparent)]
    Iked(#[from] IkedError),
    /// It runs, but not because of `portcullis up`.
    #[error(
        "{program} (process {pid}) was not started by `portcullis up`; stop it where it was started (a terminal, a \
         service), or: kill {pid}"
    )]
    Foreign {
        /// Which.
        program: &'static str,
        /// Its process.
        pid: u32,
    },
}

/// One of the two daemons.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Which {
    /// IKE and the SADB: packets go on, and so do IKE SAs once it is back.
    Iked,
    /// The packet path: packets are lost meanwhile, none leaves in clear, and SAs go on above every sequence number used.
    Datapath,
}

/// Starts what does not run of the two daemons, and waits till packets flow. Returns what was done.
///
/// # Errors
/// [`GatewayError`], with the last words of the daemon that failed. One that was started for this is stopped again.
pub fn up(machine: &Machine, config: &Path) -> Result<Vec<String>, GatewayError> {
    let directory = &machine.regions.directory;
    let _turn = Turn::take(directory)?;
    start(directory, config)
}

/// Stops one daemon in good order, while the other goes on, and has both up again. Returns what was done.
///
/// # Errors
/// [`GatewayError`].
pub fn restart(machine: &Machine, config: &Path, which: Which) -> Result<Vec<String>, GatewayError> {
    let directory = &machine.regions.directory;
    let _turn = Turn::take(directory)?;
    let (daemon, stopped) = match which {
        Which::Iked => (Daemon::iked(directory), Daemon::iked(directory).stop()?),
        // In between, nothing that is protected is to leave in clear.
        Which::Datapath => (Daemon::datapath(directory), Daemon::datapath(directory).hand_over()?),
    };
    let mut done: Vec<String> = told(&daemon, stopped).into_iter().collect();
    let foreign = match which {
        Which::Iked => foreign_iked(directory),
        Which::Datapath => foreign_datapath(directory),
    };
    foreign?;
    done.extend(start(directory, config)?);
    Ok(done)
}

/// Whether one runs that was not started by us, once ours is stopped.
fn foreign_iked(directory: &Path) -> Result<(), GatewayError> {
    match client::report(&directory.join(SOCKET_FILE)) {
        Ok(report) => {
            Err(GatewayError::Foreign { program: Daemon::iked(directory).program, pid: report.pid })
        }
        Err(_) => Ok(()),
    }
}

fn foreign_datapath(directory: &Path) -> Result<(), GatewayError> {
    match RuntimeReader::open(directory).ok().filter(RuntimeReader::datapath_alive) {
        Some(runtime) => Err(GatewayError::Foreign {
            program: Daemon::datapath(directory).program,
            pid: runtime.datapath_pid(),
        }),
        None => Ok(()),
    }
}

fn start(directory: &Path, config: &Path) -> Result<Vec<String>, GatewayError> {
    let (iked, datapath) = (Daemon::iked(directory), Daemon::datapath(directory));
    let socket = directory.join(SOCKET_FILE);
    let answers = || client::report(&socket).is_ok();
    let is_ready = || RuntimeReader::open(directory).is_ok_and(|r| r.workers() > 0);

    let mut done = vec![];
    let mut start =
        |daemon: &Daemon, is_up: bool, is_ready: &dyn Fn() -> bool| -> Result<bool, DaemonError> {
            if is_up {
                done.push(format!("{} runs already", daemon.program));
                return Ok(false);
            }
            let started = daemon.start(config).and_then(|mut started| daemon.wait(&mut started, is_ready));
            if let Err(e) = started {
                // What it said is in the error; that it may not end is not worth more.
                let _ = daemon.stop();
                return Err(e);
            }
            done.push(format!("started {}", daemon.program));
            Ok(true)
        };
    let is_ours = start(&iked, answers(), &answers)?;
    if let Err(e) = start(&datapath, is_running(directory), &is_ready) {
        if is_ours {
            iked.stop()?;
        }
        return Err(e.into());
    }
    Ok(done)
}

/// Stops both daemons; with `forget`, removes the regions as well. Returns what was done, nothing if nothing ran.
///
/// # Errors
/// [`GatewayError`].
pub fn down(machine: &Machine, forget: bool) -> Result<Vec<String>, GatewayError> {
    let directory = &machine.regions.directory;
    if !directory.exists() {
        return Ok(vec![]);
    }
    let _turn = Turn::take(directory)?;
    let mut done = vec![];
    // The packet path first: iked wipes no key that a worker is using.
    let datapath = Daemon::datapath(directory);
    let stopped = datapath.stop()?;
    done.extend(told(&datapath, stopped));
    if let Stopped::Killed { .. } = stopped {
        let ports: Vec<_> = machine.ports.iter().map(|p| p.interface.as_str()).collect();
        done.push(format!(
            "its XDP program is still on {}, and drops what is to be protected; `ip link set dev PORT xdp off` removes it",
            ports.join(", ")
        ));
    }
    let iked = Daemon::iked(directory);
    done.extend(told(&iked, iked.stop()?));
    foreign_datapath(directory)?;
    foreign_iked(directory)?;
    if forget {
        let _ = fs::remove_file(directory.join(DATAPATH_FILE));
        if iked::forget(directory)? {
            done.push("removed the regions with their SAs, keys and used sequence numbers".to_owned());
        }
    } else if !done.is_empty() && RuntimeReader::open(directory).is_ok() {
        done.push(format!(
            "the regions stay in {}, so that the same SAs can go on; --forget removes them",
            directory.display()
        ));
    }
    Ok(done)
}

/// Whether a datapath has the regions in this directory.
pub fn is_running(directory: &Path) -> bool {
    RuntimeReader::open(directory).is_ok_and(|r| r.datapath_alive())
}

fn told(daemon: &Daemon, stopped: Stopped) -> Option<String> {
    match stopped {
        Stopped::NotRunning => None,
        Stopped::Orderly { pid } => Some(format!("stopped {} (process {pid})", daemon.program)),
        Stopped::Killed { pid } => {
            Some(format!("killed {} (process {pid}), which did not end in time", daemon.program))
        }
    }
}
