//! As much as the regions can hold: a million SAs, and a hundred thousand policies that change under a reader.

use portcullis_sadb::*;
use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
};

fn sa(spi: u32) -> Sa {
    Sa {
        spi: Spi(spi),
        direction: Direction::Inbound,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: Algorithm::AES_GCM_128,
        src: "192.0.2.1".parse().unwrap(),
        dst: "192.0.2.2".parse().unwrap(),
        udp: None,
        esn: true,
        replay_window: 1024,
        reqid: spi,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("site").unwrap(),
        key: Key::new(&[spi as u8; 20]).unwrap(),
    }
}

#[test]
fn a_million_sas_are_found() {
    let sizes = Sizes { max_sas: MAX_SAS, max_policies: 1 };
    let (mut sadb, reader, runtime) = Sadb::heap(&sizes).unwrap();
    // Neighbours and far apart, none twice: an odd factor permutes the numbers.
    let spi = |i: u32| Spi((i.wrapping_mul(if i & 1 == 0 { 1 } else { 0x9e37_79b1 })) | 0x100);
    let mut spis: Vec<Spi> = (0..MAX_SAS * 2).map(spi).collect();
    spis.sort();
    spis.dedup();
    spis.truncate(MAX_SAS as usize);
    assert_eq!(spis.len(), MAX_SAS as usize);
    let mut template = sa(256);
    for spi in &spis {
        template.spi = *spi;
        sadb.publish(&template).unwrap();
    }
    template.spi = Spi(255 << 24 | 0x55);
    assert_eq!(sadb.publish(&template), Err(SadbError::Full { what: "SAD", capacity: MAX_SAS }));
    for spi in &spis {
        let slot = reader.find(*spi).unwrap();
        assert_eq!(reader.spi(slot), Some(*spi));
    }
    assert_eq!(sadb.live_sas(), MAX_SAS);

    let one = sizes.bytes_per_sa();
    let regions = (sizes.sadb_bytes() + sizes.runtime_bytes()) as f64 / MAX_SAS as f64;
    println!(
        "{MAX_SAS} SAs: {} octets each (slot {}, index {}, runtime {}); the regions have {regions:.1} per SA",
        one.slot + one.index + one.runtime,
        one.slot,
        one.index,
        one.runtime
    );
    let with = Sizes { max_policies: MAX_POLICIES, ..sizes };
    let spd = (with.sadb_bytes() - sizes.sadb_bytes()) / MAX_SAS as usize;
    assert!(one.policies == 0 && with.bytes_per_sa().policies.abs_diff(spd) <= 1);
    let own = sadb.private_octets() as f64 / MAX_SAS as f64;
    println!("beside the regions the writer has {own:.1} octets per SA");
    assert!(own < 1.0, "no SA needs any until a policy uses it");
    assert!(one.slot + one.index + one.runtime <= 512 && regions <= 512.0);

    // Half of them go, and their room is used again.
    let worker = runtime.worker(0);
    worker.quiesce();
    for spi in spis.iter().step_by(2) {
        sadb.retire(reader.find(*spi).unwrap()).unwrap();
    }
    worker.quiesce();
    assert_eq!(sadb.reclaim(), 0);
    for (i, spi) in spis.iter().enumerate() {
        assert_eq!(reader.find(*spi).is_some(), i % 2 == 1);
    }
    for spi in spis.iter().step_by(2) {
        template.spi = *spi;
        sadb.publish(&template).unwrap();
    }
    assert!(spis.iter().all(|spi| reader.find(*spi).is_some()));
}

const POLICIES: u32 = 100_000;

fn policy(n: u32, len: u8, priority: u32, action: Action) -> Policy {
    let dst = Prefix::new(net(n, 0), len).unwrap();
    Policy {
        direction: Direction::Outbound,
        selector: Selector::between("10.0.0.0/8".parse().unwrap(), dst),
        priority,
        action,
        reqid: n,
        sa: None,
    }
}

/// An address in the network of policy `n`.
fn net(n: u32, host: u8) -> std::net::IpAddr {
    Ipv4Addr::from_bits((0x4000_0000 + n) << 4 | host as u32 & 15).into()
}

#[test]
fn a_hundred_thousand_policies_change_under_a_reader() {
    let sizes = Sizes { max_sas: 1, max_policies: POLICIES + 64 };
    let (mut sadb, reader, runtime) = Sadb::heap(&sizes).unwrap();
    // Where a lookup falls through to, if it misses the policy of its network.
    let wide = sadb.add_policy(&policy(0, 0, 9, Action::Bypass)).unwrap();
    let mut indexes: Vec<PolicyIndex> =
        (0..POLICIES - 1).map(|n| sadb.add_policy(&policy(n, 28, 5, Action::Protect)).unwrap()).collect();
    assert_eq!(sadb.policies().count(), POLICIES as usize);

    let stop = AtomicBool::new(false);
    let (lookups, changes) = std::thread::scope(|s| {
        let looker = s.spawn(|| {
            let worker = runtime.worker(0);
            let mut lookups = 0u64;
            while !stop.load(Ordering::Relaxed) {
                worker.quiesce();
                for _ in 0..32 {
                    // Mostly the networks that change.
                    let n = (lookups.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
                    let n = if n & 3 == 0 { n % (POLICIES - 1) } else { n % 16 };
                    let src = "10.1.2.3".parse().unwrap();
                    let flow = Flow { src, dst: net(n, 1), protocol: 17, ports: Some((1, 2)) };
                    let hit = reader.lookup(Direction::Outbound, &flow).unwrap();
                    assert_eq!((hit.action, hit.reqid), (Action::Protect, n), "{hit:?}");
                    lookups += 1;
                }
            }
            worker.offline();
            lookups
        });
        // Each is replaced by one of another priority, the new one first: there is never none.
        let mut changes = 0u64;
        let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
        while std::time::Instant::now() < end && !looker.is_finished() {
            let n = (changes % 16) as u32;
            let priority = if (changes / 16).is_multiple_of(2) { 6 } else { 5 };
            match sadb.add_policy(&policy(n, 28, priority, Action::Protect)) {
                Ok(index) => {
                    let old = std::mem::replace(&mut indexes[n as usize], index);
                    sadb.remove_policy(old).unwrap();
                    changes += 1;
                }
                // The reader must first let go of what was removed.
                Err(SadbError::Full { .. }) => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
            sadb.reclaim();
        }
        stop.store(true, Ordering::Relaxed);
        (looker.join().unwrap(), changes)
    });
    println!("{lookups} lookups during {changes} replacements among {POLICIES} policies");
    assert!(lookups > 1000 && changes > 100);
    for index in indexes {
        sadb.remove_policy(index).unwrap();
    }
    assert_eq!(sadb.policies().map(|(i, _)| i).collect::<Vec<_>>(), [wide]);
    assert_eq!(sadb.reclaim(), 0);
}
