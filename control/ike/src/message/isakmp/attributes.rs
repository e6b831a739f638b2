//! The attributes of a configuration (draft-dukes-ike-mode-cfg-02 §3.2), which are those of CP in IKEv2, and of extended
//! authentication (draft-beaulieu-ike-xauth-02 §6).

use crate::message::{
    Attribute, AttributeType, AttributeValue, ConfigurationAttribute, ConfigurationAttributeType, Malformed,
    octets::{Reader, Writer},
    proposal::{emit_attributes, parse_attributes},
    registry::registry,
};
use std::fmt;
use zeroize::Zeroize;

registry! {
    /// What is done with attributes of a configuration.
    AttributesType(u8) {
        ISAKMP_CFG_REQUEST = 1,
        ISAKMP_CFG_REPLY = 2,
        ISAKMP_CFG_SET = 3,
        ISAKMP_CFG_ACK = 4,
    }
}

registry! {
    /// What is asked of a user, and what it is told.
    XauthAttributeType(u16) {
        XAUTH_TYPE = 16520,
        XAUTH_USER_NAME = 16521,
        XAUTH_USER_PASSWORD = 16522,
        XAUTH_PASSCODE = 16523,
        XAUTH_MESSAGE = 16524,
        XAUTH_CHALLENGE = 16525,
        XAUTH_DOMAIN = 16526,
        XAUTH_STATUS = 16527,
        XAUTH_NEXT_PIN = 16528,
        XAUTH_ANSWER = 16529,
    }
}

/// An ATTR payload. What its attributes say is wiped with it: there are passwords among them.
#[derive(Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Whether they are asked for, or told.
    pub kind: AttributesType,
    /// Which transaction they are of.
    pub identifier: u16,
    /// The attributes.
    pub all: Vec<Attribute>,
}

impl Attributes {
    /// Those of a configuration.
    pub fn of_configuration(
        kind: AttributesType,
        identifier: u16,
        all: Vec<ConfigurationAttribute>,
    ) -> Attributes {
        let of = |attribute: ConfigurationAttribute| Attribute {
            kind: AttributeType(attribute.kind.0),
            value: AttributeValue::Long(attribute.value),
        };
        Attributes { kind, identifier, all: all.into_iter().map(of).collect() }
    }

    /// As those of a configuration.
    pub fn configuration(&self) -> Vec<ConfigurationAttribute> {
        let of = |attribute: &Attribute| ConfigurationAttribute {
            kind: ConfigurationAttributeType(attribute.kind.0),
            value: match &attribute.value {
                AttributeValue::Short(value) => value.to_be_bytes().to_vec(),
                AttributeValue::Long(value) => value.clone(),
            },
        };
        self.all.iter().map(of).collect()
    }

    /// What is said of a user.
    pub fn of_user(&self, kind: XauthAttributeType) -> Option<&Attribute> {
        self.all.iter().find(|attribute| attribute.kind.0 == kind.0)
    }

    /// Whether it is about a user.
    pub fn is_of_user(&self) -> bool {
        self.all.iter().any(|attribute| XauthAttributeType(attribute.kind.0).name().is_some())
    }

    pub(super) fn parse(mut r: Reader<'_>) -> Result<Attributes, Malformed> {
        let kind = AttributesType(r.u8("Type")?);
        r.u8("RESERVED")?;
        let identifier = r.u16("Identifier")?;
        Ok(Attributes { kind, identifier, all: parse_attributes(r)? })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.octets(&[self.kind.0, 0]);
        w.u16(self.identifier);
        emit_attributes(&self.all, w);
    }
}

/// Without what they say.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.all.iter().map(|attribute| attribute.kind.0).collect();
        write!(f, "{} {}: {kinds:?}", self.kind, self.identifier)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        for attribute in &mut self.all {
            if let AttributeValue::Long(value) = &mut attribute.value {
                value.zeroize();
            }
        }
    }
}

crate::kept::keep!(AttributesType(_));
