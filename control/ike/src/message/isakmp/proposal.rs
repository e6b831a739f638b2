//! SA, with proposals and transforms (RFC 2408 §3.4 to §3.6, RFC 2407 §4.6.1).

use super::IPSEC_DOI;
use crate::message::{
    Attribute, AttributeType, AttributeValue, Malformed, Protocol,
    octets::{Reader, Writer},
    proposal::{MORE_PROPOSALS, MORE_TRANSFORMS, emit_attribute, parse_attribute},
};

/// SIT_IDENTITY_ONLY (RFC 2407 §4.2.1).
const IDENTITY_ONLY: u32 = 1;

/// What is proposed, or was chosen. Proposals of a number belong together, and others are alternatives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecurityAssociation {
    /// The proposals.
    pub proposals: Vec<Proposal>,
}

/// Transforms of a protocol, of which one is chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Its number.
    pub number: u8,
    /// The protocol.
    pub protocol: Protocol,
    /// The SPI of the sender. At most 255 octets.
    pub spi: Vec<u8>,
    /// The transforms, at most 255.
    pub transforms: Vec<Transform>,
}

/// An algorithm, and what else goes with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transform {
    /// Its number.
    pub number: u8,
    /// Which it is, of the protocol.
    pub id: u8,
    /// What is agreed on with it.
    pub attributes: Vec<Attribute>,
}

impl Attribute {
    /// One that is a number.
    pub fn number(kind: u16, value: u32) -> Attribute {
        let value = match u16::try_from(value) {
            Ok(short) => AttributeValue::Short(short),
            Err(_) => AttributeValue::Long(value.to_be_bytes().to_vec()),
        };
        Attribute { kind: AttributeType(kind), value }
    }

    /// The number that it is, if it is one that 64 bits have room for.
    pub fn as_number(&self) -> Option<u64> {
        match &self.value {
            AttributeValue::Short(value) => Some((*value).into()),
            AttributeValue::Long(octets) if (1..=8).contains(&octets.len()) => {
                Some(octets.iter().fold(0, |n, octet| n << 8 | u64::from(*octet)))
            }
            AttributeValue::Long(_) => None,
        }
    }
}

impl SecurityAssociation {
    pub(super) fn parse(mut r: Reader<'_>) -> Result<SecurityAssociation, Malformed> {
        let doi = r.malformed("DOI");
        if r.u32("DOI")? != IPSEC_DOI {
            return Err(doi);
        }
        let situation = r.malformed("Situation");
        // RFC 2407 §4.2: no labels, which are behind it.
        if r.u32("Situation")? != IDENTITY_ONLY {
            return Err(situation);
        }
        let mut proposals = vec![];
        while !r.is_empty() {
            let at = r.offset();
            let ([last, _], body) = r.frame("Proposal Length")?;
            if last != if r.is_empty() { 0 } else { MORE_PROPOSALS } {
                return Err(r.malformed_at("Next Payload of a proposal", at));
            }
            proposals.push(Proposal::parse(body)?);
        }
        Ok(SecurityAssociation { proposals })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.u32(IPSEC_DOI);
        w.u32(IDENTITY_ONLY);
        for (i, proposal) in self.proposals.iter().enumerate() {
            let last = if i + 1 == self.proposals.len() { 0 } else { MORE_PROPOSALS };
            w.frame([last, 0], "Proposal Length", |w| proposal.emit(w));
        }
    }
}

impl Proposal {
    fn parse(mut r: Reader<'_>) -> Result<Proposal, Malformed> {
        let number = r.u8("Proposal #")?;
        let protocol = Protocol(r.u8("Protocol-Id")?);
        let spi_size = r.u8("SPI Size")?;
        let count_at = r.offset();
        let count = r.u8("# of Transforms")?;
        let spi = r.take(spi_size.into(), "SPI")?.to_vec();
        let mut transforms = vec![];
        while !r.is_empty() {
            let at = r.offset();
            let ([last, _], body) = r.frame("Transform Length")?;
            if last != if r.is_empty() { 0 } else { MORE_TRANSFORMS } {
                return Err(r.malformed_at("Next Payload of a transform", at));
            }
            transforms.push(Transform::parse(body)?);
        }
        if transforms.len() != usize::from(count) {
            return Err(r.malformed_at("# of Transforms", count_at));
        }
        Ok(Proposal { number, protocol, spi, transforms })
    }

    fn emit(&self, w: &mut Writer) {
        w.u8(self.number);
        w.u8(self.protocol.0);
        w.len8(self.spi.len(), "SPI Size");
        w.len8(self.transforms.len(), "# of Transforms");
        w.octets(&self.spi);
        for (i, transform) in self.transforms.iter().enumerate() {
            let last = if i + 1 == self.transforms.len() { 0 } else { MORE_TRANSFORMS };
            w.frame([last, 0], "Transform Length", |w| transform.emit(w));
        }
    }
}

impl Transform {
    fn parse(mut r: Reader<'_>) -> Result<Transform, Malformed> {
        let number = r.u8("Transform #")?;
        let id = r.u8("Transform-Id")?;
        r.u16("RESERVED2")?;
        let mut attributes = vec![];
        while !r.is_empty() {
            attributes.push(parse_attribute(&mut r)?);
        }
        Ok(Transform { number, id, attributes })
    }

    fn emit(&self, w: &mut Writer) {
        w.octets(&[self.number, self.id, 0, 0]);
        self.attributes.iter().for_each(|attribute| emit_attribute(attribute, w));
    }
}
