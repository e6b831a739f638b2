//! Child SAs: what was agreed on for one, and what the datapath is to do about it.

use crate::{
    connection::{Child, rekey_at_ms},
    context::Context,
    crypto::{
        exchange::ExchangeError,
        keys::{ChildKeys, Role},
    },
    kept::{Damaged, Keep, Reader, Writer, keep, keep_enum},
    message::{NotifyType, Protocol, isakmp},
    nat::Nat,
    output::{ChildChange, Event, Output},
    proposal::{AcceptError, Agreement},
    traffic_selector::Policy,
};
use portcullis_sadb::{self as sadb, Algorithm, Flow, Key, Mode};
use std::{iter, net::SocketAddr, sync::Arc};

/// A child that is to be made.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it is configured as.
    pub config: Arc<Child>,
    /// The packet that wants it, as it goes out, if one does (RFC 7296 §2.9).
    pub packet: Option<Box<Flow>>,
}

impl From<&Arc<Child>> for Wanted {
    fn from(config: &Arc<Child>) -> Wanted {
        Wanted { config: config.clone(), packet: None }
    }
}

/// A child SA of an IKE SA, in both directions.
#[derive(Clone, Debug)]
pub struct ChildSa {
    /// What it is configured as.
    pub config: Arc<Child>,
    /// What was agreed on.
    pub agreement: Agreement,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// What it is for.
    pub policy: Arc<Policy>,
    /// Our SPI, which the peer sends to.
    pub spi_in: u32,
    /// The peer's.
    pub spi_out: u32,
    /// The SAs of AH around these of ESP, if it is a bundle (RFC 2401 §4.3).
    pub around: Option<Box<Around>>,
    /// The resource that it is for, if it is one of several on the same selectors (RFC 9611).
    pub resource: Option<u32>,
    /// The peer takes packets that are padded to hide their size (RFC 4303 §2.7).
    pub takes_padding: bool,
    /// When it is to be rekeyed.
    pub rekey_at_ms: u64,
    /// It was replaced: the peer, or we, will delete it.
    pub is_replaced: bool,
    /// What the peer has put in its place, by our SPI. It is used when this one is deleted.
    pub successor: Option<u32>,
    /// It has ended, and not by us.
    pub ended_by: Option<EndedBy>,
}

/// SAs of AH around those of ESP, in both directions.
#[derive(Clone, Debug)]
pub struct Around {
    /// What was agreed on.
    pub agreement: Agreement,
    /// Our SPI.
    pub spi_in: u32,
    /// The peer's.
    pub spi_out: u32,
}

/// Who has ended a child SA that nobody here has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndedBy {
    /// The peer has deleted it, or its IKE SA.
    Peer,
    /// The peer does not answer.
    Silence,
    /// It is at the end of its time, or its IKE SA is, and nothing has taken its place.
    Age,
}

/// The datapath gets a child SA; what is to be told of it.
pub(crate) fn put(children: &mut Vec<ChildSa>, install: Install, cx: &mut Context<'_>) -> Event {
    let up = install.sa.is_up(install.replaces);
    // Nearly all have one.
    children.reserve_exact(1);
    children.push(install.sa.clone());
    cx.out.push_back(Output::Child(ChildChange::Install(Box::new(install))));
    up
}

/// A child SA is gone; what is to be told of it.
pub(crate) fn remove(children: &mut Vec<ChildSa>, spi_in: u32, cx: &mut Context<'_>) -> Option<Event> {
    let at = children.iter().position(|child| child.spi_in == spi_in)?;
    let mut child = children.remove(at);
    // Whoever has replaced it: packets by it may be under way.
    child.is_replaced |= child.successor.is_some();
    child.ended_by = child.ended_by.filter(|_| !child.is_replaced);
    // RFC 7296 §2.8: who deletes what was replaced has what replaces it.
    let successor = child.successor.filter(|spi| children.iter().any(|c| c.spi_in == *spi));
    cx.out.extend(successor.map(|spi| Output::Child(ChildChange::Use(spi))));
    let down = Event::ChildDown(child.config.name.clone(), spi_in);
    cx.out.push_back(Output::Child(ChildChange::Remove(Box::new(child))));
    Some(down)
}

/// What the datapath is to install: an SA in each direction, of which the inbound one comes first.
#[derive(Clone, Debug)]
pub struct Install {
    /// The child SA.
    pub sa: ChildSa,
    /// The name of its connection.
    pub connection: String,
    /// The transforms.
    pub algorithm: Algorithm,
    /// What opens.
    pub key_in: Key,
    /// What seals.
    pub key_out: Key,
    /// The same of what is around it.
    pub around: Option<Box<Keyed>>,
    /// Our outer address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Whether ESP goes in UDP between these ports.
    pub is_in_udp: bool,
    /// Who is behind a NAT.
    pub nat: Nat,
    /// The SA that it takes the place of, by our SPI.
    pub replaces: Option<u32>,
    /// What is sent goes by it at once: the peer has it. Else by what it replaces, until the peer is known to have it
    /// (RFC 7296 §2.8).
    pub sends: bool,
    /// Until then its packets have nothing to go by, and are dropped.
    pub is_alone: bool,
}

/// Transforms and keys of SAs in both directions.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// The transforms.
    pub algorithm: Algorithm,
    /// What opens.
    pub key_in: Key,
    /// What seals.
    pub key_out: Key,
}

impl Keyed {
    /// `role` is that in the exchange that made the keys.
    pub(crate) fn new(algorithm: Algorithm, keys: ChildKeys, role: Role) -> Keyed {
        let (key_in, key_out) = match role {
            Role::Initiator => (keys.from_responder, keys.from_initiator),
            Role::Responder => (keys.from_initiator, keys.from_responder),
        };
        Keyed { algorithm, key_in, key_out }
    }
}

/// Why there is no child SA.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChildError {
    /// No child of the connection is for anything that the peer asks for.
    #[error(
        "no traffic selectors in common: the peer asks for {local} here and {remote} there, and configured are {ours}"
    )]
    Selectors {
        /// At our end.
        local: String,
        /// At the peer's.
        remote: String,
        /// What is configured.
        ours: String,
    },
    /// No proposal in common.
    #[error("no proposal in common: the peer offers {offered}, and {ours} is configured")]
    Proposals {
        /// What the peer offers.
        offered: String,
        /// What is configured.
        ours: String,
    },
    /// The peer has chosen what it was not offered.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The peer wants none.
    #[error("the peer says {0}")]
    Peer(NotifyType),
    /// The peer wants none, in IKEv1.
    #[error("the peer says {0}")]
    PeerV1(isakmp::NotifyType),
    /// The peer does not say.
    #[error("the peer does not answer")]
    Silent,
    /// The peer takes nothing of what it was offered.
    #[error("the peer says {kind}: it was offered {offered}")]
    Offer {
        /// How it says so.
        kind: NotifyType,
        /// What it was offered.
        offered: String,
    },
    /// A payload that must be there is not.
    #[error("the message has no {0}")]
    Missing(&'static str),
    /// The peer has chosen selectors that it was not offered.
    #[error("the peer has chosen traffic selectors that it was not offered, or none")]
    Widened,
    /// The peer's public value is none.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The peer has deleted it before its answer came.
    #[error("the peer has deleted it at once")]
    Deleted,
    /// No pool of the connection has an address for the peer.
    #[error("no address is left in its pools ({0})")]
    NoAddress(String),
    /// The connection is for peers that ask for an address.
    #[error("the peer has asked for no address, and the connection has pools")]
    NotAsked,
    /// ESP in AH, where a NAT is on the way.
    #[error("AH does not go through a NAT, or in UDP (RFC 3715 §2.1)")]
    AhInUdp,
    /// There is no SPI, or no room for another SA.
    #[error("there is no room for another SA")]
    Full,
}

impl ChildError {
    /// Whether it may be there later (RFC 7296 §2.25, RFC 9370 §2.2.4).
    pub fn is_temporary(&self) -> bool {
        let temporary = [NotifyType::TEMPORARY_FAILURE, NotifyType::STATE_NOT_FOUND];
        matches!(self, ChildError::Peer(kind) if temporary.contains(kind))
    }

    /// What the peer is told.
    pub fn notify(&self) -> NotifyType {
        match self {
            ChildError::Selectors { .. } | ChildError::Widened => NotifyType::TS_UNACCEPTABLE,
            ChildError::Missing(_) => NotifyType::INVALID_SYNTAX,
            ChildError::Full => NotifyType::NO_ADDITIONAL_SAS,
            // RFC 7296 §3.15.4
            ChildError::NoAddress(_) => NotifyType::INTERNAL_ADDRESS_FAILURE,
            ChildError::NotAsked => NotifyType::FAILED_CP_REQUIRED,
            _ => NotifyType::NO_PROPOSAL_CHOSEN,
        }
    }
}

/// Where the packets of a child SA go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub connection: &'a str,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub is_in_udp: bool,
    pub nat: Nat,
}

impl ChildSa {
    /// With keys, for the datapath. `role` is that in the exchange that made it, which its keys are named by.
    pub(crate) fn install(
        mut self,
        (algorithm, keys): (Algorithm, ChildKeys),
        role: Role,
        place: Place<'_>,
        (now_ms, random): (u64, u32),
    ) -> Install {
        let Keyed { algorithm, key_in, key_out } = Keyed::new(algorithm, keys, role);
        let Child { rekey_ms, rand_ms, .. } = *self.config;
        self.rekey_at_ms = rekey_at_ms(now_ms, rekey_ms, rand_ms, random);
        Install {
            connection: place.connection.to_owned(),
            algorithm,
            key_in,
            key_out,
            around: None,
            local: place.local,
            peer: place.peer,
            is_in_udp: place.is_in_udp,
            nat: place.nat,
            replaces: None,
            sends: true,
            is_alone: false,
            sa: self,
        }
    }

    /// What is told of it once it is there, in the place of one or none.
    pub(crate) fn is_up(&self, replaces: Option<u32>) -> Event {
        let (name, spi_in) = (self.config.name.clone(), self.spi_in);
        match replaces {
            Some(old) => Event::ChildReplaced(name, old, spi_in),
            None => Event::ChildUp(name, spi_in),
        }
    }

    /// Whether it is what one of this configuration and for these packets would be, and has not been replaced.
    pub(crate) fn is_for_the_same(&self, config: &Child, policy: &Policy) -> bool {
        self.config.name == config.name && *self.policy == *policy && !self.has_other()
    }

    /// It ends, or is about to, and nobody here has ended it; unless there is another in its place.
    pub(crate) fn end(&mut self, by: EndedBy) {
        self.ended_by = (!self.has_other()).then_some(by);
    }

    /// Whether there is another in its place, ours or the peer's.
    pub(crate) fn has_other(&self) -> bool {
        self.is_replaced || self.successor.is_some()
    }

    /// ESP or AH, as messages name it.
    pub(crate) fn protocol(&self) -> Protocol {
        self.agreement.protocol()
    }

    /// Our SPIs, and what of.
    pub(crate) fn inbound(&self) -> impl Iterator<Item = (Protocol, u32)> {
        let around = self.around.as_deref().map(|around| (Protocol::AH, around.spi_in));
        iter::once((self.protocol(), self.spi_in)).chain(around)
    }

    /// Whether the peer receives by this SPI of its, of this protocol.
    pub(crate) fn is_to(&self, protocol: Protocol, spi: &[u8]) -> bool {
        let around = self.around.as_deref().map(|around| (Protocol::AH, around.spi_out));
        let mut outbound = iter::once((self.protocol(), self.spi_out)).chain(around);
        outbound.any(|(of, spi_out)| of == protocol && spi_out.to_be_bytes() == spi)
    }

    /// ESP or AH.
    pub fn sadb_protocol(&self) -> sadb::Protocol {
        if self.protocol() == Protocol::AH { sadb::Protocol::Ah } else { sadb::Protocol::Esp }
    }
}

keep!(Wanted { config, packet });
keep!(ChildSa {
    config,
    agreement,
    mode,
    policy,
    spi_in,
    spi_out,
    around,
    resource,
    takes_padding,
    rekey_at_ms,
    is_replaced,
    successor,
    ended_by
});
keep!(Around { agreement, spi_in, spi_out });
keep_enum!(EndedBy { 0 => Peer, 1 => Silence, 2 => Age });
keep!(Keyed { algorithm, key_in, key_out });
keep!(Install {
    sa,
    connection,
    algorithm,
    key_in,
    key_out,
    around,
    local,
    peer,
    is_in_udp,
    nat,
    replaces,
    sends,
    is_alone
});

impl Keep for Flow {
    fn keep(&self, to: &mut Writer) {
        let Flow { src, dst, protocol, ports } = *self;
        (src, dst).keep(to);
        (protocol, ports).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Flow, Damaged> {
        let ((src, dst), (protocol, ports)) = (Keep::kept(from)?, Keep::kept(from)?);
        Ok(Flow { src, dst, protocol, ports })
    }
}

impl Keep for Mode {
    fn keep(&self, to: &mut Writer) {
        (*self == Mode::Transport).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Mode, Damaged> {
        Ok(if bool::kept(from)? { Mode::Transport } else { Mode::Tunnel })
    }
}

impl Keep for Key {
    fn keep(&self, to: &mut Writer) {
        (self.bytes().len() as u8).keep(to);
        to.octets(self.bytes());
    }

    fn kept(from: &mut Reader<'_>) -> Result<Key, Damaged> {
        let len = u8::kept(from)?;
        Key::new(from.take(len.into())?).ok_or(Damaged("key"))
    }
}

/// By its name.
impl Keep for Algorithm {
    fn keep(&self, to: &mut Writer) {
        (self.name().to_owned(), Algorithm::by_name(sadb::Protocol::Ah, self.name()) == Some(*self)).keep(to);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Algorithm, Damaged> {
        let (name, is_ah): (String, bool) = Keep::kept(from)?;
        let protocol = if is_ah { sadb::Protocol::Ah } else { sadb::Protocol::Esp };
        Algorithm::by_name(protocol, &name).ok_or(Damaged("algorithm"))
    }
}
