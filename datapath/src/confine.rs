//! What a thread gives up once its sockets exist.
//!
//! Workers parse what anyone on the network sends them, so they keep no capability and only the system calls that
//! rings, memory and sleep need. The mirror thread keeps CAP_NET_ADMIN, which neighbours are resolved with, and the
//! calls of its netlink sockets and of BPF maps. The main thread, which waits for the others, gives up all
//! capabilities, and gives the process no way to get them back. Each thread calls its function itself, the main one
//! last: threads inherit what it gave up.
//!
//! Threads share their memory, so the lists are all short: whoever takes over one thread can make another one run.
//!
//! Files cannot be opened: that fails with EPERM. Any other call that is not allowed ends the process: SIGSYS, after a line on standard error that names thread and call.

mod capability;
mod filter;

use filter::Allowed;
use std::io;
use thiserror::Error;

/// Why a thread could not be confined.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// `PR_SET_NO_NEW_PRIVS` was refused.
    #[error("cannot give up new privileges")]
    NoNewPrivs(#[source] io::Error),
    /// `capset` was refused.
    #[error("cannot drop capabilities")]
    Capabilities(#[source] io::Error),
    /// `PR_SET_DUMPABLE` was refused.
    #[error("cannot keep the process's memory out of core dumps")]
    Dumpable(#[source] io::Error),
    /// The handler that reports a refused call was not taken.
    #[error("cannot handle SIGSYS")]
    Handler(#[source] io::Error),
    /// The kernel did not take the system call filter. It may be built without CONFIG_SECCOMP_FILTER.
    #[error("cannot install the system call filter")]
    Filter(#[source] seccompiler::Error),
}

/// Confines the calling thread to what a worker needs.
pub fn worker() -> Result<(), ConfineError> {
    confine("worker", &[], filter::worker())
}

/// Confines the calling thread to what the mirror and its owner's hook need: netlink, and the tables and counters
/// of the XDP program, which can also be detached.
pub fn mirror() -> Result<(), ConfineError> {
    // Reads a file, once per thread, which the counters of the XDP program need to know.
    let _ = aya::util::nr_cpus();
    confine("mirror", &[capability::NET_ADMIN], filter::mirror())
}

/// Keeps the process's memory out of core dumps and from other processes of its user: before there is a key in it.
pub fn memory() -> Result<(), ConfineError> {
    // SAFETY: this `prctl` takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(ConfineError::Dumpable(io::Error::last_os_error()));
    }
    Ok(())
}

/// Confines the calling thread to what the main thread needs while the others run.
pub fn process() -> Result<(), ConfineError> {
    confine("main", &[], filter::process())
}

fn confine(role: &'static str, kept: &[u32], allowed: Allowed) -> Result<(), ConfineError> {
    filter::report_refused_calls(role).map_err(ConfineError::Handler)?;
    // SAFETY: this `prctl` takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(ConfineError::NoNewPrivs(io::Error::last_os_error()));
    }
    capability::keep_only(kept).map_err(ConfineError::Capabilities)?;
    allowed.install().map_err(ConfineError::Filter)
}
