//! Certificates: what they say, who they prove somebody to be, and whether that is to be believed.
//!
//! ```text
//!  distinguished_name   names of X.500, as people write them and as certificates have them
//!  certificate          a certificate, read and not yet believed
//!  constraint           names that an authority may speak for
//!  chain                from an end's certificate to an authority that is trusted
//!  credential           what an end signs with itself
//!  revocation           whether it was taken back: by lists (crl), and by answers (ocsp)
//! ```
//!
//! # Dangers
//! Certificates come from anybody, before anything is authenticated. A chain is searched with an end to its length and to
//! how many signatures are verified.

pub mod certificate;
pub mod chain;
mod constraint;
pub mod credential;
pub mod crl;
pub mod distinguished_name;
pub mod ocsp;
pub mod revocation;
mod signed;

#[cfg(test)]
pub(crate) mod tests;

use const_oid::ObjectIdentifier;

/// Which certificate is not to be believed, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("certificate '{subject}': {wrong}")]
pub struct BadCertificate {
    /// Whose it is.
    pub subject: String,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a certificate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Wrong {
    /// This field cannot be read.
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
    /// Its key is of no kind that is known.
    #[error("subjectPublicKeyInfo: {0}")]
    Key(crate::crypto::signature::SignatureError),
    /// An extension that must be understood, and is not.
    #[error("extension {0} is critical, and not known")]
    Critical(ObjectIdentifier),
    /// It is not valid yet, until this second of Unix time.
    #[error("notBefore: it is not valid before {}", date(*.0))]
    NotYet(u64),
    /// It is no longer valid since this second of Unix time.
    #[error("notAfter: it has expired at {}", date(*.0))]
    Expired(u64),
    /// It has issued another, and is of no authority.
    #[error("basicConstraints: it is not of an authority")]
    NotAuthority,
    /// There are more certificates below it than it allows.
    #[error("pathLenConstraint: there are more than {0} authorities below it")]
    PathLength(u8),
    /// Its key is not for this.
    #[error("keyUsage: its key is not for {0}")]
    KeyUsage(&'static str),
    /// It is for nothing that has to do with IKE.
    #[error("extKeyUsage: it is for none of ipsecIKE, serverAuth and clientAuth")]
    ExtendedKeyUsage,
    /// An authority above may not speak for this name of it.
    #[error("nameConstraints of its authority do not allow {0}")]
    Name(String),
    /// It is not signed as its authority would.
    #[error("signatureAlgorithm: it is not known, or not the same inside")]
    Algorithm,
    /// Its authority has not signed it.
    #[error("signatureValue: it is not of its issuer")]
    Signature,
    /// Its key is not as the configuration demands.
    #[error("its key of {0} bits is not what `auth` of the connection demands")]
    WeakKey(usize),
    /// Nor is the signature of its authority.
    #[error("its authority's signature is not what `auth` of the connection demands")]
    WeakSignature,
    /// Others are named, and it is none of them.
    #[error("certs: it is none of those that the connection's `remote` names")]
    NotPinned,
    /// None of the authorities above it is who is asked for.
    #[error("ca_id: none of its authorities is {0}")]
    Authority(String),
    /// It does not have a policy that is asked for.
    #[error("certificatePolicies: it does not have {0}")]
    Policy(ObjectIdentifier),
    /// Nobody who is trusted has issued it, as far as is known.
    #[error("issuer: '{0}' is not known")]
    NoIssuer(String),
    /// Authorities issue each other, and there is no end to it.
    #[error("the chain from it is too long")]
    TooLong,
    /// It was taken back.
    #[error("it is revoked: {0:?}")]
    Revoked(revocation::Reason),
    /// Nobody says that it was not taken back.
    #[error("nothing says that it is not revoked")]
    Unknown,
    /// It is not of whom it should be.
    #[error("subjectAltName: it is not of {0}")]
    Identity(String),
}

/// Seconds since 1970, for people.
fn date(unix_secs: u64) -> String {
    let date = der::DateTime::from_unix_duration(std::time::Duration::from_secs(unix_secs));
    date.map_or(unix_secs.to_string(), |date| date.to_string())
}

impl Wrong {
    fn of(self, certificate: &certificate::Certificate) -> BadCertificate {
        BadCertificate { subject: certificate.subject().to_string(), wrong: self }
    }
}
