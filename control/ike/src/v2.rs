//! IKEv2 (RFC 7296): what an end does with messages, commands and time.

pub mod channel;
pub mod cookie;
mod fragments;
pub mod job;
pub mod nat;
pub mod window;
