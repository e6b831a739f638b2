//! Certificates of X.509 (RFC 5280 §4), and whom they prove somebody to be (RFC 4945 §3.1).

use super::{BadCertificate, Wrong, distinguished_name::DistinguishedName, signed::Signed};
use crate::{
    crypto::signature::{PublicKey, Scheme},
    identity::IdPattern,
    message::{IdType, Identification},
};
use const_oid::{
    AssociatedOid, ObjectIdentifier,
    db::rfc5280::{
        ANY_EXTENDED_KEY_USAGE, ID_CE_BASIC_CONSTRAINTS, ID_CE_CERTIFICATE_POLICIES, ID_CE_EXT_KEY_USAGE,
        ID_CE_INHIBIT_ANY_POLICY, ID_CE_KEY_USAGE, ID_CE_NAME_CONSTRAINTS, ID_CE_POLICY_MAPPINGS,
        ID_CE_SUBJECT_ALT_NAME, ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH,
    },
};
use der::{Decode, Encode};
use pem_rfc7468::Decoder;
use sha1::{Digest, Sha1};
use std::{fmt, sync::Arc};
use x509_cert::{
    TbsCertificate,
    ext::pkix::{
        AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies,
        CrlDistributionPoints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName,
        SubjectKeyIdentifier,
        name::{DistributionPointName, GeneralName},
    },
};

/// Critical extensions that are understood. Those of policies are, since none is asked for: they could only narrow which
/// there is, and policyConstraints, which could demand one, is not among them.
const KNOWN: [ObjectIdentifier; 8] = [
    ID_CE_BASIC_CONSTRAINTS,
    ID_CE_KEY_USAGE,
    ID_CE_EXT_KEY_USAGE,
    ID_CE_SUBJECT_ALT_NAME,
    ID_CE_NAME_CONSTRAINTS,
    ID_CE_CERTIFICATE_POLICIES,
    ID_CE_POLICY_MAPPINGS,
    ID_CE_INHIBIT_ANY_POLICY,
];

/// What certificates of ends of IKE are for, if they say so: any; ipsecIKE (RFC 4945 §5.1.3.12), which is not all that
/// authorities give; those before it; and iKEIntermediate.
const PURPOSES: [ObjectIdentifier; 8] = [
    ANY_EXTENDED_KEY_USAGE,
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.17"),
    ID_KP_SERVER_AUTH,
    ID_KP_CLIENT_AUTH,
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.5"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.6"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.7"),
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.8.2.2"),
];

/// anyPolicy (RFC 5280 §4.2.1.4).
const ANY_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32.0");

/// A certificate. Nothing here says that it is to be believed.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<Content>);

#[derive(PartialEq, Eq)]
struct Content {
    der: Vec<u8>,
    signed: Signed,
    has_one_algorithm: bool,
    serial: Vec<u8>,
    subject: DistinguishedName,
    issuer: DistinguishedName,
    not_before: u64,
    not_after: u64,
    key: PublicKey,
    key_hash: [u8; 20],
    key_bits: Vec<u8>,
    key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
    /// Of authorities: how many of them may be below it.
    authority: Option<Option<u8>>,
    usage: Option<KeyUsage>,
    purposes: Option<Vec<ObjectIdentifier>>,
    names: Vec<GeneralName>,
    constraints: Option<NameConstraints>,
    crl_names: Vec<GeneralName>,
    ocsp_uris: Vec<String>,
    policies: Vec<ObjectIdentifier>,
    inhibits_any_policy: bool,
    unknown: Option<ObjectIdentifier>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.subject())
    }
}

impl Certificate {
    /// Reads one in DER.
    pub fn from_der(octets: &[u8]) -> Result<Certificate, BadCertificate> {
        let unreadable = |field| BadCertificate {
            subject: "that cannot be read".to_owned(),
            wrong: Wrong::Unreadable(field),
        };
        let signed = Signed::read(octets).map_err(|_| unreadable("Certificate"))?;
        let read = x509_cert::Certificate::from_der(octets).map_err(|_| unreadable("tbsCertificate"))?;
        let tbs = read.tbs_certificate();
        let subject = DistinguishedName::of(tbs.subject().as_ref()).ok_or_else(|| unreadable("subject"))?;
        let bad = |wrong| BadCertificate { subject: subject.to_string(), wrong };
        let unreadable = |field| bad(Wrong::Unreadable(field));
        let issuer = DistinguishedName::of(tbs.issuer().as_ref()).ok_or_else(|| unreadable("issuer"))?;
        let spki = tbs.subject_public_key_info();
        let spki_der = spki.to_der().map_err(|_| unreadable("subjectPublicKeyInfo"))?;
        let key = PublicKey::from_spki(&spki_der).map_err(|error| bad(Wrong::Key(error)))?;
        let of = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        let authority = extension::<BasicConstraints>(tbs).ok_or_else(|| unreadable("basicConstraints"))?;
        let authority_key_id =
            extension::<AuthorityKeyIdentifier>(tbs).ok_or_else(|| unreadable("authorityKeyIdentifier"))?;
        let key_id =
            extension::<SubjectKeyIdentifier>(tbs).ok_or_else(|| unreadable("subjectKeyIdentifier"))?;
        let purposes = extension::<ExtendedKeyUsage>(tbs).ok_or_else(|| unreadable("extKeyUsage"))?;
        let names = extension::<SubjectAltName>(tbs).ok_or_else(|| unreadable("subjectAltName"))?;
        let points =
            extension::<CrlDistributionPoints>(tbs).ok_or_else(|| unreadable("cRLDistributionPoints"))?;
        let access =
            extension::<AuthorityInfoAccessSyntax>(tbs).ok_or_else(|| unreadable("authorityInfoAccess"))?;
        let policies =
            extension::<CertificatePolicies>(tbs).ok_or_else(|| unreadable("certificatePolicies"))?;
        let unknown = tbs.extensions().into_iter().flatten();
        let unknown = unknown.filter(|e| e.critical).map(|e| e.extn_id).find(|id| !KNOWN.contains(id));
        let content = Content {
            der: octets.to_vec(),
            signed,
            has_one_algorithm: tbs.signature() == read.signature_algorithm(),
            serial: tbs.serial_number().as_bytes().to_vec(),
            issuer,
            not_before: of(tbs.validity().not_before),
            not_after: of(tbs.validity().not_after),
            key,
            key_hash: Sha1::digest(&spki_der).into(),
            key_bits: spki.subject_public_key.raw_bytes().to_vec(),
            key_id: key_id.map(|id| id.0.as_bytes().to_vec()),
            authority_key_id: authority_key_id
                .and_then(|id| id.key_identifier)
                .map(|id| id.as_bytes().to_vec()),
            authority: authority.filter(|it| it.ca).map(|it| it.path_len_constraint),
            usage: extension(tbs).ok_or_else(|| unreadable("keyUsage"))?,
            purposes: purposes.map(|purposes| purposes.0),
            names: names.map(|names| names.0).unwrap_or_default(),
            constraints: extension(tbs).ok_or_else(|| unreadable("nameConstraints"))?,
            crl_names: points.map(crl_names).unwrap_or_default(),
            ocsp_uris: access.map(ocsp_uris).unwrap_or_default(),
            policies: policies.into_iter().flat_map(|all| all.0).map(|of| of.policy_identifier).collect(),
            inhibits_any_policy: tbs
                .extensions()
                .is_some_and(|all| all.iter().any(|e| e.extn_id == ID_CE_INHIBIT_ANY_POLICY)),
            unknown,
            subject,
        };
        Ok(Certificate(Arc::new(content)))
    }

    /// Reads a file: all that are in it in PEM, or one in DER.
    pub fn from_file(octets: &[u8]) -> Result<Vec<Certificate>, BadCertificate> {
        from_pem(octets, &["CERTIFICATE", "X509 CERTIFICATE"])
            .unwrap_or_else(|| vec![octets.to_vec()])
            .iter()
            .map(|octets| Certificate::from_der(octets))
            .collect()
    }

    /// It in DER.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// Whose it is.
    pub fn subject(&self) -> &DistinguishedName {
        &self.0.subject
    }

    /// Who says so.
    pub fn issuer(&self) -> &DistinguishedName {
        &self.0.issuer
    }

    /// Which one of its issuer it is: the octets of its INTEGER.
    pub fn serial(&self) -> &[u8] {
        &self.0.serial
    }

    /// The key of its subject.
    pub fn key(&self) -> &PublicKey {
        &self.0.key
    }

    /// The SHA-1 hash of its SubjectPublicKeyInfo, which names an authority in CERTREQ (RFC 7296 §3.7).
    pub fn key_hash(&self) -> &[u8; 20] {
        &self.0.key_hash
    }

    /// The seconds of Unix time from which and to which it is valid.
    pub fn validity(&self) -> (u64, u64) {
        (self.0.not_before, self.0.not_after)
    }

    /// Where lists of what its issuer has revoked can be had.
    pub fn crl_uris(&self) -> impl Iterator<Item = &str> {
        self.0.crl_names.iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_ref()),
            _ => None,
        })
    }

    /// Where it can be asked whether it is revoked.
    pub fn ocsp_uris(&self) -> impl Iterator<Item = &str> {
        self.0.ocsp_uris.iter().map(String::as_str)
    }

    /// Whether it is of this identity: its subject, or one of its subjectAltNames (RFC 4945 §3.1).
    pub fn proves(&self, id: &Identification) -> bool {
        let data = &id.data[..];
        let is = |name: &GeneralName| match (id.kind, name) {
            // RFC 4945 §3.1.2, §3.1.3
            (IdType::ID_FQDN, GeneralName::DnsName(dns)) => dns.as_bytes().eq_ignore_ascii_case(data),
            (IdType::ID_RFC822_ADDR, GeneralName::Rfc822Name(mail)) => {
                mail.as_bytes().eq_ignore_ascii_case(data)
            }
            // RFC 4945 §3.1.1
            (IdType::ID_IPV4_ADDR, GeneralName::IpAddress(ip)) => data.len() == 4 && ip.as_bytes() == data,
            (IdType::ID_IPV6_ADDR, GeneralName::IpAddress(ip)) => data.len() == 16 && ip.as_bytes() == data,
            _ => false,
        };
        match id.kind {
            // RFC 4945 §3.1.5
            IdType::ID_DER_ASN1_DN => {
                !self.0.subject.is_empty()
                    && DistinguishedName::from_der(data).is_some_and(|name| name.is(&self.0.subject))
            }
            _ => self.0.names.iter().any(is),
        }
    }

    /// Whether it is of whom is asked for, as [`Certificate::proves`] has it.
    pub(super) fn is_like(&self, pattern: &IdPattern) -> bool {
        let subject = || Identification::new(IdType::ID_DER_ASN1_DN, self.0.subject.der());
        pattern.fits(&subject()).is_some() || pattern.identity().is_some_and(|id| self.proves(&id))
    }

    /// Whether it has a policy; or any, if that counts.
    pub(super) fn has_policy(&self, policy: ObjectIdentifier, counts_any: bool) -> bool {
        let is_it = |of: &ObjectIdentifier| *of == policy || counts_any && *of == ANY_POLICY;
        self.0.policies.iter().any(is_it)
    }

    pub(super) fn inhibits_any_policy(&self) -> bool {
        self.0.inhibits_any_policy
    }

    /// The bits of its key, of which OCSP has hashes.
    pub(super) fn key_bits(&self) -> &[u8] {
        &self.0.key_bits
    }

    pub(super) fn has_purpose(&self, purpose: ObjectIdentifier) -> bool {
        self.0.purposes.as_ref().is_some_and(|purposes| purposes.contains(&purpose))
    }

    pub(super) fn names(&self) -> &[GeneralName] {
        &self.0.names
    }

    pub(super) fn constraints(&self) -> Option<&NameConstraints> {
        self.0.constraints.as_ref()
    }

    pub(super) fn crl_names(&self) -> &[GeneralName] {
        &self.0.crl_names
    }

    /// The bits of keyUsage; all are set where it is not there.
    pub(super) fn may(&self, usage: fn(&KeyUsage) -> bool) -> bool {
        self.0.usage.as_ref().is_none_or(usage)
    }

    /// Whether its authority may be anybody of this name and key: both are only hints at whom to try.
    pub(super) fn may_be_of(&self, issuer: &Certificate) -> bool {
        let is_key = match (&self.0.authority_key_id, &issuer.0.key_id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        is_key && issuer.subject().is(self.issuer())
    }

    /// RFC 5280 §6.1: of an authority for itself.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject().is(self.issuer())
    }

    pub(super) fn is_authority(&self) -> bool {
        self.0.authority.is_some()
    }

    /// What holds of it alone: the time, and that it is understood (RFC 5280 §6.1.3 a 2, §6.1.4 o).
    pub(super) fn check(&self, now_secs: u64) -> Result<(), BadCertificate> {
        let content = &self.0;
        let wrong = match content.unknown {
            Some(id) => Wrong::Critical(id),
            None if now_secs < content.not_before => Wrong::NotYet(content.not_before),
            None if now_secs > content.not_after => Wrong::Expired(content.not_after),
            None => return Ok(()),
        };
        Err(wrong.of(self))
    }

    /// What holds of who signs AUTH with it.
    pub(super) fn check_end(&self) -> Result<(), BadCertificate> {
        // RFC 4945 §5.1.3.2
        if !self.may(|usage| usage.digital_signature() || usage.non_repudiation()) {
            return Err(Wrong::KeyUsage("signatures").of(self));
        }
        let is_for_ike = |purposes: &Vec<_>| purposes.iter().any(|purpose| PURPOSES.contains(purpose));
        match self.0.purposes.as_ref().is_none_or(is_for_ike) {
            true => Ok(()),
            false => Err(Wrong::ExtendedKeyUsage.of(self)),
        }
    }

    /// What holds of an authority with so many others below it (RFC 5280 §6.1.4 k to n).
    pub(super) fn check_authority(&self, below: usize) -> Result<(), BadCertificate> {
        let wrong = match self.0.authority {
            None => Wrong::NotAuthority,
            Some(Some(most)) if below > usize::from(most) => Wrong::PathLength(most),
            Some(_) if !self.may(KeyUsage::key_cert_sign) => Wrong::KeyUsage("certificates"),
            Some(_) => return Ok(()),
        };
        Err(wrong.of(self))
    }

    /// How its authority says to have signed it.
    pub(super) fn scheme(&self) -> Option<Scheme> {
        self.0.signed.scheme()
    }

    /// Whether an authority has signed it.
    pub(super) fn verify(&self, issuer: &Certificate) -> Result<(), BadCertificate> {
        // RFC 5280 §4.1.1.2
        if !self.0.has_one_algorithm {
            return Err(Wrong::Algorithm.of(self));
        }
        self.0.signed.verify(issuer.key()).map_err(|wrong| wrong.of(self))
    }
}

/// An extension, if it is there; `None` if it cannot be read, or is there twice.
fn extension<'a, T: Decode<'a, Error = der::Error> + AssociatedOid>(
    tbs: &'a TbsCertificate,
) -> Option<Option<T>> {
    tbs.get_extension::<T>().ok().map(|found| found.map(|(_, extension)| extension))
}

/// Names of lists that have all reasons, and are of the issuer itself.
fn crl_names(points: CrlDistributionPoints) -> Vec<GeneralName> {
    let points = points.0.into_iter().filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
    points
        .filter_map(|point| match point.distribution_point {
            Some(DistributionPointName::FullName(names)) => Some(names),
            _ => None,
        })
        .flatten()
        .collect()
}

fn ocsp_uris(access: AuthorityInfoAccessSyntax) -> Vec<String> {
    let ocsp = access.0.into_iter().filter(|a| a.access_method == const_oid::db::rfc5280::ID_AD_OCSP);
    ocsp.filter_map(|a| match a.access_location {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    })
    .collect()
}

/// The blocks of a PEM file that have one of these labels, as far as they can be read; `None` if it is no PEM.
pub(crate) fn from_pem(octets: &[u8], labels: &[&str]) -> Option<Vec<Vec<u8>>> {
    const BEGIN: &str = "-----BEGIN ";
    let text = std::str::from_utf8(octets).ok().filter(|text| text.contains(BEGIN))?;
    let blocks = text.match_indices(BEGIN).filter_map(|(at, _)| {
        let block = &text[at..];
        let label = block[BEGIN.len()..].split("-----").next()?;
        let end = block.find("-----END ").filter(|_| labels.contains(&label))?;
        let end = block[end..].find('\n').map_or(block.len(), |line| end + line);
        let mut pem = Decoder::new_detect_wrap(&block.as_bytes()[..end]).ok()?;
        let mut octets = Vec::with_capacity(pem.remaining_len());
        // What is no base64 cannot be read as DER either, which says so.
        let _ = pem.decode_to_end(&mut octets);
        Some(octets)
    });
    Some(blocks.collect())
}
