//! Blocks of memory for the data of fragments.

/// Octets of a block. A fragment of any offset costs one, or two if it lies over an edge.
pub(super) const BLOCK: usize = 2048;

pub(super) struct Arena {
    memory: Box<[u8]>,
    free: Vec<u16>,
}

impl Arena {
    /// As many whole blocks as so many octets have.
    pub fn new(octets: usize) -> Arena {
        let blocks = octets / BLOCK;
        assert!((1..u16::MAX as usize).contains(&blocks), "{octets} octets");
        Arena { memory: vec![0; blocks * BLOCK].into_boxed_slice(), free: (0..blocks as u16).rev().collect() }
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn taken(&self) -> usize {
        self.memory.len() / BLOCK - self.free.len()
    }

    /// A block, of which there is one: the caller has asked.
    pub fn take(&mut self) -> u16 {
        self.free.pop().expect("the caller made room")
    }

    pub fn give(&mut self, block: u16) {
        self.free.push(block);
    }

    pub fn block(&self, block: u16) -> &[u8] {
        &self.memory[block as usize * BLOCK..][..BLOCK]
    }

    pub fn block_mut(&mut self, block: u16) -> &mut [u8] {
        &mut self.memory[block as usize * BLOCK..][..BLOCK]
    }
}
