//! Aggressive mode (RFC 2409 §5.1, §5.4): phase 1 in three messages, in which nobody is hidden.
//!
//! ```text
//!  initiator                                  responder
//!  SA, KE, Ni, CR..., IDii, VID... ──▶
//!                                   ◀── SA, KE, Nr, CR..., IDir, CERT..., HASH_R or SIG_R, NAT-D..., VID...
//!  *CERT..., HASH_I or SIG_I, NAT-D... ──▶
//! ```
//!
//! Nobody answers the third message. It is sent again until something of the peer's has come; whoever asks for a child SA without
//! it is told the second again, as who has lost the third.
//!
//! # Dangers
//! Both say who they are where all can read it. HASH_R goes to whoever names somebody, and with it a shared key can be guessed
//! offline: there is none of this by shared keys unless a connection says so by a key that tells it.
//!
//! Whoever names somebody learns nothing of whether there is such a one: nobody's HASH_R is made the same way, by a key that is
//! nobody's, and fails as any other key does, and so does a proof by a signature.
//!
//! The third message may be in clear. Nothing is taken of it then that HASH_I or SIG_I is not over, but for where the peer is, which
//! main mode has in clear, too. Anybody who has seen the cookies can have sent it: one that proves nothing ends nothing, and of each
//! ISAKMP SA a few signatures are checked. Whoever encrypts it has exchanged keys, and is told what is wrong.

use super::{
    ike_sa::{IkeSa, Then},
    messages::{Message, Raw},
    oakley::{self, Suite},
    phase_1::Expects,
    proof::{Proven, Said, requests},
    vendor,
};
use crate::{
    closed::Closed,
    connection::Connection,
    context::Context,
    crypto::{Secret, keys::Role, transform::Prf},
    ike_sa::{Path, Phase},
    job::Job,
    message::{
        ExchangeType, Identification, IkeSpi,
        isakmp::{Chain, Payload, SecurityAssociation, is_encrypted},
    },
    proof::Unproven,
    v2::channel::Dropped,
};
use std::sync::Arc;

pub(super) const EXCHANGE: ExchangeType = ExchangeType::AGGRESSIVE;

/// Signatures of third messages in clear that are checked, at most.
const MOST_CHECKS: u8 = 4;

/// Who the peer says to be, as long as it has not proven it.
#[derive(Debug)]
pub(super) struct Named {
    pub theirs: Identification,
    /// Some connection is for it, and there is a key if it is by one.
    pub is_somebody: bool,
}

/// What is kept of one message for another.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// What a responder has chosen.
    choice: Option<SecurityAssociation>,
    /// What an initiator has still to check.
    second: Option<Message>,
}

/// What a connection can do with a first message. The group cannot be negotiated: it is that of the KE payload (RFC 2409 §5).
pub(super) fn suites(connection: &Connection, chain: &Chain) -> Vec<Suite> {
    let octets = chain.key_exchange().map(<[u8]>::len);
    let all = oakley::suites(connection, Role::Responder).into_iter();
    all.filter(|suite| Some(suite.group.initiator_len()) == octets).collect()
}

/// Whether a first message has all that it must have.
pub(super) fn is_whole(chain: &Chain) -> bool {
    chain.key_exchange().is_some() && chain.nonce().is_some() && chain.identification().is_some()
}

/// A key that is nobody's, by a secret: the same each time that somebody is named.
fn key_of_nobody(secret: &Secret, theirs: &Identification) -> Secret {
    Prf::HmacSha256.mac(secret.bytes(), &[&theirs.body()])
}

impl IkeSa {
    /// Whether phase 1 is in aggressive mode.
    pub(super) fn is_aggressive(&self) -> bool {
        self.connection.is_aggressive()
    }

    /// The first message, now that there is a private key.
    pub(super) fn say_first(&mut self, cx: &mut Context<'_>) {
        let (mine, theirs) = (self.connection.identity(self.path.local.ip()), self.expected_peer());
        let Some(suites) = self.phase_1.as_ref().map(|phase_1| &phase_1.suites) else { return };
        let sa = Payload::SecurityAssociation(oakley::offer(suites, self.life_secs()));
        let requests = requests([&self.connection].into_iter());
        let id = Payload::Identification(mine.clone());
        let payloads =
            [vec![sa], self.ke_payloads(), requests, vec![id], vendor::payloads(&self.connection)].concat();
        self.ids = Some((mine, theirs));
        self.phase_1.iter_mut().for_each(|phase_1| phase_1.expects = Expects::Sa);
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        self.ask(datagrams, cx);
    }

    /// A message came.
    pub(super) fn receive_aggressive(&mut self, raw: &Raw<'_>, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let phase_1 = self.phase_1.as_ref();
        if phase_1.is_none() && self.role == Role::Responder && self.phase == Phase::Connecting {
            let message = self.open_clear(raw)?;
            return self.answer_first(&message, cx);
        }
        let (expects, iv) = phase_1.map_or((Expects::Nothing, None), |p| (p.expects, p.iv));
        match (expects, self.role) {
            (Expects::Sa, Role::Initiator) => {
                let message = self.open_clear(raw)?;
                self.first_answered(raw.header.responder_spi, message, cx)
            }
            (Expects::Proof, Role::Responder) => {
                // RFC 2409 §5.1: it need not be in clear.
                let message = match is_encrypted(&raw.header) {
                    true => self.open_sealed(raw, iv.ok_or(Dropped::Sealing)?),
                    false => self.open_clear(raw),
                };
                let checked = message.and_then(|message| self.check_peer(message, cx));
                self.doubt_key(checked.is_err(), cx);
                checked
            }
            _ => Err(Dropped::MessageId(0)),
        }
    }

    /// A responder has the first message, for a connection that what was agreed on is of.
    fn answer_first(&mut self, message: &Message, cx: &mut Context<'_>) -> Result<(), Dropped> {
        let theirs = message.chain.identification().ok_or(Dropped::Sealing)?.clone();
        let answer = self.take_offer(message, &suites(&self.connection, &message.chain))?;
        let public = self.take_ke(message)?;
        let is_somebody = self.name(&theirs, cx);
        let Some(phase_1) = &mut self.phase_1 else { return Ok(()) };
        phase_1.named = Some(Named { theirs, is_somebody });
        phase_1.kept.choice = Some(answer);
        if let Some(group) = self.suite.as_ref().map(|suite| suite.group) {
            self.after(Job::Respond(group, public), Then::KeAnswer, cx);
        }
        Ok(())
    }

    /// Takes the connection and the key for who the peer says to be; of nobody's, those that are made up. The same is done for both.
    fn name(&mut self, theirs: &Identification, cx: &Context<'_>) -> bool {
        let secret = self.secret.take().unwrap_or_else(|| Secret::copy_of(&[]));
        let made_up = key_of_nobody(&secret, theirs);
        // As many names of ours are said to nobody as there are.
        let all = self.connections(cx);
        let number = made_up.bytes().first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets));
        let any = all.get(number as usize % all.len().max(1)).unwrap_or(&self.connection).clone();
        let found = self.connections_of(theirs, &all, cx).into_iter().next();
        let is_somebody = found.is_some();
        let (connection, mine) = found.unwrap_or_else(|| (any.clone(), any.identity(self.path.local.ip())));
        let key = cx.config.shared_key(&mine, theirs).filter(|_| is_somebody).unwrap_or(&made_up);
        let is_by_key = self.suite.as_ref().is_some_and(|suite| suite.is_by_key());
        let key = is_by_key.then(|| Secret::copy_of(key.bytes()));
        self.phase_1.iter_mut().for_each(|phase_1| phase_1.shared = key.clone());
        self.connection = connection;
        is_somebody
    }

    /// The second message, with our proof.
    pub(super) fn say_second(&mut self, proof: Vec<Payload>, cx: &mut Context<'_>) {
        let connections = cx.config.between_v1(self.path.local, self.path.peer, true);
        let (ke, nat_d) = (self.ke_payloads(), self.nat_payloads());
        let Some(phase_1) = &mut self.phase_1 else { return };
        let choice = phase_1.kept.choice.take().map(Payload::SecurityAssociation).into_iter().collect();
        let payloads =
            [choice, ke, requests(connections.iter()), proof, nat_d, vendor::payloads(&self.connection)]
                .concat();
        phase_1.expects = Expects::Proof;
        let request = phase_1.request;
        let datagrams = self.clear(EXCHANGE, 0, &payloads);
        self.answer(request, datagrams, cx);
    }

    /// The responder has chosen, and says who it is.
    fn first_answered(
        &mut self,
        responder: IkeSpi,
        message: Message,
        cx: &mut Context<'_>,
    ) -> Result<(), Dropped> {
        let theirs = message.chain.identification().filter(|_| is_whole(&message.chain));
        let theirs = theirs.ok_or(Dropped::Sealing)?.clone();
        if let Err(closed) = self.whom_we_asked(&theirs, cx) {
            self.wait_for_another(closed, cx);
            return Ok(());
        }
        if !self.take_choice(responder, &message, cx)? {
            return Ok(());
        }
        let public = self.take_ke(&message)?;
        let Some(phase_1) = &mut self.phase_1 else { return Ok(()) };
        phase_1.named = Some(Named { theirs, is_somebody: true });
        phase_1.kept.second = Some(message);
        if let Some(private) = phase_1.private.take() {
            self.after(Job::Finish(private, public), Then::KeFinish, cx);
        }
        Ok(())
    }

    /// There are keys: checks the responder's proof.
    pub(super) fn check_second(&mut self, cx: &mut Context<'_>) {
        let Some(message) = self.phase_1.as_mut().and_then(|p| p.kept.second.take()) else { return };
        if self.check_peer(message, cx).is_err() {
            let who = self.expected_peer().to_string();
            self.refuse_peer(Closed::Authentication { who, why: Unproven::SharedKey }, cx);
        }
    }

    /// The responder has proven who it is: so do we.
    pub(super) fn ask_third(&mut self, said: Said, cx: &mut Context<'_>) {
        self.float();
        self.prove(Proven { ids: said.ids.clone(), said: Some(said) }, cx);
    }

    /// The third message, with our proof.
    pub(super) fn say_third(&mut self, said: &Said, mut payloads: Vec<Payload>, cx: &mut Context<'_>) {
        let Some(iv) = self.phase_1.as_ref().and_then(|phase_1| phase_1.iv) else { return };
        payloads.extend(self.nat_payloads());
        payloads.extend(self.initial_contact(&said.ids));
        let (datagrams, next) = self.sealed(EXCHANGE, 0, iv, &payloads);
        self.answer_path = self.path;
        let open = self.opened(&datagrams, cx);
        self.answer(said.digest, datagrams, cx);
        self.establish(said, next, cx);
        self.open = Some(open);
    }

    /// Whether a third message is one that anybody can have sent.
    pub(super) fn is_anybodys(&self, said: &Said) -> bool {
        self.role == Role::Responder && self.is_aggressive() && said.next.is_none()
    }

    /// The signature of a third message that anybody can have sent is to be checked, unless there were enough of them.
    pub(super) fn may_check(&mut self) -> Result<(), Dropped> {
        let phase_1 = self.phase_1.as_mut().filter(|phase_1| phase_1.checks < MOST_CHECKS);
        phase_1.ok_or(Dropped::MessageId(0))?.checks += 1;
        Ok(())
    }

    /// It was not the peer's: the peer's is waited for.
    pub(super) fn wait_for_third(&mut self, why: Closed) {
        self.doubt = Some(Box::new(why));
        self.phase_1.iter_mut().for_each(|phase_1| phase_1.expects = Expects::Proof);
    }

    /// The third message has come, with the initiator's proof.
    pub(super) fn take_third(&mut self, said: &Said, cx: &mut Context<'_>) {
        let iv = said.next.or_else(|| self.phase_1.as_ref().and_then(|phase_1| phase_1.iv));
        let Some(last) = iv else { return };
        self.note(said.digest);
        self.path = self.answer_path;
        self.establish(said, last, cx);
    }

    /// The peer goes on, and its third message has not come: it is told the second again.
    pub(super) fn say_second_again(&mut self, path: Path, cx: &mut Context<'_>) {
        let awaits = self.phase_1.as_ref().filter(|phase_1| phase_1.expects == Expects::Proof);
        let request = awaits.filter(|_| self.is_aggressive()).map(|phase_1| phase_1.request);
        let datagrams = request.and_then(|request| self.said_again(request, path));
        datagrams.into_iter().for_each(|datagrams| self.send(datagrams, path, cx));
    }

    /// The connections for an initiator by where it is and by what was agreed on.
    pub(super) fn connections(&self, cx: &Context<'_>) -> Vec<Arc<Connection>> {
        let Some(suite) = &self.suite else { return vec![] };
        let is_one = |one: &Suite| {
            let is_alike = (one.method, one.user) == (suite.method, suite.user);
            is_alike && one.agreement.transforms().eq(suite.agreement.transforms())
        };
        let mut all = cx.config.between_v1(self.path.local, self.path.peer, self.is_aggressive());
        all.retain(|connection| oakley::suites(connection, self.role).iter().any(is_one));
        all
    }
}
