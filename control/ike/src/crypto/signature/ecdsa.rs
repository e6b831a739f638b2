//! ECDSA on the curves of NIST, with any hash.

use super::Hash;
use p256::ecdsa::signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner};
use rand_core::CryptoRng;
use ring::{rand::SystemRandom, signature as ring_ecdsa};

/// How r and s are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// ECDSA-Sig-Value (RFC 7427 §A.3).
    Der,
    /// Both as long as the order of the curve (RFC 4754 §7).
    Concatenated,
}

macro_rules! curves {
    ($($curve:ident: $sign:ident, $verify:ident, $form:ident;)+) => { $(
        fn $form(signature: &$curve::ecdsa::Signature, form: Form) -> Vec<u8> {
            match form {
                Form::Der => signature.to_der().as_bytes().to_vec(),
                Form::Concatenated => signature.to_bytes().to_vec(),
            }
        }

        pub(super) fn $sign(
            key: &$curve::ecdsa::SigningKey,
            digest: &[u8],
            form: Form,
            rng: &mut dyn CryptoRng,
        ) -> Option<Vec<u8>> {
            Some($form(&key.sign_prehash_with_rng(rng, digest).ok()?, form))
        }

        pub(super) fn $verify(
            key: &$curve::ecdsa::VerifyingKey,
            digest: &[u8],
            form: Form,
            signature: &[u8],
        ) -> bool {
            let signature = match form {
                Form::Der => $curve::ecdsa::Signature::from_der(signature),
                Form::Concatenated => $curve::ecdsa::Signature::from_slice(signature),
            };
            signature.is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok())
        }
    )+ };
}

curves! {
    p256: sign_p256, verify_p256, form_p256;
    p384: sign_p384, verify_p384, form_p384;
    p521: sign_p521, verify_p521, form_p521;
}

/// A private key as ring has it, for the one hash that ring signs with on this curve.
pub(super) fn fast_key(curve: Hash, scalar: &[u8], point: &[u8]) -> Option<ring_ecdsa::EcdsaKeyPair> {
    let algorithm = match curve {
        Hash::Sha256 => &ring_ecdsa::ECDSA_P256_SHA256_FIXED_SIGNING,
        Hash::Sha384 => &ring_ecdsa::ECDSA_P384_SHA384_FIXED_SIGNING,
        Hash::Sha512 => return None,
    };
    let rng = SystemRandom::new();
    ring_ecdsa::EcdsaKeyPair::from_private_key_and_public_key(algorithm, scalar, point, &rng).ok()
}

/// Signs with ring's key of P-256 and SHA-256, or of P-384 and SHA-384.
pub(super) fn fast_sign(
    key: &ring_ecdsa::EcdsaKeyPair,
    hash: Hash,
    message: &[u8],
    form: Form,
) -> Option<Vec<u8>> {
    let signature = key.sign(&SystemRandom::new(), message).ok()?;
    match hash {
        Hash::Sha256 => Some(form_p256(&p256::ecdsa::Signature::from_slice(signature.as_ref()).ok()?, form)),
        Hash::Sha384 => Some(form_p384(&p384::ecdsa::Signature::from_slice(signature.as_ref()).ok()?, form)),
        Hash::Sha512 => None,
    }
}

/// Verifies with ring by the point of P-256 and SHA-256, or of P-384 and SHA-384.
pub(super) fn fast_verify(point: &[u8], hash: Hash, message: &[u8], form: Form, signature: &[u8]) -> bool {
    let algorithm = match (hash, form) {
        (Hash::Sha256, Form::Der) => &ring_ecdsa::ECDSA_P256_SHA256_ASN1,
        (Hash::Sha256, Form::Concatenated) => &ring_ecdsa::ECDSA_P256_SHA256_FIXED,
        (Hash::Sha384, Form::Der) => &ring_ecdsa::ECDSA_P384_SHA384_ASN1,
        (Hash::Sha384, Form::Concatenated) => &ring_ecdsa::ECDSA_P384_SHA384_FIXED,
        (Hash::Sha512, _) => return false,
    };
    ring_ecdsa::UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
}
