//! IKEv1 (RFC 2407, RFC 2408, RFC 2409): what an end does with messages, commands and time, for who speaks nothing newer.
//!
//! ```text
//!  ike_sa        an ISAKMP SA: what is asked, what is answered, what waits
//!    messages        what comes, what is sent, and what is known again
//!    fragments       messages in parts
//!    phase_1         it is made, in either mode
//!    main_mode       phase 1 in six messages
//!    aggressive      phase 1 in three
//!    proof           both ends prove who they are
//!    quick_mode      phase 2: child SAs are made under it
//!    informational   notifications, deletions, and whether the peer is there
//!    transaction     what is asked and set of users and addresses
//!      xauth             behind phase 1, users prove who they are
//!      mode_config       an end gets addresses of the other's pools
//!    times           what it does because of the time
//!  message_ids   which exchanges of phase 2 there were
//!  oakley        what an ISAKMP SA is made of
//!  doi           what child SAs are made of
//!  keys          the keys of both
//!  selector      what child SAs are for
//!  vendor, nat   what the peer can do, and what is between
//! ```
//!
//! All else is that of IKEv2: connections, identities, certificates, child SAs, jobs, outputs, and the engine, which has the
//! ISAKMP SAs beside its own IKE SAs. They are kept over a restart as these are (`ike_sa::kept`).
//!
//! # Dangers
//! IKEv1 is historic (RFC 9395): who begins is not known to be where it says, identities of responders and shared keys of who
//! uses aggressive mode can be tried offline, and what is deleted is not answered. It is only for connections that say so.

mod aggressive;
mod doi;
mod fragments;
pub mod ike_sa;
mod informational;
pub mod keys;
mod main_mode;
mod message_ids;
mod messages;
mod mode_config;
mod nat;
mod oakley;
mod phase_1;
mod proof;
mod quick_mode;
mod selector;
mod times;
mod transaction;
mod vendor;
mod xauth;

pub(crate) use messages::Raw;
pub(crate) use phase_1::{first, refuse_first};

#[cfg(test)]
mod tests;
