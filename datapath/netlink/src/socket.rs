//! Two route netlink sockets: one that asks the kernel, one that it tells of changes.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
    route::RouteMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

/// Larger than any datagram that the kernel makes: a dump fills at most 32 KiB.
const DATAGRAM: usize = 128 * 1024;
/// Bytes of changes that the kernel keeps for us before it says ENOBUFS.
const RECEIVE_BUFFER: i32 = 4 << 20;
/// A dump is made while we wait; it does not take longer unless something is wrong.
const ANSWER_MS: i32 = 2000;

/// What to dump. Dumps of routes are of all tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// The devices.
    Links,
    /// Addresses of a family.
    Addresses(AddressFamily),
    /// Routes of a family.
    Routes(AddressFamily),
    /// Neighbours of a family.
    Neighbours(AddressFamily),
}

impl Topic {
    fn request(self) -> RouteNetlinkMessage {
        match self {
            Topic::Links => {
                let mut m = LinkMessage::default();
                m.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
                RouteNetlinkMessage::GetLink(m)
            }
            Topic::Addresses(family) => {
                let mut m = AddressMessage::default();
                m.header.family = family;
                RouteNetlinkMessage::GetAddress(m)
            }
            Topic::Routes(family) => {
                let mut m = RouteMessage::default();
                m.header.address_family = family;
                RouteNetlinkMessage::GetRoute(m)
            }
            Topic::Neighbours(family) => {
                let mut m = NeighbourMessage::default();
                m.header.family = family;
                RouteNetlinkMessage::GetNeighbour(m)
            }
        }
    }
}

/// The socket that asks.
#[derive(Debug)]
pub struct Requests {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Requests {
    /// Opens it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> io::Result<Requests> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // Answers then hold what was asked for and no cached routes. Kernels before 4.20 do not know it.
        if let Err(e) = socket.set_netlink_get_strict_chk(true) {
            tracing::debug!("netlink without strict checks: {e}");
        }
        Ok(Requests { socket, buffer: Vec::with_capacity(DATAGRAM), sequence: 0 })
    }

    /// Gives `f` every object of the kernel's answer. False when the tables changed meanwhile, so that the
    /// answer may lack some.
    ///
    /// # Errors
    /// What the system says.
    pub fn dump(&mut self, topic: Topic, mut f: impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        let sequence = self.send(topic.request(), NLM_F_DUMP)?;
        let (mut done, mut failed, mut whole) = (false, None, true);
        while !done {
            if !readable(&self.socket, ANSWER_MS)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            receive(&self.socket, &mut self.buffer)?;
            for_each_message(&self.buffer, |header, payload| {
                // What is left of an earlier exchange that failed.
                if header.sequence_number != sequence {
                    return;
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match payload {
                    Some(NetlinkPayload::InnerMessage(m)) => f(m),
                    Some(NetlinkPayload::Done(d)) => {
                        done = true;
                        failed = (d.code < 0).then_some(-d.code);
                    }
                    Some(NetlinkPayload::Error(e)) => {
                        done = true;
                        failed = e.code.map(|c| -c.get());
                    }
                    Some(_) => {}
                    None => tracing::warn!("netlink: skipped an unreadable answer to {topic:?}"),
                }
            });
        }
        match failed {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(whole),
        }
    }

    /// Has the kernel change something, and waits till it has.
    ///
    /// # Errors
    /// What the system says.
    pub fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let sequence = self.send(message, flags | NLM_F_ACK)?;
        let mut outcome = None;
        while outcome.is_none() {
            if !readable(&self.socket, ANSWER_MS)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            receive(&self.socket, &mut self.buffer)?;
            for_each_message(&self.buffer, |header, payload| {
                if header.sequence_number == sequence
                    && let Some(NetlinkPayload::Error(e)) = payload
                {
                    outcome = Some(e.code.map_or(0, |c| -c.get()));
                }
            });
        }
        match outcome {
            Some(errno) if errno != 0 => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    /// Has the kernel resolve a neighbour, as if it had a packet for it.
    ///
    /// # Errors
    /// What the system says.
    pub fn resolve_neighbour(&mut self, ifindex: u32, addr: IpAddr) -> io::Result<()> {
        let mut m = NeighbourMessage::default();
        m.header.family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        m.header.ifindex = ifindex;
        m.header.flags = NeighbourFlags::Use;
        m.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(addr)));
        self.send(RouteNetlinkMessage::NewNeighbour(m), NLM_F_CREATE)?;
        // Without NLM_F_ACK there is an answer only if it failed, and it is there by now.
        while readable(&self.socket, 0)? {
            receive(&self.socket, &mut self.buffer)?;
            for_each_message(&self.buffer, |_, payload| {
                if let Some(NetlinkPayload::Error(e)) = payload
                    && let Some(code) = e.code
                {
                    let error = io::Error::from_raw_os_error(-code.get());
                    tracing::debug!("the kernel does not resolve {addr}: {error}");
                }
            });
        }
        Ok(())
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(self.sequence)
    }
}

/// A change that the kernel told of.
#[derive(Debug)]
pub enum Event {
    /// What it says.
    Message(RouteNetlinkMessage),
    /// Of a kind, or in a form, that we do not read.
    Unread,
    /// Changes were lost.
    Overrun,
}

/// The socket that is told of changes of links, addresses, neighbours and routes.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Events {
    /// Opens it with news of links, addresses, routes and neighbours.
    ///
    /// # Errors
    /// What the system says.
    pub fn subscribe() -> io::Result<Events> {
        let events = Events::of_routes()?;
        events.socket.add_membership(libc::RTNLGRP_NEIGH)?;
        Ok(events)
    }

    /// The same without neighbours.
    ///
    /// # Errors
    /// What the system says.
    pub fn of_routes() -> io::Result<Events> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // At most what net.core.rmem_max allows.
        socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ] {
            socket.add_membership(group)?;
        }
        // Kernels before 5.3 have no next hop objects.
        if let Err(e) = socket.add_membership(libc::RTNLGRP_NEXTHOP) {
            tracing::debug!("no news of next hop objects: {e}");
        }
        Ok(Events { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Waits for changes.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&self, timeout_ms: i32) -> io::Result<()> {
        readable(&self.socket, timeout_ms).map(|_| ())
    }

    /// Gives `f` the changes that are there, of some datagrams at most, so that a storm cannot hold up the rest.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&mut self, mut f: impl FnMut(Event)) -> io::Result<()> {
        for _ in 0..256 {
            match receive(&self.socket, &mut self.buffer) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    f(Event::Overrun);
                    continue;
                }
                Err(e) => return Err(e),
            }
            for_each_message(&self.buffer, |_, payload| match payload {
                Some(NetlinkPayload::InnerMessage(m)) => f(Event::Message(m)),
                Some(NetlinkPayload::Overrun(_)) => f(Event::Overrun),
                Some(_) => {}
                None => f(Event::Unread),
            });
        }
        Ok(())
    }
}

/// The next datagram from the kernel.
fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        match socket.recv_from(buffer, 0) {
            // Only the kernel has port 0.
            Ok((_, from)) if from.port_number() == 0 => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Gives `f` each message of a datagram, `None` for one that cannot be read.
fn for_each_message(
    mut datagram: &[u8],
    mut f: impl FnMut(&NetlinkHeader, Option<NetlinkPayload<RouteNetlinkMessage>>),
) {
    while let Some((bytes, rest)) = split_message(datagram) {
        datagram = rest;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
            Ok(m) => f(&m.header, Some(m.payload)),
            Err(e) => {
                tracing::trace!("netlink: {e}");
                let mut header = NetlinkHeader::default();
                header.sequence_number = u32::from_ne_bytes([8, 9, 10, 11].map(|at| bytes[at]));
                f(&header, None);
            }
        }
    }
}

/// A message, at least a header long, and what follows it.
fn split_message(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?) as usize;
    if len < 16 || len > datagram.len() {
        return None;
    }
    Some((&datagram[..len], &datagram[len.next_multiple_of(4).min(datagram.len())..]))
}

/// Whether the socket has something to read within the time.
fn readable(socket: &Socket, timeout_ms: i32) -> io::Result<bool> {
    let timeout =
        Timespec { tv_sec: (timeout_ms / 1000).into(), tv_nsec: (timeout_ms % 1000 * 1_000_000).into() };
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_whatever_their_lengths_say() {
        let message = |len: u32, fill: usize| [len.to_ne_bytes().to_vec(), vec![1; fill]].concat();
        let two = [message(18, 16), message(16, 12)].concat();
        let (first, rest) = split_message(&two).unwrap();
        assert_eq!((first.len(), rest.len()), (18, 16));
        let (second, rest) = split_message(rest).unwrap();
        assert_eq!((second.len(), rest.len()), (16, 0));
        for bad in
            [vec![], vec![0; 3], message(15, 12), message(0, 12), message(17, 12), message(u32::MAX, 60)]
        {
            assert!(split_message(&bad).is_none());
        }
        // A last message that is not padded.
        assert_eq!(split_message(&message(17, 13)).unwrap().1.len(), 0);
    }
}
