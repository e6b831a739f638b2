//! IKEv2 (RFC 7296): what an end does with messages, commands and time.
//!
//! ```text
//!  engine    all IKE SAs: whose a message is, who may begin, when which is due
//!  ike_sa    one of them: what is asked, what is answered, what waits
//!    sa_init, intermediate, auth, eap, create_child, rekey_ike, followup, informational     the exchanges, a file for each
//!    mobike                            where packets go
//!    id_sync                           which message IDs come next, after a failover
//!    resumption, ticket                who has been there comes back
//!    redirect                          who begins is sent to another gateway
//!    reauth                            who is there, proven anew
//!    proof                             what AUTH payloads prove who an end is by
//!    puzzle, auth_puzzle, cookie       who begins must show that it is there, and work
//!    child, resource                   what is agreed on for a child SA, and for one for each worker
//!    configuration                     addresses that one end has of the other
//!  admission how often who may begin
//!  channel   messages between octets and payloads: IDs, sealing, fragments, what is sent again
//!  kept      IKE SAs that go on in another process
//!  last_answer   what those that are gone have answered last
//! ```
//!
//! Nothing here waits, reads a clock, or sends: [`Context`](context::Context) has what is needed, and takes what is to be done.

mod admission;
mod auth;
mod auth_puzzle;
pub mod channel;
pub mod child;
mod configuration;
pub mod cookie;
mod create_child;
pub mod eap;
pub mod engine;
mod followup;
pub(crate) mod fragments;
mod id_sync;
pub mod ike_sa;
mod informational;
mod intermediate;
pub mod kept;
mod last_answer;
pub mod mobike;
mod ppk;
pub mod proof;
pub mod puzzle;
mod reauth;
pub mod redirect;
pub mod refused;
mod rekey_ike;
mod resource;
mod resumption;
mod rounds;
mod sa_init;
pub mod stranger;
pub mod ticket;
pub mod window;

use crate::contacts;
pub use crate::{context, job, nat, output};

#[cfg(test)]
pub(crate) mod tests;
