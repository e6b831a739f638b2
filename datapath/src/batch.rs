//! A batch: the frames of one turn of a worker, and what its hops know about each.
//!
//! A hop reads and writes the [`Meta`] beside each frame, and moves the frame to its next [`Stage`].
//! It never frees a frame and never counts a drop: it says [`Stage::Drop`], and the worker does both in
//! one place at the end of the turn.

use crate::{
    classify::Class,
    crypto::IcvVerified,
    drop::DropReason,
    frame::Frame,
    wire::{Addr, Ip},
};
use arrayvec::ArrayVec;

/// Frames of one turn, at most.
pub const BATCH: usize = 128;

/// Where a frame is on its way; a hop handles the frames of one stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// As received, Ethernet header and all.
    Received,
    /// ESP for an inbound SA of this worker; the frame starts at the outer IP header.
    Inbound,
    /// Clear traffic that the outbound policies decide on; the frame starts at the IP header.
    Outbound,
    /// An IP packet to be routed to `Meta::dst`.
    Forward,
    /// The SA belongs to another worker; the frame is whole again, from its Ethernet header.
    Handoff(u8),
    /// Opened, but its inner packet is refused; only between decapsulation and the policy check.
    Refused(DropReason),
    /// Not forwarded, and why.
    Drop(DropReason),
}

/// What the hops know about a frame.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Where it is on its way.
    pub stage: Stage,
    /// What kind of packet it is, as received.
    pub class: Class,
    /// The IP header: of the packet as received, or of the inner one, once there is one.
    pub ip: Ip,
    /// This worker's index of the SA, while `stage` is inbound or outbound.
    pub sa: u32,
    /// The 64-bit sequence number, received or assigned.
    pub seq: u64,
    /// Inbound: that its ICV was verified.
    pub proof: Option<IcvVerified>,
    /// The destination to route to: outer after encapsulation, inner after decapsulation.
    pub dst: Addr,
}

impl Meta {
    const RECEIVED: Meta = Meta {
        stage: Stage::Received,
        class: Class::Kernel,
        ip: Ip::NONE,
        sa: u32::MAX,
        seq: 0,
        proof: None,
        dst: Addr { bits: 0, v4: true },
    };
}

/// The frames of one turn and their [`Meta`], index by index.
#[derive(Default)]
pub struct Batch {
    /// The frames.
    pub frames: ArrayVec<Frame, BATCH>,
    /// What is known of each.
    pub metas: ArrayVec<Meta, BATCH>,
}

impl Batch {
    /// Gives each frame that has none a [`Meta`], as received.
    pub fn receive(&mut self) {
        while self.metas.len() < self.frames.len() {
            // A constant, which is copied whole.
            self.metas.push(Meta::RECEIVED);
        }
    }
}
