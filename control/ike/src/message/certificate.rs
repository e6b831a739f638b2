//! CERT and CERTREQ (RFC 7296 §3.6, §3.7).

use super::{
    Malformed,
    octets::{Reader, Writer},
    registry::registry,
};

registry! {
    /// Forms of certificates, and of what goes with them.
    CertificateEncoding(u8) {
        PKCS7_X509 = 1,
        PGP = 2,
        DNS_SIGNED_KEY = 3,
        X509_SIGNATURE = 4,
        KERBEROS_TOKEN = 6,
        CRL = 7,
        ARL = 8,
        SPKI = 9,
        X509_ATTRIBUTE = 10,
        HASH_AND_URL = 12,
        HASH_AND_URL_BUNDLE = 13,
        OCSP_CONTENT = 14, // RFC 4806
        RAW_PUBLIC_KEY = 15, // RFC 7670
    }
}

/// A certificate, or what goes with one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The form of the data.
    pub encoding: CertificateEncoding,
    /// The Certificate Data.
    pub data: Vec<u8>,
}

impl Certificate {
    pub(super) fn parse(r: Reader<'_>) -> Result<Certificate, Malformed> {
        let (encoding, data) = parse(r)?;
        Ok(Certificate { encoding, data })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.u8(self.encoding.0);
        w.octets(&self.data);
    }
}

/// Of whom certificates are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateRequest {
    /// The form that is wanted.
    pub encoding: CertificateEncoding,
    /// The Certification Authority field; for X.509, see [`CertificateRequest::authorities`].
    pub authority: Vec<u8>,
}

impl CertificateRequest {
    /// The SHA-1 hashes of the public keys of the authorities that are trusted, one behind the other in X.509 requests;
    /// what is behind the last whole one is left out.
    pub fn authorities(&self) -> impl Iterator<Item = &[u8; 20]> {
        self.authority.as_chunks().0.iter()
    }

    pub(super) fn parse(r: Reader<'_>) -> Result<CertificateRequest, Malformed> {
        let (encoding, authority) = parse(r)?;
        Ok(CertificateRequest { encoding, authority })
    }

    pub(super) fn emit(&self, w: &mut Writer) {
        w.u8(self.encoding.0);
        w.octets(&self.authority);
    }
}

fn parse(mut r: Reader<'_>) -> Result<(CertificateEncoding, Vec<u8>), Malformed> {
    let encoding = CertificateEncoding(r.u8("Cert Encoding")?);
    Ok((encoding, r.rest().to_vec()))
}
