//! One `[[connection]]` or `[[policy]]` of `connections.toml`.

use crate::secret::Secret;
use portcullis_machine::strict::{ConfigError, Place, Table, Value};
use portcullis_sadb::{
    ANY_PORT, Action, Algorithm, NAME_ROOM, Prefix, Protocol, REPLAY_WINDOW, Selector, Spi,
};
use std::{net::IpAddr, ops::RangeInclusive};

/// Priority of the policies of connections; the lowest wins.
pub const CONNECTION_PRIORITY: u32 = 1000;

/// A manually keyed connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// Our outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// What is behind us.
    pub local_ts: Vec<Prefix>,
    /// What is behind the peer.
    pub remote_ts: Vec<Prefix>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// In packets.
    pub replay_window: u32,
    /// The transform.
    pub algorithm: Algorithm,
    /// ESP in UDP 4500.
    pub udp_encap: bool,
    /// What we receive with.
    pub inbound: Keying,
    /// What we send with.
    pub outbound: Keying,
}

/// SPI and key of one direction.
#[derive(Clone, Debug)]
pub struct Keying {
    /// The SPI.
    pub spi: Spi,
    /// Key, then salt.
    pub key: Secret,
}

/// A policy that is no connection's. It goes both ways: what goes out as it is written, and what comes back.
#[derive(Clone, Debug)]
pub struct Exception {
    /// Its name.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// Bypass or Discard.
    pub action: Action,
    /// What it is about, as it goes out.
    pub selector: Selector,
    /// The lowest wins.
    pub priority: u32,
}

impl Connection {
    /// Octets that it has on the heap.
    pub(crate) fn heap_octets(&self) -> usize {
        let prefixes = (self.local_ts.capacity() + self.remote_ts.capacity()) * size_of::<Prefix>();
        let keys = self.inbound.key.heap_octets() + self.outbound.key.heap_octets();
        self.name.capacity() + self.place.file.capacity() + prefixes + keys
    }

    /// Reads a `[[connection]]`.
    ///
    /// # Errors
    /// [`ConfigError`] names line, connection and key.
    pub fn parse(mut table: Table<'_>) -> Result<Connection, ConfigError> {
        let place = table.place();
        let name = name(&mut table, "\"site-b\"")?;
        table.rename(format!("connection '{name}'"));
        let local = address(&table.required("local", "\"192.0.2.1\"")?)?;
        let remote = table.required("remote", "\"198.51.100.1\"")?;
        let peer = address(&remote)?;
        if peer.is_ipv4() != local.is_ipv4() {
            return Err(remote.wrong(format!("of the same family as local, {local}")));
        }
        if peer == local {
            return Err(remote.wrong("the peer's address; this is local's"));
        }
        let local_ts = prefixes(&table.required("local_ts", "[\"10.1.0.0/16\"]")?)?;
        let remote_value = table.required("remote_ts", "[\"10.2.0.0/16\"]")?;
        let remote_ts = prefixes(&remote_value)?;
        let is_pair = |l: &Prefix| remote_ts.iter().any(|r| r.addr().is_ipv4() == l.addr().is_ipv4());
        if !local_ts.iter().any(is_pair) {
            return Err(remote_value.wrong("prefixes of a family that local_ts has too"));
        }
        let esn = match table.optional("esn")? {
            Some(value) => value.flag()?,
            None => true,
        };
        let replay_window = match table.optional("replay_window")? {
            Some(value) => replay_window(&value)?,
            None => 1024,
        };
        let algorithm = algorithm(&table.required("algorithm", "\"aes-gcm-128\"")?)?;
        let udp_encap = match table.optional("udp_encap")? {
            Some(value) => value.flag()?,
            None => false,
        };
        let inbound = keying(&mut table, "inbound", &name, algorithm)?;
        let outbound = keying(&mut table, "outbound", &name, algorithm)?;
        table.finish()?;
        Ok(Connection {
            name,
            place,
            local,
            remote: peer,
            local_ts,
            remote_ts,
            esn,
            replay_window,
            algorithm,
            udp_encap,
            inbound,
            outbound,
        })
    }

    /// The pairs of prefixes that it protects: ours and the peer's, of one family.
    pub fn pairs(&self) -> impl Iterator<Item = (Prefix, Prefix)> + '_ {
        self.local_ts.iter().flat_map(|local| {
            let same = |remote: &&Prefix| remote.addr().is_ipv4() == local.addr().is_ipv4();
            self.remote_ts.iter().filter(same).map(|remote| (*local, *remote))
        })
    }
}

impl Exception {
    /// Reads a `[[policy]]`.
    ///
    /// # Errors
    /// [`ConfigError`] names line, policy and key.
    pub fn parse(mut table: Table<'_>) -> Result<Exception, ConfigError> {
        let place = table.place();
        let name = name(&mut table, "\"dns\"")?;
        table.rename(format!("policy '{name}'"));
        let action = table
            .required("action", "\"bypass\"")?
            .one_of(&[("bypass", Action::Bypass), ("discard", Action::Discard)])?;
        let src = prefix(&table.required("src", "\"10.1.0.0/16\"")?)?;
        let dst_value = table.required("dst", "\"10.2.0.53/32\"")?;
        let dst = prefix(&dst_value)?;
        if src.addr().is_ipv4() != dst.addr().is_ipv4() {
            return Err(dst_value.wrong(format!("of the same family as src, {src}")));
        }
        let protocol = match table.optional("protocol")? {
            Some(value) => Some(protocol(&value)?),
            None => None,
        };
        let src_ports = ports(&mut table, "src_ports", protocol)?;
        let dst_ports = ports(&mut table, "dst_ports", protocol)?;
        let priority = table.required("priority", "100")?.number_in(1..=u64::from(u32::MAX - 1))? as u32;
        table.finish()?;
        let selector = Selector { src, dst, protocol, src_ports, dst_ports };
        Ok(Exception { name, place, action, selector, priority })
    }
}

fn name(table: &mut Table<'_>, example: &str) -> Result<String, ConfigError> {
    let value = table.required("name", example)?;
    let name = value.text()?;
    // It stands in one line of status and of errors, in quotes.
    let is_plain = !name.contains(|c: char| c.is_control() || c == '\'');
    match (1..=NAME_ROOM).contains(&name.len()) && is_plain && name.trim() == name {
        true => Ok(name.to_owned()),
        false => Err(value.wrong(format!("a name of 1 to {NAME_ROOM} octets, without quotes"))),
    }
}

fn address(value: &Value<'_>) -> Result<IpAddr, ConfigError> {
    let unicast = |a: &IpAddr| !a.is_unspecified() && !a.is_multicast() && !a.is_loopback();
    let address = value.text()?.parse().ok().filter(unicast);
    address.ok_or_else(|| value.wrong("the address of a gateway, such as \"192.0.2.1\" or \"2001:db8::1\""))
}

fn prefix(value: &Value<'_>) -> Result<Prefix, ConfigError> {
    let expected = || value.wrong("an address or prefix, such as \"10.1.0.0/16\" or \"fd00:1::/64\"");
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

fn prefixes(value: &Value<'_>) -> Result<Vec<Prefix>, ConfigError> {
    let list = value.list()?;
    if list.is_empty() {
        return Err(value.wrong("a list of at least one prefix"));
    }
    list.iter().map(prefix).collect()
}

fn algorithm(value: &Value<'_>) -> Result<Algorithm, ConfigError> {
    // There are too many to tell all of them.
    Algorithm::by_name(Protocol::Esp, value.text()?).ok_or_else(|| {
        value.wrong("an algorithm of ESP, such as \"aes-gcm-128\" or \"aes-cbc-256+hmac-sha2-256-128\"")
    })
}

fn replay_window(value: &Value<'_>) -> Result<u32, ConfigError> {
    let (least, most) = (*REPLAY_WINDOW.start(), *REPLAY_WINDOW.end());
    let window = value.number_in(0..=u64::MAX)?;
    match u32::try_from(window) {
        Ok(w) if w == 0 || REPLAY_WINDOW.contains(&w) && w.is_multiple_of(64) => Ok(w),
        _ => Err(value.wrong(format!("a multiple of 64 from {least} to {most}, or 0 for no check"))),
    }
}

fn keying(
    table: &mut Table<'_>,
    direction: &'static str,
    name: &str,
    algorithm: Algorithm,
) -> Result<Keying, ConfigError> {
    let Some(mut table) = table.optional_table(direction)? else {
        let example = format!("[connection.{direction}] with spi and key below it");
        return Err(table.missing(direction, &example));
    };
    table.rename(format!("connection '{name}', {direction}"));
    let spi = spi(&table.required("spi", "\"0x00001001\"")?)?;
    let value = table.required("key", "\"0x<hex digits of the keys, then of the salt>\"")?;
    let key = Secret::from_hex(value.text()?)
        .ok_or_else(|| value.wrong_secret("0x and an even number of hex digits: keys, then salt"))?;
    let have = key.bytes().len();
    if have != algorithm.key_len() + algorithm.salt_len() {
        return Err(ConfigError::Contradiction {
            place: value.place().clone(),
            why: format!(
                "connection '{name}': {direction}.key is {have} bytes, {} wants {}",
                algorithm.name(),
                wanted(algorithm)
            ),
        });
    }
    table.finish()?;
    Ok(Keying { spi, key })
}

/// The parts of an algorithm's key material, in order.
fn wanted(algorithm: Algorithm) -> String {
    let (encryption, integrity) = (algorithm.encryption().transform(), algorithm.integrity().transform());
    let all = [
        (encryption.key, "key"),
        (integrity.key, if encryption.key > 0 { "integrity key" } else { "key" }),
        (algorithm.salt_len(), "salt"),
    ];
    let parts: Vec<_> =
        all.iter().filter(|(len, _)| *len > 0).map(|(len, of)| format!("{len} of {of}")).collect();
    let (last, before) = parts.split_last().expect("every algorithm has a key");
    let len = algorithm.key_len() + algorithm.salt_len();
    match before {
        [] => last.clone(),
        _ => format!("{} and {last}, {len} in all", before.join(", ")),
    }
}

fn spi(value: &Value<'_>) -> Result<Spi, ConfigError> {
    let digits = value.text()?.strip_prefix("0x");
    let digits = digits.filter(|d| (1..=8).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_hexdigit()));
    let spi = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
    // RFC 4303 §2.1: 0 is for local use, 1 to 255 are reserved.
    match spi {
        Some(spi @ 256..) => Ok(Spi(spi)),
        _ => Err(value.wrong("0x and up to 8 hex digits, 0x100 or more, such as \"0x00001001\"")),
    }
}

fn protocol(value: &Value<'_>) -> Result<u8, ConfigError> {
    let named = match value.text() {
        Ok("icmp") => Some(1),
        Ok("tcp") => Some(6),
        Ok("udp") => Some(17),
        Ok("icmpv6") => Some(58),
        Ok(other) => other.parse().ok(),
        Err(_) => value.number_in(0..=255).ok().map(|n| n as u8),
    };
    named.ok_or_else(|| value.wrong("\"tcp\", \"udp\", \"icmp\", \"icmpv6\" or a number from 0 to 255"))
}

fn ports(
    table: &mut Table<'_>,
    key: &'static str,
    protocol: Option<u8>,
) -> Result<RangeInclusive<u16>, ConfigError> {
    let Some(value) = table.optional(key)? else { return Ok(ANY_PORT) };
    // TCP, UDP, DCCP, SCTP, UDP-Lite.
    if !matches!(protocol, Some(6 | 17 | 33 | 132 | 136)) {
        return Err(value.wrong("left out, or protocol must be one with ports, such as \"udp\""));
    }
    let text = value.text()?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err(value.wrong("a port such as \"53\" or a range such as \"1000-2000\"")),
    }
}
