//! SK and SKF: payloads that are encrypted and authenticated (RFC 7296 §3.14, RFC 7383 §2.5).
//!
//! What is in it, and how it is sealed, is for [`crate::crypto::cipher`]. Here it is one body, and what is in front of it:
//! [`Sealed::headers`], which is authenticated, too.

use super::{
    Malformed, PayloadType,
    octets::{Reader, Writer},
};

/// The Encrypted payload, or an Encrypted Fragment payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// The type of the first payload inside; `NONE` if nothing is, and in all fragments but the first.
    pub first: PayloadType,
    /// Which fragment it is; `None` is a whole (SK).
    pub fragment: Option<Fragment>,
    /// IV, ciphertext and ICV.
    pub body: Vec<u8>,
}

/// Which of how many fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    number: u16,
    total: u16,
}

impl Fragment {
    /// Numbers are 1 to `total` (RFC 7383 §2.5).
    pub const fn new(number: u16, total: u16) -> Option<Fragment> {
        if number == 0 || number > total { None } else { Some(Fragment { number, total }) }
    }

    /// Its number, of 1 and up.
    pub const fn number(self) -> u16 {
        self.number
    }

    /// How many there are.
    pub const fn total(self) -> u16 {
        self.total
    }
}

impl Sealed {
    /// SK or SKF.
    pub const fn kind(&self) -> PayloadType {
        if self.fragment.is_some() { PayloadType::SKF } else { PayloadType::SK }
    }

    /// One that is to be sealed: room for a body of so many octets.
    pub fn room(first: PayloadType, fragment: Option<Fragment>, len: usize) -> Sealed {
        Sealed { first, fragment, body: vec![0; len] }
    }

    /// What is in front of the body in the octets of the message, all of them, that this was read from: the header,
    /// payloads in clear, the generic header, and a fragment's numbers (RFC 7296 §3.14, RFC 5282 §5.1, RFC 7383 §2.5).
    pub fn headers<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[..message.len() - self.body.len()]
    }

    pub(super) fn parse(
        kind: PayloadType,
        first: PayloadType,
        mut r: Reader<'_>,
    ) -> Result<Sealed, Malformed> {
        let fragment = if kind == PayloadType::SKF {
            let malformed = r.malformed("Fragment Number");
            let (number, total) = (r.u16("Fragment Number")?, r.u16("Total Fragments")?);
            // RFC 7383 §2.6
            Some(Fragment::new(number, total).ok_or(malformed)?)
        } else {
            None
        };
        Ok(Sealed { first, fragment, body: r.rest().to_vec() })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.frame([self.first.0, 0], "Payload Length", |w| {
            if let Some(Fragment { number, total }) = self.fragment {
                w.u16(number);
                w.u16(total);
            }
            w.octets(&self.body);
        });
    }
}
