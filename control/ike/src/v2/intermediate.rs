//! IKE_INTERMEDIATE (RFC 9242) with additional key exchanges (RFC 9370 §2.2): between IKE_SA_INIT and IKE_AUTH, one for each that
//! was agreed on.
//!
//! ```text
//!  initiator                     responder
//!  SK {KEi(n)}            ──▶
//!                         ◀──    SK {KEr(n)}         all that follows is sealed with new keys
//! ```
//!
//! Public values of KEMs are long: these messages are cut, which those of IKE_SA_INIT cannot be.
//!
//! # Dangers
//! - Nothing of it is authenticated yet: AUTH is over all that was said here, as it was before it was cut.

use super::{
    channel,
    context::Context,
    ike_sa::{Asked, Closed, IkeSa, Then},
    job::{Job, Outcome},
};
use crate::{
    crypto::{Secret, auth::Intermediate, exchange::Initiator, transform::KeyExchange as Method},
    message::{ExchangeType, KeyExchange, NotifyType, Payload, Payloads},
};

const EXCHANGE: ExchangeType = ExchangeType::IKE_INTERMEDIATE;

/// A message, for AUTH.
#[derive(Debug)]
pub(super) struct Said {
    headers: Vec<u8>,
    payloads: Vec<u8>,
}

/// What an initiator has asked.
#[derive(Debug)]
pub(super) struct Question {
    private: Initiator,
    request: Said,
}

/// What both have said.
#[derive(Debug)]
pub(super) struct Exchange {
    request: Said,
    response: Said,
}

impl Said {
    /// By the headers of a message as if it were not cut, and its payloads in clear.
    pub(super) fn new(headers: Vec<u8>, payloads: Vec<u8>) -> Said {
        Said { headers, payloads }
    }

    /// What we have sent, by its first datagram.
    fn sent(datagram: &[u8], payloads: &Payloads) -> Option<Said> {
        let (_, octets) = payloads.emit().ok()?;
        Some(Said::new(channel::headers(datagram)?, octets))
    }

    fn whole(&self) -> Intermediate<'_> {
        Intermediate { headers: &self.headers, payloads: &self.payloads }
    }
}

fn key_exchange(method: Method, data: Vec<u8>) -> Payloads {
    Payloads(vec![Payload::KeyExchange(KeyExchange { method: method.id(), data })])
}

impl IkeSa {
    /// The method of the key exchange that is next, if one is left before IKE_AUTH.
    pub(super) fn next_intermediate(&self) -> Option<Method> {
        // RFC 5723 §4.3: who has come back exchanges no keys.
        let agreement = self.agreement.as_ref().filter(|_| self.resumed.is_none())?;
        let init = self.init.as_ref()?;
        agreement.additional_key_exchanges().nth(init.intermediates as usize)
    }

    /// An initiator begins the next key exchange, or IKE_AUTH.
    pub(super) fn go_on_to_auth(&mut self, cx: &mut Context<'_>) {
        match self.next_intermediate() {
            Some(method) => self.after(Job::Generate(method), Then::IntermediateAsk, cx),
            None => match self.init.as_mut().and_then(|init| init.puzzle.take()) {
                Some(puzzle) => self.after(Job::Solve(puzzle), Then::AuthSolve, cx),
                None => self.begin_auth(cx),
            },
        }
    }

    /// There is a private key: asks.
    pub(super) fn intermediate_ask(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Generated(private, public) = outcome else { return };
        let payloads = key_exchange(private.method(), public);
        let Some(first) = self.ask(EXCHANGE, &payloads, cx) else { return };
        if let Some(request) = Said::sent(&first, &payloads) {
            self.asked = Some(Asked::Intermediate(Box::new(Question { private, request })));
        }
    }

    /// The responder has answered.
    pub(super) fn intermediate_answered(
        &mut self,
        question: Question,
        payloads: &Payloads,
        response: Said,
        cx: &mut Context<'_>,
    ) {
        let Question { private, request } = question;
        if let Some(notify) = payloads.error() {
            return self.close(Closed::Peer(notify.kind), cx);
        }
        let Some(ke) = payloads.key_exchange().filter(|ke| ke.method == private.method().id()) else {
            return self.close(Closed::Missing("KE payload of the method that is next"), cx);
        };
        let job = Job::Finish(private, ke.data.clone());
        self.after(job, Then::IntermediateFinish(Box::new(Exchange { request, response })), cx);
    }

    /// There is a secret.
    pub(super) fn intermediate_finish(&mut self, exchange: Exchange, outcome: Outcome, cx: &mut Context<'_>) {
        let Outcome::Finished(secret) = outcome else { return };
        match secret {
            Ok(secret) => {
                if self.update_keys(&exchange, secret, cx) {
                    self.go_on_to_auth(cx);
                }
            }
            Err(error) => self.close(Closed::Exchange(error), cx),
        }
    }

    /// The initiator asks.
    pub(super) fn answer_intermediate(&mut self, payloads: &Payloads, request: Said, cx: &mut Context<'_>) {
        let method = self.next_intermediate();
        let ke = payloads.key_exchange().filter(|ke| method.is_some_and(|m| m.id() == ke.method));
        match (method, ke) {
            (Some(method), Some(ke)) => {
                let job = Job::Respond(method, ke.data.clone());
                self.after(job, Then::IntermediateAnswer(Box::new(request)), cx);
            }
            _ => {
                self.answer_error(EXCHANGE, NotifyType::INVALID_SYNTAX, cx);
                self.close(Closed::Missing("KE payload of the method that is next"), cx);
            }
        }
    }

    /// There is a public value and a secret: answers.
    pub(super) fn intermediate_answer(&mut self, request: Said, outcome: Outcome, cx: &mut Context<'_>) {
        let (Outcome::Responded(responded), Some(method)) = (outcome, self.next_intermediate()) else {
            return;
        };
        let (public, secret) = match responded {
            Ok(responded) => responded,
            Err(error) => {
                self.answer_error(EXCHANGE, NotifyType::INVALID_SYNTAX, cx);
                return self.close(Closed::Exchange(error), cx);
            }
        };
        let payloads = key_exchange(method, public);
        let Some(first) = self.answer(EXCHANGE, &payloads, cx) else { return };
        if let Some(response) = Said::sent(&first, &payloads) {
            self.update_keys(&Exchange { request, response }, secret, cx);
        }
    }

    /// What follows is sealed with new keys; what was said is signed with those that it was sealed with (RFC 9242 §3.3.1, RFC
    /// 9370 §2.2.1).
    fn update_keys(&mut self, exchange: &Exchange, secret: Secret, cx: &mut Context<'_>) -> bool {
        let (Some(keys), Some(init)) = (&self.keys, &mut self.init) else { return false };
        let (request, response) = (exchange.request.whole(), exchange.response.whole());
        if let Err(error) = init.int_auth.add(keys, request, response) {
            self.close(Closed::Intermediate(error), cx);
            return false;
        }
        init.intermediates += 1;
        let (keys, sealer, opener) = keys.updated(secret, init.nonces(), self.channel.spis());
        self.seal_with(sealer, opener, cx);
        self.keys = Some(keys);
        true
    }
}
