//! Both ends of a ring beside a queue: in steps of one thread, and in all interleavings of two.

use super::*;
use loom::cell::UnsafeCell;
use proptest::prelude::*;
use std::{collections::VecDeque, sync::Arc};

proptest! {
    #[test]
    fn like_a_queue(start: u32, steps in proptest::collection::vec(0u8..40, 1..500)) {
        let (one, other) = RingMap::pair::<u64>(16, start);
        let (mut producer, mut consumer) = (Producer::new(one), Consumer::new(other));
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
                    prop_assert_eq!(producer.pending() as usize, submitted.len() + unreleased);
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
    }
}

#[test]
#[should_panic(expected = "a push without room")]
fn a_full_ring_is_not_overwritten() {
    let (one, _other) = RingMap::pair::<u64>(2, 0);
    let mut producer = Producer::new(one);
    assert_eq!(producer.room(3), 2);
    (0..3u64).for_each(|n| producer.push(n));
}

/// Two entries in a loom model, which sees each access that nothing orders.
struct Model {
    producer: loom::sync::atomic::AtomicU32,
    consumer: loom::sync::atomic::AtomicU32,
    entries: [UnsafeCell<u64>; 2],
}

impl Model {
    fn word(&self, word: Word) -> &loom::sync::atomic::AtomicU32 {
        match word {
            Word::Producer => &self.producer,
            Word::Consumer => &self.consumer,
            Word::Flags => unreachable!("the ends do not look at it by themselves"),
        }
    }
}

impl Memory<u64> for Arc<Model> {
    fn load(&self, word: Word, ordering: Ordering) -> u32 {
        self.word(word).load(ordering)
    }

    fn store(&self, word: Word, value: u32, ordering: Ordering) {
        self.word(word).store(value, ordering);
    }

    fn size(&self) -> u32 {
        self.entries.len() as u32
    }

    unsafe fn write(&self, index: u32, entry: u64) {
        // SAFETY: loom fails if anybody else is at it.
        self.entries[index as usize % 2].with_mut(|at| unsafe { at.write(entry) });
    }

    unsafe fn read(&self, index: u32) -> u64 {
        // SAFETY: loom fails if somebody writes it meanwhile.
        self.entries[index as usize % 2].with(|at| unsafe { at.read() })
    }
}

// SAFETY: loom's cells check each access.
unsafe impl Send for Model {}
// SAFETY: as above.
unsafe impl Sync for Model {}

/// More entries than there are places, by way of the indices' end.
#[test]
fn loom_no_entry_is_lost_repeated_or_read_half() {
    const ENTRIES: u64 = 4;
    loom::model(|| {
        let start = u32::MAX - 1;
        let model = Arc::new(Model {
            producer: loom::sync::atomic::AtomicU32::new(start),
            consumer: loom::sync::atomic::AtomicU32::new(start),
            entries: [UnsafeCell::new(0), UnsafeCell::new(0)],
        });
        let mut consumer = Consumer::new(model.clone());
        let producer = loom::thread::spawn(move || {
            let (mut producer, mut n) = (Producer::new(model), 0);
            while n < ENTRIES {
                let room = u64::from(producer.room(2)).min(ENTRIES - n);
                if room == 0 {
                    loom::thread::yield_now();
                }
                for _ in 0..room {
                    n += 1;
                    producer.push(n);
                }
                producer.submit();
            }
        });
        let mut expected = 1;
        while expected <= ENTRIES {
            let before = expected;
            while let Some(entry) = consumer.pop() {
                assert_eq!(entry, expected);
                expected += 1;
            }
            consumer.release();
            if expected == before {
                loom::thread::yield_now();
            }
        }
        producer.join().unwrap();
    });
}
