//! The header, which IKEv1 and IKEv2 share (RFC 7296 §3.1, RFC 2408 §3.1).

use super::{
    Malformed, PayloadType,
    octets::{Reader, Writer},
    registry::registry,
};
use std::{fmt, ops::BitOr};

pub(super) const VERSION_AT: usize = 17;
pub(super) const LENGTH_AT: usize = 24;

/// An SPI of an IKE SA, in IKEv1 a cookie. It prints as its hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(
    /// Its octets, the first one highest.
    pub u64,
);

impl IkeSpi {
    /// The responder's, while it has not chosen one (RFC 7296 §3.1).
    pub const NONE: IkeSpi = IkeSpi(0);

    /// As it is on the wire.
    pub const fn octets(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

impl From<[u8; 8]> for IkeSpi {
    fn from(octets: [u8; 8]) -> IkeSpi {
        IkeSpi(u64::from_be_bytes(octets))
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

registry! {
    /// What a message is part of: exchange types of IKEv1 and IKEv2.
    ExchangeType(u8) {
        // RFC 2408 §3.1, RFC 2409 §A
        IDENTITY_PROTECTION = 2, // main mode
        AGGRESSIVE = 4,
        INFORMATIONAL_V1 = 5,
        TRANSACTION = 6, // draft-ietf-ipsec-isakmp-mode-cfg
        QUICK_MODE = 32,
        NEW_GROUP_MODE = 33,
        // RFC 7296 §3.1
        IKE_SA_INIT = 34,
        IKE_AUTH = 35,
        CREATE_CHILD_SA = 36,
        INFORMATIONAL = 37,
        IKE_SESSION_RESUME = 38, // RFC 5723
        IKE_INTERMEDIATE = 43, // RFC 9242
        IKE_FOLLOWUP_KE = 44, // RFC 9370
    }
}

/// The version of the protocol, four bits each. The minor one is ignored (RFC 7296 §2.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Version {
    /// 1 or 2; others are refused by the exchanges.
    pub major: u8,
    /// 0 in what we send.
    pub minor: u8,
}

impl Version {
    /// IKEv1.
    pub const V1: Version = Version { major: 1, minor: 0 };
    /// IKEv2.
    pub const V2: Version = Version { major: 2, minor: 0 };
}

/// The flags, bits of a version that we do not know among them; those are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(
    /// The octet.
    pub u8,
);

impl Flags {
    /// IKEv2: sent by the original initiator of the IKE SA.
    pub const INITIATOR: Flags = Flags(0x08);
    /// IKEv2: the sender can speak a higher version.
    pub const VERSION: Flags = Flags(0x10);
    /// IKEv2: a response.
    pub const RESPONSE: Flags = Flags(0x20);
    /// IKEv1: all behind the header is encrypted (RFC 2408 §3.1).
    pub const ENCRYPTION: Flags = Flags(0x01);
    /// IKEv1: commit.
    pub const COMMIT: Flags = Flags(0x02);
    /// IKEv1: authenticated, and not encrypted.
    pub const AUTHENTICATION_ONLY: Flags = Flags(0x04);

    /// Whether all bits of `flags` are set.
    pub const fn contains(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// The header of a message. The type of the first payload and the length go with the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The SPI of who began the IKE SA.
    pub initiator_spi: IkeSpi,
    /// The SPI of the other side.
    pub responder_spi: IkeSpi,
    /// The version.
    pub version: Version,
    /// The exchange.
    pub exchange: ExchangeType,
    /// The flags.
    pub flags: Flags,
    /// The message ID.
    pub message_id: u32,
}

impl Header {
    /// Its octets.
    pub const LEN: usize = 28;

    /// Where it has the type of the first payload.
    pub const FIRST_AT: usize = 16;

    /// The header of a message of any version, the type of its first payload, and what is behind the header, as long
    /// as the header says.
    ///
    /// Octets behind that are refused: an IKEv2 message is all of its datagram, and what nobody authenticates is not
    /// let in. IKEv1's are cut off, since old implementations append zeroes.
    pub fn parse(octets: &[u8]) -> Result<(Header, PayloadType, &[u8]), Malformed> {
        let mut r = Reader::new(None, octets, 0);
        let initiator_spi = r.array("IKE SA Initiator's SPI")?.into();
        let responder_spi = r.array("IKE SA Responder's SPI")?.into();
        let first = PayloadType(r.u8("Next Payload")?);
        let version = r.u8("version")?;
        let version = Version { major: version >> 4, minor: version & 15 };
        let exchange = ExchangeType(r.u8("Exchange Type")?);
        let flags = Flags(r.u8("Flags")?);
        let message_id = r.u32("Message ID")?;
        let length = r.u32("Length")?;
        let malformed = r.malformed_at("Length", LENGTH_AT);
        let body_len = (length as usize).checked_sub(Header::LEN).ok_or(malformed)?;
        let body = r.take(body_len, "Length").map_err(|_| malformed)?;
        if !r.is_empty() && version.major != Version::V1.major {
            return Err(malformed);
        }
        let header = Header { initiator_spi, responder_spi, version, exchange, flags, message_id };
        Ok((header, first, body))
    }

    /// The length is left 0.
    pub(super) fn emit(&self, first: PayloadType, w: &mut Writer) {
        w.octets(&self.initiator_spi.octets());
        w.octets(&self.responder_spi.octets());
        w.u8(first.0);
        w.u8(self.version.major << 4 | self.version.minor & 15);
        w.u8(self.exchange.0);
        w.u8(self.flags.0);
        w.u32(self.message_id);
        w.u32(0);
    }
}
