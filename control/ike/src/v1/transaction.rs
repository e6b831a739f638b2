//! Transaction exchanges (draft-dukes-ike-mode-cfg-02 §3): what an end asks for or sets, and what the other answers.
//!
//! ```text
//!  *HASH, ATTR(REQUEST or SET) ──▶
//!                              ◀── *HASH, ATTR(REPLY or ACK)
//! ```
//!
//! By them users prove who they are ([`xauth`](super::xauth)), and addresses are given ([`mode_config`](super::mode_config)). Who
//! begins sends again until it is answered, and what comes again is answered the same. Each is an exchange of its own; some go on in
//! one that they have begun, which is taken.

use super::{
    ike_sa::IkeSa,
    keys::Iv,
    messages::{Message, Raw},
};
use crate::{
    closed::Closed,
    context::Context,
    kept::keep,
    message::{
        Attribute, ExchangeType,
        isakmp::{Attributes, AttributesType, Payload},
    },
    retransmission::Open,
    v2::channel::Dropped,
};

const EXCHANGE: ExchangeType = ExchangeType::TRANSACTION;

/// Those of an ISAKMP SA.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Ours that is not answered.
    pub ours: Option<Asked>,
    /// The peer's last one, which it may go on with: its message ID, and the IV of its next message.
    theirs: Option<(u32, Iv)>,
}

/// What we have asked or set.
#[derive(Debug)]
pub(super) struct Asked {
    message_id: u32,
    iv: Iv,
    kind: AttributesType,
    is_of_user: bool,
    pub open: Open,
}

/// What is said to what the peer has asked or set, and what comes behind it.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub all: Vec<Attribute>,
    pub then: Option<Result<(), Closed>>,
}

/// What answers it.
fn answer_to(kind: AttributesType) -> Option<AttributesType> {
    match kind {
        AttributesType::ISAKMP_CFG_REQUEST => Some(AttributesType::ISAKMP_CFG_REPLY),
        AttributesType::ISAKMP_CFG_SET => Some(AttributesType::ISAKMP_CFG_ACK),
        _ => None,
    }
}

impl IkeSa {
    /// Begins one.
    pub(super) fn transact(&mut self, mut attributes: Attributes, cx: &mut Context<'_>) {
        let message_id = self.new_message_id(cx);
        let Some(iv) = self.iv_of(message_id) else { return };
        attributes.identifier = message_id as u16;
        let (kind, is_of_user) = (attributes.kind, attributes.is_of_user());
        let payloads = vec![Payload::Attributes(attributes)];
        let (datagrams, iv) = self.hashed(EXCHANGE, (message_id, iv), &[], payloads);
        let open = self.opened(&datagrams, cx);
        self.send(datagrams, self.path, cx);
        self.transactions.ours = Some(Asked { message_id, iv, kind, is_of_user, open });
    }

    /// A message came.
    pub(super) fn receive_transaction(&mut self, raw: &Raw<'_>, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let id = raw.header.message_id;
        let fresh = self.iv_of(id).filter(|_| id != 0).ok_or(Dropped::MessageId(id))?;
        let ours = self.transactions.ours.as_ref().filter(|asked| asked.message_id == id);
        let theirs = self.transactions.theirs.filter(|(theirs, _)| *theirs == id);
        let iv = match (ours, theirs) {
            (Some(asked), _) => asked.iv,
            (None, Some((_, iv))) => iv,
            _ if self.message_ids.is_free(id) => fresh,
            _ => return Err(Dropped::MessageId(id)),
        };
        let is_answer = ours.is_some();
        let message = self.open_sealed(raw, iv)?;
        self.check_hash(id, &[], &message)?;
        match is_answer {
            true => self.transaction_answered(&message, cx),
            false => self.answer_transaction(id, &message, cx),
        }
    }

    fn transaction_answered(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let attributes = message.chain.attributes().ok_or(Dropped::Sealing)?;
        let is_it = |asked: &mut Asked| answer_to(asked.kind) == Some(attributes.kind);
        let asked = self.transactions.ours.take_if(is_it).ok_or(Dropped::Exchange)?;
        self.hear_peer(cx);
        self.note(message.digest);
        match (asked.is_of_user, asked.kind) {
            (true, AttributesType::ISAKMP_CFG_REQUEST) => self.hear_user(attributes, cx),
            (true, _) => self.status_known(cx),
            (false, AttributesType::ISAKMP_CFG_REQUEST) => _ = self.learn_configuration(attributes, cx),
            (false, _) => {}
        }
        Ok(())
    }

    fn answer_transaction(
        &mut self,
        id: u32,
        message: &Message,
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        let attributes = message.chain.attributes().ok_or(Dropped::Sealing)?;
        let (kind, next) = answer_to(attributes.kind).zip(message.next).ok_or(Dropped::Exchange)?;
        let is_request = attributes.kind == AttributesType::ISAKMP_CFG_REQUEST;
        let answer = match (attributes.is_of_user(), is_request) {
            (true, true) => self.say_user(attributes, cx),
            (true, false) => self.hear_status(attributes),
            (false, true) => self.give(attributes, cx),
            (false, false) => self.be_told(attributes, cx),
        };
        // Where it is not its turn, it comes again.
        let Answer { all, then } = answer.ok_or(Dropped::Early)?;
        if self.message_ids.is_free(id) {
            self.use_message_id(id, cx);
        }
        self.hear_peer(cx);
        let said = Attributes { kind, identifier: attributes.identifier, all };
        let (datagrams, iv) = self.hashed(EXCHANGE, (id, next), &[], vec![Payload::Attributes(said)]);
        self.transactions.theirs = Some((id, iv));
        self.answer(message.digest, datagrams, cx);
        match then {
            Some(Ok(())) => self.conclude_user(cx),
            Some(Err(why)) => self.delete(why, cx),
            None => {}
        }
        Ok(())
    }
}

keep!(Transactions { ours, theirs });
keep!(Asked { message_id, iv, kind, is_of_user, open });
