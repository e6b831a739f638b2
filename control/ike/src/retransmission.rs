//! What is sent again until it is answered, and when (RFC 7296 §2.4, RFC 2408 §5.1). It is the same octets: nothing is sealed twice.

use crate::kept::keep;

/// How often a request is sent again until it is given up, and when (RFC 7296 §2.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retransmission {
    /// How long the first is waited for.
    pub timeout_ms: u32,
    /// Each is waited for so many thousandths of the time before.
    pub base: u32,
    /// How often it is sent again.
    pub tries: u32,
    /// No time is longer; 0 is no limit.
    pub limit_ms: u32,
    /// Up to so many hundredths of a time are taken off at random, so that not all ask at once.
    pub jitter: u8,
}

impl Default for Retransmission {
    /// As strongSwan has it: given up after 165 seconds.
    fn default() -> Retransmission {
        Retransmission { timeout_ms: 4000, base: 1800, tries: 5, limit_ms: 0, jitter: 0 }
    }
}

impl Retransmission {
    /// How long a request is waited for that was sent again so many times; `random` is any octet.
    pub fn wait_ms(&self, again: u32, random: u8) -> u64 {
        let longer = |ms: u64| ms.saturating_mul(self.base.into()) / 1000;
        let ms = (0..again.min(64)).fold(u64::from(self.timeout_ms), |ms, _| longer(ms));
        let ms = if self.limit_ms == 0 { ms } else { ms.min(self.limit_ms.into()) };
        ms - ms.saturating_mul(u64::from(self.jitter.min(100)) * u64::from(random)) / (100 * 255)
    }
}

/// A message as it goes out: one datagram, or one for each fragment (RFC 7383).
pub type Datagrams = Vec<Vec<u8>>;

/// A message that is not answered.
#[derive(Debug)]
pub(crate) struct Open {
    datagrams: Datagrams,
    /// How often it was sent again.
    pub again: u32,
    /// When it is next to be sent again, or given up.
    pub due_ms: u64,
}

impl Open {
    /// One that is sent now; `random` is any octet.
    pub fn new(datagrams: Datagrams, how: &Retransmission, now_ms: u64, random: u8) -> Open {
        Open { datagrams, again: 0, due_ms: now_ms + how.wait_ms(0, random) }
    }

    /// Whether this datagram is of it.
    pub fn has(&self, octets: &[u8]) -> bool {
        self.datagrams.iter().any(|datagram| datagram == octets)
    }

    /// It is sent again at once, as if for the first time: nobody has waited for its answer.
    pub fn anew(&mut self, now_ms: u64) {
        (self.again, self.due_ms) = (0, now_ms);
    }

    /// What is to be done about it, if it is due.
    pub fn late(&mut self, how: &Retransmission, now_ms: u64, random: u8) -> Option<Late> {
        if now_ms < self.due_ms {
            return None;
        }
        if self.again >= how.tries {
            return Some(Late::GivenUp);
        }
        self.again += 1;
        self.due_ms = now_ms + how.wait_ms(self.again, random);
        Some(Late::Again(self.datagrams.clone()))
    }
}

/// What is to be done about a message that is waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Late {
    /// It is to be sent again.
    Again(Datagrams),
    /// It was sent as often as it is to be.
    GivenUp,
}

keep!(Retransmission { timeout_ms, base, tries, limit_ms, jitter });
keep!(Open { datagrams, again, due_ms });

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7296 §2.4: 165 s in all, as strongSwan documents.
    #[test]
    fn times_grow_until_it_is_given_up() {
        let how = Retransmission::default();
        let times: Vec<_> = (0..=how.tries).map(|n| how.wait_ms(n, 255)).collect();
        assert_eq!(times, [4000, 7200, 12960, 23328, 41990, 75582]);
        assert_eq!(times.iter().sum::<u64>(), 165_060);
        let how = Retransmission { limit_ms: 10_000, jitter: 20, ..how };
        assert_eq!([0, 1, 2].map(|n| how.wait_ms(n, 0)), [4000, 7200, 10_000]);
        assert_eq!([0, 1, 2].map(|n| how.wait_ms(n, 255)), [3200, 5760, 8000]);
        assert!(how.wait_ms(u32::MAX, 7) <= 10_000);
    }
}
