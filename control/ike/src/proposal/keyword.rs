//! Proposals as strings: keywords with a `-` between, as strongSwan has them.

use super::{Proposal, Proposals, TYPES, Transform, is_additional};
use crate::{
    crypto::transform::{Encryption, Integrity, KeyExchange, Prf},
    message::{Protocol, TransformType},
};
use portcullis_sadb as sadb;
use std::iter;

/// Transform IDs of type 5 (RFC 7296 §3.3.2).
pub(super) const NO_ESN: u16 = 0;
pub(super) const ESN: u16 = 1;

/// Encryption that only ESP has. All else has the names of the IKE SA's transforms.
const ESP_ENCRYPTION: &[(&str, sadb::Encryption)] = &[
    ("null", sadb::Encryption::Null),
    ("aes128ctr", sadb::Encryption::AesCtr128),
    ("aes192ctr", sadb::Encryption::AesCtr192),
    ("aes256ctr", sadb::Encryption::AesCtr256),
    ("aes128ccm8", sadb::Encryption::AesCcm128Icv8),
    ("aes192ccm8", sadb::Encryption::AesCcm192Icv8),
    ("aes256ccm8", sadb::Encryption::AesCcm256Icv8),
    ("aes128ccm12", sadb::Encryption::AesCcm128Icv12),
    ("aes192ccm12", sadb::Encryption::AesCcm192Icv12),
    ("aes256ccm12", sadb::Encryption::AesCcm256Icv12),
    ("aes128ccm16", sadb::Encryption::AesCcm128),
    ("aes192ccm16", sadb::Encryption::AesCcm192),
    ("aes256ccm16", sadb::Encryption::AesCcm256),
    ("aes128ccm64", sadb::Encryption::AesCcm128Icv8),
    ("aes192ccm64", sadb::Encryption::AesCcm192Icv8),
    ("aes256ccm64", sadb::Encryption::AesCcm256Icv8),
    ("aes128ccm96", sadb::Encryption::AesCcm128Icv12),
    ("aes192ccm96", sadb::Encryption::AesCcm192Icv12),
    ("aes256ccm96", sadb::Encryption::AesCcm256Icv12),
    ("aes128ccm128", sadb::Encryption::AesCcm128),
    ("aes192ccm128", sadb::Encryption::AesCcm192),
    ("aes256ccm128", sadb::Encryption::AesCcm256),
    ("aes128ccm", sadb::Encryption::AesCcm128),
    ("aes192ccm", sadb::Encryption::AesCcm192),
    ("aes256ccm", sadb::Encryption::AesCcm256),
    ("aes128gmac", sadb::Encryption::AesGmac128),
    ("aes192gmac", sadb::Encryption::AesGmac192),
    ("aes256gmac", sadb::Encryption::AesGmac256),
    ("camellia128", sadb::Encryption::CamelliaCbc128),
    ("camellia192", sadb::Encryption::CamelliaCbc192),
    ("camellia256", sadb::Encryption::CamelliaCbc256),
    ("camellia", sadb::Encryption::CamelliaCbc128),
    // RFC 8750, which strongSwan has no keywords for.
    ("aes128gcm16iiv", sadb::Encryption::AesGcm128Iiv),
    ("aes192gcm16iiv", sadb::Encryption::AesGcm192Iiv),
    ("aes256gcm16iiv", sadb::Encryption::AesGcm256Iiv),
    ("aes128ccm8iiv", sadb::Encryption::AesCcm128Icv8Iiv),
    ("aes192ccm8iiv", sadb::Encryption::AesCcm192Icv8Iiv),
    ("aes256ccm8iiv", sadb::Encryption::AesCcm256Icv8Iiv),
    ("chacha20poly1305iiv", sadb::Encryption::ChaCha20Poly1305Iiv),
];

/// Integrity that only ESP and AH have.
const CHILD_INTEGRITY: &[(&str, sadb::Integrity)] =
    &[("aesxcbc", sadb::Integrity::AesXcbc), ("aescmac", sadb::Integrity::AesCmac)];

/// Integrity that only AH has (RFC 4543 §5).
const AH_INTEGRITY: &[(&str, sadb::Integrity)] = &[
    ("aes128gmac", sadb::Integrity::AesGmac128),
    ("aes192gmac", sadb::Integrity::AesGmac192),
    ("aes256gmac", sadb::Integrity::AesGmac256),
];

/// What `default` stands for: what RFC 8221 §5, §6 and RFC 8247 §2 ask for, and better. AEADs stand alone (RFC 7296 §3.3).
const IKE_DEFAULT: [&str; 2] = [
    "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-prfsha256-prfsha512-\
     x25519-ecp256-ecp384-ecp521-modp3072-modp4096-modp2048",
    "aes256-aes128-sha256-sha384-sha512-prfsha256-prfsha384-prfsha512-\
     x25519-ecp256-ecp384-ecp521-modp3072-modp4096-modp2048",
];
const ESP_DEFAULT: [&str; 2] =
    ["aes128gcm16-aes256gcm16-chacha20poly1305-esn-noesn", "aes128-aes256-sha256-sha384-sha512-esn-noesn"];
const AH_DEFAULT: [&str; 1] = ["sha256-sha384-sha512-esn-noesn"];

/// An SA payload numbers its proposals with an octet (RFC 7296 §3.3.1).
pub(super) const MOST_PROPOSALS: usize = 255;

/// Why a string is not a proposal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposalError {
    /// This is no keyword.
    #[error("unknown keyword '{token}' in proposal '{proposal}'; did you mean '{nearest}'?")]
    Unknown {
        /// The keyword as it was written.
        token: String,
        /// The most like it of those that the protocol has.
        nearest: String,
        /// The proposal that it is in.
        proposal: String,
    },
    /// A keyword that other protocols have.
    #[error("{protocol} has no '{token}', which is in proposal '{proposal}'")]
    OtherProtocol {
        /// The keyword.
        token: String,
        /// The protocol that does not have it.
        protocol: Protocol,
        /// The proposal that it is in.
        proposal: String,
    },
    /// A type of transform of which there must be one.
    #[error("proposal '{proposal}' has no {}, as in '{example}'", kind_name(*.kind))]
    Missing {
        /// The type.
        kind: TransformType,
        /// A keyword of the type.
        example: &'static str,
        /// The proposal.
        proposal: String,
    },
    /// Ciphers with and without an ICV of their own, which need two proposals (RFC 7296 §3.3).
    #[error(
        "proposal '{proposal}' has both '{aead}', which needs no integrity, and '{cipher}', which does: \
             make it two proposals"
    )]
    Mixed {
        /// A cipher with an ICV.
        aead: String,
        /// One without.
        cipher: String,
        /// The proposal.
        proposal: String,
    },
    /// No proposals, or more than an SA payload can number.
    #[error("{0} proposals, of which there must be 1 to 255")]
    Count(usize),
}

impl Proposals {
    /// Those of an IKE SA, as `aes256gcm16-prfsha384-ecp384-ke1_mlkem768` or `default`. Where there is no prf, it is of the
    /// integrity's hash, also where an AEAD has no need of the latter.
    pub fn ike<'a>(proposals: impl IntoIterator<Item = &'a str>) -> Result<Proposals, ProposalError> {
        all(Protocol::IKE, proposals, &IKE_DEFAULT)
    }

    /// Those of ESP, as `aes128gcm16-x25519-esn`, `aes256-sha256-esn-noesn` or `default`. Without `esn` or `noesn` it is
    /// the latter. With an AEAD, integrity is left out.
    pub fn esp<'a>(proposals: impl IntoIterator<Item = &'a str>) -> Result<Proposals, ProposalError> {
        all(Protocol::ESP, proposals, &ESP_DEFAULT)
    }

    /// Those of AH, as `sha256-x25519`, `aes128gmac` or `default`; the rest as in ESP.
    pub fn ah<'a>(proposals: impl IntoIterator<Item = &'a str>) -> Result<Proposals, ProposalError> {
        all(Protocol::AH, proposals, &AH_DEFAULT)
    }
}

fn all<'a>(
    protocol: Protocol,
    proposals: impl IntoIterator<Item = &'a str>,
    default: &'static [&'static str],
) -> Result<Proposals, ProposalError> {
    let mut all: Vec<Proposal> = vec![];
    for proposal in proposals {
        let texts = if proposal.trim() == "default" { default } else { &[proposal.trim()] };
        for text in texts {
            all.push(parse(protocol, text)?);
        }
    }
    if (1..=MOST_PROPOSALS).contains(&all.len()) {
        Ok(Proposals(all))
    } else {
        Err(ProposalError::Count(all.len()))
    }
}

fn parse(protocol: Protocol, text: &str) -> Result<Proposal, ProposalError> {
    let mut proposal = Proposal { protocol, transforms: vec![] };
    for token in text.split('-') {
        let transform = named(protocol, token).ok_or_else(|| unknown(protocol, token, text))?;
        if !proposal.transforms.contains(&transform) {
            proposal.transforms.push(transform);
        }
    }
    let missing = |kind, example| ProposalError::Missing { kind, example, proposal: text.to_owned() };
    let aead = proposal.of(TransformType::ENCR).find(is_aead);
    let cipher = proposal.of(TransformType::ENCR).find(|t| !is_aead(t));
    match (aead, cipher) {
        (Some(aead), Some(cipher)) => {
            let [aead, cipher] = [aead, cipher].map(|t| name(protocol, &t));
            return Err(ProposalError::Mixed { aead, cipher, proposal: text.to_owned() });
        }
        (None, None) if protocol != Protocol::AH => return Err(missing(TransformType::ENCR, "aes256gcm16")),
        (None, _) if !proposal.has(TransformType::INTEG) => {
            return Err(missing(TransformType::INTEG, "sha256"));
        }
        _ => {}
    }
    // RFC 9370 §2.2.2: additional ones are behind one in a KE payload.
    let must_exchange =
        protocol == Protocol::IKE || proposal.transforms.iter().any(|t| is_additional(t.kind));
    let may_exchange = proposal.has(TransformType::KE);
    if must_exchange && (!may_exchange || proposal.of(TransformType::KE).any(|t| t.is_none())) {
        return Err(missing(TransformType::KE, "x25519"));
    }
    if protocol == Protocol::IKE && !proposal.has(TransformType::PRF) {
        let integrity = proposal.of(TransformType::INTEG).filter_map(|t| Integrity::from_id(t.id));
        let prfs: Vec<_> = integrity.map(|i| of_prf(i.prf())).collect();
        if prfs.is_empty() {
            return Err(missing(TransformType::PRF, "prfsha256"));
        }
        proposal.transforms.extend(prfs);
    }
    if protocol != Protocol::IKE && !proposal.has(TransformType::ESN) {
        proposal.transforms.push(of_id(TransformType::ESN, NO_ESN));
    }
    // RFC 7296 §3.3: no integrity beside an AEAD.
    proposal.transforms.retain(|t| aead.is_none() || t.kind != TransformType::INTEG);
    // In the order of the types, and of a type as they are written.
    proposal.transforms.sort_by_key(|t| TYPES.iter().position(|kind| *kind == t.kind));
    Ok(proposal)
}

const fn of_id(kind: TransformType, id: u16) -> Transform {
    Transform { kind, id, key_bits: None }
}

fn of_prf(prf: Prf) -> Transform {
    of_id(TransformType::PRF, prf.id())
}

fn of_row(kind: TransformType, row: &sadb::Transform) -> Transform {
    Transform { kind, id: row.id, key_bits: row.key_bits }
}

/// The keywords of a protocol without those of additional key exchanges; of several for one transform, the first is the
/// one that is printed.
fn keywords(protocol: Protocol) -> Vec<(&'static str, Transform)> {
    let mut all = vec![];
    let mut add = |names: &[&'static str], transform| all.extend(names.iter().map(|name| (*name, transform)));
    let (is_ike, is_ah) = (protocol == Protocol::IKE, protocol == Protocol::AH);
    for e in Encryption::ALL.iter().filter(|_| !is_ah) {
        add(e.names(), Transform { kind: TransformType::ENCR, id: e.id(), key_bits: e.key_bits() });
    }
    for (name, e) in ESP_ENCRYPTION.iter().filter(|_| protocol == Protocol::ESP) {
        add(&[name], of_row(TransformType::ENCR, e.transform()));
    }
    for i in Integrity::ALL {
        add(i.names(), of_id(TransformType::INTEG, i.id()));
    }
    let of_ah = AH_INTEGRITY.iter().filter(|_| is_ah);
    for (name, i) in CHILD_INTEGRITY.iter().filter(|_| !is_ike).chain(of_ah) {
        add(&[name], of_row(TransformType::INTEG, i.transform()));
    }
    for prf in Prf::ALL.iter().filter(|_| is_ike) {
        add(prf.names(), of_prf(*prf));
    }
    for method in KeyExchange::ALL {
        add(method.names(), of_id(TransformType::KE, method.id()));
    }
    add(&["none", "modpnone"], of_id(TransformType::KE, 0));
    if !is_ike {
        add(&["esn"], of_id(TransformType::ESN, ESN));
        add(&["noesn"], of_id(TransformType::ESN, NO_ESN));
    }
    all
}

/// `ke1_x25519` is a keyword of key exchange, and which additional one it is.
fn additional(token: &str) -> Option<(&str, TransformType)> {
    let kinds = iter::zip('1'..='7', TransformType::ADDITIONAL_KEY_EXCHANGES);
    kinds.into_iter().find_map(|(digit, kind)| {
        let token = token.strip_prefix("ke")?.strip_prefix(digit)?.strip_prefix('_')?;
        Some((token, kind))
    })
}

fn named(protocol: Protocol, token: &str) -> Option<Transform> {
    let (name, additional) = additional(token).map_or((token, None), |(name, kind)| (name, Some(kind)));
    let (_, transform) = keywords(protocol).into_iter().find(|(keyword, _)| *keyword == name)?;
    match additional {
        Some(kind) => (transform.kind == TransformType::KE).then_some(Transform { kind, ..transform }),
        None => Some(transform),
    }
}

fn unknown(protocol: Protocol, token: &str, proposal: &str) -> ProposalError {
    let (token, proposal) = (token.to_owned(), proposal.to_owned());
    let others = [Protocol::IKE, Protocol::ESP, Protocol::AH];
    if others.into_iter().any(|other| named(other, &token).is_some()) {
        return ProposalError::OtherProtocol { token, protocol, proposal };
    }
    let (name, additional) = additional(&token).map_or((&*token, None), |(name, kind)| (name, Some(kind)));
    let keywords = keywords(protocol).into_iter();
    let keywords = keywords.filter(|(_, t)| additional.is_none() || t.kind == TransformType::KE);
    let nearest = keywords.map(|(keyword, _)| keyword).min_by_key(|keyword| distance(keyword, name));
    let prefix = &token[..token.len() - name.len()];
    let nearest = format!("{prefix}{}", nearest.unwrap_or_default());
    ProposalError::Unknown { token, nearest, proposal }
}

/// How many characters must be put in, taken out or changed to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<_> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.chars().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}

/// Of what is configured, there is always a keyword.
fn name(protocol: Protocol, transform: &Transform) -> String {
    let kinds = TransformType::ADDITIONAL_KEY_EXCHANGES;
    let (prefix, kind) = match kinds.iter().position(|kind| *kind == transform.kind) {
        Some(at) => (format!("ke{}_", at + 1), TransformType::KE),
        None => (String::new(), transform.kind),
    };
    let plain = Transform { kind, ..*transform };
    let keyword = keywords(protocol).into_iter().find(|(_, known)| *known == plain);
    prefix + keyword.map_or("?", |(keyword, _)| keyword)
}

pub(super) fn names(protocol: Protocol, transforms: &[Transform]) -> String {
    transforms.iter().map(|t| name(protocol, t)).collect::<Vec<_>>().join("-")
}

/// Whether it makes an ICV by itself.
fn is_aead(transform: &Transform) -> bool {
    let mut rows = sadb::Encryption::ALL.iter().map(|e| e.transform());
    let is_it = |row: &&sadb::Transform| of_row(TransformType::ENCR, row) == *transform;
    rows.find(is_it).is_some_and(|row| row.icv > 0)
}

/// A type in words.
fn kind_name(kind: TransformType) -> &'static str {
    match kind {
        TransformType::ENCR => "encryption",
        TransformType::INTEG => "integrity",
        TransformType::PRF => "pseudorandom function",
        _ => "key exchange",
    }
}

#[cfg(test)]
mod tests;
