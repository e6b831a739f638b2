//! prf and prf+ (RFC 7296 §2.13), all of which are HMACs here.

use super::{Secret, transform::Prf};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use zeroize::Zeroize;

/// More than this prf+ does not give, in outputs of the prf (RFC 7296 §2.13).
const MOST_BLOCKS: usize = 255;

impl Prf {
    /// prf(key, parts): of all parts in a row.
    pub fn mac(self, key: &[u8], parts: &[&[u8]]) -> Secret {
        let mut out = vec![0; self.output_len()];
        match self {
            Prf::HmacSha1 => mac(&keyed::<Hmac<Sha1>>(key), parts, &mut out),
            Prf::HmacSha256 => mac(&keyed::<Hmac<Sha256>>(key), parts, &mut out),
            Prf::HmacSha384 => mac(&keyed::<Hmac<Sha384>>(key), parts, &mut out),
            Prf::HmacSha512 => mac(&keyed::<Hmac<Sha512>>(key), parts, &mut out),
        }
        out.into()
    }

    /// The hash that it is made with, of all parts in a row.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        fn of<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut hash = D::new();
            parts.iter().for_each(|part| hash.update(part));
            hash.finalize().to_vec()
        }
        match self {
            Prf::HmacSha1 => of::<Sha1>(parts),
            Prf::HmacSha256 => of::<Sha256>(parts),
            Prf::HmacSha384 => of::<Sha384>(parts),
            Prf::HmacSha512 => of::<Sha512>(parts),
        }
    }

    /// The first `len` octets of prf+(key, seed), of which the parts are in a row.
    ///
    /// # Panics
    /// Where `len` is more than 255 outputs of the prf. Lengths are those of keys, which no peer chooses.
    pub fn plus(self, key: &[u8], seed: &[&[u8]], len: usize) -> Secret {
        assert!(len <= MOST_BLOCKS * self.output_len(), "{len} octets are more than prf+ gives");
        let mut out = vec![0; len];
        match self {
            Prf::HmacSha1 => plus(&keyed::<Hmac<Sha1>>(key), seed, &mut out, self.output_len()),
            Prf::HmacSha256 => plus(&keyed::<Hmac<Sha256>>(key), seed, &mut out, self.output_len()),
            Prf::HmacSha384 => plus(&keyed::<Hmac<Sha384>>(key), seed, &mut out, self.output_len()),
            Prf::HmacSha512 => plus(&keyed::<Hmac<Sha512>>(key), seed, &mut out, self.output_len()),
        }
        out.into()
    }
}

fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// As many octets as there is room for.
fn mac<M: Mac + Clone>(keyed: &M, parts: &[&[u8]], out: &mut [u8]) {
    let mut mac = keyed.clone();
    parts.iter().for_each(|part| mac.update(part));
    let mut octets = mac.finalize().into_bytes();
    out.copy_from_slice(&octets[..out.len()]);
    octets.zeroize();
}

/// T1 | T2 | ..., where each is the prf of the one before, the seed, and its number from 1 on.
fn plus<M: Mac + Clone>(keyed: &M, seed: &[&[u8]], out: &mut [u8], block: usize) {
    for number in 1..=out.len().div_ceil(block) {
        let (before, rest) = out.split_at_mut((number - 1) * block);
        let mut parts = vec![&before[before.len().saturating_sub(block)..]];
        parts.extend(seed);
        let number = [number as u8];
        parts.push(&number);
        let len = rest.len().min(block);
        mac(keyed, &parts, &mut rest[..len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors;

    // RFC 4231, RFC 2202: HMAC, of which RFC 4868 §2.7 takes PRF and integrity vectors, too.
    #[test]
    fn hmacs_are_those_of_the_rfcs() {
        for fields in vectors::records(include_str!("vectors/hmac.txt")) {
            let prf = Prf::named(fields.text("prf")).unwrap();
            let (key, data, out) = (fields.octets("key"), fields.octets("data"), fields.octets("out"));
            let whole = prf.mac(&key, &[&data]);
            assert_eq!(whole.bytes(), out, "{fields:?}");
            let (a, b) = data.split_at(data.len() / 3);
            assert_eq!(prf.mac(&key, &[a, &[], b]), whole);
        }
    }

    // RFC 7296 §2.13
    #[test]
    fn prf_plus_chains_blocks() {
        let (key, seed) = (b"key", b"seed");
        for prf in Prf::ALL.iter().copied() {
            let t1 = prf.mac(key, &[seed, &[1]]);
            let t2 = prf.mac(key, &[t1.bytes(), seed, &[2]]);
            let t3 = prf.mac(key, &[t2.bytes(), seed, &[3]]);
            let all = [t1.bytes(), t2.bytes(), t3.bytes()].concat();
            for len in [
                0,
                1,
                prf.output_len() - 1,
                prf.output_len(),
                prf.output_len() + 1,
                2 * prf.output_len(),
                3 * prf.output_len(),
            ] {
                assert_eq!(prf.plus(key, &[b"se", b"ed"], len).bytes(), &all[..len]);
            }
            assert_eq!(prf.plus(key, &[seed], 255 * prf.output_len()).bytes().len(), 255 * prf.output_len());
        }
    }

    #[test]
    #[should_panic(expected = "more than prf+ gives")]
    fn prf_plus_ends_after_255_blocks() {
        Prf::HmacSha256.plus(b"key", &[b"seed"], 255 * 32 + 1);
    }
}
