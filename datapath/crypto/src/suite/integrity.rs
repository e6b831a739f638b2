//! What makes an ICV where encryption does not: HMAC with SHA-1 (RFC 2404) and SHA-2 (RFC 4868), AES-XCBC (RFC 3566),
//! AES-CMAC (RFC 4494) and, for AH, AES-GMAC (RFC 4543).

use super::{super::IcvVerified, LONGEST_ICV, gmac::Gmac, hmac::HmacSha256, verified};
use ::hmac::Hmac;
use aes::{
    Aes128Enc,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use cmac::Cmac;
use portcullis_sadb::Integrity;
use sha1::Sha1;
use sha2::{Sha384, Sha512};
use zeroize::Zeroize;

/// Expanded keys. Of HMAC they are the states behind the padded keys, inner and outer.
#[allow(clippy::large_enum_variant, reason = "what is used is to be where the SA is, not behind a pointer")]
pub(super) enum Mac {
    HmacSha1(Hmac<Sha1>),
    HmacSha256(HmacSha256),
    HmacSha384(Hmac<Sha384>),
    HmacSha512(Hmac<Sha512>),
    Xcbc(Xcbc),
    Cmac(Cmac<Aes128Enc>),
    Gmac(Gmac),
}

impl Mac {
    /// `None` if there is none, or the lengths are none of its own.
    pub(super) fn new(integrity: Integrity, key: &[u8], salt: &[u8]) -> Option<Mac> {
        Some(match integrity {
            Integrity::None => return None,
            Integrity::HmacSha1 => Mac::HmacSha1(KeyInit::new_from_slice(key).ok()?),
            Integrity::HmacSha256 => Mac::HmacSha256(HmacSha256::new(key)?),
            Integrity::HmacSha384 => Mac::HmacSha384(KeyInit::new_from_slice(key).ok()?),
            Integrity::HmacSha512 => Mac::HmacSha512(KeyInit::new_from_slice(key).ok()?),
            Integrity::AesXcbc => Mac::Xcbc(Xcbc::new(key)?),
            Integrity::AesCmac => Mac::Cmac(KeyInit::new_from_slice(key).ok()?),
            Integrity::AesGmac128 | Integrity::AesGmac192 | Integrity::AesGmac256 => {
                Mac::Gmac(Gmac::new(key, salt)?)
            }
        })
    }

    /// Writes as much as `icv` has room for, of all that there is. `high_half` is covered behind the pieces; `iv` is
    /// for GMAC.
    #[inline]
    pub(super) fn write(&self, pieces: &[&[u8]], high_half: Option<[u8; 4]>, iv: [u8; 8], icv: &mut [u8]) {
        let whole = self.whole(pieces, high_half.as_ref().map_or(&[], |half| half), iv);
        icv.copy_from_slice(&whole[..icv.len()]);
    }

    /// Whether `icv` is the ICV.
    #[inline]
    pub(super) fn verify(
        &self,
        pieces: &[&[u8]],
        high_half: Option<[u8; 4]>,
        iv: [u8; 8],
        icv: &[u8],
    ) -> Option<IcvVerified> {
        let whole = self.whole(pieces, high_half.as_ref().map_or(&[], |half| half), iv);
        verified(icv, &whole[..icv.len()])
    }

    #[inline]
    fn whole(&self, pieces: &[&[u8]], behind: &[u8], iv: [u8; 8]) -> [u8; LONGEST_ICV] {
        let pieces = pieces.iter().copied().chain([behind]);
        match self {
            Mac::HmacSha1(key) => of(key, pieces),
            Mac::HmacSha256(key) => key.mac(pieces),
            Mac::HmacSha384(key) => of(key, pieces),
            Mac::HmacSha512(key) => of(key, pieces),
            Mac::Xcbc(key) => padded(&key.mac(pieces)),
            Mac::Cmac(key) => of(key, pieces),
            Mac::Gmac(key) => padded(&key.icv(iv, pieces)),
        }
    }
}

#[inline]
fn of<'a, M: ::hmac::Mac + Clone>(key: &M, pieces: impl Iterator<Item = &'a [u8]>) -> [u8; LONGEST_ICV] {
    let mut mac = key.clone();
    pieces.for_each(|piece| mac.update(piece));
    padded(&mac.finalize().into_bytes())
}

#[inline]
fn padded(mac: &[u8]) -> [u8; LONGEST_ICV] {
    let (mut whole, len) = ([0; LONGEST_ICV], mac.len().min(LONGEST_ICV));
    whole[..len].copy_from_slice(&mac[..len]);
    whole
}

/// AES-XCBC-MAC (RFC 3566 §4): no well-kept crate has it.
pub(super) struct Xcbc {
    aes: Aes128Enc,
    whole: [u8; 16],
    part: [u8; 16],
}

impl Xcbc {
    fn new(key: &[u8]) -> Option<Xcbc> {
        let aes = Aes128Enc::new_from_slice(key).ok()?;
        let [mut k1, whole, part]: [[u8; 16]; 3] = [1, 2, 3].map(|n| {
            let mut block = [n; 16].into();
            aes.encrypt_block(&mut block);
            block.into()
        });
        let aes = Aes128Enc::new(&k1.into());
        k1.zeroize();
        Some(Xcbc { aes, whole, part })
    }

    fn mac<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> [u8; 16] {
        let (mut sum, mut used) = ([0; 16].into(), 0);
        for octet in pieces.flatten() {
            if used == 16 {
                self.aes.encrypt_block(&mut sum);
                used = 0;
            }
            sum[used] ^= octet;
            used += 1;
        }
        let last = if used == 16 {
            &self.whole
        } else {
            sum[used] ^= 0x80;
            &self.part
        };
        sum.iter_mut().zip(last).for_each(|(a, b)| *a ^= b);
        self.aes.encrypt_block(&mut sum);
        sum.into()
    }
}

impl Drop for Xcbc {
    fn drop(&mut self) {
        self.whole.zeroize();
        self.part.zeroize();
    }
}
