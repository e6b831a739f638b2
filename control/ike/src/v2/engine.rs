//! All IKE SAs of a process: whose a message is, who may begin, and what time it is for whom.
//!
//! # Dangers
//! Anybody can send anything. Nothing is kept of a message that is of no IKE SA but a half-open one, of which there is an
//! end, of all and of each address; and under load only for who has shown to be where it says (RFC 7296 §2.6). What they hold of
//! messages that are not whole has an end, too, of all together; so have the IKE SAs of those who have proven who they are.

mod age;
mod contact;
mod first;
pub(super) mod unknown;
mod v1;

use super::{
    admission::{Rate, Rates},
    channel::{Dropped, is_first},
    child::Wanted,
    contacts::Contacts,
    context::Context,
    cookie::Cookies,
    fragments::Unproven,
    ike_sa::{Closed, IkeSa, IkeSaId, Path, Phase, Task},
    job::Outcome,
    last_answer::LastAnswers,
    output::{ChildChange, Datagram, Event, JobId, Output},
    reauth::Anew,
    redirect::Gateway,
    refused::Refused,
    rekey_ike::Legacy,
    resumption::Ticket,
    ticket::TicketKeys,
};
use crate::{
    connection::{Child, Connection},
    crypto::keys::{Role, Spis},
    kept::Damaged,
    message::{Flags, Header, IkeSpi, Version},
    pool::Leases,
    v1::{Raw, ike_sa::Task as TaskV1},
};
use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use unknown::says_unknown;

/// Tickets that are kept of IKE SAs that are gone, at most.
const MOST_TICKETS: usize = 1024;

/// All IKE SAs.
#[derive(Debug)]
pub struct Engine {
    pub(super) sas: HashMap<IkeSaId, Box<IkeSa>>,
    /// Those of IKEv1.
    pub(super) v1: HashMap<IkeSaId, Box<crate::v1::ike_sa::IkeSa>>,
    /// Child SAs that peers are still to be known to have, by our SPIs.
    committing: BTreeSet<u32>,
    /// What makes keys for who is nobody, in aggressive mode of IKEv1.
    secret_of_nobody: Option<crate::crypto::Secret>,
    /// By our SPI.
    by_spi: HashMap<IkeSpi, IkeSaId>,
    /// Those that have child SAs, by our SPIs of these.
    by_child: HashMap<u32, IkeSaId>,
    /// Those that others have begun, until they are established, by whose they are and their SPI.
    half_open: HashMap<(SocketAddr, IkeSpi), IkeSaId>,
    /// Half-open ones of each address.
    of_host: HashMap<IpAddr, usize>,
    /// What half-open ones hold of messages that are not whole.
    unproven: Unproven,
    /// By when each is due.
    due: BTreeSet<(u64, IkeSaId)>,
    contacts: Contacts,
    leases: Leases,
    next: u64,
    cookies: Cookies,
    ticket_keys: Option<Box<TicketKeys>>,
    /// What we can come back with, by connection and where the peer is.
    tickets: HashMap<(String, IpAddr), Arc<Ticket>>,
    rates: Rates,
    /// At which messages of IKE SAs that are not here are answered.
    unknown: Rate,
    /// Of IKE SAs that are gone.
    last_answers: LastAnswers,
    /// Those that have changed since they were last told, if they are.
    pub(super) changed: Option<BTreeSet<IkeSaId>>,
}

impl Engine {
    /// One without any IKE SA.
    pub fn new(cx: &mut Context<'_>) -> Engine {
        Engine {
            sas: HashMap::new(),
            v1: HashMap::new(),
            committing: BTreeSet::new(),
            secret_of_nobody: None,
            by_spi: HashMap::new(),
            by_child: HashMap::new(),
            half_open: HashMap::new(),
            of_host: HashMap::new(),
            unproven: Unproven::default(),
            due: BTreeSet::new(),
            contacts: Contacts::default(),
            leases: Leases::default(),
            next: 1,
            cookies: Cookies::new(cx.now_ms, cx.rng),
            ticket_keys: Some(Box::new(TicketKeys::new(cx.unix_secs, cx.rng))),
            tickets: HashMap::new(),
            rates: Rates::new(),
            unknown: Rate::default(),
            last_answers: LastAnswers::default(),
            changed: None,
        }
    }

    /// The IKE SAs of either version, in no order.
    pub fn ike_sas(&self) -> impl Iterator<Item = &dyn crate::ike_sa::IkeSa> {
        let v1 = self.v1.values().map(|sa| &**sa as &dyn crate::ike_sa::IkeSa);
        self.sas.values().map(|sa| &**sa as &dyn crate::ike_sa::IkeSa).chain(v1)
    }

    /// An IKE SA of either version.
    pub fn ike_sa(&self, id: IkeSaId) -> Option<&dyn crate::ike_sa::IkeSa> {
        let v1 = || self.v1.get(&id).map(|sa| &**sa as &dyn crate::ike_sa::IkeSa);
        self.sa(id).map(|sa| sa as &dyn crate::ike_sa::IkeSa).or_else(v1)
    }

    /// Connections have other addresses or children than when IKE SAs were made of them, and are of the same edition. Child SAs
    /// that are there stay what they are, as what replaces them does; further ones are of the children that there are now.
    pub fn follow_connections(&mut self, connections: &[Arc<Connection>]) {
        let now: HashMap<_, _> = connections.iter().map(|c| ((c.edition, &*c.name), c)).collect();
        let v2 = self.sas.iter_mut().map(|(id, sa)| (id, &mut sa.connection));
        for (id, connection) in v2.chain(self.v1.iter_mut().map(|(id, sa)| (id, &mut sa.connection))) {
            let Some(now) = now.get(&(connection.edition, &*connection.name)) else { continue };
            if connection.mark != now.mark {
                self.changed.iter_mut().for_each(|changed| _ = changed.insert(*id));
            }
            *connection = (*now).clone();
        }
    }

    /// Those of IKEv2, in no order.
    pub fn sas(&self) -> impl Iterator<Item = &IkeSa> {
        self.sas.values().map(|sa| &**sa)
    }

    /// One of IKEv2.
    pub fn sa(&self, id: IkeSaId) -> Option<&IkeSa> {
        self.sas.get(&id).map(|sa| &**sa)
    }

    /// What peers have further keys to exchange for is forgotten, as it is after some time.
    #[cfg(test)]
    pub(super) fn forget_awaited(&mut self) {
        self.sas.values_mut().for_each(|sa| sa.awaited = None);
    }

    /// Whether it knows whose each child SA is.
    #[cfg(test)]
    pub(super) fn knows_children(&self) -> bool {
        let all = self.ike_sas().flat_map(|sa| sa.children().iter().map(|child| (child.spi_in, sa.id())));
        all.collect::<HashMap<_, _>>() == self.by_child
    }

    /// Half-open IKE SAs.
    pub fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// Whether there are as many IKE SAs as there may be.
    fn is_full(&self, cx: &Context<'_>) -> bool {
        (self.sas.len() + self.v1.len()).saturating_sub(self.half_open.len()) >= cx.config.most_ike_sas
    }

    /// Octets that half-open ones hold of messages that are not whole.
    #[cfg(test)]
    pub(crate) fn unproven_octets(&self) -> usize {
        self.unproven.octets()
    }

    /// Others hold all that there is room for, but so much.
    #[cfg(test)]
    pub(crate) fn leave_room(&mut self, octets: usize) {
        assert!(self.unproven.change(0, crate::v2::fragments::MOST_UNPROVEN - octets));
    }

    /// How many answers are kept of IKE SAs that are gone.
    #[cfg(test)]
    pub(super) fn last_answers(&self) -> usize {
        self.last_answers.len()
    }

    /// The number of an IKE SA that is begun later.
    pub fn reserve(&mut self) -> IkeSaId {
        let id = IkeSaId(self.next);
        self.next += 1;
        id
    }

    /// Begins an IKE SA from an address to another, with one of the connection's children or none.
    pub fn initiate(
        &mut self,
        connection: &Arc<Connection>,
        child: Option<&Arc<Child>>,
        between: (IpAddr, IpAddr),
        cx: &mut Context<'_>,
    ) -> IkeSaId {
        let id = self.reserve();
        self.initiate_as(id, connection, child.map(Wanted::from), between, cx);
        id
    }

    /// The same, of a number that was reserved.
    pub fn initiate_as(
        &mut self,
        id: IkeSaId,
        connection: &Arc<Connection>,
        child: Option<Wanted>,
        between: (IpAddr, IpAddr),
        cx: &mut Context<'_>,
    ) {
        if connection.ikev1.is_some() {
            let path = Path {
                local: SocketAddr::new(between.0, connection.local_port),
                peer: SocketAddr::new(between.1, connection.remote_port),
            };
            return self.begin_v1(id, connection, child.map(|child| child.config), path, cx);
        }
        // RFC 5723 §4.3: each is used once.
        let ticket = self.tickets.remove(&(connection.name.clone(), between.1));
        let ticket = ticket.filter(|ticket| connection.resumes && ticket.is_good(cx.now_ms));
        self.begin(id, connection, child, (between, ticket), cx);
    }

    fn begin(
        &mut self,
        id: IkeSaId,
        connection: &Arc<Connection>,
        child: Option<Wanted>,
        ((local, peer), ticket): ((IpAddr, IpAddr), Option<Arc<Ticket>>),
        cx: &mut Context<'_>,
    ) {
        let path = Path {
            local: SocketAddr::new(local, connection.local_port),
            peer: SocketAddr::new(peer, connection.remote_port),
        };
        let spis = Spis { initiator: self.free_spi(cx), responder: IkeSpi::NONE };
        self.add(id, connection, (Role::Initiator, spis), path, cx);
        self.with(id, cx, |sa, cx| {
            sa.wanted = child.map(Box::new);
            match ticket {
                Some(ticket) => sa.begin_resume(ticket, cx),
                None => sa.begin_init(cx),
            }
        });
    }

    /// Deletes an IKE SA. False if there is none.
    pub fn terminate(&mut self, id: IkeSaId, cx: &mut Context<'_>) -> bool {
        if self.with_v1(id, cx, |sa, cx| sa.delete(Closed::ByUs, cx)) {
            return true;
        }
        self.stop_anew(id, cx);
        self.with(id, cx, |sa, cx| match sa.phase() {
            Phase::Connecting => sa.close(Closed::ByUs, cx),
            _ => sa.ask_later(Task::Delete, cx),
        })
    }

    /// Ends an IKE SA at once: the peer is told, if nothing else is being asked of it, and not waited for. False if there
    /// is none.
    pub fn abandon(&mut self, id: IkeSaId, cx: &mut Context<'_>) -> bool {
        if self.with_v1(id, cx, |sa, cx| sa.delete(Closed::ByUs, cx)) {
            return true;
        }
        self.stop_anew(id, cx);
        self.with(id, cx, |sa, cx| {
            if sa.is_asking_nothing() {
                sa.begin_delete(cx);
            }
            sa.close(super::ike_sa::Closed::ByUs, cx);
        })
    }

    /// Deletes a child SA, by our SPI. False if there is none.
    pub fn terminate_child(&mut self, spi_in: u32, cx: &mut Context<'_>) -> bool {
        let Some(id) = self.by_child.get(&spi_in).copied() else { return false };
        self.with_v1(id, cx, |sa, cx| sa.ask_later(TaskV1::DeleteChild(spi_in), cx))
            || self.with(id, cx, |sa, cx| sa.ask_later(Task::DeleteChild(spi_in), cx))
    }

    /// There is no room for a child SA that has just been made: it is deleted, and what it was to take the place of stays. False if
    /// there is none.
    pub fn withdraw_child(&mut self, spi_in: u32, replaces: Option<u32>, cx: &mut Context<'_>) -> bool {
        let Some(id) = self.by_child.get(&spi_in).copied() else { return false };
        self.with_v1(id, cx, |sa, cx| sa.ask_later(TaskV1::DeleteChild(spi_in), cx))
            || self.with(id, cx, |sa, cx| sa.withdraw_child(spi_in, replaces, cx))
    }

    /// Child SAs, by our SPIs, that are not sent by until their peers say to have them, or a packet by one has come: then
    /// [`hear_child`](Engine::hear_child) is to be called.
    pub fn committing(&self) -> impl Iterator<Item = u32> {
        self.committing.iter().copied()
    }

    /// A packet by a child SA has come: its peer has it (RFC 2408 §3.1, RFC 7296 §2.8).
    pub fn hear_child(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        if let Some(id) = self.by_child.get(&spi_in).copied().filter(|_| self.committing.contains(&spi_in)) {
            let _ = self.with_v1(id, cx, |sa, cx| sa.commit(cx))
                || self.with(id, cx, |sa, cx| sa.hear_child(spi_in, cx));
        }
    }

    /// Asks for a further child SA. False if there is no such IKE SA.
    pub fn initiate_child(&mut self, id: IkeSaId, child: impl Into<Wanted>, cx: &mut Context<'_>) -> bool {
        let wanted = child.into();
        self.with_v1(id, cx, |sa, cx| sa.ask_later(TaskV1::Child(wanted.config.clone()), cx))
            || self.with(id, cx, |sa, cx| sa.ask_later(Task::Child(wanted), cx))
    }

    /// Asks for a further child SA like one that is there, for a resource (RFC 9611). False if there is no such IKE SA.
    pub fn initiate_further(
        &mut self,
        id: IkeSaId,
        child: &Arc<Child>,
        resource: u32,
        cx: &mut Context<'_>,
    ) -> bool {
        self.with(id, cx, |sa, cx| sa.ask_later(Task::Further(child.clone(), resource), cx))
    }

    /// Has a child SA replaced, by our SPI. False if there is none.
    pub fn rekey_child(&mut self, spi_in: u32, cx: &mut Context<'_>) -> bool {
        let Some(id) = self.by_child.get(&spi_in).copied() else { return false };
        self.with_v1(id, cx, |sa, cx| sa.ask_later(TaskV1::RekeyChild(spi_in), cx))
            || self.with(id, cx, |sa, cx| sa.ask_later(Task::RekeyChild(spi_in), cx))
    }

    /// Has an IKE SA replaced. False if there is none.
    pub fn rekey(&mut self, id: IkeSaId, cx: &mut Context<'_>) -> bool {
        self.with_v1(id, cx, |sa, _| sa.rekey()) || self.with(id, cx, |sa, cx| sa.ask_later(Task::Rekey, cx))
    }

    /// Has both ends of an IKE SA prove anew who they are, under another in its place. False if there is none, or it is for
    /// the peer to do, which has begun.
    pub fn reauthenticate(&mut self, id: IkeSaId, cx: &mut Context<'_>) -> bool {
        if self.with_v1(id, cx, |sa, _| sa.rekey()) {
            return true;
        }
        let mut may = false;
        self.with(id, cx, |sa, cx| {
            may = sa.leads() && *sa.phase() == Phase::Established;
            if may {
                sa.reauthenticate(cx);
            }
        }) && may
    }

    /// Sends the peer of an IKE SA, which has begun it, to another gateway (RFC 5685 §5). False if there is none, or the peer does
    /// not go where it is sent.
    pub fn redirect(&mut self, id: IkeSaId, to: &Gateway, cx: &mut Context<'_>) -> bool {
        let mut may = false;
        self.with(id, cx, |sa, cx| {
            may = sa.is_redirectable() && *sa.phase() == Phase::Established;
            if may {
                sa.ask_later(Task::Redirect(to.clone()), cx);
            }
        }) && may
    }

    /// An IKE SA was taken over from another member of a cluster, which may have used further message IDs than are known here:
    /// both ends agree on those to go on with (RFC 6311). False if there is none, or the peer does not know of that.
    pub fn synchronize(&mut self, id: IkeSaId, cx: &mut Context<'_>) -> bool {
        let mut may = false;
        self.with(id, cx, |sa, cx| may = sa.synchronize(cx)) && may
    }

    /// As if what was sent and received last were not known.
    #[cfg(test)]
    pub(super) fn forget_last(&mut self, id: IkeSaId, back: u32, cx: &mut Context<'_>) {
        self.with(id, cx, |sa, _| {
            let (next, expected) = (sa.channel.request_id(), sa.channel.expected_id());
            sa.channel.go_on_at(next.saturating_sub(back), expected.saturating_sub(back));
            (sa.asked, sa.tasks) = (None, Default::default());
            sa.forget_answering();
        });
    }

    /// What is to take the place of an IKE SA goes with it.
    fn stop_anew(&mut self, id: IkeSaId, cx: &mut Context<'_>) {
        let by = self.sas.get(&id).and_then(|sa| sa.reauthenticated_by);
        let by = by.filter(|by| self.sas.get(by).is_some_and(|sa| sa.reauthenticates.is_some()));
        by.into_iter().for_each(|by| _ = self.terminate(by, cx));
    }

    /// Another IKE SA is begun in the place of one.
    fn begin_anew(&mut self, from: IkeSaId, anew: Anew, cx: &mut Context<'_>) {
        let of = self.sas.get(&from).map(|sa| match &sa.reauthenticates {
            // What is sent elsewhere before it has taken a place leaves it to another.
            Some(of) if *sa.phase() == Phase::Closing => (of.before, of.origin),
            _ => (from, sa.origin),
        });
        let Some(place) = of else { return };
        // One at a time: of two, neither would make room for the other.
        self.stop_anew(from, cx);
        let id = self.reserve();
        self.begin(id, &anew.connection, None, (anew.between, None), cx);
        self.with(id, cx, |sa, cx| {
            match anew.redirected {
                Some(redirected) => sa.come_from(from, redirected, cx),
                None => sa.event(Event::Reauthenticating(from), cx),
            }
            sa.take_place_of(place, anew.children);
        });
        for before in [from, place.0] {
            self.with(before, cx, |sa, _| sa.reauthenticated_by = Some(id));
        }
    }

    /// An IKE SA has taken the place of those that come from one.
    fn outlive(&mut self, by: IkeSaId, (before, origin): (IkeSaId, IkeSaId), cx: &mut Context<'_>) {
        let ids = self.sas.get(&by).and_then(|sa| sa.contact_ids());
        let others = ids.map(|ids| self.contacts.others(ids, by)).unwrap_or_default();
        // With another gateway the peer may be another, too.
        let all = others.into_iter().filter(|id| *id != before).chain([before]);
        let all = all.filter(|id| self.sas.get(id).is_some_and(|sa| sa.origin == origin));
        for id in all.collect::<Vec<_>>() {
            self.with(id, cx, IkeSa::be_outlived);
        }
    }

    /// An IKE SA goes between other addresses, at ports as before: the peer is told (RFC 4555 §3.5), or without MOBIKE another IKE
    /// SA is begun there in its place. False if there is none, or it is not for us to say, but for who has begun.
    pub fn go_between(&mut self, id: IkeSaId, (local, peer): (IpAddr, IpAddr), cx: &mut Context<'_>) -> bool {
        let mut goes = false;
        // What was to take its place from where we are no more.
        self.stop_anew(id, cx);
        self.with(id, cx, |sa, cx| goes = sa.go_between(local, peer, cx)) && goes
    }

    /// Addresses of this machine ([`Configuration::here`](crate::connection::Configuration::here)) are others: the peer of an IKE
    /// SA is told (RFC 4555 §3.6). Where it has begun, and what we sent from is gone, it is told between the addresses `elsewhere`.
    /// False if there is none, or it does without MOBIKE.
    pub fn announce(
        &mut self,
        id: IkeSaId,
        elsewhere: Option<(IpAddr, IpAddr)>,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut may = false;
        self.with(id, cx, |sa, cx| may = sa.announce(elsewhere, cx)) && may
    }

    /// A job of an IKE SA is done. Of one that is gone, it is forgotten.
    pub fn done(&mut self, job: JobId, outcome: Outcome, cx: &mut Context<'_>) {
        match self.v1.contains_key(&job.ike_sa) {
            true => self.with_v1(job.ike_sa, cx, |sa, cx| sa.done(job.answers, outcome, cx)),
            false => self.with(job.ike_sa, cx, |sa, cx| sa.done(job.answers, outcome, cx)),
        };
    }

    /// Who has which addresses of pools.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// A pool is gone, or has other addresses from now on, and nobody has one of it.
    pub fn forget_pool(&mut self, name: &str) {
        self.leases.forget(name);
    }

    /// When [`Engine::tick`] has something to do.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.first().map(|(ms, _)| *ms).filter(|ms| *ms < u64::MAX)
    }

    /// Time has passed.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        self.last_answers.expire(cx.now_ms);
        let due: Vec<_> = self.due.iter().take_while(|(ms, _)| *ms <= cx.now_ms).map(|(_, id)| *id).collect();
        for id in due {
            let _ = self.with_v1(id, cx, |sa, cx| sa.tick(cx)) || self.with(id, cx, |sa, cx| sa.tick(cx));
        }
    }

    /// A message came, without the non-ESP marker.
    ///
    /// # Errors
    /// Why nothing came of it.
    pub fn receive(&mut self, datagram: &Datagram, cx: &mut Context<'_>) -> Result<(), Refused> {
        let Datagram { local, peer, octets, .. } = datagram;
        let path = Path { local: *local, peer: *peer };
        let (header, first, body) = Header::parse(octets).map_err(Dropped::from)?;
        if header.version.major == Version::V1.major {
            return self.receive_v1(&Raw { header, first, body, octets }, path, cx);
        }
        if header.version.major != Version::V2.major {
            return self.refuse_version(&header, octets, path, cx);
        }
        let is_by_initiator = header.flags.contains(Flags::INITIATOR);
        let is_first = is_by_initiator
            && is_first(header.exchange)
            && header.responder_spi == IkeSpi::NONE
            && !header.flags.contains(Flags::RESPONSE);
        if is_first {
            if header.message_id != 0 {
                return Err(Dropped::MessageId(header.message_id).into());
            }
            return match self.half_open.get(&(path.peer, header.initiator_spi)).copied() {
                Some(id) => self.receive_of(id, octets, path, cx),
                None => self.receive_first(&header, octets, path, cx),
            };
        }
        let ours = if is_by_initiator { header.responder_spi } else { header.initiator_spi };
        let Some(id) = self.by_spi.get(&ours).copied() else {
            if self.last_answers.send_again(ours, octets, path, cx) {
                return Ok(());
            }
            self.answer_unknown(&header, octets, path, cx);
            return Err(Refused::UnknownSpi);
        };
        let theirs = |spis: Spis| if is_by_initiator { spis.initiator } else { spis.responder };
        let said = if is_by_initiator { header.initiator_spi } else { header.responder_spi };
        // While the responder's is not known, its first message says it.
        let known = self.sas.get(&id).map(|sa| theirs(sa.spis()));
        if known != Some(said) && known != Some(IkeSpi::NONE) {
            return Err(Refused::UnknownSpi);
        }
        match says_unknown(&header, octets) {
            true => Err(self.suspect(id, cx)),
            false => self.receive_of(id, octets, path, cx),
        }
    }

    fn receive_of(
        &mut self,
        id: IkeSaId,
        octets: &[u8],
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let mut received = Ok(());
        let had_changed = self.is_changed(id);
        self.with(id, cx, |sa, cx| received = sa.receive(octets, path, cx));
        if received.is_err() && !had_changed {
            self.is_as_before(id);
        }
        Ok(received?)
    }

    fn is_changed(&self, id: IkeSaId) -> bool {
        self.changed.as_ref().is_some_and(|all| all.contains(&id))
    }

    /// What is dropped changes nothing, so that nobody can have us write it down again and again.
    fn is_as_before(&mut self, id: IkeSaId) {
        self.changed.iter_mut().for_each(|all| _ = all.remove(&id));
    }

    /// What the peer of an IKE SA that is gone has given us to come back with.
    fn keep_ticket(&mut self, connection: &str, peer: IpAddr, ticket: Arc<Ticket>, now_ms: u64) {
        if self.tickets.len() >= MOST_TICKETS {
            self.tickets.retain(|_, ticket| ticket.is_good(now_ms));
        }
        if self.tickets.len() < MOST_TICKETS {
            self.tickets.insert((connection.to_owned(), peer), ticket);
        }
    }

    /// An SPI that no IKE SA has.
    fn free_spi(&self, cx: &mut Context<'_>) -> IkeSpi {
        loop {
            let spi = IkeSpi::from(cx.random::<8>());
            if spi != IkeSpi::NONE && !self.by_spi.contains_key(&spi) {
                return spi;
            }
        }
    }

    fn add(
        &mut self,
        id: IkeSaId,
        connection: &Arc<Connection>,
        (role, spis): (Role, Spis),
        path: Path,
        cx: &Context<'_>,
    ) {
        let times = (cx.now_ms, cx.config.half_open_ms);
        self.sas.insert(id, Box::new(IkeSa::new(id, connection.clone(), (role, spis), path, times)));
        self.by_spi.insert(ours(role, spis), id);
    }

    /// One from before is here, too.
    pub(super) fn adopt(&mut self, sa: IkeSa, cx: &mut Context<'_>) -> Result<IkeSaId, Damaged> {
        let id = self.note_adopted(&sa)?;
        self.committing.extend(sa.waiting_children());
        self.sas.insert(id, Box::new(sa));
        self.with(id, cx, |sa, _| sa.hold_given());
        Ok(id)
    }

    /// What is known of all, of one of either version that is about to be here.
    fn note_adopted(&mut self, sa: &dyn crate::ike_sa::IkeSa) -> Result<IkeSaId, Damaged> {
        let (id, ours) = (sa.id(), ours(sa.role(), sa.spis()));
        if self.ike_sa(id).is_some() || self.by_spi.contains_key(&ours) {
            return Err(Damaged("SPI, which another has"));
        }
        self.next = self.next.max(id.0.saturating_add(1));
        self.by_spi.insert(ours, id);
        self.by_child.extend(sa.children().iter().map(|child| (child.spi_in, id)));
        Ok(id)
    }

    /// Does something with an IKE SA, and keeps what is known of it in step. False if there is none.
    pub(super) fn with(
        &mut self,
        id: IkeSaId,
        cx: &mut Context<'_>,
        does: impl FnOnce(&mut IkeSa, &mut Context<'_>),
    ) -> bool {
        let Some(sa) = self.sas.get_mut(&id) else { return false };
        let (told, before) = (cx.out.len(), ours(sa.role(), sa.spis()));
        // Lent to it: what it is told may be for those of the same two alone.
        std::mem::swap(&mut sa.contacts, &mut self.contacts);
        std::mem::swap(&mut sa.tickets, &mut self.ticket_keys);
        std::mem::swap(&mut sa.leases, &mut self.leases);
        let (held, expected) = (sa.unproven_octets(), sa.channel.expected_id());
        let waiting: Vec<_> = sa.waiting_children().collect();
        does(sa, cx);
        if !sa.waiting_children().eq(waiting.iter().copied()) {
            waiting.iter().for_each(|spi| _ = self.committing.remove(spi));
            self.committing.extend(sa.waiting_children());
        }
        if !self.unproven.change(held, sa.unproven_octets()) {
            sa.let_unproven_go(cx);
        }
        std::mem::swap(&mut sa.contacts, &mut self.contacts);
        std::mem::swap(&mut sa.tickets, &mut self.ticket_keys);
        std::mem::swap(&mut sa.leases, &mut self.leases);
        let behind = contact::note(&mut self.contacts, sa, cx.out.range(told..));
        let connection = (!behind.is_empty()).then(|| sa.connection.clone());
        self.changed.iter_mut().for_each(|changed| _ = changed.insert(id));
        note_children(&mut self.by_child, id, cx.out.range(told..));
        let legacies = std::mem::take(&mut sa.legacies);
        let ticket = sa.ticket.take_if(|_| matches!(sa.phase, Phase::Closed(_)));
        let ticket = ticket.map(|ticket| (sa.connection.name.clone(), sa.path().peer.ip(), ticket));
        let (spis, role, first, due) = (sa.spis(), sa.role(), sa.first_peer(), sa.due_ms());
        let now = ours(role, spis);
        if now != before {
            self.by_spi.remove(&before);
            self.by_spi.insert(now, id);
        }
        let noted = std::mem::replace(&mut sa.noted_due_ms, due);
        let (is_connecting, is_closed) =
            (*sa.phase() == Phase::Connecting, matches!(sa.phase(), Phase::Closed(_)));
        self.due.remove(&(noted, id));
        if !is_connecting {
            self.no_longer_half_open(id, (first, spis.initiator));
        }
        if is_closed {
            if let Some(mut sa) = self.sas.remove(&id) {
                let has_answered = sa.channel.expected_id() != expected;
                self.last_answers.put(now, &mut sa, has_answered, cx.now_ms);
                cx.out.push_back(Output::Closed(sa));
            }
            self.by_spi.remove(&now);
        } else {
            self.due.insert((due, id));
        }
        if let Some((connection, peer, ticket)) = ticket {
            self.keep_ticket(&connection, peer, ticket, cx.now_ms);
        }
        legacies.into_iter().for_each(|legacy| self.inherit(id, legacy, cx));
        if let Some(connection) = connection {
            self.leave_to((&connection.name, behind), told, cx);
        }
        true
    }

    /// Another IKE SA takes what one leaves.
    fn inherit(&mut self, from: IkeSaId, legacy: Legacy, cx: &mut Context<'_>) {
        match legacy {
            Legacy::Heir(mut heir) => {
                let id = self.reserve();
                heir.id = id;
                self.by_spi.insert(ours(heir.role(), heir.spis()), id);
                self.sas.insert(id, heir);
                self.with(id, cx, |sa, cx| sa.go_on(cx));
            }
            Legacy::Superseded(id, _) if self.v1.contains_key(&id) => self.supersede(id, cx),
            Legacy::Superseded(id, is_known) => {
                self.with(id, cx, |sa, cx| sa.be_superseded(is_known, cx));
            }
            Legacy::Anew(anew) => self.begin_anew(from, *anew, cx),
            Legacy::Outlived(before, origin) => self.outlive(from, (before, origin), cx),
            Legacy::Doomed(ours) => {
                if let Some(id) = self.by_spi.get(&ours).copied() {
                    self.with(id, cx, |sa, cx| {
                        sa.awaits_estate = false;
                        sa.be_forgotten(cx.now_ms);
                    });
                }
            }
            Legacy::Estate(ours, estate) => {
                let Some(id) = self.by_spi.get(&ours).copied() else {
                    let told = cx.out.len();
                    estate.end(from, &mut self.leases, cx);
                    return note_children(&mut self.by_child, from, cx.out.range(told..));
                };
                self.by_child.extend(estate.children.iter().map(|child| (child.spi_in, id)));
                self.with(id, cx, |sa, cx| {
                    (sa.awaits_estate, sa.contact_at) = (false, None);
                    sa.children.extend(estate.children);
                    sa.inherit_given(estate.given, from.0);
                    sa.tasks.extend(estate.tasks);
                    sa.later.extend(estate.later);
                    sa.reauthenticates = estate.reauthenticates;
                    sa.event(Event::Replaced(from), cx);
                    sa.go_on(cx);
                });
            }
        }
    }

    fn now_half_open(&mut self, id: IkeSaId, first: (SocketAddr, IkeSpi)) {
        self.half_open.insert(first, id);
        *self.of_host.entry(host(first.0.ip())).or_default() += 1;
    }

    fn no_longer_half_open(&mut self, id: IkeSaId, first: (SocketAddr, IkeSpi)) {
        if self.half_open.get(&first) != Some(&id) {
            return;
        }
        self.half_open.remove(&first);
        let host = host(first.0.ip());
        if let Some(of_host) = self.of_host.get_mut(&host) {
            *of_host -= 1;
            if *of_host == 0 {
                self.of_host.remove(&host);
            }
        }
    }
}

/// Our SPI of two.
fn ours(role: Role, spis: Spis) -> IkeSpi {
    if role == Role::Initiator { spis.initiator } else { spis.responder }
}

/// Whose child SAs are, by what is to become of them.
fn note_children<'a>(
    by_child: &mut HashMap<u32, IkeSaId>,
    id: IkeSaId,
    told: impl Iterator<Item = &'a Output>,
) {
    for output in told {
        match output {
            Output::Child(ChildChange::Install(install)) => _ = by_child.insert(install.sa.spi_in, id),
            Output::Child(ChildChange::Remove(child)) => _ = by_child.remove(&child.spi_in),
            _ => {}
        }
    }
}

/// Who is one: an address of IPv4, or a /64 of IPv6.
fn host(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}
