//! The end that proves who it is.

use super::{
    EapError, FAILURE, IDENTITY, MOST_ROUNDS, MSCHAPV2, Means, Method, NAK, NOTIFICATION, Packet, Proven,
    REQUEST, RESPONSE, SUCCESS, Secrets, TLS,
    mschapv2::{Answer, Client},
    tls::{Session, Turn},
};
use crate::identity::IdPattern;
use rand_core::CryptoRng;
use std::sync::Arc;

/// What a user says next.
#[derive(Debug)]
pub enum Reply {
    /// A response.
    Answer(Vec<u8>),
    /// Nothing: both ends know that it is who it says.
    Success(Proven),
    /// Nothing, and why.
    Failure(EapError),
}

/// A user.
#[derive(Debug)]
pub struct Peer {
    means: Means,
    secrets: Arc<Secrets>,
    /// Who we are.
    name: String,
    /// Who the authenticator must be, by certificates.
    authority: IdPattern,
    unix_secs: u64,
    rounds: u8,
    state: State,
}

/// What is waited for.
#[derive(Debug)]
enum State {
    /// A method.
    Method,
    MsChapV2(Client),
    Tls(Box<Session>),
    /// That it has succeeded.
    Proven(Proven),
    /// That it has failed.
    Refused(EapError),
}

impl Peer {
    /// One that is `user` in IKE, of an authenticator that is `authority` there.
    pub fn new(
        means: &Means,
        secrets: &Arc<Secrets>,
        (user, authority): (&str, IdPattern),
        unix_secs: u64,
    ) -> Peer {
        Peer {
            name: means.identity.clone().unwrap_or_else(|| user.to_owned()),
            authority: means.authority.clone().unwrap_or(authority),
            means: means.clone(),
            secrets: secrets.clone(),
            unix_secs,
            rounds: 0,
            state: State::Method,
        }
    }

    /// The authenticator has said something.
    pub fn handle(&mut self, octets: &[u8], rng: &mut dyn CryptoRng) -> Reply {
        self.rounds = self.rounds.saturating_add(1);
        self.asked(octets, rng).unwrap_or_else(Reply::Failure)
    }

    fn asked(&mut self, octets: &[u8], rng: &mut dyn CryptoRng) -> Result<Reply, EapError> {
        let packet = Packet::parse(octets)?;
        if self.rounds > MOST_ROUNDS {
            return Err(EapError::TooLong);
        }
        let state = std::mem::replace(&mut self.state, State::Method);
        let (kind, data) = match (packet.code, packet.data, state) {
            (SUCCESS, _, State::Proven(proven)) => return Ok(Reply::Success(proven)),
            (SUCCESS, _, State::Tls(session)) if session.is_done() => {
                return Ok(Reply::Success(Proven { who: self.name.clone(), msk: session.msk()? }));
            }
            // RFC 3748 §4.2: before its time it is nobody's.
            (SUCCESS, ..) => return Err(EapError::Malformed("Success")),
            (FAILURE, _, State::Refused(why)) => return Err(why),
            (FAILURE, _, State::Tls(mut session)) => {
                return Err(session.failure().unwrap_or(EapError::Refused(String::new())));
            }
            (FAILURE, ..) => return Err(EapError::Refused(String::new())),
            (REQUEST, Some(data), state) => {
                self.state = state;
                data
            }
            _ => return Err(EapError::Malformed("code")),
        };
        let answer = |kind, data: &[u8]| {
            Ok(Reply::Answer(Packet { code: RESPONSE, id: packet.id, data: Some((kind, data)) }.emit()))
        };
        match kind {
            IDENTITY => answer(IDENTITY, self.name.as_bytes()),
            // RFC 3748 §5.2
            NOTIFICATION => answer(NOTIFICATION, &[]),
            MSCHAPV2 if self.may(Method::MsChapV2) => answer(MSCHAPV2, &self.mschapv2(data, rng)?),
            TLS if self.may(Method::Tls) => answer(TLS, &self.tls(data)?),
            // RFC 3748 §5.3.1
            _ => {
                let all = [Method::Tls, Method::MsChapV2].into_iter().filter(|method| self.may(*method));
                let wanted: Vec<u8> = all.map(Method::kind).collect();
                answer(NAK, if wanted.is_empty() { &[0] } else { &wanted })
            }
        }
    }

    /// Whether a method can be begun, or goes on.
    fn may(&self, method: Method) -> bool {
        match (&self.state, method) {
            (State::Method, _) => {
                let has = method != Method::Tls || self.means.tls.is_some();
                has && self.means.method.is_none_or(|only| only == method)
            }
            (State::Tls(_), _) => method == Method::Tls,
            _ => method == Method::MsChapV2,
        }
    }

    fn mschapv2(&mut self, data: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, EapError> {
        let mut client = match std::mem::replace(&mut self.state, State::Method) {
            State::MsChapV2(client) => client,
            State::Method => {
                let hash = self.secrets.of(&self.name);
                Client::new(&self.name, hash.ok_or_else(|| EapError::NoSecret(self.name.clone()))?.clone())
            }
            _ => return Err(EapError::Malformed("Request of MSCHAPv2")),
        };
        Ok(match client.handle(data, rng)? {
            Answer::More(data) => {
                self.state = State::MsChapV2(client);
                data
            }
            Answer::Proven(data, proven) => {
                self.state = State::Proven(proven);
                data
            }
            Answer::Refused(data, why) => {
                self.state = State::Refused(why);
                data
            }
        })
    }

    fn tls(&mut self, data: &[u8]) -> Result<Vec<u8>, EapError> {
        let mut session = match std::mem::replace(&mut self.state, State::Method) {
            State::Tls(session) => session,
            _ => {
                let tls = self.means.tls.as_ref().ok_or(EapError::Tls("there is no certificate".into()))?;
                Box::new(Session::client(tls, self.authority.clone(), self.unix_secs)?)
            }
        };
        match session.handle(data) {
            Turn::Say(data) => {
                self.state = State::Tls(session);
                Ok(data)
            }
            Turn::Done => {
                self.state = State::Tls(session);
                Ok(vec![0])
            }
            Turn::Failed(why) => Err(why),
        }
    }
}
