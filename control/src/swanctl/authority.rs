//! Sections in `authorities`: where to ask a certification authority what it has revoked.

use super::{
    authentication::TOKENS,
    key::{Key, Kind, Objection, key},
    value::{AbsolutePath, Credential, Uri},
};

/// A certification authority.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Authority {
    /// Its section's name.
    pub name: String,
    /// Its certificate. A relative path begins in `x509ca`.
    pub cacert: Option<Credential>,
    /// The same, from a file that iked reads by itself.
    pub file: Option<AbsolutePath>,
    /// Where its CRLs are.
    pub crl_uris: Vec<Uri>,
    /// Where its OCSP responders are.
    pub ocsp_uris: Vec<Uri>,
    /// What stands before the hash of a certificate to make its URI (RFC 7296 §3.6).
    pub cert_uri_base: Option<Uri>,
}

impl Kind for Authority {
    const KEYS: &'static [Key<Authority>] = &[
        key!(Authority.cacert = ""),
        key!(Authority.file = ""),
        key!(Authority "handle" ignores &[], TOKENS),
        key!(Authority "slot" ignores &[], TOKENS),
        key!(Authority "module" ignores &[], TOKENS),
        key!(Authority.crl_uris = ""),
        key!(Authority.ocsp_uris = ""),
        key!(Authority.cert_uri_base = ""),
    ];

    fn check(&self, section: &str) -> Result<(), Objection> {
        match (&self.cacert, &self.file) {
            (None, None) => Err(Objection::missing(section, "cacert", "cacert = ca.pem")),
            (Some(_), Some(_)) => Err(Objection::Contradiction {
                section: section.to_owned(),
                why: "it has cacert and file; leave one out".to_owned(),
            }),
            _ => Ok(()),
        }
    }
}
