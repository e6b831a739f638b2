use super::*;
use crate::{
    crypto::{
        transform::Prf,
        vectors::{self, seeded},
    },
    message::{ExchangeType, Flags, Fragment, Header, IkeSpi, Message, Payload, Payloads, Sealed, Version},
};

fn all_suites() -> impl Iterator<Item = Suite> {
    let integrities = Integrity::ALL.iter().copied().map(Some).chain([None]);
    let pairs = Encryption::ALL.iter().flat_map(move |e| integrities.clone().map(move |i| (*e, i)));
    pairs.filter_map(|(encryption, integrity)| Suite::new(encryption, integrity, Prf::HmacSha256))
}

fn pair(suite: Suite) -> (Sealer, Opener) {
    let octets =
        |len, first: u8| Secret::from((0..len).map(|n| first.wrapping_add(n as u8)).collect::<Vec<_>>());
    let (e, a) = (octets(suite.encryption().key_len(), 1), octets(suite.integrity_key_len(), 101));
    (Sealer::new(suite, e.clone(), a.clone()), Opener::new(suite, e, a))
}

// RFC 7634 §B, RFC 5282, RFC 7296 §3.14
#[test]
fn payloads_are_those_of_others() {
    let mut suites = Vec::new();
    for fields in vectors::records(include_str!("../vectors/sealed.txt")) {
        let encryption = Encryption::named(fields.text("encryption")).unwrap();
        let integrity = Integrity::named(fields.text("integrity"));
        let suite = Suite::new(encryption, integrity, Prf::HmacSha256).unwrap();
        suites.push(suite);
        let (e, a): (Secret, Secret) = (fields.octets("e").into(), fields.octets("a").into());
        let (headers, payloads, body) =
            (fields.octets("headers"), fields.octets("payloads"), fields.octets("body"));
        let opener = Opener::new(suite, e.clone(), a.clone());
        assert_eq!(opener.open(&headers, &body).unwrap(), payloads, "{fields:?}");
        if encryption.is_aead() {
            let iv = u64::from_be_bytes(body[..8].try_into().unwrap());
            let mut sealer = Sealer { sealed: iv, ..Sealer::new(suite, e, a) };
            assert_eq!(sealer.seal(&headers, &payloads, &mut seeded(1)), body, "{fields:?}");
        }
    }
    assert!(all_suites().all(|suite| suites.contains(&suite)));
}

#[test]
fn what_is_sealed_opens_at_each_length() {
    for suite in all_suites() {
        let (mut sealer, opener) = pair(suite);
        for len in 0..70 {
            let payloads: Vec<_> = (0..len).collect();
            let body = sealer.seal(b"headers", &payloads, &mut seeded(len.into()));
            assert_eq!(body.len(), sealer.sealed_len(payloads.len()));
            assert_eq!(opener.open(b"headers", &body).unwrap(), payloads, "{suite:?} {len}");
        }
    }
}

#[test]
fn no_bit_can_be_changed() {
    for suite in all_suites() {
        let (mut sealer, opener) = pair(suite);
        let (headers, body) = (*b"headers", sealer.seal(b"headers", b"payloads", &mut seeded(1)));
        for bit in 0..8 * (headers.len() + body.len()) {
            let (mut headers, mut body) = (headers, body.clone());
            match headers.get_mut(bit / 8) {
                Some(octet) => *octet ^= 1 << (bit % 8),
                None => body[bit / 8 - headers.len()] ^= 1 << (bit % 8),
            }
            assert_eq!(opener.open(&headers, &body), Err(OpenError::Icv), "{suite:?} {bit}");
        }
        for len in 0..body.len() {
            let error = opener.open(&headers, &body[..len]).unwrap_err();
            assert!(matches!(error, OpenError::Icv | OpenError::Length(_)), "{suite:?} {len}");
        }
    }
}

// RFC 5282 §3.1; RFC 7296 §3.14
#[test]
fn no_two_messages_have_one_iv() {
    for suite in all_suites() {
        let (mut sealer, _) = pair(suite);
        let mut rng = seeded(1);
        let iv_len = suite.encryption().iv_len();
        let mut ivs: Vec<_> = (0..50).map(|_| sealer.seal(b"", b"", &mut rng)[..iv_len].to_vec()).collect();
        ivs.sort();
        ivs.dedup();
        assert_eq!(ivs.len(), 50, "{suite:?}");
    }
}

// RFC 7296 §3.14
#[test]
fn padding_that_is_too_long_is_refused() {
    for suite in all_suites() {
        let (sealer, opener) = pair(suite);
        for (padding, len) in [(16, 16), (255, 16), (15, 16), (255, 256), (0, 16)] {
            let iv_len = suite.encryption().iv_len();
            let mut body = vec![0; iv_len + len - 1];
            body.push(padding);
            sealer.keys.seal(b"headers", &mut body);
            let left = (len - 1).checked_sub(padding.into());
            let expected = left.map(|len| vec![0; len]).ok_or(OpenError::Padding(padding));
            assert_eq!(opener.open(b"headers", &body), expected, "{suite:?} {padding}");
        }
    }
}

// RFC 7296 §3.14, RFC 7383 §2.5
#[test]
fn messages_are_sealed_in_their_last_payload() {
    let header = Header {
        initiator_spi: IkeSpi(1),
        responder_spi: IkeSpi(2),
        version: Version::V2,
        exchange: ExchangeType::INFORMATIONAL,
        flags: Flags::INITIATOR,
        message_id: 3,
    };
    let inner = Payloads(vec![Payload::VendorId(vec![4; 21])]);
    let (first, octets) = inner.emit().unwrap();
    for suite in all_suites() {
        for fragment in [None, Fragment::new(1, 2)] {
            let (mut sealer, opener) = pair(suite);
            let room = Sealed::room(first, fragment, sealer.sealed_len(octets.len()));
            let message = Message { header, payloads: Payloads::default(), sealed: Some(room) };
            let seal = |headers: &[u8]| sealer.seal(headers, &octets, &mut seeded(5));
            let mut message = message.emit_sealed(seal).unwrap();
            let sealed = Message::parse(&message).unwrap().sealed.unwrap();
            let opened = opener.open(sealed.headers(&message), &sealed.body).unwrap();
            assert_eq!(Payloads::parse(sealed.first, &opened), Ok(inner.clone()));
            message[28] = 0; // the type of what is inside
            assert_eq!(opener.open(sealed.headers(&message), &sealed.body), Err(OpenError::Icv));
        }
    }
}
