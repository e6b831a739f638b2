//! Policies of groups, of which one may be several groups' at once.
//!
//! A selector has one policy. Of several groups of a connection that are for it, as where the peer has narrowed what a trap is
//! for, or where a child has more networks than before, the newest that sends has it; when that goes, another has it again. What
//! lingers of another connection gives way, as where a peer with an address of a pool comes back by that.

use super::{Children, FIRST_REQID, Group, Outbound, Purpose, TOO_MANY, priority, selectors};
use crate::install::back;
use portcullis_ike::v2::child::Install;
use portcullis_sadb::{
    Action, Direction, MAX_WORKERS, Policy, PolicyIndex, Sadb, SadbError, Selector, SlotIndex,
};
use std::net::SocketAddr;

impl Purpose {
    /// Its policies in a direction, without an SA; nothing if they are too many.
    pub(super) fn policies(&self, direction: Direction, reqid: u32) -> Option<Vec<Policy>> {
        let policy = |selector: Selector| Policy {
            direction,
            priority: priority(&selector, Action::Protect, self.priority),
            selector: if direction == Direction::Inbound { back(&selector) } else { selector },
            action: Action::Protect,
            reqid,
            sa: None,
        };
        Some(selectors(&self.traffic)?.into_iter().map(policy).collect())
    }
}

impl Children {
    /// What ties SAs to policies where a peer has a child SA already that another is in the place of, or that is for some of
    /// the same packets: they come by either for a while.
    pub(super) fn reqid_before(&self, sadb: &Sadb, install: &Install, purpose: &Purpose) -> Option<u32> {
        let replaced = install.replaces.and_then(|spi_in| self.installed(spi_in));
        let replaced = replaced.and_then(|replaced| self.groups.get(&replaced.group));
        let replaced = replaced.filter(|group| group.purpose.connection == purpose.connection);
        let same = || {
            let policies = purpose.policies(Direction::Inbound, 0)?;
            let mut owners = policies.iter().filter_map(|p| self.owner(sadb, sadb.find_policy(p)?));
            owners.find(|group| {
                group.purpose.connection == purpose.connection && group.is_to(sadb, install.peer)
            })
        };
        replaced.map(|group| &**group).or_else(same).map(|group| group.reqid)
    }

    /// How many policies a child SA needs that are not there; nothing if they are too many.
    pub(super) fn policies_for(&self, sadb: &Sadb, install: &Install) -> Option<usize> {
        let purpose = Purpose::of(&install.connection, &install.sa);
        let group = self.numbers.get(&purpose).and_then(|number| self.groups.get(number));
        let missing = |direction| {
            let there = group.map_or(&[][..], |group| match direction {
                Direction::Inbound => &group.inbound,
                Direction::Outbound => &group.outbound,
            });
            if !there.is_empty() {
                return Some(0);
            }
            let policies = purpose.policies(direction, 0)?;
            Some(policies.iter().filter(|policy| sadb.find_policy(policy).is_none()).count())
        };
        Some(missing(Direction::Inbound)? + missing(Direction::Outbound)?)
    }

    /// The group that has a policy.
    pub(super) fn owner(&self, sadb: &Sadb, index: PolicyIndex) -> Option<&Group> {
        if let Some(last) = self.shared.get(&index).and_then(|groups| groups.last()) {
            return self.groups.get(last).map(|group| &**group);
        }
        let reqid = sadb.policy(index)?.reqid;
        let has_it = |group: &&Group| group.outbound.contains(&index) || group.inbound.contains(&index);
        // Nearly all are tied by their group's own number.
        let own = self.groups.get(&reqid).map(|group| &**group).filter(has_it);
        let all = self.groups.values().map(|group| &**group);
        own.or_else(|| all.filter(|group| group.reqid == reqid).find(has_it))
    }

    /// What comes in for a group is let in.
    pub(super) fn let_in(&mut self, sadb: &mut Sadb, number: u32) -> Result<(), SadbError> {
        self.have_policies(sadb, number, Direction::Inbound, None)?;
        let inbound = self.shared_of(number, Direction::Inbound);
        inbound.into_iter().for_each(|index| self.hand_over(sadb, index, number));
        Ok(())
    }

    /// The policies of a group in a direction, if it has none yet. What is another's of the connection stays that until it is
    /// handed over.
    pub(super) fn have_policies(
        &mut self,
        sadb: &mut Sadb,
        number: u32,
        direction: Direction,
        sa: Option<SlotIndex>,
    ) -> Result<(), SadbError> {
        let Some(group) = self.groups.get_mut(&number) else { return Ok(()) };
        if !group.policies_mut(direction).is_empty() {
            return Ok(());
        }
        let wanted = group.purpose.policies(direction, group.reqid).ok_or(TOO_MANY)?;
        group.policies_mut(direction).reserve_exact(wanted.len());
        for policy in wanted {
            let index = match sadb.find_policy(&policy) {
                Some(there) if self.joins(sadb, there, number) => Ok(there),
                _ => sadb.add_policy(&Policy { sa, ..policy }),
            };
            let index = index.inspect_err(|_| self.give_up(sadb, number, direction, false))?;
            self.groups.entry(number).and_modify(|group| group.policies_mut(direction).push(index));
        }
        Ok(())
    }

    /// A group is for a policy that is there, too. False if that is not IKE's, or another connection's which has SAs.
    fn joins(&mut self, sadb: &mut Sadb, index: PolicyIndex, number: u32) -> bool {
        // Of one whose inbound SAs only linger nothing is sent any more.
        let is_over = |group: &Group| {
            group.sas.is_empty() && group.trap.is_none() && !self.holding.contains(&group.purpose.connection)
        };
        let of = |group: &Group| (group.number, group.purpose.connection.clone(), is_over(group));
        match (self.owner(sadb, index).map(of), self.groups.get(&number)) {
            (Some((owner, connection, is_over)), Some(group))
                if owner != number && (is_over || connection == group.purpose.connection) =>
            {
                self.shared.entry(index).or_insert_with(|| vec![owner]).insert(0, number);
                true
            }
            // A predecessor has left it.
            (None, Some(group)) => {
                let is_left = |p: &Policy| p.action == Action::Protect && p.reqid >= FIRST_REQID;
                let is_left = sadb.policy(index).as_ref().is_some_and(is_left);
                if is_left {
                    group.take_over(sadb, index);
                }
                is_left
            }
            _ => false,
        }
    }

    fn shared_of(&self, number: u32, direction: Direction) -> Vec<PolicyIndex> {
        let Some(group) = self.groups.get(&number).filter(|_| !self.shared.is_empty()) else { return vec![] };
        let all = if direction == Direction::Inbound { &group.inbound } else { &group.outbound };
        all.iter().copied().filter(|index| self.shared.contains_key(index)).collect()
    }

    /// A group has a policy that it shares.
    fn hand_over(&mut self, sadb: &mut Sadb, index: PolicyIndex, number: u32) {
        let Some(groups) = self.shared.get_mut(&index).filter(|groups| groups.last() != Some(&number)) else {
            return;
        };
        groups.retain(|other| *other != number);
        groups.push(number);
        if let Some(group) = self.groups.get(&number) {
            group.take_over(sadb, index);
        }
    }

    /// What a worker sends, or all that have none of their own, goes by this SA of a group.
    pub(super) fn point(
        &mut self,
        sadb: &mut Sadb,
        number: u32,
        worker: Option<u8>,
        outbound: SlotIndex,
    ) -> Result<(), SadbError> {
        self.have_policies(sadb, number, Direction::Outbound, Some(outbound))?;
        for index in self.shared_of(number, Direction::Outbound) {
            self.hand_over(sadb, index, number);
        }
        self.lead_by(sadb, number, worker, outbound)
    }

    /// The same for those policies that the group has.
    pub(super) fn lead_by(
        &self,
        sadb: &mut Sadb,
        number: u32,
        worker: Option<u8>,
        outbound: SlotIndex,
    ) -> Result<(), SadbError> {
        let owned = self.owned(number);
        owned.into_iter().try_for_each(|index| {
            // Those without one of their own have one, whatever it is.
            if sends(sadb, index, None).is_none() {
                sadb.set_policy_sa(index, Some(outbound))?;
            }
            match worker {
                _ if sends(sadb, index, worker) == Some(outbound) => Ok(()),
                Some(worker) => sadb.set_worker_sa(index, worker, Some(outbound)),
                None => sadb.set_policy_sa(index, Some(outbound)),
            }
        })
    }

    /// An outbound SA goes: what is sent goes by another, if there is one.
    pub(super) fn leave(&mut self, sadb: &mut Sadb, number: u32, outbound: SlotIndex) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        let Some(at) = group.sas.iter().position(|sa| sa.slot == outbound) else { return };
        let gone = group.sas.remove(at);
        if group.sas.is_empty() {
            let stays = group.trap.is_some() || self.holding.contains(&group.purpose.connection);
            self.give_up(sadb, number, Direction::Outbound, stays);
            return self.give_up(sadb, number, Direction::Inbound, true);
        }
        let Some(group) = self.groups.get(&number) else { return };
        for index in self.owned(number) {
            group.lead_from(sadb, index, gone);
        }
    }

    /// Outbound policies that a group has.
    pub(super) fn owned(&self, number: u32) -> Vec<PolicyIndex> {
        let all = self.groups.get(&number).map_or(&[][..], |group| &group.outbound);
        let has =
            |index: &PolicyIndex| self.shared.get(index).is_none_or(|groups| groups.last() == Some(&number));
        all.iter().copied().filter(has).collect()
    }

    /// A group has none of its policies any more.
    pub(super) fn forget_policies(&mut self, sadb: &mut Sadb, number: u32) {
        for direction in [Direction::Outbound, Direction::Inbound] {
            self.give_up(sadb, number, direction, false);
        }
    }

    /// Policies of a group are another's, or none's if it is not for them any more.
    fn give_up(&mut self, sadb: &mut Sadb, number: u32, direction: Direction, stays: bool) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        let all = match stays {
            true => group.policies_mut(direction).clone(),
            false => std::mem::take(group.policies_mut(direction)),
        };
        for index in all {
            let Some(groups) = self.shared.get_mut(&index) else {
                if !stays {
                    let _ = sadb.remove_policy(index);
                }
                continue;
            };
            let had = groups.last() == Some(&number);
            groups.retain(|other| *other != number);
            if stays {
                groups.insert(0, number);
            }
            if let Some(next) = groups.last().filter(|_| had).and_then(|last| self.groups.get(last)) {
                next.take_over(sadb, index);
            }
            if groups.len() < 2 {
                self.shared.remove(&index);
            }
        }
    }
}

impl Group {
    fn policies_mut(&mut self, direction: Direction) -> &mut Vec<PolicyIndex> {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }

    /// Whether an SA of it is to this peer.
    fn is_to(&self, sadb: &Sadb, peer: SocketAddr) -> bool {
        self.sas.iter().any(|sa| {
            let there = sadb.sa(sa.slot).map(|(_, sa)| (sa.dst, sa.udp.map(|udp| udp.dst_port)));
            let moved = sadb.endpoint(sa.slot).map(|to| (to.addr(), Some(to.port())));
            moved
                .or(there)
                .is_some_and(|(addr, port)| addr == peer.ip() && port.is_none_or(|port| port == peer.port()))
        })
    }

    /// A policy is its own from now on.
    fn take_over(&self, sadb: &mut Sadb, index: PolicyIndex) {
        let is_outbound = sadb.policy(index).is_some_and(|p| p.direction == Direction::Outbound);
        let _ = sadb.set_policy_reqid(index, self.reqid);
        if !is_outbound {
            return;
        }
        // First what is for all: no packet goes without.
        let by = self.outbound.iter().find_map(|other| {
            let sa = sends(sadb, *other, None).filter(|_| *other != index)?;
            self.sas.iter().any(|its| its.slot == sa).then_some(sa)
        });
        let _ = sadb.set_policy_sa(index, by.or_else(|| self.last(None)));
        for worker in 0..MAX_WORKERS as u8 {
            let own = self.last(Some(worker));
            if sadb.worker_sa(index, worker) != own {
                let _ = sadb.set_worker_sa(index, worker, own);
            }
        }
    }

    /// What a policy has of an SA that goes, it has of another.
    fn lead_from(&self, sadb: &mut Sadb, index: PolicyIndex, gone: Outbound) {
        // RFC 9611 §3: a worker without another of its own sends by the one for all.
        for worker in [gone.worker, None] {
            if sends(sadb, index, worker).is_some_and(|sa| sa != gone.slot) {
                continue;
            }
            let _ = match (worker, self.last(worker)) {
                (Some(worker), Some(other)) => sadb.set_worker_sa(index, worker, Some(other)),
                (None, Some(other)) => sadb.set_policy_sa(index, Some(other)),
                _ => Ok(()),
            };
        }
    }
}

/// What a worker sends by of its own, or all that have none.
pub(super) fn sends(sadb: &Sadb, policy: PolicyIndex, worker: Option<u8>) -> Option<SlotIndex> {
    match worker {
        Some(worker) => sadb.worker_sa(policy, worker),
        None => sadb.policy(policy)?.sa,
    }
}
