//! The XDP program in the kernel, and the tables that it steers by.
//!
//! A start goes `load`, [`set_protected`](Steering::set_protected), [`set_socket`](Steering::set_socket),
//! [`attach`](Steering::attach): from its first frame on, the program knows what it must not let pass.
//! It is attached by netlink, not by a `bpf_link`, so that it outlives a datapath that is killed. Then it
//! finds no socket any more, and drops what is protected; the next start puts its own program in its
//! place at once. So it is with one that ends to be followed by another. Only [`detach`](Steering::detach) gives the device back
//! to the kernel.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, XskMap};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use portcullis_ebpf::{
    BY_FLOW, MAX_PORTS, MAX_QUEUES, MAX_WORKERS, PROGRAM, Reason, TO_KERNEL, UDP_PORT_WORDS, maps, udp_port,
    xsk_key,
};

use crate::fib::Prefix;
use crate::wire::NAT_T_PORT;

mod device;
mod error;

use device::Devices;
pub use device::Mode;
pub use error::SteeringError;

static OBJECT: &[u8] = include_bytes_aligned!("../../ebpf/portcullis.bpf.o");

/// The mode that the configuration asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wanted {
    /// Driver mode, or generic mode where the driver refuses.
    #[default]
    Auto,
    /// Driver mode only.
    Driver,
    /// Generic mode only.
    Generic,
}

/// What attaching brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The mode that was got.
    pub mode: Mode,
    /// Why it is not driver mode, when that was tried.
    pub fallback: Option<String>,
    /// Whether it took the place of a predecessor's program.
    pub replaced: bool,
}

/// Whose a prefix is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Protected: this worker's.
    Worker(u32),
    /// Protected: of any worker, each flow of one.
    Workers,
    /// The gateway's own address, or bypassed.
    Kernel,
}

/// Frames steered since the program was loaded, over all ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counters([u64; Reason::ALL.len()]);

impl Counters {
    /// Frames that were steered for this reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// Each reason and its frames.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().map(|&reason| (reason, self.get(reason)))
    }
}

struct Attachment {
    port: u32,
    interface: String,
    ifindex: u32,
    mode: Mode,
    replaced: bool,
}

/// The loaded program and its maps.
pub struct Steering {
    // Holds the maps that are not changed after the start.
    ebpf: Ebpf,
    xskmap: XskMap<MapData>,
    ports: HashMap<MapData, u32, u32>,
    protected_v4: LpmTrie<MapData, [u8; 4], u32>,
    protected_v6: LpmTrie<MapData, [u8; 16], u32>,
    udp_ports: Array<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    protected: BTreeMap<Prefix, Owner>,
    attachments: Vec<Attachment>,
    workers: u32,
    devices: Devices,
}

impl Steering {
    /// Loads the program for this many workers. Nothing is steered yet.
    pub fn load(workers: u32) -> Result<Steering, SteeringError> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(SteeringError::Workers { workers });
        }
        // The program refers to no type of the kernel, so that no BTF is needed.
        let mut ebpf = EbpfLoader::new().btf(None).load(OBJECT).map_err(SteeringError::load)?;
        let program: &mut Xdp = ebpf
            .program_mut(PROGRAM)
            .ok_or(SteeringError::Object { missing: PROGRAM })?
            .try_into()
            .map_err(SteeringError::load)?;
        program.load().map_err(SteeringError::load)?;
        let mut config: Array<_, u32> = map(&mut ebpf, maps::CONFIG)?;
        config.set(0, workers, 0).map_err(SteeringError::load)?;
        let mut steering = Steering {
            xskmap: map(&mut ebpf, maps::XSKMAP)?,
            ports: map(&mut ebpf, maps::PORTS)?,
            protected_v4: map(&mut ebpf, maps::PROTECTED_V4)?,
            protected_v6: map(&mut ebpf, maps::PROTECTED_V6)?,
            udp_ports: map(&mut ebpf, maps::UDP_PORTS)?,
            counters: map(&mut ebpf, maps::COUNTERS)?,
            ebpf,
            protected: BTreeMap::new(),
            attachments: Vec::new(),
            workers,
            devices: Devices::open()?,
        };
        steering.set_udp_ports([NAT_T_PORT])?;
        Ok(steering)
    }

    /// Says which UDP ports are ours for ESP in UDP (RFC 3948 §2), in place of those said before, or of 4500.
    pub fn set_udp_ports(&mut self, ports: impl IntoIterator<Item = u16>) -> Result<(), SteeringError> {
        let mut words = [0; UDP_PORT_WORDS as usize];
        for (word, bit) in ports.into_iter().map(udp_port) {
            words[word as usize] |= bit;
        }
        for (index, word) in words.into_iter().enumerate() {
            self.udp_ports.set(index as u32, word, 0).map_err(SteeringError::load)?;
        }
        Ok(())
    }

    /// Lets the frames of a device in, as those of `port`.
    pub fn attach(&mut self, port: u32, interface: &str, wanted: Wanted) -> Result<Attached, SteeringError> {
        let taken = self.attachments.iter().any(|a| a.port == port || a.interface == interface);
        if port >= MAX_PORTS || taken {
            return Err(SteeringError::Port { interface: interface.into(), port });
        }
        let device = self.devices.find(interface)?;
        self.ports.insert(device.ifindex, port, 0).map_err(SteeringError::map(interface))?;
        let fd = program(&self.ebpf)?.fd().map_err(SteeringError::load)?;
        match self.devices.attach(&device, fd.as_fd(), wanted) {
            Ok(attached) => {
                let (interface, ifindex, mode) = (interface.into(), device.ifindex, attached.mode);
                let replaced = attached.replaced;
                self.attachments.push(Attachment { port, interface, ifindex, mode, replaced });
                Ok(attached)
            }
            Err(error) => {
                let _ = self.ports.remove(&device.ifindex);
                Err(error)
            }
        }
    }

    /// The start has failed: takes the program off the ports that had none before. The others it keeps as shut as its
    /// predecessor, which was there since a datapath was killed or handed over, has kept them.
    pub fn give_up(&mut self) -> Result<(), SteeringError> {
        self.attachments.retain(|attachment| !attachment.replaced);
        self.detach()
    }

    /// Takes the program off all ports, where it is still this one.
    pub fn detach(&mut self) -> Result<(), SteeringError> {
        let fd = program(&self.ebpf)?.fd().map_err(SteeringError::load)?;
        let mut detached = Ok(());
        for Attachment { interface, ifindex, mode, .. } in self.attachments.drain(..) {
            detached = detached.and(self.devices.detach(&interface, ifindex, mode, fd.as_fd()));
            let _ = self.ports.remove(&ifindex);
        }
        detached
    }

    /// Gives a worker's frames from one queue of a port to its socket.
    pub fn set_socket(
        &mut self,
        port: u32,
        queue: u32,
        worker: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), SteeringError> {
        if port >= MAX_PORTS || queue >= MAX_QUEUES || worker >= self.workers {
            return Err(SteeringError::Key { port, queue, worker });
        }
        self.xskmap
            .set(xsk_key(port, queue, worker), socket.as_raw_fd(), 0)
            .map_err(|source| SteeringError::Socket { port, queue, worker, source: source.into() })
    }

    /// Says whose a prefix is, in place of what was said before.
    pub fn protect(&mut self, prefix: Prefix, owner: Owner) -> Result<(), SteeringError> {
        let prefix = masked(prefix)?;
        let value = match owner {
            Owner::Worker(worker) if worker >= self.workers => {
                return Err(SteeringError::Worker { prefix, worker, workers: self.workers });
            }
            Owner::Worker(worker) => worker,
            Owner::Workers => BY_FLOW,
            Owner::Kernel => TO_KERNEL,
        };
        if self.protected.get(&prefix) == Some(&owner) {
            return Ok(());
        }
        let len = prefix.len.into();
        match prefix.addr {
            IpAddr::V4(addr) => self.protected_v4.insert(&Key::new(len, addr.octets()), value, 0),
            IpAddr::V6(addr) => self.protected_v6.insert(&Key::new(len, addr.octets()), value, 0),
        }
        .map_err(|source| SteeringError::prefix(prefix, source))?;
        self.protected.insert(prefix, owner);
        Ok(())
    }

    /// Leaves a prefix to what is said of shorter ones. One that is not there is no error.
    pub fn unprotect(&mut self, prefix: Prefix) -> Result<(), SteeringError> {
        let prefix = masked(prefix)?;
        if !self.protected.contains_key(&prefix) {
            return Ok(());
        }
        let len = prefix.len.into();
        match prefix.addr {
            IpAddr::V4(addr) => self.protected_v4.remove(&Key::new(len, addr.octets())),
            IpAddr::V6(addr) => self.protected_v6.remove(&Key::new(len, addr.octets())),
        }
        .map_err(|source| SteeringError::prefix(prefix, source))?;
        self.protected.remove(&prefix);
        Ok(())
    }

    /// Makes the tables hold these prefixes and no others, by the changes that this takes.
    ///
    /// An exception is in place before the prefix that it is an exception from, and outlasts it.
    pub fn set_protected(&mut self, wanted: &BTreeMap<Prefix, Owner>) -> Result<(), SteeringError> {
        let wanted = wanted
            .iter()
            .map(|(&prefix, &owner)| Ok((masked(prefix)?, owner)))
            .collect::<Result<BTreeMap<_, _>, SteeringError>>()?;
        let mut coming: Vec<_> = wanted.iter().map(|(&prefix, &owner)| (prefix, owner)).collect();
        coming.sort_by_key(|(prefix, _)| Reverse(prefix.len));
        coming.into_iter().try_for_each(|(prefix, owner)| self.protect(prefix, owner))?;
        let leaves = |prefix: &&Prefix| !wanted.contains_key(prefix);
        let mut leaving: Vec<_> = self.protected.keys().filter(leaves).copied().collect();
        leaving.sort_by_key(|prefix| prefix.len);
        leaving.into_iter().try_for_each(|prefix| self.unprotect(prefix))
    }

    /// Whose each prefix is.
    pub fn protected(&self) -> &BTreeMap<Prefix, Owner> {
        &self.protected
    }

    /// The counters, summed over the CPUs.
    ///
    /// The first call in a thread opens a file, to see how many CPUs there are: a thread that is
    /// confined makes it before.
    pub fn counters(&self) -> Result<Counters, SteeringError> {
        let mut counters = Counters([0; Reason::ALL.len()]);
        for (index, sum) in counters.0.iter_mut().enumerate() {
            let per_cpu = self.counters.get(&(index as u32), 0).map_err(SteeringError::counters)?;
            *sum = per_cpu.iter().sum();
        }
        Ok(counters)
    }

    /// The program, for those who run it by hand.
    pub fn program(&self) -> Result<&Xdp, SteeringError> {
        program(&self.ebpf)
    }
}

fn program(ebpf: &Ebpf) -> Result<&Xdp, SteeringError> {
    let program = ebpf.program(PROGRAM).ok_or(SteeringError::Object { missing: PROGRAM })?;
    program.try_into().map_err(SteeringError::load)
}

fn map<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, SteeringError>
where
    M: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(SteeringError::Object { missing: name })?;
    M::try_from(map).map_err(SteeringError::load)
}

/// The prefix with the bits that do not count at zero.
fn masked(prefix: Prefix) -> Result<Prefix, SteeringError> {
    let (bits, len) = (if prefix.addr.is_ipv4() { 32 } else { 128 }, u32::from(prefix.len));
    if len > bits {
        return Err(SteeringError::PrefixLength { prefix });
    }
    let addr = match prefix.addr {
        IpAddr::V4(addr) => IpAddr::V4((addr.to_bits() & u32::MAX.checked_shl(32 - len).unwrap_or(0)).into()),
        IpAddr::V6(addr) => {
            IpAddr::V6((addr.to_bits() & u128::MAX.checked_shl(128 - len).unwrap_or(0)).into())
        }
    };
    Ok(Prefix { addr, len: prefix.len })
}
