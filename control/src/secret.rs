//! Keys as they are read from files: wiped when dropped, and never shown.

use std::{
    fmt,
    hash::{Hash, Hasher},
};
use zeroize::Zeroizing;

/// Secret octets, written as `0x` and hex digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Reads `0x` and an even number of hex digits.
    pub fn from_hex(text: &str) -> Option<Secret> {
        let digits = text.strip_prefix("0x")?.as_bytes();
        if !digits.len().is_multiple_of(2) {
            return None;
        }
        // At its full size from the start: a vector that grows leaves copies behind.
        let mut octets = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
        let digit = |d: u8| (d as char).to_digit(16).map(|n| n as u8);
        for pair in digits.chunks_exact(2) {
            octets.push(digit(pair[0])? << 4 | digit(pair[1])?);
        }
        Some(Secret(octets))
    }

    /// A copy of octets.
    pub fn copy_of(octets: &[u8]) -> Secret {
        Secret(Zeroizing::new(octets.to_vec()))
    }

    /// Octets that it has on the heap.
    pub fn heap_octets(&self) -> usize {
        self.0.capacity()
    }

    /// The octets.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read() {
        assert_eq!(Secret::from_hex("0x00ffA5").unwrap().bytes(), [0, 0xff, 0xa5]);
        assert_eq!(Secret::from_hex("0x").unwrap().bytes(), [0u8; 0]);
        for bad in ["", "00ff", "0x0", "0x0g", "0x 1", "0xé1", "0x+1"] {
            assert_eq!(Secret::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn it_prints_as_hidden() {
        let secret = Secret::copy_of(&[0x42; 20]);
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "(hidden) (hidden) Some((hidden))");
    }
}
