//! Any packet is read as an ICMP error, answered with one that none is sent about, and its segment size lowered once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_datapath::{
    general::{
        icmp::{MOST_V4, MOST_V6, Problem, TooBig, emit},
        mss,
    },
    wire::{Addr, Ip},
};

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (size, problem, packet) = input;
    let _ = TooBig::parse(packet);
    let v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let from = Addr { bits: 0x0a00_0001, v4 };
    let problem =
        [Problem::TooBig { mtu: size }, Problem::HopLimit, Problem::ReassemblyTime, Problem::Prohibited]
            [problem as usize % 4];
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
