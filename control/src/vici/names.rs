//! Names of transforms as VICI's clients know them: those of strongSwan's logs and lists.

use portcullis_ike::{crypto::transform, message::TransformType};
use portcullis_sadb as sadb;

/// Type 1.
const ENCRYPTION: &[(u16, &str)] = &[
    (3, "3DES_CBC"),
    (11, "NULL"),
    (12, "AES_CBC"),
    (13, "AES_CTR"),
    (14, "AES_CCM_8"),
    (15, "AES_CCM_12"),
    (16, "AES_CCM_16"),
    (18, "AES_GCM_8"),
    (19, "AES_GCM_12"),
    (20, "AES_GCM_16"),
    (21, "NULL_AES_GMAC"),
    (23, "CAMELLIA_CBC"),
    (28, "CHACHA20_POLY1305"),
    (29, "AES_CCM_8_IIV"),
    (30, "AES_GCM_16_IIV"),
    (31, "CHACHA20_POLY1305_IIV"),
];

/// Type 2.
const PRF: &[(u16, &str)] =
    &[(2, "PRF_HMAC_SHA1"), (5, "PRF_HMAC_SHA2_256"), (6, "PRF_HMAC_SHA2_384"), (7, "PRF_HMAC_SHA2_512")];

/// Type 3.
const INTEGRITY: &[(u16, &str)] = &[
    (2, "HMAC_SHA1_96"),
    (5, "AES_XCBC_96"),
    (8, "AES_CMAC_96"),
    (9, "AES_128_GMAC"),
    (10, "AES_192_GMAC"),
    (11, "AES_256_GMAC"),
    (12, "HMAC_SHA2_256_128"),
    (13, "HMAC_SHA2_384_192"),
    (14, "HMAC_SHA2_512_256"),
];

/// Type 4, and 6 to 12.
const KEY_EXCHANGE: &[(u16, &str)] = &[
    (14, "MODP_2048"),
    (15, "MODP_3072"),
    (16, "MODP_4096"),
    (19, "ECP_256"),
    (20, "ECP_384"),
    (21, "ECP_521"),
    (31, "CURVE_25519"),
    (32, "CURVE_448"),
    (35, "ML_KEM_512"),
    (36, "ML_KEM_768"),
    (37, "ML_KEM_1024"),
];

/// The name of a transform, or its number.
pub fn transform(kind: TransformType, id: u16) -> String {
    let names = match kind {
        TransformType::ENCR => ENCRYPTION,
        TransformType::PRF => PRF,
        TransformType::INTEG => INTEGRITY,
        _ => KEY_EXCHANGE,
    };
    names.iter().find(|(of, _)| *of == id).map_or_else(|| id.to_string(), |(_, name)| (*name).to_owned())
}

/// All that there is for IKE, ESP and AH: what `get-algorithms` tells, by the names of its sections.
pub fn all() -> Vec<(&'static str, Vec<String>)> {
    let sorted = |kind, ids: Vec<u16>| {
        let mut ids: Vec<u16> = ids.into_iter().filter(|id| *id != 0).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(|id| transform(kind, id)).collect::<Vec<_>>()
    };
    let encryption = |is_aead: bool| {
        let rows = sadb::Encryption::ALL.iter().map(|e| e.transform());
        rows.filter(|row| (row.icv > 0) == is_aead).map(|row| row.id).collect()
    };
    let integrity = sadb::Integrity::ALL.iter().map(|i| i.transform().id).collect();
    vec![
        ("encryption", sorted(TransformType::ENCR, encryption(false))),
        ("integrity", sorted(TransformType::INTEG, integrity)),
        ("aead", sorted(TransformType::ENCR, encryption(true))),
        ("prf", sorted(TransformType::PRF, transform::Prf::ALL.iter().map(|t| t.id()).collect())),
        ("ke", sorted(TransformType::KE, transform::KeyExchange::ALL.iter().map(|t| t.id()).collect())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_there_is_has_a_name() {
        for (section, names) in all() {
            assert!(!names.is_empty(), "{section}");
            for name in names {
                assert!(name.parse::<u16>().is_err(), "{section}: {name}");
            }
        }
    }
}
