//! Any payloads in any order are read; and what a sender was given comes out as it went in.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use portcullis_datapath::general::aggfrag::{Receiver, Sender};
use std::collections::VecDeque;

#[derive(Arbitrary, Debug)]
enum Step {
    Push { v4: bool, octets: u16, fill: u8 },
    Send { octets: u8 },
    Forge { skip: u8, payload: Vec<u8> },
    GiveUp,
}

fn packet(v4: bool, octets: u16, fill: u8) -> Vec<u8> {
    let octets = 40 + octets % 4000;
    let mut p = vec![fill; octets as usize];
    if v4 {
        p[0] = 0x45;
        p[2..4].copy_from_slice(&octets.to_be_bytes());
    } else {
        p[0] = 0x60;
        p[4..6].copy_from_slice(&(octets - 40).to_be_bytes());
    }
    p
}

fuzz_target!(|steps: Vec<Step>| {
    let mut sender = Sender::new(10_000, true);
    let mut receiver = Receiver::new(3, 512, 1);
    let mut any = Receiver::new(3, 512, 1);
    let (mut sent, mut forged) = (0, 0u64);
    let mut waiting = VecDeque::new();
    for step in steps {
        match step {
            Step::Push { v4, octets, fill } => {
                let packet = packet(v4, octets, fill);
                if sender.push(&packet).is_ok() {
                    waiting.push_back(packet);
                }
            }
            Step::Send { octets } => {
                sent += 1;
                let mut payload = vec![0xee; 4 + octets as usize];
                sender.payload(None, &mut payload);
                let each = |got: &[u8]| assert_eq!(Some(got), waiting.pop_front().as_deref());
                assert_eq!(receiver.accept(sent, &payload, each), Ok(()));
                let _ = any.accept(forged, &payload, |_| {});
            }
            Step::Forge { skip, payload } => {
                forged = (forged + skip as u64).saturating_sub(4);
                let _ = any.accept(forged, &payload, |got| assert!(got.len() >= 20));
            }
            Step::GiveUp => any.give_up(|got| assert!(got.len() >= 20)),
        }
    }
    receiver.drain_drops(|reason, n| panic!("{n} {reason:?}"));
});
