//! Each branch of the decision, and what must hold of every frame.

mod frames;

use frames::generate::{self, Rng};
use frames::tables::{
    ALL4, ALL6, BYPASS4, BYPASS6, HERE4, HERE6, HostTables, OWN4, OWN6, PEER4, PEER6, THERE4, THERE6, mapped,
    tables,
};
use frames::*;
use portcullis_ebpf::Reason::{self, *};
use portcullis_ebpf::{
    Decision, Fate, TO_KERNEL, TO_NOBODY, Tables, steer, worker_of_addresses, worker_of_flow, worker_of_spi,
};

const WORKERS: u32 = 4;
const SPI: u32 = 0x1234_5678;

fn kernel(reason: Reason) -> Decision {
    Decision::kernel(reason)
}

fn by_spi(reason: Reason) -> Decision {
    Decision::worker(worker_of_spi(SPI, WORKERS), reason)
}

fn together(src: [u8; 16], dst: [u8; 16]) -> Decision {
    Decision::worker(worker_of_addresses(&src, &dst, WORKERS), Fragment)
}

#[track_caller]
fn expect(frame: &[u8], decision: Decision) {
    assert_eq!(steer(frame, WORKERS, &tables()), decision, "{frame:02x?}");
}

#[track_caller]
fn expect_v4(packet: &[u8], decision: Decision) {
    for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN], &[VLAN, VLAN]] {
        expect(&ethernet(tags, IPV4, packet), decision);
    }
}

#[track_caller]
fn expect_v6(packet: &[u8], decision: Decision) {
    for tags in [&[][..], &[VLAN], &[SERVICE_VLAN, VLAN]] {
        expect(&ethernet(tags, IPV6, packet), decision);
    }
}

#[test]
fn frames_that_are_not_ip() {
    expect(&ethernet(&[], ARP, &[0; 28]), kernel(NotIp));
    expect(&ethernet(&[VLAN], ARP, &[0; 28]), kernel(NotIp));
    expect(
        &ethernet(&[SERVICE_VLAN, VLAN, VLAN], IPV4, &ipv4(PEER4, OWN4, ESP, &esp(SPI, 32))),
        kernel(TooManyTags),
    );
    expect(&[0; 13], kernel(TruncatedEthernet));
    expect(&[], kernel(TruncatedEthernet));
    let tagged = ethernet(&[SERVICE_VLAN, VLAN], IPV4, &[]);
    expect(&tagged[..17], kernel(TruncatedVlan));
    expect(&tagged[..21], kernel(TruncatedVlan));
    expect(&tagged[..22], kernel(TruncatedIpv4));
}

#[test]
fn ip_headers_that_cannot_be() {
    let packet = ipv4(PEER4, OWN4, ESP, &esp(SPI, 32));
    let changed = |at: usize, byte: u8| {
        let mut packet = packet.clone();
        packet[at] = byte;
        packet
    };
    expect_v4(&changed(0, 0x65), kernel(BadIp));
    expect_v4(&changed(0, 0x44), kernel(BadIp));
    expect_v4(&changed(3, 19), kernel(BadIp));
    // The options are cut by the total length.
    expect_v4(&[&[0x4f, 0, 0, 59], &packet[4..]].concat(), kernel(BadIp));
    expect_v4(&packet[..19], kernel(TruncatedIpv4));
    // The checksum is not looked at.
    expect_v4(&changed(10, packet[10] ^ 1), by_spi(Esp));

    let packet = ipv6(PEER6, OWN6, ESP, &esp(SPI, 32));
    expect_v6(&packet[..39], kernel(TruncatedIpv6));
    expect_v6(&[&[0x45], &packet[1..]].concat(), kernel(BadIp));
}

#[test]
fn esp_and_ah_go_by_spi() {
    for options in [0, 1, 10] {
        expect_v4(&ipv4_with(PEER4, OWN4, ESP, options, None, &esp(SPI, 32)), by_spi(Esp));
        expect_v4(&ipv4_with(PEER4, OWN4, AH, options, None, &ah(ESP, SPI, &esp(1, 8))), by_spi(Ah));
    }
    // RFC 791 §3.1: don't fragment says nothing of fragments.
    let mut packet = ipv4(PEER4, OWN4, ESP, &esp(SPI, 32));
    packet[6] = 0x40;
    expect_v4(&packet, by_spi(Esp));
    expect_v6(&ipv6(PEER6, OWN6, ESP, &esp(SPI, 32)), by_spi(Esp));
    expect_v6(&ipv6(PEER6, OWN6, AH, &ah(ESP, SPI, &esp(1, 8))), by_spi(Ah));
}

#[test]
fn what_is_cut_in_its_upper_header_goes_by_its_addresses() {
    for (protocol, payload, reason) in [
        (ESP, esp(SPI, 0)[..7].to_vec(), TruncatedEsp),
        (AH, ah(ESP, SPI, &[])[..11].to_vec(), TruncatedAh),
        (UDP, udp(9, 9, &[])[..7].to_vec(), TruncatedUdp),
        (UDP, udp(4500, 4500, &[0xff, 1, 2]), TruncatedUdp),
        (UDP, udp(4500, 4500, &[]), TruncatedUdp),
    ] {
        let mut frame = ethernet(&[], IPV4, &ipv4(PEER4, OWN4, protocol, &payload));
        expect(&frame, kernel(reason));
        // Padding of the frame is no part of the packet.
        frame.resize(60, 0xff);
        expect(&frame, kernel(reason));
        expect_v6(&ipv6(PEER6, OWN6, protocol, &payload), kernel(reason));
        // The kernel would forward these in clear.
        expect_v4(&ipv4(HERE4, THERE4, protocol, &payload), Decision::worker(3, ClearTo));
        expect_v6(&ipv6(THERE6, PEER6, protocol, &payload), Decision::worker(3, ClearFrom));
    }
}

#[test]
fn extension_headers_are_followed() {
    let esp = esp(SPI, 32);
    let twice = options(DESTINATION_OPTIONS, 3, &options(ESP, 0, &esp));
    for (next, payload) in [
        (HOP_BY_HOP, options(ESP, 0, &esp)),
        (ROUTING, routing(ESP, 0, &esp)),
        (DESTINATION_OPTIONS, options(ESP, 255, &esp)),
        (HOP_BY_HOP, options(ROUTING, 1, &routing(DESTINATION_OPTIONS, 0, &options(ESP, 0, &esp)))),
        (HOP_BY_HOP, twice.clone()),
        // RFC 6946 §4: an atomic fragment is a whole datagram.
        (FRAGMENT, fragment(ESP, (7, 0, false), &esp)),
        (HOP_BY_HOP, options(FRAGMENT, 0, &fragment(ESP, (7, 0, false), &esp))),
    ] {
        expect_v6(&ipv6(PEER6, OWN6, next, &payload), by_spi(Esp));
    }
    let packet = ipv6(PEER6, OWN6, HOP_BY_HOP, &twice);
    for cut in [41, 41 + 32] {
        let mut packet = packet.clone();
        packet[5] = cut - 40;
        expect_v6(&packet, kernel(TruncatedExtension));
        expect_v6(&packet[..cut as usize], kernel(TruncatedExtension));
    }
    expect_v6(&ipv6(PEER6, OWN6, FRAGMENT, &[ESP, 0, 0, 0, 0, 0, 0]), kernel(TruncatedExtension));
    // Not extension headers that may precede ESP.
    for next in [NO_NEXT, 135, 255] {
        expect_v6(&ipv6(PEER6, PEER6, next, &esp), kernel(Unprotected));
    }
}

#[test]
fn a_chain_of_extension_headers_has_an_end() {
    let chain = |headers: usize| {
        let mut payload = esp(SPI, 32);
        let mut next = ESP;
        for _ in 0..headers {
            payload = options(next, 0, &payload);
            next = DESTINATION_OPTIONS;
        }
        payload
    };
    for headers in 1..=7 {
        expect_v6(&ipv6(PEER6, OWN6, DESTINATION_OPTIONS, &chain(headers)), by_spi(Esp));
    }
    for headers in 8..11 {
        expect_v6(&ipv6(PEER6, OWN6, DESTINATION_OPTIONS, &chain(headers)), kernel(TooManyExtensions));
        expect_v6(&ipv6(HERE6, THERE6, DESTINATION_OPTIONS, &chain(headers)), Decision::worker(3, ClearTo));
    }
}

#[test]
fn ports_of_esp_in_udp_carry_esp_ike_and_keepalives() {
    for (payload, decision) in [
        (esp(SPI, 32), by_spi(EspInUdp)),
        // RFC 3948 §2.2: the non-ESP marker.
        ([&[0; 4][..], &[1; 28]].concat(), kernel(IkeNatT)),
        (vec![0; 4], kernel(IkeNatT)),
        // RFC 3948 §2.3.
        (vec![0xff], Decision::nobody(Keepalive)),
        (vec![0xfe], kernel(TruncatedUdp)),
        (vec![0xff; 2], kernel(TruncatedUdp)),
    ] {
        for (src_port, dst_port) in [(4500, 4500), (40_000, 4500), (4500, 4510), (40_000, 4510)] {
            let datagram = udp(src_port, dst_port, &payload);
            expect_v4(&ipv4(PEER4, OWN4, UDP, &datagram), decision);
            expect_v6(&ipv6(PEER6, OWN6, UDP, &datagram), decision);
        }
    }
    expect_v4(&ipv4(PEER4, OWN4, UDP, &udp(4500, 4501, &esp(SPI, 32))), kernel(Local));
    // A keepalive in a padded frame.
    let mut frame = ethernet(&[], IPV4, &ipv4(PEER4, OWN4, UDP, &udp(4500, 4500, &[0xff])));
    frame.resize(60, 0xff);
    expect(&frame, Decision::nobody(Keepalive));
    // What passes through is no keepalive of ours.
    let keepalive = udp(4500, 4500, &[0xff]);
    expect_v4(&ipv4(PEER4, PEER4, UDP, &keepalive), kernel(Unprotected));
    expect_v4(&ipv4(HERE4, THERE4, UDP, &keepalive), Decision::worker(3, ClearTo));
}

#[test]
fn ike_is_the_kernels_unless_it_passes_through() {
    let ike = udp(500, 500, &[1; 28]);
    expect_v4(&ipv4(PEER4, OWN4, UDP, &ike), kernel(Ike));
    expect_v6(&ipv6(PEER6, OWN6, UDP, &ike), kernel(Ike));
    expect_v4(&ipv4(PEER4, PEER4, UDP, &ike), kernel(Ike));
    // Between hosts behind the gateways it is traffic like any other.
    expect_v4(&ipv4(HERE4, THERE4, UDP, &ike), Decision::worker(3, ClearTo));
    let marked = udp(4500, 4500, &[0; 32]);
    expect_v6(&ipv6(HERE6, THERE6, UDP, &marked), Decision::worker(3, ClearTo));
}

#[test]
fn clear_traffic_goes_by_prefix() {
    for (v4, v6, decision) in [
        ((HERE4, THERE4), (HERE6, THERE6), Decision::worker(3, ClearTo)),
        ((THERE4, HERE4), (THERE6, HERE6), Decision::worker(2, ClearTo)),
        ((PEER4, HERE4), (PEER6, HERE6), Decision::worker(2, ClearTo)),
        ((HERE4, PEER4), (HERE6, PEER6), Decision::worker(2, ClearFrom)),
        ((HERE4, OWN4), (HERE6, OWN6), kernel(Local)),
        ((HERE4, BYPASS4), (HERE6, BYPASS6), kernel(Local)),
        ((BYPASS4, PEER4), (BYPASS6, PEER6), kernel(Unprotected)),
        ((PEER4, PEER4), (PEER6, PEER6), kernel(Unprotected)),
    ] {
        for protocol in [TCP, ICMP, ICMP6, 47] {
            expect_v4(&ipv4(v4.0, v4.1, protocol, &[0; 20]), decision);
            expect_v6(&ipv6(v6.0, v6.1, protocol, &[0; 20]), decision);
            // Fragments of one datagram stay together by themselves.
            for offset in [0, 7] {
                let piece = (9, offset, true);
                expect_v4(&ipv4_with(v4.0, v4.1, protocol, 0, Some(piece), &[0; 24]), decision);
                expect_v6(&ipv6(v6.0, v6.1, FRAGMENT, &fragment(protocol, piece, &[0; 24])), decision);
            }
        }
    }
}

#[test]
fn packets_of_a_flow_go_to_one_worker() {
    let ports = |src: u16, dst: u16| [src.to_be_bytes(), dst.to_be_bytes()].concat();
    for protocol in [TCP, UDP] {
        let mut flows = [[0; WORKERS as usize]; 4];
        for n in 0..256u16 {
            // From there, and to there; by the ports of one, and by those of the other.
            let (src, dst) = if n % 2 == 0 { (5000 + n, 80) } else { (5000, n) };
            let payload = [&ports(src, dst)[..], &[0; 16]].concat();
            let word = u32::from(src) << 16 | u32::from(dst);
            for (way, (from, to)) in [(THERE4, ALL4), (ALL4, PEER4)].into_iter().enumerate() {
                let worker = worker_of_flow(&mapped(from), &mapped(to), word, WORKERS);
                let reason = if way == 0 { ClearTo } else { ClearFrom };
                expect_v4(&ipv4(from, to, protocol, &payload), Decision::worker(worker, reason));
                flows[way][worker as usize] += 1;
            }
            for (way, (from, to)) in [(THERE6, ALL6), (ALL6, PEER6)].into_iter().enumerate() {
                let worker = worker_of_flow(&from, &to, word, WORKERS);
                let reason = if way == 0 { ClearTo } else { ClearFrom };
                expect_v6(&ipv6(from, to, protocol, &payload), Decision::worker(worker, reason));
                flows[2 + way][worker as usize] += 1;
            }
        }
        assert!(flows.iter().flatten().all(|n| (32..=96).contains(n)), "{flows:?}");
    }
    // What shows no ports goes by its addresses, and so do all fragments of a datagram.
    let [v4, v6] = [(mapped(HERE4), mapped(ALL4)), (HERE6, ALL6)]
        .map(|(from, to)| Decision::worker(worker_of_addresses(&from, &to, WORKERS), ClearTo));
    for protocol in [ICMP, 47] {
        expect_v4(&ipv4(HERE4, ALL4, protocol, &[7; 20]), v4);
        expect_v6(&ipv6(HERE6, ALL6, protocol, &[7; 20]), v6);
    }
    for offset in [0, 7] {
        let piece = (9, offset, true);
        expect_v4(&ipv4_with(HERE4, ALL4, TCP, 0, Some(piece), &[7; 24]), v4);
        expect_v6(&ipv6(HERE6, ALL6, FRAGMENT, &fragment(TCP, piece, &[7; 24])), v6);
    }
    expect_v4(&ipv4(HERE4, ALL4, TCP, &[7; 3]), v4);
    // The kernel's own stay its.
    expect_v4(&ipv4(ALL4, OWN4, TCP, &[7; 20]), kernel(Local));
    expect_v4(&ipv4(BYPASS4, PEER4, TCP, &[7; 20]), kernel(Unprotected));
}

/// A packet of ours as a router shows it that it was too big for.
fn of_ours(v4: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if v4 { ipv4(OWN4, PEER4, protocol, payload) } else { ipv6(OWN6, PEER6, protocol, payload) }
}

#[test]
fn what_was_too_big_of_ours_goes_by_its_spi() {
    let sealed = esp(SPI, 24);
    let ports = |src, dst| (UDP, udp(src, dst, &sealed));
    let protected = [
        (ESP, sealed.clone()),
        (AH, ah(ESP, SPI, &sealed)),
        ports(4500, 4500),
        ports(4500, 31_000),
        ports(31_000, 4500),
    ];
    let expect_both = |about: &dyn Fn(bool) -> Vec<u8>, decision| {
        expect_v4(&ipv4(PEER4, OWN4, ICMP, &too_big(ICMP, 1400, &about(true))), decision);
        expect_v6(&ipv6(PEER6, OWN6, ICMP6, &too_big(ICMP6, 1400, &about(false))), decision);
    };
    for (protocol, payload) in &protected {
        // RFC 792: the header and 8 octets are shown at least; and 4 more, of UDP.
        let least = if *protocol == UDP { 12 } else { 8 };
        for octets in [least, payload.len()] {
            expect_both(&|v4| of_ours(v4, *protocol, &payload[..octets]), by_spi(TooBig));
        }
        expect_both(&|v4| of_ours(v4, *protocol, &payload[..least - 1]), kernel(Local));
        // Through to a host, it is about what that host has sent.
        let about = of_ours(true, *protocol, payload);
        let to = |dst| ipv4(PEER4, dst, ICMP, &too_big(ICMP, 1400, &about));
        expect_v4(&to(THERE4), Decision::worker(3, ClearTo));
        expect_v4(&to(PEER4), kernel(Unprotected));
        // What is behind the packet is not shown.
        let mut frame = ethernet(&[], IPV4, &ipv4(PEER4, OWN4, ICMP, &too_big(ICMP, 1400, &about[..24])));
        frame.extend(&about[24..]);
        expect(&frame, kernel(Local));
        for (v4, change) in [(true, (0, 5)), (true, (1, 3)), (false, (0, 3))] {
            let mut message = too_big(if v4 { ICMP } else { ICMP6 }, 1400, &of_ours(v4, *protocol, payload));
            message[change.0] = change.1;
            match v4 {
                true => expect_v4(&ipv4(PEER4, OWN4, ICMP, &message), kernel(Local)),
                false => expect_v6(&ipv6(PEER6, OWN6, ICMP6, &message), kernel(Local)),
            }
        }
        // Fragments, of the packet and of the message.
        let first = ipv4_with(OWN4, PEER4, *protocol, 3, Some((1, 0, true)), payload);
        let later = ipv4_with(OWN4, PEER4, *protocol, 3, Some((1, 1, false)), payload);
        for (about, decision) in [(first, by_spi(TooBig)), (later, kernel(Local))] {
            let message = too_big(ICMP, 1400, &about);
            expect_v4(&ipv4_with(PEER4, OWN4, ICMP, 2, None, &message), decision);
            expect_v4(&ipv4_with(PEER4, OWN4, ICMP, 0, Some((1, 0, true)), &message), kernel(Local));
        }
        let first = options(FRAGMENT, 0, &fragment(*protocol, (1, 0, true), payload));
        let later = options(FRAGMENT, 0, &fragment(*protocol, (1, 1, true), payload));
        for (about, decision) in [(first, by_spi(TooBig)), (later, kernel(Local))] {
            let message = too_big(ICMP6, 1400, &of_ours(false, DESTINATION_OPTIONS, &about));
            expect_v6(&ipv6(PEER6, OWN6, HOP_BY_HOP, &options(ICMP6, 0, &message)), decision);
        }
    }
    // RFC 3948 §2.2: IKE is the kernel's, as is all else.
    for (protocol, payload) in [
        (UDP, udp(4500, 4500, &[0; 24])),
        (UDP, udp(500, 500, &sealed)),
        (UDP, udp(53, 53, &sealed)),
        (TCP, sealed.clone()),
    ] {
        expect_both(&|v4| of_ours(v4, protocol, &payload), kernel(Local));
    }
    // Of the other version of IP, neither message nor packet.
    expect_v4(&ipv4(PEER4, OWN4, ICMP6, &too_big(ICMP6, 1400, &of_ours(false, ESP, &sealed))), kernel(Local));
    expect_v4(&ipv4(PEER4, OWN4, ICMP, &too_big(ICMP, 1400, &of_ours(false, ESP, &sealed))), kernel(Local));
    expect_v6(&ipv6(PEER6, OWN6, ICMP6, &too_big(ICMP6, 1400, &of_ours(true, ESP, &sealed))), kernel(Local));
}

#[test]
fn groups_and_links_are_the_kernels() {
    let link_local = [0xfe, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let beyond = [0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    for (protocol, payload) in [(ESP, esp(SPI, 32)), (UDP, udp(9, 9, &[])), (89, vec![0; 24])] {
        for dst in [[224, 0, 0, 5], [239, 255, 255, 255], [255; 4]] {
            expect_v4(&ipv4(HERE4, dst, protocol, &payload), kernel(LinkScope));
        }
        for (src, dst) in [(HERE6, link_local), (link_local, HERE6), (HERE6, group)] {
            expect_v6(&ipv6(src, dst, protocol, &payload), kernel(LinkScope));
        }
    }
    expect_v4(&ipv4(HERE4, [223, 255, 255, 255], TCP, &[]), Decision::worker(2, ClearFrom));
    expect_v4(&ipv4(HERE4, [255, 255, 255, 254], TCP, &[]), Decision::worker(2, ClearFrom));
    expect_v6(&ipv6(HERE6, beyond, TCP, &[]), Decision::worker(2, ClearFrom));
}

#[test]
fn fragments_of_esp_meet_at_one_worker() {
    for (protocol, first) in [(ESP, esp(SPI, 32)), (AH, ah(ESP, SPI, &[]))] {
        for (piece, payload) in
            [((5, 0, true), first), ((5, 5, true), vec![7; 40]), ((5, 10, false), vec![7; 3])]
        {
            let v4 = ipv4_with(PEER4, OWN4, protocol, 0, Some(piece), &payload);
            expect_v4(&v4, together(mapped(PEER4), mapped(OWN4)));
            let v6 = ipv6(PEER6, OWN6, FRAGMENT, &fragment(protocol, piece, &payload));
            expect_v6(&v6, together(PEER6, OWN6));
        }
    }
}

/// Steers pieces of a datagram in turn, with one memory.
fn in_turn(frames: &[Vec<u8>]) -> Vec<Decision> {
    let tables = tables();
    frames.iter().map(|frame| steer(frame.as_slice(), WORKERS, &tables)).collect()
}

#[test]
fn fragments_of_esp_in_udp_follow_their_first() {
    let piece_v4 =
        |piece, payload: &[u8]| ethernet(&[], IPV4, &ipv4_with(PEER4, OWN4, UDP, 0, Some(piece), payload));
    let first = udp(4500, 4500, &esp(SPI, 32));
    let frames = [
        piece_v4((5, 6, true), &[0; 24]),
        piece_v4((5, 0, true), &first),
        piece_v4((5, 6, true), &[0; 24]),
        piece_v4((5, 9, false), &[0; 24]),
        piece_v4((6, 9, false), &[0; 24]),
        ethernet(&[], IPV4, &ipv4_with(PEER4, OWN4, TCP, 0, Some((5, 6, true)), &[0; 24])),
    ];
    let meet = together(mapped(PEER4), mapped(OWN4));
    assert_eq!(in_turn(&frames), [kernel(Local), meet, meet, meet, kernel(Local), kernel(Local)]);

    // IPv6, and with options in the fragmented part, which hide from later fragments what it is.
    let with_options = options(ESP, 0, &esp(SPI, 32));
    for (protocol, first) in [(UDP, first), (DESTINATION_OPTIONS, with_options)] {
        let piece_v6 = |piece, payload: &[u8]| {
            ethernet(&[], IPV6, &ipv6(PEER6, OWN6, FRAGMENT, &fragment(protocol, piece, payload)))
        };
        let frames = [
            piece_v6((5, 0, true), &first),
            piece_v6((5, 6, false), &[0; 24]),
            piece_v6((6, 6, false), &[0; 24]),
        ];
        let meet = together(PEER6, OWN6);
        assert_eq!(in_turn(&frames), [meet, meet, kernel(Local)]);
    }

    // IKE in fragments stays with the kernel.
    let ike = udp(4500, 4500, &[0; 32]);
    let frames = [piece_v4((5, 0, true), &ike), piece_v4((5, 6, false), &[0; 24])];
    assert_eq!(in_turn(&frames), [kernel(IkeNatT), kernel(Local)]);
}

/// What must hold of any frame, whatever is in it.
fn check(frame: &[u8], tables: &HostTables) {
    let decision = steer(frame, WORKERS, tables);
    match decision {
        Decision { worker: TO_KERNEL, reason } => assert_eq!(reason.fate(), Fate::Kernel),
        Decision { worker: TO_NOBODY, reason } => assert_eq!(reason.fate(), Fate::Dropped),
        Decision { worker, reason } => {
            assert!(worker < WORKERS);
            assert_eq!(reason.fate(), Fate::Worker);
        }
    }
    // Trailing padding changes nothing, unless the packet was cut short.
    let reason = decision.reason;
    if !reason.metric().starts_with("truncated") && reason != Fragment {
        let padded = [frame, &[0xff; 40]].concat();
        let again = steer(padded.as_slice(), WORKERS, tables);
        if again != decision {
            let shows_more = (reason, again.reason) == (Local, TooBig);
            assert!(shows_more || matches!(reason, ClearTo | ClearFrom), "{decision:?} {again:?}");
        }
    }
}

#[test]
fn every_frame_has_one_fate() {
    let tables = tables();
    for seed in 0..100_000 {
        check(&generate::frame(&mut Rng(seed)), &tables);
        check(&generate::mutated(&mut Rng(seed)), &tables);
    }
}

/// No frame that the kernel would forward between protected prefixes reaches it.
#[test]
fn nothing_between_protected_prefixes_leaks() {
    for seed in 0..200_000 {
        let mut rng = Rng(seed);
        let mut frame = generate::mutated(&mut rng);
        let tables = tables();
        // Overwrite the addresses of what is still IP.
        let Some(at) = network_layer(&frame) else { continue };
        let (v4, v6) = (frame[at] >> 4 == 4, frame[at] >> 4 == 6);
        if v4 && frame.len() >= at + 20 {
            frame[at + 12..at + 16].copy_from_slice(&HERE4);
            frame[at + 16..at + 20].copy_from_slice(&THERE4);
        } else if v6 && frame.len() >= at + 40 {
            frame[at + 8..at + 24].copy_from_slice(&HERE6);
            frame[at + 24..at + 40].copy_from_slice(&THERE6);
        } else {
            continue;
        }
        match steer(frame.as_slice(), WORKERS, &tables) {
            Decision { worker: 0..WORKERS, .. } => {}
            Decision { reason: BadIp | TruncatedIpv4 | TruncatedIpv6, .. } => {}
            leak => panic!("seed {seed}: {leak:?} {frame:02x?}"),
        }
    }
}

/// Where the IP header of a frame with at most two tags starts.
fn network_layer(frame: &[u8]) -> Option<usize> {
    let ether_type = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let mut at = 12;
    for _ in 0..2 {
        if matches!(ether_type(at)?, VLAN | SERVICE_VLAN) {
            at += 4;
        }
    }
    let version = frame.get(at + 2)? >> 4;
    matches!((ether_type(at)?, version), (IPV4, 4) | (IPV6, 6)).then_some(at + 2)
}

#[test]
fn addresses_spread_over_the_workers() {
    let mut meetings = [0; WORKERS as usize];
    for host in 0..=255 {
        meetings[worker_of_addresses(&mapped([192, 0, 2, host]), &mapped(OWN4), WORKERS) as usize] += 1;
    }
    assert!(meetings.iter().all(|&n| (32..=96).contains(&n)), "{meetings:?}");
    assert!(tables().protected(portcullis_ebpf::Family::V4, &mapped(OWN4)) == TO_KERNEL);
}
