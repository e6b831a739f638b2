//! The datagrams by what names them, and by age.

use super::Datagram;
use crate::{general::From, wire::Addr};
use std::hash::{BuildHasher, Hash, RandomState};

/// What the fragments of a datagram have in common (RFC 791 §3.2, RFC 8200 §4.5), and where they come from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub from: From,
    pub src: Addr,
    pub dst: Addr,
    pub id: u32,
    /// Of IPv4; 0 for IPv6.
    pub protocol: u8,
}

/// A place in the table.
pub(super) type Slot = u16;

/// Where no slot is.
const NONE: Slot = Slot::MAX;

struct Entry {
    key: Key,
    since_ms: u64,
    deadline_ms: u64,
    queue: u8,
    older: Slot,
    younger: Slot,
    /// The next of its bucket, or of the free ones.
    next: Slot,
    datagram: Datagram,
}

/// Entries by age.
#[derive(Clone, Copy)]
struct Queue {
    oldest: Slot,
    youngest: Slot,
}

/// In each queue all wait equally long, so that the oldest is due first. IPv4, IPv6, and the refused of either.
const QUEUES: usize = 4;

pub(super) struct Table {
    entries: Box<[Entry]>,
    buckets: Box<[Slot]>,
    free: Slot,
    len: usize,
    queues: [Queue; QUEUES],
    /// With a key of its own, so that nobody can choose identifications that meet in a bucket.
    hasher: RandomState,
}

impl Table {
    pub fn new(datagrams: usize, fragments: usize) -> Table {
        assert!((1..NONE as usize).contains(&datagrams) && fragments > 0, "{datagrams}, {fragments}");
        let nobody = Addr { bits: 0, v4: true };
        let entry = |slot: usize| Entry {
            key: Key { from: From::Clear, src: nobody, dst: nobody, id: 0, protocol: 0 },
            since_ms: 0,
            deadline_ms: 0,
            queue: 0,
            older: NONE,
            younger: NONE,
            next: if slot + 1 < datagrams { slot as Slot + 1 } else { NONE },
            datagram: Datagram::new(fragments),
        };
        Table {
            entries: (0..datagrams).map(entry).collect(),
            buckets: vec![NONE; datagrams.next_power_of_two()].into_boxed_slice(),
            free: 0,
            len: 0,
            queues: [Queue { oldest: NONE, youngest: NONE }; QUEUES],
            hasher: RandomState::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_full(&self) -> bool {
        self.free == NONE
    }

    pub fn key(&self, slot: Slot) -> &Key {
        &self.entries[slot as usize].key
    }

    pub fn datagram(&self, slot: Slot) -> &Datagram {
        &self.entries[slot as usize].datagram
    }

    pub fn datagram_mut(&mut self, slot: Slot) -> &mut Datagram {
        &mut self.entries[slot as usize].datagram
    }

    pub fn find(&self, key: &Key) -> Option<Slot> {
        let mut slot = self.buckets[self.bucket(key)];
        while slot != NONE && self.entries[slot as usize].key != *key {
            slot = self.entries[slot as usize].next;
        }
        (slot != NONE).then_some(slot)
    }

    fn bucket(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize & (self.buckets.len() - 1)
    }

    /// Takes a free slot for a datagram that is not in the table.
    pub fn insert(&mut self, key: Key, now_ms: u64, deadline_ms: u64) -> Slot {
        let slot = self.free;
        let bucket = self.bucket(&key);
        let entry = &mut self.entries[slot as usize];
        self.free = entry.next;
        (entry.key, entry.next) = (key, self.buckets[bucket]);
        self.buckets[bucket] = slot;
        self.len += 1;
        self.enqueue(slot, usize::from(!key.src.v4), now_ms, deadline_ms);
        slot
    }

    /// Frees a slot; its datagram is clear.
    pub fn remove(&mut self, slot: Slot) {
        self.dequeue(slot);
        let bucket = self.bucket(self.key(slot));
        let next = self.entries[slot as usize].next;
        if self.buckets[bucket] == slot {
            self.buckets[bucket] = next;
        } else {
            let mut before = self.buckets[bucket] as usize;
            while self.entries[before].next != slot {
                before = self.entries[before].next as usize;
            }
            self.entries[before].next = next;
        }
        self.entries[slot as usize].next = self.free;
        self.free = slot;
        self.len -= 1;
    }

    /// A datagram is refused, and is remembered from now on.
    pub fn bury(&mut self, slot: Slot, now_ms: u64, deadline_ms: u64) {
        self.dequeue(slot);
        let queue = 2 + usize::from(!self.key(slot).src.v4);
        self.enqueue(slot, queue, now_ms, deadline_ms);
    }

    /// The one that came first, of the refused or not.
    pub fn oldest(&self, or_refused: bool) -> Option<Slot> {
        let queues = &self.queues[..if or_refused { QUEUES } else { 2 }];
        let oldest = queues.iter().map(|queue| queue.oldest).filter(|slot| *slot != NONE);
        oldest.min_by_key(|slot| self.entries[*slot as usize].since_ms)
    }

    /// One whose time is over.
    pub fn due(&self, now_ms: u64) -> Option<Slot> {
        let mut oldest = self.queues.iter().map(|queue| queue.oldest).filter(|slot| *slot != NONE);
        oldest.find(|slot| self.entries[*slot as usize].deadline_ms <= now_ms)
    }

    fn enqueue(&mut self, slot: Slot, queue: usize, since_ms: u64, deadline_ms: u64) {
        let older = self.queues[queue].youngest;
        let entry = &mut self.entries[slot as usize];
        (entry.since_ms, entry.deadline_ms, entry.queue) = (since_ms, deadline_ms, queue as u8);
        (entry.older, entry.younger) = (older, NONE);
        match older {
            NONE => self.queues[queue].oldest = slot,
            older => self.entries[older as usize].younger = slot,
        }
        self.queues[queue].youngest = slot;
    }

    fn dequeue(&mut self, slot: Slot) {
        let Entry { older, younger, queue, .. } = self.entries[slot as usize];
        match older {
            NONE => self.queues[queue as usize].oldest = younger,
            older => self.entries[older as usize].younger = younger,
        }
        match younger {
            NONE => self.queues[queue as usize].youngest = older,
            younger => self.entries[younger as usize].older = older,
        }
    }
}
