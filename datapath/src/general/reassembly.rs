//! Datagrams put together from their fragments (RFC 791 §3.2, RFC 8200 §4.5), in bounded memory and time.
//!
//! Anybody can send fragments, so all that they make us keep is counted: blocks of one arena, datagrams of one table,
//! ranges of one datagram. When there is no room the datagram that came first goes. Nothing is ever overwritten:
//! - a fragment that overlaps another, or says another end, takes its whole datagram with it (RFC 5722 §4); so it is
//!   with IPv4, where the order of arrival must not decide what a policy sees. One that is held already, octet by
//!   octet, is ignored, as RFC 8200 §4.5 allows: networks duplicate packets;
//! - a fragment that is wrong in itself is dropped alone, since whoever sent it need not be the sender of the rest;
//! - a refused datagram is remembered for as long as it would have been waited for, so that a later fragment does not
//!   begin it anew.
//!
//! All fragments of a datagram come to one worker. Time does not go back.

mod arena;
mod piece;
mod table;

use super::{
    From,
    fragment::{HEAD, Head, write_checksum},
    headers::Headers,
};
use crate::{
    drop::DropReason,
    wire::{Addr, IPV6, protocol},
};
use arena::{Arena, BLOCK};
use piece::Piece;
use table::{Key, Slot, Table};

/// What is held at most, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Octets of data of all datagrams together.
    pub octets: usize,
    /// Datagrams, refused ones included.
    pub datagrams: usize,
    /// Fragments of one datagram.
    pub fragments: usize,
    /// How long an IPv4 datagram is waited for. RFC 1122 §3.3.2 has 60 to 120 s, RFC 791 §3.2 15 s; hosts take 30 s.
    pub v4_ms: u64,
    /// How long an IPv6 datagram is waited for (RFC 8200 §4.5).
    pub v6_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { octets: 4 << 20, datagrams: 1024, fragments: 64, v4_ms: 30_000, v6_ms: 60_000 }
    }
}

/// What became of a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The datagram is whole, so many octets.
    Done(usize),
    /// It is kept, and the others are waited for.
    Held,
    /// It is dropped; perhaps with others of its datagram, see [`Reassembly::drain_drops`].
    Refused(DropReason),
}

/// A datagram whose time is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expired<'a> {
    /// Where its fragments came from.
    pub from: From,
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// The first fragment as it came, if it did: what a "time exceeded" is about (RFC 8200 §4.5, RFC 792).
    pub first: Option<&'a [u8]>,
}

/// Octets of the largest packet.
pub const LARGEST: usize = u16::MAX as usize;

/// Blocks of the largest datagram.
const BLOCKS: usize = LARGEST.div_ceil(BLOCK);

/// Octets `start..end` of a datagram's data, both at most 65,535.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    start: u16,
    end: u16,
}

/// A datagram that is not whole yet.
struct Datagram {
    /// Headers of the first fragment, if it came; with the fragment header, if IPv6.
    head: Head,
    /// Of IPv6: the octet of `head` that names the fragment header.
    named_at: u8,
    ranges: Vec<Range>,
    /// Where the data are: a block's number by offset.
    blocks: [Option<u16>; BLOCKS],
    /// Octets of data that came.
    received: u32,
    /// Octets of all data, once the last fragment came.
    total: Option<u16>,
    /// The ECN values that came, as bits.
    ecn: u8,
    /// If it is refused, why.
    refused: Option<DropReason>,
}

impl Datagram {
    fn new(fragments: usize) -> Datagram {
        Datagram {
            head: Head::new(),
            named_at: 0,
            ranges: Vec::with_capacity(fragments),
            blocks: [None; BLOCKS],
            received: 0,
            total: None,
            ecn: 0,
            refused: None,
        }
    }

    /// Becomes one of which nothing came, and gives its blocks back. Returns how many fragments it held.
    fn clear(&mut self, arena: &mut Arena) -> usize {
        self.blocks.iter_mut().filter_map(Option::take).for_each(|block| arena.give(block));
        let held = self.ranges.len();
        self.head.clear();
        self.ranges.clear();
        (self.received, self.total, self.ecn, self.refused) = (0, None, 0, None);
        held
    }

    /// Whether a fragment goes with those that came.
    fn check(&self, piece: &Piece<'_>, range: Range, arena: &Arena) -> Result<(), DropReason> {
        for held in &self.ranges {
            if *held == range && self.is_copy(piece, arena) {
                return Err(DropReason::FragmentDuplicate);
            }
            if held.start < range.end && range.start < held.end {
                return Err(DropReason::FragmentOverlap); // RFC 5722 §4
            }
            if !piece.more && held.end > range.end {
                return Err(DropReason::FragmentOverlap);
            }
        }
        match self.total {
            Some(total) if range.end > total => Err(DropReason::FragmentOverlap),
            _ if self.ranges.len() == self.ranges.capacity() => Err(DropReason::FragmentTooMany),
            _ => Ok(()),
        }
    }

    fn is_copy(&self, piece: &Piece<'_>, arena: &Arena) -> bool {
        let is_last = self.total == Some((piece.offset + piece.data.len()) as u16);
        is_last != piece.more
            && spans(piece.offset, piece.data.len()).all(|span| {
                let held = self.blocks[span.block].map(|block| &arena.block(block)[span.in_block()]);
                held == Some(&piece.data[span.at..][..span.octets])
            })
    }

    /// The blocks that a fragment needs and the datagram has not.
    fn missing_blocks(&self, piece: &Piece<'_>) -> usize {
        spans(piece.offset, piece.data.len()).filter(|span| self.blocks[span.block].is_none()).count()
    }

    /// Takes a fragment that was checked, for which the arena has room.
    fn take(&mut self, piece: &Piece<'_>, range: Range, arena: &mut Arena) {
        for span in spans(piece.offset, piece.data.len()) {
            let block = *self.blocks[span.block].get_or_insert_with(|| arena.take());
            arena.block_mut(block)[span.in_block()].copy_from_slice(&piece.data[span.at..][..span.octets]);
        }
        self.ranges.push(range);
        self.received += piece.data.len() as u32;
        self.ecn |= 1 << piece.ecn;
        if !piece.more {
            self.total = Some(range.end);
        }
        if piece.offset == 0 {
            self.head = Head::try_from(piece.head).expect("its length was checked");
            self.named_at = piece.named_at;
        }
    }

    /// The data from the start, so many octets, all of which came.
    fn copy_data(&self, out: &mut [u8], arena: &Arena) {
        for span in spans(0, out.len()) {
            let block = self.blocks[span.block].expect("all data came");
            out[span.at..][..span.octets].copy_from_slice(&arena.block(block)[span.in_block()]);
        }
    }

    /// Writes the whole datagram.
    fn emit(&self, out: &mut [u8], arena: &Arena) -> Result<usize, DropReason> {
        let ecn = combined_ecn(self.ecn, self.head[1] >> self.ecn_shift() & 3)?;
        let data = self.received as usize;
        let head = self.head.len() - if self.is_v4() { 0 } else { super::fragment::FRAGMENT_HEADER };
        let len = head + data;
        if len > LARGEST || len > out.len() {
            return Err(DropReason::ReassemblyTooLong);
        }
        out[..head].copy_from_slice(&self.head[..head]);
        out[1] = out[1] & !(3 << self.ecn_shift()) | ecn << self.ecn_shift();
        if self.is_v4() {
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            out[6] &= 0xc0; // neither MF nor offset
            out[7] = 0;
            write_checksum(&mut out[..head]);
        } else {
            // RFC 8200 §4.5: what named the fragment header names what was behind that of the first fragment.
            out[self.named_at as usize] = self.head[head];
            out[4..6].copy_from_slice(&((len - IPV6) as u16).to_be_bytes());
        }
        self.copy_data(&mut out[head..len], arena);
        Ok(len)
    }

    fn is_v4(&self) -> bool {
        self.head[0] >> 4 == 4
    }

    /// Where the ECN bits are in the second octet.
    fn ecn_shift(&self) -> u8 {
        if self.is_v4() { 0 } else { 4 }
    }
}

/// The ECN of a datagram from those of its fragments, as bits, and that of its first (RFC 3168 §5.3).
fn combined_ecn(seen: u8, first: u8) -> Result<u8, DropReason> {
    const NOT_ECT: u8 = 1 << 0;
    const CE: u8 = 1 << 3;
    match (seen & CE != 0, seen & NOT_ECT != 0) {
        (true, true) => Err(DropReason::EcnDrop),
        (true, false) => Ok(3),
        _ => Ok(first),
    }
}

/// A part of a fragment's data that lies in one block.
struct Span {
    block: usize,
    from: usize,
    octets: usize,
    /// Where it is in the data.
    at: usize,
}

impl Span {
    fn in_block(&self) -> std::ops::Range<usize> {
        self.from..self.from + self.octets
    }
}

/// The blocks that so many octets at an offset lie in.
fn spans(offset: usize, octets: usize) -> impl Iterator<Item = Span> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let from = (offset + at) % BLOCK;
        let n = (BLOCK - from).min(octets - at);
        let span = Span { block: (offset + at) / BLOCK, from, octets: n, at };
        at += n;
        (n > 0).then_some(span)
    })
}

/// The datagrams of a worker that are not whole yet.
pub struct Reassembly {
    table: Table,
    arena: Arena,
    limits: Limits,
    /// Fragments that were held, and dropped after all, by reason.
    drops: [u64; DropReason::ALL.len()],
    /// Where a first fragment is put together again when its datagram's time is over.
    first: Box<[u8]>,
}

impl Reassembly {
    /// Takes all memory that it will ever have.
    ///
    /// # Panics
    /// If the limits are such that nothing can be held, or more than 65,534 datagrams or blocks of 2 KiB.
    pub fn new(limits: Limits) -> Reassembly {
        let table = Table::new(limits.datagrams, limits.fragments);
        let first = vec![0; HEAD + LARGEST].into_boxed_slice();
        let drops = [0; DropReason::ALL.len()];
        Reassembly { table, arena: Arena::new(limits.octets), limits, drops, first }
    }

    /// Takes a fragment; writes the datagram to `out`, of at least [`LARGEST`] octets, if that makes it whole. A packet
    /// that is no fragment, or an atomic one (RFC 6946 §4), is whole by itself. What came out of an SA and what did not are
    /// never of one datagram.
    pub fn insert(&mut self, from: From, now_ms: u64, packet: &[u8], out: &mut [u8]) -> Outcome {
        match Piece::parse(from, packet).and_then(|piece| self.take(now_ms, &piece, out)) {
            Ok(Some(len)) => Outcome::Done(len),
            Ok(None) => Outcome::Held,
            Err(reason) => Outcome::Refused(reason),
        }
    }

    fn take(&mut self, now_ms: u64, piece: &Piece<'_>, out: &mut [u8]) -> Result<Option<usize>, DropReason> {
        if piece.is_whole() {
            return piece.emit(out).map(Some);
        }
        let slot = match self.table.find(&piece.key) {
            Some(slot) => slot,
            None => self.open(now_ms, piece.key),
        };
        let datagram = self.table.datagram(slot);
        if let Some(reason) = datagram.refused {
            return Err(reason);
        }
        let range = Range { start: piece.offset as u16, end: (piece.offset + piece.data.len()) as u16 };
        match datagram.check(piece, range, &self.arena) {
            Ok(()) => {}
            Err(reason @ DropReason::FragmentDuplicate) => return Err(reason),
            Err(reason) => return Err(self.refuse(now_ms, slot, reason)),
        }
        let blocks = datagram.missing_blocks(piece);
        self.make_room(slot, blocks)?;
        let datagram = self.table.datagram_mut(slot);
        datagram.take(piece, range, &mut self.arena);
        if datagram.total.is_none_or(|total| total as u32 != datagram.received) {
            return Ok(None);
        }
        match datagram.emit(out, &self.arena) {
            Ok(len) => {
                datagram.clear(&mut self.arena);
                self.table.remove(slot);
                Ok(Some(len))
            }
            Err(reason) => {
                datagram.ranges.pop(); // this fragment is the caller's to count
                Err(self.refuse(now_ms, slot, reason))
            }
        }
    }

    /// Begins a datagram, instead of the oldest if there is no room.
    fn open(&mut self, now_ms: u64, key: Key) -> Slot {
        if self.table.is_full() {
            let oldest = self.table.oldest(true).expect("it is full");
            self.evict(oldest);
        }
        let deadline_ms = now_ms + self.patience_ms(key.src.v4);
        self.table.insert(key, now_ms, deadline_ms)
    }

    fn patience_ms(&self, v4: bool) -> u64 {
        if v4 { self.limits.v4_ms } else { self.limits.v6_ms }
    }

    /// Makes the arena have so many blocks for a datagram, and takes them from the oldest others.
    fn make_room(&mut self, slot: Slot, blocks: usize) -> Result<(), DropReason> {
        while self.arena.free() < blocks {
            let oldest = self.table.oldest(false).expect("blocks are held by datagrams");
            self.evict(oldest);
            if oldest == slot {
                return Err(DropReason::FragmentEvicted);
            }
        }
        Ok(())
    }

    fn evict(&mut self, slot: Slot) {
        let held = self.table.datagram_mut(slot).clear(&mut self.arena);
        self.drops[DropReason::FragmentEvicted as usize] += held as u64;
        self.table.remove(slot);
    }

    /// Drops what is held of a datagram, and remembers it as refused.
    fn refuse(&mut self, now_ms: u64, slot: Slot, reason: DropReason) -> DropReason {
        let datagram = self.table.datagram_mut(slot);
        self.drops[reason as usize] += datagram.clear(&mut self.arena) as u64;
        datagram.refused = Some(reason);
        let deadline_ms = now_ms + self.patience_ms(self.table.key(slot).src.v4);
        self.table.bury(slot, now_ms, deadline_ms);
        reason
    }

    /// Gives up the datagrams whose time is over, and tells of each that was not refused before.
    pub fn expire(&mut self, now_ms: u64, mut each: impl FnMut(Expired<'_>)) {
        while let Some(slot) = self.table.due(now_ms) {
            let (key, datagram) = (*self.table.key(slot), self.table.datagram(slot));
            if datagram.refused.is_none() {
                let first = datagram.ranges.iter().find(|r| r.start == 0).map(|range| {
                    let head = datagram.head.len();
                    let len = head + range.end as usize;
                    self.first[..head].copy_from_slice(&datagram.head);
                    datagram.copy_data(&mut self.first[head..len], &self.arena);
                    &self.first[..len]
                });
                each(Expired { from: key.from, src: key.src, dst: key.dst, first });
            }
            let held = self.table.datagram_mut(slot).clear(&mut self.arena);
            self.drops[DropReason::FragmentTimeout as usize] += held as u64;
            self.table.remove(slot);
        }
    }

    /// Tells how many fragments were [`Held`](Outcome::Held) and dropped after all, by reason, since it was last asked.
    /// With those that were refused on arrival, each fragment is then counted once.
    pub fn drain_drops(&mut self, mut each: impl FnMut(DropReason, u64)) {
        for (reason, n) in DropReason::ALL.iter().zip(&mut self.drops) {
            if *n > 0 {
                each(*reason, std::mem::take(n));
            }
        }
    }

    /// Datagrams that are remembered now, refused ones included.
    pub fn datagrams(&self) -> usize {
        self.table.len()
    }

    /// Octets of the arena that are taken now.
    pub fn octets(&self) -> usize {
        self.arena.taken() * BLOCK
    }
}

#[cfg(test)]
mod tests;
