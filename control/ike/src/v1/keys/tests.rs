use super::*;
use crate::{
    crypto::vectors,
    message::{
        ExchangeType, Header, IkeSpi, PayloadType,
        isakmp::{Chain, Payload},
    },
};
use portcullis_sadb as sadb;

/// The messages of a file, in their order: header, type of the first payload, and body.
fn message(octets: &[u8]) -> (Header, PayloadType, &[u8]) {
    Header::parse(octets).unwrap()
}

/// RFC 2409 §5, §5.5, §B, against what strongSwan has written to its log, as responder: by a shared key, and with PFS.
#[test]
fn keys_are_those_of_strongswan() {
    let all = vectors::records(include_str!("../vectors/strongswan.txt"));
    let fields = &all[0];
    let secret = |name| Secret::from(fields.octets(name));
    let messages: Vec<_> = (1..=9).map(|n| fields.octets(&format!("message_{n}"))).collect();
    let messages: Vec<_> = messages.iter().map(|octets| message(octets)).collect();
    let clear = |n: usize| Chain::parse(messages[n].1, messages[n].2, false).unwrap();
    let (mm1, mm3, mm4) = (clear(0), clear(2), clear(3));
    let header = messages[3].0;
    let spis = Spis { initiator: header.initiator_spi, responder: header.responder_spi };
    assert_ne!(spis.responder, IkeSpi::NONE);
    let (ni, nr) = (mm3.nonce().unwrap(), mm4.nonce().unwrap());
    let public = [mm3.key_exchange().unwrap(), mm4.key_exchange().unwrap()];
    let prf = Prf::HmacSha256;
    let made = Made {
        prf,
        encryption: Encryption::AesCbc256,
        secret: &secret("g^xy"),
        nonces: Nonces { initiator: ni, responder: nr },
        spis,
    };
    let keys = Keys::new(Some(&secret("psk")), &made);
    for (name, key) in
        [("skeyid", &keys.skeyid), ("skeyid_d", &keys.d), ("skeyid_a", &keys.a), ("ka", &keys.cipher)]
    {
        assert_eq!(key.bytes(), fields.octets(name), "{name}");
    }
    let iv = keys.first_iv(public);
    assert_eq!(iv.0.to_vec(), fields.octets("iv"));
    // HASH_I and HASH_R, in messages that go on in one chain of IVs.
    let sa = mm1.body(PayloadType::SA_V1, messages[0].2).unwrap();
    let exchanged = Exchanged { public, sa };
    let open = |n: usize, iv| {
        let (plain, next) = keys.decrypt(iv, messages[n].2).unwrap();
        (Chain::parse(messages[n].1, &plain, true).unwrap(), plain, next)
    };
    let (mm5, _, iv) = open(4, iv);
    let (mm6, _, last) = open(5, iv);
    for (who, chain, name) in [(Role::Initiator, &mm5, "hash_i"), (Role::Responder, &mm6, "hash_r")] {
        let id = chain.identification().unwrap();
        let proof = keys.proof(who, exchanged, spis, &id.body());
        assert_eq!(proof.bytes(), fields.octets(name));
        assert_eq!(chain.hash().unwrap(), proof.bytes());
    }
    // Quick mode: HASH(1) to HASH(3).
    let id = messages[6].0.message_id;
    assert!(
        (6..9).all(|n| (messages[n].0.message_id, messages[n].0.exchange) == (id, ExchangeType::QUICK_MODE))
    );
    let (qm1, plain1, iv) = open(6, keys.iv_of_exchange(last, id));
    let (qm2, plain2, iv) = open(7, iv);
    let (qm3, ..) = open(8, iv);
    let (ni, nr) = (qm1.nonce().unwrap(), qm2.nonce().unwrap());
    let hash = |chain: &Chain| match &chain.payloads[0] {
        Payload::Hash(hash) => Secret::copy_of(hash),
        other => panic!("{other:?}"),
    };
    assert_eq!(hash(&qm1), keys.hash(&[], id, &[qm1.behind_first(&plain1)]));
    assert_eq!(hash(&qm2), keys.hash(&[], id, &[ni, qm2.behind_first(&plain2)]));
    assert_eq!(hash(&qm3), keys.hash(&[0], id, &[ni, nr]));
    // KEYMAT, of AES-CBC-256 with HMAC-SHA2-256.
    let spi = |chain: &Chain| {
        let spi = &chain.security_association().unwrap().proposals[0].spi;
        u32::from_be_bytes(spi[..].try_into().unwrap())
    };
    let algorithm = sadb::Algorithm::all_for(sadb::Protocol::Esp)
        .find(|a| {
            (a.encryption(), a.integrity()) == (sadb::Encryption::AesCbc256, sadb::Integrity::HmacSha256)
        })
        .unwrap();
    let nonces = Nonces { initiator: ni, responder: nr };
    let made =
        keys.child((Protocol::ESP, algorithm), Some(&secret("qm_g^xy")), nonces, [spi(&qm1), spi(&qm2)]);
    for (key, of) in [(made.from_initiator, "i"), (made.from_responder, "r")] {
        let wanted = [fields.octets(&format!("encryption_{of}")), fields.octets(&format!("integrity_{of}"))];
        assert_eq!(key.bytes(), wanted.concat(), "{of}");
    }
}

// RFC 2409 §B
#[test]
fn keys_are_made_longer_where_they_are_too_short() {
    let prf = Prf::HmacSha1;
    let e = prf.mac(b"key", &[b"data"]);
    let k1 = prf.mac(e.bytes(), &[&[0]]);
    let k2 = prf.mac(e.bytes(), &[k1.bytes()]);
    let all = [k1.bytes(), k2.bytes()].concat();
    assert_eq!(longer(prf, e.clone(), 32).bytes(), &all[..32]);
    assert_eq!(longer(prf, e.clone(), 24).bytes(), &all[..24]);
    assert_eq!(longer(prf, e.clone(), 16).bytes(), &e.bytes()[..16]);
}

fn keys(encryption: Encryption) -> Keys {
    let spis = Spis { initiator: IkeSpi(1), responder: IkeSpi(2) };
    let (secret, prf) = (&Secret::copy_of(&[7; 256]), Prf::HmacSha1);
    let nonces = Nonces { initiator: &[1; 16], responder: &[2; 16] };
    Keys::new(Some(secret), &Made { prf, encryption, secret, nonces, spis })
}

// RFC 2409 §B
#[test]
fn less_than_a_block_is_behind_the_last_payload() {
    for (encryption, block) in [(Encryption::AesCbc128, 16), (Encryption::TripleDesCbc, 8)] {
        let is_padding = |octets: &[u8]| keys(encryption).is_padding(octets);
        assert!((0..block).all(|len| is_padding(&[7; 32][..len])));
        let whole = |last: usize| [&vec![0; block - 1][..], &[last as u8]].concat();
        // Where the payloads are of whole blocks, strongSwan has a block of zeros, and racoon one that says its length.
        assert!([0, block - 1, block].iter().all(|last| is_padding(&whole(*last))));
        assert!([1, block - 2, block + 1, 32].iter().all(|last| !is_padding(&whole(*last))));
        assert!(!is_padding(&[&[1][..], &vec![0; block - 1]].concat()));
        assert!(!is_padding(&vec![block as u8; block + 1]) && !is_padding(&vec![0; 2 * block]));
    }
}

// RFC 2409 §B: the last block is the next IV, of whatever cipher.
#[test]
fn what_is_encrypted_goes_on_in_one_chain() {
    for (encryption, block, key) in [(Encryption::AesCbc256, 16, 32), (Encryption::TripleDesCbc, 8, 24)] {
        let keys = keys(encryption);
        assert_eq!(keys.cipher.bytes().len(), key);
        let first = keys.first_iv([&[3; 256], &[4; 256]]);
        let (one, next) = keys.encrypt(first, &[5; 41]);
        let (two, last) = keys.encrypt(next, &[5; 48]);
        assert_eq!((one.len(), two.len()), (48, 48));
        assert_eq!((keys.block(&next), keys.block(&last)), (&one[48 - block..], &two[48 - block..]));
        assert_eq!(next.0[block..], [0; LONGEST_BLOCK][block..]);
        assert_eq!(keys.decrypt(first, &one), Some(([&[5; 41][..], &[0; 7]].concat(), next)));
        assert_eq!(keys.decrypt(next, &two), Some((vec![5; 48], last)));
        assert_eq!(keys.decrypt(next, &two[1..]), None);
        assert_eq!(keys.decrypt(next, &[]), None);
        // They are one after the other of the same stream.
        assert_eq!(keys.encrypt(first, &[&[5; 41][..], &[0; 7], &[5; 48]].concat()).0, [one, two].concat());
        assert_ne!(keys.iv_of_exchange(last, 1), keys.iv_of_exchange(last, 2));
    }
}
