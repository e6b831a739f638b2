//! The control process: a thin shell over [`portcullis_control::iked`].

use clap::Parser;
use portcullis_control::{
    iked::{Iked, SOCKET_FILE},
    server::Server,
};
use portcullis_machine::{Machine, explain};
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
/// It runs in the foreground, logs to stderr, reads its connections anew on SIGHUP, and stops on SIGTERM or
/// SIGINT. Established SAs stay and carry traffic while it is away.
#[derive(Parser)]
#[command(name = "portcullis-iked", version)]
struct Options {
    /// The directory of portcullis.toml and connections.toml.
    #[arg(long, value_name = "DIR", default_value = "/etc/portcullis")]
    config: PathBuf,
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
    // Keys have no business in a core dump of ours either.
    rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    )?;
    let random = [getrandom::u64()?, getrandom::u64()?];
    let mut iked = Iked::start(&options.config, random)?;
    let path = Machine::load(&options.config)?.regions.directory.join(SOCKET_FILE);
    let mut server = Server::listen(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    tracing::info!("ready");
    while !stop.load(Ordering::Relaxed) {
        server.turn(&mut iked, Duration::from_millis(100));
        iked.turn();
        if reload.swap(false, Ordering::Relaxed) {
            tracing::info!("reload: {:?}", iked.answer("{\"command\": \"reload\"}"));
        }
    }
    Ok(())
}
