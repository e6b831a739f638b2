//! Sections, keys and values, whatever they came in: the same keys mean the same in a file and in a VICI message.
//!
//! Nothing is copied: values may be secrets, and are wiped by whoever owns the octets. Names may be there more than
//! once; the last value counts.

use super::syntax::{Content, Section};
use portcullis_machine::strict::Place;
use std::{fmt, rc::Rc};

/// What is in a section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch<'a> {
    /// Where it begins, if that is in a file.
    pub place: Option<&'a Place>,
    /// In their order.
    pub entries: Vec<Entry<'a>>,
}

/// A name in a section, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where it is, if that is in a file.
    pub place: Option<&'a Place>,
    /// The name.
    pub name: &'a str,
    /// What it stands for.
    pub node: Node<'a>,
}

/// What a name stands for.
#[derive(Clone, PartialEq, Eq)]
pub enum Node<'a> {
    /// A value. In files it is text.
    Value(&'a [u8]),
    /// Values; in files they are one, with commas.
    List(Vec<&'a [u8]>),
    /// A section.
    Section(Branch<'a>),
}

impl<'a> Branch<'a> {
    /// The value of a key, if that is text and not empty.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        std::str::from_utf8(self.octets(key)?).ok()
    }

    /// The value of a key, if it is not empty.
    pub fn octets(&self, key: &str) -> Option<&'a [u8]> {
        match self.find(&[key])?.node {
            Node::Value(octets) => Some(octets).filter(|octets| !octets.is_empty()),
            _ => None,
        }
    }

    /// What is in sections of these names.
    pub fn find(&self, path: &[&str]) -> Option<&Entry<'a>> {
        let (name, rest) = path.split_first()?;
        let entry = self.entries.iter().rev().find(|entry| entry.name == *name)?;
        match &entry.node {
            _ if rest.is_empty() => Some(entry),
            Node::Section(branch) => branch.find(rest),
            _ => None,
        }
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Value(_) => f.write_str("(hidden)"),
            Node::List(list) => write!(f, "({} hidden)", list.len()),
            Node::Section(branch) => branch.fmt(f),
        }
    }
}

/// Keys that are set to nothing are not there.
impl<'a> From<&'a Section> for Branch<'a> {
    fn from(section: &'a Section) -> Branch<'a> {
        let entries = section.entries().iter().filter_map(|entry| {
            let node = match &entry.content {
                Content::Value(value) => Node::Value(Rc::as_ref(value.as_ref()?).as_bytes()),
                Content::Section(section) => Node::Section(Branch::from(section)),
            };
            Some(Entry { place: Some(&entry.place), name: &entry.name, node })
        });
        Branch { place: Some(&section.place), entries: entries.collect() }
    }
}
