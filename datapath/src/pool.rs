//! Free frames: each worker has a cache, and exchanges whole magazines with the others over a lock-free list.
//!
//! Magazines in the list are full, so that there are never more than it has room for; what a cache that ends
//! has besides goes to a list of single chunks.

use crate::{
    frame::Frame,
    umem::{Chunk, Umem},
};
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Where packets start in a fresh chunk: the kernel leaves as much room in front of what it receives.
pub const RX_OFFSET: usize = 256;

/// Chunks of a magazine.
const MAGAZINE: usize = 64;

type Magazine = ArrayVec<Chunk, MAGAZINE>;

/// The free chunks of a umem that are in no cache.
#[derive(Debug)]
pub struct FramePool {
    umem: Arc<Umem>,
    magazines: ArrayQueue<Magazine>,
    loose: ArrayQueue<Chunk>,
}

impl FramePool {
    /// A pool of all chunks of a umem, none of which may be in use.
    pub fn new(umem: Umem) -> Arc<FramePool> {
        let frames = umem.frames() as usize;
        let (magazines, loose) = (ArrayQueue::new(frames / MAGAZINE), ArrayQueue::new(frames));
        let mut chunks = umem.chunks();
        let pool = FramePool { umem: Arc::new(umem), magazines, loose };
        for _ in 0..frames / MAGAZINE {
            pool.put_magazine(chunks.by_ref().take(MAGAZINE).collect());
        }
        chunks.for_each(|chunk| pool.put_loose(chunk));
        Arc::new(pool)
    }

    /// A worker's cache, empty at first.
    pub fn cache(self: &Arc<Self>) -> FrameCache {
        FrameCache { pool: self.clone(), in_use: Magazine::new(), spare: Magazine::new() }
    }

    /// The umem.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// Free chunks that are in no cache. Exact when nobody uses the pool.
    pub fn free(&self) -> usize {
        self.magazines.len() * MAGAZINE + self.loose.len()
    }

    fn take_magazine(&self) -> Option<Magazine> {
        self.magazines.pop().or_else(|| {
            let loose: Magazine = std::iter::from_fn(|| self.loose.pop()).take(MAGAZINE).collect();
            (!loose.is_empty()).then_some(loose)
        })
    }

    fn put_magazine(&self, magazine: Magazine) {
        // Full, and of chunks that are here only: the list has room for all there are.
        let put = self.magazines.push(magazine);
        debug_assert!(put.is_ok());
    }

    fn put_loose(&self, chunk: Chunk) {
        // As above.
        let put = self.loose.push(chunk);
        debug_assert!(put.is_ok());
    }
}

impl Drop for FramePool {
    /// A chunk that is not here may be in a [`Frame`], or with the kernel: then the memory stays.
    fn drop(&mut self) {
        if self.free() < self.umem.frames() as usize {
            std::mem::forget(self.umem.clone());
        }
    }
}

/// One worker's free chunks: two magazines, so that taking and giving at an edge does not go to and fro.
#[derive(Debug)]
pub struct FrameCache {
    pool: Arc<FramePool>,
    in_use: Magazine,
    spare: Magazine,
}

impl FrameCache {
    /// A free chunk, as an empty frame at [`RX_OFFSET`].
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let chunk = self.take_chunk()?;
        // SAFETY: chunks in the pool are the umem's, and in one place at a time: nothing else
        // has a frame for this one.
        Some(unsafe { self.pool.umem.empty(chunk) })
    }

    /// A free chunk, to be given to the kernel.
    #[inline]
    pub fn take_chunk(&mut self) -> Option<Chunk> {
        if let Some(chunk) = self.in_use.pop() {
            return Some(chunk);
        }
        std::mem::swap(&mut self.in_use, &mut self.spare);
        if self.in_use.is_empty() {
            self.in_use = self.pool.take_magazine()?;
        }
        self.in_use.pop()
    }

    /// Gives a frame and all of its chain back.
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        let mut next = Some(frame);
        while let Some(mut frame) = next {
            next = frame.take_tail();
            if let Some(chunk) = self.pool.umem.chunk_of(&frame) {
                self.put(chunk);
            }
        }
    }

    /// Takes back the chunk at an address that the kernel is done with.
    ///
    /// # Safety
    /// The chunk was taken from this pool, and no frame for it exists any more.
    #[inline]
    pub unsafe fn give_address(&mut self, address: u64) {
        if let Some(chunk) = self.pool.umem.chunk_at(address) {
            self.put(chunk);
        }
    }

    /// The umem.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.pool.umem
    }

    fn put(&mut self, chunk: Chunk) {
        if self.in_use.is_full() {
            std::mem::swap(&mut self.in_use, &mut self.spare);
            if self.in_use.is_full() {
                self.pool.put_magazine(std::mem::take(&mut self.in_use));
            }
        }
        self.in_use.push(chunk);
    }
}

impl Drop for FrameCache {
    fn drop(&mut self) {
        for mut magazine in [std::mem::take(&mut self.in_use), std::mem::take(&mut self.spare)] {
            if magazine.is_full() {
                self.pool.put_magazine(magazine);
            } else {
                magazine.drain(..).for_each(|chunk| self.pool.put_loose(chunk));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::umem::HugePages;

    fn pool(frames: u32) -> Arc<FramePool> {
        FramePool::new(Umem::new(frames, 2048, HugePages::Off).unwrap().0)
    }

    #[test]
    fn every_chunk_is_given_once_and_comes_back() {
        let pool = pool(1000);
        let (mut a, mut b) = (pool.cache(), pool.cache());
        let mut frames: Vec<_> = std::iter::from_fn(|| a.take()).collect();
        assert_eq!((frames.len(), pool.free()), (1000, 0));
        frames.sort_by_key(|f| f.chunk());
        assert!(frames.windows(2).all(|w| w[0].chunk() != w[1].chunk()));
        for (i, frame) in frames.into_iter().enumerate() {
            if i % 3 == 0 { a.give(frame) } else { b.give(frame) }
        }
        drop((a, b));
        assert_eq!(pool.free(), 1000);
    }

    #[test]
    fn caches_come_and_go_and_share() {
        let pool = pool(1000);
        for round in 0..1000 {
            let (mut a, mut b) = (pool.cache(), pool.cache());
            for _ in 0..round % 200 {
                b.give(a.take().unwrap());
            }
            drop((a, b));
            assert_eq!(pool.free(), 1000);
        }
        let mut one = pool.cache();
        let frames: Vec<_> = std::iter::from_fn(|| one.take()).collect();
        assert_eq!(frames.len(), 1000, "a cache can have them all, however they lie");
        frames.into_iter().for_each(|f| one.give(f));
    }

    #[test]
    fn threads_pass_frames_on_and_none_is_lost() {
        let pool = pool(512);
        let (send, receive) = std::sync::mpsc::sync_channel::<Frame>(32);
        let giver = std::thread::spawn({
            let mut cache = pool.cache();
            move || receive.iter().for_each(|frame| cache.give(frame))
        });
        let mut cache = pool.cache();
        for n in 0..50_000u32 {
            let mut frame = std::iter::repeat_with(|| cache.take()).flatten().next().unwrap();
            assert!(frame.extend(4), "empty, as the pool gives them");
            frame.bytes_mut().copy_from_slice(&n.to_ne_bytes());
            send.send(frame).unwrap();
        }
        drop((send, cache));
        giver.join().unwrap();
        assert_eq!(pool.free(), 512);
    }

    #[test]
    fn a_frame_outlives_its_pool() {
        let pool = pool(64);
        let mut frame = pool.cache().take().unwrap();
        drop(pool);
        assert!(frame.extend(100));
        frame.bytes_mut().fill(1);
        assert_eq!(frame.bytes(), [1; 100]);
    }

    #[test]
    fn a_chain_holds_what_it_is_given_and_goes_back_whole() {
        let pool = pool(64);
        let mut cache = pool.cache();
        for len in [0usize, 1, 1791, 1792, 1793, 2 * 1792, 9000] {
            let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut frame = cache.take().unwrap();
            assert!(frame.scatter(&bytes, &mut cache));
            assert_eq!(frame.segments(), len.div_ceil(1792).max(1));
            let mut out = vec![0; len + 1];
            assert_eq!((frame.total_len(), frame.gather(&mut out)), (len, len));
            assert_eq!(out[..len], bytes);
            assert!(frame.scatter(&bytes[..len / 2], &mut cache));
            assert_eq!(frame.total_len(), len / 2);
            let mut other = cache.take().unwrap();
            assert!(other.extend(5));
            frame.append(other);
            assert_eq!(frame.total_len(), len / 2 + 5);
            cache.give(frame);
        }
        let mut frame = cache.take().unwrap();
        assert!(!frame.scatter(&vec![0; 65 * 1792], &mut cache), "more than there is");
        cache.give(frame);
        drop(cache);
        assert_eq!(pool.free(), 64);
    }
}
