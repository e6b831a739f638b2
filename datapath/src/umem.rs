//! The memory that frames live in: one mapping, cut into chunks, shared by all ports and workers.
//!
//! Chunks of a power of two would all begin at the same place of their page, and so would the headers in them: 64 of
//! those would share eight lines of the first cache. Where pages are huge, chunks are a line further apart, so that each
//! begins elsewhere; to the kernel that is a umem of unaligned chunks. None of them crosses a huge page: a NIC that
//! writes to the umem itself wants a chunk in one piece, by its own addresses. An IOMMU that gives each small page one of
//! its own tears them apart: then chunks are aligned ([`Umem::aligned`]).

use crate::{
    frame::{Frame, META},
    pool::RX_OFFSET,
};
use portcullis_machine::{CHUNKS_APART, HUGE_PAGE};
use std::{io, ptr::NonNull};
use thiserror::Error;

/// Whether the umem should be of huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// Those that are reserved, or that the system makes; otherwise say so and go on without.
    #[default]
    Auto,
    /// Fail without reserved ones.
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

/// Octets of a cache line: what a [`Chunk`] counts.
const LINE: usize = 64;

const _: () = assert!(CHUNKS_APART == LINE);

/// A chunk: how many cache lines of the umem are before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Chunk(u32);

impl Chunk {
    fn at(octets: usize) -> Chunk {
        Chunk((octets / LINE) as u32)
    }

    /// Octets of the umem before it.
    #[inline]
    fn start(self) -> usize {
        self.0 as usize * LINE
    }
}

/// The mapping; unmapped when dropped.
#[derive(Debug)]
pub struct Umem {
    base: NonNull<u8>,
    len: usize,
    frames: u32,
    frame_size: u16,
    /// Octets from the start of one chunk to that of the next.
    spacing: usize,
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
    /// Maps `frames` chunks of `frame_size` octets, which are a line further apart on huge pages. Also says why it is not
    /// of these, if it was to be.
    ///
    /// # Errors
    /// [`UmemError`].
    pub fn new(frames: u32, frame_size: u16, huge: HugePages) -> Result<(Umem, Option<String>), UmemError> {
        Umem::spaced(frames, frame_size, huge, CHUNKS_APART)
    }

    /// The same, and each chunk begins at a multiple of its size.
    ///
    /// # Errors
    /// [`UmemError`].
    pub fn aligned(
        frames: u32,
        frame_size: u16,
        huge: HugePages,
    ) -> Result<(Umem, Option<String>), UmemError> {
        Umem::spaced(frames, frame_size, huge, 0)
    }

    fn spaced(
        frames: u32,
        frame_size: u16,
        huge: HugePages,
        apart: usize,
    ) -> Result<(Umem, Option<String>), UmemError> {
        if frame_size != 2048 && frame_size != 4096 {
            return Err(UmemError::FrameSize(frame_size));
        }
        if !(64..=1 << 24).contains(&frames) {
            return Err(UmemError::Frames(frames));
        }
        let make = |spacing: usize, pages: Pages| {
            let bytes = (frames as usize).div_ceil(HUGE_PAGE / spacing) * HUGE_PAGE;
            let base = map(bytes, pages).map_err(|e| (bytes, e))?;
            Ok::<_, (usize, io::Error)>(Umem { base, len: bytes, frames, frame_size, spacing })
        };
        let small = || make(frame_size as usize, Pages::Small).map_err(|(n, e)| UmemError::Memory(n, e));
        if huge == HugePages::Off {
            return Ok((small()?, None));
        }
        let apart = frame_size as usize + apart;
        match make(apart, Pages::Reserved) {
            Ok(umem) => Ok((umem, None)),
            Err((bytes, source)) if huge == HugePages::Require => {
                Err(UmemError::HugePages { bytes, pages: bytes / HUGE_PAGE, source })
            }
            Err((bytes, e)) => match make(apart, Pages::Transparent) {
                Ok(umem) => Ok((umem, None)),
                Err(_) => {
                    let pages = bytes / HUGE_PAGE;
                    let told = format!(
                        "no huge pages for {bytes} octets of frames ({e}): sysctl vm.nr_hugepages={pages}"
                    );
                    Ok((small()?, Some(told)))
                }
            },
        }
    }

    /// First octet.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Octets: whole huge pages.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Chunks.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Octets of a chunk.
    pub fn frame_size(&self) -> u16 {
        self.frame_size
    }

    /// Whether chunks begin where they like, and not at multiples of their size.
    #[inline]
    pub fn is_unaligned(&self) -> bool {
        self.spacing != self.frame_size as usize
    }

    /// All chunks, which are whoever's made the umem.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (per_page, spacing) = (HUGE_PAGE / self.spacing, self.spacing);
        (0..self.frames as usize).map(move |i| Chunk::at(i / per_page * HUGE_PAGE + i % per_page * spacing))
    }

    /// The chunk of a frame, if it is in the umem.
    #[inline]
    pub fn chunk_of(&self, frame: &Frame) -> Option<Chunk> {
        let start = (frame.chunk().as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        (start < self.len).then(|| Chunk::at(start))
    }

    /// What the kernel is told of a chunk that it may fill.
    #[inline]
    pub fn address(&self, chunk: Chunk) -> u64 {
        chunk.start() as u64
    }

    /// What the kernel is told of a packet that it is to send. Unaligned chunks are told apart from where packets are
    /// in them (XSK_UNALIGNED_BUF_OFFSET_SHIFT of if_xdp.h).
    #[inline]
    pub fn packet_address(&self, frame: &Frame) -> u64 {
        let start = (frame.chunk().as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize);
        debug_assert!(start < self.len, "a frame of another umem");
        let shift = if self.is_unaligned() { libc::XSK_UNALIGNED_BUF_OFFSET_SHIFT } else { 0 };
        start as u64 + ((frame.offset() as u64) << shift)
    }

    /// The chunk and the offset in it that the kernel means by an address. `None` if there is no such.
    #[inline]
    fn place(&self, address: u64) -> Option<(Chunk, usize)> {
        let (start, offset) = match self.is_unaligned() {
            true => {
                (address & libc::XSK_UNALIGNED_BUF_ADDR_MASK, address >> libc::XSK_UNALIGNED_BUF_OFFSET_SHIFT)
            }
            false => {
                let in_chunk = self.frame_size as u64 - 1;
                (address & !in_chunk, address & in_chunk)
            }
        };
        let last = self.len - self.frame_size as usize;
        let is_start = start <= last as u64 && start.is_multiple_of(LINE as u64);
        is_start.then(|| (Chunk::at(start as usize), offset as usize))
    }

    /// The chunk that an address of the kernel's is in, if it is in the umem.
    #[inline]
    pub fn chunk_at(&self, address: u64) -> Option<Chunk> {
        Some(self.place(address)?.0)
    }

    /// Takes ownership of a chunk, as an empty frame.
    ///
    /// # Safety
    /// `chunk` is one of [`Umem::chunks`], and no other frame for it exists.
    #[inline]
    pub unsafe fn empty(&self, chunk: Chunk) -> Frame {
        debug_assert!(chunk.start() + self.frame_size as usize <= self.len);
        // SAFETY: the chunk is inside the mapping (zeroed, aligned to a line), and the caller's to give.
        unsafe { Frame::from_chunk(self.base.add(chunk.start()), self.frame_size, RX_OFFSET as u16, 0) }
    }

    /// Takes ownership of a chunk that the kernel filled. `None` if address and length are not within one.
    ///
    /// # Safety
    /// The kernel or another owner gave the chunk up, and no frame for it exists.
    #[inline]
    pub unsafe fn received(&self, address: u64, len: u32) -> Option<Frame> {
        let (chunk, offset) = self.place(address)?;
        if offset < META || offset + len as usize > self.frame_size as usize {
            return None;
        }
        // SAFETY:
        // - the kernel tells of chunks by the addresses that it was given, which are those of `chunks`: inside the
        //   mapping, with the size of a chunk behind them;
        // - offset and length were just checked; the rest is the caller's promise.
        unsafe {
            let start = self.base.add(chunk.start());
            Some(Frame::from_chunk(start, self.frame_size, offset as u16, len as u16))
        }
    }
}

/// Of what a mapping is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// Huge ones, which were reserved for that.
    Reserved,
    /// Huge ones, which the system makes now.
    Transparent,
    /// Small ones, which may become huge.
    Small,
}

/// Maps whole huge pages, whatever they are made of.
fn map(bytes: usize, pages: Pages) -> io::Result<NonNull<u8>> {
    let kind = if pages == Pages::Reserved { libc::MAP_HUGETLB } else { 0 };
    // One page more, for as much before the first multiple of a huge page.
    let room = if pages == Pages::Transparent { bytes + HUGE_PAGE } else { bytes };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | kind;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let all =
        unsafe { libc::mmap(std::ptr::null_mut(), room, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if all == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let before = if room > bytes { all.addr().wrapping_neg() % HUGE_PAGE } else { 0 };
    let base = all.wrapping_byte_add(before);
    for (start, len) in [(all, before), (base.wrapping_byte_add(bytes), room - bytes - before)] {
        if len > 0 {
            // SAFETY: a part of the mapping that nothing knows of.
            unsafe { libc::munmap(start, len) };
        }
    }
    // Packets in clear have no business in core dumps. Pages that are not huge by themselves may become so. All are
    // there before the first packet is. A kernel that refuses any of that still works.
    for advice in [libc::MADV_DONTDUMP, libc::MADV_HUGEPAGE, libc::MADV_POPULATE_WRITE] {
        // SAFETY: the mapping was just made; no advice changes its contents.
        unsafe { libc::madvise(base, bytes, advice) };
    }
    // Makes all pages huge, now or not at all (madvise(2), from Linux 6.1 on).
    // SAFETY: as above.
    if pages == Pages::Transparent && unsafe { libc::madvise(base, bytes, libc::MADV_COLLAPSE) } != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: the rest of the mapping, of which nothing knows.
        unsafe { libc::munmap(base, bytes) };
        return Err(error);
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at 0"))
}

#[cfg(test)]
mod tests;
