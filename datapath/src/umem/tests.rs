use super::*;
use std::collections::BTreeSet;

/// Of small pages, and of huge ones where the system has some: then told is nothing.
fn umems() -> Vec<Umem> {
    let mut all = vec![];
    for frame_size in [2048, 4096] {
        for huge in [HugePages::Off, HugePages::Auto] {
            for frames in [64, 505, 3000] {
                let (umem, told) = Umem::new(frames, frame_size, huge).unwrap();
                assert_eq!(umem.is_unaligned(), huge == HugePages::Auto && told.is_none());
                let (aligned, _) = Umem::aligned(frames, frame_size, huge).unwrap();
                assert!(!aligned.is_unaligned());
                all.extend([umem, aligned]);
            }
        }
    }
    all
}

#[test]
fn chunks_lie_apart_and_within_huge_pages() {
    for umem in umems() {
        let chunks: Vec<_> = umem.chunks().collect();
        assert_eq!(chunks.len(), umem.frames() as usize);
        let size = umem.frame_size() as usize;
        for pair in chunks.windows(2) {
            assert!(pair[0].start() + size <= pair[1].start());
        }
        for chunk in &chunks {
            let (first, last) = (chunk.start(), chunk.start() + size - 1);
            assert!(last < umem.len());
            assert!(!umem.is_unaligned() || first / HUGE_PAGE == last / HUGE_PAGE);
        }
        // What begins at the same place of a page is what the first cache has no room for.
        let places: BTreeSet<_> = chunks.iter().take(64).map(|c| c.start() % 4096).collect();
        assert_eq!(places.len(), if umem.is_unaligned() { 64 } else { 4096 / size });
        assert_eq!(umem.base().as_ptr().addr() % if umem.is_unaligned() { HUGE_PAGE } else { 4096 }, 0);
    }
}

#[test]
fn what_the_kernel_is_told_it_tells_back() {
    for umem in umems() {
        for chunk in umem.chunks() {
            // SAFETY: a chunk of this umem; its only frame is gone at the end of the turn.
            let mut frame = unsafe { umem.empty(chunk) };
            assert_eq!(
                (umem.chunk_of(&frame), umem.chunk_at(umem.address(chunk))),
                (Some(chunk), Some(chunk))
            );
            assert!(frame.extend(60) && frame.push(14));
            // As far as it goes: an empty packet at the very end is in no other chunk.
            for pulled in [0, 20, usize::MAX] {
                frame.pull(pulled);
                if frame.len() > 0 {
                    let address = umem.packet_address(&frame);
                    // SAFETY: the frame that it is about is not used while this one is.
                    let again = unsafe { umem.received(address, frame.len() as u32) }.unwrap();
                    assert_eq!(
                        (again.chunk(), again.offset(), again.len()),
                        (frame.chunk(), frame.offset(), frame.len())
                    );
                    assert_eq!(umem.chunk_at(address), Some(chunk));
                }
            }
        }
    }
}

#[test]
fn what_is_not_in_it_is_refused() {
    for umem in umems() {
        let size = umem.frame_size() as u32;
        let offset = |n: u64| if umem.is_unaligned() { n << 48 } else { n };
        // SAFETY: frames of nothing; only whether there are any is asked.
        let is_one = |address, len| unsafe { umem.received(address, len) }.is_some();
        assert!(is_one(offset(256), size - 256) && !is_one(offset(256), size - 255));
        assert!(!is_one(offset(0), 10), "there, links are");
        assert!(!is_one(umem.len() as u64 + offset(256), 1));
        assert!(!is_one((umem.len() - LINE) as u64 + offset(256), 1), "the chunk would end behind it");
        assert_eq!(umem.chunk_at(umem.len() as u64), None);
        assert_eq!(umem.chunk_at(u64::MAX), None);
    }
}
