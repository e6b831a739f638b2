//! CREATE_CHILD_SA for a child SA (RFC 7296 §1.3.1, §1.3.3, §2.8): a further one, or one in the place of another.
//!
//! ```text
//!  who asks                                                          who answers
//!  SK {[N(REKEY_SA)], SA, Ni, [KEi], TSi, TSr, N...} ──▶
//!                                                    ◀──             SK {SA, Nr, [KEr], TSi, TSr, N...}
//!                                                    ◀──             SK {N(INVALID_KE_PAYLOAD)}, then with another KEi
//! ```
//!
//! Where more key exchanges were agreed on, they follow ([`followup`]), and the SA is made behind the last.
//!
//! Both ends may replace one SA at the same time. Then there are two new ones, and that with the lowest of the four nonces
//! is deleted by who began it; the other deletes what was replaced (RFC 7296 §2.8.1). Where it is not made yet, who began it
//! just does not go on (RFC 9370 §2.2.4).

use super::{
    child::{Agreed, ChildError, ChildSa, Install, Offer, Wanted, between},
    context::Context,
    followup::{self, Makes, Series},
    ike_sa::{Asked, IkeSa, Phase, Task, Then},
    job::{Job, Outcome},
    output::Event,
    resource::{self, Place},
};
use crate::{
    connection::Child,
    crypto::{
        Secret,
        exchange::Initiator,
        keys::{Nonces, Role},
        transform::KeyExchange as Method,
    },
    kept::keep,
    message::{ExchangeType, KeyExchange, Notify, NotifyType, Payload, Payloads},
};
use std::sync::Arc;

const EXCHANGE: ExchangeType = ExchangeType::CREATE_CHILD_SA;

/// Child SAs of an IKE SA, at most, that the peer may ask for.
const MOST_CHILDREN: usize = 256;

/// Replaced ones that the peer has not deleted, at most, besides as many as are in use: it may replace all before it deletes any.
const MOST_REPLACED: usize = 8;

/// Octets of our nonces.
const NONCE: usize = 32;

/// Key exchange methods that are tried, at most.
const MOST_ROUNDS: u8 = 3;

/// How long to wait until what the peer cannot do now is asked again, and up to so much longer.
const AGAIN_MS: (u64, u64) = (2_000, 8_000);

/// How long the peer has to delete what it has replaced, until we do, or may not have heard of what it has asked for: longer than
/// it asks again for what it has missed.
const DELETE_MS: u64 = 200_000;

/// How much later what the peer has refused is asked again.
pub(super) const REFUSED_MS: u64 = 60_000;

/// What is to be asked.
#[derive(Debug)]
pub(super) struct Asking {
    offer: Offer,
    /// What it is in the place of, by our SPI.
    replaces: Option<u32>,
    method: Option<Method>,
    round: u8,
}

/// What was asked.
#[derive(Debug)]
pub(super) struct Question {
    asking: Asking,
    private: Option<Initiator>,
    nonce: Vec<u8>,
}

/// What was answered, until the secrets are there.
#[derive(Debug)]
pub(super) struct Answer {
    agreed: Agreed,
    replaces: Option<u32>,
    ni: Vec<u8>,
    nr: Vec<u8>,
    /// Of the first exchange that follows; nothing where none does.
    link: Vec<u8>,
}

impl Answer {
    /// What it is to take the place of.
    pub(super) fn replaces(&self) -> Option<u32> {
        self.replaces
    }
}

/// What will be answered, once there is a public value.
#[derive(Debug)]
pub(super) struct Answering {
    agreed: Agreed,
    replaces: Option<u32>,
    method: Option<Method>,
    ni: Vec<u8>,
}

/// What the peer has put in the place of the SA that we are replacing.
#[derive(Debug)]
pub(super) struct Rival {
    lowest_nonce: Vec<u8>,
}

/// When what the peer cannot do now is to be asked again.
pub(super) fn again_ms(cx: &mut Context<'_>) -> u64 {
    let (least, more) = AGAIN_MS;
    cx.now_ms + least + u64::from(u16::from_be_bytes(cx.random())) * more / u64::from(u16::MAX)
}

impl Question {
    /// What it is to take the place of.
    pub(super) fn replaces(&self) -> Option<u32> {
        self.asking.replaces
    }
}

impl Asking {
    /// The resource that it is for.
    pub(super) fn resource(&self) -> Option<u32> {
        self.offer.resource
    }

    /// Whether the peer wants another method of key exchange.
    pub(super) fn is_asked_again(&self) -> bool {
        self.round > 0
    }

    /// What is asked for.
    pub(super) fn wanted(&self) -> Wanted {
        self.offer.wanted()
    }

    /// What it is to take the place of.
    pub(super) fn replaces(&self) -> Option<u32> {
        self.replaces
    }
}

impl IkeSa {
    /// Asks for a further child SA.
    pub(super) fn ask_child(&mut self, wanted: &Wanted, cx: &mut Context<'_>) {
        self.begin_child(wanted, None, None, cx);
    }

    /// Asks for one like one that is there, for a resource.
    pub(super) fn ask_further_child(&mut self, config: &Arc<Child>, resource: u32, cx: &mut Context<'_>) {
        self.begin_child(&config.into(), None, Some(resource), cx);
    }

    /// Asks for one in the place of another.
    pub(super) fn ask_rekey_child(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        let answered = self.answered_child.as_deref().copied();
        let is_unknown = |(child, until_ms): &(u32, u64)| *child == spi_in && cx.now_ms < *until_ms;
        let known_ms = answered.filter(is_unknown).map(|(_, until_ms)| until_ms.min(again_ms(cx)));
        let awaited_ms = self.awaits_child_for(spi_in).or(known_ms);
        let child = self.children.iter_mut().find(|child| child.spi_in == spi_in && !child.is_replaced);
        if let Some(child) = child {
            // The peer is about to, or asks again for it and would say that there is none to replace.
            if let Some(until_ms) = awaited_ms {
                return child.rekey_at_ms = until_ms;
            }
            // Not again, unless this fails.
            child.rekey_at_ms = u64::MAX;
            // RFC 7296 §2.9.2: without the packet that once wanted it.
            let (wanted, resource) = (Wanted::from(&child.config), child.resource);
            self.begin_child(&wanted, Some(spi_in), resource, cx);
        }
    }

    fn begin_child(
        &mut self,
        wanted: &Wanted,
        replaces: Option<u32>,
        resource: Option<u32>,
        cx: &mut Context<'_>,
    ) {
        self.rival = None;
        self.early_deletes.clear();
        match Offer::new(wanted, true, &self.hosts(), cx) {
            Some(offer) => {
                let offer = offer.for_resource(resource);
                let method = offer.key_exchange();
                self.generate_child(Asking { offer, replaces, method, round: 0 }, cx);
            }
            None => self.child_not_made(&wanted.config.name, replaces, &ChildError::Full, cx),
        }
    }

    fn generate_child(&mut self, asking: Asking, cx: &mut Context<'_>) {
        match asking.method {
            Some(method) => self.after(Job::Generate(method), Then::ChildAsk(Box::new(asking)), cx),
            None => self.send_child(asking, None, cx),
        }
    }

    /// There is a private key: asks.
    pub(super) fn child_ask(&mut self, asking: Asking, outcome: Outcome, cx: &mut Context<'_>) {
        if let Outcome::Generated(private, public) = outcome {
            self.send_child(asking, Some((private, public)), cx);
        }
    }

    fn send_child(&mut self, asking: Asking, key: Option<(Initiator, Vec<u8>)>, cx: &mut Context<'_>) {
        let nonce = cx.random::<NONCE>().to_vec();
        let mut payloads = vec![];
        if let Some(old) = asking.replaces {
            let Some(old) = self.children.iter().find(|child| child.spi_in == old) else { return };
            // RFC 7296 §1.3.3: by the SPI that we receive by.
            let mut notify = Notify::new(NotifyType::REKEY_SA, &[]);
            (notify.protocol, notify.spi) = (old.protocol(), old.spi_in.to_be_bytes().to_vec());
            payloads.push(Payload::Notify(notify));
        }
        let (private, public) = key.unzip();
        let mut offer = asking.offer.payloads().into_iter();
        payloads.extend(offer.next()); // SA
        payloads.push(Payload::Nonce(nonce.clone()));
        payloads.extend(private.iter().zip(public).map(|(private, data): (&Initiator, _)| {
            Payload::KeyExchange(KeyExchange { method: private.method().id(), data })
        }));
        payloads.extend(offer);
        self.ask(EXCHANGE, &Payloads(payloads), cx);
        self.asked = Some(Asked::Child(Box::new(Question { asking, private, nonce })));
    }

    /// The peer has answered.
    pub(super) fn child_answered(&mut self, question: Question, payloads: &Payloads, cx: &mut Context<'_>) {
        let Question { mut asking, private, nonce } = question;
        let name = asking.offer.config.name.clone();
        if let Some(notify) = payloads.error() {
            if self.rival.take().is_some() {
                // It is replaced, though not by us.
                return self.yield_child(asking.replaces, cx.now_ms);
            }
            asking.round += 1;
            let asked = private.as_ref().map(Initiator::method);
            let again = asked.and_then(|asked| asking.offer.asked_key_exchange(&notify.data, asked));
            return match (notify.kind, again) {
                (NotifyType::INVALID_KE_PAYLOAD, Some(method)) if asking.round < MOST_ROUNDS => {
                    self.generate_child(Asking { method: Some(method), ..asking }, cx);
                }
                // RFC 7296 §2.25
                (NotifyType::TEMPORARY_FAILURE, _) => {
                    self.ask_child_again(asking.replaces, (asking.wanted(), asking.offer.resource), cx);
                }
                // RFC 7296 §2.25.1: the peer has lost it, or has just deleted it.
                (NotifyType::CHILD_SA_NOT_FOUND, _) if asking.replaces.is_some() => {
                    let old = asking.replaces.filter(|old| self.children.iter().any(|c| c.spi_in == *old));
                    if let Some(old) = old {
                        self.remove_child(old, cx);
                        self.begin_child(&asking.wanted(), None, asking.offer.resource, cx);
                    }
                }
                // RFC 9611 §5.2: the peer has enough of them.
                (NotifyType::TS_MAX_QUEUE, _) if asking.offer.resource.is_some() => {
                    self.ask_no_further(&name)
                }
                (kind, _) => {
                    let error = asking.offer.refused_by(kind);
                    self.child_not_made(&name, asking.replaces, &error, cx);
                }
            };
        }
        let (replaces, spi_in) = (asking.replaces, asking.offer.spi_in());
        let link = followup::link(payloads);
        let nr = payloads.nonce().map(<[u8]>::to_vec).ok_or(ChildError::Missing("Nonce payload"));
        let accepted = nr.and_then(|nr| Ok((asking.offer.accept(payloads, &self.hosts())?, nr)));
        let (agreed, nr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return self.child_refused(&name, replaces, spi_in, &error, cx),
        };
        if link.is_none() && !agreed.additional_key_exchanges().is_empty() {
            let missing = ChildError::Missing("ADDITIONAL_KEY_EXCHANGE notification");
            return self.child_not_made(&name, replaces, &missing, cx);
        }
        let answer = Answer { agreed, replaces, ni: nonce, nr, link: link.unwrap_or_default() };
        match (answer.agreed.key_exchange(), private, payloads.key_exchange()) {
            (None, ..) => self.finish_child(answer, &[], cx),
            (Some(method), Some(private), Some(ke))
                if method == private.method() && ke.method == method.id() =>
            {
                let job = Job::Finish(private, ke.data.clone());
                self.after(job, Then::ChildFinish(Box::new(answer)), cx);
            }
            _ => {
                let error = ChildError::Missing("KE payload of the method that was agreed on");
                self.child_refused(&name, replaces, spi_in, &error, cx);
            }
        }
    }

    /// There is no other. What it was to replace goes on, and is tried again.
    fn child_not_made(
        &mut self,
        name: &str,
        replaces: Option<u32>,
        error: &ChildError,
        cx: &mut Context<'_>,
    ) {
        self.child_failed(name, error, cx);
        let at_ms = REFUSED_MS + again_ms(cx);
        if let Some(child) = self.children.iter_mut().find(|child| Some(child.spi_in) == replaces) {
            child.rekey_at_ms = at_ms;
        }
    }

    /// The peer has made one that cannot be: it is told to delete it.
    fn child_refused(
        &mut self,
        name: &str,
        replaces: Option<u32>,
        spi_in: u32,
        error: &ChildError,
        cx: &mut Context<'_>,
    ) {
        self.tasks.push_back(Task::DeleteOffered(spi_in));
        self.child_not_made(name, replaces, error, cx);
    }

    /// What the peer cannot do now is asked again after a while.
    fn ask_child_again(
        &mut self,
        replaces: Option<u32>,
        (wanted, resource): (Wanted, Option<u32>),
        cx: &mut Context<'_>,
    ) {
        let at_ms = again_ms(cx);
        match replaces {
            Some(old) => {
                if let Some(child) = self.children.iter_mut().find(|child| child.spi_in == old) {
                    child.rekey_at_ms = at_ms;
                }
            }
            None => {
                let again = match resource {
                    Some(resource) => Task::Further(wanted.config, resource),
                    None => Task::Child(wanted),
                };
                self.later.push((at_ms, again));
            }
        }
    }

    /// There is a secret: the SA is there, or more key exchanges follow.
    pub(super) fn child_finish(&mut self, answer: Answer, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Finished(secret) = outcome else { return };
        let methods = answer.agreed.additional_key_exchanges();
        let secret = match secret {
            Ok(secret) => secret,
            Err(error) => {
                return self.child_went_wrong(answer, methods.is_empty(), &ChildError::Exchange(error), cx);
            }
        };
        if methods.is_empty() {
            return self.finish_child(answer, &[secret], cx);
        }
        let lowest = answer.ni.as_slice().min(&answer.nr);
        if self.rival.take().is_some_and(|rival| *lowest < rival.lowest_nonce[..]) {
            // RFC 9370 §2.2.4: what loses is not made, and the exchanges MUST NOT follow.
            return self.yield_child(answer.replaces, cx.now_ms);
        }
        let link = answer.link.clone();
        self.follow_up(Series::new(Makes::Child(answer), methods, secret, link), cx);
    }

    /// The peer has replaced a child SA, or is about to. If it does not, we do it after all.
    fn yield_child(&mut self, old: Option<u32>, now_ms: u64) {
        let Some(old) = self.children.iter_mut().find(|child| Some(child.spi_in) == old) else { return };
        if old.successor.is_some() {
            old.is_replaced = true;
        } else if !old.is_replaced {
            old.rekey_at_ms = now_ms + followup::MOST_MS;
        }
    }

    /// There is none, at our end, and not at the peer's either unless it was the last exchange that went wrong.
    pub(super) fn child_went_wrong(
        &mut self,
        answer: Answer,
        is_last: bool,
        error: &ChildError,
        cx: &mut Context<'_>,
    ) {
        let (name, replaces) = (answer.agreed.name(), answer.replaces);
        if error.is_temporary() {
            let of = (answer.agreed.wanted(), answer.agreed.resource());
            self.ask_child_again(replaces, of, cx);
        } else if is_last && !matches!(error, ChildError::Peer(_)) {
            self.child_refused(name, replaces, answer.agreed.spi_in(), error, cx);
        } else {
            self.child_not_made(name, replaces, error, cx);
        }
    }

    /// The SA is there, at both ends.
    pub(super) fn finish_child(&mut self, answer: Answer, secrets: &[Secret], cx: &mut Context<'_>) {
        let Answer { agreed, replaces, ni, nr, .. } = answer;
        if std::mem::take(&mut self.early_deletes).contains(&agreed.spi_out()) {
            let name = agreed.name().to_owned();
            return self.child_not_made(&name, replaces, &ChildError::Deleted, cx);
        }
        let nonces = Nonces { initiator: &ni, responder: &nr };
        let first = agreed.is_first_of_several().then(|| agreed.config().clone());
        let Some(install) = self.with_keys(agreed, Role::Initiator, secrets, nonces, cx) else { return };
        let ours = install.sa.spi_in;
        let has_lost = self.rival.take().is_some_and(|rival| ni.clone().min(nr.clone()) < rival.lowest_nonce);
        let old = replaces.filter(|old| self.children.iter().any(|child| child.spi_in == *old));
        // RFC 7296 §2.8.1: what loses is not used, and deleted by who began it.
        let install = Install { replaces: old, sends: !has_lost, ..install };
        let narrowed = self.narrowed(&install);
        let up = self.put_child(install, cx);
        self.event(up, cx);
        narrowed.into_iter().for_each(|event| self.event(event, cx));
        if let Some(config) = first.filter(|_| replaces.is_none()) {
            self.ask_further(&config, cx);
        }
        if has_lost {
            self.tasks.push_back(Task::DeleteChild(ours));
        } else {
            // Not before the new one is in use, which may fail yet.
            self.later.extend(old.map(|old| (cx.now_ms, Task::DeleteChild(old))));
        }
        if let Some(old) = self.children.iter_mut().find(|child| Some(child.spi_in) == old) {
            (old.is_replaced, old.rekey_at_ms) = (true, u64::MAX);
            let lost = old.successor.take_if(|_| !has_lost);
            // The peer is to delete what it has lost with, though it may hear of it late.
            if let Some(child) = self.children.iter_mut().find(|child| Some(child.spi_in) == lost) {
                (child.is_replaced, child.rekey_at_ms) = (true, u64::MAX);
                self.later.push((cx.now_ms + DELETE_MS, Task::DeleteChild(child.spi_in)));
            }
        }
    }

    /// What is told of a child SA that is for less than what it takes the place of. RFC 7296 §2.9.2: that MUST NOT be; what the
    /// peer does not ask for, or does not take, is lost all the same.
    fn narrowed(&self, install: &Install) -> Option<Event> {
        let old = self.children.iter().find(|child| Some(child.spi_in) == install.replaces)?;
        let is_less = install.sa.policy.is_narrower_than(&old.policy);
        let (name, spi_in) = (install.sa.config.name.clone(), install.sa.spi_in);
        is_less.then(|| Event::ChildNarrowed(name, spi_in, between(&old.policy), between(&install.sa.policy)))
    }

    /// There is no room for a child SA: it is deleted, and what it was to replace goes on.
    pub(super) fn withdraw_child(&mut self, spi_in: u32, replaces: Option<u32>, cx: &mut Context<'_>) {
        // Not if the peer's has taken its place.
        let is_it = |old: &ChildSa| {
            Some(old.spi_in) == replaces && old.successor.is_none_or(|successor| successor == spi_in)
        };
        self.keep_replaced(is_it, cx);
        self.ask_later(Task::DeleteChild(spi_in), cx);
    }

    /// What is replaced is not, after all, and is to be tried again later. Not if it is being deleted; false then.
    pub(super) fn keep_replaced(&mut self, is_it: impl Fn(&ChildSa) -> bool, cx: &mut Context<'_>) -> bool {
        let at_ms = REFUSED_MS + again_ms(cx);
        let Some(old) = self.children.iter_mut().find(|child| child.has_other() && is_it(child)) else {
            return false;
        };
        let spi_in = old.spi_in;
        let is_to_go = |(_, task): &mut (u64, Task)| matches!(task, Task::DeleteChild(spi) if *spi == spi_in);
        let stays = self.later.extract_if(.., is_to_go).count() > 0;
        if stays {
            (old.is_replaced, old.successor, old.rekey_at_ms) = (false, None, at_ms);
            // What we ask for in its place has nothing to lose to any more.
            if self.is_replacing(spi_in) {
                self.rival = None;
            }
        }
        stays
    }

    /// The peer asks for a child SA.
    pub(super) fn answer_child(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let rekeys = payloads.notifies(NotifyType::REKEY_SA).next();
        let old = rekeys.and_then(|notify| {
            let spi = u32::from_be_bytes(notify.spi.as_slice().try_into().ok()?);
            self.children.iter().find(|c| c.spi_out == spi && c.protocol() == notify.protocol)
        });
        let resource = old.and_then(|child| child.resource);
        let old = old.map(|child| (child.spi_in, child.config.clone()));
        // RFC 7296 §2.25.1
        let refusal = match (rekeys, &old) {
            (None, _) if self.children.len() >= MOST_CHILDREN => Some(NotifyType::NO_ADDITIONAL_SAS),
            (Some(_), Some((spi_in, _))) if self.is_replaced(*spi_in) => Some(NotifyType::TEMPORARY_FAILURE),
            // It may be the one that we have asked for, whose answer is on its way.
            (Some(_), None) if self.is_asking_child() => Some(NotifyType::TEMPORARY_FAILURE),
            (Some(_), None) => Some(NotifyType::CHILD_SA_NOT_FOUND),
            (Some(_), Some((spi_in, _))) if self.is_deleting(*spi_in) || self.is_following_up(*spi_in) => {
                Some(NotifyType::TEMPORARY_FAILURE)
            }
            (Some(_), Some(_)) if self.has_many_replaced() => Some(NotifyType::TEMPORARY_FAILURE),
            _ => None,
        };
        if let Some(kind) = refusal {
            // RFC 7296 §3.10: what is not found is named.
            let named = rekeys.filter(|_| kind == NotifyType::CHILD_SA_NOT_FOUND).cloned();
            let notify = Notify { kind, data: vec![], ..named.unwrap_or(Notify::new(kind, &[])) };
            self.answer(EXCHANGE, &Payloads(vec![Payload::Notify(notify)]), cx);
            return;
        }
        let Some(ni) = payloads.nonce().map(<[u8]>::to_vec) else {
            return self.answer_error(EXCHANGE, NotifyType::INVALID_SYNTAX, cx);
        };
        let connection = self.connection().clone();
        // What is replaced stays what it is.
        let configs = match &old {
            Some((_, config)) => std::slice::from_ref(config),
            None => &connection.children[..],
        };
        let hosts = self.hosts();
        let agreed = match Agreed::select((configs, connection.order), true, payloads, &hosts, cx) {
            Ok(agreed) => agreed,
            Err(error) => {
                self.answer_error(EXCHANGE, error.notify(), cx);
                let name = old.as_ref().map_or(connection.name_of_children(), |(_, config)| &*config.name);
                return self.child_failed(name, &error, cx);
            }
        };
        let place = match &old {
            Some(_) => resource.map_or(Place::First, Place::Further),
            None => resource::place(&self.children, agreed.config(), agreed.policy(), payloads),
        };
        let agreed = match place {
            Place::First => agreed,
            Place::Further(resource) => agreed.for_resource(Some(resource)),
            Place::TooMany => return self.answer_error(EXCHANGE, NotifyType::TS_MAX_QUEUE, cx),
        };
        if let Err(wrong) = agreed.check_key_exchange(payloads.key_exchange().map(|ke| ke.method)) {
            let notify = Notify::new(NotifyType::INVALID_KE_PAYLOAD, &wrong.notification());
            self.answer(EXCHANGE, &Payloads(vec![Payload::Notify(notify)]), cx);
            return;
        }
        let method = agreed.key_exchange();
        let answering = Answering { agreed, replaces: old.map(|(spi_in, _)| spi_in), method, ni };
        match (method, payloads.key_exchange()) {
            (Some(method), Some(ke)) => {
                let job = Job::Respond(method, ke.data.clone());
                self.after(job, Then::ChildAnswer(Box::new(answering)), cx);
            }
            _ => self.finish_answer(answering, None, cx),
        }
    }

    /// There is a public value and a secret.
    pub(super) fn child_answer(&mut self, answering: Answering, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Responded(responded) = outcome else { return };
        match responded {
            Ok(responded) => self.finish_answer(answering, Some(responded), cx),
            Err(_) => self.answer_error(EXCHANGE, NotifyType::INVALID_SYNTAX, cx),
        }
    }

    fn finish_answer(&mut self, answering: Answering, key: Option<(Vec<u8>, Secret)>, cx: &mut Context<'_>) {
        let Answering { agreed, replaces, method, ni } = answering;
        let nr = cx.random::<NONCE>().to_vec();
        // While the key was made, we may have replaced or deleted it ourselves, or the IKE SA.
        let is_ours = |old| self.is_following_up(old) || self.is_replaced(old);
        if !self.may_replace(replaces) || replaces.is_some_and(is_ours) || self.is_rekeying() {
            return self.answer_error(EXCHANGE, NotifyType::TEMPORARY_FAILURE, cx);
        }
        let mut offer = agreed.payloads().into_iter();
        let mut payloads: Vec<Payload> = offer.next().into_iter().collect(); // SA
        payloads.push(Payload::Nonce(nr.clone()));
        let (public, secret) = key.unzip();
        payloads.extend(
            method
                .zip(public)
                .map(|(method, data)| Payload::KeyExchange(KeyExchange { method: method.id(), data })),
        );
        payloads.extend(offer);
        if replaces.is_some_and(|old| self.is_replacing(old)) {
            self.rival = Some(Rival { lowest_nonce: ni.clone().min(nr.clone()) });
        }
        let methods = agreed.additional_key_exchanges();
        let answer = Answer { agreed, replaces, ni, nr, link: vec![] };
        match secret {
            Some(secret) if !methods.is_empty() => {
                let series = Series::new(Makes::Child(answer), methods, secret, vec![]);
                self.await_follow_up((EXCHANGE, payloads), series, cx);
            }
            secret => self.child_made(answer, secret.as_slice(), (EXCHANGE, payloads), cx),
        }
    }

    /// Whether so many replaced child SAs stay that the peer must delete some first.
    fn has_many_replaced(&self) -> bool {
        let replaced = self.children.iter().filter(|child| child.is_replaced).count();
        let used = self.children.len() - replaced;
        replaced >= used + MOST_REPLACED || self.children.len() >= 2 * MOST_CHILDREN
    }

    /// Whether there is another in its place.
    fn is_replaced(&self, spi_in: u32) -> bool {
        self.children.iter().any(|child| child.spi_in == spi_in && child.is_replaced)
    }

    /// Whether what the peer wants to replace is there and stays.
    fn may_replace(&self, replaces: Option<u32>) -> bool {
        let stays = |old| self.children.iter().any(|child| child.spi_in == old) && !self.is_deleting(old);
        *self.phase() == Phase::Established && replaces.is_none_or(stays)
    }

    /// RFC 7296 §2.8: who asks deletes what is replaced as soon as it has the answer, which is too late to find that there is no
    /// room.
    fn refuse_for_room(&mut self, exchange: ExchangeType, install: &Install, cx: &mut Context<'_>) {
        let error = ChildError::Full;
        // The peer makes none, then.
        self.rival = None;
        self.answer_error(exchange, error.notify(), cx);
        self.child_failed(&install.sa.config.name, &error, cx);
    }

    /// All keys of what the peer has asked for are exchanged: the SA is there, and it gets the last answer.
    pub(super) fn child_made(
        &mut self,
        answer: Answer,
        secrets: &[Secret],
        (exchange, payloads): (ExchangeType, Vec<Payload>),
        cx: &mut Context<'_>,
    ) {
        let Answer { agreed, replaces: old, ni, nr, .. } = answer;
        if !self.may_replace(old) {
            return self.answer_error(exchange, NotifyType::TEMPORARY_FAILURE, cx);
        }
        let nonces = Nonces { initiator: &ni, responder: &nr };
        let Some(install) = self.with_keys(agreed, Role::Responder, secrets, nonces, cx) else { return };
        // RFC 7296 §2.8: it is used once the peer is known to have it.
        let policy = &install.sa.policy;
        let has_elder = self.has_elder(policy);
        let is_carried = has_elder || self.carried().any(|carried| !carried.is_narrower_than(policy));
        let is_alone = old.is_none() && !is_carried;
        let install = Install { replaces: old, sends: false, is_alone, ..install };
        if !(cx.child_room)(&install) {
            return self.refuse_for_room(exchange, &install, cx);
        }
        let spi_in = install.sa.spi_in;
        if old.is_none() {
            self.use_later(spi_in, has_elder, cx.now_ms);
        }
        let narrowed = self.narrowed(&install);
        let up = self.put_child(install, cx);
        // What is in the place of another is followed by a request to delete that.
        self.answered_child = old.map(|_| Box::new((spi_in, cx.now_ms + DELETE_MS)));
        self.answer(exchange, &Payloads(payloads), cx);
        self.event(up, cx);
        narrowed.into_iter().for_each(|event| self.event(event, cx));
        let is_collision = self.rival.is_some() && old.is_some_and(|old| self.is_replacing(old));
        let Some(replaced) = old else { return };
        if let Some(old) = self.children.iter_mut().find(|child| child.spi_in == replaced) {
            (old.is_replaced, old.rekey_at_ms) = (!is_collision, u64::MAX);
            old.successor = Some(spi_in);
            // The peer is to delete it, and has deleted others.
            let is_there = |spi: u32| self.children.iter().any(|child| child.spi_in == spi);
            self.later.retain(|(_, task)| !matches!(task, Task::DeleteChild(spi) if !is_there(*spi)));
            self.later.push((cx.now_ms + DELETE_MS, Task::DeleteChild(replaced)));
        }
    }
}

keep!(Asking { offer, replaces, method, round });
keep!(Question { asking, private, nonce });
keep!(Answer { agreed, replaces, ni, nr, link });
keep!(Rival { lowest_nonce });
