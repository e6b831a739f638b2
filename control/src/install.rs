//! From what is configured to what is in the SADB: the only place that writes it.
//!
//! What is there and as it should be stays untouched, so that a restart or a reload has no effect on it. First all is
//! planned and checked, and what cannot be installed is refused before anything has changed. Then new SAs go in,
//! inbound before outbound, then the policies that let traffic use them; what goes is taken out the other way round.
//!
//! # Dangers
//! - A key that was in an SA must not come back in another one: its sequence numbers would begin anew, and with them
//!   the nonces of AES-GCM and the replay window. The plan refuses it. This is also why a connection that is taken
//!   down keeps its SAs, and only its policies change: `up` then goes on above each number used.
//! - Between the policies of before and after, no packet may leave in clear. A policy that takes the place of one with
//!   the same selector does so behind a Discard; Bypass goes first and comes last.

use crate::{
    config::{Connections, MANUAL_KEYS},
    connection::{CONNECTION_PRIORITY, Connection, Exception},
    routes::{self, RouteSelectors},
    secret::Secret,
};
use portcullis_sadb::{
    Action, Direction, Generation, Handling, Key, Name, Policy, PolicyIndex, Sa, Sadb, SadbError, Selector,
    Sizes, SlotIndex, Spi,
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};
use thiserror::Error;

/// The priority that no configuration can have, before all others.
const GUARD_PRIORITY: u32 = 0;
/// How long the workers may take to pass an epoch when room is short. They do so in microseconds.
const RECLAIM: Duration = Duration::from_secs(1);

/// Why something is not installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// A key that was in an SA is in another one now.
    #[error(
        "connection '{name}': {} SA {spi}: its key is that of an SA before it. With the same key its sequence numbers \
         would begin anew, which breaks AES-GCM: give it a new key (or, in a lab, `portcullis down --forget` and up)",
        way(*.direction)
    )]
    KeySpent {
        /// The connection.
        name: String,
        /// Which of its SAs.
        direction: Direction,
        /// The SA's SPI.
        spi: Spi,
    },
    /// A manual key, and nobody said that it is good.
    #[error(
        "connection '{name}': has a manual key. If it was ever used before, in regions that are gone (after a reboot, \
         for one), its sequence numbers are used again now, which breaks AES-GCM (RFC 4106 §2, RFC 8221 §3). If it is \
         new, or this is a lab, write `{MANUAL_KEYS} = true` at the head of connections.toml"
    )]
    ManualKeys {
        /// The first such connection.
        name: String,
    },
    /// More than there is room for.
    #[error(
        "connection '{name}': the SADB is full: {wanted} {what} are configured, [regions] {key} = {capacity}; raise it \
         (regions that exist keep their size until `portcullis down --forget`)"
    )]
    Full {
        /// The first that does not fit.
        name: String,
        /// `SAs` or `policies`.
        what: &'static str,
        /// The key that limits it.
        key: &'static str,
        /// All that are configured.
        wanted: usize,
        /// What there is room for.
        capacity: u32,
    },
    /// The SADB refuses an SA.
    #[error("connection '{name}': {} SA: {source}", way(*.direction))]
    Sa {
        /// The connection.
        name: String,
        /// Which of its SAs.
        direction: Direction,
        /// Why.
        source: SadbError,
    },
    /// The SADB refuses a policy.
    #[error("{of}: policy: {source}")]
    Policy {
        /// `connection 'NAME'` or `policy 'NAME'`.
        of: String,
        /// Why.
        source: SadbError,
    },
}

fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

/// What an installation changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// SAs that were there and stay.
    pub kept: usize,
    /// SAs that are new.
    pub published: usize,
    /// SAs that are gone.
    pub retired: usize,
    /// Policies that were added, changed or removed.
    pub policies: usize,
}

/// Writes the SADB.
#[derive(Debug, Default)]
pub struct Installer {
    /// Cipher keys of SAs that were retired since we started.
    spent: HashSet<Secret>,
    /// What the routes to interfaces of connections say.
    routes: RouteSelectors,
}

/// An SA that is wanted, and where it is already.
struct Wanted {
    sa: Sa,
    slot: Option<SlotIndex>,
    /// Whether the connection is up: one that is down keeps what it has, and gets nothing new.
    up: bool,
}

struct Plan {
    /// Two for each connection, inbound first.
    sas: Vec<Wanted>,
    /// What no connection wants any more.
    gone: Vec<(SlotIndex, Sa)>,
}

impl Installer {
    /// Octets that it has on the heap.
    pub(crate) fn heap_octets(&self) -> usize {
        let keys = self.spent.iter().map(Secret::heap_octets).sum::<usize>();
        self.spent.capacity() * size_of::<Secret>() + keys + self.routes.heap_octets()
    }

    /// Makes the SADB what `connections` says. Those named in `down` have their traffic dropped. SAs that are new are
    /// born now, in seconds of the machine's boot clock; those that are there keep their age.
    ///
    /// # Errors
    /// [`InstallError::KeySpent`], [`InstallError::ManualKeys`] and [`InstallError::Full`] before anything has changed;
    /// the others when the SADB refuses what should have fitted. Then what was published for this is taken back, and
    /// what was before stays as far as it can.
    pub fn install(
        &mut self,
        sadb: &mut Sadb,
        connections: &Connections,
        down: &BTreeSet<String>,
        now_secs: u32,
    ) -> Result<Changes, InstallError> {
        let mut plan = self.plan(sadb, connections, down, now_secs)?;
        let mut changes =
            Changes { kept: plan.sas.iter().filter(|w| w.slot.is_some()).count(), ..Changes::default() };
        self.make_room(sadb, &mut plan, &mut changes);
        let mut published = vec![];
        for wanted in by_direction(&mut plan.sas) {
            if wanted.slot.is_some() || !wanted.up {
                continue;
            }
            match sadb.publish(&wanted.sa) {
                Ok(slot) => {
                    wanted.slot = Some(slot);
                    published.push(slot);
                }
                Err(source) => {
                    let (name, direction) = (wanted.sa.name.to_string(), wanted.sa.direction);
                    // No policy led to them, so their keys are as good as new.
                    for slot in published {
                        let _ = sadb.retire(slot);
                    }
                    return Err(InstallError::Sa { name, direction, source });
                }
            }
        }
        changes.published = published.len();
        let policies = policies(connections, down, &plan.sas, &self.routes);
        changes.policies = install_policies(sadb, &policies)?;
        plan.gone.sort_by_key(|(_, sa)| sa.direction == Direction::Inbound);
        for (slot, sa) in plan.gone.drain(..) {
            changes.retired += usize::from(self.retire(sadb, slot, &sa));
        }
        sadb.reclaim();
        Ok(changes)
    }

    fn plan(
        &self,
        sadb: &Sadb,
        connections: &Connections,
        down: &BTreeSet<String>,
        now_secs: u32,
    ) -> Result<Plan, InstallError> {
        let present: Vec<_> = sadb.sas().collect();
        let reqids = reqids(&present, connections);
        let mut at: HashMap<(Direction, Spi, IpAddr), (SlotIndex, Sa)> = HashMap::new();
        let mut gone = vec![];
        let mut spent: HashSet<Secret> = self.spent.clone();
        for (slot, _, sa) in present {
            spent.insert(first_key(&sa));
            if let Some(twin) = at.insert((sa.direction, sa.spi, sa.dst), (slot, sa)) {
                gone.push(twin);
            }
        }
        let mut sas = vec![];
        for c in &connections.connections {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let mut sa = sa(c, direction, reqids[c.name.as_str()], now_secs);
                let key = (direction, sa.spi, sa.dst);
                let present = at.remove(&key);
                if let Some((_, present)) = &present {
                    sa.handling.born_secs = present.handling.born_secs;
                }
                let slot = match present {
                    Some((slot, present)) if present == sa => Some(slot),
                    other => {
                        sa.handling.born_secs = now_secs;
                        at.extend(other.map(|other| (key, other)));
                        None
                    }
                };
                if slot.is_none() && !connections.manual_keys_acknowledged {
                    return Err(InstallError::ManualKeys { name: c.name.clone() });
                }
                if slot.is_none() && spent.contains(&first_key(&sa)) {
                    return Err(InstallError::KeySpent { name: c.name.clone(), direction, spi: sa.spi });
                }
                sas.push(Wanted { sa, slot, up: !down.contains(&c.name) });
            }
        }
        gone.extend(at.into_values());
        check_room(connections, &sadb.sizes())?;
        Ok(Plan { sas, gone })
    }

    /// Retires before the others what stands in the way: old SAs with the SPIs of new ones, and if the SAD is too full
    /// for old and new together, all old ones. Traffic of theirs is dropped until the new ones are there.
    fn make_room(&mut self, sadb: &mut Sadb, plan: &mut Plan, changes: &mut Changes) {
        let new = || plan.sas.iter().filter(|w| w.slot.is_none() && w.up);
        let waiting = sadb.reclaim();
        let free = (sadb.sizes().max_sas as usize).saturating_sub(sadb.live_sas() as usize + waiting);
        let is_short = new().count() > free;
        let spis: HashSet<Spi> =
            new().filter(|w| w.sa.direction == Direction::Inbound).map(|w| w.sa.spi).collect();
        let is_in_way = |sa: &Sa| is_short || sa.direction == Direction::Inbound && spis.contains(&sa.spi);
        let (first, later): (Vec<_>, Vec<_>) = plan.gone.drain(..).partition(|(_, sa)| is_in_way(sa));
        plan.gone = later;
        let slots: HashSet<SlotIndex> = first.iter().map(|(slot, _)| *slot).collect();
        let users: Vec<PolicyIndex> = sadb
            .policies()
            .filter(|(_, p)| p.sa.is_some_and(|s| slots.contains(&s)))
            .map(|(i, _)| i)
            .collect();
        for index in users {
            let _ = sadb.set_policy_sa(index, None);
        }
        for (slot, sa) in &first {
            changes.retired += usize::from(self.retire(sadb, *slot, sa));
        }
        if is_short {
            wait_for_workers(sadb);
        }
    }

    /// What the routes say from the next installation on. False: there is not room for all.
    pub fn set_routes(&mut self, sadb: &Sadb, connections: &Connections, mut routes: RouteSelectors) -> bool {
        let others = 2 * connections.exceptions.len()
            + connections.connections.iter().map(|c| 2 * c.selectors().count()).sum::<usize>();
        // With room for the one that guards others while they are replaced.
        let room = (sadb.sizes().max_policies as usize).saturating_sub(others + 1) / 2;
        let fits = routes.len() <= room;
        routes.truncate(room);
        self.routes = routes;
        fits
    }

    /// What the routes say.
    pub fn routes(&self) -> &RouteSelectors {
        &self.routes
    }

    /// Takes all out: policies first, and outbound SAs before inbound ones.
    pub fn clear(&mut self, sadb: &mut Sadb) {
        let policies: Vec<_> = sadb.policies().map(|(index, _)| index).collect();
        for index in policies {
            let _ = sadb.remove_policy(index);
        }
        let mut sas: Vec<_> = sadb.sas().map(|(slot, _, sa)| (slot, sa)).collect();
        sas.sort_by_key(|(_, sa)| sa.direction == Direction::Inbound);
        for (slot, sa) in &sas {
            self.retire(sadb, *slot, sa);
        }
        sadb.reclaim();
    }

    fn retire(&mut self, sadb: &mut Sadb, slot: SlotIndex, sa: &Sa) -> bool {
        self.spent.insert(first_key(sa));
        sadb.retire(slot).is_ok()
    }
}

/// What can be said before there is a SADB of these sizes.
///
/// # Errors
/// As the first [`Installer::install`] on it.
pub fn check(connections: &Connections, sizes: &Sizes) -> Result<(), InstallError> {
    if let Some(c) = connections.connections.first().filter(|_| !connections.manual_keys_acknowledged) {
        return Err(InstallError::ManualKeys { name: c.name.clone() });
    }
    check_room(connections, sizes)
}

fn check_room(connections: &Connections, sizes: &Sizes) -> Result<(), InstallError> {
    fits(connections, "SAs", "max_sas", sizes.max_sas, |_| 2, 0)?;
    let exceptions = 2 * connections.exceptions.len();
    fits(
        connections,
        "policies",
        "max_policies",
        sizes.max_policies,
        |c| 2 * c.selectors().count(),
        exceptions,
    )
}

/// The first key, without its salt: under another salt it is the same mistake, only less likely seen.
fn first_key(sa: &Sa) -> Secret {
    Secret::copy_of(&sa.key.bytes()[..sa.algorithm.first_key_len()])
}

/// Inbound ones first.
fn by_direction(sas: &mut [Wanted]) -> impl Iterator<Item = &mut Wanted> {
    let (inbound, outbound): (Vec<_>, Vec<_>) =
        sas.iter_mut().partition(|w| w.sa.direction == Direction::Inbound);
    inbound.into_iter().chain(outbound)
}

fn fits(
    connections: &Connections,
    what: &'static str,
    key: &'static str,
    capacity: u32,
    of: impl Fn(&Connection) -> usize,
    others: usize,
) -> Result<(), InstallError> {
    let all = &connections.connections;
    let wanted = others + all.iter().map(&of).sum::<usize>();
    if wanted <= capacity as usize {
        return Ok(());
    }
    let mut sum = others;
    let first = all.iter().find(|c| {
        sum += of(c);
        sum > capacity as usize
    });
    let name = first.or(all.last()).map(|c| c.name.clone()).unwrap_or_default();
    Err(InstallError::Full { name, what, key, wanted, capacity })
}

/// The number that ties a connection's SAs to its policies: the one it has, or the next free one.
fn reqids<'a>(
    present: &[(SlotIndex, Generation, Sa)],
    connections: &'a Connections,
) -> HashMap<&'a str, u32> {
    let known: HashMap<Name, u32> = present.iter().map(|(_, _, sa)| (sa.name, sa.reqid)).collect();
    let mut used: HashSet<u32> = known.values().copied().collect();
    let mut next = 1;
    let mut reqid = |c: &'a Connection| {
        if let Some(reqid) = Name::new(&c.name).and_then(|name| known.get(&name)) {
            return *reqid;
        }
        while !used.insert(next) {
            next += 1;
        }
        next
    };
    connections.connections.iter().map(|c| (c.name.as_str(), reqid(c))).collect()
}

/// An SA as a connection describes it.
fn sa(c: &Connection, direction: Direction, reqid: u32, born_secs: u32) -> Sa {
    let (keying, src, dst) = match direction {
        Direction::Inbound => (&c.inbound, c.remote, c.local),
        Direction::Outbound => (&c.outbound, c.local, c.remote),
    };
    let udp = match direction {
        Direction::Inbound => c.udp.map(|(local, remote)| (remote, local)),
        Direction::Outbound => c.udp,
    };
    Sa {
        spi: keying.spi,
        direction,
        protocol: c.protocol,
        mode: c.mode,
        algorithm: c.algorithm,
        src,
        dst,
        udp,
        esn: c.esn,
        replay_window: c.replay_window,
        reqid,
        mtu: c.mtu,
        handling: Handling { born_secs, ..c.handling },
        name: Name::new(&c.name).expect("checked when it was read"),
        key: Key::new(keying.key.bytes()).expect("checked when it was read"),
    }
}

/// A policy, and whose it is.
struct Owned {
    of: String,
    policy: Policy,
}

fn policies(
    connections: &Connections,
    down: &BTreeSet<String>,
    sas: &[Wanted],
    routes: &RouteSelectors,
) -> Vec<Owned> {
    let protecting = connections.connections.iter().zip(sas.chunks(2)).flat_map(|(c, pair)| {
        let action = if down.contains(&c.name) { Action::Discard } else { Action::Protect };
        let sa = pair[1].slot.filter(|_| action == Action::Protect);
        let reqid = if action == Action::Protect { pair[1].sa.reqid } else { 0 };
        let routed = c.interface.as_deref().map_or(&[][..], |interface| routes.of(interface)).iter();
        let routed =
            routed.map(|dst| (c.next_layer.between(routes::any(dst.addr()), *dst), routes::priority(dst)));
        c.selectors().map(|there| (there, CONNECTION_PRIORITY)).chain(routed).flat_map(
            move |(there, priority)| {
                let policy =
                    |direction, selector, sa| Policy { direction, selector, priority, action, reqid, sa };
                let back = back(&there);
                [policy(Direction::Outbound, there, sa), policy(Direction::Inbound, back, None)]
                    .map(|policy| Owned { of: format!("connection '{}'", c.name), policy })
            },
        )
    });
    let exceptions = connections
        .exceptions
        .iter()
        .flat_map(|e| exception(e).map(|policy| Owned { of: format!("policy '{}'", e.name), policy }));
    let elsewhere = routes.elsewhere().iter().flat_map(|dst| {
        let selector = Selector::between(routes::any(dst.addr()), *dst);
        both_ways(&selector, routes::priority(dst), Action::Bypass)
            .map(|policy| Owned { of: format!("route {dst}"), policy })
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

fn back(there: &Selector) -> Selector {
    Selector {
        src: there.dst,
        dst: there.src,
        protocol: there.protocol,
        src_ports: there.dst_ports.clone(),
        dst_ports: there.src_ports.clone(),
    }
}

/// Makes the SPD what is wanted, and returns how many policies changed.
fn install_policies(sadb: &mut Sadb, wanted: &[Owned]) -> Result<usize, InstallError> {
    type Place = (Direction, Selector, u32);
    let place = |p: &Policy| (p.direction, p.selector.clone(), p.priority);
    let mut present: HashMap<Place, (PolicyIndex, Policy)> =
        sadb.policies().map(|(index, p)| (place(&p), (index, p))).collect();
    let (mut fresh, mut changed, mut count) = (vec![], vec![], 0);
    for owned in wanted {
        match present.remove(&place(&owned.policy)) {
            None => fresh.push(owned),
            Some((index, p)) if p != owned.policy => changed.push((index, p, owned)),
            Some(_) => {}
        }
    }
    let mut gone: Vec<(PolicyIndex, Policy)> = present.into_values().collect();
    gone.sort_by_key(|(_, p)| p.action != Action::Bypass);
    let bypasses = gone.iter().take_while(|(_, p)| p.action == Action::Bypass).count();
    let protects = gone.split_off(bypasses);
    let remove = |sadb: &mut Sadb, gone: Vec<(PolicyIndex, Policy)>| {
        gone.into_iter().filter(|(index, _)| sadb.remove_policy(*index).is_ok()).count()
    };
    count += remove(sadb, gone);
    for (index, before, after) in changed {
        replace(sadb, index, &before, after)?;
        count += 1;
    }
    fresh.sort_by_key(|owned| owned.policy.action == Action::Bypass);
    for owned in fresh {
        add(sadb, owned)?;
        count += 1;
    }
    Ok(count + remove(sadb, protects))
}

fn add(sadb: &mut Sadb, owned: &Owned) -> Result<PolicyIndex, InstallError> {
    let mut result = sadb.add_policy(&owned.policy);
    if matches!(result, Err(SadbError::Full { .. })) {
        wait_for_workers(sadb);
        result = sadb.add_policy(&owned.policy);
    }
    result.map_err(|source| InstallError::Policy { of: owned.of.clone(), source })
}

/// Until what was taken out can be used again.
fn wait_for_workers(sadb: &mut Sadb) {
    let deadline = Instant::now() + RECLAIM;
    while sadb.reclaim() > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

fn replace(sadb: &mut Sadb, index: PolicyIndex, before: &Policy, after: &Owned) -> Result<(), InstallError> {
    let failed = |source| InstallError::Policy { of: after.of.clone(), source };
    let new = &after.policy;
    if (before.action, before.reqid) == (new.action, new.reqid) {
        return sadb.set_policy_sa(index, new.sa).map_err(failed);
    }
    let guard =
        Policy { priority: GUARD_PRIORITY, action: Action::Discard, reqid: 0, sa: None, ..new.clone() };
    let guard = sadb.add_policy(&guard).map_err(failed)?;
    let result = sadb.remove_policy(index).map_err(failed).and_then(|()| add(sadb, after));
    // Without the new policy the guard stays: what it was about is dropped rather than let out.
    result.and_then(|_| sadb.remove_policy(guard).map_err(failed))
}

#[cfg(test)]
mod tests;
