//! Proof for tests that an ICV was verified, as all proof is made: by opening a packet.

use crate::crypto::{self, Aead, HEAD, ICV, IcvVerified, Job};
use arrayvec::ArrayVec;

pub(crate) fn verified() -> IcvVerified {
    let key = Aead::Portable.key(&[1; 16], [2; 4]).expect("a key of 16 octets");
    let mut packet = [0; HEAD + ICV];
    let aad = crypto::aad(4, 5, true);
    Aead::Portable.seal(&mut [Job::new(&key, [3; 8], aad, ICV as u8, &mut packet).expect("a packet")]);
    let mut proofs = ArrayVec::<_, 1>::new();
    let sealed = Job::new(&key, [3; 8], aad, ICV as u8, &mut packet).expect("a packet");
    Aead::Portable.open(&mut [sealed], &mut proofs);
    proofs[0].expect("what was just sealed")
}
