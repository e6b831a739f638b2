//! Sections in `pools`: addresses and other attributes for peers that ask for some.

use super::{
    key::{Key, Kind, Naming, Objection, key},
    tree::Node,
    value::{Refused, Setting, Value, list, range},
};
use portcullis_sadb::Prefix;
use std::{collections::BTreeMap, net::IpAddr};

/// The addresses of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addresses {
    /// Those of a subnet.
    Subnet(Prefix),
    /// From one to another.
    Range(IpAddr, IpAddr),
}

impl Value for Addresses {
    const IS: &'static str = "a subnet such as 10.3.0.0/24, or a range such as 10.3.0.10-10.3.0.99";

    fn parse(text: &str) -> Option<Addresses> {
        match range(text) {
            Some((first, last)) => Some(Addresses::Range(first, last)),
            None => text.parse().ok().map(Addresses::Subnet),
        }
    }
}

/// Attributes by number (RFC 7296 §3.15.1), as they are written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Numbered(pub BTreeMap<u16, Vec<String>>);

impl Setting for Numbered {
    const ALLOWED: &'static str = String::IS;

    fn set(&mut self, name: &str, node: &Node<'_>) -> Result<(), Refused> {
        let number = name.parse().map_err(|_| Refused::default())?;
        self.0.insert(number, list(node)?);
        Ok(())
    }
}

/// A pool.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pool {
    /// Its section's name.
    pub name: String,
    /// The addresses that it gives out.
    pub addrs: Option<Addresses>,
    /// Servers of names.
    pub dns: Vec<IpAddr>,
    /// Servers of NetBIOS' names.
    pub nbns: Vec<IpAddr>,
    /// Servers of DHCP.
    pub dhcp: Vec<IpAddr>,
    /// Masks.
    pub netmask: Vec<IpAddr>,
    /// Servers.
    pub server: Vec<IpAddr>,
    /// Subnets that are behind us.
    pub subnet: Vec<Prefix>,
    /// What peers should send to us, with extensions of IKEv1.
    pub split_include: Vec<Prefix>,
    /// What they should not.
    pub split_exclude: Vec<Prefix>,
    /// Others.
    pub numbered: Numbered,
}

impl Kind for Pool {
    const KEYS: &'static [Key<Pool>] = &[
        key!(Pool.addrs = ""),
        key!(Pool.dns = ""),
        key!(Pool.nbns = ""),
        key!(Pool.dhcp = ""),
        key!(Pool.netmask = ""),
        key!(Pool.server = ""),
        key!(Pool.subnet = ""),
        key!(Pool.split_include = ""),
        key!(Pool.split_exclude = ""),
        key!(Pool.numbered named "NUMBER", Naming::Number, ""),
    ];

    fn check(&self, section: &str) -> Result<(), Objection> {
        match self.addrs {
            Some(_) => Ok(()),
            None => Err(Objection::missing(section, "addrs", "addrs = 10.3.0.0/24")),
        }
    }
}
