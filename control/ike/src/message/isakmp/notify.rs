//! N and D (RFC 2408 §3.14, §3.15, RFC 2407 §4.6.3).

use super::IPSEC_DOI;
use crate::message::{
    self, IkeSpi, Malformed, Protocol,
    octets::{Reader, Writer},
    registry::registry,
};

registry! {
    /// What a notification says. Numbers below 16384 are errors.
    NotifyType(u16) {
        INVALID_PAYLOAD_TYPE = 1,
        DOI_NOT_SUPPORTED = 2,
        SITUATION_NOT_SUPPORTED = 3,
        INVALID_COOKIE = 4,
        INVALID_MAJOR_VERSION = 5,
        INVALID_MINOR_VERSION = 6,
        INVALID_EXCHANGE_TYPE = 7,
        INVALID_FLAGS = 8,
        INVALID_MESSAGE_ID = 9,
        INVALID_PROTOCOL_ID = 10,
        INVALID_SPI = 11,
        INVALID_TRANSFORM_ID = 12,
        ATTRIBUTES_NOT_SUPPORTED = 13,
        NO_PROPOSAL_CHOSEN = 14,
        BAD_PROPOSAL_SYNTAX = 15,
        PAYLOAD_MALFORMED = 16,
        INVALID_KEY_INFORMATION = 17,
        INVALID_ID_INFORMATION = 18,
        INVALID_CERT_ENCODING = 19,
        INVALID_CERTIFICATE = 20,
        CERT_TYPE_UNSUPPORTED = 21,
        INVALID_CERT_AUTHORITY = 22,
        INVALID_HASH_INFORMATION = 23,
        AUTHENTICATION_FAILED = 24,
        INVALID_SIGNATURE = 25,
        ADDRESS_NOTIFICATION = 26,
        NOTIFY_SA_LIFETIME = 27,
        CERTIFICATE_UNAVAILABLE = 28,
        UNSUPPORTED_EXCHANGE_TYPE = 29,
        UNEQUAL_PAYLOAD_LENGTHS = 30,
        CONNECTED = 16384,
        RESPONDER_LIFETIME = 24576,
        REPLAY_STATUS = 24577,
        INITIAL_CONTACT = 24578,
        R_U_THERE = 36136, // RFC 3706
        R_U_THERE_ACK = 36137,
    }
}

impl NotifyType {
    /// Whether it reports an error, known or not.
    pub const fn is_error(self) -> bool {
        self.0 < NotifyType::CONNECTED.0
    }
}

/// A notification.
pub type Notify = message::Notify<NotifyType>;

/// SAs that the sender has deleted, by their SPIs; an ISAKMP SA by both cookies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delete {
    /// The protocol of the SAs.
    pub protocol: Protocol,
    /// The SPIs, each of the same number of octets.
    pub spis: Vec<Vec<u8>>,
}

/// Both cookies, which name an ISAKMP SA (RFC 2408 §3.15).
pub fn cookies(initiator: IkeSpi, responder: IkeSpi) -> Vec<u8> {
    [initiator.octets(), responder.octets()].concat()
}

fn doi(r: &mut Reader<'_>) -> Result<(), Malformed> {
    let malformed = r.malformed("DOI");
    // Those about ISAKMP SAs may be of no DOI (RFC 2408 §3.14).
    if matches!(r.u32("DOI")?, 0 | IPSEC_DOI) { Ok(()) } else { Err(malformed) }
}

impl Notify {
    /// A notification about the ISAKMP SA of these cookies.
    pub fn of_ike_sa(kind: NotifyType, (initiator, responder): (IkeSpi, IkeSpi), data: &[u8]) -> Notify {
        Notify { protocol: Protocol::IKE, spi: cookies(initiator, responder), kind, data: data.to_vec() }
    }
}

pub(super) fn parse(mut r: Reader<'_>) -> Result<Notify, Malformed> {
    doi(&mut r)?;
    Notify::parse(r)
}

pub(super) fn emit(notify: &Notify, w: &mut Writer) {
    w.u32(IPSEC_DOI);
    notify.emit(w);
}

impl Delete {
    /// Of SAs of ESP or AH.
    pub fn child_sas(protocol: Protocol, spis: &[u32]) -> Delete {
        Delete { protocol, spis: spis.iter().map(|spi| spi.to_be_bytes().to_vec()).collect() }
    }

    /// Of an ISAKMP SA.
    pub fn ike_sa(initiator: IkeSpi, responder: IkeSpi) -> Delete {
        Delete { protocol: Protocol::IKE, spis: vec![cookies(initiator, responder)] }
    }

    pub(super) fn parse(mut r: Reader<'_>) -> Result<Delete, Malformed> {
        doi(&mut r)?;
        let protocol = Protocol(r.u8("Protocol-Id")?);
        let malformed = r.malformed("SPI Size");
        let spi_size = usize::from(r.u8("SPI Size")?);
        let count = usize::from(r.u16("# of SPIs")?);
        let fits = match protocol {
            Protocol::IKE => spi_size == 16,
            Protocol::AH | Protocol::ESP => spi_size == 4,
            _ => spi_size > 0,
        };
        if !fits {
            return Err(malformed);
        }
        let malformed = r.malformed("# of SPIs");
        let spis = r.rest();
        // It is of something.
        if count == 0 || spis.len() != count * spi_size {
            return Err(malformed);
        }
        Ok(Delete { protocol, spis: spis.chunks(spi_size).map(<[u8]>::to_vec).collect() })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.u32(IPSEC_DOI);
        w.u8(self.protocol.0);
        w.len8(self.spis.first().map_or(0, Vec::len), "SPI Size");
        w.len16(self.spis.len(), "# of SPIs");
        self.spis.iter().for_each(|spi| w.octets(spi));
    }
}
