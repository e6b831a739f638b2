//! An IKE SA, from its first message to its last (RFC 7296 §2).
//!
//! It does one thing at a time each way: one request of ours is under way (`Asked`), one of the peer's is being answered,
//! and at most one [`Job`] is being done for either (`Then`). What else is to be asked waits in [`Task`]s.

mod kept;
mod messages;
mod times;

use super::{
    auth, auth_puzzle,
    channel::{Channel, Content},
    child::{ChildError, ChildSa, EndedBy, Wanted},
    contacts::{Contacts, Ids},
    context::Context,
    create_child, eap,
    followup::{self, Series},
    id_sync::Syncing,
    informational, intermediate,
    job::{Job, Outcome},
    mobike::Mobike,
    nat::Nat,
    output::{Event, JobId, Output},
    reauth::{Lifetime, Reauthenticates},
    redirect::{self, Gateway, Redirection},
    rekey_ike::{self, Legacy},
    resumption::{self, Resumed, Ticket},
    sa_init::{self, Init},
    ticket::TicketKeys,
};
use crate::{
    child,
    connection::{Child, Connection},
    crypto::keys::{Keys, Role, Spis},
    eap::{Peer, identification},
    given::Given,
    message::{IdType, Identification},
    pool::Leases,
    proposal::Agreement,
};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use zeroize::Zeroizing;

pub use crate::{
    closed::Closed,
    ike_sa::{IkeSaId, Path, Phase},
};

/// What is still to be asked.
#[derive(Clone, Debug)]
pub enum Task {
    /// Whether the peer is there (RFC 7296 §2.4).
    Liveness,
    /// That a child SA be deleted, by our SPI.
    DeleteChild(u32),
    /// The same of one that only the peer has, of ESP.
    DeleteOffered(u32),
    /// That the IKE SA be deleted.
    Delete,
    /// That the peer send to other addresses (RFC 4555 §3.5).
    Move,
    /// Nothing: the peer is told where we are besides (RFC 4555 §3.6).
    Announce,
    /// Whether the peer is where it says (RFC 4555 §3.7).
    Routability,
    /// For a further child SA.
    Child(Wanted),
    /// For a further child SA like one that is there, for a resource (RFC 9611).
    Further(Arc<Child>, u32),
    /// That the peer go to another gateway (RFC 5685).
    Redirect(Gateway),
    /// Nothing: we go to another gateway, once it is known where that is (RFC 5685).
    Go(Gateway),
    /// Nothing: a child SA is sent by, by our SPI.
    Use(u32),
    /// For a child SA in the place of one, by our SPI (RFC 7296 §2.8).
    RekeyChild(u32),
    /// For an IKE SA in the place of this one.
    Rekey,
}

/// Our request that is under way.
#[derive(Debug)]
pub(super) enum Asked {
    Init(Box<sa_init::Question>),
    Resume(Box<resumption::Question>),
    Intermediate(Box<intermediate::Question>),
    Auth(Box<auth::Question>),
    Eap(Option<Box<Peer>>, Box<eap::Wanting>),
    Child(Box<create_child::Question>),
    Rekey(Box<rekey_ike::Question>),
    FollowUp(Box<followup::Question>),
    Informational(informational::Question),
}

/// What comes when a job is done.
#[derive(Debug)]
pub(super) enum Then {
    InitAsk(Box<sa_init::Asking>),
    InitSolve(Box<sa_init::Question>),
    InitFinish(Box<sa_init::Answer>),
    InitAnswer(Box<sa_init::Answering>),
    InitSecret(Box<(Agreement, Init)>),
    IntermediateAsk,
    IntermediateFinish(Box<intermediate::Exchange>),
    IntermediateAnswer(Box<intermediate::Said>),
    ChildAsk(Box<create_child::Asking>),
    ChildFinish(Box<create_child::Answer>),
    ChildAnswer(Box<create_child::Answering>),
    RekeyAsk(rekey_ike::Asking),
    RekeyFinish(Box<rekey_ike::Agreed>),
    RekeyAnswer(Box<rekey_ike::Agreed>),
    FollowUpAsk(Box<Series>),
    FollowUpFinish(Box<Series>),
    FollowUpAnswer(Box<Series>),
    AuthSolve,
    AuthAsk(Box<auth::Asking>),
    AuthFinish(Box<auth::Answer>),
    AuthVerified(Box<auth::Answering>),
    AuthAnswer(Box<auth::Answering>),
    EapBegin(Box<auth::Answering>),
    /// With the octets that the authenticator holds.
    EapAnswer(Box<(auth::Answering, usize)>),
    EapAsk(Box<eap::Wanting>),
    Go(Box<redirect::Sent>),
}

impl Then {
    /// Whether it is for the peer's request.
    fn answers(&self) -> bool {
        use Then::{
            AuthAnswer, AuthVerified, ChildAnswer, EapAnswer, EapBegin, FollowUpAnswer, InitAnswer,
            InitSecret, IntermediateAnswer, RekeyAnswer,
        };
        let is_of_create = matches!(self, ChildAnswer(_) | RekeyAnswer(_) | FollowUpAnswer(_));
        let is_of_auth = matches!(self, AuthVerified(_) | AuthAnswer(_));
        let is_of_auth = is_of_auth || matches!(self, EapBegin(_) | EapAnswer(_));
        is_of_create || is_of_auth || matches!(self, InitAnswer(_) | InitSecret(_) | IntermediateAnswer(_))
    }
}

/// What a message must have that is not critical and unknown (RFC 7296 §2.5).
const KNOWN: &str = "payloads alone that are known or may be skipped";

/// An IKE SA.
#[derive(Debug)]
pub struct IkeSa {
    pub(super) id: IkeSaId,
    pub(super) connection: Arc<Connection>,
    pub(super) channel: Channel,
    pub(super) path: Path,
    /// Where the peer was at first.
    first_peer: SocketAddr,
    /// The way back of the request that is being answered.
    answer_path: Path,
    /// Whether there is a NAT, if the peer can tell.
    pub(super) nat: Option<Nat>,
    /// What there is of MOBIKE.
    pub(super) mobike: Mobike,
    pub(super) phase: Phase,
    pub(super) init: Option<Box<Init>>,
    /// The bits of the puzzle that the initiator has solved to begin, and is to solve once more.
    pub(super) puzzle_bits: Option<u8>,
    /// That puzzle.
    pub(super) unsolved: Option<Box<auth_puzzle::Unsolved>>,
    /// The hashes that the peer takes digital signatures of, if it takes any (RFC 7427 §4).
    pub(super) peer_hashes: Option<Box<[u16]>>,
    pub(super) agreement: Option<Agreement>,
    pub(super) keys: Option<Keys>,
    /// Both ends can use a PPK.
    pub(super) uses_ppk: bool,
    /// A PPK is mixed into its keys.
    pub(super) has_ppk: bool,
    /// EAP under way, of a responder.
    pub(super) serving: Option<Box<eap::Serving>>,
    /// Who the initiator has proven to be in EAP.
    pub(super) eap_id: Option<String>,
    /// Who we are, and who the peer is.
    pub(super) ids: Option<(Identification, Identification)>,
    /// Those of all, while it does something.
    pub(super) contacts: Contacts,
    /// Where its peer is, if it is one of them.
    pub(super) contact_at: Option<IpAddr>,
    /// Who has which addresses of pools, while it does something.
    pub(super) leases: Leases,
    /// When the engine knows it to be due.
    pub(super) noted_due_ms: u64,
    /// Addresses of one end that are of the other's pools.
    pub(super) given: Given,
    /// The peer may begin without a child SA (RFC 6023).
    pub(super) may_be_childless: bool,
    /// The child that is to be made with it.
    pub(super) wanted: Option<Box<Wanted>>,
    pub(super) children: Vec<ChildSa>,
    pub(super) tasks: VecDeque<Task>,
    /// Tasks, and when they are due.
    pub(super) later: Vec<(u64, Task)>,
    /// What the peer has put in the place of the child SA that we are replacing.
    pub(super) rival: Option<create_child::Rival>,
    /// What the peer has deleted before its answer to us said that there is such an SA, by its SPI.
    pub(super) early_deletes: Vec<u32>,
    /// What the peer has asked for, of which it has further keys still to exchange.
    pub(super) awaited: Option<Box<followup::Awaited>>,
    /// The child SA that the peer has asked for last, and until when it may not have heard of it.
    pub(super) answered_child: Option<Box<(u32, u64)>>,
    /// How often on end the peer has forgotten what we have asked for.
    pub(super) forgotten: u8,
    /// Since when both ends are authenticated.
    pub(super) established_ms: Option<u64>,
    /// When this IKE SA is to be replaced.
    pub(super) rekey_at_ms: u64,
    /// We have asked for message IDs to go on with.
    pub(super) syncing: Option<Syncing>,
    /// How often its first messages were given up.
    sequences: u32,
    /// What the peer has said last that it goes on with.
    pub(super) synced: Option<u32>,
    /// What makes tickets, while it does something.
    pub(super) tickets: Option<Box<TicketKeys>>,
    /// What the gateway has given us to come back with.
    pub(super) ticket: Option<Arc<Ticket>>,
    /// What it was before.
    pub(super) resumed: Option<Box<Resumed>>,
    /// What there is of redirection.
    pub(super) redirection: Redirection,
    /// How long it lasts without another authentication.
    pub(super) lifetime: Lifetime,
    /// The first of those that took each other's place.
    pub(super) origin: IkeSaId,
    /// All that took each other's place with new keys hold it, which counts them.
    pub(super) line: Option<Arc<()>>,
    /// What it takes the place of, authenticated anew.
    pub(super) reauthenticates: Option<Box<Reauthenticates>>,
    /// What is to take its place, authenticated anew.
    pub(super) reauthenticated_by: Option<IkeSaId>,
    /// What the peer has put in its place while we were about to.
    pub(super) rival_ike: Option<rekey_ike::Rival>,
    /// Whether it has its child SAs from another still to get.
    pub(super) awaits_estate: bool,
    /// Nothing is asked before, unless the peer is heard: it may have the keys later than we. 0: at any time.
    pub(super) quiet_until_ms: u64,
    /// The peer has deleted it, and what both have asked for is still to be made.
    pub(super) is_deleted: bool,
    /// What it leaves to others.
    pub(super) legacies: Vec<Legacy>,
    pub(super) asked: Option<Asked>,
    /// For what is asked, and for what is answered.
    thens: [Option<Then>; 2],
    /// What we ask, as it is kept while a job is done for what came of its response.
    unanswered: Option<Zeroizing<Vec<u8>>>,
    /// The response to it, while what the peer asked before is being answered: who replaces an SA that the other replaces
    /// decides by what was asked, and not by whose job was done first (RFC 7296 §2.25.1).
    early_response: Option<Box<Content>>,
    /// When the peer last sent something that is its own.
    pub(super) heard_ms: u64,
    /// When we last asked or answered, of a clock that goes round.
    sent_ms: u32,
    /// How long the peer's answer to that, or its next request, took at the beginning.
    pub(super) round_ms: Option<u16>,
    /// When it must be authenticated.
    pub(super) deadline_ms: u64,
    /// What an answer of IKE_SA_INIT said that nobody need believe.
    pub(super) init_error: Option<Box<Closed>>,
}

impl IkeSa {
    /// A new one, which has done nothing.
    pub(super) fn new(
        id: IkeSaId,
        connection: Arc<Connection>,
        (role, spis): (Role, Spis),
        path: Path,
        (now_ms, half_open_ms): (u64, u64),
    ) -> IkeSa {
        let channel = Channel::new(role, spis, connection.retransmission);
        IkeSa {
            id,
            connection,
            channel,
            path,
            first_peer: path.peer,
            answer_path: path,
            nat: None,
            mobike: Mobike::new(role),
            phase: Phase::Connecting,
            init: None,
            puzzle_bits: None,
            unsolved: None,
            peer_hashes: None,
            agreement: None,
            keys: None,
            uses_ppk: false,
            has_ppk: false,
            serving: None,
            eap_id: None,
            ids: None,
            contacts: Contacts::default(),
            contact_at: None,
            leases: Leases::default(),
            noted_due_ms: u64::MAX,
            given: Given::default(),
            may_be_childless: false,
            wanted: None,
            children: vec![],
            tasks: VecDeque::new(),
            later: vec![],
            rival: None,
            early_deletes: vec![],
            awaited: None,
            answered_child: None,
            forgotten: 0,
            established_ms: None,
            rekey_at_ms: u64::MAX,
            syncing: None,
            sequences: 0,
            synced: None,
            tickets: None,
            ticket: None,
            resumed: None,
            redirection: Redirection::default(),
            lifetime: Lifetime::ENDLESS,
            origin: id,
            line: None,
            reauthenticates: None,
            reauthenticated_by: None,
            rival_ike: None,
            awaits_estate: false,
            quiet_until_ms: 0,
            is_deleted: false,
            legacies: vec![],
            asked: None,
            thens: [None, None],
            unanswered: None,
            early_response: None,
            heard_ms: now_ms,
            sent_ms: 0,
            round_ms: None,
            // An initiator has the times of its requests.
            init_error: None,
            deadline_ms: if role == Role::Responder { now_ms + half_open_ms } else { u64::MAX },
        }
    }

    /// Which it is.
    pub fn id(&self) -> IkeSaId {
        self.id
    }

    /// The connection that it is of.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Its SPIs.
    pub fn spis(&self) -> Spis {
        self.channel.spis()
    }

    /// Who began it.
    pub fn role(&self) -> Role {
        self.channel.role()
    }

    /// The addresses that messages go between.
    pub fn path(&self) -> Path {
        self.path
    }

    /// The way back of the request that is being answered.
    pub(super) fn answer_path(&self) -> Path {
        self.answer_path
    }

    /// Where the peer was at first.
    pub(super) fn first_peer(&self) -> SocketAddr {
        self.first_peer
    }

    /// How far it is.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Who we are, and who the peer is, once that is proven.
    pub fn ids(&self) -> Option<&(Identification, Identification)> {
        self.ids.as_ref()
    }

    /// The same of a peer that has proven who it is, by which it is told whether there is another with the same.
    pub(super) fn contact_ids(&self) -> Option<Ids> {
        self.ids().filter(|_| self.connection.remote_auth.tells_who()).map(|ids| self.of_user(ids))
    }

    /// Who the peer is by EAP, if it has proven it so: whom it says to be in IKE any other user may say to be.
    pub(super) fn of_user(&self, (mine, theirs): &Ids) -> Ids {
        let opaque = |name: &str| Identification::new(IdType::ID_KEY_ID, name.as_bytes());
        let user = self.eap_id.as_deref();
        let user = user.map(|name| identification(name).unwrap_or_else(|| opaque(name)));
        (mine.clone(), user.unwrap_or_else(|| theirs.clone()))
    }

    /// What it was agreed on to be made of, once it is.
    pub fn agreement(&self) -> Option<&Agreement> {
        self.agreement.as_ref()
    }

    /// Whether a PPK is mixed into its keys (RFC 8784).
    pub fn has_ppk(&self) -> bool {
        self.has_ppk
    }

    /// Since when it is established.
    pub fn established_ms(&self) -> Option<u64> {
        self.established_ms
    }

    /// When it is to be replaced, if that is known.
    pub fn rekey_at_ms(&self) -> Option<u64> {
        Some(self.rekey_at_ms).filter(|ms| *ms < u64::MAX)
    }

    /// Who is behind a NAT, if the peer can tell.
    pub fn nat(&self) -> Option<Nat> {
        self.nat
    }

    /// Its child SAs.
    pub fn children(&self) -> &[ChildSa] {
        &self.children
    }

    /// A job is done.
    pub(super) fn done(&mut self, answers: bool, outcome: Outcome, cx: &mut Context<'_>) {
        match self.thens[usize::from(answers)].take() {
            Some(Then::InitAsk(asking)) => self.init_ask(*asking, outcome, cx),
            Some(Then::InitSolve(question)) => self.init_solved(*question, outcome, cx),
            Some(Then::InitFinish(answer)) => self.init_finish(*answer, outcome, cx),
            Some(Then::InitAnswer(answering)) => self.init_answer(*answering, outcome, cx),
            Some(Then::InitSecret(made)) => self.init_secret(*made, outcome, cx),
            Some(Then::IntermediateAsk) => self.intermediate_ask(outcome, cx),
            Some(Then::IntermediateFinish(exchange)) => self.intermediate_finish(*exchange, outcome, cx),
            Some(Then::IntermediateAnswer(request)) => self.intermediate_answer(*request, outcome, cx),
            Some(Then::ChildAsk(asking)) => self.child_ask(*asking, outcome, cx),
            Some(Then::ChildFinish(answer)) => self.child_finish(*answer, outcome, cx),
            Some(Then::ChildAnswer(answering)) => self.child_answer(*answering, outcome, cx),
            Some(Then::RekeyAsk(asking)) => self.rekey_ask(asking, outcome, cx),
            Some(Then::RekeyFinish(agreed)) => self.rekey_finish(*agreed, outcome, cx),
            Some(Then::RekeyAnswer(agreed)) => self.rekey_answer(*agreed, outcome, cx),
            Some(Then::FollowUpAsk(series)) => self.follow_up_ask(*series, outcome, cx),
            Some(Then::FollowUpFinish(series)) => self.follow_up_finish(*series, outcome, cx),
            Some(Then::FollowUpAnswer(series)) => self.follow_up_answer(*series, outcome, cx),
            Some(Then::AuthSolve) => self.auth_solved(outcome, cx),
            Some(Then::AuthAsk(asking)) => self.auth_ask(*asking, outcome, cx),
            Some(Then::AuthFinish(answer)) => self.auth_finish(*answer, outcome, cx),
            Some(Then::AuthVerified(answering)) => self.auth_verified(*answering, outcome, cx),
            Some(Then::AuthAnswer(answering)) => self.auth_answer(*answering, outcome, cx),
            Some(Then::EapBegin(answering)) => self.eap_begin(*answering, outcome, cx),
            Some(Then::EapAnswer(answering)) => self.eap_answer(answering.0, outcome, cx),
            Some(Then::EapAsk(wanting)) => self.eap_ask(*wanting, outcome, cx),
            Some(Then::Go(sent)) => self.go_looked_up(*sent, outcome, cx),
            None => {}
        }
        if let Some(content) = self.early_response.take_if(|_| !self.channel.is_answering()) {
            let before = self.as_asked();
            self.channel.take_response();
            self.answered(*content, before, cx);
        } else if !self.follows_response() {
            self.unanswered = None;
        }
        if self.is_deleted && !self.is_finishing_rekey() {
            self.close(Closed::ByPeer, cx);
        }
        self.go_on(cx);
    }

    /// Whether we have asked, or are about to, that a child SA be deleted.
    pub(super) fn is_deleting(&self, spi_in: u32) -> bool {
        let asked =
            matches!(&self.asked, Some(Asked::Informational(question)) if question.deletes() == Some(spi_in));
        asked || self.tasks.iter().any(|task| matches!(task, Task::DeleteChild(spi) if *spi == spi_in))
    }

    /// What the child SA that we are asking for is to take the place of; `None` if we ask for none.
    fn asks_child(&self) -> Option<Option<u32>> {
        match (&self.asked, &self.thens[0]) {
            (Some(Asked::Child(question)), _) => Some(question.replaces()),
            (_, Some(Then::ChildAsk(asking))) => Some(asking.replaces()),
            (_, Some(Then::ChildFinish(answer))) => Some(answer.replaces()),
            _ => self.following_up().and_then(followup::Makes::child).map(create_child::Answer::replaces),
        }
    }

    /// Whether we are asking for child SAs, or that some be deleted (RFC 7296 §2.25.2).
    pub(super) fn is_changing_children(&self) -> bool {
        let deletes =
            matches!(&self.asked, Some(Asked::Informational(question)) if question.deletes().is_some());
        self.asks_child().is_some() || deletes
    }

    /// What comes when the job for what we ask is done.
    pub(super) fn thens_asking(&self) -> Option<&Then> {
        self.thens[0].as_ref()
    }

    /// What comes when the job for what the peer asks is done.
    pub(super) fn thens_answering(&self) -> Option<&Then> {
        self.thens[1].as_ref()
    }

    /// What the peer has asked is not answered.
    pub(super) fn forget_answering(&mut self) {
        (self.thens[1], self.early_response) = (None, None);
    }

    /// Whether we are asking for a child SA.
    pub(super) fn is_asking_child(&self) -> bool {
        self.asks_child().is_some()
    }

    /// Whether we are asking for one in the place of a child SA.
    pub(super) fn is_replacing(&self, spi_in: u32) -> bool {
        self.asks_child() == Some(Some(spi_in))
    }

    /// Octets that it holds of messages that are not whole, and of EAP, while its initiator may be anybody.
    pub(super) fn unproven_octets(&self) -> usize {
        if self.phase != Phase::Connecting || self.role() != Role::Responder {
            return 0;
        }
        let eap = match (&self.serving, self.thens_answering()) {
            (Some(serving), _) => serving.octets(),
            (None, Some(Then::EapAnswer(answering))) => answering.1,
            (None, _) => 0,
        };
        let held = self.unsolved.as_ref().map_or(0, |unsolved| unsolved.octets());
        self.channel.octets_of_pieces() + held + eap
    }

    /// There is no room for them: they go, and with EAP all that it was for.
    pub(super) fn let_unproven_go(&mut self, cx: &mut Context<'_>) {
        self.channel.forget_pieces();
        self.unsolved.iter_mut().for_each(|unsolved| unsolved.forget());
        if self.unproven_octets() > 0 {
            self.close(Closed::NoRoom, cx);
        }
    }

    /// Whether nothing is asked, nor about to be.
    pub(super) fn is_idle(&self) -> bool {
        !self.channel.is_asking() && self.thens[0].is_none() && self.tasks.is_empty()
    }

    /// Whether the peer knows us, and has nothing of ours to answer.
    pub(super) fn is_asking_nothing(&self) -> bool {
        matches!(self.phase, Phase::Established | Phase::Replaced) && !self.channel.is_asking()
    }

    /// Something is to be asked when it is its turn.
    pub(super) fn ask_later(&mut self, task: Task, cx: &mut Context<'_>) {
        self.tasks.push_back(task);
        self.go_on(cx);
    }

    /// Asks what waits, if nothing is under way.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) {
        while self.phase == Phase::Established
            && !self.channel.is_asking()
            && self.thens[0].is_none()
            && self.syncing.is_none()
        {
            // RFC 7296 §2.8.2: it may not be replaced in its turn before it has what it is to hand on.
            if self.awaits_estate || cx.now_ms < self.quiet_until_ms {
                return;
            }
            let Some(task) = self.tasks.pop_front().or_else(|| self.has_taken_place()) else { return };
            self.ask_task(task, cx);
        }
    }

    /// Has a job done.
    pub(super) fn after(&mut self, job: Job, then: Then, cx: &mut Context<'_>) {
        let answers = then.answers();
        self.thens[usize::from(answers)] = Some(then);
        cx.out.push_back(Output::Job(JobId { ike_sa: self.id, answers }, job));
    }

    /// Whether ESP goes in UDP: the peer can do so, and there is a NAT, or it is asked for.
    pub fn is_in_udp(&self) -> bool {
        self.nat.is_some_and(|nat| nat.is_any() || self.connection.forces_udp)
    }

    /// ESP and IKE go to port 4500, where there is a NAT (RFC 7296 §2.23).
    pub(super) fn float(&mut self) {
        const NAT_T: u16 = 4500;
        // RFC 4555 §3.3: with MOBIKE there may be a NAT later.
        let may_move = self.connection.mobike && self.nat.is_some();
        if self.is_in_udp() || may_move {
            for address in [&mut self.path.local, &mut self.path.peer] {
                if address.port() == 500 {
                    address.set_port(NAT_T);
                }
            }
        }
    }

    /// Both ends are authenticated.
    pub(super) fn establish(&mut self, mine: Identification, theirs: Identification, cx: &mut Context<'_>) {
        self.phase = Phase::Established;
        self.ids = Some((mine, theirs));
        self.established_ms = Some(cx.now_ms);
        self.let_claim_go();
        (self.init, self.peer_hashes) = (None, None);
        self.keys.iter_mut().for_each(Keys::forget_proofs);
        self.rekey_later(cx);
        self.live(cx);
        self.event(Event::Established, cx);
    }

    pub(super) fn event(&self, event: Event, cx: &mut Context<'_>) {
        cx.out.push_back(Output::Event(self.id, event));
    }

    /// There is no child SA.
    pub(super) fn child_failed(&self, name: &str, error: &ChildError, cx: &mut Context<'_>) {
        self.event(Event::ChildFailed(name.to_owned(), error.to_string()), cx);
    }

    /// A child SA is gone.
    pub(super) fn remove_child(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        if let Some(down) = child::remove(&mut self.children, spi_in, cx) {
            self.event(down, cx);
        }
    }

    /// The same, and nobody here has ended it, unless it was replaced or is being deleted.
    pub(super) fn lose_child(&mut self, spi_in: u32, by: EndedBy, cx: &mut Context<'_>) {
        let is_ours = self.is_deleting(spi_in);
        let child = self.children.iter_mut().find(|child| child.spi_in == spi_in && !is_ours);
        child.into_iter().for_each(|child| child.end(by));
        self.remove_child(spi_in, cx);
    }

    /// It is gone, and all its children.
    pub(super) fn close(&mut self, why: Closed, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        // It has replaced it while we were about to, and does not wait for us.
        self.yield_to_rival(cx);
        let by = match why {
            Closed::ByPeer => Some(EndedBy::Peer),
            Closed::Silent => Some(EndedBy::Silence),
            _ => None,
        };
        let by = by.filter(|_| self.phase != Phase::Closing);
        for spi_in in self.children.iter().map(|child| child.spi_in).collect::<Vec<_>>() {
            match by {
                Some(by) => self.lose_child(spi_in, by, cx),
                None => self.remove_child(spi_in, cx),
            }
        }
        self.give_back();
        self.let_claim_go();
        self.event(Event::Closed(why.to_string()), cx);
        if !matches!(why, Closed::Silent) {
            // RFC 5723 §4.2: with what is deleted goes its ticket.
            self.ticket = None;
        }
        self.phase = Phase::Closed(Box::new(why));
        (self.thens, self.asked, self.awaited) = ([None, None], None, None);
        self.serving = None;
    }
}

impl crate::ike_sa::IkeSa for IkeSa {
    fn id(&self) -> IkeSaId {
        self.id
    }

    fn version(&self) -> u8 {
        2
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn spis(&self) -> Spis {
        self.spis()
    }

    fn role(&self) -> Role {
        self.role()
    }

    fn path(&self) -> Path {
        self.path
    }

    fn phase(&self) -> &Phase {
        &self.phase
    }

    fn ids(&self) -> Option<&(Identification, Identification)> {
        self.ids.as_ref()
    }

    fn eap_id(&self) -> Option<&str> {
        self.eap_id.as_deref()
    }

    fn agreement(&self) -> Option<&Agreement> {
        self.agreement.as_ref()
    }

    fn has_ppk(&self) -> bool {
        self.has_ppk
    }

    fn established_ms(&self) -> Option<u64> {
        self.established_ms
    }

    fn rekey_at_ms(&self) -> Option<u64> {
        self.rekey_at_ms()
    }

    fn nat(&self) -> Option<Nat> {
        self.nat
    }

    fn given(&self) -> &Given {
        &self.given
    }

    fn children(&self) -> &[ChildSa] {
        &self.children
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There are tens of thousands of them, and all of one is to be 4 KB: what is rare, or soon over, is in boxes.
    #[test]
    fn they_are_small() {
        let sizes = [
            size_of::<IkeSa>(),
            size_of::<Channel>(),
            size_of::<ChildSa>(),
            size_of::<Asked>(),
            size_of::<Then>(),
        ];
        println!(
            "an IKE SA {}, its channel {}, a child SA {}, asked {}, then {}",
            sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]
        );
        assert!(sizes.iter().zip([1664, 336, 120, 80, 16]).all(|(size, most)| *size <= most), "{sizes:?}");
    }
}
