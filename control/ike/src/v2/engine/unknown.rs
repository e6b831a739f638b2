//! INVALID_IKE_SPI (RFC 7296 §1.5, §2.21.4): who asks by an IKE SA that is not here is told so, in clear.
//!
//! # Dangers
//! Anybody can send either. What is told is no longer than what it answers, and there is an end to how many are told in a second, of
//! all together; responses are never answered, so that no two ends go on telling each other. Who is told believes nothing: it asks
//! the peer whether it is there, if that is not known of the last seconds.

use super::{Engine, is_first};
use crate::{
    message::{Flags, Header, Message, Notify, NotifyType, Payload, Payloads, Version},
    v2::{
        context::Context,
        ike_sa::{IkeSaId, Path, Task},
        refused::Refused,
    },
};

/// How many are told in a second.
pub(in crate::v2) const TOLD_A_SECOND: u32 = 50;

/// How long a peer that was heard is known to be there.
pub(in crate::v2) const HEARD_MS: u64 = 10_000;

/// Whether it says that its sender does not know the IKE SA.
pub(super) fn says_unknown(header: &Header, octets: &[u8]) -> bool {
    let may_be = header.flags.contains(Flags::RESPONSE) && !is_first(header.exchange);
    let says = |message: Message| {
        message.sealed.is_none() && message.payloads.has_notify(NotifyType::INVALID_IKE_SPI)
    };
    may_be && Message::parse(octets).is_ok_and(says)
}

impl Engine {
    /// A message of an IKE SA that is not here.
    pub(super) fn answer_unknown(
        &mut self,
        header: &Header,
        octets: &[u8],
        path: Path,
        cx: &mut Context<'_>,
    ) {
        // RFC 7296 §2.21.4: a response MUST NOT be answered.
        if header.flags.contains(Flags::RESPONSE) || is_first(header.exchange) {
            return;
        }
        if !Message::parse(octets).is_ok_and(|message| message.sealed.is_some()) {
            return;
        }
        let is_by_initiator = header.flags.contains(Flags::INITIATOR);
        let flags = if is_by_initiator { Flags::RESPONSE } else { Flags::RESPONSE | Flags::INITIATOR };
        let header = Header { version: Version::V2, flags, ..*header };
        let payloads = Payloads(vec![Payload::Notify(Notify::new(NotifyType::INVALID_IKE_SPI, &[]))]);
        let answer = Message { header, payloads, sealed: None }.emit();
        let Some(answer) = answer.ok().filter(|answer| answer.len() <= octets.len()) else { return };
        if self.unknown.take(TOLD_A_SECOND, cx.now_ms) {
            cx.send(vec![answer], path, 0);
        }
    }

    /// Somebody says that the peer of an IKE SA does not know it. Nothing of it changes but that the peer is asked.
    pub(super) fn suspect(&mut self, id: IkeSaId, cx: &mut Context<'_>) -> Refused {
        let is_asked = |sa: &crate::v2::ike_sa::IkeSa| {
            sa.is_idle() && sa.is_asking_nothing() && sa.heard_ms.saturating_add(HEARD_MS) <= cx.now_ms
        };
        if self.sa(id).is_some_and(is_asked) {
            self.with(id, cx, |sa, cx| sa.ask_later(Task::Liveness, cx));
        }
        Refused::NotKnown
    }
}
