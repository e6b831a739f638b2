//! Phase 1 (RFC 2409 §5): both ends agree on what an ISAKMP SA is made of, and make its keys. What is the same in both its modes.
//!
//! # Dangers
//! All in front of the proofs is in clear, and anybody can have sent it.

use super::{
    aggressive::{self, Kept, Named},
    ike_sa::{IkeSa, Then},
    keys::{Exchanged, Iv, Keys, Made},
    main_mode,
    messages::{Message, Raw},
    nat,
    oakley::{self, Suite},
    proof::{Proven, are_requested},
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
    ike_sa::Path,
    job::{Job, Outcome},
    message::{
        ExchangeType, Header, IkeSpi, PayloadType,
        isakmp::{self, Chain, Notify, NotifyType, Payload, SecurityAssociation},
    },
    nat::Nat,
    output::Output,
    proof::Unproven,
    v2::{channel::Dropped, refused::Refused},
};
use std::sync::Arc;

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
    pub suites: Vec<Suite>,
    /// The body of the initiator's SA payload.
    sa: Vec<u8>,
    public: [Vec<u8>; 2],
    nonces: [Vec<u8>; 2],
    pub private: Option<Initiator>,
    pub iv: Option<Iv>,
    /// The shared key that the keys are made with.
    pub shared: Option<Secret>,
    /// What is being answered.
    pub request: [u8; 32],
    /// The peer wants our certificates.
    pub is_asked: bool,
    /// Who the peer says to be, in aggressive mode.
    pub named: Option<Named>,
    pub kept: Kept,
    /// Signatures that were checked of third messages in clear.
    pub checks: u8,
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
            named: None,
            kept: Kept::default(),
            checks: 0,
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
    let is_aggressive = raw.header.exchange == aggressive::EXCHANGE;
    if is_aggressive && !aggressive::is_whole(&chain) {
        return Err(Dropped::Sealing.into());
    }
    let suites = |c: &Arc<Connection>| match is_aggressive {
        true => aggressive::suites(c, &chain),
        false => oakley::suites(c, Role::Responder),
    };
    let between = |is_aggressive| config.between_v1(path.local, path.peer, is_aggressive);
    let fits = |c: &Arc<Connection>| oakley::select(&suites(c), offered, c.order).is_some();
    match between(is_aggressive).into_iter().find(fits) {
        Some(connection) => Ok(connection),
        // There is one of another mode, or of other transforms.
        None if (0..2).any(|n| !between(n == 1).is_empty()) => Err(Refused::NoProposal),
        None => Err(Refused::NoConnection),
    }
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

impl IkeSa {
    /// Begins.
    pub(crate) fn begin(&mut self, cx: &mut Context<'_>) {
        let mut suites = oakley::suites(&self.connection, Role::Initiator);
        // Transforms have a number of one octet.
        suites.truncate(u8::MAX.into());
        if suites.is_empty() {
            return self.close(
                Closed::Configured("no proposal is one of IKEv1, for how both ends prove who they are"),
                cx,
            );
        }
        let group = suites[0].group;
        if self.is_aggressive() {
            // RFC 2409 §5: the group cannot be negotiated.
            suites.retain(|suite| suite.group == group);
        }
        let sa = Payload::SecurityAssociation(oakley::offer(&suites, self.life_secs()));
        let Ok(body) = isakmp::body(&sa) else { return };
        self.phase_1 = Some(Box::new(Phase1::new(Expects::Nothing, suites, body)));
        match self.is_aggressive() {
            true => self.after(Job::Generate(group), Then::KeAsk, cx),
            false => self.say_sa(sa, cx),
        }
    }

    /// Sends a message of phase 1, again and again.
    pub(super) fn ask(&mut self, datagrams: Vec<Vec<u8>>, cx: &mut Context<'_>) {
        self.open = Some(self.opened(&datagrams, cx));
        self.send(datagrams, self.path, cx);
    }

    /// A message came.
    pub(super) fn receive_phase_1(&mut self, raw: &Raw<'_>, cx: &mut Context<'_>) -> Result<(), Dropped> {
        // Once it is over, there is nothing new in it, whatever else there is to prove.
        if raw.header.message_id != 0 || self.last.is_some() {
            return Err(Dropped::MessageId(raw.header.message_id));
        }
        // RFC 3947 §4: a NAT moves ports, and no addresses.
        if self.answer_path.peer.ip() != self.first_peer().ip() {
            return Err(Dropped::MessageId(0));
        }
        match (raw.header.exchange, self.is_aggressive()) {
            (main_mode::EXCHANGE, false) => self.receive_main(raw, cx),
            (aggressive::EXCHANGE, true) => self.receive_aggressive(raw, cx),
            _ => Err(Dropped::Exchange),
        }
    }

    /// What the peer offers, and what we choose of it. Nothing was said yet.
    pub(super) fn take_offer(
        &mut self,
        message: &Message,
        suites: &[Suite],
    ) -> Result<SecurityAssociation, Dropped> {
        let offered = message.chain.security_association().ok_or(Dropped::Sealing)?;
        let chosen = oakley::select(suites, offered, self.connection.order);
        let ((suite, life_secs), answer) = chosen.ok_or(Dropped::Sealing)?;
        let sa = message.chain.body(PayloadType::SA_V1, &message.octets).ok_or(Dropped::Sealing)?;
        let phase_1 = Phase1 { life_secs, ..Phase1::new(Expects::Ke, vec![], sa.to_vec()) };
        self.phase_1 = Some(Box::new(phase_1));
        self.suite = Some(Box::new(suite));
        self.abilities.learn(&message.chain);
        Ok(answer)
    }

    /// What the responder has chosen. False if it cannot be, and another answer is waited for.
    pub(super) fn take_choice(
        &mut self,
        responder: IkeSpi,
        message: &Message,
        cx: &mut Context<'_>,
    ) -> Result<bool, Dropped> {
        let Some(phase_1) = &mut self.phase_1 else { return Ok(false) };
        let sa = message.chain.security_association().ok_or(Dropped::Sealing)?;
        if responder == IkeSpi::NONE {
            return Err(Dropped::Sealing);
        }
        let suite = match oakley::accept(&phase_1.suites, sa) {
            Ok(suite) => suite,
            Err(error) => {
                self.wait_for_another(Closed::Accept(error), cx);
                return Ok(false);
            }
        };
        phase_1.expects = Expects::Nothing;
        self.suite = Some(Box::new(suite));
        self.spis.responder = responder;
        self.abilities.learn(&message.chain);
        (self.open, self.doubt, self.deadline_ms) = (None, None, u64::MAX);
        Ok(true)
    }

    /// Anybody can have said it: another answer is waited for, though not for long.
    pub(super) fn wait_for_another(&mut self, why: Closed, cx: &mut Context<'_>) {
        if self.doubt.is_none() {
            self.deadline_ms = self.deadline_ms.min(cx.now_ms + ANOTHER_MS);
        }
        self.doubt = Some(Box::new(why));
    }

    /// KE, and our nonce.
    pub(super) fn ke_payloads(&self) -> Vec<Payload> {
        let (of, ours) = (self.phase_1.as_ref(), index(self.role));
        let payloads = of
            .map(|p| [Payload::KeyExchange(p.public[ours].clone()), Payload::Nonce(p.nonces[ours].clone())]);
        payloads.into_iter().flatten().collect()
    }

    /// Where we are, if the peer wants to know.
    pub(super) fn nat_payloads(&self) -> Vec<Payload> {
        let at = (self.path.local, self.path.peer);
        let of = self.abilities.nat_t.zip(self.suite.as_ref());
        let payloads = of.map(|(nat_t, suite)| {
            nat::payloads(suite.hash, self.spis, at, nat_t, self.connection.forces_udp)
        });
        payloads.into_iter().flatten().collect()
    }

    /// By what the peer says of where it is, whether there is a NAT.
    pub(super) fn detect_nat(&self, chain: &Chain) -> Option<Nat> {
        let at = (self.answer_path.local, self.answer_path.peer);
        let hash = self.suite.as_ref().map(|suite| suite.hash).filter(|_| self.abilities.nat_t.is_some());
        hash.and_then(|hash| nat::detect(chain, hash, self.spis, at))
    }

    /// There is a private key.
    pub(super) fn ke_ask(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Generated(private, public) = outcome else { return };
        let Some(phase_1) = &mut self.phase_1 else { return };
        (phase_1.public[0], phase_1.nonces[0]) = (public, cx.random::<NONCE>().to_vec());
        phase_1.private = Some(private);
        match self.is_aggressive() {
            true => self.say_first(cx),
            false => self.say_ke(cx),
        }
    }

    /// There is a public value and a secret.
    pub(super) fn ke_answer(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Responded(responded) = outcome else { return };
        let (public, secret) = match responded {
            Ok(responded) => responded,
            Err(error) => return self.close(Closed::Exchange(error), cx),
        };
        let Some(phase_1) = &mut self.phase_1 else { return };
        (phase_1.public[1], phase_1.nonces[1]) = (public, cx.random::<NONCE>().to_vec());
        match self.make_keys(&secret, cx) {
            Ok(()) if self.is_aggressive() => self.prove_first(cx),
            Ok(()) => self.say_ke(cx),
            Err(closed) => self.close(closed, cx),
        }
    }

    /// There is a secret.
    pub(super) fn ke_finish(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Finished(secret) = outcome else { return };
        let made = match secret {
            Ok(secret) => self.make_keys(&secret, cx),
            Err(error) => Err(Closed::Exchange(error)),
        };
        match made {
            Ok(()) if self.is_aggressive() => self.check_second(cx),
            Ok(()) => {
                self.float();
                self.prove_first(cx);
            }
            Err(closed) => self.close(closed, cx),
        }
    }

    /// What the peer says of keys and of NATs.
    pub(super) fn take_ke(&mut self, message: &Message) -> Result<Vec<u8>, Dropped> {
        let (Some(public), Some(nonce)) = (message.chain.key_exchange(), message.chain.nonce()) else {
            return Err(Dropped::Sealing);
        };
        let theirs = index(oakley::other(self.role));
        self.nat = self.detect_nat(&message.chain);
        let Some(phase_1) = &mut self.phase_1 else { return Err(Dropped::Sealing) };
        (phase_1.public[theirs], phase_1.nonces[theirs]) = (public.to_vec(), nonce.to_vec());
        (phase_1.expects, phase_1.request) = (Expects::Nothing, message.digest);
        phase_1.is_asked |= are_requested(&message.chain);
        Ok(public.to_vec())
    }

    /// Proves who we are before the peer does.
    fn prove_first(&mut self, cx: &mut Context<'_>) {
        let (mine, theirs) = (self.connection.identity(self.path.local.ip()), self.expected_peer());
        self.prove(Proven { ids: (mine, theirs), said: None }, cx);
    }

    /// Another shared key makes nothing of a proof, as does whoever sends anything.
    pub(super) fn doubt_key(&mut self, is_in_doubt: bool, cx: &Context<'_>) {
        let by_key = self.suite.as_ref().is_some_and(|suite| suite.is_by_key());
        if !is_in_doubt || !by_key {
            return;
        }
        let why = match self.phase_1.as_ref().and_then(|phase_1| phase_1.named.as_ref()) {
            Some(named) if !named.is_somebody => self.nobody(&named.theirs, cx),
            Some(named) => Closed::Authentication { who: named.theirs.to_string(), why: Unproven::SharedKey },
            None => Closed::Authentication { who: self.path.peer.ip().to_string(), why: Unproven::SharedKey },
        };
        self.doubt = Some(Box::new(why));
    }

    /// The keys, by the shared key of the connection if it is by one.
    fn make_keys(&mut self, secret: &Secret, cx: &mut Context<'_>) -> Result<(), Closed> {
        let theirs = self.expected_peer();
        let (Some(suite), Some(phase_1)) = (&self.suite, &mut self.phase_1) else {
            return Err(Closed::Configured("there is no suite"));
        };
        let shared = match suite.method {
            oakley::Method::SharedKey => {
                let mine = self.connection.identity(self.path.local.ip());
                let key = phase_1.shared.as_ref().or_else(|| cx.config.shared_key(&mine, &theirs));
                let none = Closed::Configured("there is no shared key for this connection");
                Some(key.cloned().ok_or(none)?)
            }
            _ => None,
        };
        let public = [&phase_1.public[0][..], &phase_1.public[1][..]];
        let nonces = Nonces { initiator: &phase_1.nonces[0], responder: &phase_1.nonces[1] };
        let (prf, encryption, spis) = (suite.hash, suite.encryption, self.spis);
        let keys = Keys::new(shared.as_ref(), &Made { prf, encryption, secret, nonces, spis });
        phase_1.iv = Some(keys.first_iv(public));
        self.keys = Some(keys);
        phase_1.shared = shared;
        self.tell_keys(cx);
        Ok(())
    }

    /// Outside, where that is wanted.
    pub(crate) fn tell_keys(&self, cx: &mut Context<'_>) {
        let keys = self.keys.as_ref().filter(|_| cx.config.tells_keys);
        cx.out.extend(keys.map(|keys| Output::Keys(Box::new(keys.log(self.spis)))));
    }
}
