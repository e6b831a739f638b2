//! IKE as a library without I/O: no sockets, no clock, no randomness of its own, no files, no threads. Time, random
//! octets and keys are arguments. One exception: some nonces of ECDSA are the system's ([`crypto::signature`]).
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod child;
pub mod closed;
pub mod connection;
mod contacts;
pub mod context;
pub mod crypto;
pub mod eap;
pub mod given;
pub mod identity;
pub mod ike_sa;
pub mod job;
pub mod kept;
pub mod message;
pub mod nat;
pub mod output;
pub mod pki;
pub mod pool;
pub mod proof;
pub mod proposal;
pub mod retransmission;
pub mod traffic_selector;
pub mod v1;
pub mod v2;
