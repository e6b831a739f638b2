//! Any frame gets a decision that names a worker or the kernel.
#![no_main]

#[path = "../../ebpf/tests/frames/tables.rs"]
#[allow(dead_code)]
mod tables;

use libfuzzer_sys::fuzz_target;
use portcullis_ebpf::{TO_KERNEL, steer};

fuzz_target!(|frame: &[u8]| {
    let decision = steer(frame, 4, &tables::tables());
    assert!(decision.worker < 4 || decision.worker == TO_KERNEL, "{decision:?}");
});
