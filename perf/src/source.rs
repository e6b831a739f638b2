//! A source of UDP packets over AF_XDP, as fast as the interface takes them or at a rate.

use crate::interface::Interfaces;
use arrayvec::ArrayVec;
use portcullis_datapath::{batch::BATCH, fib::Mac, frame::Frame, port::Port, wire};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// Octets of a frame besides the IP packet: Ethernet header and FCS.
const ETHERNET_AND_FCS: usize = 18;

/// What to send.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The next hop.
    pub dst_mac: Mac,
    /// From where.
    pub src: Ipv4Addr,
    /// To where.
    pub dst: Ipv4Addr,
    /// Octets of a frame as the field counts them, FCS included: 64 is an IP packet of 46.
    pub frame_size: usize,
    /// Flows, by source port.
    pub flows: u16,
    /// Frames per second; as fast as it goes if not given.
    pub rate: Option<u64>,
    /// How long.
    pub duration: Duration,
}

/// Sends, and returns how many frames the interface took.
pub fn run(interfaces: &mut Interfaces, stream: &Stream) -> u64 {
    let src_mac = interfaces.links[0].mac;
    let (start, mut sent, mut flow) = (Instant::now(), 0u64, 0u16);
    let mut frames = ArrayVec::<Frame, BATCH>::new();
    loop {
        let elapsed = start.elapsed();
        if elapsed >= stream.duration {
            return sent;
        }
        let due = stream.rate.map_or(u64::MAX, |r| (elapsed.as_nanos() * r as u128 / 1_000_000_000) as u64);
        let port = &mut interfaces.ports[0];
        while !frames.is_full() && sent + (frames.len() as u64) < due {
            let Some(mut frame) = interfaces.cache.take() else { break };
            flow = if flow + 1 < stream.flows { flow + 1 } else { 0 };
            fill(&mut frame, stream, src_mac, flow);
            frames.push(frame);
        }
        let before = frames.len();
        port.tx(&mut frames);
        sent += (before - frames.len()) as u64;
        port.maintain(&mut interfaces.cache);
    }
}

fn fill(frame: &mut Frame, stream: &Stream, src_mac: Mac, flow: u16) {
    let ip_len = stream.frame_size.saturating_sub(ETHERNET_AND_FCS).max(wire::IPV4 + wire::UDP);
    if !frame.extend(wire::ETHERNET + ip_len) {
        return;
    }
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&stream.dst_mac.0);
    bytes[6..12].copy_from_slice(&src_mac.0);
    bytes[12..14].copy_from_slice(&wire::ETHERTYPE_IPV4.to_be_bytes());
    let (ip, udp) = bytes[14..].split_at_mut(wire::IPV4);
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ip[2..4].copy_from_slice(&(ip_len as u16).to_be_bytes());
    ip[12..16].copy_from_slice(&stream.src.octets());
    ip[16..20].copy_from_slice(&stream.dst.octets());
    let checksum = !wire::fold(wire::sum(ip));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    udp[..2].copy_from_slice(&(10_000 + flow).to_be_bytes());
    udp[2..4].copy_from_slice(&9u16.to_be_bytes()); // discard
    udp[4..6].copy_from_slice(&((ip_len - wire::IPV4) as u16).to_be_bytes());
    udp[6..8].fill(0);
}
