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

use crate::pool::FrameCache;
use core::ptr::NonNull;

#[cfg(test)]
mod tests;

/// Bytes at the start of each chunk that packets never use: they link the segments of a chain.
pub const META: usize = 32;

/// One owned segment of a packet, and what follows it in its chain.
#[derive(Debug)]
#[must_use = "a frame that is not sent, handed on or released leaks its chunk"]
pub struct Frame {
    chunk: NonNull<u8>,
    extent: Extent,
}

/// Where a segment is in its chunk, and how many follow it. One word, so that a frame is two: it is moved in
/// registers, and what was just changed in part is never read as a whole. Its parts are changed by adding to the
/// word: whoever does has checked that they do not run over.
#[derive(Clone, Copy, Debug)]
struct Extent(u64);

impl Extent {
    const LEN: u32 = 16;
    const SIZE: u32 = 32;
    const TAIL: u32 = 48;

    #[inline]
    fn new(size: u16, offset: u16, len: u16, tail_segments: u16) -> Extent {
        Extent(
            offset as u64
                | (len as u64) << Self::LEN
                | (size as u64) << Self::SIZE
                | (tail_segments as u64) << Self::TAIL,
        )
    }

    #[inline]
    fn offset(self) -> u16 {
        self.0 as u16
    }

    #[inline]
    fn len(self) -> u16 {
        (self.0 >> Self::LEN) as u16
    }

    #[inline]
    fn size(self) -> u16 {
        (self.0 >> Self::SIZE) as u16
    }

    /// Segments that follow this one.
    #[inline]
    fn tail_segments(self) -> u16 {
        (self.0 >> Self::TAIL) as u16
    }

    /// Begins `n` octets earlier, of which there are as many before it.
    #[inline]
    fn pushed(self, n: usize) -> Extent {
        Extent(self.0 + ((n as u64) << Self::LEN) - n as u64)
    }

    /// Begins `n` octets later, of which it has as many.
    #[inline]
    fn pulled(self, n: usize) -> Extent {
        Extent(self.0 - ((n as u64) << Self::LEN) + n as u64)
    }

    /// Ends `n` octets later, of which there are as many behind it.
    #[inline]
    fn extended(self, n: usize) -> Extent {
        Extent(self.0 + ((n as u64) << Self::LEN))
    }

    /// Ends `n` octets earlier, of which it has as many.
    #[inline]
    fn cut(self, n: usize) -> Extent {
        Extent(self.0 - ((n as u64) << Self::LEN))
    }

    fn with(self, offset: u16, len: u16) -> Extent {
        Extent::new(self.size(), offset, len, self.tail_segments())
    }

    fn with_tail(self, tail_segments: u16) -> Extent {
        Extent::new(self.size(), self.offset(), self.len(), tail_segments)
    }
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
        Frame { chunk, extent: Extent::new(size, offset, len, 0) }
    }

    /// A frame outside of any umem, whose memory is never freed: a worker's scratch buffer.
    pub fn boxed(size: u16) -> Frame {
        let words: &'static mut [u64] = Box::leak(vec![0u64; (size as usize).div_ceil(8)].into_boxed_slice());
        // SAFETY:
        // - the memory is initialised, aligned to 8, of at least `size` octets, and leaked: it outlives all;
        // - the only reference to it was just turned into the pointer;
        // - the packet is empty and at the end of the meta area.
        unsafe { Frame::from_chunk(NonNull::from(words).cast(), size, META as u16, 0) }
    }

    /// Start of the chunk.
    pub fn chunk(&self) -> NonNull<u8> {
        self.chunk
    }

    /// Where the packet starts in its chunk.
    #[inline]
    pub fn offset(&self) -> usize {
        self.extent.offset() as usize
    }

    /// Length of this segment in bytes.
    #[allow(clippy::len_without_is_empty)]
    #[inline]
    pub fn len(&self) -> usize {
        self.extent.len() as usize
    }

    /// Segments in the chain, this one included.
    #[inline]
    pub fn segments(&self) -> usize {
        self.extent.tail_segments() as usize + 1
    }

    /// The bytes of this segment.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `from_chunk`'s contract bounds offset and len; `&self` shares the chunk's only owner.
        unsafe { core::slice::from_raw_parts(self.chunk.as_ptr().add(self.offset()), self.len()) }
    }

    /// The bytes of this segment, to change.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.chunk.as_ptr().add(self.offset()), self.len()) }
    }

    /// Brings the first octets of the packet into the CPU's cache.
    #[inline]
    pub fn prefetch(&self) {
        self.prefetch_at(0);
    }

    /// The same of octets `at` octets behind its beginning.
    #[inline]
    pub fn prefetch_at(&self, at: usize) {
        portcullis_sadb::prefetch_at(self.chunk.as_ptr().wrapping_add(self.offset() + at));
    }

    /// Brings all of the segment into the CPU's cache.
    #[inline]
    pub fn prefetch_all(&self) {
        (0..self.len()).step_by(64).for_each(|at| self.prefetch_at(at));
    }

    /// Brings the octets in front of the packet into the CPU's cache.
    #[inline]
    pub fn prefetch_in_front(&self) {
        portcullis_sadb::prefetch_at(self.chunk.as_ptr().wrapping_add(self.offset() - 1));
    }

    /// Bytes free in front of the packet.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.offset() - META
    }

    /// Bytes free behind this segment.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.extent.size() as usize - self.offset() - self.len()
    }

    /// Grows the packet by `n` bytes at the front. False, and nothing changed, without headroom.
    #[must_use]
    #[inline]
    pub fn push(&mut self, n: usize) -> bool {
        if n > self.headroom() {
            return false;
        }
        self.extent = self.extent.pushed(n);
        true
    }

    /// Grows this segment by `front` bytes at the front and `back` at the end. False, and nothing changed, without room
    /// for both.
    #[must_use]
    #[inline]
    pub fn surround(&mut self, front: usize, back: usize) -> bool {
        if front > self.headroom() || back > self.tailroom() {
            return false;
        }
        self.extent = self.extent.pushed(front).extended(back);
        true
    }

    /// Takes `n` bytes, at most the whole segment, off the front.
    #[inline]
    pub fn pull(&mut self, n: usize) {
        self.extent = self.extent.pulled(n.min(self.len()));
    }

    /// Grows this segment by `n` bytes at the end. False, and nothing changed, without tailroom.
    #[must_use]
    #[inline]
    pub fn extend(&mut self, n: usize) -> bool {
        if n > self.tailroom() {
            return false;
        }
        self.extent = self.extent.extended(n);
        true
    }

    /// Cuts this segment to its first `n` bytes, if it has more.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.extent = self.extent.cut(self.len().saturating_sub(n));
    }

    /// Keeps `n` bytes of this segment from `at` on.
    ///
    /// # Panics
    /// If it has not as many.
    #[inline]
    pub fn keep(&mut self, at: usize, n: usize) {
        let rest = self.len().checked_sub(at).and_then(|len| len.checked_sub(n)).expect("within the segment");
        self.extent = self.extent.pulled(at).cut(rest);
    }

    /// Empties the segment and puts its start at `offset` bytes from the chunk's start.
    pub fn reset(&mut self, offset: usize) {
        assert!((META..=self.extent.size() as usize).contains(&offset));
        self.extent = self.extent.with(offset as u16, 0);
    }

    /// Octets of the whole chain.
    #[inline]
    pub fn total_len(&self) -> usize {
        let (mut total, mut at) = (self.len(), Link::to(self));
        for _ in 0..self.extent.tail_segments() {
            at = at.next();
            total += at.len as usize;
        }
        total
    }

    /// Adds a segment, or a chain of such, to the end of the chain.
    pub fn append(&mut self, tail: Frame) {
        debug_assert!(
            tail.extent.size() == self.extent.size(),
            "one size of chunk in a chain: links do not tell it"
        );
        let added = tail.extent.tail_segments() + 1;
        let link = Link::to(&tail);
        let mut at = Link::to(self);
        for _ in 0..self.extent.tail_segments() {
            at = at.next();
        }
        // SAFETY: `at` is the last segment of the chain that we own.
        unsafe { link.store(at.chunk) };
        self.extent = self.extent.with_tail(self.extent.tail_segments() + added);
    }

    /// Cuts the rest of the chain off: what is left is this segment alone.
    pub fn take_tail(&mut self) -> Option<Frame> {
        let tail_segments = self.extent.tail_segments().checked_sub(1)?;
        let link = Link::to(self).next();
        self.extent = self.extent.with_tail(0);
        let extent = Extent::new(self.extent.size(), link.offset, link.len, tail_segments);
        Some(Frame { chunk: link.chunk, extent })
    }

    /// Copies the whole chain to the start of `out`, as far as there is room. Returns the octets copied.
    pub fn gather(&self, out: &mut [u8]) -> usize {
        let (mut done, mut segment) = (0, Link::to(self));
        for i in 0..self.segments() {
            // SAFETY: a segment of our chain; its bytes are ours as those of the first segment are.
            let bytes = unsafe { segment.bytes() };
            let n = bytes.len().min(out.len() - done);
            out[done..done + n].copy_from_slice(&bytes[..n]);
            done += n;
            if i + 1 < self.segments() {
                segment = segment.next();
            }
        }
        done
    }

    /// Makes the chain hold exactly `bytes`, with segments taken from and given to `cache`. False, with the
    /// chain's contents undefined, if the cache has too few.
    #[must_use]
    pub fn scatter(&mut self, bytes: &[u8], cache: &mut FrameCache) -> bool {
        if let Some(tail) = self.take_tail() {
            cache.give(tail);
        }
        self.reset(crate::pool::RX_OFFSET);
        let mut rest = self.fill(bytes);
        while !rest.is_empty() {
            let Some(mut segment) = cache.take() else { return false };
            rest = segment.fill(rest);
            self.append(segment);
        }
        true
    }

    /// Fills an empty segment; returns what did not fit.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(self.tailroom()));
        self.extent = self.extent.with(self.extent.offset(), now.len() as u16);
        self.bytes_mut().copy_from_slice(now);
        rest
    }
}

/// Where the next segment of a chain is, kept in the meta area of the one before it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Link {
    chunk: NonNull<u8>,
    offset: u16,
    len: u16,
}

const _: () = assert!(size_of::<Link>() <= META && align_of::<Link>() <= 8 && size_of::<Frame>() == 16);

impl Link {
    fn to(frame: &Frame) -> Link {
        Link { chunk: frame.chunk, offset: frame.extent.offset(), len: frame.extent.len() }
    }

    /// The link in this segment's meta area; there must be a next segment.
    fn next(&self) -> Link {
        // SAFETY: the segment belongs to a chain that somebody owns; its meta area holds a link, written by
        // `append`, as the chain's count of segments says.
        unsafe { self.chunk.cast::<Link>().read() }
    }

    /// # Safety
    /// `chunk` is a chunk that the caller owns.
    unsafe fn store(self, chunk: NonNull<u8>) {
        // SAFETY: chunks start with META writable octets, aligned to 8; the caller owns this one.
        unsafe { chunk.cast::<Link>().write(self) }
    }

    /// # Safety
    /// The caller owns the chain that this segment belongs to, for as long as the slice lives.
    unsafe fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: offset and length were those of a frame, whose contract bounds them.
        unsafe {
            core::slice::from_raw_parts(self.chunk.as_ptr().add(self.offset as usize), self.len as usize)
        }
    }
}
