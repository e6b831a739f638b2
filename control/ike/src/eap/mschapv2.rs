//! EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2): MS-CHAP in packets of EAP, for both ends.
//!
//! ```text
//!  Challenge: 16 octets, name     ──▶
//!                                 ◀──    Response: 16 octets of its own, 24 octets of proof, name
//!  Success: S=proof, or Failure   ──▶
//!                                 ◀──    the same code alone
//! ```

use super::{
    EapError, Proven,
    mschap::{CHALLENGE, NtHash, RESPONSE as PROOF, Said, msk},
    secrets::{Secrets, without_domain},
};
use rand_core::CryptoRng;
use std::sync::Arc;
use subtle::ConstantTimeEq;

const CHALLENGE_CODE: u8 = 1;
const RESPONSE_CODE: u8 = 2;
const SUCCESS_CODE: u8 = 3;
const FAILURE_CODE: u8 = 4;

/// The octet that says how long the value of a Response is: challenge, eight octets of nothing, proof, flags.
const RESPONSE_SIZE: u8 = 49;

/// What is told to who does not know the password (RFC 2759 §6): there is no other try.
const WRONG: &str = "E=691 R=0 C=00000000000000000000000000000000 V=3 M=Authentication failed";

/// What an authenticator does next.
pub(super) enum Turn {
    Ask(Vec<u8>),
    Proven(Proven),
    Failed(EapError),
}

/// The authenticator's side.
#[derive(Debug)]
pub(super) struct Server {
    secrets: Arc<Secrets>,
    /// Who the user must be, if that is known.
    identity: Option<String>,
    challenge: [u8; CHALLENGE],
    /// What it comes to once the user has heard of it.
    result: Option<Result<Proven, EapError>>,
}

impl Server {
    pub fn new(secrets: Arc<Secrets>, identity: Option<String>, rng: &mut dyn CryptoRng) -> Server {
        let mut challenge = [0; CHALLENGE];
        rng.fill_bytes(&mut challenge);
        Server { secrets, identity, challenge, result: None }
    }

    /// The first request, with our name.
    pub fn begin(&self, id: u8, name: &str) -> Vec<u8> {
        packet(CHALLENGE_CODE, id, &[&[CHALLENGE as u8], &self.challenge, name.as_bytes()])
    }

    pub fn answer(&mut self, id: u8, data: &[u8], rng: &mut dyn CryptoRng) -> Turn {
        match self.result.take() {
            None => self.verify(id, data, rng).unwrap_or_else(Turn::Failed),
            Some(Ok(proven)) if data == [SUCCESS_CODE] => Turn::Proven(proven),
            Some(Ok(proven)) => Turn::Failed(EapError::Password(proven.who)),
            Some(Err(why)) => Turn::Failed(why),
        }
    }

    /// Why the user has failed, if it was told that.
    pub fn failure(self) -> Option<EapError> {
        self.result.and_then(Result::err)
    }

    fn verify(&mut self, id: u8, data: &[u8], rng: &mut dyn CryptoRng) -> Result<Turn, EapError> {
        let malformed = || EapError::Malformed("Response of MSCHAPv2");
        let (value, name) = parse(RESPONSE_CODE, id, data).ok_or_else(malformed)?;
        let ([size], value) = value.split_first_chunk::<1>().ok_or_else(malformed)?;
        let (peer_challenge, rest) = value.split_first_chunk::<CHALLENGE>().ok_or_else(malformed)?;
        let (_, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (proof, flags) = rest.split_first_chunk::<PROOF>().ok_or_else(malformed)?;
        if (*size, flags.len()) != (RESPONSE_SIZE, 1) {
            return Err(malformed());
        }
        let name = str::from_utf8(name).map_err(|_| malformed())?;
        let bare = without_domain(name);
        let said = Said {
            challenge: self.challenge,
            peer_challenge: *peer_challenge,
            // RFC 2759 §4: the domain is not in it.
            name: bare.as_bytes().to_vec(),
        };
        // The password is that of who it was found to be, whatever it says now.
        let who = self.identity.as_deref().unwrap_or(name).to_owned();
        let is_who_it_said = without_domain(&who) == bare;
        // Who is not there takes as long as who is.
        let mut nobody = [0; 16];
        rng.fill_bytes(&mut nobody);
        let nobody = NtHash::from_octets(&nobody);
        let known = self.secrets.of(&who).filter(|_| is_who_it_said);
        let hash = known.or(nobody.as_ref()).ok_or_else(malformed)?;
        if said.is_response(hash, proof) {
            let told = format!("{} M=OK", said.authenticator_response(hash, proof));
            self.result = Some(Ok(Proven { who, msk: msk(hash, proof) }));
            return Ok(Turn::Ask(packet(SUCCESS_CODE, id, &[told.as_bytes()])));
        }
        self.result = Some(Err(EapError::Password(who)));
        Ok(Turn::Ask(packet(FAILURE_CODE, id, &[WRONG.as_bytes()])))
    }
}

/// The user's side.
#[derive(Debug)]
pub(super) struct Client {
    name: String,
    hash: NtHash,
    /// What was said, and our proof.
    said: Option<(Said, [u8; PROOF])>,
}

/// What a user answers.
pub(super) enum Answer {
    More(Vec<u8>),
    /// The authenticator knows the password, too.
    Proven(Vec<u8>, Proven),
    /// It says no.
    Refused(Vec<u8>, EapError),
}

impl Client {
    pub fn new(name: &str, hash: NtHash) -> Client {
        Client { name: name.to_owned(), hash, said: None }
    }

    pub fn handle(&mut self, data: &[u8], rng: &mut dyn CryptoRng) -> Result<Answer, EapError> {
        let malformed = || EapError::Malformed("Request of MSCHAPv2");
        match (data.first().copied(), self.said.take()) {
            (Some(CHALLENGE_CODE), None) => {
                // What is before the value is ours to say back.
                let ms_id = *data.get(1).ok_or_else(malformed)?;
                let (value, rest) = fields(CHALLENGE_CODE, data)
                    .and_then(|v| v.split_first_chunk::<1>())
                    .ok_or_else(malformed)?;
                let (challenge, _) = rest.split_first_chunk::<CHALLENGE>().ok_or_else(malformed)?;
                if usize::from(value[0]) != CHALLENGE {
                    return Err(malformed());
                }
                let mut peer_challenge = [0; CHALLENGE];
                rng.fill_bytes(&mut peer_challenge);
                let name = without_domain(&self.name).as_bytes().to_vec();
                let said = Said { challenge: *challenge, peer_challenge, name };
                let proof = said.nt_response(&self.hash);
                let value = [&[RESPONSE_SIZE][..], &peer_challenge, &[0; 8], &proof, &[0]].concat();
                self.said = Some((said, proof));
                Ok(Answer::More(packet(RESPONSE_CODE, ms_id, &[&value, self.name.as_bytes()])))
            }
            (Some(SUCCESS_CODE), Some((said, proof))) => {
                let told = fields(SUCCESS_CODE, data).ok_or_else(malformed)?;
                let wanted = said.authenticator_response(&self.hash, &proof);
                let is_it = told.get(..wanted.len()).is_some_and(|told| told.ct_eq(wanted.as_bytes()).into());
                // RFC 2759 §5: who does not know the password is none to talk to.
                if !is_it {
                    return Err(EapError::Impostor);
                }
                let proven = Proven { who: self.name.clone(), msk: msk(&self.hash, &proof) };
                Ok(Answer::Proven(vec![SUCCESS_CODE], proven))
            }
            (Some(FAILURE_CODE), Some(_)) => {
                let told = fields(FAILURE_CODE, data).ok_or_else(malformed)?;
                let told = told[..told.len().min(100)].escape_ascii().to_string();
                Ok(Answer::Refused(vec![FAILURE_CODE], EapError::Refused(told)))
            }
            _ => Err(malformed()),
        }
    }
}

/// Code, identifier, length of all, and what is behind.
fn packet(code: u8, id: u8, parts: &[&[u8]]) -> Vec<u8> {
    let rest = parts.concat();
    let [high, low] = ((rest.len() + 4) as u16).to_be_bytes();
    [&[code, id, high, low], &rest[..]].concat()
}

/// What is behind the length.
fn fields(code: u8, data: &[u8]) -> Option<&[u8]> {
    let ([is, _, high, low], rest) = data.split_first_chunk::<4>()?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    (*is == code && length == data.len()).then_some(rest)
}

/// The value of a packet of a code and an identifier, with its size in front, and the name behind it.
fn parse(code: u8, id: u8, data: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = fields(code, data).filter(|_| data[1] == id)?;
    let size = usize::from(*rest.first()?);
    rest.split_at_checked(1 + size)
}
