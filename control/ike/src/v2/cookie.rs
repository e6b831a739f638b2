//! Cookies: what an initiator must send back before the responder does anything for it (RFC 7296 §2.6).
//!
//! A cookie is a MAC of what it is for, by a secret that changes: nothing is remembered of who has one.

use crate::{
    crypto::{Secret, transform::Prf},
    message::IkeSpi,
};
use rand_core::CryptoRng;
use std::net::{IpAddr, SocketAddr};
use subtle::ConstantTimeEq;

/// How long a secret makes cookies. What it made is taken for as long again.
const SECRET_MS: u64 = 30_000;

const SECRET: usize = 32;
const MAC: usize = 32;

/// Octets of a cookie: which secret it is of, the bits of the puzzle that goes with it, and the MAC. RFC 7296 §2.6 allows 64.
const COOKIE: usize = 2 + MAC;

/// What makes cookies and knows them again.
#[derive(Debug)]
pub struct Cookies {
    secrets: [Secret; 2],
    /// Of the newer secret.
    version: u8,
    since_ms: u64,
}

impl Cookies {
    /// With new secrets.
    pub fn new(now_ms: u64, rng: &mut dyn CryptoRng) -> Cookies {
        Cookies { secrets: [secret(rng), secret(rng)], version: 0, since_ms: now_ms }
    }

    /// The cookie for an initiator, by what its request has, and by the bits of the puzzle that it is to solve.
    pub fn make(
        &mut self,
        peer: SocketAddr,
        spi: IkeSpi,
        nonce: &[u8],
        bits: u8,
        now_ms: u64,
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        self.turn(now_ms, rng);
        let newer = usize::from(self.version % 2);
        [&[self.version, bits], self.mac(newer, peer, spi, nonce, bits).bytes()].concat()
    }

    /// The bits of the puzzle of a cookie, if it is one that was made for this initiator, not long ago.
    pub fn knows(
        &mut self,
        cookie: &[u8],
        peer: SocketAddr,
        spi: IkeSpi,
        nonce: &[u8],
        now_ms: u64,
        rng: &mut dyn CryptoRng,
    ) -> Option<u8> {
        self.turn(now_ms, rng);
        let (&[version, bits], mac) = cookie.split_first_chunk().filter(|_| cookie.len() == COOKIE)?;
        let is_of_one = version == self.version || version == self.version.wrapping_sub(1);
        let made = self.mac(usize::from(version % 2), peer, spi, nonce, bits);
        (is_of_one && made.bytes().ct_eq(mac).into()).then_some(bits)
    }

    /// A new secret in the place of the older one, if it is time.
    fn turn(&mut self, now_ms: u64, rng: &mut dyn CryptoRng) {
        let passed = now_ms.saturating_sub(self.since_ms) / SECRET_MS;
        for _ in 0..passed.min(2) {
            self.version = self.version.wrapping_add(1);
            self.secrets[usize::from(self.version % 2)] = secret(rng);
        }
        self.since_ms += passed * SECRET_MS;
    }

    fn mac(&self, which: usize, peer: SocketAddr, spi: IkeSpi, nonce: &[u8], bits: u8) -> Secret {
        // The port may change behind a NAT.
        let address = match peer.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Prf::HmacSha256.mac(self.secrets[which].bytes(), &[&spi.octets(), &address, &[bits], nonce])
    }
}

fn secret(rng: &mut dyn CryptoRng) -> Secret {
    let mut octets = vec![0; SECRET];
    rng.fill_bytes(&mut octets);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors::seeded;

    // RFC 7296 §2.6
    #[test]
    fn a_cookie_is_for_one_initiator_and_some_time() {
        let mut rng = seeded(1);
        let (peer, other): (SocketAddr, SocketAddr) =
            ("192.0.2.1:500".parse().unwrap(), "192.0.2.2:500".parse().unwrap());
        let (spi, nonce) = (IkeSpi::from([1; 8]), [2; 32]);
        for start in [0, SECRET_MS - 1, 1000 * SECRET_MS, 255 * SECRET_MS + 7] {
            let mut cookies = Cookies::new(0, &mut rng);
            let cookie = cookies.make(peer, spi, &nonce, 17, start, &mut rng);
            assert!(cookie.len() <= 64);
            let mut knows = |cookie: &[u8], peer, spi, nonce, after: u64| {
                cookies.knows(cookie, peer, spi, nonce, start + after, &mut rng) == Some(17)
            };
            assert!(knows(&cookie, peer, spi, &nonce, 0));
            assert!(knows(&cookie, SocketAddr::new(peer.ip(), 4500), spi, &nonce, 0));
            assert!(!knows(&cookie, other, spi, &nonce, 0));
            assert!(!knows(&cookie, peer, [9; 8].into(), &nonce, 0));
            assert!(!knows(&cookie, peer, spi, &[3; 32], 0));
            for n in 0..cookie.len() {
                let mut wrong = cookie.clone();
                wrong[n] ^= 1;
                assert!(!knows(&wrong, peer, spi, &nonce, 0), "octet {n}");
                assert!(!knows(&cookie[..n], peer, spi, &nonce, 0));
            }
            assert!(knows(&cookie, peer, spi, &nonce, SECRET_MS));
            assert!(!knows(&cookie, peer, spi, &nonce, 2 * SECRET_MS));
        }
    }
}
