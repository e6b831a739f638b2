//! Any frame, at either port of a whole gateway in memory, is delivered, if need be in pieces, or counted as one drop; a
//! fragment that nothing more comes of, when it is too late for that.
#![no_main]

#[path = "../../datapath/tests/testbed/mod.rs"]
mod testbed;

use libfuzzer_sys::fuzz_target;
use portcullis_datapath::pool::{FrameCache, FramePool};
use std::{cell::RefCell, sync::Arc};
use testbed::{Gateway, Tunnel, frame, memory};

/// Longer than fragments wait for each other, and than the looks for those that are too late are apart.
const PATIENCE_MS: u64 = 120_000;

thread_local! {
    static GATEWAY: RefCell<(Gateway, FrameCache, Arc<FramePool>)> = RefCell::new({
        let pool = memory(1024);
        (Gateway::new(Tunnel { workers: 2, ..Tunnel::default() }, 2, &pool), pool.cache(), pool)
    });
}

fuzz_target!(|input: (bool, &[u8])| {
    let (port, bytes) = input;
    GATEWAY.with_borrow_mut(|(gateway, cache, _)| {
        let before: u64 = gateway.drops().iter().sum();
        let frame = frame(cache, &bytes[..bytes.len().min(9000)]);
        let mut out = gateway.pass(port as usize, frame);
        if out.is_empty() && gateway.drops().iter().sum::<u64>() == before {
            gateway.now_ms += PATIENCE_MS;
            gateway.turn();
            out = gateway.collect();
        }
        let dropped = gateway.drops().iter().sum::<u64>() - before;
        assert!(
            if out.is_empty() { dropped == 1 } else { dropped == 0 },
            "{} out, {dropped} dropped",
            out.len()
        );
        for (_, frame) in out {
            cache.give(frame);
        }
    });
});
