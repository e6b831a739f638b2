//! INFORMATIONAL (RFC 7296 §1.4): whether the other end is there, and what is deleted.

use super::{
    child::EndedBy,
    context::Context,
    ike_sa::{Asked, Closed, IkeSa, Path, Phase, Task},
    mobike::COOKIE2,
};
use crate::message::{Delete, ExchangeType, Notify, NotifyType, Payload, Payloads, Protocol};

/// SPIs that are remembered of those that are deleted too early, at most, and as many more.
const MOST_EARLY: usize = 16;

/// What we have asked.
#[derive(Debug)]
pub(super) enum Question {
    /// Whether the peer is there.
    Liveness,
    /// That a child SA be deleted, by our SPI.
    DeleteChild(u32),
    /// That the IKE SA be deleted.
    Delete,
    /// That the peer send to other addresses.
    Move(Path),
    /// Whether the peer is where it says, which sends this back.
    Routability(Path, [u8; COOKIE2]),
    /// Nothing: the peer was told why there is no IKE SA.
    Refused(Box<Closed>),
}

/// What says that the peer has no IKE SA any more (RFC 7296 §2.21.2, §2.21.3).
pub(super) fn fatal(payloads: &Payloads) -> Option<NotifyType> {
    let kinds = [NotifyType::AUTHENTICATION_FAILED, NotifyType::INVALID_SYNTAX];
    kinds.into_iter().find(|kind| payloads.has_notify(*kind))
}

/// That the IKE SA be deleted.
pub(super) fn delete() -> Payloads {
    Payloads(vec![Payload::Delete(Delete::IKE_SA)])
}

/// Whether the IKE SA is deleted.
pub(super) fn deletes_ike_sa(payloads: &Payloads) -> bool {
    let is_it = |p: &Payload| matches!(p, Payload::Delete(delete) if delete.protocol() == Protocol::IKE);
    payloads.0.iter().any(is_it)
}

impl Question {
    /// What is to be asked again under an IKE SA in the place of this one.
    pub(super) fn moves(&self) -> Option<Task> {
        match self {
            Question::Move(_) => Some(Task::Move),
            Question::Routability(..) => Some(Task::Routability),
            _ => None,
        }
    }

    /// What is to be asked again, if it is not known whether it was heard.
    pub(super) fn again(&self) -> Option<Task> {
        match self {
            Question::DeleteChild(spi_in) => Some(Task::DeleteChild(*spi_in)),
            other => other.moves(),
        }
    }

    /// The child SA that it deletes, by our SPI.
    pub(super) fn deletes(&self) -> Option<u32> {
        match self {
            Question::DeleteChild(spi_in) => Some(*spi_in),
            _ => None,
        }
    }
}

impl IkeSa {
    /// Asks what waits.
    pub(super) fn ask_task(&mut self, task: Task, cx: &mut Context<'_>) {
        let (question, payloads) = match task {
            Task::Liveness => (Question::Liveness, self.liveness_notifies()),
            Task::Move => (Question::Move(self.path()), self.move_notifies(cx)),
            Task::Announce => (Question::Liveness, self.further_notifies(cx)),
            Task::Routability => {
                let cookie = cx.random();
                let notify = Notify::new(NotifyType::COOKIE2, &cookie);
                (Question::Routability(self.path(), cookie), vec![Payload::Notify(notify)])
            }
            Task::Redirect(gateway) => (Question::Liveness, self.redirect_notify_to(&gateway, cx.now_ms)),
            Task::Go(gateway) => return self.go_when_there(gateway, cx),
            Task::Use(spi_in) => return self.use_child(spi_in, cx),
            Task::Rekey => return self.ask_rekey(cx),
            Task::Delete => return self.begin_delete(cx),
            Task::Child(wanted) => return self.ask_child(&wanted, cx),
            Task::Further(config, resource) => return self.ask_further_child(&config, resource, cx),
            Task::RekeyChild(spi_in) => return self.ask_rekey_child(spi_in, cx),
            Task::DeleteOffered(spi_in) => {
                let delete = Delete::child_sas(Protocol::ESP, &[spi_in]).map(Payload::Delete);
                (Question::Liveness, delete.into_iter().collect())
            }
            Task::DeleteChild(spi_in) => {
                let protocol = self.children.iter().find(|c| c.spi_in == spi_in).map(|c| c.protocol());
                let Some(protocol) = protocol else { return };
                let delete = Delete::child_sas(protocol, &[spi_in]).map(Payload::Delete);
                (Question::DeleteChild(spi_in), delete.into_iter().collect())
            }
        };
        self.ask(ExchangeType::INFORMATIONAL, &Payloads(payloads), cx);
        self.asked = Some(Asked::Informational(question));
    }

    /// Asks that the IKE SA be deleted.
    pub(super) fn begin_delete(&mut self, cx: &mut Context<'_>) {
        (self.phase, self.deadline_ms) = (Phase::Closing, u64::MAX);
        self.let_claim_go();
        self.ask(ExchangeType::INFORMATIONAL, &delete(), cx);
        self.asked = Some(Asked::Informational(Question::Delete));
    }

    /// The peer has answered.
    pub(super) fn informational_answered(
        &mut self,
        question: Question,
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) {
        match question {
            Question::Liveness => self.notice_mapping(payloads, cx),
            Question::Move(path) => self.move_answered(path, payloads, cx),
            Question::Routability(path, cookie) => self.routability_answered(path, cookie, payloads, cx),
            Question::DeleteChild(spi_in) => self.remove_child(spi_in, cx),
            Question::Delete => self.close(Closed::ByUs, cx),
            Question::Refused(why) => self.close(*why, cx),
        }
    }

    /// The peer asks.
    pub(super) fn answer_informational(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let deletes = || {
            payloads.0.iter().filter_map(|payload| match payload {
                Payload::Delete(delete) => Some(delete),
                _ => None,
            })
        };
        // RFC 7296 §1.4.1: with it go its children, and the answer is empty.
        if deletes_ike_sa(payloads) {
            self.answer(ExchangeType::INFORMATIONAL, &Payloads::default(), cx);
            // RFC 7296 §2.8.2: what we have put in its place is there at the peer, and for us to delete if it has lost.
            self.is_deleted = self.is_finishing_rekey();
            if !self.is_deleted {
                self.close(Closed::ByPeer, cx);
            }
            return;
        }
        if let Some(kind) = fatal(payloads) {
            self.answer(ExchangeType::INFORMATIONAL, &Payloads::default(), cx);
            return self.close(self.refused_by(kind), cx);
        }
        let mut answer = vec![];
        for delete in deletes() {
            // It names what it receives by, which we send by; we name the other of each pair. What we have asked to be
            // deleted ourselves is not named (RFC 7296 §1.4.1).
            let of = |spi: &u32| {
                self.children.iter().find(|c| c.spi_out == *spi && c.protocol() == delete.protocol())
            };
            if self.is_asking_child() && self.early_deletes.len() < MOST_EARLY {
                self.early_deletes.extend(delete.spis().filter(|spi| of(spi).is_none()).take(MOST_EARLY));
            }
            let gone: Vec<u32> = delete.spis().filter_map(|spi| of(&spi).map(|c| c.spi_in)).collect();
            let ours = match &self.asked {
                Some(Asked::Informational(question)) => question.deletes(),
                _ => None,
            };
            let is_ours = |spi: &u32| ours == Some(*spi);
            let named: Vec<u32> = gone.iter().copied().filter(|spi| !is_ours(spi)).collect();
            if !named.is_empty() {
                answer.extend(Delete::child_sas(delete.protocol(), &named).map(Payload::Delete));
            }
            for spi_in in gone {
                // The peer does without what it has put in the place of another, which goes on.
                match self.keep_replaced(|child| child.successor == Some(spi_in), cx) {
                    true => self.remove_child(spi_in, cx),
                    false => self.lose_child(spi_in, EndedBy::Peer, cx),
                }
            }
        }
        self.learn_lifetime(payloads, cx);
        self.redirected(payloads, cx);
        answer.extend(self.answer_mobike(payloads, cx));
        self.answer(ExchangeType::INFORMATIONAL, &Payloads(answer), cx);
    }
}
