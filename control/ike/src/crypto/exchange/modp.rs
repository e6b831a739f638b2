//! Diffie-Hellman modulo the primes of RFC 3526.

use super::Secret;
use crypto_bigint::{
    Odd, U512, U2048, U3072, U4096, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};
use std::sync::LazyLock;
use zeroize::Zeroize;

/// A group: a safe prime, with the generator 2.
pub struct Group<const LIMBS: usize> {
    prime: LazyLock<FixedMontyParams<LIMBS>>,
    /// Octets of a private exponent. Exponents have as many bits as the larger of RFC 3526 §8's estimates of strength
    /// asks for: all of a prime's would be slow and no stronger.
    pub exponent_len: usize,
}

/// The longest exponent.
type Exponent = U512;

/// 2048 bits (RFC 3526 §3).
pub static GROUP_14: Group<{ U2048::LIMBS }> =
    Group { prime: LazyLock::new(|| params(&PRIME_2048)), exponent_len: 320 / 8 };

/// 3072 bits (RFC 3526 §4).
pub static GROUP_15: Group<{ U3072::LIMBS }> =
    Group { prime: LazyLock::new(|| params(&PRIME_3072)), exponent_len: 448 / 8 };

/// 4096 bits (RFC 3526 §5).
pub static GROUP_16: Group<{ U4096::LIMBS }> =
    Group { prime: LazyLock::new(|| params(&PRIME_4096)), exponent_len: 512 / 8 };

fn params<const LIMBS: usize>(prime: &Uint<LIMBS>) -> FixedMontyParams<LIMBS> {
    FixedMontyParams::new_vartime(Odd::new(*prime).expect("the primes are odd"))
}

impl<const LIMBS: usize> Group<LIMBS> {
    /// 2 to the power of the private exponent.
    pub fn public_value(&self, private: &Secret) -> Vec<u8> {
        self.power(&Uint::from(2u8), private)
    }

    /// Their value to the power of the private exponent, with all its leading zeros (RFC 7296 §2.14); none if it is no
    /// public value.
    pub fn secret(&self, private: &Secret, theirs: &[u8]) -> Option<Secret> {
        // RFC 6989 §2.1: more than 1 and less than p - 1. What is between is of large order, since p is a safe prime.
        let theirs = Uint::from_be_slice(theirs);
        let highest = self.prime.modulus().as_ref().wrapping_sub(&Uint::from(2u8));
        let is_inside = theirs > Uint::ONE && theirs <= highest;
        is_inside.then(|| self.power(&theirs, private).into())
    }

    /// In a time that depends on the exponent's length only.
    fn power(&self, base: &Uint<LIMBS>, private: &Secret) -> Vec<u8> {
        let mut octets = [0; Exponent::BYTES];
        let (_, low) = octets.split_at_mut(Exponent::BYTES - private.bytes().len());
        low.copy_from_slice(private.bytes());
        let mut exponent = Exponent::from_be_slice(&octets);
        octets.zeroize();
        let bits = 8 * private.bytes().len() as u32;
        let mut power = FixedMontyForm::new(base, &self.prime).pow_bounded_exp(&exponent, bits);
        exponent.zeroize();
        let mut value = power.retrieve();
        power.zeroize();
        let mut octets = value.to_be_bytes();
        value.zeroize();
        let copy = octets.as_ref().to_vec();
        octets.as_mut().zeroize();
        copy
    }
}

/// The octets of a group's prime.
#[cfg(test)]
pub fn prime_of<const LIMBS: usize>(group: &Group<LIMBS>) -> Vec<u8> {
    group.prime.modulus().as_ref().to_be_bytes().as_ref().to_vec()
}

const PRIME_2048: U2048 = U2048::from_be_hex(
    "\
        FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
        514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
        F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
        C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
        9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
        9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
        15728E5A8AACAA68FFFFFFFFFFFFFFFF",
);

const PRIME_3072: U3072 = U3072::from_be_hex(
    "\
        FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
        514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
        F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
        C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
        9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
        9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
        15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
        B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
        D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
        43DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
);

const PRIME_4096: U4096 = U4096::from_be_hex(
    "\
        FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22\
        514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6\
        F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3D\
        C2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB\
        9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E8603\
        9B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510\
        15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D\
        B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864\
        D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB31\
        43DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D788719A10BDBA5B2699C327186AF4E23C\
        1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D\
        99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9\
        93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
);
