//! What can go wrong with the XDP program, and what to do about it.

use std::error::Error;
use std::io;

use aya::maps::MapError;
use portcullis_ebpf::{MAX_PORTS, MAX_QUEUES, MAX_WORKERS, PROTECTED_ENTRIES};
use thiserror::Error;

use super::Mode;
use crate::fib::Prefix;

/// Why the XDP program could not be loaded, attached or told something.
#[derive(Debug, Error)]
pub enum SteeringError {
    /// The process may not load the program.
    #[error("no permission to load the XDP program; run as root, or with CAP_NET_ADMIN and CAP_BPF")]
    LoadPermission,
    /// The kernel refuses the program.
    #[error("the kernel does not take the XDP program (Linux 5.18 or later is needed): {source}")]
    Load {
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The object in this binary is not the one that its source describes.
    #[error("the XDP object has no `{missing}`; build it anew with scripts/build-ebpf")]
    Object {
        /// The program or map that it lacks.
        missing: &'static str,
    },
    /// More workers than there are keys for, or none.
    #[error("{workers} workers; choose 1 to {MAX_WORKERS} in [datapath] workers")]
    Workers {
        /// Workers asked for.
        workers: u32,
    },
    /// No socket for routing messages.
    #[error("cannot speak with the kernel about devices (netlink): {source}")]
    Netlink {
        /// The cause.
        source: io::Error,
    },
    /// A port number that is out of range or in use.
    #[error(
        "{interface} cannot be port {port}: either is in use already, or there are more than {MAX_PORTS} ports"
    )]
    Port {
        /// The device.
        interface: String,
        /// The port.
        port: u32,
    },
    /// No such device.
    #[error("{interface}: no such interface; `ip link` shows those of this network namespace")]
    NoInterface {
        /// The device.
        interface: String,
    },
    /// The process may not attach the program.
    #[error(
        "{interface}: no permission to attach the XDP program; run as root, or with CAP_NET_ADMIN and CAP_BPF"
    )]
    AttachPermission {
        /// The device.
        interface: String,
    },
    /// The device has someone else's XDP program.
    #[error(
        "{interface}: has another XDP program, `{program}` (id {id}); \
         stop who attached it, or take it off with `ip link set dev {interface} xdp off`"
    )]
    Occupied {
        /// The device.
        interface: String,
        /// The other program's name.
        program: String,
        /// The other program's id.
        id: u32,
    },
    /// The device does not take the program in this mode.
    #[error("{interface}: does not take the XDP program in {mode} mode: {reason}; {}", .mode.remedy())]
    Unsupported {
        /// The device.
        interface: String,
        /// The mode.
        mode: Mode,
        /// What the driver said.
        reason: String,
    },
    /// The kernel refuses, for a reason that may pass.
    #[error(
        "{interface}: cannot change the XDP program: {reason}; `ip -d link show {interface}` shows what it has"
    )]
    Device {
        /// The device.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// A socket that the XSKMAP has no key for.
    #[error(
        "no socket for port {port}, queue {queue}, worker {worker}: there can be {MAX_PORTS} ports \
         with {MAX_QUEUES} queues, and as many workers as were started"
    )]
    Key {
        /// The port.
        port: u32,
        /// Its queue.
        queue: u32,
        /// The worker.
        worker: u32,
    },
    /// The XSKMAP refuses a socket.
    #[error("port {port}, queue {queue}, worker {worker}: the XSKMAP refuses the socket: {source}")]
    Socket {
        /// The port.
        port: u32,
        /// Its queue.
        queue: u32,
        /// The worker.
        worker: u32,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A prefix longer than its address.
    #[error("{prefix}: an IPv4 prefix has at most 32 bits, an IPv6 prefix 128")]
    PrefixLength {
        /// The prefix.
        prefix: Prefix,
    },
    /// A prefix for a worker that there is not.
    #[error("{prefix}: is for worker {worker}, but there are {workers}")]
    Worker {
        /// The prefix.
        prefix: Prefix,
        /// The worker.
        worker: u32,
        /// How many there are.
        workers: u32,
    },
    /// No room for another prefix.
    #[error(
        "{prefix}: the table of protected prefixes is full at {PROTECTED_ENTRIES}; \
         join prefixes, or let one wider prefix cover them"
    )]
    PrefixesFull {
        /// The prefix.
        prefix: Prefix,
    },
    /// The table does not take a prefix.
    #[error("{prefix}: the table of protected prefixes does not take it: {source}")]
    Prefix {
        /// The prefix.
        prefix: Prefix,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The counters cannot be read.
    #[error("cannot read the XDP program's counters: {source}")]
    Counters {
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl SteeringError {
    pub(super) fn load(source: impl Error + 'static) -> SteeringError {
        match errno(&source) {
            // EACCES is how the verifier says no.
            Some(libc::EPERM) => SteeringError::LoadPermission,
            _ => SteeringError::Load { source: with_causes(&source) },
        }
    }

    pub(super) fn map(interface: &str) -> impl FnOnce(MapError) -> SteeringError {
        move |source| SteeringError::Device {
            interface: interface.into(),
            reason: with_causes(&source).to_string(),
        }
    }

    pub(super) fn prefix(prefix: Prefix, source: MapError) -> SteeringError {
        match errno(&source) {
            Some(libc::ENOSPC) => SteeringError::PrefixesFull { prefix },
            _ => SteeringError::Prefix { prefix, source: with_causes(&source) },
        }
    }

    pub(super) fn counters(source: MapError) -> SteeringError {
        SteeringError::Counters { source: with_causes(&source) }
    }
}

/// The error, its cause, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The system's error at the bottom of a chain of causes.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    causes(error).filter_map(|error| error.downcast_ref::<io::Error>()).find_map(io::Error::raw_os_error)
}

/// One line with all causes: aya's own texts leave them out.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> Box<dyn Error + Send + Sync> {
    let mut text = error.to_string();
    for cause in causes(error).skip(1) {
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.into()
}
