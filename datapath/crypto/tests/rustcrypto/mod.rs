//! AES-GCM as ESP uses it, by RustCrypto: what ours is held against.
#![allow(dead_code)] // each test file uses its part

use aes_gcm::{
    Aes128Gcm, Aes256Gcm, AesGcm,
    aead::{AeadInOut, KeyInit, consts::U12},
    aes::Aes192,
};

/// An expanded key.
pub enum RustCrypto {
    Aes128(Box<Aes128Gcm>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<Aes256Gcm>),
}

impl RustCrypto {
    pub fn new(key: &[u8]) -> RustCrypto {
        match key.len() {
            16 => RustCrypto::Aes128(Box::new(Aes128Gcm::new_from_slice(key).unwrap())),
            24 => RustCrypto::Aes192(Box::new(AesGcm::new_from_slice(key).unwrap())),
            _ => RustCrypto::Aes256(Box::new(Aes256Gcm::new_from_slice(key).unwrap())),
        }
    }

    /// Encrypts a text in place, and returns its tag.
    pub fn seal(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> [u8; 16] {
        let (nonce, text) = (nonce.into(), text.into());
        match self {
            RustCrypto::Aes128(key) => key.encrypt_inout_detached(&nonce, aad, text),
            RustCrypto::Aes192(key) => key.encrypt_inout_detached(&nonce, aad, text),
            RustCrypto::Aes256(key) => key.encrypt_inout_detached(&nonce, aad, text),
        }
        .unwrap()
        .into()
    }
}

/// RFC 4106 §4: the salt, then the IV.
pub fn nonce(salt: [u8; 4], iv: [u8; 8]) -> [u8; 12] {
    [&salt[..], &iv].concat().try_into().unwrap()
}

/// The ciphertext with its ICV. `material` is a key and its salt.
pub fn seal(material: &[u8], iv: [u8; 8], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let (key, salt) = material.split_last_chunk().unwrap();
    let mut text = plain.to_vec();
    let tag = RustCrypto::new(key).seal(nonce(*salt, iv), aad, &mut text);
    [text, tag.to_vec()].concat()
}
