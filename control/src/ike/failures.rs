//! What has failed lately, for whoever asks why there is no SA.

use crate::report::FailureReport;
use std::{collections::VecDeque, net::SocketAddr};

/// So many are kept: of those that were not seen for longest, one goes for each that comes.
const MOST: usize = 32;

/// Peers that nobody has proven to be there may have so many written down in a second: it takes time and room in the log.
const STRANGERS_A_SECOND: u32 = 5;

/// What is said again and again is logged so often.
const LOGGED_EVERY_MS: u64 = 60_000;

/// Something that did not come about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// The name of its connection, if it is known which.
    pub connection: Option<String>,
    /// The name of its child, if it is about one.
    pub child: Option<String>,
    /// Whether we have begun.
    pub is_by_us: bool,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Why.
    pub why: String,
}

impl Failure {
    /// Whether it is the same once more: ports are the NAT's.
    fn is_again(&self, other: &Failure) -> bool {
        let of = |f: &Failure| (f.is_by_us, f.local.ip(), f.peer.ip());
        of(self) == of(other)
            && (&self.connection, &self.child) == (&other.connection, &other.child)
            && self.why == other.why
    }
}

#[derive(Debug)]
struct Kept {
    failure: Failure,
    times: u64,
    last_ms: u64,
    logged_ms: u64,
}

/// The last ones.
#[derive(Debug, Default)]
pub(super) struct Failures {
    all: VecDeque<Kept>,
    /// The second, and how many strangers there were in it.
    strangers: (u64, u32),
}

impl Failures {
    /// Whether there is time for another stranger.
    pub fn admit_stranger(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1000;
        if self.strangers.0 != second {
            self.strangers = (second, 0);
        }
        self.strangers.1 += 1;
        self.strangers.1 <= STRANGERS_A_SECOND
    }

    /// Keeps one. Whether it is worth a line in the log: the same was not there for a while.
    pub fn add(&mut self, failure: Failure, now_ms: u64) -> bool {
        let at = self.all.iter().position(|kept| kept.failure.is_again(&failure));
        let mut kept = match at.and_then(|at| self.all.remove(at)) {
            Some(kept) => kept,
            None => Kept { failure: failure.clone(), times: 0, last_ms: now_ms, logged_ms: 0 },
        };
        let is_worth_it = kept.times == 0 || now_ms - kept.logged_ms >= LOGGED_EVERY_MS;
        if is_worth_it {
            kept.logged_ms = now_ms;
        }
        (kept.failure, kept.times, kept.last_ms) = (failure, kept.times + 1, now_ms);
        self.all.truncate(MOST - 1);
        self.all.push_front(kept);
        is_worth_it
    }

    /// The last one first.
    pub fn report(&self, now_ms: u64) -> Vec<FailureReport> {
        let told = |Kept { failure, times, last_ms, .. }: &Kept| FailureReport {
            connection: failure.connection.clone(),
            child: failure.child.clone(),
            role: if failure.is_by_us { "initiator" } else { "responder" }.to_owned(),
            local: failure.local.to_string(),
            remote: failure.peer.to_string(),
            why: failure.why.clone(),
            times: *times,
            ago_secs: now_ms.saturating_sub(*last_ms) / 1000,
        };
        self.all.iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(port: u16, why: &str) -> Failure {
        let (local, peer) = ("192.0.2.1:500".parse().unwrap(), SocketAddr::new([192, 0, 2, 2].into(), port));
        Failure { connection: Some("a".into()), child: None, is_by_us: false, local, peer, why: why.into() }
    }

    #[test]
    fn the_same_is_kept_once_and_logged_once_a_minute() {
        let mut failures = Failures::default();
        assert!(failures.add(failure(500, "no"), 1_000));
        assert!(!failures.add(failure(501, "no"), 2_000));
        assert!(failures.add(failure(500, "never"), 3_000));
        assert!(failures.add(failure(502, "no"), 61_000));
        let told = failures.report(63_500);
        let of = |at: usize| (&*told[at].why, &*told[at].remote, told[at].times, told[at].ago_secs);
        assert_eq!((told.len(), of(0)), (2, ("no", "192.0.2.2:502", 3, 2)));
        assert_eq!(of(1), ("never", "192.0.2.2:500", 1, 60));
    }

    #[test]
    fn there_is_an_end_to_all_of_it() {
        let mut failures = Failures::default();
        for n in 0..1000 {
            failures.add(failure(500, &n.to_string()), n);
        }
        let told = failures.report(1000);
        assert_eq!((told.len(), &*told[0].why, &*told[MOST - 1].why), (MOST, "999", "968"));
        let admitted = (0..1000).filter(|_| failures.admit_stranger(5_500)).count();
        assert_eq!(admitted as u32, STRANGERS_A_SECOND);
        assert!(failures.admit_stranger(6_000));
    }
}
