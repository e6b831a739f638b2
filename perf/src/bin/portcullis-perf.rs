//! Tools that make and measure traffic: a thin shell over the library.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::{Parser, Subcommand};
use portcullis_datapath::fib::Mac;
use portcullis_perf::{
    forwarder,
    interface::{Interfaces, pin},
    sink::Sink,
    source::{self, Stream},
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    error::Error,
    net::Ipv4Addr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Makes and measures traffic over AF_XDP. Results are one line of JSON.
#[derive(Parser)]
#[command(name = "portcullis-perf", version)]
struct Options {
    #[command(subcommand)]
    tool: Tool,
    /// The core to run on.
    #[arg(long, global = true)]
    core: Option<usize>,
}

#[derive(Subcommand)]
enum Tool {
    /// Sends UDP packets.
    Send {
        /// The interface.
        #[arg(long)]
        interface: String,
        /// MAC address of the next hop.
        #[arg(long, value_parser = mac)]
        dst_mac: Mac,
        /// Source address.
        #[arg(long)]
        src: Ipv4Addr,
        /// Destination address.
        #[arg(long)]
        dst: Ipv4Addr,
        /// Octets of a frame, FCS included.
        #[arg(long, default_value_t = 64)]
        size: usize,
        /// Flows.
        #[arg(long, default_value_t = 1)]
        flows: u16,
        /// Frames per second; as fast as it goes by default.
        #[arg(long)]
        rate: Option<u64>,
        /// How long.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
    },
    /// Counts IP packets, until SIGTERM or the time is over. Prints a line when it is ready.
    Sink {
        /// The interface.
        #[arg(long)]
        interface: String,
        /// How long.
        #[arg(long, default_value_t = 3600.0)]
        seconds: f64,
    },
    /// Forwards between two interfaces without IPsec, until SIGTERM. Prints a line when it is ready.
    Forward {
        /// The two interfaces.
        #[arg(long, required = true, num_args = 1)]
        interface: Vec<String>,
    },
}

fn mac(text: &str) -> Result<Mac, String> {
    let octets: Result<Vec<u8>, _> = text.split(':').map(|o| u8::from_str_radix(o, 16)).collect();
    let octets = octets.ok().and_then(|o| o.try_into().ok());
    octets.map(Mac).ok_or_else(|| format!("'{text}' is not a MAC address such as 02:00:00:00:00:01"))
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("portcullis-perf: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, stop.clone())?;
    }
    pin(options.core)?;
    match &options.tool {
        Tool::Send { interface, dst_mac, src, dst, size, flows, rate, seconds } => {
            let mut interfaces = Interfaces::open(std::slice::from_ref(interface), false)?;
            let duration = Duration::from_secs_f64(*seconds);
            let stream = Stream {
                dst_mac: *dst_mac,
                src: *src,
                dst: *dst,
                frame_size: *size,
                flows: *flows,
                rate: *rate,
                duration,
            };
            let sent = source::run(&mut interfaces, &stream);
            println!(
                "{}",
                serde_json::json!({ "sent": sent, "seconds": seconds, "pps": sent as f64 / seconds })
            );
            interfaces.close()
        }
        Tool::Sink { interface, seconds } => {
            let sink = Sink::open(interface)?;
            println!("{}", serde_json::json!({ "ready": true }));
            let end = Instant::now() + Duration::from_secs_f64(*seconds);
            while !stop.load(Ordering::Relaxed) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            println!("{}", serde_json::json!({ "received": sink.packets()? }));
            sink.close()
        }
        Tool::Forward { interface } => {
            if interface.len() != 2 {
                return Err("forward takes --interface twice".into());
            }
            let mut interfaces = Interfaces::open(interface, true)?;
            println!("{}", serde_json::json!({ "ready": true }));
            let (forwarded, dropped) = forwarder::run(&mut interfaces, &stop);
            println!("{}", serde_json::json!({ "forwarded": forwarded, "dropped": dropped }));
            interfaces.close()
        }
    }
}
