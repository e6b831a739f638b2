//! Traffic generation and measurement.
#![deny(missing_docs)]

pub mod accuracy;
pub mod bench;
pub mod clock;
pub mod clocks;
pub mod device;
pub mod forwarder;
pub mod gateway;
pub mod generator;
#[cfg(feature = "ike")]
pub mod initiators;
pub mod interface;
pub mod path;
pub mod plan;
pub mod report;
pub mod search;
pub mod simulated;
pub mod sink;
pub mod soak;
pub mod source;
pub mod traffic;
pub mod trial;
pub mod wire;
