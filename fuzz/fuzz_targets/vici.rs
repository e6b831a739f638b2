//! Any octets are a message of VICI or are refused at one of them; what is a message is written as it was, and what a
//! client sends comes to the same however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_control::{
    swanctl,
    vici::{
        Malformed,
        message::{Message, Writer, parse},
        packet::Packet,
        session::Session,
    },
};

fn message(octets: &[u8]) {
    match parse(octets) {
        Ok(tree) => {
            let mut writer = Writer::default();
            writer.branch(&tree);
            assert_eq!(writer.finish().unwrap().octets(), octets);
            let _ = (swanctl::connections(&tree), swanctl::pools(&tree), swanctl::authorities(&tree));
            let _ = swanctl::secret::load_shared(&tree);
        }
        Err(malformed) => assert!(malformed.offset <= octets.len()),
    }
}

/// What is sent to a client, and how its octets end.
fn session(mut octets: &[u8], size: usize) -> (Vec<u8>, Result<(), Malformed>) {
    let mut session = Session::new(&["a", "list-sa"]);
    while !octets.is_empty() {
        let n = size.min(session.wanted()).min(octets.len());
        assert!(n > 0);
        if let Err(malformed) = session.handle_octets(&octets[..n]) {
            return (session.outbound().to_vec(), Err(malformed));
        }
        octets = &octets[n..];
        if let Some(request) = session.request() {
            match request.message() {
                Ok(_) => session.respond(&Message::outcome(Ok(()))),
                Err(_) => session.respond_unknown(),
            }
        }
    }
    (session.outbound().to_vec(), Ok(()))
}

fuzz_target!(|octets: &[u8]| {
    message(octets);
    if let Ok(packet) = Packet::parse(octets) {
        let mut emitted = vec![];
        packet.emit(&mut emitted).unwrap();
        assert_eq!(&emitted[4..], octets);
    }
    assert_eq!(session(octets, 1), session(octets, 4096));
});
