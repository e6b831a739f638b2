//! HMAC-SHA2-256 (RFC 2104 §2, RFC 4868), which most peers of AES-CBC have, around the library's compression function:
//! what its type for MACs does for each packet besides takes as long as several blocks.

use sha2::block_api::compress256;
use zeroize::Zeroize;

/// An expanded key: the states behind the padded keys.
pub(super) struct HmacSha256 {
    inner: [u32; 8],
    outer: [u32; 8],
}

/// FIPS 180-4 §5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

impl HmacSha256 {
    /// `None` if the key has more octets than a block.
    pub(super) fn new(key: &[u8]) -> Option<HmacSha256> {
        let [inner, outer] = [0x36, 0x5c].map(|pad| {
            let (mut block, mut state) = ([pad; 64], INITIAL);
            block.iter_mut().zip(key).for_each(|(octet, key)| *octet ^= key);
            compress256(&mut state, &[block]);
            block.zeroize();
            state
        });
        (key.len() <= 64).then_some(HmacSha256 { inner, outer })
    }

    /// A MAC of nothing yet.
    #[inline]
    pub(super) fn begin(&self) -> Hash<'_> {
        Hash { state: self.inner, key: self }
    }

    /// Of data in pieces.
    pub(super) fn mac<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
        let (mut hash, mut block, mut used, mut len) = (self.begin(), [0; 64], 0, 0);
        for mut piece in pieces {
            len += piece.len();
            if used > 0 {
                let (octets, rest) = piece.split_at(piece.len().min(64 - used));
                block[used..used + octets.len()].copy_from_slice(octets);
                (used, piece) = (used + octets.len(), rest);
                if used < 64 {
                    continue;
                }
                hash.update(&[block]);
            }
            let (blocks, rest) = piece.as_chunks();
            hash.update(blocks);
            block[..rest.len()].copy_from_slice(rest);
            used = rest.len();
        }
        hash.finish(&Padded::of(&block[..used], &[], len))
    }
}

impl Drop for HmacSha256 {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

/// A MAC under way.
pub(super) struct Hash<'a> {
    state: [u32; 8],
    key: &'a HmacSha256,
}

impl Hash<'_> {
    #[inline]
    pub(super) fn update(&mut self, blocks: &[[u8; 64]]) {
        compress256(&mut self.state, blocks);
    }

    /// The MAC of all blocks, and of what is no whole one behind them.
    #[inline]
    pub(super) fn finish(mut self, end: &Padded) -> [u8; 32] {
        self.update(&end.blocks[..end.count]);
        let inner = octets(self.state);
        self.state = self.key.outer;
        self.update(&Padded::of(&inner, &[], inner.len()).blocks[..1]);
        octets(self.state)
    }
}

#[inline]
fn octets(state: [u32; 8]) -> [u8; 32] {
    let mut octets = [0; 32];
    octets.as_chunks_mut().0.iter_mut().zip(state).for_each(|(octets, word)| *octets = word.to_be_bytes());
    octets
}

/// What is no whole block at the end of what is hashed behind a padded key, itself padded (FIPS 180-4 §5.1.1).
pub(super) struct Padded {
    blocks: [[u8; 64]; 2],
    count: usize,
}

impl Padded {
    /// Of `octets` and of a few more behind.
    #[inline]
    pub(super) fn new(octets: &[u8], behind: &[u8]) -> Padded {
        Padded::of(octets.as_chunks::<64>().1, behind, octets.len() + behind.len())
    }

    /// Of less than a block, and of a few octets behind, `len` octets in all.
    #[inline]
    fn of(rest: &[u8], behind: &[u8], len: usize) -> Padded {
        let used = rest.len() + behind.len();
        let count = if used < 56 { 1 } else { 2 };
        let mut padded = Padded { blocks: [[0; 64]; 2], count };
        let octets = padded.blocks.as_flattened_mut();
        octets[..rest.len()].copy_from_slice(rest);
        octets[rest.len()..used].copy_from_slice(behind);
        octets[used] = 0x80;
        octets[64 * count - 8..64 * count].copy_from_slice(&(8 * (64 + len as u64)).to_be_bytes());
        padded
    }
}
