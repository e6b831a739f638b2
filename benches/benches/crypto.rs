//! What it costs to seal and to open a batch of 64 packets, all with one key and each with its own.

use arrayvec::ArrayVec;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use portcullis_benches::sample::{self, LENGTHS};
use portcullis_datapath::{
    crypto::{self, Aead, AeadKey, HEAD, ICV, Job},
    port::BURST,
};
use portcullis_sadb::Algorithm;

/// Jobs over texts, packet `i` with key `i` modulo the number of keys.
fn jobs<'a>(keys: &'a [AeadKey], texts: &'a mut [Vec<u8>]) -> ArrayVec<Job<'a>, BURST> {
    let job = |(i, text): (usize, &'a mut Vec<u8>)| {
        let iv = (i as u64).to_be_bytes();
        Job::new(&keys[i % keys.len()], iv, crypto::aad(1, i as u64, true), 16, text).expect("a packet")
    };
    texts.iter_mut().enumerate().map(job).collect()
}

fn benchmark(c: &mut Criterion) {
    for (name, algorithm) in [("128", Algorithm::AES_GCM_128), ("256", Algorithm::AES_GCM_256)] {
        let mut group = c.benchmark_group(format!("aes-gcm-{name}"));
        let sa = sample::sa(algorithm);
        for (keys, how) in [(1, "one key"), (BURST, "64 keys")] {
            let keys: Vec<_> = (0..keys).map(|_| sample::key(&sa)).collect();
            for len in LENGTHS {
                // What is sealed: the packet and its trailer, on a multiple of four octets.
                let text = (len as usize + 2).next_multiple_of(4);
                let mut texts = vec![vec![0; HEAD + text + ICV]; BURST];
                group.throughput(Throughput::Bytes((len as usize * BURST) as u64));
                group.bench_function(format!("seal/{len}, {how}"), |b| {
                    b.iter(|| Aead::best().seal(&mut jobs(&keys, &mut texts)))
                });
                let mut sealed = vec![vec![0; HEAD + text + ICV]; BURST];
                Aead::best().seal(&mut jobs(&keys, &mut sealed));
                group.bench_function(format!("open/{len}, {how}"), |b| {
                    let open = |texts: &mut Vec<Vec<u8>>| {
                        let mut verified = ArrayVec::<_, BURST>::new();
                        Aead::best().open(&mut jobs(&keys, texts), &mut verified);
                        assert!(verified.iter().all(Option::is_some));
                    };
                    b.iter_batched_ref(|| sealed.clone(), open, BatchSize::SmallInput)
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
