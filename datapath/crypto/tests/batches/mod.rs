//! Batches of packets, sealed and opened by ours and held against RustCrypto and ring: what tests and a fuzz target
//! share.
//!
//! A batch lies in one *arena*, packets and what is between them, all of it random. What is to become of the arena is
//! made by the others, octet by octet; then each of our implementations gets a copy, and must make the same of it. So
//! what it does beyond a packet's text and ICV is seen, too. Packets in segments are taken apart, with gaps between the
//! segments, and put together again.
#![allow(dead_code)] // each test file uses its part

#[path = "../rustcrypto/mod.rs"]
pub mod rustcrypto;

use arrayvec::ArrayVec;
use portcullis_crypto::{Aad, Aead, AeadKey, HEAD, ICV, Job};
use ring::aead::{self, LessSafeKey, UnboundKey};
use rustcrypto::RustCrypto;
use std::ops::Range;

/// Packets of a batch, at most: more than ours does at once.
pub const MAX: usize = 300;

/// What there is on this CPU. What is missing is named.
#[allow(clippy::print_stdout)]
pub fn available() -> Vec<Aead> {
    let (there, missing): (Vec<_>, Vec<_>) = Aead::ALL.into_iter().partition(|a| a.is_available());
    let names = |of: &[Aead]| of.iter().map(|a| a.name()).collect::<Vec<_>>().join(", ");
    match missing.is_empty() {
        true => println!("implementations: {}", names(&there)),
        false => {
            println!("implementations: {}; NOT TESTED, this CPU cannot: {}", names(&there), names(&missing))
        }
    }
    there
}

/// Random numbers (S. Vigna's SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn fill(&mut self, to: &mut [u8]) {
        for octets in to.chunks_mut(8) {
            octets.copy_from_slice(&self.next().to_le_bytes()[..octets.len()]);
        }
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        self.fill(&mut octets);
        octets
    }
}

/// Keys of a batch: three of each length.
pub const KEYS: usize = 9;

/// What a packet is like; its octets are random.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Which key of the batch.
    pub key: u8,
    /// Octets of the text.
    pub len: u16,
    /// Octets of AAD.
    pub aad: u8,
    /// Octets of the ICV.
    pub icv: u8,
    /// A bit that is flipped on the way, of IV, AAD, text and ICV, modulo how many there are.
    pub flip: Option<u32>,
    /// How it is cut into segments: any number; 0 if it is in one piece.
    pub cuts: u32,
}

impl Shape {
    /// From any numbers.
    pub fn new(kind: u8, len: u16, flip: Option<u32>, cuts: u32) -> Shape {
        let rest = kind / KEYS as u8;
        Shape {
            key: kind % KEYS as u8,
            len,
            aad: [8, 12][rest as usize % 2],
            icv: [16, 16, 12, 8][rest as usize / 2 % 4],
            flip,
            cuts,
        }
    }

    /// Where lengths are hard: short ones, ends of blocks, and where counters carry.
    pub fn random(random: &mut Random) -> Shape {
        let len = match random.below(8) {
            0..=3 => random.below(300),
            4 => (16 * random.below(128) + random.below(3)).saturating_sub(1),
            5 => 3840 + random.below(273),
            6 => 4096 * (1 + random.below(2)) + random.below(41) - 20,
            _ => random.below(9201),
        };
        let flip = random.below(4) == 0;
        let cuts = if random.below(4) == 0 { random.next() as u32 } else { 0 };
        Shape::new(random.next() as u8, len as u16, flip.then_some(random.next() as u32), cuts)
    }

    pub fn key_len(&self) -> usize {
        key_len(self.key as usize)
    }

    /// Octets of each segment; none if it is in one piece. Some are empty, and some boundaries are in head or ICV.
    fn segments(&self) -> Vec<usize> {
        let (random, total) = (&mut Random(self.cuts as u64), HEAD + self.len as usize + ICV);
        let mut cuts: Vec<_> = (0..if self.cuts == 0 { 0 } else { 1 + random.below(6) })
            .map(|_| match random.below(4) {
                0 => random.below(40).min(total),
                1 => total - random.below(40).min(total),
                2 => 256 * random.below(total / 256 + 1),
                _ => random.below(total + 1),
            })
            .collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().chain([total]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        if cuts.is_empty() { vec![] } else { ends.zip(starts).map(|(end, start)| end - start).collect() }
    }
}

fn key_len(key: usize) -> usize {
    [16, 24, 32][key % 3]
}

struct Key {
    octets: Vec<u8>,
    salt: [u8; 4],
    rustcrypto: RustCrypto,
    /// It has no AES-192.
    ring: Option<LessSafeKey>,
}

impl Key {
    fn random(random: &mut Random, len: usize) -> Key {
        let mut octets = vec![0; len];
        random.fill(&mut octets);
        let algorithm = match len {
            16 => Some(&aead::AES_128_GCM),
            32 => Some(&aead::AES_256_GCM),
            _ => None,
        };
        Key {
            salt: random.array(),
            rustcrypto: RustCrypto::new(&octets),
            ring: algorithm.map(|a| LessSafeKey::new(UnboundKey::new(a, &octets).unwrap())),
            octets,
        }
    }

    /// Encrypts in place by both others, which must agree. Returns the tag.
    fn seal(&self, iv: [u8; 8], aad: &[u8], text: &mut [u8]) -> [u8; ICV] {
        let nonce = rustcrypto::nonce(self.salt, iv);
        let mut again = text.to_vec();
        let tag = self.rustcrypto.seal(nonce, aad, text);
        if let Some(ring) = &self.ring {
            let nonce = aead::Nonce::assume_unique_for_key(nonce);
            let rings = ring.seal_in_place_separate_tag(nonce, aead::Aad::from(aad), &mut again).unwrap();
            assert!(again == text && rings.as_ref() == tag, "ring and RustCrypto differ");
        }
        tag
    }
}

struct Packet {
    shape: Shape,
    iv: [u8; 8],
    aad: Vec<u8>,
    /// Where its text is in the arena.
    text: Range<usize>,
}

impl Packet {
    /// ICV, and what of its room is not used.
    fn behind(&self) -> Range<usize> {
        self.text.end..self.text.end + ICV
    }

    fn aad(&self) -> Aad {
        Aad::new(&self.aad).unwrap()
    }

    /// Flips its bit, in the arena or in itself.
    fn flip(&mut self, arena: &mut [u8]) {
        let Some(bit) = self.shape.flip else { return };
        let bits = 8 * (8 + self.aad.len() + self.text.len() + self.shape.icv as usize);
        let bit = bit as usize % bits;
        let sent = &mut arena[self.text.start..self.text.end + self.shape.icv as usize];
        let octet = self.iv.iter_mut().chain(&mut self.aad).chain(sent).nth(bit / 8).unwrap();
        *octet ^= 1 << (bit % 8);
    }
}

/// Octets between segments.
const GAP: [u8; 24] = [0xa5; 24];

/// A packet taken apart: its segments, with a gap in front of each.
pub fn taken_apart(packet: &[u8], segments: &[usize]) -> Vec<u8> {
    let mut at = 0;
    let apart = segments.iter().flat_map(|len| {
        at += len;
        [&GAP[..], &packet[at - len..at]].concat()
    });
    apart.chain(GAP).collect()
}

/// The segments of what was taken apart.
pub fn segments<'a>(mut apart: &'a mut [u8], segments: &[usize]) -> Vec<&'a mut [u8]> {
    let mut list = vec![];
    for len in segments {
        let (segment, rest) = apart[GAP.len()..].split_at_mut(*len);
        list.push(segment);
        apart = rest;
    }
    list
}

/// What was taken apart, put together. Nothing has changed between the segments.
pub fn put_together(mut apart: &[u8], segments: &[usize]) -> Vec<u8> {
    let mut packet = vec![];
    for len in segments {
        let (gap, rest) = apart.split_at(GAP.len());
        assert_eq!(gap, GAP, "in front of octet {}", packet.len());
        packet.extend(&rest[..*len]);
        apart = &rest[*len..];
    }
    assert_eq!(apart, GAP, "behind the last");
    packet
}

/// Does with the jobs of a batch in an arena.
fn with_jobs(packets: &[Packet], keys: &[AeadKey], arena: &mut [u8], work: impl FnOnce(&mut [Job<'_>])) {
    let place = |p: &Packet| p.text.start - HEAD..p.text.end + ICV;
    let cut = |p: &&Packet| p.shape.cuts != 0;
    let lens: Vec<_> = packets.iter().map(|p| p.shape.segments()).collect();
    let mut apart: Vec<_> =
        packets.iter().zip(&lens).map(|(p, l)| taken_apart(&arena[place(p)], l)).collect();
    {
        let mut lists: Vec<_> = apart.iter_mut().zip(&lens).map(|(a, l)| segments(a, l)).collect();
        let (mut jobs, mut rest, mut at) = (vec![], &mut *arena, 0);
        for (p, list) in packets.iter().zip(&mut lists) {
            let (key, aad, icv) = (&keys[p.shape.key as usize], p.aad(), p.shape.icv);
            let (packet, behind) = rest[place(p).start - at..].split_at_mut(place(p).len());
            (rest, at) = (behind, place(p).end);
            jobs.push(match list.is_empty() {
                true => Job::new(key, p.iv, aad, icv, packet).unwrap(),
                false => Job::scattered(key, p.iv, aad, icv, list).unwrap(),
            });
        }
        work(&mut jobs);
    }
    for ((p, apart), lens) in packets.iter().zip(&mut apart).zip(&lens).filter(|((p, _), _)| cut(p)) {
        arena[place(p)].copy_from_slice(&put_together(apart, lens));
    }
}

fn assert_same(what: &str, aead: Aead, arena: &[u8], expected: &[u8], packets: &[Packet]) {
    let Some(at) = arena.iter().zip(expected).position(|(a, b)| a != b) else { return };
    let near = packets.iter().position(|p| at < p.text.end + ICV).unwrap_or(packets.len() - 1);
    let p = &packets[near];
    let offset = at as isize - p.text.start as isize;
    panic!("{what} by {aead}: packet {near} of {}, octet {offset} of its text: {:?}", packets.len(), p.shape);
}

/// Seals and opens a batch, of which the seed says all but the shapes.
pub fn check(aeads: &[Aead], seed: u64, shapes: &[Shape]) {
    let random = &mut Random(seed);
    let keys: Vec<_> = (0..KEYS).map(|n| Key::random(random, key_len(n))).collect();
    let mut at = 0;
    let mut packets: Vec<_> = shapes
        .iter()
        .map(|shape| {
            let start = at + random.below(64) + HEAD;
            let text = start..start + shape.len as usize;
            at = text.end + ICV;
            let aad = random.array::<12>()[..shape.aad as usize].to_vec();
            Packet { shape: *shape, iv: random.array(), aad, text }
        })
        .collect();
    let mut plain = vec![0; at + 64];
    random.fill(&mut plain);

    let mut sealed = plain.clone();
    for p in &packets {
        let tag = keys[p.shape.key as usize].seal(p.iv, &p.aad, &mut sealed[p.text.clone()]);
        let icv = p.shape.icv as usize;
        sealed[p.text.end..][..icv].copy_from_slice(&tag[..icv]);
    }
    let expanded = |aead: Aead| keys.iter().map(|k| aead.key(&k.octets, k.salt).unwrap()).collect::<Vec<_>>();
    for aead in aeads {
        let (mut arena, keys) = (plain.clone(), expanded(*aead));
        with_jobs(&packets, &keys, &mut arena, |jobs| aead.seal(jobs));
        for p in &packets {
            // What a shorter ICV does not use may be anything.
            let unused = p.text.end + p.shape.icv as usize..p.behind().end;
            arena[unused.clone()].copy_from_slice(&sealed[unused]);
        }
        assert_same("sealed", *aead, &arena, &sealed, &packets);
    }

    let mut sent = sealed;
    packets.iter_mut().for_each(|p| p.flip(&mut sent));
    for p in packets.iter().filter(|p| p.shape.flip.is_some()) {
        // What does not verify is not left readable.
        plain[p.text.clone()].fill(0);
    }
    for aead in aeads {
        let (mut arena, keys) = (sent.clone(), expanded(*aead));
        let mut verified = ArrayVec::<_, MAX>::new();
        with_jobs(&packets, &keys, &mut arena, |jobs| aead.open(jobs, &mut verified));
        assert_eq!(verified.len(), packets.len());
        for (n, (p, verified)) in packets.iter().zip(verified).enumerate() {
            assert_eq!(verified.is_some(), p.shape.flip.is_none(), "opened by {aead}: {n}, {:?}", p.shape);
            arena[p.behind()].copy_from_slice(&plain[p.behind()]);
        }
        assert_same("opened", *aead, &arena, &plain, &packets);
    }
}
