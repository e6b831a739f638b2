//! Any frame is classified, and what is then sliced by the offsets is inside of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_datapath::{
    classify::{Class, classify},
    wire::{self, Ip, UdpPorts},
};

fuzz_target!(|frame: &[u8]| {
    match classify(frame, &UdpPorts::default()) {
        Class::Esp { l3, esp, len, .. } => {
            let packet = &frame[l3 as usize..][..len as usize];
            assert!(packet[esp as usize..].len() >= wire::ESP);
        }
        Class::Clear { l3 } => {
            let mut packet = frame[l3 as usize..].to_vec();
            let ip = Ip::parse(&packet).expect("it was parsed before");
            ip.flow();
            if wire::decrement_ttl(&mut packet).is_ok() && ip.is_v4() {
                assert!(wire::ipv4_checksum_ok(&packet[..(packet[0] & 15) as usize * 4]));
            }
        }
        _ => {}
    }
});
