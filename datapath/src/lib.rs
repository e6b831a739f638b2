//! The IPsec packet path: ports, workers, ESP.
#![deny(missing_docs)]

pub use portcullis_crypto as crypto;

pub mod batch;
pub mod classify;
pub mod confine;
pub mod drop;
pub mod esp;
pub mod fib;
pub mod frame;
pub mod gateway;
pub mod general;
pub mod handoff;
pub mod idle;
pub mod inbound;
mod jumbo;
pub mod loan;
pub mod memory;
pub mod meter;
pub mod mirror;
pub mod nexthop;
pub mod outbound;
mod outlets;
pub mod policy;
pub mod pool;
pub mod port;
pub mod probe;
pub mod replay;
pub mod sa;
pub mod steering;
pub mod umem;
#[cfg(test)]
mod verified;
pub mod wire;
pub mod worker;
pub mod xsk;
