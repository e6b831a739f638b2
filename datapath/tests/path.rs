//! Packets through whole gateways in memory: what comes out, and exactly why what does not.

mod testbed;

use portcullis_datapath::{
    crypto::{self, Aead, Job},
    drop::DropReason,
    esp, wire,
};
use portcullis_sadb::{Algorithm, EventKind, Handling, Lifetime, Limits};
use testbed::*;

/// Two gateways, and the frames of both.
struct Pair {
    pool: std::sync::Arc<portcullis_datapath::pool::FramePool>,
    cache: portcullis_datapath::pool::FrameCache,
    one: Gateway,
    two: Gateway,
}

impl Pair {
    fn new(t: Tunnel) -> Pair {
        let pool = memory(4096);
        let cache = pool.cache();
        Pair { cache, one: Gateway::new(t, 1, &pool), two: Gateway::new(t, 2, &pool), pool }
    }

    /// What gateway 1 makes of a clear frame: the ESP frame.
    fn seal(&mut self, clear: &[u8]) -> Vec<u8> {
        let frame = frame(&mut self.cache, clear);
        let mut out = self.one.pass(LAN, frame);
        assert_eq!(out.len(), 1, "{:?}", self.one.drops());
        let (port, frame) = out.remove(0);
        assert_eq!(port, WAN);
        self.bytes(frame)
    }

    /// What gateway 2 makes of an ESP frame: the clear frame, or why it was dropped.
    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, DropReason> {
        let before = self.two.drops();
        let frame = frame(&mut self.cache, sealed);
        let mut out = self.two.pass(WAN, frame);
        match out.pop() {
            Some((LAN, frame)) => Ok(self.bytes(frame)),
            Some((_, frame)) => panic!("left by the wrong port: {:?}", self.bytes(frame)),
            None => Err(self.two.dropped_since(&before).expect("neither delivered nor counted")),
        }
    }

    /// A frame of segments of these lengths, and the rest in one or more.
    fn chain(&mut self, bytes: &[u8], lens: &[usize]) -> portcullis_datapath::frame::Frame {
        let (mut rest, mut frames) = (bytes, vec![]);
        for len in lens.iter().copied().chain(std::iter::repeat(3840)) {
            let (now, behind) = rest.split_at(len.min(3840).min(rest.len()));
            let mut segment = self.cache.take().unwrap();
            assert!(segment.extend(now.len()));
            segment.bytes_mut().copy_from_slice(now);
            frames.push(segment);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        let mut frames = frames.into_iter();
        let mut first = frames.next().unwrap();
        frames.for_each(|segment| first.append(segment));
        first
    }

    fn bytes(&mut self, frame: portcullis_datapath::frame::Frame) -> Vec<u8> {
        let mut bytes = vec![0; frame.total_len()];
        frame.gather(&mut bytes);
        self.cache.give(frame);
        bytes
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.one.stop(&mut self.cache);
        self.two.stop(&mut self.cache);
        drop(std::mem::replace(&mut self.cache, self.pool.cache()));
        assert_eq!(self.pool.free(), 4096, "no frame leaks");
    }
}

/// An ESP frame to gateway 2 over IPv4, sealed here by the test.
fn craft(text: &[u8], seq: u64, esn: bool) -> Vec<u8> {
    let key = Aead::best().sa_key(Algorithm::AES_GCM_128, &key(2, Algorithm::AES_GCM_128)).unwrap();
    let mut packet = [&[0; crypto::HEAD], text, &[0; crypto::ICV]].concat();
    let iv = seq.to_be_bytes();
    let aad = crypto::aad(spi(2), seq, esn);
    Aead::best().seal(&mut [Job::new(&key, iv, aad, 16, &mut packet).unwrap()]);
    let sealed = &packet[crypto::HEAD..];
    let esp = [&spi(2).to_be_bytes()[..], &(seq as u32).to_be_bytes(), &iv, sealed].concat();
    [&[2; 12][..], &ethernet_ip(outer(1, true), outer(2, true), 50, 64, &esp)[..]].concat()
}

/// A text that is right: an inner packet, padding, and the trailer.
fn text(inner: &[u8], next_header: u8) -> Vec<u8> {
    let pad = (inner.len() + 2).next_multiple_of(4) - inner.len() - 2;
    let padding: Vec<u8> = (1..=pad as u8).collect();
    [inner, &padding, &[pad as u8, next_header]].concat()
}

#[test]
fn all_mixes_of_families_algorithms_sizes_and_encapsulations_go_through() {
    for algorithm in Algorithm::all().filter(|a| esp::is_supported(*a)) {
        for (esn, udp_encap, outer_v4) in
            [(true, false, true), (false, true, true), (true, true, false), (false, false, false)]
        {
            let mut pair =
                Pair::new(Tunnel { algorithm, esn, udp: udp_encap, outer_v4, ..Tunnel::default() });
            for v4 in [true, false] {
                for payload in (0..40).chain([500, 1350]) {
                    let clear = udp(inside(1, v4), inside(2, v4), payload, 64);
                    let sealed = pair.seal(&clear);
                    let outer_ip = wire::Ip::parse(&sealed[14..]).unwrap();
                    assert_eq!(
                        (outer_ip.src(), outer_ip.dst()),
                        (outer(1, outer_v4).into(), outer(2, outer_v4).into())
                    );
                    assert_eq!(outer_ip.protocol(), if udp_encap { 17 } else { 50 });
                    assert_eq!(outer_ip.len(), sealed.len() - 14);
                    let tail = clear.last_chunk::<8>().unwrap();
                    assert!(
                        payload < 16 || !sealed.windows(8).any(|w| w == tail),
                        "the payload is not to be seen"
                    );
                    let opened = pair.open(&sealed).unwrap();
                    // Each gateway forwards: the TTL went down by two, all else is as it was.
                    assert_eq!(opened[14..], udp(inside(1, v4), inside(2, v4), payload, 62)[14..]);
                    assert_eq!(opened[..12], [2, 9, 9, 9, 9, 9, 2, 0, 0, 0, 1, 0]);
                }
            }
        }
    }
}

#[test]
fn what_follows_a_packet_in_its_frame_is_not_carried() {
    let mut pair = Pair::new(Tunnel::default());
    for v4 in [true, false] {
        let clear = udp(inside(1, v4), inside(2, v4), 3, 64);
        let (alone, padded) = (pair.seal(&clear), pair.seal(&[&clear[..], &[0xaa; 20]].concat()));
        assert_eq!(padded.len(), alone.len());
        let opened = pair.open(&[&padded[..], &[0xbb; 7]].concat()).unwrap();
        assert_eq!(opened[14..], udp(inside(1, v4), inside(2, v4), 3, 62)[14..]);
    }
}

#[test]
fn jumbo_frames_take_several_chunks() {
    let mut pair = Pair::new(Tunnel { mtu: 9000, ..Tunnel::default() });
    // Around 3798 the clear packet fits a chunk, and the sealed one does not.
    for payload in [3700, 3760, 3775, 3790, 3798, 3799, 3800, 5000, 8900] {
        let clear = udp(inside(1, true), inside(2, true), payload, 64);
        let sealed = pair.seal(&clear);
        assert_eq!(
            pair.open(&sealed).unwrap()[14..],
            udp(inside(1, true), inside(2, true), payload, 62)[14..]
        );
        let mut wrong = sealed.clone();
        *wrong.last_mut().unwrap() ^= 1;
        let again = pair.seal(&clear);
        assert_eq!(pair.open(&wrong), Err(DropReason::ReplayDuplicate));
        assert!(pair.open(&again).is_ok());
    }
    // One that does not fit is cut before.
    let too_big = frame(&mut pair.cache, &udp(inside(1, true), inside(2, true), 8960, 64));
    let sealed = pair.one.pass(LAN, too_big);
    assert_eq!(sealed.len(), 2);
    sealed.into_iter().for_each(|(_, frame)| pair.cache.give(frame));
}

/// A jumbo whose ESP header lies behind many options is refused, and the next ones go their way all the same.
#[test]
fn a_jumbo_leaves_nothing_of_its_headers_to_the_next() {
    use portcullis_sadb::{Action, Direction, Policy, Selector};
    let mut pair = Pair::new(Tunnel { mtu: 9000, ..Tunnel::default() });
    let selector = Selector::between("10.1.0.0/16".parse().unwrap(), "10.2.0.53/32".parse().unwrap());
    let (direction, action) = (Direction::Outbound, Action::Bypass);
    pair.one
        .sadb
        .add_policy(&Policy { direction, selector, priority: 1, action, reqid: 0, sa: None })
        .unwrap();
    // Destination options of 240 octets (RFC 8200 §4.6), padded with one option.
    let mut payload = vec![0; 5000];
    payload[..4].copy_from_slice(&[50, 29, 1, 236]);
    payload[240..244].copy_from_slice(&spi(9).to_be_bytes());
    let behind_options =
        [&[2; 12][..], &ethernet_ip(outer(2, false), outer(1, false), 60, 64, &payload)].concat();
    let before = pair.one.drops();
    let chain = pair.chain(&behind_options, &[]);
    assert!(pair.one.pass(WAN, chain).is_empty());
    assert!(matches!(pair.one.dropped_since(&before), Some(DropReason::UnknownSpi | DropReason::Malformed)));
    let clear = udp(inside(1, true), ip("10.2.0.53"), 5000, 64);
    let chain = pair.chain(&clear, &[]);
    let mut sent = pair.one.pass(LAN, chain);
    let (port, frame) = sent.pop().expect("bypassed");
    assert_eq!((port, frame.total_len()), (WAN, clear.len()));
    pair.cache.give(frame);
}

/// However a packet lies in its chunks, it is sealed to the same octets as in one piece, and opened as what it was.
#[test]
fn segments_may_begin_and_end_anywhere() {
    let ends = [1, 2, 16, 17, 18, 20, 100, 300].map(|n| vec![usize::MAX - n, n]);
    let starts = [0, 1, 13, 14, 30, 34, 50, 58, 100, 250, 255, 256, 257, 1000].map(|n| vec![n]);
    let more = [vec![600; 8], vec![3840, 3840], vec![10, 0, 10, 10, 20, 500, 1], vec![20; 14]];
    for (udp_encap, outer_v4) in [(false, true), (true, true), (false, false), (true, false)] {
        let tunnel = Tunnel { udp: udp_encap, outer_v4, mtu: 9000, ..Tunnel::default() };
        let (mut pair, mut whole) = (Pair::new(tunnel), Pair::new(tunnel));
        for (n, lens) in ends.iter().chain(&starts).chain(&more).enumerate() {
            for payload in [0, 30, 200, 220, 240, 260, 600, 3000, 3700, 5000, 8700] {
                let v4 = n % 2 == 0;
                let clear = udp(inside(1, v4), inside(2, v4), payload, 64);
                // From the end: an Ethernet frame may be longer than its packet.
                for garbage in [0, 7, 600] {
                    let long = [&clear[..], &vec![0xa5; garbage]].concat();
                    let cut = |octets: &[u8]| match lens[..] {
                        [_, behind] if lens[0] > 9999 => vec![octets.len().saturating_sub(behind)],
                        _ => lens.clone(),
                    };
                    let chain = pair.chain(&long, &cut(&long));
                    let mut sealed = pair.one.pass(LAN, chain);
                    assert_eq!(sealed.len(), 1, "{lens:?} {payload} {garbage}: {:?}", pair.one.drops());
                    let sealed = pair.bytes(sealed.remove(0).1);
                    assert!(sealed == whole.seal(&clear), "{lens:?} {payload} {garbage}");
                    let long = [&sealed[..], &vec![0xa5; garbage]].concat();
                    let mut forged = long.clone();
                    let at = 14 + 60 + n * 31 % (sealed.len() - 14 - 60);
                    forged[at] ^= 1;
                    let chain = pair.chain(&forged, &cut(&long));
                    let before = pair.two.drops();
                    assert!(pair.two.pass(WAN, chain).is_empty());
                    let reason = pair.two.dropped_since(&before).unwrap();
                    assert!(
                        matches!(reason, DropReason::IcvMismatch | DropReason::UnknownSpi),
                        "{reason:?} {at}"
                    );
                    let chain = pair.chain(&long, &cut(&long));
                    let mut opened = pair.two.pass(WAN, chain);
                    assert_eq!(opened.len(), 1, "{lens:?} {payload} {garbage}: {:?}", pair.two.drops());
                    let opened = pair.bytes(opened.remove(0).1);
                    assert!(opened == whole.open(&sealed).unwrap(), "{lens:?} {payload} {garbage}");
                    assert!(opened[14..] == udp(inside(1, v4), inside(2, v4), payload, 62)[14..]);
                }
            }
        }
    }
}

/// What is between the edges of a jumbo packet is not what the hops see: they must not need it.
#[test]
fn what_is_inside_of_a_jumbo_packet() {
    let mut pair = Pair::new(Tunnel { mtu: 9000, ..Tunnel::default() });
    let good = ethernet_ip(inside(1, true), inside(2, true), 17, 64, &[0, 1, 0, 2, 0, 8, 0, 0])[2..].to_vec();
    let mut seq = 0;
    let mut open = |text: &[u8]| {
        seq += 1;
        let frame = pair.chain(&craft(text, seq, true), &[]);
        let before = pair.two.drops();
        match pair.two.pass(WAN, frame).pop() {
            Some((_, frame)) => Ok(pair.bytes(frame)[14..].to_vec()),
            None => Err(pair.two.dropped_since(&before).unwrap()),
        }
    };
    let forwarded =
        ethernet_ip(inside(1, true), inside(2, true), 17, 63, &[0, 1, 0, 2, 0, 8, 0, 0])[2..].to_vec();
    for more in [100, 3000, 8000] {
        let tfc = [&good[..], &vec![0; more]].concat();
        assert_eq!(open(&text(&tfc, 4)).unwrap(), forwarded, "RFC 4303 §2.7");
        assert_eq!(open(&text(&tfc, 59)), Err(DropReason::Dummy));
        // Padding as long as there is.
        let long = [&tfc[..], &(1..=255).collect::<Vec<u8>>(), &[255, 4]].concat();
        let padded = [&vec![0; (4 - long.len() % 4) % 4][..], &[]].concat();
        let long = [&tfc[..], &padded, &(1..=255).collect::<Vec<u8>>(), &[255, 4]].concat();
        assert_eq!(open(&long).unwrap(), forwarded);
        let mut wrong = long.clone();
        let at = wrong.len() - 257;
        wrong[at] = 0;
        assert_eq!(open(&wrong), Err(DropReason::BadPadding));
    }
    // IPv6 with more headers than anybody needs.
    let long = |options: usize| {
        let header = |next: u8| [&[next, (options / 8 - 1) as u8][..], &vec![0; options - 2]].concat();
        let payload = [&header(60)[..], &header(17), &[0, 1, 0, 2, 0, 8, 0, 0], &[7; 4000]].concat();
        ethernet_ip(inside(1, false), inside(2, false), 0, 64, &payload)[2..].to_vec()
    };
    assert_eq!(open(&text(&long(64), 41)).map(|_| ()), Ok(()));
    assert!(open(&text(&long(1024), 41)).is_err());
    let clear = [&[2; 12][..], &[0x86, 0xdd], &long(1024)].concat();
    let frame = pair.chain(&clear, &[]);
    assert!(pair.one.pass(LAN, frame).is_empty());
}

#[test]
fn each_bit_of_a_packet_over_ipv4_has_its_drop_reason() {
    let mut pair = Pair::new(Tunnel::default());
    let sealed = pair.seal(&udp(inside(1, true), inside(2, true), 40, 64));
    let ip_len = sealed.len() - 14;
    // The first packet has number 1, and gateway 2 has received none: only bit 0 makes a number, 0, that the
    // window refuses (RFC 4303 §3.3.3).
    let seq_bit_0 = (14 + 20 + 7) * 8;
    for bit in 12 * 8..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        // Bit 7 of an octet first, as on the wire; `seq_bit_0` is the least of its octet.
        flipped[bit / 8] ^= 1 << (bit % 8);
        let ihl = (flipped[14] & 15) as usize * 4;
        let total = wire::be16(&flipped, 16) as usize;
        let expected = match bit / 8 {
            12..14 => DropReason::LocalDelivery, // some EtherType that is no IP: not a worker's
            14 if flipped[14] >> 4 != 4 => DropReason::Malformed,
            14 if ihl < 20 || total < ihl => DropReason::Malformed,
            16..18 if total > ip_len || total < 20 => DropReason::Malformed,
            14..34 => DropReason::BadChecksum, // RFC 1812 §5.2.2
            34..38 => DropReason::UnknownSpi,  // RFC 4303 §3.4.2
            41 if bit == seq_bit_0 => DropReason::ReplayTooOld,
            _ => DropReason::IcvMismatch, // number, IV, text or ICV (RFC 4303 §3.4.4)
        };
        assert_eq!(pair.open(&flipped), Err(expected), "octet {}, bit {}", bit / 8, bit % 8);
    }
    // None of these has moved anything: the packet itself is still new, once.
    assert!(pair.open(&sealed).is_ok());
    assert_eq!(pair.open(&sealed), Err(DropReason::ReplayDuplicate));
}

#[test]
fn each_bit_of_a_packet_over_ipv6_has_its_drop_reason() {
    let t = Tunnel { outer_v4: false, ..Tunnel::default() };
    let mut sender = Pair::new(t);
    let sealed = sender.seal(&udp(inside(1, false), inside(2, false), 9, 64));
    let mut pair = Pair::new(t);
    for bit in 14 * 8..sealed.len() * 8 {
        let mut flipped = sealed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let longer = wire::be16(&flipped, 18) as usize > sealed.len() - 54;
        let result = pair.open(&flipped);
        let expected = match bit / 8 {
            14 if flipped[14] >> 4 != 6 => Some(DropReason::Malformed),
            // Class, flow label, hop limit, source: ESP does not protect these, and the packet is good. An
            // outer CE needs two bits, so ECN drops nothing here.
            14..18 | 21 | 22..38 => None,
            18..20 if longer => Some(DropReason::Malformed),
            // Shorter: not whole words, or the ICV is where it was not.
            18..20 if result == Err(DropReason::Malformed) => continue,
            18..20 => Some(DropReason::IcvMismatch),
            20 => match flipped[20] {
                51 => Some(DropReason::UnknownSpi), // AH
                48 | 54 | 58 | 34 | 18 | 114 | 178 => Some(DropReason::NoPolicy),
                other => panic!("next header {other}"),
            },
            38..54 => Some(DropReason::SaMismatch),
            54..58 => Some(DropReason::UnknownSpi),
            61 if bit % 8 == 0 => Some(DropReason::ReplayTooOld),
            _ => Some(DropReason::IcvMismatch),
        };
        assert_eq!(result.as_ref().err(), expected.as_ref(), "octet {}, bit {}", bit / 8, bit % 8);
        if result.is_ok() {
            assert_eq!(pair.open(&sealed), Err(DropReason::ReplayDuplicate));
            pair = Pair::new(t);
        }
    }
    assert!(pair.open(&sealed).is_ok());
}

#[test]
fn what_is_wrong_inside_is_told_apart() {
    let mut pair = Pair::new(Tunnel::default());
    let good = ethernet_ip(inside(1, true), inside(2, true), 17, 64, &[0, 1, 0, 2, 0, 8, 0, 0])[2..].to_vec();
    let mut seq = 0;
    let mut open = |text: &[u8]| {
        seq += 1;
        pair.open(&craft(text, seq, true)).map(|_| ())
    };
    assert_eq!(open(&text(&good, 4)), Ok(()));
    let mut wrong_pad = text(&good, 4);
    let at = wrong_pad.len() - 3;
    wrong_pad[at] ^= 1;
    assert_eq!(open(&wrong_pad), Err(DropReason::BadPadding)); // RFC 4303 §2.4
    let mut long_pad = text(&good, 4);
    let at = long_pad.len() - 2;
    long_pad[at] = 200;
    assert_eq!(open(&long_pad), Err(DropReason::BadPadding));
    assert_eq!(open(&text(&good, 59)), Err(DropReason::Dummy)); // RFC 4303 §2.6
    assert_eq!(open(&text(&good, 41)), Err(DropReason::BadInner), "IPv4 that says IPv6");
    assert_eq!(open(&text(&good, 6)), Err(DropReason::BadInner), "not a tunnel");
    assert_eq!(open(&text(&good[..27], 4)), Err(DropReason::BadInner), "cut short");
    let mut tfc = good.clone();
    tfc.extend([0; 100]); // RFC 4303 §2.7
    assert_eq!(open(&text(&tfc, 4)), Ok(()));
    let stranger = &ethernet_ip(ip("10.9.0.1"), inside(2, true), 17, 64, &[0; 8])[2..];
    assert_eq!(open(&text(stranger, 4)), Err(DropReason::SelectorMismatch)); // RFC 4301 §5.2
    let last_hop = &ethernet_ip(inside(1, true), inside(2, true), 17, 1, &[0; 8])[2..];
    assert_eq!(open(&text(last_hop, 4)), Err(DropReason::TtlExceeded));
    let counters = pair.two.sadb.runtime().sa(pair.two.inbound).unwrap().counters;
    assert_eq!((counters.packets, counters.refused), (2, 7));
}

#[test]
fn the_window_works_through_the_whole_path() {
    let good = text(&ethernet_ip(inside(1, true), inside(2, true), 17, 64, &[0; 8])[2..], 4);
    for esn in [false, true] {
        let mut pair = Pair::new(Tunnel { window: 64, esn, ..Tunnel::default() });
        let mut open = |seq: u64| pair.open(&craft(&good, seq, esn)).map(|_| ());
        let (old, twice) = (Err(DropReason::ReplayTooOld), Err(DropReason::ReplayDuplicate));
        // With ESN, what is left of the window is taken for a number of the next subspace (RFC 4303
        // A2.2), and its ICV tells that it is not.
        let left = if esn { Err(DropReason::IcvMismatch) } else { old };
        assert_eq!([open(0), open(100), open(36), open(37), open(37)], [old, Ok(()), left, Ok(()), twice]);
        let top = u32::MAX as u64;
        assert_eq!([open(top - 1), open(top), open(top), open(top - 63)], [Ok(()), Ok(()), twice, Ok(())]);
        if esn {
            // RFC 4303 §A2.2: the high half is not on the wire, but in the ICV.
            assert_eq!(
                [open(top + 1), open(top + 1), open(top + 2), open(top - 61)],
                [Ok(()), twice, Ok(()), Ok(())]
            );
            assert_eq!(pair.two.sadb.runtime().sa(pair.two.inbound).unwrap().highest_seen, top + 2);
        } else {
            assert_eq!(open(1), old, "nothing wraps without ESN");
        }
    }
}

/// All of a batch pass the check, since none has moved the window yet; the commit tells them apart.
#[test]
fn what_one_batch_brings_twice_or_too_late_is_refused_by_the_commit() {
    let mut pair = Pair::new(Tunnel { window: 64, ..Tunnel::default() });
    let good = text(&ethernet_ip(inside(1, true), inside(2, true), 17, 64, &[0; 8])[2..], 4);
    for seq in [200, 200, 1, 137, 136] {
        let frame = frame(&mut pair.cache, &craft(&good, seq, true));
        pair.two.ends[0][WAN].send(frame).unwrap();
    }
    pair.two.turn();
    let delivered = pair.two.collect();
    assert_eq!(delivered.len(), 2, "200 and 137");
    delivered.into_iter().for_each(|(_, frame)| pair.cache.give(frame));
    let drops = pair.two.drops();
    let [twice, old] = [DropReason::ReplayDuplicate, DropReason::ReplayTooOld].map(|r| drops[r as usize]);
    let counters = pair.two.sadb.runtime().sa(pair.two.inbound).unwrap().counters;
    assert_eq!((twice, old, counters.packets), (1, 2, 2)); // RFC 4303 §3.4.3
    assert_eq!((counters.replay_duplicates, counters.replay_too_old), (1, 2));
}

#[test]
fn an_sa_of_another_protocol_or_mode_is_not_taken_for_esp_in_tunnel_mode() {
    use portcullis_sadb::{Encryption, Integrity, Key, Mode, Protocol, Sa, Spi};
    let mut pair = Pair::new(Tunnel::default());
    let good = text(&ethernet_ip(inside(1, true), inside(2, true), 17, 64, &[0; 8])[2..], 4);
    let mut sealed = craft(&good, 1, true);
    let tunnel = sa(&Tunnel::default(), 2, 1, 2);
    let ah = Algorithm::new(Encryption::None, Integrity::AesCmac).unwrap();
    for (n, protocol, mode, expected) in [
        (10, Protocol::Ah, Mode::Tunnel, DropReason::SaMismatch),
        (11, Protocol::Esp, Mode::Transport, DropReason::IcvMismatch),
        (12, Protocol::Esp, Mode::Tunnel, DropReason::IcvMismatch), // the SPI is authenticated
    ] {
        let algorithm = if protocol == Protocol::Ah { ah } else { tunnel.algorithm };
        let key = Key::new(&tunnel.key.bytes()[..algorithm.key_len() + algorithm.salt_len()]).unwrap();
        let sa = Sa { spi: Spi(spi(n)), protocol, mode, algorithm, key, ..tunnel.clone() };
        pair.two.sadb.publish(&sa).unwrap();
        sealed[34..38].copy_from_slice(&spi(n).to_be_bytes());
        assert_eq!(pair.open(&sealed), Err(expected));
    }
}

#[test]
fn a_restarted_gateway_repeats_no_number_and_takes_no_old_packet() {
    let mut pair = Pair::new(Tunnel::default());
    let clear = udp(inside(1, true), inside(2, true), 40, 64);
    let seq = |sealed: &[u8]| u64::from_be_bytes(sealed[42..50].try_into().unwrap());
    let sealed: Vec<_> = (0..100).map(|_| pair.seal(&clear)).collect();
    assert_eq!(sealed.iter().map(|s| seq(s)).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    for s in &sealed[..50] {
        pair.open(s).unwrap();
    }
    let pool = pair.pool.clone();
    pair.one.stop(&mut pair.cache);
    pair.one.start(1, &pool);
    pair.two.stop(&mut pair.cache);
    pair.two.start(2, &pool);
    for s in &sealed[..50] {
        assert_eq!(pair.open(s), Err(DropReason::ReplayDuplicate));
    }
    for s in &sealed[50..] {
        pair.open(s).unwrap();
    }
    let next = pair.seal(&clear);
    assert_eq!(seq(&next), portcullis_datapath::sa::RESERVED_BLOCK + 1);
    pair.open(&next).unwrap();
}

#[test]
fn policies_decide_what_leaves_and_how() {
    use portcullis_sadb::{Action, Direction, Policy, Prefix, Selector};
    let mut pair = Pair::new(Tunnel::default());
    let mut policy = |direction, src: &str, dst: &str, action, port: Option<u16>| {
        let mut selector = Selector::between(src.parse::<Prefix>().unwrap(), dst.parse().unwrap());
        if let Some(p) = port {
            (selector.protocol, selector.dst_ports) = (Some(17), p..=p);
        }
        let policy = Policy { direction, selector, priority: 1, action, reqid: 0, sa: None };
        pair.one.sadb.add_policy(&policy).unwrap();
    };
    policy(Direction::Outbound, "10.1.0.0/16", "10.2.0.53/32", Action::Bypass, Some(53));
    policy(Direction::Outbound, "10.1.0.0/16", "10.2.0.66/32", Action::Discard, None);
    policy(Direction::Outbound, "10.1.0.0/16", "10.2.0.77/32", Action::Protect, None);
    let mut send = |src: &str, dst: &str, ttl: u8| {
        let before = pair.one.drops();
        let frame = frame(&mut pair.cache, &udp(ip(src), ip(dst), 8, ttl));
        match pair.one.pass(LAN, frame).pop() {
            Some((port, frame)) => {
                let protocol = frame.bytes()[14 + 9];
                pair.cache.give(frame);
                Ok((port, protocol))
            }
            None => Err(pair.one.dropped_since(&before).unwrap()),
        }
    };
    assert_eq!(send("10.1.0.9", "10.2.0.9", 64), Ok((WAN, 50)));
    assert_eq!(send("10.1.0.9", "10.2.0.53", 64), Ok((WAN, 17)), "bypassed");
    assert_eq!(send("10.1.0.9", "10.2.0.66", 64), Err(DropReason::PolicyDiscard));
    assert_eq!(send("10.1.0.9", "10.2.0.77", 64), Err(DropReason::NoSa));
    assert_eq!(send("10.7.0.9", "10.2.0.9", 64), Err(DropReason::NoPolicy));
    assert_eq!(send("10.2.0.9", "10.1.0.9", 64), Err(DropReason::Unprotected)); // RFC 4301 §5.2
    assert_eq!(send("10.1.0.9", "10.2.0.9", 1), Err(DropReason::TtlExceeded));
}

/// A flow that a worker knows goes on with the SA that its policy is pointed to, though the SPD does not change: also
/// when that SA belongs to another worker, or takes the slot of one before.
#[test]
fn a_rekey_changes_the_sa_and_not_the_decision() {
    use portcullis_sadb::{Direction, Key, PolicyIndex, SlotIndex, Spi};
    for workers in [1, 2] {
        let tunnel = Tunnel { workers, ..Tunnel::default() };
        let mut pair = Pair::new(tunnel);
        let clear = udp(inside(1, true), inside(2, true), 40, 64);
        let policies: Vec<PolicyIndex> = pair.one.sadb.policies().map(|(i, _)| i).collect();
        let outbound =
            |pair: &Pair, i: &PolicyIndex| pair.one.sadb.policy(*i).unwrap().direction == Direction::Outbound;
        let point = |pair: &mut Pair, slot: Option<SlotIndex>| {
            for index in policies.iter().filter(|i| outbound(pair, i)).collect::<Vec<_>>() {
                pair.one.sadb.set_policy_sa(*index, slot).unwrap();
            }
        };
        let spi = |sealed: &[u8]| wire::be32(sealed, 14 + 20);
        let first = pair.seal(&clear);
        assert_eq!(spi(&first), testbed::spi(2));
        let version = pair.one.reader.spd_version();
        let (mut slot, mut slots) = (pair.one.outbound, std::collections::HashSet::new());
        for n in 0..40u32 {
            let next = 0x2000_0000 + n;
            for (gateway, me) in [(&mut pair.one, 1), (&mut pair.two, 2)] {
                let mut sa = sa(&tunnel, me, 1, 2);
                sa.spi = Spi(next);
                sa.key = Key::new(&[n as u8 + 1; 20]).unwrap();
                let old = gateway.sadb.find(Spi(next - 1));
                let new = gateway.sadb.publish(&sa).unwrap();
                if me == 2 {
                    old.into_iter().for_each(|old| gateway.sadb.retire(old).unwrap());
                } else {
                    slots.insert(new);
                    slot = new;
                }
            }
            let before = pair.one.sadb.policy(policies[1]).unwrap().sa.unwrap();
            point(&mut pair, Some(slot));
            pair.one.sadb.retire(before).unwrap();
            let sealed = pair.seal(&clear);
            assert_eq!(spi(&sealed), next);
            pair.open(&sealed).unwrap();
            pair.one.sadb.reclaim();
        }
        assert!(slots.len() < 20, "slots are used again: {}", slots.len());
        point(&mut pair, None);
        let before = pair.one.drops();
        let one = frame(&mut pair.cache, &clear);
        assert!(pair.one.pass(LAN, one).is_empty());
        assert_eq!(pair.one.dropped_since(&before), Some(DropReason::NoSa));
        point(&mut pair, Some(slot));
        let sealed = pair.seal(&clear);
        pair.open(&sealed).unwrap();
        assert_eq!(pair.one.reader.spd_version(), version);
    }
}

#[test]
fn numbers_end_and_iked_is_told_once() {
    let mut pair = Pair::new(Tunnel { esn: false, ..Tunnel::default() });
    let clear = udp(inside(1, true), inside(2, true), 8, 64);
    pair.seal(&clear);
    let pool = pair.pool.clone();
    pair.one.stop(&mut pair.cache);
    pair.one.runtime.sa(pair.one.outbound).reserve(u32::MAX as u64 - 1);
    pair.one.start(1, &pool);
    let last = pair.seal(&clear);
    assert_eq!(wire::be32(&last, 14 + 20 + 4), u32::MAX);
    for _ in 0..3 {
        let before = pair.one.drops();
        let one = frame(&mut pair.cache, &clear);
        assert!(pair.one.pass(LAN, one).is_empty());
        assert_eq!(pair.one.dropped_since(&before), Some(DropReason::SeqExhausted)); // RFC 4303 §3.3.3
    }
    let events: Vec<_> = std::iter::from_fn(|| pair.one.sadb.poll_event()).collect();
    assert_eq!(
        events.iter().map(|e| e.kind).collect::<Vec<_>>(),
        [EventKind::SeqLow, EventKind::SeqExhausted]
    );
    assert!(events.iter().all(|event| event.slot == pair.one.outbound));
}

/// With a lifetime of its own or without.
#[test]
fn iked_is_told_once_when_nine_tenths_of_the_numbers_are_used() {
    const LOW: u64 = (1 << 32) / 10 * 9;
    let lasting = Limits { secs: 1 << 30, ..Limits::default() };
    for (hard, esn, told) in
        [(Limits::default(), false, 1), (lasting, false, 1), (Limits::default(), true, 0)]
    {
        let handling = Handling { lifetime: Lifetime { hard, ..Lifetime::default() }, ..Handling::default() };
        let mut pair = Pair::new(Tunnel { esn, handling, ..Tunnel::default() });
        let clear = udp(inside(1, true), inside(2, true), 8, 64);
        pair.seal(&clear);
        let pool = pair.pool.clone();
        pair.one.stop(&mut pair.cache);
        pair.one.runtime.sa(pair.one.outbound).reserve(LOW - 3);
        pair.one.start(1, &pool);
        for (seq, so_far) in [(LOW - 2, 0), (LOW - 1, 0), (LOW, told), (LOW + 1, 0)] {
            assert_eq!(wire::be32(&pair.seal(&clear), 14 + 20 + 4), seq as u32);
            pair.one.now_ms += 1000;
            pair.one.turn();
            let events: Vec<_> = std::iter::from_fn(|| pair.one.sadb.poll_event()).collect();
            assert_eq!(events.len(), so_far, "{seq:#x}");
            assert!(events.iter().all(|e| (e.kind, e.value) == (EventKind::SeqLow, LOW)), "{events:?}");
        }
    }
}

#[test]
fn ecn_crosses_the_tunnel() {
    let mut pair = Pair::new(Tunnel::default());
    let inner = |tos: u8| {
        let mut p = ethernet_ip(inside(1, true), inside(2, true), 17, 64, &[0; 8])[2..].to_vec();
        p[1] = tos;
        p[10..12].fill(0);
        let checksum = !wire::fold(wire::sum(&p[..20]));
        p[10..12].copy_from_slice(&checksum.to_be_bytes());
        p
    };
    let mut seq = 0;
    // Inner DSCP 46 with ECT(0), outer CE: RFC 6040 §4.2.
    for (inner_tos, outer_tos, expected) in [
        (0xb8, 0xb8, Ok(0xb8)),
        (0xba, 0xbb, Ok(0xbb)),
        (0xb8, 0xbb, Err(DropReason::EcnDrop)),
        (0xba, 0xb9, Ok(0xb9)),
    ] {
        seq += 1;
        let mut sealed = craft(&text(&inner(inner_tos), 4), seq, true);
        let before = wire::be16(&sealed, 14);
        sealed[15] = outer_tos;
        let checksum = wire::updated(wire::be16(&sealed, 24), before, wire::be16(&sealed, 14));
        sealed[24..26].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(pair.open(&sealed).map(|p| p[15]), expected);
    }
    let clear = [&[2; 12][..], &[8, 0], &inner(0xba)].concat();
    assert_eq!(pair.seal(&clear)[15], 0xba, "copied to the outer header: RFC 6040 §4.1");
}

#[test]
fn two_workers_hand_each_other_what_is_the_others() {
    for spi_owner in 0..2 {
        let mut pair = Pair::new(Tunnel { workers: 2, ..Tunnel::default() });
        let clear = udp(inside(1, true), inside(2, true), 40, 64);
        let frame = frame(&mut pair.cache, &clear);
        // Whichever worker gets it first, one of them owns the SA.
        pair.one.ends[spi_owner][LAN].send(frame).unwrap();
        pair.one.turn();
        let sent = pair.one.collect();
        assert_eq!(sent.len(), 1);
        let sealed: Vec<_> = sent.into_iter().map(|(_, f)| pair.bytes(f)).collect();
        assert!(pair.open(&sealed[0]).is_ok());
    }
}

#[test]
fn what_has_no_room_is_counted_and_not_lost() {
    use portcullis_datapath::frame::META;
    let mut pair = Pair::new(Tunnel { workers: 2, mtu: 9000, ..Tunnel::default() });
    let clear = udp(inside(1, true), inside(2, true), 40, 64);
    let count = |pair: &Pair, reason: DropReason| pair.one.drops()[reason as usize];

    // In front of the packet.
    let mut tight = frame(&mut pair.cache, &clear);
    tight.reset(META);
    assert!(tight.extend(clear.len()));
    tight.bytes_mut().copy_from_slice(&clear);
    assert!(pair.one.pass(LAN, tight).is_empty());
    assert_eq!(count(&pair, DropReason::NoHeadroom), 1);
    // In the inbox of the worker that owns the SA, which does not turn.
    let owner = portcullis_ebpf::worker_of_spi(spi(2), 2) as usize;
    for _ in 0..portcullis_datapath::handoff::INBOX / 256 + 1 {
        for _ in 0..256 {
            let frame = frame(&mut pair.cache, &clear);
            pair.one.ends[1 - owner][LAN].send(frame).unwrap();
        }
        while pair.one.workers[1 - owner].turn(0) {}
    }
    assert_eq!(count(&pair, DropReason::HandoffFull), 256);

    // In the transmit ring, which nobody empties; 512 fit.
    while pair.one.workers[owner].turn(0) {}
    let sent = pair.one.collect();
    assert_eq!((sent.len(), count(&pair, DropReason::TxFull)), (512, 512));
    sent.into_iter().for_each(|(_, f)| pair.cache.give(f));
}

#[test]
fn a_watermark_at_the_very_end_lets_no_number_begin_anew() {
    let mut pair = Pair::new(Tunnel::default());
    let clear = udp(inside(1, true), inside(2, true), 8, 64);
    pair.seal(&clear);
    let pool = pair.pool.clone();
    pair.one.stop(&mut pair.cache);
    pair.one.runtime.sa(pair.one.outbound).reserve(u64::MAX);
    pair.one.start(1, &pool);
    for _ in 0..3 {
        let before = pair.one.drops();
        let one = frame(&mut pair.cache, &clear);
        assert!(pair.one.pass(LAN, one).is_empty());
        assert_eq!(pair.one.dropped_since(&before), Some(DropReason::SeqExhausted)); // RFC 4303 §3.3.3
    }
}

/// Random frames, mutated ESP, mutated clear traffic: nothing panics, every frame is delivered or counted once.
#[test]
fn a_million_bad_frames_crash_nothing_and_leak_nothing() {
    const FRAMES: usize = 1_000_000;
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}, {FRAMES} frames");
    let mut random = Random(seed);
    let mut pair = Pair::new(Tunnel { workers: 2, ..Tunnel::default() });
    let mut models = vec![];
    for v4 in [true, false] {
        for payload in [0, 1, 77, 1300] {
            let clear = udp(inside(1, v4), inside(2, v4), payload, 64);
            models.push(pair.seal(&clear));
            models.push(clear);
            models.push(udp(inside(2, v4), inside(1, v4), payload, 64));
        }
    }
    let (mut sent, mut delivered) = (0u64, 0u64);
    let before: u64 = pair.two.drops().iter().sum();
    while (sent as usize) < FRAMES {
        for _ in 0..256 {
            let mut bytes = match random.below(8) {
                0 => (0..random.below(300)).map(|_| random.next() as u8).collect(),
                _ => models[random.below(models.len())].clone(),
            };
            for _ in 0..random.below(4) {
                match random.below(3) {
                    0 if !bytes.is_empty() => {
                        let at = random.below(bytes.len());
                        bytes[at] = random.next() as u8;
                    }
                    1 => bytes.truncate(random.below(bytes.len() + 1)),
                    _ => bytes.extend((0..random.below(30)).map(|_| random.next() as u8)),
                }
            }
            let frame = frame(&mut pair.cache, &bytes);
            let (worker, port) = (random.below(2), random.below(2));
            pair.two.ends[worker][port].send(frame).unwrap();
            sent += 1;
        }
        pair.two.turn();
        for (_, frame) in pair.two.collect() {
            delivered += 1;
            pair.cache.give(frame);
        }
    }
    // What waits for the rest of its datagram is counted when it is given up.
    pair.two.now_ms += 120_000;
    pair.two.turn();
    let dropped = pair.two.drops().iter().sum::<u64>() - before;
    println!("{delivered} delivered, {dropped} dropped");
    assert_eq!(delivered + dropped, sent, "each frame is delivered or counted, once");
    assert!(delivered > 0);
}
