//! Any octets are an IKEv2 message or are refused. What is one is emitted, but for reserved bits, as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_ike::message::{Message, PayloadType, Payloads};

/// The emitted octets are those that were parsed, or have fewer bits set.
fn cleared(emitted: &[u8], parsed: &[u8]) -> bool {
    emitted.len() == parsed.len()
        && emitted.iter().zip(parsed).all(|(emitted, parsed)| emitted & !parsed == 0)
}

fn message(octets: &[u8]) {
    match Message::parse(octets) {
        Ok(message) => {
            let emitted = message.emit().unwrap();
            assert!(cleared(&emitted, octets));
            if let Some(sealed) = &message.sealed {
                let headers = sealed.headers(octets);
                assert!(headers.len() >= 32 && [headers, &sealed.body].concat() == octets);
            }
            assert_eq!(Message::parse(&emitted), Ok(message));
        }
        Err(malformed) => assert!(malformed.offset <= octets.len()),
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (first, octets) = input;
    message(octets);
    if octets.len() >= 28 {
        let mut whole = octets.to_vec();
        whole[17] = 0x20 | whole[17] & 15;
        whole[24..28].copy_from_slice(&(octets.len() as u32).to_be_bytes());
        message(&whole);
    }
    let first = PayloadType(first);
    match Payloads::parse(first, octets) {
        Ok(payloads) => {
            let (kind, emitted) = payloads.emit().unwrap();
            assert!(kind == first && cleared(&emitted, octets));
            assert_eq!(Payloads::parse(first, &emitted), Ok(payloads));
        }
        Err(malformed) => assert!(malformed.offset <= octets.len()),
    }
});
