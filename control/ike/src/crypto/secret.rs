//! Octets that only the two ends know.

use crate::kept::{Damaged, Keep, Reader, Writer};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret octets: wiped when dropped, compared in constant time, and never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A copy of octets.
    pub fn copy_of(octets: &[u8]) -> Secret {
        Secret(Zeroizing::new(octets.to_vec()))
    }

    /// All parts in a row.
    pub fn concat(parts: &[&[u8]]) -> Secret {
        Secret(Zeroizing::new(parts.concat()))
    }

    /// The octets.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(octets: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(octets))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Keep for Secret {
    fn keep(&self, to: &mut Writer) {
        (self.0.len() as u32).keep(to);
        to.octets(&self.0);
    }

    fn kept(from: &mut Reader<'_>) -> Result<Secret, Damaged> {
        Vec::kept(from).map(Secret::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_as_hidden() {
        assert_eq!(format!("{:?}", Some(Secret::copy_of(&[0x42; 20]))), "Some((hidden))");
    }

    #[test]
    fn all_octets_are_compared() {
        let secret = Secret::concat(&[&[1, 2], &[3]]);
        assert_eq!(secret, Secret::copy_of(&[1, 2, 3]));
        for other in [&[1, 2, 4][..], &[0, 2, 3], &[1, 2], &[1, 2, 3, 0], &[]] {
            assert_ne!(secret, Secret::copy_of(other));
        }
    }
}
