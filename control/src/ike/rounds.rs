//! How both sides prove who they are, of `swanctl.conf` for the engine: one round each, or several (RFC 4739).

use super::{
    configured::{Unusable, unusable},
    credentials::{self, Credentials},
    eap::Sides,
};
use crate::swanctl::{
    authentication::{Auth, LocalAuth, Method, RemoteAuth},
    connection::{Connection, Version},
};
use portcullis_ike::{
    connection::{self as ike, Further, Round},
    identity::IdPattern,
    message::IdType,
    pki::certificate::Certificate,
};

/// Rounds of a side, at most.
const MOST: usize = 3;

const ONE_BESIDE_EAP: &str =
    "where one side proves by EAP who it is, the other does so in one round, and not by EAP";

const GROUPS: &str = "nobody says who is of a group: there are no attribute certificates, and no RADIUS; write whom it is for in id";

const XAUTH: &str = "xauth is of IKEv1, on one side, by name and password: write version = 1, and xauth in a second section of that side \
                     behind psk or pubkey, or alone where the other side has pubkey";

const NULL_ID: &str = "whoever proves nothing may say to be anybody; leave it out, and write in remote_addrs and remote_ts who that may be";

const NULL_ROUND: &str = "null is for who proves nothing at all: there is no other round on that side";

/// How both sides prove who they are.
pub(super) struct Rounds {
    /// Ours, in the first round.
    pub local: Round<ike::LocalAuth>,
    /// The peer's.
    pub remote: Round<ike::RemoteAuth>,
    /// All others.
    pub further: Further,
    /// The user of one of them, in IKEv1.
    pub xauth: Option<ike::Xauth>,
}

/// All rounds of a connection.
///
/// # Errors
/// The first key that cannot be used.
pub(super) fn rounds(c: &Connection, credentials: &Credentials) -> Result<Rounds, Unusable> {
    // Without a section, it is by a public key.
    let mut ours = if c.local.is_empty() { vec![LocalAuth::default()] } else { c.local.clone() };
    let anybody = || RemoteAuth { id: "%any".to_owned(), ..RemoteAuth::default() };
    let mut theirs = if c.remote.is_empty() { vec![anybody()] } else { c.remote.clone() };
    let hybrid = is_hybrid(c, &ours, &theirs);
    let xauth = match hybrid {
        [false, false] => xauth(c, &mut ours, &mut theirs)?,
        [true, _] => Some(ike::Xauth::Ours(ours[0].xauth_id.clone().or_else(|| ours[0].id.clone()))),
        [_, true] => Some(ike::Xauth::Theirs(id(c, "remote", 0, Some(&theirs[0].id))?)),
    };
    check(c, hybrid, &ours, &theirs)?;
    let sides = |mine: usize, other: usize| Sides {
        connection: c,
        rounds: [mine, other],
        ours: &ours[mine],
        theirs: &theirs[other],
        credentials,
    };
    let (mut local, mut remote) = (vec![], vec![]);
    match (ours.len(), theirs.len()) {
        (1, 1) => {
            let sides = sides(0, 0);
            let (mine, other) = match hybrid {
                [true, _] => (ike::LocalAuth::Null, sides.remote()?),
                [_, true] => (sides.local()?, ike::RemoteAuth::Null),
                _ => sides.auths()?,
            };
            (local, remote) = (vec![mine], vec![other]);
        }
        (mine, others) => {
            for n in 0..mine {
                let sides = sides(n, 0);
                local.push(sides.means()?.map_or_else(|| sides.local(), Ok)?);
            }
            for n in 0..others {
                let sides = sides(0, n);
                remote.push(sides.demand()?.map_or_else(|| sides.remote(), Ok)?);
            }
        }
    }
    let mut local_rounds = vec![];
    for (n, (of, auth)) in ours.iter().zip(local).enumerate() {
        let id = match (id(c, "local", n, of.id.as_deref())?, &auth) {
            // As strongSwan: who the certificate is of.
            (IdPattern::Any, ike::LocalAuth::PublicKey(credential)) => {
                let subject =
                    |of: &Certificate| IdPattern::Like(IdType::ID_DER_ASN1_DN, of.subject().der().to_vec());
                credential.certificate().map_or(IdPattern::Any, subject)
            }
            (id, _) => id,
        };
        local_rounds.push(Round { id, auth });
    }
    let mut remote_rounds = vec![];
    for (n, (of, auth)) in theirs.iter().zip(remote).enumerate() {
        // Who has nothing but a user may say to be anybody besides.
        let text = if hybrid[1] { None } else { Some(&*of.id) };
        remote_rounds.push(Round { id: id(c, "remote", n, text)?, auth });
    }
    let first = (local_rounds.remove(0), remote_rounds.remove(0));
    let further = Further { local: local_rounds, remote: remote_rounds };
    Ok(Rounds { local: first.0, remote: first.1, further, xauth })
}

/// As strongSwan names it.
fn is_xauth(c: &Connection, auth: &Auth) -> bool {
    match &auth.method {
        Method::Xauth(backend) => {
            c.version == Version::One && matches!(backend.as_deref(), None | Some("generic"))
        }
        _ => false,
    }
}

/// Whether a side has nothing but a user: ours, and the peer's. The other one signs (draft-ietf-ipsec-isakmp-hybrid-auth-05).
fn is_hybrid(c: &Connection, ours: &[LocalAuth], theirs: &[RemoteAuth]) -> [bool; 2] {
    let signs = |auth: &Auth| matches!(auth.method, Method::PublicKey);
    match (ours, theirs) {
        ([mine], [other]) => {
            [is_xauth(c, &mine.auth) && signs(&other.auth), signs(&mine.auth) && is_xauth(c, &other.auth)]
        }
        _ => [false, false],
    }
}

/// Who the user of a side is, which proves it in IKEv1 behind all that both sides do.
fn xauth(
    c: &Connection,
    ours: &mut Vec<LocalAuth>,
    theirs: &mut Vec<RemoteAuth>,
) -> Result<Option<ike::Xauth>, Unusable> {
    let is_it = |auth: &Auth| is_xauth(c, auth);
    if ours.len() == 2 && theirs.len() == 1 {
        let mine = ours.pop_if(|last| is_it(&last.auth));
        return Ok(mine.map(|of| ike::Xauth::Ours(of.xauth_id.or(of.id))));
    }
    match (ours.len(), theirs.len()) {
        (1, 2) => theirs.pop_if(|last| is_it(&last.auth)),
        _ => None,
    }
    .map(|of| Ok(ike::Xauth::Theirs(id(c, "remote", 1, Some(&of.id))?)))
    .transpose()
}

/// The key of a section of a side, which is that of a round from 0.
pub(super) fn key(c: &Connection, side: &str, n: usize, key: &str) -> String {
    match n {
        0 => format!("connections.{}.{side}.{key}", c.name),
        n => format!("connections.{}.{side}-{}.{key}", c.name, n + 1),
    }
}

fn id(c: &Connection, side: &str, n: usize, text: Option<&str>) -> Result<IdPattern, Unusable> {
    match text {
        Some(text) => text.parse().map_err(|e| unusable(key(c, side, n, "id"), e)),
        None => Ok(IdPattern::Any),
    }
}

fn check(
    c: &Connection,
    hybrid: [bool; 2],
    ours: &[LocalAuth],
    theirs: &[RemoteAuth],
) -> Result<(), Unusable> {
    let sides: [(_, Vec<&Auth>); 2] = [
        ("local", ours.iter().map(|of| &of.auth).collect()),
        ("remote", theirs.iter().map(|of| &of.auth).collect()),
    ];
    for ((side, auths), is_user) in sides.iter().zip(hybrid) {
        for (n, auth) in auths.iter().enumerate().filter(|_| !is_user) {
            if matches!(auth.method, Method::Xauth(_)) {
                return Err(unusable(key(c, side, n, "auth"), XAUTH));
            }
            if auth.method == Method::Null && auths.len() > 1 {
                return Err(unusable(key(c, side, n, "auth"), NULL_ROUND));
            }
            credentials::demands(auth).map_err(|why| unusable(key(c, side, n, "auth"), why))?;
        }
        if auths.len() > MOST {
            let why = format!("there are {MOST} rounds of authentication at most");
            return Err(unusable(key(c, side, MOST, "round"), why));
        }
    }
    if theirs.iter().any(|of| of.auth.method == Method::Null && of.id != "%any") {
        return Err(unusable(key(c, "remote", 0, "id"), NULL_ID));
    }
    if let Some(n) = theirs.iter().position(|of| !of.groups.is_empty()) {
        return Err(unusable(key(c, "remote", n, "groups"), GROUPS));
    }
    if ours.len() == 1 && theirs.len() == 1 {
        return Ok(());
    }
    let is_eap = sides.each_ref().map(|(_, auths)| auths.iter().any(|a| matches!(a.method, Method::Eap(_))));
    if is_eap == [true, true] || is_eap[0] && theirs.len() > 1 || is_eap[1] && ours.len() > 1 {
        return Err(unusable(key(c, if is_eap[0] { "remote" } else { "local" }, 0, "auth"), ONE_BESIDE_EAP));
    }
    // Which of the AUTH payloads would be by it was tried with nobody.
    let why = "there is no PPK with several rounds of authentication";
    match c.ppk_id.is_some() || c.ppk_required {
        true => Err(unusable(format!("connections.{}.ppk_id", c.name), why)),
        false => Ok(()),
    }
}
