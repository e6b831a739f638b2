//! The keys of an ISAKMP SA, and those of the SAs that it makes (RFC 2409 §5, §5.5, §B).
//!
//! ```text
//!  SKEYID    by a shared key: prf(key, Ni | Nr)       by signatures: prf(Ni | Nr, g^xy)
//!  SKEYID_d  prf(SKEYID, g^xy | CKY-I | CKY-R | 0)                further keys
//!  SKEYID_a  prf(SKEYID, SKEYID_d | g^xy | CKY-I | CKY-R | 1)     what HASH payloads are made with
//!  SKEYID_e  prf(SKEYID, SKEYID_a | g^xy | CKY-I | CKY-R | 2)     what encrypts, made longer if it must be
//! ```
//!
//! # Dangers
//! An IV is the last block before it in its exchange: nothing of a message that is not authenticated may go on in it.

use crate::{
    crypto::{
        Secret,
        cipher::{decrypt_cbc, encrypt_cbc},
        key_log::KeyLog,
        keys::{ChildKeys, Nonces, Role, Spis, child_key, child_key_len},
        transform::{Encryption, Prf},
    },
    kept::keep,
    message::Protocol,
};
use portcullis_sadb::Algorithm;

/// Octets of a block, at most: of AES.
const LONGEST_BLOCK: usize = 16;

/// Octets of a hash, at most: what keys are cut from does not move, so that no copy of it is left.
const LONGEST_HASH: usize = 64;

/// The keys of an ISAKMP SA.
#[derive(Debug)]
pub struct Keys {
    prf: Prf,
    /// SKEYID, until both ends are authenticated.
    skeyid: Secret,
    d: Secret,
    a: Secret,
    encryption: Encryption,
    cipher: Secret,
}

/// What the keys are made of.
#[derive(Debug)]
pub struct Made<'a> {
    /// The prf, and the hash of it.
    pub prf: Prf,
    /// How messages are encrypted: by a cipher in CBC.
    pub encryption: Encryption,
    /// g^xy.
    pub secret: &'a Secret,
    /// Both nonces.
    pub nonces: Nonces<'a>,
    /// The cookies.
    pub spis: Spis,
}

/// What HASH_I and HASH_R are over, besides cookies (RFC 2409 §5).
#[derive(Clone, Copy, Debug)]
pub struct Exchanged<'a> {
    /// g^xi and g^xr.
    pub public: [&'a [u8]; 2],
    /// The body of the initiator's SA payload.
    pub sa: &'a [u8],
}

/// The IV of the next message of an exchange: as much of it as a block has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Iv([u8; LONGEST_BLOCK]);

impl Keys {
    /// With SKEYID by a shared key, or without one by signatures.
    pub fn new(shared: Option<&Secret>, made: &Made<'_>) -> Keys {
        let Made { prf, encryption, secret, nonces, spis } = *made;
        let skeyid = match shared {
            Some(key) => prf.mac(key.bytes(), &[nonces.initiator, nonces.responder]),
            None => {
                let nonces = [nonces.initiator, nonces.responder].concat();
                prf.mac(&nonces, &[secret.bytes()])
            }
        };
        let (i, r) = (spis.initiator.octets(), spis.responder.octets());
        let next = |before: &[u8], n: u8| prf.mac(skeyid.bytes(), &[before, secret.bytes(), &i, &r, &[n]]);
        let d = next(&[], 0);
        let a = next(d.bytes(), 1);
        let e = next(a.bytes(), 2);
        let cipher = longer(prf, e, encryption.key_len());
        Keys { prf, skeyid, d, a, encryption, cipher }
    }

    /// The IV of the first encrypted message of phase 1 (RFC 2409 §B).
    pub fn first_iv(&self, public: [&[u8]; 2]) -> Iv {
        self.iv(&self.prf.digest(&public))
    }

    /// The IV of the first message of an exchange of phase 2, by the last block of phase 1.
    pub fn iv_of_exchange(&self, last: Iv, message_id: u32) -> Iv {
        self.iv(&self.prf.digest(&[self.block(&last), &message_id.to_be_bytes()]))
    }

    fn iv(&self, hash: &[u8]) -> Iv {
        let mut iv = [0; LONGEST_BLOCK];
        let len = self.encryption.block_len();
        iv[..len].copy_from_slice(&hash[..len]);
        Iv(iv)
    }

    fn block<'a>(&self, iv: &'a Iv) -> &'a [u8] {
        &iv.0[..self.encryption.block_len()]
    }

    /// The IV behind a text, which is its last block.
    fn last_block(&self, text: &[u8]) -> Option<Iv> {
        Some(self.iv(text.get(text.len().checked_sub(self.encryption.block_len())?..)?))
    }

    /// For whoever may know them.
    pub fn log(&self, spis: Spis) -> KeyLog {
        KeyLog::V1 { initiator: spis.initiator, cipher: self.cipher.clone() }
    }

    /// HASH_I or HASH_R: by who, whose ID payload has this body.
    pub fn proof(&self, who: Role, exchanged: Exchanged<'_>, spis: Spis, id: &[u8]) -> Secret {
        let Exchanged { public: [i, r], sa } = exchanged;
        let (cky_i, cky_r) = (spis.initiator.octets(), spis.responder.octets());
        let parts = match who {
            Role::Initiator => [i, r, &cky_i, &cky_r, sa, id],
            Role::Responder => [r, i, &cky_r, &cky_i, sa, id],
        };
        self.prf.mac(self.skeyid.bytes(), &parts)
    }

    /// Both ends are authenticated: SKEYID is not needed again.
    pub fn forget_proofs(&mut self) {
        self.skeyid = Secret::copy_of(&[]);
    }

    /// HASH of an exchange of phase 2, over its message ID and all parts in a row; HASH(3) has an octet of zero in front.
    pub fn hash(&self, front: &[u8], message_id: u32, parts: &[&[u8]]) -> Secret {
        let id = message_id.to_be_bytes();
        let parts: Vec<_> = [front, &id].into_iter().chain(parts.iter().copied()).collect();
        self.prf.mac(self.a.bytes(), &parts)
    }

    /// Encrypts, with zeroes behind, and says the next IV.
    pub fn encrypt(&self, iv: Iv, payloads: &[u8]) -> (Vec<u8>, Iv) {
        // In one place: what is in it may be secret, and is left nowhere else.
        let len = payloads.len().next_multiple_of(self.encryption.block_len());
        let mut text = Vec::with_capacity(len);
        text.extend_from_slice(payloads);
        text.resize(len, 0);
        encrypt_cbc(self.encryption, self.cipher.bytes(), self.block(&iv), &mut text);
        let next = self.last_block(&text).unwrap_or(iv);
        (text, next)
    }

    /// Decrypts, and says the next IV, if it is the peer's message. Nothing if it is not of whole blocks.
    pub fn decrypt(&self, iv: Iv, text: &[u8]) -> Option<(Vec<u8>, Iv)> {
        let next = self.last_block(text)?;
        if !text.len().is_multiple_of(self.encryption.block_len()) {
            return None;
        }
        let mut text = text.to_vec();
        decrypt_cbc(self.encryption, self.cipher.bytes(), self.block(&iv), &mut text);
        Some((text, next))
    }

    /// Whether this can be behind the last payload: less than a block (RFC 2409 §B), or, where there need be none, a block of zeros as
    /// strongSwan has it, or one that says its length as racoon has it.
    pub fn is_padding(&self, octets: &[u8]) -> bool {
        let block = self.encryption.block_len();
        let is_zero = || octets.iter().all(|octet| *octet == 0);
        let says_so = || octets.last().is_some_and(|last| [block, block - 1].contains(&usize::from(*last)));
        octets.len() < block || octets.len() == block && (is_zero() || says_so())
    }

    /// KEYMAT of a child SA in both directions, each by the SPI of who receives (RFC 2409 §5.5). The initiator is who began the
    /// exchange; `spis` are its and the responder's; with the secret of a key exchange, if there was one.
    pub fn child(
        &self,
        (protocol, algorithm): (Protocol, Algorithm),
        secret: Option<&Secret>,
        nonces: Nonces<'_>,
        [of_initiator, of_responder]: [u32; 2],
    ) -> ChildKeys {
        let key = |spi: u32| {
            let octets = self.keymat(protocol, spi, secret, nonces, child_key_len(algorithm));
            child_key(algorithm, octets.bytes())
        };
        ChildKeys { from_initiator: key(of_responder), from_responder: key(of_initiator) }
    }

    fn keymat(
        &self,
        protocol: Protocol,
        spi: u32,
        secret: Option<&Secret>,
        nonces: Nonces<'_>,
        len: usize,
    ) -> Secret {
        let (spi, secret) = (spi.to_be_bytes(), secret.map_or(&[][..], Secret::bytes));
        let mut all = zeroize::Zeroizing::new(Vec::with_capacity(len + LONGEST_HASH));
        let mut before = Secret::copy_of(&[]);
        while all.len() < len {
            let parts = [before.bytes(), secret, &[protocol.0], &spi, nonces.initiator, nonces.responder];
            before = self.prf.mac(self.d.bytes(), &parts);
            all.extend_from_slice(before.bytes());
        }
        Secret::copy_of(&all[..len])
    }
}

/// A key of so many octets (RFC 2409 §B).
fn longer(prf: Prf, e: Secret, len: usize) -> Secret {
    if e.bytes().len() >= len {
        return Secret::copy_of(&e.bytes()[..len]);
    }
    let mut all = zeroize::Zeroizing::new(Vec::with_capacity(len + LONGEST_HASH));
    let mut before = Secret::copy_of(&[0]);
    while all.len() < len {
        before = prf.mac(e.bytes(), &[before.bytes()]);
        all.extend_from_slice(before.bytes());
    }
    Secret::copy_of(&all[..len])
}

keep!(Keys { prf, skeyid, d, a, encryption, cipher });
keep!(Iv(_));

#[cfg(test)]
mod tests;
