//! EAP of `swanctl.conf` for the engine: who proves who it is by what, and the passwords of users.

use super::{
    configured::{Unusable, unusable},
    credentials::{Credentials, Unfit},
    rounds,
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

/// A connection whose sides prove who they are, in a round of each, from 0.
pub(super) struct Sides<'a> {
    pub connection: &'a Connection,
    pub rounds: [usize; 2],
    pub ours: &'a LocalAuth,
    pub theirs: &'a RemoteAuth,
    pub credentials: &'a Credentials,
}

impl Sides<'_> {
    fn our(&self, key: &str) -> String {
        rounds::key(self.connection, "local", self.rounds[0], key)
    }

    fn their(&self, key: &str) -> String {
        rounds::key(self.connection, "remote", self.rounds[1], key)
    }

    /// Our certificate, or key, and none by EAP.
    ///
    /// # Errors
    /// The first key that cannot be used.
    pub fn local(&self) -> Result<ike::LocalAuth, Unusable> {
        self.credentials.local(self.ours).map_err(|Unfit { key, why }| unusable(self.our(key), why))
    }

    /// Whom we trust, and none by EAP.
    ///
    /// # Errors
    /// As of [`Sides::local`].
    pub fn remote(&self) -> Result<ike::RemoteAuth, Unusable> {
        self.credentials.remote(self.theirs).map_err(|Unfit { key, why }| unusable(self.their(key), why))
    }

    /// Both of signatures, for TLS.
    fn tls(&self) -> Result<Option<Tls>, Unusable> {
        match (self.local()?, self.remote()?) {
            (ike::LocalAuth::PublicKey(credential), ike::RemoteAuth::PublicKey(trust)) => {
                let why = "TLS is by certificates; write certs";
                match (credential.certificate(), &trust.keys[..]) {
                    (Some(_), []) => Ok(Some(Tls { credential, trust })),
                    (None, _) => Err(unusable(self.our("pubkeys"), why)),
                    (Some(_), _) => Err(unusable(self.their("pubkeys"), why)),
                }
            }
            _ => Ok(None),
        }
    }

    fn our_method(&self) -> Result<Option<Option<eap::Method>>, Unusable> {
        eap_method(&self.ours.auth.method).map_err(|why| unusable(self.our("auth"), why))
    }

    fn their_method(&self) -> Result<Option<Option<eap::Method>>, Unusable> {
        eap_method(&self.theirs.auth.method).map_err(|why| unusable(self.their("auth"), why))
    }

    /// What we prove who we are with by EAP, if that is how we do.
    ///
    /// # Errors
    /// As of [`Sides::local`].
    pub fn means(&self) -> Result<Option<ike::LocalAuth>, Unusable> {
        let Some(method) = self.our_method()? else { return Ok(None) };
        let authority = self.ours.aaa_id.as_deref().map(|id| id.parse::<IdPattern>());
        let authority = authority.transpose().map_err(|e| unusable(self.our("aaa_id"), e))?;
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
        let Some(method) = self.their_method()? else { return Ok(None) };
        let method = method.ok_or_else(|| unusable(self.their("auth"), METHODS))?;
        let identity = match self.theirs.eap_id.as_deref().map(str::parse::<IdPattern>) {
            // As strongSwan: of `%any` each is asked.
            Some(id) => Identity::Asked(id.map_err(|e| unusable(self.their("eap_id"), e))?),
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
                let (mine, theirs) = (self.our_method()?.flatten(), self.their_method()?.flatten());
                if mine == theirs
                    && mine.is_some_and(eap::Method::is_mutual)
                    && let (Some(means), Some(demand)) = (self.means()?, self.demand()?)
                {
                    return Ok((means, demand));
                }
            }
            _ => {
                self.our_method()?;
                self.their_method()?;
            }
        }
        Err(unusable(if is_eap[0] { self.their("auth") } else { self.our("auth") }, SIGNS))
    }
}

/// What of EAP a method is, if it is.
fn eap_method(method: &Method) -> Result<Option<Option<eap::Method>>, &'static str> {
    match method {
        Method::Eap(name) => self::method(name.as_deref()).map(Some).ok_or(METHODS),
        _ => Ok(None),
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
    let added = match shared.purpose {
        Purpose::Eap => str::from_utf8(octets).ok().map(|text| secrets.add_text(&shared.owners, text)),
        Purpose::Ntlm => NtHash::from_octets(octets).map(|hash| secrets.add(&shared.owners, &hash)),
        Purpose::Ike | Purpose::Ppk => return Ok(()),
    };
    match added.ok_or_else(|| unusable(key("secret"), "a password is text in UTF-8"))? {
        true => Ok(()),
        false => Err(unusable(key("id"), "it is not one user")),
    }
}
