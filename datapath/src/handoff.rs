//! Frames from worker to worker: each has one inbox that all others push to.

use crate::{frame::Frame, idle::Bell};
use crossbeam::queue::ArrayQueue;
use std::{io, sync::Arc};

/// Frames that an inbox holds.
pub const INBOX: usize = 1024;

/// One worker's inbox and its bell.
pub struct Inbox {
    frames: ArrayQueue<Frame>,
    /// Wakes the worker.
    pub bell: Bell,
}

/// A worker's end of all inboxes.
pub struct Handoff {
    me: usize,
    inboxes: Arc<[Inbox]>,
    /// Workers that got something since the last [`Handoff::ring`], bit by bit.
    rung: u64,
}

/// The ends for `workers` workers, in order; at most 64.
///
/// # Errors
/// What `eventfd(2)` says.
pub fn between(workers: usize) -> io::Result<Vec<Handoff>> {
    let inbox = |_| Ok(Inbox { frames: ArrayQueue::new(INBOX), bell: Bell::new()? });
    let inboxes: Arc<[Inbox]> = (0..workers).map(inbox).collect::<io::Result<Vec<_>>>()?.into();
    Ok((0..workers).map(|me| Handoff { me, inboxes: inboxes.clone(), rung: 0 }).collect())
}

impl Handoff {
    /// Gives a frame to another worker, who sees it after [`Handoff::ring`] at the latest.
    ///
    /// # Errors
    /// The frame, if the other's inbox is full.
    pub fn send(&mut self, to: usize, frame: Frame) -> Result<(), Frame> {
        self.inboxes[to].frames.push(frame)?;
        self.rung |= 1 << to;
        Ok(())
    }

    /// Wakes the workers that were given frames.
    pub fn ring(&mut self) {
        while self.rung != 0 {
            let to = self.rung.trailing_zeros() as usize;
            self.rung &= self.rung - 1;
            self.inboxes[to].bell.ring();
        }
    }

    /// The oldest frame in our inbox.
    pub fn receive(&self) -> Option<Frame> {
        self.inboxes[self.me].frames.pop()
    }

    /// Whether our inbox is empty.
    pub fn is_empty(&self) -> bool {
        self.inboxes[self.me].frames.is_empty()
    }

    /// Our bell.
    pub fn bell(&self) -> &Bell {
        &self.inboxes[self.me].bell
    }

    /// All inboxes, to ring the bells of all workers.
    pub fn inboxes(&self) -> Arc<[Inbox]> {
        self.inboxes.clone()
    }
}
