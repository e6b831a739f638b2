//! What users write of connections: `connections.toml`.

use crate::secret::Secret;
use portcullis_sadb::{ANY_PORT, Algorithm, Prefix, REPLAY_WINDOW, Spi};
use serde::Deserialize;
use std::{
    collections::{HashMap, HashSet},
    fs,
    net::IpAddr,
    ops::RangeInclusive,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// The connections' file, in the configuration directory.
pub const CONNECTIONS_FILE: &str = "connections.toml";
/// The key that says that one knows what manual keys are.
pub const MANUAL_KEYS: &str = "manual_keys_repeat_nonces_when_the_regions_are_lost";

/// Priority of connections' policies.
pub const CONNECTION_PRIORITY: u32 = 1000;

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, has a key that there is not, or a value of another kind.
    #[error("{path}: line {line}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// Why.
        message: String,
    },
    /// Others may read the keys.
    #[error("{path}: mode {mode:04o} lets others read the keys in it; chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A value that cannot be.
    #[error("{path}: {at}: {key} {why}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which connection or policy.
        at: String,
        /// The key.
        key: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
}

/// A manually keyed connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name.
    pub name: String,
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

/// A policy that is no connection's.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Its name.
    pub name: String,
    /// Bypass, or Discard.
    pub bypass: bool,
    /// From where.
    pub src: Prefix,
    /// To where.
    pub dst: Prefix,
    /// Upper protocol; any if not given.
    pub protocol: Option<u8>,
    /// Source ports.
    pub src_ports: RangeInclusive<u16>,
    /// Destination ports.
    pub dst_ports: RangeInclusive<u16>,
    /// The lowest wins.
    pub priority: u32,
}

/// `connections.toml`, checked.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// Manual keys are known to be dangerous.
    pub manual_keys_acknowledged: bool,
    /// The connections.
    pub connections: Vec<Connection>,
    /// The other policies.
    pub policies: Vec<Extra>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    manual_keys_repeat_nonces_when_the_regions_are_lost: bool,
    #[serde(default)]
    connection: Vec<RawConnection>,
    #[serde(default)]
    policy: Vec<RawPolicy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConnection {
    name: String,
    local: IpAddr,
    remote: IpAddr,
    local_ts: Vec<String>,
    remote_ts: Vec<String>,
    #[serde(default = "yes")]
    esn: bool,
    #[serde(default = "window")]
    replay_window: u32,
    algorithm: String,
    #[serde(default)]
    udp_encap: bool,
    inbound: RawKeying,
    outbound: RawKeying,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeying {
    spi: String,
    key: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    name: String,
    action: String,
    src: String,
    dst: String,
    protocol: Option<String>,
    src_ports: Option<String>,
    dst_ports: Option<String>,
    priority: u32,
}

fn yes() -> bool {
    true
}

fn window() -> u32 {
    1024
}

impl Connections {
    /// Reads the file in a configuration directory.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the connection and the key.
    pub fn load(directory: &Path) -> Result<Connections, ConfigError> {
        let path = directory.join(CONNECTIONS_FILE);
        let failed = |source| ConfigError::Read { path: path.clone(), source };
        let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ConfigError::Mode { path, mode });
        }
        Connections::parse(&path, &fs::read_to_string(&path).map_err(failed)?)
    }

    /// Takes a text for that file.
    ///
    /// # Errors
    /// As [`Connections::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Connections, ConfigError> {
        // The parser's own excerpt of the text could show a key.
        let raw: RawFile = toml::from_str(text).map_err(|e: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: e.span().map_or(0, |s| text[..s.start].matches('\n').count() + 1),
            message: e.message().to_owned(),
        })?;
        let file = At { path, at: String::new() };
        let connections: Vec<Connection> =
            raw.connection.into_iter().map(|c| connection(path, c)).collect::<Result<_, _>>()?;
        let policies = raw.policy.into_iter().map(|p| extra(path, p)).collect::<Result<_, _>>()?;
        let checked = Connections {
            manual_keys_acknowledged: raw.manual_keys_repeat_nonces_when_the_regions_are_lost,
            connections,
            policies,
        };
        checked.check(&file)?;
        Ok(checked)
    }

    /// What no two of them may share.
    fn check(&self, file: &At<'_>) -> Result<(), ConfigError> {
        let (mut names, mut spis, mut keys) = (HashSet::new(), HashMap::new(), HashMap::new());
        for c in &self.connections {
            let at = file.at(format!("connection '{}'", c.name));
            if !names.insert(&c.name) {
                return at.wrong("name", "is taken by an earlier connection; rename one");
            }
            if let Some(other) = spis.insert(c.inbound.spi, &c.name) {
                return at
                    .wrong("inbound.spi", format!("{} is that of connection '{other}' too", c.inbound.spi));
            }
            for (key, which) in [(&c.inbound.key, "inbound.key"), (&c.outbound.key, "outbound.key")] {
                // RFC 4106 §3: two senders with one key repeat nonces.
                if let Some(other) = keys.insert(key.bytes().to_vec(), (&c.name, which)) {
                    let why = format!(
                        "is also {} of connection '{}'; each direction has its own key",
                        other.1, other.0
                    );
                    return at.wrong(which, why);
                }
            }
        }
        for (i, c) in self.connections.iter().enumerate() {
            for other in &self.connections[..i] {
                let same = |a: &[Prefix], b: &[Prefix]| a.iter().find(|p| b.contains(p)).copied();
                if let (Some(src), Some(dst)) =
                    (same(&c.local_ts, &other.local_ts), same(&c.remote_ts, &other.remote_ts))
                {
                    let at = file.at(format!("connection '{}'", c.name));
                    let why = format!("overlap with connection '{}': both have {src} -> {dst}", other.name);
                    return at.wrong("local_ts and remote_ts:", why);
                }
            }
        }
        Ok(())
    }
}

/// Where something is wrong.
struct At<'a> {
    path: &'a Path,
    at: String,
}

impl At<'_> {
    fn at(&self, at: String) -> At<'_> {
        At { path: self.path, at }
    }

    fn wrong<T>(&self, key: &'static str, why: impl Into<String>) -> Result<T, ConfigError> {
        Err(ConfigError::Value { path: self.path.to_owned(), at: self.at.clone(), key, why: why.into() })
    }
}

fn connection(path: &Path, raw: RawConnection) -> Result<Connection, ConfigError> {
    let at = At { path, at: format!("connection '{}'", raw.name) };
    if raw.name.is_empty() || raw.name.len() > portcullis_sadb::NAME_ROOM {
        return at.wrong(
            "name",
            format!("has {} octets; 1 to {} are possible", raw.name.len(), portcullis_sadb::NAME_ROOM),
        );
    }
    let Some(algorithm) = Algorithm::by_name(&raw.algorithm) else {
        let known: Vec<_> = Algorithm::ALL.iter().map(|a| a.name()).collect();
        return at
            .wrong("algorithm", format!("'{}' is not known; there are {}", raw.algorithm, known.join(", ")));
    };
    if raw.local.is_ipv4() != raw.remote.is_ipv4() {
        return at.wrong("local and remote", "are of different families");
    }
    if raw.replay_window != 0
        && (!REPLAY_WINDOW.contains(&raw.replay_window) || !raw.replay_window.is_multiple_of(64))
    {
        let (least, most) = (REPLAY_WINDOW.start(), REPLAY_WINDOW.end());
        let why = format!(
            "is {}; it is a multiple of 64 from {least} to {most}, or 0 for no check",
            raw.replay_window
        );
        return at.wrong("replay_window", why);
    }
    Ok(Connection {
        local_ts: prefixes(&at, "local_ts", &raw.local_ts)?,
        remote_ts: prefixes(&at, "remote_ts", &raw.remote_ts)?,
        inbound: keying(&at, algorithm, raw.inbound, ["inbound.spi", "inbound.key"])?,
        outbound: keying(&at, algorithm, raw.outbound, ["outbound.spi", "outbound.key"])?,
        name: raw.name,
        local: raw.local,
        remote: raw.remote,
        esn: raw.esn,
        replay_window: raw.replay_window,
        algorithm,
        udp_encap: raw.udp_encap,
    })
}

fn prefixes(at: &At<'_>, key: &'static str, raw: &[String]) -> Result<Vec<Prefix>, ConfigError> {
    if raw.is_empty() {
        return at.wrong(key, "is empty; name at least one prefix");
    }
    raw.iter()
        .map(|p| p.parse().or_else(|e: portcullis_sadb::SadbError| at.wrong(key, e.to_string())))
        .collect()
}

fn keying(
    at: &At<'_>,
    algorithm: Algorithm,
    raw: RawKeying,
    [spi_key, key_key]: [&'static str; 2],
) -> Result<Keying, ConfigError> {
    let digits = raw.spi.strip_prefix("0x").unwrap_or(&raw.spi);
    let Ok(spi) = u32::from_str_radix(digits, 16) else {
        return at.wrong(spi_key, format!("'{}' is not 0x and up to 8 hex digits", raw.spi));
    };
    if spi < 256 {
        return at.wrong(spi_key, format!("{spi:#x} is reserved; use 0x100 or more (RFC 4303 §2.1)"));
    }
    let (have, key, salt) = (raw.key.bytes().len(), algorithm.key_len(), algorithm.salt_len());
    if have != key + salt {
        let why = format!(
            "has {have} bytes; {} wants {}: {key} of key, then {salt} of salt",
            algorithm.name(),
            key + salt
        );
        return at.wrong(key_key, why);
    }
    Ok(Keying { spi: Spi(spi), key: raw.key })
}

fn extra(path: &Path, raw: RawPolicy) -> Result<Extra, ConfigError> {
    let at = At { path, at: format!("policy '{}'", raw.name) };
    let bypass = match raw.action.as_str() {
        "bypass" => true,
        "discard" => false,
        other => return at.wrong("action", format!("is '{other}'; it is bypass or discard")),
    };
    let prefix = |key, text: &str| -> Result<Prefix, ConfigError> {
        text.parse().or_else(|e: portcullis_sadb::SadbError| at.wrong(key, e.to_string()))
    };
    let protocol = match raw.protocol.as_deref() {
        None => None,
        Some("icmp") => Some(1),
        Some("tcp") => Some(6),
        Some("udp") => Some(17),
        Some("icmpv6") => Some(58),
        Some(other) => match other.parse() {
            Ok(n) => Some(n),
            Err(_) => {
                return at.wrong("protocol", format!("'{other}' is not tcp, udp, icmp, icmpv6 or a number"));
            }
        },
    };
    let (src, dst) = (prefix("src", &raw.src)?, prefix("dst", &raw.dst)?);
    if src.addr().is_ipv4() != dst.addr().is_ipv4() {
        return at.wrong("src and dst", "are of different families");
    }
    Ok(Extra {
        src_ports: ports(&at, "src_ports", raw.src_ports.as_deref())?,
        dst_ports: ports(&at, "dst_ports", raw.dst_ports.as_deref())?,
        name: raw.name,
        bypass,
        src,
        dst,
        protocol,
        priority: raw.priority,
    })
}

fn ports(at: &At<'_>, key: &'static str, raw: Option<&str>) -> Result<RangeInclusive<u16>, ConfigError> {
    let Some(text) = raw else { return Ok(ANY_PORT) };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(a), Ok(b)) if a <= b => Ok(a..=b),
        _ => at.wrong(key, format!("'{text}' is not a port such as 53 or a range such as 1000-2000")),
    }
}
