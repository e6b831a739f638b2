//! What it costs to put headers and trailer round a packet, and to take them off, without the crypto.

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_benches::sample;
use portcullis_datapath::{
    esp::{self, OuterHeader},
    wire::{ETHERNET, Ip},
};
use portcullis_sadb::Algorithm;

fn benchmark(c: &mut Criterion) {
    let mut cache = sample::pool().cache();
    let sa = sample::sa(Algorithm::AES_GCM_128);
    let mut outer = OuterHeader::new(&sa);
    let mut frame = sample::clear(&mut cache, 64);
    frame.pull(ETHERNET);
    let (at, inner) = (frame.offset(), Ip::parse(frame.bytes()).expect("an IP packet"));
    let mut seq = 0;
    c.bench_function("esp/encap", |b| {
        b.iter(|| {
            seq += 1;
            frame.reset(at);
            assert!(frame.extend(inner.len()));
            outer.encap(&mut frame, &inner, sa.spi.0, seq).expect("room for the headers");
        })
    });

    let (mut frame, outer) = sample::encapsulated(&mut cache, 64);
    let (at, len, proof, mut ip) = (frame.offset(), frame.len(), sample::proof(), Ip::NONE);
    c.bench_function("esp/decap", |b| {
        b.iter(|| {
            frame.reset(at);
            assert!(frame.extend(len));
            esp::decap(&mut frame, outer.text(), 0, &mut ip, proof).expect("what was encapsulated")
        })
    });
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
