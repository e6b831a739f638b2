//! Interfaces for the tools here: opened by the same port layer that the gateway uses.

use portcullis_datapath::{
    fib::{PortLink, Prefix},
    handoff,
    mirror::Mirror,
    pool::{FrameCache, FramePool},
    port::af_xdp::{self, AfXdpPort, Copying, Interface},
    steering::{Owner, Steering, Wanted},
    umem::HugePages,
};
use std::{error::Error, net::IpAddr, sync::Arc};

/// Chunks for one tool.
const FRAMES: u32 = 16_384;
/// Entries of each ring.
const RING: u32 = 2048;

/// Open interfaces, one queue each, all for one worker.
pub struct Interfaces {
    /// In the order asked for.
    pub ports: Vec<AfXdpPort>,
    /// What is known of each.
    pub links: Vec<PortLink>,
    /// Free frames.
    pub cache: FrameCache,
    steering: Steering,
    // Outlives the ports: the memory of all frames.
    _pool: Arc<FramePool>,
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
    /// Opens the interfaces; with `receive`, every IP packet that arrives is ours.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn open(names: &[String], receive: bool) -> Result<Interfaces, Box<dyn Error>> {
        let links: Vec<PortLink> = Mirror::open(names)?.fib().ports().to_vec();
        let interfaces: Vec<_> = links
            .iter()
            .map(|l| Interface { name: l.interface.clone(), ifindex: l.ifindex, queues: 1 })
            .collect();
        let pool = FramePool::new(af_xdp::umem(&interfaces, FRAMES, 4096, HugePages::Auto)?.0);
        let mut opened =
            af_xdp::open(pool.umem(), &interfaces, &handoff::between(1)?[0].inboxes(), RING, Copying::Auto)?;
        let mut steering = everything()?;
        if receive {
            for (port, queue, worker, socket) in &opened.sockets {
                steering.set_socket(*port, *queue, *worker, socket.fd())?;
            }
            for (number, link) in links.iter().enumerate() {
                steering.attach(number as u32, &link.interface, Wanted::Auto)?;
            }
        }
        Ok(Interfaces { ports: opened.ports.remove(0), links, cache: pool.cache(), steering, _pool: pool })
    }

    /// Lets the interfaces go.
    ///
    /// # Errors
    /// What detaching says.
    pub fn close(mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.steering.detach()?)
    }
}

/// Pins the calling thread.
///
/// # Errors
/// A core that is not to be had.
pub fn pin(core: Option<usize>) -> Result<(), Box<dyn Error>> {
    match core {
        Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
            Err(format!("core {id} is not to be had").into())
        }
        _ => Ok(()),
    }
}
