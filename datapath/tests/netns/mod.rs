//! Network namespaces for a test, and what is in them.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The one place that makes namespaces.
pub const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lab");

/// Namespaces that `scripts/lab` lends. Their names go with this, or when the test is killed; each namespace
/// itself goes with the last thread in it.
pub struct Lab {
    pub name: String,
    lender: Child,
}

impl Lab {
    /// What this verb of `scripts/lab` makes.
    pub fn lend(verb: &str) -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(LAB);
        command.args(["lend", verb, &name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // What ends the test's whole process group leaves it to take the names away.
        command.process_group(0);
        let mut lab = Lab { name, lender: command.spawn().expect(LAB) };
        let mut said = String::new();
        BufReader::new(lab.lender.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), lab.name, "{LAB} lend {verb} says why; it needs root");
        lab
    }

    /// Moves this thread, and what it starts from now on, to a namespace.
    pub fn enter(&self, node: &str) {
        let namespace = File::open(self.file(node)).unwrap();
        // SAFETY: no memory is concerned; other threads stay where they are.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "{}", io::Error::last_os_error());
    }

    fn file(&self, node: &str) -> PathBuf {
        format!("/run/netns/{}-{node}", self.name).into()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.lender.stdin.take());
        let _ = self.lender.wait();
    }
}

/// Moves this thread, and what it starts from now on, to an empty namespace of its own. It has no name by
/// then, so it and its devices go when the thread ends, however it ends.
pub fn enter() {
    let lab = Lab::lend("node");
    lab.enter("n");
    let file = lab.file("n");
    drop(lab);
    assert!(!file.exists(), "{}", file.display());
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
