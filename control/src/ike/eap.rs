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

/// A connection whose sides prove who they are, in a round of each.
pub(super) struct Sides<'a> {
    pub connection: &'a Connection,
    pub ours: &'a LocalAuth,
    pub theirs: &'a RemoteAuth,
    pub credentials: &'a Credentials,
}

impl Sides<'_> {
    fn key(&self, key: &str) -> String {
        format!("connections.{}.{key}", self.connection.name)
    }

    /// Our certificate, or key, and none by EAP.
    ///
    /// # Errors
    /// The first key that cannot be used.
    pub fn local(&self) -> Result<ike::LocalAuth, Unusable> {
        self.credentials.local(self.ours).map_err(|why| unusable(self.key("local.certs"), why))
    }

    /// Whom we trust, and none by EAP.
    ///
    /// # Errors
    /// As of [`Sides::local`].
    pub fn remote(&self) -> Result<ike::RemoteAuth, Unusable> {
        self.credentials.remote(self.theirs).map_err(|why| unusable(self.key("remote.cacerts"), why))
    }

    /// Both of signatures, for TLS.
    fn tls(&self) -> Result<Option<Tls>, Unusable> {
        match (self.local()?, self.remote()?) {
            (ike::LocalAuth::PublicKey(credential), ike::RemoteAuth::PublicKey(trust)) => {
                match credential.certificate().is_some() && trust.keys.is_empty() {
                    true => Ok(Some(Tls { credential, trust })),
                    false => Err(unusable(self.key("local.pubkeys"), "TLS is by certificates; write certs")),
                }
            }
            _ => Ok(None),
        }
    }

    fn method(&self, side: &str, method: &Method) -> Result<Option<Option<eap::Method>>, Unusable> {
        match method {
            Method::Eap(name) => {
                self::method(name.as_deref()).map(Some).ok_or_else(|| unusable(self.key(side), METHODS))
            }
            _ => Ok(None),
        }
    }

    /// What we prove who we are with by EAP, if that is how we do.
    ///
    /// # Errors
    /// As of [`Sides::local`].
    pub fn means(&self) -> Result<Option<ike::LocalAuth>, Unusable> {
        let Some(method) = self.method("local.auth", &self.ours.auth.method)? else { return Ok(None) };
        let authority = self.ours.aaa_id.as_deref().map(|id| id.parse::<IdPattern>());
        let authority = authority.transpose().map_err(|e| unusable(self.key("local.aaa_id"), e))?;
        let tls = match method {
            Some(eap::Method::Tls) => self.tls()?,
            // Where there is none, it is not offered.
            None => self.tls().unwrap_or_default(),
            Some(eap::Method::MsChapV2) => None,
        };
        let identity = self.ours.eap_id.clone();
        Ok(Some(ike::LocalAuth::Eap(Arc::new(Means { method, identity, authority, tls }))))
    }

    /// What the peer has to prove by EAP, if that is how it does.
    ///
    /// # Errors
    /// As of [`Sides::local`].
    pub fn demand(&self) -> Result<Option<ike::RemoteAuth>, Unusable> {
        let Some(method) = self.method("remote.auth", &self.theirs.auth.method)? else { return Ok(None) };
        let method = method.ok_or_else(|| unusable(self.key("remote.auth"), METHODS))?;
        let identity = match self.theirs.eap_id.as_deref().map(str::parse::<IdPattern>) {
            // As strongSwan: of `%any` each is asked.
            Some(id) => Identity::Asked(id.map_err(|e| unusable(self.key("remote.eap_id"), e))?),
            None if self.theirs.id == "%any" => Identity::Proven,
            None => Identity::OfIke,
        };
        let tls = if method == eap::Method::Tls { self.tls()? } else { None };
        Ok(Some(ike::RemoteAuth::Eap(Arc::new(Demand { method, identity, tls }))))
    }

    /// How both prove who they are, each in one round.
    ///
    /// # Errors
    /// As of [`Sides::local`].
    pub fn auths(&self) -> Result<(ike::LocalAuth, ike::RemoteAuth), Unusable> {
        let methods = [&self.ours.auth.method, &self.theirs.auth.method];
        let is_eap = methods.map(|method| matches!(method, Method::Eap(_)));
        let signs = methods.map(|method| *method == Method::PublicKey);
        match (is_eap, signs) {
            ([false, false], _) => return Ok((self.local()?, self.remote()?)),
            ([true, false], [_, true]) => {
                if let Some(means) = self.means()? {
                    return Ok((means, self.remote()?));
                }
            }
            ([false, true], [true, _]) => {
                if let Some(demand) = self.demand()? {
                    return Ok((self.local()?, demand));
                }
            }
            ([true, true], _) => {
                let [mine, theirs] = [
                    self.method("local.auth", methods[0])?.flatten(),
                    self.method("remote.auth", methods[1])?.flatten(),
                ];
                if mine == theirs
                    && mine.is_some_and(eap::Method::is_mutual)
                    && let (Some(means), Some(demand)) = (self.means()?, self.demand()?)
                {
                    return Ok((means, demand));
                }
            }
            _ => {
                self.method("local.auth", methods[0])?;
                self.method("remote.auth", methods[1])?;
            }
        }
        Err(unusable(self.key(if is_eap[0] { "remote.auth" } else { "local.auth" }), SIGNS))
    }
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
