//! What a generated packet says of itself: its flow, its number in that, and when it was due.
//!
//! ```text
//!  clocks when it was due, 48 bits | check, 16 bits | flow, 32 bits | number in the flow, 32 bits
//! ```
//!
//! Sixteen octets, so that an IPv4 packet in UDP that fills a frame of 64 octets has room for them. The check is over all
//! the rest and the number of the run: other packets, and those of earlier runs, are not taken for this one's. It is no
//! authentication.

/// Octets of a stamp.
pub const STAMP: usize = 16;

/// Clocks are told as far as this.
const CLOCKS: u64 = (1 << 48) - 1;

/// A packet's stamp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Which flow.
    pub flow: u32,
    /// Which packet of it: the first is 0, and after 2^32 come the same numbers again.
    pub number: u32,
    /// When it was due, in clocks; the lower 48 bits of them.
    pub due: u64,
}

impl Stamp {
    /// As it is in packets of this run.
    #[inline]
    pub fn emit(self, run: u64) -> [u8; STAMP] {
        let packet = (self.flow as u64) << 32 | self.number as u64;
        let due = self.due & CLOCKS;
        let head = due << 16 | check(due, packet, run) as u64;
        ((head as u128) << 64 | packet as u128).to_be_bytes()
    }

    /// What a packet says, if it is one of this run.
    #[inline]
    pub fn parse(octets: &[u8; STAMP], run: u64) -> Option<Stamp> {
        let both = u128::from_be_bytes(*octets);
        let (head, packet) = ((both >> 64) as u64, both as u64);
        let due = head >> 16;
        let is_ours = head as u16 == check(due, packet, run);
        is_ours.then_some(Stamp { flow: (packet >> 32) as u32, number: packet as u32, due })
    }

    /// Clocks since it was due: none, if that is still to come.
    #[inline]
    pub fn age(&self, now: u64) -> u64 {
        let age = now.wrapping_sub(self.due) & CLOCKS;
        if age > CLOCKS / 2 { 0 } else { age }
    }
}

/// 16 bits of all, of which a change of any one bit changes some: neither factor has so many equal bits in a row.
#[inline]
fn check(due: u64, packet: u64, run: u64) -> u16 {
    let due = due.wrapping_add(run).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (due.wrapping_add(packet.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)) >> 48) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stamp_is_read_as_it_was_written(flow: u32, number: u32, due in 0..=CLOCKS, run: u64) {
            let stamp = Stamp { flow, number, due };
            prop_assert_eq!(Stamp::parse(&stamp.emit(run), run), Some(stamp));
        }

        #[test]
        fn one_with_a_bit_changed_is_no_stamp_of_this_packet(flow: u32, number: u32, due: u64, run: u64, bit in 0usize..128) {
            let mut octets = Stamp { flow, number, due }.emit(run);
            octets[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Stamp::parse(&octets, run), None);
        }

        #[test]
        fn age_goes_round_with_the_clocks(due: u64, age in 0..CLOCKS / 2) {
            let stamp = Stamp::parse(&Stamp { flow: 0, number: 0, due }.emit(1), 1).unwrap();
            prop_assert_eq!(stamp.age(due.wrapping_add(age)), age);
            prop_assert_eq!(stamp.age(due.wrapping_sub(1 + age)), 0);
        }
    }

    #[test]
    fn packets_of_other_runs_and_of_others_are_not_ours() {
        let stamp = Stamp { flow: 3, number: 7, due: 1 << 40 };
        let taken = (0..1 << 16).filter(|run| Stamp::parse(&stamp.emit(*run), 1 << 20).is_some()).count();
        assert!(taken < 16, "{taken} of 65536 other runs were taken for this one");
        assert_eq!(Stamp::parse(&[0; STAMP], 1), None);
        assert_eq!(Stamp::parse(&[0xff; STAMP], 1), None);
    }
}
