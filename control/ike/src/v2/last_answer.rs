//! What IKE SAs that are gone have answered last (RFC 7296 §2.1).
//!
//! Who deletes an IKE SA asks again until it is answered, and that answer may be lost as any other. Of the IKE SA there is nothing
//! left then but the answer, as it was sent, for as long as most of that asking again takes.
//!
//! # Dangers
//! Keys are none of it, and only those who have proven who they are have anything kept. There is an end to how many there are, and
//! to how long each is: the oldest gives way. What is sent again is sent where it was sent before, for the same request alone, and
//! is about as long as that.

use super::{
    context::Context,
    ike_sa::{Closed, IkeSa, Path, Phase},
    window::{self, Answered},
};
use crate::message::IkeSpi;
use std::collections::{HashMap, VecDeque};

/// How long they are kept: a peer of our kind has asked four times by then.
const KEPT_MS: u64 = 30_000;

/// How many there are, at most.
const MOST: usize = 4096;

/// Octets of an answer, at most; one that an IKE SA is deleted has no payloads inside.
const LONGEST: usize = 512;

/// One of them.
#[derive(Debug)]
struct LastAnswer {
    /// The way back of the request.
    path: Path,
    answered: Answered,
    dscp: u8,
}

/// Those of all, by our SPIs.
#[derive(Debug, Default)]
pub(super) struct LastAnswers {
    by_spi: HashMap<IkeSpi, LastAnswer>,
    /// When each goes, the oldest first.
    goes_ms: VecDeque<(u64, IkeSpi)>,
}

impl LastAnswers {
    /// An IKE SA with this SPI of ours is gone; whether by what it has just answered.
    pub fn put(&mut self, ours: IkeSpi, sa: &mut IkeSa, has_answered: bool, now_ms: u64) {
        self.expire(now_ms);
        let is_by_peer = has_answered || matches!(sa.phase(), Phase::Closed(why) if **why == Closed::ByPeer);
        if !is_by_peer || sa.established_ms().is_none() {
            return;
        }
        let answered = sa.channel.take_answered().filter(|answered| answered.octets() <= LONGEST);
        let (path, dscp) = (sa.answer_path(), sa.connection().dscp);
        if let Some(answered) = answered {
            self.insert(ours, LastAnswer { path, answered, dscp }, now_ms);
        }
    }

    fn insert(&mut self, ours: IkeSpi, last: LastAnswer, now_ms: u64) {
        if self.goes_ms.len() >= MOST
            && let Some((_, oldest)) = self.goes_ms.pop_front()
        {
            self.by_spi.remove(&oldest);
        }
        self.by_spi.insert(ours, last);
        self.goes_ms.push_back((now_ms + KEPT_MS, ours));
    }

    /// Sends it again, if this is the request that it answers. False if it is none.
    pub fn send_again(&mut self, ours: IkeSpi, octets: &[u8], path: Path, cx: &mut Context<'_>) -> bool {
        self.expire(cx.now_ms);
        let Some(last) = self.by_spi.get(&ours).filter(|last| last.path == path) else { return false };
        // The same octets have the same SPIs and message ID.
        let Some(datagrams) = last.answered.again(&window::digest(octets)) else { return false };
        cx.send(datagrams.clone(), path, last.dscp);
        true
    }

    /// What was kept long enough goes.
    pub fn expire(&mut self, now_ms: u64) {
        while let Some((_, ours)) = self.goes_ms.pop_front_if(|(ms, _)| *ms <= now_ms) {
            self.by_spi.remove(&ours);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.by_spi.len(), self.goes_ms.len());
        self.by_spi.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v2::window::Window;

    #[test]
    fn there_is_an_end_to_them_and_the_oldest_gives_way() {
        let (local, peer) = ("192.0.2.1:500".parse().unwrap(), "192.0.2.2:500".parse().unwrap());
        let mut all = LastAnswers::default();
        let most = MOST as u64;
        for n in 1..=3 * most {
            let mut window = Window::default();
            window.answer(window::digest(&n.to_be_bytes()), vec![vec![7; 80]]);
            let answered = window.take_answered().unwrap();
            all.insert(IkeSpi(n), LastAnswer { path: Path { local, peer }, answered, dscp: 0 }, n);
            assert_eq!(all.len() as u64, n.min(most));
            let oldest = n.saturating_sub(most) + 1;
            assert!(
                all.by_spi.contains_key(&IkeSpi(oldest)) && !all.by_spi.contains_key(&IkeSpi(oldest - 1))
            );
        }
        all.expire(3 * most + KEPT_MS - 1);
        assert_eq!(all.len(), 1);
        all.expire(3 * most + KEPT_MS);
        assert_eq!(all.len(), 0);
    }
}
