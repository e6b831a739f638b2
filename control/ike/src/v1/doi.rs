//! What child SAs are made of: transforms and attributes of ESP and AH (RFC 2407 §4.4, §4.5), as what is configured has them.

use super::{nat::Encapsulation, times::LEAST_SECS};
use crate::{
    connection::Child,
    crypto::transform::KeyExchange,
    message::{
        Attribute, Protocol, TransformType,
        isakmp::{self, Proposal, SecurityAssociation, Transform},
    },
    proposal::{AcceptError, Agreement, Order},
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

/// What of a child IKEv1 can do, the best first: with the key exchange of the best one, or without any (RFC 2409 §5.5).
pub(super) fn offered(child: &Child) -> Vec<Agreement> {
    let mut all = child.proposals.singles();
    all.retain(|agreement| Said::of(agreement).is_some());
    let method = all.first().and_then(Agreement::key_exchange);
    all.retain(|agreement| agreement.key_exchange() == method);
    all.truncate(u8::MAX.into());
    all
}

/// For the initiator's SA payload, of our SPI.
pub(super) fn offer(offered: &[Agreement], spi: u32, encapsulation: u16, life: Life) -> SecurityAssociation {
    let mut proposal = None;
    for (number, said) in (1..=u8::MAX).zip(offered.iter().filter_map(Said::of)) {
        let proposal = proposal.get_or_insert_with(|| Proposal {
            number: 1,
            protocol: said.protocol,
            spi: spi.to_be_bytes().to_vec(),
            transforms: vec![],
        });
        let attributes = said.attributes(encapsulation, life);
        proposal.transforms.push(Transform { number, id: said.id, attributes });
    }
    SecurityAssociation { proposals: proposal.into_iter().collect() }
}

/// What was agreed on for a child SA, of the peer's SPI.
#[derive(Clone, Debug)]
pub(super) struct Agreed {
    pub agreement: Agreement,
    pub life: Life,
}

fn modes(encapsulations: Encapsulation, mode: Mode) -> [u64; 2] {
    encapsulations.taken(mode).map(u64::from)
}

/// The responder's choice, and its SA payload but for its SPI: the transform as it was offered.
pub(super) fn select(
    child: &Child,
    offered: &SecurityAssociation,
    encapsulation: Encapsulation,
    order: Order,
) -> Option<(Agreed, SecurityAssociation)> {
    let ours = child.proposals.singles();
    let ours: Vec<_> = ours.into_iter().filter_map(|a| Some((Said::of(&a)?, a))).collect();
    let taken = modes(encapsulation, child.mode);
    let mut theirs = vec![];
    for proposal in &offered.proposals {
        // Those of a number belong together, and there is room for one here.
        let is_alone = offered.proposals.iter().filter(|p| p.number == proposal.number).count() == 1;
        if !is_alone || proposal.spi.len() != 4 {
            continue;
        }
        for transform in &proposal.transforms {
            if let Some((said, with)) = Said::parse(proposal.protocol, transform)
                && taken.contains(&with.encapsulation)
            {
                theirs.push((said, with.life, proposal, transform));
            }
        }
    }
    let ((_, agreement), (_, life, proposal, transform)) = match order {
        Order::Ours => ours.iter().find_map(|one| Some((one, theirs.iter().find(|t| t.0 == one.0)?))),
        Order::Theirs => theirs.iter().find_map(|t| Some((ours.iter().find(|one| one.0 == t.0)?, t))),
    }?;
    let chosen = Proposal { transforms: vec![(*transform).clone()], ..(*proposal).clone() };
    let agreed = Agreed { agreement: agreement.clone().with_spi(&proposal.spi), life: *life };
    Some((agreed, SecurityAssociation { proposals: vec![chosen] }))
}

/// What the responder has chosen of [`offer`].
pub(super) fn accept(
    offered: &[Agreement],
    answer: &SecurityAssociation,
    encapsulation: Encapsulation,
    mode: Mode,
) -> Result<Agreed, AcceptError> {
    let [proposal] = &answer.proposals[..] else { return Err(AcceptError::Count(answer.proposals.len())) };
    let changed = AcceptError::Changed(proposal.number);
    let ([transform], 4) = (&proposal.transforms[..], proposal.spi.len()) else { return Err(changed) };
    let (said, with) = Said::parse(proposal.protocol, transform).ok_or(changed)?;
    let is_taken = modes(encapsulation, mode).contains(&with.encapsulation);
    let found = offered.iter().find(|agreement| Said::of(agreement) == Some(said)).filter(|_| is_taken);
    let agreement = found.ok_or(changed)?.clone().with_spi(&proposal.spi);
    Ok(Agreed { agreement, life: with.life })
}
