//! AES-GCM for x86-64, many packets at a time: what is safe to call.
//!
//! [`vector`] has the instructions, [`key`] the expanded keys, [`ghash`] the hash, [`kernel`] the
//! algorithm, once for all widths.
//! This file sorts a batch by kind, so that packets of a kind go through together, unless they come so. [`place`] is
//! for packets in segments, of which the short ones are copied here.

mod ghash;
mod kernel;
mod key;
mod pair;
mod place;
mod vector;

use super::{
    Aead, HEAD, ICV, Job,
    job::{FOREIGN, SCATTERED, SHORT},
};
use crate::BATCH;
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
fn run(aead: Aead, jobs: &mut [Job<'_>], mut good: Option<&mut [bool; BATCH]>) -> bool {
    if !is_available(aead) {
        return false;
    }
    let by_kind_;
    let mut order = if jobs.is_sorted_by_key(|job| job.kind) {
        &AS_IT_IS[..jobs.len()]
    } else {
        by_kind_ = by_kind(jobs);
        &by_kind_
    };
    while let [before @ .., last] = order
        && let job = &mut jobs[*last as usize]
        && job.kind >= SCATTERED
    {
        match job.kind {
            FOREIGN => job.wipe(),
            _ => run_together(aead, job, good.as_deref_mut().map(|good| &mut good[*last as usize])),
        }
        order = before;
    }
    // SAFETY:
    // - jobs whose keys are not of this kind are of the last kind, `FOREIGN`, and were just cut off;
    // - the CPU has the features, as was asked here, of a cache in memory;
    // - `Job::new` borrows each packet exclusively and each key for longer than this call, the text with HEAD octets in
    //   front and ICV behind; and it gave the same kind only to what has as many blocks, or more than a chunk, and the
    //   same rounds and octets of ICV;
    // - `Job::scattered` does the same, and what is in segments and no more than a chunk was just cut off, too;
    // - `order` ascends by kind, and has no index twice and none beyond the jobs, which are a batch at most.
    unsafe {
        match (aead, good) {
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

/// A short packet in segments, in one piece.
#[cold]
fn run_together(aead: Aead, job: &mut Job<'_>, good: Option<&mut bool>) {
    job.gathered(&mut [0; HEAD + SHORT + ICV], |job| {
        let mut is_good = [false; BATCH];
        run(aead, std::slice::from_mut(job), good.is_some().then_some(&mut is_good));
        if let Some(good) = good {
            *good = is_good[0];
        }
    });
}
