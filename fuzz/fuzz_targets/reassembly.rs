//! Fragments of two datagrams and any others, at any time: no more is held than may be, and what is whole is a packet.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use portcullis_datapath::{
    general::{
        From,
        fragment::fragments,
        reassembly::{LARGEST, Limits, Outcome, Reassembly},
    },
    wire::{self, Ip},
};

#[derive(Arbitrary, Debug)]
struct Step {
    ms: u16,
    v4: bool,
    id: bool,
    /// In units of 8 octets, so that fragments meet.
    offset: u8,
    more: bool,
    next: u8,
    data: Vec<u8>,
    raw: bool,
}

impl Step {
    fn packet(&self) -> Vec<u8> {
        if self.raw {
            return self.data.clone();
        }
        let (len, offset) = (self.data.len() as u16, self.offset as u16);
        let mut p = vec![];
        if self.v4 {
            p.extend([0x45, 0]);
            p.extend((20 + len).to_be_bytes());
            p.extend([0, self.id as u8]);
            p.extend((offset | (self.more as u16) << 13).to_be_bytes());
            p.extend([64, self.next, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = !wire::fold(wire::sum(&p));
            p[10..12].copy_from_slice(&checksum.to_be_bytes());
        } else {
            p.extend([0x60, 0, 0, 0]);
            p.extend((8 + len).to_be_bytes());
            p.extend([44, 64]);
            p.extend([0; 32]);
            p.extend([self.next, 0]);
            p.extend((offset << 3 | self.more as u16).to_be_bytes());
            p.extend([0, 0, 0, self.id as u8]);
        }
        p.extend(&self.data);
        p
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let limits = Limits { octets: 16 << 10, datagrams: 3, fragments: 6, v4_ms: 30_000, v6_ms: 60_000 };
    let mut reassembly = Reassembly::new(limits);
    let mut out = vec![0; LARGEST];
    let (mut now_ms, mut held, mut dropped) = (0, 0, 0);
    for step in steps {
        now_ms += step.ms as u64;
        reassembly.expire(now_ms, |expired| {
            if let Some(first) = expired.first {
                assert!(Ip::parse(first).is_ok_and(|ip| ip.len() == first.len()));
            }
        });
        match reassembly.insert(From::Clear, now_ms, &step.packet(), &mut out) {
            Outcome::Done(len) => {
                let ip = Ip::parse(&out[..len]);
                // An extension header behind the first fragment's may be broken.
                assert!(ip.is_ok_and(|ip| ip.len() == len) || out[0] >> 4 == 6);
                if let Ok(parts) = fragments(&out[..len], 576, 1) {
                    assert!(parts.map(|part| part.len()).all(|n| n <= 576));
                }
            }
            Outcome::Held => held += 1,
            Outcome::Refused(_) => {}
        }
        reassembly.drain_drops(|_, n| dropped += n);
        assert!(dropped <= held, "each fragment is dropped once");
        assert!(reassembly.octets() <= limits.octets && reassembly.datagrams() <= limits.datagrams);
    }
    reassembly.expire(u64::MAX, |_| {});
    assert_eq!((reassembly.octets(), reassembly.datagrams()), (0, 0));
});
