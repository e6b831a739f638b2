//! Clear packets: templates that are written into frames.
//!
//! ```text
//!  Ethernet | IP | UDP | stamp | octets that count up
//! ```

use super::{
    flows::{Choice, Flow, Flows, FlowsError},
    stamp::{STAMP, Stamp},
};
use crate::traffic::{Mix, Random};
use portcullis_datapath::{
    fib::Mac,
    frame::Frame,
    pool::FrameCache,
    wire::{self, ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4, IPV6, UDP, protocol},
};
use portcullis_sadb::prefetch_at;
use std::net::IpAddr;
use thiserror::Error;

/// A stream of clear packets.
#[derive(Clone, PartialEq, Debug)]
pub struct Stream {
    /// The next hop.
    pub dst_mac: Mac,
    /// The port's own address.
    pub src_mac: Mac,
    /// Lengths of IP packets.
    pub mix: Mix,
    /// Of which flows they are.
    pub flows: Flows,
    /// Whether packets are stamped. Those that are not can only be counted, all together.
    pub stamped: bool,
    /// The number that stamps have of the first flow.
    pub first_flow: u32,
    /// The number of the run: its packets are told from those of others by it.
    pub run: u64,
}

/// Why there is no such stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum StreamError {
    /// Of its flows.
    #[error(transparent)]
    Flows(#[from] FlowsError),
    /// Packets without room for what is in all.
    #[error("packets of {octets} octets: with headers and a stamp they have at least {least}")]
    TooShort {
        /// Octets of the shortest.
        octets: u16,
        /// What it must have.
        least: usize,
    },
}

/// IP and UDP headers of a flow, but for lengths and checksums, and what its next packet needs. A cache line.
#[derive(Clone)]
#[repr(C, align(64))]
struct Head {
    bytes: [u8; IPV6 + UDP],
    /// Packets so far.
    number: u32,
    /// IPv4: the sum of the IP header. IPv6: of the pseudo-header and the ports.
    sum: u32,
}

const _: () = assert!(size_of::<Head>() == 64);

/// Writes the packets of a stream, one after the other. Nothing is allocated after the start.
pub struct Writer {
    ethernet: [u8; ETHERNET],
    heads: Vec<Head>,
    /// Octets of IP and UDP headers.
    headers: usize,
    /// Lengths of packets, to be repeated, and which is next.
    lengths: Vec<u16>,
    at: usize,
    /// What is behind the stamp, in the longest packet, and for IPv6 its sum, by length.
    filling: Vec<u8>,
    /// A packet too long for a chunk is made here.
    long: Vec<u8>,
    flow: u32,
    packets: Choice,
    random: Random,
    stamped: bool,
    first_flow: u32,
    run: u64,
}

impl Writer {
    /// The writer of a stream.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn new(stream: &Stream) -> Result<Writer, StreamError> {
        let flows = stream.flows.all()?;
        let v4 = flows.iter().all(|f| f.src.is_ipv4());
        let headers = if v4 { IPV4 } else { IPV6 } + UDP;
        let least = headers + if stream.stamped { STAMP } else { 0 };
        let lengths = stream.mix.pattern(stream.flows.seed);
        let shortest = lengths.iter().copied().min().unwrap_or(0);
        if (shortest as usize) < least {
            return Err(StreamError::TooShort { octets: shortest, least });
        }
        let ethertype = if v4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let mut ethernet = [0; ETHERNET];
        ethernet[..6].copy_from_slice(&stream.dst_mac.0);
        ethernet[6..12].copy_from_slice(&stream.src_mac.0);
        ethernet[12..].copy_from_slice(&ethertype.to_be_bytes());
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        Ok(Writer {
            ethernet,
            heads: flows.iter().map(Head::new).collect(),
            headers,
            lengths,
            at: 0,
            filling: (0..longest - headers).map(|i| i as u8).collect(),
            long: vec![0; ETHERNET + longest],
            flow: 0,
            packets: stream.flows.packets,
            random: Random::new(stream.flows.seed ^ 0x5eed),
            stamped: stream.stamped,
            first_flow: stream.first_flow,
            run: stream.run,
        })
    }

    /// Another flow, of the same version of IP; its next packet is the next of all where they have flows in turn.
    pub fn add(&mut self, flow: &Flow) {
        self.flow = self.heads.len() as u32;
        self.heads.push(Head::new(flow));
    }

    /// Octets of the longest packet, as IP has it.
    pub fn longest(&self) -> usize {
        self.long.len() - ETHERNET
    }

    /// Which flow the next packet is of. What it needs is on its way into the cache.
    #[inline]
    pub fn pick(&mut self) -> u32 {
        let flows = self.heads.len() as u32;
        let flow = match self.packets {
            _ if flows == 1 => 0,
            Choice::InTurn => {
                let flow = self.flow;
                self.flow = if flow + 1 < flows { flow + 1 } else { 0 };
                flow
            }
            Choice::Random => self.random.below(flows),
        };
        prefetch_at(std::ptr::from_ref(&self.heads[flow as usize]));
        flow
    }

    /// Makes an empty frame the next packet of a flow, which was due at some clock. False, and no packet is gone, if the
    /// cache has too few chunks.
    #[inline]
    #[must_use]
    pub fn write(&mut self, frame: &mut Frame, flow: u32, due: u64, cache: &mut FrameCache) -> bool {
        let len = self.lengths[self.at];
        let octets = ETHERNET + len as usize;
        if !frame.extend(octets) {
            return self.write_long(frame, flow, due, cache);
        }
        self.fill(frame.bytes_mut(), flow, due);
        self.step();
        true
    }

    #[cold]
    fn write_long(&mut self, frame: &mut Frame, flow: u32, due: u64, cache: &mut FrameCache) -> bool {
        let mut long = std::mem::take(&mut self.long);
        let octets = ETHERNET + self.lengths[self.at] as usize;
        self.fill(&mut long[..octets], flow, due);
        let has_room = frame.scatter(&long[..octets], cache);
        self.long = long;
        if has_room {
            self.step();
        } else {
            self.take_back(flow);
        }
        has_room
    }

    /// Takes a packet back that was just written: the next one of its flow has its number.
    pub fn take_back(&mut self, flow: u32) {
        let head = &mut self.heads[flow as usize];
        head.number = head.number.wrapping_sub(1);
    }

    #[inline]
    fn step(&mut self) {
        self.at = if self.at + 1 < self.lengths.len() { self.at + 1 } else { 0 };
    }

    /// The whole packet; there is room for headers and stamp.
    #[inline]
    fn fill(&mut self, bytes: &mut [u8], flow: u32, due: u64) {
        let head = &mut self.heads[flow as usize];
        let (ethernet, ip) = bytes.split_at_mut(ETHERNET);
        ethernet.copy_from_slice(&self.ethernet);
        let len = ip.len();
        let (headers, payload) = ip.split_at_mut(self.headers);
        let filled = if self.stamped {
            let stamp = Stamp { flow: self.first_flow + flow, number: head.number, due }.emit(self.run);
            payload[..STAMP].copy_from_slice(&stamp);
            STAMP
        } else {
            0
        };
        head.number = head.number.wrapping_add(1);
        let filling = &self.filling[filled..payload.len()];
        payload[filled..].copy_from_slice(filling);
        match headers.first_chunk_mut() {
            _ if self.headers == IPV6 + UDP => head.emit_v6(headers, payload, len),
            Some(headers) => head.emit_v4(headers, len),
            None => {}
        }
    }

    /// Packets written so far, of each flow. They are the lower 32 bits of that.
    pub fn written(&self) -> impl Iterator<Item = u32> {
        self.heads.iter().map(|head| head.number)
    }

    /// Starts all flows again, as those of another run.
    pub fn restart(&mut self, run: u64) {
        self.run = run;
        self.heads.iter_mut().for_each(|head| head.number = 0);
    }
}

impl Head {
    fn new(flow: &Flow) -> Head {
        let mut bytes = [0; IPV6 + UDP];
        let (ip, sum) = match (flow.src, flow.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                // Don't fragment: its identification means nothing (RFC 6864 §4.1).
                bytes[..IPV4 - 8].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol::UDP, 0, 0]);
                bytes[12..16].copy_from_slice(&src.octets());
                bytes[16..20].copy_from_slice(&dst.octets());
                (IPV4, wire::sum(&bytes[..IPV4]))
            }
            (src, dst) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V6(a) => a.octets(),
                    IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
                };
                (bytes[0], bytes[6], bytes[7]) = (0x60, protocol::UDP, 64);
                bytes[8..24].copy_from_slice(&octets(src));
                bytes[24..40].copy_from_slice(&octets(dst));
                (IPV6, wire::sum(&bytes[8..IPV6]) + protocol::UDP as u32)
            }
        };
        bytes[ip..ip + 2].copy_from_slice(&flow.src_port.to_be_bytes());
        bytes[ip + 2..ip + 4].copy_from_slice(&flow.dst_port.to_be_bytes());
        let ports = if ip == IPV6 { flow.src_port as u32 + flow.dst_port as u32 } else { 0 };
        Head { bytes, number: 0, sum: sum + ports }
    }

    #[inline]
    fn emit_v4(&self, headers: &mut [u8; IPV4 + UDP], len: usize) {
        headers.copy_from_slice(&self.bytes[..IPV4 + UDP]);
        let checksum = !wire::fold(self.sum + len as u32);
        headers[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        headers[10..12].copy_from_slice(&checksum.to_be_bytes());
        // RFC 768: no checksum of UDP.
        headers[24..26].copy_from_slice(&((len - IPV4) as u16).to_be_bytes());
    }

    /// With the checksum of UDP, which IPv6 wants (RFC 8200 §8.1).
    #[inline]
    fn emit_v6(&self, headers: &mut [u8], payload: &[u8], len: usize) {
        headers.copy_from_slice(&self.bytes);
        let udp = (len - IPV6) as u16;
        // The length is in the pseudo-header and in UDP's own.
        let sum = self.sum + 2 * udp as u32 + wire::fold(wire::sum(payload)) as u32;
        let checksum = match !wire::fold(sum) {
            0 => 0xffff,
            checksum => checksum,
        };
        headers[4..6].copy_from_slice(&udp.to_be_bytes());
        headers[IPV6 + 4..IPV6 + 6].copy_from_slice(&udp.to_be_bytes());
        headers[IPV6 + 6..].copy_from_slice(&checksum.to_be_bytes());
    }
}
