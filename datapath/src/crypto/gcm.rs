//! AES-GCM for x86-64, many packets at a time: what is safe to call.
//!
//! [`vector`] has the instructions, [`key`] the expanded keys, [`ghash`] the hash, [`kernel`] the
//! algorithm, once for all widths.
//! This file sorts a batch by kind, so that packets of a kind go through together, unless they come so.

mod ghash;
mod kernel;
mod key;
mod vector;

use super::{Aead, Job, job::FOREIGN};
use crate::batch::BATCH;
use arrayvec::ArrayVec;
pub(super) use key::Key;
use std::arch::is_x86_feature_detected as has;

/// Whether this CPU has what an implementation takes.
pub(super) fn is_available(aead: Aead) -> bool {
    let base = has!("aes") && has!("pclmulqdq") && has!("ssse3") && has!("avx");
    let vaes = base && has!("avx2") && has!("bmi2") && has!("vaes") && has!("vpclmulqdq");
    match aead {
        Aead::Avx512 => vaes && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq"),
        Aead::Avx2 => vaes,
        Aead::AesNi => base,
        Aead::Portable => false,
    }
}

/// What comes in order.
static AS_IT_IS: [u8; BATCH] = {
    let mut order = [0; BATCH];
    let mut i = 0;
    while i < BATCH {
        order[i] = i as u8;
        i += 1;
    }
    order
};

/// By kind: for each a list of its jobs, whose numbers are one more than their index.
#[inline(never)]
fn by_kind(jobs: &[Job<'_>]) -> ArrayVec<u8, BATCH> {
    let (mut first, mut next, mut kinds) = ([0u8; KINDS], [0u8; BATCH], [0u64; KINDS / 64]);
    for (i, job) in jobs.iter().enumerate().rev() {
        let kind = job.kind as usize;
        kinds[kind / 64] |= 1 << (kind % 64);
        next[i] = first[kind];
        first[kind] = i as u8 + 1;
    }
    let mut order = ArrayVec::new();
    for (word, mut kinds) in kinds.into_iter().enumerate() {
        while kinds != 0 {
            let mut n = first[64 * word + kinds.trailing_zeros() as usize];
            while n != 0 {
                order.push(n - 1);
                n = next[n as usize - 1];
            }
            kinds &= kinds - 1;
        }
    }
    order
}

const KINDS: usize = 1 << u8::BITS;

const _: () = assert!(BATCH < KINDS);

/// Seals a batch at most.
pub(super) fn seal(aead: Aead, jobs: &mut [Job<'_>]) {
    if !run(aead, jobs, None) {
        jobs.iter_mut().for_each(Job::wipe);
    }
}

/// Opens a batch at most. What is not said to be good is not readable, or as it was.
pub(super) fn open(aead: Aead, jobs: &mut [Job<'_>], good: &mut [bool; BATCH]) {
    run(aead, jobs, Some(good));
}

/// Whether it could. Foreign jobs are not good, and wiped.
#[inline]
fn run(aead: Aead, jobs: &mut [Job<'_>], good: Option<&mut [bool; BATCH]>) -> bool {
    let by_kind_;
    let mut order = if jobs.is_sorted_by_key(|job| job.kind) {
        &AS_IT_IS[..jobs.len()]
    } else {
        by_kind_ = by_kind(jobs);
        &by_kind_
    };
    while let [before @ .., last] = order
        && jobs[*last as usize].kind == FOREIGN
    {
        jobs[*last as usize].wipe();
        order = before;
    }
    // SAFETY:
    // - jobs whose keys are not of this kind are of the last kind, `FOREIGN`, and were just cut off. Keys of this kind
    //   exist only where `Aead::key` found the implementation available, so where there is a job, the CPU has the
    //   features that AES-NI needs; what more AVX2 and AVX-512 need is asked here, of a cache in memory;
    // - `Job::new` borrows each packet exclusively and each key for longer than this call, the text with HEAD octets in
    //   front and ICV behind; and it gave the same kind only to what has as many blocks, or more than a chunk, and the
    //   same rounds and octets of ICV;
    // - `order` ascends by kind, and has no index twice and none beyond the jobs, which are a batch at most.
    unsafe {
        match (aead, good) {
            _ if !is_available(aead) => return false,
            (Aead::Avx512, None) => kernel::seal512(jobs, order),
            (Aead::Avx512, Some(good)) => kernel::open512(jobs, order, good),
            (Aead::Avx2, None) => kernel::seal256(jobs, order),
            (Aead::Avx2, Some(good)) => kernel::open256(jobs, order, good),
            (_, None) => kernel::seal128(jobs, order),
            (_, Some(good)) => kernel::open128(jobs, order, good),
        }
    }
    true
}
