//! `connections.toml`: who may talk, and with which keys.
//!
//! ```toml
//! [[connection]]
//! name = "site-b"
//! local = "192.0.2.1"
//! remote = "198.51.100.1"
//! local_ts = ["10.1.0.0/16", "fd00:1::/64"]
//! remote_ts = ["10.2.0.0/16", "fd00:2::5-fd00:2::9"]  # a range becomes prefixes, 64 at most
//! algorithm = "aes-gcm-128"  # or aes-gcm-256, chacha20-poly1305, aes-cbc-256+hmac-sha2-256-128 ...; AH: a MAC
//!
//! # All that follows can be left out. What is shown is the default, if it is not said otherwise.
//! protocol = "esp"           # or "ah"
//! mode = "tunnel"            # or "transport": local and remote are the hosts, local_ts and remote_ts those alone
//! ts_protocol = "tcp"        # or "udp", "icmp", "icmpv6", a number; default: any
//! local_ports = "1024-65535" # or "443", or "opaque": packets that do not show their ports; default: any
//! remote_ports = "443"       # likewise
//! icmp = "8"                 # for ICMP: a type, with its code "8/0", types "0-8", or "opaque"; default: any
//! mobility = "5"             # for Mobility Headers, ts_protocol = 135: a type, types, or "opaque"; default: any
//! esn = true
//! replay_window = 1024       # packets
//! interface = "ipsec0"       # in place of local_ts and remote_ts: see below
//! udp_encap = false
//! udp_ports = [4500, 4500]   # with udp_encap: ours, one of portcullis.toml's udp_encap_ports, and the peer's
//! follow_peer = false        # with udp_encap: the peer is behind a NAT, and is where its newest packet came from
//! nat_keepalive_secs = 20    # with udp_encap: after so many without a packet, one keeps the NAT's mapping alive; 0: never,
//!                            # which is the default with follow_peer: there the NAT is the peer's
//! udp6_zero_checksum = false # with udp_encap over IPv6: packets have no UDP checksum, as over IPv4
//! mtu = 1400                 # octets of an outer packet, at most; default: what the interface has
//! # In the outer header:
//! df = "copy"                # or "set", "clear"
//! dscp = "copy"              # or a number; or dscp_map = { 46 = 46, 0 = 10 }, where others stay the same
//! ecn = true                 # copied to it and back
//! decap_dscp = false         # DSCP is copied back too
//! ttl = 64                   # or "copy"
//! flow_label = false         # a hash of the inner flow, else 0
//! # Otherwise:
//! nested = false             # what it seals is looked up again
//! gre = false                # in transport mode: local_ts and remote_ts are carried in GRE
//! mss = "auto"               # or a number: of TCP connections, at most; default: left as it is
//! tfc_pad = "mtu"            # or a number: payloads are padded to so many octets; default: no padding
//! dummies_per_sec = 0        # while there is nothing to send: as long as tfc_pad, or of any length without
//! idle_secs = 60             # without a packet, then iked is told; default: never
//! populate = ["remote"]      # with a stock of SAs, below: each is for what its first packet has in these; or "local",
//!                            # "protocol", "local_port", "remote_port"; default: each is for all that the connection is
//!
//! [connection.soft]          # optional: from here on another SA should take its place
//! bytes = 1000000000000
//! packets = 1000000000
//! secs = 3000
//!
//! [connection.hard]          # optional: from here on no packet passes
//! secs = 3600
//!
//! [connection.aggfrag]       # optional: packets of one size, whatever is in them (RFC 9347)
//! packet_size = 1400         # octets of an outer packet, all alike; nothing in its header is copied from inside
//! packets_per_sec = 0        # always as many, whatever there is to send; 0: when there is something
//! fragments = true           # inner packets may be cut
//!
//! [connection.inbound]
//! spi = "0x00001001"
//! key = "0x<hex digits of the cipher key, of the integrity key if there is one, then of the salt>"
//!
//! [connection.outbound]
//! spi = "0x00001002"
//! key = "0x..."
//!
//! [[connection.class]]       # optional, up to 7: SAs for some classes of traffic, those above are for all others
//! dscp = [46, 34]            # packets with these leave by its SAs, whose replay windows others do not meet
//! [connection.class.inbound]
//! spi = "0x00001003"
//! key = "0x..."
//! [connection.class.outbound]
//! spi = "0x00001004"
//! key = "0x..."
//!
//! # Instead of inbound, outbound and class: a stock, of which each SA that packets ask for takes the next pair. Both ends
//! # have the same, and take from it in the same order: it stands in the place of IKE.
//! [[connection.sas]]
//! [connection.sas.inbound]
//! spi = "0x00002001"
//! key = "0x..."
//! [connection.sas.outbound]
//! spi = "0x00002002"
//! key = "0x..."
//!
//! [[policy]]                 # optional: what is let through in clear, or dropped
//! name = "dns"
//! action = "bypass"          # or discard
//! src = "10.1.0.0/16"
//! dst = "10.2.0.53/32"
//! protocol = "udp"           # optional
//! dst_ports = "53"           # optional; src_ports, icmp and mobility too
//! priority = 100             # the lowest wins; connections have 1000
//! ```
//!
//! # Routes as selectors
//! With `interface`, a connection has the unicast routes of the kernel's table main that lead to this device for its
//! selectors, as they come and go, by `ip route` or a routing daemon: from any address to the route's prefix, and back.
//! Nothing is reloaded. iked makes the device if it is not there (`interface.rs`), with an MTU of 1400, and
//! `portcullis.toml` must have its other end for a port:
//!
//! ```toml
//! [[port]]
//! interface = "ipsec0-path"
//! ```
//!
//! - Each prefix takes two policies; `[regions] max_policies` of `portcullis.toml` must have room for them.
//! - Of routes the longest prefix decides, in the tunnels' and in all others of table main. They come behind connections
//!   with selectors and have the priorities 2000 (an address) to 2032 (0.0.0.0/0) or 2128 (::/0).
//! - Where a route goes, its traffic goes by what other routes there are, if need be in clear. Where it must not,
//!   a `[[policy]]` with `action = "discard"` and a priority above these says so.
//! - What comes out of the tunnel must be from where its routes lead, as with strict reverse path forwarding. Of a route
//!   with several hops the first that is such a device counts.
//! - The gateway's own packets go through too: give the device an address. Those with a TTL of 1 are let
//!   through; with others the tunnel counts as a hop. Groups (OSPF) and addresses of one link are not routed.
//!
//! # Danger
//! A key of AES-GCM is good for one life of the sequence numbers: two packets with one key and one number give away
//! the authentication key and the XOR of their texts. The numbers used are kept in the regions, so as long as these
//! live a restart of anything is safe. When they are gone, after a reboot for one, the same keys must not be used
//! again (RFC 4106 §2, RFC 8221 §3). No file can know that, so whoever writes keys by hand has to say that he does:
//! [`MANUAL_KEYS`].

use crate::{
    connection::{CONNECTION_PRIORITY, Connection, Exception},
    keying::Keying,
    routes::ROUTE_PRIORITY,
    secret::Secret,
};
use portcullis_machine::strict::{ConfigError, Document, Place};
use portcullis_sadb::{Prefix, Selector};
use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The file, in the configuration directory.
pub const FILE: &str = "connections.toml";
/// The key that says that one knows what manual keys are.
pub const MANUAL_KEYS: &str = "manual_keys_repeat_nonces_when_the_regions_are_lost";

/// Why `connections.toml` cannot be used.
#[derive(Debug, Error)]
pub enum ConnectionsError {
    /// The file, one of its keys or values.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Others may read the keys.
    #[error("{file}: mode {mode:04o} lets others read the keys in it; chmod 600 {file}")]
    Mode {
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Someone else may change the keys.
    #[error("{file}: belongs to user {owner}, who could change its keys; chown it to root or to user {us}")]
    Owner {
        /// The file.
        file: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// Two have one name.
    #[error("{place}: the name '{name}' is taken, at line {}; rename one", .other.line)]
    DuplicateName {
        /// The second.
        place: Place,
        /// The name.
        name: String,
        /// The first.
        other: Place,
    },
    /// Two have one interface.
    #[error(
        "{place}: connection '{name}': interface {interface} is that of connection '{other}'; choose another"
    )]
    DuplicateInterface {
        /// The second.
        place: Place,
        /// Its connection.
        name: String,
        /// The interface.
        interface: String,
        /// The first's connection.
        other: String,
    },
    /// Two SAs have one SPI, and who looks up the one would find the other (RFC 4301 §4.4.2.1).
    #[error(
        "{place}: connection '{name}': {direction}.spi {spi} is in use by connection '{other}'; choose another"
    )]
    DuplicateSpi {
        /// The second.
        place: Place,
        /// Its connection.
        name: String,
        /// `inbound` or `outbound`, behind `class.` or `sas.` where it is theirs.
        direction: &'static str,
        /// The SPI.
        spi: portcullis_sadb::Spi,
        /// The first's connection.
        other: String,
    },
    /// Two SAs have one key.
    #[error(
        "{place}: connection '{name}': {direction}.key is also {other_direction}.key of connection '{other}'; two \
         senders with one key repeat nonces, which breaks AES-GCM (RFC 4106 §3.1): give each direction its own"
    )]
    KeyReused {
        /// The second.
        place: Place,
        /// Its connection.
        name: String,
        /// `inbound` or `outbound`, behind `class.` or `sas.` where it is theirs.
        direction: &'static str,
        /// The first's connection.
        other: String,
        /// `inbound` or `outbound`.
        other_direction: &'static str,
    },
    /// ESP in UDP at a port where the datapath does not look for it.
    #[error(
        "{place}: connection '{name}': udp_ports: ours, {port}, is none of udp_encap_ports = {ports:?} in [datapath] of \
         portcullis.toml; add it there and start portcullis-datapath anew, or choose one of them"
    )]
    UdpPort {
        /// The connection.
        place: Place,
        /// Its name.
        name: String,
        /// Its own port.
        port: u16,
        /// The machine's.
        ports: Vec<u16>,
    },
    /// Packets that two would match, at one priority.
    #[error(transparent)]
    Overlap(#[from] Box<Overlap>),
}

/// Packets that two would match, at one priority.
#[derive(Debug, Error)]
#[error(
    "{place}: {name} overlaps {other}: {selector} and {other_selector} have packets in common and the same priority, \
     {priority}; make them disjoint{}", if *priority == CONNECTION_PRIORITY { "" } else { ", or give one another priority" }
)]
pub struct Overlap {
    /// The second.
    pub place: Place,
    /// `connection 'NAME'` or `policy 'NAME'`.
    pub name: String,
    /// The first.
    pub other: String,
    /// What the second selects.
    pub selector: String,
    /// What the first selects.
    pub other_selector: String,
    /// Of both.
    pub priority: u32,
}

/// `connections.toml`, checked.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// It says that manual keys are known to be dangerous.
    pub manual_keys_acknowledged: bool,
    /// The connections, in the order of the file.
    pub connections: Vec<Connection>,
    /// The other policies, in the order of the file.
    pub exceptions: Vec<Exception>,
}

impl Connections {
    /// Octets that they have on the heap.
    pub(crate) fn heap_octets(&self) -> usize {
        let connections = self.connections.iter().map(Connection::heap_octets).sum::<usize>();
        let exceptions = self.exceptions.iter().map(|e| e.name.capacity() + e.place.file.capacity());
        self.connections.capacity() * size_of::<Connection>()
            + self.exceptions.capacity() * size_of::<Exception>()
            + connections
            + exceptions.sum::<usize>()
    }

    /// Reads the file in a configuration directory.
    ///
    /// # Errors
    /// [`ConnectionsError`] says where what is wrong.
    pub fn load(directory: &Path) -> Result<Connections, ConnectionsError> {
        let file = directory.join(FILE);
        let read = |source: io::Error| ConfigError::Read { file: file.clone(), source };
        let metadata = fs::metadata(&file).map_err(read)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(ConnectionsError::Mode { file, mode });
        }
        let us = rustix::process::geteuid().as_raw();
        if ![0, us].contains(&metadata.uid()) {
            return Err(ConnectionsError::Owner { file, owner: metadata.uid(), us });
        }
        Connections::parse(&Document::read(file)?)
    }

    /// Takes a document for that file.
    ///
    /// # Errors
    /// As [`Connections::load`].
    pub fn parse(document: &Document) -> Result<Connections, ConnectionsError> {
        let mut top = document.parse()?;
        let manual_keys_acknowledged = match top.optional(MANUAL_KEYS)? {
            Some(value) => value.flag()?,
            None => false,
        };
        let connections =
            top.tables("connection")?.into_iter().map(Connection::parse).collect::<Result<_, _>>()?;
        let exceptions = top.tables("policy")?.into_iter().map(Exception::parse).collect::<Result<_, _>>()?;
        top.finish()?;
        let checked = Connections { manual_keys_acknowledged, connections, exceptions };
        checked.check_names()?;
        checked.check_interfaces()?;
        checked.check_spis()?;
        checked.check_overlaps()?;
        checked.check_keys()?;
        Ok(checked)
    }

    /// Refuses ESP in UDP at ports that the machine's configuration does not have.
    ///
    /// # Errors
    /// [`ConnectionsError::UdpPort`] names the first such connection.
    pub fn check_udp_ports(&self, ports: &[u16]) -> Result<(), ConnectionsError> {
        let own = |c: &Connection| c.udp.map(|udp| udp.src_port).filter(|port| !ports.contains(port));
        match self.connections.iter().find_map(|c| Some((c, own(c)?))) {
            Some((c, port)) => {
                let (place, name, ports) = (c.place.clone(), c.name.clone(), ports.to_vec());
                Err(ConnectionsError::UdpPort { place, name, port, ports })
            }
            None => Ok(()),
        }
    }

    /// The connection of that name.
    pub fn find(&self, name: &str) -> Option<&Connection> {
        self.connections.iter().find(|c| c.name == name)
    }

    fn check_names(&self) -> Result<(), ConnectionsError> {
        let mut seen: HashMap<&str, &Place> = HashMap::new();
        let connections = self.connections.iter().map(|c| (&c.name, &c.place));
        for (name, place) in connections.chain(self.exceptions.iter().map(|e| (&e.name, &e.place))) {
            if let Some(other) = seen.insert(name, place) {
                let (place, name, other) = (place.clone(), name.clone(), other.clone());
                return Err(ConnectionsError::DuplicateName { place, name, other });
            }
        }
        Ok(())
    }

    /// Interfaces whose routes are selectors.
    pub fn interfaces(&self) -> impl Iterator<Item = &String> {
        self.connections.iter().filter_map(|c| c.interface.as_ref())
    }

    fn check_interfaces(&self) -> Result<(), ConnectionsError> {
        let of_routes = ROUTE_PRIORITY..=ROUTE_PRIORITY + 128;
        let has_interface = self.interfaces().next().is_some();
        if let Some(e) = self.exceptions.iter().find(|e| has_interface && of_routes.contains(&e.priority)) {
            let (first, last) = of_routes.into_inner();
            let why = format!(
                "policy '{}': priority = {} is one of those that routes have, {first} to {last}; choose another",
                e.name, e.priority
            );
            return Err(ConfigError::Contradiction { place: e.place.clone(), why }.into());
        }
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for c in &self.connections {
            let Some(interface) = &c.interface else { continue };
            if let Some(other) = seen.insert(interface, &c.name) {
                return Err(ConnectionsError::DuplicateInterface {
                    place: c.place.clone(),
                    name: c.name.clone(),
                    interface: interface.clone(),
                    other: other.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Inbound SAs are found by SPI alone; peers find theirs by our SPI, each peer by itself.
    fn check_spis(&self) -> Result<(), ConnectionsError> {
        let mut seen: HashMap<(u32, Option<IpAddr>), &str> = HashMap::new();
        for c in &self.connections {
            let both = c.keys.pairs().flat_map(|pair| {
                let peers = [None, Some(c.remote)];
                pair.directions().into_iter().zip(peers).map(move |(direction, peer)| (pair, direction, peer))
            });
            for (pair, (direction, keying), peer) in both {
                if let Some(other) = seen.insert((keying.spi.0, peer), &c.name) {
                    return Err(ConnectionsError::DuplicateSpi {
                        place: pair.place.clone(),
                        name: c.name.clone(),
                        direction,
                        spi: keying.spi,
                        other: other.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Keys with the same salt or not: the same first key under another salt is the same mistake.
    fn check_keys(&self) -> Result<(), ConnectionsError> {
        let mut seen: HashMap<Secret, (&str, &'static str)> = HashMap::new();
        for c in &self.connections {
            let first_key = |k: &Keying| Secret::copy_of(&k.key.bytes()[..c.algorithm.first_key_len()]);
            let all = c.keys.pairs().flat_map(|pair| pair.directions().map(|direction| (pair, direction)));
            for (pair, (direction, keying)) in all {
                if let Some((other, other_direction)) = seen.insert(first_key(keying), (&c.name, direction)) {
                    return Err(ConnectionsError::KeyReused {
                        place: pair.place.clone(),
                        name: c.name.clone(),
                        direction,
                        other: other.to_owned(),
                        other_direction,
                    });
                }
            }
        }
        Ok(())
    }

    /// Looks at what goes out only: what comes in is the same the other way round.
    fn check_overlaps(&self) -> Result<(), ConnectionsError> {
        let connections = self.connections.iter().flat_map(|c| {
            c.selectors().map(move |selector| Selected {
                of: format!("connection '{}'", c.name),
                place: &c.place,
                priority: CONNECTION_PRIORITY,
                selector,
            })
        });
        let exceptions = self.exceptions.iter().map(|e| Selected {
            of: format!("policy '{}'", e.name),
            place: &e.place,
            priority: e.priority,
            selector: e.selector.clone(),
        });
        let mut all: Vec<Selected<'_>> = connections.chain(exceptions).collect();
        // Prefixes are disjoint or one is in the other. In this order, those that hold the next one's destination are
        // on the stack.
        all.sort_by_key(|s| (s.priority, s.selector.dst.addr(), s.selector.dst.len()));
        let mut holders: Vec<&Selected<'_>> = Vec::new();
        for next in &all {
            while holders
                .last()
                .is_some_and(|h| h.priority != next.priority || !covers(&h.selector.dst, &next.selector.dst))
            {
                holders.pop();
            }
            if let Some(other) = holders.iter().find(|h| intersect(&h.selector, &next.selector)) {
                let (first, second) =
                    if other.place.line <= next.place.line { (*other, next) } else { (next, *other) };
                return Err(Box::new(Overlap {
                    place: second.place.clone(),
                    name: second.of.clone(),
                    other: first.of.clone(),
                    selector: second.selector.to_string(),
                    other_selector: first.selector.to_string(),
                    priority: next.priority,
                })
                .into());
            }
            holders.push(next);
        }
        Ok(())
    }
}

struct Selected<'a> {
    of: String,
    place: &'a Place,
    priority: u32,
    selector: Selector,
}

fn covers(outer: &Prefix, inner: &Prefix) -> bool {
    outer.len() <= inner.len() && outer.contains(inner.addr())
}

/// Whether one packet can match both.
fn intersect(a: &Selector, b: &Selector) -> bool {
    let prefixes = |a: &Prefix, b: &Prefix| covers(a, b) || covers(b, a);
    let ports = |a: &std::ops::RangeInclusive<u16>, b: &std::ops::RangeInclusive<u16>| {
        // Opaque is an empty range, which only itself and all ports have in common with it.
        a == b || a.start() <= b.end() && b.start() <= a.end()
    };
    let protocols = match (a.protocol, b.protocol) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    prefixes(&a.src, &b.src)
        && prefixes(&a.dst, &b.dst)
        && protocols
        && ports(&a.src_ports, &b.src_ports)
        && ports(&a.dst_ports, &b.dst_ports)
}

#[cfg(test)]
mod tests;
