//! Informational exchanges (RFC 2409 §5.7): what is deleted, what is wrong, and whether the peer is there (RFC 3706). Each is one
//! message, which nobody answers, but for the last: an answer that is lost is said again when the question comes again.

use super::{
    ike_sa::{IkeSa, Legacy},
    messages::{Message, Raw},
    phase_1::ANOTHER_MS,
};
use crate::{
    child::{ChildError, ChildSa, EndedBy},
    closed::Closed,
    context::Context,
    ike_sa::Phase,
    message::{
        ExchangeType, Protocol,
        isakmp::{self, Delete, Notify, NotifyType, Payload},
    },
    retransmission::Open,
    v2::channel::Dropped,
};

const EXCHANGE: ExchangeType = ExchangeType::INFORMATIONAL_V1;

/// Whether the peer is there (RFC 3706 §6).
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// The number of our last question.
    seq: Option<u32>,
    /// What is not answered.
    pub open: Option<Open>,
    /// Since when.
    pub since_ms: u64,
    /// The number of the peer's last question.
    theirs: Option<u32>,
}

impl IkeSa {
    /// A message with a HASH payload in front.
    pub(super) fn informational(&mut self, payloads: Vec<Payload>, cx: &mut Context<'_>) -> Vec<Vec<u8>> {
        let message_id = self.new_message_id(cx);
        let Some(iv) = self.iv_of(message_id) else { return vec![] };
        self.hashed(EXCHANGE, (message_id, iv), &[], payloads).0
    }

    fn tell(&mut self, payloads: Vec<Payload>, cx: &mut Context<'_>) {
        let datagrams = self.informational(payloads, cx);
        self.send(datagrams, self.path, cx);
    }

    /// Deletes a child SA, and tells the peer.
    pub(super) fn delete_child(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        let Some(child) = self.children.iter().find(|child| child.spi_in == spi_in) else { return };
        let delete = |(protocol, spi)| Payload::Delete(Delete::child_sas(protocol, &[spi]));
        let deletes = child.inbound().map(delete).collect();
        self.tell(deletes, cx);
        self.remove_child(spi_in, cx);
    }

    /// Deletes it all, and tells the peer.
    pub(crate) fn delete(&mut self, why: Closed, cx: &mut Context<'_>) {
        if self.last.is_some() && !matches!(self.phase, Phase::Closed(_)) {
            // What is under it need not go with it (RFC 2408 §5.15).
            let all = || self.children.iter().flat_map(ChildSa::inbound);
            let spis =
                |protocol| all().filter(|(of, _)| *of == protocol).map(|(_, spi)| spi).collect::<Vec<_>>();
            for (protocol, spis) in [Protocol::ESP, Protocol::AH].map(|protocol| (protocol, spis(protocol))) {
                if !spis.is_empty() {
                    self.tell(vec![Payload::Delete(Delete::child_sas(protocol, &spis))], cx);
                }
            }
            let delete = Delete::ike_sa(self.spis.initiator, self.spis.responder);
            self.tell(vec![Payload::Delete(delete)], cx);
        }
        self.close(why, cx);
    }

    /// Asks whether the peer is there.
    pub(super) fn ask_liveness(&mut self, cx: &mut Context<'_>) {
        if !self.abilities.dpd || self.liveness.open.is_some() {
            return;
        }
        // RFC 3706 §6.2: random at first, and one more each time.
        let seq = match self.liveness.seq {
            Some(seq) => seq.wrapping_add(1),
            None => u32::from_be_bytes(cx.random()) >> 1,
        };
        let cookies = (self.spis.initiator, self.spis.responder);
        let notify = Notify::of_ike_sa(NotifyType::R_U_THERE, cookies, &seq.to_be_bytes());
        let datagrams = self.informational(vec![Payload::Notify(notify)], cx);
        self.liveness.open = Some(self.opened(&datagrams, cx));
        (self.liveness.seq, self.liveness.since_ms) = (Some(seq), cx.now_ms);
        self.send(datagrams, self.path, cx);
    }

    /// A message came.
    pub(super) fn receive_informational(
        &mut self,
        raw: &Raw<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        if !isakmp::is_encrypted(&raw.header) {
            let message = self.open_clear(raw)?;
            self.hear_anybody(&message, cx);
            return Err(Dropped::Sealing);
        }
        let id = raw.header.message_id;
        if self.is_committing(id) {
            return self.receive_connected(raw, cx);
        }
        let iv = self.iv_of(id).ok_or(Dropped::Sealing)?;
        if !self.message_ids.is_free(id) {
            return Err(Dropped::MessageId(id));
        }
        let message = self.open_sealed(raw, iv)?;
        self.check_hash(id, &[], &message)?;
        self.use_message_id(id, cx);
        self.hear_peer(cx);
        self.note(message.digest);
        for payload in &message.chain.payloads {
            match payload {
                Payload::Delete(delete) => self.hear_delete(delete, cx),
                Payload::Notify(notify) => self.hear_notify(notify, message.digest, cx),
                _ => {}
            }
        }
        Ok(())
    }

    /// What is said in clear, which anybody can: something else is waited for, though not for long. It is never the peer's, so that
    /// nothing is answered to where it came from.
    fn hear_anybody(&mut self, message: &Message, cx: &mut Context<'_>) {
        let error = message.chain.notifies().find(|notify| notify.kind.is_error()).map(|notify| notify.kind);
        // Behind phase 1, the peer says so as nobody else can.
        let may_be_its = self.phase == Phase::Connecting && self.last.is_none() && self.doubt.is_none();
        if let Some(kind) = error.filter(|_| may_be_its) {
            self.doubt = Some(Box::new(Closed::PeerV1(kind)));
            self.deadline_ms = self.deadline_ms.min(cx.now_ms + ANOTHER_MS);
        }
    }

    fn hear_delete(&mut self, delete: &Delete, cx: &mut Context<'_>) {
        match delete.protocol {
            Protocol::IKE => {
                let ours = isakmp::cookies(self.spis.initiator, self.spis.responder);
                if delete.spis.contains(&ours) {
                    self.be_deleted(cx);
                }
            }
            protocol => {
                for spi in &delete.spis {
                    // It names what it receives by, which we send by. Of a bundle, each names both.
                    let is_it = |c: &&ChildSa| c.is_to(protocol, spi);
                    if let Some(spi_in) = self.children.iter().find(is_it).map(|c| c.spi_in) {
                        self.lose_child(spi_in, EndedBy::Peer, cx);
                    }
                }
            }
        }
    }

    /// The peer has deleted it. What is under it goes on under another, if there is one (RFC 2408 §5.15).
    fn be_deleted(&mut self, cx: &mut Context<'_>) {
        match self.heir {
            _ if matches!(self.phase, Phase::Closed(_)) => {}
            _ if self.phase == Phase::Connecting => self.close(Closed::ByPeer, cx),
            Some(heir) => self.be_replaced(heir, cx.now_ms, cx),
            None => {
                (self.phase, self.ends_at_ms) = (Phase::Replaced, cx.now_ms);
                self.legacies.push(Legacy::Deleted);
            }
        }
    }

    fn hear_notify(&mut self, notify: &Notify, digest: [u8; 32], cx: &mut Context<'_>) {
        let cookies = isakmp::cookies(self.spis.initiator, self.spis.responder);
        let seq = || notify.data.first_chunk().map(|seq| u32::from_be_bytes(*seq));
        match notify.kind {
            NotifyType::R_U_THERE if notify.spi == cookies => {
                let Some(seq) = seq() else { return };
                // RFC 3706 §6.2: what is old is said again by somebody else.
                if self.liveness.theirs.is_some_and(|last| (seq.wrapping_sub(last) as i32) < 0) {
                    return;
                }
                self.liveness.theirs = Some(seq);
                let ack = Notify { kind: NotifyType::R_U_THERE_ACK, ..notify.clone() };
                let datagrams = self.informational(vec![Payload::Notify(ack)], cx);
                self.answer(digest, datagrams, cx);
            }
            NotifyType::INITIAL_CONTACT => self.hear_initial_contact(),
            kind if kind.is_error() => {
                // One that is of another says so.
                let spi = notify.spi[..].try_into().ok().map(u32::from_be_bytes);
                if let Some(asking) = self.asking.take_if(|asking| spi.is_none_or(|spi| asking.spis.has(spi)))
                {
                    let (name, replaces) = asking.what();
                    self.child_not_made(name, replaces, &ChildError::PeerV1(kind), cx);
                }
            }
            _ => {}
        }
    }

    /// The peer knows no other with us.
    fn hear_initial_contact(&mut self) {
        if self.connection.unique == crate::connection::Unique::Never || self.note_only() {
            return;
        }
        let others = self.contact_ids().map(|ids| self.contacts.others(&ids, self.id)).unwrap_or_default();
        self.legacies.extend(others.into_iter().map(Legacy::Superseded));
    }
}

crate::kept::keep!(Liveness { seq, open, since_ms, theirs });
