//! The XDP program in the kernel decides as the same source does on the host.
//!
//! Needs root. Each test has a network namespace of its own, without a name: it goes with the thread.

#[path = "../../ebpf/tests/frames/mod.rs"]
mod frames;
mod netns;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use aya::programs::{TestRun, TestRunOptions};
use frames::generate::{self, Rng};
use frames::tables::{ESP_PORTS, Entry, HostTables, entries, tables, v4, v6};
use frames::{IPV4, IPV6, TCP, ipv4, ipv6};
use portcullis_datapath::fib::Prefix;
use portcullis_datapath::steering::{Counters, Mode, Owner, Steering, SteeringError, Wanted};
use portcullis_ebpf::{
    BY_FLOW, Decision, Family, MAX_PORTS, MAX_QUEUES, MAX_WORKERS, PROTECTED_ENTRIES, Reason, TO_KERNEL,
    TO_NOBODY, steer,
};

const WORKERS: u32 = 4;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// The program on the loopback device, with one worker's socket, beside the decision on the host.
struct Oracle {
    steering: Steering,
    tables: HostTables,
    before: Counters,
    worker: u32,
    _socket: OwnedFd,
}

impl Oracle {
    fn new(worker: u32) -> Oracle {
        let mut steering = Steering::load(WORKERS).unwrap_or_else(|e| panic!("{e}"));
        for (family, address, len, value) in entries() {
            let address = IpAddr::from(address);
            let prefix = match family {
                Family::V4 => Prefix { addr: address.to_canonical(), len: len - 96 },
                Family::V6 => Prefix { addr: address, len },
            };
            let owner = match value {
                TO_KERNEL => Owner::Kernel,
                BY_FLOW => Owner::Workers,
                worker => Owner::Worker(worker),
            };
            steering.protect(prefix, owner).unwrap();
        }
        steering.set_udp_ports(ESP_PORTS).unwrap();
        let socket = xdp_socket();
        steering.set_socket(0, 0, worker, socket.as_fd()).unwrap();
        // Test runs come in by the namespace's loopback device.
        let attached = steering.attach(0, "lo", Wanted::Generic).unwrap();
        assert_eq!(attached.mode, Mode::Generic);
        let before = steering.counters().unwrap();
        Oracle { steering, tables: tables(), before, worker, _socket: socket }
    }

    fn compare(&mut self, frame: &[u8]) {
        let decision = steer(frame, WORKERS, &self.tables);
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let verdict = self.steering.program().unwrap().test_run(options).unwrap().return_value;
        let after = self.steering.counters().unwrap();
        let moved: Vec<Reason> =
            Reason::ALL.iter().filter(|&&r| after.get(r) != self.before.get(r)).copied().collect();
        let expected = match decision {
            Decision { worker: TO_KERNEL, reason } => (XDP_PASS, vec![reason]),
            Decision { worker: TO_NOBODY, reason } => (XDP_DROP, vec![reason]),
            Decision { worker, reason } if worker == self.worker => (XDP_REDIRECT, vec![reason]),
            Decision { reason, .. } => (XDP_DROP, vec![reason, Reason::NoSocket]),
        };
        assert_eq!((verdict, moved), expected, "{decision:?} {frame:02x?}");
        self.before = after;
    }
}

/// A socket that the XSKMAP takes: it has a receive ring.
fn xdp_socket() -> OwnedFd {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: socket() gave it to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let entries = 64u32;
    // SAFETY: the option's value is the four bytes of `entries`.
    let set = unsafe {
        let value = (&raw const entries).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_RX_RING, value, 4)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    socket
}

#[test]
fn the_kernel_decides_as_the_host_does() {
    netns::enter();
    let mut sum = vec![0; Reason::ALL.len()];
    for worker in 0..WORKERS {
        let mut oracle = Oracle::new(worker);
        for seed in 0..5_000 {
            let seed = u64::from(worker) << 32 | seed;
            oracle.compare(&generate::frame(&mut Rng(seed)));
            oracle.compare(&generate::mutated(&mut Rng(seed)));
        }
        oracle.before.iter().for_each(|(reason, frames)| sum[reason as usize] += frames);
        oracle.steering.detach().unwrap();
    }
    // The generator reaches every branch, except what a test run cannot: it wants 14 bytes, and a port.
    let seldom = |reason: &&Reason| sum[**reason as usize] < 20;
    let seldom: Vec<_> = Reason::ALL.iter().filter(seldom).collect();
    assert_eq!(seldom, [&Reason::TruncatedEthernet, &Reason::ForeignPort], "{sum:?}");
}

/// Prefixes by chance, near each other, so that they nest.
fn prefixes(rng: &mut Rng) -> BTreeMap<Prefix, Owner> {
    let mut prefixes = BTreeMap::new();
    for _ in 0..rng.below(40) {
        let low = rng.next() as u16;
        let owner = match rng.below(6) {
            0 => Owner::Kernel,
            1 | 2 => Owner::Workers,
            n => Owner::Worker(n as u32 % WORKERS),
        };
        let prefix = if rng.one_in(2) {
            Prefix { addr: Ipv4Addr::from(0x0a00_0000 | u32::from(low)).into(), len: 8 + rng.below(25) as u8 }
        } else {
            let addr = Ipv6Addr::from(0xfd << 120 | u128::from(low)).into();
            Prefix { addr, len: if rng.one_in(9) { rng.below(8) as u8 } else { 112 + rng.below(17) as u8 } }
        };
        prefixes.insert(prefix, owner);
    }
    prefixes
}

#[test]
fn the_tables_follow_by_their_differences() {
    netns::enter();
    let mut oracle = Oracle::new(1);
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let wanted = prefixes(&mut rng);
        oracle.steering.set_protected(&wanted).unwrap();
        oracle.tables.entries = oracle.steering.protected().iter().map(entry).collect();
        // Of one prefix written in two ways, the later counts.
        assert!(oracle.tables.entries.len() <= wanted.len());
        for _ in 0..20 {
            let mut host = || (rng.next() as u16 & 0x1ff).to_be_bytes();
            let ([a, b], [c, d], [e, f]) = (host(), host(), host());
            let segment = [e, f, f, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            oracle.compare(&frames::ethernet(&[], IPV4, &ipv4([10, 0, a, b], [10, 0, c, d], TCP, &segment)));
            let six = |high, low| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low];
            oracle.compare(&frames::ethernet(&[], IPV6, &ipv6(six(a, b), six(c, d), TCP, &segment)));
        }
    }
}

fn entry((prefix, owner): (&Prefix, &Owner)) -> Entry {
    let value = match owner {
        Owner::Kernel => TO_KERNEL,
        Owner::Worker(worker) => *worker,
        Owner::Workers => BY_FLOW,
    };
    match prefix.addr {
        IpAddr::V4(addr) => v4(addr.octets(), prefix.len, value),
        IpAddr::V6(addr) => v6(addr.octets(), prefix.len, value),
    }
}

#[test]
fn a_full_table_says_so() {
    let mut steering = Steering::load(1).unwrap();
    let prefix = |n: u32| Prefix::host(Ipv4Addr::from(0x0a00_0000 + n).into());
    for n in 0..PROTECTED_ENTRIES {
        steering.protect(prefix(n), Owner::Worker(0)).unwrap();
    }
    let full = steering.protect(prefix(PROTECTED_ENTRIES), Owner::Worker(0)).unwrap_err();
    assert!(matches!(full, SteeringError::PrefixesFull { prefix: p } if p == prefix(PROTECTED_ENTRIES)));
    // One out, one in.
    steering.unprotect(prefix(7)).unwrap();
    steering.protect(prefix(PROTECTED_ENTRIES), Owner::Worker(0)).unwrap();
}

/// How long a start takes is for the most part how long the verifier does: 190,000 instructions are half a second. It gives up
/// at a million.
#[test]
fn the_kernel_is_soon_sure_of_the_program() {
    let steering = Steering::load(WORKERS).unwrap();
    let verified = steering.program().unwrap().info().unwrap().verified_instruction_count();
    // Linux before 5.16 does not tell.
    assert!(verified.is_none_or(|verified| verified < 300_000), "{verified:?} instructions verified");
}

#[test]
fn what_cannot_be_is_refused() {
    for workers in [0, MAX_WORKERS + 1] {
        assert!(matches!(Steering::load(workers), Err(SteeringError::Workers { .. })));
    }
    let mut steering = Steering::load(WORKERS).unwrap();
    let prefix = |addr: &str, len| Prefix { addr: addr.parse().unwrap(), len };
    let worker = steering.protect(prefix("10.0.0.0", 8), Owner::Worker(WORKERS)).unwrap_err();
    assert!(matches!(worker, SteeringError::Worker { worker: WORKERS, workers: WORKERS, .. }));
    for (addr, len) in [("10.0.0.0", 33), ("fd00::", 129)] {
        let long = steering.protect(prefix(addr, len), Owner::Kernel).unwrap_err();
        assert!(matches!(long, SteeringError::PrefixLength { .. }));
    }
    let socket = xdp_socket();
    for (port, queue, worker) in [(MAX_PORTS, 0, 0), (0, MAX_QUEUES, 0), (0, 0, WORKERS)] {
        let key = steering.set_socket(port, queue, worker, socket.as_fd()).unwrap_err();
        assert!(matches!(key, SteeringError::Key { .. }));
    }
    let not_xdp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = steering.set_socket(0, 0, 0, not_xdp.as_fd()).unwrap_err();
    assert!(matches!(other, SteeringError::Socket { port: 0, queue: 0, worker: 0, .. }));
    assert!(steering.protected().is_empty());
}
