//! From what is configured to what is in the SADB: the only place that writes it.
//!
//! What is there and as it should be stays untouched, so that a restart or a reload has no effect on it. First all is
//! planned and checked, and what cannot be installed is refused before anything has changed. Then new SAs go in,
//! inbound before outbound, then the policies that let traffic use them; what goes is taken out the other way round.
//!
//! # Dangers
//! - A key that was in an SA must not come back in another one: its sequence numbers would begin anew, and with them
//!   the nonces of AES-GCM and the replay window. The plan refuses it, and a restart does not forget it (`spent.rs`). This
//!   is also why a connection that is taken down keeps its SAs, and only its policies change: `up` then goes on above each
//!   number used.
//! - So SAs from a stock stay, with the policies that packets have populated (`acquire.rs`), as long as the connection has
//!   that stock: they are how it is known what was taken of it.
//! - Between the policies of before and after, no packet may leave in clear. A policy that takes the place of one with
//!   the same selector does so behind a Discard; Bypass goes first, and comes after what comes before it (`policies.rs`).

mod policies;

use crate::{
    config::{Connections, MANUAL_KEYS},
    connection::Connection,
    keying::Pair,
    routes::RouteSelectors,
    secret::Secret,
    spent::{Spent, SpentError},
};
pub(crate) use policies::back;
use policies::{WantedPolicy, install_policies, policies, populated_by};
use portcullis_sadb::{
    Action, Direction, Endpoint, Generation, Handling, Key, Name, PolicyIndex, Sa, Sadb, SadbError, Selector,
    Sizes, SlotIndex, Spi, UdpEncap,
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
    /// Which keys were used cannot be kept.
    #[error(transparent)]
    Spent(#[from] SpentError),
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
    /// Cipher keys of SAs that were retired.
    pub(crate) spent: Spent,
    /// What the routes to interfaces of connections say.
    routes: RouteSelectors,
    /// What in the SADB is IKE's, and not to be touched.
    apart: Apart,
}

/// What in the SADB others have put there.
#[derive(Clone, Debug, Default)]
pub struct Apart {
    /// Their SAs.
    pub slots: HashSet<SlotIndex>,
    /// Their policies.
    pub policies: HashSet<PolicyIndex>,
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
    populated: Vec<WantedPolicy>,
    /// What no connection wants any more.
    gone: Vec<(SlotIndex, Sa)>,
}

impl Installer {
    /// One that knows which keys were used before it.
    pub fn new(spent: Spent) -> Installer {
        Installer { spent, ..Installer::default() }
    }

    /// Octets that it has on the heap.
    pub(crate) fn heap_octets(&self) -> usize {
        self.spent.heap_octets() + self.routes.heap_octets()
    }

    /// Makes the SADB what `connections` says. Those named in `down` have their traffic dropped. SAs that are new are
    /// born now, in seconds of the machine's boot clock; those that are there keep their age.
    ///
    /// # Errors
    /// [`InstallError::KeySpent`], [`InstallError::ManualKeys`], [`InstallError::Full`] and [`InstallError::Spent`] before
    /// anything has changed; the others when the SADB refuses what should have fitted. Then what was published for this is
    /// taken back, and what was before stays as far as it can.
    pub fn install(
        &mut self,
        sadb: &mut Sadb,
        connections: &Connections,
        down: &BTreeSet<String>,
        now_secs: u32,
    ) -> Result<Changes, InstallError> {
        let mut plan = self.plan(sadb, connections, down, now_secs)?;
        self.spent.add(plan.gone.iter().map(|(_, sa)| first_key(sa)))?;
        let places = places(sadb);
        let mut changes =
            Changes { kept: plan.sas.iter().filter(|w| w.slot.is_some()).count(), ..Changes::default() };
        make_room(sadb, &mut plan, &mut changes);
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
        changes.policies = install_policies(sadb, &policies, &plan.populated, &self.apart)?;
        plan.gone.sort_by_key(|(_, sa)| sa.direction == Direction::Inbound);
        for (slot, _) in plan.gone.drain(..) {
            changes.retired += usize::from(sadb.retire(slot).is_ok());
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
        let present: Vec<_> = sadb.sas().filter(|(slot, ..)| !self.apart.slots.contains(slot)).collect();
        let reqids = reqids(&present, sadb, connections);
        let mut at: HashMap<(Direction, Spi, IpAddr), (SlotIndex, Sa)> = HashMap::new();
        let mut gone = vec![];
        let mut used: HashSet<Secret> = HashSet::new();
        for (slot, _, sa) in present {
            used.insert(first_key(&sa));
            if let Some(twin) = at.insert((sa.direction, sa.spi, sa.dst), (slot, sa)) {
                gone.push(twin);
            }
        }
        let is_used = |key: &Secret| used.contains(key) || self.spent.contains(key);
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
                if slot.is_none() && is_used(&first_key(&sa)) {
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

    /// What is not to be touched from the next installation on.
    pub fn set_apart(&mut self, apart: Apart) {
        self.apart = apart;
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
}

/// Takes all out, of regions that go: policies first, and outbound SAs before inbound ones.
pub fn clear(sadb: &mut Sadb) {
    let is_populated = |index: &PolicyIndex| sadb.populate(*index).above().is_some();
    let (above, below): (Vec<_>, Vec<_>) = sadb.policies().map(|(index, _)| index).partition(is_populated);
    for index in above.into_iter().chain(below) {
        let _ = sadb.remove_policy(index);
    }
    let mut sas: Vec<_> = sadb.sas().map(|(slot, _, sa)| (slot, sa)).collect();
    sas.sort_by_key(|(_, sa)| sa.direction == Direction::Inbound);
    for (slot, _) in sas {
        let _ = sadb.retire(slot);
    }
    sadb.reclaim();
}

/// Retires before the others what stands in the way: old SAs with the SPIs of new ones, and if the SAD is too full
/// for old and new together, all old ones. Traffic of theirs is dropped until the new ones are there.
fn make_room(sadb: &mut Sadb, plan: &mut Plan, changes: &mut Changes) {
    let new = || plan.sas.iter().filter(|w| w.slot.is_none() && w.up);
    let waiting = sadb.reclaim();
    let free = (sadb.sizes().max_sas as usize).saturating_sub(sadb.live_sas() as usize + waiting);
    let is_short = new().count() > free;
    let spis: HashSet<Spi> =
        new().filter(|w| w.sa.direction == Direction::Inbound).map(|w| w.sa.spi).collect();
    let is_in_way = |sa: &Sa| is_short || sa.direction == Direction::Inbound && spis.contains(&sa.spi);
    let (first, later): (Vec<_>, Vec<_>) = plan.gone.drain(..).partition(|(_, sa)| is_in_way(sa));
    plan.gone = later;
    for (slot, _) in first {
        changes.retired += usize::from(sadb.retire(slot).is_ok());
    }
    if is_short {
        wait_for_workers(sadb);
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
        worker: None,
        around: None,
        mtu: c.mtu,
        handling: Handling { born_secs, ..c.handling },
        name: Name::new(&c.name).expect("checked when it was read"),
        key: Key::new(keying.key.bytes()).expect("checked when it was read"),
    }
}

/// Until what was taken out can be used again.
fn wait_for_workers(sadb: &mut Sadb) {
    let deadline = Instant::now() + RECLAIM;
    while sadb.reclaim() > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests;
