//! All implementations of AES-GCM against RustCrypto and ring, which must agree octet by octet, and within the memory
//! that is theirs.
//!
//! More packets than usual: `PORTCULLIS_CASES=10000000 PORTCULLIS_SEED=1 cargo test --release -p portcullis-crypto
//! --test aead random -- --nocapture`.

mod batches;

use arrayvec::ArrayVec;
use batches::{MAX, Random, Shape, available, check, rustcrypto};
use portcullis_crypto::{Aad, Aead, AeadKey, HEAD, ICV, Job};
use proptest::prelude::*;
use std::{env, ptr, slice, time::Instant};

fn len() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => 0u16..300,
        1 => (0u16..128, 0u16..3).prop_map(|(blocks, more)| (16 * blocks + more).saturating_sub(1)),
        1 => 3840u16..=4112,
        1 => (1u16..3, 0u16..41).prop_map(|(pages, more)| 4096 * pages + more - 20),
        1 => 0u16..=9200,
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let cuts = prop_oneof![2 => Just(0), 1 => any::<u32>()];
    (any::<u8>(), len(), prop::option::weighted(0.25, any::<u32>()), cuts)
        .prop_map(|(kind, len, flip, cuts)| Shape::new(kind, len, flip, cuts))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn batches_of_any_shape(seed: u64, shapes in prop::collection::vec(shape(), 0..=MAX)) {
        check(&Aead::ALL.into_iter().filter(|a| a.is_available()).collect::<Vec<_>>(), seed, &shapes);
    }
}

#[test]
#[allow(clippy::print_stdout)]
fn random_batches() {
    let number = |name, usual| env::var(name).map_or(usual, |n| n.parse().expect("a number"));
    let (cases, seed) = (number("PORTCULLIS_CASES", 20_000), number("PORTCULLIS_SEED", 4106));
    let aeads = available();
    let random = &mut Random(seed);
    let (started, mut done, mut octets, mut forged, mut told) = (Instant::now(), 0, 0, 0, 0);
    while done < cases {
        // As many small batches as large ones.
        let most = [8, 40, MAX + 1][random.below(3)];
        let shapes: Vec<_> = (0..random.below(most)).map(|_| Shape::random(random)).collect();
        let seed = random.next();
        if let Err(panic) = std::panic::catch_unwind(|| check(&aeads, seed, &shapes)) {
            println!("the batch of seed {seed}: {shapes:?}");
            std::panic::resume_unwind(panic);
        }
        done += shapes.len() as u64;
        octets += shapes.iter().map(|s| s.len as u64).sum::<u64>();
        forged += shapes.iter().filter(|s| s.flip.is_some()).count();
        if done / 1_000_000 > told {
            told = done / 1_000_000;
            println!("{told} million packets in {:.0?}", started.elapsed());
        }
    }
    println!("{done} packets of {octets} octets, {forged} forged: all as others do, seed {seed}");
}

/// Memory between pages that nobody may touch.
struct Fenced {
    map: *mut u8,
    len: usize,
}

const PAGE: usize = 4096;

/// Octets of the longest text that is taken.
const LONGEST: usize = u16::MAX as usize;

impl Fenced {
    fn new(len: usize) -> Fenced {
        let len = len.next_multiple_of(PAGE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, wherever the system has room; then the inner pages of it.
        unsafe {
            let map = libc::mmap(ptr::null_mut(), len + 2 * PAGE, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(map.add(PAGE), len, libc::PROT_READ | libc::PROT_WRITE), 0);
            Fenced { map: map.cast(), len }
        }
    }

    fn octets(&mut self) -> &mut [u8] {
        // SAFETY: `new` mapped them, for reading and writing, as long as this lives; they are borrowed as this is.
        unsafe { slice::from_raw_parts_mut(self.map.add(PAGE), self.len) }
    }

    fn first(&mut self, n: usize) -> &mut [u8] {
        &mut self.octets()[..n]
    }

    fn last(&mut self, n: usize) -> &mut [u8] {
        let len = self.len;
        &mut self.octets()[len - n..]
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: `new` mapped it, and nothing borrows it.
        unsafe { libc::munmap(self.map.cast(), self.len + 2 * PAGE) };
    }
}

/// A job without its packet.
#[derive(Clone, Copy)]
struct How<'k> {
    key: &'k AeadKey,
    iv: [u8; 8],
    aad: Aad,
    icv: u8,
}

impl How<'_> {
    fn job<'a>(&'a self, packet: &'a mut [u8]) -> Job<'a> {
        self.try_job(packet).unwrap()
    }

    fn try_job<'a>(&'a self, packet: &'a mut [u8]) -> Option<Job<'a>> {
        Job::new(self.key, self.iv, self.aad, self.icv, packet)
    }
}

/// One packet of each length, at either end of what may be touched.
struct Lengths {
    keys: Vec<(Vec<u8>, [u8; 4])>,
    front: Fenced,
    back: Fenced,
}

impl Lengths {
    fn new() -> Lengths {
        let random = &mut Random(8);
        let keys = [16, 24, 32].map(|n| (random.array::<32>()[..n].to_vec(), random.array()));
        Lengths { keys: keys.to_vec(), front: Fenced::new(LONGEST + 32), back: Fenced::new(LONGEST + 32) }
    }

    fn check(&mut self, aeads: &[Aead], lengths: impl Iterator<Item = usize> + Clone) {
        for (octets, salt) in self.keys.clone() {
            let keys: Vec<_> = aeads.iter().map(|a| (*a, a.key(&octets, salt).unwrap())).collect();
            let reference = rustcrypto::RustCrypto::new(&octets);
            for len in lengths.clone() {
                let random = &mut Random(len as u64);
                let (iv, aad, head) = (random.array(), random.array::<12>(), random.array::<HEAD>());
                let (aad, icv) = (&aad[..[8, 12][len % 2]], [8, 12, 16][len % 3]);
                let mut plain = vec![0; len];
                random.fill(&mut plain);
                let mut sealed = plain.clone();
                let tag = reference.seal(rustcrypto::nonce(salt, iv), aad, &mut sealed);
                let start = [&head[..], &plain, &[0xee; ICV]].concat();
                let end = [&head[..], &sealed, &tag].concat();
                for (aead, key) in &keys {
                    let how = How { key, iv, aad: Aad::new(aad).unwrap(), icv };
                    self.both(*aead, how, (&start, &end), len);
                }
            }
        }
    }

    /// A pair of one kind, and one alone.
    fn both(&mut self, aead: Aead, how: How<'_>, (start, end): (&[u8], &[u8]), len: usize) {
        let (text, icv) = (HEAD + len, how.icv as usize);
        let Lengths { front, back, .. } = self;
        for alone in [false, true] {
            let packets = &mut [front.first(start.len()), back.last(start.len())][usize::from(alone)..];
            packets.iter_mut().for_each(|p| p.copy_from_slice(start));
            aead.seal(&mut packets.iter_mut().map(|p| how.job(p)).collect::<ArrayVec<_, 2>>());
            for p in packets.iter() {
                assert!(p[..text + icv] == end[..text + icv], "sealed by {aead}: {len}");
            }
            let mut verified = ArrayVec::<_, 2>::new();
            aead.open(&mut packets.iter_mut().map(|p| how.job(p)).collect::<ArrayVec<_, 2>>(), &mut verified);
            for (p, verified) in packets.iter().zip(verified) {
                assert!(verified.is_some() && p[..text] == start[..text], "opened by {aead}: {len}");
            }
        }
    }
}

#[test]
fn every_length_at_the_edge_of_its_memory() {
    Lengths::new().check(&available(), 0..=1100);
}

/// Where counters carry into their third octet from the end, and the longest that there is.
#[test]
fn some_lengths_up_to_the_longest() {
    let pages = (1..16).flat_map(|n| [4096 * n - 49, 4096 * n - 32, 4096 * n - 16, 4096 * n, 4096 * n + 1]);
    Lengths::new().check(&available(), pages.chain([LONGEST - 16, LONGEST - 15, LONGEST]));
}

/// Cuts in each place, and segments of each length from one octet on: the same octets as in one piece.
#[test]
fn every_boundary_of_a_packet_in_segments() {
    let pairs = |total: usize| {
        let two = (0..=total).map(move |cut| vec![cut, total - cut]);
        let even = (1..=80).chain(240..=280).map(move |n| {
            let rest = Some(total % n).filter(|rest| *rest > 0);
            std::iter::repeat_n(n, total / n).chain(rest).collect::<Vec<_>>()
        });
        let empty = [vec![0, total, 0], vec![0, 0, 16, 0, total - 16], vec![total]];
        two.chain(even).chain(empty)
    };
    for aead in available() {
        for (key, len, icv) in
            [(16, 0, 16), (16, 100, 12), (24, 240, 16), (32, 241, 8), (16, 496, 16), (16, 900, 16)]
        {
            let random = &mut Random(len as u64);
            let key = aead.key(&random.array::<32>()[..key], random.array()).unwrap();
            let how =
                How { key: &key, iv: random.array(), aad: Aad::new(&random.array::<12>()).unwrap(), icv };
            let mut plain = vec![0; HEAD + len + ICV];
            random.fill(&mut plain);
            let mut sealed = plain.clone();
            aead.seal(&mut [how.job(&mut sealed)]);
            let mut wiped = sealed.clone();
            wiped[HEAD..HEAD + len].fill(0);
            let used = HEAD + len + icv as usize;
            for segments in pairs(plain.len()) {
                // A neighbour in one piece is as it was.
                let both = |packet: &[u8], work: &mut dyn FnMut(&mut [Job<'_>])| {
                    let mut other = packet.to_vec();
                    let mut apart = batches::taken_apart(packet, &segments);
                    let mut list = batches::segments(&mut apart, &segments);
                    let scattered = Job::scattered(how.key, how.iv, how.aad, how.icv, &mut list).unwrap();
                    work(&mut [scattered, how.job(&mut other)]);
                    (batches::put_together(&apart, &segments), other)
                };
                let (packet, other) = both(&plain, &mut |jobs| aead.seal(jobs));
                assert!(packet[..used] == sealed[..used], "{aead} seals {len}: {segments:?}");
                assert!(other[..used] == sealed[..used], "{aead} seals {len}: {segments:?}");
                let mut verified = ArrayVec::<_, 6>::new();
                let (packet, other) = both(&sealed, &mut |jobs| aead.open(jobs, &mut verified));
                assert!(packet[..HEAD + len] == plain[..HEAD + len], "{aead} opens {len}: {segments:?}");
                assert!(other[..HEAD + len] == plain[..HEAD + len], "{aead} opens {len}: {segments:?}");
                for flipped in [used - 1, HEAD + len] {
                    let mut forged = sealed.clone();
                    forged[flipped] ^= 0x80;
                    let (packet, _) = both(&forged, &mut |jobs| aead.open(jobs, &mut verified));
                    assert!(packet[..HEAD + len] == wiped[..HEAD + len], "{aead} wipes {len}: {segments:?}");
                }
                let verified = verified.iter().map(Option::is_some).collect::<Vec<_>>();
                assert_eq!(
                    verified,
                    [true, true, false, false, false, false],
                    "{aead} opens {len}: {segments:?}"
                );
            }
        }
    }
}

/// There is no job for what is no packet.
#[test]
fn what_is_no_packet() {
    for aead in available() {
        let key = aead.key(&[1; 16], [2; 4]).unwrap();
        let good = How { key: &key, iv: [3; 8], aad: Aad::new(&[4; 8]).unwrap(), icv: 16 };
        let packet = &mut vec![7; HEAD + LONGEST + 1 + ICV];
        for icv in 0..=u8::MAX {
            let job = How { icv, ..good }.try_job(&mut packet[..100]).is_some();
            assert_eq!(job, [8, 12, 16].contains(&icv), "{aead}: an ICV of {icv}");
        }
        for len in 0..=packet.len() {
            let job = good.try_job(&mut packet[..len]).is_some();
            assert_eq!(job, (HEAD + ICV..=HEAD + LONGEST + ICV).contains(&len), "{aead}: {len} octets");
        }
        assert!(packet.iter().all(|octet| *octet == 7));
    }
}

/// What has a key of another implementation is neither sealed nor opened, and not left readable; what is with it is.
#[test]
fn the_key_of_another() {
    if Aead::best() == Aead::Portable {
        return;
    }
    for aead in available() {
        let key = |of: Aead| of.key(&[1; 16], [2; 4]).unwrap();
        let (ours, others) =
            (key(aead), key(if aead == Aead::Portable { Aead::best() } else { Aead::Portable }));
        let good = How { key: &ours, iv: [3; 8], aad: Aad::new(&[4; 8]).unwrap(), icv: 16 };
        for icv in [8, 12, 16] {
            for len in [0, 1, 50, 200, 300, LONGEST] {
                let bad = How { key: &others, icv, ..good };
                let plain = [40, len, 60].map(|len| vec![7; HEAD + len + ICV]);
                let wiped = [vec![7; HEAD], vec![0; len], vec![7; ICV]].concat();
                let mut packets = plain.clone();
                let [a, b, c] = &mut packets;
                aead.seal(&mut [good.job(a), bad.job(b), good.job(c)]);
                assert!(*b == wiped, "{aead}: {len}");
                assert!(*a != plain[0] && *c != plain[2], "{aead}: {len}");
                b.fill(7);
                let mut verified = ArrayVec::<_, 3>::new();
                aead.open(&mut [good.job(a), bad.job(b), good.job(c)], &mut verified);
                assert!(*b == wiped, "{aead}: {len}");
                assert_eq!(
                    (&a[..HEAD + 40], &c[..HEAD + 60]),
                    (&plain[0][..HEAD + 40], &plain[2][..HEAD + 60])
                );
                assert_eq!([0, 1, 2].map(|n| verified[n].is_some()), [true, false, true], "{aead}: {len}");
                let mut apart = plain[1].clone();
                let mut segments: Vec<_> = apart.chunks_mut(301).collect();
                let bad = Job::scattered(bad.key, bad.iv, bad.aad, bad.icv, &mut segments).unwrap();
                aead.seal(&mut [good.job(a), bad, good.job(c)]);
                assert!(apart == wiped, "{aead}: {len}");
                let bad = How { key: &others, icv, ..good };
                // All of them, and more than a batch.
                let mut all = vec![plain[1].clone(); if len < 100 { 300 } else { 3 }];
                aead.seal(&mut all.iter_mut().map(|p| bad.job(p)).collect::<Vec<_>>());
                assert!(all.iter().all(|p| *p == wiped), "{aead}: {len}");
            }
        }
    }
}

#[test]
fn keys_have_16_24_or_32_octets() {
    for aead in available() {
        for n in 0..=64 {
            let key: Option<AeadKey> = aead.key(&[1; 64][..n], [0; 4]);
            assert_eq!(key.is_some(), [16, 24, 32].contains(&n), "{aead}: {n}");
        }
    }
    assert!(Aad::new(&[0; 12]).is_some() && Aad::new(&[0; 13]).is_none());
}
