//! Test vectors in files: records of `name = value`, with an empty line between; `#` begins a remark.

use std::collections::BTreeMap;

/// A record.
#[derive(Debug)]
pub struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    /// A value as it is written.
    pub fn text(&self, name: &str) -> &'a str {
        self.0.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// A value of hex digits.
    pub fn octets(&self, name: &str) -> Vec<u8> {
        hex(self.text(name))
    }
}

/// Octets of hex digits, with any spaces between.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    assert!(
        digits.len().is_multiple_of(2) && text.chars().all(|c| c.is_ascii_hexdigit() || c.is_whitespace())
    );
    digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
}

/// All records of a file; there is one at least.
pub fn records(file: &str) -> Vec<Fields<'_>> {
    let mut records = vec![BTreeMap::new()];
    for line in file.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once('=') {
            Some((name, value)) => {
                let last = records.last_mut().expect("there is always one");
                assert!(last.insert(name.trim(), value.trim()).is_none(), "{line} twice in a record");
            }
            None => {
                assert_eq!(line, "", "no record has this");
                records.push(BTreeMap::new());
            }
        }
    }
    records.retain(|record| !record.is_empty());
    assert!(!records.is_empty());
    records.into_iter().map(Fields).collect()
}

/// Randomness that a test knows: octets given before, and then a simple sequence.
pub struct Known(pub Vec<u8>, pub u64);

impl rand_core::TryRng for Known {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut octets = [0; 4];
        self.try_fill_bytes(&mut octets)?;
        Ok(u32::from_le_bytes(octets))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut octets = [0; 8];
        self.try_fill_bytes(&mut octets)?;
        Ok(u64::from_le_bytes(octets))
    }

    // SplitMix64, once the octets that were given are used up.
    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Self::Error> {
        for octet in octets {
            *octet = if self.0.is_empty() {
                self.1 = self.1.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (self.1 ^ self.1 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (mixed ^ mixed >> 27) as u8
            } else {
                self.0.remove(0)
            };
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Known {}

/// Randomness of a seed.
pub fn seeded(seed: u64) -> Known {
    Known(Vec::new(), seed)
}
