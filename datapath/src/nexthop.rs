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
    wire::{self, Addr, ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
};
use crossbeam::queue::ArrayQueue;
use std::{net::IpAddr, sync::Arc};

/// Frames held for unresolved neighbours, at most, per worker.
pub const HELD_FRAMES: usize = 256;
/// Of these for one neighbour, so that one that is gone cannot keep the others' frames out.
pub const HELD_PER_NEIGHBOUR: usize = 64;
/// How long a frame is held.
pub const HOLD_MS: u64 = 1000;
/// Neighbours in use, at most, whose packets need no look-up.
const ADJACENCIES: usize = 1 << 14;
/// Places where a neighbour may be.
const PROBES: usize = 16;
/// A next hop is looked up anew after this long, which marks its neighbour as used.
const ERA_MS: u64 = 1000;

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

/// Where packets went, for who asks again: good while the era lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via {
    era: u32,
    adjacency: u32,
}

impl Via {
    /// Not known.
    pub const NONE: Via = Via { era: 0, adjacency: 0 };
}

/// A neighbour that packets are sent to, by a port.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Adjacency {
    /// The addresses of the Ethernet header: its first eight octets and its last, as little-endian numbers, the
    /// EtherType zero.
    link: [u64; 2],
    era: u32,
    mtu: u16,
    port: u8,
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
    /// By a hash of what they are; those of another era are free.
    adjacencies: Box<[Adjacency]>,
    /// Never 0.
    era: u32,
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
        let unused = Adjacency { link: [0; 2], era: 0, mtu: 0, port: 0 };
        let hops = NextHops {
            mailbox: mailbox.clone(),
            fib,
            adjacencies: vec![unused; ADJACENCIES].into_boxed_slice(),
            era: 1,
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
            self.era = self.era.checked_add(1).unwrap_or(1);
            self.era_ends_ms = now_ms + ERA_MS;
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

    /// Where a packet to `dst` goes now.
    pub fn resolve(&self, dst: IpAddr) -> Resolution {
        self.fib.resolve(dst)
    }

    /// Routes a frame that starts at its IP header: the way that the last packet went, if that is still known, and
    /// else to `dst`, and `via` will know.
    #[inline]
    pub fn route(&mut self, frame: Frame, via: &mut Via, dst: impl FnOnce() -> Addr) -> Routed {
        match self.last(*via) {
            Some(adjacency) => adjacency.send(frame),
            None => self.look_up(frame, via, dst()),
        }
    }

    /// Where the last packet went, if that is still known.
    #[inline]
    pub fn last(&self, via: Via) -> Option<&Adjacency> {
        self.adjacencies.get(via.adjacency as usize).filter(|_| via.era == self.era)
    }

    /// Routes a frame by its destination, and `via` will know.
    #[cold]
    pub fn look_up(&mut self, frame: Frame, via: &mut Via, dst: Addr) -> Routed {
        let dst = dst.into();
        match self.fib.resolve(dst) {
            Resolution::Unresolved { port, addr } => self.hold(frame, dst, port, addr),
            resolved => {
                if let Some(adjacency) = Adjacency::of(self.era, &resolved) {
                    *via = self.keep(adjacency);
                }
                finish(frame, resolved)
            }
        }
    }

    /// Routes a frame that starts at its IP header to the kernel, if anything leads there. It is from `src`.
    #[cold]
    pub fn deliver(&self, frame: Frame, src: Addr) -> Routed {
        let resolution = self.fib.to_kernel(src.into()).unwrap_or(Resolution::Local);
        finish(frame, resolution)
    }

    /// Puts an adjacency where a [`Via`] finds it, if there is room near its place.
    fn keep(&mut self, adjacency: Adjacency) -> Via {
        let home = adjacency.hash();
        for i in (home..home + PROBES).map(|i| i % ADJACENCIES) {
            let place = &mut self.adjacencies[i];
            if place.era != self.era {
                *place = adjacency;
            }
            if *place == adjacency {
                return Via { era: self.era, adjacency: i as u32 };
            }
        }
        Via::NONE
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

impl Adjacency {
    fn of(era: u32, resolution: &Resolution) -> Option<Adjacency> {
        let Resolution::Send { port, dst_mac, src_mac, mtu } = *resolution else { return None };
        let number = |Mac([a, b, c, d, e, f]): Mac| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let (dst, src) = (number(dst_mac), number(src_mac));
        Some(Adjacency { link: [dst | src << 48, src], era, mtu, port })
    }

    /// Sends a packet, Ethernet header and all.
    #[inline(always)]
    pub fn send(&self, mut frame: Frame) -> Routed {
        let (ethertype, _) = match ip_length(frame.bytes()) {
            None => return Routed::Drop { frame, reason: DropReason::Malformed },
            Some((_, len)) if len > self.mtu as usize => {
                return Routed::Drop { frame, reason: DropReason::TooBig };
            }
            Some(found) => found,
        };
        if !frame.push(ETHERNET) {
            return Routed::Drop { frame, reason: DropReason::NoHeadroom };
        }
        if let Some(header) = frame.bytes_mut().first_chunk_mut() {
            self.write(header, ethertype);
        }
        Routed::Send { port: self.port, frame }
    }

    #[inline]
    fn write(&self, header: &mut [u8; ETHERNET], ethertype: u16) {
        let [first, last] = self.link;
        let last = last | (ethertype.swap_bytes() as u64) << 48;
        header[..8].copy_from_slice(&first.to_le_bytes());
        header[ETHERNET - 8..].copy_from_slice(&last.to_le_bytes());
    }

    fn hash(&self) -> usize {
        let bits = self.link[0].swap_bytes() ^ self.port as u64;
        (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % ADJACENCIES
    }
}

fn finish(frame: Frame, resolution: Resolution) -> Routed {
    match resolution {
        Resolution::Unresolved { .. } => Routed::Drop { frame, reason: DropReason::NeighbourUnresolved },
        Resolution::Local => Routed::Drop { frame, reason: DropReason::LocalDelivery },
        resolution => match Adjacency::of(0, &resolution) {
            Some(adjacency) => adjacency.send(frame),
            None => Routed::Drop { frame, reason: DropReason::NoRoute },
        },
    }
}

/// The ethertype and total length of an IP packet, as its header says.
#[inline]
fn ip_length(packet: &[u8]) -> Option<(u16, usize)> {
    let header: &[u8; 6] = packet.first_chunk()?;
    match header[0] >> 4 {
        4 => Some((ETHERTYPE_IPV4, wire::be16(header, 2) as usize)),
        6 => Some((ETHERTYPE_IPV6, wire::be16(header, 4) as usize + wire::IPV6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
