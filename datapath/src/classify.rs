//! What a received frame is: ESP for an SA, clear traffic for the policies, or nothing for us.
//!
//! The XDP program has decided the same from fewer bytes (`portcullis_ebpf::steer`); a worker trusts none of
//! that and looks again. A property test shows that the two agree.

use crate::{
    drop::DropReason,
    wire::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, Place, protocol},
};

/// UDP port of ESP in UDP (RFC 3948 §2).
const NAT_T_PORT: u16 = 4500;

/// What a frame is. Offsets are from its first octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// ESP, perhaps in UDP.
    Esp {
        /// The SPI.
        spi: u32,
        /// The sequence number, as on the wire.
        seq_lo: u32,
        /// Where the outer IP header starts.
        l3: u8,
        /// Where the ESP header starts, from the outer IP header.
        esp: u16,
        /// Whether it is in UDP.
        udp: bool,
        /// Type of service of the outer header.
        tos: u8,
        /// Length of the outer packet.
        len: u16,
    },
    /// AH.
    Ah {
        /// The SPI.
        spi: u32,
    },
    /// A fragment of a protected packet.
    Fragment,
    /// Any other IP packet.
    Clear {
        /// Where the IP header starts.
        l3: u8,
    },
    /// Not for a worker: ARP and what else is not IP.
    Kernel,
    /// Cut short, or wrong in itself.
    Bad(DropReason),
}

/// Classifies an Ethernet frame.
pub fn classify(frame: &[u8]) -> Class {
    let (mut class, mut ip) = (Class::Kernel, Ip::NONE);
    parse(frame, &mut class, &mut ip);
    class
}

/// Classifies an Ethernet frame, and parses the IP header in it. What is found is written where it will be read,
/// field by field: the CPU waits for what is written in small pieces and read as a whole.
#[inline]
pub fn parse(frame: &[u8], class: &mut Class, ip: &mut Ip) {
    let (ethertype, l3) = match wire::ethernet(frame) {
        Ok(found) => found,
        Err(reason) => return *class = Class::Bad(reason),
    };
    let packet = &frame[l3..];
    let version = packet.first().map_or(0, |b| b >> 4);
    let parsed = match (ethertype, version) {
        (ETHERTYPE_IPV4, 4) => ip.parse_v4(packet),
        (ETHERTYPE_IPV6, 6) => ip.parse_v6(packet),
        (ETHERTYPE_IPV4 | ETHERTYPE_IPV6, _) => Err(DropReason::Malformed),
        _ => return *class = Class::Kernel,
    };
    match parsed {
        Ok(()) => by_protocol(&packet[..ip.len], ip, l3, class),
        Err(reason) => *class = Class::Bad(reason),
    }
}

#[inline]
fn by_protocol(packet: &[u8], ip: &Ip, l3: usize, class: &mut Class) {
    if ip.is_v4() {
        let header = match packet[0] & 15 {
            5 => &packet[..wire::IPV4],
            words => &packet[..words as usize * 4],
        };
        if !wire::ipv4_checksum_ok(header) {
            return *class = Class::Bad(DropReason::BadChecksum); // RFC 1812 §5.2.2
        }
    }
    let at = ip.payload;
    match ip.protocol {
        protocol::ESP | protocol::AH if ip.place != Place::Whole => *class = Class::Fragment,
        protocol::ESP => *class = esp(packet, ip, l3, at, false),
        protocol::AH if packet.len() < at + 12 => *class = Class::Bad(DropReason::Malformed),
        protocol::AH => *class = Class::Ah { spi: wire::be32(packet, at + 4) },
        protocol::UDP if ip.place != Place::Later => *class = udp(packet, ip, l3),
        _ => *class = Class::Clear { l3: l3 as u8 },
    }
}

/// ESP in UDP, IKE, a keepalive, or any other datagram (RFC 3948 §2).
#[inline]
fn udp(packet: &[u8], ip: &Ip, l3: usize) -> Class {
    let clear = Class::Clear { l3: l3 as u8 };
    let payload = ip.payload + wire::UDP;
    if packet.len() < payload {
        return clear;
    }
    match &packet[payload..] {
        // IKE and keepalives (RFC 3948 §2.2, §2.3) between protected hosts are packets as all others; those
        // to the gateway itself the XDP program has left to the kernel.
        _ if wire::be16(packet, ip.payload + 2) != NAT_T_PORT => clear,
        [0, 0, 0, 0, ..] => clear,
        [_, _, _, _, ..] if ip.place == Place::First => Class::Fragment,
        // RFC 768: its length is that of the rest of the packet.
        _ if wire::be16(packet, ip.payload + 4) as usize != packet.len() - ip.payload => {
            Class::Bad(DropReason::Malformed)
        }
        [_, _, _, _, ..] => esp(packet, ip, l3, payload, true),
        _ => clear,
    }
}

#[inline]
fn esp(packet: &[u8], ip: &Ip, l3: usize, at: usize, udp: bool) -> Class {
    if packet.len() < at + wire::ESP {
        return Class::Bad(DropReason::Malformed);
    }
    Class::Esp {
        spi: wire::be32(packet, at),
        seq_lo: wire::be32(packet, at + 4),
        l3: l3 as u8,
        esp: at as u16,
        udp,
        tos: ip.tos,
        len: ip.len as u16,
    }
}

#[cfg(test)]
mod tests;
