//! One packet in one piece, with room for headers before and trailers behind it.

use crate::{drop::DropReason, frame::Frame, pool::FrameCache};

/// Octets in front of a packet: several outer headers.
const FRONT: usize = 512;

/// Octets of a packet, at most, and of what is put behind it.
const ROOM: usize = u16::MAX as usize + 1 + 512;

/// A packet, from its first octet to its last.
pub struct Packet {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Packet {
    fn default() -> Packet {
        Packet { memory: vec![0; FRONT + ROOM].into_boxed_slice(), start: FRONT, end: FRONT }
    }
}

impl Packet {
    /// Its octets.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// The same, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    /// How many there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Becomes a frame's octets.
    pub fn take(&mut self, frame: &Frame) {
        self.start = FRONT;
        self.end = FRONT + frame.gather(&mut self.memory[FRONT..]);
    }

    /// Becomes the first octets of what is written, as many as are told.
    pub fn fill(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let room = &mut self.memory[FRONT..];
        let n = write(room).min(room.len());
        (self.start, self.end) = (FRONT, FRONT + n);
    }

    /// Begins `n` octets later.
    pub fn pull(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
    }

    /// Has `n` octets, if it had more.
    pub fn truncate(&mut self, n: usize) {
        self.end = self.end.min(self.start + n);
    }

    /// Ends `n` octets later, all zero.
    ///
    /// # Errors
    /// [`DropReason::NoTailroom`]; it is as it was.
    pub fn extend(&mut self, n: usize) -> Result<(), DropReason> {
        let new = self.memory.get_mut(self.end..self.end + n).ok_or(DropReason::NoTailroom)?;
        new.fill(0);
        self.end += n;
        Ok(())
    }

    /// Has `n` more octets at a place, all zero. What is before it moves: headers, as a rule.
    ///
    /// # Errors
    /// [`DropReason::NoHeadroom`]; it is as it was.
    pub fn insert(&mut self, at: usize, n: usize) -> Result<&mut [u8], DropReason> {
        let start = self.start.checked_sub(n).ok_or(DropReason::NoHeadroom)?;
        self.memory.copy_within(self.start..self.start + at, start);
        self.start = start;
        let new = &mut self.memory[start + at..start + at + n];
        new.fill(0);
        Ok(new)
    }

    /// Has `n` octets less at a place.
    pub fn remove(&mut self, at: usize, n: usize) {
        self.memory.copy_within(self.start..self.start + at, self.start + n);
        self.start += n;
    }
}

/// A frame of these pieces, one behind the other.
///
/// # Errors
/// [`DropReason::NoFrame`].
pub fn frame(pieces: &[&[u8]], cache: &mut FrameCache) -> Result<Frame, DropReason> {
    let mut first = cache.take().ok_or(DropReason::NoFrame)?;
    // The last segment, while it is not part of the chain.
    let mut last: Option<Frame> = None;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let segment = last.as_mut().unwrap_or(&mut first);
            let n = rest.len().min(segment.tailroom());
            if n == 0 {
                if let Some(full) = last.take() {
                    first.append(full);
                }
                match cache.take() {
                    Some(next) => last = Some(next),
                    None => {
                        cache.give(first);
                        return Err(DropReason::NoFrame);
                    }
                }
                continue;
            }
            let have = segment.len();
            if segment.extend(n) {
                segment.bytes_mut()[have..].copy_from_slice(&rest[..n]);
            }
            rest = &rest[n..];
        }
    }
    if let Some(last) = last {
        first.append(last);
    }
    Ok(first)
}
