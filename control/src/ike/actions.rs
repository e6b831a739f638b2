//! What becomes of children without anybody asking: `start_action`, `close_action` and `dpd_action` of swanctl.conf.
//!
//! Traps and shunts are laid by `start_action = trap`, or when somebody asks for it. A trap asks for its child by the first packet that
//! is for it. That packet is dropped, as are those behind it until the SA is there; who has sent it sends it again. Selectors are
//! those that are configured, behind the packet's in IKEv2 (RFC 7296 §2.9), so that what the peer narrows them to is for it.

use super::{
    Ike,
    children::{Shunt, Trap},
    configured,
    names::names_of,
};
use crate::{
    acquire::Acquire,
    swanctl::{
        child::{Action, Child},
        connection::Connection,
    },
};
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

/// Policies that a predecessor has left for traps stay so long at most, if it is not known what traps are for.
const HELD_MS: u64 = 300_000;

/// What is to be done about children.
#[derive(Debug, Default)]
pub(super) struct Actions {
    /// Children whose traps, or shunts, are laid or not, whatever their `start_action` says.
    laid: HashMap<Named, bool>,
    /// Children that packets have asked for, until when they are not asked for again.
    begun: HashMap<Named, u64>,
    /// Those that have ended, and not by us.
    ended: Vec<(Named, EndedBy)>,
    /// Traps and shunts may be others.
    is_changed: bool,
    /// Connections of which it is not known what some trap is for.
    lacking: HashSet<String>,
    /// Until when policies of a predecessor stay for such.
    held_until_ms: Option<u64>,
}

impl Actions {
    /// When something is to be done.
    pub fn due_ms(&self) -> Option<u64> {
        self.held_until_ms
    }
}

impl Ike {
    /// A packet asks for what is not there. False if it is nothing of IKE's.
    pub fn hear_packet(&mut self, acquire: &Acquire, sadb: &mut Sadb) -> bool {
        let Some(named) = self.children.trapped(sadb, acquire.policy) else {
            let mut ours = self.children.policies().chain(self.children.held());
            return ours.any(|index| index == acquire.policy);
        };
        let now_ms = self.now_ms();
        if self.actions.begun.get(&named).is_some_and(|until_ms| now_ms < *until_ms) {
            return true;
        }
        let (connection, child) = &named;
        tracing::info!("connection '{connection}': a packet asks for '{child}'");
        match self.initiate_for(Some(connection), Some(child), Some(acquire.flow), sadb) {
            Ok(_) => _ = self.actions.begun.insert(named, now_ms + AGAIN_MS),
            Err(why) => tracing::warn!("connection '{connection}': '{child}' is not begun: {why}"),
        }
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
            let action = child.map(|child| action_of(child, by)).unwrap_or_default();
            if action.start {
                tracing::info!("connection '{connection}': '{name}' has ended, and is begun again");
                self.start(connection, name, sadb);
            }
            if action.trap {
                self.actions.is_changed |= self.actions.laid.insert(named, true) != Some(true);
            }
        }
        let is_over = self.actions.held_until_ms.is_some_and(|until_ms| until_ms <= self.now_ms());
        if std::mem::take(&mut self.actions.is_changed) || is_over {
            self.lay_traps(sadb);
            self.let_go(is_over, sadb);
        }
    }

    /// What a predecessor has laid stays as long as it is not known what traps are for: it may be theirs.
    pub(super) fn hold_traps(&mut self, sadb: &mut Sadb) {
        if self.actions.lacking.is_empty() {
            return;
        }
        let held = self.children.hold(sadb, self.actions.lacking.clone());
        self.actions.held_until_ms = Some(self.now_ms() + HELD_MS);
        if held > 0 {
            let secs = HELD_MS / 1000;
            tracing::info!("{held} policies from before stay until all traps can be laid, {secs} s at most");
        }
    }

    /// It goes when all are laid, or the time is over.
    fn let_go(&mut self, is_over: bool, sadb: &mut Sadb) {
        let is_held = self.actions.held_until_ms.is_some();
        if !is_held || !self.actions.lacking.is_empty() && !is_over {
            return;
        }
        self.actions.held_until_ms = None;
        let gone = self.children.let_go(sadb);
        if gone > 0 && !self.actions.lacking.is_empty() {
            let secs = HELD_MS / 1000;
            tracing::warn!("{gone} policies from before go, as some trap could not be laid for {secs} s");
        }
    }

    /// Whether the trap of a child is laid, or its shunt.
    fn is_laid(&self, named: &Named, child: &Child) -> bool {
        self.actions.laid.get(named).copied().unwrap_or(child.start_action.trap)
    }

    /// The connections and children whose traps, or shunts, are laid.
    pub fn laid(&self) -> impl Iterator<Item = (&Connection, &Child)> {
        let of = |connection: &Connection, child: &Child| (connection.name.clone(), child.name.clone());
        let all =
            self.swanctl.connections.iter().flat_map(|c| c.children.iter().map(move |child| (c, child)));
        all.filter(move |(c, child)| self.is_laid(&of(c, child), child))
    }

    /// Lays the trap of a child, or its shunt, or takes it away: until it is loaded otherwise.
    ///
    /// # Errors
    /// Why not.
    pub fn lay(
        &mut self,
        connection: Option<&str>,
        name: &str,
        is_laid: bool,
        sadb: &mut Sadb,
    ) -> Result<(), String> {
        let has = |c: &&Connection| {
            connection.is_none_or(|name| c.name == name) && c.children.iter().any(|child| child.name == name)
        };
        let of = self.swanctl.connections.iter().find(has);
        let of = of.ok_or_else(|| format!("no connection has a child '{name}'"))?.name.clone();
        let named = (of, name.to_owned());
        let before = self.actions.laid.insert(named.clone(), is_laid);
        let why = self.lay_all(sadb).into_iter().find(|(failed, _)| is_laid && *failed == named);
        match why {
            None => Ok(()),
            Some((_, why)) => {
                match before {
                    Some(before) => self.actions.laid.insert(named, before),
                    None => self.actions.laid.remove(&named),
                };
                Err(format!("'{name}' is not installed: {why}"))
            }
        }
    }

    /// A child is loaded that was not, or was another: it is as its `start_action` says.
    pub(super) fn note_child(&mut self, connection: &str, child: &str) {
        self.actions.laid.remove(&(connection.to_owned(), child.to_owned()));
    }

    /// Has the traps and shunts that there should be, and no others.
    pub(super) fn lay_traps(&mut self, sadb: &mut Sadb) {
        for ((connection, child), why) in self.lay_all(sadb) {
            tracing::error!("connection '{connection}': '{child}' has no policies: {why}");
        }
    }

    /// The same; which cannot be, and why.
    fn lay_all(&mut self, sadb: &mut Sadb) -> Vec<(Named, String)> {
        let (mut traps, mut shunts, mut failed) = (vec![], vec![], vec![]);
        let (mut there, mut lacking) = (HashSet::new(), HashSet::new());
        for connection in &self.swanctl.connections {
            for child in &connection.children {
                let named = (connection.name.clone(), child.name.clone());
                let is_laid = self.is_laid(&named, child);
                there.insert(named.clone());
                match is_laid.then(|| self.policies_of(connection, child)) {
                    Some(Ok(Laid::Trap(trap))) => traps.push(trap),
                    Some(Ok(Laid::Shunt(shunt))) => shunts.push(shunt),
                    Some(Err(why)) => {
                        lacking.insert(connection.name.clone());
                        failed.push((named, why));
                    }
                    Some(Ok(Laid::Later)) => _ = lacking.insert(connection.name.clone()),
                    None => {}
                }
            }
        }
        self.actions.lacking = lacking;
        self.actions.laid.retain(|named, _| there.contains(named));
        for (Shunt { connection, child, .. }, error) in self.children.set_shunts(sadb, &shunts) {
            failed.push(((connection.clone(), child.clone()), error.to_string()));
        }
        for (Trap { connection, child, .. }, error) in self.children.set_traps(sadb, &traps) {
            failed.push(((connection.clone(), child.clone()), error.to_string()));
        }
        failed
    }

    fn policies_of(&self, connection: &Connection, child: &Child) -> Result<Laid, String> {
        if let Some(shunt) = configured::shunt(connection, child).map_err(|e| e.to_string())? {
            return Ok(Laid::Shunt(shunt));
        }
        let made = self.config.connection(&connection.name).ok_or("it is not loaded")?;
        let config = made.children.iter().find(|config| config.name == child.name);
        let config = config.ok_or("it is not loaded")?;
        // Networks are protected whether it is known where the ends are or not.
        let traffic = if !config.is_dynamic() {
            config.policy(&[], &[])
        } else if names_of(connection).any(|name| self.names.is_unknown(name)) {
            return Ok(Laid::Later);
        } else {
            let (local, peer) = self.ends(made)?;
            config.policy(&[local], &[peer])
        };
        Ok(Laid::Trap(Trap {
            connection: connection.name.clone(),
            child: child.name.clone(),
            traffic,
            priority: config.priority,
        }))
    }
}

/// What is done about a child that has ended.
fn action_of(child: &Child, by: EndedBy) -> Action {
    let Child { start_action, close_action, dpd_action, .. } = child;
    match by {
        EndedBy::Peer => *close_action,
        EndedBy::Silence => *dpd_action,
        // Nobody has wanted it to end.
        EndedBy::Age => Action {
            trap: start_action.trap || close_action.trap,
            start: start_action.start || close_action.start,
        },
    }
}

/// What is laid of a child.
enum Laid {
    Trap(Trap),
    Shunt(Shunt),
    /// Nothing before its names are looked up.
    Later,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swanctl::Configuration;
    use std::path::Path;

    /// What is done about a child that has ended, of what is written about it.
    fn done(written: &str, by: EndedBy) -> Action {
        let text = format!(
            "connections {{ a {{ local {{ auth = psk }}\n remote {{ auth = psk }}\n children {{ net {{ {written} }} }} }} }}"
        );
        let swanctl = Configuration::parse(Path::new("swanctl.conf"), &text).unwrap();
        action_of(&swanctl.connections[0].children[0], by)
    }

    #[test]
    fn what_ends_by_its_age_is_as_if_it_were_loaded_or_closed() {
        let action = |trap, start| Action { trap, start };
        for (written, by_age) in [
            ("", action(false, false)),
            ("start_action = start", action(false, true)),
            ("start_action = trap", action(true, false)),
            ("close_action = start", action(false, true)),
            ("start_action = trap\n close_action = start", action(true, true)),
            ("dpd_action = restart", action(false, false)),
        ] {
            assert_eq!(done(written, EndedBy::Age), by_age, "{written}");
        }
        let all = "start_action = start\n close_action = trap\n dpd_action = clear";
        assert_eq!(done(all, EndedBy::Peer), action(true, false));
        assert_eq!(done(all, EndedBy::Silence), action(false, false));
    }
}
