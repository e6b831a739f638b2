//! Tools that make and measure traffic: a thin shell over the library.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::{Parser, Subcommand};
use portcullis_datapath::fib::Mac;
use portcullis_perf::{
    accuracy::{Accuracy, EDGES},
    bench::{Bench, pairs::Pair},
    clock::{Machine, seconds, some_seconds},
    forwarder,
    generator::{
        cost,
        flows::{Flows, Ports},
        pace::Pace,
        replay::{Capture, CaptureError, Replay, Timing},
        times::Times,
        writer::Stream,
    },
    interface::{Interfaces, mac, pin},
    path::{self, Report, Tunnel},
    plan,
    sink::Sink,
    source,
    traffic::Mix,
    trial::{Device, Load},
};
use portcullis_sadb::Direction;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Makes and measures traffic over AF_XDP, and the path in memory. Results are one line of JSON.
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
    /// Sends UDP packets, which are stamped where there is room.
    Send {
        /// The interface.
        #[arg(long)]
        interface: String,
        /// MAC address of the next hop.
        #[arg(long, value_parser = mac)]
        dst_mac: Mac,
        /// Source address.
        #[arg(long)]
        src: IpAddr,
        /// Destination address.
        #[arg(long)]
        dst: IpAddr,
        /// Octets of a frame, FCS included; `imix`; or a mix such as `64:28,570:16,1518:4`.
        #[arg(long, default_value = "64")]
        size: Mix,
        /// Flows, by source port.
        #[arg(long, default_value_t = 1)]
        flows: u16,
        /// Frames per second; as fast as it goes by default.
        #[arg(long)]
        rate: Option<f64>,
        /// How long.
        #[arg(long, default_value = "5", value_parser = some_seconds)]
        seconds: Duration,
        /// The number of the run, by which `receive` knows its packets.
        #[arg(long, default_value_t = 1)]
        run: u64,
    },
    /// Sends the frames of a capture, when they were sent then, at a rate, or as fast as it goes.
    Replay {
        /// The interface.
        #[arg(long)]
        interface: String,
        /// The capture, in the pcap format.
        #[arg(long)]
        capture: PathBuf,
        /// So many times as fast as they were sent then.
        #[arg(long, default_value_t = 1.0, conflicts_with_all = ["rate", "at_once"])]
        speed: f64,
        /// Frames per second, whenever they were sent then.
        #[arg(long, conflicts_with = "at_once")]
        rate: Option<f64>,
        /// As fast as it goes.
        #[arg(long)]
        at_once: bool,
        /// How often; with --seconds, as often as there is time for.
        #[arg(long)]
        times: Option<u64>,
        /// How long, at most.
        #[arg(long, value_parser = some_seconds)]
        seconds: Option<Duration>,
        /// MAC address that all go to, from the interface's own; they keep theirs otherwise.
        #[arg(long, value_parser = mac)]
        dst_mac: Option<Mac>,
    },
    /// Counts the packets of `send`, by flow and with their latency, until SIGTERM. Prints a line when it is ready.
    Receive {
        /// The interface.
        #[arg(long)]
        interface: String,
        /// Flows, as `send` has them.
        #[arg(long, default_value_t = 1)]
        flows: u16,
        /// The number of the run.
        #[arg(long, default_value_t = 1)]
        run: u64,
    },
    /// Counts IP packets, until SIGTERM or the time is over. Prints a line when it is ready.
    Sink {
        /// The interface.
        #[arg(long)]
        interface: String,
        /// How long.
        #[arg(long, default_value = "3600", value_parser = seconds)]
        seconds: Duration,
    },
    /// Forwards between two interfaces without IPsec, until SIGTERM. Prints a line when it is ready.
    Forward {
        /// The two interfaces.
        #[arg(long, required = true, num_args = 1)]
        interface: Vec<String>,
    },
    /// Measures this machine.
    Bench {
        #[command(subcommand)]
        bench: Bench,
    },
    /// Says what it takes to carry so much traffic in so many tunnels: cores, ports, memory, boxes.
    Plan(Box<plan::command::Options>),
    /// Measures the generator itself, in memory on one core: frames per second, and what its stamps add to what a gateway
    /// takes for a packet.
    Generator {
        /// Octets of IP packets: 46 fill a frame of 64 with its FCS.
        #[arg(long, default_value_t = 46)]
        octets: u16,
        /// Flows, at random.
        #[arg(long, default_value_t = 1)]
        flows: u32,
        /// How often each is measured, in turns with the others.
        #[arg(long, default_value_t = 301)]
        rounds: usize,
    },
    /// Offers a load to a pair of gateways in memory once, by the device's own clock.
    Trial {
        #[command(flatten)]
        pair: Pair,
        /// Frames per second.
        #[arg(long)]
        load: f64,
        /// How long, by the device's clock.
        #[arg(long, default_value = "1", value_parser = some_seconds)]
        seconds: Duration,
    },
    /// Runs a capture through one worker and one tunnel in memory, over and over, and tells how fast that is. The
    /// tunnel is of AES-GCM-128, without ESN and, since the capture repeats, without a replay window.
    Path {
        /// The capture: clear packets, or with --decap ESP of the tunnel.
        #[arg(long)]
        capture: PathBuf,
        /// Decapsulate.
        #[arg(long)]
        decap: bool,
        /// The tunnel's SPI.
        #[arg(long, default_value_t = 0x1000)]
        spi: u32,
        /// The tunnel's key and salt, in hexadecimal.
        #[arg(long, value_parser = hex, default_value = "000102030405060708090a0b0c0d0e0f10111213")]
        key: Key,
        /// The tunnel's outer source address.
        #[arg(long, default_value = "192.0.2.1")]
        src: Ipv4Addr,
        /// The tunnel's outer destination address.
        #[arg(long, default_value = "192.0.2.2")]
        dst: Ipv4Addr,
        /// How long.
        #[arg(long, default_value = "3", value_parser = some_seconds)]
        seconds: Duration,
        /// Go through the capture once, and write what comes out to this one.
        #[arg(long, value_name = "CAPTURE")]
        write: Option<PathBuf>,
    },
    /// Searches made-up devices, whose rates are known, for NDR and PDR, and tells how far off it was. No time passes.
    Accuracy {
        /// Devices of each kind.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
    },
}

/// Octets of a key.
#[derive(Clone)]
struct Key(Vec<u8>);

fn hex(text: &str) -> Result<Key, String> {
    let octets = text.as_bytes().chunks(2).map(|o| std::str::from_utf8(o).ok().and_then(octet));
    octets.collect::<Option<_>>().map(Key).ok_or_else(|| "not pairs of hexadecimal digits".into())
}

fn octet(digits: &str) -> Option<u8> {
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// Microseconds that so many percent do not exceed.
fn quantiles(times: &Times) -> serde_json::Value {
    let at = |percent: f64| (percent.to_string(), times.at(percent / 100.0).as_secs_f64() * 1e6);
    [50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0].map(at).into_iter().collect()
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Tool::Plan(question) = &options.tool {
        if options.core.is_some() {
            eprintln!(
                "portcullis plan: --core says where to run, and nothing is measured here; --cores says how many a box has"
            );
            return ExitCode::from(plan::command::WRONG);
        }
        return plan(question);
    }
    if let Tool::Bench { bench } = &options.tool {
        return told("bench", pin(options.core).and_then(|()| bench.run(options.core)));
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("portcullis-perf: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what came of it.
fn told(what: &str, outcome: Result<(String, u8), Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok((text, code)) => {
            print!("{text}");
            ExitCode::from(code)
        }
        Err(e) => {
            eprintln!("portcullis {what}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn plan(options: &plan::command::Options) -> ExitCode {
    match options.run() {
        Ok((text, code)) => {
            print!("{text}");
            ExitCode::from(code)
        }
        Err(e) => {
            eprintln!("portcullis plan: {e}");
            ExitCode::from(e.code())
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    // What has no end of its own is ended in order; all else ends at once.
    if matches!(options.tool, Tool::Receive { .. } | Tool::Sink { .. } | Tool::Forward { .. }) {
        for signal in [SIGTERM, SIGINT] {
            flag::register(signal, stop.clone())?;
        }
    }
    pin(options.core)?;
    match &options.tool {
        Tool::Plan(_) | Tool::Bench { .. } => Ok(()),
        Tool::Send { interface, dst_mac, src, dst, size, flows, rate, seconds, run } => {
            if rate.is_some_and(|rate| rate.is_nan() || rate <= 0.0) {
                return Err("--rate is above 0".into());
            }
            let mut interfaces = Interfaces::open(std::slice::from_ref(interface), &[], 1)?;
            let one = Flows::one(*src, *dst);
            let flows =
                Flows { src_ports: Ports { count: *flows, ..one.src_ports }, count: (*flows).into(), ..one };
            let (src_mac, mix) = (interfaces.links[0].mac, size.of_frames());
            let stream =
                Stream { dst_mac: *dst_mac, src_mac, mix, flows, stamped: true, first_flow: 0, run: *run };
            let (sent, late) = source::send(&mut interfaces, &stream, *rate, *seconds)?;
            let seconds = seconds.as_secs_f64();
            println!(
                "{}",
                serde_json::json!({
                    "sent": sent.frames, "refused": sent.refused, "seconds": seconds,
                    "pps": sent.frames as f64 / seconds, "late_us": quantiles(&late),
                })
            );
            interfaces.close()
        }
        Tool::Replay { interface, capture: file, speed, rate, at_once, times, seconds, dst_mac } => {
            for (name, value) in [("speed", Some(*speed)), ("rate", *rate)] {
                if value.is_some_and(|value| !value.is_finite() || value <= 0.0) {
                    return Err(format!("--{name} is above 0").into());
                }
            }
            let told = |e: CaptureError| format!("{}: {e}", file.display());
            let mut capture = Capture::read(file).map_err(told)?;
            let mut interfaces = Interfaces::open(std::slice::from_ref(interface), &[], 1)?;
            let link = &interfaces.links[0];
            capture.fits(link.mtu).map_err(told)?;
            if let Some(dst_mac) = dst_mac {
                capture.lead(*dst_mac, link.mac);
            }
            let cut = capture.cut;
            let timing = |start, hz| match rate {
                _ if *at_once => Timing::AtOnce,
                Some(rate) => Timing::Pace(Pace::new(start, hz, *rate)),
                None => Timing::AsCaptured { speed: *speed, start },
            };
            let times = times.or(if seconds.is_some() { None } else { Some(1) });
            let mut replay = Replay::new(capture, times, Machine::this().hz);
            let (taken, unsent) = source::replay(&mut interfaces, &mut replay, timing, *seconds);
            let (sent, unsent, seconds) = (replay.sent(), u64::from(unsent), taken.as_secs_f64());
            let frames = sent.frames.saturating_sub(unsent);
            println!(
                "{}",
                serde_json::json!({
                    "sent": frames, "refused": sent.refused + unsent, "octets": replay.octets, "cut": cut,
                    "seconds": seconds, "pps": frames as f64 / seconds,
                    "late_us": quantiles(&replay.lateness),
                })
            );
            interfaces.close()
        }
        Tool::Receive { interface, flows, run } => {
            let mut interfaces = Interfaces::open(std::slice::from_ref(interface), &[interface], 1)?;
            println!("{}", serde_json::json!({ "ready": true }));
            let receiver = source::receive(&mut interfaces, (*run, (*flows).into()), &stop);
            let received = receiver.received();
            let tally = received.tally;
            println!(
                "{}",
                serde_json::json!({
                    "frames": received.frames, "foreign": received.foreign, "received": tally.received,
                    "duplicates": tally.duplicates, "reordered": tally.reordered, "stale": tally.stale,
                    "latency_us": quantiles(&receiver.latency),
                })
            );
            interfaces.close()
        }
        Tool::Sink { interface, seconds } => {
            let sink = Sink::open(interface)?;
            println!("{}", serde_json::json!({ "ready": true }));
            let end = Instant::now() + *seconds;
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
            let mut interfaces = Interfaces::open(interface, &[&interface[0], &interface[1]], 1)?;
            println!("{}", serde_json::json!({ "ready": true }));
            let (forwarded, dropped) = forwarder::run(&mut interfaces, &stop);
            println!("{}", serde_json::json!({ "forwarded": forwarded, "dropped": dropped }));
            interfaces.close()
        }
        Tool::Generator { octets, flows, rounds } => {
            let rates = cost::rates(*octets, *flows, *rounds)?;
            let stamps = cost::stamps(*octets, *rounds)?;
            println!(
                "{}",
                serde_json::json!({
                    "where": "in memory", "cpu": Machine::this().cpu, "octets": octets, "flows": flows,
                    "rounds": rounds, "sent_pps": rates.sent, "unstamped_pps": rates.unstamped,
                    "counted_pps": rates.counted, "device_clocks": stamps.stamped,
                    "device_clocks_unstamped": stamps.unstamped, "stamps_add": stamps.added,
                })
            );
            Ok(())
        }
        Tool::Trial { pair, load, seconds } => {
            let mut device = pair.device(0)?;
            let trial = device.trial(Load(*load), *seconds)?;
            let details = device.details();
            println!(
                "{}",
                serde_json::json!({
                    "where": "in memory", "asked": trial.asked(), "sent": trial.sent, "received": trial.received,
                    "loss_ratio": trial.loss_ratio(), "forwarded_pps": trial.forwarding_rate(),
                    "interrupted_turns": details.interrupted, "taken_seconds": trial.taken.as_secs_f64(),
                    "latency_us": quantiles(device.latency()), "late_us": quantiles(device.lateness()),
                })
            );
            Ok(())
        }
        Tool::Path { capture, decap, spi, key, src, dst, seconds, write } => {
            let direction = if *decap { Direction::Inbound } else { Direction::Outbound };
            let tunnel = Tunnel { direction, spi: *spi, key: key.0.clone(), src: *src, dst: *dst };
            let Report { received, sent, drops, elapsed, on_core } = match write {
                Some(out) => path::convert(&tunnel, capture, out)?,
                None => path::measure(&tunnel, capture, *seconds)?,
            };
            let (seconds, core_seconds) = (elapsed.as_secs_f64(), on_core.as_secs_f64());
            println!(
                "{}",
                serde_json::json!({
                    "received": received, "sent": sent, "drops": drops, "seconds": seconds,
                    "core_seconds": core_seconds, "pps": sent as f64 / seconds,
                })
            );
            Ok(())
        }
        Tool::Accuracy { seeds } => {
            for (name, edge) in EDGES {
                let Accuracy { seeds, worst, irregular, trials, taken, longest } =
                    Accuracy::of(edge, *seeds)?;
                println!(
                    "{}",
                    serde_json::json!({
                        "edge": name, "seeds": seeds, "worst": worst, "irregular": irregular, "trials": trials,
                        "seconds": taken.as_secs_f64(), "longest_seconds": longest.as_secs_f64(),
                    })
                );
            }
            Ok(())
        }
    }
}
