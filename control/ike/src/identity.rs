//! Who ends say to be, and who they are asked to be (RFC 7296 §3.5): what people write, and what is on the wire.
//!
//! | written | type |
//! |---|---|
//! | `192.0.2.1`, `2001:db8::1` | ID_IPV4_ADDR, ID_IPV6_ADDR |
//! | `gw.example.org`, `@gw.example.org` | ID_FQDN |
//! | `carol@example.org`, `@@carol` | ID_RFC822_ADDR |
//! | `@#0a1b` | ID_KEY_ID, by its octets in hex |
//! | `fqdn:x`, `dns:x`, `rfc822:x`, `email:x`, `userfqdn:x`, `ipv4:x`, `ipv6:x`, `asn1dn:x`, `keyid:x` | as it says, whatever it looks like |
//! | `fqdn:#0a1b`, and so on, `asn1gn:#0a1b`, `{11}:#0a1b` | of this type, or its number, by its octets in hex |
//! | `site:a`, and whatever else has a colon | ID_KEY_ID |
//! | `%any`, `*`, `0.0.0.0`, `::`, or nothing | anybody, where somebody is asked for |
//! | `C=DE, O=Example, CN=gw` | ID_DER_ASN1_DN ([`DistinguishedName`]) |
//! | `*.example.org`, `*@example.org`, `C=DE, CN=*` | anybody of these, where somebody is asked for |

use crate::{
    message::{IdType, Identification},
    pki::distinguished_name::DistinguishedName,
};
use std::{fmt, net::IpAddr, str::FromStr};

/// Who an end is asked to be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum IdPattern {
    /// Anybody.
    Any,
    /// Of this type and data, of which a `*` at the beginning stands for any octets, and in distinguished names for any value.
    Like(IdType, Vec<u8>),
}

/// How well an identity fits a pattern; the greater, the better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fit {
    /// As anybody does.
    Any,
    /// By a wildcard.
    Wildcard,
    /// Exactly.
    Exact,
}

/// Text that says nobody.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{text}' is no identity: {why}")]
pub struct BadIdentity {
    text: String,
    why: &'static str,
}

impl IdPattern {
    /// How well an identity fits, if it does.
    pub fn fits(&self, id: &Identification) -> Option<Fit> {
        match self {
            IdPattern::Any => Some(Fit::Any),
            IdPattern::Like(kind, _) if *kind != id.kind => None,
            IdPattern::Like(IdType::ID_DER_ASN1_DN, data) => {
                DistinguishedName::from_der(data)?.fits(&DistinguishedName::from_der(&id.data)?)
            }
            IdPattern::Like(kind, data) => {
                // RFC 7296 §3.5: of domain names case does not matter.
                let is_same = |a: &[u8], b: &[u8]| match *kind {
                    IdType::ID_FQDN | IdType::ID_RFC822_ADDR => a.eq_ignore_ascii_case(b),
                    _ => a == b,
                };
                match data.strip_prefix(b"*").filter(|_| has_wildcards(*kind)) {
                    Some(end) => {
                        let at = id.data.len().checked_sub(end.len())?;
                        is_same(end, &id.data[at..]).then_some(Fit::Wildcard)
                    }
                    None => is_same(data, &id.data).then_some(Fit::Exact),
                }
            }
        }
    }

    /// The identity, if it is just one: to be said, or asked for.
    pub fn identity(&self) -> Option<Identification> {
        match self {
            IdPattern::Like(IdType::ID_DER_ASN1_DN, data)
                if DistinguishedName::from_der(data).is_some_and(|name| name.has_wildcards()) =>
            {
                None
            }
            IdPattern::Like(kind, data) if !(has_wildcards(*kind) && data.starts_with(b"*")) => {
                Some(Identification::new(*kind, data))
            }
            _ => None,
        }
    }
}

impl From<&Identification> for IdPattern {
    fn from(id: &Identification) -> IdPattern {
        IdPattern::Like(id.kind, id.data.clone())
    }
}

fn has_wildcards(kind: IdType) -> bool {
    matches!(kind, IdType::ID_FQDN | IdType::ID_RFC822_ADDR)
}

impl FromStr for IdPattern {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<IdPattern, BadIdentity> {
        let like = |kind, data: &[u8]| Ok(IdPattern::Like(kind, data.to_vec()));
        let bad = |why| BadIdentity { text: text.to_owned(), why };
        let address = |address: &str| address.parse::<IpAddr>();
        let of_address = |address| match address {
            IpAddr::V4(ip) => like(IdType::ID_IPV4_ADDR, &ip.octets()),
            IpAddr::V6(ip) => like(IdType::ID_IPV6_ADDR, &ip.octets()),
        };
        let named = |name: &str| match name.parse::<DistinguishedName>() {
            Ok(name) => like(IdType::ID_DER_ASN1_DN, name.der()),
            Err(error) => Err(bad(error.why())),
        };
        let hex = |digits: &str| octets_of_hex(digits).ok_or(bad("behind # there is no hex"));
        if let Some((prefix, rest)) = text.split_once(':') {
            match (kind_of(prefix), rest.strip_prefix('#')) {
                (Some(kind), Some(digits)) => {
                    let octets = hex(digits)?;
                    return match is_encoded(kind, &octets) {
                        true => like(kind, &octets),
                        false => Err(bad("its octets are none of its type")),
                    };
                }
                (Some(kind @ (IdType::ID_FQDN | IdType::ID_RFC822_ADDR | IdType::ID_KEY_ID)), None) => {
                    return like(kind, rest.as_bytes());
                }
                (Some(IdType::ID_DER_ASN1_DN), None) => return named(rest),
                (Some(kind @ (IdType::ID_IPV4_ADDR | IdType::ID_IPV6_ADDR)), None) => {
                    let ip = address(rest).map_err(|_| bad("that is no address"))?;
                    return match ip.is_ipv4() == (kind == IdType::ID_IPV4_ADDR) {
                        true => of_address(ip),
                        false => Err(bad("of the other family")),
                    };
                }
                (Some(_), None) => return Err(bad("of this type it is written in hex, with # in front")),
                (None, _) if is_type(prefix) => {
                    return Err(bad(
                        "its type is not known; write {11}:#0a1b, with the number of the type and octets in hex",
                    ));
                }
                (None, _) => {}
            }
        }
        if ["", "%any", "%any6", "*"].contains(&text) {
            return Ok(IdPattern::Any);
        }
        if let Ok(ip) = address(text) {
            return if ip.is_unspecified() { Ok(IdPattern::Any) } else { of_address(ip) };
        }
        match text.strip_prefix('@') {
            Some(rest) => match (rest.strip_prefix('#'), rest.strip_prefix('@')) {
                (Some(digits), _) => like(IdType::ID_KEY_ID, &hex(digits)?),
                (_, Some(rest)) => like(IdType::ID_RFC822_ADDR, rest.as_bytes()),
                _ => like(IdType::ID_FQDN, rest.as_bytes()),
            },
            None if text.contains('=') => named(text),
            None if text.contains('@') => like(IdType::ID_RFC822_ADDR, text.as_bytes()),
            None if text.contains(':') => like(IdType::ID_KEY_ID, text.as_bytes()),
            None => like(IdType::ID_FQDN, text.as_bytes()),
        }
    }
}

/// The type that a prefix says.
fn kind_of(prefix: &str) -> Option<IdType> {
    Some(match &*prefix.to_ascii_lowercase() {
        "fqdn" | "dns" => IdType::ID_FQDN,
        "rfc822" | "email" | "userfqdn" => IdType::ID_RFC822_ADDR,
        "ipv4" => IdType::ID_IPV4_ADDR,
        "ipv6" => IdType::ID_IPV6_ADDR,
        "asn1dn" => IdType::ID_DER_ASN1_DN,
        "asn1gn" => IdType::ID_DER_ASN1_GN,
        "keyid" => IdType::ID_KEY_ID,
        number => IdType(number.strip_prefix('{')?.strip_suffix('}')?.parse().ok()?),
    })
}

/// Whether strongSwan has a type for this prefix, though we have none.
fn is_type(prefix: &str) -> bool {
    let others = ["ipv4net", "ipv6net", "ipv4range", "ipv6range", "xmppaddr", "uri"];
    prefix.starts_with('{') || others.contains(&&*prefix.to_ascii_lowercase())
}

/// Whether octets are of a type, as far as we know it.
fn is_encoded(kind: IdType, octets: &[u8]) -> bool {
    match kind {
        IdType::ID_IPV4_ADDR => octets.len() == 4,
        IdType::ID_IPV6_ADDR => octets.len() == 16,
        IdType::ID_DER_ASN1_DN => DistinguishedName::from_der(octets).is_some(),
        _ => true,
    }
}

pub(crate) fn octets_of_hex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|n| n as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let octets = pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?));
    octets.collect::<Option<_>>().filter(|_| rest.is_empty())
}

/// Octets of an identity that are shown, at most: others may send many.
const MOST_SHOWN: usize = 256;

/// An identity as people write it.
impl fmt::Display for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.data[..self.data.len().min(MOST_SHOWN)];
        let text = |f: &mut fmt::Formatter<'_>| f.write_str(&shown.escape_ascii().to_string());
        match (self.kind, &self.data[..]) {
            (IdType::ID_IPV4_ADDR, octets) if octets.len() == 4 => {
                let octets: [u8; 4] = octets.try_into().expect("they are four");
                write!(f, "{}", IpAddr::from(octets))
            }
            (IdType::ID_IPV6_ADDR, octets) if octets.len() == 16 => {
                let octets: [u8; 16] = octets.try_into().expect("they are sixteen");
                write!(f, "{}", IpAddr::from(octets))
            }
            (IdType::ID_FQDN | IdType::ID_RFC822_ADDR, _) => text(f),
            (IdType::ID_DER_ASN1_DN, octets) if DistinguishedName::from_der(octets).is_some() => {
                DistinguishedName::from_der(octets).map_or(Ok(()), |name| write!(f, "{name}"))
            }
            (IdType::ID_NULL, _) => f.write_str("%null"),
            (kind, octets) => {
                if kind != IdType::ID_KEY_ID {
                    write!(f, "{kind}:")?;
                }
                f.write_str("@#")?;
                octets.iter().take(MOST_SHOWN).try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdPattern::Any => f.write_str("%any"),
            IdPattern::Like(kind, data) => write!(f, "{}", Identification::new(*kind, data)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identification {
        text.parse::<IdPattern>().unwrap().identity().unwrap()
    }

    #[test]
    fn what_is_written_has_a_type() {
        for (text, kind, data) in [
            ("192.0.2.1", IdType::ID_IPV4_ADDR, &[192, 0, 2, 1][..]),
            ("ipv4:192.0.2.1", IdType::ID_IPV4_ADDR, &[192, 0, 2, 1]),
            ("::1", IdType::ID_IPV6_ADDR, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            ("gw.example.org", IdType::ID_FQDN, b"gw.example.org"),
            ("@gw.example.org", IdType::ID_FQDN, b"gw.example.org"),
            ("fqdn:192.0.2.1", IdType::ID_FQDN, b"192.0.2.1"),
            ("carol@example.org", IdType::ID_RFC822_ADDR, b"carol@example.org"),
            ("@@carol", IdType::ID_RFC822_ADDR, b"carol"),
            ("@#0aFf", IdType::ID_KEY_ID, &[0x0a, 0xff]),
            ("keyid:abc", IdType::ID_KEY_ID, b"abc"),
            ("keyid:#0a1b", IdType::ID_KEY_ID, &[0x0a, 0x1b]),
            ("fqdn:#6177", IdType::ID_FQDN, b"aw"),
            ("EMAIL:#6177", IdType::ID_RFC822_ADDR, b"aw"),
            ("userfqdn:x", IdType::ID_RFC822_ADDR, b"x"),
            ("ipv4:#c0000201", IdType::ID_IPV4_ADDR, &[192, 0, 2, 1]),
            ("asn1gn:#3000", IdType::ID_DER_ASN1_GN, &[0x30, 0]),
            ("{11}:#0a1b", IdType::ID_KEY_ID, &[0x0a, 0x1b]),
            ("{77}:#01", IdType(77), &[1]),
            ("{2}:a", IdType::ID_FQDN, b"a"),
            ("site:a", IdType::ID_KEY_ID, b"site:a"),
            ("gw.example.org:500", IdType::ID_KEY_ID, b"gw.example.org:500"),
            ("site:a@example.org", IdType::ID_RFC822_ADDR, b"site:a@example.org"),
            ("C=DE", IdType::ID_DER_ASN1_DN, b"\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02DE"),
        ] {
            assert_eq!(id(text), Identification::new(kind, data), "{text}");
            let shown = id(text).to_string();
            assert_eq!(shown == "192.0.2.1", kind == IdType::ID_IPV4_ADDR || text == "fqdn:192.0.2.1");
        }
        for text in [
            ["ipv6:192.0.2.1", "ipv4:x", "ipv4:#0a", "ipv6:#0a", "@#0", "@#zz", "keyid:#0", "C=DE, x"],
            [
                "asn1dn:#3001",
                "asn1gn:x",
                "{77}:x",
                "{256}:#01",
                "{}:x",
                "ipv4net:10.0.0.0/8",
                "uri:x",
                "xmppaddr:x",
            ],
        ]
        .concat()
        {
            assert!(text.parse::<IdPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn identities_fit_patterns() {
        let fits = |pattern: &str, text| pattern.parse::<IdPattern>().unwrap().fits(&id(text));
        for (pattern, text, fit) in [
            ("%any", "192.0.2.1", Some(Fit::Any)),
            ("", "gw.example.org", Some(Fit::Any)),
            ("*", "gw.example.org", Some(Fit::Any)),
            ("0.0.0.0", "gw.example.org", Some(Fit::Any)),
            ("::", "192.0.2.1", Some(Fit::Any)),
            ("gw.example.org", "GW.example.org", Some(Fit::Exact)),
            ("*.example.org", "gw.example.org", Some(Fit::Wildcard)),
            ("*.example.org", "example.org", None),
            ("*@example.org", "carol@example.org", Some(Fit::Wildcard)),
            ("*@example.org", "gw.example.org", None),
            ("192.0.2.1", "192.0.2.1", Some(Fit::Exact)),
            ("192.0.2.1", "192.0.2.2", None),
            ("192.0.2.1", "fqdn:192.0.2.1", None),
            ("@#2a", "@#2a", Some(Fit::Exact)),
            ("@#2a2e", "@#2a2e2e", None),
            ("C=DE, CN=gw", "c=de,cn=GW", Some(Fit::Exact)),
            ("C=DE, CN=*", "C=DE, CN=gw", Some(Fit::Wildcard)),
            ("C=DE, CN=*", "C=FR, CN=gw", None),
        ] {
            assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
        }
        assert!(Fit::Exact > Fit::Wildcard && Fit::Wildcard > Fit::Any);
        for pattern in ["*.example.org", "C=DE, CN=*"] {
            assert_eq!(pattern.parse::<IdPattern>().unwrap().identity(), None);
        }
    }

    #[test]
    fn what_others_say_to_be_is_shown_without_harm() {
        for (kind, data, shown) in [
            (IdType::ID_FQDN, &b"a\x1b[31m\n"[..], "a\\x1b[31m\\n"),
            (IdType::ID_IPV4_ADDR, &[1, 2, 3], "ID_IPV4_ADDR:@#010203"),
            (IdType(77), &[1], "77:@#01"),
            (IdType::ID_NULL, &[], "%null"),
        ] {
            assert_eq!(Identification::new(kind, data).to_string(), shown);
        }
    }
}
