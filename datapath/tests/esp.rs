//! ESP packets against a plain reading of the RFCs: built octet by octet here, and sealed by RustCrypto.

#[path = "../crypto/tests/rustcrypto/mod.rs"]
mod rustcrypto;

use arrayvec::ArrayVec;
use portcullis_datapath::{
    crypto::{self, Aead, HEAD, Job},
    drop::DropReason,
    esp::{self, OuterHeader},
    frame::Frame,
    wire::{self, Ip},
};
use portcullis_sadb::{Algorithm, Direction, Handling, Key, Mode, Name, Protocol, Sa, Spi, UdpEncap};
use proptest::prelude::*;
use std::net::IpAddr;

const ROOM: u16 = 4096;

/// Where a packet starts in its chunk: there is room for headers in front.
const START: usize = 256;

fn frame(bytes: &[u8]) -> Frame {
    let mut frame = Frame::boxed(ROOM);
    frame.reset(START);
    assert!(frame.extend(bytes.len()));
    frame.bytes_mut().copy_from_slice(bytes);
    frame
}

/// RFC 1071, by the remainder of a division.
fn checksum(octets: &[u8]) -> [u8; 2] {
    let word = |(i, octet): (usize, &u8)| (*octet as u64) << (8 * (1 - i % 2));
    let sum: u64 = octets.iter().enumerate().map(word).sum();
    let folded = if sum == 0 { 0 } else { (sum - 1) % 0xffff + 1 };
    (!(folded as u16)).to_be_bytes()
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// An IP header in front of a payload.
#[derive(Clone, Copy, Debug)]
struct Header {
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    id: u16,
    df: bool,
}

impl Header {
    fn before(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut h = vec![];
        if self.src.is_ipv4() {
            h.extend([0x45, self.tos]);
            h.extend((20 + payload.len() as u16).to_be_bytes());
            h.extend(self.id.to_be_bytes());
            h.extend([if self.df { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
            h.extend(octets(self.src));
            h.extend(octets(self.dst));
            let checksum = checksum(&h);
            h[10..12].copy_from_slice(&checksum);
        } else {
            h.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
            h.extend((payload.len() as u16).to_be_bytes());
            h.extend([protocol, 64]);
            h.extend(octets(self.src));
            h.extend(octets(self.dst));
        }
        h.extend(payload);
        h
    }
}

fn address(v4: bool) -> impl Strategy<Value = IpAddr> {
    any::<[u8; 16]>().prop_map(move |a| match v4 {
        true => IpAddr::from(*a.first_chunk::<4>().unwrap()),
        false => IpAddr::from(a),
    })
}

prop_compose! {
    fn sa()(
        (src, dst) in any::<bool>().prop_flat_map(|v4| (address(v4), address(v4))),
        algorithm in prop::sample::select(vec![Algorithm::AES_GCM_128, Algorithm::AES_GCM_256]),
        (spi, esn, udp) in (256u32.., any::<bool>(), any::<Option<(u16, u16, bool)>>()),
        material in any::<[[u8; 18]; 2]>(),
    ) -> Sa {
        let udp = udp.map(|(src_port, dst_port, zero_checksum)| {
            UdpEncap { zero_checksum, ..UdpEncap::between(src_port, dst_port) }
        });
        let key = &material.concat()[..algorithm.key_len() + algorithm.salt_len()];
        Sa {
            spi: Spi(spi), direction: Direction::Outbound, protocol: Protocol::Esp, mode: Mode::Tunnel,
            algorithm, src, dst, udp, esn, replay_window: 64, reqid: 1, worker: None, around: None, mtu: 0,
            handling: Handling::default(),
            name: Name::new("peer").unwrap(), key: Key::new(key).unwrap(),
        }
    }
}

prop_compose! {
    /// An inner packet and its header.
    fn inner()(
        (src, dst) in any::<bool>().prop_flat_map(|v4| (address(v4), address(v4))),
        (tos, id, df) in any::<(u8, u16, bool)>(),
        payload in prop::collection::vec(any::<u8>(), 0..1500),
    ) -> (Header, Vec<u8>) {
        let header = Header { src, dst, tos, id, df: df || src.is_ipv6() };
        // Number 253 is for experiments: no upper protocol that anybody looks into.
        (header, header.before(253, &payload))
    }
}

/// RFC 4303 §2: what an SA makes of a payload that ends with its trailer.
fn esp_packet(sa: &Sa, seq: u64, plain: &[u8]) -> Vec<u8> {
    let (spi, seq) = (sa.spi.0.to_be_bytes(), seq.to_be_bytes());
    let aad = [&spi[..], if sa.esn { &seq } else { &seq[4..] }].concat(); // RFC 4106 §5
    let sealed = rustcrypto::seal(sa.key.bytes(), seq, &aad, plain);
    [&spi[..], &seq[4..], &seq, &sealed].concat()
}

/// The payload and the trailer (RFC 4303 §2.4).
fn with_trailer(payload: &[u8], pad: u8, next_header: u8) -> Vec<u8> {
    let padding: Vec<u8> = (1..=pad).collect();
    [payload, &padding, &[pad, next_header]].concat()
}

/// The packet with its outer headers (RFC 4301 §5.1.2, RFC 3948 §2.1, RFC 6935 §5).
fn outer_packet(sa: &Sa, header: &Header, id: u16, esp: &[u8]) -> Vec<u8> {
    let outer = Header {
        src: sa.src,
        dst: sa.dst,
        tos: header.tos, // RFC 6040 §4.1, normal mode
        id: if header.df { 0 } else { id },
        df: header.df,
    };
    let Some(encap) = sa.udp else { return outer.before(50, esp) };
    let (sport, dport) = encap.ports();
    let length = 8 + esp.len() as u16;
    let mut udp =
        [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &length.to_be_bytes(), &[0, 0], esp].concat();
    if sa.src.is_ipv6() && !encap.zero_checksum {
        let pseudo = [&octets(sa.src)[..], &octets(sa.dst), &[0, 0], &length.to_be_bytes(), &[0, 0, 0, 17]];
        let sum = checksum(&[&pseudo.concat()[..], &udp].concat());
        udp[6..8].copy_from_slice(&if sum == [0, 0] { [0xff, 0xff] } else { sum }); // RFC 8200 §8.1
    }
    outer.before(17, &udp)
}

/// What an SA makes of an inner packet, by our own code.
fn encapsulated(sa: &Sa, outer: &mut OuterHeader, frame: &mut Frame, seq: u64) -> Result<(), DropReason> {
    let key = Aead::best().sa_key(sa.algorithm, sa.key.bytes()).unwrap();
    let ip = Ip::parse(frame.bytes()).unwrap();
    outer.encap(frame, &ip, sa.spi.0, seq)?;
    let aad = crypto::aad(sa.spi.0, seq, sa.esn);
    let packet = &mut frame.bytes_mut()[outer.text() - HEAD..];
    Aead::best().seal(&mut [Job::new(&key, seq.to_be_bytes(), aad, 16, packet).unwrap()]);
    outer.sealed(frame);
    Ok(())
}

/// What our own code finds in an outer packet.
fn decapsulated(sa: &Sa, outer_tos: u8, seq: u64, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
    let key = Aead::best().sa_key(sa.algorithm, sa.key.bytes()).unwrap();
    let mut frame = frame(packet);
    let text = OuterHeader::new(sa).text();
    let packet = &mut frame.bytes_mut()[text - HEAD..];
    let iv = *packet[..HEAD].last_chunk().unwrap();
    let mut verified = ArrayVec::<_, 1>::new();
    let aad = crypto::aad(sa.spi.0, seq, sa.esn);
    Aead::best().open(&mut [Job::new(&key, iv, aad, 16, packet).unwrap()], &mut verified);
    esp::decap(
        &mut frame,
        text,
        outer_tos,
        &mut Ip::NONE.clone(),
        verified[0].ok_or(DropReason::IcvMismatch)?,
    )?;
    Ok(frame.bytes().to_vec())
}

proptest! {
    #[test]
    fn encap_makes_what_the_rfcs_say(
        sa in sa(),
        inners in prop::collection::vec(inner(), 1..4),
        first_seq in 1..u64::MAX - 8,
    ) {
        let mut outer = OuterHeader::new(&sa);
        prop_assert_eq!(outer.dst(), sa.dst.into());
        let (mut seq, mut id) = (first_seq, 0);
        for (header, inner) in &inners {
            let mut frame = frame(inner);
            prop_assert_eq!(encapsulated(&sa, &mut outer, &mut frame, seq), Ok(()));
            id += u16::from(!header.df);
            let pad = (4 - (inner.len() + 2) % 4) % 4; // RFC 4303 §2.4: no more than needed
            let next_header = if header.src.is_ipv4() { 4 } else { 41 };
            let esp = esp_packet(&sa, seq, &with_trailer(inner, pad as u8, next_header));
            let expected = outer_packet(&sa, header, id, &esp);
            prop_assert_eq!(frame.bytes(), &expected[..]);
            prop_assert_eq!(outer.outer_len(inner.len()), expected.len());
            seq += 1;
        }
    }

    #[test]
    fn decap_finds_what_the_rfcs_let_a_peer_send(
        sa in sa(),
        (header, inner) in inner(),
        seq in 1..=u64::MAX,
        // RFC 4303 §2.4: up to 255 octets of padding; §2.7: any octets behind the inner packet.
        (more_padding, tfc) in (0u8..63, prop_oneof![Just(vec![]), prop::collection::vec(any::<u8>(), 0..300)]),
    ) {
        let payload = [&inner[..], &tfc].concat();
        let pad = (4 - (payload.len() + 2) % 4) % 4 + 4 * more_padding as usize;
        let next_header = if header.src.is_ipv4() { 4 } else { 41 };
        let esp = esp_packet(&sa, seq, &with_trailer(&payload, pad as u8, next_header));
        let packet = outer_packet(&sa, &header, 7, &esp);
        prop_assert_eq!(decapsulated(&sa, header.tos, seq, &packet), Ok(inner));
        // The half of an extended number that is not on the wire is in the ICV (RFC 4303 §2.2.1).
        let other = decapsulated(&sa, header.tos, seq ^ 1 << 32, &packet);
        prop_assert_eq!(other.is_err(), sa.esn);
    }

    #[test]
    fn the_inner_mtu_is_the_largest_that_fits(sa in sa(), mtu in 100usize..9200) {
        let outer = OuterHeader::new(&sa);
        let inner = outer.inner_mtu(mtu);
        prop_assert!(outer.outer_len(inner) <= mtu && outer.outer_len(inner + 1) > mtu);
    }

    #[test]
    fn an_inner_packet_of_that_size_fits(sa in sa(), mtu in 200usize..2000, v4: bool) {
        let mut outer = OuterHeader::new(&sa);
        for (inner, fits) in [(outer.inner_mtu(mtu), true), (outer.inner_mtu(mtu) + 1, false)] {
            let (src, dst) = if v4 { ("10.0.0.1", "10.0.0.2") } else { ("fd00::1", "fd00::2") };
            let header =
                Header { src: src.parse().unwrap(), dst: dst.parse().unwrap(), tos: 0, id: 1, df: true };
            let ip_len = if v4 { wire::IPV4 } else { wire::IPV6 };
            let mut frame = frame(&header.before(253, &vec![0; inner - ip_len]));
            prop_assert_eq!(encapsulated(&sa, &mut outer, &mut frame, 1), Ok(()));
            prop_assert_eq!(frame.len() <= mtu, fits);
        }
    }
}

fn one_sa() -> Sa {
    Sa {
        spi: Spi(0x1001),
        direction: Direction::Outbound,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: Algorithm::AES_GCM_128,
        src: [192, 0, 2, 1].into(),
        dst: [192, 0, 2, 2].into(),
        udp: None,
        esn: true,
        replay_window: 64,
        reqid: 1,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("peer").unwrap(),
        key: Key::new(&[7; 20]).unwrap(),
    }
}

/// An inner IPv4 packet of 40 octets.
fn one_inner() -> (Header, Vec<u8>) {
    let header = Header { src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 2].into(), tos: 0, id: 1, df: true };
    (header, header.before(253, &[5; 20]))
}

#[test]
fn without_room_a_frame_is_refused() {
    let sa = one_sa();
    let (_, inner) = one_inner();
    let needed = OuterHeader::new(&sa).outer_len(inner.len()) - inner.len();
    let front = wire::IPV4 + wire::ESP + esp::IV;
    for (front_room, back_room, expected) in [
        (front, needed - front, Ok(())),
        (front - 1, needed - front, Err(DropReason::NoHeadroom)),
        (front, needed - front - 1, Err(DropReason::NoTailroom)),
    ] {
        let meta = portcullis_datapath::frame::META;
        let mut frame = Frame::boxed((meta + front_room + inner.len() + back_room) as u16);
        frame.reset(meta + front_room);
        assert!(frame.extend(inner.len()));
        frame.bytes_mut().copy_from_slice(&inner);
        assert_eq!(encapsulated(&sa, &mut OuterHeader::new(&sa), &mut frame, 1), expected);
    }
}

/// Each bit of what is in an opened packet behind the inner packet, and what comes of it.
#[test]
fn each_bit_of_the_trailer_counts() {
    let (sa, (header, inner)) = (one_sa(), one_inner());
    let good = with_trailer(&inner, 6, 4);
    let open = |plain: &[u8]| {
        let packet = outer_packet(&sa, &header, 1, &esp_packet(&sa, 1, plain));
        decapsulated(&sa, 0, 1, &packet)
    };
    assert_eq!(open(&good), Ok(inner.clone()));
    let length_at = good.len() - 2;
    for bit in inner.len() * 8..good.len() * 8 {
        let mut plain = good.clone();
        plain[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            at if at <= length_at => Err(DropReason::BadPadding), // RFC 4303 §2.4
            _ => Err(DropReason::BadInner),
        };
        assert_eq!(open(&plain), expected, "octet {}, bit {}", bit / 8, bit % 8);
    }
    let mut nothing = good.clone();
    nothing[length_at + 1] = 59;
    assert_eq!(open(&nothing), Err(DropReason::Dummy)); // RFC 4303 §2.6
    assert_eq!(open(&with_trailer(&[], 2, 4)), Err(DropReason::BadInner));
    assert_eq!(open(&[255, 4]), Err(DropReason::BadPadding), "padding longer than the packet");
}

/// RFC 8200 §8.1: 0 would mean that there is no checksum.
#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    let [src, dst] = [1u16, 2].map(|n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]));
    let sa = Sa { src, dst, udp: Some(UdpEncap::between(4500, 4500)), ..one_sa() };
    let (header, inner) = one_inner();
    let mut outer = OuterHeader::new(&sa);
    let mut frame = frame(&inner);
    let found = (1..1_000_000).find(|seq| {
        frame.reset(START);
        assert!(frame.extend(inner.len()));
        frame.bytes_mut().copy_from_slice(&inner);
        encapsulated(&sa, &mut outer, &mut frame, *seq).unwrap();
        let field = &frame.bytes()[wire::IPV6 + 6..wire::IPV6 + 8];
        assert_ne!(field, [0, 0]);
        field == [0xff, 0xff]
    });
    let seq = found.expect("one in 65,535 has it");
    // The frame still holds that packet.
    let esp = esp_packet(&sa, seq, &with_trailer(&inner, 2, 4));
    assert_eq!(frame.bytes(), outer_packet(&sa, &header, 0, &esp));
}
