//! EAP of `swanctl.conf` for the engine: who proves who it is by what, and the passwords of users.

use super::{
    configured::{Unusable, unusable},
    credentials::Credentials,
};
use crate::swanctl::{
    authentication::{LocalAuth, Method, RemoteAuth},
    connection::Connection,
    secret::{Purpose, Shared},
};
use portcullis_ike::{
    connection as ike,
    eap::{self, Demand, Identity, Means, NtHash, Tls},
    identity::IdPattern,
};
use std::sync::Arc;

const METHODS: &str = "of EAP there are eap-mschapv2 and eap-tls; write one of them";
const SIGNS: &str =
    "who answers with EAP signs (RFC 7296 §2.16): pubkey; or eap-tls for both sides (RFC 5998)";

/// How both sides prove who they are, where one of them does so by EAP; nothing where none does.
///
/// # Errors
/// The first key that cannot be used.
pub(super) fn auths(
    c: &Connection,
    (ours, theirs): (&LocalAuth, &RemoteAuth),
    credentials: &Credentials,
) -> Result<Option<(ike::LocalAuth, ike::RemoteAuth)>, Unusable> {
    let key = |key: &str| format!("connections.{}.{key}", c.name);
    let of = |side: &str, method: &Method| match method {
        Method::Eap(name) => {
            self::method(name.as_deref()).map(Some).ok_or_else(|| unusable(key(side), METHODS))
        }
        _ => Ok(None),
    };
    let by = (of("local.auth", &ours.auth.method)?, of("remote.auth", &theirs.auth.method)?);
    // Our certificate, and whom we trust: of signatures in IKE, and in TLS.
    let local = || credentials.local(ours).map_err(|why| unusable(key("local.certs"), why));
    let remote = || credentials.remote(theirs).map_err(|why| unusable(key("remote.cacerts"), why));
    let tls = || match (local()?, remote()?) {
        (ike::LocalAuth::PublicKey(credential), ike::RemoteAuth::PublicKey(trust)) => {
            Ok(Some(Tls { credential, trust }))
        }
        _ => Ok(None),
    };
    let means = |method| -> Result<_, Unusable> {
        let authority = ours.aaa_id.as_deref().map(|id| id.parse::<IdPattern>());
        let authority = authority.transpose().map_err(|e| unusable(key("local.aaa_id"), e))?;
        let tls = match method {
            Some(eap::Method::Tls) => tls()?,
            // Where there is none, it is not offered.
            None => tls().unwrap_or_default(),
            Some(eap::Method::MsChapV2) => None,
        };
        let identity = ours.eap_id.clone();
        Ok(ike::LocalAuth::Eap(Arc::new(Means { method, identity, authority, tls })))
    };
    let demand = |method: Option<eap::Method>| -> Result<_, Unusable> {
        let method = method.ok_or_else(|| unusable(key("remote.auth"), METHODS))?;
        let identity = match theirs.eap_id.as_deref().map(str::parse::<IdPattern>) {
            // As strongSwan: of `%any` each is asked.
            Some(id) => Identity::Asked(id.map_err(|e| unusable(key("remote.eap_id"), e))?),
            None if theirs.id == "%any" => Identity::Proven,
            None => Identity::OfIke,
        };
        let tls = if method == eap::Method::Tls { tls()? } else { None };
        Ok(ike::RemoteAuth::Eap(Arc::new(Demand { method, identity, tls })))
    };
    let signs = |method: &Method| *method == Method::PublicKey;
    Ok(Some(match by {
        (None, None) => return Ok(None),
        (Some(method), None) if signs(&theirs.auth.method) => (means(method)?, remote()?),
        (None, Some(method)) if signs(&ours.auth.method) => (local()?, demand(method)?),
        (Some(Some(ours)), Some(Some(theirs))) if ours == theirs && ours.is_mutual() => {
            (means(Some(ours))?, demand(Some(theirs))?)
        }
        (Some(_), _) => return Err(unusable(key("remote.auth"), SIGNS)),
        (None, _) => return Err(unusable(key("local.auth"), SIGNS)),
    }))
}

/// A method by its name; `Some(None)` is any, and `None` is one that there is not.
fn method(name: Option<&str>) -> Option<Option<eap::Method>> {
    match name {
        None => Some(None),
        Some("mschapv2") => Some(Some(eap::Method::MsChapV2)),
        Some("tls") => Some(Some(eap::Method::Tls)),
        Some(_) => None,
    }
}

/// Adds a secret to the passwords, if it is one.
///
/// # Errors
/// What of it cannot be used.
pub(super) fn add(secrets: &mut eap::Secrets, shared: &Shared) -> Result<(), Unusable> {
    let key = |key: &str| format!("secrets.{}.{key}", shared.name);
    let octets = shared.secret.bytes();
    let hash = match shared.purpose {
        Purpose::Eap => str::from_utf8(octets).ok().map(NtHash::of),
        Purpose::Ntlm => NtHash::from_octets(octets),
        Purpose::Ike | Purpose::Ppk => return Ok(()),
    };
    let hash = hash.ok_or_else(|| unusable(key("secret"), "a password is text in UTF-8"))?;
    match secrets.add(&shared.owners, &hash) {
        true => Ok(()),
        false => Err(unusable(key("id"), "it is not one user")),
    }
}
