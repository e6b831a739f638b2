//! CREATE_CHILD_SA for an IKE SA in the place of another (RFC 7296 §1.3.2, §2.18): its child SAs go on under it.
//!
//! ```text
//!  who asks                          who answers
//!  SK {SA, Ni, KEi}          ──▶
//!                            ◀──     SK {SA, Nr, KEr}
//!  SK {D}, by the old one    ──▶
//! ```
//!
//! Where more key exchanges were agreed on, they follow ([`followup`]), and it is made behind the last.
//!
//! Both ends may ask at the same time. Then there are two new ones; that with the lowest of the four nonces is deleted by
//! who began it, the other has the child SAs, and who began that deletes the old one (RFC 7296 §2.8.2).
//! Where it is not made yet, who began it just does not go on (RFC 9370 §2.2.4).

use super::{
    child::{ChildError, ChildSa},
    context::Context,
    create_child::{REFUSED_MS, again_ms},
    followup::{self, Makes, Series},
    ike_sa::{Asked, IkeSa, IkeSaId, Phase, Task, Then},
    job::{Job, Outcome},
    output::{ChildChange, Event, Output},
    reauth::{Anew, Reauthenticates},
};
use crate::{
    crypto::{
        Secret,
        exchange::Initiator,
        keys::{Nonces, Role, Spis},
        transform::KeyExchange as Method,
    },
    given::Given,
    kept::keep,
    message::{ExchangeType, IkeSpi, KeyExchange, Notify, NotifyType, Payload, Payloads},
    pool::Leases,
    proposal::Agreement,
};
use std::{collections::VecDeque, sync::Arc};

const EXCHANGE: ExchangeType = ExchangeType::CREATE_CHILD_SA;

/// Octets of our nonces.
const NONCE: usize = 32;

/// Key exchange methods that are tried, at most.
const MOST_ROUNDS: u8 = 3;

/// How long the peer has to delete what it has replaced, until we do: longer than it asks again for what it has missed.
const DELETE_MS: u64 = 200_000;

/// How long the peer has to delete what it began and what has lost, until it is forgotten without a word: it may be that the
/// peer never got our answer, and knows nothing of it. So long it asks four times.
const FORGET_MS: u64 = 30_000;

/// Those that are replaced and not deleted, at most, until the peer may put another in the place of their last.
const MOST_REPLACED: usize = 8;

/// How long whoever has asked for an IKE SA has to make its keys, until it is asked something under it: more than usual
/// methods take. What comes before is lost, and sent again after seconds.
const KEYS_MS: u64 = 100;

/// What is to be asked.
#[derive(Debug)]
pub(super) struct Asking {
    spi: IkeSpi,
    method: Method,
    round: u8,
}

/// What was asked.
#[derive(Debug)]
pub(super) struct Question {
    asking: Asking,
    private: Initiator,
    nonce: Vec<u8>,
}

/// What both agree on, until the secrets are there.
#[derive(Debug)]
pub(super) struct Agreed {
    agreement: Agreement,
    spis: Spis,
    ni: Vec<u8>,
    nr: Vec<u8>,
    /// Of the first exchange that follows; nothing where none does.
    link: Vec<u8>,
}

impl Asking {
    /// Whether the peer wants another method of key exchange.
    pub(super) fn is_asked_again(&self) -> bool {
        self.round > 0
    }
}

impl Agreed {
    fn lowest_nonce(&self) -> Vec<u8> {
        self.ni.clone().min(self.nr.clone())
    }

    fn additional_key_exchanges(&self) -> Vec<Method> {
        self.agreement.additional_key_exchanges().collect()
    }
}

/// What the peer has put in the place of the IKE SA that we are replacing.
#[derive(Debug)]
pub(super) struct Rival {
    /// Our SPI.
    ours: IkeSpi,
    lowest_nonce: Vec<u8>,
    /// It is there. Else key exchanges follow.
    is_made: bool,
}

/// What an IKE SA leaves to others, which the engine has.
#[derive(Debug)]
pub(super) enum Legacy {
    /// An IKE SA in its place.
    Heir(Box<IkeSa>),
    /// An IKE SA of the same two is closed: the peer has begun another, at this time if it has said that it knows none from before.
    Superseded(IkeSaId, Option<u64>),
    /// An IKE SA is to be begun that takes its place.
    Anew(Box<Anew>),
    /// An IKE SA has been made in the place of one: that goes, or who has its place since, by the first of those that took each
    /// other's.
    Outlived(IkeSaId, IkeSaId),
    /// The IKE SA with this SPI of ours is not used.
    Doomed(IkeSpi),
    /// What it has, to the IKE SA with this SPI of ours.
    Estate(IkeSpi, Estate),
}

impl Legacy {
    /// The IKE SA that is closed for this one.
    pub(super) fn superseded(&self) -> Option<IkeSaId> {
        match self {
            Legacy::Superseded(id, _) => Some(*id),
            _ => None,
        }
    }
}

/// What an IKE SA has besides itself.
#[derive(Debug)]
pub(super) struct Estate {
    pub children: Vec<ChildSa>,
    pub given: Given,
    pub tasks: VecDeque<Task>,
    pub later: Vec<(u64, Task)>,
    pub reauthenticates: Option<Box<Reauthenticates>>,
}

impl Estate {
    /// There is nobody to have it.
    pub(super) fn end(self, from: IkeSaId, leases: &mut Leases, cx: &mut Context<'_>) {
        self.given.theirs.iter().for_each(|lease| leases.take_back(lease, from.0));
        for child in self.children {
            let down = Event::ChildDown(child.config.name.clone(), child.spi_in);
            cx.out.push_back(Output::Child(ChildChange::Remove(Box::new(child))));
            cx.out.push_back(Output::Event(from, down));
        }
    }
}

impl IkeSa {
    /// Asks for an IKE SA in the place of this one.
    pub(super) fn ask_rekey(&mut self, cx: &mut Context<'_>) {
        // The peer is about to.
        self.rekey_at_ms = self.awaits_ike().unwrap_or(u64::MAX);
        if self.rekey_at_ms < u64::MAX {
            return;
        }
        if let Some(method) = self.connection.proposals.key_exchange() {
            let spi = IkeSpi::from(cx.random::<8>());
            self.generate_rekey(Asking { spi, method, round: 0 }, cx);
        }
    }

    fn generate_rekey(&mut self, asking: Asking, cx: &mut Context<'_>) {
        self.after(Job::Generate(asking.method), Then::RekeyAsk(asking), cx);
    }

    /// There is a private key: asks.
    pub(super) fn rekey_ask(&mut self, asking: Asking, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Generated(private, public) = outcome else { return };
        if self.phase != Phase::Established {
            return;
        }
        let nonce = cx.random::<NONCE>().to_vec();
        let payloads = vec![
            Payload::SecurityAssociation(
                self.connection.proposals.for_any_peer().offer(&asking.spi.octets()),
            ),
            Payload::Nonce(nonce.clone()),
            Payload::KeyExchange(KeyExchange { method: asking.method.id(), data: public }),
        ];
        self.ask(EXCHANGE, &Payloads(payloads), cx);
        self.asked = Some(Asked::Rekey(Box::new(Question { asking, private, nonce })));
    }

    /// The peer has answered.
    pub(super) fn rekey_answered(&mut self, question: Question, payloads: &Payloads, cx: &mut Context<'_>) {
        let Question { mut asking, private, nonce } = question;
        if let Some(notify) = payloads.error() {
            asking.round += 1;
            let method = self.connection.proposals.asked_key_exchange(&notify.data, asking.method);
            return match (notify.kind, method) {
                (NotifyType::INVALID_KE_PAYLOAD, Some(method)) if asking.round < MOST_ROUNDS => {
                    self.generate_rekey(Asking { method, ..asking }, cx);
                }
                (kind @ (NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD), _) => {
                    let offered = self.connection.proposals.to_string();
                    self.rekey_failed(&ChildError::Offer { kind, offered }, cx);
                }
                (kind, _) => self.rekey_failed(&ChildError::Peer(kind), cx),
            };
        }
        let (Some(chosen), Some(ke), Some(nr)) =
            (payloads.security_association(), payloads.key_exchange(), payloads.nonce())
        else {
            return self.peer_went_wrong(&ChildError::Missing("SA, KE or Nonce payload"), cx);
        };
        let agreement = match self.connection.proposals.for_any_peer().accept(chosen) {
            Ok(agreement) => agreement,
            Err(error) => return self.peer_went_wrong(&ChildError::Accept(error), cx),
        };
        let method = asking.method.id();
        let (true, Some(theirs)) = (
            agreement.check_key_exchange(Some(method)).is_ok() && ke.method == method,
            agreement.ike_spi().filter(|spi| *spi != IkeSpi::NONE),
        ) else {
            let missing = "SPI, or KE payload of the method that was agreed on";
            return self.peer_went_wrong(&ChildError::Missing(missing), cx);
        };
        let link = followup::link(payloads);
        if link.is_none() && agreement.additional_key_exchanges().next().is_some() {
            return self.rekey_failed(&ChildError::Missing("ADDITIONAL_KEY_EXCHANGE notification"), cx);
        }
        let spis = Spis { initiator: asking.spi, responder: theirs };
        let job = Job::Finish(private, ke.data.clone());
        let link = link.unwrap_or_default();
        let agreed = Agreed { agreement, spis, ni: nonce, nr: nr.to_vec(), link };
        self.after(job, Then::RekeyFinish(Box::new(agreed)), cx);
    }

    /// It is asked again after a while, unless the peer has done it.
    fn rekey_failed(&mut self, error: &ChildError, cx: &mut Context<'_>) {
        if self.yield_to_rival(cx) {
            return;
        }
        self.rekey_at_ms = again_ms(cx);
        if !error.is_temporary() {
            self.event(Event::RekeyFailed(error.to_string()), cx);
            self.rekey_at_ms += REFUSED_MS;
        }
    }

    /// There is none, at our end, and not at the peer's either unless it was the last exchange that went wrong.
    pub(super) fn rekey_went_wrong(&mut self, is_last: bool, error: &ChildError, cx: &mut Context<'_>) {
        match error {
            ChildError::Peer(_) => self.rekey_failed(error, cx),
            _ if is_last => self.peer_went_wrong(error, cx),
            _ => self.rekey_failed(error, cx),
        }
    }

    /// The peer goes on under an IKE SA that cannot be: both must go.
    fn peer_went_wrong(&mut self, error: &ChildError, cx: &mut Context<'_>) {
        self.event(Event::RekeyFailed(error.to_string()), cx);
        self.begin_delete(cx);
    }

    /// What the peer has put in the place of this one has it, if there is such. False if there is none.
    pub(super) fn yield_to_rival(&mut self, cx: &mut Context<'_>) -> bool {
        let rival = self.rival_ike.take();
        rival.into_iter().map(|rival| self.yield_to(rival, cx)).next().is_some()
    }

    fn yield_to(&mut self, rival: Rival, cx: &mut Context<'_>) {
        if rival.is_made {
            self.leave_to(rival.ours, cx);
        } else {
            // If the peer does not go on, we do it after all.
            self.rekey_at_ms = cx.now_ms + followup::MOST_MS;
        }
    }

    /// There is a secret: the other IKE SA is there, or more key exchanges follow.
    pub(super) fn rekey_finish(&mut self, agreed: Agreed, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Finished(secret) = outcome else { return };
        let methods = agreed.additional_key_exchanges();
        let secret = match secret {
            Ok(secret) => secret,
            Err(error) => {
                return self.rekey_went_wrong(methods.is_empty(), &ChildError::Exchange(error), cx);
            }
        };
        if methods.is_empty() {
            return self.finish_rekey(agreed, vec![secret], cx);
        }
        let lowest = agreed.lowest_nonce();
        match self.rival_ike.take() {
            // RFC 9370 §2.2.4: what loses is not made, and the exchanges MUST NOT follow.
            Some(rival) if lowest < rival.lowest_nonce => return self.yield_to(rival, cx),
            rival => self.doom_rival(rival),
        }
        let link = agreed.link.clone();
        self.follow_up(Series::new(Makes::Ike(agreed), methods, secret, link), cx);
    }

    /// What has lost is not used: the peer is to delete it, but may have missed our answer.
    fn doom_rival(&mut self, rival: Option<Rival>) {
        let made = rival.filter(|rival| rival.is_made);
        self.legacies.extend(made.map(|rival| Legacy::Doomed(rival.ours)));
    }

    /// The other IKE SA is there, at both ends.
    pub(super) fn finish_rekey(&mut self, agreed: Agreed, secrets: Vec<Secret>, cx: &mut Context<'_>) {
        let (lowest, ours) = (agreed.lowest_nonce(), agreed.spis.initiator);
        let Some(mut heir) = self.heir(agreed, Role::Initiator, secrets, cx) else { return };
        match self.rival_ike.take() {
            // RFC 7296 §2.8.2: what loses is deleted by who began it. Who has deleted the old one knows what has won.
            Some(rival) if lowest < rival.lowest_nonce || self.is_deleted => {
                heir.tasks.push_back(Task::Delete);
                self.legacies.push(Legacy::Heir(Box::new(heir)));
                self.yield_to(rival, cx);
            }
            rival => {
                self.doom_rival(rival);
                self.legacies.push(Legacy::Heir(Box::new(heir)));
                self.leave_to(ours, cx);
                if !self.is_deleted {
                    self.begin_delete(cx);
                }
            }
        }
    }

    /// The peer asks for an IKE SA in the place of this one.
    pub(super) fn answer_rekey(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        // RFC 7296 §2.25.2
        if !self.may_be_replaced() || self.rival_ike.is_some() || self.has_many_elders() {
            return self.answer_error(EXCHANGE, NotifyType::TEMPORARY_FAILURE, cx);
        }
        let (Some(offered), Some(ke), Some(ni)) =
            (payloads.security_association(), payloads.key_exchange(), payloads.nonce())
        else {
            return self.answer_error(EXCHANGE, NotifyType::INVALID_SYNTAX, cx);
        };
        let agreement = self.connection.proposals.select(offered, self.connection.order);
        let theirs = agreement.as_ref().and_then(Agreement::ike_spi).filter(|spi| *spi != IkeSpi::NONE);
        let (Some(agreement), Some(initiator)) = (agreement, theirs) else {
            return self.answer_error(EXCHANGE, NotifyType::NO_PROPOSAL_CHOSEN, cx);
        };
        if let Err(wrong) = agreement.check_key_exchange(Some(ke.method)) {
            let notify = Notify::new(NotifyType::INVALID_KE_PAYLOAD, &wrong.notification());
            self.answer(EXCHANGE, &Payloads(vec![Payload::Notify(notify)]), cx);
            return;
        }
        let Some(method) = agreement.key_exchange() else {
            return self.answer_error(EXCHANGE, NotifyType::NO_PROPOSAL_CHOSEN, cx);
        };
        let spis = Spis { initiator, responder: IkeSpi::from(cx.random::<8>()) };
        let nr = cx.random::<NONCE>().to_vec();
        let agreed = Agreed { agreement, spis, ni: ni.to_vec(), nr, link: vec![] };
        self.after(Job::Respond(method, ke.data.clone()), Then::RekeyAnswer(Box::new(agreed)), cx);
    }

    /// There is a public value and a secret: answers.
    pub(super) fn rekey_answer(&mut self, agreed: Agreed, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Responded(responded) = outcome else { return };
        let Ok((public, secret)) = responded else {
            return self.answer_error(EXCHANGE, NotifyType::INVALID_SYNTAX, cx);
        };
        // While the key was made, we may have replaced or deleted it ourselves, or changed its children.
        if !self.may_be_replaced() {
            return self.answer_error(EXCHANGE, NotifyType::TEMPORARY_FAILURE, cx);
        }
        let Some(method) = agreed.agreement.key_exchange() else { return };
        let answer = vec![
            Payload::SecurityAssociation(vec![agreed.agreement.answer(&agreed.spis.responder.octets())]),
            Payload::Nonce(agreed.nr.clone()),
            Payload::KeyExchange(KeyExchange { method: method.id(), data: public }),
        ];
        if self.is_rekeying() {
            let (ours, lowest_nonce) = (agreed.spis.responder, agreed.lowest_nonce());
            self.rival_ike = Some(Rival { ours, lowest_nonce, is_made: false });
        }
        let methods = agreed.additional_key_exchanges();
        if methods.is_empty() {
            return self.rekey_made(agreed, vec![secret], (EXCHANGE, answer), cx);
        }
        let series = Series::new(Makes::Ike(agreed), methods, secret, vec![]);
        self.await_follow_up((EXCHANGE, answer), series, cx);
    }

    /// Whether the peer may put another in its place (RFC 7296 §2.25.2).
    fn may_be_replaced(&self) -> bool {
        self.phase == Phase::Established && !self.is_changing_children() && !self.is_following_up_ike()
    }

    /// Whether so many that it is in the place of are still there that the peer must delete some first.
    fn has_many_elders(&self) -> bool {
        self.line.as_ref().is_some_and(|line| Arc::strong_count(line) > MOST_REPLACED)
    }

    /// All keys of what the peer has asked for are exchanged: the other IKE SA is there, and it gets the last answer.
    pub(super) fn rekey_made(
        &mut self,
        agreed: Agreed,
        secrets: Vec<Secret>,
        (exchange, answer): (ExchangeType, Vec<Payload>),
        cx: &mut Context<'_>,
    ) {
        if !self.may_be_replaced() {
            return self.answer_error(exchange, NotifyType::TEMPORARY_FAILURE, cx);
        }
        let ours = agreed.spis.responder;
        let Some(mut heir) = self.heir(agreed, Role::Responder, secrets, cx) else { return };
        // What we ask for without a rival, the peer refuses.
        let is_rekeying = self.is_rekeying();
        let rival = self.rival_ike.as_mut().filter(|_| is_rekeying);
        heir.awaits_estate = rival.is_some();
        heir.quiet_until_ms = cx.now_ms + KEYS_MS;
        let is_decided = rival.map(|rival| rival.is_made = true).is_none();
        self.answer(exchange, &Payloads(answer), cx);
        self.legacies.push(Legacy::Heir(Box::new(heir)));
        if is_decided {
            self.leave_to(ours, cx);
        }
    }

    /// An IKE SA in the place of this one, without child SAs.
    fn heir(
        &mut self,
        agreed: Agreed,
        role: Role,
        secrets: Vec<Secret>,
        cx: &mut Context<'_>,
    ) -> Option<IkeSa> {
        let Agreed { agreement, spis, ni, nr, .. } = agreed;
        let nonces = Nonces { initiator: &ni, responder: &nr };
        let (keys, sealer, opener) =
            self.keys.as_ref()?.rekeyed(agreement.suite()?, role, secrets, nonces, spis);
        let mut heir = IkeSa::new(self.id, self.connection.clone(), (role, spis), self.path, (cx.now_ms, 0));
        heir.seal_with(sealer, opener, cx);
        heir.channel.cut_like(&self.channel);
        (heir.keys, heir.agreement) = (Some(keys), Some(agreement));
        heir.has_ppk = self.has_ppk;
        heir.eap_id = self.eap_id.clone();
        heir.mobike = self.mobike.inherited();
        (heir.nat, heir.ids, heir.phase) = (self.nat, self.ids.clone(), Phase::Established);
        heir.established_ms = Some(cx.now_ms);
        (heir.lifetime, heir.origin) = (self.lifetime, self.origin);
        heir.rekey_later(cx);
        heir.line = Some(self.line.get_or_insert_default().clone());
        heir.reauthenticated_by = self.reauthenticated_by;
        heir.redirection = self.redirection.clone();
        heir.round_ms = self.round_ms;
        heir.ticket = self.ticket.clone();
        Some(heir)
    }

    /// The child SAs go on under another IKE SA; this one is to be deleted by who has replaced it.
    fn leave_to(&mut self, ours: IkeSpi, cx: &mut Context<'_>) {
        let mut estate = Estate {
            children: std::mem::take(&mut self.children),
            given: std::mem::take(&mut self.given),
            tasks: std::mem::take(&mut self.tasks),
            later: std::mem::take(&mut self.later),
            reauthenticates: self.reauthenticates.take(),
        };
        estate.tasks.retain(|task| !matches!(task, Task::Rekey));
        if let Some(Asked::Informational(question)) = &self.asked {
            estate.tasks.extend(question.moves());
        }
        if let Some(Then::Go(sent)) = self.thens_asking() {
            estate.tasks.extend(sent.again());
        }
        self.legacies.push(Legacy::Estate(ours, estate));
        self.doom(cx.now_ms);
    }

    /// It is not used any more, and the peer is to delete it.
    pub(super) fn doom(&mut self, now_ms: u64) {
        (self.phase, self.rekey_at_ms, self.awaited) = (Phase::Replaced, u64::MAX, None);
        self.deadline_ms = now_ms + DELETE_MS;
    }

    /// It has lost, and is for the peer to delete.
    pub(super) fn be_forgotten(&mut self, now_ms: u64) {
        self.doom(now_ms);
        (self.phase, self.deadline_ms) = (Phase::Closing, now_ms + FORGET_MS);
    }

    /// Whether the peer has answered that there is one in the place of this one, and keys are still to be made.
    pub(super) fn is_finishing_rekey(&self) -> bool {
        matches!(self.thens_asking(), Some(Then::RekeyFinish(_)))
    }

    /// Whether we are asking for an IKE SA in the place of this one.
    pub(super) fn is_rekeying(&self) -> bool {
        matches!(self.asked, Some(Asked::Rekey(_)))
            || matches!(self.thens_asking(), Some(Then::RekeyAsk(_) | Then::RekeyFinish(_)))
            || self.is_following_up_ike()
    }
}

keep!(Asking { spi, method, round });
keep!(Question { asking, private, nonce });
keep!(Agreed { agreement, spis, ni, nr, link });
keep!(Rival { ours, lowest_nonce, is_made });
