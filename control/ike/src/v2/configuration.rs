//! Configuration payloads (RFC 7296 §2.19, §3.15): addresses for one end, of pools of the other.
//!
//! ```text
//!  initiator                                                 responder
//!  IKE_AUTH  CP(CFG_REQUEST: address, DNS), TSi: all  ──▶
//!                              ◀──  CP(CFG_REPLY: address, DNS, subnets ...), TSi: that address
//! ```
//!
//! Addresses stay with what takes the place of an IKE SA, and go back to their pools at its end.

use super::{child::ChildError, context::Context, ike_sa::IkeSa, output::Event, rekey_ike::Legacy};
use crate::{
    connection::Connection,
    kept::keep,
    message::{
        Configuration, ConfigurationAttribute, ConfigurationAttributeType as Kind, ConfigurationType,
        Payload, Payloads,
    },
    pool::{Applicant, Lease},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that an end is given, at most, and servers of names that are kept.
const MOST: usize = 4;

/// What requests may have of ours (RFC 7296 §3.15.1).
const SUPPORTED: [Kind; 9] = [
    Kind::INTERNAL_IP4_ADDRESS,
    Kind::INTERNAL_IP4_NETMASK,
    Kind::INTERNAL_IP4_DNS,
    Kind::INTERNAL_IP4_NBNS,
    Kind::INTERNAL_IP4_DHCP,
    Kind::INTERNAL_IP4_SUBNET,
    Kind::INTERNAL_IP6_ADDRESS,
    Kind::INTERNAL_IP6_DNS,
    Kind::INTERNAL_IP6_SUBNET,
];

/// What one end has given to the other.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Our addresses, of the peer's pools.
    pub ours: Vec<IpAddr>,
    /// Servers of names that the peer has told us of.
    pub dns: Vec<IpAddr>,
    /// The peer's addresses, of our pools.
    pub theirs: Vec<Lease>,
}

/// What `dynamic` stands for at both ends of a child SA.
#[derive(Debug)]
pub(super) struct Hosts {
    /// At our end.
    pub local: Vec<IpAddr>,
    /// At our end, as long as it has to be asked for: all of a family.
    pub asked: Vec<IpAddr>,
    /// At the peer's.
    pub peer: Vec<IpAddr>,
}

/// Any address of a family.
fn any_like(address: &IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// What an address is asked for with, and servers of names.
fn kinds(address: &IpAddr) -> [Kind; 2] {
    match address {
        IpAddr::V4(_) => [Kind::INTERNAL_IP4_ADDRESS, Kind::INTERNAL_IP4_DNS],
        IpAddr::V6(_) => [Kind::INTERNAL_IP6_ADDRESS, Kind::INTERNAL_IP6_DNS],
    }
}

/// The addresses that a peer asks for, or is given. One in a request may be left out, or be of no length that there is.
fn addresses(configuration: &Configuration) -> impl Iterator<Item = IpAddr> {
    let of = |attribute: &ConfigurationAttribute| match attribute.kind {
        Kind::INTERNAL_IP4_ADDRESS => {
            Some(attribute.address().filter(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
        }
        Kind::INTERNAL_IP6_ADDRESS => {
            Some(attribute.address().filter(IpAddr::is_ipv6).unwrap_or(Ipv6Addr::UNSPECIFIED.into()))
        }
        _ => None,
    };
    configuration.attributes.iter().filter_map(of).take(MOST)
}

/// The attributes of a peer's payload of a kind.
fn said(payloads: &Payloads, kind: ConfigurationType) -> Option<&Configuration> {
    payloads.configuration().filter(|configuration| configuration.kind == kind)
}

impl IkeSa {
    /// What the ends have given to each other.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// What `dynamic` stands for.
    pub(super) fn hosts(&self) -> Hosts {
        let or = |given: Vec<IpAddr>, outer: IpAddr| if given.is_empty() { vec![outer] } else { given };
        let local = or(self.given.ours.clone(), self.path.local.ip());
        let peer = or(self.given.theirs.iter().map(|lease| lease.address).collect(), self.path.peer.ip());
        Hosts { asked: local.clone(), local, peer }
    }

    /// The same of an initiator that has still to ask for an address.
    pub(super) fn hosts_asking(&self) -> Hosts {
        let mut hosts = self.hosts();
        if !self.connection.vips.is_empty() {
            hosts.asked = self.connection.vips.iter().map(any_like).collect();
            hosts.asked.dedup();
        }
        hosts
    }

    /// An initiator asks for addresses, and for servers of names.
    pub(super) fn configuration_request(&self) -> Option<Payload> {
        let vips = &self.connection.vips;
        let of = |vip: &IpAddr| match vip.is_unspecified() {
            true => ConfigurationAttribute::asking(kinds(vip)[0]),
            false => ConfigurationAttribute::of_address(kinds(vip)[0], *vip),
        };
        let mut attributes: Vec<_> = vips.iter().map(of).collect();
        let families = [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is| vips.iter().find(|vip| is(vip)));
        attributes
            .extend(families.into_iter().flatten().map(|vip| ConfigurationAttribute::asking(kinds(vip)[1])));
        let request = Configuration { kind: ConfigurationType::CFG_REQUEST, attributes };
        (!vips.is_empty()).then_some(Payload::Configuration(request))
    }

    /// An initiator hears what it is given. What it has not asked for, it does not take: no more of a family than it wants,
    /// and no address that it has without the peer, which would come to be in the tunnel.
    pub(super) fn learn_configuration(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let Some(reply) = said(payloads, ConfigurationType::CFG_REPLY) else { return };
        let vips = &self.connection.vips;
        let is_here = |ip: &IpAddr| *ip == self.path.local.ip() || cx.config.here.contains(ip);
        let mut ours: Vec<IpAddr> = vec![];
        for ip in addresses(reply) {
            let is_host = !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback());
            let is_like = |other: &&IpAddr| other.is_ipv4() == ip.is_ipv4();
            let is_left = ours.iter().filter(is_like).count() < vips.iter().filter(is_like).count();
            if is_host && is_left && !ours.contains(&ip) && (vips.contains(&ip) || !is_here(&ip)) {
                ours.push(ip);
            }
        }
        if ours.is_empty() {
            return;
        }
        let is_dns = |attribute: &&ConfigurationAttribute| {
            [Kind::INTERNAL_IP4_DNS, Kind::INTERNAL_IP6_DNS].contains(&attribute.kind)
        };
        let dns = reply.attributes.iter().filter(is_dns).filter_map(ConfigurationAttribute::address);
        self.given = Given { ours, dns: dns.take(MOST).collect(), theirs: vec![] };
        self.event(Event::Configured(self.given.ours.clone(), self.given.dns.clone()), cx);
    }

    /// A responder gives addresses of its pools to who has proven to be `who`. What the peer is told; or why there is no
    /// child SA.
    pub(super) fn give(
        &mut self,
        connection: &Connection,
        who: &str,
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) -> (Option<Payload>, Result<(), ChildError>) {
        let request = said(payloads, ConfigurationType::CFG_REQUEST);
        let pools = cx.config.pools_of(connection);
        let asked: Vec<_> = request.into_iter().flat_map(addresses).collect();
        if asked.is_empty() || pools.is_empty() {
            let is_wrong = asked.is_empty() && !connection.pools.is_empty();
            return (None, if is_wrong { Err(ChildError::NotAsked) } else { Ok(()) });
        }
        let before: Vec<u64> = self.legacies.iter().filter_map(Legacy::superseded).map(|id| id.0).collect();
        for asked in asked {
            let to = Applicant { who, holder: self.id.0, before: &before };
            self.given.theirs.extend(self.leases.give(&pools, asked, to));
        }
        let given = &self.given.theirs;
        if given.is_empty() {
            return (None, Err(ChildError::NoAddress(connection.pools.join(", "))));
        }
        let attribute =
            |lease: &Lease| ConfigurationAttribute::of_address(kinds(&lease.address)[0], lease.address);
        let mut attributes: Vec<_> = given.iter().map(attribute).collect();
        for more in given.iter().flat_map(|lease| &lease.pool.attributes) {
            if !attributes.contains(more) {
                attributes.push(more.clone());
            }
        }
        // RFC 7296 §3.15.1
        if request.is_some_and(|r| r.attributes.iter().any(|a| a.kind == Kind::SUPPORTED_ATTRIBUTES)) {
            let value = SUPPORTED.iter().flat_map(|kind| kind.0.to_be_bytes()).collect();
            attributes.push(ConfigurationAttribute { kind: Kind::SUPPORTED_ATTRIBUTES, value });
        }
        let told = given.iter().map(|lease| (lease.pool.name.clone(), lease.address)).collect();
        self.event(Event::Gave(who.to_owned(), told), cx);
        let reply = Configuration { kind: ConfigurationType::CFG_REPLY, attributes };
        (Some(Payload::Configuration(reply)), Ok(()))
    }

    /// It has its addresses from another IKE SA, of this number.
    pub(super) fn inherit_given(&mut self, given: Given, from: u64) {
        for lease in &given.theirs {
            self.leases.pass_on(lease, from, self.id.0);
        }
        self.given = given;
    }

    /// Made again of what was kept, the peer has the addresses that it had.
    pub(super) fn hold_given(&mut self) {
        let who = self.eap_id.clone().or_else(|| Some(self.ids.as_ref()?.1.to_string()));
        for lease in &self.given.theirs {
            self.leases.hold_again(lease, who.as_deref().unwrap_or_default(), self.id.0);
        }
    }

    /// Nobody has these addresses any more.
    pub(super) fn give_back(&mut self) {
        for lease in std::mem::take(&mut self.given.theirs) {
            self.leases.take_back(&lease, self.id.0);
        }
    }
}

keep!(Given { ours, dns, theirs });
