//! Narrowing: what both sides have in their policies of what one of them has asked for (RFC 7296 §2.9).

use super::{TrafficSelector, TrafficSelectors};
use crate::message;

/// What may go between two sides: from anything of one to anything of the other, of one family and protocol.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// What is on our side.
    pub local: TrafficSelectors,
    /// What is on the peer's.
    pub remote: TrafficSelectors,
}

/// What a responder accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Narrowed {
    /// Which of its policies it is of.
    pub policy: usize,
    /// What is on both sides; TSi is the remote one, and TSr the local one.
    pub accepted: Policy,
    /// Whether another policy may allow more, which ADDITIONAL_TS_POSSIBLE tells.
    pub additional_possible: bool,
}

impl Policy {
    /// What SAs are made for: each selector of ours with each of theirs, where both are of one family and protocol. Both of
    /// a pair have the narrower protocol.
    pub fn pairs(&self) -> impl Iterator<Item = (TrafficSelector, TrafficSelector)> {
        let with = move |local| self.remote.0.iter().filter_map(move |remote| pair(local, remote));
        self.local.0.iter().flat_map(with)
    }

    /// TSi and TSr of an initiator; `packet` is the two sides of the packet that wants the SA, ours first.
    pub fn offer(&self, packet: Option<[TrafficSelector; 2]>) -> Policy {
        match packet {
            Some([local, remote]) => {
                Policy { local: self.local.behind(local), remote: self.remote.behind(remote) }
            }
            None => self.clone(),
        }
    }

    /// What the responder has narrowed this offer to. `None` if it has something in it that was not offered, or is of no
    /// traffic: then there is no SA (RFC 7296 §2.9).
    pub fn accept(
        &self,
        tsi: &[message::TrafficSelector],
        tsr: &[message::TrafficSelector],
    ) -> Option<Policy> {
        let side = |offered: &TrafficSelectors, answer: &[message::TrafficSelector]| {
            let selectors = TrafficSelectors::parse(answer);
            let is_understood = selectors.0.len() == answer.len();
            let is_offered = is_understood && selectors.iter().all(|one| offered.covers(one));
            // The packet's may come back beside what it is in.
            is_offered.then(|| selectors.merged())
        };
        let accepted = Policy { local: side(&self.local, tsi)?, remote: side(&self.remote, tsr)? };
        let is_some = accepted.pairs().next().is_some();
        is_some.then_some(accepted)
    }

    /// Whether all of a pair is in it.
    pub fn has(&self, [local, remote]: &[TrafficSelector; 2]) -> bool {
        self.local.covers(local) && self.remote.covers(remote)
    }

    /// Whether something of another is not in it, as far as that can be seen soon.
    pub fn is_narrower_than(&self, other: &Policy) -> bool {
        const FEW: usize = 16;
        let is_short = self.local.0.len() <= FEW && self.remote.0.len() <= FEW;
        let has_all = || {
            other.local.iter().all(|one| self.local.covers(one))
                && other.remote.iter().all(|one| self.remote.covers(one))
        };
        !(self.has_each(other) || is_short && has_all())
    }

    /// What of it is in another, too; `None` if that is no traffic.
    pub fn within(&self, other: &Policy) -> Option<Policy> {
        Some(other.and(self)?.0)
    }

    /// What of another's is in it, without selectors that are in no pair, and whether that is all there is.
    fn and(&self, asked: &Policy) -> Option<(Policy, bool)> {
        let (local, is_all_local) = common(&asked.local, &self.local);
        let (remote, is_all_remote) = common(&asked.remote, &self.remote);
        let paired = |side: &TrafficSelectors, other: &TrafficSelectors| {
            let is_paired = |one: &&TrafficSelector| other.0.iter().any(|other| pair(one, other).is_some());
            TrafficSelectors::new(side.0.iter().filter(is_paired).copied())
        };
        let both = Policy { local: paired(&local, &remote), remote: paired(&remote, &local) };
        (!both.local.is_empty()).then_some((both, is_all_local && is_all_remote))
    }

    /// Whether each selector of another is in one of these. It may be in several together and is not seen then, which
    /// would take long for what a peer may send.
    fn has_each(&self, other: &Policy) -> bool {
        let has = |side: &TrafficSelectors, one: &TrafficSelector| side.0.iter().any(|wide| one.is_in(wide));
        other.local.0.iter().all(|one| has(&self.local, one))
            && other.remote.0.iter().all(|one| has(&self.remote, one))
    }
}

/// Both with the narrower protocol, if they are of one family and protocol.
fn pair(local: &TrafficSelector, remote: &TrafficSelector) -> Option<(TrafficSelector, TrafficSelector)> {
    let protocols = local.spans[1].and(remote.spans[1])?;
    let of = |side: &TrafficSelector| {
        let mut side = *side;
        side.spans[1] = protocols;
        side
    };
    (local.is_v4 == remote.is_v4).then(|| (of(local), of(remote)))
}

/// What is in both, in the order of the first, and whether that is all there is: there may be more than a payload has room
/// for.
fn common(first: &TrafficSelectors, second: &TrafficSelectors) -> (TrafficSelectors, bool) {
    let mut all = TrafficSelectors::default();
    for selector in first.iter().flat_map(|one| second.iter().filter_map(|other| one.and(other))) {
        if all.add(selector).is_none() {
            return (all, false);
        }
    }
    (all, true)
}

/// What a responder with these policies accepts of TSi and TSr. If nothing, the answer is TS_UNACCEPTABLE.
///
/// The policy is one that has all of both first selectors, if there is such: what is accepted has those two in it then, though
/// perhaps in a wider selector (RFC 7296 §2.9). Of several it is one that has all that is asked for, then one that is for
/// nothing else, and then the first.
pub fn narrow(policies: &[Policy], tsi: &TrafficSelectors, tsr: &TrafficSelectors) -> Option<Narrowed> {
    let asked = Policy { local: tsr.clone(), remote: tsi.clone() };
    let (first_local, first_remote) = (tsr.0.first()?, tsi.0.first()?);
    let possible =
        policies.iter().enumerate().filter_map(|(at, policy)| Some((at, policy, policy.and(&asked)?)));
    let possible: Vec<_> = possible.collect();
    let has_first = |policy: &Policy| policy.local.covers(first_local) && policy.remote.covers(first_remote);
    // Of equals the first.
    let best = possible.iter().rev().max_by_key(|(_, policy, (accepted, is_all))| {
        (has_first(policy), *is_all && accepted.has_each(&asked), accepted == *policy)
    });
    let (policy, _, (accepted, is_all)) = best?.clone();
    let additional_possible = !is_all || possible.iter().any(|(_, _, (other, _))| !accepted.has_each(other));
    Some(Narrowed { policy, accepted, additional_possible })
}

#[cfg(test)]
mod tests;
