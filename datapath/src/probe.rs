//! What an interface can do, found out by doing it: for `portcullis doctor`.

use crate::{
    handoff,
    mirror::Mirror,
    port::af_xdp::{self, Copying, Interface},
    steering::{Mode, Steering, Wanted},
    umem::HugePages,
};
use std::{error::Error, io::Write, sync::Arc};

/// Opens a socket on the first queue, attaches the program for a moment, and prints `driver` or `generic`, and
/// `zero-copy` or `copy`. On an interface that a datapath has, it fails and changes nothing: the socket is busy.
///
/// # Errors
/// Why the interface can do neither.
pub fn run(interface: &str) -> Result<(), Box<dyn Error>> {
    let mirror = Mirror::open(&[interface.to_owned()])?;
    let ifindex = mirror.fib().ports().first().map_or(0, |p| p.ifindex);
    let ports = [Interface { name: interface.to_owned(), ifindex, queues: 1 }];
    let umem = Arc::new(af_xdp::umem(&ports, 1024, 4096, HugePages::Auto)?.0);
    let opened = af_xdp::open(&umem, &ports, &handoff::between(1)?[0].inboxes(), 64, Copying::Auto)?;
    let mut steering = Steering::load(1)?;
    let attached = steering.attach(0, interface, Wanted::Auto)?;
    steering.detach()?;
    let mode = if attached.mode == Mode::Driver { "driver" } else { "generic" };
    let copying = if opened.zero_copy { "zero-copy" } else { "copy" };
    writeln!(std::io::stdout(), "{mode} {copying}")?;
    Ok(())
}
