//! EAP in IKE_AUTH (RFC 7296 §2.16): the responder proves who it is first, and the initiator by EAP; then both prove that they
//! have the key that it has given them.
//!
//! ```text
//!  initiator                                                      responder
//!  SK {IDi, [CERTREQ], [IDr], SAi2, TSi, TSr, N...}     ──▶
//!                                                       ◀──       SK {IDr, [CERT...], AUTH, EAP}
//!  SK {EAP}                                             ──▶
//!                                                       ◀──       SK {EAP} ..., and Success at last
//!  SK {AUTH}                                            ──▶
//!                                                       ◀──       SK {AUTH, SAr2, TSi, TSr, N...}
//! ```
//!
//! By methods in which the authenticator proves who it is, too, the responder need not sign where both are so configured: it
//! sends no AUTH before the last (RFC 5998).

use super::{
    auth::{Answer, Answering},
    child::{Offer, Wanted},
    context::Context,
    ike_sa::{Asked, Closed, IkeSa, Then},
    job::{Job, Outcome},
    proof::Unproven,
};
use crate::{
    connection::{Connection, LocalAuth, RemoteAuth},
    crypto::{
        Secret,
        keys::{Keys, Role},
    },
    eap::{Authenticator, EapError, Means, Next, Peer, Proven, Reply},
    identity::IdPattern,
    message::{
        AuthMethod, Authentication, ExchangeType, Identification, Notify, NotifyType, Payload, Payloads,
    },
};
use rand_core::CryptoRng;

const EXCHANGE: ExchangeType = ExchangeType::IKE_AUTH;

/// EAP of a responder.
#[derive(Debug)]
pub(super) struct Serving {
    answering: Answering,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The user is to answer.
    Asked(Box<Authenticator>),
    /// It has, and is to prove that it has the key.
    Proven(Proven),
    /// A round of authentication is over, and another comes (RFC 4739).
    Waits,
}

impl Serving {
    /// Until the next round.
    pub fn waiting(answering: Answering) -> Serving {
        Serving { answering, step: Step::Waits }
    }

    /// Octets that it holds of what the initiator has sent in EAP.
    pub fn octets(&self) -> usize {
        match &self.step {
            Step::Asked(end) => end.octets(),
            Step::Proven(_) | Step::Waits => 0,
        }
    }
}

/// What an initiator has asked for, and who both are.
#[derive(Debug)]
pub(super) struct Wanting {
    answer: Answer,
    /// Of EAP, once that has succeeded; and the keys without the PPK.
    proven: Option<(Proven, Option<Keys>)>,
}

impl Wanting {
    /// The child SA that was asked for.
    pub fn wanted(&self) -> Option<Wanted> {
        self.answer.child.as_ref().map(Offer::wanted)
    }
}

/// A packet of EAP to be answered: TLS takes long.
#[derive(Debug)]
pub enum Turn {
    /// By an authenticator.
    Authenticator(Box<Authenticator>, Vec<u8>),
    /// By a user.
    Peer(Box<Peer>, Vec<u8>),
}

/// What came of it.
#[derive(Debug)]
pub enum Turned {
    /// By an authenticator.
    Authenticator(Box<Authenticator>, Next),
    /// By a user.
    Peer(Box<Peer>, Reply),
}

impl Turn {
    pub(crate) fn run(self, rng: &mut dyn CryptoRng) -> Turned {
        match self {
            Turn::Authenticator(mut end, octets) => {
                let next = end.handle(&octets, rng);
                Turned::Authenticator(end, next)
            }
            Turn::Peer(mut end, octets) => {
                let reply = end.handle(&octets, rng);
                Turned::Peer(end, reply)
            }
        }
    }
}

impl LocalAuth {
    /// How we prove who we are by EAP as an initiator.
    pub(super) fn eap_means(&self) -> Option<&Means> {
        match self {
            LocalAuth::Eap(means) => Some(means),
            _ => None,
        }
    }
}

impl Connection {
    /// Whether the other end proves who it is by EAP alone (RFC 5998): both are so configured, and the method can.
    fn is_eap_alone(&self) -> bool {
        match (&self.local_auth, &self.remote_auth) {
            (LocalAuth::Eap(means), RemoteAuth::Eap(demand)) => {
                demand.method.is_mutual() && means.method == Some(demand.method)
            }
            _ => false,
        }
    }
}

fn eap(octets: Vec<u8>) -> Payload {
    Payload::Eap(octets)
}

fn failed(who: &str, why: EapError) -> Closed {
    Closed::Authentication { who: who.to_owned(), why: Unproven::Eap(why) }
}

impl IkeSa {
    /// Who the other end is in EAP, if it was proven by that.
    pub fn eap_id(&self) -> Option<&str> {
        self.eap_id.as_deref()
    }

    /// An initiator asks for EAP: without AUTH, and with the wish to do without signatures.
    pub(super) fn eap_only_notify(&self) -> Option<Payload> {
        let notify = || Payload::Notify(Notify::new(NotifyType::EAP_ONLY_AUTHENTICATION, &[]));
        self.connection.is_eap_alone().then(notify)
    }

    /// Whether the responder's first answer may have no AUTH.
    pub(super) fn is_eap_alone(&self) -> bool {
        self.connection.is_eap_alone()
    }

    /// A responder is asked for EAP. It proves who it is first, if it must.
    pub(super) fn begin_eap(&mut self, answering: Answering, cx: &mut Context<'_>) {
        let connection = answering.connection.clone();
        if let LocalAuth::Eap(_) = &connection.local_auth {
            // RFC 5998 §3
            let asks = answering.payloads.has_notify(NotifyType::EAP_ONLY_AUTHENTICATION);
            if !asks || !connection.is_eap_alone() {
                let why = "the peer wants a signature, and the connection has EAP for both sides";
                return self.refuse_initiator(Closed::Configured(why), cx);
            }
            return self.first_eap(answering, vec![], cx);
        }
        self.prove_first(answering, cx);
    }

    /// A responder has proven who it is: the first request goes with that.
    pub(super) fn first_eap(
        &mut self,
        mut answering: Answering,
        proofs: Vec<Authentication>,
        cx: &mut Context<'_>,
    ) {
        let connection = answering.connection.clone();
        let Some((_, RemoteAuth::Eap(demand))) = connection.remote_round(answering.done.theirs) else {
            return;
        };
        let (mine, theirs) = &answering.ids;
        let secrets = &cx.config.eap_secrets;
        let mut end = Authenticator::new(demand, secrets, (&mine.to_string(), theirs), cx.unix_secs);
        match end.begin(cx.rng) {
            Next::Ask(octets) => {
                let mut payloads = answering.round(proofs, false);
                payloads.push(eap(octets));
                self.answer(EXCHANGE, &Payloads(payloads), cx);
                self.serving = Some(Box::new(Serving { answering, step: Step::Asked(Box::new(end)) }));
            }
            Next::Success(..) => self.refuse_initiator(Closed::Missing("AUTH payload"), cx),
            Next::Failure(_, why) => self.refuse_initiator(failed(&answering.ids.1.to_string(), why), cx),
        }
    }

    /// The initiator goes on with EAP.
    pub(super) fn answer_eap(&mut self, serving: Serving, payloads: &Payloads, cx: &mut Context<'_>) {
        let Serving { mut answering, step } = serving;
        match (step, payloads.eap(), payloads.authentication()) {
            (Step::Waits, ..) => self.answer_round(answering, payloads, cx),
            (Step::Asked(end), Some(octets), _) => {
                let held = end.octets() + octets.len();
                let job = Job::Eap(Turn::Authenticator(end, octets.to_vec()));
                self.after(job, Then::EapAnswer(Box::new((answering, held))), cx);
            }
            (Step::Proven(proven), _, Some(said)) => {
                let checked = self.check_msk(&answering, &proven, said, payloads, cx);
                answering.done.theirs += 1;
                let another = self.check_another(&answering.connection, answering.done, payloads);
                match checked.and_then(|proof| another.map(|()| proof)) {
                    Ok(proof) => {
                        self.eap_id = Some(proven.who);
                        self.answer_last(answering, vec![Payload::Authentication(proof)], cx);
                    }
                    Err(closed) => self.refuse_initiator(closed, cx),
                }
            }
            _ => self.refuse_initiator(Closed::Missing("EAP or AUTH payload"), cx),
        }
    }

    /// The initiator has not believed who we are, or has heard in EAP that it is not who it says (RFC 7296 §2.21.2).
    pub(super) fn eap_given_up(&mut self, kind: NotifyType, cx: &mut Context<'_>) {
        self.answer(ExchangeType::INFORMATIONAL, &Payloads::default(), cx);
        let why = self.serving.take().and_then(|serving| {
            let who = serving.answering.ids.1.to_string();
            match serving.step {
                Step::Asked(end) => end.failure().map(|why| failed(&who, why)),
                Step::Proven(_) | Step::Waits => None,
            }
        });
        self.close(why.unwrap_or(Closed::Peer(kind)), cx);
    }

    /// The authenticator has something to say.
    pub(super) fn eap_answer(&mut self, answering: Answering, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Eap(Turned::Authenticator(end, next)) = outcome else { return };
        match next {
            Next::Ask(octets) => {
                self.answer(EXCHANGE, &Payloads(vec![eap(octets)]), cx);
                self.serving = Some(Box::new(Serving { answering, step: Step::Asked(end) }));
            }
            Next::Success(octets, proven) => {
                self.answer(EXCHANGE, &Payloads(vec![eap(octets)]), cx);
                self.serving = Some(Box::new(Serving { answering, step: Step::Proven(proven) }));
            }
            Next::Failure(octets, why) => {
                self.answer(EXCHANGE, &Payloads(vec![eap(octets)]), cx);
                self.close(failed(&answering.ids.1.to_string(), why), cx);
            }
        }
    }

    /// Whether the initiator has the key; that we have it, too.
    fn check_msk(
        &mut self,
        answering: &Answering,
        proven: &Proven,
        said: &Authentication,
        payloads: &Payloads,
        cx: &Context<'_>,
    ) -> Result<Authentication, Closed> {
        let (mine, theirs) = &answering.ids;
        // RFC 8784 §3: with EAP it comes with the last message.
        let without_ppk = self.answer_ppk(&answering.connection, payloads, said.method, cx)?;
        self.is_by_msk(Role::Initiator, theirs, &proven.msk, without_ppk.as_ref().unwrap_or(said))?;
        self.by_msk(Role::Responder, mine, &proven.msk)
    }

    // RFC 7296 §2.16: as a shared key.
    fn by_msk(&self, who: Role, id: &Identification, msk: &Secret) -> Result<Authentication, Closed> {
        let data = self.by_key(who, id, Some(msk)).ok_or(Closed::Configured("there are no keys yet"))?;
        Ok(Authentication { method: AuthMethod::SHARED_KEY, data: data.bytes().to_vec() })
    }

    fn is_by_msk(
        &self,
        who: Role,
        id: &Identification,
        msk: &Secret,
        said: &Authentication,
    ) -> Result<(), Closed> {
        let is_method = said.method == AuthMethod::SHARED_KEY;
        match self.by_key(who, id, Some(msk)) {
            Some(proof) if is_method && proof == Secret::copy_of(&said.data) => Ok(()),
            _ => Err(Closed::Authentication { who: id.to_string(), why: Unproven::Msk }),
        }
    }

    /// An initiator knows who the responder is, or is to know it by EAP: answers the first request.
    pub(super) fn begin_eap_peer(&mut self, answer: Answer, cx: &mut Context<'_>) {
        let connection = self.connection.clone();
        let round = connection.local_round(answer.done.mine);
        let Some(means) = round.and_then(|(_, auth)| auth.eap_means()) else { return };
        let Some(octets) = answer.payloads.eap().map(<[u8]>::to_vec) else {
            return self.refuse_peer(Closed::Missing("EAP payload"), cx);
        };
        let (mine, authority) = (answer.ids.0.to_string(), IdPattern::from(&answer.ids.1));
        let end = Peer::new(means, &cx.config.eap_secrets, (&mine, authority), cx.unix_secs);
        let wanting = Wanting { answer, proven: None };
        self.turn_eap(Box::new(end), octets, wanting, cx);
    }

    fn turn_eap(&mut self, end: Box<Peer>, octets: Vec<u8>, wanting: Wanting, cx: &mut Context<'_>) {
        self.after(Job::Eap(Turn::Peer(end, octets)), Then::EapAsk(Box::new(wanting)), cx);
    }

    /// The user has something to say.
    pub(super) fn eap_ask(&mut self, mut wanting: Wanting, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Eap(Turned::Peer(end, reply)) = outcome else { return };
        match reply {
            Reply::Answer(octets) => {
                self.ask(EXCHANGE, &Payloads(vec![eap(octets)]), cx);
                self.asked = Some(Asked::Eap(Some(end), Box::new(wanting)));
            }
            Reply::Failure(why) => self.close(failed(&wanting.answer.ids.0.to_string(), why), cx),
            Reply::Success(proven) => {
                let mine = wanting.answer.ids.0.clone();
                let before = self.by_msk(Role::Initiator, &mine, &proven.msk);
                let plain = self.mix_ppk(cx);
                let both =
                    before.and_then(|before| Ok([self.by_msk(Role::Initiator, &mine, &proven.msk)?, before]));
                match both {
                    Ok([proof, before]) => {
                        let mut payloads = vec![Payload::Authentication(proof)];
                        payloads.extend(self.ppk_notifies(Some(&before)));
                        let mut done = wanting.answer.done;
                        done.begin(true);
                        payloads.extend(self.connection.another_of(done));
                        wanting.proven = Some((proven, plain));
                        self.ask(EXCHANGE, &Payloads(payloads), cx);
                        self.asked = Some(Asked::Eap(None, Box::new(wanting)));
                    }
                    Err(closed) => self.close(closed, cx),
                }
            }
        }
    }

    /// The responder goes on with EAP, or proves that it has the key.
    pub(super) fn eap_answered(
        &mut self,
        end: Option<Box<Peer>>,
        wanting: Wanting,
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) {
        let missing = |payloads: &Payloads| {
            payloads
                .error()
                .map_or(Closed::Missing("EAP or AUTH payload"), |notify| Closed::Peer(notify.kind))
        };
        match (end, payloads.eap(), wanting.proven, payloads.authentication()) {
            (Some(end), Some(octets), proven, _) => {
                self.turn_eap(end, octets.to_vec(), Wanting { proven, ..wanting }, cx);
            }
            (None, _, Some((proven, plain)), Some(said)) => {
                let answer = Answer { payloads: payloads.clone(), ..wanting.answer };
                let settled = self.settle_ppk(plain, payloads);
                let checked =
                    settled.and_then(|()| self.is_by_msk(Role::Responder, &answer.ids.1, &proven.msk, said));
                match checked {
                    Ok(()) => self.eap_proven(answer, cx),
                    Err(closed) => self.refuse_peer(closed, cx),
                }
            }
            _ => self.close(missing(payloads), cx),
        }
    }
}
