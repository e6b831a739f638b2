//! Any packet is read as an ICMP error, answered with one that none is sent about, and its segment size lowered once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_datapath::{
    general::{
        icmp::{MOST_V4, MOST_V6, Problem, TooBig, emit},
        mss,
    },
    wire::{self, Addr, Ip},
};

/// The packet, and a "fragmentation needed" or "packet too big" about it, with right checksums, so that neither is
/// refused for them.
fn checked(packet: &[u8], mtu: u16) -> (Vec<u8>, Vec<u8>) {
    let mut packet = packet.to_vec();
    let len = packet.len() as u16;
    let v4 = packet[0] >> 4 == 4;
    if v4 {
        let header = ((packet[0] & 15) as usize * 4).min(packet.len());
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[10..12].fill(0);
        let checksum = !wire::fold(wire::sum(&packet[..header]));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
    }
    let (head, kind, code, protocol) = if v4 { (20, 3, 4, 1) } else { (40, 2, 0, 58) };
    let mut error = vec![0; head];
    error.extend([kind, code, 0, 0, 0, 0]);
    error.extend(mtu.to_be_bytes());
    error.extend(&packet);
    let octets = error.len() as u16;
    let pseudo = if v4 { 0 } else { octets as u32 - 40 + protocol as u32 };
    let checksum = !wire::fold(pseudo + wire::sum(&error[head..]));
    error[head + 2..head + 4].copy_from_slice(&checksum.to_be_bytes());
    if v4 {
        (error[0], error[9]) = (0x45, protocol);
        error[2..4].copy_from_slice(&octets.to_be_bytes());
        let checksum = !wire::fold(wire::sum(&error[..20]));
        error[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        (error[0], error[6]) = (0x60, protocol);
        error[4..6].copy_from_slice(&(octets - 40).to_be_bytes());
    }
    (packet, error)
}

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (size, problem, packet) = input;
    let _ = TooBig::parse(packet);
    let (packet, about) = if packet.len() >= 40 { checked(packet, size) } else { (packet.to_vec(), vec![]) };
    if let Some(read) = TooBig::parse(&about) {
        assert!(read.src.v4 || read.mtu >= 1280); // RFC 8201 §4
    }
    let packet = &packet[..];
    let v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let from = Addr { bits: 0x0a00_0001, v4 };
    let problems = [
        Problem::TooBig { mtu: size },
        Problem::HopLimit,
        Problem::ReassemblyTime,
        Problem::Prohibited,
        Problem::Unreachable,
    ];
    let problem = problems[problem as usize % problems.len()];
    let mut out = [0; MOST_V6];
    if let Some(len) = emit(problem, from, packet, &mut out) {
        assert!(len <= if v4 { MOST_V4 } else { MOST_V6 });
        let error = &out[..len];
        assert!(Ip::parse(error).is_ok_and(|ip| ip.len() == len));
        if let Some(read) = TooBig::parse(error) {
            assert!(matches!(problem, Problem::TooBig { .. }) && read.mtu >= 68);
        }
        assert_eq!(emit(problem, from, error, &mut [0; MOST_V6]), None);
    }
    let mut segment = packet.to_vec();
    if mss::clamp(&mut segment, size) == Ok(true) {
        assert_ne!(segment, packet);
        assert_eq!(mss::clamp(&mut segment, size), Ok(false));
    }
});
