//! Benchmarks of each hop and of the whole path in memory.
#![deny(missing_docs)]
