//! What a connection was read from, so that another process can read the same.

use super::tree::{Branch, Entry, Node};
use crate::vici::message::{Writer, parse};
use portcullis_ike::crypto::transform::Prf;
use std::{fmt, sync::Arc};

/// The section of a connection, as a message of VICI's `load-conn`. There are no secrets in it.
#[derive(Clone, Default)]
pub struct Source(Arc<[u8]>);

/// It says no more than what was read from it.
impl PartialEq for Source {
    fn eq(&self, _: &Source) -> bool {
        true
    }
}

impl Eq for Source {}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({} octets)", self.0.len())
    }
}

impl Source {
    /// That of a section. One that is longer than a message has none.
    pub fn of(name: &str, branch: &Branch<'_>) -> Source {
        let entry = Entry { place: None, name, node: Node::Section(branch.clone()) };
        let mut writer = Writer::default();
        writer.branch(&Branch { place: None, entries: vec![entry] });
        writer.finish().map(|message| Source::from(message.octets())).unwrap_or_default()
    }

    /// The octets.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// What tells it from all others.
    pub fn mark(&self) -> u64 {
        let digest = Prf::HmacSha256.mac(b"connection", &[&self.0]);
        let (first, _) = digest.bytes().split_first_chunk().expect("it has 32 octets");
        u64::from_be_bytes(*first)
    }

    /// The connection that it is of.
    pub fn read(&self) -> Option<super::connection::Connection> {
        let branch = parse(&self.0).ok()?;
        super::connections(&branch).ok()?.pop()
    }
}

impl From<&[u8]> for Source {
    fn from(octets: &[u8]) -> Source {
        Source(octets.into())
    }
}
