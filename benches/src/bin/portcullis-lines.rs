//! What a cache line at random costs on this core, by how much memory they are of: what limits a path with many SAs.
#![allow(clippy::print_stdout)]

use portcullis_datapath::memory::Table;
use portcullis_perf::{clock, traffic::Random};
use portcullis_sadb::prefetch;
use std::hint::black_box;

/// One cache line.
#[derive(Clone)]
#[repr(align(64))]
struct Line(u8);

/// Lines that are asked for together.
const TOGETHER: usize = 64;
const ROUNDS: usize = 4000;

fn main() {
    println!(
        "clocks for each of {TOGETHER} independent lines on huge pages, asked for and then read; and only read"
    );
    for mebibytes in [1u32, 4, 8, 16, 32, 64, 256] {
        let lines = mebibytes << 14;
        let (table, mut random) = (Table::filled(lines as usize, Line(1)), Random::new(1));
        let (mut clocks, mut sum) = ([0, 0], 0u64);
        for round in 0..2 * ROUNDS {
            let at: [usize; TOGETHER] = std::array::from_fn(|_| random.below(lines) as usize);
            let start = clock::now();
            if round % 2 == 0 {
                at.iter().for_each(|i| prefetch(&table[*i]));
            }
            sum += at.iter().map(|i| table[*i].0 as u64).sum::<u64>();
            black_box(sum);
            clocks[round % 2] += clock::now() - start;
        }
        let each = |clocks: u64| clocks as f64 / (ROUNDS * TOGETHER) as f64;
        println!("{mebibytes:4} MiB: {:5.1} {:5.1}", each(clocks[0]), each(clocks[1]));
    }
}
