//! Inner packets, waiting to be sent, and payloads filled with them.

use super::{Block, Congestion, DropReason, Header, SHOWN};

/// What a payload was filled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Filled {
    /// Octets of inner packets; what is left of the payload is padding.
    pub octets: usize,
    /// Inner packets of which the last octet is in it.
    pub packets: usize,
    /// Inner packets that were dropped because no payload of this size holds them, and they may not be fragmented: to
    /// be counted as [`DropReason::TooBig`].
    pub too_big: usize,
}

/// The sending side of an SA.
pub struct Sender {
    /// A ring of whole packets, back to back: the stream of data blocks that is still to be sent.
    ring: Box<[u8]>,
    start: usize,
    queued: usize,
    /// Octets of the first packet that are still to be sent, if some of it was.
    rest: usize,
    may_fragment: bool,
}

impl Sender {
    /// Queues at most so many octets of inner packets. `may_fragment` is false if the receiver has said that it takes no
    /// fragments (RFC 9347 §6.1.4).
    pub fn new(queue_octets: usize, may_fragment: bool) -> Sender {
        let ring = vec![0; queue_octets].into_boxed_slice();
        Sender { ring, start: 0, queued: 0, rest: 0, may_fragment }
    }

    /// Octets that wait.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Queues an inner packet; what follows it in the slice is left out.
    ///
    /// # Errors
    /// [`DropReason::BadInner`] if it is no IP packet, or not all of one; [`DropReason::AggfragQueueFull`].
    pub fn push(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let len = match packet.first().map(|_| Block::at(packet)) {
            Some(Block::Packet(len)) if len <= packet.len() => len,
            _ => return Err(DropReason::BadInner),
        };
        if len > self.ring.len() - self.queued {
            return Err(DropReason::AggfragQueueFull);
        }
        let end = (self.start + self.queued) % self.ring.len();
        let (now, wrapped) = packet[..len].split_at(len.min(self.ring.len() - end));
        self.ring[end..end + now.len()].copy_from_slice(now);
        self.ring[..wrapped.len()].copy_from_slice(wrapped);
        self.queued += len;
        Ok(())
    }

    /// Fills all of `out`, the payload of the next sequence number of the SA. If nothing waits it is all padding.
    ///
    /// # Panics
    /// If `out` is shorter than the header.
    pub fn payload(&mut self, congestion: Option<Congestion>, out: &mut [u8]) -> Filled {
        // RFC 9347 §2.2.3: consistent with the length of the packet that was begun.
        let header = Header { block_offset: self.rest as u16, congestion };
        let (_, data) = out.split_at_mut(Header::octets(congestion.is_some()));
        let mut filled = Filled::default();
        while self.queued > 0 && filled.octets < data.len() {
            let room = &mut data[filled.octets..];
            let is_begun = self.rest > 0;
            let len = if is_begun { self.rest } else { self.first_len() };
            let n = len.min(room.len());
            if n < len && !is_begun && !self.may_fragment {
                if filled.octets > 0 {
                    break;
                }
                self.skip(len);
                filled.too_big += 1;
                continue;
            }
            // RFC 9347 §2.2.3.1: padding instead of a fragment that would not even show its length.
            if n < len.min(SHOWN) && filled.octets > 0 {
                break;
            }
            self.copy_out(&mut room[..n]);
            self.rest = len - n;
            filled.octets += n;
            filled.packets += usize::from(self.rest == 0);
        }
        data[filled.octets..].fill(0); // RFC 9347 §6.1.3.3
        header.emit(out);
        filled
    }

    /// Octets of the first packet, of which none was sent.
    fn first_len(&self) -> usize {
        let mut shown = [0; SHOWN];
        for (i, octet) in shown.iter_mut().enumerate() {
            *octet = self.ring[(self.start + i) % self.ring.len()];
        }
        match Block::at(&shown) {
            Block::Packet(len) => len,
            _ => unreachable!("only packets are queued"),
        }
    }

    fn copy_out(&mut self, out: &mut [u8]) {
        let (now, wrapped) = out.split_at_mut(out.len().min(self.ring.len() - self.start));
        now.copy_from_slice(&self.ring[self.start..][..now.len()]);
        wrapped.copy_from_slice(&self.ring[..wrapped.len()]);
        self.skip(out.len());
    }

    fn skip(&mut self, octets: usize) {
        self.start = (self.start + octets) % self.ring.len();
        self.queued -= octets;
    }
}
