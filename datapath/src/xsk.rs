//! A thin layer over AF_XDP, split as the kernel splits it: rings, and the sockets that they belong to.
//!
//! xsk-rs was tried first: it cannot move a packet's start, take caller-owned memory, or set umem flags.

pub mod map;
pub mod ring;
pub mod socket;
