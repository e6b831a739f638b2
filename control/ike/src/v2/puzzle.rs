//! Puzzles (RFC 8019 §7): what an initiator must work for, where cookies are not enough. The responder verifies a solution by
//! four MACs, and remembers nothing.
//!
//! ```text
//!  initiator                                    responder
//!  SAi1, KEi, Ni                         ──▶
//!                                        ◀──    N(COOKIE), N(PUZZLE)      by so many bits, the more it has to do
//!  N(COOKIE), PS, SAi1, KEi, Ni          ──▶                              four keys by which the MAC of the cookie ends in
//!                                        ◀──    SAr1, KEr, Nr             so many zeros
//! ```

use crate::{
    crypto::transform::Prf,
    message::{Notify, NotifyType, Payload, Payloads, Proposal, TransformType},
};

/// Bits of the easiest puzzle, and of the hardest that is set or solved.
const BITS: std::ops::RangeInclusive<u8> = 16..=20;

/// Bits that we choose if the responder leaves it to us (RFC 8019 §7.1.2).
const OURS: u8 = 12;

/// Keys of a solution.
const KEYS: usize = 4;

/// Octets of our keys, and of any, at most.
const KEY: usize = 8;
const LONGEST_KEY: usize = 64;

/// So many times more keys are tried than are needed on average, until it is given up.
const PATIENCE: u64 = 32;

/// Of initiators that have a cookie and no solution, one of so many is taken: it may not know of puzzles.
pub(super) const ONE_OF: u8 = 8;

/// A puzzle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Puzzle {
    prf: Prf,
    bits: u8,
    /// What the MACs of a solution are of: the cookie, or in IKE_AUTH something else.
    string: Vec<u8>,
}

/// How many bits a puzzle has for so many half-open IKE SAs, if there is to be one.
pub(super) fn bits(half_open: usize, from: usize) -> Option<u8> {
    let times = half_open.checked_div(from)?;
    (times > 0).then(|| BITS.start().saturating_add(times.ilog2() as u8).min(*BITS.end()))
}

impl Puzzle {
    /// One of so many bits, by a prf that the initiator offers; nothing if it offers none that we have.
    pub fn new(offered: &[Proposal], bits: u8, string: &[u8]) -> Option<Puzzle> {
        let transforms = offered.iter().flat_map(|proposal| &proposal.transforms);
        let prfs = transforms.filter(|transform| transform.kind == TransformType::PRF);
        let prf = prfs.filter_map(|transform| Prf::from_id(transform.id)).next()?;
        Some(Puzzle { prf, bits, string: string.to_vec() })
    }

    /// What the responder says.
    // RFC 8019 §8.1
    pub fn notify(&self) -> Notify {
        let [high, low] = self.prf.id().to_be_bytes();
        Notify::new(NotifyType::PUZZLE, &[high, low, self.bits])
    }

    /// What a responder has said, if it is one that we solve.
    pub fn said(payloads: &Payloads, string: &[u8]) -> Option<Puzzle> {
        let said = &payloads.notifies(NotifyType::PUZZLE).next()?.data;
        let &[high, low, bits] = said.as_slice() else { return None };
        let prf = Prf::from_id(u16::from_be_bytes([high, low]))?;
        let bits = if bits == 0 { OURS } else { bits };
        (bits <= *BITS.end()).then(|| Puzzle { prf, bits, string: string.to_vec() })
    }

    /// Four keys; nothing if there are none for a long time. It takes long.
    pub fn solve(&self) -> Option<Vec<u8>> {
        let most = (KEYS as u64 * PATIENCE) << self.bits;
        let keys = (0..most).map(u64::to_be_bytes).filter(|key| self.is_key(key));
        let solution = keys.take(KEYS).collect::<Vec<_>>().concat();
        (solution.len() == KEYS * KEY).then_some(solution)
    }

    /// Whether these are four keys of one length.
    // RFC 8019 §7.1.4
    pub fn is_solved_by(&self, solution: &[u8]) -> bool {
        let len = solution.len() / KEYS;
        if !(1..=LONGEST_KEY).contains(&len) || len * KEYS != solution.len() {
            return false;
        }
        let keys: Vec<_> = solution.chunks(len).collect();
        let are_different = keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key));
        are_different && keys.iter().all(|key| self.is_key(key))
    }

    fn is_key(&self, key: &[u8]) -> bool {
        let mac = self.prf.mac(key, &[&self.string]);
        let zero_octets = mac.bytes().iter().rev().take_while(|octet| **octet == 0).count();
        let next = mac.bytes().iter().rev().nth(zero_octets).map_or(0, |octet| octet.trailing_zeros());
        zero_octets as u32 * 8 + next >= self.bits.into()
    }
}

/// What is in the PS payload (RFC 8019 §8.2), if there is one.
pub(super) fn solution(payloads: &Payloads) -> Option<&[u8]> {
    payloads.0.iter().find_map(|payload| match payload {
        Payload::PuzzleSolution(solution) => Some(&solution[..]),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proposal::Proposals;

    fn puzzle(bits: u8) -> Puzzle {
        let offered = Proposals::ike(["aes256-sha384-x25519"]).unwrap().offer(&[]);
        Puzzle::new(&offered, bits, b"a cookie").unwrap()
    }

    // RFC 8019 §4.4, §7.1.4
    #[test]
    fn four_different_keys_solve_it() {
        let easy = puzzle(6);
        let solution = easy.solve().unwrap();
        assert!(easy.is_solved_by(&solution));
        for key in solution.chunks(KEY) {
            let mac = easy.prf.mac(key, &[b"a cookie"]);
            assert_eq!(mac.bytes().last().unwrap() & 0x3f, 0);
        }
        let mut twice = solution.clone();
        twice.copy_within(..KEY, KEY);
        let other = Puzzle { string: b"another".to_vec(), ..easy.clone() };
        for wrong in [&solution[..KEY * 3], &solution[1..], &twice, &[], &[0; 4]] {
            assert!(!easy.is_solved_by(wrong));
        }
        assert!(!other.is_solved_by(&solution) && !puzzle(30).is_solved_by(&solution));
        assert!(puzzle(0).is_solved_by(&[1, 2, 3, 4]));
    }

    #[test]
    fn what_is_too_hard_is_not_begun() {
        for (bits, ours) in [(0, Some(OURS)), (16, Some(16)), (20, Some(20)), (21, None), (255, None)] {
            let said = Payloads(vec![Payload::Notify(puzzle(bits).notify())]);
            assert_eq!(Puzzle::said(&said, b"c").map(|puzzle| puzzle.bits), ours);
        }
    }

    #[test]
    fn it_is_the_harder_the_more_there_is_to_do() {
        let of = |half_open| bits(half_open, 1000);
        assert_eq!(
            [0, 999, 1000, 1999, 2000, 16_000, 1 << 40].map(of),
            [None, None, Some(16), Some(16), Some(17), Some(20), Some(20)]
        );
        assert_eq!(bits(10, 0), None);
    }
}
