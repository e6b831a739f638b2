//! Inner packets out of payloads that are in order.

use super::{Block, DropReason, Header, LARGEST};

/// An inner packet of which the first octets came.
pub(super) struct Assembly {
    buffer: Box<[u8]>,
    have: usize,
    /// Inner packets of which a part is missing.
    pub incomplete: u64,
}

impl Assembly {
    pub fn new() -> Assembly {
        Assembly { buffer: vec![0; LARGEST].into_boxed_slice(), have: 0, incomplete: 0 }
    }

    /// A payload is missing: what was begun cannot be whole any more.
    pub fn lose(&mut self) {
        self.incomplete += u64::from(self.have > 0);
        self.have = 0;
    }

    /// Takes the next payload, and gives each inner packet that ends in it.
    pub fn take(&mut self, payload: &[u8], each: &mut impl FnMut(&[u8])) -> Result<(), DropReason> {
        let (header, at) = Header::parse(payload).inspect_err(|_| self.lose())?;
        let data = &payload[at..];
        // RFC 9347 §2.2.3, §2.2.4: one of nothing but padding, or of nothing, may stand between fragments.
        if data.first().is_none_or(|first| header.block_offset == 0 && first >> 4 == 0) {
            return Ok(());
        }
        let offset = header.block_offset as usize;
        let (end, mut blocks) = data.split_at(offset.min(data.len()));
        if self.have > 0 {
            self.resume(end, offset, each);
        }
        while !blocks.is_empty() {
            match Block::at(blocks) {
                Block::Pad => break,
                Block::Packet(len) if len <= blocks.len() => {
                    let (packet, rest) = blocks.split_at(len);
                    each(packet);
                    blocks = rest;
                }
                Block::Packet(_) | Block::Short => {
                    self.buffer[..blocks.len()].copy_from_slice(blocks);
                    self.have = blocks.len();
                    break;
                }
                Block::Bad => return Err(DropReason::BadInner),
            }
        }
        Ok(())
    }

    /// Goes on with what was begun, of which `rest` octets are still to come, these among them.
    fn resume(&mut self, octets: &[u8], rest: usize, each: &mut impl FnMut(&[u8])) {
        // RFC 9347 §2.5: what payloads say of the packet that they share need not agree. The packet is dropped then.
        let total = self.have + rest;
        let (have, is_last) = (self.have + octets.len(), octets.len() == rest);
        if rest == 0 || total > LARGEST {
            return self.lose();
        }
        self.buffer[self.have..have].copy_from_slice(octets);
        match Block::at(&self.buffer[..have]) {
            Block::Packet(len) if len == total => {}
            Block::Short if !is_last => {}
            _ => return self.lose(),
        }
        self.have = have;
        if is_last {
            each(&self.buffer[..have]);
            self.have = 0;
        }
    }
}
