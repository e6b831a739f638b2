//! The SAs of other workers whose packets this one seals and opens: their keys, expanded here.

use super::lent::{Loan, PACKETS, Run, Work};
use crate::{
    crypto::{self, Aead, AeadKey, Job},
    esp,
    frame::Frame,
    memory::Table,
    wire,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Generation, Reader, SlotIndex};
use std::io;

/// An SA of another worker, as far as its packets are sealed or opened here.
struct Guest {
    of: (SlotIndex, Generation),
    spi: u32,
    esn: bool,
    key: AeadKey,
}

/// The SAs of other workers that this one has had packets of.
pub(super) struct Guests {
    /// By slot: one more than the index in `guests`, or 0.
    index: Table<u32>,
    guests: Table<Option<Guest>>,
    free: Vec<u32>,
    swept: usize,
}

/// Guests that one [`Guests::sweep`] looks at, at least. A full round takes so many, too.
const SWEPT: usize = 64;

/// Packets of a loan that are asked for before the AEAD begins.
const FIRST: usize = 2;

impl Guests {
    pub(super) fn new(max_sas: u32) -> Guests {
        let room = max_sas as usize;
        Guests {
            index: Table::filled(room, 0),
            guests: Table::of_keys(room),
            free: Vec::with_capacity(room),
            swept: 0,
        }
    }

    /// Why their keys can be swapped out.
    pub(super) fn keys_not_locked(&self) -> Option<&io::Error> {
        self.guests.not_locked()
    }

    /// Seals or opens what is in a loan.
    pub(super) fn work(&mut self, aead: Aead, loan: &mut Loan, reader: &Reader) {
        loan.prefetch();
        let Loan { runs, frames, verified, .. } = loan;
        // The AEAD asks for packets while it is at those before them: of the first ones nobody has.
        frames.iter().take(FIRST).for_each(Frame::prefetch_all);
        let mut here = ArrayVec::<Option<u32>, PACKETS>::new();
        here.extend(runs.iter().map(|run| self.find(run.sa?, aead, reader)));
        // At most one of the two lists is long, as a rule.
        let mut seal = ArrayVec::<Job<'_>, PACKETS>::new();
        let mut open = ArrayVec::<Job<'_>, PACKETS>::new();
        let mut rest = &mut frames[..];
        for (run, here) in runs.iter_mut().zip(here) {
            let (frames, behind) = std::mem::take(&mut rest).split_at_mut(run.packets as usize);
            rest = behind;
            let jobs = match run.work {
                Work::Nothing => {
                    run.is_done = true;
                    continue;
                }
                Work::Seal => &mut seal,
                Work::Open => &mut open,
            };
            // One that came later may have its place.
            let guest =
                here.and_then(|i| self.guests[i as usize].as_ref()).filter(|guest| Some(guest.of) == run.sa);
            run.is_done = guest.is_some_and(|guest| guest.jobs(run, frames, jobs));
        }
        aead.seal(&mut seal);
        aead.open(&mut open, verified);
    }

    /// The index of a guest, whose key is expanded the first time.
    #[inline]
    fn find(&mut self, of: (SlotIndex, Generation), aead: Aead, reader: &Reader) -> Option<u32> {
        if let Some(i) = self.index.get(of.0.0 as usize)?.checked_sub(1)
            && self.guests[i as usize].as_ref().is_some_and(|guest| guest.of == of)
        {
            return Some(i);
        }
        self.load(of, aead, reader)
    }

    #[cold]
    fn load(&mut self, of: (SlotIndex, Generation), aead: Aead, reader: &Reader) -> Option<u32> {
        let slot = of.0.0 as usize;
        if let Some(i) = self.index[slot].checked_sub(1) {
            self.evict(i);
        }
        let (generation, sa) = reader.copy_sa(of.0).filter(|(generation, _)| *generation == of.1)?;
        let key = aead.sa_key(sa.algorithm, sa.key.bytes())?;
        let guest = Guest { of: (of.0, generation), spi: sa.spi.0, esn: sa.esn, key };
        let i = match self.free.pop() {
            Some(i) => {
                self.guests[i as usize] = Some(guest);
                i
            }
            None => {
                self.guests.push(Some(guest));
                self.guests.len() as u32 - 1
            }
        };
        self.index[slot] = i + 1;
        Some(i)
    }

    fn evict(&mut self, i: u32) {
        if let Some(guest) = self.guests[i as usize].take() {
            self.index[guest.of.0.0 as usize] = 0;
            self.free.push(i);
        }
    }

    pub(super) fn sweep(&mut self, reader: &Reader) {
        for _ in 0..SWEPT.max(self.guests.len() / SWEPT).min(self.guests.len()) {
            self.swept = (self.swept + 1) % self.guests.len();
            let gone = |guest: &Guest| reader.generation(guest.of.0) != Some(guest.of.1);
            if self.guests[self.swept].as_ref().is_some_and(gone) {
                self.evict(self.swept as u32);
            }
        }
    }
}

impl Guest {
    /// Adds what is to be sealed or opened of a run. None of it, and false, where a packet is not what it must be.
    #[inline]
    fn jobs<'a>(&'a self, run: &Run, frames: &'a mut [Frame], jobs: &mut ArrayVec<Job<'a>, PACKETS>) -> bool {
        let (text, before) = (run.esp as usize + wire::ESP + esp::IV, jobs.len());
        if run.work == Work::Open {
            // Where IVs are.
            frames.iter().for_each(|frame| frame.prefetch_at(text - crypto::HEAD));
        }
        for (frame, n) in frames.iter_mut().zip(0..) {
            let seq = run.seq.wrapping_add(n);
            let packet = frame.bytes_mut().get_mut(text - crypto::HEAD..).unwrap_or_default();
            let iv = match (run.work, packet.first_chunk::<{ crypto::HEAD }>()) {
                (Work::Open, Some([_, _, _, _, _, _, _, _, iv @ ..])) => *iv,
                _ => seq.to_be_bytes(),
            };
            let aad = crypto::aad(self.spi, seq, self.esn);
            let Some(job) = Job::new(&self.key, iv, aad, crypto::ICV as u8, packet) else {
                jobs.truncate(before);
                return false;
            };
            jobs.push(job);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_sadb::{Algorithm, Direction, Handling, Key, Mode, Name, Protocol, Sa, Sadb, Sizes, Spi};

    #[test]
    fn sweeps_come_round_in_time() {
        let many = 8192;
        let (mut sadb, reader, _) = Sadb::heap(&Sizes { max_sas: many, max_policies: 4 }).unwrap();
        let sa = |n| Sa {
            spi: Spi(0x1000 + n),
            direction: Direction::Outbound,
            protocol: Protocol::Esp,
            mode: Mode::Tunnel,
            algorithm: Algorithm::AES_GCM_128,
            src: "192.0.2.1".parse().unwrap(),
            dst: "192.0.2.2".parse().unwrap(),
            udp: None,
            esn: true,
            replay_window: 64,
            reqid: 7,
            worker: None,
            around: None,
            mtu: 0,
            handling: Handling::default(),
            name: Name::new("guest").unwrap(),
            key: Key::new(&[1; 20]).unwrap(),
        };
        let mut guests = Guests::new(many);
        let slots: Vec<_> = (0..many).map(|n| sadb.publish(&sa(n)).unwrap()).collect();
        for slot in &slots {
            let of = (*slot, reader.generation(*slot).unwrap());
            assert!(guests.find(of, Aead::best(), &reader).is_some());
        }
        slots.iter().for_each(|slot| sadb.retire(*slot).unwrap());
        (0..SWEPT).for_each(|_| guests.sweep(&reader));
        assert!(guests.guests.iter().all(Option::is_none));
    }
}
