//! What the turns of a worker take: clock by clock, or from the first to the last by the clock on the wall.

use portcullis_perf::{clock, clocks::HOPS, gateway::Engine};
use std::time::{Duration, Instant};

/// A turn that takes so many times the median was interrupted: it is not counted.
const INTERRUPTED: u64 = 4;

/// How a part is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gauge {
    /// The clocks of each turn.
    Clocks,
    /// The time of all turns: no clock is read between them.
    Wall,
}

/// What one direction of a part took, all workers together.
#[derive(Clone, Copy, Default, Debug)]
pub struct Took {
    /// Clocks of the turns that had packets. None by the wall.
    pub clocks: f64,
    /// Of each hop, if they ran one by one.
    pub hops: Option<[f64; HOPS]>,
    /// What all packets took at the rate of all workers: see [`Took::together`] and [`Took::apart`].
    pub wall: Duration,
}

impl Took {
    /// That of workers that hand each other packets: from the first one's start to the last one's end, each time that
    /// they began together.
    pub fn together(workers: &[Worked]) -> Took {
        let times = workers.iter().map(|w| w.spans.len()).max().unwrap_or(0);
        let span = |i: usize| {
            let spans = || workers.iter().filter_map(move |w| w.spans.get(i));
            let (start, end) = (spans().map(|s| s.0).min(), spans().map(|s| s.1).max());
            start.zip(end).map_or(Duration::ZERO, |(start, end)| end - start)
        };
        Took { wall: (0..times).map(span).sum(), ..Took::clocks_of(workers) }
    }

    /// That of workers that have nothing to do with each other, and began together: their rates add up. Who is done
    /// first would have gone on, had there been more for it.
    pub fn apart(workers: &[Worked], packets: &[u64]) -> Took {
        let time = |w: &Worked| w.spans.iter().map(|(start, end)| (*end - *start).as_secs_f64()).sum::<f64>();
        let busy = workers.iter().zip(packets).filter(|(_, packets)| **packets > 0);
        let rate: f64 = busy.map(|(w, packets)| *packets as f64 / time(w)).sum();
        let all = packets.iter().sum::<u64>() as f64;
        let wall = if rate > 0.0 { Duration::from_secs_f64(all / rate) } else { Duration::ZERO };
        Took { wall, ..Took::clocks_of(workers) }
    }

    fn clocks_of(workers: &[Worked]) -> Took {
        let clocks = workers.iter().map(|w| w.clocks).sum();
        Took { clocks, hops: workers.iter().find_map(|w| w.hops), wall: Duration::ZERO }
    }
}

/// What one worker did in one direction of a part.
pub struct Worked {
    clocks: f64,
    hops: Option<[f64; HOPS]>,
    spans: Vec<(Instant, Instant)>,
}

/// The turns of one worker.
#[derive(Default)]
pub struct Turns {
    whole: Vec<u64>,
    hops: Vec<[u64; HOPS]>,
    spans: Vec<(Instant, Instant)>,
}

impl Turns {
    /// Takes one turn. Those without a packet only wait for another worker.
    pub fn take(&mut self, engine: &mut Engine, gauge: Gauge, now_ms: u64) -> bool {
        if gauge == Gauge::Wall {
            return engine.turn(now_ms);
        }
        let start = clock::now();
        let busy = engine.turn(now_ms);
        if busy {
            self.whole.push(clock::now() - start);
        }
        if let Some(hops) = engine.take_clocks().filter(|_| busy) {
            self.hops.push(hops);
        }
        busy
    }

    /// The turns that had packets were taken one after the other between these.
    pub fn end(&mut self, start: Instant, end: Instant) {
        self.spans.push((start, end));
    }

    /// The clocks of all turns, as if none had been interrupted, and the spans they were taken in.
    pub fn sum(&mut self) -> Worked {
        let Turns { whole, hops, spans } = std::mem::take(self);
        let mut sorted = whole.clone();
        sorted.sort_unstable();
        let longest = sorted.get(sorted.len() / 2).map_or(0, |median| median * INTERRUPTED);
        let counted = |turn: &usize| whole[*turn] <= longest;
        let turns = (0..whole.len()).filter(counted);
        let scale = whole.len() as f64 / turns.clone().count().max(1) as f64;
        let sum = |of: &dyn Fn(usize) -> u64| turns.clone().map(of).sum::<u64>() as f64 * scale;
        let hop = |hop: usize| sum(&|turn| hops[turn][hop]);
        let clocks = sum(&|turn| whole[turn]);
        Worked { clocks, hops: (!hops.is_empty()).then(|| std::array::from_fn(hop)), spans }
    }
}
