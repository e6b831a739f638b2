//! The kernel's links, routes and neighbours, read from netlink messages.

use crate::fib::{self, Hop, KernelEnd, Mac, Neighbours, PortLink, Prefix, Routes, RoutesBuilder};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use portcullis_netlink::{Device, Route, Table, Target};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

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
    /// Other ends of veth pairs, by index: what they are, and the index of this end.
    ends: HashMap<u32, (KernelEnd, u32)>,
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
            kernel: None,
        };
        Tables {
            ports: interfaces.iter().map(absent).collect(),
            ends: HashMap::new(),
            neighbours: HashMap::new(),
        }
    }

    pub(super) fn ports(&self) -> &[PortLink] {
        &self.ports
    }

    pub(super) fn port_of(&self, ifindex: u32) -> Option<u8> {
        self.ports.iter().position(|p| p.ifindex == ifindex && ifindex != 0).map(|i| i as u8)
    }

    /// The port that leads to a device of the kernel, as the other end of its veth pair.
    fn port_to(&self, device: u32) -> Option<u8> {
        self.ports.iter().position(|p| p.kernel.is_some_and(|k| k.ifindex == device)).map(|i| i as u8)
    }

    /// Takes in a device as it is now. Whether a port changed.
    pub(super) fn link(&mut self, device: Device) -> bool {
        // A device that was a port and got another name.
        let renamed = self.ports.iter_mut().find(|p| p.ifindex == device.index && p.interface != device.name);
        let mut changed = renamed.map(forget).is_some();
        if let Some(port) = self.ports.iter_mut().find(|p| p.interface == device.name) {
            let Device { name, index, mac, mtu, is_up, .. } = device.clone();
            let kernel = port.kernel;
            let now = PortLink { interface: name, ifindex: index, mac: Mac(mac), mtu, up: is_up, kernel };
            changed |= *port != now;
            *port = now;
        }
        match device.peer {
            Some(peer) => {
                let end = KernelEnd {
                    ifindex: device.index,
                    mac: Mac(device.mac),
                    mtu: device.mtu,
                    up: device.is_up,
                };
                self.ends.insert(device.index, (end, peer));
            }
            None => drop(self.ends.remove(&device.index)),
        }
        self.join_ends() || changed
    }

    /// Tells the ports what their other ends are. Whether any is another than before.
    fn join_ends(&mut self) -> bool {
        let mut changed = false;
        for port in &mut self.ports {
            let ends = self.ends.values();
            let kernel =
                ends.filter(|(_, port_index)| *port_index == port.ifindex).map(|(end, _)| *end).next();
            changed |= port.kernel != kernel;
            port.kernel = kernel;
        }
        changed
    }

    /// Takes in that a device is gone. Whether it was a port, or another end of one.
    pub(super) fn link_gone(&mut self, ifindex: u32) -> bool {
        let is_end = self.ends.remove(&ifindex).is_some() && self.join_ends();
        self.port_gone(ifindex) || is_end
    }

    fn port_gone(&mut self, ifindex: u32) -> bool {
        let Some(port) = self.port_of(ifindex) else { return false };
        forget(&mut self.ports[port as usize]);
        self.neighbours.retain(|(p, _), _| *p != port);
        true
    }

    /// Takes in all devices there are. Whether a port changed.
    pub(super) fn links(&mut self, devices: Vec<Device>) -> bool {
        let mut changed = false;
        let known: Vec<u32> = self.ports.iter().map(|p| p.ifindex).chain(self.ends.keys().copied()).collect();
        for ifindex in known {
            if devices.iter().all(|d| d.index != ifindex) {
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

    /// What is a port of ours is sent to; what the kernel encapsulates on its way out is not ours to send.
    fn hop(&self, hop: &portcullis_netlink::Hop) -> Hop {
        Hop {
            port: hop.device.and_then(|device| self.port_of(device)),
            gateway: hop.gateway,
            mtu: hop.mtu,
            weight: hop.weight,
            kernel: hop.device.and_then(|device| self.port_to(device)),
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

/// Routes of one dump.
#[derive(Default)]
pub(super) struct RouteDump {
    local: RoutesBuilder,
    /// By prefix and priority: the kernel takes the lowest.
    main: BTreeMap<(Prefix, u32), fib::Route>,
}

impl RouteDump {
    /// Takes in a route.
    pub(super) fn add(&mut self, route: Route, tables: &Tables) {
        let Route { table, prefix: (addr, len), priority, target } = route;
        let prefix = Prefix { addr, len };
        let main = match (table, target) {
            (Table::Local, target) => {
                match target {
                    Target::Local(device) => {
                        self.local.local_at(prefix, device.and_then(|device| tables.port_to(device)))
                    }
                    Target::Broadcast => self.local.broadcast(prefix),
                    Target::Unicast(_) | Target::Refuse => &mut self.local,
                };
                return;
            }
            (Table::Main, Target::Unicast(hops)) => {
                fib::Route::Unicast(hops.iter().map(|hop| tables.hop(hop)).collect())
            }
            (Table::Main, _) => fib::Route::Refuse,
        };
        // Of equals the first of the dump is the kernel's choice.
        self.main.entry((prefix, priority)).or_insert(main);
    }

    pub(super) fn build(self) -> Routes {
        let mut builder = self.local;
        for ((prefix, _), route) in &self.main {
            builder.route(*prefix, route);
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that is up, perhaps one end of a veth pair.
    fn device(name: &str, index: u32, peer: Option<u32>) -> Device {
        let mac = [2, 0, 0, 0, 0, index as u8];
        let (is_ethernet, asks_neighbours) = (true, true);
        Device {
            name: name.into(),
            index,
            is_ethernet,
            mac,
            mtu: 1500,
            is_up: true,
            is_set_up: true,
            is_veth: false,
            asks_neighbours,
            peer,
        }
    }

    #[test]
    fn the_other_end_of_a_port_is_found_and_lost() {
        let mut tables = Tables::new(&["wan0".into(), "ipsec0-path".into()]);
        let far =
            |tables: &Tables| tables.ports().iter().map(|p| p.kernel.map(|k| k.ifindex)).collect::<Vec<_>>();
        let all = [device("wan0", 2, None), device("ipsec0-path", 3, Some(4)), device("ipsec0", 4, Some(3))];
        assert!(tables.links(all.to_vec()));
        assert_eq!(far(&tables), [None, Some(4)]);
        assert_eq!(tables.ports()[1].kernel.unwrap().mac, Mac([2, 0, 0, 0, 0, 4]));
        assert_eq!((tables.port_to(4), tables.port_to(3)), (Some(1), None));
        let hop = |device| portcullis_netlink::Hop { device: Some(device), gateway: None, mtu: 0, weight: 1 };
        assert_eq!((tables.hop(&hop(4)).port, tables.hop(&hop(4)).kernel), (None, Some(1)));
        assert_eq!((tables.hop(&hop(2)).port, tables.hop(&hop(2)).kernel), (Some(0), None));
        // Another address of it is another header of what is sent there.
        assert!(tables.link(Device { mac: [6; 6], ..all[2].clone() }));
        assert!(!tables.link(Device { mac: [6; 6], ..all[2].clone() }));
        // A pair goes together.
        assert!(tables.links(all[..1].to_vec()));
        assert_eq!((far(&tables), tables.port_of(3)), (vec![None, None], None));
        // A veth whose other end is in another namespace.
        assert!(tables.link(device("ipsec0-path", 3, None)));
        assert_eq!(far(&tables), [None, None]);
    }

    #[test]
    fn a_renamed_device_is_no_port_any_more() {
        let mut tables = Tables::new(&["a".into(), "b".into()]);
        let device = |name: &str, index: u32| device(name, index, None);
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
