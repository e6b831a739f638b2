//! One packet and what belongs to it, for the benchmarks of single hops.

use arrayvec::ArrayVec;
use portcullis_datapath::{
    crypto::{self, Aead, AeadKey, IcvVerified, Job},
    esp::OuterHeader,
    frame::Frame,
    pool::{FrameCache, FramePool},
    umem::{HugePages, Umem},
    wire::{ETHERNET, Ip},
};
use portcullis_perf::{
    gateway::{self, SOURCE, destination},
    traffic::Template,
};
use portcullis_sadb::{Algorithm, Direction, Sa};
use std::sync::Arc;

/// Lengths of IP packets to measure with.
pub const LENGTHS: [u16; 3] = [64, 576, 1400];

/// Some chunks.
pub fn pool() -> Arc<FramePool> {
    FramePool::new(Umem::new(256, 4096, HugePages::Auto).expect("a megabyte").0)
}

/// An outbound SA.
pub fn sa(algorithm: Algorithm) -> Sa {
    gateway::sa(1, Direction::Outbound, algorithm)
}

/// Its key.
pub fn key(sa: &Sa) -> AeadKey {
    Aead::best().sa_key(sa.algorithm, sa.key.bytes()).expect("a key of the right length")
}

/// A clear packet of `len` octets in its Ethernet frame.
pub fn clear(cache: &mut FrameCache, len: u16) -> Frame {
    let mut frame = cache.take().expect("free chunks");
    assert!(Template::new(SOURCE).fill(&mut frame, len, destination(0), cache));
    frame
}

/// The same, encapsulated but not sealed, from its outer IP header on.
pub fn encapsulated(cache: &mut FrameCache, len: u16) -> (Frame, OuterHeader) {
    let (mut frame, sa) = (clear(cache, len), sa(Algorithm::AES_GCM_128));
    frame.pull(ETHERNET);
    let inner = Ip::parse(frame.bytes()).expect("an IP packet");
    let mut outer = OuterHeader::new(&sa);
    outer.encap(&mut frame, &inner, sa.spi.0, 1).expect("room for the headers");
    (frame, outer)
}

/// That an ICV was right.
pub fn proof() -> IcvVerified {
    let sa = sa(Algorithm::AES_GCM_128);
    let (key, mut packet) = (key(&sa), [0; crypto::HEAD + crypto::ICV]);
    let mut verified = ArrayVec::<_, 1>::new();
    let aad = crypto::aad(sa.spi.0, 1, sa.esn);
    let mut job = [Job::new(&key, [0; 8], aad, 16, &mut packet).expect("a packet")];
    Aead::best().seal(&mut job);
    Aead::best().open(&mut job, &mut verified);
    verified[0].expect("it was just sealed")
}
