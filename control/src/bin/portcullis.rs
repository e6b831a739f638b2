//! The command that people type: a thin shell over the library.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::{Parser, Subcommand};
use portcullis_control::{
    client,
    daemon::{Daemon, DaemonError},
    doctor,
    iked::{self, Answer, Request, SOCKET_FILE},
    status,
};
use portcullis_machine::{Machine, explain};
use portcullis_sadb::RuntimeReader;
use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Portcullis, an IPsec gateway in user space.
///
/// Exit codes: 0 done, 1 failed, 2 wrong use, 3 not running.
#[derive(Parser)]
#[command(name = "portcullis", version)]
struct Options {
    /// The directory of portcullis.toml and connections.toml.
    #[arg(long, value_name = "DIR", default_value = "/etc/portcullis", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the gateway; with a name, installs that connection.
    ///
    /// Examples: `portcullis up`, `portcullis up site-b`
    Up {
        /// A connection that was taken down.
        name: Option<String>,
    },
    /// Stops the gateway; with a name, takes that connection out.
    ///
    /// The regions stay, so that the next `up` goes on with the same SAs above every number used.
    /// Examples: `portcullis down`, `portcullis down site-b`, `portcullis down --forget`
    Down {
        /// A connection.
        name: Option<String>,
        /// Also removes the regions: SAs, keys, and the record of used sequence numbers.
        #[arg(long, conflicts_with = "name")]
        forget: bool,
    },
    /// Shows connections, SAs, workers and drops. Keys are hidden.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Reads connections.toml anew; what did not change is not touched.
    Reload,
    /// Checks this machine, and says what to do about what it finds.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Not running: the exit code of its own.
const NOT_RUNNING: u8 = 3;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("portcullis: {}", explain(&*e));
            let not_running = e.downcast_ref::<client::ClientError>();
            match not_running {
                Some(client::ClientError::NotRunning { .. }) => ExitCode::from(NOT_RUNNING),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let machine = Machine::load(&options.config)?;
    let directory = &machine.regions.directory;
    let ask = |request: Request| -> Result<ExitCode, Box<dyn Error>> {
        if let Answer::Done { done } = client::ask(&directory.join(SOCKET_FILE), &request)? {
            println!("{done}");
        }
        Ok(ExitCode::SUCCESS)
    };
    match &options.command {
        Command::Up { name: Some(name) } => ask(Request::Up { name: name.clone() }),
        Command::Down { name: Some(name), .. } => ask(Request::Down { name: name.clone() }),
        Command::Reload => ask(Request::Reload),
        Command::Up { name: None } => {
            up(directory, &options.config)?;
            print!("{}", status::print(&status::collect(directory)));
            Ok(ExitCode::SUCCESS)
        }
        Command::Down { name: None, forget } => {
            let datapath = Daemon::datapath(directory).stop()?;
            let iked = Daemon::iked(directory).stop()?;
            if *forget {
                iked::forget(directory)?;
            }
            println!("{}", if datapath || iked { "the gateway is down" } else { "the gateway was not up" });
            Ok(if datapath || iked || *forget { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
        }
        Command::Status { json } => {
            let status = status::collect(directory);
            match json {
                true => println!("{}", serde_json::to_string_pretty(&status)?),
                false => print!("{}", status::print(&status)),
            }
            let runs = status["iked"].is_object() || status["datapath"]["alive"] == true;
            Ok(if runs { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
        }
        Command::Doctor { json } => {
            let findings = doctor::examine(&options.config);
            match json {
                true => println!("{}", serde_json::to_string_pretty(&findings)?),
                false => print!("{}", doctor::print(&findings)),
            }
            let failed = findings.iter().any(|f| f.verdict == doctor::Verdict::Fail);
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}

/// Starts both daemons and waits for them. If one does not come up, one that was started for it ends too.
fn up(directory: &Path, config: &Path) -> Result<(), DaemonError> {
    let (iked, datapath) = (Daemon::iked(directory), Daemon::datapath(directory));
    let iked_started = iked.start(config)?;
    let socket = directory.join(SOCKET_FILE);
    let ready = || RuntimeReader::open(directory).is_ok_and(|r| r.workers() > 0);
    let result = iked
        .wait(|| client::report(&socket).is_ok())
        .and_then(|()| datapath.start(config))
        .and_then(|_| datapath.wait(ready));
    if result.is_err() {
        // What it said is in the error already.
        let _ = datapath.stop();
        if iked_started {
            let _ = iked.stop();
        }
    }
    result
}
