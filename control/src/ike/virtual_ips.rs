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
    ops::RangeInclusive,
};

/// How long it takes until what could not be put on the device is tried again: twice as long each time.
const AGAIN_MS: RangeInclusive<u64> = 1_000..=60_000;

/// The device, and whether what is on it may have to be another.
#[derive(Debug, Default)]
pub(super) struct VirtualIps {
    interface: Option<String>,
    requests: Option<Requests>,
    is_due: bool,
    /// It could not be, and is tried again.
    again: Option<Again>,
    /// What is on it, with the routes that have it.
    put: Wanted,
}

/// When something that failed is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Again {
    wait_ms: u64,
    at_ms: u64,
}

impl Again {
    /// It has failed at this time, for the first time or after it was tried `before`.
    fn after(before: Option<Again>, now_ms: u64) -> Again {
        let wait_ms = before.map_or(*AGAIN_MS.start(), |again| (2 * again.wait_ms).min(*AGAIN_MS.end()));
        Again { wait_ms, at_ms: now_ms.saturating_add(wait_ms) }
    }
}

impl VirtualIps {
    /// Addresses are to be on this device, which is made if it is not there; or on none.
    pub fn set_interface(&mut self, name: Option<&str>) {
        if self.interface.as_deref() == name {
            return;
        }
        if let Some(before) = self.interface.take()
            && self.requests.is_some()
            && let Err(e) = self.put_on(&before, &BTreeMap::new())
        {
            tracing::error!("virtual addresses on {before}: {e}");
        }
        (self.interface, self.is_due, self.again) = (name.map(str::to_owned), true, None);
        (self.requests, self.put) = (None, BTreeMap::new());
        let Some(name) = name else { return };
        if let Err(e) = self.prepare(name) {
            tracing::error!("interface {name}, for virtual addresses: {e}");
        }
    }

    /// Has the device.
    fn prepare(&mut self, name: &str) -> Result<(), String> {
        let mut requests = Requests::open().map_err(|e| e.to_string())?;
        interface::prepare(&mut requests, name).map_err(|e| e.to_string())?;
        self.requests = Some(requests);
        Ok(())
    }

    /// When it is tried again.
    pub fn due_ms(&self) -> Option<u64> {
        self.again.map(|again| again.at_ms)
    }

    /// Something of an IKE SA is another that has some.
    pub fn note(&mut self) {
        self.is_due = true;
    }

    fn put_on(&mut self, interface: &str, wanted: &Wanted) -> Result<(), String> {
        if self.requests.is_none() {
            self.prepare(interface)?;
        }
        let Some(requests) = &mut self.requests else { return Ok(()) };
        put(requests, interface, wanted).map_err(|e| e.to_string())?;
        for ip in wanted.keys().filter(|ip| !self.put.contains_key(*ip)) {
            tracing::info!("{ip} is on {interface}");
        }
        for ip in self.put.keys().filter(|ip| !wanted.contains_key(*ip)) {
            tracing::info!("{ip} is on {interface} no more");
        }
        self.put.clone_from(wanted);
        Ok(())
    }

    /// Has these on the device, or tries it again after a while, which is told once.
    fn try_to_put(&mut self, interface: &str, wanted: &Wanted, now_ms: u64) {
        let before = self.again.take();
        let Err(why) = self.put_on(interface, wanted) else { return };
        if before.is_none() {
            tracing::error!(
                "virtual addresses on {interface}: {why}; it is tried again until they are there"
            );
        }
        self.again = Some(Again::after(before, now_ms));
    }
}

/// Addresses, each with the networks that it is used for.
type Wanted = BTreeMap<IpAddr, BTreeSet<(IpAddr, u8)>>;

/// Has these on a device, with routes to it, and nothing else.
fn put(requests: &mut Requests, interface: &str, wanted: &Wanted) -> io::Result<()> {
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
        let now_ms = self.now_ms();
        let is_again = self.virtual_ips.due_ms().is_some_and(|at_ms| at_ms <= now_ms);
        if !std::mem::take(&mut self.virtual_ips.is_due) && !is_again {
            return;
        }
        let Some(interface) = self.virtual_ips.interface.clone() else { return };
        let mut wanted = Wanted::new();
        let is_up = |sa: &&dyn IkeSa| !matches!(sa.phase(), Phase::Connecting | Phase::Closed(_));
        for (ip, routes) in self.engine.ike_sas().filter(is_up).flat_map(wanted_of) {
            wanted.entry(ip).or_default().extend(routes);
        }
        if wanted != self.virtual_ips.put || wanted.is_empty() || self.virtual_ips.again.is_some() {
            self.virtual_ips.try_to_put(&interface, &wanted, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_after_a_minute_at_most() {
        let (mut now_ms, mut again, mut waits) = (5_000, None, vec![]);
        for _ in 0..9 {
            let next = Again::after(again, now_ms);
            waits.push(next.at_ms - now_ms);
            (now_ms, again) = (next.at_ms, Some(next));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60].map(|secs| secs * 1000));
    }

    #[test]
    fn what_cannot_be_put_is_due_again_and_what_is_put_is_not() {
        let mut ips = VirtualIps::default();
        let wanted = Wanted::from([(IpAddr::from([10, 3, 0, 1]), BTreeSet::new())]);
        // A device of such a name cannot be.
        for (now_ms, due_ms) in [(1_000, 2_000), (2_000, 4_000), (4_000, 8_000)] {
            ips.try_to_put("a name that is too long", &wanted, now_ms);
            assert_eq!((ips.due_ms(), ips.put.len()), (Some(due_ms), 0));
        }
        ips.interface = Some("another".to_owned());
        ips.set_interface(None);
        assert_eq!(ips.due_ms(), None);
    }

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
