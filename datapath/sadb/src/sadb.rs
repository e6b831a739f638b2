//! iked's end of the SADB region: the only writer.
//!
//! Each change is a few stores in an order that leaves the region sound if the process dies between any two:
//! readers see the old state or the new, and [`Sadb::open`] finishes or undoes what is half done. A policy points
//! to the SA that it was given, or to none: an SA is parted from its policies before it is retired.

mod policies;

use crate::{
    Direction, Endpoint, Event, Generation, Guard, PolicyIndex, Reader, RegionError, Runtime, RuntimeReader,
    Sa, SadbError, SlotIndex, Spi, epoch,
    layout::{MAX_WORKERS, RUNTIME_MAGIC, SADB_MAGIC, Sizes},
    policy::FREE,
    policy_sa::By,
    reader::{SADB_FILE, SadbMap},
    region::{self, Region, WriterLock},
    runtime::{RUNTIME_FILE, RuntimeMap},
    sync::Ordering,
    udp::check_endpoint,
};
use policies::TupleUse;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
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

/// The SADB, to write.
#[derive(Debug)]
pub struct Sadb {
    map: SadbMap,
    runtime: RuntimeReader,
    guard: Guard,
    free_slots: Vec<SlotIndex>,
    free_policies: Vec<PolicyIndex>,
    limbo: VecDeque<(u64, Limbo)>,
    /// By [`Spd::tuple_bits`](crate::spd::Spd::tuple_bits); those without policies are not in it.
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
        let random = [instance, seed, region::boot()?];
        // The old SADB goes first and the new one gets its name last: wherever we are killed, there is none, or a
        // whole one beside its own runtime state.
        region::remove(&sadb_path)?;
        // Whoever can open it can lock it against the datapath: not everybody.
        let runtime = Region::create(&runtime_path, sizes.runtime_bytes(), 0o640)?;
        runtime.write_head(RUNTIME_MAGIC, sizes, random);
        let mut sadb = Region::create(&directory.join(NEW_SADB_FILE), sizes.sadb_bytes(), 0o600)?;
        let guard = sadb.guard();
        sadb.write_head(SADB_MAGIC, sizes, random);
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
        sadb.write_head(SADB_MAGIC, sizes, [1, 0x5eed, 0]);
        runtime.write_head(RUNTIME_MAGIC, sizes, [1, 0x5eed, 0]);
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

    /// SAs that there is room for besides, and policies. What no worker uses any more is not in it before [`Sadb::reclaim`].
    pub fn room(&self) -> (usize, usize) {
        let sas = self.map.sizes.max_sas - self.slots_used();
        let policies = self.map.sizes.max_policies - self.policies_used();
        (sas as usize + self.free_slots.len(), policies as usize + self.free_policies.len())
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

    /// Which SA a slot has, without a copy of its keys.
    pub fn generation(&self, slot: SlotIndex) -> Option<Generation> {
        self.map.slots().get(slot.0 as usize)?.generation()
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
    pub(crate) fn spd(&self) -> crate::spd::Spd<'_> {
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

    fn wait_for_workers(&mut self, what: Limbo) {
        let epoch = epoch::advance(&self.map.header().epoch);
        self.limbo.push_back((epoch, what));
    }

    fn bump_sad(&self) {
        let version = &self.map.header().sad_version;
        version.store(version.load(Ordering::Relaxed) + 1, Ordering::Release);
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
}
