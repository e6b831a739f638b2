//! What one end gives to the other: addresses of its pools, and what goes with them. CP of IKEv2 and mode config of IKEv1 say it.
//!
//! Addresses stay with what takes the place of an IKE SA, and go back to their pools at its end.

use crate::{
    kept::keep,
    message::{ConfigurationAttribute, ConfigurationAttributeType as Kind},
    pool::{Applicant, Lease, Leases, Pool},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

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

/// Any address of a family.
pub(crate) fn any_like(address: &IpAddr) -> IpAddr {
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
pub(crate) fn addresses(attributes: &[ConfigurationAttribute]) -> Vec<IpAddr> {
    let of = |attribute: &ConfigurationAttribute| match attribute.kind {
        Kind::INTERNAL_IP4_ADDRESS => {
            Some(attribute.address().filter(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
        }
        Kind::INTERNAL_IP6_ADDRESS => {
            Some(attribute.address().filter(IpAddr::is_ipv6).unwrap_or(Ipv6Addr::UNSPECIFIED.into()))
        }
        _ => None,
    };
    attributes.iter().filter_map(of).take(MOST).collect()
}

/// What is asked for: where any will do, what was given `before`.
pub(crate) fn again(vips: &[IpAddr], mut before: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut again = |vip: &IpAddr| {
        let at = before.iter().position(|ip| vip.is_unspecified() && ip.is_ipv4() == vip.is_ipv4());
        at.map_or(*vip, |at| before.remove(at))
    };
    vips.iter().map(&mut again).collect()
}

/// What asks for addresses, and for servers of names; an address that is unspecified is any of its family.
pub(crate) fn asking(vips: &[IpAddr]) -> Vec<ConfigurationAttribute> {
    let of = |vip: &IpAddr| match vip.is_unspecified() {
        true => ConfigurationAttribute::asking(kinds(vip)[0]),
        false => ConfigurationAttribute::of_address(kinds(vip)[0], *vip),
    };
    let families = [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is| vips.iter().find(|vip| is(vip)));
    let names = families.into_iter().flatten().map(|vip| ConfigurationAttribute::asking(kinds(vip)[1]));
    vips.iter().map(of).chain(names).collect()
}

impl Given {
    /// What an end hears that it is given, if it is an address. What it has not asked for, it does not take: no more of a family
    /// than it wants, and no address that it has without the peer, which would come to be in the tunnel.
    pub(crate) fn told(
        vips: &[IpAddr],
        is_here: impl Fn(&IpAddr) -> bool,
        attributes: &[ConfigurationAttribute],
    ) -> Option<Given> {
        let mut ours: Vec<IpAddr> = vec![];
        for ip in addresses(attributes) {
            let is_host = !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback());
            let is_like = |other: &&IpAddr| other.is_ipv4() == ip.is_ipv4();
            let is_left = ours.iter().filter(is_like).count() < vips.iter().filter(is_like).count();
            if is_host && is_left && !ours.contains(&ip) && (vips.contains(&ip) || !is_here(&ip)) {
                ours.push(ip);
            }
        }
        let is_dns = |attribute: &&ConfigurationAttribute| {
            [Kind::INTERNAL_IP4_DNS, Kind::INTERNAL_IP6_DNS].contains(&attribute.kind)
        };
        let dns = attributes.iter().filter(is_dns).filter_map(ConfigurationAttribute::address);
        (!ours.is_empty()).then(|| Given { ours, dns: dns.take(MOST).collect(), theirs: vec![] })
    }

    /// Gives addresses of pools, each like one that is asked for; what the peer is told, if it has any then. Besides its addresses that
    /// is what their pools tell now.
    pub(crate) fn give(
        &mut self,
        leases: &mut Leases,
        pools: &[Arc<Pool>],
        asked: &[IpAddr],
        to: Applicant<'_>,
    ) -> Option<Vec<ConfigurationAttribute>> {
        self.theirs.extend(asked.iter().filter_map(|asked| leases.give(pools, *asked, to)));
        let attribute =
            |lease: &Lease| ConfigurationAttribute::of_address(kinds(&lease.address)[0], lease.address);
        let mut attributes: Vec<_> = self.theirs.iter().map(attribute).collect();
        let pool_of = |lease: &'_ Lease| pools.iter().find(|pool| pool.name == lease.pool.name).cloned();
        let of_pools = self.theirs.iter().map(|lease| pool_of(lease).unwrap_or_else(|| lease.pool.clone()));
        for more in of_pools.collect::<Vec<_>>().iter().flat_map(|pool| &pool.attributes) {
            if !attributes.contains(more) {
                attributes.push(more.clone());
            }
        }
        (!self.theirs.is_empty()).then_some(attributes)
    }

    /// The peer's addresses, each with its pool.
    pub(crate) fn named(&self) -> Vec<(String, IpAddr)> {
        self.theirs.iter().map(|lease| (lease.pool.name.clone(), lease.address)).collect()
    }

    /// What `dynamic` stands for at our end and at the peer's: what is given, or else their outer addresses.
    pub(crate) fn hosts(&self, local: IpAddr, peer: IpAddr) -> [Vec<IpAddr>; 2] {
        let or = |given: Vec<IpAddr>, outer: IpAddr| if given.is_empty() { vec![outer] } else { given };
        let theirs = self.theirs.iter().map(|lease| lease.address).collect();
        [or(self.ours.clone(), local), or(theirs, peer)]
    }

    /// It is another IKE SA's from now on.
    pub(crate) fn pass_on(&self, leases: &mut Leases, from: u64, to: u64) {
        self.theirs.iter().for_each(|lease| leases.pass_on(lease, from, to));
    }

    /// Made again of what was kept, the peer has the addresses that it had.
    pub(crate) fn hold_again(&self, leases: &mut Leases, who: &str, holder: u64) {
        self.theirs.iter().for_each(|lease| leases.hold_again(lease, who, holder));
    }

    /// Nobody has the peer's addresses any more.
    pub(crate) fn give_back(&mut self, leases: &mut Leases, holder: u64) {
        std::mem::take(&mut self.theirs).iter().for_each(|lease| leases.take_back(lease, holder));
    }
}

/// What a peer may ask for, to who asks for that.
pub(crate) fn supported(request: &[ConfigurationAttribute]) -> Option<ConfigurationAttribute> {
    let kind = Kind::SUPPORTED_ATTRIBUTES;
    let value = || SUPPORTED.iter().flat_map(|kind| kind.0.to_be_bytes()).collect();
    let is_asked = request.iter().any(|attribute| attribute.kind == kind);
    is_asked.then(|| ConfigurationAttribute { kind, value: value() })
}

keep!(Given { ours, dns, theirs });
