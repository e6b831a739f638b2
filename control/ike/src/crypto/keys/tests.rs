use super::*;
use crate::crypto::{
    transform::{Encryption, Integrity, Prf},
    vectors::{self, Fields},
};
use portcullis_sadb as sadb;

fn suite_of(fields: &Fields<'_>) -> Suite {
    let encryption = Encryption::named(fields.text("encryption")).unwrap();
    let prf = Prf::named(fields.text("prf")).unwrap();
    Suite::new(encryption, Integrity::named(fields.text("integrity")), prf).unwrap()
}

fn spis_of(fields: &Fields<'_>) -> Spis {
    let spis = fields.octets("spis");
    let half = |octets: &[u8]| u64::from_be_bytes(octets.try_into().unwrap());
    Spis { initiator: half(&spis[..8]), responder: half(&spis[8..]) }
}

fn octets_of(keys: &Keys) -> Vec<u8> {
    let all = [&keys.d, &keys.ai, &keys.ar, &keys.ei, &keys.er, &keys.pi, &keys.pr];
    all.map(Secret::bytes).concat()
}

// RFC 7296 §2.14, §2.17, §2.18, RFC 8784 §3, RFC 9370 §2.2
#[test]
fn keys_are_those_of_another_implementation() {
    for fields in vectors::records(include_str!("../vectors/keys.txt")) {
        let (suite, spis) = (suite_of(&fields), spis_of(&fields));
        let (ni, nr) = (fields.octets("ni"), fields.octets("nr"));
        let nonces = Nonces { initiator: &ni, responder: &nr };
        let secrets = ["secret", "more", "most"].map(|name| Secret::from(fields.octets(name)));

        let mut keys = Keys::new(suite, &secrets[0], nonces, spis);
        assert_eq!(octets_of(&keys), fields.octets("keys"));
        assert_eq!(octets_of(&keys.updated(&secrets[1], nonces, spis)), fields.octets("updated"));
        assert_eq!(octets_of(&keys.rekeyed(suite, &secrets, nonces, spis)), fields.octets("rekeyed"));

        for (algorithm, one_way) in [
            (Algorithm::AES_GCM_128, 20),
            (Algorithm::AES_GCM_256, 36),
            (Algorithm::new(sadb::Encryption::AesCbc128, sadb::Integrity::HmacSha256).unwrap(), 48),
        ] {
            for (name, secrets) in
                [("child", &secrets[..0]), ("child_pfs", &secrets[..1]), ("child_many", &secrets[..])]
            {
                let (keymat, child) = (fields.octets(name), keys.child(algorithm, secrets, nonces));
                assert_eq!(child.from_initiator.bytes(), &keymat[..one_way]);
                assert_eq!(child.from_responder.bytes(), &keymat[one_way..2 * one_way]);
            }
        }

        let before = octets_of(&keys);
        keys.mix_in_ppk(&fields.octets("ppk"));
        let mixed = [&keys.d, &keys.pi, &keys.pr].map(Secret::bytes).concat();
        assert_eq!(mixed, fields.octets("mixed"));
        let p = suite.prf().output_len();
        assert_eq!(octets_of(&keys)[p..before.len() - 2 * p], before[p..before.len() - 2 * p]);
    }
}

fn some_keys(suite: Suite) -> Keys {
    let nonces = Nonces { initiator: &[1; 32], responder: &[2; 32] };
    Keys::new(suite, &Secret::copy_of(&[3; 32]), nonces, Spis { initiator: 4, responder: 5 })
}

// RFC 7296 §2.18
#[test]
fn skeyseed_of_a_rekeying_is_by_the_old_prf() {
    let old = Suite::new(Encryption::AesGcm128, None, Prf::HmacSha256).unwrap();
    let new = Suite::new(Encryption::AesGcm256, None, Prf::HmacSha512).unwrap();
    let (keys, secret) = (some_keys(old), Secret::copy_of(&[6; 32]));
    let (ni, nr) = ([7; 16], [8; 16]);
    let nonces = Nonces { initiator: &ni, responder: &nr };
    let spis = Spis { initiator: 9, responder: 10 };
    let skeyseed = Prf::HmacSha256.mac(keys.d.bytes(), &[secret.bytes(), &ni, &nr]);
    let seed = [&ni[..], &nr, &9u64.to_be_bytes(), &10u64.to_be_bytes()];
    let all = Prf::HmacSha512.plus(skeyseed.bytes(), &seed, 3 * 64 + 2 * 36);
    assert_eq!(octets_of(&keys.rekeyed(new, &[secret], nonces, spis)), all.bytes());
}

// RFC 7296 §2.17, RFC 3686 §5.1: the cipher's part is whole in KEYMAT, and the SADB has salts last.
#[test]
fn salts_are_moved_behind_the_keys() {
    let suite = Suite::new(Encryption::AesGcm128, None, Prf::HmacSha256).unwrap();
    let (keys, nonces) = (some_keys(suite), Nonces { initiator: &[1; 16], responder: &[2; 16] });
    let algorithm = Algorithm::new(sadb::Encryption::AesCtr128, sadb::Integrity::HmacSha1).unwrap();
    let keymat = Prf::HmacSha256.plus(keys.d.bytes(), &[&[1; 16], &[2; 16]], 2 * 40);
    let child = keys.child(algorithm, &[], nonces);
    for (key, keymat) in [child.from_initiator, child.from_responder].iter().zip(keymat.bytes().chunks(40)) {
        assert_eq!(key.bytes(), [&keymat[..16], &keymat[20..], &keymat[16..20]].concat());
    }
    for algorithm in Algorithm::all() {
        let child = keys.child(algorithm, &[], nonces);
        assert_eq!(child.from_initiator.bytes().len(), algorithm.key_len() + algorithm.salt_len());
        assert_ne!(child.from_initiator == child.from_responder, algorithm.key_len() > 0);
    }
}

#[test]
fn ends_understand_each_other_and_not_themselves() {
    let suite = Suite::new(Encryption::AesCbc128, Some(Integrity::HmacSha256), Prf::HmacSha256).unwrap();
    let (keys, mut rng) = (some_keys(suite), vectors::seeded(1));
    for (role, other) in [(Role::Initiator, Role::Responder), (Role::Responder, Role::Initiator)] {
        let body = keys.sealer(role).seal(b"headers", b"payloads", &mut rng);
        assert_eq!(keys.opener(role).open(b"headers", &body).unwrap(), b"payloads");
        assert!(keys.opener(other).open(b"headers", &body).is_err());
    }
}

#[test]
fn they_do_not_print() {
    let suite = Suite::new(Encryption::AesGcm128, None, Prf::HmacSha256).unwrap();
    let keys = some_keys(suite);
    let text = format!("{keys:?} {:?}", keys.sealer(Role::Initiator));
    assert_eq!(text.matches("(hidden)").count(), 9, "{text}");
}
