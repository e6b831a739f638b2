//! Where the peers of SAs in UDP are: behind a NAT, they may be elsewhere tomorrow (RFC 7296 §2.23, RFC 3948).
//!
//! A worker only tells: what the newest packet of an SA says of its source, once that packet's ICV is verified. iked says
//! where the peer is, beside the SA in the SADB, and the version of the SAD changes; the worker then looks at the slot as
//! it does after any change, and makes another outer header. Keys, sequence numbers and window go on.
//!
//! # Dangers
//! - Whoever can hold back or copy packets of the peer can have the one that arrives first come from himself, and draws the
//!   other direction to him until the peer's next packet: the price of following at all. An old packet draws nothing.
//! - Of each SA one move at a time is told, and the next one only when iked has said something: a peer that comes from
//!   everywhere does not fill the ring of events.

use super::{SaTable, state::Following};
use crate::{crypto::IcvVerified, nexthop::Via, wire::Ip};
use portcullis_sadb::{Endpoint, Event, Generation, Reader, SlotIndex, WorkerRuntime};

/// Moves that a turn takes note of, at most; what is more, the next packets tell.
const MOVES: usize = 256;

/// A peer that is somewhere else, of which iked is to be told at the end of the turn.
struct Move {
    state: u32,
    slot: SlotIndex,
    generation: Generation,
    to: Endpoint,
}

/// Those of a turn.
pub(super) struct Moves(Vec<Move>);

impl Moves {
    pub(super) fn new() -> Moves {
        Moves(Vec::with_capacity(MOVES))
    }
}

impl SaTable {
    /// Looks where a packet of an inbound SA came from, in UDP (RFC 7296 §2.23), that has this outer header and went into the
    /// window: by its proof it is the peer's. If it is the newest, the peer is to be followed, and is elsewhere than we know,
    /// iked will be told.
    #[inline(never)]
    pub fn follow(&mut self, i: u32, seq: u64, outer: &Ip, _proof: IcvVerified) {
        // One that was overtaken tells nothing.
        if self.inbound(i).is_none_or(|(sa, _)| seq < sa.window.top()) {
            return;
        }
        let (Some(Some(state)), Some(port)) = (self.states.get_mut(i as usize), outer.src_port()) else {
            return;
        };
        if state.following != Following::Yes || state.outer.is_from(outer.src(), port) {
            return;
        }
        if self.moves.0.len() == MOVES {
            return;
        }
        if let Some(to) = Endpoint::new(outer.src().into(), port) {
            state.following = Following::Told;
            let (slot, generation) = (state.slot, state.generation);
            self.moves.0.push(Move { state: i, slot, generation, to });
        }
    }

    /// Whether any peers are followed.
    #[inline]
    pub fn has_followed(&self) -> bool {
        self.followed > 0
    }

    /// Whether iked is to be told of any moves.
    #[inline]
    pub fn has_moves(&self) -> bool {
        !self.moves.0.is_empty()
    }

    /// Tells iked of them, at the end of a turn. What does not fit into the ring, later packets tell.
    #[cold]
    pub fn tell_moves(&mut self, iked: &WorkerRuntime) {
        for Move { state, slot, generation, to } in self.moves.0.drain(..) {
            let is_told = iked.tell(&Event::peer_moved(slot, generation, to));
            if let Some(Some(state)) = self.states.get_mut(state as usize)
                && state.generation == generation
                && !is_told
            {
                state.following = Following::Yes;
            }
        }
    }

    /// Takes it from the SADB where the peer of an SA is now, of a version that was asked for before.
    #[cold]
    pub(super) fn take_place(&mut self, i: u32, version: u64, reader: &Reader) {
        let Some(Some(state)) = self.states.get_mut(i as usize) else { return };
        let Some((generation, sa)) = reader.copy_sa(state.slot) else { return };
        if generation != state.generation {
            return;
        }
        state.outer = state.outer.moved(&sa, version);
        state.via = Via::NONE;
        if state.following == Following::Told {
            state.following = Following::Yes;
        }
        if let Some(Some(with)) = self.associations.get_mut(i as usize) {
            with.lead_as(&sa);
            state.mtu = sa.mtu;
        }
    }
}
