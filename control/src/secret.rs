//! Keys as they are read from files: wiped when dropped, and never shown.

use serde::{Deserialize, Deserializer, de::Error};
use std::fmt;
use zeroize::Zeroizing;

/// Secret octets, written as `0x` and hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The octets.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads `0x` and hex digits.
    pub fn from_hex(text: &str) -> Option<Secret> {
        let digits = text.strip_prefix("0x")?.as_bytes();
        if !digits.len().is_multiple_of(2) {
            return None;
        }
        let digit = |d: u8| (d as char).to_digit(16).map(|n| n as u8);
        let octets = digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
        octets.collect::<Option<Vec<u8>>>().map(|v| Secret(Zeroizing::new(v)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // What was written is not repeated.
        Secret::from_hex(&text)
            .ok_or_else(|| D::Error::custom("a key is 0x and an even number of hex digits"))
    }
}
