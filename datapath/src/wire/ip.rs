//! The IP header, parsed: what the packet path reads of it again and again.

use super::{ETHERNET, ETHERTYPE_IPV4, IPV4, IPV6, be16, be32, protocol, sum};
use crate::drop::DropReason;
use portcullis_sadb::Flow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a packet is in the datagram it was cut from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The whole datagram.
    Whole,
    /// A first fragment: its headers can be seen.
    First,
    /// A later fragment.
    Later,
}

/// An IP address in a form that is quick to move and to compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Addr {
    /// IPv6 in 128 bits, IPv4 in the lowest 32.
    pub bits: u128,
    /// Which of the two.
    pub v4: bool,
}

impl From<IpAddr> for Addr {
    #[inline]
    fn from(addr: IpAddr) -> Addr {
        match addr {
            IpAddr::V4(a) => Addr { bits: a.to_bits() as u128, v4: true },
            IpAddr::V6(a) => Addr { bits: a.to_bits(), v4: false },
        }
    }
}

impl From<Addr> for IpAddr {
    #[inline]
    fn from(addr: Addr) -> IpAddr {
        match addr.v4 {
            true => IpAddr::V4(Ipv4Addr::from_bits(addr.bits as u32)),
            false => IpAddr::V6(Ipv6Addr::from_bits(addr.bits)),
        }
    }
}

/// In a selector word: protocol in the lowest octet, ports in the upper half, or what stands in their place.
const HAS_PORTS: u64 = 1 << 8;
const IS_V6: u64 = 1 << 9;
const IS_INNER: u64 = 1 << 10;

/// What policies look at, in five words, which are quick to hash and to compare: source, destination, and the rest.
#[derive(Clone, Copy, Debug)]
pub struct FlowKey([u64; 5]);

impl PartialEq for FlowKey {
    /// Without the call that comparing arrays is.
    #[inline]
    fn eq(&self, other: &FlowKey) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Eq for FlowKey {}

impl FlowKey {
    /// What stands where there is no flow.
    pub const NONE: FlowKey = FlowKey([0; 5]);

    /// The same flow, after decapsulation.
    #[inline]
    pub fn inner(self) -> FlowKey {
        let FlowKey([a, b, c, d, rest]) = self;
        FlowKey([a, b, c, d, rest | IS_INNER])
    }

    /// As the SPD has it.
    pub fn flow(&self) -> Flow {
        let FlowKey([a, b, c, d, rest]) = *self;
        let addr =
            |high, low| Addr { bits: (high as u128) << 64 | low as u128, v4: rest & IS_V6 == 0 }.into();
        Flow {
            src: addr(b, a),
            dst: addr(d, c),
            protocol: rest as u8,
            ports: (rest & HAS_PORTS != 0).then_some(((rest >> 48) as u16, (rest >> 32) as u16)),
        }
    }

    /// A number whose upper bits are spread well.
    #[inline]
    pub fn hash(&self) -> u64 {
        let FlowKey([a, b, c, d, rest]) = *self;
        let mut h = (b.rotate_left(32) ^ a).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h = (h.rotate_left(32) ^ d.rotate_left(32) ^ c).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        (h ^ rest).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Octets that [`Ip::parse_plain`] looks at: headers of Ethernet and IPv4, ports.
pub const PLAIN: usize = ETHERNET + IPV4 + 4;

/// A parsed IP header with its extension headers, and what policies look at behind them. It is parsed in place,
/// where it will be read: the CPU waits for what is written in small pieces and read as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Ip {
    src: u128,
    dst: u128,
    selector: u64,
    len: u16,
    payload: u16,
    /// Type of service or traffic class.
    pub tos: u8,
    /// Whole or fragment.
    pub place: Place,
    /// IPv4: don't fragment. Always set for IPv6.
    pub df: bool,
}

impl Ip {
    /// What stands where there is no packet.
    pub const NONE: Ip =
        Ip { src: 0, dst: 0, selector: 0, len: 0, payload: 0, tos: 0, place: Place::Whole, df: false };

    /// Parses a packet of either version.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] where lengths do not fit, [`DropReason::BadChecksum`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Ip, DropReason> {
        let mut ip = Ip::NONE;
        match packet.first().map(|b| b >> 4) {
            Some(4) => ip.parse_v4(packet)?,
            Some(6) => ip.parse_v6(packet)?,
            _ => return Err(DropReason::Malformed),
        }
        Ok(ip)
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Addr {
        Addr { bits: self.src, v4: self.is_v4() }
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Addr {
        Addr { bits: self.dst, v4: self.is_v4() }
    }

    /// The same header with other addresses, both of one version.
    #[must_use]
    pub fn between(self, src: Addr, dst: Addr) -> Ip {
        let selector = self.selector & !IS_V6 | if src.v4 { 0 } else { IS_V6 };
        Ip { src: src.bits, dst: dst.bits, selector, ..self }
    }

    /// Whether it is IPv4.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.selector & IS_V6 == 0
    }

    /// The upper protocol, or ESP or AH.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.selector as u8
    }

    /// The class of traffic (RFC 2474 §3).
    #[inline]
    pub fn dscp(&self) -> u8 {
        self.tos >> 2
    }

    /// Where the upper protocol starts.
    #[inline]
    pub fn payload(&self) -> usize {
        self.payload as usize
    }

    /// Octets of the whole packet, as the header says; what follows it is link-layer padding.
    #[allow(clippy::len_without_is_empty)]
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// The source port, or what stands in its place, if the packet shows it.
    #[inline]
    pub fn src_port(&self) -> Option<u16> {
        (self.selector & HAS_PORTS != 0).then_some((self.selector >> 48) as u16)
    }

    /// The destination port, or what stands in its place, if the packet shows it.
    #[inline]
    pub fn dst_port(&self) -> Option<u16> {
        (self.selector & HAS_PORTS != 0).then_some((self.selector >> 32) as u16)
    }

    /// What policies look at.
    #[inline]
    pub fn key(&self) -> FlowKey {
        let halves = |addr: u128| (addr as u64, (addr >> 64) as u64);
        let ((a, b), (c, d)) = (halves(self.src), halves(self.dst));
        FlowKey([a, b, c, d, self.selector])
    }

    /// The same, as the SPD has it.
    pub fn flow(&self) -> Flow {
        self.key().flow()
    }

    /// Becomes what the header of a plain packet says: one of IPv4 in a frame of so many octets without tags, with no
    /// options and not in fragments, as most are. False, and of no meaning, if it is another or there is anything wrong
    /// with it. Four words and as many comparisons, for what [`Ip::parse_v4`] goes through step by step.
    #[inline(always)]
    pub(crate) fn parse_plain(&mut self, frame: &[u8; PLAIN], octets: usize) -> bool {
        let word = |at: usize| u64::from_le_bytes(*frame[at..].first_chunk().expect("8 of the octets"));
        // EtherType, version and length of the header; flags and offset, but for "don't fragment" and the reserved one.
        const KIND: u64 = 0x45 << 16 | ETHERTYPE_IPV4.swap_bytes() as u64;
        const FRAGMENT: u64 = 0x3fff_u16.swap_bytes() as u64;
        if word(12) & 0xff_ffff != KIND || word(20) & FRAGMENT != 0 {
            return false;
        }
        let len = be16(frame, 16);
        if (len as usize).wrapping_sub(IPV4 + 4) > octets - PLAIN {
            return false;
        }
        // RFC 1071, as in `take_v4`, in words of 64 bits, whose carry comes in again below.
        let add = |a: u64, b: u64| {
            let (sum, carry) = a.overflowing_add(b);
            sum + carry as u64
        };
        let dst = be32(frame, 30);
        let total = add(add(word(14), word(22)), dst.swap_bytes() as u64);
        if !total.is_multiple_of(0xffff) {
            return false;
        }
        self.src = be32(frame, 26) as u128;
        self.dst = dst as u128;
        let upper = frame[23];
        self.selector = upper as u64 | ports(upper, Place::Whole, &frame[ETHERNET + IPV4..]);
        self.len = len;
        self.payload = IPV4 as u16;
        self.place = Place::Whole;
        self.tos = frame[15];
        self.df = frame[20] & 0x40 != 0;
        true
    }

    /// Becomes what an IPv4 packet's header says (RFC 791 §3.1).
    ///
    /// # Errors
    /// [`DropReason::Malformed`] where lengths do not fit, [`DropReason::BadChecksum`].
    #[inline(always)]
    pub(crate) fn parse_v4(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let h: &[u8; IPV4] = packet.first_chunk().ok_or(DropReason::Malformed)?;
        let word = |at: usize| u64::from_be_bytes(*h[at..].first_chunk().expect("8 of 20 octets"));
        let words = [word(0), word(8), be32(h, 16) as u64];
        // Most have neither options nor fragments: in a copy of its own, where that is known.
        if words[0] & 0x0f00_0000_0000_3fff == 0x0500_0000_0000_0000 {
            self.take_v4(words, IPV4, Place::Whole, packet)
        } else {
            self.parse_rare_v4(words, packet)
        }
    }

    #[cold]
    fn parse_rare_v4(&mut self, words: [u64; 3], packet: &[u8]) -> Result<(), DropReason> {
        let payload = (words[0] >> 54 & 60) as usize;
        let place = match (words[0] & 0x1fff, words[0] & 0x2000) {
            (0, 0) => Place::Whole,
            (0, _) => Place::First,
            _ => Place::Later,
        };
        self.take_v4(words, payload, place, packet)
    }

    #[inline(always)]
    fn take_v4(
        &mut self,
        [first, second, dst]: [u64; 3],
        payload: usize,
        place: Place,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let len = (first >> 32) as u16;
        if payload < IPV4 || (len as usize) < payload || packet.len() < len as usize {
            return Err(DropReason::Malformed);
        }
        // RFC 1071: the ones' complement sum of the words is the remainder by 65535, whatever their size (§2), and it
        // is not 0 by being nothing: the version is not.
        let (high, low) = (|w: u64| w >> 32, |w: u64| w & 0xffff_ffff);
        let mut total = high(first) + low(first) + high(second) + low(second) + dst;
        if payload > IPV4 {
            total += sum(&packet[IPV4..payload]) as u64;
        }
        if !total.is_multiple_of(0xffff) {
            return Err(DropReason::BadChecksum); // RFC 1812 §5.2.2
        }
        self.place = place;
        self.src = low(second) as u128;
        self.dst = dst as u128;
        self.len = len;
        self.payload = payload as u16;
        self.tos = (first >> 48) as u8;
        self.df = first & 0x4000 != 0;
        let upper = (second >> 48) as u8;
        self.selector = upper as u64 | ports(upper, place, &packet[payload..len as usize]);
        Ok(())
    }

    /// Becomes what an IPv6 packet's headers say (RFC 8200 §3).
    ///
    /// # Errors
    /// [`DropReason::Malformed`] where lengths do not fit.
    pub(crate) fn parse_v6(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        let h: &[u8; IPV6] = packet.first_chunk().ok_or(DropReason::Malformed)?;
        let len = IPV6 + be16(h, 4) as usize;
        if packet.len() < len || len > u16::MAX as usize {
            return Err(DropReason::Malformed);
        }
        self.src = u128::from_be_bytes(*h[8..24].first_chunk().expect("16 octets"));
        self.dst = u128::from_be_bytes(*h[24..40].first_chunk().expect("16 octets"));
        self.payload = IPV6 as u16;
        self.len = len as u16;
        self.tos = h[0] << 4 | h[1] >> 4;
        self.df = true;
        self.place = Place::Whole;
        let packet = &packet[..len];
        let upper = match h[6] {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS | protocol::FRAGMENT => {
                self.skip_extensions(h[6], packet)?
            }
            upper => upper,
        };
        self.selector = upper as u64 | IS_V6 | ports(upper, self.place, &packet[self.payload()..]);
        Ok(())
    }

    /// Goes over the extension headers that may stand before ESP, AH or an upper protocol (RFC 8200 §4.1), and
    /// returns what comes behind them.
    fn skip_extensions(&mut self, first: u8, packet: &[u8]) -> Result<u8, DropReason> {
        const MOST: usize = 8;
        let (mut protocol, mut at) = (first, IPV6);
        for _ in 0..MOST {
            let next = packet.get(at..at + 8);
            match protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    let next = next.ok_or(DropReason::Malformed)?;
                    (protocol, at) = (next[0], at + 8 + next[1] as usize * 8);
                }
                protocol::FRAGMENT => {
                    let next = next.ok_or(DropReason::Malformed)?;
                    (protocol, at) = (next[0], at + 8);
                    let offset = be16(next, 2);
                    self.place = match (offset & 0xfff8, offset & 1) {
                        (0, 0) => Place::Whole, // an atomic fragment (RFC 6946)
                        (0, _) => Place::First,
                        _ => Place::Later,
                    };
                }
                _ => {
                    self.payload = at as u16;
                    return Ok(protocol);
                }
            }
            if at > packet.len() {
                return Err(DropReason::Malformed);
            }
            if self.place == Place::Later {
                self.payload = at as u16;
                return Ok(protocol);
            }
        }
        Err(DropReason::Malformed)
    }
}

/// What an upper protocol has in the place of ports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// Nothing.
    None,
    /// Source and destination port.
    Both,
    /// Type and code of a message (RFC 792, RFC 4443 §2.1).
    Icmp,
    /// Type of a message (RFC 6275 §6.1.1).
    Mobility,
}

static PORTS: [Ports; 256] = {
    use protocol::{DCCP, ICMP, ICMPV6, MOBILITY, SCTP, TCP, UDP, UDP_LITE};
    let mut all = [Ports::None; 256];
    let both = [TCP, UDP, DCCP, SCTP, UDP_LITE];
    let mut i = 0;
    while i < both.len() {
        all[both[i] as usize] = Ports::Both;
        i += 1;
    }
    all[ICMP as usize] = Ports::Icmp;
    all[ICMPV6 as usize] = Ports::Icmp;
    all[MOBILITY as usize] = Ports::Mobility;
    all
};

/// The ports, as a selector has them, if an upper protocol shows any.
#[inline(always)]
fn ports(upper: u8, place: Place, packet: &[u8]) -> u64 {
    match packet.first_chunk::<4>() {
        Some(head) if place != Place::Later => match PORTS[upper as usize] {
            Ports::None => 0,
            Ports::Both => (u32::from_be_bytes(*head) as u64) << 32 | HAS_PORTS,
            of => message_type(of, *head),
        },
        _ => 0,
    }
}

/// In the place of both ports, type and code are one number, the type in its upper octet (RFC 4301 §4.4.1.1).
#[cold]
fn message_type(of: Ports, [first, second, third, _]: [u8; 4]) -> u64 {
    let number = match of {
        Ports::Mobility => [third, 0],
        _ => [first, second],
    };
    let number = u16::from_be_bytes(number) as u64;
    (number << 48 | number << 32) | HAS_PORTS
}
