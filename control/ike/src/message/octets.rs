//! Octets in order: a reader that says where it stopped, and a writer that fills in lengths.

use super::PayloadType;
use std::fmt;

/// Why octets are no message: this field is cut off, or has a value that it must not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Malformed {
    /// The type of the payload; `None` is the header.
    pub payload: Option<PayloadType>,
    /// The field, in the words of the RFC that has it.
    pub field: &'static str,
    /// Where the field begins, in octets from the start of what was parsed.
    pub offset: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.payload {
            Some(payload) => write!(f, "payload {payload}")?,
            None => f.write_str("header")?,
        }
        write!(f, ": bad {} at octet {}", self.field, self.offset)
    }
}

/// Why a value has no octets: this is more than its length or count field can say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field} is more than its field can say")]
pub struct Oversized {
    /// The field, in the words of the RFC that has it.
    pub field: &'static str,
}

/// What is left to read of a header, a payload or a part of one.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
    payload: Option<PayloadType>,
}

impl<'a> Reader<'a> {
    /// Over octets that begin at `offset`.
    pub fn new(payload: Option<PayloadType>, octets: &'a [u8], offset: usize) -> Reader<'a> {
        Reader { rest: octets, offset, payload }
    }

    /// The same octets, as of this payload.
    pub fn of(self, payload: PayloadType) -> Reader<'a> {
        Reader { payload: Some(payload), ..self }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The error that a field here is wrong.
    pub fn malformed(&self, field: &'static str) -> Malformed {
        self.malformed_at(field, self.offset)
    }

    pub fn malformed_at(&self, field: &'static str, offset: usize) -> Malformed {
        Malformed { payload: self.payload, field, offset }
    }

    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(self.malformed(field))?;
        (self.rest, self.offset) = (rest, self.offset + len);
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        let malformed = self.malformed(field);
        self.take(N, field)?.try_into().map_err(|_| malformed)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.offset += self.rest.len();
        std::mem::take(&mut self.rest)
    }

    /// Nothing may be left: a length or count said too much, or too little.
    pub fn end(&self, field: &'static str) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.malformed(field)) }
    }

    /// Two octets, and a reader over what their frame has behind its length. Payloads, proposals, transforms and
    /// traffic selectors all begin so: two octets, and a length in 16 bits that includes these four octets.
    pub fn frame(&mut self, field: &'static str) -> Result<([u8; 2], Reader<'a>), Malformed> {
        let head = self.array(field)?;
        let malformed = self.malformed(field);
        let length = self.u16(field)?;
        let length = usize::from(length).checked_sub(FRAME).ok_or(malformed)?;
        let body = Reader { offset: self.offset, ..*self };
        let octets = self.take(length, field).map_err(|_| malformed)?;
        Ok((head, Reader { rest: octets, ..body }))
    }
}

/// Octets of a frame before its body.
pub(super) const FRAME: usize = 4;

/// Octets that are emitted.
#[derive(Default)]
pub(super) struct Writer {
    out: Vec<u8>,
    oversized: Option<Oversized>,
}

impl Writer {
    /// One that does not move before it has so many octets: what is in it may be secret, and is left nowhere else.
    pub fn with_room(octets: usize) -> Writer {
        Writer { out: Vec::with_capacity(octets), oversized: None }
    }

    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn octets(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
    }

    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.octets(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.octets(&value.to_be_bytes());
    }

    /// A length or a count in 8 bits.
    pub fn len8(&mut self, len: usize, field: &'static str) {
        let len = self.fits(len, field);
        self.u8(len);
    }

    /// A length or a count in 16 bits.
    pub fn len16(&mut self, len: usize, field: &'static str) {
        let len = self.fits(len, field);
        self.u16(len);
    }

    /// What [`Reader::frame`] reads.
    pub fn frame(&mut self, head: [u8; 2], field: &'static str, body: impl FnOnce(&mut Writer)) {
        let start = self.len();
        self.octets(&head);
        self.u16(0);
        body(self);
        let length: u16 = self.fits(self.len() - start, field);
        self.out[start + 2..start + FRAME].copy_from_slice(&length.to_be_bytes());
    }

    /// Puts a length where four octets have been emitted.
    pub fn patch_u32(&mut self, at: usize, len: usize) {
        let len: u32 = self.fits(len, "Length");
        self.out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    }

    pub fn finish(self) -> Result<Vec<u8>, Oversized> {
        self.oversized.map_or(Ok(self.out), Err)
    }

    /// The first that does not fit is remembered, so that only [`Writer::finish`] fails.
    fn fits<T: TryFrom<usize> + Default>(&mut self, len: usize, field: &'static str) -> T {
        T::try_from(len).unwrap_or_else(|_| {
            self.oversized.get_or_insert(Oversized { field });
            T::default()
        })
    }
}
