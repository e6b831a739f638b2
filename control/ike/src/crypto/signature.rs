//! Signatures in AUTH payloads: the digital signatures of RFC 7427 and RFC 8420, and the older methods for RSA (RFC 7296
//! §3.8) and ECDSA (RFC 4754).
//!
//! # Dangers
//! - SHA-1 is there for method 1 alone, which has no way to say which hash it is of. Nothing else signs or verifies with
//!   it (RFC 8247 §3.2).
//! - ECDSA by P-256 and P-384 is ring's where it can be, since RustCrypto's takes five times as long. It takes its
//!   randomness from the system, and does not wipe the private key.

pub mod demand;
mod ecdsa;
mod key;

pub use key::{Kind, PrivateKey, PublicKey};

use crate::message::AuthMethod;
use der::{AnyRef, Decode, asn1::ObjectIdentifier};
use pkcs8::spki::AlgorithmIdentifierRef;
use sha2::{Digest, Sha256, Sha384, Sha512};

/// What of keys and signatures cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    /// A private key in no form that is known: PKCS#8, PKCS#1 or SEC1, of RSA, ECDSA, Ed25519 or Ed448.
    #[error("not a private key that can be read")]
    PrivateKey,
    /// A private key that needs a password.
    #[error("a private key is encrypted")]
    Encrypted,
    /// A public key that is not a SubjectPublicKeyInfo of RSA, ECDSA, Ed25519 or Ed448.
    #[error("not a public key that can be read")]
    PublicKey,
    /// An RSA key with fewer than 2048 bits.
    #[error("an RSA key of {0} bits is too short")]
    Short(usize),
    /// A scheme for keys of another kind.
    #[error("a key does not sign like this")]
    Scheme,
    /// The key could not sign: it is wrong in itself.
    #[error("a key does not sign")]
    Sign,
    /// The signature is not that of the key over these octets.
    #[error("a signature does not verify")]
    Verify,
}

/// Hash functions of signatures.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "their names tell")]
pub enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// Octets of it.
    pub const fn output_len(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
            Hash::Sha512 => 64,
        }
    }

    fn digest(self, octets: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => Sha256::digest(octets).to_vec(),
            Hash::Sha384 => Sha384::digest(octets).to_vec(),
            Hash::Sha512 => Sha512::digest(octets).to_vec(),
        }
    }

    fn of_oid(oid: ObjectIdentifier) -> Option<Hash> {
        [Hash::Sha256, Hash::Sha384, Hash::Sha512].into_iter().find(|hash| hash.oid() == oid)
    }

    const fn oid(self) -> ObjectIdentifier {
        use const_oid::db::rfc5912::{ID_SHA_256, ID_SHA_384, ID_SHA_512};
        match self {
            Hash::Sha256 => ID_SHA_256,
            Hash::Sha384 => ID_SHA_384,
            Hash::Sha512 => ID_SHA_512,
        }
    }
}

/// The curves of ECDSA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "their names tell")]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// The hash that goes with the curve (RFC 4754 §3).
    pub const fn hash(self) -> Hash {
        match self {
            Curve::P256 => Hash::Sha256,
            Curve::P384 => Hash::Sha384,
            Curve::P521 => Hash::Sha512,
        }
    }
}

/// How a key signs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// RSASSA-PKCS1-v1_5 with SHA-1: method 1 only.
    RsaSha1,
    /// RSASSA-PKCS1-v1_5: method 14, and method 1.
    RsaPkcs1(Hash),
    /// RSASSA-PSS with MGF1 of the same hash, and a salt as long as the hash: method 14.
    RsaPss(Hash),
    /// ECDSA, of any curve, in DER: method 14.
    Ecdsa(Hash),
    /// ECDSA with the hash of the curve, r | s: methods 9 to 11.
    EcdsaOf(Curve),
    /// RSASSA-PKCS1-v1_5 of octets as they are, without saying which hash they are of: IKEv1 (RFC 2409 §5.1).
    RsaBare,
    /// ECDSA of octets in the place of a hash, r | s: IKEv1 (RFC 4754 §7).
    EcdsaBare(Curve),
    /// Ed25519: method 14.
    Ed25519,
    /// Ed448: method 14.
    Ed448,
}

/// The AlgorithmIdentifier's number in IANA's registry of hashes for it, and its octets.
struct Identifier(Scheme, u16, &'static [u8]);

/// RFC 7427 §A, RFC 8420 §A.
const IDENTIFIERS: [Identifier; 11] = [
    Identifier(Scheme::RsaPkcs1(Hash::Sha256), 2, &RSA_SHA256),
    Identifier(Scheme::RsaPkcs1(Hash::Sha384), 3, &RSA_SHA384),
    Identifier(Scheme::RsaPkcs1(Hash::Sha512), 4, &RSA_SHA512),
    Identifier(Scheme::RsaPss(Hash::Sha256), 2, &pss(1, 32)),
    Identifier(Scheme::RsaPss(Hash::Sha384), 3, &pss(2, 48)),
    Identifier(Scheme::RsaPss(Hash::Sha512), 4, &pss(3, 64)),
    Identifier(Scheme::Ecdsa(Hash::Sha256), 2, &ECDSA_SHA256),
    Identifier(Scheme::Ecdsa(Hash::Sha384), 3, &ECDSA_SHA384),
    Identifier(Scheme::Ecdsa(Hash::Sha512), 4, &ECDSA_SHA512),
    Identifier(Scheme::Ed25519, 5, &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70]),
    Identifier(Scheme::Ed448, 5, &[0x30, 5, 6, 3, 0x2b, 0x65, 0x71]),
];

const RSA_SHA256: [u8; 15] = rsa_pkcs1(11);
const RSA_SHA384: [u8; 15] = rsa_pkcs1(12);
const RSA_SHA512: [u8; 15] = rsa_pkcs1(13);
const ECDSA_SHA256: [u8; 12] = ecdsa_with(2);
const ECDSA_SHA384: [u8; 12] = ecdsa_with(3);
const ECDSA_SHA512: [u8; 12] = ecdsa_with(4);

/// sha*WithRSAEncryption, with NULL.
const fn rsa_pkcs1(last: u8) -> [u8; 15] {
    [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, last, 5, 0]
}

/// ecdsa-with-SHA*.
const fn ecdsa_with(last: u8) -> [u8; 12] {
    [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, last]
}

/// id-RSASSA-PSS: the hash, MGF1 with it, and the length of the salt. The trailer is the default, so it is not there.
#[rustfmt::skip]
const fn pss(hash: u8, salt: u8) -> [u8; 67] {
    [
        0x30, 65, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 10, 0x30, 52,
        0xa0, 15, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, hash, 5, 0,
        0xa1, 28, 0x30, 26, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 8,
        0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, hash, 5, 0,
        0xa2, 3, 2, 1, salt,
    ]
}

impl Scheme {
    /// What a signature of an older method may be, the likeliest first; of all others nothing.
    pub const fn of_method(method: AuthMethod) -> &'static [Scheme] {
        use Scheme::*;
        match method {
            // RFC 7296 §3.8: SHA-1 unless the other end is known to take something else.
            AuthMethod::RSA_SIGNATURE => {
                &[RsaSha1, RsaPkcs1(Hash::Sha256), RsaPkcs1(Hash::Sha384), RsaPkcs1(Hash::Sha512)]
            }
            // RFC 4754 §7
            AuthMethod::ECDSA_SHA256_P256 => &[EcdsaOf(Curve::P256)],
            AuthMethod::ECDSA_SHA384_P384 => &[EcdsaOf(Curve::P384)],
            AuthMethod::ECDSA_SHA512_P521 => &[EcdsaOf(Curve::P521)],
            _ => &[],
        }
    }

    /// The hash that is signed; none of SHA-1, and where the message itself is.
    pub const fn hash(self) -> Option<Hash> {
        match self {
            Scheme::RsaPkcs1(hash) | Scheme::RsaPss(hash) | Scheme::Ecdsa(hash) => Some(hash),
            Scheme::EcdsaOf(curve) => Some(curve.hash()),
            Scheme::RsaSha1 | Scheme::RsaBare | Scheme::EcdsaBare(_) | Scheme::Ed25519 | Scheme::Ed448 => {
                None
            }
        }
    }

    /// The octets in front of a digital signature; none where it is of an older method alone.
    pub fn algorithm_identifier(self) -> Option<&'static [u8]> {
        IDENTIFIERS.iter().find(|i| i.0 == self).map(|i| i.2)
    }

    /// The hash's number in SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4, RFC 8420 §2); none where it is of an older method
    /// alone.
    pub fn hash_id(self) -> Option<u16> {
        IDENTIFIERS.iter().find(|i| i.0 == self).map(|i| i.1)
    }

    /// That of the octets in front of a digital signature, in any form that DER or RFC 7427 §A allows.
    pub fn from_algorithm_identifier(octets: &[u8]) -> Option<Scheme> {
        use const_oid::db::rfc5912 as oid;
        let identifier = AlgorithmIdentifierRef::from_der(octets).ok()?;
        let parameters = identifier.parameters.as_ref();
        // RFC 4055 §5, and older ones that leave it out; RFC 5758 §3.2, RFC 8410 §3.
        let has_null = parameters.is_none_or(|p| *p == AnyRef::NULL);
        let scheme = match identifier.oid {
            oid::SHA_256_WITH_RSA_ENCRYPTION if has_null => Scheme::RsaPkcs1(Hash::Sha256),
            oid::SHA_384_WITH_RSA_ENCRYPTION if has_null => Scheme::RsaPkcs1(Hash::Sha384),
            oid::SHA_512_WITH_RSA_ENCRYPTION if has_null => Scheme::RsaPkcs1(Hash::Sha512),
            oid::ECDSA_WITH_SHA_256 if parameters.is_none() => Scheme::Ecdsa(Hash::Sha256),
            oid::ECDSA_WITH_SHA_384 if parameters.is_none() => Scheme::Ecdsa(Hash::Sha384),
            oid::ECDSA_WITH_SHA_512 if parameters.is_none() => Scheme::Ecdsa(Hash::Sha512),
            const_oid::db::rfc8410::ID_ED_25519 if parameters.is_none() => Scheme::Ed25519,
            const_oid::db::rfc8410::ID_ED_448 if parameters.is_none() => Scheme::Ed448,
            oid::ID_RSASSA_PSS => pss_of(parameters?)?,
            _ => return None,
        };
        Some(scheme)
    }
}

/// RSASSA-PSS-params (RFC 4055 §3.1), as far as they are all of one hash.
fn pss_of(parameters: &AnyRef<'_>) -> Option<Scheme> {
    use pkcs1::RsaPssParams;
    let params: RsaPssParams<der::Any> = parameters.decode_as().ok()?;
    let hash = Hash::of_oid(params.hash.oid)?;
    let mask = params.mask_gen.parameters?;
    let is_mgf1 = params.mask_gen.oid == const_oid::db::rfc5912::ID_MGF_1;
    let is_one = is_mgf1 && mask.oid == params.hash.oid && usize::from(params.salt_len) == hash.output_len();
    is_one.then_some(Scheme::RsaPss(hash))
}

crate::kept::keep_enum!(Curve { 0 => P256, 1 => P384, 2 => P521 });

#[cfg(test)]
mod tests;
