//! AES-CBC (RFC 3602), alone or in one pass with HMAC-SHA2-256.
//!
//! Both are chains: each block waits for the one before, and most of the CPU idles. So each is given something that does
//! not wait for it: hashing follows encryption 64 octets behind, and decryption follows hashing. That is all: the CPU runs
//! both at once, since each fits into what it looks ahead. It is done inside the closure that the library runs where AES
//! is inlined.
//!
//! # Dangers
//! - IVs must not be predictable (RFC 3602 §3), or whoever can choose texts learns whether he has guessed that of an
//!   earlier packet. So an IV is the packet's number, encrypted: the first way of NIST SP 800-38A, appendix C. That is not
//!   proven for the key of the texts (Rogaway, "Nonce-Based Symmetric Encryption", 2004, CBC1), where a block of a text
//!   might be encrypted as a number is. A secret mask over the number, made of that key, keeps them apart (XE: Rogaway,
//!   "Efficient Instantiations of Tweakable Blockciphers and Refinements to Modes OCB and PMAC", 2004). Numbers are not
//!   used twice, so IVs are neither, and no randomness is needed that might fail.
//! - In one pass, octets are decrypted before the ICV is known. Nobody sees them: they are wiped where it is wrong.

use super::{
    super::IcvVerified,
    ESP,
    cipher::{Aes, AesDec, with_aes},
    hmac::{HmacSha256, Padded},
    spi, verified,
};
use aes::{
    Block,
    cipher::{
        BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
        BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, consts::U16,
    },
};
use zeroize::Zeroize;

/// Octets of a block, and of an IV.
const BLOCK: usize = 16;

/// Where texts begin.
const TEXT: usize = ESP + BLOCK;

/// What a hash takes at once.
type Hashed = [u8; 64];

/// An expanded key.
pub(super) struct Cbc {
    encrypt: Aes,
    decrypt: AesDec,
    /// Of the numbers that IVs are made of.
    mask: [u8; BLOCK],
}

/// What the mask is made of.
const MASK: [u8; BLOCK] = *b"AES-CBC IVs mask";

impl Cbc {
    /// `None` if it has not 16, 24 or 32 octets.
    pub(super) fn new(key: &[u8]) -> Option<Cbc> {
        let encrypt = Aes::new(key)?;
        let mask = encrypt.encrypted(MASK);
        Some(Cbc { encrypt, decrypt: Aes::new(key)?, mask })
    }

    /// Writes the IV, and encrypts what is behind it. `esp` begins with SPI and sequence number, and ends with the text,
    /// which is whole blocks.
    pub(super) fn encrypt(&self, esp: &mut [u8], seq: u64) {
        self.encrypt_before(esp, seq, |_| {});
    }

    /// Decrypts what is behind the IV.
    pub(super) fn decrypt(&self, esp: &mut [u8], _proof: IcvVerified) {
        self.decrypt_behind(esp, |_| {});
    }

    /// Encrypts, and writes the ICV of that and of what is not sent of the number.
    pub(super) fn seal(&self, mac: &HmacSha256, esp: &mut [u8], seq: u64, behind: &[u8], icv: &mut [u8]) {
        let mut hash = mac.begin();
        self.encrypt_before(esp, seq, |blocks| hash.update(blocks));
        let whole = hash.finish(&Padded::new(esp, behind));
        icv.copy_from_slice(&whole[..icv.len()]);
    }

    /// Decrypts and verifies at once; nothing goes on before it is verified (RFC 4303 §3.4.4.1), and nothing readable is
    /// left of what does not verify.
    pub(super) fn open(
        &self,
        mac: &HmacSha256,
        esp: &mut [u8],
        behind: &[u8],
        icv: &[u8],
    ) -> Option<IcvVerified> {
        let (mut hash, end) = (mac.begin(), Padded::new(esp, behind));
        self.decrypt_behind(esp, |blocks| hash.update(blocks));
        let proof = verified(icv, &hash.finish(&end)[..icv.len()]);
        if proof.is_none() {
            esp[TEXT..].fill(0);
        }
        proof
    }

    /// Encrypts ahead of `sealed`, which is given all of `esp` that is a whole block to it, in order.
    fn encrypt_before(&self, esp: &mut [u8], seq: u64, sealed: impl FnMut(&[Hashed])) {
        // SPIs differ where somebody gave one key to both directions.
        let number = u128::from(spi(esp)) << 96 | u128::from(seq);
        let number = (number ^ u128::from_be_bytes(self.mask)).to_be_bytes();
        with_aes!(&self.encrypt, aes => aes.encrypt_with_backend(Encryption { esp, number, sealed }));
    }

    /// Decrypts behind `ahead`, which is given all of `esp` that is a whole block to it, in order, as it was. What is no
    /// whole block is for the caller to read before.
    fn decrypt_behind(&self, esp: &mut [u8], mut ahead: impl FnMut(&[Hashed])) {
        // The first in front of the closure, which is entered and loads its keys meanwhile.
        let read = usize::from(esp.len() >= size_of::<Hashed>());
        ahead(&esp.as_chunks().0[..read]);
        with_aes!(&self.decrypt, aes => aes.decrypt_with_backend(Decryption { esp, read, ahead }));
    }
}

impl Drop for Cbc {
    fn drop(&mut self) {
        self.mask.zeroize();
    }
}

struct Encryption<'a, F> {
    esp: &'a mut [u8],
    number: [u8; BLOCK],
    sealed: F,
}

impl<F> BlockSizeUser for Encryption<'_, F> {
    type BlockSize = U16;
}

impl<F: FnMut(&[Hashed])> BlockCipherEncClosure for Encryption<'_, F> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let Encryption { esp, number, mut sealed } = self;
        let mut block = Block::from(number);
        backend.encrypt_block_inplace(&mut block);
        esp[ESP..TEXT].copy_from_slice(&block);
        let (mut at, mut given) = (TEXT, 0);
        while at < esp.len() {
            let end = esp.len().min(at + size_of::<Hashed>());
            for text in Block::slice_as_chunks_mut(&mut esp[at..end]).0 {
                xor(&mut block, text);
                backend.encrypt_block_inplace(&mut block);
                *text = block;
            }
            // A turn behind, so that it does not wait.
            if at > TEXT {
                sealed(&esp.as_chunks().0[given..=given]);
                given += 1;
            }
            at = end;
        }
        sealed(&esp.as_chunks().0[given..]);
    }
}

struct Decryption<'a, F> {
    esp: &'a mut [u8],
    /// How many blocks `ahead` has been given.
    read: usize,
    ahead: F,
}

impl<F> BlockSizeUser for Decryption<'_, F> {
    type BlockSize = U16;
}

impl<F: FnMut(&[Hashed])> BlockCipherDecClosure for Decryption<'_, F> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = U16>>(self, backend: &B) {
        let Decryption { esp, mut read, mut ahead } = self;
        let whole = esp.len() / size_of::<Hashed>();
        let (mut at, mut before) = (TEXT, Block::slice_as_chunks(&esp[ESP..]).0[0]);
        loop {
            let end = match read == whole {
                true => esp.len(),
                false => TEXT + (read * size_of::<Hashed>() - TEXT) / BLOCK * BLOCK,
            };
            for text in Block::slice_as_chunks_mut(&mut esp[at..end]).0 {
                let (sealed, mut block) = (*text, *text);
                backend.decrypt_block_inplace(&mut block);
                xor(&mut block, &before);
                (before, *text) = (sealed, block);
            }
            if read == whole {
                break;
            }
            let to = whole.min(read + 2);
            ahead(&esp.as_chunks().0[read..to]);
            (at, read) = (end, to);
        }
    }
}

#[inline(always)]
fn xor(block: &mut Block, with: &Block) {
    block.iter_mut().zip(with).for_each(|(a, b)| *a ^= b);
}
