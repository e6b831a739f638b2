//! The control process: connections, policy, and the only writer of the SADB.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod acquire;
pub mod client;
pub mod config;
pub mod connection;
pub mod daemon;
pub mod doctor;
pub mod gateway;
pub mod handling;
pub mod ike;
pub mod iked;
pub mod install;
pub mod interface;
pub mod keying;
pub mod news;
pub mod report;
pub mod routes;
pub mod secret;
pub mod selection;
pub mod server;
pub mod spent;
pub mod state;
pub mod status;
pub mod swanctl;
pub mod table;
pub mod vici;
