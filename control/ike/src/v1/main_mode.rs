//! Main mode (RFC 2409 §5): phase 1, in which identities are encrypted.
//!
//! ```text
//!  initiator                                  responder
//!  SA, VID... ──▶
//!                                   ◀── SA, VID...
//!  KE, Ni, NAT-D... ──▶
//!                                   ◀── KE, Nr, CR..., NAT-D...
//!  *IDii, CERT..., HASH_I or SIG_I ──▶
//!                                   ◀── *IDir, CERT..., HASH_R or SIG_R
//! ```
//!
//! # Dangers
//! Who answers needs the shared key before it knows who asks: it is that of the connection that the addresses fit best. All in
//! front of the last two messages is in clear, and anybody can have sent it.

use super::{
    ike_sa::{IkeSa, Legacy, Message, Task, Then},
    keys::{Exchanged, Iv, Keys, Made},
    nat,
    oakley::{self, Suite},
    vendor,
};
use crate::{
    closed::Closed,
    connection::{Configuration, Connection, LocalAuth, RemoteAuth, SendCertificates, Unique},
    context::Context,
    crypto::{
        Secret,
        cipher::OpenError,
        exchange::Initiator,
        keys::{Nonces, Role},
    },
    identity::{Fit, IdPattern},
    ike_sa::{Path, Phase},
    job::{Job, Outcome},
    message::{
        AuthMethod, CertificateEncoding, CertificateRequest, ExchangeType, Header, Identification, IkeSpi,
        PayloadType,
        isakmp::{self, Chain, Notify, NotifyType, Payload},
    },
    output::{Datagram, Event, Output},
    proof::{Signature, Signing, Unproven, Verification},
    v2::{channel::Dropped, refused::Refused},
};
use std::sync::Arc;

const EXCHANGE: ExchangeType = ExchangeType::IDENTITY_PROTECTION;

/// Octets of our nonces.
pub(super) const NONCE: usize = 32;

/// How long another answer is waited for, after one that nobody need believe.
pub(super) const ANOTHER_MS: u64 = 5000;

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expects {
    /// SA.
    Sa,
    /// KE and a nonce.
    Ke,
    /// Who the peer is, and its proof.
    Proof,
    /// Nothing: it is our turn.
    Nothing,
}

/// Phase 1 under way. Of pairs, the first is the initiator's.
#[derive(Debug)]
pub(super) struct Phase1 {
    expects: Expects,
    /// What we have offered.
    suites: Vec<Suite>,
    /// The body of the initiator's SA payload.
    sa: Vec<u8>,
    public: [Vec<u8>; 2],
    nonces: [Vec<u8>; 2],
    private: Option<Initiator>,
    iv: Option<Iv>,
    /// The shared key that the keys are made with.
    shared: Option<Secret>,
    /// What is being answered.
    request: [u8; 32],
    /// The peer wants our certificates.
    is_asked: bool,
    /// How long the initiator has it, in seconds, if that is the peer.
    life_secs: Option<u64>,
}

impl Phase1 {
    fn new(expects: Expects, suites: Vec<Suite>, sa: Vec<u8>) -> Phase1 {
        Phase1 {
            expects,
            suites,
            sa,
            public: [vec![], vec![]],
            nonces: [vec![], vec![]],
            private: None,
            iv: None,
            shared: None,
            request: [0; 32],
            is_asked: false,
            life_secs: None,
        }
    }

    fn exchanged(&self) -> Exchanged<'_> {
        Exchanged { public: [&self.public[0], &self.public[1]], sa: &self.sa }
    }
}

/// Who we say to be, as what we prove it.
#[derive(Debug)]
pub(super) struct Proven {
    ids: (Identification, Identification),
    /// The initiator's message that is answered.
    said: Option<Said>,
}

/// What the peer has said of itself, until it is known whether it is so.
#[derive(Debug)]
pub(super) struct Said {
    connection: Arc<Connection>,
    ids: (Identification, Identification),
    digest: [u8; 32],
    next: Option<Iv>,
    notifies: Vec<Notify>,
}

impl Said {
    /// The peer says that it knows no other with us.
    fn is_only(&self) -> bool {
        self.notifies.iter().any(|notify| notify.kind == NotifyType::INITIAL_CONTACT)
    }
}

/// The connection for a first message: of those that its addresses fit, the first that something is in common with.
pub(crate) fn first(
    first: PayloadType,
    body: &[u8],
    path: Path,
    config: &Configuration,
) -> Result<Arc<Connection>, Refused> {
    let chain = Chain::parse(first, body, false).map_err(Dropped::from)?;
    let offered = chain.security_association().ok_or(Dropped::Sealing)?;
    let between = config.between_v1(path.local, path.peer);
    if between.is_empty() {
        return Err(Refused::NoConnection);
    }
    let found = between.into_iter().find(|c| oakley::select(&oakley::suites(c), offered, c.order).is_some());
    found.ok_or(Refused::NoProposal)
}

/// Tells who has sent a first message that nothing is in common (RFC 2408 §5.4). Nothing is kept of it.
pub(crate) fn refuse_first(header: &Header, path: Path, cx: &mut Context<'_>) {
    let cookies = (header.initiator_spi, header.responder_spi);
    let notify = Notify::of_ike_sa(NotifyType::NO_PROPOSAL_CHOSEN, cookies, &[]);
    let header = Header {
        exchange: ExchangeType::INFORMATIONAL_V1,
        message_id: u32::from_be_bytes(cx.random()) | 1,
        flags: Default::default(),
        ..*header
    };
    let octets = isakmp::emit(&[Payload::Notify(notify)])
        .and_then(|(first, octets)| isakmp::message(&header, first, &octets));
    if let Ok(octets) = octets {
        cx.out.push_back(Output::Send(Datagram { local: path.local, peer: path.peer, octets, dscp: 0 }));
    }
}

fn index(role: Role) -> usize {
    usize::from(role == Role::Responder)
}

fn other(role: Role) -> Role {
    match role {
        Role::Initiator => Role::Responder,
        Role::Responder => Role::Initiator,
    }
}

impl IkeSa {
    /// The first message.
    pub(crate) fn begin(&mut self, cx: &mut Context<'_>) {
        let mut suites = oakley::suites(&self.connection);
        // Transforms have a number of one octet.
        suites.truncate(u8::MAX.into());
        if suites.is_empty() {
            return self.close(
                Closed::Configured("no proposal is one of IKEv1, for how both ends prove who they are"),
                cx,
            );
        }
        let sa = Payload::SecurityAssociation(oakley::offer(&suites, self.life_secs()));
        let Ok(body) = isakmp::body(&sa) else { return };
        self.phase_1 = Some(Box::new(Phase1::new(Expects::Sa, suites, body)));
        let payloads = [vec![sa], vendor::payloads()].concat();
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        self.ask(datagrams, cx);
    }

    /// Sends a message of phase 1, again and again.
    fn ask(&mut self, datagrams: Vec<Vec<u8>>, cx: &mut Context<'_>) {
        self.open = Some(self.opened(&datagrams, cx));
        self.send(datagrams, self.path, cx);
    }

    /// A message of main mode came.
    pub(super) fn receive_main(
        &mut self,
        header: &Header,
        first: PayloadType,
        body: &[u8],
        octets: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        if header.message_id != 0 {
            return Err(Dropped::MessageId(header.message_id));
        }
        // RFC 3947 §4: a NAT moves ports, and no addresses.
        if self.answer_path.peer.ip() != self.first_peer().ip() {
            return Err(Dropped::MessageId(0));
        }
        let phase_1 = self.phase_1.as_ref();
        if phase_1.is_none() && self.role == Role::Responder && self.phase == Phase::Connecting {
            let message = self.open_clear(header, first, body, octets)?;
            return self.answer_sa(&message, cx);
        }
        let (expects, iv) = phase_1.map_or((Expects::Nothing, None), |p| (p.expects, p.iv));
        match (expects, self.role) {
            (Expects::Sa, Role::Initiator) => {
                let message = self.open_clear(header, first, body, octets)?;
                self.sa_answered(header.responder_spi, &message, cx)
            }
            (Expects::Ke, role) => {
                let message = self.open_clear(header, first, body, octets)?;
                match role {
                    Role::Initiator => self.ke_answered(&message, cx),
                    Role::Responder => self.answer_ke(&message, cx),
                }
            }
            (Expects::Proof, _) => {
                let iv = iv.ok_or(Dropped::Sealing)?;
                let message = self.open_sealed(header, first, body, octets, iv);
                let checked = message.and_then(|message| self.check_peer(message, cx));
                let by_key = self.suite.as_ref().is_some_and(|suite| suite.method.scheme().is_none());
                if checked.is_err() && by_key {
                    // Another shared key makes nothing of it, as does whoever sends anything.
                    let who = self.path.peer.ip().to_string();
                    self.doubt = Some(Box::new(Closed::Authentication { who, why: Unproven::SharedKey }));
                }
                checked
            }
            _ => Err(Dropped::MessageId(0)),
        }
    }

    /// A responder has the first message, for its connection.
    fn answer_sa(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let offered = message.chain.security_association().ok_or(Dropped::Sealing)?;
        let chosen = oakley::select(&oakley::suites(&self.connection), offered, self.connection.order);
        let ((suite, life_secs), answer) = chosen.ok_or(Dropped::Sealing)?;
        let sa = message.chain.body(PayloadType::SA_V1, &message.octets).ok_or(Dropped::Sealing)?;
        let phase_1 = Phase1 { life_secs, ..Phase1::new(Expects::Ke, vec![], sa.to_vec()) };
        self.phase_1 = Some(Box::new(phase_1));
        self.suite = Some(Box::new(suite));
        self.abilities.learn(&message.chain);
        let payloads = [vec![Payload::SecurityAssociation(answer)], vendor::payloads()].concat();
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        self.answer(message.digest, datagrams, cx);
        Ok(())
    }

    /// The responder has chosen.
    fn sa_answered(
        &mut self,
        responder: IkeSpi,
        message: &Message,
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        let Some(phase_1) = &mut self.phase_1 else { return Ok(()) };
        let sa = message.chain.security_association().ok_or(Dropped::Sealing)?;
        if responder == IkeSpi::NONE {
            return Err(Dropped::Sealing);
        }
        let suite = match oakley::accept(&phase_1.suites, sa) {
            Ok(suite) => suite,
            Err(error) => {
                self.wait_for_another(Closed::Accept(error), cx);
                return Ok(());
            }
        };
        phase_1.expects = Expects::Nothing;
        let group = suite.group;
        self.suite = Some(Box::new(suite));
        self.spis.responder = responder;
        self.abilities.learn(&message.chain);
        (self.open, self.doubt, self.deadline_ms) = (None, None, u64::MAX);
        self.note(message.digest);
        self.after(Job::Generate(group), Then::KeAsk, cx);
        Ok(())
    }

    /// Anybody can have said it: another answer is waited for, though not for long.
    pub(super) fn wait_for_another(&mut self, why: Closed, cx: &mut Context<'_>) {
        if self.doubt.is_none() {
            self.deadline_ms = self.deadline_ms.min(cx.now_ms + ANOTHER_MS);
        }
        self.doubt = Some(Box::new(why));
    }

    /// KE, our nonce, whose certificates are wanted, and where we are.
    fn ke_payloads(&self, public: &[u8], nonce: &[u8], requests: Vec<Payload>) -> Vec<Payload> {
        let mut payloads = vec![Payload::KeyExchange(public.to_vec()), Payload::Nonce(nonce.to_vec())];
        payloads.extend(requests);
        let at = (self.path.local, self.path.peer);
        if let (Some(nat_t), Some(suite)) = (self.abilities.nat_t, &self.suite) {
            payloads.extend(nat::payloads(suite.hash, self.spis, at, nat_t, self.connection.forces_udp));
        }
        payloads
    }

    /// There is a private key: sends the public one.
    pub(super) fn ke_ask(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Generated(private, public) = outcome else { return };
        let nonce = cx.random::<NONCE>().to_vec();
        let requests = requests([&self.connection].into_iter());
        let payloads = self.ke_payloads(&public, &nonce, requests);
        let Some(phase_1) = &mut self.phase_1 else { return };
        (phase_1.public[0], phase_1.nonces[0], phase_1.private) = (public, nonce, Some(private));
        phase_1.expects = Expects::Ke;
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        self.ask(datagrams, cx);
    }

    /// What the peer says of keys and of NATs.
    fn take_ke(&mut self, message: &Message) -> Result<Vec<u8>, Dropped> {
        let (Some(public), Some(nonce)) = (message.chain.key_exchange(), message.chain.nonce()) else {
            return Err(Dropped::Sealing);
        };
        let (theirs, at) = (index(other(self.role)), (self.answer_path.local, self.answer_path.peer));
        let hash = self.suite.as_ref().map(|suite| suite.hash).filter(|_| self.abilities.nat_t.is_some());
        self.nat = hash.and_then(|hash| nat::detect(&message.chain, hash, self.spis, at));
        let Some(phase_1) = &mut self.phase_1 else { return Err(Dropped::Sealing) };
        (phase_1.public[theirs], phase_1.nonces[theirs]) = (public.to_vec(), nonce.to_vec());
        (phase_1.expects, phase_1.request) = (Expects::Nothing, message.digest);
        phase_1.is_asked |= are_requested(&message.chain);
        Ok(public.to_vec())
    }

    /// An initiator's key came.
    fn answer_ke(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let Some(group) = self.suite.as_ref().map(|suite| suite.group) else { return Ok(()) };
        let public = self.take_ke(message)?;
        self.after(Job::Respond(group, public), Then::KeAnswer, cx);
        Ok(())
    }

    /// There is a public value and a secret: answers.
    pub(super) fn ke_answer(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Responded(responded) = outcome else { return };
        let (public, secret) = match responded {
            Ok(responded) => responded,
            Err(error) => return self.close(Closed::Exchange(error), cx),
        };
        let nonce = cx.random::<NONCE>().to_vec();
        // It is not known yet which of these it is.
        let connections = cx.config.between_v1(self.path.local, self.path.peer);
        let payloads = self.ke_payloads(&public, &nonce, requests(connections.iter()));
        let Some(phase_1) = &mut self.phase_1 else { return };
        (phase_1.public[1], phase_1.nonces[1]) = (public, nonce);
        phase_1.expects = Expects::Proof;
        let request = phase_1.request;
        if let Err(closed) = self.make_keys(&secret, cx) {
            return self.close(closed, cx);
        }
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        self.answer(request, datagrams, cx);
    }

    /// The responder's key came.
    fn ke_answered(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let public = self.take_ke(message)?;
        (self.open, self.doubt, self.deadline_ms) = (None, None, u64::MAX);
        self.note(message.digest);
        let Some(private) = self.phase_1.as_mut().and_then(|p| p.private.take()) else { return Ok(()) };
        self.after(Job::Finish(private, public), Then::KeFinish, cx);
        Ok(())
    }

    /// There is a secret: proves who we are.
    pub(super) fn ke_finish(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Finished(secret) = outcome else { return };
        let made = match secret {
            Ok(secret) => self.make_keys(&secret, cx),
            Err(error) => Err(Closed::Exchange(error)),
        };
        if let Err(closed) = made {
            return self.close(closed, cx);
        }
        self.float();
        let mine = self.connection.identity(self.path.local.ip());
        let theirs = self.expected_peer();
        self.prove(Proven { ids: (mine, theirs), said: None }, cx);
    }

    /// Who the peer is, as long as it has not said so: who it was, who is configured, or its address.
    fn expected_peer(&self) -> Identification {
        let theirs = self.expected.clone().or_else(|| self.connection.remote_id.identity());
        theirs.unwrap_or_else(|| Identification::of_address(self.path.peer.ip()))
    }

    /// The keys, by the shared key of the connection if it is by one.
    fn make_keys(&mut self, secret: &Secret, cx: &Context<'_>) -> Result<(), Closed> {
        let theirs = self.expected_peer();
        let (Some(suite), Some(phase_1)) = (&self.suite, &mut self.phase_1) else {
            return Err(Closed::Configured("there is no suite"));
        };
        let shared = match suite.method {
            oakley::Method::SharedKey => {
                let mine = self.connection.identity(self.path.local.ip());
                let key = cx.config.shared_key(&mine, &theirs);
                Some(key.ok_or(Closed::Configured("there is no shared key for this connection"))?)
            }
            _ => None,
        };
        let public = [&phase_1.public[0][..], &phase_1.public[1][..]];
        let nonces = Nonces { initiator: &phase_1.nonces[0], responder: &phase_1.nonces[1] };
        let (prf, encryption, spis) = (suite.hash, suite.encryption, self.spis);
        self.keys = Some(Keys::new(shared, &Made { prf, encryption, secret, nonces, spis }));
        phase_1.iv = Some(Iv::first(prf, public));
        phase_1.shared = shared.cloned();
        Ok(())
    }

    /// HASH_I or HASH_R.
    fn proof_of(&self, who: Role, id: &Identification) -> Option<Secret> {
        let (keys, phase_1) = (self.keys.as_ref()?, self.phase_1.as_ref()?);
        Some(keys.proof(who, phase_1.exchanged(), self.spis, &id.body()))
    }

    /// Proves that we are who we say.
    fn prove(&mut self, proven: Proven, cx: &mut Context<'_>) {
        let connection = proven.said.as_ref().map_or(&self.connection, |said| &said.connection).clone();
        let (Some(proof), Some(suite)) = (self.proof_of(self.role, &proven.ids.0), &self.suite) else {
            return;
        };
        match (suite.method.scheme(), &connection.local_auth) {
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
        let mut payloads = vec![Payload::Identification(proven.ids.0.clone())];
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
            None => {
                // Of whom it is not known who it is, it is not known either whether there is another.
                let is_known = self.expected.is_none() && connection.remote_id.identity().is_some();
                let says_so = is_known
                    && connection.unique != Unique::Never
                    && self.contacts.others(&proven.ids, self.id).is_empty();
                let cookies = (self.spis.initiator, self.spis.responder);
                let notify = || Payload::Notify(Notify::of_ike_sa(NotifyType::INITIAL_CONTACT, cookies, &[]));
                payloads.extend(says_so.then(notify));
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

    /// The peer says who it is, and proves it.
    fn check_peer(&mut self, message: Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let Message { digest, chain, next, .. } = message;
        let theirs = chain.identification().ok_or(Dropped::Sealing)?.clone();
        let by_key = self.suite.as_ref().is_some_and(|suite| suite.method.scheme().is_none());
        let proof = self.proof_of(other(self.role), &theirs).ok_or(Dropped::Sealing)?;
        if by_key && chain.hash().map(Secret::copy_of).as_ref() != Some(&proof) {
            return Err(Dropped::Open(OpenError::Icv));
        }
        let found = match self.role {
            _ if !is_of_ike(&theirs) => {
                let [protocol, port @ ..] = theirs.reserved;
                let found = format!("{theirs} of protocol {protocol}, port {}", u16::from_be_bytes(port));
                Err(Closed::Identity { found, wanted: "of no protocol, or of UDP and port 500".to_owned() })
            }
            Role::Initiator => self.whom_we_asked(&theirs, cx),
            Role::Responder => self.connection_for(&theirs, cx),
        };
        let (connection, mine) = match found {
            Ok(found) => found,
            Err(closed) => {
                self.refuse_peer(closed, cx);
                return Ok(());
            }
        };
        if let Some(phase_1) = &mut self.phase_1 {
            phase_1.is_asked |= are_requested(&chain);
        }
        let notifies = chain.notifies().cloned().collect();
        let said = Said { connection, ids: (mine, theirs), digest, next, notifies };
        let Some(suite) = &self.suite else { return Err(Dropped::Sealing) };
        let wrong = |why, said: &Said| Closed::Authentication { who: said.ids.1.to_string(), why };
        match (suite.method.scheme(), &said.connection.remote_auth) {
            (None, _) => {
                // Whoever shares a key with us would be taken for us.
                match IdPattern::from(&said.ids.0).fits(&said.ids.1) {
                    None => self.peer_proven(said, cx),
                    Some(_) => self.refuse_peer(wrong(Unproven::Us, &said), cx),
                }
            }
            (Some(scheme), RemoteAuth::PublicKey(trust)) => {
                let Some(octets) = chain.signature() else {
                    self.refuse_peer(wrong(Unproven::Algorithm, &said), cx);
                    return Ok(());
                };
                // RFC 2407 §4.6.2: protocol and port say nothing of who it is.
                let id = Identification::new(said.ids.1.kind, &said.ids.1.data);
                let verification = Verification {
                    trust: trust.clone(),
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
    pub(super) fn verified(&mut self, said: Said, outcome: Outcome, cx: &mut Context<'_>) {
        match outcome {
            Outcome::Verified(Ok(())) => self.peer_proven(said, cx),
            Outcome::Verified(Err(why)) => {
                let who = said.ids.1.to_string();
                self.refuse_peer(Closed::Authentication { who, why }, cx);
            }
            _ => {}
        }
    }

    /// The peer is who it says.
    fn peer_proven(&mut self, said: Said, cx: &mut Context<'_>) {
        if let Err(closed) = self.may_be(&said) {
            return self.refuse_peer(closed, cx);
        }
        match (self.role, said.next) {
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
    fn may_be(&self, said: &Said) -> Result<(), Closed> {
        let others = self.contacts.others(&said.ids, self.id);
        let is_elsewhere = !self.contacts.is_at(&said.ids, self.path.peer.ip());
        match said.connection.unique {
            Unique::Keep if !others.is_empty() && !said.is_only() && is_elsewhere => {
                Err(Closed::NotUnique(said.ids.1.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// What becomes of others of the same two: the peer knows no other, or they go on as this one.
    fn take_places(&mut self, said: &Said) {
        let others = match said.connection.unique {
            Unique::Never => vec![],
            _ => self.contacts.others(&said.ids, self.id),
        };
        let legacy = |other| if said.is_only() { Legacy::Superseded(other) } else { Legacy::Heir(other) };
        self.legacies.extend(others.into_iter().map(legacy));
    }

    /// Both ends are authenticated.
    fn establish(&mut self, said: &Said, last: Iv, cx: &mut Context<'_>) {
        let life_secs = self.phase_1.take().and_then(|phase_1| phase_1.life_secs);
        (self.open, self.doubt, self.deadline_ms) = (None, None, u64::MAX);
        self.last = Some(last);
        self.ids = Some(said.ids.clone());
        self.keys.iter_mut().for_each(Keys::forget_proofs);
        self.phase = Phase::Established;
        self.established_ms = Some(cx.now_ms);
        self.heard_ms = cx.now_ms;
        self.live_for(life_secs, cx);
        self.event(Event::Established, cx);
        self.take_places(said);
        self.tasks.extend(self.wanted.take().map(Task::Child));
    }

    /// Whether the responder is who we have asked for.
    fn whom_we_asked(
        &self,
        theirs: &Identification,
        cx: &Context<'_>,
    ) -> Result<(Arc<Connection>, Identification), Closed> {
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

    /// The connection for an initiator, and who we are to it: of those that its addresses fit and that allow what was agreed on, the
    /// one that fits best who it says to be.
    fn connection_for(
        &self,
        theirs: &Identification,
        cx: &Context<'_>,
    ) -> Result<(Arc<Connection>, Identification), Closed> {
        let between = cx.config.between_v1(self.path.local, self.path.peer);
        let shared = self.phase_1.as_ref().and_then(|p| p.shared.as_ref());
        let fits = |c: &Arc<Connection>| {
            let suite = self.suite.as_ref()?;
            let allows = oakley::suites(c).iter().any(|one| {
                one.agreement.transforms().eq(suite.agreement.transforms()) && one.method == suite.method
            });
            let mine = c.identity(self.path.local.ip());
            let has_key = shared.is_none_or(|key| cx.config.shared_key(&mine, theirs) == Some(key));
            let fit: Fit = c.remote_id.fits(theirs).filter(|_| allows && has_key)?;
            Some((fit, mine, c.clone()))
        };
        let best = between.iter().filter_map(fits).rev().max_by_key(|(fit, ..)| *fit);
        best.map(|(_, mine, connection)| (connection, mine)).ok_or_else(|| Closed::Nobody {
            theirs: theirs.to_string(),
            asked: None,
            misfits: between
                .iter()
                .take(8)
                .map(|c| format!("'{}' is for {}", c.name, c.remote_id))
                .collect::<Vec<_>>()
                .join("; "),
        })
    }

    /// The peer is not who it should be, and is told so.
    fn refuse_peer(&mut self, why: Closed, cx: &mut Context<'_>) {
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
fn is_of_ike(id: &Identification) -> bool {
    let [protocol, port @ ..] = id.reserved;
    matches!((protocol, u16::from_be_bytes(port)), (0, 0) | (17, 0 | 500 | 4500))
}

/// Whether some certificate of ours is wanted.
fn are_requested(chain: &Chain) -> bool {
    let is_request = |payload: &Payload| matches!(payload, Payload::CertificateRequest(r) if r.encoding == CertificateEncoding::X509_SIGNATURE);
    chain.payloads.iter().any(is_request)
}

/// Whose certificates are wanted (RFC 2408 §3.10).
fn requests<'a>(connections: impl Iterator<Item = &'a Arc<Connection>>) -> Vec<Payload> {
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
