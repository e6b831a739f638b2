//! The end that wants to know who a user is.

use super::{
    Demand, EapError, FAILURE, IDENTITY, Identity, MOST_IDENTITY, MOST_ROUNDS, MSCHAPV2, Method, NAK, Packet,
    Proven, REQUEST, RESPONSE, SUCCESS, Secrets, TLS, identification,
    mschapv2::{self, Server},
    tls::{self, Session},
};
use crate::message::Identification;
use rand_core::CryptoRng;
use std::sync::Arc;

/// What an authenticator says next.
#[derive(Debug)]
pub enum Next {
    /// A request.
    Ask(Vec<u8>),
    /// Success: the user is who it says.
    Success(Vec<u8>, Proven),
    /// Failure, and why.
    Failure(Vec<u8>, EapError),
}

/// An authenticator of one user.
#[derive(Debug)]
pub struct Authenticator {
    demand: Demand,
    secrets: Arc<Secrets>,
    /// Who we are.
    name: String,
    /// Who the user is: in IKE, or in EAP once it has said so.
    user: String,
    user_id: Identification,
    unix_secs: u64,
    /// The identifier of the last request, and its type.
    id: u8,
    rounds: u8,
    state: State,
}

/// What is waited for.
#[derive(Debug)]
enum State {
    Nothing,
    Identity,
    MsChapV2(Server),
    Tls(Box<Session>),
}

impl Authenticator {
    /// One of a user who is `user` in IKE; `name` is ours.
    pub fn new(
        demand: &Demand,
        secrets: &Arc<Secrets>,
        (name, user): (&str, &Identification),
        unix_secs: u64,
    ) -> Authenticator {
        Authenticator {
            demand: demand.clone(),
            secrets: secrets.clone(),
            name: name.to_owned(),
            user: user.to_string(),
            user_id: user.clone(),
            unix_secs,
            id: 0,
            rounds: 0,
            state: State::Nothing,
        }
    }

    /// The first request.
    pub fn begin(&mut self, rng: &mut dyn CryptoRng) -> Next {
        let mut id = [0];
        rng.fill_bytes(&mut id);
        self.id = id[0];
        match self.demand.identity {
            Identity::OfIke | Identity::Proven => self.begin_method(rng),
            Identity::Asked(_) => {
                self.state = State::Identity;
                self.ask(IDENTITY, &[])
            }
        }
    }

    /// The user has answered.
    pub fn handle(&mut self, octets: &[u8], rng: &mut dyn CryptoRng) -> Next {
        self.rounds = self.rounds.saturating_add(1);
        self.answered(octets, rng).unwrap_or_else(|why| self.fail(why))
    }

    /// Why the user has failed, where it was told that and has gone without an answer.
    pub fn failure(self) -> Option<EapError> {
        match self.state {
            State::MsChapV2(server) => server.failure(),
            State::Tls(mut session) => session.failure(),
            State::Nothing | State::Identity => None,
        }
    }

    /// Octets that it holds of what the user has sent, at most, and of what comes of that.
    pub fn octets(&self) -> usize {
        match &self.state {
            State::Tls(session) => session.octets(),
            State::Nothing | State::Identity | State::MsChapV2(_) => 0,
        }
    }

    fn answered(&mut self, octets: &[u8], rng: &mut dyn CryptoRng) -> Result<Next, EapError> {
        let packet = Packet::parse(octets)?;
        let (kind, data) = packet.data.ok_or(EapError::Malformed("code"))?;
        // RFC 3748 §4.1
        if packet.code != RESPONSE || packet.id != self.id {
            return Err(EapError::Malformed("identifier"));
        }
        if self.rounds > MOST_ROUNDS {
            return Err(EapError::TooLong);
        }
        match (std::mem::replace(&mut self.state, State::Nothing), kind) {
            (State::Identity, IDENTITY) => {
                self.learn(data)?;
                Ok(self.begin_method(rng))
            }
            // RFC 3748 §5.3.1
            (State::MsChapV2(_) | State::Tls(_), NAK) => Err(EapError::Method(data.to_vec())),
            (State::MsChapV2(mut server), MSCHAPV2) => match server.answer(self.id, data, rng) {
                mschapv2::Turn::Ask(data) => {
                    self.state = State::MsChapV2(server);
                    Ok(self.ask(MSCHAPV2, &data))
                }
                mschapv2::Turn::Proven(proven) => Ok(self.succeed(proven)),
                mschapv2::Turn::Failed(why) => Err(why),
            },
            (State::Tls(mut session), TLS) => match session.handle(data) {
                tls::Turn::Say(data) => {
                    self.state = State::Tls(session);
                    Ok(self.ask(TLS, &data))
                }
                tls::Turn::Done => {
                    let proven = Proven { who: self.user.clone(), msk: session.msk()? };
                    Ok(self.succeed(proven))
                }
                tls::Turn::Failed(why) => Err(why),
            },
            _ => Err(EapError::Malformed("type")),
        }
    }

    /// The user says who it is.
    fn learn(&mut self, data: &[u8]) -> Result<(), EapError> {
        let malformed = || EapError::Malformed("identity");
        let user =
            str::from_utf8(data).ok().filter(|user| user.len() <= MOST_IDENTITY).ok_or_else(malformed)?;
        let id = identification(user).ok_or_else(malformed)?;
        if let Identity::Asked(wanted) = &self.demand.identity {
            wanted.fits(&id).ok_or_else(|| EapError::Identity(id.to_string()))?;
        }
        self.user = user.to_owned();
        self.user_id = id;
        Ok(())
    }

    fn begin_method(&mut self, rng: &mut dyn CryptoRng) -> Next {
        match self.demand.method {
            Method::MsChapV2 => {
                let is_known = self.demand.identity != Identity::Proven;
                let user = is_known.then(|| self.user.clone());
                let server = Server::new(self.secrets.clone(), user, rng);
                let data = server.begin(self.id.wrapping_add(1), &self.name);
                self.state = State::MsChapV2(server);
                self.ask(MSCHAPV2, &data)
            }
            Method::Tls => {
                let tls = self.demand.tls.as_ref().ok_or(EapError::Tls("there is no certificate".into()));
                let session = tls.and_then(|tls| Session::server(tls, &self.user_id, self.unix_secs));
                match session {
                    Ok(session) => {
                        self.state = State::Tls(Box::new(session));
                        self.ask(TLS, &Session::start())
                    }
                    Err(why) => self.fail(why),
                }
            }
        }
    }

    fn ask(&mut self, kind: u8, data: &[u8]) -> Next {
        self.id = self.id.wrapping_add(1);
        Next::Ask(Packet { code: REQUEST, id: self.id, data: Some((kind, data)) }.emit())
    }

    // RFC 3748 §4.2: with the identifier of the response that it is for.
    fn succeed(&mut self, proven: Proven) -> Next {
        Next::Success(Packet { code: SUCCESS, id: self.id, data: None }.emit(), proven)
    }

    fn fail(&mut self, why: EapError) -> Next {
        self.state = State::Nothing;
        Next::Failure(Packet { code: FAILURE, id: self.id, data: None }.emit(), why)
    }
}
