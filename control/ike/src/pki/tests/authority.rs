//! Authorities of tests, and what they issue. Keys are new each time, of P-256 unless it is said; nothing depends on them.

use crate::{
    crypto::signature::PrivateKey,
    pki::{certificate::Certificate, crl::Crl},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SerialNumber,
};
use std::sync::Arc;
use time::OffsetDateTime;

/// When all that is not said otherwise is valid: half a year around it.
pub const NOW: u64 = 1_800_000_000;
const HALF_A_YEAR: u64 = 180 * 86_400;

/// A certificate, and its key.
#[derive(Clone)]
pub struct Holder {
    pub certificate: Certificate,
    params: CertificateParams,
    key: Arc<KeyPair>,
}

/// A second of Unix time.
pub fn at(secs: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(secs as i64).unwrap()
}

/// What is changed of what is issued.
pub type Change<'a> = &'a dyn Fn(&mut CertificateParams);

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Test");
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (at(NOW - HALF_A_YEAR), at(NOW + HALF_A_YEAR));
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// An authority that has issued itself.
pub fn root(name: &str, change: Change<'_>) -> Holder {
    root_of(name, KeyPair::generate().unwrap(), change)
}

/// The same, with a key in PEM.
pub fn root_of(name: &str, key: KeyPair, change: Change<'_>) -> Holder {
    let mut params = authority_params(name);
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    Holder { certificate: Certificate::from_der(certificate.der()).unwrap(), params, key: Arc::new(key) }
}

impl Holder {
    /// Issues a certificate for an authority.
    pub fn authority(&self, name: &str, change: Change<'_>) -> Holder {
        let mut params = authority_params(name);
        change(&mut params);
        self.issue(params, KeyPair::generate().unwrap().into())
    }

    /// Issues a certificate for an end, with its name as a domain name too.
    pub fn end(&self, name: &str, change: Change<'_>) -> Holder {
        self.end_of(name, KeyPair::generate().unwrap(), change)
    }

    /// The same, for a key.
    pub fn end_of(&self, name: &str, key: KeyPair, change: Change<'_>) -> Holder {
        let mut params = params(name);
        params.subject_alt_names = CertificateParams::new([name.to_owned()]).unwrap().subject_alt_names;
        change(&mut params);
        self.issue(params, key.into())
    }

    /// Issues another certificate for the key and the name of another authority.
    pub fn cross(&self, other: &Holder) -> Holder {
        self.issue(other.params.clone(), other.key.clone())
    }

    fn issue(&self, params: CertificateParams, key: Arc<KeyPair>) -> Holder {
        let issuer = Issuer::from_params(&self.params, &*self.key);
        let certificate = params.signed_by(&*key, &issuer).unwrap();
        Holder { certificate: Certificate::from_der(certificate.der()).unwrap(), params, key }
    }

    /// Lists what it has revoked.
    pub fn crl(
        &self,
        revoked: &[(&Holder, Option<RevocationReason>)],
        change: &dyn Fn(&mut CertificateRevocationListParams),
    ) -> Crl {
        let revoked = revoked.iter().map(|(holder, reason)| RevokedCertParams {
            serial_number: SerialNumber::from_slice(holder.certificate.serial()),
            revocation_time: at(NOW - 1000),
            reason_code: *reason,
            invalidity_date: None,
        });
        let mut params = CertificateRevocationListParams {
            this_update: at(NOW - 100),
            next_update: at(NOW + 100),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        change(&mut params);
        // Whether it may sign lists is for who reads them.
        let mut issuer = self.params.clone();
        issuer.key_usages = vec![];
        let crl = params.signed_by(&Issuer::from_params(&issuer, &*self.key)).unwrap();
        Crl::from_der(crl.der()).unwrap()
    }

    /// Its key.
    pub fn key(&self) -> PrivateKey {
        PrivateKey::from_der(self.key.serialized_der()).unwrap()
    }
}
