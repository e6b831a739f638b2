use super::*;

#[test]
fn lengths_of_keys_are_checked() {
    assert!(Aead::best().sa_key(Algorithm::AesGcm128, &[0; 19]).is_none());
    assert!(Aead::best().sa_key(Algorithm::AesGcm128, &[0; 36]).is_none());
    assert!(Aead::best().sa_key(Algorithm::AesGcm256, &[0; 20]).is_none());
    assert!(Aead::best().sa_key(Algorithm::AesGcm256, &[0; 36]).is_some());
}
