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
//! - So SAs from a stock stay, with the policies that packets have populated (`acquire.rs`), as long as the connection has
//!   that stock: they are how it is known what was taken of it.
//! - Between the policies of before and after, no packet may leave in clear. A policy that takes the place of one with
//!   the same selector does so behind a Discard; Bypass goes first and comes last.

use crate::{
    config::{Connections, MANUAL_KEYS},
    connection::{CONNECTION_PRIORITY, Connection, Exception},
    keying::Pair,
    routes::{self, RouteSelectors},
    secret::Secret,
};
use portcullis_sadb::{
    Action, Classes, Direction, Endpoint, Fields, Generation, Handling, Key, Name, Policy, PolicyIndex,
    Populate, Sa, Sadb, SadbError, Selector, Sizes, SlotIndex, Spi, UdpEncap,
};
use std::{
    cmp::Reverse,
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
    pub(crate) spent: HashSet<Secret>,
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
    /// Two for each pair of keys, inbound first: of all connections those that they have from the start, in their order,
    /// and behind them those that packets asked for.
    sas: Vec<Wanted>,
    /// Of each connection, what ties its SAs to its policies.
    reqids: Vec<u32>,
    /// Policies that packets have populated.
    populated: Vec<Owned>,
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
        let places = places(sadb);
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
                    if let Some(to) = places.get(&place_of(&wanted.sa))
                        && let Err(e) = sadb.set_endpoint(slot, *to)
                    {
                        tracing::error!("slot {}: its peer is at {to}: {e}", slot.0);
                    }
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
        let policies = policies(connections, down, &plan, &self.routes);
        changes.policies = install_policies(sadb, &policies, &plan.populated)?;
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
        let reqids = reqids(&present, sadb, connections);
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
        for (c, reqid) in connections.connections.iter().zip(&reqids) {
            let of = |pair| [Direction::Inbound, Direction::Outbound].map(|direction| (pair, direction));
            for (pair, direction) in c.keys.own.iter().flat_map(of) {
                let mut sa = sa(c, pair, direction, *reqid, now_secs);
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
        let mut populated = vec![];
        for c in connections.connections.iter().filter(|c| !c.keys.stock.is_empty()) {
            let taken = taken(c, &mut at);
            if let Some(spi) = spent_of_stock(c, &taken, &at) {
                return Err(InstallError::KeySpent {
                    name: c.name.clone(),
                    direction: Direction::Outbound,
                    spi,
                });
            }
            if taken.len() < 2 * c.keys.stock.len() && !connections.manual_keys_acknowledged {
                return Err(InstallError::ManualKeys { name: c.name.clone() });
            }
            populated.extend(populated_by(sadb, c, down.contains(&c.name), &taken));
            sas.extend(taken);
        }
        gone.extend(at.into_values());
        check_room(connections, &sadb.sizes())?;
        Ok(Plan { sas, reqids, populated, gone })
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
        for (slot, sa) in &first {
            changes.retired += usize::from(self.retire(sadb, *slot, sa));
        }
        if is_short {
            wait_for_workers(sadb);
        }
    }

    /// Says where the peers of connections are now, by the numbers that tie their SAs together (RFC 7296 §2.23): all SAs of
    /// these in UDP go on with the same keys and numbers.
    pub fn lead(&mut self, sadb: &mut Sadb, moved: &HashMap<u32, Endpoint>) {
        let sas: Vec<_> = sadb
            .sas()
            .filter(|(_, _, sa)| sa.udp.is_some())
            .filter_map(|(slot, _, sa)| Some((slot, *moved.get(&sa.reqid)?)))
            .collect();
        for (slot, to) in sas {
            if let Err(e) = sadb.set_endpoint(slot, to) {
                tracing::error!("slot {}: its peer is at {to}: {e}", slot.0);
            }
        }
    }

    /// What the routes say from the next installation on. False: there is not room for all.
    pub fn set_routes(&mut self, sadb: &Sadb, connections: &Connections, mut routes: RouteSelectors) -> bool {
        let others =
            2 * connections.exceptions.len() + connections.connections.iter().map(policies_of).sum::<usize>();
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
        let is_populated = |index: &PolicyIndex| sadb.populate(*index).above().is_some();
        let (above, below): (Vec<_>, Vec<_>) =
            sadb.policies().map(|(index, _)| index).partition(is_populated);
        for index in above.into_iter().chain(below) {
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

/// What tells where a peer is: the number of its connection, and where it would be if it had not moved.
type Peer = (u32, IpAddr, Option<(u16, u16)>);

fn place_of(sa: &Sa) -> Peer {
    // As seen from here, for both directions.
    let (addr, ports) = match sa.direction {
        Direction::Inbound => (sa.src, sa.udp.map(|udp| (udp.dst_port, udp.src_port))),
        Direction::Outbound => (sa.dst, sa.udp.map(|udp| (udp.src_port, udp.dst_port))),
    };
    (sa.reqid, addr, ports)
}

/// Where peers are that have moved.
fn places(sadb: &Sadb) -> HashMap<Peer, Endpoint> {
    sadb.sas().filter_map(|(slot, _, sa)| Some((place_of(&sa), sadb.endpoint(slot)?))).collect()
}

/// Policies that a connection has by itself, and those that its stock may get.
fn policies_of(c: &Connection) -> usize {
    2 * (c.selectors().count() + c.keys.stock.len())
}

fn check_room(connections: &Connections, sizes: &Sizes) -> Result<(), InstallError> {
    fits(connections, "SAs", "max_sas", sizes.max_sas, |c| 2 * c.keys.pairs().count(), 0)?;
    let exceptions = 2 * connections.exceptions.len();
    fits(connections, "policies", "max_policies", sizes.max_policies, policies_of, exceptions)
}

/// The first key, without its salt: under another salt it is the same mistake, only less likely seen.
pub(crate) fn first_key(sa: &Sa) -> Secret {
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

/// The number that ties each connection's SAs to its policies: the one that its SAs have, or its policies, or the next free
/// one. Of one with a stock only the policies have it: its SAs have numbers of their own.
fn reqids(present: &[(SlotIndex, Generation, Sa)], sadb: &Sadb, connections: &Connections) -> Vec<u32> {
    let of_sas: HashMap<Name, u32> = present.iter().map(|(_, _, sa)| (sa.name, sa.reqid)).collect();
    let of_policies: HashMap<Selector, u32> = sadb
        .policies()
        .filter(|(index, p)| {
            let is_first = sadb.populate(*index).above().is_none();
            is_first && (p.direction, p.action) == (Direction::Outbound, Action::Protect)
        })
        .map(|(_, p)| (p.selector, p.reqid))
        .collect();
    let by_sas =
        |c: &Connection| Name::new(&c.name).filter(|_| !c.keys.own.is_empty()).and_then(|n| of_sas.get(&n));
    let by_policies = |c: &Connection| c.selectors().next().and_then(|selector| of_policies.get(&selector));
    let all = &connections.connections;
    let mut found: Vec<Option<u32>> = all.iter().map(|c| by_sas(c).copied()).collect();
    let mut given: HashSet<u32> = found.iter().flatten().copied().collect();
    for (reqid, c) in found.iter_mut().zip(all).filter(|(reqid, _)| reqid.is_none()) {
        *reqid = by_policies(c).copied().filter(|reqid| given.insert(*reqid));
    }
    let mut used = used_reqids(sadb);
    found.into_iter().map(|reqid| reqid.unwrap_or_else(|| free_reqid(&mut used))).collect()
}

/// Those that SAs or policies have.
pub(crate) fn used_reqids(sadb: &Sadb) -> HashSet<u32> {
    sadb.sas().map(|(_, _, sa)| sa.reqid).chain(sadb.policies().map(|(_, p)| p.reqid)).collect()
}

/// The first that is free, which is used then.
pub(crate) fn free_reqid(used: &mut HashSet<u32>) -> u32 {
    let free = (1..).find(|reqid| used.insert(*reqid));
    free.expect("there are more numbers than SAs and policies")
}

/// Takes those SAs out of what is there that a connection has taken from its stock, and that are as it says.
fn taken(c: &Connection, at: &mut HashMap<(Direction, Spi, IpAddr), (SlotIndex, Sa)>) -> Vec<Wanted> {
    let mut taken = vec![];
    for pair in &c.keys.stock {
        let place = |direction| {
            let sa = sa(c, pair, direction, 0, 0);
            (direction, sa.spi, sa.dst)
        };
        let is_right = |direction| {
            let (_, present) = at.get(&place(direction))?;
            let right = sa(c, pair, direction, present.reqid, present.handling.born_secs);
            (right == *present).then_some(present.reqid)
        };
        let both = [Direction::Inbound, Direction::Outbound];
        if let [Some(inbound), Some(outbound)] = both.map(is_right)
            && inbound == outbound
        {
            let of = both.map(place).map(|place| at.remove(&place).expect("it was there"));
            taken.extend(of.map(|(slot, sa)| Wanted { sa, slot: Some(slot), up: true }));
        }
    }
    taken
}

/// An outbound SA that is there with a key of a connection's stock, and is not as the connection says any more: another with
/// that key would begin with its first number again (RFC 4106 §3.1).
fn spent_of_stock(
    c: &Connection,
    taken: &[Wanted],
    at: &HashMap<(Direction, Spi, IpAddr), (SlotIndex, Sa)>,
) -> Option<Spi> {
    let there: HashSet<Secret> = at
        .values()
        .filter(|(_, sa)| sa.direction == Direction::Outbound)
        .map(|(_, sa)| first_key(sa))
        .collect();
    let is_taken = |spi| taken.iter().any(|w| (w.sa.direction, w.sa.spi) == (Direction::Outbound, spi));
    let left = c.keys.stock.iter().map(|pair| &pair.outbound).filter(|keying| !is_taken(keying.spi));
    left.filter(|keying| there.contains(&Secret::copy_of(&keying.key.bytes()[..c.algorithm.first_key_len()])))
        .map(|keying| keying.spi)
        .next()
}

/// The policies of these SAs that packets have populated from those of a connection, as they should be now.
fn populated_by(sadb: &Sadb, c: &Connection, is_down: bool, taken: &[Wanted]) -> Vec<Owned> {
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
        is_ours.then(|| Owned {
            of: format!("connection '{}'", c.name),
            policy: Policy { action, sa, ..present },
            classes: None,
            fields: Fields::NONE,
            below: Some(below.selector),
        })
    };
    sadb.policies().filter_map(of).collect()
}

/// An SA as a connection describes it.
pub(crate) fn sa(c: &Connection, pair: &Pair, direction: Direction, reqid: u32, born_secs: u32) -> Sa {
    let (keying, src, dst) = match direction {
        Direction::Inbound => (&pair.inbound, c.remote, c.local),
        Direction::Outbound => (&pair.outbound, c.local, c.remote),
    };
    let udp = match direction {
        Direction::Inbound => c.udp.map(|udp| UdpEncap {
            follow_peer: udp.follow_peer,
            ..UdpEncap::between(udp.dst_port, udp.src_port)
        }),
        Direction::Outbound => c.udp.map(|udp| UdpEncap { follow_peer: false, ..udp }),
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
    /// RFC 4301 §4.1: an SA for each class of traffic.
    classes: Option<Classes>,
    /// What SAs are populated with.
    fields: Fields,
    /// The selector of the policy that it was populated from.
    below: Option<Selector>,
}

impl Owned {
    fn new(of: String, policy: Policy) -> Owned {
        Owned { of, policy, classes: None, fields: Fields::NONE, below: None }
    }
}

fn policies(
    connections: &Connections,
    down: &BTreeSet<String>,
    plan: &Plan,
    routes: &RouteSelectors,
) -> Vec<Owned> {
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
                let fits = classes.add(&pair.dscps, sa);
                debug_assert!(fits, "checked when it was read");
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
            let inbound = Owned::new(of.clone(), policy(Direction::Inbound, back(&there), None));
            let outbound = Owned::new(of, policy(Direction::Outbound, there, sa));
            [Owned { classes: classes.clone(), fields, ..outbound }, inbound]
        })
    });
    let exceptions = connections
        .exceptions
        .iter()
        .flat_map(|e| exception(e).map(|policy| Owned::new(format!("policy '{}'", e.name), policy)));
    let elsewhere = routes.elsewhere().iter().flat_map(|dst| {
        let selector = Selector::between(routes::any(dst.addr()), *dst);
        both_ways(&selector, routes::priority(dst), Action::Bypass)
            .map(|policy| Owned::new(format!("route {dst}"), policy))
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

/// Makes the SPD what is wanted, and returns how many policies changed. What packets have populated is there already, and
/// stays or changes as the policies that it stands above.
fn install_policies(sadb: &mut Sadb, wanted: &[Owned], populated: &[Owned]) -> Result<usize, InstallError> {
    /// With the index of the policy that it stands above.
    type Place = (Direction, Selector, u32, Option<PolicyIndex>);
    let place = |p: &Policy, above| (p.direction, p.selector.clone(), p.priority, above);
    let of = |(index, p): (PolicyIndex, Policy)| (place(&p, sadb.populate(index).above()), (index, p));
    let mut present: HashMap<Place, (PolicyIndex, Policy)> = sadb.policies().map(of).collect();
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

fn add(sadb: &mut Sadb, owned: &Owned, populate: Populate) -> Result<PolicyIndex, InstallError> {
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

/// Until what was taken out can be used again.
fn wait_for_workers(sadb: &mut Sadb) {
    let deadline = Instant::now() + RECLAIM;
    while sadb.reclaim() > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Returns where it is then.
fn replace(
    sadb: &mut Sadb,
    index: PolicyIndex,
    before: &Policy,
    after: &Owned,
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

#[cfg(test)]
mod tests;
