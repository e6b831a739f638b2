//! What packets ask for: an SA under a policy that has none (RFC 4301 §5.1).
//!
//! A packet's [`Acquire`] becomes a [`Child`]: the selector of the SA (RFC 4301 §4.4.1), and where its policies stand. Who has
//! keys for it calls [`Installer::establish`]. Here they are the next ones of the connection's stock; where IKE negotiates
//! them, the child's selector is what it proposes, and the packet what comes first in its traffic selectors (RFC 7296
//! §2.9).

use crate::{
    config::Connections,
    connection::{CONNECTION_PRIORITY, Connection},
    install::{InstallError, Installer, back, free_reqid, sa, used_reqids},
    keying::Pair,
    secret::Secret,
};
use portcullis_sadb::{
    Action, Direction, Event, EventKind, Flow, Policy, PolicyIndex, Populate, Sadb, Selector, Spi,
};
use std::collections::HashSet;

/// A packet that is for a policy without an SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acquire {
    /// The policy, outbound.
    pub policy: PolicyIndex,
    /// What the packet has.
    pub flow: Flow,
}

/// A pair of SAs that is wanted.
#[derive(Clone, Debug)]
pub struct Child<'a> {
    /// Of which connection.
    pub connection: &'a Connection,
    /// What it is for, as it goes out.
    pub selector: Selector,
    /// The policies that its own stand above: outbound and inbound.
    below: [PolicyIndex; 2],
}

impl Acquire {
    /// What a worker told, if that is one.
    pub fn of(event: &Event) -> Option<Acquire> {
        let policy = PolicyIndex(u32::try_from(event.value).ok()?);
        (event.kind == EventKind::Acquire).then(|| Acquire { policy, flow: Flow::from_words(&event.about) })
    }

    /// What is wanted, unless it is there by now, or nothing in the configuration wants it any more.
    pub fn child<'a>(&self, sadb: &Sadb, connections: &'a Connections) -> Option<Child<'a>> {
        let hit = sadb.lookup(Direction::Outbound, &self.flow)?;
        let is_wanted = (hit.index, hit.action, hit.sa) == (self.policy, Action::Protect, None);
        let policy = sadb.policy(self.policy).filter(|p| is_wanted && p.priority == CONNECTION_PRIORITY)?;
        let mut all = connections.connections.iter().filter(|c| !c.keys.stock.is_empty());
        let connection = all.find(|c| c.selectors().any(|s| s == policy.selector))?;
        let there = back(&policy.selector);
        let is_below = |(index, p): &(PolicyIndex, Policy)| {
            (p.direction, p.priority) == (Direction::Inbound, CONNECTION_PRIORITY)
                && p.selector == there
                && sadb.populate(*index).above().is_none()
        };
        let (inbound, _) = sadb.policies().find(is_below)?;
        let selector = policy.selector.populated(sadb.populate(self.policy).fields(), &self.flow)?;
        Some(Child { connection, selector, below: [self.policy, inbound] })
    }
}

/// How much of a connection's stock was taken.
pub fn taken(sadb: &Sadb, connection: &Connection) -> usize {
    let spis = inbound_spis(sadb, connection);
    connection.keys.stock.iter().filter(|pair| spis.contains(&pair.inbound.spi)).count()
}

fn inbound_spis(sadb: &Sadb, connection: &Connection) -> HashSet<Spi> {
    let is_ours = |name: &str, direction| name == connection.name && direction == Direction::Inbound;
    let ours = sadb.sas().filter(|(_, _, sa)| is_ours(&sa.name.to_string(), sa.direction));
    ours.map(|(_, _, sa)| sa.spi).collect()
}

impl Installer {
    /// The keys that come next in a connection's stock: of which none is or was in an SA.
    pub fn next_pair<'a>(&self, sadb: &Sadb, connection: &'a Connection) -> Option<&'a Pair> {
        let is_fresh = |pair: &&Pair| {
            // Of a pair the inbound SA is there first and goes last.
            sadb.find(pair.inbound.spi).is_none()
                && pair.directions().iter().all(|(_, keying)| {
                    let key = Secret::copy_of(&keying.key.bytes()[..connection.algorithm.first_key_len()]);
                    !self.spent.contains(&key)
                })
        };
        connection.keys.stock.iter().find(is_fresh)
    }

    /// Installs a pair of SAs for what packets ask for, and the policies that lead to it: directly above those that had
    /// none, so that they come before nothing else.
    ///
    /// # Errors
    /// [`InstallError`] if the SADB refuses them; nothing of them is there then.
    pub fn establish(
        &mut self,
        sadb: &mut Sadb,
        child: &Child<'_>,
        pair: &Pair,
        now_secs: u32,
    ) -> Result<(), InstallError> {
        let c = child.connection;
        let reqid = free_reqid(&mut used_reqids(sadb));
        let mut slots = vec![];
        for direction in [Direction::Inbound, Direction::Outbound] {
            match sadb.publish(&sa(c, pair, direction, reqid, now_secs)) {
                Ok(slot) => slots.push(slot),
                Err(source) => {
                    // No policy led to them, so their keys are as good as new.
                    slots.into_iter().for_each(|slot| _ = sadb.retire(slot));
                    return Err(InstallError::Sa { name: c.name.clone(), direction, source });
                }
            }
        }
        let [outbound, inbound] = child.below;
        let policy = |direction, selector, sa| Policy {
            direction,
            selector,
            priority: CONNECTION_PRIORITY,
            action: Action::Protect,
            reqid,
            sa,
        };
        let added = sadb
            .add_populated(&policy(Direction::Inbound, back(&child.selector), None), Populate::Above(inbound))
            .and_then(|inbound| {
                let policy = policy(Direction::Outbound, child.selector.clone(), Some(slots[1]));
                let added = sadb.add_populated(&policy, Populate::Above(outbound));
                added.inspect_err(|_| _ = sadb.remove_policy(inbound))
            });
        added.map(|_| ()).map_err(|source| {
            slots.into_iter().for_each(|slot| _ = sadb.retire(slot));
            InstallError::Policy { of: format!("connection '{}'", c.name), source }
        })
    }
}

#[cfg(test)]
mod tests;
