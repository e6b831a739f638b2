//! What an IKE SA does with messages: whose turn each is, and what it sends.

use super::{Asked, Closed, IkeSa, KNOWN, Path, Phase};
use crate::{
    crypto::{
        cipher::{Opener, Sealer},
        key_log::KeyLog,
        keys::Role,
    },
    message::{ExchangeType, Notify, NotifyType, Oversized, Payload, Payloads, Protocol},
    v2::{
        channel::{self, Content, Dropped, Received},
        context::Context,
        id_sync::Ids,
        informational, intermediate,
        output::Output,
        sa_init,
        window::Datagrams,
    },
};
use zeroize::Zeroizing;

impl IkeSa {
    /// A message that has its SPIs, from `path`.
    pub(in crate::v2) fn receive(
        &mut self,
        octets: &[u8],
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        if self.receive_unsolved(octets, path, cx)? {
            return Ok(());
        }
        let before = self.before_response(octets);
        match self.channel.receive(octets)? {
            Received::Part => {}
            Received::Sync(payloads, answers) => match (Ids::of(&payloads), answers) {
                (Some(ids), true) => self.sync_answered(ids, cx),
                (Some(ids), false) => self.answer_sync(ids, path, cx),
                (None, _) => {}
            },
            Received::Repeated(datagrams) => self.send(datagrams, path, cx),
            Received::Request(content) => {
                self.hear(path, cx);
                self.answer_path = path;
                self.request(content, cx);
            }
            Received::Response(content) => {
                self.hear(path, cx);
                match self.channel.is_answering() {
                    true => self.early_response = Some(Box::new(content)),
                    false => self.answered(content, before, cx),
                }
            }
        }
        if self.channel.is_used_up() {
            self.close(Closed::Configured("its message IDs are used up"), cx);
        }
        self.go_on(cx);
        Ok(())
    }

    /// The peer is there.
    fn hear(&mut self, path: Path, cx: &mut Context<'_>) {
        (self.heard_ms, self.quiet_until_ms) = (cx.now_ms, 0);
        if self.phase == Phase::Connecting {
            let round_ms = (cx.now_ms as u32).wrapping_sub(self.sent_ms);
            self.round_ms = Some(round_ms.try_into().unwrap_or(u16::MAX));
        }
        // RFC 7296 §2.11, §2.23: until it is authenticated the initiator may go to another port, and a NAT may give it
        // another place at any time.
        let is_beginning = self.phase == Phase::Connecting && self.role() == Role::Responder;
        if (is_beginning || self.follows_mapping()) && self.path != path {
            self.path = path;
            if self.phase != Phase::Connecting {
                self.move_children(cx);
            }
        }
    }

    /// Messages are sealed from now on, or by other keys.
    pub(in crate::v2) fn seal_with(&mut self, sealer: Sealer, opener: Opener, cx: &mut Context<'_>) {
        self.channel.seal_with(sealer, opener);
        self.tell_keys(cx);
    }

    /// Outside, where that is wanted.
    pub(in crate::v2) fn tell_keys(&self, cx: &mut Context<'_>) {
        let keys = self.channel.seal_keys().filter(|_| cx.config.tells_keys);
        cx.out.extend(keys.map(|keys| Output::Keys(Box::new(KeyLog::V2(keys)))));
    }

    fn request(&mut self, content: Content, cx: &mut Context<'_>) {
        let Content { exchange, payloads, octets, headers } = content;
        let payloads = match payloads {
            Ok(payloads) => payloads,
            Err(malformed) => {
                // RFC 7296 §2.21.3
                let notify = Notify::new(NotifyType::INVALID_SYNTAX, &[]);
                self.answer(exchange, &Payloads(vec![Payload::Notify(notify)]), cx);
                return self.close(Closed::Syntax(malformed), cx);
            }
        };
        // RFC 7296 §2.8.2: it is not decided which IKE SA has the child SAs. The peer asks again.
        if self.awaits_estate && !informational::deletes_ike_sa(&payloads) {
            return self.channel.forget_request();
        }
        // So it does where it goes on before we know who it is.
        if self.phase == Phase::Connecting && self.role() == Role::Initiator {
            return self.channel.forget_request();
        }
        // RFC 7296 §2.5
        if let Some(kind) = payloads.unknown_critical() {
            let notify = Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind.0]);
            self.answer(exchange, &Payloads(vec![Payload::Notify(notify)]), cx);
            return;
        }
        self.use_waiting(cx);
        self.answered_child = None;
        let is_established = matches!(self.phase, Phase::Established | Phase::Replaced | Phase::Closing);
        let is_for_ike = payloads.security_association().and_then(|p| p.first()).map(|p| p.protocol)
            == Some(Protocol::IKE);
        let resumed = self.resumed.take_if(|_| exchange == ExchangeType::IKE_SESSION_RESUME);
        let is_responding = self.phase == Phase::Connecting && self.role() == Role::Responder;
        let more = self.next_intermediate();
        let is_given_up = exchange == ExchangeType::INFORMATIONAL && is_responding;
        if let Some(kind) = informational::fatal(&payloads).filter(|_| is_given_up) {
            return self.eap_given_up(kind, cx);
        }
        match exchange {
            ExchangeType::IKE_INTERMEDIATE if is_responding => {
                self.answer_intermediate(&payloads, intermediate::Said::new(headers, octets), cx);
            }
            // RFC 9370 §2.2.1: not before all key exchanges are done.
            ExchangeType::IKE_AUTH if is_responding && more.is_none() => self.answer_auth(&payloads, cx),
            ExchangeType::INFORMATIONAL if is_established => self.answer_informational(&payloads, cx),
            ExchangeType::CREATE_CHILD_SA if is_established && is_for_ike => self.answer_rekey(&payloads, cx),
            // RFC 7296 §2.25.2: not while it is being replaced or deleted.
            ExchangeType::CREATE_CHILD_SA
                if is_established && (self.phase != Phase::Established || self.is_rekeying()) =>
            {
                self.answer_error(exchange, NotifyType::TEMPORARY_FAILURE, cx);
            }
            ExchangeType::CREATE_CHILD_SA if is_established => self.answer_child(&payloads, cx),
            ExchangeType::IKE_FOLLOWUP_KE if is_established => self.answer_follow_up(&payloads, cx),
            // So it has to tickets.
            ExchangeType::IKE_SESSION_RESUME if resumed.is_some() && self.keys.is_none() => {
                if let Some(resumed) = resumed {
                    self.answer_resume(*resumed, &payloads, octets, cx);
                }
            }
            // Of IKE_SA_INIT the engine has seen to the first.
            ExchangeType::IKE_SA_INIT if self.keys.is_none() && self.role() == Role::Responder => {
                self.init_request(&payloads, octets, cx)
            }
            _ => self.answer_error(exchange, NotifyType::INVALID_SYNTAX, cx),
        }
    }

    fn init_request(&mut self, payloads: &Payloads, octets: Vec<u8>, cx: &mut Context<'_>) {
        let offered = sa_init::offered(payloads).unwrap_or_default();
        if let Some(agreement) = self.connection.proposals.select(&offered, self.connection.order) {
            self.answer_init(agreement, payloads, octets, cx);
        }
    }

    /// What we have asked, `before` as it is kept, is answered.
    pub(super) fn answered(
        &mut self,
        content: Content,
        before: Option<Zeroizing<Vec<u8>>>,
        cx: &mut Context<'_>,
    ) {
        self.response(content, cx);
        self.unanswered = before.filter(|_| self.follows_response());
    }

    fn response(&mut self, content: Content, cx: &mut Context<'_>) {
        let Content { exchange, payloads, octets, headers } = content;
        if matches!(self.asked, Some(Asked::Init(_)))
            && let Some(Asked::Init(question)) = self.asked.take()
        {
            return match payloads {
                Ok(payloads) if payloads.unknown_critical().is_none() => {
                    self.init_answered(*question, &payloads, octets, cx);
                }
                Ok(_) => self.wait_for_another(*question, Closed::Missing(KNOWN), cx),
                Err(malformed) => self.wait_for_another(*question, Closed::Syntax(malformed), cx),
            };
        }
        // Anybody can send what is in clear: it ends nothing while we work on what the peer has said, or if it cannot be read.
        let is_waited_for = matches!(self.asked, Some(Asked::Resume(_))) && payloads.is_ok();
        if channel::is_first(exchange) && !is_waited_for {
            return;
        }
        let payloads = match payloads {
            Ok(payloads) if payloads.unknown_critical().is_none() => payloads,
            Ok(_) => {
                return self.close(Closed::Missing(KNOWN), cx);
            }
            Err(malformed) => return self.close(Closed::Syntax(malformed), cx),
        };
        if let Some(Asked::Resume(question)) = self.asked.take_if(|asked| matches!(asked, Asked::Resume(_))) {
            return self.resume_answered(*question, &payloads, octets, cx);
        }
        if let Some(kind) = informational::fatal(&payloads) {
            return self.close(self.refused_by(kind), cx);
        }
        match self.asked.take() {
            Some(Asked::Intermediate(question)) => {
                let response = intermediate::Said::new(headers, octets);
                self.intermediate_answered(*question, &payloads, response, cx);
            }
            Some(Asked::Auth(question)) => self.auth_answered(*question, &payloads, cx),
            Some(Asked::Eap(end, wanting)) => self.eap_answered(end, *wanting, &payloads, cx),
            Some(Asked::Rekey(question)) => self.rekey_answered(*question, &payloads, cx),
            Some(Asked::Child(question)) => self.child_answered(*question, &payloads, cx),
            Some(Asked::FollowUp(question)) => self.follow_up_answered(*question, &payloads, cx),
            Some(Asked::Informational(question)) => self.informational_answered(question, &payloads, cx),
            Some(Asked::Init(_) | Asked::Resume(_)) | None => {}
        }
    }

    /// Asks; the first datagram, or nothing if the message cannot be.
    pub(in crate::v2) fn ask(
        &mut self,
        exchange: ExchangeType,
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) -> Option<Vec<u8>> {
        let datagrams = self.channel.ask(exchange, payloads, cx.now_ms, cx.rng);
        self.sent(datagrams, self.path, cx)
    }

    /// Answers what is being answered.
    pub(in crate::v2) fn answer(
        &mut self,
        exchange: ExchangeType,
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) -> Option<Vec<u8>> {
        let datagrams = self.channel.answer(exchange, payloads, cx.rng);
        // RFC 7296 §2.11: back to where it came from.
        self.sent(datagrams, self.answer_path, cx)
    }

    /// Answers with an error. INVALID_SYNTAX ends an IKE SA at both ends (RFC 7296 §2.21.3).
    pub(in crate::v2) fn answer_error(
        &mut self,
        exchange: ExchangeType,
        kind: NotifyType,
        cx: &mut Context<'_>,
    ) {
        self.answer(exchange, &Payloads(vec![Payload::Notify(Notify::new(kind, &[]))]), cx);
        if kind == NotifyType::INVALID_SYNTAX {
            self.close(Closed::Missing("payloads in the form that they must have"), cx);
        }
    }

    fn sent(
        &mut self,
        datagrams: Result<Datagrams, Oversized>,
        path: Path,
        cx: &mut Context<'_>,
    ) -> Option<Vec<u8>> {
        match datagrams {
            Ok(datagrams) => {
                let first = datagrams.first().cloned();
                self.sent_ms = cx.now_ms as u32;
                self.send(datagrams, path, cx);
                first
            }
            Err(_) => {
                self.close(Closed::Configured("a message is longer than one can be"), cx);
                None
            }
        }
    }

    pub(in crate::v2) fn send(&self, datagrams: Datagrams, path: Path, cx: &mut Context<'_>) {
        cx.send(datagrams, path, self.connection.dscp);
    }
}
