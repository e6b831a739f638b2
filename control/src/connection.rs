//! One `[[connection]]` or `[[policy]]` of `connections.toml`.

use crate::{
    handling::{self, flag},
    interface,
    keying::Keys,
    selection::{NextLayer, NextLayerKeys, prefix, prefixes},
};
use portcullis_machine::strict::{ConfigError, Place, Table, Value};
use portcullis_sadb::{
    Action, Algorithm, Handling, Mode, NAME_ROOM, Prefix, Protocol, REPLAY_WINDOW, Selector, UdpEncap,
};
use std::net::IpAddr;

/// UDP port of ESP in UDP (RFC 3948 §2).
const NAT_T_PORT: u16 = 4500;
/// Seconds between NAT-keepalives (RFC 3948 §4).
const NAT_KEEPALIVE_SECS: u16 = 20;
/// Priority of the policies of connections; the lowest wins.
pub const CONNECTION_PRIORITY: u32 = 1000;

/// A manually keyed connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// ESP or AH.
    pub protocol: Protocol,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Our outer address; in transport mode that of whoever sends, who may be a host behind us.
    pub local: IpAddr,
    /// The peer's outer address, likewise.
    pub remote: IpAddr,
    /// The interface whose routes are its selectors; then it has no others.
    pub interface: Option<String>,
    /// What is behind us.
    pub local_ts: Vec<Prefix>,
    /// What is behind the peer.
    pub remote_ts: Vec<Prefix>,
    /// What else its packets have in common.
    pub next_layer: NextLayer,
    /// Extended sequence numbers.
    pub esn: bool,
    /// In packets.
    pub replay_window: u32,
    /// The transform.
    pub algorithm: Algorithm,
    /// ESP in UDP, as it goes out (RFC 3948).
    pub udp: Option<UdpEncap>,
    /// The largest outer packet in octets; 0 where only the interface limits it.
    pub mtu: u16,
    /// What it asks for beyond sealing and opening.
    pub handling: Handling,
    /// What its SAs are keyed with.
    pub keys: Keys,
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
        let interface = self.interface.as_ref().map_or(0, String::capacity);
        let prefixes = (self.local_ts.capacity() + self.remote_ts.capacity()) * size_of::<Prefix>();
        let own = self.name.capacity() + self.place.file.capacity() + interface + prefixes;
        own + self.keys.heap_octets()
    }

    /// Reads a `[[connection]]`.
    ///
    /// # Errors
    /// [`ConfigError`] names line, connection and key.
    pub fn parse(mut table: Table<'_>) -> Result<Connection, ConfigError> {
        let place = table.place();
        let name = name(&mut table, "\"site-b\"")?;
        let shown = format!("connection '{name}'");
        table.rename(shown.clone());
        let protocol = match table.optional("protocol")? {
            Some(value) => value.one_of(&[("esp", Protocol::Esp), ("ah", Protocol::Ah)])?,
            None => Protocol::Esp,
        };
        let mode = match table.optional("mode")? {
            Some(value) => value.one_of(&[("tunnel", Mode::Tunnel), ("transport", Mode::Transport)])?,
            None => Mode::Tunnel,
        };
        let gre = match table.optional("gre")? {
            Some(value) if value.flag()? && mode == Mode::Tunnel => {
                return Err(value.wrong("left out, or mode must be \"transport\""));
            }
            value => flag(value, false)?,
        };
        let local = address(&table.required("local", "\"192.0.2.1\"")?)?;
        let remote = table.required("remote", "\"198.51.100.1\"")?;
        let peer = address(&remote)?;
        if peer.is_ipv4() != local.is_ipv4() {
            return Err(remote.wrong(format!("of the same family as local, {local}")));
        }
        if peer == local {
            return Err(remote.wrong("the peer's address; this is local's"));
        }
        let interface = match table.optional("interface")? {
            Some(value) if mode == Mode::Transport => {
                return Err(value.wrong("left out, or mode must be \"tunnel\""));
            }
            value => value.map(|value| device(&value)).transpose()?,
        };
        // RFC 4301 §4.1: in transport mode the SA is between those whose packets they are.
        let own = (mode == Mode::Transport && !gre).then_some((local, peer));
        let (local_ts, remote_ts) = match &interface {
            None => both_traffic(&mut table, own)?,
            Some(interface) => {
                for key in ["local_ts", "remote_ts"] {
                    if let Some(value) = table.optional(key)? {
                        return Err(
                            value.wrong(format!("left out: the routes to {interface} say what goes through"))
                        );
                    }
                }
                (vec![], vec![])
            }
        };
        let keys = NextLayerKeys("ts_protocol", "local_ports", "remote_ports");
        let next_layer = NextLayer::parse(&mut table, &keys)?;
        let esn = flag(table.optional("esn")?, true)?;
        let replay_window = match table.optional("replay_window")? {
            Some(value) => replay_window(&value)?,
            None => 1024,
        };
        let algorithm = algorithm(&table.required("algorithm", "\"aes-gcm-128\"")?, protocol)?;
        let udp = udp(&mut table, protocol, &Ends { local, is_between_hosts: own.is_some(), replay_window })?;
        let mtu = match table.optional("mtu")? {
            Some(value) => value.number_in(least_mtu(local)..=u16::MAX.into())? as u16,
            None => 0,
        };
        let kind = handling::Kind { protocol, mode, udp_encap: udp.is_some(), gre };
        let handling = handling::parse(&mut table, &shown, &kind)?;
        let keys = Keys::parse(&mut table, &shown, algorithm, &next_layer)?;
        table.finish()?;
        if let Some(device) = &interface
            && (next_layer != NextLayer::ANY || !keys.stock.is_empty())
        {
            // Of what it is not about, a wider prefix would decide, which may be another tunnel's.
            let why = format!(
                "connection '{name}': with interface = \"{device}\" there is neither ts_protocol nor [[connection.sas]]: \
                 whatever is routed there goes through, by SAs of its own; leave them out"
            );
            return Err(ConfigError::Contradiction { place, why });
        }
        Ok(Connection {
            name,
            place,
            protocol,
            mode,
            local,
            remote: peer,
            interface,
            local_ts,
            remote_ts,
            next_layer,
            esn,
            replay_window,
            algorithm,
            udp,
            mtu,
            handling,
            keys,
        })
    }

    /// What it protects, as it goes out: between each prefix of ours and each of the peer's, of one family.
    pub fn selectors(&self) -> impl Iterator<Item = Selector> + '_ {
        self.local_ts.iter().flat_map(move |local| {
            let same = |remote: &&Prefix| remote.addr().is_ipv4() == local.addr().is_ipv4();
            self.remote_ts.iter().filter(same).map(|remote| self.next_layer.between(*local, *remote))
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
        let next_layer = NextLayer::parse(&mut table, &NextLayerKeys("protocol", "src_ports", "dst_ports"))?;
        let priority = table.required("priority", "100")?.number_in(1..=u64::from(u32::MAX - 1))? as u32;
        table.finish()?;
        Ok(Exception { name, place, action, selector: next_layer.between(src, dst), priority })
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

/// The name of a device, with room for that of its other end.
fn device(value: &Value<'_>) -> Result<String, ConfigError> {
    let name = value.text()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match (1..=interface::NAME_ROOM).contains(&name.len())
        && name.chars().all(is_plain)
        && !name.starts_with('.')
    {
        true => Ok(name.to_owned()),
        false => Err(value.wrong(format!(
            "a name of 1 to {} letters, digits, '.', '_' or '-', such as \"ipsec0\"",
            interface::NAME_ROOM
        ))),
    }
}

/// What is behind both ends.
fn both_traffic(
    table: &mut Table<'_>,
    own: Option<(IpAddr, IpAddr)>,
) -> Result<(Vec<Prefix>, Vec<Prefix>), ConfigError> {
    let (local_ts, _) = traffic(table, "local_ts", "[\"10.1.0.0/16\"]", own.map(|o| o.0))?;
    let (remote_ts, value) = traffic(table, "remote_ts", "[\"10.2.0.0/16\"]", own.map(|o| o.1))?;
    let is_pair = |l: &Prefix| remote_ts.iter().any(|r| r.addr().is_ipv4() == l.addr().is_ipv4());
    match (value, local_ts.iter().any(is_pair)) {
        (Some(value), false) => Err(value.wrong("prefixes of a family that local_ts has too")),
        _ => Ok((local_ts, remote_ts)),
    }
}

/// What is behind one end, and where it is written. In transport mode that is the end itself.
fn traffic<'a>(
    table: &mut Table<'a>,
    key: &'static str,
    example: &str,
    own: Option<IpAddr>,
) -> Result<(Vec<Prefix>, Option<Value<'a>>), ConfigError> {
    let Some(own) = own else {
        let value = table.required(key, example)?;
        return Ok((prefixes(&value)?, Some(value)));
    };
    let all = vec![Prefix::new(own, if own.is_ipv4() { 32 } else { 128 }).expect("all its bits")];
    match table.optional(key)? {
        Some(value) if prefixes(&value)? != all => Err(value
            .wrong(format!("[\"{own}\"], or left out: in transport mode an SA is of its two ends alone"))),
        value => Ok((all, value)),
    }
}

/// What decides which keys of ESP in UDP there can be.
struct Ends {
    local: IpAddr,
    /// In transport mode, the packets have the addresses of hosts.
    is_between_hosts: bool,
    /// Packets; 0 takes each of them as often as it comes.
    replay_window: u32,
}

fn udp(table: &mut Table<'_>, protocol: Protocol, ends: &Ends) -> Result<Option<UdpEncap>, ConfigError> {
    let encap = table.optional("udp_encap")?;
    let is_on = encap.as_ref().map_or(Ok(false), Value::flag)?;
    if let (Some(value), true, Protocol::Ah) = (&encap, is_on, protocol) {
        // RFC 3948 §1: AH covers the addresses that a NAT changes.
        return Err(value.wrong("left out: AH cannot be carried in UDP; protocol = \"esp\" can"));
    }
    let mut of_udp = |key| match table.optional(key)? {
        Some(value) if !is_on => Err(value.wrong("left out, or udp_encap must be true")),
        value => Ok(value),
    };
    let (local, remote) = match of_udp("udp_ports")? {
        Some(value) => udp_ports(&value)?,
        None => (NAT_T_PORT, NAT_T_PORT),
    };
    let follow_peer = match of_udp("follow_peer")? {
        Some(value) if ends.is_between_hosts && value.flag()? => {
            return Err(value.wrong("left out: in transport mode packets are to the address of their host"));
        }
        Some(value) if ends.replay_window == 0 && value.flag()? => {
            return Err(
                value.wrong("left out with replay_window = 0: whoever copies a packet would be followed")
            );
        }
        value => flag(value, false)?,
    };
    let keepalive_secs = match of_udp("nat_keepalive_secs")? {
        Some(value) => value.number_in(0..=u16::MAX.into())? as u16,
        // Who follows the peer says that the NAT is the peer's, and the peer keeps it alive.
        None if follow_peer => 0,
        None => NAT_KEEPALIVE_SECS,
    };
    let zero_checksum = match of_udp("udp6_zero_checksum")? {
        Some(value) if ends.local.is_ipv4() => {
            // RFC 3948 §2.1.
            return Err(value.wrong("left out: over IPv4 there is no checksum"));
        }
        value => flag(value, false)?,
    };
    let udp = UdpEncap { src_port: local, dst_port: remote, follow_peer, keepalive_secs, zero_checksum };
    Ok(is_on.then_some(udp))
}

/// Ours and the peer's. Whether ours is one of the machine's, is for
/// [`Connections::check_udp_ports`](crate::config::Connections::check_udp_ports) to say.
fn udp_ports(value: &Value<'_>) -> Result<(u16, u16), ConfigError> {
    let port = |value: &Value<'_>| value.number_in(1..=u16::MAX.into()).map(|port| port as u16);
    match &value.list()?[..] {
        [local, remote] => Ok((port(local)?, port(remote)?)),
        _ => Err(value.wrong("two ports, ours and the peer's, such as [4500, 4500]")),
    }
}

/// RFC 791 §3.2, RFC 8200 §5.
fn least_mtu(outer: IpAddr) -> u64 {
    if outer.is_ipv4() { 576 } else { 1280 }
}

fn algorithm(value: &Value<'_>, protocol: Protocol) -> Result<Algorithm, ConfigError> {
    // There are too many to tell all of them.
    Algorithm::by_name(protocol, value.text()?).ok_or_else(|| {
        value.wrong(match protocol {
            Protocol::Esp => {
                "an algorithm of ESP, such as \"aes-gcm-128\" or \"aes-cbc-256+hmac-sha2-256-128\""
            }
            Protocol::Ah => "an algorithm of AH, such as \"hmac-sha2-256-128\" or \"aes-gmac-128\"",
        })
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
