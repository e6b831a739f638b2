//! EAP (RFC 3748): how users prove who they are, inside of IKE_AUTH (RFC 7296 §2.16).
//!
//! ```text
//!  authenticator (responder)                  peer (initiator)
//!  Request: Identity                   ──▶                            if it is not who it is in IKE
//!                                      ◀──    Response: Identity
//!  Request: of a method                ──▶                            MSCHAPv2, or TLS
//!                                      ◀──    Response: of it, or Nak
//!  ...
//!  Success, or Failure                 ──▶    both have the MSK of the method, by which AUTH is made
//! ```
//!
//! IKE sends again what is lost, so nothing here does. An end takes one packet and gives one, by [`Authenticator`] and
//! [`Peer`], which any thread may do.
//!
//! # Dangers
//! - Octets come from whoever has not proven anything yet. Packets, what fragments make, and rounds have an end.
//! - Whether there is a user of a name is not told: one who is not there fails as a wrong password does, and as late.

mod authenticator;
pub mod mschap;
mod mschapv2;
mod peer;
pub mod secrets;
mod tls;

pub use authenticator::{Authenticator, Next};
pub use mschap::NtHash;
pub use peer::{Peer, Reply};
pub use secrets::Secrets;

use crate::{
    crypto::Secret,
    identity::IdPattern,
    message::Identification,
    pki::{chain::Trust, credential::Credential},
};
use std::{fmt, sync::Arc};

/// Octets of a packet, at most: more than any of these methods needs, whose fragments are shorter.
const MOST_OCTETS: usize = 4096;

/// Packets of an end, at most: those of a long chain of certificates in TLS, cut as others do.
const MOST_ROUNDS: u8 = 100;

/// Certificates of the other end that are read in TLS, at most.
const MOST_CERTIFICATES: usize = 16;

/// Octets of an identity, at most.
const MOST_IDENTITY: usize = 1024;

/// Methods that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// A name and a password (draft-kamath-pppext-eap-mschapv2).
    MsChapV2,
    /// Certificates of both ends (RFC 5216, RFC 9190).
    Tls,
}

impl Method {
    const fn kind(self) -> u8 {
        match self {
            Method::MsChapV2 => MSCHAPV2,
            Method::Tls => TLS,
        }
    }

    /// Whether both ends prove who they are by it, and not the peer alone to who has its password. It can do without
    /// signatures in IKE then (RFC 5998 §4).
    pub const fn is_mutual(self) -> bool {
        matches!(self, Method::Tls)
    }
}

/// Who a user is in EAP, for who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Who it is in IKE.
    OfIke,
    /// Whoever it proves to be by a password; by TLS, who it is in IKE.
    Proven,
    /// It is asked, and must be one of these.
    Asked(IdPattern),
}

/// What an end proves itself with in TLS, and whom it believes.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Its certificate and key.
    pub credential: Credential,
    /// Of whom the other's must be.
    pub trust: Arc<Trust>,
}

/// How users must prove who they are.
#[derive(Clone, Debug)]
pub struct Demand {
    /// By what.
    pub method: Method,
    /// Who they are.
    pub identity: Identity,
    /// For TLS.
    pub tls: Option<Tls>,
}

/// How we prove who we are.
#[derive(Clone, Debug)]
pub struct Means {
    /// By what; nothing is by a password or certificates, as the other end wants.
    pub method: Option<Method>,
    /// Who we are; nothing is who we are in IKE.
    pub identity: Option<String>,
    /// Who the other end must be in TLS; nothing is who it is in IKE.
    pub authority: Option<IdPattern>,
    /// For TLS.
    pub tls: Option<Tls>,
}

/// Why nobody has proven to be somebody.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EapError {
    /// Octets that are no packet, or not what must be in it.
    #[error("an EAP packet with a bad {0}")]
    Malformed(&'static str),
    /// There is no end to it.
    #[error("EAP comes to no end")]
    TooLong,
    /// The other end wants other methods.
    #[error("the other end wants another EAP method{}", wanted(.0))]
    Method(Vec<u8>),
    /// It says to be somebody whom the connection is not for, or another than before.
    #[error("it says to be {0} in EAP, who should not be here")]
    Identity(String),
    /// There is no password of ours.
    #[error("there is no secret for '{0}'; write it into secrets as eap-NAME {{ id = ..., secret = ... }}")]
    NoSecret(String),
    /// The user does not know the password, or is none.
    #[error("it knows no password of '{0}', or there is no such user")]
    Password(String),
    /// The authenticator has refused.
    #[error("the other end has refused us{}", said(.0))]
    Refused(String),
    /// The authenticator does not know the password.
    #[error("the other end does not know our password")]
    Impostor,
    /// TLS has failed.
    #[error("TLS: {0}")]
    Tls(String),
}

fn wanted(methods: &[u8]) -> String {
    let all: Vec<_> = methods.iter().take(8).map(u8::to_string).collect();
    if all.is_empty() { String::new() } else { format!(", of number {}", all.join(" or ")) }
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// What comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    /// Who the user is.
    pub who: String,
    /// The key that both have.
    pub msk: Secret,
}

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

const IDENTITY: u8 = 1;
const NOTIFICATION: u8 = 2;
const NAK: u8 = 3;
const TLS: u8 = 13;
const MSCHAPV2: u8 = 26;

/// A packet (RFC 3748 §4).
#[derive(Clone, PartialEq, Eq)]
struct Packet<'a> {
    code: u8,
    id: u8,
    /// The type of a request or response, and what is behind it.
    data: Option<(u8, &'a [u8])>,
}

impl<'a> Packet<'a> {
    fn parse(octets: &'a [u8]) -> Result<Packet<'a>, EapError> {
        let ([code, id, high, low], rest) =
            octets.split_first_chunk::<4>().ok_or(EapError::Malformed("length"))?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // RFC 3748 §4: what is behind the length is padding of a link; in IKE there is none.
        if length != octets.len() || length > MOST_OCTETS {
            return Err(EapError::Malformed("length"));
        }
        let data = match *code {
            REQUEST | RESPONSE => Some(
                rest.split_first().map(|(kind, data)| (*kind, data)).ok_or(EapError::Malformed("type"))?,
            ),
            // RFC 3748 §4.2: these have no data.
            SUCCESS | FAILURE if rest.is_empty() => None,
            _ => return Err(EapError::Malformed("code")),
        };
        Ok(Packet { code: *code, id: *id, data })
    }

    fn emit(&self) -> Vec<u8> {
        let rest = self.data.map_or(vec![], |(kind, data)| [&[kind], data].concat());
        let [high, low] = ((rest.len() + 4) as u16).to_be_bytes();
        [&[self.code, self.id, high, low], &rest[..]].concat()
    }
}

impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EAP {} {} {:?}", self.code, self.id, self.data.map(|(kind, data)| (kind, data.len())))
    }
}

/// An identity of EAP as one of IKE: what it looks like to people.
pub(crate) fn identification(name: &str) -> Option<Identification> {
    name.parse::<IdPattern>().ok()?.identity()
}

#[cfg(test)]
mod tests;
