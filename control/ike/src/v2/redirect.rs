//! Redirection (RFC 5685): a gateway sends who has begun to another one, which it begins with instead.
//!
//! ```text
//!  who has begun                                            the gateway
//!  IKE_SA_INIT  N(REDIRECT_SUPPORTED), or N(REDIRECTED_FROM) ──▶
//!                                     ◀──  N(REDIRECT) with Ni           before there is anything,
//!  IKE_AUTH                           ──▶
//!                                     ◀──  IDr, AUTH, N(REDIRECT)        once it knows who it is,
//!                                     ◀──  INFORMATIONAL N(REDIRECT)     or at any time
//! ```
//!
//! The other gateway proves that it is who the connection's peer must be, so where it is need not be believed. One that is
//! there already is left when the other is up, as when it is authenticated anew. A name is looked up before anything is left:
//! in IKE_SA_INIT the first gateway is asked on meanwhile, and else the IKE SA is as it was.

use super::{
    child::Wanted,
    context::Context,
    ike_sa::{Asked, Closed, IkeSa, IkeSaId, Phase, Task, Then},
    informational,
    job::{Job, Outcome},
    output::{Event, Output},
    reauth::Anew,
    rekey_ike::Legacy,
    sa_init,
};
use crate::{
    connection::Connection,
    kept::{Damaged, Keep, Reader, Writer},
    message::{ExchangeType, Notify, NotifyType, Payload, Payloads},
};
use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

/// How often who has begun goes elsewhere, and in how long (RFC 5685 §10).
const MOST: usize = 5;
const PERIOD_MS: u64 = 300_000;

/// How long the peer has to go away: longer than it asks for what it misses.
const AWAY_MS: u64 = 200_000;

/// Octets of the name of a gateway, at most: the field has one octet.
const LONGEST: usize = 255;

/// Another gateway (RFC 5685 §7.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gateway {
    /// Its address.
    Address(IpAddr),
    /// Its name in the DNS.
    Name(String),
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gateway::Address(address) => address.fmt(f),
            Gateway::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Gateway {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Gateway, &'static str> {
        if let Ok(address) = text.parse() {
            return Ok(Gateway::Address(address));
        }
        let is_right = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        // Of digits alone, it is an address with a mistake.
        let is_name = text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()));
        match (1..=LONGEST).contains(&text.len()) && text.bytes().all(is_right) && is_name {
            true => Ok(Gateway::Name(text.to_owned())),
            false => Err("it is neither an address nor the name of a host"),
        }
    }
}

impl Gateway {
    /// GW Ident Type, GW Ident Len, and the identity; behind it a nonce, or nothing.
    fn notify(&self, kind: NotifyType, nonce: &[u8]) -> Notify {
        let (of, identity) = match self {
            Gateway::Address(IpAddr::V4(ip)) => (1, ip.octets().to_vec()),
            Gateway::Address(IpAddr::V6(ip)) => (2, ip.octets().to_vec()),
            Gateway::Name(name) => (3, name.bytes().take(LONGEST).collect()),
        };
        let len = identity.len() as u8;
        Notify::new(kind, &[&[of, len], &identity[..], nonce].concat())
    }

    /// The same of a peer, and the nonce.
    fn parse(data: &[u8]) -> Option<(Gateway, &[u8])> {
        let (&[of, len], rest) = data.split_first_chunk()?;
        let (identity, nonce) = rest.split_at_checked(len.into())?;
        let gateway = match of {
            1 => Gateway::Address(<[u8; 4]>::try_from(identity).ok()?.into()),
            2 => Gateway::Address(<[u8; 16]>::try_from(identity).ok()?.into()),
            3 => std::str::from_utf8(identity).ok()?.parse().ok()?,
            _ => return None,
        };
        Some((gateway, nonce))
    }
}

/// As it is on the wire.
impl Keep for Gateway {
    fn keep(&self, to: &mut Writer) {
        self.notify(NotifyType::REDIRECT, &[]).data.keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Gateway, Damaged> {
        let data: Vec<u8> = Keep::kept(from)?;
        Gateway::parse(&data).map(|(gateway, _)| gateway).ok_or(Damaged("gateway"))
    }
}

/// What there is of it in an IKE SA.
#[derive(Clone, Debug, Default)]
pub(super) struct Redirection {
    /// The peer goes where it is sent.
    pub is_taken: bool,
    /// Where we were sent here from.
    from: Option<Gateway>,
    /// When we were sent elsewhere.
    times_ms: Vec<u64>,
}

impl Redirection {
    /// We were sent where we are.
    pub fn is_followed(&self) -> bool {
        self.from.is_some()
    }

    /// Once more; nothing if that is too often.
    fn again(&self, from: IpAddr, now_ms: u64) -> Option<Redirection> {
        let mut times_ms: Vec<_> =
            self.times_ms.iter().copied().filter(|ms| now_ms - ms < PERIOD_MS).collect();
        times_ms.push(now_ms);
        let from = Some(Gateway::Address(from));
        (times_ms.len() <= MOST).then_some(Redirection { is_taken: false, from, times_ms })
    }
}

/// What sends us to another gateway, until it is known where that is.
#[derive(Debug)]
pub(super) struct Sent {
    to: Gateway,
    at: At,
}

/// When it did so.
#[derive(Debug)]
enum At {
    /// Before there is anything.
    Init(Box<sa_init::Question>),
    /// When it knows who we are, who want this child.
    Auth(Option<Box<Wanted>>),
    /// When there is an IKE SA.
    There,
}

impl Sent {
    /// The same for an IKE SA that is as this one, if there is one yet.
    pub fn again(&self) -> Option<Task> {
        matches!(self.at, At::There).then(|| Task::Go(self.to.clone()))
    }
}

/// Whether who begins goes where it is sent (RFC 5685 §3).
pub(super) fn is_taken(payloads: &Payloads) -> bool {
    payloads.has_notify(NotifyType::REDIRECT_SUPPORTED) || payloads.has_notify(NotifyType::REDIRECTED_FROM)
}

/// Where a peer is sent of whom nothing is known but where it is: away, if all connections that it could be of are elsewhere.
pub(super) fn away(between: &[Arc<Connection>], payloads: &Payloads, cx: &mut Context<'_>) -> Option<Notify> {
    let is_away = is_taken(payloads) && between.iter().all(|connection| !connection.redirect_to.is_empty());
    let first = between.first().filter(|_| is_away)?;
    let gateway = one_of(&first.redirect_to, cx)?;
    // RFC 5685 §3: it has the nonce of who has begun.
    Some(gateway.notify(NotifyType::REDIRECT, payloads.nonce()?))
}

/// One of several, so that peers are spread.
fn one_of<'a>(gateways: &'a [Gateway], cx: &mut Context<'_>) -> Option<&'a Gateway> {
    let random = u32::from_be_bytes(cx.random()) as usize;
    gateways.get(random.checked_rem(gateways.len())?)
}

/// Where a message sends us.
fn sent_to(payloads: &Payloads) -> Option<(Gateway, &[u8])> {
    Gateway::parse(&payloads.notifies(NotifyType::REDIRECT).next()?.data)
}

impl IkeSa {
    /// Whether the peer goes where it is sent (RFC 5685).
    pub fn is_redirectable(&self) -> bool {
        self.redirection.is_taken && !self.leads()
    }

    /// What who begins says.
    pub(super) fn redirect_notify(&self) -> Option<Payload> {
        let notify = match &self.redirection.from {
            _ if !self.connection.follows_redirects => return None,
            Some(from) => from.notify(NotifyType::REDIRECTED_FROM, &[]),
            None => Notify::new(NotifyType::REDIRECT_SUPPORTED, &[]),
        };
        Some(Payload::Notify(notify))
    }

    /// What is known elsewhere of how we came there, if that is to be followed.
    fn may_follow(&self, gateway: &Gateway, now_ms: u64) -> Result<Redirection, Closed> {
        let refuse = |why| Err(Closed::Redirect { to: gateway.to_string(), why });
        if !self.connection.follows_redirects {
            return refuse("the connection does not follow");
        }
        // RFC 5685 §3: a loop is to be found out.
        self.redirection
            .again(self.path.peer.ip(), now_ms)
            .map_or_else(|| refuse("it is sent elsewhere too often"), Ok)
    }

    /// Where we are to go, and what is known there of it. Nowhere if that is not to be followed, or none of its addresses can be.
    fn follow(
        &self,
        gateway: &Gateway,
        addresses: &[IpAddr],
        now_ms: u64,
    ) -> Result<(IpAddr, Redirection), Closed> {
        let redirection = self.may_follow(gateway, now_ms)?;
        let to = addresses.iter().find(|to| to.is_ipv4() == self.path.local.is_ipv4());
        let why = match addresses {
            [] => "that name is not found",
            _ => "it is of another family of addresses",
        };
        Ok((*to.ok_or_else(|| Closed::Redirect { to: gateway.to_string(), why })?, redirection))
    }

    /// Goes where it is sent, once it is known where that is.
    fn go(&mut self, sent: Sent, cx: &mut Context<'_>) {
        match &sent.to {
            Gateway::Address(to) => {
                let to = *to;
                self.go_by(sent, &[to], cx);
            }
            Gateway::Name(name) if self.may_follow(&sent.to, cx.now_ms).is_ok() => {
                self.after(Job::LookUp(name.clone()), Then::Go(Box::new(sent)), cx);
            }
            Gateway::Name(_) => self.go_by(sent, &[], cx),
        }
    }

    /// The name of a gateway is looked up.
    pub(super) fn go_looked_up(&mut self, sent: Sent, outcome: Outcome, cx: &mut Context<'_>) {
        if let Outcome::LookedUp(addresses) = outcome {
            self.go_by(sent, &addresses, cx);
        }
    }

    fn go_by(&mut self, Sent { to: gateway, at }: Sent, addresses: &[IpAddr], cx: &mut Context<'_>) {
        match (at, self.follow(&gateway, addresses, cx.now_ms)) {
            (At::Init(_), Ok((to, redirection))) => {
                self.event(Event::Redirected(self.id, gateway.to_string()), cx);
                self.redirection = redirection;
                self.path.local.set_port(self.connection.local_port);
                self.path.peer = (to, self.connection.remote_port).into();
                (self.init_error, self.deadline_ms) = (None, u64::MAX);
                self.channel.begin_anew();
                self.begin_init(cx);
            }
            (At::Init(question), Err(closed)) => self.wait_for_another(*question, closed, cx),
            (At::Auth(wanted), Ok((to, redirection))) => {
                let children = self.children_wanted(wanted.map(|wanted| *wanted));
                self.go_to(to, (gateway, redirection), children);
                // RFC 5685 §6
                self.begin_delete(cx);
            }
            (At::Auth(_), Err(closed)) => {
                (self.phase, self.deadline_ms) = (Phase::Closing, u64::MAX);
                self.ask(ExchangeType::INFORMATIONAL, &informational::delete(), cx);
                self.asked = Some(Asked::Informational(informational::Question::Refused(Box::new(closed))));
            }
            // What has taken its place looks it up, too.
            (At::There, _) if self.phase != Phase::Established => {}
            (At::There, Ok((to, redirection))) => {
                // It may be sent elsewhere again before it is left.
                self.redirection.times_ms.clone_from(&redirection.times_ms);
                let children = self.children_to_keep();
                self.go_to(to, (gateway, redirection), children);
            }
            (At::There, Err(closed)) => self.event(Event::MoveFailed(closed.to_string()), cx),
        }
    }

    /// Who begins is sent elsewhere before there is anything. `question` is given back if nobody need believe it.
    pub(super) fn redirected_init(
        &mut self,
        question: sa_init::Question,
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) -> Option<sa_init::Question> {
        // RFC 5685 §3: only who has seen our nonce can say so.
        let sent_to = sent_to(payloads).filter(|(_, nonce)| *nonce == question.nonce());
        let Some((to, _)) = sent_to else { return Some(question) };
        self.go(Sent { to, at: At::Init(Box::new(question)) }, cx);
        None
    }

    /// Who has begun is sent elsewhere by a gateway that has proven who it is. False if it is not.
    pub(super) fn redirected_auth(
        &mut self,
        payloads: &Payloads,
        wanted: Option<Wanted>,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some((to, _)) = sent_to(payloads) else { return false };
        self.go(Sent { to, at: At::Auth(wanted.map(Box::new)) }, cx);
        true
    }

    /// A gateway that is there sends us elsewhere. It is left when the other is up.
    // RFC 5685 §5
    pub(super) fn redirected(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let Some((to, _)) = sent_to(payloads).filter(|_| self.leads()) else { return };
        match to {
            Gateway::Address(_) => self.go_when_there(to, cx),
            Gateway::Name(_) => {
                // Of several it is the last.
                self.tasks.retain(|task| !matches!(task, Task::Go(_)));
                self.tasks.push_back(Task::Go(to));
            }
        }
    }

    /// The same, when nothing else is being asked.
    pub(super) fn go_when_there(&mut self, to: Gateway, cx: &mut Context<'_>) {
        self.go(Sent { to, at: At::There }, cx);
    }

    fn go_to(&mut self, to: IpAddr, redirected: (Gateway, Redirection), children: Vec<Wanted>) {
        let (between, connection) = ((self.path.local.ip(), to), self.connection.clone());
        let anew = Anew { connection, between, children, redirected: Some(redirected) };
        self.legacies.push(Legacy::Anew(Box::new(anew)));
    }

    /// It is begun with another gateway than one before.
    pub(super) fn come_from(
        &mut self,
        before: IkeSaId,
        (to, redirection): (Gateway, Redirection),
        cx: &mut Context<'_>,
    ) {
        self.redirection = redirection;
        cx.out.push_back(Output::Event(before, Event::Redirected(self.id, to.to_string())));
    }

    /// Where a peer is sent that has proven who it is.
    pub(super) fn redirects_to(&mut self, connection: &Connection, cx: &mut Context<'_>) -> Option<Payload> {
        let gateway = one_of(&connection.redirect_to, cx).filter(|_| self.is_redirectable())?;
        self.wait_for_leave(cx.now_ms);
        Some(Payload::Notify(gateway.notify(NotifyType::REDIRECT, &[])))
    }

    /// Sends the peer elsewhere.
    pub(super) fn redirect_notify_to(&mut self, gateway: &Gateway, now_ms: u64) -> Vec<Payload> {
        self.wait_for_leave(now_ms);
        vec![Payload::Notify(gateway.notify(NotifyType::REDIRECT, &[]))]
    }

    /// RFC 5685 §5: what the peer does not delete, we do.
    fn wait_for_leave(&mut self, now_ms: u64) {
        self.later.push((now_ms + AWAY_MS, Task::Delete));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 5685 §7.2
    #[test]
    fn gateways_are_addresses_and_names() {
        for (text, octets) in [
            ("192.0.2.7", &[1, 4, 192, 0, 2, 7][..]),
            ("::1", &[2, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            ("a.example", b"\x03\x09a.example"),
        ] {
            let gateway: Gateway = text.parse().unwrap();
            assert_eq!(gateway.to_string(), text);
            let notify = gateway.notify(NotifyType::REDIRECT, &[7; 16]);
            assert_eq!(notify.data, [octets, &[7; 16]].concat());
            assert_eq!(Gateway::parse(&notify.data), Some((gateway.clone(), &[7; 16][..])));
            for len in 0..octets.len() {
                assert_eq!(Gateway::parse(&octets[..len]), None);
            }
        }
        for data in [&[4, 1, 0][..], &[1, 5, 1, 2, 3, 4, 5], &[3, 0], b"\x03\x02a/"] {
            assert_eq!(Gateway::parse(data), None);
        }
    }

    #[test]
    fn who_is_sent_about_too_often_stays() {
        let (mut redirection, from) = (Redirection::default(), IpAddr::from([192, 0, 2, 1]));
        for n in 0..MOST as u64 {
            redirection = redirection.again(from, n * 1000).unwrap();
        }
        assert!(redirection.again(from, PERIOD_MS - 1).is_none());
        assert!(redirection.again(from, PERIOD_MS).is_some());
    }
}
