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
    ike_sa::{IkeSa, Then},
    keys::{Exchanged, Iv, Keys, Made},
    messages::{Message, Raw},
    nat,
    oakley::{self, Suite},
    proof::{Proven, are_requested, requests},
    vendor,
};
use crate::{
    closed::Closed,
    connection::{Configuration, Connection},
    context::Context,
    crypto::{
        Secret,
        exchange::Initiator,
        keys::{Nonces, Role},
    },
    ike_sa::{Path, Phase},
    job::{Job, Outcome},
    message::{
        ExchangeType, Header, IkeSpi, PayloadType,
        isakmp::{self, Chain, Notify, NotifyType, Payload},
    },
    proof::Unproven,
    v2::{channel::Dropped, refused::Refused},
};
use std::sync::Arc;

pub(super) const EXCHANGE: ExchangeType = ExchangeType::IDENTITY_PROTECTION;

/// Octets of our nonces.
pub(super) const NONCE: usize = 32;

/// How long another answer is waited for, after one that nobody need believe.
pub(super) const ANOTHER_MS: u64 = 5000;

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expects {
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
    pub expects: Expects,
    /// What we have offered.
    suites: Vec<Suite>,
    /// The body of the initiator's SA payload.
    sa: Vec<u8>,
    public: [Vec<u8>; 2],
    nonces: [Vec<u8>; 2],
    private: Option<Initiator>,
    pub iv: Option<Iv>,
    /// The shared key that the keys are made with.
    pub shared: Option<Secret>,
    /// What is being answered.
    request: [u8; 32],
    /// The peer wants our certificates.
    pub is_asked: bool,
    /// How long the initiator has it, in seconds, if that is the peer.
    pub life_secs: Option<u64>,
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

    pub fn exchanged(&self) -> Exchanged<'_> {
        Exchanged { public: [&self.public[0], &self.public[1]], sa: &self.sa }
    }
}

/// The connection for a first message: of those that its addresses fit, the first that something is in common with.
pub(crate) fn first(raw: &Raw<'_>, path: Path, config: &Configuration) -> Result<Arc<Connection>, Refused> {
    let chain = Chain::parse(raw.first, raw.body, false).map_err(Dropped::from)?;
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
    cx.send(octets.into_iter().collect(), path, 0);
}

fn index(role: Role) -> usize {
    usize::from(role == Role::Responder)
}

pub(super) fn other(role: Role) -> Role {
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
    pub(super) fn ask(&mut self, datagrams: Vec<Vec<u8>>, cx: &mut Context<'_>) {
        self.open = Some(self.opened(&datagrams, cx));
        self.send(datagrams, self.path, cx);
    }

    /// A message of main mode came.
    pub(super) fn receive_main(&mut self, raw: &Raw<'_>, cx: &mut Context<'_>) -> Result<(), Dropped> {
        if raw.header.message_id != 0 {
            return Err(Dropped::MessageId(raw.header.message_id));
        }
        // RFC 3947 §4: a NAT moves ports, and no addresses.
        if self.answer_path.peer.ip() != self.first_peer().ip() {
            return Err(Dropped::MessageId(0));
        }
        let phase_1 = self.phase_1.as_ref();
        if phase_1.is_none() && self.role == Role::Responder && self.phase == Phase::Connecting {
            let message = self.open_clear(raw)?;
            return self.answer_sa(&message, cx);
        }
        let (expects, iv) = phase_1.map_or((Expects::Nothing, None), |p| (p.expects, p.iv));
        match (expects, self.role) {
            (Expects::Sa, Role::Initiator) => {
                let message = self.open_clear(raw)?;
                self.sa_answered(raw.header.responder_spi, &message, cx)
            }
            (Expects::Ke, role) => {
                let message = self.open_clear(raw)?;
                match role {
                    Role::Initiator => self.ke_answered(&message, cx),
                    Role::Responder => self.answer_ke(&message, cx),
                }
            }
            (Expects::Proof, _) => {
                let iv = iv.ok_or(Dropped::Sealing)?;
                let message = self.open_sealed(raw, iv);
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
}
