//! Where everything is in the two regions.
//!
//! ```text
//! sadb:    SadbHeader | SPI buckets | SA slots | tuples | chain heads | policy slots
//! runtime: RuntimeHeader | WorkerBlock x MAX_WORKERS | SaLine per slot
//! ```
//!
//! Fixed-width integers only, atomics all of them, so that zeroed memory is valid. Any change of a layout
//! changes [`LAYOUT_HASH`], and a process of another version refuses the files.

use crate::{
    SadbError,
    event::EventRing,
    index::{Bucket, buckets_for},
    runtime::{SaLine, WorkerBlock},
    slot::Slot,
    spd::{MAX_TUPLES, PolicySlot, TupleSlot, heads_for},
    sync::{AtomicU32, AtomicU64},
};

/// First octets of the `sadb` file.
pub const SADB_MAGIC: u64 = u64::from_le_bytes(*b"PCLSADB\0");
/// First octets of the `runtime` file.
pub const RUNTIME_MAGIC: u64 = u64::from_le_bytes(*b"PCLRUNT\0");
/// Version of the contract.
pub const VERSION: u32 = 2;
/// Workers, at most.
pub const MAX_WORKERS: usize = 64;
/// SAs, at most.
pub const MAX_SAS: u32 = 1 << 20;
/// Policies, at most.
pub const MAX_POLICIES: u32 = 1 << 17;

/// Counters of the XDP program that there is room for.
pub const STEERING_COUNTERS: usize = 64;

/// Sizes of what the regions hold: two builds with another layout have another number.
pub const LAYOUT_HASH: u64 = {
    let parts = [
        size_of::<Head>(),
        size_of::<SadbHeader>(),
        size_of::<Bucket>(),
        size_of::<Slot>(),
        size_of::<TupleSlot>(),
        size_of::<PolicySlot>(),
        size_of::<RuntimeHeader>(),
        size_of::<WorkerBlock>(),
        size_of::<SaLine>(),
        size_of::<EventRing>(),
        MAX_WORKERS,
        MAX_TUPLES,
        VERSION as usize,
    ];
    let (mut h, mut i) = (0xcbf2_9ce4_8422_2325u64, 0);
    while i < parts.len() {
        h = (h ^ parts[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    h
};

/// How much the regions hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// SAs, inbound and outbound together.
    pub max_sas: u32,
    /// Policies, inbound and outbound together.
    pub max_policies: u32,
}

/// Octets that one SA takes in the regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BytesPerSa {
    /// Its slot in the SAD.
    pub slot: usize,
    /// Its share of the SPI index.
    pub index: usize,
    /// Its line in the runtime region.
    pub runtime: usize,
}

impl Sizes {
    /// Refuses sizes that no region can have.
    ///
    /// # Errors
    /// [`SadbError::Invalid`] names the size.
    pub fn check(&self) -> Result<(), SadbError> {
        if !(1..=MAX_SAS).contains(&self.max_sas) {
            return Err(SadbError::Invalid { field: "max_sas", value: self.max_sas as u64 });
        }
        if !(1..=MAX_POLICIES).contains(&self.max_policies) {
            return Err(SadbError::Invalid { field: "max_policies", value: self.max_policies as u64 });
        }
        Ok(())
    }

    /// Octets of the `sadb` region.
    pub fn sadb_bytes(&self) -> usize {
        SadbLayout::of(self).end
    }

    /// Octets of the `runtime` region.
    pub fn runtime_bytes(&self) -> usize {
        RuntimeLayout::of(self).end
    }

    /// What each SA costs.
    pub fn bytes_per_sa(&self) -> BytesPerSa {
        BytesPerSa {
            slot: size_of::<Slot>(),
            index: buckets_for(self.max_sas) * size_of::<Bucket>() / self.max_sas as usize,
            runtime: size_of::<SaLine>(),
        }
    }
}

/// What both files begin with, written before anyone else can open them.
#[repr(C)]
pub(crate) struct Head {
    pub(crate) magic: AtomicU64,
    pub(crate) layout: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) max_sas: AtomicU32,
    pub(crate) max_policies: AtomicU32,
    /// Runtime region: process id of the datapath, for messages.
    pub(crate) pid: AtomicU32,
    /// The same random number in both files of a pair.
    pub(crate) instance: AtomicU64,
    /// Random too: the hash tables' seed.
    pub(crate) seed: AtomicU64,
}

/// Head of the `sadb` region.
#[repr(C, align(4096))]
pub(crate) struct SadbHeader {
    pub(crate) head: Head,
    pub(crate) epoch: AtomicU64,
    pub(crate) sad_version: AtomicU64,
    pub(crate) spd_version: AtomicU64,
    /// Slots from here on were never used.
    pub(crate) slots_used: AtomicU32,
    pub(crate) policies_used: AtomicU32,
    /// How far iked has read each worker's events.
    pub(crate) event_tails: [AtomicU64; MAX_WORKERS],
}

/// Head of the `runtime` region.
#[repr(C, align(4096))]
pub(crate) struct RuntimeHeader {
    pub(crate) head: Head,
    /// Workers that run now; 0 while the datapath is not ready.
    pub(crate) workers: AtomicU32,
    /// Times that a datapath has started on this region.
    pub(crate) starts: AtomicU32,
    /// What the XDP program counts, by reason.
    pub(crate) steering: [AtomicU64; STEERING_COUNTERS],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Head>() == 48);
    assert!(size_of::<SadbHeader>() == 4096);
    assert!(size_of::<RuntimeHeader>() == 4096);
    assert!(std::mem::offset_of!(SadbHeader, epoch) == 48);
};

/// Offsets in the `sadb` region.
pub(crate) struct SadbLayout {
    pub(crate) buckets: (usize, usize),
    pub(crate) slots: (usize, usize),
    pub(crate) tuples: (usize, usize),
    pub(crate) heads: (usize, usize),
    pub(crate) policies: (usize, usize),
    pub(crate) end: usize,
}

impl SadbLayout {
    pub(crate) fn of(sizes: &Sizes) -> SadbLayout {
        let mut at = size_of::<SadbHeader>();
        let mut part = |count: usize, size: usize| {
            let start = at;
            at = (at + count * size).next_multiple_of(4096);
            (start, count)
        };
        SadbLayout {
            buckets: part(buckets_for(sizes.max_sas), size_of::<Bucket>()),
            slots: part(sizes.max_sas as usize, size_of::<Slot>()),
            tuples: part(2 * MAX_TUPLES, size_of::<TupleSlot>()),
            heads: part(heads_for(sizes.max_policies), size_of::<AtomicU32>()),
            policies: part(sizes.max_policies as usize, size_of::<PolicySlot>()),
            end: at,
        }
    }
}

/// Offsets in the `runtime` region.
pub(crate) struct RuntimeLayout {
    pub(crate) workers: (usize, usize),
    pub(crate) lines: (usize, usize),
    pub(crate) end: usize,
}

impl RuntimeLayout {
    pub(crate) fn of(sizes: &Sizes) -> RuntimeLayout {
        let workers = (size_of::<RuntimeHeader>(), MAX_WORKERS);
        let lines_at = (workers.0 + MAX_WORKERS * size_of::<WorkerBlock>()).next_multiple_of(4096);
        let lines = (lines_at, sizes.max_sas as usize);
        RuntimeLayout {
            workers,
            lines,
            end: (lines_at + lines.1 * size_of::<SaLine>()).next_multiple_of(4096),
        }
    }
}
