//! A worker's private state of the SAs it owns.
//!
//! The SADB region holds what an SA *is*; this table holds what one worker needs to use it: the expanded
//! key, the replay window or the block of reserved sequence numbers, and the outer header. It is filled
//! when the worker first meets a (slot, generation), from a copy of the slot, and is emptied by
//! [`SaTable::sweep`] once the slot has moved on. All memory is reserved at the start.
//!
//! What others may know of an SA is told to the runtime region late: its packets, and up to which number exactly it has
//! received. SAs with something to tell wait in a queue, of which a few have their turn in each of the worker's. What an
//! SA waits with when it is retired is told to nobody: its line may be another's by then.
//!
//! Danger: sequence numbers are GCM nonces (RFC 4106 §3). `SaState::load` starts above every number that
//! a predecessor may have used, and takes every number up to the highest that it accepted as seen.

mod chains;
mod keepalive;
mod life;
mod narrow;
mod peer;
pub mod resync;
mod spis;
mod state;
mod timed;

use crate::{
    crypto::{Aead, AeadKey, IcvVerified},
    drop::DropReason,
    general::Association,
    memory::Table,
    replay::{ReplayWindow, Ring},
    wire::UdpPorts,
};
use arrayvec::ArrayVec;
use chains::Chains;
use keepalive::Keepalives;
use life::Life;
use narrow::Narrow;
use peer::Moves;
use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::{
    Direction, EventKind, Generation, Reader, Runtime, Sa, SaCounters, SlotIndex, Spi, prefetch_at,
};
use resync::Suspects;
use serde::Serialize;
use spis::Spis;
use state::{Following, SEEN_AHEAD};
pub use state::{InboundSa, RESERVED_BLOCK, SaState};
use std::{collections::VecDeque, io};

/// States that one [`SaTable::sweep`] looks at, at least. A full round takes so many, too: a minute, of a worker that is busy.
const SWEPT: usize = 64;

/// SAs that are looked at for an outbound SPI, and of those, how many have it: at most. More have it by a peer's design.
const CHAIN: (usize, usize) = (64, 8);

/// SAs that stay in the CPU's nearest caches by themselves.
const NEAR: usize = 64;

/// Whose an SA is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// This worker's: its index in the table.
    Here(u32),
    /// This worker's, but not for the plain path.
    General(u32),
    /// Another worker's.
    At(u32),
    /// Nobody's: it is gone, or there is no code for it.
    Nowhere,
}

/// Octets of a worker's own memory that an SA takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct BytesPerSa {
    /// In the worker that owns it: its state with the expanded key and a replay window of up to 1024 packets. The words
    /// of a larger one come on top.
    pub state: usize,
    /// In each worker: what finds the state by the slot, for every SA that there is room for.
    pub index: usize,
}

/// States and keys, by index.
pub type Split<'a> = (&'a mut [Option<SaState>], &'a [Option<AeadKey>]);

/// The worker that an SA is of: the one that it says, or else the one that its SPI names, or that of the SA around it.
pub fn owner_of((spi, worker): (Spi, Option<u8>), workers: u32) -> u32 {
    worker.map_or_else(|| worker_of_spi(spi.0, workers), |worker| u32::from(worker) % workers)
}

/// All SAs of one worker.
pub struct SaTable {
    me: u32,
    workers: u32,
    aead: Aead,
    udp_ports: UdpPorts,
    /// By slot: one more than the index in `states`, or 0.
    index: Table<u32>,
    spis: Spis,
    outbound: Chains,
    states: Table<Option<SaState>>,
    /// Of each state, the key, expanded; and if it is inbound, what its packets need, and the rest of its window.
    keys: Table<Option<AeadKey>>,
    inbound: Table<Option<InboundSa>>,
    rings: Table<Ring>,
    /// What the general path needs of each, if that was asked for.
    associations: Table<Option<Box<Association>>>,
    /// Outbound states that have learned of a path with a lower MTU than their SAs ask for.
    narrow: Narrow,
    /// Of each state, how long it is good for, if that is limited; and those that are looked at for that, or for their numbers.
    lives: Table<Option<Box<Life>>>,
    limited: Vec<(u32, Generation)>,
    looked_at: usize,
    /// States whose associations are to be looked at as time passes, and whether there are new ones.
    timed: Vec<u32>,
    has_news: bool,
    /// Peers that have moved, in this turn.
    moves: Moves,
    /// Outbound states that keep a NAT's mapping alive.
    keepalives: Keepalives,
    /// Inbound states whose last packets were wrong.
    suspects: Suspects,
    /// The slot that is next looked at for an SA which sends by itself, and the version of the SAD when the first was.
    sought: (usize, u64),
    free: Vec<u32>,
    /// States with something to tell.
    untold: VecDeque<u32>,
    swept: usize,
    /// SAs whose packets have a checksum in their outer headers.
    checksums: u32,
    /// SAs whose peers are followed.
    followed: u32,
    /// The version of the SAD that this turn goes by.
    sad_version: u64,
}

impl SaTable {
    /// An empty table for worker `me` of `workers` and a SAD of `max_sas` slots, with keys for one way of sealing and
    /// opening.
    pub fn new((me, workers): (u32, u32), max_sas: u32, aead: Aead) -> SaTable {
        let room = max_sas as usize;
        SaTable {
            me,
            workers,
            aead,
            udp_ports: UdpPorts::default(),
            index: Table::filled(room, 0),
            states: Table::new(room),
            keys: Table::of_keys(room),
            spis: Spis::new(max_sas),
            outbound: Chains::new(max_sas),
            inbound: Table::new(room),
            rings: Table::new(room),
            associations: Table::new(room),
            narrow: Narrow::new(room),
            lives: Table::new(room),
            limited: Vec::with_capacity(room),
            looked_at: 0,
            timed: Vec::with_capacity(room),
            has_news: false,
            moves: Moves::new(),
            keepalives: Keepalives::new(room),
            suspects: Suspects::default(),
            sought: (0, u64::MAX),
            free: Vec::with_capacity(room),
            untold: VecDeque::with_capacity(room),
            swept: 0,
            checksums: 0,
            followed: 0,
            sad_version: 0,
        }
    }

    /// What an SA takes here.
    pub fn bytes_per_sa(aead: Aead) -> BytesPerSa {
        // In `states`, `keys`, `associations` and `lives`, `inbound` and `rings`, `outbound`; in `index`, `timed`, `free`,
        // `untold`, `limited`, `spis`, `outbound`, `narrow` and `keepalives`.
        let both = size_of::<Option<SaState>>() + size_of::<Option<AeadKey>>() + 2 * size_of::<usize>();
        let both = both + Chains::OCTETS_OF_STATE;
        let inbound = size_of::<Option<InboundSa>>() + size_of::<Ring>();
        let index = 4 * size_of::<u32>() + size_of::<(u32, Generation)>() + Spis::OCTETS + Chains::OCTETS;
        let index = index + Narrow::OCTETS + Keepalives::OCTETS;
        BytesPerSa { state: both + inbound + aead.key_octets_apart(), index }
    }

    /// What seals and opens with the keys of this table.
    pub fn aead(&self) -> Aead {
        self.aead
    }

    /// Why its keys can be swapped out.
    pub fn keys_not_locked(&self) -> Option<&io::Error> {
        self.keys.not_locked()
    }

    /// Where packets of SAs in UDP come in.
    #[inline]
    pub fn udp_ports(&self) -> &UdpPorts {
        &self.udp_ports
    }

    /// The same from now on.
    pub fn set_udp_ports(&mut self, ports: UdpPorts) {
        self.udp_ports = ports;
    }

    /// Once per turn, after the worker's epoch was announced: slots that did not change since a state was last
    /// looked for need not be looked at again.
    pub fn turn(&mut self, reader: &Reader) {
        // Whoever retires an SA changes the version before the epoch that its memory waits for.
        self.sad_version = reader.sad_version();
    }

    /// Brings the way from an SPI to its state into the CPU's cache.
    #[inline]
    pub fn prefetch_spi(&self, spi: u32) {
        self.spis.prefetch(spi);
    }

    /// The index of the state for a slot, if it has one: not whether it is of the SA that lives there now.
    #[inline]
    fn index(&self, slot: SlotIndex) -> Option<u32> {
        self.index.get(slot.0 as usize)?.checked_sub(1)
    }

    /// Whether there are so many SAs that memory is to be asked for them before they are looked at.
    #[inline]
    pub fn is_far(&self) -> bool {
        self.states.len() > NEAR
    }

    /// Whether some packets have anything left to be done after sealing.
    #[inline]
    pub fn has_checksums(&self) -> bool {
        self.checksums > 0
    }

    /// Brings the state of an SA into the CPU's cache. Whether there is one is not looked at: that would be to wait for it.
    #[inline]
    pub fn prefetch(&self, i: u32) {
        if (i as usize) < self.states.len() {
            let state = self.states.as_ptr().wrapping_add(i as usize);
            prefetch_at(state);
            prefetch_at(state.wrapping_byte_add(64));
        }
    }

    /// The same of what jobs take of its key.
    #[inline]
    pub fn prefetch_key(&self, i: u32) {
        AeadKey::prefetch_round_keys(self.keys.as_ptr().wrapping_add(i as usize));
    }

    /// The state that an inbound SA had when it was last met, by its SPI: not whether it is of the SA that has the SPI
    /// now. Brings it into the CPU's cache.
    #[inline]
    pub fn expect(&self, spi: u32) -> Option<u32> {
        let i = self.spis.find(spi)?;
        prefetch_at(self.inbound.as_ptr().wrapping_add(i as usize));
        Some(i)
    }

    /// The state of the inbound SA that has an SPI now. The first time, its key is expanded.
    #[cold]
    pub fn find_spi(&mut self, spi: u32, reader: &Reader, runtime: &Runtime) -> Found {
        let Some(slot) = reader.find(Spi(spi)) else { return Found::Nowhere };
        let found = self.find(slot, reader, runtime);
        match found {
            // The slot may have been taken over by another SA between the look at the index and at the slot.
            Found::Here(i) | Found::General(i)
                if self.inbound[i as usize].as_ref().is_none_or(|sa| sa.spi != spi) =>
            {
                Found::Nowhere
            }
            found => found,
        }
    }

    /// Whether a state is of the inbound SA that has this SPI. `false` may mean that it is not known.
    #[inline]
    pub fn is_of(&self, i: u32, spi: u32) -> bool {
        let sa = self.inbound.get(i as usize).and_then(Option::as_ref);
        sa.is_some_and(|sa| sa.spi == spi && sa.sad_version == self.sad_version as u32)
    }

    /// The inbound SA with a state, and the rest of its window.
    #[inline]
    pub fn inbound(&self, i: u32) -> Option<(&InboundSa, &Ring)> {
        Some((self.inbound.get(i as usize)?.as_ref()?, self.rings.get(i as usize)?))
    }

    /// The worker whose table it is.
    #[inline]
    pub fn worker(&self) -> u32 {
        self.me
    }

    /// The worker that packets with an SPI, and what is said of these, are steered to.
    pub fn steered_to(&self, spi: u32) -> u32 {
        worker_of_spi(spi, self.workers)
    }

    /// The worker that is next asked for an outbound SA with this SPI, which may be of any, when it is not here: they are
    /// asked in turn, from the one on that what is said of it is steered to.
    pub fn next_asked(&self, spi: u32) -> Option<u32> {
        let next = (self.me + 1) % self.workers;
        (next != self.steered_to(spi)).then_some(next)
    }

    /// Whether an inbound SA is for the policies with this number.
    #[inline(always)]
    pub fn serves(&self, i: u32, reqid: u32) -> bool {
        matches!(self.inbound.get(i as usize), Some(Some(sa)) if sa.reqid == reqid)
    }

    /// Whether a state is of the outbound SA that lives in this slot. `false` may mean that it is not known.
    #[inline]
    pub fn is_at(&self, i: u32, slot: SlotIndex) -> bool {
        match self.states.get(i as usize) {
            Some(Some(state)) => {
                state.slot == slot
                    && state.sad_version == self.sad_version
                    && state.direction == Direction::Outbound
            }
            _ => false,
        }
    }

    /// Whether a state that was found in an earlier turn is still of this SA, and the SA still lives: else neither the
    /// state nor the slot's line in the runtime region may be used for it.
    #[inline]
    pub fn is_alive(&self, i: u32, (slot, generation): (SlotIndex, Generation), reader: &Reader) -> bool {
        match self.states.get(i as usize) {
            Some(Some(state)) => {
                (state.slot, state.generation) == (slot, generation)
                    && (state.sad_version == self.sad_version || reader.generation(slot) == Some(generation))
            }
            _ => false,
        }
    }

    /// The SA that lives in a slot. The first time, its key is expanded.
    #[inline]
    pub fn find(&mut self, slot: SlotIndex, reader: &Reader, runtime: &Runtime) -> Found {
        if let Some(i) = self.index(slot)
            && self.is_there(i, reader)
        {
            let found = self.found(i);
            if let (Found::Here(_), Some(Some(sa))) = (&found, self.inbound.get_mut(i as usize)) {
                sa.sad_version = self.sad_version as u32;
            }
            return found;
        }
        self.load(slot, reader, runtime)
    }

    /// Whether a state is of an SA that lives: then it is as one that `find` returned this turn, and knows where its peer is.
    pub fn is_there(&mut self, i: u32, reader: &Reader) -> bool {
        let Some(Some(state)) = self.states.get_mut(i as usize) else { return false };
        if state.sad_version == self.sad_version {
            return true;
        }
        if reader.generation(state.slot) != Some(state.generation) {
            return false;
        }
        state.sad_version = self.sad_version;
        // Of others no peer moves (RFC 7296 §2.23), and the line of its place is not read.
        if state.outer.is_in_udp() {
            let place = reader.endpoint_version(state.slot);
            if !state.outer.is_of_version(place) {
                self.take_place(i, place, reader);
            }
        }
        true
    }

    /// What goes the plain way has a key for it, and opens its packets.
    fn found(&self, i: u32) -> Found {
        if self.keys[i as usize].is_some() && !self.is_suspect(i) {
            Found::Here(i)
        } else {
            Found::General(i)
        }
    }

    /// Whether a state is of an SA that goes the plain way, or did before it came to its end.
    pub fn is_plain(&self, i: u32) -> bool {
        matches!(self.states.get(i as usize), Some(Some(state)) if state.is_plain)
    }

    /// What the general path needs of an SA that was found this turn. The first time, its key is expanded once more if it
    /// goes the plain way as a rule.
    pub fn associate(&mut self, i: u32, reader: &Reader) -> Option<&Association> {
        let place = self.associations.get_mut(i as usize)?;
        if place.is_none() {
            let state = self.states[i as usize].as_ref()?;
            let (generation, sa) = reader.copy_sa(state.slot)?;
            if generation != state.generation {
                return None;
            }
            *place = Association::new(sa, 1, self.aead);
        }
        place.as_deref()
    }

    /// The outbound SA that has an SPI and is this one, if it lives and has sent anything. It has an association then.
    pub fn find_outbound(&mut self, spi: u32, reader: &Reader, is_it: impl Fn(&Sa) -> bool) -> Option<u32> {
        let (most, same) = CHAIN;
        let has_spi = |i: &u32| self.states[*i as usize].as_ref().is_some_and(|state| state.spi == spi);
        let found: ArrayVec<u32, { CHAIN.1 }> =
            self.outbound.of(spi).take(most).filter(has_spi).take(same).collect();
        found.into_iter().find(|i| {
            let state = self.get(*i);
            self.is_alive(*i, (state.slot, state.generation), reader)
                && self.associate(*i, reader).is_some_and(|with| is_it(&with.sa))
        })
    }

    /// What the general path needs of an SA that is there, to change.
    pub fn association_mut(&mut self, i: u32) -> Option<&mut Association> {
        self.associations.get_mut(i as usize)?.as_deref_mut()
    }

    /// The same, of one that is there.
    pub fn association(&self, i: u32) -> Option<&Association> {
        self.associations.get(i as usize)?.as_deref()
    }

    /// The state with an index that `find` returned this turn.
    #[inline]
    pub fn get(&self, i: u32) -> &SaState {
        self.states[i as usize].as_ref().expect("found this turn")
    }

    /// The same, to change.
    #[inline]
    pub fn get_mut(&mut self, i: u32) -> &mut SaState {
        self.states[i as usize].as_mut().expect("found this turn")
    }

    /// All states, to change, and their keys, by index.
    #[inline]
    pub fn split(&mut self) -> Split<'_> {
        (&mut self.states, &self.keys)
    }

    /// The key with an index that was found this turn, and whether sequence numbers are extended, if it is of an
    /// inbound SA.
    #[inline]
    pub fn opens(&self, i: u32) -> Option<(&AeadKey, bool)> {
        match (self.keys.get(i as usize), self.inbound.get(i as usize)) {
            (Some(Some(key)), Some(Some(sa))) => Some((key, sa.window.esn())),
            _ => None,
        }
    }

    /// Takes a number as received (RFC 4303 §3.4.3). A restarted datapath will do so, too: it is told before the packet
    /// goes on, of some numbers at once.
    ///
    /// # Errors
    /// As [`ReplayWindow::commit`]; nothing has changed.
    #[inline(always)]
    pub fn commit(
        &mut self,
        i: u32,
        seq: u64,
        proof: IcvVerified,
        (reader, runtime): (&Reader, &Runtime),
    ) -> Result<(), DropReason> {
        let (Some(Some(sa)), Some(ring)) = (self.inbound.get_mut(i as usize), self.rings.get_mut(i as usize))
        else {
            return Err(DropReason::UnknownSpi);
        };
        let is_told = sa.is_told(seq);
        let top = sa.window.top();
        sa.window.commit(seq, ring, proof)?;
        if seq < top {
            count_late(runtime, sa.slot, top - seq);
        }
        if !is_told {
            let first = !std::mem::replace(&mut sa.waits, true);
            runtime.sa(sa.slot).see(sa.window.top() | (SEEN_AHEAD - 1));
            if first {
                self.wait(i, reader, runtime);
            }
        }
        Ok(())
    }

    /// Counts a packet that was let in.
    #[inline(always)]
    pub fn count_inbound(&mut self, i: u32, octets: usize, reader: &Reader, runtime: &Runtime) {
        let Some(Some(sa)) = self.inbound.get_mut(i as usize) else { return };
        sa.untold.count(1, octets);
        if sa.untold.is_much() {
            self.tell_one(i, reader, runtime);
        }
    }

    /// Takes back a packet that an outbound SA has counted: it is sealed once more, or not at all. Its line is never below what
    /// was told.
    #[cold]
    pub fn uncount(&mut self, i: u32, octets: usize, reader: &Reader, runtime: &Runtime) {
        let state = self.get_mut(i);
        if state.untold.take_back(octets) {
            return;
        }
        let (slot, generation) = (state.slot, state.generation);
        self.tell_one(i, reader, runtime);
        if reader.generation(slot) == Some(generation) {
            let bytes = (octets as u64).wrapping_neg();
            runtime.sa(slot).count(&SaCounters { packets: u64::MAX, bytes, ..SaCounters::default() });
        }
    }

    /// Has an outbound SA of which [`SaState::count`] wants it wait for its turn to be told, or tells it now.
    #[inline]
    pub fn note(&mut self, i: u32, reader: &Reader, runtime: &Runtime) {
        if self.get(i).untold.is_much() {
            self.tell_one(i, reader, runtime);
        } else {
            self.wait(i, reader, runtime);
        }
    }

    /// Tells the runtime region of some of the SAs with something to tell, at the end of a turn. True if there
    /// are more.
    #[inline]
    pub fn tell(&mut self, most: usize, reader: &Reader, runtime: &Runtime) -> bool {
        // The next call's states, and then this one's lines: each has been asked for when it is looked at.
        for i in self.untold.iter().skip(most).take(most) {
            prefetch_at(self.inbound.as_ptr().wrapping_add(*i as usize));
            prefetch_at(self.states.as_ptr().wrapping_add(*i as usize));
        }
        for i in self.untold.iter().take(most) {
            let slot = match (self.inbound.get(*i as usize), self.states.get(*i as usize)) {
                (Some(Some(sa)), _) => sa.slot,
                (_, Some(Some(sa))) => sa.slot,
                _ => continue,
            };
            runtime.prefetch_sa(slot);
        }
        for _ in 0..most {
            let Some(i) = self.untold.pop_front() else { break };
            self.tell_one(i, reader, runtime);
            self.refill(i, runtime);
        }
        !self.untold.is_empty()
    }

    #[inline(never)]
    fn wait(&mut self, i: u32, reader: &Reader, runtime: &Runtime) {
        // States that were let go of may still wait.
        if self.untold.len() == self.untold.capacity() {
            self.tell(1, reader, runtime);
        }
        self.untold.push_back(i);
    }

    fn tell_one(&mut self, i: u32, reader: &Reader, runtime: &Runtime) {
        let i = i as usize;
        let (untold, top, slot, is_current) = match (self.inbound.get_mut(i), self.states.get_mut(i)) {
            (Some(Some(sa)), _) => {
                sa.waits = false;
                let is_current = sa.sad_version == self.sad_version as u32;
                (&mut sa.untold, Some(sa.window.top()), sa.slot, is_current)
            }
            (_, Some(Some(sa))) => (&mut sa.untold, None, sa.slot, sa.sad_version == self.sad_version),
            _ => return,
        };
        let untold = std::mem::take(untold);
        // The line may be another SA's, and another worker's, once this one is gone.
        if !is_current {
            let generation = self.states[i].as_ref().map(|sa| sa.generation);
            if reader.generation(slot) != generation {
                return;
            }
        }
        let line = runtime.sa(slot);
        if let Some(top) = top {
            line.saw(top);
        }
        line.count(&untold.counters());
    }

    /// SAs in the table.
    pub fn len(&self) -> usize {
        self.states.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells all that is left, at the worker's end. After [`SaTable::turn`].
    pub fn tell_all(&mut self, reader: &Reader, runtime: &Runtime) {
        self.untold.clear();
        (0..self.states.len() as u32).for_each(|i| self.tell_one(i, reader, runtime));
    }

    /// Looks at some of the states, between turns: lets go of those whose slot has moved on, and tells what was counted
    /// of those that wait no more.
    pub fn sweep(&mut self, reader: &Reader, runtime: &Runtime) {
        for _ in 0..SWEPT.max(self.states.len() / SWEPT).min(self.states.len()) {
            self.swept = (self.swept + 1) % self.states.len();
            let Some(state) = &self.states[self.swept] else { continue };
            if reader.generation(state.slot) != Some(state.generation) {
                self.evict(self.swept as u32);
            } else if let Some(sa) = &self.inbound[self.swept]
                && !sa.waits
                && sa.untold.packets > 0
            {
                self.tell_one(self.swept as u32, reader, runtime);
            }
        }
    }

    #[cold]
    fn load(&mut self, slot: SlotIndex, reader: &Reader, runtime: &Runtime) -> Found {
        if let Some(i) = self.index(slot) {
            self.evict(i);
        }
        // Another's need not be copied; a hint, for the SA may change under it.
        match reader.whose(slot).map(|whose| owner_of(whose, self.workers)) {
            Some(owner) if owner != self.me => return Found::At(owner),
            _ => {}
        }
        let place = reader.endpoint_version(slot);
        let Some((generation, sa)) = reader.copy_sa(slot) else { return Found::Nowhere };
        // Whoever else had it would use the same sequence numbers.
        let owner = owner_of(sa.whose(), self.workers);
        if owner != self.me {
            return Found::At(owner);
        }
        // What the plain path has no code for has no key there.
        let is_plain = !Association::is_for(&sa);
        let key = if is_plain { self.aead.sa_key(sa.algorithm, sa.key.bytes()) } else { None };
        if is_plain && key.is_none() {
            return Found::Nowhere;
        }
        let mut state = SaState::load(slot, generation, &sa, runtime);
        state.sad_version = self.sad_version;
        state.outer = state.outer.of_version(place);
        self.checksums += u32::from(is_plain && state.outer.has_checksum());
        self.followed += u32::from(state.following != Following::Not);
        let is_inbound = sa.direction == Direction::Inbound;
        let mut ring = Ring::new(if is_inbound { sa.replay_window } else { 0 });
        let inbound = is_inbound.then(|| {
            let seen = runtime.sa(slot).highest_seen();
            let window = ReplayWindow::new(sa.replay_window, sa.esn, seen, &mut ring);
            InboundSa { sad_version: self.sad_version as u32, ..InboundSa::new(slot, &sa, window) }
        });
        let is_looked_at = state.is_limited || state.may_run_out();
        let life = Life::of(&sa.handling).map(Box::new);
        let i = match self.free.pop() {
            Some(i) => {
                self.states[i as usize] = Some(state);
                self.keys[i as usize] = key;
                self.inbound[i as usize] = inbound;
                self.rings[i as usize] = ring;
                self.associations[i as usize] = None;
                self.lives[i as usize] = life;
                i
            }
            None => {
                self.states.push(Some(state));
                self.keys.push(key);
                self.inbound.push(inbound);
                self.rings.push(ring);
                self.associations.push(None);
                self.lives.push(life);
                self.states.len() as u32 - 1
            }
        };
        self.index[slot.0 as usize] = i + 1;
        if !is_inbound {
            self.outbound.insert(sa.spi.0, i);
        }
        if is_looked_at {
            self.limit(i, generation);
        }
        if Keepalives::is_for(&sa) {
            self.keep_alive(slot, generation, &sa);
        }
        if runtime.sa(slot).was_told(EventKind::HardLifetime) {
            self.end(i); // of a datapath before this one
        }
        if !is_plain || self.get(i).has_ended {
            let next_seq =
                self.inbound[i as usize].as_ref().map_or(1, |sa| sa.window.top().saturating_add(1));
            let with = Association::new(sa, next_seq, self.aead);
            if with.as_ref().is_some_and(|with| with.tfc.is_timed()) {
                self.timed.push(i);
                self.has_news = true;
            }
            self.associations[i as usize] = with;
            return Found::General(i);
        }
        if is_inbound {
            self.spis.insert(sa.spi.0, i);
        }
        Found::Here(i)
    }

    fn evict(&mut self, i: u32) {
        if let Some(state) = self.states[i as usize].take() {
            self.keys[i as usize] = None;
            self.checksums -= u32::from(state.is_plain && state.outer.has_checksum());
            self.followed -= u32::from(state.following != Following::Not);
            self.lives[i as usize] = None;
            if self.associations[i as usize].take().is_some_and(|with| with.tfc.is_timed()) {
                self.timed.retain(|timed| *timed != i);
            }
            if self.inbound[i as usize].take().is_some() {
                self.spis.remove(state.spi, i);
                self.rings[i as usize] = Ring::new(0);
            } else {
                self.outbound.remove(state.spi, i);
            }
            self.index[state.slot.0 as usize] = 0;
            self.free.push(i);
        }
    }
}

/// A packet behind others, in the window.
#[cold]
fn count_late(runtime: &Runtime, slot: SlotIndex, by: u64) {
    let line = runtime.sa(slot);
    line.count(&SaCounters { out_of_order: 1, ..SaCounters::default() });
    line.late(by);
}

#[cfg(test)]
mod tests;
