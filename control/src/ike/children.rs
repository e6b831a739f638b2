//! Child SAs in the SADB: a pair of SAs for each, and policies for those that are for the same.
//!
//! An inbound SA is there before anything leads to it, and before it what is around it; packets leave by an outbound one once the
//! peer has its other half, and are dropped before that if they have no other.
//! Where one takes the place of another, the policies stay and point to the new one: no packet goes without. What was
//! sent by the old one before that may still be on its way to a worker, so its inbound SA stays a little longer.
//!
//! A child SA for a resource (RFC 9611) is a worker's, which sends by it what it receives: of the workers one that has the
//! fewest for the same packets, whatever number the peer has for it. Workers without one send by the one for all.

mod adopt;
mod held;
mod shared;
mod shunt;
mod trap;

pub use adopt::Wanted;
pub use shunt::Shunt;
pub use trap::Trap;

use crate::{install::used_reqids, selection::cover};
use portcullis_ike::{
    traffic_selector::{Policy as Traffic, TrafficSelector},
    v2::{
        child::{ChildSa, Install},
        output::Move,
    },
};
use portcullis_sadb::{
    Action, Around, Direction, Endpoint, Handling, MAX_WORKERS, Mode, Name, PolicyIndex, Prefix, Protocol,
    Sa, Sadb, SadbError, Selector, SlotIndex, Spi, UdpEncap,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

/// Priorities are this and more: behind all that is configured by hand.
const PRIORITY: u32 = 4000;

/// Above that are those of shunts that pass, of children, and of shunts that drop, with what is wider behind what is narrower; and
/// those that are configured. All are among each other as strongSwan's are.
const PASS: u32 = 100_000;
const CHILD: u32 = 300_000;
const DROP: u32 = 700_000;

/// The first number that ties SAs to policies.
const FIRST_REQID: u32 = 1 << 24;

/// Policies of a child in a direction, at most.
const MOST_POLICIES: usize = 1024;

const TOO_MANY: SadbError = SadbError::Full { what: "policies of a child", capacity: MOST_POLICIES as u32 };

/// How long the inbound SA of one that was replaced still opens.
const LINGER_SECS: u32 = 5;

/// How often NAT-keepalives are sent (RFC 3948 §4).
const KEEPALIVE_SECS: u16 = 20;

/// What there is of child SAs. All is found by number: there may be tens of thousands.
#[derive(Debug, Default)]
pub struct Children {
    /// By number.
    groups: HashMap<u32, Box<Group>>,
    /// These numbers.
    numbers: HashMap<Arc<Purpose>, u32>,
    /// Policies that several groups are for: the last has it.
    shared: HashMap<PolicyIndex, Vec<u32>>,
    /// By our SPI.
    installed: HashMap<u32, Installed>,
    /// Our SPIs.
    spis: HashMap<SlotIndex, u32>,
    /// Policies without an SA.
    shunts: Vec<(Shunt, Vec<PolicyIndex>)>,
    /// Policies that a predecessor has left and that stay for a while, as do those that child SAs of these connections leave.
    held: Vec<PolicyIndex>,
    holding: HashSet<String>,
    /// The number of the last one.
    last: u32,
    last_group: u32,
    /// How many workers a datapath will have, while there is none.
    pub usual_workers: u32,
    /// When inbound SAs of groups have stayed long enough, the soonest first.
    lingering: VecDeque<(u32, u32)>,
}

/// A child SA in the SADB.
#[derive(Clone, Copy, Debug)]
pub struct Installed {
    /// Its number, which no other has.
    pub id: u32,
    /// The SA that we receive by.
    pub inbound: SlotIndex,
    /// The SA that we send by.
    pub outbound: SlotIndex,
    /// Those of AH around these two, if they are a bundle (RFC 2401 §4.3).
    around: Option<[SlotIndex; 2]>,
    /// The number of its group.
    group: u32,
    /// The worker that sends by it, if not all do (RFC 9611).
    pub worker: Option<u8>,
}

/// Which packets of which connection child SAs are for.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Purpose {
    connection: String,
    traffic: Arc<Traffic>,
    /// As it is configured; 0 is where the selectors say.
    priority: u32,
}

impl Purpose {
    fn of(connection: &str, sa: &ChildSa) -> Purpose {
        Purpose {
            connection: connection.to_owned(),
            traffic: sa.policy.clone(),
            priority: sa.config.priority,
        }
    }
}

/// Child SAs of a connection that are for the same packets. Of several peers with the same packets, what is sent goes to
/// who came last.
#[derive(Debug)]
struct Group {
    purpose: Arc<Purpose>,
    number: u32,
    /// What ties its SAs to policies: its number, or that of a group before it of the same peer, whose packets may come by
    /// either.
    reqid: u32,
    /// None until something is sent by it, unless it is alone.
    outbound: Vec<PolicyIndex>,
    inbound: Vec<PolicyIndex>,
    /// Outbound SAs, those for all behind, in the order of their child SAs' numbers.
    sas: Vec<Outbound>,
    /// Inbound SAs of those that were replaced, and until when they stay, by the boot clock.
    lingering: Vec<(u32, SlotIndex)>,
    /// The child whose trap it is: its policies stay without an SA.
    trap: Option<String>,
}

/// An outbound SA of a group.
#[derive(Clone, Copy, Debug)]
struct Outbound {
    worker: Option<u8>,
    /// Its child SA's number.
    id: u32,
    slot: SlotIndex,
}

impl Installed {
    /// All that it has, inbound ones first and what is around one before that.
    fn slots(&self) -> impl Iterator<Item = SlotIndex> {
        let [before_inbound, before_outbound] = self.around.map_or([None; 2], |around| around.map(Some));
        [before_inbound, Some(self.inbound), before_outbound, Some(self.outbound)].into_iter().flatten()
    }
}

impl Outbound {
    fn rank(&self) -> (bool, u32) {
        (self.worker.is_none(), self.id)
    }
}

impl Children {
    /// The SAs that it has, and the policies.
    pub fn slots(&self) -> impl Iterator<Item = SlotIndex> {
        let lingering = self.groups.values().flat_map(|group| &group.lingering).map(|(_, slot)| *slot);
        self.spis.keys().copied().chain(lingering)
    }

    /// The policies that it has, some several times.
    pub fn policies(&self) -> impl Iterator<Item = PolicyIndex> {
        let of_groups = self.groups.values().flat_map(|group| group.outbound.iter().chain(&group.inbound));
        of_groups.chain(self.shunts.iter().flat_map(|(_, policies)| policies)).copied()
    }

    /// Our SPI of the child SA that has an SA in this slot.
    pub fn spi_of(&self, slot: SlotIndex) -> Option<u32> {
        self.spis.get(&slot).copied()
    }

    /// The connection of the child SA with this SPI of ours.
    pub fn connection_of(&self, spi_in: u32) -> Option<&str> {
        let group = self.groups.get(&self.installed.get(&spi_in)?.group)?;
        Some(&group.purpose.connection)
    }

    /// The child SA with this SPI of ours.
    pub fn installed(&self, spi_in: u32) -> Option<Installed> {
        self.installed.get(&spi_in).copied()
    }

    /// Whether there is room for a child SA.
    pub fn has_room(&self, sadb: &Sadb, install: &Install) -> bool {
        let (sas, policies) = sadb.room();
        let needed = if install.around.is_some() { 4 } else { 2 };
        needed <= sas && self.policies_for(sadb, install).is_some_and(|needed| needed <= policies)
    }

    /// Puts a child SA in. `now_secs` is of the machine's boot clock.
    ///
    /// # Errors
    /// Why not; then nothing of it is there.
    pub fn install(&mut self, sadb: &mut Sadb, install: &Install, now_secs: u32) -> Result<(), SadbError> {
        let purpose = Purpose::of(&install.connection, &install.sa);
        let number = match self.numbers.get(&purpose) {
            Some(number) => *number,
            None => {
                let reqid = self.reqid_before(sadb, install, &purpose);
                let number = self.free_number(sadb);
                self.put_group(Group::new(purpose, (number, reqid.unwrap_or(number))));
                number
            }
        };
        let added = self.add(sadb, install, number, now_secs);
        if added.is_err() {
            self.tidy(sadb, number);
        }
        added
    }

    /// The SAs of a child SA, inbound first, and the policies of its group that are not there yet.
    fn add(
        &mut self,
        sadb: &mut Sadb,
        install: &Install,
        number: u32,
        now_secs: u32,
    ) -> Result<(), SadbError> {
        let (id, worker) = (self.last + 1, self.worker_for(install, number, sadb));
        let Some(group) = self.groups.get(&number) else { return Ok(()) };
        let [inbound, outbound] = sas(install, (group.reqid, worker), now_secs);
        let (inbound, before_inbound) = publish(sadb, install, inbound)?;
        let (outbound, before_outbound) = publish(sadb, install, outbound).inspect_err(|_| {
            before_inbound.into_iter().chain([inbound]).for_each(|slot| _ = sadb.retire(slot));
        })?;
        let around = before_inbound.zip(before_outbound).map(<[_; 2]>::from);
        let installed = Installed { id, inbound, outbound, around, group: number, worker };
        let there = Outbound { worker, id, slot: outbound };
        self.groups.entry(number).and_modify(|group| group.put_sa(there));
        let let_in = self.let_in(sadb, number);
        let led = match install.sends {
            true => let_in.and_then(|()| self.point(sadb, number, worker, outbound)),
            // Nothing leaves in clear.
            false if install.is_alone => {
                let_in.and_then(|()| self.have_policies(sadb, number, Direction::Outbound, None))
            }
            false => let_in,
        };
        led.inspect_err(|_| {
            self.leave(sadb, number, outbound);
            installed.slots().for_each(|slot| _ = sadb.retire(slot));
        })?;
        let spi_in = install.sa.spi_in;
        self.last = id;
        self.note(spi_in, installed);
        Ok(())
    }

    fn note(&mut self, spi_in: u32, installed: Installed) {
        self.spis.extend(installed.slots().map(|slot| (slot, spi_in)));
        self.installed.insert(spi_in, installed);
    }

    /// The worker that sends by a child SA, if it is for a resource.
    fn worker_for(&self, install: &Install, group: u32, sadb: &Sadb) -> Option<u8> {
        install.sa.resource?;
        let workers = match sadb.runtime().workers() {
            0 => self.usual_workers,
            workers => workers,
        };
        // RFC 9611 §3: one that is rekeyed stays with its resource.
        let replaced = install.replaces.and_then(|spi_in| self.installed(spi_in));
        replaced
            .and_then(|replaced| replaced.worker)
            .or_else(|| self.groups.get(&group).map(|group| group.idle_worker(workers)))
            .or(Some(0))
    }

    /// What is sent goes by this one.
    pub fn send_by(&mut self, sadb: &mut Sadb, spi_in: u32) {
        let Some(Installed { group, outbound, worker, .. }) = self.installed(spi_in) else { return };
        if let Err(error) = self.point(sadb, group, worker, outbound) {
            let connection = self.connection_of(spi_in).unwrap_or_default();
            tracing::error!("connection '{connection}': {error}");
        }
    }

    /// A child SA goes between other addresses from now on. False if its SAs cannot: outside of UDP, and from another
    /// address of ours, it takes others.
    pub fn lead(&mut self, sadb: &mut Sadb, moved: &Move) -> bool {
        let Some(installed) = self.installed(moved.spi_in) else { return true };
        let is_led = |sa: &Sa| {
            let local = sa.udp.map(|udp| (sa.src, udp.src_port));
            moved.is_in_udp && local == Some((moved.local.ip(), moved.local.port()))
        };
        let Some((_, outbound)) = sadb.sa(installed.outbound).filter(|(_, sa)| is_led(sa)) else {
            return false;
        };
        let Some(to) = Endpoint::new(moved.peer.ip(), moved.peer.port()) else { return false };
        outbound.dst.is_ipv4() == moved.peer.is_ipv4()
            && [installed.inbound, installed.outbound].iter().all(|slot| sadb.set_endpoint(*slot, to).is_ok())
    }

    /// By the newest packet of an SA in UDP, in this slot, its peer is elsewhere (RFC 7296 §2.23): both SAs of its child SA go there,
    /// and no others that are for the same packets, which may be other peers'. Our SPI of that, if there is one.
    pub fn follow(&self, sadb: &mut Sadb, slot: SlotIndex, to: Endpoint) -> Option<u32> {
        let spi_in = self.spi_of(slot)?;
        let Installed { inbound, outbound, .. } = self.installed(spi_in)?;
        for slot in [inbound, outbound] {
            if let Err(e) = sadb.set_endpoint(slot, to) {
                tracing::error!("child SA {}: its peer is at {to}: {e}", Spi(spi_in));
            }
        }
        Some(spi_in)
    }

    /// Whether an SA is of a child SA, that is there or was.
    pub fn is_of_one(sa: &Sa) -> bool {
        sa.reqid >= FIRST_REQID
    }

    /// Takes a child SA out.
    pub fn remove(&mut self, sadb: &mut Sadb, spi_in: u32) {
        self.take_out(sadb, spi_in, 0);
    }

    /// Takes out one that was replaced: its inbound SA stays a little longer ([`Children::expire`]).
    pub fn remove_replaced(&mut self, sadb: &mut Sadb, spi_in: u32, now_secs: u32) {
        self.take_out(sadb, spi_in, now_secs.saturating_add(LINGER_SECS));
    }

    /// Its inbound SA stays until then, and the policies that let in what comes by it; if that is over, with another that is
    /// for the same packets.
    fn take_out(&mut self, sadb: &mut Sadb, spi_in: u32, until: u32) {
        let Some(installed) = self.installed.remove(&spi_in) else { return };
        let Installed { inbound, outbound, around, group: number, .. } = installed;
        installed.slots().for_each(|slot| _ = self.spis.remove(&slot));
        self.leave(sadb, number, outbound);
        let [before_inbound, before_outbound] = around.map_or([None; 2], |around| around.map(Some));
        [Some(outbound), before_outbound].into_iter().flatten().for_each(|slot| _ = sadb.retire(slot));
        if let Some(group) = self.groups.get_mut(&number) {
            let stays = [Some(inbound), before_inbound].into_iter().flatten();
            group.lingering.extend(stays.map(|slot| (until, slot)));
            let is_last = group.sas.is_empty() && until == 0;
            group.expire(sadb, if is_last { u32::MAX } else { 0 });
        }
        self.tidy(sadb, number);
        if until > 0 {
            self.lingering.push_back((until, number));
        }
        sadb.reclaim();
    }

    /// Takes out what has stayed long enough.
    pub fn expire(&mut self, sadb: &mut Sadb, now_secs: u32) {
        while let Some((_, number)) = self.lingering.pop_front_if(|(until, _)| *until <= now_secs) {
            if let Some(group) = self.groups.get_mut(&number) {
                group.expire(sadb, now_secs);
            }
            self.tidy(sadb, number);
        }
    }

    /// Takes all out.
    pub fn clear(&mut self, sadb: &mut Sadb) {
        self.let_go(sadb);
        self.set_traps(sadb, &[]);
        self.set_shunts(sadb, &[]);
        let all: Vec<_> = self.installed.keys().copied().collect();
        all.into_iter().for_each(|spi_in| self.remove(sadb, spi_in));
        self.expire(sadb, u32::MAX);
    }

    /// A number that no group has. What is configured by hand has lower ones, and what a predecessor has left keeps its own.
    fn free_number(&mut self, sadb: &Sadb) -> u32 {
        if self.last_group == 0 {
            self.last_group = used_reqids(sadb).into_iter().fold(FIRST_REQID - 1, u32::max);
        }
        loop {
            self.last_group = self.last_group.checked_add(1).unwrap_or(FIRST_REQID);
            if !self.groups.contains_key(&self.last_group) {
                return self.last_group;
            }
        }
    }

    fn put_group(&mut self, group: Group) {
        self.numbers.insert(group.purpose.clone(), group.number);
        self.groups.insert(group.number, Box::new(group));
    }

    /// A group of which there is nothing goes.
    fn tidy(&mut self, sadb: &mut Sadb, number: u32) {
        if self.groups.get(&number).is_none_or(|group| group.is_needed()) {
            return;
        }
        self.hold_group(sadb, number);
        self.forget_policies(sadb, number);
        if let Some(group) = self.groups.remove(&number)
            && self.numbers.get(&group.purpose) == Some(&number)
        {
            self.numbers.remove(&group.purpose);
        }
    }
}

impl Group {
    fn new(purpose: Purpose, (number, reqid): (u32, u32)) -> Group {
        let (outbound, inbound, sas, lingering) = (vec![], vec![], vec![], vec![]);
        Group { purpose: Arc::new(purpose), number, reqid, outbound, inbound, sas, lingering, trap: None }
    }

    /// One of the workers with the fewest SAs of their own.
    fn idle_worker(&self, workers: u32) -> u8 {
        let has = |worker: &u8| self.sas.iter().filter(|sa| sa.worker == Some(*worker)).count();
        (0..workers.clamp(1, MAX_WORKERS as u32) as u8).min_by_key(has).unwrap_or(0)
    }

    fn put_sa(&mut self, sa: Outbound) {
        // Nearly all have one.
        if self.sas.is_empty() {
            self.sas.reserve_exact(1);
        }
        let at = self.sas.partition_point(|other| other.rank() < sa.rank());
        self.sas.insert(at, sa);
    }

    /// The last of a worker's own; or that for all, and if there is none, any.
    fn last(&self, worker: Option<u8>) -> Option<SlotIndex> {
        self.last_but(worker, &HashSet::new())
    }

    /// The same, but none of these.
    fn last_but(&self, worker: Option<u8>, but: &HashSet<SlotIndex>) -> Option<SlotIndex> {
        let is_its = |sa: &&Outbound| (worker.is_none() || sa.worker == worker) && !but.contains(&sa.slot);
        self.sas.iter().rfind(is_its).map(|sa| sa.slot)
    }

    /// Takes out inbound SAs that have stayed long enough.
    fn expire(&mut self, sadb: &mut Sadb, now_secs: u32) {
        for (_, slot) in self.lingering.extract_if(.., |(until, _)| *until <= now_secs) {
            let _ = sadb.retire(slot);
        }
    }
}

/// The two SAs of a child SA, inbound first, with the number of their group and the worker that sends.
fn sas(install: &Install, (reqid, worker): (u32, Option<u8>), now_secs: u32) -> [Sa; 2] {
    let Install { sa: child, algorithm, local, peer, .. } = install;
    let encap = |from: SocketAddr, to: SocketAddr| {
        install.is_in_udp.then(|| UdpEncap {
            follow_peer: install.nat.is_there,
            keepalive_secs: if install.nat.is_here { KEEPALIVE_SECS } else { 0 },
            ..UdpEncap::between(from.port(), to.port())
        })
    };
    let mut handling = child.config.handling;
    handling.born_secs = now_secs;
    if !child.takes_padding {
        handling.tfc_pad = 0;
    }
    let sa = |direction, spi, from: SocketAddr, to: SocketAddr, key| Sa {
        spi: Spi(spi),
        direction,
        protocol: child.sadb_protocol(),
        mode: child.mode,
        algorithm: *algorithm,
        src: from.ip(),
        dst: to.ip(),
        udp: encap(from, to),
        esn: child.agreement.esn(),
        replay_window: child.config.replay_window,
        reqid,
        worker: worker.filter(|_| direction == Direction::Outbound),
        around: None,
        mtu: 0,
        handling,
        name: name_of(&install.connection),
        key,
    };
    [
        sa(Direction::Inbound, child.spi_in, *peer, *local, install.key_in.clone()),
        sa(Direction::Outbound, child.spi_out, *local, *peer, install.key_out.clone()),
    ]
}

/// The SA of AH around one of a child SA, if that is a bundle. No policy is for it: it carries that one, and nothing else.
fn sa_around(install: &Install, sa: &Sa) -> Option<Sa> {
    let (around, keyed) = install.sa.around.as_deref().zip(install.around.as_deref())?;
    let (spi, key) = match sa.direction {
        Direction::Inbound => (around.spi_in, &keyed.key_in),
        Direction::Outbound => (around.spi_out, &keyed.key_out),
    };
    Some(Sa {
        spi: Spi(spi),
        protocol: Protocol::Ah,
        mode: Mode::Transport,
        algorithm: keyed.algorithm,
        esn: around.agreement.esn(),
        reqid: 0,
        handling: Handling { born_secs: sa.handling.born_secs, ..Handling::default() },
        key: key.clone(),
        ..sa.clone()
    })
}

/// Puts an SA of a child SA in, behind the one around it, if there is one. Returns where both are.
fn publish(sadb: &mut Sadb, install: &Install, sa: Sa) -> Result<(SlotIndex, Option<SlotIndex>), SadbError> {
    let Some(outer) = sa_around(install, &sa) else { return Ok((sadb.publish(&sa)?, None)) };
    // Whoever was killed between the two has left it, and nothing has come by it.
    if let Some(left) = sadb.find(outer.spi).filter(|_| sa.direction == Direction::Inbound) {
        sadb.retire(left)?;
    }
    let (slot, spi) = (sadb.publish(&outer)?, outer.spi);
    let inner = sadb.publish(&Sa { around: Some(Around { slot, spi }), ..sa });
    Ok((inner.inspect_err(|_| _ = sadb.retire(slot))?, Some(slot)))
}

/// As much of a name as there is room for.
fn name_of(name: &str) -> Name {
    let mut end = name.len().min(portcullis_sadb::NAME_ROOM);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Name::new(&name[..end]).expect("it was cut to fit")
}

/// The selectors of what goes out; nothing if they are too many.
fn selectors(traffic: &Traffic) -> Option<Vec<Selector>> {
    // In several pairs there may be the same, as where what is left of both has one protocol.
    let (mut all, mut there) = (vec![], HashSet::new());
    for (local, remote) in traffic.pairs() {
        let (from, to) = (prefixes(&local), prefixes(&remote));
        for (src, dst) in from.iter().flat_map(|src| to.iter().map(move |dst| (*src, *dst))) {
            let (protocol, src_ports, dst_ports) = (local.protocol(), local.ports(), remote.ports());
            let selector = Selector { src, dst, protocol, src_ports, dst_ports };
            if !there.insert(selector.clone()) {
                continue;
            }
            if all.len() == MOST_POLICIES {
                return None;
            }
            all.push(selector);
        }
    }
    Some(all)
}

/// All that a selector has of the peer's, or of ours.
pub(super) fn prefixes(selector: &TrafficSelector) -> Vec<Prefix> {
    match selector.addresses() {
        (IpAddr::V4(first), IpAddr::V4(last)) => cover(first.to_bits().into(), last.to_bits().into(), 32),
        (IpAddr::V6(first), IpAddr::V6(last)) => cover(first.to_bits(), last.to_bits(), 128),
        _ => vec![],
    }
}

/// Where a policy stands among all: where it is configured to, or by what it does and how narrow it is.
fn priority(selector: &Selector, action: Action, configured: u32) -> u32 {
    let bits = if selector.src.addr().is_ipv4() { 32 } else { 128 };
    let free = 2 * bits - u32::from(selector.src.len()) - u32::from(selector.dst.len());
    // Each counts for less than one bit of what is before it: addresses, the protocol, ports.
    let width = |ports: &RangeInclusive<u16>| {
        let count = (u32::from(*ports.end()) + 1).saturating_sub((*ports.start()).into());
        u32::BITS - count.leading_zeros()
    };
    let ports = width(&selector.src_ports) + width(&selector.dst_ports);
    let computed = 128 * free + 64 * u32::from(selector.protocol.is_none()) + ports;
    let place = match action {
        _ if configured > 0 => configured,
        Action::Bypass => PASS + computed,
        Action::Protect => CHILD + computed,
        Action::Discard => DROP + computed,
    };
    place.saturating_add(PRIORITY).min(u32::MAX - 1)
}

#[cfg(test)]
mod tests;
