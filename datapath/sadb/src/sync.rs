//! The atomics: core's, or loom's where a test explores all interleavings, or core's with a count of stores
//! where a test cuts the writer off at any of them.

#[cfg(all(test, not(loom)))]
pub(crate) use crate::kill::{AtomicU32, AtomicU64};
#[cfg(all(not(test), not(loom)))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
