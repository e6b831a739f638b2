//! NATs on the way of ESP in UDP: peers that move, keepalives, checksums (RFC 3948, RFC 7296 §2.23).

mod testbed;

use portcullis_datapath::{drop::DropReason, frame::Frame, pool::FrameCache, wire};
use portcullis_sadb::*;
use std::{net::IpAddr, sync::Arc};
use testbed::*;

/// Gateway 1 follows its peer, gateway 2, which is behind a NAT.
struct Pair {
    gateways: [Gateway; 2],
    pool: Arc<portcullis_datapath::pool::FramePool>,
    cache: FrameCache,
}

/// A packet on the wire, without its Ethernet header.
type Packet = Vec<u8>;

impl Pair {
    fn new(tunnel: Tunnel) -> Pair {
        let pool = memory(1024);
        let tunnel = Tunnel { udp: true, tells: true, ..tunnel };
        let gateways = [1, 2].map(|n| Gateway::new(tunnel, n, &pool));
        let cache = pool.cache();
        Pair { gateways, pool, cache }
    }

    /// What gateway N has sealed of a packet from behind it.
    fn seal(&mut self, n: u8) -> Packet {
        let clear = frame(&mut self.cache, &udp(inside(n, true), inside(3 - n, true), 64, 64));
        let mut out = self.gateways[n as usize - 1].pass(LAN, clear);
        assert_eq!(out.len(), 1, "gateway {n}: {:?}", self.gateways[n as usize - 1].drops());
        let (port, sealed) = out.remove(0);
        assert_eq!(port, WAN);
        self.take(sealed)
    }

    /// Whether gateway N takes a packet from the wire and lets out what is in it.
    fn opens(&mut self, n: u8, packet: &[u8]) -> bool {
        let ethertype: &[u8] = if packet[0] >> 4 == 4 { &[8, 0] } else { &[0x86, 0xdd] };
        let bytes = [&[2; 12], ethertype, packet].concat();
        let out = self.gateways[n as usize - 1].pass(WAN, frame(&mut self.cache, &bytes));
        let opened = out.len();
        for (port, frame) in out {
            assert_eq!(port, LAN);
            self.cache.give(frame);
        }
        opened == 1
    }

    fn take(&mut self, frame: Frame) -> Packet {
        let mut bytes = vec![0; frame.total_len()];
        frame.gather(&mut bytes);
        self.cache.give(frame);
        bytes.split_off(14)
    }

    /// What gateway 1 was told of its peer since the last time.
    fn moves(&mut self) -> Vec<Endpoint> {
        let gateway = &mut self.gateways[0];
        let inbound = (gateway.inbound, gateway.sadb.sa(gateway.inbound).unwrap().0);
        std::iter::from_fn(|| gateway.sadb.poll_event())
            .map(|event| {
                assert_eq!((event.slot, event.generation), inbound);
                event.endpoint().expect("nothing else happens")
            })
            .collect()
    }

    /// As iked does.
    fn lead(&mut self, to: Endpoint) {
        let gateway = &mut self.gateways[0];
        for slot in [gateway.inbound, gateway.outbound] {
            gateway.sadb.set_endpoint(slot, to).unwrap();
        }
    }
}

fn header_len(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { 20 } else { 40 }
}

/// The same packet as a NAT sends it on, from another address and port.
fn translated(packet: &[u8], from: Endpoint) -> Packet {
    let mut packet = packet.to_vec();
    let at = header_len(&packet);
    match from.addr() {
        IpAddr::V4(a) => {
            packet[12..16].copy_from_slice(&a.octets());
            packet[10..12].fill(0);
            let checksum = !wire::fold(wire::sum(&packet[..20]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        IpAddr::V6(a) => packet[8..24].copy_from_slice(&a.octets()),
    }
    packet[at..at + 2].copy_from_slice(&from.port().to_be_bytes());
    packet
}

/// Where a packet goes to.
fn destination(packet: &[u8]) -> Endpoint {
    let at = header_len(packet);
    let addr = match at {
        20 => IpAddr::from(*packet[16..].first_chunk::<4>().unwrap()),
        _ => IpAddr::from(*packet[24..].first_chunk::<16>().unwrap()),
    };
    Endpoint::new(addr, wire::be16(packet, at + 2)).unwrap()
}

/// The number of a packet, as far as the wire has it.
fn seq_lo(packet: &[u8]) -> u32 {
    wire::be32(packet, header_len(packet) + 8 + 4)
}

fn elsewhere(n: u8, v4: bool) -> Endpoint {
    let addr = if v4 { format!("203.0.113.{n}") } else { format!("2001:db8:77::{n}") };
    Endpoint::new(ip(&addr), 40_000 + n as u16).unwrap()
}

/// The plain and the general path, over both versions of IP.
fn tunnels(encap: UdpEncap) -> impl Iterator<Item = Tunnel> {
    [Algorithm::AES_GCM_128, Algorithm::by_name(Protocol::Esp, "chacha20-poly1305").unwrap()]
        .into_iter()
        .flat_map(move |algorithm| {
            [true, false].map(|outer_v4| Tunnel { algorithm, outer_v4, encap, ..Tunnel::default() })
        })
}

const FOLLOW: UdpEncap = UdpEncap { follow_peer: true, ..UdpEncap::between(4500, 4500) };

#[test]
fn a_peer_is_followed_by_its_newest_packet_and_told_once() {
    for tunnel in tunnels(FOLLOW) {
        let mut pair = Pair::new(tunnel);
        let v4 = tunnel.outer_v4;
        let home = Endpoint::new(outer(2, v4), 4500).unwrap();
        let (a, b) = (elsewhere(1, v4), elsewhere(2, v4));
        let first = pair.seal(2);
        assert!(pair.opens(1, &first));
        assert_eq!(pair.moves(), [], "it is where it was said to be");

        // RFC 7296 §2.23: told once, whatever more comes from there.
        let sealed: Vec<_> = (0..8).map(|_| pair.seal(2)).collect();
        for packet in &sealed[..4] {
            assert!(pair.opens(1, &translated(packet, a)));
        }
        assert_eq!(pair.moves(), [a]);
        assert_eq!(destination(&pair.seal(1)), home, "iked has not said anything yet");
        pair.lead(a);
        let before = pair.seal(1);
        assert_eq!(destination(&before), a);
        assert!(pair.opens(1, &translated(&sealed[4], a)));
        assert_eq!(pair.moves(), []);

        // An old packet that comes late from where the peer was draws nothing back.
        assert!(pair.opens(1, &translated(&sealed[6], a)));
        assert!(pair.opens(1, &translated(&sealed[5], home)));
        assert_eq!(pair.moves(), []);
        // Nor does one that was received already, or one that is forged.
        assert!(!pair.opens(1, &translated(&sealed[6], b)));
        let mut forged = translated(&sealed[7], b);
        *forged.last_mut().unwrap() ^= 1;
        assert!(!pair.opens(1, &forged));
        assert_eq!(pair.moves(), []);
        assert_eq!(destination(&pair.seal(1)), a);

        // The next move; and numbers and window have gone on through all that.
        assert!(pair.opens(1, &translated(&sealed[7], b)));
        assert_eq!(pair.moves(), [b]);
        pair.lead(b);
        let after = pair.seal(1);
        assert_eq!((destination(&after), seq_lo(&after)), (b, seq_lo(&before) + 2));
        for packet in &sealed {
            assert!(!pair.opens(1, &translated(packet, b)), "no window was lost");
        }
        // What is sent there is what the peer opens, once the NAT has sent it on.
        let mut home_again = after;
        let at = header_len(&home_again);
        home_again[at + 2..at + 4].copy_from_slice(&4500u16.to_be_bytes());
        match outer(2, v4) {
            IpAddr::V4(addr) => home_again[16..20].copy_from_slice(&addr.octets()),
            IpAddr::V6(addr) => home_again[24..40].copy_from_slice(&addr.octets()),
        }
        if v4 {
            home_again[10..12].fill(0);
            let checksum = !wire::fold(wire::sum(&home_again[..20]));
            home_again[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        assert!(pair.opens(2, &home_again));
    }
}

#[test]
fn a_peer_that_is_not_to_be_followed_is_not() {
    for tunnel in tunnels(UdpEncap::between(4500, 4500)) {
        let mut pair = Pair::new(tunnel);
        let packet = pair.seal(2);
        assert!(pair.opens(1, &translated(&packet, elsewhere(1, tunnel.outer_v4))));
        assert_eq!(pair.moves(), []);
    }
}

/// A peer that comes from everywhere has one move told until iked has said where it is.
#[test]
fn a_peer_that_comes_from_everywhere_does_not_fill_the_ring() {
    for tunnel in tunnels(FOLLOW) {
        let (mut pair, v4) = (Pair::new(tunnel), tunnel.outer_v4);
        for n in 1..50 {
            let packet = pair.seal(2);
            assert!(pair.opens(1, &translated(&packet, elsewhere(n, v4))));
        }
        assert_eq!(pair.moves(), [elsewhere(1, v4)]);
        pair.lead(elsewhere(1, v4));
        let packet = pair.seal(2);
        assert!(pair.opens(1, &translated(&packet, elsewhere(50, v4))));
        assert_eq!(pair.moves(), [elsewhere(50, v4)]);
    }
}

/// Where the numbers of a whole life meet the place that changes: no number comes twice, whoever restarts.
#[test]
fn a_restarted_datapath_goes_on_with_the_place_and_the_numbers() {
    for tunnel in tunnels(FOLLOW) {
        let (mut pair, v4) = (Pair::new(tunnel), tunnel.outer_v4);
        let mut last = seq_lo(&pair.seal(1));
        for n in 1..4 {
            pair.lead(elsewhere(n, v4));
            let packet = pair.seal(1);
            assert_eq!(destination(&packet), elsewhere(n, v4));
            assert!(seq_lo(&packet) > last);
            last = seq_lo(&packet);
            let received = pair.seal(2);
            assert!(pair.opens(1, &translated(&received, elsewhere(n, v4))));
            pair.gateways[0].stop(&mut pair.cache);
            let pool = pair.pool.clone();
            pair.gateways[0].start(1, &pool);
            assert!(!pair.opens(1, &translated(&received, elsewhere(n, v4))), "seen is seen");
            let packet = pair.seal(1);
            assert_eq!(destination(&packet), elsewhere(n, v4), "of the SADB, whoever has died");
            assert!(seq_lo(&packet) > last);
            last = seq_lo(&packet);
            assert_eq!(pair.moves(), []);
        }
    }
}

/// RFC 3948 §2.3, §4: one octet, by the way of the SA's packets, when none has left for so long.
#[test]
fn a_keepalive_leaves_when_nothing_else_has() {
    for tunnel in tunnels(UdpEncap { keepalive_secs: 20, ..UdpEncap::between(4501, 4500) }) {
        let mut pair = Pair::new(tunnel);
        let v4 = tunnel.outer_v4;
        // Gateway 1, idle to a time: when keepalives left, and what they were.
        let idle_to = |pair: &mut Pair, until_ms: u64| {
            let mut sent = vec![];
            while pair.gateways[0].now_ms < until_ms {
                pair.gateways[0].now_ms += 49;
                pair.gateways[0].turn();
                for (port, frame) in pair.gateways[0].collect() {
                    assert_eq!(port, WAN);
                    sent.push((pair.gateways[0].now_ms, pair.take(frame)));
                }
            }
            sent
        };
        // An SA that never sent anything has one, too.
        let sent = idle_to(&mut pair, 65_000);
        let times: Vec<_> = sent.iter().map(|(ms, _)| *ms).collect();
        assert_eq!(times.len(), 3, "{times:?}");
        assert!(
            times.iter().zip(1..).all(|(ms, n)| (20_000 * n..20_000 * n + 2000).contains(ms)),
            "{times:?}"
        );
        let at = if v4 { 20 } else { 40 };
        for (_, packet) in &sent {
            assert_eq!(destination(packet), Endpoint::new(outer(2, v4), 4500).unwrap());
            assert_eq!(packet.len(), at + 9);
            assert_eq!(packet[at..at + 6], [17, 149, 17, 148, 0, 9]);
            assert_eq!(packet[at + 8], 0xff);
            let ip = wire::Ip::parse(packet).unwrap();
            assert_eq!((ip.protocol(), ip.len(), IpAddr::from(ip.src())), (17, at + 9, outer(1, v4)));
            let addresses = if v4 { 12..20 } else { 8..40 };
            let sum = wire::sum(&packet[addresses]) + wire::sum(&packet[at..]) + 9 + 17;
            // RFC 3948 §2.3: a checksum of zero, as ESP's; RFC 8200 §8.1: none of zero.
            assert!(if v4 { packet[at + 6..at + 8] == [0, 0] } else { wire::fold(sum) == 0xffff });
        }
        // Packets put it off.
        let mut sent = 0;
        for n in 0..40u64 {
            sent += idle_to(&mut pair, 66_000 + 1000 * n).len();
            assert_eq!(seq_lo(&pair.seal(1)), n as u32 + 1, "a keepalive takes no number");
        }
        assert_eq!(sent, 0);
        let until = pair.gateways[0].now_ms + 22_000;
        assert_eq!(idle_to(&mut pair, until).len(), 1);
        // An SA that is gone has none.
        let outbound = pair.gateways[0].outbound;
        pair.gateways[0].sadb.retire(outbound).unwrap();
        let until = pair.gateways[0].now_ms + 60_000;
        assert_eq!(idle_to(&mut pair, until).len(), 0);
    }
}

/// At no others, where it is a datagram as all others.
#[test]
fn esp_in_udp_comes_at_the_ports_that_are_ours() {
    for tunnel in tunnels(UdpEncap::between(4501, 4501)) {
        let mut pair = Pair::new(tunnel);
        let packet = pair.seal(2);
        let before = pair.gateways[0].drops();
        assert!(!pair.opens(1, &packet));
        assert_eq!(pair.gateways[0].dropped_since(&before), Some(DropReason::NoPolicy));
        let ports = wire::UdpPorts::new(&[4510, 4501]).unwrap();
        pair.gateways[0].workers.iter_mut().for_each(|worker| worker.set_udp_ports(ports));
        assert!(pair.opens(1, &packet));
        let keepalive = [0x11, 0x95, 0x11, 0x95, 0, 9, 0, 0, 0xff];
        let packet = ethernet_ip(outer(2, tunnel.outer_v4), outer(1, tunnel.outer_v4), 17, 64, &keepalive);
        let before = pair.gateways[0].drops();
        assert!(!pair.opens(1, &packet[2..]));
        assert_eq!(pair.gateways[0].dropped_since(&before), Some(DropReason::Keepalive));
    }
}

/// RFC 3948 §2.3: a receiver ignores it.
#[test]
fn a_keepalive_that_comes_is_dropped_and_counted() {
    for tunnel in tunnels(FOLLOW) {
        let (mut pair, v4) = (Pair::new(tunnel), tunnel.outer_v4);
        let udp = [156, 64, 17, 148, 0, 9, 0, 0, 0xff];
        let packet = ethernet_ip(outer(2, v4), outer(1, v4), 17, 64, &udp);
        let before = pair.gateways[0].drops();
        assert!(!pair.opens(1, &packet[2..]));
        assert_eq!(pair.gateways[0].dropped_since(&before), Some(DropReason::Keepalive));
        assert_eq!(pair.moves(), [], "it is nobody's proof of anything");
    }
}

/// RFC 3948 §2.1, RFC 6935 §5: whatever stands there, the ICV decides.
#[test]
fn the_checksum_of_esp_in_udp_is_not_looked_at() {
    for zero_checksum in [false, true] {
        for tunnel in tunnels(UdpEncap { zero_checksum, ..FOLLOW }) {
            let mut pair = Pair::new(tunnel);
            for checksum in [None, Some([0, 0]), Some([0x12, 0x34]), Some([0xff, 0xff])] {
                let mut packet = pair.seal(2);
                let at = header_len(&packet);
                let is_zero = packet[at + 6..at + 8] == [0, 0];
                assert_eq!(is_zero, tunnel.outer_v4 || zero_checksum);
                if let Some(checksum) = checksum {
                    packet[at + 6..at + 8].copy_from_slice(&checksum);
                }
                assert!(pair.opens(1, &packet), "{checksum:?}");
            }
        }
    }
}
