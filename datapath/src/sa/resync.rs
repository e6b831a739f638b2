//! Senders that are 2^32 packets and more ahead of what was received (RFC 4303 §A3).
//!
//! With extended sequence numbers the high half is not sent. After so long a loss it is inferred wrongly, for each packet
//! from then on, and no ICV is right any more. An SA whose packets are wrong one after the other, with none that is right
//! between them, is suspect: its packets go the general way, where each is tried with the next high halves too.
//!
//! # Danger
//! Anybody can send packets that are wrong. What that costs is bounded: after 1024 of them 16 are opened
//! [`AHEAD`] times more, and nothing is believed but an ICV.

use super::SaTable;
use arrayvec::ArrayVec;
use portcullis_sadb::Generation;

/// Packets of an SA that are wrong, one after the other, before it is suspect.
const WRONG: u32 = 1024;

/// Packets that are tried then, until as many have to be wrong again.
const TRIED: u32 = 16;

/// High halves that a packet is tried with, behind the one that is inferred.
pub const AHEAD: u64 = 4;

/// SAs that are looked at, at a time.
const SUSPECTS: usize = 64;

/// An SA whose last packets were wrong.
struct Suspect {
    state: u32,
    generation: Generation,
    /// The highest number received when the first of them came.
    top: u64,
    wrong: u32,
}

/// SAs whose last packets were wrong.
#[derive(Default)]
pub(super) struct Suspects(ArrayVec<Suspect, SUSPECTS>);

impl SaTable {
    /// Whether an inbound SA may have lost so much that the high half of its numbers has to be found anew.
    pub fn is_suspect(&self, i: u32) -> bool {
        let has_lost =
            |s: &Suspect| s.state == i && s.wrong >= WRONG && self.standing(i) == Some((s.generation, s.top));
        !self.suspects.0.is_empty() && self.suspects.0.iter().any(has_lost)
    }

    /// Takes note of a packet whose ICV is wrong, by the next high halves too if it was tried with these. Packets that were
    /// on the plain way already when their SA became suspect were not, and count no more.
    #[cold]
    pub fn note_wrong(&mut self, i: u32, was_tried: bool) {
        let Some((generation, top)) = self.standing(i) else { return };
        let at = self.suspects.0.iter().position(|s| s.state == i).unwrap_or_else(|| self.new_suspect());
        let Some(suspect) = self.suspects.0.get_mut(at) else { return };
        if (suspect.state, suspect.generation, suspect.top) != (i, generation, top) {
            *suspect = Suspect { state: i, generation, top, wrong: 0 };
        }
        if suspect.wrong >= WRONG && !was_tried {
            return;
        }
        suspect.wrong += 1;
        match suspect.wrong {
            WRONG => {
                // The next packet is looked for, and goes the general way.
                if let Some(Some(sa)) = self.inbound.get_mut(i as usize) {
                    sa.sad_version = sa.sad_version.wrapping_sub(1);
                }
            }
            n if n >= WRONG + TRIED => drop(self.suspects.0.swap_remove(at)),
            _ => {}
        }
    }

    /// Room for one more: in the place of the one with the fewest wrong packets, if there is none.
    fn new_suspect(&mut self) -> usize {
        let nobody = Suspect { state: u32::MAX, generation: Generation(0), top: 0, wrong: 0 };
        match self.suspects.0.try_push(nobody) {
            Ok(()) => self.suspects.0.len() - 1,
            Err(_) => (0..SUSPECTS).min_by_key(|at| self.suspects.0[*at].wrong).unwrap_or(0),
        }
    }

    /// Which SA it is, and the highest number received, of an inbound one with extended numbers.
    fn standing(&self, i: u32) -> Option<(Generation, u64)> {
        let (sa, _) = self.inbound(i)?;
        sa.window.esn().then(|| (self.get(i).generation, sa.window.top()))
    }
}
