//! The kernel's rings: one producer, one consumer, one of them the kernel.
//!
//! Each side owns one index and reads the other's. Both count without bound; an entry's place is the count
//! modulo the size, a power of two. A producer writes entries and then its index (Release); a consumer reads
//! that index (Acquire) and then the entries. The same the other way round for places that become free.
//!
//! The two ends here are the same code over the kernel's memory and over that of a loom model.

use super::map::RingMap;
use std::{marker::PhantomData, sync::atomic::Ordering};

#[cfg(test)]
mod tests;

/// The words of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// How many entries were ever offered.
    Producer,
    /// How many were ever taken.
    Consumer,
    /// What the kernel says of itself.
    Flags,
}

/// Where a ring is.
pub trait Memory<T> {
    /// Reads a word.
    fn load(&self, word: Word, ordering: Ordering) -> u32;

    /// Writes a word.
    fn store(&self, word: Word, value: u32, ordering: Ordering);

    /// Entries: a power of two.
    fn size(&self) -> u32;

    /// Writes the entry at `index` modulo the size.
    ///
    /// # Safety
    /// By the two indices the entry is the producer's, which is the caller.
    unsafe fn write(&self, index: u32, entry: T);

    /// Reads the entry at `index` modulo the size.
    ///
    /// # Safety
    /// By the two indices the entry is the consumer's, which is the caller; the producer has written it.
    unsafe fn read(&self, index: u32) -> T;
}

/// Our end of a ring that the kernel consumes.
#[derive(Debug)]
pub struct Producer<T, M = RingMap> {
    memory: M,
    /// Where we write next; not yet told before [`Producer::submit`].
    next: u32,
    submitted: u32,
    /// The consumer's index when we last looked, one ring ahead: where we must stop.
    end: u32,
    entry: PhantomData<T>,
}

impl<T: Copy, M: Memory<T>> Producer<T, M> {
    /// The producing end. There is one per ring.
    pub fn new(memory: M) -> Producer<T, M> {
        // Relaxed: only we write it.
        let next = memory.load(Word::Producer, Ordering::Relaxed);
        Producer { memory, next, submitted: next, end: next, entry: PhantomData }
    }

    /// Places that are free now; looks at the ring only if it does not know of as many as are wanted.
    #[inline]
    pub fn room(&mut self, wanted: u32) -> u32 {
        let room = self.end.wrapping_sub(self.next);
        if room >= wanted {
            return room;
        }
        // Pairs with the consumer's Release: it has read the entries that we will overwrite.
        let consumer = self.memory.load(Word::Consumer, Ordering::Acquire);
        self.end = consumer.wrapping_add(self.memory.size());
        self.end.wrapping_sub(self.next)
    }

    /// Writes an entry. `room` must have said that there is a place.
    #[inline]
    pub fn push(&mut self, entry: T) {
        assert!(self.next != self.end, "a push without room");
        // SAFETY: the place is ours: the consumer's index says that it was read, and ours does not offer it.
        unsafe { self.memory.write(self.next, entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Lets the consumer see what was written.
    #[inline]
    pub fn submit(&mut self) {
        if self.submitted != self.next {
            self.memory.store(Word::Producer, self.next, Ordering::Release); // pairs with its Acquire
            self.submitted = self.next;
        }
    }

    /// Whether the kernel wants to be woken to see it.
    pub fn needs_wakeup(&self) -> bool {
        // Relaxed: a hint; the system call orders all.
        self.memory.load(Word::Flags, Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Entries that the consumer has not taken.
    pub fn pending(&self) -> u32 {
        // Relaxed: a count; nothing is read or overwritten on its strength.
        self.submitted.wrapping_sub(self.memory.load(Word::Consumer, Ordering::Relaxed))
    }

    /// Entries of the ring.
    pub fn size(&self) -> u32 {
        self.memory.size()
    }
}

/// Our end of a ring that the kernel fills.
#[derive(Debug)]
pub struct Consumer<T, M = RingMap> {
    memory: M,
    next: u32,
    released: u32,
    /// The producer's index when we last looked.
    end: u32,
    entry: PhantomData<T>,
}

impl<T: Copy, M: Memory<T>> Consumer<T, M> {
    /// The consuming end. There is one per ring.
    pub fn new(memory: M) -> Consumer<T, M> {
        // Relaxed: only we write it.
        let next = memory.load(Word::Consumer, Ordering::Relaxed);
        Consumer { memory, next, released: next, end: next, entry: PhantomData }
    }

    /// The next entry.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.next == self.end {
            // Pairs with the producer's Release: the entries before its index are written.
            self.end = self.memory.load(Word::Producer, Ordering::Acquire);
            if self.next == self.end {
                return None;
            }
        }
        // SAFETY: the place is between our index and the producer's: written, and not to be written again
        // before `release`.
        let entry = unsafe { self.memory.read(self.next) };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of popped entries back.
    #[inline]
    pub fn release(&mut self) {
        if self.released != self.next {
            self.memory.store(Word::Consumer, self.next, Ordering::Release); // pairs with its Acquire
            self.released = self.next;
        }
    }
}
