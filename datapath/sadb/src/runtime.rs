//! The runtime region: what the datapath knows and the others may see.
//!
//! Each SA's line is written by the worker that owns the SA, each worker's block by that worker; nothing here
//! is secret. Two words of a line outlive the datapath: `reserved_seq`, above which no outbound number was used, and
//! `highest_seen`, up to which every inbound number counts as received. The former never goes back, the latter never
//! below what was received.

use crate::{
    Event, EventKind, Generation, RegionError, SlotIndex,
    epoch::{self, OFFLINE},
    event::EventRing,
    layout::{
        MAX_WORKERS, RUNTIME_MAGIC, RuntimeHeader, RuntimeLayout, STEERING_COUNTERS, SadbHeader, Sizes,
        shared,
    },
    region::{Part, Region},
    sync::{AtomicU64, Ordering, fence},
};
use std::{path::Path, sync::Arc, time::Duration};

/// Drop counters that a worker has room for.
pub const DROP_COUNTERS: usize = 64;

/// The file of the runtime region, in the regions' directory.
pub const RUNTIME_FILE: &str = "runtime";

shared! {
    /// One worker's block.
    #[repr(C, align(128))]
    pub(crate) struct WorkerBlock {
        pub(crate) epoch: AtomicU64,
        /// Turns of its loop.
        heartbeat: AtomicU64,
        traffic: [AtomicU64; 5],
        /// [`PortCounters`], in the order of its fields.
        ports: [AtomicU64; 4],
        acquires_untold: AtomicU64,
        /// Nanoseconds of turns that found something to do.
        busy_ns: AtomicU64,
        reserved: [AtomicU64; 3],
        drops: [AtomicU64; DROP_COUNTERS],
        pub(crate) events: EventRing,
    }
}

shared! {
    /// What is known of one SA in use.
    #[repr(C, align(128))]
    pub(crate) struct SaLine {
        /// Which SA of the slot this is about; 0 while it is being reset.
        generation: AtomicU64,
        reserved_seq: AtomicU64,
        highest_seen: AtomicU64,
        counters: [AtomicU64; 11],
        farthest_late: AtomicU64,
        /// Which events iked was told of.
        told: AtomicU64,
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<SaLine>() == 128 && size_of::<WorkerBlock>().is_multiple_of(128));

macro_rules! sa_counters {
    ($($(#[doc = $doc:literal])+ $field:ident = $at:literal,)+) => {
        /// Counters of one SA.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct SaCounters { $($(#[doc = $doc])+ pub $field: u64,)+ }

        impl SaCounters {
            fn load(line: &SaLine) -> SaCounters {
                SaCounters { $($field: line.counters[$at].load(Ordering::Relaxed),)+ }
            }

            #[inline]
            fn add_to(&self, line: &SaLine) {
                $(if self.$field != 0 {
                    // One writer: a load and a store, not a read-modify-write.
                    let c = &line.counters[$at];
                    c.store(c.load(Ordering::Relaxed).wrapping_add(self.$field), Ordering::Relaxed);
                })+
            }
        }
    };
}

sa_counters! {
    /// Packets that were encapsulated, or decapsulated and let in.
    packets = 0,
    /// Octets of these: inner packets.
    bytes = 1,
    /// Packets whose ICV did not verify.
    icv_failures = 2,
    /// Packets with a number that was received before.
    replay_duplicates = 3,
    /// Packets left of the window.
    replay_too_old = 4,
    /// Decapsulated packets that were refused: padding, inner header, policy.
    refused = 5,
    /// Packets that came behind one with a higher number, in the window.
    out_of_order = 6,
}

/// A worker's traffic on all ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Frames received.
    pub rx_packets: u64,
    /// Their octets.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Their octets.
    pub tx_bytes: u64,
    /// Frames that other workers have handed over.
    pub handed: u64,
}

/// What the kernel counts of a worker's halves of all ports, since the datapath started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortCounters {
    /// Frames dropped since a receive ring was full.
    pub rx_ring_full: u64,
    /// Frames dropped since there was no chunk to put them in.
    pub rx_no_chunk: u64,
    /// Other frames dropped on receipt.
    pub rx_dropped: u64,
    /// Descriptors refused.
    pub invalid: u64,
}

/// Both processes' view of the region.
#[derive(Clone, Debug)]
pub(crate) struct RuntimeMap {
    pub(crate) region: Arc<Region>,
    sizes: Sizes,
    layout: RuntimeLayout,
    lines: Part<SaLine>,
}

impl RuntimeMap {
    pub(crate) fn new(region: Arc<Region>, sizes: Sizes) -> RuntimeMap {
        let layout = RuntimeLayout::of(&sizes);
        let lines = region.part(layout.lines);
        RuntimeMap { region, sizes, layout, lines }
    }

    pub(crate) fn header(&self) -> &RuntimeHeader {
        self.region.at(0)
    }

    pub(crate) fn blocks(&self) -> &[WorkerBlock] {
        let (at, count) = self.layout.workers;
        self.region.slice(at, count)
    }

    #[inline]
    fn line(&self, slot: SlotIndex) -> Option<&SaLine> {
        self.lines.get(slot.0 as usize)
    }
}

/// The datapath's end of the runtime region.
#[derive(Clone, Debug)]
pub struct Runtime {
    map: RuntimeMap,
    /// For the global epoch and the tails of the event rings, read-only.
    sadb: Arc<Region>,
}

impl Runtime {
    pub(crate) fn new(map: RuntimeMap, sadb: Arc<Region>) -> Runtime {
        // A predecessor that was killed left its epochs behind.
        for block in map.blocks() {
            epoch::offline(&block.epoch);
        }
        map.header().workers.store(0, Ordering::Release);
        let starts = &map.header().starts;
        starts.store(starts.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Runtime { map, sadb }
    }

    /// Tells everyone that `workers` workers run now.
    pub fn set_ready(&self, workers: u32) {
        self.map.header().workers.store(workers, Ordering::Release);
    }

    /// Puts what the XDP program counts where others see it.
    pub fn set_steering(&self, counters: impl IntoIterator<Item = u64>) {
        for (to, n) in self.map.header().steering.iter().zip(counters) {
            to.store(n, Ordering::Relaxed);
        }
    }

    /// The block of worker `w`, below [`MAX_WORKERS`]. One thread at a time writes it.
    pub fn worker(&self, w: usize) -> WorkerRuntime {
        assert!(w < MAX_WORKERS);
        WorkerRuntime { runtime: self.clone(), w }
    }

    /// Brings the line of an SA into the CPU's cache.
    #[inline]
    pub fn prefetch_sa(&self, slot: SlotIndex) {
        if let Some(line) = self.map.line(slot) {
            crate::prefetch(line);
        }
    }

    /// The line of an SA that this thread owns. `slot` is one that the reader found.
    #[inline]
    pub fn sa(&self, slot: SlotIndex) -> SaRuntime<'_> {
        SaRuntime(self.map.line(slot).expect("a slot that the reader found is within the sizes"))
    }
}

/// One worker's end of its block.
#[derive(Debug)]
pub struct WorkerRuntime {
    runtime: Runtime,
    w: usize,
}

impl WorkerRuntime {
    fn block(&self) -> &WorkerBlock {
        &self.runtime.map.blocks()[self.w]
    }

    fn sadb(&self) -> &SadbHeader {
        self.runtime.sadb.at(0)
    }

    /// Once per turn, when nothing read from the SADB before is used any more.
    #[inline]
    pub fn quiesce(&self) {
        let block = self.block();
        epoch::announce(&block.epoch, &self.sadb().epoch);
        block.heartbeat.store(block.heartbeat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Before blocking, and at the end.
    pub fn offline(&self) {
        epoch::offline(&self.block().epoch);
    }

    /// Adds to the worker's traffic.
    pub fn count_traffic(&self, t: &Traffic) {
        let add = [t.rx_packets, t.rx_bytes, t.tx_packets, t.tx_bytes, t.handed];
        for (counter, n) in self.block().traffic.iter().zip(add) {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// Puts what the kernel counts of the worker's ports where others see it.
    pub fn set_port_counters(&self, c: &PortCounters) {
        for (to, n) in self.block().ports.iter().zip([c.rx_ring_full, c.rx_no_chunk, c.rx_dropped, c.invalid])
        {
            to.store(n, Ordering::Relaxed);
        }
    }

    /// Adds to how long the worker had something to do.
    pub fn count_busy(&self, time: Duration) {
        let counter = &self.block().busy_ns;
        let ns = counter.load(Ordering::Relaxed).wrapping_add(time.as_nanos() as u64);
        counter.store(ns, Ordering::Relaxed);
    }

    /// Adds `n` to the drop counter of a reason, below [`DROP_COUNTERS`].
    pub fn count_drops(&self, reason: usize, n: u64) {
        let counter = &self.block().drops[reason];
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Counts packets that asked for an SA, of which iked was not told.
    pub fn count_acquires_untold(&self, n: u64) {
        let counter = &self.block().acquires_untold;
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Tells iked. False if its ring is full, which is counted, but not of [`EventKind::Acquire`].
    pub fn tell(&self, event: &Event) -> bool {
        self.block().events.push(&self.sadb().event_tails[self.w], event)
    }
}

/// The line of one SA, written by its owner.
#[derive(Clone, Copy)]
pub struct SaRuntime<'a>(&'a SaLine);

impl SaRuntime<'_> {
    /// Makes the line that of this generation: a new SA starts from zero, a known one goes on.
    pub fn adopt(&self, generation: Generation) {
        if self.0.generation.load(Ordering::Acquire) == generation.0 {
            return;
        }
        // Killed in here, the next datapath does it again: the generation is not ours yet.
        self.0.generation.store(0, Ordering::Release);
        self.0.reserved_seq.store(0, Ordering::Release);
        self.0.highest_seen.store(0, Ordering::Release);
        self.0.counters.iter().for_each(|c| c.store(0, Ordering::Relaxed));
        self.0.farthest_late.store(0, Ordering::Relaxed);
        self.0.told.store(0, Ordering::Relaxed);
        self.0.generation.store(generation.0, Ordering::Release);
    }

    /// Outbound: numbers up to this one may have been used.
    pub fn reserved_seq(&self) -> u64 {
        self.0.reserved_seq.load(Ordering::Acquire)
    }

    /// Outbound: reserves numbers up to `seq`. To be called before any of them is used.
    pub fn reserve(&self, seq: u64) {
        // It never goes back: below it, numbers are used, and a number is a nonce.
        let reserved = self.0.reserved_seq.load(Ordering::Relaxed).max(seq);
        self.0.reserved_seq.store(reserved, Ordering::Release);
        // The store is in the shared page before any later instruction of ours: a kill cannot part them.
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Inbound: the highest number that was received.
    pub fn highest_seen(&self) -> u64 {
        self.0.highest_seen.load(Ordering::Acquire)
    }

    /// Inbound: numbers up to `seq` are seen from now on. To be called before the packet goes on.
    #[inline]
    pub fn see(&self, seq: u64) {
        // One writer: a load and a store. It never goes back, or old packets would be new again.
        let highest = self.0.highest_seen.load(Ordering::Relaxed).max(seq);
        self.0.highest_seen.store(highest, Ordering::Release);
    }

    /// Inbound: the highest number received is `top`. Those that [`SaRuntime::see`] took as seen above it are still to
    /// come.
    pub fn saw(&self, top: u64) {
        self.0.highest_seen.store(top, Ordering::Release);
    }

    /// How far behind the highest number a packet came, in the window or left of it.
    pub fn late(&self, by: u64) {
        let farthest = self.0.farthest_late.load(Ordering::Relaxed).max(by);
        self.0.farthest_late.store(farthest, Ordering::Relaxed);
    }

    /// iked was told of this kind of event.
    pub fn told(&self, kind: EventKind) {
        let told = self.0.told.load(Ordering::Relaxed);
        self.0.told.store(told | 1 << kind as u32, Ordering::Relaxed);
    }

    /// Whether iked was told of this kind of event.
    pub fn was_told(&self, kind: EventKind) -> bool {
        self.0.told.load(Ordering::Relaxed) >> kind as u32 & 1 == 1
    }

    /// What was counted of it.
    pub fn counters(&self) -> SaCounters {
        SaCounters::load(self.0)
    }

    /// Adds to the SA's counters.
    #[inline]
    pub fn count(&self, counters: &SaCounters) {
        counters.add_to(self.0);
    }
}

/// Anyone's view of the runtime region, read-only.
#[derive(Clone, Debug)]
pub struct RuntimeReader(RuntimeMap);

/// What is known of an SA in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SaRecord {
    /// Which SA of the slot it is about.
    pub generation: Generation,
    /// Outbound: numbers up to this one may have been used.
    pub reserved_seq: u64,
    /// Inbound: the highest number received.
    pub highest_seen: u64,
    /// How far behind the highest number a packet came, at most.
    pub farthest_late: u64,
    /// What was counted.
    pub counters: SaCounters,
}

/// What is known of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerRecord {
    /// Turns of its loop.
    pub heartbeat: u64,
    /// Whether it is blocked, or not there.
    pub offline: bool,
    /// What it received and sent.
    pub traffic: Traffic,
    /// What the kernel counts of its ports.
    pub ports: PortCounters,
    /// Packets dropped, by reason.
    pub drops: [u64; DROP_COUNTERS],
    /// Events that iked was too slow for.
    pub events_lost: u64,
    /// Packets that asked for an SA, of which iked was not told, as there were too many.
    pub acquires_untold: u64,
    /// How long turns took that found something to do.
    pub busy: Duration,
}

impl RuntimeReader {
    pub(crate) fn new(map: RuntimeMap) -> RuntimeReader {
        RuntimeReader(map)
    }

    /// Maps the runtime region of a directory, and nothing else.
    ///
    /// # Errors
    /// [`RegionError`] says what is wrong with the file.
    pub fn open(directory: &Path) -> Result<RuntimeReader, RegionError> {
        let region = Region::open(&directory.join(RUNTIME_FILE), false)?;
        let sizes = region.check(RUNTIME_MAGIC, Sizes::runtime_bytes)?;
        Ok(RuntimeReader(RuntimeMap::new(Arc::new(region), sizes)))
    }

    /// What the regions hold.
    pub fn sizes(&self) -> Sizes {
        self.0.sizes
    }

    /// The number that a pair of regions shares.
    pub fn instance(&self) -> u64 {
        self.0.header().head.instance.load(Ordering::Relaxed)
    }

    /// Whether a datapath has the region now.
    pub fn datapath_alive(&self) -> bool {
        self.0.region.locked_by_other()
    }

    /// The datapath's process, the present or the last one.
    pub fn datapath_pid(&self) -> u32 {
        self.0.region.pid()
    }

    /// Workers that run; 0 while the datapath is not ready.
    pub fn workers(&self) -> u32 {
        if !self.datapath_alive() {
            return 0;
        }
        self.0.header().workers.load(Ordering::Acquire).min(MAX_WORKERS as u32)
    }

    /// Times that a datapath has started on this region.
    pub fn datapath_starts(&self) -> u32 {
        self.0.header().starts.load(Ordering::Relaxed)
    }

    /// What the XDP program has counted, by reason.
    pub fn steering(&self) -> [u64; STEERING_COUNTERS] {
        std::array::from_fn(|i| self.0.header().steering[i].load(Ordering::Relaxed))
    }

    /// What is known of worker `w`.
    pub fn worker(&self, w: usize) -> Option<WorkerRecord> {
        let block = self.0.blocks().get(w)?;
        let traffic = |i: usize| block.traffic[i].load(Ordering::Relaxed);
        Some(WorkerRecord {
            heartbeat: block.heartbeat.load(Ordering::Relaxed),
            offline: block.epoch.load(Ordering::Relaxed) == OFFLINE,
            traffic: Traffic {
                rx_packets: traffic(0),
                rx_bytes: traffic(1),
                tx_packets: traffic(2),
                tx_bytes: traffic(3),
                handed: traffic(4),
            },
            ports: PortCounters {
                rx_ring_full: block.ports[0].load(Ordering::Relaxed),
                rx_no_chunk: block.ports[1].load(Ordering::Relaxed),
                rx_dropped: block.ports[2].load(Ordering::Relaxed),
                invalid: block.ports[3].load(Ordering::Relaxed),
            },
            drops: std::array::from_fn(|i| block.drops[i].load(Ordering::Relaxed)),
            events_lost: block.events.lost(),
            acquires_untold: block.acquires_untold.load(Ordering::Relaxed),
            busy: Duration::from_nanos(block.busy_ns.load(Ordering::Relaxed)),
        })
    }

    /// What is known of the SA in a slot; `None` if no worker has met it yet.
    pub fn sa(&self, slot: SlotIndex) -> Option<SaRecord> {
        let line = self.0.line(slot)?;
        let generation = line.generation.load(Ordering::Acquire);
        (generation != 0).then(|| SaRecord {
            generation: Generation(generation),
            reserved_seq: line.reserved_seq.load(Ordering::Acquire),
            highest_seen: line.highest_seen.load(Ordering::Acquire),
            farthest_late: line.farthest_late.load(Ordering::Relaxed),
            counters: SaCounters::load(line),
        })
    }

    pub(crate) fn region(&self) -> Arc<Region> {
        self.0.region.clone()
    }

    pub(crate) fn pop_event(&self, w: usize, tail: &AtomicU64) -> Option<Event> {
        self.0.blocks()[w].events.pop(tail)
    }

    /// Whether all workers have passed an epoch. A dead datapath has no workers.
    pub(crate) fn passed(&self, epoch: u64) -> bool {
        epoch::passed(self.0.blocks().iter().map(|b| &b.epoch), epoch) || !self.datapath_alive()
    }
}
