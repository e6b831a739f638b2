//! Benchmarks of each hop and of the whole path, in memory.
//!
//! ```sh
//! cargo run --release -p portcullis-benches -- --svg path.svg   # the whole path: portcullis-path --help
//! cargo bench -p portcullis-benches                             # each hop alone
//! ```
//!
//! With all of its 1,000,000 SAs the whole path takes 9 GiB of memory; with `--sas 1,1024,10000,100000` it takes 1 GiB.
#![deny(missing_docs)]

pub mod chart;
pub mod meeting;
pub mod pair;
pub mod path;
pub mod results;
pub mod sample;
pub mod table;
pub mod turns;
