//! Who both ends are, and how they prove it in the last two messages of phase 1 (RFC 2409 §5.1, §5.4): by a HASH payload that
//! only who has the shared key can make, or by a signature over it. In hybrid authentication one end signs, and the other has a HASH
//! payload that whoever has exchanged keys can make: who it is, its user proves behind it.
//!
//! # Dangers
//! Until the peer has proven who it is, nothing of another ISAKMP SA, nor of what is configured, changes by what it says.

use super::{
    ike_sa::{IkeSa, Legacy, Task, Then},
    keys::{Iv, Keys},
    main_mode::EXCHANGE,
    messages::Message,
    oakley,
    phase_1::Expects,
};
use crate::{
    closed::Closed,
    connection::{Connection, LocalAuth, RemoteAuth, SendCertificates, Unique},
    contacts::Ids,
    context::Context,
    crypto::{Secret, cipher::OpenError, keys::Role},
    identity::{Fit, IdPattern},
    ike_sa::Phase,
    job::{Job, Outcome},
    message::{
        AuthMethod, CertificateEncoding, CertificateRequest, ExchangeType, Identification,
        isakmp::{Chain, Notify, NotifyType, Payload},
    },
    output::Event,
    proof::{MOST_CONNECTIONS, Signature, Signing, Unproven, Verification},
    v2::channel::Dropped,
};
use std::sync::Arc;

/// Who we say to be, as what we prove it.
#[derive(Debug)]
pub(super) struct Proven {
    pub ids: (Identification, Identification),
    /// The peer's proof, if it is answered.
    pub said: Option<Said>,
}

/// What the peer has said of itself, until it is known whether it is so.
#[derive(Debug)]
pub(super) struct Said {
    connection: Arc<Connection>,
    /// Others that it may be for as well, as its certificate says, and who we are in each.
    others: Vec<Found>,
    pub ids: (Identification, Identification),
    pub digest: [u8; 32],
    pub next: Option<Iv>,
    notifies: Vec<Notify>,
}

/// A connection that may be for a peer, and who we are in it.
type Found = (Arc<Connection>, Identification);

/// What phase 1 has come to, besides keys.
#[derive(Debug)]
pub(super) struct Concluded {
    /// The peer says that it knows no other with us.
    pub is_only: bool,
    /// How long the initiator has it, in seconds, if that is the peer.
    life_secs: Option<u64>,
}

impl Said {
    /// It is known whether the peer's signature is right, and for which connection.
    fn verified(&mut self, verified: Result<usize, Vec<Unproven>>) -> Result<(), Closed> {
        let others = std::mem::take(&mut self.others);
        let n = verified.map_err(|wrong| {
            let connections = [&*self.connection].into_iter().chain(others.iter().map(|(c, _)| &**c));
            let why = Unproven::of_each(&connections.collect::<Vec<_>>(), wrong);
            Closed::Authentication { who: self.ids.1.to_string(), why }
        })?;
        if let Some(found) = n.checked_sub(1).and_then(|n| others.into_iter().nth(n)) {
            (self.connection, self.ids.0) = found;
        }
        Ok(())
    }

    /// The peer says that it knows no other with us.
    fn is_only(&self) -> bool {
        self.notifies.iter().any(|notify| notify.kind == NotifyType::INITIAL_CONTACT)
    }
}

impl IkeSa {
    /// Who the peer is, as long as it has not proven it: who it says to be, who it was, who is configured, or its address.
    pub(super) fn expected_peer(&self) -> Identification {
        let named = self.phase_1.as_ref().and_then(|phase_1| phase_1.named.as_ref());
        let expected = named.map(|named| &named.theirs).or(self.expected.as_ref()).cloned();
        let theirs = expected.or_else(|| self.connection.remote_id.identity());
        theirs.unwrap_or_else(|| Identification::of_address(self.path.peer.ip()))
    }

    /// HASH_I or HASH_R.
    fn proof_of(&self, who: Role, id: &Identification) -> Option<Secret> {
        let (keys, phase_1) = (self.keys.as_ref()?, self.phase_1.as_ref()?);
        Some(keys.proof(who, phase_1.exchanged(), self.spis, &id.body()))
    }

    /// Proves that we are who we say.
    pub(super) fn prove(&mut self, proven: Proven, cx: &mut Context<'_>) {
        let connection = proven.said.as_ref().map_or(&self.connection, |said| &said.connection).clone();
        let (Some(proof), Some(suite)) = (self.proof_of(self.role, &proven.ids.0), &self.suite) else {
            return;
        };
        match (suite.scheme(self.role), &connection.local_auth) {
            (Some(scheme), LocalAuth::PublicKey(credential)) => {
                let octets = vec![proof.bytes().to_vec()];
                let (key, method) = (credential.key().clone(), AuthMethod::RSA_SIGNATURE);
                let signing = Box::new(Signing { key, method, scheme, octets });
                let then = match self.role {
                    Role::Initiator => Then::ProofAsk(Box::new(proven)),
                    Role::Responder => Then::ProofAnswer(Box::new(proven)),
                };
                self.after(Job::Sign(signing), then, cx);
            }
            (None, _) => self.say_proof(proven, Payload::Hash(proof.bytes().to_vec()), cx),
            _ => self.close(Closed::Configured("it has no key that signs"), cx),
        }
    }

    fn signed(&mut self, proven: Proven, outcome: Outcome, cx: &mut Context<'_>) {
        match outcome {
            Outcome::Signed(Ok(signatures)) if signatures.len() == 1 => {
                let data =
                    signatures.into_iter().map(|signature| signature.data).collect::<Vec<_>>().concat();
                self.say_proof(proven, Payload::Signature(data), cx);
            }
            _ => self.close(Closed::Configured("our private key does not sign"), cx),
        }
    }

    /// An initiator has signed.
    pub(super) fn proof_ask(&mut self, proven: Proven, outcome: Outcome, cx: &mut Context<'_>) {
        self.signed(proven, outcome, cx);
    }

    /// A responder has signed.
    pub(super) fn proof_answer(&mut self, proven: Proven, outcome: Outcome, cx: &mut Context<'_>) {
        self.signed(proven, outcome, cx);
    }

    /// Says who we are, and proves it.
    fn say_proof(&mut self, proven: Proven, proof: Payload, cx: &mut Context<'_>) {
        let connection = proven.said.as_ref().map_or(&self.connection, |said| &said.connection).clone();
        // Who begins in aggressive mode has said it.
        let says_id = !self.is_aggressive() || self.role == Role::Responder;
        let id = says_id.then(|| Payload::Identification(proven.ids.0.clone()));
        let mut payloads: Vec<_> = id.into_iter().collect();
        let is_asked = self.phase_1.as_ref().is_some_and(|phase_1| phase_1.is_asked);
        let sends = match connection.sends_certificates {
            SendCertificates::Asked => is_asked,
            SendCertificates::Always => true,
            SendCertificates::Never => false,
        };
        if let (LocalAuth::PublicKey(credential), true) = (&connection.local_auth, sends) {
            let certificates =
                credential.payloads().filter(|c| c.encoding == CertificateEncoding::X509_SIGNATURE);
            payloads.extend(certificates.map(Payload::Certificate));
        }
        payloads.push(proof);
        match proven.said {
            None if self.is_aggressive() => self.say_second(payloads, cx),
            Some(said) if self.is_aggressive() => self.say_third(&said, payloads, cx),
            None => {
                payloads.extend(self.initial_contact(&proven.ids));
                let Some(iv) = self.phase_1.as_ref().and_then(|p| p.iv) else { return };
                let (datagrams, next) = self.sealed(EXCHANGE, 0, iv, &payloads);
                self.ask(datagrams, cx);
                self.ids = Some(proven.ids);
                if let Some(phase_1) = &mut self.phase_1 {
                    (phase_1.iv, phase_1.expects) = (Some(next), Expects::Proof);
                }
            }
            Some(said) => {
                let Some(iv) = said.next else { return };
                let (datagrams, next) = self.sealed(EXCHANGE, 0, iv, &payloads);
                self.connection = said.connection.clone();
                self.path = self.answer_path;
                self.answer(said.digest, datagrams, cx);
                self.establish(&said, next, cx);
            }
        }
    }

    /// The notification that we know no other of these two.
    pub(super) fn initial_contact(&self, ids: &(Identification, Identification)) -> Option<Payload> {
        // Of whom it is not known who it is, it is not known either whether there is another.
        let is_known = self.expected.is_none() && self.connection.remote_id.identity().is_some();
        let says_so = is_known
            && self.connection.unique != Unique::Never
            && self.contacts.others(ids, self.id).is_empty();
        let cookies = (self.spis.initiator, self.spis.responder);
        says_so.then(|| Payload::Notify(Notify::of_ike_sa(NotifyType::INITIAL_CONTACT, cookies, &[])))
    }

    /// The peer says who it is, and proves it.
    pub(super) fn check_peer(&mut self, message: Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let Message { digest, chain, next, .. } = message;
        let named = self.phase_1.as_ref().and_then(|phase_1| phase_1.named.as_ref());
        let said = named.map(|named| &named.theirs).or_else(|| chain.identification());
        let theirs = said.ok_or(Dropped::Sealing)?.clone();
        let peer = oakley::other(self.role);
        let scheme = self.suite.as_ref().ok_or(Dropped::Sealing)?.scheme(peer);
        let proof = self.proof_of(peer, &theirs).ok_or(Dropped::Sealing)?;
        if scheme.is_none() && chain.hash().map(Secret::copy_of).as_ref() != Some(&proof) {
            return Err(Dropped::Open(OpenError::Icv));
        }
        let found = match self.role {
            Role::Initiator => self.whom_we_asked(&theirs, cx).map(|found| vec![found]),
            Role::Responder if self.is_aggressive() => {
                self.nat = self.detect_nat(&chain);
                Ok(vec![(self.connection.clone(), self.connection.identity(self.path.local.ip()))])
            }
            Role::Responder => Ok(self.connections_of(&theirs, &self.connections(cx), cx)),
        };
        let found = found.map(|found| found.into_iter());
        let found =
            found.and_then(|mut found| Ok((found.next().ok_or_else(|| self.nobody(&theirs, cx))?, found)));
        let ((connection, mine), others) = match found {
            Ok(found) => found,
            Err(closed) => {
                self.refuse_peer(closed, cx);
                return Ok(());
            }
        };
        if let Some(phase_1) = &mut self.phase_1 {
            phase_1.is_asked |= are_requested(&chain);
        }
        // No proof is over what else is said: in clear, anybody can have said it.
        let notifies = chain.notifies().filter(|_| next.is_some()).cloned().collect();
        let others = others.filter(|(c, _)| matches!(c.remote_auth, RemoteAuth::PublicKey(_))).collect();
        let said = Said { connection, others, ids: (mine, theirs), digest, next, notifies };
        let wrong = |why, said: &Said| Closed::Authentication { who: said.ids.1.to_string(), why };
        match (scheme, &said.connection.remote_auth) {
            (None, _) => {
                // Whoever shares a key with us would be taken for us.
                match IdPattern::from(&said.ids.0).fits(&said.ids.1) {
                    None => self.peer_proven(said, cx),
                    Some(_) => self.refuse_peer(wrong(Unproven::Us, &said), cx),
                }
            }
            (Some(scheme), RemoteAuth::PublicKey(trust)) => {
                let Some(octets) = chain.signature() else {
                    if self.is_anybodys(&said) {
                        return Err(Dropped::Sealing);
                    }
                    self.refuse_peer(wrong(Unproven::Algorithm, &said), cx);
                    return Ok(());
                };
                if self.is_anybodys(&said) {
                    self.may_check()?;
                }
                // RFC 2407 §4.6.2: protocol and port say nothing of who it is.
                let id = Identification::new(said.ids.1.kind, &said.ids.1.data);
                let of_others = said.others.iter().filter_map(|(other, _)| match &other.remote_auth {
                    RemoteAuth::PublicKey(trust) => Some(trust),
                    _ => None,
                });
                let verification = Verification {
                    trusts: [trust].into_iter().chain(of_others).cloned().collect(),
                    id,
                    certificates: chain.certificates().cloned().collect(),
                    said: Signature { schemes: vec![scheme], octets: octets.to_vec() },
                    octets: proof.bytes().to_vec(),
                    unix_secs: cx.unix_secs,
                };
                if let Some(phase_1) = &mut self.phase_1 {
                    phase_1.expects = Expects::Nothing;
                }
                self.open = None;
                self.after(Job::Verify(Box::new(verification)), Then::Verified(Box::new(said)), cx);
            }
            _ => self.refuse_peer(wrong(Unproven::NoCertificate, &said), cx),
        }
        Ok(())
    }

    /// It is known whether the peer's signature is right.
    pub(super) fn verified(&mut self, mut said: Said, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Verified(verified) = outcome else { return };
        match said.verified(verified) {
            Ok(()) => self.peer_proven(said, cx),
            Err(closed) if self.is_anybodys(&said) => self.wait_for_third(closed),
            Err(closed) => self.refuse_peer(closed, cx),
        }
    }

    /// The peer is who it says.
    fn peer_proven(&mut self, said: Said, cx: &mut Context<'_>) {
        let named = self.phase_1.as_ref().and_then(|phase_1| phase_1.named.as_ref());
        if named.is_some_and(|named| !named.is_somebody) {
            return self.refuse_peer(self.nobody(&said.ids.1, cx), cx);
        }
        if !self.asks_user()
            && let Err(closed) = self.may_be(&said.ids, &said.connection, said.is_only())
        {
            return self.refuse_peer(closed, cx);
        }
        match (self.role, said.next) {
            (Role::Initiator, _) if self.is_aggressive() => self.ask_third(said, cx),
            (Role::Responder, _) if self.is_aggressive() => self.take_third(&said, cx),
            (Role::Initiator, Some(last)) => {
                self.note(said.digest);
                self.establish(&said, last, cx);
            }
            (Role::Responder, _) => {
                if let Some(phase_1) = &mut self.phase_1 {
                    phase_1.expects = Expects::Nothing;
                }
                self.prove(Proven { ids: said.ids.clone(), said: Some(said) }, cx);
            }
            _ => {}
        }
    }

    /// Whether there may be another of the same two.
    pub(super) fn may_be(&self, ids: &Ids, of: &Connection, is_only: bool) -> Result<(), Closed> {
        let others = self.contacts.others(ids, self.id);
        let is_elsewhere = !self.contacts.is_at(ids, self.path.peer.ip());
        match of.unique {
            Unique::Keep if !others.is_empty() && !is_only && is_elsewhere => {
                Err(Closed::NotUnique(ids.1.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// What becomes of others of the same two: the peer knows no other, or they go on as this one.
    fn take_places(&mut self, is_only: bool) {
        let others = match self.connection.unique {
            Unique::Never => vec![],
            _ => self.contact_ids().map(|ids| self.contacts.others(&ids, self.id)).unwrap_or_default(),
        };
        let legacy = |other| if is_only { Legacy::Superseded(other) } else { Legacy::Heir(other) };
        self.legacies.extend(others.into_iter().map(legacy));
    }

    /// Phase 1 is over.
    pub(super) fn establish(&mut self, said: &Said, last: Iv, cx: &mut Context<'_>) {
        let life_secs = self.phase_1.take().and_then(|phase_1| phase_1.life_secs);
        (self.open, self.doubt) = (None, None);
        self.last = Some(last);
        self.ids = Some(said.ids.clone());
        self.keys.iter_mut().for_each(Keys::forget_proofs);
        let concluded = Concluded { is_only: said.is_only(), life_secs };
        match self.has_user() {
            true => self.begin_user(concluded, cx),
            false => self.be_established(concluded, cx),
        }
    }

    /// Both ends are authenticated.
    pub(super) fn be_established(&mut self, concluded: Concluded, cx: &mut Context<'_>) {
        (self.doubt, self.deadline_ms) = (None, u64::MAX);
        self.phase = Phase::Established;
        self.established_ms = Some(cx.now_ms);
        self.heard_ms = cx.now_ms;
        self.live_for(concluded.life_secs, cx);
        self.event(Event::Established, cx);
        self.take_places(concluded.is_only);
        self.begin_configuration(cx);
        self.tasks.extend(self.wanted.take().map(Task::Child));
    }

    /// Whether the responder is who we have asked for.
    pub(super) fn whom_we_asked(
        &self,
        theirs: &Identification,
        cx: &Context<'_>,
    ) -> Result<(Arc<Connection>, Identification), Closed> {
        is_of_ike(theirs)?;
        let wanted = &self.connection.remote_id;
        let shared = self.phase_1.as_ref().and_then(|p| p.shared.as_ref());
        let has_key =
            |mine: &Identification| shared.is_none_or(|key| cx.config.shared_key(mine, theirs) == Some(key));
        match (wanted.fits(theirs), &self.ids) {
            (Some(_), Some((mine, _))) if has_key(mine) => Ok((self.connection.clone(), mine.clone())),
            // Whoever has the key of another is not that one.
            (Some(_), Some(_)) => {
                Err(Closed::Authentication { who: theirs.to_string(), why: Unproven::SharedKey })
            }
            _ => Err(Closed::Identity { found: theirs.to_string(), wanted: wanted.to_string() }),
        }
    }

    /// The connections for an initiator, and who we are to it: of those that its addresses fit and that allow what was agreed on,
    /// those that fit best who it says to be.
    pub(super) fn connections_of(
        &self,
        theirs: &Identification,
        all: &[Arc<Connection>],
        cx: &Context<'_>,
    ) -> Vec<Found> {
        if is_of_ike(theirs).is_err() {
            return vec![];
        }
        let is_by_key = self.suite.as_ref().is_some_and(|suite| suite.is_by_key());
        let shared = self.phase_1.as_ref().and_then(|p| p.shared.as_ref());
        let fits = |c: &Arc<Connection>| {
            let mine = c.identity(self.path.local.ip());
            let key = cx.config.shared_key(&mine, theirs);
            let has_key = !is_by_key || key.is_some() && shared.is_none_or(|shared| key == Some(shared));
            let fit: Fit = c.remote_id.fits(theirs).filter(|_| has_key)?;
            Some((fit, (c.clone(), mine)))
        };
        let found: Vec<_> = all.iter().filter_map(fits).collect();
        let best = found.iter().map(|(fit, _)| *fit).max();
        let found = found.into_iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, found)| found);
        found.take(MOST_CONNECTIONS).collect()
    }

    /// There is none.
    pub(super) fn nobody(&self, theirs: &Identification, cx: &Context<'_>) -> Closed {
        if let Err(closed) = is_of_ike(theirs) {
            return closed;
        }
        let between = cx.config.between_v1(self.path.local, self.path.peer, self.is_aggressive());
        let misfits = between.iter().take(8).map(|c| format!("'{}' is for {}", c.name, c.remote_id));
        let misfits = misfits.collect::<Vec<_>>().join("; ");
        Closed::Nobody { theirs: theirs.to_string(), asked: None, misfits }
    }

    /// The peer is not who it should be, and is told so.
    pub(super) fn refuse_peer(&mut self, why: Closed, cx: &mut Context<'_>) {
        let cookies = (self.spis.initiator, self.spis.responder);
        let notify = Notify::of_ike_sa(NotifyType::AUTHENTICATION_FAILED, cookies, &[]);
        let datagrams = self.clear(
            ExchangeType::INFORMATIONAL_V1,
            u32::from_be_bytes(cx.random()) | 1,
            &[Payload::Notify(notify)],
        );
        self.send(datagrams, self.answer_path, cx);
        self.close(why, cx);
    }
}

/// Whether the protocol and port of an identity are none, or those of IKE, which a NAT may have moved (RFC 2407 §4.6.2).
fn is_of_ike(id: &Identification) -> Result<(), Closed> {
    let [protocol, port @ ..] = id.reserved;
    match (protocol, u16::from_be_bytes(port)) {
        (0, 0) | (17, 0 | 500 | 4500) => Ok(()),
        (_, port) => Err(Closed::Identity {
            found: format!("{id} of protocol {protocol}, port {port}"),
            wanted: "of no protocol, or of UDP and port 500".to_owned(),
        }),
    }
}

/// Whether some certificate of ours is wanted.
pub(super) fn are_requested(chain: &Chain) -> bool {
    let is_request = |payload: &Payload| matches!(payload, Payload::CertificateRequest(r) if r.encoding == CertificateEncoding::X509_SIGNATURE);
    chain.payloads.iter().any(is_request)
}

/// Whose certificates are wanted (RFC 2408 §3.10).
pub(super) fn requests<'a>(connections: impl Iterator<Item = &'a Arc<Connection>>) -> Vec<Payload> {
    let mut names: Vec<Vec<u8>> = connections
        .filter(|connection| connection.asks_for_certificates)
        .filter_map(|connection| match &connection.remote_auth {
            RemoteAuth::PublicKey(trust) => Some(trust),
            _ => None,
        })
        .flat_map(|trust| trust.anchors.iter().map(|anchor| anchor.subject().der().to_vec()))
        .collect();
    names.sort_unstable();
    names.dedup();
    let request = |authority| CertificateRequest { encoding: CertificateEncoding::X509_SIGNATURE, authority };
    names.into_iter().map(|name| Payload::CertificateRequest(request(name))).collect()
}
