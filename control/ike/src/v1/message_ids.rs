//! Message IDs of phase 2: each is of one exchange (RFC 2408 §3.1). Behind it, a message with it is a copy, of the peer's or of
//! our own.

use crate::kept::{Damaged, Keep, Reader, Writer};
use std::collections::HashSet;

/// So many are known of an ISAKMP SA, at most.
const MOST: usize = 16_384;

/// Those that either end has used.
#[derive(Debug, Default)]
pub(super) struct MessageIds(HashSet<u32>);

impl MessageIds {
    /// Whether an exchange can begin with it.
    pub fn is_free(&self, id: u32) -> bool {
        self.0.len() < MOST && !self.0.contains(&id)
    }

    /// Whether one has begun with it.
    pub fn is_used(&self, id: u32) -> bool {
        self.0.contains(&id)
    }

    /// An exchange begins with it. True if it is the last that there is room for.
    pub fn add(&mut self, id: u32) -> bool {
        self.0.len() < MOST && self.0.insert(id) && self.0.len() == MOST
    }
}

impl MessageIds {
    /// Keeps all but one, which can be used again.
    pub fn keep(&self, but: Option<u32>, to: &mut Writer) {
        self.0.iter().copied().filter(|id| Some(*id) != but).collect::<Vec<_>>().keep(to);
    }

    /// Makes them again.
    pub fn kept(from: &mut Reader<'_>) -> Result<MessageIds, Damaged> {
        let all = Vec::kept(from)?;
        if all.len() <= MOST {
            Ok(MessageIds(all.into_iter().collect()))
        } else {
            Err(Damaged("message IDs"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_used_once_and_there_is_an_end() {
        let mut ids = MessageIds::default();
        assert_eq!(ids.0.capacity(), 0);
        let lasts: Vec<_> = (1..=MOST as u32).filter(|id| ids.is_free(*id) && ids.add(*id)).collect();
        assert_eq!(lasts, [MOST as u32]);
        assert!(ids.is_used(1) && !ids.is_used(0) && !ids.is_free(1) && !ids.is_free(0) && !ids.add(0));
        assert_eq!(ids.0.len(), MOST);
    }
}
