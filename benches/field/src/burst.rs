//! A burst of ESP-shaped packets in memory: SPI, sequence number, IV, text, ICV.

use portcullis_datapath::crypto::{HEAD, ICV};

/// Packets of a burst.
pub const PACKETS: usize = 32;
/// Octets of the longest text.
pub const LONGEST: u32 = 9000;

const SPI: u32 = 0x1000_0001;
const LINE: usize = 64;

/// How packets lie in memory.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Octets from one packet to the next.
    pub stride: usize,
    /// Octets that a text begins behind a cache line.
    pub shift: usize,
}

/// The packets.
pub struct Burst {
    memory: Vec<u8>,
    start: usize,
    stride: usize,
    lens: [u32; PACKETS],
}

impl Burst {
    /// Packets with texts of these lengths, numbered from `first` on.
    pub fn new(layout: &Layout, lens: &[u32; PACKETS], first: u64) -> Burst {
        let stride = layout.stride;
        let memory = vec![0; (PACKETS + 1) * stride + 2 * LINE + HEAD];
        let line = memory.as_ptr().align_offset(LINE) + LINE;
        let start = line + layout.shift % LINE - HEAD;
        let mut burst = Burst { memory, start, stride, lens: *lens };
        for (i, packet) in burst.packets().enumerate() {
            packet.iter_mut().enumerate().for_each(|(j, octet)| *octet = (i * 7 + j * 31) as u8);
        }
        burst.number(first);
        burst
    }

    /// The lengths of the texts.
    #[cfg(ipsec_mb)]
    pub fn lens(&self) -> &[u32; PACKETS] {
        &self.lens
    }

    /// Each packet from its SPI to the end of its ICV.
    #[inline]
    pub fn packets(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let chunks = self.memory[self.start..].chunks_exact_mut(self.stride);
        chunks.zip(&self.lens).map(|(chunk, len)| &mut chunk[..HEAD + *len as usize + ICV])
    }

    /// Gives the packets sequence numbers and IVs that they did not have.
    pub fn number(&mut self, first: u64) {
        for (packet, number) in self.packets().zip(first..) {
            packet[..4].copy_from_slice(&SPI.to_be_bytes());
            packet[4..8].copy_from_slice(&(number as u32).to_be_bytes());
            packet[8..HEAD].copy_from_slice(&number.to_be_bytes());
        }
    }

    /// Becomes the same as `other`, where it lies.
    pub fn copy(&mut self, other: &mut Burst) {
        self.lens = other.lens;
        self.packets().zip(other.packets()).for_each(|(to, from)| to.copy_from_slice(from));
    }

    /// Where packet 0 begins, and how far it is to the next.
    #[cfg(ipsec_mb)]
    pub fn raw(&mut self) -> (*mut u8, usize) {
        (self.memory[self.start..].as_mut_ptr(), self.stride)
    }
}

/// The head's parts, and the text with its ICV.
#[inline]
pub fn split(packet: &mut [u8]) -> ([u8; 8], [u8; 8], &mut [u8]) {
    let (head, rest) = packet.split_at_mut(HEAD);
    (*head.first_chunk().expect("HEAD octets"), *head.last_chunk().expect("HEAD octets"), rest)
}
