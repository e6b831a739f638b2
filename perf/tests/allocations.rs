//! Sending and receiving allocate nothing.

use portcullis_datapath::{
    crypto::Aead,
    fib::Mac,
    pool::FramePool,
    port::memory::MemoryPort,
    umem::{HugePages, Umem},
};
use portcullis_perf::{
    gateway::{SOURCE, Setup, destination},
    generator::{
        Generator,
        disturbance::{Disturbance, Rates},
        flows::{Addresses, Choice, Flows},
        pace::Pace,
        receiver::Receiver,
        sealer::Sealer,
        writer::Stream,
    },
};
use portcullis_sadb::{Algorithm, Direction};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

struct Counting;

thread_local! {
    /// Of this thread alone: the test's own harness has others.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; counting touches no memory of callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_stream_that_runs_allocates_nothing() {
    let (hz, flows, mac) = (1e9, 100, Mac([2; 6]));
    let stream = |mix: &str| Stream {
        dst_mac: mac,
        src_mac: mac,
        mix: mix.parse().unwrap(),
        flows: Flows {
            dst: Addresses { first: destination(0).into(), count: flows },
            count: flows,
            packets: Choice::Random,
            ..Flows::one(SOURCE.into(), destination(0).into())
        },
        stamped: true,
        first_flow: 0,
        run: 1,
    };
    let (algorithm, aead) = (Algorithm::AES_GCM_128, Aead::best());
    let setup = Setup { sas: 10, workers: 1, metered: false, algorithm, aead, nat_t: false };
    let sas: Vec<_> = (0..10).map(|i| setup.sa(i, Direction::Outbound)).collect();
    let rates = Rates { replayed: 0.1, forged: 0.1, reordered: 0.1 };
    let disturbance = Disturbance::new(&rates, 20, 1).unwrap();
    let esp = Generator::new(&stream("64,570"), hz).unwrap();
    let esp = esp.sealed(Sealer::new(&sas, (mac, mac), aead).unwrap(), 4096).unwrap();
    let pool = FramePool::new(Umem::new(1024, 4096, HugePages::Off).unwrap().0);
    for mut generator in
        [Generator::new(&stream("64,9000"), hz).unwrap(), esp.disturbed(disturbance).unwrap()]
    {
        let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 512));
        let mut receiver = Receiver::new(1, flows as usize, hz);
        generator.set_pace(Some(Pace::new(0, hz, 1e7)));
        let before = COUNT.get();
        for now in (0..1_000_000).step_by(1000) {
            generator.turn(&mut near, &mut cache, || now);
            while receiver.receive(&mut far, &mut cache, || now) > 0 {}
        }
        assert_eq!(COUNT.get() - before, 0);
        assert!(receiver.received().frames > 9000);
        generator.close(&mut cache);
    }
}
