//! Tickets (RFC 5723 §6): all that a gateway must know of an IKE SA to resume it, sealed by a key that only it has, for who has
//! begun to keep.
//!
//! # Dangers
//! - Whoever has the key has SK_d of all tickets that it has sealed. It is random, never leaves the process, and is forgotten
//!   after some time.

use crate::{
    connection::Connection,
    crypto::Secret,
    kept::Writer,
    message::{AuthMethod, Identification, Payload, PayloadType, Payloads, Proposal},
};
use aes::{
    Aes256,
    cipher::{KeyInit, consts::U12},
};
use aes_gcm::{AeadInOut, AesGcm};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// How long a key seals tickets. What it has sealed is taken for as long again.
const KEY_SECS: u64 = 3600;

const KEY: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;

/// Octets in front of what is sealed: which key it is of, and the nonce.
const AHEAD: usize = 1 + NONCE;

/// What a ticket has.
#[derive(Debug)]
pub struct Session {
    /// Until when it may be resumed, in Unix time.
    pub until_secs: u64,
    /// When both ends were authenticated.
    pub authenticated_secs: u64,
    /// A PPK is mixed into its keys.
    pub has_ppk: bool,
    /// How who has begun has proven who it is.
    pub proven: Proven,
    /// What was agreed on.
    pub proposal: Proposal,
    /// Who has begun.
    pub initiator: Identification,
    /// Who has answered.
    pub responder: Identification,
    /// SK_d.
    pub d: Secret,
}

/// How an initiator has proven who it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    /// In which connection.
    pub connection: String,
    /// By which method, in the first round.
    pub method: AuthMethod,
    /// In how many rounds.
    pub rounds: usize,
    /// Who it is in EAP, if that was one of them.
    pub eap_id: Option<String>,
}

impl Proven {
    /// Whether that is what a connection demands, so that it need not be proven anew.
    pub fn suffices(&self, connection: &Connection) -> bool {
        connection.resumes
            && connection.name == self.connection
            && connection.remote_auth.takes(self.method)
            && 1 + connection.further.remote.len() == self.rounds
    }
}

/// What seals tickets and opens them.
#[derive(Debug)]
pub struct TicketKeys {
    keys: [Secret; 2],
    /// Of the newer key.
    version: u8,
    since_secs: u64,
}

impl TicketKeys {
    /// With new keys.
    pub fn new(now_secs: u64, rng: &mut dyn CryptoRng) -> TicketKeys {
        TicketKeys { keys: [key(rng), key(rng)], version: 0, since_secs: now_secs }
    }

    /// A ticket; nothing of what is too long for one.
    pub fn seal(&mut self, session: &Session, now_secs: u64, rng: &mut dyn CryptoRng) -> Option<Vec<u8>> {
        self.turn(now_secs, rng);
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let mut ticket = [&[self.version], &nonce[..]].concat();
        let mut octets = session.emit()?;
        let tag = self.cipher(self.version).encrypt_inout_detached(
            &nonce.into(),
            &[self.version],
            octets.as_mut_slice().into(),
        );
        let tag = tag.ok()?;
        ticket.extend_from_slice(&octets);
        ticket.extend(tag);
        Some(ticket)
    }

    /// What is in a ticket that was sealed not long ago.
    pub fn open(&mut self, ticket: &[u8], now_secs: u64, rng: &mut dyn CryptoRng) -> Option<Session> {
        self.turn(now_secs, rng);
        let (ahead, sealed) = ticket.split_at_checked(AHEAD)?;
        let version = ahead[0];
        let is_of_one = version == self.version || version == self.version.wrapping_sub(1);
        let (sealed, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG)?)?;
        let nonce = <[u8; NONCE]>::try_from(&ahead[1..]).ok().filter(|_| is_of_one)?;
        let tag = <[u8; TAG]>::try_from(tag).ok()?;
        let mut text = sealed.to_vec();
        let opened = self.cipher(version).decrypt_inout_detached(
            &nonce.into(),
            &[version],
            text.as_mut_slice().into(),
            &tag.into(),
        );
        let text = Secret::from(text);
        opened.ok()?;
        Session::parse(text.bytes()).filter(|session| now_secs < session.until_secs)
    }

    fn cipher(&self, version: u8) -> AesGcm<Aes256, U12> {
        let key = self.keys[usize::from(version % 2)].bytes();
        AesGcm::new_from_slice(key).expect("the key has its length")
    }

    /// A new key in the place of the older one, if it is time.
    fn turn(&mut self, now_secs: u64, rng: &mut dyn CryptoRng) {
        let passed = now_secs.saturating_sub(self.since_secs) / KEY_SECS;
        for _ in 0..passed.min(2) {
            self.version = self.version.wrapping_add(1);
            self.keys[usize::from(self.version % 2)] = key(rng);
        }
        self.since_secs += passed * KEY_SECS;
    }
}

fn key(rng: &mut dyn CryptoRng) -> Secret {
    let mut octets = vec![0; KEY];
    rng.fill_bytes(&mut octets);
    octets.into()
}

impl Session {
    /// How long it may be resumed, at most.
    pub const MOST_SECS: u64 = KEY_SECS;

    fn emit(&self) -> Option<Zeroizing<Vec<u8>>> {
        let payloads = Payloads(vec![
            Payload::SecurityAssociation(vec![self.proposal.clone()]),
            Payload::IdInitiator(self.initiator.clone()),
            Payload::IdResponder(self.responder.clone()),
        ]);
        let (_, payloads) = payloads.emit().ok()?;
        let Proven { connection, method, rounds, eap_id } = &self.proven;
        let has_eap_id = u8::from(eap_id.is_some());
        let eap_id = eap_id.as_deref().unwrap_or_default();
        let mut to = Writer::new();
        to.octets(&self.until_secs.to_be_bytes());
        to.octets(&self.authenticated_secs.to_be_bytes());
        to.octets(&[u8::from(self.has_ppk), method.0, u8::try_from(*rounds).ok()?, has_eap_id]);
        for field in [self.d.bytes(), connection.as_bytes(), eap_id.as_bytes()] {
            to.octets(&[u8::try_from(field.len()).ok()?]);
            to.octets(field);
        }
        to.octets(&payloads);
        Some(to.finish())
    }

    fn parse(octets: &[u8]) -> Option<Session> {
        let (until, rest) = octets.split_first_chunk()?;
        let (authenticated, rest) = rest.split_first_chunk()?;
        let (&[has_ppk, method, rounds, has_eap_id], rest) = rest.split_first_chunk()?;
        let ((d, rest), text) = (field(rest)?, |octets: &[u8]| String::from_utf8(octets.to_vec()).ok());
        let (connection, rest) = field(rest)?;
        let (eap_id, payloads) = field(rest)?;
        let payloads = Payloads::parse(PayloadType::SA, payloads).ok()?;
        Some(Session {
            until_secs: u64::from_be_bytes(*until),
            authenticated_secs: u64::from_be_bytes(*authenticated),
            has_ppk: has_ppk != 0,
            proven: Proven {
                connection: text(connection)?,
                method: AuthMethod(method),
                rounds: rounds.into(),
                eap_id: if has_eap_id == 0 { None } else { Some(text(eap_id)?) },
            },
            proposal: payloads.security_association()?.first()?.clone(),
            initiator: payloads.id_initiator()?.clone(),
            responder: payloads.id_responder()?.clone(),
            d: Secret::copy_of(d),
        })
    }
}

/// A field that has its length in front, and what is behind it.
fn field(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = octets.split_first()?;
    rest.split_at_checked((*len).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{crypto::vectors::seeded, message::IdType, proposal::Proposals};

    fn session(until_secs: u64) -> Session {
        let id = |name: &[u8]| Identification::new(IdType::ID_FQDN, name);
        Session {
            until_secs,
            authenticated_secs: 900,
            has_ppk: true,
            proven: Proven {
                connection: "users".into(),
                method: AuthMethod::SHARED_KEY,
                rounds: 2,
                eap_id: Some("carol".into()),
            },
            proposal: Proposals::ike(["aes256-sha256-x25519"]).unwrap().offer(&[]).remove(0),
            initiator: id(b"a.example.org"),
            responder: id(b"b.example.org"),
            d: Secret::copy_of(&[7; 32]),
        }
    }

    // RFC 5723 §6.1
    #[test]
    fn a_ticket_is_of_one_gateway_and_for_some_time() {
        let mut rng = seeded(1);
        for start in [1000, 1000 + KEY_SECS - 1, 1000 + 300 * KEY_SECS] {
            let (mut keys, mut others) = (TicketKeys::new(1000, &mut rng), TicketKeys::new(1000, &mut rng));
            let ticket = keys.seal(&session(start + KEY_SECS), start, &mut rng).unwrap();
            let opened = keys.open(&ticket, start, &mut rng).unwrap();
            let wanted = session(start + KEY_SECS);
            assert_eq!(format!("{opened:?}"), format!("{wanted:?}"));
            assert!(opened.d == wanted.d);
            assert!(!ticket.windows(4).any(|octets| octets == [7; 4]), "SK_d is not to be seen");
            assert!(others.open(&ticket, start, &mut rng).is_none());
            for n in 0..ticket.len() {
                let mut wrong = ticket.clone();
                wrong[n] ^= 1;
                assert!(keys.open(&wrong, start, &mut rng).is_none(), "octet {n}");
                assert!(keys.open(&ticket[..n], start, &mut rng).is_none());
            }
            // As long as it says, and no longer than the key.
            assert!(keys.open(&ticket, start + KEY_SECS - 1, &mut rng).is_some());
            assert!(keys.open(&ticket, start + KEY_SECS, &mut rng).is_none());
            let ticket = keys.seal(&session(u64::MAX), start + KEY_SECS, &mut rng).unwrap();
            assert!(keys.open(&ticket, start + 3 * KEY_SECS, &mut rng).is_none());
        }
    }
}
