//! Ports in memory: what one end sends the other receives. For tests and benchmarks; no system calls.
//!
//! A burst costs one lock that nobody else holds, and a frame costs its move: what a benchmark sees is the
//! worker. Nothing is allocated after the start.

use super::{BURST, Port, PortStats};
use crate::{batch::BATCH, frame::Frame, pool::FrameCache};
use arrayvec::ArrayVec;
use std::{
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The frames under way, oldest first: a ring, as a NIC has it.
struct Ring {
    places: Box<[Option<Frame>]>,
    capacity: usize,
    /// Frames that were taken and put, ever.
    taken: usize,
    put: usize,
}

impl Ring {
    fn new(capacity: usize) -> Ring {
        let places = (0..capacity.next_power_of_two()).map(|_| None).collect();
        Ring { places, capacity, taken: 0, put: 0 }
    }

    fn len(&self) -> usize {
        self.put - self.taken
    }

    fn room(&self) -> usize {
        self.capacity - self.len()
    }

    /// To be called where there is room.
    #[inline]
    fn put(&mut self, frame: Frame) {
        let place = self.put & (self.places.len() - 1);
        self.places[place] = Some(frame);
        self.put += 1;
    }

    #[inline]
    fn take(&mut self) -> Option<Frame> {
        self.take_some(1).next()
    }

    #[inline]
    fn take_some(&mut self, n: usize) -> impl Iterator<Item = Frame> {
        let from = self.taken;
        self.taken += n.min(self.len());
        let mask = self.places.len() - 1;
        (from..self.taken).map_while(move |n| self.places[n & mask].take())
    }
}

/// One way of a pair.
struct Wire(Mutex<Ring>);

impl Wire {
    fn new(capacity: usize) -> Arc<Wire> {
        Arc::new(Wire(Mutex::new(Ring::new(capacity))))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Whoever panicked with the lock had the ring whole: nothing in it panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a pair.
pub struct MemoryPort {
    name: String,
    rx: Arc<Wire>,
    tx: Arc<Wire>,
}

impl MemoryPort {
    /// Two ends, with room for `capacity` frames each way.
    pub fn pair(name: &str, capacity: usize) -> (MemoryPort, MemoryPort) {
        let (a, b) = (Wire::new(capacity), Wire::new(capacity));
        let name = name.to_owned();
        (MemoryPort { name: name.clone(), rx: a.clone(), tx: b.clone() }, MemoryPort { name, rx: b, tx: a })
    }

    /// Receives one frame.
    pub fn receive(&mut self) -> Option<Frame> {
        self.rx.lock().take()
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// The frame, if the other end has no room.
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        let mut ring = self.tx.lock();
        if ring.room() == 0 {
            return Err(frame);
        }
        ring.put(frame);
        Ok(())
    }

    /// Frames that wait to be received.
    pub fn waiting(&self) -> usize {
        self.rx.lock().len()
    }
}

impl Port for MemoryPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx(&mut self, out: &mut ArrayVec<Frame, BATCH>, _cache: &mut FrameCache) {
        let mut ring = self.rx.lock();
        let room = BURST.min(out.remaining_capacity());
        out.extend(ring.take_some(room));
    }

    fn tx(&mut self, frames: &mut ArrayVec<Frame, BATCH>) {
        let mut ring = self.tx.lock();
        let n = frames.len().min(ring.room());
        frames.drain(..n).for_each(|frame| ring.put(frame));
    }

    fn maintain(&mut self, _cache: &mut FrameCache) {}

    fn poll_fds(&self, _tell: &mut dyn FnMut(BorrowedFd<'_>)) {}

    fn stats(&self) -> PortStats {
        PortStats::default()
    }

    fn close(&mut self, cache: &mut FrameCache) {
        while let Some(frame) = self.rx.lock().take() {
            cache.give(frame);
        }
    }
}
