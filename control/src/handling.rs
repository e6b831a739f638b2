//! What a connection asks of its packets beyond sealing and opening, as `connections.toml` says it.

use portcullis_machine::strict::{ConfigError, Table, Value};
use portcullis_sadb::{Aggfrag, DfBit, Dscp, Handling, Lifetime, Limits, Mode, Protocol};

/// What the SAs of a connection are, which decides what can be asked of them.
pub struct Kind {
    /// ESP or AH.
    pub protocol: Protocol,
    /// Tunnel or transport.
    pub mode: Mode,
    /// ESP in UDP.
    pub udp_encap: bool,
    /// In transport mode: in GRE.
    pub gre: bool,
}

/// In the place of numbers: as much as the path allows.
const BY_PATH: u16 = u16::MAX;

/// Reads the keys of a `[[connection]]` that are about handling; `name` is how errors name it.
///
/// # Errors
/// [`ConfigError`] names line, connection and key.
pub fn parse(table: &mut Table<'_>, name: &str, kind: &Kind) -> Result<Handling, ConfigError> {
    let plain = Handling::default();
    let has_outer = kind.mode == Mode::Tunnel || kind.gre;
    // The outer header's fields, where there is an outer header.
    let mut outer = |key| optional(table, key, has_outer, "transport mode has no outer header");
    let df = match outer("df")? {
        Some(value) => {
            value.one_of(&[("copy", DfBit::Copy), ("set", DfBit::Set), ("clear", DfBit::Clear)])?
        }
        None => plain.df,
    };
    let dscp = match (outer("dscp")?, outer("dscp_map")?) {
        (_, Some(map)) => Dscp::Map(dscp_map(&map)?),
        (Some(value), None) => dscp(&value)?,
        (None, None) => plain.dscp,
    };
    let ecn = flag(outer("ecn")?, plain.ecn)?;
    let decap_dscp = flag(outer("decap_dscp")?, plain.decap_dscp)?;
    let ttl = match outer("ttl")? {
        Some(value) if matches!(value.text(), Ok("copy")) => 0,
        Some(value) => {
            value.number_in(1..=255).map_err(|_| value.wrong("\"copy\" or a number from 1 to 255"))? as u8
        }
        None => plain.ttl,
    };
    let flow_label = flag(outer("flow_label")?, plain.flow_label)?;
    let nested = flag(table.optional("nested")?, plain.nested)?;
    let mss = match table.optional("mss")? {
        Some(value) => number_or("auto", &value, 536..=65_534)?,
        None => plain.mss,
    };
    let is_esp_tunnel = kind.protocol == Protocol::Esp && kind.mode == Mode::Tunnel;
    let why = "only ESP in tunnel mode can hide sizes";
    let tfc_pad = match optional(table, "tfc_pad", is_esp_tunnel, why)? {
        Some(value) => number_or("mtu", &value, 1..=65_534)?,
        None => plain.tfc_pad,
    };
    let is_esp = kind.protocol == Protocol::Esp;
    let dummies_per_sec = match optional(table, "dummies_per_sec", is_esp, "AH has no dummy packets")? {
        Some(value) => value.number_in(0..=u16::MAX.into())? as u16,
        None => plain.dummies_per_sec,
    };
    let aggfrag = aggfrag(table, name)?;
    if aggfrag.is_some() && !(is_esp_tunnel && tfc_pad == 0 && dummies_per_sec == 0) {
        return Err(ConfigError::Contradiction {
            place: table.place(),
            why: format!(
                "{name}: [connection.aggfrag] is for ESP in tunnel mode, and pads by itself: leave it out, or \
                 protocol, mode, tfc_pad and dummies_per_sec"
            ),
        });
    }
    Ok(Handling {
        df,
        dscp,
        ecn,
        decap_dscp,
        ttl,
        flow_label,
        nested,
        gre: kind.gre,
        mss,
        tfc_pad,
        dummies_per_sec,
        aggfrag,
        lifetime: lifetime(table, name)?,
        born_secs: 0,
    })
}

/// A value that may be there only if `holds`.
fn optional<'a>(
    table: &mut Table<'a>,
    key: &'static str,
    holds: bool,
    why: &str,
) -> Result<Option<Value<'a>>, ConfigError> {
    match table.optional(key)? {
        Some(value) if !holds => Err(value.wrong(format!("left out: {why}"))),
        value => Ok(value),
    }
}

/// Of a key that may be left out.
///
/// # Errors
/// [`ConfigError`] names line and key.
pub fn flag(value: Option<Value<'_>>, default: bool) -> Result<bool, ConfigError> {
    value.map_or(Ok(default), |v| v.flag())
}

fn number_or(
    word: &str,
    value: &Value<'_>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u16, ConfigError> {
    if value.text().is_ok_and(|text| text == word) {
        return Ok(BY_PATH);
    }
    let (least, most) = (*range.start(), *range.end());
    let number = value.number_in(range);
    number
        .map(|n| n as u16)
        .map_err(|_| value.wrong(format!("\"{word}\" or a number from {least} to {most}")))
}

fn dscp(value: &Value<'_>) -> Result<Dscp, ConfigError> {
    match value.text() {
        Ok("copy") => Ok(Dscp::Copy),
        _ => match value.number_in(0..=63) {
            Ok(dscp) => Ok(Dscp::Set(dscp as u8)),
            Err(_) => Err(value.wrong("\"copy\" or a number from 0 to 63")),
        },
    }
}

/// Inner and outer DSCP; those that are not in it stay the same.
fn dscp_map(value: &Value<'_>) -> Result<[u8; 64], ConfigError> {
    let mut map: [u8; 64] = std::array::from_fn(|i| i as u8);
    for (inner, outer) in value.entries()? {
        let place = inner.parse().ok().and_then(|inner: usize| map.get_mut(inner));
        let Some(place) = place else {
            return Err(value.wrong("of inner and outer DSCPs from 0 to 63, such as { 46 = 46, 0 = 10 }"));
        };
        *place = outer.number_in(0..=63)? as u8;
    }
    Ok(map)
}

fn aggfrag(table: &mut Table<'_>, name: &str) -> Result<Option<Aggfrag>, ConfigError> {
    let Some(mut table) = table.optional_table("aggfrag")? else { return Ok(None) };
    table.rename(format!("{name}, aggfrag"));
    let packet_size = table.required("packet_size", "1400")?.number_in(128..=65_535)? as u16;
    let packets_per_sec = match table.optional("packets_per_sec")? {
        Some(value) => value.number_in(0..=(1 << 24) - 1)? as u32,
        None => 0,
    };
    let fragments = flag(table.optional("fragments")?, true)?;
    table.finish()?;
    Ok(Some(Aggfrag { packet_size, packets_per_sec, fragments }))
}

fn lifetime(table: &mut Table<'_>, name: &str) -> Result<Lifetime, ConfigError> {
    let idle_secs = match table.optional("idle_secs")? {
        Some(value) => value.number_in(1..=u32::MAX.into())? as u32,
        None => 0,
    };
    let (soft, hard) = (limits(table, "soft", name)?, limits(table, "hard", name)?);
    for (what, soft, hard) in [
        ("bytes", soft.bytes, hard.bytes),
        ("packets", soft.packets, hard.packets),
        ("secs", soft.secs.into(), hard.secs.into()),
    ] {
        // RFC 4301 §4.4.2.1: the soft one is there so that another SA can take its place before the hard one.
        if soft != 0 && hard != 0 && soft >= hard {
            let why = format!("{name}: soft.{what} = {soft} must be below hard.{what} = {hard}");
            return Err(ConfigError::Contradiction { place: table.place(), why });
        }
    }
    Ok(Lifetime { soft, hard, idle_secs })
}

fn limits(table: &mut Table<'_>, key: &'static str, name: &str) -> Result<Limits, ConfigError> {
    let Some(mut table) = table.optional_table(key)? else { return Ok(Limits::default()) };
    table.rename(format!("{name}, {key}"));
    let mut limit = |key, most| table.optional(key)?.map_or(Ok(0), |value| value.number_in(1..=most));
    let (bytes, packets) = (limit("bytes", u64::MAX)?, limit("packets", u64::MAX)?);
    let secs = limit("secs", u32::MAX.into())? as u32;
    table.finish()?;
    Ok(Limits { bytes, packets, secs })
}
