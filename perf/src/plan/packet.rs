//! How long a packet is: inside the tunnel, outside of it, and on the wire.

use super::shares::{Shares, Sizes};
use portcullis_datapath::{
    esp,
    wire::{ETHERNET, IPV4, IPV6, UDP},
};
use portcullis_sadb::Algorithm;

/// Octets behind an Ethernet frame's payload: the FCS (IEEE 802.3 §3.1.1).
const FCS: usize = 4;

/// The shortest Ethernet frame, FCS included (IEEE 802.3 §4A.4.2).
const SHORTEST: usize = 64;

/// Octets of time between frames: preamble, start of frame, and the gap (IEEE 802.3 §4A.4.2).
const BETWEEN: usize = 8 + 12;

/// What an ESP tunnel puts around a packet, beside the ESP header itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// Whether the outer header is IPv6.
    pub v6: bool,
    /// Whether ESP is in UDP (RFC 3948).
    pub udp: bool,
}

impl Tunnel {
    /// Octets of the outer IP packet around an inner one, which the datapath's own tables tell.
    pub fn outer_len(self, algorithm: Algorithm, inner: u32) -> u32 {
        let front = if self.v6 { IPV6 } else { IPV4 } + if self.udp { UDP } else { 0 };
        (front + esp::sealed_len(algorithm, inner as usize)) as u32
    }
}

/// Octets of the Ethernet frame around an IP packet, FCS included.
pub fn frame_len(packet: u32) -> u32 {
    (packet + (ETHERNET + FCS) as u32).max(SHORTEST as u32)
}

/// Octets that a frame takes of a link's time.
pub fn wire_len(packet: u32) -> u32 {
    frame_len(packet) + BETWEEN as u32
}

/// Octets of packets on average, at each place.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Lengths {
    /// Inner IP packets.
    pub inner: f64,
    /// Outer IP packets.
    pub outer: f64,
    /// Frames of inner packets.
    pub inner_frame: f64,
    /// Frames of outer packets.
    pub outer_frame: f64,
    /// What inner packets take of a link.
    pub inner_wire: f64,
    /// What outer packets take of a link.
    pub outer_wire: f64,
}

impl Lengths {
    /// Those of a mix of sizes and algorithms, which have nothing to do with each other.
    pub fn of(sizes: &Sizes, algorithms: &Shares<Algorithm>, tunnel: Tunnel) -> Lengths {
        let inner = |of: &dyn Fn(u32) -> u32| sizes.shares().mean(|octets| of(*octets) as f64);
        let outer = |of: &dyn Fn(u32) -> u32| {
            algorithms.mean(|a| sizes.shares().mean(|octets| of(tunnel.outer_len(*a, *octets)) as f64))
        };
        Lengths {
            inner: inner(&|n| n),
            outer: outer(&|n| n),
            inner_frame: inner(&frame_len),
            outer_frame: outer(&frame_len),
            inner_wire: inner(&wire_len),
            outer_wire: outer(&wire_len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_datapath::esp::OuterHeader;
    use portcullis_sadb::{Direction, Handling, Key, Mode, Name, Protocol, Sa, Spi, UdpEncap};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn sa(tunnel: Tunnel) -> Sa {
        let address = if tunnel.v6 { IpAddr::from(Ipv6Addr::LOCALHOST) } else { Ipv4Addr::LOCALHOST.into() };
        let udp = UdpEncap {
            src_port: 4500,
            dst_port: 4500,
            zero_checksum: false,
            follow_peer: false,
            keepalive_secs: 0,
        };
        Sa {
            spi: Spi(0x1000),
            direction: Direction::Outbound,
            protocol: Protocol::Esp,
            mode: Mode::Tunnel,
            algorithm: Algorithm::AES_GCM_128,
            src: address,
            dst: address,
            udp: tunnel.udp.then_some(udp),
            esn: true,
            replay_window: 1024,
            reqid: 1,
            worker: None,
            around: None,
            mtu: 0,
            handling: Handling::default(),
            name: Name::new("plan").unwrap(),
            key: Key::new(&[1; 20]).unwrap(),
        }
    }

    /// What the packet path itself says of the packets that it makes.
    #[test]
    fn packets_are_as_long_as_the_datapath_makes_them() {
        for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
            let tunnel = Tunnel { v6, udp };
            let outer = OuterHeader::new(&sa(tunnel));
            for inner in 28..=2000 {
                let len = tunnel.outer_len(Algorithm::AES_GCM_128, inner);
                assert_eq!(len as usize, outer.outer_len(inner as usize), "{tunnel:?} {inner}");
            }
        }
    }

    #[test]
    fn overhead_is_as_the_rfcs_say() {
        let len = |name, tunnel, inner| tunnel_len(name, tunnel, inner) - inner;
        let (v4, v6) = (Tunnel { v6: false, udp: false }, Tunnel { v6: true, udp: false });
        // Outer header, SPI and number, IV, padding to four octets with its trailer, ICV (RFC 4106 §5, RFC 4303 §2).
        assert_eq!(len("aes-gcm-128", v4, 64), 20 + 8 + 8 + 4 + 16);
        assert_eq!(len("aes-gcm-256", v6, 1400), 40 + 8 + 8 + 4 + 16);
        assert_eq!(len("aes-gcm-128-icv8", v4, 66), 20 + 8 + 8 + 2 + 8);
        assert_eq!(len("aes-gcm-128", Tunnel { v6: false, udp: true }, 64), 20 + 8 + 8 + 8 + 4 + 16);
        // Without an IV in the packet (RFC 8750 §3).
        assert_eq!(len("chacha20-poly1305-iiv", v4, 62), 20 + 8 + 2 + 16);
        // Whole blocks of 16 and an IV of one (RFC 3602 §2.4, §3); 64 and the trailer take five.
        assert_eq!(len("aes-cbc-128+hmac-sha2-256-128", v4, 64), 20 + 8 + 16 + 16 + 16);
        assert_eq!(len("aes-cbc-256+hmac-sha2-512-256", v4, 62), 20 + 8 + 16 + 2 + 32);
    }

    fn tunnel_len(name: &str, tunnel: Tunnel, inner: u32) -> u32 {
        tunnel.outer_len(Algorithm::by_name(Protocol::Esp, name).unwrap(), inner)
    }

    #[test]
    fn short_packets_are_filled_up_on_the_wire() {
        assert_eq!((frame_len(28), frame_len(46), frame_len(47)), (64, 64, 65));
        assert_eq!((wire_len(28), wire_len(1500)), (84, 1538));
        let (mix, algorithms) = (Sizes::parse("28:1,1400:3").unwrap(), Shares::only(Algorithm::AES_GCM_128));
        let lengths = Lengths::of(&mix, &algorithms, Tunnel { v6: false, udp: false });
        assert_eq!(lengths.inner, (28.0 + 3.0 * 1400.0) / 4.0);
        assert_eq!(lengths.inner_wire, (84.0 + 3.0 * 1438.0) / 4.0);
        // 28 and its trailer are 30 octets, which two more make 32.
        assert_eq!(lengths.outer, ((20 + 16 + 32 + 16) as f64 + 3.0 * (20 + 16 + 1404 + 16) as f64) / 4.0);
    }
}
