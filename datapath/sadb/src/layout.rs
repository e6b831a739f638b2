//! Where everything is in the two regions.
//!
//! ```text
//! sadb:    SadbHeader | SPI buckets | SA slots | endpoints | tuples | chain heads | policy slots | SAs of policies |
//!          sets of SAs of policies
//! runtime: RuntimeHeader | WorkerBlock x MAX_WORKERS | SaLine per slot
//! ```
//!
//! Fixed-width integers only, atomics all of them, so that zeroed memory is valid. What is in the regions is defined
//! by [`shared!`], which takes nothing else. Any change of it changes [`LAYOUT_HASH`], and a process of another
//! version refuses the files. What the bits of a word mean is not in the hash: whoever changes that, changes
//! [`VERSION`].

use crate::{
    SadbError,
    index::{Bucket, buckets_for},
    policy::PolicySlot,
    runtime::{SaLine, WorkerBlock},
    sa_set::SaSet,
    slot::Slot,
    spd::{MAX_TUPLES, TupleSlot, heads_for},
    sync::{AtomicU32, AtomicU64},
    udp::EndpointSlot,
};

/// First octets of the `sadb` file.
pub const SADB_MAGIC: u64 = u64::from_le_bytes(*b"PCLSADB\0");
/// First octets of the `runtime` file.
pub const RUNTIME_MAGIC: u64 = u64::from_le_bytes(*b"PCLRUNT\0");
/// Version of the contract.
pub const VERSION: u32 = 9;
/// Workers, at most.
pub const MAX_WORKERS: usize = 64;
/// SAs, at most.
pub const MAX_SAS: u32 = 1 << 20;
/// Policies, at most.
pub const MAX_POLICIES: u32 = 1 << 17;

/// Counters of the XDP program that there is room for.
pub const STEERING_COUNTERS: usize = 64;

/// Names, offsets and sizes of all that the regions hold: two builds with another layout have another number.
pub const LAYOUT_HASH: u64 = {
    let parts = [
        SadbHeader::LAYOUT,
        Bucket::LAYOUT,
        <Slot>::LAYOUT,
        EndpointSlot::LAYOUT,
        TupleSlot::LAYOUT,
        AtomicU32::LAYOUT,
        PolicySlot::LAYOUT,
        SaSet::LAYOUT,
        RuntimeHeader::LAYOUT,
        WorkerBlock::LAYOUT,
        SaLine::LAYOUT,
        MAX_WORKERS as u64,
        MAX_TUPLES as u64,
        VERSION as u64,
    ];
    let (mut h, mut i) = (HASH_START, 0);
    while i < parts.len() {
        h = hash(h, &parts[i].to_le_bytes());
        i += 1;
    }
    h
};

pub(crate) const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, to be had at compile time.
pub(crate) const fn hash(mut h: u64, octets: &[u8]) -> u64 {
    let mut i = 0;
    while i < octets.len() {
        h = (h ^ octets[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    h
}

/// Types that may be read and written in a region: made of atomics only, valid for every bit pattern.
///
/// # Safety
/// The type is an atomic integer, or is made of such alone, and its layout is fixed.
pub(crate) unsafe trait Shared {
    /// A number that is another for another layout.
    const LAYOUT: u64;
}

// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU32 {
    const LAYOUT: u64 = 4;
}

// SAFETY: an atomic integer.
unsafe impl Shared for AtomicU64 {
    const LAYOUT: u64 = 8;
}

// SAFETY: made of `T` alone.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {
    const LAYOUT: u64 = hash(hash(HASH_START, &T::LAYOUT.to_le_bytes()), &(N as u64).to_le_bytes());
}

/// Defines a structure of the regions. Its layout is that of each field: name, offset, and the field's own layout.
macro_rules! shared {
    (
        $(#[doc = $doc:literal])*
        #[repr(C $(, align($align:literal))?)]
        $vis:vis struct $name:ident $(<const $n:ident: usize = $default:ident>)? {
            $($(#[doc = $field_doc:literal])* $field_vis:vis $field:ident: $type:ty,)+
        }
    ) => {
        $(#[doc = $doc])*
        #[repr(C $(, align($align))?)]
        $vis struct $name $(<const $n: usize = $default>)? {
            $($(#[doc = $field_doc])* $field_vis $field: $type,)+
        }

        // SAFETY: `repr(C)`; `LAYOUT` is there only if each field is `Shared`.
        unsafe impl $(<const $n: usize>)? $crate::layout::Shared for $name $(<$n>)? {
            const LAYOUT: u64 = {
                use $crate::layout::{HASH_START, Shared, hash};
                let h = hash(HASH_START, &(size_of::<Self>() as u64).to_le_bytes());
                $(
                    let h = hash(h, stringify!($field).as_bytes());
                    let h = hash(h, &(std::mem::offset_of!(Self, $field) as u64).to_le_bytes());
                    let h = hash(h, &<$type as Shared>::LAYOUT.to_le_bytes());
                )+
                h
            };
        }
    };
}
pub(crate) use shared;

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
    /// Its slot in the SAD, and where its peer is.
    pub slot: usize,
    /// Its share of the SPI index.
    pub index: usize,
    /// Its line in the runtime region.
    pub runtime: usize,
    /// Its share of the SPD, at these sizes: policies with their words and sets of SAs, and chain heads. The sets of
    /// policies that have none are memory that nobody touches.
    pub policies: usize,
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
        let policy = size_of::<PolicySlot>() + size_of::<AtomicU32>() + size_of::<SaSet>();
        let policies =
            self.max_policies as usize * policy + heads_for(self.max_policies) * size_of::<AtomicU32>();
        BytesPerSa {
            slot: size_of::<Slot>() + size_of::<EndpointSlot>(),
            index: buckets_for(self.max_sas) * size_of::<Bucket>() / self.max_sas as usize,
            runtime: size_of::<SaLine>(),
            policies: policies / self.max_sas as usize,
        }
    }
}

shared! {
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
        /// Which run of the machine made it.
        pub(crate) boot: AtomicU64,
    }
}

shared! {
    /// Head of the `sadb` region.
    #[repr(C, align(4096))]
    pub(crate) struct SadbHeader {
        pub(crate) head: Head,
        pub(crate) epoch: AtomicU64,
        pub(crate) sad_version: AtomicU64,
        pub(crate) spd_version: AtomicU64,
        pub(crate) policy_sas_version: AtomicU64,
        /// Slots from here on were never used.
        pub(crate) slots_used: AtomicU32,
        pub(crate) policies_used: AtomicU32,
        /// Policies that are populated from what fragments do not show.
        pub(crate) looks_inside: AtomicU32,
        reserved: AtomicU32,
        /// How far iked has read each worker's events.
        pub(crate) event_tails: [AtomicU64; MAX_WORKERS],
    }
}

shared! {
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
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Head>() == 56);
    assert!(size_of::<SadbHeader>() == 4096);
    assert!(size_of::<RuntimeHeader>() == 4096);
    assert!(std::mem::offset_of!(SadbHeader, epoch) == 56);
};

/// Offsets in the `sadb` region.
#[derive(Clone, Debug)]
pub(crate) struct SadbLayout {
    pub(crate) buckets: (usize, usize),
    pub(crate) slots: (usize, usize),
    pub(crate) endpoints: (usize, usize),
    pub(crate) tuples: (usize, usize),
    pub(crate) heads: (usize, usize),
    pub(crate) policies: (usize, usize),
    pub(crate) policy_sas: (usize, usize),
    pub(crate) sets: (usize, usize),
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
            endpoints: part(sizes.max_sas as usize, size_of::<EndpointSlot>()),
            tuples: part(2 * MAX_TUPLES, size_of::<TupleSlot>()),
            heads: part(heads_for(sizes.max_policies), size_of::<AtomicU32>()),
            policies: part(sizes.max_policies as usize, size_of::<PolicySlot>()),
            policy_sas: part(sizes.max_policies as usize, size_of::<AtomicU32>()),
            sets: part(sizes.max_policies as usize, size_of::<SaSet>()),
            end: at,
        }
    }
}

/// Offsets in the `runtime` region.
#[derive(Clone, Debug)]
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    macro_rules! layout_of {
        ($($text:tt)+) => {{
            shared! {
                #[repr(C, align(64))]
                struct S { $($text)+ }
            }
            S::LAYOUT
        }};
    }

    /// Builds of the same sizes that would misread each other's files.
    #[test]
    fn a_field_more_less_elsewhere_or_of_another_kind_is_another_layout() {
        let layouts = [
            layout_of!(a: AtomicU64, b: AtomicU64,),
            layout_of!(b: AtomicU64, a: AtomicU64,),
            layout_of!(a: AtomicU64,),
            layout_of!(a: AtomicU64, b: AtomicU64, c: AtomicU64,),
            layout_of!(a: AtomicU64, b: AtomicU32,),
            layout_of!(a: AtomicU64, b: [AtomicU32; 2],),
            layout_of!(a: AtomicU64, b: [AtomicU64; 1],),
        ];
        let different: std::collections::HashSet<_> = layouts.iter().collect();
        assert_eq!(different.len(), layouts.len());
        assert_eq!(layouts[0], layout_of!(a: AtomicU64, b: AtomicU64,));
    }
}
