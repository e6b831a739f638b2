//! The kernel's rings: one producer, one consumer, one of them the kernel.
//!
//! Each side owns one index and reads the other's. Both count without bound; an entry's place is the count
//! modulo the size, a power of two. A producer writes entries and then its index (Release); a consumer reads
//! that index (Acquire) and then the entries. The same the other way round for places that become free.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

/// A ring's memory, as the kernel maps it.
#[derive(Debug)]
pub struct RingMap {
    base: NonNull<u8>,
    bytes: usize,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    mask: u32,
}

// SAFETY: the mapping may be used from any thread; who uses which index is up to the rings made of it.
unsafe impl Send for RingMap {}

impl Drop for RingMap {
    fn drop(&mut self) {
        // SAFETY: `base` and `bytes` are one whole mapping that nothing else unmaps.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

impl RingMap {
    /// Maps a ring of a socket.
    ///
    /// # Errors
    /// What `mmap(2)` says.
    pub fn new<T>(
        fd: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<RingMap> {
        let bytes = offsets.desc as usize + size as usize * size_of::<T>();
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), bytes, prot, flags, fd.as_raw_fd(), page_offset)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        RingMap::over(base.cast(), bytes, offsets, size)
    }

    /// A ring in plain memory that is given up to it, for tests: mapped, so that it is unmapped alike.
    #[cfg(test)]
    fn heap<T>(size: u32) -> RingMap {
        let offsets = libc::xdp_ring_offset { producer: 0, consumer: 64, desc: 192, flags: 128 };
        let bytes = 192 + size as usize * size_of::<T>();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), bytes, prot, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
        };
        RingMap::over(base.cast(), bytes, &offsets, size).unwrap()
    }

    fn over(base: *mut u8, bytes: usize, offsets: &libc::xdp_ring_offset, size: u32) -> io::Result<RingMap> {
        assert!(size.is_power_of_two());
        Ok(RingMap {
            base: NonNull::new(base).ok_or_else(|| io::Error::other("mapped at 0"))?,
            bytes,
            producer: offsets.producer as usize,
            consumer: offsets.consumer as usize,
            flags: offsets.flags as usize,
            entries: offsets.desc as usize,
            mask: size - 1,
        })
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset + 4 <= self.bytes && offset.is_multiple_of(4));
        // SAFETY: the offset is the kernel's, inside the mapping and aligned; the word is only used atomically.
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU32>() }
    }

    fn entry<T: Copy>(&self, index: u32) -> *mut T {
        let at = self.entries + (index & self.mask) as usize * size_of::<T>();
        debug_assert!(at + size_of::<T>() <= self.bytes);
        // SAFETY: masked, the index is below the size; so many entries were mapped behind `entries`.
        unsafe { self.base.as_ptr().add(at).cast() }
    }

    /// Whether the kernel wants to be woken.
    fn needs_wakeup(&self) -> bool {
        self.word(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Our end of a ring that the kernel consumes.
#[derive(Debug)]
pub struct Producer<T> {
    map: RingMap,
    /// Where we write next; not yet told before [`Producer::submit`].
    next: u32,
    submitted: u32,
    /// The consumer's index when we last looked, one ring ahead: where we must stop.
    end: u32,
    entry: std::marker::PhantomData<T>,
}

impl<T: Copy> Producer<T> {
    /// The producing end. There is one per ring.
    pub fn new(map: RingMap) -> Producer<T> {
        let next = map.word(map.producer).load(Ordering::Relaxed);
        Producer { map, next, submitted: next, end: next, entry: std::marker::PhantomData }
    }

    /// Places that are free now.
    pub fn room(&mut self, wanted: u32) -> u32 {
        let room = self.end.wrapping_sub(self.next);
        if room >= wanted {
            return room;
        }
        // Pairs with the consumer's Release: it has read the entries that we will overwrite.
        let consumer = self.map.word(self.map.consumer).load(Ordering::Acquire);
        self.end = consumer.wrapping_add(self.map.mask + 1);
        self.end.wrapping_sub(self.next)
    }

    /// Writes an entry; `room` said that there is a place.
    pub fn push(&mut self, entry: T) {
        debug_assert!(self.next != self.end);
        // SAFETY: the place is ours: the consumer's index says that it has read it, and ours does not offer it.
        unsafe { self.map.entry::<T>(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Lets the consumer see what was written.
    pub fn submit(&mut self) {
        if self.submitted != self.next {
            self.map.word(self.map.producer).store(self.next, Ordering::Release); // pairs with its Acquire
            self.submitted = self.next;
        }
    }

    /// Whether the kernel wants to be woken to see it.
    pub fn needs_wakeup(&self) -> bool {
        self.map.needs_wakeup()
    }

    /// Entries that the consumer has not taken.
    pub fn pending(&self) -> u32 {
        self.submitted.wrapping_sub(self.map.word(self.map.consumer).load(Ordering::Acquire))
    }
}

/// Our end of a ring that the kernel fills.
#[derive(Debug)]
pub struct Consumer<T> {
    map: RingMap,
    next: u32,
    released: u32,
    /// The producer's index when we last looked.
    end: u32,
    entry: std::marker::PhantomData<T>,
}

impl<T: Copy> Consumer<T> {
    /// The consuming end. There is one per ring.
    pub fn new(map: RingMap) -> Consumer<T> {
        let next = map.word(map.consumer).load(Ordering::Relaxed);
        Consumer { map, next, released: next, end: next, entry: std::marker::PhantomData }
    }

    /// The next entry.
    pub fn pop(&mut self) -> Option<T> {
        if self.next == self.end {
            // Pairs with the producer's Release: the entries before its index are written.
            self.end = self.map.word(self.map.producer).load(Ordering::Acquire);
            if self.next == self.end {
                return None;
            }
        }
        // SAFETY: the place is between our index and the producer's: written, and not to be written again
        // before `release`.
        let entry = unsafe { self.map.entry::<T>(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Whether there is an entry.
    pub fn is_empty(&self) -> bool {
        self.next == self.map.word(self.map.producer).load(Ordering::Acquire)
    }

    /// Gives the places of popped entries back.
    pub fn release(&mut self) {
        if self.released != self.next {
            self.map.word(self.map.consumer).store(self.next, Ordering::Release); // pairs with its Acquire
            self.released = self.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// Both ends of one ring in one mapping, which is not unmapped.
    fn ring(size: u32) -> (Producer<u64>, Consumer<u64>) {
        let map = std::mem::ManuallyDrop::new(RingMap::heap::<u64>(size));
        let end = || RingMap {
            base: map.base,
            bytes: map.bytes,
            producer: map.producer,
            consumer: map.consumer,
            flags: map.flags,
            entries: map.entries,
            mask: map.mask,
        };
        (Producer::new(end()), Consumer::new(end()))
    }

    proptest! {
        #[test]
        fn like_a_queue(steps in proptest::collection::vec(0u8..40, 1..500)) {
            let (mut producer, mut consumer) = ring(16);
            let (mut submitted, mut open, mut n) = (VecDeque::new(), vec![], 0u64);
            let mut unreleased = 0;
            for step in steps {
                match step {
                    0..16 => {
                        let room = producer.room(1) as usize;
                        prop_assert!(room <= 16 - submitted.len() - open.len() - unreleased);
                        if room > 0 {
                            producer.push(n);
                            open.push(n);
                            n += 1;
                        }
                    }
                    16..24 => {
                        producer.submit();
                        submitted.extend(open.drain(..));
                        prop_assert_eq!(producer.room(16) as usize, 16 - submitted.len() - unreleased);
                    }
                    24..36 => {
                        let popped = consumer.pop();
                        prop_assert_eq!(popped, submitted.pop_front());
                        unreleased += popped.is_some() as usize;
                    }
                    _ => {
                        consumer.release();
                        unreleased = 0;
                    }
                }
            }
            std::mem::forget((producer, consumer));
        }
    }
}
