//! IKE without I/O: no sockets, no clock, no randomness. Time, random octets and keys are arguments.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod message;
