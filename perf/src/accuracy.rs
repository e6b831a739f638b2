//! How far off a search is: simulated devices of many rates and seeds are searched for both goals, and what is found is
//! compared with what is known.

use crate::{
    search::{Search, goal::Goal},
    simulated::{Edge, Simulated},
    trial::Load,
};
use std::{error::Error, time::Duration};

/// Edges to try, and what to call them.
pub const EDGES: [(&str, Edge); 5] = [
    ("sharp", Edge::Sharp),
    ("soft, up to 2 % more", Edge::Soft(0.02)),
    ("noisy, deviation 0.3 %", Edge::Noisy(0.003)),
    ("paused, every 10 s for 5 ms", Edge::Paused(0.1, Duration::from_millis(5))),
    ("very noisy, deviation 1 %", Edge::Noisy(0.01)),
];

/// What came of the searches of one edge.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Accuracy {
    /// Searches.
    pub seeds: u64,
    /// How far off the lower bound or the conditional throughput of a goal was at worst, as a part of what it should be.
    pub worst: f64,
    /// Results that were irregular.
    pub irregular: u64,
    /// Trials of all searches.
    pub trials: usize,
    /// Simulated time of all searches.
    pub taken: Duration,
    /// And of the longest.
    pub longest: Duration,
}

impl Accuracy {
    /// Searches so many devices of rates from 100,000 to 10,000,000 frames per second, where a source can do 14.88 million.
    ///
    /// # Errors
    /// None that is expected: no simulated trial is void.
    pub fn of(edge: Edge, seeds: u64) -> Result<Accuracy, Box<dyn Error>> {
        let goals = vec![Goal::NDR, Goal::PDR];
        let search = Search { goals, min: Load(1e3), max: Load(14.88e6) };
        let mut sum = Accuracy { seeds, ..Accuracy::default() };
        for seed in 0..seeds {
            // Parts of the golden ratio are spread evenly, however many there are.
            let rate = 10f64.powf(5.0 + 2.0 * (seed as f64 * 0.618_034).fract());
            let mut device = Simulated::new(rate, edge, seed);
            let found = search.run(&mut device, &mut |_| {})?;
            for result in &found.results {
                let bound = device.rate_for(&result.goal).0;
                let throughput = bound * (1.0 - result.goal.loss_ratio);
                let off = |found: Option<f64>, known: f64| found.map_or(1.0, |f| (f / known - 1.0).abs());
                let off =
                    off(result.bounds.lower.map(|l| l.0), bound).max(off(result.throughput, throughput));
                sum.worst = sum.worst.max(off);
                sum.irregular += u64::from(!result.is_regular());
            }
            sum.trials += found.trials.count();
            sum.taken += found.trials.taken();
            sum.longest = sum.longest.max(found.trials.taken());
        }
        Ok(sum)
    }
}
