//! What happens, for the log and for whoever listens.

use super::{Ike, failures::Failure, names::Waiting};
use crate::report::{ChildReport, EventReport, IkeSaReport, What};
use portcullis_ike::{
    crypto::keys::Role,
    ike_sa::{IkeSa, IkeSaId, Path},
    v2::{
        child::ChildSa,
        output::{Event, Output},
        stranger::Stranger,
    },
};
use portcullis_sadb::{Sadb, Spi};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

/// Events that wait to be taken, at most; those behind are lost.
const MOST_WAITING: usize = 1 << 14;

/// What has happened and is not told yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Somebody listens.
    is_heard: bool,
    waiting: VecDeque<EventReport>,
    /// IKE SAs that are gone, until all is told of them.
    closed: Vec<Box<dyn IkeSa>>,
    /// The child SA that went last, if somebody listens.
    gone: Option<ChildReport>,
    /// Whether another has the place of that.
    is_gone_replaced: bool,
    /// IKE SAs whose place others have.
    replaced: BTreeSet<IkeSaId>,
    /// By connection.
    pub counters: BTreeMap<String, Counters>,
}

fn list(addresses: &[IpAddr]) -> String {
    let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
}

/// How often something has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// IKE SAs were established.
    pub ike_up: u64,
    /// IKE SAs were not established.
    pub ike_failed: u64,
    /// IKE SAs have taken the place of others.
    pub ike_replaced: u64,
    /// IKE SAs have ended.
    pub ike_down: u64,
    /// Child SAs came up.
    pub child_up: u64,
    /// Child SAs have taken the place of others.
    pub child_replaced: u64,
    /// Child SAs did not come up.
    pub child_failed: u64,
    /// Child SAs have ended.
    pub child_down: u64,
}

impl Ike {
    /// Whether somebody listens: if not, events are for the log alone.
    pub fn set_heard(&mut self, is_heard: bool) {
        self.events.is_heard = is_heard;
        if !is_heard {
            self.events.waiting.clear();
        }
    }

    /// What has happened since it was last asked.
    pub fn take_events(&mut self) -> VecDeque<EventReport> {
        std::mem::take(&mut self.events.waiting)
    }

    /// How often something has happened, by connection.
    pub fn counters(&self) -> impl Iterator<Item = (&str, Counters)> {
        self.events.counters.iter().map(|(name, counters)| (&**name, *counters))
    }

    /// Counts from nothing again, of a connection or of all.
    pub fn reset_counters(&mut self, of: Option<&str>) {
        self.events.counters.retain(|name, _| of.is_some_and(|of| of != name));
        if of.is_none() {
            self.refused.clear();
        }
    }

    /// Keeps IKE SAs that are gone, while there is something to be told of them.
    pub(super) fn keep_closed(&mut self, out: &mut VecDeque<Output>) {
        if out.iter().any(|output| matches!(output, Output::Closed(_))) {
            for output in std::mem::take(out) {
                match output {
                    Output::Closed(sa) => self.events.closed.push(sa),
                    other => out.push_back(other),
                }
            }
        }
    }

    /// All is told of them.
    pub(super) fn drop_closed(&mut self) {
        self.events.closed.clear();
    }

    fn any_sa(&self, id: IkeSaId) -> Option<&dyn IkeSa> {
        self.engine.ike_sa(id).or_else(|| self.events.closed.iter().map(|sa| &**sa).find(|sa| sa.id() == id))
    }

    /// A child SA is about to go out of the SADB.
    pub(super) fn note_gone(&mut self, child: &ChildSa, sadb: &Sadb) {
        self.events.is_gone_replaced = child.is_replaced;
        self.events.gone = self.events.is_heard.then(|| self.child_report(child, sadb));
    }

    /// It has begun an IKE SA.
    pub(super) fn tell_begun(&mut self, id: IkeSaId) {
        let Some(sa) = self.engine.ike_sa(id) else { return };
        let (name, peer) = (sa.connection().name.clone(), sa.path().peer);
        let text = format!("connection '{name}': IKE SA {} is begun with {peer}", id.0);
        tracing::info!("{text}");
        self.put(id, What::IkeBegun, name, text, vec![], None);
    }

    /// It is not known where the peer of an IKE SA is that was to be begun.
    pub(super) fn tell_not_begun(&mut self, waiting: &Waiting, why: &str) {
        let name = waiting.connection.clone();
        self.note_outcome(&name, &Event::Closed(why.to_owned()));
        let text = format!("connection '{name}': IKE SA {} is not begun: {why}", waiting.id.0);
        tracing::warn!("{text}");
        self.events.counters.entry(name.clone()).or_default().count(&What::IkeFailed);
        self.put(waiting.id, What::IkeFailed, name, text, vec![], None);
    }

    /// Tells an event.
    pub(super) fn tell(&mut self, sadb: &Sadb, id: IkeSaId, event: Event) {
        let Some(sa) = self.any_sa(id) else { return tracing::info!("IKE SA {}: {event:?}", id.0) };
        let name = sa.connection().name.clone();
        if !sa.given().ours.is_empty() {
            self.virtual_ips.note();
        }
        self.note_outcome(&name, &event);
        let Some(sa) = self.any_sa(id) else { return };
        let of = |spi: u32| {
            let child = sa.children().iter().find(|child| child.spi_in == spi);
            child.filter(|_| self.events.is_heard).map(|child| self.child_report(child, sadb))
        };
        let is_begun_alone = sa.established_ms().is_none();
        let (mut children, mut before) = (vec![], None);
        let (what, text) = match &event {
            Event::Established => (What::IkeUp, format!("IKE SA {} is established", id.0)),
            Event::Configured(ours, dns) => {
                let text = format!("the peer gives us {}; names are asked of {}", list(ours), list(dns));
                (What::Configured, text)
            }
            Event::Gave(who, theirs) => {
                let of = |(pool, address): &(String, IpAddr)| format!("{address} of pool '{pool}'");
                let given: Vec<_> = theirs.iter().map(of).collect();
                (What::Gave, format!("{who} gets {}", given.join(", ")))
            }
            Event::ChildUp(child, spi) => {
                children.extend(of(*spi));
                (What::ChildUp { child: child.clone() }, format!("child '{child}' is up, SPI {}", Spi(*spi)))
            }
            Event::ChildReplaced(child, old, spi) => {
                children.extend([of(*old), of(*spi)].into_iter().flatten());
                let text = format!("child '{child}' is replaced, SPI {} by {}", Spi(*old), Spi(*spi));
                (What::ChildReplaced { child: child.clone() }, text)
            }
            Event::ChildFailed(child, why) => {
                (What::ChildFailed { child: child.clone() }, format!("child '{child}': {why}"))
            }
            Event::ChildNarrowed(child, spi, before, now) => {
                let what = format!("connection '{name}': child '{child}', SPI {}", Spi(*spi));
                return tracing::warn!("{what}, is for less than what it replaces: {now}, and not {before}");
            }
            Event::ChildDown(child, spi) => {
                let spi_in = Spi(*spi).to_string();
                let text = format!("child '{child}' is down, SPI {spi_in}");
                children.extend(self.events.gone.take());
                let replaced = self.events.is_gone_replaced;
                (What::ChildDown { child: child.clone(), spi_in, replaced }, text)
            }
            Event::Replaced(old) => {
                before = self.any_sa(*old).filter(|_| self.events.is_heard).map(|sa| self.sa_report(sa));
                let text = format!("IKE SA {} has taken the place of {}", id.0, old.0);
                (What::IkeReplaced { old: old.0 }, text)
            }
            Event::Moved(path) => {
                let text = format!("IKE SA {} is between {} and {}", id.0, path.local, path.peer);
                (What::IkeMoved, text)
            }
            Event::MoveFailed(why) => (What::IkeNotMoved, format!("IKE SA {} does not move: {why}", id.0)),
            Event::Redirected(new, to) => {
                let text = format!("IKE SA {} is sent to {to}, with which {} is begun", id.0, new.0);
                (What::IkeRedirected { new: new.0 }, text)
            }
            Event::NotResumed => {
                let text = format!("IKE SA {} does not come back by its ticket, and is begun anew", id.0);
                (What::IkeBegun, text)
            }
            Event::Reauthenticating(old) => {
                let text = format!("IKE SA {} is begun to authenticate {} anew", id.0, old.0);
                (What::IkeBegun, text)
            }
            Event::RekeyFailed(why) => {
                (What::IkeNotReplaced, format!("IKE SA {} is not replaced: {why}", id.0))
            }
            Event::Closed(why) => {
                let replaced = self.events.replaced.contains(&id);
                let what = match sa.established_ms() {
                    Some(_) => What::IkeDown { replaced },
                    None if replaced => What::IkeDown { replaced },
                    None => What::IkeFailed,
                };
                (what, format!("IKE SA {} is closed: {why}", id.0))
            }
        };
        let text = format!("connection '{name}': {text}");
        match what {
            What::IkeReplaced { old } => _ = self.events.replaced.insert(IkeSaId(old)),
            // It ends, and has not failed.
            What::IkeRedirected { new } if is_begun_alone && new != id.0 => {
                _ = self.events.replaced.insert(id);
            }
            What::IkeDown { replaced: true } => _ = self.events.replaced.remove(&id),
            _ => {}
        }
        let failed = match &event {
            Event::ChildFailed(child, why) => Some((Some(child.clone()), why)),
            Event::MoveFailed(why) | Event::RekeyFailed(why) => Some((None, why)),
            Event::Closed(why) if what == What::IkeFailed => Some((None, why)),
            _ => None,
        };
        let text = match failed {
            Some((child, why)) => self.note_failure(id, child, why, text),
            None => text,
        };
        match what {
            What::IkeFailed | What::IkeNotMoved | What::IkeNotReplaced | What::ChildFailed { .. } => {
                tracing::warn!("{text}")
            }
            _ => tracing::info!("{text}"),
        }
        self.events.counters.entry(name.clone()).or_default().count(&what);
        self.put(id, what, name, text, children, before);
    }

    /// Keeps what did not come about; what is to be told of it, with the side that we are on.
    fn note_failure(&mut self, id: IkeSaId, child: Option<String>, why: &str, text: String) -> String {
        let Some(sa) = self.any_sa(id) else { return text };
        let is_by_us = sa.role() == Role::Initiator;
        let (local, peer, connection) = (sa.path().local, sa.path().peer, Some(sa.connection().name.clone()));
        let failure = Failure { connection, child, is_by_us, local, peer, why: why.to_owned() };
        let now_ms = self.now_ms();
        self.failures.add(failure, now_ms);
        let role = if is_by_us { "initiator" } else { "responder" };
        format!("{text} ({role}, {local} to {peer})")
    }

    /// A peer was told that nothing that it offers is wanted.
    pub(super) fn note_stranger(&mut self, stranger: &Stranger) {
        let now_ms = self.now_ms();
        if !self.failures.admit_stranger(now_ms) {
            return;
        }
        let (Path { local, peer }, why) = (stranger.path, stranger.to_string());
        let connection = match &stranger.connections[..] {
            [only] => Some(only.name.clone()),
            _ => None,
        };
        let failure = Failure { connection, child: None, is_by_us: false, local, peer, why };
        if self.failures.add(failure, now_ms) {
            let told = self.failures.report(now_ms).into_iter().next();
            tracing::warn!("{}", told.map_or(String::new(), |failure| failure.to_string()));
        }
    }

    fn put(
        &mut self,
        id: IkeSaId,
        what: What,
        connection: String,
        text: String,
        children: Vec<ChildReport>,
        before: Option<IkeSaReport>,
    ) {
        if self.events.is_heard && self.events.waiting.len() < MOST_WAITING {
            let sa = self.any_sa(id).map(|sa| IkeSaReport { children, ..self.sa_report(sa) });
            self.events.waiting.push_back(EventReport { what, ike_sa: id.0, connection, text, sa, before });
        }
    }
}

impl Counters {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("ike-up", self.ike_up),
            ("ike-failed", self.ike_failed),
            ("ike-rekey", self.ike_replaced),
            ("ike-down", self.ike_down),
            ("child-up", self.child_up),
            ("child-rekey", self.child_replaced),
            ("child-failed", self.child_failed),
            ("child-down", self.child_down),
        ]
    }

    /// With others.
    pub fn and(self, other: Counters) -> Counters {
        Counters {
            ike_up: self.ike_up + other.ike_up,
            ike_failed: self.ike_failed + other.ike_failed,
            ike_replaced: self.ike_replaced + other.ike_replaced,
            ike_down: self.ike_down + other.ike_down,
            child_up: self.child_up + other.child_up,
            child_replaced: self.child_replaced + other.child_replaced,
            child_failed: self.child_failed + other.child_failed,
            child_down: self.child_down + other.child_down,
        }
    }

    fn count(&mut self, what: &What) {
        let counter = match what {
            What::IkeUp => &mut self.ike_up,
            What::IkeReplaced { .. } => &mut self.ike_replaced,
            What::IkeDown { replaced: false } => &mut self.ike_down,
            What::IkeFailed => &mut self.ike_failed,
            What::ChildUp { .. } => &mut self.child_up,
            What::ChildReplaced { .. } => &mut self.child_replaced,
            What::ChildFailed { .. } => &mut self.child_failed,
            What::ChildDown { replaced: false, .. } => &mut self.child_down,
            What::IkeBegun
            | What::Configured
            | What::Gave
            | What::IkeMoved
            | What::IkeNotMoved
            | What::IkeNotReplaced
            | What::IkeRedirected { .. }
            | What::IkeDown { replaced: true }
            | What::ChildDown { replaced: true, .. } => return,
        };
        *counter += 1;
    }
}
