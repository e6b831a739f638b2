//! A frame: one packet in a chunk of the umem, owned by whoever holds it.
//!
//! A [`Frame`] is to a chunk what a `Box` is to its allocation, except that it goes back to a
//! [`FramePool`](crate::pool) by hand: it has no `Drop`, since the packet path moves frames between
//! rings that only know addresses. Each chunk has at most one `Frame`, so `&mut Frame` is exclusive
//! access to its bytes.
//!
//! ```text
//!  chunk                    chunk+META        data              data+len              chunk+size
//!    | meta (next segment) |    headroom     |     packet      |       tailroom         |
//! ```
//!
//! A packet larger than a chunk (jumbo frames) is a chain: the first segment holds the headers, and
//! each segment's meta area holds the next.

use core::ptr::NonNull;

/// Bytes at the start of each chunk that packets never use: they link the segments of a chain.
pub const META: usize = 32;

/// One owned segment of a packet, and what follows it in its chain.
#[derive(Debug)]
#[must_use = "a frame that is not sent, handed on or released leaks its chunk"]
pub struct Frame {
    chunk: NonNull<u8>,
    size: u16,
    offset: u16,
    len: u16,
    /// Segments that follow this one.
    tail_segments: u16,
}

// SAFETY: a `Frame` is the only access to its chunk (see `from_chunk`), like a `Box<[u8]>`.
unsafe impl Send for Frame {}

impl Frame {
    /// Takes ownership of a chunk whose packet bytes are `offset..offset + len`.
    ///
    /// # Safety
    /// - `chunk` points to `size` initialised bytes, aligned to 8, that outlive the frame;
    /// - no other `Frame` for this chunk exists, and nothing else accesses its bytes meanwhile;
    /// - `META <= offset`, and `offset + len <= size`.
    pub unsafe fn from_chunk(chunk: NonNull<u8>, size: u16, offset: u16, len: u16) -> Frame {
        debug_assert!(offset as usize >= META && offset as u32 + len as u32 <= size as u32);
        Frame { chunk, size, offset, len, tail_segments: 0 }
    }

    /// Start of the chunk.
    pub fn chunk(&self) -> NonNull<u8> {
        self.chunk
    }

    /// Where the packet starts in its chunk.
    pub fn offset(&self) -> usize {
        self.offset as usize
    }

    /// Length of this segment in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Segments in the chain, this one included.
    pub fn segments(&self) -> usize {
        self.tail_segments as usize + 1
    }

    /// The bytes of this segment.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `from_chunk`'s contract bounds offset and len; `&self` shares the chunk's only owner.
        unsafe {
            core::slice::from_raw_parts(self.chunk.as_ptr().add(self.offset as usize), self.len as usize)
        }
    }

    /// The bytes of this segment, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` is exclusive.
        unsafe {
            core::slice::from_raw_parts_mut(self.chunk.as_ptr().add(self.offset as usize), self.len as usize)
        }
    }

    /// Bytes free in front of the packet.
    pub fn headroom(&self) -> usize {
        self.offset as usize - META
    }

    /// Bytes free behind this segment.
    pub fn tailroom(&self) -> usize {
        (self.size - self.offset - self.len) as usize
    }

    /// Grows the packet by `n` bytes at the front. False, and nothing changed, without headroom.
    #[must_use]
    pub fn push(&mut self, n: usize) -> bool {
        if n > self.headroom() {
            return false;
        }
        self.offset -= n as u16;
        self.len += n as u16;
        true
    }

    /// Takes `n` bytes, at most the whole segment, off the front.
    pub fn pull(&mut self, n: usize) {
        let n = n.min(self.len as usize) as u16;
        self.offset += n;
        self.len -= n;
    }

    /// Grows this segment by `n` bytes at the end. False, and nothing changed, without tailroom.
    #[must_use]
    pub fn extend(&mut self, n: usize) -> bool {
        if n > self.tailroom() {
            return false;
        }
        self.len += n as u16;
        true
    }

    /// Cuts this segment to its first `n` bytes, if it has more.
    pub fn truncate(&mut self, n: usize) {
        self.len = (self.len as usize).min(n) as u16;
    }

    /// Empties the segment and puts its start at `offset` bytes from the chunk's start.
    pub fn reset(&mut self, offset: usize) {
        assert!((META..=self.size as usize).contains(&offset));
        self.offset = offset as u16;
        self.len = 0;
    }
}
