//! Where the octets of a packet are: in one piece, or in segments, which begin and end anywhere.
//!
//! What the kernel does at once is done where it is, if that lies within a segment. What lies across a boundary is
//! brought together in a small buffer, and taken back. The kernel is compiled once for packets in one piece, which have
//! no boundary and pay nothing, and once for those in segments.
//!
//! What *unsafe* means here: the packet's memory is there, and nobody else's, for as long as its place and what that
//! points to are used; and what is entered and left is no more than there is.
#![allow(unsafe_op_in_unsafe_fn, reason = "each function's contract is the same; see above")]

use super::super::{HEAD, ICV, job::Job};
use super::vector::MOST;
use core::{mem::MaybeUninit, ptr};

/// Room for a chunk of any kernel, and the ICV behind it.
#[repr(C, align(64))]
pub(super) struct Staging(MaybeUninit<[u8; Staging::ROOM]>);

impl Staging {
    const ROOM: usize = 16 * MOST + ICV;

    #[inline(always)]
    pub(super) fn new() -> Staging {
        Staging(MaybeUninit::uninit())
    }
}

/// What of a packet is ahead: the rest of a segment, and the segments that follow.
#[derive(Clone, Copy)]
pub(super) struct Place<'a, const SEGMENTS: bool> {
    at: *mut u8,
    left: usize,
    next: *mut &'a mut [u8],
    segments: usize,
}

impl<'a, const SEGMENTS: bool> Place<'a, SEGMENTS> {
    /// All of a packet, from its head to the end of its ICV's room.
    #[inline(always)]
    pub(super) unsafe fn of(job: &Job<'a>) -> Self {
        match job.list() {
            Some((next, segments)) if SEGMENTS => Place { at: ptr::null_mut(), left: 0, next, segments },
            _ => {
                let (at, left) = (job.text.wrapping_sub(HEAD), HEAD + job.len as usize + ICV);
                Place { at, left, next: ptr::null_mut(), segments: 0 }
            }
        }
    }

    /// Octets ahead that lie together, of `most`.
    #[inline(always)]
    pub(super) fn together(&self, most: usize) -> usize {
        if SEGMENTS { self.left.min(most) } else { most }
    }

    /// Where the next `n` octets are: in the packet, or in the buffer. [`Place::leave`] follows.
    #[inline(always)]
    pub(super) unsafe fn enter(&self, n: usize, staging: &mut Staging) -> *mut u8 {
        if !SEGMENTS || n <= self.left { self.at } else { self.gather(n, staging) }
    }

    /// The next `n` octets, which were entered, are done with.
    #[inline(always)]
    pub(super) unsafe fn leave(&mut self, n: usize, staging: &Staging) {
        if !SEGMENTS || n <= self.left {
            (self.at, self.left) = (self.at.wrapping_add(n), self.left - n);
        } else {
            *self = self.scatter(n, staging);
        }
    }

    #[cold]
    #[inline(never)]
    unsafe fn gather(self, n: usize, staging: &mut Staging) -> *mut u8 {
        let to = staging.0.as_mut_ptr().cast::<u8>();
        self.passed(n, |done, from, octets| to.add(done).copy_from_nonoverlapping(from, octets));
        to
    }

    #[cold]
    #[inline(never)]
    unsafe fn scatter(self, n: usize, staging: &Staging) -> Self {
        let from = staging.0.as_ptr().cast::<u8>();
        self.passed(n, |done, to, octets| from.add(done).copy_to_nonoverlapping(to, octets))
    }

    /// Behind the next `n` octets; of each run that lies together: how many were before it, where it is, its octets.
    #[inline(always)]
    unsafe fn passed(mut self, n: usize, run: impl Fn(usize, *mut u8, usize)) -> Self {
        assert!(n <= Staging::ROOM);
        let mut done = 0;
        while done < n {
            let (at, octets) = self.run(n - done);
            run(done, at, octets);
            done += octets;
        }
        self
    }

    /// Goes over octets that lie together, `most` at most.
    unsafe fn run(&mut self, most: usize) -> (*mut u8, usize) {
        while self.left == 0 && self.segments > 0 {
            let segment = &mut **self.next;
            (self.at, self.left) = (segment.as_mut_ptr(), segment.len());
            (self.next, self.segments) = (self.next.wrapping_add(1), self.segments - 1);
        }
        let (at, octets) = (self.at, self.left.min(most));
        (self.at, self.left) = (at.wrapping_add(octets), self.left - octets);
        (at, octets)
    }
}
