//! What an engine wants done.

use crate::{
    child::{ChildSa, Install},
    crypto::key_log::KeyLog,
    ike_sa::{IkeSa, IkeSaId, Path},
    job::Job,
    nat::Nat,
    v2::stranger::Stranger,
};
use std::net::{IpAddr, SocketAddr};

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Output {
    /// A message is to be sent. From port 4500 it has the non-ESP marker in front (RFC 3948 §2.2).
    Send(Datagram),
    /// Something takes long: any thread may do it, and say what came of it.
    Job(JobId, Job),
    /// The keys of an IKE SA or an ISAKMP SA, where the configuration says so.
    Keys(Box<KeyLog>),
    /// Child SAs.
    Child(ChildChange),
    /// For logs, and for whoever waits.
    Event(IkeSaId, Event),
    /// A peer would begin an IKE SA, and there is none for it.
    Refused(Box<Stranger>),
    /// An IKE SA is gone, behind all that is to be told of it.
    Closed(Box<dyn IkeSa>),
}

/// Which job of which IKE SA. There is one at a time for what it asks, and one for what it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct JobId {
    /// The IKE SA.
    pub ike_sa: IkeSaId,
    /// Whether it is for the peer's request.
    pub answers: bool,
}

/// An IKE message between two addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// From the IKE header on.
    pub octets: Vec<u8>,
    /// The DSCP of one that is sent.
    pub dscp: u8,
}

/// What becomes of child SAs in the datapath. Each is named by our SPI.
#[derive(Debug)]
pub enum ChildChange {
    /// A new one.
    Install(Box<Install>),
    /// The peer has this one: what is sent goes by it, and no more by what it replaces.
    Use(u32),
    /// Its packets go between other addresses.
    Move(Move),
    /// It is gone.
    Remove(Box<ChildSa>),
}

/// Where the packets of a child SA go from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// Our SPI.
    pub spi_in: u32,
    /// Our outer address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Whether ESP goes in UDP between these ports.
    pub is_in_udp: bool,
    /// Who is behind a NAT.
    pub nat: Nat,
}

/// What happened to an IKE SA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It is there, and the peer is who it says.
    Established,
    /// The peer has given us these addresses, and told us of these servers of names.
    Configured(Vec<IpAddr>, Vec<IpAddr>),
    /// Who the peer is, and the addresses that we have given to it, with their pools.
    Gave(String, Vec<(String, IpAddr)>),
    /// A child SA is there, by its name and our SPI.
    ChildUp(String, u32),
    /// The same, of one that takes the place of another, by our SPIs: the old one and the new.
    ChildReplaced(String, u32, u32),
    /// A child SA is for less than what it took the place of, by its name and our SPI: what that was for, and what this is.
    ChildNarrowed(String, u32, String, String),
    /// There is no child SA, and why.
    ChildFailed(String, String),
    /// A child SA is gone.
    ChildDown(String, u32),
    /// Messages, and packets of its child SAs, go between other addresses.
    Moved(Path),
    /// The peer does not go to other addresses, and why.
    MoveFailed(String),
    /// This IKE SA has taken the place of another.
    Replaced(IkeSaId),
    /// It is begun to take the place of another, by a new authentication.
    Reauthenticating(IkeSaId),
    /// The peer sends us to another gateway, with which this IKE SA is begun.
    Redirected(IkeSaId, String),
    /// The peer does not take our ticket: all is exchanged and proven anew.
    NotResumed,
    /// There is no IKE SA in its place yet, and why.
    RekeyFailed(String),
    /// It is gone, and why.
    Closed(String),
}

crate::kept::keep!(Datagram { local, peer, octets, dscp });
crate::kept::keep!(Move { spi_in, local, peer, is_in_udp, nat });
