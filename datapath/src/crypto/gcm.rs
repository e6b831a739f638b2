//! AES-GCM for x86-64, many packets at a time: what is safe to call.
//!
//! [`vector`] has the instructions, [`key`] the expanded keys, [`ghash`] the hash, [`kernel`] the
//! algorithm, once for all widths.
//! This file sorts a batch by length, so that packets of a kind go through together.

mod ghash;
mod kernel;
mod key;
mod vector;

use super::{Aead, Expanded, HEAD, Job};
use crate::batch::BATCH;
use arrayvec::ArrayVec;
use kernel::Packet;
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

/// The length of a job's text and the key, if the job is a packet and its key one for the kernels.
#[inline]
fn parts<'a>(job: &Job<'a>) -> Option<(usize, &'a Key)> {
    let Expanded::Gcm(key) = &job.key.expanded else { return None };
    Some((job.text_len()?, key))
}

/// At most a batch of jobs as the kernels want them.
struct Work {
    packets: ArrayVec<Packet, BATCH>,
    /// Jobs that are none; the others' packets are in the order of the jobs.
    skipped: ArrayVec<u8, BATCH>,
    /// Packets by kind.
    order: ArrayVec<u8, BATCH>,
}

const _: () = assert!(BATCH <= 1 << u8::BITS);

impl Work {
    const NONE: Work =
        Work { packets: ArrayVec::new_const(), skipped: ArrayVec::new_const(), order: ArrayVec::new_const() };

    /// Takes the jobs in. What is made here is large, and so is made where it stays.
    #[inline]
    fn fill(&mut self, jobs: &mut [Job<'_>]) {
        let (mut before, mut is_sorted) = (0, true);
        for (i, job) in jobs.iter_mut().enumerate() {
            let Some((len, key)) = parts(job) else {
                self.skipped.push(i as u8);
                continue;
            };
            let (salt, iv) = (u32::from_le_bytes(job.key.salt), u64::from_le_bytes(job.iv));
            let kind = Packet::kind(len, job.key.rounds, job.icv);
            is_sorted &= before <= kind;
            before = kind;
            self.order.push(self.packets.len() as u8);
            self.packets.push(Packet {
                nonce: [salt as u64 | iv << 32, iv >> 32],
                aad: job.aad.block,
                key,
                // Within the slice: `text_len` is its length less both ends. A pointer into all of it, since what is
                // in front of the text is read and written, too.
                text: job.packet.as_mut_ptr().wrapping_add(HEAD),
                len: len as u32,
                aad_bits: 8 * job.aad.len as u16,
                rounds: job.key.rounds,
                icv: job.icv,
                kind,
            });
        }
        if !is_sorted {
            let Work { packets, order, .. } = self;
            order.sort_unstable_by_key(|i| packets[*i as usize].kind);
        }
    }
}

pub(super) fn seal(aead: Aead, jobs: &mut [Job<'_>]) {
    for jobs in jobs.chunks_mut(BATCH) {
        let mut work = Work::NONE;
        work.fill(jobs);
        let mut done = [false; BATCH];
        run(aead, false, &work, &mut done);
        let mut done = done.iter();
        for (i, job) in jobs.iter_mut().enumerate() {
            // What is no packet is not sealed: nothing readable must leave.
            if is_skipped(&work, i) || done.next() != Some(&true) {
                job.wipe();
            }
        }
    }
}

pub(super) fn open(aead: Aead, jobs: &mut [Job<'_>], tell: &mut impl FnMut(&mut Job<'_>, bool)) {
    for jobs in jobs.chunks_mut(BATCH) {
        let mut work = Work::NONE;
        work.fill(jobs);
        let mut good = [false; BATCH];
        run(aead, true, &work, &mut good);
        super::declassify(&mut good);
        let mut good = good.iter();
        for (i, job) in jobs.iter_mut().enumerate() {
            let is_good = !is_skipped(&work, i) && good.next() == Some(&true);
            tell(job, is_good);
        }
    }
}

#[inline]
fn is_skipped(work: &Work, job: usize) -> bool {
    !work.skipped.is_empty() && work.skipped.contains(&(job as u8))
}

fn run(aead: Aead, open: bool, Work { packets, order, .. }: &Work, good: &mut [bool; BATCH]) {
    // SAFETY:
    // - keys of this kind exist only where `Aead::key` found the implementation available, and there are no
    //   packets without such keys: the CPU has the features that AES-NI needs; what more AVX2 and AVX-512 need
    //   is asked here, of a cache in memory;
    // - each packet's text is in a slice that a job borrows exclusively for longer than this call, with HEAD
    //   octets in front and ICV behind; its key is borrowed as long;
    // - `order` has each index of `packets` once.
    unsafe {
        match (aead, open) {
            _ if !is_available(aead) => {}
            (Aead::Avx512, false) => kernel::seal512(packets, order, good),
            (Aead::Avx512, true) => kernel::open512(packets, order, good),
            (Aead::Avx2, false) => kernel::seal256(packets, order, good),
            (Aead::Avx2, true) => kernel::open256(packets, order, good),
            (_, false) => kernel::seal128(packets, order, good),
            (_, true) => kernel::open128(packets, order, good),
        }
    }
}
