//! How the decision sees a frame.

/// Bytes of a frame, from its Ethernet header on.
///
/// The host reads a slice; the XDP program compares with `data_end`, as the verifier demands.
pub trait Packet {
    /// The `N` bytes from `at` on, or `None` when the frame ends before. `N` is two or more: the
    /// verifier does not follow a check for one byte.
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]>;
}

impl Packet for [u8] {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk().copied()
    }
}

/// A packet that ends where its IP header says, since what follows is padding of the frame.
pub(crate) struct Bounded<'a, P: ?Sized> {
    pub packet: &'a P,
    pub end: usize,
}

impl<P: Packet + ?Sized> Packet for Bounded<'_, P> {
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at + N > self.end { None } else { self.packet.bytes(at) }
    }
}
