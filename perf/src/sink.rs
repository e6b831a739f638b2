//! A sink: counts the IP packets that arrive at an interface, and drops them before the kernel sees them.

use crate::interface::everything;
use portcullis_datapath::steering::{Counters, Steering, Wanted};
use std::error::Error;

/// An interface whose packets are counted.
pub struct Sink {
    steering: Steering,
}

impl Sink {
    /// Takes the interface.
    ///
    /// # Errors
    /// What attaching says.
    pub fn open(interface: &str) -> Result<Sink, Box<dyn Error>> {
        let mut steering = everything()?;
        steering.attach(0, interface, Wanted::Auto)?;
        Ok(Sink { steering })
    }

    /// IP packets that arrived since it was opened: those that were ours, and were dropped for want of a socket.
    ///
    /// # Errors
    /// What reading the counters says.
    pub fn packets(&self) -> Result<u64, Box<dyn Error>> {
        let counters: Counters = self.steering.counters()?;
        Ok(counters.iter().filter(|(r, _)| r.fate() == portcullis_ebpf::Fate::Worker).map(|(_, n)| n).sum())
    }

    /// Lets the interface go.
    ///
    /// # Errors
    /// What detaching says.
    pub fn close(mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.steering.detach()?)
    }
}
