//! Policies whose SAs get their selectors from packets (RFC 4301 §4.4.1, "populate from packet").
//!
//! Of such a policy an SA is for what the first packet has in some fields, and for what the policy says in the others. It
//! stands under a policy of its own, directly above the one that it was populated from: whatever comes before that comes
//! before it, and nothing comes between them.

use crate::{ABOUT, Flow, PolicyIndex, Prefix, Selector, selector::HAS_PORTS};
use std::ops::BitOr;

/// How a policy is to be populated from packets, or was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Populate {
    /// Neither.
    #[default]
    No,
    /// SAs are for what packets have in these fields.
    From(Fields),
    /// A packet has populated it, and it stands directly above this policy, whose priority it has.
    Above(PolicyIndex),
}

impl Populate {
    /// The fields that are populated from packets.
    pub fn fields(self) -> Fields {
        match self {
            Populate::From(fields) => fields,
            Populate::No | Populate::Above(_) => Fields::NONE,
        }
    }

    /// The policy that it was populated from.
    pub fn above(self) -> Option<PolicyIndex> {
        match self {
            Populate::Above(index) => Some(index),
            Populate::No | Populate::From(_) => None,
        }
    }

    /// Whether fragments have to be put together to see all that is populated.
    pub(crate) fn looks_inside(self) -> bool {
        self.fields().has(Fields::PROTOCOL)
            || self.fields().has(Fields::SRC_PORT)
            || self.fields().has(Fields::DST_PORT)
    }
}

/// Fields of a packet that have their PFP flag set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fields(pub(crate) u8);

impl Fields {
    /// None of them.
    pub const NONE: Fields = Fields(0);
    /// The source address.
    pub const SRC: Fields = Fields(1);
    /// The destination address.
    pub const DST: Fields = Fields(2);
    /// The upper protocol.
    pub const PROTOCOL: Fields = Fields(4);
    /// The source port, or what stands in its place.
    pub const SRC_PORT: Fields = Fields(8);
    /// The destination port, likewise.
    pub const DST_PORT: Fields = Fields(16);

    /// Whether another's fields are all in it.
    pub fn has(self, other: Fields) -> bool {
        self.0 & other.0 == other.0
    }

    /// What a packet has in these fields, and nothing else of it: the same for all packets that one SA would be for. None
    /// if it does not show a port that its protocol has (RFC 4301 §4.4.2.2).
    pub fn of(self, flow: &Flow) -> Option<[u64; ABOUT]> {
        let (source, destination) = (self.has(Fields::SRC_PORT), self.has(Fields::DST_PORT));
        if (source || destination) && flow.ports.is_none() && has_ports(flow.protocol) {
            return None;
        }
        let [a, b, c, d, rest] = flow.words();
        let of = |is_in: bool, word: u64| if is_in { word } else { 0 };
        Some([
            of(self.has(Fields::SRC), a),
            of(self.has(Fields::SRC), b),
            of(self.has(Fields::DST), c),
            of(self.has(Fields::DST), d),
            of(self.has(Fields::PROTOCOL), rest & 0xff)
                | of(source || destination, rest & HAS_PORTS)
                | of(source, rest & 0xffff << 48)
                | of(destination, rest & 0xffff << 32),
        ])
    }
}

impl BitOr for Fields {
    type Output = Fields;

    fn bitor(self, other: Fields) -> Fields {
        Fields(self.0 | other.0)
    }
}

/// Whether packets of a protocol have ports, or what stands in their place (RFC 4301 §4.4.1.1).
pub fn has_ports(protocol: u8) -> bool {
    // ICMP, TCP, UDP, DCCP, ICMPv6, SCTP, Mobility Header, UDP-Lite.
    matches!(protocol, 1 | 6 | 17 | 33 | 58 | 132 | 135 | 136)
}

impl Selector {
    /// What an SA is for that a packet asks for: exactly what the packet has in some fields, and what the policy says in
    /// the others. None if the packet is not for the policy, or does not show a port that its protocol has: it is dropped
    /// (RFC 4301 §4.4.2.2). Of a protocol without ports, no port is asked for.
    pub fn populated(&self, fields: Fields, flow: &Flow) -> Option<Selector> {
        if !self.matches(flow) || fields.of(flow).is_none() {
            return None;
        }
        let host = |addr: std::net::IpAddr| Prefix::new(addr, if addr.is_ipv4() { 32 } else { 128 });
        let mut selector = self.clone();
        if fields.has(Fields::SRC) {
            selector.src = host(flow.src)?;
        }
        if fields.has(Fields::DST) {
            selector.dst = host(flow.dst)?;
        }
        if fields.has(Fields::PROTOCOL) {
            selector.protocol = Some(flow.protocol);
        }
        if let Some((source, destination)) = flow.ports {
            if fields.has(Fields::SRC_PORT) {
                selector.src_ports = source..=source;
            }
            if fields.has(Fields::DST_PORT) {
                selector.dst_ports = destination..=destination;
            }
        }
        Some(selector)
    }
}
