//! The kernel's links, routes and neighbours, read from netlink messages.

use crate::fib::{Hop, Mac, Neighbours, PortLink, Prefix, Route, Routes, RoutesBuilder};
use netlink_packet_route::{
    AddressFamily,
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
        RouteType, RouteVia,
    },
};
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const TABLE_LOCAL: u32 = 255;
const TABLE_MAIN: u32 = 254;

/// What a link message says of a device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) ethernet: bool,
    link: PortLink,
}

impl Device {
    pub(super) fn of(message: &LinkMessage) -> Option<Device> {
        let (mut name, mut mac, mut mtu) = (None, Mac::default(), 0);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(n) => name = Some(n.clone()),
                LinkAttribute::Address(bytes) => mac = Mac(bytes.as_slice().try_into().unwrap_or_default()),
                LinkAttribute::Mtu(n) => mtu = u16::try_from(*n).unwrap_or(u16::MAX),
                _ => {}
            }
        }
        let (name, header) = (name?, &message.header);
        let up = header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        let link = PortLink { interface: name.clone(), ifindex: header.index, mac, mtu, up };
        Some(Device { name, ethernet: header.link_layer_type == LinkLayerType::Ether, link })
    }
}

/// A neighbour as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct KernelNeighbour {
    state: NeighbourState,
    mac: Option<Mac>,
}

impl KernelNeighbour {
    /// The address that packets can be sent to.
    fn usable(&self) -> Option<Mac> {
        match self.state {
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent => self.mac,
            _ => None,
        }
    }
}

/// What a neighbour message changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NeighbourChange {
    /// Nothing that a worker would see.
    Nothing,
    /// Where packets are sent to.
    Usable,
    /// The kernel gave up on this one; where packets are sent to may have changed as well.
    Failed { port: u8, addr: IpAddr },
}

/// Ports and their neighbours.
#[derive(Debug)]
pub(super) struct Tables {
    ports: Vec<PortLink>,
    neighbours: HashMap<(u8, IpAddr), KernelNeighbour>,
}

impl Tables {
    /// Ports by these devices, none of which is known yet.
    pub(super) fn new(interfaces: &[String]) -> Tables {
        let absent = |name: &String| PortLink {
            interface: name.clone(),
            ifindex: 0,
            mac: Mac::default(),
            mtu: 0,
            up: false,
        };
        Tables { ports: interfaces.iter().map(absent).collect(), neighbours: HashMap::new() }
    }

    pub(super) fn ports(&self) -> &[PortLink] {
        &self.ports
    }

    pub(super) fn port_of(&self, ifindex: u32) -> Option<u8> {
        self.ports.iter().position(|p| p.ifindex == ifindex && ifindex != 0).map(|i| i as u8)
    }

    /// Takes in a device as it is now. Whether a port changed.
    pub(super) fn link(&mut self, device: Device) -> bool {
        let index = device.link.ifindex;
        // A device that was a port and got another name.
        let renamed = self.ports.iter_mut().find(|p| p.ifindex == index && p.interface != device.name);
        let lost = renamed.map(forget).is_some();
        match self.ports.iter_mut().find(|p| p.interface == device.name) {
            Some(port) if *port != device.link => {
                *port = device.link;
                true
            }
            _ => lost,
        }
    }

    /// Takes in that a device is gone. Whether it was a port.
    pub(super) fn link_gone(&mut self, ifindex: u32) -> bool {
        let Some(port) = self.port_of(ifindex) else { return false };
        forget(&mut self.ports[port as usize]);
        self.neighbours.retain(|(p, _), _| *p != port);
        true
    }

    /// Takes in all devices there are. Whether a port changed.
    pub(super) fn links(&mut self, devices: Vec<Device>) -> bool {
        let mut changed = false;
        let known: Vec<u32> = self.ports.iter().map(|p| p.ifindex).collect();
        for ifindex in known {
            if devices.iter().all(|d| d.link.ifindex != ifindex) {
                changed |= self.link_gone(ifindex);
            }
        }
        for device in devices {
            changed |= self.link(device);
        }
        changed
    }

    /// Forgets all neighbours, before a dump of them.
    pub(super) fn forget_neighbours(&mut self) {
        self.neighbours.clear();
    }

    /// Takes in a neighbour as it is now, or that it is gone.
    pub(super) fn neighbour(&mut self, message: &NeighbourMessage, gone: bool) -> NeighbourChange {
        let Some(port) = self.port_of(message.header.ifindex) else { return NeighbourChange::Nothing };
        if message.header.flags.contains(NeighbourFlags::Proxy) {
            return NeighbourChange::Nothing;
        }
        let (mut addr, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => addr = Some(IpAddr::V4(*a)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => addr = Some(IpAddr::V6(*a)),
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok().map(Mac);
                }
                _ => {}
            }
        }
        let Some(addr) = addr.filter(|a| !a.is_multicast()) else { return NeighbourChange::Nothing };
        let key = (port, addr);
        let now = KernelNeighbour { state: message.header.state, mac };
        let before = if gone { self.neighbours.remove(&key) } else { self.neighbours.insert(key, now) };
        if !gone && now.state == NeighbourState::Failed {
            return NeighbourChange::Failed { port, addr };
        }
        let usable = if gone { None } else { now.usable() };
        match before.and_then(|n| n.usable()) == usable {
            true => NeighbourChange::Nothing,
            false => NeighbourChange::Usable,
        }
    }

    /// Whether the kernel wants to be asked before it trusts this neighbour's address again.
    pub(super) fn is_stale(&self, port: u8, addr: IpAddr) -> bool {
        self.neighbours.get(&(port, addr)).is_some_and(|n| n.state == NeighbourState::Stale)
    }

    /// The neighbours that packets can be sent to.
    pub(super) fn usable(&self) -> Neighbours {
        self.neighbours.iter().filter_map(|(key, n)| Some((*key, n.usable()?))).collect()
    }
}

fn forget(port: &mut PortLink) {
    (port.ifindex, port.up) = (0, false);
}

/// Routes of one dump. Those that the kernel would ask by more than the destination (type of service, source) are
/// left out.
#[derive(Default)]
pub(super) struct RouteDump {
    local: RoutesBuilder,
    /// By prefix and priority: the kernel takes the lowest.
    main: BTreeMap<(Prefix, u32), Route>,
}

impl RouteDump {
    /// Takes in a route. `port_of` knows the ports by ifindex.
    pub(super) fn add(&mut self, message: &RouteMessage, port_of: impl Fn(u32) -> Option<u8>) {
        let header = &message.header;
        let table = find(&message.attributes, |a| match a {
            RouteAttribute::Table(t) => Some(*t),
            _ => None,
        });
        let table = table.unwrap_or(header.table as u32);
        if header.tos != 0 || header.source_prefix_length != 0 || header.flags.contains(RouteFlags::Cloned) {
            return;
        }
        let Some(prefix) = prefix(message) else { return };
        match (table, header.kind) {
            (TABLE_LOCAL, RouteType::Local | RouteType::Anycast) => {
                self.local.local(prefix);
            }
            (TABLE_LOCAL, RouteType::Broadcast) => {
                self.local.broadcast(prefix);
            }
            (TABLE_MAIN, RouteType::Unicast) => {
                if let Some(hops) = hops(message, port_of) {
                    self.insert(message, prefix, Route::Unicast(hops));
                }
            }
            (
                TABLE_MAIN,
                RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw,
            ) => self.insert(message, prefix, Route::Refuse),
            _ => {}
        }
    }

    fn insert(&mut self, message: &RouteMessage, prefix: Prefix, route: Route) {
        let priority = find(&message.attributes, |a| match a {
            RouteAttribute::Priority(p) => Some(*p),
            _ => None,
        });
        // Of equals the first of the dump is the kernel's choice.
        self.main.entry((prefix, priority.unwrap_or(0))).or_insert(route);
    }

    pub(super) fn build(self) -> Routes {
        let mut builder = self.local;
        for ((prefix, _), route) in &self.main {
            builder.route(*prefix, route);
        }
        builder.build()
    }
}

fn find<T>(attributes: &[RouteAttribute], f: impl Fn(&RouteAttribute) -> Option<T>) -> Option<T> {
    attributes.iter().find_map(f)
}

fn prefix(message: &RouteMessage) -> Option<Prefix> {
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
    (len <= Prefix::host(addr).len).then_some(Prefix { addr, len })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

/// The live hops of a unicast route; `None` when it is dead, so that the kernel passes it over.
fn hops(message: &RouteMessage, port_of: impl Fn(u32) -> Option<u8>) -> Option<Vec<Hop>> {
    let mtu = find(&message.attributes, |a| match a {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|m| match m {
            RouteMetric::Mtu(n) => Some(u16::try_from(*n).unwrap_or(u16::MAX)),
            _ => None,
        }),
        _ => None,
    });
    let hop = |attributes: &[RouteAttribute], device: Option<u32>, weight: u16| Hop {
        // What the kernel encapsulates on its way out is not ours to send.
        port: if encapsulated(attributes) { None } else { device.and_then(&port_of) },
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
        let device = find(&message.attributes, |a| match a {
            RouteAttribute::Oif(n) => Some(*n),
            _ => None,
        });
        return (!dead).then(|| vec![hop(&message.attributes, device, 1)]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::route::RouteLwEnCapType;

    fn next_hop(device: u32, flags: RouteNextHopFlags, attributes: Vec<RouteAttribute>) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        (hop.interface_index, hop.flags, hop.hops, hop.attributes) = (device, flags, 1, attributes);
        hop
    }

    fn ports_of(hops: Vec<RouteNextHop>) -> Option<Vec<Option<u8>>> {
        let mut message = RouteMessage::default();
        message.attributes.push(RouteAttribute::MultiPath(hops));
        let hops = super::hops(&message, |ifindex| (ifindex < 20).then_some((ifindex - 10) as u8))?;
        assert!(hops.iter().all(|h| h.weight == 2));
        Some(hops.iter().map(|h| h.port).collect())
    }

    #[test]
    fn dead_hops_are_left_out_and_foreign_ones_kept() {
        let up = RouteNextHopFlags::empty();
        let (dead, no_carrier) = (RouteNextHopFlags::Dead, RouteNextHopFlags::Linkdown);
        let plain = |device, flags| next_hop(device, flags, vec![]);
        let tunnel = next_hop(11, up, vec![RouteAttribute::EncapType(RouteLwEnCapType::Mpls)]);
        for (hops, expected) in [
            (vec![plain(10, up), plain(11, up), plain(99, up)], Some(vec![Some(0), Some(1), None])),
            (vec![plain(10, dead | no_carrier), plain(11, up)], Some(vec![Some(1)])),
            (vec![plain(10, no_carrier), plain(11, up)], Some(vec![Some(1)])),
            (vec![plain(10, no_carrier), plain(11, dead)], Some(vec![Some(0)])),
            (vec![plain(10, dead), plain(11, dead)], None),
            (vec![plain(10, up), tunnel], Some(vec![Some(0), None])),
        ] {
            assert_eq!(ports_of(hops), expected);
        }
    }

    #[test]
    fn a_renamed_device_is_no_port_any_more() {
        let mut tables = Tables::new(&["a".into(), "b".into()]);
        let device = |name: &str, index: u32| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.attributes.push(LinkAttribute::IfName(name.into()));
            Device::of(&message).unwrap()
        };
        assert!(tables.links(vec![device("a", 3), device("b", 4), device("lo", 1)]));
        assert!(!tables.link(device("a", 3)));
        assert!(tables.link(device("c", 3)));
        assert_eq!((tables.port_of(3), tables.port_of(4)), (None, Some(1)));
        assert!(tables.link(device("a", 5)));
        assert_eq!(tables.port_of(5), Some(0));
        assert!(tables.links(vec![device("b", 4)]));
        assert_eq!((tables.port_of(5), tables.port_of(0)), (None, None));
    }
}
