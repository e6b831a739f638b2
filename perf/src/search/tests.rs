//! Searches of devices whose rates are known.

use super::*;
use crate::{
    accuracy::{Accuracy, EDGES},
    simulated::{Edge, Simulated},
};

const LIMITS: (Load, Load) = (Load(1e3), Load(1.488e7));

fn both() -> Search {
    Search { goals: vec![Goal::NDR, Goal::PDR], min: LIMITS.0, max: LIMITS.1 }
}

fn search(search: &Search, device: &mut dyn Device) -> Found {
    search.run(device, &mut |_| {}).unwrap()
}

/// A device that passes what a function of load and seconds says.
struct Passes<F>(F);

impl<F: FnMut(f64, f64) -> f64> Device for Passes<F> {
    fn trial(&mut self, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
        let secs = duration.as_secs_f64();
        let (sent, received) = ((load.0 * secs) as u64, (self.0)(load.0, secs) as u64);
        Ok(Trial { offered: load, sent, received: received.min(sent), duration, taken: duration })
    }
}

#[test]
fn rates_are_found_within_half_a_percent_in_about_a_minute() {
    for (name, edge) in EDGES {
        let found = Accuracy::of(edge, 50).unwrap();
        assert_eq!(found.irregular, 0, "{name}: {found:?}");
        // A deviation of 1 % is more than 21 trials can average out: see the claim lab/search.
        let (off, secs) = if edge == Edge::Noisy(0.01) { (0.02, 300) } else { (0.005, 180) };
        assert!(found.worst <= off, "{name}: {found:?}");
        assert!(found.longest < Duration::from_secs(secs), "{name}: {found:?}");
        assert!(found.taken / 50 < Duration::from_secs(120), "{name}: {found:?}");
    }
}

#[test]
fn goals_share_trials() {
    let device = Simulated::new(4e6, Edge::Sharp, 1);
    let found = search(&both(), &mut device.clone());
    let apart = |goal| search(&Search { goals: vec![goal], ..both() }, &mut device.clone()).trials.count();
    assert!(found.trials.count() < apart(Goal::NDR) + apart(Goal::PDR));
    assert_eq!(found.results.iter().map(|r| r.trials).sum::<usize>(), found.trials.count());
    assert_eq!(found.results.iter().map(|r| r.taken).sum::<Duration>(), found.trials.taken());
}

#[test]
fn what_passes_at_most_is_the_throughput_with_and_without_loss() {
    let found = search(&both(), &mut Simulated::new(4e6, Edge::Sharp, 1));
    for result in &found.results {
        assert!((result.throughput.unwrap() / 4e6 - 1.0).abs() < 0.0025, "{result:?}");
    }
    assert!(found.results[0].bounds.lower.unwrap().0 <= 4e6);
    assert!(found.results[1].bounds.lower.unwrap().0 > 4e6);
}

#[test]
fn short_trials_come_first_and_full_length_ones_decide() {
    let found = search(&both(), &mut Simulated::new(4e6, Edge::Sharp, 1));
    let short = found.trials.iter().filter(|t| t.duration < Goal::NDR.final_duration).count();
    assert!(short > 1 && short < found.trials.count() / 2);
    for result in &found.results {
        let full = |load: Load| found.trials.0[&load].iter().filter(|t| t.duration.as_secs() == 1).count();
        assert!(full(result.bounds.lower.unwrap()) >= 11 && full(result.bounds.upper.unwrap()) >= 11);
    }
}

/// What a device buffers passes, too; in a trial of a tenth of a second it is ten times as large a part.
#[test]
fn buffers_deceive_short_trials_only() {
    let mut device = Passes(|load: f64, secs: f64| (load * secs).min(4e6 * secs + 1e5));
    let found = search(&both(), &mut device);
    let ndr = &found.results[0];
    assert!(ndr.is_regular());
    assert!((ndr.bounds.lower.unwrap().0 / 4.1e6 - 1.0).abs() < 0.005, "{ndr:?}");
}

/// A device that does less the more is asked of it, as of receive livelock: the first trial shows next to nothing.
#[test]
fn a_device_that_chokes_is_found() {
    let mut device = Passes(|load: f64, secs: f64| {
        secs * if load > 4e6 { (4e6 * (4e6 / load).powi(8)).max(1.0) } else { load }
    });
    let found = search(&both(), &mut device);
    for result in &found.results {
        assert!(
            result.is_regular() && (result.bounds.lower.unwrap().0 / 4e6 - 1.0).abs() < 0.005,
            "{result:?}"
        );
    }
    assert!(found.trials.taken() < Duration::from_secs(180), "{:?}", found.trials.taken());
}

#[test]
fn a_device_beyond_the_limits_has_an_irregular_result() {
    let found = search(&both(), &mut Simulated::new(2e7, Edge::Sharp, 1));
    for result in &found.results {
        assert_eq!(result.bounds, Bounds { lower: Some(LIMITS.1), upper: None });
        assert!(!result.is_regular());
        assert_eq!(result.throughput, Some(LIMITS.1.0));
    }
    let found = search(&both(), &mut Simulated::new(10.0, Edge::Sharp, 1));
    for result in &found.results {
        assert_eq!(result.bounds, Bounds { lower: None, upper: Some(LIMITS.0) });
        assert_eq!((result.is_regular(), result.throughput), (false, None));
    }
}

/// §4.10.2: one trial of 60 seconds, without loss, makes a lower bound.
#[test]
fn the_goal_of_rfc_2544() {
    let minute = Duration::from_secs(60);
    let goal = Goal {
        final_duration: minute,
        initial_duration: minute,
        duration_sum: minute,
        exceed_ratio: 0.0,
        ..Goal::NDR
    };
    let found = search(&Search { goals: vec![goal], ..both() }, &mut Simulated::new(4e6, Edge::Sharp, 1));
    assert!(found.results[0].is_regular());
    assert!(found.trials.iter().all(|t| t.duration == minute));
    assert_eq!(found.results[0].throughput, found.results[0].bounds.lower.map(|l| l.0));
}

#[test]
fn each_trial_is_told_with_the_time_that_is_left() {
    let mut told = Vec::new();
    let mut device = Simulated::new(4e6, Edge::Sharp, 1);
    let found = both().run(&mut device, &mut |p| told.push(*p)).unwrap();
    assert_eq!(told.len(), found.trials.count());
    assert!(told.iter().enumerate().all(|(n, p)| p.trials == n + 1));
    let (first, last) = (told[0], told[told.len() - 1]);
    assert_eq!(last.taken, found.trials.taken());
    assert!(last.left < Duration::from_secs(3), "{last:?}");
    assert!(first.left > last.taken / 2 && first.left < last.taken * 2, "{first:?} {last:?}");
}

#[test]
fn errors_name_what_is_wrong() {
    let error = |search: Search| {
        let mut device = Simulated::new(4e6, Edge::Sharp, 1);
        search.run(&mut device, &mut |_| {}).unwrap_err().to_string()
    };
    assert_eq!(error(Search { goals: vec![], ..both() }), "a search without goals");
    assert!(error(Search { min: LIMITS.1, max: LIMITS.0, ..both() }).contains("frames per second"));
    assert!(error(Search { min: Load(0.0), ..both() }).contains("above zero"));
    assert!(error(Search { max: Load(f64::NAN), ..both() }).contains("below the greatest"));
    let wide = Goal { width: 2.0, ..Goal::NDR };
    assert!(error(Search { goals: vec![wide], ..both() }).contains("width"));
}

#[test]
fn a_void_trial_ends_the_search() {
    struct Broken(u32);
    impl Device for Broken {
        fn trial(&mut self, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
            self.0 -= 1;
            if self.0 == 0 {
                return Err("the link is down".into());
            }
            Simulated::new(4e6, Edge::Sharp, 1).trial(load, duration)
        }
    }
    let error = both().run(&mut Broken(5), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "the link is down");
}
