//! Interfaces for the tools here: opened by the same port layer that the gateway uses.

use portcullis_datapath::{
    fib::{Mac, PortLink, Prefix},
    handoff,
    mirror::Mirror,
    pool::{FrameCache, FramePool},
    port::af_xdp::{self, AfXdpPort, Copying, Interface},
    steering::{Owner, Steering, Wanted},
    umem::HugePages,
};
use portcullis_netlink::Requests;
use std::{
    error::Error,
    fs,
    net::IpAddr,
    path::Path,
    sync::{Arc, OnceLock},
    thread,
};

/// Chunks for each lane.
const FRAMES: u32 = 16_384;
/// Entries of each ring.
const RING: u32 = 2048;

/// Open interfaces with all their queues, in lanes.
pub struct Interfaces {
    /// What each thread has. The first receives, and all send.
    pub lanes: Vec<Lane>,
    /// What is known of each interface.
    pub links: Vec<PortLink>,
    steering: Steering,
    // Outlives the ports: the memory of all frames.
    _pool: Arc<FramePool>,
}

/// What a thread has of all interfaces.
pub struct Lane {
    /// In the order asked for.
    pub ports: Vec<AfXdpPort>,
    /// Free frames.
    pub cache: FrameCache,
}

/// A program that takes every IP packet.
///
/// # Errors
/// What loading says.
pub(crate) fn everything() -> Result<Steering, Box<dyn Error>> {
    let mut steering = Steering::load(1)?;
    for any in ["0.0.0.0", "::"] {
        steering.protect(Prefix { addr: any.parse::<IpAddr>()?, len: 0 }, Owner::Worker(0))?;
    }
    Ok(steering)
}

impl Interfaces {
    /// Opens the interfaces in so many lanes; every IP packet that arrives at those to `receive` by is the first lane's.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn open(names: &[String], receive: &[&str], lanes: usize) -> Result<Interfaces, Box<dyn Error>> {
        let links: Vec<PortLink> = Mirror::open(names)?.fib().ports().to_vec();
        let interfaces: Vec<_> = links
            .iter()
            .map(|l| Interface {
                name: l.interface.clone(),
                ifindex: l.ifindex,
                queues: queues(&l.interface),
            })
            .collect();
        let rings = interfaces.iter().map(|i| i.queues.saturating_sub(1)).sum::<u32>() * 2 * RING;
        let frames = FRAMES * lanes as u32 + rings;
        let pool = FramePool::new(af_xdp::umem(&interfaces, frames, 4096, HugePages::Auto)?.0);
        let inboxes = handoff::between(lanes)?[0].inboxes();
        let opened = af_xdp::open(pool.umem(), &interfaces, &inboxes, RING, Copying::Auto)?;
        let mut steering = everything()?;
        for (port, queue, worker, socket) in &opened.sockets {
            if *worker == 0 {
                steering.set_socket(*port, *queue, *worker, socket.fd())?;
            }
        }
        for (number, link) in links.iter().enumerate() {
            if receive.contains(&link.interface.as_str()) {
                steering.attach(number as u32, &link.interface, Wanted::Auto)?;
            }
        }
        let lanes = opened.ports.into_iter().map(|ports| Lane { ports, cache: pool.cache() }).collect();
        Ok(Interfaces { lanes, links, steering, _pool: pool })
    }

    /// Lets the interfaces go.
    ///
    /// # Errors
    /// What detaching says.
    pub fn close(mut self) -> Result<(), Box<dyn Error>> {
        self.detach()
    }

    /// Takes no packets any more.
    ///
    /// # Errors
    /// What detaching says.
    pub fn detach(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.steering.detach()?)
    }
}

/// Where what goes by this interface is measured: over veth, on a NIC (with the driver's name), or over another virtual
/// device.
pub fn place(interface: &str) -> String {
    let driver = fs::read_link(Path::new("/sys/class/net").join(interface).join("device/driver"));
    if let Ok(driver) = driver {
        return format!("on a NIC ({})", driver.file_name().unwrap_or_default().to_string_lossy());
    }
    let devices = Requests::open().and_then(|mut requests| requests.devices()).unwrap_or_default();
    match devices.iter().any(|device| device.name == interface && device.is_veth) {
        true => "over veth".to_owned(),
        false => "over a virtual device".to_owned(),
    }
}

/// Receive queues of an interface: 1 at least.
pub fn queues(interface: &str) -> u32 {
    let names = fs::read_dir(format!("/sys/class/net/{interface}/queues")).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-")).count().max(1) as u32
}

/// A MAC address such as 02:00:00:00:00:01.
///
/// # Errors
/// What it is instead.
pub fn mac(text: &str) -> Result<Mac, String> {
    let octets: Result<Vec<u8>, _> = text.split(':').map(|o| u8::from_str_radix(o, 16)).collect();
    let octets = octets.ok().and_then(|o| o.try_into().ok());
    octets.map(Mac).ok_or_else(|| format!("'{text}' is not a MAC address such as 02:00:00:00:00:01"))
}

/// Cores that this program could run on before any thread was pinned.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Pins the calling thread.
///
/// # Errors
/// A core that is not to be had.
pub fn pin(core: Option<usize>) -> Result<(), Box<dyn Error>> {
    cores();
    match core {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
            Err(format!("core {id} is not to be had").into())
        }
        _ => Ok(()),
    }
}
