//! A worker's private state of the SAs it owns.
//!
//! The SADB region holds what an SA *is*; this table holds what one worker needs to use it: the expanded
//! key, the replay window or the block of reserved sequence numbers, and the outer header. It is filled
//! when the worker first meets a (slot, generation), from a copy of the slot, and is emptied by
//! [`SaTable::sweep`] once the slot has moved on. All memory is reserved at the start.
//!
//! Danger: sequence numbers are GCM nonces (RFC 4106 §3). `SaState::load` starts above every number that
//! a predecessor may have used, and takes every number up to the highest that it accepted as seen.

use crate::{
    crypto::{Aead, AeadKey},
    esp::{self, OuterHeader},
    memory::Table,
    nexthop::Via,
    replay::ReplayWindow,
};
use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::{
    Direction, Generation, Mode, Protocol, Reader, Runtime, Sa, SlotIndex, prefetch, prefetch_at,
};
use serde::Serialize;

/// Sequence numbers reserved at a time in the runtime region, before any of them is used.
pub const RESERVED_BLOCK: u64 = 4096;

/// Slots that one [`SaTable::sweep`] looks at.
const SWEPT: usize = 64;

/// SAs that stay in the CPU's nearest caches by themselves.
const NEAR: usize = 64;

/// What one worker needs of one SA, but for its key and its replay window: two cache lines.
#[repr(C, align(64))]
pub struct SaState {
    /// Which SA of its slot it is.
    pub generation: Generation,
    /// The version of the SAD in which the slot was last looked at.
    sad_version: u64,
    /// The last outbound sequence number that was assigned, and the last that is reserved.
    assigned_seq: u64,
    reserved_seq: u64,
    /// Where its packets go.
    pub via: Via,
    /// Where the SA is in the SADB.
    pub slot: SlotIndex,
    /// The SPI.
    pub spi: u32,
    /// The policy that it serves.
    pub reqid: u32,
    /// The largest outer packet, or 0 where only the interface limits it.
    pub mtu: u16,
    /// Which way.
    pub direction: Direction,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Whether it is encapsulated in UDP.
    pub udp: bool,
    /// iked was told that the sequence numbers are used up.
    pub exhaustion_told: bool,
    /// What goes in front of each packet, if outbound; what stands there, if inbound.
    pub outer: OuterHeader,
}

const _: () = assert!(std::mem::offset_of!(SaState, outer) == 64 && size_of::<Option<SaState>>() == 128);

impl SaState {
    /// Takes up an SA that this worker meets for the first time where a predecessor left off.
    fn load(slot: SlotIndex, generation: Generation, sa: &Sa, runtime: &Runtime) -> SaState {
        let line = runtime.sa(slot);
        line.adopt(generation);
        SaState {
            generation,
            sad_version: 0,
            // None of the block that was begun is used again.
            assigned_seq: line.reserved_seq(),
            reserved_seq: line.reserved_seq(),
            via: Via::NONE,
            slot,
            spi: sa.spi.0,
            reqid: sa.reqid,
            mtu: sa.mtu,
            direction: sa.direction,
            esn: sa.esn,
            udp: sa.udp.is_some(),
            exhaustion_told: false,
            outer: OuterHeader::new(sa),
        }
    }

    /// Assigns the next sequence number. `None`: they are used up (RFC 4303 §3.3.3).
    #[inline]
    pub fn next_seq(&mut self, runtime: &Runtime) -> Option<u64> {
        if self.assigned_seq == self.reserved_seq {
            self.reserve(runtime)?;
        }
        self.assigned_seq += 1;
        Some(self.assigned_seq)
    }

    #[cold]
    fn reserve(&mut self, runtime: &Runtime) -> Option<()> {
        let last = if self.esn { u64::MAX } else { u32::MAX as u64 };
        let left = last.checked_sub(self.assigned_seq).filter(|left| *left > 0)?;
        self.reserved_seq += left.min(RESERVED_BLOCK);
        runtime.sa(self.slot).reserve(self.reserved_seq);
        Some(())
    }
}

/// Whose an SA is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// This worker's: its index in the table.
    Here(u32),
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

/// States, keys and replay windows, by index.
pub type Split<'a> = (&'a mut [Option<SaState>], &'a [Option<AeadKey>], &'a [Option<ReplayWindow>]);

/// All SAs of one worker.
pub struct SaTable {
    me: u32,
    workers: u32,
    aead: Aead,
    /// By slot: one more than the index in `states`, or 0.
    index: Table<u32>,
    states: Table<Option<SaState>>,
    /// Of each state, the key, expanded, and if it is inbound, which sequence numbers were received.
    keys: Table<Option<AeadKey>>,
    windows: Table<Option<ReplayWindow>>,
    free: Vec<u32>,
    swept: usize,
    /// SAs whose packets have a checksum in their outer headers.
    checksums: u32,
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
            index: Table::filled(room, 0),
            states: Table::new(room),
            keys: Table::new(room),
            windows: Table::new(room),
            free: Vec::with_capacity(room),
            swept: 0,
            checksums: 0,
            sad_version: 0,
        }
    }

    /// What an SA takes here.
    pub fn bytes_per_sa(aead: Aead) -> BytesPerSa {
        // In `states`, `keys` and `windows`; in `index` and `free`.
        let state =
            size_of::<Option<SaState>>() + size_of::<Option<AeadKey>>() + size_of::<Option<ReplayWindow>>();
        BytesPerSa { state: state + aead.key_octets_apart(), index: 2 * size_of::<u32>() }
    }

    /// What seals and opens with the keys of this table.
    pub fn aead(&self) -> Aead {
        self.aead
    }

    /// Once per turn, after the worker's epoch was announced: slots that did not change since a state was last
    /// looked for need not be looked at again.
    pub fn turn(&mut self, reader: &Reader) {
        // Whoever retires an SA changes the version before the epoch that its memory waits for.
        self.sad_version = reader.sad_version();
    }

    /// Brings the way from a slot to its state into the CPU's cache.
    #[inline]
    pub fn prefetch_index(&self, slot: SlotIndex) {
        if let Some(index) = self.index.get(slot.0 as usize) {
            prefetch(index);
        }
    }

    /// The index of the state for a slot, if it has one: not whether it is of the SA that lives there now.
    #[inline]
    pub fn index(&self, slot: SlotIndex) -> Option<u32> {
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

    /// Brings what a packet needs of its SA into the CPU's caches. Whether there is one is not looked at: that would be
    /// to wait for it.
    #[inline]
    pub fn prefetch(&self, i: u32) {
        if (i as usize) < self.states.len() {
            let state = self.states.as_ptr().wrapping_add(i as usize);
            prefetch_at(state);
            prefetch_at(state.wrapping_byte_add(64));
            AeadKey::prefetch(self.keys.as_ptr().wrapping_add(i as usize));
        }
    }

    /// The same of the replay window.
    #[inline]
    pub fn prefetch_window(&self, i: u32) {
        prefetch_at(self.windows.as_ptr().wrapping_add(i as usize));
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
            && let Some(state) = &mut self.states[i as usize]
        {
            if state.sad_version == self.sad_version {
                return Found::Here(i);
            }
            if reader.generation(slot) == Some(state.generation) {
                state.sad_version = self.sad_version;
                return Found::Here(i);
            }
        }
        self.load(slot, reader, runtime)
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

    /// All states, to change, their keys, and their replay windows, by index.
    #[inline]
    pub fn split(&mut self) -> Split<'_> {
        (&mut self.states, &self.keys, &self.windows)
    }

    /// The replay window of an inbound SA that was found this turn.
    #[inline]
    pub fn window(&mut self, i: u32) -> &mut ReplayWindow {
        self.windows[i as usize].as_mut().expect("an inbound SA has one")
    }

    /// SAs in the table.
    pub fn len(&self) -> usize {
        self.states.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at some of the states, between turns, and lets go of those whose slot has moved on.
    pub fn sweep(&mut self, reader: &Reader) {
        for _ in 0..SWEPT.min(self.states.len()) {
            self.swept = (self.swept + 1) % self.states.len();
            let Some(state) = &self.states[self.swept] else { continue };
            if reader.generation(state.slot) != Some(state.generation) {
                self.evict(self.swept as u32);
            }
        }
    }

    #[cold]
    fn load(&mut self, slot: SlotIndex, reader: &Reader, runtime: &Runtime) -> Found {
        if let Some(i) = self.index(slot) {
            self.evict(i);
        }
        // Another's need not be copied; a hint, for the SA may change under it.
        match reader.spi(slot).map(|spi| worker_of_spi(spi.0, self.workers)) {
            Some(owner) if owner != self.me => return Found::At(owner),
            _ => {}
        }
        let Some((generation, sa)) = reader.copy_sa(slot) else { return Found::Nowhere };
        // Whoever else had it would use the same sequence numbers.
        let owner = worker_of_spi(sa.spi.0, self.workers);
        if owner != self.me {
            return Found::At(owner);
        }
        // What this datapath has no code for must not be taken for ESP in tunnel mode.
        let is_tunnel = sa.protocol == Protocol::Esp && sa.mode == Mode::Tunnel;
        if !is_tunnel || !esp::is_supported(sa.algorithm) {
            return Found::Nowhere;
        }
        let Some(key) = self.aead.sa_key(sa.algorithm, sa.key.bytes()) else { return Found::Nowhere };
        let mut state = SaState::load(slot, generation, &sa, runtime);
        state.sad_version = self.sad_version;
        self.checksums += u32::from(state.outer.has_checksum());
        let window = (sa.direction == Direction::Inbound).then(|| {
            let mut window = ReplayWindow::new(sa.replay_window, sa.esn);
            window.resume(runtime.sa(slot).highest_seen());
            window
        });
        let i = match self.free.pop() {
            Some(i) => {
                self.states[i as usize] = Some(state);
                self.keys[i as usize] = Some(key);
                self.windows[i as usize] = window;
                i
            }
            None => {
                self.states.push(Some(state));
                self.keys.push(Some(key));
                self.windows.push(window);
                self.states.len() as u32 - 1
            }
        };
        self.index[slot.0 as usize] = i + 1;
        Found::Here(i)
    }

    fn evict(&mut self, i: u32) {
        if let Some(state) = self.states[i as usize].take() {
            self.checksums -= u32::from(state.outer.has_checksum());
            self.keys[i as usize] = None;
            self.windows[i as usize] = None;
            self.index[state.slot.0 as usize] = 0;
            self.free.push(i);
        }
    }
}
