//! Devices whose rates are known, since they are made up: what a search is tried on. They need no time.

use crate::{
    search::goal::Goal,
    trial::{Device, Load, Trial},
};
use std::{error::Error, f64::consts::TAU, time::Duration};

/// How a device behaves near its rate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Edge {
    /// All up to the rate passes, and nothing above it.
    Sharp,
    /// Loss begins at the rate and grows with the square of what is above it, until this part more than the rate passes.
    Soft(f64),
    /// Sharp, but in each trial somewhere else: normally distributed, and this is the deviation as a part of the rate.
    Noisy(f64),
    /// Sharp, but for pauses in which nothing passes: how many there are in a second, at random, and how long one is.
    Paused(f64, Duration),
}

/// A device that is made up.
#[derive(Clone, PartialEq, Debug)]
pub struct Simulated {
    /// Frames per second up to which nothing is lost, but for noise.
    pub rate: f64,
    /// What happens there.
    pub edge: Edge,
    random: Random,
}

impl Simulated {
    /// The same seed gives the same trials.
    pub fn new(rate: f64, edge: Edge, seed: u64) -> Simulated {
        Simulated { rate, edge, random: Random(seed) }
    }

    /// The load above which more than half of all full-length trials lose more than the goal allows, that is, the one that
    /// a search for a goal with an exceed ratio of one half should find.
    pub fn rate_for(&self, goal: &Goal) -> Load {
        let (mut lower, mut upper) = (0.0, 4.0 * self.rate / (1.0 - goal.loss_ratio));
        for _ in 0..64 {
            let middle = (lower + upper) / 2.0;
            let holds = self.typical(Load(middle), goal.final_duration).loss_ratio() <= goal.loss_ratio;
            *if holds { &mut lower } else { &mut upper } = middle;
        }
        Load(lower)
    }

    /// The trial at the median of all noise. Pauses are rarer than one in every other trial.
    fn typical(&self, load: Load, duration: Duration) -> Trial {
        self.pass(load, duration, self.rate, 0)
    }

    /// A trial in which up to `rate` passes, but for pauses.
    fn pass(&self, load: Load, duration: Duration, rate: f64, pauses: u32) -> Trial {
        let above = (load.0 - rate).max(0.0);
        let (lost, pause) = match self.edge {
            Edge::Soft(part) => {
                // The square grows until it is as steep as what is above, and all that is more is lost.
                let span = 2.0 * part * rate;
                let square = above.min(span);
                (square * square / (2.0 * span) + (above - square), Duration::ZERO)
            }
            Edge::Paused(_, pause) => (above, pause),
            Edge::Sharp | Edge::Noisy(_) => (above, Duration::ZERO),
        };
        let secs = duration.as_secs_f64();
        let open = (secs - f64::from(pauses) * pause.as_secs_f64()).max(0.0);
        let sent = (load.0 * secs) as u64;
        let passed = ((load.0 - lost) * open).round() as u64;
        Trial { offered: load, sent, received: passed.min(sent), duration, taken: duration }
    }
}

impl Device for Simulated {
    fn trial(&mut self, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
        let (mut rate, mut pauses) = (self.rate, 0);
        match self.edge {
            Edge::Noisy(deviation) => rate *= 1.0 + deviation * self.random.normal(),
            Edge::Paused(per_second, _) => pauses = self.random.poisson(per_second * duration.as_secs_f64()),
            Edge::Sharp | Edge::Soft(_) => {}
        }
        Ok(self.pass(load, duration, rate, pauses))
    }
}

/// SplitMix64: the same numbers each time.
#[derive(Clone, PartialEq, Debug)]
struct Random(u64);

impl Random {
    /// Above zero, and at most one.
    fn part(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.part().ln()).sqrt() * (TAU * self.part()).cos()
    }

    /// How many of what happens so often on average.
    fn poisson(&mut self, mean: f64) -> u32 {
        let (mut events, mut waited) = (0, -self.part().ln());
        while waited < mean {
            events += 1;
            waited -= self.part().ln();
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 1e7;
    const SECOND: Duration = Duration::from_secs(1);

    fn loss(edge: Edge, load: f64) -> f64 {
        Simulated::new(RATE, edge, 1).trial(Load(load), SECOND).unwrap().loss_ratio()
    }

    #[test]
    fn a_sharp_edge_passes_its_rate() {
        assert_eq!(loss(Edge::Sharp, RATE), 0.0);
        assert_eq!(loss(Edge::Sharp, 2.0 * RATE), 0.5);
        assert!(loss(Edge::Sharp, RATE + 2.0) > 0.0);
    }

    #[test]
    fn a_soft_edge_loses_little_at_first_and_passes_at_most_so_much_more() {
        let edge = Edge::Soft(0.02);
        assert_eq!(loss(edge, RATE), 0.0);
        assert!((loss(edge, 1.01 * RATE) - 0.00125 / 1.01).abs() < 1e-6);
        assert!((loss(edge, 2.0 * RATE) - 0.98 / 2.0).abs() < 1e-6);
    }

    #[test]
    fn noise_is_as_wide_as_told_and_pauses_as_frequent() {
        let mut noisy = Simulated::new(RATE, Edge::Noisy(0.01), 2);
        let rates: Vec<f64> =
            (0..10_000).map(|_| noisy.trial(Load(2.0 * RATE), SECOND).unwrap().received as f64).collect();
        let mean = rates.iter().sum::<f64>() / 1e4;
        let deviation = (rates.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 1e4).sqrt();
        assert!((mean / RATE - 1.0).abs() < 0.001 && (deviation / RATE - 0.01).abs() < 0.001);

        let mut paused = Simulated::new(RATE, Edge::Paused(0.1, Duration::from_millis(5)), 3);
        let trials: Vec<_> = (0..10_000).map(|_| paused.trial(Load(RATE), SECOND).unwrap()).collect();
        let hit = trials.iter().filter(|t| t.loss_ratio() > 0.0).count() as f64 / 1e4;
        assert!((hit - (1.0 - f64::exp(-0.1))).abs() < 0.01, "{hit}");
        let one = trials.iter().find(|t| t.loss_ratio() > 0.0).unwrap();
        assert_eq!(one.received, 9_950_000);
    }

    #[test]
    fn what_a_search_should_find() {
        let of = |edge, goal| Simulated::new(RATE, edge, 1).rate_for(&goal).0 / RATE;
        for edge in [Edge::Sharp, Edge::Noisy(0.01), Edge::Paused(0.1, Duration::from_millis(5))] {
            assert!((of(edge, Goal::NDR) - 1.0).abs() < 1e-6);
            assert!((of(edge, Goal::PDR) - 1.0 / 0.995).abs() < 1e-6);
        }
        assert!((of(Edge::Soft(0.02), Goal::NDR) - 1.0).abs() < 2e-4);
        assert!((of(Edge::Soft(0.02), Goal::PDR) - 1.02).abs() < 2e-3);
    }
}
