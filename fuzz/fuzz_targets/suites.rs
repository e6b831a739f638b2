//! Octets of anyone are opened and verified by every algorithm: none is right, and what was sealed is opened only as it
//! was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_datapath::crypto::{Aead, Suite};
use portcullis_sadb::{Algorithm, Protocol};
use std::sync::LazyLock;

static SUITES: LazyLock<Vec<Suite>> = LazyLock::new(|| {
    let suite = |a: Algorithm| {
        Suite::new(a, &vec![0x5a; a.key_len() + a.salt_len()], Aead::best()).expect("key material")
    };
    Algorithm::all().map(suite).collect()
});

/// Octets, a number and whether it is extended, and which bit is changed of what is sealed.
fn check(octets: &[u8], seq: u64, esn: bool, flip: u32) {
    for suite in SUITES.iter() {
        let algorithm = suite.algorithm();
        let (name, mut esp) = (algorithm.name(), octets.to_vec());
        assert!(suite.open(&mut esp, seq, esn).is_none(), "{name} opens what nobody sealed");
        if algorithm.is_for(Protocol::Ah) {
            let iv = (algorithm.iv_len() > 0).then_some(seq.to_be_bytes());
            let icv = &octets[..octets.len().min(algorithm.icv_len())];
            assert!(
                suite.ah_verify(&[octets], seq, esn, iv, icv).is_none(),
                "{name} verifies what nobody made"
            );
            let mut icv = vec![0; algorithm.icv_len()];
            assert!(suite.ah_icv(&[octets], seq, esn, iv, &mut icv), "{name}");
            let (a, b) = octets.split_at(flip as usize % (octets.len() + 1));
            assert!(suite.ah_verify(&[a, b], seq, esn, iv, &icv).is_some(), "{name}");
            icv[flip as usize / 8 % algorithm.icv_len()] ^= 1 << (flip % 8);
            assert!(suite.ah_verify(&[octets], seq, esn, iv, &icv).is_none(), "{name}");
            continue;
        }
        let text_at = 8 + algorithm.iv_len();
        let len = octets.len() / algorithm.block() * algorithm.block();
        let mut esp = vec![0; text_at + len + algorithm.icv_len()];
        esp[4..8].copy_from_slice(&(seq as u32).to_be_bytes());
        esp[text_at..text_at + len].copy_from_slice(&octets[..len]);
        suite.seal(&mut esp, seq, esn);
        let (mut changed, bit) = (esp.clone(), flip as usize % (8 * esp.len()));
        // What is sent of the number is not looked at: it is in `seq`.
        if !(4..8).contains(&(bit / 8)) {
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(suite.open(&mut changed, seq, esn).is_none(), "{name} opens with bit {bit} changed");
        }
        assert!(suite.open(&mut esp, seq, esn).is_some(), "{name} does not open what it sealed");
        assert_eq!(esp[text_at..text_at + len], octets[..len], "{name}");
    }
}

fuzz_target!(|input: (Vec<u8>, u64, bool, u32)| {
    let (octets, seq, esn, flip) = input;
    check(&octets, seq, esn, flip);
});
