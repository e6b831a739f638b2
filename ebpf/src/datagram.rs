//! What steering needs of an IP header and, for IPv6, of the extension headers behind it.

use crate::packet::{Bounded, Packet};
use crate::{FragmentKey, Reason};

/// Headers that are looked at in search of one that is no extension. A real chain has one or two.
const MAX_EXTENSIONS: usize = 8;

/// Which IP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Protocol numbers that steering tells apart.
pub(crate) mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Where in the datagram a packet belongs.
// Numbers, as `Flaw`, so that they can be forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u8);

impl Place {
    /// It is the datagram.
    pub const WHOLE: Place = Place(0);
    /// A fragment, with the upper header.
    pub const FIRST: Place = Place(1);
    /// A fragment without it.
    pub const LATER: Place = Place(2);
}

/// What kept the walk from reaching the upper protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flaw(u8);

impl Flaw {
    /// It did reach it.
    pub const NONE: Flaw = Flaw(0);
    /// An extension header is cut.
    pub const TRUNCATED: Flaw = Flaw(1);
    /// There are too many extension headers.
    pub const TOO_MANY: Flaw = Flaw(2);
}

#[derive(Clone, Copy)]
pub(crate) struct Fragment {
    pub place: Place,
    pub id: u32,
    /// The header that the fragmented part starts with.
    pub protocol: u8,
}

pub(crate) struct Datagram {
    pub family: Family,
    /// IPv4 addresses are mapped into IPv6 (RFC 4291 §2.5.5.2).
    pub src: [u8; 16],
    pub dst: [u8; 16],
    /// The upper protocol, and where its header starts and the datagram ends.
    pub protocol: u8,
    pub payload: usize,
    pub end: usize,
    pub fragment: Fragment,
    /// Whether the walk reached the upper protocol.
    pub flaw: Flaw,
}

impl Datagram {
    /// The IPv4 datagram at `at`. Its checksum is for the worker to verify.
    #[inline(always)]
    pub fn ipv4(packet: &(impl Packet + ?Sized), at: usize) -> Result<Datagram, Reason> {
        let header: [u8; 20] = packet.bytes(at).ok_or(Reason::TruncatedIpv4)?;
        let [version_ihl, _, len_hi, len_lo, id_hi, id_lo, off_hi, off_lo, _, protocol, ..] = header;
        let header_len = (version_ihl & 15) as usize * 4;
        let total_len = u16::from_be_bytes([len_hi, len_lo]) as usize;
        if version_ihl >> 4 != 4 || header_len < 20 || total_len < header_len {
            return Err(Reason::BadIp);
        }
        // RFC 791 §3.1: more fragments, and the offset in units of eight bytes.
        let place = match u16::from_be_bytes([off_hi, off_lo]) & 0x3fff {
            0 => Place::WHOLE,
            0x2000 => Place::FIRST,
            _ => Place::LATER,
        };
        let fragment = Fragment { place, id: u16::from_be_bytes([id_hi, id_lo]) as u32, protocol };
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
        Ok(Datagram {
            family: Family::V4,
            src: mapped([s0, s1, s2, s3]),
            dst: mapped([d0, d1, d2, d3]),
            protocol,
            payload: at + header_len,
            end: at + total_len,
            fragment,
            flaw: Flaw::NONE,
        })
    }

    /// The IPv6 datagram at `at`, walked to the first header that is not an extension.
    #[inline(always)]
    pub fn ipv6(packet: &(impl Packet + ?Sized), at: usize) -> Result<Datagram, Reason> {
        let [version, _, _, _, len_hi, len_lo, next, _] = packet.bytes(at).ok_or(Reason::TruncatedIpv6)?;
        let src = packet.bytes(at + 8).ok_or(Reason::TruncatedIpv6)?;
        let dst = packet.bytes(at + 24).ok_or(Reason::TruncatedIpv6)?;
        if version >> 4 != 6 {
            return Err(Reason::BadIp);
        }
        let payload = at + 40;
        let end = payload + u16::from_be_bytes([len_hi, len_lo]) as usize;
        let mut datagram = Datagram {
            family: Family::V6,
            src,
            dst,
            protocol: next,
            payload,
            end,
            fragment: Fragment { place: Place::WHOLE, id: 0, protocol: next },
            flaw: Flaw::NONE,
        };
        datagram.walk(packet);
        Ok(datagram)
    }

    /// Steps over the extension headers that may precede ESP and AH (RFC 8200 §4.1).
    #[inline(always)]
    fn walk(&mut self, packet: &(impl Packet + ?Sized)) {
        let bounded = Bounded { packet, end: self.end };
        for _ in 0..MAX_EXTENSIONS {
            match self.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                    let Some([next, len]) = bounded.bytes(self.payload) else {
                        self.flaw = Flaw::TRUNCATED;
                        return;
                    };
                    self.protocol = next;
                    self.payload += (len as usize + 1) * 8;
                }
                protocol::FRAGMENT => {
                    let Some([next, _, off_hi, off_lo, id @ ..]) = bounded.bytes::<8>(self.payload) else {
                        self.flaw = Flaw::TRUNCATED;
                        return;
                    };
                    self.protocol = next;
                    self.payload += 8;
                    let place = match u16::from_be_bytes([off_hi, off_lo]) & 0xfff9 {
                        // An atomic fragment is a whole datagram (RFC 6946 §4).
                        0 => Place::WHOLE,
                        1 => Place::FIRST,
                        _ => Place::LATER,
                    };
                    self.fragment = Fragment { place, id: u32::from_be_bytes(id), protocol: next };
                    if place == Place::LATER {
                        return;
                    }
                }
                _ => return,
            }
        }
        self.flaw = Flaw::TOO_MANY;
    }

    /// The same, mixed with a zero of which the verifier does not know that it is one: the upper half of the number of
    /// workers. So it looks at what follows once, and not once for each way through the headers.
    #[inline(always)]
    pub fn forgetting(mut self, workers: u32) -> Datagram {
        let zero = (workers >> 16) as u16;
        let low = zero as u8;
        self.protocol ^= low;
        self.payload ^= zero as usize;
        self.end ^= zero as usize;
        self.flaw.0 ^= low;
        self.fragment.place.0 ^= low;
        self.fragment.protocol ^= low;
        self.fragment.id ^= zero as u32;
        self
    }

    /// Whether it is of the link, or of a group: the kernel's, whatever it carries.
    #[inline(always)]
    pub fn is_link_scope(&self) -> bool {
        let link_local = |address: &[u8; 16]| address[0] == 0xfe && address[1] & 0xc0 == 0x80;
        match self.family {
            Family::V4 => self.dst[12] & 0xf0 == 0xe0 || self.dst[12..] == [0xff; 4],
            Family::V6 => self.dst[0] == 0xff || link_local(&self.dst) || link_local(&self.src),
        }
    }

    #[inline(always)]
    pub fn fragment_key(&self) -> FragmentKey {
        let Fragment { id, protocol, .. } = self.fragment;
        FragmentKey { src: self.src, dst: self.dst, id, protocol: protocol as u32 }
    }
}

#[inline(always)]
fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
