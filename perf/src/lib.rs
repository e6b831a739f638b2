//! Traffic generation and measurement.
#![deny(missing_docs)]

pub mod forwarder;
pub mod interface;
pub mod path;
pub mod sink;
pub mod source;
pub mod trial;
