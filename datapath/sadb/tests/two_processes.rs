//! A datapath in a process of its own reads while iked publishes and retires.
//!
//! The test runs itself again as the reader; every field and key octet of an SA comes from its SPI and a
//! count, so a copy of two halves cannot pass.

use portcullis_sadb::*;
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const READER: &str = "PORTCULLIS_TEST_SADB_READER";
const SIZES: Sizes = Sizes { max_sas: 32, max_policies: 8 };
const SPIS: u32 = 24;

struct Scene {
    dir: PathBuf,
    child: Option<Child>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The `count`th SA with that SPI.
fn sa(spi: Spi, count: u32) -> Sa {
    let salt = spi.0.wrapping_mul(0x9e37_79b1) ^ count;
    let key: Vec<u8> = (0..36u32).map(|i| (salt.rotate_left(i) ^ i) as u8).collect();
    Sa {
        spi,
        direction: Direction::Inbound,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: Algorithm::AES_GCM_256,
        src: std::net::Ipv4Addr::from_bits(salt).into(),
        dst: std::net::Ipv4Addr::from_bits(!salt).into(),
        udp: None,
        esn: true,
        replay_window: 1024,
        reqid: count,
        worker: None,
        around: None,
        mtu: salt as u16,
        handling: Handling::default(),
        name: Name::new(&format!("{salt:x}")).unwrap(),
        key: Key::new(&key).unwrap(),
    }
}

/// The child: reads until the last SPI of all is there.
fn read(dir: PathBuf) {
    let (reader, runtime, _) = Reader::attach(&dir).unwrap();
    runtime.set_ready(1);
    let worker = runtime.worker(0);
    let mut copies = 0u64;
    loop {
        worker.quiesce();
        for spi in (1000..1000 + SPIS).map(Spi) {
            // Found, and gone before the copy was whole: that is no copy.
            if let Some((generation, copy)) = reader.find(spi).and_then(|slot| reader.copy_sa(slot)) {
                assert_eq!(generation.0 & 1, 1);
                assert_eq!(copy, sa(spi, copy.reqid), "torn");
                copies += 1;
            }
        }
        if reader.find(Spi(9999)).is_some() {
            break;
        }
    }
    worker.offline();
    assert!(copies > 0);
}

#[test]
fn a_reader_in_another_process_sees_whole_sas() {
    if let Some(dir) = std::env::var_os(READER) {
        return read(dir.into());
    }
    let dir = std::env::temp_dir().join(format!("portcullis-sadb-two-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let mut scene = Scene { dir, child: None };
    let mut sadb = Sadb::create(&scene.dir, &SIZES, [11, 22]).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_reader_in_another_process_sees_whole_sas", "--nocapture"])
        .env(READER, &scene.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    scene.child = Some(child);
    let patience = Instant::now() + Duration::from_secs(30);
    while sadb.runtime().workers() == 0 {
        assert!(Instant::now() < patience, "the reader does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (end, mut count) = (Instant::now() + Duration::from_secs(1), 0);
    while Instant::now() < end {
        count += 1;
        let spi = Spi(1000 + count % SPIS);
        if let Some(slot) = sadb.find(spi) {
            sadb.retire(slot).unwrap();
        }
        match sadb.publish(&sa(spi, count)) {
            Ok(_) => {}
            // The reader holds what was retired: wait for its next turn.
            Err(SadbError::Full { .. }) => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
    while sadb.publish(&sa(Spi(9999), 0)).is_err() {
        assert!(Instant::now() < patience, "the reader holds everything");
        std::thread::yield_now();
    }
    let status = scene.child.take().unwrap().wait().unwrap();
    println!("writer: {count} turns");
    assert!(status.success() && count > 100);
    assert!(!sadb.runtime().datapath_alive());
    assert_eq!(sadb.reclaim(), 0, "a dead datapath holds nothing");
}
