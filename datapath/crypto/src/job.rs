//! One packet to seal or open, as the kernels want it: a cache line that goes from the worker to them as it is.

use super::{Aad, AeadKey, Expanded, HEAD, Head, ICV};
use std::{marker::PhantomData, slice};

/// One packet to seal or open: what it is sealed with, and where it is. It borrows both.
///
/// A packet lies in one piece, or in several segments, which begin and end at any of its octets.
#[repr(C, align(64))]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only the kernels go by kinds"))]
pub struct Job<'a> {
    /// J0 with its counter zero (NIST SP 800-38D §7.1): salt, IV, zeros.
    pub(super) nonce: Nonce,
    pub(super) aad: Aad,
    pub(super) key: &'a AeadKey,
    /// The text. [`HEAD`] octets in front of it and [`ICV`] behind it are the packet's, too. Of a packet in segments,
    /// the list of them.
    pub(super) text: *mut u8,
    /// Octets of the text.
    pub(super) len: u16,
    /// How many segments there are in the list; 0: the packet is in one piece.
    segments: u16,
    /// Octets of the ICV: 8, 12 or 16.
    pub(super) icv: u8,
    /// Jobs of the same number can go through a kernel together: their keys are for the kernels, and they have as
    /// many blocks, rounds, and octets of ICV. All that are long go one by one, whatever their length.
    pub(super) kind: u8,
    packet: PhantomData<&'a mut [u8]>,
}

#[cfg(target_arch = "x86_64")]
const _: () = assert!(size_of::<Job<'_>>() == 64);

/// Salt and IV.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Nonce {
    pub(super) salt: [u8; 4],
    pub(super) iv: [u8; 8],
    counter: [u8; 4],
}

/// The kind of what has no key for the kernels: the last of all.
pub(super) const FOREIGN: u8 = u8::MAX;

/// The kind of what is short and in segments: the last but that.
pub(super) const SCATTERED: u8 = FOREIGN - 1;

/// Kinds of one length of keys and of ICVs: as many as blocks are hashed at once, and one for what is longer.
const LENGTHS: u8 = 17;

/// Octets of a text that is as long as any that is not long for all kernels: its blocks, and the one in front of it.
pub(super) const SHORT: usize = 16 * (LENGTHS as usize - 2);

/// The first kind of a length of keys, by AES rounds.
pub(super) const fn first_kind(rounds: u8) -> u8 {
    3 * LENGTHS * ((rounds - 10) / 2)
}

const _: () = assert!(9 * (LENGTHS as u32) <= SCATTERED as u32);

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
        // Within the packet, whose length is at least that of both ends. It is made of all of it, since what is in
        // front of the text is read and written, too.
        Job::made(key, iv, aad, icv, packet.len(), (packet.as_mut_ptr().wrapping_add(HEAD), 0))
    }

    /// The same, of a packet in segments: of any lengths, 0 as well. Head, text and ICV may each lie in several.
    #[must_use = "what there is no job for is not sealed"]
    pub fn scattered(
        key: &'a AeadKey,
        iv: [u8; 8],
        aad: Aad,
        icv: u8,
        packet: &'a mut [&mut [u8]],
    ) -> Option<Job<'a>> {
        let (len, segments) = (packet.iter().map(|s| s.len()).sum(), packet.len().try_into().ok()?);
        let mut job = Job::made(key, iv, aad, icv, len, (packet.as_mut_ptr().cast(), segments))?;
        if job.kind != FOREIGN && job.len as usize <= SHORT {
            job.kind = SCATTERED;
        }
        Some(job)
    }

    #[inline(always)]
    fn made(
        key: &'a AeadKey,
        iv: [u8; 8],
        aad: Aad,
        icv: u8,
        packet_len: usize,
        (text, segments): (*mut u8, u16),
    ) -> Option<Job<'a>> {
        let len = packet_len.checked_sub(HEAD + ICV)?;
        if !matches!(icv, 8 | 12 | 16) || len > u16::MAX as usize {
            return None;
        }
        let (head, kind) = match &key.expanded {
            #[cfg(target_arch = "x86_64")]
            Expanded::Gcm(key) => (&key.head, key.head.first_kind + kind(icv, len)),
            Expanded::Portable(head, _) => foreign(head),
        };
        Some(Job {
            nonce: Nonce { salt: head.salt, iv, counter: [0; 4] },
            aad,
            key,
            text,
            len: len as u16,
            segments,
            icv,
            kind,
            packet: PhantomData,
        })
    }

    /// The packet's segments, or none if it is in one piece.
    fn segments(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let list: &mut [&mut [u8]] = match self.segments {
            0 => &mut [],
            // SAFETY:
            // - `scattered` made `text` of a slice of `n`, and nothing changes either;
            // - the slice is borrowed exclusively for 'a, by this job alone, and from it for as long as this is; and no
            //   other slice is put into it.
            n => unsafe { slice::from_raw_parts_mut(self.text.cast(), n as usize) },
        };
        list.iter_mut().map(|segment| &mut **segment)
    }

    /// Whether it is in segments.
    pub(super) fn is_scattered(&self) -> bool {
        self.segments != 0
    }

    /// Where the list of its segments is, and how many are in it.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn list(&self) -> Option<(*mut &'a mut [u8], usize)> {
        (self.segments != 0).then(|| (self.text.cast(), self.segments as usize))
    }

    /// The text of a packet in one piece, and behind it the room for the ICV.
    pub(super) fn parts(&mut self) -> (&mut [u8], &mut [u8; ICV]) {
        assert!(self.segments == 0, "in one piece");
        // SAFETY:
        // - `new` made `text` of a slice that has HEAD octets, `len` and ICV, and nothing changes either;
        // - the slice is borrowed exclusively for 'a, by this job alone, and from it for as long as this is.
        let behind_head = unsafe { slice::from_raw_parts_mut(self.text, self.len as usize + ICV) };
        behind_head.split_last_chunk_mut().expect("as many octets as the ICV's room has")
    }

    /// Does with a copy in one piece what is to be done with a packet in segments. There is room for the longest such
    /// packet in `buffer`.
    pub(super) fn gathered<T>(&mut self, buffer: &mut [u8], work: impl FnOnce(&mut Job<'_>) -> T) -> T {
        let packet = &mut buffer[..HEAD + self.len as usize + ICV];
        let mut rest = &mut *packet;
        for segment in self.segments() {
            let (to, behind) = rest.split_at_mut(segment.len());
            to.copy_from_slice(segment);
            rest = behind;
        }
        let kind = match self.kind {
            FOREIGN => FOREIGN,
            _ => self.key.head().first_kind + kind(self.icv, self.len as usize),
        };
        let text = packet.as_mut_ptr().wrapping_add(HEAD);
        let done = work(&mut Job { text, segments: 0, kind, packet: PhantomData, ..*self });
        let mut rest = &*packet;
        for segment in self.segments() {
            let (from, behind) = rest.split_at(segment.len());
            segment.copy_from_slice(from);
            rest = behind;
        }
        done
    }

    /// Leaves nothing readable of the text.
    #[cold]
    pub(super) fn wipe(&mut self) {
        if self.segments == 0 {
            return self.parts().0.fill(0);
        }
        let (mut before, mut left) = (HEAD, self.len as usize);
        for segment in self.segments() {
            let from = before.min(segment.len());
            let n = left.min(segment.len() - from);
            segment[from..from + n].fill(0);
            (before, left) = (before - from, left - n);
        }
    }
}

/// A function, since a branch that is never taken costs less than to choose without one.
#[cold]
#[inline(never)]
fn foreign(head: &Head) -> (&Head, u8) {
    (head, FOREIGN)
}

/// The kind among those of a length of keys.
#[inline(always)]
fn kind(icv: u8, len: usize) -> u8 {
    LENGTHS * ((icv - 8) / 4) + ((len as u32 + 15) >> 4).min(LENGTHS as u32 - 1) as u8
}
