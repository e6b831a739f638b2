//! SK and SKF: payloads that are encrypted and authenticated (RFC 7296 §3.14, RFC 7383 §2.5).
//!
//! ```text
//!    header, payloads in clear │ generic header │ fragment │ IV │ payloads, padding, pad length │ ICV
//!    aad ──────────────────────────────────────────────────┤    ├ ciphertext ───────────────────┤
//!    authenticated (ciphers with a MAC) ──────────────────────────────────────────────────────┤
//! ```
//!
//! AEADs take as AAD what is in clear before the IV, the fragment's numbers with it (RFC 5282 §5.1, RFC 7383 §2.5);
//! MACs are over all before the ICV. To seal, emit a message with a body of the right length, and encrypt in place.

use super::{
    Malformed, PayloadType,
    octets::{Reader, Writer},
};
use std::ops::Range;

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

/// What is where in the octets of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spans {
    /// The AAD of AEADs.
    pub aad: Range<usize>,
    /// The IV.
    pub iv: Range<usize>,
    /// What is encrypted: payloads, padding and pad length.
    pub ciphertext: Range<usize>,
    /// The ICV.
    pub icv: Range<usize>,
}

impl Spans {
    /// What MACs are over.
    pub fn authenticated(&self) -> Range<usize> {
        0..self.icv.start
    }
}

impl Sealed {
    /// SK or SKF.
    pub const fn kind(&self) -> PayloadType {
        if self.fragment.is_some() { PayloadType::SKF } else { PayloadType::SK }
    }

    /// What is where in a message of `message_len` octets that ends with this payload, if its IV and its ICV have so
    /// many octets; `None` if the payload has not even room for these and a pad length.
    pub fn spans(&self, message_len: usize, iv_len: usize, icv_len: usize) -> Option<Spans> {
        let aad = 0..message_len.checked_sub(self.body.len())?;
        let iv = aad.end..aad.end.checked_add(iv_len)?;
        let icv = message_len.checked_sub(icv_len)?..message_len;
        let ciphertext = iv.end..icv.start;
        (!ciphertext.is_empty()).then_some(Spans { aad, iv, ciphertext, icv })
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

/// Puts padding and its length behind payloads that are to be encrypted, as little as fills blocks of so many octets
/// (RFC 7296 §3.14; 1 for AEADs, RFC 5282 §3). The padding is zeroes.
pub fn pad(plaintext: &mut Vec<u8>, block: u8) {
    let block = usize::from(block.max(1));
    let len = (plaintext.len() + 1).next_multiple_of(block);
    let padding = len - plaintext.len() - 1;
    plaintext.resize(len - 1, 0);
    plaintext.push(padding as u8);
}

/// What was decrypted without padding and its length, or `None` if it is not as long as the padding. Any padding is
/// accepted, of any content (RFC 7296 §3.14).
pub fn unpad(plaintext: &[u8]) -> Option<&[u8]> {
    let (&padding, rest) = plaintext.split_last()?;
    rest.len().checked_sub(padding.into()).map(|len| &rest[..len])
}
