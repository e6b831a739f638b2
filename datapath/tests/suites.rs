//! Every algorithm of the table, by what the datapath has of it: that it seals and opens, that nothing that was changed
//! is opened, and that its packets are those of other libraries.

use portcullis_datapath::crypto::Suite;
use portcullis_sadb::{Algorithm, Encryption, Protocol};

/// Octets of SPI and sequence number.
const HEAD: usize = 8;
const SPI: u32 = 0x8765_4321;
const SEQ: u64 = 0x12_3456_789a;

fn material(algorithm: Algorithm, n: u8) -> Vec<u8> {
    (0..algorithm.key_len() + algorithm.salt_len()).map(|i| (i as u8).wrapping_mul(29) ^ n).collect()
}

fn suite(algorithm: Algorithm) -> Suite {
    Suite::new(algorithm, &material(algorithm, 7)).expect("it is in the table")
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
            assert_eq!(is_counter, algorithm.iv_len() != 16, "{name}, {len}");
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
                Suite::new(algorithm, &vec![1; len]).is_some(),
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
            let clear = sealed.clone();
            suite.seal(&mut sealed, SEQ, true);
            let at = text(algorithm, &sealed);
            for bit in 0..8 * sealed.len() {
                let mut esp = sealed.clone();
                esp[bit / 8] ^= 1 << (bit % 8);
                assert!(!open(&suite, &mut esp, SEQ >> 32, true), "{name}, {len}, bit {bit}");
                let is_readable = esp[at.clone()].iter().zip(&clear[at.clone()]).all(|(a, b)| a == b);
                assert!(is_clear(algorithm) || len == 0 || !is_readable, "{name}, {len}, bit {bit}");
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
