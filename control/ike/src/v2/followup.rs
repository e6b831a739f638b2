//! IKE_FOLLOWUP_KE (RFC 9370 §2.2.4): the additional key exchanges behind CREATE_CHILD_SA, before there is what was asked for.
//!
//! ```text
//!  who asks                                           who answers
//!  CREATE_CHILD_SA  SK {SA, Ni, KEi...}      ──▶
//!                                            ◀──      SK {SA, Nr, KEr, N(ADDITIONAL_KEY_EXCHANGE)(link 1)...}
//!  IKE_FOLLOWUP_KE  SK {KEi(1), N(link 1)}   ──▶
//!                                            ◀──      SK {KEr(1), N(link 2)}
//!  IKE_FOLLOWUP_KE  SK {KEi(2), N(link 2)}   ──▶
//!                                            ◀──      SK {KEr(2)}            both have it now
//! ```
//!
//! Who asks does nothing else meanwhile. Who answers may forget it after some time, and says STATE_NOT_FOUND then: all that
//! began with CREATE_CHILD_SA has failed, and may be asked again.

use super::{
    child::ChildError,
    context::Context,
    create_child,
    ike_sa::{Asked, IkeSa, Phase, Task, Then},
    job::{Job, Outcome},
    rekey_ike,
};
use crate::{
    crypto::{Secret, exchange::Initiator, transform::KeyExchange as Method},
    kept::{keep, keep_enum},
    message::{ExchangeType, KeyExchange, Notify, NotifyType, Payload, Payloads},
};
use std::collections::VecDeque;

const EXCHANGE: ExchangeType = ExchangeType::IKE_FOLLOWUP_KE;

/// How long who answers waits for the next exchange. RFC 9370 §2.2.4 has 5 to 20 seconds.
pub(super) const MOST_MS: u64 = 20_000;

/// How often on end the peer may forget what we have asked for.
const MOST_FORGOTTEN: u8 = 3;

/// What there is behind the last exchange.
#[derive(Debug)]
pub(super) enum Makes {
    Child(create_child::Answer),
    Ike(rekey_ike::Agreed),
}

/// Key exchanges, and what they are for.
#[derive(Debug)]
pub(super) struct Series {
    makes: Makes,
    /// What is left of them.
    methods: VecDeque<Method>,
    /// What came of those before.
    secrets: Vec<Secret>,
    /// What the next request says.
    link: Vec<u8>,
}

/// What we have asked.
#[derive(Debug)]
pub(super) struct Question {
    series: Series,
    private: Initiator,
}

/// What the peer has still to ask.
#[derive(Debug)]
pub(super) struct Awaited {
    series: Series,
    until_ms: u64,
}

impl Makes {
    /// The child SA, if it is one.
    pub(super) fn child(&self) -> Option<&create_child::Answer> {
        match self {
            Makes::Child(answer) => Some(answer),
            Makes::Ike(_) => None,
        }
    }
}

impl Series {
    /// Behind CREATE_CHILD_SA, which has made a secret. Who answers chooses the link.
    pub(super) fn new(makes: Makes, methods: Vec<Method>, secret: Secret, link: Vec<u8>) -> Series {
        Series { makes, methods: methods.into(), secrets: vec![secret], link }
    }

    /// An exchange is done.
    fn add(&mut self, secret: Secret) {
        self.methods.pop_front();
        self.secrets.push(secret);
    }
}

impl Awaited {
    /// When it is forgotten.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }
}

/// What a message says of the next exchange.
pub(super) fn link(payloads: &Payloads) -> Option<Vec<u8>> {
    payloads.notifies(NotifyType::ADDITIONAL_KEY_EXCHANGE).next().map(|notify| notify.data.clone())
}

fn link_notify(link: &[u8]) -> Payload {
    Payload::Notify(Notify::new(NotifyType::ADDITIONAL_KEY_EXCHANGE, link))
}

impl IkeSa {
    /// What we exchange further keys for.
    pub(super) fn following_up(&self) -> Option<&Makes> {
        match (&self.asked, self.thens_asking()) {
            (Some(Asked::FollowUp(question)), _) => Some(&question.series.makes),
            (_, Some(Then::FollowUpAsk(series) | Then::FollowUpFinish(series))) => Some(&series.makes),
            _ => None,
        }
    }

    /// Whether we exchange further keys for one in the place of this child SA.
    pub(super) fn is_following_up(&self, spi_in: u32) -> bool {
        self.following_up().and_then(Makes::child).is_some_and(|child| child.replaces() == Some(spi_in))
    }

    /// Whether we exchange further keys for an IKE SA in the place of this one.
    pub(super) fn is_following_up_ike(&self) -> bool {
        matches!(self.following_up(), Some(Makes::Ike(_)))
    }

    /// What the peer has further keys to exchange for, and how long it has for that.
    fn awaited(&self) -> Option<(&Makes, u64)> {
        match (&self.awaited, self.thens_answering()) {
            (Some(awaited), _) => Some((&awaited.series.makes, awaited.until_ms)),
            (_, Some(Then::FollowUpAnswer(series))) => Some((&series.makes, self.heard_ms + MOST_MS)),
            _ => None,
        }
    }

    /// How long the peer has to put one in the place of this child SA, if it is about to.
    pub(super) fn awaits_child_for(&self, spi_in: u32) -> Option<u64> {
        let is_it = |makes: &Makes| makes.child().is_some_and(|child| child.replaces() == Some(spi_in));
        self.awaited().filter(|(makes, _)| is_it(makes)).map(|(_, until_ms)| until_ms)
    }

    /// How long the peer has to put another in the place of this IKE SA, if it is about to.
    pub(super) fn awaits_ike(&self) -> Option<u64> {
        self.awaited().filter(|(makes, _)| makes.child().is_none()).map(|(_, until_ms)| until_ms)
    }

    /// Exchanges the next keys, or there is what they were for.
    pub(super) fn follow_up(&mut self, series: Series, cx: &mut Context<'_>) {
        if let Some(method) = series.methods.front() {
            return self.after(Job::Generate(*method), Then::FollowUpAsk(Box::new(series)), cx);
        }
        self.forgotten = 0;
        match series.makes {
            Makes::Child(answer) => self.finish_child(answer, &series.secrets, cx),
            Makes::Ike(agreed) => self.finish_rekey(agreed, series.secrets, cx),
        }
    }

    /// There is a private key: asks.
    pub(super) fn follow_up_ask(&mut self, series: Series, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Generated(private, public) = outcome else { return };
        let payloads = vec![
            Payload::KeyExchange(KeyExchange { method: private.method().id(), data: public }),
            link_notify(&series.link),
        ];
        self.ask(EXCHANGE, &Payloads(payloads), cx);
        self.asked = Some(Asked::FollowUp(Box::new(Question { series, private })));
    }

    /// The peer has answered.
    pub(super) fn follow_up_answered(
        &mut self,
        question: Question,
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) {
        let Question { mut series, private } = question;
        if let Some(notify) = payloads.error() {
            return self.not_followed_up(series, &ChildError::Peer(notify.kind), cx);
        }
        let ke = payloads.key_exchange().filter(|ke| ke.method == private.method().id());
        let next = link(payloads).or((series.methods.len() == 1).then(Vec::new));
        let (Some(ke), Some(next)) = (ke, next) else {
            let missing = "KE payload of the method that is next, or ADDITIONAL_KEY_EXCHANGE notification";
            return self.not_followed_up(series, &ChildError::Missing(missing), cx);
        };
        series.link = next;
        let job = Job::Finish(private, ke.data.clone());
        self.after(job, Then::FollowUpFinish(Box::new(series)), cx);
    }

    /// There is a secret.
    pub(super) fn follow_up_finish(&mut self, mut series: Series, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Finished(secret) = outcome else { return };
        match secret {
            Ok(secret) => {
                series.add(secret);
                self.follow_up(series, cx);
            }
            Err(error) => self.not_followed_up(series, &ChildError::Exchange(error), cx),
        }
    }

    /// All that began with CREATE_CHILD_SA has failed.
    fn not_followed_up(&mut self, series: Series, error: &ChildError, cx: &mut Context<'_>) {
        if *error == ChildError::Peer(NotifyType::STATE_NOT_FOUND) {
            self.forgotten += 1;
        }
        let is_last = series.methods.len() == 1;
        match series.makes {
            Makes::Child(answer) => self.child_went_wrong(answer, is_last, error, cx),
            Makes::Ike(_) => self.rekey_went_wrong(is_last, error, cx),
        }
        // RFC 9370 §2.2.4: after several retries, the IKE SA MUST be deleted.
        if self.forgotten >= MOST_FORGOTTEN {
            self.tasks.push_front(Task::Delete);
        }
    }

    /// Answers the peer, which has further keys to exchange.
    pub(super) fn await_follow_up(
        &mut self,
        (exchange, mut payloads): (ExchangeType, Vec<Payload>),
        mut series: Series,
        cx: &mut Context<'_>,
    ) {
        series.link = cx.random::<8>().to_vec();
        payloads.push(link_notify(&series.link));
        self.answer(exchange, &Payloads(payloads), cx);
        self.awaited = Some(Box::new(Awaited { series, until_ms: cx.now_ms + MOST_MS }));
    }

    /// The peer exchanges further keys.
    pub(super) fn answer_follow_up(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let link = link(payloads);
        let is_it = |awaited: &mut Box<Awaited>| link.as_ref() == Some(&awaited.series.link);
        let awaited = self.awaited.take_if(is_it).filter(|_| self.phase == Phase::Established);
        let Some(awaited) = awaited else {
            return self.answer_error(EXCHANGE, NotifyType::STATE_NOT_FOUND, cx);
        };
        let series = awaited.series;
        match (series.methods.front(), payloads.key_exchange()) {
            (Some(method), Some(ke)) if method.id() == ke.method => {
                let job = Job::Respond(*method, ke.data.clone());
                self.after(job, Then::FollowUpAnswer(Box::new(series)), cx);
            }
            _ => self.answer_error(EXCHANGE, NotifyType::INVALID_SYNTAX, cx),
        }
    }

    /// There is a public value and a secret: answers.
    pub(super) fn follow_up_answer(&mut self, mut series: Series, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Responded(responded) = outcome else { return };
        let (Ok((public, secret)), Some(method)) = (responded, series.methods.front().copied()) else {
            return self.answer_error(EXCHANGE, NotifyType::INVALID_SYNTAX, cx);
        };
        series.add(secret);
        let payloads = vec![Payload::KeyExchange(KeyExchange { method: method.id(), data: public })];
        if !series.methods.is_empty() {
            return self.await_follow_up((EXCHANGE, payloads), series, cx);
        }
        let Series { makes, secrets, .. } = series;
        match makes {
            Makes::Child(answer) => self.child_made(answer, &secrets, (EXCHANGE, payloads), cx),
            Makes::Ike(agreed) => self.rekey_made(agreed, secrets, (EXCHANGE, payloads), cx),
        }
    }
}

keep_enum!(Makes { 0 => Child(answer), 1 => Ike(agreed) });
keep!(Series { makes, methods, secrets, link });
keep!(Question { series, private });
