//! Where the threads of a part wait for each other.

use portcullis_datapath::frame::Frame;
use std::{
    hint::spin_loop,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Turns without a packet after which the core is left to others.
const SPINS: u32 = 1000;

/// A line of the cache for each, so that who counts waits for nobody.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

/// All threads of a part, one for each path.
pub struct Meeting {
    /// How often a thread came here.
    arrived: AtomicUsize,
    /// Packets that went in so far.
    sent: AtomicUsize,
    /// Packets that came out, by path.
    out: Vec<Count>,
    /// What is on its way to another path.
    crossing: Mutex<Vec<Frame>>,
}

impl Meeting {
    /// Of so many threads.
    pub fn new(paths: usize) -> Meeting {
        let out = (0..paths).map(|_| Count::default()).collect();
        Meeting { arrived: AtomicUsize::new(0), sent: AtomicUsize::new(0), out, crossing: Mutex::default() }
    }

    /// Returns when all threads have come here. It spins at first: a thread that is woken is late.
    pub fn wait(&self) {
        let before = self.arrived.fetch_add(1, Ordering::AcqRel);
        let (all, mut idle) = ((before / self.out.len() + 1) * self.out.len(), 0);
        while self.arrived.load(Ordering::Acquire) < all {
            pause(&mut idle);
        }
    }

    /// So many packets go in. All must be told before any thread asks whether they are out.
    pub fn send(&self, packets: usize) {
        self.sent.fetch_add(packets, Ordering::Relaxed);
    }

    /// So many packets came out at this path since the meeting began.
    pub fn tell_out(&self, path: usize, packets: usize) {
        self.out[path].0.store(packets, Ordering::Relaxed);
    }

    /// Whether all packets are out.
    pub fn is_over(&self) -> bool {
        let out: usize = self.out.iter().map(|count| count.0.load(Ordering::Relaxed)).sum();
        out >= self.sent.load(Ordering::Relaxed)
    }

    /// Leaves frames to whoever takes them. Nobody does both at a time.
    pub fn leave(&self, frames: impl Iterator<Item = Frame>) {
        self.crossing.lock().unwrap_or_else(PoisonError::into_inner).extend(frames);
    }

    /// What others left.
    pub fn take(&self) -> Vec<Frame> {
        std::mem::take(&mut self.crossing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Once more for nothing: spins, and leaves the core to others if that goes on.
pub fn pause(idle: &mut u32) {
    *idle += 1;
    if *idle > SPINS { std::thread::yield_now() } else { spin_loop() }
}
