//! ECDSA on the curves of NIST, with any hash: ring's where it has curve and hash together, and else RustCrypto's.

use super::{Curve, Hash, SignatureError};
use p256::{
    ecdsa::signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner},
    elliptic_curve::sec1::ToSec1Point,
};
use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use rand_core::CryptoRng;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING,
        ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, UnparsedPublicKey,
    },
};
use zeroize::Zeroizing;

/// How r and s are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// ECDSA-Sig-Value (RFC 7427 §A.3).
    Der,
    /// Both as long as the order of the curve (RFC 4754 §7).
    Concatenated,
}

/// A key that signs, and the same as ring has it.
pub enum PrivateKey {
    P256(p256::ecdsa::SigningKey, EcdsaKeyPair),
    P384(p384::ecdsa::SigningKey, EcdsaKeyPair),
    P521(p521::ecdsa::SigningKey),
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PublicKey {
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
}

/// Does the same with keys of all curves, and their types of signatures.
macro_rules! with_curve {
    ($Key:ident, $of:expr, ($key:pat, $Signature:ident) => $does:expr) => {
        match $of {
            $Key::P256($key, ..) => {
                type $Signature = p256::ecdsa::Signature;
                $does
            }
            $Key::P384($key, ..) => {
                type $Signature = p384::ecdsa::Signature;
                $does
            }
            $Key::P521($key, ..) => {
                type $Signature = p521::ecdsa::Signature;
                $does
            }
        }
    };
}

/// Tries PKCS#8, and then SEC1.
macro_rules! private_key {
    ($curve:ident, $octets:expr) => {
        $curve::SecretKey::from_pkcs8_der($octets).or_else(|_| $curve::SecretKey::from_sec1_der($octets))
    };
}

impl PrivateKey {
    /// Reads PKCS#8 or SEC1.
    pub fn from_der(octets: &[u8]) -> Option<Result<PrivateKey, SignatureError>> {
        if let Ok(key) = private_key!(p256, octets) {
            let (scalar, point) = (Zeroizing::new(key.to_bytes()), key.public_key().to_sec1_point(false));
            let fast = fast_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &scalar, point.as_bytes());
            return Some(fast.map(|fast| PrivateKey::P256(key.into(), fast)));
        }
        if let Ok(key) = private_key!(p384, octets) {
            let (scalar, point) = (Zeroizing::new(key.to_bytes()), key.public_key().to_sec1_point(false));
            let fast = fast_key(&ECDSA_P384_SHA384_FIXED_SIGNING, &scalar, point.as_bytes());
            return Some(fast.map(|fast| PrivateKey::P384(key.into(), fast)));
        }
        private_key!(p521, octets).ok().map(|key| Ok(PrivateKey::P521(key.into())))
    }

    pub fn curve(&self) -> Curve {
        match self {
            PrivateKey::P256(..) => Curve::P256,
            PrivateKey::P384(..) => Curve::P384,
            PrivateKey::P521(..) => Curve::P521,
        }
    }

    pub fn public_key(&self) -> PublicKey {
        match self {
            PrivateKey::P256(key, _) => PublicKey::P256(*key.verifying_key()),
            PrivateKey::P384(key, _) => PublicKey::P384(*key.verifying_key()),
            PrivateKey::P521(key) => PublicKey::P521(*key.verifying_key()),
        }
    }

    pub fn sign(&self, hash: Hash, form: Form, message: &[u8], rng: &mut dyn CryptoRng) -> Option<Vec<u8>> {
        let concatenated = match self {
            PrivateKey::P256(_, fast) | PrivateKey::P384(_, fast) if hash == self.curve().hash() => {
                fast.sign(&SystemRandom::new(), message).ok()?.as_ref().to_vec()
            }
            _ => self.sign_by_rustcrypto(hash, message, rng)?,
        };
        match form {
            Form::Concatenated => Some(concatenated),
            Form::Der => with_curve!(PrivateKey, self, (_key, Signature) => {
                Some(Signature::from_slice(&concatenated).ok()?.to_der().as_bytes().to_vec())
            }),
        }
    }

    /// r and s, concatenated.
    pub(super) fn sign_by_rustcrypto(
        &self,
        hash: Hash,
        message: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Option<Vec<u8>> {
        self.sign_digest(&hash.digest(message), rng)
    }

    /// The same of what is a digest.
    pub fn sign_digest(&self, digest: &[u8], rng: &mut dyn CryptoRng) -> Option<Vec<u8>> {
        with_curve!(PrivateKey, self, (key, Signature) => {
            let signature: Signature = key.sign_prehash_with_rng(rng, digest).ok()?;
            Some(signature.to_bytes().to_vec())
        })
    }
}

fn fast_key(
    algorithm: &'static EcdsaSigningAlgorithm,
    scalar: &[u8],
    point: &[u8],
) -> Result<EcdsaKeyPair, SignatureError> {
    let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, point, &SystemRandom::new());
    key.map_err(|_| SignatureError::PrivateKey)
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo.
    pub fn from_spki(octets: &[u8]) -> Option<PublicKey> {
        let p256 = p256::PublicKey::from_public_key_der(octets).map(|key| PublicKey::P256(key.into()));
        let p384 = || p384::PublicKey::from_public_key_der(octets).map(|key| PublicKey::P384(key.into()));
        let p521 = || p521::PublicKey::from_public_key_der(octets).map(|key| PublicKey::P521(key.into()));
        p256.or_else(|_| p384()).or_else(|_| p521()).ok()
    }

    /// Its SubjectPublicKeyInfo.
    pub fn to_spki(&self) -> pkcs8::spki::Result<pkcs8::Document> {
        match self {
            PublicKey::P256(key) => key.to_public_key_der(),
            PublicKey::P384(key) => key.to_public_key_der(),
            PublicKey::P521(key) => key.to_public_key_der(),
        }
    }

    pub fn curve(&self) -> Curve {
        match self {
            PublicKey::P256(_) => Curve::P256,
            PublicKey::P384(_) => Curve::P384,
            PublicKey::P521(_) => Curve::P521,
        }
    }

    pub fn verify(&self, hash: Hash, form: Form, message: &[u8], signature: &[u8]) -> bool {
        let fast = match (self.curve(), hash, form) {
            (Curve::P256, Hash::Sha256, Form::Der) => &ECDSA_P256_SHA256_ASN1,
            (Curve::P256, Hash::Sha256, Form::Concatenated) => &ECDSA_P256_SHA256_FIXED,
            (Curve::P384, Hash::Sha384, Form::Der) => &ECDSA_P384_SHA384_ASN1,
            (Curve::P384, Hash::Sha384, Form::Concatenated) => &ECDSA_P384_SHA384_FIXED,
            _ => return self.verify_by_rustcrypto(hash, form, message, signature),
        };
        with_curve!(PublicKey, self, (key, _Signature) => {
            let point = key.to_sec1_point(false);
            UnparsedPublicKey::new(fast, point.as_bytes()).verify(message, signature).is_ok()
        })
    }

    pub(super) fn verify_by_rustcrypto(
        &self,
        hash: Hash,
        form: Form,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        self.verify_digest(form, &hash.digest(message), signature)
    }

    /// The same of what is a digest.
    pub fn verify_digest(&self, form: Form, digest: &[u8], signature: &[u8]) -> bool {
        with_curve!(PublicKey, self, (key, Signature) => {
            let signature = match form {
                Form::Der => Signature::from_der(signature),
                Form::Concatenated => Signature::from_slice(signature),
            };
            signature.is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
        })
    }
}
