//! What the SAs of a connection are keyed with: its own, one more pair for each class of traffic, or a stock of pairs for
//! SAs that packets ask for.

use crate::{secret::Secret, selection::NextLayer};
use portcullis_machine::strict::{ConfigError, Place, Table, Value};
use portcullis_sadb::{Algorithm, DSCPS, Fields, OPAQUE_PORT, Spi};

/// SPI and key of one direction.
#[derive(Clone, Debug)]
pub struct Keying {
    /// The SPI.
    pub spi: Spi,
    /// Key, then salt.
    pub key: Secret,
}

/// Two SAs, one for each direction.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Where it is written.
    pub place: Place,
    /// How errors name its directions, inbound first.
    pub names: [&'static str; 2],
    /// DSCPs of the packets that leave by it (RFC 4301 §4.1); none: of all that no other pair has.
    pub dscps: Vec<u8>,
    /// What we receive with.
    pub inbound: Keying,
    /// What we send with.
    pub outbound: Keying,
}

/// The keys of a connection.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Of the SAs that it has from the start: first those of all DSCPs that no class has. None, if it has a stock.
    pub own: Vec<Pair>,
    /// Of the SAs that packets ask for, in the order in which they are taken.
    pub stock: Vec<Pair>,
    /// What of its packets an SA from the stock is for (RFC 4301 §4.4.1); as it goes out.
    pub populate: Fields,
}

const OWN: [&str; 2] = ["inbound", "outbound"];
const CLASS: [&str; 2] = ["class.inbound", "class.outbound"];
const STOCK: [&str; 2] = ["sas.inbound", "sas.outbound"];

impl Keys {
    /// Reads them, of a connection that errors name so.
    ///
    /// # Errors
    /// [`ConfigError`] names line, connection and key.
    pub fn parse(
        table: &mut Table<'_>,
        shown: &str,
        algorithm: Algorithm,
        next_layer: &NextLayer,
    ) -> Result<Keys, ConfigError> {
        let (populate, classes, stock) =
            (table.optional("populate")?, table.tables("class")?, table.tables("sas")?);
        if stock.is_empty() {
            if let Some(value) = populate {
                return Err(value.wrong("left out, or there must be [[connection.sas]] for packets to take"));
            }
            let mut own = vec![Pair::parse(table, "connection", shown, algorithm, OWN)?];
            for table in classes {
                own.push(class(table, shown, algorithm, &own)?);
            }
            return Ok(Keys { own, stock: vec![], populate: Fields::NONE });
        }
        let contradiction = |place, what| ConfigError::Contradiction {
            place,
            why: format!("{shown}: {what} must be left out: its SAs are those of [[connection.sas]]"),
        };
        if let Some(class) = classes.first() {
            return Err(contradiction(class.place(), "class"));
        }
        for key in OWN {
            if let Some(own) = table.optional_table(key)? {
                return Err(contradiction(own.place(), key));
            }
        }
        let populate = populate.map_or(Ok(Fields::NONE), |value| fields(&value, next_layer))?;
        let pair = |mut table: Table<'_>| {
            let pair = Pair::parse(&mut table, "connection.sas", &format!("{shown}, sas"), algorithm, STOCK)?;
            table.finish()?;
            Ok(pair)
        };
        Ok(Keys { own: vec![], stock: stock.into_iter().map(pair).collect::<Result<_, _>>()?, populate })
    }

    /// All of them.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.own.iter().chain(&self.stock)
    }

    /// Octets that they have on the heap.
    pub(crate) fn heap_octets(&self) -> usize {
        let pairs = (self.own.capacity() + self.stock.capacity()) * size_of::<Pair>();
        let of = |p: &Pair| {
            let keys = p.inbound.key.heap_octets() + p.outbound.key.heap_octets();
            keys + p.dscps.capacity() + p.place.file.capacity()
        };
        pairs + self.pairs().map(of).sum::<usize>()
    }
}

impl Pair {
    fn parse(
        table: &mut Table<'_>,
        path: &str,
        shown: &str,
        algorithm: Algorithm,
        names: [&'static str; 2],
    ) -> Result<Pair, ConfigError> {
        let place = table.place();
        table.rename(shown.to_owned());
        let inbound = keying(table, "inbound", path, shown, algorithm)?;
        let outbound = keying(table, "outbound", path, shown, algorithm)?;
        Ok(Pair { place, names, dscps: vec![], inbound, outbound })
    }

    /// Each direction as errors name it, with what it is keyed with.
    pub fn directions(&self) -> [(&'static str, &Keying); 2] {
        [(self.names[0], &self.inbound), (self.names[1], &self.outbound)]
    }
}

/// A `[[connection.class]]`; others have DSCPs already.
fn class(
    mut table: Table<'_>,
    shown: &str,
    algorithm: Algorithm,
    others: &[Pair],
) -> Result<Pair, ConfigError> {
    let shown = format!("{shown}, class");
    table.rename(shown.clone());
    let value = table.required("dscp", "[46, 34]")?;
    let mut dscps: Vec<u8> = vec![];
    for item in value.list()? {
        let dscp = item.number_in(0..=DSCPS as u64 - 1)? as u8;
        if dscps.contains(&dscp) || others.iter().any(|other| other.dscps.contains(&dscp)) {
            return Err(item.wrong("in one class, and there once"));
        }
        dscps.push(dscp);
    }
    if dscps.is_empty() {
        return Err(value.wrong("a list of at least one DSCP, such as [46, 34]"));
    }
    let pair = Pair::parse(&mut table, "connection.class", &shown, algorithm, CLASS)?;
    table.finish()?;
    Ok(Pair { dscps, ..pair })
}

/// Which PFP flags are set (RFC 4301 §4.4.1).
fn fields(value: &Value<'_>, next_layer: &NextLayer) -> Result<Fields, ConfigError> {
    let mut fields = Fields::NONE;
    let ports = Fields::SRC_PORT | Fields::DST_PORT;
    for item in value.list()? {
        fields = fields
            | item.one_of(&[
                ("local", Fields::SRC),
                ("remote", Fields::DST),
                ("protocol", Fields::PROTOCOL),
                ("local_port", Fields::SRC_PORT),
                ("remote_port", Fields::DST_PORT),
            ])?;
    }
    let has_port = fields.has(Fields::SRC_PORT) || fields.has(Fields::DST_PORT);
    if has_port && next_layer.protocol.is_none() && !fields.has(Fields::PROTOCOL) {
        // RFC 7296 §3.13.1: a traffic selector has ports of one protocol.
        return Err(
            value.wrong("with \"protocol\" too, or ts_protocol must say of which protocol the ports are")
        );
    }
    let is_opaque = [&next_layer.local_ports, &next_layer.remote_ports].contains(&&OPAQUE_PORT);
    if is_opaque && (fields.has(ports) || has_port) {
        return Err(value.wrong("without ports: packets for opaque ones show none"));
    }
    Ok(fields)
}

fn keying(
    table: &mut Table<'_>,
    direction: &'static str,
    path: &str,
    shown: &str,
    algorithm: Algorithm,
) -> Result<Keying, ConfigError> {
    let Some(mut table) = table.optional_table(direction)? else {
        let example = format!("[{path}.{direction}] with spi and key below it");
        return Err(table.missing(direction, &example));
    };
    table.rename(format!("{shown}, {direction}"));
    let spi = spi(&table.required("spi", "\"0x00001001\"")?)?;
    let value = table.required("key", "\"0x<hex digits of the keys, then of the salt>\"")?;
    let key = Secret::from_hex(value.text()?)
        .ok_or_else(|| value.wrong_secret("0x and an even number of hex digits: keys, then salt"))?;
    let have = key.bytes().len();
    if have != algorithm.key_len() + algorithm.salt_len() {
        return Err(ConfigError::Contradiction {
            place: value.place().clone(),
            why: format!(
                "{shown}: {direction}.key is {have} bytes, {} wants {}",
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
