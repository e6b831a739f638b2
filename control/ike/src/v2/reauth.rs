//! Reauthentication (RFC 7296 §2.8.3): who has begun proves anew who it is, and has the peer do the same. An IKE SA and its
//! child SAs are made as at first; those from before go when the new ones are in use, so that packets always have an SA.
//!
//! ```text
//!  who has begun                                       the other
//!  IKE_SA_INIT, IKE_AUTH with the first child    ◀──▶  N(AUTH_LIFETIME) says by when it is to be done again (RFC 4478)
//!  CREATE_CHILD_SA for each further child        ◀──▶
//!  INFORMATIONAL, by the new IKE SA              ◀──▶  sends by the new child SAs
//!  INFORMATIONAL D, by the old one               ◀──▶
//! ```
//!
//! Who answers does not send by a child SA that the peer may not have yet (RFC 7296 §2.8): the peer's next request shows that it
//! has it, or a packet by it, or else some time does. That is long where packets have an older one to go by, and short where they
//! have none, and are dropped: no longer than the answer is on its way.

use super::{
    child::{EndedBy, Wanted},
    context::Context,
    ike_sa::{Closed, IkeSa, IkeSaId, Phase, Task},
    output::{ChildChange, Output},
    redirect::{Gateway, Redirection},
    rekey_ike::Legacy,
};
use crate::{
    connection::{Connection, Unique, rekey_at_ms},
    kept::keep,
    message::{Notify, NotifyType, Payload, Payloads},
    traffic_selector::Policy,
};
use std::{net::IpAddr, sync::Arc};

/// What has not come to anything is tried again after so long: both first exchanges are given up before.
const AGAIN_MS: u64 = 400_000;

/// What another has the place of goes after so long, if the peer does not delete it: it may have to make child SAs yet.
const SETTLE_MS: u64 = 10_000;

/// A peer that gives less time than this is not believed: all that it would be is work.
const LEAST_MS: u64 = 10_000;

/// When a peer has its answer, even if it asks nothing else: longer than it asks again for what it has missed.
const HAS_IT_MS: u64 = 200_000;

/// The same at most where packets have nothing else to go by.
const SOON_MS: u64 = 500;

/// An IKE SA that is to be begun, and what it is to have.
#[derive(Debug)]
pub(super) struct Anew {
    pub connection: Arc<Connection>,
    pub between: (IpAddr, IpAddr),
    pub children: Vec<Wanted>,
    /// Another gateway, and what is known there of how we came to it.
    pub redirected: Option<(Gateway, Redirection)>,
}

/// What an IKE SA takes the place of.
#[derive(Debug)]
pub(super) struct Reauthenticates {
    /// Which was there.
    pub before: IkeSaId,
    /// The first of those that took each other's place.
    pub origin: IkeSaId,
    /// The children besides the first.
    children: Vec<Wanted>,
    /// The addresses that the peer has given us, which it is asked for again.
    pub ours: Vec<IpAddr>,
    /// The peer is told that we have all.
    is_known: bool,
}

/// When an IKE SA is authenticated anew, and when it ends otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lifetime {
    pub reauth_at_ms: u64,
    pub ends_at_ms: u64,
    /// When it ends, too, unless another with other keys has its place.
    pub keys_end_at_ms: u64,
}

impl Lifetime {
    pub(super) const ENDLESS: Lifetime =
        Lifetime { reauth_at_ms: u64::MAX, ends_at_ms: u64::MAX, keys_end_at_ms: u64::MAX };

    /// When something is to be done.
    pub(super) fn due_ms(&self) -> u64 {
        self.reauth_at_ms.min(self.end_ms())
    }

    /// When it is at its end.
    fn end_ms(&self) -> u64 {
        self.ends_at_ms.min(self.keys_end_at_ms)
    }
}

/// How long the peer has, as AUTH_LIFETIME says it (RFC 4478 §3).
fn said_ms(payloads: &Payloads) -> Option<u64> {
    let notify = payloads.notifies(NotifyType::AUTH_LIFETIME).next()?;
    Some(u64::from(u32::from_be_bytes(notify.data.as_slice().try_into().ok()?)) * 1000)
}

impl IkeSa {
    /// Whether it is for us to authenticate anew: we have begun the first of those that took each other's place.
    pub fn leads(&self) -> bool {
        self.mobike.leads
    }

    /// When it is authenticated anew, if that is known.
    pub fn reauth_at_ms(&self) -> Option<u64> {
        Some(self.lifetime.reauth_at_ms).filter(|ms| *ms < u64::MAX)
    }

    /// Both ends are authenticated.
    pub(super) fn live(&mut self, cx: &mut Context<'_>) {
        let Connection { reauth_ms, over_ms, rand_ms, .. } = *self.connection;
        // RFC 5723 §4.2: it goes on from when they were.
        let reauth_ms = match reauth_ms {
            0 => 0,
            ms => ms.saturating_sub(self.authenticated_ago_ms()).max(1),
        };
        if reauth_ms > 0 {
            let random = u32::from_be_bytes(cx.random());
            let at_ms = rekey_at_ms(cx.now_ms, reauth_ms, rand_ms, random);
            self.lifetime.ends_at_ms = cx.now_ms.saturating_add(reauth_ms).saturating_add(over_ms);
            self.lifetime.reauth_at_ms = if self.leads() { at_ms } else { u64::MAX };
        }
        let Some(reauthenticates) = &mut self.reauthenticates else { return };
        let children = std::mem::take(&mut reauthenticates.children);
        self.tasks.extend(children.into_iter().map(Task::Child));
    }

    /// What a responder says of how long it lasts.
    pub(super) fn lifetime_notify(&self, connection: &Connection) -> Option<Payload> {
        let left_ms = connection.reauth_ms.saturating_sub(self.authenticated_ago_ms());
        let secs = u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX);
        (secs > 0).then(|| Payload::Notify(Notify::new(NotifyType::AUTH_LIFETIME, &secs.to_be_bytes())))
    }

    /// What the peer says of how long it lasts.
    // RFC 4478 §2: who has begun does so before that time.
    pub(super) fn learn_lifetime(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let Some(ms) = said_ms(payloads).filter(|_| self.leads()) else { return };
        let ms = ms.max(LEAST_MS);
        let random = u32::from_be_bytes(cx.random());
        let rand_ms = self.connection.rand_ms.min(ms / 10);
        let at_ms = rekey_at_ms(cx.now_ms, ms, rand_ms, random);
        self.lifetime.reauth_at_ms = self.lifetime.reauth_at_ms.min(at_ms);
    }

    /// Its time has come.
    pub(super) fn outlive(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Established {
            return;
        }
        if self.lifetime.end_ms() <= cx.now_ms {
            self.end_by_age(cx);
        } else if self.lifetime.reauth_at_ms <= cx.now_ms {
            self.reauthenticate(cx);
        }
    }

    /// It is at its end, unless another may have its place yet: nobody may have been here to begin that, or it was to have
    /// other keys alone.
    fn end_by_age(&mut self, cx: &mut Context<'_>) {
        if self.leads() && self.reauthenticated_by.is_none() {
            self.reauthenticate(cx);
        }
        let tried_until_ms = self.reauth_at_ms().filter(|ms| *ms > cx.now_ms);
        if let Some(until_ms) = tried_until_ms.filter(|_| self.leads()) {
            (self.lifetime.ends_at_ms, self.lifetime.keys_end_at_ms) = (until_ms, until_ms);
            return;
        }
        self.lifetime = Lifetime::ENDLESS;
        self.children.iter_mut().for_each(|child| child.end(EndedBy::Age));
        self.tasks.push_front(Task::Delete);
    }

    /// Another is begun in its place.
    pub(super) fn reauthenticate(&mut self, cx: &Context<'_>) {
        self.lifetime.reauth_at_ms = cx.now_ms + AGAIN_MS;
        let children = self.children_to_keep();
        let between = (self.path.local.ip(), self.path.peer.ip());
        let connection = self.connection.clone();
        let anew = Anew { connection, between, children, redirected: None };
        self.legacies.push(Legacy::Anew(Box::new(anew)));
    }

    /// The children that another in its place is to have.
    pub(super) fn children_to_keep(&self) -> Vec<Wanted> {
        // Those for resources come behind the first.
        let stays = self.children.iter().filter(|child| !child.is_replaced && child.resource.is_none());
        stays.map(|child| Wanted::from(&child.config)).collect()
    }

    /// The children that were to be made under it, of which the first was asked for with it.
    pub(super) fn children_wanted(&mut self, first: Option<Wanted>) -> Vec<Wanted> {
        let further = self.reauthenticates.as_mut().map(|r| std::mem::take(&mut r.children));
        let waiting = self.tasks.iter().filter_map(|task| match task {
            Task::Child(child) => Some(child.clone()),
            _ => None,
        });
        first.into_iter().chain(waiting).chain(further.into_iter().flatten()).collect()
    }

    /// It takes the place of another. Its first child is made with it.
    pub(super) fn take_place_of(
        &mut self,
        (before, origin): (IkeSaId, IkeSaId),
        children: Vec<Wanted>,
        ours: Vec<IpAddr>,
    ) {
        let mut children = children.into_iter();
        self.wanted = children.next().map(Box::new);
        let reauthenticates =
            Reauthenticates { before, origin, children: children.collect(), ours, is_known: false };
        self.reauthenticates = Some(Box::new(reauthenticates));
    }

    /// All that it is to have is there, or is not to be had: the peer is to know that we have it, and then what it takes the
    /// place of goes.
    pub(super) fn has_taken_place(&mut self) -> Option<Task> {
        let is_waited_for = |task: &Task| matches!(task, Task::Child(_) | Task::Further(..));
        if self.later.iter().any(|(_, task)| is_waited_for(task)) {
            return None;
        }
        let is_known = std::mem::replace(&mut self.reauthenticates.as_mut()?.is_known, true);
        if !is_known {
            return Some(Task::Liveness);
        }
        let Reauthenticates { before, origin, .. } = *self.reauthenticates.take()?;
        self.legacies.push(Legacy::Outlived(before, origin));
        None
    }

    /// Whether there is a child SA of a child.
    pub(super) fn has_child(&self, name: &str) -> bool {
        self.children.iter().any(|child| child.config.name == name && !child.is_replaced)
    }

    /// What was refused may be had once what this has the place of is gone.
    pub(super) fn ask_when_alone(&mut self, children: Vec<Wanted>, now_ms: u64) {
        self.later.extend(children.into_iter().map(|child| (now_ms + SETTLE_MS, Task::Child(child))));
    }

    /// Another has its place.
    pub(super) fn be_outlived(&mut self, cx: &mut Context<'_>) {
        self.children.iter_mut().for_each(|child| child.is_replaced = true);
        self.tasks.clear();
        self.ask_later(Task::Delete, cx);
    }

    /// The peer has begun another, at this time if it has said that it knows none from before.
    pub(super) fn be_superseded(&mut self, begun_ms: Option<u64>, cx: &mut Context<'_>) {
        match begun_ms {
            Some(begun_ms) if self.established_ms < Some(begun_ms) => self.close(Closed::Superseded, cx),
            // Both were begun at once, before either was there.
            Some(_) if self.connection.unique == Unique::No => {}
            // It may be what the peer authenticates anew, and has then to delete itself.
            _ => self.later.push((cx.now_ms + SETTLE_MS, Task::Delete)),
        }
    }

    /// Whether an older child SA, of another IKE SA with this peer, carries the packets that one of this policy is for.
    pub(super) fn has_elder(&self, policy: &Policy) -> bool {
        self.contact_ids().is_some_and(|ids| self.contacts.carry(&ids, self.id, policy))
    }

    /// What its child SAs carry: those that are sent by. What is in the place of another is not, as long as that is there.
    pub(super) fn carried(&self) -> impl Iterator<Item = &Arc<Policy>> {
        let is_waiting = |spi_in| {
            self.waiting_children().any(|waiting| waiting == spi_in)
                || self.children.iter().any(|old| old.successor == Some(spi_in))
        };
        self.children.iter().filter(move |child| !is_waiting(child.spi_in)).map(|child| &child.policy)
    }

    /// What child SAs have waited behind is gone: they are sent by.
    // RFC 7296 §2.8: who deletes what was replaced has what replaces it.
    pub(super) fn use_uncarried(&mut self, cx: &mut Context<'_>) {
        let is_behind = |at_ms: u64| at_ms > cx.now_ms + SOON_MS;
        let uncarried = self.later.iter().filter_map(|(at_ms, task)| {
            let Task::Use(spi_in) = task else { return None };
            let child = self.children.iter().find(|child| child.spi_in == *spi_in)?;
            (is_behind(*at_ms) && !self.has_elder(&child.policy)).then_some(*spi_in)
        });
        for spi_in in uncarried.collect::<Vec<_>>() {
            self.hear_child(spi_in, cx);
        }
    }

    /// Sends by a child SA once the peer is known to have it.
    pub(super) fn use_later(&mut self, spi_in: u32, has_elder: bool, now_ms: u64) {
        // An answer is on its way for half of a round, and what is sent then comes as long behind it.
        let soon_ms = self.round_ms.map_or(SOON_MS, |ms| SOON_MS.min(u64::from(ms) / 2));
        let wait_ms = if has_elder { HAS_IT_MS } else { soon_ms };
        self.later.push((now_ms + wait_ms, Task::Use(spi_in)));
    }

    /// Child SAs that are not sent by before the peer is known to have them, by our SPIs.
    pub(super) fn waiting_children(&self) -> impl Iterator<Item = u32> {
        let is_there = |spi_in: &u32| self.children.iter().any(|child| child.spi_in == *spi_in);
        let waiting = self.later.iter().filter_map(|(_, task)| match task {
            Task::Use(spi_in) => Some(*spi_in),
            _ => None,
        });
        waiting.filter(is_there)
    }

    /// A packet by a child SA has come: the peer has it.
    pub(super) fn hear_child(&mut self, spi_in: u32, cx: &mut Context<'_>) {
        let is_it = |(_, task): &mut (u64, Task)| matches!(task, Task::Use(spi) if *spi == spi_in);
        if self.later.extract_if(.., is_it).count() > 0 {
            self.tidy_later();
            self.use_child(spi_in, cx);
        }
    }

    /// The peer is known to have a child SA.
    pub(super) fn use_child(&self, spi_in: u32, cx: &mut Context<'_>) {
        let is_there = self.children.iter().any(|child| child.spi_in == spi_in);
        cx.out.extend(is_there.then_some(Output::Child(ChildChange::Use(spi_in))));
    }

    /// The peer has asked something else since it asked for child SAs: it has them.
    pub(super) fn use_waiting(&mut self, cx: &mut Context<'_>) {
        let waiting = self.later.extract_if(.., |(_, task)| matches!(task, Task::Use(_)));
        let spi = |(_, task)| if let Task::Use(spi) = task { Some(spi) } else { None };
        let spis: Vec<u32> = waiting.filter_map(spi).collect();
        spis.into_iter().for_each(|spi| self.use_child(spi, cx));
        self.tidy_later();
    }
}

keep!(Lifetime { reauth_at_ms, ends_at_ms, keys_end_at_ms });
keep!(Reauthenticates { before, origin, children, ours, is_known });
