//! What a command, its answer or an event says: sections, keys with values, and lists, each with a type, its name
//! behind an octet with its length, and values behind two.

use super::{MAX_PACKET, Malformed, Reader, Why};
use crate::swanctl::tree::{Branch, Entry, Node};
use std::fmt;
use thiserror::Error;

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// Sections in sections, at most.
const DEPTH: usize = 32;

/// Octets of a message, at most: with the longest name it goes into a packet.
const MAX_MESSAGE: usize = MAX_PACKET - 2 - u8::MAX as usize;

/// Reads a message. Values are those in `octets`; for each name it allocates some 64 octets, and no name has less than
/// four.
///
/// # Errors
/// [`Malformed`] says what is wrong at which octet.
pub fn parse(octets: &[u8]) -> Result<Branch<'_>, Malformed> {
    let mut reader = Reader::new(octets);
    let mut entries = vec![];
    // Sections that are not over, each with its name and what is before it.
    let mut around: Vec<(&str, Vec<Entry<'_>>)> = vec![];
    while !reader.is_at_end() {
        let start = reader.error(Why::TooDeep);
        let (name, node) = match reader.octet()? {
            SECTION_START if around.len() == DEPTH => return Err(start),
            SECTION_START => {
                around.push((reader.name()?, std::mem::take(&mut entries)));
                continue;
            }
            SECTION_END => {
                let (name, before) = around.pop().ok_or(Malformed { why: Why::NoSection, ..start })?;
                let inner = std::mem::replace(&mut entries, before);
                (name, Node::Section(Branch { place: None, entries: inner }))
            }
            KEY_VALUE => (reader.name()?, Node::Value(reader.value()?)),
            LIST_START => (reader.name()?, Node::List(items(&mut reader)?)),
            LIST_ITEM | LIST_END => return Err(Malformed { why: Why::NoList, ..start }),
            other => return Err(Malformed { why: Why::ElementType(other), ..start }),
        };
        entries.push(Entry { place: None, name, node });
    }
    match around.is_empty() {
        true => Ok(Branch { place: None, entries }),
        false => Err(reader.error(Why::Cut)),
    }
}

fn items<'a>(reader: &mut Reader<'a>) -> Result<Vec<&'a [u8]>, Malformed> {
    let mut items = vec![];
    loop {
        let wrong = reader.error(Why::NoItem);
        match reader.octet()? {
            LIST_ITEM => items.push(reader.value()?),
            LIST_END => return Ok(items),
            _ => return Err(wrong),
        }
    }
}

/// The octets of a message that goes into a packet.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Message(Vec<u8>);

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} octets)", self.0.len())
    }
}

/// A name of more than 255 octets or none, a value of more than 65,535, or a message that no packet has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("what is to be told has no room in a message of VICI")]
pub struct TooLong;

impl Message {
    /// The octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// The answer to a command that has been done, or has not.
    pub fn outcome(outcome: Result<(), &str>) -> Message {
        let mut writer = Writer::default();
        match outcome {
            Ok(()) => writer.value("success", "yes"),
            Err(why) => {
                let end = (0..=why.len().min(1024))
                    .rev()
                    .find(|end| why.is_char_boundary(*end))
                    .unwrap_or_default();
                writer.value("success", "no").value("errmsg", &why[..end])
            }
        };
        Message(writer.octets)
    }
}

/// Writes a message.
///
/// ```
/// use portcullis_control::vici::message::Writer;
/// let mut writer = Writer::default();
/// writer.section("net", |net| {
///     net.value("mode", "TUNNEL").list("local-ts", ["10.1.0.0/16"]);
/// });
/// assert_eq!(writer.finish().unwrap().octets()[..6], *b"\x01\x03net\x03");
/// ```
#[derive(Default)]
pub struct Writer {
    octets: Vec<u8>,
    is_too_long: bool,
}

impl Writer {
    /// A key with its value.
    pub fn value(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Writer {
        self.name(KEY_VALUE, name);
        self.octets(value.as_ref())
    }

    /// A list.
    pub fn list<I: AsRef<[u8]>>(&mut self, name: &str, items: impl IntoIterator<Item = I>) -> &mut Writer {
        self.name(LIST_START, name);
        for item in items {
            self.octets.push(LIST_ITEM);
            self.octets(item.as_ref());
        }
        self.octets.push(LIST_END);
        self
    }

    /// A section with what `inner` writes.
    pub fn section(&mut self, name: &str, inner: impl FnOnce(&mut Writer)) -> &mut Writer {
        self.name(SECTION_START, name);
        inner(self);
        self.octets.push(SECTION_END);
        self
    }

    /// All that is in a tree.
    pub fn branch(&mut self, branch: &Branch<'_>) -> &mut Writer {
        for entry in &branch.entries {
            match &entry.node {
                Node::Value(value) => self.value(entry.name, value),
                Node::List(items) => self.list(entry.name, items),
                Node::Section(inner) => self.section(entry.name, |writer| {
                    writer.branch(inner);
                }),
            };
        }
        self
    }

    /// The message.
    ///
    /// # Errors
    /// [`TooLong`], if it or something in it is.
    pub fn finish(self) -> Result<Message, TooLong> {
        match self.is_too_long || self.octets.len() > MAX_MESSAGE {
            true => Err(TooLong),
            false => Ok(Message(self.octets)),
        }
    }

    fn name(&mut self, element: u8, name: &str) {
        match u8::try_from(name.len()) {
            Ok(length) if length > 0 => {
                self.octets.extend([element, length]);
                self.octets.extend(name.as_bytes());
            }
            _ => self.is_too_long = true,
        }
    }

    fn octets(&mut self, octets: &[u8]) -> &mut Writer {
        match u16::try_from(octets.len()) {
            Ok(length) => {
                self.octets.extend(length.to_be_bytes());
                self.octets.extend(octets);
            }
            Err(_) => self.is_too_long = true,
        }
        self
    }
}
