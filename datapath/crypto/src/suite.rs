//! What seals and opens the packets of one SA, whatever its algorithm: one packet at a time, in one piece.
//!
//! AES-GCM with an ICV of 16 octets has a path of its own, in batches ([`Aead`]). All that RFC 8221 has besides comes
//! here. A [`Suite`] is matched once per packet; nothing is allocated.
//!
//! ```text
//!  ESP   SPI, sequence number | IV | text | ICV          AH   any pieces | IV, ICV
//! ```
//!
//! # Dangers
//! - With all but AES-CBC, an IV used twice with one key gives away the XOR of two texts, and of AES-GCM and GMAC the
//!   authentication key. IVs are the sequence number, which is never used twice, so that no randomness is needed (RFC
//!   4106 §3.1, RFC 8750 §4); of AES-CBC see [`cbc`].
//! - Ciphers without integrity of their own are only reached when the ICV was right: it is verified first (RFC 4303
//!   §3.4.4.1), in constant time, and what does not verify is never decrypted. Those with their own leave zeros then, and
//!   so does AES-CBC with HMAC-SHA2-256, which are one pass.

mod aead;
mod cbc;
mod ccm;
mod cipher;
mod gmac;
mod hmac;
mod integrity;
mod older;

use super::{Aead, IcvVerified};
use aead::Combined;
use cipher::Cipher;
use integrity::Mac;
use portcullis_sadb::{Algorithm, Encryption, Protocol};

/// Octets of SPI and sequence number.
const ESP: usize = 8;

/// Octets of the longest ICV.
const LONGEST_ICV: usize = 32;

/// An algorithm with an SA's expanded keys. They are wiped when it is dropped, but for those of ChaCha20-Poly1305,
/// whose library does not.
pub struct Suite {
    algorithm: Algorithm,
    keys: Keys,
}

#[allow(clippy::large_enum_variant, reason = "what is used is to be where the SA is, not behind a pointer")]
enum Keys {
    /// Encryption that makes the ICV, too.
    Combined(Combined),
    /// Encryption, and a MAC over what it makes (RFC 4303 §3.3.2.1). AH has NULL here.
    Separate(Cipher, Mac),
}

impl Suite {
    /// Expands an SA's key material: cipher key, integrity key, salt. `None` if its length is wrong. AES-GCM is done by
    /// `aead`.
    pub fn new(algorithm: Algorithm, material: &[u8], aead: Aead) -> Option<Suite> {
        if material.len() != algorithm.key_len() + algorithm.salt_len() {
            return None;
        }
        let (keys, salt) = material.split_at_checked(algorithm.key_len())?;
        let (key, mac_key) = keys.split_at_checked(algorithm.cipher_key_len())?;
        let keys = match Combined::new(algorithm.encryption(), key, salt, aead) {
            Some(combined) => Keys::Combined(combined),
            None => {
                let mac = Mac::new(algorithm.integrity(), mac_key, salt)?;
                Keys::Separate(Cipher::new(algorithm.encryption(), key, salt)?, mac)
            }
        };
        Some(Suite { algorithm, keys })
    }

    /// What does AES-GCM, if it is that.
    pub fn aead(&self) -> Option<Aead> {
        match &self.keys {
            Keys::Combined(combined) => combined.aead(),
            Keys::Separate(..) => None,
        }
    }

    /// What it is.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Writes the IV, encrypts the text in place and writes the ICV. `esp` begins with the SPI and the low half of
    /// `seq`, and has room for the IV, the text with its padding and trailer, and room for the ICV.
    ///
    /// A number never twice with one key. What is no packet of this algorithm is left with nothing readable in it: too
    /// short or long, or with a text that is not whole blocks.
    pub fn seal(&self, esp: &mut [u8], seq: u64, esn: bool) {
        let is_sealed = self.is_packet(esp) && {
            match &self.keys {
                Keys::Combined(keys) => keys.seal(esp, seq, esn),
                Keys::Separate(cipher, mac) => {
                    let (covered, icv) = esp.split_at_mut(esp.len() - self.algorithm.icv_len());
                    let high = high_half(seq, esn);
                    if let (Cipher::Cbc(cbc), Mac::HmacSha256(mac)) = (cipher, mac) {
                        cbc.seal(mac, covered, seq, high.as_slice().as_flattened(), icv);
                    } else {
                        cipher.encrypt(covered, seq);
                        mac.write(&[covered], high, seq.to_be_bytes(), icv);
                    }
                    true
                }
            }
        };
        if !is_sealed {
            esp.fill(0);
        }
    }

    /// Verifies the ICV and decrypts the text in place; `esp` is as [`Suite::seal`] leaves it, `seq` all of the number
    /// that it was sealed with. What does not verify is not left readable, where it was not readable on the wire.
    #[must_use = "what does not verify is to be dropped"]
    pub fn open(&self, esp: &mut [u8], seq: u64, esn: bool) -> Option<IcvVerified> {
        if !self.is_packet(esp) {
            return None;
        }
        match &self.keys {
            Keys::Combined(keys) => keys.open(esp, seq, esn),
            Keys::Separate(cipher, mac) => {
                let (covered, icv) = esp.split_at_mut(esp.len() - self.algorithm.icv_len());
                let high = high_half(seq, esn);
                if let (Cipher::Cbc(cbc), Mac::HmacSha256(mac)) = (cipher, mac) {
                    return cbc.open(mac, covered, high.as_slice().as_flattened(), icv);
                }
                let proof = mac.verify(&[covered], high, seq.to_be_bytes(), icv)?;
                cipher.decrypt(covered, proof);
                Some(proof)
            }
        }
    }

    /// The ICV of a packet with AH, in pieces of any lengths: as it is sent, but with zeros in mutable fields and in the
    /// ICV field (RFC 4302 §3.3.3). `out` has the length of the ICV.
    ///
    /// GMAC has an IV in front of the ICV in that field, zeros here as well, since the nonce has it (RFC 4543 §4): the
    /// eight octets of `seq` if a packet is sealed. Others have none.
    ///
    /// Whether there is such an ICV; there is none of an algorithm for ESP. Nothing else must be sent.
    #[must_use = "without an ICV nothing must leave"]
    pub fn ah_icv(&self, packet: &[&[u8]], seq: u64, esn: bool, iv: Option<[u8; 8]>, out: &mut [u8]) -> bool {
        let mac = self.ah(iv, out.len());
        mac.map(|mac| mac.write(packet, high_half(seq, esn), iv.unwrap_or_default(), out)).is_some()
    }

    /// Verifies the ICV of a packet with AH; all as [`Suite::ah_icv`] takes it.
    #[must_use = "what does not verify is to be dropped"]
    pub fn ah_verify(
        &self,
        packet: &[&[u8]],
        seq: u64,
        esn: bool,
        iv: Option<[u8; 8]>,
        icv: &[u8],
    ) -> Option<IcvVerified> {
        let mac = self.ah(iv, icv.len())?;
        mac.verify(packet, high_half(seq, esn), iv.unwrap_or_default(), icv)
    }

    fn ah(&self, iv: Option<[u8; 8]>, icv: usize) -> Option<&Mac> {
        let algorithm = self.algorithm;
        let fits = icv == algorithm.icv_len() && iv.is_some() == (algorithm.iv_len() > 0);
        match &self.keys {
            Keys::Separate(_, mac) if fits && algorithm.is_for(Protocol::Ah) => Some(mac),
            _ => None,
        }
    }

    /// Whether it is for ESP, and this has the parts of a packet.
    #[inline]
    fn is_packet(&self, esp: &[u8]) -> bool {
        let algorithm = self.algorithm;
        let text = esp.len().checked_sub(ESP + algorithm.iv_len() + algorithm.icv_len());
        algorithm.encryption() != Encryption::None
            && text.is_some_and(|text| {
                text <= u16::MAX as usize && (algorithm.block() < 8 || text.is_multiple_of(algorithm.block()))
            })
    }
}

/// What an ICV covers behind all that is sent: the sequence number's high half, with ESN (RFC 4303 §2.2.1, RFC 4302
/// §3.3.3.2.2).
#[inline]
fn high_half(seq: u64, esn: bool) -> Option<[u8; 4]> {
    esn.then_some(((seq >> 32) as u32).to_be_bytes())
}

/// SPI of a packet.
#[inline]
fn spi(esp: &[u8]) -> u32 {
    esp.first_chunk().copied().map_or(0, u32::from_be_bytes)
}

/// Whether two ICVs are the same, in a time that depends on their lengths alone.
#[inline]
fn verified(icv: &[u8], expected: &[u8]) -> Option<IcvVerified> {
    let ((words, rest), expected_words) = (icv.as_chunks::<4>(), expected.as_chunks::<4>().0);
    let differ = |a: &[u8; 4], b: &[u8; 4]| u32::from_ne_bytes(*a) ^ u32::from_ne_bytes(*b);
    let differ = words.iter().zip(expected_words).fold(0, |all, (a, b)| all | differ(a, b));
    // RFC 4303 §2.8: whole words.
    let is_icv = icv.len() == expected.len() && rest.is_empty() && !icv.is_empty();
    let mut good = [std::hint::black_box(differ) == 0 && is_icv];
    super::declassify(&mut good);
    good[0].then_some(IcvVerified(()))
}

#[cfg(test)]
mod tests;
