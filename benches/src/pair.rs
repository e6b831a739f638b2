//! Two gateways in a box: what the left one seals the right one opens, part by part, with the clocks of each.
//!
//! A part is about a thousand packets, of flows picked at random. Frames are written before the clocks run: they
//! come from the cache that the cores share, as those of a NIC that writes there do. They are moved and never
//! copied, from the left gateway to the right one and then back to be written again.

use crate::{
    clock,
    clocks::HOPS,
    gateway::{Engine, Gateway, Lane, SOURCE, Setup, destination},
    traffic::{Random, Size, Template},
};
use anyhow::{Result, ensure};
use portcullis_datapath::{
    frame::Frame,
    handoff::INBOX,
    pool::{FrameCache, FramePool},
};
use portcullis_sadb::Direction;
use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Packets that each worker gets in a part, at most: what a ring of a port has.
pub const PART: usize = 1024;
/// Octets of them, at most.
const PART_OCTETS: f64 = 2.0 * 1024.0 * 1024.0;
/// Of these, packets that go in at a time: what another worker is handed must fit its inbox, however late it is.
const SLICE: usize = INBOX / 2;
/// Turns without a packet after which the rest is lost.
const PATIENCE: u32 = 10_000_000;
/// Turns without a packet after which the core is left to others.
const SPINS: u32 = 1000;
/// A turn that takes so many times the median was interrupted: it is not counted.
const INTERRUPTED: u64 = 4;

/// Clocks of one direction in a part, of all workers together.
#[derive(Clone, Copy, Default, Debug)]
pub struct Clocks {
    /// Of the turns that had packets.
    pub whole: f64,
    /// Of each hop, if they ran one by one.
    pub hops: Option<[f64; HOPS]>,
}

/// The clocks of each turn of one worker.
#[derive(Default)]
struct Turns {
    whole: Vec<u64>,
    hops: Vec<[u64; HOPS]>,
}

impl Turns {
    /// Takes one turn. Those without a packet only wait for another worker.
    fn take(&mut self, engine: &mut Engine, now_ms: u64) -> bool {
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

    /// The clocks of all turns, as if none had been interrupted.
    fn sum(&mut self) -> Clocks {
        let (whole, hops) = (std::mem::take(&mut self.whole), std::mem::take(&mut self.hops));
        let mut sorted = whole.clone();
        sorted.sort_unstable();
        let longest = sorted.get(sorted.len() / 2).map_or(0, |median| median * INTERRUPTED);
        let counted = |turn: &usize| whole[*turn] <= longest;
        let turns = (0..whole.len()).filter(counted);
        let scale = whole.len() as f64 / turns.clone().count().max(1) as f64;
        let sum = |of: &dyn Fn(usize) -> u64| turns.clone().map(of).sum::<u64>() as f64 * scale;
        let hop = |hop: usize| sum(&|turn| hops[turn][hop]);
        Clocks { whole: sum(&|turn| whole[turn]), hops: (!hops.is_empty()).then(|| std::array::from_fn(hop)) }
    }
}

/// What was measured in a part.
#[derive(Clone, Copy, Default, Debug)]
pub struct Part {
    /// Packets that went the whole way.
    pub packets: u64,
    /// The left gateway's.
    pub encap: Clocks,
    /// The right gateway's.
    pub decap: Clocks,
}

/// Frames that are written again and again, of each core. All pairs use the same ones: no pair has better memory.
pub type Stock = Vec<Vec<Frame>>;

/// Both gateways and what goes between them.
pub struct Pair {
    /// What it was made of.
    pub setup: Setup,
    left: Gateway,
    right: Gateway,
    paths: Vec<Path>,
    random: Random,
    parts: u64,
}

impl Pair {
    /// Both gateways, with all SAs in the tables of their workers.
    ///
    /// # Errors
    /// What there is no memory for.
    pub fn new(
        setup: Setup,
        (pool, stock): (&Arc<FramePool>, &mut Stock),
        cores: &[usize],
        seed: u64,
    ) -> Result<Pair> {
        // All packets may belong to one worker.
        let room = 2 * PART * setup.workers as usize;
        let (left, left_lanes) = Gateway::new(&setup, Direction::Outbound, pool, room)?;
        let (right, right_lanes) = Gateway::new(&setup, Direction::Inbound, pool, room)?;
        let paths = left_lanes.into_iter().zip(right_lanes).zip(cores).map(|((left, right), core)| Path {
            core: *core,
            left,
            right,
            template: Template::new(SOURCE),
            cache: pool.cache(),
            spare: vec![],
            flows: vec![],
            ready: vec![],
            turns: Turns::default(),
        });
        let mut pair =
            Pair { setup, left, right, paths: paths.collect(), random: Random::new(seed), parts: 0 };
        pair.warm(stock)?;
        Ok(pair)
    }

    /// One part of packets of this size, each of a flow picked at random.
    ///
    /// # Errors
    /// Packets that one worker lost.
    pub fn run(&mut self, size: Size, stock: &mut Stock) -> Result<Part> {
        let packets = PART.min((PART_OCTETS / size.mean()) as usize);
        let Setup { sas, .. } = self.setup;
        for path in 0..self.paths.len() {
            self.paths[path].flows.clear();
            for _ in 0..packets {
                let flow = self.random.below(self.setup.flows());
                if sas > self.setup.flows() {
                    self.left.point(flow, self.random.below(sas))?;
                }
                self.paths[path].flows.push(flow);
            }
        }
        self.run_flows(&size.pattern(), stock)
    }

    /// Meets every SA once, for the workers to have their keys expanded.
    fn warm(&mut self, stock: &mut Stock) -> Result<()> {
        let (flows, paths) = (self.setup.flows(), self.paths.len());
        let mut sa = 0;
        while sa < self.setup.sas {
            self.paths.iter_mut().for_each(|path| path.flows.clear());
            let end = self.setup.sas.min(sa + (PART * paths) as u32);
            for (i, sa) in (sa..end).enumerate() {
                self.left.point(sa % flows, sa)?;
                self.paths[i % paths].flows.push(sa % flows);
            }
            sa = end;
            self.run_flows(&[64], stock)?;
        }
        Ok(())
    }

    fn run_flows(&mut self, lengths: &[u16], stock: &mut Stock) -> Result<Part> {
        self.parts += 1;
        let swap = |(path, spare): (&mut Path, &mut Vec<Frame>)| std::mem::swap(&mut path.spare, spare);
        self.paths.iter_mut().zip(stock.iter_mut()).for_each(swap);
        // As the rings of a gateway that has run for a while: no prefetcher guesses the next chunk.
        self.paths.iter_mut().for_each(|path| self.random.shuffle(&mut path.spare));
        let sent: usize = self.paths.iter().map(|path| path.flows.len()).sum();
        let longest = self.paths.iter().map(|path| path.flows.len()).max().unwrap_or(0);
        let meeting = Meeting {
            paths: self.paths.len(),
            slices: longest.div_ceil(SLICE),
            arrived: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            sealed: AtomicUsize::new(0),
        };
        let (meeting, now_ms) = (&meeting, self.parts);
        let (first, others) = self.paths.split_first_mut().expect("a gateway has a worker");
        let parts = std::thread::scope(|scope| {
            let others: Vec<_> =
                others.iter_mut().map(|path| scope.spawn(|| path.run(lengths, meeting, now_ms))).collect();
            let first = first.run(lengths, meeting, now_ms);
            let others = others.into_iter().map(|thread| thread.join().expect("it ends as the first does"));
            std::iter::once(first).chain(others).collect::<Vec<_>>()
        });
        self.paths.iter_mut().zip(stock.iter_mut()).for_each(swap);
        let part = parts.into_iter().fold(Part::default(), Part::with);
        let drops = (self.left.drops(), self.right.drops());
        ensure!(
            part.packets == sent as u64,
            "of {sent} packets {} arrived; dropped: {drops:?}",
            part.packets
        );
        Ok(part)
    }
}

impl Part {
    /// This and another worker's.
    fn with(self, other: Part) -> Part {
        let both = |a: Clocks, b: Clocks| Clocks { whole: a.whole + b.whole, hops: a.hops.or(b.hops) };
        Part {
            packets: self.packets + other.packets,
            encap: both(self.encap, other.encap),
            decap: both(self.decap, other.decap),
        }
    }
}

/// Where the threads of a part wait for each other.
struct Meeting {
    paths: usize,
    slices: usize,
    /// How often a thread came here.
    arrived: AtomicUsize,
    /// Packets that went in at the left, and came out of it.
    sent: AtomicUsize,
    sealed: AtomicUsize,
}

impl Meeting {
    /// Returns when all threads have come here. It spins at first: a thread that is woken is late.
    fn wait(&self) {
        let before = self.arrived.fetch_add(1, Ordering::AcqRel);
        let (all, mut idle) = ((before / self.paths + 1) * self.paths, 0);
        while self.arrived.load(Ordering::Acquire) < all {
            pause(&mut idle);
        }
    }

    fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Relaxed) == self.sent.load(Ordering::Relaxed)
    }
}

fn pause(idle: &mut u32) {
    *idle += 1;
    if *idle > SPINS { std::thread::yield_now() } else { spin_loop() }
}

/// A worker of each gateway, on one core, and the frames that go round between them.
struct Path {
    core: usize,
    left: Lane,
    right: Lane,
    template: Template,
    cache: FrameCache,
    spare: Vec<Frame>,
    /// The next part's packets.
    flows: Vec<u32>,
    ready: Vec<Frame>,
    turns: Turns,
}

impl Path {
    fn run(&mut self, lengths: &[u16], meeting: &Meeting, now_ms: u64) -> Part {
        core_affinity::set_for_current(core_affinity::CoreId { id: self.core });
        self.load(lengths);
        let encap = self.encap(meeting, now_ms);
        let sealed = self.left.wan.waiting();
        while let Some(frame) = self.left.wan.receive() {
            self.right.wan.send(frame).expect("as much room as at the left");
        }
        meeting.wait();
        let decap = self.decap(sealed, now_ms);
        let packets = self.right.lan.waiting() as u64;
        self.unload();
        Part { packets, encap, decap }
    }

    fn load(&mut self, lengths: &[u16]) {
        for (flow, len) in self.flows.iter().zip(lengths.iter().cycle()) {
            let mut frame = self.spare.pop().or_else(|| self.cache.take()).expect("chunks for all packets");
            let filled = self.template.fill(&mut frame, *len, destination(*flow), &mut self.cache);
            assert!(filled, "chunks for all packets");
            self.ready.push(frame);
        }
    }

    /// What belongs to another worker is sealed there: all go on until the last packet of a slice is.
    fn encap(&mut self, meeting: &Meeting, now_ms: u64) -> Clocks {
        let (mut sealed, mut idle) = (0, 0);
        for _ in 0..meeting.slices {
            let slice = SLICE.min(self.ready.len());
            for frame in self.ready.drain(..slice) {
                self.left.lan.send(frame).expect("room for all packets");
            }
            meeting.sent.fetch_add(slice, Ordering::Relaxed);
            meeting.wait();
            while !meeting.is_sealed() && idle < PATIENCE {
                if self.turns.take(&mut self.left.engine, now_ms) {
                    idle = 0
                } else {
                    pause(&mut idle)
                }
                let before = std::mem::replace(&mut sealed, self.left.wan.waiting());
                meeting.sealed.fetch_add(sealed - before, Ordering::Relaxed);
            }
            meeting.wait();
        }
        self.turns.sum()
    }

    fn decap(&mut self, sealed: usize, now_ms: u64) -> Clocks {
        let mut idle = 0;
        while self.right.lan.waiting() < sealed && idle < PATIENCE {
            if self.turns.take(&mut self.right.engine, now_ms) { idle = 0 } else { pause(&mut idle) }
        }
        self.turns.sum()
    }

    /// Only one chunk of each packet is kept, and no more than a part wants.
    fn unload(&mut self) {
        while let Some(mut frame) = self.right.lan.receive() {
            if let Some(tail) = frame.take_tail() {
                self.cache.give(tail);
            }
            if self.spare.len() < PART {
                self.spare.push(frame);
            } else {
                self.cache.give(frame);
            }
        }
    }
}
