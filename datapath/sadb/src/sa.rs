//! A Security Association as both processes speak of it, and its fixed form in a slot.
//!
//! [`Sa`] is the checked form; a slot holds [`BODY_WORDS`] words. Whoever reads a slot decodes a private
//! copy, and takes nothing in it on trust.

use crate::{
    Algorithm, Endpoint, SadbError, UdpEncap,
    handling::{HANDLING_WORDS, Handling},
    layout::MAX_WORKERS,
};
use std::{fmt, net::IpAddr, ops::RangeInclusive};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Words of a slot behind its generation.
pub const BODY_WORDS: usize = 39;

/// Octets of key material that a slot has room for: a cipher key, an integrity key and a salt.
pub const KEY_ROOM: usize = 104;

/// Octets of a connection's name, at most.
pub const NAME_ROOM: usize = 32;

/// The word that has flags and the worker.
const WORKER_WORD: usize = 1;

const FLAGS_SHIFT: u32 = 16;

const WORKER_SHIFT: u32 = 24;

const NAME_WORD: usize = 8;
const KEY_WORD: usize = 12;
const HANDLING_WORD: usize = 25;
const _: () =
    assert!(KEY_WORD + KEY_ROOM / 8 == HANDLING_WORD && HANDLING_WORD + HANDLING_WORDS <= BODY_WORDS);

const ESN: u64 = 1;
const UDP: u64 = 2;
const AROUND: u64 = 4;

/// The word of UDP encapsulation, or of the SA around.
const AROUND_WORD: usize = 3;

/// Sizes of a replay window in packets (RFC 4303 §3.4.3).
pub const REPLAY_WINDOW: RangeInclusive<u32> = 64..=65_536;

/// Security Parameters Index (RFC 4301 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Spi(pub u32);

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Where an SA is in the SAD.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotIndex(pub u32);

/// Which SA of its slot it is: odd while it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Generation(pub u64);

/// An extended sequence number; the wire carries the low half (RFC 4303 §2.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeqNo(pub u64);

macro_rules! wire_enum {
    ($(#[doc = $doc:literal])+ $name:ident : $int:ty { $($(#[doc = $vdoc:literal])+ $variant:ident = $value:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr($int)]
        pub enum $name { $($(#[doc = $vdoc])+ $variant = $value,)+ }

        impl TryFrom<$int> for $name {
            type Error = SadbError;
            fn try_from(value: $int) -> Result<$name, SadbError> {
                match value {
                    $($value => Ok($name::$variant),)+
                    _ => Err(SadbError::Invalid { field: stringify!($name), value: value as u64 }),
                }
            }
        }
    };
}

wire_enum! {
    /// Which way packets of an SA or a policy go, seen from this gateway.
    Direction: u8 {
        /// From the network to us: decapsulation.
        Inbound = 1,
        /// From us to the network: encapsulation.
        Outbound = 2,
    }
}

wire_enum! {
    /// The IPsec protocol, by its IP protocol number.
    Protocol: u8 {
        /// Encapsulating Security Payload (RFC 4303).
        Esp = 50,
        /// Authentication Header (RFC 4302).
        Ah = 51,
    }
}

wire_enum! {
    /// What is protected (RFC 4301 §4.1).
    Mode: u8 {
        /// The whole packet, under a new IP header.
        Tunnel = 1,
        /// The payload, under the packet's own IP header.
        Transport = 2,
    }
}

/// Key material: cipher key, integrity key, salt. It is wiped when dropped and prints as `(hidden)`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Key {
    octets: [u8; KEY_ROOM],
    len: u8,
}

impl Key {
    /// A copy of `octets`, if there is room for them.
    pub fn new(octets: &[u8]) -> Option<Key> {
        let mut key = Key { octets: [0; KEY_ROOM], len: octets.len().try_into().ok()? };
        key.octets.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(key)
    }

    /// The octets.
    pub fn bytes(&self) -> &[u8] {
        &self.octets[..self.len as usize]
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The name of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    octets: [u8; NAME_ROOM],
    len: u8,
}

impl Name {
    /// The name, if it has at most [`NAME_ROOM`] octets.
    pub fn new(name: &str) -> Option<Name> {
        let mut octets = [0; NAME_ROOM];
        octets.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Name { octets, len: name.len() as u8 })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.octets[..self.len as usize]).unwrap_or("?")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The SA of AH that packets of an SA of ESP are in: both are a bundle (RFC 2401 §4.3), which has one worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Around {
    /// Where it is.
    pub slot: SlotIndex,
    /// Its SPI.
    pub spi: Spi,
}

impl Around {
    fn to_word(self) -> u64 {
        u64::from(self.slot.0) << 32 | u64::from(self.spi.0)
    }

    fn from_word(word: u64) -> Around {
        Around { slot: SlotIndex((word >> 32) as u32), spi: Spi(word as u32) }
    }
}

/// A Security Association (RFC 4301 §4.4.2.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sa {
    /// Its SPI: ours if inbound, the peer's if outbound.
    pub spi: Spi,
    /// Which way.
    pub direction: Direction,
    /// ESP or AH.
    pub protocol: Protocol,
    /// Tunnel or transport.
    pub mode: Mode,
    /// The transform.
    pub algorithm: Algorithm,
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address, of the same family.
    pub dst: IpAddr,
    /// UDP encapsulation (RFC 3948).
    pub udp: Option<UdpEncap>,
    /// The SA of AH that its packets are in, and without which they are none of its. It is not in UDP then.
    pub around: Option<Around>,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Replay window in packets, a multiple of 64 in [`REPLAY_WINDOW`]; 0 switches the check off.
    pub replay_window: u32,
    /// Ties it to its policies.
    pub reqid: u32,
    /// The worker whose SA it is, below [`MAX_WORKERS`], whatever its SPI: outbound, of several for the
    /// same packets (RFC 9611). Of fewer workers, one of these has it.
    pub worker: Option<u8>,
    /// The largest outer packet in octets; 0 where only the interface limits it.
    pub mtu: u16,
    /// What it asks for beyond sealing and opening.
    pub handling: Handling,
    /// The connection it belongs to.
    pub name: Name,
    /// Key and salt.
    pub key: Key,
}

/// The form in a slot. Wiped when dropped, since it holds the key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SaWords<const N: usize = BODY_WORDS>(pub(crate) [u64; N]);

impl Sa {
    /// Refuses what no datapath could use.
    ///
    /// # Errors
    /// [`SadbError::Invalid`] names the field and its value.
    pub fn check(&self) -> Result<(), SadbError> {
        let invalid = |field, value: u64| Err(SadbError::Invalid { field, value });
        let (algorithm, window) = (self.algorithm, self.replay_window);
        // RFC 4303 §2.1: 0 is for local use, 1 to 255 are reserved.
        if self.spi.0 < 256 {
            return invalid("spi", self.spi.0 as u64);
        }
        if self.src.is_ipv4() != self.dst.is_ipv4() {
            return invalid("family of src and dst", self.src.is_ipv4() as u64);
        }
        if !algorithm.is_for(self.protocol) {
            return invalid("algorithm of protocol", algorithm.code() as u64);
        }
        if self.key.bytes().len() != algorithm.key_len() + algorithm.salt_len() {
            return invalid("key length", self.key.bytes().len() as u64);
        }
        if window != 0 && (!REPLAY_WINDOW.contains(&window) || !window.is_multiple_of(64)) {
            return invalid("replay_window", window as u64);
        }
        // Whoever copies a packet would be followed.
        if window == 0 && self.direction == Direction::Inbound && self.udp.is_some_and(|udp| udp.follow_peer)
        {
            return invalid("replay_window with follow_peer", 0);
        }
        // What AH is around is ESP between the same addresses (RFC 3715 §2.1: no NAT is on its way).
        if self.around.is_some() && (self.protocol, self.udp, self.worker) != (Protocol::Esp, None, None) {
            return invalid("protocol, udp or worker with around", self.protocol as u64);
        }
        // The peer's packets come to the worker that the SPI names.
        if let Some(worker) = self.worker
            && (self.direction == Direction::Inbound || usize::from(worker) >= MAX_WORKERS)
        {
            return invalid("worker", worker.into());
        }
        if self.name.len == 0 {
            return invalid("name length", 0);
        }
        self.handling.check()
    }

    /// What says which worker's it is: an SPI, or the worker itself.
    pub fn whose(&self) -> (Spi, Option<u8>) {
        (self.around.map_or(self.spi, |around| around.spi), self.worker)
    }

    /// The peer's outer address.
    pub(crate) fn peer(&self) -> IpAddr {
        if self.direction == Direction::Inbound { self.src } else { self.dst }
    }

    /// The same SA, with its peer there.
    pub(crate) fn with_peer_at(mut self, endpoint: Endpoint) -> Sa {
        let Some(udp) = &mut self.udp else { return self };
        let (addr, port) = match self.direction {
            Direction::Inbound => (&mut self.src, &mut udp.src_port),
            Direction::Outbound => (&mut self.dst, &mut udp.dst_port),
        };
        (*addr, *port) = (endpoint.addr(), endpoint.port());
        self
    }

    pub(crate) fn to_words(&self) -> SaWords {
        let mut w = [0u64; BODY_WORDS];
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(self.esn, ESN) | flag(self.udp.is_some(), UDP) | flag(self.around.is_some(), AROUND);
        let family = if self.src.is_ipv4() { 4 } else { 6u64 };
        w[0] = self.spi.0 as u64
            | (self.direction as u64) << 32
            | (self.protocol as u64) << 40
            | (self.mode as u64) << 48
            | family << 56;
        let worker = self.worker.map_or(0, |worker| u64::from(worker) + 1);
        w[WORKER_WORD] = self.algorithm.code() as u64
            | flags << FLAGS_SHIFT
            | worker << WORKER_SHIFT
            | (self.replay_window as u64) << 32;
        w[2] = self.reqid as u64
            | (self.mtu as u64) << 32
            | (self.key.len as u64) << 48
            | (self.name.len as u64) << 56;
        let around = self.around.map_or(0, Around::to_word);
        w[AROUND_WORD] = self.udp.map_or(around, UdpEncap::to_word);
        w[4..6].copy_from_slice(&address_words(self.src));
        w[6..8].copy_from_slice(&address_words(self.dst));
        pack(&self.name.octets, &mut w[NAME_WORD..NAME_WORD + NAME_ROOM / 8]);
        pack(&self.key.octets, &mut w[KEY_WORD..KEY_WORD + KEY_ROOM / 8]);
        w[HANDLING_WORD..HANDLING_WORD + HANDLING_WORDS].copy_from_slice(&self.handling.to_words());
        SaWords(w)
    }

    pub(crate) fn from_words(words: &SaWords) -> Result<Sa, SadbError> {
        let w = &words.0;
        let v4 = match (w[0] >> 56) as u8 {
            4 => true,
            6 => false,
            other => return Err(SadbError::Invalid { field: "family", value: other as u64 }),
        };
        let flags = w[WORKER_WORD] >> FLAGS_SHIFT & 0xff;
        let mut name = Name { octets: [0; NAME_ROOM], len: ((w[2] >> 56) as u8).min(NAME_ROOM as u8) };
        unpack(&w[NAME_WORD..NAME_WORD + NAME_ROOM / 8], &mut name.octets);
        let mut key = Key { octets: [0; KEY_ROOM], len: ((w[2] >> 48) as u8).min(KEY_ROOM as u8) };
        unpack(&w[KEY_WORD..KEY_WORD + KEY_ROOM / 8], &mut key.octets);
        let sa = Sa {
            spi: Spi(w[0] as u32),
            direction: ((w[0] >> 32) as u8).try_into()?,
            protocol: ((w[0] >> 40) as u8).try_into()?,
            mode: ((w[0] >> 48) as u8).try_into()?,
            algorithm: (w[1] as u16).try_into()?,
            src: address(v4, &w[4..6]),
            dst: address(v4, &w[6..8]),
            udp: (flags & UDP != 0).then(|| UdpEncap::from_word(w[AROUND_WORD])),
            around: (flags & AROUND != 0).then(|| Around::from_word(w[AROUND_WORD])),
            esn: flags & ESN != 0,
            replay_window: (w[1] >> 32) as u32,
            reqid: w[2] as u32,
            worker: worker_of_word(w[WORKER_WORD]),
            mtu: (w[2] >> 32) as u16,
            handling: Handling::from_words(w[HANDLING_WORD..].first_chunk().expect("words enough"))?,
            name,
            key,
        };
        sa.check()?;
        Ok(sa)
    }
}

/// The worker that the word says, which has it.
fn worker_of_word(word: u64) -> Option<u8> {
    ((word >> WORKER_SHIFT) as u8).checked_sub(1)
}

/// What [`Sa::whose`] says, of the word of a body at a place.
pub(crate) fn whose(word: impl Fn(usize) -> u64) -> (Spi, Option<u8>) {
    let flags = word(WORKER_WORD) >> FLAGS_SHIFT;
    let spi = word(if flags & AROUND != 0 { AROUND_WORD } else { 0 });
    (Spi(spi as u32), worker_of_word(word(WORKER_WORD)))
}

fn pack(octets: &[u8], words: &mut [u64]) {
    for (word, chunk) in words.iter_mut().zip(octets.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().expect("chunks of 8"));
    }
}

fn unpack(words: &[u64], octets: &mut [u8]) {
    for (word, chunk) in words.iter().zip(octets.chunks_exact_mut(8)) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

/// An address as two words, most significant first; IPv4 in the top 32 bits.
pub(crate) fn address_words(addr: IpAddr) -> [u64; 2] {
    match addr {
        IpAddr::V4(a) => [(a.to_bits() as u64) << 32, 0],
        IpAddr::V6(a) => [(a.to_bits() >> 64) as u64, a.to_bits() as u64],
    }
}

pub(crate) fn address(v4: bool, words: &[u64]) -> IpAddr {
    match v4 {
        true => IpAddr::V4(((words[0] >> 32) as u32).into()),
        false => IpAddr::V6(((words[0] as u128) << 64 | words[1] as u128).into()),
    }
}
