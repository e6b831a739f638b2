use super::*;
use crate::routes::RouteTable;
use portcullis_machine::strict::Document;
use portcullis_netlink::{Hop, Route, Table, Target};
use portcullis_sadb::{Flow, Policy, PolicyHit, Reader, Runtime, Sizes};

/// A connection, and what tests vary of it.
#[derive(Clone)]
struct Site {
    name: &'static str,
    n: u8,
    spi: u32,
    key: u8,
    window: u32,
}

const A: Site = Site { name: "a", n: 1, spi: 0x1000, key: 0x10, window: 1024 };
const B: Site = Site { name: "b", n: 2, spi: 0x2000, key: 0x20, window: 1024 };

fn text(sites: &[Site]) -> String {
    let site = |s: &Site| {
        let Site { name, n, spi, key, window } = s;
        let (inbound, outbound) = (key, key + 1);
        let other = spi + 1;
        format!(
            "[[connection]]\nname = \"{name}\"\nlocal = \"10.0.0.1\"\nremote = \"10.0.1.{n}\"\n\
             local_ts = [\"10.9.0.0/16\", \"fd09::/32\"]\nremote_ts = [\"10.8.{n}.0/24\", \"fd08:{n}::/32\"]\n\
             replay_window = {window}\nalgorithm = \"aes-gcm-128\"\n[connection.inbound]\nspi = \"{spi:#x}\"\n\
             key = \"0x{inbound:02x}{:038x}\"\n[connection.outbound]\nspi = \"{other:#x}\"\nkey = \"0x{outbound:02x}{:038x}\"\n",
            0, 0
        )
    };
    let head = format!("{MANUAL_KEYS} = true\n");
    std::iter::once(head).chain(sites.iter().map(site)).collect()
}

fn connections(text: &str) -> Connections {
    Connections::parse(&Document::from_text("connections.toml", text)).unwrap()
}

struct Bench {
    sadb: Sadb,
    reader: Reader,
    runtime: Runtime,
    installer: Installer,
    now_secs: u32,
}

impl Bench {
    fn new(max_sas: u32, max_policies: u32) -> Bench {
        let (sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas, max_policies }).unwrap();
        Bench { sadb, reader, runtime, installer: Installer::default(), now_secs: 1000 }
    }

    fn install(&mut self, text: &str) -> Result<Changes, InstallError> {
        self.install_without(text, &[])
    }

    fn install_without(&mut self, text: &str, down: &[&str]) -> Result<Changes, InstallError> {
        let down = down.iter().map(|s| (*s).to_owned()).collect();
        self.installer.install(&mut self.sadb, &connections(text), &down, self.now_secs)
    }

    /// Slots and generations, as the datapath sees them.
    fn sas(&self) -> Vec<(SlotIndex, Generation, Spi)> {
        (0..self.sadb.sizes().max_sas)
            .map(SlotIndex)
            .filter_map(|slot| Some((slot, self.reader.generation(slot)?, self.reader.spi(slot)?)))
            .collect()
    }

    fn policies(&self) -> Vec<(PolicyIndex, Policy)> {
        self.reader.policies().collect()
    }

    fn hit(&self, direction: Direction, src: &str, dst: &str) -> Option<PolicyHit> {
        let flow =
            Flow { src: src.parse().unwrap(), dst: dst.parse().unwrap(), protocol: 17, ports: Some((1, 53)) };
        self.reader.lookup(direction, &flow)
    }
}

#[test]
fn a_connection_becomes_sas_and_policies() {
    let mut bench = Bench::new(8, 16);
    let changes = bench.install(&text(&[A])).unwrap();
    assert_eq!(changes, Changes { kept: 0, published: 2, retired: 0, policies: 4 });
    let slot = bench.reader.find(Spi(0x1000)).unwrap();
    let (_, inbound) = bench.reader.copy_sa(slot).unwrap();
    assert_eq!((inbound.direction, inbound.src.to_string()), (Direction::Inbound, "10.0.1.1".into()));
    assert_eq!(
        (inbound.dst.to_string(), inbound.esn, inbound.replay_window),
        ("10.0.0.1".into(), true, 1024)
    );
    assert_eq!(inbound.key.bytes(), [&[0x10u8][..], &[0; 19]].concat());
    for (here, there) in [("10.9.0.1", "10.8.1.1"), ("fd09::1", "fd08:1::1")] {
        let hit = bench.hit(Direction::Outbound, here, there).unwrap();
        assert_eq!((hit.action, hit.priority, hit.reqid), (Action::Protect, 1000, inbound.reqid));
        let (_, outbound) = bench.reader.copy_sa(hit.sa.unwrap()).unwrap();
        assert_eq!(
            (outbound.spi, outbound.direction, outbound.reqid),
            (Spi(0x1001), Direction::Outbound, hit.reqid)
        );
        let hit = bench.hit(Direction::Inbound, there, here).unwrap();
        assert_eq!((hit.action, hit.sa, hit.reqid), (Action::Protect, None, inbound.reqid));
        assert_eq!(bench.hit(Direction::Outbound, there, here), None);
    }
    assert_eq!(bench.hit(Direction::Outbound, "10.9.0.1", "10.8.2.1"), None);
}

#[test]
fn what_is_as_it_should_be_is_not_touched() {
    let mut bench = Bench::new(8, 16);
    bench.install(&text(&[A])).unwrap();
    let (sas, policies, version) = (bench.sas(), bench.policies(), bench.reader.sad_version());
    // Another iked, which knows nothing of before.
    bench.installer = Installer::default();
    let changes = bench.install(&text(&[A])).unwrap();
    assert_eq!(changes, Changes { kept: 2, ..Changes::default() });
    assert_eq!(
        (bench.sas(), bench.policies(), bench.reader.sad_version()),
        (sas.clone(), policies.clone(), version)
    );
    // One more changes nothing of the first.
    let changes = bench.install(&text(&[B, A])).unwrap();
    assert_eq!(changes, Changes { kept: 2, published: 2, retired: 0, policies: 4 });
    assert_eq!(bench.sas()[..2], sas);
    assert_eq!(bench.policies()[..4], policies);
    let reqids: HashSet<u32> = bench.sadb.sas().map(|(_, _, sa)| sa.reqid).collect();
    assert_eq!(reqids.len(), 2);
    // And the second can go without a trace.
    let changes = bench.install(&text(&[A])).unwrap();
    assert_eq!(changes, Changes { kept: 2, published: 0, retired: 2, policies: 4 });
    assert_eq!((bench.sas(), bench.policies()), (sas, policies));
}

/// As `text`, the selectors of the first connection being routes to ipsec0.
fn routed(sites: &[Site]) -> String {
    let selectors =
        "local_ts = [\"10.9.0.0/16\", \"fd09::/32\"]\nremote_ts = [\"10.8.1.0/24\", \"fd08:1::/32\"]";
    text(sites).replacen(selectors, "interface = \"ipsec0\"", 1)
}

/// Routes of table main, by prefix and device: 7 is ipsec0.
fn routes(all: &[(&str, u32)]) -> RouteSelectors {
    let interfaces = HashMap::from([(7, "ipsec0".to_owned())]);
    let mut table = RouteTable::new(&interfaces);
    for (prefix, device) in all {
        let (addr, len) = prefix.split_once('/').unwrap();
        let hop = Hop { device: Some(*device), gateway: None, mtu: 0, weight: 1 };
        table.add(&Route {
            table: Table::Main,
            prefix: (addr.parse().unwrap(), len.parse().unwrap()),
            priority: 0,
            target: Target::Unicast(vec![hop]),
        });
    }
    table.selectors()
}

impl Bench {
    fn install_routes(&mut self, text: &str, all: &[(&str, u32)]) -> Changes {
        assert!(self.installer.set_routes(&self.sadb, &connections(text), routes(all)));
        self.install(text).unwrap()
    }
}

#[test]
fn routes_become_policies() {
    let mut bench = Bench::new(8, 32);
    let sites = routed(&[A, B]);
    // No routes, no policies: of site b alone.
    assert_eq!(bench.install_routes(&sites, &[]).policies, 4);
    assert_eq!(bench.hit(Direction::Outbound, "10.9.0.1", "10.8.1.1"), None);
    let changes = bench.install_routes(&sites, &[("10.0.0.0/8", 7), ("10.9.0.0/16", 2), ("fd08:1::/64", 7)]);
    assert_eq!((changes.published, changes.retired, changes.policies), (0, 0, 6));
    let sa = |hit: PolicyHit, bench: &Bench| bench.reader.spi(hit.sa.unwrap()).unwrap();
    for (src, dst, priority) in
        [("10.9.0.1", "10.8.1.1", 2024), ("192.0.2.9", "10.0.0.1", 2024), ("fd0a::1", "fd08:1::1", 2064)]
    {
        let hit = bench.hit(Direction::Outbound, src, dst).unwrap();
        assert_eq!((hit.action, hit.priority, sa(hit, &bench)), (Action::Protect, priority, Spi(0x1001)));
        let hit = bench.hit(Direction::Inbound, dst, src).unwrap();
        assert_eq!((hit.action, hit.priority), (Action::Protect, priority));
    }
    // What is inside and routed elsewhere; and site b, whose selectors come first.
    for (direction, src, dst) in
        [(Direction::Outbound, "10.8.1.1", "10.9.0.1"), (Direction::Inbound, "10.9.0.1", "10.8.1.1")]
    {
        let hit = bench.hit(direction, src, dst).unwrap();
        assert_eq!((hit.action, hit.priority), (Action::Bypass, 2016));
    }
    let hit = bench.hit(Direction::Outbound, "10.9.0.1", "10.8.2.1").unwrap();
    assert_eq!((hit.priority, sa(hit, &bench)), (1000, Spi(0x2001)));
    // One more touches no other.
    let before = bench.policies();
    let changes = bench.install_routes(
        &sites,
        &[("10.0.0.0/8", 7), ("10.9.0.0/16", 2), ("fd08:1::/64", 7), ("172.16.0.0/12", 7)],
    );
    assert_eq!(changes, Changes { kept: 4, policies: 2, ..Changes::default() });
    assert!(before.iter().all(|p| bench.policies().contains(p)));
    // Another iked, that has read the same routes.
    let all = [("10.0.0.0/8", 7), ("10.9.0.0/16", 2), ("fd08:1::/64", 7), ("172.16.0.0/12", 7)];
    bench.installer = Installer::default();
    assert_eq!(bench.install_routes(&sites, &all).policies, 0);
    // Down, their traffic is dropped, and up again it goes on.
    let changes = bench.install_without(&sites, &["a"]).unwrap();
    assert_eq!((changes.kept, changes.policies), (4, 6));
    assert_eq!(bench.hit(Direction::Outbound, "10.9.0.1", "172.16.0.1").unwrap().action, Action::Discard);
    assert_eq!(bench.install(&sites).unwrap().policies, 6);
    assert_eq!(bench.install_routes(&sites, &[]).policies, 8);
}

#[test]
fn routes_beyond_the_room_are_left_out() {
    let mut bench = Bench::new(8, 9);
    let sites = routed(&[A, B]);
    let all = routes(&[("10.1.0.0/16", 7), ("10.2.0.0/16", 7), ("10.3.0.0/16", 7)]);
    assert!(!bench.installer.set_routes(&bench.sadb, &connections(&sites), all));
    assert_eq!(bench.install(&sites).unwrap().policies, 8);
    assert!(bench.hit(Direction::Outbound, "10.9.0.1", "10.2.0.1").is_some());
    assert_eq!(bench.hit(Direction::Outbound, "10.9.0.1", "10.3.0.1"), None);
}

#[test]
fn new_keys_take_over_from_old_ones() {
    let mut bench = Bench::new(8, 16);
    bench.install(&text(&[A])).unwrap();
    let policies = bench.policies();
    let reqid = policies[0].1.reqid;
    // The same SPIs: inbound, the new SA can only follow the old one.
    let same_spis = Site { key: 0x50, ..A };
    let changes = bench.install(&text(std::slice::from_ref(&same_spis))).unwrap();
    assert_eq!((changes.published, changes.retired), (2, 2));
    let (_, sa) = bench.reader.copy_sa(bench.reader.find(Spi(0x1000)).unwrap()).unwrap();
    assert_eq!((sa.key.bytes()[0], sa.reqid), (0x50, reqid));
    // Other SPIs.
    let changes = bench.install(&text(&[Site { key: 0x60, spi: 0x3000, ..A }])).unwrap();
    assert_eq!((changes.published, changes.retired), (2, 2));
    assert_eq!(bench.reader.find(Spi(0x1000)), None);
    let hit = bench.hit(Direction::Outbound, "10.9.0.1", "10.8.1.1").unwrap();
    assert_eq!(bench.reader.spi(hit.sa.unwrap()), Some(Spi(0x3001)));
    // All the while these were the same policies.
    let indices = |p: &[(PolicyIndex, Policy)]| p.iter().map(|(i, _)| *i).collect::<Vec<_>>();
    assert_eq!(indices(&bench.policies()), indices(&policies));
    assert_eq!(bench.sas().len(), 2);
}

#[test]
fn a_key_does_not_come_back() {
    let mut bench = Bench::new(8, 16);
    bench.install(&text(&[A])).unwrap();
    let (sas, policies) = (bench.sas(), bench.policies());
    // The SA changes, its key does not. Nothing else of the reload is done either.
    let refused = |bench: &mut Bench, sites: &[Site], spi| match bench.install(&text(sites)).unwrap_err() {
        InstallError::KeySpent { spi: found, .. } => assert_eq!(found, Spi(spi)),
        other => panic!("{other}"),
    };
    refused(&mut bench, &[Site { window: 64, ..A }, B], 0x1000);
    refused(&mut bench, &[Site { spi: 0x3000, ..A }], 0x3000);
    refused(&mut bench, &[Site { name: "other", ..A }], 0x1000);
    // Another connection with the key of one that goes, in the other direction.
    refused(&mut bench, &[Site { key: A.key + 1, ..B }], 0x2000);
    assert_eq!((bench.sas(), bench.policies()), (sas, policies));
    // Gone and come back.
    bench.install(&text(&[B])).unwrap();
    refused(&mut bench, &[A, B], 0x1000);
    bench.install(&text(&[Site { key: 0x70, ..A }, B])).unwrap();
}

#[test]
fn manual_keys_have_to_be_acknowledged() {
    // RFC 4106 §2.
    let unsaid = |sites: &[Site]| text(sites).lines().skip(1).fold(String::new(), |t, l| t + l + "\n");
    let mut bench = Bench::new(8, 16);
    let e = bench.install(&unsaid(&[A])).unwrap_err();
    assert!(matches!(&e, InstallError::ManualKeys { name } if name == "a"), "{e}");
    let sizes = bench.sadb.sizes();
    assert!(matches!(check(&connections(&unsaid(&[A])), &sizes), Err(InstallError::ManualKeys { .. })));
    check(&connections(&text(&[A])), &sizes).unwrap();
    check(&connections(""), &sizes).unwrap();
    // Keys that are in use go on; new ones need it again.
    bench.install(&text(&[A])).unwrap();
    bench.install(&unsaid(&[A])).unwrap();
    let e = bench.install(&unsaid(&[A, B])).unwrap_err();
    assert!(matches!(&e, InstallError::ManualKeys { name } if name == "b"), "{e}");
}

#[test]
fn down_keeps_the_sas_and_drops_the_traffic() {
    let mut bench = Bench::new(8, 16);
    let both = text(&[A, B])
        + "[[policy]]\nname = \"x\"\naction = \"bypass\"\nsrc = \"0.0.0.0/0\"\ndst = \"0.0.0.0/0\"\npriority = 2000\n";
    bench.install(&both).unwrap();
    let sas = bench.sas();
    bench.install_without(&both, &["a"]).unwrap();
    assert_eq!(bench.sas(), sas);
    for (direction, src, dst) in
        [(Direction::Outbound, "10.9.0.1", "10.8.1.1"), (Direction::Inbound, "10.8.1.1", "10.9.0.1")]
    {
        assert_eq!(bench.hit(direction, src, dst).unwrap().action, Action::Discard);
    }
    assert_eq!(bench.hit(Direction::Outbound, "10.9.0.1", "10.8.2.1").unwrap().action, Action::Protect);
    bench.install(&both).unwrap();
    assert_eq!(bench.sas(), sas);
    let hit = bench.hit(Direction::Outbound, "10.9.0.1", "10.8.1.1").unwrap();
    assert_eq!(bench.reader.spi(hit.sa.unwrap()), Some(Spi(0x1001)));
    assert_eq!(bench.hit(Direction::Inbound, "10.8.1.1", "10.9.0.1").unwrap().action, Action::Protect);
    // No guard is left.
    assert!(bench.policies().iter().all(|(_, p)| p.priority != GUARD_PRIORITY));
    assert_eq!(bench.policies().len(), 10);
}

#[test]
fn one_that_is_down_gets_nothing_new() {
    let mut bench = Bench::new(8, 16);
    assert_eq!(bench.install_without(&text(&[A]), &["a"]).unwrap().published, 0);
    assert!(bench.sas().is_empty());
    assert_eq!(bench.install(&text(&[A])).unwrap().published, 2);
}

#[test]
fn exceptions_go_both_ways() {
    let mut bench = Bench::new(8, 16);
    let dns = "[[policy]]\nname = \"dns\"\naction = \"bypass\"\nsrc = \"10.9.0.0/16\"\ndst = \"10.8.1.53/32\"\n\
               protocol = \"udp\"\ndst_ports = \"53\"\npriority = 100\n";
    bench.install(&(text(&[A]) + dns)).unwrap();
    assert_eq!(bench.hit(Direction::Outbound, "10.9.0.1", "10.8.1.53").unwrap().action, Action::Bypass);
    let answer = Flow {
        src: "10.8.1.53".parse().unwrap(),
        dst: "10.9.0.1".parse().unwrap(),
        protocol: 17,
        ports: Some((53, 1)),
    };
    assert_eq!(bench.reader.lookup(Direction::Inbound, &answer).unwrap().action, Action::Bypass);
    let other = Flow { ports: Some((54, 1)), ..answer };
    assert_eq!(bench.reader.lookup(Direction::Inbound, &other).unwrap().action, Action::Protect);
    // Its action changes in place.
    bench.install(&(text(&[A]) + &dns.replace("bypass", "discard"))).unwrap();
    assert_eq!(bench.hit(Direction::Outbound, "10.9.0.1", "10.8.1.53").unwrap().action, Action::Discard);
    assert_eq!(bench.policies().len(), 6);
}

#[test]
fn what_does_not_fit_is_told_before_anything_changes() {
    let mut bench = Bench::new(2, 16);
    bench.install(&text(&[A])).unwrap();
    match bench.install(&text(&[A, B])).unwrap_err() {
        InstallError::Full { name, what, key, wanted, capacity } => {
            assert_eq!((name.as_str(), what, key, wanted, capacity), ("b", "SAs", "max_sas", 4, 2));
        }
        other => panic!("{other}"),
    }
    assert_eq!((bench.sas().len(), bench.policies().len()), (2, 4));
    let mut bench = Bench::new(1, 16);
    assert!(matches!(bench.install(&text(&[A])).unwrap_err(), InstallError::Full { capacity: 1, .. }));
    let mut bench = Bench::new(8, 7);
    match bench.install(&text(&[A, B])).unwrap_err() {
        InstallError::Full { name, what, wanted, .. } => {
            assert_eq!((name.as_str(), what, wanted), ("b", "policies", 8))
        }
        other => panic!("{other}"),
    }
    assert!(bench.sas().is_empty() && bench.policies().is_empty());
}

#[test]
fn a_full_sad_takes_new_keys_when_the_workers_let_go_of_the_old() {
    let mut bench = Bench::new(2, 4);
    bench.install(&text(&[A])).unwrap();
    let worker = bench.runtime.worker(0);
    worker.quiesce();
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                worker.quiesce();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let changes = bench.install(&text(&[Site { key: 0x50, spi: 0x3000, ..A }]));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(changes.unwrap().published, 2);
    });
    // A worker that never passes keeps the memory, and the error is clear.
    match bench.install(&text(&[Site { key: 0x60, spi: 0x4000, ..A }])).unwrap_err() {
        InstallError::Sa { name, direction, source: SadbError::Full { .. } } => {
            assert_eq!((name.as_str(), direction), ("a", Direction::Inbound));
        }
        other => panic!("{other}"),
    }
    worker.offline();
    bench.install(&text(&[Site { key: 0x60, spi: 0x4000, ..A }])).unwrap();
}

#[test]
fn clear_takes_all_out() {
    let mut bench = Bench::new(8, 16);
    bench.install(&text(&[A, B])).unwrap();
    clear(&mut bench.sadb);
    assert!(bench.sas().is_empty() && bench.policies().is_empty());
    assert_eq!((bench.sadb.live_sas(), bench.sadb.reclaim()), (0, 0));
}

#[test]
fn random_reloads_never_reuse_a_key() {
    // Any walk through configurations and restarts: what is live is what was configured, and no key is in two SAs ever.
    let directory = std::env::temp_dir().join(format!("portcullis-install-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let another = || Installer::new(Spent::open(&directory, 1).unwrap());
    let mut bench = Bench::new(16, 64);
    bench.installer = another();
    let mut state = 7u64;
    let mut random = move |n: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    };
    let mut generation_of: HashMap<u8, u64> = HashMap::new();
    let (mut done, mut refused) = (0, 0);
    for _ in 0..500 {
        if random(8) == 0 {
            bench.installer = another();
        }
        let mut sites = vec![];
        for (i, name) in (0..4).zip(["a", "b", "c", "d"]) {
            if random(4) != 0 {
                let spi = 0x1000 * (u32::from(i) + 1) + 2 * random(3) as u32;
                let key = 0x10 + 0x30 * i + 2 * random(20) as u8;
                sites.push(Site { name, n: i + 1, spi, key, window: 64 });
            }
        }
        let before = (bench.sas(), bench.policies());
        match bench.install(&text(&sites)) {
            Ok(_) => {
                done += 1;
                let spis: HashSet<u32> = bench.sadb.sas().map(|(_, _, sa)| sa.spi.0).collect();
                assert_eq!(spis, sites.iter().flat_map(|s| [s.spi, s.spi + 1]).collect());
                assert_eq!(bench.policies().len(), 4 * sites.len());
            }
            Err(InstallError::KeySpent { .. }) => {
                refused += 1;
                assert_eq!((bench.sas(), bench.policies()), before);
            }
            Err(other) => panic!("{other}"),
        }
        for (_, generation, sa) in bench.sadb.sas() {
            let first = *generation_of.entry(sa.key.bytes()[0]).or_insert(generation.0);
            assert_eq!(first, generation.0, "key {:#x} is in a second SA", sa.key.bytes()[0]);
        }
    }
    assert!(done > 10 && refused > 10, "{done} {refused}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn an_sa_keeps_its_age_until_it_is_another() {
    let mut bench = Bench::new(8, 16);
    let ages = |b: &Bench| b.sadb.sas().map(|(_, _, sa)| sa.handling.born_secs).collect::<Vec<_>>();
    bench.install(&text(&[A])).unwrap();
    assert_eq!(ages(&bench), [1000, 1000]);
    bench.now_secs = 2000;
    let changes = bench.install(&text(&[A, B])).unwrap();
    assert_eq!((changes.kept, changes.published), (2, 2));
    assert_eq!(ages(&bench), [1000, 1000, 2000, 2000]);
    // What is asked for is part of what it is.
    bench.now_secs = 3000;
    let changed = text(&[A, B]).replacen("algorithm", "ttl = 3\nalgorithm", 1);
    assert!(matches!(bench.install(&changed).unwrap_err(), InstallError::KeySpent { .. }));
    let new_keys =
        text(&[Site { spi: 0x3000, key: 0x60, ..A }, B]).replacen("algorithm", "ttl = 3\nalgorithm", 1);
    let changes = bench.install(&new_keys).unwrap();
    assert_eq!((changes.kept, changes.published, changes.retired), (2, 2, 2));
    let mut all = ages(&bench);
    all.sort_unstable();
    assert_eq!(all, [2000, 2000, 3000, 3000]);
}

#[test]
fn sas_are_what_the_connection_says() {
    let mut bench = Bench::new(8, 16);
    let keys = "udp_encap = true\nudp_ports = [4500, 4502]\nmtu = 1400\nts_protocol = \"tcp\"\nremote_ports = \"443\"\n";
    bench.install(&text(&[A]).replace("algorithm", &format!("{keys}algorithm"))).unwrap();
    let of = |direction| bench.sadb.sas().map(|(.., sa)| sa).find(|sa| sa.direction == direction).unwrap();
    let (inbound, outbound) = (of(Direction::Inbound), of(Direction::Outbound));
    // As they are on the wire, each way.
    let keepalive = UdpEncap { keepalive_secs: 20, ..UdpEncap::between(4500, 4502) };
    assert_eq!((inbound.udp, outbound.udp), (Some(UdpEncap::between(4502, 4500)), Some(keepalive)));
    assert_eq!((inbound.mtu, outbound.mtu), (1400, 1400));
    for (_, policy) in bench.policies() {
        let (ours, theirs) = match policy.direction {
            Direction::Outbound => (&policy.selector.src_ports, &policy.selector.dst_ports),
            Direction::Inbound => (&policy.selector.dst_ports, &policy.selector.src_ports),
        };
        assert_eq!((policy.selector.protocol, ours, theirs), (Some(6), &(0..=65535), &(443..=443)));
    }
}

/// RFC 4301 §4.1.
#[test]
fn classes_have_sas_of_their_own_and_are_rekeyed_by_themselves() {
    let class = |dscp: &str, n: u8, key: u8| {
        let (inbound, outbound, other) = (0x3000 + 2 * n as u32, 0x3001 + 2 * n as u32, key + 1);
        format!(
            "[[connection.class]]\ndscp = [{dscp}]\n[connection.class.inbound]\nspi = \"{inbound:#x}\"\n\
             key = \"0x{key:02x}{:038x}\"\n[connection.class.outbound]\nspi = \"{outbound:#x}\"\nkey = \"0x{other:02x}{:038x}\"\n",
            0, 0
        )
    };
    let mut bench = Bench::new(16, 16);
    let spis = |bench: &Bench, indices: &[PolicyIndex]| {
        let of = |dscp| {
            let sas = indices.iter().map(|index| bench.reader.sa_for(*index, dscp, 0));
            let mut spis: Vec<_> = sas.map(|sa| bench.reader.spi(sa.unwrap()).unwrap().0).collect();
            spis.dedup();
            assert_eq!(spis.len(), 1, "the same of both families");
            spis[0]
        };
        [0, 46, 34, 63].map(of)
    };
    let outbound = |bench: &Bench| -> Vec<PolicyIndex> {
        bench.policies().iter().filter(|(_, p)| p.direction == Direction::Outbound).map(|(i, _)| *i).collect()
    };
    let all = text(&[A]) + &class("46, 44", 1, 0x40) + &class("34", 2, 0x50);
    let changes = bench.install(&all).unwrap();
    assert_eq!(changes, Changes { kept: 0, published: 6, retired: 0, policies: 4 });
    let indices = outbound(&bench);
    assert_eq!(spis(&bench, &indices), [0x1001, 0x3003, 0x3005, 0x1001]);
    let reqids: HashSet<u32> = bench.sadb.sas().map(|(.., sa)| sa.reqid).collect();
    assert_eq!(
        reqids,
        bench.policies().iter().map(|(_, p)| p.reqid).collect(),
        "inbound, any of them is right"
    );
    // Another iked changes nothing.
    bench.installer = Installer::default();
    assert_eq!(bench.install(&all).unwrap(), Changes { kept: 6, ..Changes::default() });
    // One class is rekeyed: the SAs of the others stay, and so do all policies.
    let sas = bench.sas();
    let changes = bench.install(&(text(&[A]) + &class("46, 44", 3, 0x60) + &class("34", 2, 0x50))).unwrap();
    assert_eq!((changes.kept, changes.published, changes.retired, changes.policies), (4, 2, 2, 2));
    assert_eq!(
        (outbound(&bench), spis(&bench, &indices)),
        (indices.clone(), [0x1001, 0x3007, 0x3005, 0x1001])
    );
    assert_eq!(bench.sas().iter().filter(|sa| sas.contains(sa)).count(), 4);
    // Other DSCPs, the same keys; and none any more.
    bench.install(&(text(&[A]) + &class("63", 3, 0x60) + &class("34, 46", 2, 0x50))).unwrap();
    assert_eq!(
        (outbound(&bench), spis(&bench, &indices)),
        (indices.clone(), [0x1001, 0x3005, 0x3005, 0x3007])
    );
    bench.install_without(&(text(&[A]) + &class("63", 3, 0x60)), &["a"]).unwrap();
    assert_eq!(bench.hit(Direction::Outbound, "10.9.0.1", "10.8.1.1").unwrap().action, Action::Discard);
    bench.install(&(text(&[A]) + &class("63", 3, 0x60))).unwrap();
    let indices = outbound(&bench);
    assert_eq!(spis(&bench, &indices), [0x1001, 0x1001, 0x1001, 0x3007]);
    bench.install(&text(&[A])).unwrap();
    assert_eq!(spis(&bench, &indices), [0x1001; 4]);
    assert!(bench.policies().iter().all(|(i, _)| bench.sadb.policy_classes(*i).is_none()));
    assert_eq!(bench.sas().len(), 2);
    // A key of a class is a key like others.
    let e = bench.install(&(text(&[A]) + &class("1", 7, 0x50))).unwrap_err();
    assert!(matches!(e, InstallError::KeySpent { spi: Spi(0x300e), .. }), "{e}");
}

/// RFC 7296 §2.23: a rekey does not make the peer go back.
#[test]
fn where_a_peer_is_outlives_its_sas() {
    let mut bench = Bench::new(8, 32);
    let with =
        |site: Site| text(&[site]).replace("algorithm", "udp_encap = true\nfollow_peer = true\nalgorithm");
    bench.install(&with(A)).unwrap();
    let to = Endpoint::new("198.51.100.7".parse().unwrap(), 40_002).unwrap();
    let reqid = bench.sadb.sas().next().unwrap().2.reqid;
    bench.installer.lead(&mut bench.sadb, &HashMap::from([(reqid, to)]));
    bench.install(&with(Site { spi: 0x3000, key: 0x30, ..A })).unwrap();
    let places = |bench: &Bench| -> Vec<_> {
        bench.sadb.sas().map(|(slot, _, sa)| (sa.spi.0, bench.sadb.endpoint(slot))).collect()
    };
    let mut found = places(&bench);
    found.sort_by_key(|(spi, _)| *spi);
    assert_eq!(found, [(0x3000, Some(to)), (0x3001, Some(to))]);
    // Another address in the configuration is where it is.
    let elsewhere = with(Site { spi: 0x4000, key: 0x40, ..A }).replace("10.0.1.1", "10.0.1.77");
    bench.install(&elsewhere).unwrap();
    assert!(places(&bench).iter().all(|(_, at)| at.is_none()));
}
