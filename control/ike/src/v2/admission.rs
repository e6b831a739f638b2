//! Who may begin: of a first message, which anybody can send from anywhere, no more is looked at than that takes
//! (RFC 7296 §2.6).

use crate::message::{Message, NotifyType, PayloadType};
use std::net::IpAddr;

/// Octets of a nonce (RFC 7296 §3.9).
const NONCES: std::ops::RangeInclusive<usize> = 16..=256;

/// The cookie of a first message, if it has one, and its nonce. Without a nonce it is none, and whoever reads it says why.
pub(super) fn said(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut cookie, mut nonce) = (None, None);
    let [high, low] = NotifyType::COOKIE.0.to_be_bytes();
    for (kind, body) in Message::glance(octets) {
        match kind {
            PayloadType::NONCE if nonce.is_none() => nonce = Some(body),
            // RFC 7296 §3.10: without an SPI, of whatever protocol.
            PayloadType::N if cookie.is_none() => {
                cookie = body.get(1..).and_then(|body| body.strip_prefix(&[0, high, low]));
            }
            _ => {}
        }
    }
    Some((cookie.unwrap_or_default(), nonce.filter(|nonce| NONCES.contains(&nonce.len()))?))
}

/// Prefixes are counted in so many places. Those that share one share what there is.
const PLACES: usize = 1 << 14;

/// How many first messages a prefix may send: in a second as many as configured, and so many at once.
#[derive(Debug)]
pub(super) struct Rates {
    /// When each has as many again as there are, in microseconds.
    full_us: Vec<u64>,
}

impl Rates {
    pub fn new() -> Rates {
        Rates { full_us: vec![0; PLACES] }
    }

    /// Whether a prefix has one left, which it has no more then. 0 a second is no limit.
    pub fn take(&mut self, address: IpAddr, a_second: u32, now_ms: u64) -> bool {
        a_second == 0 || take(&mut self.full_us[place(address)], a_second, now_ms)
    }
}

/// How often something is done, whoever it is for: so many times in a second, and at once.
#[derive(Default, Debug)]
pub(super) struct Rate {
    full_us: u64,
}

impl Rate {
    /// Whether there is one left, which there is no more then.
    pub fn take(&mut self, a_second: u32, now_ms: u64) -> bool {
        take(&mut self.full_us, a_second, now_ms)
    }
}

fn take(full_us: &mut u64, a_second: u32, now_ms: u64) -> bool {
    const SECOND_US: u64 = 1_000_000;
    let now_us = now_ms * 1000;
    let next_us = now_us.max(*full_us) + SECOND_US / u64::from(a_second);
    let has_one = next_us <= now_us + SECOND_US;
    if has_one {
        *full_us = next_us;
    }
    has_one
}

/// Where a /24 of IPv4 or a /48 of IPv6 is counted. Whoever can choose its address need not look for another that shares the
/// place of one: so this is no secret.
fn place(address: IpAddr) -> usize {
    let prefix = match address {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        // No prefix of IPv4 is as long.
        IpAddr::V6(ip) => 1 << 63 | (ip.to_bits() >> 80) as u64,
    };
    let mixed = prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ExchangeType, Flags, Header, IkeSpi, Notify, Payload, Payloads, Protocol, Version};

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_prefix_has_so_many_a_second() {
        let mut rates = Rates::new();
        for start in [0_u64, 1_000_000_007] {
            let mut taken = |address, from, to| {
                (start + from..start + to).filter(|ms| rates.take(at(address), 100, *ms)).count()
            };
            assert_eq!(taken("192.0.2.1", 0, 1), 1);
            // As many as there are at once, and those that come again.
            assert_eq!(taken("192.0.2.2", 1, 1001), 199);
            assert_eq!(taken("192.0.2.3", 1001, 2001), 100);
            // Another has its own.
            assert_eq!(taken("198.51.100.1", 2000, 2050), 50);
            assert_eq!(taken("2001:db8:1:2::1", 2000, 2100), 100);
            // A /48 has spent what there was, and in a fifth of a second so many have come again.
            assert_eq!(taken("2001:db8:1:3::1", 2100, 2200), 19);
            assert_eq!(taken("2001:db8:2::1", 2200, 2300), 100);
        }
        assert!((0..1000).all(|_| rates.take(at("203.0.113.1"), 0, 0)));
        assert_eq!(rates.full_us.len(), PLACES);
    }

    // RFC 7296 §2.6
    #[test]
    fn cookie_and_nonce_are_found_unread() {
        let header = Header {
            initiator_spi: [1; 8].into(),
            responder_spi: IkeSpi::NONE,
            version: Version::V2,
            exchange: ExchangeType::IKE_SA_INIT,
            flags: Flags::INITIATOR,
            message_id: 0,
        };
        let notify = |kind, data: &[u8]| Payload::Notify(Notify::new(kind, data));
        let of = |payloads| Message { header, payloads: Payloads(payloads), sealed: None }.emit().unwrap();
        let nonce = Payload::Nonce(vec![7; 32]);
        let other = notify(NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]);
        let whole =
            of(vec![other.clone(), notify(NotifyType::COOKIE, &[9; 33]), nonce.clone(), other.clone()]);
        assert_eq!(said(&whole), Some((&[9; 33][..], &[7; 32][..])));
        // RFC 7296 §3.10: without an SPI the protocol is ignored.
        let of_ike = Notify { protocol: Protocol::IKE, ..Notify::new(NotifyType::COOKIE, &[9; 33]) };
        assert_eq!(said(&of(vec![Payload::Notify(of_ike), nonce.clone()])), said(&whole));
        assert_eq!(said(&of(vec![nonce, other.clone()])), Some((&[][..], &[7; 32][..])));
        assert_eq!(said(&of(vec![other, Payload::Nonce(vec![7; 16])])).map(|said| said.1.len()), Some(16));
        for len in 0..whole.len() {
            // The length in the header says that it is cut off.
            assert_eq!(said(&whole[..len]), None, "{len}");
        }
    }

    #[test]
    fn prefixes_are_spread() {
        let mut seen = vec![0; PLACES];
        for n in 0..PLACES as u32 {
            seen[place(IpAddr::V4((n << 8).into()))] += 1;
        }
        assert!(seen.iter().all(|n| *n < 12), "{:?}", seen.iter().max());
    }
}
