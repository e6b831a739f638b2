//! AF_XDP sockets, and how they are bound.

use super::{
    map::RingMap,
    ring::{Consumer, Producer},
};
use crate::umem::Umem;
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Transmit descriptors that one `sendto` may take (SOL_XDP option 9, not in libc yet).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// A socket; which rings it has is up to who made it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    offsets: libc::xdp_mmap_offsets,
}

impl Socket {
    /// A socket that is not bound.
    ///
    /// # Errors
    /// What `socket(2)` says; EPERM without CAP_NET_RAW.
    pub fn new() -> io::Result<Socket> {
        // SAFETY: socket takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let offsets = get_option(fd.as_fd(), libc::XDP_MMAP_OFFSETS)?;
        Ok(Socket { fd, offsets })
    }

    /// Registers the umem with the kernel, by way of this socket.
    ///
    /// # Errors
    /// What `setsockopt(2)` says; ENOBUFS if the locked memory limit is too low.
    pub fn register(&self, umem: &Umem) -> io::Result<()> {
        // SAFETY: all-zero is a valid xdp_umem_reg, which has integers only.
        let mut reg: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
        reg.addr = umem.base().as_ptr() as u64;
        reg.len = umem.len() as u64;
        reg.chunk_size = umem.frame_size() as u32;
        reg.flags = if umem.is_unaligned() { libc::XDP_UMEM_UNALIGNED_CHUNK_FLAG } else { 0 };
        self.set(libc::XDP_UMEM_REG, &reg)
    }

    /// Makes the fill and the completion ring of a (device, queue).
    ///
    /// # Errors
    /// What `setsockopt(2)` or `mmap(2)` says.
    pub fn umem_rings(&self, size: u32) -> io::Result<(Producer<u64>, Consumer<u64>)> {
        self.set(libc::XDP_UMEM_FILL_RING, &size)?;
        self.set(libc::XDP_UMEM_COMPLETION_RING, &size)?;
        let fill = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;
        let completion = libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t;
        let fill = RingMap::new::<u64>(self.fd.as_fd(), fill, &self.offsets.fr, size)?;
        let completion = RingMap::new::<u64>(self.fd.as_fd(), completion, &self.offsets.cr, size)?;
        Ok((Producer::new(fill), Consumer::new(completion)))
    }

    /// Makes the receive ring.
    ///
    /// # Errors
    /// What `setsockopt(2)` or `mmap(2)` says.
    pub fn rx_ring(&self, size: u32) -> io::Result<Consumer<libc::xdp_desc>> {
        self.set(libc::XDP_RX_RING, &size)?;
        let offset = libc::XDP_PGOFF_RX_RING as libc::off_t;
        Ok(Consumer::new(RingMap::new::<libc::xdp_desc>(self.fd.as_fd(), offset, &self.offsets.rx, size)?))
    }

    /// Makes the transmit ring.
    ///
    /// # Errors
    /// What `setsockopt(2)` or `mmap(2)` says.
    pub fn tx_ring(&self, size: u32) -> io::Result<Producer<libc::xdp_desc>> {
        self.set(libc::XDP_TX_RING, &size)?;
        let offset = libc::XDP_PGOFF_TX_RING as libc::off_t;
        Ok(Producer::new(RingMap::new::<libc::xdp_desc>(self.fd.as_fd(), offset, &self.offsets.tx, size)?))
    }

    /// Binds it to a queue. With `shared`, it uses the umem of that socket, and inherits how that was bound.
    ///
    /// # Errors
    /// What `bind(2)` says.
    pub fn bind(&self, ifindex: u32, queue: u32, how: Bind<'_>) -> io::Result<()> {
        let (flags, shared) = match how {
            Bind::First { zero_copy } => {
                let mode = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
                (mode | libc::XDP_USE_NEED_WAKEUP | libc::XDP_USE_SG, 0)
            }
            Bind::Shared(first) => (libc::XDP_SHARED_UMEM, first.fd.as_raw_fd() as u32),
        };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: shared,
        };
        let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_xdp of `len` octets that lives through the call.
        let rc = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        // Older kernels have a fixed budget: more calls then do the same work.
        let _ = self.set(XDP_MAX_TX_SKB_BUDGET, &256u32);
        Ok(())
    }

    /// Whether the kernel reads and writes the umem without a copy.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn is_zero_copy(&self) -> io::Result<bool> {
        let options: libc::xdp_options = get_option(self.fd.as_fd(), libc::XDP_OPTIONS)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What the kernel counts.
    ///
    /// # Errors
    /// What `getsockopt(2)` says.
    pub fn statistics(&self) -> io::Result<libc::xdp_statistics> {
        get_option(self.fd.as_fd(), libc::XDP_STATISTICS)
    }

    /// Has the kernel send what is in the transmit ring, or some of it.
    pub fn kick_tx(&self) {
        // SAFETY: no buffer and no address are given. The errors say that the kernel is busy: then later.
        unsafe {
            libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
    }

    /// Has the kernel look at the fill ring.
    pub fn kick_rx(&self) {
        let (null, none) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: no buffer and no address are given.
        unsafe {
            libc::recvfrom(self.fd.as_raw_fd(), null, 0, libc::MSG_DONTWAIT, none, std::ptr::null_mut())
        };
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        let value: *const T = value;
        // SAFETY: `value` points to `len` readable octets through the call.
        let rc = unsafe { libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_XDP, option, value.cast(), len) };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// How a socket comes by its umem.
#[derive(Clone, Copy, Debug)]
pub enum Bind<'a> {
    /// It registered the umem itself.
    First {
        /// Zero-copy or nothing; else a copy.
        zero_copy: bool,
    },
    /// It shares that of a bound socket.
    Shared(&'a Socket),
}

fn get_option<T: Plain>(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    let to = value.as_mut_ptr().cast();
    // SAFETY: `to` points to `len` writable octets through the call.
    let rc = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, to, &mut len) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, then written by the kernel as far as it goes; `Plain` types are valid for any bits.
    Ok(unsafe { value.assume_init() })
}

/// Structures of integers, valid for any bits.
///
/// # Safety
/// They are.
unsafe trait Plain {}
// SAFETY: integers only, see the kernel's if_xdp.h.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: integers only.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: integers only.
unsafe impl Plain for libc::xdp_options {}
