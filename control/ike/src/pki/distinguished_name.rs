//! Distinguished names: `C=DE, O=Example, CN=gw`, the first RDN first, as strongSwan writes them (RFC 4514 has the last
//! first).
//!
//! What the letters are, `\` and `"` keep as it is; `#` begins a value in DER, in hex.

use crate::identity::Fit;
use const_oid::{
    ObjectIdentifier,
    db::{rfc3280, rfc4519},
};
use der::{Any, Decode, Encode, Tag, asn1::SetOfVec};
use std::{borrow::Cow, fmt, str::FromStr};
use x509_cert::{
    attr::AttributeTypeAndValue,
    name::{RdnSequence, RelativeDistinguishedName},
};

/// How attributes are written; of several the first is printed.
const KEYS: [(&str, ObjectIdentifier); 25] = [
    ("CN", rfc4519::CN),
    ("C", rfc4519::C),
    ("O", rfc4519::O),
    ("OU", rfc4519::OU),
    ("L", rfc4519::L),
    ("ST", rfc4519::ST),
    ("STREET", rfc4519::STREET),
    ("postalCode", rfc4519::POSTAL_CODE),
    ("S", rfc4519::SN),
    ("surname", rfc4519::SN),
    ("SN", rfc4519::SERIAL_NUMBER),
    ("serialNumber", rfc4519::SERIAL_NUMBER),
    ("T", rfc4519::TITLE),
    ("title", rfc4519::TITLE),
    ("D", rfc4519::DESCRIPTION),
    ("N", rfc4519::NAME),
    ("G", rfc4519::GIVEN_NAME),
    ("GN", rfc4519::GIVEN_NAME),
    ("I", rfc4519::INITIALS),
    ("dnQualifier", rfc4519::DN_QUALIFIER),
    ("DC", rfc4519::DC),
    ("UID", rfc4519::UID),
    ("E", rfc3280::EMAIL_ADDRESS),
    ("Email", rfc3280::EMAIL_ADDRESS),
    ("emailAddress", rfc3280::EMAIL_ADDRESS),
];

/// A distinguished name (RFC 5280 §4.1.2.4).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DistinguishedName {
    der: Vec<u8>,
    rdns: RdnSequence,
}

/// Text that is no distinguished name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.why())]
pub enum BadName {
    /// There is something that is no `KEY=value`.
    Part,
    /// A key that is neither known nor an OID.
    Key,
    /// What `\`, `"` or `#` begin does not end well.
    Value,
}

impl BadName {
    /// What is wrong.
    pub const fn why(self) -> &'static str {
        match self {
            BadName::Part => "its parts are not all KEY=value",
            BadName::Key => "it has a key that is not known",
            BadName::Value => "it has a value that is not well quoted",
        }
    }
}

impl DistinguishedName {
    /// Reads a Name in DER.
    pub fn from_der(octets: &[u8]) -> Option<DistinguishedName> {
        Some(DistinguishedName { der: octets.to_vec(), rdns: RdnSequence::from_der(octets).ok()? })
    }

    pub(super) fn of(rdns: &RdnSequence) -> Option<DistinguishedName> {
        Some(DistinguishedName { der: rdns.to_der().ok()?, rdns: rdns.clone() })
    }

    /// It in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether it has nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rdns.is_empty()
    }

    /// Whether it is the same name: of strings neither type, nor case, nor how much space there is matters (RFC 5280
    /// §7.1).
    pub fn is(&self, other: &DistinguishedName) -> bool {
        self.der == other.der || self.rdns.len() == other.rdns.len() && self.begins(other)
    }

    /// Whether the other begins with all of this (RFC 5280 §4.2.1.10).
    pub(super) fn begins(&self, other: &DistinguishedName) -> bool {
        let mut pairs = self.rdns.iter().zip(other.rdns.iter());
        self.rdns.len() <= other.rdns.len() && pairs.all(|(a, b)| rdn_fits(a, b, false).is_some())
    }

    /// How well a name fits this one, of which the value `*` stands for any.
    pub fn fits(&self, name: &DistinguishedName) -> Option<Fit> {
        if self.rdns.len() != name.rdns.len() {
            return None;
        }
        let mut pairs = self.rdns.iter().zip(name.rdns.iter());
        pairs.try_fold(Fit::Exact, |fit, (a, b)| Some(fit.min(rdn_fits(a, b, true)?)))
    }

    /// Whether some value stands for any.
    pub fn has_wildcards(&self) -> bool {
        self.rdns.iter().flat_map(RelativeDistinguishedName::iter).any(is_wildcard)
    }

    /// The values of emailAddress.
    pub(super) fn emails(&self) -> impl Iterator<Item = String> {
        let all = self.rdns.iter().flat_map(RelativeDistinguishedName::iter);
        all.filter(|a| a.oid == rfc3280::EMAIL_ADDRESS).filter_map(|a| text_of(&a.value).map(Cow::into_owned))
    }
}

fn is_wildcard(attribute: &AttributeTypeAndValue) -> bool {
    text_of(&attribute.value).is_some_and(|text| text == "*")
}

fn rdn_fits(
    pattern: &RelativeDistinguishedName,
    name: &RelativeDistinguishedName,
    may_be_any: bool,
) -> Option<Fit> {
    // X.501: the types in an RDN are all different.
    let is_one = |oid| pattern.iter().filter(|a| a.oid == oid).count() == 1;
    if pattern.len() != name.len() || !pattern.iter().all(|a| is_one(a.oid)) {
        return None;
    }
    // Those of an RDN are in the order of their DER, which differs where their types do.
    pattern.iter().try_fold(Fit::Exact, |fit, wanted| {
        let mut found = name.iter().filter(|a| a.oid == wanted.oid);
        match may_be_any && is_wildcard(wanted) {
            true => found.next().map(|_| Fit::Wildcard),
            false => found.any(|a| is_same(&a.value, &wanted.value)).then_some(fit),
        }
    })
}

fn is_same(a: &Any, b: &Any) -> bool {
    let prepared = |value| text_of(value).map(|text| prepare(&text));
    a == b || prepared(a).is_some_and(|a| prepared(b) == Some(a))
}

/// As names are compared: in lower case, and with one space between words (RFC 5280 §7.1, RFC 4518 §2).
fn prepare(text: &str) -> String {
    text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// The text of a value, if it is some.
fn text_of(value: &Any) -> Option<Cow<'_, str>> {
    use der::Tagged;
    let octets = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            std::str::from_utf8(octets).ok().map(Cow::Borrowed)
        }
        Tag::TeletexString => Some(octets.iter().copied().map(char::from).collect::<String>().into()),
        Tag::BmpString => {
            let (units, []) = octets.as_chunks::<2>() else { return None };
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            String::from_utf16(&units).ok().map(Cow::Owned)
        }
        _ => None,
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, rdn) in self.rdns.iter().enumerate() {
            for (m, attribute) in rdn.iter().enumerate() {
                f.write_str(match (n, m) {
                    (0, 0) => "",
                    (_, 0) => ", ",
                    _ => "+",
                })?;
                match KEYS.iter().find(|(_, oid)| *oid == attribute.oid) {
                    Some((key, _)) => write!(f, "{key}=")?,
                    None => write!(f, "{}=", attribute.oid)?,
                }
                match text_of(&attribute.value) {
                    Some(text) => write_value(&text, f)?,
                    None => {
                        f.write_str("#")?;
                        let der = attribute.value.to_der().map_err(|_| fmt::Error)?;
                        der.iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// RFC 4514 §2.4
fn write_value(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let last = text.chars().count().wrapping_sub(1);
    for (at, c) in text.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' => write!(f, "\\{c}")?,
            '#' if at == 0 => write!(f, "\\{c}")?,
            ' ' if at == 0 || at == last => f.write_str("\\ ")?,
            _ if c.is_control() => {
                let mut octets = [0; 4];
                c.encode_utf8(&mut octets).bytes().try_for_each(|octet| write!(f, "\\{octet:02x}"))?;
            }
            _ => write!(f, "{c}")?,
        }
    }
    Ok(())
}

impl FromStr for DistinguishedName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<DistinguishedName, BadName> {
        let mut rdns = RdnSequence::default();
        // `/C=DE/O=Example`, as OpenSSL writes them.
        let (mut rest, end) = match text.strip_prefix('/') {
            Some(rest) => (rest, '/'),
            None => (text, ','),
        };
        while !rest.trim_start().is_empty() {
            let mut rdn = SetOfVec::new();
            loop {
                let (key, behind) = rest.split_once('=').ok_or(BadName::Part)?;
                let oid = oid_of(key.trim()).ok_or(BadName::Key)?;
                let (value, at, is_end) = read_value(behind, end)?;
                let value = value_of(oid, value).ok_or(BadName::Value)?;
                rdn.insert(AttributeTypeAndValue { oid, value }).map_err(|_| BadName::Part)?;
                rest = &behind[at..];
                if is_end {
                    break;
                }
            }
            rdns.push(rdn.into());
        }
        DistinguishedName::of(&rdns).ok_or(BadName::Part)
    }
}

fn oid_of(key: &str) -> Option<ObjectIdentifier> {
    let known = KEYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, oid)| *oid);
    known.or_else(|| key.parse().ok())
}

enum Value {
    Text(String),
    Der(Vec<u8>),
}

/// The value at the beginning, where the rest begins, and whether its RDN ends there.
fn read_value(text: &str, end: char) -> Result<(Value, usize, bool), BadName> {
    let mut octets: Vec<u8> = vec![];
    // Up to here space at the end is not cut off.
    let mut kept = 0;
    let mut is_quoted = false;
    let mut chars = text.char_indices();
    let (mut behind, mut is_end) = (text.len(), true);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                let (_, c) = chars.next().ok_or(BadName::Value)?;
                match (c.to_digit(16), chars.as_str().chars().next().and_then(|low| low.to_digit(16))) {
                    (Some(high), Some(low)) => {
                        chars.next();
                        octets.push((high << 4 | low) as u8);
                    }
                    _ => octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
                kept = octets.len();
            }
            '"' => {
                is_quoted = !is_quoted;
                kept = octets.len();
            }
            c if c == end && !is_quoted => {
                behind = at + c.len_utf8();
                break;
            }
            // RFC 4514 §2.2, where a further attribute follows.
            '+' if !is_quoted
                && text[at + 1..].split_once('=').is_some_and(|(key, _)| oid_of(key.trim()).is_some()) =>
            {
                (behind, is_end) = (at + 1, false);
                break;
            }
            ' ' if octets.is_empty() && !is_quoted => {}
            c => octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if is_quoted {
        return Err(BadName::Value);
    }
    while octets.len() > kept && octets.ends_with(b" ") {
        octets.pop();
    }
    let value = String::from_utf8(octets).map_err(|_| BadName::Value)?;
    let is_der = text.trim_start().starts_with('#');
    let value = match value.strip_prefix('#').filter(|_| is_der) {
        Some(digits) => Value::Der(crate::identity::octets_of_hex(digits).ok_or(BadName::Value)?),
        None => Value::Text(value),
    };
    Ok((value, behind, is_end))
}

fn value_of(oid: ObjectIdentifier, value: Value) -> Option<Any> {
    let text = match value {
        Value::Der(octets) => return Any::from_der(&octets).ok(),
        Value::Text(text) => text,
    };
    let is_printable = |c: char| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c);
    let tag = match oid {
        rfc4519::DC | rfc3280::EMAIL_ADDRESS if text.is_ascii() => Tag::Ia5String,
        _ if text.chars().all(is_printable) => Tag::PrintableString,
        _ => Tag::Utf8String,
    };
    Any::new(tag, text.into_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DistinguishedName {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_and_written_alike() {
        for (text, shown) in [
            ("C=DE, O=Example, CN=gw", "C=DE, O=Example, CN=gw"),
            ("C=DE,O=Example,CN=gw", "C=DE, O=Example, CN=gw"),
            ("/C=DE/O=Example/CN=gw", "C=DE, O=Example, CN=gw"),
            ("O=\"a, b\", cn = x ", "O=a\\, b, CN=x"),
            ("O=a\\, b\\ , CN=\\#1", "O=a\\, b\\ , CN=\\#1"),
            ("CN=a+OU=b, CN=1+2", "CN=a+OU=b, CN=1\\+2"),
            ("DC=org, E=a@example.org", "DC=org, E=a@example.org"),
            ("1.2.3.4=x, CN=#0c0179", "1.2.3.4=x, CN=y"),
            ("CN=Zo\\c3\\ab, L=M\u{fc}nchen", "CN=Zo\u{eb}, L=M\u{fc}nchen"),
            ("CN=#0401ff", "CN=#0401ff"),
            ("CN=a\\0ab", "CN=a\\0ab"),
            ("", ""),
        ] {
            assert_eq!(name(text).to_string(), shown, "{text}");
            assert!(name(shown).is(&name(text)));
            assert_eq!(DistinguishedName::from_der(name(text).der()), Some(name(text)));
        }
        for (text, why) in [
            ("CN", BadName::Part),
            ("CN=a, b", BadName::Part),
            ("X=a", BadName::Key),
            ("CN=\"a", BadName::Value),
            ("CN=a\\", BadName::Value),
            ("CN=#0", BadName::Value),
            ("CN=#04", BadName::Value),
            ("CN=\\ff", BadName::Value),
        ] {
            assert_eq!(text.parse::<DistinguishedName>(), Err(why), "{text}");
        }
    }

    /// What `openssl req -new -subj '/C=DE/O=Example/CN=gw'` has in it.
    #[test]
    fn a_name_has_the_octets_of_openssl_but_for_types_of_strings() {
        let octets = b"\x30\x2c\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02DE\x31\x10\x30\x0e\x06\x03\x55\x04\x0a\x0c\x07\
            Example\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x0c\x02gw";
        let theirs = DistinguishedName::from_der(octets).unwrap();
        assert!(theirs.is(&name("C=DE, O=Example, CN=gw")));
        let ours: Vec<u8> = octets.iter().map(|octet| if *octet == 0x0c { 0x13 } else { *octet }).collect();
        assert_eq!(name("C=DE, O=Example, CN=gw").der(), ours);
    }

    // RFC 5280 §7.1
    #[test]
    fn names_are_the_same_whatever_their_case_and_space() {
        assert!(name("O=An  Example, CN=GW").is(&name("O=an example,CN=gw")));
        assert!(name("CN=a+OU=b").is(&name("OU=b+CN=a")));
        for other in [
            "C=DE",
            "O=an example",
            "O=an example, CN=gw, CN=gw",
            "CN=gw, O=an example",
            "O=anexample, CN=gw",
        ] {
            assert!(!name("O=An  Example, CN=GW").is(&name(other)), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_any_value() {
        for (pattern, text, fit) in [
            ("C=DE, CN=*", "C=DE, CN=gw", Some(Fit::Wildcard)),
            ("C=*, CN=gw", "C=DE, CN=gw", Some(Fit::Wildcard)),
            ("C=DE, CN=gw", "C=de, CN=GW", Some(Fit::Exact)),
            ("C=DE, CN=*", "C=DE, O=gw", None),
            ("C=DE, CN=*", "C=DE", None),
            ("C=DE, CN=*", "C=FR, CN=gw", None),
            ("C=DE, CN=g*", "C=DE, CN=gw", None),
        ] {
            assert_eq!(name(pattern).fits(&name(text)), fit, "{pattern} {text}");
        }
        assert!(name("C=DE, CN=*").has_wildcards() && !name("C=DE, CN=a*").has_wildcards());
        assert!(!name("C=DE, CN=*").is(&name("C=DE, CN=gw")));
    }
}
