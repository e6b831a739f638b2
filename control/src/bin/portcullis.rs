//! The command that people type: a thin shell over the library.
#![allow(clippy::print_stderr)]

use clap::{Parser, Subcommand};
use portcullis_control::{
    client::{self, ClientError},
    daemon,
    doctor::{self, Verdict},
    gateway,
    iked::{Answer, Request, SOCKET_FILE},
    status::Status,
};
use portcullis_machine::{DIRECTORY, Machine, explain};
use std::{
    error::Error,
    ffi::OsString,
    io::{self, ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

/// Portcullis, an IPsec gateway in user space.
#[derive(Parser)]
#[command(
    name = "portcullis",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong use, 3 not running.\n\n\
                  Examples:\n  portcullis doctor         checks this machine\n  portcullis up             starts the gateway\n  \
                  portcullis status         shows what it does\n  portcullis down site-b    takes one connection down"
)]
struct Options {
    /// The directory of portcullis.toml and connections.toml.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY, global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts the gateway; with a name, takes that connection up again.
    ///
    /// Starts portcullis-iked and portcullis-datapath, which must be beside this program, waits till packets flow, and
    /// shows the status. Their logs are iked.log and datapath.log in the regions' directory.
    #[command(
        after_help = "Examples:\n  portcullis up\n  portcullis up --config /etc/portcullis-lab\n  portcullis up site-b"
    )]
    Up {
        /// A connection that was taken down.
        name: Option<String>,
    },
    /// Stops the gateway; with a name, takes that connection down.
    ///
    /// The regions stay, so that the next `up` goes on with the same SAs above every sequence number used. The traffic
    /// of a connection that is down is dropped, in both directions.
    #[command(
        after_help = "Examples:\n  portcullis down\n  portcullis down site-b\n  portcullis down --forget"
    )]
    Down {
        /// A connection.
        name: Option<String>,
        /// Also removes the regions: SAs, keys, and the record of used sequence numbers.
        #[arg(long, conflicts_with = "name")]
        forget: bool,
    },
    /// Stops one of the two daemons in good order, while the other goes on, and starts it again.
    ///
    /// It starts with the configuration and the program that there are now.
    #[command(after_help = "Examples:\n  portcullis restart datapath\n  portcullis restart iked")]
    Restart {
        /// Which.
        which: gateway::Which,
    },
    /// Shows connections, SAs, ports, workers and drops. Keys are hidden.
    ///
    /// "bytes per SA" are sizes of structures, not measured: in the regions, which hold room for max_sas of them; in
    /// the datapath, in the worker that owns the SA (its state with the expanded key; replay windows over 1024 packets
    /// take more) and in each worker (what finds it); in iked, what connections, SAs and policies take, divided by the
    /// SAs installed.
    #[command(after_help = "Examples:\n  portcullis status\n  portcullis status --json | jq .datapath.drops")]
    Status {
        /// As JSON, with stable keys.
        #[arg(long)]
        json: bool,
    },
    /// Has the child SAs of a name replaced by new ones, or the IKE SAs of a connection.
    ///
    /// No packet is lost on the way: the new SAs are there before the old ones go.
    #[command(after_help = "Example:\n  portcullis rekey net")]
    Rekey {
        /// A child, or a connection of IKE.
        name: String,
    },
    /// Shows IKE SAs and their child SAs.
    #[command(
        after_help = "Examples:\n  portcullis list\n  portcullis list --json | jq '.sas[].children[].name'"
    )]
    List {
        /// As JSON, with stable keys.
        #[arg(long)]
        json: bool,
    },
    /// Shows what happens to IKE SAs and child SAs from now on, a line for each event, until it is interrupted.
    #[command(after_help = "Examples:\n  portcullis monitor\n  portcullis monitor --json | jq .event")]
    Monitor {
        /// As JSON, with stable keys.
        #[arg(long)]
        json: bool,
    },
    /// Reads connections.toml and swanctl.conf anew; what did not change is not touched.
    #[command(after_help = "Example:\n  portcullis reload")]
    Reload,
    /// Checks this machine, and says what to do about what it finds.
    #[command(
        after_help = "It exits with 1 if something does not work.\n\nExamples:\n  portcullis doctor\n  \
                            portcullis doctor --json | jq '.[] | select(.verdict == \"fail\")'"
    )]
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measures this machine, by portcullis-perf, which must be beside this program; `bench --help` tells more.
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<OsString>,
    },
    /// Says what it takes to carry so much traffic in so many tunnels, by portcullis-perf; `plan --help` tells more.
    #[command(disable_help_flag = true)]
    Plan {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<OsString>,
    },
    /// Becomes another program in a session of its own.
    #[command(name = daemon::DETACH, hide = true, disable_help_flag = true)]
    Detach { program: OsString, arguments: Vec<OsString> },
}

/// Not running: the exit code of its own.
const NOT_RUNNING: u8 = 3;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("portcullis: {}", explain(&*e));
            match e.downcast_ref() {
                Some(ClientError::NotRunning { .. }) => ExitCode::from(NOT_RUNNING),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    match &options.command {
        Command::Detach { program, arguments } => {
            Err(format!("{}: {}", program.display(), daemon::detach(program, arguments)).into())
        }
        Command::Bench { arguments } => Err(measuring("bench", arguments).into()),
        Command::Plan { arguments } => Err(measuring("plan", arguments).into()),
        Command::Doctor { json } => {
            let findings = doctor::examine(&options.config);
            match json {
                true => say(&(serde_json::to_string_pretty(&findings)? + "\n"))?,
                false => say(&doctor::print(&findings))?,
            }
            let has_failed = findings.iter().any(|f| f.verdict == Verdict::Fail);
            Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Up { name: Some(name) } => ask(options, &Request::Up { name: name.clone() }),
        Command::Down { name: Some(name), .. } => ask(options, &Request::Down { name: name.clone() }),
        Command::Rekey { name } => ask(options, &Request::Rekey { name: name.clone() }),
        Command::Reload => ask(options, &Request::Reload {}),
        Command::List { json } => {
            let report = client::list(&socket(options)?)?;
            match json {
                true => say(&(serde_json::to_string_pretty(&report)? + "\n"))?,
                false => say(&report.to_string())?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Monitor { json } => {
            client::monitor(&socket(options)?, |event| match json {
                true => write(&(serde_json::to_string(event)? + "\n")),
                false => write(&format!("{}\n", event.text)),
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Up { name: None } => {
            let machine = Machine::load(&options.config)?;
            say_lines(&gateway::up(&machine, &options.config)?)?;
            say(&format!("\n{}", Status::collect(&machine.regions.directory)))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Restart { which } => {
            say_lines(&gateway::restart(&Machine::load(&options.config)?, &options.config, *which)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Down { name: None, forget } => {
            let done = gateway::down(&Machine::load(&options.config)?, *forget)?;
            say_lines(&done)?;
            if done.is_empty() {
                say("the gateway does not run\n")?;
                return Ok(ExitCode::from(NOT_RUNNING));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Status { json } => {
            let status = Status::collect(&Machine::load(&options.config)?.regions.directory);
            match json {
                true => say(&(serde_json::to_string_pretty(&status)? + "\n"))?,
                false => say(&status.to_string())?,
            }
            Ok(if status.is_running() { ExitCode::SUCCESS } else { ExitCode::from(NOT_RUNNING) })
        }
    }
}

/// Becomes the program that measures and plans. Returns only when that fails, with why.
fn measuring(tool: &str, arguments: &[OsString]) -> String {
    daemon::become_beside("portcullis-perf", &[&[tool.into()], arguments].concat())
}

/// Has iked do something.
fn ask(options: &Options, request: &Request) -> Result<ExitCode, Box<dyn Error>> {
    if let Answer::Done { done } = client::ask(&socket(options)?, request)? {
        say_lines(&[done])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// iked's socket.
fn socket(options: &Options) -> Result<PathBuf, Box<dyn Error>> {
    Ok(Machine::load(&options.config)?.regions.directory.join(SOCKET_FILE))
}

fn say_lines(lines: &[String]) -> io::Result<()> {
    say(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// Writes to the standard output. A reader that has seen enough (`head`) is no error.
fn say(text: &str) -> io::Result<()> {
    match write(text) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn write(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}
