//! Messages of an ISAKMP SA: what comes, what is sent, and what is known again.

use super::{ike_sa::IkeSa, keys::Iv};
use crate::{
    context::Context,
    crypto::{
        Secret,
        cipher::OpenError,
        keys::{Role, Spis},
    },
    ike_sa::{Path, Phase},
    kept::keep,
    message::{
        ExchangeType, Flags, Header, PayloadType, Version,
        isakmp::{self, Chain, Payload},
    },
    retransmission::Datagrams,
    v2::{channel::Dropped, window::digest},
};
use std::collections::VecDeque;
use zeroize::Zeroizing;

/// Messages that are known again when they come again, at most.
const MOST_SEEN: usize = 16;

/// How often a message is answered that comes again: anybody can send copies, from anywhere.
const MOST_REPEATS: u8 = 10;

/// What came last, and what was answered: the same messages are answered the same (RFC 2408 §5.1).
#[derive(Debug, Default)]
pub(super) struct Seen(VecDeque<Answered>);

/// A message that was answered.
#[derive(Debug)]
struct Answered {
    digest: [u8; 32],
    datagrams: Datagrams,
    /// How often it has come again.
    repeats: u8,
}

impl Seen {
    fn find(&mut self, digest: [u8; 32]) -> Option<&mut Answered> {
        self.0.iter_mut().find(|answered| answered.digest == digest)
    }

    fn add(&mut self, digest: [u8; 32], datagrams: Datagrams) {
        self.0.retain(|answered| answered.digest != digest);
        if self.0.len() >= MOST_SEEN {
            self.0.pop_front();
        }
        self.0.push_back(Answered { digest, datagrams, repeats: 0 });
    }
}

/// A message that came, as its header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    pub header: Header,
    /// The type of the first payload.
    pub first: PayloadType,
    /// What is behind the header.
    pub body: &'a [u8],
    /// All of it.
    pub octets: &'a [u8],
}

/// A message that came, in clear or decrypted.
#[derive(Debug)]
pub(super) struct Message {
    /// What it is known again by.
    pub digest: [u8; 32],
    pub chain: Chain,
    /// What the payloads were in.
    pub octets: Zeroizing<Vec<u8>>,
    /// The IV behind it, if it was encrypted and is the peer's.
    pub next: Option<Iv>,
    /// It has the commit bit, which nobody authenticates.
    pub commits: bool,
}

impl IkeSa {
    /// A message came.
    pub(crate) fn receive(&mut self, raw: &Raw<'_>, path: Path, cx: &mut Context<'_>) -> Result<(), Dropped> {
        if raw.first == PayloadType::FRAGMENT {
            return self.receive_fragment(raw, path, cx);
        }
        if let Some(answered) = self.seen.find(digest(raw.octets)) {
            // Until both ends are authenticated, all that came is of one address.
            let is_elsewhere = self.phase == Phase::Connecting && path.peer.ip() != self.first_peer.ip();
            if is_elsewhere || answered.repeats >= MOST_REPEATS {
                return Err(Dropped::MessageId(raw.header.message_id));
            }
            answered.repeats += 1;
            let datagrams = answered.datagrams.clone();
            // Who has begun has gone to another port (RFC 3947 §4).
            let has_begun = self.role == Role::Initiator && raw.header.message_id == 0;
            self.send(datagrams, if has_begun { self.path } else { path }, cx);
            return Ok(());
        }
        // Whoever sends nothing of the peer's has no answer that is under way.
        let before = std::mem::replace(&mut self.answer_path, path);
        let taken = match raw.header.exchange {
            ExchangeType::IDENTITY_PROTECTION | ExchangeType::AGGRESSIVE => self.receive_phase_1(raw, cx),
            ExchangeType::QUICK_MODE | ExchangeType::TRANSACTION if self.last.is_none() => {
                self.say_second_again(path, cx);
                Err(Dropped::MessageId(raw.header.message_id))
            }
            ExchangeType::QUICK_MODE => self.receive_quick(raw, cx),
            ExchangeType::INFORMATIONAL_V1 => self.receive_informational(raw, cx),
            ExchangeType::TRANSACTION => self.receive_transaction(raw, cx),
            _ => Err(Dropped::Exchange),
        };
        if taken.is_err() {
            self.answer_path = before;
        }
        self.go_on(cx);
        taken
    }

    /// What was answered to a message, if it can be said again to there.
    pub(super) fn said_again(&mut self, request: [u8; 32], path: Path) -> Option<Datagrams> {
        let is_there = path.peer.ip() == self.first_peer.ip();
        let answered =
            self.seen.find(request).filter(|answered| is_there && answered.repeats < MOST_REPEATS)?;
        answered.repeats += 1;
        Some(answered.datagrams.clone())
    }

    /// A message in clear.
    pub(super) fn open_clear(&self, raw: &Raw<'_>) -> Result<Message, Dropped> {
        if isakmp::is_encrypted(&raw.header) {
            return Err(Dropped::Sealing);
        }
        let chain = Chain::parse(raw.first, raw.body, false)?;
        let (digest, octets) = (digest(raw.octets), raw.body.to_vec().into());
        Ok(Message { digest, chain, octets, next: None, commits: raw.header.flags.contains(Flags::COMMIT) })
    }

    /// An encrypted message. Nobody knows yet whose it is.
    pub(super) fn open_sealed(&self, raw: &Raw<'_>, iv: Iv) -> Result<Message, Dropped> {
        if !isakmp::is_encrypted(&raw.header) {
            return Err(Dropped::Sealing);
        }
        let keys = self.keys.as_ref().ok_or(Dropped::Sealing)?;
        let length = OpenError::Length(raw.body.len());
        let (plain, next) = keys.decrypt(iv, raw.body).ok_or(Dropped::Open(length))?;
        let plain = Zeroizing::new(plain);
        let chain = Chain::parse(raw.first, &plain, true)?;
        // No HASH payload is over what is behind: the next IV would be whoever's has put a block there.
        let behind = chain.bodies.last().and_then(|last| plain.get(last.end..)).unwrap_or_default();
        if !keys.is_padding(behind) {
            return Err(Dropped::Open(length));
        }
        let (digest, commits) = (digest(raw.octets), raw.header.flags.contains(Flags::COMMIT));
        Ok(Message { digest, chain, octets: plain, next: Some(next), commits })
    }

    fn header(&self, exchange: ExchangeType, message_id: u32, flags: Flags) -> Header {
        let Spis { initiator: initiator_spi, responder: responder_spi } = self.spis;
        Header { initiator_spi, responder_spi, version: Version::V1, exchange, flags, message_id }
    }

    /// The octets of a message in clear.
    pub(super) fn clear(&self, exchange: ExchangeType, message_id: u32, payloads: &[Payload]) -> Datagrams {
        let header = self.header(exchange, message_id, Flags::default());
        let message =
            isakmp::emit(payloads).and_then(|(first, octets)| isakmp::message(&header, first, &octets));
        message.map_or(vec![], |octets| self.cut(&header, octets))
    }

    /// The octets of an encrypted message, and the IV behind it.
    pub(super) fn sealed(
        &self,
        exchange: ExchangeType,
        message_id: u32,
        iv: Iv,
        payloads: &[Payload],
    ) -> (Datagrams, Iv) {
        self.sealed_with(Flags::default(), exchange, (message_id, iv), payloads)
    }

    fn sealed_with(
        &self,
        flags: Flags,
        exchange: ExchangeType,
        (message_id, iv): (u32, Iv),
        payloads: &[Payload],
    ) -> (Datagrams, Iv) {
        let header = self.header(exchange, message_id, Flags::ENCRYPTION | flags);
        let Some(keys) = &self.keys else { return (vec![], iv) };
        let made = isakmp::emit(payloads).and_then(|(first, octets)| {
            let octets = Zeroizing::new(octets);
            let (text, next) = keys.encrypt(iv, &octets);
            Ok((isakmp::message(&header, first, &text)?, next))
        });
        made.map_or((vec![], iv), |(octets, next)| (self.cut(&header, octets), next))
    }

    /// An encrypted message with its HASH payload in front, over all the rest.
    pub(super) fn hashed(
        &self,
        exchange: ExchangeType,
        at: (u32, Iv),
        front: &[&[u8]],
        payloads: Vec<Payload>,
    ) -> (Datagrams, Iv) {
        self.hashed_with(Flags::default(), exchange, at, front, payloads)
    }

    /// The same, with further flags.
    pub(super) fn hashed_with(
        &self,
        flags: Flags,
        exchange: ExchangeType,
        (message_id, iv): (u32, Iv),
        front: &[&[u8]],
        payloads: Vec<Payload>,
    ) -> (Datagrams, Iv) {
        let Some((keys, Ok((_, rest)))) = self.keys.as_ref().map(|keys| (keys, isakmp::emit(&payloads)))
        else {
            return (vec![], iv);
        };
        let rest = Zeroizing::new(rest);
        let parts: Vec<_> = front.iter().copied().chain([&rest[..]]).collect();
        let hash = keys.hash(&[], message_id, &parts);
        let payloads = [vec![Payload::Hash(hash.bytes().to_vec())], payloads].concat();
        self.sealed_with(flags, exchange, (message_id, iv), &payloads)
    }

    /// Whether the HASH payload in front of a message is the peer's.
    pub(super) fn check_hash(
        &self,
        message_id: u32,
        front: &[&[u8]],
        message: &Message,
    ) -> Result<(), Dropped> {
        let keys = self.keys.as_ref().ok_or(Dropped::Sealing)?;
        let rest = message.chain.behind_first(&message.octets);
        let parts: Vec<_> = front.iter().copied().chain([rest]).collect();
        is_hash(&message.chain, &keys.hash(&[], message_id, &parts))
    }

    /// Sends.
    pub(super) fn send(&self, datagrams: Datagrams, path: Path, cx: &mut Context<'_>) {
        cx.send(datagrams, path, self.connection.dscp);
    }

    /// Answers a message, also whenever it comes again.
    pub(super) fn answer(&mut self, request: [u8; 32], datagrams: Datagrams, cx: &mut Context<'_>) {
        self.seen.add(request, datagrams.clone());
        self.send(datagrams, self.answer_path, cx);
    }

    /// Knows a message again that has no answer.
    pub(super) fn note(&mut self, request: [u8; 32]) {
        self.seen.add(request, vec![]);
    }
}

/// Whether the first payload is this HASH.
pub(super) fn is_hash(chain: &Chain, hash: &Secret) -> Result<(), Dropped> {
    match chain.payloads.first() {
        Some(Payload::Hash(said)) if Secret::copy_of(said) == *hash => Ok(()),
        _ => Err(Dropped::Open(OpenError::Icv)),
    }
}

keep!(Seen(_));
keep!(Answered { digest, datagrams, repeats });
