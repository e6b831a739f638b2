//! A port: where frames come from and go to. Each worker has its own half of each port.

use crate::{batch::BATCH, frame::Frame, pool::FrameCache};
use arrayvec::ArrayVec;
use std::os::fd::BorrowedFd;

pub mod af_xdp;
pub mod memory;
pub mod pcap;

/// Packets that a port gives or takes at a time.
pub const BURST: usize = 64;

/// What a port counts of itself, beyond what its worker counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortStats {
    /// Frames dropped since the receive ring was full.
    pub rx_ring_full: u64,
    /// Frames dropped since the kernel had no chunk to put them in.
    pub rx_no_chunk: u64,
    /// Other frames dropped by the kernel on receipt.
    pub rx_dropped: u64,
    /// Descriptors that the kernel refused.
    pub invalid: u64,
}

/// One worker's half of a port.
pub trait Port: Send {
    /// Its name, for reports.
    fn name(&self) -> &str;

    /// Receives at most [`BURST`] packets, as far as `out` has room.
    fn rx(&mut self, out: &mut ArrayVec<Frame, BATCH>, cache: &mut FrameCache);

    /// Sends frames from the front of the list, as far as there is room; the rest stays there.
    fn tx(&mut self, frames: &mut ArrayVec<Frame, BATCH>);

    /// Once per turn: what was sent goes back to the cache, what can be received gets chunks, and the kernel is
    /// woken if it wants to be.
    fn maintain(&mut self, cache: &mut FrameCache);

    /// What to poll for readability while there is nothing to do.
    fn poll_fds(&self, tell: &mut dyn FnMut(BorrowedFd<'_>));

    /// What it counts.
    fn stats(&self) -> PortStats;

    /// The end: frames that it still has go back, if they can.
    fn close(&mut self, cache: &mut FrameCache);
}
