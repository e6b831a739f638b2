//! AUTH (RFC 7296 §3.8).

use super::{
    Malformed, Oversized,
    octets::{Reader, Writer},
    registry::registry,
};

registry! {
    /// How somebody is authenticated.
    AuthMethod(u8) {
        RSA_SIGNATURE = 1,
        SHARED_KEY = 2,
        DSS_SIGNATURE = 3,
        ECDSA_SHA256_P256 = 9, // RFC 4754
        ECDSA_SHA384_P384 = 10,
        ECDSA_SHA512_P521 = 11,
        GENERIC_SECURE_PASSWORD = 12, // RFC 6467
        NULL = 13, // RFC 7619
        DIGITAL_SIGNATURE = 14, // RFC 7427
    }
}

impl AuthMethod {
    /// Whether it is a signature that there is of it, in the ways that are known.
    pub const fn is_signature(self) -> bool {
        matches!(
            self,
            AuthMethod::RSA_SIGNATURE
                | AuthMethod::ECDSA_SHA256_P256
                | AuthMethod::ECDSA_SHA384_P384
                | AuthMethod::ECDSA_SHA512_P521
                | AuthMethod::DIGITAL_SIGNATURE
        )
    }
}

/// A proof of who somebody is, not checked yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authentication {
    /// What the data is.
    pub method: AuthMethod,
    /// The Authentication Data.
    pub data: Vec<u8>,
}

impl Authentication {
    /// A signature with the DER AlgorithmIdentifier of how it was made (RFC 7427 §3).
    pub fn digital_signature(algorithm: &[u8], signature: &[u8]) -> Result<Authentication, Oversized> {
        let mut w = Writer::default();
        w.len8(algorithm.len(), "ASN.1 Length");
        w.octets(algorithm);
        w.octets(signature);
        Ok(Authentication { method: AuthMethod::DIGITAL_SIGNATURE, data: w.finish()? })
    }

    /// The DER AlgorithmIdentifier and the signature, of data that is a Digital Signature (RFC 7427 §3); `None` if the
    /// method is another, or the identifier is not all there.
    pub fn algorithm_and_signature(&self) -> Option<(&[u8], &[u8])> {
        let (len, rest) = self.data.split_first().filter(|_| self.method == AuthMethod::DIGITAL_SIGNATURE)?;
        rest.split_at_checked(usize::from(*len))
    }

    pub(super) fn parse(mut r: Reader<'_>) -> Result<Authentication, Malformed> {
        let method = AuthMethod(r.u8("Auth Method")?);
        r.array::<3>("RESERVED")?;
        Ok(Authentication { method, data: r.rest().to_vec() })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.octets(&[self.method.0, 0, 0, 0]);
        w.octets(&self.data);
    }
}
