//! The general path: packets that are not plain tunnel traffic, each in one linear buffer.
//!
//! What is here works on slices: time is an argument, memory is fixed at the start.

pub mod aggfrag;
pub mod fragment;
pub(crate) mod headers;
pub mod icmp;
pub mod mss;
#[cfg(test)]
mod packets;
pub mod pmtu;
pub mod reassembly;
