//! A ring's memory, as the kernel maps it.

use super::ring::{Memory, Word};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

/// One mapping: two indices, the kernel's flags, and the entries.
#[derive(Debug)]
pub struct RingMap {
    base: NonNull<u8>,
    bytes: usize,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    entry_size: usize,
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
    /// Maps a ring of a socket, with `size` entries of type `T`.
    ///
    /// # Errors
    /// What `mmap(2)` says.
    pub fn new<T>(
        fd: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<RingMap> {
        RingMap::map::<T>(fd.as_raw_fd(), libc::MAP_POPULATE, page_offset, offsets, size)
    }

    /// A ring without a kernel, whose indices both stand at `start`; and a second mapping of it for the other end.
    #[cfg(test)]
    pub(super) fn pair<T>(size: u32, start: u32) -> (RingMap, RingMap) {
        use std::os::fd::{FromRawFd, OwnedFd};
        let offsets = libc::xdp_ring_offset { producer: 0, consumer: 64, flags: 128, desc: 192 };
        // SAFETY: the name ends in zero; the descriptor that comes back is nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"ring".as_ptr(), libc::MFD_CLOEXEC)) };
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), 65_536) }, 0);
        let end = || RingMap::map::<T>(file.as_raw_fd(), 0, 0, &offsets, size).unwrap();
        let ends = (end(), end());
        for word in [Word::Producer, Word::Consumer] {
            ends.0.word(word).store(start, Ordering::Relaxed);
        }
        ends
    }

    fn map<T>(
        fd: libc::c_int,
        flags: libc::c_int,
        page_offset: libc::off_t,
        offsets: &libc::xdp_ring_offset,
        size: u32,
    ) -> io::Result<RingMap> {
        assert!(size.is_power_of_two());
        let bytes = offsets.desc as usize + size as usize * size_of::<T>();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), bytes, prot, libc::MAP_SHARED | flags, fd, page_offset)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = [offsets.producer, offsets.consumer, offsets.flags];
        assert!(words.iter().all(|w| w % 4 == 0 && w + 4 <= offsets.desc), "a kernel of another kind");
        assert!((offsets.desc as usize).is_multiple_of(align_of::<T>()), "a kernel of another kind");
        Ok(RingMap {
            base: NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?,
            bytes,
            producer: offsets.producer as usize,
            consumer: offsets.consumer as usize,
            flags: offsets.flags as usize,
            entries: offsets.desc as usize,
            entry_size: size_of::<T>(),
            mask: size - 1,
        })
    }

    #[inline]
    fn word(&self, word: Word) -> &AtomicU32 {
        let offset = match word {
            Word::Producer => self.producer,
            Word::Consumer => self.consumer,
            Word::Flags => self.flags,
        };
        // SAFETY: `map` has seen that the offset is in the mapping and aligned; the word is only used atomically.
        unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU32>() }
    }

    #[inline]
    fn entry<T>(&self, index: u32) -> *mut T {
        assert!(size_of::<T>() == self.entry_size);
        let at = self.entries + (index & self.mask) as usize * size_of::<T>();
        // SAFETY: masked, the index is below the size; so many entries of this size are mapped behind `entries`.
        unsafe { self.base.as_ptr().add(at).cast() }
    }
}

impl<T: Copy> Memory<T> for RingMap {
    #[inline]
    fn load(&self, word: Word, ordering: Ordering) -> u32 {
        self.word(word).load(ordering)
    }

    #[inline]
    fn store(&self, word: Word, value: u32, ordering: Ordering) {
        self.word(word).store(value, ordering);
    }

    fn size(&self) -> u32 {
        self.mask + 1
    }

    #[inline]
    unsafe fn write(&self, index: u32, entry: T) {
        // SAFETY: `entry` gives a place in the mapping, aligned as `map` has seen; the caller has it alone.
        unsafe { self.entry::<T>(index).write(entry) }
    }

    #[inline]
    unsafe fn read(&self, index: u32) -> T {
        // SAFETY: as in `write`; any bits are a `T`, since the kernel or a producer wrote one.
        unsafe { self.entry::<T>(index).read() }
    }
}
