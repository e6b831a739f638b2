//! What comes back of a stream: counted by flow, with the latency of each packet.
//!
//! Latency is from when a packet was due to when the burst it came in was received: a packet that left late since those
//! before it were held up counts with all of its delay, so nothing is left to be corrected for coordinated omission.

use super::{
    account::{Account, Tally},
    stamp::{STAMP, Stamp},
    times::Times,
};
use arrayvec::ArrayVec;
use portcullis_datapath::{
    batch::BATCH,
    frame::Frame,
    pool::FrameCache,
    port::Port,
    wire::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, UDP, be16, protocol},
};
use portcullis_sadb::prefetch_at;

/// Where stamps are, behind headers without options.
const STAMP_V4: usize = ETHERNET + IPV4 + UDP;
const STAMP_V6: usize = ETHERNET + IPV6 + UDP;

/// Receives and counts. Nothing is allocated after the start.
pub struct Receiver {
    run: u64,
    accounts: Vec<Account>,
    /// From when packets were due to when they were here.
    pub latency: Times,
    frames: u64,
    octets: u64,
    foreign: u64,
    list: ArrayVec<Frame, BATCH>,
}

/// What was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// Frames, of anybody.
    pub frames: u64,
    /// Octets of these.
    pub octets: u64,
    /// Those without a stamp of this run.
    pub foreign: u64,
    /// The others.
    pub tally: Tally,
}

impl Receiver {
    /// For a run of so many flows, by a clock of `hz` per second.
    pub fn new(run: u64, flows: usize, hz: f64) -> Receiver {
        let accounts = vec![Account::default(); flows];
        let latency = Times::new(hz);
        Receiver { run, accounts, latency, frames: 0, octets: 0, foreign: 0, list: ArrayVec::new() }
    }

    /// One burst from a port, at some clock: its frames go back to the cache. How many there were.
    pub fn receive<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        cache: &mut FrameCache,
        now: impl FnOnce() -> u64,
    ) -> usize {
        let mut list = std::mem::take(&mut self.list);
        port.rx(&mut list, cache);
        let frames = list.len();
        if frames > 0 {
            self.count(&list, now());
            list.drain(..).for_each(|frame| cache.give(frame));
        }
        port.maintain(cache);
        self.list = list;
        frames
    }

    /// Frames that were received at some clock.
    pub fn count(&mut self, frames: &[Frame], now: u64) {
        frames.chunks(BATCH).for_each(|frames| self.count_burst(frames, now));
    }

    /// In two passes: what is known of the flows is asked for in the first.
    #[inline]
    fn count_burst(&mut self, frames: &[Frame], now: u64) {
        let mut stamps = ArrayVec::<Stamp, BATCH>::new();
        for frame in frames {
            self.octets += frame.total_len() as u64;
            let found = stamp(frame.bytes()).and_then(|octets| Stamp::parse(octets, self.run));
            let Some(stamp) = found.filter(|stamp| (stamp.flow as usize) < self.accounts.len()) else {
                self.foreign += 1;
                continue;
            };
            prefetch_at(std::ptr::from_ref(&self.accounts[stamp.flow as usize]));
            stamps.push(stamp);
        }
        for stamp in stamps {
            self.accounts[stamp.flow as usize].count(stamp.number);
            self.latency.record(stamp.age(now));
        }
        self.frames += frames.len() as u64;
    }

    /// Frames with a stamp of this run, copies among them.
    pub fn own(&self) -> u64 {
        self.latency.count()
    }

    /// All that was counted.
    pub fn received(&self) -> Received {
        let tally = self.flows().sum();
        Received { frames: self.frames, octets: self.octets, foreign: self.foreign, tally }
    }

    /// What was counted of a flow.
    pub fn flow(&self, flow: u32) -> Tally {
        self.accounts[flow as usize].tally()
    }

    /// What was counted of each flow.
    pub fn flows(&self) -> impl Iterator<Item = Tally> {
        self.accounts.iter().map(Account::tally)
    }

    /// Forgets all, for another run.
    pub fn restart(&mut self, run: u64) {
        self.run = run;
        self.accounts.fill(Account::default());
        self.latency.clear();
        (self.frames, self.octets, self.foreign) = (0, 0, 0);
    }
}

/// Where the stamp of a packet in UDP is, if that is what it is.
#[inline]
fn stamp(frame: &[u8]) -> Option<&[u8; STAMP]> {
    let at = match be16(frame, ETHERNET - 2) {
        ETHERTYPE_IPV4 if *frame.get(ETHERNET + 9)? == protocol::UDP => STAMP_V4,
        ETHERTYPE_IPV6 if *frame.get(ETHERNET + 6)? == protocol::UDP => STAMP_V6,
        _ => return None,
    };
    frame.get(at..)?.first_chunk()
}
