//! The datapath's end of the SADB region: read-only, lock-free.

use crate::{
    Direction, Flow, Generation, Policy, PolicyHit, PolicyIndex, Populate, RegionError, Runtime, Sa,
    SlotIndex, Spi,
    index::SpiIndex,
    layout::{RUNTIME_MAGIC, SADB_MAGIC, SadbHeader, SadbLayout, Sizes},
    policy::PolicySlot,
    policy_sa::{By, PolicySas},
    region::{Guard, Part, Region},
    runtime::{RUNTIME_FILE, RuntimeMap},
    sa_set::SaSet,
    slot::Slot,
    spd::{MAX_TUPLES, Spd},
    sync::{AtomicU32, Ordering},
    udp::{EndpointSlot, check_endpoint},
};
use std::{path::Path, sync::Arc};

/// The file of the SADB region, in the regions' directory.
pub const SADB_FILE: &str = "sadb";

/// A mapped SADB region and where its parts are.
#[derive(Clone, Debug)]
pub(crate) struct SadbMap {
    pub(crate) region: Arc<Region>,
    pub(crate) sizes: Sizes,
    layout: SadbLayout,
    policy_sas: Part<AtomicU32>,
    seed: u64,
}

impl SadbMap {
    pub(crate) fn new(region: Arc<Region>, sizes: Sizes) -> SadbMap {
        let header: &SadbHeader = region.at(0);
        let seed = header.head.seed.load(Ordering::Relaxed);
        let layout = SadbLayout::of(&sizes);
        let policy_sas = region.part(layout.policy_sas);
        SadbMap { region, sizes, layout, policy_sas, seed }
    }

    #[inline]
    pub(crate) fn header(&self) -> &SadbHeader {
        self.region.at(0)
    }

    #[inline]
    pub(crate) fn slots(&self) -> &[Slot] {
        let (at, count) = self.layout.slots;
        self.region.slice(at, count)
    }

    #[inline]
    pub(crate) fn endpoints(&self) -> &[EndpointSlot] {
        let (at, count) = self.layout.endpoints;
        self.region.slice(at, count)
    }

    #[inline]
    pub(crate) fn index(&self) -> SpiIndex<'_> {
        let (at, count) = self.layout.buckets;
        SpiIndex { buckets: self.region.slice(at, count), seed: self.seed }
    }

    #[inline]
    pub(crate) fn policy_sas(&self) -> PolicySas<'_> {
        PolicySas(&self.policy_sas)
    }

    pub(crate) fn sets(&self) -> &[SaSet] {
        let (at, count) = self.layout.sets;
        self.region.slice(at, count)
    }

    pub(crate) fn spd(&self) -> Spd<'_> {
        let layout = &self.layout;
        Spd {
            policies: self.region.slice(layout.policies.0, layout.policies.1),
            sas: self.policy_sas(),
            sets: self.sets(),
            heads: self.region.slice(layout.heads.0, layout.heads.1),
            tuples: self.region.slice(layout.tuples.0, 2 * MAX_TUPLES),
            version: &self.header().spd_version,
            seed: self.seed,
        }
    }
}

/// The datapath's view of SAD and SPD.
///
/// What it returns holds until the worker next calls
/// [`WorkerRuntime::quiesce`](crate::WorkerRuntime::quiesce).
#[derive(Clone, Debug)]
pub struct Reader {
    map: SadbMap,
}

impl Reader {
    pub(crate) fn new(map: SadbMap) -> Reader {
        Reader { map }
    }

    /// Maps both regions of a directory: the SADB to read, the runtime region to write.
    ///
    /// # Errors
    /// [`RegionError`] names the file, what is wrong with it, and what to do.
    pub fn attach(directory: &Path) -> Result<(Reader, Runtime, Guard), RegionError> {
        let sadb = Region::open(&directory.join(SADB_FILE), false)?;
        let sizes = sadb.check(SADB_MAGIC, Sizes::sadb_bytes)?;
        let runtime = Region::open(&directory.join(RUNTIME_FILE), true)?;
        let runtime_sizes = runtime.check(RUNTIME_MAGIC, Sizes::runtime_bytes)?;
        let map = SadbMap::new(Arc::new(sadb), sizes);
        let expected = map.header().head.instance.load(Ordering::Relaxed);
        let found = runtime.at::<crate::layout::Head>(0).instance.load(Ordering::Relaxed);
        if found != expected || runtime_sizes != sizes {
            return Err(RegionError::Stale { path: runtime.path().to_owned(), found, expected });
        }
        runtime.lock()?;
        let guard = map.region.guard();
        let runtime = Runtime::new(RuntimeMap::new(Arc::new(runtime), sizes), map.region.clone());
        Ok((Reader { map }, runtime, guard))
    }

    /// What the regions hold.
    pub fn sizes(&self) -> Sizes {
        self.map.sizes
    }

    /// Whether the regions in the directory are still these: not replaced by a newer iked.
    pub fn is_current(&self) -> bool {
        self.map.region.is_current()
    }

    /// The slot of an inbound SA.
    #[inline]
    pub fn find(&self, spi: Spi) -> Option<SlotIndex> {
        self.map.index().find(spi).filter(|s| s.0 < self.map.sizes.max_sas)
    }

    /// Brings the first line of a slot into the cache.
    #[inline]
    pub fn prefetch_slot(&self, slot: SlotIndex) {
        if let Some(slot) = self.map.slots().get(slot.0 as usize) {
            prefetch(slot);
        }
    }

    /// The generation of the SA that lives in a slot.
    #[inline]
    pub fn generation(&self, slot: SlotIndex) -> Option<Generation> {
        self.map.slots().get(slot.0 as usize)?.generation()
    }

    /// What says which worker's the SA in a slot is ([`Sa::whose`]); a hint, as all of an SA that is not copied.
    pub fn whose(&self, slot: SlotIndex) -> Option<(Spi, Option<u8>)> {
        self.map.slots().get(slot.0 as usize)?.whose()
    }

    /// The SPI of the SA that lives in a slot.
    pub fn spi(&self, slot: SlotIndex) -> Option<Spi> {
        self.map.slots().get(slot.0 as usize)?.spi()
    }

    /// A checked copy of the SA that lives in a slot, with its peer where it is now.
    pub fn copy_sa(&self, slot: SlotIndex) -> Option<(Generation, Sa)> {
        let (generation, words) = self.map.slots().get(slot.0 as usize)?.copy()?;
        let sa = Sa::from_words(&words).ok()?;
        let moved = self.map.endpoints().get(slot.0 as usize)?.get();
        let moved = moved.filter(|to| check_endpoint(sa.udp, sa.peer(), *to).is_ok());
        Some((generation, if let Some(to) = moved { sa.with_peer_at(to) } else { sa }))
    }

    /// Changes whenever the peer of a slot's SA is somewhere else, and with it the version of the SAD. Who asks before
    /// [`Reader::copy_sa`] knows whether to copy it again.
    #[inline]
    pub fn endpoint_version(&self, slot: SlotIndex) -> u64 {
        self.map.endpoints().get(slot.0 as usize).map_or(0, EndpointSlot::version)
    }

    /// The policy for a flow.
    pub fn lookup(&self, direction: Direction, flow: &Flow) -> Option<PolicyHit> {
        self.map.spd().lookup(direction, flow)
    }

    /// The SA that a policy uses now: what a worker asks for each packet, with the index that it has kept of a
    /// lookup's hit. `None` is no SA; of several, [`Reader::sa_for`] says which, and this is a number that no slot
    /// has. In a damaged region it can be any number.
    ///
    /// The index must come from a lookup of this turn; or of an earlier one, if [`Reader::spd_version`], asked since
    /// the worker last announced its epoch ([`WorkerRuntime::quiesce`](crate::WorkerRuntime::quiesce)), is what it was
    /// at the start of that one. Then it is not used again for another policy in this turn. The SA was published
    /// before it stands here, and its slot gets no other in this turn; but it may be retired by now.
    #[inline]
    pub fn policy_sa(&self, index: PolicyIndex) -> Option<SlotIndex> {
        self.map.policy_sas().get(index)
    }

    /// The SA by which packets with a DSCP leave that a worker has received, of a policy that may have one for each class
    /// (RFC 4301 §4.1) or for each worker (RFC 9611). As [`Reader::policy_sa`], in the same turn.
    pub fn sa_for(&self, index: PolicyIndex, dscp: u8, worker: u32) -> Option<SlotIndex> {
        self.map.spd().sa_for(index, dscp, worker)
    }

    /// Whether packets of one flow leave by several SAs: one for each class.
    pub fn has_classes(&self, index: PolicyIndex) -> bool {
        self.map.policy_sas().uses(index).0 == By::Dscp
    }

    /// Whether workers have SAs of their own under a policy, so that any of them may have its packets.
    pub fn is_for_workers(&self, index: PolicyIndex) -> bool {
        self.map.policy_sas().uses(index).0 == By::Worker
    }

    /// Brings the word that [`Reader::policy_sa`] reads into the cache.
    #[inline]
    pub fn prefetch_policy_sa(&self, index: PolicyIndex) {
        if let Some(word) = self.map.policy_sas().word(index) {
            prefetch(word);
        }
    }

    /// All policies, for any thread: each whole, and as it was at some time during the walk. Slow; not for the packet
    /// path.
    pub fn policies(&self) -> impl Iterator<Item = (PolicyIndex, Policy)> + '_ {
        let used = self.map.header().policies_used.load(Ordering::Acquire).min(self.map.sizes.max_policies);
        let spd = self.map.spd();
        (0..used).map(PolicyIndex).filter_map(move |i| Some((i, spd.copy(i)?)))
    }

    /// Changes whenever a policy is added or removed, but not when one is pointed to another SA.
    #[inline]
    pub fn spd_version(&self) -> u64 {
        self.map.header().spd_version.load(Ordering::Acquire)
    }

    /// How a policy is populated from packets, or was; in the same turns as [`Reader::policy_sa`].
    pub fn populate(&self, index: PolicyIndex) -> Populate {
        self.map.spd().policies.get(index.0 as usize).map_or(Populate::No, PolicySlot::populate)
    }

    /// Whether any policy of this version asks for ports, or is populated with them: what does not show them must be looked at as a whole then (RFC
    /// 4301 §7).
    pub fn selects_ports(&self) -> bool {
        self.map.spd().selects_ports() || self.map.header().looks_inside.load(Ordering::Relaxed) > 0
    }

    /// Changes whenever a policy that was there is pointed to another SA, or to none. Not for workers, which ask
    /// [`Reader::policy_sa`].
    pub fn policy_sas_version(&self) -> u64 {
        self.map.header().policy_sas_version.load(Ordering::Acquire)
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn epoch(&self) -> u64 {
        self.map.header().epoch.load(Ordering::Relaxed)
    }

    /// Changes whenever the SAD does.
    #[inline]
    pub fn sad_version(&self) -> u64 {
        self.map.header().sad_version.load(Ordering::Acquire)
    }
}

/// Asks the CPU to bring the first cache line of a value into its nearest cache. A hint; it changes nothing.
#[inline(always)]
pub fn prefetch<T>(line: &T) {
    prefetch_at(std::ptr::from_ref(line));
}

/// The same for any address, whatever is there: nothing is read.
#[inline(always)]
pub fn prefetch_at<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, without effect on memory or registers; an address that cannot be read is passed over.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(address.cast(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
