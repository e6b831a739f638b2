//! Addresses that peers have given us, on a device of this machine, so that its own packets can have them, and go into the tunnels:
//! as strongSwan does it with `charon.install_virtual_ip`.
//!
//! ```text
//!  the gateway's own packet to 10.2.0.1 ─▶ route 10.2.0.0/24 dev vip0 src 10.3.0.1 ─▶ vip0 ══ vip0-path ─▶ datapath ─▶ ESP
//! ```
//!
//! The device is one end of a veth pair ([`crate::interface`]), whose other end is a port: by it the gateway's own packets come to the
//! policies like all others, and what comes out of a tunnel for the address comes in there. It is for these addresses alone: others
//! on it, and routes to it, are taken away. What the peer is itself in (all of a family, in most cases) has no route: with it the
//! ESP packets would go into their own tunnel. Then it is for whoever runs the gateway to say which packets go there.

use super::{Ike, children::prefixes};
use crate::interface;
use portcullis_ike::ike_sa::{IkeSa, Phase};
use portcullis_netlink::Requests;
use portcullis_sadb::Prefix;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

/// The device, and whether what is on it may have to be another.
#[derive(Debug, Default)]
pub(super) struct VirtualIps {
    interface: Option<String>,
    requests: Option<Requests>,
    is_due: bool,
    /// What is on it, with the routes that have it.
    put: BTreeMap<IpAddr, BTreeSet<(IpAddr, u8)>>,
}

impl VirtualIps {
    /// Addresses are to be on this device, which is made if it is not there; or on none.
    pub fn set_interface(&mut self, name: Option<&str>) {
        if self.interface.as_deref() == name {
            return;
        }
        if let Some(before) = self.interface.take() {
            self.put_on(&before, &BTreeMap::new());
        }
        (self.interface, self.is_due) = (name.map(str::to_owned), true);
        let Some(name) = name else { return };
        let made = Requests::open().map_err(|e| e.to_string()).and_then(|mut requests| {
            interface::prepare(&mut requests, name).map_err(|e| e.to_string())?;
            Ok(requests)
        });
        match made {
            Ok(requests) => self.requests = Some(requests),
            Err(e) => tracing::error!("interface {name}, for virtual addresses: {e}"),
        }
    }

    /// Something of an IKE SA is another that has some.
    pub fn note(&mut self) {
        self.is_due = true;
    }

    fn put_on(&mut self, interface: &str, wanted: &BTreeMap<IpAddr, BTreeSet<(IpAddr, u8)>>) {
        let Some(requests) = &mut self.requests else { return };
        match put(requests, interface, wanted) {
            Ok(()) => {
                for ip in wanted.keys().filter(|ip| !self.put.contains_key(*ip)) {
                    tracing::info!("{ip} is on {interface}");
                }
                for ip in self.put.keys().filter(|ip| !wanted.contains_key(*ip)) {
                    tracing::info!("{ip} is on {interface} no more");
                }
                self.put.clone_from(wanted);
            }
            Err(e) => tracing::error!("virtual addresses on {interface}: {e}"),
        }
    }
}

/// Has these on a device, with routes to it, and nothing else.
fn put(
    requests: &mut Requests,
    interface: &str,
    wanted: &BTreeMap<IpAddr, BTreeSet<(IpAddr, u8)>>,
) -> io::Result<()> {
    let device = requests.devices()?.into_iter().find(|device| device.name == interface);
    let device = device.ok_or_else(|| io::Error::other("it is not there"))?.index;
    let routes: BTreeSet<_> = wanted.values().flatten().copied().collect();
    for prefix in requests.routes_to(device)?.into_iter().filter(|prefix| !routes.contains(prefix)) {
        requests.remove_route(prefix, device)?;
    }
    let is_there = |address: &portcullis_netlink::Address| address.device == device && address.is_global;
    let there: BTreeSet<_> = requests.addresses()?.iter().filter(|a| is_there(a)).map(|a| a.ip).collect();
    for ip in there.iter().filter(|ip| !wanted.contains_key(*ip)) {
        requests.remove_address(device, *ip)?;
    }
    for (ip, routes) in wanted {
        requests.add_address(device, *ip)?;
        for prefix in routes {
            requests.put_route(*prefix, device, *ip)?;
        }
    }
    Ok(())
}

/// The addresses of an IKE SA, each with the networks that are behind the peer.
fn wanted_of(sa: &dyn IkeSa) -> impl Iterator<Item = (IpAddr, BTreeSet<(IpAddr, u8)>)> {
    let peer = sa.path().peer.ip();
    let remote = sa.children().iter().flat_map(|child| child.policy.remote.iter());
    let networks: BTreeSet<Prefix> = remote.flat_map(prefixes).collect();
    sa.given().ours.iter().map(move |ip| (*ip, reached(*ip, peer, &networks)))
}

/// What a virtual address is used for, of the networks behind a peer.
fn reached(ip: IpAddr, peer: IpAddr, networks: &BTreeSet<Prefix>) -> BTreeSet<(IpAddr, u8)> {
    let fits = |of: &&Prefix| of.addr().is_ipv4() == ip.is_ipv4() && !of.contains(peer);
    networks.iter().filter(fits).map(|of| (of.addr(), of.len())).collect()
}

impl Ike {
    /// Has the virtual addresses on their device that there are.
    pub(super) fn put_virtual_ips(&mut self) {
        if !std::mem::take(&mut self.virtual_ips.is_due) {
            return;
        }
        let Some(interface) = self.virtual_ips.interface.clone() else { return };
        let mut wanted: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let is_up = |sa: &&dyn IkeSa| !matches!(sa.phase(), Phase::Connecting | Phase::Closed(_));
        for (ip, routes) in self.engine.ike_sas().filter(is_up).flat_map(wanted_of) {
            wanted.entry(ip).or_default().extend(routes);
        }
        if wanted != self.virtual_ips.put || wanted.is_empty() {
            self.virtual_ips.put_on(&interface, &wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_peer_is_in_itself_has_no_route() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let all = ["10.2.0.0/16", "198.51.100.0/24", "0.0.0.0/0", "2001:db8:2::/48", "::/0"];
        let networks = all.map(|text| text.parse().unwrap()).into();
        let of = |own: &str, peer: &str| reached(ip(own), ip(peer), &networks);
        let net = |text: &str, len| (ip(text), len);
        assert_eq!(of("10.3.0.1", "198.51.100.1"), BTreeSet::from([net("10.2.0.0", 16)]));
        assert_eq!(of("2001:db8:3::1", "2001:db8::1"), BTreeSet::from([net("2001:db8:2::", 48)]));
        // By the other family there is no loop.
        let six = BTreeSet::from([net("2001:db8:2::", 48), net("::", 0)]);
        assert_eq!(of("2001:db8:3::1", "198.51.100.1"), six);
    }
}
