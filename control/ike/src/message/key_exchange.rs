//! KE and Nonce (RFC 7296 §3.4, §3.9).

use super::{
    Malformed,
    octets::{Reader, Writer},
};
use std::ops::RangeInclusive;

/// Octets of a nonce (RFC 7296 §3.9).
const NONCE: RangeInclusive<usize> = 16..=256;

/// A public value, or a ciphertext of a KEM (RFC 9370 §2.2.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyExchange {
    /// The transform ID of the key exchange method ("Diffie-Hellman Group Num").
    pub method: u16,
    /// The Key Exchange Data.
    pub data: Vec<u8>,
}

impl KeyExchange {
    pub(super) fn parse(mut r: Reader<'_>) -> Result<KeyExchange, Malformed> {
        let method = r.u16("Key Exchange Method")?;
        r.u16("RESERVED")?;
        Ok(KeyExchange { method, data: r.rest().to_vec() })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.u16(self.method);
        w.u16(0);
        w.octets(&self.data);
    }
}

pub(super) fn parse_nonce(mut r: Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let malformed = r.malformed("Nonce Data");
    let nonce = r.rest();
    // RFC 7296 §3.9
    if NONCE.contains(&nonce.len()) { Ok(nonce.to_vec()) } else { Err(malformed) }
}
