//! Whether there is a NAT between the ends (RFC 7296 §2.23): each says a hash of the addresses that it sees itself.

use crate::{
    crypto::keys::Spis,
    message::{Notify, NotifyType, Payload, Payloads},
};
use sha1::{Digest, Sha1};
use std::net::{IpAddr, SocketAddr};

/// Who is behind a NAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Nat {
    /// We are: the peer sees another address of ours than we have.
    pub is_here: bool,
    /// The peer is.
    pub is_there: bool,
}

impl Nat {
    /// By the notifications of the peer, whose message came from `peer` to `local`. `None` if it does not say.
    pub fn detect(payloads: &Payloads, spis: Spis, local: SocketAddr, peer: SocketAddr) -> Option<Nat> {
        let said = |kind| payloads.notifies(kind).map(|notify| &notify.data);
        let has = |kind, address| said(kind).any(|hash| hash[..] == detection(spis, address));
        let (source, destination) =
            (NotifyType::NAT_DETECTION_SOURCE_IP, NotifyType::NAT_DETECTION_DESTINATION_IP);
        said(source).next().and(said(destination).next())?;
        // RFC 7296 §2.23: of sources there may be several, one for each address that the peer has.
        Some(Nat { is_here: !has(destination, local), is_there: !has(source, peer) })
    }

    /// Whether ESP must go in UDP.
    pub fn is_any(self) -> bool {
        self.is_here || self.is_there
    }
}

/// What an end says of the addresses that it sends from and to. Where it says that it sends from none, the peer finds a
/// NAT, and ESP goes in UDP.
pub fn notifies(spis: Spis, local: SocketAddr, peer: SocketAddr, forces_udp: bool) -> [Payload; 2] {
    let from = if forces_udp { SocketAddr::new(local.ip(), 0) } else { local };
    let notify = |kind, address| Payload::Notify(Notify::new(kind, &detection(spis, address)));
    [
        notify(NotifyType::NAT_DETECTION_SOURCE_IP, from),
        notify(NotifyType::NAT_DETECTION_DESTINATION_IP, peer),
    ]
}

/// Whether a NO_NATS_ALLOWED notification has the addresses and ports that its message came from and to (RFC 4555 §3.9).
pub fn is_none(data: &[u8], local: SocketAddr, peer: SocketAddr) -> bool {
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let ports = [peer.port().to_be_bytes(), local.port().to_be_bytes()].concat();
    data == [octets(peer.ip()), octets(local.ip()), ports].concat()
}

/// SHA-1 of both SPIs, an address and a port. In a request of IKE_SA_INIT, SPIr is zero.
fn detection(spis: Spis, address: SocketAddr) -> [u8; 20] {
    let mut hash = Sha1::new();
    hash.update(spis.initiator.octets());
    hash.update(spis.responder.octets());
    match address.ip() {
        IpAddr::V4(ip) => hash.update(ip.octets()),
        IpAddr::V6(ip) => hash.update(ip.octets()),
    }
    hash.update(address.port().to_be_bytes());
    hash.finalize().into()
}

crate::kept::keep!(Nat { is_here, is_there });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::IkeSpi;

    const SPIS: Spis = Spis { initiator: IkeSpi(0x0101_0101_0101_0101), responder: IkeSpi::NONE };

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_nat_is_where_addresses_or_ports_differ() {
        for (one, other, elsewhere) in [
            ("192.0.2.1:500", "198.51.100.1:500", "203.0.113.7:40000"),
            ("[2001:db8::1]:500", "[2001:db8::2]:500", "[2001:db8::2]:501"),
        ] {
            let (one, other, elsewhere) = (at(one), at(other), at(elsewhere));
            let said = Payloads(notifies(SPIS, one, other, false).into());
            let found = |local, peer| Nat::detect(&said, SPIS, local, peer).unwrap();
            assert_eq!(found(other, one), Nat::default());
            assert_eq!(found(other, elsewhere), Nat { is_here: false, is_there: true });
            assert_eq!(found(elsewhere, one), Nat { is_here: true, is_there: false });
            let forced = Payloads(notifies(SPIS, one, other, true).into());
            assert!(Nat::detect(&forced, SPIS, other, one).unwrap().is_there);
        }
    }

    #[test]
    fn who_says_nothing_knows_no_nat() {
        let [source, destination] = notifies(SPIS, at("192.0.2.1:500"), at("198.51.100.1:500"), false);
        for said in [vec![], vec![source], vec![destination]] {
            assert_eq!(Nat::detect(&Payloads(said), SPIS, at("[::1]:1"), at("[::1]:1")), None);
        }
    }
}
