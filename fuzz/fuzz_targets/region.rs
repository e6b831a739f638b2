//! Readers treat what they read as untrusted: whatever is in the regions, they answer, in bounded time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_sadb::*;
use std::{fs, path::PathBuf, sync::LazyLock};

const SIZES: Sizes = Sizes { max_sas: 64, max_policies: 64 };

/// A directory with good regions, and their bytes.
static GOOD: LazyLock<(PathBuf, Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("portcullis-fuzz-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let mut sadb = Sadb::create(&dir, &SIZES, [1, 2]).unwrap();
    for n in 0..8u32 {
        let direction = if n % 2 == 0 { Direction::Inbound } else { Direction::Outbound };
        let slot = sadb.publish(&sa(n, direction)).unwrap();
        let prefix = |i: u32| format!("10.{i}.0.0/16").parse().unwrap();
        let policy = Policy {
            direction,
            selector: Selector::between(prefix(n), prefix(n + 1)),
            priority: n,
            action: Action::Protect,
            reqid: n,
            sa: (direction == Direction::Outbound).then_some(slot),
        };
        let index = sadb.add_policy(&policy).unwrap();
        if n == 5 {
            let mut classes = Classes::new(Some(slot));
            classes.add(&[46], Some(slot));
            sadb.set_policy_classes(index, &classes).unwrap();
        }
    }
    drop(sadb);
    let bytes = |file| fs::read(dir.join(file)).unwrap();
    let (sadb, runtime) = (bytes("sadb"), bytes("runtime"));
    (dir, sadb, runtime)
});

fn sa(n: u32, direction: Direction) -> Sa {
    Sa {
        spi: Spi(0x1000 + n),
        direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: Algorithm::AES_GCM_128,
        src: "192.0.2.1".parse().unwrap(),
        dst: "192.0.2.2".parse().unwrap(),
        udp: None,
        esn: true,
        replay_window: 1024,
        reqid: n,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("site").unwrap(),
        key: Key::new(&[0xa5; 20]).unwrap(),
    }
}

fuzz_target!(|changes: Vec<(u32, u64)>| {
    let (dir, sadb, runtime) = &*GOOD;
    let (mut sadb, mut runtime) = (sadb.clone(), runtime.clone());
    for (at, word) in changes {
        let file = if at % 4 == 3 { &mut runtime } else { &mut sadb };
        let at = (at as usize / 4 * 8) % (file.len() - 7);
        file[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    fs::write(dir.join("sadb"), sadb).unwrap();
    fs::write(dir.join("runtime"), runtime).unwrap();
    if let Ok((reader, _runtime, _guard)) = Reader::attach(dir) {
        for n in 0..10 {
            let slot = reader.find(Spi(0x1000 + n)).unwrap_or(SlotIndex(n * 10));
            let _ = (reader.generation(slot), reader.copy_sa(slot));
            let sa = reader.policy_sa(PolicyIndex(n * 10));
            let _ = sa.map(|slot| {
                (reader.generation(slot), reader.copy_sa(slot), reader.sa_for(PolicyIndex(n), n as u8, n % 3))
            });
            let (src, dst) = ([10, n as u8, 1, 1].into(), [10, n as u8 + 1, 1, 1].into());
            let flow = Flow { src, dst, protocol: 17, ports: Some((1, 2)) };
            let _ = (reader.lookup(Direction::Outbound, &flow), reader.lookup(Direction::Inbound, &flow));
        }
        assert!(reader.policies().count() <= SIZES.max_policies as usize);
    }
    if let Ok(mut sadb) = Sadb::open(dir) {
        let _ = (sadb.poll_event(), sadb.reclaim(), sadb.sas().count());
    }
});
