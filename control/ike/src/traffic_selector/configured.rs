//! Traffic selectors as strings, as `local_ts` and `remote_ts` of swanctl.conf have them.
//!
//! ```text
//!  10.1.0.0/16   10.1.0.5-10.1.0.9   fd00::1   dynamic         addresses
//!  ...[tcp]   ...[tcp/443]   ...[udp/1000-2000]   ...[17/domain]   ...[tcp/opaque]      and what is behind the IP header
//!  ...[icmp/8]   ...[icmp/0-8]   ...[icmp/3/4]   ...[icmp/3/0-3/4]      types of messages of any code, or with codes
//! ```

use super::{TrafficSelector, TrafficSelectors};
use portcullis_sadb::{ANY_PORT, OPAQUE_PORT, Prefix};
use std::{fmt, net::IpAddr, ops::RangeInclusive};

/// Protocols by name; the first name of a number is the one that is printed.
const PROTOCOLS: [(&str, u8); 17] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("ipencap", 4),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", DCCP),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", ICMPV6),
    ("ipv6-icmp", ICMPV6),
    ("ospf", 89),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", SCTP),
    ("udplite", UDP_LITE),
];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const MOBILITY: u8 = 135;
const UDP_LITE: u8 = 136;

/// Ports by name: those that IANA has given to what is often found in selectors.
const SERVICES: [(&str, u16); 20] = [
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("http", 80),
    ("kerberos", 88),
    ("ntp", 123),
    ("snmp", 161),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("isakmp", 500),
    ("syslog", 514),
    ("ldaps", 636),
    ("l2tp", 1701),
    ("radius", 1812),
];

/// Why a string is not a traffic selector.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectorError {
    /// In front of the bracket.
    #[error(
        "'{addresses}' in '{selector}' is no addresses, such as 10.1.0.0/16, 10.1.0.5-10.1.0.9, fd00::/64 or dynamic"
    )]
    Addresses {
        /// What stands for addresses.
        addresses: String,
        /// The whole.
        selector: String,
    },
    /// A bracket that is not closed, or something behind it.
    #[error("'{0}' does not end where its bracket does, as in 10.1.0.0/16[tcp/443]")]
    Bracket(String),
    /// Behind the bracket.
    #[error("'{protocol}' in '{selector}' is no protocol, such as tcp, udp, icmp or a number from 0 to 255")]
    Protocol {
        /// What stands for a protocol.
        protocol: String,
        /// The whole.
        selector: String,
    },
    /// Behind the protocol.
    #[error("'{ports}' in '{selector}' is no port, such as 443, 1000-2000, a service's name, opaque or any")]
    Ports {
        /// What stands for ports.
        ports: String,
        /// The whole.
        selector: String,
    },
    /// Ports of a protocol that has none, or of any protocol (RFC 7296 §3.13.1).
    #[error("'{0}' has ports, but not of a protocol that has some")]
    NoPorts(String),
}

/// What one side is configured with, where addresses may be those of the hosts themselves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfiguredSelectors(Vec<Configured>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Configured {
    /// `None` is dynamic.
    addresses: Option<TrafficSelector>,
    protocol: u8,
    ports: RangeInclusive<u16>,
}

impl ConfiguredSelectors {
    /// `dynamic` alone, which is swanctl's default.
    pub fn dynamic() -> ConfiguredSelectors {
        ConfiguredSelectors(vec![Configured { addresses: None, protocol: 0, ports: ANY_PORT }])
    }

    /// Those of strings.
    pub fn parse<'a>(
        selectors: impl IntoIterator<Item = &'a str>,
    ) -> Result<ConfiguredSelectors, SelectorError> {
        Ok(ConfiguredSelectors(selectors.into_iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Whether any of them is `dynamic`.
    pub fn is_dynamic(&self) -> bool {
        self.0.iter().any(|configured| configured.addresses.is_none())
    }

    /// These with `dynamic` for each of these addresses: the tunnel's outer one, or those that the side was given by
    /// configuration payloads. One that is unspecified is all of its family, as of a side that asks for some.
    pub fn with(&self, hosts: &[IpAddr]) -> TrafficSelectors {
        let each = |configured: &Configured| {
            let hosts = hosts.iter().filter_map(|host| match host.is_unspecified() {
                true if host.is_ipv4() => Some(TrafficSelector::ALL_V4),
                true => Some(TrafficSelector::ALL_V6),
                false => TrafficSelector::between(*host, *host),
            });
            let addresses = match configured.addresses {
                Some(addresses) => vec![addresses],
                None => hosts.collect(),
            };
            let of = |one: TrafficSelector| one.of(configured.protocol, configured.ports.clone());
            addresses.into_iter().filter_map(of).collect::<Vec<_>>()
        };
        TrafficSelectors::new(self.0.iter().flat_map(each))
    }
}

fn parse(selector: &str) -> Result<Configured, SelectorError> {
    let selector = selector.trim();
    let (addresses, next_layer) = match selector.split_once('[') {
        Some((addresses, rest)) => {
            let next_layer = rest.strip_suffix(']').filter(|rest| !rest.contains(['[', ']']));
            (addresses, Some(next_layer.ok_or_else(|| SelectorError::Bracket(selector.to_owned()))?))
        }
        None => (selector, None),
    };
    let addresses = match addresses.trim() {
        "dynamic" => None,
        text => Some(range(text).ok_or_else(|| SelectorError::Addresses {
            addresses: text.to_owned(),
            selector: selector.to_owned(),
        })?),
    };
    let (protocol, ports) =
        next_layer.unwrap_or("any").split_once('/').unwrap_or((next_layer.unwrap_or("any"), "any"));
    let number = protocol_of(protocol.trim()).ok_or_else(|| SelectorError::Protocol {
        protocol: protocol.to_owned(),
        selector: selector.to_owned(),
    })?;
    let ports = ports.trim();
    if matches!(ports, "" | "any") {
        return Ok(Configured { addresses, protocol: number, ports: ANY_PORT });
    }
    let found = match number {
        ICMP | ICMPV6 | MOBILITY => messages(ports),
        TCP | UDP | DCCP | SCTP | UDP_LITE => ports_of(ports),
        _ => return Err(SelectorError::NoPorts(selector.to_owned())),
    };
    let ports = found
        .ok_or_else(|| SelectorError::Ports { ports: ports.to_owned(), selector: selector.to_owned() })?;
    Ok(Configured { addresses, protocol: number, ports })
}

/// A range, a prefix or an address. As in strongSwan, bits behind a prefix do not matter.
fn range(text: &str) -> Option<TrafficSelector> {
    if let Some((first, last)) = text.split_once('-') {
        return TrafficSelector::between(first.trim().parse().ok()?, last.trim().parse().ok()?);
    }
    let prefix: Prefix = text.parse().ok()?;
    let last = match prefix.addr() {
        IpAddr::V4(first) => {
            let free = u32::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            IpAddr::V4((first.to_bits() | free).into())
        }
        IpAddr::V6(first) => {
            let free = u128::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            IpAddr::V6((first.to_bits() | free).into())
        }
    };
    TrafficSelector::between(prefix.addr(), last)
}

fn protocol_of(text: &str) -> Option<u8> {
    match text {
        "any" | "" => Some(0),
        _ => {
            PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number).or(text.parse().ok())
        }
    }
}

fn ports_of(text: &str) -> Option<RangeInclusive<u16>> {
    if text == "opaque" {
        return Some(OPAQUE_PORT);
    }
    let port = |text: &str| {
        SERVICES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number).or(text.parse().ok())
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ports = port(first.trim())?..=port(last.trim())?;
    (!ports.is_empty()).then_some(ports)
}

/// Types of messages, or types with codes; the type in the upper octet (RFC 4301 §4.4.1.1). strongSwan has type and code in
/// one number.
fn messages(text: &str) -> Option<RangeInclusive<u16>> {
    if text == "opaque" {
        return Some(OPAQUE_PORT);
    }
    // The first and the last message of a type, or the one of a code.
    let messages = |text: &str| {
        let octet = |text: &str| text.parse::<u8>().ok().map(u16::from);
        match text.trim().split_once('/') {
            Some((kind, code)) => Some(octet(kind)? << 8 | octet(code)?).map(|one| (one, one)),
            None => match text.trim().parse().ok()? {
                kind @ ..=0xff => Some((kind << 8, kind << 8 | 0xff)),
                both => Some((both, both)),
            },
        }
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let found = messages(first)?.0..=messages(last)?.1;
    (!found.is_empty()).then_some(found)
}

/// What is in the bracket; nothing if it is any protocol.
pub(super) fn write_next_layer(
    f: &mut fmt::Formatter<'_>,
    protocol: Option<u8>,
    ports: &RangeInclusive<u16>,
) -> fmt::Result {
    let Some(protocol) = protocol else { return Ok(()) };
    match PROTOCOLS.iter().find(|(_, number)| *number == protocol) {
        Some((name, _)) => write!(f, "[{name}")?,
        None => write!(f, "[{protocol}")?,
    }
    let (first, last) = (*ports.start(), *ports.end());
    let [(from, from_code), (to, to_code)] = [first, last].map(|message| (message >> 8, message & 0xff));
    let has_messages = matches!(protocol, ICMP | ICMPV6 | MOBILITY);
    match (from_code, to_code) {
        _ if *ports == ANY_PORT => {}
        _ if *ports == OPAQUE_PORT => f.write_str("/opaque")?,
        (0, 0xff) if has_messages && from == to => write!(f, "/{from}")?,
        (0, 0xff) if has_messages => write!(f, "/{from}-{to}")?,
        _ if has_messages && first == last => write!(f, "/{from}/{from_code}")?,
        _ if has_messages => write!(f, "/{from}/{from_code}-{to}/{to_code}")?,
        _ if first == last => write!(f, "/{first}")?,
        _ => write!(f, "/{first}-{last}")?,
    }
    f.write_str("]")
}

#[cfg(test)]
mod tests;
