//! A worker of each gateway, on one core, and the frames that go round between them.

use crate::{
    meeting::{Meeting, pause},
    turns::{Gauge, Turns, Worked},
};
use portcullis_datapath::{frame::Frame, handoff::INBOX, pool::FrameCache, port::memory::MemoryPort};
use portcullis_perf::{
    gateway::{Lane, SOURCE, destination},
    traffic::Template,
};
use std::time::Instant;

/// Packets that each worker gets in a part, at most: what a ring of a port has.
pub const PART: usize = 1024;
/// Of these, packets that go in at a time where they may be handed over: they must fit an inbox, however late its
/// worker is.
pub const SLICE: usize = INBOX / 2;
/// Turns without a packet after which the rest is lost.
const PATIENCE: u32 = 10_000_000;

/// What all paths are to do with a part.
pub struct Task<'a> {
    /// Lengths of the packets, to be repeated.
    pub lengths: &'a [u16],
    /// Packets that go in at a time, at most, at each path.
    pub slice: usize,
    /// How often that is, at the path that has the most.
    pub slices: usize,
    /// The path at which all ESP arrives, if it does at one.
    pub one: Option<usize>,
    /// How it is measured.
    pub gauge: Gauge,
}

/// A path and its frames.
pub struct Path {
    core: usize,
    left: Lane,
    right: Lane,
    template: Template,
    cache: FrameCache,
    /// Frames to write the next part in.
    pub spare: Vec<Frame>,
    /// The next part's packets.
    pub flows: Vec<u32>,
    /// Packets of the last part that were sealed here.
    pub sealed: usize,
    ready: Vec<Frame>,
    turns: Turns,
}

/// What came of a part at a path.
pub struct Passed {
    /// Packets that went the whole way and came out here.
    pub packets: u64,
    /// What the left worker did.
    pub encap: Worked,
    /// What the right worker did.
    pub decap: Worked,
}

impl Path {
    /// One on this core.
    pub fn new(core: usize, left: Lane, right: Lane, cache: FrameCache) -> Path {
        let (template, turns) = (Template::new(SOURCE), Turns::default());
        let (spare, flows, ready) = Default::default();
        Path { core, left, right, template, cache, spare, flows, sealed: 0, ready, turns }
    }

    /// Takes a part through, as path `me` of those that meet.
    pub fn run(&mut self, me: usize, task: &Task<'_>, meetings: &[Meeting; 2]) -> Passed {
        core_affinity::set_for_current(core_affinity::CoreId { id: self.core });
        let [sealing, opening] = meetings;
        self.load(task.lengths);
        for _ in 0..task.slices {
            let slice = task.slice.min(self.ready.len());
            for frame in self.ready.drain(..slice) {
                self.left.lan.send(frame).expect("room for all packets");
            }
            sealing.send(slice);
            drive(&mut self.left, |lane| &lane.wan, &mut self.turns, (me, task, sealing));
        }
        let encap = self.turns.sum();
        self.sealed = self.left.wan.waiting();
        self.cross(me, task, opening);
        drive(&mut self.right, |lane| &lane.lan, &mut self.turns, (me, task, opening));
        let (packets, decap) = (self.right.lan.waiting() as u64, self.turns.sum());
        self.unload();
        Passed { packets, encap, decap }
    }

    fn load(&mut self, lengths: &[u16]) {
        for (flow, len) in self.flows.iter().zip(lengths.iter().cycle()) {
            let mut frame = self.spare.pop().or_else(|| self.cache.take()).expect("chunks for all packets");
            let filled = self.template.fill(&mut frame, *len, destination(*flow), &mut self.cache);
            assert!(filled, "chunks for all packets");
            self.ready.push(frame);
        }
    }

    /// What the left worker sealed goes to the right one, or all to that of one path.
    fn cross(&mut self, me: usize, task: &Task<'_>, opening: &Meeting) {
        opening.send(self.sealed);
        let Path { left, right, .. } = self;
        let mut pass = |frame| right.wan.send(frame).expect("as much room as at the left");
        let sealed = std::iter::from_fn(|| left.wan.receive());
        if task.one.is_none_or(|one| one == me) {
            sealed.for_each(&mut pass);
        } else {
            opening.leave(sealed);
        }
        opening.wait();
        if task.one == Some(me) {
            opening.take().into_iter().for_each(pass);
        }
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

/// Takes turns, while all others do, until the packets of all are out. What belongs to another worker comes out there:
/// who has nothing to do waits for more.
fn drive(
    lane: &mut Lane,
    out: impl Fn(&Lane) -> &MemoryPort,
    turns: &mut Turns,
    (me, task, meeting): (usize, &Task<'_>, &Meeting),
) {
    meeting.wait();
    let (start, mut idle) = (Instant::now(), 0);
    let mut end = start;
    while idle < PATIENCE {
        let now_ms = (lane.driven + start.elapsed()).as_millis() as u64;
        if turns.take(&mut lane.engine, task.gauge, now_ms) {
            idle = 0;
            continue;
        }
        if idle == 0 {
            end = Instant::now();
        }
        meeting.tell_out(me, out(lane).waiting());
        if meeting.is_over() {
            break;
        }
        pause(&mut idle);
    }
    lane.driven += start.elapsed();
    turns.end(start, end);
    meeting.wait();
}
