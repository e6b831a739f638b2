//! What authorities sign: the octets, and the signature of them (RFC 5280 §4.1.1, §5.1.1, RFC 6960 §4.2.1).

use super::Wrong;
use crate::crypto::signature::{PublicKey, Scheme};
use der::{Encode, Reader, SliceReader, asn1::BitStringRef};
use pkcs8::spki::AlgorithmIdentifierRef;

/// Something signed, and not verified yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Signed {
    octets: Vec<u8>,
    scheme: Option<Scheme>,
    signature: Vec<u8>,
}

impl Signed {
    /// Of a sequence that begins with what is signed, an AlgorithmIdentifier, and a signature.
    pub fn read(octets: &[u8]) -> der::Result<Signed> {
        SliceReader::new(octets)?.sequence(|r| {
            // As it came: another encoding of the same is not what was signed.
            let octets = r.tlv_bytes()?.to_vec();
            let algorithm: AlgorithmIdentifierRef<'_> = r.decode()?;
            let signature: BitStringRef<'_> = r.decode()?;
            r.drain(r.remaining_len())?;
            Ok::<_, der::Error>(Signed {
                octets,
                scheme: Scheme::from_algorithm_identifier(&algorithm.to_der()?),
                signature: signature.as_bytes().unwrap_or_default().to_vec(),
            })
        })
    }

    /// How it says to be signed.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// Whether it is signed with a key.
    pub fn verify(&self, key: &PublicKey) -> Result<(), Wrong> {
        let scheme = self.scheme.ok_or(Wrong::Algorithm)?;
        key.verify(scheme, &self.octets, &self.signature).map_err(|_| Wrong::Signature)
    }
}
