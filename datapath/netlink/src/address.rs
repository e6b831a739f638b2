//! Addresses of this machine.

use crate::{FAMILIES, Requests, Topic};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
};
use std::{io, net::IpAddr};

/// An address as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Address {
    /// The index of its device.
    pub device: u32,
    /// What packets to this machine have.
    pub ip: IpAddr,
    /// Others may reach it: it is no link's and no machine's own, and the kernel uses it for what is new.
    pub is_global: bool,
}

impl Address {
    /// What an address message says.
    pub fn of(message: &AddressMessage) -> Option<Address> {
        let (mut local, mut address, mut flags) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(all) => flags = all.bits(),
                _ => {}
            }
        }
        let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated;
        flags |= u32::from(message.header.flags.bits());
        let is_usable = flags & unusable.bits() == 0;
        // Of a link between two, the other end is the address.
        let ip = local.or(address)?;
        let is_global = message.header.scope == AddressScope::Universe && is_usable;
        Some(Address { device: message.header.index, ip, is_global })
    }
}

impl Requests {
    /// The addresses of this network namespace.
    ///
    /// # Errors
    /// What the system says.
    pub fn addresses(&mut self) -> io::Result<Vec<Address>> {
        let mut all = vec![];
        for family in FAMILIES {
            self.dump(Topic::Addresses(family), |message| {
                if let RouteNetlinkMessage::NewAddress(message) = message {
                    all.extend(Address::of(&message));
                }
            })?;
        }
        Ok(all)
    }

    /// Gives a device an address by itself, unless it has it. Nobody is asked whether it is another's.
    ///
    /// # Errors
    /// What the system says.
    pub fn add_address(&mut self, device: u32, ip: IpAddr) -> io::Result<()> {
        let mut message = message(device, ip);
        message.header.flags = AddressHeaderFlags::Nodad;
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove_address(&mut self, device: u32, ip: IpAddr) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelAddress(message(device, ip)), 0)
    }
}

fn message(device: u32, ip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    let (family, bits) = if ip.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
    message.header.family = family;
    message.header.prefix_len = bits;
    message.header.index = device;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_link_that_is_here_counts_and_what_is_on_trial_does_not() {
        let [here, there]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let mut link = message(7, here);
        link.attributes = vec![AddressAttribute::Address(there), AddressAttribute::Local(here)];
        assert_eq!(Address::of(&link), Some(Address { device: 7, ip: here, is_global: true }));
        link.attributes.push(AddressAttribute::Flags(AddressFlags::Tentative | AddressFlags::Permanent));
        assert!(!Address::of(&link).unwrap().is_global);
        let mut loopback = message(1, "127.0.0.1".parse().unwrap());
        loopback.header.scope = AddressScope::Host;
        assert!(!Address::of(&loopback).unwrap().is_global);
        assert_eq!(Address::of(&AddressMessage::default()), None);
    }
}
