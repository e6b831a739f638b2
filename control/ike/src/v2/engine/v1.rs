//! ISAKMP SAs of IKEv1 in the same engine: they have the same numbers, admission and contacts as IKE SAs.

use super::{Engine, contact::has_changed, first::LONGEST_FIRST, host, note_children, ours};
use crate::{
    child::ChildSa,
    closed::Closed,
    connection::{Child, Connection, Unique},
    context::Context,
    crypto::{
        Secret,
        keys::{Role, Spis},
    },
    given::Given,
    ike_sa::{IkeSa as _, IkeSaId, Path, Phase},
    kept::Damaged,
    message::{ExchangeType, IkeSpi, PayloadType},
    output::{Event, Output},
    v1::{
        self, Raw,
        ike_sa::{IkeSa, Legacy},
    },
    v2::{channel::Dropped, refused::Refused},
};
use std::{collections::HashSet, sync::Arc};

/// How long one stays whose place another has: what is under way ends.
const REPLACED_MS: u64 = 10_000;

impl Engine {
    /// Begins one.
    pub(super) fn begin_v1(
        &mut self,
        id: IkeSaId,
        connection: &Arc<Connection>,
        child: Option<Arc<Child>>,
        path: Path,
        cx: &mut Context<'_>,
    ) {
        let spis = Spis { initiator: self.free_spi(cx), responder: IkeSpi::NONE };
        self.add_v1(id, connection, (Role::Initiator, spis), path, cx);
        self.with_v1(id, cx, |sa, cx| {
            sa.wanted = child;
            sa.begin(cx);
        });
    }

    /// The ISAKMP SAs.
    #[cfg(test)]
    pub(crate) fn v1(&mut self) -> impl Iterator<Item = &mut IkeSa> {
        self.v1.values_mut().map(|sa| &mut **sa)
    }

    /// One of them.
    pub(in crate::v2) fn isakmp_sa(&self, id: IkeSaId) -> Option<&IkeSa> {
        self.v1.get(&id).map(|sa| &**sa)
    }

    /// Child SAs that peers are not known to have yet, by our SPIs: nothing is to be sent by them until it is said (RFC 2409
    /// §5.5). Those of IKEv2 replace others, by which it is sent.
    pub fn unknown_children(&self) -> HashSet<u32> {
        self.v1.values().flat_map(|sa| sa.unknown_children()).collect()
    }

    /// One from before is here, too.
    pub(in crate::v2) fn adopt_v1(
        &mut self,
        mut sa: IkeSa,
        cx: &mut Context<'_>,
    ) -> Result<IkeSaId, Damaged> {
        let id = self.note_adopted(&sa)?;
        // What has its place may come behind it.
        let heir = sa.heir.take();
        self.committing.extend(sa.committing());
        self.v1.insert(id, Box::new(sa));
        self.with_v1(id, cx, |sa, _| sa.hold_given());
        self.v1.entry(id).and_modify(|sa| sa.heir = heir);
        Ok(id)
    }

    fn add_v1(
        &mut self,
        id: IkeSaId,
        connection: &Arc<Connection>,
        (role, spis): (Role, Spis),
        path: Path,
        cx: &Context<'_>,
    ) {
        let times = (cx.now_ms, cx.config.half_open_ms);
        self.v1.insert(id, Box::new(IkeSa::new(id, connection.clone(), (role, spis), path, times)));
        self.by_spi.insert(ours(role, spis), id);
    }

    /// A message of IKEv1 came.
    pub(super) fn receive_v1(
        &mut self,
        raw: &Raw<'_>,
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        // Off unless a connection says so.
        if self.v1.is_empty() && cx.config.connections.iter().all(|c| c.ikev1.is_none()) {
            return Err(Refused::Version);
        }
        let header = &raw.header;
        let (initiator, responder) = (header.initiator_spi, header.responder_spi);
        let is_phase_1 =
            [ExchangeType::IDENTITY_PROTECTION, ExchangeType::AGGRESSIVE].contains(&header.exchange);
        let begins = responder == IkeSpi::NONE && is_phase_1;
        if begins && !self.by_spi.contains_key(&initiator) {
            return match self.half_open.get(&(path.peer, initiator)).copied() {
                Some(id) => self.receive_of_v1(id, raw, path, cx),
                None => self.receive_first_v1(raw, path, cx),
            };
        }
        let of = |spi: IkeSpi, role| {
            let id = self.by_spi.get(&spi).copied()?;
            let sa = self.v1.get(&id).filter(|sa| sa.role() == role)?;
            Some((id, sa.spis()))
        };
        let found = of(responder, Role::Responder).filter(|(_, spis)| spis.initiator == initiator);
        // While the responder's is not known, its first message says it.
        let is_its = |spis: Spis| spis.responder == responder || spis.responder == IkeSpi::NONE;
        let found = found.or_else(|| of(initiator, Role::Initiator).filter(|(_, spis)| is_its(*spis)));
        let (id, _) = found.ok_or(Refused::UnknownSpi)?;
        self.receive_of_v1(id, raw, path, cx)
    }

    fn receive_of_v1(
        &mut self,
        id: IkeSaId,
        raw: &Raw<'_>,
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let (mut received, mut is_part) = (Ok(()), false);
        let had_changed = self.is_changed(id);
        self.with_v1(id, cx, |sa, cx| {
            received = sa.receive(raw, path, cx);
            is_part = raw.first == PayloadType::FRAGMENT && sa.unproven_octets() > 0;
        });
        // Nor does a part of what is not whole, which anybody can send.
        if (received.is_err() || is_part) && !had_changed {
            self.is_as_before(id);
        }
        Ok(received?)
    }

    /// A message that might begin one. There are no cookies in IKEv1: where IKEv2 begins to ask for them, nothing is kept of it, so
    /// that whoever is not where it says cannot take the place of IKE SAs.
    fn receive_first_v1(&mut self, raw: &Raw<'_>, path: Path, cx: &mut Context<'_>) -> Result<(), Refused> {
        if raw.octets.len() > LONGEST_FIRST {
            return Err(Refused::TooLong);
        }
        let header = &raw.header;
        if header.message_id != 0 {
            return Err(Dropped::MessageId(header.message_id).into());
        }
        if !self.rates.take(path.peer.ip(), cx.config.firsts_a_second, cx.now_ms) {
            return Err(Refused::TooOften);
        }
        let of_host = self.of_host.get(&host(path.peer.ip())).copied().unwrap_or_default();
        let is_loaded = self.half_open.len() >= cx.config.cookies_from.min(cx.config.most_half_open);
        if is_loaded || 2 * of_host >= cx.config.most_half_open_of_one {
            return Err(Refused::TooMany);
        }
        if self.is_full(cx) {
            return Err(Refused::Full);
        }
        let connection = match v1::first(raw, path, cx.config) {
            Ok(connection) => connection,
            Err(refused) => {
                if refused == Refused::NoProposal {
                    v1::refuse_first(header, path, cx);
                }
                return Err(refused);
            }
        };
        let spis = Spis { initiator: header.initiator_spi, responder: self.free_spi(cx) };
        let id = self.reserve();
        self.add_v1(id, &connection, (Role::Responder, spis), path, cx);
        let secret = self.secret_of_nobody.get_or_insert_with(|| Secret::copy_of(&cx.random::<32>()));
        if let Some(sa) = self.v1.get_mut(&id).filter(|_| connection.is_aggressive()) {
            sa.secret = Some(secret.clone());
        }
        self.now_half_open(id, (path.peer, header.initiator_spi));
        self.receive_of_v1(id, raw, path, cx)
    }

    /// Does something with one, and keeps what is known of it in step. False if there is none.
    pub(crate) fn with_v1(
        &mut self,
        id: IkeSaId,
        cx: &mut Context<'_>,
        does: impl FnOnce(&mut IkeSa, &mut Context<'_>),
    ) -> bool {
        let Some(sa) = self.v1.get_mut(&id) else { return false };
        let told = cx.out.len();
        std::mem::swap(&mut sa.contacts, &mut self.contacts);
        std::mem::swap(&mut sa.leases, &mut self.leases);
        let (held, committing) = (sa.unproven_octets(), sa.committing());
        does(sa, cx);
        if sa.committing() != committing {
            committing.iter().for_each(|spi| _ = self.committing.remove(spi));
            self.committing.extend(sa.committing());
        }
        if !self.unproven.change(held, sa.unproven_octets()) {
            sa.forget_fragments();
        }
        std::mem::swap(&mut sa.contacts, &mut self.contacts);
        std::mem::swap(&mut sa.leases, &mut self.leases);
        let contact_at = (*sa.phase() == Phase::Established).then(|| sa.path().peer.ip());
        let is_new = contact_at != sa.contact_at || has_changed(cx.out.range(told..));
        if let Some(ids) = sa.contact_ids().filter(|_| is_new) {
            match contact_at {
                Some(at) => self.contacts.add(&ids, id, at, sa.carried().cloned().collect()),
                None => self.contacts.remove(&ids, id),
            }
            sa.contact_at = contact_at;
        }
        self.changed.iter_mut().for_each(|changed| _ = changed.insert(id));
        note_children(&mut self.by_child, id, cx.out.range(told..));
        let legacies = std::mem::take(&mut sa.legacies);
        let (spis, role, first, due) = (sa.spis(), sa.role(), sa.first_peer(), sa.due_ms());
        let noted = std::mem::replace(&mut sa.noted_due_ms, due);
        let (is_connecting, is_closed) =
            (*sa.phase() == Phase::Connecting, matches!(sa.phase(), Phase::Closed(_)));
        let left = sa.heir.map(|heir| (heir, sa.take_known_children(), sa.take_given()));
        self.due.remove(&(noted, id));
        if !is_connecting {
            self.no_longer_half_open(id, (first, spis.initiator));
        }
        if is_closed {
            cx.out.extend(self.v1.remove(&id).map(|sa| Output::Closed(sa)));
            self.by_spi.remove(&ours(role, spis));
        } else {
            self.due.insert((due, id));
        }
        if let Some((heir, children, given)) = left {
            self.pass_on_given(id, heir, given, cx);
            if !children.is_empty() {
                self.pass_on(id, heir, children, cx);
            }
        }
        legacies.into_iter().for_each(|legacy| self.inherit_v1(id, legacy, cx));
        true
    }

    /// What one was given, and has given, is another's.
    fn pass_on_given(&mut self, from: IkeSaId, heir: IkeSaId, given: Given, cx: &mut Context<'_>) {
        if given.ours.is_empty() && given.theirs.is_empty() {
            return;
        }
        match (self.v1.contains_key(&heir), self.v1.get_mut(&from)) {
            (true, _) => _ = self.with_v1(heir, cx, |sa, _| sa.inherit(given, from)),
            (false, Some(sa)) => sa.keep_given(given),
            (false, None) => given.theirs.iter().for_each(|lease| self.leases.take_back(lease, from.0)),
        }
    }

    /// The child SAs of one are another's.
    fn pass_on(&mut self, from: IkeSaId, heir: IkeSaId, children: Vec<ChildSa>, cx: &mut Context<'_>) {
        let to = if self.v1.contains_key(&heir) { heir } else { from };
        self.by_child.extend(children.iter().map(|child| (child.spi_in, to)));
        if let Some(from) = self.v1.get_mut(&from).filter(|_| to != from) {
            let tasks = from.take_tasks();
            self.with_v1(to, cx, |sa, cx| sa.take_over(children, tasks, cx));
        } else if let Some(sa) = self.v1.get_mut(&to) {
            sa.heir = None;
            self.with_v1(to, cx, |sa, cx| sa.take_over(children, (vec![], vec![]), cx));
        }
    }

    /// Another takes what one leaves.
    fn inherit_v1(&mut self, from: IkeSaId, legacy: Legacy, cx: &mut Context<'_>) {
        match legacy {
            Legacy::Superseded(other) => self.supersede(other, cx),
            Legacy::Heir(other) if !self.are_alike(from, other) => {
                if self.v1.get(&from).is_some_and(|sa| sa.connection().unique == Unique::Replace) {
                    self.supersede(other, cx);
                }
            }
            Legacy::Heir(other) => {
                let of = |id| {
                    let sa = self.v1.get(&id).filter(|sa| *sa.phase() == Phase::Established)?;
                    Some((sa.spis().initiator, sa.begun_ms, sa.established_ms()?))
                };
                let (Some(this), Some(that)) = (of(from), of(other)) else { return };
                // Both ends may have begun one in the place of a third: both take the same.
                let is_at_once = this.1 <= that.2 && self.is_anew(other);
                let (heir, old) = if is_at_once && that.0 > this.0 { (other, from) } else { (from, other) };
                self.with_v1(heir, cx, |sa, cx| sa.event(Event::Replaced(old), cx));
                let ends_at_ms = cx.now_ms + REPLACED_MS;
                self.with_v1(old, cx, |sa, cx| sa.be_replaced(heir, ends_at_ms, cx));
            }
            Legacy::Deleted => {
                let ids = self.v1.get(&from).and_then(|sa| sa.contact_ids());
                let others = ids.map(|ids| self.contacts.others(&ids, from)).unwrap_or_default();
                let heir = others.into_iter().rev().find(|other| self.are_alike(from, *other));
                self.with_v1(from, cx, |sa, cx| match heir {
                    Some(heir) => sa.be_replaced(heir, cx.now_ms, cx),
                    None => sa.close(Closed::ByPeer, cx),
                });
            }
            Legacy::Anew => {
                let Some(sa) = self.v1.get(&from) else { return };
                let (connection, path) = (sa.connection().clone(), sa.path());
                let expected = sa.ids().map(|(_, theirs)| theirs.clone());
                let before = sa.given().ours.clone();
                if sa.anew.is_some_and(|anew| self.v1.contains_key(&anew)) {
                    return;
                }
                // RFC 3947 §4: at the ports that they have, where a NAT knows them.
                let id = self.reserve();
                self.begin_v1(id, &connection, None, path, cx);
                self.with_v1(id, cx, |sa, cx| {
                    sa.expected = expected;
                    sa.ask_again_for(before);
                    sa.event(Event::Reauthenticating(from), cx);
                });
                self.with_v1(from, cx, |sa, _| sa.anew = Some(id));
            }
        }
    }

    /// Whether what is under one can go on under another: both are of one connection, with a peer at one address.
    fn are_alike(&self, one: IkeSaId, other: IkeSaId) -> bool {
        let of = |id| self.v1.get(&id).map(|sa| (&sa.connection().name, sa.path().peer.ip()));
        let is_there = self.v1.get(&other).is_some_and(|sa| *sa.phase() == Phase::Established);
        is_there && of(one) == of(other)
    }

    /// Whether it has taken the place of another.
    fn is_anew(&self, id: IkeSaId) -> bool {
        self.v1.get(&id).is_some_and(|sa| sa.has_taken_place)
    }

    /// The peer knows one no more, of either version.
    pub(super) fn supersede(&mut self, id: IkeSaId, cx: &mut Context<'_>) {
        if !self.with_v1(id, cx, |sa, cx| sa.close(Closed::Superseded, cx)) {
            self.with(id, cx, |sa, cx| sa.be_superseded(Some(u64::MAX), cx));
        }
    }
}
