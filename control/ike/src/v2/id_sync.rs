//! Message IDs after a failover (RFC 6311): a member of a cluster that takes over an IKE SA knows older IDs than were used, and
//! both ends agree on those to go on with.
//!
//! ```text
//!  the member that takes over                                            its peer
//!  INFORMATIONAL, ID 0: nonce, M1 it sends next, P1 it expects next  ──▶
//!                                                                    ◀── ID 0: nonce, P2 it sends next, M2 it expects next
//! ```
//!
//! Peers that are clusters ask, and are answered. iked has no situation in which to ask ([`Engine::synchronize`]): what an engine has done
//! is in its state file before anybody else sees it (`control/src/ike/keeping.rs`), and that file is of one machine and one run of it: it
//! is on a tmpfs, sealed under a key of that kernel's keyring, and goes when it cannot be written. So no IKE SA goes on from an older
//! state than the peer has seen; without the file, peers begin anew. It is for whoever hands IKE SAs to another machine.
//!
//! [`Engine::synchronize`]: super::engine::Engine::synchronize
//!
//! # Dangers
//! - What was sent before is to do nothing when it is sent again: who is not ahead of all that was seen is not heard.

use super::{
    context::Context,
    ike_sa::{Asked, Closed, IkeSa, Phase},
    informational,
};
use crate::message::{Notify, NotifyType, Payload, Payloads};

/// How far ahead of what it knows a member goes on: more requests than can be lost with another.
const AHEAD: u32 = 16;

/// How long an answer is waited for, and how often it is asked.
const WAIT_MS: u64 = 4_000;
const TRIES: u8 = 8;

/// What IKEV2_MESSAGE_ID_SYNC says (RFC 6311 §6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ids {
    nonce: [u8; 4],
    /// Of the next request of who says it.
    sends: u32,
    /// Of the next one of the other.
    expects: u32,
}

/// A member has asked.
#[derive(Debug)]
pub(super) struct Syncing {
    asked: Ids,
    tries: u8,
    again_ms: u64,
}

impl Syncing {
    /// When it is asked again.
    pub(super) fn again_ms(&self) -> u64 {
        self.again_ms
    }
}

impl Ids {
    /// Of a message, if it has any.
    pub(super) fn of(payloads: &Payloads) -> Option<Ids> {
        let data = &payloads.notifies(NotifyType::IKEV2_MESSAGE_ID_SYNC).next()?.data;
        let ([nonce, sends, expects], []) = data.as_chunks() else { return None };
        Some(Ids { nonce: *nonce, sends: u32::from_be_bytes(*sends), expects: u32::from_be_bytes(*expects) })
    }

    fn payloads(self) -> Payloads {
        let data = [self.nonce, self.sends.to_be_bytes(), self.expects.to_be_bytes()].concat();
        Payloads(vec![Payload::Notify(Notify::new(NotifyType::IKEV2_MESSAGE_ID_SYNC, &data))])
    }
}

impl IkeSa {
    /// What both say in IKE_AUTH (RFC 6311 §6.1).
    pub(super) fn sync_notify(&self) -> Payload {
        Payload::Notify(Notify::new(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED, &[]))
    }

    /// What the peer says of it.
    pub(super) fn learn_sync(&mut self, payloads: &Payloads) {
        self.channel.let_sync(payloads.has_notify(NotifyType::IKEV2_MESSAGE_ID_SYNC_SUPPORTED));
    }

    /// We have taken it over. False if the peer does not know of that.
    pub(super) fn synchronize(&mut self, cx: &mut Context<'_>) -> bool {
        let may = self.phase == Phase::Established && self.channel.may_sync();
        if may {
            self.ask_sync(0, cx);
        }
        may
    }

    fn ask_sync(&mut self, tries: u8, cx: &mut Context<'_>) {
        // RFC 6311 §5.1: each is ahead of those before.
        let sends = self.channel.request_id().saturating_add(AHEAD + u32::from(tries));
        let asked = Ids { nonce: cx.random(), sends, expects: self.channel.expected_id() };
        self.syncing = Some(Syncing { asked, tries, again_ms: cx.now_ms + WAIT_MS });
        if let Ok(datagrams) = self.channel.emit_sync(false, &asked.payloads(), cx.rng) {
            self.send(datagrams, self.path, cx);
        }
    }

    /// Asks again, if it is time.
    pub(super) fn sync_late(&mut self, cx: &mut Context<'_>) {
        match self.syncing.take_if(|syncing| syncing.again_ms <= cx.now_ms) {
            Some(Syncing { tries: TRIES, .. }) => self.close(Closed::Silent, cx),
            Some(Syncing { tries, .. }) => self.ask_sync(tries + 1, cx),
            None => {}
        }
    }

    /// The peer has answered.
    pub(super) fn sync_answered(&mut self, said: Ids, cx: &mut Context<'_>) {
        let is_it = |syncing: &mut Syncing| syncing.asked.nonce == said.nonce;
        let Some(Syncing { asked, .. }) = self.syncing.take_if(is_it) else { return };
        self.channel.go_on_at(asked.sends.max(said.expects), asked.expects.max(said.sends));
        self.ask_again_after_sync(cx);
    }

    /// Another member has taken it over at the peer's end.
    pub(super) fn answer_sync(&mut self, said: Ids, path: super::ike_sa::Path, cx: &mut Context<'_>) {
        // RFC 6311 §5.1: what is not ahead of all that was seen is not heard.
        if said.sends < self.channel.expected_id() || self.synced.is_some_and(|last| said.sends <= last) {
            return;
        }
        self.synced = Some(said.sends);
        let sends = self.channel.request_id() + u32::from(self.channel.is_asking());
        let sends = sends.max(said.expects);
        let answer = Ids { nonce: said.nonce, sends, expects: said.sends };
        if let Ok(datagrams) = self.channel.emit_sync(true, &answer.payloads(), cx.rng) {
            self.send(datagrams, path, cx);
        }
        self.channel.go_on_at(sends, said.sends);
        self.ask_again_after_sync(cx);
    }

    /// Nobody knows whether what was asked and not answered was done: it is asked again.
    fn ask_again_after_sync(&mut self, cx: &mut Context<'_>) {
        self.forget_answering();
        let temporary = Notify::new(NotifyType::TEMPORARY_FAILURE, &[]);
        let temporary = Payloads(vec![Payload::Notify(temporary)]);
        match self.asked.take() {
            Some(Asked::Informational(informational::Question::Delete)) => self.begin_delete(cx),
            Some(Asked::Informational(question)) => self.tasks.extend(question.again()),
            Some(Asked::Rekey(question)) => self.rekey_answered(*question, &temporary, cx),
            Some(Asked::Child(question)) => self.child_answered(*question, &temporary, cx),
            Some(Asked::FollowUp(question)) => self.follow_up_answered(*question, &temporary, cx),
            // Not before it is established.
            Some(asked @ (Asked::Init(_) | Asked::Resume(_) | Asked::Intermediate(_))) => {
                self.asked = Some(asked);
            }
            Some(asked @ (Asked::Auth(_) | Asked::Eap(..))) => self.asked = Some(asked),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6311 §6.2
    #[test]
    fn it_is_a_nonce_and_two_ids() {
        let ids = Ids { nonce: [1, 2, 3, 4], sends: 5, expects: 0x0102_0304 };
        let notify = ids.payloads().notifies(NotifyType(16422)).next().unwrap().clone();
        assert_eq!(notify.data, [1, 2, 3, 4, 0, 0, 0, 5, 1, 2, 3, 4]);
        assert_eq!(Ids::of(&ids.payloads()), Some(ids));
        for data in [&notify.data[..11], &[notify.data.clone(), vec![0]].concat()] {
            let notify = Notify::new(NotifyType::IKEV2_MESSAGE_ID_SYNC, data);
            assert_eq!(Ids::of(&Payloads(vec![Payload::Notify(notify)])), None);
        }
    }
}
