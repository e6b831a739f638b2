use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

const PROTOCOLS: [Protocol; 3] = [Protocol::IKE, Protocol::ESP, Protocol::AH];

fn of(protocol: Protocol, text: &str) -> Result<Proposals, ProposalError> {
    match protocol {
        Protocol::IKE => Proposals::ike([text]),
        Protocol::ESP => Proposals::esp([text]),
        _ => Proposals::ah([text]),
    }
}

fn message(protocol: Protocol, text: &str) -> String {
    of(protocol, text).unwrap_err().to_string()
}

/// Types, numbers and key lengths of all proposals.
fn numbers(proposals: &Proposals) -> Vec<Vec<(u8, u16, Option<u16>)>> {
    let number = |t: &Transform| (t.kind.0, t.id, t.key_bits);
    proposals.0.iter().map(|p| p.transforms.iter().map(number).collect()).collect()
}

// The numbers are IANA's.
#[test]
fn strings_are_what_strongswan_takes_them_for() {
    let ike = |text| numbers(&Proposals::ike([text]).unwrap());
    assert_eq!(ike("aes256gcm16-prfsha384-ecp384"), [[(1, 20, Some(256)), (2, 6, None), (4, 20, None)]]);
    assert_eq!(
        ike("aes128-sha256-x25519-ke1_mlkem768"),
        [[(1, 12, Some(128)), (3, 12, None), (2, 5, None), (4, 31, None), (6, 36, None)]]
    );
    // A prf is of the integrity's hash, of which an AEAD needs nothing else.
    assert_eq!(ike("aes256gcm16-sha384-ecp384"), ike("aes256gcm16-prfsha384-ecp384"));
    assert_eq!(ike("aes128-sha256-sha1-modp3072")[0][3..5], [(2, 5, None), (2, 2, None)]);
    assert_eq!(ike("modp2048-prfsha512-sha256-aes-aes128"), ike("aes128-sha2_256-prfsha512-modp2048"));
    assert_eq!(
        ike("chacha20poly1305-sha256-x25519-ke7_none-ke2_ecp521")[0][3..],
        [(7, 21, None), (12, 0, None)]
    );

    let esp = |text| numbers(&Proposals::esp([text]).unwrap());
    assert_eq!(
        esp("aes256-sha256-modp2048-esn"),
        [[(1, 12, Some(256)), (3, 12, None), (5, 1, None), (4, 14, None)]]
    );
    assert_eq!(esp("aes128gcm16"), [[(1, 20, Some(128)), (5, 0, None)]]);
    assert_eq!(esp("aes128gcm16-sha256-noesn"), esp("aes128gcm16"));
    assert_eq!(
        esp("aes256ccm64-none-ecp256-esn-noesn")[0][1..],
        [(5, 1, None), (5, 0, None), (4, 0, None), (4, 19, None)]
    );
    assert_eq!(esp("null-aesxcbc-aescmac")[0][..3], [(1, 11, None), (3, 5, None), (3, 8, None)]);
    assert_eq!(esp("aes192gmac"), [[(1, 21, Some(192)), (5, 0, None)]]);

    let ah = |text| numbers(&Proposals::ah([text]).unwrap());
    assert_eq!(ah("sha384-modp2048"), [[(3, 13, None), (5, 0, None), (4, 14, None)]]);
    assert_eq!(ah("aes192gmac"), [[(3, 10, None), (5, 0, None)]]);
}

// RFC 8221 §5, §6, RFC 8247 §2
#[test]
fn default_is_among_other_proposals() {
    let proposals = Proposals::ike(["aes192-sha1-modp2048", " default "]).unwrap();
    assert_eq!(proposals.0.len(), 3);
    assert_eq!(proposals.0[1..], Proposals::ike(["default"]).unwrap().0);
    for (protocol, count) in [(Protocol::IKE, 2), (Protocol::ESP, 2), (Protocol::AH, 1)] {
        let default = of(protocol, "default").unwrap();
        assert_eq!(default.0.len(), count);
        // Nothing that is broken or slow is offered by itself.
        assert!(!["sha1", "3des", "null"].iter().any(|weak| default.to_string().contains(weak)));
    }
    let musts = [
        (Protocol::IKE, "aes128-sha256-modp2048"),
        (Protocol::ESP, "aes128-sha256"),
        (Protocol::ESP, "aes128gcm16"),
        (Protocol::AH, "sha256"),
    ];
    for (protocol, must) in musts {
        let spi = if protocol == Protocol::IKE { &[][..] } else { &[1; 4] };
        let offered = of(protocol, must).unwrap().offer(spi);
        assert!(of(protocol, "default").unwrap().select(&offered, Default::default()).is_some(), "{must}");
    }
}

#[test]
fn errors_name_the_keyword_and_the_nearest() {
    assert_eq!(
        message(Protocol::IKE, "aes256gcm16-prfsha348-ecp384"),
        "unknown keyword 'prfsha348' in proposal 'aes256gcm16-prfsha348-ecp384'; did you mean 'prfsha384'?"
    );
    for (protocol, token, nearest) in [
        (Protocol::IKE, "aes265", "aes256"),
        (Protocol::IKE, "curve25518", "curve25519"),
        (Protocol::ESP, "camelia256", "camellia256"),
        (Protocol::ESP, "AES128", "aes128"),
        (Protocol::ESP, "ke1_mlkem786", "ke1_mlkem768"),
        (Protocol::ESP, "ke1_esn", "ke1_none"),
        (Protocol::AH, "sha_256", "sha256"),
        (Protocol::AH, "noesm", "noesn"),
    ] {
        let proposal = format!("sha256-{token}");
        let error = ProposalError::Unknown {
            token: token.into(),
            nearest: nearest.into(),
            proposal: proposal.clone(),
        };
        assert_eq!(of(protocol, &proposal), Err(error));
    }
    for text in [
        "",
        "-",
        "aes128-",
        "aes128--sha256",
        "ke8_x25519",
        "ke0_x25519",
        "ke1_",
        "ke1_ke1_x25519",
        "default-esn",
    ] {
        assert!(matches!(of(Protocol::ESP, text), Err(ProposalError::Unknown { .. })), "{text}");
    }
    for (protocol, token, text) in [
        (Protocol::AH, "3des", "AH has no '3des', which is in proposal 'sha1-3des'"),
        (Protocol::IKE, "esn", "IKE has no 'esn', which is in proposal 'sha1-esn'"),
        (Protocol::ESP, "prfsha256", "ESP has no 'prfsha256', which is in proposal 'sha1-prfsha256'"),
        (Protocol::AH, "aes128", "AH has no 'aes128', which is in proposal 'sha1-aes128'"),
    ] {
        assert_eq!(message(protocol, &format!("sha1-{token}")), text);
    }
}

// RFC 7296 §3.3, §3.3.3, RFC 8221 §5, RFC 9370 §2.2.2
#[test]
fn errors_say_what_is_missing() {
    for (protocol, text, kind) in [
        (Protocol::IKE, "sha256-x25519", TransformType::ENCR),
        (Protocol::IKE, "aes128-x25519", TransformType::INTEG),
        (Protocol::IKE, "aes128gcm16-x25519", TransformType::PRF),
        (Protocol::IKE, "aes128-sha256", TransformType::KE),
        (Protocol::IKE, "aes128-sha256-x25519-none", TransformType::KE),
        (Protocol::IKE, "aes128-sha256-ke1_x25519", TransformType::KE),
        (Protocol::ESP, "sha256", TransformType::ENCR),
        (Protocol::ESP, "aes128", TransformType::INTEG),
        (Protocol::ESP, "null-esn", TransformType::INTEG),
        (Protocol::ESP, "aes128gcm16-ke1_x25519", TransformType::KE),
        (Protocol::AH, "x25519-esn", TransformType::INTEG),
    ] {
        match of(protocol, text) {
            Err(ProposalError::Missing { kind: missing, .. }) => assert_eq!(missing, kind, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(
        message(Protocol::ESP, "aes128-x25519"),
        "proposal 'aes128-x25519' has no integrity, as in 'sha256'"
    );
    assert_eq!(
        message(Protocol::ESP, "aes128-sha256-aes256gcm16"),
        "proposal 'aes128-sha256-aes256gcm16' has both 'aes256gcm16', which needs no integrity, and 'aes128', \
         which does: make it two proposals"
    );
    assert_eq!(Proposals::ike([]), Err(ProposalError::Count(0)));
    assert!(Proposals::esp(vec!["aes128gcm16"; 255]).is_ok());
    assert_eq!(Proposals::esp(vec!["aes128gcm16"; 256]), Err(ProposalError::Count(256)));
}

#[test]
fn keywords_are_of_one_transform_and_transforms_have_one() {
    for protocol in PROTOCOLS {
        let all = keywords(protocol);
        assert_eq!(all.iter().map(|(name, _)| name).collect::<HashSet<_>>().len(), all.len());
        for (keyword, transform) in all {
            assert_eq!(named(protocol, keyword), Some(transform), "{keyword}");
            assert_eq!(named(protocol, &name(protocol, &transform)), Some(transform), "{keyword}");
        }
    }
    // What the datapath can do can be configured.
    for (row, kind) in sadb::Encryption::ALL.iter().map(|e| (e.transform(), TransformType::ENCR)) {
        let transform = of_row(kind, row);
        assert!(row.id == 0 || keywords(Protocol::ESP).iter().any(|(_, t)| *t == transform), "{}", row.name);
    }
    for (row, kind) in sadb::Integrity::ALL.iter().map(|i| (i.transform(), TransformType::INTEG)) {
        let transform = of_row(kind, row);
        assert!(row.id == 0 || keywords(Protocol::AH).iter().any(|(_, t)| *t == transform), "{}", row.name);
    }
}

#[test]
fn distances_are_of_single_characters() {
    for (a, b, expected) in [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("sha256", "sha265", 2),
        ("aes", "aes128", 3),
        ("kitten", "sitting", 3),
    ] {
        assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}");
    }
}

fn text() -> impl Strategy<Value = (Protocol, String)> {
    let tokens =
        PROTOCOLS.map(|protocol| keywords(protocol).into_iter().map(|(name, _)| name)).into_iter().flatten();
    let tokens: Vec<_> = tokens.chain(["ke1_x25519", "ke2_none", "ke7_mlkem768", "nothing"]).collect();
    let tokens =
        prop::collection::vec(prop::sample::select(tokens), 0..7).prop_map(|tokens| tokens.join("-"));
    (prop::sample::select(PROTOCOLS.to_vec()), tokens)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    /// What is printed is the same proposal, and it can be agreed on with itself.
    #[test]
    fn what_is_printed_is_read((protocol, text) in text()) {
        let Ok(proposals) = of(protocol, &text) else { return Ok(()) };
        let printed = proposals.to_string();
        prop_assert_eq!(of(protocol, &printed), Ok(proposals.clone()), "{}", printed);
        let spi = if protocol == Protocol::IKE { vec![] } else { vec![1; 4] };
        if let Some(agreement) = proposals.select(&proposals.offer(&spi), Default::default()) {
            let is_ike = protocol == Protocol::IKE;
            prop_assert_eq!((agreement.suite().is_some(), agreement.algorithm().is_some()), (is_ike, !is_ike));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
        for protocol in PROTOCOLS {
            let _ = of(protocol, &text).map_err(|error| error.to_string());
        }
    }
}
