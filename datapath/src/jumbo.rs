//! Jumbo packets, in several chunks of the umem: as one for the hops, in place for the AEAD.
//!
//! Hops look at a packet's headers, and at its trailer. So they get a frame as long as the packet, into which only its
//! two ends are copied; what is between them stays in the chain, where it is sealed or opened. What the hops have made
//! of the ends goes back.
//!
//! ```text
//!  chain              | headers  text ............|.................|.......... trailer  ICV |
//!  what the hops get  | headers  text                                        .. trailer  ICV |
//!                     0           EDGE                                  END
//! ```
//!
//! Places are octets from where the frame as received begins; headers that the hops push are in front of 0.
//!
//! Dangers: between the ends is what was there before, of other packets. No hop may believe it: packets whose headers
//! reach that far are dropped, whatever was made of them. And it must not leave, nor what was in clear where the chain
//! is sealed by now: of a sealed packet, only what is in front of its ESP header goes back.

use crate::{
    batch::{Batch, Meta, Stage},
    crypto::{self, Job},
    drop::DropReason,
    esp,
    frame::Frame,
    general::Why,
    inbound::Verified,
    pool::{FrameCache, RX_OFFSET},
    sa::SaTable,
    wire,
    worker::Hops,
};
use arrayvec::ArrayVec;

/// Octets at the beginning that are copied: Ethernet, IP, UDP, ESP, and what is inside, with more options than there
/// should be.
const EDGE: usize = 256;

/// Octets at the end of what was opened: padding (RFC 4303 §2.4), pad length and next header, ICV.
const END: usize = u8::MAX as usize + 2 + crypto::ICV;

/// Octets that may be looked at behind the last header that is gone over: of UDP and ESP, or of ESP and an IV.
const PEEKED: usize = 16;

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

    /// Takes one through.
    pub(crate) fn run(
        &mut self,
        frame: &mut Frame,
        meta: &mut Meta,
        hops: &mut Hops,
        cache: &mut FrameCache,
    ) {
        if meta.stage != Stage::Received {
            return;
        }
        let Some(mut buffer) = self.buffer.take() else { return };
        buffer.reset(RX_OFFSET);
        if frame.segments() >= SEGMENTS || !buffer.extend(frame.total_len()) {
            meta.stage = go_generally(frame);
            self.buffer = Some(buffer);
            return;
        }
        self.batch.frames.push(buffer);
        // Not what is left of another's headers: they are looked at whatever the packet is.
        self.batch.metas[0] = Meta::NONE;
        let mut chain = Chain::of(frame);
        if let Err(reason) = pass(&mut self.batch, &mut chain, hops, cache) {
            self.batch.metas[0].stage = Stage::Drop(reason);
        }
        (*meta, self.buffer) = (self.batch.metas[0], self.batch.frames.pop());
        chain.join();
        // As it was received, from its IP header on.
        match meta.stage {
            Stage::General(Why::Onward) => {}
            Stage::General(_) | Stage::Unkeyed => frame.pull(meta.l3 as usize),
            Stage::Drop(_) if meta.proof.is_none() => frame.pull(meta.l3 as usize),
            _ => {}
        }
    }
}

/// What has no room here has some there.
fn go_generally(frame: &mut Frame) -> Stage {
    match wire::ethernet(frame.bytes()) {
        Ok((wire::ETHERTYPE_IPV4 | wire::ETHERTYPE_IPV6, at)) => {
            frame.pull(at);
            Stage::General(Why::Received)
        }
        Ok(_) => Stage::Drop(DropReason::LocalDelivery),
        Err(reason) => Stage::Drop(reason),
    }
}

/// All hops, and the AEAD between them. The chain becomes what the hops say, if it is to be sent.
fn pass(
    batch: &mut Batch,
    chain: &mut Chain<'_>,
    hops: &mut Hops,
    cache: &mut FrameCache,
) -> Result<(), DropReason> {
    let total = chain.len();
    let edge = EDGE.min(total) as isize;
    // Whether an IP packet's headers, and the ports behind them, were there for the hops to see.
    let were_there = |ip_at: isize, payload: usize| {
        edge == total as isize || ip_at.saturating_add_unsigned(payload + PEEKED) <= edge
    };
    let Some(frame) = batch.frames.first_mut() else { return Ok(()) };
    chain.copy_to(0, &mut frame.bytes_mut()[..edge as usize]);
    hops.prepare(batch, &mut ());
    let mut verified = Verified::new();
    let (Some(frame), Some(meta)) = (batch.frames.first_mut(), batch.metas.first_mut()) else {
        return Ok(());
    };
    let is_dropped = matches!(meta.stage, Stage::Drop(_));
    if !is_dropped && !were_there(meta.l3 as isize, meta.ip.payload().max(meta.esp.at as usize)) {
        return Err(DropReason::Malformed);
    }
    match meta.stage {
        Stage::Outbound => {
            // What was put in front of the inner packet, and behind it.
            chain.take_over(frame, (edge, (meta.l3 as usize + meta.ip.len()) as isize), cache)?;
            seal_or_open(chain, meta, &mut hops.sas, &mut verified).ok_or(DropReason::Malformed)?;
            if hops.sas.get(meta.sa).outer.has_checksum() {
                chain.copy_to(chain.start, frame.bytes_mut());
            }
        }
        Stage::Inbound => {
            chain.take_over(frame, (0, isize::MAX), cache)?;
            seal_or_open(chain, meta, &mut hops.sas, &mut verified).ok_or(DropReason::Malformed)?;
            let (start, len) = (chain.start, frame.len());
            let edge = (edge - start).clamp(0, len as isize) as usize;
            chain.copy_to(start, &mut frame.bytes_mut()[..edge]);
            let end = len.saturating_sub(END);
            chain.copy_to(start.saturating_add_unsigned(end), &mut frame.bytes_mut()[end..]);
        }
        _ => {}
    }
    hops.finish(batch, &verified, &mut ());
    let (Some(frame), Some(meta)) = (batch.frames.first(), batch.metas.first()) else { return Ok(()) };
    match meta.stage {
        Stage::Sealed => {
            let esp = start(frame).saturating_add_unsigned(meta.esp.at as usize);
            chain.take_over(frame, (esp, isize::MAX), cache)
        }
        Stage::Forward | Stage::General(Why::Onward) => {
            if !were_there(start(frame), meta.ip.payload()) {
                return Err(DropReason::Malformed);
            }
            chain.take_over(frame, (edge, isize::MAX), cache)
        }
        _ => return Ok(()),
    }?;
    chain.tidy(cache);
    Ok(())
}

/// Where the packet in the hops' frame begins, which may be in front of the chain's.
fn start(frame: &Frame) -> isize {
    frame.offset() as isize - RX_OFFSET as isize
}

/// The AEAD, of a chain that is the packet as the hops have prepared it. `None`: it cannot.
fn seal_or_open(
    chain: &mut Chain<'_>,
    meta: &Meta,
    sas: &mut SaTable,
    verified: &mut Verified,
) -> Option<()> {
    let opens = meta.stage == Stage::Inbound;
    let aead = sas.aead();
    let (states, keys) = sas.split();
    let sa = states.get(meta.sa as usize)?.as_ref()?;
    let key = keys.get(meta.sa as usize)?.as_ref()?;
    let mut iv = meta.seq.to_be_bytes();
    let from = chain.start.saturating_add_unsigned(meta.esp.at as usize);
    if opens {
        chain.copy_to(from.saturating_add_unsigned(wire::ESP), &mut iv);
    }
    let mut packet = ArrayVec::<&mut [u8], SEGMENTS>::new();
    chain.each(from, isize::MAX, |octets| packet.push(octets));
    let aad = crypto::aad(sa.spi, meta.seq, sa.esn);
    let job = Job::scattered(key, iv, aad, crypto::ICV as u8, &mut packet)?;
    if opens {
        aead.open(&mut [job], verified)
    } else {
        aead.seal(&mut [job])
    }
    Some(())
}

/// The segments of a frame, apart.
struct Chain<'a> {
    first: &'a mut Frame,
    rest: ArrayVec<Frame, SEGMENTS>,
    /// The place of its first octet.
    start: isize,
}

impl<'a> Chain<'a> {
    /// There is room for as many.
    fn of(first: &'a mut Frame) -> Chain<'a> {
        let (mut rest, mut tail) = (ArrayVec::new(), first.take_tail());
        while let Some(mut segment) = tail {
            tail = segment.take_tail();
            rest.push(segment);
        }
        Chain { first, rest, start: 0 }
    }

    /// One frame again.
    fn join(mut self) {
        self.rest.drain(..).for_each(|segment| self.first.append(segment));
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Frame> {
        [&mut *self.first].into_iter().chain(&mut self.rest)
    }

    /// Octets.
    fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Frame::len).sum::<usize>()
    }

    /// What of the segments is from one place to another, that is not empty.
    fn each<'s>(&'s mut self, from: isize, to: isize, mut found: impl FnMut(&'s mut [u8])) {
        let mut at = self.start;
        for segment in self.iter_mut() {
            let len = segment.len();
            let within = |place: isize| place.saturating_sub(at).clamp(0, len as isize) as usize;
            let octets = within(from)..within(to);
            if !octets.is_empty() {
                found(&mut segment.bytes_mut()[octets]);
            }
            at += len as isize;
        }
    }

    /// Copies what is from a place on, as much as there is room for.
    fn copy_to(&mut self, from: isize, to: &mut [u8]) {
        let mut done = 0;
        self.each(from, from.saturating_add_unsigned(to.len()), |octets| {
            to[done..done + octets.len()].copy_from_slice(octets);
            done += octets.len();
        });
    }

    /// The other way.
    fn copy_from(&mut self, at: isize, from: &[u8]) {
        let mut done = 0;
        self.each(at, at.saturating_add_unsigned(from.len()), |octets| {
            octets.copy_from_slice(&from[done..done + octets.len()]);
            done += octets.len();
        });
    }

    /// Begins and ends where the hops' frame does, and takes of it what is in front of one place, and from another on.
    fn take_over(
        &mut self,
        made: &Frame,
        (front, back): (isize, isize),
        cache: &mut FrameCache,
    ) -> Result<(), DropReason> {
        let (start, bytes) = (start(made), made.bytes());
        let pushed = self.start.saturating_sub(start).max(0) as usize;
        if !self.first.push(pushed) {
            return Err(DropReason::NoHeadroom);
        }
        let mut pulled = start.saturating_sub(self.start).max(0) as usize;
        for segment in self.iter_mut() {
            let n = pulled.min(segment.len());
            segment.pull(n);
            pulled -= n;
        }
        self.start = start;
        if !self.resize(bytes.len(), cache) {
            return Err(DropReason::NoFrame);
        }
        let within = |place: isize| place.saturating_sub(start).clamp(0, bytes.len() as isize) as usize;
        self.copy_from(start, &bytes[..within(front)]);
        self.copy_from(back.max(start), &bytes[within(back)..]);
        Ok(())
    }

    /// Brings the IP header into the first segment, and lets go of those that are empty.
    fn tidy(&mut self, cache: &mut FrameCache) {
        let have = self.first.len();
        let wanted = wire::IPV6.saturating_sub(have).min(self.len() - have);
        if wanted > 0 && self.first.extend(wanted) {
            let mut to = &mut self.first.bytes_mut()[have..];
            for segment in &mut self.rest {
                let (now, rest) = to.split_at_mut(to.len().min(segment.len()));
                now.copy_from_slice(&segment.bytes()[..now.len()]);
                segment.pull(now.len());
                to = rest;
            }
        }
        while let Some(i) = self.rest.iter().position(|segment| segment.len() == 0) {
            cache.give(self.rest.remove(i));
        }
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
