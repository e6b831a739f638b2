//! What values can be: each type says what it takes, in words that stand behind "must be".
//!
//! Words are the same in small and capital letters. Numbers are decimal, or hexadecimal behind `0x`.

use super::tree::Node;
use portcullis_machine::strict::could_be_secret;
use portcullis_sadb::Prefix;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    str,
    time::Duration,
};

/// Why a value was refused.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Refused {
    /// The value, if it may be shown.
    pub shown: Option<String>,
    /// What is wrong with it, if there is more to say than what is allowed.
    pub why: Option<String>,
}

impl Refused {
    /// A node that is none of what is allowed.
    pub fn node(node: &Node<'_>) -> Refused {
        match node {
            Node::Value(octets) => Refused::octets(octets),
            Node::List(items) if items.len() == 1 => Refused::octets(items[0]),
            Node::List(_) | Node::Section(_) => Refused::default(),
        }
    }

    fn octets(octets: &[u8]) -> Refused {
        Refused { shown: shown(octets).map(|text| text.escape_debug().collect()), why: None }
    }

    fn value<V: Value>(octets: &[u8]) -> Refused {
        Refused { why: shown(octets).and_then(|text| V::objection(text.trim())), ..Refused::octets(octets) }
    }
}

/// Octets that are text, and no secret as far as one can tell.
fn shown(octets: &[u8]) -> Option<&str> {
    str::from_utf8(octets).ok().filter(|text| !could_be_secret(text))
}

/// The type of a field that a key is read into.
pub trait Setting {
    /// What the key can have, behind "must be".
    const ALLOWED: &'static str;

    /// Takes what the key of this name has.
    ///
    /// # Errors
    /// [`Refused`] says why it cannot.
    fn set(&mut self, name: &str, node: &Node<'_>) -> Result<(), Refused>;
}

/// One value.
pub trait Value: Sized {
    /// What it is, behind "must be".
    const IS: &'static str;

    /// Reads it. Blanks around it are gone, and it is not empty.
    fn parse(text: &str) -> Option<Self>;

    /// What is wrong with a text that it is not, if there is more to say.
    fn objection(text: &str) -> Option<String> {
        let _ = text;
        None
    }

    /// Reads it of octets, which are text if it is not said otherwise.
    fn of_octets(octets: &[u8]) -> Option<Self> {
        Self::parse(str::from_utf8(octets).ok()?.trim()).filter(|_| !octets.trim_ascii().is_empty())
    }
}

fn one<V: Value>(node: &Node<'_>) -> Result<V, Refused> {
    let octets = match node {
        Node::Value(octets) => octets,
        Node::List(items) if items.len() == 1 => items[0],
        node => return Err(Refused::node(node)),
    };
    V::of_octets(octets).ok_or_else(|| Refused::value::<V>(octets))
}

impl<V: Value> Setting for V {
    const ALLOWED: &'static str = V::IS;

    fn set(&mut self, _: &str, node: &Node<'_>) -> Result<(), Refused> {
        *self = one(node)?;
        Ok(())
    }
}

impl<V: Value> Setting for Option<V> {
    const ALLOWED: &'static str = V::IS;

    fn set(&mut self, _: &str, node: &Node<'_>) -> Result<(), Refused> {
        *self = Some(one(node)?);
        Ok(())
    }
}

/// A list; in text with commas. One with nothing in it is as if it were not there.
impl<V: Value> Setting for Vec<V> {
    const ALLOWED: &'static str = V::IS;

    fn set(&mut self, _: &str, node: &Node<'_>) -> Result<(), Refused> {
        let values = list(node)?;
        if !values.is_empty() {
            *self = values;
        }
        Ok(())
    }
}

/// The values of a list.
///
/// # Errors
/// [`Refused`] is about the first that is wrong.
pub fn list<V: Value>(node: &Node<'_>) -> Result<Vec<V>, Refused> {
    let item = |octets: &[u8]| V::of_octets(octets).ok_or_else(|| Refused::value::<V>(octets));
    match node {
        Node::List(items) => items.iter().map(|octets| item(octets)).collect(),
        Node::Value(octets) => {
            let parts = octets.split(|octet| *octet == b',').map(<[u8]>::trim_ascii);
            parts.filter(|part| !part.is_empty()).map(item).collect()
        }
        node => Err(Refused::node(node)),
    }
}

/// An enumeration whose values are words. The first is the default.
macro_rules! words {
    (
        $(#[doc = $doc:literal])+
        $name:ident {
            $(#[doc = $first_doc:literal])+ $first:ident = $first_word:literal $(| $first_alias:literal)*,
            $($(#[doc = $other_doc:literal])+ $other:ident = $word:literal $(| $alias:literal)*,)*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub enum $name {
            $(#[doc = $first_doc])+
            #[default]
            $first,
            $($(#[doc = $other_doc])+ $other,)*
        }

        impl $crate::swanctl::value::Value for $name {
            const IS: &'static str = concat!($first_word, $(" or ", $word),*);

            fn parse(text: &str) -> Option<$name> {
                let is = |word: &str| text.eq_ignore_ascii_case(word);
                if is($first_word) $(|| is($first_alias))* {
                    return Some($name::$first);
                }
                $(if is($word) $(|| is($alias))* {
                    return Some($name::$other);
                })*
                None
            }
        }
    };
}
pub(super) use words;

impl Value for bool {
    const IS: &'static str = "yes or no";

    fn parse(text: &str) -> Option<bool> {
        let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
        match text {
            _ if is(["yes", "true", "enabled", "1"]) => Some(true),
            _ if is(["no", "false", "disabled", "0"]) => Some(false),
            _ => None,
        }
    }
}

/// Digits alone: no sign, no blanks, and not one of those that C takes for octal.
fn number(text: &str) -> Option<u64> {
    let is_of = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if is_of(digits, 16) => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None if is_of(text, 10) && (text == "0" || !text.starts_with('0')) => text.parse().ok(),
        None => None,
    }
}

/// A number, and the letter behind it in lower case, if there is one.
fn number_with_unit(text: &str) -> Option<(u64, Option<char>)> {
    let unit = text.chars().next_back().filter(|_| !text.starts_with("0x") && !text.starts_with("0X"));
    match unit.filter(char::is_ascii_alphabetic) {
        Some(unit) => Some((number(text[..text.len() - 1].trim_end())?, Some(unit.to_ascii_lowercase()))),
        None => Some((number(text)?, None)),
    }
}

impl Value for u64 {
    const IS: &'static str = "a whole number";

    fn parse(text: &str) -> Option<u64> {
        number(text)
    }
}

impl Value for u32 {
    const IS: &'static str = "a whole number below 2^32";

    fn parse(text: &str) -> Option<u32> {
        number(text)?.try_into().ok()
    }
}

/// A UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Port(pub u16);

impl Value for Port {
    const IS: &'static str = "a port, 1 to 65535";

    fn parse(text: &str) -> Option<Port> {
        number(text)?.try_into().ok().filter(|port| *port != 0).map(Port)
    }
}

impl Value for Duration {
    const IS: &'static str =
        "a time in seconds, or with s, m, h, d or w behind it, such as 4h, up to 136 years";

    fn parse(text: &str) -> Option<Duration> {
        let (number, unit) = number_with_unit(text)?;
        let seconds = match unit {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            Some(_) => return None,
        };
        let seconds: u32 = number.checked_mul(seconds)?.try_into().ok()?;
        Some(Duration::from_secs(seconds.into()))
    }
}

/// A number of octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Octets(pub u64);

impl Value for Octets {
    const IS: &'static str =
        "a number of octets, or with k, m or g behind it for 2^10, 2^20 or 2^30, such as 20g";

    fn parse(text: &str) -> Option<Octets> {
        let (number, unit) = number_with_unit(text)?;
        let shift = match unit {
            None => 0,
            Some('k') => 10,
            Some('m') => 20,
            Some('g') => 30,
            Some(_) => return None,
        };
        number.checked_mul(1 << shift).map(Octets)
    }
}

/// A name or an identity.
impl Value for String {
    const IS: &'static str = "text without control characters";

    fn parse(text: &str) -> Option<String> {
        (!text.chars().any(char::is_control)).then(|| text.to_owned())
    }
}

impl Value for IpAddr {
    const IS: &'static str = "an IP address";

    fn parse(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }
}

impl Value for Prefix {
    const IS: &'static str = "an address or a subnet, such as 10.1.0.0/16";

    fn parse(text: &str) -> Option<Prefix> {
        text.parse().ok()
    }
}

/// Two addresses of one family, the first not above the last.
pub fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (IpAddr, IpAddr) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last))
}

/// A file that must not depend on where one is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AbsolutePath(pub PathBuf);

impl Value for AbsolutePath {
    const IS: &'static str = "the whole path of a file, from /";

    fn parse(text: &str) -> Option<AbsolutePath> {
        is_path(text).then(|| AbsolutePath(text.into())).filter(|path| path.0.is_absolute())
    }
}

/// A file; where it is looked for if its path is relative depends on the key.
impl Value for PathBuf {
    const IS: &'static str = "the path of a file";

    fn parse(text: &str) -> Option<PathBuf> {
        is_path(text).then(|| Path::new(text).to_owned())
    }
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control) && !text.ends_with('/')
}

/// A certificate or a public key: in a file, as configurations have them, or itself, as VICI messages have them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    /// Its file. A relative path begins in the directory of its kind: `x509`, `x509ca` or `pubkey`.
    File(PathBuf),
    /// DER or PEM.
    Octets(Vec<u8>),
}

impl Value for Credential {
    const IS: &'static str = "the path of a file, or a certificate or key in DER or PEM";

    fn parse(text: &str) -> Option<Credential> {
        match text.starts_with("-----BEGIN ") {
            true => Some(Credential::Octets(text.into())),
            false => PathBuf::parse(text).map(Credential::File),
        }
    }

    /// DER begins with a SEQUENCE, and has a BIT STRING without unused bits: an octet 0, which no path has.
    fn of_octets(octets: &[u8]) -> Option<Credential> {
        if octets.starts_with(&[0x30]) && octets.contains(&0) {
            return Some(Credential::Octets(octets.to_vec()));
        }
        Self::parse(str::from_utf8(octets).ok()?.trim())
    }
}

/// Certificates or public keys, which a key has as a list and sections have one by one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Credentials(pub Vec<Credential>);

impl Setting for Credentials {
    const ALLOWED: &'static str = Credential::IS;

    fn set(&mut self, _: &str, node: &Node<'_>) -> Result<(), Refused> {
        self.0.extend(list(node)?);
        Ok(())
    }
}

/// Where something is to be had from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Uri(pub String);

impl Value for Uri {
    const IS: &'static str = "a URI with http, ldap or file, such as http://crl.example.org/ca.crl";

    fn parse(text: &str) -> Option<Uri> {
        let (scheme, rest) = text.split_once(':')?;
        let is_known =
            ["http", "https", "ldap", "ldaps", "file"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
        let is_rest = rest.starts_with("//") && rest.len() > 2 && rest.chars().all(|c| c.is_ascii_graphic());
        (is_known && is_rest).then(|| Uri(text.to_owned()))
    }
}

/// The numbers of an object identifier.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Oid(pub String);

impl Value for Oid {
    const IS: &'static str = "numbers of an object identifier with dots, such as 2.5.29.32";

    fn parse(text: &str) -> Option<Oid> {
        let arcs: Vec<_> = text.split('.').map(number).collect::<Option<_>>()?;
        let is_rooted = matches!(arcs[..], [0 | 1, 0..=39, ..] | [2, _, ..]);
        is_rooted.then(|| Oid(text.to_owned()))
    }
}
