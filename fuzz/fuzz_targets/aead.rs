//! Batches of any shape are sealed and opened as RustCrypto and ring do, by every AEAD of this CPU.
#![no_main]

#[path = "../../datapath/tests/batches/mod.rs"]
mod batches;

use batches::{MAX, Shape, check};
use libfuzzer_sys::fuzz_target;
use portcullis_datapath::crypto::Aead;

fuzz_target!(|input: (u64, Vec<(u8, u16, Option<u32>, u32)>)| {
    let (seed, shapes) = input;
    let shapes: Vec<_> = shapes
        .iter()
        .take(MAX)
        .map(|(kind, len, flip, cuts)| Shape::new(*kind, len % 9201, *flip, *cuts))
        .collect();
    let aeads: Vec<_> = Aead::ALL.into_iter().filter(|a| a.is_available()).collect();
    check(&aeads, seed, &shapes);
});
