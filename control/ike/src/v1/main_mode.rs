//! Main mode (RFC 2409 §5): phase 1, in which identities are encrypted.
//!
//! ```text
//!  initiator                                  responder
//!  SA, VID... ──▶
//!                                   ◀── SA, VID...
//!  KE, Ni, NAT-D... ──▶
//!                                   ◀── KE, Nr, CR..., NAT-D...
//!  *IDii, CERT..., HASH_I or SIG_I ──▶
//!                                   ◀── *IDir, CERT..., HASH_R or SIG_R
//! ```
//!
//! # Dangers
//! Who answers needs the shared key before it knows who asks: it is that of the connection that the addresses fit best. All in
//! front of the last two messages is in clear, and anybody can have sent it.

use super::{
    ike_sa::{IkeSa, Then},
    messages::{Message, Raw},
    oakley,
    phase_1::Expects,
    proof::requests,
    vendor,
};
use crate::{
    context::Context,
    crypto::keys::Role,
    ike_sa::Phase,
    job::Job,
    message::{ExchangeType, IkeSpi, isakmp::Payload},
    v2::channel::Dropped,
};

pub(super) const EXCHANGE: ExchangeType = ExchangeType::IDENTITY_PROTECTION;

impl IkeSa {
    /// The first message.
    pub(super) fn say_sa(&mut self, sa: Payload, cx: &mut Context<'_>) {
        self.phase_1.iter_mut().for_each(|phase_1| phase_1.expects = Expects::Sa);
        let payloads = [vec![sa], vendor::payloads(&self.connection)].concat();
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        self.ask(datagrams, cx);
    }

    /// A message came.
    pub(super) fn receive_main(&mut self, raw: &Raw<'_>, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let phase_1 = self.phase_1.as_ref();
        if phase_1.is_none() && self.role == Role::Responder && self.phase == Phase::Connecting {
            let message = self.open_clear(raw)?;
            return self.answer_sa(&message, cx);
        }
        let (expects, iv) = phase_1.map_or((Expects::Nothing, None), |p| (p.expects, p.iv));
        match (expects, self.role) {
            (Expects::Sa, Role::Initiator) => {
                let message = self.open_clear(raw)?;
                self.sa_answered(raw.header.responder_spi, &message, cx)
            }
            (Expects::Ke, role) => {
                let message = self.open_clear(raw)?;
                match role {
                    Role::Initiator => self.ke_answered(&message, cx),
                    Role::Responder => self.answer_ke(&message, cx),
                }
            }
            (Expects::Proof, _) => {
                let message = self.open_sealed(raw, iv.ok_or(Dropped::Sealing)?);
                let checked = message.and_then(|message| self.check_peer(message, cx));
                self.doubt_key(checked.is_err(), cx);
                checked
            }
            _ => Err(Dropped::MessageId(0)),
        }
    }

    /// A responder has the first message, for its connection.
    fn answer_sa(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let answer = self.take_offer(message, &oakley::suites(&self.connection, self.role))?;
        let payloads =
            [vec![Payload::SecurityAssociation(answer)], vendor::payloads(&self.connection)].concat();
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        self.answer(message.digest, datagrams, cx);
        Ok(())
    }

    /// The responder has chosen.
    fn sa_answered(
        &mut self,
        responder: IkeSpi,
        message: &Message,
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        if self.take_choice(responder, message, cx)? {
            self.note(message.digest);
            if let Some(group) = self.suite.as_ref().map(|suite| suite.group) {
                self.after(Job::Generate(group), Then::KeAsk, cx);
            }
        }
        Ok(())
    }

    /// KE, our nonce, whose certificates are wanted, and where we are.
    pub(super) fn say_ke(&mut self, cx: &mut Context<'_>) {
        // A responder does not know yet which of these it is.
        let connections = match self.role {
            Role::Initiator => vec![self.connection.clone()],
            Role::Responder => cx.config.between_v1(self.path.local, self.path.peer, false),
        };
        let payloads = [self.ke_payloads(), requests(connections.iter()), self.nat_payloads()].concat();
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        let Some(phase_1) = &mut self.phase_1 else { return };
        match self.role {
            Role::Initiator => {
                phase_1.expects = Expects::Ke;
                self.ask(datagrams, cx);
            }
            Role::Responder => {
                phase_1.expects = Expects::Proof;
                let request = phase_1.request;
                self.answer(request, datagrams, cx);
            }
        }
    }

    /// An initiator's key came.
    fn answer_ke(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let Some(group) = self.suite.as_ref().map(|suite| suite.group) else { return Ok(()) };
        let public = self.take_ke(message)?;
        self.after(Job::Respond(group, public), Then::KeAnswer, cx);
        Ok(())
    }

    /// The responder's key came.
    fn ke_answered(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let public = self.take_ke(message)?;
        (self.open, self.doubt, self.deadline_ms) = (None, None, u64::MAX);
        self.note(message.digest);
        let Some(private) = self.phase_1.as_mut().and_then(|p| p.private.take()) else { return Ok(()) };
        self.after(Job::Finish(private, public), Then::KeFinish, cx);
        Ok(())
    }
}
