//! Packets that tests are made of.

use super::fragment::write_checksum;
use crate::wire::{IPV4, IPV6};

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2; options are filled up to four octets.
pub fn v4(protocol: u8, id: u16, flags: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = IPV4 + options.len().next_multiple_of(4);
    let mut p = vec![0; header];
    p[0] = 0x40 | (header / 4) as u8;
    p[2..4].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    p[4..6].copy_from_slice(&id.to_be_bytes());
    p[6..8].copy_from_slice(&flags.to_be_bytes());
    (p[8], p[9]) = (64, protocol);
    p[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    p[IPV4..IPV4 + options.len()].copy_from_slice(options);
    write_checksum(&mut p);
    p.extend(payload);
    p
}

/// An IPv6 packet from fd00::1 to fd00::2.
pub fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0; IPV6];
    p[0] = 0x60;
    p[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    (p[6], p[7]) = (next, 64);
    (p[8], p[23], p[24], p[39]) = (0xfd, 1, 0xfd, 2);
    p.extend(payload);
    p
}

/// Octets that differ from their neighbours and from those a block away.
pub fn octets(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 256 * 3 + i / 2048) as u8).collect()
}
