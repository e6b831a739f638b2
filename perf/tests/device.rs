//! A pair of gateways in memory, as a device that trials are made of.

use portcullis_datapath::crypto::Aead;
use portcullis_perf::{
    device::{InMemory, Way},
    gateway::Setup,
    search::{Search, goal::Goal},
    traffic::Mix,
    trial::{Device, Load},
};
use portcullis_sadb::Algorithm;
use std::time::Duration;

const TRIAL: Duration = Duration::from_millis(20);

fn device(way: Way, sas: u32, mix: &str) -> InMemory {
    let (algorithm, aead) = (Algorithm::AES_GCM_128, Aead::best());
    let setup = Setup { sas, workers: 1, metered: false, algorithm, aead, nat_t: false };
    InMemory::new(&setup, way, &mix.parse::<Mix>().unwrap(), 1).unwrap()
}

#[test]
fn a_light_load_passes_whole_and_too_much_does_not() {
    for way in [Way::Encap, Way::Decap, Way::Both] {
        let mut device = device(way, 16, "64:3,1400");
        let light = device.trial(Load(10_000.0), TRIAL).unwrap();
        assert_eq!((light.sent, light.received, light.loss_ratio()), (200, 200, 0.0), "{way:?}");
        assert_eq!(device.latency().count(), 200);
        // More than the clock counts: no device does as much.
        let heavy = device.trial(Load(2e8), TRIAL).unwrap();
        assert_eq!(heavy.sent, 4_000_000, "{way:?}");
        assert!(heavy.loss_ratio() > 0.1, "{way:?}: {heavy:?}");
        let details = device.details();
        assert_eq!(details.drops, [0, 0], "what is lost is what the ring had no room for");
        // Before the gateway that opens there is a ring of its own.
        if way != Way::Decap {
            assert_eq!(details.sent.refused, heavy.sent - heavy.received, "{way:?}");
        }
        // And after that again.
        let light = device.trial(Load(10_000.0), TRIAL).unwrap();
        assert_eq!((light.sent, light.received), (200, 200), "{way:?}");
        let tally = device.details().received.tally;
        assert_eq!((tally.duplicates, tally.reordered, tally.stale), (0, 0, 0));
    }
}

#[test]
fn a_search_finds_its_rates() {
    let quick = Goal {
        initial_duration: TRIAL / 4,
        final_duration: TRIAL,
        duration_sum: 3 * TRIAL,
        width: 0.1,
        ..Goal::NDR
    };
    let goals = vec![quick.clone(), Goal { name: "PDR", loss_ratio: 0.005, ..quick }];
    let search = Search { goals, min: Load(1e4), max: Load(1e8) };
    let found = search.run(&mut device(Way::Both, 1, "1400"), &mut |_| {}).unwrap();
    let rates: Vec<_> =
        found.results.iter().map(|r| r.throughput.expect("what passes at the least load")).collect();
    assert!(rates.iter().all(|rate| (1e4 * 0.99..1e8).contains(rate)), "{rates:?}");
}

#[test]
fn no_load_is_no_trial() {
    let mut device = device(Way::Both, 1, "64");
    for (load, duration) in [(0.0, TRIAL), (-1.0, TRIAL), (f64::NAN, TRIAL), (1e6, Duration::ZERO)] {
        assert!(device.trial(Load(load), duration).is_err(), "{load} {duration:?}");
    }
}
