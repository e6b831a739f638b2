//! What others are told of packets that go no further: ICMP errors to their sources.

use super::{
    Env, From, General, To,
    icmp::{self, Problem, RateLimit},
};
use crate::{
    drop::DropReason,
    wire::{Addr, Ip},
};
use portcullis_sadb::{Action, Direction, PolicyIndex, Prefix};

/// ICMP errors that a worker sends, a second and at once (RFC 4443 §2.4(f)).
pub(super) const RATE: (u32, u32) = (1000, 100);

/// Who is told of packets that policies forbid, or that no SA can be had for (RFC 4301 §5.1.1). Nobody outside is.
#[derive(Debug)]
pub(super) struct Prohibited {
    hosts: Vec<Prefix>,
    /// Packets that are looked at for that.
    looks: RateLimit,
}

impl Default for Prohibited {
    fn default() -> Prohibited {
        Prohibited::to(&[])
    }
}

impl Prohibited {
    /// Hosts in these networks.
    pub fn to(hosts: &[Prefix]) -> Prohibited {
        Prohibited { hosts: hosts.to_vec(), looks: RateLimit::new(RATE.0, RATE.1) }
    }

    /// Whether a host is told.
    fn tells(&self, host: Addr) -> bool {
        self.hosts.iter().any(|hosts| hosts.contains(host.into()))
    }

    /// Whether one more packet is to be looked at.
    pub fn minds(&mut self, source: Addr, now_ms: u64) -> bool {
        self.tells(source) && self.looks.take(now_ms)
    }
}

impl General {
    /// Tells the source of the packet that it is too long: so many octets would get through (RFC 4301 §8.2).
    ///
    /// # Errors
    /// [`DropReason::TooBig`] always.
    pub(super) fn tell_too_big(&mut self, env: &mut Env<'_>, ip: &Ip, mtu: usize) -> Result<(), DropReason> {
        self.tell(env, Problem::TooBig { mtu: mtu.min(u16::MAX as usize) as u16 }, ip);
        Err(DropReason::TooBig)
    }

    /// A packet that goes out by no policy, whose source is told so, if that is wished for (RFC 4301 §5.1.1).
    pub(super) fn refuse(&mut self, env: &mut Env<'_>, reason: DropReason, ip: &Ip) -> DropReason {
        let is_forbidden = match reason {
            DropReason::NoPolicy => true,
            // Not by a policy for what comes in: whoever is outside is told nothing.
            DropReason::PolicyDiscard => env.discards(ip),
            _ => false,
        };
        if is_forbidden && self.tells_prohibited.tells(ip.src()) && self.from != From::Sealed {
            self.tell(env, Problem::Prohibited, ip);
        }
        reason
    }

    /// A packet whose policy has no SA: iked is told (RFC 4301 §5.1), and if that did not help, its source.
    pub(super) fn ask_for_sa(&mut self, env: &mut Env<'_>, policy: PolicyIndex, ip: &Ip) -> DropReason {
        let is_overdue = self.acquires.ask(policy, &ip.flow(), (env.reader, env.iked), env.now_ms);
        if is_overdue && self.tells_prohibited.tells(ip.src()) && self.from != From::Sealed {
            self.tell(env, Problem::Unreachable, ip);
        }
        DropReason::NoSa
    }

    /// Tells the source of the packet what is wrong with it, unless it must not be told, or too many were.
    pub(super) fn tell(&mut self, env: &mut Env<'_>, problem: Problem, ip: &Ip) {
        self.tell_about(env, problem, ip.src(), None);
    }

    /// The same about some octets instead of the packet.
    pub(super) fn tell_about(
        &mut self,
        env: &mut Env<'_>,
        problem: Problem,
        source: Addr,
        about: Option<&[u8]>,
    ) {
        let mut message = [0; icmp::MOST_V6];
        let about = about.unwrap_or(self.packet.bytes());
        // What the kernel has sent itself: as from where it was to go, since it believes nobody who says to be itself.
        if self.from == From::Clear && env.is_own(source) {
            let Ok(from) = Ip::parse(about).map(|ip| ip.dst()) else { return };
            let Some(len) = icmp::emit(problem, from, about, &mut message) else { return };
            return self.send_message(env, &message[..len], To::Kernel(from));
        }
        // What came out of an SA must not be seen in clear: only what goes back into one is told (RFC 4301 §6).
        let is_secret = self.from != From::Clear;
        // An SA of ours that is inside another: it learns what fits as if a router had said so.
        let is_to_us = self.from == From::Sealed && env.is_own(source);
        let mut found = None;
        // What was for the gateway itself is answered by whom it was sent to.
        let own = Ip::parse(about).map(|ip| ip.dst()).ok().filter(|dst| env.is_own(*dst));
        for from in own.map(Into::into).into_iter().chain(env.fib.sources_for(source.into())) {
            let Some(len) = icmp::emit(problem, from.into(), about, &mut message) else { return };
            let key = Ip::parse(&message[..len]).map(|ip| ip.key());
            let stays = is_to_us || key.is_ok_and(|key| env.protects(key));
            if stays || !is_secret {
                found = Some((len, stays));
                break;
            }
        }
        let Some((len, stays)) = found else { return };
        let to = match stays {
            true if is_to_us => to_owner(env, &message[..len]),
            true => To::Receive,
            false => To::Route(source),
        };
        self.send_message(env, &message[..len], to);
    }

    /// Sends a message, unless too many were.
    fn send_message(&mut self, env: &mut Env<'_>, message: &[u8], to: To) {
        if self.errors.take(env.now_ms)
            && let Ok(frame) = super::framed(message, to, env.cache)
        {
            let _ = self.leave(env, frame, to);
        }
    }
}

/// To the worker of the SA that a message is about, as steering would have it.
fn to_owner(env: &Env<'_>, message: &[u8]) -> To {
    let spi = icmp::TooBig::parse(message).and_then(|said| said.carried.spi());
    spi.map_or(To::Receive, |spi| To::Worker { owner: env.sas.steered_to(spi), is_sealed: false })
}

impl Env<'_> {
    /// Whether an outbound policy says Discard.
    fn discards(&self, ip: &Ip) -> bool {
        let hit = self.reader.lookup(Direction::Outbound, &ip.flow());
        hit.is_some_and(|hit| hit.action == Action::Discard)
    }

    /// Whether an address is the gateway's own.
    pub(super) fn is_own(&self, addr: Addr) -> bool {
        self.fib.is_local(addr.into())
    }
}
