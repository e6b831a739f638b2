//! The packet path allocates nothing once it is warm.

mod testbed;

use portcullis_datapath::{
    general::{
        From,
        aggfrag::{Receiver, Sender},
        fragment::fragments,
        reassembly::{LARGEST, Limits, Outcome, Reassembly},
    },
    worker::Worker,
};
use portcullis_sadb::{Aggfrag, Handling};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use testbed::*;

struct Counting;

thread_local! {
    /// Of this thread alone: the test's own harness has others.
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static ON: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if ON.get() {
        COUNT.set(COUNT.get() + 1);
    }
}

// SAFETY: everything is passed on to the system's allocator; counting touches no memory of callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `f`, and returns how often memory was allocated, moved or freed in it.
fn allocations(f: impl FnOnce()) -> u64 {
    COUNT.set(0);
    ON.set(true);
    f();
    ON.set(false);
    COUNT.get()
}

/// Until none finds anything.
fn turn(workers: &mut [Worker], now_ms: u64) {
    while workers.iter_mut().fold(false, |busy, worker| worker.turn(now_ms) | busy) {}
}

#[test]
fn no_packet_allocates() {
    assert!(allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0, "the count counts");
    let (mut counted, mut delivered) = (0, 0);
    for (workers, lends) in [(1, false), (2, false), (2, true)] {
        let t = Tunnel { mtu: 9000, window: 65_536, workers, lends, ..Tunnel::default() };
        let (allocations, packets) = there_and_back(t);
        (counted, delivered) = (counted + allocations, delivered + packets);
    }
    let aggfrag = Some(Aggfrag { packet_size: 1400, packets_per_sec: 0, fragments: true });
    for handling in [
        Handling { aggfrag, ..Handling::default() },
        Handling { tfc_pad: 1000, dummies_per_sec: 100, ..Handling::default() },
    ] {
        let (allocations, packets) = there_and_back(Tunnel { mtu: 9000, handling, ..Tunnel::default() });
        (counted, delivered) = (counted + allocations, delivered + packets);
    }
    println!("{counted} allocations in {delivered} packets there and back");
    assert_eq!(counted, 0);
    assert_eq!(sizes(), 0);
}

/// Allocations of packets put together, given up, and aggregated, from the first on: the memory is taken before.
fn sizes() -> u64 {
    let limits = Limits { octets: 64 << 10, datagrams: 8, ..Limits::default() };
    let (mut reassembly, mut out) = (Reassembly::new(limits), vec![0; LARGEST]);
    let (mut sender, mut receiver) = (Sender::new(64 << 10, true), Receiver::new(3, 1400, 1));
    let frame = udp(inside(1, false), inside(2, false), 8000, 64);
    let packet = &frame[14..];
    let cut = |id| fragments(packet, 1400, id).expect("it is in order");
    let datagrams: Vec<Vec<Vec<u8>>> =
        (0..100).map(|id| cut(id).map(|part| [&part.head[..], part.body].concat()).collect()).collect();
    let (mut payload, mut seq, mut whole) = ([0; 1400], 0, 0);
    let counted = allocations(|| {
        for (i, parts) in datagrams.iter().cycle().take(2000).enumerate() {
            std::hint::black_box(cut(7).map(|part| part.len()).sum::<usize>());
            // The first fragment of every third is missing, so that the oldest have to go.
            for part in &parts[usize::from(i % 3 == 0)..] {
                whole += usize::from(matches!(
                    reassembly.insert(From::Clear, 0, part, &mut out),
                    Outcome::Done(_)
                ));
            }
            sender.push(packet).expect("there is room");
            while sender.queued() > 0 {
                seq += 1;
                sender.payload(None, &mut payload);
                // Some are lost, and those behind them wait.
                if seq % 50 > 0 {
                    receiver.accept(seq, &payload, |_| whole += 1).expect("within the window");
                }
            }
        }
        reassembly.expire(u64::MAX, |_| {});
    });
    assert!(whole > 2500 && receiver.lost() > 100 && reassembly.octets() == 0, "{whole}");
    counted
}

/// Allocations and packets.
fn there_and_back(t: Tunnel) -> (u64, u64) {
    let pool = memory(4096);
    let mut cache = pool.cache();
    let (mut one, mut two) = (Gateway::new(t, 1, &pool), Gateway::new(t, 2, &pool));
    let mut clear = vec![];
    for v4 in [true, false] {
        for payload in [0, 22, 512, 1400, 8000] {
            clear.push(udp(inside(1, v4), inside(2, v4), payload, 64));
        }
    }
    // Not for us, for nobody, and without a route: drops are on the packet path too.
    clear.push(vec![0; 60]);
    clear.push(udp(ip("10.7.0.1"), inside(2, true), 8, 64));
    clear.push(udp(inside(2, true), inside(1, true), 8, 64));
    let mut delivered = 0;
    let mut round = |turns: usize| {
        for i in 0..turns {
            for bytes in &clear {
                one.ends[0][LAN].send(frame(&mut cache, bytes)).unwrap();
            }
            turn(&mut one.workers, i as u64);
            while let Some(sealed) = one.ends.iter_mut().find_map(|ends| ends[WAN].receive()) {
                two.ends[0][WAN].send(sealed).unwrap();
            }
            turn(&mut two.workers, i as u64);
            while let Some(opened) = two.ends.iter_mut().find_map(|ends| ends[LAN].receive()) {
                delivered += 1;
                cache.give(opened);
            }
        }
    };
    round(2);
    let counted = allocations(|| round(2000));
    assert_eq!(delivered, 2002 * 10);
    (counted, delivered)
}
