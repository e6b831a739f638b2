//! Ciphers in CBC for peers that have no AES: Camellia (RFC 4312), and 3DES (RFC 2451).
//!
//! IVs are made as those of AES-CBC are ([`cbc`](super::cbc)): of the packet's number under a secret mask.
//!
//! # Dangers
//! - 3DES has blocks of eight octets. After some gigabytes under one key, two of them are the same by chance, and tell the XOR of
//!   their texts (RFC 8221 §5: SHOULD NOT). Who must use it sets `hard` limits of octets.
//! - Both look up secrets in tables: how long a packet takes depends on its key, for whoever can measure it well enough.

use super::{super::IcvVerified, ESP, spi};
use camellia::{Camellia128, Camellia192, Camellia256};
use cbc::cipher::{
    Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    InnerIvInit, KeyInit,
};
use des::TdesEde3;
use portcullis_sadb::Encryption;
use zeroize::Zeroize;

/// An expanded key.
enum Key {
    TripleDes(TdesEde3),
    Camellia128(Camellia128),
    Camellia192(Camellia192),
    Camellia256(Camellia256),
}

/// Does the same with the key, whatever its cipher.
macro_rules! with {
    ($key:expr, $cipher:ident => $does:expr) => {
        match $key {
            Key::TripleDes($cipher) => $does,
            Key::Camellia128($cipher) => $does,
            Key::Camellia192($cipher) => $does,
            Key::Camellia256($cipher) => $does,
        }
    };
}

/// A cipher in CBC.
pub(super) struct Older {
    key: Key,
    /// Of the numbers that IVs are made of.
    mask: [u8; 16],
}

/// What the mask is made of.
const MASK: [u8; 16] = *b"CBC\0IVs\0CBC\0mask";

impl Older {
    /// `None` if it is no encryption of these, or the length is none of its own.
    pub(super) fn new(encryption: Encryption, key: &[u8]) -> Option<Older> {
        let key = match encryption {
            Encryption::TripleDesCbc => Key::TripleDes(TdesEde3::new_from_slice(key).ok()?),
            Encryption::CamelliaCbc128 => Key::Camellia128(Camellia128::new_from_slice(key).ok()?),
            Encryption::CamelliaCbc192 => Key::Camellia192(Camellia192::new_from_slice(key).ok()?),
            Encryption::CamelliaCbc256 => Key::Camellia256(Camellia256::new_from_slice(key).ok()?),
            _ => return None,
        };
        let mut mask = MASK;
        with!(&key, cipher => encrypt_number(cipher, &mut mask, &[0; 16]));
        Some(Older { key, mask })
    }

    /// Writes the IV, and encrypts what is behind it. `esp` begins with SPI and sequence number, and ends with the text,
    /// which is whole blocks.
    pub(super) fn encrypt(&self, esp: &mut [u8], seq: u64) {
        // SPIs differ where somebody gave one key to both directions: eight octets have room for the number alone.
        let mut number = (u128::from(spi(esp)) << 96 | u128::from(seq)).to_be_bytes();
        with!(&self.key, cipher => {
            let size = encrypt_number(cipher, &mut number, &self.mask);
            let (iv, text) = esp[ESP..].split_at_mut(size);
            iv.copy_from_slice(&number[16 - size..]);
            let iv = Array::try_from(&*iv).expect("a block");
            cbc::Encryptor::inner_iv_init(cipher, &iv).encrypt_blocks(Array::slice_as_chunks_mut(text).0);
        });
    }

    /// Decrypts what is behind the IV.
    pub(super) fn decrypt(&self, esp: &mut [u8], _proof: IcvVerified) {
        with!(&self.key, cipher => decrypt_with(cipher, esp));
    }
}

impl Drop for Older {
    fn drop(&mut self) {
        self.mask.zeroize();
    }
}

/// Encrypts the last block of a number over a mask, and returns the octets of a block.
fn encrypt_number<C: BlockCipherEncrypt>(cipher: &C, number: &mut [u8; 16], mask: &[u8; 16]) -> usize {
    number.iter_mut().zip(mask).for_each(|(n, m)| *n ^= m);
    let size = C::block_size();
    let block = &mut number[16 - size..];
    cipher.encrypt_block(block.try_into().expect("a block"));
    size
}

fn decrypt_with<C: BlockCipherDecrypt>(cipher: &C, esp: &mut [u8]) {
    let (iv, text) = esp[ESP..].split_at_mut(C::block_size());
    let iv: Array<u8, <C as BlockSizeUser>::BlockSize> = Array::try_from(&*iv).expect("a block");
    cbc::Decryptor::inner_iv_init(cipher, &iv).decrypt_blocks(Array::slice_as_chunks_mut(text).0);
}
