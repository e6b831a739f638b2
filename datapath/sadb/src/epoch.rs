//! Epochs: when nobody can still be reading what was retired.
//!
//! The writer unlinks, advances the global epoch, and waits until every worker has announced that epoch or is
//! offline. A worker announces the global epoch once per turn, when it holds nothing that it read before.
//!
//! The two sides race when a worker comes online: the worker stores its epoch and then reads the region; the
//! writer unlinks and then reads the epochs. With a sequentially consistent fence between store and load on
//! each side, either the writer sees the worker online, or the worker sees the unlinked region.

use crate::sync::{AtomicU64, Ordering, fence};

/// The epoch of a worker that holds nothing: it is blocked, or not there.
pub const OFFLINE: u64 = u64::MAX;

/// Worker: takes up the global epoch. What it read from the region before must not be used any more.
#[inline]
pub(crate) fn announce(worker: &AtomicU64, global: &AtomicU64) {
    let now = global.load(Ordering::Acquire);
    let before = worker.load(Ordering::Relaxed);
    if before == now {
        return;
    }
    worker.store(now, Ordering::Release); // pairs with the Acquire in `passed`: earlier reads are done
    // Only who comes from offline races with `passed`; a step forward by a worker that is online does not.
    if before == OFFLINE {
        fence(Ordering::SeqCst); // pairs with the fence in `passed`
    }
}

/// Worker: holds nothing from now on.
pub(crate) fn offline(worker: &AtomicU64) {
    worker.store(OFFLINE, Ordering::Release);
}

/// Writer: begins a new epoch; what was unlinked before is free once this one has passed.
pub(crate) fn advance(global: &AtomicU64) -> u64 {
    let next = global.load(Ordering::Relaxed) + 1;
    global.store(next, Ordering::Release);
    next
}

/// Writer: whether all workers have announced `epoch` or are offline.
pub(crate) fn passed<'a>(workers: impl IntoIterator<Item = &'a AtomicU64>, epoch: u64) -> bool {
    fence(Ordering::SeqCst); // pairs with the fence in `announce`
    workers.into_iter().all(|w| w.load(Ordering::Acquire) >= epoch)
}
