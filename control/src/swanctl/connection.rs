//! Sections in `connections`: with whom an IKE SA is, and how it is kept.

use super::{
    authentication::{LocalAuth, RemoteAuth},
    child::Child,
    key::{Key, Kind, Naming, OFF, Objection, Part, key, named, read},
    notation::IkeProposal,
    source::Source,
    value::{Port, Value, range, words},
};
use portcullis_ike::v2::redirect::Gateway;
use portcullis_sadb::Prefix;
use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

words! {
    /// Which IKE is spoken.
    Version {
        /// IKEv2: IKEv1 is for who asks for it by name.
        Any = "0",
        /// IKEv1.
        One = "1",
        /// IKEv2.
        Two = "2",
    }
}

words! {
    /// What is done about messages that do not fit in a packet.
    Fragmentation {
        /// They are cut if the peer can put them together.
        Yes = "yes",
        /// The peer may cut its own.
        Accept = "accept",
        /// The first is cut, too, with IKEv1.
        Force = "force",
        /// The peer is told that we cannot.
        No = "no",
    }
}

words! {
    /// Whether IKE SAs are made without a Child SA (RFC 6023).
    Childless {
        /// If the peer wants to.
        Allow = "allow",
        /// Always.
        Force = "force",
        /// Never.
        Never = "never",
    }
}

words! {
    /// When certificates are sent.
    SendCert {
        /// When the peer asks for some.
        IfAsked = "ifasked",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

words! {
    /// What becomes of several IKE SAs with one peer.
    Unique {
        /// Those before end when the peer says that it has none.
        No = "no",
        /// They stay, whatever the peer says.
        Never = "never",
        /// The new one is refused.
        Keep = "keep",
        /// Those before end.
        Replace = "replace",
    }
}

/// A DSCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dscp(pub u8);

impl Value for Dscp {
    const IS: &'static str = "a DSCP of six binary digits, such as 101110";

    fn parse(text: &str) -> Option<Dscp> {
        let is_binary = text.len() <= 6 && text.bytes().all(|b| b == b'0' || b == b'1');
        is_binary.then(|| u8::from_str_radix(text, 2).ok().map(Dscp))?
    }
}

/// Another gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GatewayName(pub Gateway);

impl Value for GatewayName {
    const IS: &'static str = "addresses or names of gateways";

    fn parse(text: &str) -> Option<GatewayName> {
        text.parse().ok().map(GatewayName)
    }
}

/// Where an end of a connection may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Host {
    /// Anywhere.
    Any,
    /// Anywhere with IPv4.
    Any4,
    /// Anywhere with IPv6.
    Any6,
    /// At one address.
    Address(IpAddr),
    /// At those of a subnet.
    Subnet(Prefix),
    /// From one to another.
    Range(IpAddr, IpAddr),
    /// At those of a name in the DNS.
    Name(String),
}

impl Value for Host {
    const IS: &'static str = "addresses, subnets, ranges or names of hosts, or %any";

    fn parse(text: &str) -> Option<Host> {
        match text {
            "%any" => return Some(Host::Any),
            "%any4" => return Some(Host::Any4),
            "%any6" => return Some(Host::Any6),
            _ => {}
        }
        if let Ok(address) = text.parse() {
            return (!is_of_one_link(text)).then_some(Host::Address(address));
        }
        if text.contains('/') {
            return text.parse().ok().map(Host::Subnet);
        }
        if let Some((first, last)) = range(text) {
            return Some(Host::Range(first, last));
        }
        is_host_name(text).then(|| Host::Name(text.to_owned()))
    }

    fn objection(text: &str) -> Option<String> {
        is_of_one_link(text).then(|| {
            format!("{text} is of one link alone, and which cannot be said here; write one that is routed")
        })
    }
}

/// Whether it is an address that means something on one link alone (RFC 4291 §2.5.6), or has a zone (RFC 4007 §11).
fn is_of_one_link(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    address.parse().is_ok_and(|address: Ipv6Addr| zone.is_some() || address.is_unicast_link_local())
}

/// The last label is none of digits alone, else it is an address with a mistake.
fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_right = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_right) && !label.starts_with('-')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit())
}

/// A connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Connection {
    /// Its section's name.
    pub name: String,
    /// What it was read from.
    pub source: Source,
    /// Which IKE.
    pub version: Version,
    /// Where we are.
    pub local_addrs: Vec<Host>,
    /// Where the peer is.
    pub remote_addrs: Vec<Host>,
    /// Our port.
    pub local_port: Port,
    /// The peer's.
    pub remote_port: Port,
    /// Proposals for the IKE SA.
    pub proposals: Vec<IkeProposal>,
    /// Addresses that we ask the peer for; 0.0.0.0 and :: are any.
    pub vips: Vec<IpAddr>,
    /// Aggressive Mode of IKEv1.
    pub aggressive: bool,
    /// Whether it may be by shared keys, of which whoever asks gets a hash to try guesses on.
    pub aggressive_psk_can_be_guessed_offline: bool,
    /// Whether who wants an address asks for it, with IKEv1.
    pub pull: bool,
    /// The DSCP of IKE's packets.
    pub dscp: Dscp,
    /// Whether ESP is in UDP without a NAT, too.
    pub encap: bool,
    /// MOBIKE.
    pub mobike: bool,
    /// Without a packet for so long, the peer is asked whether it lives; 0 is never.
    pub dpd_delay: Duration,
    /// After so long it counts as dead, with IKEv1; 0 is as for all messages.
    pub dpd_timeout: Duration,
    /// Fragments of IKE's messages.
    pub fragmentation: Fragmentation,
    /// IKE SAs without a child.
    pub childless: Childless,
    /// Whether certificates are asked for.
    pub send_certreq: bool,
    /// When ours are sent.
    pub send_cert: SendCert,
    /// The name of the postquantum preshared key (RFC 8784).
    pub ppk_id: Option<String>,
    /// Whether there must be one.
    pub ppk_required: bool,
    /// How often it is begun before it is given up; 0 is never given up.
    pub keyingtries: u32,
    /// Whether who has begun gets a ticket, and comes back with it (RFC 5723).
    pub resumption: bool,
    /// Whether we go to other gateways that the peer sends us to (RFC 5685).
    pub follow_redirects: bool,
    /// Gateways that peers are sent to which begin.
    pub redirect_to: Vec<GatewayName>,
    /// Several IKE SAs with one peer.
    pub unique: Unique,
    /// Age at which the peers prove again who they are; 0 is never.
    pub reauth_time: Duration,
    /// Age at which another takes its place; [`Connection::rekey`].
    pub rekey_time: Option<Duration>,
    /// How much later it ends if none did; [`Connection::over`].
    pub over_time: Option<Duration>,
    /// How much earlier it may be, at random; [`Connection::rand`].
    pub rand_time: Option<Duration>,
    /// Names of pools that the peer's addresses are from.
    pub pools: Vec<String>,
    /// How we prove who we are, in the order of the rounds. Without any, by a public key.
    pub local: Vec<LocalAuth>,
    /// How the peer does.
    pub remote: Vec<RemoteAuth>,
    /// What is protected.
    pub children: Vec<Child>,
}

const IF_IDS: &str = "there are no XFRM interfaces here; name the device in the children's 'interface'";
const MEDIATION: &str = "there is no mediation here; write the peer's address in remote_addrs";

impl Kind for Connection {
    const KEYS: &'static [Key<Connection>] = &[
        key!(Connection.version = "0"),
        key!(Connection.local_addrs = "%any"),
        key!(Connection.remote_addrs = "%any"),
        key!(Connection.local_port = "500"),
        key!(Connection.remote_port = "500"),
        key!(Connection.proposals = "default"),
        key!(Connection.vips = ""),
        key!(Connection.aggressive = "no"),
        key!(Connection.pull = "yes"),
        key!(Connection.dscp = "000000"),
        key!(Connection.encap = "no"),
        key!(Connection.mobike = "yes"),
        key!(Connection.dpd_delay = "0"),
        key!(Connection.dpd_timeout = "0"),
        key!(Connection.fragmentation = "yes"),
        key!(Connection.childless = "allow"),
        key!(Connection.send_certreq = "yes"),
        key!(Connection.send_cert = "ifasked"),
        key!(Connection.ppk_id = ""),
        key!(Connection.ppk_required = "no"),
        key!(Connection.keyingtries = "1"),
        key!(Connection.unique = "no"),
        key!(Connection.aggressive_psk_can_be_guessed_offline = "no"),
        key!(Connection.resumption = "no"),
        key!(Connection.follow_redirects = "yes"),
        key!(Connection.redirect_to = ""),
        key!(Connection.reauth_time = "0"),
        key!(Connection.rekey_time = ""),
        key!(Connection.over_time = ""),
        key!(Connection.rand_time = ""),
        key!(Connection.pools = ""),
        key!(Connection "if_id_in" ignores &["0"], IF_IDS),
        key!(Connection "if_id_out" ignores &["0"], IF_IDS),
        key!(Connection "mediation" ignores OFF, MEDIATION),
        key!(Connection "mediated_by" ignores &[], MEDIATION),
        key!(Connection "mediation_peer" ignores &[], MEDIATION),
    ];
    const PARTS: &'static [Part<Connection>] = &[
        Part {
            name: "local",
            naming: Naming::Prefix,
            read: |of, name, _, branch| {
                of.local.push(read(name, branch)?);
                of.local.sort_by_key(|auth| auth.round);
                Ok(())
            },
        },
        Part {
            name: "remote",
            naming: Naming::Prefix,
            read: |of, name, _, branch| {
                of.remote.push(read(name, branch)?);
                of.remote.sort_by_key(|auth| auth.round);
                Ok(())
            },
        },
        Part {
            name: "children",
            naming: Naming::Exact,
            read: |of, name, _, branch| {
                of.children = named(name, branch, |name, entry, branch| {
                    let child: Child = read(name, branch)?;
                    Ok(Child { name: entry.name.to_owned(), ..child })
                })?;
                Ok(())
            },
        },
    ];

    fn check(&self, section: &str) -> Result<(), Objection> {
        let Some(child) = self.children.iter().find(|child| child.ah_and_esp) else { return Ok(()) };
        let why = if self.version != Version::One {
            "is of IKEv1 alone: IKEv2 has no SAs of AH and ESP that are used together (RFC 7296 §3.3); write version = 1"
        } else if self.encap {
            "does not go with encap = yes: AH is not in UDP (RFC 3948 §1)"
        } else {
            return Ok(());
        };
        let why = format!("ah_and_esp of the child '{}' {why}", child.name);
        Err(Objection::Contradiction { section: section.to_owned(), why })
    }
}

impl Connection {
    /// Whether there may be IKE SAs: it is not for shunts alone.
    pub fn has_ike(&self) -> bool {
        self.children.is_empty() || self.children.iter().any(|child| !child.mode.is_shunt())
    }

    /// Age at which another IKE SA takes the place of one; 0 is never. If it is not said, it is four hours, or never if
    /// there is a `reauth_time`.
    pub fn rekey(&self) -> Duration {
        let otherwise =
            if self.reauth_time.is_zero() { Duration::from_secs(4 * 3600) } else { Duration::ZERO };
        self.rekey_time.unwrap_or(otherwise)
    }

    /// How much later than either time it ends; if it is not said, a tenth of the longer one.
    pub fn over(&self) -> Duration {
        self.over_time.unwrap_or_else(|| self.rekey().max(self.reauth_time) / 10)
    }

    /// How much earlier than either time, at most; if it is not said, as much as it may be later.
    pub fn rand(&self) -> Duration {
        self.rand_time.unwrap_or_else(|| self.over())
    }
}
