//! Frames for tests of steering and of what must agree with it: layers to put together by hand, and a
//! generator of likely and unlikely frames.
//!
//! A layer is a function that puts its header in front of what it is given.
#![allow(dead_code, reason = "each test uses what it needs")]

pub mod generate;
pub mod tables;

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const ARP: u16 = 0x0806;
pub const VLAN: u16 = 0x8100;
pub const SERVICE_VLAN: u16 = 0x88a8;

pub const HOP_BY_HOP: u8 = 0;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const ESP: u8 = 50;
pub const AH: u8 = 51;
pub const ICMP6: u8 = 58;
pub const NO_NEXT: u8 = 59;
pub const DESTINATION_OPTIONS: u8 = 60;

/// A place in a fragmented datagram: identification, offset in units of eight bytes, more fragments.
pub type Piece = (u32, u16, bool);

fn joined(header: &[u8], payload: &[u8]) -> Vec<u8> {
    [header, payload].concat()
}

/// An Ethernet frame with these tags, outermost first.
pub fn ethernet(tags: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&[0, 7]);
    }
    frame.extend_from_slice(&ether_type.to_be_bytes());
    joined(&frame, payload)
}

/// An IPv4 datagram with so many words of options.
pub fn ipv4_with(
    src: [u8; 4],
    dst: [u8; 4],
    protocol: u8,
    options: u8,
    piece: Option<Piece>,
    payload: &[u8],
) -> Vec<u8> {
    let (id, offset, more) = piece.unwrap_or((0, 0, false));
    let header_len = 20 + options as usize * 4;
    let mut header = vec![0x40 | (5 + options), 0];
    header.extend_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
    header.extend_from_slice(&(id as u16).to_be_bytes());
    header.extend_from_slice(&(offset | (more as u16) << 13).to_be_bytes());
    header.extend_from_slice(&[64, protocol, 0, 0]);
    header.extend_from_slice(&src);
    header.extend_from_slice(&dst);
    // RFC 791 §3.1: no operation.
    header.resize(header_len, 1);
    let sum = internet_checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    joined(&header, payload)
}

/// A plain IPv4 datagram.
pub fn ipv4(src: [u8; 4], dst: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(src, dst, protocol, 0, None, payload)
}

/// An IPv6 datagram; extension headers are part of the payload.
pub fn ipv6(src: [u8; 16], dst: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    header.extend_from_slice(&[next, 64]);
    header.extend_from_slice(&src);
    header.extend_from_slice(&dst);
    joined(&header, payload)
}

/// An extension header with options, `8 + 8 * more` bytes long.
pub fn options(next: u8, more: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, more];
    // RFC 8200 §4.2: PadN.
    let len = 8 + 8 * more as usize;
    while header.len() < len {
        let pad = (len - header.len() - 2).min(255);
        header.extend_from_slice(&[1, pad as u8]);
        header.resize(header.len() + pad, 0);
    }
    joined(&header, payload)
}

/// A routing header with this many segments left.
pub fn routing(next: u8, segments_left: u8, payload: &[u8]) -> Vec<u8> {
    joined(&[next, 0, 253, segments_left, 0, 0, 0, 0], payload)
}

/// A fragment header.
pub fn fragment(next: u8, (id, offset, more): Piece, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend_from_slice(&(offset << 3 | more as u16).to_be_bytes());
    header.extend_from_slice(&id.to_be_bytes());
    joined(&header, payload)
}

/// A UDP datagram without a checksum.
pub fn udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    for word in [src_port, dst_port, 8 + payload.len() as u16, 0] {
        header.extend_from_slice(&word.to_be_bytes());
    }
    joined(&header, payload)
}

/// An ESP packet with so many bytes of ciphertext.
pub fn esp(spi: u32, ciphertext: usize) -> Vec<u8> {
    let mut packet = spi.to_be_bytes().to_vec();
    packet.extend_from_slice(&[0, 0, 0, 1]);
    packet.resize(8 + ciphertext, 0xee);
    packet
}

/// An AH packet with an ICV of 12 bytes.
pub fn ah(next: u8, spi: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 4, 0, 0];
    header.extend_from_slice(&spi.to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, 1]);
    header.resize(24, 0xaa);
    joined(&header, payload)
}

/// An ICMP message of either version that this was too big, without a checksum.
pub fn too_big(icmp: u8, mtu: u16, about: &[u8]) -> Vec<u8> {
    let (kind, code) = if icmp == ICMP { (3, 4) } else { (2, 0) };
    let [high, low] = mtu.to_be_bytes();
    joined(&[kind, code, 0, 0, 0, 0, high, low], about)
}

// RFC 1071 §4.1.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}
