//! IKE_SA_INIT (RFC 7296 §1.2): both ends agree on transforms, exchange keys, and learn whether there is a NAT.
//!
//! ```text
//!  initiator                              responder
//!  SAi1, KEi, Ni, N...            ──▶
//!                                 ◀──     N(COOKIE)             it must show that it is where it says
//!  N(COOKIE), SAi1, KEi, Ni, N... ──▶
//!                                 ◀──     N(INVALID_KE_PAYLOAD) another method, please
//!  N(COOKIE), SAi1, KEi', Ni, N.. ──▶
//!                                 ◀──     SAr1, KEr, Nr, N...
//! ```
//!
//! Nothing of it is authenticated yet: IKE_AUTH is over the octets of both messages.

use super::{
    auth_puzzle::{self, Keyless},
    channel::Channel,
    contacts::Ids,
    context::Context,
    ike_sa::{Asked, Closed, IkeSa, Then},
    job::{Job, Outcome},
    nat::{self, Nat},
    ppk, proof,
    puzzle::Puzzle,
    redirect,
};
use crate::{
    connection::Childless,
    crypto::{
        Secret,
        auth::IntAuth,
        exchange::Initiator,
        keys::{Keys, Nonces, Role, Spis},
        transform::KeyExchange as Method,
    },
    message::{ExchangeType, IkeSpi, KeyExchange, Notify, NotifyType, Payload, Payloads, Proposal},
    proposal::{Agreement, without_additional_key_exchanges},
};

/// How often an initiator begins anew for cookies and other key exchanges.
const MOST_ROUNDS: u8 = 5;

/// Octets of a cookie (RFC 7296 §2.6).
const COOKIES: std::ops::RangeInclusive<usize> = 1..=64;

/// How long another answer is waited for than one that says no.
const ANOTHER_MS: u64 = 5_000;

/// Octets of our nonces: as many as any prf wants (RFC 7296 §2.10).
const NONCE: usize = 32;

/// What both have said, for AUTH.
#[derive(Clone, Debug)]
pub struct Init {
    /// The octets of the request.
    pub request: Vec<u8>,
    /// The octets of the response.
    pub response: Vec<u8>,
    /// Ni.
    pub ni: Vec<u8>,
    /// Nr.
    pub nr: Vec<u8>,
    /// What both have said in IKE_INTERMEDIATE.
    pub int_auth: IntAuth,
    /// How many of these exchanges there were.
    pub intermediates: u32,
    /// The responder takes several rounds of authentication (RFC 4739).
    pub takes_rounds: bool,
    /// The responder asks for certificates.
    pub asks_for_certificates: bool,
    /// What the responder has set for IKE_AUTH (RFC 8019 §7.2), until it is solved.
    pub(super) puzzle: Option<Puzzle>,
    /// Its solution.
    pub(super) solution: Option<Vec<u8>>,
    /// Those of whom we say that there is no other IKE SA.
    pub(super) claimed: Option<Ids>,
}

impl Init {
    /// By the request and the response, and their nonces.
    pub(super) fn new((request, response): (Vec<u8>, Vec<u8>), (ni, nr): (Vec<u8>, Vec<u8>)) -> Init {
        Init {
            request,
            response,
            ni,
            nr,
            int_auth: IntAuth::default(),
            intermediates: 0,
            takes_rounds: false,
            asks_for_certificates: false,
            puzzle: None,
            solution: None,
            claimed: None,
        }
    }

    /// Ni and Nr.
    pub fn nonces(&self) -> Nonces<'_> {
        Nonces { initiator: &self.ni, responder: &self.nr }
    }

    /// What AUTH is over besides: IKE_AUTH comes behind these exchanges (RFC 9242 §3.3.2).
    pub fn int_auth(&self) -> Vec<u8> {
        self.int_auth.octets(1 + self.intermediates)
    }
}

/// What an initiator wants to ask, until its private key is there.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    method: Method,
    nonce: Vec<u8>,
    cookie: Option<Vec<u8>>,
    solution: Option<Vec<u8>>,
    round: u8,
}

/// What an initiator has asked.
#[derive(Debug)]
pub(super) struct Question {
    asking: Asking,
    private: Initiator,
    public: Vec<u8>,
    request: Vec<u8>,
}

/// The answer, until the secret is there.
#[derive(Debug)]
pub(super) struct Answer {
    agreement: Agreement,
    init: Init,
}

/// What a responder will answer, once there is a public value.
#[derive(Debug)]
pub(super) struct Answering {
    agreement: Agreement,
    request: Vec<u8>,
    ni: Vec<u8>,
    /// KEi, if the secret is computed later.
    theirs: Option<Vec<u8>>,
}

impl Question {
    /// Ni.
    pub(super) fn nonce(&self) -> &[u8] {
        &self.asking.nonce
    }
}

impl IkeSa {
    /// Begins.
    pub(super) fn begin_init(&mut self, cx: &mut Context<'_>) {
        let Some(method) = self.connection.proposals.key_exchange() else {
            return self.close(Closed::Configured("proposals have no key exchange"), cx);
        };
        let nonce = cx.random::<NONCE>().to_vec();
        self.generate(Asking { method, nonce, cookie: None, solution: None, round: 0 }, cx);
    }

    /// Begins once more, under another SPI: the responder has forgotten by now what there was, if it has ever known of it.
    pub(super) fn begin_again(&mut self, cx: &mut Context<'_>) {
        let wanted = match &self.asked {
            Some(Asked::Auth(question)) => question.wanted(),
            Some(Asked::Eap(_, wanting)) => wanting.wanted(),
            _ => None,
        };
        self.wanted = self.wanted.take().or(wanted.map(Box::new));
        self.let_claim_go();
        let spis = Spis { initiator: IkeSpi::from(cx.random::<8>()), responder: IkeSpi::NONE };
        self.channel = Channel::new(Role::Initiator, spis, self.connection.retransmission);
        self.path.local.set_port(self.connection.local_port);
        self.path.peer.set_port(self.connection.remote_port);
        (self.asked, self.init, self.keys, self.agreement) = (None, None, None, None);
        (self.resumed, self.nat, self.peer_hashes) = (None, None, None);
        (self.uses_ppk, self.has_ppk, self.may_be_childless) = (false, false, false);
        (self.init_error, self.deadline_ms) = (None, u64::MAX);
        self.begin_init(cx);
    }

    fn generate(&mut self, asking: Asking, cx: &mut Context<'_>) {
        let method = asking.method;
        self.after(Job::Generate(method), Then::InitAsk(Box::new(asking)), cx);
    }

    /// There is a private key: asks.
    pub(super) fn init_ask(&mut self, asking: Asking, outcome: Outcome, cx: &mut Context<'_>) {
        if let Outcome::Generated(private, public) = outcome {
            self.ask_init(Question { asking, private, public, request: vec![] }, cx);
        }
    }

    fn ask_init(&mut self, mut question: Question, cx: &mut Context<'_>) {
        let Asking { method, nonce, cookie, solution, .. } = &question.asking;
        // RFC 7296 §2.6: the cookie comes first, and all else is as it was.
        let mut payloads = vec![];
        payloads.extend(cookie.iter().map(|c| Payload::Notify(Notify::new(NotifyType::COOKIE, c))));
        payloads.extend(solution.clone().map(Payload::PuzzleSolution));
        payloads.push(Payload::SecurityAssociation(self.connection.proposals.for_any_peer().offer(&[])));
        payloads
            .push(Payload::KeyExchange(KeyExchange { method: method.id(), data: question.public.clone() }));
        payloads.push(Payload::Nonce(nonce.clone()));
        payloads.extend(self.redirect_notify());
        payloads.extend(self.init_notifies());
        let has_more = self.connection.proposals.have_additional_key_exchanges();
        payloads.extend(has_more.then(intermediate_notify));
        payloads.extend(self.ppk(cx).is_some().then(ppk::use_notify));
        payloads.extend(self.signature_payloads(cx));
        if let Some(request) = self.ask(ExchangeType::IKE_SA_INIT, &Payloads(payloads), cx) {
            question.request = request;
            self.asked = Some(Asked::Init(Box::new(question)));
        }
    }

    /// The puzzle is solved, or is not to be.
    pub(super) fn init_solved(&mut self, mut question: Question, outcome: Outcome, cx: &mut Context<'_>) {
        if let Outcome::Solved(solution) = outcome {
            question.asking.solution = solution;
            self.ask_init(question, cx);
        }
    }

    /// What each end says of itself.
    pub(super) fn init_notifies(&self) -> Vec<Payload> {
        let nat =
            nat::notifies(self.channel.spis(), self.path.local, self.path.peer, self.connection.forces_udp);
        let mut notifies = nat.to_vec();
        let kinds = [NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, NotifyType::CHILDLESS_IKEV2_SUPPORTED];
        // RFC 6023 §3: a responder says that it may be childless.
        let may = self.channel.role() == Role::Responder && self.connection.childless != Childless::Never;
        let says = [self.connection.says_fragments, may];
        let kinds = kinds.into_iter().zip(says).filter_map(|(kind, says)| says.then_some(kind));
        notifies.extend(kinds.map(|kind| Payload::Notify(Notify::new(kind, &[]))));
        notifies
    }

    /// The responder has answered.
    pub(super) fn init_answered(
        &mut self,
        mut question: Question,
        payloads: &Payloads,
        octets: Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        question = match self.redirected_init(question, payloads, cx) {
            Some(question) => question,
            None => return,
        };
        let spi = crate::message::Header::parse(&octets).map(|(header, ..)| header.responder_spi);
        let proposals = &self.connection.proposals;
        if let Some(notify) = payloads.error().or(payloads.notifies(NotifyType::COOKIE).next()) {
            let Asking { method, ref cookie, round, .. } = question.asking;
            let asked = proposals.asked_key_exchange(&notify.data, method);
            return match notify.kind {
                // Late ones say again what is done already.
                NotifyType::COOKIE if cookie.as_ref() == Some(&notify.data) => self.wait_on(question),
                NotifyType::INVALID_KE_PAYLOAD if notify.data == method.id().to_be_bytes() => {
                    self.wait_on(question);
                }
                NotifyType::COOKIE if COOKIES.contains(&notify.data.len()) && round < MOST_ROUNDS => {
                    question.asking.cookie = Some(notify.data.clone());
                    question.asking.solution = None;
                    question.asking.round += 1;
                    match Puzzle::said(payloads, &notify.data) {
                        Some(puzzle) => {
                            self.after(Job::Solve(puzzle), Then::InitSolve(Box::new(question)), cx)
                        }
                        // As who does not know of puzzles.
                        None => self.ask_init(question, cx),
                    }
                }
                NotifyType::INVALID_KE_PAYLOAD if asked.is_some() && round < MOST_ROUNDS => {
                    let method = asked.unwrap_or(method);
                    self.generate(Asking { method, round: round + 1, ..question.asking }, cx);
                }
                kind => {
                    let offered = proposals.to_string();
                    self.wait_for_another(question, Closed::Offer { kind, offered }, cx);
                }
            };
        }
        let (Some(chosen), Some(ke), Some(nr)) =
            (payloads.security_association(), payloads.key_exchange(), payloads.nonce())
        else {
            let missing = Closed::Missing("SA, KE or Nonce payload");
            return self.wait_for_another(question, missing, cx);
        };
        let agreement = match proposals.for_any_peer().accept(chosen) {
            Ok(agreement) => agreement,
            Err(error) => return self.wait_for_another(question, Closed::Accept(error), cx),
        };
        // RFC 9370 §2.2.1
        let has_more = agreement.additional_key_exchanges().next().is_some();
        if has_more && !payloads.has_notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED) {
            let missing =
                "INTERMEDIATE_EXCHANGE_SUPPORTED notification, and it has chosen further key exchanges";
            return self.wait_for_another(question, Closed::Missing(missing), cx);
        }
        // RFC 7296 §1.2: it takes the method of our KE payload, or says which it wants.
        let method = question.asking.method;
        if agreement.check_key_exchange(Some(method.id())).is_err() || ke.method != method.id() {
            let missing = Closed::Missing("KE payload of the method that was agreed on");
            return self.wait_for_another(question, missing, cx);
        }
        let Some(responder) = spi.ok().filter(|spi| *spi != IkeSpi::NONE) else {
            return self.wait_for_another(question, Closed::Missing("SPI of the responder"), cx);
        };
        let puzzle = Puzzle::said(payloads, &auth_puzzle::string(nr, responder));
        if puzzle.is_none() && payloads.has_notify(NotifyType::PUZZLE) {
            return self.wait_for_another(question, Closed::TooHard, cx);
        }
        self.channel.take_response();
        (self.init_error, self.deadline_ms) = (None, u64::MAX);
        self.channel.set_spis(Spis { responder, ..self.channel.spis() });
        let (ni, nr) = (question.asking.nonce, nr.to_vec());
        let takes_rounds = payloads.has_notify(NotifyType::MULTIPLE_AUTH_SUPPORTED);
        let asks_for_certificates = payloads.asks_for_certificates();
        let init = Init::new((question.request, octets), (ni, nr));
        let init = Init { takes_rounds, asks_for_certificates, puzzle, ..init };
        self.may_be_childless = payloads.has_notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED);
        self.learn_peer(payloads, self.channel.spis());
        self.uses_ppk = payloads.has_notify(NotifyType::USE_PPK) && self.ppk(cx).is_some();
        if self.connection.ppk_required && !self.uses_ppk {
            return self.close(Closed::NoPpk, cx);
        }
        let job = Job::Finish(question.private, ke.data.clone());
        self.after(job, Then::InitFinish(Box::new(Answer { agreement, init })), cx);
    }

    /// As if it had not been answered.
    fn wait_on(&mut self, question: Question) {
        self.asked = Some(Asked::Init(Box::new(question)));
    }

    /// Anybody can answer what is in clear: another answer is waited for, though not for long (RFC 7296 §2.21.1).
    pub(super) fn wait_for_another(&mut self, question: Question, why: Closed, cx: &mut Context<'_>) {
        self.wait_on(question);
        if self.init_error.is_none() {
            self.deadline_ms = cx.now_ms + ANOTHER_MS;
        }
        self.init_error = Some(Box::new(why));
    }

    /// There is a secret: IKE_INTERMEDIATE or IKE_AUTH begins.
    pub(super) fn init_finish(&mut self, answer: Answer, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Finished(secret) = outcome else { return };
        let secret = match secret {
            Ok(secret) => secret,
            Err(error) => return self.close(Closed::Exchange(error), cx),
        };
        if self.make_keys(&answer.agreement, secret, answer.init, cx) {
            self.float();
            self.go_on_to_auth(cx);
        }
    }

    /// The first message of a peer, which has a proposal in common with us and the right key exchange.
    pub(super) fn answer_init(
        &mut self,
        agreement: Agreement,
        payloads: &Payloads,
        octets: Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        let (Some(ke), Some(ni)) = (payloads.key_exchange(), payloads.nonce()) else { return };
        // RFC 7296 §2.23: in the request, SPIr is zero.
        let spis = Spis { responder: IkeSpi::NONE, ..self.channel.spis() };
        self.learn_peer(payloads, spis);
        self.redirection.is_taken = redirect::is_taken(payloads);
        self.uses_ppk = payloads.has_notify(NotifyType::USE_PPK) && !cx.config.ppks.is_empty();
        let Some(method) = agreement.key_exchange() else { return };
        // Where the solution comes behind further key exchanges is not said anywhere.
        self.puzzle_bits.take_if(|_| agreement.additional_key_exchanges().next().is_some());
        // RFC 8019 §7.2.4: the secret is computed once that is there. A KEM has it with the public value.
        let is_later = self.puzzle_bits.is_some() && !method.is_kem();
        let theirs = is_later.then(|| ke.data.clone());
        let job = match is_later {
            true => Job::Generate(method),
            false => Job::Respond(method, ke.data.clone()),
        };
        let answering = Answering { agreement, request: octets, ni: ni.to_vec(), theirs };
        self.after(job, Then::InitAnswer(Box::new(answering)), cx);
    }

    /// There is a public value and a secret: answers.
    pub(super) fn init_answer(&mut self, answering: Answering, outcome: Outcome, cx: &mut Context<'_>) {
        let (public, made) = match outcome {
            Outcome::Generated(private, public) => (public, Err(private)),
            Outcome::Responded(Ok((public, secret))) => (public, Ok(secret)),
            Outcome::Responded(Err(error)) => {
                self.answer_error(ExchangeType::IKE_SA_INIT, NotifyType::INVALID_SYNTAX, cx);
                return self.close(Closed::Exchange(error), cx);
            }
            _ => return,
        };
        let Answering { agreement, request, ni, theirs } = answering;
        let nr = cx.random::<NONCE>().to_vec();
        let Some(method) = agreement.key_exchange() else { return };
        let mut payloads = vec![
            Payload::SecurityAssociation(vec![agreement.answer(&[])]),
            Payload::KeyExchange(KeyExchange { method: method.id(), data: public }),
            Payload::Nonce(nr.clone()),
        ];
        payloads.extend(self.init_notifies());
        payloads.extend(agreement.additional_key_exchanges().next().map(|_| intermediate_notify()));
        payloads.extend(self.uses_ppk.then(ppk::use_notify));
        payloads.extend(self.signature_payloads(cx));
        payloads.extend(self.rounds_notify(cx));
        let responder = self.channel.spis().responder;
        let bits = self.puzzle_bits.take();
        let puzzle = bits.and_then(|bits| auth_puzzle::puzzle(&agreement, bits, &nr, responder));
        payloads.extend(puzzle.iter().map(|puzzle| Payload::Notify(puzzle.notify())));
        let Some(response) = self.answer(ExchangeType::IKE_SA_INIT, &Payloads(payloads), cx) else { return };
        let init = Init::new((request, response), (ni, nr));
        let keyless = match made {
            Ok(secret) => {
                self.make_keys(&agreement, secret, init, cx);
                None
            }
            Err(private) => Some(Keyless { private, theirs: theirs.unwrap_or_default(), agreement, init }),
        };
        if let Some(puzzle) = puzzle {
            self.await_solution(puzzle, keyless);
        }
    }

    /// What the peer says of itself.
    pub(super) fn learn_peer(&mut self, payloads: &Payloads, spis: Spis) {
        self.nat = Nat::detect(payloads, spis, self.path.local, self.path.peer);
        self.peer_hashes = proof::hashes(payloads);
        if payloads.has_notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED)
            && self.connection.fragment_octets > 0
        {
            // RFC 7383 §2.5.1: of an IP packet; UDP and the non-ESP marker are in it.
            let around = if self.path.peer.is_ipv4() { 20 } else { 40 } + 8 + 4;
            self.channel.cut_at(self.connection.fragment_octets.saturating_sub(around));
        }
    }

    /// Messages are sealed from now on.
    pub(super) fn make_keys(
        &mut self,
        agreement: &Agreement,
        secret: Secret,
        init: Init,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(suite) = agreement.suite() else {
            self.close(Closed::Configured("proposals have no suite"), cx);
            return false;
        };
        let (role, spis) = (self.channel.role(), self.channel.spis());
        let (keys, sealer, opener) = Keys::new(suite, role, secret, init.nonces(), spis);
        self.seal_with(sealer, opener, cx);
        (self.keys, self.init, self.agreement) = (Some(keys), Some(Box::new(init)), Some(agreement.clone()));
        true
    }
}

fn intermediate_notify() -> Payload {
    Payload::Notify(Notify::new(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED, &[]))
}

/// What an initiator offers, as far as it can be chosen.
pub(super) fn offered(payloads: &Payloads) -> Option<Vec<Proposal>> {
    let offered = payloads.security_association()?;
    // RFC 9370 §2.2.1
    Some(match payloads.has_notify(NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED) {
        true => offered.to_vec(),
        false => without_additional_key_exchanges(offered),
    })
}
