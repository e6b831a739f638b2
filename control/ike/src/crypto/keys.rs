//! The keys of an IKE SA, and those of the SAs that it makes (RFC 7296 §2.14, §2.17, §2.18).
//!
//! ```text
//!  IKE_SA_INIT       SKEYSEED = prf(Ni | Nr, SK(0))              keys by prf+(SKEYSEED, Ni | Nr | SPIi | SPIr)
//!  IKE_INTERMEDIATE  SKEYSEED = prf(SK_d, SK(n) | Ni | Nr)       the same again (RFC 9370 §2.2.2)
//!  PPK               SK_d, SK_pi, SK_pr = prf+(PPK, each)        (RFC 8784 §3)
//!  resumption        SKEYSEED = prf(SK_d, "Resumption" | Ni | Nr)          (RFC 5723 §5.1)
//!  rekeying          SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1) ...)     (RFC 9370 §2.2.4)
//!  child SA          KEYMAT = prf+(SK_d, SK(0) | Ni | Nr | SK(1) ...)      (the same)
//! ```
//!
//! SK(0) is g^ir of RFC 7296, or the secret of a KEM; SK(1) and further are those of additional exchanges.
//!
//! # Dangers
//! - A [`Sealer`] counts the IVs of its key (RFC 5282 §3.1): two of one key would use each IV twice. So whatever makes
//!   keys gives one sealer away and keeps nothing that another could be made of, and uses up the secret of the exchange.

use super::{
    Secret,
    cipher::{Opener, Sealer},
    transform::Suite,
};
use crate::{
    kept::{keep, keep_enum},
    message::IkeSpi,
};
use portcullis_sadb::{Algorithm, Key};

/// Which end of an IKE SA: whoever sent the first message of it is its initiator, as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "their names tell")]
pub enum Role {
    Initiator,
    Responder,
}

/// Ni and Nr: what is in the nonce payloads of an exchange.
///
/// The initiator is who began this exchange, which may be the responder of the IKE SA (RFC 7296 §2.17).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "their names tell")]
pub struct Nonces<'a> {
    pub initiator: &'a [u8],
    pub responder: &'a [u8],
}

/// SPIi and SPIr of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "their names tell")]
pub struct Spis {
    pub initiator: IkeSpi,
    pub responder: IkeSpi,
}

/// What stays of the keys of an IKE SA once it can seal and open: what makes further keys, and what AUTH is made with.
#[derive(Debug)]
pub struct Keys {
    suite: Suite,
    role: Role,
    d: Secret,
    pi: Secret,
    pr: Secret,
}

/// The keys of a child SA, as the SADB takes them.
///
/// The initiator is who began the exchange that made it, which may be the responder of the IKE SA (RFC 7296 §2.17).
#[derive(Debug)]
#[allow(missing_docs, reason = "their names tell")]
pub struct ChildKeys {
    pub from_initiator: Key,
    pub from_responder: Key,
}

impl Keys {
    /// Those of a new IKE SA, by the secret of IKE_SA_INIT (RFC 7296 §2.14), and what this end seals and opens with.
    pub fn new(
        suite: Suite,
        role: Role,
        secret: Secret,
        nonces: Nonces<'_>,
        spis: Spis,
    ) -> (Keys, Sealer, Opener) {
        let key = Secret::concat(&[nonces.initiator, nonces.responder]);
        let skeyseed = suite.prf().mac(key.bytes(), &[secret.bytes()]);
        Keys::expand(suite, role, &skeyseed, nonces, spis)
    }

    /// Those after an additional key exchange in IKE_INTERMEDIATE, by its secret and what IKE_SA_INIT had (RFC 9370
    /// §2.2.2).
    pub fn updated(&self, secret: Secret, nonces: Nonces<'_>, spis: Spis) -> (Keys, Sealer, Opener) {
        self.rekeyed(self.suite, self.role, vec![secret], nonces, spis)
    }

    /// Those of the IKE SA that replaces this one, by the secrets of all its key exchanges in their order. Its initiator
    /// is who began the exchange that made it (RFC 7296 §2.18).
    pub fn rekeyed(
        &self,
        suite: Suite,
        role: Role,
        secrets: Vec<Secret>,
        nonces: Nonces<'_>,
        spis: Spis,
    ) -> (Keys, Sealer, Opener) {
        // RFC 7296 §2.18: SKEYSEED is made with the old SA's prf, whatever the new one's is.
        let skeyseed = self.suite.prf().mac(self.d.bytes(), &seed(&secrets, nonces));
        Keys::expand(suite, role, &skeyseed, nonces, spis)
    }

    /// Those of an IKE SA that is resumed, by SK_d of the one before (RFC 5723 §5.1).
    pub fn resumed(
        suite: Suite,
        role: Role,
        d: &Secret,
        nonces: Nonces<'_>,
        spis: Spis,
    ) -> (Keys, Sealer, Opener) {
        let skeyseed = suite.prf().mac(d.bytes(), &[b"Resumption", nonces.initiator, nonces.responder]);
        Keys::expand(suite, role, &skeyseed, nonces, spis)
    }

    /// SK_d: what makes further keys.
    pub(crate) fn d(&self) -> &Secret {
        &self.d
    }

    fn expand(
        suite: Suite,
        role: Role,
        skeyseed: &Secret,
        nonces: Nonces<'_>,
        spis: Spis,
    ) -> (Keys, Sealer, Opener) {
        let (spi_i, spi_r) = (spis.initiator.octets(), spis.responder.octets());
        let seed = [nonces.initiator, nonces.responder, &spi_i, &spi_r];
        let (p, a, e) = (suite.prf().output_len(), suite.integrity_key_len(), suite.encryption().key_len());
        let all = suite.prf().plus(skeyseed.bytes(), &seed, 3 * p + 2 * a + 2 * e);
        let mut rest = all.bytes();
        let mut take = |len| Secret::copy_of(rest.split_off(..len).expect("prf+ gave all of them"));
        // RFC 7296 §2.14: in this order.
        let (d, ai, ar, ei, er, pi, pr) = (take(p), take(a), take(a), take(e), take(e), take(p), take(p));
        let (sealer, opener) = match role {
            Role::Initiator => (Sealer::new(suite, ei, ai), Opener::new(suite, er, ar)),
            Role::Responder => (Sealer::new(suite, er, ar), Opener::new(suite, ei, ai)),
        };
        (Keys { suite, role, d, pi, pr }, sealer, opener)
    }

    /// These with a postquantum preshared key mixed into SK_d, SK_pi and SK_pr, once all key exchanges before IKE_AUTH
    /// are done (RFC 8784 §3). What seals and opens stays as it is.
    ///
    /// An initiator that can do without the PPK keeps both: with a responder that does not have it, AUTH is that of
    /// NO_PPK_AUTH, by SK_pi and SK_pr as they were, and further keys are of SK_d as it was.
    pub fn with_ppk(&self, ppk: &[u8]) -> Keys {
        let prf = self.suite.prf();
        let mix = |key: &Secret| prf.plus(ppk, &[key.bytes()], prf.output_len());
        Keys { d: mix(&self.d), pi: mix(&self.pi), pr: mix(&self.pr), ..*self }
    }

    /// KEYMAT of a child SA, in the parts that the algorithm asks for. No secrets where it is made with IKE_AUTH, or
    /// without key exchange; else those of all its exchanges in their order.
    pub fn child(&self, algorithm: Algorithm, secrets: &[Secret], nonces: Nonces<'_>) -> ChildKeys {
        let one_way = child_key_len(algorithm);
        let keymat = self.suite.prf().plus(self.d.bytes(), &seed(secrets, nonces), 2 * one_way);
        // RFC 7296 §2.17: what the initiator sends with comes first.
        let (from_initiator, from_responder) = keymat.bytes().split_at(one_way);
        let key = |octets| child_key(algorithm, octets);
        ChildKeys { from_initiator: key(from_initiator), from_responder: key(from_responder) }
    }

    /// What was negotiated.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Both ends have proven who they are: SK_pi and SK_pr are not needed again.
    pub fn forget_proofs(&mut self) {
        (self.pi, self.pr) = (Secret::copy_of(&[]), Secret::copy_of(&[]));
    }

    /// SK_pi or SK_pr: what signs for that end, until [`Keys::forget_proofs`].
    pub fn sk_p(&self, role: Role) -> &Secret {
        match role {
            Role::Initiator => &self.pi,
            Role::Responder => &self.pr,
        }
    }
}

/// Octets of KEYMAT for one direction of a child SA.
pub(crate) fn child_key_len(algorithm: Algorithm) -> usize {
    let (e, i) = (algorithm.encryption().transform(), algorithm.integrity().transform());
    e.key + e.salt + i.key + i.salt
}

/// A key of that: first the cipher's part, which has the salt in it (RFC 7296 §2.17, RFC 4106 §8.1, RFC 2409 §5.5).
pub(crate) fn child_key(algorithm: Algorithm, octets: &[u8]) -> Key {
    let (e, i) = (algorithm.encryption().transform(), algorithm.integrity().transform());
    let (cipher, mac) = octets.split_at(e.key + e.salt);
    let ((cipher, salt), (mac, mac_salt)) = (cipher.split_at(e.key), mac.split_at(i.key));
    let parts = Secret::concat(&[cipher, mac, salt, mac_salt]);
    Key::new(parts.bytes()).expect("an SA has room for the keys of all algorithms")
}

/// SK(0) | Ni | Nr | SK(1) ..., or Ni | Nr alone (RFC 7296 §2.17, §2.18, RFC 9370 §2.2.4).
fn seed<'a>(secrets: &'a [Secret], nonces: Nonces<'a>) -> Vec<&'a [u8]> {
    let mut secrets = secrets.iter().map(Secret::bytes);
    let mut seed: Vec<_> = secrets.next().into_iter().collect();
    seed.extend([nonces.initiator, nonces.responder]);
    seed.extend(secrets);
    seed
}

keep_enum!(Role { 0 => Initiator, 1 => Responder });
keep!(Spis { initiator, responder });
keep!(Keys { suite, role, d, pi, pr });

#[cfg(test)]
mod tests;
