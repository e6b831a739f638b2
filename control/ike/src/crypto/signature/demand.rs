//! What is demanded of keys and signatures, beyond that they are right.

use super::{Hash, PublicKey, Scheme, key::Kind};

/// A kind of keys, and what signatures by them are like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    /// The kind; any, if there is none.
    pub kind: Option<Kind>,
    /// RSASSA-PSS alone.
    pub is_pss: bool,
    /// Bits of the key, at least: of the modulus, or of the curve's field.
    pub least_bits: usize,
    /// Hashes that may be signed; any, if there are none. Of those that sign without one nothing is demanded.
    pub hashes: Vec<Hash>,
}

impl Demand {
    fn takes_key(&self, key: &PublicKey) -> bool {
        self.kind.is_none_or(|kind| kind == key.kind()) && key.bits() >= self.least_bits
    }

    fn takes(&self, key: &PublicKey, scheme: Scheme) -> bool {
        let has_form = !self.is_pss || matches!(scheme, Scheme::RsaPss(_));
        let has_hash = self.hashes.is_empty() || scheme.hash().is_none_or(|hash| self.hashes.contains(&hash));
        // SHA-1 is never what is named.
        let is_sha1 = scheme == Scheme::RsaSha1 && !self.hashes.is_empty();
        self.takes_key(key) && has_form && has_hash && !is_sha1
    }
}

/// Demands, one of which is to be met; nothing is demanded if there are none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Demands(pub Vec<Demand>);

impl Demands {
    /// Whether a key may be in use.
    pub fn take_key(&self, key: &PublicKey) -> bool {
        self.0.is_empty() || self.0.iter().any(|demand| demand.takes_key(key))
    }

    /// Whether a key may sign so.
    pub fn take(&self, key: &PublicKey, scheme: Scheme) -> bool {
        self.rank(key, scheme).is_some()
    }

    /// How much a signature is wanted: what stands first has the lowest, of demands and then of hashes. Nothing if it is
    /// not taken.
    pub fn rank(&self, key: &PublicKey, scheme: Scheme) -> Option<(usize, usize)> {
        if self.0.is_empty() {
            return Some((0, 0));
        }
        let at = self.0.iter().position(|demand| demand.takes(key, scheme))?;
        let hash = self.0[at].hashes.iter().position(|hash| scheme.hash() == Some(*hash));
        Some((at, hash.unwrap_or_default()))
    }
}
