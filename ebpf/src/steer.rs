//! The decision: which worker a frame is for, or that it is the kernel's.
//!
//! Whatever is to or from a protected prefix must not slip past the workers through the kernel, which
//! would forward it in clear. So only a packet that the kernel would refuse too (its IP header is cut
//! or wrong) is given up at once; one that is odd further in still goes by its addresses.
//!
//! The worker that gets a packet classifies it again, from all of its bytes: a wrong choice here costs
//! a handoff, not correctness.

use crate::datagram::{Datagram, Family, Flaw, Place, protocol};
use crate::packet::{Bounded, Packet};
use crate::{BY_FLOW, GOLDEN, Reason, TO_KERNEL, TO_NOBODY, UNPROTECTED, scale, worker_of_spi};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q customer tag.
const VLAN: u16 = 0x8100;
/// IEEE 802.1ad service tag.
const SERVICE_VLAN: u16 = 0x88a8;

const IKE_PORT: u16 = 500;

/// Where a frame goes, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The worker, [`TO_KERNEL`] or [`TO_NOBODY`].
    // Not an `Option`: the compiler may compute on a payload that is not there, the verifier objects.
    pub worker: u32,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// To the kernel.
    pub const fn kernel(reason: Reason) -> Decision {
        Decision { worker: TO_KERNEL, reason }
    }

    /// To nobody.
    pub const fn nobody(reason: Reason) -> Decision {
        Decision { worker: TO_NOBODY, reason }
    }

    /// To a worker.
    pub const fn worker(worker: u32, reason: Reason) -> Decision {
        Decision { worker, reason }
    }
}

/// What all fragments of one datagram have in common: key of the map of datagrams that a worker has
/// the first fragment of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Source; an IPv4 address is mapped into IPv6.
    pub src: [u8; 16],
    /// Destination; an IPv4 address is mapped into IPv6.
    pub dst: [u8; 16],
    /// Identification.
    pub id: u32,
    /// Protocol that the fragmented part starts with.
    pub protocol: u32,
}

/// The tables that the datapath and earlier packets fill.
pub trait Tables {
    /// Value of the longest protected prefix that holds the address: a worker, [`TO_KERNEL`], or
    /// [`UNPROTECTED`] when there is none. An IPv4 address is the last four bytes.
    fn protected(&self, family: Family, address: &[u8; 16]) -> u32;

    /// Whether a UDP port is ours for ESP in UDP.
    fn is_esp_port(&self, port: u16) -> bool;

    /// Notes that the first fragment of a datagram went to a worker.
    fn remember(&self, fragment: &FragmentKey);

    /// Whether the first fragment of the datagram went to a worker.
    fn remembers(&self, fragment: &FragmentKey) -> bool;
}

/// Decides where a frame goes, of [`MAX_WORKERS`](crate::MAX_WORKERS) at most.
#[inline(always)]
pub fn steer(packet: &(impl Packet + ?Sized), workers: u32, tables: &impl Tables) -> Decision {
    let (ether_type, at) = match network_layer(packet, workers) {
        Ok(found) => found,
        Err(reason) => return Decision::kernel(reason),
    };
    let datagram = match ether_type {
        IPV4 => Datagram::ipv4(packet, at),
        IPV6 => Datagram::ipv6(packet, at),
        VLAN | SERVICE_VLAN => Err(Reason::TooManyTags),
        _ => Err(Reason::NotIp),
    };
    match datagram.map(|datagram| datagram.forgetting(workers)) {
        Ok(datagram) if datagram.is_link_scope() => Decision::kernel(Reason::LinkScope),
        Ok(datagram) => match by_protocol(packet, &datagram, workers, tables) {
            Decision { worker: BY_FLOW, reason } => {
                let ports = ports(packet, &datagram);
                Decision::worker(worker_of_flow(&datagram.src, &datagram.dst, ports, workers), reason)
            }
            decision => decision,
        },
        Err(reason) => Decision::kernel(reason),
    }
}

/// The worker at which all fragments of a datagram meet, in whatever order they come.
#[inline(always)]
pub fn worker_of_addresses(src: &[u8; 16], dst: &[u8; 16], workers: u32) -> u32 {
    scale(hash_of_addresses(src, dst), workers)
}

/// The worker of a flow: by its addresses and both ports, source first; or by its addresses alone, of what has or shows no
/// ports.
#[inline(always)]
pub fn worker_of_flow(src: &[u8; 16], dst: &[u8; 16], ports: u32, workers: u32) -> u32 {
    match ports {
        0 => worker_of_addresses(src, dst, workers),
        _ => scale(hash_with(hash_of_addresses(src, dst), ports), workers),
    }
}

#[inline(always)]
fn hash_of_addresses(src: &[u8; 16], dst: &[u8; 16]) -> u32 {
    let mut hash = 0u32;
    for address in [src, dst] {
        for word in address.as_chunks().0 {
            hash = hash_with(hash, u32::from_be_bytes(*word));
        }
    }
    hash
}

#[inline(always)]
fn hash_with(hash: u32, word: u32) -> u32 {
    (hash.rotate_left(5) ^ word).wrapping_mul(GOLDEN)
}

/// The EtherType behind the VLAN tags, and where its header starts.
#[inline(always)]
fn network_layer(packet: &(impl Packet + ?Sized), workers: u32) -> Result<(u16, usize), Reason> {
    // What is shorter is no IP. Looked at once, so that the verifier knows the same of each frame.
    let Some([hi, lo, _, _, hi2, lo2, _, _, hi3, lo3]) = packet.bytes(12) else {
        return Err(of_short(packet));
    };
    let [first, second, third] = [[hi, lo], [hi2, lo2], [hi3, lo3]].map(u16::from_be_bytes);
    let (ether_type, at) = match (is_tag(first), is_tag(second)) {
        (false, _) => (first, 14),
        (true, false) => (second, 18),
        (true, true) => (third, 22),
    };
    // As in `Datagram::forgetting`.
    let at = at ^ (workers >> 27) as usize;
    Ok((ether_type, at))
}

#[inline(always)]
fn is_tag(ether_type: u16) -> bool {
    ether_type == VLAN || ether_type == SERVICE_VLAN
}

/// Why a frame without room for two tags and what is behind is the kernel's.
#[inline(always)]
fn of_short(packet: &(impl Packet + ?Sized)) -> Reason {
    let ether_type = |at| packet.bytes(at).map(u16::from_be_bytes);
    let Some(first) = ether_type(12) else { return Reason::TruncatedEthernet };
    match if is_tag(first) { ether_type(16) } else { Some(first) } {
        None | Some(VLAN | SERVICE_VLAN) => Reason::TruncatedVlan,
        Some(IPV4) => Reason::TruncatedIpv4,
        Some(IPV6) => Reason::TruncatedIpv6,
        Some(_) => Reason::NotIp,
    }
}

#[inline(always)]
fn by_protocol(
    packet: &(impl Packet + ?Sized),
    datagram: &Datagram,
    workers: u32,
    tables: &impl Tables,
) -> Decision {
    let fragment = datagram.fragment;
    // Of ESP and AH, each fragment can tell what it belongs to.
    let tells = matches!(fragment.protocol, protocol::ESP | protocol::AH);
    if fragment.place == Place::LATER {
        let protected = tells || tables.remembers(&datagram.fragment_key());
        return if protected { with_its_fragments(datagram, workers) } else { clear(datagram, tables) };
    }
    let (reason, spi) = match (datagram.flaw, fragment.place, datagram.protocol) {
        (Flaw::NONE, Place::FIRST, protocol::ESP | protocol::AH) => (Reason::Fragment, 0),
        (Flaw::NONE, ..) => ipsec(&Bounded { packet, end: datagram.end }, datagram, workers, tables),
        (Flaw::TRUNCATED, ..) => (Reason::TruncatedExtension, 0),
        _ => (Reason::TooManyExtensions, 0),
    };
    match (reason, fragment.place) {
        (Reason::Fragment | Reason::EspInUdp, Place::FIRST) => {
            if !tells {
                tables.remember(&datagram.fragment_key());
            }
            with_its_fragments(datagram, workers)
        }
        (Reason::Esp | Reason::Ah | Reason::EspInUdp, _) => {
            Decision::worker(worker_of_spi(spi, workers), reason)
        }
        // To a host, it is about that host's packets.
        (Reason::TooBig, Place::WHOLE) => match clear(datagram, tables) {
            Decision { reason: Reason::Local, .. } => Decision::worker(worker_of_spi(spi, workers), reason),
            to_host => to_host,
        },
        // RFC 3948 §2.3: a receiver ignores it. What passes through is a packet as all others.
        (Reason::Keepalive, _) => match clear(datagram, tables) {
            Decision { reason: Reason::Local, .. } => Decision::nobody(reason),
            elsewhere => elsewhere,
        },
        (Reason::Unprotected | Reason::TooBig, _) => clear(datagram, tables),
        _ => match clear(datagram, tables) {
            Decision { worker: TO_KERNEL, .. } => Decision::kernel(reason),
            to_worker => to_worker,
        },
    }
}

/// What the upper protocol says: the SPI of what is IPsec; `Unprotected` when it has no say; or a reason
/// why the packet is the kernel's, unless its addresses are protected.
#[inline(always)]
fn ipsec<P: Packet + ?Sized>(
    packet: &Bounded<P>,
    datagram: &Datagram,
    workers: u32,
    tables: &impl Tables,
) -> (Reason, u32) {
    let at = datagram.payload;
    match datagram.protocol {
        // RFC 4303 §2: SPI, sequence number.
        protocol::ESP => match packet.bytes::<8>(at) {
            Some([a, b, c, d, ..]) => (Reason::Esp, u32::from_be_bytes([a, b, c, d])),
            None => (Reason::TruncatedEsp, 0),
        },
        // RFC 4302 §2: next header, length, reserved, SPI, sequence number.
        protocol::AH => match packet.bytes::<12>(at) {
            Some([_, _, _, _, a, b, c, d, ..]) => (Reason::Ah, u32::from_be_bytes([a, b, c, d])),
            None => (Reason::TruncatedAh, 0),
        },
        protocol::UDP => match packet.bytes::<8>(at) {
            Some([_, _, port_hi, port_lo, ..]) => match u16::from_be_bytes([port_hi, port_lo]) {
                IKE_PORT => (Reason::Ike, 0),
                port if tables.is_esp_port(port) => nat_t(packet, at),
                _ => (Reason::Unprotected, 0),
            },
            None => (Reason::TruncatedUdp, 0),
        },
        protocol::ICMP | protocol::ICMPV6 => match too_big(packet, datagram, workers, tables) {
            0 => (Reason::Unprotected, 0),
            spi => (Reason::TooBig, spi),
        },
        _ => (Reason::Unprotected, 0),
    }
}

/// The SPI that is shown in what an ICMP message says to have been too big, or 0.
// Not an `Option`: as in `Decision`.
#[inline(always)]
fn too_big<P: Packet + ?Sized>(
    packet: &Bounded<P>,
    message: &Datagram,
    workers: u32,
    tables: &impl Tables,
) -> u32 {
    let Some([kind, code, ..]) = packet.bytes::<8>(message.payload) else { return 0 };
    let about = match (message.family, message.protocol, kind, code) {
        (Family::V4, protocol::ICMP, 3, 4) => Datagram::ipv4(packet, message.payload + 8),
        // RFC 4443 §3.2: the code is not looked at.
        (Family::V6, protocol::ICMPV6, 2, _) => Datagram::ipv6(packet, message.payload + 8),
        _ => return 0,
    };
    let Ok(about) = about.map(|about| about.forgetting(workers)) else { return 0 };
    if about.flaw != Flaw::NONE || about.fragment.place == Place::LATER {
        return 0;
    }
    let shown = Bounded { packet, end: about.end };
    let Some([a, b, c, d, e, f, g, h]) = shown.bytes::<8>(about.payload) else { return 0 };
    let ports = [[a, b], [c, d]].map(u16::from_be_bytes);
    match about.protocol {
        protocol::ESP => u32::from_be_bytes([a, b, c, d]),
        protocol::AH => u32::from_be_bytes([e, f, g, h]),
        // RFC 3948 §2.2: of IKE, it is 0.
        protocol::UDP if tables.is_esp_port(ports[0]) || tables.is_esp_port(ports[1]) => {
            shown.bytes(about.payload + 8).map_or(0, u32::from_be_bytes)
        }
        _ => 0,
    }
}

/// Tells ESP from IKE and keepalives behind the UDP header at `at`, to a port of ESP in UDP (RFC 3948 §2).
#[inline(always)]
fn nat_t<P: Packet + ?Sized>(packet: &Bounded<P>, at: usize) -> (Reason, u32) {
    match packet.bytes(at + 8) {
        Some(word) => match u32::from_be_bytes(word) {
            0 => (Reason::IkeNatT, 0),
            spi => (Reason::EspInUdp, spi),
        },
        // RFC 3948 §2.3: one byte, 0xff.
        None if packet.end == at + 9 && matches!(packet.bytes::<9>(at), Some([.., 0xff])) => {
            (Reason::Keepalive, 0)
        }
        None => (Reason::TruncatedUdp, 0),
    }
}

#[inline(always)]
fn with_its_fragments(datagram: &Datagram, workers: u32) -> Decision {
    Decision::worker(worker_of_addresses(&datagram.src, &datagram.dst, workers), Reason::Fragment)
}

#[inline(always)]
fn clear(datagram: &Datagram, tables: &impl Tables) -> Decision {
    match tables.protected(datagram.family, &datagram.dst) {
        TO_KERNEL => Decision::kernel(Reason::Local),
        UNPROTECTED => match tables.protected(datagram.family, &datagram.src) {
            TO_KERNEL | UNPROTECTED => Decision::kernel(Reason::Unprotected),
            worker => Decision::worker(worker, Reason::ClearFrom),
        },
        worker => Decision::worker(worker, Reason::ClearTo),
    }
}

/// Source and destination port, or 0 of what does not show any. Fragments that follow do not, so none does.
// Not an `Option`: as in `Decision`.
#[inline(always)]
fn ports(packet: &(impl Packet + ?Sized), datagram: &Datagram) -> u32 {
    let has_some = matches!(datagram.protocol, protocol::TCP | protocol::UDP);
    if !has_some || datagram.flaw != Flaw::NONE || datagram.fragment.place != Place::WHOLE {
        return 0;
    }
    Bounded { packet, end: datagram.end }.bytes(datagram.payload).map_or(0, u32::from_be_bytes)
}
