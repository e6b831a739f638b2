//! Messages in fragments, put together (RFC 7383 §2.6).
//!
//! Each fragment is authenticated by itself, so that nobody else can fill this up: what it holds is the peer's own, one
//! message at a time and each way, and no more than a whole message may be. While the peer may be anybody, all those together have
//! an end ([`Unproven`]).

use crate::message::Fragment;

/// Octets of a message that came in fragments, at most: as many as a length field of 16 bits says.
pub const MOST_OCTETS: usize = u16::MAX as usize;

/// Fragments of a message, at most.
pub const MOST_FRAGMENTS: u16 = 256;

/// Octets of such messages, and of EAP-TLS, that half-open IKE SAs hold, and all ISAKMP SAs, together at most: a thousand of the longest.
pub const MOST_UNPROVEN: usize = 64 << 20;

/// What half-open IKE SAs hold of messages that are not whole, and of EAP-TLS: their initiators may be anybody. So may be whoever sends parts of
/// messages of IKEv1, at any time.
#[derive(Debug, Default)]
pub struct Unproven {
    octets: usize,
}

impl Unproven {
    /// One of them has held so many octets, and now holds others. False if these are too many: it is to let them all go.
    #[must_use]
    pub fn change(&mut self, before: usize, now: usize) -> bool {
        let others = self.octets.saturating_sub(before);
        let may = now <= before || others + now <= MOST_UNPROVEN;
        self.octets = if may { others + now } else { others };
        may
    }

    /// Of all together.
    #[cfg(test)]
    pub fn octets(&self) -> usize {
        self.octets
    }
}

/// A message that is not whole, if there is one, and what is known of it by its first fragment.
#[derive(Debug, Default)]
pub struct Fragments<First> {
    id: u32,
    /// By number.
    parts: Vec<Option<Vec<u8>>>,
    first: First,
    octets: usize,
}

impl<First: Default> Fragments<First> {
    /// Octets that it holds, with what it takes to tell them apart.
    pub fn octets(&self) -> usize {
        self.octets + self.parts.len() * size_of::<Option<Vec<u8>>>()
    }

    /// Adds a fragment that was opened: of which message, what is in it, and what is known of the message if it is the first. That
    /// and all octets, once they are there.
    pub fn add(
        &mut self,
        id: u32,
        fragment: Fragment,
        first: First,
        octets: Vec<u8>,
    ) -> Option<(First, Vec<u8>)> {
        let total = usize::from(fragment.total());
        // RFC 7383 §2.6: of more fragments is what was cut anew, since the others did not come through; of fewer is old.
        let is_other = id != self.id || total > self.parts.len();
        if fragment.total() > MOST_FRAGMENTS || !is_other && total < self.parts.len() {
            return None;
        }
        if is_other {
            *self = Fragments { id, parts: vec![None; total], ..Fragments::default() };
        }
        let part = &mut self.parts[usize::from(fragment.number()) - 1];
        if part.is_some() || self.octets + octets.len() > MOST_OCTETS {
            return None;
        }
        if fragment.number() == 1 {
            self.first = first;
        }
        self.octets += octets.len();
        *part = Some(octets);
        if self.parts.iter().any(Option::is_none) {
            return None;
        }
        let Fragments { parts, first, .. } = std::mem::take(self);
        Some((first, parts.into_iter().flatten().flatten().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PayloadType;

    fn part(number: u16, total: u16) -> Fragment {
        Fragment::new(number, total).unwrap()
    }

    #[test]
    fn any_order_makes_the_message() {
        let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
        for order in orders {
            let mut fragments = Fragments::<PayloadType>::default();
            let mut whole = None;
            for (n, number) in order.into_iter().enumerate() {
                let first = if number == 1 { PayloadType::IDI } else { PayloadType::NONE };
                // What came twice changes nothing.
                for _ in 0..2 {
                    if whole.is_none() {
                        whole = fragments.add(7, part(number, 3), first, vec![number as u8; 2]);
                        assert_eq!(whole.is_some(), n == 2);
                    }
                }
            }
            assert_eq!(whole, Some((PayloadType::IDI, vec![1, 1, 2, 2, 3, 3])));
        }
    }

    // RFC 7383 §2.6
    #[test]
    fn more_fragments_replace_fewer() {
        let mut fragments = Fragments::<PayloadType>::default();
        let mut add = |id, number, total| {
            fragments.add(id, part(number, total), PayloadType::IDI, vec![total as u8]).map(|whole| whole.1)
        };
        assert_eq!(add(1, 1, 2), None);
        assert_eq!(add(1, 1, 3), None);
        assert_eq!(add(1, 2, 2), None, "old");
        assert_eq!((add(1, 2, 3), add(1, 3, 3)), (None, Some(vec![3, 3, 3])));
        // Another message replaces what is there of one.
        assert_eq!((add(2, 1, 2), add(3, 2, 2), add(3, 1, 2)), (None, None, Some(vec![2, 2])));
        assert_eq!(add(4, 1, 1), Some(vec![1]));
    }

    /// Each of those that hold what may be held has its place; the next has none, until one of them goes.
    #[test]
    fn there_is_an_end_to_what_half_open_ones_hold() {
        let (mut unproven, whole) = (Unproven::default(), MOST_OCTETS + 1);
        let room = MOST_UNPROVEN / whole;
        assert!((0..room).all(|_| unproven.change(0, whole)));
        assert_eq!(unproven.octets(), MOST_UNPROVEN);
        assert!(!unproven.change(0, 1));
        assert_eq!(unproven.octets(), MOST_UNPROVEN, "who has no place takes none");
        // Who holds something already lets all of it go.
        assert!(!unproven.change(whole, whole + 1));
        assert_eq!(unproven.octets(), MOST_UNPROVEN - whole);
        assert!(unproven.change(0, whole) && !unproven.change(0, 1));
        assert!(unproven.change(whole, 0) && unproven.change(0, 1));
        assert!(unproven.change(1, 0));
        (1..room).for_each(|_| assert!(unproven.change(whole, 0)));
        assert_eq!(unproven.octets(), 0);
    }

    #[test]
    fn there_is_an_end_to_what_is_held() {
        let mut fragments = Fragments::<PayloadType>::default();
        assert_eq!(fragments.add(1, part(1, MOST_FRAGMENTS + 1), PayloadType::IDI, vec![1]), None);
        assert!(fragments.parts.is_empty());
        for number in 1..=MOST_FRAGMENTS {
            let whole = fragments.add(1, part(number, MOST_FRAGMENTS), PayloadType::IDI, vec![0; 1000]);
            assert_eq!(whole, None);
            assert!(fragments.octets <= MOST_OCTETS);
        }
    }
}
