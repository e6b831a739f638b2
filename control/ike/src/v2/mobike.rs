//! MOBIKE (RFC 4555): who has begun says that it is elsewhere, or that the peer is to be reached elsewhere, and the child SAs go
//! with it.
//!
//! ```text
//!  who has begun                                             the other
//!  IKE_AUTH       N(MOBIKE_SUPPORTED), N(ADDITIONAL_...) ──▶
//!                                                        ◀── N(MOBIKE_SUPPORTED), N(ADDITIONAL_...)
//!  INFORMATIONAL, from and to other addresses:
//!                 N(UPDATE_SA_ADDRESSES), N(NAT_D...)    ──▶
//!                                                        ◀── N(NAT_D...)
//!                                                        ◀── N(COOKIE2)          is it there?
//!                 N(COOKIE2)                             ──▶                     it is: child SAs go there
//! ```
//!
//! Either tells the other when it has come to have other addresses besides (`Task::Announce`).
//!
//! Without MOBIKE, who has begun and is elsewhere begins another IKE SA from there (RFC 7296 §2.8.3). An authenticated
//! message from elsewhere says the same where a NAT is known to be in front of the peer (RFC 7296 §2.23): see `IkeSa::hear`.

use super::{
    context::Context,
    ike_sa::{Closed, IkeSa, Path, Phase, Task},
    nat::{self, Nat},
    output::{ChildChange, Event, Move, Output},
};
use crate::{
    crypto::keys::Role,
    message::{Notify, NotifyType, Payload, Payloads},
};
use std::net::{IpAddr, SocketAddr};

/// Octets of our COOKIE2, of which there may be 8 to 64 (RFC 4555 §4.2.5).
pub(super) const COOKIE2: usize = 16;

/// Addresses of a peer that are kept, at most.
const MOST_ADDRESSES: usize = 16;

/// What there is of MOBIKE in an IKE SA.
#[derive(Clone, Debug, Default)]
pub(super) struct Mobike {
    /// Both ends can.
    pub is_used: bool,
    /// We have begun the first of the IKE SAs that took each other's place: it is for us to say where packets go.
    pub leads: bool,
    /// Where the peer is besides.
    addresses: Vec<IpAddr>,
    /// How the peer has seen us last: what it said in NAT_DETECTION_DESTINATION_IP.
    seen_as: Option<Vec<u8>>,
}

impl Mobike {
    /// That of an IKE SA in the place of none.
    pub(super) fn new(role: Role) -> Mobike {
        Mobike { leads: role == Role::Initiator, ..Mobike::default() }
    }

    /// That of an IKE SA in the place of this one, in which hashes are others.
    pub(super) fn inherited(&self) -> Mobike {
        Mobike { seen_as: None, ..self.clone() }
    }
}

/// The addresses of ADDITIONAL_IP4_ADDRESS and ADDITIONAL_IP6_ADDRESS; `None` if there is nothing of it (RFC 4555 §3.6).
fn additional(payloads: &Payloads) -> Option<Vec<IpAddr>> {
    let four = payloads.notifies(NotifyType::ADDITIONAL_IP4_ADDRESS);
    let six = payloads.notifies(NotifyType::ADDITIONAL_IP6_ADDRESS);
    let four = four.filter_map(|n| Some(IpAddr::from(<[u8; 4]>::try_from(&n.data[..]).ok()?)));
    let six = six.filter_map(|n| Some(IpAddr::from(<[u8; 16]>::try_from(&n.data[..]).ok()?)));
    let all: Vec<_> = four.chain(six).take(MOST_ADDRESSES).collect();
    (!all.is_empty() || payloads.has_notify(NotifyType::NO_ADDITIONAL_ADDRESSES)).then_some(all)
}

impl IkeSa {
    /// Whether addresses may change (RFC 4555).
    pub fn has_mobike(&self) -> bool {
        self.mobike.is_used
    }

    /// Where the peer says to be besides.
    pub fn peer_addresses(&self) -> &[IpAddr] {
        &self.mobike.addresses
    }

    /// What is said in IKE_AUTH.
    pub(super) fn mobike_notifies(&self, cx: &Context<'_>) -> Vec<Payload> {
        if !self.connection.mobike {
            return vec![];
        }
        let supported = Payload::Notify(Notify::new(NotifyType::MOBIKE_SUPPORTED, &[]));
        [supported].into_iter().chain(self.further(&cx.config.here).into_iter().map(address_notify)).collect()
    }

    /// Where we are besides, of what is here on this machine: addresses that the connection has. If that is not known, those that
    /// are written in it by themselves.
    pub fn further(&self, here: &[IpAddr]) -> Vec<IpAddr> {
        let hosts = &self.connection.local;
        let is_further = |address: &IpAddr| {
            *address != self.path.local.ip()
                && !self.given.ours.contains(address)
                && hosts.fits(*address).is_some()
        };
        match here {
            [] => hosts.addresses().filter(is_further).take(MOST_ADDRESSES).collect(),
            _ => here.iter().copied().filter(is_further).take(MOST_ADDRESSES).collect(),
        }
    }

    /// All of where we are besides (RFC 4555 §3.6).
    pub(super) fn further_notifies(&self, cx: &Context<'_>) -> Vec<Payload> {
        match &self.further(&cx.config.here)[..] {
            [] => vec![Payload::Notify(Notify::new(NotifyType::NO_ADDITIONAL_ADDRESSES, &[]))],
            further => further.iter().copied().map(address_notify).collect(),
        }
    }

    /// Where we are besides is another: the peer is told. Where it has begun, and what we sent from is gone, that has it go
    /// elsewhere (RFC 4555 §3.6).
    pub(super) fn announce(&mut self, elsewhere: Option<(IpAddr, IpAddr)>, cx: &mut Context<'_>) -> bool {
        let may = self.mobike.is_used && self.phase == Phase::Established;
        if may {
            if let Some((local, peer)) = elsewhere.filter(|_| !self.mobike.leads) {
                self.take_path(local, peer, cx);
            }
            if !self.tasks.iter().any(|task| matches!(task, Task::Announce | Task::Move)) {
                self.tasks.push_front(Task::Announce);
            }
            self.go_on(cx);
        }
        may
    }

    /// RFC 4555 §3.5: requests that are under way go there, too, and at once.
    fn take_path(&mut self, local: IpAddr, peer: IpAddr, cx: &Context<'_>) {
        self.path.local.set_ip(local);
        self.path.peer.set_ip(peer);
        self.channel.ask_anew(cx.now_ms);
    }

    /// What the peer says in IKE_AUTH.
    pub(super) fn learn_mobike(&mut self, payloads: &Payloads) {
        self.mobike.is_used = self.connection.mobike && payloads.has_notify(NotifyType::MOBIKE_SUPPORTED);
        self.mobike.addresses = additional(payloads).filter(|_| self.mobike.is_used).unwrap_or_default();
    }

    /// Both hashes of the addresses of a path.
    fn nat_notifies(&self, path: Path) -> [Payload; 2] {
        nat::notifies(self.spis(), path.local, path.peer, self.connection.forces_udp)
    }

    /// Packets go between other addresses. Without MOBIKE, both prove anew who they are from there, under another IKE SA; until both
    /// have, it is begun again.
    pub(super) fn go_between(&mut self, local: IpAddr, peer: IpAddr, cx: &mut Context<'_>) -> bool {
        if self.mobike.leads && self.phase == Phase::Connecting {
            self.take_path(local, peer, cx);
            // What waits for a job is sent from there; if it is not taken there, it is begun again later.
            if self.channel.is_asking() {
                self.begin_again(cx);
            }
            return true;
        }
        let may = self.mobike.leads && self.phase == Phase::Established;
        if may {
            self.take_path(local, peer, cx);
            match self.mobike.is_used {
                true => {
                    self.tasks.retain(|task| !matches!(task, Task::Move | Task::Announce));
                    self.tasks.push_front(Task::Move);
                    self.go_on(cx);
                }
                false => self.reauthenticate(cx),
            }
        }
        may
    }

    /// Asks the peer to send elsewhere.
    pub(super) fn move_notifies(&self, cx: &Context<'_>) -> Vec<Payload> {
        let update = Payload::Notify(Notify::new(NotifyType::UPDATE_SA_ADDRESSES, &[]));
        let all = [update].into_iter().chain(self.nat_notifies(self.path));
        all.chain(self.further_notifies(cx)).collect()
    }

    /// The peer has answered.
    pub(super) fn move_answered(&mut self, path: Path, payloads: &Payloads, cx: &mut Context<'_>) {
        // RFC 4555 §3.5: what is asked of other addresses since is what counts.
        if path != self.path {
            return;
        }
        if let Some(error) = payloads.error() {
            return self.event(Event::MoveFailed(format!("the peer says {}", error.kind)), cx);
        }
        self.nat = Nat::detect(payloads, self.spis(), path.local, path.peer).or(self.nat);
        self.mobike.seen_as = seen_as(payloads);
        self.move_children(cx);
    }

    /// What asks whether the peer is there asks how it sees us, too (RFC 4555 §3.8).
    pub(super) fn liveness_notifies(&self) -> Vec<Payload> {
        let asks = self.mobike.is_used && self.mobike.leads;
        if asks { self.nat_notifies(self.path).to_vec() } else { vec![] }
    }

    /// A NAT between may have given us another address.
    pub(super) fn notice_mapping(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let Some(seen_as) = seen_as(payloads).filter(|_| self.mobike.is_used && self.mobike.leads) else {
            return;
        };
        if self.mobike.seen_as.replace(seen_as.clone()).is_some_and(|before| before != seen_as) {
            self.go_between(self.path.local.ip(), self.path.peer.ip(), cx);
        }
    }

    /// The peer says something of addresses: what is to be said in the answer.
    pub(super) fn answer_mobike(&mut self, payloads: &Payloads, cx: &mut Context<'_>) -> Vec<Payload> {
        let path = self.answer_path();
        // RFC 4555 §3.7: it is copied, whatever it is.
        let mut answer: Vec<_> =
            payloads.notifies(NotifyType::COOKIE2).cloned().map(Payload::Notify).collect();
        if !self.mobike.is_used {
            return answer;
        }
        if let Some(addresses) = additional(payloads) {
            // RFC 4555 §3.6: who answers, and is no more where it was, says so from where it is.
            let has_left = path.peer.ip() != self.path.peer.ip() && !addresses.contains(&self.path.peer.ip());
            self.mobike.addresses = addresses;
            if has_left && self.refusal(payloads, path).is_none() {
                self.go_between(path.local.ip(), path.peer.ip(), cx);
            }
        }
        if payloads.has_notify(NotifyType::UPDATE_SA_ADDRESSES) && !self.mobike.leads {
            if let Some(kind) = self.refusal(payloads, path) {
                answer.push(Payload::Notify(Notify::new(kind, &[])));
                return answer;
            }
            self.nat = Nat::detect(payloads, self.spis(), path.local, path.peer).or(self.nat);
            self.path = path;
            // RFC 4555 §3.5, §3.7: packets do not go there before it is known that the peer is there.
            self.tasks.retain(|task| !matches!(task, Task::Routability));
            self.tasks.push_front(Task::Routability);
        }
        if payloads.has_notify(NotifyType::NAT_DETECTION_SOURCE_IP) {
            answer.extend(self.nat_notifies(path));
        }
        answer
    }

    /// Why packets do not go there.
    fn refusal(&self, payloads: &Payloads, path: Path) -> Option<NotifyType> {
        // RFC 4555 §3.9
        let mut no_nats = payloads.notifies(NotifyType::NO_NATS_ALLOWED);
        if no_nats.any(|notify| !nat::is_none(&notify.data, path.local, path.peer)) {
            return Some(NotifyType::UNEXPECTED_NAT_DETECTED);
        }
        let (local, remote) = (&self.connection.local, &self.connection.remote);
        let fits = local.fits(path.local.ip()).and(remote.fits(path.peer.ip()));
        fits.is_none().then_some(NotifyType::UNACCEPTABLE_ADDRESSES)
    }

    /// The peer is where it says.
    pub(super) fn routability_answered(
        &mut self,
        path: Path,
        cookie: [u8; COOKIE2],
        payloads: &Payloads,
        cx: &mut Context<'_>,
    ) {
        // RFC 4555 §3.7: of addresses since, it is asked again.
        if path != self.path {
            return;
        }
        if !payloads.notifies(NotifyType::COOKIE2).any(|notify| notify.data == cookie) {
            return self.close(Closed::Missing("COOKIE2 notification that was sent"), cx);
        }
        self.move_children(cx);
    }

    /// Whether the peer is where it was heard last.
    pub(super) fn follows_mapping(&self) -> bool {
        // RFC 4555 §3.8: with MOBIKE, the initiator says where it is.
        self.nat.is_some_and(|nat| nat.is_there) && !self.mobike.is_used
    }

    /// The newest packet of a child SA in UDP has come from there: a NAT has given the peer another place, for its messages, too
    /// (RFC 7296 §2.23).
    pub(super) fn follow_packet(&mut self, peer: SocketAddr, cx: &mut Context<'_>) {
        if self.phase == Phase::Established && self.follows_mapping() && self.path.peer != peer {
            self.path.peer = peer;
            self.channel.ask_anew(cx.now_ms);
            self.move_children(cx);
        }
    }

    /// Child SAs go where the IKE SA is.
    pub(super) fn move_children(&self, cx: &mut Context<'_>) {
        let (local, peer) = (self.path.local, self.path.peer);
        let (is_in_udp, nat) = (self.is_in_udp(), self.nat.unwrap_or_default());
        for child in &self.children {
            let moved = Move { spi_in: child.spi_in, local, peer, is_in_udp, nat };
            cx.out.push_back(Output::Child(ChildChange::Move(moved)));
        }
        self.event(Event::Moved(self.path), cx);
    }
}

/// That we are at an address, too.
fn address_notify(address: IpAddr) -> Payload {
    Payload::Notify(match address {
        IpAddr::V4(ip) => Notify::new(NotifyType::ADDITIONAL_IP4_ADDRESS, &ip.octets()),
        IpAddr::V6(ip) => Notify::new(NotifyType::ADDITIONAL_IP6_ADDRESS, &ip.octets()),
    })
}

/// How the peer sees us. RFC 7296 §2.23: it is a hash by SHA-1; what is of another length says nothing.
fn seen_as(payloads: &Payloads) -> Option<Vec<u8>> {
    let said = payloads.notifies(NotifyType::NAT_DETECTION_DESTINATION_IP).next()?;
    (said.data.len() == 20).then(|| said.data.clone())
}

crate::kept::keep!(Mobike { is_used, leads, addresses, seen_as });

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7296 §2.23
    #[test]
    fn a_hash_alone_says_how_the_peer_sees_us() {
        let of = |length| {
            let notify = Notify::new(NotifyType::NAT_DETECTION_DESTINATION_IP, &vec![7; length]);
            seen_as(&Payloads(vec![Payload::Notify(notify)]))
        };
        assert_eq!([0, 19, 21, 60_000].map(of), [const { None }; 4]);
        assert_eq!(of(20), Some(vec![7; 20]));
        assert_eq!(seen_as(&Payloads::default()), None);
    }
}
