//! AES-CCM as ESP uses it (RFC 4309): nonces of 11 octets, ICVs of 8, 12 or 16.

use aes::cipher::{BlockCipherEncrypt, BlockSizeUser};
use ccm::{
    AeadInOut, Ccm, TagSize,
    aead::array::ArraySize,
    consts::{U8, U11, U12, U16},
};

/// Nonce: salt and IV (RFC 4309 §4).
type Nonce = [u8; 11];

/// Encrypts the text and writes the ICV. Whether it could.
pub(super) fn seal<C>(aes: &C, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> bool
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    match icv.len() {
        8 => seal_with::<C, U8>(aes, nonce, aad, text, icv),
        12 => seal_with::<C, U12>(aes, nonce, aad, text, icv),
        16 => seal_with::<C, U16>(aes, nonce, aad, text, icv),
        _ => false,
    }
}

fn seal_with<C, I>(aes: &C, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &mut [u8]) -> bool
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    I: ArraySize + TagSize,
{
    let made = Ccm::<&C, I, U11>::from(aes).encrypt_inout_detached(&nonce.into(), aad, text.into());
    made.map(|made| icv.copy_from_slice(&made)).is_ok()
}

/// Decrypts the text. Whether the ICV is right.
pub(super) fn open<C>(aes: &C, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &[u8]) -> bool
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    match icv.len() {
        8 => open_with::<C, U8>(aes, nonce, aad, text, icv),
        12 => open_with::<C, U12>(aes, nonce, aad, text, icv),
        16 => open_with::<C, U16>(aes, nonce, aad, text, icv),
        _ => false,
    }
}

fn open_with<C, I>(aes: &C, nonce: Nonce, aad: &[u8], text: &mut [u8], icv: &[u8]) -> bool
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
    I: ArraySize + TagSize,
{
    let Ok(icv) = icv.try_into() else { return false };
    Ccm::<&C, I, U11>::from(aes).decrypt_inout_detached(&nonce.into(), aad, text.into(), icv).is_ok()
}
