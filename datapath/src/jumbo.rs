//! Jumbo packets, in several chunks of the umem: as one for the hops, in place for the AEAD.
//!
//! Hops look at a packet's headers, and at its trailer. So they get a frame as long as the packet, of which only its
//! two *edges* are there: what is between them stays in the chain, where it is sealed or opened. Then the edges, as the
//! hops have made them, go back.
//!
//! ```text
//!  chain              | headers  text ............|.................|........ trailer  ICV |
//!  what the hops get  | headers  te                                         r trailer  ICV |
//!                     0           EDGE                                    end of the chain's
//! ```
//!
//! Places are octets from where the frame as received begins; headers that the hops push are in front of 0.
//!
//! Dangers: between the edges is what was there before, of other packets. No hop may believe it: packets whose headers
//! reach beyond the edge are dropped, whatever was made of them. And it must not leave: only the edges are copied back.

use crate::{
    batch::{Batch, Meta, Stage},
    crypto::{self, Job},
    drop::DropReason,
    esp,
    frame::Frame,
    inbound::Verified,
    pool::{FrameCache, RX_OFFSET},
    sa::SaTable,
    worker::Hops,
};
use arrayvec::ArrayVec;
use std::ops::Range;

/// Octets of the first edge: Ethernet, IP, UDP, ESP, and what is inside, with more options than there should be.
const EDGE: usize = 512;

/// Octets of the other edge, of a packet that is to be opened: padding (RFC 4303 §2.4), pad length and next header, ICV.
const END: usize = u8::MAX as usize + 2 + crypto::ICV;

/// Segments of a chain, at most: as many as the kernel makes of a packet (MAX_SKB_FRAGS, and its head), and one for what
/// comes behind.
const SEGMENTS: usize = 19;

/// Packets in several segments, or that fill their chunk, go through the hops one by one.
pub(crate) struct Jumbo {
    batch: Batch,
    buffer: Option<Frame>,
}

impl Jumbo {
    /// Octets of the buffer: the largest IP packet does not fit, the largest jumbo frame does.
    const ROOM: u16 = 16 * 1024;

    pub(crate) fn new() -> Jumbo {
        Jumbo { batch: Batch::default(), buffer: Some(Frame::boxed(Jumbo::ROOM)) }
    }

    /// Whether a frame is one.
    pub(crate) fn is_one(frame: &Frame) -> bool {
        frame.segments() > 1 || frame.tailroom() < esp::TRAILER_ROOM
    }

    /// Takes the jumbos of a batch through.
    pub(crate) fn run(&mut self, batch: &mut Batch, hops: &mut Hops, cache: &mut FrameCache) {
        for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
            if !Jumbo::is_one(frame) {
                continue;
            }
            let Some(mut buffer) = self.buffer.take() else { continue };
            buffer.reset(RX_OFFSET);
            if frame.segments() >= SEGMENTS || !buffer.extend(frame.total_len()) {
                meta.stage = Stage::Drop(DropReason::NoFrame);
                self.buffer = Some(buffer);
                continue;
            }
            self.batch.frames.push(buffer);
            self.batch.receive();
            let mut chain = Chain::of(frame);
            let edges = pass(&mut self.batch, &mut chain, hops);
            if let Some(buffer) = self.batch.frames.pop() {
                *meta = self.batch.metas[0];
                if matches!(meta.stage, Stage::Sealed | Stage::Forward)
                    && let Err(reason) = chain.take_over(&buffer, &edges, cache)
                {
                    meta.stage = Stage::Drop(reason);
                }
                self.buffer = Some(buffer);
            }
            chain.join();
        }
    }
}

/// What the hops' frame has of the packet: all in front of `.0`, and from `.1` on.
struct Edges(usize, usize);

impl Edges {
    /// Whether the headers of the packet whose IP header is at this place are there, and the ports behind them.
    fn hold(&self, ip_at: usize, meta: &Meta) -> bool {
        let behind = meta.ip.payload().max(meta.esp.at as usize) + PEEKED;
        self.0 == self.1 || ip_at + behind <= self.0
    }
}

/// Octets that may be looked at behind the last header that is gone over: of UDP and ESP, or of ESP and an IV.
const PEEKED: usize = 16;

/// Where the packet in the hops' frame begins, which may be in front of the chain's.
fn start(frame: &Frame) -> isize {
    frame.offset() as isize - RX_OFFSET as isize
}

/// All hops, and the AEAD between them.
fn pass(batch: &mut Batch, chain: &mut Chain<'_>, hops: &mut Hops) -> Edges {
    let total = chain.len();
    let mut edges = Edges(EDGE.min(total), total);
    batch.frames.iter_mut().for_each(|frame| chain.copy_to(0, &mut frame.bytes_mut()[..edges.0]));
    hops.prepare(batch, &mut ());
    let mut verified = Verified::new();
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if !edges.hold(meta.l3 as usize, meta) {
            meta.stage = Stage::Drop(DropReason::Malformed);
        }
        if matches!(meta.stage, Stage::Inbound | Stage::Outbound)
            && seal_or_open(frame, meta, chain, (&mut edges, &mut hops.sas), &mut verified).is_none()
        {
            meta.stage = Stage::Drop(DropReason::Malformed);
        }
    }
    hops.finish(batch, &verified, &mut ());
    for (frame, meta) in batch.frames.iter().zip(&mut batch.metas) {
        // An inner packet.
        if meta.proof.is_some() && meta.stage == Stage::Forward && !edges.hold(start(frame) as usize, meta) {
            meta.stage = Stage::Drop(DropReason::Malformed);
        }
    }
    edges
}

/// The AEAD, of what the hops have prepared: the first edge, then the chain, then the other edge. `None`: it cannot.
fn seal_or_open(
    frame: &mut Frame,
    meta: &Meta,
    chain: &mut Chain<'_>,
    (edges, sas): (&mut Edges, &mut SaTable),
    verified: &mut Verified,
) -> Option<()> {
    let (start, opens) = (start(frame), meta.stage == Stage::Inbound);
    // What is of the chain ends with the packet, or with the inner one: then comes what was put behind it.
    let end = if opens { start as usize + frame.len() } else { meta.l3 as usize + meta.ip.len() };
    edges.0 = edges.0.min(end);
    edges.1 = if opens { end.saturating_sub(END).max(edges.0) } else { end };
    let aead = sas.aead();
    let (states, keys) = sas.split();
    let sa = states.get(meta.sa as usize)?.as_ref()?;
    let key = keys.get(meta.sa as usize)?.as_ref()?;

    let (first, last) = frame.bytes_mut().split_at_mut_checked(edges.1.checked_add_signed(-start)?)?;
    if opens {
        chain.copy_to(edges.1, last);
    }
    let first = first.get_mut(meta.esp.at as usize..edges.0.checked_add_signed(-start)?)?;
    let head = first.first_chunk::<{ crypto::HEAD }>()?;
    let iv = if opens { *head.last_chunk()? } else { meta.seq.to_be_bytes() };
    let mut packet = ArrayVec::<&mut [u8], { SEGMENTS + 2 }>::new();
    packet.push(first);
    chain.segments(edges.0..edges.1, &mut packet);
    packet.push(last);
    let aad = crypto::aad(sa.spi, meta.seq, sa.esn);
    let job = Job::scattered(key, iv, aad, crypto::ICV as u8, &mut packet)?;
    if opens {
        aead.open(&mut [job], verified);
    } else {
        aead.seal(&mut [job]);
        drop(packet);
        if sa.outer.has_checksum() {
            let (from, to) = (edges.0.checked_add_signed(-start)?, edges.1.checked_add_signed(-start)?);
            chain.copy_to(edges.0, &mut frame.bytes_mut()[from..to]);
        }
    }
    Some(())
}

/// The segments of a frame, apart.
struct Chain<'a> {
    first: &'a mut Frame,
    rest: ArrayVec<Frame, SEGMENTS>,
}

impl<'a> Chain<'a> {
    /// There is room for as many.
    fn of(first: &'a mut Frame) -> Chain<'a> {
        let (mut rest, mut tail) = (ArrayVec::new(), first.take_tail());
        while let Some(mut segment) = tail {
            tail = segment.take_tail();
            rest.push(segment);
        }
        Chain { first, rest }
    }

    /// One frame again.
    fn join(self) {
        self.rest.into_iter().for_each(|segment| self.first.append(segment));
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Frame> {
        [&mut *self.first].into_iter().chain(&mut self.rest)
    }

    /// Octets.
    fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Frame::len).sum::<usize>()
    }

    /// What of the segments is within these places, that is not empty.
    fn segments<'s, const N: usize>(&'s mut self, of: Range<usize>, to: &mut ArrayVec<&'s mut [u8], N>) {
        let mut at = 0;
        for segment in self.iter_mut() {
            let len = segment.len();
            let (from, end) = (of.start.clamp(at, at + len), of.end.clamp(at, at + len));
            if from < end {
                to.push(&mut segment.bytes_mut()[from - at..end - at]);
            }
            at += len;
        }
    }

    /// Copies what is from this place on, as much as there is room for.
    fn copy_to(&mut self, from: usize, mut to: &mut [u8]) {
        let mut segments = ArrayVec::<_, SEGMENTS>::new();
        self.segments(from..from + to.len(), &mut segments);
        for segment in segments {
            to[..segment.len()].copy_from_slice(segment);
            to = &mut to[segment.len()..];
        }
    }

    /// The other way.
    fn copy_from(&mut self, at: usize, mut from: &[u8]) {
        let mut segments = ArrayVec::<_, SEGMENTS>::new();
        self.segments(at..at + from.len(), &mut segments);
        for segment in segments {
            let (now, rest) = from.split_at(segment.len());
            segment.copy_from_slice(now);
            from = rest;
        }
    }

    /// Makes the chain what the hops have made of their frame: its edges, and between them what is in the chain.
    fn take_over(&mut self, made: &Frame, edges: &Edges, cache: &mut FrameCache) -> Result<(), DropReason> {
        let (start, bytes) = (start(made), made.bytes());
        let pushed = start.min(0).unsigned_abs();
        let end = start.saturating_add_unsigned(bytes.len()).max(0) as usize;
        if !self.resize(end, cache) {
            return Err(DropReason::NoFrame);
        }
        // From a place on in what was made: nothing, if it does not reach as far.
        let place = |at: usize| at.saturating_add_signed(-start).min(bytes.len());
        let from = start.max(0) as usize;
        self.copy_from(from, &bytes[pushed..place(edges.0.max(from))]);
        self.copy_from(edges.1.max(from), &bytes[place(edges.1.max(from))..]);
        if !self.first.push(pushed) {
            return Err(DropReason::NoHeadroom);
        }
        self.first.bytes_mut()[..pushed].copy_from_slice(&bytes[..pushed]);
        let mut pulled = from;
        for segment in self.iter_mut() {
            let n = pulled.min(segment.len());
            segment.pull(n);
            pulled -= n;
        }
        Ok(())
    }

    /// Cuts the chain or adds to it, what there is room for and segments from `cache`. False if there are too few.
    fn resize(&mut self, len: usize, cache: &mut FrameCache) -> bool {
        let mut now = self.len();
        while let Some(last) = self.rest.last()
            && now - last.len() >= len
        {
            now -= last.len();
            self.rest.pop().into_iter().for_each(|last| cache.give(last));
        }
        let last = self.rest.last_mut().unwrap_or(self.first);
        last.truncate(last.len().saturating_sub(now.saturating_sub(len)));
        let mut missing = len.saturating_sub(now);
        let mut extended = |segment: &mut Frame| {
            let n = missing.min(segment.tailroom());
            missing -= n;
            segment.extend(n) && missing > 0
        };
        let mut more = extended(last);
        while more {
            let Some(mut segment) = cache.take() else { return false };
            more = extended(&mut segment);
            if let Err(full) = self.rest.try_push(segment) {
                cache.give(full.element());
                return false;
            }
        }
        true
    }
}
