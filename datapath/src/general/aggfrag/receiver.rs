//! Payloads put in order, for what is in them to be put together.

use super::{DropReason, assembly::Assembly};

/// A payload that came before its turn.
struct Early {
    seq: Option<u64>,
    len: usize,
}

/// The receiving side of an SA. The second way of RFC 9347 §2.5: payloads are put in order, then read, so that inner
/// packets come out in the order in which they went in.
pub struct Receiver {
    /// The sequence number whose turn it is.
    next: u64,
    payload_octets: usize,
    /// By sequence number, modulo their count: the reorder window.
    early: Box<[Early]>,
    memory: Box<[u8]>,
    waiting: usize,
    assembly: Assembly,
    lost: u64,
    malformed: u64,
}

impl Receiver {
    /// How many payloads wait for an earlier one at most, if nobody knows better (RFC 9347 §2.2.3).
    pub const REORDER_WINDOW: usize = 3;

    /// Takes all memory that it will ever have, for payloads of at most so many octets. `next` is the first sequence
    /// number that is waited for: 1 for a new SA.
    pub fn new(reorder_window: usize, payload_octets: usize, next: u64) -> Receiver {
        Receiver {
            next,
            payload_octets,
            early: (0..reorder_window).map(|_| Early { seq: None, len: 0 }).collect(),
            memory: vec![0; reorder_window * payload_octets].into_boxed_slice(),
            waiting: 0,
            assembly: Assembly::new(),
            lost: 0,
            malformed: 0,
        }
    }

    /// Takes the payload of a packet whose ICV was right, and gives the inner packets that are whole now. One that is
    /// too new for the reorder window moves it, and what is left of it then is lost.
    ///
    /// # Errors
    /// [`DropReason::AggfragLate`], [`DropReason::ReplayDuplicate`], [`DropReason::TooBig`]: the payload is dropped.
    pub fn accept(
        &mut self,
        seq: u64,
        payload: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), DropReason> {
        if payload.len() > self.payload_octets {
            return Err(DropReason::TooBig);
        }
        if seq < self.next {
            return Err(DropReason::AggfragLate);
        }
        let window = self.early.len() as u64;
        if seq - self.next > window {
            self.advance(seq - window, &mut each);
            self.take_waiting(&mut each);
        }
        if seq == self.next {
            self.take(payload, &mut each);
            self.take_waiting(&mut each);
            return Ok(());
        }
        let slot = (seq % window) as usize;
        let early = &mut self.early[slot];
        if early.seq.is_some() {
            return Err(DropReason::ReplayDuplicate);
        }
        *early = Early { seq: Some(seq), len: payload.len() };
        self.memory[slot * self.payload_octets..][..payload.len()].copy_from_slice(payload);
        self.waiting += 1;
        Ok(())
    }

    /// The sequence number whose turn it is.
    pub fn awaited(&self) -> u64 {
        self.next
    }

    /// Whether payloads wait for an earlier one. A caller with a timer for lost packets, as RFC 9347 §2.2.3 recommends,
    /// starts it then.
    pub fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// The timer has run out: gives up the payloads before the first that waits, and takes those that are then in
    /// order.
    pub fn give_up(&mut self, mut each: impl FnMut(&[u8])) {
        if let Some(first) = self.early.iter().filter_map(|early| early.seq).min() {
            self.advance(first, &mut each);
            self.take_waiting(&mut each);
        }
    }

    /// Makes it the turn of a later number: what waits before it is taken, the rest is lost.
    fn advance(&mut self, to: u64, each: &mut impl FnMut(&[u8])) {
        while self.next < to && self.waiting > 0 {
            if !self.take_early(each) {
                self.lose(1);
            }
        }
        if self.next < to {
            self.lose(to - self.next);
        }
    }

    fn lose(&mut self, payloads: u64) {
        self.assembly.lose();
        self.lost += payloads;
        self.next += payloads;
    }

    fn take_waiting(&mut self, each: &mut impl FnMut(&[u8])) {
        while self.waiting > 0 && self.take_early(each) {}
    }

    /// Takes the payload whose turn it is, if it waits.
    fn take_early(&mut self, each: &mut impl FnMut(&[u8])) -> bool {
        let slot = (self.next % self.early.len() as u64) as usize;
        let early = &mut self.early[slot];
        if early.seq != Some(self.next) {
            return false;
        }
        early.seq = None;
        let payload = &self.memory[slot * self.payload_octets..][..early.len];
        self.waiting -= 1;
        self.next += 1;
        self.malformed += u64::from(self.assembly.take(payload, each).is_err());
        true
    }

    fn take(&mut self, payload: &[u8], each: &mut impl FnMut(&[u8])) {
        self.next += 1;
        self.malformed += u64::from(self.assembly.take(payload, each).is_err());
    }

    /// Tells what was dropped of accepted payloads since it was last asked: inner packets of which a part is missing,
    /// and payloads that could not be read to their end.
    pub fn drain_drops(&mut self, mut each: impl FnMut(DropReason, u64)) {
        for (reason, n) in [
            (DropReason::AggfragIncomplete, &mut self.assembly.incomplete),
            (DropReason::BadInner, &mut self.malformed),
        ] {
            if *n > 0 {
                each(reason, std::mem::take(n));
            }
        }
    }

    /// Payloads that never came, in all.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
