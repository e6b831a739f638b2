//! A capture goes through the path and back and is the same; repeated, it keeps a worker busy and loses nothing.

use arrayvec::ArrayVec;
use portcullis_datapath::{
    pool::FramePool,
    port::{Port, pcap::PcapPort},
    umem::{HugePages, Umem},
    wire,
};
use portcullis_perf::path::{self, Tunnel};
use portcullis_sadb::Direction;
use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

const PACKETS: usize = 100;

fn tunnel(direction: Direction) -> Tunnel {
    let [src, dst] = [1, 2].map(|n| Ipv4Addr::new(192, 0, 2, n));
    Tunnel { direction, spi: 0x1000, key: (0..20).collect(), src, dst }
}

/// An IPv4 packet of `len` octets in its Ethernet frame.
fn packet(len: usize) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1];
    ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    let checksum = !wire::fold(wire::sum(&ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip.extend((wire::IPV4..len).map(|i| i as u8));
    [&[2; 12][..], &[8, 0], &ip].concat()
}

/// Captures of one test, gone when it ends.
struct Captures(PathBuf);

impl Captures {
    fn new(name: &str) -> Captures {
        let dir = std::env::temp_dir().join(format!("portcullis-path-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let captures = Captures(dir);
        let mut cache = FramePool::new(Umem::new(256, 4096, HugePages::Off).unwrap().0).cache();
        let mut frames = ArrayVec::new();
        for len in 0..PACKETS {
            let mut frame = cache.take().unwrap();
            assert!(frame.scatter(&packet(28 + 13 * len), &mut cache));
            frames.push(frame);
        }
        let mut port = PcapPort::open(None, Some(&captures.file("clear"))).unwrap();
        port.tx(&mut frames);
        port.close(&mut cache);
        captures
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The IP packets of a capture without what a router changes: time to live and checksum.
    fn packets(&self, name: &str) -> Vec<Vec<u8>> {
        let mut cache = FramePool::new(Umem::new(256, 4096, HugePages::Off).unwrap().0).cache();
        let mut port = PcapPort::open(Some(&self.file(name)), None).unwrap();
        let (mut frames, mut packets) = (ArrayVec::new(), vec![]);
        while !port.is_exhausted() {
            port.rx(&mut frames, &mut cache);
            for frame in frames.drain(..) {
                let mut ip = frame.bytes()[wire::ETHERNET..].to_vec();
                ip[8] = 0;
                ip[10..12].fill(0);
                packets.push(ip);
                cache.give(frame);
            }
        }
        packets
    }
}

impl Drop for Captures {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_capture_goes_through_and_comes_back() {
    let captures = Captures::new("back");
    let [clear, esp, back] = ["clear", "esp", "back"].map(|n| captures.file(n));
    for (direction, from, to) in [(Direction::Outbound, &clear, &esp), (Direction::Inbound, &esp, &back)] {
        let report = path::convert(&tunnel(direction), from, to).unwrap();
        assert_eq!((report.received, report.sent), (PACKETS as u64, PACKETS as u64), "{:?}", report.drops);
    }
    assert!(captures.packets("esp").iter().all(|p| p[9] == 50));
    assert_eq!(captures.packets("back"), captures.packets("clear"));
}

#[test]
fn a_repeated_capture_is_carried_without_loss_both_ways() {
    let captures = Captures::new("repeat");
    let [clear, esp] = ["clear", "esp"].map(|n| captures.file(n));
    path::convert(&tunnel(Direction::Outbound), &clear, &esp).unwrap();
    for (direction, from) in [(Direction::Outbound, &clear), (Direction::Inbound, &esp)] {
        let report = path::measure(&tunnel(direction), from, Duration::from_millis(100)).unwrap();
        assert!(report.sent > PACKETS as u64, "more than once round");
        assert_eq!((report.received, report.drops.len()), (report.sent, 0), "{:?}", report.drops);
        assert!(report.elapsed >= Duration::from_millis(100));
    }
}

#[test]
fn what_does_not_fit_the_tunnel_is_told_by_reason() {
    let captures = Captures::new("wrong");
    let [clear, esp] = ["clear", "esp"].map(|n| captures.file(n));
    path::convert(&tunnel(Direction::Outbound), &clear, &esp).unwrap();
    let mut other = tunnel(Direction::Inbound);
    other.key[0] ^= 1;
    let report = path::convert(&other, &esp, &captures.file("none")).unwrap();
    assert_eq!((report.sent, report.drops.values().sum::<u64>()), (0, PACKETS as u64));
    assert!(report.drops.contains_key("icv_mismatch"), "{:?}", report.drops);
    other.key.pop();
    assert!(path::convert(&other, &esp, &captures.file("none")).is_err());
}
