//! AES-GCM by RustCrypto, one packet after the other: for CPUs that the kernels are not for, and to hold them
//! against.

use super::{AeadKey, Expanded, HEAD, ICV, Job};
use aes_gcm::{
    Aes128Gcm, Aes256Gcm, AesGcm,
    aead::{AeadInOut, KeyInit, consts::U12},
    aes::Aes192,
};

/// Each is behind a pointer: their tables are larger than the kernels' keys, which SAs make room for.
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

fn nonce(key: &AeadKey, iv: [u8; 8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&key.salt); // RFC 4106 §4
    nonce[4..].copy_from_slice(&iv);
    nonce
}

/// The ICV of a job whose text is sealed, or opened, by the way.
fn icv(job: &mut Job<'_>, seal: bool) -> Option<[u8; ICV]> {
    let len = job.text_len()?;
    let aad = job.aad.block.to_be_bytes();
    let (nonce, aad) = (nonce(job.key, job.iv), &aad[..job.aad.len as usize]);
    match &job.key.expanded {
        Expanded::Portable(key) => key.apply(nonce, aad, &mut job.packet[HEAD..HEAD + len], seal),
        #[cfg(target_arch = "x86_64")]
        Expanded::Gcm(_) => None,
    }
}

pub(super) fn seal(jobs: &mut [Job<'_>]) {
    for job in jobs {
        match (icv(job, true), job.text_len()) {
            (Some(icv), Some(len)) => {
                job.packet[HEAD + len..][..job.icv as usize].copy_from_slice(&icv[..job.icv as usize]);
            }
            // Nothing readable must leave.
            _ => job.wipe(),
        }
    }
}

pub(super) fn open(jobs: &mut [Job<'_>], tell: &mut impl FnMut(&mut Job<'_>, bool)) {
    for job in jobs {
        let good = match (icv(job, false), job.text_len()) {
            (Some(icv), Some(len)) => {
                let n = job.icv as usize;
                let there = &job.packet[HEAD + len..][..n];
                // All of it is compared, whatever it holds.
                let mut good = [there.iter().zip(&icv[..n]).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0];
                super::declassify(&mut good);
                good[0]
            }
            _ => false,
        };
        tell(job, good);
    }
}
