//! Two gateways in a box: what the left one seals the right one opens, part by part, with the clocks of each.
//!
//! A part is some thousand packets, of flows picked at random. Frames are written before the clocks run: they
//! come from the cache that the cores share, as those of a NIC that writes there do. They are moved and never
//! copied, from the left gateway to the right one and then back to be written again.

use crate::{
    clock,
    gateway::{Gateway, Lane, SOURCE, Setup, destination},
    staged::HOPS,
    traffic::{Random, Size, Template},
};
use anyhow::{Result, ensure};
use portcullis_datapath::{
    frame::Frame,
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

/// Packets that each worker gets in a part, at most.
pub const PART: usize = 4096;
/// Octets of them, at most.
const PART_OCTETS: f64 = 4.0 * 1024.0 * 1024.0;
/// Turns without a packet after which the rest is lost.
const PATIENCE: u32 = 1_000_000;

/// Clocks of one direction in a part, of all workers together.
#[derive(Clone, Copy, Default, Debug)]
pub struct Clocks {
    /// From the first packet to the last.
    pub whole: u64,
    /// Of each hop, if they ran one by one.
    pub hops: Option<[u64; HOPS]>,
}

/// What was measured in a part.
#[derive(Clone, Copy, Default, Debug)]
pub struct Part {
    /// Packets that went the whole way.
    pub packets: u64,
    /// Packets that were dropped: of one worker for another, that does not keep up.
    pub lost: u64,
    /// The left gateway's.
    pub encap: Clocks,
    /// The right gateway's.
    pub decap: Clocks,
}

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
    pub fn new(setup: Setup, pool: &Arc<FramePool>, cores: &[usize], seed: u64) -> Result<Pair> {
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
        });
        let mut pair =
            Pair { setup, left, right, paths: paths.collect(), random: Random::new(seed), parts: 0 };
        pair.warm()?;
        Ok(pair)
    }

    /// One part of packets of this size, each of a flow picked at random.
    ///
    /// # Errors
    /// Packets that one worker lost.
    pub fn run(&mut self, size: Size) -> Result<Part> {
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
        self.run_flows(&size.pattern())
    }

    /// Meets every SA once, for the workers to have their keys expanded.
    fn warm(&mut self) -> Result<()> {
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
            self.run_flows(&[64])?;
        }
        Ok(())
    }

    fn run_flows(&mut self, lengths: &[u16]) -> Result<Part> {
        self.parts += 1;
        let meeting = Meeting {
            paths: self.paths.len(),
            sent: self.paths.iter().map(|path| path.flows.len()).sum(),
            arrived: AtomicUsize::new(0),
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
        let total = parts.into_iter().fold(Part::default(), Part::with);
        let part = Part { lost: meeting.sent as u64 - total.packets, ..total };
        let dropped = (self.left.drops(), self.right.drops());
        ensure!(part.lost == 0 || self.paths.len() > 1, "a worker lost {} packets: {dropped:?}", part.lost);
        Ok(part)
    }
}

impl Part {
    /// This and another worker's.
    fn with(self, other: Part) -> Part {
        let both = |a: Clocks, b: Clocks| Clocks { whole: a.whole + b.whole, hops: a.hops.or(b.hops) };
        Part {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            encap: both(self.encap, other.encap),
            decap: both(self.decap, other.decap),
        }
    }
}

/// Where the threads of a part wait for each other.
struct Meeting {
    paths: usize,
    /// Packets that go in at the left.
    sent: usize,
    arrived: AtomicUsize,
    /// Packets that came out of the left gateway.
    sealed: AtomicUsize,
}

impl Meeting {
    /// Returns when all threads have come here for the `nth` time. It spins: a thread that is woken is late.
    fn wait(&self, nth: usize) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < nth * self.paths {
            spin_loop();
        }
    }
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
}

impl Path {
    fn run(&mut self, lengths: &[u16], meeting: &Meeting, now_ms: u64) -> Part {
        core_affinity::set_for_current(core_affinity::CoreId { id: self.core });
        self.load(lengths);
        meeting.wait(1);
        let (encap, sealed) = self.encap(meeting, now_ms);
        meeting.wait(2);
        while let Some(frame) = self.left.wan.receive() {
            self.right.wan.send(frame).expect("as much room as at the left");
        }
        meeting.wait(3);
        let decap = self.decap(sealed, now_ms);
        let packets = self.right.lan.waiting() as u64;
        self.unload();
        Part { packets, lost: 0, encap, decap }
    }

    fn load(&mut self, lengths: &[u16]) {
        for (flow, len) in self.flows.iter().zip(lengths.iter().cycle()) {
            let mut frame = self.spare.pop().or_else(|| self.cache.take()).expect("chunks for all packets");
            let filled = self.template.fill(&mut frame, *len, destination(*flow), &mut self.cache);
            assert!(filled, "chunks for all packets");
            self.left.lan.send(frame).expect("room for all packets");
        }
    }

    /// What belongs to another worker is sealed there: all go on until the last packet is.
    fn encap(&mut self, meeting: &Meeting, now_ms: u64) -> (Clocks, usize) {
        let (mut sealed, mut idle) = (0, 0);
        let start = clock::now();
        while meeting.sealed.load(Ordering::Relaxed) < meeting.sent && idle < PATIENCE {
            idle = if self.left.engine.turn(now_ms) { 0 } else { idle + 1 };
            let before = std::mem::replace(&mut sealed, self.left.wan.waiting());
            if sealed > before {
                meeting.sealed.fetch_add(sealed - before, Ordering::Relaxed);
            }
        }
        let whole = clock::now() - start;
        (Clocks { whole, hops: self.left.engine.take_clocks() }, sealed)
    }

    fn decap(&mut self, sealed: usize, now_ms: u64) -> Clocks {
        let mut idle = 0;
        let start = clock::now();
        while self.right.lan.waiting() < sealed && idle < PATIENCE {
            idle = if self.right.engine.turn(now_ms) { 0 } else { idle + 1 };
        }
        let whole = clock::now() - start;
        Clocks { whole, hops: self.right.engine.take_clocks() }
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
