//! Messages of IKEv2 between octets and values.

mod form;
mod malformed;
mod round_trip;
mod strongswan;

/// Octets of hex digits; spaces are for the reader.
fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    assert_eq!(digits.len() % 2, 0, "{hex}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
