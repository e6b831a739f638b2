//! The lock-free protocols under all interleavings, and all the reorderings that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p portcullis-sadb --release --lib loom`
//!
//! A load in loom never has the value of a later store. What keeps a load before a later store of its thread is
//! therefore not proved here: in `epoch` the Release of `announce` and `offline` with the Acquire of `passed`, in
//! `event` the Release of the tail with the Acquire of it. Every other order and fence of epochs, slots, index, SPD
//! and events makes a test fail when it is taken away.

use crate::{
    Action, Direction, Endpoint, Event, EventKind, Flow, Generation, Policy, PolicyHit, PolicyIndex,
    Populate, Selector, SlotIndex, Spi,
    epoch::{self, OFFLINE},
    event::{ABOUT, EVENTS, EventRing},
    index::{Bucket, SpiIndex},
    policy::{LIVE, PolicySlot},
    policy_sa::{By, PolicySas},
    sa::SaWords,
    sa_set::SaSet,
    slot::Slot,
    spd::{MAX_TUPLES, Spd, TupleSlot},
    sync::{AtomicU32, AtomicU64, Ordering},
    udp::EndpointSlot,
};
use ::loom::{model, thread};
use std::sync::Arc;

/// Writer and reader over what `new` makes, then `end`. Loom leaves out some interleavings of a thread that stores what
/// it has loaded, and which ones depends on who runs first: so each does once.
fn race<T: Send + Sync + 'static>(
    new: impl Fn() -> T + Send + Sync + 'static,
    writer: impl Fn(&T) + Send + Sync + Copy + 'static,
    reader: impl Fn(&T) + Send + Sync + Copy + 'static,
    end: impl Fn(&T) + Send + Sync + 'static,
) {
    let ends = Arc::new((new, end));
    for writer_first in [true, false] {
        let ends = ends.clone();
        model(move || {
            let shared = Arc::new(ends.0());
            let theirs = shared.clone();
            let other = if writer_first {
                let other = thread::spawn(move || reader(&theirs));
                writer(&shared);
                other
            } else {
                let other = thread::spawn(move || writer(&theirs));
                reader(&shared);
                other
            };
            other.join().unwrap();
            ends.1(&shared);
        });
    }
}

#[test]
fn a_copy_is_whole_and_of_its_generation() {
    let new = || {
        let slot = Slot::<2>::new();
        slot.publish(&SaWords([1, 1]));
        slot
    };
    let writer = |slot: &Slot<2>| {
        slot.retire();
        slot.publish(&SaWords([3, 3]));
    };
    let reader = |slot: &Slot<2>| {
        if let Some((generation, words)) = slot.copy() {
            assert_eq!(words.0, [generation.0; 2]);
        }
    };
    race(new, writer, reader, |slot| {
        assert_eq!(slot.copy().map(|(g, w)| (g, w.0)), Some((Generation(3), [3, 3])));
    });
}

/// The writer retires and reclaims while a worker takes turns: who found a generation finds its body.
fn no_worker_reads_a_wiped_body(first: u64) {
    type Shared = (Slot<1>, AtomicU64, AtomicU64);
    let new = move || {
        let shared = (Slot::new(), AtomicU64::new(first), AtomicU64::new(0));
        shared.0.publish(&SaWords([7]));
        shared
    };
    let writer = |(slot, worker, global): &Shared| {
        slot.retire();
        let epoch = epoch::advance(global);
        if epoch::passed([worker], epoch) {
            slot.wipe();
            slot.publish(&SaWords([9]));
        }
    };
    let reader = |(slot, worker, global): &Shared| {
        epoch::announce(worker, global);
        let before = slot.generation();
        let spi = slot.spi();
        assert!([None, Some(Spi(7)), Some(Spi(9))].contains(&spi), "{spi:?}");
        // What is read within one turn is of one SA.
        assert!(before != Some(Generation(1)) || spi != Some(Spi(9)));
        epoch::announce(worker, global);
        assert_ne!(slot.spi(), Some(Spi(0)));
        epoch::offline(worker);
    };
    race(new, writer, reader, |_| {});
}

#[test]
fn a_worker_that_comes_online_reads_no_wiped_body() {
    no_worker_reads_a_wiped_body(OFFLINE);
}

#[test]
fn a_worker_that_goes_on_reads_no_wiped_body() {
    no_worker_reads_a_wiped_body(0);
}

/// Or it could go on with that once the epoch has passed.
#[test]
fn who_announces_an_epoch_sees_what_was_retired_before() {
    type Shared = (Slot<1>, AtomicU64, AtomicU64);
    let new = || {
        let shared = (Slot::new(), AtomicU64::new(0), AtomicU64::new(0));
        shared.0.publish(&SaWords([7]));
        shared
    };
    let writer = |(slot, _, global): &Shared| {
        slot.retire();
        epoch::advance(global);
    };
    let reader = |(slot, worker, global): &Shared| {
        epoch::announce(worker, global);
        assert!(worker.load(Ordering::Relaxed) == 0 || slot.generation().is_none());
    };
    race(new, writer, reader, |_| {});
}

#[test]
fn events_arrive_whole_in_order_or_are_counted_as_lost() {
    const TOLD: u64 = EVENTS as u64 + 1;
    type Shared = (EventRing, AtomicU64, AtomicU64);
    let worker = |(ring, tail, _): &Shared| {
        for n in 1..=TOLD {
            let (kind, slot) = (EventKind::SeqLow, SlotIndex(n as u32));
            ring.push(tail, &Event { kind, slot, generation: Generation(n), value: n, about: [n; ABOUT] });
        }
    };
    // How many came, and which was the last.
    fn take((ring, tail, got): &Shared) {
        if let Some(e) = ring.pop(tail) {
            assert_eq!((e.slot.0 as u64, e.generation.0, e.about), (e.value, e.value, [e.value; ABOUT]));
            let before = got.load(Ordering::Relaxed);
            assert!(e.value > before >> 32);
            got.store(e.value << 32 | ((before as u32) + 1) as u64, Ordering::Relaxed);
        }
    }
    let iked = |shared: &Shared| (0..2).for_each(|_| take(shared));
    race(
        || (EventRing::new(), AtomicU64::new(0), AtomicU64::new(0)),
        worker,
        iked,
        |shared| {
            (0..TOLD).for_each(|_| take(shared));
            assert_eq!(shared.2.load(Ordering::Relaxed) as u32 as u64 + shared.0.lost(), TOLD);
        },
    );
}

/// Two moves, so that the writer comes to the place that a slow reader is still in.
#[test]
fn an_endpoint_is_whole_and_of_its_version() {
    fn endpoint(n: u16) -> Endpoint {
        Endpoint::new(std::net::Ipv6Addr::from_segments([n; 8]).into(), n).unwrap()
    }
    type Shared = (EndpointSlot, AtomicU64);
    let writer = |(slot, told): &Shared| {
        slot.set(Some(endpoint(1)));
        slot.set(Some(endpoint(2)));
        told.store(2, Ordering::Release);
    };
    let reader = |(slot, told): &Shared| {
        // What workers rely on: who is told of a change sees it.
        let told = told.load(Ordering::Acquire);
        let found = slot.get();
        let n = found.map_or(0, |e| e.port());
        assert!((n == 0 || found == Some(endpoint(n))) && told <= n as u64, "{told} {found:?}");
    };
    race(
        || (EndpointSlot::new(), AtomicU64::new(0)),
        writer,
        reader,
        |(slot, _)| {
            assert_eq!((slot.version(), slot.get()), (2, Some(endpoint(2))));
        },
    );
}

/// An index of two buckets, with one entry each here.
type Buckets = [Bucket; 2];

fn index(buckets: &Buckets) -> SpiIndex<'_> {
    SpiIndex { buckets, seed: 1 }
}

/// SPIs of one home bucket.
fn crowded<const N: usize>() -> [Spi; N] {
    let buckets = [Bucket::new(), Bucket::new()];
    let home = |spi| std::ptr::from_ref(index(&buckets).home_bucket(spi));
    let mut same = (256..).map(Spi).filter(|s| home(*s) == home(Spi(256)));
    std::array::from_fn(|_| same.next().unwrap())
}

#[test]
fn an_spi_is_found_behind_a_bucket_that_changes() {
    let new = || {
        let buckets = [Bucket::new(), Bucket::new()];
        let [a, b, _] = crowded();
        assert!(index(&buckets).insert(a, SlotIndex(1)) && index(&buckets).insert(b, SlotIndex(2)));
        buckets
    };
    let writer = |buckets: &Buckets| {
        let [a, _, c] = crowded();
        index(buckets).remove(a);
        assert!(index(buckets).insert(c, SlotIndex(3)));
        index(buckets).remove(c);
    };
    let reader = |buckets: &Buckets| {
        let [a, b, c] = crowded();
        assert_eq!(index(buckets).find(b), Some(SlotIndex(2)));
        assert!([None, Some(SlotIndex(1))].contains(&index(buckets).find(a)));
        assert!([None, Some(SlotIndex(3))].contains(&index(buckets).find(c)));
    };
    race(new, writer, reader, |buckets| {
        assert_eq!(crowded().map(|s| index(buckets).find(s)), [None, Some(SlotIndex(2)), None]);
    });
}

#[test]
fn an_spi_that_overflows_is_found_whole_or_not_at_all() {
    type Shared = (Buckets, AtomicU32);
    let new = || {
        let shared = ([Bucket::new(), Bucket::new()], AtomicU32::new(0));
        assert!(index(&shared.0).insert(crowded::<2>()[0], SlotIndex(1)));
        shared
    };
    let writer = |(buckets, published): &Shared| {
        assert!(index(buckets).insert(crowded::<2>()[1], SlotIndex(2)));
        published.store(1, Ordering::Release);
    };
    let reader = |(buckets, published): &Shared| {
        let [a, b] = crowded();
        let told = published.load(Ordering::Acquire) == 1;
        let found = index(buckets).find(b);
        assert!(found == Some(SlotIndex(2)) || (found.is_none() && !told), "{found:?}");
        assert_eq!(index(buckets).find(a), Some(SlotIndex(1)));
    };
    race(new, writer, reader, |_| {});
}

#[test]
fn who_finds_an_spi_finds_its_sa() {
    type Shared = (Slot<1>, Buckets);
    let writer = |(slot, buckets): &Shared| {
        slot.publish(&SaWords([300]));
        assert!(index(buckets).insert(Spi(300), SlotIndex(0)));
    };
    let reader = |(slot, buckets): &Shared| {
        assert!(index(buckets).find(Spi(300)).is_none() || slot.spi() == Some(Spi(300)));
    };
    race(|| (Slot::new(), [Bucket::new(), Bucket::new()]), writer, reader, |_| {});
}

struct SpdParts {
    policies: [PolicySlot; 3],
    sas: [AtomicU32; 3],
    sets: [SaSet; 1],
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
            sas: std::array::from_fn(|_| zero()),
            sets: [SaSet::new()],
            heads: [zero()],
            tuples: (0..2 * MAX_TUPLES).map(|_| tuple()).collect(),
            version: AtomicU64::new(0),
        }
    }

    fn spd(&self) -> Spd<'_> {
        let SpdParts { policies, sas, sets, heads, tuples, version } = self;
        Spd { policies, sas: PolicySas(sas), sets, heads, tuples, version, seed: 1 }
    }

    fn add(&self, index: u32, policy: &Policy) {
        let spd = self.spd();
        spd.fill(PolicyIndex(index), policy, Populate::No);
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

/// Policies in one tuple.
fn with(policies: &[(u32, u32)]) -> SpdParts {
    let parts = SpdParts::new();
    parts.tuples[MAX_TUPLES].set(Spd::tuple_bits(&policy(1)), 0, 1);
    policies.iter().for_each(|(index, priority)| parts.add(*index, &policy(*priority)));
    parts
}

fn hit(parts: &SpdParts) -> PolicyHit {
    let any = "10.0.0.1".parse().unwrap();
    let flow = Flow { src: any, dst: any, protocol: 17, ports: None };
    parts.spd().lookup(Direction::Outbound, &flow).unwrap()
}

/// A lookup never falls between a policy and the one that takes its place.
#[test]
fn a_policy_is_replaced_without_a_gap() {
    let writer = |parts: &SpdParts| {
        parts.add(2, &policy(1));
        parts.remove(1, &policy(3));
    };
    let reader = |parts: &SpdParts| {
        let hit = hit(parts);
        assert!([(1, 3), (2, 1)].contains(&(hit.index.0, hit.priority)), "{hit:?}");
        assert_eq!(hit.reqid, hit.priority);
    };
    race(
        || with(&[(0, 5), (1, 3)]),
        writer,
        reader,
        |parts| {
            assert_eq!(parts.policies[2].state.load(Ordering::Relaxed), LIVE);
        },
    );
}

/// Who copies policies and is no worker gets one or the other, though the slot is used again at once. The writer
/// stores only what differs, or there were too many interleavings.
#[test]
fn a_copied_policy_is_whole() {
    let writer = |parts: &SpdParts| {
        let slot = &parts.policies[0];
        slot.retire();
        parts.spd().bump();
        slot.priority.store(3, Ordering::Relaxed);
        slot.reqid.store(3, Ordering::Relaxed);
        slot.state.store(LIVE, Ordering::Release);
        parts.spd().bump();
    };
    let reader = |parts: &SpdParts| {
        let copy = parts.spd().copy(PolicyIndex(0));
        assert!(copy.as_ref().is_none_or(|p| [policy(5), policy(3)].contains(p)), "{copy:?}");
    };
    race(
        || with(&[(0, 5)]),
        writer,
        reader,
        |parts| {
            assert_eq!(parts.spd().copy(PolicyIndex(0)), Some(policy(3)));
        },
    );
}

#[test]
fn a_policy_is_copied_once_it_is_filled() {
    const GIVEN: Option<SlotIndex> = Some(SlotIndex(1));
    let writer =
        |parts: &SpdParts| parts.spd().fill(PolicyIndex(0), &Policy { sa: GIVEN, ..policy(5) }, Populate::No);
    let reader = |parts: &SpdParts| {
        let copy = parts.spd().copy(PolicyIndex(0));
        assert!(copy.as_ref().is_none_or(|p| *p == Policy { sa: GIVEN, ..policy(5) }), "{copy:?}");
    };
    race(|| with(&[]), writer, reader, |_| {});
}

/// A policy is given an SA: whoever sees it there finds the SA published.
fn a_policy_points_to_an_sa_that_is_published(
    sa: impl Fn(&SpdParts) -> Option<SlotIndex> + Send + Sync + Copy + 'static,
) {
    type Shared = (SpdParts, Slot<1>);
    let writer = |(parts, slot): &Shared| {
        slot.publish(&SaWords([300]));
        parts.spd().sas.point(PolicyIndex(0), By::Nothing, Some(SlotIndex(0)));
    };
    let reader = move |(parts, slot): &Shared| {
        assert!(sa(parts).is_none() || slot.spi() == Some(Spi(300)));
    };
    race(|| (with(&[(0, 1)]), Slot::new()), writer, reader, |_| {});
}

#[test]
fn a_policy_that_is_found_points_to_an_sa_that_is_published() {
    a_policy_points_to_an_sa_that_is_published(|parts| hit(parts).sa);
}

#[test]
fn a_policy_that_is_copied_points_to_an_sa_that_is_published() {
    a_policy_points_to_an_sa_that_is_published(|parts| parts.spd().copy(PolicyIndex(0)).unwrap().sa);
}

#[test]
fn a_kept_decision_leads_to_an_sa_that_is_published() {
    a_policy_points_to_an_sa_that_is_published(|parts| parts.spd().sas.get(PolicyIndex(0)));
}

/// A worker that has kept a decision, and finds its version in a turn, is led to no SA of the policy that takes the
/// index.
fn no_kept_decision_meets_another_policy(first: u64) {
    type Shared = (SpdParts, AtomicU64, AtomicU64);
    const VERSION: u64 = 1;
    let new = move || (with(&[(0, 5)]), AtomicU64::new(first), AtomicU64::new(0));
    let writer = |(parts, worker, global): &Shared| {
        // As `remove_policy`, `reclaim` and `add_policy`, without the chain.
        parts.policies[0].retire();
        parts.spd().bump();
        let epoch = epoch::advance(global);
        if epoch::passed([worker], epoch) {
            parts.spd().sas.point(PolicyIndex(0), By::Nothing, Some(SlotIndex(1)));
        }
    };
    let reader = |(parts, worker, global): &Shared| {
        epoch::announce(worker, global);
        if parts.version.load(Ordering::Acquire) == VERSION {
            assert_eq!(parts.spd().sas.get(PolicyIndex(0)), None);
        }
        epoch::announce(worker, global);
        if parts.version.load(Ordering::Acquire) == VERSION {
            assert_eq!(parts.spd().sas.get(PolicyIndex(0)), None);
        }
    };
    race(new, writer, reader, |_| {});
}

#[test]
fn a_worker_that_comes_online_meets_no_other_policy() {
    no_kept_decision_meets_another_policy(OFFLINE);
}

#[test]
fn a_worker_that_goes_on_meets_no_other_policy() {
    no_kept_decision_meets_another_policy(0);
}

/// A policy gets classes, or a worker an SA of its own: whoever finds an SA finds it published.
#[test]
fn one_of_several_sas_is_published() {
    type Shared = (SpdParts, Slot<1>, Slot<1>);
    let new = || {
        let shared = (with(&[(0, 1)]), Slot::new(), Slot::new());
        shared.1.publish(&SaWords([300]));
        shared.0.spd().sas.point(PolicyIndex(0), By::Nothing, Some(SlotIndex(0)));
        shared
    };
    fn writer((parts, _, slot): &Shared, by: By) {
        slot.publish(&SaWords([301]));
        parts.sets[0].point(0, Some(SlotIndex(0)));
        parts.sets[0].point(1, Some(SlotIndex(1)));
        parts.spd().sas.point(PolicyIndex(0), by, Some(SlotIndex(0)));
    }
    let reader = |(parts, old, new): &Shared| match parts.spd().sa_for(PolicyIndex(0), 1, 1) {
        Some(SlotIndex(1)) => assert_eq!(new.spi(), Some(Spi(301))),
        sa => assert_eq!((sa, old.spi()), (Some(SlotIndex(0)), Some(Spi(300)))),
    };
    race(new, |shared| writer(shared, By::Dscp), reader, |_| {});
    race(new, |shared| writer(shared, By::Worker), reader, |_| {});
}

#[test]
fn one_that_is_rekeyed_is_the_one_or_the_other() {
    type Shared = (SaSet, Slot<1>);
    let new = || {
        let shared = (SaSet::new(), Slot::new());
        shared.0.point(1, Some(SlotIndex(0)));
        shared
    };
    let writer = |(set, slot): &Shared| {
        slot.publish(&SaWords([301]));
        set.point(1, Some(SlotIndex(1)));
    };
    let reader = |(set, slot): &Shared| match set.get(1) {
        Some(SlotIndex(1)) => assert_eq!(slot.spi(), Some(Spi(301))),
        sa => assert_eq!(sa, Some(SlotIndex(0))),
    };
    race(new, writer, reader, |_| {});
}

/// The SA of a worker goes, and with it the set: the worker has the one for all then, or had its own.
#[test]
fn a_worker_whose_sa_goes_is_never_without_one() {
    let new = || {
        let parts = with(&[(0, 1)]);
        parts.sets[0].point(1, Some(SlotIndex(1)));
        parts.spd().sas.point(PolicyIndex(0), By::Worker, Some(SlotIndex(0)));
        parts
    };
    let writer = |parts: &SpdParts| {
        parts.sets[0].forget(SlotIndex(1));
        parts.spd().sas.point(PolicyIndex(0), By::Nothing, Some(SlotIndex(0)));
    };
    let reader = |parts: &SpdParts| {
        let [first, second] = [0; 2].map(|_| parts.spd().sa_for(PolicyIndex(0), 1, 1).map(|sa| sa.0));
        assert!([(Some(1), Some(1)), (Some(1), Some(0)), (Some(0), Some(0))].contains(&(first, second)));
    };
    race(new, writer, reader, |_| {});
}
