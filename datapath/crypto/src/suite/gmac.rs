//! AES-GMAC: AES-GCM of no text, whose additional data is all that there is (RFC 4543).

use super::cipher::Aes;
use ghash::{Block, GHash, universal_hash::UniversalHash};
use zeroize::Zeroize;

/// An expanded key and its salt.
pub(super) struct Gmac {
    aes: Aes,
    hash: GHash,
    salt: [u8; 4],
}

impl Gmac {
    /// `None` if the lengths are none of its own.
    pub(super) fn new(key: &[u8], salt: &[u8]) -> Option<Gmac> {
        let aes: Aes = Aes::new(key)?;
        let mut h = Block::from(aes.encrypted([0; 16]));
        let hash = GHash::new(&h);
        h.zeroize();
        Some(Gmac { aes, hash, salt: salt.try_into().ok()? })
    }

    /// NIST SP 800-38D §7.1, of data in pieces.
    pub(super) fn icv<'a>(&self, iv: [u8; 8], pieces: impl Iterator<Item = &'a [u8]>) -> [u8; 16] {
        let mut hash = self.hash.clone();
        let (mut block, mut used, mut len) = (Block::default(), 0, 0u64);
        for mut piece in pieces {
            len += piece.len() as u64;
            if used > 0 {
                let (octets, rest) = piece.split_at(piece.len().min(block.len() - used));
                block[used..used + octets.len()].copy_from_slice(octets);
                (used, piece) = (used + octets.len(), rest);
                if used < block.len() {
                    continue;
                }
                hash.update(&[block]);
            }
            let (blocks, rest) = Block::slice_as_chunks(piece);
            hash.update(blocks);
            block[..rest.len()].copy_from_slice(rest);
            used = rest.len();
        }
        hash.update_padded(&block[..used]);
        hash.update(&[Block::from((u128::from(8 * len) << 64).to_be_bytes())]);

        let mut first = [0; 16];
        first[..4].copy_from_slice(&self.salt);
        first[4..12].copy_from_slice(&iv);
        first[15] = 1;
        let mask = u128::from_be_bytes(self.aes.encrypted(first));
        (u128::from_be_bytes(hash.finalize().into()) ^ mask).to_be_bytes()
    }
}

impl Drop for Gmac {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}
