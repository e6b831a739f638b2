//! What an authority says of certificates when it is asked (RFC 6960), from octets that somebody else has asked for, or that
//! the peer has sent along (RFC 4806).

use super::{
    certificate::Certificate,
    revocation::{Reason, Status},
    signed::Signed,
};
use const_oid::{
    ObjectIdentifier,
    db::rfc5280::ID_KP_OCSP_SIGNING,
    db::rfc5912::{ID_SHA_1, ID_SHA_256},
};
use der::{
    Any, Decode, Encode, Reader, Sequence, SliceReader, Tag, TagNumber, Tagged,
    asn1::{BitString, ContextSpecific, GeneralizedTime, OctetString},
};
use pkcs8::spki::AlgorithmIdentifierOwned;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::{fmt, sync::Arc};
use x509_cert::{Version, ext::Extensions, serial_number::SerialNumber};

/// The one form of responses that there is.
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");

/// How long a response holds that does not say it.
const WITHOUT_NEXT_SECS: u64 = 300;

/// Certificates of a response that are tried, at most.
const MOST_RESPONDERS: usize = 4;

/// Why octets are no response that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadResponse {
    /// They are none.
    #[error("an OCSP response cannot be read")]
    Unreadable,
    /// It says only that there is no answer (RFC 6960 §4.2.1).
    #[error("an OCSP response says that there is no answer")]
    NoAnswer,
    /// An extension that must be understood, and is not.
    #[error("an OCSP response has an extension that is critical and not known")]
    Critical,
}

/// A response. Nothing here says that it is to be believed.
#[derive(Clone)]
pub struct OcspResponse(Arc<Content>);

struct Content {
    signed: Signed,
    singles: Vec<Single>,
    responders: Vec<Certificate>,
}

/// What is said of a certificate.
struct Single {
    id: CertId,
    status: Status,
    this_update: u64,
    next_update: u64,
}

#[derive(Sequence)]
struct ResponseBytes {
    kind: ObjectIdentifier,
    response: OctetString,
}

#[derive(Sequence)]
struct Basic {
    data: ResponseData,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    certificates: Option<Vec<Any>>,
}

#[derive(Sequence)]
struct ResponseData {
    #[asn1(context_specific = "0", default = "Default::default")]
    version: Version,
    responder: Any,
    produced_at: GeneralizedTime,
    responses: Vec<SingleResponse>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Sequence)]
struct SingleResponse {
    id: CertId,
    status: Any,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Sequence)]
struct CertId {
    hash: AlgorithmIdentifierOwned,
    name_hash: OctetString,
    key_hash: OctetString,
    serial: SerialNumber,
}

impl fmt::Debug for OcspResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OcspResponse({} certificates)", self.0.singles.len())
    }
}

impl OcspResponse {
    /// Reads one in DER.
    pub fn from_der(octets: &[u8]) -> Result<OcspResponse, BadResponse> {
        let unreadable = |_| BadResponse::Unreadable;
        let (status, bytes) = outer(octets).map_err(unreadable)?;
        let bytes = bytes.filter(|bytes| status == 0 && bytes.kind == BASIC).ok_or(BadResponse::NoAnswer)?;
        let basic = bytes.response.as_bytes();
        let signed = Signed::read(basic).map_err(unreadable)?;
        let Basic { data, certificates, .. } = Basic::from_der(basic).map_err(unreadable)?;
        let mut extensions = data.extensions.into_iter().flatten();
        if extensions.any(|extension| extension.critical) {
            return Err(BadResponse::Critical);
        }
        let singles = data.responses.into_iter().map(Single::read).collect::<Result<_, _>>()?;
        let certificates = certificates.into_iter().flatten().take(MOST_RESPONDERS);
        let responders = certificates.filter_map(|any| Certificate::from_der(&any.to_der().ok()?).ok());
        Ok(OcspResponse(Arc::new(Content { signed, singles, responders: responders.collect() })))
    }

    /// What it says of a certificate of an issuer. It may say several things of one; a bad word is the last.
    pub(super) fn status(&self, certificate: &Certificate, issuer: &Certificate, now_secs: u64) -> Status {
        let is_of = |single: &&Single| single.id.is_of(certificate, issuer) && single.this_update <= now_secs;
        let said = self.0.singles.iter().filter(is_of).map(|single| match single.status {
            // An old one still says what is revoked, and no longer what is not.
            Status::Good if now_secs > single.next_update => Status::Unknown,
            status => status,
        });
        let said = said.fold(Status::Unknown, |before, now| match (before, now) {
            (Status::Revoked(_), _) | (_, Status::Unknown) => before,
            (_, now) => now,
        });
        if said != Status::Unknown && self.is_by(issuer, now_secs) { said } else { Status::Unknown }
    }

    /// Whether it is signed by an issuer, or by whom it lets (RFC 6960 §4.2.2.2).
    fn is_by(&self, issuer: &Certificate, now_secs: u64) -> bool {
        let may = |responder: &&Certificate| {
            responder.has_purpose(ID_KP_OCSP_SIGNING)
                && responder.check(now_secs).is_ok()
                && responder.may_be_of(issuer)
                && responder.verify(issuer).is_ok()
        };
        let signs = |by: &Certificate| self.0.signed.verify(by.key()).is_ok();
        signs(issuer) || self.0.responders.iter().filter(may).any(signs)
    }
}

/// OCSPResponse: its status, and what is in it.
fn outer(octets: &[u8]) -> der::Result<(u8, Option<ResponseBytes>)> {
    let mut reader = SliceReader::new(octets)?;
    let outer = reader.sequence(|r| {
        let status: Any = r.decode()?;
        let bytes = ContextSpecific::<ResponseBytes>::decode_explicit(r, TagNumber(0))?;
        let [value] = status.value() else { return Err(Tag::Enumerated.value_error().into()) };
        status.tag().assert_eq(Tag::Enumerated)?;
        Ok::<_, der::Error>((*value, bytes.map(|bytes| bytes.value)))
    })?;
    reader.finish()?;
    Ok(outer)
}

impl Single {
    fn read(single: SingleResponse) -> Result<Single, BadResponse> {
        if single.extensions.into_iter().flatten().any(|extension| extension.critical) {
            return Err(BadResponse::Critical);
        }
        let secs = |time: GeneralizedTime| time.to_unix_duration().as_secs();
        let this_update = secs(single.this_update);
        Ok(Single {
            id: single.id,
            status: status(&single.status).map_err(|_| BadResponse::Unreadable)?,
            this_update,
            next_update: single.next_update.map_or(this_update.saturating_add(WITHOUT_NEXT_SECS), secs),
        })
    }
}

/// CertStatus: `[0]` is good, `[1]` is revoked, `[2]` is unknown.
fn status(any: &Any) -> der::Result<Status> {
    match any.tag() {
        Tag::ContextSpecific { number: TagNumber(0), .. } => Ok(Status::Good),
        Tag::ContextSpecific { number: TagNumber(1), .. } => {
            let mut reader = SliceReader::new(any.value())?;
            let _: GeneralizedTime = reader.decode()?;
            let reason = ContextSpecific::<Reason>::decode_explicit(&mut reader, TagNumber(0))?;
            reader.finish()?;
            Ok(Status::Revoked(reason.map_or(Reason::Unspecified, |reason| reason.value)))
        }
        Tag::ContextSpecific { number: TagNumber(2), .. } => Ok(Status::Unknown),
        tag => Err(tag.value_error().into()),
    }
}

impl CertId {
    fn is_of(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        let hash = |octets: &[u8]| match self.hash.oid {
            ID_SHA_1 => Some(Sha1::digest(octets).to_vec()),
            ID_SHA_256 => Some(Sha256::digest(octets).to_vec()),
            _ => None,
        };
        self.serial.as_bytes() == certificate.serial()
            && hash(certificate.issuer().der()).is_some_and(|hash| hash == self.name_hash.as_bytes())
            && hash(issuer.key_bits()).is_some_and(|hash| hash == self.key_hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{
            signature::{Hash, Scheme},
            vectors::seeded,
        },
        pki::tests::authority::{Holder, NOW, root},
    };
    use std::time::Duration;

    #[derive(Sequence)]
    struct Response {
        status: Any,
        #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
        bytes: Option<ResponseBytes>,
    }

    /// A CertStatus in DER, from when it is, and until when.
    type Word<'a> = (&'a [u8], u64, u64);

    fn single(of: &Certificate, issuer: &Certificate, (status, this, next): Word<'_>) -> SingleResponse {
        let hash = |octets: &[u8]| OctetString::new(Sha256::digest(octets).to_vec()).unwrap();
        let time = |secs| GeneralizedTime::from_unix_duration(Duration::from_secs(secs)).unwrap();
        let serial = [&[2, of.serial().len() as u8], of.serial()].concat();
        SingleResponse {
            id: CertId {
                hash: AlgorithmIdentifierOwned { oid: ID_SHA_256, parameters: None },
                name_hash: hash(of.issuer().der()),
                key_hash: hash(issuer.key_bits()),
                serial: SerialNumber::from_der(&serial).unwrap(),
            },
            status: Any::from_der(status).unwrap(),
            this_update: time(this),
            next_update: Some(time(next)),
            extensions: None,
        }
    }

    fn response(responses: Vec<SingleResponse>, by: &Holder) -> OcspResponse {
        let scheme = Scheme::Ecdsa(Hash::Sha256);
        let data = ResponseData {
            version: Version::default(),
            responder: Any::from_der(&[0xa2, 2, 4, 0]).unwrap(),
            produced_at: GeneralizedTime::from_unix_duration(Duration::from_secs(NOW)).unwrap(),
            responses,
            extensions: None,
        };
        let signature = by.key().sign(scheme, &data.to_der().unwrap(), &mut seeded(1)).unwrap();
        let basic = Basic {
            data,
            algorithm: AlgorithmIdentifierOwned::from_der(scheme.algorithm_identifier().unwrap()).unwrap(),
            signature: BitString::from_bytes(&signature).unwrap(),
            certificates: None,
        };
        let response = OctetString::new(basic.to_der().unwrap()).unwrap();
        let bytes = Some(ResponseBytes { kind: BASIC, response });
        let all = Response { status: Any::new(Tag::Enumerated, [0]).unwrap(), bytes };
        OcspResponse::from_der(&all.to_der().unwrap()).unwrap()
    }

    #[test]
    fn what_is_revoked_is_not_good_whatever_else_is_said_of_it() {
        let (root, stranger) = (root("root", &|_| {}), root("root", &|_| {}));
        let end = root.end("gw.example.org", &|_| {});
        let time_of_revocation = [&[0xa1, 17, 0x18, 15], &b"20260101000000Z"[..]].concat();
        let (good, revoked, unknown) = (&[0x80, 0][..], &time_of_revocation[..], &[0x82, 0][..]);
        let now = |status| (status, NOW - 10, NOW + 10);
        let old = |status| (status, NOW - 10, NOW - 1);
        let to_come = |status| (status, NOW + 1, NOW + 10);
        let is_revoked = Status::Revoked(Reason::Unspecified);
        for (words, found) in [
            ([now(good), now(good)], Status::Good),
            ([now(good), now(revoked)], is_revoked),
            ([now(good), old(revoked)], is_revoked),
            ([old(good), now(revoked)], is_revoked),
            ([now(unknown), now(revoked)], is_revoked),
            ([now(good), to_come(revoked)], Status::Good),
            ([now(good), old(good)], Status::Good),
            ([now(good), now(unknown)], Status::Good),
            ([old(good), now(unknown)], Status::Unknown),
            ([old(good), to_come(good)], Status::Unknown),
            ([to_come(good), to_come(revoked)], Status::Unknown),
        ] {
            let [one, other] = words;
            for words in [[one, other], [other, one]] {
                let (of, issuer) = (&end.certificate, &root.certificate);
                let singles = || words.map(|word| single(of, issuer, word)).into();
                assert_eq!(response(singles(), &root).status(of, issuer, NOW), found, "{words:x?}");
                let of_stranger = response(singles(), &stranger).status(of, issuer, NOW);
                assert_eq!(of_stranger, Status::Unknown, "{words:x?}");
            }
        }
    }
}
