//! Captures, sent again: their frames in order, when they were sent then, at a rate, or as fast as the port takes them.
//!
//! The classic pcap format with Ethernet frames. All of it is read at the start; frames that were not captured whole are
//! left out. As with streams, who is late catches up, and says by how much bursts left late.

use super::{Sent, pace::Pace, times::Times};
use arrayvec::ArrayVec;
use pcap_file::{DataLink, PcapError, pcap::PcapReader};
use portcullis_datapath::{
    batch::BATCH,
    fib::Mac,
    frame::Frame,
    pool::FrameCache,
    port::{BURST, Port},
    wire::ETHERNET,
};
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
};
use thiserror::Error;

/// What a file of the newer format begins with (draft-ietf-opsawg-pcapng §4.1).
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Why a capture cannot be sent.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is of the newer format.
    #[error("it is in the pcapng format: `editcap -F pcap` makes one of pcap")]
    Pcapng,
    /// It is none, or damaged.
    #[error("it is no capture, or is damaged: {0}")]
    Damaged(PcapError),
    /// It is not of Ethernet.
    #[error("its packets are of link type {0:?} and not of Ethernet")]
    Link(DataLink),
    /// Nothing in it can be sent.
    #[error("it has no whole frame")]
    Empty,
    /// It has a frame that is none.
    #[error("frame {number} has {octets} octets, and Ethernet's header alone 14")]
    Short {
        /// Which, from 1 on.
        number: usize,
        /// Its octets.
        octets: usize,
    },
    /// It has a frame that the interface does not take.
    #[error("frame {number} has {octets} octets, and the interface takes {most}: its MTU is too low")]
    Long {
        /// Which, from 1 on.
        number: usize,
        /// Its octets.
        octets: usize,
        /// What the interface takes.
        most: usize,
    },
}

/// A frame of a capture.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Captured {
    /// Where it is among all octets.
    octets: Range<usize>,
    /// Nanoseconds from the first.
    at: u64,
    /// Which it is in the file, from 1 on.
    number: usize,
}

/// A capture in memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Capture {
    octets: Vec<u8>,
    frames: Vec<Captured>,
    /// Frames that were not captured whole, and are left out.
    pub cut: u64,
}

impl Capture {
    /// Reads all of a file.
    ///
    /// # Errors
    /// [`CaptureError`]; not [`CaptureError::Long`].
    pub fn read(path: &Path) -> Result<Capture, CaptureError> {
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        if file.read(&mut magic)? == 4 && magic == PCAPNG {
            return Err(CaptureError::Pcapng);
        }
        file.seek(SeekFrom::Start(0))?;
        let mut reader = PcapReader::new(BufReader::new(file)).map_err(CaptureError::Damaged)?;
        if reader.header().datalink != DataLink::ETHERNET {
            return Err(CaptureError::Link(reader.header().datalink));
        }
        let (mut capture, mut first, mut number) = (Capture::default(), None, 0);
        while let Some(packet) = reader.next_packet() {
            let packet = packet.map_err(CaptureError::Damaged)?;
            number += 1;
            // What was captured out of order stays in the order of the file.
            let before = capture.frames.last().map_or(0, |frame| frame.at);
            let since = packet.timestamp.saturating_sub(*first.get_or_insert(packet.timestamp));
            let at = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(before);
            if packet.data.len() < packet.orig_len as usize {
                capture.cut += 1;
                continue;
            }
            if packet.data.len() < ETHERNET {
                return Err(CaptureError::Short { number, octets: packet.data.len() });
            }
            let from = capture.octets.len();
            capture.octets.extend_from_slice(&packet.data);
            capture.frames.push(Captured { octets: from..capture.octets.len(), at, number });
        }
        if capture.frames.is_empty() { Err(CaptureError::Empty) } else { Ok(capture) }
    }

    /// Frames that are sent.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are none: never, of one that was read.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether all fit an interface whose packets have at most so many octets, and a tag of a VLAN besides.
    ///
    /// # Errors
    /// [`CaptureError::Long`].
    pub fn fits(&self, mtu: u16) -> Result<(), CaptureError> {
        const TAG: usize = 4;
        let most = |frame: &Captured| {
            let tagged = matches!(self.octets[frame.octets.start + 12..][..2], [0x81, 0x00] | [0x88, 0xa8]);
            ETHERNET + mtu as usize + if tagged { TAG } else { 0 }
        };
        match self.frames.iter().find(|frame| frame.octets.len() > most(frame)) {
            None => Ok(()),
            Some(frame) => Err(CaptureError::Long {
                number: frame.number,
                octets: frame.octets.len(),
                most: most(frame),
            }),
        }
    }

    /// Has all frames go to a next hop, from an interface.
    pub fn lead(&mut self, dst: Mac, src: Mac) {
        for frame in &self.frames {
            let header = &mut self.octets[frame.octets.start..][..12];
            header[..6].copy_from_slice(&dst.0);
            header[6..].copy_from_slice(&src.0);
        }
    }

    /// Nanoseconds from the first frame of a pass to the first of the next: they follow each other as frames do in the
    /// mean.
    fn span(&self) -> u64 {
        let last = self.frames.last().map_or(0, |frame| frame.at);
        last.saturating_add(last / (self.frames.len() as u64).saturating_sub(1).max(1))
    }
}

/// When frames are due.
#[derive(Clone, Debug)]
pub enum Timing {
    /// When they were sent then, so many times as fast, from a time of the clock on.
    AsCaptured {
        /// How many times as fast; above 0.
        speed: f64,
        /// When the first is due.
        start: u64,
    },
    /// At a rate.
    Pace(Pace),
    /// Always.
    AtOnce,
}

/// A source of what a capture has.
pub struct Replay {
    capture: Capture,
    timing: Timing,
    hz: f64,
    /// The next frame, and how often all were sent.
    next: (usize, u64),
    /// How often all are sent; without end, if that is not said.
    passes: Option<u64>,
    out: ArrayVec<Frame, BATCH>,
    sent: Sent,
    /// Octets of what was sent.
    pub octets: u64,
    /// By how much frames left late, each as the first of its burst.
    pub lateness: Times,
}

impl Replay {
    /// Sends a capture so many times, or without end, by a clock of `hz` per second, as fast as the port takes it.
    pub fn new(capture: Capture, passes: Option<u64>, hz: f64) -> Replay {
        let (sent, out, lateness) = (Sent::default(), ArrayVec::new(), Times::new(hz));
        Replay { capture, timing: Timing::AtOnce, hz, next: (0, 0), passes, out, sent, octets: 0, lateness }
    }

    /// Sends at these times from now on.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// Whether all was sent that is to be.
    pub fn is_done(&self) -> bool {
        self.out.is_empty() && self.passes.is_some_and(|passes| self.next.1 >= passes)
    }

    /// When the next frame is due; none, if it always is.
    pub fn next_due(&self) -> Option<u64> {
        match &self.timing {
            Timing::AsCaptured { speed, start } => {
                let (frame, pass) = self.next;
                let at = self.capture.span() as f64 * pass as f64 + self.capture.frames[frame].at as f64;
                Some(start.saturating_add((at / speed * self.hz / 1e9) as u64))
            }
            Timing::Pace(pace) => Some(pace.next()),
            Timing::AtOnce => None,
        }
    }

    /// Sends what is due by now, a burst at most. How many frames that were.
    pub fn turn<P: Port + ?Sized>(
        &mut self,
        port: &mut P,
        cache: &mut FrameCache,
        clock: impl Fn() -> u64,
    ) -> usize {
        let mut due = None;
        if self.out.is_empty() {
            due = self.write(clock(), cache);
        }
        let (frames, octets) = (self.out.len(), self.octets());
        if let Some(due) = due {
            self.lateness.record_many(clock().saturating_sub(due), frames as u64);
        }
        if frames > 0 {
            port.tx(&mut self.out);
        }
        self.sent.frames += (frames - self.out.len()) as u64;
        self.octets += octets - self.octets();
        // What is paced does not wait: it would be of another time.
        if !matches!(self.timing, Timing::AtOnce) {
            self.sent.refused += self.out.len() as u64;
            self.close(cache);
        }
        port.maintain(cache);
        frames
    }

    /// What is due by now, for the port, and since when, if there is a time for it.
    fn write(&mut self, now: u64, cache: &mut FrameCache) -> Option<u64> {
        let mut first = None;
        while self.out.len() < BURST && self.passes.is_none_or(|passes| self.next.1 < passes) {
            let due = self.next_due();
            if due.is_some_and(|due| due > now) {
                break;
            }
            let octets = self.capture.frames[self.next.0].octets.clone();
            let whole = cache.take().and_then(|mut frame| {
                let fits = frame.scatter(&self.capture.octets[octets], cache);
                if fits {
                    Some(frame)
                } else {
                    cache.give(frame);
                    None
                }
            });
            let Some(frame) = whole else {
                self.sent.short += 1;
                break;
            };
            self.out.push(frame);
            first = first.or(due);
            if let Timing::Pace(pace) = &mut self.timing {
                pace.take();
            }
            self.next.0 += 1;
            if self.next.0 == self.capture.len() {
                self.next = (0, self.next.1 + 1);
            }
        }
        first
    }

    fn octets(&self) -> u64 {
        self.out.iter().map(|frame| frame.total_len() as u64).sum()
    }

    /// What was sent.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// The end: frames that it still has go back.
    pub fn close(&mut self, cache: &mut FrameCache) {
        self.out.drain(..).for_each(|frame| cache.give(frame));
    }
}
