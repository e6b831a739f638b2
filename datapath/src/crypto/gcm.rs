//! AES-GCM for x86-64, many packets at a time: what is safe to call.
//!
//! [`vector`] has the instructions, [`key`] the expanded keys, [`kernel`] the algorithm, once for all widths.
//! This file sorts a batch by length, so that packets of a kind go through together.

mod kernel;
mod key;
mod vector;

use super::{Aead, Expanded, HEAD, ICV, Job};
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

/// What the kernel needs of a job. `None` for what is no packet, or has another implementation's key.
#[inline]
fn packet(job: &mut Job<'_>) -> Option<Packet> {
    let len = job.text_len()?;
    if !job.is_sound() {
        return None;
    }
    let Expanded::Gcm(key) = &job.key.expanded else { return None };
    let (salt, iv) = (u32::from_le_bytes(job.key.salt), u64::from_le_bytes(job.iv));
    // Within the slice: `text_len` is its length less both ends.
    let text = job.packet[HEAD..HEAD + len + ICV].as_mut_ptr();
    Some(Packet {
        nonce: [salt as u64 | iv << 32, iv >> 32],
        aad: job.aad.block,
        key,
        text,
        len: len as u32,
        aad_bits: 8 * job.aad.len as u16,
        rounds: job.key.rounds,
        icv: job.icv,
    })
}

/// Packets by kind: those of as many blocks, rounds and octets of ICV follow each other.
fn sorted(packets: &[Packet]) -> ArrayVec<u8, BATCH> {
    let mut order: ArrayVec<u8, BATCH> = (0..packets.len() as u8).collect();
    let kind = |i: &u8| packets[*i as usize].kind();
    if !order.is_sorted_by_key(kind) {
        order.sort_unstable_by_key(kind);
    }
    order
}

const _: () = assert!(BATCH <= 1 << u8::BITS);

/// Packets of at most a batch of jobs, and which job each comes from.
struct Work {
    packets: ArrayVec<Packet, BATCH>,
    jobs: ArrayVec<u8, BATCH>,
}

impl Work {
    fn of(jobs: &mut [Job<'_>]) -> Work {
        let mut work = Work { packets: ArrayVec::new(), jobs: ArrayVec::new() };
        for (i, job) in jobs.iter_mut().enumerate() {
            if let Some(packet) = packet(job) {
                work.packets.push(packet);
                work.jobs.push(i as u8);
            }
        }
        work
    }
}

pub(super) fn seal(aead: Aead, jobs: &mut [Job<'_>]) {
    for jobs in jobs.chunks_mut(BATCH) {
        let work = Work::of(jobs);
        let order = sorted(&work.packets);
        let mut done = [false; BATCH];
        run(aead, false, &work.packets, &order, &mut done);
        if work.jobs.len() < jobs.len() {
            // What is no packet is not sealed: nothing readable must leave.
            for (i, job) in jobs.iter_mut().enumerate() {
                if !work.jobs.contains(&(i as u8)) {
                    job.wipe();
                }
            }
        }
    }
}

pub(super) fn open(aead: Aead, jobs: &mut [Job<'_>], tell: &mut impl FnMut(&mut Job<'_>, bool)) {
    for jobs in jobs.chunks_mut(BATCH) {
        let work = Work::of(jobs);
        let order = sorted(&work.packets);
        let mut good = [false; BATCH];
        run(aead, true, &work.packets, &order, &mut good);
        let mut good = work.jobs.iter().zip(good).peekable();
        for (i, job) in jobs.iter_mut().enumerate() {
            let is_good = good.next_if(|(job, _)| **job == i as u8).is_some_and(|(_, good)| good);
            tell(job, is_good);
        }
    }
}

fn run(aead: Aead, open: bool, packets: &[Packet], order: &[u8], good: &mut [bool; BATCH]) {
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
