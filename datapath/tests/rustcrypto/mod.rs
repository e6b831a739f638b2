//! AES-GCM as ESP uses it, by RustCrypto: what ours is held against.
#![allow(dead_code)] // each test file uses its part

use aes_gcm::{
    Aes128Gcm, Aes256Gcm,
    aead::{Aead, KeyInit, Payload},
};
use portcullis_sadb::Algorithm;

fn nonce(salt: &[u8], iv: [u8; 8]) -> [u8; 12] {
    [salt, &iv].concat().try_into().expect("RFC 4106 §4: 4 octets of salt, 8 of IV")
}

/// The ciphertext with its ICV. `material` is a key and its salt.
pub fn seal(algorithm: Algorithm, material: &[u8], iv: [u8; 8], aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let (key, salt) = material.split_at(algorithm.key_len());
    let (nonce, payload) = (nonce(salt, iv).into(), Payload { msg, aad });
    match algorithm {
        Algorithm::AesGcm128 => Aes128Gcm::new_from_slice(key).unwrap().encrypt(&nonce, payload),
        Algorithm::AesGcm256 => Aes256Gcm::new_from_slice(key).unwrap().encrypt(&nonce, payload),
    }
    .unwrap()
}

/// The plaintext, if the ICV at the end of `msg` is right.
pub fn open(algorithm: Algorithm, material: &[u8], iv: [u8; 8], aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
    let (key, salt) = material.split_at(algorithm.key_len());
    let (nonce, payload) = (nonce(salt, iv).into(), Payload { msg, aad });
    match algorithm {
        Algorithm::AesGcm128 => Aes128Gcm::new_from_slice(key).unwrap().decrypt(&nonce, payload),
        Algorithm::AesGcm256 => Aes256Gcm::new_from_slice(key).unwrap().decrypt(&nonce, payload),
    }
    .ok()
}
