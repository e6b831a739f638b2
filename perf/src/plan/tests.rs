//! Answers by profiles that are made by hand, whose numbers can be reckoned without a program.

mod fits;
mod growth;
mod questions;

use super::{
    answer::{Answer, answer},
    model::{Estimate, Model, Per, Reach, Term},
    profile::{
        FORMAT, Host, IkeCost, MEMORY, Machine, Memory, PathCost, PortCost, Profile, VERSION, Way,
        WorkersCost,
    },
    question::{Question, QuestionError},
    report::{self, Style},
    what_if::{Case, Vary, WhatIf},
};
use std::collections::BTreeMap;

/// A model that is certain.
fn certain(terms: &[(Per, f64)]) -> Model {
    let reach = Reach { octets: (28, 9000), sas: (1, 1_000_000), mixed: true };
    let covariance = vec![vec![0.0; terms.len()]; terms.len()];
    let terms = terms.iter().map(|(per, clocks)| Term { per: *per, clocks: *clocks }).collect();
    Model { terms, covariance, noise: 0.0, freedom: 100, reach }
}

fn path(algorithm: &str, direction: Way, terms: &[(Per, f64)]) -> PathCost {
    let (whole, hops) = (certain(terms), BTreeMap::new());
    PathCost { algorithm: algorithm.to_owned(), direction, whole, hops, workers: vec![] }
        .in_the_way(&[(64, 1.0)])
}

impl PathCost {
    /// With so many workers so many times the clocks of one.
    fn in_the_way(mut self, factors: &[(u32, f64)]) -> PathCost {
        let of_several = |(workers, factor): &(u32, f64)| {
            let more = |term: &Term| (term.per, term.clocks * (factor - 1.0));
            let more: Vec<_> = self.whole.terms.iter().map(more).collect();
            WorkersCost { workers: *workers, extra: certain(&more) }
        };
        self.workers = factors.iter().map(of_several).collect();
        self
    }
}

/// A host of 1 GHz, on which packets take 100 clocks to be sealed and 200 to be opened, by AES-256 twice as many.
fn host() -> Profile {
    let machine = Machine {
        cpu: "made by hand".to_owned(),
        clocks_per_sec: 1e9,
        kernel: "0".to_owned(),
        crypto: "none".to_owned(),
        portcullis: "0".to_owned(),
    };
    let memory = Memory {
        fixed: Some(1_000_000),
        per_queue: 10_000,
        per_worker: 2000,
        per_sa: 500,
        per_sa_of_owner: 300,
        per_sa_and_worker: 40,
        per_tunnel: Some(4000),
        touched_by_packet: 100,
    };
    let ike = IkeCost {
        key_exchange: "curve25519".to_owned(),
        authentication: "psk".to_owned(),
        set_up_us: Estimate { value: 900.0, give_or_take: 100.0 },
        rekey_us: Estimate::certain(500.0),
    };
    let host = Host { machine, batch: 64.0, chunk: 4000, memory, ike: vec![ike] };
    let paths = vec![
        path("aes-gcm-128", Way::Encap, &[(Per::Packet, 100.0)]),
        path("aes-gcm-128", Way::Decap, &[(Per::Packet, 200.0)]),
        path("aes-gcm-256", Way::Encap, &[(Per::Packet, 200.0)]),
        path("aes-gcm-256", Way::Decap, &[(Per::Packet, 400.0)]),
    ];
    Profile { format: FORMAT.to_owned(), version: VERSION, host, paths, ports: vec![], samples: vec![] }
}

fn ask(profile: &Profile, options: &[(&str, &str)]) -> Result<Answer, QuestionError> {
    answer(&Question::new([("utilisation", "100%")].iter().chain(options).copied())?, profile)
}

fn demand(answer: &Answer, name: &str) -> f64 {
    answer.each_box.resources.iter().find(|r| r.name == name).unwrap().demand
}

fn near(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < 1e-9
}

#[test]
fn clocks_are_cores() {
    let encap = [("rate", "35Mpps"), ("direction", "encap"), ("tunnels", "10")];
    let a = ask(&host(), &encap).unwrap();
    assert_eq!((a.boxes, a.each_box.workers, a.each_box.other_cores, a.fits), (1, 4, 1, true));
    assert!(near(a.each_box.busy_workers.value, 3.5));
    // Both ways: 300 clocks for a packet each way.
    let both = ask(&host(), &[("rate", "35Mpps"), ("tunnels", "10")]).unwrap();
    assert!(near(both.each_box.busy_workers.value, 10.5));
    // A quarter by AES-256.
    let mix = ask(&host(), &[&encap[..], &[("algorithm", "aes-gcm-128:3,aes-gcm-256:1")]].concat()).unwrap();
    assert!(near(mix.each_box.busy_workers.value, 3.5 * 1.25));
    // No more than 80 % of a core.
    let calm = ask(&host(), &[&encap[..], &[("utilisation", "80%")]].concat()).unwrap();
    assert_eq!(calm.each_box.workers, 5);
    assert!((calm.full_at.packets_per_sec / (0.8 * 64.0 * 1e7) - 1.0).abs() < 1e-6);
}

#[test]
fn rates_are_of_inner_or_outer_packets() {
    let rate = |of| ask(&host(), &[("rate", "8Gbit/s"), ("sizes", "62"), ("of", of)]).unwrap().traffic;
    // 62 octets and their trailer are 64: with IPv4, ESP, IV and ICV 116.
    let (inner, outer) = (rate("inner"), rate("outer"));
    assert!(near(inner.packets_per_sec, 1e9 / 62.0) && near(inner.outer_bits_per_sec, 8e9 / 62.0 * 116.0));
    assert!(near(outer.packets_per_sec, 1e9 / 116.0) && near(outer.inner_bits_per_sec, 8e9 / 116.0 * 62.0));
    // Frames of 80 and 134 octets with their FCS, and 20 between them.
    assert!(near(inner.clear_wire_bits_per_sec, 8e9 / 62.0 * 100.0));
    assert!(near(inner.esp_wire_bits_per_sec, 8e9 / 62.0 * 154.0));
}

#[test]
fn more_boxes_and_spare_ones() {
    let few = [("rate", "95Mpps"), ("direction", "encap"), ("tunnels", "1000"), ("cores", "5")];
    // 9.5 cores of 4 for workers in each box.
    let a = ask(&host(), &few).unwrap();
    assert_eq!((a.boxes, a.spare_boxes, a.each_box.workers, a.binds), (3, 0, 4, "worker cores"));
    // One of them has 334 tunnels.
    assert!((a.full_at.packets_per_sec / (40e6 / 0.334) - 1.0).abs() < 1e-6, "{:?}", a.full_at);
    let spare = ask(&host(), &[&few[..], &[("headroom", "n+2")]].concat()).unwrap();
    assert_eq!((spare.boxes, spare.spare_boxes), (5, 2));
    let more = ask(&host(), &[&few[..], &[("headroom", "1.5")]].concat()).unwrap();
    assert_eq!((more.boxes, more.traffic.packets_per_sec), (4, 142.5e6));
    let given = ask(&host(), &[&few[..], &[("boxes", "2")]].concat()).unwrap();
    assert_eq!((given.boxes, given.fits), (2, false));
    assert!((given.full_at.packets_per_sec / 80e6 - 1.0).abs() < 1e-6);
}

/// Each resource in turn is the one of which a box has too little.
#[test]
fn the_first_that_is_full_is_named() {
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("worker cores", &[("cores", "9")]),
        ("iked's cores", &[("cores", "16"), ("new-tunnels", "14000")]),
        ("SAs", &[("cores", "16"), ("tunnels", "500000")]),
        ("memory", &[("cores", "16"), ("memory", "2MB")]),
        ("memory bandwidth", &[("cores", "16"), ("memory-bandwidth", "9GB/s")]),
        ("PCIe out of memory", &[("cores", "16"), ("pcie", "1x8")]),
        ("PCIe into memory", &[("cores", "16"), ("pcie", "1x8"), ("direction", "decap")]),
        ("ports on the ESP side", &[("cores", "16"), ("port-speed", "10Gbit/s"), ("ports", "1")]),
    ];
    for (binds, options) in cases {
        let usual = [("rate", "5Mpps"), ("sizes", "100"), ("direction", "encap"), ("tunnels", "100")];
        let a = ask(&host(), &[&usual[..], options].concat()).unwrap();
        assert_eq!((a.binds, a.fits), (*binds, true), "{options:?}: {:#?}", a.each_box.resources);
    }
}

#[test]
fn each_resource_is_counted() {
    let options = [
        ("rate", "10Mpps"),
        ("sizes", "62"),
        ("tunnels", "1000"),
        ("new-tunnels", "100"),
        ("rekey", "1000s"),
        ("port-speed", "10Gbit/s"),
        ("pcie", "4x16"),
    ];
    let a = ask(&host(), &options).unwrap();
    assert!(near(demand(&a, "worker cores"), 3.0));
    assert_eq!(a.each_box.workers, 3);
    // 100 set-ups of at most 1000 us, and a rekey each second of 500 us.
    assert!(near(demand(&a, "iked's cores"), 0.1 + 0.0005));
    // Two for each tunnel, and their successors.
    assert_eq!(demand(&a, "SAs"), 4000.0);
    // Frames of 80 and 134 octets and what is between: 8 and 12.32 Gbit/s.
    assert!(near(demand(&a, "ports on the clear side"), 0.8));
    assert!(near(demand(&a, "ports on the ESP side"), 1.232));
    assert_eq!(a.each_box.ports, Some(2));
    // Of 3 workers, 2 ports on 2 sides.
    let memory =
        1e6 + 10_000.0 * 12.0 + 2000.0 * 3.0 + 4000.0 * (500.0 + 300.0 + 40.0 * 3.0) + 4000.0 * 1000.0;
    assert_eq!(demand(&a, "memory"), memory);
    // A frame is written, read, written and read, and its SA touched, both ways.
    assert!(near(demand(&a, "memory bandwidth"), 2.0 * 1e7 * (2.0 * (80.0 + 134.0) + 100.0)));
    let over = 2.0 * (24.0 + 32.0 + 24.0) + 80.0 + 134.0;
    assert!(
        near(demand(&a, "PCIe into memory"), 1e7 * over)
            && near(demand(&a, "PCIe out of memory"), 1e7 * over)
    );
}

#[test]
fn workers_share_sas_and_are_in_each_others_way() {
    let mut profile = host();
    let many = Per::ManySas { from: 10, to: 1000, open: true };
    let encap = path("aes-gcm-128", Way::Encap, &[(Per::Packet, 100.0), (many, 100.0)]);
    profile.paths[0] = encap.in_the_way(&[(2, 1.1), (8, 1.3)]);
    let clocks = |sas, workers| {
        let sizes = super::shares::Sizes::only(64);
        profile.predict(("aes-gcm-128", Way::Encap), &sizes, (sas, workers), MEMORY).unwrap()
    };
    assert!(near(clocks(1000, 1).0.value, 200.0) && clocks(1000, 1).1.is_empty());
    assert!(near(clocks(2000, 2).0.value, 220.0));
    // Half of the way in the logarithm: of SAs, and of workers.
    assert!(near(clocks(400, 4).0.value, 150.0 * 1.2));
    assert!(near(clocks(80, 8).0.value, 130.0));
    // What was measured of more workers goes on, and is a guess.
    let (more, guesses) = clocks(320, 32);
    assert!(near(more.value, 100.0 * 1.5), "{more:?}");
    assert!(guesses.iter().any(|g| g.contains("32 workers")), "{guesses:?}");
}

#[test]
fn ports_cost_what_they_do() {
    let mut profile = host();
    profile.ports = [Way::Encap, Way::Decap]
        .map(|direction| PortCost {
            kind: "veth".to_owned(),
            direction,
            extra: certain(&[(Per::Packet, 1000.0), (Per::ShortOctet, 1.0)]),
        })
        .to_vec();
    let busy = |port| {
        let options = [("rate", "1Mpps"), ("sizes", "100"), ("direction", "encap")];
        let options = options.into_iter().chain(port);
        ask(&profile, &options.collect::<Vec<_>>()).unwrap()
    };
    let (veth, memory) = (busy(None), busy(Some(("port", "memory"))));
    assert_eq!((veth.port.as_str(), memory.port.as_str()), ("veth", "memory"));
    assert!(near(veth.each_box.busy_workers.value, 1.2) && near(memory.each_box.busy_workers.value, 0.1));
    assert!(memory.notes.iter().any(|n| n.contains("ports in memory")));
}

/// `perf/calibrate` measures over veth what is sealed.
#[test]
fn ports_are_of_each_direction() {
    let mut profile = host();
    let extra = certain(&[(Per::Packet, 1000.0)]);
    profile.ports = vec![PortCost { kind: "veth".to_owned(), direction: Way::Encap, extra }];
    let answer = |direction, port: &[_]| {
        ask(&profile, &[&[("rate", "1Mpps"), ("direction", direction)], port].concat())
    };
    let port = |direction| answer(direction, &[]).unwrap().port;
    assert_eq!(["both", "decap", "encap"].map(port), ["memory", "memory", "veth"]);
    for direction in ["both", "decap"] {
        let error = answer(direction, &[("port", "veth")]).unwrap_err().to_string();
        let told = "--port 'veth for decap': not in the profile, which has memory; ask for";
        assert!(error.starts_with(told), "{error}");
    }
    profile.paths.retain(|path| path.direction == Way::Encap);
    let error = ask(&profile, &[("rate", "1Mpps")]).unwrap_err().to_string();
    assert!(
        error.starts_with("--algorithm 'aes-gcm-128 for decap': not in the profile, which has none"),
        "{error}"
    );
}

#[test]
fn what_was_not_measured_is_said() {
    let mut profile = host();
    profile.paths[0].whole.reach = Reach { octets: (64, 1400), sas: (1, 1000), mixed: false };
    let guesses = |sizes, tunnels| {
        let options = [("rate", "1Mpps"), ("direction", "encap"), ("sizes", sizes), ("tunnels", tunnels)];
        ask(&profile, &options).unwrap().guesses
    };
    assert_eq!(guesses("64", "1000"), Vec::<String>::new());
    let far = guesses("64,9000", "5000");
    for word in ["64 to 9000 octets", "5000 SAs", "several sizes"] {
        assert!(far.iter().any(|g| g.contains(word)), "{word}: {far:?}");
    }
}

#[test]
fn boxes_are_for_the_upper_end() {
    let mut profile = host();
    profile.paths[0].whole.noise = 0.1;
    let a = ask(&profile, &[("rate", "10Mpps"), ("direction", "encap"), ("tunnels", "9")]).unwrap();
    assert!(near(a.each_box.busy_workers.value, 1.0) && a.each_box.workers == 2);
    // 100 samples more than terms: 1.985 standard deviations.
    assert!(near(a.paths[0].clocks.give_or_take, 1.985 * 10.0), "{:?}", a.paths[0].clocks);
}

#[test]
fn a_tunnel_is_in_one_box() {
    let heavy = [("rate", "100Mpps"), ("direction", "encap"), ("cores", "5")];
    let error = ask(&host(), &[&heavy[..], &[("tunnels", "2")]].concat()).unwrap_err();
    assert!(matches!(error, QuestionError::Impossible { resource: "worker cores", .. }), "{error}");
    assert!(error.to_string().contains("125 %"), "{error}");
    let a = ask(&host(), &[&heavy[..], &[("tunnels", "3")]].concat()).unwrap();
    assert_eq!(a.boxes, 3);
    assert!(a.notes.iter().any(|n| n.contains("per_cpu_sas")), "{:?}", a.notes);
    // One box of three would have two of four tunnels, and half of all traffic; of five two have no more than two fifths.
    let boxes = |tunnels| ask(&host(), &[&heavy[..], &[("tunnels", tunnels)]].concat()).unwrap();
    assert_eq!(["4", "5"].map(|tunnels| boxes(tunnels).boxes), [4, 3]);
    assert!(near(boxes("5").each_box.busy_workers.value, 4.0), "{:?}", boxes("5").each_box);
}

#[test]
fn what_if_varies_one_option_or_two() {
    let question =
        Question::new([("rate", "35Mpps"), ("direction", "encap"), ("cores", "5"), ("tunnels", "100")])
            .unwrap();
    let vary = |texts: &[&str]| {
        let vary = texts.iter().map(|text| Vary::parse(text).unwrap()).collect();
        WhatIf::new(&question, vary, &host())
    };
    let one = vary(&["rate=15Mpps 31Mpps 63Mpps"]).unwrap();
    let boxes = |w: &WhatIf| w.cases.iter().map(|c| c.answer.as_ref().unwrap().boxes).collect::<Vec<_>>();
    assert_eq!(boxes(&one), [1, 1, 2]);
    let two = vary(&["rate=15Mpps 63Mpps", "algorithm=aes-gcm-128 aes-gcm-256"]).unwrap();
    assert_eq!(boxes(&two), [1, 1, 2, 4]);
    let table = report::what_if(Style::Markdown, &two);
    assert!(table.contains("| rate \\ algorithm |") && table.contains("4 x 5, worker cores"), "{table}");
    // What cannot be in one case stands in it.
    let some = vary(&["tunnels=1 100", "rate=63Mpps"]).unwrap();
    assert!(
        matches!(some.cases[0].answer, Err(QuestionError::Impossible { .. })) && some.cases[1].answer.is_ok()
    );
    assert!(report::what_if(Style::Text, &some).contains("no number of boxes"));
    let cores = vary(&["other-cores=1 4 5 9"]).unwrap();
    let told = |case: &Case| case.answer.as_ref().map_or_else(|e| e.to_string(), |a| a.boxes.to_string());
    let told: Vec<String> = cores.cases.iter().map(told).collect();
    assert_eq!(told[..2], ["2", "5"]);
    assert!(
        told[2].starts_with("--other-cores '5': a box has 5") && told[3].starts_with("--other-cores '9'"),
        "{told:?}"
    );
    assert!(matches!(vary(&["wheels=4"]), Err(QuestionError::NoOption { .. })));
    assert!(Vary::parse("rate").unwrap_err().contains("no '='"));
    assert!(Vary::parse("rate= ").unwrap_err().contains("no values"));
}

#[test]
fn answers_are_text_markdown_and_json() {
    let options = [("rate", "35Mpps"), ("direction", "encap"), ("tunnels", "10"), ("headroom", "n+1")];
    let a = ask(&host(), &options).unwrap();
    let text = report::answer(Style::Text, &a);
    for part in [
        "2 boxes, 1 of them spare, each with 5 cores: 4 workers, as many queues of each port, 1 for all else.",
        "Full first: worker cores, at 640 Mpps",
        "made by hand, 1.000 GHz",
        "3.50 worker cores are busy, between 3.50 and 3.50",
    ] {
        assert!(text.contains(part), "'{part}' in\n{text}");
    }
    assert!(report::answer(Style::Markdown, &a).contains("## Each box\n\n| resource "));
    let json = serde_json::to_value(&a).unwrap();
    assert_eq!(json["each_box"]["workers"], 4);
    assert_eq!(json["each_box"]["resources"][0]["name"], "worker cores");
    assert_eq!(json["each_box"]["resources"][3]["capacity"], serde_json::Value::Null);
}
