//! A chain beside a vector of vectors.

use super::*;
use crate::{
    pool::{FramePool, RX_OFFSET},
    umem::{HugePages, Umem},
};
use proptest::prelude::*;

const SIZE: usize = 2048;
const FRAMES: usize = 64;

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Pull(usize),
    Extend(usize),
    Truncate(usize),
    Keep(usize, usize),
    Reset(usize),
    Append(Vec<usize>),
    Scatter(usize),
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    // The ends of headroom and tailroom are worth a try of their own.
    let amount =
        || prop_oneof![0usize..300, Just(RX_OFFSET - META), Just(RX_OFFSET - META + 1), 1700usize..2100];
    prop_oneof![
        4 => amount().prop_map(Step::Push),
        4 => amount().prop_map(Step::Pull),
        4 => amount().prop_map(Step::Extend),
        2 => amount().prop_map(Step::Truncate),
        2 => (0usize..40, amount()).prop_map(|(at, n)| Step::Keep(at, n)),
        1 => (META..=SIZE).prop_map(Step::Reset),
        3 => proptest::collection::vec(0usize..1793, 1..4).prop_map(Step::Append),
        2 => (0usize..12_000).prop_map(Step::Scatter),
        1 => Just(Step::Cut),
    ]
}

/// Numbers that do not repeat soon.
fn bytes(n: usize, seed: &mut u32) -> Vec<u8> {
    (0..n)
        .map(|_| {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*seed >> 24) as u8
        })
        .collect()
}

/// What a chain should be: where the first segment starts, and the octets of each.
struct Model {
    offset: usize,
    segments: Vec<Vec<u8>>,
}

impl Model {
    fn step(&mut self, step: &Step, frame: &mut Frame, cache: &mut FrameCache, seed: &mut u32) {
        let first = &mut self.segments[0];
        match step {
            Step::Push(n) => {
                let fits = *n <= self.offset - META;
                assert_eq!((frame.headroom(), frame.push(*n)), (self.offset - META, fits));
                if fits {
                    let new = bytes(*n, seed);
                    frame.bytes_mut()[..*n].copy_from_slice(&new);
                    first.splice(0..0, new);
                    self.offset -= n;
                }
            }
            Step::Pull(n) => {
                frame.pull(*n);
                self.offset += first.drain(..(*n).min(first.len())).count();
            }
            Step::Extend(n) => {
                let room = SIZE - self.offset - first.len();
                assert_eq!((frame.tailroom(), frame.extend(*n)), (room, *n <= room));
                if *n <= room {
                    let (new, at) = (bytes(*n, seed), first.len());
                    frame.bytes_mut()[at..].copy_from_slice(&new);
                    first.extend(new);
                }
            }
            Step::Truncate(n) => {
                frame.truncate(*n);
                first.truncate(*n);
            }
            Step::Keep(at, n) => {
                let at = (*at).min(first.len());
                let n = (*n).min(first.len() - at);
                frame.keep(at, n);
                first.truncate(at + n);
                self.offset += first.drain(..at).count();
            }
            Step::Reset(offset) => {
                frame.reset(*offset);
                first.clear();
                self.offset = *offset;
            }
            Step::Append(lens) => {
                let mut chain: Option<Frame> = None;
                for len in lens {
                    let Some(mut segment) = cache.take() else { break };
                    let new = bytes(*len, seed);
                    assert!(segment.extend(*len - len / 3) && segment.push(len / 3 % 200));
                    let new = &new[..segment.len()];
                    segment.bytes_mut().copy_from_slice(new);
                    self.segments.push(new.to_vec());
                    match &mut chain {
                        Some(chain) => chain.append(segment),
                        None => chain = Some(segment),
                    }
                }
                if let Some(chain) = chain {
                    frame.append(chain);
                }
            }
            Step::Scatter(len) => {
                let new = bytes(*len, seed);
                let room = SIZE - RX_OFFSET;
                // All but the first segment's chunk are free then.
                assert_eq!(frame.scatter(&new, cache), len.div_ceil(room).max(1) <= FRAMES);
                self.offset = RX_OFFSET;
                self.segments = new.chunks(room).map(<[u8]>::to_vec).collect();
                if self.segments.is_empty() {
                    self.segments.push(vec![]);
                }
            }
            Step::Cut => {
                let tail = frame.take_tail();
                let rest = self.segments.split_off(1);
                assert_eq!(tail.is_some(), !rest.is_empty());
                if let Some(tail) = tail {
                    compare(&tail, tail.offset(), &rest);
                    cache.give(tail);
                }
            }
        }
    }
}

#[track_caller]
fn compare(frame: &Frame, offset: usize, segments: &[Vec<u8>]) {
    let (total, whole) = (segments.iter().map(Vec::len).sum(), segments.concat());
    assert_eq!((frame.offset(), frame.bytes()), (offset, &segments[0][..]));
    assert_eq!((frame.segments(), frame.total_len()), (segments.len(), total));
    let mut out = vec![0; total];
    assert_eq!(frame.gather(&mut out), total);
    assert_eq!(out, whole);
    // As far as there is room, and no further.
    let mut short = vec![0; total / 2];
    assert_eq!(frame.gather(&mut short), total / 2);
    assert_eq!(short, whole[..total / 2]);
}

proptest! {
    #[test]
    fn like_vectors(steps in proptest::collection::vec(step(), 1..40)) {
        let pool = FramePool::new(Umem::new(FRAMES as u32, SIZE as u16, HugePages::Off).unwrap().0);
        let mut cache = pool.cache();
        let mut frame = cache.take().unwrap();
        let mut model = Model { offset: RX_OFFSET, segments: vec![vec![]] };
        let mut seed = 1;
        for step in &steps {
            model.step(step, &mut frame, &mut cache, &mut seed);
            compare(&frame, model.offset, &model.segments);
        }
        cache.give(frame);
        drop(cache);
        prop_assert_eq!(pool.free(), FRAMES);
    }
}
