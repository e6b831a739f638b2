//! The IPsec packet path: ports, workers, ESP.
#![deny(missing_docs)]

pub mod confine;
pub mod drop;
pub mod fib;
pub mod frame;
pub mod mirror;
pub mod nexthop;
pub mod steering;
