//! What becomes of children without anybody asking: `start_action`, `close_action` and `dpd_action` of swanctl.conf.
//!
//! A trap asks for its child by the first packet that is for it. That packet is dropped, as are those behind it until the SA is
//! there; who has sent it sends it again. Selectors are those that are configured, and not the packet's.

use super::{Ike, children::Trap, source_for};
use crate::acquire::Acquire;
use portcullis_ike::v2::{
    child::{ChildSa, EndedBy},
    output::Event,
};
use portcullis_sadb::Sadb;
use std::collections::{HashMap, HashSet};

/// A connection, and a child of it.
type Named = (String, String);

/// For how long a child that a packet has asked for is not asked for again, if nothing is heard of it: longer than it takes
/// until a peer is given up.
const AGAIN_MS: u64 = 200_000;

/// What is to be done about children.
#[derive(Debug, Default)]
pub(super) struct Actions {
    /// Traps that an action has laid, besides those of `start_action`.
    trapped: HashSet<Named>,
    /// Children that packets have asked for, until when they are not asked for again.
    begun: HashMap<Named, u64>,
    /// Those that have ended, and not by us.
    ended: Vec<(Named, EndedBy)>,
    /// Traps may be others.
    is_changed: bool,
}

impl Ike {
    /// A packet asks for what is not there. False if it is nothing of IKE's.
    pub fn hear_packet(&mut self, acquire: &Acquire, sadb: &mut Sadb) -> bool {
        let Some(named) = self.children.trapped(sadb, acquire.policy) else {
            return self.children.policies().any(|index| index == acquire.policy);
        };
        let now_ms = self.now_ms();
        if self.actions.begun.get(&named).is_some_and(|until_ms| now_ms < *until_ms) {
            return true;
        }
        let (connection, child) = &named;
        tracing::info!("connection '{connection}': a packet asks for '{child}'");
        if let Err(why) = self.initiate(Some(connection), Some(child), sadb) {
            tracing::warn!("connection '{connection}': '{child}' is not begun: {why}");
        }
        self.actions.begun.insert(named, now_ms + AGAIN_MS);
        true
    }

    /// Something has come of what a packet asked for.
    pub(super) fn note_outcome(&mut self, connection: &str, event: &Event) {
        match event {
            Event::ChildUp(child, _) | Event::ChildFailed(child, _) | Event::ChildDown(child, _) => {
                self.actions.begun.remove(&(connection.to_owned(), child.clone()));
            }
            Event::Closed(_) => self.actions.begun.retain(|(of, _), _| of != connection),
            _ => {}
        }
    }

    /// A child SA has ended.
    pub(super) fn note_end(&mut self, child: &ChildSa) {
        let Some(by) = child.ended_by else { return };
        if let Some(connection) = self.children.connection_of(child.spi_in) {
            self.actions.ended.push(((connection.to_owned(), child.config.name.clone()), by));
        }
    }

    /// Connections are others.
    pub(super) fn note_connections(&mut self) {
        self.actions.is_changed = true;
    }

    /// Does what is to be done.
    pub(super) fn act(&mut self, sadb: &mut Sadb) {
        for (named, by) in std::mem::take(&mut self.actions.ended) {
            let (connection, name) = &named;
            let of = self.swanctl.connections.iter().find(|c| c.name == *connection);
            let child = of.and_then(|c| c.children.iter().find(|child| child.name == *name));
            let action = child.map(|child| match by {
                EndedBy::Peer => child.close_action,
                EndedBy::Silence => child.dpd_action,
            });
            let action = action.unwrap_or_default();
            if action.start {
                tracing::info!("connection '{connection}': '{name}' has ended, and is begun again");
                if let Err(why) = self.initiate(Some(connection), Some(name), sadb) {
                    tracing::warn!("connection '{connection}': '{name}' is not begun: {why}");
                }
            }
            if action.trap {
                self.actions.is_changed |= self.actions.trapped.insert(named);
            }
        }
        if std::mem::take(&mut self.actions.is_changed) {
            self.lay_traps(sadb);
        }
    }

    /// Has the traps that there should be, and no others.
    pub(super) fn lay_traps(&mut self, sadb: &mut Sadb) {
        let mut wanted = vec![];
        let mut there = HashSet::new();
        for (written, made) in self.swanctl.connections.iter().zip(&self.config.connections) {
            for child in &written.children {
                let named = (written.name.clone(), child.name.clone());
                let is_trap = child.start_action.trap || self.actions.trapped.contains(&named);
                there.insert(named);
                let config = made.children.iter().find(|config| config.name == child.name);
                let Some(config) = config.filter(|_| is_trap) else { continue };
                let ends = made.remote.first().ok_or_else(|| "remote_addrs has no address".to_owned());
                let ends = ends.and_then(|peer| {
                    let local = made.local.first().map_or_else(|| source_for(peer), Ok);
                    local.map(|local| (local, peer)).map_err(|e| format!("there is no route to {peer}: {e}"))
                });
                match ends {
                    Ok((local, peer)) => wanted.push(Trap {
                        connection: written.name.clone(),
                        child: child.name.clone(),
                        traffic: config.policy(&[local], &[peer]),
                    }),
                    Err(why) => {
                        tracing::error!("connection '{}': '{}' has no trap: {why}", written.name, child.name)
                    }
                }
            }
        }
        self.actions.trapped.retain(|named| there.contains(named));
        for (Trap { connection, child, .. }, error) in self.children.set_traps(sadb, &wanted) {
            tracing::error!("connection '{connection}': '{child}' has no trap: {error}");
        }
    }
}
