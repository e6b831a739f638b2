//! What routers say of packets of ours that were too big: an SA's path MTU falls, and what is sealed fits
//! (RFC 4301 §8.2, RFC 1191, RFC 8201).

mod testbed;

use portcullis_datapath::{
    drop::DropReason,
    frame::Frame,
    general::pmtu::AGE_MS,
    pool::FrameCache,
    wire::{self, protocol},
};
use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::*;
use std::net::IpAddr;
use testbed::*;

/// Octets that fit in any SA's packets, as long as nothing is learned.
const PAYLOAD: usize = 1300;

/// Gateway 1, and gateway 2 to open what it has sealed.
struct Path {
    gateways: [Gateway; 2],
    cache: FrameCache,
}

fn octets(frame: &Frame) -> Vec<u8> {
    let mut bytes = vec![0; frame.total_len()];
    frame.gather(&mut bytes);
    bytes
}

impl Path {
    fn new(tunnel: Tunnel) -> Path {
        let pool = memory(2048);
        let gateways = [1, 2].map(|n| Gateway::new(Tunnel { tells: true, ..tunnel }, n, &pool));
        Path { gateways, cache: pool.cache() }
    }

    /// What IP packets come out of a gateway where, of one that goes in at a port of a worker.
    fn pass_at(&mut self, n: u8, (worker, port): (u32, usize), ip: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let gateway = &mut self.gateways[n as usize - 1];
        let ethertype: [u8; 2] = if ip[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        let frame = frame(&mut self.cache, &[&[2; 12], &ethertype[..], ip].concat());
        gateway.ends[worker as usize][port].send(frame).unwrap();
        gateway.turn();
        let passed = gateway.collect();
        let out = passed.iter().map(|(port, frame)| (*port, octets(frame)[14..].to_vec())).collect();
        passed.into_iter().for_each(|(_, frame)| self.cache.give(frame));
        out
    }

    fn pass(&mut self, port: usize, ip: &[u8]) -> Vec<(usize, Vec<u8>)> {
        self.pass_at(1, (0, port), ip)
    }

    /// The one packet that comes of one from the LAN.
    fn seal(&mut self, ip: &[u8]) -> Vec<u8> {
        let mut out = self.pass(LAN, ip);
        assert_eq!((out.len(), out[0].0), (1, WAN), "{:?}", self.gateways[0].drops());
        out.remove(0).1
    }

    /// The MTU that the source of a packet is told.
    fn told(&mut self, ip: &[u8]) -> usize {
        let out = self.pass(LAN, ip);
        let [(LAN, message)] = &out[..] else { panic!("{out:02x?}") };
        assert_eq!((message[20], message[21]), (3, 4)); // RFC 1191 §4
        assert_eq!(message[16..20], ip[12..16]);
        wire::be32(message, 24) as usize
    }

    /// The SA learns, and nobody else is told.
    fn learn(&mut self, message: &[u8]) {
        let before = self.gateways[0].drops();
        assert_eq!(self.pass(WAN, message), []);
        assert_eq!(self.gateways[0].drops(), before);
    }

    /// The message is dropped for this reason.
    fn refuse(&mut self, message: &[u8], reason: DropReason) {
        let before = self.gateways[0].drops();
        assert_eq!(self.pass(WAN, message), []);
        assert_eq!(self.gateways[0].dropped_since(&before), Some(reason), "{message:02x?}");
    }
}

/// From behind gateway 1 to behind gateway 2.
fn inner(df: bool, payload: usize) -> Vec<u8> {
    let mut ip = udp(inside(1, true), inside(2, true), payload, 64).split_off(14);
    if df {
        ip[6] |= 0x40;
        ip[10..12].fill(0);
        let checksum = !wire::fold(wire::sum(&ip[..20]));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    ip
}

/// "Fragmentation needed" or "packet too big".
fn too_big(from: IpAddr, to: IpAddr, mtu: u32, about: &[u8]) -> Vec<u8> {
    let v4 = to.is_ipv4();
    let (kind, code, upper) = if v4 { (3, 4, protocol::ICMP) } else { (2, 0, protocol::ICMPV6) };
    let body = [&[kind, code, 0, 0][..], &mtu.to_be_bytes(), about].concat();
    let mut packet = ethernet_ip(from, to, upper, 60, &body).split_off(2);
    // RFC 792; RFC 4443 §2.3: with the pseudo-header.
    let at = packet.len() - body.len();
    let pseudo = if v4 { 0 } else { wire::sum(&packet[8..40]) + body.len() as u32 + upper as u32 };
    let checksum = !wire::fold(pseudo + wire::sum(&body));
    packet[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The same from a router on the way.
fn message(to: IpAddr, mtu: u32, about: &[u8]) -> Vec<u8> {
    let router = ip(if to.is_ipv4() { "198.51.100.1" } else { "2001:db8:1::1" });
    too_big(router, to, mtu, about)
}

/// About what gateway 1 has sealed, of which the outer header and so many octets are shown.
fn about(sealed: &[u8], mtu: u32, shown: usize) -> Vec<u8> {
    let v4 = sealed[0] >> 4 == 4;
    let shown = sealed.len().min(shown + if v4 { 20 } else { 40 });
    message(outer(1, v4), mtu, &sealed[..shown])
}

/// Each way to be sealed, on the plain path and the general one, and how much a router must show of it.
fn tunnels() -> Vec<(Tunnel, usize)> {
    let of = |protocol, name: &str| Algorithm::by_name(protocol, name).expect("in the table");
    let mut tunnels = vec![];
    for outer_v4 in [true, false] {
        let (esp, ah) = (Protocol::Esp, Protocol::Ah);
        for (algorithm, protocol, udp, shown) in [
            (Algorithm::AES_GCM_128, esp, false, 8),
            (Algorithm::AES_GCM_128, esp, true, 12),
            (of(esp, "chacha20-poly1305"), esp, false, 8),
            (of(esp, "chacha20-poly1305"), esp, true, 12),
            (of(ah, "hmac-sha2-256-128"), ah, false, 8),
        ] {
            tunnels.push((Tunnel { algorithm, protocol, udp, outer_v4, ..Tunnel::default() }, shown));
        }
    }
    tunnels
}

#[test]
fn what_is_sealed_fits_the_path_that_was_told() {
    for (tunnel, least) in tunnels() {
        for shown in [least, 400] {
            let mut path = Path::new(tunnel);
            let sealed = path.seal(&inner(true, PAYLOAD));
            // As the way leaves it: with another TTL.
            let mut seen = sealed.clone();
            seen[if tunnel.outer_v4 { 8 } else { 7 }] -= 5;
            let mtu = 1320;
            path.learn(&about(&seen, mtu, shown)); // RFC 4301 §8.2.1

            // With DF, its source is told; what it is told fits, and no octet more does.
            let inner_mtu = path.told(&inner(true, PAYLOAD));
            assert!(inner_mtu < mtu as usize && inner_mtu > 1200, "{inner_mtu}");
            let sealed = path.seal(&inner(true, inner_mtu - 28));
            assert!(sealed.len() <= mtu as usize && sealed.len() + 16 > mtu as usize);
            assert_eq!(path.told(&inner(true, inner_mtu - 27)), inner_mtu);

            // Without, it is cut before (RFC 4301 §8.1), and whole again at the host.
            let whole = inner(false, 3000);
            let mut arrived = vec![];
            for (port, piece) in path.pass(LAN, &whole) {
                assert!(port == WAN && piece.len() <= mtu as usize);
                for (port, piece) in path.pass_at(2, (0, WAN), &piece) {
                    assert_eq!(port, LAN);
                    arrived.extend_from_slice(&piece[20..]);
                }
            }
            assert_eq!(arrived, whole[20..]);
        }
    }
}

#[test]
fn it_falls_and_rises_again_with_age_only() {
    for (tunnel, least) in tunnels() {
        let mut path = Path::new(tunnel);
        let sealed = path.seal(&inner(true, PAYLOAD));
        path.learn(&about(&sealed, sealed.len() as u32, least));
        assert_eq!(path.seal(&inner(true, PAYLOAD)).len(), sealed.len(), "it fits as before");
        path.learn(&about(&sealed, 1340, least));
        let first = path.told(&inner(true, PAYLOAD));
        path.learn(&about(&sealed, 1300, least));
        let second = path.told(&inner(true, PAYLOAD));
        assert!(second < first);
        for mtu in [1301, 1400, 1500, 65_535] {
            path.learn(&about(&sealed, mtu, least));
            assert_eq!(path.told(&inner(true, PAYLOAD)), second, "RFC 1191 §6.3");
        }
        // RFC 1191 §6.3, RFC 8201 §4: an increase is tried after ten minutes.
        path.gateways[0].now_ms += AGE_MS - 100;
        assert_eq!(path.told(&inner(true, PAYLOAD)), second);
        path.gateways[0].now_ms += 2000;
        path.gateways[0].turn();
        assert_eq!(path.seal(&inner(true, PAYLOAD)).len(), sealed.len());
        // And it is learned anew.
        path.learn(&about(&sealed, 1300, least));
        assert_eq!(path.told(&inner(true, PAYLOAD)), second);
    }
}

#[test]
fn nobody_pushes_it_below_the_floor() {
    for (tunnel, least) in tunnels() {
        let mut path = Path::new(tunnel);
        let sealed = path.seal(&inner(true, PAYLOAD));
        if tunnel.outer_v4 {
            path.learn(&about(&sealed, 68, least)); // RFC 4301 §8.2.1
            let inner_mtu = path.told(&inner(true, PAYLOAD));
            let sealed = path.seal(&inner(true, inner_mtu - 28));
            assert!((561..=576).contains(&sealed.len()), "{}", sealed.len());
        } else {
            // RFC 8201 §4: no link has less.
            for mtu in [0, 68, 1279] {
                path.refuse(&about(&sealed, mtu, least), DropReason::UnknownSpi);
            }
            assert_eq!(path.seal(&inner(true, PAYLOAD)).len(), sealed.len());
            path.learn(&about(&sealed, 1280, least));
            let inner_mtu = path.told(&inner(true, PAYLOAD));
            assert!(path.seal(&inner(true, inner_mtu - 28)).len() <= 1280);
        }
    }
}

#[test]
fn routers_that_say_no_mtu_mean_the_next_plateau() {
    let mut path = Path::new(Tunnel::default());
    let sealed = path.seal(&inner(true, PAYLOAD));
    path.learn(&about(&sealed, 0, 8)); // RFC 1191 §5
    let inner_mtu = path.told(&inner(true, PAYLOAD));
    assert!((991..=1006).contains(&path.seal(&inner(true, inner_mtu - 28)).len()));
}

#[test]
fn what_names_no_sa_of_ours_is_not_believed() {
    for (tunnel, least) in tunnels() {
        let v4 = tunnel.outer_v4;
        let mut path = Path::new(tunnel);
        let sealed = path.seal(&inner(true, PAYLOAD));
        let head = if v4 { 20 } else { 40 };
        // The octets of SPI, addresses, protocol and ports.
        let spi_at = head + if tunnel.udp { 8 } else { 4 * usize::from(tunnel.protocol == Protocol::Ah) };
        let addresses = if v4 { 12..20 } else { 8..40 };
        let ports = if tunnel.udp { head..head + 4 } else { 0..0 };
        for at in (spi_at..spi_at + 4).chain(addresses).chain(ports.clone()) {
            let mut forged = sealed.clone();
            forged[at] ^= 0x10;
            // Without a port of ESP in UDP, steering would leave it to the kernel.
            if ports.contains(&at) {
                forged[at] ^= 0x11;
            }
            path.refuse(&about(&forged, 1300, least), DropReason::UnknownSpi);
        }
        // The SPI of the other direction; and as it would be in the other protocol.
        let mut forged = sealed.clone();
        forged[spi_at..spi_at + 4].copy_from_slice(&spi(1).to_be_bytes());
        path.refuse(&about(&forged, 1300, least), DropReason::UnknownSpi);
        if !tunnel.udp {
            let mut forged = sealed.clone();
            let other = if tunnel.protocol == Protocol::Ah { protocol::ESP } else { protocol::AH };
            forged[if v4 { 9 } else { 6 }] = other;
            let at = head + if other == protocol::AH { 4 } else { 0 };
            forged[at..at + 4].copy_from_slice(&spi(2).to_be_bytes());
            path.refuse(&about(&forged, 1300, 8), DropReason::UnknownSpi);
        }
        // To another address of ours; and with a wrong checksum.
        path.refuse(&message(lan(1, v4), 1300, &sealed[..head + least]), DropReason::UnknownSpi);
        let mut wrong = about(&sealed, 1300, least);
        *wrong.last_mut().unwrap() ^= 1;
        path.refuse(&wrong, DropReason::UnknownSpi);
        assert_eq!(path.seal(&inner(true, PAYLOAD)).len(), sealed.len());
    }
}

#[test]
fn an_sa_that_is_gone_learns_nothing_and_others_with_its_spi_do() {
    let tunnel = Tunnel::default();
    let mut path = Path::new(tunnel);
    // To another peer, which has chosen the same SPI.
    let sadb = &mut path.gateways[0].sadb;
    let second = Sa { dst: ip("192.0.2.77"), ..sa(&tunnel, 1, 1, 2) };
    let slot = sadb.publish(&second).unwrap();
    let net = |text, len| Prefix::new(ip(text), len).unwrap();
    let selector = Selector::between(net("10.1.0.0", 16), net("10.7.0.0", 16));
    let (direction, action) = (Direction::Outbound, Action::Protect);
    let policy = Policy { direction, selector, priority: 1, action, reqid: 1, sa: Some(slot) };
    sadb.add_policy(&policy).unwrap();
    let to_second = |payload| {
        let mut ip = inner(true, payload);
        ip[17] = 7;
        ip[10..12].fill(0);
        let checksum = !wire::fold(wire::sum(&ip[..20]));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        ip
    };
    let sealed = [path.seal(&inner(true, PAYLOAD)), path.seal(&to_second(PAYLOAD))];
    assert_eq!(sealed[0][20..24], sealed[1][20..24]);
    path.learn(&about(&sealed[1], 1300, 8));
    path.seal(&inner(true, PAYLOAD));
    path.told(&to_second(PAYLOAD));
    path.learn(&about(&sealed[0], 1250, 8));
    assert!(path.told(&inner(true, PAYLOAD)) < path.told(&to_second(PAYLOAD)));
    let sadb = &mut path.gateways[0].sadb;
    sadb.retire(slot).unwrap();
    path.refuse(&about(&sealed[1], 1200, 8), DropReason::UnknownSpi);
    path.learn(&about(&sealed[0], 1250, 8));
}

#[test]
fn a_flood_changes_nothing_and_everything_goes_on() {
    let mut path = Path::new(Tunnel::default());
    let sealed = path.seal(&inner(true, PAYLOAD));
    let (mut random, mut forged) = (Random(7), 0);
    for round in 0..100 {
        for _ in 0..100 {
            let mut shown = sealed.clone();
            // Half of them have the SPI, and not the addresses.
            let at = if random.below(2) == 0 { 20 + random.below(4) } else { 12 + random.below(8) };
            shown[at] ^= 1 + random.below(255) as u8;
            let message = about(&shown, 600 + random.below(700) as u32, 8 + random.below(500));
            let frame = frame(&mut path.cache, &[&[2; 12], &[8, 0][..], &message].concat());
            path.gateways[0].ends[0][WAN].send(frame).unwrap();
            forged += u64::from(message[16..20] == sealed[12..16]);
        }
        path.gateways[0].turn();
        assert_eq!(path.gateways[0].collect().len(), 0);
        assert_eq!(path.seal(&inner(true, PAYLOAD)).len(), sealed.len(), "round {round}");
    }
    assert_eq!(path.gateways[0].drops()[DropReason::UnknownSpi as usize], forged);
    assert_eq!(forged, 10_000);
}

/// A router behind gateway 1 says to a host behind gateway 2 that a packet of its own was too big.
fn to_host(spi: u32, src: IpAddr) -> Vec<u8> {
    let esp = [&spi.to_be_bytes()[..], &[0; 40]].concat();
    let about = ethernet_ip(src, ip("203.0.113.9"), protocol::ESP, 64, &esp).split_off(2);
    too_big(inside(1, true), inside(2, true), 1000, &about)
}

#[test]
fn what_is_about_a_hosts_packets_goes_through_to_it() {
    for workers in [1, 2, 4] {
        let mut path = Path::new(Tunnel { workers, ..Tunnel::default() });
        // Of each worker's SPIs, and ours; at each worker.
        for spi in (0x4000..0x4020).chain([spi(1), spi(2)]) {
            for src in [inside(2, true), outer(1, true)] {
                for worker in 0..workers {
                    let message = to_host(spi, src);
                    let sealed = path.pass_at(1, (worker, LAN), &message);
                    let [(WAN, sealed)] = &sealed[..] else { panic!("{:?}", path.gateways[0].drops()) };
                    let arrived = path.pass_at(2, (0, WAN), sealed);
                    let mut forwarded = message;
                    wire::decrement_ttl(&mut forwarded).unwrap();
                    wire::decrement_ttl(&mut forwarded).unwrap();
                    assert_eq!(arrived, [(LAN, forwarded)], "RFC 4301 §8.2");
                }
            }
        }
    }
}

#[test]
fn the_worker_that_has_the_sa_learns() {
    for workers in [2, 3, 4] {
        for (tunnel, least) in tunnels() {
            let mut path = Path::new(Tunnel { workers, ..tunnel });
            let sealed = path.seal(&inner(true, PAYLOAD));
            let owner = worker_of_spi(spi(2), workers);
            let before = path.gateways[0].drops();
            assert_eq!(path.pass_at(1, (owner, WAN), &about(&sealed, 1300, least)), []);
            assert_eq!(path.gateways[0].drops(), before);
            for worker in 0..workers {
                let told = path.pass_at(1, (worker, LAN), &inner(true, PAYLOAD));
                assert!(matches!(&told[..], [(LAN, message)] if message[20..22] == [3, 4]), "{told:02x?}");
            }
        }
    }
}

/// RFC 9611: what is said of an SA is steered by its SPI, which does not say whose it is. The workers are asked in turn.
#[test]
fn the_worker_whose_own_it_is_learns_wherever_it_is_told() {
    for workers in [2, 3, 4] {
        for (tunnel, least) in tunnels() {
            let tunnel = Tunnel { workers, ..tunnel };
            let mut path = Path::new(tunnel);
            let told = worker_of_spi(spi(2), workers);
            let own = (told + workers - 1) % workers;
            let spi = (spi(2) + 1..).find(|spi| worker_of_spi(*spi, workers) == told).unwrap();
            let sadb = &mut path.gateways[0].sadb;
            let slot = Sa { spi: Spi(spi), worker: Some(own as u8), ..sa(&tunnel, 1, 1, 2) };
            let slot = sadb.publish(&slot).unwrap();
            let uses = |(index, policy): (PolicyIndex, Policy)| policy.sa.map(|_| index);
            for index in sadb.policies().filter_map(uses).collect::<Vec<_>>() {
                sadb.set_worker_sa(index, own as u8, Some(slot)).unwrap();
            }
            let out = path.pass_at(1, (own, LAN), &inner(true, PAYLOAD));
            let [(WAN, sealed)] = &out[..] else { panic!("{out:02x?}") };
            let before = path.gateways[0].drops();
            assert_eq!(path.pass_at(1, (told, WAN), &about(sealed, 1300, least)), []);
            assert_eq!(path.gateways[0].drops(), before);
            for worker in 0..workers {
                let out = path.pass_at(1, (worker, LAN), &inner(true, PAYLOAD));
                let port = if worker == own { LAN } else { WAN };
                assert!(matches!(&out[..], [(to, _)] if *to == port), "{worker} of {workers}: {out:02x?}");
            }
            // Of one that is nobody's there is an end.
            let mut nobodys = sealed.clone();
            let at = nobodys.windows(4).position(|word| word == spi.to_be_bytes()).unwrap();
            nobodys[at..at + 4].copy_from_slice(&(spi + 1).to_be_bytes());
            let before = path.gateways[0].drops();
            assert_eq!(
                path.pass_at(1, (worker_of_spi(spi + 1, workers), WAN), &about(&nobodys, 1300, least)),
                []
            );
            assert_eq!(path.gateways[0].dropped_since(&before), Some(DropReason::UnknownSpi));
        }
    }
}
