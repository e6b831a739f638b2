//! MS-CHAP version 2 (RFC 2759), and the keys that it gives (RFC 3079). Its primitives are broken: what it proves is worth
//! what the IKE SA around it is, whose responder has proven who it is by a signature.

use crate::crypto::Secret;
use des::{
    Des,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use md4::Md4;
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Octets of a challenge of either end.
pub const CHALLENGE: usize = 16;

/// Octets of what the user answers, and of what the authenticator does.
pub const RESPONSE: usize = 24;

/// The NT hash of a password, which is as good as the password (RFC 2759 §8.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NtHash(Secret);

impl NtHash {
    /// That of a password.
    pub fn of(password: &str) -> NtHash {
        // At its full size from the start, as a vector that grows leaves copies behind: no octet of UTF-8 becomes more than
        // two of UTF-16.
        let mut utf16 = Zeroizing::new(Vec::with_capacity(2 * password.len()));
        utf16.extend(password.encode_utf16().flat_map(u16::to_le_bytes));
        NtHash(md4(&utf16))
    }

    /// It by itself; `None` if these are not its 16 octets.
    pub fn from_octets(octets: &[u8]) -> Option<NtHash> {
        (octets.len() == 16).then(|| NtHash(Secret::copy_of(octets)))
    }

    fn hash(&self) -> Secret {
        md4(self.0.bytes())
    }
}

/// MD4 of what is secret, as it is itself.
fn md4(octets: &[u8]) -> Secret {
    let mut hash = Zeroizing::new([0; 16]);
    Md4::new_with_prefix(octets).finalize_into((&mut *hash).into());
    Secret::copy_of(&*hash)
}

/// The same of SHA-1.
fn sha1(parts: &[&[u8]]) -> Zeroizing<[u8; 20]> {
    let mut hash = Zeroizing::new([0; 20]);
    let sha1 = parts.iter().fold(Sha1::new(), |sha1, part| sha1.chain_update(part));
    sha1.finalize_into((&mut *hash).into());
    hash
}

/// What both ends have said.
#[derive(Clone, Debug)]
pub struct Said {
    /// What the authenticator has asked.
    pub challenge: [u8; CHALLENGE],
    /// What the user has asked.
    pub peer_challenge: [u8; CHALLENGE],
    /// The user's name, without that of its domain.
    pub name: Vec<u8>,
}

impl Said {
    /// RFC 2759 §8.2
    fn hash(&self) -> [u8; 8] {
        let hash = Sha1::new().chain_update(self.peer_challenge).chain_update(self.challenge);
        let hash = hash.chain_update(&self.name).finalize();
        *hash.first_chunk().expect("it is longer")
    }

    /// The user's answer (RFC 2759 §8.1).
    pub fn nt_response(&self, hash: &NtHash) -> [u8; RESPONSE] {
        let mut padded = Zeroizing::new([0; 21]);
        padded[..16].copy_from_slice(hash.0.bytes());
        let mut response = [0; RESPONSE];
        let (keys, blocks) = (padded.as_chunks::<7>().0, response.as_chunks_mut::<8>().0);
        for (key, block) in keys.iter().zip(blocks) {
            block.copy_from_slice(&self.hash());
            Des::new((&*with_parity(key)).into()).encrypt_block(block.into());
        }
        response
    }

    /// Whether this is the user's answer.
    pub fn is_response(&self, hash: &NtHash, response: &[u8; RESPONSE]) -> bool {
        self.nt_response(hash).ct_eq(response).into()
    }

    /// What the authenticator proves by that it knows the password (RFC 2759 §8.7): `S=` and 40 hexadecimal digits.
    pub fn authenticator_response(&self, hash: &NtHash, response: &[u8; RESPONSE]) -> String {
        let digest = Sha1::new().chain_update(hash.hash().bytes()).chain_update(response);
        let digest = digest.chain_update(b"Magic server to client signing constant").finalize();
        let last = Sha1::new().chain_update(digest).chain_update(self.hash());
        let last = last.chain_update(b"Pad to make it do more than one iteration").finalize();
        last.iter().fold("S=".to_owned(), |text, octet| format!("{text}{octet:02X}"))
    }
}

/// What DES takes: seven bits an octet, and one that does not count.
fn with_parity(key: &[u8; 7]) -> Zeroizing<[u8; 8]> {
    let bits = key.iter().fold(0u64, |bits, octet| bits << 8 | u64::from(*octet));
    Zeroizing::new(std::array::from_fn(|n| ((bits >> (49 - 7 * n)) as u8 & 0x7f) << 1))
}

/// RFC 3079 §3.4
const MASTER_KEY: &[u8] = b"This is the MPPE Master Key";
const FROM_USER: &[u8] =
    b"On the client side, this is the send key; on the server side, it is the receive key.";
const TO_USER: &[u8] =
    b"On the client side, this is the receive key; on the server side, it is the send key.";

/// The MSK: the authenticator's receiving key, its sending key, and nothing (draft-kamath-pppext-eap-mschapv2 §3.2).
pub fn msk(hash: &NtHash, response: &[u8; RESPONSE]) -> Secret {
    let master = sha1(&[hash.hash().bytes(), response, MASTER_KEY]);
    let start = |magic| sha1(&[&master[..16], &[0; 40], magic, &[0xf2; 40]]);
    Secret::concat(&[&start(FROM_USER)[..16], &start(TO_USER)[..16], &[0; 32]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors::hex;

    fn said() -> Said {
        Said {
            challenge: hex("5B5D7C7D7B3F2F3E3C2C602132262628").try_into().unwrap(),
            peer_challenge: hex("21402324255E262A28295F2B3A337C7E").try_into().unwrap(),
            name: b"User".to_vec(),
        }
    }

    // RFC 2759 §9.2
    #[test]
    fn it_is_that_of_the_rfc() {
        let hash = NtHash::of("clientPass");
        assert_eq!(hash, NtHash::from_octets(&hex("44EBBA8D5312B8D611474411F56989AE")).unwrap());
        assert_eq!(hash.hash().bytes(), hex("41C00C584BD2D91C4017A2A12FA59F3F"));
        assert_eq!(said().hash()[..], hex("D02E4386BCE91226"));
        let response = said().nt_response(&hash);
        assert_eq!(response[..], hex("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF"));
        assert!(said().is_response(&hash, &response));
        let told = said().authenticator_response(&hash, &response);
        assert_eq!(told, "S=407A5589115FD0D6209F510FE9C04566932CDA56");
    }

    // RFC 2759 §9.3
    #[test]
    fn keys_of_des_have_a_bit_of_parity() {
        let keys = with_parity(hex("FC156AF7EDCD6C").first_chunk().unwrap());
        // The RFC's have odd parity, of which DES sees nothing.
        assert_eq!(keys.to_vec(), hex("FD0B5B5E7F6E34D9").iter().map(|o| o & 0xfe).collect::<Vec<_>>());
    }

    // RFC 3079 §3.5.3
    #[test]
    fn keys_are_those_of_the_rfc() {
        let response = hex("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF").try_into().unwrap();
        let msk = msk(&NtHash::of("clientPass"), &response);
        assert_eq!(
            msk.bytes()[16..32],
            hex("8B7CDC149B993A1BA118CB153F56DCCB"),
            "SendStartKey128 of a server"
        );
        assert_eq!((msk.bytes().len(), &msk.bytes()[32..]), (64, &[0; 32][..]));
    }

    #[test]
    fn each_bit_of_an_answer_counts() {
        let hash = NtHash::of("clientPass");
        let response = said().nt_response(&hash);
        for bit in 0..8 * RESPONSE {
            let mut other = response;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!said().is_response(&hash, &other));
        }
    }
}
