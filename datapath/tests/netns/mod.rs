//! A network namespace for a test.

/// Moves this thread, and what it starts from now on, to a new network namespace. It has no name, so
/// it and its devices go when the thread ends, however it ends.
pub fn enter() {
    // SAFETY: no memory is concerned; the namespace of other threads stays.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "needs root: {}", std::io::Error::last_os_error());
}
