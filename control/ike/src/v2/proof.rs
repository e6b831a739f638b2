//! AUTH payloads: how an end proves who it is (RFC 7296 §2.15): by a shared key, by a signature (RFC 7427), or not at all
//! (RFC 7619).
//!
//! Signatures are made and verified as jobs; all else is there at once.

use super::{
    context::Context,
    ike_sa::{Closed, IkeSa},
    job::Job,
};
use crate::{
    connection::{LocalAuth, RemoteAuth},
    crypto::{
        Secret, auth,
        keys::Role,
        signature::{Curve, Hash, PrivateKey, PublicKey, Scheme, SignatureError},
    },
    eap::EapError,
    identity::IdPattern,
    message::{
        AuthMethod, Authentication, Certificate as CertificatePayload, CertificateEncoding,
        CertificateRequest, Identification, Notify, NotifyType, Payload, Payloads,
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

/// The hashes that we take signatures of: SHA2-256 to SHA2-512, and Identity, which is Ed25519's (RFC 7427 §4, RFC 8420
/// §2).
const HASHES: [u16; 4] = [2, 3, 4, 5];

/// Certificates of a peer that are read, at most.
const MOST_CERTIFICATES: usize = 16;

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
}

/// What is to be signed.
#[derive(Debug)]
pub struct Signing {
    key: Arc<PrivateKey>,
    method: AuthMethod,
    scheme: Scheme,
    /// Each for a signature of its own.
    octets: Vec<Vec<u8>>,
}

impl Signing {
    pub(super) fn is_short(&self) -> bool {
        let is_fast = matches!(
            self.scheme,
            Scheme::Ecdsa(Hash::Sha256) | Scheme::EcdsaOf(Curve::P256) | Scheme::Ed25519
        );
        is_fast && self.octets.len() == 1
    }

    pub(super) fn run(self, rng: &mut dyn CryptoRng) -> Result<Vec<Authentication>, SignatureError> {
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

/// A signature to be verified.
#[derive(Debug)]
pub struct Verification {
    trust: Arc<Trust>,
    id: Identification,
    /// The first of X.509 is of who has signed.
    certificates: Vec<CertificatePayload>,
    said: Authentication,
    may_be_sha1: bool,
    octets: Vec<u8>,
    unix_secs: u64,
}

impl Verification {
    pub(super) fn run(self) -> Result<(), Unproven> {
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
        let Some(end) = end else {
            let pinned = self.trust.pinned.iter().filter(|c| c.proves(&self.id));
            let checked = pinned.map(|end| self.check(end, &shown));
            return checked.reduce(Result::or).unwrap_or(Err(Unproven::NoCertificate));
        };
        if !end.proves(&self.id) {
            let wrong = Wrong::Identity(self.id.to_string());
            return Err(BadCertificate { subject: end.subject().to_string(), wrong }.into());
        }
        self.check(&end, &shown)
    }

    fn check(&self, end: &Certificate, shown: &Shown) -> Result<(), Unproven> {
        self.trust.verify(end, shown, self.unix_secs)?;
        self.is_by(end.key())
    }

    fn is_by(&self, key: &PublicKey) -> Result<(), Unproven> {
        let (schemes, signature) = match self.said.algorithm_and_signature() {
            Some((algorithm, signature)) => {
                let scheme = Scheme::from_algorithm_identifier(algorithm).ok_or(Unproven::Algorithm)?;
                (vec![scheme], signature)
            }
            None => (Scheme::of_method(self.said.method).to_vec(), &self.said.data[..]),
        };
        let is_taken = |scheme: &Scheme| {
            let is_new = self.may_be_sha1 || *scheme != Scheme::RsaSha1;
            key.takes(*scheme) && is_new && self.trust.ike_demands.take(key, *scheme)
        };
        let mut schemes = schemes.into_iter().filter(is_taken).peekable();
        schemes.peek().ok_or(Unproven::Algorithm)?;
        match schemes.any(|scheme| key.verify(scheme, &self.octets, signature).is_ok()) {
            true => Ok(()),
            false => Err(Unproven::Signature),
        }
    }
}

/// AUTH payloads of ours.
pub(super) enum Proof {
    Made(Vec<Authentication>),
    Job(Box<Signing>),
}

impl Proof {
    /// Another one behind it, of the same kind.
    pub fn and(self, other: Proof) -> Proof {
        match (self, other) {
            (Proof::Made(mut all), Proof::Made(more)) => {
                all.extend(more);
                Proof::Made(all)
            }
            (Proof::Job(mut signing), Proof::Job(more)) => {
                signing.octets.extend(more.octets);
                Proof::Job(signing)
            }
            (one, _) => one,
        }
    }
}

/// The hashes that the peer takes signatures of, if it takes digital signatures.
pub(super) fn hashes(payloads: &Payloads) -> Option<Vec<u16>> {
    let notify = payloads.notifies(NotifyType::SIGNATURE_HASH_ALGORITHMS).next()?;
    Some(notify.data.as_chunks().0.iter().map(|id| u16::from_be_bytes(*id)).collect())
}

/// Who must have issued a certificate (RFC 7296 §3.7).
pub(super) fn certificate_request<'a>(trusts: impl Iterator<Item = &'a Trust>) -> Option<Payload> {
    let mut hashes: Vec<_> =
        trusts.flat_map(|trust| &trust.anchors).map(|anchor| *anchor.key_hash()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    let request =
        CertificateRequest { encoding: CertificateEncoding::X509_SIGNATURE, authority: hashes.concat() };
    (!hashes.is_empty()).then_some(Payload::CertificateRequest(request))
}

impl IkeSa {
    /// What is said of signatures in IKE_SA_INIT, where there are any.
    pub(super) fn signature_payloads(&self, cx: &Context<'_>) -> Vec<Payload> {
        let data = HASHES.map(u16::to_be_bytes).concat();
        let notify = Payload::Notify(Notify::new(NotifyType::SIGNATURE_HASH_ALGORITHMS, &data));
        if self.role() == Role::Initiator {
            return self.connection.has_signatures().then_some(notify).into_iter().collect();
        }
        // It is not known yet which of these it is.
        let connections = cx.config.between(self.path.local, self.path.peer);
        let trusts = connections.iter().filter_map(|connection| match &connection.remote_auth {
            RemoteAuth::PublicKey(trust) => Some(&**trust),
            _ => None,
        });
        // RFC 7427 §4: who does not say it does not know of it.
        let says = self.peer_hashes.is_some() && connections.iter().any(|c| c.has_signatures());
        certificate_request(trusts).into_iter().chain(says.then_some(notify)).collect()
    }

    /// What an end signs.
    pub(super) fn signed_octets(&self, who: Role, id: &Identification) -> Option<Vec<u8>> {
        let (keys, init) = (self.keys.as_ref()?, self.init.as_ref()?);
        let (message, nonce) = match who {
            Role::Initiator => (&init.request, &init.nr),
            Role::Responder => (&init.response, &init.ni),
        };
        Some(auth::signed_octets(
            keys.suite().prf(),
            message,
            nonce,
            keys.sk_p(who),
            &id.body(),
            &init.int_auth(),
        ))
    }

    /// AUTH of an end by a shared key, or without one by what all who have seen the messages know.
    pub(super) fn by_key(&self, who: Role, id: &Identification, key: Option<&Secret>) -> Option<Secret> {
        let keys = self.keys.as_ref()?;
        // RFC 7619 §2.1
        let key = key.unwrap_or(keys.sk_p(who));
        Some(auth::by_shared_key(keys.suite().prf(), key.bytes(), &self.signed_octets(who, id)?))
    }

    /// Proves that we are who we say.
    pub(super) fn prove(
        &self,
        auth: &LocalAuth,
        (mine, theirs): &(Identification, Identification),
        cx: &Context<'_>,
    ) -> Result<Proof, Closed> {
        let role = self.role();
        if let Some(proof) = self.resumption_proof(role, mine) {
            return Ok(Proof::Made(vec![proof]));
        }
        let (method, key) = match auth {
            LocalAuth::SharedKey => {
                let key = cx.config.shared_key(mine, theirs);
                let key = key.ok_or(Closed::Configured("there is no shared key for this connection"))?;
                (AuthMethod::SHARED_KEY, Some(key))
            }
            LocalAuth::Null => (AuthMethod::NULL, None),
            LocalAuth::Eap(_) => return Err(Closed::Configured("EAP is for who begins")),
            LocalAuth::PublicKey(credential) => {
                let (method, scheme) = credential
                    .method(self.peer_hashes.as_deref())
                    .ok_or(Closed::Configured("the peer takes no signature that our key can make"))?;
                let octets = vec![self.signed_octets(role, mine).ok_or(TOO_EARLY)?];
                let signing = Signing { key: credential.key().clone(), method, scheme, octets };
                return Ok(Proof::Job(Box::new(signing)));
            }
        };
        let data = self.by_key(role, mine, key).ok_or(TOO_EARLY)?.bytes().to_vec();
        Ok(Proof::Made(vec![Authentication { method, data }]))
    }

    /// Whether the peer has proven to be who it says; what is to be done to know it, if that takes long.
    pub(super) fn check(
        &self,
        auth: &RemoteAuth,
        (mine, theirs): (&Identification, &Identification),
        said: &Authentication,
        payloads: &Payloads,
        cx: &Context<'_>,
    ) -> Result<Option<Job>, Closed> {
        if self.resumed.is_some() {
            return self.check_resumed(theirs, said).map(|()| None);
        }
        let wrong = |why| Closed::Authentication { who: theirs.to_string(), why };
        if !auth.takes(said.method) {
            return Err(wrong(Unproven::Method { said: said.method, wanted: auth.to_string() }));
        }
        let who = match self.role() {
            Role::Initiator => Role::Responder,
            Role::Responder => Role::Initiator,
        };
        let key = match auth {
            RemoteAuth::PublicKey(trust) => {
                let certificates = payloads.certificates().cloned().collect();
                let verification = Verification {
                    trust: trust.clone(),
                    id: theirs.clone(),
                    certificates,
                    said: said.clone(),
                    // Who takes better ones can make them, too.
                    may_be_sha1: self.peer_hashes.is_none(),
                    octets: self.signed_octets(who, theirs).ok_or(TOO_EARLY)?,
                    unix_secs: cx.unix_secs,
                };
                return Ok(Some(Job::Verify(Box::new(verification))));
            }
            // Whoever shares a key with us would be taken for us.
            RemoteAuth::SharedKey if IdPattern::from(mine).fits(theirs).is_some() => {
                return Err(wrong(Unproven::Us));
            }
            RemoteAuth::SharedKey => {
                let key = cx.config.shared_key(mine, theirs);
                Some(key.ok_or_else(|| wrong(Unproven::NoSharedKey))?)
            }
            RemoteAuth::Null => None,
            RemoteAuth::Eap(_) => {
                return Err(wrong(Unproven::Method { said: said.method, wanted: auth.to_string() }));
            }
        };
        match self.by_key(who, theirs, key) {
            Some(proof) if proof == Secret::copy_of(&said.data) => Ok(None),
            _ => Err(wrong(Unproven::SharedKey)),
        }
    }
}

/// IKE_AUTH begins behind IKE_SA_INIT, so this is not seen.
const TOO_EARLY: Closed = Closed::Configured("there are no keys yet");

impl Payloads {
    /// Certificates and what goes with them, in their order.
    fn certificates(&self) -> impl Iterator<Item = &CertificatePayload> {
        self.0.iter().filter_map(|payload| match payload {
            Payload::Certificate(certificate) => Some(certificate),
            _ => None,
        })
    }
}
