//! EAP-TLS (RFC 5216, RFC 9190): a handshake of TLS in packets of EAP, for both ends. Both show certificates.
//!
//! ```text
//!  Start                          ──▶
//!                                 ◀──    ClientHello
//!  ServerHello ... certificate    ──▶    in fragments, each of which is acknowledged by a packet without data
//!                                 ◀──    certificate ... Finished
//!  Finished, or an octet of 0     ──▶    with TLS 1.3 the octet says that all is well (RFC 9190 §2.5)
//!                                 ◀──    nothing
//! ```
//!
//! TLS is rustls', by ring, which has its randomness from the system; whom to believe, [`credentials`] says.

mod credentials;

use super::{EapError, MOST_OCTETS, Tls};
use crate::{crypto::Secret, identity::IdPattern, message::Identification};
use rustls::{
    ClientConnection, Connection, ProtocolVersion, ServerConnection,
    pki_types::{IpAddr, Ipv4Addr, ServerName},
};
use std::{
    fmt,
    io::{Read, Write},
};
use zeroize::Zeroizing;

/// The flags in front of the data (RFC 5216 §3.1).
const HAS_LENGTH: u8 = 0x80;
const MORE: u8 = 0x40;
const START: u8 = 0x20;

/// Octets of our fragments.
const FRAGMENT: usize = 1024;

/// Octets that fragments make, at most: those of a chain of certificates.
const MOST_MESSAGE: usize = 64 * 1024;

const _: () = assert!(FRAGMENT + 16 < MOST_OCTETS);

/// Octets that TLS holds of an end besides what it was given: its keys, its transcript, and what its messages say.
const STATE: usize = 32 * 1024;

/// What the MSK is made with (RFC 5216 §2.3, RFC 9190 §2.3).
const LABEL_1_2: &[u8] = b"client EAP encryption";
const LABEL_1_3: &[u8] = b"EXPORTER_EAP_TLS_Key_Material";

/// An end of TLS over EAP.
pub(super) struct Session {
    connection: Connection,
    /// What has come of a message that is in fragments.
    arrived: Vec<u8>,
    /// Octets that TLS was given, all of which it may have kept.
    given: usize,
    /// What is still to be sent, and whether all of it is.
    leaving: Vec<u8>,
    is_cut: bool,
    failed: Option<EapError>,
    /// With TLS 1.3, that all is well was said.
    is_confirmed: bool,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Turn {
    /// The data of a packet.
    Say(Vec<u8>),
    /// The handshake is done, at both ends.
    Done,
    Failed(EapError),
}

impl Session {
    /// That of an authenticator, for a user of this identity.
    pub fn server(tls: &Tls, user: &Identification, unix_secs: u64) -> Result<Session, EapError> {
        let config = credentials::server(tls, IdPattern::from(user), unix_secs).map_err(failed)?;
        Ok(Session::of(ServerConnection::new(config).map_err(failed)?.into()))
    }

    /// That of a user, of an authenticator of these identities.
    pub fn client(tls: &Tls, authority: IdPattern, unix_secs: u64) -> Result<Session, EapError> {
        let config = credentials::client(tls, authority, unix_secs).map_err(failed)?;
        // It is not told: EAP has no name for it.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        Ok(Session::of(ClientConnection::new(config, name).map_err(failed)?.into()))
    }

    fn of(mut connection: Connection) -> Session {
        connection.set_buffer_limit(Some(MOST_MESSAGE));
        let (arrived, leaving) = (vec![], vec![]);
        Session { connection, arrived, given: 0, leaving, is_cut: false, failed: None, is_confirmed: false }
    }

    /// Octets that it holds, at most.
    pub fn octets(&self) -> usize {
        STATE + self.given + self.arrived.len() + self.leaving.len()
    }

    /// The first request.
    pub fn start() -> Vec<u8> {
        vec![START]
    }

    /// A packet came.
    pub fn handle(&mut self, data: &[u8]) -> Turn {
        self.take(data).unwrap_or_else(Turn::Failed)
    }

    fn take(&mut self, data: &[u8]) -> Result<Turn, EapError> {
        let malformed = || EapError::Malformed("fragment of TLS");
        let (flags, mut data) = data.split_first().ok_or_else(malformed)?;
        if flags & HAS_LENGTH != 0 {
            let (length, rest) = data.split_first_chunk::<4>().ok_or_else(malformed)?;
            if u32::from_be_bytes(*length) as usize > MOST_MESSAGE {
                return Err(EapError::TooLong);
            }
            data = rest;
        }
        if !self.leaving.is_empty() {
            // It acknowledges a fragment.
            return if data.is_empty() { Ok(self.say()) } else { Err(malformed()) };
        }
        if self.arrived.len() + data.len() > MOST_MESSAGE {
            return Err(EapError::TooLong);
        }
        self.arrived.extend_from_slice(data);
        if flags & MORE != 0 {
            return if data.is_empty() { Err(malformed()) } else { Ok(Turn::Say(vec![0])) };
        }
        let is_nothing = self.arrived.is_empty() && flags & START == 0;
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        if is_nothing && self.is_done() {
            return Ok(Turn::Done);
        }
        let message = std::mem::take(&mut self.arrived);
        self.given += message.len();
        // What is wrong, TLS tells the other end, which acknowledges it.
        self.failed = self.read(&message).err();
        let is_server = matches!(self.connection, Connection::Server(_));
        if self.failed.is_none()
            && is_server
            && self.is_1_3()
            && !self.connection.is_handshaking()
            && !self.is_confirmed
        {
            self.connection.writer().write_all(&[0]).map_err(failed)?;
            self.is_confirmed = true;
        }
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.leaving).map_err(failed)?;
        }
        self.is_cut = self.leaving.len() > FRAGMENT;
        // RFC 5216 §2.1.3: the user acknowledges what the authenticator says, and hears of its failure.
        match self.failed.take_if(|_| is_server && self.leaving.is_empty()) {
            Some(failed) => Err(failed),
            None => Ok(self.say()),
        }
    }

    fn read(&mut self, mut message: &[u8]) -> Result<(), EapError> {
        while !message.is_empty() {
            if self.connection.read_tls(&mut message).map_err(failed)? == 0 {
                return Err(EapError::Malformed("end of TLS"));
            }
            self.connection.process_new_packets().map_err(failed)?;
        }
        let mut said = [0; 2];
        let is_client = matches!(self.connection, Connection::Client(_));
        match self.connection.reader().read(&mut said) {
            // RFC 9190 §2.5
            Ok(1) if is_client && self.is_1_3() && said[0] == 0 => self.is_confirmed = true,
            Ok(_) => return Err(EapError::Malformed("data of TLS")),
            Err(_) => {}
        }
        Ok(())
    }

    /// The next fragment, or nothing, which acknowledges what came.
    fn say(&mut self) -> Turn {
        let is_first = self.is_cut;
        let all = self.leaving.len();
        let now: Vec<u8> = self.leaving.drain(..all.min(FRAGMENT)).collect();
        let more = if self.leaving.is_empty() { 0 } else { MORE };
        self.is_cut = false;
        // RFC 5216 §2.1.5: the first of several has the length of all.
        let length = if is_first { (all as u32).to_be_bytes().to_vec() } else { vec![] };
        let flags = more | if is_first { HAS_LENGTH } else { 0 };
        Turn::Say([&[flags], &length[..], &now].concat())
    }

    fn is_1_3(&self) -> bool {
        self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// Whether both ends have proven who they are, as far as this one knows.
    pub fn is_done(&self) -> bool {
        let is_well = self.failed.is_none() && !self.connection.is_handshaking();
        is_well && self.leaving.is_empty() && (self.is_confirmed || !self.is_1_3())
    }

    /// Why this end has ended it.
    pub fn failure(&mut self) -> Option<EapError> {
        self.failed.take()
    }

    /// The MSK, once the handshake is done.
    pub fn msk(&self) -> Result<Secret, EapError> {
        // RFC 9190 §2.3: the context is the type of EAP-TLS.
        let (label, context) =
            if self.is_1_3() { (LABEL_1_3, Some(&[super::TLS][..])) } else { (LABEL_1_2, None) };
        let mut keys = Zeroizing::new([0; 128]);
        self.connection.export_keying_material(&mut *keys, label, context).map_err(failed)?;
        // Behind it is the EMSK.
        Ok(Secret::copy_of(&keys[..64]))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TLS (hidden)")
    }
}

fn failed(error: impl ToString) -> EapError {
    EapError::Tls(error.to_string())
}
