//! Captures as ports: a capture goes through a gateway's port layer and comes out the same, and is what other
//! tools read.

mod testbed;

use arrayvec::ArrayVec;
use portcullis_datapath::{
    batch::BATCH,
    frame::Frame,
    port::{BURST, Port, pcap::PcapPort},
};
use testbed::*;

#[test]
fn what_is_written_is_read_again() {
    let path = std::env::temp_dir().join(format!("portcullis-pcap-{}.pcap", std::process::id()));
    let pool = memory(256);
    let mut cache = pool.cache();
    let sizes = [0, 1, 100, 1400, 8000];
    let mut frames: ArrayVec<Frame, BATCH> = ArrayVec::new();
    for size in sizes {
        frames.push(frame(&mut cache, &udp(inside(1, true), inside(2, true), size, 64)));
    }
    let mut port = PcapPort::open(None, Some(&path)).unwrap();
    port.tx(&mut frames);
    assert!(frames.is_empty());
    port.close(&mut cache);

    let bytes = std::fs::read(&path).unwrap();
    // The classic format, microseconds, Ethernet (link type 1), in this machine's byte order.
    assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()), 0xa1b2_c3d4);
    assert_eq!(u32::from_ne_bytes(bytes[20..24].try_into().unwrap()), 1);

    let mut port = PcapPort::open(Some(&path), None).unwrap();
    let mut got: ArrayVec<Frame, BATCH> = ArrayVec::new();
    while !port.is_exhausted() {
        port.rx(&mut got, &mut cache);
    }
    assert_eq!(got.len(), sizes.len());
    for (frame, size) in got.drain(..).zip(sizes) {
        let mut bytes = vec![0; frame.total_len()];
        frame.gather(&mut bytes);
        assert_eq!(bytes, udp(inside(1, true), inside(2, true), size, 64));
        cache.give(frame);
    }
    std::fs::remove_file(&path).unwrap();
    drop(cache);
    assert_eq!(pool.free(), 256);
}

#[test]
fn what_is_no_capture_is_an_error_and_one_cut_short_is_counted() {
    let path = std::env::temp_dir().join(format!("portcullis-cut-{}.pcap", std::process::id()));
    std::fs::write(&path, b"no capture at all, but long enough for a header").unwrap();
    assert!(PcapPort::open(Some(&path), None).is_err());

    let pool = memory(256);
    let mut cache = pool.cache();
    let mut port = PcapPort::open(None, Some(&path)).unwrap();
    let mut frames: ArrayVec<Frame, BATCH> = ArrayVec::new();
    (0..2).for_each(|_| frames.push(frame(&mut cache, &udp(inside(1, true), inside(2, true), 50, 64))));
    port.tx(&mut frames);
    port.close(&mut cache);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let mut port = PcapPort::open(Some(&path), None).unwrap();
    while !port.is_exhausted() {
        port.rx(&mut frames, &mut cache);
    }
    assert_eq!((frames.len(), port.stats().invalid), (1, 1));
    frames.drain(..).for_each(|f| cache.give(f));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_repeated_capture_begins_again_at_any_place_in_a_burst_and_never_ends() {
    let path = std::env::temp_dir().join(format!("portcullis-repeat-{}.pcap", std::process::id()));
    let pool = memory(256);
    let mut cache = pool.cache();
    let packets: Vec<_> = [0, 8000, 100].map(|size| udp(inside(1, true), inside(2, true), size, 64)).into();
    let mut port = PcapPort::open(None, Some(&path)).unwrap();
    let mut frames: ArrayVec<Frame, BATCH> = packets.iter().map(|p| frame(&mut cache, p)).collect();
    port.tx(&mut frames);
    port.close(&mut cache);

    let mut port = PcapPort::repeat(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut expected = packets.iter().cycle();
    for _ in 0..10 {
        port.rx(&mut frames, &mut cache);
        assert_eq!(frames.len(), BURST);
        for frame in &frames {
            let mut bytes = vec![0; frame.total_len()];
            frame.gather(&mut bytes);
            assert_eq!(&bytes, expected.next().unwrap());
        }
        port.tx(&mut frames);
        port.maintain(&mut cache);
    }
    assert!(!port.is_exhausted());

    // No frame is to be had: packets are lost and counted, as a NIC loses them.
    let held: Vec<_> = std::iter::from_fn(|| cache.take()).collect();
    port.rx(&mut frames, &mut cache);
    assert_eq!((frames.len(), port.stats().rx_no_chunk), (0, BURST as u64));
    held.into_iter().for_each(|f| cache.give(f));
    drop(cache);
    assert_eq!(pool.free(), 256);
}

#[test]
fn what_cannot_be_repeated_is_an_error() {
    let path = std::env::temp_dir().join(format!("portcullis-unrepeatable-{}.pcap", std::process::id()));
    assert!(PcapPort::repeat(&path).is_err(), "no file");
    let pool = memory(256);
    let mut cache = pool.cache();
    PcapPort::open(None, Some(&path)).unwrap().close(&mut cache);
    assert!(PcapPort::repeat(&path).is_err(), "no packet");
    let mut port = PcapPort::open(None, Some(&path)).unwrap();
    let mut frames: ArrayVec<Frame, BATCH> = ArrayVec::new();
    frames.push(frame(&mut cache, &udp(inside(1, true), inside(2, true), 50, 64)));
    port.tx(&mut frames);
    port.close(&mut cache);
    let bytes = std::fs::read(&path).unwrap();
    assert!(PcapPort::repeat(&path).is_ok());
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    assert!(PcapPort::repeat(&path).is_err(), "cut short");
    std::fs::remove_file(&path).unwrap();
}
