use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn no_frame_panics(bytes in proptest::collection::vec(any::<u8>(), 0..120), version in any::<bool>()) {
        let mut frame = bytes;
        if frame.len() >= 14 {
            frame[12..14].copy_from_slice(if version { &[8, 0] } else { &[0x86, 0xdd] });
        }
        classify(&frame);
    }
}
