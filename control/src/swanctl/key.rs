//! What keys and sections there are in a section of some kind, as a table, and how a section is read by it.
//!
//! A kind of section is a struct. Its table has a row for each key: the name, what it is when it is not written, and
//! the field that it is kept in, whose type says which values it can have. Keys of other gateways that mean nothing
//! here have rows too: the values that change nothing, and what to write in place of others. Of the table are made the
//! objections to unknown keys, with a near one, and to wrong values.

use super::{
    tree::{Branch, Entry, Node},
    value::{Refused, Setting},
};
use portcullis_machine::strict::{Place, nearest, shorten};
use thiserror::Error;

/// What cannot be used, and where it is, if that is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{objection}", .place.as_ref().map_or(String::new(), |place| format!("{place}: ")))]
pub struct SettingError {
    /// Where.
    pub place: Option<Place>,
    /// Why.
    pub objection: Objection,
}

/// Why something cannot be used. Sections and keys are named from the top, as `connections.home.local_addrs`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Objection {
    /// A key that means nothing here.
    #[error("unknown key '{name}' in {}; {hint}", top(.section))]
    UnknownKey {
        /// The key.
        name: String,
        /// The section it is in.
        section: String,
        /// The key that was meant, or those there are.
        hint: String,
    },
    /// A section that means nothing here.
    #[error("unknown section '{name}' in {}; {hint}", top(.section))]
    UnknownSection {
        /// The section.
        name: String,
        /// The section it is in.
        section: String,
        /// The section that was meant, or those there are.
        hint: String,
    },
    /// A value that the key cannot have.
    #[error("{key}{shown} must be {allowed}")]
    Value {
        /// The key.
        key: String,
        /// ` = VALUE`, or nothing when the value should not be shown.
        shown: String,
        /// What it can have.
        allowed: &'static str,
    },
    /// A value that something is wrong with.
    #[error("{key}: {why}")]
    Notation {
        /// The key.
        key: String,
        /// What.
        why: String,
    },
    /// A value that other gateways know what to do with.
    #[error("{key}{shown} is not supported: {instead}")]
    Unsupported {
        /// The key, or section.
        key: String,
        /// ` = VALUE`, or nothing when the value should not be shown.
        shown: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// A key that has to be there is not.
    #[error("{section} has no '{key}'; write for example {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// The section it belongs in.
        section: String,
        /// What could be written.
        example: &'static str,
    },
    /// A section where a value belongs, or the other way round.
    #[error("{name} is a {} and must be a {}", form(*.is_section), form(!.is_section))]
    Form {
        /// Its name.
        name: String,
        /// What it is.
        is_section: bool,
    },
    /// Parts that do not go together.
    #[error("{section}: {why}")]
    Contradiction {
        /// The section.
        section: String,
        /// What contradicts what, and what to do.
        why: String,
    },
}

fn form(is_section: bool) -> &'static str {
    if is_section { "section" } else { "value" }
}

fn top(section: &str) -> &str {
    if section.is_empty() { "the file" } else { section }
}

impl Objection {
    /// With the place it is about.
    pub fn at(self, place: Option<&Place>) -> SettingError {
        SettingError { place: place.cloned(), objection: self }
    }

    /// That a section has not a key that it must have.
    pub fn missing(section: &str, key: &'static str, example: &'static str) -> Objection {
        Objection::Missing { key, section: section.to_owned(), example }
    }
}

/// Which names a row is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// The name itself.
    Exact,
    /// All that begin with it: several may be in one section.
    Prefix,
    /// Numbers below 2^15 in place of names.
    Number,
}

impl Naming {
    fn is_for(self, row: &str, name: &str) -> bool {
        match self {
            Naming::Exact => row == name,
            Naming::Prefix => name.starts_with(row),
            Naming::Number => {
                name.bytes().all(|b| b.is_ascii_digit()) && name.parse::<u16>().is_ok_and(|n| n < 1 << 15)
            }
        }
    }
}

/// The row of a key in sections of the kind `T`.
pub struct Key<T> {
    /// Its name.
    pub name: &'static str,
    /// Which names it is about.
    pub naming: Naming,
    /// What is written when nothing is written; if this is empty, there is no value.
    pub default: &'static str,
    /// What it means.
    pub meaning: Meaning<T>,
}

/// What a key means.
pub enum Meaning<T> {
    /// It has a place in the struct.
    Kept {
        /// Which values it can have, behind "must be".
        allowed: &'static str,
        /// Reads the value of a key of this name.
        read: fn(&mut T, &str, &Node<'_>) -> Result<(), Refused>,
    },
    /// It has no meaning here. Nothing depends on it with one of these values.
    Ignored {
        /// The values.
        values: &'static [&'static str],
        /// What to do in place of having another value.
        instead: &'static str,
    },
}

/// The row of the sections of one kind in sections of the kind `T`.
pub struct Part<T> {
    /// Their name.
    pub name: &'static str,
    /// Which names it is about.
    pub naming: Naming,
    /// Reads one. The first argument behind the struct is the full name.
    pub read: fn(&mut T, &str, &Entry<'_>, &Branch<'_>) -> Result<(), SettingError>,
}

/// A kind of section.
pub trait Kind: Default + 'static {
    /// Its keys.
    const KEYS: &'static [Key<Self>];
    /// Sections in it.
    const PARTS: &'static [Part<Self>] = &[];

    /// What speaks against it as a whole. `section` is its full name.
    ///
    /// # Errors
    /// [`Objection`]: what is missing, or does not go together.
    fn check(&self, section: &str) -> Result<(), Objection> {
        let _ = section;
        Ok(())
    }
}

/// What a field can have: the rows are constants, and so is this.
pub const fn allowed<T, S: Setting>(_: fn(&T) -> &S) -> &'static str {
    S::ALLOWED
}

/// What is ignored of a key that is off, or on, or either.
pub(super) const OFF: &[&str] = &["no", "false", "disabled", "0"];
pub(super) const ON: &[&str] = &["yes", "true", "enabled", "1"];
pub(super) const EITHER: &[&str] = &["no", "false", "disabled", "0", "yes", "true", "enabled", "1"];

/// A row of a table: `key!(Child.mode = "tunnel")` for the field `mode`, `key!(Child "reqid" ignores &["0"], "...")` for a
/// key without a meaning.
macro_rules! key {
    ($kind:ident . $field:ident = $default:literal) => {
        key!($kind . $field named stringify!($field), $crate::swanctl::key::Naming::Exact, $default)
    };
    ($kind:ident . $field:ident named $name:expr, $naming:expr, $default:literal) => {
        $crate::swanctl::key::Key {
            name: $name,
            naming: $naming,
            default: $default,
            meaning: $crate::swanctl::key::Meaning::Kept {
                allowed: $crate::swanctl::key::allowed(|of: &$kind| &of.$field),
                read: |of, name, node| $crate::swanctl::value::Setting::set(&mut of.$field, name, node),
            },
        }
    };
    ($kind:ident $name:literal ignores $values:expr, $instead:expr) => {
        $crate::swanctl::key::Key {
            name: $name,
            naming: $crate::swanctl::key::Naming::Exact,
            default: "",
            meaning: $crate::swanctl::key::Meaning::Ignored { values: $values, instead: $instead },
        }
    };
}
pub(super) use key;

/// Reads a section. `name` is its full name.
///
/// # Errors
/// [`SettingError`] of the first key that cannot be used.
pub fn read<K: Kind>(name: &str, branch: &Branch<'_>) -> Result<K, SettingError> {
    let mut kind = K::default();
    for key in K::KEYS.iter().filter(|key| !key.default.is_empty()) {
        if let Meaning::Kept { read, .. } = &key.meaning {
            let is_right = read(&mut kind, key.name, &Node::Value(key.default.as_bytes()));
            debug_assert!(is_right.is_ok(), "{} = {}", key.name, key.default);
        }
    }
    for entry in &branch.entries {
        match &entry.node {
            Node::Section(inner) => {
                let unknown = || not_a_section::<K>(name, entry.name).at(entry.place);
                let part = part::<K>(entry.name).ok_or_else(unknown)?;
                (part.read)(&mut kind, &full_name(name, entry.name), entry, inner)?;
            }
            node => {
                let unknown = || not_a_key::<K>(name, entry.name).at(entry.place);
                let key = row::<K>(entry.name).ok_or_else(unknown)?;
                key.take(&mut kind, name, entry.name, node).map_err(|objection| objection.at(entry.place))?;
            }
        }
    }
    kind.check(name).map_err(|objection| objection.at(branch.place))?;
    Ok(kind)
}

/// At the top, where sections have no name, it is the name alone.
fn full_name(section: &str, name: &str) -> String {
    match section {
        "" => shorten(name),
        section => format!("{section}.{}", shorten(name)),
    }
}

fn row<K: Kind>(name: &str) -> Option<&'static Key<K>> {
    K::KEYS.iter().find(|key| key.naming.is_for(key.name, name))
}

/// A key's name is that of no section, though `local_addrs` begins with `local`.
fn part<K: Kind>(name: &str) -> Option<&'static Part<K>> {
    let is_key = row::<K>(name).is_some();
    K::PARTS.iter().find(|part| !is_key && part.naming.is_for(part.name, name))
}

impl<T> Key<T> {
    /// Takes what a key of this name in a section has. One without a value is as if it were not there.
    fn take(&self, kind: &mut T, section: &str, name: &str, node: &Node<'_>) -> Result<(), Objection> {
        if matches!(node, Node::Value([])) {
            return Ok(());
        }
        match &self.meaning {
            Meaning::Kept { allowed, read } => read(kind, name, node).map_err(|refused| {
                let key = full_name(section, name);
                match refused.why {
                    Some(why) => Objection::Notation { key, why },
                    None => Objection::Value { key, shown: assigned(refused), allowed },
                }
            }),
            Meaning::Ignored { values, instead } => {
                let is_ignored = match node {
                    Node::Value(octets) => values.iter().any(|v| v.as_bytes().eq_ignore_ascii_case(octets)),
                    Node::List(items) => items.is_empty(),
                    Node::Section(_) => false,
                };
                let (key, shown) = (full_name(section, name), assigned(Refused::node(node)));
                if is_ignored { Ok(()) } else { Err(Objection::Unsupported { key, shown, instead }) }
            }
        }
    }
}

fn assigned(refused: Refused) -> String {
    refused.shown.map_or(String::new(), |value| format!(" = {value}"))
}

fn not_a_section<K: Kind>(section: &str, name: &str) -> Objection {
    if row::<K>(name).is_some() {
        return Objection::Form { name: full_name(section, name), is_section: true };
    }
    let known: Vec<_> = K::PARTS.iter().map(|part| part.name).collect();
    Objection::UnknownSection { hint: hint(name, &known), name: shorten(name), section: section.to_owned() }
}

fn not_a_key<K: Kind>(section: &str, name: &str) -> Objection {
    if part::<K>(name).is_some_and(|part| part.naming == Naming::Exact || part.name == name) {
        return Objection::Form { name: full_name(section, name), is_section: false };
    }
    let known: Vec<_> = K::KEYS.iter().map(|key| key.name).collect();
    Objection::UnknownKey { hint: hint(name, &known), name: shorten(name), section: section.to_owned() }
}

fn hint(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean '{near}'?"),
        None if known.is_empty() => "there is none in this section".to_owned(),
        None => format!("it can have: {}", known.join(", ")),
    }
}

/// The sections in one whose names are free, such as `connections`, each with its full name.
///
/// # Errors
/// [`SettingError`] of a value among them, or what `read` says.
pub fn named<T>(
    name: &str,
    branch: &Branch<'_>,
    mut read: impl FnMut(&str, &Entry<'_>, &Branch<'_>) -> Result<T, SettingError>,
) -> Result<Vec<T>, SettingError> {
    let mut all = Vec::with_capacity(branch.entries.len());
    for entry in &branch.entries {
        let full = full_name(name, entry.name);
        match &entry.node {
            Node::Section(inner) => all.push(read(&full, entry, inner)?),
            _ => {
                let objection = Objection::Form { name: full, is_section: false };
                return Err(objection.at(entry.place));
            }
        }
    }
    Ok(all)
}
