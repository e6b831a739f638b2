//! Any octets are a message of IKEv1, in clear or decrypted, or are refused. What is one is the same when it is emitted and parsed
//! again, and its bodies are where they are said to be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ike::message::{
    Header, PayloadType,
    isakmp::{self, Chain},
};

fn chain(first: PayloadType, octets: &[u8], is_padded: bool) {
    match Chain::parse(first, octets, is_padded) {
        Ok(chain) => {
            assert_eq!(chain.bodies.len(), chain.payloads.len());
            assert!(chain.behind_first(octets).len() <= octets.len());
            for (payload, at) in chain.payloads.iter().zip(&chain.bodies) {
                assert_eq!(isakmp::body(payload).unwrap().len(), octets[at.clone()].len());
            }
            let (kind, emitted) = isakmp::emit(&chain.payloads).unwrap();
            assert_eq!(kind, first);
            assert_eq!(Chain::parse(kind, &emitted, false), Ok(chain));
        }
        Err(malformed) => assert!(malformed.offset <= octets.len()),
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (first, octets) = input;
    if let Ok((_, first, body)) = Header::parse(octets) {
        chain(first, body, false);
    }
    for is_padded in [false, true] {
        chain(PayloadType(first), octets, is_padded);
    }
    let _ = isakmp::attributes(octets);
});
