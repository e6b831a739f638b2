//! The transforms of an IKE SA: their numbers at IANA, their names in proposals, and their lengths.
//!
//! Names are those that strongSwan's configurations have. Lengths of what ESP has as well are read from its table.

use crate::kept::{Damaged, Keep, Reader, Writer};
use portcullis_sadb as sadb;

/// An enumeration, with each transform's number and names; the first name is the one that is printed.
macro_rules! transforms {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $of:literal])* $variant:ident = $id:expr => $names:expr,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[allow(missing_docs, reason = "their names tell")]
        pub enum $name { $($(#[doc = $of])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// Its number, of its type of transform.
            pub const fn id(self) -> u16 {
                match self { $($name::$variant => $id,)+ }
            }

            /// All of its names.
            pub(crate) const fn names(self) -> &'static [&'static str] {
                match self { $($name::$variant => &$names,)+ }
            }

            /// Its name in proposals.
            pub const fn name(self) -> &'static str {
                self.names()[0]
            }

            /// That of a name.
            pub fn named(name: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|t| t.names().contains(&name))
            }
        }
    };
}

/// The same, of transforms that the SADB has by the same names: its rows have their numbers and lengths.
macro_rules! rows {
    ($(#[doc = $doc:literal])+ $name:ident { $($variant:ident => $names:expr,)+ }) => {
        transforms! {
            $(#[doc = $doc])+
            $name { $($variant = sadb::$name::$variant.transform().id => $names,)+ }
        }

        impl $name {
            const fn row(self) -> &'static sadb::Transform {
                match self { $($name::$variant => sadb::$name::$variant.transform(),)+ }
            }
        }
    };
}

/// Where the number says all.
macro_rules! by_id {
    ($($name:ident)+) => {
        $(impl $name {
            /// That of a number.
            pub fn from_id(id: u16) -> Option<$name> {
                Self::ALL.iter().copied().find(|t| t.id() == id)
            }
        }

        impl Keep for $name {
            fn keep(&self, to: &mut Writer) {
                self.id().keep(to);
            }

            fn kept(from: &mut Reader<'_>) -> Result<$name, Damaged> {
                $name::from_id(u16::kept(from)?).ok_or(Damaged(stringify!($name)))
            }
        })+
    };
}

by_id! { Prf Integrity KeyExchange }

rows! {
    /// Transform type 1: how messages are encrypted (RFC 7296 §3.3.2, RFC 5282, RFC 7634).
    Encryption {
        AesCbc128 => ["aes128", "aes"],
        AesCbc192 => ["aes192"],
        AesCbc256 => ["aes256"],
        AesGcm128Icv8 => ["aes128gcm8", "aes128gcm64"],
        AesGcm192Icv8 => ["aes192gcm8", "aes192gcm64"],
        AesGcm256Icv8 => ["aes256gcm8", "aes256gcm64"],
        AesGcm128Icv12 => ["aes128gcm12", "aes128gcm96"],
        AesGcm192Icv12 => ["aes192gcm12", "aes192gcm96"],
        AesGcm256Icv12 => ["aes256gcm12", "aes256gcm96"],
        AesGcm128 => ["aes128gcm16", "aes128gcm128", "aes128gcm"],
        AesGcm192 => ["aes192gcm16", "aes192gcm128", "aes192gcm"],
        AesGcm256 => ["aes256gcm16", "aes256gcm128", "aes256gcm"],
        ChaCha20Poly1305 => ["chacha20poly1305"],
        TripleDesCbc => ["3des"],
    }
}

transforms! {
    /// Transform type 2: the pseudorandom function that keys are made with (RFC 7296 §3.3.2, RFC 4868 §2.4).
    Prf {
        HmacSha1 = 2 => ["prfsha1"],
        HmacSha256 = 5 => ["prfsha256"],
        HmacSha384 = 6 => ["prfsha384"],
        HmacSha512 = 7 => ["prfsha512"],
    }
}

rows! {
    /// Transform type 3: the MAC over messages whose encryption has none of its own (RFC 7296 §3.3.2, RFC 4868).
    Integrity {
        HmacSha1 => ["sha1", "sha"],
        HmacSha256 => ["sha256", "sha2_256"],
        HmacSha384 => ["sha384", "sha2_384"],
        HmacSha512 => ["sha512", "sha2_512"],
    }
}

transforms! {
    /// Transform type 4, and types 6 to 12 (RFC 9370 §2.1): how a secret comes to be shared.
    KeyExchange {
        /// RFC 3526 §3.
        Modp2048 = 14 => ["modp2048"],
        /// RFC 3526 §4.
        Modp3072 = 15 => ["modp3072"],
        /// RFC 3526 §5.
        Modp4096 = 16 => ["modp4096"],
        /// P-256 (RFC 5903).
        Ecp256 = 19 => ["ecp256"],
        /// P-384 (RFC 5903).
        Ecp384 = 20 => ["ecp384"],
        /// P-521 (RFC 5903).
        Ecp521 = 21 => ["ecp521"],
        /// RFC 8031.
        X25519 = 31 => ["x25519", "curve25519"],
        /// RFC 8031.
        X448 = 32 => ["x448", "curve448"],
        /// FIPS 203; one of a hybrid, since its public value may be longer than a packet.
        MlKem512 = 35 => ["mlkem512"],
        /// FIPS 203.
        MlKem768 = 36 => ["mlkem768"],
        /// FIPS 203.
        MlKem1024 = 37 => ["mlkem1024"],
    }
}

impl Encryption {
    /// That of a number and the attribute Key Length, in bits; `None` where that is missing but needed, or there but of
    /// no use: both must not be (RFC 7296 §3.3.5). Some peers send 256 with ChaCha20-Poly1305; that is refused on
    /// purpose, so that both ends have the same proposal.
    pub fn from_id(id: u16, key_bits: Option<u16>) -> Option<Encryption> {
        Self::ALL.iter().copied().find(|e| e.id() == id && e.key_bits() == key_bits)
    }

    /// The attribute Key Length, in bits, where proposals have one.
    pub const fn key_bits(self) -> Option<u16> {
        self.row().key_bits
    }

    /// Octets of SK_ei and of SK_er: the key, and the salt behind it (RFC 5282 §7.1, RFC 7634 §2).
    pub const fn key_len(self) -> usize {
        self.row().key + self.row().salt
    }

    /// Octets of the salt.
    pub const fn salt_len(self) -> usize {
        self.row().salt
    }

    /// Octets of the IV in a message.
    pub const fn iv_len(self) -> usize {
        self.row().iv
    }

    /// What is encrypted is a multiple of this. RFC 5282 §3 needs no alignment.
    pub const fn block_len(self) -> usize {
        match self {
            Encryption::AesCbc128
            | Encryption::AesCbc192
            | Encryption::AesCbc256
            | Encryption::TripleDesCbc => self.row().block,
            _ => 1,
        }
    }

    /// Octets of the ICV that it makes itself; 0 where an integrity transform makes it.
    pub const fn icv_len(self) -> usize {
        self.row().icv
    }

    /// Whether there must be no integrity transform with it (RFC 5282 §8).
    pub const fn is_aead(self) -> bool {
        self.icv_len() != 0
    }
}

impl Prf {
    /// Octets of its output, and of the keys that are made for it (RFC 7296 §2.13).
    pub const fn output_len(self) -> usize {
        match self {
            Prf::HmacSha1 => 20,
            Prf::HmacSha256 => 32,
            Prf::HmacSha384 => 48,
            Prf::HmacSha512 => 64,
        }
    }
}

impl Integrity {
    /// Octets of SK_ai and of SK_ar.
    pub const fn key_len(self) -> usize {
        self.row().key
    }

    /// Octets of the ICV in a message.
    pub const fn icv_len(self) -> usize {
        self.row().icv
    }

    /// The HMAC that it cuts off (RFC 2404 §2, RFC 4868 §2.3).
    pub(crate) const fn prf(self) -> Prf {
        match self {
            Integrity::HmacSha1 => Prf::HmacSha1,
            Integrity::HmacSha256 => Prf::HmacSha256,
            Integrity::HmacSha384 => Prf::HmacSha384,
            Integrity::HmacSha512 => Prf::HmacSha512,
        }
    }
}

/// The transforms of an IKE SA that go on once the keys are made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Suite {
    encryption: Encryption,
    integrity: Option<Integrity>,
    prf: Prf,
}

impl Suite {
    /// These together: an AEAD alone, anything else with an integrity transform (RFC 5282 §8).
    pub const fn new(encryption: Encryption, integrity: Option<Integrity>, prf: Prf) -> Option<Suite> {
        if encryption.is_aead() == integrity.is_none() {
            Some(Suite { encryption, integrity, prf })
        } else {
            None
        }
    }

    /// How messages are encrypted.
    pub const fn encryption(self) -> Encryption {
        self.encryption
    }

    /// What makes the ICV, if encryption does not.
    pub const fn integrity(self) -> Option<Integrity> {
        self.integrity
    }

    /// What keys are made with.
    pub const fn prf(self) -> Prf {
        self.prf
    }

    /// Octets of SK_ai and of SK_ar; none of an AEAD (RFC 5282 §7.1).
    pub const fn integrity_key_len(self) -> usize {
        match self.integrity {
            Some(integrity) => integrity.key_len(),
            None => 0,
        }
    }
}

impl KeyExchange {
    /// Whether it is a KEM, of which the responder has public value and secret at once.
    pub const fn is_kem(self) -> bool {
        matches!(self, KeyExchange::MlKem512 | KeyExchange::MlKem768 | KeyExchange::MlKem1024)
    }

    /// Octets of what the initiator sends; of Diffie-Hellman, the responder sends as many (RFC 7296 §3.4, RFC 5903 §7,
    /// RFC 8031 §3.1, FIPS 203 §8).
    pub const fn initiator_len(self) -> usize {
        match self {
            KeyExchange::Modp2048 => 256,
            KeyExchange::Modp3072 => 384,
            KeyExchange::Modp4096 => 512,
            KeyExchange::Ecp256 => 64,
            KeyExchange::Ecp384 => 96,
            KeyExchange::Ecp521 => 132,
            KeyExchange::X25519 => 32,
            KeyExchange::X448 => 56,
            KeyExchange::MlKem512 => 800,
            KeyExchange::MlKem768 => 1184,
            KeyExchange::MlKem1024 => 1568,
        }
    }

    /// Octets of what the responder sends.
    pub const fn responder_len(self) -> usize {
        match self {
            KeyExchange::MlKem512 => 768,
            KeyExchange::MlKem768 => 1088,
            KeyExchange::MlKem1024 => 1568,
            _ => self.initiator_len(),
        }
    }
}

impl Keep for Encryption {
    fn keep(&self, to: &mut Writer) {
        (self.id(), self.key_bits()).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Encryption, Damaged> {
        let (id, key_bits) = Keep::kept(from)?;
        Encryption::from_id(id, key_bits).ok_or(Damaged("encryption"))
    }
}

impl Keep for Suite {
    fn keep(&self, to: &mut Writer) {
        let Suite { encryption, integrity, prf } = self;
        encryption.keep(to);
        integrity.keep(to);
        prf.keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Suite, Damaged> {
        Suite::new(Keep::kept(from)?, Keep::kept(from)?, Keep::kept(from)?).ok_or(Damaged("suite"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for e in Encryption::ALL.iter().copied() {
            assert_eq!(Encryption::from_id(e.id(), e.key_bits()), Some(e));
            assert_eq!(Encryption::named(e.name()), Some(e));
        }
        for p in Prf::ALL.iter().copied() {
            assert_eq!((Prf::from_id(p.id()), Prf::named(p.name())), (Some(p), Some(p)));
        }
        for i in Integrity::ALL.iter().copied() {
            assert_eq!((Integrity::from_id(i.id()), Integrity::named(i.name())), (Some(i), Some(i)));
        }
        for k in KeyExchange::ALL.iter().copied() {
            assert_eq!((KeyExchange::from_id(k.id()), KeyExchange::named(k.name())), (Some(k), Some(k)));
        }
        assert_eq!(KeyExchange::named("curve25519"), Some(KeyExchange::X25519));
        assert_eq!(Encryption::named("aes256"), Some(Encryption::AesCbc256));
    }

    // RFC 7296 §3.3.2, RFC 5282 §7.2, RFC 7634 §2, RFC 4868 §4
    #[test]
    fn numbers_are_those_of_iana() {
        let encryption: Vec<_> = Encryption::ALL.iter().map(|e| (e.id(), e.key_bits())).collect();
        let aes = |id| [128, 192, 256].map(|bits| (id, Some(bits)));
        assert_eq!(
            encryption,
            [&aes(12)[..], &aes(18), &aes(19), &aes(20), &[(28, None), (3, None)]].concat()
        );
        let integrity: Vec<_> = Integrity::ALL.iter().map(|i| i.id()).collect();
        assert_eq!(integrity, [2, 12, 13, 14]);
    }

    // RFC 7296 §3.3.5, RFC 7634 §4
    #[test]
    fn a_key_length_is_there_where_it_must_be() {
        assert_eq!(Encryption::from_id(20, None), None);
        assert_eq!(Encryption::from_id(20, Some(64)), None);
        assert_eq!(Encryption::from_id(28, None), Some(Encryption::ChaCha20Poly1305));
        assert_eq!(Encryption::from_id(28, Some(256)), None);
    }

    #[test]
    fn no_name_is_of_two() {
        let encryption = Encryption::ALL.iter().flat_map(|t| t.names());
        let prf = Prf::ALL.iter().flat_map(|t| t.names());
        let integrity = Integrity::ALL.iter().flat_map(|t| t.names());
        let exchange = KeyExchange::ALL.iter().flat_map(|t| t.names());
        let mut names: Vec<_> = encryption.chain(prf).chain(integrity).chain(exchange).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
