//! The kernel's links, addresses, routes and neighbours, by netlink: two sockets, and what their messages say.
//!
//! The datapath mirrors all of it; iked reads the routes that lead into tunnels, and makes the devices of these.
//! Everything is of the network namespace of the thread that opened the sockets.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod address;
mod device;
mod offload;
mod route;
mod socket;

pub use address::Address;
pub use device::Device;
pub use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
pub use offload::complete_checksums;
pub use route::{Hop, Route, Table, Target};
pub use socket::{Event, Events, Requests, Topic};

/// IPv4 and IPv6.
pub const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];
