//! Steering of frames to workers: the decision, shared by the XDP program and the host.
//!
//! The XDP program and the tests of the host compile the same source, so this crate has no `std`, no
//! dependency and no unsafe code.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod datagram;
mod packet;
mod reason;
mod steer;

pub use datagram::Family;
pub use packet::Packet;
pub use reason::{Fate, Reason};
pub use steer::{Decision, FragmentKey, Tables, steer, worker_of_addresses, worker_of_flow};

/// The program's name in the object.
pub const PROGRAM: &str = "portcullis";

/// The maps' names in the object.
pub mod maps {
    /// [`xsk_key`](crate::xsk_key) -> AF_XDP socket.
    pub const XSKMAP: &str = "XSKMAP";
    /// ifindex -> port.
    pub const PORTS: &str = "PORTS";
    /// IPv4 prefix -> worker, [`BY_FLOW`](crate::BY_FLOW) or [`TO_KERNEL`](crate::TO_KERNEL).
    pub const PROTECTED_V4: &str = "PROTECTED_V4";
    /// IPv6 prefix -> worker, [`BY_FLOW`](crate::BY_FLOW) or [`TO_KERNEL`](crate::TO_KERNEL).
    pub const PROTECTED_V6: &str = "PROTECTED_V6";
    /// One value: the number of workers.
    pub const CONFIG: &str = "CONFIG";
    /// Frames by reason, for each CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// Datagrams whose first fragment went to a worker.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// [`udp_port`](crate::udp_port): a bit for each UDP port that is ours for ESP in UDP.
    pub const UDP_PORTS: &str = "UDP_PORTS";
}

/// Ports that one set of maps can hold.
pub const MAX_PORTS: u32 = 16;
/// Queues of a port.
pub const MAX_QUEUES: u32 = 64;
/// Workers of a datapath.
pub const MAX_WORKERS: u32 = 64;
/// Entries of the XSKMAP.
pub const XSKMAP_ENTRIES: u32 = MAX_PORTS * MAX_QUEUES * MAX_WORKERS;
/// Entries of each table of protected prefixes.
pub const PROTECTED_ENTRIES: u32 = 131_072;
/// Words of 64 ports each.
pub const UDP_PORT_WORDS: u32 = 1 << 10;
/// Fragmented datagrams of ESP in UDP that are followed at once.
pub const FRAGMENTS_ENTRIES: u32 = 8192;

/// Value of a prefix that is the kernel's: the gateway's own addresses, and what a policy bypasses.
pub const TO_KERNEL: u32 = u32::MAX;

/// Value of a protected prefix that any worker may have packets of: those of a flow go to one, which
/// [`worker_of_flow`] names.
pub const BY_FLOW: u32 = u32::MAX - 3;

/// Stands for the value of an address in no prefix. It is not stored.
pub const UNPROTECTED: u32 = u32::MAX - 1;

/// Stands for the worker of what ends here. It is not stored.
pub const TO_NOBODY: u32 = u32::MAX - 2;

/// The word of a UDP port among those of ESP in UDP, and its bit.
pub const fn udp_port(port: u16) -> (u32, u64) {
    (port as u32 / 64, 1 << (port % 64))
}

/// Key of a worker's socket in the XSKMAP. Out of range, it is a key that no socket can have, so that
/// the frame is dropped and not given to another's socket.
pub const fn xsk_key(port: u32, queue: u32, worker: u32) -> u32 {
    if port < MAX_PORTS && queue < MAX_QUEUES && worker < MAX_WORKERS {
        port << 12 | queue << 6 | worker
    } else {
        u32::MAX
    }
}

/// The worker that owns the SA with this SPI, inbound and outbound alike.
pub const fn worker_of_spi(spi: u32, workers: u32) -> u32 {
    scale(spi.wrapping_mul(GOLDEN), workers)
}

/// 2^32 divided by the golden ratio: multiplied by it, near numbers fall far apart.
const GOLDEN: u32 = 0x9E37_79B1;

/// Maps a hash evenly to `0..n`, without a division.
const fn scale(hash: u32, n: u32) -> u32 {
    ((hash as u64 * n as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_sockets_are_distinct_and_in_range() {
        assert_eq!(xsk_key(0, 0, 0), 0);
        assert_eq!(xsk_key(1, 2, 3), 1 << 12 | 2 << 6 | 3);
        assert_eq!(xsk_key(MAX_PORTS - 1, MAX_QUEUES - 1, MAX_WORKERS - 1), XSKMAP_ENTRIES - 1);
        for (port, queue, worker) in
            [(MAX_PORTS, 0, 0), (0, MAX_QUEUES, 0), (0, 0, MAX_WORKERS), (0, 0, TO_KERNEL)]
        {
            assert_eq!(xsk_key(port, queue, worker), u32::MAX);
        }
    }

    #[test]
    fn spis_spread_evenly() {
        for workers in 1..=MAX_WORKERS {
            let mut owned = [0u32; MAX_WORKERS as usize];
            for spi in 0x1001..0x1001 + 64 * workers {
                owned[worker_of_spi(spi, workers) as usize] += 1;
            }
            let (owned, none) = owned.split_at(workers as usize);
            assert!(owned.iter().all(|&n| (56..=72).contains(&n)), "{workers} workers: {owned:?}");
            assert!(none.iter().all(|&n| n == 0));
        }
    }
}
