//! The lock-free protocols under all interleavings, and all the reorderings that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p portcullis-sadb --release --lib loom`
//!
//! A load in loom never has the value of a later store. What keeps a load before a later store of its thread is
//! therefore not proved here: in `epoch` the Release of `announce` and `offline` with the Acquire of `passed`, in
//! `event` the Release of the tail with the Acquire of it. Every other order and fence of epochs, slots, index, SPD
//! and events makes a test fail when it is taken away.

use crate::{
    Direction, Event, EventKind, Flow, Generation, Policy, PolicyIndex, Selector, SlotIndex, Spi,
    epoch::{self, OFFLINE},
    event::{EVENTS, EventRing},
    index::{Bucket, SpiIndex},
    sa::SaWords,
    slot::Slot,
    spd::{Action, LIVE, MAX_TUPLES, PolicySlot, Spd, TupleSlot},
    sync::{AtomicU32, AtomicU64, Ordering},
};
use ::loom::{model, thread};
use std::sync::Arc;

#[test]
fn a_copy_is_whole_and_of_its_generation() {
    model(|| {
        let slot = Arc::new(Slot::<2>::new());
        slot.publish(&SaWords([1, 1]));
        let writer = thread::spawn({
            let slot = slot.clone();
            move || {
                slot.retire();
                slot.publish(&SaWords([3, 3]));
            }
        });
        if let Some((generation, words)) = slot.copy() {
            assert_eq!(words.0, [generation.0; 2]);
        }
        writer.join().unwrap();
        assert_eq!(slot.copy().map(|(g, w)| (g, w.0)), Some((Generation(3), [3, 3])));
    });
}

/// The writer retires and reclaims while a worker takes turns: who found a generation finds its body.
fn no_worker_reads_a_wiped_body(first: u64) {
    model(move || {
        let shared = Arc::new((Slot::<1>::new(), AtomicU64::new(first), AtomicU64::new(0)));
        shared.0.publish(&SaWords([7]));
        let writer = thread::spawn({
            let shared = shared.clone();
            move || {
                let (slot, worker, global) = &*shared;
                slot.retire();
                let epoch = epoch::advance(global);
                if epoch::passed([worker], epoch) {
                    slot.wipe();
                    slot.publish(&SaWords([9]));
                }
            }
        });
        let (slot, worker, global) = &*shared;
        epoch::announce(worker, global);
        let before = slot.generation();
        let spi = slot.spi();
        assert!([None, Some(Spi(7)), Some(Spi(9))].contains(&spi), "{spi:?}");
        // What is read within one turn is of one SA.
        assert!(before != Some(Generation(1)) || spi != Some(Spi(9)));
        epoch::announce(worker, global);
        assert_ne!(slot.spi(), Some(Spi(0)));
        epoch::offline(worker);
        writer.join().unwrap();
    });
}

#[test]
fn a_worker_that_comes_online_reads_no_wiped_body() {
    no_worker_reads_a_wiped_body(OFFLINE);
}

#[test]
fn a_worker_that_goes_on_reads_no_wiped_body() {
    no_worker_reads_a_wiped_body(0);
}

#[test]
fn events_arrive_whole_in_order_or_are_counted_as_lost() {
    const TOLD: u64 = EVENTS as u64 + 1;
    model(|| {
        let shared = Arc::new((EventRing::new(), AtomicU64::new(0)));
        let worker = thread::spawn({
            let shared = shared.clone();
            move || {
                for n in 1..=TOLD {
                    let (kind, slot) = (EventKind::SeqLow, SlotIndex(n as u32));
                    shared.0.push(&shared.1, &Event { kind, slot, generation: Generation(n), value: n });
                }
            }
        });
        let mut last = 0;
        let mut got = 0;
        let mut take = || {
            if let Some(e) = shared.0.pop(&shared.1) {
                assert_eq!((e.slot.0 as u64, e.generation.0), (e.value, e.value));
                assert!(e.value > last);
                (last, got) = (e.value, got + 1);
            }
        };
        (0..2).for_each(|_| take());
        worker.join().unwrap();
        (0..TOLD).for_each(|_| take());
        assert_eq!(got + shared.0.lost(), TOLD);
    });
}

#[test]
fn an_spi_is_found_behind_a_bucket_that_changes() {
    model(|| {
        let buckets: Arc<[Bucket]> = Arc::new([Bucket::new(), Bucket::new()]);
        let index = SpiIndex { buckets: &buckets, seed: 1 };
        let home = |spi| std::ptr::from_ref(index.home_bucket(spi));
        let mut same = (256..).map(Spi).filter(|s| home(*s) == home(Spi(256)));
        let [a, b, c] = std::array::from_fn(|_| same.next().unwrap());
        // A bucket has one entry here: `b` lives in the other one.
        assert!(index.insert(a, SlotIndex(1)) && index.insert(b, SlotIndex(2)));
        let writer = thread::spawn({
            let buckets = buckets.clone();
            move || {
                let index = SpiIndex { buckets: &buckets, seed: 1 };
                index.remove(a);
                assert!(index.insert(c, SlotIndex(3)));
                index.remove(c);
            }
        });
        assert_eq!(index.find(b), Some(SlotIndex(2)));
        assert!([None, Some(SlotIndex(1))].contains(&index.find(a)));
        assert!([None, Some(SlotIndex(3))].contains(&index.find(c)));
        writer.join().unwrap();
        assert_eq!([a, b, c].map(|s| index.find(s)), [None, Some(SlotIndex(2)), None]);
    });
}

#[test]
fn an_spi_that_overflows_is_found_whole_or_not_at_all() {
    model(|| {
        let buckets: Arc<[Bucket]> = Arc::new([Bucket::new(), Bucket::new()]);
        let index = SpiIndex { buckets: &buckets, seed: 1 };
        let home = |spi| std::ptr::from_ref(index.home_bucket(spi));
        let mut same = (256..).map(Spi).filter(|s| home(*s) == home(Spi(256)));
        let [a, b] = std::array::from_fn(|_| same.next().unwrap());
        assert!(index.insert(a, SlotIndex(1)));
        let published = Arc::new(AtomicU32::new(0));
        let writer = thread::spawn({
            let (buckets, published) = (buckets.clone(), published.clone());
            move || {
                assert!(SpiIndex { buckets: &buckets, seed: 1 }.insert(b, SlotIndex(2)));
                published.store(1, Ordering::Release);
            }
        });
        let told = published.load(Ordering::Acquire) == 1;
        let found = index.find(b);
        assert!(found == Some(SlotIndex(2)) || (found.is_none() && !told), "{found:?}");
        assert_eq!(index.find(a), Some(SlotIndex(1)));
        writer.join().unwrap();
    });
}

#[test]
fn who_finds_an_spi_finds_its_sa() {
    model(|| {
        let shared = Arc::new((Slot::<1>::new(), [Bucket::new(), Bucket::new()]));
        let writer = thread::spawn({
            let shared = shared.clone();
            move || {
                shared.0.publish(&SaWords([300]));
                assert!(SpiIndex { buckets: &shared.1, seed: 1 }.insert(Spi(300), SlotIndex(0)));
            }
        });
        let index = SpiIndex { buckets: &shared.1, seed: 1 };
        if index.find(Spi(300)).is_some() {
            assert_eq!(shared.0.spi(), Some(Spi(300)));
        }
        writer.join().unwrap();
    });
}

struct SpdParts {
    policies: [PolicySlot; 3],
    heads: [AtomicU32; 1],
    tuples: Vec<TupleSlot>,
    version: AtomicU64,
}

impl SpdParts {
    fn new() -> SpdParts {
        let zero = || AtomicU32::new(0);
        let tuple = || TupleSlot { bits: AtomicU64::new(0), best: zero(), count: zero() };
        SpdParts {
            policies: std::array::from_fn(|_| PolicySlot::new()),
            heads: [zero()],
            tuples: (0..2 * MAX_TUPLES).map(|_| tuple()).collect(),
            version: AtomicU64::new(0),
        }
    }

    fn spd(&self) -> Spd<'_> {
        let SpdParts { policies, heads, tuples, version } = self;
        Spd { policies, heads, tuples, version, seed: 1 }
    }

    fn add(&self, index: u32, policy: &Policy) {
        let spd = self.spd();
        spd.policies[index as usize].fill(policy);
        spd.link(PolicyIndex(index), policy);
        spd.bump();
    }

    fn remove(&self, index: u32, policy: &Policy) {
        let spd = self.spd();
        spd.policies[index as usize].retire();
        spd.unlink(PolicyIndex(index), policy);
        spd.bump();
    }
}

fn policy(priority: u32) -> Policy {
    let all = "0.0.0.0/0".parse().unwrap();
    Policy {
        direction: Direction::Outbound,
        selector: Selector::between(all, all),
        priority,
        action: Action::Protect,
        reqid: priority,
        sa: None,
    }
}

/// A lookup never falls between a policy and the one that takes its place.
#[test]
fn a_policy_is_replaced_without_a_gap() {
    model(|| {
        let parts = Arc::new(SpdParts::new());
        let tuple = &parts.tuples[MAX_TUPLES];
        tuple.set(Spd::tuple_bits(&policy(1)), 0, 1);
        parts.add(0, &policy(5));
        parts.add(1, &policy(3));
        let writer = thread::spawn({
            let parts = parts.clone();
            move || {
                parts.add(2, &policy(1));
                parts.remove(1, &policy(3));
            }
        });
        let any = "10.0.0.1".parse().unwrap();
        let flow = Flow { src: any, dst: any, protocol: 17, ports: None };
        let hit = parts.spd().lookup(Direction::Outbound, &flow).unwrap();
        assert!([(1, 3), (2, 1)].contains(&(hit.index.0, hit.priority)), "{hit:?}");
        assert_eq!(hit.reqid, hit.priority);
        writer.join().unwrap();
        assert_eq!(parts.policies[2].state.load(Ordering::Relaxed), LIVE);
    });
}

/// Who copies policies and is no worker gets one or the other, though the slot is used again at once. The writer stores
/// only what differs, or there were too many interleavings.
#[test]
fn a_copied_policy_is_whole() {
    model(|| {
        let parts = Arc::new(SpdParts::new());
        parts.add(0, &policy(5));
        let writer = thread::spawn({
            let parts = parts.clone();
            move || {
                let slot = &parts.policies[0];
                slot.retire();
                parts.spd().bump();
                slot.priority.store(3, Ordering::Relaxed);
                slot.reqid.store(3, Ordering::Relaxed);
                slot.state.store(LIVE, Ordering::Release);
                parts.spd().bump();
            }
        });
        let copy = parts.spd().copy(PolicyIndex(0));
        assert!(copy.as_ref().is_none_or(|p| [policy(5), policy(3)].contains(p)), "{copy:?}");
        writer.join().unwrap();
        assert_eq!(parts.spd().copy(PolicyIndex(0)), Some(policy(3)));
    });
}

#[test]
fn a_policy_is_copied_once_it_is_filled() {
    model(|| {
        let parts = Arc::new(SpdParts::new());
        let writer = thread::spawn({
            let parts = parts.clone();
            move || parts.policies[0].fill(&policy(5))
        });
        let copy = parts.spd().copy(PolicyIndex(0));
        assert!(copy.as_ref().is_none_or(|p| *p == policy(5)), "{copy:?}");
        writer.join().unwrap();
    });
}

/// A policy is given an SA: whoever sees it there, by lookup or in a copy, finds the SA published.
#[test]
fn a_policy_points_to_an_sa_that_is_published() {
    let (any, wanted) = ("10.0.0.1".parse().unwrap(), Some(SlotIndex(0)));
    let flow = Flow { src: any, dst: any, protocol: 17, ports: None };
    let by_lookup = move |spd: Spd<'_>| spd.lookup(Direction::Outbound, &flow).unwrap().sa;
    let by_copy = |spd: Spd<'_>| spd.copy(PolicyIndex(0)).unwrap().sa;
    for copied in [false, true] {
        model(move || {
            let shared = Arc::new((SpdParts::new(), Slot::<1>::new()));
            let tuple = &shared.0.tuples[MAX_TUPLES];
            tuple.set(Spd::tuple_bits(&policy(1)), 1, 1);
            shared.0.add(0, &policy(1));
            let writer = thread::spawn({
                let shared = shared.clone();
                move || {
                    shared.1.publish(&SaWords([300]));
                    shared.0.policies[0].point(wanted);
                }
            });
            let spd = shared.0.spd();
            if (if copied { by_copy(spd) } else { by_lookup(spd) }) == wanted {
                assert_eq!(shared.1.spi(), Some(Spi(300)));
            }
            writer.join().unwrap();
        });
    }
}
