//! Authenticated encryption of many packets at a time.
//!
//! The interface is that of a batch: packets of any lengths and keys, sealed or opened in place. How it is
//! done is chosen once; for now it is `ring`, one packet after the other.
//!
//! [`IcvVerified`] is made here alone, by opening a packet whose ICV is right. Whatever may happen to a
//! packet or its SA only after that takes it as an argument.

use arrayvec::ArrayVec;
use portcullis_sadb::Algorithm;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

/// Octets of an ICV (RFC 4106 §6).
pub const ICV: usize = 16;

/// Octets of additional data, at most: SPI and 64-bit sequence number (RFC 4106 §5).
pub const AAD: usize = 12;

/// Proof that a packet's ICV was verified.
#[derive(Clone, Copy, Debug)]
pub struct IcvVerified(());

#[cfg(test)]
impl IcvVerified {
    pub(crate) fn for_tests() -> IcvVerified {
        IcvVerified(())
    }
}

/// An expanded key with its salt.
pub struct AeadKey {
    key: LessSafeKey,
    salt: [u8; 4],
}

impl AeadKey {
    /// Expands key material: the key, then the salt (RFC 4106 §8.1). `None` if its length is wrong.
    pub fn new(algorithm: Algorithm, material: &[u8]) -> Option<AeadKey> {
        let (key, salt) = material.split_at_checked(algorithm.key_len())?;
        let ring = match algorithm {
            Algorithm::AesGcm128 => &AES_128_GCM,
            Algorithm::AesGcm256 => &AES_256_GCM,
        };
        Some(AeadKey { key: LessSafeKey::new(UnboundKey::new(ring, key).ok()?), salt: salt.try_into().ok()? })
    }

    fn nonce(&self, iv: [u8; 8]) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt); // RFC 4106 §4
        nonce[4..].copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The data that is authenticated but not encrypted.
pub type AadBytes = ArrayVec<u8, AAD>;

/// Additional data of an ESP packet: SPI, then the sequence number, 64 bits of it with ESN (RFC 4106 §5).
pub fn aad(spi: u32, seq: u64, esn: bool) -> AadBytes {
    let mut aad = AadBytes::new();
    let push = |aad: &mut AadBytes, word: u32| aad.extend(word.to_be_bytes());
    push(&mut aad, spi);
    if esn {
        push(&mut aad, (seq >> 32) as u32);
    }
    push(&mut aad, seq as u32);
    aad
}

/// One packet to seal or open.
pub struct Job<'a> {
    /// The key.
    pub key: &'a AeadKey,
    /// The IV that the packet carries; never twice with one key.
    pub iv: [u8; 8],
    /// Additional data.
    pub aad: AadBytes,
    /// The text and, behind it, the ICV.
    pub text: &'a mut [u8],
}

/// Encrypts each text in place and writes its ICV behind it.
pub fn seal(jobs: &mut [Job<'_>]) {
    for job in jobs {
        let Some(at) = job.text.len().checked_sub(ICV) else { continue };
        let (text, icv) = job.text.split_at_mut(at);
        let nonce = job.key.nonce(job.iv);
        match job.key.key.seal_in_place_separate_tag(nonce, Aad::from(&job.aad), text) {
            Ok(tag) => icv.copy_from_slice(tag.as_ref()),
            // Longer than GCM can (64 GiB): no packet is. Nothing readable must leave all the same.
            Err(_) => job.text.fill(0),
        }
    }
}

/// Verifies each ICV and decrypts each text in place. What does not verify is not left readable.
pub fn open<const N: usize>(jobs: &mut [Job<'_>], verified: &mut ArrayVec<Option<IcvVerified>, N>) {
    for job in jobs {
        let Some(at) = job.text.len().checked_sub(ICV) else {
            verified.push(None);
            continue;
        };
        let nonce = job.key.nonce(job.iv);
        let (text, icv) = job.text.split_at_mut(at);
        let tag = Tag::from(<[u8; ICV]>::try_from(&*icv).expect("split at ICV"));
        let opened = job.key.key.open_in_place_separate_tag(nonce, Aad::from(&job.aad), tag, text, 0..);
        verified.push(opened.is_ok().then_some(IcvVerified(())));
        if opened.is_err() {
            text.fill(0);
        }
    }
}

/// What does the work, for reports.
pub const IMPLEMENTATION: &str = "ring";

#[cfg(test)]
mod tests;
