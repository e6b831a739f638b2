//! Connections as an engine takes them: checked, and without anything that is for files or people.

use crate::{
    crypto::Secret,
    eap::{self, Demand, Means},
    identity::{Fit, IdPattern},
    message::{AuthMethod, IdType, Identification},
    pki::{chain::Trust, credential::Credential},
    pool::Pool,
    proposal::{Order, Proposals},
    retransmission::Retransmission,
    traffic_selector::{ConfiguredSelectors, Policy},
    v2::redirect::Gateway,
};
use portcullis_sadb::{Handling, Mode};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

/// All that is configured.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// In the order of the file: of several that fit equally well, the first is taken.
    pub connections: Vec<Arc<Connection>>,
    /// The shared keys.
    pub shared_keys: Vec<SharedKey>,
    /// The postquantum preshared keys.
    pub ppks: Vec<Ppk>,
    /// How many workers the datapath has.
    pub workers: u16,
    /// The passwords of users of EAP.
    pub eap_secrets: Arc<eap::Secrets>,
    /// Pools of addresses for peers.
    pub pools: Vec<Arc<Pool>>,
    /// From so many half-open IKE SAs on, initiators must send a cookie back (RFC 7296 §2.6).
    pub cookies_from: usize,
    /// From so many on, they must solve puzzles (RFC 8019); 0 is never.
    pub puzzles_from: usize,
    /// Half-open IKE SAs, at most.
    pub most_half_open: usize,
    /// The same, of an address of IPv4, or of a /64 of IPv6.
    pub most_half_open_of_one: usize,
    /// IKE SAs that are not half-open, at most: from so many on, peers begin none.
    pub most_ike_sas: usize,
    /// First messages without a cookie that are answered, of a /24 of IPv4 or a /48 of IPv6 in a second; 0 is no limit.
    pub firsts_a_second: u32,
    /// How long one may be half-open.
    pub half_open_ms: u64,
    /// Addresses of this machine that peers may reach it at, if that is known: of them peers with MOBIKE are told (RFC 4555 §3.6).
    pub here: Vec<IpAddr>,
    /// The keys of IKE SAs are told outside ([`Output::Keys`](crate::output::Output::Keys)).
    pub tells_keys: bool,
}

/// An IKE SA that is to be, and its child SAs.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Its name.
    pub name: String,
    /// Which configuration of this name it is, whatever its children are: child SAs of another get an IKE SA of their own.
    pub edition: u64,
    /// What tells it, with its children, from all others that there are or were: what is kept of IKE SAs names it by that.
    pub mark: u64,
    /// It is of IKEv1, and not of IKEv2.
    pub ikev1: Option<Ikev1>,
    /// Our addresses.
    pub local: Hosts,
    /// The peer's.
    pub remote: Hosts,
    /// Our UDP port of IKE; 500 changes to 4500 where there is a NAT.
    pub local_port: u16,
    /// The peer's.
    pub remote_port: u16,
    /// What the IKE SA is made of.
    pub proposals: Proposals,
    /// Whose order decides between them.
    pub order: Order,
    /// Who we are. [`IdPattern::Any`] is the subject of our certificate, nobody where nobody is proven, and else our address.
    pub local_id: IdPattern,
    /// Who the peer must be.
    pub remote_id: IdPattern,
    /// The PPK of this connection, by its identity (RFC 8784). Who begins has none without; who answers takes any that it has.
    pub ppk_id: Option<Vec<u8>>,
    /// There is no IKE SA without a PPK.
    pub ppk_required: bool,
    /// Whether there may be several IKE SAs of the same two identities.
    pub unique: Unique,
    /// Whether there may be an IKE SA that has no child SA from the beginning.
    pub childless: Childless,
    /// Addresses may change while it lives (RFC 4555).
    pub mobike: bool,
    /// How we prove it.
    pub local_auth: LocalAuth,
    /// How the peer must.
    pub remote_auth: RemoteAuth,
    /// How either end does so once more.
    pub further: Further,
    /// Addresses that we ask the peer for; one that is unspecified is any of its family.
    pub vips: Vec<IpAddr>,
    /// The names of the pools that peers get addresses from.
    pub pools: Vec<String>,
    /// Child SAs.
    pub children: Vec<Arc<Child>>,
    /// How often requests are sent again.
    pub retransmission: Retransmission,
    /// The peer is asked whether it is there when it was silent for so long; 0 is never (RFC 7296 §2.4).
    pub dpd_ms: u64,
    /// The IKE SA is rekeyed after so long; 0 is never.
    pub rekey_ms: u64,
    /// Both ends prove anew who they are after so long; 0 is never. Who has begun does so, and ours is said to who has
    /// (RFC 7296 §2.8.3, RFC 4478).
    pub reauth_ms: u64,
    /// So much later than either it ends, if it was not replaced; 0 is never, where only its keys are to be others.
    pub over_ms: u64,
    /// Up to so much earlier, at random, so that not both ends do so at once (RFC 7296 §2.8).
    pub rand_ms: u64,
    /// Who has begun gets a ticket, and comes back with it (RFC 5723).
    pub resumes: bool,
    /// We go to other gateways that the peer sends us to (RFC 5685).
    pub follows_redirects: bool,
    /// The gateways that peers are sent to which begin, if they can be; none are without any.
    pub redirect_to: Vec<Gateway>,
    /// How often the first messages are sent again as `retransmission` says, until it is given up; 0 is for ever.
    pub keying_tries: u32,
    /// The DSCP of its messages.
    pub dscp: u8,
    /// Whether our certificates are sent.
    pub sends_certificates: SendCertificates,
    /// Whether the peer's are asked for.
    pub asks_for_certificates: bool,
    /// ESP goes in UDP, whether there is a NAT or not.
    pub forces_udp: bool,
    /// Octets of an IP packet of IKE, at most, if the peer can put fragments together; 0 cuts none (RFC 7383).
    pub fragment_octets: usize,
    /// The peer is told that it may cut its messages. If it does anyway, they are taken.
    pub says_fragments: bool,
}

/// When our certificates are sent (RFC 7296 §3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SendCertificates {
    /// When the peer asks for some.
    #[default]
    Asked,
    /// Always.
    Always,
    /// Never: it has them.
    Never,
}

/// Rounds of authentication behind the first, in their order (RFC 4739).
#[derive(Clone, Default, Debug)]
pub struct Further {
    /// Ours.
    pub local: Vec<Round<LocalAuth>>,
    /// The peer's.
    pub remote: Vec<Round<RemoteAuth>>,
}

/// A round of authentication.
#[derive(Clone, Debug)]
pub struct Round<A> {
    /// Who the end is, or must be.
    pub id: IdPattern,
    /// How it proves it.
    pub auth: A,
}

/// What there is of IKEv1 alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ikev1 {
    /// A peer that does not say that it is there counts as dead after so long; 0 is as for all messages (RFC 3706).
    pub dpd_timeout_ms: u64,
    /// A user proves who it is, too, behind phase 1.
    pub xauth: Option<Xauth>,
    /// Who wants an address waits until it is told one, and does not ask.
    pub pushes: bool,
    /// Phase 1 is in aggressive mode, and not in main mode.
    pub is_aggressive: bool,
}

/// Users in IKEv1 (draft-beaulieu-ike-xauth-02).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Xauth {
    /// We are one, of this name; nothing is who we are in phase 1.
    Ours(Option<String>),
    /// The peer has one, who must be one of these.
    Theirs(IdPattern),
}

/// What becomes of an IKE SA when there is another one of the same two identities. Unless it is `Never`, who begins the only one
/// says so (RFC 7296 §2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unique {
    /// It stays, unless the peer says that the other is the only one.
    #[default]
    No,
    /// It stays, whatever the peer says.
    Never,
    /// It stays, and the other is refused, unless the peer says that this is the only one.
    Keep,
    /// It is deleted.
    Replace,
}

/// Whether the first child SA is made in IKE_AUTH (RFC 6023).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Childless {
    /// It is, at either end.
    Never,
    /// It is when we begin, and the peer may do as it wants.
    #[default]
    Allow,
    /// It is made behind, if the peer can do so.
    Prefer,
    /// It is made behind, at either end.
    Force,
}

/// How we prove who we are.
#[derive(Clone, Default, Debug)]
pub enum LocalAuth {
    /// By a shared key.
    #[default]
    SharedKey,
    /// By a signature.
    PublicKey(Credential),
    /// By EAP, where we begin.
    Eap(Arc<Means>),
    /// Not at all (RFC 7619); in IKEv1 only where our user does.
    Null,
    /// Its key, or whom the peer would be believed by, is not there any more: of the connection nothing begins.
    Missing,
}

impl fmt::Display for LocalAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalAuth::SharedKey => f.write_str("a shared key"),
            LocalAuth::PublicKey(credential) => match credential.certificate() {
                Some(certificate) => write!(f, "certificate '{}'", certificate.subject()),
                None => f.write_str("a public key"),
            },
            LocalAuth::Eap(_) => f.write_str("EAP"),
            LocalAuth::Null => f.write_str("nothing"),
            LocalAuth::Missing => f.write_str("what is not loaded any more"),
        }
    }
}

impl LocalAuth {
    /// Who we are by what we prove it by, at an address.
    pub fn identity(&self, at: IpAddr) -> Identification {
        match self {
            LocalAuth::PublicKey(credential) => match credential.certificate() {
                Some(of) => Identification::new(IdType::ID_DER_ASN1_DN, of.subject().der()),
                None => Identification::of_address(at),
            },
            // RFC 7619 §2.2
            LocalAuth::Null => Identification::new(IdType::ID_NULL, &[]),
            LocalAuth::SharedKey | LocalAuth::Eap(_) | LocalAuth::Missing => Identification::of_address(at),
        }
    }
}

/// How a peer must prove who it is.
#[derive(Clone, Default, Debug)]
pub enum RemoteAuth {
    /// By a shared key.
    #[default]
    SharedKey,
    /// By a signature, and a certificate that is trusted.
    PublicKey(Arc<Trust>),
    /// By EAP, if it begins.
    Eap(Arc<Demand>),
    /// Not at all (RFC 7619): whoever it says to be; in IKEv1 only where its user proves who it is.
    Null,
}

impl fmt::Display for RemoteAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RemoteAuth::SharedKey => "a shared key",
            RemoteAuth::PublicKey(_) => "a certificate",
            RemoteAuth::Eap(_) => "EAP",
            RemoteAuth::Null => "nothing",
        })
    }
}

impl RemoteAuth {
    /// Whether an AUTH payload of a method may prove it.
    pub fn takes(&self, method: AuthMethod) -> bool {
        match self {
            RemoteAuth::SharedKey => method == AuthMethod::SHARED_KEY,
            RemoteAuth::Null => method == AuthMethod::NULL,
            RemoteAuth::PublicKey(_) => method.is_signature(),
            RemoteAuth::Eap(_) => false,
        }
    }

    /// Whether the peer is known by it. Who proves nothing may say to be somebody else, and is no reason to delete or to
    /// keep anything of theirs (RFC 7619 §2.3).
    pub fn tells_who(&self) -> bool {
        !matches!(self, RemoteAuth::Null)
    }

    /// Whether it is proven by EAP.
    pub fn is_eap(&self) -> bool {
        matches!(self, RemoteAuth::Eap(_))
    }
}

impl Connection {
    /// The same without keys and authorities that are not there any more: IKE SAs of it stay, and there are no others.
    pub fn without_credentials(&self) -> Connection {
        let remote_auth = match &self.remote_auth {
            RemoteAuth::SharedKey => RemoteAuth::SharedKey,
            RemoteAuth::Null => RemoteAuth::Null,
            RemoteAuth::PublicKey(_) | RemoteAuth::Eap(_) => RemoteAuth::PublicKey(Arc::default()),
        };
        let further = Further::default();
        Connection { local_auth: LocalAuth::Missing, remote_auth, further, ..self.clone() }
    }

    /// Whether it has all keys and authorities that it needs.
    pub fn is_usable(&self) -> bool {
        !matches!(self.local_auth, LocalAuth::Missing)
    }

    /// Which child it is about what a peer asks for that is none's: the only one, or this connection.
    pub fn name_of_children(&self) -> &str {
        match &self.children[..] {
            [child] => &child.name,
            _ => &self.name,
        }
    }

    /// Who we are, at an address.
    pub fn identity(&self, at: IpAddr) -> Identification {
        let of_auth = || match (&self.local_auth, &self.ikev1) {
            // There is nobody who is nobody in IKEv1.
            (LocalAuth::Null, Some(_)) => Identification::of_address(at),
            (auth, _) => auth.identity(at),
        };
        self.local_id.identity().unwrap_or_else(of_auth)
    }

    /// Whether phase 1 is in aggressive mode, of IKEv1.
    pub fn is_aggressive(&self) -> bool {
        self.ikev1.as_ref().is_some_and(|v1| v1.is_aggressive)
    }

    /// Whether either end signs.
    pub fn has_signatures(&self) -> bool {
        let further = self.further.local.iter().map(|round| &round.auth);
        let mut local = [&self.local_auth].into_iter().chain(further);
        local.any(|auth| matches!(auth, LocalAuth::PublicKey(_))) || self.trusts().next().is_some()
    }

    /// Who must have issued certificates of the peer, where it signs.
    pub fn trusts(&self) -> impl Iterator<Item = &Trust> {
        let further = self.further.remote.iter().map(|round| &round.auth);
        [&self.remote_auth].into_iter().chain(further).filter_map(|auth| match auth {
            RemoteAuth::PublicKey(trust) => Some(&**trust),
            _ => None,
        })
    }
}

/// A child SA that is to be.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its name, one of its connection's.
    pub name: String,
    /// That of its connection.
    pub mark: u64,
    /// What it is made of.
    pub proposals: Proposals,
    /// What the SA of AH is made of that is around each of ESP (RFC 2401 §4.3): in IKEv1 alone.
    pub around: Option<Proposals>,
    /// What it is for, at our end.
    pub local: ConfiguredSelectors,
    /// And at the peer's.
    pub remote: ConfiguredSelectors,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// What else the datapath does for it.
    pub handling: Handling,
    /// There is one for each worker, too (RFC 9611).
    pub per_worker: bool,
    /// Packets of its replay window.
    pub replay_window: u32,
    /// Where its policies stand among others; 0 is where their selectors say.
    pub priority: u32,
    /// It is rekeyed after so long; 0 is never.
    pub rekey_ms: u64,
    /// Up to so much earlier, at random.
    pub rand_ms: u64,
}

/// When something is to be replaced, by when it was made: after so long, and up to so much earlier by a random number.
pub fn rekey_at_ms(now_ms: u64, rekey_ms: u64, rand_ms: u64, random: u32) -> u64 {
    match rekey_ms {
        0 => u64::MAX,
        _ => {
            let earlier = ((u128::from(rand_ms.min(rekey_ms)) * u128::from(random)) >> 32) as u64;
            now_ms.saturating_add(rekey_ms - earlier)
        }
    }
}

impl Child {
    /// Whether what it is for takes in the ends themselves.
    pub fn is_dynamic(&self) -> bool {
        self.local.is_dynamic() || self.remote.is_dynamic()
    }

    /// What it is for, between two ends that have these addresses.
    pub fn policy(&self, local: &[IpAddr], peer: &[IpAddr]) -> Policy {
        Policy { local: self.local.with(local), remote: self.remote.with(peer) }
    }
}

/// Addresses of an end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hosts {
    /// Whatever the packets have.
    Any,
    /// These. Who begins has one that is written by itself, and the peer as well.
    Ranges(Vec<RangeInclusive<IpAddr>>),
}

impl Hosts {
    /// One address.
    pub fn one(address: IpAddr) -> Hosts {
        Hosts::Ranges(vec![address..=address])
    }

    /// How well an address fits, if it does.
    pub fn fits(&self, address: IpAddr) -> Option<Fit> {
        match self {
            Hosts::Any => Some(Fit::Any),
            Hosts::Ranges(ranges) => {
                let of = ranges
                    .iter()
                    .filter(|range| range.start().is_ipv4() == address.is_ipv4() && range.contains(&address));
                of.map(|r| if r.start() == r.end() { Fit::Exact } else { Fit::Wildcard }).max()
            }
        }
    }

    /// Those that are one address each.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ranges = if let Hosts::Ranges(ranges) = self { &ranges[..] } else { &[] };
        ranges.iter().filter(|range| range.start() == range.end()).map(|range| *range.start())
    }
}

/// A key that two ends share.
#[derive(Clone, Debug)]
pub struct SharedKey {
    /// Whose it is; nobody's is everybody's.
    pub ids: Vec<IdPattern>,
    /// The octets.
    pub key: Secret,
}

/// A postquantum preshared key, which is mixed into the keys of an IKE SA (RFC 8784).
#[derive(Clone, Debug)]
pub struct Ppk {
    /// Its identity, which is said where all can read it who can break the key exchange.
    pub id: Vec<u8>,
    /// The octets.
    pub key: Secret,
}

impl SharedKey {
    /// How well it fits the peer, and us, each by its best.
    fn fits(&self, mine: &Identification, theirs: &Identification) -> Option<(Option<Fit>, Option<Fit>)> {
        let fit = |id| match self.ids.is_empty() {
            true => Some(Fit::Any),
            false => self.ids.iter().filter_map(|pattern| pattern.fits(id)).max(),
        };
        // One that names the peer alone is ours, too, and one that names us alone is everybody's. What names us and another is
        // that one's alone: whoever has it would be taken for the peer.
        let is_ours = || self.ids.iter().all(|pattern| pattern.fits(mine).is_some());
        let theirs = fit(theirs);
        (theirs.is_some() || is_ours()).then(|| (theirs, fit(mine)))
    }
}

impl Configuration {
    /// The connections of IKEv2 that a peer's packets may be of, the best first.
    pub fn between(&self, local: SocketAddr, peer: SocketAddr) -> Vec<Arc<Connection>> {
        self.between_of(local, peer, |connection| connection.ikev1.is_none())
    }

    /// Those of IKEv1, in aggressive or in main mode.
    pub fn between_v1(
        &self,
        local: SocketAddr,
        peer: SocketAddr,
        is_aggressive: bool,
    ) -> Vec<Arc<Connection>> {
        let is_one = |c: &Connection| c.ikev1.as_ref().is_some_and(|v1| v1.is_aggressive == is_aggressive);
        self.between_of(local, peer, is_one)
    }

    fn between_of(
        &self,
        local: SocketAddr,
        peer: SocketAddr,
        is_of: impl Fn(&Connection) -> bool,
    ) -> Vec<Arc<Connection>> {
        let fits = |connection: &Connection| {
            Some((connection.remote.fits(peer.ip())?, connection.local.fits(local.ip())?))
        };
        let all = self.connections.iter().filter(|c| c.is_usable() && is_of(c));
        let mut found: Vec<_> = all.filter_map(|c| Some((fits(c)?, c.clone()))).collect();
        found.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
        found.into_iter().map(|(_, connection)| connection).collect()
    }

    /// The connection of a name.
    pub fn connection(&self, name: &str) -> Option<&Arc<Connection>> {
        self.connections.iter().find(|connection| connection.name == name)
    }

    /// The pools of a connection.
    pub fn pools_of(&self, connection: &Connection) -> Vec<Arc<Pool>> {
        let named = |name: &String| self.pools.iter().find(|pool| pool.name == *name).cloned();
        connection.pools.iter().filter_map(named).collect()
    }

    /// The PPK of an identity.
    pub fn ppk(&self, id: &[u8]) -> Option<&Secret> {
        self.ppks.iter().find(|ppk| ppk.id == id).map(|ppk| &ppk.key)
    }

    /// The shared key of two ends, the one that fits the peer best.
    pub fn shared_key(&self, mine: &Identification, theirs: &Identification) -> Option<&Secret> {
        let found = self.shared_keys.iter().filter_map(|key| Some((key.fits(mine, theirs)?, key)));
        // Of equals the first.
        let best = found.rev().max_by_key(|(fit, _)| *fit)?;
        Some(&best.1.key)
    }
}
