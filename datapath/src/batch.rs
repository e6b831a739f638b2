//! A batch: the frames of one turn of a worker, and what its hops know about each.
//!
//! A hop reads and writes the [`Meta`] beside each frame, and moves the frame to its next [`Stage`].
//! It never frees a frame and never counts a drop: it says [`Stage::Drop`], and the worker does both in
//! one place at the end of the turn.

use crate::{
    classify::Esp,
    crypto::{self, IcvVerified},
    drop::DropReason,
    frame::Frame,
    general::{NESTED, ONWARD, Why},
    nexthop::Via,
    policy::Homes,
    wire::{ETHERNET, Ip},
};
use arrayvec::ArrayVec;
use portcullis_sadb::{PolicyIndex, prefetch_at};
use std::ops::Range;

/// Frames of one turn, at most.
pub const BATCH: usize = crypto::BATCH;

/// Where a frame is on its way; a hop handles the frames of one stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// As received, Ethernet header and all.
    Received,
    /// ESP for an inbound SA of this worker; the frame starts at the outer IP header.
    Inbound,
    /// Clear traffic that the outbound policies decide on; the frame starts at the IP header.
    Outbound,
    /// An ESP packet to be routed to the peer of its SA.
    Sealed,
    /// An IP packet to be routed to its destination.
    Forward,
    /// The SA belongs to another worker; the frame is whole again, from its Ethernet header.
    Handoff(u8),
    /// For the general path; the frame starts at the IP header.
    General(Why),
    /// As it came: its policy has no SA, which iked may be asked for.
    Unkeyed,
    /// Opened, but its inner packet is refused; only between decapsulation and the policy check.
    Refused(DropReason),
    /// Not forwarded, and why.
    Drop(DropReason),
}

/// What the hops know about a frame.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The IP header: of the packet as received, or of the inner one, once there is one.
    pub ip: Ip,
    /// Inbound: the ESP header.
    pub esp: Esp,
    /// This worker's index of the SA; before it is found, where it was found the last time.
    pub sa: u32,
    /// The 64-bit sequence number, received or assigned.
    pub seq: u64,
    /// Where the last packet of this flow went.
    pub via: Via,
    /// The policy that protects it, outbound.
    pub policy: PolicyIndex,
    /// Where its flow may be in the cache of flows; the first is where it is, once that is known.
    pub homes: Homes,
    /// Where it is on its way.
    pub stage: Stage,
    /// Where the IP header was in the frame, as received.
    pub l3: u8,
    /// Inbound: that its ICV was verified.
    pub proof: Option<IcvVerified>,
}

impl Meta {
    /// What stands where there is no packet.
    pub(crate) const NONE: Meta = Meta {
        ip: Ip::NONE,
        esp: Esp::NONE,
        sa: u32::MAX,
        seq: 0,
        via: Via::NONE,
        policy: PolicyIndex(0),
        homes: [0; 2],
        stage: Stage::Received,
        l3: 0,
        proof: None,
    };

    /// As received: what a hop may read that none before it has written.
    #[inline]
    fn receive(&mut self) {
        let Meta { sa, seq, via, stage, l3, proof, .. } = Meta::NONE;
        (self.sa, self.seq, self.via) = (sa, seq, via);
        (self.stage, self.l3, self.proof) = (stage, l3, proof);
    }
}

const _: () = assert!(size_of::<Meta>() == 96);

/// The frames of one turn and their [`Meta`], index by index.
pub struct Batch {
    /// The frames.
    pub frames: ArrayVec<Frame, BATCH>,
    /// What is known of each; behind the last frame, nothing.
    pub metas: [Meta; BATCH],
}

impl Default for Batch {
    fn default() -> Batch {
        Batch { frames: ArrayVec::new(), metas: [Meta::NONE; BATCH] }
    }
}

impl Batch {
    /// Makes the [`Meta`] of each frame from the `first` on that of one as received.
    #[inline]
    pub fn receive(&mut self, first: usize) {
        let frames = self.frames.len();
        self.metas[first..frames].iter_mut().for_each(Meta::receive);
    }

    /// Of these frames, which are other workers', some are in an SA already (RFC 4301 §E), or came out of one.
    #[inline]
    pub fn receive_nested(&mut self, handed: Range<usize>) {
        for (frame, meta) in self.frames[handed.clone()].iter_mut().zip(&mut self.metas[handed]) {
            let why =
                match frame.bytes().get(ETHERNET - 2..ETHERNET).map(|b| u16::from_be_bytes([b[0], b[1]])) {
                    Some(NESTED) => Why::Nested,
                    Some(ONWARD) => Why::Onward,
                    _ => continue,
                };
            frame.pull(ETHERNET);
            meta.stage = Stage::General(why);
        }
    }

    /// Brings some [`Meta`]s into the CPU's cache.
    pub fn prefetch(&self, metas: Range<usize>) {
        let metas = &self.metas[metas];
        for at in (0..size_of_val(metas)).step_by(64) {
            prefetch_at(metas.as_ptr().wrapping_byte_add(at));
        }
    }
}
