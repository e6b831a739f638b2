//! The writer is killed at every store of every change, and its successor too while it repairs.
//!
//! The atomics here count the stores of this thread and end it at a chosen one. What the files then hold is
//! what a killed iked leaves: a kill keeps the order of a process's own stores.

use crate::{policy::FREE, spd::Spd, *};
use core::sync::atomic::{self, Ordering};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
};

thread_local! {
    static STORES_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

struct Killed;

fn count_store() {
    let left = STORES_LEFT.get();
    if left == 0 {
        STORES_LEFT.set(u64::MAX);
        resume_unwind(Box::new(Killed));
    }
    STORES_LEFT.set(if left == u64::MAX { left } else { left - 1 });
}

/// Runs `f`, killed before its store number `n` from 0 on. `None` if it was.
fn killed_at<T>(n: u64, f: impl FnOnce() -> T) -> Option<T> {
    STORES_LEFT.set(n);
    let result = catch_unwind(AssertUnwindSafe(f));
    STORES_LEFT.set(u64::MAX);
    match result {
        Ok(done) => Some(done),
        Err(e) if e.is::<Killed>() => None,
        Err(e) => resume_unwind(e),
    }
}

macro_rules! counted {
    ($name:ident, $int:ty) => {
        #[repr(transparent)]
        pub(crate) struct $name(atomic::$name);

        impl $name {
            pub(crate) fn load(&self, order: Ordering) -> $int {
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $int, order: Ordering) {
                count_store();
                self.0.store(value, order);
            }
        }
    };
}

counted!(AtomicU32, u32);
counted!(AtomicU64, u64);

impl AtomicU64 {
    pub(crate) fn fetch_add(&self, n: u64, order: Ordering) -> u64 {
        count_store();
        self.0.fetch_add(n, order)
    }

    pub(crate) fn fetch_sub(&self, n: u64, order: Ordering) -> u64 {
        count_store();
        self.0.fetch_sub(n, order)
    }
}

const SIZES: Sizes = Sizes { max_sas: 12, max_policies: 6 };
/// SPIs that all have their home in one bucket of the four, so that the index overflows.
const SPIS: usize = 12;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("portcullis-sadb-kill-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sa(spi: u32, direction: Direction) -> Sa {
    Sa {
        spi: Spi(spi),
        direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: Algorithm::AES_GCM_256,
        src: "192.0.2.1".parse().unwrap(),
        dst: "192.0.2.2".parse().unwrap(),
        udp: Some(UdpEncap::between(4500, 4500)),
        esn: true,
        replay_window: 1024,
        reqid: spi,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("site").unwrap(),
        key: Key::new(&[spi as u8; 36]).unwrap(),
    }
}

fn policy(dst: &str, ports: u16, priority: u32, sa: Option<SlotIndex>) -> Policy {
    let mut selector = Selector::between("10.1.0.0/16".parse().unwrap(), dst.parse().unwrap());
    selector.dst_ports = if ports == 0 { ANY_PORT } else { 1..=ports };
    Policy { direction: Direction::Outbound, selector, priority, action: Action::Protect, reqid: 7, sa }
}

/// What a datapath can see.
#[derive(Clone, PartialEq, Debug)]
struct View {
    sas: Vec<Option<(Generation, Sa)>>,
    found: Vec<Option<SlotIndex>>,
    policies: Vec<(PolicyIndex, Policy)>,
    hits: Vec<Option<PolicyHit>>,
}

fn view(reader: &Reader, spis: &[u32]) -> View {
    let flow = |dst: &str, port| Flow {
        src: "10.1.2.3".parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: 17,
        ports: Some((9, port)),
    };
    let flows = ["10.2.0.1", "10.2.3.4", "10.3.0.1"].map(|dst| [1, 53, 500].map(|p| flow(dst, p)));
    let policies: Vec<_> = reader.policies().collect();
    assert!(policies.iter().all(|(i, p)| reader.policy_sa(*i) == p.sa));
    View {
        sas: (0..SIZES.max_sas).map(|i| reader.copy_sa(SlotIndex(i))).collect(),
        found: spis.iter().map(|s| reader.find(Spi(*s))).collect(),
        policies,
        hits: flows.iter().flatten().map(|f| reader.lookup(Direction::Outbound, f)).collect(),
    }
}

/// SPIs of one home bucket.
fn crowded(sadb: &Sadb) -> Vec<u32> {
    let index = sadb.index();
    let home = |spi| std::ptr::from_ref(index.home_bucket(Spi(spi)));
    (256..).filter(|spi| home(*spi) == home(256)).take(SPIS).collect()
}

/// Nine SAs in a bucket of seven, one outbound; policies in one chain, one gone; an SA and a policy that wait.
fn base(dir: &Path) -> (Sadb, Vec<u32>) {
    let mut sadb = Sadb::create(dir, &SIZES, [11, 22]).unwrap();
    let spis = crowded(&sadb);
    for spi in &spis[..9] {
        sadb.publish(&sa(*spi, Direction::Inbound)).unwrap();
    }
    let out = sadb.publish(&sa(spis[0], Direction::Outbound)).unwrap();
    for (i, ports) in [400, 300, 200, 100].into_iter().enumerate() {
        sadb.add_policy(&policy("10.2.0.0/16", ports, 10 - i as u32, Some(out))).unwrap();
    }
    sadb.add_policy(&policy("10.2.3.0/24", 0, 5, None)).unwrap();
    (sadb, spis)
}

/// The index has an entry for each live inbound SA and no other, and counts those that passed a bucket by.
fn check_index(sadb: &Sadb) {
    let index = sadb.index();
    let mut wanted: Vec<u64> = sadb
        .sas()
        .filter(|(_, _, sa)| sa.direction == Direction::Inbound)
        .map(|(slot, _, sa)| (sa.spi.0 as u64) << 32 | (slot.0 as u64 + 1))
        .collect();
    let mut passed = vec![0u64; index.buckets.len()];
    let mut found = vec![];
    for (at, bucket) in index.buckets.iter().enumerate() {
        for word in bucket.words().0.into_iter().filter(|w| *w != 0) {
            found.push(word);
            let home = index.home_bucket(Spi((word >> 32) as u32));
            let home = index.buckets.iter().position(|b| std::ptr::eq(b, home)).unwrap();
            let n = index.buckets.len();
            (0..(at + n - home) % n).for_each(|i| passed[(home + i) % n] += 1);
        }
    }
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    assert_eq!(index.buckets.iter().map(|b| b.words().1).collect::<Vec<_>>(), passed);
}

/// The chains have each live policy once and no other, and the tuples tell of exactly these, without a gap.
fn check_spd(sadb: &Sadb) {
    let spd = sadb.spd();
    let mut linked = vec![];
    for head in spd.heads {
        let mut at = head.load(Ordering::Relaxed);
        while at != 0 {
            linked.push(PolicyIndex(at - 1));
            assert!(linked.len() <= SIZES.max_policies as usize, "a chain that does not end");
            at = spd.policies[at as usize - 1].next.load(Ordering::Relaxed);
        }
    }
    linked.sort();
    assert_eq!(linked, sadb.policies().map(|(i, _)| i).collect::<Vec<_>>());
    for (i, slot) in spd.policies.iter().enumerate() {
        let is_free = slot.state.load(Ordering::Relaxed) == FREE;
        assert!(!is_free || spd.sas.get(PolicyIndex(i as u32)).is_none(), "policy {i} is none and has an SA");
    }
    for direction in [Direction::Inbound, Direction::Outbound] {
        let (mut told, mut end) = (0, false);
        for tuple in spd.tuples_of(direction) {
            let bits = tuple.bits.load(Ordering::Relaxed);
            let of = |(_, p): (_, Policy)| (Spd::tuple_bits(&p) == bits).then_some(p.priority);
            let priorities: Vec<u32> = sadb.policies().filter_map(of).collect();
            assert_eq!(tuple.count.load(Ordering::Relaxed) as usize, priorities.len());
            if let Some(best) = priorities.iter().min() {
                assert!(!end, "no lookup comes here");
                assert_eq!(tuple.best.load(Ordering::Relaxed), *best);
            }
            told += priorities.len();
            end |= bits == 0;
        }
        assert_eq!(told, sadb.policies().filter(|(_, p)| p.direction == direction).count());
    }
}

/// The worker is still in the turn in which `before` was: what it may have met then is not used again.
fn check_patience(sadb: &mut Sadb, before: &View) {
    while let Ok(slot) = sadb.publish(&sa(0x20_0000, Direction::Outbound)) {
        assert!(before.sas[slot.0 as usize].is_none(), "{slot:?} is used again too early");
    }
    for port in 2000.. {
        let Ok(index) = sadb.add_policy(&policy("10.8.0.0/18", port, 1, None)) else { break };
        assert!(before.policies.iter().all(|(i, _)| *i != index), "{index:?} is used again too early");
    }
    check_spd(sadb);
}

/// All capacity is there: what waits comes free, and both tables can be filled to the brim and emptied.
fn check_capacity(sadb: &mut Sadb, reader: &Reader, worker: &WorkerRuntime) {
    worker.quiesce();
    assert_eq!(sadb.reclaim(), 0);
    for turn in 0..2 {
        let (mut spi, mut port) = (0x10_0000, 1000);
        while sadb.live_sas() < SIZES.max_sas {
            spi += 1;
            let slot = sadb.publish(&sa(spi, Direction::Inbound)).unwrap();
            assert_eq!(reader.find(Spi(spi)), Some(slot));
        }
        let full = sadb.publish(&sa(1 << 30, Direction::Inbound));
        assert_eq!(full, Err(SadbError::Full { what: "SAD", capacity: SIZES.max_sas }), "{turn}");
        while sadb.policies().count() < SIZES.max_policies as usize {
            port += 1;
            let index = sadb.add_policy(&policy("10.9.0.0/16", port, 1, None)).unwrap();
            assert_eq!(sadb.policy(index).unwrap().selector.dst_ports, 1..=port);
        }
        let full = sadb.add_policy(&policy("10.9.0.0/16", 1, 1, None));
        assert_eq!(full, Err(SadbError::Full { what: "SPD", capacity: SIZES.max_policies }));
        check_spd(sadb);
        let policies: Vec<_> = sadb.policies().map(|(i, _)| i).collect();
        policies.into_iter().for_each(|i| sadb.remove_policy(i).unwrap());
        let slots: Vec<_> = sadb.sas().map(|(slot, ..)| slot).collect();
        slots.into_iter().for_each(|slot| sadb.retire(slot).unwrap());
        assert_eq!(reader.policies().count(), 0);
        check_index(sadb);
        check_spd(sadb);
        worker.quiesce();
        assert_eq!(sadb.reclaim(), 0);
        assert!(sadb.slots_are_wiped(), "a key was left behind");
    }
}

/// Kills `change` at each of its stores, and then for each of these the successor at each of its own.
fn prove(name: &str, change: impl Fn(&mut Sadb, &[u32])) {
    let dir = Dir::new(name);
    let mut states = vec![];
    for stop in [0, u64::MAX] {
        let (mut sadb, spis) = base(&dir.0);
        let (reader, ..) = Reader::attach(&dir.0).unwrap();
        killed_at(stop, || change(&mut sadb, &spis));
        states.push(view(&reader, &spis));
    }
    let (mut n, mut cut_off) = (0, true);
    while cut_off {
        let (mut repair_stop, mut repair_cut_off) = (0, true);
        while repair_cut_off {
            let (mut sadb, spis) = base(&dir.0);
            let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
            let worker = runtime.worker(0);
            worker.quiesce();
            cut_off = killed_at(n, || change(&mut sadb, &spis)).is_none();
            let left = view(&reader, &spis);
            drop(sadb);
            let sadb = killed_at(repair_stop, || Sadb::open(&dir.0).unwrap());
            repair_cut_off = sadb.is_none();
            let mut sadb = sadb.unwrap_or_else(|| Sadb::open(&dir.0).unwrap());
            let now = view(&reader, &spis);
            assert!(states.contains(&now), "{name}, store {n}, {repair_stop}: {now:#?}\nnot of {states:#?}");
            // Between kill and repair there may be a mixture, but of old and new only.
            let mixed = |is: &dyn Fn(&View) -> bool| states.iter().any(is);
            for i in 0..left.sas.len() {
                assert!(mixed(&|s| s.sas[i] == left.sas[i]), "{name}, store {n}: slot {i}");
            }
            for i in 0..left.hits.len() {
                assert!(mixed(&|s| s.hits[i] == left.hits[i]), "{name}, store {n}: flow {i}");
            }
            for i in 0..left.found.len() {
                assert!(mixed(&|s| s.found[i] == left.found[i]), "{name}, store {n}: SPI {i}");
            }
            assert_eq!(sadb.live_sas() as usize, now.sas.iter().flatten().count());
            check_index(&sadb);
            check_spd(&sadb);
            check_patience(&mut sadb, &states[0]);
            check_capacity(&mut sadb, &reader, &worker);
            repair_stop += 1;
        }
        n += 1;
    }
    assert!(n > 1);
}

#[test]
fn killed_in_publish() {
    prove("publish", |sadb, spis| _ = sadb.publish(&sa(spis[10], Direction::Inbound)).unwrap());
    prove("publish-outbound", |sadb, spis| _ = sadb.publish(&sa(spis[1], Direction::Outbound)).unwrap());
}

#[test]
fn killed_in_retire() {
    // In its home bucket, and in the one behind it.
    prove("retire", |sadb, spis| sadb.retire(sadb.find(Spi(spis[3])).unwrap()).unwrap());
    prove("retire-overflowed", |sadb, spis| sadb.retire(sadb.find(Spi(spis[8])).unwrap()).unwrap());
}

#[test]
fn killed_in_add_policy() {
    prove("add", |sadb, _| _ = sadb.add_policy(&policy("10.2.0.0/16", 50, 1, None)).unwrap());
    prove("add-tuple", |sadb, _| _ = sadb.add_policy(&policy("10.3.0.0/17", 0, 1, None)).unwrap());
}

#[test]
fn killed_in_remove_policy() {
    // First, in the middle and last of its chain; alone in its tuple.
    for index in [3, 1, 0, 4] {
        prove(&format!("remove-{index}"), |sadb, _| sadb.remove_policy(PolicyIndex(index)).unwrap());
    }
}

#[test]
fn killed_in_set_policy_sa() {
    prove("set-sa", |sadb, _| sadb.set_policy_sa(PolicyIndex(3), None).unwrap());
    prove("set-other-sa", |sadb, spis| {
        sadb.set_policy_sa(PolicyIndex(4), sadb.find(Spi(spis[2]))).unwrap();
    });
}

#[test]
fn killed_in_set_endpoint() {
    let to = |port| Endpoint::new("192.0.2.77".parse().unwrap(), port).unwrap();
    prove("endpoint", |sadb, spis| {
        sadb.set_endpoint(sadb.find(Spi(spis[2])).unwrap(), to(4501)).unwrap();
    });
}

/// Each class has the SA of before or the one of after, and once the successor is there none that is gone.
#[test]
fn killed_in_set_policy_classes() {
    let dir = Dir::new("classes");
    let classes = |sas: [Option<SlotIndex>; 3]| {
        let mut classes = Classes::new(sas[0]);
        classes.add(&[46], sas[1]);
        classes.add(&[34, 36], sas[2]);
        classes
    };
    let index = PolicyIndex(0);
    let (mut n, mut cut_off) = (0, true);
    while cut_off {
        let (mut sadb, spis) = base(&dir.0);
        let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
        let asked = |dscp| reader.sa_for(index, dscp, 0);
        let found = || [0, 46, 36].map(asked);
        let [a, b, c] = [0, 1, 2].map(|i| Some(sadb.find(Spi(spis[i])).unwrap()));
        let first = found();
        cut_off = false;
        for (before, after) in [(first, [a, b, c]), ([a, b, c], [a, c, c])] {
            cut_off |= killed_at(n, || sadb.set_policy_classes(index, &classes(after)).unwrap()).is_none();
            let now = found();
            assert!((0..3).all(|i| [before[i], after[i]].contains(&now[i])), "store {n}: {now:?}");
            drop(sadb);
            sadb = Sadb::open(&dir.0).unwrap();
            assert_eq!(found(), now);
            sadb.set_policy_classes(index, &classes(after)).unwrap();
            assert_eq!(found(), after);
        }
        // Of the SA of two classes; and of one that only the policy knows.
        let gone = killed_at(n, || sadb.retire(c.unwrap()).unwrap()).is_some();
        drop(sadb);
        let mut sadb = Sadb::open(&dir.0).unwrap();
        assert!(found() == [a, None, None] || !gone && reader.generation(c.unwrap()).is_some());
        sadb.remove_policy(index).unwrap();
        sadb.reclaim();
        assert_eq!((reader.policy_sa(index), sadb.policy_classes(index)), (None, None));
        check_spd(&sadb);
        check_capacity(&mut sadb, &reader, &runtime.worker(0));
        n += 1;
    }
    assert!(n > 3);
}

/// Each worker has the SA of before or the one of after, and all have the one for all where theirs is gone.
#[test]
fn killed_in_set_worker_sa() {
    let dir = Dir::new("workers");
    let index = PolicyIndex(0);
    let (mut n, mut cut_off) = (0, true);
    while cut_off {
        let (mut sadb, spis) = base(&dir.0);
        let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
        let found = || [0, 1, 2].map(|worker| reader.sa_for(index, 0, worker));
        let all = Some(sadb.find(Spi(spis[0])).unwrap());
        sadb.set_policy_sa(index, all).unwrap();
        spis[1..4].iter().for_each(|spi| sadb.retire(sadb.find(Spi(*spi)).unwrap()).unwrap());
        sadb.reclaim();
        let own = [(0, 0x7000), (0, 0x7001), (1, 0x7002)].map(|(worker, spi)| {
            let sa = Sa { worker: Some(worker), ..sa(spi, Direction::Outbound) };
            Some(sadb.publish(&sa).unwrap())
        });
        cut_off = false;
        let steps = [
            (0, own[0], [all, all, all], [own[0], all, all]),
            (1, own[2], [own[0], all, all], [own[0], own[2], all]),
            (0, own[1], [own[0], own[2], all], [own[1], own[2], all]),
            (1, None, [own[1], own[2], all], [own[1], all, all]),
        ];
        for (worker, sa, before, after) in steps {
            cut_off |= killed_at(n, || sadb.set_worker_sa(index, worker, sa).unwrap()).is_none();
            let now = found();
            assert!(now == before || now == after, "store {n}: {now:?}");
            drop(sadb);
            sadb = Sadb::open(&dir.0).unwrap();
            assert_eq!(found(), now);
            sadb.set_worker_sa(index, worker, sa).unwrap();
            assert_eq!(found(), after);
        }
        // RFC 9611 §3: then that for all.
        let gone = killed_at(n, || sadb.retire(own[1].unwrap()).unwrap()).is_some();
        cut_off |= !gone;
        drop(sadb);
        let mut sadb = Sadb::open(&dir.0).unwrap();
        assert!(found() == [all; 3] || !gone && reader.generation(own[1].unwrap()).is_some());
        sadb.remove_policy(index).unwrap();
        sadb.reclaim();
        assert_eq!((reader.policy_sa(index), reader.is_for_workers(index)), (None, false));
        check_spd(&sadb);
        check_capacity(&mut sadb, &reader, &runtime.worker(0));
        n += 1;
    }
    assert!(n > 3);
}

/// Wherever predecessor and successor are killed: a worker that announces an epoch for which something waits sees
/// the version that tells of it, or it would go on with what it has kept of that.
fn epochs_follow_versions(name: &str, change: impl Fn(&mut Sadb), version: impl Fn(&Reader) -> u64) {
    let dir = Dir::new(name);
    let (mut n, mut cut_off) = (0, true);
    while cut_off {
        let (mut repair_stop, mut repair_cut_off) = (0, true);
        while repair_cut_off {
            let (mut sadb, _) = base(&dir.0);
            let (reader, ..) = Reader::attach(&dir.0).unwrap();
            let before = (reader.epoch(), version(&reader), reader.policy_sas_version());
            cut_off = killed_at(n, || change(&mut sadb)).is_none();
            drop(sadb);
            repair_cut_off = killed_at(repair_stop, || Sadb::open(&dir.0).unwrap()).is_none();
            let (epoch, version) = (reader.epoch(), version(&reader));
            assert!(epoch == before.0 || version > before.1, "{name}, store {n}, {repair_stop}");
            assert!(repair_cut_off || version > before.1 && reader.policy_sas_version() > before.2);
            repair_stop += 1;
        }
        n += 1;
    }
}

#[test]
fn killed_before_a_version_is_told() {
    let remove = |sadb: &mut Sadb| sadb.remove_policy(PolicyIndex(1)).unwrap();
    epochs_follow_versions("policy-version", remove, Reader::spd_version);
    let retire = |sadb: &mut Sadb| sadb.retire(SlotIndex(2)).unwrap();
    epochs_follow_versions("sa-version", retire, Reader::sad_version);
}

/// The SA lives and has some of its policies, or neither; no policy has what takes its slot.
#[test]
fn killed_in_retire_with_policies() {
    let dir = Dir::new("retire-policies");
    let (mut n, mut cut_off) = (0, true);
    while cut_off {
        let (mut sadb, spis) = base(&dir.0);
        let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
        let out = sadb.policy(PolicyIndex(0)).unwrap().sa.unwrap();
        cut_off = killed_at(n, || sadb.retire(out).unwrap()).is_none();
        drop(sadb);
        let mut sadb = Sadb::open(&dir.0).unwrap();
        let lives = reader.generation(out).is_some();
        assert_eq!(reader.policies().count(), 5);
        assert!(reader.policies().all(|(_, p)| p.sa.is_none() || lives), "store {n}");
        if lives {
            sadb.retire(out).unwrap();
        }
        assert_eq!(sadb.reclaim(), 0);
        assert_eq!(sadb.publish(&sa(spis[10], Direction::Outbound)), Ok(out));
        assert!(reader.policies().all(|(_, p)| p.sa.is_none()), "store {n}");
        check_index(&sadb);
        check_capacity(&mut sadb, &reader, &runtime.worker(0));
        n += 1;
    }
    assert!(n > 8);
}

#[test]
fn killed_in_reclaim() {
    let dir = Dir::new("reclaim");
    let (mut n, mut cut_off) = (0, true);
    while cut_off {
        let (mut sadb, spis) = base(&dir.0);
        let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
        sadb.retire(sadb.find(Spi(spis[2])).unwrap()).unwrap();
        sadb.remove_policy(PolicyIndex(1)).unwrap();
        let before = view(&reader, &spis);
        cut_off = killed_at(n, || sadb.reclaim()).is_none();
        assert_eq!(view(&reader, &spis), before);
        drop(sadb);
        let mut sadb = Sadb::open(&dir.0).unwrap();
        assert_eq!(view(&reader, &spis), before);
        check_index(&sadb);
        check_capacity(&mut sadb, &reader, &runtime.worker(0));
        n += 1;
    }
    println!("reclaim: killed at each of {} stores", n - 1);
    assert!(n > 31);
}

/// The next iked does what iked does: it takes over what it finds, or makes it.
fn next(dir: &Path) -> Sadb {
    match Sadb::open(dir) {
        Err(RegionError::Missing { path }) if path == dir.join(SADB_FILE) => {
            Sadb::create(dir, &SIZES, [33, 44]).unwrap()
        }
        other => other.unwrap(),
    }
}

#[test]
fn killed_in_create() {
    for predecessor in [false, true] {
        let (mut n, mut cut_off) = (0, true);
        while cut_off {
            let dir = Dir::new("create");
            if predecessor {
                drop(base(&dir.0));
            }
            cut_off = killed_at(n, || Sadb::create(&dir.0, &SIZES, [55, 66]).unwrap()).is_none();
            let sadb = next(&dir.0);
            assert_eq!((sadb.live_sas(), sadb.policies().count()), (0, 0), "store {n}");
            let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
            assert!(reader.is_current(), "store {n}");
            drop((sadb, runtime));
            let left: Vec<_> = std::fs::read_dir(&dir.0).unwrap().map(|f| f.unwrap().file_name()).collect();
            assert_eq!(left.len(), 3, "store {n}: {left:?}");
            n += 1;
        }
        assert!(n > 14);
    }
}
