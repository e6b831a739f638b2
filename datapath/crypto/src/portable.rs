//! AES-GCM by RustCrypto, one packet after the other: for CPUs that the kernels are not for, and to hold them
//! against. The library wants a text in one piece: what is in segments is copied.

use super::{Expanded, HEAD, ICV, Job, job::Nonce};
use crate::BATCH;
use aes_gcm::{
    Aes128Gcm, Aes256Gcm, AesGcm,
    aead::{AeadInOut, KeyInit, consts::U12},
    aes::Aes192,
};

/// Each is behind a pointer: their tables are larger than the kernels' keys, which SAs make room for. Aligned as those
/// are, so that the one begins where the other does.
#[repr(align(16))]
pub(super) enum Key {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<Aes256Gcm>),
}

/// Octets of the largest of them.
pub(super) const KEY_OCTETS: usize = size_of::<Aes256Gcm>();

impl Key {
    pub(super) fn new(key: &[u8]) -> Option<Key> {
        match key.len() {
            16 => Aes128Gcm::new_from_slice(key).ok().map(|k| Key::Aes128(Box::new(k))),
            24 => AesGcm::new_from_slice(key).ok().map(|k| Key::Aes192(Box::new(k))),
            32 => Aes256Gcm::new_from_slice(key).ok().map(|k| Key::Aes256(Box::new(k))),
            _ => None,
        }
    }

    /// The ICV, whole. `None`: the text is longer than GCM can, or than it is.
    fn apply(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8], seal: bool) -> Option<[u8; ICV]> {
        // Opened by hand, since ICVs may be shorter than the library takes: encrypting the ciphertext gives the
        // text, and encrypting that again the ciphertext with its ICV.
        macro_rules! with {
            ($key:expr) => {{
                let nonce = nonce.into();
                if !seal {
                    $key.encrypt_inout_detached(&nonce, aad, (&mut *text).into()).ok()?;
                }
                let icv = $key.encrypt_inout_detached(&nonce, aad, (&mut *text).into()).ok()?;
                if !seal {
                    $key.encrypt_inout_detached(&nonce, aad, text.into()).ok()?;
                }
                Some(icv.into())
            }};
        }
        match self {
            Key::Aes128(key) => with!(key),
            Key::Aes192(key) => with!(key),
            Key::Aes256(key) => with!(key),
        }
    }
}

/// The ICV of a job whose text is sealed, or opened, by the way. `None` if its key is none of these.
fn icv(job: &mut Job<'_>, seal: bool) -> Option<[u8; ICV]> {
    #[cfg_attr(not(target_arch = "x86_64"), allow(irrefutable_let_patterns))]
    let Expanded::Portable(_, key) = &job.key.expanded else {
        return None;
    };
    let (Nonce { salt, iv, .. }, aad) = (job.nonce, job.aad.octets());
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&salt);
    nonce[4..].copy_from_slice(&iv);
    key.apply(nonce, &aad, job.parts().0, seal)
}

pub(super) fn seal(jobs: &mut [Job<'_>]) {
    jobs.iter_mut().for_each(|job| in_one_piece(job, seal_one));
}

/// As many jobs as there are answers, at most.
pub(super) fn open(jobs: &mut [Job<'_>], good: &mut [bool; BATCH]) {
    for (job, good) in jobs.iter_mut().zip(good) {
        *good = in_one_piece(job, open_one);
    }
}

fn in_one_piece<T>(job: &mut Job<'_>, work: impl FnOnce(&mut Job<'_>) -> T) -> T {
    if job.is_scattered() { copied(job, work) } else { work(job) }
}

#[inline(never)]
fn copied<T>(job: &mut Job<'_>, work: impl FnOnce(&mut Job<'_>) -> T) -> T {
    job.gathered(&mut [0; HEAD + u16::MAX as usize + ICV], work)
}

fn seal_one(job: &mut Job<'_>) {
    match (icv(job, true), job.icv as usize) {
        (Some(icv), n) => job.parts().1[..n].copy_from_slice(&icv[..n]),
        // Nothing readable must leave.
        _ => job.wipe(),
    }
}

fn open_one(job: &mut Job<'_>) -> bool {
    let (icv, n) = (icv(job, false), job.icv as usize);
    // All of it is compared, whatever it holds.
    icv.is_some_and(|icv| {
        job.parts().1[..n].iter().zip(&icv[..n]).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    })
}
