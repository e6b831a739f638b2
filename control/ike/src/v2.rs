//! IKEv2 (RFC 7296): what an end does with messages, commands and time.

pub mod channel;
mod fragments;
pub mod window;
