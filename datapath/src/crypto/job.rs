//! One packet to seal or open, as the kernels want it: a cache line that goes from the worker to them as it is.

#[cfg(target_arch = "x86_64")]
use super::gcm;
use super::portable;
use super::{Aad, AeadKey, HEAD, ICV};
use std::{marker::PhantomData, slice};

/// One packet to seal or open: what it is sealed with, and where it is. It borrows both.
#[repr(C, align(64))]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only the kernels go by kinds"))]
pub struct Job<'a> {
    /// J0 with its counter zero (NIST SP 800-38D §7.1): salt, IV, zeros.
    pub(super) nonce: [u64; 2],
    /// Additional data, padded with zeros to a block, as a big-endian number.
    pub(super) aad: u128,
    pub(super) key: Key<'a>,
    /// The text. [`HEAD`] octets in front of it and [`ICV`] behind it are the packet's, too.
    pub(super) text: *mut u8,
    pub(super) len: u32,
    /// Octets of the additional data.
    pub(super) aad_len: u8,
    /// AES rounds: 10, 12 or 14.
    pub(super) rounds: u8,
    /// Octets of the ICV: 8, 12 or 16.
    pub(super) icv: u8,
    /// Jobs of the same number can go through a kernel together: their keys are for the kernels, and they have as
    /// many blocks, rounds, and octets of ICV. All that are long go one by one, whatever their length.
    pub(super) kind: u8,
    packet: PhantomData<&'a mut [u8]>,
}

#[cfg(target_arch = "x86_64")]
const _: () = assert!(size_of::<Job<'_>>() == 64);

/// The key of what made it.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Key<'a> {
    #[cfg(target_arch = "x86_64")]
    Gcm(&'a gcm::Key),
    Portable(&'a portable::Key),
}

/// The kind of what has no key for the kernels: the last of all.
pub(super) const FOREIGN: u8 = u8::MAX;

/// Kinds of one length of keys and of ICVs: as many as blocks are hashed at once, and one for what is longer.
const LENGTHS: u8 = 17;

/// The first kind of a length of keys, by AES rounds.
pub(super) const fn first_kind(rounds: u8) -> u8 {
    3 * LENGTHS * ((rounds - 10) / 2)
}

const _: () = assert!(9 * (LENGTHS as u32) <= FOREIGN as u32);

impl<'a> Job<'a> {
    /// A packet with the key and the IV that it is sealed with; an IV never twice with one key. `icv` are the octets
    /// of the ICV: 8, 12 or 16 (RFC 4106 §6).
    ///
    /// The packet is [`HEAD`] octets, the text, and [`ICV`] octets that begin with the ICV. Those that a shorter ICV
    /// does not use are changed, too.
    ///
    /// `None` if it is no packet: too short, longer than any is, or with an ICV of a length that there is not. GCM's
    /// own limit is higher (NIST SP 800-38D §5.2.1.1). Nothing was sealed then: it must not leave.
    #[inline]
    #[must_use = "what there is no job for is not sealed"]
    pub fn new(key: &'a AeadKey, iv: [u8; 8], aad: Aad, icv: u8, packet: &'a mut [u8]) -> Option<Job<'a>> {
        let len = packet.len().checked_sub(HEAD + ICV)?;
        if !matches!(icv, 8 | 12 | 16) || len > u16::MAX as usize {
            return None;
        }
        let (head, key) = key.parts();
        let (salt, iv) = (u32::from_le_bytes(head.salt), u64::from_le_bytes(iv));
        let kind = LENGTHS * ((icv - 8) / 4) + ((len as u32 + 15) >> 4).min(LENGTHS as u32 - 1) as u8;
        Some(Job {
            nonce: [salt as u64 | iv << 32, iv >> 32],
            aad: aad.block,
            key,
            // Within the packet, whose length is at least that of both ends. It is made of all of it, since what is in
            // front of the text is read and written, too.
            text: packet.as_mut_ptr().wrapping_add(HEAD),
            len: len as u32,
            aad_len: aad.len,
            rounds: head.rounds as u8,
            icv,
            // That of what is foreign stays as it is.
            kind: head.first_kind.saturating_add(kind),
            packet: PhantomData,
        })
    }

    /// The text, and behind it the room for the ICV.
    pub(super) fn parts(&mut self) -> (&mut [u8], &mut [u8; ICV]) {
        // SAFETY:
        // - `new` made `text` of a slice that has HEAD octets, `len` and ICV, and nothing changes either;
        // - the slice is borrowed exclusively for 'a, by this job alone, and from it for as long as this is.
        let behind_head = unsafe { slice::from_raw_parts_mut(self.text, self.len as usize + ICV) };
        behind_head.split_last_chunk_mut().expect("as many octets as the ICV's room has")
    }

    /// Leaves nothing readable of the text.
    #[cold]
    pub(super) fn wipe(&mut self) {
        self.parts().0.fill(0);
    }
}
