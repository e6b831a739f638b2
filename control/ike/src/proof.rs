//! Proofs of who an end is by a key and a certificate: signatures that are to be made, and to be verified. They are jobs.

use crate::{
    connection::Connection,
    crypto::signature::{Curve, Hash, PrivateKey, PublicKey, Scheme, SignatureError},
    eap::EapError,
    message::{
        AuthMethod, Authentication, Certificate as CertificatePayload, CertificateEncoding, Identification,
    },
    pki::{
        BadCertificate, Wrong,
        certificate::Certificate,
        chain::{Shown, Trust},
        crl::Crl,
        ocsp::OcspResponse,
        revocation::Said,
    },
};
use rand_core::CryptoRng;
use std::sync::Arc;

/// Certificates of a peer that are read, at most.
const MOST_CERTIFICATES: usize = 16;

/// Connections that a peer's certificate is held against, at most.
pub(crate) const MOST_CONNECTIONS: usize = 16;

/// Why an AUTH payload proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unproven {
    /// It is of another method than what is configured.
    #[error("it proves that by {said}, and must by {wanted}")]
    Method {
        /// What it is of.
        said: AuthMethod,
        /// What is configured.
        wanted: String,
    },
    /// By a shared key, it would be whoever we are.
    #[error("it says to be us")]
    Us,
    /// There is none for the two ends.
    #[error("there is no shared key for it")]
    NoSharedKey,
    /// It is not by our shared key.
    #[error("it has another shared key")]
    SharedKey,
    /// By EAP.
    #[error(transparent)]
    Eap(#[from] EapError),
    /// After EAP it has another key than we.
    #[error("after EAP, its AUTH is not by the key of that")]
    Msk,
    /// The peer has sent no certificate, and none that is pinned is of it.
    #[error("there is no certificate of it")]
    NoCertificate,
    /// Its certificate is not to be believed.
    #[error(transparent)]
    Certificate(#[from] BadCertificate),
    /// The signature is made in no way that we know.
    #[error("its signature is of no kind that is taken")]
    Algorithm,
    /// The signature is not of the key of the certificate.
    #[error("its signature is not by the key of its certificate")]
    Signature,
    /// It is for none of several connections, each for a reason of its own.
    #[error("{0}")]
    Each(String),
}

impl Unproven {
    /// What is wrong by each of several connections.
    pub(crate) fn of_each(connections: &[&Connection], mut wrong: Vec<Unproven>) -> Unproven {
        let each = connections.iter().zip(&wrong).map(|(c, why)| format!("'{}': {why}", c.name));
        let each = each.collect::<Vec<_>>().join("; ");
        wrong.dedup();
        match <[_; 1]>::try_from(wrong) {
            Ok([why]) => why,
            Err(_) => Unproven::Each(each),
        }
    }
}

/// What is to be signed.
#[derive(Debug)]
pub struct Signing {
    pub(crate) key: Arc<PrivateKey>,
    pub(crate) method: AuthMethod,
    pub(crate) scheme: Scheme,
    /// Each for a signature of its own.
    pub(crate) octets: Vec<Vec<u8>>,
}

impl Signing {
    pub(crate) fn is_short(&self) -> bool {
        let is_fast = matches!(
            self.scheme,
            Scheme::Ecdsa(Hash::Sha256) | Scheme::EcdsaOf(Curve::P256) | Scheme::Ed25519
        );
        is_fast && self.octets.len() == 1
    }

    pub(crate) fn run(self, rng: &mut dyn CryptoRng) -> Result<Vec<Authentication>, SignatureError> {
        self.octets.iter().map(|octets| self.sign(octets, rng)).collect()
    }

    fn sign(&self, octets: &[u8], rng: &mut dyn CryptoRng) -> Result<Authentication, SignatureError> {
        let data = self.key.sign(self.scheme, octets, rng)?;
        match self.scheme.algorithm_identifier().filter(|_| self.method == AuthMethod::DIGITAL_SIGNATURE) {
            // RFC 7427 §3
            Some(algorithm) => {
                Authentication::digital_signature(algorithm, &data).map_err(|_| SignatureError::Sign)
            }
            None => Ok(Authentication { method: self.method, data }),
        }
    }
}

/// A signature, and what it may be of.
#[derive(Debug)]
pub(crate) struct Signature {
    /// Those that are not known are none.
    pub schemes: Vec<Scheme>,
    pub octets: Vec<u8>,
}

impl Signature {
    /// That of an AUTH payload (RFC 7427 §3).
    pub fn of(said: &Authentication, may_be_sha1: bool) -> Signature {
        let (mut schemes, signature) = match said.algorithm_and_signature() {
            Some((algorithm, signature)) => {
                (Vec::from_iter(Scheme::from_algorithm_identifier(algorithm)), signature)
            }
            None => (Scheme::of_method(said.method).to_vec(), &said.data[..]),
        };
        schemes.retain(|scheme| may_be_sha1 || *scheme != Scheme::RsaSha1);
        Signature { schemes, octets: signature.to_vec() }
    }
}

/// A signature to be verified.
#[derive(Debug)]
pub struct Verification {
    /// Of each connection that it may be for: the first by which it is right counts.
    pub(crate) trusts: Vec<Arc<Trust>>,
    pub(crate) id: Identification,
    /// The first of X.509 is of who has signed.
    pub(crate) certificates: Vec<CertificatePayload>,
    pub(crate) said: Signature,
    pub(crate) octets: Vec<u8>,
    pub(crate) unix_secs: u64,
}

impl Verification {
    /// By which of the trusts it is right, or what is wrong by each.
    pub(crate) fn run(self) -> Result<usize, Vec<Unproven>> {
        let (end, shown) = self.certificates().map_err(|why| vec![why])?;
        let mut wrong = vec![];
        for (n, trust) in self.trusts.iter().enumerate() {
            match self.is_right_by(trust, end.as_ref(), &shown) {
                Ok(()) => return Ok(n),
                Err(why) => wrong.push(why),
            }
        }
        Err(wrong)
    }

    /// That of who has signed, if it is there, and what it is shown with.
    fn certificates(&self) -> Result<(Option<Certificate>, Shown), Unproven> {
        let mut shown = Shown::default();
        let mut end = None;
        for payload in self.certificates.iter().take(MOST_CERTIFICATES) {
            // But for the first, they are only hints.
            match payload.encoding {
                CertificateEncoding::X509_SIGNATURE if end.is_none() => {
                    end = Some(Certificate::from_der(&payload.data)?);
                }
                CertificateEncoding::X509_SIGNATURE => {
                    shown.certificates.extend(Certificate::from_der(&payload.data));
                }
                CertificateEncoding::CRL => shown.said.extend(Crl::from_der(&payload.data).map(Said::Crl)),
                // RFC 4806 §3.1
                CertificateEncoding::OCSP_CONTENT => {
                    shown.said.extend(OcspResponse::from_der(&payload.data).map(Said::Ocsp));
                }
                _ => {}
            }
        }
        Ok((end, shown))
    }

    fn is_right_by(&self, trust: &Trust, end: Option<&Certificate>, shown: &Shown) -> Result<(), Unproven> {
        // Who says which key it has of those that are known says nothing new (RFC 7670 §3).
        if let Some(end) = end.filter(|end| trust.keys.contains(end.key())) {
            return self.is_by(trust, end.key());
        }
        let Some(end) = end else {
            let by_key = trust.keys.iter().map(|key| self.is_by(trust, key)).reduce(Result::or);
            if let Some(checked) = by_key {
                return checked;
            }
            let pinned = trust.pinned.iter().filter(|c| c.proves(&self.id));
            let checked = pinned.map(|end| self.check(trust, end, shown));
            return checked.reduce(Result::or).unwrap_or(Err(Unproven::NoCertificate));
        };
        if !end.proves(&self.id) {
            let wrong = Wrong::Identity(self.id.to_string());
            return Err(BadCertificate { subject: end.subject().to_string(), wrong }.into());
        }
        self.check(trust, end, shown)
    }

    fn check(&self, trust: &Trust, end: &Certificate, shown: &Shown) -> Result<(), Unproven> {
        trust.verify(end, shown, self.unix_secs)?;
        self.is_by(trust, end.key())
    }

    fn is_by(&self, trust: &Trust, key: &PublicKey) -> Result<(), Unproven> {
        let is_taken = |scheme: &Scheme| key.takes(*scheme) && trust.ike_demands.take(key, *scheme);
        let mut schemes = self.said.schemes.iter().copied().filter(is_taken).peekable();
        schemes.peek().ok_or(Unproven::Algorithm)?;
        match schemes.any(|scheme| key.verify(scheme, &self.octets, &self.said.octets).is_ok()) {
            true => Ok(()),
            false => Err(Unproven::Signature),
        }
    }
}
