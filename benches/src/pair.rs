//! Two gateways in a box: what the left one seals the right one opens, part by part.
//!
//! A part is about a thousand packets, of flows picked at random. Frames are written before the clocks run: they
//! come from the cache that the cores share, as those of a NIC that writes there do. They are moved and never
//! copied, from the left gateway to the right one and then back to be written again.

use crate::{
    meeting::Meeting,
    path::{PART, Passed, Path, SLICE, Task},
    turns::{Gauge, Took, Worked},
};
use anyhow::{Result, ensure};
use clap::ValueEnum;
use portcullis_datapath::{frame::Frame, pool::FramePool};
use portcullis_perf::{
    gateway::{Gateway, Setup},
    traffic::{Random, Size},
};
use portcullis_sadb::Direction;
use std::{fmt, sync::Arc, time::Duration};

/// Octets of a part's packets, at most, of each worker.
const PART_OCTETS: f64 = 2.0 * 1024.0 * 1024.0;

/// At which worker packets arrive, as a NIC would steer them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Arrival {
    /// At the one that owns the SA: nothing is handed over, and who owns none gets nothing.
    Owner,
    /// Clear packets at any, and ESP at the one that owns the SA.
    Random,
    /// All at one: the owner of the first SA.
    One,
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arrival::Owner => "owner",
            Arrival::Random => "random",
            Arrival::One => "one",
        })
    }
}

/// What was measured in a part.
#[derive(Clone, Copy, Default, Debug)]
pub struct Part {
    /// Packets that went the whole way.
    pub packets: u64,
    /// The left gateway's.
    pub encap: Took,
    /// The right gateway's.
    pub decap: Took,
}

/// Frames that are written again and again, of each core. All pairs use the same ones: no pair has better memory.
pub type Stock = Vec<Vec<Frame>>;

/// Both gateways and what goes between them.
pub struct Pair {
    /// What it was made of.
    pub setup: Setup,
    arrival: Arrival,
    left: Gateway,
    right: Gateway,
    /// The path whose worker owns each SA.
    owners: Vec<u8>,
    paths: Vec<Path>,
    random: Random,
}

impl Pair {
    /// Both gateways, with all SAs in the tables of their workers.
    ///
    /// # Errors
    /// What there is no memory for.
    pub fn new(
        (setup, arrival): (Setup, Arrival),
        (pool, stock): (&Arc<FramePool>, &mut Stock),
        cores: &[usize],
        seed: u64,
    ) -> Result<Pair> {
        // All packets may belong to one worker.
        let room = 2 * PART * setup.workers as usize;
        let (left, left_lanes) = Gateway::new(&setup, Direction::Outbound, pool, room)?;
        let (right, right_lanes) = Gateway::new(&setup, Direction::Inbound, pool, room)?;
        let paths = left_lanes.into_iter().zip(right_lanes).zip(cores);
        let paths = paths.map(|((left, right), core)| Path::new(*core, left, right, pool.cache())).collect();
        let owners = left.owners(setup.workers);
        let random = Random::new(seed);
        let mut pair = Pair { setup, arrival, left, right, owners, paths, random };
        pair.meet(setup.sas, stock)?;
        Ok(pair)
    }

    /// Every flow once, for no clock to see what is only seldom so: a decision that is not made yet, or an SA that
    /// other pairs have pushed out of the cache.
    ///
    /// # Errors
    /// Packets that a worker lost.
    pub fn warm(&mut self, stock: &mut Stock) -> Result<()> {
        self.meet(self.setup.flows(), stock)
    }

    /// One part of packets of this size, each of a flow picked at random.
    ///
    /// # Errors
    /// Packets that a worker lost.
    pub fn run(&mut self, size: Size, gauge: Gauge, stock: &mut Stock) -> Result<Part> {
        let packets = PART.min((PART_OCTETS / size.mean()) as usize);
        let (sas, flows) = (self.setup.sas, self.setup.flows());
        for path in 0..self.paths.len() {
            self.paths[path].flows.clear();
            for _ in 0..if self.arrives(path) { packets } else { 0 } {
                let flow = self.pick(path, flows);
                if sas > flows {
                    let sa = self.pick(path, sas);
                    self.left.point(flow, sa)?;
                }
                self.paths[path].flows.push(flow);
            }
        }
        self.run_flows((&size.pattern(), gauge), stock)
    }

    /// Parts by the clock on the wall, till the workers were busy so long in each direction.
    ///
    /// # Errors
    /// Packets that a worker lost.
    pub fn run_for(&mut self, size: Size, busy: Duration, stock: &mut Stock) -> Result<Part> {
        let mut sum = Part::default();
        while sum.encap.wall.min(sum.decap.wall) < busy {
            let part = self.run(size, Gauge::Wall, stock)?;
            sum.packets += part.packets;
            sum.encap.wall += part.encap.wall;
            sum.decap.wall += part.decap.wall;
        }
        Ok(sum)
    }

    /// Sends a packet with each of the first `sas` SAs to every worker that its packets may come to. Each flow ends
    /// with its own SA, the first it could have.
    fn meet(&mut self, sas: u32, stock: &mut Stock) -> Result<()> {
        let (flows, paths) = (self.setup.flows(), self.paths.len());
        let (passes, at_a_time) = match self.arrival {
            Arrival::Owner => (1, PART * paths),
            Arrival::Random => (paths, PART * paths),
            Arrival::One => (1, PART),
        };
        for pass in 0..passes {
            let mut end = sas;
            while end > 0 {
                let start = end.saturating_sub(at_a_time as u32);
                self.paths.iter_mut().for_each(|path| path.flows.clear());
                for sa in start..end {
                    if sas > flows {
                        self.left.point(sa % flows, sa)?;
                    }
                    let path = match self.arrival {
                        Arrival::Owner => self.owner(sa),
                        Arrival::Random => (sa as usize + pass) % paths,
                        Arrival::One => self.owner(0),
                    };
                    self.paths[path].flows.push(sa % flows);
                }
                end = start;
                // By clocks, so that those of the hops are taken too and do not count later.
                self.run_flows((&[64], Gauge::Clocks), stock)?;
            }
        }
        Ok(())
    }

    fn owner(&self, sa: u32) -> usize {
        self.owners[sa as usize] as usize
    }

    /// Whether any packet arrives at this path.
    fn arrives(&self, path: usize) -> bool {
        match self.arrival {
            Arrival::Owner => (0..self.setup.flows()).any(|flow| self.owner(flow) == path),
            Arrival::Random => true,
            Arrival::One => self.owner(0) == path,
        }
    }

    /// A number below `n`, of a flow or an SA of which packets may come to this path. A flow and its SA have one owner.
    fn pick(&mut self, path: usize, n: u32) -> u32 {
        loop {
            let picked = self.random.below(n);
            if self.arrival != Arrival::Owner || self.owner(picked) == path {
                return picked;
            }
        }
    }

    fn run_flows(&mut self, (lengths, gauge): (&[u16], Gauge), stock: &mut Stock) -> Result<Part> {
        let swap = |(path, spare): (&mut Path, &mut Vec<Frame>)| std::mem::swap(&mut path.spare, spare);
        self.paths.iter_mut().zip(stock.iter_mut()).for_each(swap);
        // As the rings of a gateway that has run for a while: no prefetcher guesses the next chunk.
        self.paths.iter_mut().for_each(|path| self.random.shuffle(&mut path.spare));
        let sent: usize = self.paths.iter().map(|path| path.flows.len()).sum();
        let longest = self.paths.iter().map(|path| path.flows.len()).max().unwrap_or(0);
        let slice =
            if self.arrival == Arrival::Random && self.paths.len() > 1 { SLICE } else { longest.max(1) };
        let one = (self.arrival == Arrival::One).then(|| self.owner(0));
        let task = Task { lengths, slice, slices: longest.div_ceil(slice), one, gauge };
        let (task, meetings) = (&task, &[(); 2].map(|()| Meeting::new(self.paths.len())));
        let (first, others) = self.paths.split_first_mut().expect("a gateway has a worker");
        let passed: Vec<Passed> = std::thread::scope(|scope| {
            let others = others.iter_mut().zip(1..);
            let others: Vec<_> =
                others.map(|(path, me)| scope.spawn(move || path.run(me, task, meetings))).collect();
            let first = first.run(0, task, meetings);
            let others = others.into_iter().map(|thread| thread.join().expect("it ends as the first does"));
            std::iter::once(first).chain(others).collect()
        });
        self.paths.iter_mut().zip(stock.iter_mut()).for_each(swap);
        let packets: u64 = passed.iter().map(|p| p.packets).sum();
        let drops = (self.left.drops(), self.right.drops());
        ensure!(packets == sent as u64, "of {sent} packets {packets} arrived; dropped: {drops:?}");
        let each: Vec<u64> = passed.iter().map(|p| p.packets).collect();
        let (encap, decap): (Vec<_>, Vec<_>) = passed.into_iter().map(|p| (p.encap, p.decap)).unzip();
        let took = |workers: &[Worked]| match self.arrival {
            Arrival::Owner => Took::apart(workers, &each),
            Arrival::Random | Arrival::One => Took::together(workers),
        };
        Ok(Part { packets, encap: took(&encap), decap: took(&decap) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_datapath::{
        crypto::Aead,
        umem::{HugePages, Umem},
    };
    use portcullis_sadb::Algorithm;

    const SAS: u32 = 64;

    /// Packets that arrived at each of two workers, and that each has sealed.
    fn shares(arrival: Arrival, sas: u32) -> [(usize, usize); 2] {
        let pool = FramePool::new(Umem::new(8192, 4096, HugePages::Off).unwrap().0);
        let (algorithm, aead) = (Algorithm::AES_GCM_128, Aead::best());
        let setup = Setup { sas, workers: 2, metered: false, algorithm, aead, nat_t: false };
        let mut stock = vec![vec![], vec![]];
        let mut pair = Pair::new((setup, arrival), (&pool, &mut stock), &[0, 0], 1).unwrap();
        pair.warm(&mut stock).unwrap();
        let part = pair.run_for(Size::Octets(64), Duration::from_nanos(1), &mut stock).unwrap();
        let arrived: usize = pair.paths.iter().map(|path| path.flows.len()).sum();
        assert_eq!((part.packets, pair.left.drops(), pair.right.drops()), (arrived as u64, 0, 0));
        [0, 1].map(|i| (pair.paths[i].flows.len(), pair.paths[i].sealed))
    }

    #[test]
    fn nothing_is_handed_over_where_packets_arrive_at_the_owner() {
        assert_eq!(shares(Arrival::Owner, SAS), [(PART, PART); 2]);
        assert_eq!(shares(Arrival::Owner, 2), [(PART, PART); 2]);
        // An SA has one owner.
        assert_eq!(shares(Arrival::Owner, 1), [(PART, PART), (0, 0)]);
    }

    #[test]
    fn packets_that_arrive_at_random_are_sealed_by_the_owner() {
        let [(a, sealed_a), (b, sealed_b)] = shares(Arrival::Random, SAS);
        assert_eq!((a, b, sealed_a + sealed_b), (PART, PART, 2 * PART));
        assert_eq!(shares(Arrival::Random, 1), [(PART, 2 * PART), (PART, 0)]);
    }

    #[test]
    fn packets_that_arrive_at_one_are_nobody_elses() {
        let [(a, sealed_a), (b, sealed_b)] = shares(Arrival::One, SAS);
        assert_eq!((a, b, sealed_a + sealed_b), (PART, 0, PART));
        assert!(sealed_b > 0, "the other's SAs are used as well");
    }
}
