//! Routes, read from netlink messages.

use crate::{FAMILIES, Requests, Topic};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
        RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
    },
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const TABLE_LOCAL: u32 = 255;
const TABLE_MAIN: u32 = 254;

/// A table of routes that the kernel's default rules ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Asked first: what is the machine's own.
    Local,
    /// What `ip route` shows.
    Main,
}

/// What becomes of packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Table local: ours, an anycast address included; the index of its device.
    Local(Option<u32>),
    /// Table local: broadcast.
    Broadcast,
    /// Table main: forwarded by one of these hops.
    Unicast(Vec<Hop>),
    /// Table main: blackhole, unreachable, prohibit or throw.
    Refuse,
}

/// One way of a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// The index of its device; `None` if the kernel encapsulates on the way out.
    pub device: Option<u32>,
    /// The router, possibly of the other family.
    pub gateway: Option<IpAddr>,
    /// The route's own MTU, or 0.
    pub mtu: u16,
    /// Its share, at least 1.
    pub weight: u16,
}

/// A route that asks for nothing but the destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Its table.
    pub table: Table,
    /// The destination's first address, and how many leading bits of it count.
    pub prefix: (IpAddr, u8),
    /// Of routes to one prefix, the kernel takes that of the lowest.
    pub priority: u32,
    /// Where it leads.
    pub target: Target,
}

impl Route {
    /// What a message says; `None` if it is of another table, asks for more than the destination (type of service,
    /// source), or is dead, so that the kernel passes it over.
    pub fn of(message: &RouteMessage) -> Option<Route> {
        let (header, attributes) = (&message.header, &message.attributes);
        let table = find(attributes, |a| match a {
            RouteAttribute::Table(t) => Some(*t),
            _ => None,
        });
        if header.tos != 0 || header.source_prefix_length != 0 || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let device = || {
            find(attributes, |a| match a {
                RouteAttribute::Oif(n) => Some(*n),
                _ => None,
            })
        };
        let (table, target) = match (table.unwrap_or(header.table as u32), header.kind) {
            (TABLE_LOCAL, RouteType::Local | RouteType::Anycast) => (Table::Local, Target::Local(device())),
            (TABLE_LOCAL, RouteType::Broadcast) => (Table::Local, Target::Broadcast),
            (TABLE_MAIN, RouteType::Unicast) => (Table::Main, Target::Unicast(hops(message, device)?)),
            (
                TABLE_MAIN,
                RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw,
            ) => (Table::Main, Target::Refuse),
            _ => return None,
        };
        let priority = find(attributes, |a| match a {
            RouteAttribute::Priority(p) => Some(*p),
            _ => None,
        });
        Some(Route { table, prefix: prefix(message)?, priority: priority.unwrap_or(0), target })
    }
}

fn find<T>(attributes: &[RouteAttribute], f: impl Fn(&RouteAttribute) -> Option<T>) -> Option<T> {
    attributes.iter().find_map(f)
}

fn prefix(message: &RouteMessage) -> Option<(IpAddr, u8)> {
    let addr = find(&message.attributes, |a| match a {
        RouteAttribute::Destination(a) => ip(a),
        _ => None,
    });
    let addr = addr.or(match message.header.address_family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    })?;
    let len = message.header.destination_prefix_length;
    (len <= if addr.is_ipv4() { 32 } else { 128 }).then_some((addr, len))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

/// The live hops of a unicast route; `None` when it is dead.
fn hops(message: &RouteMessage, device: impl Fn() -> Option<u32>) -> Option<Vec<Hop>> {
    let mtu = find(&message.attributes, |a| match a {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|m| match m {
            RouteMetric::Mtu(n) => Some(u16::try_from(*n).unwrap_or(u16::MAX)),
            _ => None,
        }),
        _ => None,
    });
    let hop = |attributes: &[RouteAttribute], device: Option<u32>, weight: u16| Hop {
        device: if encapsulated(attributes) { None } else { device },
        gateway: gateway(attributes),
        mtu: mtu.unwrap_or(0),
        weight,
    };
    let multipath = find(&message.attributes, |a| match a {
        RouteAttribute::MultiPath(hops) => Some(hops.clone()),
        _ => None,
    });
    let Some(multipath) = multipath else {
        let dead = message.header.flags.contains(RouteFlags::Dead);
        return (!dead).then(|| vec![hop(&message.attributes, device(), 1)]);
    };
    let without = |flags: RouteNextHopFlags| -> Vec<&RouteNextHop> {
        multipath.iter().filter(|h| !h.flags.intersects(flags)).collect()
    };
    let mut live = without(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown);
    if live.is_empty() {
        // A hop without carrier only when there is no other.
        live = without(RouteNextHopFlags::Dead);
    }
    let live = live.iter().map(|h| hop(&h.attributes, Some(h.interface_index), h.hops as u16 + 1));
    Some(live.collect::<Vec<_>>()).filter(|l| !l.is_empty())
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    find(attributes, |a| match a {
        RouteAttribute::Gateway(a) => ip(a),
        RouteAttribute::Via(RouteVia::Inet(a)) => Some((*a).into()),
        RouteAttribute::Via(RouteVia::Inet6(a)) => Some((*a).into()),
        _ => None,
    })
}

fn encapsulated(attributes: &[RouteAttribute]) -> bool {
    attributes.iter().any(|a| matches!(a, RouteAttribute::Encap(_) | RouteAttribute::EncapType(_)))
}

/// A destination's first address, and how many leading bits of it count.
type Network = (IpAddr, u8);

impl Requests {
    /// The networks that are routed to a device, in table main; not what the kernel has routed there itself.
    ///
    /// # Errors
    /// What the system says.
    pub fn routes_to(&mut self, device: u32) -> io::Result<Vec<Network>> {
        let mut all = vec![];
        for family in FAMILIES {
            self.dump(Topic::Routes(family), |message| {
                let RouteNetlinkMessage::NewRoute(message) = message else { return };
                let Some(Route { table: Table::Main, target: Target::Unicast(hops), prefix, .. }) =
                    Route::of(&message)
                else {
                    return;
                };
                let is_kernels = message.header.protocol == RouteProtocol::Kernel;
                if !is_kernels && hops.iter().all(|hop| hop.device == Some(device)) {
                    all.push(prefix);
                }
            })?;
        }
        Ok(all)
    }

    /// Routes a network to a device, in table main; what goes there and has no address yet has this one. In the place of another
    /// route to the same network, of the same priority.
    ///
    /// # Errors
    /// What the system says.
    pub fn put_route(&mut self, to: Network, device: u32, source: IpAddr) -> io::Result<()> {
        let mut message = to_device(to, device);
        message.attributes.push(RouteAttribute::PrefSource(RouteAddress::from(source)));
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes such a route away.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_route(&mut self, to: Network, device: u32) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelRoute(to_device(to, device)), 0)
    }
}

fn to_device((address, bits): Network, device: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family =
        if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = bits;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Destination(RouteAddress::from(address)), RouteAttribute::Oif(device)];
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::RouteLwEnCapType;

    fn next_hop(device: u32, flags: RouteNextHopFlags, attributes: Vec<RouteAttribute>) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        (hop.interface_index, hop.flags, hop.hops, hop.attributes) = (device, flags, 1, attributes);
        hop
    }

    fn devices_of(hops: Vec<RouteNextHop>) -> Option<Vec<Option<u32>>> {
        let mut message = RouteMessage::default();
        message.attributes.push(RouteAttribute::MultiPath(hops));
        let hops = super::hops(&message, || None)?;
        assert!(hops.iter().all(|h| h.weight == 2));
        Some(hops.iter().map(|h| h.device).collect())
    }

    #[test]
    fn dead_hops_are_left_out() {
        let up = RouteNextHopFlags::empty();
        let (dead, no_carrier) = (RouteNextHopFlags::Dead, RouteNextHopFlags::Linkdown);
        let plain = |device, flags| next_hop(device, flags, vec![]);
        let tunnel = next_hop(11, up, vec![RouteAttribute::EncapType(RouteLwEnCapType::Mpls)]);
        for (hops, expected) in [
            (vec![plain(10, up), plain(11, up), plain(99, up)], Some(vec![Some(10), Some(11), Some(99)])),
            (vec![plain(10, dead | no_carrier), plain(11, up)], Some(vec![Some(11)])),
            (vec![plain(10, no_carrier), plain(11, up)], Some(vec![Some(11)])),
            (vec![plain(10, no_carrier), plain(11, dead)], Some(vec![Some(10)])),
            (vec![plain(10, dead), plain(11, dead)], None),
            (vec![plain(10, up), tunnel], Some(vec![Some(10), None])),
        ] {
            assert_eq!(devices_of(hops), expected);
        }
    }

    #[test]
    fn a_route_to_a_device_is_read_as_it_is_written() {
        for (ip, bits) in [("10.2.0.0", 16), ("2001:db8:2::", 48), ("0.0.0.0", 0)] {
            let prefix = (ip.parse().unwrap(), bits);
            let route = Route::of(&to_device(prefix, 7)).unwrap();
            assert_eq!((route.table, route.prefix, route.priority), (Table::Main, prefix, 0));
            let hop = Hop { device: Some(7), gateway: None, mtu: 0, weight: 1 };
            assert_eq!(route.target, Target::Unicast(vec![hop]));
        }
    }
}
