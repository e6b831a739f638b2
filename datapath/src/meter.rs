//! The parts of a packet's way, for whoever wants to know what each costs.
//!
//! A worker tells its [`Meter`] whenever its batch is through a part. In production that is `()`, which is no code.

/// A part of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hop {
    /// Frames from ports and other workers.
    Rx,
    /// Packets in several chunks, together and apart again; all that is done to them.
    Jumbo,
    /// What a frame is.
    Classify,
    /// What the policies say of it.
    Policy,
    /// Its SA.
    Sa,
    /// Sequence numbers and replay windows.
    Sequence,
    /// Encapsulation and decapsulation.
    Headers,
    /// AEAD.
    Crypto,
    /// Route, neighbour, Ethernet header.
    NextHop,
    /// Frames to ports.
    Tx,
    /// Counters.
    Settle,
}

impl Hop {
    /// All of them, in about the order of a packet's way; each is its own index.
    pub const ALL: [Hop; 11] = [
        Hop::Rx,
        Hop::Jumbo,
        Hop::Classify,
        Hop::Policy,
        Hop::Sa,
        Hop::Sequence,
        Hop::Headers,
        Hop::Crypto,
        Hop::NextHop,
        Hop::Tx,
        Hop::Settle,
    ];
}

/// Told of each part when it is done.
pub trait Meter {
    /// All since the last mark was for this hop.
    fn mark(&mut self, hop: Hop);
}

impl Meter for () {
    #[inline(always)]
    fn mark(&mut self, _: Hop) {}
}
