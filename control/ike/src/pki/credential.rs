//! What an end signs with: a private key, and certificates that say whose it is, if the peer does not know it by itself.

use super::{certificate::Certificate, chain};
use crate::{
    crypto::signature::{PrivateKey, PublicKey, Scheme, demand::Demands},
    message::{AuthMethod, Certificate as CertificatePayload, CertificateEncoding},
};
use std::sync::Arc;

/// A private key with its certificates.
#[derive(Clone, Debug)]
pub struct Credential {
    key: Arc<PrivateKey>,
    public: PublicKey,
    certificates: Vec<Certificate>,
    demands: Demands,
}

/// Why a private key and certificates do not go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mismatch {
    /// There is no certificate.
    #[error("there is no certificate for the private key")]
    NoCertificate,
    /// The first is of another key.
    #[error("the certificate is of another key than the private one")]
    Key,
}

impl Credential {
    /// Of certificates the first is of the key, and each further one of who has issued the one before it.
    pub fn new(key: PrivateKey, certificates: Vec<Certificate>) -> Result<Credential, Mismatch> {
        let first = certificates.first().ok_or(Mismatch::NoCertificate)?;
        match *first.key() == key.public_key() {
            true => Ok(Credential { certificates, ..Credential::raw(key) }),
            false => Err(Mismatch::Key),
        }
    }

    /// Without a certificate: peers have the public key.
    pub fn raw(key: PrivateKey) -> Credential {
        let public = key.public_key();
        Credential { key: Arc::new(key), public, certificates: vec![], demands: Demands::default() }
    }

    /// This one, to sign as is demanded, the best first.
    pub fn demanding(self, demands: Demands) -> Credential {
        Credential { demands, ..self }
    }

    /// With who has issued the last of its certificates, and so on, of authorities that are known: a peer may know them not.
    /// Who signs itself is left out, since a peer has it or does not believe it.
    pub fn with_issuers<'a>(mut self, known: impl Iterator<Item = &'a Certificate> + Clone) -> Credential {
        while let Some(last) = self.certificates.last().filter(|last| !last.is_self_issued())
            && self.certificates.len() < chain::MOST - 1
        {
            let has_issued = |c: &&Certificate| {
                last.may_be_of(c) && !c.is_self_issued() && c.is_authority() && last.verify(c).is_ok()
            };
            let Some(issuer) = known.clone().find(has_issued) else { break };
            self.certificates.push(issuer.clone());
        }
        self
    }

    /// The private key.
    pub fn key(&self) -> &Arc<PrivateKey> {
        &self.key
    }

    /// What verifies its signatures.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The certificate of the key, if there is one.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificates.first()
    }

    /// What is sent of it: the first is that of the key (RFC 7296 §3.6).
    pub fn payloads(&self) -> impl Iterator<Item = CertificatePayload> {
        let encoding = CertificateEncoding::X509_SIGNATURE;
        self.certificates.iter().map(move |c| CertificatePayload { encoding, data: c.der().to_vec() })
    }

    /// How it signs for an end that takes digital signatures of these hashes, or none (RFC 7427 §4).
    pub fn method(&self, hashes: Option<&[u16]>) -> Option<(AuthMethod, Scheme)> {
        let key = &self.public;
        let is_taken =
            |scheme: &&Scheme| scheme.hash_id().is_some_and(|id| hashes.unwrap_or_default().contains(&id));
        let ranked = key.schemes().iter().filter(is_taken);
        let ranked = ranked.filter_map(|scheme| Some((self.demands.rank(key, *scheme)?, *scheme)));
        match ranked.min_by_key(|(rank, _)| *rank) {
            Some((_, scheme)) => Some((AuthMethod::DIGITAL_SIGNATURE, scheme)),
            None => older(key).filter(|(_, scheme)| self.demands.take(key, *scheme)),
        }
    }
}

/// The older method of a key, if there is one.
fn older(key: &PublicKey) -> Option<(AuthMethod, Scheme)> {
    const METHODS: [AuthMethod; 4] = [
        AuthMethod::RSA_SIGNATURE,
        AuthMethod::ECDSA_SHA256_P256,
        AuthMethod::ECDSA_SHA384_P384,
        AuthMethod::ECDSA_SHA512_P521,
    ];
    let all = METHODS.into_iter().filter_map(|method| Some((method, *Scheme::of_method(method).first()?)));
    all.into_iter().find(|(_, scheme)| key.takes(*scheme))
}
