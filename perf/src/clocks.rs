//! Clocks of each hop of a worker.

use crate::clock;
use portcullis_datapath::meter::{Hop, Meter};

/// How many hops there are.
pub const HOPS: usize = Hop::ALL.len();

/// A hop's name in tables.
pub fn name(hop: Hop) -> &'static str {
    match hop {
        Hop::Rx => "rx",
        Hop::Jumbo => "gather, scatter",
        Hop::Classify => "classify",
        Hop::Policy => "policy",
        Hop::Sa => "SA",
        Hop::Sequence => "replay",
        Hop::Headers => "encap, decap",
        Hop::Crypto => "crypto",
        Hop::NextHop => "next hop",
        Hop::Tx => "tx",
        Hop::Settle => "settle",
    }
}

/// Whose clocks are counted now.
pub struct Clocks {
    last: u64,
    overhead: u64,
    clocks: [u64; HOPS],
}

impl Default for Clocks {
    fn default() -> Clocks {
        Clocks { last: clock::now(), overhead: clock::overhead(), clocks: [0; HOPS] }
    }
}

impl Clocks {
    /// A turn begins.
    pub fn start(&mut self) {
        self.last = clock::now();
    }

    /// Clocks of each hop since this was last called.
    pub fn take(&mut self) -> [u64; HOPS] {
        std::mem::take(&mut self.clocks)
    }
}

impl Meter for Clocks {
    fn mark(&mut self, hop: Hop) {
        let now = clock::now();
        self.clocks[hop as usize] += (now - self.last).saturating_sub(self.overhead);
        self.last = now;
    }
}
