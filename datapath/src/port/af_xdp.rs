//! Ports over AF_XDP: for each (interface, queue) one socket per worker, all on one umem.
//!
//! The XDP program picks the worker by picking its socket. Sockets of one queue share its fill and completion
//! ring, whose user side is the work of one worker: `queue % workers`. A worker sends on queue
//! `worker % queues`, and what it sent comes back by the completion ring of that queue, perhaps to another
//! worker's cache: the pool evens it out. While the worker that serves a queue's rings sleeps, the others use its
//! chunks up: they ring its bell in time.

use super::{BURST, Port, PortStats};
use crate::{
    batch::BATCH,
    frame::Frame,
    handoff::Inbox,
    pool::FrameCache,
    umem::{HugePages, Umem, UmemError},
    xsk::{
        ring::{Consumer, Producer},
        socket::{Bind, Socket},
    },
};
use arrayvec::ArrayVec;
use libc::xdp_desc;
use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use thiserror::Error;

/// More segments follow (if_xdp.h).
const XDP_PKT_CONTD: u32 = 1;

/// How long a queue may be busy with the sockets of a predecessor, and how often to look.
const BUSY: Duration = Duration::from_millis(1500);
const BUSY_LOOK: Duration = Duration::from_millis(5);

/// Times that a transmit ring is kicked per turn, at most.
const KICKS: usize = 8;

/// Whether the kernel may or must do without copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Copying {
    /// Without, if all interfaces can; otherwise say so and copy.
    #[default]
    Auto,
    /// Copy.
    Copy,
}

/// An interface to open.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its receive queues that are used, from 0 on.
    pub queues: u32,
}

/// Why there are no sockets.
#[derive(Debug, Error)]
pub enum XskError {
    /// The system refused.
    #[error("interface {interface}, queue {queue}: cannot {what}: {source}{}", hint(.source))]
    Io {
        /// Which interface.
        interface: String,
        /// Which queue.
        queue: u32,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn hint(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EPERM) => "; it takes CAP_NET_RAW and CAP_NET_ADMIN: run as root",
        Some(libc::EBUSY) => "; another program has an AF_XDP socket on this queue: stop it",
        Some(libc::ENODEV) => "; no such interface in this network namespace",
        Some(libc::EINVAL) => "; the interface has fewer queues, or is down",
        Some(libc::ENOBUFS) => "; the locked memory limit is too low: ulimit -l unlimited",
        Some(libc::EAFNOSUPPORT) => "; this kernel has no AF_XDP",
        _ => "",
    }
}

/// Memory for the frames of these interfaces: see [`Umem::new`].
///
/// # Errors
/// As [`Umem::new`].
pub fn umem(
    interfaces: &[Interface],
    frames: u32,
    frame_size: u16,
    huge: HugePages,
) -> Result<(Umem, Option<String>), UmemError> {
    match interfaces.iter().all(|i| is_direct(Path::new("/sys/class/net"), &i.name)) {
        true => Umem::new(frames, frame_size, huge),
        false => Umem::aligned(frames, frame_size, huge),
    }
}

/// Whether an interface's device sees memory as it is: there is no device, or no IOMMU that gives it addresses of its own,
/// page by page (sysfs-kernel-iommu_groups of the kernel's ABI). No, where that cannot be told.
fn is_direct(net: &Path, interface: &str) -> bool {
    let interface = net.join(interface);
    let group = interface.join("device/iommu_group");
    let is_identity = || fs::read_to_string(group.join("type")).is_ok_and(|t| t.trim() == "identity");
    interface.exists() && (!group.exists() || is_identity())
}

/// All sockets of all interfaces.
pub struct Opened {
    /// By worker, then by interface.
    pub ports: Vec<Vec<AfXdpPort>>,
    /// What the XSKMAP must hold: (interface's number, queue, worker, socket).
    pub sockets: Vec<(u32, u32, u32, Arc<Socket>)>,
    /// Whether there are no copies.
    pub zero_copy: bool,
    /// Why there are copies, if there were not to be.
    pub told: Option<String>,
}

/// Opens all interfaces for the workers that have these inboxes, with rings of `ring` entries (a power of two).
///
/// # Errors
/// [`XskError`] names the interface and the queue.
pub fn open(
    umem: &Arc<Umem>,
    interfaces: &[Interface],
    inboxes: &Arc<[Inbox]>,
    ring: u32,
    copying: Copying,
) -> Result<Opened, XskError> {
    let deadline = Instant::now() + BUSY;
    loop {
        let result = open_once(umem, interfaces, inboxes, ring, copying);
        match &result {
            // A predecessor that was killed: the kernel takes its sockets down in its own time.
            Err(XskError::Io { source, .. })
                if source.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                std::thread::sleep(BUSY_LOOK);
            }
            _ => return result,
        }
    }
}

fn open_once(
    umem: &Arc<Umem>,
    interfaces: &[Interface],
    inboxes: &Arc<[Inbox]>,
    ring: u32,
    copying: Copying,
) -> Result<Opened, XskError> {
    if copying == Copying::Auto {
        match open_all(umem, interfaces, inboxes, ring, true) {
            Err(XskError::Io { interface, queue, what: "bind", source })
                if source.raw_os_error() != Some(libc::EBUSY) =>
            {
                let told =
                    format!("no zero-copy on {interface}, queue {queue} ({source}): the kernel copies");
                let opened = open_all(umem, interfaces, inboxes, ring, false)?;
                return Ok(Opened { told: Some(told), ..opened });
            }
            result => return result,
        }
    }
    open_all(umem, interfaces, inboxes, ring, false)
}

fn open_all(
    umem: &Arc<Umem>,
    interfaces: &[Interface],
    inboxes: &Arc<[Inbox]>,
    ring: u32,
    zero_copy: bool,
) -> Result<Opened, XskError> {
    let workers = inboxes.len() as u32;
    let mut opened = Opened { ports: vec![], sockets: vec![], zero_copy, told: None };
    opened.ports.resize_with(workers as usize, Vec::new);
    let mut first: Option<Arc<Socket>> = None;
    for (number, interface) in interfaces.iter().enumerate() {
        let mut halves: Vec<AfXdpPort> =
            (0..workers).map(|_| AfXdpPort::new(&interface.name, umem)).collect();
        for queue in 0..interface.queues {
            // The sockets of one queue share by way of its first: the kernel wants the same queue, or rings.
            let mut shared = first.clone();
            let server = queue % workers;
            for (worker, half) in (0..workers).zip(&mut halves) {
                let sends = queue == worker % interface.queues;
                let (socket, rings) = Queue { umem, interface, queue, ring, zero_copy }.open(
                    shared.as_ref(),
                    worker == 0,
                    sends,
                )?;
                let socket = Arc::new(socket);
                first.get_or_insert_with(|| socket.clone());
                if worker == 0 {
                    shared = Some(socket.clone());
                }
                opened.sockets.push((number as u32, queue, worker, socket.clone()));
                let user = || RingsUser {
                    // Together, the users' shares are half of the ring.
                    share: (ring / 2 / workers).max(1),
                    used: 0,
                    server: (worker != server).then(|| (inboxes.clone(), server as usize)),
                };
                if let Some(ring) = rings.tx {
                    half.tx = Some(Sender { socket: socket.clone(), ring, user: user() });
                }
                half.rx.push(Receiver {
                    socket: socket.clone(),
                    ring: rings.rx,
                    partial: None,
                    user: user(),
                });
                if let Some((fill, completion)) = rings.umem {
                    half.umem_rings.push(UmemRings { socket, fill, completion });
                }
            }
            // The rings of a queue are made by worker 0's socket, and served by the worker of the queue.
            if server != 0
                && let Some(rings) = halves[0].umem_rings.pop()
            {
                halves[server as usize].umem_rings.push(rings);
            }
        }
        for (half, ports) in halves.into_iter().zip(&mut opened.ports) {
            ports.push(half);
        }
    }
    Ok(opened)
}

/// One socket to be opened.
struct Queue<'a> {
    umem: &'a Umem,
    interface: &'a Interface,
    queue: u32,
    ring: u32,
    zero_copy: bool,
}

struct Rings {
    rx: Consumer<xdp_desc>,
    tx: Option<Producer<xdp_desc>>,
    umem: Option<(Producer<u64>, Consumer<u64>)>,
}

impl Queue<'_> {
    fn open(
        &self,
        first: Option<&Arc<Socket>>,
        with_umem_rings: bool,
        sends: bool,
    ) -> Result<(Socket, Rings), XskError> {
        let socket = Socket::new().map_err(self.failed("open a socket"))?;
        if first.is_none() {
            socket.register(self.umem).map_err(self.failed("register the umem"))?;
        }
        let umem = match with_umem_rings {
            true => Some(socket.umem_rings(self.ring).map_err(self.failed("make the umem's rings"))?),
            false => None,
        };
        let rx = socket.rx_ring(self.ring).map_err(self.failed("make the receive ring"))?;
        let tx = match sends {
            true => Some(socket.tx_ring(self.ring).map_err(self.failed("make the transmit ring"))?),
            false => None,
        };
        let how = first.map_or(Bind::First { zero_copy: self.zero_copy }, |f| Bind::Shared(f));
        socket.bind(self.interface.ifindex, self.queue, how).map_err(self.failed("bind"))?;
        Ok((socket, Rings { rx, tx, umem }))
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> XskError {
        let (interface, queue) = (self.interface.name.clone(), self.queue);
        move |source| XskError::Io { interface, queue, what, source }
    }
}

struct Receiver {
    socket: Arc<Socket>,
    ring: Consumer<xdp_desc>,
    /// The first segments of a packet whose last one is not there yet.
    partial: Option<Frame>,
    user: RingsUser,
}

struct Sender {
    socket: Arc<Socket>,
    ring: Producer<xdp_desc>,
    user: RingsUser,
}

/// A worker's use of the fill or the completion ring of a queue, which this worker or another one serves.
struct RingsUser {
    /// Entries that it may use before the server must have had a look.
    share: u32,
    used: u32,
    /// Whom to wake, if it is another worker.
    server: Option<(Arc<[Inbox]>, usize)>,
}

impl RingsUser {
    fn uses(&mut self, entries: u32) {
        let Some((inboxes, server)) = &self.server else { return };
        self.used += entries;
        if self.used >= self.share {
            self.used = 0;
            inboxes[*server].bell.ring();
        }
    }
}

struct UmemRings {
    socket: Arc<Socket>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
}

/// One worker's half of an interface.
pub struct AfXdpPort {
    name: String,
    umem: Arc<Umem>,
    rx: Vec<Receiver>,
    /// The queue that is asked first, in turn.
    turn: usize,
    tx: Option<Sender>,
    umem_rings: Vec<UmemRings>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    /// Chunks given to the kernel, less those that it gave back.
    lent: i64,
    /// Descriptors that made no sense.
    invalid: u64,
}

impl AfXdpPort {
    fn new(name: &str, umem: &Arc<Umem>) -> AfXdpPort {
        AfXdpPort {
            name: name.to_owned(),
            umem: umem.clone(),
            rx: vec![],
            turn: 0,
            tx: None,
            umem_rings: vec![],
            counts: Counts::default(),
        }
    }

    /// Chunks that this half gave to the kernel, less those that it got back. Another half may get back what
    /// this one gave: the sum over all halves is what the kernel has.
    pub fn lent(&self) -> i64 {
        self.counts.lent
    }

    /// Segments that were sent and that the kernel has not taken yet: [`Port::maintain`] asks it again.
    pub fn unsent(&self) -> u32 {
        self.tx.as_ref().map_or(0, |sender| sender.ring.pending())
    }
}

impl Receiver {
    fn receive(
        &mut self,
        umem: &Umem,
        out: &mut ArrayVec<Frame, BATCH>,
        most: usize,
        counts: &mut Counts,
    ) -> usize {
        let (mut received, mut segments) = (0, 0);
        while received < most {
            let Some(desc) = self.ring.pop() else { break };
            // SAFETY: the kernel gives each chunk of the fill ring up once, by way of this ring.
            let Some(segment) = (unsafe { umem.received(desc.addr, desc.len) }) else {
                counts.invalid += 1;
                continue;
            };
            segments += 1;
            let packet = match self.partial.take() {
                Some(mut packet) => {
                    packet.append(segment);
                    packet
                }
                None => segment,
            };
            if desc.options & XDP_PKT_CONTD != 0 {
                self.partial = Some(packet);
            } else {
                out.push(packet);
                received += 1;
            }
        }
        self.ring.release();
        counts.lent -= i64::from(segments);
        self.user.uses(segments);
        received
    }
}

impl Port for AfXdpPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx(&mut self, out: &mut ArrayVec<Frame, BATCH>, _cache: &mut FrameCache) {
        let mut most = BURST.min(out.remaining_capacity());
        let queues = self.rx.len();
        for i in 0..queues {
            let receiver = &mut self.rx[(self.turn + i) % queues];
            most -= receiver.receive(&self.umem, out, most, &mut self.counts);
        }
        self.turn = (self.turn + 1) % queues.max(1);
    }

    fn tx(&mut self, frames: &mut ArrayVec<Frame, BATCH>) {
        let Some(Sender { socket, ring, user }) = &mut self.tx else { return };
        let room = ring.room(frames.iter().map(|f| f.segments() as u32).sum());
        let mut segments = 0;
        let fits = frames.iter().take_while(|f| {
            segments += f.segments() as u32;
            segments <= room
        });
        let fits = fits.count();
        let mut sent = 0;
        for frame in frames.drain(..fits) {
            let mut next = Some(frame);
            while let Some(mut segment) = next {
                next = segment.take_tail();
                let options = if next.is_some() { XDP_PKT_CONTD } else { 0 };
                let (addr, len) = (self.umem.packet_address(&segment), segment.len() as u32);
                debug_assert!(len > 0, "the kernel refuses it, and never gives the chunk back");
                ring.push(xdp_desc { addr, len, options });
                sent += 1;
                // From here on the kernel owns the chunk; `segment` is not used any more.
            }
        }
        ring.submit();
        kick(socket, ring);
        self.counts.lent += i64::from(sent);
        user.uses(sent);
    }

    fn maintain(&mut self, cache: &mut FrameCache) {
        for rings in &mut self.umem_rings {
            while let Some(address) = rings.completion.pop() {
                // SAFETY: the kernel has sent the chunk, which `tx` gave it.
                unsafe { cache.give_address(address) };
                self.counts.lent -= 1;
            }
            rings.completion.release();
            let room = rings.fill.room(BURST as u32);
            if room >= BURST as u32 {
                for _ in 0..room {
                    let Some(chunk) = cache.take_chunk() else { break };
                    rings.fill.push(self.umem.address(chunk));
                    self.counts.lent += 1;
                }
                rings.fill.submit();
            }
            if rings.fill.needs_wakeup() {
                rings.socket.kick_rx();
            }
        }
        if let Some(Sender { socket, ring, .. }) = &self.tx
            && ring.pending() > 0
        {
            kick(socket, ring);
        }
    }

    fn poll_fds(&self, tell: &mut dyn FnMut(BorrowedFd<'_>)) {
        self.rx.iter().for_each(|r| tell(r.socket.fd()));
    }

    fn stats(&self) -> PortStats {
        let mut total = PortStats { invalid: self.counts.invalid, ..PortStats::default() };
        // All sockets of a queue tell the same of its fill ring: it is counted where the ring is served.
        for rings in &self.umem_rings {
            total.rx_no_chunk += rings.socket.statistics().map_or(0, |s| s.rx_fill_ring_empty_descs);
        }
        for receiver in &self.rx {
            if let Ok(s) = receiver.socket.statistics() {
                total.rx_ring_full += s.rx_ring_full;
                total.rx_dropped += s.rx_dropped;
                total.invalid += s.rx_invalid_descs + s.tx_invalid_descs;
            }
        }
        total
    }

    /// What the kernel still has stays with it: it goes with the umem.
    fn close(&mut self, cache: &mut FrameCache) {
        let mut rest = ArrayVec::new();
        for receiver in &mut self.rx {
            while receiver.receive(&self.umem, &mut rest, BATCH, &mut self.counts) > 0 {
                rest.drain(..).for_each(|f| cache.give(f));
            }
            if let Some(partial) = receiver.partial.take() {
                cache.give(partial);
            }
        }
    }
}

fn kick(socket: &Socket, ring: &Producer<xdp_desc>) {
    for _ in 0..KICKS {
        if ring.pending() == 0 || !ring.needs_wakeup() {
            return;
        }
        let before = ring.pending();
        socket.kick_tx();
        if ring.pending() == before {
            return; // the kernel is busy
        }
    }
}

/// `struct ethtool_channels`, `ETHTOOL_GCHANNELS` (linux/ethtool.h).
#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// How many receive queues an interface of this thread's network namespace has.
///
/// # Errors
/// What the system says of the interface.
pub fn queues(interface: &str) -> io::Result<u32> {
    match channels(interface) {
        Ok(Channels { rx, combined, .. }) if rx + combined > 0 => return Ok(rx + combined),
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Err(e),
        // Not every driver tells.
        _ => {}
    }
    // Shows the namespace of whoever mounted it.
    let entries = std::fs::read_dir(format!("/sys/class/net/{interface}/queues"))?;
    let rx = entries.filter_map(Result::ok).filter(|e| e.file_name().to_string_lossy().starts_with("rx-"));
    Ok(rx.count() as u32)
}

fn channels(interface: &str) -> io::Result<Channels> {
    let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: integers, an array of them, and a pointer: zero is a value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: no pointers.
    let socket = match unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: socket() gave it to us alone.
        fd => unsafe { OwnedFd::from_raw_fd(fd) },
    };
    // SAFETY: the name ends in zero, since it is shorter than its field; the command in `channels` has the kernel
    // write one `Channels`; both outlive the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0 => Ok(channels),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_aligned_where_an_iommu_may_tear_them() {
        let net = std::env::temp_dir().join(format!("portcullis-net-{}", std::process::id()));
        let groups = [("translated", "DMA-FQ"), ("strict", "DMA"), ("passed", "identity"), ("unknown", "")];
        for (interface, kind) in groups {
            let group = net.join(interface).join("device/iommu_group");
            fs::create_dir_all(&group).unwrap();
            fs::write(group.join("type"), format!("{kind}\n")).unwrap();
        }
        fs::create_dir_all(net.join("silent/device/iommu_group")).unwrap();
        fs::create_dir_all(net.join("plain/device")).unwrap();
        fs::create_dir_all(net.join("veth")).unwrap();
        let direct = ["translated", "strict", "passed", "unknown", "silent", "plain", "veth", "nowhere"]
            .map(|interface| is_direct(&net, interface));
        fs::remove_dir_all(&net).unwrap();
        assert_eq!(direct, [false, false, true, false, false, true, true, false]);
    }
}
