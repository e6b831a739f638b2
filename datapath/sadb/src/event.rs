//! Events from a worker to iked: one ring per worker, one writer, one reader.
//!
//! Records and head are in the runtime region, written by the worker; the tail is in the SADB region, written
//! by iked: each region keeps its one writer. A full ring counts what it loses and never blocks.

use crate::{
    Endpoint, Generation, SlotIndex,
    layout::shared,
    sync::{AtomicU64, Ordering},
    udp::ENDPOINT_WORDS,
};

/// Records in a ring.
pub const EVENTS: usize = if cfg!(loom) { 2 } else { 512 };

/// Words of an event about the packet that it came with.
pub const ABOUT: usize = 5;

/// What happened, as a rule to an SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum EventKind {
    /// The outbound sequence number is used up (RFC 4303 §3.3.3).
    SeqExhausted = 1,
    /// Nine tenths of the sequence numbers are used.
    SeqLow = 2,
    /// A soft limit is reached: time for another SA (RFC 4301 §4.4.2.1).
    SoftLifetime = 3,
    /// A hard limit is reached: no packet passes any more.
    HardLifetime = 4,
    /// No packet has come or gone for as long as the SA may be idle.
    Idle = 5,
    /// The newest packet of an inbound SA came from another place, which is in `about` (RFC 7296 §2.23).
    PeerMoved = 6,
    /// A packet is for a policy that has no SA (RFC 4301 §5.1): `value` is the index of the policy, `about` the packet's
    /// [`Flow::words`](crate::Flow::words). It is of no SA.
    Acquire = 7,
}

/// An event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Of which SA.
    pub slot: SlotIndex,
    /// And which of that slot.
    pub generation: Generation,
    /// More about it, by kind: a sequence number; for lifetimes the octets so far.
    pub value: u64,
    /// The packet that it is about, by kind; else zeros.
    pub about: [u64; ABOUT],
}

impl Event {
    /// That the peer of an inbound SA is there now.
    pub fn peer_moved(slot: SlotIndex, generation: Generation, to: Endpoint) -> Event {
        let mut about = [0; ABOUT];
        about[..ENDPOINT_WORDS].copy_from_slice(&to.to_words());
        Event { kind: EventKind::PeerMoved, slot, generation, value: 0, about }
    }

    /// Where the peer is, if this says so.
    pub fn endpoint(&self) -> Option<Endpoint> {
        let words = self.about.first_chunk()?;
        Endpoint::from_words(words).filter(|_| self.kind == EventKind::PeerMoved)
    }
}

shared! {
    #[repr(C, align(64))]
    struct Record {
        kind_slot: AtomicU64,
        generation: AtomicU64,
        value: AtomicU64,
        about: [AtomicU64; ABOUT],
    }
}

shared! {
    /// One worker's ring.
    #[repr(C, align(64))]
    pub(crate) struct EventRing {
        head: AtomicU64,
        lost: AtomicU64,
        reserved: [AtomicU64; 6],
        records: [Record; EVENTS],
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<EventRing>() == 64 + EVENTS * 64);

impl EventRing {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> EventRing {
        let zero = || AtomicU64::new(0);
        let record = || Record {
            kind_slot: zero(),
            generation: zero(),
            value: zero(),
            about: std::array::from_fn(|_| zero()),
        };
        EventRing {
            head: zero(),
            lost: zero(),
            reserved: std::array::from_fn(|_| zero()),
            records: std::array::from_fn(|_| record()),
        }
    }

    /// Worker: appends an event, or counts it as lost; whether it is there. What anybody's packets ask for has half of the
    /// ring at most, and whoever tells it counts what is lost of it.
    pub(crate) fn push(&self, tail: &AtomicU64, event: &Event) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        if event.kind == EventKind::Acquire
            && head.wrapping_sub(tail.load(Ordering::Acquire)) >= EVENTS as u64 / 2
        {
            return false;
        }
        // Pairs with the Release in `pop`: the reader has done with the record that we overwrite.
        if head.wrapping_sub(tail.load(Ordering::Acquire)) >= EVENTS as u64 {
            self.lost.store(self.lost.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            return false;
        }
        let record = &self.records[head as usize % EVENTS];
        record.kind_slot.store(event.kind as u64 | (event.slot.0 as u64) << 32, Ordering::Relaxed);
        record.generation.store(event.generation.0, Ordering::Relaxed);
        record.value.store(event.value, Ordering::Relaxed);
        for (word, value) in record.about.iter().zip(event.about) {
            word.store(value, Ordering::Relaxed);
        }
        self.head.store(head.wrapping_add(1), Ordering::Release); // pairs with the Acquire in `pop`
        true
    }

    /// iked: takes the oldest event.
    pub(crate) fn pop(&self, tail: &AtomicU64) -> Option<Event> {
        loop {
            let at = tail.load(Ordering::Relaxed);
            let head = self.head.load(Ordering::Acquire); // pairs with the Release in `push`
            if at == head {
                return None;
            }
            // A head that no ring can have: take it as the truth rather than read old records for ever.
            if head.wrapping_sub(at) > EVENTS as u64 {
                tail.store(head, Ordering::Release);
                return None;
            }
            let record = &self.records[at as usize % EVENTS];
            let kind_slot = record.kind_slot.load(Ordering::Relaxed);
            let (generation, value) =
                (record.generation.load(Ordering::Relaxed), record.value.load(Ordering::Relaxed));
            let about = std::array::from_fn(|i| record.about[i].load(Ordering::Relaxed));
            tail.store(at.wrapping_add(1), Ordering::Release); // pairs with the Acquire in `push`
            let kind = match kind_slot as u32 {
                1 => EventKind::SeqExhausted,
                2 => EventKind::SeqLow,
                3 => EventKind::SoftLifetime,
                4 => EventKind::HardLifetime,
                5 => EventKind::Idle,
                6 => EventKind::PeerMoved,
                7 => EventKind::Acquire,
                _ => continue,
            };
            let slot = SlotIndex((kind_slot >> 32) as u32);
            return Some(Event { kind, slot, generation: Generation(generation), value, about });
        }
    }

    /// Events lost since the region was made.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
