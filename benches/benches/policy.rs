//! What it costs to know what the policies say: of a flow that is cached, and of one that is looked up in an SPD
//! of 10,000.

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_datapath::policy::{Decision, FlowCache};
use portcullis_perf::gateway::{self, destination, flow_key};
use portcullis_sadb::{Algorithm, Direction, Sadb, Sizes};
use std::hint::black_box;

const POLICIES: u32 = 10_000;

fn benchmark(c: &mut Criterion) {
    let sizes = Sizes { max_sas: 1, max_policies: POLICIES };
    let (mut sadb, reader, _) = Sadb::heap(&sizes).expect("memory for an SPD");
    let sa = gateway::sa(0, Direction::Outbound, Algorithm::AES_GCM_128);
    let slot = sadb.publish(&sa).expect("room for one SA");
    for n in 0..POLICIES {
        let policy = gateway::policy(Direction::Outbound, destination(n), Some(slot));
        sadb.add_policy(&policy).expect("room for all policies");
    }
    let mut cache = FlowCache::new(sizes.max_policies);
    cache.turn(&reader);
    let mut group = c.benchmark_group("policy");
    let mut next = 0;
    for (name, flows) in [("cached", 32), ("uncached", POLICIES)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                next = (next + 1) % flows;
                let key = black_box(flow_key(next));
                let (_, decision) = cache.clear(&reader, cache.homes(&key), key);
                assert!(matches!(decision, Decision::Protect { .. }));
            })
        });
    }
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
