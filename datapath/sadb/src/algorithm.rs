//! The algorithms of SAs: one table of encryption transforms, one of integrity transforms, and which of them go
//! together (RFC 8221).
//!
//! What the datapath installs and what IKE proposes is read from the same rows: transform IDs and key lengths are
//! those of IKEv2 (RFC 7296 §3.3.2, §3.3.5).
//!
//! Key material of an SA is the cipher key, then the integrity key, then the salt, as long as the rows say. RFC 3686
//! calls the salt of AES-CTR a nonce, and IKE's KEYMAT has it in front of the integrity key (RFC 3686 §5.1, RFC 7296
//! §2.17): whoever takes keys from there puts them in order.

use crate::{Protocol, SadbError};

/// A transform, in octets where it is not said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transform {
    /// Its name in configurations and reports.
    pub name: &'static str,
    /// Its ID in IKEv2: of type 1 for encryption, of type 3 for integrity.
    pub id: u16,
    /// The attribute Key Length that goes with the ID, in bits; `None` where the ID says it already.
    pub key_bits: Option<u16>,
    /// The key.
    pub key: usize,
    /// What is secret of the nonce, behind the keys.
    pub salt: usize,
    /// The IV in each packet.
    pub iv: usize,
    /// What is encrypted ends on a multiple of this (RFC 4303 §2.4).
    pub block: usize,
    /// The ICV; 0 where another transform makes it.
    pub icv: usize,
}

/// What needs no more than four octets.
const ALIGNED: usize = 4;

const NONE: Transform =
    Transform { name: "", id: 0, key_bits: None, key: 0, salt: 0, iv: 0, block: ALIGNED, icv: 0 };

impl Transform {
    /// Of AES: the key is told by an attribute.
    const fn aes(name: &'static str, id: u16, key: usize) -> Transform {
        Transform { name, id, key, key_bits: Some(8 * key as u16), ..NONE }
    }

    /// RFC 4106 §3.1, §4, §6, §8.1; RFC 4543 §3.
    const fn gcm(name: &'static str, id: u16, key: usize, icv: usize) -> Transform {
        Transform { salt: 4, iv: 8, icv, ..Transform::aes(name, id, key) }
    }

    /// RFC 4309 §3.1, §4, §6, §7.1.
    const fn ccm(name: &'static str, id: u16, key: usize, icv: usize) -> Transform {
        Transform { salt: 3, iv: 8, icv, ..Transform::aes(name, id, key) }
    }

    /// RFC 3602 §2.4, §3.
    const fn cbc(name: &'static str, key: usize) -> Transform {
        Transform { iv: 16, block: 16, ..Transform::aes(name, 12, key) }
    }

    /// RFC 4312 §2.1, §3.
    const fn camellia(name: &'static str, key: usize) -> Transform {
        Transform { iv: 16, block: 16, ..Transform::aes(name, 23, key) }
    }

    /// RFC 3686 §3.1, §4, §5.1.
    const fn ctr(name: &'static str, key: usize) -> Transform {
        Transform { salt: 4, iv: 8, ..Transform::aes(name, 13, key) }
    }

    /// RFC 7634 §2.
    const fn chacha20(name: &'static str, id: u16) -> Transform {
        Transform { name, id, key: 32, salt: 4, iv: 8, icv: 16, ..NONE }
    }

    /// RFC 8750 §4: the same without an IV in the packet.
    const fn implicit_iv(self) -> Transform {
        Transform { iv: 0, ..self }
    }

    const fn mac(name: &'static str, id: u16, key: usize, icv: usize) -> Transform {
        Transform { name, id, key, icv, ..NONE }
    }

    /// RFC 4543 §4: the IV is in front of the ICV.
    const fn gmac(name: &'static str, id: u16, key: usize) -> Transform {
        Transform { salt: 4, iv: 8, ..Transform::mac(name, id, key, 16) }
    }
}

/// An enumeration and the table behind it, whose rows are in the order of the codes.
macro_rules! transforms {
    ($(#[doc = $doc:literal])+ $name:ident { $($variant:ident = $code:literal: $row:expr,)+ }) => {
        $(#[doc = $doc])+
        ///
        /// Its codes are those in SAs' words; they do not change.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "their rows tell")]
        pub enum $name { $($variant = $code,)+ }

        impl $name {
            /// All of them, in the order of their codes.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            const ROWS: [Transform; $name::ALL.len()] = [$($row,)+];

            /// Its row.
            pub const fn transform(self) -> &'static Transform {
                &$name::ROWS[self as usize]
            }
        }

        const _: () = {
            let mut i = 0;
            while i < $name::ALL.len() {
                assert!($name::ALL[i] as usize == i);
                i += 1;
            }
        };

        impl TryFrom<u8> for $name {
            type Error = SadbError;

            fn try_from(code: u8) -> Result<$name, SadbError> {
                let known = $name::ALL.get(code as usize).copied();
                known.ok_or(SadbError::Invalid { field: stringify!($name), value: code as u64 })
            }
        }
    };
}

transforms! {
    /// How packets of an SA are encrypted.
    Encryption {
        None = 0: NONE, // AH
        AesGcm128 = 1: Transform::gcm("aes-gcm-128", 20, 16, 16),
        AesGcm256 = 2: Transform::gcm("aes-gcm-256", 20, 32, 16),
        AesGcm192 = 3: Transform::gcm("aes-gcm-192", 20, 24, 16),
        AesGcm128Icv12 = 4: Transform::gcm("aes-gcm-128-icv12", 19, 16, 12),
        AesGcm192Icv12 = 5: Transform::gcm("aes-gcm-192-icv12", 19, 24, 12),
        AesGcm256Icv12 = 6: Transform::gcm("aes-gcm-256-icv12", 19, 32, 12),
        AesGcm128Icv8 = 7: Transform::gcm("aes-gcm-128-icv8", 18, 16, 8),
        AesGcm192Icv8 = 8: Transform::gcm("aes-gcm-192-icv8", 18, 24, 8),
        AesGcm256Icv8 = 9: Transform::gcm("aes-gcm-256-icv8", 18, 32, 8),
        AesCcm128 = 10: Transform::ccm("aes-ccm-128", 16, 16, 16),
        AesCcm192 = 11: Transform::ccm("aes-ccm-192", 16, 24, 16),
        AesCcm256 = 12: Transform::ccm("aes-ccm-256", 16, 32, 16),
        AesCcm128Icv12 = 13: Transform::ccm("aes-ccm-128-icv12", 15, 16, 12),
        AesCcm192Icv12 = 14: Transform::ccm("aes-ccm-192-icv12", 15, 24, 12),
        AesCcm256Icv12 = 15: Transform::ccm("aes-ccm-256-icv12", 15, 32, 12),
        AesCcm128Icv8 = 16: Transform::ccm("aes-ccm-128-icv8", 14, 16, 8),
        AesCcm192Icv8 = 17: Transform::ccm("aes-ccm-192-icv8", 14, 24, 8),
        AesCcm256Icv8 = 18: Transform::ccm("aes-ccm-256-icv8", 14, 32, 8),
        ChaCha20Poly1305 = 19: Transform::chacha20("chacha20-poly1305", 28),
        AesGcm128Iiv = 20: Transform::gcm("aes-gcm-128-iiv", 30, 16, 16).implicit_iv(),
        AesGcm192Iiv = 21: Transform::gcm("aes-gcm-192-iiv", 30, 24, 16).implicit_iv(),
        AesGcm256Iiv = 22: Transform::gcm("aes-gcm-256-iiv", 30, 32, 16).implicit_iv(),
        AesCcm128Icv8Iiv = 23: Transform::ccm("aes-ccm-128-icv8-iiv", 29, 16, 8).implicit_iv(),
        AesCcm192Icv8Iiv = 24: Transform::ccm("aes-ccm-192-icv8-iiv", 29, 24, 8).implicit_iv(),
        AesCcm256Icv8Iiv = 25: Transform::ccm("aes-ccm-256-icv8-iiv", 29, 32, 8).implicit_iv(),
        ChaCha20Poly1305Iiv = 26: Transform::chacha20("chacha20-poly1305-iiv", 31).implicit_iv(),
        AesCbc128 = 27: Transform::cbc("aes-cbc-128", 16),
        AesCbc192 = 28: Transform::cbc("aes-cbc-192", 24),
        AesCbc256 = 29: Transform::cbc("aes-cbc-256", 32),
        AesCtr128 = 30: Transform::ctr("aes-ctr-128", 16),
        AesCtr192 = 31: Transform::ctr("aes-ctr-192", 24),
        AesCtr256 = 32: Transform::ctr("aes-ctr-256", 32),
        Null = 33: Transform { name: "null", id: 11, ..NONE },
        AesGmac128 = 34: Transform::gcm("aes-gmac-128", 21, 16, 16), // ENCR_NULL_AUTH_AES_GMAC
        AesGmac192 = 35: Transform::gcm("aes-gmac-192", 21, 24, 16),
        AesGmac256 = 36: Transform::gcm("aes-gmac-256", 21, 32, 16),
        TripleDesCbc = 37: Transform { name: "3des-cbc", id: 3, key: 24, iv: 8, block: 8, ..NONE }, // RFC 2451
        CamelliaCbc128 = 38: Transform::camellia("camellia-cbc-128", 16),
        CamelliaCbc192 = 39: Transform::camellia("camellia-cbc-192", 24),
        CamelliaCbc256 = 40: Transform::camellia("camellia-cbc-256", 32),
    }
}

transforms! {
    /// What makes the ICV where encryption does not.
    Integrity {
        None = 0: NONE,
        HmacSha1 = 1: Transform::mac("hmac-sha1-96", 2, 20, 12), // RFC 2404
        HmacSha256 = 2: Transform::mac("hmac-sha2-256-128", 12, 32, 16), // RFC 4868
        HmacSha384 = 3: Transform::mac("hmac-sha2-384-192", 13, 48, 24),
        HmacSha512 = 4: Transform::mac("hmac-sha2-512-256", 14, 64, 32),
        AesXcbc = 5: Transform::mac("aes-xcbc-96", 5, 16, 12), // RFC 3566
        AesCmac = 6: Transform::mac("aes-cmac-96", 8, 16, 12), // RFC 4494
        AesGmac128 = 7: Transform::gmac("aes-gmac-128", 9, 16),
        AesGmac192 = 8: Transform::gmac("aes-gmac-192", 10, 24),
        AesGmac256 = 9: Transform::gmac("aes-gmac-256", 11, 32),
    }
}

/// The transforms of an SA, which go together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Algorithm {
    encryption: Encryption,
    integrity: Integrity,
}

impl Algorithm {
    /// AES-GCM with a 128-bit key and a 16-octet ICV (RFC 4106).
    pub const AES_GCM_128: Algorithm =
        Algorithm { encryption: Encryption::AesGcm128, integrity: Integrity::None };
    /// AES-GCM with a 256-bit key and a 16-octet ICV (RFC 4106).
    pub const AES_GCM_256: Algorithm =
        Algorithm { encryption: Encryption::AesGcm256, integrity: Integrity::None };

    /// The two together, if they are the algorithm of an SA: for ESP an AEAD alone, or a cipher and a MAC; for AH a MAC
    /// alone. ESP without integrity is none (RFC 8221 §5), nor is it of GMAC as a MAC (RFC 4543 §5).
    pub const fn new(encryption: Encryption, integrity: Integrity) -> Option<Algorithm> {
        let (e, i) = (encryption.transform(), integrity.transform());
        let is_aead = e.icv > 0;
        let is_one = match (encryption, integrity) {
            (Encryption::None, _) => i.icv > 0,
            (_, Integrity::None) => is_aead,
            _ => !is_aead && i.iv == 0,
        };
        if is_one { Some(Algorithm { encryption, integrity }) } else { None }
    }

    /// All of them, of ESP and of AH.
    pub fn all() -> impl Iterator<Item = Algorithm> {
        let pairs = Encryption::ALL.iter().flat_map(|e| Integrity::ALL.iter().map(move |i| (*e, *i)));
        pairs.filter_map(|(encryption, integrity)| Algorithm::new(encryption, integrity))
    }

    /// All of a protocol.
    pub fn all_for(protocol: Protocol) -> impl Iterator<Item = Algorithm> {
        Algorithm::all().filter(move |algorithm| algorithm.is_for(protocol))
    }

    /// Whether it is an algorithm of this protocol.
    pub const fn is_for(self, protocol: Protocol) -> bool {
        matches!((self.encryption, protocol), (Encryption::None, Protocol::Ah))
            || !matches!((self.encryption, protocol), (Encryption::None, _) | (_, Protocol::Ah))
    }

    /// How it encrypts.
    pub const fn encryption(self) -> Encryption {
        self.encryption
    }

    /// What makes its ICV, if encryption does not.
    pub const fn integrity(self) -> Integrity {
        self.integrity
    }

    /// Its name in configurations and reports: the transforms', with a `+` between. No two of a protocol have the same.
    pub const fn name(self) -> &'static str {
        NAMES[self.encryption as usize][self.integrity as usize].as_str()
    }

    /// The protocol's algorithm of that name.
    pub fn by_name(protocol: Protocol, name: &str) -> Option<Algorithm> {
        Algorithm::all_for(protocol).find(|a| a.name() == name)
    }

    /// Octets of the keys, without the salt.
    pub const fn key_len(self) -> usize {
        self.cipher_key_len() + self.integrity.transform().key
    }

    /// Octets of the cipher key, which comes first.
    pub const fn cipher_key_len(self) -> usize {
        self.encryption.transform().key
    }

    /// Octets of the first key: the cipher's, or the MAC's where there is no cipher. No two SAs may have the same.
    pub const fn first_key_len(self) -> usize {
        match self.cipher_key_len() {
            0 => self.integrity.transform().key,
            len => len,
        }
    }

    /// Octets of salt behind the keys (RFC 4106 §8.1).
    pub const fn salt_len(self) -> usize {
        self.encryption.transform().salt + self.integrity.transform().salt
    }

    /// Octets of the IV in each packet.
    pub const fn iv_len(self) -> usize {
        self.encryption.transform().iv + self.integrity.transform().iv
    }

    /// What is encrypted ends on a multiple of so many octets (RFC 4303 §2.4).
    pub const fn block(self) -> usize {
        self.encryption.transform().block
    }

    /// Octets of the ICV.
    pub const fn icv_len(self) -> usize {
        self.encryption.transform().icv + self.integrity.transform().icv
    }

    /// As it is in an SA's words.
    pub(crate) const fn code(self) -> u16 {
        self.encryption as u16 | (self.integrity as u16) << 8
    }
}

impl TryFrom<u16> for Algorithm {
    type Error = SadbError;

    fn try_from(code: u16) -> Result<Algorithm, SadbError> {
        let [encryption, integrity] = code.to_le_bytes();
        let known = Algorithm::new(encryption.try_into()?, integrity.try_into()?);
        known.ok_or(SadbError::Invalid { field: "Algorithm", value: code as u64 })
    }
}

/// A name of two transforms, put together by the compiler.
#[derive(Clone, Copy)]
struct Label {
    octets: [u8; 40],
    len: usize,
}

impl Label {
    const fn and(mut self, text: &str) -> Label {
        let mut i = 0;
        while i < text.len() {
            self.octets[self.len] = text.as_bytes()[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    const fn as_str(&self) -> &str {
        match str::from_utf8(self.octets.split_at(self.len).0) {
            Ok(name) => name,
            Err(_) => panic!("made of whole names"),
        }
    }
}

static NAMES: [[Label; Integrity::ALL.len()]; Encryption::ALL.len()] = {
    let mut names = [[Label { octets: [0; 40], len: 0 }; Integrity::ALL.len()]; Encryption::ALL.len()];
    let mut e = 0;
    while e < names.len() {
        let mut i = 0;
        while i < names[e].len() {
            if let Some(algorithm) = Algorithm::new(Encryption::ALL[e], Integrity::ALL[i]) {
                let (encryption, integrity) =
                    (algorithm.encryption.transform(), algorithm.integrity.transform());
                let between = if encryption.name.is_empty() || integrity.name.is_empty() { "" } else { "+" };
                names[e][i] = names[e][i].and(encryption.name).and(between).and(integrity.name);
            }
            i += 1;
        }
        e += 1;
    }
    names
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sa::KEY_ROOM;
    use std::collections::HashSet;

    #[test]
    fn names_and_codes_lead_back() {
        for algorithm in Algorithm::all() {
            let protocol = if algorithm.is_for(Protocol::Esp) { Protocol::Esp } else { Protocol::Ah };
            assert_ne!(algorithm.is_for(Protocol::Esp), algorithm.is_for(Protocol::Ah));
            assert_eq!(Algorithm::by_name(protocol, algorithm.name()), Some(algorithm));
            assert_eq!(Algorithm::try_from(algorithm.code()).ok(), Some(algorithm));
            assert!(algorithm.key_len() + algorithm.salt_len() <= KEY_ROOM, "{}", algorithm.name());
            assert!(algorithm.icv_len() > 0, "{}", algorithm.name());
        }
        let known = (0..=u16::MAX).filter(|code| Algorithm::try_from(*code).is_ok());
        // AEADs; three ciphers of three lengths, 3DES and NULL with six MACs each; AH's MACs.
        let esp = 26 + 3 + (3 * 3 + 2) * 6;
        assert_eq!((known.count(), Algorithm::all_for(Protocol::Esp).count()), (esp + 9, esp));
        assert_eq!(Algorithm::try_from(0).ok(), None);
        // RFC 8221 §5: there is no ESP without integrity.
        assert_eq!(Algorithm::new(Encryption::Null, Integrity::None), None);
        assert_eq!(Algorithm::new(Encryption::AesCbc128, Integrity::None), None);
        assert_eq!(Algorithm::new(Encryption::None, Integrity::None), None);
        // What slots and configurations of earlier versions have.
        assert_eq!((Algorithm::AES_GCM_128.code(), Algorithm::AES_GCM_128.name()), (1, "aes-gcm-128"));
        assert_eq!((Algorithm::AES_GCM_256.code(), Algorithm::AES_GCM_256.name()), (2, "aes-gcm-256"));
    }

    /// What IKE proposes says which algorithm is meant.
    #[test]
    fn no_two_are_proposed_alike() {
        let proposal = |a: Algorithm| {
            let (e, i) = (a.encryption.transform(), a.integrity.transform());
            (a.is_for(Protocol::Ah), e.id, e.key_bits, i.id, i.key_bits)
        };
        let proposals: HashSet<_> = Algorithm::all().map(proposal).collect();
        assert_eq!(proposals.len(), Algorithm::all().count());
    }
}
