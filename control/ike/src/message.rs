//! IKEv2 messages as they are on the wire (RFC 7296 §3), parsed into owned values and emitted from them.
//!
//! What is on the wire of a message is all here, and no more: a parser refuses what cannot be read, or what a "MUST"
//! on the form of a payload forbids. Numbers of any registry that are not known are data, as are payloads of unknown
//! types; whether a message makes sense is for the exchanges.
//!
//! A parsed message has all that the octets had except for what has no meaning: reserved fields, and the critical
//! bit of payloads that are known (RFC 7296 §3.2). Signatures and MACs are over octets, not over values: whoever
//! checks one keeps the octets of the message; of an identification, [`Identification::body`] has them.
//!
//! Octets come from anybody. All reads are bounded by the payload that they are in, and values are a small multiple of
//! the octets: the worst, a payload of nothing, makes 56 of 4.

mod authentication;
mod certificate;
mod configuration;
mod delete;
mod header;
mod identity;
pub mod isakmp;
mod key_exchange;
mod notify;
mod octets;
mod payload;
mod proposal;
mod registry;
mod sealed;
mod traffic_selector;

pub use authentication::{AuthMethod, Authentication};
pub use certificate::{Certificate, CertificateEncoding, CertificateRequest};
pub use configuration::{
    Configuration, ConfigurationAttribute, ConfigurationAttributeType, ConfigurationType,
};
pub use delete::Delete;
pub use header::{ExchangeType, Flags, Header, IkeSpi, Version};
pub use identity::{IdType, Identification};
pub use key_exchange::KeyExchange;
pub use notify::{Notify, NotifyType};
pub use octets::{Malformed, Oversized};
pub use payload::{Payload, PayloadType, Payloads};
pub use proposal::{Attribute, AttributeType, AttributeValue, Proposal, Protocol, Transform, TransformType};
pub use sealed::{Fragment, Sealed};
pub use traffic_selector::{Addresses, TrafficSelector, TsRange, TsType};

use octets::Writer;

/// An IKEv2 message. Of what is sealed, only where it is: [`Payloads::parse`] reads it once it is decrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its header, of version 2.
    pub header: Header,
    /// The payloads in clear.
    pub payloads: Payloads,
    /// The Encrypted or Encrypted Fragment payload, which is the last (RFC 7296 §3.14, RFC 7383 §2.5).
    pub sealed: Option<Sealed>,
}

impl Message {
    /// Reads a message that fills `octets`, from its header on: without the non-ESP marker of UDP port 4500.
    pub fn parse(octets: &[u8]) -> Result<Message, Malformed> {
        let (header, first, body) = Header::parse(octets)?;
        if header.version.major != Version::V2.major {
            return Err(Malformed { payload: None, field: "major version", offset: header::VERSION_AT });
        }
        let (payloads, sealed) = payload::parse_chain(first, body, Header::LEN, true)?;
        Ok(Message { header, payloads, sealed })
    }

    /// The payloads in clear of a message, which are not read: the type of each, and the octets behind its generic header. It
    /// ends where they do, or one is cut off.
    pub fn glance(octets: &[u8]) -> impl Iterator<Item = (PayloadType, &[u8])> {
        let (first, body) =
            Header::parse(octets).map_or((PayloadType::NONE, &[][..]), |(_, first, body)| (first, body));
        payload::bodies(first, body)
    }

    /// Its octets, with the body of what is sealed as it is.
    pub fn emit(&self) -> Result<Vec<u8>, Oversized> {
        let mut out = Writer::default();
        let sealed = self.sealed.as_ref();
        let behind = sealed.map_or(PayloadType::NONE, Sealed::kind);
        self.header.emit(self.payloads.first().unwrap_or(behind), &mut out);
        self.payloads.emit_before(behind, &mut out);
        if let Some(sealed) = sealed {
            sealed.emit(&mut out);
        }
        let length = out.len();
        out.patch_u32(header::LENGTH_AT, length);
        out.finish()
    }

    /// Its octets, of which `seal` makes the body of what is sealed, by the octets in front of it. [`Sealed::room`] has
    /// said how long it is.
    pub fn emit_sealed(&self, seal: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Vec<u8>, Oversized> {
        let mut octets = self.emit()?;
        let room = self.sealed.as_ref().map_or(0, |sealed| sealed.body.len());
        let at = octets.len() - room;
        let body = seal(&octets[..at]);
        octets[at..].copy_from_slice(&body);
        Ok(octets)
    }
}

crate::kept::keep!(ExchangeType(_), Protocol(_), IdType(_), TransformType(_), IkeSpi(_));
crate::kept::keep!(Identification { kind, reserved, data });
