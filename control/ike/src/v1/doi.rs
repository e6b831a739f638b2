//! What child SAs are made of: transforms and attributes of ESP and AH (RFC 2407 §4.4, §4.5), as what is configured has them.

use super::{nat::Encapsulation, times::LEAST_SECS};
use crate::{
    connection::Child,
    crypto::transform::KeyExchange,
    kept::keep,
    message::{
        Attribute, Protocol, TransformType,
        isakmp::{self, Proposal, SecurityAssociation, Transform},
    },
    proposal::{AcceptError, Agreement, Order, Proposals},
};
use portcullis_sadb::Mode;

const LIFE_TYPE: u16 = 1;
const LIFE_DURATION: u16 = 2;
const GROUP: u16 = 3;
const ENCAPSULATION: u16 = 4;
const AUTH: u16 = 5;
const KEY_LENGTH: u16 = 6;
/// RFC 4304 §2
const EXTENDED_SEQUENCE: u16 = 11;

const SECONDS: u64 = 1;
const KILOBYTES: u64 = 2;

/// Numbers of ESP's encryption that are not those of IKEv2: this one, and that.
const OTHER_ENCRYPTION: [(u16, u8); 2] = [
    (23, 22), // Camellia-CBC
    (21, 23), // AES-GMAC
];

/// The same of integrity: IKEv2's number, that of the attribute, and that of AH's transform.
const INTEGRITY: [(u16, u16, u8); 8] = [
    (2, 2, 3),    // HMAC-SHA1
    (5, 9, 9),    // AES-XCBC
    (12, 5, 5),   // HMAC-SHA2-256
    (13, 6, 6),   // HMAC-SHA2-384
    (14, 7, 7),   // HMAC-SHA2-512
    (9, 11, 11),  // AES-GMAC of AH, with keys of 128 bits
    (10, 12, 12), // of 192
    (11, 13, 13), // of 256
];

/// ESP's encryption that IKEv1 has numbers for.
const ENCRYPTION: std::ops::RangeInclusive<u8> = 3..=23;

fn encryption_id(id: u16) -> Option<u8> {
    let other = OTHER_ENCRYPTION.iter().find(|(v2, _)| *v2 == id).map(|(_, v1)| *v1);
    other.or_else(|| u8::try_from(id).ok()).filter(|id| ENCRYPTION.contains(id))
}

/// For how long an SA is, if that is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Life {
    pub secs: Option<u64>,
    pub kilobytes: Option<u64>,
}

impl Life {
    /// What is configured of a child.
    pub fn of(child: &Child) -> Life {
        let hard = &child.handling.lifetime.hard;
        Life {
            secs: (hard.secs > 0).then_some(hard.secs.into()),
            kilobytes: Some(hard.bytes / 1024).filter(|kilobytes| *kilobytes > 0),
        }
    }

    fn attributes(self) -> impl Iterator<Item = Attribute> {
        let of = |(kind, value): (u64, Option<u64>)| {
            let value = u32::try_from(value?).unwrap_or(u32::MAX);
            Some([Attribute::number(LIFE_TYPE, kind as u32), Attribute::number(LIFE_DURATION, value)])
        };
        [(SECONDS, self.secs), (KILOBYTES, self.kilobytes)].into_iter().filter_map(of).flatten()
    }

    /// The shorter of both.
    pub fn and(self, other: Life) -> Life {
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Life { secs: least(self.secs, other.secs), kilobytes: least(self.kilobytes, other.kilobytes) }
    }

    /// That of a peer's attributes, as in RESPONDER-LIFETIME (RFC 2407 §4.6.3.1).
    pub fn said(attributes: &[Attribute]) -> Life {
        let (mut life, mut kind) = (Life::default(), 0);
        for attribute in attributes {
            match (attribute.kind.0, attribute.as_number()) {
                (LIFE_TYPE, Some(value)) => kind = value,
                (LIFE_DURATION, value) if kind == SECONDS => {
                    life.secs = value.map(|secs| secs.max(LEAST_SECS))
                }
                (LIFE_DURATION, value) if kind == KILOBYTES => life.kilobytes = value,
                _ => {}
            }
        }
        life
    }
}

/// That of the data of a RESPONDER-LIFETIME notification.
pub(super) fn life_of(data: &[u8]) -> Option<Life> {
    isakmp::attributes(data).ok().map(|all| Life::said(&all))
}

/// The data of such a notification.
pub(super) fn life_octets(life: Life) -> Vec<u8> {
    isakmp::attribute_octets(&life.attributes().collect::<Vec<_>>())
}

/// A transform of a child SA, by its numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Said {
    protocol: Protocol,
    id: u8,
    key_bits: u64,
    auth: u64,
    group: u64,
    is_extended: bool,
}

/// What goes with it, and need not be the same.
struct With {
    encapsulation: u64,
    life: Life,
}

impl Said {
    /// Nothing if it has what is not known.
    fn parse(protocol: Protocol, transform: &Transform) -> Option<(Said, With)> {
        let mut said = Said { protocol, id: transform.id, ..Said::default() };
        let mut with = With { encapsulation: 0, life: Life::said(&transform.attributes) };
        for attribute in &transform.attributes {
            let value = attribute.as_number()?;
            match attribute.kind.0 {
                LIFE_TYPE | LIFE_DURATION => {}
                GROUP => said.group = value,
                ENCAPSULATION => with.encapsulation = value,
                AUTH => said.auth = value,
                KEY_LENGTH => said.key_bits = value,
                EXTENDED_SEQUENCE => said.is_extended = value == 1,
                _ => return None,
            }
        }
        Some((said, with))
    }

    /// That of what is configured, if IKEv1 has numbers for it.
    fn of(agreement: &Agreement) -> Option<Said> {
        let integrity = match agreement.chosen(TransformType::INTEG).filter(|(id, _)| *id != 0) {
            Some((id, _)) => Some(INTEGRITY.iter().find(|(v2, ..)| *v2 == id)?),
            None => None,
        };
        let encryption = agreement.chosen(TransformType::ENCR);
        let id = match (agreement.protocol(), encryption, integrity) {
            (Protocol::AH, _, Some((.., id))) => *id,
            (Protocol::ESP, Some((id, _)), _) => encryption_id(id)?,
            _ => return None,
        };
        let group = agreement.key_exchange();
        let is_kem =
            |group| matches!(group, KeyExchange::MlKem512 | KeyExchange::MlKem768 | KeyExchange::MlKem1024);
        if group.is_some_and(is_kem) {
            return None;
        }
        Some(Said {
            protocol: agreement.protocol(),
            id,
            key_bits: encryption.and_then(|(_, bits)| bits).unwrap_or(0).into(),
            auth: integrity.map_or(0, |(_, auth, _)| *auth).into(),
            group: group.map_or(0, |group| group.id()).into(),
            is_extended: agreement.esn(),
        })
    }

    fn attributes(self, encapsulation: u16, life: Life) -> Vec<Attribute> {
        let number = |kind, value: u64| (value > 0).then(|| Attribute::number(kind, value as u32));
        let mut all = vec![Attribute::number(ENCAPSULATION, encapsulation.into())];
        all.extend(life.attributes());
        all.extend(number(KEY_LENGTH, self.key_bits));
        all.extend(number(AUTH, self.auth));
        all.extend(number(GROUP, self.group));
        all.extend(number(EXTENDED_SEQUENCE, self.is_extended.into()));
        all
    }
}

/// What of a child IKEv1 can do, the best first.
#[derive(Debug)]
pub(super) struct Offered {
    pub own: Vec<Agreement>,
    /// Of AH around it.
    pub around: Option<Vec<Agreement>>,
}

impl Offered {
    /// With the key exchange of the best one, or without any: there is one for all SAs (RFC 2409 §5.5).
    pub fn of(child: &Child) -> Option<Offered> {
        let own = known(&child.proposals);
        let method = own.first()?.key_exchange();
        let of_method = |mut all: Vec<Agreement>| {
            all.retain(|agreement| agreement.key_exchange() == method);
            all
        };
        let around = child.around.as_ref().map(|around| of_method(known(around)));
        let is_whole = around.as_ref().is_none_or(|around| !around.is_empty());
        is_whole.then(|| Offered { own: of_method(own), around })
    }

    /// That key exchange.
    pub fn key_exchange(&self) -> Option<KeyExchange> {
        self.own.first().and_then(Agreement::key_exchange)
    }
}

/// What IKEv1 has numbers for.
fn known(proposals: &Proposals) -> Vec<Agreement> {
    let mut all = proposals.singles();
    all.retain(|agreement| Said::of(agreement).is_some());
    all
}

/// The SPIs that an end receives by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spis {
    pub own: u32,
    /// Of AH around it.
    pub around: Option<u32>,
}

impl Spis {
    /// That of a proposal.
    pub fn of(self, protocol: Protocol) -> u32 {
        self.around.filter(|_| protocol == Protocol::AH).unwrap_or(self.own)
    }

    pub fn has(self, spi: u32) -> bool {
        self.own == spi || self.around == Some(spi)
    }
}

/// How packets of a child are carried: what its SAs are called, and those of AH around them. AH around a tunnel has that in its
/// payload, in the one outer header that both have: some call that a tunnel, too.
struct Modes {
    own: Vec<u16>,
    around: Vec<u16>,
}

impl Modes {
    /// What is offered.
    fn offered(encapsulation: Encapsulation, mode: Mode) -> Modes {
        Modes::with(mode, |mode| vec![encapsulation.id(mode)])
    }

    /// What of a peer is taken.
    fn taken(encapsulation: Encapsulation, mode: Mode) -> Modes {
        Modes::with(mode, |mode| encapsulation.taken(mode).to_vec())
    }

    fn with(mode: Mode, of: impl Fn(Mode) -> Vec<u16>) -> Modes {
        let around = match mode {
            Mode::Transport => of(Mode::Transport),
            Mode::Tunnel => [of(Mode::Transport), of(Mode::Tunnel)].concat(),
        };
        Modes { own: of(mode), around }
    }
}

/// For the initiator's SA payload, of our SPIs: proposals of one number are for SAs that are used together, the outer one first
/// (RFC 2408 §4.2).
pub(super) fn offer(
    offered: &Offered,
    spis: Spis,
    (encapsulation, mode): (Encapsulation, Mode),
    life: Life,
) -> SecurityAssociation {
    let modes = Modes::offered(encapsulation, mode);
    let proposal = |of: &[Agreement], modes: &[u16]| {
        let all = of.iter().filter_map(Said::of);
        let all = all.flat_map(|said| modes.iter().map(move |mode| (said, *mode)));
        let transform = |(number, (said, mode)): (u8, (Said, u16))| Transform {
            number,
            id: said.id,
            attributes: said.attributes(mode, life),
        };
        let protocol = of.first().map_or(Protocol::ESP, Agreement::protocol);
        let spi = spis.of(protocol).to_be_bytes().to_vec();
        Proposal { number: 1, protocol, spi, transforms: (1..=u8::MAX).zip(all).map(transform).collect() }
    };
    let around = offered.around.as_deref().map(|around| proposal(around, &modes.around));
    SecurityAssociation {
        proposals: around.into_iter().chain([proposal(&offered.own, &modes.own)]).collect(),
    }
}

/// What was agreed on for a child SA, of the peer's SPIs.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    pub agreement: Agreement,
    /// Of AH around it.
    pub around: Option<Agreement>,
    pub life: Life,
}

/// A transform that one can choose of a proposal.
struct Choice<'a> {
    agreement: Agreement,
    life: Life,
    proposal: &'a Proposal,
    transform: &'a Transform,
}

impl Choice<'_> {
    fn proposal(&self) -> Proposal {
        Proposal { transforms: vec![self.transform.clone()], ..self.proposal.clone() }
    }
}

/// What there is to choose of these, the best first.
fn choices<'a>(
    ours: &[Agreement],
    proposals: &[&'a Proposal],
    modes: &[u16],
    order: Order,
) -> Vec<Choice<'a>> {
    let ours: Vec<_> = ours.iter().filter_map(|a| Some((Said::of(a)?, a))).collect();
    let mut theirs = vec![];
    for proposal in proposals.iter().filter(|proposal| proposal.spi.len() == 4) {
        for transform in &proposal.transforms {
            if let Some((said, with)) = Said::parse(proposal.protocol, transform)
                && modes.iter().any(|mode| u64::from(*mode) == with.encapsulation)
            {
                theirs.push((said, with.life, *proposal, transform));
            }
        }
    }
    let mut places = vec![];
    for (at, (said, ..)) in theirs.iter().enumerate() {
        places.extend(ours.iter().position(|(one, _)| one == said).map(|place| (place, at)));
    }
    if order == Order::Ours {
        places.sort_unstable();
    }
    let choice = |(place, at): (usize, usize)| {
        let (_, life, proposal, transform) = theirs[at];
        Choice { agreement: ours[place].1.clone().with_spi(&proposal.spi), life, proposal, transform }
    };
    places.into_iter().map(choice).collect()
}

/// The responder's choice, and its SA payload but for its SPIs: the transforms as they were offered. AH does not go through a NAT,
/// so that there is none in UDP.
pub(super) fn select(
    child: &Child,
    offered: &SecurityAssociation,
    encapsulation: Encapsulation,
    order: Order,
) -> Option<(Agreed, SecurityAssociation)> {
    let modes = Modes::taken(encapsulation, child.mode);
    let of = |number: u8| offered.proposals.iter().filter(move |proposal| proposal.number == number);
    let ours = known(&child.proposals);
    let Some(around) = &child.around else {
        // Those of a number belong together, and there is room for one here.
        let alone: Vec<_> = offered.proposals.iter().filter(|p| of(p.number).count() == 1).collect();
        let chosen = choices(&ours, &alone, &modes.own, order).into_iter().next()?;
        let sa = SecurityAssociation { proposals: vec![chosen.proposal()] };
        return Some((Agreed { agreement: chosen.agreement, around: None, life: chosen.life }, sa));
    };
    let (ours_around, mut seen) = (known(around), vec![]);
    if encapsulation != Encapsulation::None {
        return None;
    }
    offered.proposals.iter().find_map(|proposal| {
        let both: Vec<_> = of(proposal.number).collect();
        if seen.contains(&proposal.number) || both.len() != 2 {
            return None;
        }
        seen.push(proposal.number);
        let outer = choices(&ours_around, &both, &modes.around, order);
        let (inner, outer) = choices(&ours, &both, &modes.own, order).into_iter().find_map(|inner| {
            let method = inner.agreement.key_exchange();
            let outer = outer.iter().find(|outer| outer.agreement.key_exchange() == method)?;
            Some((inner, outer))
        })?;
        let chosen = |p: &&Proposal| {
            if p.protocol == outer.proposal.protocol { outer.proposal() } else { inner.proposal() }
        };
        let sa = SecurityAssociation { proposals: both.iter().map(chosen).collect() };
        let (life, around) = (inner.life.and(outer.life), Some(outer.agreement.clone()));
        Some((Agreed { agreement: inner.agreement, around, life }, sa))
    })
}

/// What the responder has chosen of [`offer`].
pub(super) fn accept(
    offered: &Offered,
    answer: &SecurityAssociation,
    encapsulation: Encapsulation,
    mode: Mode,
) -> Result<Agreed, AcceptError> {
    let modes = Modes::taken(encapsulation, mode);
    let of = |ours: &[Agreement], proposal: &Proposal, modes: &[u16]| {
        let changed = AcceptError::Changed(proposal.number);
        let ([_], 4) = (&proposal.transforms[..], proposal.spi.len()) else { return Err(changed) };
        let chosen = choices(ours, &[proposal], modes, Order::Ours).into_iter().next().ok_or(changed)?;
        Ok((chosen.agreement, chosen.life))
    };
    match (&answer.proposals[..], &offered.around) {
        ([proposal], None) => {
            let (agreement, life) = of(&offered.own, proposal, &modes.own)?;
            Ok(Agreed { agreement, around: None, life })
        }
        ([one, other], Some(around)) if one.number == other.number => {
            let (outer, inner) = if one.protocol == Protocol::AH { (one, other) } else { (other, one) };
            let (agreement, life) = of(&offered.own, inner, &modes.own)?;
            let (around, other) = of(around, outer, &modes.around)?;
            Ok(Agreed { agreement, around: Some(around), life: life.and(other) })
        }
        (all, _) => Err(AcceptError::Count(all.len())),
    }
}

keep!(Offered { own, around });
keep!(Spis { own, around });
