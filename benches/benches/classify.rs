//! What it costs to see what a frame is: clear, or ESP for an SA.

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_benches::sample;
use portcullis_datapath::{
    classify::classify,
    wire::{ETHERNET, UdpPorts},
};
use std::hint::black_box;

fn benchmark(c: &mut Criterion) {
    let mut cache = sample::pool().cache();
    let clear = sample::clear(&mut cache, 64);
    let (mut esp, _) = sample::encapsulated(&mut cache, 64);
    assert!(esp.push(ETHERNET));
    esp.bytes_mut()[..ETHERNET].copy_from_slice(&clear.bytes()[..ETHERNET]);
    let mut group = c.benchmark_group("classify");
    let ports = UdpPorts::default();
    for (name, frame) in [("clear", &clear), ("esp", &esp)] {
        group.bench_function(name, |b| b.iter(|| classify(black_box(frame.bytes()), &ports)));
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
