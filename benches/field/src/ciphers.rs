//! Who is measured: each seals and opens a burst in place, with what it takes to call it for each packet.

use crate::burst::{Burst, PACKETS, split};
#[cfg(ipsec_mb)]
use crate::ipsec_mb;
use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit};
use arrayvec::ArrayVec;
use portcullis_datapath::crypto::{self, Aead, AeadKey, ICV, Job};

/// What all SAs put in front of their IVs.
pub const SALT: [u8; 4] = [0xca, 0xfe, 0xba, 0xbe];

/// Keys of one length. Packet `i` has key `i` modulo their number, which is a power of two.
pub struct Keys {
    /// Octets of a key.
    pub len: usize,
    /// All keys, one behind the other.
    pub octets: Vec<u8>,
}

impl Keys {
    /// So many different ones.
    pub fn new(len: usize, count: usize) -> Keys {
        assert!(count.is_power_of_two());
        let octets = (0..len * count).map(|i| (i as u32).wrapping_mul(0x9e37_79b9).to_be_bytes()[0]);
        Keys { len, octets: octets.collect() }
    }

    /// How many.
    #[cfg(ipsec_mb)]
    pub fn count(&self) -> usize {
        self.octets.len() / self.len
    }

    fn expand<K>(&self, expand: impl Fn(&[u8]) -> Option<K>) -> Option<Vec<K>> {
        self.octets.chunks_exact(self.len).map(expand).collect()
    }
}

/// What seals and opens, with its keys expanded.
pub trait Cipher {
    /// Seals all packets.
    fn seal(&mut self, burst: &mut Burst);
    /// Opens all packets; whether all were good.
    fn open(&mut self, burst: &mut Burst) -> bool;
}

/// One that is measured.
pub struct Entrant {
    /// Whose it is.
    pub by: &'static str,
    /// Its name in tables.
    pub name: String,
    /// What does it.
    pub cipher: Box<dyn Cipher>,
}

/// All that this machine can run, with these keys. RustCrypto comes last.
pub fn entrants(keys: &Keys) -> Vec<Entrant> {
    let mut all = vec![];
    let mut add = |by, name: &str, cipher: Option<Box<dyn Cipher>>| {
        all.extend(cipher.map(|cipher| Entrant { by, name: name.to_owned(), cipher }));
    };
    for aead in Aead::ALL.into_iter().filter(|aead| aead.is_available()) {
        let keys = keys.expand(|key| aead.key(key, SALT));
        add("ours", aead.name(), keys.map(|keys| Box::new(Ours { aead, keys }) as _));
    }
    add("ring", "ring", Ring::cipher(keys));
    add("aws-lc-rs", "aws-lc-rs", AwsLc::cipher(keys));
    #[cfg(ipsec_mb)]
    all.extend(ipsec_mb::entrants(keys));
    let cipher = match keys.len {
        16 => {
            keys.expand(|k| Aes128Gcm::new_from_slice(k).ok()).map(|keys| Box::new(RustCrypto { keys }) as _)
        }
        _ => {
            keys.expand(|k| Aes256Gcm::new_from_slice(k).ok()).map(|keys| Box::new(RustCrypto { keys }) as _)
        }
    };
    all.extend(cipher.map(|cipher| Entrant { by: "RustCrypto", name: "RustCrypto".to_owned(), cipher }));
    all
}

struct Ours {
    aead: Aead,
    keys: Vec<AeadKey>,
}

#[inline]
fn jobs<'a>(keys: &'a [AeadKey], burst: &'a mut Burst) -> ArrayVec<Job<'a>, PACKETS> {
    let mask = keys.len() - 1;
    let job = |(i, packet): (usize, &'a mut [u8])| {
        let (spi_seq, iv, _) = split(packet);
        let spi_seq = u64::from_be_bytes(spi_seq);
        let aad = crypto::aad((spi_seq >> 32) as u32, spi_seq & 0xffff_ffff, false);
        Job::new(&keys[i & mask], iv, aad, ICV as u8, packet).expect("a packet")
    };
    burst.packets().enumerate().map(job).collect()
}

impl Cipher for Ours {
    fn seal(&mut self, burst: &mut Burst) {
        self.aead.seal(&mut jobs(&self.keys, burst));
    }

    fn open(&mut self, burst: &mut Burst) -> bool {
        let mut verified = ArrayVec::<_, PACKETS>::new();
        self.aead.open(&mut jobs(&self.keys, burst), &mut verified);
        verified.iter().all(Option::is_some)
    }
}

#[inline]
fn nonce(iv: [u8; 8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&SALT);
    nonce[4..].copy_from_slice(&iv);
    nonce
}

/// `ring` and what has its interface.
macro_rules! ring_like {
    ($name:ident, $library:ident) => {
        struct $name {
            keys: Vec<$library::aead::LessSafeKey>,
        }

        impl $name {
            fn cipher(keys: &Keys) -> Option<Box<dyn Cipher>> {
                use $library::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
                let algorithm = if keys.len == 16 { &AES_128_GCM } else { &AES_256_GCM };
                let keys = keys.expand(|key| UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new))?;
                Some(Box::new($name { keys }))
            }
        }

        impl Cipher for $name {
            fn seal(&mut self, burst: &mut Burst) {
                use $library::aead::{Aad, Nonce};
                let mask = self.keys.len() - 1;
                for (i, packet) in burst.packets().enumerate() {
                    let (spi_seq, iv, rest) = split(packet);
                    let (text, icv) = rest.split_at_mut(rest.len() - ICV);
                    let (key, nonce) = (&self.keys[i & mask], Nonce::assume_unique_for_key(nonce(iv)));
                    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(spi_seq), text);
                    icv.copy_from_slice(tag.expect("a text that is not too long").as_ref());
                }
            }

            fn open(&mut self, burst: &mut Burst) -> bool {
                use $library::aead::{Aad, Nonce};
                let mask = self.keys.len() - 1;
                let mut good = true;
                for (i, packet) in burst.packets().enumerate() {
                    let (spi_seq, iv, rest) = split(packet);
                    let (key, nonce) = (&self.keys[i & mask], Nonce::assume_unique_for_key(nonce(iv)));
                    good &= key.open_in_place(nonce, Aad::from(spi_seq), rest).is_ok();
                }
                good
            }
        }
    };
}
ring_like!(Ring, ring);
ring_like!(AwsLc, aws_lc_rs);

struct RustCrypto<C> {
    keys: Vec<C>,
}

impl<C> Cipher for RustCrypto<C>
where
    C: AeadInOut
        + aes_gcm::aead::AeadCore<NonceSize = aes_gcm::aead::consts::U12, TagSize = aes_gcm::aead::consts::U16>,
{
    fn seal(&mut self, burst: &mut Burst) {
        let mask = self.keys.len() - 1;
        for (i, packet) in burst.packets().enumerate() {
            let (spi_seq, iv, rest) = split(packet);
            let (text, icv) = rest.split_at_mut(rest.len() - ICV);
            let tag = self.keys[i & mask].encrypt_inout_detached(&nonce(iv).into(), &spi_seq, text.into());
            icv.copy_from_slice(&tag.expect("a text that is not too long"));
        }
    }

    fn open(&mut self, burst: &mut Burst) -> bool {
        let mask = self.keys.len() - 1;
        let mut good = true;
        for (i, packet) in burst.packets().enumerate() {
            let (spi_seq, iv, rest) = split(packet);
            let (text, icv) = rest.split_at_mut(rest.len() - ICV);
            let icv: [u8; ICV] = (&*icv).try_into().expect("ICV octets");
            let key = &self.keys[i & mask];
            good &= key.decrypt_inout_detached(&nonce(iv).into(), &spi_seq, text.into(), &icv.into()).is_ok();
        }
        good
    }
}
