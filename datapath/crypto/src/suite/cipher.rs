//! Encryption without integrity of its own: AES-CBC (RFC 3602), AES-CTR (RFC 3686), NULL (RFC 2410), and
//! what is older.

use super::{super::IcvVerified, ESP, cbc::Cbc, older::Older};
use aes::{
    Aes128Dec, Aes128Enc, Aes192Dec, Aes192Enc, Aes256Dec, Aes256Enc, Block,
    cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher},
};
use ctr::{Ctr32BE, CtrCore};
use portcullis_sadb::Encryption;
use zeroize::Zeroize;

/// A key of AES, expanded.
pub(super) enum Aes<A = Aes128Enc, B = Aes192Enc, C = Aes256Enc> {
    Aes128(A),
    Aes192(B),
    Aes256(C),
}

/// The same for decryption.
pub(super) type AesDec = Aes<Aes128Dec, Aes192Dec, Aes256Dec>;

/// Does the same with the key, whatever its length.
macro_rules! with_aes {
    ($key:expr, $aes:ident => $does:expr) => {
        match $key {
            Aes::Aes128($aes) => $does,
            Aes::Aes192($aes) => $does,
            Aes::Aes256($aes) => $does,
        }
    };
}
pub(super) use with_aes;

impl<A: KeyInit, B: KeyInit, C: KeyInit> Aes<A, B, C> {
    /// `None` if it has not 16, 24 or 32 octets.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => A::new_from_slice(key).ok().map(Aes::Aes128),
            24 => B::new_from_slice(key).ok().map(Aes::Aes192),
            32 => C::new_from_slice(key).ok().map(Aes::Aes256),
            _ => None,
        }
    }
}

impl Aes {
    pub(super) fn encrypted(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = block.into();
        with_aes!(self, aes => aes.encrypt_block(&mut block));
        block.into()
    }
}

/// Expanded keys.
#[allow(clippy::large_enum_variant, reason = "what is used is to be where the SA is, not behind a pointer")]
pub(super) enum Cipher {
    Null,
    Cbc(Cbc),
    Ctr { key: Aes, salt: [u8; 4] },
    Older(Older),
}

impl Cipher {
    /// `None` if it is no encryption of these, or the lengths are none of its own.
    pub(super) fn new(encryption: Encryption, key: &[u8], salt: &[u8]) -> Option<Cipher> {
        Some(match encryption {
            Encryption::None | Encryption::Null => Cipher::Null,
            Encryption::AesCbc128 | Encryption::AesCbc192 | Encryption::AesCbc256 => {
                Cipher::Cbc(Cbc::new(key)?)
            }
            Encryption::AesCtr128 | Encryption::AesCtr192 | Encryption::AesCtr256 => {
                Cipher::Ctr { key: Aes::new(key)?, salt: salt.try_into().ok()? }
            }
            other => Cipher::Older(Older::new(other, key)?),
        })
    }

    /// Writes the IV, and encrypts what is behind it. `esp` begins with SPI and sequence number, and ends with the text,
    /// which in CBC is whole blocks.
    pub(super) fn encrypt(&self, esp: &mut [u8], seq: u64) {
        match self {
            Cipher::Null => {}
            Cipher::Cbc(cbc) => cbc.encrypt(esp, seq),
            Cipher::Older(older) => older.encrypt(esp, seq),
            Cipher::Ctr { key, salt } => {
                // RFC 3686 §3.1, §4: any that is never used twice.
                esp[ESP..ESP + 8].copy_from_slice(&seq.to_be_bytes());
                count(key, *salt, esp);
            }
        }
    }

    /// Decrypts what is behind the IV.
    pub(super) fn decrypt(&self, esp: &mut [u8], proof: IcvVerified) {
        match self {
            Cipher::Null => {}
            Cipher::Cbc(cbc) => cbc.decrypt(esp, proof),
            Cipher::Older(older) => older.decrypt(esp, proof),
            Cipher::Ctr { key, salt } => count(key, *salt, esp),
        }
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        if let Cipher::Ctr { salt, .. } = self {
            salt.zeroize();
        }
    }
}

/// RFC 3686 §2.1, §4: nonce, IV, and a counter of blocks from one.
fn count(key: &Aes, salt: [u8; 4], esp: &mut [u8]) {
    let (iv, text) = esp[ESP..].split_at_mut(8);
    let mut first = Block::default();
    first[..4].copy_from_slice(&salt);
    first[4..12].copy_from_slice(iv);
    first[15] = 1;
    with_aes!(key, aes => Ctr32BE::from_core(CtrCore::inner_iv_init(aes, &first)).apply_keystream(text));
}
