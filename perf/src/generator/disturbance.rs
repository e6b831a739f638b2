//! What an unfriendly network does to packets: some come again, some out of order, some were never sealed by who has the
//! key.

use crate::traffic::Random;
use arrayvec::ArrayVec;
use portcullis_datapath::{batch::BATCH, frame::Frame, pool::FrameCache};
use std::collections::VecDeque;
use thiserror::Error;

/// Packets by which a copy or a late packet may be behind, at most.
pub const FARTHEST: usize = 65_536;

/// How many packets it happens to: parts of all, from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Rates {
    /// Packets that are sent once more. The copy is a frame like any other: paced with the rest.
    pub replayed: f64,
    /// Frames that look like any other, with a sequence number that is next, and whose ICV is wrong.
    pub forged: f64,
    /// Packets that leave late.
    pub reordered: f64,
}

/// Why it cannot be.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
pub enum DisturbanceError {
    /// A part of more than all, or of less than nothing.
    #[error("{0} is {1}; it is a part of the packets, from 0 to 1")]
    Rate(&'static str, f64),
    /// Copies and late packets that come with those they are behind, or never.
    #[error("{0} packets behind; it is from 1 to {FARTHEST}")]
    Distance(usize),
    /// Forged packets that nobody can tell.
    #[error("packets in clear have no ICV to forge: forged packets are of ESP")]
    Clear,
}

/// Does it. Nothing is allocated after the start.
pub struct Disturbance {
    replayed: u64,
    forged: u64,
    reordered: u64,
    distance: u64,
    random: Random,
    /// What leaves once so many packets have.
    held: VecDeque<(u64, Held)>,
    passed: u64,
}

enum Held {
    Copy(Frame),
    Late(Frame),
}

/// What it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Disturbed {
    /// Copies.
    pub replayed: u64,
    /// Frames with a wrong ICV.
    pub forged: u64,
    /// Packets that left late.
    pub reordered: u64,
}

impl Disturbance {
    /// Copies and late packets are so many packets behind.
    ///
    /// # Errors
    /// [`DisturbanceError`].
    pub fn new(rates: &Rates, distance: usize, seed: u64) -> Result<Disturbance, DisturbanceError> {
        let part = |name, rate: f64| match rate {
            0.0..=1.0 => Ok((rate * u32::MAX as f64) as u64),
            _ => Err(DisturbanceError::Rate(name, rate)),
        };
        if !(1..=FARTHEST).contains(&distance) {
            return Err(DisturbanceError::Distance(distance));
        }
        Ok(Disturbance {
            replayed: part("replayed", rates.replayed)?,
            forged: part("forged", rates.forged)?,
            reordered: part("reordered", rates.reordered)?,
            distance: distance as u64,
            random: Random::new(seed),
            held: VecDeque::with_capacity(2 * distance + 2),
            passed: 0,
        })
    }

    /// Whether any frame is forged.
    pub fn forges(&self) -> bool {
        self.forged > 0
    }

    /// Whether the next frame is a forged one.
    #[inline]
    pub fn forge(&mut self) -> bool {
        self.draw(self.forged)
    }

    fn draw(&mut self, part: u64) -> bool {
        part > 0 && (self.random.below(u32::MAX) as u64) < part
    }

    /// Packets, of which those in the mask are forged, become what leaves: at most as many as there is room for. What it
    /// did is added up.
    pub fn pass(
        &mut self,
        packets: &mut ArrayVec<Frame, BATCH>,
        forged: u128,
        out: &mut ArrayVec<Frame, BATCH>,
        cache: &mut FrameCache,
        done: &mut Disturbed,
    ) {
        let count = packets.len();
        for (i, mut frame) in packets.drain(..).enumerate() {
            let rest = count - i - 1;
            if forged >> i & 1 == 1 {
                break_icv(&mut frame);
                done.forged += 1;
                out.push(frame);
            } else {
                let at = self.passed + self.distance;
                let has_room = self.held.len() + 1 < self.held.capacity();
                if self.draw(self.replayed)
                    && has_room
                    && let Some(copy) = copy(&frame, cache)
                {
                    self.held.push_back((at, Held::Copy(copy)));
                }
                if self.draw(self.reordered) && has_room {
                    self.held.push_back((at, Held::Late(frame)));
                } else {
                    out.push(frame);
                }
            }
            self.passed += 1;
            self.release(out, rest, self.passed, done);
        }
    }

    /// What is still held leaves now, as far as there is room. False if there is more.
    pub fn flush(&mut self, out: &mut ArrayVec<Frame, BATCH>, done: &mut Disturbed) -> bool {
        self.release(out, 0, u64::MAX, done);
        self.held.is_empty()
    }

    fn release(&mut self, out: &mut ArrayVec<Frame, BATCH>, rest: usize, passed: u64, done: &mut Disturbed) {
        while out.len() + rest < BATCH && self.held.front().is_some_and(|(at, _)| *at < passed) {
            match self.held.pop_front() {
                Some((_, Held::Copy(frame))) => {
                    done.replayed += 1;
                    out.push(frame);
                }
                Some((_, Held::Late(frame))) => {
                    done.reordered += 1;
                    out.push(frame);
                }
                None => return,
            }
        }
    }

    /// Gives back all that is held.
    pub fn clear(&mut self, cache: &mut FrameCache) {
        for (_, Held::Copy(frame) | Held::Late(frame)) in self.held.drain(..) {
            cache.give(frame);
        }
    }
}

/// The last octet of a frame of ESP is its ICV's.
fn break_icv(frame: &mut Frame) {
    if let Some(last) = frame.bytes_mut().last_mut() {
        *last ^= 1;
    }
}

/// The same packet in another chunk, if there is one, and if it is in one.
fn copy(frame: &Frame, cache: &mut FrameCache) -> Option<Frame> {
    let mut copy = cache.take()?;
    if frame.segments() > 1 || !copy.extend(frame.len()) {
        cache.give(copy);
        return None;
    }
    copy.bytes_mut().copy_from_slice(frame.bytes());
    Some(copy)
}
