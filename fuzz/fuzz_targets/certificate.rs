//! Any octets are certificates and what is said of them, or are refused; a chain of them is found or not, in time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ike::pki::{
    certificate::Certificate,
    chain::{Shown, Trust},
    crl::Crl,
    distinguished_name::DistinguishedName,
    ocsp::OcspResponse,
    revocation::{Revocation, Said},
};

/// Pieces of DER, one behind the other.
fn pieces(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut pieces = vec![];
    while let [_, first, rest @ ..] = octets {
        let (len, of_len) = match first {
            0x81 if !rest.is_empty() => (rest[0].into(), 1),
            0x82 if rest.len() > 1 => (usize::from(rest[0]) << 8 | usize::from(rest[1]), 2),
            len => (usize::from(*len), 0),
        };
        let (piece, rest) = octets.split_at((2 + of_len + len).min(octets.len()));
        pieces.push(piece);
        octets = rest;
    }
    pieces
}

fn name(name: &DistinguishedName) {
    let shown = name.to_string();
    if let Ok(read) = shown.parse::<DistinguishedName>() {
        assert_eq!(read.to_string(), shown);
    }
}

fuzz_target!(|octets: &[u8]| {
    let mut trust = Trust { revocation: Revocation::IfUri, ..Trust::default() };
    let mut shown = Shown::default();
    for piece in pieces(octets) {
        if let Ok(certificate) = Certificate::from_der(piece) {
            name(certificate.subject());
            shown.certificates.push(certificate);
        }
        shown.said.extend(Crl::from_der(piece).map(Said::Crl));
        shown.said.extend(OcspResponse::from_der(piece).map(Said::Ocsp));
        DistinguishedName::from_der(piece).iter().for_each(name);
    }
    if let Ok(text) = std::str::from_utf8(octets)
        && let Ok(read) = text.parse::<DistinguishedName>()
    {
        name(&read);
    }
    let _ = Certificate::from_file(octets);
    if let Some(last) = shown.certificates.pop() {
        trust.anchors.push(last);
    }
    for end in &shown.certificates {
        let _ = trust.verify(end, &shown, 1_800_000_000);
    }
});
