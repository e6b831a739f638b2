//! Ports in memory: what one end sends the other receives. For tests and benchmarks; no system calls.

use super::{BURST, Port, PortStats};
use crate::{batch::BATCH, frame::Frame, pool::FrameCache};
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use std::{os::fd::BorrowedFd, sync::Arc};

/// One end of a pair.
pub struct MemoryPort {
    name: String,
    rx: Arc<ArrayQueue<Frame>>,
    tx: Arc<ArrayQueue<Frame>>,
}

impl MemoryPort {
    /// Two ends, with room for `capacity` frames each way.
    pub fn pair(name: &str, capacity: usize) -> (MemoryPort, MemoryPort) {
        let (a, b) = (Arc::new(ArrayQueue::new(capacity)), Arc::new(ArrayQueue::new(capacity)));
        let name = name.to_owned();
        (MemoryPort { name: name.clone(), rx: a.clone(), tx: b.clone() }, MemoryPort { name, rx: b, tx: a })
    }

    /// Receives one frame.
    pub fn receive(&mut self) -> Option<Frame> {
        self.rx.pop()
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// The frame, if the other end has no room.
    pub fn send(&mut self, frame: Frame) -> Result<(), Frame> {
        self.tx.push(frame)
    }
}

impl Port for MemoryPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx(&mut self, out: &mut ArrayVec<Frame, BATCH>, _cache: &mut FrameCache) {
        for _ in 0..BURST.min(out.remaining_capacity()) {
            let Some(frame) = self.rx.pop() else { break };
            out.push(frame);
        }
    }

    fn tx(&mut self, frames: &mut ArrayVec<Frame, BATCH>) {
        let room = self.tx.capacity() - self.tx.len();
        for frame in frames.drain(..room.min(frames.len())) {
            // One sender: the room seen above is still there.
            let sent = self.tx.push(frame);
            debug_assert!(sent.is_ok());
        }
    }

    fn maintain(&mut self, _cache: &mut FrameCache) {}

    fn poll_fds(&self, _tell: &mut dyn FnMut(BorrowedFd<'_>)) {}

    fn stats(&self) -> PortStats {
        PortStats::default()
    }

    fn close(&mut self, cache: &mut FrameCache) {
        while let Some(frame) = self.rx.pop() {
            cache.give(frame);
        }
    }
}
