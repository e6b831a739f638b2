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
    let half = |octets: &[u8]| IkeSpi(u64::from_be_bytes(octets.try_into().unwrap()));
    Spis { initiator: half(&spis[..8]), responder: half(&spis[8..]) }
}

/// What was made is of these octets, in the order of RFC 7296 §2.14: SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr.
fn is_of((keys, mut sealer, opener): (Keys, Sealer, Opener), mut octets: &[u8]) {
    let suite = keys.suite;
    let (p, a, e) = (suite.prf().output_len(), suite.integrity_key_len(), suite.encryption().key_len());
    let [d, ai, ar, ei, er, pi, pr] =
        [p, a, a, e, e, p, p].map(|len| Secret::copy_of(octets.split_off(..len).unwrap()));
    assert!(octets.is_empty());
    assert_eq!([&keys.d, keys.sk_p(Role::Initiator), keys.sk_p(Role::Responder)], [&d, &pi, &pr]);
    let (ours, theirs) = match keys.role {
        Role::Initiator => ((ei, ai), (er, ar)),
        Role::Responder => ((er, ar), (ei, ai)),
    };
    let mut rng = vectors::seeded(1);
    let body = sealer.seal(b"headers", b"payloads", &mut rng);
    assert_eq!(Opener::new(suite, ours.0, ours.1).open(b"headers", &body).unwrap(), b"payloads");
    let body = Sealer::new(suite, theirs.0, theirs.1).seal(b"headers", b"payloads", &mut rng);
    assert_eq!(opener.open(b"headers", &body).unwrap(), b"payloads");
}

const ROLES: [Role; 2] = [Role::Initiator, Role::Responder];

/// NIST's, who has 132 octets of each: as many as an IKE SA with AES-CBC-128 and HMAC-SHA1-96 takes.
// RFC 7296 §2.14, §2.17, §2.18
#[test]
fn keys_are_those_of_nist() {
    let records = vectors::records(include_str!("../vectors/keys-nist.txt"));
    let fields = &records[0];
    let prf = Prf::named(fields.text("prf")).unwrap();
    let suite = Suite::new(Encryption::AesCbc128, Some(Integrity::HmacSha1), prf).unwrap();
    let (spis, ni, nr) = (spis_of(fields), fields.octets("ni"), fields.octets("nr"));
    let nonces = Nonces { initiator: &ni, responder: &nr };
    let [secret, new] = ["secret", "secret_new"].map(|name| Secret::from(fields.octets(name)));
    for role in ROLES {
        is_of(Keys::new(suite, role, secret.clone(), nonces, spis), &fields.octets("keys"));
        let (keys, ..) = Keys::new(suite, role, secret.clone(), nonces, spis);
        // NIST stops at the SKEYSEED of a rekeying.
        let (i, r) = (spis.initiator.octets(), spis.responder.octets());
        let rekeyed = prf.plus(&fields.octets("skeyseed_rekey"), &[&ni, &nr, &i, &r], 132);
        is_of(keys.rekeyed(suite, role, vec![new.clone()], nonces, spis), rekeyed.bytes());
        let algorithm = Algorithm::new(sadb::Encryption::AesCbc256, sadb::Integrity::HmacSha256).unwrap();
        for (name, secrets) in [("child", &[][..]), ("child_pfs", std::slice::from_ref(&new))] {
            let (keymat, child) = (fields.octets(name), keys.child(algorithm, secrets, nonces));
            assert_eq!(child.from_initiator.bytes(), &keymat[..64]);
            assert_eq!(child.from_responder.bytes(), &keymat[64..128]);
        }
    }
}

/// Those of `vectors/make.py`: HMACs are Python's, and the formulas are written down there once more, from the RFCs and
/// by us. So it shows that octets are where we mean them to be; that we mean it right, only NIST and peers can show.
// RFC 7296 §2.14, §2.17, §2.18, RFC 8784 §3, RFC 9370 §2.2
#[test]
fn keys_are_those_of_another_implementation() {
    for fields in vectors::records(include_str!("../vectors/keys.txt")) {
        let (suite, spis) = (suite_of(&fields), spis_of(&fields));
        let (ni, nr) = (fields.octets("ni"), fields.octets("nr"));
        let nonces = Nonces { initiator: &ni, responder: &nr };
        let secrets = ["secret", "more", "most"].map(|name| Secret::from(fields.octets(name)));
        for role in ROLES {
            let new = || Keys::new(suite, role, secrets[0].clone(), nonces, spis);
            is_of(new(), &fields.octets("keys"));
            is_of(new().0.updated(secrets[1].clone(), nonces, spis), &fields.octets("updated"));
            for role in ROLES {
                is_of(
                    new().0.rekeyed(suite, role, secrets.to_vec(), nonces, spis),
                    &fields.octets("rekeyed"),
                );
            }
        }
        let (keys, ..) = Keys::new(suite, Role::Initiator, secrets[0].clone(), nonces, spis);

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

        let of = |keys: &Keys| [&keys.d, &keys.pi, &keys.pr].map(Secret::bytes).concat();
        let before = of(&keys);
        assert_eq!(of(&keys.with_ppk(&fields.octets("ppk"))), fields.octets("mixed"));
        assert_eq!(of(&keys), before);
    }
}

fn some_keys(suite: Suite, role: Role) -> (Keys, Sealer, Opener) {
    let nonces = Nonces { initiator: &[1; 32], responder: &[2; 32] };
    Keys::new(
        suite,
        role,
        Secret::copy_of(&[3; 32]),
        nonces,
        Spis { initiator: IkeSpi(4), responder: IkeSpi(5) },
    )
}

// RFC 7296 §2.18
#[test]
fn skeyseed_of_a_rekeying_is_by_the_old_prf() {
    let old = Suite::new(Encryption::AesGcm128, None, Prf::HmacSha256).unwrap();
    let new = Suite::new(Encryption::AesGcm256, None, Prf::HmacSha512).unwrap();
    let ((keys, ..), secret) = (some_keys(old, Role::Initiator), Secret::copy_of(&[6; 32]));
    let (ni, nr) = ([7; 16], [8; 16]);
    let nonces = Nonces { initiator: &ni, responder: &nr };
    let spis = Spis { initiator: IkeSpi(9), responder: IkeSpi(10) };
    let skeyseed = Prf::HmacSha256.mac(keys.d.bytes(), &[secret.bytes(), &ni, &nr]);
    let seed = [&ni[..], &nr, &9u64.to_be_bytes(), &10u64.to_be_bytes()];
    let all = Prf::HmacSha512.plus(skeyseed.bytes(), &seed, 3 * 64 + 2 * 36);
    is_of(keys.rekeyed(new, Role::Responder, vec![secret], nonces, spis), all.bytes());
}

// RFC 7296 §2.17, RFC 3686 §5.1: the cipher's part is whole in KEYMAT, and the SADB has salts last.
#[test]
fn salts_are_moved_behind_the_keys() {
    let suite = Suite::new(Encryption::AesGcm128, None, Prf::HmacSha256).unwrap();
    let (keys, ..) = some_keys(suite, Role::Initiator);
    let nonces = Nonces { initiator: &[1; 16], responder: &[2; 16] };
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
    let mut rng = vectors::seeded(1);
    let [(_, mut ours, opener), (_, mut theirs, their_opener)] = ROLES.map(|role| some_keys(suite, role));
    let body = ours.seal(b"headers", b"payloads", &mut rng);
    assert_eq!(their_opener.open(b"headers", &body).unwrap(), b"payloads");
    assert!(opener.open(b"headers", &body).is_err());
    let body = theirs.seal(b"headers", b"payloads", &mut rng);
    assert_eq!(opener.open(b"headers", &body).unwrap(), b"payloads");
    assert!(their_opener.open(b"headers", &body).is_err());
}

#[test]
fn they_do_not_print() {
    let suite = Suite::new(Encryption::AesGcm128, None, Prf::HmacSha256).unwrap();
    let text = format!("{:?}", some_keys(suite, Role::Initiator));
    assert_eq!(text.matches("(hidden)").count(), 3 + 2 + 2, "{text}");
}
