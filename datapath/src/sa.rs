//! A worker's private state of the SAs it owns.
//!
//! The SADB region holds what an SA *is*; this table holds what one worker needs to use it: the expanded
//! key, the replay window or the block of reserved sequence numbers, and the outer header. It is filled
//! when the worker first meets a (slot, generation), from a copy of the slot, and is emptied by
//! [`SaTable::sweep`] once the slot has moved on. All memory is reserved at the start.
//!
//! Danger: sequence numbers are GCM nonces (RFC 4106 §3). [`SaState::load`] starts above every number that
//! a predecessor may have used, and takes every number up to the highest that it accepted as seen.

use crate::{crypto::AeadKey, drop::DropReason, esp::OuterHeader, replay::ReplayWindow};
use portcullis_sadb::{Direction, Generation, Reader, Runtime, Sa, SlotIndex};
use std::net::IpAddr;

/// Sequence numbers reserved at a time in the runtime region, before any of them is used.
pub const RESERVED_BLOCK: u64 = 4096;

/// Slots that one [`SaTable::sweep`] looks at.
const SWEPT: usize = 64;

/// What one worker needs of one SA.
pub struct SaState {
    /// Where the SA is in the SADB.
    pub slot: SlotIndex,
    /// Which SA of that slot it is.
    pub generation: Generation,
    /// The key, expanded.
    pub key: AeadKey,
    /// Inbound: which sequence numbers were received.
    pub window: ReplayWindow,
    /// Outbound: what goes in front of each packet.
    pub outer: Option<OuterHeader>,
    /// The next outbound sequence number, and the last that is reserved.
    next_seq: u64,
    reserved_seq: u64,
    last_seq: u64,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Inbound: the address that packets must be sent to.
    pub local: IpAddr,
    /// The policy that it serves.
    pub reqid: u32,
    /// UDP ports of the encapsulation, source and destination.
    pub udp: Option<(u16, u16)>,
    /// The largest outer packet, or 0 where only the interface limits it.
    pub mtu: u16,
}

impl SaState {
    /// Expands an SA that this worker meets for the first time, and takes up where a predecessor left off.
    fn load(slot: SlotIndex, generation: Generation, sa: &Sa, runtime: &Runtime) -> Option<SaState> {
        let key = AeadKey::new(sa.algorithm, sa.key.bytes())?;
        let line = runtime.sa(slot);
        line.adopt(generation);
        let mut window = ReplayWindow::new(sa.replay_window, sa.esn);
        window.resume(line.highest_seen());
        let reserved_seq = line.reserved_seq();
        let outbound = sa.direction == Direction::Outbound;
        Some(SaState {
            slot,
            generation,
            key,
            window,
            outer: outbound.then(|| OuterHeader::new(sa)),
            next_seq: reserved_seq + 1,
            reserved_seq,
            last_seq: if sa.esn { u64::MAX } else { u32::MAX as u64 },
            esn: sa.esn,
            local: sa.dst,
            reqid: sa.reqid,
            udp: sa.udp,
            mtu: sa.mtu,
        })
    }

    /// Assigns the next sequence number. `None`: they are used up (RFC 4303 §3.3.3).
    pub fn next_seq(&mut self, runtime: &Runtime) -> Option<u64> {
        if self.next_seq > self.reserved_seq {
            if self.reserved_seq == self.last_seq {
                return None;
            }
            self.reserved_seq = self.reserved_seq.saturating_add(RESERVED_BLOCK).min(self.last_seq);
            runtime.sa(self.slot).reserve(self.reserved_seq);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        Some(seq)
    }
}

/// All SAs of one worker.
pub struct SaTable {
    /// By slot: one more than the index in `states`, or 0.
    index: Vec<u32>,
    states: Vec<Option<SaState>>,
    free: Vec<u32>,
    swept: usize,
}
