//! The sockets of IKE: UDP ports 500 and 4500 (RFC 7296 §2), IPv4 and IPv6, each packet with our address that it came to
//! or goes out from.

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        self, AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn,
        SockaddrIn6, SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use portcullis_ike::v2::output::Datagram;
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};
use thiserror::Error;

/// The port of IKE.
pub const IKE: u16 = 500;

/// The port of IKE and of ESP in UDP, behind NATs.
pub const NAT_T: u16 = 4500;

/// In front of IKE messages on port 4500, where ESP has its SPI (RFC 3948 §2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// Octets of a packet, at most.
const LONGEST: usize = 65_535;

/// Octets that the kernel keeps for us at each, so that a flood does not push out who is honest while we do something else.
const KEPT: usize = 8 << 20;

/// Messages that are taken of one on end, at most, while another has any.
const ON_END: usize = 16;

/// Why there is no socket.
#[derive(Debug, Error)]
#[error("cannot listen for IKE at UDP port {port} of {family}: {source}{}", hint(.source))]
pub struct SocketError {
    port: u16,
    family: &'static str,
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; end the other IKE daemon first",
        io::ErrorKind::PermissionDenied => "; run as root, or with CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    port: u16,
    is_v4: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Sockets {
    all: Vec<Socket>,
    /// Whose turn it is, and how many it has had on end.
    turn: (usize, usize),
    room: Vec<u8>,
}

impl Sockets {
    /// Opens them. Without IPv6 in the kernel, those of IPv4 alone.
    ///
    /// # Errors
    /// What the system says of one.
    pub fn open() -> Result<Sockets, SocketError> {
        let mut all = vec![];
        for port in [IKE, NAT_T] {
            for is_v4 in [true, false] {
                match Socket::open(port, is_v4) {
                    Ok(socket) => all.push(socket),
                    Err(Errno::EAFNOSUPPORT) if !is_v4 => {}
                    Err(errno) => {
                        let family = if is_v4 { "IPv4" } else { "IPv6" };
                        return Err(SocketError { port, family, source: errno.into() });
                    }
                }
            }
        }
        Ok(Sockets { all, turn: (0, 0), room: vec![0; LONGEST] })
    }

    /// What is to be waited for.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().map(|socket| socket.fd.as_fd())
    }

    /// The next IKE message, if there is one. What is no IKE at port 4500 is for nobody: the datapath takes what it knows.
    pub fn receive(&mut self) -> Option<Datagram> {
        let (mut at, mut taken) = self.turn;
        for _ in 0..=self.all.len() {
            if taken < ON_END
                && let Some(datagram) = self.all[at].receive(&mut self.room)
            {
                self.turn = (at, taken + 1);
                return Some(datagram);
            }
            (at, taken) = ((at + 1) % self.all.len(), 0);
        }
        self.turn = (at, taken);
        None
    }

    /// Sends a message.
    ///
    /// # Errors
    /// What the system says: it is as lost as one on its way.
    pub fn send(&self, datagram: &Datagram) -> io::Result<()> {
        let Datagram { local, peer, octets, dscp } = datagram;
        let fits = |socket: &&Socket| socket.port == local.port() && socket.is_v4 == local.is_ipv4();
        let socket = self.all.iter().find(fits).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let parts = [IoSlice::new(&NON_ESP_MARKER), IoSlice::new(octets)];
        let parts = if socket.port == NAT_T { &parts[..] } else { &parts[1..] };
        socket.send(local.ip(), *peer, parts, *dscp)
    }
}

impl Socket {
    fn open(port: u16, is_v4: bool) -> Result<Socket, Errno> {
        let family = if is_v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(family, SockType::Datagram, flags, None)?;
        // Without the right to more, as much as there may be.
        let _ =
            setsockopt(&fd, sockopt::RcvBufForce, &KEPT).or_else(|_| setsockopt(&fd, sockopt::RcvBuf, &KEPT));
        if is_v4 {
            setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?;
            bind(
                fd.as_raw_fd(),
                &SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)),
            )?;
        } else {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?;
            let any = std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
            bind(fd.as_raw_fd(), &SockaddrIn6::from(any))?;
        }
        Ok(Socket { fd, port, is_v4 })
    }

    /// The next IKE message. At port 4500 there is more than that.
    fn receive(&self, room: &mut [u8]) -> Option<Datagram> {
        let marker = if self.port == NAT_T { &NON_ESP_MARKER[..] } else { &[] };
        for _ in 0..ON_END {
            let (len, local, peer) = self.receive_any(room)?;
            if let (Some(local), Some(octets)) = (local, room[..len].strip_prefix(marker)) {
                let local = SocketAddr::new(local, self.port);
                return Some(Datagram { local, peer, octets: octets.to_vec(), dscp: 0 });
            }
        }
        None
    }

    /// The next packet: how long it is, our address if the kernel says it, and the peer's.
    fn receive_any(&self, room: &mut [u8]) -> Option<(usize, Option<IpAddr>, SocketAddr)> {
        let mut control = cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(room)];
        let flags = MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrStorage>(self.fd.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let peer = message.address?;
        let peer = match (peer.as_sockaddr_in(), peer.as_sockaddr_in6()) {
            (Some(v4), _) => SocketAddr::new(v4.ip().into(), v4.port()),
            (_, Some(v6)) => SocketAddr::new(v6.ip().into(), v6.port()),
            _ => return None,
        };
        let local = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(IpAddr::V4(u32::from_be(info.ipi_addr.s_addr).into()))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(info.ipi6_addr.s6_addr.into())),
            _ => None,
        });
        Some((message.bytes, local, peer))
    }

    fn send(&self, local: IpAddr, peer: SocketAddr, parts: &[IoSlice<'_>], dscp: u8) -> io::Result<()> {
        // RFC 2474 §3: in front of the two bits of ECN.
        let class = dscp << 2;
        let (fd, flags) = (self.fd.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        match (local, peer) {
            (IpAddr::V4(local), SocketAddr::V4(peer)) => {
                let source = libc::in_addr { s_addr: local.to_bits().to_be() };
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: source,
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let to = SockaddrIn::from(peer);
                let about = [ControlMessage::Ipv4PacketInfo(&info), ControlMessage::Ipv4Tos(&class)];
                sendmsg(fd, parts, &about, flags, Some(&to))?;
            }
            (IpAddr::V6(local), SocketAddr::V6(peer)) => {
                let source = libc::in6_addr { s6_addr: local.octets() };
                let info = libc::in6_pktinfo { ipi6_addr: source, ipi6_ifindex: 0 };
                let to = SockaddrIn6::from(peer);
                let class = i32::from(class);
                let about = [ControlMessage::Ipv6PacketInfo(&info), ControlMessage::Ipv6TClass(&class)];
                sendmsg(fd, parts, &about, flags, Some(&to))?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, time::Duration};

    /// A socket of each family, each at a port that is free.
    fn sockets() -> Sockets {
        let free = |is_v4| {
            let mut socket = Socket::open(0, is_v4).unwrap();
            let of: SockaddrStorage = socket::getsockname(socket.fd.as_raw_fd()).unwrap();
            socket.port = match (of.as_sockaddr_in(), of.as_sockaddr_in6()) {
                (Some(v4), _) => v4.port(),
                (_, v6) => v6.unwrap().port(),
            };
            socket
        };
        Sockets { all: vec![free(true), free(false)], turn: (0, 0), room: vec![0; LONGEST] }
    }

    // RFC 7296 §2.11
    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        let mut sockets = sockets();
        for asked in ["127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap()) {
            let port = sockets.all[usize::from(asked.is_ipv6())].port;
            let local = SocketAddr::new(asked, port);
            let peer = UdpSocket::bind((if asked.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            peer.send_to(b"a request", local).unwrap();
            let request = sockets.receive().unwrap();
            let came = (request.local, request.peer, &request.octets[..]);
            assert_eq!(came, (local, peer.local_addr().unwrap(), &b"a request"[..]));
            sockets.send(&Datagram { octets: b"an answer".to_vec(), ..request }).unwrap();
            let mut room = [0; 100];
            let (len, from) = peer.recv_from(&mut room).unwrap();
            assert_eq!((&room[..len], from), (&b"an answer"[..], local));
        }
        assert_eq!(sockets.receive().map(|datagram| datagram.octets), None);
    }
}
