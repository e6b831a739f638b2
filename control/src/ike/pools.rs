//! Pools of addresses for peers: of `swanctl.conf` for the engine, and who has which for people.

use super::{
    Ike,
    configured::{Unusable, last_of, unusable},
};
use crate::{
    report::PoolReport,
    swanctl::pool::{Addresses, Pool},
};
use portcullis_ike::{
    message::{ConfigurationAttribute, ConfigurationAttributeType as Kind},
    pool as ike,
};
use portcullis_sadb::Prefix;
use std::{net::IpAddr, sync::Arc};

/// A pool for the engine. Of a subnet with more than two addresses, the first and the last are nobody's, as a network's and
/// that of all of its hosts.
///
/// # Errors
/// The first attribute that cannot be used.
pub(super) fn pool(from: &Pool) -> Result<ike::Pool, Unusable> {
    let key = |key: &str| format!("pools.{}.{key}", from.name);
    let (first, last) = match &from.addrs {
        Some(Addresses::Range(first, last)) => (*first, *last),
        Some(Addresses::Subnet(subnet)) => inside(subnet.addr(), last_of(subnet)),
        None => return Err(unusable(key("addrs"), "there is none")),
    };
    let mut attributes = vec![];
    for (name, addresses, [v4, v6]) in [
        ("dns", &from.dns, [Some(Kind::INTERNAL_IP4_DNS), Some(Kind::INTERNAL_IP6_DNS)]),
        ("nbns", &from.nbns, [Some(Kind::INTERNAL_IP4_NBNS), None]),
        ("dhcp", &from.dhcp, [Some(Kind::INTERNAL_IP4_DHCP), Some(Kind::INTERNAL_IP6_DHCP)]),
        ("netmask", &from.netmask, [Some(Kind::INTERNAL_IP4_NETMASK), None]),
        ("server", &from.server, [Some(Kind::INTERNAL_IP4_SERVER), Some(Kind::INTERNAL_IP6_SERVER)]),
    ] {
        for address in addresses {
            let kind = if address.is_ipv4() { v4 } else { v6 };
            let kind = kind.ok_or_else(|| unusable(key(name), "there is none of IPv6"))?;
            attributes.push(ConfigurationAttribute::of_address(kind, *address));
        }
    }
    let subnets = from.subnet.iter().map(|subnet| match subnet.addr() {
        IpAddr::V4(_) => masked(Kind::INTERNAL_IP4_SUBNET, subnet),
        IpAddr::V6(_) => masked(Kind::INTERNAL_IP6_SUBNET, subnet),
    });
    attributes.extend(subnets);
    for (name, subnets, kind) in [
        ("split_include", &from.split_include, Kind::UNITY_SPLIT_INCLUDE),
        ("split_exclude", &from.split_exclude, Kind::UNITY_LOCAL_LAN),
    ] {
        if subnets.iter().any(|subnet| subnet.addr().is_ipv6()) {
            return Err(unusable(key(name), "there is none of IPv6; write it into subnet"));
        }
        attributes.extend(subnets.iter().map(|subnet| masked(kind, subnet)));
    }
    for (number, texts) in &from.numbered.0 {
        let of = |text: &String| ConfigurationAttribute { kind: Kind(*number), value: octets(text) };
        attributes.extend(texts.iter().map(of));
    }
    Ok(ike::Pool { name: from.name.clone(), first, last, attributes })
}

/// Without the first and the last of more than two.
fn inside(first: IpAddr, last: IpAddr) -> (IpAddr, IpAddr) {
    match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) if b.to_bits() - a.to_bits() > 1 => {
            (IpAddr::V4((a.to_bits() + 1).into()), IpAddr::V4((b.to_bits() - 1).into()))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if b.to_bits() - a.to_bits() > 1 => {
            (IpAddr::V6((a.to_bits() + 1).into()), IpAddr::V6((b.to_bits() - 1).into()))
        }
        both => both,
    }
}

/// A subnet: of IPv4 with a mask, of IPv6 with a length (RFC 7296 §3.15.1).
fn masked(kind: Kind, subnet: &Prefix) -> ConfigurationAttribute {
    let value = match subnet.addr() {
        IpAddr::V4(v4) => {
            let mask = !u32::MAX.checked_shr(subnet.len().into()).unwrap_or(0);
            [v4.octets(), mask.to_be_bytes()].concat()
        }
        IpAddr::V6(v6) => [&v6.octets()[..], &[subnet.len()]].concat(),
    };
    ConfigurationAttribute { kind, value }
}

/// An address, a subnet, octets in hex behind `0x`, or text.
fn octets(text: &str) -> Vec<u8> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
    }
    if let Ok(subnet) = text.parse::<Prefix>() {
        return masked(Kind(0), &subnet).value;
    }
    let hex = text.strip_prefix("0x").and_then(|digits| {
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let octet = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
        pairs.iter().map(octet).collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty())
    });
    hex.unwrap_or_else(|| text.as_bytes().to_vec())
}

impl Ike {
    /// Takes a pool in, in the place of one of the same name.
    ///
    /// # Errors
    /// What of it cannot be used, or that somebody has addresses of the one before; then all is as before.
    pub fn load_pool(&mut self, from: Pool) -> Result<(), Unusable> {
        let pool = pool(&from)?;
        let before = self.config.pools.iter_mut().find(|before| before.name == pool.name);
        let is_in_use = self.engine.leases().counts(&pool.name).0 > 0;
        match before {
            Some(before) => {
                if (before.first, before.last) != (pool.first, pool.last) {
                    if is_in_use {
                        return Err(unusable(format!("pools.{}.addrs", pool.name), IN_USE));
                    }
                    self.engine.forget_pool(&pool.name);
                }
                *before = Arc::new(pool);
            }
            None => self.config.pools.push(Arc::new(pool)),
        }
        match self.swanctl.pools.iter_mut().find(|before| before.name == from.name) {
            Some(before) => *before = from,
            None => self.swanctl.pools.push(from),
        }
        Ok(())
    }

    /// Forgets a pool.
    ///
    /// # Errors
    /// That there is none, or that somebody has addresses of it.
    pub fn unload_pool(&mut self, name: &str) -> Result<(), String> {
        if self.engine.leases().counts(name).0 > 0 {
            return Err(format!("pool '{name}': {IN_USE}"));
        }
        self.engine.forget_pool(name);
        let before = self.swanctl.pools.len();
        self.swanctl.pools.retain(|pool| pool.name != name);
        self.config.pools.retain(|pool| pool.name != name);
        match self.swanctl.pools.len() < before {
            true => Ok(()),
            false => Err(format!("there is no '{name}'")),
        }
    }

    /// The pools, and how many addresses of each somebody has, or had.
    pub fn pools(&self) -> Vec<PoolReport> {
        let of = |pool: &Arc<ike::Pool>| {
            let (online, offline) = self.engine.leases().counts(&pool.name);
            let (base, size) = (pool.first.to_string(), u64::try_from(pool.size()).unwrap_or(u64::MAX));
            PoolReport { name: pool.name.clone(), base, size, online, offline }
        };
        self.config.pools.iter().map(of).collect()
    }
}

const IN_USE: &str = "peers have addresses of it; end their IKE SAs first";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swanctl::tests::parse;

    fn made(text: &str) -> Result<ike::Pool, Unusable> {
        pool(&parse(&format!("pools {{ p {{ {text} }} }}")).unwrap().pools[0])
    }

    #[test]
    fn a_pool_has_the_hosts_of_its_subnet() {
        for (addrs, first, last) in [
            ("10.3.0.0/24", "10.3.0.1", "10.3.0.254"),
            ("10.3.0.4/31", "10.3.0.4", "10.3.0.5"),
            ("10.3.0.4/32", "10.3.0.4", "10.3.0.4"),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:fffe"),
            ("10.3.0.0-10.3.0.255", "10.3.0.0", "10.3.0.255"),
        ] {
            let pool = made(&format!("addrs = {addrs}")).unwrap();
            assert_eq!((pool.first.to_string(), pool.last.to_string()), (first.into(), last.into()));
        }
    }

    // RFC 7296 §3.15.1
    #[test]
    fn attributes_are_those_of_their_families() {
        let pool = made(
            "addrs = 10.3.0.0/24\n dns = 10.3.0.1, fd00::1\n subnet = 10.1.0.0/16, fd00:1::/32\n \
             split_include = 10.1.0.0/12\n 28672 = banner\n 300 = 0x0a1b, 10.0.0.1",
        );
        let shown: Vec<_> = pool.unwrap().attributes.into_iter().map(|a| (a.kind.0, a.value)).collect();
        let v6 = |first: [u8; 4], rest: &[u8]| [&first[..], &[0; 11], rest].concat();
        assert_eq!(
            shown,
            [
                (3, vec![10, 3, 0, 1]),
                (10, v6([0xfd, 0, 0, 0], &[1])),
                (13, vec![10, 1, 0, 0, 255, 255, 0, 0]),
                (15, v6([0xfd, 0, 0, 1], &[0, 32])),
                (28676, vec![10, 0, 0, 0, 255, 240, 0, 0]),
                (300, vec![0x0a, 0x1b]),
                (300, vec![10, 0, 0, 1]),
                (28672, b"banner".to_vec()),
            ]
        );
        let why = made("addrs = 10.3.0.0/24\n nbns = fd00::1").unwrap_err();
        assert_eq!(why.to_string(), "pools.p.nbns: there is none of IPv6");
    }
}
