//! SA: proposals, their transforms, and the attributes of those (RFC 7296 §3.3).

use super::{
    Malformed,
    octets::{Reader, Writer},
    registry::registry,
};

registry! {
    /// What an SA is of, in SA, N and D.
    Protocol(u8) {
        NONE = 0,
        IKE = 1,
        AH = 2,
        ESP = 3,
    }
}

registry! {
    /// What a transform is for (RFC 7296 §3.3.2).
    TransformType(u8) {
        ENCR = 1,
        PRF = 2,
        INTEG = 3,
        KE = 4,
        ESN = 5,
        // RFC 9370 §2.2.2
        ADDKE1 = 6,
        ADDKE2 = 7,
        ADDKE3 = 8,
        ADDKE4 = 9,
        ADDKE5 = 10,
        ADDKE6 = 11,
        ADDKE7 = 12,
    }
}

impl TransformType {
    /// The types of the additional key exchanges, in the order in which they are made (RFC 9370 §2.2.2).
    pub const ADDITIONAL_KEY_EXCHANGES: [TransformType; 7] = [
        TransformType::ADDKE1,
        TransformType::ADDKE2,
        TransformType::ADDKE3,
        TransformType::ADDKE4,
        TransformType::ADDKE5,
        TransformType::ADDKE6,
        TransformType::ADDKE7,
    ];
}

registry! {
    /// What an attribute says of a transform: 15 bits.
    AttributeType(u16) {
        KEY_LENGTH = 14,
    }
}

/// What may be chosen: in IKEv2, of each type of transform that it has, one. In IKEv1 ([`isakmp`](super::isakmp)) transforms are others,
/// and one of them all is chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal<T = Transform> {
    /// Its number: 1 and up in an offer, that of the chosen one in an answer.
    pub number: u8,
    /// The protocol of the SA.
    pub protocol: Protocol,
    /// The SPI of the sender, of 0, 4 or 8 octets by protocol and exchange (RFC 7296 §3.3.1). At most 255 octets.
    pub spi: Vec<u8>,
    /// The transforms, at most 255.
    pub transforms: Vec<T>,
}

/// An algorithm by its number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transform {
    /// What it is for.
    pub kind: TransformType,
    /// Which it is, in the registry of the type.
    pub id: u16,
    /// What else must be known of it.
    pub attributes: Vec<Attribute>,
}

/// An attribute of a transform (RFC 7296 §3.3.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    /// What it says.
    pub kind: AttributeType,
    /// And the value.
    pub value: AttributeValue,
}

/// The value of an attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AttributeValue {
    /// In the place of the length: the format TV.
    Short(u16),
    /// Behind a length: the format TLV.
    Long(Vec<u8>),
}

/// The bit beside the type of an attribute that tells the format TV.
const ATTRIBUTE_FORMAT: u16 = 0x8000;

/// "Last Substruc" of proposals, and of transforms, that others follow (RFC 7296 §3.3.1, §3.3.2).
const MORE_PROPOSALS: u8 = 2;
const MORE_TRANSFORMS: u8 = 3;

/// A transform of either version, behind its generic header.
pub(super) trait Form: Sized {
    fn parse(r: Reader<'_>) -> Result<Self, Malformed>;
    fn emit(&self, w: &mut Writer);
}

impl Transform {
    /// A transform without attributes.
    pub const fn new(kind: TransformType, id: u16) -> Transform {
        Transform { kind, id, attributes: vec![] }
    }

    /// A transform with keys of so many bits.
    pub fn with_key_length(kind: TransformType, id: u16, bits: u16) -> Transform {
        let attribute = Attribute { kind: AttributeType::KEY_LENGTH, value: AttributeValue::Short(bits) };
        Transform { kind, id, attributes: vec![attribute] }
    }

    /// Bits of the key, if an attribute tells them.
    pub fn key_length(&self) -> Option<u16> {
        self.attributes.iter().find_map(|attribute| match attribute.value {
            AttributeValue::Short(bits) if attribute.kind == AttributeType::KEY_LENGTH => Some(bits),
            _ => None,
        })
    }
}

pub(super) fn parse_all<T: Form>(mut r: Reader<'_>) -> Result<Vec<Proposal<T>>, Malformed> {
    let mut proposals = vec![];
    while !r.is_empty() {
        let at = r.offset();
        let ([last, _], body) = r.frame("Proposal Length")?;
        if last != if r.is_empty() { 0 } else { MORE_PROPOSALS } {
            return Err(r.malformed_at("Last Substruc of a proposal", at));
        }
        proposals.push(parse_proposal(body)?);
    }
    Ok(proposals)
}

pub(super) fn emit_all<T: Form>(proposals: &[Proposal<T>], w: &mut Writer) {
    for (i, proposal) in proposals.iter().enumerate() {
        let last = if i + 1 == proposals.len() { 0 } else { MORE_PROPOSALS };
        w.frame([last, 0], "Proposal Length", |w| emit_proposal(proposal, w));
    }
}

fn parse_proposal<T: Form>(mut r: Reader<'_>) -> Result<Proposal<T>, Malformed> {
    let number = r.u8("Proposal Num")?;
    let protocol = Protocol(r.u8("Protocol ID")?);
    let spi_size = r.u8("SPI Size")?;
    let count_at = r.offset();
    let count = r.u8("Num Transforms")?;
    let spi = r.take(spi_size.into(), "SPI")?.to_vec();
    let mut transforms = vec![];
    while !r.is_empty() {
        let at = r.offset();
        let ([last, _], body) = r.frame("Transform Length")?;
        if last != if r.is_empty() { 0 } else { MORE_TRANSFORMS } {
            return Err(r.malformed_at("Last Substruc of a transform", at));
        }
        transforms.push(T::parse(body)?);
    }
    // RFC 7296 §3.3: lengths and counts MUST be consistent.
    if transforms.len() != usize::from(count) {
        return Err(r.malformed_at("Num Transforms", count_at));
    }
    Ok(Proposal { number, protocol, spi, transforms })
}

fn emit_proposal<T: Form>(proposal: &Proposal<T>, w: &mut Writer) {
    w.u8(proposal.number);
    w.u8(proposal.protocol.0);
    w.len8(proposal.spi.len(), "SPI Size");
    w.len8(proposal.transforms.len(), "Num Transforms");
    w.octets(&proposal.spi);
    for (i, transform) in proposal.transforms.iter().enumerate() {
        let last = if i + 1 == proposal.transforms.len() { 0 } else { MORE_TRANSFORMS };
        w.frame([last, 0], "Transform Length", |w| transform.emit(w));
    }
}

impl Form for Transform {
    fn parse(mut r: Reader<'_>) -> Result<Transform, Malformed> {
        let kind = TransformType(r.u8("Transform Type")?);
        r.u8("RESERVED")?;
        let id = r.u16("Transform ID")?;
        Ok(Transform { kind, id, attributes: parse_attributes(r)? })
    }

    fn emit(&self, w: &mut Writer) {
        w.octets(&[self.kind.0, 0]);
        w.u16(self.id);
        emit_attributes(&self.attributes, w);
    }
}

/// All that are left.
pub(super) fn parse_attributes(mut r: Reader<'_>) -> Result<Vec<Attribute>, Malformed> {
    let mut all = vec![];
    while !r.is_empty() {
        all.push(parse_attribute(&mut r)?);
    }
    Ok(all)
}

fn parse_attribute(r: &mut Reader<'_>) -> Result<Attribute, Malformed> {
    let format = r.u16("Attribute Type")?;
    let kind = AttributeType(format & !ATTRIBUTE_FORMAT);
    let value = if format & ATTRIBUTE_FORMAT != 0 {
        AttributeValue::Short(r.u16("Attribute Value")?)
    } else {
        let length = r.u16("Attribute Length")?;
        AttributeValue::Long(r.take(length.into(), "Attribute Value")?.to_vec())
    };
    Ok(Attribute { kind, value })
}

pub(super) fn emit_attributes(all: &[Attribute], w: &mut Writer) {
    all.iter().for_each(|attribute| emit_attribute(attribute, w));
}

fn emit_attribute(attribute: &Attribute, w: &mut Writer) {
    let kind = attribute.kind.0 & !ATTRIBUTE_FORMAT;
    match &attribute.value {
        AttributeValue::Short(value) => {
            w.u16(kind | ATTRIBUTE_FORMAT);
            w.u16(*value);
        }
        AttributeValue::Long(value) => {
            w.u16(kind);
            w.len16(value.len(), "Attribute Length");
            w.octets(value);
        }
    }
}
