//! The SPD as connections, routes and what packets asked for want it.
//!
//! Policies are changed one after the other while packets go through. So what comes first is added first, and of what
//! protects the wider prefix is taken out before what is in it: nothing goes into the tunnel of a wider one meanwhile.

use super::{Apart, GUARD_PRIORITY, InstallError, Plan, Wanted, wait_for_workers};
use crate::{
    config::Connections,
    connection::{CONNECTION_PRIORITY, Connection, Exception},
    routes::{self, RouteSelectors},
};
use portcullis_sadb::{
    Action, Classes, Direction, Fields, Policy, PolicyIndex, Populate, Sadb, SadbError, Selector,
};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
};

/// A policy, and whose it is.
pub(super) struct WantedPolicy {
    of: String,
    policy: Policy,
    /// RFC 4301 §4.1: an SA for each class of traffic.
    classes: Option<Classes>,
    /// What SAs are populated with.
    fields: Fields,
    /// The selector of the policy that it was populated from.
    below: Option<Selector>,
}

impl WantedPolicy {
    fn new(of: String, policy: Policy) -> WantedPolicy {
        WantedPolicy { of, policy, classes: None, fields: Fields::NONE, below: None }
    }
}

pub(super) fn policies(
    connections: &Connections,
    down: &BTreeSet<String>,
    plan: &Plan,
    routes: &RouteSelectors,
) -> Vec<WantedPolicy> {
    let mut rest = &plan.sas[..];
    let protecting = connections.connections.iter().zip(&plan.reqids).flat_map(move |(c, reqid)| {
        let (own, behind) = rest.split_at(2 * c.keys.own.len());
        rest = behind;
        let is_up = !down.contains(&c.name);
        let action = if is_up { Action::Protect } else { Action::Discard };
        let outbound = own.chunks(2).map(|pair| pair[1].slot.filter(|_| is_up));
        let sa = outbound.clone().next().flatten();
        let classes = (is_up && c.keys.own.len() > 1).then(|| {
            let mut classes = Classes::new(sa);
            for (pair, sa) in c.keys.own.iter().zip(outbound).skip(1) {
                classes.add(&pair.dscps, sa);
            }
            classes
        });
        let reqid = if is_up { *reqid } else { 0 };
        let fields = if is_up { c.keys.populate } else { Fields::NONE };
        let routed = c.interface.as_deref().map_or(&[][..], |interface| routes.of(interface)).iter();
        let routed =
            routed.map(|dst| (c.next_layer.between(routes::any(dst.addr()), *dst), routes::priority(dst)));
        let selectors = c.selectors().map(|there| (there, CONNECTION_PRIORITY)).chain(routed);
        selectors.flat_map(move |(there, priority)| {
            let policy =
                |direction, selector, sa| Policy { direction, selector, priority, action, reqid, sa };
            let of = format!("connection '{}'", c.name);
            let inbound = WantedPolicy::new(of.clone(), policy(Direction::Inbound, back(&there), None));
            let outbound = WantedPolicy::new(of, policy(Direction::Outbound, there, sa));
            [WantedPolicy { classes: classes.clone(), fields, ..outbound }, inbound]
        })
    });
    let exceptions = connections
        .exceptions
        .iter()
        .flat_map(|e| exception(e).map(|policy| WantedPolicy::new(format!("policy '{}'", e.name), policy)));
    let elsewhere = routes.elsewhere().iter().flat_map(|dst| {
        let selector = Selector::between(routes::any(dst.addr()), *dst);
        both_ways(&selector, routes::priority(dst), Action::Bypass)
            .map(|policy| WantedPolicy::new(format!("route {dst}"), policy))
    });
    protecting.chain(elsewhere).chain(exceptions).collect()
}

/// As it is written, for what goes out; and the same the other way round, for the answers that come in.
fn exception(e: &Exception) -> [Policy; 2] {
    both_ways(&e.selector, e.priority, e.action)
}

fn both_ways(there: &Selector, priority: u32, action: Action) -> [Policy; 2] {
    let policy = |direction, selector| Policy { direction, selector, priority, action, reqid: 0, sa: None };
    [policy(Direction::Outbound, there.clone()), policy(Direction::Inbound, back(there))]
}

/// The same the other way round.
pub(crate) fn back(there: &Selector) -> Selector {
    Selector {
        src: there.dst,
        dst: there.src,
        protocol: there.protocol,
        src_ports: there.dst_ports.clone(),
        dst_ports: there.src_ports.clone(),
    }
}

/// The policies of these SAs that packets have populated from those of a connection, as they should be now.
pub(super) fn populated_by(
    sadb: &Sadb,
    c: &Connection,
    is_down: bool,
    taken: &[Wanted],
) -> Vec<WantedPolicy> {
    let selectors: HashSet<Selector> = c.selectors().collect();
    let of = |(index, present): (PolicyIndex, Policy)| {
        let below = sadb.policy(sadb.populate(index).above()?)?;
        let there = match present.direction {
            Direction::Outbound => below.selector.clone(),
            Direction::Inbound => back(&below.selector),
        };
        let outbound =
            taken.iter().find(|w| (w.sa.reqid, w.sa.direction) == (present.reqid, Direction::Outbound))?;
        let is_ours = selectors.contains(&there) && present.priority == CONNECTION_PRIORITY;
        let sa = outbound.slot.filter(|_| !is_down && present.direction == Direction::Outbound);
        let action = if is_down { Action::Discard } else { Action::Protect };
        is_ours.then(|| WantedPolicy {
            of: format!("connection '{}'", c.name),
            policy: Policy { action, sa, ..present },
            classes: None,
            fields: Fields::NONE,
            below: Some(below.selector),
        })
    };
    sadb.policies().filter_map(of).collect()
}

/// Makes the SPD what is wanted, and returns how many policies changed. What packets have populated is there already, and
/// stays or changes as the policies that it stands above.
pub(super) fn install_policies(
    sadb: &mut Sadb,
    wanted: &[WantedPolicy],
    populated: &[WantedPolicy],
    apart: &Apart,
) -> Result<usize, InstallError> {
    /// With the index of the policy that it stands above.
    type Place = (Direction, Selector, u32, Option<PolicyIndex>);
    let place = |p: &Policy, above| (p.direction, p.selector.clone(), p.priority, above);
    let of = |(index, p): (PolicyIndex, Policy)| (place(&p, sadb.populate(index).above()), (index, p));
    let ours = sadb.policies().filter(|(index, _)| !apart.policies.contains(index));
    let mut present: HashMap<Place, (PolicyIndex, Policy)> = ours.map(of).collect();
    let mut above = vec![];
    for owned in populated {
        let p = &owned.policy;
        let Some(below) = &owned.below else { continue };
        let below = present.get(&(p.direction, below.clone(), p.priority, None)).map(|(index, _)| *index);
        if let Some(there) = below.and_then(|below| present.remove(&place(p, Some(below)))) {
            above.push((there, owned));
        }
    }
    let (mut fresh, mut changed, mut count) = (vec![], vec![], 0);
    let mut indices: HashMap<Place, PolicyIndex> = HashMap::new();
    for owned in wanted {
        let place = place(&owned.policy, None);
        match present.remove(&place) {
            None => fresh.push(owned),
            Some((index, p)) => {
                indices.insert(place, index);
                let is_same = p == owned.policy
                    && sadb.policy_classes(index) == owned.classes
                    && sadb.populate(index).fields() == owned.fields;
                if !is_same {
                    changed.push((index, p, owned));
                }
            }
        }
    }
    let mut gone: Vec<(PolicyIndex, Policy)> = present.into_values().collect();
    // What was populated goes before what it stands above.
    gone.sort_by_key(|(index, p)| (p.action != Action::Bypass, sadb.populate(*index).above().is_none()));
    let bypasses = gone.iter().take_while(|(_, p)| p.action == Action::Bypass).count();
    let mut protects = gone.split_off(bypasses);
    // Of prefixes in each other the wider one first: what is in the longer is not for the wider one's peer.
    protects.sort_by_key(|(_, p)| Reverse(p.priority));
    let remove = |sadb: &mut Sadb, gone: Vec<(PolicyIndex, Policy)>| {
        gone.into_iter().filter(|(index, _)| sadb.remove_policy(*index).is_ok()).count()
    };
    count += remove(sadb, gone);
    for (index, before, after) in changed {
        let populate = populate_from(after.fields);
        indices.insert(place(&after.policy, None), replace(sadb, index, &before, after, populate)?);
        count += 1;
    }
    for ((index, before), after) in above {
        let p = &after.policy;
        let below = after
            .below
            .as_ref()
            .and_then(|below| indices.get(&(p.direction, below.clone(), p.priority, None)).copied());
        let populate = below.map_or(Populate::No, Populate::Above);
        if before != *p || sadb.populate(index) != populate {
            replace(sadb, index, &before, after, populate)?;
            count += 1;
        }
    }
    // The longer prefix before the wider one, as well.
    fresh.sort_by_key(|owned| (owned.policy.priority, owned.policy.action == Action::Bypass));
    for owned in fresh {
        add(sadb, owned, populate_from(owned.fields))?;
        count += 1;
    }
    Ok(count + remove(sadb, protects))
}

fn populate_from(fields: Fields) -> Populate {
    if fields == Fields::NONE { Populate::No } else { Populate::From(fields) }
}

fn add(sadb: &mut Sadb, owned: &WantedPolicy, populate: Populate) -> Result<PolicyIndex, InstallError> {
    let mut result = sadb.add_populated(&owned.policy, populate);
    if matches!(result, Err(SadbError::Full { .. })) {
        wait_for_workers(sadb);
        result = sadb.add_populated(&owned.policy, populate);
    }
    // Until it has its classes, all packets leave by the SA of most.
    let add_classes = |index| {
        let classes = owned.classes.as_ref();
        classes.map_or(Ok(()), |classes| sadb.set_policy_classes(index, classes)).map(|()| index)
    };
    result.and_then(add_classes).map_err(|source| InstallError::Policy { of: owned.of.clone(), source })
}

/// Returns where it is then.
fn replace(
    sadb: &mut Sadb,
    index: PolicyIndex,
    before: &Policy,
    after: &WantedPolicy,
    populate: Populate,
) -> Result<PolicyIndex, InstallError> {
    let failed = |source| InstallError::Policy { of: after.of.clone(), source };
    let new = &after.policy;
    if (before.action, before.reqid, sadb.populate(index)) == (new.action, new.reqid, populate) {
        let pointed = match &after.classes {
            Some(classes) => sadb.set_policy_classes(index, classes),
            None => sadb.set_policy_sa(index, new.sa),
        };
        return pointed.map(|()| index).map_err(failed);
    }
    let guard =
        Policy { priority: GUARD_PRIORITY, action: Action::Discard, reqid: 0, sa: None, ..new.clone() };
    let guard = sadb.add_policy(&guard).map_err(failed)?;
    let result = sadb.remove_policy(index).map_err(failed).and_then(|()| add(sadb, after, populate));
    // Without the new policy the guard stays: what it was about is dropped rather than let out.
    let index = result?;
    sadb.remove_policy(guard).map(|()| index).map_err(failed)
}
