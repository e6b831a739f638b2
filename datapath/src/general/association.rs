//! An SA that the plain path has no code for.

use super::{
    pmtu::{FLOOR_V4, FLOOR_V6, Pmtu},
    tfc::Tfc,
};
use crate::{
    crypto::{Aead, Suite},
    esp,
};
use portcullis_sadb::{Key, Mode, Protocol, Sa};

/// What a worker needs of it, beside its sequence numbers, window and counters.
pub struct Association {
    /// As in the SADB, but for its key.
    pub sa: Sa,
    /// Its key, expanded.
    pub suite: Suite,
    /// What is known of its path.
    pub pmtu: Pmtu,
    /// What waits to be sent or put together.
    pub tfc: Tfc,
}

impl Association {
    /// Of an SA whose next number to be received is `next_seq`, if it is inbound, and what does AES-GCM. `None` if its key
    /// does not fit its algorithm, which no SADB lets in.
    pub fn new(sa: Sa, next_seq: u64, aead: Aead) -> Option<Box<Association>> {
        let suite = Suite::new(sa.algorithm, sa.key.bytes(), aead)?;
        let pmtu = Pmtu::new(if sa.dst.is_ipv4() { FLOOR_V4 } else { FLOOR_V6 });
        let tfc = Tfc::new(&sa, next_seq);
        let key = Key::new(&[])?;
        Some(Box::new(Association { sa: Sa { key, ..sa }, suite, pmtu, tfc }))
    }

    /// Its peer is somewhere else now, as `sa` has it; nothing is known of the path there (RFC 4301 §8.2).
    pub fn lead_as(&mut self, sa: &Sa) {
        (self.sa.src, self.sa.dst, self.sa.udp) = (sa.src, sa.dst, sa.udp);
        self.pmtu = Pmtu::new(if sa.dst.is_ipv4() { FLOOR_V4 } else { FLOOR_V6 });
    }

    /// Whether the packets are a host's that we stand in front of, and do IPsec for in its place: those of a plain SA in
    /// transport mode (RFC 4301 §4.1).
    pub fn is_between_hosts(&self) -> bool {
        self.sa.mode == Mode::Transport && !self.sa.handling.gre
    }

    /// Whether an SA goes the general way.
    pub fn is_for(sa: &Sa) -> bool {
        let is_plain = sa.protocol == Protocol::Esp
            && sa.mode == Mode::Tunnel
            && sa.around.is_none()
            && esp::is_supported(sa.algorithm)
            && sa.handling.is_plain();
        !is_plain
    }
}
