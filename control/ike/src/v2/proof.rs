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
    crypto::{Secret, auth, keys::Role},
    identity::IdPattern,
    message::{
        AuthMethod, Authentication, Certificate as CertificatePayload, CertificateEncoding,
        CertificateRequest, Identification, Notify, NotifyType, Payload, Payloads,
    },
    pki::chain::Trust,
};

use crate::proof::Signature;
pub use crate::proof::{Signing, Unproven, Verification};

/// The hashes that we take signatures of: SHA2-256 to SHA2-512, and Identity, which is Ed25519's (RFC 7427 §4, RFC 8420
/// §2).
const HASHES: [u16; 4] = [2, 3, 4, 5];

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
pub(super) fn hashes(payloads: &Payloads) -> Option<Box<[u16]>> {
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
        let asking = connections.iter().filter(|connection| connection.asks_for_certificates);
        let trusts = asking.flat_map(|connection| connection.trusts());
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
            LocalAuth::Missing => {
                return Err(Closed::Configured(
                    "the connection's keys or authorities are not loaded any more",
                ));
            }
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
            return self.check_resumed(mine, theirs, said).map(|()| None);
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
                    trusts: vec![trust.clone()],
                    id: theirs.clone(),
                    certificates,
                    // Who takes better ones can make them, too.
                    said: Signature::of(said, self.peer_hashes.is_none()),
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
    /// Whether the peer asks for certificates (RFC 7296 §3.7).
    pub(super) fn asks_for_certificates(&self) -> bool {
        let is_request = |payload: &Payload| matches!(payload, Payload::CertificateRequest(r) if r.encoding == CertificateEncoding::X509_SIGNATURE);
        self.0.iter().any(is_request)
    }

    /// Certificates and what goes with them, in their order.
    fn certificates(&self) -> impl Iterator<Item = &CertificatePayload> {
        self.0.iter().filter_map(|payload| match payload {
            Payload::Certificate(certificate) => Some(certificate),
            _ => None,
        })
    }
}
