//! Child SAs: what is offered for one, what is agreed on, and what the datapath is to do about it (RFC 7296 §1.3, §2.9,
//! §2.17).

use super::{configuration::Hosts, context::Context, nat::Nat, resource};
use crate::{
    connection::{Child, rekey_at_ms},
    crypto::{
        Secret,
        exchange::ExchangeError,
        keys::{Keys, Nonces, Role},
        transform::KeyExchange as Method,
    },
    kept::{Damaged, Keep, Reader, Writer, keep, keep_enum},
    message::{Notify, NotifyType, Payload, Payloads},
    proposal::{self, AcceptError, Agreement, Order, Proposals, WrongKeyExchange},
    traffic_selector::{self, Policy, TrafficSelectors},
};
use portcullis_sadb::{self as sadb, Algorithm, Key, Mode};
use std::{net::SocketAddr, sync::Arc};

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
    /// The resource that it is for, if it is one of several on the same selectors (RFC 9611).
    pub resource: Option<u32>,
    /// When it is to be rekeyed.
    pub rekey_at_ms: u64,
    /// It was replaced: the peer, or we, will delete it.
    pub is_replaced: bool,
    /// What the peer has put in its place, by our SPI. It is used when this one is deleted.
    pub successor: Option<u32>,
    /// It has ended, and not by us.
    pub ended_by: Option<EndedBy>,
}

/// Who has ended a child SA that nobody here has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndedBy {
    /// The peer has deleted it, or its IKE SA.
    Peer,
    /// The peer does not answer.
    Silence,
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

/// What we have offered for a child SA.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub config: Arc<Child>,
    proposals: Proposals,
    policy: Policy,
    /// It is for an address that is still to be given.
    asks_address: bool,
    spi_in: u32,
    pub resource: Option<u32>,
}

/// What both have agreed on for a child SA, of which keys are still to be made.
#[derive(Debug)]
pub(super) struct Agreed {
    sa: ChildSa,
    algorithm: Algorithm,
    /// Another SA could have more of what was asked for (RFC 7296 §2.9).
    additional: bool,
    /// There may be more like it (RFC 9611).
    may_be_several: bool,
}

/// With a key exchange, or without one in IKE_AUTH (RFC 7296 §1.2).
fn proposals_of(config: &Child, has_key_exchange: bool) -> Proposals {
    if has_key_exchange { config.proposals.for_any_peer() } else { config.proposals.without_key_exchange() }
}

impl Offer {
    /// For a child between these hosts; nothing if there is no SPI.
    pub fn new(
        config: &Arc<Child>,
        has_key_exchange: bool,
        hosts: &Hosts,
        cx: &mut Context<'_>,
    ) -> Option<Offer> {
        Some(Offer {
            config: config.clone(),
            proposals: proposals_of(config, has_key_exchange),
            policy: config.policy(&hosts.asked, &hosts.peer).offer(None),
            asks_address: hosts.asked != hosts.local,
            spi_in: (cx.child_spi)()?,
            resource: None,
        })
    }

    /// It is for a resource.
    pub fn for_resource(self, resource: Option<u32>) -> Offer {
        Offer { resource, ..self }
    }

    /// SA, TSi, TSr, and notifications.
    pub fn payloads(&self) -> Vec<Payload> {
        let mut payloads = vec![
            Payload::SecurityAssociation(self.proposals.offer(&self.spi_in.to_be_bytes())),
            Payload::TsInitiator(self.policy.local.emit()),
            Payload::TsResponder(self.policy.remote.emit()),
        ];
        payloads.extend(mode_notify(self.config.mode));
        payloads.extend(resource::notify(&self.config, self.resource));
        payloads
    }

    /// Our SPI.
    pub fn spi_in(&self) -> u32 {
        self.spi_in
    }

    /// The peer says no to it.
    pub fn refused_by(&self, kind: NotifyType) -> ChildError {
        let offered = match kind {
            NotifyType::NO_PROPOSAL_CHOSEN | NotifyType::INVALID_KE_PAYLOAD => self.proposals.to_string(),
            NotifyType::TS_UNACCEPTABLE => between(&self.policy),
            _ => return ChildError::Peer(kind),
        };
        ChildError::Offer { kind, offered }
    }

    /// The method of the KE payload, if there is to be one.
    pub fn key_exchange(&self) -> Option<Method> {
        self.proposals.key_exchange()
    }

    /// The method that an INVALID_KE_PAYLOAD notification asks for, if it is another that was offered.
    pub fn asked_key_exchange(&self, notification: &[u8], refused: Method) -> Option<Method> {
        self.proposals.asked_key_exchange(notification, refused)
    }

    /// What the responder has chosen of it; of that, what is for the addresses that hosts have by now.
    pub fn accept(self, payloads: &Payloads, hosts: &Hosts) -> Result<Agreed, ChildError> {
        let Some(chosen) = payloads.security_association() else {
            return Err(payloads
                .error()
                .map_or(ChildError::Missing("SA payload"), |n| self.refused_by(n.kind)));
        };
        let agreement = self.proposals.accept(chosen)?;
        let (Some(tsi), Some(tsr)) = (payloads.ts_initiator(), payloads.ts_responder()) else {
            return Err(ChildError::Missing("TSi or TSr payload"));
        };
        let policy = self.policy.accept(tsi, tsr).ok_or(ChildError::Widened)?;
        // RFC 7296 §2.19: who has asked for an address has offered more than it sends from.
        let ours = || self.config.policy(&hosts.local, &hosts.peer);
        let policy = if self.asks_address { policy.within(&ours()) } else { Some(policy) };
        let policy = policy.ok_or(ChildError::Widened)?;
        // RFC 7296 §1.3.1: what was asked for may be declined.
        let mode = if self.config.mode == Mode::Transport && !has_transport(payloads) {
            Mode::Tunnel
        } else {
            self.config.mode
        };
        let Offer { config, spi_in, resource, .. } = self;
        let may_be_several = resource::is_said(&config, payloads);
        let agreed = Agreed::new(ChildParts { config, agreement, mode, policy, spi_in })?;
        let sa = ChildSa { resource, ..agreed.sa };
        Ok(Agreed { sa, may_be_several, ..agreed })
    }
}

/// What is agreed on before the peer's SPI is looked at.
struct ChildParts {
    config: Arc<Child>,
    agreement: Agreement,
    mode: Mode,
    policy: Policy,
    spi_in: u32,
}

impl Agreed {
    fn new(parts: ChildParts) -> Result<Agreed, ChildError> {
        let ChildParts { config, agreement, mode, policy, spi_in } = parts;
        let missing = ChildError::Missing("SPI or transforms of a child SA");
        let (Some(spi_out), Some(algorithm)) = (agreement.child_spi(), agreement.algorithm()) else {
            return Err(missing);
        };
        let sa = ChildSa {
            config,
            agreement,
            mode,
            policy: Arc::new(policy),
            spi_in,
            spi_out,
            resource: None,
            rekey_at_ms: u64::MAX,
            is_replaced: false,
            successor: None,
            ended_by: None,
        };
        Ok(Agreed { sa, algorithm, additional: false, may_be_several: false })
    }

    /// What a responder chooses of the peer's offer, of the children of a connection.
    pub fn select(
        (children, order): (&[Arc<Child>], Order),
        has_key_exchange: bool,
        payloads: &Payloads,
        hosts: &Hosts,
        cx: &mut Context<'_>,
    ) -> Result<Agreed, ChildError> {
        let (Some(offered), Some(tsi), Some(tsr)) =
            (payloads.security_association(), payloads.ts_initiator(), payloads.ts_responder())
        else {
            return Err(ChildError::Missing("SA, TSi or TSr payload"));
        };
        let (tsi, tsr) = (TrafficSelectors::parse(tsi), TrafficSelectors::parse(tsr));
        let selectors = || {
            let ours = children.iter().take(MOST_NAMED);
            let ours =
                ours.map(|c| format!("{} by '{}'", between(&c.policy(&hosts.local, &hosts.peer)), c.name));
            let ours = ours.collect::<Vec<_>>().join("; ");
            ChildError::Selectors { local: named(&tsr), remote: named(&tsi), ours }
        };
        let narrow = |children: &[&Arc<Child>]| {
            let policies: Vec<_> = children.iter().map(|c| c.policy(&hosts.local, &hosts.peer)).collect();
            let narrowed = traffic_selector::narrow(&policies, &tsi, &tsr)?;
            Some((children[narrowed.policy].clone(), narrowed))
        };
        let agree = |child: &Arc<Child>| proposals_of(child, has_key_exchange).select(offered, order);
        // Of those that it can be made of, the one that fits best.
        let possible: Vec<_> = children.iter().filter(|child| agree(child).is_some()).collect();
        let found =
            narrow(&possible).and_then(|(config, narrowed)| Some((agree(&config)?, config, narrowed)));
        let Some((agreement, config, narrowed)) = found else {
            let (config, _) = narrow(&children.iter().collect::<Vec<_>>()).ok_or_else(selectors)?;
            return Err(ChildError::Proposals {
                offered: names(offered),
                ours: config.proposals.to_string(),
            });
        };
        let (policy, additional) = (narrowed.accepted, narrowed.additional_possible);
        let asks = config.mode == Mode::Transport && has_transport(payloads);
        let mode = if config.mode == Mode::Transport && !asks { Mode::Tunnel } else { config.mode };
        let spi_in = (cx.child_spi)().ok_or(ChildError::Full)?;
        let parts = ChildParts { config, agreement, mode, policy, spi_in };
        let agreed = Agreed::new(parts)?;
        let may_be_several = resource::is_said(&agreed.sa.config, payloads);
        Ok(Agreed { additional, may_be_several, ..agreed })
    }

    /// The method of the KE payloads, if there are any.
    pub fn key_exchange(&self) -> Option<Method> {
        self.sa.agreement.key_exchange()
    }

    /// Those that come behind (RFC 9370 §2.2.4).
    pub fn additional_key_exchanges(&self) -> Vec<Method> {
        self.sa.agreement.additional_key_exchanges().collect()
    }

    /// Whether the peer's KE payload is of that method.
    pub fn check_key_exchange(&self, method: Option<u16>) -> Result<(), WrongKeyExchange> {
        self.sa.agreement.check_key_exchange(method)
    }

    /// What it is for.
    pub fn policy(&self) -> &Policy {
        &self.sa.policy
    }

    /// It is for a resource.
    pub fn for_resource(mut self, resource: Option<u32>) -> Agreed {
        self.sa.resource = resource;
        self
    }

    /// The resource that it is for.
    pub fn resource(&self) -> Option<u32> {
        self.sa.resource
    }

    /// Whether it is the first of several.
    pub fn is_first_of_several(&self) -> bool {
        self.may_be_several && self.sa.resource.is_none()
    }

    /// Our SPI.
    pub fn spi_in(&self) -> u32 {
        self.sa.spi_in
    }

    /// The peer's SPI.
    pub fn spi_out(&self) -> u32 {
        self.sa.spi_out
    }

    /// What it is configured as.
    pub fn config(&self) -> &Arc<Child> {
        &self.sa.config
    }

    /// The name of the child.
    pub fn name(&self) -> &str {
        &self.sa.config.name
    }

    /// The answer to the offer: SA, TSi, TSr, and notifications.
    pub fn payloads(&self) -> Vec<Payload> {
        let mut payloads = vec![
            Payload::SecurityAssociation(vec![self.sa.agreement.answer(&self.sa.spi_in.to_be_bytes())]),
            Payload::TsInitiator(self.sa.policy.remote.emit()),
            Payload::TsResponder(self.sa.policy.local.emit()),
        ];
        payloads.extend(mode_notify(self.sa.mode));
        let additional = Notify::new(NotifyType::ADDITIONAL_TS_POSSIBLE, &[]);
        payloads.extend(self.additional.then_some(Payload::Notify(additional)));
        let says = self.may_be_several.then(|| resource::notify(&self.sa.config, self.sa.resource));
        payloads.extend(says.flatten());
        payloads
    }

    /// With keys, for the datapath. `role` is that in the exchange that made it, which its nonces are of.
    pub fn install(
        mut self,
        keys: &Keys,
        role: Role,
        secrets: &[Secret],
        nonces: Nonces<'_>,
        place: Place<'_>,
        (now_ms, random): (u64, u32),
    ) -> Install {
        let made = keys.child(self.algorithm, secrets, nonces);
        let (key_in, key_out) = match role {
            Role::Initiator => (made.from_responder, made.from_initiator),
            Role::Responder => (made.from_initiator, made.from_responder),
        };
        let Child { rekey_ms, rand_ms, .. } = *self.sa.config;
        self.sa.rekey_at_ms = rekey_at_ms(now_ms, rekey_ms, rand_ms, random);
        Install {
            connection: place.connection.to_owned(),
            algorithm: self.algorithm,
            key_in,
            key_out,
            local: place.local,
            peer: place.peer,
            is_in_udp: place.is_in_udp,
            nat: place.nat,
            replaces: None,
            sends: true,
            sa: self.sa,
        }
    }
}

/// Where the packets of a child SA go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub connection: &'a str,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub is_in_udp: bool,
    pub nat: Nat,
}

fn named(selectors: &TrafficSelectors) -> String {
    TrafficSelectors::new(selectors.iter().take(MOST_NAMED).copied()).to_string()
}

/// What it is for.
fn between(policy: &Policy) -> String {
    format!("{} here and {} there", named(&policy.local), named(&policy.remote))
}

fn mode_notify(mode: Mode) -> Option<Payload> {
    let is_transport = mode == Mode::Transport;
    is_transport.then(|| Payload::Notify(Notify::new(NotifyType::USE_TRANSPORT_MODE, &[])))
}

fn has_transport(payloads: &Payloads) -> bool {
    payloads.has_notify(NotifyType::USE_TRANSPORT_MODE)
}

/// Of what a peer sends, so many are named in logs.
const MOST_NAMED: usize = 16;

/// What a peer offers, as well as it has names.
pub(super) fn names(offered: &[crate::message::Proposal]) -> String {
    let transform = |t: &crate::message::Transform| {
        let bits = t.key_length().map_or(String::new(), |bits| format!("/{bits}"));
        format!("{} {}{bits}", t.kind, t.id)
    };
    let proposal = |p: &crate::message::Proposal| {
        if let Some(name) = (p.transforms.len() <= MOST_NAMED).then(|| proposal::name(p)).flatten() {
            return name;
        }
        let transforms: Vec<_> = p.transforms.iter().take(MOST_NAMED).map(transform).collect();
        format!("{}: {}", p.protocol, transforms.join(", "))
    };
    offered.iter().take(MOST_NAMED).map(proposal).collect::<Vec<_>>().join("; ")
}

keep!(ChildSa {
    config,
    agreement,
    mode,
    policy,
    spi_in,
    spi_out,
    resource,
    rekey_at_ms,
    is_replaced,
    successor,
    ended_by
});
keep_enum!(EndedBy { 0 => Peer, 1 => Silence });
keep!(Install { sa, connection, algorithm, key_in, key_out, local, peer, is_in_udp, nat, replaces, sends });
keep!(Offer { config, proposals, policy, asks_address, spi_in, resource });
keep!(Agreed { sa, algorithm, additional, may_be_several });

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
