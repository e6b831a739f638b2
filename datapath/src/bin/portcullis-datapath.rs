//! The datapath process: a thin shell over [`portcullis_datapath::gateway`].

use clap::Parser;
use portcullis_datapath::{confine, gateway::Gateway, probe};
use portcullis_machine::{Machine, explain};
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1},
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

/// The packet path of Portcullis: takes packets from the interfaces by AF_XDP, and does IPsec.
///
/// It runs in the foreground, logs to stderr, and stops on SIGTERM or SIGINT: the kernel has the interfaces then, and
/// forwards what it finds there. On SIGUSR1 it stops to be started again: until then, what is protected is dropped.
/// portcullis-iked must have made the regions before.
#[derive(Parser)]
#[command(name = "portcullis-datapath", version)]
struct Options {
    /// The directory of portcullis.toml.
    #[arg(long, value_name = "DIR", default_value = "/etc/portcullis")]
    config: PathBuf,
    /// Does not start, but prints what this interface can do: `driver` or `generic`, `zero-copy` or `copy`.
    /// For a moment it attaches the XDP program and takes the frames of the interface.
    #[arg(long, value_name = "INTERFACE")]
    probe: Option<String>,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let options = Options::parse();
    let result = match &options.probe {
        Some(interface) => probe::run(interface),
        None => run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{}", explain(&*e));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    confine::memory()?;
    let config = Machine::load(&options.config)?;
    let [stop, hand_over] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, stop.clone())?;
    }
    flag::register(SIGUSR1, hand_over.clone())?;
    let gateway = Gateway::start(&config)?;
    let report = &gateway.report;
    for told in
        [&report.huge_pages_fallback, &report.copy_reason, &report.keys_not_locked].into_iter().flatten()
    {
        tracing::warn!("{told}");
    }
    for port in &report.ports {
        let copies = if port.zero_copy { "zero-copy" } else { "copy" };
        tracing::info!("{}: {} mode, {copies}, {} queues", port.interface, port.mode, port.queues);
        if let Some(why) = &port.mode_fallback {
            tracing::warn!("{}: {why}", port.interface);
        }
    }
    tracing::info!("ready: {} workers", report.workers);
    confine::process()?;
    while !stop.load(Ordering::Relaxed) {
        if gateway.is_broken() {
            return Err("a thread has ended; see above".into());
        }
        if hand_over.load(Ordering::Relaxed) {
            gateway.hand_over();
            return Ok(());
        }
        // A signal ends this early; nothing else does.
        std::thread::park_timeout(Duration::from_millis(100));
    }
    gateway.stop();
    Ok(())
}
