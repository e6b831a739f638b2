//! What a peer with the right key sends, whatever is inside: each way of decapsulation takes it, loses no frame by it, and
//! lets nothing in that the policies do not.
//!
//! The kinds of SA differ in what is under the ESP or AH header. What comes before the ICV is checked is for anyone to
//! forge: there, the octets are sealed by nobody, and stand behind what else may be in front of them.
#![no_main]

#[path = "../../datapath/crypto/tests/rustcrypto/mod.rs"]
mod rustcrypto;
#[path = "../../datapath/tests/testbed/mod.rs"]
mod testbed;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use portcullis_datapath::{nexthop::HELD_FRAMES, pool::FrameCache, wire};
use portcullis_sadb::{Aggfrag, Algorithm, Handling, Mode, Protocol};
use ring::hmac;
use std::{cell::RefCell, net::IpAddr};
use testbed::{Gateway, LAN, Tunnel, WAN, ethernet_ip, frame, inside, key, lan, memory, spi};

/// Ways of decapsulation, each at a gateway of its own.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Tunnel,
    Tunnel6,
    Udp,
    Transport,
    Transport6,
    Gre,
    Nested,
    Aggfrag,
    Ah,
    Ah6,
    AhTransport,
}

const KINDS: [Kind; 11] = [
    Kind::Tunnel,
    Kind::Tunnel6,
    Kind::Udp,
    Kind::Transport,
    Kind::Transport6,
    Kind::Gre,
    Kind::Nested,
    Kind::Aggfrag,
    Kind::Ah,
    Kind::Ah6,
    Kind::AhTransport,
];

#[derive(Arbitrary, Debug)]
struct Sent<'a> {
    /// Sealed as the peer would; else as it is, behind the sequence number, and behind these.
    sealed: bool,
    forged: Forged<'a>,
    /// What is under the header: for ESP with its trailer, if that is there.
    next: u8,
    octets: &'a [u8],
    /// The octets are the payload of a packet between the hosts that the policies let through, all in order but for one
    /// octet.
    within: Option<Within>,
}

/// Of what nobody has sealed.
#[derive(Arbitrary, Debug)]
struct Forged<'a> {
    /// How long the AH says that it is.
    ah_len: u8,
    /// Options of IPv4, or extension headers of IPv6, each of a kind.
    front: Vec<(Extension, &'a [u8])>,
}

/// By their protocol numbers.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Extension {
    HopByHop = 0,
    Routing = 43,
    Destination = 60,
}

#[derive(Arbitrary, Debug)]
struct Within {
    v4: bool,
    protocol: u8,
    wrong: (u16, u8),
}

struct Bench {
    gateway: Gateway,
    cache: FrameCache,
    tunnel: Tunnel,
    seq: u64,
}

impl Bench {
    fn new(kind: Kind) -> Bench {
        let ah = Algorithm::by_name(Protocol::Ah, "hmac-sha2-256-128").expect("in the table");
        let aggfrag = Some(Aggfrag { packet_size: 1400, packets_per_sec: 0, fragments: true });
        let mut t = Tunnel { tells: true, ..Tunnel::default() };
        match kind {
            Kind::Tunnel => {}
            Kind::Tunnel6 => t.outer_v4 = false,
            Kind::Udp => t.udp = true,
            Kind::Transport => t.mode = Mode::Transport,
            Kind::Transport6 => (t.mode, t.outer_v4) = (Mode::Transport, false),
            Kind::Gre => {
                (t.mode, t.handling) = (Mode::Transport, Handling { gre: true, ..Handling::default() })
            }
            Kind::Nested => t.handling = Handling { nested: true, ..Handling::default() },
            Kind::Aggfrag => t.handling = Handling { aggfrag, ..Handling::default() },
            Kind::Ah => (t.protocol, t.algorithm) = (Protocol::Ah, ah),
            Kind::Ah6 => (t.protocol, t.algorithm, t.outer_v4) = (Protocol::Ah, ah, false),
            Kind::AhTransport => (t.protocol, t.algorithm, t.mode) = (Protocol::Ah, ah, Mode::Transport),
        }
        // Few, so that a frame that is lost each time is missed soon; but some wait for their neighbour, and caches hold some.
        let pool = memory(HELD_FRAMES as u32 + 256);
        Bench { gateway: Gateway::new(t, 1, &pool), cache: pool.cache(), tunnel: t, seq: 0 }
    }

    /// The packet that the octets are in, and the number of its protocol.
    fn within(&self, sent: &Sent<'_>) -> (Vec<u8>, u8) {
        let Some(within) = &sent.within else { return (sent.octets.to_vec(), sent.next) };
        let (src, dst) = (inside(2, within.v4), inside(1, within.v4));
        let mut packet = ethernet_ip(src, dst, within.protocol, 64, sent.octets)[2..].to_vec();
        let at = within.wrong.0 as usize % packet.len();
        packet[at] ^= within.wrong.1;
        let ethertype = if within.v4 { [8, 0] } else { [0x86, 0xdd] };
        let trailer = if self.tunnel.protocol == Protocol::Esp { &[0][..] } else { &[] };
        match self.tunnel.handling {
            // RFC 2784 §2.1.
            Handling { gre: true, .. } => ([&[0, 0], &ethertype[..], &packet, trailer].concat(), 47),
            // RFC 9347 §6.1.
            Handling { aggfrag: Some(_), .. } => ([&[0; 4], &packet[..], trailer].concat(), 144),
            _ if self.tunnel.mode == Mode::Transport => {
                (packet.split_off(if within.v4 { 20 } else { 40 }), within.protocol)
            }
            _ => ([&packet[..], trailer].concat(), if within.v4 { 4 } else { 41 }),
        }
    }

    /// The frame that brings it.
    fn frame(&mut self, sent: &Sent<'_>) -> Vec<u8> {
        self.seq += 1;
        let (inner, next) = self.within(sent);
        let sa = testbed::sa(&self.tunnel, 1, 2, 1);
        let head = [spi(1).to_be_bytes(), (self.seq as u32).to_be_bytes()].concat();
        let payload = match (self.tunnel.protocol, sent.sealed) {
            (Protocol::Esp, false) => [&head[..], &inner].concat(),
            // RFC 4302 §2
            (Protocol::Ah, false) => [&[next, sent.forged.ah_len, 0, 0], &head[..], &inner].concat(),
            (Protocol::Esp, true) => {
                let iv = self.seq.to_be_bytes();
                // RFC 4106 §5, with the high half of the sequence number.
                let aad = [&spi(1).to_be_bytes()[..], &iv].concat();
                // RFC 4303 §2.4: as long as the cipher wants; what the padding is, is for the octets to say.
                let mut plain = inner;
                while !(plain.len() + 1).is_multiple_of(4) {
                    plain.push(0);
                }
                plain.push(next);
                let text = rustcrypto::seal(&key(1, self.tunnel.algorithm), iv, &aad, &plain);
                [&head[..], &iv, &text].concat()
            }
            (Protocol::Ah, true) => ah((&inner, next), &self.tunnel, (sa.src, sa.dst), self.seq),
        };
        let payload = match self.tunnel.udp {
            true => {
                let length = (8 + payload.len() as u16).to_be_bytes();
                [&4500u16.to_be_bytes()[..], &4500u16.to_be_bytes(), &length, &[0, 0], &payload].concat()
            }
            false => payload,
        };
        let protocol = if self.tunnel.udp { 17 } else { self.tunnel.protocol as u8 };
        let front = if sent.sealed { &[][..] } else { &sent.forged.front };
        [&[2; 12][..], &behind(front, (sa.src, sa.dst), protocol, &payload)].concat()
    }

    fn receive(&mut self, sent: &Sent<'_>) {
        let bytes = self.frame(sent);
        let frame = frame(&mut self.cache, &bytes);
        for (port, frame) in self.gateway.pass(WAN, frame) {
            let mut out = vec![0; frame.total_len()];
            frame.gather(&mut out);
            assert!(port != LAN || is_let_in(&out[12..]), "{out:02x?}");
            self.cache.give(frame);
        }
    }
}

/// What comes out at the LAN is from inside the peer and for what is inside here, or from the gateway itself, which may have
/// to tell somebody of an error.
fn is_let_in(packet: &[u8]) -> bool {
    let ip = &packet[2..];
    let (src, dst, protocol, nets, icmp) = match packet[..2] {
        [8, 0] => (&ip[12..16], &ip[16..20], ip[9], [&[10, 2][..], &[10, 1]], 1),
        [0x86, 0xdd] => (&ip[8..24], &ip[24..40], ip[6], [&[0xfd, 0, 0, 2][..], &[0xfd, 0, 0, 1]], 58),
        _ => return false,
    };
    let is_ours = match lan(1, src.len() == 4) {
        IpAddr::V4(ours) => src == ours.octets(),
        IpAddr::V6(ours) => src == ours.octets(),
    };
    dst.starts_with(nets[1]) && (src.starts_with(nets[0]) || is_ours && protocol == icmp)
}

/// EtherType and IP packet, with options or extension headers in front of its payload.
fn behind(
    front: &[(Extension, &[u8])],
    (src, dst): (IpAddr, IpAddr),
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    if src.is_ipv4() {
        let mut options: Vec<u8> = front.iter().flat_map(|(_, octets)| *octets).copied().take(40).collect();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut packet = ethernet_ip(src, dst, protocol, 64, &[&options, payload].concat());
        packet[2] += (options.len() / 4) as u8;
        packet[12..14].fill(0);
        let checksum = !wire::fold(wire::sum(&packet[2..22 + options.len()]));
        packet[12..14].copy_from_slice(&checksum.to_be_bytes());
        return packet;
    }
    let (mut first, mut behind) = (protocol, payload.to_vec());
    for (kind, octets) in front.iter().take(4).rev() {
        // RFC 8200 §4.3: the length is in units of 8 octets, without the first.
        let octets = &octets[..octets.len().min(256)];
        let mut header = vec![first, ((octets.len() + 1) / 8) as u8];
        header.extend(octets);
        header.resize(header.len().next_multiple_of(8), 0);
        (first, behind) = (*kind as u8, [header, behind].concat());
    }
    ethernet_ip(src, dst, first, 64, &behind)
}

/// RFC 4302 §3.3.3: the mutable fields are zeros when the ICV is computed. These headers have no options.
fn ah((inner, next): (&[u8], u8), t: &Tunnel, (src, dst): (IpAddr, IpAddr), seq: u64) -> Vec<u8> {
    let icv_len = t.algorithm.icv_len();
    let words = (12 + icv_len).next_multiple_of(if src.is_ipv4() { 4 } else { 8 });
    let mut header = vec![next, (words / 4 - 2) as u8, 0, 0];
    header.extend(spi(1).to_be_bytes());
    header.extend((seq as u32).to_be_bytes());
    header.resize(words, 0);
    header.extend(inner);
    let mut covered = ethernet_ip(src, dst, 51, 0, &header)[2..].to_vec();
    if src.is_ipv4() {
        covered[10..12].fill(0);
    }
    covered.extend(((seq >> 32) as u32).to_be_bytes());
    let icv = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key(1, t.algorithm)), &covered);
    header[12..12 + icv_len].copy_from_slice(&icv.as_ref()[..icv_len]);
    header
}

thread_local! {
    static BENCHES: RefCell<Vec<Bench>> = RefCell::new(KINDS.map(Bench::new).into());
}

fuzz_target!(|input: (Kind, Vec<Sent<'_>>)| {
    let (kind, packets) = input;
    BENCHES.with_borrow_mut(|benches| {
        for sent in packets.iter().filter(|sent| sent.octets.len() < 4000) {
            benches[kind as usize].receive(sent);
        }
    });
});
