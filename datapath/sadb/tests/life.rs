//! SAs and policies from publish to reuse, over files and in memory, at the edges.

use portcullis_sadb::*;
use std::path::PathBuf;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("portcullis-sadb-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SIZES: Sizes = Sizes { max_sas: 64, max_policies: 64 };

fn sa(spi: u32, direction: Direction) -> Sa {
    Sa {
        spi: Spi(spi),
        direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: Algorithm::AES_GCM_128,
        src: "192.0.2.1".parse().unwrap(),
        dst: "192.0.2.2".parse().unwrap(),
        udp: None,
        esn: true,
        replay_window: 1024,
        reqid: 7,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("site").unwrap(),
        key: Key::new(&[0xa5; 20]).unwrap(),
    }
}

fn policy(dst: &str, priority: u32, sa: Option<SlotIndex>) -> Policy {
    Policy {
        direction: Direction::Outbound,
        selector: Selector::between("10.1.0.0/16".parse().unwrap(), dst.parse().unwrap()),
        priority,
        action: Action::Protect,
        reqid: 7,
        sa,
    }
}

fn flow(dst: &str) -> Flow {
    Flow { src: "10.1.2.3".parse().unwrap(), dst: dst.parse().unwrap(), protocol: 17, ports: Some((1, 53)) }
}

#[test]
fn an_sa_is_found_until_it_is_retired_and_its_slot_waits_for_the_workers() {
    let (mut sadb, reader, runtime) = Sadb::heap(&SIZES).unwrap();
    let worker = runtime.worker(0);
    worker.quiesce();
    let wanted = sa(0x1001, Direction::Inbound);
    let slot = sadb.publish(&wanted).unwrap();
    assert_eq!(reader.find(wanted.spi), Some(slot));
    let (generation, copy) = reader.copy_sa(slot).unwrap();
    assert_eq!((copy, reader.generation(slot)), (wanted.clone(), Some(generation)));
    assert_eq!(sadb.publish(&wanted), Err(SadbError::SpiInUse { spi: wanted.spi, by: "site".into() }));

    sadb.retire(slot).unwrap();
    assert_eq!((reader.find(wanted.spi), reader.copy_sa(slot).map(|_| ())), (None, None));
    assert_eq!(sadb.reclaim(), 1, "worker 0 may still use it");
    worker.quiesce();
    assert_eq!(sadb.reclaim(), 0);
    let again = sadb.publish(&sa(0x1002, Direction::Inbound)).unwrap();
    assert_eq!(again, slot);
    assert!(reader.generation(again).unwrap() > generation);
}

#[test]
fn what_no_datapath_could_use_is_refused() {
    let (mut sadb, ..) = Sadb::heap(&SIZES).unwrap();
    let mut refused = |change: fn(&mut Sa), field| {
        let mut sa = sa(0x1001, Direction::Inbound);
        change(&mut sa);
        match sadb.publish(&sa) {
            Err(SadbError::Invalid { field: f, .. }) => assert_eq!(f, field),
            other => panic!("{field}: {other:?}"),
        }
    };
    refused(|s| s.spi = Spi(255), "spi"); // RFC 4303 §2.1
    refused(|s| s.dst = "fd00::1".parse().unwrap(), "family of src and dst");
    refused(|s| s.key = Key::new(&[0; 19]).unwrap(), "key length");
    refused(|s| s.replay_window = 63, "replay_window");
    refused(|s| s.replay_window = 65, "replay_window");
    refused(|s| s.replay_window = 65_600, "replay_window");
}

#[test]
fn a_full_table_says_so_and_gives_room_again() {
    let (mut sadb, ..) = Sadb::heap(&Sizes { max_sas: 2, max_policies: 1 }).unwrap();
    let slot = sadb.publish(&sa(1000, Direction::Outbound)).unwrap();
    sadb.publish(&sa(1000, Direction::Outbound)).unwrap();
    assert_eq!(
        sadb.publish(&sa(1000, Direction::Outbound)),
        Err(SadbError::Full { what: "SAD", capacity: 2 })
    );
    sadb.retire(slot).unwrap();
    sadb.publish(&sa(1001, Direction::Inbound)).unwrap();

    let first = sadb.add_policy(&policy("10.2.0.0/16", 1, None)).unwrap();
    assert!(matches!(
        sadb.add_policy(&policy("10.2.0.0/16", 1, None)),
        Err(SadbError::Overlap { with, .. }) if with == first
    ));
    assert_eq!(
        sadb.add_policy(&policy("10.3.0.0/16", 1, None)),
        Err(SadbError::Full { what: "SPD", capacity: 1 })
    );
    sadb.remove_policy(first).unwrap();
    sadb.add_policy(&policy("10.3.0.0/16", 1, None)).unwrap();
}

#[test]
fn the_lowest_priority_wins_then_the_longer_prefix() {
    let (mut sadb, reader, _) = Sadb::heap(&SIZES).unwrap();
    let wide = sadb.add_policy(&policy("10.2.0.0/16", 1000, None)).unwrap();
    let narrow = sadb.add_policy(&policy("10.2.3.0/24", 1000, None)).unwrap();
    let hit = |dst: &str| reader.lookup(Direction::Outbound, &flow(dst)).map(|h| h.index);
    assert_eq!([hit("10.2.3.4"), hit("10.2.4.4"), hit("10.3.0.0")], [Some(narrow), Some(wide), None]);
    let mut bypass = policy("10.2.0.0/16", 1, None);
    bypass.action = Action::Bypass;
    bypass.selector.protocol = Some(17);
    bypass.selector.dst_ports = 53..=53;
    let bypass = sadb.add_policy(&bypass).unwrap();
    assert_eq!(hit("10.2.3.4"), Some(bypass));
    let mut fragment = flow("10.2.3.4");
    fragment.ports = None;
    assert_eq!(reader.lookup(Direction::Outbound, &fragment).map(|h| h.index), Some(narrow));
    sadb.remove_policy(narrow).unwrap();
    sadb.remove_policy(bypass).unwrap();
    assert_eq!(hit("10.2.3.4"), Some(wide));
}

#[test]
fn a_policy_points_to_the_sa_it_was_given_or_to_none() {
    let (mut sadb, reader, _) = Sadb::heap(&SIZES).unwrap();
    let dead = SlotIndex(0);
    assert_eq!(
        sadb.add_policy(&policy("10.2.0.0/16", 1, Some(dead))),
        Err(SadbError::NoSuchSa { slot: dead })
    );
    let [old, new] = [1000, 1001].map(|spi| sadb.publish(&sa(spi, Direction::Outbound)).unwrap());
    let index = sadb.add_policy(&policy("10.2.0.0/16", 1, Some(old))).unwrap();
    let other = sadb.add_policy(&policy("10.3.0.0/16", 1, Some(old))).unwrap();
    let target = |dst| reader.lookup(Direction::Outbound, &flow(dst)).unwrap().sa;
    let versions = (reader.spd_version(), reader.policy_sas_version());
    sadb.set_policy_sa(index, Some(new)).unwrap();
    assert_eq!([index, other].map(|i| reader.policy_sa(i)), [Some(new), Some(old)]);
    assert!(reader.policy_sas_version() > versions.1);
    let version = reader.policy_sas_version();
    sadb.retire(old).unwrap();
    assert_eq!((target("10.2.0.1"), target("10.3.0.1")), (Some(new), None));
    assert_eq!([index, other].map(|i| reader.policy_sa(i)), [Some(new), None]);
    assert!(reader.policy_sas_version() > version);
    assert_eq!(reader.spd_version(), versions.0, "what workers have decided stays");
    assert_eq!([2, SIZES.max_policies, u32::MAX].map(|i| reader.policy_sa(PolicyIndex(i))), [None; 3]);
    assert_eq!(sadb.set_policy_sa(other, Some(old)), Err(SadbError::NoSuchSa { slot: old }));
    assert_eq!(sadb.publish(&sa(1002, Direction::Outbound)), Ok(old), "its memory is used again");
    assert_eq!(target("10.3.0.1"), None);
}

#[test]
fn files_are_adopted_as_they_were() {
    let dir = Dir::new("adopt");
    let mut sadb = Sadb::create(&dir.0, &SIZES, [11, 22]).unwrap();
    let slot = sadb.publish(&sa(0x1001, Direction::Inbound)).unwrap();
    let gone = sadb.publish(&sa(0x1002, Direction::Inbound)).unwrap();
    let out = sadb.publish(&sa(0x1001, Direction::Outbound)).unwrap();
    let index = sadb.add_policy(&policy("10.2.0.0/16", 1000, Some(out))).unwrap();
    sadb.retire(gone).unwrap();
    assert!(matches!(Sadb::open(&dir.0), Err(RegionError::InUse { .. })), "one writer");
    assert!(matches!(Sadb::create(&dir.0, &SIZES, [1, 2]), Err(RegionError::InUse { .. })));
    let before: Vec<_> = sadb.sas().collect();
    drop(sadb);

    let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
    let mut sadb = Sadb::open(&dir.0).unwrap();
    assert_eq!(sadb.sas().collect::<Vec<_>>(), before);
    assert_eq!((reader.find(Spi(0x1001)), reader.find(Spi(0x1002))), (Some(slot), None));
    let hit = reader.lookup(Direction::Outbound, &flow("10.2.0.1")).unwrap();
    assert_eq!((hit.index, hit.sa, hit.reqid), (index, Some(out), 7));
    assert_eq!(sadb.reclaim(), 0, "no worker is online");
    assert!(sadb.runtime().datapath_alive());
    assert!(matches!(Reader::attach(&dir.0), Err(RegionError::InUse { .. })), "one datapath");
    drop((reader, runtime));
    assert!(!sadb.runtime().datapath_alive());
    assert_eq!(sadb.publish(&sa(0x1003, Direction::Inbound)), Ok(gone), "its memory is used again");
}

#[test]
fn bad_files_are_named() {
    use std::{fs, os::unix::fs::FileExt};
    let dir = Dir::new("bad");
    let attach = || Reader::attach(&dir.0).map(|_| ()).unwrap_err();
    assert!(matches!(attach(), RegionError::Missing { .. }));
    let file = dir.0.join(SADB_FILE);
    fs::write(&file, vec![0x41; 8192]).unwrap();
    assert!(matches!(attach(), RegionError::Foreign { found: 0x4141_4141_4141_4141, .. }));
    fs::write(&file, b"short").unwrap();
    assert!(matches!(attach(), RegionError::Damaged { found: 5, .. }));

    drop(Sadb::create(&dir.0, &SIZES, [11, 22]).unwrap());
    let open = || fs::OpenOptions::new().write(true).open(&file).unwrap();
    open().write_all_at(&[99], 16).unwrap();
    let e = attach();
    assert!(matches!(e, RegionError::Version { found: 99, .. }), "{e}");
    assert!(e.to_string().contains(file.to_str().unwrap()), "{e}");
    drop(Sadb::create(&dir.0, &SIZES, [11, 22]).unwrap());
    open().set_len(4096).unwrap();
    assert!(matches!(attach(), RegionError::Damaged { found: 4096, .. }));

    drop(Sadb::create(&dir.0, &SIZES, [11, 22]).unwrap());
    open().write_all_at(&[0xff; 4], 20).unwrap(); // max_sas
    let e = attach();
    assert!(matches!(e, RegionError::Head { .. }) && e.to_string().contains(file.to_str().unwrap()), "{e}");

    // Both ends refuse what was made before a boot, and whoever only reads.
    drop(Sadb::create(&dir.0, &SIZES, [11, 22]).unwrap());
    drop(Sadb::open(&dir.0).unwrap());
    open().write_all_at(&[0xff; 8], 48).unwrap(); // boot
    let e = attach();
    assert!(matches!(e, RegionError::Booted { .. }) && e.to_string().contains("[regions] directory"), "{e}");
    assert!(matches!(Sadb::open(&dir.0), Err(RegionError::Booted { .. })));

    drop(Sadb::create(&dir.0, &SIZES, [11, 22]).unwrap());
    let old = fs::read(dir.0.join(RUNTIME_FILE)).unwrap();
    drop(Sadb::create(&dir.0, &SIZES, [33, 44]).unwrap());
    fs::write(dir.0.join(RUNTIME_FILE), old).unwrap();
    let e = attach();
    assert!(matches!(e, RegionError::Stale { found: 11, expected: 33, .. }), "{e}");
}

#[test]
fn numbers_and_counters_of_an_sa_outlive_the_datapath_but_not_the_sa() {
    let dir = Dir::new("numbers");
    let mut sadb = Sadb::create(&dir.0, &SIZES, [11, 22]).unwrap();
    let slot = sadb.publish(&sa(0x1001, Direction::Inbound)).unwrap();
    for life in 0..2u64 {
        let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
        let line = runtime.sa(slot);
        line.adopt(reader.generation(slot).unwrap());
        assert_eq!((line.reserved_seq(), line.highest_seen()), (life * 4096, life * 77));
        line.reserve(4096);
        line.see(77);
        line.see(5);
        line.reserve(9);
        assert_eq!((line.reserved_seq(), line.highest_seen()), (4096, 77), "neither goes back");
        line.count(&SaCounters { packets: 1, ..SaCounters::default() });
        assert_eq!(sadb.runtime().sa(slot).unwrap().counters.packets, life + 1);
    }
    sadb.retire(slot).unwrap();
    assert_eq!(sadb.reclaim(), 0);
    let again = sadb.publish(&sa(0x1001, Direction::Inbound)).unwrap();
    assert_eq!(again, slot);
    let (reader, runtime, _) = Reader::attach(&dir.0).unwrap();
    runtime.sa(slot).adopt(reader.generation(slot).unwrap());
    assert_eq!((runtime.sa(slot).reserved_seq(), runtime.sa(slot).highest_seen()), (0, 0));
}

#[test]
fn events_come_in_order_and_a_full_ring_counts_what_it_loses() {
    let (mut sadb, _, runtime) = Sadb::heap(&SIZES).unwrap();
    let worker = runtime.worker(3);
    let event = |value| Event {
        kind: EventKind::SeqLow,
        slot: SlotIndex(1),
        generation: Generation(1),
        value,
        about: [value; ABOUT],
    };
    for i in 0..EVENTS as u64 + 5 {
        worker.tell(&event(i));
    }
    let got: Vec<u64> = std::iter::from_fn(|| sadb.poll_event()).map(|e| e.value).collect();
    assert_eq!(got, (0..EVENTS as u64).collect::<Vec<_>>());
    assert_eq!(sadb.runtime().worker(3).unwrap().events_lost, 5);
    worker.tell(&event(9));
    assert_eq!(sadb.poll_event(), Some(event(9)));
}

#[test]
fn a_policy_is_found_by_what_it_is_for_and_tied_to_other_sas() {
    let (mut sadb, reader, _runtime) = Sadb::heap(&SIZES).unwrap();
    let first = policy("10.2.0.0/16", 5, None);
    assert_eq!(sadb.find_policy(&first), None);
    let index = sadb.add_policy(&first).unwrap();
    // Whatever it is tied to; not in another place, nor for anything else.
    assert_eq!(sadb.find_policy(&Policy { reqid: 9, ..first.clone() }), Some(index));
    for other in [policy("10.2.0.0/16", 6, None), policy("10.2.0.0/17", 5, None)] {
        assert_eq!(sadb.find_policy(&other), None);
    }
    let version = reader.spd_version();
    sadb.set_policy_reqid(index, 7).unwrap();
    assert_eq!(reader.spd_version(), version, "it is as it was");
    sadb.set_policy_reqid(index, 9).unwrap();
    // Workers look again.
    assert_ne!(reader.spd_version(), version);
    let hit = reader.lookup(Direction::Outbound, &flow("10.2.0.1")).unwrap();
    assert_eq!((hit.reqid, sadb.policy(index).unwrap()), (9, Policy { reqid: 9, ..first }));
    assert!(matches!(
        sadb.set_policy_reqid(PolicyIndex(63), 9),
        Err(SadbError::NoSuchPolicy { index: PolicyIndex(63) })
    ));
}
