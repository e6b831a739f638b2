//! What an ISAKMP SA is made of: attributes of transforms (RFC 2409 §A), as what is configured has them.
//!
//! A peer chooses one transform of many. Of what is there for IKEv2, AES-CBC and 3DES are left: IKEv1 has no AEADs. The prf is the
//! HMAC of the hash (RFC 2409 §4). There are no DES, MD5, nor groups below 14.

use crate::{
    connection::{Connection, LocalAuth, RemoteAuth, Xauth},
    crypto::{
        keys::Role,
        signature::{Curve, Kind, PublicKey, Scheme},
        transform::{Encryption, KeyExchange, Prf},
    },
    kept::{keep, keep_enum},
    message::{
        Attribute, AttributeType, Protocol,
        isakmp::{Proposal, SecurityAssociation, Transform},
    },
    proposal::{AcceptError, Agreement, Order},
};

const ENCRYPTION: u16 = 1;
const HASH: u16 = 2;
const METHOD: u16 = 3;
const GROUP: u16 = 4;
const LIFE_TYPE: u16 = 11;
const LIFE_DURATION: u16 = 12;
const KEY_LENGTH: u16 = AttributeType::KEY_LENGTH.0;

const SECONDS: u64 = 1;
/// KEY_IKE (RFC 2407 §4.4.2.1).
const KEY_IKE: u8 = 1;

/// How ends prove who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// By a shared key.
    SharedKey,
    /// By RSA.
    Rsa,
    /// By ECDSA (RFC 4754).
    Ecdsa(Curve),
    /// One end by RSA, and the other by its user alone (draft-ietf-ipsec-isakmp-hybrid-auth-05).
    Hybrid,
}

impl Method {
    /// Its number (RFC 2409 §A, RFC 4754 §6), where the user of an end has to prove who it is behind it, too, that of both
    /// (draft-beaulieu-ike-xauth-02 §7.2, draft-ietf-ipsec-isakmp-hybrid-auth-05 §3.2); nothing if there is none.
    const fn id(self, user: Option<Role>) -> Option<u16> {
        Some(match (self, user) {
            (Method::SharedKey, None) => 1,
            (Method::Rsa, None) => 3,
            (Method::Ecdsa(Curve::P256), None) => 9,
            (Method::Ecdsa(Curve::P384), None) => 10,
            (Method::Ecdsa(Curve::P521), None) => 11,
            (Method::SharedKey, Some(Role::Initiator)) => 65001,
            (Method::SharedKey, Some(Role::Responder)) => 65002,
            (Method::Rsa, Some(Role::Initiator)) => 65005,
            (Method::Rsa, Some(Role::Responder)) => 65006,
            (Method::Hybrid, Some(Role::Initiator)) => 64221,
            (Method::Hybrid, Some(Role::Responder)) => 64222,
            (Method::Ecdsa(_), Some(_)) | (Method::Hybrid, None) => return None,
        })
    }

    /// Whether it goes with a hash: that of a curve is the curve's (RFC 4754 §6).
    const fn takes(self, hash: Prf) -> bool {
        match self {
            Method::SharedKey | Method::Rsa | Method::Hybrid => true,
            Method::Ecdsa(curve) => matches!(
                (curve, hash),
                (Curve::P256, Prf::HmacSha256)
                    | (Curve::P384, Prf::HmacSha384)
                    | (Curve::P521, Prf::HmacSha512)
            ),
        }
    }

    /// That of a key.
    fn of_key(key: &PublicKey) -> Option<Method> {
        match (key.kind(), key.bits()) {
            (Kind::Rsa, _) => Some(Method::Rsa),
            (Kind::Ecdsa, 256) => Some(Method::Ecdsa(Curve::P256)),
            (Kind::Ecdsa, 384) => Some(Method::Ecdsa(Curve::P384)),
            (Kind::Ecdsa, _) => Some(Method::Ecdsa(Curve::P521)),
            _ => None,
        }
    }

    /// That of a connection: both ends prove by the same, unless an end has nothing but its user.
    pub fn of(connection: &Connection) -> Option<Method> {
        let xauth = connection.ikev1.as_ref().and_then(|v1| v1.xauth.as_ref());
        match (&connection.local_auth, &connection.remote_auth, xauth) {
            (LocalAuth::SharedKey, RemoteAuth::SharedKey, _) => Some(Method::SharedKey),
            (LocalAuth::PublicKey(credential), RemoteAuth::PublicKey(_), _) => {
                Method::of_key(credential.public())
            }
            (LocalAuth::PublicKey(credential), RemoteAuth::Null, Some(Xauth::Theirs(_))) => {
                Method::of_key(credential.public())
                    .filter(|method| *method == Method::Rsa)
                    .map(|_| Method::Hybrid)
            }
            (LocalAuth::Null, RemoteAuth::PublicKey(_), Some(Xauth::Ours(_))) => Some(Method::Hybrid),
            _ => None,
        }
    }
}

/// Its number, and the attribute Key Length in bits, which 3DES has not.
fn encryption_id(encryption: Encryption) -> (u16, Option<u16>) {
    match encryption {
        Encryption::TripleDesCbc => (5, None),
        _ => (7, encryption.key_bits()),
    }
}

const fn hash_id(hash: Prf) -> u16 {
    match hash {
        Prf::HmacSha1 => 2,
        Prf::HmacSha256 => 4,
        Prf::HmacSha384 => 5,
        Prf::HmacSha512 => 6,
    }
}

/// The other end.
pub(super) fn other(role: Role) -> Role {
    match role {
        Role::Initiator => Role::Responder,
        Role::Responder => Role::Initiator,
    }
}

/// What an ISAKMP SA is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Suite {
    pub agreement: Agreement,
    pub encryption: Encryption,
    pub hash: Prf,
    pub group: KeyExchange,
    pub method: Method,
    /// The end whose user has to prove who it is, too.
    pub user: Option<Role>,
}

/// What of a connection IKEv1 can do, the best first, at this end of phase 1.
pub(super) fn suites(connection: &Connection, role: Role) -> Vec<Suite> {
    let user = connection.ikev1.as_ref().and_then(|v1| v1.xauth.as_ref()).map(|xauth| match xauth {
        Xauth::Ours(_) => role,
        Xauth::Theirs(_) => other(role),
    });
    let Some(method) = Method::of(connection).filter(|method| method.id(user).is_some()) else {
        return vec![];
    };
    let of = |agreement: Agreement| {
        let (suite, group) = (agreement.suite()?, agreement.key_exchange()?);
        let hash = suite.integrity()?.prf();
        let is_kem = matches!(group, KeyExchange::MlKem512 | KeyExchange::MlKem768 | KeyExchange::MlKem1024);
        let is_whole = !suite.encryption().is_aead() && suite.prf() == hash && !is_kem && method.takes(hash);
        is_whole.then_some(Suite { agreement, encryption: suite.encryption(), hash, group, method, user })
    };
    connection.proposals.singles().into_iter().filter_map(of).collect()
}

/// What a transform says.
#[derive(Default, PartialEq, Eq, Debug)]
struct Said {
    encryption: u64,
    key_bits: u64,
    hash: u64,
    method: u64,
    group: u64,
    /// Seconds.
    life_secs: Option<u64>,
}

impl Said {
    /// Nothing if it has what is not known.
    fn parse(transform: &Transform) -> Option<Said> {
        let (mut said, mut life) = (Said::default(), 0);
        for attribute in &transform.attributes {
            let value = attribute.as_number()?;
            match attribute.kind.0 {
                ENCRYPTION => said.encryption = value,
                HASH => said.hash = value,
                METHOD => said.method = value,
                GROUP => said.group = value,
                KEY_LENGTH => said.key_bits = value,
                LIFE_TYPE => life = value,
                LIFE_DURATION if life == SECONDS => said.life_secs = Some(value),
                // RFC 2409 §A: kilobytes that the SA may encrypt, of which it encrypts few.
                LIFE_DURATION => {}
                _ => return None,
            }
        }
        (transform.id == KEY_IKE).then_some(said)
    }
}

impl Suite {
    /// How an end signs HASH_I or HASH_R; not at all with a shared key, nor if its user is all that it has.
    pub fn scheme(&self, of: Role) -> Option<Scheme> {
        match self.method {
            Method::SharedKey => None,
            Method::Rsa => Some(Scheme::RsaBare),
            Method::Ecdsa(curve) => Some(Scheme::EcdsaBare(curve)),
            Method::Hybrid => Some(Scheme::RsaBare).filter(|_| self.user != Some(of)),
        }
    }

    /// Whether the keys are made with a shared key.
    pub fn is_by_key(&self) -> bool {
        self.method == Method::SharedKey
    }

    fn is(&self, said: &Said) -> bool {
        let (encryption, key_bits) = encryption_id(self.encryption);
        said.encryption == u64::from(encryption)
            && said.key_bits == u64::from(key_bits.unwrap_or(0))
            && said.hash == u64::from(hash_id(self.hash))
            && self.method.id(self.user).is_some_and(|id| said.method == u64::from(id))
            && said.group == u64::from(self.group.id())
    }

    fn attributes(&self, life_secs: u32) -> Vec<Attribute> {
        let number = |kind, value: u16| Attribute::number(kind, value.into());
        let (encryption, key_bits) = encryption_id(self.encryption);
        let key_length = key_bits.map(|bits| number(KEY_LENGTH, bits));
        let rest = [
            number(HASH, hash_id(self.hash)),
            number(GROUP, self.group.id()),
            number(METHOD, self.method.id(self.user).unwrap_or(0)),
            number(LIFE_TYPE, SECONDS as u16),
            Attribute::number(LIFE_DURATION, life_secs),
        ];
        [number(ENCRYPTION, encryption)].into_iter().chain(key_length).chain(rest).collect()
    }
}

/// For the initiator's SA payload.
pub(super) fn offer(suites: &[Suite], life_secs: u32) -> SecurityAssociation {
    let transform = |(number, suite): (u8, &Suite)| Transform {
        number,
        id: KEY_IKE,
        attributes: suite.attributes(life_secs),
    };
    let transforms = (1..=u8::MAX).zip(suites).map(transform).collect();
    SecurityAssociation {
        proposals: vec![Proposal { number: 1, protocol: Protocol::IKE, spi: vec![], transforms }],
    }
}

/// What was agreed on: the suite, and for how long the initiator has it, in seconds.
pub(super) type Agreed = (Suite, Option<u64>);

/// The responder's choice, and its SA payload: the transform as it was offered (RFC 2408 §4.2).
pub(super) fn select(
    suites: &[Suite],
    offered: &SecurityAssociation,
    order: Order,
) -> Option<(Agreed, SecurityAssociation)> {
    let of_proposal = |p: &'_ Proposal| p.protocol == Protocol::IKE;
    let theirs = offered.proposals.iter().filter(|p| of_proposal(p));
    let theirs = theirs.flat_map(|p| p.transforms.iter().map(move |t| (p, t)));
    let theirs: Vec<_> = theirs.filter_map(|(p, t)| Some((p, t, Said::parse(t)?))).collect();
    let (suite, (proposal, transform, said)) = match order {
        Order::Ours => suites.iter().find_map(|s| Some((s, theirs.iter().find(|(.., said)| s.is(said))?))),
        Order::Theirs => theirs.iter().find_map(|one| Some((suites.iter().find(|s| s.is(&one.2))?, one))),
    }?;
    let chosen = Proposal {
        number: proposal.number,
        protocol: Protocol::IKE,
        spi: vec![],
        transforms: vec![(*transform).clone()],
    };
    Some(((suite.clone(), said.life_secs), SecurityAssociation { proposals: vec![chosen] }))
}

/// What the responder has chosen of [`offer`]. For how long it has it is its own affair: it must not change that (RFC 2409 §5).
pub(super) fn accept(suites: &[Suite], answer: &SecurityAssociation) -> Result<Suite, AcceptError> {
    let [proposal] = &answer.proposals[..] else { return Err(AcceptError::Count(answer.proposals.len())) };
    let changed = AcceptError::Changed(proposal.number);
    let [transform] = &proposal.transforms[..] else { return Err(changed) };
    let said = Said::parse(transform).filter(|_| proposal.protocol == Protocol::IKE).ok_or(changed)?;
    suites.iter().find(|suite| suite.is(&said)).cloned().ok_or(changed)
}

keep!(Suite { agreement, encryption, hash, group, method, user });
keep_enum!(Method { 0 => SharedKey, 1 => Rsa, 2 => Ecdsa(curve), 3 => Hybrid });
