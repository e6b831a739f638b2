//! ESP in UDP, which gets through NATs (RFC 3948), and where its peer is.
//!
//! The body of an SA does not change between publish and retire, and when a NAT gives the peer another address or port,
//! its keys, sequence numbers and replay window go on. So the place to which a peer has moved is not in the body: it is
//! an [`Endpoint`] beside the slot, which iked changes and which workers look at when the version of the SAD has changed.
//! It is the outer destination of an outbound SA, and the outer source of an inbound one.

use crate::{
    SadbError,
    layout::shared,
    sa::{address, address_words},
    sync::{AtomicU64, Ordering, fence},
};
use std::{fmt, net::IpAddr, net::SocketAddr};

/// Words of an endpoint.
pub(crate) const ENDPOINT_WORDS: usize = 3;

/// UDP encapsulation of an SA's packets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UdpEncap {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Inbound: the peer may be behind a NAT, and is followed to where its newest packet came from (RFC 7296 §2.23).
    pub follow_peer: bool,
    /// Outbound: after so many seconds without a packet a NAT-keepalive is sent (RFC 3948 §4); 0 is never.
    pub keepalive_secs: u16,
    /// Outbound: over IPv6 the checksum is zero (RFC 6935 §5), as it always is over IPv4.
    pub zero_checksum: bool,
}

impl UdpEncap {
    /// Between two ports, and nothing else is asked for.
    pub const fn between(src_port: u16, dst_port: u16) -> UdpEncap {
        UdpEncap { src_port, dst_port, follow_peer: false, keepalive_secs: 0, zero_checksum: false }
    }

    /// Source and destination port.
    pub fn ports(&self) -> (u16, u16) {
        (self.src_port, self.dst_port)
    }

    pub(crate) fn to_word(self) -> u64 {
        self.src_port as u64
            | (self.dst_port as u64) << 16
            | (self.keepalive_secs as u64) << 32
            | (self.follow_peer as u64) << 48
            | (self.zero_checksum as u64) << 49
    }

    pub(crate) fn from_word(word: u64) -> UdpEncap {
        UdpEncap {
            src_port: word as u16,
            dst_port: (word >> 16) as u16,
            keepalive_secs: (word >> 32) as u16,
            follow_peer: word >> 48 & 1 == 1,
            zero_checksum: word >> 49 & 1 == 1,
        }
    }
}

/// Where a peer is: its outer address, and its port of ESP in UDP. Always one that packets can be sent to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    addr: IpAddr,
    port: u16,
}

impl Endpoint {
    /// `None` for what is no place of one peer: the addresses of groups, of nobody and of oneself, and port 0.
    pub fn new(addr: IpAddr, port: u16) -> Option<Endpoint> {
        let is_broadcast = matches!(addr, IpAddr::V4(a) if a.is_broadcast());
        let is_one = !addr.is_unspecified() && !addr.is_multicast() && !addr.is_loopback() && !is_broadcast;
        (is_one && port != 0).then_some(Endpoint { addr, port })
    }

    /// The outer address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// The UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn to_words(self) -> [u64; ENDPOINT_WORDS] {
        let [high, low] = address_words(self.addr);
        [high, low, self.port as u64 | if self.addr.is_ipv4() { 4 << 16 } else { 6 << 16 }]
    }

    pub(crate) fn from_words(words: &[u64; ENDPOINT_WORDS]) -> Option<Endpoint> {
        let v4 = match words[2] >> 16 {
            4 => true,
            6 => false,
            _ => return None,
        };
        Endpoint::new(address(v4, &words[..2]), words[2] as u16)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.addr, self.port).fmt(f)
    }
}

shared! {
    /// The peer's place, beside a slot of the SAD. The first word has the port, the kind of address and a version; there is
    /// room for two addresses, and the version says by its lowest bit which is it: the writer fills the other one and then
    /// changes the word, so that whenever it dies one whole place stands there.
    ///
    /// ```text
    /// writer: (Release fence) -> the other address -> (Release) word of the next version
    /// reader: word (Acquire) -> its address -> (Acquire fence) word again, the same? -> use them
    /// ```
    #[repr(C)]
    pub(crate) struct EndpointSlot {
        /// Port in the lowest 16 bits; 4, 6, or 0 where the place is the one in the SA's body, in 8; the version.
        word: AtomicU64,
        addresses: [[AtomicU64; 2]; 2],
    }
}

const VERSION_SHIFT: u32 = 24;

#[cfg(not(loom))]
const _: () = assert!(size_of::<EndpointSlot>() == 40);

impl EndpointSlot {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> EndpointSlot {
        let zero = |_| AtomicU64::new(0);
        EndpointSlot {
            word: AtomicU64::new(0),
            addresses: std::array::from_fn(|_| std::array::from_fn(zero)),
        }
    }

    /// Another one for each [`EndpointSlot::set`].
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.word.load(Ordering::Acquire) >> VERSION_SHIFT // pairs with the Release in `set`
    }

    /// The place, if it is not where the SA's body says.
    pub(crate) fn get(&self) -> Option<Endpoint> {
        loop {
            let word = self.word.load(Ordering::Acquire); // pairs with the Release in `set`
            let address = &self.addresses[(word >> VERSION_SHIFT) as usize & 1];
            let [high, low] = std::array::from_fn(|i| address[i].load(Ordering::Relaxed));
            // Pairs with the Release fence in `set`: who read a word of the next but one sees that there was a next.
            fence(Ordering::Acquire);
            if self.word.load(Ordering::Relaxed) == word {
                return Endpoint::from_words(&[high, low, word & ((1 << VERSION_SHIFT) - 1)]);
            }
        }
    }

    /// Writer: says where the peer is now; `None` is where the SA's body says.
    pub(crate) fn set(&self, to: Option<Endpoint>) {
        let next = (self.word.load(Ordering::Relaxed) >> VERSION_SHIFT) + 1;
        // Orders the word of before in front of an address that readers of the one before that may still be in.
        fence(Ordering::Release);
        let [high, low, place] = to.map_or([0; ENDPOINT_WORDS], Endpoint::to_words);
        for (to, from) in self.addresses[next as usize & 1].iter().zip([high, low]) {
            to.store(from, Ordering::Relaxed);
        }
        self.word.store(next << VERSION_SHIFT | place, Ordering::Release); // pairs with the Acquire in `version`, `get`
    }
}

/// Refuses what cannot be a place of the peer of an SA between these.
pub(crate) fn check_endpoint(udp: Option<UdpEncap>, peer: IpAddr, to: Endpoint) -> Result<(), SadbError> {
    if udp.is_none() {
        return Err(SadbError::Invalid {
            field: "endpoint of an SA without UDP encapsulation, port",
            value: to.port.into(),
        });
    }
    if peer.is_ipv4() != to.addr.is_ipv4() {
        return Err(SadbError::Invalid { field: "family of endpoint", value: to.addr.is_ipv4().into() });
    }
    Ok(())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_hold_all_of_it() {
        for (addr, port) in [("192.0.2.1", 1), ("255.255.255.254", u16::MAX), ("2001:db8::ffff:1", 4500)] {
            let endpoint = Endpoint::new(addr.parse().unwrap(), port).unwrap();
            assert_eq!(Endpoint::from_words(&endpoint.to_words()), Some(endpoint));
        }
        for flags in [(false, false), (true, false), (false, true)] {
            let (follow_peer, zero_checksum) = flags;
            let udp = UdpEncap {
                follow_peer,
                zero_checksum,
                keepalive_secs: 65_535,
                ..UdpEncap::between(1, 65_535)
            };
            assert_eq!(UdpEncap::from_word(udp.to_word()), udp);
        }
    }

    #[test]
    fn nobody_is_at_these() {
        for (addr, port) in [
            ("0.0.0.0", 4500),
            ("224.0.0.1", 4500),
            ("255.255.255.255", 4500),
            ("127.0.0.1", 4500),
            ("192.0.2.1", 0),
            ("::", 4500),
            ("ff02::1", 4500),
            ("::1", 4500),
        ] {
            assert_eq!(Endpoint::new(addr.parse().unwrap(), port), None, "{addr} {port}");
        }
        assert_eq!(Endpoint::from_words(&[0; 3]), None);
    }
}
