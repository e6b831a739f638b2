//! Whether a certificate was taken back, as far as that is known (RFC 5280 §6.3).

use super::{BadCertificate, Wrong, certificate::Certificate, crl::Crl, ocsp::OcspResponse};

pub use x509_cert::ext::pkix::CrlReason as Reason;

/// What must be known of each certificate of a chain but the anchor's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Revocation {
    /// That it is not revoked.
    Strict,
    /// The same, if it says where that can be known.
    IfUri,
    /// Nothing; but none may be that is known to be revoked.
    #[default]
    Relaxed,
}

/// What is known of a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It was not revoked.
    Good,
    /// It was.
    Revoked(Reason),
    /// Nothing.
    Unknown,
}

impl Revocation {
    /// Whether a certificate is to be believed, by what its issuer says.
    pub(super) fn check<'a>(
        self,
        certificate: &Certificate,
        issuer: &Certificate,
        said: impl Iterator<Item = &'a Said>,
        now_secs: u64,
    ) -> Result<(), BadCertificate> {
        let has_uri = certificate.crl_uris().chain(certificate.ocsp_uris()).next().is_some();
        let needs = match self {
            Revocation::Strict => true,
            Revocation::IfUri => has_uri,
            Revocation::Relaxed => false,
        };
        match status(certificate, issuer, said, now_secs) {
            Status::Revoked(reason) => Err(Wrong::Revoked(reason).of(certificate)),
            Status::Unknown if needs => Err(Wrong::Unknown.of(certificate)),
            _ => Ok(()),
        }
    }
}

/// What authorities say of certificates. Nothing here says that it is to be believed.
#[derive(Clone, Debug)]
pub enum Said {
    /// Which they have revoked.
    Crl(Crl),
    /// Of single ones.
    Ocsp(OcspResponse),
}

/// What is said of a certificate: a bad word of any is the last.
fn status<'a>(
    certificate: &Certificate,
    issuer: &Certificate,
    said: impl Iterator<Item = &'a Said>,
    now_secs: u64,
) -> Status {
    let said = said.map(|said| match said {
        Said::Crl(list) => list.status(certificate, issuer, now_secs),
        Said::Ocsp(response) => response.status(certificate, issuer, now_secs),
    });
    said.fold(Status::Unknown, |before, now| match (before, now) {
        (Status::Revoked(_), _) | (_, Status::Unknown) => before,
        (_, now) => now,
    })
}
