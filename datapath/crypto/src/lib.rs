//! What seals and opens the packets of ESP and AH.
//!
//! There are two ways in. [`Aead`] is AES-GCM as ESP uses it (RFC 4106), of many packets at a time, of any lengths and keys, in
//! place, in one piece or in segments; how it is done is chosen once: by kernels of our own for x86-64 (`gcm`), or by RustCrypto.
//! [`Suite`] is any other algorithm, and AH's ICVs, packet by packet.
//!
//! [`IcvVerified`] is made here alone, by a packet whose ICV is right. Whatever may happen to a
//! packet or its SA only after that takes it as an argument.

#![deny(missing_docs)]

#[cfg(target_arch = "x86_64")]
mod gcm;
mod job;
mod portable;
mod suite;

use arrayvec::ArrayVec;
pub use job::Job;
use portcullis_sadb::{Algorithm, prefetch_at};
use std::{fmt, str::FromStr};
pub use suite::Suite;
use zeroize::Zeroize;

/// Jobs that are sealed or opened together, at most.
pub const BATCH: usize = 128;

/// Octets of an ICV, at most (RFC 4106 §6).
pub const ICV: usize = 16;

/// Octets in front of the text that a job's packet begins with: SPI, sequence number and IV, or whatever
/// is there. They stay as they are.
pub const HEAD: usize = 16;

/// Proof that a packet's ICV was verified.
#[derive(Clone, Copy, Debug)]
pub struct IcvVerified(());

/// What seals and opens: the fastest that this CPU can do, unless another is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aead {
    /// VAES and VPCLMULQDQ, 512 bits at a time, for long packets; 256 bits for short ones.
    Avx512,
    /// VAES and VPCLMULQDQ, 256 bits at a time.
    Avx2,
    /// AES-NI and PCLMULQDQ.
    AesNi,
    /// RustCrypto, for any CPU.
    Portable,
}

impl Aead {
    /// All, the fastest first.
    pub const ALL: [Aead; 4] = [Aead::Avx512, Aead::Avx2, Aead::AesNi, Aead::Portable];

    /// The fastest that this CPU can do.
    pub fn best() -> Aead {
        Aead::ALL.into_iter().find(|a| a.is_available()).unwrap_or(Aead::Portable)
    }

    /// Whether this CPU has what it takes.
    pub fn is_available(self) -> bool {
        match self {
            Aead::Portable => true,
            #[cfg(target_arch = "x86_64")]
            _ => gcm::is_available(self),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// What it is called, for reports and configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Aead::Avx512 => "vaes-avx512",
            Aead::Avx2 => "vaes-avx2",
            Aead::AesNi => "aes-ni",
            Aead::Portable => "portable",
        }
    }

    /// Expands a key of 16, 24 or 32 octets; `None` for any other length. The salt is what its SA puts in
    /// front of each IV (RFC 4106 §4).
    pub fn key(self, key: &[u8], salt: [u8; 4]) -> Option<AeadKey> {
        let rounds = match key.len() {
            16 => Rounds::Aes128,
            24 => Rounds::Aes192,
            32 => Rounds::Aes256,
            _ => return None,
        };
        let head = |first_kind| Head { salt, rounds, first_kind, unused: [0; 10] };
        let expanded = match self {
            Aead::Portable => Expanded::Portable(head(job::FOREIGN), portable::Key::new(key)?),
            #[cfg(target_arch = "x86_64")]
            _ if self.is_available() => {
                Expanded::Gcm(gcm::Key::new(key, head(job::first_kind(rounds as u8)))?)
            }
            _ => return None,
        };
        Some(AeadKey { _lines: [0; 6], expanded })
    }

    /// Expands an SA's key material: the key, then the salt (RFC 4106 §8.1). `None` if its length is wrong.
    pub fn sa_key(self, algorithm: Algorithm, material: &[u8]) -> Option<AeadKey> {
        let (key, salt) = material.split_at_checked(algorithm.key_len())?;
        self.key(key, salt.try_into().ok()?)
    }

    /// Octets of an expanded key that are not in its [`AeadKey`], at most.
    pub fn key_octets_apart(self) -> usize {
        match self {
            Aead::Portable => portable::KEY_OCTETS,
            _ => 0,
        }
    }

    /// Encrypts each text in place and writes its ICV behind it. Where a key is none of its own, nothing readable is
    /// left.
    pub fn seal(self, jobs: &mut [Job<'_>]) {
        match self {
            Aead::Portable => portable::seal(jobs),
            #[cfg(target_arch = "x86_64")]
            _ => jobs.chunks_mut(BATCH).for_each(|jobs| gcm::seal(self, jobs)),
            #[cfg(not(target_arch = "x86_64"))]
            _ => jobs.iter_mut().for_each(Job::wipe),
        }
    }

    /// Verifies each ICV and decrypts each text in place. What does not verify is not left readable.
    pub fn open<const N: usize>(self, jobs: &mut [Job<'_>], verified: &mut ArrayVec<Option<IcvVerified>, N>) {
        for jobs in jobs.chunks_mut(BATCH) {
            let mut good = [false; BATCH];
            match self {
                Aead::Portable => portable::open(jobs, &mut good),
                #[cfg(target_arch = "x86_64")]
                _ => gcm::open(self, jobs, &mut good),
                #[cfg(not(target_arch = "x86_64"))]
                _ => {}
            }
            declassify(&mut good);
            for (job, good) in jobs.iter_mut().zip(good) {
                if !good {
                    job.wipe();
                }
                verified.push(good.then_some(IcvVerified(())));
            }
        }
    }
}

impl fmt::Display for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Aead {
    type Err = ();

    fn from_str(name: &str) -> Result<Aead, ()> {
        Aead::ALL.into_iter().find(|a| a.name() == name).ok_or(())
    }
}

/// An expanded key with its salt. It is wiped when it is dropped.
#[repr(C, align(64))]
pub struct AeadKey {
    /// So large that powers of the hash key begin where the kernels want them (`gcm::Key`).
    _lines: [u64; 6],
    expanded: Expanded,
}

// Which of the two it is, and whether there is one, is told by a value that its head cannot have: no other line is read.
const _: () = assert!(size_of::<Option<AeadKey>>() == size_of::<AeadKey>());

/// What a [`Job`] takes from its key.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Head {
    salt: [u8; 4],
    rounds: Rounds,
    /// The first of the kinds that jobs with it are of.
    first_kind: u8,
    /// Read with the rest, as a number that is multiplied by zero.
    unused: [u8; 10],
}

/// Rounds of AES.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Rounds {
    Aes128 = 10,
    Aes192 = 12,
    Aes256 = 14,
}

impl AeadKey {
    fn head(&self) -> &Head {
        match &self.expanded {
            #[cfg(target_arch = "x86_64")]
            Expanded::Gcm(key) => &key.head,
            Expanded::Portable(head, _) => head,
        }
    }

    /// Brings what a job and AES-128 need of the key at this address into the CPU's cache: three lines. Whether there is
    /// a key is not looked at: that would be to wait for it.
    ///
    /// This and [`AeadKey::prefetch_powers`] want to be some work apart: the CPU waits where it is asked for more lines
    /// than it can have under way at a time.
    #[inline]
    pub fn prefetch_round_keys(key: *const Option<AeadKey>) {
        for line in 5..8 {
            prefetch_at(key.wrapping_byte_add(64 * line));
        }
    }

    /// The same of the powers that hash a short packet: two lines, of H^8 to H^1. The kernels ask again, a few packets
    /// ahead, and for what longer ones need.
    #[inline]
    pub fn prefetch_powers(&self) {
        for line in 3..5 {
            prefetch_at(std::ptr::from_ref(self).wrapping_byte_add(64 * line));
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "what is used is to be where the SA is, not behind a pointer")]
enum Expanded {
    #[cfg(target_arch = "x86_64")]
    Gcm(gcm::Key),
    Portable(Head, portable::Key),
}

impl Drop for Expanded {
    fn drop(&mut self) {
        if let Expanded::Portable(head, _) = self {
            head.salt.zeroize();
        }
    }
}

/// The data that is authenticated but not encrypted. Octets as they are, and in this order: it is loaded as a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Aad {
    spi: [u8; 4],
    seq: [u8; 8],
    zeros: [u8; 4],
    len: u8,
}

impl Aad {
    /// Octets, at most: SPI and 64-bit sequence number (RFC 4106 §5).
    pub const MAX: usize = 12;

    /// Any octets; `None` for more than [`Aad::MAX`].
    pub fn new(octets: &[u8]) -> Option<Aad> {
        let mut padded = [0; Aad::MAX];
        padded.get_mut(..octets.len())?.copy_from_slice(octets);
        let (spi, seq) = padded.split_first_chunk()?;
        Some(Aad { spi: *spi, seq: *seq.first_chunk()?, zeros: [0; 4], len: octets.len() as u8 })
    }

    fn octets(&self) -> ArrayVec<u8, { Aad::MAX }> {
        self.spi.into_iter().chain(self.seq).take(self.len.into()).collect()
    }
}

/// Additional data of an ESP packet: SPI, then the sequence number, 64 bits of it with ESN (RFC 4106 §5).
#[inline]
pub fn aad(spi: u32, seq: u64, esn: bool) -> Aad {
    let (seq, esn) = (u64::from_le_bytes(seq.to_be_bytes()), u32::from(esn));
    // Its first half is taken off the front.
    let seq = seq >> (32 - 32 * esn);
    Aad { spi: spi.to_be_bytes(), seq: seq.to_le_bytes(), zeros: [0; 4], len: 8 + 4 * esn as u8 }
}

/// Whether ICVs are right depends on secrets, and is told: here alone.
#[inline(always)]
fn declassify(good: &mut [bool]) {
    #[cfg(all(test, target_arch = "x86_64", not(miri)))]
    memcheck::publish(good);
    let _ = good;
}

#[cfg(all(test, target_arch = "x86_64", not(miri)))]
mod memcheck;
#[cfg(test)]
mod tests;
