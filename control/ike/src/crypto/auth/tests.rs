use super::*;
use crate::{
    crypto::{
        keys::{Nonces, Spis},
        transform::{Encryption, Integrity, Suite},
        vectors,
    },
    message::IkeSpi,
};

/// That of `vectors/make.py`, which has the formulas once more, written by us from the RFCs.
// RFC 7296 §2.15, RFC 9242 §3.3.2
#[test]
fn what_is_signed_is_that_of_another_implementation() {
    for fields in vectors::records(include_str!("../vectors/keys.txt")) {
        let prf = Prf::named(fields.text("prf")).unwrap();
        let encryption = Encryption::named(fields.text("encryption")).unwrap();
        let suite = Suite::new(encryption, Integrity::named(fields.text("integrity")), prf).unwrap();
        let (ni, nr, spis) = (fields.octets("ni"), fields.octets("nr"), fields.octets("spis"));
        let nonces = Nonces { initiator: &ni, responder: &nr };
        let [initiator, responder] =
            [0, 8].map(|at| IkeSpi(u64::from_be_bytes(spis[at..at + 8].try_into().unwrap())));
        let spis = Spis { initiator, responder };
        let (first, ..) = Keys::new(suite, Role::Initiator, fields.octets("secret").into(), nonces, spis);
        let (second, ..) = first.updated(fields.octets("more").into(), nonces, spis);

        // Lengths as they are on the wire do not matter.
        let headers = [fields.octets("header"), fields.octets("clear"), vec![0x21, 0, 0xab, 0xcd]].concat();
        let payloads = fields.octets("payloads");
        let said = Intermediate { headers: &headers, payloads: &payloads };
        let mut int_auth = IntAuth::default();
        int_auth.add(&first, said, said).unwrap();
        int_auth.add(&second, said, said).unwrap();
        let int_auth = int_auth.octets(3);
        assert_eq!(int_auth, fields.octets("int_auth"));

        let (message, id) = (fields.octets("message"), fields.octets("id"));
        let signed = signed_octets(prf, &message, &nr, first.sk_p(Role::Initiator), &id, &int_auth);
        assert_eq!(signed, fields.octets("signed"));
        assert_eq!(by_shared_key(prf, b"a shared key", &signed).bytes(), fields.octets("auth"));
    }
}

#[test]
fn without_ike_intermediate_nothing_is_added() {
    assert!(IntAuth::default().octets(1).is_empty());
}

/// Octets of both headers.
const HEADERS: usize = Header::LEN + Payload::HEADER_LEN;

#[test]
fn an_exchange_is_added_whole_or_not_at_all() {
    let suite = Suite::new(Encryption::AesGcm128, None, Prf::HmacSha256).unwrap();
    let nonces = Nonces { initiator: &[1; 16], responder: &[2; 16] };
    let spis = Spis { initiator: IkeSpi(4), responder: IkeSpi(5) };
    let (keys, ..) = Keys::new(suite, Role::Responder, Secret::copy_of(&[3; 32]), nonces, spis);
    let most = vec![0; usize::from(u16::MAX) - Payload::HEADER_LEN + 1];
    let right = Intermediate { headers: &[0; HEADERS], payloads: &most[1..] };
    let short = Intermediate { headers: &[0; HEADERS - 1], ..right };
    let long = Intermediate { payloads: &most, ..right };
    let mut int_auth = IntAuth::default();
    for (wrong, error) in
        [(short, IntermediateError::Headers(HEADERS - 1)), (long, IntermediateError::Payloads(most.len()))]
    {
        assert_eq!(int_auth.add(&keys, wrong, right), Err(error));
        assert_eq!(int_auth.add(&keys, right, wrong), Err(error));
        assert!(int_auth.octets(1).is_empty());
    }
    assert_eq!(int_auth.add(&keys, right, right), Ok(()));
    assert_eq!(int_auth.octets(1).len(), 32 + 32 + 4);
}
