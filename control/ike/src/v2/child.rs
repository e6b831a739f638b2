//! Child SAs: what is offered for one, what is agreed on, and what the datapath is to do about it (RFC 7296 §1.3, §2.9,
//! §2.17).

use super::{configuration::Hosts, context::Context, resource};
use crate::{
    connection::Child,
    crypto::{
        Secret,
        keys::{Keys, Nonces, Role},
        transform::KeyExchange as Method,
    },
    kept::keep,
    message::{Notify, NotifyType, Payload, Payloads},
    proposal::{self, Agreement, Order, Proposals, WrongKeyExchange},
    traffic_selector::{self, Policy, TrafficSelector, TrafficSelectors},
};
use portcullis_sadb::{Algorithm, Flow, Mode};
use std::{net::IpAddr, sync::Arc};

pub(crate) use crate::child::Place;
pub use crate::child::{ChildError, ChildSa, EndedBy, Install, Wanted};

/// What we have offered for a child SA.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub config: Arc<Child>,
    /// The packet that wants it.
    packet: Option<Flow>,
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
    /// The packet that wants it.
    packet: Option<Flow>,
    /// What the peer calls our end and its own, where a NAT is between.
    named: (Option<IpAddr>, Option<IpAddr>),
}

/// With a key exchange, or without one in IKE_AUTH (RFC 7296 §1.2).
fn proposals_of(config: &Child, has_key_exchange: bool) -> Proposals {
    if has_key_exchange { config.proposals.for_any_peer() } else { config.proposals.without_key_exchange() }
}

impl Offer {
    /// For a child between these hosts; nothing if there is no SPI.
    pub fn new(
        wanted: &Wanted,
        has_key_exchange: bool,
        hosts: &Hosts,
        cx: &mut Context<'_>,
    ) -> Option<Offer> {
        let Wanted { config, packet } = wanted;
        let (policy, asks_address) = (config.policy(&hosts.asked, &hosts.peer), hosts.asked != hosts.local);
        // RFC 7296 §2.9: not what the child is not for, and not before it is known which address is ours.
        let packet = packet
            .as_deref()
            .copied()
            .filter(|flow| !asks_address && policy.has(&TrafficSelector::of_flow(flow)));
        Some(Offer {
            config: config.clone(),
            packet,
            proposals: proposals_of(config, has_key_exchange),
            policy: policy.offer(packet.as_ref().map(TrafficSelector::of_flow)),
            asks_address,
            spi_in: (cx.child_spi)()?,
            resource: None,
        })
    }

    /// What wants it.
    pub fn wanted(&self) -> Wanted {
        Wanted { config: self.config.clone(), packet: self.packet.map(Box::new) }
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
        let Offer { config, packet, spi_in, resource, .. } = self;
        let may_be_several = resource::is_said(&config, payloads);
        let takes_padding = takes_padding(payloads);
        let agreed = Agreed::new(ChildParts { config, agreement, mode, policy, spi_in, takes_padding })?;
        let sa = ChildSa { resource, ..agreed.sa };
        Ok(Agreed { sa, may_be_several, packet, ..agreed })
    }
}

/// What is agreed on before the peer's SPI is looked at.
struct ChildParts {
    config: Arc<Child>,
    agreement: Agreement,
    mode: Mode,
    policy: Policy,
    spi_in: u32,
    takes_padding: bool,
}

impl Agreed {
    fn new(parts: ChildParts) -> Result<Agreed, ChildError> {
        let ChildParts { config, agreement, mode, policy, spi_in, takes_padding } = parts;
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
            around: None,
            resource: None,
            takes_padding,
            rekey_at_ms: u64::MAX,
            is_replaced: false,
            successor: None,
            ended_by: None,
        };
        Ok(Agreed {
            sa,
            algorithm,
            additional: false,
            may_be_several: false,
            packet: None,
            named: (None, None),
        })
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
        let narrow_to = |children: &[&Arc<Child>], tsi: &TrafficSelectors, tsr: &TrafficSelectors| {
            let policies: Vec<_> = children.iter().map(|c| c.policy(&hosts.local, &hosts.peer)).collect();
            let narrowed = traffic_selector::narrow(&policies, tsi, tsr)?;
            Some((children[narrowed.policy].clone(), narrowed))
        };
        let narrow = |children: &[&Arc<Child>]| narrow_to(children, &tsi, &tsr);
        // RFC 7296 §2.23.1: hosts have the addresses that their packets have here.
        let through_nat = |children: &[&Arc<Child>]| {
            let of_hosts = children.iter().copied().filter(|child| child.mode == Mode::Transport);
            let ((tsr, ours), (tsi, theirs)) = (natted(&tsr, hosts.natted[0]), natted(&tsi, hosts.natted[1]));
            let is_any = has_transport(payloads) && (ours, theirs) != (None, None);
            let (config, narrowed) = narrow_to(&of_hosts.filter(|_| is_any).collect::<Vec<_>>(), &tsi, &tsr)?;
            Some((config, narrowed, (ours, theirs)))
        };
        let agree = |child: &Arc<Child>| proposals_of(child, has_key_exchange).select(offered, order);
        // Of those that it can be made of, the one that fits best.
        let possible: Vec<_> = children.iter().filter(|child| agree(child).is_some()).collect();
        let found = through_nat(&possible)
            .or_else(|| narrow(&possible).map(|(config, narrowed)| (config, narrowed, (None, None))));
        let found =
            found.and_then(|(config, narrowed, named)| Some((agree(&config)?, config, narrowed, named)));
        let Some((agreement, config, narrowed, named)) = found else {
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
        let takes_padding = takes_padding(payloads);
        let parts = ChildParts { config, agreement, mode, policy, spi_in, takes_padding };
        let agreed = Agreed::new(parts)?;
        let may_be_several = resource::is_said(&agreed.sa.config, payloads);
        Ok(Agreed { additional, may_be_several, named, ..agreed })
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

    /// What wants it.
    pub fn wanted(&self) -> Wanted {
        Wanted { config: self.sa.config.clone(), packet: self.packet.map(Box::new) }
    }

    /// The name of the child.
    pub fn name(&self) -> &str {
        &self.sa.config.name
    }

    /// The answer to the offer: SA, TSi, TSr, and notifications.
    pub fn payloads(&self) -> Vec<Payload> {
        let mut payloads = vec![
            Payload::SecurityAssociation(vec![self.sa.agreement.answer(&self.sa.spi_in.to_be_bytes())]),
            Payload::TsInitiator(at(&self.sa.policy.remote, self.named.1).emit()),
            Payload::TsResponder(at(&self.sa.policy.local, self.named.0).emit()),
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
        self,
        keys: &Keys,
        role: Role,
        secrets: &[Secret],
        nonces: Nonces<'_>,
        place: Place<'_>,
        at: (u64, u32),
    ) -> Install {
        self.sa.install((self.algorithm, keys.child(self.algorithm, secrets, nonces)), role, place, at)
    }
}

/// Selectors of a host behind a NAT, of the address that it has to us, and what it is called; or as they are.
fn natted(selectors: &TrafficSelectors, seen: Option<IpAddr>) -> (TrafficSelectors, Option<IpAddr>) {
    let named = selectors.host().filter(|_| seen.is_some());
    (at(selectors, seen.filter(|_| named.is_some())), named)
}

/// The same of an address, if there is one.
fn at(selectors: &TrafficSelectors, address: Option<IpAddr>) -> TrafficSelectors {
    address.map_or_else(|| selectors.clone(), |address| selectors.at(address))
}

fn named(selectors: &TrafficSelectors) -> String {
    TrafficSelectors::new(selectors.iter().take(MOST_NAMED).copied()).to_string()
}

/// What it is for.
pub(super) fn between(policy: &Policy) -> String {
    format!("{} here and {} there", named(&policy.local), named(&policy.remote))
}

fn mode_notify(mode: Mode) -> Option<Payload> {
    let is_transport = mode == Mode::Transport;
    is_transport.then(|| Payload::Notify(Notify::new(NotifyType::USE_TRANSPORT_MODE, &[])))
}

fn has_transport(payloads: &Payloads) -> bool {
    payloads.has_notify(NotifyType::USE_TRANSPORT_MODE)
}

/// RFC 7296 §3.10.1
fn takes_padding(payloads: &Payloads) -> bool {
    !payloads.has_notify(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED)
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

keep!(Offer { config, packet, proposals, policy, asks_address, spi_in, resource });
keep!(Agreed { sa, algorithm, additional, may_be_several, packet, named });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2::tests::world::{LEFT, RIGHT, World, address, config, connection};

    // RFC 7296 §3.10.1
    #[test]
    fn a_peer_says_if_it_takes_no_padding() {
        let connections = [LEFT, RIGHT].map(|end| connection("a", end));
        let [ours, theirs] = [LEFT, RIGHT].map(|end| connections[end].children[0].clone());
        let hosts = |end| Hosts {
            local: vec![address(end)],
            asked: vec![address(end)],
            peer: vec![address(1 - end)],
            natted: [None; 2],
        };
        let mut world = World::new(1, connections.map(config));
        for says in [false, true] {
            let notify = Notify::new(NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, &[]);
            let with = |mut payloads: Vec<Payload>| {
                payloads.extend(says.then(|| Payload::Notify(notify.clone())));
                Payloads(payloads)
            };
            let [responder, initiator] = world.with(LEFT, |_, cx| {
                let offer = Offer::new(&Wanted::from(&ours), true, &hosts(LEFT), cx).unwrap();
                let (children, asked) = ([theirs.clone()], with(offer.payloads()));
                let chosen =
                    Agreed::select((&children, Order::Ours), true, &asked, &hosts(RIGHT), cx).unwrap();
                let accepted = offer.accept(&with(chosen.payloads()), &hosts(LEFT)).unwrap();
                [chosen.sa, accepted.sa]
            });
            assert_eq!([responder.takes_padding, initiator.takes_padding], [!says; 2]);
        }
    }
}
