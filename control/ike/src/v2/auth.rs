//! IKE_AUTH (RFC 7296 §1.2, §2.15): both ends prove who they are, and the first child SA is made.
//!
//! ```text
//!  initiator                                                responder
//!  SK {IDi, [CERT...], [CERTREQ], [IDr], AUTH, SAi2, TSi, TSr, N...} ──▶
//!                       ◀── SK {IDr, [CERT...], AUTH, SAr2, TSi, TSr, N...}
//! ```

use super::{
    child::{Agreed, ChildError, Install, Offer, Place, Wanted},
    contacts::Ids,
    context::Context,
    ike_sa::{Asked, Closed, IkeSa, Phase, Task, Then},
    informational,
    job::{Job, Outcome},
    output::Event,
    ppk,
    proof::{Proof, Unproven, certificate_request},
    rekey_ike::Legacy,
    rounds::{Done, begins_by, refusal, says_another},
    stranger::MOST_NAMED,
};
use crate::{
    child,
    connection::{Childless, Connection, LocalAuth, RemoteAuth, SendCertificates, Unique},
    crypto::{
        Secret,
        keys::{Keys, Nonces, Role},
    },
    identity::{Fit, IdPattern},
    message::{
        AuthMethod, Authentication, ExchangeType, Identification, Notify, NotifyType, Payload, Payloads,
    },
};
use crate::{proof::MOST_CONNECTIONS, proposal::Agreement};
use std::{net::SocketAddr, sync::Arc};

/// A connection that may be for a peer, and who we are in it.
type Found = (Arc<Connection>, Identification);

/// What an initiator has asked.
#[derive(Debug)]
pub(super) struct Question {
    ids: Ids,
    /// Who the ends were in their first rounds, once they are done.
    first: Option<Ids>,
    done: Done,
    child: Option<Offer>,
    /// Without the PPK, if the peer may have none.
    plain: Option<Keys>,
}

impl Question {
    /// The child SA that was asked for.
    pub fn wanted(&self) -> Option<Wanted> {
        self.child.as_ref().map(Offer::wanted)
    }
}

/// What an initiator will ask, once it has signed.
#[derive(Debug)]
pub(super) struct Asking {
    pub ids: Ids,
    pub first: Option<Ids>,
    pub done: Done,
    pub child: Option<Offer>,
    pub plain: Option<Keys>,
}

impl Asking {
    fn first(ids: Ids, plain: Option<Keys>) -> Asking {
        Asking { ids, first: None, done: Done::default(), child: None, plain }
    }
}

impl From<Asking> for Question {
    fn from(Asking { ids, first, done, child, plain }: Asking) -> Question {
        Question { ids, first, done, child, plain }
    }
}

/// The responder's answer, until it is known whether it has proven who it is.
#[derive(Debug)]
pub(super) struct Answer {
    pub ids: Ids,
    /// Who the ends were in their first rounds.
    pub first: Ids,
    pub done: Done,
    pub child: Option<Offer>,
    pub payloads: Payloads,
}

/// What a responder will answer, once all is proven.
#[derive(Debug)]
pub(super) struct Answering {
    pub connection: Arc<Connection>,
    pub ids: Ids,
    /// Who the ends were in their first rounds.
    pub first: Ids,
    pub done: Done,
    /// Of the first request.
    pub payloads: Payloads,
    /// Other connections that it may be for as well, as its certificate says, and who we are in each.
    pub others: Vec<Found>,
}

impl Answering {
    /// The initiator's certificate is held against other connections, too, that ask for the same but for that.
    fn verify_by_others(&mut self, others: Vec<Found>, job: &mut Job) {
        let Job::Verify(verification) = job else { return };
        let has_sa = self.payloads.security_association().is_some();
        for (connection, mine) in others {
            let (this, other) = (&self.connection, &connection);
            let is_alike = (&this.ppk_id, this.ppk_required, this.further.remote.len())
                == (&other.ppk_id, other.ppk_required, other.further.remote.len());
            let may_be = has_sa || connection.childless != Childless::Never;
            if let (RemoteAuth::PublicKey(trust), true) = (&connection.remote_auth, is_alike && may_be) {
                verification.trusts.push(trust.clone());
                self.others.push((connection, mine));
            }
        }
    }

    /// It is known whether the initiator's signature is right, and for which connection.
    fn verified(&mut self, outcome: Outcome) -> Result<(), Closed> {
        let others = std::mem::take(&mut self.others);
        let connections = [&*self.connection].into_iter().chain(others.iter().map(|(c, _)| &**c));
        let n = verified(outcome, &self.ids.1, &connections.collect::<Vec<_>>())?;
        if let Some((connection, mine)) = n.checked_sub(1).and_then(|n| others.into_iter().nth(n)) {
            self.connection = connection;
            (self.ids.0, self.first.0) = (mine.clone(), mine);
        }
        Ok(())
    }

    /// IDr and certificates of a round of ours, and what proves it, if anything does; nothing if there is none left.
    pub fn round(&mut self, proofs: Vec<Authentication>, is_known: bool) -> Vec<Payload> {
        let connection = self.connection.clone();
        let Some((_, auth)) = connection.local_round(self.done.mine) else { return vec![] };
        let id = Payload::IdResponder(self.ids.0.clone());
        // RFC 5723 §5.1: who comes back knows our certificates.
        let certificates = match is_known {
            true => vec![],
            false => certificates(&connection, auth, self.payloads.asks_for_certificates()),
        };
        self.done.mine += 1;
        let another = connection.another_of(self.done).filter(|_| !is_known);
        let proofs = proofs.into_iter().map(Payload::Authentication);
        [id].into_iter().chain(certificates).chain(proofs).chain(another).collect()
    }
}

impl IkeSa {
    /// The initiator proves who it is.
    pub(super) fn begin_auth(&mut self, cx: &mut Context<'_>) {
        let connection = self.connection.clone();
        let ids = match &self.resumed {
            Some(resumed) => resumed.ids.clone(),
            None => {
                let theirs = connection.remote_id.identity();
                (
                    self.id_in(&connection),
                    theirs.unwrap_or_else(|| Identification::of_address(self.path.peer.ip())),
                )
            }
        };
        // Who comes back has proven who it is before.
        if self.resumed.is_none() && connection.local_auth.eap_means().is_some() {
            return self.ask_auth(Asking::first(ids, None), &[], cx);
        }
        let before = self.prove(&connection.local_auth, &ids, cx);
        let plain = self.mix_ppk(cx);
        let proof = match self.has_ppk {
            true => self.prove(&connection.local_auth, &ids, cx),
            false => return self.ask_proven(before, Asking::first(ids, plain), cx),
        };
        let proof = proof.and_then(|proof| Ok(proof.and(before?)));
        self.ask_proven(proof, Asking::first(ids, plain), cx);
    }

    pub(super) fn ask_proven(&mut self, proof: Result<Proof, Closed>, asking: Asking, cx: &mut Context<'_>) {
        match proof {
            Ok(Proof::Made(proofs)) => self.ask_auth(asking, &proofs, cx),
            Ok(Proof::Job(signing)) => self.after(Job::Sign(signing), Then::AuthAsk(Box::new(asking)), cx),
            Err(closed) => self.close(closed, cx),
        }
    }

    /// There is a signature: asks.
    pub(super) fn auth_ask(&mut self, asking: Asking, outcome: Outcome, cx: &mut Context<'_>) {
        match outcome {
            Outcome::Signed(Ok(proofs)) => self.ask_auth(asking, &proofs, cx),
            _ => self.close(Closed::Configured("our private key does not sign"), cx),
        }
    }

    /// Of proofs the first is by all that there is, and a second one without a PPK.
    fn ask_auth(&mut self, mut asking: Asking, proofs: &[Authentication], cx: &mut Context<'_>) {
        if asking.first.is_some() {
            return self.ask_next(asking, proofs, cx);
        }
        let connection = self.connection.clone();
        let ids = asking.ids.clone();
        let rounds = match self.rounds_notifies(!proofs.is_empty()) {
            Ok(rounds) => rounds,
            Err(closed) => return self.close(closed, cx),
        };
        let solution = self.init.as_mut().and_then(|init| init.solution.take());
        let mut payloads: Vec<Payload> = solution.map(Payload::PuzzleSolution).into_iter().collect();
        payloads.push(Payload::IdInitiator(ids.0.clone()));
        // RFC 5723 §4.3.3: who has come back shows no certificates.
        if self.resumed.is_none() {
            payloads.extend(self.our_certificates(&connection.local_auth));
        }
        if self.resumed.is_none() && connection.asks_for_certificates {
            payloads.extend(certificate_request(connection.trusts()));
        }
        payloads.extend(connection.remote_id.identity().map(Payload::IdResponder));
        payloads.extend(proofs.first().cloned().map(Payload::Authentication));
        // RFC 7296 §2.4
        let says_so = connection.unique != Unique::Never && self.contacts.claim(&ids, self.id);
        self.init.iter_mut().filter(|_| says_so).for_each(|init| init.claimed = Some(ids.clone()));
        let notify = || Payload::Notify(Notify::new(NotifyType::INITIAL_CONTACT, &[]));
        payloads.extend(says_so.then(notify));
        payloads.extend(rounds);
        payloads.extend(self.eap_only_notify());
        payloads.extend(self.configuration_request());
        let hosts = self.hosts_asking();
        let child = self.first_child().and_then(|wanted| Offer::new(&wanted, false, &hosts, cx));
        if child.is_none() && !self.may_be_childless {
            return self.close(Closed::Configured("the peer needs a child SA, and there is none"), cx);
        }
        payloads.extend(child.iter().flat_map(Offer::payloads));
        payloads.extend(self.ppk_notifies(proofs.get(1)));
        payloads.extend(self.mobike_notifies(cx));
        payloads.extend(self.ticket_request());
        payloads.push(self.sync_notify());
        self.ask(ExchangeType::IKE_AUTH, &Payloads(payloads), cx);
        asking.done.begin(!proofs.is_empty());
        self.asked = Some(Asked::Auth(Box::new(Question { child, ..asking.into() })));
    }

    /// What an initiator sends of its certificates with a round.
    pub(super) fn our_certificates(&self, auth: &LocalAuth) -> Vec<Payload> {
        let is_asked = self.init.as_ref().is_some_and(|init| init.asks_for_certificates);
        certificates(&self.connection, auth, is_asked)
    }

    /// The child SA that IKE_AUTH makes. Without one, the peer must be able to do so (RFC 6023 §3).
    fn first_child(&mut self) -> Option<Wanted> {
        let wanted = self.wanted.take().map(|wanted| *wanted);
        if !self.may_be_childless && self.connection.childless != Childless::Force {
            return wanted.or_else(|| self.connection.children.first().map(Wanted::from));
        }
        match self.connection.childless {
            Childless::Never | Childless::Allow => wanted,
            Childless::Prefer | Childless::Force => {
                self.tasks.extend(wanted.map(Task::Child));
                None
            }
        }
    }

    /// It is known by now whether it is one, or it is over: others may say that there is none.
    pub(super) fn let_claim_go(&mut self) {
        if let Some(ids) = self.init.as_mut().and_then(|init| init.claimed.take()) {
            self.contacts.remove(&ids, self.id);
        }
    }

    /// What becomes of others of the same two, or of this one.
    fn keep_unique(
        &mut self,
        connection: &Connection,
        ids: &Ids,
        payloads: &Payloads,
        cx: &Context<'_>,
    ) -> Result<(), Closed> {
        if connection.unique == Unique::Never || !connection.remote_auth.tells_who() {
            return Ok(());
        }
        let ids = &self.of_user(ids);
        let others = self.contacts.others(ids, self.id);
        let is_only = payloads.has_notify(NotifyType::INITIAL_CONTACT);
        match connection.unique {
            Unique::No | Unique::Keep if others.is_empty() => {}
            Unique::No if !is_only => return Ok(()),
            // RFC 7296 §2.8.3: from where the other is, it may be who authenticates anew.
            Unique::Keep if !is_only && !self.contacts.is_at(ids, self.path.peer.ip()) => {
                return Err(Closed::NotUnique(ids.1.to_string()));
            }
            _ => {}
        }
        // RFC 7296 §2.4: what the peer has not got any more, it need not be told of.
        let begun_ms = is_only.then(|| self.deadline_ms.saturating_sub(cx.config.half_open_ms));
        self.legacies.extend(others.into_iter().map(|other| Legacy::Superseded(other, begun_ms)));
        Ok(())
    }

    /// The responder has answered.
    pub(super) fn auth_answered(&mut self, question: Question, payloads: &Payloads, cx: &mut Context<'_>) {
        let Question { mut ids, first, mut done, child, plain } = question;
        let connection = self.connection.clone();
        let is_resumed = self.resumed.is_some();
        let Some((id, auth)) =
            connection.remote_round(done.theirs).filter(|_| !is_resumed || done.theirs == 0)
        else {
            // It has proven all that it must.
            return match (refusal(payloads), first) {
                (Some(kind), _) => self.close(self.refused_by(kind), cx),
                (None, Some(first)) => {
                    self.peer_proven(Answer { ids, first, done, child, payloads: payloads.clone() }, cx);
                }
                (None, None) => self.close(Closed::Missing("AUTH payload"), cx),
            };
        };
        let said = payloads.authentication();
        // Of the first round only.
        let is_alone = first.is_none() && said.is_none() && payloads.eap().is_some() && self.is_eap_alone();
        let (Some(theirs), true) = (payloads.id_responder(), said.is_some() || is_alone) else {
            let closed =
                payloads.error().map_or(Closed::Missing("IDr or AUTH payload"), |n| self.refused_by(n.kind));
            return self.close(closed, cx);
        };
        ids.1 = theirs.clone();
        done.theirs += 1;
        let settled = match first {
            None => self.settle_ppk(plain, payloads),
            Some(_) => Ok(()),
        };
        let settled = settled.and_then(|()| self.check_another(&connection, done, payloads));
        let checked = settled.and_then(|()| match id.fits(theirs) {
            // RFC 5998: EAP proves it.
            Some(_) if is_alone => Ok(None),
            Some(_) => match said {
                Some(said) => self.check(auth, (&ids.0, theirs), said, payloads, cx),
                None => Err(Closed::Missing("AUTH payload")),
            },
            None => Err(Closed::Identity { found: theirs.to_string(), wanted: id.to_string() }),
        });
        let first = first.unwrap_or_else(|| ids.clone());
        let answer = Answer { ids, first, done, child, payloads: payloads.clone() };
        match checked {
            Ok(Some(job)) => self.after(job, Then::AuthFinish(Box::new(answer)), cx),
            Ok(None) => self.peer_proven(answer, cx),
            Err(closed) => self.refuse_peer(closed, cx),
        }
    }

    /// The responder is who it says; there may be more to prove, by us or by it.
    fn peer_proven(&mut self, answer: Answer, cx: &mut Context<'_>) {
        let connection = self.connection.clone();
        let Done { mine, theirs, is_begun } = answer.done;
        let is_resumed = self.resumed.is_some();
        match connection.local_round(mine).filter(|_| !is_resumed) {
            Some(_) if is_begun => self.begin_eap_peer(answer, cx),
            None if is_resumed || connection.remote_round(theirs).is_none() => self.finish_auth(answer, cx),
            _ => self.next_round(answer, cx),
        }
    }

    /// It is known whether the responder's signature is right.
    pub(super) fn auth_finish(&mut self, answer: Answer, outcome: Outcome, cx: &mut Context<'_>) {
        match verified(outcome, &answer.ids.1, &[&self.connection]) {
            Ok(_) => self.peer_proven(answer, cx),
            Err(closed) => self.refuse_peer(closed, cx),
        }
    }

    pub(super) fn finish_auth(&mut self, answer: Answer, cx: &mut Context<'_>) {
        let Answer { first: (mine, theirs), child, payloads, .. } = answer;
        // RFC 5685 §6
        if self.redirected_auth(&payloads, child.as_ref().map(Offer::wanted), cx) {
            return;
        }
        self.learn_configuration(&payloads, cx);
        let hosts = self.hosts();
        let installed = child.map(|offer| {
            let name = offer.config.name.clone();
            let agreed = offer.accept(&payloads, &hosts);
            let first = agreed.as_ref().is_ok_and(Agreed::is_first_of_several);
            let config = agreed.as_ref().ok().filter(|_| first).map(|agreed| agreed.config().clone());
            (name, agreed.map(|agreed| self.installed(agreed, Role::Initiator, cx)), config)
        });
        self.learn_mobike(&payloads);
        self.establish(mine, theirs, cx);
        self.learn_lifetime(&payloads, cx);
        self.keep_ticket(&payloads, cx);
        self.learn_sync(&payloads);
        match installed {
            Some((_, Ok(Some(install)), several)) => {
                let up = self.put_child(install, cx);
                self.event(up, cx);
                several.iter().for_each(|config| self.ask_further(config, cx));
            }
            Some((name, Err(error), _)) => {
                self.child_failed(&name, &error, cx);
                // It may have installed what we do not want.
                if payloads.security_association().is_some() {
                    self.ask_later(Task::Delete, cx);
                }
            }
            _ => {}
        }
    }

    /// The initiator proves who it is; so do we.
    pub(super) fn answer_auth(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        if let Some(serving) = self.serving.take() {
            return self.answer_eap(*serving, payloads, cx);
        }
        let Some(theirs) = payloads.id_initiator() else {
            self.answer_error(ExchangeType::IKE_AUTH, NotifyType::INVALID_SYNTAX, cx);
            return self.close(Closed::Missing("IDi payload"), cx);
        };
        let method = payloads.authentication().map(|said| said.method);
        // RFC 5723 §5.1: who has come back has proven who it is before.
        let before = self.resumed.as_ref().and_then(|resumed| resumed.proven.clone());
        let asked = payloads.id_responder().or(self.resumed.as_ref().map(|resumed| &resumed.ids.0));
        let how = (before.as_ref().map(|proven| proven.method).or(method), says_another(payloads));
        let found = self.connections_for(theirs, asked, how, cx);
        let found = match before {
            Some(_) => found.map_err(|_| Closed::NotResumed(theirs.to_string())),
            None => found,
        };
        let checked = found.and_then(|((connection, mine), others)| {
            if connection.childless == Childless::Never && payloads.security_association().is_none() {
                return Err(Closed::Missing("SA payload, and the connection needs a child SA"));
            }
            let asks_eap = method.is_none() && connection.remote_auth.is_eap();
            let ids = (mine.clone(), theirs.clone());
            let mut answering = Answering {
                connection: connection.clone(),
                first: ids.clone(),
                ids,
                done: Done::default(),
                payloads: payloads.clone(),
                others: vec![],
            };
            if asks_eap {
                return Ok((None, answering));
            }
            answering.done.theirs = 1;
            self.check_another(&connection, answering.done, payloads)?;
            let said = payloads.authentication().ok_or(Closed::Missing("AUTH payload"))?;
            if before.as_ref().is_some_and(|proven| !proven.suffices(&connection)) {
                return Err(Closed::NotResumed(theirs.to_string()));
            }
            let without_ppk = self.answer_ppk(&connection, payloads, said.method, cx)?;
            let said = without_ppk.as_ref().unwrap_or(said);
            let mut job = self.check(&connection.remote_auth, (&mine, theirs), said, payloads, cx)?;
            if let Some(job) = &mut job {
                answering.verify_by_others(others, job);
            }
            Ok((job, answering))
        });
        match checked {
            Ok((Some(job), answering)) => self.after(job, Then::AuthVerified(Box::new(answering)), cx),
            Ok((None, answering)) if method.is_none() => self.begin_eap(answering, cx),
            Ok((None, answering)) => self.prove_too(answering, cx),
            Err(closed) => self.refuse_initiator(closed, cx),
        }
    }

    /// It is known whether the initiator's signature is right.
    pub(super) fn auth_verified(&mut self, mut answering: Answering, outcome: Outcome, cx: &mut Context<'_>) {
        match answering.verified(outcome) {
            Ok(()) => self.prove_too(answering, cx),
            Err(closed) => self.refuse_initiator(closed, cx),
        }
    }

    /// The initiator is who it says.
    pub(super) fn prove_too(&mut self, mut answering: Answering, cx: &mut Context<'_>) {
        match self.prove_round(&mut answering, cx) {
            Ok(Proof::Made(proofs)) => self.answer_proven(answering, proofs, cx),
            Ok(Proof::Job(signing)) => {
                self.after(Job::Sign(signing), Then::AuthAnswer(Box::new(answering)), cx);
            }
            Err(closed) => self.refuse_initiator(closed, cx),
        }
    }

    /// A responder proves who it is, and the initiator comes behind it by EAP.
    pub(super) fn prove_first(&mut self, mut answering: Answering, cx: &mut Context<'_>) {
        match self.prove_round(&mut answering, cx) {
            Ok(Proof::Made(proofs)) => self.first_eap(answering, proofs, cx),
            Ok(Proof::Job(signing)) => {
                self.after(Job::Sign(signing), Then::EapBegin(Box::new(answering)), cx);
            }
            Err(closed) => self.refuse_initiator(closed, cx),
        }
    }

    /// There is a signature: EAP begins.
    pub(super) fn eap_begin(&mut self, answering: Answering, outcome: Outcome, cx: &mut Context<'_>) {
        match outcome {
            Outcome::Signed(Ok(proofs)) => self.first_eap(answering, proofs, cx),
            _ => self.refuse_initiator(Closed::Configured("our private key does not sign"), cx),
        }
    }

    /// There is a signature: answers.
    pub(super) fn auth_answer(&mut self, answering: Answering, outcome: Outcome, cx: &mut Context<'_>) {
        match outcome {
            Outcome::Signed(Ok(proofs)) => self.answer_proven(answering, proofs, cx),
            _ => self.refuse_initiator(Closed::Configured("our private key does not sign"), cx),
        }
    }

    fn answer_proven(&mut self, mut answering: Answering, proofs: Vec<Authentication>, cx: &mut Context<'_>) {
        let answer = answering.round(proofs, self.resumed.is_some());
        self.answer_last(answering, answer, cx);
    }

    /// Answers with what proves who we are, and with all else, if it is the last answer.
    pub(super) fn answer_last(
        &mut self,
        answering: Answering,
        mut answer: Vec<Payload>,
        cx: &mut Context<'_>,
    ) {
        if !self.is_last(&answering) {
            return self.await_round(answering, answer, cx);
        }
        let before = self.resumed.as_ref().and_then(|resumed| resumed.proven.as_ref());
        if let Some(proven) = before {
            self.eap_id.clone_from(&proven.eap_id);
        }
        let by_eap = self.eap_id.clone();
        let Answering { connection, first: ids, payloads, done, .. } = answering;
        if let Some(elsewhere) = self.redirects_to(&connection, cx) {
            return self.answer_elsewhere(&connection, ids, (answer, elsewhere), cx);
        }
        if let Err(closed) = self.keep_unique(&connection, &ids, &payloads, cx) {
            return self.refuse_initiator(closed, cx);
        }
        self.connection = connection.clone();
        let (mine, theirs) = &ids;
        answer.extend(self.has_ppk.then(ppk::taken_notify));
        answer.extend(self.lifetime_notify(&connection));
        answer.extend(self.ticket_answer(&payloads, done.theirs, (mine, theirs), cx));
        self.learn_sync(&payloads);
        answer.extend(self.channel.may_sync().then(|| self.sync_notify()));
        self.learn_mobike(&payloads);
        answer.extend(self.mobike.is_used.then(|| self.mobike_notifies(cx)).into_iter().flatten());
        let who = by_eap.unwrap_or_else(|| theirs.to_string());
        let (configuration, given) = self.give(&connection, (&ids, &who), &payloads, cx);
        answer.extend(configuration);
        let hosts = self.hosts();
        // RFC 6023 §3: without an SA payload it wants no child.
        let child = payloads.security_association().map(|_| match (given, connection.childless) {
            (Err(why), _) => Err(why),
            (_, Childless::Force) => Err(ChildError::Full),
            _ => Agreed::select((&connection.children, connection.order), false, &payloads, &hosts, cx),
        });
        let (install, failed) = match child {
            Some(Ok(agreed)) => {
                let payloads = agreed.payloads();
                match self.installed(agreed, Role::Responder, cx).filter(|install| (cx.child_room)(install)) {
                    Some(install) => {
                        answer.extend(payloads);
                        (Some(install), None)
                    }
                    None => {
                        answer.push(Payload::Notify(Notify::new(ChildError::Full.notify(), &[])));
                        (None, Some(ChildError::Full))
                    }
                }
            }
            Some(Err(error)) => {
                answer.push(Payload::Notify(Notify::new(error.notify(), &[])));
                (None, Some(error))
            }
            None => (None, None),
        };
        // What comes in is to be opened as soon as the peer has the answer.
        // Those of whom the peer knows nothing are nothing to go by.
        let has_others =
            connection.remote_auth.tells_who() && !payloads.has_notify(NotifyType::INITIAL_CONTACT);
        let up = install.map(|install| {
            let has_elder =
                has_others && self.contacts.carry(&self.of_user(&ids), self.id, &install.sa.policy);
            self.use_later(install.sa.spi_in, has_elder, cx.now_ms);
            self.put_child(Install { sends: false, is_alone: !has_elder, ..install }, cx)
        });
        self.answer(ExchangeType::IKE_AUTH, &Payloads(answer), cx);
        self.establish(ids.0, ids.1, cx);
        up.into_iter().for_each(|up| self.event(up, cx));
        if let Some(error) = failed {
            self.child_failed(connection.name_of_children(), &error, cx);
        }
    }

    /// The initiator, which is who it says, is sent to another gateway (RFC 5685 §6).
    fn answer_elsewhere(
        &mut self,
        connection: &Arc<Connection>,
        (mine, theirs): Ids,
        (mut answer, elsewhere): (Vec<Payload>, Payload),
        cx: &mut Context<'_>,
    ) {
        self.connection = connection.clone();
        answer.extend(self.has_ppk.then(ppk::taken_notify));
        answer.push(elsewhere);
        self.answer(ExchangeType::IKE_AUTH, &Payloads(answer), cx);
        self.establish(mine, theirs, cx);
    }

    /// Who we are in a connection.
    fn id_in(&self, connection: &Connection) -> Identification {
        self.id_of(&connection.local_id, &connection.local_auth)
    }

    /// Who we are by what we prove it by, if it is not said.
    pub(super) fn id_by(&self, auth: &LocalAuth) -> Identification {
        auth.identity(self.path.local.ip())
    }

    /// The connection for a peer, and who we are to it: of those that its addresses fit, the one that fits best how it
    /// proves who it is, who it says to be, and asks us to be. Beside it are others that fit all of that as well.
    fn connections_for(
        &self,
        theirs: &Identification,
        asked: Option<&Identification>,
        (method, another): (Option<AuthMethod>, bool),
        cx: &Context<'_>,
    ) -> Result<(Found, Vec<Found>), Closed> {
        let agreement = self.agreement.as_ref();
        let resumed_in = self.resumed.as_ref().and_then(|resumed| resumed.proven.as_ref());
        let resumed_in = resumed_in.map(|proven| &proven.connection);
        let fits = |connection: &Arc<Connection>| {
            // Who comes back has proven who it is for one alone.
            if resumed_in.is_some_and(|name| *name != connection.name) {
                return None;
            }
            // What was agreed on before it was known who it is must be what this one allows.
            let allows =
                |agreed: &Agreement| connection.proposals.select(&[agreed.answer(&[])], connection.order);
            agreement.and_then(allows)?;
            let is_method = begins_by(&connection.remote_auth, method);
            // RFC 4739: by EAP it is not known yet.
            let has_rounds = method.is_none() || connection.further.remote.is_empty() != another;
            let remote = connection.remote_id.fits(theirs)?;
            let (local, mine) = match (asked, &connection.local_auth) {
                (None, _) => (Fit::Any, self.id_in(connection)),
                // Whoever our certificate is of, if we are not told who we are.
                (Some(asked), LocalAuth::PublicKey(credential))
                    if connection.local_id == IdPattern::Any
                        && credential.certificate().is_some_and(|c| c.proves(asked)) =>
                {
                    (Fit::Exact, Identification::new(asked.kind, &asked.data))
                }
                (Some(asked), _) => {
                    let mine = self.id_in(connection);
                    let is_ours = [&connection.local_id, &IdPattern::from(&mine)];
                    is_ours.into_iter().find_map(|pattern| pattern.fits(asked))?;
                    (Fit::Exact, mine)
                }
            };
            Some(((is_method, has_rounds, remote, local), mine))
        };
        let candidates = cx.config.between(self.path.local, self.path.peer);
        let found: Vec<_> =
            candidates.iter().filter_map(|c| fits(c).map(|(fit, mine)| (fit, (c.clone(), mine)))).collect();
        let best = found.iter().map(|(fit, _)| *fit).max();
        let found = found.into_iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, found)| found);
        let mut found = found.take(MOST_CONNECTIONS);
        // Of equals the first.
        found.next().map(|first| (first, found.collect())).ok_or_else(|| {
            let misfits = candidates.iter().take(MOST_NAMED).map(|c| self.misfit(c, theirs, asked));
            Closed::Nobody {
                theirs: theirs.to_string(),
                asked: asked.map(ToString::to_string),
                misfits: misfits.collect::<Vec<_>>().join("; "),
            }
        })
    }

    /// Why a connection is not for a peer.
    fn misfit(&self, c: &Connection, theirs: &Identification, asked: Option<&Identification>) -> String {
        let mine = self.id_in(c);
        if c.remote_id.fits(theirs).is_none() {
            format!("'{}' is for {}", c.name, c.remote_id)
        } else if asked.is_some_and(|asked| IdPattern::from(&mine).fits(asked).is_none()) {
            format!("'{}' is of {mine} here", c.name)
        } else {
            format!("'{}' is by {}", c.name, c.proposals)
        }
    }

    /// The peer says no.
    pub(super) fn refused_by(&self, kind: NotifyType) -> Closed {
        if kind != NotifyType::AUTHENTICATION_FAILED {
            return Closed::Peer(kind);
        }
        let (mine, theirs) = match &self.ids {
            Some((mine, theirs)) => (mine.to_string(), theirs.to_string()),
            None => (self.id_in(&self.connection).to_string(), self.connection.remote_id.to_string()),
        };
        Closed::Proof { kind, mine, by: self.connection.local_auth.to_string(), theirs }
    }

    /// Tells the peer, which thinks that the IKE SA is there, that it is not who it should be (RFC 7296 §2.21.2).
    pub(super) fn refuse_peer(&mut self, why: Closed, cx: &mut Context<'_>) {
        (self.phase, self.deadline_ms) = (Phase::Closing, u64::MAX);
        let notify = Notify::new(NotifyType::AUTHENTICATION_FAILED, &[]);
        self.ask(ExchangeType::INFORMATIONAL, &Payloads(vec![Payload::Notify(notify)]), cx);
        self.asked = Some(Asked::Informational(informational::Question::Refused(Box::new(why))));
    }

    /// Tells the initiator the same.
    pub(super) fn refuse_initiator(&mut self, closed: Closed, cx: &mut Context<'_>) {
        self.answer_error(ExchangeType::IKE_AUTH, NotifyType::AUTHENTICATION_FAILED, cx);
        self.close(closed, cx);
    }

    /// The first child SA, with its keys.
    fn installed(&self, agreed: Agreed, role: Role, cx: &mut Context<'_>) -> Option<Install> {
        self.with_keys(agreed, role, &[], self.init.as_ref()?.nonces(), cx)
    }

    /// A child SA with its keys, by the nonces of the exchange that makes it, in which we have this role.
    pub(super) fn with_keys(
        &self,
        agreed: Agreed,
        role: Role,
        secrets: &[Secret],
        nonces: Nonces<'_>,
        cx: &mut Context<'_>,
    ) -> Option<Install> {
        let at = (cx.now_ms, u32::from_be_bytes(cx.random()));
        Some(agreed.install(self.keys.as_ref()?, role, secrets, nonces, self.place(), at))
    }

    /// Where packets of child SAs go.
    pub(super) fn place(&self) -> Place<'_> {
        let (local, peer): (SocketAddr, SocketAddr) = (self.path.local, self.path.peer);
        let (is_in_udp, nat) = (self.is_in_udp(), self.nat.unwrap_or_default());
        Place { connection: &self.connection.name, local, peer, is_in_udp, nat }
    }

    /// The datapath gets a child SA; what is to be told of it.
    pub(super) fn put_child(&mut self, install: Install, cx: &mut Context<'_>) -> Event {
        child::put(&mut self.children, install, cx)
    }
}

/// What is sent of our certificates.
fn certificates(connection: &Connection, auth: &LocalAuth, is_asked: bool) -> Vec<Payload> {
    let sends = match connection.sends_certificates {
        SendCertificates::Asked => is_asked,
        SendCertificates::Always => true,
        SendCertificates::Never => false,
    };
    match auth {
        LocalAuth::PublicKey(credential) if sends => {
            credential.payloads().map(Payload::Certificate).collect()
        }
        _ => vec![],
    }
}

/// By which of these connections a peer is who it says.
fn verified(outcome: Outcome, theirs: &Identification, connections: &[&Connection]) -> Result<usize, Closed> {
    match outcome {
        Outcome::Verified(verified) => verified.map_err(|wrong| Closed::Authentication {
            who: theirs.to_string(),
            why: Unproven::of_each(connections, wrong),
        }),
        _ => Err(Closed::Missing("AUTH payload")),
    }
}
