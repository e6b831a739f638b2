//! What an engine is given each time that something happens.

use crate::{
    child::Install,
    connection::Configuration,
    ike_sa::Path,
    output::{Datagram, Output},
    retransmission::Datagrams,
};
use rand_core::CryptoRng;
use std::collections::VecDeque;

/// What an engine is given.
pub struct Context<'a> {
    /// Now, of a clock that only goes forward.
    pub now_ms: u64,
    /// The same in seconds of Unix time, by which certificates are valid.
    pub unix_secs: u64,
    /// Randomness that nobody knows.
    pub rng: &'a mut dyn CryptoRng,
    /// What is configured.
    pub config: &'a Configuration,
    /// SPIs of child SAs that are free, which whoever has the SADB knows. `None`: there is no room.
    pub child_spi: &'a mut dyn FnMut() -> Option<u32>,
    /// Whether there is room for all of a child SA, which whoever has the SADB knows, too.
    pub child_room: &'a mut dyn FnMut(&Install) -> bool,
    /// What is to be done outside.
    pub out: &'a mut VecDeque<Output>,
}

impl Context<'_> {
    /// So many random octets.
    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        self.rng.fill_bytes(&mut octets);
        octets
    }

    /// Messages are to be sent.
    pub(crate) fn send(&mut self, datagrams: Datagrams, Path { local, peer }: Path, dscp: u8) {
        let all = datagrams.into_iter().map(|octets| Output::Send(Datagram { local, peer, octets, dscp }));
        self.out.extend(all);
    }
}
