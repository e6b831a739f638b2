//! What iked tells of IKE.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// IKE.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IkeReport {
    /// The IKE SAs, the oldest first.
    pub sas: Vec<IkeSaReport>,
    /// What did not come about, the last one first.
    #[serde(default)]
    pub failures: Vec<FailureReport>,
    /// Messages that nothing came of, by why.
    pub refused: BTreeMap<String, u64>,
    /// Pools of addresses for peers.
    #[serde(default)]
    pub pools: Vec<PoolReport>,
}

/// A pool of addresses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PoolReport {
    /// Its name.
    pub name: String,
    /// Its first address.
    pub base: String,
    /// How many there are; 2^64 - 1 where there are more.
    pub size: u64,
    /// Those that peers have.
    pub online: usize,
    /// Those that are free again, and kept for who had them.
    pub offline: usize,
}

/// An IKE SA or a child SA that did not come about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailureReport {
    /// Its connection, if it is known which.
    pub connection: Option<String>,
    /// Its child, if it is about one.
    pub child: Option<String>,
    /// `initiator` or `responder`: what we are.
    pub role: String,
    /// Our address and port.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// Why, with what was offered and what is wanted.
    pub why: String,
    /// How often in the same way.
    pub times: u64,
    /// Seconds since it was so last.
    pub ago_secs: u64,
}

/// As a line, for people.
impl fmt::Display for FailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.connection {
            Some(name) => write!(f, "connection '{name}'")?,
            None => write!(f, "no connection")?,
        }
        if let Some(child) = &self.child {
            write!(f, ", child '{child}'")?;
        }
        write!(f, ", {}, {} to {}: {}", self.role, self.local, self.remote, self.why)
    }
}

/// An IKE SA.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IkeSaReport {
    /// Which IKE it is of: 1 or 2.
    #[serde(default)]
    pub version: u8,
    /// Its number, which no other has while iked runs.
    pub id: u64,
    /// The connection that it is of.
    pub connection: String,
    /// `connecting`, `established`, `replaced`, `closing` or `closed`.
    pub state: String,
    /// `initiator` or `responder`.
    pub role: String,
    /// Our address and port.
    pub local: String,
    /// The peer's.
    pub remote: String,
    /// Who we are, once that is known.
    pub local_id: Option<String>,
    /// Who the peer is, once it has proven that.
    pub remote_id: Option<String>,
    /// Who the peer has proven to be by EAP.
    #[serde(default)]
    pub remote_eap_id: Option<String>,
    /// Whether a postquantum preshared key is mixed into its keys (RFC 8784).
    #[serde(default)]
    pub ppk: bool,
    /// Whether we are behind a NAT.
    #[serde(default)]
    pub nat_local: bool,
    /// Whether the peer is.
    #[serde(default)]
    pub nat_remote: bool,
    /// The initiator's SPI.
    pub initiator_spi: String,
    /// The responder's.
    pub responder_spi: String,
    /// What was agreed on, as a proposal.
    pub proposal: Option<String>,
    /// The same by numbers.
    #[serde(default)]
    pub transforms: Vec<TransformReport>,
    /// Our addresses that the peer has given us.
    #[serde(default)]
    pub local_vips: Vec<String>,
    /// The peer's addresses, of our pools.
    #[serde(default)]
    pub remote_vips: Vec<String>,
    /// Servers of names that the peer has told us of.
    #[serde(default)]
    pub dns: Vec<String>,
    /// Seconds since it is established.
    #[serde(default)]
    pub established_secs: Option<u64>,
    /// Seconds until another takes its place.
    #[serde(default)]
    pub rekey_secs: Option<u64>,
    /// Its child SAs.
    pub children: Vec<ChildReport>,
}

/// A transform (RFC 7296 §3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransformReport {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its number, of its type.
    pub id: u16,
    /// Bits of the key, where they are told.
    pub key_bits: Option<u16>,
}

/// A child SA.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChildReport {
    /// Its name.
    pub name: String,
    /// Its number, which no other child SA has while iked runs; 0 of one that is not installed.
    #[serde(default)]
    pub id: u32,
    /// Ties its SAs to their policies.
    #[serde(default)]
    pub reqid: u32,
    /// The worker that sends by it, of several for the same packets (RFC 9611); nothing if it is for all.
    #[serde(default)]
    pub worker: Option<u8>,
    /// `installed`, or `replaced`: the other is in use, and this one will be deleted.
    #[serde(default)]
    pub state: String,
    /// The SPI that we receive by.
    pub spi_in: String,
    /// The SPI that we send by.
    pub spi_out: String,
    /// `esp` or `ah`.
    #[serde(default)]
    pub protocol: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// ESP in UDP.
    #[serde(default)]
    pub udp_encap: bool,
    /// Extended sequence numbers.
    #[serde(default)]
    pub esn: bool,
    /// What was agreed on, as a proposal.
    pub proposal: String,
    /// The same by numbers.
    #[serde(default)]
    pub transforms: Vec<TransformReport>,
    /// Its SAs of AH, if it is a bundle of those and ESP (RFC 2401 §4.3).
    #[serde(default)]
    pub around: Option<AroundReport>,
    /// What is behind us.
    pub local_ts: Vec<String>,
    /// What is behind the peer.
    pub remote_ts: Vec<String>,
    /// Packets that came by it.
    #[serde(default)]
    pub packets_in: u64,
    /// Their octets, of inner packets.
    #[serde(default)]
    pub bytes_in: u64,
    /// Packets that left by it.
    #[serde(default)]
    pub packets_out: u64,
    /// Their octets, of inner packets.
    #[serde(default)]
    pub bytes_out: u64,
    /// Seconds since it is installed.
    #[serde(default)]
    pub installed_secs: u64,
    /// Seconds until another takes its place.
    #[serde(default)]
    pub rekey_secs: Option<u64>,
    /// Seconds until it ends.
    #[serde(default)]
    pub life_secs: Option<u64>,
}

/// SAs of AH around those of ESP.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AroundReport {
    /// The SPI that we receive by.
    pub spi_in: String,
    /// The SPI that we send by.
    pub spi_out: String,
    /// What was agreed on, as a proposal.
    pub proposal: String,
    /// The same by numbers.
    #[serde(default)]
    pub transforms: Vec<TransformReport>,
}

impl fmt::Display for AroundReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " in AH {}, in {}, out {}", self.proposal, self.spi_in, self.spi_out)
    }
}

/// Something that happened to an IKE SA.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventReport {
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// The number of the IKE SA.
    pub ike_sa: u64,
    /// Its connection.
    pub connection: String,
    /// All of it, for people.
    pub text: String,
    /// The IKE SA as it is then, with the child SAs that it is about and no others.
    pub sa: Option<IkeSaReport>,
    /// Of an IKE SA that has taken the place of another, that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<IkeSaReport>,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// It is begun by us.
    IkeBegun,
    /// It is established.
    IkeUp,
    /// It has taken the place of another.
    IkeReplaced {
        /// The number of that.
        old: u64,
    },
    /// The peer has given us addresses.
    Configured,
    /// We have given the peer addresses.
    Gave,
    /// It is between other addresses (RFC 4555).
    IkeMoved,
    /// It cannot go between others.
    IkeNotMoved,
    /// None has taken its place yet.
    IkeNotReplaced,
    /// The peer sends us to another gateway.
    IkeRedirected {
        /// The number of the IKE SA that is begun with that.
        new: u64,
    },
    /// It is gone, and was never established.
    IkeFailed,
    /// It is gone.
    IkeDown {
        /// Another has its place.
        replaced: bool,
    },
    /// A child SA is up.
    ChildUp {
        /// Its name.
        child: String,
    },
    /// A child SA has taken the place of another.
    ChildReplaced {
        /// Their name.
        child: String,
    },
    /// There is no child SA.
    ChildFailed {
        /// The name that it would have.
        child: String,
    },
    /// A child SA is gone.
    ChildDown {
        /// Its name.
        child: String,
        /// Our SPI.
        spi_in: String,
        /// Another has its place.
        replaced: bool,
    },
}

/// As people read it.
impl fmt::Display for IkeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sas.is_empty() {
            writeln!(f, "no IKE SAs")?;
        }
        for sa in &self.sas {
            let id = |id: &Option<String>| id.clone().unwrap_or_else(|| "?".to_owned());
            writeln!(
                f,
                "IKE SA {} of '{}': {}, {}; {} [{}] to {} [{}]; {}",
                sa.id,
                sa.connection,
                sa.state,
                sa.role,
                sa.local,
                id(&sa.local_id),
                sa.remote,
                id(&sa.remote_id),
                sa.proposal.as_deref().unwrap_or("not agreed yet")
            )?;
            if let Some(user) = &sa.remote_eap_id {
                writeln!(f, "  the peer is {user} by EAP")?;
            }
            for (whose, addresses) in
                [("we have", &sa.local_vips), ("names by", &sa.dns), ("the peer has", &sa.remote_vips)]
            {
                if !addresses.is_empty() {
                    writeln!(f, "  {whose} {}", addresses.join(", "))?;
                }
            }
            for child in &sa.children {
                writeln!(
                    f,
                    "  child '{}' ({}{}): {}; in {}, out {}; {} to {}; {}{}; {} packets in, {} out",
                    child.name,
                    child.state,
                    child.worker.map(|worker| format!(", of worker {worker}")).unwrap_or_default(),
                    child.mode,
                    child.spi_in,
                    child.spi_out,
                    child.local_ts.join(", "),
                    child.remote_ts.join(", "),
                    child.proposal,
                    child.around.as_ref().map(AroundReport::to_string).unwrap_or_default(),
                    child.packets_in,
                    child.packets_out
                )?;
            }
        }
        for failure in &self.failures {
            writeln!(f, "failed {} times, last {} s ago: {failure}", failure.times, failure.ago_secs)?;
        }
        for PoolReport { name, base, size, online, offline } in &self.pools {
            writeln!(
                f,
                "pool '{name}' from {base} on: {online} of {size} given, {offline} kept for who had them"
            )?;
        }
        let refused: Vec<_> = self.refused.iter().map(|(why, n)| format!("{why} {n}")).collect();
        if !refused.is_empty() {
            writeln!(f, "IKE messages dropped: {}", refused.join(", "))?;
        }
        Ok(())
    }
}
