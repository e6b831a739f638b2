use super::*;

#[test]
fn lengths_of_keys_are_checked() {
    assert!(Aead::best().sa_key(Algorithm::AES_GCM_128, &[0; 19]).is_none());
    assert!(Aead::best().sa_key(Algorithm::AES_GCM_128, &[0; 36]).is_none());
    assert!(Aead::best().sa_key(Algorithm::AES_GCM_256, &[0; 20]).is_none());
    assert!(Aead::best().sa_key(Algorithm::AES_GCM_256, &[0; 36]).is_some());
}

fn job<'a>(key: &'a AeadKey, packet: &'a mut [u8]) -> Job<'a> {
    Job::new(key, [1; 8], aad(300, 1, true), 16, packet).unwrap()
}

/// A chunk's powers and the round keys each begin with a cache line.
#[test]
#[cfg(target_arch = "x86_64")]
fn keys_lie_on_lines() {
    for aead in Aead::ALL.into_iter().filter(|a| a.is_available()) {
        let key = aead.key(&[7; 16], [9; 4]).unwrap();
        let Expanded::Gcm(gcm) = &key.expanded else { continue };
        let at = |part: usize| (part - std::ptr::from_ref(&key).addr(), part % 64);
        let (powers, head) = (std::ptr::from_ref(gcm).addr(), std::ptr::from_ref(&gcm.head).addr());
        assert_eq!((at(powers), at(head), size_of::<AeadKey>()), ((48, 48), (320, 0), 576));
    }
}

/// Small enough for Miri, which sees whether pointers stay within what they were made from. It knows the instructions
/// of ours alone: RUSTFLAGS=-Ctarget-feature=+aes,+pclmulqdq,+avx2,+bmi2,+vaes,+vpclmulqdq \
/// cargo +nightly miri test -p portcullis-crypto --lib tests::some
#[test]
fn some_lengths_like_the_portable_one() {
    let portable = (!cfg!(miri)).then(|| Aead::Portable.key(&[7; 16], [9; 4]).unwrap());
    let kernels = [Aead::Avx512, Aead::Avx2, Aead::AesNi];
    for aead in kernels.into_iter().filter(|a| a.is_available()) {
        let key = aead.key(&[7; 16], [9; 4]).unwrap();
        for len in [0, 1, 16, 17, 100, 129, 300] {
            let plain = vec![3; HEAD + len + ICV];
            let mut packets = vec![plain.clone(); 3];
            let mut jobs = packets.iter_mut().map(|p| job(&key, p)).collect::<Vec<_>>();
            aead.seal(&mut jobs);
            drop(jobs);
            if let Some(portable) = &portable {
                let mut expected = plain.clone();
                Aead::Portable.seal(&mut [job(portable, &mut expected)]);
                assert!(packets.iter().all(|p| *p == expected), "{aead}: {len}");
            }
            let mut verified = ArrayVec::<_, 3>::new();
            packets[1][HEAD + len] ^= 1;
            let mut jobs = packets.iter_mut().map(|p| job(&key, p)).collect::<Vec<_>>();
            aead.open(&mut jobs, &mut verified);
            drop(jobs);
            assert_eq!([0, 1, 2].map(|n| verified[n].is_some()), [true, false, true], "{aead}: {len}");
            assert_eq!(packets[0][..HEAD + len], plain[..HEAD + len], "{aead}: {len}");
        }
    }
}

/// The kernels are asked for what is none of theirs, as they would be on a CPU that cannot do it.
#[test]
#[cfg(target_arch = "x86_64")]
fn what_cannot_run_leaves_nothing_readable() {
    let Some(key) = Aead::AesNi.key(&[7; 16], [9; 4]) else { return };
    let mut packets = [[3; HEAD + 40 + ICV]; 2];
    let [a, b] = &mut packets;
    gcm::seal(Aead::Portable, &mut [job(&key, a), job(&key, b)]);
    assert!(packets.iter().all(|p| p[HEAD..HEAD + 40] == [0; 40]));
    let mut good = [false; BATCH];
    let [a, b] = &mut packets;
    gcm::open(Aead::Portable, &mut [job(&key, a), job(&key, b)], &mut good);
    assert_eq!(good, [false; BATCH]);
}
