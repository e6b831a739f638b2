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
    replay::ReplayWindow,
};
use portcullis_sadb::{Direction, Generation, Mode, Protocol, Reader, Runtime, Sa, SlotIndex, prefetch};
use serde::Serialize;

/// Sequence numbers reserved at a time in the runtime region, before any of them is used.
pub const RESERVED_BLOCK: u64 = 4096;

/// Slots that one [`SaTable::sweep`] looks at.
const SWEPT: usize = 64;

/// What one worker needs of one SA. Its first line is for every packet, its second for packets on their way out.
#[repr(C, align(64))]
pub struct SaState {
    /// Which SA of its slot it is.
    pub generation: Generation,
    /// The version of the SAD in which the slot was last looked at.
    sad_version: u64,
    /// The last outbound sequence number that was assigned, and the last that is reserved.
    assigned_seq: u64,
    reserved_seq: u64,
    last_seq: u64,
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
    /// Inbound: which sequence numbers were received.
    pub window: ReplayWindow,
    /// The key, expanded.
    pub key: AeadKey,
}

const _: () = assert!(std::mem::offset_of!(SaState, outer) == 64 && size_of::<OuterHeader>() == 64);

impl SaState {
    /// Expands an SA that this worker meets for the first time, and takes up where a predecessor left off.
    ///
    /// `None` for what this datapath has no code for: it must not be taken for ESP in tunnel mode.
    fn load(
        aead: Aead,
        slot: SlotIndex,
        generation: Generation,
        sa: &Sa,
        runtime: &Runtime,
    ) -> Option<SaState> {
        let is_tunnel = sa.protocol == Protocol::Esp && sa.mode == Mode::Tunnel;
        if !is_tunnel || !esp::is_supported(sa.algorithm) {
            return None;
        }
        let key = aead.sa_key(sa.algorithm, sa.key.bytes())?;
        let line = runtime.sa(slot);
        line.adopt(generation);
        let mut window = ReplayWindow::new(sa.replay_window, sa.esn);
        window.resume(line.highest_seen());
        let reserved_seq = line.reserved_seq();
        Some(SaState {
            generation,
            sad_version: 0,
            assigned_seq: reserved_seq,
            reserved_seq,
            last_seq: if sa.esn { u64::MAX } else { u32::MAX as u64 },
            slot,
            spi: sa.spi.0,
            reqid: sa.reqid,
            mtu: sa.mtu,
            direction: sa.direction,
            esn: sa.esn,
            udp: sa.udp.is_some(),
            exhaustion_told: false,
            outer: OuterHeader::new(sa),
            window,
            key,
        })
    }

    /// Assigns the next sequence number. `None`: they are used up (RFC 4303 §3.3.3).
    pub fn next_seq(&mut self, runtime: &Runtime) -> Option<u64> {
        if self.assigned_seq == self.reserved_seq {
            if self.reserved_seq >= self.last_seq {
                return None;
            }
            self.reserved_seq = self.reserved_seq.saturating_add(RESERVED_BLOCK).min(self.last_seq);
            runtime.sa(self.slot).reserve(self.reserved_seq);
        }
        self.assigned_seq += 1;
        Some(self.assigned_seq)
    }
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

/// All SAs of one worker.
pub struct SaTable {
    aead: Aead,
    /// By slot: one more than the index in `states`, or 0.
    index: Vec<u32>,
    states: Vec<Option<SaState>>,
    free: Vec<u32>,
    swept: usize,
    /// The version of the SAD that this turn goes by.
    sad_version: u64,
}

impl SaTable {
    /// An empty table for a SAD of `max_sas` slots, with keys for one way of sealing and opening.
    pub fn new(max_sas: u32, aead: Aead) -> SaTable {
        SaTable {
            aead,
            index: vec![0; max_sas as usize],
            states: Vec::with_capacity(max_sas as usize),
            free: Vec::with_capacity(max_sas as usize),
            swept: 0,
            sad_version: 0,
        }
    }

    /// What an SA takes here.
    pub fn bytes_per_sa(aead: Aead) -> BytesPerSa {
        // In `states`; in `index` and `free`.
        BytesPerSa {
            state: size_of::<Option<SaState>>() + aead.key_octets_apart(),
            index: 2 * size_of::<u32>(),
        }
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

    /// Brings what [`SaTable::find`] looks at first into the CPU's cache.
    #[inline]
    pub fn prefetch(&self, slot: SlotIndex) {
        if let Some(index) = self.index.get(slot.0 as usize) {
            prefetch(index);
        }
    }

    /// Brings what a packet needs of its SA into the CPU's cache, once [`SaTable::prefetch`] has done its part.
    #[inline]
    pub fn prefetch_state(&self, slot: SlotIndex, runtime: &Runtime) {
        if let Some(i) = self.index.get(slot.0 as usize).and_then(|i| i.checked_sub(1))
            && let Some(state) = self.states.get(i as usize)
        {
            prefetch(state);
            if let Some(state) = state {
                prefetch(&state.outer);
                prefetch(&state.window);
                state.key.prefetch();
            }
            runtime.prefetch_sa(slot);
        }
    }

    /// The index of the SA that lives in a slot, for [`SaTable::get`]. The first time, its key is expanded.
    #[inline]
    pub fn find(&mut self, slot: SlotIndex, reader: &Reader, runtime: &Runtime) -> Option<u32> {
        let version = self.sad_version;
        if let Some(i) = self.index.get(slot.0 as usize)?.checked_sub(1)
            && let Some(state) = &mut self.states[i as usize]
        {
            if state.sad_version == version {
                return Some(i);
            }
            if reader.generation(slot) == Some(state.generation) {
                state.sad_version = version;
                return Some(i);
            }
        }
        self.load(slot, reader, runtime)
    }

    /// The state with an index that `find` returned this turn.
    #[inline]
    pub fn get(&self, i: u32) -> &SaState {
        self.state(i).expect("found this turn")
    }

    /// The same, to change.
    #[inline]
    pub fn get_mut(&mut self, i: u32) -> &mut SaState {
        self.states[i as usize].as_mut().expect("found this turn")
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

    fn state(&self, i: u32) -> Option<&SaState> {
        self.states[i as usize].as_ref()
    }

    #[cold]
    fn load(&mut self, slot: SlotIndex, reader: &Reader, runtime: &Runtime) -> Option<u32> {
        if let Some(i) = self.index[slot.0 as usize].checked_sub(1) {
            self.evict(i);
        }
        let (generation, sa) = reader.copy_sa(slot)?;
        let mut state = SaState::load(self.aead, slot, generation, &sa, runtime)?;
        state.sad_version = self.sad_version;
        let i = match self.free.pop() {
            Some(i) => {
                self.states[i as usize] = Some(state);
                i
            }
            None => {
                self.states.push(Some(state));
                self.states.len() as u32 - 1
            }
        };
        self.index[slot.0 as usize] = i + 1;
        Some(i)
    }

    fn evict(&mut self, i: u32) {
        if let Some(state) = self.states[i as usize].take() {
            self.index[state.slot.0 as usize] = 0;
            self.free.push(i);
        }
    }
}
