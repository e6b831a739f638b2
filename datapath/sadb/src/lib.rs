//! The shared-memory contract between the IKE process and the datapath: SAD, SPD and runtime state.
//!
//! # The law
//! 1. One process writes a region, all others map it read-only: iked writes `sadb`, the datapath `runtime`.
//!    Keys are in `sadb` only; counters and watermarks in `runtime` only.
//! 2. The body of an SA does not change between publish and retire. Publish is a Release store of its
//!    generation; readers pair it with Acquire ([`Reader::copy_sa`] checks it again after the copy). Where the peer of
//!    an SA in UDP is now stands beside the slot ([`Sadb::set_endpoint`]).
//! 3. Retire, then every worker's epoch has passed, then zeroize, then use again ([`Sadb::reclaim`]).
//! 4. Fixed-width integers only. Version and layout hash are checked at attach.
//! 5. Readers take nothing on trust: they copy out, check, and use the copy. The only references into a
//!    region are to atomics.
//! 6. An SPI is found without a lock in one cache line of the index.
//! 7. The SPD changes under its readers, policy by policy. Which SA a policy uses is asked for each packet
//!    ([`Reader::policy_sa`]); it is not part of the SPD's version.
//!
//! [`Sadb`] is iked's end, [`Reader`] and [`Runtime`] are the datapath's, [`RuntimeReader`] is everyone's.
#![deny(missing_docs)]

mod algorithm;
mod epoch;
mod event;
mod handling;
mod index;
#[cfg(all(test, not(loom)))]
mod kill;
mod layout;
#[cfg(all(test, loom))]
mod loom;
mod policy;
mod policy_sa;
mod populate;
mod reader;
mod region;
mod runtime;
mod sa;
mod sa_set;
mod sadb;
mod selector;
mod slot;
mod spd;
mod sync;
mod udp;

pub use algorithm::{Algorithm, Encryption, Integrity, Transform};
pub use event::{ABOUT, EVENTS, Event, EventKind};
pub use handling::{Aggfrag, DfBit, Dscp, Handling, Lifetime, Limits, OUTER_TTL};
pub use layout::{
    BytesPerSa, LAYOUT_HASH, MAX_POLICIES, MAX_SAS, MAX_WORKERS, STEERING_COUNTERS, Sizes, VERSION,
};
pub use policy::{Action, Policy, PolicyHit, PolicyIndex};
pub use populate::{Fields, Populate, has_ports};
pub use reader::{Reader, SADB_FILE, prefetch, prefetch_at};
pub use region::{Guard, RegionError};
pub use runtime::{
    DROP_COUNTERS, PortCounters, RUNTIME_FILE, Runtime, RuntimeReader, SaCounters, SaRecord, SaRuntime,
    Traffic, WorkerRecord, WorkerRuntime,
};
pub use sa::{
    Around, Direction, Generation, Key, Mode, NAME_ROOM, Name, Protocol, REPLAY_WINDOW, Sa, SeqNo, SlotIndex,
    Spi,
};
pub use sa_set::{Classes, DSCPS};
pub use sadb::Sadb;
pub use selector::{ANY_PORT, Flow, OPAQUE_PORT, Prefix, Selector};
pub use spd::MAX_TUPLES;
pub use udp::{Endpoint, UdpEncap};

use thiserror::Error;

/// Why the SADB refuses something.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SadbError {
    /// A field has a value that it cannot have.
    #[error("{field} cannot be {value}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Not an address prefix.
    #[error("'{0}' is not an address or prefix, such as 10.1.0.0/16 or fd00:1::/64")]
    BadPrefix(String),
    /// An inbound SA with this SPI exists.
    #[error("SPI {spi} is in use by connection '{by}'")]
    SpiInUse {
        /// The SPI.
        spi: Spi,
        /// The connection that has it.
        by: String,
    },
    /// No room.
    #[error("the {what} is full: {capacity} entries; raise [regions] max_sas or max_policies")]
    Full {
        /// Which table.
        what: &'static str,
        /// Its size.
        capacity: u32,
    },
    /// A policy with the same direction, selector and priority exists.
    #[error("a policy for {selector} with the same priority exists (number {})", .with.0)]
    Overlap {
        /// The policy that exists.
        with: PolicyIndex,
        /// What both select.
        selector: String,
    },
    /// No SA lives in this slot.
    #[error("no SA in slot {}", .slot.0)]
    NoSuchSa {
        /// The slot.
        slot: SlotIndex,
    },
    /// A policy is to be populated from another, and has not its direction and priority.
    #[error("policy number {} has another direction or priority, or is none", .above.0)]
    NotAbove {
        /// The policy that it is to stand above.
        above: PolicyIndex,
    },
    /// No policy lives in this slot.
    #[error("no policy number {}", .index.0)]
    NoSuchPolicy {
        /// The slot.
        index: PolicyIndex,
    },
}
