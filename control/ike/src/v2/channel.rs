//! Messages of an IKE SA between octets and payloads: header, message IDs, sealing, fragments, and what is sent again.
//!
//! ```text
//!  octets ── parse ── whose, which ID ── open ── put together ──▶ exchange, payloads
//!  octets ◀── sent until it is answered ── cut ── seal ── emit ── exchange, payloads
//! ```
//!
//! IKE_SA_INIT is in clear, all others are sealed. What is in clear and should not be is dropped: anybody can send it.

use super::{
    fragments::Fragments,
    window::{self, Answered, Datagrams, Known, Late, Retransmission, Window},
};
use crate::{
    crypto::{
        cipher::{OpenError, Opener, Sealer},
        key_log::SealKeys,
        keys::{Role, Spis},
    },
    kept::{Damaged, Keep, Reader, Writer},
    message::{
        ExchangeType, Flags, Fragment, Header, Malformed, Message, NotifyType, Oversized, Payload,
        PayloadType, Payloads, Sealed, Version,
    },
};
use rand_core::CryptoRng;

/// What a message of the peer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// It asks, and is to be answered before its next request is taken.
    Request(Content),
    /// It answers the request that is under way. While we are answering, and in IKE_SA_INIT, it is for
    /// [`Channel::take_response`].
    Response(Content),
    /// It asks again what was answered: the answer is to be sent again.
    Repeated(Datagrams),
    /// It is a part of a message.
    Part,
    /// It is about message IDs, and has none; whether it answers (RFC 6311).
    Sync(Payloads, bool),
}

/// What is in a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// The exchange.
    pub exchange: ExchangeType,
    /// The payloads, or why they are none: the peer has made them so, unless they came in clear.
    pub payloads: Result<Payloads, Malformed>,
    /// In IKE_SA_INIT the octets of the message; else those of its payloads, decrypted.
    pub octets: Vec<u8>,
    /// Of what was sealed, the [`headers`].
    pub headers: Vec<u8>,
}

/// Why a message of the peer is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Dropped {
    /// It is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It says that we have sent it.
    #[error("the Initiator flag is wrong")]
    Direction,
    /// A request that is neither the peer's next nor its last, or a response to none of ours.
    #[error("message ID {0} is not expected")]
    MessageId(u32),
    /// A response to a request of another exchange.
    #[error("the response is of another exchange")]
    Exchange,
    /// It is for who has proven who it is, or is not its turn.
    #[error("it comes too early")]
    Early,
    /// In clear, and should be sealed; or the other way.
    #[error("it is in clear and must not be, or the other way")]
    Sealing,
    /// It has no solution of the puzzle that was set, or a wrong one.
    #[error("it has no solution of a puzzle")]
    Puzzle,
    /// Not the peer's.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// The messages of an IKE SA, one end's.
#[derive(Debug)]
pub struct Channel {
    role: Role,
    spis: Spis,
    sealer: Option<Sealer>,
    opener: Option<Opener>,
    window: Window,
    /// The exchange of the request that is under way.
    exchange: ExchangeType,
    /// By what the peer's last request, or the one that is being answered, is known again.
    request: [u8; 32],
    is_answering: bool,
    /// Of requests and of responses.
    pieces: [Option<Box<Fragments<First>>>; 2],
    /// Octets of a message, at most, if the peer can put fragments together.
    cut_at: Option<usize>,
    retransmission: Retransmission,
    /// Both ends may agree on other message IDs (RFC 6311).
    may_sync: bool,
}

/// Of the first fragment of a message, what is known of it once it is whole.
#[derive(Debug, Default)]
struct First {
    /// What the first payload is.
    payload: PayloadType,
    /// By what it is known again.
    digest: [u8; 32],
    headers: Vec<u8>,
}

/// Octets around payloads in a fragment, at most: headers, IV, padding and ICV.
const AROUND: usize = Header::LEN + Payload::HEADER_LEN + 4 + 16 + 16 + 32;

/// Octets of the numbers that a fragment has behind its generic header (RFC 7383 §2.5).
const FRAGMENT_NUMBERS: usize = 4;

/// Octets of payloads in a fragment, at least.
const LEAST: usize = 64;

impl Channel {
    /// One that is in clear still, for IKE_SA_INIT.
    pub fn new(role: Role, spis: Spis, retransmission: Retransmission) -> Channel {
        Channel {
            role,
            spis,
            sealer: None,
            opener: None,
            window: Window::default(),
            exchange: ExchangeType::IKE_SA_INIT,
            request: [0; 32],
            is_answering: false,
            pieces: [None, None],
            cut_at: None,
            retransmission,
            may_sync: false,
        }
    }

    /// Both ends may agree on other message IDs.
    pub fn let_sync(&mut self, may: bool) {
        self.may_sync = may;
    }

    /// Whether they may.
    pub fn may_sync(&self) -> bool {
        self.may_sync
    }

    /// Both go on at other IDs: our next request, and the peer's. What is under way is forgotten.
    pub fn go_on_at(&mut self, next: u32, expected: u32) {
        self.window.go_on_at(next, expected);
        self.is_answering = false;
        self.pieces = [None, None];
    }

    /// A message about message IDs (RFC 6311 §5.1).
    ///
    /// # Errors
    /// As [`Channel::ask`].
    pub fn emit_sync(
        &mut self,
        answers: bool,
        payloads: &Payloads,
        rng: &mut dyn CryptoRng,
    ) -> Result<Datagrams, Oversized> {
        let flags = if answers { Flags::RESPONSE } else { Flags::default() };
        self.emit(ExchangeType::INFORMATIONAL, 0, flags, payloads, rng)
    }

    /// The payloads of a message that is about message IDs.
    fn sync_of(&self, message: &Message, octets: &[u8]) -> Option<Payloads> {
        let Header { exchange, message_id, .. } = message.header;
        let may_be = self.may_sync && exchange == ExchangeType::INFORMATIONAL && message_id == 0;
        let sealed = message.sealed.as_ref().filter(|sealed| may_be && sealed.fragment.is_none())?;
        let inside = self.opener.as_ref()?.open(sealed.headers(octets), &sealed.body).ok()?;
        let payloads = Payloads::parse(sealed.first, &inside).ok()?;
        payloads.has_notify(NotifyType::IKEV2_MESSAGE_ID_SYNC).then_some(payloads)
    }

    /// IKE_SA_INIT is begun anew, with another peer.
    pub fn begin_anew(&mut self) {
        self.window = Window::default();
    }

    /// Messages are sealed from now on, or by other keys.
    pub fn seal_with(&mut self, sealer: Sealer, opener: Opener) {
        (self.sealer, self.opener) = (Some(sealer), Some(opener));
    }

    /// What messages are sealed with, if they are.
    pub(super) fn seal_keys(&self) -> Option<SealKeys> {
        Some(SealKeys::new(self.role, self.spis, self.sealer.as_ref()?, self.opener.as_ref()?))
    }

    /// Messages of more than so many octets are cut (RFC 7383 §2.3).
    pub fn cut_at(&mut self, octets: usize) {
        self.cut_at = Some(octets);
    }

    /// As another does.
    pub(super) fn cut_like(&mut self, other: &Channel) {
        (self.cut_at, self.may_sync) = (other.cut_at, other.may_sync);
    }

    /// Which end this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The SPIs.
    pub fn spis(&self) -> Spis {
        self.spis
    }

    /// The responder has said its SPI.
    pub fn set_spis(&mut self, spis: Spis) {
        self.spis = spis;
    }

    /// Whether its message IDs are nearly used up, so that it must end (RFC 7296 §2.2).
    pub fn is_used_up(&self) -> bool {
        const LAST: u32 = u32::MAX - 16;
        self.window.request_id() >= LAST || self.window.expected_id() >= LAST
    }

    /// Whether a request of ours is under way.
    pub fn is_asking(&self) -> bool {
        self.window.is_open()
    }

    /// Whether a request of the peer is not answered yet.
    pub fn is_answering(&self) -> bool {
        self.is_answering
    }

    /// The ID of our request that is under way, or else of the next.
    pub fn request_id(&self) -> u32 {
        self.window.request_id()
    }

    /// The ID of the peer's request that is being answered, or else of its next.
    pub fn expected_id(&self) -> u32 {
        self.window.expected_id()
    }

    /// Octets that are held of messages that are not whole.
    pub(super) fn octets_of_pieces(&self) -> usize {
        self.pieces.iter().flatten().map(|pieces| pieces.octets()).sum()
    }

    /// Messages that are not whole are let go: what comes again may come whole.
    pub(super) fn forget_pieces(&mut self) {
        self.pieces = [None, None];
    }

    /// Reads a message that has the SPIs of this IKE SA.
    ///
    /// # Errors
    /// Why it is dropped. Nothing has changed then.
    pub fn receive(&mut self, octets: &[u8]) -> Result<Received, Dropped> {
        let message = Message::parse(octets)?;
        let Header { flags, exchange, message_id: id, .. } = message.header;
        let is_response = flags.contains(Flags::RESPONSE);
        // RFC 7296 §3.1: it is the original initiator's flag.
        if flags.contains(Flags::INITIATOR) != (self.role == Role::Responder) {
            return Err(Dropped::Direction);
        }
        if let Some(payloads) = self.sync_of(&message, octets) {
            return Ok(Received::Sync(payloads, is_response));
        }
        if is_response {
            if !self.window.is_open() || id != self.window.request_id() {
                return Err(Dropped::MessageId(id));
            }
            if exchange != self.exchange {
                return Err(Dropped::Exchange);
            }
        } else {
            match self.window.known(id) {
                Known::New if self.is_answering => return Err(Dropped::MessageId(id)),
                Known::New => {}
                Known::Last => {
                    let again = self.window.answer_again(octets).ok_or(Dropped::MessageId(id))?;
                    return Ok(Received::Repeated(again.clone()));
                }
                Known::Other => return Err(Dropped::MessageId(id)),
            }
        }
        let mut digest = window::digest(octets);
        let is_init = is_first(exchange);
        let mut headers = vec![];
        let (octets, payloads) = match message.sealed {
            // It is the initiator that begins, and once there are keys, nothing is in clear.
            None if is_init
                && id == 0
                && self.opener.is_none()
                && is_response == (self.role == Role::Initiator) =>
            {
                (octets.to_vec(), Ok(message.payloads))
            }
            Some(sealed) if !is_init => {
                let opener = self.opener.as_ref().ok_or(Dropped::Sealing)?;
                let inside = opener.open(sealed.headers(octets), &sealed.body)?;
                headers = headers_before(octets, &sealed);
                let (first, inside) = match sealed.fragment {
                    None => (sealed.first, inside),
                    Some(fragment) => {
                        let at = usize::from(is_response);
                        let pieces = self.pieces[at].get_or_insert_default();
                        let first = First { payload: sealed.first, digest, headers };
                        let whole = pieces.add(id, fragment, first, inside);
                        let Some((first, whole)) = whole else { return Ok(Received::Part) };
                        self.pieces[at] = None;
                        (digest, headers) = (first.digest, first.headers);
                        (first.payload, whole)
                    }
                };
                let payloads = Payloads::parse(first, &inside);
                (inside, payloads)
            }
            _ => return Err(Dropped::Sealing),
        };
        let content = Content { exchange, payloads, octets, headers };
        if is_response {
            // Of what is in clear, another response may be the peer's. Who answers first, takes it later.
            if !is_init && !self.is_answering {
                self.window.close();
            }
            return Ok(Received::Response(content));
        }
        (self.request, self.is_answering) = (digest, true);
        Ok(Received::Request(content))
    }

    /// Asks, in the place of a request that is under way if there is one: it is the same to the peer (RFC 7296 §2.6).
    ///
    /// # Errors
    /// Payloads are longer than their fields can say.
    pub fn ask(
        &mut self,
        exchange: ExchangeType,
        payloads: &Payloads,
        now_ms: u64,
        rng: &mut dyn CryptoRng,
    ) -> Result<Datagrams, Oversized> {
        let datagrams = self.emit(exchange, self.window.request_id(), Flags::default(), payloads, rng)?;
        self.exchange = exchange;
        self.window.open(datagrams.clone(), &self.retransmission, now_ms, octet(rng));
        Ok(datagrams)
    }

    /// The response that came, of IKE_SA_INIT or while we were answering, is taken. Until then it is as if none had come, and
    /// what is asked takes the place of what was (RFC 7296 §2.6, §2.21.1).
    pub fn take_response(&mut self) {
        self.window.close();
    }

    /// Answers the peer's request.
    ///
    /// # Errors
    /// As [`Channel::ask`].
    pub fn answer(
        &mut self,
        exchange: ExchangeType,
        payloads: &Payloads,
        rng: &mut dyn CryptoRng,
    ) -> Result<Datagrams, Oversized> {
        let datagrams = self.emit(exchange, self.window.expected_id(), Flags::RESPONSE, payloads, rng)?;
        self.window.answer(self.request, datagrams.clone());
        self.is_answering = false;
        Ok(datagrams)
    }

    /// What the peer's last request was answered, of an IKE SA that is gone.
    pub(super) fn take_answered(&mut self) -> Option<Answered> {
        self.window.take_answered()
    }

    /// Takes it that the peer's request did not come: it will come again.
    pub fn forget_request(&mut self) {
        self.is_answering = false;
    }

    /// When [`Channel::late`] has something to say.
    pub fn due_ms(&self) -> Option<u64> {
        self.window.due_ms()
    }

    /// What is to be done about a request that is not answered.
    pub fn late(&mut self, now_ms: u64, rng: &mut dyn CryptoRng) -> Option<Late> {
        self.window.late(&self.retransmission, now_ms, octet(rng))
    }

    /// The octets of a message, cut if they must be.
    fn emit(
        &mut self,
        exchange: ExchangeType,
        message_id: u32,
        flags: Flags,
        payloads: &Payloads,
        rng: &mut dyn CryptoRng,
    ) -> Result<Datagrams, Oversized> {
        let flags = if self.role == Role::Initiator { flags | Flags::INITIATOR } else { flags };
        let Spis { initiator: initiator_spi, responder: responder_spi } = self.spis;
        let header =
            Header { initiator_spi, responder_spi, version: Version::V2, exchange, flags, message_id };
        let sealer = self.sealer.as_mut().filter(|_| !is_first(exchange));
        let Some(sealer) = sealer else {
            return Ok(vec![Message { header, payloads: payloads.clone(), sealed: None }.emit()?]);
        };
        // RFC 8019 §7.2.2: it is outside of what is sealed.
        let is_solution = |payload: &&Payload| payload.kind() == PayloadType::PS;
        let (clear, inside): (Vec<_>, Vec<_>) = payloads.0.iter().partition(is_solution);
        let [clear, inside] = [clear, inside].map(|all| Payloads(all.into_iter().cloned().collect()));
        let (first, octets) = inside.emit()?;
        let in_front = clear.emit()?.1.len();
        let mut clear = Some(clear);
        let mut seal = |first, fragment, octets: &[u8]| {
            let sealed = Sealed::room(first, fragment, sealer.sealed_len(octets.len()));
            let payloads = clear.take().unwrap_or_default();
            let message = Message { header, payloads, sealed: Some(sealed) };
            message.emit_sealed(|headers| sealer.seal(headers, octets, rng))
        };
        let most = self.cut_at.map_or(usize::MAX, |most| most.saturating_sub(AROUND + in_front).max(LEAST));
        if octets.len() <= most {
            return Ok(vec![seal(first, None, &octets)?]);
        }
        let total = octets.len().div_ceil(most);
        let total = u16::try_from(total).map_err(|_| Oversized { field: "Total Fragments" })?;
        let pieces = (1..=total).zip(octets.chunks(most));
        pieces
            .map(|(number, piece)| {
                let first = if number == 1 { first } else { PayloadType::NONE };
                seal(first, Fragment::new(number, total), piece)
            })
            .collect()
    }
}

/// What is in front of the payloads of a sealed message, by its only datagram or the first: from the IKE header to the end of
/// the generic header of the SK payload, as if it were not cut (RFC 9242 §3.3.2). Lengths are as they were sent.
pub fn headers(datagram: &[u8]) -> Option<Vec<u8>> {
    let sealed = Message::parse(datagram).ok()?.sealed?;
    Some(headers_before(datagram, &sealed))
}

fn headers_before(datagram: &[u8], sealed: &Sealed) -> Vec<u8> {
    let mut headers = sealed.headers(datagram).to_vec();
    if sealed.fragment.is_some() {
        headers.truncate(headers.len() - FRAGMENT_NUMBERS);
        // Its type is at the header, or at the last payload that is in clear.
        let (mut at, mut next) = (Header::FIRST_AT, Header::LEN);
        while headers[at] != PayloadType::SKF.0 {
            at = next;
            next += usize::from(u16::from_be_bytes([headers[at + 2], headers[at + 3]]));
        }
        headers[at] = PayloadType::SK.0;
    }
    headers
}

/// Exchanges that are in clear: there are no keys before (RFC 7296 §1.2, RFC 5723 §4.3).
pub fn is_first(exchange: ExchangeType) -> bool {
    matches!(exchange, ExchangeType::IKE_SA_INIT | ExchangeType::IKE_SESSION_RESUME)
}

fn octet(rng: &mut dyn CryptoRng) -> u8 {
    let mut octet = [0];
    rng.fill_bytes(&mut octet);
    octet[0]
}

impl Channel {
    /// Keeps all but what is of our requests. A request of the peer that is not answered comes again.
    pub(super) fn keep(&self, to: &mut Writer) {
        let Channel { role, spis, sealer, opener, window, cut_at, retransmission, may_sync, .. } = self;
        role.keep(to);
        spis.keep(to);
        sealer.keep(to);
        opener.keep(to);
        window.keep_answered(to);
        cut_at.keep(to);
        retransmission.keep(to);
        may_sync.keep(to);
    }

    /// Keeps what is of our requests.
    pub(super) fn keep_asking(&self, to: &mut Writer) {
        self.window.keep_open(to);
        self.exchange.keep(to);
    }

    /// Makes one again of both, in this order.
    pub(super) fn kept(from: &mut Reader<'_>) -> Result<Channel, Damaged> {
        let (role, spis): (Role, Spis) = Keep::kept(from)?;
        let (sealer, opener) = Keep::kept(from)?;
        let window = Window::kept_answered(from)?;
        let (cut_at, retransmission) = Keep::kept(from)?;
        let may_sync = Keep::kept(from)?;
        Ok(Channel { sealer, opener, window, cut_at, may_sync, ..Channel::new(role, spis, retransmission) })
    }

    /// The rest of it.
    pub(super) fn take_asking(&mut self, from: &mut Reader<'_>) -> Result<(), Damaged> {
        self.window.take_open(from)?;
        self.exchange = Keep::kept(from)?;
        Ok(())
    }

    /// The request that is under way is sent again at once.
    pub(super) fn ask_anew(&mut self, now_ms: u64) {
        self.window.open_anew(now_ms);
    }
}

#[cfg(test)]
mod tests;
