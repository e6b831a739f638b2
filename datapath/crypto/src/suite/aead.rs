//! Encryption that makes its own ICV: AES-GCM (RFC 4106), AES-CCM (RFC 4309), ChaCha20-Poly1305 (RFC 7634), the same with
//! implicit IVs (RFC 8750), and AES-GMAC, which encrypts nothing (RFC 4543).

use super::{
    super::{Aad, Aead, AeadKey, HEAD, ICV, IcvVerified, Job, aad},
    ESP, ccm,
    cipher::{Aes, with_aes},
    gmac::Gmac,
    spi, verified,
};
use arrayvec::ArrayVec;
use portcullis_sadb::Encryption;
use ring::aead::{Aad as Associated, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

/// Expanded keys, and the lengths of what is in a packet.
pub(super) struct Combined {
    keys: Keys,
    /// Octets of the IV in the packet: 8, or none where it is the sequence number.
    iv: usize,
    icv: usize,
}

#[allow(clippy::large_enum_variant, reason = "what is used is to be where the SA is, not behind a pointer")]
enum Keys {
    Gcm(Aead, AeadKey),
    Ccm(Aes, [u8; 3]),
    ChaCha20(LessSafeKey, [u8; 4]),
    Gmac(Gmac),
}

impl Combined {
    /// `None` if it is no encryption of these, or the lengths are none of its own.
    pub(super) fn new(encryption: Encryption, key: &[u8], salt: &[u8], aead: Aead) -> Option<Combined> {
        let transform = encryption.transform();
        // As IKE has them in its registry.
        let keys = match transform.id {
            18..=20 | 30 => Keys::Gcm(aead, aead.key(key, salt.try_into().ok()?)?),
            14..=16 | 29 => Keys::Ccm(Aes::new(key)?, salt.try_into().ok()?),
            28 | 31 => {
                let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
                Keys::ChaCha20(LessSafeKey::new(key), salt.try_into().ok()?)
            }
            21 => Keys::Gmac(Gmac::new(key, salt)?),
            _ => return None,
        };
        Some(Combined { keys, iv: transform.iv, icv: transform.icv })
    }

    pub(super) fn aead(&self) -> Option<Aead> {
        match &self.keys {
            Keys::Gcm(aead, _) => Some(*aead),
            _ => None,
        }
    }

    /// Writes the IV and the ICV, and encrypts the text. Whether it could.
    pub(super) fn seal(&self, esp: &mut [u8], seq: u64, esn: bool) -> bool {
        // RFC 4106 §3.1, RFC 4309 §3.1, RFC 7634 §2: any that is never used twice. It is written if there is room.
        esp[ESP..ESP + self.iv].copy_from_slice(&seq.to_be_bytes()[..self.iv]);
        let (iv, aad) = (self.iv_of(esp, seq, esn), aad(spi(esp), seq, esn));
        if let Keys::Gcm(aead, key) = &self.keys {
            return self.with_job(key, iv, aad, esp, |job| aead.seal(&mut [job])).is_some();
        }
        let (aad, (covered, icv)) = (&aad.octets()[..], esp.split_at_mut(esp.len() - self.icv));
        let (head, text) = covered.split_at_mut(ESP + self.iv);
        match &self.keys {
            Keys::Gcm(..) => false,
            Keys::Ccm(aes, salt) => with_aes!(aes, aes => ccm::seal(aes, nonce(salt, iv), aad, text, icv)),
            Keys::ChaCha20(key, salt) => {
                let nonce = Nonce::assume_unique_for_key(nonce(salt, iv));
                let tag = key.seal_in_place_separate_tag(nonce, Associated::from(aad), text);
                tag.map(|tag| icv.copy_from_slice(tag.as_ref())).is_ok()
            }
            Keys::Gmac(gmac) => {
                icv.copy_from_slice(&gmac.icv(iv, [aad, &head[ESP..], text].into_iter()));
                true
            }
        }
    }

    /// Verifies the ICV and decrypts the text. Nothing readable is left of a text that was not readable before.
    pub(super) fn open(&self, esp: &mut [u8], seq: u64, esn: bool) -> Option<IcvVerified> {
        let (iv, aad) = (self.iv_of(esp, seq, esn), aad(spi(esp), seq, esn));
        if let Keys::Gcm(aead, key) = &self.keys {
            let mut verified = ArrayVec::<_, 1>::new();
            self.with_job(key, iv, aad, esp, |job| aead.open(&mut [job], &mut verified))?;
            return verified.pop()?;
        }
        let (aad, (head, rest)) = (&aad.octets()[..], esp.split_at_mut(ESP + self.iv));
        let text_len = rest.len() - self.icv;
        let is_right = match &self.keys {
            Keys::Gcm(..) => false,
            Keys::Ccm(aes, salt) => {
                let (text, icv) = rest.split_at_mut(text_len);
                with_aes!(aes, aes => ccm::open(aes, nonce(salt, iv), aad, text, icv))
            }
            Keys::ChaCha20(key, salt) => {
                let nonce = Nonce::assume_unique_for_key(nonce(salt, iv));
                key.open_in_place(nonce, Associated::from(aad), rest).is_ok()
            }
            // It was never encrypted, so it may stay.
            Keys::Gmac(gmac) => {
                let (text, icv) = rest.split_at(text_len);
                return verified(icv, &gmac.icv(iv, [aad, &head[ESP..], text].into_iter()));
            }
        };
        if !is_right {
            rest.fill(0);
        }
        is_right.then_some(IcvVerified(()))
    }

    /// The packet's IV. An implicit one is the sequence number, of as many bits as are counted (RFC 8750 §4).
    fn iv_of(&self, esp: &[u8], seq: u64, esn: bool) -> [u8; 8] {
        match (self.iv, esn) {
            (0, true) => seq.to_be_bytes(),
            (0, false) => u64::from(seq as u32).to_be_bytes(),
            _ => esp[ESP..].first_chunk().copied().unwrap_or_default(),
        }
    }

    /// A batch of one packet. `None` if it is no packet.
    fn with_job(
        &self,
        key: &AeadKey,
        iv: [u8; 8],
        aad: Aad,
        esp: &mut [u8],
        work: impl FnOnce(Job<'_>),
    ) -> Option<()> {
        // What a job begins and ends with is longer than what this packet does, but for the form that is most common.
        if (self.iv, self.icv) == (HEAD - ESP, ICV) {
            work(Job::new(key, iv, aad, ICV as u8, esp)?);
        } else {
            let (mut before, mut behind) = ([0; HEAD], [0; ICV]);
            let (before, behind) = (&mut before[ESP + self.iv..], &mut behind[self.icv..]);
            work(Job::scattered(key, iv, aad, self.icv as u8, &mut [before, esp, behind])?);
        }
        Some(())
    }
}

impl Drop for Combined {
    fn drop(&mut self) {
        match &mut self.keys {
            Keys::Ccm(_, salt) => salt.zeroize(),
            Keys::ChaCha20(_, salt) => salt.zeroize(),
            Keys::Gcm(..) | Keys::Gmac(_) => {}
        }
    }
}

/// RFC 4106 §4, RFC 4309 §4, RFC 7634 §2.
#[inline]
fn nonce<const SALT: usize, const NONCE: usize>(salt: &[u8; SALT], iv: [u8; 8]) -> [u8; NONCE] {
    const { assert!(SALT + 8 == NONCE) };
    let mut nonce = [0; NONCE];
    nonce[..SALT].copy_from_slice(salt);
    nonce[SALT..].copy_from_slice(&iv);
    nonce
}
