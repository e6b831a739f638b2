//! A network namespace for a test, and what is in it.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

/// Moves this thread, and what it starts from now on, to a new network namespace. It has no name, so
/// it and its devices go when the thread ends, however it ends.
pub fn enter() {
    // SAFETY: no memory is concerned; the namespace of other threads stays.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(entered, 0, "needs root: {}", io::Error::last_os_error());
}

/// Runs `ip` here.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Sends and receives whole frames on a device, as the kernel's stack does: behind XDP.
pub struct Wire(OwnedFd);

impl Wire {
    pub fn open(interface: &str) -> Wire {
        let every = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, every.into()) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: socket() gave it to us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let name = CString::new(interface).unwrap();
        // SAFETY: sockaddr_ll is integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every;
        // SAFETY: the name ends in zero and outlives the call.
        address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        // SAFETY: the address is of the length that is said, and outlives the call.
        let bound = unsafe {
            libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
        };
        assert_eq!(bound, 0, "{interface}: {}", io::Error::last_os_error());
        Wire(socket)
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the slice is valid for its length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame that has come.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0u8; 16_384];
        // SAFETY: the buffer is valid for its length.
        let got = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        buffer.truncate(usize::try_from(got).ok()?);
        Some(buffer)
    }
}

/// Asks again until it is so, or the time is up.
pub fn wait(time: Duration, mut so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        if so() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
