//! Where a worker puts frames at the end of its hops: to a port, to the general path, or back.

use crate::{
    batch::{BATCH, Meta},
    drop::DropReason,
    frame::Frame,
    general::{General, Why},
    jumbo::Jumbo,
    nexthop::Routed,
    pool::FrameCache,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{DROP_COUNTERS, PolicyIndex, Reader, Traffic, WorkerRuntime};

/// Packets dropped in this turn, by reason.
pub(crate) struct Drops {
    by_reason: [u64; DROP_COUNTERS],
    any: bool,
}

impl Default for Drops {
    fn default() -> Drops {
        Drops { by_reason: [0; DROP_COUNTERS], any: false }
    }
}

impl Drops {
    /// Counts a frame that is dropped, and gives it back.
    pub(crate) fn drop(&mut self, frame: Frame, reason: DropReason, cache: &mut FrameCache) {
        self.count(Some(frame), 1, reason, cache);
    }

    /// Counts what is dropped, and gives the frame back that is there.
    #[inline]
    pub(crate) fn count(&mut self, frame: Option<Frame>, n: u64, reason: DropReason, cache: &mut FrameCache) {
        self.by_reason[reason as usize] += n;
        self.any = true;
        if let Some(frame) = frame {
            cache.give(frame);
        }
    }

    /// Puts the counts where others see them. False if there are none.
    pub(crate) fn settle(&mut self, mine: &WorkerRuntime) -> bool {
        let any = std::mem::take(&mut self.any);
        if any {
            for (reason, n) in self.by_reason.iter_mut().enumerate().filter(|(_, n)| **n != 0) {
                mine.count_drops(reason, std::mem::take(n));
            }
        }
        any
    }
}

/// What a packet is that was on its way.
#[derive(Clone, Copy)]
pub(crate) enum Was {
    /// Of this SA of the worker's, sealed on the plain path.
    Sealed(u32),
    /// Out of an SA.
    Opened,
    /// In clear.
    Clear,
}

/// Where a worker puts frames at the end of its hops.
pub(crate) struct Outlets<'a> {
    pub(crate) to_send: &'a mut [ArrayVec<Frame, BATCH>],
    pub(crate) general: &'a mut General,
    pub(crate) drops: &'a mut Drops,
    pub(crate) cache: &'a mut FrameCache,
    pub(crate) traffic: &'a mut Traffic,
    pub(crate) now_ms: u64,
}

impl Outlets<'_> {
    /// What is sent to its port's list.
    #[inline(always)]
    pub(crate) fn take(&mut self, routed: Routed, was: Was) {
        match routed {
            Routed::Send { port, frame } => match self.to_send.get_mut(port as usize) {
                Some(list) => {
                    let octets = frame.total_len() as u64;
                    match list.try_push(frame) {
                        Ok(()) => self.traffic.tx_bytes += octets,
                        Err(full) => self.drop(full.element(), DropReason::TxFull),
                    }
                }
                None => self.drop(frame, DropReason::NoRoute),
            },
            Routed::Held => {}
            Routed::Drop { frame, reason } => self.turn_back(frame, reason, was),
        }
    }

    /// What is not sent: too long, it goes on generally, as what it is; for the gateway itself, if a policy has let it in from
    /// a tunnel.
    #[cold]
    #[inline(never)]
    fn turn_back(&mut self, frame: Frame, reason: DropReason, was: Was) {
        match (reason, was) {
            (DropReason::TooBig, Was::Sealed(sa)) => self.go_generally(frame, Why::Sealed, sa),
            (DropReason::TooBig, Was::Clear) => self.go_generally(frame, Why::Refused(reason), 0),
            (DropReason::TooBig | DropReason::LocalDelivery, Was::Opened) => {
                self.go_generally(frame, Why::RefusedInside(reason), 0);
            }
            _ => self.drop(frame, reason),
        }
    }

    /// What was held for its neighbour, whatever it is: none of it is for the gateway itself.
    #[cold]
    pub(crate) fn take_held(&mut self, routed: Routed) {
        match routed {
            Routed::Drop { frame, reason: reason @ DropReason::LocalDelivery } => self.drop(frame, reason),
            routed => self.take(routed, Was::Opened),
        }
    }

    /// The general path, if it has room; else it is dropped.
    #[cold]
    #[inline(never)]
    pub(crate) fn go_generally(&mut self, frame: Frame, why: Why, sa: u32) {
        if let Err(frame) = self.general.take(frame, why, sa) {
            self.drop(frame, why.dropped());
        }
    }

    /// What a hop has dropped. Somebody may be told, who sees to it on the general path.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&mut self, frame: Frame, reason: DropReason, meta: &Meta) {
        let is_inside = meta.proof.is_some();
        // What a jumbo has inside is not in its place.
        let is_whole = !is_inside || !Jumbo::is_one(&frame);
        if !is_whole || !self.general.minds(reason, meta.ip.src(), self.now_ms) {
            return self.drop(frame, reason);
        }
        let why = if is_inside { Why::RefusedInside(reason) } else { Why::Refused(reason) };
        self.go_generally(frame, why, 0);
    }

    /// What has no SA yet. The general path asks for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn ask(&mut self, frame: Frame, policy: PolicyIndex, reader: &Reader) {
        match self.general.asks(policy, reader, self.now_ms) {
            true => self.go_generally(frame, Why::Refused(DropReason::NoSa), 0),
            false => self.drop(frame, DropReason::NoSa),
        }
    }

    pub(crate) fn drop(&mut self, frame: Frame, reason: DropReason) {
        self.drops.drop(frame, reason, self.cache);
    }
}
