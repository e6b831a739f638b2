//! Batches of any shape are sealed and opened as RustCrypto and ring do, by every AEAD of this CPU.
#![no_main]

#[path = "../../datapath/crypto/tests/batches/mod.rs"]
mod batches;

use batches::{MAX, Shape, check};
use libfuzzer_sys::fuzz_target;
use portcullis_crypto::Aead;

/// A packet's kind, its length, which bit of it is changed, and where it is cut.
type Packet = (u8, u16, Option<u32>, u32);

fuzz_target!(|input: (u64, Vec<Packet>)| {
    let (seed, shapes) = input;
    let shapes: Vec<_> = shapes
        .iter()
        .take(MAX)
        .map(|(kind, len, flip, cuts)| Shape::new(*kind, len % 9201, *flip, *cuts))
        .collect();
    let aeads: Vec<_> = Aead::ALL.into_iter().filter(|a| a.is_available()).collect();
    check(&aeads, seed, &shapes);
});
