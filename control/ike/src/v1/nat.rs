//! NATs between the ends: NAT-D payloads, and what ESP in UDP is called (RFC 3947).

use super::vendor::NatT;
use crate::{
    crypto::{keys::Spis, transform::Prf},
    message::isakmp::{Chain, Payload},
    nat::Nat,
};
use portcullis_sadb::Mode;
use std::net::{IpAddr, SocketAddr};

/// HASH(CKY-I | CKY-R | IP | Port) (RFC 3947 §3.2).
fn hash(prf: Prf, spis: Spis, address: SocketAddr) -> Vec<u8> {
    let (i, r, port) = (spis.initiator.octets(), spis.responder.octets(), address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => prf.digest(&[&i, &r, &ip.octets(), &port]),
        IpAddr::V6(ip) => prf.digest(&[&i, &r, &ip.octets(), &port]),
    }
}

/// What an end says of the addresses that it sends to and from. Where it says that it sends from none, the peer finds a NAT, and
/// ESP goes in UDP.
pub(super) fn payloads(
    prf: Prf,
    spis: Spis,
    (local, peer): (SocketAddr, SocketAddr),
    nat_t: NatT,
    forces_udp: bool,
) -> [Payload; 2] {
    let from = if forces_udp { SocketAddr::new(local.ip(), 0) } else { local };
    // RFC 3947 §3.2: the first is of where it is sent to.
    [peer, from].map(|address| Payload::NatDetection(hash(prf, spis, address), nat_t == NatT::Draft))
}

/// By the payloads of the peer, whose message came from `peer` to `local`. `None` if it does not say.
pub(super) fn detect(
    chain: &Chain,
    prf: Prf,
    spis: Spis,
    (local, peer): (SocketAddr, SocketAddr),
) -> Option<Nat> {
    let mut said = chain.payloads.iter().filter_map(|payload| match payload {
        Payload::NatDetection(hash, _) => Some(hash),
        _ => None,
    });
    let of_us = said.next()?;
    let mut of_peer = said.peekable();
    of_peer.peek()?;
    let (ours, theirs) = (hash(prf, spis, local), hash(prf, spis, peer));
    Some(Nat { is_here: *of_us != ours, is_there: of_peer.all(|hash| *hash != theirs) })
}

/// How child SAs may be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Encapsulation {
    /// ESP and AH as they are.
    None,
    /// ESP in UDP.
    Udp(NatT),
}

impl Encapsulation {
    /// Its number for a mode (RFC 2407 §4.5, RFC 3947 §5.1).
    pub fn id(self, mode: Mode) -> u16 {
        match (self, mode) {
            (Encapsulation::None, Mode::Tunnel) => 1,
            (Encapsulation::None, Mode::Transport) => 2,
            (Encapsulation::Udp(NatT::Rfc), Mode::Tunnel) => 3,
            (Encapsulation::Udp(NatT::Rfc), Mode::Transport) => 4,
            (Encapsulation::Udp(NatT::Draft), Mode::Tunnel) => 61443,
            (Encapsulation::Udp(NatT::Draft), Mode::Transport) => 61444,
        }
    }

    /// What of a peer is taken as it: of ESP in UDP, either number.
    pub fn taken(self, mode: Mode) -> [u16; 2] {
        match self {
            Encapsulation::None => [self.id(mode); 2],
            Encapsulation::Udp(_) => [NatT::Rfc, NatT::Draft].map(|nat_t| Encapsulation::Udp(nat_t).id(mode)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{IkeSpi, isakmp};

    const SPIS: Spis = Spis { initiator: IkeSpi(1), responder: IkeSpi(2) };

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    // RFC 3947 §3.2
    #[test]
    fn a_nat_is_where_addresses_or_ports_differ() {
        for (one, other, elsewhere) in [
            ("192.0.2.1:500", "198.51.100.1:500", "203.0.113.7:40000"),
            ("[2001:db8::1]:500", "[2001:db8::2]:500", "[2001:db8::2]:501"),
        ] {
            let (one, other, elsewhere) = (at(one), at(other), at(elsewhere));
            let prf = Prf::HmacSha256;
            let chain = |payloads: &[Payload]| {
                let (first, octets) = isakmp::emit(payloads).unwrap();
                Chain::parse(first, &octets, false).unwrap()
            };
            let said = chain(&payloads(prf, SPIS, (one, other), NatT::Rfc, false));
            let found = |local, peer| detect(&said, prf, SPIS, (local, peer)).unwrap();
            assert_eq!(found(other, one), Nat::default());
            assert_eq!(found(other, elsewhere), Nat { is_here: false, is_there: true });
            assert_eq!(found(elsewhere, one), Nat { is_here: true, is_there: false });
            let forced = chain(&payloads(prf, SPIS, (one, other), NatT::Draft, true));
            assert!(detect(&forced, prf, SPIS, (other, one)).unwrap().is_there);
            for silent in [&said.payloads[..0], &said.payloads[..1]] {
                assert_eq!(detect(&chain(silent), prf, SPIS, (other, one)), None);
            }
        }
    }
}
