//! The whole path in memory, hop by hop: a thin shell over the library.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use portcullis_benches::{
    chart,
    pair::{Arrival, Pair, Stock},
    path::PART,
    results::{Conditions, Results, Way},
    table::{self, thousands},
    turns::Gauge,
};
use portcullis_datapath::{
    crypto::Aead,
    pool::FramePool,
    umem::{HugePages, Umem},
};
use portcullis_perf::{
    clock::{self, Machine},
    gateway::Setup,
    traffic::{Random, SIZES, Size},
};
use portcullis_sadb::Algorithm;
use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Chunks in the caches of the workers of a pair, on each core.
const CACHED: u32 = 512;
/// Chunks besides: what jumbo packets want more than one of.
const MORE_CHUNKS: u32 = 4096;

/// Parts of a round that are measured, and those before them that bring back into the caches what the pair before
/// has pushed out.
const PARTS: usize = 3;
const WARM_PARTS: usize = 4;

/// Measures what each hop of the packet path costs, in clocks per packet, in memory.
#[derive(Parser)]
#[command(name = "portcullis-path", version)]
struct Options {
    /// Octets of clear IP packets, or `imix`.
    #[arg(long, value_delimiter = ',', default_values_t = SIZES)]
    sizes: Vec<Size>,
    /// SAs, hit at random.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1024, 10_000, 100_000, 1_000_000],
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sas: Vec<u32>,
    /// Which half of the way.
    #[arg(long, value_delimiter = ',', default_values = ["encap", "decap"])]
    direction: Vec<Way>,
    /// Workers of each gateway.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: Vec<u32>,
    /// At which worker packets arrive.
    #[arg(long, default_value = "random")]
    arrival: Arrival,
    /// Milliseconds that workers are busy, each time that their throughput is measured: 0 for never. One worker's is
    /// only measured for others to be compared with.
    #[arg(long, default_value_t = 10)]
    busy_ms: u64,
    /// Not the hops one by one, which want a pair of gateways of their own.
    #[arg(long, conflicts_with = "svg")]
    no_hops: bool,
    /// How often each is measured, in turns with all others.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Few sizes, few SAs, few rounds.
    #[arg(long)]
    quick: bool,
    /// What packets are sealed with.
    #[arg(long, default_value = "aes-gcm-128")]
    algorithm: Cipher,
    /// Octets of a chunk of the umem.
    #[arg(long, default_value_t = 4096)]
    frame_size: u16,
    /// Not even if there are enough huge pages for the umem.
    #[arg(long)]
    no_huge_pages: bool,
    /// Of the flows and SAs picked.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first core; more workers take the next ones.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Where to write the results for programs.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write the results as a picture.
    #[arg(long)]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Cipher {
    #[value(name = "aes-gcm-128")]
    AesGcm128,
    #[value(name = "aes-gcm-256")]
    AesGcm256,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        (options.sizes, options.sas) = (vec![Size::Octets(64), Size::Octets(1400)], vec![1, 1024]);
        (options.rounds, options.busy_ms) = (options.rounds.min(7), options.busy_ms.min(5));
    }
    let algorithm = match options.algorithm {
        Cipher::AesGcm128 => Algorithm::AES_GCM_128,
        Cipher::AesGcm256 => Algorithm::AES_GCM_256,
    };
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let cores: Vec<usize> = cores.iter().map(|c| c.id).filter(|c| *c >= options.core).collect();
    let most = options.workers.iter().max().map_or(1, |n| *n as usize);
    ensure!(cores.len() >= most, "{most} workers want as many cores from {} on", options.core);

    let lanes = (1 + options.workers.iter().sum::<u32>()) * options.sas.len() as u32;
    let chunks = (most * PART) as u32 + lanes * CACHED + MORE_CHUNKS;
    let pages = if options.no_huge_pages { HugePages::Off } else { HugePages::Auto };
    let (umem, told) = Umem::new(chunks, options.frame_size, pages)?;
    let pool = FramePool::new(umem);
    let conditions = Conditions {
        machine: Machine::this(),
        seed: options.seed,
        rounds: options.rounds,
        algorithm,
        crypto: Aead::best().name(),
        frame_size: options.frame_size,
        huge_pages: told.is_none() && pages != HugePages::Off,
        arrival: options.arrival,
    };
    println!("{}", conditions.line());

    let mut stock: Stock = (0..most).map(|_| vec![]).collect();
    let mut pairs = vec![];
    for &sas in &options.sas {
        let (start, (before, _)) = (Instant::now(), clock::memory());
        let metered = (!options.no_hops).then_some((1, true));
        let metered = metered.into_iter().chain(options.workers.iter().map(|n| (*n, false)));
        for (workers, metered) in metered {
            let setup = Setup { sas, workers, metered, algorithm, aead: Aead::best(), nat_t: false };
            pairs.push(Pair::new((setup, options.arrival), (&pool, &mut stock), &cores, options.seed)?);
        }
        let megabytes = (clock::memory().0 - before) >> 20;
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{} SAs: {megabytes} MiB for all pairs of gateways, {seconds:.1} s", thousands(sas));
    }
    let Options { direction, sas, sizes, workers, rounds, .. } = options;
    let busy = (most > 1).then_some(Duration::from_millis(options.busy_ms)).filter(|busy| !busy.is_zero());
    let mut results = Results::new(conditions, direction, sas, sizes.clone(), workers);
    let (mut order, start) = (Random::new(options.seed), Instant::now());
    for round in 1..=rounds {
        // What comes before it must not count for or against any of them.
        order.shuffle(&mut pairs);
        for (i, size) in sizes.iter().enumerate() {
            for pair in &mut pairs {
                measure(pair, (i, *size), busy, &mut stock, &mut results)?;
            }
        }
        eprintln!("round {round} of {rounds}, {:.0} s", start.elapsed().as_secs_f64());
    }
    println!("{}", table::draw(&results));
    println!("{} MiB of memory at most", clock::memory().1 >> 20);
    if let Some(path) = options.json {
        let text = format!("{:#}\n", results.json());
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if let Some(path) = options.svg {
        fs::write(&path, chart::draw(&results)).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// One round of a pair, with packets of the size with this index.
fn measure(
    pair: &mut Pair,
    (i, size): (usize, Size),
    busy: Option<Duration>,
    stock: &mut Stock,
    results: &mut Results,
) -> Result<()> {
    let Setup { sas, workers, metered, .. } = pair.setup;
    pair.warm(stock)?;
    for _ in 0..WARM_PARTS {
        pair.run(size, Gauge::Clocks, stock)?;
    }
    if workers == 1 {
        for _ in 0..PARTS {
            results.add(sas, i, if metered { 0 } else { 1 }, &pair.run(size, Gauge::Clocks, stock)?);
        }
    }
    if let Some(busy) = busy.filter(|_| !metered) {
        results.add_rate(sas, i, workers, &pair.run_for(size, busy, stock)?);
    }
    Ok(())
}
