use super::*;
use crate::crypto::{
    keys::{Keys, Nonces, Role, Spis},
    transform::{Encryption, Integrity, Suite},
    vectors,
};

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
            [0, 8].map(|at| u64::from_be_bytes(spis[at..at + 8].try_into().unwrap()));
        let spis = Spis { initiator, responder };
        let (first, ..) = Keys::new(suite, Role::Initiator, fields.octets("secret").into(), nonces, spis);
        let (second, ..) = first.updated(fields.octets("more").into(), nonces, spis);

        // Lengths as they are on the wire do not matter.
        let headers = [fields.octets("header"), fields.octets("clear"), vec![0x21, 0, 0xab, 0xcd]].concat();
        let payloads = fields.octets("payloads");
        let [i, r] = [Role::Initiator, Role::Responder].map(|role| {
            let mut intermediate = Intermediate::default();
            assert!(intermediate.add(prf, first.sk_p(role), &headers, &payloads));
            assert!(intermediate.add(prf, second.sk_p(role), &headers, &payloads));
            intermediate
        });
        let int_auth = Intermediate::of_both(&i, &r, 3);
        assert_eq!(int_auth, fields.octets("int_auth"));

        let (message, id) = (fields.octets("message"), fields.octets("id"));
        let signed = signed_octets(prf, &message, &nr, first.sk_p(Role::Initiator), &id, &int_auth);
        assert_eq!(signed, fields.octets("signed"));
        assert_eq!(by_shared_key(prf, b"a shared key", &signed).bytes(), fields.octets("auth"));
    }
}

#[test]
fn without_ike_intermediate_nothing_is_added() {
    let none = Intermediate::default();
    assert!(Intermediate::of_both(&none, &none, 1).is_empty());
    let mut some = Intermediate::default();
    let key = Secret::copy_of(&[1; 32]);
    assert!(!some.add(Prf::HmacSha256, &key, &[0; HEADER + GENERIC - 1], &[]));
    assert!(some.add(Prf::HmacSha256, &key, &[0; HEADER + GENERIC], &[]));
}
