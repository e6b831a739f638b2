//! SA, with proposals and transforms (RFC 2408 §3.4 to §3.6, RFC 2407 §4.6.1).

use super::IPSEC_DOI;
use crate::message::{
    self, Attribute, AttributeType, AttributeValue, Malformed,
    octets::{Reader, Writer},
    proposal::{Form, emit_all, emit_attributes, parse_all, parse_attributes},
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
pub type Proposal = message::Proposal<Transform>;

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
        Ok(SecurityAssociation { proposals: parse_all(r)? })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.u32(IPSEC_DOI);
        w.u32(IDENTITY_ONLY);
        emit_all(&self.proposals, w);
    }
}

impl Form for Transform {
    fn parse(mut r: Reader<'_>) -> Result<Transform, Malformed> {
        let number = r.u8("Transform #")?;
        let id = r.u8("Transform-Id")?;
        r.u16("RESERVED2")?;
        Ok(Transform { number, id, attributes: parse_attributes(r)? })
    }

    fn emit(&self, w: &mut Writer) {
        w.octets(&[self.number, self.id, 0, 0]);
        emit_attributes(&self.attributes, w);
    }
}
