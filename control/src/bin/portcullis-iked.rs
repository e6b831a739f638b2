//! The control process: a thin shell over [`portcullis_control::iked`].

use clap::Parser;
use portcullis_control::{
    ike::keylog::KeyLog,
    iked::{Iked, Request},
    server::Server,
};
use portcullis_machine::{DIRECTORY, explain};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use std::{
    error::Error,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The control process of Portcullis: decides who may talk, and writes the SAs that the datapath uses.
///
/// It can be asked by `portcullis`, and with a swanctl.conf, which may be empty, by `swanctl` and other clients of VICI:
/// on charon.vici in the regions' directory.
///
/// It runs in the foreground, logs to stderr (RUST_LOG chooses what), reads its connections anew on SIGHUP, and stops on
/// SIGTERM or SIGINT. Its SAs stay and carry traffic while it is away; when it comes back it takes them over.
#[derive(Parser)]
#[command(
    name = "portcullis-iked",
    version,
    after_help = "Examples:\n  portcullis-iked --config /etc/portcullis\n  swanctl --list-sas --uri unix:///run/portcullis/charon.vici"
)]
struct Options {
    /// The directory of portcullis.toml, connections.toml and swanctl.conf.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    config: PathBuf,

    /// Write the keys of all SAs of IKE into this directory, as tables of Wireshark. Whoever reads them reads all traffic.
    #[arg(long, value_name = "DIR")]
    keylog: Option<PathBuf>,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{}", explain(&*e));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, stop.clone())?;
    }
    flag::register(SIGHUP, reload.clone())?;
    // Keys have no business in a core dump: neither in a file, nor in a pipe to a program (core(5)), nor in what other
    // processes of the same user can read.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let random = [getrandom::u64()?, getrandom::u64()?];
    let mut iked = Iked::start(&options.config, random)?;
    if let Some(directory) = &options.keylog {
        let failed = |e| format!("--keylog {}: {e}", directory.display());
        let log = KeyLog::open(directory).map_err(failed)?;
        let (ike, sadb) = iked
            .ike()
            .ok_or("--keylog: there is no swanctl.conf, and so no IKE; make one, it may be empty")?;
        ike.log_keys(log, sadb);
    }
    let mut server = Server::listen(iked.directory())?;
    tracing::info!("ready");
    while !stop.load(Ordering::Relaxed) && !iked.is_stopping() {
        server.turn(&mut iked, Duration::from_millis(100));
        iked.turn();
        if reload.swap(false, Ordering::Relaxed)
            && let Err(e) = iked.handle(Request::Reload {})
        {
            tracing::error!("the connections are as before: {e}");
        }
    }
    // What was answered last goes out.
    server.turn(&mut iked, Duration::ZERO);
    tracing::info!("stopped; the SAs stay");
    Ok(())
}
