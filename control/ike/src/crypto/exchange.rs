//! Key exchange, through one interface for Diffie-Hellman and for KEMs (RFC 7296 §2.14, RFC 9370 §2.2).
//!
//! ```text
//!  initiator   Initiator::new  -> public                     finish(theirs) -> secret
//!  responder                       respond(theirs) -> public, secret
//! ```
//!
//! Of Diffie-Hellman both send a public key. Of a KEM the initiator sends an encapsulation key and the responder the
//! ciphertext, so that the responder can do nothing before it has the other's value.
//!
//! # Dangers
//! - A private key is for one exchange: `finish` consumes it, so that tests of public values are enough (RFC 6989 §2).
//! - A ciphertext that is not the peer's gives a secret, too, which nobody else has (FIPS 203 §6.3): only AUTH tells.

mod modp;
mod x25519;

use super::{Secret, transform::KeyExchange};
use crate::kept::{Damaged, Keep, Reader, Writer};
use ml_kem::{
    Decapsulate, Encapsulate, Kem, KeyExport, KeyInit, MlKem512, MlKem768, MlKem1024, TryKeyInit,
    kem::Decapsulator,
};
use p256::elliptic_curve::{
    CurveArithmetic, Generate, PublicKey, SecretKey,
    sec1::{FromSec1Point, ModulusSize, ToSec1Point},
};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

/// Why no secret came of a public value. The peer sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExchangeError {
    /// A value of a wrong length (RFC 7296 §3.4).
    #[error("a public value has {found} octets and not {expected}")]
    Length {
        /// As it must be.
        expected: usize,
        /// As it is.
        found: usize,
    },
    /// A value that the method does not allow: outside of the group, or one that leads to known secrets (RFC 6989 §2,
    /// RFC 7748 §6.1, FIPS 203 §7.2).
    #[error("a public value is not one of {}", .0.name())]
    Value(KeyExchange),
}

/// An initiator's side of an exchange, until the responder has answered. It prints without its private key.
#[derive(Debug)]
pub struct Initiator {
    method: KeyExchange,
    private: Secret,
}

impl Initiator {
    /// A new private key, and the octets to be sent in KEi.
    pub fn new(method: KeyExchange, rng: &mut dyn CryptoRng) -> (Initiator, Vec<u8>) {
        let private = private_key(method, rng);
        let public = public_value(method, &private);
        (Initiator { method, private }, public)
    }

    /// The method.
    pub fn method(&self) -> KeyExchange {
        self.method
    }

    /// The secret, by the octets of KEr.
    pub fn finish(self, theirs: &[u8]) -> Result<Secret, ExchangeError> {
        has_length(theirs, self.method.responder_len())?;
        match self.method {
            KeyExchange::MlKem512 => Ok(decapsulate::<MlKem512>(&self.private, theirs)),
            KeyExchange::MlKem768 => Ok(decapsulate::<MlKem768>(&self.private, theirs)),
            KeyExchange::MlKem1024 => Ok(decapsulate::<MlKem1024>(&self.private, theirs)),
            _ => diffie_hellman(self.method, &self.private, theirs),
        }
    }
}

/// A responder's side of an exchange, by the octets of KEi: the octets to be sent in KEr, and the secret.
pub fn respond(
    method: KeyExchange,
    theirs: &[u8],
    rng: &mut dyn CryptoRng,
) -> Result<(Vec<u8>, Secret), ExchangeError> {
    has_length(theirs, method.initiator_len())?;
    let kem = match method {
        KeyExchange::MlKem512 => encapsulate::<MlKem512>(theirs, rng),
        KeyExchange::MlKem768 => encapsulate::<MlKem768>(theirs, rng),
        KeyExchange::MlKem1024 => encapsulate::<MlKem1024>(theirs, rng),
        _ => {
            let private = private_key(method, rng);
            let secret = diffie_hellman(method, &private, theirs)?;
            return Ok((public_value(method, &private), secret));
        }
    };
    kem.ok_or(ExchangeError::Value(method))
}

// RFC 7296 §3.4: the length must be that of the group's values. RFC 9370 leaves a KEM's lengths to its document.
fn has_length(theirs: &[u8], expected: usize) -> Result<(), ExchangeError> {
    if theirs.len() == expected {
        Ok(())
    } else {
        Err(ExchangeError::Length { expected, found: theirs.len() })
    }
}

/// Octets of a private key: an exponent, a scalar, or the seeds d and z of FIPS 203 §7.1.
fn private_key(method: KeyExchange, rng: &mut dyn CryptoRng) -> Secret {
    match method {
        KeyExchange::Ecp256 => scalar::<p256::NistP256>(rng),
        KeyExchange::Ecp384 => scalar::<p384::NistP384>(rng),
        KeyExchange::Ecp521 => scalar::<p521::NistP521>(rng),
        _ => {
            let mut octets = vec![0; private_len(method)];
            rng.fill_bytes(&mut octets);
            octets.into()
        }
    }
}

fn private_len(method: KeyExchange) -> usize {
    match method {
        KeyExchange::Modp2048 => modp::GROUP_14.exponent_len,
        KeyExchange::Modp3072 => modp::GROUP_15.exponent_len,
        KeyExchange::Modp4096 => modp::GROUP_16.exponent_len,
        KeyExchange::Ecp256 => 32,
        KeyExchange::X25519 => x25519::LEN,
        KeyExchange::Ecp384 => 48,
        KeyExchange::Ecp521 => 66,
        KeyExchange::X448 => 56,
        KeyExchange::MlKem512 | KeyExchange::MlKem768 | KeyExchange::MlKem1024 => 64,
    }
}

fn public_value(method: KeyExchange, private: &Secret) -> Vec<u8> {
    match method {
        KeyExchange::Modp2048 => modp::GROUP_14.public_value(private),
        KeyExchange::Modp3072 => modp::GROUP_15.public_value(private),
        KeyExchange::Modp4096 => modp::GROUP_16.public_value(private),
        KeyExchange::Ecp256 => point::<p256::NistP256>(private),
        KeyExchange::Ecp384 => point::<p384::NistP384>(private),
        KeyExchange::Ecp521 => point::<p521::NistP521>(private),
        KeyExchange::X25519 => x25519::public_value(private),
        KeyExchange::X448 => x448_of(private, &x448::X448_BASEPOINT_BYTES)
            .expect("the base point is of the whole group")
            .bytes()
            .to_vec(),
        KeyExchange::MlKem512 => encapsulation_key::<MlKem512>(private),
        KeyExchange::MlKem768 => encapsulation_key::<MlKem768>(private),
        KeyExchange::MlKem1024 => encapsulation_key::<MlKem1024>(private),
    }
}

/// The secret of Diffie-Hellman; `theirs` has the right length. A KEM has none.
fn diffie_hellman(method: KeyExchange, private: &Secret, theirs: &[u8]) -> Result<Secret, ExchangeError> {
    match method {
        KeyExchange::Modp2048 => modp::GROUP_14.secret(private, theirs),
        KeyExchange::Modp3072 => modp::GROUP_15.secret(private, theirs),
        KeyExchange::Modp4096 => modp::GROUP_16.secret(private, theirs),
        KeyExchange::Ecp256 => abscissa::<p256::NistP256>(private, theirs),
        KeyExchange::Ecp384 => abscissa::<p384::NistP384>(private, theirs),
        KeyExchange::Ecp521 => abscissa::<p521::NistP521>(private, theirs),
        KeyExchange::X25519 => x25519::secret(private, theirs),
        KeyExchange::X448 => x448_of(private, theirs),
        KeyExchange::MlKem512 | KeyExchange::MlKem768 | KeyExchange::MlKem1024 => None,
    }
    .ok_or(ExchangeError::Value(method))
}

/// X448, of a point that is not of small order (RFC 7748 §6.2).
fn x448_of(private: &Secret, theirs: &[u8]) -> Option<Secret> {
    let mut scalar = Zeroizing::new([0; 56]);
    scalar.copy_from_slice(private.bytes());
    let secret = x448::x448(*scalar, theirs.try_into().ok()?).map(Zeroizing::new)?;
    secret.iter().any(|octet| *octet != 0).then(|| Secret::copy_of(&*secret))
}

/// A curve of RFC 5903.
trait Curve:
    CurveArithmetic<AffinePoint: FromSec1Point<Self> + ToSec1Point<Self>, FieldBytesSize: ModulusSize>
{
}

impl Curve for p256::NistP256 {}
impl Curve for p384::NistP384 {}
impl Curve for p521::NistP521 {}

fn scalar<C: Curve>(rng: &mut dyn CryptoRng) -> Secret {
    let mut octets = SecretKey::<C>::generate_from_rng(rng).to_bytes();
    let secret = Secret::copy_of(&octets);
    octets.zeroize();
    secret
}

fn scalar_key<C: Curve>(private: &Secret) -> SecretKey<C> {
    SecretKey::from_slice(private.bytes()).expect("a scalar of this curve was made")
}

/// Both coordinates, without the octet that says so (RFC 5903 §7).
fn point<C: Curve>(private: &Secret) -> Vec<u8> {
    scalar_key::<C>(private).public_key().to_sec1_point(false).as_bytes()[1..].to_vec()
}

/// The x coordinate of the common point (RFC 5903 §7).
fn abscissa<C: Curve>(private: &Secret, theirs: &[u8]) -> Option<Secret> {
    // RFC 6989 §2.3: coordinates below the modulus, and a point that is on the curve.
    let uncompressed = [&[4], theirs].concat();
    let theirs = PublicKey::<C>::from_sec1_bytes(&uncompressed).ok()?;
    let common = scalar_key::<C>(private).diffie_hellman(&theirs);
    Some(Secret::copy_of(common.raw_secret_bytes()))
}

/// A parameter set of FIPS 203, whose private keys are kept as seeds.
trait MlKem: Kem<DecapsulationKey: KeyInit + Decapsulate<Kem = Self>, EncapsulationKey: TryKeyInit> {}
impl MlKem for MlKem512 {}
impl MlKem for MlKem768 {}
impl MlKem for MlKem1024 {}

fn decapsulation_key<P: MlKem>(seeds: &Secret) -> P::DecapsulationKey {
    P::DecapsulationKey::new_from_slice(seeds.bytes()).expect("seeds of 64 octets were made")
}

fn encapsulation_key<P: MlKem>(seeds: &Secret) -> Vec<u8> {
    decapsulation_key::<P>(seeds).encapsulation_key().to_bytes().to_vec()
}

fn encapsulate<P: MlKem>(theirs: &[u8], rng: &mut dyn CryptoRng) -> Option<(Vec<u8>, Secret)> {
    // FIPS 203 §7.2: coefficients are below the modulus, or it is no key.
    let key = P::EncapsulationKey::new_from_slice(theirs).ok()?;
    let (ciphertext, mut shared) = key.encapsulate_with_rng(rng);
    let secret = Secret::copy_of(&shared);
    shared.zeroize();
    Some((ciphertext.to_vec(), secret))
}

fn decapsulate<P: MlKem>(seeds: &Secret, ciphertext: &[u8]) -> Secret {
    let shared = decapsulation_key::<P>(seeds).decapsulate_slice(ciphertext);
    let shared = Zeroizing::new(shared.expect("a ciphertext of this length was asked for"));
    Secret::copy_of(&shared)
}

impl Keep for Initiator {
    fn keep(&self, to: &mut Writer) {
        let Initiator { method, private } = self;
        method.keep(to);
        private.keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Initiator, Damaged> {
        let (method, private): (KeyExchange, Secret) = Keep::kept(from)?;
        // Of curves it must be less than the order, too.
        let is_right = match method {
            KeyExchange::Ecp256 => SecretKey::<p256::NistP256>::from_slice(private.bytes()).is_ok(),
            KeyExchange::Ecp384 => SecretKey::<p384::NistP384>::from_slice(private.bytes()).is_ok(),
            KeyExchange::Ecp521 => SecretKey::<p521::NistP521>::from_slice(private.bytes()).is_ok(),
            _ => private.bytes().len() == private_len(method),
        };
        if is_right { Ok(Initiator { method, private }) } else { Err(Damaged("private key")) }
    }
}

#[cfg(test)]
mod tests;
