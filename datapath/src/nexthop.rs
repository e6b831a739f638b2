//! The last hop of a worker: from an IP packet and its destination to an Ethernet frame and a port.
//!
//! The mirror thread hands each worker new [`Fib`] snapshots through a [`Mailbox`]; the worker hands the old ones
//! back, so that it neither locks, allocates nor frees. A packet whose neighbour has no link-layer address yet is
//! held until a snapshot has one, for a second at most, and the mirror is asked to have the kernel resolve it.
//!
//! Held frames are owned by [`NextHops`]: every frame given to [`NextHops::route`] comes out of it, of
//! [`NextHops::turn`] or of [`NextHops::drain`] exactly once.

use crate::{
    drop::DropReason,
    fib::{Fib, Mac, Resolution},
    frame::Frame,
    wire::Addr,
};
use crossbeam::queue::ArrayQueue;
use std::{net::IpAddr, sync::Arc};

/// Frames held for unresolved neighbours, at most, per worker.
pub const HELD_FRAMES: usize = 256;
/// Of these for one neighbour, so that one that is gone cannot keep the others' frames out.
pub const HELD_PER_NEIGHBOUR: usize = 64;
/// How long a frame is held.
pub const HOLD_MS: u64 = 1000;
/// Bytes of the Ethernet header that [`NextHops::route`] writes.
pub const ETHERNET_HEADER: usize = 14;

const CACHE_LINES: usize = 4096;
/// A cached resolution is looked up anew after this long, which marks its neighbour as used.
const CACHE_MS: u64 = 1000;

/// What a worker and the mirror thread exchange.
#[derive(Debug)]
pub struct Mailbox {
    /// The newest snapshot that the worker has not taken.
    fresh: ArrayQueue<Arc<Fib>>,
    /// Snapshots that the worker is done with. Only the worker puts some in.
    spent: ArrayQueue<Arc<Fib>>,
    /// Neighbours to resolve, by port and address.
    wanted: ArrayQueue<(u8, IpAddr)>,
}

/// The mirror's end of a worker's [`Mailbox`].
#[derive(Debug)]
pub struct Publisher(Arc<Mailbox>);

impl Publisher {
    /// Gives the worker a newer snapshot. One that it has not taken yet is replaced.
    pub fn publish(&self, fib: &Arc<Fib>) {
        self.reclaim();
        self.0.fresh.force_push(fib.clone());
    }

    /// Lets go of the snapshots that the worker handed back.
    pub fn reclaim(&self) {
        while self.0.spent.pop().is_some() {}
    }

    /// The next neighbour that the worker wants resolved.
    pub fn wanted(&self) -> Option<(u8, IpAddr)> {
        self.0.wanted.pop()
    }
}

/// What became of a frame.
#[derive(Debug)]
#[must_use = "it holds a frame"]
pub enum Routed {
    /// Ready for this port, Ethernet header and all.
    Send {
        /// The port.
        port: u8,
        /// The frame.
        frame: Frame,
    },
    /// Kept until its next hop is resolved; comes out of [`NextHops::turn`].
    Held,
    /// Not forwarded.
    Drop {
        /// The frame, as it came in.
        frame: Frame,
        /// Why not.
        reason: DropReason,
    },
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine {
    dst: Addr,
    era: u64,
    resolution: Resolution,
}

/// A frame that waits for its neighbour.
struct Held {
    frame: Frame,
    dst: IpAddr,
    port: u8,
    neighbour: IpAddr,
    deadline_ms: u64,
    /// The mirror was asked, with this frame or one before it.
    asked: bool,
}

/// A worker's view of routes and neighbours.
pub struct NextHops {
    mailbox: Arc<Mailbox>,
    fib: Arc<Fib>,
    cache: Box<[CacheLine]>,
    /// Cache lines of another era are stale.
    era: u64,
    era_ends_ms: u64,
    held: Vec<Held>,
    now_ms: u64,
}

impl NextHops {
    /// A worker's view that starts with `fib`, and the other end of its mailbox.
    pub fn new(fib: Arc<Fib>) -> (NextHops, Publisher) {
        let mailbox = Arc::new(Mailbox {
            fresh: ArrayQueue::new(1),
            spent: ArrayQueue::new(4),
            wanted: ArrayQueue::new(64),
        });
        let unused =
            CacheLine { dst: Addr { bits: 0, v4: true }, era: u64::MAX, resolution: Resolution::NoRoute };
        let hops = NextHops {
            mailbox: mailbox.clone(),
            fib,
            cache: vec![unused; CACHE_LINES].into_boxed_slice(),
            era: 0,
            era_ends_ms: 0,
            held: Vec::with_capacity(HELD_FRAMES),
            now_ms: 0,
        };
        (hops, Publisher(mailbox))
    }

    /// The snapshot in use.
    pub fn fib(&self) -> &Fib {
        &self.fib
    }

    /// Frames held now.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Once per turn of the worker's loop: takes a newer snapshot if there is one, and gives `out` the held
    /// frames that can now be sent, or have waited too long. `now_ms` is of any clock that only goes forward.
    pub fn turn(&mut self, now_ms: u64, mut out: impl FnMut(Routed)) {
        self.now_ms = now_ms;
        let newer = self.take_fresh();
        if newer || now_ms >= self.era_ends_ms {
            self.era += 1;
            self.era_ends_ms = now_ms + CACHE_MS;
        }
        // Deadlines are in the order of arrival.
        if self.held.first().is_some_and(|h| newer || now_ms >= h.deadline_ms) {
            self.release(&mut out);
        }
    }

    /// Gives `out` all frames that are still held, as drops. For the end of a worker.
    pub fn drain(&mut self, mut out: impl FnMut(Routed)) {
        for Held { frame, .. } in self.held.drain(..) {
            out(Routed::Drop { frame, reason: DropReason::NeighbourUnresolved });
        }
    }

    /// Where a packet to `dst` goes now, from the cache if it is known there.
    #[inline]
    pub fn resolve(&mut self, dst: impl Into<Addr>) -> Resolution {
        let dst = dst.into();
        let line = &mut self.cache[cache_index(dst)];
        if line.era == self.era && line.dst == dst {
            return line.resolution;
        }
        let resolution = self.fib.resolve(dst.into());
        if !matches!(resolution, Resolution::Unresolved { .. }) {
            *line = CacheLine { dst, era: self.era, resolution };
        }
        resolution
    }

    /// Routes a frame that starts at its IP header to `dst`.
    #[inline]
    pub fn route(&mut self, frame: Frame, dst: impl Into<Addr>) -> Routed {
        let dst = dst.into();
        match self.resolve(dst) {
            Resolution::Unresolved { port, addr } => self.hold(frame, dst.into(), port, addr),
            resolved => finish(frame, resolved),
        }
    }

    #[cold]
    fn hold(&mut self, frame: Frame, dst: IpAddr, port: u8, neighbour: IpAddr) -> Routed {
        let reason = DropReason::NeighbourUnresolved;
        if self.held.len() == HELD_FRAMES {
            return Routed::Drop { frame, reason };
        }
        let same = self.held.iter().filter(|h| h.neighbour == neighbour && h.port == port);
        let (count, asked) = same.fold((0, false), |(n, asked), h| (n + 1, asked || h.asked));
        if count == HELD_PER_NEIGHBOUR {
            return Routed::Drop { frame, reason };
        }
        let asked = asked || self.mailbox.wanted.push((port, neighbour)).is_ok();
        self.held.push(Held { frame, dst, port, neighbour, deadline_ms: self.now_ms + HOLD_MS, asked });
        Routed::Held
    }

    fn take_fresh(&mut self) -> bool {
        // Without room to hand the old one back, stay with it: nothing is freed here.
        if self.mailbox.fresh.is_empty() || self.mailbox.spent.is_full() {
            return false;
        }
        let Some(fib) = self.mailbox.fresh.pop() else { return false };
        let old = std::mem::replace(&mut self.fib, fib);
        // Only this worker fills `spent`, so the room seen above is still there.
        let handed_back = self.mailbox.spent.push(old);
        debug_assert!(handed_back.is_ok());
        true
    }

    fn release(&mut self, out: &mut impl FnMut(Routed)) {
        let (fib, mailbox, now_ms) = (&self.fib, &self.mailbox, self.now_ms);
        let ready = |h: &mut Held| now_ms >= h.deadline_ms || !h.waits(fib.resolve(h.dst), mailbox);
        for Held { frame, dst, .. } in self.held.extract_if(.., ready) {
            out(finish(frame, fib.resolve(dst)));
        }
    }
}

impl Held {
    /// Whether the frame goes on waiting, perhaps for another next hop than before.
    fn waits(&mut self, resolution: Resolution, mailbox: &Mailbox) -> bool {
        let Resolution::Unresolved { port, addr } = resolution else { return false };
        self.asked &= (self.port, self.neighbour) == (port, addr);
        (self.port, self.neighbour) = (port, addr);
        self.asked = self.asked || mailbox.wanted.push((port, addr)).is_ok();
        true
    }
}

#[inline]
fn cache_index(dst: Addr) -> usize {
    let bits = (dst.bits >> 64) as u64 ^ dst.bits as u64;
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % CACHE_LINES
}

#[inline]
fn finish(frame: Frame, resolution: Resolution) -> Routed {
    let (port, dst_mac, src_mac, mtu) = match resolution {
        Resolution::Send { port, dst_mac, src_mac, mtu } => (port, dst_mac, src_mac, mtu),
        Resolution::Unresolved { .. } => {
            return Routed::Drop { frame, reason: DropReason::NeighbourUnresolved };
        }
        Resolution::Local => return Routed::Drop { frame, reason: DropReason::LocalDelivery },
        Resolution::NoRoute => return Routed::Drop { frame, reason: DropReason::NoRoute },
    };
    match ip_length(frame.bytes()) {
        None => Routed::Drop { frame, reason: DropReason::Malformed },
        Some((_, len)) if len > mtu as usize => Routed::Drop { frame, reason: DropReason::TooBig },
        Some((ethertype, _)) => emit_ethernet(frame, port, dst_mac, src_mac, ethertype),
    }
}

/// The ethertype and total length of an IP packet, as its header says.
fn ip_length(packet: &[u8]) -> Option<(u16, usize)> {
    let half = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?) as usize);
    match packet.first()? >> 4 {
        4 => Some((0x0800, half(2)?)),
        6 => Some((0x86dd, half(4)? + 40)),
        _ => None,
    }
}

fn emit_ethernet(mut frame: Frame, port: u8, dst: Mac, src: Mac, ethertype: u16) -> Routed {
    if !frame.push(ETHERNET_HEADER) {
        return Routed::Drop { frame, reason: DropReason::NoHeadroom };
    }
    let header = &mut frame.bytes_mut()[..ETHERNET_HEADER];
    header[..6].copy_from_slice(&dst.0);
    header[6..12].copy_from_slice(&src.0);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    Routed::Send { port, frame }
}

#[cfg(test)]
mod tests;
