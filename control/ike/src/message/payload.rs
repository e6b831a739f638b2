//! Payloads and the chain that they make (RFC 7296 §3.2).

use super::{
    Authentication, Certificate, CertificateRequest, Configuration, Delete, Identification, KeyExchange,
    Malformed, Notify, NotifyType, Oversized, Proposal, Sealed, TrafficSelector, key_exchange,
    octets::{FRAME, Reader, Writer},
    proposal,
    registry::registry,
    traffic_selector,
};
use std::iter;

registry! {
    /// Types of payloads, with the RFCs' signs for them.
    PayloadType(u8) {
        NONE = 0,
        // RFC 2408 §3.1
        SA_V1 = 1,
        KE_V1 = 4,
        ID = 5,
        CERT_V1 = 6,
        CERTREQ_V1 = 7,
        HASH = 8,
        SIG = 9,
        NONCE_V1 = 10,
        N_V1 = 11,
        D_V1 = 12,
        V_V1 = 13,
        ATTRIBUTES = 14, // draft-ietf-ipsec-isakmp-mode-cfg
        NAT_D = 20, // RFC 3947
        NAT_OA = 21,
        NAT_D_DRAFT = 130, // draft-ietf-ipsec-nat-t-ike-03
        NAT_OA_DRAFT = 131,
        FRAGMENT = 132, // of vendors
        SA = 33,
        KE = 34,
        IDI = 35,
        IDR = 36,
        CERT = 37,
        CERTREQ = 38,
        AUTH = 39,
        NONCE = 40,
        N = 41,
        D = 42,
        V = 43,
        TSI = 44,
        TSR = 45,
        SK = 46,
        CP = 47,
        EAP = 48,
        SKF = 53, // RFC 7383 §2.5
        PS = 54, // RFC 8019 §8.2
    }
}

/// The critical bit, beside seven reserved ones.
const CRITICAL: u8 = 0x80;

/// A payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload {
    /// SA: what is proposed, or what was chosen.
    SecurityAssociation(Vec<Proposal>),
    /// KE.
    KeyExchange(KeyExchange),
    /// IDi: who the initiator is.
    IdInitiator(Identification),
    /// IDr: who the responder is.
    IdResponder(Identification),
    /// CERT.
    Certificate(Certificate),
    /// CERTREQ.
    CertificateRequest(CertificateRequest),
    /// AUTH.
    Authentication(Authentication),
    /// Ni or Nr: 16 to 256 random octets.
    Nonce(Vec<u8>),
    /// N.
    Notify(Notify),
    /// D.
    Delete(Delete),
    /// V: the vendor ID.
    VendorId(Vec<u8>),
    /// TSi.
    TsInitiator(Vec<TrafficSelector>),
    /// TSr.
    TsResponder(Vec<TrafficSelector>),
    /// CP.
    Configuration(Configuration),
    /// EAP: a message of EAP (RFC 7296 §3.16).
    Eap(Vec<u8>),
    /// PS: the solution of a puzzle (RFC 8019 §8.2).
    PuzzleSolution(Vec<u8>),
    /// A payload of a type that is none of these. Whether it may be skipped, its critical bit says (RFC 7296 §2.5).
    Unknown {
        /// Its type.
        kind: PayloadType,
        /// Whether a message must be refused by those who do not know the type.
        critical: bool,
        /// What is behind the generic header.
        body: Vec<u8>,
    },
}

impl Payload {
    /// Octets of the generic header, in front of each (RFC 7296 §3.2).
    pub const HEADER_LEN: usize = FRAME;

    /// Its type.
    pub const fn kind(&self) -> PayloadType {
        match self {
            Payload::SecurityAssociation(_) => PayloadType::SA,
            Payload::KeyExchange(_) => PayloadType::KE,
            Payload::IdInitiator(_) => PayloadType::IDI,
            Payload::IdResponder(_) => PayloadType::IDR,
            Payload::Certificate(_) => PayloadType::CERT,
            Payload::CertificateRequest(_) => PayloadType::CERTREQ,
            Payload::Authentication(_) => PayloadType::AUTH,
            Payload::Nonce(_) => PayloadType::NONCE,
            Payload::Notify(_) => PayloadType::N,
            Payload::Delete(_) => PayloadType::D,
            Payload::VendorId(_) => PayloadType::V,
            Payload::TsInitiator(_) => PayloadType::TSI,
            Payload::TsResponder(_) => PayloadType::TSR,
            Payload::Configuration(_) => PayloadType::CP,
            Payload::Eap(_) => PayloadType::EAP,
            Payload::PuzzleSolution(_) => PayloadType::PS,
            Payload::Unknown { kind, .. } => *kind,
        }
    }

    fn parse(kind: PayloadType, critical: bool, mut r: Reader<'_>) -> Result<Payload, Malformed> {
        Ok(match kind {
            PayloadType::SA => Payload::SecurityAssociation(proposal::parse_all(r)?),
            PayloadType::KE => Payload::KeyExchange(KeyExchange::parse(r)?),
            PayloadType::IDI => Payload::IdInitiator(Identification::parse(r)?),
            PayloadType::IDR => Payload::IdResponder(Identification::parse(r)?),
            PayloadType::CERT => Payload::Certificate(Certificate::parse(r)?),
            PayloadType::CERTREQ => Payload::CertificateRequest(CertificateRequest::parse(r)?),
            PayloadType::AUTH => Payload::Authentication(Authentication::parse(r)?),
            PayloadType::NONCE => Payload::Nonce(key_exchange::parse_nonce(r)?),
            PayloadType::N => Payload::Notify(Notify::parse(r)?),
            PayloadType::D => Payload::Delete(Delete::parse(r)?),
            PayloadType::V => Payload::VendorId(r.rest().to_vec()),
            PayloadType::TSI => Payload::TsInitiator(traffic_selector::parse_all(r)?),
            PayloadType::TSR => Payload::TsResponder(traffic_selector::parse_all(r)?),
            PayloadType::CP => Payload::Configuration(Configuration::parse(r)?),
            PayloadType::EAP => Payload::Eap(r.rest().to_vec()),
            PayloadType::PS => Payload::PuzzleSolution(r.rest().to_vec()),
            _ => Payload::Unknown { kind, critical, body: r.rest().to_vec() },
        })
    }

    fn emit(&self, w: &mut Writer) {
        match self {
            Payload::SecurityAssociation(proposals) => proposal::emit_all(proposals, w),
            Payload::KeyExchange(ke) => ke.emit(w),
            Payload::IdInitiator(id) | Payload::IdResponder(id) => id.emit(w),
            Payload::Certificate(certificate) => certificate.emit(w),
            Payload::CertificateRequest(request) => request.emit(w),
            Payload::Authentication(auth) => auth.emit(w),
            Payload::Notify(notify) => notify.emit(w),
            Payload::Delete(delete) => delete.emit(w),
            Payload::TsInitiator(selectors) | Payload::TsResponder(selectors) => {
                traffic_selector::emit_all(selectors, w);
            }
            Payload::Configuration(configuration) => configuration.emit(w),
            Payload::Nonce(octets)
            | Payload::VendorId(octets)
            | Payload::Eap(octets)
            | Payload::PuzzleSolution(octets)
            | Payload::Unknown { body: octets, .. } => w.octets(octets),
        }
    }
}

/// Payloads in the order of the message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Payloads(
    /// The payloads.
    pub Vec<Payload>,
);

impl Payloads {
    /// Reads the payloads that fill `octets`, which were decrypted and had their padding removed; `first` is the type
    /// of the first. None of them may be sealed.
    pub fn parse(first: PayloadType, octets: &[u8]) -> Result<Payloads, Malformed> {
        Ok(parse_chain(first, octets, 0, false)?.0)
    }

    /// The type of the first payload, or `NONE`, and the octets of all: what is to be sealed, without padding.
    pub fn emit(&self) -> Result<(PayloadType, Vec<u8>), Oversized> {
        let mut out = Writer::default();
        self.emit_before(PayloadType::NONE, &mut out);
        Ok((self.first().unwrap_or(PayloadType::NONE), out.finish()?))
    }

    /// The type of the first payload.
    pub fn first(&self) -> Option<PayloadType> {
        self.0.first().map(Payload::kind)
    }

    /// The notifications of a kind.
    pub fn notifies(&self, kind: NotifyType) -> impl Iterator<Item = &Notify> {
        self.0.iter().filter_map(move |payload| match payload {
            Payload::Notify(notify) if notify.kind == kind => Some(notify),
            _ => None,
        })
    }

    /// Whether there is a notification of a kind.
    pub fn has_notify(&self, kind: NotifyType) -> bool {
        self.notifies(kind).next().is_some()
    }

    /// The first notification of an error.
    pub fn error(&self) -> Option<&Notify> {
        self.0.iter().find_map(|payload| match payload {
            Payload::Notify(notify) if notify.kind.is_error() => Some(notify),
            _ => None,
        })
    }

    /// The type of the first payload that is not known and must be (RFC 7296 §2.5).
    pub fn unknown_critical(&self) -> Option<PayloadType> {
        self.0.iter().find_map(|payload| match payload {
            Payload::Unknown { kind, critical: true, .. } => Some(*kind),
            _ => None,
        })
    }

    /// `behind` is the type of the payload that comes behind the last.
    pub(super) fn emit_before(&self, behind: PayloadType, w: &mut Writer) {
        let next = self.0.iter().skip(1).map(Payload::kind).chain([behind]);
        for (payload, next) in self.0.iter().zip(next) {
            let critical = matches!(payload, Payload::Unknown { critical: true, .. });
            let head = [next.0, if critical { CRITICAL } else { 0 }];
            w.frame(head, "Payload Length", |w| payload.emit(w));
        }
    }
}

/// The first payload of a type.
macro_rules! first_of {
    ($($(#[doc = $doc:literal])+ $name:ident: $variant:ident -> $content:ty;)+) => {
        impl Payloads {
            $($(#[doc = $doc])+
            pub fn $name(&self) -> Option<&$content> {
                self.0.iter().find_map(|payload| match payload {
                    Payload::$variant(content) => Some(content as &$content),
                    _ => None,
                })
            })+
        }
    };
}

first_of! {
    /// SA.
    security_association: SecurityAssociation -> [Proposal];
    /// KE.
    key_exchange: KeyExchange -> KeyExchange;
    /// IDi.
    id_initiator: IdInitiator -> Identification;
    /// IDr.
    id_responder: IdResponder -> Identification;
    /// AUTH.
    authentication: Authentication -> Authentication;
    /// Ni or Nr.
    nonce: Nonce -> [u8];
    /// TSi.
    ts_initiator: TsInitiator -> [TrafficSelector];
    /// TSr.
    ts_responder: TsResponder -> [TrafficSelector];
    /// CP.
    configuration: Configuration -> Configuration;
    /// EAP.
    eap: Eap -> [u8];
}

/// The types and bodies of payloads in clear, until one is cut off.
pub(super) fn bodies(first: PayloadType, octets: &[u8]) -> impl Iterator<Item = (PayloadType, &[u8])> {
    let (mut kind, mut rest) = (first, Reader::new(None, octets, 0));
    iter::from_fn(move || {
        let is_over = matches!(kind, PayloadType::NONE | PayloadType::SK | PayloadType::SKF);
        let ([next, _], mut body) = (!is_over).then(|| rest.frame("Payload Length").ok()).flatten()?;
        Some((std::mem::replace(&mut kind, PayloadType(next)), body.rest()))
    })
}

/// The payloads in `octets`, which begin at `offset` of the message; a sealed one, where `may_seal`, is the last.
pub(super) fn parse_chain(
    first: PayloadType,
    octets: &[u8],
    offset: usize,
    may_seal: bool,
) -> Result<(Payloads, Option<Sealed>), Malformed> {
    let mut rest = Reader::new(None, octets, offset);
    let mut payloads = vec![];
    let mut kind = first;
    while kind != PayloadType::NONE {
        rest = rest.of(kind);
        let at = rest.offset();
        let ([next, flags], body) = rest.frame("Payload Length")?;
        let next = PayloadType(next);
        if matches!(kind, PayloadType::SK | PayloadType::SKF) {
            if !may_seal {
                return Err(rest.malformed_at("nested encryption", at));
            }
            // RFC 7296 §3.14, RFC 7383 §2.5: it MUST be the last; its Next Payload is of what is in it.
            rest.end("payload behind the encrypted one")?;
            return Ok((Payloads(payloads), Some(Sealed::parse(kind, next, body)?)));
        }
        // RFC 7296 §3.2: the critical bit of known types is ignored.
        payloads.push(Payload::parse(kind, flags & CRITICAL != 0, body)?);
        kind = next;
    }
    rest.end("octets behind the last payload")?;
    Ok((Payloads(payloads), None))
}
