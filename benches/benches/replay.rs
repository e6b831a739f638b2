//! What the anti-replay window costs a packet that is new: in order, and a little out of order.

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_benches::sample;
use portcullis_datapath::replay::{ReplayWindow, Ring};
use std::hint::black_box;

fn benchmark(c: &mut Criterion) {
    let proof = sample::proof();
    let mut group = c.benchmark_group("replay");
    for size in [64, 1024, 65_536] {
        for (order, swap) in [("in order", 0), ("out of order", 7)] {
            let (mut ring, mut next) = (Ring::new(size), 0u64);
            let mut window = ReplayWindow::new(size, true, 0, &mut ring);
            group.bench_function(format!("{size}, {order}"), |b| {
                b.iter(|| {
                    next += 1;
                    // Within each 8 the last comes first.
                    let seq = window.infer(black_box((next ^ swap) as u32 + 8));
                    assert!(window.check(seq, &ring).is_ok() && window.commit(seq, &mut ring, proof).is_ok());
                })
            });
        }
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
