//! The handle of the running thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// The running thread. Dropping it stops it too.
#[derive(Debug)]
pub struct MirrorThread {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) thread: Option<thread::JoinHandle<()>>,
}

impl MirrorThread {
    /// Whether the thread has ended, which it does not do by itself but by a panic.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(|t| t.is_finished())
    }

    /// Stops the thread and waits for its end. An error if it had panicked.
    pub fn stop(mut self) -> thread::Result<()> {
        self.end()
    }

    fn end(&mut self) -> thread::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map_or(Ok(()), thread::JoinHandle::join)
    }
}

impl Drop for MirrorThread {
    fn drop(&mut self) {
        // A panic has been reported by the panic hook.
        let _ = self.end();
    }
}
