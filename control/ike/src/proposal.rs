//! Proposals: what is configured, and what two sides agree on (RFC 7296 §2.7, §3.3, RFC 9370 §2.2).
//!
//! ```text
//!  initiator   offer  ->  SA payload              accept  <-  SA payload of one proposal
//!  responder              select  ->  Agreement   ->  answer  ->
//! ```
//!
//! A proposal has alternatives for each type of transform, the best first. Both sides agree on one proposal, and in it on
//! one transform of each type. A type that one side leaves out is the same as NONE of it, where there is such a number.
//!
//! What is configured are strings as strongSwan has them ([`Proposals::ike`]). Only what can be done is configured, so
//! whatever is agreed on has a [`Suite`] or an [`Algorithm`].

mod keyword;
mod single;

pub use keyword::ProposalError;

use crate::{
    crypto::transform::{Encryption, Integrity, KeyExchange, Prf, Suite},
    message::{self, AttributeType, AttributeValue, IkeSpi, Protocol, TransformType},
};
use portcullis_sadb::{self as sadb, Algorithm};
use std::{fmt, iter};

/// A transform by its numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Transform {
    kind: TransformType,
    id: u16,
    key_bits: Option<u16>,
}

/// The types that are known, key exchanges in the order in which they are made.
const TYPES: [TransformType; 12] = [
    TransformType::ENCR,
    TransformType::INTEG,
    TransformType::PRF,
    TransformType::ESN,
    TransformType::KE,
    TransformType::ADDKE1,
    TransformType::ADDKE2,
    TransformType::ADDKE3,
    TransformType::ADDKE4,
    TransformType::ADDKE5,
    TransformType::ADDKE6,
    TransformType::ADDKE7,
];

fn is_additional(kind: TransformType) -> bool {
    TransformType::ADDITIONAL_KEY_EXCHANGES.contains(&kind)
}

fn is_key_exchange(kind: TransformType) -> bool {
    kind == TransformType::KE || is_additional(kind)
}

impl Transform {
    /// What a type that is left out is the same as (RFC 7296 §3.3.2, §3.3.3, RFC 9370 §2.2.2).
    fn none(kind: TransformType) -> Option<Transform> {
        let has_one = kind == TransformType::INTEG || is_key_exchange(kind);
        has_one.then_some(Transform { kind, id: 0, key_bits: None })
    }

    fn is_none(&self) -> bool {
        Transform::none(self.kind) == Some(*self)
    }

    /// That of a message; nothing if it has attributes that are not known, as it is not chosen then (RFC 7296 §3.3.6).
    fn parse(transform: &message::Transform) -> Option<Transform> {
        let key_bits = match transform.attributes.as_slice() {
            [] => None,
            [attribute] => match attribute.value {
                AttributeValue::Short(bits) if attribute.kind == AttributeType::KEY_LENGTH => Some(bits),
                _ => return None,
            },
            _ => return None,
        };
        Some(Transform { kind: transform.kind, id: transform.id, key_bits })
    }

    fn emit(&self) -> message::Transform {
        match self.key_bits {
            Some(bits) => message::Transform::with_key_length(self.kind, self.id, bits),
            None => message::Transform::new(self.kind, self.id),
        }
    }
}

/// Alternatives for each type, the best first, of a type in one row.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Proposal {
    protocol: Protocol,
    transforms: Vec<Transform>,
}

impl Proposal {
    fn of(&self, kind: TransformType) -> impl Iterator<Item = Transform> {
        self.transforms.iter().copied().filter(move |t| t.kind == kind)
    }

    fn has(&self, kind: TransformType) -> bool {
        self.of(kind).next().is_some()
    }

    fn without(&self, is_left_out: impl Fn(TransformType) -> bool) -> Proposal {
        let transforms = self.transforms.iter().copied().filter(|t| !is_left_out(t.kind)).collect();
        Proposal { transforms, ..*self }
    }

    /// The peer's, as far as it can be chosen. Not at all if it has a type that is not known, or nothing of a type that is
    /// (RFC 7296 §3.3.6).
    fn parse(theirs: &message::Proposal) -> Option<Proposal> {
        let mut transforms = vec![];
        for transform in theirs.transforms.iter().filter_map(Transform::parse) {
            if !transforms.contains(&transform) {
                transforms.push(transform);
            }
        }
        let proposal = Proposal { protocol: theirs.protocol, transforms };
        let is_there = |t: &message::Transform| TYPES.contains(&t.kind) && proposal.has(t.kind);
        theirs.transforms.iter().all(is_there).then_some(proposal)
    }

    /// What can be chosen of a type, the best first.
    fn alternatives(&self, kind: TransformType) -> Vec<Transform> {
        let none = Transform::none(kind).filter(|_| !self.has(kind));
        self.of(kind).chain(none).collect()
    }

    /// What of it and of the other's proposal go together: one of each type that the other has.
    fn agree(&self, theirs: &Proposal, order: Order) -> Option<Vec<Transform>> {
        if self.protocol != theirs.protocol {
            return None;
        }
        let (best, others) = match order {
            Order::Ours => (self, theirs),
            Order::Theirs => (theirs, self),
        };
        let (mut chosen, mut key_exchanges) = (vec![], vec![]);
        for kind in TYPES.into_iter().filter(|kind| self.has(*kind) || theirs.has(*kind)) {
            let others = others.alternatives(kind);
            let mut common = best.alternatives(kind).into_iter().filter(|t| others.contains(t));
            match is_key_exchange(kind) {
                true => key_exchanges.push(common.collect()),
                false => chosen.push(common.next()?),
            }
        }
        let is_whole = choose(&key_exchanges, &mut chosen);
        chosen.retain(|t| theirs.has(t.kind));
        is_whole.then_some(chosen)
    }
}

/// The first of each, or where methods would be the same, the next best (RFC 9370 §2.2.2). Whatever a peer offers, there
/// are no more to try than are configured.
fn choose(key_exchanges: &[Vec<Transform>], chosen: &mut Vec<Transform>) -> bool {
    let Some((alternatives, rest)) = key_exchanges.split_first() else { return true };
    alternatives.iter().any(|alternative| {
        let is_same = |t: &Transform| is_key_exchange(t.kind) && t.id == alternative.id;
        if !alternative.is_none() && chosen.iter().any(is_same) {
            return false;
        }
        chosen.push(*alternative);
        let is_whole = choose(rest, chosen);
        if !is_whole {
            chosen.pop();
        }
        is_whole
    })
}

/// Whose order decides, of proposals and of the transforms in them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// That of what we have configured.
    #[default]
    Ours,
    /// That of what the initiator has offered.
    Theirs,
}

/// Why what a responder has chosen is not taken. It is none of what it was offered, so there is no SA (RFC 7296 §2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcceptError {
    /// There must be one proposal (RFC 7296 §3.3).
    #[error("the peer has chosen {0} proposals and not one")]
    Count(usize),
    /// No proposal of that number was offered.
    #[error("the peer has chosen proposal {0}, which it was not offered")]
    Number(u8),
    /// Two transforms of a type.
    #[error("the peer has chosen two transforms of type {0}")]
    Twice(TransformType),
    /// A transform that is not in the proposal of that number, one too few, or one key exchange method twice (RFC 9370
    /// §2.2.2).
    #[error("the peer has changed what is in proposal {0}")]
    Changed(u8),
}

/// What one side can do, the best first; at least one proposal, all of a protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposals(Vec<Proposal>);

impl Proposals {
    /// For the initiator's SA payload, with its SPI: none in IKE_SA_INIT, of 8 octets to rekey an IKE SA, else of 4.
    pub fn offer(&self, spi: &[u8]) -> Vec<message::Proposal> {
        let numbered = iter::zip(1.., &self.0);
        numbered
            .map(|(number, proposal)| emit(number, proposal.protocol, spi, &proposal.transforms))
            .collect()
    }

    /// The responder's choice. Without one, the answer is NO_PROPOSAL_CHOSEN (RFC 7296 §2.7).
    pub fn select(&self, offered: &[message::Proposal], order: Order) -> Option<Agreement> {
        let theirs = offered.iter().filter_map(|t| Some((t.number, spi_of(t)?, Proposal::parse(t)?)));
        let theirs: Vec<_> = theirs.collect();
        let agreement = |ours: &Proposal, (number, spi, theirs): &(u8, Vec<u8>, Proposal)| {
            let transforms = ours.agree(theirs, order)?;
            Some(Agreement { number: *number, protocol: theirs.protocol, spi: spi.clone(), transforms })
        };
        match order {
            Order::Ours => self.0.iter().find_map(|ours| theirs.iter().find_map(|t| agreement(ours, t))),
            Order::Theirs => theirs.iter().find_map(|t| self.0.iter().find_map(|ours| agreement(ours, t))),
        }
    }

    /// What the responder has chosen of [`Proposals::offer`].
    pub fn accept(&self, answer: &[message::Proposal]) -> Result<Agreement, AcceptError> {
        let [theirs] = answer else { return Err(AcceptError::Count(answer.len())) };
        let number = theirs.number;
        let ours = usize::from(number).checked_sub(1).and_then(|at| self.0.get(at));
        let ours = ours.ok_or(AcceptError::Number(number))?;
        let twice =
            TYPES.into_iter().find(|kind| theirs.transforms.iter().filter(|t| t.kind == *kind).count() > 1);
        if let Some(kind) = twice {
            return Err(AcceptError::Twice(kind));
        }
        let spi = spi_of(theirs).ok_or(AcceptError::Changed(number))?;
        let chosen = Proposal::parse(theirs).and_then(|theirs| ours.agree(&theirs, Order::Ours));
        let transforms = chosen.ok_or(AcceptError::Changed(number))?;
        Ok(Agreement { number, protocol: theirs.protocol, spi, transforms })
    }

    /// The method of the first KE payload: the best of the best proposal that has one.
    pub fn key_exchange(&self) -> Option<KeyExchange> {
        self.key_exchanges().next()
    }

    /// The method that an INVALID_KE_PAYLOAD notification asks for; nothing if it has not two octets, or its method was
    /// not offered, or is the one that the responder has refused: such a notification leads nowhere (RFC 7296 §1.2, §2.7).
    pub fn asked_key_exchange(&self, notification: &[u8], refused: KeyExchange) -> Option<KeyExchange> {
        let id = u16::from_be_bytes(notification.try_into().ok()?);
        self.key_exchanges().find(|method| method.id() == id && *method != refused)
    }

    fn key_exchanges(&self) -> impl Iterator<Item = KeyExchange> {
        self.0.iter().flat_map(|p| p.of(TransformType::KE)).filter_map(|t| KeyExchange::from_id(t.id))
    }

    /// These for a child SA that is made in IKE_AUTH, which has no KE payload (RFC 7296 §1.2).
    pub fn without_key_exchange(&self) -> Proposals {
        Proposals::of(self.0.iter().map(|p| p.without(is_key_exchange)))
    }

    /// Each once.
    fn of(proposals: impl Iterator<Item = Proposal>) -> Proposals {
        let mut all = vec![];
        proposals.for_each(|proposal| {
            if !all.contains(&proposal) {
                all.push(proposal)
            }
        });
        Proposals(all)
    }

    /// Those of these that are left for a peer without IKE_INTERMEDIATE, which cannot do additional key exchanges
    /// (RFC 9370 §2.2.1): nothing if all have some that are not optional.
    pub fn without_additional_key_exchanges(&self) -> Option<Proposals> {
        let is_optional = |p: &&Proposal| {
            TransformType::ADDITIONAL_KEY_EXCHANGES
                .into_iter()
                .all(|kind| !p.has(kind) || p.of(kind).any(|t| t.is_none()))
        };
        let left = Proposals::of(self.0.iter().filter(is_optional).map(|p| p.without(is_additional)));
        (!left.0.is_empty()).then_some(left)
    }
}

impl Proposals {
    /// What is offered to a peer that may not know additional key exchanges, which skips what has them (RFC 9370 §2.2.1):
    /// these, and behind them what is left without.
    pub fn for_any_peer(&self) -> Proposals {
        let left = self.without_additional_key_exchanges().map_or(vec![], |left| left.0);
        Proposals::of(self.0.iter().cloned().chain(left).take(keyword::MOST_PROPOSALS))
    }

    /// Whether any of them has additional key exchanges.
    pub fn have_additional_key_exchanges(&self) -> bool {
        self.0.iter().any(|p| p.transforms.iter().any(|t| is_additional(t.kind)))
    }
}

/// What is offered, without whatever has additional key exchanges: of a peer with which there is no IKE_INTERMEDIATE, they
/// are transforms of unknown types (RFC 9370 §2.2.1).
pub fn without_additional_key_exchanges(offered: &[message::Proposal]) -> Vec<message::Proposal> {
    let is_plain = |p: &&message::Proposal| !p.transforms.iter().any(|t| is_additional(t.kind));
    offered.iter().filter(is_plain).cloned().collect()
}

/// Of a length that the protocol has (RFC 7296 §3.3.1).
fn spi_of(proposal: &message::Proposal) -> Option<Vec<u8>> {
    let fits = match proposal.protocol {
        Protocol::IKE => matches!(proposal.spi.len(), 0 | 8),
        _ => proposal.spi.len() == 4,
    };
    fits.then(|| proposal.spi.clone())
}

fn emit(number: u8, protocol: Protocol, spi: &[u8], transforms: &[Transform]) -> message::Proposal {
    let transforms = transforms.iter().map(Transform::emit).collect();
    message::Proposal { number, protocol, spi: spi.to_vec(), transforms }
}

/// The KE payload is of another method than was agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the peer's key exchange is not of {}", .wanted.name())]
pub struct WrongKeyExchange {
    /// The method that was agreed on.
    pub wanted: KeyExchange,
}

impl WrongKeyExchange {
    /// The data of the INVALID_KE_PAYLOAD notification that asks for it (RFC 7296 §1.2, §3.10.1).
    pub fn notification(self) -> [u8; 2] {
        self.wanted.id().to_be_bytes()
    }
}

/// What both sides have agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agreement {
    number: u8,
    protocol: Protocol,
    spi: Vec<u8>,
    transforms: Vec<Transform>,
}

impl Agreement {
    /// For the responder's SA payload, with its own SPI.
    pub fn answer(&self, spi: &[u8]) -> message::Proposal {
        emit(self.number, self.protocol, spi, &self.transforms)
    }

    /// IKE, ESP or AH.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What it is made of: the types of transforms, their numbers at IANA, and bits of keys where they are told.
    pub fn transforms(&self) -> impl Iterator<Item = (TransformType, u16, Option<u16>)> {
        self.transforms.iter().map(|t| (t.kind, t.id, t.key_bits))
    }

    /// The peer's SPI of a child SA.
    pub fn child_spi(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.spi.as_slice().try_into().ok()?))
    }

    /// The peer's SPI of an IKE SA that is rekeyed.
    pub fn ike_spi(&self) -> Option<IkeSpi> {
        Some(<[u8; 8]>::try_from(self.spi.as_slice()).ok()?.into())
    }

    /// The transforms of an IKE SA; nothing of a child SA.
    pub fn suite(&self) -> Option<Suite> {
        let encryption = self.of(TransformType::ENCR)?;
        let integrity = self.of(TransformType::INTEG).and_then(|t| Integrity::from_id(t.id));
        let prf = Prf::from_id(self.of(TransformType::PRF)?.id)?;
        Suite::new(Encryption::from_id(encryption.id, encryption.key_bits)?, integrity, prf)
    }

    /// The transforms of a child SA; nothing of an IKE SA.
    pub fn algorithm(&self) -> Option<Algorithm> {
        let protocol = match self.protocol {
            Protocol::ESP => sadb::Protocol::Esp,
            Protocol::AH => sadb::Protocol::Ah,
            _ => return None,
        };
        let is_it = |id, key_bits, row: &sadb::Transform| (row.id, row.key_bits) == (id, key_bits);
        let (e, i) = (self.of(TransformType::ENCR), self.of(TransformType::INTEG));
        let (e, i) =
            (e.map_or((0, None), |t| (t.id, t.key_bits)), i.map_or((0, None), |t| (t.id, t.key_bits)));
        Algorithm::all_for(protocol).find(|algorithm| {
            let (encryption, integrity) =
                (algorithm.encryption().transform(), algorithm.integrity().transform());
            is_it(e.0, e.1, encryption) && is_it(i.0, i.1, integrity)
        })
    }

    /// Whether a child SA has extended sequence numbers.
    pub fn esn(&self) -> bool {
        self.of(TransformType::ESN).is_some_and(|t| t.id == keyword::ESN)
    }

    /// The method of the KE payload, if there is one.
    pub fn key_exchange(&self) -> Option<KeyExchange> {
        self.of(TransformType::KE).and_then(|t| KeyExchange::from_id(t.id))
    }

    /// Those behind it, in their order (RFC 9370 §2.2.2).
    pub fn additional_key_exchanges(&self) -> impl Iterator<Item = KeyExchange> {
        let additional = self.transforms.iter().filter(|t| is_additional(t.kind));
        additional.filter_map(|t| KeyExchange::from_id(t.id))
    }

    /// Whether the initiator's KE payload, if there is one, is of the method that was agreed on. What it has sent without
    /// an agreement on one is not looked at.
    pub fn check_key_exchange(&self, method: Option<u16>) -> Result<(), WrongKeyExchange> {
        match self.key_exchange() {
            Some(wanted) if method != Some(wanted.id()) => Err(WrongKeyExchange { wanted }),
            _ => Ok(()),
        }
    }

    fn of(&self, kind: TransformType) -> Option<Transform> {
        self.transforms.iter().copied().find(|t| t.kind == kind)
    }
}

/// As strings that they could be configured by, with `, ` between.
impl fmt::Display for Proposals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|p| keyword::names(p.protocol, &p.transforms)).collect();
        f.write_str(&names.join(", "))
    }
}

/// What a peer offers, as a string that it could be configured by; nothing if it has what cannot be configured.
pub fn name(offered: &message::Proposal) -> Option<String> {
    let transforms: Vec<_> = offered.transforms.iter().map(Transform::parse).collect::<Option<_>>()?;
    let names = keyword::names(offered.protocol, &transforms);
    (!names.contains('?')).then_some(names)
}

/// As a string that it could be configured by.
impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&keyword::names(self.protocol, &self.transforms))
    }
}

crate::kept::keep!(Transform { kind, id, key_bits });
crate::kept::keep!(Proposal { protocol, transforms });
crate::kept::keep!(Proposals(_));
crate::kept::keep!(Agreement { number, protocol, spi, transforms });

#[cfg(test)]
mod tests;
