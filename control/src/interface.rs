//! The device of a route-based connection: what is routed there goes into its tunnel, and what comes out of the tunnel
//! for the gateway itself comes in there.
//!
//! It is one end of a veth pair. The other, of the same name with [`PATH`] behind it, is a port of the datapath. iked
//! makes the pair if it is not there, and never takes it away: with it would go its routes, and traffic might find
//! others that lead out in clear. By hand it is made so:
//!
//! ```sh
//! ip link add ipsec0 mtu 1400 type veth peer name ipsec0-path mtu 1500
//! ip link set ipsec0 arp off up && ip link set ipsec0-path up
//! ethtool -K ipsec0 tx off tso off && ethtool -K ipsec0-path tx off tso off
//! ```
//!
//! Its MTU is what the gateway's own packets have, at most, on their way into the tunnel, and what it is sent of those
//! that come out: longer ones are cut, or their source is told. `ip link set ipsec0 mtu N` changes it; beyond 1500 the
//! other end has to have as much.
//!
//! Without ARP (and neighbour discovery), whatever is routed there needs no router and no neighbour: the kernel sends it
//! to the device's own Ethernet address, which the datapath does not look at. This is also why what the datapath leaves to
//! the kernel at the other end, because no policy is about it yet, is no packet for that end, and goes nowhere.

use portcullis_netlink::{Device, Requests, complete_checksums};
use std::{fs, io};
use thiserror::Error;

pub use portcullis_machine::{VETH_NAME_ROOM as NAME_ROOM, VETH_PATH as PATH};

/// The MTU of a device that we make: what fits into a packet of 1500 octets, whatever the algorithm and the outer header.
pub const MTU: u16 = 1400;
/// That of its other end, so that the first counts alone.
const PATH_MTU: u16 = 1500;

/// Why a device is not as it must be.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// Netlink.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Something else has its name.
    #[error(
        "{name} is no veth pair with {name}{PATH}; take it away (ip link del {name}), and it is made anew"
    )]
    NotAPair {
        /// The device.
        name: String,
    },
}

/// The name of the datapath's end.
pub fn path_of(name: &str) -> String {
    format!("{name}{PATH}")
}

/// Makes a device, unless it is there, and sets it up as it must be. True if it was made.
///
/// # Errors
/// [`InterfaceError`].
pub fn prepare(requests: &mut Requests, name: &str) -> Result<bool, InterfaceError> {
    let failed = |what| move |source| InterfaceError::Io { what, source };
    let path = path_of(name);
    let find = |requests: &mut Requests| -> Result<[Option<Device>; 2], InterfaceError> {
        let all = requests.devices().map_err(failed("read the devices"))?;
        Ok([name, &path].map(|name| all.iter().find(|d| d.name == name).cloned()))
    };
    let mut ends = find(requests)?;
    let is_new = ends.iter().all(Option::is_none);
    if is_new {
        requests.make_veth((name, MTU), (&path, PATH_MTU)).map_err(failed("make the veth pair"))?;
        ends = find(requests)?;
    }
    let [Some(near), Some(far)] = ends else {
        return Err(InterfaceError::NotAPair { name: name.to_owned() });
    };
    if near.peer != Some(far.index) {
        return Err(InterfaceError::NotAPair { name: name.to_owned() });
    }
    if near.asks_neighbours {
        requests.ask_no_neighbours(near.index).map_err(failed("switch ARP off"))?;
    }
    // The far end is not set up if it is new, or if who made it was killed.
    if !far.is_set_up {
        // Nobody is to speak there; without IPv6 there is nothing to switch off.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{path}/disable_ipv6"), "1");
        for index in [near.index, far.index] {
            requests.set_up(index).map_err(failed("set it up"))?;
        }
    }
    for end in [name, &path] {
        complete_checksums(end)
            .map_err(failed("have checksums completed (ethtool -K ... tx off tso off)"))?;
    }
    Ok(is_new)
}
