//! From routes to what selectors they are.
//!
//! A route that leads into a tunnel is a policy: from anywhere to its prefix, by its connection's SAs; and the same the
//! other way round. Of all that match a packet, the longest prefix decides, as it does in the kernel. So what is inside
//! such a prefix and routed elsewhere (a network of our own in a summary of all, the way to the peer in a default route)
//! is a policy too, which lets it by in clear; the gateway's own addresses likewise.

use portcullis_netlink::{Route, Table, Target};
use portcullis_sadb::Prefix;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// The priority of the policy of the longest prefix of IPv6; that of a prefix `n` bits shorter is `n` higher, so that it
/// comes after. Those of IPv4 begin here too.
pub const ROUTE_PRIORITY: u32 = 2000;

/// Where a prefix leads.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Way {
    Tunnel(String),
    Elsewhere,
}

/// What the routes say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RouteSelectors {
    /// Prefixes by the interface of their tunnel.
    tunnels: BTreeMap<String, Vec<Prefix>>,
    /// Prefixes inside of those that lead elsewhere.
    elsewhere: Vec<Prefix>,
}

/// Collects the routes of a dump.
#[derive(Debug)]
pub struct RouteTable<'a> {
    /// Interfaces by index.
    interfaces: &'a HashMap<u32, String>,
    /// By prefix: the priority of the kernel's choice so far, and where it leads.
    ways: BTreeMap<Prefix, (u32, Way)>,
}

impl<'a> RouteTable<'a> {
    /// No routes yet. `interfaces` are the names of those that lead into tunnels, by their indices.
    pub fn new(interfaces: &'a HashMap<u32, String>) -> RouteTable<'a> {
        RouteTable { interfaces, ways: BTreeMap::new() }
    }

    /// Takes in a route.
    pub fn add(&mut self, route: &Route) {
        let (addr, len) = route.prefix;
        let Some(prefix) = Prefix::new(addr, len).filter(is_of_hosts) else { return };
        // Table local is asked first, whatever the priorities.
        let (priority, way) = match (route.table, &route.target) {
            (Table::Local, Target::Local(_)) => (0, Way::Elsewhere),
            (Table::Main, target) => (route.priority.saturating_add(1), self.way(target)),
            (Table::Local, _) => return,
        };
        // Of equals the first of the dump is the kernel's choice.
        let known = self.ways.entry(prefix).or_insert_with(|| (priority, way.clone()));
        if priority < known.0 {
            *known = (priority, way);
        }
    }

    /// Of several hops the first that leads into a tunnel decides: what an SA protects is not shared out.
    fn way(&self, target: &Target) -> Way {
        let Target::Unicast(hops) = target else { return Way::Elsewhere };
        let mut interfaces = hops.iter().filter_map(|hop| self.interfaces.get(&hop.device?));
        interfaces.next().map_or(Way::Elsewhere, |name| Way::Tunnel(name.clone()))
    }

    /// The selectors of all of them.
    pub fn selectors(self) -> RouteSelectors {
        let mut selectors = RouteSelectors::default();
        // In this order, those that hold the next prefix are on the stack.
        let mut holders: Vec<(Prefix, bool)> = vec![];
        for (prefix, (_, way)) in self.ways {
            while holders.last().is_some_and(|(h, _)| h.len() > prefix.len() || !h.contains(prefix.addr())) {
                holders.pop();
            }
            let is_in_tunnel = holders.last().is_some_and(|(_, is_tunnel)| *is_tunnel);
            holders.push((prefix, matches!(way, Way::Tunnel(_))));
            match way {
                Way::Tunnel(name) => selectors.tunnels.entry(name).or_default().push(prefix),
                Way::Elsewhere if is_in_tunnel => selectors.elsewhere.push(prefix),
                Way::Elsewhere => {}
            }
        }
        selectors
    }
}

impl RouteSelectors {
    /// Prefixes that are routed to an interface.
    pub fn of(&self, interface: &str) -> &[Prefix] {
        self.tunnels.get(interface).map_or(&[], Vec::as_slice)
    }

    /// Prefixes inside of these that are routed elsewhere.
    pub fn elsewhere(&self) -> &[Prefix] {
        &self.elsewhere
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.elsewhere.len() + self.tunnels.values().map(Vec::len).sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Leaves out all but so many, the shortest first: what is in a prefix that is left out goes nowhere, and not into the
    /// tunnel of a wider one.
    pub fn truncate(&mut self, most: usize) {
        if self.len() <= most {
            return;
        }
        let all = || self.tunnels.values().chain([&self.elsewhere]).flatten();
        let mut priorities: Vec<u32> = all().map(priority).collect();
        priorities.sort_unstable();
        let first_out = priorities[most];
        // Of those of one length none is in another.
        let mut room = most - priorities.partition_point(|p| *p < first_out);
        for prefixes in self.tunnels.values_mut().chain([&mut self.elsewhere]) {
            prefixes.retain(|prefix| {
                let is_last = priority(prefix) == first_out;
                let stays = priority(prefix) < first_out || is_last && room > 0;
                room -= usize::from(stays && is_last);
                stays
            });
        }
    }

    /// Octets on the heap.
    pub(crate) fn heap_octets(&self) -> usize {
        let prefixes = self.tunnels.values().map(Vec::capacity).sum::<usize>() + self.elsewhere.capacity();
        prefixes * size_of::<Prefix>()
    }
}

/// The priority of a prefix's policies.
pub fn priority(prefix: &Prefix) -> u32 {
    let bits = if prefix.addr().is_ipv4() { 32 } else { 128 };
    ROUTE_PRIORITY + u32::from(bits - prefix.len())
}

/// All addresses of the family of this one.
pub fn any(addr: IpAddr) -> Prefix {
    Prefix::new(addr, 0).expect("no bits are not too many")
}

/// Not of groups, of one link or of the machine itself: those are not forwarded.
fn is_of_hosts(prefix: &Prefix) -> bool {
    match prefix.addr() {
        _ if prefix.len() == 0 => true,
        IpAddr::V4(a) => !a.is_multicast() && !a.is_loopback(),
        IpAddr::V6(a) => !a.is_multicast() && !a.is_loopback() && !a.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_netlink::Hop;

    const LAN: u32 = 2;
    const IPSEC0: u32 = 7;
    const IPSEC1: u32 = 8;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn unicast(text: &str, priority: u32, devices: &[u32]) -> Route {
        let hop = |d: &u32| Hop { device: Some(*d), gateway: None, mtu: 0, weight: 1 };
        let target = Target::Unicast(devices.iter().map(hop).collect());
        let p = prefix(text);
        Route { table: Table::Main, prefix: (p.addr(), p.len()), priority, target }
    }

    fn own(text: &str) -> Route {
        Route { table: Table::Local, target: Target::Local(None), ..unicast(text, 0, &[]) }
    }

    fn selectors(routes: &[Route]) -> RouteSelectors {
        let interfaces = HashMap::from([(IPSEC0, "ipsec0".to_owned()), (IPSEC1, "ipsec1".to_owned())]);
        let mut table = RouteTable::new(&interfaces);
        routes.iter().for_each(|r| table.add(r));
        table.selectors()
    }

    fn shown(prefixes: &[Prefix]) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn routes_to_the_interface_are_its_selectors() {
        let s = selectors(&[
            unicast("10.2.0.0/16", 0, &[IPSEC0]),
            unicast("10.3.0.0/16", 0, &[IPSEC1]),
            unicast("fd02::/32", 1024, &[IPSEC0]),
            unicast("10.1.0.0/16", 0, &[LAN]),
            unicast("ff00::/8", 256, &[IPSEC0]),
            unicast("fe80::/64", 256, &[IPSEC0]),
            own("10.1.0.1/32"),
            own("127.0.0.0/8"),
        ]);
        assert_eq!(shown(s.of("ipsec0")), ["10.2.0.0/16", "fd02::/32"]);
        assert_eq!(shown(s.of("ipsec1")), ["10.3.0.0/16"]);
        assert_eq!((s.elsewhere(), s.of("ipsec2"), s.len()), (&[][..], &[][..], 3));
    }

    #[test]
    fn what_is_inside_and_leads_elsewhere_is_let_by() {
        let s = selectors(&[
            unicast("0.0.0.0/0", 0, &[IPSEC0]),
            unicast("198.51.100.1/32", 0, &[LAN]),
            unicast("10.0.0.0/8", 0, &[LAN]),
            unicast("10.9.0.0/16", 0, &[LAN]), // inside of what leads elsewhere already
            unicast("10.9.1.0/24", 0, &[IPSEC1]),
            unicast("10.9.1.128/25", 0, &[LAN]),
            Route { target: Target::Refuse, ..unicast("172.16.0.0/12", 0, &[]) },
            own("169.254.0.1/32"),
            own("10.9.1.1/32"),
            own("fd00::1/128"), // no tunnel of its family
        ]);
        assert_eq!(
            (shown(s.of("ipsec0")), shown(s.of("ipsec1"))),
            (vec!["0.0.0.0/0".into()], vec!["10.9.1.0/24".into()])
        );
        let elsewhere = [
            "10.0.0.0/8",
            "10.9.1.1/32",
            "10.9.1.128/25",
            "169.254.0.1/32",
            "172.16.0.0/12",
            "198.51.100.1/32",
        ];
        assert_eq!(shown(s.elsewhere()), elsewhere);
    }

    #[test]
    fn the_kernels_choice_counts() {
        // The lowest metric, whatever the order; of equals the first.
        for routes in [
            [unicast("10.2.0.0/16", 20, &[LAN]), unicast("10.2.0.0/16", 10, &[IPSEC0])],
            [unicast("10.2.0.0/16", 10, &[IPSEC0]), unicast("10.2.0.0/16", 20, &[LAN])],
            [unicast("10.2.0.0/16", 10, &[IPSEC0]), unicast("10.2.0.0/16", 10, &[LAN])],
            [unicast("10.2.0.0/16", 10, &[LAN, IPSEC0]), unicast("10.2.0.0/16", 20, &[IPSEC1])],
        ] {
            assert_eq!(shown(selectors(&routes).of("ipsec0")), ["10.2.0.0/16"], "{routes:?}");
        }
        // An address of our own comes before every route to it.
        let s = selectors(&[own("10.2.0.1/32"), unicast("10.2.0.1/32", 0, &[IPSEC0])]);
        assert!(s.is_empty(), "{s:?}");
    }

    #[test]
    fn longer_prefixes_come_first_and_all_behind_connections() {
        let of = |text: &str| priority(&prefix(text));
        assert!(of("10.2.0.0/16") > of("10.2.1.0/24") && of("10.2.1.0/24") > of("10.2.1.1/32"));
        assert!(of("fd00::/8") > of("fd00::/64"));
        assert_eq!((of("10.2.1.1/32"), of("0.0.0.0/0"), of("::/0"), of("::1/128")), (2000, 2032, 2128, 2000));
        const { assert!(ROUTE_PRIORITY > crate::connection::CONNECTION_PRIORITY) };
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut s = selectors(&[
            unicast("10.0.0.0/8", 0, &[IPSEC0]),
            unicast("10.1.0.0/16", 0, &[LAN]),
            unicast("10.2.0.0/16", 0, &[IPSEC1]),
        ]);
        s.truncate(3);
        assert_eq!(s.len(), 3);
        // What is in the widest goes nowhere, and not to the peer of that.
        s.truncate(2);
        assert_eq!((s.of("ipsec0").len(), s.of("ipsec1").len(), s.elsewhere().len()), (0, 1, 1));
        s.truncate(1);
        assert_eq!(s.len(), 1);
        s.truncate(0);
        assert!(s.is_empty());
    }
}
