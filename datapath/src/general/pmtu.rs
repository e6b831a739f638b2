//! The path MTU that an SA has learned, and for how long it believes it (RFC 4301 §8.2.2, RFC 1191 §6.3).
//!
//! Who tells of it cannot be authenticated (RFC 4301 §8.2.1): a forged message can make packets no smaller than the
//! floor, for no longer than ten minutes.

use super::{
    Env, General, To,
    icmp::{Carried, TooBig},
};
use crate::{drop::DropReason, wire::Ip};
use portcullis_sadb::{Protocol, Sa};

/// How long a path MTU is believed, since a router last told of it (RFC 1191 §6.3, RFC 8201 §4).
pub const AGE_MS: u64 = 10 * 60 * 1000;

/// The floor for IPv4 that nobody configured: what each host takes (RFC 791 §3.1).
pub const FLOOR_V4: u16 = 576;

/// The floor for IPv6, below which no link is (RFC 8200 §5).
pub const FLOOR_V6: u16 = 1280;

/// What other workers are asked about, a second and at once: anybody can say that packets of any SPI were too big.
pub const OTHERS: (u32, u32) = (1000, 256);

/// The path MTU between the outer addresses of an SA, in octets of outer packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pmtu {
    learned: u16,
    floor: u16,
    until_ms: u64,
}

impl Pmtu {
    /// Nothing is learned yet; never below `floor` octets will be.
    pub const fn new(floor: u16) -> Pmtu {
        Pmtu { learned: u16::MAX, floor, until_ms: 0 }
    }

    /// A router says that packets over `mtu` octets do not get through. Whether the path MTU is lower than before.
    pub fn learn(&mut self, mtu: u16, now_ms: u64) -> bool {
        let mtu = mtu.max(self.floor);
        let known = self.known(now_ms);
        // RFC 1191 §6.3: an increase is not believed, it waits for the age.
        if mtu > known {
            return false;
        }
        (self.learned, self.until_ms) = (mtu, now_ms + AGE_MS);
        mtu < known
    }

    /// What fits into one packet now, out of an interface of so many octets.
    pub fn effective_mtu(&self, interface_mtu: u16, now_ms: u64) -> u16 {
        self.known(now_ms).min(interface_mtu)
    }

    fn known(&self, now_ms: u64) -> u16 {
        if now_ms < self.until_ms { self.learned } else { u16::MAX }
    }
}

impl General {
    /// Takes in what a router says of a packet that was too big for it. What is not about an SA of ours goes on to who sent
    /// the packet.
    ///
    /// # Errors
    /// [`DropReason::UnknownSpi`] if it is to ourselves, and why it goes no further.
    pub(super) fn learn_path(&mut self, env: &mut Env<'_>, ip: Ip) -> Result<(), DropReason> {
        // RFC 4301 §8.2.1: whoever says so, the SA must live, and its packets have these addresses.
        let said = TooBig::parse(self.packet.bytes()).filter(|said| said.src == ip.dst());
        if let Some(said) = said
            && let Some(spi) = said.carried.spi()
            && let Some(i) = env.sas.find_outbound(spi, env.reader, |sa| is_about(&said, sa))
        {
            env.sas.learn_mtu(i, said.mtu, env.now_ms);
            return Ok(());
        }
        if !env.is_own(ip.dst()) {
            return self.outbound(env, ip);
        }
        let next = said.and_then(|said| env.sas.next_asked(said.carried.spi()?));
        match next.filter(|_| self.asks_others.take(env.now_ms)) {
            Some(owner) => self.put(env, To::Worker { owner, is_sealed: false }),
            None => Err(DropReason::UnknownSpi),
        }
    }
}

/// Whether the packet that was too big was sealed by this SA, whose SPI it had.
fn is_about(said: &TooBig, sa: &Sa) -> bool {
    let is_sealed_so = match (said.carried, sa.protocol) {
        (Carried::Esp { .. }, Protocol::Esp) | (Carried::Ah { .. }, Protocol::Ah) => sa.udp.is_none(),
        (Carried::Udp { src_port, dst_port, .. }, Protocol::Esp) => {
            sa.udp.is_some_and(|udp| udp.ports() == (src_port, dst_port))
        }
        _ => false,
    };
    is_sealed_so && (said.src, said.dst) == (sa.src.into(), sa.dst.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_lasts_ten_minutes() {
        let mut pmtu = Pmtu::new(FLOOR_V4);
        assert_eq!(pmtu.effective_mtu(1500, 0), 1500);
        assert!(pmtu.learn(1400, 1000));
        assert_eq!(pmtu.effective_mtu(1500, 1000), 1400);
        assert_eq!(pmtu.effective_mtu(1300, 1000), 1300, "the interface's own bounds it");
        assert_eq!(pmtu.effective_mtu(1500, 1000 + AGE_MS - 1), 1400);
        assert_eq!(pmtu.effective_mtu(1500, 1000 + AGE_MS), 1500); // RFC 1191 §6.3
    }

    #[test]
    fn it_only_falls_and_what_is_told_again_lasts_again() {
        let mut pmtu = Pmtu::new(FLOOR_V6);
        assert!(pmtu.learn(1400, 0));
        assert!(!pmtu.learn(1450, 1), "no increase before its time");
        assert_eq!(pmtu.effective_mtu(9000, 2), 1400);
        assert_eq!(pmtu.effective_mtu(9000, AGE_MS), 9000, "nor did it last longer for that");
        assert!(pmtu.learn(1400, AGE_MS - 1) | pmtu.learn(1350, AGE_MS - 1));
        assert!(!pmtu.learn(1350, AGE_MS));
        assert_eq!(pmtu.effective_mtu(9000, 2 * AGE_MS - 1), 1350);
        assert_eq!(pmtu.effective_mtu(9000, 2 * AGE_MS), 9000);
        assert!(pmtu.learn(8000, 2 * AGE_MS), "and then all is new");
    }

    #[test]
    fn nobody_can_push_it_below_the_floor() {
        for (floor, told, mtu) in
            [(FLOOR_V4, 68, 576), (FLOOR_V4, 0, 576), (FLOOR_V6, 600, 1280), (1200, 600, 1200)]
        {
            let mut pmtu = Pmtu::new(floor);
            assert!(pmtu.learn(told, 5)); // RFC 4301 §8.2.1
            assert_eq!(pmtu.effective_mtu(1500, 6), mtu);
        }
    }
}
