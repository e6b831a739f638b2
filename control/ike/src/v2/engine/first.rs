//! First messages: who may begin, and what those are told of whom nothing is kept.

use super::{Engine, host};
use crate::{
    connection::Connection,
    crypto::keys::{Role, Spis},
    message::{ExchangeType, Flags, Header, IkeSpi, Message, Notify, NotifyType, Payload, Payloads, Version},
    v2::{
        admission,
        channel::Dropped,
        context::Context,
        ike_sa::{IkeSaId, Path},
        output::Output,
        puzzle::{self, Puzzle},
        redirect,
        refused::Refused,
        resumption::{self, Resumed},
        sa_init,
        stranger::Stranger,
    },
};
use std::sync::Arc;

/// Octets of a first message, at most: of a half-open IKE SA it is kept for AUTH.
pub(super) const LONGEST_FIRST: usize = 8 * 1024;

impl Engine {
    /// A message that might begin an IKE SA. Until it does, nothing is kept of it.
    pub(super) fn receive_first(
        &mut self,
        header: &Header,
        octets: &[u8],
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        if octets.len() > LONGEST_FIRST {
            return Err(Refused::TooLong);
        }
        // Whoever has sent nothing but first messages may not be where it says, and take the place of who is.
        let spi = header.initiator_spi;
        let of_host = self.of_host.get(&host(path.peer.ip())).copied().unwrap_or_default();
        let is_loaded = self.half_open.len() >= cx.config.cookies_from;
        let needs_cookie = is_loaded || 2 * of_host >= cx.config.most_half_open_of_one;
        // No more is looked at than that takes.
        let said = needs_cookie.then(|| admission::said(octets)).flatten();
        let knows = said.is_some_and(|(cookie, nonce)| {
            self.cookies.knows(cookie, path.peer, spi, nonce, cx.now_ms, cx.rng).is_some()
        });
        if !knows {
            if !self.rates.take(path.peer.ip(), cx.config.firsts_a_second, cx.now_ms) {
                return Err(Refused::TooOften);
            }
            if let Some((_, nonce)) = said
                && puzzle::bits(self.half_open.len(), cx.config.puzzles_from).is_none()
            {
                let cookie = self.cookies.make(path.peer, spi, nonce, 0, cx.now_ms, cx.rng);
                answer_first(octets, Notify::new(NotifyType::COOKIE, &cookie), path, cx);
                return Err(Refused::Cookie);
            }
        }
        if self.half_open.len() >= cx.config.most_half_open || of_host >= cx.config.most_half_open_of_one {
            return Err(Refused::TooMany);
        }
        if self.is_full(cx) {
            return Err(Refused::Full);
        }
        let message = Message::parse(octets).map_err(Dropped::from)?;
        let payloads = &message.payloads;
        if message.sealed.is_some() {
            return Err(Dropped::Sealing.into());
        }
        // RFC 7296 §2.5
        if let Some(kind) = payloads.unknown_critical() {
            let notify = Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind.0]);
            answer_first(octets, notify, path, cx);
            return Err(Refused::Critical);
        }
        let Some(nonce) = payloads.nonce() else { return Err(Dropped::Sealing.into()) };
        let solved = match needs_cookie {
            true => self.check_cookie((header, octets), payloads, nonce, path, cx)?,
            false => 0,
        };
        let refuse = |kind, data: &[u8], why, cx: &mut Context<'_>| {
            answer_first(octets, Notify::new(kind, data), path, cx);
            Err(why)
        };
        if header.exchange == ExchangeType::IKE_SESSION_RESUME {
            return self.receive_ticket(header, (payloads, octets), path, cx);
        }
        let (Some(offered), Some(ke)) = (sa_init::offered(payloads), payloads.key_exchange()) else {
            return Err(Dropped::Sealing.into());
        };
        let between = cx.config.between(path.local, path.peer);
        if between.is_empty() {
            cx.out.push_back(Output::Refused(Box::new(Stranger { path, offered, connections: between })));
            return refuse(NotifyType::NO_PROPOSAL_CHOSEN, &[], Refused::NoConnection, cx);
        }
        if let Some(notify) = redirect::away(&between, payloads, cx) {
            answer_first(octets, notify, path, cx);
            return Err(Refused::Redirected);
        }
        let agreed = between.iter().find_map(|c| Some((c, c.proposals.select(&offered, c.order)?)));
        let Some((connection, agreement)) = agreed else {
            let stranger = Stranger { path, offered, connections: between };
            cx.out.push_back(Output::Refused(Box::new(stranger)));
            return refuse(NotifyType::NO_PROPOSAL_CHOSEN, &[], Refused::NoProposal, cx);
        };
        // RFC 7296 §1.2
        if let Err(wrong) = agreement.check_key_exchange(Some(ke.method)) {
            let kind = NotifyType::INVALID_KE_PAYLOAD;
            return refuse(kind, &wrong.notification(), Refused::KeyExchange, cx);
        }
        let (half_open, from) = (self.half_open.len(), cx.config.puzzles_from);
        let id = self.add_half_open(connection, spi, path, cx);
        // RFC 8019 §7.2.1: who has solved none is set none.
        if let Some(bits) = puzzle::bits(half_open, from).filter(|_| solved > 0) {
            self.with(id, cx, |sa, _| sa.puzzle_bits = Some(bits));
        }
        self.receive_of(id, octets, path, cx)
    }

    /// Whether a first message has a cookie, and a solution of the puzzle that came with it; the bits that were solved.
    fn check_cookie(
        &mut self,
        (header, octets): (&Header, &[u8]),
        payloads: &Payloads,
        nonce: &[u8],
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<u8, Refused> {
        let spi = header.initiator_spi;
        let cookie = payloads.notifies(NotifyType::COOKIE).next().map_or(&[][..], |notify| &notify.data);
        let offered = payloads.security_association().unwrap_or_default();
        let bits = self.cookies.knows(cookie, path.peer, spi, nonce, cx.now_ms, cx.rng);
        let is_solved = |bits| {
            let puzzle = Puzzle::new(offered, bits, cookie);
            puzzle.zip(puzzle::solution(payloads)).is_some_and(|(puzzle, keys)| puzzle.is_solved_by(keys))
        };
        match bits {
            Some(0) => return Ok(0),
            Some(bits) if is_solved(bits) => return Ok(bits),
            // RFC 8019 §7.1.3: there are those that do not know of puzzles.
            Some(_) if u8::from_be_bytes(cx.random()).is_multiple_of(puzzle::ONE_OF) => return Ok(0),
            _ => {}
        }
        // With a ticket there is nothing to offer, and little to do.
        let bits = puzzle::bits(self.half_open.len(), cx.config.puzzles_from).filter(|_| !offered.is_empty());
        let bits = bits.unwrap_or(0);
        let cookie = self.cookies.make(path.peer, spi, nonce, bits, cx.now_ms, cx.rng);
        let puzzle = Puzzle::new(offered, bits, &cookie).filter(|_| bits > 0);
        let mut notifies = vec![Notify::new(NotifyType::COOKIE, &cookie)];
        notifies.extend(puzzle.iter().map(Puzzle::notify));
        answer_first_all(octets, notifies, path, cx);
        Err(if puzzle.is_some() { Refused::Puzzle } else { Refused::Cookie })
    }

    /// A first message of a peer that comes back (RFC 5723 §4.3).
    fn receive_ticket(
        &mut self,
        header: &Header,
        (payloads, octets): (&Payloads, &[u8]),
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let ticket = resumption::said(payloads);
        let keys = self.ticket_keys.as_mut();
        let session = ticket.zip(keys).and_then(|(ticket, keys)| keys.open(ticket, cx.unix_secs, cx.rng));
        let between = cx.config.between(path.local, path.peer);
        let found = session.and_then(|session| {
            let allows =
                |c: &Arc<Connection>| c.proposals.select(std::slice::from_ref(&session.proposal), c.order);
            let found =
                between.iter().filter(|c| session.proven.suffices(c)).find_map(|c| Some((c, allows(c)?)));
            found.map(|(connection, agreement)| (connection, Resumed::new(session, agreement, cx.unix_secs)))
        });
        let Some((connection, resumed)) = found else {
            answer_first(octets, Notify::new(NotifyType::TICKET_NACK, &[]), path, cx);
            return Err(Refused::Ticket);
        };
        let id = self.add_half_open(connection, header.initiator_spi, path, cx);
        self.with(id, cx, |sa, _| sa.resumed = Some(Box::new(resumed)));
        self.receive_of(id, octets, path, cx)
    }

    fn add_half_open(
        &mut self,
        connection: &Arc<Connection>,
        initiator: IkeSpi,
        path: Path,
        cx: &mut Context<'_>,
    ) -> IkeSaId {
        let spis = Spis { initiator, responder: self.free_spi(cx) };
        let id = self.reserve();
        self.add(id, connection, (Role::Responder, spis), path, cx);
        self.now_half_open(id, (path.peer, initiator));
        id
    }

    /// RFC 7296 §2.5: a peer of a higher version is told ours.
    pub(super) fn refuse_version(
        &mut self,
        header: &Header,
        octets: &[u8],
        path: Path,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        if header.version.major > Version::V2.major && !header.flags.contains(Flags::RESPONSE) {
            answer_first(octets, Notify::new(NotifyType::INVALID_MAJOR_VERSION, &[]), path, cx);
        }
        Err(Refused::Version)
    }
}

/// Answers a first message of which nothing is kept (RFC 7296 §2.6, §1.2).
fn answer_first(octets: &[u8], notify: Notify, path: Path, cx: &mut Context<'_>) {
    answer_first_all(octets, vec![notify], path, cx);
}

fn answer_first_all(octets: &[u8], notifies: Vec<Notify>, path: Path, cx: &mut Context<'_>) {
    // Where it is told to go, and what makes it sure of that, may be long, and is for who is to be let in otherwise.
    let is_redirection = notifies.iter().any(|notify| notify.kind == NotifyType::REDIRECT);
    let Ok((header, ..)) = Header::parse(octets) else { return };
    let payloads = Payloads(notifies.into_iter().map(Payload::Notify).collect());
    let header =
        Header { version: Version::V2, flags: Flags::RESPONSE, responder_spi: IkeSpi::NONE, ..header };
    let answer = Message { header, payloads, sealed: None }.emit().ok();
    // Whoever it seems to come from may not have sent it, and gets no more than was sent.
    let answer = answer.filter(|answer| is_redirection || answer.len() <= octets.len());
    cx.send(answer.into_iter().collect(), path, 0);
}
