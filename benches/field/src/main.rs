//! Our AEAD among others: ring, aws-lc-rs, RustCrypto and Intel's ipsec-mb, which seal and open the same bursts of
//! ESP-shaped packets in memory, in turn, on one core. What it costs to call each, packet by packet, counts.

mod burst;
mod ciphers;
#[cfg(ipsec_mb)]
mod ipsec_mb;
mod measure;
mod report;

use anyhow::{Context, Result, ensure};
use burst::{LONGEST, Layout};
use clap::Parser;
use measure::{Contest, IMIX, Mix};
use portcullis_datapath::crypto::{HEAD, ICV};
use portcullis_perf::clock::Machine;
use report::{Conditions, Report};
use std::{fs, path::PathBuf};

/// Measures AEADs, in nanoseconds per packet, in memory.
#[derive(Parser)]
#[command(name = "portcullis-field")]
struct Options {
    /// Octets of the texts. A mix (28 of 64, 16 of 570, 4 of 1518) and what it consists of are measured besides.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 128, 576, 1400],
          value_parser = clap::value_parser!(u32).range(1..=LONGEST as i64))]
    lengths: Vec<u32>,
    /// How often each is measured, in turn with all others.
    #[arg(long, default_value_t = 101, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Few lengths, few rounds.
    #[arg(long)]
    quick: bool,
    /// Octets from one packet to the next. Multiples of 4096 put all packets in the same lines of the first cache, as
    /// a gateway's chunks may be.
    #[arg(long, default_value_t = 2048 + 192)]
    stride: usize,
    /// Octets that each text begins behind a cache line: as a gateway's own begin when it seals (14) or opens (50).
    #[arg(long, default_value_t = 14)]
    shift: usize,
    /// Of the mix and the order of all.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The core.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Where to write the results for programs.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        options.lengths = vec![64, 1400];
        options.rounds = options.rounds.min(15);
    }
    let longest = options.lengths.iter().copied().chain(IMIX.map(|(_, len)| len)).max().unwrap_or(0);
    let packet = HEAD + longest as usize + ICV;
    let stride = options.stride.max(packet.next_multiple_of(64));
    ensure!(
        core_affinity::set_for_current(core_affinity::CoreId { id: options.core }),
        "no core {}",
        options.core
    );

    let lengths = options.lengths.iter().map(|len| Mix::Octets(*len));
    let many_keys: Vec<Mix> = lengths.chain([Mix::Imix]).collect();
    let parts = IMIX.map(|(_, len)| Mix::Octets(len)).into_iter().filter(|mix| !many_keys.contains(mix));
    let mixes: Vec<Mix> = parts.chain(many_keys.iter().copied()).collect();

    let machine = Machine::this();
    let layout = Layout { stride, shift: options.shift };
    let mut contest = Contest::new(&layout, &mixes, &many_keys, options.seed)?;
    println!("all seal to the same octets, open them, and refuse what was changed");
    let before = machine.core_hz();
    let cells = contest.measure(options.rounds as usize)?;
    let conditions = Conditions {
        core_hz: [before, machine.core_hz()],
        machine,
        rounds: options.rounds as usize,
        seed: options.seed,
        stride,
        shift: options.shift,
        #[cfg(ipsec_mb)]
        ipsec_mb: Some(ipsec_mb::version()),
        #[cfg(not(ipsec_mb))]
        ipsec_mb: None,
    };
    let report = Report::new(conditions, cells);
    print!("{}", report.text());
    if let Some(path) = options.json {
        let text = format!("{:#}\n", report.json());
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
