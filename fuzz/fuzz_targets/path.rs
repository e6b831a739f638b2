//! Any frame, at either port of a whole gateway in memory, is delivered or counted as one drop.
#![no_main]

#[path = "../../datapath/tests/testbed/mod.rs"]
mod testbed;

use libfuzzer_sys::fuzz_target;
use portcullis_datapath::pool::{FrameCache, FramePool};
use std::{cell::RefCell, sync::Arc};
use testbed::{Gateway, Tunnel, frame, memory};

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
        let out = gateway.pass(port as usize, frame);
        let dropped = gateway.drops().iter().sum::<u64>() - before;
        assert_eq!(out.len() as u64 + dropped, 1);
        for (_, frame) in out {
            cache.give(frame);
        }
    });
});
