//! An ISAKMP SA, from its first message to its last.
//!
//! Phase 1 is one exchange. Behind it there may be several at a time: at most one quick mode of ours, and some of the peer's.
//! What else is to be asked waits in [`Task`]s. At most one [`Job`] is being done for what we ask, and one for what we answer.

mod kept;

use super::{
    fragments::Fragments,
    informational::Liveness,
    keys::{Iv, Keys},
    message_ids::MessageIds,
    messages::Seen,
    mode_config::ModeConfig,
    nat::Encapsulation,
    oakley::Suite,
    phase_1::Phase1,
    proof, quick_mode,
    transaction::Transactions,
    vendor::{Abilities, NatT},
    xauth,
};
use crate::{
    child::{self, ChildSa, EndedBy, Install, Place},
    closed::Closed,
    connection::{Child, Connection},
    contacts::Contacts,
    context::Context,
    crypto::{
        Secret,
        keys::{Role, Spis},
    },
    given::Given,
    ike_sa::{IkeSaId, Path, Phase},
    job::{Job, Outcome},
    message::{Identification, IkeSpi},
    nat::Nat,
    output::{Datagram, Event, JobId, Output},
    pool::Leases,
    proposal::Agreement,
    retransmission::{Datagrams, Open},
};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What is still to be asked.
#[derive(Clone, Debug)]
pub enum Task {
    /// For a child SA.
    Child(Arc<Child>),
    /// For a child SA in the place of one, by our SPI.
    RekeyChild(u32),
    /// Nothing: a child SA is deleted, by our SPI.
    DeleteChild(u32),
    /// Nothing: a child SA that another has the place of is deleted, by our SPI.
    Retire(u32),
    /// Whether the peer is there.
    Liveness,
    /// For addresses, or that the peer takes some.
    Configure,
}

/// What comes when a job is done.
#[derive(Debug)]
pub(super) enum Then {
    KeAsk,
    KeFinish,
    KeAnswer,
    ProofAsk(Box<proof::Proven>),
    ProofAnswer(Box<proof::Proven>),
    Verified(Box<proof::Said>),
    QuickAsk(Box<quick_mode::Wish>),
    QuickFinish(Box<quick_mode::Answer>),
    QuickAnswer(Box<quick_mode::Answering>),
}

/// What is left to the engine.
#[derive(Debug)]
pub(crate) enum Legacy {
    /// Another of the same two is closed.
    Superseded(IkeSaId),
    /// This one has the child SAs of another of the same two from now on.
    Heir(IkeSaId),
    /// The peer has deleted this one: another has its child SAs, if there is one.
    Deleted,
    /// Another is to be begun in its place.
    Anew,
}

/// An ISAKMP SA.
#[derive(Debug)]
pub struct IkeSa {
    pub(super) id: IkeSaId,
    pub(crate) connection: Arc<Connection>,
    pub(super) role: Role,
    pub(super) spis: Spis,
    pub(super) path: Path,
    /// The way back of what is being answered.
    pub(super) answer_path: Path,
    pub(super) first_peer: SocketAddr,
    pub(super) abilities: Abilities,
    /// Whether there is a NAT, if the peer can tell.
    pub(super) nat: Option<Nat>,
    pub(super) phase: Phase,
    /// Phase 1, until it is over.
    pub(super) phase_1: Option<Box<Phase1>>,
    pub(super) seen: Seen,
    pub(super) fragments: Fragments,
    /// Our message of phase 1 that is not answered, or the last, which nobody answers.
    pub(super) open: Option<Open>,
    pub(super) suite: Option<Box<Suite>>,
    pub(super) keys: Option<Keys>,
    /// The last block of phase 1.
    pub(super) last: Option<Iv>,
    pub(super) ids: Option<(Identification, Identification)>,
    /// The peer's user, if it has one.
    pub(super) user: Option<xauth::User>,
    /// Until it is known who the users are.
    pub(super) pending: Option<Box<xauth::Pending>>,
    pub(super) transactions: Transactions,
    pub(super) mode_config: ModeConfig,
    pub(super) given: Given,
    pub(crate) children: Vec<ChildSa>,
    /// Our quick mode.
    pub(super) asking: Option<Box<quick_mode::Asking>>,
    /// Our quick mode that the peer has still to say to be over.
    pub(super) committing: Option<Box<quick_mode::Committing>>,
    /// The peer's quick modes, of which the last message is waited for.
    pub(super) awaited: Vec<quick_mode::Awaited>,
    thens: [Option<Then>; 2],
    pub(super) tasks: VecDeque<Task>,
    pub(super) later: Vec<(u64, Task)>,
    pub(super) liveness: Liveness,
    pub(super) message_ids: MessageIds,
    /// When it was begun.
    pub(crate) begun_ms: u64,
    pub(super) established_ms: Option<u64>,
    /// When another is to be begun in its place.
    pub(super) rekey_at_ms: u64,
    /// When it ends if there is none.
    pub(super) ends_at_ms: u64,
    /// When the peer last sent something that is its own.
    pub(super) heard_ms: u64,
    /// When both ends must be authenticated.
    pub(super) deadline_ms: u64,
    /// How often its first messages were given up.
    pub(super) sequences: u32,
    /// What was said that nobody need believe.
    pub(super) doubt: Option<Box<Closed>>,
    /// Those of all, while it does something.
    pub(crate) contacts: Contacts,
    /// The same, of all addresses.
    pub(crate) leases: Leases,
    /// Where its peer is, if it is one of them.
    pub(crate) contact_at: Option<IpAddr>,
    /// When the engine knows it to be due.
    pub(crate) noted_due_ms: u64,
    pub(crate) legacies: Vec<Legacy>,
    /// What has its child SAs.
    pub(crate) heir: Option<IkeSaId>,
    /// What was begun to take its place.
    pub(crate) anew: Option<IkeSaId>,
    /// It has taken the place of another.
    pub(crate) has_taken_place: bool,
    /// Who the peer was of the one that it is begun in the place of.
    pub(crate) expected: Option<Identification>,
    /// What makes keys for who is nobody, if it answers in aggressive mode.
    pub(crate) secret: Option<Secret>,
    /// The child that is to be made with it.
    pub(crate) wanted: Option<Arc<Child>>,
    /// What was to be sent when it was kept last, and may not have been.
    unsent: Vec<Datagram>,
}

impl IkeSa {
    /// A new one, which has done nothing.
    pub(crate) fn new(
        id: IkeSaId,
        connection: Arc<Connection>,
        (role, spis): (Role, Spis),
        path: Path,
        (now_ms, half_open_ms): (u64, u64),
    ) -> IkeSa {
        IkeSa {
            id,
            connection,
            role,
            spis,
            path,
            answer_path: path,
            first_peer: path.peer,
            abilities: Abilities::default(),
            nat: None,
            phase: Phase::Connecting,
            phase_1: None,
            seen: Seen::default(),
            fragments: Fragments::default(),
            open: None,
            suite: None,
            keys: None,
            last: None,
            ids: None,
            user: None,
            pending: None,
            transactions: Transactions::default(),
            mode_config: ModeConfig::default(),
            given: Given::default(),
            leases: Leases::default(),
            children: vec![],
            asking: None,
            committing: None,
            awaited: vec![],
            thens: [None, None],
            tasks: VecDeque::new(),
            later: vec![],
            liveness: Liveness::default(),
            message_ids: MessageIds::default(),
            begun_ms: now_ms,
            established_ms: None,
            rekey_at_ms: u64::MAX,
            ends_at_ms: u64::MAX,
            heard_ms: now_ms,
            // An initiator has the times of its messages.
            deadline_ms: if role == Role::Responder { now_ms + half_open_ms } else { u64::MAX },
            sequences: 0,
            doubt: None,
            contacts: Contacts::default(),
            contact_at: None,
            noted_due_ms: u64::MAX,
            legacies: vec![],
            heir: None,
            anew: None,
            has_taken_place: false,
            expected: None,
            secret: None,
            wanted: None,
            unsent: vec![],
        }
    }

    /// Begins once more, with another cookie: the responder has forgotten by now what there was, if it has ever known of it.
    pub(super) fn begin_again(&mut self, cx: &mut Context<'_>) {
        let spis = Spis { initiator: IkeSpi::from(cx.random::<8>()), responder: IkeSpi::NONE };
        let path =
            Path { local: (self.path.local.ip(), self.connection.local_port).into(), peer: self.first_peer };
        let new = IkeSa::new(self.id, self.connection.clone(), (self.role, spis), path, (cx.now_ms, 0));
        let before = std::mem::replace(self, new);
        // All that is not of these messages.
        let IkeSa { contacts, leases, noted_due_ms, legacies, begun_ms, sequences, expected, wanted, .. } =
            before;
        (self.contacts, self.leases, self.noted_due_ms) = (contacts, leases, noted_due_ms);
        (self.legacies, self.begun_ms, self.sequences) = (legacies, begun_ms, sequences);
        (self.expected, self.wanted) = (expected, wanted);
        self.begin(cx);
    }

    /// Where the peer was at first.
    pub(crate) fn first_peer(&self) -> SocketAddr {
        self.first_peer
    }

    /// The peer has said something that is new: it is there.
    pub(super) fn hear_peer(&mut self, cx: &Context<'_>) {
        (self.heard_ms, self.liveness.open) = (cx.now_ms, None);
        // So has the last message of phase 1 come to it.
        self.open = None;
    }

    /// A message that is sent again until it is answered.
    pub(super) fn opened(&self, datagrams: &Datagrams, cx: &mut Context<'_>) -> Open {
        let random = u8::from_be_bytes(cx.random());
        Open::new(datagrams.clone(), &self.connection.retransmission, cx.now_ms, random)
    }

    /// A job is done.
    pub(crate) fn done(&mut self, answers: bool, outcome: Outcome, cx: &mut Context<'_>) {
        match self.thens[usize::from(answers)].take() {
            Some(Then::KeAsk) => self.ke_ask(outcome, cx),
            Some(Then::KeFinish) => self.ke_finish(outcome, cx),
            Some(Then::KeAnswer) => self.ke_answer(outcome, cx),
            Some(Then::ProofAsk(proven)) => self.proof_ask(*proven, outcome, cx),
            Some(Then::ProofAnswer(proven)) => self.proof_answer(*proven, outcome, cx),
            Some(Then::Verified(said)) => self.verified(*said, outcome, cx),
            Some(Then::QuickAsk(wish)) => self.quick_ask(*wish, outcome, cx),
            Some(Then::QuickFinish(answer)) => self.quick_finish(*answer, outcome, cx),
            Some(Then::QuickAnswer(answering)) => self.quick_answer(*answering, outcome, cx),
            None => {}
        }
        self.go_on(cx);
    }

    /// Has a job done.
    pub(super) fn after(&mut self, job: Job, then: Then, cx: &mut Context<'_>) {
        let answers = match then {
            Then::KeAsk | Then::KeFinish | Then::ProofAsk(_) => false,
            Then::KeAnswer | Then::ProofAnswer(_) => true,
            Then::Verified(_) => self.role == Role::Responder,
            Then::QuickAsk(_) | Then::QuickFinish(_) => false,
            Then::QuickAnswer(_) => true,
        };
        self.thens[usize::from(answers)] = Some(then);
        cx.out.push_back(Output::Job(JobId { ike_sa: self.id, answers }, job));
    }

    /// Whether a job is done for what we answer, or for what we ask.
    pub(super) fn is_at_work(&self, answers: bool) -> bool {
        self.thens[usize::from(answers)].is_some()
    }

    /// Whether nothing is asked, nor about to be.
    pub(super) fn is_idle(&self) -> bool {
        let is_asking =
            self.asking.is_some() || self.committing.is_some() || self.transactions.ours.is_some();
        !is_asking && self.thens[0].is_none() && self.tasks.is_empty()
    }

    /// Something is to be asked when it is its turn.
    pub(crate) fn ask_later(&mut self, task: Task, cx: &mut Context<'_>) {
        self.tasks.push_back(task);
        self.go_on(cx);
    }

    /// Asks what waits, if nothing is under way.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) {
        // Nothing more is asked of a peer that may not be there.
        let may_ask = |sa: &IkeSa| {
            let is_asking = sa.asking.is_some() || sa.thens[0].is_some() || sa.liveness.open.is_some();
            let is_asking = is_asking || sa.committing.is_some();
            let is_told = sa.transactions.ours.is_none() && sa.mode_config.awaited_until_ms.is_none();
            sa.phase == Phase::Established && !is_asking && is_told
        };
        while may_ask(self) {
            let Some(task) = self.tasks.pop_front() else { return };
            match task {
                Task::Child(config) => self.ask_child(&config, None, cx),
                Task::RekeyChild(spi_in) => self.ask_rekey_child(spi_in, cx),
                Task::DeleteChild(spi_in) => self.delete_child(spi_in, cx),
                Task::Retire(spi_in) => self.retire_child(spi_in, cx),
                Task::Liveness => self.ask_liveness(cx),
                Task::Configure => self.configure(cx),
            }
        }
    }

    /// Whether ESP goes in UDP: the peer can do so, and there is a NAT, or it is asked for.
    pub(super) fn is_in_udp(&self) -> bool {
        self.nat.is_some_and(|nat| nat.is_any() || self.connection.forces_udp)
    }

    /// What child SAs are called.
    pub(super) fn encapsulation(&self) -> Encapsulation {
        match self.is_in_udp() {
            true => Encapsulation::Udp(self.abilities.nat_t.unwrap_or(NatT::Rfc)),
            false => Encapsulation::None,
        }
    }

    /// ESP and IKE go to port 4500, where there is a NAT (RFC 3947 §4).
    pub(super) fn float(&mut self) {
        if self.is_in_udp() {
            for address in [&mut self.path.local, &mut self.path.peer] {
                if address.port() == 500 {
                    address.set_port(4500);
                }
            }
        }
    }

    pub(crate) fn event(&self, event: Event, cx: &mut Context<'_>) {
        cx.out.push_back(Output::Event(self.id, event));
    }

    /// Where packets of child SAs go.
    pub(super) fn place(&self) -> Place<'_> {
        let Path { local, peer } = self.path;
        let (is_in_udp, nat) = (self.is_in_udp(), self.nat.unwrap_or_default());
        Place { connection: &self.connection.name, local, peer, is_in_udp, nat }
    }

    /// The datapath gets a child SA; what is to be told of it.
    pub(super) fn put_child(&mut self, install: Install, cx: &mut Context<'_>) -> Event {
        child::put(&mut self.children, install, cx)
    }

    /// A child SA is gone.
    pub(super) fn remove_child(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        self.awaited.retain(|awaited| awaited.spi_in() != spi_in);
        self.forget_commit(spi_in);
        if let Some(down) = child::remove(&mut self.children, spi_in, cx) {
            self.event(down, cx);
        }
    }

    /// The same, and nobody here has ended it, unless it was replaced.
    pub(super) fn lose_child(&mut self, spi_in: u32, by: EndedBy, cx: &mut Context<'_>) {
        let child = self.children.iter_mut().find(|child| child.spi_in == spi_in);
        child.into_iter().for_each(|child| child.end(by));
        self.remove_child(spi_in, cx);
    }

    /// Another has its place, and what child SAs both ends have.
    pub(crate) fn be_replaced(&mut self, heir: IkeSaId, ends_at_ms: u64, cx: &mut Context<'_>) {
        // There is nobody to say so any more.
        self.commit(cx);
        self.phase = Phase::Replaced;
        (self.heir, self.ends_at_ms) = (Some(heir), ends_at_ms);
    }

    /// Its child SAs that the peer knows, which are another's from now on.
    pub(crate) fn take_known_children(&mut self) -> Vec<ChildSa> {
        let is_awaited = |c: &ChildSa| self.awaited.iter().any(|awaited| awaited.spi_in() == c.spi_in);
        self.children.extract_if(.., |child| !is_awaited(child)).collect()
    }

    /// What it was to do for them.
    pub(crate) fn take_tasks(&mut self) -> (Vec<Task>, Vec<(u64, Task)>) {
        (std::mem::take(&mut self.tasks).into(), std::mem::take(&mut self.later))
    }

    /// What it was given, and has given, which is another's from now on.
    pub(crate) fn take_given(&mut self) -> Given {
        std::mem::take(&mut self.given)
    }

    /// The same, where there is no other.
    pub(crate) fn keep_given(&mut self, given: Given) {
        self.given = given;
    }

    /// It has what another was given and has given.
    pub(crate) fn inherit(&mut self, given: Given, from: IkeSaId) {
        given.pass_on(&mut self.leases, from.0, self.id.0);
        self.given.theirs.extend(given.theirs);
        if self.given.ours.is_empty() {
            (self.given.ours, self.given.dns) = (given.ours, given.dns);
        }
    }

    /// It has what was another's, and goes on with what was to be done for it.
    pub(crate) fn take_over(
        &mut self,
        children: Vec<ChildSa>,
        (tasks, later): (Vec<Task>, Vec<(u64, Task)>),
        cx: &mut Context<'_>,
    ) {
        self.children.extend(children);
        self.tasks.extend(tasks);
        self.later.extend(later);
        self.has_taken_place = true;
        self.go_on(cx);
    }

    /// It is gone, and all its children.
    pub(crate) fn close(&mut self, why: Closed, cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        let by = match why {
            Closed::ByPeer => Some(EndedBy::Peer),
            Closed::Silent => Some(EndedBy::Silence),
            _ => None,
        };
        for spi_in in self.children.iter().map(|child| child.spi_in).collect::<Vec<_>>() {
            match by {
                Some(by) => self.lose_child(spi_in, by, cx),
                None => self.remove_child(spi_in, cx),
            }
        }
        self.given.give_back(&mut self.leases, self.id.0);
        self.event(Event::Closed(why.to_string()), cx);
        self.phase = Phase::Closed(Box::new(why));
        (self.thens, self.asking, self.awaited, self.open) = ([None, None], None, vec![], None);
        self.transactions = Transactions::default();
    }
}

impl crate::ike_sa::IkeSa for IkeSa {
    fn id(&self) -> IkeSaId {
        self.id
    }

    fn version(&self) -> u8 {
        1
    }

    fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn spis(&self) -> Spis {
        self.spis
    }

    fn role(&self) -> Role {
        self.role
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
        self.user.as_ref().map(|user| &*user.name)
    }

    fn agreement(&self) -> Option<&Agreement> {
        self.suite.as_ref().map(|suite| &suite.agreement)
    }

    fn has_ppk(&self) -> bool {
        false
    }

    fn established_ms(&self) -> Option<u64> {
        self.established_ms
    }

    fn rekey_at_ms(&self) -> Option<u64> {
        Some(self.rekey_at_ms).filter(|ms| *ms < u64::MAX)
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
