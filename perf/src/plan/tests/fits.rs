//! Fits find what samples were made of.

use super::*;
use crate::plan::{
    fit::FitError,
    model::Point,
    predictions::Predictions,
    profile::{ProfileError, Sample},
    shares::Sizes,
};

/// Numbers that look random (SplitMix64).
struct Noise(u64);

impl Noise {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Of a normal distribution, nearly.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

const SIZES: [&str; 10] = ["64", "128", "200", "256", "400", "576", "1024", "1400", "9000", "imix"];
const SAS: [u32; 4] = [1, 100, 1000, 10_000];

/// What the samples are made of.
fn truth() -> Model {
    certain(&[
        (Per::Packet, 120.0),
        (Per::ShortOctet, 0.4),
        (Per::LongOctet, 0.25),
        (Per::LongPacket, 25.0),
        (Per::Chunk { octets: 4000 }, 300.0),
        (Per::OtherSize, 30.0),
        (Per::ManySas { from: 1, to: 100, open: false }, 15.0),
        (Per::ManySasOctets { from: 1, to: 100, open: false }, 5.0),
        (Per::ManySas { from: 100, to: 1000, open: false }, 40.0),
        (Per::ManySasOctets { from: 100, to: 1000, open: false }, 20.0),
        (Per::ManySas { from: 1000, to: 10_000, open: true }, 140.0),
        (Per::ManySasOctets { from: 1000, to: 10_000, open: true }, 90.0),
    ])
}

fn sample(sizes: &str, sas: u32, clocks: f64) -> Sample {
    Sample {
        algorithm: "aes-gcm-128".to_owned(),
        direction: Way::Encap,
        sizes: Sizes::parse(sizes).unwrap(),
        sas,
        workers: 1,
        port: MEMORY.to_owned(),
        batch: 64.0,
        clocks,
        spread: 0.02,
        hops: BTreeMap::new(),
    }
}

fn samples(noise: f64, seed: u64) -> Vec<Sample> {
    let (truth, mut random) = (truth(), Noise(seed));
    let all = SIZES.iter().flat_map(|sizes| SAS.map(|sas| sample(sizes, sas, 0.0)));
    let clocks = |mut s: Sample| {
        s.clocks = truth.predict(&s.point()).value * (1.0 + noise * random.normal());
        s
    };
    all.map(clocks).collect()
}

fn fit(samples: Vec<Sample>) -> Profile {
    Profile::fit(host().host, samples).unwrap()
}

/// How far two models are from each other, at points that are not among the samples.
fn farthest(a: &Model, b: &Model) -> f64 {
    let sizes = ["80", "170", "300", "700", "1200", "4500", "64:3,1400:1"].map(|s| Sizes::parse(s).unwrap());
    let points = sizes
        .iter()
        .flat_map(|sizes| [1.0, 30.0, 500.0, 8000.0].map(|sas| Point { sizes, sas, batch: 64.0 }));
    points.map(|p| (a.predict(&p).value / b.predict(&p).value - 1.0).abs()).fold(0.0, f64::max)
}

#[test]
fn without_noise_all_is_found() {
    let profile = fit(samples(0.0, 1));
    let model = &profile.paths[0].whole;
    for (found, made) in model.terms.iter().zip(&truth().terms) {
        assert_eq!(found.per, made.per);
        assert!((found.clocks / made.clocks - 1.0).abs() < 1e-6, "{found:?}, {made:?}");
    }
    assert!(profile.residuals().iter().all(|(_, off)| off.abs() < 1e-9));
    assert_eq!(model.reach, Reach { octets: (64, 9000), sas: (1, 10_000), mixed: true });
}

#[test]
fn with_noise_predictions_are_better_than_samples() {
    for seed in 1..=20 {
        let profile = fit(samples(0.02, seed));
        let off = farthest(&profile.paths[0].whole, &truth());
        assert!(off < 0.05, "seed {seed}: {off}");
    }
}

/// Of what is predicted with a chance of 95 %, about as much is so.
#[test]
fn intervals_hold_what_they_promise() {
    let (mut inside, mut all) = (0, 0);
    for seed in 1..=50 {
        let profile = fit(samples(0.03, seed));
        for other in samples(0.03, seed + 1000) {
            let known = profile.predict(("aes-gcm-128", Way::Encap), &other.sizes, (other.sas, 1), MEMORY);
            let clocks = known.unwrap().0;
            all += 1;
            inside += i32::from((clocks.low()..=clocks.high()).contains(&other.clocks));
        }
    }
    let part = f64::from(inside) / f64::from(all);
    assert!((0.90..0.985).contains(&part), "{part} of {all}");
}

#[test]
fn a_sample_that_was_disturbed_hardly_counts() {
    for seed in 1..=10 {
        let mut all = samples(0.01, seed);
        let quiet = fit(all.clone());
        // As if something else had run on the core, in three of 40.
        for (i, times) in [(3, 3.0), (14, 1.5), (27, 8.0)] {
            all[i].clocks *= times;
        }
        let off = farthest(&fit(all).paths[0].whole, &quiet.paths[0].whole);
        assert!(off < 0.03, "seed {seed}: {off}");
    }
}

#[test]
fn no_cost_is_negative() {
    // Faster with more SAs, by chance: they cost nothing then.
    let mut all = samples(0.0, 1);
    for s in all.iter_mut().filter(|s| s.sas == 10_000) {
        s.clocks *= 0.7;
    }
    let profile = fit(all);
    assert!(profile.paths[0].whole.terms.iter().all(|term| term.clocks >= 0.0));
}

#[test]
fn too_few_samples_are_refused() {
    let few = samples(0.0, 1).into_iter().take(3).collect();
    let error = Profile::fit(host().host, few).unwrap_err();
    let ProfileError::Fit { source: FitError::TooFew { have: 3, .. }, .. } = error else { panic!("{error}") };
    assert!(error.to_string().contains("measure more"), "{error}");
    let none = samples(0.0, 1).into_iter().map(|s| Sample { workers: 2, ..s }).collect();
    assert!(matches!(Profile::fit(host().host, none).unwrap_err(), ProfileError::NothingToCompare { .. }));
    let wrong = samples(0.0, 1).into_iter().map(|s| Sample { clocks: 0.0, ..s }).collect();
    let error = Profile::fit(host().host, wrong).unwrap_err();
    assert!(matches!(error, ProfileError::Fit { source: FitError::NotASample { .. }, .. }), "{error}");
}

#[test]
fn workers_ports_and_hops_are_found() {
    let mut all = samples(0.0, 1);
    for s in &mut all {
        s.hops.insert("crypto".to_owned(), s.clocks / 2.0);
    }
    let two = samples(0.0, 1).into_iter().map(|s| Sample {
        workers: 2,
        sas: s.sas * 2,
        clocks: s.clocks * 1.05,
        ..s
    });
    let two: Vec<Sample> = two.collect();
    let veth = all.iter().map(|s| {
        let clocks = s.clocks + 5000.0 + 0.5 * s.sizes.mean();
        Sample { port: "veth".to_owned(), clocks, hops: BTreeMap::new(), ..s.clone() }
    });
    let veth: Vec<Sample> = veth.collect();
    let profile = fit([all, two, veth].concat());
    let sizes = Sizes::only(300);
    let point = Point { sizes: &sizes, sas: 1.0, batch: 64.0 };
    let whole = profile.paths[0].whole.predict(&point).value;
    let (of_two, _) = profile.predict(("aes-gcm-128", Way::Encap), &sizes, (2, 2), MEMORY).unwrap();
    // There are fewer terms for it.
    assert!((of_two.value / whole - 1.05).abs() < 0.01, "{of_two:?} for {whole}");
    assert!((profile.paths[0].hops["crypto"].predict(&point).value / whole - 0.5).abs() < 1e-6);
    let (veth, _) = profile.predict(("aes-gcm-128", Way::Encap), &sizes, (1, 1), "veth").unwrap();
    assert!((veth.value - (whole + 5150.0)).abs() < 0.5, "{veth:?}");
    assert_eq!(profile.port_kinds(&[Way::Encap]), ["veth", MEMORY]);
}

/// Two threads of a core: what keeps it busy by itself takes the longer.
#[test]
fn workers_are_in_each_others_way_by_what_they_do() {
    let of_two = |s: &Sample, octets: f64| s.clocks + 20.0 + 0.3 * octets + 5.0 * (s.point().sas.ln());
    let all = samples(0.0, 1);
    let two = all.iter().filter(|s| !s.sizes.to_string().contains("imix")).map(|s| {
        let s = Sample { workers: 2, sas: s.sas * 2, ..s.clone() };
        Sample { clocks: of_two(&s, s.sizes.mean()), ..s }
    });
    let two: Vec<Sample> = two.collect();
    let profile = fit([all, two].concat());
    for (octets, sas) in [(100, 2), (300, 20), (1200, 2000)] {
        let sizes = Sizes::only(octets);
        let path = ("aes-gcm-128", Way::Encap);
        let (one, _) = profile.predict(path, &sizes, (sas / 2, 1), MEMORY).unwrap();
        let (told, _) = profile.predict(path, &sizes, (sas, 2), MEMORY).unwrap();
        let s = Sample { workers: 2, sas, ..sample(&octets.to_string(), 1, one.value) };
        let expected = of_two(&s, f64::from(octets));
        assert!((told.value / expected - 1.0).abs() < 0.005, "{octets}, {sas}: {told:?} for {expected}");
    }
    // Faster with two, by chance: they cost nothing then.
    let all = samples(0.01, 1);
    let two = all.iter().map(|s| Sample { workers: 2, sas: s.sas * 2, clocks: s.clocks * 0.99, ..s.clone() });
    let two: Vec<Sample> = two.collect();
    let profile = fit([all, two].concat());
    let [path] = &profile.paths[..] else { panic!() };
    for octets in [64, 1400, 9000] {
        let point = Point { sizes: &Sizes::only(octets), sas: 1.0, batch: 64.0 };
        let (extra, whole) = (path.workers[0].extra.predict(&point), path.whole.predict(&point));
        assert!(extra.value < 0.01 * whole.value, "{octets}: {extra:?} of {whole:?}");
    }
    // Few samples tell one cost.
    let all = samples(0.0, 1);
    let two = all.iter().take(3).map(|s| Sample {
        workers: 2,
        clocks: s.clocks + 50.0,
        sas: 2 * s.sas,
        ..s.clone()
    });
    let two: Vec<Sample> = two.collect();
    let profile = fit([all, two].concat());
    let [term] = &profile.paths[0].workers[0].extra.terms[..] else {
        panic!("{:?}", profile.paths[0].workers)
    };
    assert!((term.clocks - 50.0).abs() < 0.1, "{term:?}");
}

/// Ports of several workers cost more as well, by as much as the smallest packets do.
#[test]
fn workers_are_in_each_others_way_at_ports() {
    let all = samples(0.0, 1);
    let beside = |s: &Sample, workers, port: &str, more: f64| Sample {
        workers,
        sas: s.sas * workers,
        port: port.to_owned(),
        clocks: s.clocks + more,
        ..s.clone()
    };
    let of = |direction, times: f64| {
        let all = all.iter().map(move |s| Sample { direction, clocks: s.clocks * times, ..s.clone() });
        all.collect::<Vec<_>>()
    };
    let (encap, decap) = (of(Way::Encap, 1.0), of(Way::Decap, 2.0));
    let two = encap
        .iter()
        .map(|s| beside(s, 2, MEMORY, 60.0))
        .chain(decap.iter().map(|s| beside(s, 2, MEMORY, 10.0)));
    // Of four, measured to be less.
    let several: Vec<_> = two.chain(encap.iter().map(|s| beside(s, 4, MEMORY, 40.0))).collect();
    let veth: Vec<_> = encap.iter().map(|s| beside(s, 1, "veth", 5000.0)).collect();
    let profile = fit([encap, decap, several, veth].concat());
    let clocks = |direction, workers, port| {
        let sizes = Sizes::only(300);
        profile.predict(("aes-gcm-128", direction), &sizes, (workers, workers), port).unwrap().0.value
    };
    let more = |direction, workers| clocks(direction, workers, MEMORY) - clocks(direction, 1, MEMORY);
    for (direction, workers, expected) in
        [(Way::Encap, 2, 60.0), (Way::Encap, 4, 60.0), (Way::Encap, 8, 60.0), (Way::Decap, 2, 10.0)]
    {
        let more = more(direction, workers);
        assert!((more - expected).abs() < 0.5, "{direction} {workers}: {more}");
    }
    let of_ports = |workers| clocks(Way::Encap, workers, "veth") - clocks(Way::Encap, workers, MEMORY);
    let least = Point { sizes: &Sizes::only(64), sas: 1.0, batch: f64::INFINITY };
    let least = profile.paths[0].whole.predict(&least).value;
    assert!((of_ports(1) - 5000.0).abs() < 1.0);
    assert!((of_ports(2) / 5000.0 - (1.0 + 60.0 / least)).abs() < 0.01, "{} and {least}", of_ports(2));
}

#[test]
fn predictions_are_of_what_the_profile_was_not_made_of() {
    let profile = fit(samples(0.0, 1));
    let model = &profile.paths[0].whole;
    let other = |sizes: &str, sas, times: f64| {
        let s = sample(sizes, sas, 0.0);
        Sample { clocks: times * model.predict(&s.point()).value, ..s }
    };
    let measured =
        vec![other("64", 100, 9.0), other("200", 30, 1.1), other("800", 5000, 0.98), other("90", 1, 1.01)];
    let predictions = Predictions::new(&profile, measured.clone()).unwrap();
    assert_eq!(predictions.predictions.len(), 3, "the first is one that it was made of");
    let off = [predictions.median, predictions.worst].map(|off| (off * 1e6).round() / 1e6);
    assert_eq!(off, [0.02, 0.1]);
    let told = predictions.told();
    assert!(told.contains("-2.0 %") && told.contains("2.0 % off in the middle, 10.0 % at worst"), "{told}");
    let nothing = Predictions::new(&profile, measured[..1].to_vec()).unwrap_err();
    assert!(nothing.to_string().contains("measure other sizes"), "{nothing}");
    let nic = Sample { port: "nic".to_owned(), ..measured[1].clone() };
    let unknown = Predictions::new(&profile, vec![nic]).unwrap_err();
    assert!(unknown.to_string().contains("encap aes-gcm-128 over nic"), "{unknown}");
}
