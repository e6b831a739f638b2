use super::*;

fn hex(s: &str) -> Vec<u8> {
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

/// The GCM specification's test case 4, whose IV is taken apart into salt and IV (RFC 4106 §4).
#[test]
fn a_published_vector_with_a_12_octet_iv() {
    let mut material = hex("feffe9928665731c6d6a8f9467308308");
    material.extend(hex("cafebabe"));
    let key = AeadKey::new(Algorithm::AesGcm128, &material).unwrap();
    let plain = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    );
    let mut text = plain.clone();
    text.extend([0; ICV]);
    let iv: [u8; 8] = hex("facedbaddecaf888").try_into().unwrap();
    // The vector's additional data has 20 octets; ESP's has 8 or 12, so only the text is compared.
    seal(&mut [Job { key: &key, iv, aad: aad(0xfeed_face, 0xdead_beef, false), text: &mut text }]);
    assert_eq!(
        text[..plain.len()],
        hex(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
        )
    );
    let mut verified = ArrayVec::<_, 4>::new();
    open(
        &mut [Job { key: &key, iv, aad: aad(0xfeed_face, 0xdead_beef, false), text: &mut text }],
        &mut verified,
    );
    assert!(verified[0].is_some());
    assert_eq!(text[..plain.len()], plain);
}

#[test]
fn what_does_not_verify_is_not_left_readable() {
    let key = AeadKey::new(Algorithm::AesGcm256, &[7; 36]).unwrap();
    let sealed = {
        let mut text = b"attack at dawn..................".to_vec();
        seal(&mut [Job { key: &key, iv: [1; 8], aad: aad(300, 1, true), text: &mut text }]);
        text
    };
    for bit in 0..sealed.len() * 8 {
        let mut text = sealed.clone();
        text[bit / 8] ^= 1 << (bit % 8);
        let mut verified = ArrayVec::<_, 4>::new();
        open(&mut [Job { key: &key, iv: [1; 8], aad: aad(300, 1, true), text: &mut text }], &mut verified);
        assert!(verified[0].is_none(), "bit {bit}");
        assert_eq!(text[..sealed.len() - ICV], vec![0; sealed.len() - ICV], "bit {bit}");
    }
}

#[test]
fn lengths_of_keys_are_checked() {
    assert!(AeadKey::new(Algorithm::AesGcm128, &[0; 19]).is_none());
    assert!(AeadKey::new(Algorithm::AesGcm128, &[0; 36]).is_none());
    assert!(AeadKey::new(Algorithm::AesGcm256, &[0; 20]).is_none());
}
