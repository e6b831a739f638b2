//! Private and public keys, in the forms that files and certificates have.

use super::{
    Curve, Hash, Scheme, SignatureError,
    ecdsa::{self, Form},
};
use ed25519_dalek::ed25519::signature::Signer;
use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use rand_core::CryptoRng;
use rsa::{pkcs1::DecodeRsaPrivateKey, pkcs1v15::Pkcs1v15Sign, pss::Pss, traits::PublicKeyParts};
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha384, Sha512};
use std::fmt;
use zeroize::Zeroizing;

/// RFC 8247 §3.1.1: shorter keys should not be used.
const LEAST_RSA_BITS: usize = 2048;

/// What is in front of an Ed25519 key in a SubjectPublicKeyInfo.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A key that signs. It is wiped when dropped, but for what ring has of it, and prints as `(hidden)`.
pub struct PrivateKey(Private);

enum Private {
    Rsa(Box<rsa::PrivateKey>),
    Ecdsa(Box<ecdsa::PrivateKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
    Ed448(Box<ed448_goldilocks::SigningKey>),
}

/// A kind of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "their names tell")]
pub enum Kind {
    Rsa,
    Ecdsa,
    Ed25519,
    Ed448,
}

/// A key that verifies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicKey(Public);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Public {
    Rsa(Box<rsa::PublicKey>),
    Ecdsa(Box<ecdsa::PublicKey>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
    Ed448(Box<ed448_goldilocks::VerifyingKey>),
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
        if let Some(key) = ecdsa::PrivateKey::from_der(octets) {
            return Ok(PrivateKey(Private::Ecdsa(Box::new(key?))));
        }
        if let Ok(key) = ed25519_dalek::SigningKey::from_pkcs8_der(octets) {
            return Ok(PrivateKey(Private::Ed25519(Box::new(key))));
        }
        if let Ok(key) = ed448_goldilocks::SigningKey::from_pkcs8_der(octets) {
            return Ok(PrivateKey(Private::Ed448(Box::new(key))));
        }
        let rsa = rsa::PrivateKey::from_pkcs8_der(octets).ok();
        let key =
            rsa.or_else(|| rsa::PrivateKey::from_pkcs1_der(octets).ok()).ok_or(SignatureError::PrivateKey)?;
        is_long_enough(&key)?;
        Ok(PrivateKey(Private::Rsa(Box::new(key))))
    }

    /// The key that verifies what this one signs.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Private::Rsa(key) => Public::Rsa(Box::new(key.to_public_key())),
            Private::Ecdsa(key) => Public::Ecdsa(Box::new(key.public_key())),
            Private::Ed25519(key) => Public::Ed25519(Box::new(key.verifying_key())),
            Private::Ed448(key) => Public::Ed448(Box::new(key.verifying_key())),
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
            (Private::Ed448(key), Scheme::Ed448) => {
                // RFC 8420 §2: without a context.
                key.try_sign(message).ok().map(|signature| signature.to_bytes().to_vec())
            }
            (Private::Rsa(key), Scheme::RsaBare) => {
                key.sign_with_rng(rng, Pkcs1v15Sign::new_unprefixed(), message).ok()
            }
            (Private::Ecdsa(key), Scheme::EcdsaBare(curve)) if curve == key.curve() => {
                key.sign_digest(message, rng)
            }
            (Private::Ecdsa(key), scheme) => {
                let (hash, form) = ecdsa_of(key.curve(), scheme).ok_or(SignatureError::Scheme)?;
                key.sign(hash, form, message, rng)
            }
            _ => return Err(SignatureError::Scheme),
        };
        signature.ok_or(SignatureError::Sign)
    }
}

impl PublicKey {
    /// Reads a file: a SubjectPublicKeyInfo in PEM or DER.
    pub fn from_file(octets: &[u8]) -> Result<PublicKey, SignatureError> {
        match crate::pki::certificate::from_pem(octets, &["PUBLIC KEY"]) {
            Some(blocks) => PublicKey::from_spki(blocks.first().ok_or(SignatureError::PublicKey)?),
            None => PublicKey::from_spki(octets),
        }
    }

    /// Reads a SubjectPublicKeyInfo.
    pub fn from_spki(octets: &[u8]) -> Result<PublicKey, SignatureError> {
        if let Some(key) = ecdsa::PublicKey::from_spki(octets) {
            return Ok(PublicKey(Public::Ecdsa(Box::new(key))));
        }
        if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_der(octets) {
            return Ok(PublicKey(Public::Ed25519(Box::new(key))));
        }
        if let Ok(key) = ed448_goldilocks::VerifyingKey::from_public_key_der(octets) {
            // Any signature might be of a point of small order.
            let is_small = key.to_edwards().double().double() == ed448_goldilocks::EdwardsPoint::IDENTITY;
            if is_small || !is_ed448_point(key.as_bytes()) {
                return Err(SignatureError::PublicKey);
            }
            return Ok(PublicKey(Public::Ed448(Box::new(key))));
        }
        let key = rsa::PublicKey::from_public_key_der(octets).map_err(|_| SignatureError::PublicKey)?;
        is_long_enough(&key)?;
        Ok(PublicKey(Public::Rsa(Box::new(key))))
    }

    /// The SHA-1 of its SubjectPublicKeyInfo, by which keys are told apart (RFC 7296 §3.7). All zeros if it has none.
    pub fn id(&self) -> [u8; 20] {
        let spki = match &self.0 {
            Public::Rsa(key) => key.to_public_key_der(),
            Public::Ecdsa(key) => key.to_spki(),
            // RFC 8410 §4
            Public::Ed25519(key) => {
                return Sha1::digest([&ED25519_SPKI[..], key.as_bytes()].concat()).into();
            }
            Public::Ed448(key) => key.to_public_key_der(),
        };
        spki.map(|spki| Sha1::digest(spki.as_bytes()).into()).unwrap_or_default()
    }

    /// Of which kind it is.
    pub fn kind(&self) -> Kind {
        match &self.0 {
            Public::Rsa(_) => Kind::Rsa,
            Public::Ecdsa(_) => Kind::Ecdsa,
            Public::Ed25519(_) => Kind::Ed25519,
            Public::Ed448(_) => Kind::Ed448,
        }
    }

    /// Bits of the modulus, or of the curve's field.
    pub fn bits(&self) -> usize {
        match &self.0 {
            Public::Rsa(key) => key.n().bit_width() as usize,
            Public::Ecdsa(key) => match key.curve() {
                Curve::P256 => 256,
                Curve::P384 => 384,
                Curve::P521 => 521,
            },
            Public::Ed25519(_) => 255,
            Public::Ed448(_) => 448,
        }
    }

    /// With what this key can sign where the other end takes digital signatures, the best first.
    pub fn schemes(&self) -> &'static [Scheme] {
        use Scheme::*;
        match &self.0 {
            Public::Rsa(_) => &[
                RsaPss(Hash::Sha256),
                RsaPss(Hash::Sha384),
                RsaPss(Hash::Sha512),
                RsaPkcs1(Hash::Sha256),
                RsaPkcs1(Hash::Sha384),
                RsaPkcs1(Hash::Sha512),
            ],
            Public::Ecdsa(key) => match key.curve() {
                Curve::P256 => &[Ecdsa(Hash::Sha256), Ecdsa(Hash::Sha384), Ecdsa(Hash::Sha512)],
                Curve::P384 => &[Ecdsa(Hash::Sha384), Ecdsa(Hash::Sha512), Ecdsa(Hash::Sha256)],
                Curve::P521 => &[Ecdsa(Hash::Sha512), Ecdsa(Hash::Sha384), Ecdsa(Hash::Sha256)],
            },
            Public::Ed25519(_) => &[Ed25519],
            Public::Ed448(_) => &[Ed448],
        }
    }

    /// Whether a scheme is for keys of its kind.
    pub fn takes(&self, scheme: Scheme) -> bool {
        match (&self.0, scheme) {
            (Public::Rsa(_), Scheme::RsaSha1 | Scheme::RsaBare | Scheme::RsaPkcs1(_) | Scheme::RsaPss(_))
            | (Public::Ed25519(_), Scheme::Ed25519)
            | (Public::Ed448(_), Scheme::Ed448) => true,
            (Public::Ecdsa(key), Scheme::EcdsaBare(curve)) => key.curve() == curve,
            (Public::Ecdsa(key), scheme) => ecdsa_of(key.curve(), scheme).is_some(),
            _ => false,
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
            (Public::Ed448(key), Scheme::Ed448) => {
                let signature = ed448_goldilocks::Signature::try_from(signature);
                signature.is_ok_and(|signature| {
                    is_ed448_point(signature.r_bytes()) && key.verify_raw(&signature, message).is_ok()
                })
            }
            (Public::Rsa(key), Scheme::RsaBare) => {
                key.verify(Pkcs1v15Sign::new_unprefixed(), message, signature).is_ok()
            }
            (Public::Ecdsa(key), Scheme::EcdsaBare(curve)) if curve == key.curve() => {
                key.verify_digest(Form::Concatenated, message, signature)
            }
            (Public::Ecdsa(key), scheme) => {
                let (hash, form) = ecdsa_of(key.curve(), scheme).ok_or(SignatureError::Scheme)?;
                key.verify(hash, form, message, signature)
            }
            _ => return Err(SignatureError::Scheme),
        };
        if is_right { Ok(()) } else { Err(SignatureError::Verify) }
    }
}

/// RFC 8032 §5.2.2: the last octet has the sign, and nothing else.
fn is_ed448_point(octets: &[u8]) -> bool {
    octets.last().is_some_and(|last| last & 0x7f == 0)
}

/// Hash and form of a scheme, for a key of the curve. RFC 4754 §3: each curve with its own hash; RFC 7427 §3: any curve
/// with any hash.
fn ecdsa_of(curve: Curve, scheme: Scheme) -> Option<(Hash, Form)> {
    match scheme {
        Scheme::Ecdsa(hash) => Some((hash, Form::Der)),
        Scheme::EcdsaOf(of) if of == curve => Some((curve.hash(), Form::Concatenated)),
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
