//! Lists of what an authority has revoked (RFC 5280 §5), whole ones of its own certificates.

use super::{
    certificate::{Certificate, from_pem},
    distinguished_name::DistinguishedName,
    revocation::{Reason, Status},
    signed::Signed,
};
use const_oid::{
    AssociatedOid, ObjectIdentifier,
    db::rfc5280::{ID_CE_CRL_REASONS, ID_CE_ISSUING_DISTRIBUTION_POINT},
};
use der::Decode;
use std::{collections::HashMap, fmt, sync::Arc};
use x509_cert::{
    crl::{CertificateList, RevokedCert},
    ext::{
        Extension, Extensions,
        pkix::{
            KeyUsage,
            crl::IssuingDistributionPoint,
            name::{DistributionPointName, GeneralName},
        },
    },
};

/// Why octets are no list that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCrl {
    /// It is none.
    #[error("a CRL cannot be read")]
    Unreadable,
    /// An extension that must be understood, and is not: that of a delta CRL is one.
    #[error("a CRL has extension {0}, which is critical and not known")]
    Critical(ObjectIdentifier),
    /// It is not of all reasons, or of certificates of other issuers.
    #[error("a CRL is indirect, or not of all reasons")]
    Partial,
}

/// A list. Nothing here says that it is to be believed.
#[derive(Clone)]
pub struct Crl(Arc<Content>);

struct Content {
    signed: Signed,
    issuer: DistinguishedName,
    this_update: u64,
    next_update: Option<u64>,
    scope: Scope,
    revoked: HashMap<Vec<u8>, Reason>,
}

/// Of which certificates a list is.
#[derive(Default)]
struct Scope {
    only_ends: bool,
    only_authorities: bool,
    /// Those that name one of these.
    names: Option<Vec<GeneralName>>,
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crl({})", self.0.issuer)
    }
}

impl Crl {
    /// Reads one in DER.
    pub fn from_der(octets: &[u8]) -> Result<Crl, BadCrl> {
        let signed = Signed::read(octets).map_err(|_| BadCrl::Unreadable)?;
        let read: CertificateList = Decode::from_der(octets).map_err(|_| BadCrl::Unreadable)?;
        let list = read.tbs_cert_list;
        if list.signature != read.signature_algorithm {
            return Err(BadCrl::Unreadable);
        }
        let revoked = list.revoked_certificates.unwrap_or_default();
        let revoked =
            revoked.into_iter().map(|entry| Ok((entry.serial_number.as_bytes().to_vec(), reason(&entry)?)));
        let content = Content {
            signed,
            issuer: DistinguishedName::of(list.issuer.as_ref()).ok_or(BadCrl::Unreadable)?,
            this_update: list.this_update.to_unix_duration().as_secs(),
            next_update: list.next_update.map(|time| time.to_unix_duration().as_secs()),
            scope: Scope::read(list.crl_extensions.unwrap_or_default())?,
            revoked: revoked.collect::<Result<_, _>>()?,
        };
        Ok(Crl(Arc::new(content)))
    }

    /// Reads a file: all that are in it in PEM, or one in DER.
    pub fn from_file(octets: &[u8]) -> Result<Vec<Crl>, BadCrl> {
        let all = from_pem(octets, &["X509 CRL"]).unwrap_or_else(|| vec![octets.to_vec()]);
        all.iter().map(|octets| Crl::from_der(octets)).collect()
    }

    /// Whose list it is.
    pub fn issuer(&self) -> &DistinguishedName {
        &self.0.issuer
    }

    /// The second of Unix time from which on there is a newer one.
    pub fn next_update(&self) -> Option<u64> {
        self.0.next_update
    }

    /// What it says of a certificate of an issuer.
    pub(super) fn status(&self, certificate: &Certificate, issuer: &Certificate, now_secs: u64) -> Status {
        let list = &self.0;
        let is_of = issuer.subject().is(&list.issuer)
            && list.scope.has(certificate)
            && issuer.may(KeyUsage::crl_sign)
            && list.this_update <= now_secs
            && list.signed.verify(issuer.key()).is_ok();
        match list.revoked.get(certificate.serial()).filter(|_| is_of) {
            Some(reason) => Status::Revoked(*reason),
            // An old list still says what is revoked, and no longer what is not.
            None if is_of && list.next_update.is_none_or(|next| now_secs <= next) => Status::Good,
            None => Status::Unknown,
        }
    }
}

/// Why an entry is there.
fn reason(entry: &RevokedCert) -> Result<Reason, BadCrl> {
    let extensions = entry.crl_entry_extensions.as_deref().unwrap_or_default();
    let is_unknown = |e: &&Extension| e.critical && e.extn_id != ID_CE_CRL_REASONS;
    if let Some(unknown) = extensions.iter().find(is_unknown) {
        return Err(BadCrl::Critical(unknown.extn_id));
    }
    let reason = extensions.iter().find(|e| e.extn_id == Reason::OID);
    let reason = reason.map(|e| Reason::from_der(e.extn_value.as_bytes()).map_err(|_| BadCrl::Unreadable));
    reason.unwrap_or(Ok(Reason::Unspecified))
}

impl Scope {
    fn read(extensions: Extensions) -> Result<Scope, BadCrl> {
        let mut scope = Scope::default();
        for extension in extensions {
            match extension.extn_id {
                ID_CE_ISSUING_DISTRIBUTION_POINT => {
                    let point = IssuingDistributionPoint::from_der(extension.extn_value.as_bytes())
                        .map_err(|_| BadCrl::Unreadable)?;
                    if point.indirect_crl
                        || point.only_some_reasons.is_some()
                        || point.only_contains_attribute_certs
                    {
                        return Err(BadCrl::Partial);
                    }
                    scope.only_ends = point.only_contains_user_certs;
                    scope.only_authorities = point.only_contains_ca_certs;
                    scope.names = match point.distribution_point {
                        Some(DistributionPointName::FullName(names)) => Some(names),
                        Some(_) => return Err(BadCrl::Partial),
                        None => None,
                    };
                }
                id if extension.critical => return Err(BadCrl::Critical(id)),
                _ => {}
            }
        }
        Ok(scope)
    }

    /// RFC 5280 §6.3.3 b 2
    fn has(&self, certificate: &Certificate) -> bool {
        let is_of_kind = match certificate.is_authority() {
            true => !self.only_ends,
            false => !self.only_authorities,
        };
        let is_named =
            |names: &Vec<GeneralName>| certificate.crl_names().iter().any(|name| names.contains(name));
        is_of_kind && self.names.as_ref().is_none_or(is_named)
    }
}
