//! Private and public keys, in the forms that files and certificates have.

use super::{
    Hash, Scheme, SignatureError,
    ecdsa::{self, Form},
};
use ed25519_dalek::ed25519::signature::Signer;
use p256::elliptic_curve::sec1::ToSec1Point;
use pkcs8::{DecodePrivateKey, DecodePublicKey};
use rand_core::CryptoRng;
use rsa::{pkcs1::DecodeRsaPrivateKey, pkcs1v15::Pkcs1v15Sign, pss::Pss, traits::PublicKeyParts};
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha384, Sha512};
use std::fmt;
use zeroize::Zeroizing;

/// RFC 8247 §3.1.1: shorter keys should not be used.
const LEAST_RSA_BITS: usize = 2048;

/// A key that signs. It is wiped when dropped, but for what ring has of it, and prints as `(hidden)`.
pub struct PrivateKey(Private);

enum Private {
    Rsa(Box<rsa::PrivateKey>),
    P256(p256::ecdsa::SigningKey, ring::signature::EcdsaKeyPair),
    P384(p384::ecdsa::SigningKey, ring::signature::EcdsaKeyPair),
    P521(p521::ecdsa::SigningKey),
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey(Public);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Public {
    Rsa(Box<rsa::PublicKey>),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl PrivateKey {
    /// Reads the first private key of a PEM file: PKCS#8, PKCS#1 or SEC1.
    pub fn from_pem(text: &str) -> Result<PrivateKey, SignatureError> {
        // Others may be in front of it: `EC PARAMETERS`, or certificates.
        let mut blocks = text.match_indices("-----BEGIN ").map(|(at, _)| &text[at..]);
        let is_private = |block: &&str| block.lines().next().is_some_and(|l| l.ends_with("PRIVATE KEY-----"));
        let block = blocks.find(is_private).ok_or(SignatureError::PrivateKey)?;
        if block.starts_with("-----BEGIN ENCRYPTED") || block.lines().nth(1).is_some_and(|l| l.contains(':'))
        {
            return Err(SignatureError::Encrypted);
        }
        let end = block.find("-----END ").ok_or(SignatureError::PrivateKey)?;
        let end = block[end..].find('\n').map_or(block.len(), |line| end + line);
        let block = &block.as_bytes()[..end];
        // RFC 7468 §2: lines are of 64 characters, and parsers may take others.
        let mut pem = pem_rfc7468::Decoder::new_detect_wrap(block).map_err(|_| SignatureError::PrivateKey)?;
        let mut octets = Zeroizing::new(Vec::with_capacity(pem.remaining_len()));
        pem.decode_to_end(&mut octets).map_err(|_| SignatureError::PrivateKey)?;
        PrivateKey::from_der(&octets)
    }

    /// Reads a private key of PKCS#8, PKCS#1 or SEC1.
    pub fn from_der(octets: &[u8]) -> Result<PrivateKey, SignatureError> {
        let p256 =
            p256::SecretKey::from_pkcs8_der(octets).or_else(|_| p256::SecretKey::from_sec1_der(octets));
        if let Ok(key) = p256 {
            return PrivateKey::p256(&key);
        }
        let p384 =
            p384::SecretKey::from_pkcs8_der(octets).or_else(|_| p384::SecretKey::from_sec1_der(octets));
        if let Ok(key) = p384 {
            return PrivateKey::p384(&key);
        }
        let p521 =
            p521::SecretKey::from_pkcs8_der(octets).or_else(|_| p521::SecretKey::from_sec1_der(octets));
        if let Ok(key) = p521 {
            return Ok(PrivateKey(Private::P521(key.into())));
        }
        if let Ok(key) = ed25519_dalek::SigningKey::from_pkcs8_der(octets) {
            return Ok(PrivateKey(Private::Ed25519(Box::new(key))));
        }
        let rsa = rsa::PrivateKey::from_pkcs8_der(octets).ok();
        let key =
            rsa.or_else(|| rsa::PrivateKey::from_pkcs1_der(octets).ok()).ok_or(SignatureError::PrivateKey)?;
        is_long_enough(&key)?;
        Ok(PrivateKey(Private::Rsa(Box::new(key))))
    }

    fn p256(key: &p256::SecretKey) -> Result<PrivateKey, SignatureError> {
        let (scalar, point) = (Zeroizing::new(key.to_bytes()), key.public_key().to_sec1_point(false));
        let fast =
            ecdsa::fast_key(Hash::Sha256, &scalar, point.as_bytes()).ok_or(SignatureError::PrivateKey)?;
        Ok(PrivateKey(Private::P256(key.into(), fast)))
    }

    fn p384(key: &p384::SecretKey) -> Result<PrivateKey, SignatureError> {
        let (scalar, point) = (Zeroizing::new(key.to_bytes()), key.public_key().to_sec1_point(false));
        let fast =
            ecdsa::fast_key(Hash::Sha384, &scalar, point.as_bytes()).ok_or(SignatureError::PrivateKey)?;
        Ok(PrivateKey(Private::P384(key.into(), fast)))
    }

    /// The key that verifies what this one signs.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Private::Rsa(key) => Public::Rsa(Box::new(key.to_public_key())),
            Private::P256(key, _) => Public::P256(*key.verifying_key()),
            Private::P384(key, _) => Public::P384(*key.verifying_key()),
            Private::P521(key) => Public::P521(*key.verifying_key()),
            Private::Ed25519(key) => Public::Ed25519(Box::new(key.verifying_key())),
        })
    }

    /// Signs. Randomness is for blinding, salts and nonces, but not for ECDSA by P-256 with SHA-256 and by P-384 with
    /// SHA-384, whose nonces are the system's.
    pub fn sign(
        &self,
        scheme: Scheme,
        message: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SignatureError> {
        let signature = match (&self.0, scheme) {
            (Private::Rsa(key), Scheme::RsaSha1) => {
                key.sign_with_rng(rng, Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(message)).ok()
            }
            (Private::Rsa(key), Scheme::RsaPkcs1(hash)) => {
                key.sign_with_rng(rng, pkcs1v15(hash), &hash.digest(message)).ok()
            }
            (Private::Rsa(key), Scheme::RsaPss(hash)) => {
                let digest = hash.digest(message);
                match hash {
                    Hash::Sha256 => key.sign_with_rng(rng, Pss::<Sha256>::new(), &digest),
                    Hash::Sha384 => key.sign_with_rng(rng, Pss::<Sha384>::new(), &digest),
                    Hash::Sha512 => key.sign_with_rng(rng, Pss::<Sha512>::new(), &digest),
                }
                .ok()
            }
            (Private::Ed25519(key), Scheme::Ed25519) => Some(key.sign(message).to_bytes().to_vec()),
            (key, scheme) => {
                let (hash, form) =
                    key.curve().and_then(|curve| ecdsa_of(curve, scheme)).ok_or(SignatureError::Scheme)?;
                match (key, hash) {
                    (Private::P256(_, fast), Hash::Sha256) | (Private::P384(_, fast), Hash::Sha384) => {
                        ecdsa::fast_sign(fast, hash, message, form)
                    }
                    (Private::P256(key, _), _) => ecdsa::sign_p256(key, &hash.digest(message), form, rng),
                    (Private::P384(key, _), _) => ecdsa::sign_p384(key, &hash.digest(message), form, rng),
                    (Private::P521(key), _) => ecdsa::sign_p521(key, &hash.digest(message), form, rng),
                    _ => return Err(SignatureError::Scheme),
                }
            }
        };
        signature.ok_or(SignatureError::Sign)
    }
}

impl Private {
    /// The scheme of RFC 4754 for its curve.
    fn curve(&self) -> Option<Scheme> {
        match self {
            Private::P256(..) => Some(Scheme::Ecdsa256),
            Private::P384(..) => Some(Scheme::Ecdsa384),
            Private::P521(..) => Some(Scheme::Ecdsa521),
            _ => None,
        }
    }
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo.
    pub fn from_spki(octets: &[u8]) -> Result<PublicKey, SignatureError> {
        if let Ok(key) = p256::PublicKey::from_public_key_der(octets) {
            return Ok(PublicKey(Public::P256(key.into())));
        }
        if let Ok(key) = p384::PublicKey::from_public_key_der(octets) {
            return Ok(PublicKey(Public::P384(key.into())));
        }
        if let Ok(key) = p521::PublicKey::from_public_key_der(octets) {
            return Ok(PublicKey(Public::P521(key.into())));
        }
        if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_der(octets) {
            return Ok(PublicKey(Public::Ed25519(Box::new(key))));
        }
        let key = rsa::PublicKey::from_public_key_der(octets).map_err(|_| SignatureError::PublicKey)?;
        is_long_enough(&key)?;
        Ok(PublicKey(Public::Rsa(Box::new(key))))
    }

    /// With what this key can sign where the other end takes digital signatures, the best first.
    pub const fn schemes(&self) -> &'static [Scheme] {
        use Scheme::*;
        match self.0 {
            Public::Rsa(_) => &[
                RsaPss(Hash::Sha256),
                RsaPss(Hash::Sha384),
                RsaPss(Hash::Sha512),
                RsaPkcs1(Hash::Sha256),
                RsaPkcs1(Hash::Sha384),
                RsaPkcs1(Hash::Sha512),
            ],
            Public::P256(_) => &[Ecdsa(Hash::Sha256), Ecdsa(Hash::Sha384), Ecdsa(Hash::Sha512)],
            Public::P384(_) => &[Ecdsa(Hash::Sha384), Ecdsa(Hash::Sha512), Ecdsa(Hash::Sha256)],
            Public::P521(_) => &[Ecdsa(Hash::Sha512), Ecdsa(Hash::Sha384), Ecdsa(Hash::Sha256)],
            Public::Ed25519(_) => &[Ed25519],
        }
    }

    /// Verifies.
    pub fn verify(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let is_right = match (&self.0, scheme) {
            (Public::Rsa(key), Scheme::RsaSha1) => {
                key.verify(Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(message), signature).is_ok()
            }
            (Public::Rsa(key), Scheme::RsaPkcs1(hash)) => {
                key.verify(pkcs1v15(hash), &hash.digest(message), signature).is_ok()
            }
            (Public::Rsa(key), Scheme::RsaPss(hash)) => {
                let digest = hash.digest(message);
                match hash {
                    Hash::Sha256 => key.verify(Pss::<Sha256>::new(), &digest, signature),
                    Hash::Sha384 => key.verify(Pss::<Sha384>::new(), &digest, signature),
                    Hash::Sha512 => key.verify(Pss::<Sha512>::new(), &digest, signature),
                }
                .is_ok()
            }
            (Public::Ed25519(key), Scheme::Ed25519) => {
                // RFC 8032 §5.1.7, and refuses keys of small order, which any signature might be of.
                let signature = ed25519_dalek::Signature::from_slice(signature);
                signature.is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
            }
            (key, scheme) => {
                let (hash, form) =
                    key.curve().and_then(|curve| ecdsa_of(curve, scheme)).ok_or(SignatureError::Scheme)?;
                match (key, hash) {
                    (Public::P256(key), Hash::Sha256) => ecdsa::fast_verify(
                        key.to_sec1_point(false).as_bytes(),
                        hash,
                        message,
                        form,
                        signature,
                    ),
                    (Public::P384(key), Hash::Sha384) => ecdsa::fast_verify(
                        key.to_sec1_point(false).as_bytes(),
                        hash,
                        message,
                        form,
                        signature,
                    ),
                    (Public::P256(key), _) => ecdsa::verify_p256(key, &hash.digest(message), form, signature),
                    (Public::P384(key), _) => ecdsa::verify_p384(key, &hash.digest(message), form, signature),
                    (Public::P521(key), _) => ecdsa::verify_p521(key, &hash.digest(message), form, signature),
                    _ => return Err(SignatureError::Scheme),
                }
            }
        };
        if is_right { Ok(()) } else { Err(SignatureError::Verify) }
    }
}

impl Public {
    /// The scheme of RFC 4754 for its curve.
    fn curve(&self) -> Option<Scheme> {
        match self {
            Public::P256(_) => Some(Scheme::Ecdsa256),
            Public::P384(_) => Some(Scheme::Ecdsa384),
            Public::P521(_) => Some(Scheme::Ecdsa521),
            _ => None,
        }
    }
}

/// Hash and form of a scheme, for a key whose curve is that of `curve`. RFC 4754 §3: each curve with its own hash; RFC 7427 §3:
/// any curve with any hash.
fn ecdsa_of(curve: Scheme, scheme: Scheme) -> Option<(Hash, Form)> {
    match scheme {
        Scheme::Ecdsa(hash) => Some((hash, Form::Der)),
        _ if scheme != curve => None,
        Scheme::Ecdsa256 => Some((Hash::Sha256, Form::Concatenated)),
        Scheme::Ecdsa384 => Some((Hash::Sha384, Form::Concatenated)),
        Scheme::Ecdsa521 => Some((Hash::Sha512, Form::Concatenated)),
        _ => None,
    }
}

fn pkcs1v15(hash: Hash) -> Pkcs1v15Sign {
    match hash {
        Hash::Sha256 => Pkcs1v15Sign::new::<Sha256>(),
        Hash::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        Hash::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
    }
}

fn is_long_enough(key: &impl PublicKeyParts) -> Result<(), SignatureError> {
    match key.n().bit_width() as usize {
        bits if bits < LEAST_RSA_BITS => Err(SignatureError::Short(bits)),
        _ => Ok(()),
    }
}
