//! IKE as a library without I/O: no sockets, no clock, no randomness of its own, no files, no threads. Time, random
//! octets and keys are arguments. One exception: some nonces of ECDSA are the system's ([`crypto::signature`]).
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod connection;
pub mod crypto;
pub mod eap;
pub mod identity;
pub mod kept;
pub mod message;
pub mod pki;
pub mod pool;
pub mod proposal;
pub mod traffic_selector;
pub mod v2;
