use super::*;

/// With two ports of ESP in UDP.
fn classify(frame: &[u8]) -> Class {
    super::classify(frame, &UdpPorts::new(&[4500, 4510]).unwrap())
}

use proptest::prelude::*;

const SPI: u32 = 0x1234_5678;
/// What `esp_packet` has behind its SPI.
const SEQ: u32 = 0x0102_0304;

/// SPI, sequence number, IV, some ciphertext and an ICV.
fn esp_packet() -> Vec<u8> {
    let mut p = SPI.to_be_bytes().to_vec();
    p.extend(1..=44);
    p
}

/// Next header, length, reserved, SPI, sequence number, ICV.
fn ah_packet() -> Vec<u8> {
    [&[6, 4, 0, 0][..], &SPI.to_be_bytes(), &[0; 16]].concat()
}

fn udp_packet(dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x30, 0x39];
    p.extend(dport.to_be_bytes());
    p.extend((8 + payload.len() as u16).to_be_bytes());
    p.extend([0, 0]);
    p.extend(payload);
    p
}

/// An IPv4 packet; `fragment` is the word of flags and offset.
fn v4(options: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = wire::IPV4 + options;
    let mut p = vec![1; header]; // options: no operation
    p[..2].copy_from_slice(&[0x40 | (header / 4) as u8, 0xb9]);
    p[2..4].copy_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    p[6..8].copy_from_slice(&fragment.to_be_bytes());
    (p[8], p[9]) = (64, protocol);
    p[10..12].fill(0);
    p[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
    let checksum = !wire::fold(wire::sum(&p));
    p[10..12].copy_from_slice(&checksum.to_be_bytes());
    p.extend(payload);
    p
}

/// An IPv6 packet with extension headers of 8 octets before its payload.
fn v6(extensions: &[u8], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let chain: Vec<u8> = extensions.iter().copied().chain([protocol]).collect();
    let mut p = vec![0x6b, 0x90, 0, 0];
    p.extend(((8 * extensions.len() + payload.len()) as u16).to_be_bytes());
    p.extend([chain[0], 64]);
    p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    for next in &chain[1..] {
        p.extend([*next, 0, 0, 0, 0, 0, 0, 7]);
    }
    p.extend(payload);
    p
}

/// An IPv6 packet with a fragment header; `fragment` is its word of offset and more-fragments.
fn v6_fragment(fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut p = v6(&[wire::protocol::FRAGMENT], protocol, payload);
    p[wire::IPV6 + 2..wire::IPV6 + 4].copy_from_slice(&fragment.to_be_bytes());
    p
}

fn frame(tags: usize, packet: &[u8]) -> Vec<u8> {
    let mut f = vec![2; 12];
    (0..tags).for_each(|i| f.extend([if i == 0 { [0x88, 0xa8] } else { [0x81, 0] }, [0, 5]].concat()));
    f.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    f.extend(packet);
    f
}

/// ESP in every frame that may carry it: the frame, where its IP header and, behind that, its ESP header
/// start, and whether it is in UDP.
fn esp_frames() -> Vec<(Vec<u8>, usize, usize, bool)> {
    use wire::protocol::{DESTINATION_OPTIONS, ESP, FRAGMENT, HOP_BY_HOP, ROUTING, UDP};
    let (esp, udp) = (esp_packet(), udp_packet(4500, &esp_packet()));
    let all = [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT];
    vec![
        (frame(0, &v4(0, 0x4000, ESP, &esp)), 14, 20, false),
        (frame(0, &v4(40, 0, ESP, &esp)), 14, 60, false),
        (frame(1, &v4(4, 0, ESP, &esp)), 18, 24, false),
        (frame(2, &v4(0, 0, ESP, &esp)), 22, 20, false),
        (frame(0, &v4(0, 0, UDP, &udp)), 14, 28, true),
        (frame(2, &v4(8, 0, UDP, &udp)), 22, 36, true),
        (frame(0, &v6(&[], ESP, &esp)), 14, 40, false),
        (frame(1, &v6(&all, ESP, &esp)), 18, 72, false), // the fragment is the only one: RFC 6946
        (frame(0, &v6(&[DESTINATION_OPTIONS; 7], ESP, &esp)), 14, 96, false),
        (frame(2, &v6(&[], UDP, &udp)), 22, 48, true),
    ]
}

#[test]
fn esp_is_found_wherever_it_may_be() {
    for (bytes, l3, esp, udp) in esp_frames() {
        let len = (bytes.len() - l3) as u16;
        let expected =
            Class::Esp { spi: SPI, seq_lo: SEQ, l3: l3 as u8, esp: esp as u16, udp, tos: 0xb9, len };
        assert_eq!(classify(&bytes), expected, "{bytes:02x?}");
        // What the link adds to short frames is not the packet's.
        assert_eq!(classify(&[&bytes[..], &[0; 22]].concat()), expected);
    }
}

#[test]
fn cut_short_it_is_malformed() {
    for (bytes, ..) in esp_frames() {
        for n in 0..bytes.len() {
            assert_eq!(classify(&bytes[..n]), Class::Bad(DropReason::Malformed), "{n} of {bytes:02x?}");
        }
    }
}

#[test]
fn esp_without_room_for_its_header_is_malformed() {
    let esp = &esp_packet()[..7];
    let udp = udp_packet(4510, esp);
    for packet in [v4(0, 0, 50, esp), v6(&[60], 50, esp), v4(0, 0, 17, &udp), v6(&[], 17, &udp)] {
        assert_eq!(classify(&frame(0, &packet)), Class::Bad(DropReason::Malformed));
    }
    let ah = &ah_packet()[..11];
    for packet in [v4(0, 0, 51, ah), v6(&[], 51, ah)] {
        assert_eq!(classify(&frame(0, &packet)), Class::Bad(DropReason::Malformed));
    }
}

#[test]
fn each_bit_in_front_of_the_esp_payload_has_one_effect() {
    for (bytes, l3, esp, udp) in esp_frames() {
        let good = classify(&bytes);
        let is_v4 = bytes[l3] >> 4 == 4;
        let ip_end = if is_v4 { l3 + (bytes[l3] & 15) as usize * 4 } else { l3 + wire::IPV6 };
        let (udp_at, esp_at) = (l3 + esp - wire::UDP, l3 + esp);
        for bit in 0..bytes.len() * 8 {
            let (at, mask) = (bit / 8, 1 << (bit % 8));
            let mut flipped = bytes.clone();
            flipped[at] ^= mask;
            let class = classify(&flipped);
            let told = format!("octet {at}, mask {mask:#x} of {bytes:02x?}: {class:?}");
            match at {
                // Nobody asks for link-layer addresses or VLANs here.
                0..12 => assert_eq!(class, good, "{told}"),
                // RFC 1812 §5.2.2: a wrong header is a wrong checksum, if not a wrong length.
                _ if is_v4 && (l3..ip_end).contains(&at) => {
                    let malformed = [l3, l3 + 2, l3 + 3].contains(&at);
                    let bad = Class::Bad(DropReason::BadChecksum);
                    assert!(
                        class == bad || malformed && class == Class::Bad(DropReason::Malformed),
                        "{told}"
                    );
                }
                _ if at >= esp_at + wire::ESP => assert_eq!(class, good, "{told}"),
                _ if at >= esp_at => {
                    let Class::Esp { spi, seq_lo, .. } = class else { panic!("{told}") };
                    let differs = ((spi ^ SPI) as u64) << 32 | (seq_lo ^ SEQ) as u64;
                    assert_eq!(differs, (mask as u64) << (8 * (esp_at + 7 - at)), "{told}");
                }
                _ if udp && at >= udp_at => match at - udp_at {
                    2 | 3 => assert_eq!(class, Class::Clear { l3: l3 as u8 }, "{told}"),
                    4 | 5 => assert_eq!(class, Class::Bad(DropReason::Malformed), "{told}"),
                    _ => assert_eq!(class, good, "{told}"),
                },
                // Tags, and IPv6 with its extensions, where no checksum tells.
                _ => {}
            }
        }
    }
}

#[test]
fn ah_is_told_from_esp() {
    for packet in [v4(0, 0, 51, &ah_packet()), v4(4, 0, 51, &ah_packet()), v6(&[0, 60], 51, &ah_packet())] {
        assert_eq!(classify(&frame(0, &packet)), Class::Ah { spi: SPI });
    }
}

#[test]
fn fragments_of_protected_packets_are_known() {
    const MORE: u16 = 0x2000;
    let (esp, ike) =
        (udp_packet(4500, &esp_packet()), udp_packet(4500, &[&[0; 4], &esp_packet()[..]].concat()));
    let clear = Class::Clear { l3: 14 };
    for (protocol, payload, first, later) in [
        (50, esp_packet(), Class::Fragment, Class::Fragment),
        (51, ah_packet(), Class::Fragment, Class::Fragment),
        // A later fragment of UDP does not show its ports.
        (17, esp, Class::Fragment, clear),
        (17, ike, clear, clear),
        (6, vec![0; 40], clear, clear),
    ] {
        for (fragment, class) in [(MORE, first), (MORE | 1, later), (1, later), (0x1fff, later)] {
            assert_eq!(classify(&frame(0, &v4(0, fragment, protocol, &payload))), class, "{fragment:#x}");
        }
        for (fragment, class) in [(1, first), (9, later), (8, later), (0xfff8, later)] {
            assert_eq!(
                classify(&frame(0, &v6_fragment(fragment, protocol, &payload))),
                class,
                "{fragment:#x}"
            );
        }
    }
}

#[test]
fn what_is_said_of_packets_that_were_too_big_is_known() {
    use wire::protocol::{AH, ESP, ICMP, ICMPV6, UDP};
    let message = |kind: u8, code: u8, about: &[u8]| [&[kind, code, 0, 0, 0, 0, 5, 0], about].concat();
    let (known, clear) = (Class::TooBig { spi: SPI }, Class::Clear { l3: 14 });
    let from = |mut udp: Vec<u8>| {
        udp.swap(0, 2);
        udp.swap(1, 3);
        udp
    };
    let in_udp = udp_packet(4500, &esp_packet());
    for (protocol, payload, shown, class) in [
        (ESP, esp_packet(), 8, known),
        (ESP, esp_packet(), 7, clear),
        (AH, ah_packet(), 8, known),
        (UDP, in_udp.clone(), 12, known),
        (UDP, in_udp.clone(), 11, clear),
        (UDP, from(in_udp), 30, known),
        (UDP, udp_packet(53, &esp_packet()), 30, clear),
        (UDP, udp_packet(4500, &[0; 24]), 30, clear), // RFC 3948 §2.2
        (6, esp_packet(), 30, clear),
    ] {
        let v4_about = &v4(4, 0x4000, protocol, &payload)[..24 + shown];
        let v6_about = &v6(&[60], protocol, &payload)[..48 + shown];
        let (of_v4, of_v6) = (message(3, 4, v4_about), message(2, 0, v6_about));
        assert_eq!(classify(&frame(0, &v4(0, 0, ICMP, &of_v4))), class);
        assert_eq!(classify(&frame(0, &v6(&[0], ICMPV6, &of_v6))), class); // RFC 4443 §3.2
        for other in [
            v4(0, 0, ICMP, &message(3, 3, v4_about)),
            v4(0, 0, ICMP, &message(8, 4, v4_about)),
            v4(0, 0x2000, ICMP, &of_v4),
            v4(0, 1, ICMP, &of_v4),
            v4(0, 0, ICMPV6, &of_v6),
            v6(&[], ICMP, &of_v4),
            v6(&[], ICMPV6, &message(3, 0, v6_about)),
            v6_fragment(1, ICMPV6, &of_v6),
        ] {
            assert_eq!(classify(&frame(0, &other)), clear);
        }
    }
}

#[test]
fn what_else_is_on_port_4500_is_clear() {
    let marked = [&[0; 4], &esp_packet()[..]].concat();
    for udp in [
        udp_packet(4500, &marked),       // RFC 3948 §2.2: IKE, behind the non-ESP marker
        udp_packet(4500, &[0xff]),       // RFC 3948 §2.3: keepalive
        udp_packet(4500, &[]),           // nothing
        udp_packet(4500, &[1, 2, 3]),    // no room for an SPI
        udp_packet(500, &esp_packet()),  // IKE
        udp_packet(4501, &esp_packet()), // another's
        udp_packet(4500, &marked)[..7].to_vec(),
    ] {
        for packet in [v4(0, 0, 17, &udp), v6(&[60], 17, &udp)] {
            assert_eq!(classify(&frame(0, &packet)), Class::Clear { l3: 14 }, "{packet:02x?}");
        }
    }
    let mut from = udp_packet(53, &esp_packet());
    from[..2].copy_from_slice(&4500u16.to_be_bytes());
    assert_eq!(
        classify(&frame(0, &v4(0, 0, 17, &from))),
        Class::Clear { l3: 14 },
        "only the destination says"
    );
}

#[test]
fn what_is_no_ip_is_the_kernels() {
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6]);
    arp.extend([0; 28]);
    assert_eq!(classify(&arp), Class::Kernel);
    assert_eq!(classify(&arp[..14]), Class::Kernel);
    assert_eq!(classify(&frame(3, &v4(0, 0, 50, &esp_packet()))), Class::Kernel, "three tags");
}

#[test]
fn the_version_must_be_that_of_the_ethertype() {
    for (packet, version) in [(v4(0, 0, 50, &esp_packet()), 6), (v6(&[], 50, &esp_packet()), 4)] {
        let mut bytes = frame(0, &packet);
        bytes[14] = version << 4 | bytes[14] & 15;
        assert_eq!(classify(&bytes), Class::Bad(DropReason::Malformed));
    }
    let mut none = frame(0, &v4(0, 0, 50, &esp_packet()));
    none.truncate(14);
    assert_eq!(classify(&none), Class::Bad(DropReason::Malformed));
}

#[test]
fn chains_of_extensions_have_an_end() {
    let packet = |n: usize| v6(&vec![60; n], 50, &esp_packet());
    assert!(matches!(classify(&frame(0, &packet(7))), Class::Esp { spi: SPI, .. }));
    assert_eq!(classify(&frame(0, &packet(8))), Class::Bad(DropReason::Malformed));
    assert_eq!(classify(&frame(0, &packet(50))), Class::Bad(DropReason::Malformed));
}

/// What a class says must be inside the frame.
fn is_inside(bytes: &[u8]) {
    match classify(bytes) {
        Class::Esp { spi, l3, esp, len, udp, .. } => {
            let (l3, esp, len) = (l3 as usize, esp as usize, len as usize);
            assert!(l3 + len <= bytes.len() && esp + wire::ESP <= len);
            assert_eq!(bytes[l3 + esp..][..4], spi.to_be_bytes());
            assert!(!udp || spi != 0, "RFC 3948 §2.2");
        }
        Class::Clear { l3 } => {
            let ip = Ip::parse(&bytes[l3 as usize..]).expect("it was parsed");
            assert!(l3 as usize + ip.len() <= bytes.len());
        }
        Class::Ah { .. } | Class::Fragment | Class::TooBig { .. } | Class::Kernel | Class::Bad(_) => {}
    }
}

proptest! {
    #[test]
    fn no_frame_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120), version in any::<bool>()) {
        let mut frame = bytes;
        if frame.len() >= 14 {
            frame[12..14].copy_from_slice(if version { &[8, 0] } else { &[0x86, 0xdd] });
        }
        is_inside(&frame);
    }

    /// Nearly all are plain: with one thing or another changed, in frames longer or shorter than they say.
    #[test]
    fn what_is_plain_is_what_it_is_step_by_step(
        protocol in prop::sample::select(vec![1u8, 6, 17, 50, 51, 132, 136]),
        dport in prop::sample::select(vec![53u16, 4500]),
        payload in 0usize..40,
        fragment in prop::sample::select(vec![0u16, 0x4000, 0x8000, 0x2000, 1, 0x1fff]),
        change in prop::option::of((12usize..60, any::<u8>())),
        has_right_checksum: bool,
        (less, more) in (0usize..3, 0usize..20),
    ) {
        let mut bytes = frame(0, &v4(0, fragment, protocol, &udp_packet(dport, &vec![7; payload])));
        if let Some((at, octet)) = change
            && let Some(place) = bytes.get_mut(at)
        {
            *place = octet;
        }
        if has_right_checksum {
            bytes[24..26].fill(0);
            let checksum = !wire::fold(wire::sum(&bytes[14..34]));
            bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes.truncate(bytes.len() - less);
        bytes.extend(vec![0; more]);
        let (mut plain, mut any) = (Ip::NONE, Ip::NONE);
        let is_plain = is_plain(&bytes, &mut plain);
        let (mut esp, mut other) = (Esp::NONE, Esp::NONE);
        let ports = UdpPorts::default();
        let (kind, l3) = parse_any(&bytes, &ports, &mut any, &mut other);
        if is_plain {
            prop_assert_eq!((plain, l3), (any, 14));
            prop_assert!(!is_clear(&plain, &ports) || matches!(kind, Kind::Clear));
            prop_assert_eq!(parse(&bytes, true, &ports, (&mut plain, &mut esp)), (kind, l3));
            prop_assert_eq!(esp, other);
        } else if change.is_none() && fragment & 0x3fff == 0 && has_right_checksum && less <= more {
            prop_assert!(false, "it is");
        }
    }

    #[test]
    fn what_is_found_is_inside(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end: prop::sample::Index,
        more in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let frames = esp_frames();
        let (mut bytes, l3, ..) = frames[which.index(frames.len())].clone();
        for (at, octet) in changes {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        if bytes[l3] >> 4 == 4 && bytes.len() > l3 + 60 {
            // A right checksum, so that more than the header's is tried.
            let end = l3 + ((bytes[l3] & 15) as usize * 4).max(wire::IPV4);
            bytes[l3 + 10..l3 + 12].fill(0);
            let checksum = !wire::fold(wire::sum(&bytes[l3..end]));
            bytes[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        if end.index(2) == 0 {
            bytes.truncate(end.index(bytes.len() + 1));
        }
        bytes.extend(more);
        is_inside(&bytes);
    }
}
