//! What makes an ICV where encryption does not: HMAC with SHA-1 (RFC 2404) and SHA-2 (RFC 4868), AES-XCBC (RFC 3566),
//! AES-CMAC (RFC 4494) and, for AH, AES-GMAC (RFC 4543).

use super::{super::IcvVerified, LONGEST_ICV, gmac::Gmac, verified};
use aes::{
    Aes128Enc,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use cmac::Cmac;
use hmac::Hmac;
use portcullis_sadb::Integrity;
use sha1::Sha1;
use sha2::{Sha384, Sha512, block_api::compress256};
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
fn of<'a, M: hmac::Mac + Clone>(key: &M, pieces: impl Iterator<Item = &'a [u8]>) -> [u8; LONGEST_ICV] {
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

/// HMAC-SHA2-256 (RFC 2104 §2), which most peers of AES-CBC have, around the library's compression function: what its
/// type for MACs does for each packet besides takes as long as several blocks.
pub(super) struct HmacSha256 {
    inner: [u32; 8],
    outer: [u32; 8],
}

/// FIPS 180-4 §5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

impl HmacSha256 {
    /// `None` if the key has more octets than a block.
    fn new(key: &[u8]) -> Option<HmacSha256> {
        let [inner, outer] = [0x36, 0x5c].map(|pad| {
            let (mut block, mut state) = ([pad; 64], INITIAL);
            block.iter_mut().zip(key).for_each(|(octet, key)| *octet ^= key);
            compress256(&mut state, &[block]);
            block.zeroize();
            state
        });
        (key.len() <= 64).then_some(HmacSha256 { inner, outer })
    }

    fn mac<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
        let (mut state, mut block, mut used, mut len) = (self.inner, [0; 64], 0, 64);
        for mut piece in pieces {
            len += piece.len() as u64;
            if used > 0 {
                let (octets, rest) = piece.split_at(piece.len().min(64 - used));
                block[used..used + octets.len()].copy_from_slice(octets);
                (used, piece) = (used + octets.len(), rest);
                if used < 64 {
                    continue;
                }
                compress256(&mut state, &[block]);
            }
            let (blocks, rest) = piece.as_chunks();
            compress256(&mut state, blocks);
            block[..rest.len()].copy_from_slice(rest);
            used = rest.len();
        }
        let inner = finished(state, block, used, len);
        block[..32].copy_from_slice(&inner);
        finished(self.outer, block, 32, 64 + 32)
    }
}

/// FIPS 180-4 §5.1.1, §6.2.2: the hash of `len` octets, of which the last `used` are in a block.
#[inline]
fn finished(mut state: [u32; 8], mut block: [u8; 64], used: usize, len: u64) -> [u8; 32] {
    block[used..].fill(0);
    block[used] = 0x80;
    if used >= 56 {
        compress256(&mut state, &[block]);
        block = [0; 64];
    }
    block[56..].copy_from_slice(&(8 * len).to_be_bytes());
    compress256(&mut state, &[block]);
    let mut hash = [0; 32];
    hash.as_chunks_mut().0.iter_mut().zip(state).for_each(|(octets, word)| *octets = word.to_be_bytes());
    hash
}

impl Drop for HmacSha256 {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
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
