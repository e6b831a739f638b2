//! A device in memory: a pair of gateways with one worker each, of which the left one seals what the right one opens.
//!
//! Generator, device and receiver share a core, and the device has a clock of its own, that of its turns: it stands still
//! while others work. Frames are due by that clock, wait in a ring as a NIC's, and are lost where it is full. So it is the
//! device that is measured, however slow its source is, and what the other gateway does counts only if it is to; another
//! core, whose caches and pipes may be shared or not, has no part in it. What it does not show is what a NIC and other
//! cores cost.
//!
//! A turn that takes much longer than a full one was interrupted: the machine did other things. It counts as a full one,
//! and how many there were is told.

use crate::{
    clock::{self, Machine},
    gateway::{Gateway, Lane, SOURCE, Setup, destination},
    generator::{
        Generator, Sent,
        flows::{Addresses, Choice, Flows},
        pace::Pace,
        receiver::{Received, Receiver},
        times::Times,
        writer::Stream,
    },
    traffic::Mix,
    trial::{Device, Load, Trial},
};
use arrayvec::ArrayVec;
use clap::ValueEnum;
use portcullis_datapath::{
    batch::BATCH,
    fib::Mac,
    frame::Frame,
    pool::{FrameCache, FramePool},
    port::{BURST, Port},
    umem::{HugePages, Umem},
};
use portcullis_sadb::Direction;
use std::{
    error::Error,
    time::{Duration, Instant},
};

/// Frames that a port's ring has room for, as [`portcullis_datapath`]'s own has by default.
const RING: usize = 2048;
/// Chunks: twice what waits in rings, so that none is used again while it is in the first cache.
const CHUNKS: u32 = 4096;
const CHUNK: u16 = 4096;

/// A turn that takes so many times a full one was interrupted.
const INTERRUPTED: u64 = 4;
/// Full turns that tell what a full one takes.
const FULL_TURNS: usize = 255;

/// What of the pair is the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Way {
    /// The gateway that seals.
    Encap,
    /// The gateway that opens.
    Decap,
    /// Both, one after the other.
    Both,
}

/// The pair, its traffic, and the device's clock.
pub struct InMemory {
    way: Way,
    left: Lane,
    right: Lane,
    gateways: [Gateway; 2],
    generator: Generator,
    receiver: Receiver,
    /// Chunks are taken from one and given to the other, so that they go round.
    source: FrameCache,
    sink: FrameCache,
    hz: f64,
    now: u64,
    run: u64,
    /// Clocks of a full turn.
    full: u64,
    interrupted: u64,
}

/// What came of the last trial, besides what a [`Trial`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Details {
    /// What was sent.
    pub sent: Sent,
    /// What came out.
    pub received: Received,
    /// Turns that were interrupted.
    pub interrupted: u64,
    /// Packets that the gateways dropped, ever.
    pub drops: [u64; 2],
}

impl InMemory {
    /// A pair with these SAs, of which each flow has one. Packets are of any flow, at random. `setup` is of one worker
    /// that is not metered.
    ///
    /// # Errors
    /// What there is no memory for, or a mix that does not fit.
    pub fn new(setup: &Setup, way: Way, mix: &Mix, seed: u64) -> Result<InMemory, Box<dyn Error>> {
        if setup.workers != 1 || setup.metered {
            return Err("a device in memory has one worker, which is not metered".into());
        }
        let pool = FramePool::new(Umem::new(CHUNKS, CHUNK, HugePages::Auto)?.0);
        let gateway = |direction| -> Result<(Gateway, Lane), Box<dyn Error>> {
            let (gateway, mut lanes) = Gateway::new(setup, direction, &pool, RING)?;
            Ok((gateway, lanes.pop().ok_or("no worker")?))
        };
        let ((sender, left), (opener, right)) = (gateway(Direction::Outbound)?, gateway(Direction::Inbound)?);
        let hz = Machine::this().hz;
        let flows = setup.flows();
        let mut stream = Stream {
            dst_mac: Mac([2, 0, 0, 0, 1, 0]),
            src_mac: Mac([2, 0, 0, 0, 2, 0]),
            mix: mix.clone(),
            flows: Flows {
                dst: Addresses { first: destination(0).into(), count: flows },
                count: flows,
                packets: Choice::InTurn,
                seed,
                ..Flows::one(SOURCE.into(), destination(0).into())
            },
            stamped: true,
            first_flow: 0,
            run: 0,
        };
        let in_turn = Generator::new(&stream, hz)?;
        stream.flows.packets = Choice::Random;
        let mut device = InMemory {
            way,
            left,
            right,
            gateways: [sender, opener],
            generator: in_turn,
            receiver: Receiver::new(0, flows as usize, hz),
            source: pool.cache(),
            sink: pool.cache(),
            hz,
            now: 0,
            run: 0,
            full: u64::MAX / INTERRUPTED,
            interrupted: 0,
        };
        // Every flow once, so that no trial is the first to see it.
        let bursts = (flows as usize).div_ceil(BURST);
        (0..bursts).for_each(|_| _ = device.burst());
        device.generator = Generator::new(&stream, hz)?;
        let mut turns: Vec<u64> = (0..FULL_TURNS).map(|_| device.burst()).collect();
        turns.sort_unstable();
        device.full = turns[FULL_TURNS / 2].max(1);
        Ok(device)
    }

    /// Clocks per second.
    pub(crate) fn hz(&self) -> f64 {
        self.hz
    }

    /// Has another generator from now on.
    pub(crate) fn swap(&mut self, generator: &mut Generator) {
        std::mem::swap(&mut self.generator, generator);
    }

    /// One burst through the whole pair, as fast as the generator is. Clocks that the device took.
    pub(crate) fn burst(&mut self) -> u64 {
        let before = self.now;
        self.offer(u64::MAX);
        while self.turn() {}
        self.now - before
    }

    /// What the last trial came to.
    pub fn details(&self) -> Details {
        Details {
            sent: self.generator.sent(),
            received: self.receiver.received(),
            interrupted: self.interrupted,
            drops: [0, 1].map(|i| self.gateways[i].drops()),
        }
    }

    /// Latency of the last trial's packets, by the device's clock: from when they were due.
    pub fn latency(&self) -> &Times {
        &self.receiver.latency
    }

    /// By how much the last trial's bursts were late: what is due while the device works comes after its turn.
    pub fn lateness(&self) -> &Times {
        &self.generator.lateness
    }

    /// Puts frames that are due before `end`, a burst at most, where the device receives them. How many that were.
    fn offer(&mut self, end: u64) -> usize {
        let now = self.now.min(end - 1);
        let frames = self.generator.turn(&mut self.left.lan, &mut self.source, || now);
        if self.way == Way::Decap {
            let (left, right) = (&mut self.left, &mut self.right);
            while turn(left, self.now, self.hz) {}
            cross(left, right, &mut self.sink);
        }
        frames
    }

    /// A turn of the device, and what comes out of it. False if there was nothing.
    fn turn(&mut self) -> bool {
        let start = clock::now();
        let mut busy = false;
        if self.way != Way::Decap {
            busy |= turn(&mut self.left, self.now, self.hz);
            if self.way == Way::Both {
                cross(&mut self.left, &mut self.right, &mut self.sink);
            }
        }
        if self.way != Way::Encap {
            busy |= turn(&mut self.right, self.now, self.hz);
        }
        let clocks = clock::now() - start;
        if clocks > self.full.saturating_mul(INTERRUPTED) {
            self.interrupted += 1;
            self.now += self.full;
        } else {
            self.now += clocks;
        }
        if self.way == Way::Encap {
            cross(&mut self.left, &mut self.right, &mut self.sink);
            while turn(&mut self.right, self.now, self.hz) {}
        }
        let (port, cache, now) = (&mut self.right.lan, &mut self.sink, self.now);
        while self.receiver.receive(port, cache, || now) > 0 {}
        busy
    }
}

/// A turn of a gateway's worker, at some clock.
#[inline]
fn turn(lane: &mut Lane, now: u64, hz: f64) -> bool {
    lane.engine.turn((now as f64 / hz * 1000.0) as u64)
}

/// What the left gateway has sealed is received by the right one, as far as its ring has room.
#[inline]
fn cross(left: &mut Lane, right: &mut Lane, cache: &mut FrameCache) {
    let mut frames = ArrayVec::<Frame, BATCH>::new();
    loop {
        left.wan.rx(&mut frames, cache);
        if frames.is_empty() {
            return;
        }
        right.wan.tx(&mut frames);
        frames.drain(..).for_each(|frame| cache.give(frame));
    }
}

impl Device for InMemory {
    fn trial(&mut self, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
        let wall = Instant::now();
        let clocks = (duration.as_secs_f64() * self.hz) as u64;
        if !(load.0 > 0.0 && clocks > 0) {
            return Err(format!("{} frames per second for {duration:?} are no load", load.0).into());
        }
        self.run += 1;
        self.interrupted = 0;
        self.generator.restart(self.run);
        self.receiver.restart(self.run);
        let (start, end) = (self.now, self.now + clocks);
        self.generator.set_pace(Some(Pace::new(start, self.hz, load.0)));
        loop {
            while self.offer(end) > 0 {}
            if self.turn() {
                continue;
            }
            match self.generator.next_due() {
                // Nothing happens until then.
                Some(due) if due < end => self.now = self.now.max(due),
                _ => break,
            }
        }
        let Details { sent, received, .. } = self.details();
        if received.foreign > 0 {
            return Err(format!("{} frames came that were not sent", received.foreign).into());
        }
        Ok(Trial {
            offered: load,
            sent: sent.offered(),
            received: received.tally.received,
            duration,
            taken: wall.elapsed(),
        })
    }
}
