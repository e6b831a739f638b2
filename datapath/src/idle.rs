//! How an idle worker sleeps, and how whoever hands it a frame wakes it.
//!
//! A worker that has found nothing for a while announces that it sleeps, looks once more, and blocks
//! in `poll`. A sender pushes first and then looks for the announcement. Each does its store before
//! its load, with a sequentially consistent fence between: at least one of the two sees the other, so
//! no frame waits for the next timeout.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering, fence},
};

/// The bell of one worker: rung by the others, heard in `poll`.
pub struct Bell {
    asleep: AtomicBool,
    event: OwnedFd,
}

impl Bell {
    /// A bell that nobody has rung.
    ///
    /// # Errors
    /// What `eventfd(2)` says.
    pub fn new() -> io::Result<Bell> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made, and nothing else owns it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Bell { asleep: AtomicBool::new(false), event })
    }

    /// Wakes the worker if it sleeps. To be called after the frame is in its ring.
    pub fn ring(&self) {
        // Pairs with the fence in `announce`: either we see `asleep`, or the sleeper sees our frame.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.ring_always();
        }
    }

    /// Wakes the worker, or makes its next sleep end at once.
    pub fn ring_always(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` is 8 readable bytes, and the fd is ours. EAGAIN means that it rings already.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// The worker says that it will sleep; it must look at its rings once more before it does.
    pub fn announce(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the fence in `ring`
    }

    /// The worker is awake again.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        let mut count = [0u8; 8];
        // SAFETY: `count` is 8 writable bytes, and the fd is ours and does not block.
        unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }

    /// What to poll for readability.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Blocks until one of `fds` is readable or the time is over.
pub fn sleep_on(fds: &mut [libc::pollfd], timeout_ms: i32) {
    // SAFETY: `fds` is an exclusive slice of as many pollfds as we say. EINTR is as good as a time-out.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
}

/// A `pollfd` that waits until `fd` is readable.
pub fn readable(fd: BorrowedFd<'_>) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// Milliseconds since the machine was started, those in which it was suspended too.
pub fn boot_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec that the call may write; nothing else is touched.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, atomic::AtomicU32};

    #[test]
    fn a_ring_after_the_announcement_ends_the_sleep() {
        let bell = Bell::new().unwrap();
        bell.announce();
        bell.ring();
        let mut fds = [readable(bell.fd())];
        sleep_on(&mut fds, 10_000);
        assert_ne!(fds[0].revents, 0);
        bell.awake();
        sleep_on(&mut fds, 0);
        assert_eq!(fds[0].revents, 0, "the bell is quiet again");
    }

    #[test]
    fn no_frame_waits_for_the_timeout() {
        const FRAMES: u32 = 10_000;
        let bell = Arc::new(Bell::new().unwrap());
        let ring = Arc::new(AtomicU32::new(0));
        let sleeper = std::thread::spawn({
            let (bell, ring) = (bell.clone(), ring.clone());
            move || {
                let mut timeouts = 0;
                while ring.load(Ordering::Relaxed) < FRAMES {
                    let seen = ring.load(Ordering::Relaxed);
                    bell.announce();
                    if ring.load(Ordering::Relaxed) == seen && seen < FRAMES {
                        let mut fds = [readable(bell.fd())];
                        sleep_on(&mut fds, 5_000);
                        timeouts += (fds[0].revents == 0) as u32;
                    }
                    bell.awake();
                }
                timeouts
            }
        });
        for _ in 0..FRAMES {
            ring.fetch_add(1, Ordering::Relaxed);
            bell.ring();
        }
        assert_eq!(sleeper.join().unwrap(), 0);
    }
}
