//! The commit bit (RFC 2408 §3.1): who has set it says when it has the child SA, by a notification CONNECTED.
//!
//! ```text
//!  initiator                                     responder
//!  *HASH(1), SA, Ni, ... ──▶
//!                                      ◀── *HASH(2), SA, Nr, ..., with the bit
//!  *HASH(3) ──▶
//!                                      ◀── *HASH(4), N(CONNECTED)
//! ```
//!
//! RFC 2408 has CONNECTED in an informational exchange with the message ID of the quick mode; racoon, Windows and z/OS have it as a
//! fourth message of quick mode. We take both, and send the latter, if the initiator has set the bit: then our answer has it, too.
//!
//! An initiator seals by the new SA once CONNECTED has come, or a packet by it has, and sends HASH(3) again and again until then.
//! Not for long: there are responders that set the bit and say nothing. Behind [`COMMIT_MS`] it is as without the bit.
//!
//! # Dangers
//! Nobody authenticates the bit. Whoever sets it in messages under way makes an initiator wait for that long, in which packets go by
//! the SA that is replaced, if there is one.

use super::{
    super::{
        ike_sa::IkeSa,
        keys::Iv,
        messages::{Message, Raw},
    },
    Awaited, EXCHANGE,
};
use crate::{
    context::Context,
    kept::keep,
    message::{
        ExchangeType,
        isakmp::{Notify, NotifyType, Payload},
    },
    output::{ChildChange, Output},
    retransmission::Open,
    traffic_selector::Policy,
    v2::channel::Dropped,
};
use std::sync::Arc;

/// How long CONNECTED is waited for.
pub(in crate::v1) const COMMIT_MS: u64 = 8000;

/// A child SA of ours that the responder has still to say to have.
#[derive(Debug)]
pub(in crate::v1) struct Committing {
    message_id: u32,
    /// Behind HASH(3).
    pub iv: Iv,
    spi_in: u32,
    /// What it is in the place of.
    old: Option<u32>,
    /// HASH(3).
    pub open: Open,
    /// When it is not waited for any longer.
    pub until_ms: u64,
}

impl Committing {
    pub(super) fn new(
        (message_id, iv): (u32, Iv),
        spi_in: u32,
        old: Option<u32>,
        open: Open,
        now_ms: u64,
    ) -> Committing {
        Committing { message_id, iv, spi_in, old, open, until_ms: now_ms + COMMIT_MS }
    }

    /// It is waited for anew.
    pub(in crate::v1) fn anew(&mut self, now_ms: u64) {
        self.open.anew(now_ms);
        self.until_ms = now_ms + COMMIT_MS;
    }
}

impl IkeSa {
    /// The child SA that the responder has still to say to have, by our SPI.
    pub(crate) fn committing(&self) -> Option<u32> {
        self.committing.as_ref().map(|committing| committing.spi_in)
    }

    /// Child SAs that the peer is not known to have yet, by our SPIs: nothing is sent by them.
    pub(crate) fn unknown_children(&self) -> impl Iterator<Item = u32> {
        self.awaited.iter().map(Awaited::spi_in).chain(self.committing())
    }

    /// What child SAs carry: those that are sent by.
    pub(crate) fn carried(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let is_sent_by = |spi_in| self.unknown_children().all(|unknown| unknown != spi_in);
        self.children.iter().filter(move |child| is_sent_by(child.spi_in)).map(|child| &child.policy)
    }

    /// Whether the responder has still to say so, by this message ID.
    pub(in crate::v1) fn is_committing(&self, message_id: u32) -> bool {
        self.committing.as_ref().is_some_and(|committing| committing.message_id == message_id)
    }

    /// Waits for it.
    pub(super) fn await_commit(&mut self, committing: Committing) {
        // If the peer deletes the old one before it says so, the new one is used.
        if let Some(old) = self.children.iter_mut().find(|child| Some(child.spi_in) == committing.old) {
            old.successor = Some(committing.spi_in);
        }
        self.committing = Some(Box::new(committing));
    }

    /// The child SA is gone before.
    pub(in crate::v1) fn forget_commit(&mut self, spi_in: u32) {
        if self.committing.take_if(|committing| committing.spi_in == spi_in).is_some() {
            let old = self.children.iter_mut().filter(|child| child.successor == Some(spi_in));
            old.for_each(|old| old.successor = None);
        }
    }

    /// What leaves goes by the child SA from now on, if one is waited for.
    pub(crate) fn commit(&mut self, cx: &mut Context<'_>) {
        let Some(committing) = self.committing.take() else { return };
        let Committing { spi_in, old, .. } = *committing;
        let up = self.children.iter().find(|child| child.spi_in == spi_in).map(|child| child.is_up(old));
        if let Some(up) = up {
            cx.out.push_back(Output::Child(ChildChange::Use(spi_in)));
            self.child_made(spi_in, (up, old), cx);
        }
    }

    /// A message of such a quick mode, or of an informational exchange that has its message ID.
    pub(in crate::v1) fn receive_connected(
        &mut self,
        raw: &Raw<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        let id = raw.header.message_id;
        let behind = self.committing.as_ref().map(|committing| committing.iv);
        // What an exchange that has another's message ID begins with is said nowhere.
        let fresh = self.iv_of(id).filter(|_| raw.header.exchange == ExchangeType::INFORMATIONAL_V1);
        let opened = |iv: Iv| -> Result<Message, Dropped> {
            let message = self.open_sealed(raw, iv)?;
            self.check_hash(id, &[], &message)?;
            Ok(message)
        };
        let opened = [fresh, behind].into_iter().flatten().map(opened);
        let message = opened.reduce(|one, other| one.or(other)).unwrap_or(Err(Dropped::Sealing))?;
        if !message.chain.notifies().any(|notify| notify.kind == NotifyType::CONNECTED) {
            return Err(Dropped::Exchange);
        }
        self.hear_peer(cx);
        self.note(message.digest);
        self.commit(cx);
        Ok(())
    }

    /// Says that the third message has come, also whenever it comes again.
    pub(super) fn say_connected(
        &mut self,
        awaited: &Awaited,
        iv: Iv,
        request: [u8; 32],
        cx: &mut Context<'_>,
    ) {
        let child = self.children.iter().find(|child| child.spi_in == awaited.spi_in());
        let Some(protocol) = child.map(|child| child.protocol()) else { return self.note(request) };
        let spi = awaited.spi_in().to_be_bytes().to_vec();
        let notify = Notify { protocol, spi, kind: NotifyType::CONNECTED, data: vec![] };
        let payloads = vec![Payload::Notify(notify)];
        let (datagrams, _) = self.hashed(EXCHANGE, (awaited.message_id, iv), &[], payloads);
        self.answer(request, datagrams, cx);
    }
}

keep!(Committing { message_id, iv, spi_in, old, open, until_ms });
