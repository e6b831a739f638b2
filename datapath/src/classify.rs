//! What a received frame is: ESP for an SA, clear traffic for the policies, or nothing for us.
//!
//! The XDP program has decided the same from fewer bytes (`portcullis_ebpf::steer`); a worker trusts none of
//! that and looks again. A property test shows that the two agree.

use crate::{
    batch::{Batch, Meta, Stage},
    drop::DropReason,
    frame::Frame,
    general::{Why, icmp},
    policy::FlowCache,
    sa::SaTable,
    wire::{self, ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, Place, UdpPorts, protocol},
};
use portcullis_ebpf::worker_of_spi;

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
    /// That a packet was too big for a router on its way (RFC 4301 §8.2).
    TooBig {
        /// The SPI that the packet had.
        spi: u32,
    },
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

/// Classifies an Ethernet frame, where these are our UDP ports of ESP in UDP.
pub fn classify(frame: &[u8], ports: &UdpPorts) -> Class {
    let (mut ip, mut esp) = (Ip::NONE, Esp::NONE);
    let is_plain = is_plain(frame, &mut ip);
    let (kind, l3) = parse(frame, is_plain, ports, (&mut ip, &mut esp));
    let Esp { spi, seq_lo, at, udp } = esp;
    match kind {
        Kind::Esp => Class::Esp { spi, seq_lo, l3, esp: at, udp, tos: ip.tos, len: ip.len() as u16 },
        Kind::Ah => Class::Ah { spi },
        Kind::Fragment => Class::Fragment,
        Kind::TooBig => Class::TooBig { spi },
        Kind::Clear => Class::Clear { l3 },
        Kind::Kernel => Class::Kernel,
        Kind::Bad(reason) => Class::Bad(reason),
    }
}

/// What is known of a packet that is for an SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Esp {
    /// The SPI.
    pub spi: u32,
    /// The sequence number, as on the wire.
    pub seq_lo: u32,
    /// Where the ESP header starts, from the outer IP header.
    pub at: u16,
    /// Whether it is in UDP.
    pub udp: bool,
}

impl Esp {
    /// What stands where there is no ESP.
    pub const NONE: Esp = Esp { spi: 0, seq_lo: 0, at: 0, udp: false };
}

/// A [`Class`], without what else is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Esp,
    Ah,
    Fragment,
    TooBig,
    Clear,
    Kernel,
    Bad(DropReason),
}

/// Frames that classification looks ahead.
const AHEAD: usize = 8;

/// Whether any frames are `Inbound` now, and whether any are `Outbound`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// To be opened, or another worker's.
    pub inbound: bool,
    /// For the policies.
    pub outbound: bool,
}

/// Takes the frames of stage `Received` to `Inbound` or `Outbound`, from their IP headers to the ends of their IP
/// packets; or to the worker that owns their SA; or drops them. Asks memory for what the next hop looks at.
pub fn run(batch: &mut Batch, who: (u32, u32), flows: &FlowCache, sas: &SaTable) -> Found {
    let (mut found, ports) = (Found::default(), *sas.udp_ports());
    let frames = &mut batch.frames[..];
    let metas = &mut batch.metas[..frames.len()];
    for i in 0..frames.len() {
        if let Some(frame) = frames.get(i + AHEAD) {
            frame.prefetch();
        }
        let (frame, meta) = (&mut frames[i], &mut metas[i]);
        if meta.stage != Stage::Received {
            continue;
        }
        let is_plain = is_plain(frame.bytes(), &mut meta.ip);
        // Most are one of two, and have a way of their own.
        if is_plain && is_clear(&meta.ip, &ports) {
            meta.stage = clear(flows, frame, meta, ETHERNET as u8);
            found.outbound = true;
            continue;
        }
        if is_plain && meta.ip.protocol() == protocol::ESP {
            let packet = &frame.bytes()[ETHERNET..ETHERNET + meta.ip.len()];
            if meta.esp.parse(packet, wire::IPV4, false) == Kind::Esp {
                meta.stage = esp(who, sas, frame, meta, ETHERNET as u8);
                found.inbound = true;
                continue;
            }
        }
        let (kind, l3) = parse(frame.bytes(), is_plain, &ports, (&mut meta.ip, &mut meta.esp));
        meta.stage = match kind {
            Kind::Esp => {
                found.inbound = true;
                esp(who, sas, frame, meta, l3)
            }
            Kind::Clear if meta.ip.place != Place::Whole && flows.select_ports() => {
                general(frame, meta, l3, Why::Received)
            }
            // What is about an SA of ours may have been handed on, until it is where the SA is.
            Kind::TooBig => general(frame, meta, l3, Why::TooBig),
            Kind::Clear => {
                found.outbound = true;
                clear(flows, frame, meta, l3)
            }
            Kind::Ah => ah(who, frame, meta, l3),
            Kind::Fragment => general(frame, meta, l3, Why::Received),
            Kind::Kernel => Stage::Drop(DropReason::LocalDelivery),
            Kind::Bad(reason) => Stage::Drop(reason),
        };
    }
    found
}

/// A packet for an SA, of this worker or of another.
#[inline(always)]
fn esp((me, workers): (u32, u32), sas: &SaTable, frame: &mut Frame, meta: &mut Meta, l3: u8) -> Stage {
    meta.l3 = l3;
    match worker_of_spi(meta.esp.spi, workers) {
        owner if owner == me => {
            sas.prefetch_spi(meta.esp.spi);
            frame.keep(l3 as usize, meta.ip.len());
            Stage::Inbound
        }
        owner => Stage::Handoff(owner as u8),
    }
}

/// A packet with AH.
#[cold]
fn ah((me, workers): (u32, u32), frame: &mut Frame, meta: &mut Meta, l3: u8) -> Stage {
    match worker_of_spi(meta.esp.spi, workers) {
        owner if owner == me => general(frame, meta, l3, Why::Inbound),
        owner => Stage::Handoff(owner as u8),
    }
}

/// A packet that the plain path does not take.
#[cold]
fn general(frame: &mut Frame, meta: &mut Meta, l3: u8, why: Why) -> Stage {
    meta.l3 = l3;
    frame.keep(l3 as usize, meta.ip.len());
    Stage::General(why)
}

/// A clear packet, for the policies.
#[inline(always)]
fn clear(flows: &FlowCache, frame: &mut Frame, meta: &mut Meta, l3: u8) -> Stage {
    meta.homes = flows.homes(&meta.ip.key());
    meta.l3 = l3;
    frame.keep(l3 as usize, meta.ip.len());
    Stage::Outbound
}

#[inline(always)]
fn is_plain(frame: &[u8], ip: &mut Ip) -> bool {
    frame.first_chunk().is_some_and(|head| ip.parse_plain(head, frame.len()))
}

/// Of a plain packet: that nothing but the policies has to do with it. What else there is, [`by_protocol`] knows.
#[inline(always)]
fn is_clear(ip: &Ip, ports: &UdpPorts) -> bool {
    match ip.protocol() {
        protocol::TCP => true,
        protocol::UDP => !ports.has_some(ip.dst_port()),
        _ => false,
    }
}

/// What a frame is, and where its IP header starts. What is found of it is written where it will be read.
#[inline]
fn parse(frame: &[u8], is_plain: bool, ports: &UdpPorts, (ip, esp): (&mut Ip, &mut Esp)) -> (Kind, u8) {
    match is_plain {
        true => (by_protocol(&frame[ETHERNET..ETHERNET + ip.len()], ports, ip, esp), ETHERNET as u8),
        false => parse_any(frame, ports, ip, esp),
    }
}

#[inline(never)]
fn parse_any(frame: &[u8], ports: &UdpPorts, ip: &mut Ip, esp: &mut Esp) -> (Kind, u8) {
    let (ethertype, l3) = match wire::ethernet(frame) {
        Ok(found) => found,
        Err(reason) => return (Kind::Bad(reason), 0),
    };
    let packet = &frame[l3..];
    let version = packet.first().map_or(0, |b| b >> 4);
    let parsed = match (ethertype, version) {
        (ETHERTYPE_IPV4, 4) => ip.parse_v4(packet),
        (ETHERTYPE_IPV6, 6) => ip.parse_v6(packet),
        (ETHERTYPE_IPV4 | ETHERTYPE_IPV6, _) => Err(DropReason::Malformed),
        _ => return (Kind::Kernel, 0),
    };
    let kind = match parsed {
        Ok(()) => by_protocol(&packet[..ip.len()], ports, ip, esp),
        Err(reason) => Kind::Bad(reason),
    };
    (kind, l3 as u8)
}

#[inline]
fn by_protocol(packet: &[u8], ports: &UdpPorts, ip: &Ip, esp: &mut Esp) -> Kind {
    let at = ip.payload();
    match ip.protocol() {
        protocol::ESP | protocol::AH if ip.place != Place::Whole => Kind::Fragment,
        protocol::ESP => esp.parse(packet, at, false),
        protocol::AH if packet.len() < at + 12 => Kind::Bad(DropReason::Malformed),
        protocol::AH => {
            esp.spi = wire::be32(packet, at + 4);
            Kind::Ah
        }
        protocol::UDP if ports.has_some(ip.dst_port()) => udp(packet, ip, esp),
        protocol::ICMP | protocol::ICMPV6 => message(packet, ports, ip, esp),
        _ => Kind::Clear,
    }
}

/// To a port of ESP in UDP: that, IKE, a keepalive, or any other datagram (RFC 3948 §2).
fn udp(packet: &[u8], ip: &Ip, esp: &mut Esp) -> Kind {
    let at = ip.payload() + wire::UDP;
    match packet.get(at..) {
        // IKE and keepalives (RFC 3948 §2.2, §2.3) between protected hosts are packets as all others; those
        // to the gateway itself the XDP program has left to the kernel.
        Some([0, 0, 0, 0, ..]) => Kind::Clear,
        Some([_, _, _, _, ..]) if ip.place == Place::First => Kind::Fragment,
        // RFC 768: its length is that of the rest of the packet. Its checksum may be zero, over IPv6 too, or anything: the
        // ICV says whether the packet is whole (RFC 3948 §2.1, RFC 6935 §5).
        Some([_, _, _, _, ..]) if wire::be16(packet, at - 4) as usize != packet.len() - ip.payload() => {
            Kind::Bad(DropReason::Malformed)
        }
        Some([_, _, _, _, ..]) => esp.parse(packet, at, true),
        _ => Kind::Clear,
    }
}

/// An ICMP message: that a packet of an SA was too big, or any other.
#[cold]
fn message(packet: &[u8], ports: &UdpPorts, ip: &Ip, esp: &mut Esp) -> Kind {
    match icmp::spi_too_big(packet, ip, ports) {
        Some(spi) => {
            esp.spi = spi;
            Kind::TooBig
        }
        None => Kind::Clear,
    }
}

impl Esp {
    #[inline]
    fn parse(&mut self, packet: &[u8], at: usize, udp: bool) -> Kind {
        let Some(header) = packet.get(at..at + wire::ESP) else {
            return Kind::Bad(DropReason::Malformed);
        };
        *self = Esp { spi: wire::be32(header, 0), seq_lo: wire::be32(header, 4), at: at as u16, udp };
        Kind::Esp
    }
}

#[cfg(test)]
mod tests;
