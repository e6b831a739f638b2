//! The traffic generator: streams of clear packets and of ESP, over any port, and what comes back of them.
//!
//! A turn writes what is due by now, a burst at most, seals it if it is to be ESP, and gives it to the port. Each packet
//! is stamped with when it was due, not with when it left; by how much a burst left late is the generator's own error,
//! and kept beside. The clock is an argument: the TSC, or one that a test or a device in memory moves.
//!
//! Nothing is allocated, locked or asked of a clock for a packet: clocks are read twice for a burst, and once more for one
//! that is received.

pub mod account;
pub mod cost;
pub mod disturbance;
pub mod flows;
pub mod pace;
pub mod receiver;
pub mod replay;
pub mod sealer;
pub mod stamp;
pub mod times;
pub mod writer;

use arrayvec::ArrayVec;
use disturbance::{Disturbance, DisturbanceError, Disturbed};
use flows::Flow;
use pace::Pace;
use portcullis_datapath::{
    batch::BATCH,
    esp::TRAILER_ROOM,
    frame::Frame,
    pool::{FrameCache, RX_OFFSET},
    port::{BURST, Port},
    wire::ETHERNET,
};
use portcullis_sadb::Sa;
use sealer::{Sealer, SealerError};
use thiserror::Error;
use times::Times;
use writer::{Stream, StreamError, Writer};

/// Why there is no such traffic.
#[derive(Debug, Error)]
pub enum GeneratorError {
    /// Of the stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Of what is done to it.
    #[error(transparent)]
    Disturbance(#[from] DisturbanceError),
    /// Packets to be sealed that are too long for a chunk.
    #[error("packets of {octets} octets are not sealed here: in chunks of {chunk} they are at most {most}")]
    TooLong {
        /// Octets of the longest.
        octets: usize,
        /// Octets of a chunk.
        chunk: u16,
        /// What they may have.
        most: usize,
    },
}

/// What was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Frames that the port took.
    pub frames: u64,
    /// Frames that were due and that it had no room for.
    pub refused: u64,
    /// Bursts that had fewer frames than were due, since there was no chunk.
    pub short: u64,
    /// Of all of these, what was no packet in its turn.
    pub disturbed: Disturbed,
}

impl Sent {
    /// Frames offered to the port.
    pub fn offered(&self) -> u64 {
        self.frames + self.refused
    }
}

/// A source of traffic.
pub struct Generator {
    writer: Writer,
    sealer: Option<Sealer>,
    disturbance: Option<Disturbance>,
    /// As fast as it goes, if there is none.
    pace: Option<Pace>,
    /// Frames and flows of a burst, and when they were due.
    burst: ArrayVec<Frame, BATCH>,
    flows: ArrayVec<u32, BATCH>,
    due: ArrayVec<u64, BATCH>,
    /// What the port takes next.
    out: ArrayVec<Frame, BATCH>,
    sent: Sent,
    /// By how much frames left late, each as the first of its burst. Only what is paced can be late.
    pub lateness: Times,
}

impl Generator {
    /// Sends a stream, by a clock of `hz` per second, as fast as the port takes it.
    ///
    /// # Errors
    /// [`GeneratorError`].
    pub fn new(stream: &Stream, hz: f64) -> Result<Generator, GeneratorError> {
        Ok(Generator {
            writer: Writer::new(stream)?,
            sealer: None,
            disturbance: None,
            pace: None,
            burst: ArrayVec::new(),
            flows: ArrayVec::new(),
            due: ArrayVec::new(),
            out: ArrayVec::new(),
            sent: Sent::default(),
            lateness: Times::new(hz),
        })
    }

    /// Seals what it sends, in chunks of so many octets.
    ///
    /// # Errors
    /// [`GeneratorError::TooLong`].
    pub fn sealed(mut self, sealer: Sealer, chunk: u16) -> Result<Generator, GeneratorError> {
        let octets = self.writer.longest();
        let most = (chunk as usize).saturating_sub(RX_OFFSET + ETHERNET + TRAILER_ROOM);
        if octets > most {
            return Err(GeneratorError::TooLong { octets, chunk, most });
        }
        self.sealer = Some(sealer);
        Ok(self)
    }

    /// Another flow, with an SA of its own.
    ///
    /// # Errors
    /// [`SealerError::Algorithm`].
    pub fn add(&mut self, flow: &Flow, sa: &Sa) -> Result<(), SealerError> {
        self.sealer.as_mut().map_or(Ok(()), |sealer| sealer.add(sa))?;
        self.writer.add(flow);
        Ok(())
    }

    /// Does this to what it sends.
    ///
    /// # Errors
    /// [`DisturbanceError::Clear`].
    pub fn disturbed(mut self, disturbance: Disturbance) -> Result<Generator, GeneratorError> {
        if disturbance.forges() && self.sealer.is_none() {
            return Err(DisturbanceError::Clear.into());
        }
        self.disturbance = Some(disturbance);
        Ok(self)
    }

    /// Sends at this pace from now on.
    pub fn set_pace(&mut self, pace: Option<Pace>) {
        self.pace = pace;
    }

    /// When the next frame is due; none, if it always is.
    pub fn next_due(&self) -> Option<u64> {
        self.pace.as_ref().map(Pace::next)
    }

    /// Sends what is due by now, a burst at most. How many frames that were.
    #[inline]
    pub fn turn<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        cache: &mut FrameCache,
        clock: impl Fn() -> u64,
    ) -> usize {
        if self.out.is_empty() {
            self.pick(clock(), cache);
            self.write(cache);
        }
        self.send(port, cache, clock)
    }

    /// Sends what was held back, as far as the port takes it. False if there is more.
    pub fn finish<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        cache: &mut FrameCache,
        clock: impl Fn() -> u64,
    ) -> bool {
        let done = &mut self.sent.disturbed;
        let all = self.disturbance.as_mut().is_none_or(|d| d.flush(&mut self.out, done));
        self.send(port, cache, clock);
        all && self.out.is_empty()
    }

    /// A chunk and a flow for each frame that is due: what is needed of them is on its way into the cache when the first
    /// is written.
    #[inline]
    fn pick(&mut self, now: u64, cache: &mut FrameCache) {
        let Generator { writer, pace, burst, flows, due, .. } = self;
        while burst.len() < BURST && pace.as_ref().is_none_or(|pace| pace.next() <= now) {
            let Some(frame) = cache.take() else {
                self.sent.short += 1;
                return;
            };
            frame.prefetch();
            burst.push(frame);
            flows.push(writer.pick());
            due.push(pace.as_mut().map_or(now, Pace::take));
        }
    }

    #[inline]
    fn write(&mut self, cache: &mut FrameCache) {
        let Generator { writer, sealer, disturbance, burst, flows, due, out, .. } = self;
        let (mut forged, mut written) = (0u128, 0);
        for ((frame, flow), due) in burst.iter_mut().zip(&*flows).zip(&*due) {
            if !writer.write(frame, *flow, *due, cache) {
                self.sent.short += 1;
                break;
            }
            if let Some(true) = disturbance.as_mut().map(Disturbance::forge) {
                writer.take_back(*flow);
                forged |= 1 << written;
            }
            written += 1;
        }
        burst.drain(written..).for_each(|frame| cache.give(frame));
        if let Some(sealer) = sealer {
            sealer.seal(burst, flows);
        }
        match disturbance {
            Some(disturbance) => {
                let done = &mut self.sent.disturbed;
                let before = done.replayed;
                disturbance.pass(burst, forged, out, cache, done);
                // Copies are paced, too: they take the place of packets to come.
                if let Some(pace) = &mut self.pace {
                    (before..done.replayed).for_each(|_| _ = pace.take());
                }
            }
            None => std::mem::swap(burst, out),
        }
        flows.clear();
    }

    #[inline]
    fn send<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        cache: &mut FrameCache,
        clock: impl Fn() -> u64,
    ) -> usize {
        let frames = self.out.len();
        if let Some(due) = self.due.first().filter(|_| self.pace.is_some()) {
            self.lateness.record_many(clock().saturating_sub(*due), self.due.len() as u64);
        }
        self.due.clear();
        if frames > 0 {
            port.tx(&mut self.out);
        }
        let taken = frames - self.out.len();
        self.sent.frames += taken as u64;
        // What is paced does not wait: it would be of another time.
        if self.pace.is_some() {
            self.sent.refused += self.out.len() as u64;
            self.out.drain(..).for_each(|frame| cache.give(frame));
        }
        port.maintain(cache);
        frames
    }

    /// What was sent since it began.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Packets written of each flow, forged ones apart: what a receiver should have.
    pub fn written(&self) -> impl Iterator<Item = u32> {
        self.writer.written()
    }

    /// Starts all flows again, as those of another run. SAs go on with their numbers.
    pub fn restart(&mut self, run: u64) {
        self.writer.restart(run);
        self.sent = Sent::default();
        self.lateness.clear();
    }

    /// The end: frames that it still has go back.
    pub fn close(&mut self, cache: &mut FrameCache) {
        self.out.drain(..).chain(self.burst.drain(..)).for_each(|frame| cache.give(frame));
        if let Some(disturbance) = &mut self.disturbance {
            disturbance.clear(cache);
        }
    }
}
