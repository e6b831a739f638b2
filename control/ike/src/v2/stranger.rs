//! Peers that would begin an IKE SA and cannot: what they offer, and what is wanted of them.

use super::{child::names, ike_sa::Path};
use crate::{connection::Connection, message::Proposal};
use std::{fmt, sync::Arc};

/// Connections that are named in a text, at most.
pub(super) const MOST_NAMED: usize = 8;

/// A peer whose first message is answered by NO_PROPOSAL_CHOSEN. Whoever logs it has it written out, which takes longer than
/// to refuse it.
#[derive(Clone, Debug)]
pub struct Stranger {
    /// The addresses of its message.
    pub path: Path,
    /// What it offers.
    pub offered: Vec<Proposal>,
    /// The connections that there are between these addresses, the best first.
    pub connections: Vec<Arc<Connection>>,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.connections.is_empty() {
            return f.write_str("no connection is between these addresses");
        }
        write!(f, "no proposal in common: the peer offers {}, and wanted are", names(&self.offered))?;
        for (at, connection) in self.connections.iter().take(MOST_NAMED).enumerate() {
            let and = if at > 0 { ";" } else { "" };
            write!(f, "{and} {} by '{}'", connection.proposals, connection.name)?;
        }
        Ok(())
    }
}
