//! Tables at each edge of the window and of the 32-bit subspaces, and a naive set as oracle.

use super::*;
use crate::verified::verified;
use proptest::prelude::*;
use std::collections::BTreeSet;

use DropReason::{ReplayDuplicate as Duplicate, ReplayTooOld as TooOld};

const SIZES: [u32; 5] = [64, 128, 1024, 4096, 65_536];

/// A window with its ring.
struct Window(ReplayWindow, Ring);

impl Window {
    fn new(size: u32, esn: bool) -> Window {
        let mut ring = Ring::new(size);
        Window(ReplayWindow::new(size, esn, 0, &mut ring), ring)
    }

    fn resume(&mut self, highest: u64) {
        self.0 = ReplayWindow::new(self.0.size, self.0.esn, highest, &mut self.1);
    }

    fn infer(&self, seq_lo: u32) -> u64 {
        self.0.infer(seq_lo)
    }

    fn check(&self, seq: u64) -> Result<(), DropReason> {
        self.0.check(seq, &self.1)
    }

    fn top(&self) -> u64 {
        self.0.top()
    }
}

fn accept(w: &mut Window, seq: u64) -> Result<(), DropReason> {
    w.0.commit(seq, &mut w.1, verified())
}

#[test]
fn every_edge_of_the_window() {
    for size in SIZES {
        let n = size as u64;
        for top in [n, n + 1, n + 63, n + 64, n + 65, 10 * n, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 40]
        {
            let table = [
                (0, Err(TooOld)),
                (top - n, Err(TooOld)), // RFC 4303 §3.4.3: the window is the last `size` numbers
                (top - n + 1, Ok(())),
                (top - n + 2, Ok(())),
                (top - 1, Ok(())),
                (top, Err(Duplicate)),
                (top + 1, Ok(())),
                (top + 2, Ok(())),
                (top + 63, Ok(())),
                (top + 64, Ok(())),
                (top + n - 1, Ok(())),
                (top + n, Ok(())),
                (top + n + 1, Ok(())),
                (top + 100 * n, Ok(())),
            ];
            for (seq, expected) in table {
                let mut w = Window::new(size, true);
                accept(&mut w, top).unwrap();
                assert_eq!(w.check(seq), expected, "size {size}, top {top}, seq {seq}");
                assert_eq!(accept(&mut w, seq), expected);
                assert_eq!(w.top(), if expected.is_ok() { seq.max(top) } else { top });
                if expected.is_ok() {
                    assert_eq!(accept(&mut w, seq), Err(Duplicate), "size {size}, top {top}, again {seq}");
                }
                let again = if w.top() - top >= n { TooOld } else { Duplicate };
                assert_eq!(accept(&mut w, top), Err(again), "size {size}, seq {seq}, top again {top}");
            }
        }
    }
}

#[test]
fn two_copies_in_one_batch_pass_the_check_and_one_passes_the_commit() {
    let mut w = Window::new(64, true);
    assert_eq!((w.check(5), w.check(5)), (Ok(()), Ok(())));
    assert_eq!((accept(&mut w, 5), accept(&mut w, 5)), (Ok(()), Err(Duplicate)));
}

#[test]
fn the_high_half_is_inferred_across_each_subspace() {
    const G: u64 = 1 << 32;
    for size in SIZES {
        let n = size as u64;
        // RFC 4303 §A2.2: case A (window within one subspace) and case B (across two).
        for top in [n - 1, n, G - 1, G + n - 2, G + n - 1, G, G + 1, 2 * G - 1, 2 * G, 5 * G + 3, 7 * G + n] {
            let mut w = Window::new(size, true);
            w.resume(top);
            let lowest = (top + 1).saturating_sub(n);
            for seq in [lowest, lowest + 1, top - 1, top, top + 1, top + n, top + 1000, top + (1 << 31)] {
                assert_eq!(w.infer(seq as u32), seq, "size {size}, top {top:#x}, seq {seq:#x}");
            }
        }
        let fresh = Window::new(size, true);
        for seq in [1, 2, n, G - 1] {
            assert_eq!(fresh.infer(seq as u32), seq, "before the first packet");
        }
    }
}

#[test]
fn without_esn_nothing_wraps() {
    let mut w = Window::new(64, false);
    let last = u32::MAX as u64;
    accept(&mut w, last).unwrap();
    assert_eq!(w.infer(1), 1);
    assert_eq!((w.check(w.infer(1)), w.check(w.infer(0))), (Err(TooOld), Err(TooOld)));
}

#[test]
fn what_was_seen_before_a_restart_stays_seen() {
    for size in SIZES {
        for highest in [1u64, 63, 64, 65, 1000, 65_536, (1 << 32) - 1, 1 << 32] {
            let mut w = Window::new(size, true);
            w.resume(highest);
            for seq in highest.saturating_sub(2 * size as u64)..=highest {
                assert!(w.check(seq).is_err(), "size {size}, highest {highest}, seq {seq}");
            }
            for seq in highest + 1..highest + 200 {
                assert_eq!(accept(&mut w, seq), Ok(()), "size {size}, highest {highest}, seq {seq}");
            }
        }
        let mut w = Window::new(size, true);
        w.resume(0);
        assert_eq!(accept(&mut w, 1), Ok(()));
    }
}

#[test]
fn a_window_of_no_size_refuses_nothing() {
    let mut w = Window::new(0, true);
    assert_eq!([0, 7, 7, 3].map(|s| accept(&mut w, s)), [Ok(()); 4]);
    assert_eq!(w.top(), 7);
}

proptest! {
    #[test]
    fn like_a_naive_set(
        size in prop::sample::select(SIZES.to_vec()),
        start in prop::sample::select(vec![0u64, 1000, (1 << 32) - 500, (1 << 40) - 3]),
        steps in prop::collection::vec((any::<bool>(), 0u64..3000), 1..400),
    ) {
        let mut w = Window::new(size, true);
        w.resume(start);
        let (mut top, mut seen) = (start, BTreeSet::new());
        for (forward, step) in steps {
            let seq = if forward { top + step % 300 } else { top.saturating_sub(step) };
            let expected = if seq == 0 || top >= size as u64 && seq <= top - size as u64 {
                Err(TooOld)
            } else if seq <= start || seen.contains(&seq) {
                Err(Duplicate)
            } else {
                Ok(())
            };
            // Left of the window the wire's half means a number of the next subspace.
            if seq + size as u64 > top {
                prop_assert_eq!(w.infer(seq as u32), seq);
            }
            prop_assert_eq!(w.check(seq), expected, "seq {} top {}", seq, top);
            prop_assert_eq!(accept(&mut w, seq), expected);
            if expected.is_ok() {
                seen.insert(seq);
                top = top.max(seq);
            }
        }
    }

    /// Jumps that enter many words of the ring at once, and looks at the far edge.
    #[test]
    fn like_a_naive_set_at_the_edges(
        size in prop::sample::select(SIZES.to_vec()),
        start in prop::sample::select(vec![0u64, 1, 63, 64, (1 << 32) - 70_000, u64::MAX - (1 << 40)]),
        steps in prop::collection::vec((0usize..14, 0u64..130), 1..60),
    ) {
        let n = size as u64;
        let mut w = Window::new(size, true);
        w.resume(start);
        let (mut top, mut seen) = (start, BTreeSet::new());
        for (step, off) in steps {
            let forward = [1, 63, 64, 65, n - 64, n - 1, n, n + 1, n + 63, n + 64, 2 * n, 3 * n];
            let seq = match forward.get(step) {
                Some(jump) => top + jump + off,
                // Around the left edge, and around words that the ring holds.
                None if step % 2 == 0 => (top + 65 + off).saturating_sub(n + 130),
                None => top.saturating_sub(off * n / 130),
            };
            let expected = if seq == 0 || top >= n && seq <= top - n {
                Err(TooOld)
            } else if seq <= start || seen.contains(&seq) {
                Err(Duplicate)
            } else {
                Ok(())
            };
            prop_assert_eq!(w.check(seq), expected, "seq {} top {}", seq, top);
            prop_assert_eq!(accept(&mut w, seq), expected);
            if expected.is_ok() {
                seen.insert(seq);
                top = top.max(seq);
            }
            prop_assert_eq!(w.top(), top);
        }
    }

    /// RFC 4303 §A2.2: the half on the wire stands for the one number from the left edge on, below a
    /// whole subspace beyond it. Without a window the edge is far back.
    #[test]
    fn the_high_half_is_inferred_in_all_of_a_subspace(
        size in prop::sample::select(vec![0, 64, 1024, 65_536]),
        subspace in prop_oneof![0u64..3, Just(u32::MAX as u64 - 1)],
        near in prop_oneof![0u32..70_000, any::<u32>(), u32::MAX - 70_000..=u32::MAX],
        ahead in prop_oneof![0u32..140_000, any::<u32>(), u32::MAX - 140_000..=u32::MAX],
    ) {
        let top = subspace << 32 | near as u64;
        let back = if size == 0 { UNCHECKED_REACH } else { size } as u64;
        prop_assume!(top >= back);
        let mut w = Window::new(size, true);
        w.resume(top);
        let seq = top - back + 1 + ahead as u64;
        prop_assert_eq!(w.infer(seq as u32), seq, "size {}, top {:#x}", size, top);
    }
}

#[test]
fn after_the_last_number_there_is_none() {
    let mut w = Window::new(64, true);
    w.resume(u64::MAX - 1);
    assert_eq!(accept(&mut w, u64::MAX), Ok(()));
    for seq_lo in [0, 1, 63, u32::MAX] {
        assert!(w.check(w.infer(seq_lo)).is_err(), "{seq_lo:#x}");
    }
}
