//! Ports in memory: what one end sends the other receives. For tests and benchmarks; no system calls.
//!
//! A burst costs one lock that nobody else holds, and a frame costs its move: what a benchmark sees is the
//! worker. Nothing is allocated after the start.

use super::{BURST, Port, PortStats};
use crate::{batch::BATCH, frame::Frame, pool::FrameCache};
use arrayvec::ArrayVec;
use std::{
    collections::VecDeque,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One way of a pair: the frames under way, oldest first.
struct Wire {
    frames: Mutex<VecDeque<Frame>>,
    capacity: usize,
}

impl Wire {
    fn new(capacity: usize) -> Arc<Wire> {
        Arc::new(Wire { frames: Mutex::new(VecDeque::with_capacity(capacity)), capacity })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Frame>> {
        // Whoever panicked with the lock had the queue whole: each change of it is one call.
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.rx.lock().pop_front()
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// The frame, if the other end has no room.
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        let mut frames = self.tx.lock();
        if frames.len() == self.tx.capacity {
            return Err(frame);
        }
        frames.push_back(frame);
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
        let mut frames = self.rx.lock();
        let n = BURST.min(out.remaining_capacity()).min(frames.len());
        out.extend(frames.drain(..n));
    }

    fn tx(&mut self, frames: &mut ArrayVec<Frame, BATCH>) {
        let mut sent = self.tx.lock();
        let n = frames.len().min(self.tx.capacity - sent.len());
        sent.extend(frames.drain(..n));
    }

    fn maintain(&mut self, _cache: &mut FrameCache) {}

    fn poll_fds(&self, _tell: &mut dyn FnMut(BorrowedFd<'_>)) {}

    fn stats(&self) -> PortStats {
        PortStats::default()
    }

    fn close(&mut self, cache: &mut FrameCache) {
        for frame in self.rx.lock().drain(..) {
            cache.give(frame);
        }
    }
}
