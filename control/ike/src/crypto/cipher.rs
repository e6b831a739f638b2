//! The Encrypted payload: AES-CBC and 3DES with an HMAC (RFC 7296 §3.14), AES-GCM (RFC 5282), ChaCha20-Poly1305 (RFC 7634).
//!
//! ```text
//!  IKE header | payloads in clear | SK header        | IV | payloads | padding | its length | ICV
//!  headers, which both cover                         | the body of the payload
//! ```
//!
//! An Encrypted Fragment payload is the same; its fragment numbers are headers, too (RFC 7383 §2.5). Where the headers end,
//! [`Sealed::headers`](crate::message::Sealed::headers) says; [`Message::emit_sealed`](crate::message::Message::emit_sealed)
//! has them sealed.
//!
//! # Dangers
//! - An AEAD's IV must never be used twice with one key (RFC 5282 §3.1). So a [`Sealer`] counts them, is one for each key
//!   ([`Keys`](super::keys::Keys) hands it out once), and cannot be copied. A message that is sent again is the octets that were sent before.
//! - What is decrypted is given away only when the ICV was right.
//! - Keys are expanded for each message, which takes less than a microsecond: an IKE SA is idle for hours, and there are
//!   many.

use super::{
    Secret,
    transform::{Encryption, Integrity, Suite},
};
use crate::kept::{Damaged, Keep, Reader, Writer, keep};
use aes::{
    Aes128, Aes192, Aes256,
    cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit, consts::U12},
};
use aes_gcm::{AeadInOut, AesGcm};
use des::TdesEde3;
use rand_core::CryptoRng;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;

/// Why a payload was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Too short for IV, padding and ICV, or not whole blocks.
    #[error("an Encrypted payload has {0} octets, which none of its algorithm has")]
    Length(usize),
    /// It is not of the peer, or was changed.
    #[error("an Encrypted payload does not verify")]
    Icv,
    /// More padding than there are octets. The peer made it so, as the ICV was right.
    #[error("an Encrypted payload has {0} octets of padding, which is more than there are")]
    Padding(u8),
}

#[derive(Debug)]
pub(super) struct Direction {
    pub(super) encryption: Encryption,
    pub(super) integrity: Option<Integrity>,
    /// SK_e, with the salt.
    pub(super) e: Secret,
    /// SK_a.
    pub(super) a: Secret,
}

/// What seals one direction of an IKE SA.
#[derive(Debug)]
pub struct Sealer {
    keys: Direction,
    sealed: u64,
}

/// What opens one direction of an IKE SA.
#[derive(Debug)]
pub struct Opener {
    keys: Direction,
}

impl Sealer {
    /// What it seals with.
    pub(super) fn keys(&self) -> &Direction {
        &self.keys
    }

    /// With SK_e, which has the salt in it, and SK_a, which is empty for an AEAD.
    pub(super) fn new(suite: Suite, e: Secret, a: Secret) -> Sealer {
        Sealer { keys: Direction::new(suite, e, a), sealed: 0 }
    }

    /// Octets of the body of a payload with so many octets of payloads in it. The headers must say so before
    /// it is sealed.
    pub fn sealed_len(&self, payloads: usize) -> usize {
        let (encryption, block) = (self.keys.encryption, self.keys.encryption.block_len());
        encryption.iv_len() + (payloads + 1).next_multiple_of(block) + self.keys.icv_len()
    }

    /// Seals payloads: the body of the Encrypted payload behind `headers`. Randomness is for the IV of AES-CBC.
    pub fn seal(&mut self, headers: &[u8], payloads: &[u8], rng: &mut dyn CryptoRng) -> Vec<u8> {
        let mut iv = [0; 16];
        let iv = &mut iv[..self.keys.encryption.iv_len()];
        if self.keys.encryption.is_aead() {
            // RFC 5282 §3.1: each once. A message takes far more than a nanosecond, so this does not end.
            iv.copy_from_slice(&self.sealed.to_be_bytes());
            self.sealed += 1;
        } else {
            // RFC 7296 §3.14: not to be guessed.
            rng.fill_bytes(iv);
        }
        let mut body = Vec::with_capacity(self.sealed_len(payloads.len()));
        body.extend_from_slice(iv);
        body.extend_from_slice(payloads);
        // RFC 7296 §3.14: any octets, as few as do; the last is their number without itself.
        let padding =
            (payloads.len() + 1).next_multiple_of(self.keys.encryption.block_len()) - payloads.len() - 1;
        body.resize(body.len() + padding, 0);
        body.push(padding as u8);
        self.keys.seal(headers, &mut body);
        body
    }
}

impl Opener {
    /// What it opens with.
    pub(super) fn keys(&self) -> &Direction {
        &self.keys
    }

    /// As [`Sealer::new`].
    pub(super) fn new(suite: Suite, e: Secret, a: Secret) -> Opener {
        Opener { keys: Direction::new(suite, e, a) }
    }

    /// Opens the body of the Encrypted payload that is behind `headers`: the payloads in it, without padding.
    pub fn open(&self, headers: &[u8], body: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (iv, block) = (self.keys.encryption.iv_len(), self.keys.encryption.block_len());
        let sealed = body.len().checked_sub(iv + self.keys.icv_len());
        if !sealed.is_some_and(|len| len > 0 && len.is_multiple_of(block)) {
            return Err(OpenError::Length(body.len()));
        }
        let mut payloads = self.keys.open(headers, body).ok_or(OpenError::Icv)?;
        // RFC 7296 §3.14: any padding that ends on a block is accepted.
        let padding = payloads.pop().unwrap_or_default();
        let len = payloads.len().checked_sub(padding.into()).ok_or(OpenError::Padding(padding))?;
        payloads.truncate(len);
        Ok(payloads)
    }
}

/// Does the same with AES of the length of the key.
macro_rules! with_aes {
    ($key:expr, $aes:ident => $does:expr) => {
        match $key.len() {
            16 => {
                type $aes = Aes128;
                $does
            }
            24 => {
                type $aes = Aes192;
                $does
            }
            _ => {
                type $aes = Aes256;
                $does
            }
        }
    };
}

/// Does the same with the cipher that goes in CBC.
macro_rules! with_cbc {
    ($encryption:expr, $key:expr, $cipher:ident => $does:expr) => {
        match $encryption {
            Encryption::TripleDesCbc => {
                type $cipher = TdesEde3;
                $does
            }
            _ => with_aes!($key, $cipher => $does),
        }
    };
}

/// CBC of whole blocks, in place, with a key and an IV of their lengths.
pub(crate) fn encrypt_cbc(encryption: Encryption, key: &[u8], iv: &[u8], text: &mut [u8]) {
    with_cbc!(encryption, key, Cipher => cbc::Encryptor::<Cipher>::new_from_slices(key, iv)
        .expect("key and IV have their lengths")
        .encrypt_blocks(Array::slice_as_chunks_mut(text).0));
}

/// The other way.
pub(crate) fn decrypt_cbc(encryption: Encryption, key: &[u8], iv: &[u8], text: &mut [u8]) {
    with_cbc!(encryption, key, Cipher => cbc::Decryptor::<Cipher>::new_from_slices(key, iv)
        .expect("key and IV have their lengths")
        .decrypt_blocks(Array::slice_as_chunks_mut(text).0));
}

impl Direction {
    fn new(suite: Suite, e: Secret, a: Secret) -> Direction {
        let (encryption, integrity) = (suite.encryption(), suite.integrity());
        assert_eq!((e.bytes().len(), a.bytes().len()), (encryption.key_len(), suite.integrity_key_len()));
        Direction { encryption, integrity, e, a }
    }

    fn icv_len(&self) -> usize {
        self.integrity.map_or(self.encryption.icv_len(), Integrity::icv_len)
    }

    fn key_and_salt(&self) -> (&[u8], &[u8]) {
        self.e.bytes().split_at(self.encryption.key_len() - self.encryption.salt_len())
    }

    /// Salt and IV (RFC 5282 §4, RFC 7634 §2).
    fn nonce(&self, iv: &[u8]) -> [u8; 12] {
        let mut nonce = [0; 12];
        let salt = self.key_and_salt().1;
        nonce[..salt.len()].copy_from_slice(salt);
        nonce[salt.len()..].copy_from_slice(iv);
        nonce
    }

    /// Encrypts what is behind the IV and appends the ICV.
    fn seal(&self, headers: &[u8], body: &mut Vec<u8>) {
        let (iv, text) = body.split_at_mut(self.encryption.iv_len());
        let icv = match self.integrity {
            Some(integrity) => {
                encrypt_cbc(self.encryption, self.e.bytes(), iv, text);
                // RFC 7296 §3.14: over the whole message.
                integrity.icv(&self.a, &[headers, body])
            }
            None => self.encrypt(headers, self.nonce(iv), text)[..self.icv_len()].to_vec(),
        };
        body.extend_from_slice(&icv);
    }

    /// Verifies and decrypts a body of a right length: the text with its padding.
    fn open(&self, headers: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let (covered, icv) = body.split_at(body.len() - self.icv_len());
        let (iv, text) = covered.split_at(self.encryption.iv_len());
        let mut text = text.to_vec();
        match self.integrity {
            Some(integrity) => {
                // RFC 7296 §3.14: verified before anything is decrypted.
                if !bool::from(integrity.icv(&self.a, &[headers, covered]).ct_eq(icv)) {
                    return None;
                }
                decrypt_cbc(self.encryption, self.e.bytes(), iv, &mut text);
            }
            None => {
                // Once to decrypt, which XORs the same stream, and once more for the ICV: libraries verify none that are
                // shorter than 12 octets.
                let nonce = self.nonce(iv);
                self.encrypt(headers, nonce, &mut text);
                let tag = self.encrypt(headers, nonce, &mut text.clone());
                if !bool::from(tag[..icv.len()].ct_eq(icv)) {
                    return None;
                }
            }
        }
        Some(text)
    }

    /// Encrypts in place with an AEAD: all of the tag.
    fn encrypt(&self, aad: &[u8], nonce: [u8; 12], text: &mut [u8]) -> [u8; 16] {
        let (key, _) = self.key_and_salt();
        if self.encryption == Encryption::ChaCha20Poly1305 {
            let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has its length");
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = LessSafeKey::new(key).seal_in_place_separate_tag(nonce, Aad::from(aad), text);
            let tag = tag.expect("a message is shorter than 256 GiB");
            return tag.as_ref().try_into().expect("a tag has 16 octets");
        }
        with_aes!(key, Aes => AesGcm::<Aes, U12>::new_from_slice(key)
            .expect("the key has its length")
            .encrypt_inout_detached(&nonce.into(), aad, text.into())
            .expect("a message is shorter than 64 GiB")
            .into())
    }
}

impl Integrity {
    /// Over all parts in a row.
    fn icv(self, key: &Secret, parts: &[&[u8]]) -> Vec<u8> {
        self.prf().mac(key.bytes(), parts).bytes()[..self.icv_len()].to_vec()
    }
}

impl Keep for Direction {
    fn keep(&self, to: &mut Writer) {
        let Direction { encryption, integrity, e, a } = self;
        (*encryption, *integrity).keep(to);
        e.keep(to);
        a.keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Direction, Damaged> {
        let (encryption, integrity): (Encryption, Option<Integrity>) = Keep::kept(from)?;
        let (e, a): (Secret, Secret) = Keep::kept(from)?;
        let lens = (encryption.key_len(), integrity.map_or(0, Integrity::key_len));
        let is_right =
            (e.bytes().len(), a.bytes().len()) == lens && encryption.is_aead() == integrity.is_none();
        if is_right { Ok(Direction { encryption, integrity, e, a }) } else { Err(Damaged("key")) }
    }
}

keep!(Sealer { keys, sealed });
keep!(Opener { keys });

#[cfg(test)]
mod tests;
