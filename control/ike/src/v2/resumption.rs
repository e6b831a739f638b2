//! Session resumption (RFC 5723): who has begun comes back with a ticket that it was given, and neither exchanges keys nor
//! proves anew who it is.
//!
//! ```text
//!  who has begun                                      the gateway
//!  IKE_AUTH            N(TICKET_REQUEST)       ──▶
//!                                              ◀──    N(TICKET_LT_OPAQUE)
//!      ... the gateway, or the way to it, is gone
//!  IKE_SESSION_RESUME  Ni, N(TICKET_OPAQUE)    ──▶
//!                                              ◀──    Nr, or N(TICKET_NACK): IKE_SA_INIT follows
//!  IKE_AUTH            by keys of both         ◀──▶
//! ```
//!
//! # Dangers
//! - A ticket is used once by who has it, but can be sent again by who has seen it. That makes a half-open IKE SA, and nothing
//!   else: AUTH is by the old SK_d.
//! - How long both ends are taken for authenticated goes on from when they were.

use super::{
    context::Context,
    ike_sa::{Asked, Closed, IkeSa},
    output::Event,
    sa_init::Init,
    ticket::{Proven, Session},
};
use crate::{
    crypto::{
        Secret,
        keys::{Keys, Role, Spis},
        transform::Suite,
    },
    message::{
        AuthMethod, Authentication, ExchangeType, Identification, IkeSpi, Notify, NotifyType, Payload,
        Payloads,
    },
    proposal::Agreement,
};
use std::sync::Arc;

pub(super) const EXCHANGE: ExchangeType = ExchangeType::IKE_SESSION_RESUME;

/// Octets of our nonces.
const NONCE: usize = 32;

/// Octets of a ticket that is kept, at most.
const LONGEST: usize = 4096;

/// How often a cookie is sent back.
const MOST_ROUNDS: u8 = 3;

/// A ticket, and what else who has begun needs to come back.
#[derive(Debug)]
pub struct Ticket {
    octets: Vec<u8>,
    until_ms: u64,
    /// When both ends were authenticated.
    authenticated_ms: u64,
    agreement: Agreement,
    ids: (Identification, Identification),
    has_ppk: bool,
    d: Secret,
}

impl Ticket {
    /// Whether it may be used still.
    pub(super) fn is_good(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }
}

/// What an IKE SA was before.
#[derive(Debug)]
pub(super) struct Resumed {
    /// Who we are, and who the peer is.
    pub ids: (Identification, Identification),
    /// How the initiator has proven who it is, for the responder.
    pub proven: Option<Proven>,
    /// How long ago that was.
    pub authenticated_ago_ms: u64,
    agreement: Agreement,
    has_ppk: bool,
    d: Secret,
}

/// What was asked.
#[derive(Debug)]
pub(super) struct Question {
    ticket: Arc<Ticket>,
    nonce: Vec<u8>,
    request: Vec<u8>,
    cookie: Option<Vec<u8>>,
    round: u8,
}

/// What who begins sends of a ticket, if it is one that comes back.
pub(super) fn said(payloads: &Payloads) -> Option<&[u8]> {
    Some(&payloads.notifies(NotifyType::TICKET_OPAQUE).next()?.data)
}

impl Resumed {
    /// What a responder has opened, of a connection that allows it.
    pub(super) fn new(session: Session, agreement: Agreement, now_secs: u64) -> Resumed {
        let Session { authenticated_secs, has_ppk, proven, initiator, responder, d, .. } = session;
        Resumed {
            ids: (responder, initiator),
            proven: Some(proven),
            authenticated_ago_ms: now_secs.saturating_sub(authenticated_secs) * 1000,
            agreement,
            has_ppk,
            d,
        }
    }

    fn suite(&self) -> Option<Suite> {
        self.agreement.suite()
    }
}

impl IkeSa {
    /// What who begins says that wants a ticket.
    pub(super) fn ticket_request(&self) -> Option<Payload> {
        let notify = Notify::new(NotifyType::TICKET_REQUEST, &[]);
        self.connection.resumes.then_some(Payload::Notify(notify))
    }

    /// The answer to that. `rounds` is how often the initiator has proven who it is, and `ids` who we are and who it is.
    pub(super) fn ticket_answer(
        &mut self,
        payloads: &Payloads,
        rounds: usize,
        ids: (&Identification, &Identification),
        cx: &mut Context<'_>,
    ) -> Option<Payload> {
        let is_asked = payloads.has_notify(NotifyType::TICKET_REQUEST);
        let (agreement, keys) = (self.agreement.as_ref().filter(|_| is_asked)?, self.keys.as_ref()?);
        let ago_secs = self.resumed.as_ref().map_or(0, |resumed| resumed.authenticated_ago_ms / 1000);
        let said = payloads.authentication().map(|said| said.method)?;
        let proven = || Proven {
            connection: self.connection.name.clone(),
            method: said,
            rounds,
            eap_id: self.eap_id.clone(),
        };
        let most_secs = match self.connection.reauth_ms {
            0 => Session::MOST_SECS,
            // RFC 5723 §4.2: no longer than both are taken for authenticated.
            ms => Session::MOST_SECS.min((ms / 1000).saturating_sub(ago_secs)),
        };
        let session = Session {
            until_secs: cx.unix_secs + most_secs,
            authenticated_secs: cx.unix_secs.saturating_sub(ago_secs),
            has_ppk: self.has_ppk,
            proven: self.resumed.as_ref().and_then(|resumed| resumed.proven.clone()).unwrap_or_else(proven),
            proposal: agreement.answer(&[]),
            initiator: ids.1.clone(),
            responder: ids.0.clone(),
            d: keys.d().clone(),
        };
        let tickets = self.tickets.as_mut().filter(|_| self.connection.resumes && most_secs > 0);
        let ticket = tickets.and_then(|tickets| tickets.seal(&session, cx.unix_secs, cx.rng));
        let notify = match ticket {
            // RFC 5723 §7.2
            Some(ticket) => {
                let data = [&(most_secs as u32).to_be_bytes(), &ticket[..]].concat();
                Notify::new(NotifyType::TICKET_LT_OPAQUE, &data)
            }
            None => Notify::new(NotifyType::TICKET_NACK, &[]),
        };
        Some(Payload::Notify(notify))
    }

    /// What the gateway gives.
    pub(super) fn keep_ticket(&mut self, payloads: &Payloads, cx: &Context<'_>) {
        let notify = payloads.notifies(NotifyType::TICKET_LT_OPAQUE).next();
        let Some((secs, octets)) = notify.and_then(|notify| notify.data.split_first_chunk()) else { return };
        let (Some(agreement), Some(keys), Some(ids)) = (&self.agreement, &self.keys, &self.ids) else {
            return;
        };
        if !self.connection.resumes || octets.is_empty() || octets.len() > LONGEST {
            return;
        }
        let ago_ms = self.resumed.as_ref().map_or(0, |resumed| resumed.authenticated_ago_ms);
        self.ticket = Some(Arc::new(Ticket {
            octets: octets.to_vec(),
            until_ms: cx.now_ms + u64::from(u32::from_be_bytes(*secs)) * 1000,
            authenticated_ms: cx.now_ms.saturating_sub(ago_ms),
            agreement: agreement.clone(),
            ids: ids.clone(),
            has_ppk: self.has_ppk,
            d: keys.d().clone(),
        }));
    }

    /// How long ago both ends were authenticated, if that was before this IKE SA.
    pub(super) fn authenticated_ago_ms(&self) -> u64 {
        self.resumed.as_ref().map_or(0, |resumed| resumed.authenticated_ago_ms)
    }

    /// Whether it has come back.
    pub fn is_resumed(&self) -> bool {
        self.resumed.is_some()
    }

    /// Comes back.
    pub(super) fn begin_resume(&mut self, ticket: Arc<Ticket>, cx: &mut Context<'_>) {
        let nonce = cx.random::<NONCE>().to_vec();
        self.ask_resume(Question { ticket, nonce, request: vec![], cookie: None, round: 0 }, cx);
    }

    fn ask_resume(&mut self, mut question: Question, cx: &mut Context<'_>) {
        let mut payloads = vec![];
        let cookie = question.cookie.iter();
        payloads.extend(cookie.map(|cookie| Payload::Notify(Notify::new(NotifyType::COOKIE, cookie))));
        payloads.push(Payload::Nonce(question.nonce.clone()));
        let ticket = Notify::new(NotifyType::TICKET_OPAQUE, &question.ticket.octets);
        payloads.push(Payload::Notify(ticket));
        payloads.extend(self.redirect_notify());
        payloads.extend(self.init_notifies());
        if let Some(request) = self.ask(EXCHANGE, &Payloads(payloads), cx) {
            question.request = request;
            self.asked = Some(Asked::Resume(Box::new(question)));
        }
    }

    /// The gateway has answered. Nobody need believe that it has not got the ticket any more, but then all begins anew, and
    /// nothing is lost.
    pub(super) fn resume_answered(
        &mut self,
        mut question: Question,
        payloads: &Payloads,
        octets: Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        if let Some(cookie) = payloads.notifies(NotifyType::COOKIE).next() {
            if question.round < MOST_ROUNDS && question.cookie.as_ref() != Some(&cookie.data) {
                question.cookie = Some(cookie.data.clone());
                question.round += 1;
                return self.ask_resume(question, cx);
            }
            return self.asked = Some(Asked::Resume(Box::new(question)));
        }
        let spi = crate::message::Header::parse(&octets).map(|(header, ..)| header.responder_spi);
        let responder = spi.ok().filter(|spi| *spi != IkeSpi::NONE);
        let (Some(nr), Some(responder)) = (payloads.nonce(), responder) else {
            // RFC 5723 §4.3.2
            self.event(Event::NotResumed, cx);
            self.channel.begin_anew();
            return self.begin_init(cx);
        };
        self.channel.take_response();
        self.channel.set_spis(Spis { responder, ..self.channel.spis() });
        self.may_be_childless = payloads.has_notify(NotifyType::CHILDLESS_IKEV2_SUPPORTED);
        self.learn_peer(payloads, self.channel.spis());
        let Ticket { authenticated_ms, agreement, ids, has_ppk, d, .. } = &*question.ticket;
        let resumed = Resumed {
            ids: ids.clone(),
            proven: None,
            authenticated_ago_ms: cx.now_ms.saturating_sub(*authenticated_ms),
            agreement: agreement.clone(),
            has_ppk: *has_ppk,
            d: d.clone(),
        };
        let init = Init::new((question.request, octets), (question.nonce, nr.to_vec()));
        if self.make_resumed_keys(resumed, init, cx) {
            self.float();
            self.go_on_to_auth(cx);
        }
    }

    /// Who has begun comes back.
    pub(super) fn answer_resume(
        &mut self,
        resumed: Resumed,
        payloads: &Payloads,
        request: Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        let Some(ni) = payloads.nonce() else { return };
        let spis = Spis { responder: IkeSpi::NONE, ..self.channel.spis() };
        self.learn_peer(payloads, spis);
        self.redirection.is_taken = super::redirect::is_taken(payloads);
        let nr = cx.random::<NONCE>().to_vec();
        let mut answer = vec![Payload::Nonce(nr.clone())];
        answer.extend(self.init_notifies());
        let Some(response) = self.answer(EXCHANGE, &Payloads(answer), cx) else { return };
        self.make_resumed_keys(resumed, Init::new((request, response), (ni.to_vec(), nr)), cx);
    }

    /// Messages are sealed from now on.
    fn make_resumed_keys(&mut self, resumed: Resumed, init: Init, cx: &mut Context<'_>) -> bool {
        let Some(suite) = resumed.suite() else { return false };
        let (role, spis) = (self.channel.role(), self.channel.spis());
        let (keys, sealer, opener) = Keys::resumed(suite, role, &resumed.d, init.nonces(), spis);
        self.seal_with(sealer, opener, cx);
        (self.keys, self.init, self.agreement) =
            (Some(keys), Some(Box::new(init)), Some(resumed.agreement.clone()));
        self.has_ppk = resumed.has_ppk;
        self.resumed = Some(Box::new(resumed));
        true
    }

    /// AUTH of an end that has come back: it has the keys (RFC 5723 §5.1).
    pub(super) fn resumption_proof(&self, who: Role, id: &Identification) -> Option<Authentication> {
        let (_, keys) = (self.resumed.as_ref()?, self.keys.as_ref()?);
        let mac = keys.suite().prf().mac(keys.sk_p(who).bytes(), &[&self.signed_octets(who, id)?]);
        Some(Authentication { method: AuthMethod::SHARED_KEY, data: mac.bytes().to_vec() })
    }

    /// Whether the peer of one that has come back is who it was, and takes us for whom it did.
    pub(super) fn check_resumed(
        &self,
        mine: &Identification,
        theirs: &Identification,
        said: &Authentication,
    ) -> Result<(), Closed> {
        let who = if self.role() == Role::Initiator { Role::Responder } else { Role::Initiator };
        let proof = self.resumption_proof(who, theirs);
        let is_it = |proof: Authentication| {
            said.method == proof.method && Secret::from(proof.data) == Secret::copy_of(&said.data)
        };
        let is_same =
            self.resumed.as_ref().is_some_and(|resumed| resumed.ids == (mine.clone(), theirs.clone()));
        match proof.is_some_and(is_it) && is_same {
            true => Ok(()),
            false => Err(Closed::NotResumed(theirs.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{keys::Nonces, transform::Prf},
        proposal::Proposals,
    };

    // RFC 5723 §5
    #[test]
    fn keys_are_of_the_old_sk_d_and_both_nonces() {
        let agreement = Proposals::ike(["aes128gcm16-sha256-x25519"]).unwrap();
        let offered = agreement.offer(&[]);
        let agreement = agreement.select(&offered, crate::proposal::Order::Ours).unwrap();
        let (suite, d) = (agreement.suite().unwrap(), Secret::copy_of(&[1; 32]));
        let nonces = Nonces { initiator: &[2; 32], responder: &[3; 32] };
        let spis = Spis { initiator: IkeSpi(4), responder: IkeSpi(5) };
        let (keys, ..) = Keys::resumed(suite, Role::Initiator, &d, nonces, spis);
        let skeyseed = Prf::HmacSha256.mac(&[1; 32], &[b"Resumption", &[2; 32], &[3; 32]]);
        let (i, r) = (4u64.to_be_bytes(), 5u64.to_be_bytes());
        let all = Prf::HmacSha256.plus(skeyseed.bytes(), &[&[2; 32], &[3; 32], &i, &r], 3 * 32 + 2 * 20);
        assert_eq!(keys.d().bytes(), &all.bytes()[..32]);
        assert_eq!(keys.sk_p(Role::Responder).bytes(), &all.bytes()[32 + 40 + 32..]);
    }
}
