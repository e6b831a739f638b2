//! Benchmarks of each hop and of the whole path in memory.
#![deny(missing_docs)]

pub mod chart;
pub mod clock;
pub mod gateway;
pub mod pair;
pub mod results;
pub mod sample;
pub mod staged;
pub mod table;
pub mod traffic;
