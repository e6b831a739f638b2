//! Several rounds of authentication (RFC 4739): an end proves more than once who it is, by a certificate and then by EAP, say.
//!
//! ```text
//!  initiator                                                         responder
//!  IKE_SA_INIT                                                ──▶
//!                                                             ◀──    N(MULTIPLE_AUTH_SUPPORTED)
//!  IKE_AUTH  IDi, AUTH, SAi2, TSi, TSr,
//!            N(MULTIPLE_AUTH_SUPPORTED), N(ANOTHER_AUTH_FOLLOWS)  ──▶
//!                                                             ◀──    IDr, AUTH, [N(ANOTHER_AUTH_FOLLOWS)]
//!  IKE_AUTH  IDi, AUTH; or IDi, and then EAP                  ──▶
//!                                                             ◀──    [IDr, AUTH], SAr2, TSi, TSr
//! ```
//!
//! Each message has the next round of the end that it is of, as long as it has one; who has none left and waits for the other's
//! says nothing. What is not about who they are is in the first request and in the last response. The first round says who the
//! ends are to each other, which others may be known by: an IKE SA is theirs.

use super::{
    auth::{Answer, Answering, Asking},
    context::Context,
    eap,
    ike_sa::{Asked, Closed, IkeSa, Then},
    proof::Proof,
};
use crate::{
    connection::{Connection, LocalAuth, RemoteAuth},
    identity::IdPattern,
    message::{
        AuthMethod, Authentication, ExchangeType, Identification, Notify, NotifyType, Payload, Payloads,
    },
};

/// How many rounds are done, of ours and of the peer's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Done {
    pub mine: usize,
    pub theirs: usize,
    /// Our next is by EAP, and we have asked for that.
    pub is_begun: bool,
}

impl Done {
    /// Our next round is said: it is proven with that, or begins.
    pub fn begin(&mut self, is_proven: bool) {
        self.is_begun = !is_proven;
        self.mine += usize::from(is_proven);
    }
}

/// A notify of RFC 4739.
pub(super) fn notify(kind: NotifyType) -> Payload {
    Payload::Notify(Notify::new(kind, &[]))
}

/// Whether the round that a message ends is not the last of its end.
pub(super) fn says_another(payloads: &Payloads) -> bool {
    payloads.has_notify(NotifyType::ANOTHER_AUTH_FOLLOWS)
}

impl Connection {
    /// Our rounds, from 0.
    pub(super) fn local_round(&self, n: usize) -> Option<(&IdPattern, &LocalAuth)> {
        match n.checked_sub(1) {
            None => Some((&self.local_id, &self.local_auth)),
            Some(n) => self.further.local.get(n).map(|round| (&round.id, &round.auth)),
        }
    }

    /// The peer's.
    pub(super) fn remote_round(&self, n: usize) -> Option<(&IdPattern, &RemoteAuth)> {
        match n.checked_sub(1) {
            None => Some((&self.remote_id, &self.remote_auth)),
            Some(n) => self.further.remote.get(n).map(|round| (&round.id, &round.auth)),
        }
    }

    /// Whether an end has more rounds than one.
    pub(super) fn has_rounds(&self) -> bool {
        !self.further.local.is_empty() || !self.further.remote.is_empty()
    }

    /// What of us follows behind so many rounds.
    pub(super) fn another_of(&self, done: Done) -> Option<Payload> {
        self.local_round(done.mine).map(|_| notify(NotifyType::ANOTHER_AUTH_FOLLOWS))
    }
}

impl IkeSa {
    /// Whether the peer has as many rounds as it must, by whether it says that another follows.
    pub(super) fn check_another(
        &self,
        connection: &Connection,
        done: Done,
        payloads: &Payloads,
    ) -> Result<(), Closed> {
        let is_resumed = self.resumed.is_some();
        match (says_another(payloads), connection.remote_round(done.theirs).is_some() && !is_resumed) {
            (false, true) => {
                Err(Closed::Missing("ANOTHER_AUTH_FOLLOWS, and it must prove more than once who it is"))
            }
            (true, false) => {
                Err(Closed::Configured("the peer has more rounds of authentication than are asked of it"))
            }
            _ => Ok(()),
        }
    }

    /// What a responder says of rounds in IKE_SA_INIT: it is not known yet which connection it is.
    pub(super) fn rounds_notify(&self, cx: &Context<'_>) -> Option<Payload> {
        let mut connections = cx.config.between(self.path.local, self.path.peer).into_iter();
        connections.any(|c| c.has_rounds()).then(|| notify(NotifyType::MULTIPLE_AUTH_SUPPORTED))
    }

    /// What an initiator says of them with its first round.
    pub(super) fn rounds_notifies(&self, is_proven: bool) -> Result<Vec<Payload>, Closed> {
        let connection = &self.connection;
        if !connection.has_rounds() || self.resumed.is_some() {
            return Ok(vec![]);
        }
        if !self.init.as_ref().is_some_and(|init| init.takes_rounds) {
            return Err(Closed::Missing(
                "MULTIPLE_AUTH_SUPPORTED, and there is more than one round of authentication",
            ));
        }
        let done = Done { mine: usize::from(is_proven), ..Done::default() };
        let another = connection.another_of(done).filter(|_| is_proven);
        Ok([notify(NotifyType::MULTIPLE_AUTH_SUPPORTED)].into_iter().chain(another).collect())
    }

    /// An initiator begins its next round, or lets the responder go on with its own.
    pub(super) fn ask_round(&mut self, mut asking: Asking, cx: &mut Context<'_>) {
        let connection = self.connection.clone();
        let Some((id, auth)) = connection.local_round(asking.done.mine) else {
            return self.send_round(asking, vec![], cx);
        };
        asking.ids.0 = self.id_of(id, auth);
        if let LocalAuth::Eap(_) = auth {
            asking.done.begin(false);
            let id = Payload::IdInitiator(asking.ids.0.clone());
            return self.send_round(asking, vec![id], cx);
        }
        let proof = self.prove(auth, &asking.ids, cx);
        self.ask_proven(proof, asking, cx);
    }

    /// Asks with a round that is not the first.
    pub(super) fn ask_next(&mut self, mut asking: Asking, proofs: &[Authentication], cx: &mut Context<'_>) {
        let connection = self.connection.clone();
        let mut payloads = vec![Payload::IdInitiator(asking.ids.0.clone())];
        payloads.extend(
            connection
                .local_round(asking.done.mine)
                .into_iter()
                .flat_map(|(_, auth)| self.our_certificates(auth)),
        );
        payloads.extend(proofs.iter().cloned().map(Payload::Authentication));
        asking.done.begin(true);
        payloads.extend(connection.another_of(asking.done));
        self.send_round(asking, payloads, cx);
    }

    /// A round is over, and it is not the last.
    pub(super) fn next_round(&mut self, answer: Answer, cx: &mut Context<'_>) {
        let Answer { ids, first, done, child, .. } = answer;
        self.ask_round(Asking { ids, first: Some(first), done, child, plain: None }, cx);
    }

    /// We have proven by EAP who we are.
    pub(super) fn eap_proven(&mut self, mut answer: Answer, cx: &mut Context<'_>) {
        answer.done.begin(true);
        match self.connection.local_round(answer.done.mine) {
            Some(_) => self.next_round(answer, cx),
            None => self.finish_auth(answer, cx),
        }
    }

    /// Sends a request that is not the first.
    fn send_round(&mut self, asking: Asking, payloads: Vec<Payload>, cx: &mut Context<'_>) {
        self.ask(ExchangeType::IKE_AUTH, &Payloads(payloads), cx);
        self.asked = Some(Asked::Auth(Box::new(asking.into())));
    }

    /// A proof of our next round, if there is one left.
    pub(super) fn prove_round(
        &mut self,
        answering: &mut Answering,
        cx: &mut Context<'_>,
    ) -> Result<Proof, Closed> {
        let connection = answering.connection.clone();
        let Some((id, auth)) = connection.local_round(answering.done.mine) else {
            return Ok(Proof::Made(vec![]));
        };
        if answering.done.mine > 0 {
            answering.ids.0 = self.id_of(id, auth);
        }
        self.prove(auth, &answering.ids, cx)
    }

    /// A responder has another round of the initiator, or is to go on with its own.
    pub(super) fn answer_round(
        &mut self,
        mut answering: Answering,
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) {
        let connection = answering.connection.clone();
        let Some((id, auth)) = connection.remote_round(answering.done.theirs) else {
            return self.prove_too(answering, cx);
        };
        let checked = payloads.id_initiator().ok_or(Closed::Missing("IDi payload")).and_then(|theirs| {
            let (found, wanted) = (theirs.to_string(), id.to_string());
            id.fits(theirs).ok_or(Closed::Identity { found, wanted })?;
            answering.ids.1 = theirs.clone();
            let ids = (&answering.ids.0, theirs);
            match (auth, payloads.authentication()) {
                (RemoteAuth::Eap(_), None) => Ok(None),
                (_, Some(said)) => Ok(Some(self.check(auth, ids, said, payloads, cx)?)),
                (_, None) => Err(Closed::Missing("AUTH payload")),
            }
        });
        match checked {
            Ok(None) => self.begin_eap(answering, cx),
            Ok(Some(job)) => {
                answering.done.theirs += 1;
                match (self.check_another(&connection, answering.done, payloads), job) {
                    (Err(closed), _) => self.refuse_initiator(closed, cx),
                    (Ok(()), Some(job)) => self.after(job, Then::AuthVerified(Box::new(answering)), cx),
                    (Ok(()), None) => self.prove_too(answering, cx),
                }
            }
            Err(closed) => self.refuse_initiator(closed, cx),
        }
    }

    /// Whether a responder and its initiator have all their rounds behind them, by what is in the answer.
    pub(super) fn is_last(&self, answering: &Answering) -> bool {
        let Answering { connection, done, .. } = answering;
        let is_left =
            connection.local_round(done.mine).is_some() || connection.remote_round(done.theirs).is_some();
        self.resumed.is_some() || !is_left
    }

    /// A responder answers a round that is not the last.
    pub(super) fn await_round(&mut self, answering: Answering, answer: Vec<Payload>, cx: &mut Context<'_>) {
        self.answer(ExchangeType::IKE_AUTH, &Payloads(answer), cx);
        self.serving = Some(Box::new(eap::Serving::waiting(answering)));
    }

    /// Who we are in a round.
    pub(super) fn id_of(&self, id: &IdPattern, auth: &LocalAuth) -> Identification {
        id.identity().unwrap_or_else(|| self.id_by(auth))
    }
}

/// Errors about the child SA alone, which leave the IKE SA as it is (RFC 7296 §2.21.2).
const OF_CHILD: [NotifyType; 5] = [
    NotifyType::NO_PROPOSAL_CHOSEN,
    NotifyType::TS_UNACCEPTABLE,
    NotifyType::SINGLE_PAIR_REQUIRED,
    NotifyType::INTERNAL_ADDRESS_FAILURE,
    NotifyType::FAILED_CP_REQUIRED,
];

/// What a responder refuses the initiator with.
pub(super) fn refusal(payloads: &Payloads) -> Option<NotifyType> {
    payloads.error().map(|notify| notify.kind).filter(|kind| !OF_CHILD.contains(kind))
}

/// Whether a method could be that of a first round.
pub(super) fn begins_by(auth: &RemoteAuth, method: Option<AuthMethod>) -> bool {
    method.map_or(auth.is_eap(), |method| auth.takes(method))
}
