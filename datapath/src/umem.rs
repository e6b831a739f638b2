//! The memory that frames live in: one mapping, cut into chunks, shared by all ports and workers.

use crate::{
    frame::{Frame, META},
    pool::RX_OFFSET,
};
use std::{io, ptr::NonNull};
use thiserror::Error;

/// Whether the umem should be of huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// If there are enough of them; otherwise say so and go on without.
    #[default]
    Auto,
    /// Fail without them.
    Require,
    /// No.
    Off,
}

/// Why there is no umem.
#[derive(Debug, Error)]
pub enum UmemError {
    /// A size that it cannot have.
    #[error("[datapath] frame_size is {0}; it is 2048 or 4096")]
    FrameSize(u16),
    /// Too few or too many chunks.
    #[error("[datapath] frames is {0}; it is from 64 to 16777216")]
    Frames(u32),
    /// The system has no memory of that kind for us.
    #[error(
        "no {bytes} octets of huge pages ({source}); reserve them (sysctl vm.nr_hugepages={pages}) or set [datapath] huge_pages = \"auto\""
    )]
    HugePages {
        /// Octets wanted.
        bytes: usize,
        /// 2 MiB pages that this takes.
        pages: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no memory for us.
    #[error("no {0} octets of memory for frames: {1}; make [datapath] frames smaller")]
    Memory(usize, io::Error),
}

const HUGE_PAGE: usize = 2 << 20;

/// The mapping; unmapped when dropped.
#[derive(Debug)]
pub struct Umem {
    base: NonNull<u8>,
    len: usize,
    frames: u32,
    frame_size: u16,
}

// SAFETY: the mapping's bytes are accessed through frames only, each of which is owned by one thread.
unsafe impl Send for Umem {}
// SAFETY: as above; `&Umem` gives addresses, not bytes.
unsafe impl Sync for Umem {}

impl Drop for Umem {
    fn drop(&mut self) {
        // SAFETY: `new` mapped exactly this; a pool one of whose frames is still about keeps its umem for ever.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Umem {
    /// Maps `frames` chunks of `frame_size` octets. Also says why it is not of huge pages, if it was to be.
    ///
    /// # Errors
    /// [`UmemError`].
    pub fn new(frames: u32, frame_size: u16, huge: HugePages) -> Result<(Umem, Option<String>), UmemError> {
        if frame_size != 2048 && frame_size != 4096 {
            return Err(UmemError::FrameSize(frame_size));
        }
        if !(64..=1 << 24).contains(&frames) {
            return Err(UmemError::Frames(frames));
        }
        let bytes = (frames as usize * frame_size as usize).next_multiple_of(HUGE_PAGE);
        let made = |base| Umem { base, len: bytes, frames, frame_size };
        let without = || map(bytes, 0).map(made).map_err(|e| UmemError::Memory(bytes, e));
        if huge == HugePages::Off {
            return Ok((without()?, None));
        }
        match map(bytes, libc::MAP_HUGETLB) {
            Ok(base) => Ok((made(base), None)),
            Err(source) if huge == HugePages::Require => {
                Err(UmemError::HugePages { bytes, pages: bytes / HUGE_PAGE, source })
            }
            Err(e) => {
                let pages = bytes / HUGE_PAGE;
                let told = format!(
                    "no huge pages for {bytes} octets of frames ({e}): sysctl vm.nr_hugepages={pages}"
                );
                Ok((without()?, Some(told)))
            }
        }
    }

    /// First octet.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Octets.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.frames as usize * self.frame_size as usize
    }

    /// Chunks.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Octets of a chunk.
    pub fn frame_size(&self) -> u16 {
        self.frame_size
    }

    /// The umem address of a frame's packet.
    pub fn address(&self, frame: &Frame) -> u64 {
        let start = (frame.chunk().as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        debug_assert!(start < self.len(), "a frame of another umem");
        (start + frame.offset()) as u64
    }

    /// The number of a frame's chunk, if it is in the umem. Not by way of the packet's address: where a packet
    /// was pulled off up to the end of its chunk, that is in the next one.
    #[inline]
    pub fn chunk_of(&self, frame: &Frame) -> Option<u32> {
        self.chunk((frame.chunk().as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize) as u64)
    }

    /// The number of the chunk that an address is in, if it is in the umem.
    pub fn chunk(&self, address: u64) -> Option<u32> {
        (address < self.len() as u64).then(|| (address / self.frame_size as u64) as u32)
    }

    /// Takes ownership of a chunk, as an empty frame.
    ///
    /// # Safety
    /// `chunk` is a number below [`Umem::frames`], and no other frame for it exists.
    pub unsafe fn empty(&self, chunk: u32) -> Frame {
        debug_assert!(chunk < self.frames);
        // SAFETY: the chunk is inside the mapping (zeroed, aligned to a page), and the caller's to give.
        unsafe {
            let start = self.base.add(chunk as usize * self.frame_size as usize);
            Frame::from_chunk(start, self.frame_size, RX_OFFSET as u16, 0)
        }
    }

    /// Takes ownership of a chunk that the kernel filled. `None` if address and length are not within one.
    ///
    /// # Safety
    /// The kernel or another owner gave the chunk up, and no frame for it exists.
    pub unsafe fn received(&self, address: u64, len: u32) -> Option<Frame> {
        let (chunk, offset) = (self.chunk(address)?, address % self.frame_size as u64);
        if offset < META as u64 || offset + len as u64 > self.frame_size as u64 {
            return None;
        }
        // SAFETY: offset and length were just checked; the rest is the caller's promise.
        unsafe {
            let start = self.base.add(chunk as usize * self.frame_size as usize);
            Some(Frame::from_chunk(start, self.frame_size, offset as u16, len as u16))
        }
    }
}

fn map(bytes: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let base =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Packets in clear have no business in core dumps. Pages that are not huge by themselves may become so. All are
    // there before the first packet is. A kernel that refuses any of that still works.
    for advice in [libc::MADV_DONTDUMP, libc::MADV_HUGEPAGE, libc::MADV_POPULATE_WRITE] {
        // SAFETY: the mapping was just made; no advice changes its contents.
        unsafe { libc::madvise(base, bytes, advice) };
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))
}
