//! Which packets a connection or a policy is about, as `connections.toml` says it (RFC 4301 §4.4.1.1).

use portcullis_machine::strict::{ConfigError, Table, Value};
use portcullis_sadb::{ANY_PORT, OPAQUE_PORT, Prefix, Selector};
use std::{fmt, net::IpAddr, ops::RangeInclusive};

/// Prefixes that a range of addresses may be cut into.
const MOST_PIECES: usize = 64;

/// What selectors ask of the next layer: its protocol, and ports or types of messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextLayer {
    /// `None` is any.
    pub protocol: Option<u8>,
    /// Source ports of what goes out.
    pub local_ports: RangeInclusive<u16>,
    /// Destination ports of what goes out.
    pub remote_ports: RangeInclusive<u16>,
}

/// Where a table has protocol, local and remote ports.
pub struct NextLayerKeys(pub &'static str, pub &'static str, pub &'static str);

impl NextLayer {
    /// Any protocol.
    pub const ANY: NextLayer = NextLayer { protocol: None, local_ports: ANY_PORT, remote_ports: ANY_PORT };

    /// Reads the keys of a table that are about it.
    ///
    /// # Errors
    /// [`ConfigError`] names line and key.
    pub fn parse(table: &mut Table<'_>, keys: &NextLayerKeys) -> Result<NextLayer, ConfigError> {
        let NextLayerKeys(protocol_key, local, remote) = *keys;
        let protocol = match table.optional(protocol_key)? {
            Some(value) => Some(protocol(&value)?),
            None => None,
        };
        // TCP, UDP, DCCP, SCTP, UDP-Lite.
        let has_ports = matches!(protocol, Some(6 | 17 | 33 | 132 | 136));
        let (local_value, remote_value) = (table.optional(local)?, table.optional(remote)?);
        let read =
            |value: &Option<Value<'_>>| match value {
                None => Ok(ANY_PORT),
                Some(value) if has_ports => ports(value),
                Some(value) => Err(value
                    .wrong(format!("left out, or {protocol_key} must be one with ports, such as \"udp\""))),
            };
        let (mut local_ports, mut remote_ports) = (read(&local_value)?, read(&remote_value)?);
        if let (Some(value), true) =
            (&remote_value, (local_ports == OPAQUE_PORT) != (remote_ports == OPAQUE_PORT))
            && local_ports != ANY_PORT
            && remote_ports != ANY_PORT
        {
            return Err(
                value.wrong("opaque where the other is, and nowhere else: a packet shows both ports or none")
            );
        }
        for (key, owners, owner, has_code) in
            [("icmp", &[1, 58][..], "\"icmp\" or \"icmpv6\"", true), ("mobility", &[135], "135", false)]
        {
            let Some(value) = table.optional(key)? else { continue };
            if !protocol.is_some_and(|p| owners.contains(&p)) {
                return Err(value.wrong(format!("left out, or {protocol_key} must be {owner}")));
            }
            // One selector, which is the same both ways.
            local_ports = messages(&value, has_code)?;
            remote_ports = local_ports.clone();
        }
        Ok(NextLayer { protocol, local_ports, remote_ports })
    }

    /// The packets that go out from one prefix to another.
    pub fn between(&self, local: Prefix, remote: Prefix) -> Selector {
        Selector {
            src: local,
            dst: remote,
            protocol: self.protocol,
            src_ports: self.local_ports.clone(),
            dst_ports: self.remote_ports.clone(),
        }
    }
}

impl fmt::Display for NextLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(protocol) = self.protocol else { return f.write_str("any") };
        match NAMES.iter().find(|(_, number)| *number == protocol) {
            Some((name, _)) => f.write_str(name)?,
            None => write!(f, "protocol {protocol}")?,
        }
        if matches!(protocol, 1 | 58 | 135) {
            return match (self.local_ports.start(), self.local_ports.end()) {
                _ if self.local_ports == ANY_PORT => Ok(()),
                _ if self.local_ports == OPAQUE_PORT => f.write_str(" type opaque"),
                (first, last) if first == last => write!(f, " type {} code {}", first >> 8, first & 0xff),
                (first, last) if first >> 8 == last >> 8 => write!(f, " type {}", first >> 8),
                (first, last) => write!(f, " types {}-{}", first >> 8, last >> 8),
            };
        }
        for (name, ports) in [("local", &self.local_ports), ("remote", &self.remote_ports)] {
            match (ports.start(), ports.end()) {
                _ if *ports == ANY_PORT => {}
                _ if *ports == OPAQUE_PORT => write!(f, ", {name} port opaque")?,
                (first, last) if first == last => write!(f, ", {name} port {first}")?,
                (first, last) => write!(f, ", {name} ports {first}-{last}")?,
            }
        }
        Ok(())
    }
}

const NAMES: [(&str, u8); 4] = [("icmp", 1), ("tcp", 6), ("udp", 17), ("icmpv6", 58)];

/// An address or prefix.
///
/// # Errors
/// [`ConfigError`] names line and key, and the prefix that was meant.
pub fn prefix(value: &Value<'_>) -> Result<Prefix, ConfigError> {
    let expected = || {
        value.wrong("an address, a prefix or a range, such as \"10.1.0.0/16\", \"fd00:1::/64\" or \"10.1.0.5-10.1.0.9\"")
    };
    let text = value.text()?;
    let prefix: Prefix = text.parse().map_err(|_| expected())?;
    let written: Option<IpAddr> = text.split('/').next().and_then(|a| a.parse().ok());
    match written == Some(prefix.addr()) {
        true => Ok(prefix),
        false => {
            Err(value.wrong(format!("a prefix without bits behind its length: did you mean \"{prefix}\"?")))
        }
    }
}

/// A list of addresses, prefixes and ranges, as prefixes.
///
/// # Errors
/// [`ConfigError`] names line and key.
pub fn prefixes(value: &Value<'_>) -> Result<Vec<Prefix>, ConfigError> {
    let list = value.list()?;
    if list.is_empty() {
        return Err(value.wrong("a list of at least one prefix"));
    }
    let mut all = vec![];
    for item in &list {
        match item.text()?.split_once('-') {
            Some((first, last)) => all.extend(range(item, first, last)?),
            None => all.push(prefix(item)?),
        }
    }
    Ok(all)
}

fn range(value: &Value<'_>, first: &str, last: &str) -> Result<Vec<Prefix>, ConfigError> {
    let pieces = match (first.trim().parse(), last.trim().parse()) {
        (Ok(IpAddr::V4(a)), Ok(IpAddr::V4(b))) if a <= b => cover(a.to_bits().into(), b.to_bits().into(), 32),
        (Ok(IpAddr::V6(a)), Ok(IpAddr::V6(b))) if a <= b => cover(a.to_bits(), b.to_bits(), 128),
        _ => {
            return Err(value.wrong(
                "a range of addresses of one family, the lower one first, such as \"10.1.0.5-10.1.0.9\"",
            ));
        }
    };
    match pieces.len() {
        ..=MOST_PIECES => Ok(pieces),
        len => Err(value.wrong(format!(
            "a range that needs at most {MOST_PIECES} prefixes, this one needs {len}: begin and end it at rounder addresses"
        ))),
    }
}

/// The fewest prefixes that have together just the addresses from one to another, of so many bits.
pub(crate) fn cover(mut first: u128, last: u128, bits: u32) -> Vec<Prefix> {
    let mut pieces = vec![];
    loop {
        // As many low bits as are free at the beginning, and as do not lead beyond the end.
        let fits = (last - first).checked_add(1).map_or(128, u128::ilog2);
        let free = first.trailing_zeros().min(fits).min(bits);
        let addr = if bits == 32 { IpAddr::V4((first as u32).into()) } else { IpAddr::V6(first.into()) };
        pieces.push(Prefix::new(addr, (bits - free) as u8).expect("no more than all bits"));
        match first.checked_add(1u128.checked_shl(free).unwrap_or(0)) {
            Some(next) if free < 128 && next <= last => first = next,
            _ => return pieces,
        }
    }
}

fn protocol(value: &Value<'_>) -> Result<u8, ConfigError> {
    let named = match value.text() {
        Ok(text) => NAMES.iter().find(|(name, _)| *name == text).map(|(_, p)| *p).or(text.parse().ok()),
        Err(_) => value.number_in(0..=255).ok().map(|n| n as u8),
    };
    named.ok_or_else(|| value.wrong("\"tcp\", \"udp\", \"icmp\", \"icmpv6\" or a number from 0 to 255"))
}

fn ports(value: &Value<'_>) -> Result<RangeInclusive<u16>, ConfigError> {
    let text = value.text()?;
    if text == "opaque" {
        return Ok(OPAQUE_PORT);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err(value.wrong("a port such as \"53\", a range such as \"1000-2000\", or \"opaque\"")),
    }
}

/// Types of messages, with a code where there are codes: the type in the upper octet (RFC 4301 §4.4.1.1).
fn messages(value: &Value<'_>, has_code: bool) -> Result<RangeInclusive<u16>, ConfigError> {
    let text = value.text()?;
    if text == "opaque" {
        return Ok(OPAQUE_PORT);
    }
    let octet = |text: &str| text.trim().parse::<u8>().ok().map(u16::from);
    let types = |first, last| match (octet(first), octet(last)) {
        (Some(first), Some(last)) if first <= last => Some(first << 8..=last << 8 | 0xff),
        _ => None,
    };
    let found = match (text.split_once('/'), text.split_once('-')) {
        (Some((of, code)), None) if has_code => {
            octet(of).zip(octet(code)).map(|(of, code)| of << 8 | code).map(|number| number..=number)
        }
        (None, Some((first, last))) => types(first, last),
        (None, None) => types(text, text),
        _ => None,
    };
    found.ok_or_else(|| {
        let code = if has_code { "with a code such as \"8/0\", " } else { "" };
        value.wrong(format!("a type such as \"8\", {code}a range of types such as \"0-8\", or \"opaque\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_the_fewest_prefixes() {
        let shown = |first: &str, last: &str| {
            let bits = |a: &str| match a.parse().unwrap() {
                IpAddr::V4(a) => a.to_bits() as u128,
                IpAddr::V6(a) => a.to_bits(),
            };
            let of = if first.contains(':') { 128 } else { 32 };
            let pieces = cover(bits(first), bits(last), of);
            pieces.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("10.1.0.5", "10.1.0.9"), "10.1.0.5/32 10.1.0.6/31 10.1.0.8/31");
        assert_eq!(shown("10.1.0.5", "10.1.0.5"), "10.1.0.5/32");
        assert_eq!(shown("0.0.0.0", "255.255.255.255"), "0.0.0.0/0");
        assert_eq!(shown("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), "::/0");
        assert_eq!(shown("fd00::ffff", "fd00::1:0"), "fd00::ffff/128 fd00::1:0/128");
        let most = cover(1, u128::MAX - 1, 128);
        assert_eq!(most.len(), 254);
    }

    #[test]
    fn pieces_have_all_addresses_of_a_range_and_no_others() {
        for first in 0..64u128 {
            for last in first..64 {
                let pieces = cover(first, last, 32);
                for address in 0..70u32 {
                    let inside = pieces.iter().filter(|p| p.contains(IpAddr::V4(address.into()))).count();
                    assert_eq!(
                        inside,
                        usize::from((first..=last).contains(&address.into())),
                        "{first}-{last}"
                    );
                }
                // Two that could be one are not.
                let could_be_one = |a: &Prefix, b: &Prefix| {
                    a.len() == b.len()
                        && Prefix::new(a.addr(), a.len() - 1) == Prefix::new(b.addr(), b.len() - 1)
                };
                assert!(!pieces.windows(2).any(|w| could_be_one(&w[0], &w[1])), "{first}-{last} {pieces:?}");
            }
        }
    }
}
