//! Chains of certificates, from an end's to an authority that is trusted (RFC 5280 §6).
//!
//! ```text
//!  end ◀── signed by ── intermediate ◀── ... ◀── anchor
//! ```
//!
//! An issuer is anybody who has its name: all are tried, until one has a chain in which all is right. Of anchors all is
//! demanded too, but for their own signature.

use super::{
    BadCertificate, Wrong,
    certificate::Certificate,
    constraint,
    revocation::{Revocation, Said},
};
use crate::{
    crypto::signature::{PublicKey, demand::Demands},
    identity::IdPattern,
};
use const_oid::ObjectIdentifier;

/// Certificates of a chain, at most, with the anchor.
pub(super) const MOST: usize = 8;

/// Signatures that are verified in search of one, at most.
const MOST_SIGNATURES: usize = 32;

/// Who is believed.
#[derive(Clone, Default, Debug)]
pub struct Trust {
    /// Authorities.
    pub anchors: Vec<Certificate>,
    /// Ends: where there are some, nobody else is believed. They need no authority, unless there are anchors, or one that must be
    /// above all.
    pub pinned: Vec<Certificate>,
    /// Keys that need no certificate: whoever has one is whoever is asked for (RFC 7670).
    pub keys: Vec<PublicKey>,
    /// Who must be among the authorities of a chain.
    pub authority: Option<IdPattern>,
    /// Policies that all of a chain must have but its anchor (RFC 5280 §4.2.1.4), and what is pinned by itself.
    pub policies: Vec<ObjectIdentifier>,
    /// Authorities that peers might leave out, and whom others must have signed.
    pub intermediates: Vec<Certificate>,
    /// What authorities say of what they have issued.
    pub said: Vec<Said>,
    /// What must be known of that.
    pub revocation: Revocation,
    /// What keys and signatures of certificates must be like.
    pub demands: Demands,
    /// What signatures in IKE must be like.
    pub ike_demands: Demands,
}

impl Trust {
    /// What CERTREQ says: the hashes of the keys of the anchors, one behind the other (RFC 7296 §3.7).
    pub fn authorities(&self) -> Vec<u8> {
        self.anchors.iter().flat_map(|anchor| *anchor.key_hash()).collect()
    }

    /// Whether an end's certificate is to be believed at this second of Unix time, with what is shown along with it.
    ///
    /// # Errors
    /// What is wrong with which certificate: of the chain that came farthest.
    pub fn verify(&self, end: &Certificate, shown: &Shown, now_secs: u64) -> Result<(), BadCertificate> {
        end.check(now_secs)?;
        end.check_end()?;
        self.check_key(end)?;
        if !self.pinned.is_empty() && !self.pinned.contains(end) {
            return Err(Wrong::NotPinned.of(end));
        }
        if !self.pinned.is_empty() && self.anchors.is_empty() && self.authority.is_none() {
            let missing = self.policies.iter().find(|policy| !end.has_policy(**policy, false));
            return missing.map_or(Ok(()), |policy| Err(Wrong::Policy(*policy).of(end)));
        }
        let mut search =
            Search { trust: self, shown, now_secs, left: MOST_SIGNATURES, path: vec![end], best: None };
        match search.climb() {
            true => Ok(()),
            false => Err(search.best.map_or_else(|| Wrong::TooLong.of(end), |(_, wrong)| wrong)),
        }
    }

    fn check_key(&self, certificate: &Certificate) -> Result<(), BadCertificate> {
        match self.demands.take_key(certificate.key()) {
            true => Ok(()),
            false => Err(Wrong::WeakKey(certificate.key().bits()).of(certificate)),
        }
    }
}

/// What somebody shows along with its certificate. Nothing of it needs to be believed.
#[derive(Clone, Default, Debug)]
pub struct Shown {
    /// Certificates that might be between it and an anchor.
    pub certificates: Vec<Certificate>,
    /// What authorities say of them.
    pub said: Vec<Said>,
}

/// A search under way.
struct Search<'a> {
    trust: &'a Trust,
    shown: &'a Shown,
    now_secs: u64,
    /// Signatures that may still be verified.
    left: usize,
    /// From the end up.
    path: Vec<&'a Certificate>,
    /// What was wrong after so many certificates, the most.
    best: Option<(usize, BadCertificate)>,
}

impl<'a> Search<'a> {
    /// Whether there is a chain from the last of the path on.
    fn climb(&mut self) -> bool {
        let Some(&below) = self.path.last() else { return false };
        let trust = self.trust;
        let anchors = trust.anchors.iter().map(|c| (c, true));
        let others = self.shown.certificates.iter().chain(&trust.intermediates).map(|c| (c, false));
        let mut is_known = false;
        for (issuer, is_anchor) in anchors.chain(others) {
            if !below.may_be_of(issuer) || self.path.contains(&issuer) {
                continue;
            }
            is_known = true;
            if let Err(wrong) = self.step(below, issuer) {
                self.note(wrong);
                continue;
            }
            self.path.push(issuer);
            let is_good = match is_anchor {
                true => self.complete().map_err(|wrong| self.note(wrong)).is_ok(),
                false => self.climb(),
            };
            if is_good {
                return true;
            }
            self.path.pop();
        }
        if !is_known {
            self.note(Wrong::NoIssuer(below.issuer().to_string()).of(below));
        }
        false
    }

    /// Whether an authority may have issued the last of the path, and has.
    fn step(&mut self, below: &Certificate, issuer: &Certificate) -> Result<(), BadCertificate> {
        if self.path.len() == MOST || self.left == 0 {
            return Err(Wrong::TooLong.of(self.path[0]));
        }
        issuer.check(self.now_secs)?;
        // RFC 5280 §6.1.4 l: those of authorities for themselves do not count.
        let authorities = self.path[1..].iter().filter(|c| !c.is_self_issued());
        issuer.check_authority(authorities.count())?;
        if let Some(constraints) = issuer.constraints() {
            // RFC 5280 §6.1.3 b
            let mut constrained =
                self.path.iter().enumerate().filter(|(n, c)| *n == 0 || !c.is_self_issued());
            constrained.try_for_each(|(_, below)| constraint::check(constraints, below))?;
        }
        self.trust.check_key(issuer)?;
        if !below.scheme().is_some_and(|scheme| self.trust.demands.take(issuer.key(), scheme)) {
            return Err(Wrong::WeakSignature.of(below));
        }
        self.left -= 1;
        below.verify(issuer)
    }

    /// Whether a chain up to an anchor is one that is asked for.
    fn complete(&self) -> Result<(), BadCertificate> {
        self.revocation()?;
        let (end, authorities) = (self.path[0], &self.path[1..]);
        if let Some(wanted) = &self.trust.authority
            && !authorities.iter().any(|authority| authority.is_like(wanted))
        {
            return Err(Wrong::Authority(wanted.to_string()).of(end));
        }
        let below = &self.path[..self.path.len() - 1];
        // RFC 5280 §4.2.1.14: whom it would still count for is not looked at.
        let counts_any = below.iter().all(|certificate| !certificate.inhibits_any_policy());
        let has =
            |n: usize, certificate: &Certificate, policy| certificate.has_policy(policy, counts_any && n > 0);
        for policy in &self.trust.policies {
            if let Some((_, without)) = below.iter().enumerate().find(|(n, c)| !has(*n, c, *policy)) {
                return Err(Wrong::Policy(*policy).of(without));
            }
        }
        Ok(())
    }

    fn revocation(&self) -> Result<(), BadCertificate> {
        let said = || self.trust.said.iter().chain(&self.shown.said);
        let mut pairs = self.path.windows(2);
        pairs.try_for_each(|pair| self.trust.revocation.check(pair[0], pair[1], said(), self.now_secs))
    }

    fn note(&mut self, wrong: BadCertificate) {
        if self.best.as_ref().is_none_or(|(before, _)| *before < self.path.len()) {
            self.best = Some((self.path.len(), wrong));
        }
    }
}
