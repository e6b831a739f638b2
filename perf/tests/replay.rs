//! Captures that are sent again: every frame is, in order and when it is due, and what cannot be sent is refused by name.

use arrayvec::ArrayVec;
use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};
use portcullis_datapath::{
    batch::BATCH,
    fib::Mac,
    pool::{FrameCache, FramePool},
    port::{Port, memory::MemoryPort},
    umem::{HugePages, Umem},
};
use portcullis_perf::generator::{
    pace::Pace,
    replay::{Capture, CaptureError, Replay, Timing},
};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};

const HZ: f64 = 1e9;

/// A file that is gone when its test ends.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

/// A capture of these frames: microseconds, octets that were captured, and octets that there were.
fn file(name: &str, datalink: DataLink, frames: &[(u64, usize, usize)]) -> File {
    let path = std::env::temp_dir().join(format!("portcullis-replay-{name}-{}", std::process::id()));
    let header = PcapHeader { datalink, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(fs::File::create(&path).unwrap(), header).unwrap();
    for ((at, octets, all), n) in frames.iter().zip(0u8..) {
        let packet = PcapPacket::new_owned(Duration::from_micros(*at), *all as u32, vec![n; *octets]);
        writer.write_packet(&packet).unwrap();
    }
    File(path)
}

fn capture(name: &str, frames: &[(u64, usize, usize)]) -> Capture {
    Capture::read(&file(name, DataLink::ETHERNET, frames).0).unwrap()
}

fn begun(name: &str, frames: &[(u64, usize, usize)], timing: Timing, passes: Option<u64>) -> Replay {
    let mut replay = Replay::new(capture(name, frames), passes, HZ);
    replay.set_timing(timing);
    replay
}

/// First octet and length of each frame that waits at a port.
fn waiting(port: &mut MemoryPort, cache: &mut FrameCache) -> Vec<(u8, usize)> {
    let (mut all, mut list) = (vec![], ArrayVec::<_, BATCH>::new());
    loop {
        port.rx(&mut list, cache);
        if list.is_empty() {
            return all;
        }
        for frame in list.drain(..) {
            all.push((frame.bytes()[0], frame.total_len()));
            cache.give(frame);
        }
    }
}

fn pool() -> Arc<FramePool> {
    FramePool::new(Umem::new(1024, 4096, HugePages::Off).unwrap().0)
}

/// With a room of so many frames, at these clocks: what came.
fn played(replay: &mut Replay, clocks: &[u64]) -> Vec<Vec<(u8, usize)>> {
    let pool = pool();
    let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 100));
    let mut at = |now: &u64| {
        while replay.turn(&mut near, &mut cache, || *now) > 0 {}
        waiting(&mut far, &mut cache)
    };
    let all = clocks.iter().map(&mut at).collect();
    replay.close(&mut cache);
    drop((near, far, cache));
    assert_eq!(pool.free(), 1024, "every chunk is back");
    all
}

#[test]
fn frames_are_sent_when_they_were_and_so_many_times_as_fast() {
    // The third was captured out of order, and stays where it is in the file.
    let of = [(500, 60, 60), (510, 9000, 9000), (505, 61, 61), (530, 62, 62)];
    let timing = Timing::AsCaptured { speed: 1.0, start: 1000 };
    let mut replay = begun("times", &of, timing, Some(2));
    let clocks = [999, 1000, 10_999, 11_000, 31_000, 40_999, 41_000, 100_000];
    let [a, b, c, d] = [(0, 60), (1, 9000), (2, 61), (3, 62)];
    let sent = [vec![], vec![a], vec![], vec![b, c], vec![d], vec![], vec![a], vec![b, c, d]];
    assert_eq!(played(&mut replay, &clocks), sent);
    assert!(replay.is_done());
    assert_eq!((replay.sent().frames, replay.octets), (8, 2 * 9183));
    assert_eq!(replay.lateness.max().as_micros(), 49, "of the second pass's second frame");
    let timing = Timing::AsCaptured { speed: 10.0, start: 0 };
    let mut replay = begun("faster", &of, timing, Some(1));
    assert_eq!(played(&mut replay, &[0, 999, 1000, 3000]), [vec![a], vec![], vec![b, c], vec![d]]);
}

#[test]
fn at_a_rate_it_goes_on_and_what_finds_no_room_is_told() {
    let of = [(0, 60, 60), (1_000_000, 61, 61), (1_000_000, 62, 62)];
    let timing = Timing::Pace(Pace::new(0, HZ, 1e7)); // one in 100 clocks
    let mut replay = begun("rate", &of, timing, None);
    let sent = played(&mut replay, &[0, 99, 100, 450, 30_450]);
    let [a, b, c] = [(0, 60), (1, 61), (2, 62)];
    assert_eq!(sent[..4], [vec![a], vec![], vec![b], vec![c, a, b]]);
    assert_eq!((sent[4].len(), replay.sent().frames, replay.sent().refused), (100, 105, 200));
    assert!(!replay.is_done());
}

#[test]
fn at_once_all_wait_for_room() {
    let of: Vec<_> = (0..90).map(|n| (n, 60, 60)).collect();
    let mut replay = begun("once", &of, Timing::AtOnce, Some(2));
    let pool = pool();
    let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", 100));
    let mut all = vec![];
    while !replay.is_done() {
        replay.turn(&mut near, &mut cache, || 7);
        if replay.sent().frames.is_multiple_of(100) {
            all.extend(waiting(&mut far, &mut cache));
        }
    }
    all.extend(waiting(&mut far, &mut cache));
    assert_eq!(all, (0..90).chain(0..90).map(|n| (n, 60)).collect::<Vec<_>>());
    assert_eq!((replay.sent().frames, replay.sent().refused, replay.lateness.count()), (180, 0, 0));
}

#[test]
fn frames_that_were_cut_are_left_out_and_all_go_where_they_are_led() {
    let mut capture = capture("cut", &[(0, 60, 60), (1, 96, 1514), (2, 70, 70)]);
    assert_eq!((capture.len(), capture.cut), (2, 1));
    capture.lead(Mac([9, 8, 7, 6, 5, 4]), Mac([3; 6]));
    let mut replay = Replay::new(capture, Some(1), HZ);
    assert_eq!(played(&mut replay, &[0]), [vec![(9, 60), (9, 70)]]);
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let read = |name, link, frames: &[_]| Capture::read(&file(name, link, frames).0);
    let says = |result: Result<Capture, CaptureError>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "'{words}' is not in: {error}");
    };
    says(read("raw", DataLink::RAW, &[(0, 60, 60)]), "link type RAW and not of Ethernet");
    says(read("empty", DataLink::ETHERNET, &[]), "no whole frame");
    says(read("all-cut", DataLink::ETHERNET, &[(0, 60, 61)]), "no whole frame");
    says(read("short", DataLink::ETHERNET, &[(0, 60, 60), (1, 13, 13)]), "frame 2 has 13 octets");
    says(Capture::read(&std::env::temp_dir().join("portcullis-replay-nowhere")), "No such file");
    let other = file("other", DataLink::ETHERNET, &[(0, 60, 60)]);
    fs::write(&other.0, [0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0]).unwrap();
    says(Capture::read(&other.0), "editcap -F pcap");
    fs::write(&other.0, b"neither").unwrap();
    says(Capture::read(&other.0), "no capture, or is damaged");
    let whole = file("whole", DataLink::ETHERNET, &[(0, 60, 60)]);
    let octets = fs::read(&whole.0).unwrap();
    fs::write(&whole.0, &octets[..octets.len() - 1]).unwrap();
    says(Capture::read(&whole.0), "no capture, or is damaged");
    let long = capture("long", &[(0, 1514, 1514), (1, 1515, 1515)]);
    assert!(long.fits(1501).is_ok());
    assert_eq!(
        long.fits(1500).unwrap_err().to_string(),
        "frame 2 has 1515 octets, and the interface takes 1514: its MTU is too low"
    );
}
