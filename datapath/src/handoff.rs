//! Frames from worker to worker: each has one inbox that all others push to.

use crate::{
    frame::Frame,
    idle::Bell,
    loan::{LOANS, Queue},
};
use crossbeam::queue::ArrayQueue;
use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

/// Frames that an inbox holds.
pub const INBOX: usize = 1024;

/// One worker's inbox and its bell.
pub struct Inbox {
    frames: ArrayQueue<Frame>,
    /// Its loans that nobody has taken.
    pub lent: Queue,
    /// Its loans that others have done.
    pub done: Queue,
    /// Whether it would do loans of others: told when that changes.
    pub has_time: AtomicBool,
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
    let inbox = |_| {
        let (frames, lent, done) = (ArrayQueue::new(INBOX), ArrayQueue::new(LOANS), ArrayQueue::new(LOANS));
        Ok(Inbox { frames, lent, done, has_time: AtomicBool::new(true), bell: Bell::new()? })
    };
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

    /// Which worker's end it is.
    pub fn me(&self) -> usize {
        self.me
    }

    /// All others are to look for what they might do, after [`Handoff::ring`] at the latest.
    pub fn call(&mut self) {
        self.rung |= (u64::MAX >> (64 - self.inboxes.len())) & !(1 << self.me);
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

    /// Whether there is nothing for us: no frames, and no loans to be done.
    pub fn is_empty(&self) -> bool {
        self.inboxes[self.me].frames.is_empty() && self.inboxes.iter().all(|inbox| inbox.lent.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idle;

    fn frame(n: u8) -> Frame {
        let mut frame = Frame::boxed(64);
        assert!(frame.extend(1));
        frame.bytes_mut()[0] = n;
        frame
    }

    fn is_rung(end: &Handoff) -> bool {
        let mut fds = [idle::readable(end.bell().fd())];
        idle::sleep_on(&mut fds, 0);
        fds[0].revents != 0
    }

    #[test]
    fn frames_arrive_in_order_at_whom_they_are_for() {
        let mut ends = between(3).unwrap();
        for n in 0..100 {
            ends[0].send(1 + n as usize % 2, frame(n)).unwrap();
        }
        for (worker, remainder) in [(1, 0), (2, 1)] {
            let got: Vec<u8> = std::iter::from_fn(|| ends[worker].receive()).map(|f| f.bytes()[0]).collect();
            assert_eq!(got, (0..100).filter(|n| n % 2 == remainder).collect::<Vec<_>>());
            assert!(ends[worker].is_empty());
        }
        assert!(ends[0].is_empty());
    }

    #[test]
    fn a_full_inbox_gives_the_frame_back() {
        let mut ends = between(2).unwrap();
        for n in 0..INBOX {
            ends[0].send(1, frame(n as u8)).unwrap();
        }
        let back = ends[0].send(1, frame(77)).unwrap_err();
        assert_eq!(back.bytes(), [77]);
        assert_eq!(ends[1].receive().unwrap().bytes(), [0]);
        ends[0].send(1, back).unwrap();
        let last = std::iter::from_fn(|| ends[1].receive()).last().unwrap();
        assert_eq!(last.bytes(), [77]);
    }

    #[test]
    fn only_who_sleeps_and_got_something_is_rung() {
        let mut ends = between(3).unwrap();
        ends[0].send(1, frame(1)).unwrap();
        ends[0].ring();
        assert!(!is_rung(&ends[1]), "it is awake");
        ends[1].bell().announce();
        ends[2].bell().announce();
        ends[0].ring();
        assert!(!is_rung(&ends[1]), "nothing new");
        ends[0].send(1, frame(2)).unwrap();
        ends[0].ring();
        assert!(is_rung(&ends[1]) && !is_rung(&ends[2]));
        ends[1].bell().awake();
        assert!(!is_rung(&ends[1]));
    }
}
