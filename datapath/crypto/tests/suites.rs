//! Every algorithm of the table, by what the datapath has of it: that it seals and opens, that nothing that was changed
//! is opened, and that its packets are those of other libraries.

use portcullis_crypto::{Aead, Suite};
use portcullis_sadb::{Algorithm, Encryption, Protocol};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// Octets of SPI and sequence number.
const HEAD: usize = 8;
const SPI: u32 = 0x8765_4321;
const SEQ: u64 = 0x12_3456_789a;

fn material(algorithm: Algorithm, n: u8) -> Vec<u8> {
    (0..algorithm.key_len() + algorithm.salt_len()).map(|i| (i as u8).wrapping_mul(29) ^ n).collect()
}

fn suite(algorithm: Algorithm) -> Suite {
    Suite::new(algorithm, &material(algorithm, 7), Aead::best()).expect("it is in the table")
}

/// Texts of these lengths end where a cipher wants it.
fn lengths(algorithm: Algorithm) -> impl Iterator<Item = usize> {
    [0, 4, 16, 20, 32, 64, 100, 128, 240, 256, 272, 1400, 1408, 9200]
        .into_iter()
        .filter(move |len| usize::is_multiple_of(*len, algorithm.block()))
}

/// A text between SPI, sequence number and room for an IV, and room for an ICV.
fn clear(algorithm: Algorithm, seq: u64, text: usize) -> Vec<u8> {
    let text: Vec<u8> = (0..text).map(|i| (i * 3 + i / 256) as u8).collect();
    let rooms = [vec![0xaa; algorithm.iv_len()], vec![0xbb; algorithm.icv_len()]];
    [&SPI.to_be_bytes()[..], &(seq as u32).to_be_bytes(), &rooms[0], &text, &rooms[1]].concat()
}

/// Where a packet's text is.
fn text(algorithm: Algorithm, esp: &[u8]) -> std::ops::Range<usize> {
    HEAD + algorithm.iv_len()..esp.len() - algorithm.icv_len()
}

/// Opens a packet as a receiver does, who has the number's low half from the packet.
fn open(suite: &Suite, esp: &mut [u8], high: u64, esn: bool) -> bool {
    let low = u32::from_be_bytes(esp[4..8].try_into().unwrap());
    suite.open(esp, high << 32 | u64::from(low), esn).is_some()
}

/// Whether what it sends can be read by everyone.
fn is_clear(algorithm: Algorithm) -> bool {
    use Encryption::*;
    matches!(algorithm.encryption(), Null | AesGmac128 | AesGmac192 | AesGmac256)
}

#[test]
fn all_of_the_table_is_sealed_and_opened() {
    for algorithm in Algorithm::all_for(Protocol::Esp) {
        let (name, suite) = (algorithm.name(), suite(algorithm));
        assert_eq!(suite.algorithm(), algorithm);
        for (len, esn) in lengths(algorithm).flat_map(|len| [(len, false), (len, true)]) {
            let seq = if esn { SEQ } else { u64::from(SEQ as u32) };
            let before = clear(algorithm, seq, len);
            let at = text(algorithm, &before);
            let mut esp = before.clone();
            suite.seal(&mut esp, seq, esn);
            assert_eq!(esp[..HEAD], before[..HEAD], "{name}, {len}");
            assert_eq!(
                esp[at.clone()] == before[at.clone()],
                len == 0 || is_clear(algorithm),
                "{name}, {len}"
            );
            assert_ne!(esp[at.end..], before[at.end..], "{name}, {len}");
            // Counters are IVs; what is unpredictable is none.
            let is_counter = esp[HEAD..at.start] == seq.to_be_bytes()[..algorithm.iv_len().min(8)];
            let is_cbc = algorithm.iv_len() == 16 || algorithm.block() == 8;
            assert_eq!(is_counter, !is_cbc, "{name}, {len}");
            assert!(open(&suite, &mut esp, seq >> 32, esn), "{name}, {len}");
            assert_eq!(esp[at.clone()], before[at], "{name}, {len}");
        }
        assert!(suite.ah_icv(&[], 1, false, None, &mut vec![0; algorithm.icv_len()]).eq(&false), "{name}");
    }
    for algorithm in Algorithm::all_for(Protocol::Ah) {
        let (name, suite) = (algorithm.name(), suite(algorithm));
        let (iv, packet) = ((algorithm.iv_len() > 0).then_some(SEQ.to_be_bytes()), [3; 100]);
        let mut icv = vec![0; algorithm.icv_len()];
        assert!(suite.ah_icv(&[&packet], SEQ, true, iv, &mut icv), "{name}");
        assert!(suite.ah_verify(&[&packet], SEQ, true, iv, &icv).is_some(), "{name}");
        // However it is cut.
        for cut in 0..packet.len() {
            let (a, b) = packet.split_at(cut);
            assert!(suite.ah_verify(&[a, &[], b], SEQ, true, iv, &icv).is_some(), "{name}, {cut}");
        }
        let mut esp = [1; 200];
        assert!(suite.open(&mut esp, 1, false).is_none(), "{name}");
        suite.seal(&mut esp, 1, false);
        assert_eq!(esp, [0; 200], "{name}: what is not sealed does not leave");
    }
}

#[test]
fn key_material_has_one_length() {
    for algorithm in Algorithm::all() {
        let right = algorithm.key_len() + algorithm.salt_len();
        for len in 0..128 {
            assert_eq!(
                Suite::new(algorithm, &vec![1; len], Aead::best()).is_some(),
                len == right,
                "{}, {len}",
                algorithm.name()
            );
        }
    }
}

/// RFC 4303 §3.4.4.1: the whole packet is covered, and with ESN what is not sent of the number.
#[test]
fn nothing_that_was_changed_is_opened() {
    for algorithm in Algorithm::all_for(Protocol::Esp) {
        let (name, suite) = (algorithm.name(), suite(algorithm));
        for len in lengths(algorithm).filter(|len| *len <= 272) {
            let mut sealed = clear(algorithm, SEQ, len);
            suite.seal(&mut sealed, SEQ, true);
            let at = text(algorithm, &sealed);
            for bit in 0..8 * sealed.len() {
                let mut esp = sealed.clone();
                esp[bit / 8] ^= 1 << (bit % 8);
                let changed = esp.clone();
                assert!(!open(&suite, &mut esp, SEQ >> 32, true), "{name}, {len}, bit {bit}");
                // As it came, or wiped: nothing of it is left decrypted.
                let came = esp[at.clone()] == changed[at.clone()];
                assert!(came || esp[at.clone()].iter().all(|a| *a == 0), "{name}, {len}, bit {bit}");
            }
            for high in [0, 0x13, 0x12 ^ 1 << 31] {
                assert!(!open(&suite, &mut sealed.clone(), high, true), "{name}, {len}");
            }
            // Without ESN it is another packet.
            assert!(!open(&suite, &mut sealed.clone(), 0, false), "{name}, {len}");
            for cut in 1..=algorithm.block().min(sealed.len()) {
                let shorter = sealed.len() - cut;
                assert!(
                    !open(&suite, &mut sealed.clone()[..shorter], SEQ >> 32, true),
                    "{name}, {len}, {cut} less"
                );
            }
            assert!(open(&suite, &mut sealed, SEQ >> 32, true), "{name}, {len}");
        }
    }
}

/// RFC 4302 §3.4.4, §3.3.3.2.2.
#[test]
fn nothing_that_was_changed_is_verified() {
    for algorithm in Algorithm::all_for(Protocol::Ah) {
        let (name, suite) = (algorithm.name(), suite(algorithm));
        let (iv, packet) = ((algorithm.iv_len() > 0).then_some(SEQ.to_be_bytes()), [5; 61]);
        let mut icv = vec![0; algorithm.icv_len()];
        assert!(suite.ah_icv(&[&packet], SEQ, true, iv, &mut icv));
        let is_right =
            |packet: &[u8], seq, esn, iv, icv: &[u8]| suite.ah_verify(&[packet], seq, esn, iv, icv).is_some();
        assert!(is_right(&packet, SEQ, true, iv, &icv), "{name}");
        for bit in 0..8 * packet.len() {
            let mut changed = packet;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(&changed, SEQ, true, iv, &icv), "{name}, bit {bit}");
        }
        for bit in 0..8 * icv.len() {
            let mut changed = icv.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(&packet, SEQ, true, iv, &changed), "{name}, bit {bit} of the ICV");
        }
        for bit in 32..64 {
            assert!(!is_right(&packet, SEQ ^ 1 << bit, true, iv, &icv), "{name}, bit {bit} of the number");
        }
        assert!(!is_right(&packet, SEQ, false, iv, &icv), "{name} without ESN");
        for len in (0..100).filter(|len| *len != icv.len()) {
            assert!(!is_right(&packet, SEQ, true, iv, &vec![0; len]), "{name}, ICV of {len}");
            assert!(!suite.ah_icv(&[&packet], SEQ, true, iv, &mut vec![0; len]), "{name}, ICV of {len}");
        }
        let other = if iv.is_some() { None } else { Some([0; 8]) };
        assert!(!is_right(&packet, SEQ, true, other, &icv), "{name}, IV {other:?}");
        for bit in 0..if iv.is_some() { 64 } else { 0 } {
            let iv = Some((SEQ ^ 1 << bit).to_be_bytes());
            assert!(!is_right(&packet, SEQ, true, iv, &icv), "{name}, bit {bit} of the IV");
        }
    }
}

/// OpenSSL's packets, which `vectors/suites.py` made of what the RFCs say.
#[test]
fn packets_are_those_of_openssl() {
    let all = include_str!("vectors/suites.rsp");
    let mut seen = HashSet::new();
    for paragraph in all.split("\n\n").filter(|p| p.starts_with("Algorithm")) {
        let values: HashMap<_, _> = paragraph.lines().map(|line| line.split_once(" = ").unwrap()).collect();
        let get = |name| hex(values[name]);
        let (name, is_ah) = (values["Algorithm"], values.contains_key("AH"));
        let protocol = if is_ah { Protocol::Ah } else { Protocol::Esp };
        let algorithm = Algorithm::by_name(protocol, name).unwrap_or_else(|| panic!("{name}"));
        let suite = Suite::new(algorithm, &get("Key"), Aead::best()).unwrap_or_else(|| panic!("{name}"));
        let (seq, esn) = (u64::from_be_bytes(get("Seq").try_into().unwrap()), values["ESN"] == "01");
        seen.insert((algorithm, esn));
        if is_ah {
            let (packet, icv) = (get("AH"), get("ICV"));
            let iv = (algorithm.iv_len() > 0).then_some(seq.to_be_bytes());
            let mut made = vec![0; icv.len()];
            assert!(suite.ah_icv(&[&packet], seq, esn, iv, &mut made));
            assert_eq!(made, icv, "{name}");
            assert!(suite.ah_verify(&[&packet], seq, esn, iv, &icv).is_some(), "{name}");
            continue;
        }
        let (packet, clear) = (get("Packet"), get("Text"));
        let at = text(algorithm, &packet);
        let mut esp = packet.clone();
        assert!(open(&suite, &mut esp, seq >> 32, esn), "{name}");
        assert_eq!(esp[at.clone()], clear, "{name}");
        // In CBC whoever seals picks the IV.
        if algorithm.iv_len() != 16 && algorithm.block() != 8 {
            esp[HEAD..at.start].fill(0xaa);
            esp[at.end..].fill(0xbb);
            suite.seal(&mut esp, seq, esn);
            assert_eq!(esp, packet, "{name}");
        }
    }
    let expected: HashSet<_> = Algorithm::all().flat_map(|a| [(a, false), (a, true)]).collect();
    assert_eq!(seen, expected);
}

/// RFC 7634 §A.
#[test]
fn the_esp_packet_of_rfc_7634() {
    let key = hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3");
    let packet = hex(concat!(
        "01020304000000051011121314151617",
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7",
        "2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0",
        "76aaa8266b7fb0f7b11b369907e1ad43"
    ));
    let clear = hex(concat!(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f1011121314151617",
        "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020204"
    ));
    opens("chacha20-poly1305", &key, &packet, &clear);
}

/// The GMAC packet of draft-mcgrew-gcm-test-01, of RFC 4543 §3.
#[test]
fn the_esp_packet_with_gmac_of_the_draft() {
    let key = hex("4c80cdefbb5d10da906ac73c3613a63422433c64");
    let clear = hex(concat!(
        "45000030da3a00008001df3bc0a80005c0a800010800c6cd02000700",
        "6162636465666768696a6b6c6d6e6f707172737401020201"
    ));
    let icv = hex("f2a9a836e155106aa8dcd618e4099aaa");
    let packet = [&hex("00004321000000070000000000000000")[..], &clear, &icv].concat();
    opens("aes-gmac-128", &key, &packet, &clear);
}

fn opens(name: &str, key: &[u8], packet: &[u8], clear: &[u8]) {
    let algorithm = Algorithm::by_name(Protocol::Esp, name).unwrap();
    let (suite, mut esp) = (Suite::new(algorithm, key, Aead::best()).unwrap(), packet.to_vec());
    assert!(open(&suite, &mut esp, 0, false), "{name}");
    assert_eq!(&esp[text(algorithm, packet)], clear, "{name}");
}

/// RFC 3602 §3: an IV that can be told from the one before is none.
#[test]
fn ivs_of_cbc_do_not_tell_of_each_other() {
    let named = |name| Algorithm::by_name(Protocol::Esp, name).unwrap();
    for name in ["aes-cbc-128+hmac-sha2-256-128", "aes-cbc-192+aes-cmac-96", "aes-cbc-256+hmac-sha1-96"] {
        let algorithm = named(name);
        let iv = |suite: &Suite, spi: u32, seq: u64| {
            let mut esp = clear(algorithm, seq, 32);
            esp[..4].copy_from_slice(&spi.to_be_bytes());
            suite.seal(&mut esp, seq, true);
            u128::from_be_bytes(esp[HEAD..HEAD + 16].try_into().unwrap())
        };
        let (one, other) =
            (suite(algorithm), Suite::new(algorithm, &material(algorithm, 8), Aead::best()).unwrap());
        let ivs: Vec<_> = (1..=4096).map(|seq| iv(&one, 300, seq)).collect();
        assert_eq!(ivs.iter().collect::<HashSet<_>>().len(), ivs.len(), "{name}");
        // Half of the bits differ, with a deviation of 5.7 / 64 of one pair's.
        let differ: u32 = ivs.windows(2).map(|pair| (pair[0] ^ pair[1]).count_ones()).sum();
        assert!((63.0..65.0).contains(&(f64::from(differ) / 4095.0)), "{name}: {differ}");
        for (what, iv) in
            [("key", iv(&other, 300, 1)), ("SPI", iv(&one, 301, 1)), ("half", iv(&one, 300, 1 << 32 | 1))]
        {
            assert!((32..96).contains(&(ivs[0] ^ iv).count_ones()), "{name}, another {what}");
        }
    }
}

proptest! {
    /// Of any octets nothing is opened, and nothing panics.
    #[test]
    fn what_nobody_sealed_is_refused(
        octets in proptest::collection::vec(any::<u8>(), 0..400),
        (seq, esn) in any::<(u64, bool)>(),
    ) {
        for algorithm in Algorithm::all() {
            let (name, suite) = (algorithm.name(), suite(algorithm));
            let mut esp = octets.clone();
            prop_assert!(suite.open(&mut esp, seq, esn).is_none(), "{name}");
            suite.seal(&mut esp, seq, esn);
            let icv = &octets[..octets.len().min(algorithm.icv_len())];
            let iv = (algorithm.iv_len() > 0).then_some([9; 8]);
            prop_assert!(suite.ah_verify(&[&octets], seq, esn, iv, icv).is_none(), "{name}");
        }
    }

    /// ring has some of the algorithms, too.
    #[test]
    fn packets_are_those_of_ring(
        (key, salt) in any::<([u8; 32], [u8; 4])>(),
        clear in proptest::collection::vec(any::<u8>(), 0..1500),
        (spi, seq, esn) in any::<(u32, u64, bool)>(),
    ) {
        use ring::{aead, hmac};
        let seq = if esn { seq } else { seq & u64::from(u32::MAX) };
        let head = [spi.to_be_bytes(), (seq as u32).to_be_bytes()].concat();
        let sealed_by = |name, key: &[u8]| {
            let algorithm = Algorithm::by_name(Protocol::Esp, name).unwrap();
            let rooms = (vec![0; algorithm.iv_len()], vec![0; algorithm.icv_len()]);
            let mut esp = [&head[..], &rooms.0, &clear, &rooms.1].concat();
            Suite::new(algorithm, key, Aead::best()).unwrap().seal(&mut esp, seq, esn);
            esp
        };
        let aad = match esn {
            true => [&spi.to_be_bytes()[..], &seq.to_be_bytes()].concat(),
            false => head.clone(),
        };
        let nonce = || aead::Nonce::try_assume_unique_for_key(&[&salt[..], &seq.to_be_bytes()].concat()).unwrap();
        for (name, of, key) in [
            ("chacha20-poly1305", &aead::CHACHA20_POLY1305, &key[..]),
            ("chacha20-poly1305-iiv", &aead::CHACHA20_POLY1305, &key[..]),
            ("aes-gcm-128-iiv", &aead::AES_128_GCM, &key[..16]),
            ("aes-gcm-256-iiv", &aead::AES_256_GCM, &key[..]),
            ("aes-gcm-256-icv12", &aead::AES_256_GCM, &key[..]),
            ("aes-gcm-128-icv8", &aead::AES_128_GCM, &key[..16]),
        ] {
            let ring = aead::LessSafeKey::new(aead::UnboundKey::new(of, key).unwrap());
            let mut text = clear.clone();
            let tag = ring.seal_in_place_separate_tag(nonce(), aead::Aad::from(&aad), &mut text).unwrap();
            let esp = sealed_by(name, &[key, &salt].concat());
            let algorithm = Algorithm::by_name(Protocol::Esp, name).unwrap();
            let icv = &tag.as_ref()[..algorithm.icv_len()];
            let iv = &seq.to_be_bytes()[..algorithm.iv_len()];
            prop_assert_eq!(esp, [&head[..], iv, &text, icv].concat(), "{}", name);
        }
        let high = &seq.to_be_bytes()[..if esn { 4 } else { 0 }];
        for (name, of, key_len, icv) in [
            ("null+hmac-sha1-96", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 20, 12),
            ("null+hmac-sha2-256-128", hmac::HMAC_SHA256, 32, 16),
            ("null+hmac-sha2-384-192", hmac::HMAC_SHA384, 48, 24),
            ("null+hmac-sha2-512-256", hmac::HMAC_SHA512, 64, 32),
        ] {
            let key = &[key, key].concat()[..key_len];
            let tag = hmac::sign(&hmac::Key::new(of, key), &[&head[..], &clear, high].concat());
            let expected = [&head[..], &clear, &tag.as_ref()[..icv]].concat();
            prop_assert_eq!(sealed_by(name, key), expected, "{}", name);
        }
    }
}
