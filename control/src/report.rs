//! What iked tells about itself, on its socket: documented, stable keys.

mod ike;

pub use ike::{
    AroundReport, ChildReport, EventReport, FailureReport, IkeReport, IkeSaReport, PoolReport,
    TransformReport, What,
};

use serde::{Deserialize, Serialize};

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Process.
    pub pid: u32,
    /// Whether the keys are kept out of swap.
    pub keys_locked: bool,
    /// SAs installed.
    pub sas: u32,
    /// Policies installed.
    pub policies: usize,
    /// Octets of iked's own memory that connections, SAs and policies take, beside the regions: what its structures
    /// have room for, between two requests.
    #[serde(default)]
    pub private_bytes: usize,
    /// The connections.
    pub connections: Vec<ConnectionReport>,
    /// The IKE SAs; null without a configuration of IKE.
    #[serde(default)]
    pub ike: Option<IkeReport>,
}

/// A connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Its name.
    pub name: String,
    /// Whether it was not taken down.
    pub up: bool,
    /// Our outer address.
    pub local: String,
    /// The peer's outer address.
    pub remote: String,
    /// The interface whose routes are its selectors, in place of the next two; null if it has none.
    #[serde(default)]
    pub interface: Option<InterfaceReport>,
    /// What is behind us.
    pub local_ts: Vec<String>,
    /// What is behind the peer.
    pub remote_ts: Vec<String>,
    /// What else its packets have in common: `any`, or a protocol with ports or types of messages.
    #[serde(default)]
    pub next_layer: String,
    /// `esp` or `ah`.
    #[serde(default)]
    pub protocol: String,
    /// `tunnel` or `transport`.
    #[serde(default)]
    pub mode: String,
    /// The transform.
    pub algorithm: String,
    /// Always `(hidden)`.
    pub key: String,
    /// The SA that we receive with.
    pub inbound: Option<SaReport>,
    /// The SA that we send with.
    pub outbound: Option<SaReport>,
    /// Other SAs: of classes of traffic, and those that packets asked for.
    #[serde(default)]
    pub pairs: Vec<PairReport>,
    /// What SAs that packets ask for are made of.
    #[serde(default)]
    pub stock: Option<StockReport>,
}

/// Two SAs of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairReport {
    /// DSCPs of what leaves by it; none: of all.
    pub dscp: Vec<u8>,
    /// What it is for, as it goes out, if a packet asked for it and it is in use.
    pub selector: Option<String>,
    /// The SA that we receive with.
    pub inbound: Option<SaReport>,
    /// The SA that we send with.
    pub outbound: Option<SaReport>,
}

/// Keys for SAs that packets ask for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct StockReport {
    /// All that are configured.
    pub pairs: usize,
    /// Those that are or were in an SA.
    pub taken: usize,
    /// How often packets asked for one more than there are, since the connections were last read.
    pub refused: u64,
}

/// An interface whose routes are selectors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Its name.
    pub name: String,
    /// Prefixes that are routed there.
    pub routes: usize,
    /// What is wrong, if anything is.
    pub problem: Option<String>,
}

/// An SA.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SaReport {
    /// Its SPI.
    pub spi: String,
    /// Its slot in the SAD.
    pub slot: u32,
    /// Which SA of that slot.
    pub generation: u64,
    /// Ties it to its policies.
    pub reqid: u32,
    /// Extended sequence numbers.
    pub esn: bool,
    /// In packets.
    pub replay_window: u32,
    /// ESP in UDP.
    pub udp_encap: bool,
    /// Address and port to which the peer has moved, if it has.
    #[serde(default)]
    pub peer: Option<String>,
}
