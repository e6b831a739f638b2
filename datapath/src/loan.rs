//! Loans: what one worker has another seal or open, so that one SA is not held to one core.
//!
//! An SA stays with its owner: it assigns the sequence numbers, checks and moves the replay window, and sends. Only the
//! AEAD between the two is lent, some packets at a time, and only while there is more than the owner can do.
//!
//! ```text
//!  owner    classify, SA, sequence number, headers | lend ... take back, in the order lent | window, next hop, send
//!  anyone                                               \ AEAD /
//! ```
//!
//! A worker's loans lie in its queue. Whoever takes one does it and gives it back: another worker that has time, or the owner
//! itself, so that none waits for a worker that sleeps. The owner takes them back in the order in which it lent them,
//! and while any is out, lends all packets that come after: nothing within a flow is overtaken. What goes the general way gets
//! its number once its batch is back, and so that nothing behind it has one by then, no batch is lent after its.
//!
//! Nobody lends while no other worker has time: all would do their own loans, for more than packets cost by themselves.
//!
//! A worker that lends holds no memory of others, and a borrower none of the owner: a loan moves frames, and names SAs
//! by slot and generation; each borrower expands keys for itself. All memory is reserved at the start.

mod guests;
mod lent;

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    crypto::Aead,
    frame::Frame,
    general::Why,
    handoff::{Handoff, Inbox},
    inbound::Verified,
    port::BURST,
    sa::SaTable,
};
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use guests::Guests;
pub use lent::Loan;
use lent::PACKETS;
use portcullis_sadb::Reader;
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
};

/// Batches of a worker that are out at a time, at most.
const BATCHES: usize = 6;

/// Packets of a worker that are out at a time, at most.
pub const LOANED: usize = BATCHES * BATCH;

/// Loans of a worker.
pub const LOANS: usize = BATCHES * (BATCH / PACKETS);

/// Packets shorter than this, on average, cost less than to lend them.
const WORTHWHILE: usize = 256;

/// What turns count for: one with a full batch, with another, and with none. Lending begins at `ENOUGH` and ends at 0.
const FULL: i32 = 16;
const PARTIAL: i32 = -8;
const EMPTY: i32 = -1;
const ENOUGH: i32 = 256;
const MOST: i32 = 1024;

/// How long packets are counted, alone and while lending, before the two are compared. Alone it must have been too much
/// all that time.
const WINDOW_MS: u64 = 10;
/// How long it is not tried again, where it gave less than a sixteenth.
const REST_MS: u64 = 250;

/// A batch whose frames are on loan, and the loans that are back.
#[derive(Default)]
struct Out {
    batch: Box<Batch>,
    parts: ArrayVec<Option<Box<Loan>>, { BATCH / PACKETS }>,
}

/// Where a worker's loans lie: those that nobody has taken, or those that are done.
pub type Queue = ArrayQueue<Box<Loan>>;

/// A worker's side of lending and borrowing.
#[allow(clippy::vec_box, reason = "a loan is handed on by its address")]
pub struct Lending {
    me: usize,
    aead: Aead,
    inboxes: Arc<[Inbox]>,
    spare: Vec<Box<Loan>>,
    spare_batches: Vec<Box<Batch>>,
    /// The batches that are out, in order from `first` on.
    out: VecDeque<Out>,
    first: u64,
    /// Nothing more is lent until all is back.
    is_closed: bool,
    guests: Guests,
    /// Above 0 while there is more to do than one worker can.
    load: i32,
    on: bool,
    /// Whatever it gives.
    always: bool,
    rests_until_ms: u64,
    window: Window,
    /// Packets in a second, in the last window in which nothing was lent.
    alone: Option<u64>,
}

/// Packets that came in for some time.
#[derive(Default)]
struct Window {
    from_ms: u64,
    packets: u64,
    /// All that time there was too much to do, in the same way.
    is_steady: bool,
}

impl Lending {
    /// For the worker of this end.
    pub fn new(handoff: &Handoff, max_sas: u32, aead: Aead) -> Lending {
        let (me, inboxes) = (handoff.me(), handoff.inboxes());
        // Who is alone lends nothing.
        let (loans, batches, guests) = if inboxes.len() == 1 { (0, 0, 0) } else { (LOANS, BATCHES, max_sas) };
        Lending {
            me,
            aead,
            inboxes,
            spare: (0..loans).map(|_| Box::new(Loan::new(me))).collect(),
            spare_batches: (0..batches).map(|_| Box::default()).collect(),
            out: VecDeque::with_capacity(batches),
            first: 0,
            is_closed: false,
            guests: Guests::new(guests),
            load: 0,
            on: false,
            always: false,
            rests_until_ms: 0,
            window: Window::default(),
            alone: None,
        }
    }

    /// Why keys of SAs of others can be swapped out.
    pub fn keys_not_locked(&self) -> Option<&io::Error> {
        self.guests.keys_not_locked()
    }

    /// Whether any batch is out.
    #[inline]
    pub fn is_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether batches are to be lent now: because there are many packets, or because those before them are out.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on || self.is_out()
    }

    /// Whether more may come in: it could be lent, if it has to be. Once lending has ended, or has to pause, that waits for
    /// what is out.
    #[inline]
    pub fn has_room(&self) -> bool {
        if self.on && !self.is_closed { !self.spare_batches.is_empty() } else { !self.is_out() }
    }

    /// Takes note of what came in; packets that are not lent weigh nothing.
    #[inline]
    pub fn observe(&mut self, packets: usize, octets: usize, now_ms: u64) {
        if self.inboxes.len() == 1 {
            return;
        }
        let weight = match packets {
            0 => EMPTY,
            n if n >= BURST && octets >= n * WORTHWHILE => FULL,
            _ => PARTIAL,
        };
        let had_time = self.has_time();
        self.set_load((self.load + weight).clamp(0, MOST));
        if had_time && !self.has_time() {
            // From the next millisecond on: it is not known how much of this one is gone.
            self.window = Window { from_ms: now_ms + 1, packets: 0, is_steady: true };
        }
        self.window.is_steady &= !self.has_time();
        if now_ms >= self.window.from_ms {
            self.window.packets += packets as u64;
        }
        if now_ms >= self.window.from_ms + WINDOW_MS {
            self.end_window(now_ms);
        }
        let is_on = self.always || self.alone.is_some() && self.load > 0;
        if is_on != self.on {
            (self.on, self.window.is_steady) = (is_on, false);
        }
    }

    /// What one worker can is known once it had too much to do for a whole window; what lending gives, by the next.
    #[cold]
    fn end_window(&mut self, now_ms: u64) {
        let rate = self.window.packets * 1000 / (now_ms - self.window.from_ms);
        match self.alone {
            _ if !self.window.is_steady => {}
            None if now_ms >= self.rests_until_ms && self.others_have_time() => self.alone = Some(rate),
            Some(_) if !self.others_have_time() => self.alone = None,
            Some(alone) if self.on && rate * 16 < alone * 17 => {
                (self.alone, self.rests_until_ms) = (None, now_ms + REST_MS);
            }
            _ => {}
        }
        if self.load == 0 {
            self.alone = None;
        }
        self.window = Window { from_ms: now_ms, packets: 0, is_steady: !self.has_time() };
    }

    fn set_load(&mut self, load: i32) {
        let (had_time, has_time) = (self.has_time(), load < ENOUGH);
        self.load = load;
        if has_time != had_time {
            // Relaxed: nothing is read on the strength of it.
            self.inboxes[self.me].has_time.store(has_time, Ordering::Relaxed);
        }
    }

    /// Whether it would do loans of others.
    fn has_time(&self) -> bool {
        self.load < ENOUGH
    }

    fn others_have_time(&self) -> bool {
        let mut others = self.inboxes.iter().enumerate().filter(|(worker, _)| *worker != self.me);
        others.any(|(_, other)| other.has_time.load(Ordering::Relaxed))
    }

    /// There is nothing to do, until it wakes up.
    pub fn sleep(&mut self) {
        self.set_load(0);
    }

    /// Lends from now on, whatever it gives: for tests.
    #[doc(hidden)]
    pub fn force(&mut self) {
        self.always = self.inboxes.len() > 1;
    }

    /// Lends a batch whose packets wait to be sealed or opened, and leaves an empty one.
    pub fn lend(&mut self, batch: &mut Box<Batch>, sas: &SaTable) {
        let Some(mut lent) = self.spare_batches.pop() else { return };
        std::mem::swap(batch, &mut lent);
        let Batch { frames, metas } = &mut *lent;
        let metas = &metas[..frames.len()];
        self.is_closed = metas.iter().any(|meta| is_numbered_later(meta, sas));
        let (mut frames, mut parts) = (frames.drain(..), ArrayVec::new());
        for metas in metas.chunks(PACKETS) {
            let Some(mut loan) = self.spare.pop() else { break };
            (loan.batch, loan.part) = (self.first + self.out.len() as u64, parts.len());
            loan.fill(&mut frames, metas, sas);
            parts.push(None);
            // There is room for all that this worker has.
            let sent = self.inboxes[self.me].lent.push(loan);
            debug_assert!(sent.is_ok());
        }
        drop(frames);
        self.out.push_back(Out { batch: lent, parts });
    }

    /// Own loans that nobody has taken.
    pub fn waiting(&self) -> usize {
        self.inboxes[self.me].lent.len()
    }

    /// Does one of the own loans, if nobody has taken all. False if so.
    pub fn work(&mut self, reader: &Reader) -> bool {
        match self.inboxes[self.me].lent.pop() {
            Some(mut loan) => {
                self.guests.work(self.aead, &mut loan, reader);
                self.put(loan);
                true
            }
            None => false,
        }
    }

    /// Does a loan of another worker, if there is one.
    pub fn help(&mut self, reader: &Reader) -> bool {
        if !self.has_time() {
            return false;
        }
        let workers = self.inboxes.len();
        let mut others = (1..workers).map(|n| &self.inboxes[(self.me + n) % workers]);
        // It is not asked first whether there are any: how many were lent is in the cache of who lends.
        let Some(mut loan) = others.find_map(|inbox| inbox.lent.pop()) else { return false };
        self.guests.work(self.aead, &mut loan, reader);
        // There is room for all that its owner has.
        let given = self.inboxes[loan.owner].done.push(loan);
        debug_assert!(given.is_ok());
        true
    }

    /// The oldest batch that is out, if all of it is back, in place of an empty one; and of its packets that were
    /// opened, whether their ICVs are right. False if it is not.
    pub fn take_back(
        &mut self,
        batch: &mut Box<Batch>,
        verified: &mut Verified,
        known: (&SaTable, &Reader),
    ) -> bool {
        while let Some(loan) = self.inboxes[self.me].done.pop() {
            loan.prefetch_done();
            self.put(loan);
        }
        if self.out.front().is_none_or(|out| out.parts.iter().any(Option::is_none)) {
            return false;
        }
        let Some(Out { batch: mut back, parts }) = self.out.pop_front() else { return false };
        self.first += 1;
        for mut loan in parts.into_iter().flatten() {
            loan.empty_into(&mut back, verified, known);
            self.spare.push(loan);
        }
        std::mem::swap(batch, &mut back);
        self.spare_batches.push(back);
        true
    }

    /// Lets go of the keys of SAs that are gone, some at a time.
    pub fn sweep(&mut self, reader: &Reader) {
        self.guests.sweep(reader);
    }

    /// The end, once no more is lent: own loans that nobody has taken come back, and those that others have.
    pub fn close(&mut self, mut back: impl FnMut(Frame)) {
        let inbox = &self.inboxes[self.me];
        let mut left = self.out.iter().flat_map(|out| &out.parts).filter(|part| part.is_none()).count();
        while left > 0 {
            while let Some(loan) = inbox.lent.pop().or_else(|| inbox.done.pop()) {
                loan.frames.into_iter().for_each(&mut back);
                left -= 1;
            }
            std::hint::spin_loop();
        }
        for loan in self.out.drain(..).flat_map(|out| out.parts).flatten() {
            loan.frames.into_iter().for_each(&mut back);
        }
    }

    fn put(&mut self, loan: Box<Loan>) {
        let (at, part) = ((loan.batch - self.first) as usize, loan.part);
        self.out[at].batch.prefetch(part * PACKETS..(part + 1) * PACKETS);
        self.out[at].parts[part] = Some(loan);
    }
}

/// Whether a packet gets its number on the general path, of an SA whose others get theirs on the plain one.
fn is_numbered_later(meta: &Meta, sas: &SaTable) -> bool {
    match meta.stage {
        Stage::General(Why::Outbound) => sas.is_plain(meta.sa),
        Stage::General(Why::Received | Why::Nested | Why::Onward) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
