//! iked's end of the SADB region: the only writer.
//!
//! Each change is a few stores in an order that leaves the region sound if the process dies between any two:
//! readers see the old state or the new, and [`Sadb::open`] finishes or undoes what is half done. A policy points
//! to the SA that it was given, or to none: an SA is parted from its policies before it is retired.

use crate::{
    Classes, DSCPS, Direction, Endpoint, Event, Flow, Generation, Guard, OPAQUE_PORT, Policy, PolicyHit,
    PolicyIndex, Populate, Reader, RegionError, Runtime, RuntimeReader, Sa, SadbError, SlotIndex, Spi, epoch,
    layout::{MAX_WORKERS, RUNTIME_MAGIC, SADB_MAGIC, Sizes},
    policy::{FREE, LIVE, PolicySlot},
    policy_sa::By,
    reader::{SADB_FILE, SadbMap},
    region::{self, Region, WriterLock},
    runtime::{RUNTIME_FILE, RuntimeMap},
    sa_set::SET,
    spd::{MAX_TUPLES, Spd},
    sync::Ordering,
    udp::check_endpoint,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::Path,
    sync::Arc,
};

/// What a SADB is called before it is whole.
const NEW_SADB_FILE: &str = "sadb.new";

/// What waits until all workers have passed an epoch.
#[derive(Debug)]
enum Limbo {
    Slot(SlotIndex),
    Policy(PolicyIndex),
}

/// What the writer knows of a tuple that policies use.
#[derive(Debug, Default)]
struct TupleUse {
    /// Where it is among the tuples of its direction.
    at: usize,
    policies: u32,
    /// How many of each priority.
    priorities: BTreeMap<u32, u32>,
}

impl TupleUse {
    fn add(&mut self, priority: u32) {
        self.policies += 1;
        *self.priorities.entry(priority).or_default() += 1;
    }

    fn take(&mut self, priority: u32) {
        self.policies -= 1;
        if let Some(n) = self.priorities.get_mut(&priority) {
            *n -= 1;
            if *n == 0 {
                self.priorities.remove(&priority);
            }
        }
    }

    fn best(&self) -> u32 {
        self.priorities.keys().next().copied().unwrap_or(u32::MAX)
    }
}

/// The SADB, to write.
#[derive(Debug)]
pub struct Sadb {
    map: SadbMap,
    runtime: RuntimeReader,
    guard: Guard,
    free_slots: Vec<SlotIndex>,
    free_policies: Vec<PolicyIndex>,
    limbo: VecDeque<(u64, Limbo)>,
    /// By [`Spd::tuple_bits`]; those without policies are not in it.
    tuples: HashMap<u64, TupleUse>,
    /// Policies that point to an SA.
    users: HashMap<SlotIndex, BTreeSet<PolicyIndex>>,
    live_sas: u32,
    /// None in memory.
    _lock: Option<WriterLock>,
}

impl Sadb {
    /// Makes both regions in a directory, in place of any that are there.
    ///
    /// `random` is two random numbers: the instance, and the seed of the hash tables.
    ///
    /// # Errors
    /// [`RegionError`]; [`RegionError::InUse`] if an iked or a datapath has the old ones.
    pub fn create(directory: &Path, sizes: &Sizes, random: [u64; 2]) -> Result<Sadb, RegionError> {
        sizes.check()?;
        let lock = WriterLock::take(directory)?;
        let (sadb_path, runtime_path) = (directory.join(SADB_FILE), directory.join(RUNTIME_FILE));
        match Region::open(&runtime_path, false) {
            Ok(old) if old.locked_by_other() => {
                return Err(RegionError::InUse { path: runtime_path, pid: old.pid() });
            }
            _ => {}
        }
        let [instance, seed] = random;
        // The old SADB goes first and the new one gets its name last: wherever we are killed, there is none, or a
        // whole one beside its own runtime state.
        region::remove(&sadb_path)?;
        // Whoever can open it can lock it against the datapath: not everybody.
        let runtime = Region::create(&runtime_path, sizes.runtime_bytes(), 0o640)?;
        runtime.write_head(RUNTIME_MAGIC, sizes, instance, seed);
        let mut sadb = Region::create(&directory.join(NEW_SADB_FILE), sizes.sadb_bytes(), 0o600)?;
        let guard = sadb.guard();
        sadb.write_head(SADB_MAGIC, sizes, instance, seed);
        sadb.rename(sadb_path)?;
        // From here on the datapath alone writes the runtime region.
        drop(runtime);
        let runtime = Region::open(&runtime_path, false)?;
        Ok(Sadb::over(sadb, runtime, *sizes, guard, Some(lock)))
    }

    /// Takes over the regions of a directory, with the SAs and policies that a predecessor left.
    ///
    /// # Errors
    /// [`RegionError`] names the file, what is wrong with it, and what to do.
    pub fn open(directory: &Path) -> Result<Sadb, RegionError> {
        let lock = WriterLock::take(directory)?;
        let sadb = Region::open(&directory.join(SADB_FILE), true)?;
        let sizes = sadb.check(SADB_MAGIC, Sizes::sadb_bytes)?;
        let runtime = Region::open(&directory.join(RUNTIME_FILE), false)?;
        let runtime_sizes = runtime.check(RUNTIME_MAGIC, Sizes::runtime_bytes)?;
        let instance = |r: &Region| r.at::<crate::layout::Head>(0).instance.load(Ordering::Relaxed);
        if instance(&runtime) != instance(&sadb) || runtime_sizes != sizes {
            return Err(RegionError::Stale {
                path: runtime.path().to_owned(),
                found: instance(&runtime),
                expected: instance(&sadb),
            });
        }
        let guard = sadb.guard();
        let mut sadb = Sadb::over(sadb, runtime, sizes, guard, Some(lock));
        sadb.adopt();
        Ok(sadb)
    }

    /// A SADB in memory, with both its ends, for tests and benchmarks.
    ///
    /// # Errors
    /// [`RegionError`] for sizes out of range or without memory.
    pub fn heap(sizes: &Sizes) -> Result<(Sadb, Reader, Runtime), RegionError> {
        sizes.check()?;
        let io = |what| move |source| RegionError::Io { path: "(memory)".into(), what, source };
        let sadb = Region::heap(sizes.sadb_bytes()).map_err(io("map"))?;
        let runtime = Region::heap(sizes.runtime_bytes()).map_err(io("map"))?;
        sadb.write_head(SADB_MAGIC, sizes, 1, 0x5eed);
        runtime.write_head(RUNTIME_MAGIC, sizes, 1, 0x5eed);
        let sadb = Sadb::over(sadb, runtime, *sizes, Guard::default(), None);
        let (reader, runtime) = sadb.ends();
        Ok((sadb, reader, runtime))
    }

    /// The datapath's ends of a SADB in memory.
    fn ends(&self) -> (Reader, Runtime) {
        let map = RuntimeMap::new(self.runtime_region(), self.map.sizes);
        (Reader::new(self.map.clone()), Runtime::new(map, self.map.region.clone()))
    }

    fn runtime_region(&self) -> Arc<Region> {
        self.runtime.region()
    }

    fn over(sadb: Region, runtime: Region, sizes: Sizes, guard: Guard, lock: Option<WriterLock>) -> Sadb {
        Sadb {
            map: SadbMap::new(Arc::new(sadb), sizes),
            runtime: RuntimeReader::new(RuntimeMap::new(Arc::new(runtime), sizes)),
            guard,
            free_slots: vec![],
            free_policies: vec![],
            limbo: VecDeque::new(),
            tuples: HashMap::new(),
            users: HashMap::new(),
            live_sas: 0,
            _lock: lock,
        }
    }

    /// What the regions hold.
    pub fn sizes(&self) -> Sizes {
        self.map.sizes
    }

    /// What protects the keys in memory.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The runtime region, to read.
    pub fn runtime(&self) -> &RuntimeReader {
        &self.runtime
    }

    /// Octets of this process's own memory, beside the regions: what its tables have room for. What an allocator adds,
    /// and the nodes of trees, are not in it.
    pub fn private_octets(&self) -> usize {
        fn room<T>(capacity: usize) -> usize {
            capacity * size_of::<T>()
        }
        let users = self.users.values().map(|u| room::<PolicyIndex>(u.len())).sum::<usize>();
        let priorities = self.tuples.values().map(|t| room::<(u32, u32)>(t.priorities.len())).sum::<usize>();
        room::<SlotIndex>(self.free_slots.capacity())
            + room::<PolicyIndex>(self.free_policies.capacity())
            + room::<(u64, Limbo)>(self.limbo.capacity())
            + room::<(u64, TupleUse)>(self.tuples.capacity())
            + room::<(SlotIndex, BTreeSet<PolicyIndex>)>(self.users.capacity())
            + users
            + priorities
    }

    /// SAs that live now.
    pub fn live_sas(&self) -> u32 {
        self.live_sas
    }

    /// Puts an SA into the SAD; workers can use it when this returns.
    ///
    /// # Errors
    /// [`SadbError::SpiInUse`] for an inbound SPI that is taken, [`SadbError::Full`], [`SadbError::Invalid`].
    pub fn publish(&mut self, sa: &Sa) -> Result<SlotIndex, SadbError> {
        sa.check()?;
        if sa.direction == Direction::Inbound
            && let Some(slot) = self.map.index().find(sa.spi)
        {
            let by = self.sa(slot).map(|(_, s)| s.name.to_string()).unwrap_or_default();
            return Err(SadbError::SpiInUse { spi: sa.spi, by });
        }
        let slot = self.take_slot()?;
        let endpoint = &self.map.endpoints()[slot.0 as usize];
        if endpoint.get().is_some() {
            endpoint.set(None); // of the SA before it
        }
        self.map.slots()[slot.0 as usize].publish(&sa.to_words());
        if sa.direction == Direction::Inbound && !self.map.index().insert(sa.spi, slot) {
            self.map.slots()[slot.0 as usize].retire();
            self.wait_for_workers(Limbo::Slot(slot));
            return Err(SadbError::Full { what: "SPI index", capacity: self.map.sizes.max_sas });
        }
        self.live_sas += 1;
        self.bump_sad();
        Ok(slot)
    }

    /// Takes an SA out of the SAD, without waiting. Policies that point to it have no SA from then on: they never
    /// come to point to the next SA in its slot. Its memory is wiped and used again after [`Sadb::reclaim`] finds
    /// that no worker can still be using it.
    ///
    /// # Errors
    /// [`SadbError::NoSuchSa`].
    pub fn retire(&mut self, slot: SlotIndex) -> Result<(), SadbError> {
        let (_, sa) = self.sa(slot).ok_or(SadbError::NoSuchSa { slot })?;
        for index in self.users.remove(&slot).unwrap_or_default() {
            self.part(index, slot);
        }
        if sa.direction == Direction::Inbound {
            self.map.index().remove(sa.spi);
        }
        self.map.slots()[slot.0 as usize].retire();
        self.live_sas -= 1;
        self.bump_sad();
        self.wait_for_workers(Limbo::Slot(slot));
        Ok(())
    }

    /// Wipes and frees what no worker can still be using. Returns how much still waits.
    pub fn reclaim(&mut self) -> usize {
        while let Some((epoch, _)) = self.limbo.front() {
            if !self.runtime.passed(*epoch) {
                break;
            }
            match self.limbo.pop_front() {
                Some((_, Limbo::Slot(slot))) => {
                    self.map.slots()[slot.0 as usize].wipe();
                    self.free_slots.push(slot);
                }
                Some((_, Limbo::Policy(index))) => {
                    let spd = self.map.spd();
                    spd.sas.point(index, By::Nothing, None);
                    spd.policies[index.0 as usize].state.store(FREE, Ordering::Release);
                    self.free_policies.push(index);
                }
                None => {}
            }
        }
        self.limbo.len()
    }

    /// Says where the peer of an SA is now: its packets go there, or come from there. All else of the SA is as it was,
    /// its sequence numbers too.
    ///
    /// # Errors
    /// [`SadbError::NoSuchSa`], [`SadbError::Invalid`] for an SA without UDP encapsulation, or of another family.
    pub fn set_endpoint(&mut self, slot: SlotIndex, to: Endpoint) -> Result<(), SadbError> {
        let (_, sa) = self.sa(slot).ok_or(SadbError::NoSuchSa { slot })?;
        check_endpoint(sa.udp, sa.peer(), to)?;
        self.map.endpoints()[slot.0 as usize].set(Some(to));
        self.bump_sad();
        Ok(())
    }

    /// Where the peer of an SA is, if it has moved since the SA was published.
    pub fn endpoint(&self, slot: SlotIndex) -> Option<Endpoint> {
        let (_, sa) = self.sa(slot)?;
        let moved = self.map.endpoints().get(slot.0 as usize)?.get();
        moved.filter(|to| check_endpoint(sa.udp, sa.peer(), *to).is_ok())
    }

    /// The SA that lives in a slot, as it was published.
    pub fn sa(&self, slot: SlotIndex) -> Option<(Generation, Sa)> {
        let (generation, words) = self.map.slots().get(slot.0 as usize)?.copy()?;
        Some((generation, Sa::from_words(&words).ok()?))
    }

    /// The slot of an inbound SA.
    pub fn find(&self, spi: Spi) -> Option<SlotIndex> {
        self.map.index().find(spi)
    }

    /// All SAs.
    pub fn sas(&self) -> impl Iterator<Item = (SlotIndex, Generation, Sa)> + '_ {
        (0..self.slots_used()).map(SlotIndex).filter_map(|slot| {
            let (generation, sa) = self.sa(slot)?;
            Some((slot, generation, sa))
        })
    }

    /// Adds a policy.
    ///
    /// # Errors
    /// [`SadbError::Overlap`] with a policy of the same direction, selector and priority;
    /// [`SadbError::Full`], [`SadbError::Invalid`].
    pub fn add_policy(&mut self, policy: &Policy) -> Result<PolicyIndex, SadbError> {
        self.add_populated(policy, Populate::No)
    }

    /// Adds a policy that is populated from packets, or was. Whoever removes a policy removes those that were populated
    /// from it before.
    ///
    /// # Errors
    /// As [`Sadb::add_policy`]; [`SadbError::NotAbove`].
    pub fn add_populated(&mut self, policy: &Policy, populate: Populate) -> Result<PolicyIndex, SadbError> {
        if let Some(above) = populate.above() {
            let place = |p: &Policy| (p.direction, p.priority);
            let is_place = |p: Policy| place(&p) == place(policy) && self.populate(above).above().is_none();
            if !self.policy(above).is_some_and(is_place) {
                return Err(SadbError::NotAbove { above });
            }
        }
        let s = &policy.selector;
        if s.src.addr().is_ipv4() != s.dst.addr().is_ipv4() {
            return Err(SadbError::Invalid { field: "family of the selector", value: 0 });
        }
        if [&s.src_ports, &s.dst_ports].iter().any(|p| p.is_empty() && **p != OPAQUE_PORT) {
            return Err(SadbError::Invalid { field: "port range", value: 0 });
        }
        self.check_target(policy.sa)?;
        if let Some(with) = self.map.spd().twin(policy, populate) {
            return Err(SadbError::Overlap { with, selector: policy.selector.to_string() });
        }
        self.use_tuple(policy)?;
        let index = match self.take_policy() {
            Ok(index) => index,
            Err(e) => {
                self.leave_tuple(policy);
                return Err(e);
            }
        };
        // Never too few: before it is linked.
        self.look_inside(populate, 1);
        let spd = self.map.spd();
        spd.fill(index, policy, populate);
        spd.link(index, policy);
        spd.bump();
        self.note_user(index);
        Ok(index)
    }

    /// The policy of the same direction, selector and priority, which another cannot be beside.
    pub fn find_policy(&self, policy: &Policy) -> Option<PolicyIndex> {
        self.map.spd().twin(policy, Populate::No)
    }

    /// Ties a policy to SAs of another number: those must let in what it is for from now on.
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`].
    pub fn set_policy_reqid(&mut self, index: PolicyIndex, reqid: u32) -> Result<(), SadbError> {
        let policy = self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        if policy.reqid != reqid {
            let spd = self.map.spd();
            spd.policies[index.0 as usize].reqid.store(reqid, Ordering::Relaxed);
            spd.bump();
        }
        Ok(())
    }

    /// Makes a Protect policy use another SA, or none. Workers keep what they decided: their next packets of this
    /// policy use the other SA. Who rekeys publishes the new SA, points the policies to it, and retires the old one.
    /// Workers that have one of their own go on with it.
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`], [`SadbError::NoSuchSa`].
    pub fn set_policy_sa(&mut self, index: PolicyIndex, sa: Option<SlotIndex>) -> Result<(), SadbError> {
        self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        self.check_target(sa)?;
        let by = match self.map.policy_sas().uses(index).0 {
            By::Worker => By::Worker,
            By::Nothing | By::Dscp => By::Nothing,
        };
        self.use_others(index, |sadb| sadb.map.policy_sas().point(index, by, sa));
        Ok(())
    }

    /// Makes a Protect policy use an SA for each class of traffic (RFC 4301 §4.1), until [`Sadb::set_policy_sa`] gives
    /// it one. Classes that have the SA that they had are left alone.
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`], [`SadbError::NoSuchSa`].
    pub fn set_policy_classes(&mut self, index: PolicyIndex, classes: &Classes) -> Result<(), SadbError> {
        self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        classes.sas().try_for_each(|sa| self.check_target(Some(sa)))?;
        self.use_others(index, |sadb| {
            let set = &sadb.map.sets()[index.0 as usize];
            (0u8..).take(DSCPS).for_each(|dscp| set.point(dscp as usize, classes.sa(dscp)));
            sadb.map.policy_sas().point(index, By::Dscp, classes.default_sa());
        });
        Ok(())
    }

    /// The classes of a policy that has any.
    pub fn policy_classes(&self, index: PolicyIndex) -> Option<Classes> {
        let set = self.map.spd().set(index, By::Dscp)?;
        Some(Classes::of(|dscp| set.get(dscp), self.map.spd().sa(index)))
    }

    /// Makes a Protect policy use another SA for what one worker receives, whose SA it is; or none but that for all
    /// (RFC 9611).
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`], [`SadbError::NoSuchSa`]; [`SadbError::Invalid`] for the SA of another worker.
    pub fn set_worker_sa(
        &mut self,
        index: PolicyIndex,
        worker: u8,
        sa: Option<SlotIndex>,
    ) -> Result<(), SadbError> {
        self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        self.check_target(sa)?;
        // What a worker hands on because its own is another's would come back.
        let is_its = |slot| self.sa(slot).is_some_and(|(_, sa)| sa.worker == Some(worker));
        if usize::from(worker) >= MAX_WORKERS || sa.is_some_and(|slot| !is_its(slot)) {
            return Err(SadbError::Invalid { field: "worker", value: worker.into() });
        }
        self.use_others(index, |sadb| {
            let (sas, set) = (sadb.map.policy_sas(), &sadb.map.sets()[index.0 as usize]);
            let (by, of_all) = sas.uses(index);
            if by != By::Worker {
                sas.point(index, By::Nothing, of_all);
                (0..SET).for_each(|worker| set.point(worker, None));
            }
            set.point(worker.into(), sa);
            sadb.end_set(index, by);
        });
        Ok(())
    }

    /// The SA that a worker has of its own under a policy.
    pub fn worker_sa(&self, index: PolicyIndex, worker: u8) -> Option<SlotIndex> {
        self.map.spd().set(index, By::Worker)?.get(worker.into())
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`].
    pub fn remove_policy(&mut self, index: PolicyIndex) -> Result<(), SadbError> {
        let policy = self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        let spd = self.map.spd();
        spd.policies[index.0 as usize].retire();
        spd.unlink(index, &policy);
        self.leave_tuple(&policy);
        self.look_inside(self.populate(index), u32::MAX);
        // Before the epoch: who announces that sees that what it has decided is of another version.
        self.map.spd().bump();
        self.forget_user(index);
        self.wait_for_workers(Limbo::Policy(index));
        Ok(())
    }

    /// Counts a policy more, or by the largest number one less, if it is populated from what fragments do not show.
    fn look_inside(&self, populate: Populate, by: u32) {
        if populate.looks_inside() {
            let count = &self.map.header().looks_inside;
            count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        }
    }

    fn check_target(&self, sa: Option<SlotIndex>) -> Result<(), SadbError> {
        let lives =
            |s: &SlotIndex| self.map.slots().get(s.0 as usize).is_some_and(|s| s.generation().is_some());
        match sa {
            Some(slot) if !lives(&slot) => Err(SadbError::NoSuchSa { slot }),
            _ => Ok(()),
        }
    }

    /// A policy uses the SAs that it points to.
    fn note_user(&mut self, index: PolicyIndex) {
        for slot in self.map.spd().all_sas(index) {
            self.users.entry(slot).or_default().insert(index);
        }
    }

    fn forget_user(&mut self, index: PolicyIndex) {
        for slot in self.map.spd().all_sas(index) {
            let Some(users) = self.users.get_mut(&slot) else { continue };
            users.remove(&index);
            if users.is_empty() {
                self.users.remove(&slot);
            }
        }
    }

    /// Changes which SAs a policy uses.
    fn use_others(&mut self, index: PolicyIndex, change: impl FnOnce(&Sadb)) {
        self.forget_user(index);
        change(self);
        self.bump_policy_sas();
        self.note_user(index);
    }

    /// A policy does not point to this SA any more.
    fn part(&self, index: PolicyIndex, sa: SlotIndex) {
        let sas = self.map.policy_sas();
        let (by, named) = sas.uses(index);
        if named == Some(sa) {
            sas.point(index, by, None);
        }
        if let Some(set) = self.map.spd().set(index, by) {
            set.forget(sa);
            if by == By::Worker {
                self.end_set(index, by);
            }
        }
        self.bump_policy_sas();
    }

    /// Says that workers have SAs of their own, or that they have not any more, where that is not what was said.
    fn end_set(&self, index: PolicyIndex, said: By) {
        let is_empty = self.map.sets()[index.0 as usize].sas().next().is_none();
        let by = if is_empty { By::Nothing } else { By::Worker };
        if by != said {
            self.map.policy_sas().point(index, by, self.map.spd().sa(index));
        }
    }

    fn bump_policy_sas(&self) {
        let version = &self.map.header().policy_sas_version;
        version.store(version.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The policy in a slot.
    pub fn policy(&self, index: PolicyIndex) -> Option<Policy> {
        self.map.spd().policy(index)
    }

    /// How the policy in a slot is populated from packets, or was.
    pub fn populate(&self, index: PolicyIndex) -> Populate {
        self.map.spd().policies.get(index.0 as usize).map_or(Populate::No, PolicySlot::populate)
    }

    /// All policies.
    pub fn policies(&self) -> impl Iterator<Item = (PolicyIndex, Policy)> + '_ {
        (0..self.policies_used()).map(PolicyIndex).filter_map(|i| Some((i, self.policy(i)?)))
    }

    /// The policy for a flow, as workers find it.
    pub fn lookup(&self, direction: Direction, flow: &Flow) -> Option<PolicyHit> {
        self.map.spd().lookup(direction, flow)
    }

    /// The oldest event that a worker told.
    pub fn poll_event(&mut self) -> Option<Event> {
        let tails = &self.map.header().event_tails;
        (0..MAX_WORKERS).find_map(|w| self.runtime.pop_event(w, &tails[w]))
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn index(&self) -> crate::index::SpiIndex<'_> {
        self.map.index()
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn spd(&self) -> Spd<'_> {
        self.map.spd()
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn slots_are_wiped(&self) -> bool {
        self.map.slots().iter().all(crate::slot::Slot::is_wiped)
    }

    /// Slots that were ever used; a damaged header cannot make it more than there are.
    fn slots_used(&self) -> u32 {
        self.map.header().slots_used.load(Ordering::Relaxed).min(self.map.sizes.max_sas)
    }

    /// The same of policies.
    fn policies_used(&self) -> u32 {
        self.map.header().policies_used.load(Ordering::Relaxed).min(self.map.sizes.max_policies)
    }

    fn take_slot(&mut self) -> Result<SlotIndex, SadbError> {
        if self.free_slots.is_empty() {
            self.reclaim();
        }
        if let Some(slot) = self.free_slots.pop() {
            return Ok(slot);
        }
        let used = &self.map.header().slots_used;
        let next = used.load(Ordering::Relaxed);
        if next == self.map.sizes.max_sas {
            return Err(SadbError::Full { what: "SAD", capacity: next });
        }
        used.store(next + 1, Ordering::Release);
        Ok(SlotIndex(next))
    }

    fn take_policy(&mut self) -> Result<PolicyIndex, SadbError> {
        if self.free_policies.is_empty() {
            self.reclaim();
        }
        if let Some(index) = self.free_policies.pop() {
            return Ok(index);
        }
        let used = &self.map.header().policies_used;
        let next = used.load(Ordering::Relaxed);
        if next == self.map.sizes.max_policies {
            return Err(SadbError::Full { what: "SPD", capacity: next });
        }
        used.store(next + 1, Ordering::Release);
        Ok(PolicyIndex(next))
    }

    fn wait_for_workers(&mut self, what: Limbo) {
        let epoch = epoch::advance(&self.map.header().epoch);
        self.limbo.push_back((epoch, what));
    }

    fn bump_sad(&self) {
        let version = &self.map.header().sad_version;
        version.store(version.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Counts a policy in its tuple, which readers must know before the policy is linked.
    fn use_tuple(&mut self, policy: &Policy) -> Result<(), SadbError> {
        let bits = Spd::tuple_bits(policy);
        let slots = self.map.spd().tuples_of(policy.direction);
        let known = self.tuples.get(&bits).map(|t| t.at);
        // A slot that was used before, if there is one: the list stays short.
        let idle = || slots.iter().position(|t| t.count.load(Ordering::Relaxed) == 0);
        let at = known
            .or_else(idle)
            .ok_or(SadbError::Full { what: "kinds of selectors", capacity: MAX_TUPLES as u32 })?;
        let tuple = self.tuples.entry(bits).or_insert(TupleUse { at, ..TupleUse::default() });
        tuple.add(policy.priority);
        slots[at].set(bits, tuple.best(), tuple.policies);
        Ok(())
    }

    fn leave_tuple(&mut self, policy: &Policy) {
        let bits = Spd::tuple_bits(policy);
        let Some(tuple) = self.tuples.get_mut(&bits) else { return };
        tuple.take(policy.priority);
        let slots = self.map.spd().tuples_of(policy.direction);
        slots[tuple.at].set(bits, tuple.best(), tuple.policies);
        if tuple.policies == 0 {
            self.tuples.remove(&bits);
        }
    }

    /// Rebuilds what only the writer knows, and repairs what a killed predecessor left half done. Of what it had
    /// taken out, it may not have told any version: they are changed before an epoch is waited for.
    fn adopt(&mut self) {
        let mut gone = self.adopt_sas();
        gone.extend(self.adopt_policies());
        self.bump_sad();
        self.map.spd().bump();
        self.bump_policy_sas();
        gone.into_iter().for_each(|what| self.wait_for_workers(what));
    }

    /// Returns the slots that workers may still be using.
    fn adopt_sas(&mut self) -> Vec<Limbo> {
        let mut gone = vec![];
        let used = self.slots_used();
        self.map.header().slots_used.store(used, Ordering::Release);
        for slot in (0..used).map(SlotIndex) {
            let raw = &self.map.slots()[slot.0 as usize];
            match (self.sa(slot), raw.generation()) {
                (Some((_, sa)), _) => {
                    self.live_sas += 1;
                    // A predecessor may have taken a move of its peer, and died before it said so: workers tell again
                    // once they are told.
                    if sa.udp.is_some_and(|udp| udp.follow_peer) {
                        let endpoint = &self.map.endpoints()[slot.0 as usize];
                        endpoint.set(endpoint.get());
                    }
                }
                // Lives, but is none that anyone could use.
                (None, Some(_)) => {
                    raw.retire();
                    gone.push(Limbo::Slot(slot));
                }
                (None, None) if raw.is_wiped() => self.free_slots.push(slot),
                (None, None) => gone.push(Limbo::Slot(slot)),
            }
        }
        let inbound = |slot| self.sa(slot).filter(|(_, s)| s.direction == Direction::Inbound);
        let index = self.map.index();
        index.repair(|spi, slot| inbound(slot).is_some_and(|(_, s)| s.spi == spi));
        for slot in (0..used).map(SlotIndex) {
            if let Some((_, sa)) = inbound(slot)
                && index.find(sa.spi).is_none()
            {
                index.insert(sa.spi, slot);
            }
        }
        gone
    }

    /// Returns the policies that workers may still be using.
    fn adopt_policies(&mut self) -> Vec<Limbo> {
        let mut gone = vec![];
        let used = self.policies_used();
        self.map.header().policies_used.store(used, Ordering::Release);
        for (at, slot) in self.map.spd().tuples.iter().enumerate() {
            let bits = slot.bits.load(Ordering::Relaxed);
            if bits != 0 {
                self.tuples.entry(bits).or_insert(TupleUse { at: at % MAX_TUPLES, ..TupleUse::default() });
            }
        }
        for index in (0..used).map(PolicyIndex) {
            let spd = self.map.spd();
            let slot = &spd.policies[index.0 as usize];
            let policy = slot.decode();
            // A policy that lives was counted in its tuple before: only damage can part them.
            let tuple = policy.as_ref().and_then(|p| self.tuples.get_mut(&Spd::tuple_bits(p)));
            match (slot.state.load(Ordering::Acquire), policy, tuple) {
                (LIVE, Some(policy), Some(tuple)) => {
                    tuple.add(policy.priority);
                    if !spd.is_linked(index, &policy) {
                        spd.link(index, &policy);
                    }
                    for sa in spd.all_sas(index) {
                        if self.check_target(Some(sa)).is_err() {
                            self.part(index, sa);
                        }
                    }
                    self.note_user(index);
                }
                (FREE, ..) => {
                    // It may have been given an SA, and then did not come.
                    if spd.sas.get(index).is_some() {
                        spd.sas.point(index, By::Nothing, None);
                    }
                    self.free_policies.push(index);
                }
                (_, policy, _) => {
                    if let Some(policy) = policy.filter(|p| spd.is_linked(index, p)) {
                        spd.unlink(index, &policy);
                    }
                    slot.retire();
                    gone.push(Limbo::Policy(index));
                }
            }
        }
        // Now, and no sooner: until here readers had what the predecessor knew of each tuple, which is never too
        // strict for a policy that lives.
        for (at, slot) in self.map.spd().tuples.iter().enumerate() {
            let bits = slot.bits.load(Ordering::Relaxed);
            match self.tuples.get(&bits) {
                Some(t) if t.at == at % MAX_TUPLES => slot.set(bits, t.best(), t.policies),
                // Counted for a policy that never came: it is free, and leaves no gap.
                _ if slot.count.load(Ordering::Relaxed) != 0 => slot.set(bits, u32::MAX, 0),
                _ => {}
            }
        }
        self.tuples.retain(|_, t| t.policies > 0);
        let look_inside = self.policies().filter(|(index, _)| self.populate(*index).looks_inside()).count();
        self.map.header().looks_inside.store(look_inside as u32, Ordering::Relaxed);
        gone
    }
}
