//! The writer's end of the SPD: policies, and which SAs they use.

use super::{Limbo, Sadb};
use crate::{
    Classes, DSCPS, Direction, Flow, OPAQUE_PORT, Policy, PolicyHit, PolicyIndex, Populate, SadbError,
    SlotIndex,
    layout::MAX_WORKERS,
    policy::{FREE, LIVE, PolicySlot},
    policy_sa::By,
    sa_set::SET,
    spd::{MAX_TUPLES, Spd},
    sync::Ordering,
};
use std::collections::BTreeMap;

/// What the writer knows of a tuple that policies use.
#[derive(Debug, Default)]
pub(super) struct TupleUse {
    /// Where it is among the tuples of its direction.
    at: usize,
    policies: u32,
    /// How many of each priority.
    pub(super) priorities: BTreeMap<u32, u32>,
}

impl TupleUse {
    fn add(&mut self, priority: u32) {
        self.policies += 1;
        *self.priorities.entry(priority).or_default() += 1;
    }

    fn take(&mut self, priority: u32) {
        self.policies -= 1;
        if let Some(n) = self.priorities.get_mut(&priority) {
            *n -= 1;
            if *n == 0 {
                self.priorities.remove(&priority);
            }
        }
    }

    fn best(&self) -> u32 {
        self.priorities.keys().next().copied().unwrap_or(u32::MAX)
    }
}

impl Sadb {
    /// Adds a policy.
    ///
    /// # Errors
    /// [`SadbError::Overlap`] with a policy of the same direction, selector and priority;
    /// [`SadbError::Full`], [`SadbError::Invalid`].
    pub fn add_policy(&mut self, policy: &Policy) -> Result<PolicyIndex, SadbError> {
        self.add_populated(policy, Populate::No)
    }

    /// Adds a policy that is populated from packets, or was. Whoever removes a policy removes those that were populated
    /// from it before.
    ///
    /// # Errors
    /// As [`Sadb::add_policy`]; [`SadbError::NotAbove`].
    pub fn add_populated(&mut self, policy: &Policy, populate: Populate) -> Result<PolicyIndex, SadbError> {
        if let Some(above) = populate.above() {
            let place = |p: &Policy| (p.direction, p.priority);
            let is_place = |p: Policy| place(&p) == place(policy) && self.populate(above).above().is_none();
            if !self.policy(above).is_some_and(is_place) {
                return Err(SadbError::NotAbove { above });
            }
        }
        let s = &policy.selector;
        if s.src.addr().is_ipv4() != s.dst.addr().is_ipv4() {
            return Err(SadbError::Invalid { field: "family of the selector", value: 0 });
        }
        if [&s.src_ports, &s.dst_ports].iter().any(|p| p.is_empty() && **p != OPAQUE_PORT) {
            return Err(SadbError::Invalid { field: "port range", value: 0 });
        }
        self.check_target(policy.sa)?;
        if let Some(with) = self.map.spd().twin(policy, populate) {
            return Err(SadbError::Overlap { with, selector: policy.selector.to_string() });
        }
        self.use_tuple(policy)?;
        let index = match self.take_policy() {
            Ok(index) => index,
            Err(e) => {
                self.leave_tuple(policy);
                return Err(e);
            }
        };
        // Never too few: before it is linked.
        self.look_inside(populate, 1);
        let spd = self.map.spd();
        spd.fill(index, policy, populate);
        spd.link(index, policy);
        spd.bump();
        self.note_user(index);
        Ok(index)
    }

    /// The policy of the same direction, selector and priority, which another cannot be beside.
    pub fn find_policy(&self, policy: &Policy) -> Option<PolicyIndex> {
        self.map.spd().twin(policy, Populate::No)
    }

    /// Ties a policy to SAs of another number: those must let in what it is for from now on.
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`].
    pub fn set_policy_reqid(&mut self, index: PolicyIndex, reqid: u32) -> Result<(), SadbError> {
        let policy = self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        if policy.reqid != reqid {
            let spd = self.map.spd();
            spd.policies[index.0 as usize].reqid.store(reqid, Ordering::Relaxed);
            spd.bump();
        }
        Ok(())
    }

    /// Makes a Protect policy use another SA, or none. Workers keep what they decided: their next packets of this
    /// policy use the other SA. Who rekeys publishes the new SA, points the policies to it, and retires the old one.
    /// Workers that have one of their own go on with it.
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`], [`SadbError::NoSuchSa`].
    pub fn set_policy_sa(&mut self, index: PolicyIndex, sa: Option<SlotIndex>) -> Result<(), SadbError> {
        self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        self.check_target(sa)?;
        let by = match self.map.policy_sas().uses(index).0 {
            By::Worker => By::Worker,
            By::Nothing | By::Dscp => By::Nothing,
        };
        self.use_others(index, |sadb| sadb.map.policy_sas().point(index, by, sa));
        Ok(())
    }

    /// Makes a Protect policy use an SA for each class of traffic (RFC 4301 §4.1), until [`Sadb::set_policy_sa`] gives
    /// it one. Classes that have the SA that they had are left alone.
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`], [`SadbError::NoSuchSa`].
    pub fn set_policy_classes(&mut self, index: PolicyIndex, classes: &Classes) -> Result<(), SadbError> {
        self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        classes.sas().try_for_each(|sa| self.check_target(Some(sa)))?;
        self.use_others(index, |sadb| {
            let set = &sadb.map.sets()[index.0 as usize];
            (0u8..).take(DSCPS).for_each(|dscp| set.point(dscp as usize, classes.sa(dscp)));
            sadb.map.policy_sas().point(index, By::Dscp, classes.default_sa());
        });
        Ok(())
    }

    /// The classes of a policy that has any.
    pub fn policy_classes(&self, index: PolicyIndex) -> Option<Classes> {
        let set = self.map.spd().set(index, By::Dscp)?;
        Some(Classes::of(|dscp| set.get(dscp), self.map.spd().sa(index)))
    }

    /// Makes a Protect policy use another SA for what one worker receives, whose SA it is; or none but that for all
    /// (RFC 9611).
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`], [`SadbError::NoSuchSa`]; [`SadbError::Invalid`] for the SA of another worker.
    pub fn set_worker_sa(
        &mut self,
        index: PolicyIndex,
        worker: u8,
        sa: Option<SlotIndex>,
    ) -> Result<(), SadbError> {
        self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        self.check_target(sa)?;
        // What a worker hands on because its own is another's would come back.
        let is_its = |slot| self.sa(slot).is_some_and(|(_, sa)| sa.worker == Some(worker));
        if usize::from(worker) >= MAX_WORKERS || sa.is_some_and(|slot| !is_its(slot)) {
            return Err(SadbError::Invalid { field: "worker", value: worker.into() });
        }
        self.use_others(index, |sadb| {
            let (sas, set) = (sadb.map.policy_sas(), &sadb.map.sets()[index.0 as usize]);
            let (by, of_all) = sas.uses(index);
            if by != By::Worker {
                sas.point(index, By::Nothing, of_all);
                (0..SET).for_each(|worker| set.point(worker, None));
            }
            set.point(worker.into(), sa);
            sadb.end_set(index, by);
        });
        Ok(())
    }

    /// The SA that a worker has of its own under a policy.
    pub fn worker_sa(&self, index: PolicyIndex, worker: u8) -> Option<SlotIndex> {
        self.map.spd().set(index, By::Worker)?.get(worker.into())
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// [`SadbError::NoSuchPolicy`].
    pub fn remove_policy(&mut self, index: PolicyIndex) -> Result<(), SadbError> {
        let policy = self.policy(index).ok_or(SadbError::NoSuchPolicy { index })?;
        let spd = self.map.spd();
        spd.policies[index.0 as usize].retire();
        spd.unlink(index, &policy);
        self.leave_tuple(&policy);
        self.look_inside(self.populate(index), u32::MAX);
        // Before the epoch: who announces that sees that what it has decided is of another version.
        self.map.spd().bump();
        self.forget_user(index);
        self.wait_for_workers(Limbo::Policy(index));
        Ok(())
    }

    /// Counts a policy more, or by the largest number one less, if it is populated from what fragments do not show.
    fn look_inside(&self, populate: Populate, by: u32) {
        if populate.looks_inside() {
            let count = &self.map.header().looks_inside;
            count.store(count.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        }
    }

    fn check_target(&self, sa: Option<SlotIndex>) -> Result<(), SadbError> {
        let lives =
            |s: &SlotIndex| self.map.slots().get(s.0 as usize).is_some_and(|s| s.generation().is_some());
        match sa {
            Some(slot) if !lives(&slot) => Err(SadbError::NoSuchSa { slot }),
            _ => Ok(()),
        }
    }

    /// A policy uses the SAs that it points to.
    fn note_user(&mut self, index: PolicyIndex) {
        for slot in self.map.spd().all_sas(index) {
            self.users.entry(slot).or_default().insert(index);
        }
    }

    fn forget_user(&mut self, index: PolicyIndex) {
        for slot in self.map.spd().all_sas(index) {
            let Some(users) = self.users.get_mut(&slot) else { continue };
            users.remove(&index);
            if users.is_empty() {
                self.users.remove(&slot);
            }
        }
    }

    /// Changes which SAs a policy uses.
    fn use_others(&mut self, index: PolicyIndex, change: impl FnOnce(&Sadb)) {
        self.forget_user(index);
        change(self);
        self.bump_policy_sas();
        self.note_user(index);
    }

    /// A policy does not point to this SA any more.
    pub(super) fn part(&self, index: PolicyIndex, sa: SlotIndex) {
        let sas = self.map.policy_sas();
        let (by, named) = sas.uses(index);
        if named == Some(sa) {
            sas.point(index, by, None);
        }
        if let Some(set) = self.map.spd().set(index, by) {
            set.forget(sa);
            if by == By::Worker {
                self.end_set(index, by);
            }
        }
        self.bump_policy_sas();
    }

    /// Says that workers have SAs of their own, or that they have not any more, where that is not what was said.
    fn end_set(&self, index: PolicyIndex, said: By) {
        let is_empty = self.map.sets()[index.0 as usize].sas().next().is_none();
        let by = if is_empty { By::Nothing } else { By::Worker };
        if by != said {
            self.map.policy_sas().point(index, by, self.map.spd().sa(index));
        }
    }

    pub(super) fn bump_policy_sas(&self) {
        let version = &self.map.header().policy_sas_version;
        version.store(version.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The policy in a slot.
    pub fn policy(&self, index: PolicyIndex) -> Option<Policy> {
        self.map.spd().policy(index)
    }

    /// How the policy in a slot is populated from packets, or was.
    pub fn populate(&self, index: PolicyIndex) -> Populate {
        self.map.spd().policies.get(index.0 as usize).map_or(Populate::No, PolicySlot::populate)
    }

    /// All policies.
    pub fn policies(&self) -> impl Iterator<Item = (PolicyIndex, Policy)> + '_ {
        (0..self.policies_used()).map(PolicyIndex).filter_map(|i| Some((i, self.policy(i)?)))
    }

    /// The policy for a flow, as workers find it.
    pub fn lookup(&self, direction: Direction, flow: &Flow) -> Option<PolicyHit> {
        self.map.spd().lookup(direction, flow)
    }

    /// Policies that there were ever; a damaged header cannot make it more than there are.
    pub(super) fn policies_used(&self) -> u32 {
        self.map.header().policies_used.load(Ordering::Relaxed).min(self.map.sizes.max_policies)
    }

    fn take_policy(&mut self) -> Result<PolicyIndex, SadbError> {
        if self.free_policies.is_empty() {
            self.reclaim();
        }
        if let Some(index) = self.free_policies.pop() {
            return Ok(index);
        }
        let used = &self.map.header().policies_used;
        let next = used.load(Ordering::Relaxed);
        if next == self.map.sizes.max_policies {
            return Err(SadbError::Full { what: "SPD", capacity: next });
        }
        used.store(next + 1, Ordering::Release);
        Ok(PolicyIndex(next))
    }

    /// Counts a policy in its tuple, which readers must know before the policy is linked.
    fn use_tuple(&mut self, policy: &Policy) -> Result<(), SadbError> {
        let bits = Spd::tuple_bits(policy);
        let slots = self.map.spd().tuples_of(policy.direction);
        let known = self.tuples.get(&bits).map(|t| t.at);
        // A slot that was used before, if there is one: the list stays short.
        let idle = || slots.iter().position(|t| t.count.load(Ordering::Relaxed) == 0);
        let at = known
            .or_else(idle)
            .ok_or(SadbError::Full { what: "kinds of selectors", capacity: MAX_TUPLES as u32 })?;
        let tuple = self.tuples.entry(bits).or_insert(TupleUse { at, ..TupleUse::default() });
        tuple.add(policy.priority);
        slots[at].set(bits, tuple.best(), tuple.policies);
        Ok(())
    }

    fn leave_tuple(&mut self, policy: &Policy) {
        let bits = Spd::tuple_bits(policy);
        let Some(tuple) = self.tuples.get_mut(&bits) else { return };
        tuple.take(policy.priority);
        let slots = self.map.spd().tuples_of(policy.direction);
        slots[tuple.at].set(bits, tuple.best(), tuple.policies);
        if tuple.policies == 0 {
            self.tuples.remove(&bits);
        }
    }

    /// Returns the policies that workers may still be using.
    pub(super) fn adopt_policies(&mut self) -> Vec<Limbo> {
        let mut gone = vec![];
        let used = self.policies_used();
        self.map.header().policies_used.store(used, Ordering::Release);
        for (at, slot) in self.map.spd().tuples.iter().enumerate() {
            let bits = slot.bits.load(Ordering::Relaxed);
            if bits != 0 {
                self.tuples.entry(bits).or_insert(TupleUse { at: at % MAX_TUPLES, ..TupleUse::default() });
            }
        }
        for index in (0..used).map(PolicyIndex) {
            let spd = self.map.spd();
            let slot = &spd.policies[index.0 as usize];
            let policy = slot.decode();
            // A policy that lives was counted in its tuple before: only damage can part them.
            let tuple = policy.as_ref().and_then(|p| self.tuples.get_mut(&Spd::tuple_bits(p)));
            match (slot.state.load(Ordering::Acquire), policy, tuple) {
                (LIVE, Some(policy), Some(tuple)) => {
                    tuple.add(policy.priority);
                    if !spd.is_linked(index, &policy) {
                        spd.link(index, &policy);
                    }
                    for sa in spd.all_sas(index) {
                        if self.check_target(Some(sa)).is_err() {
                            self.part(index, sa);
                        }
                    }
                    self.note_user(index);
                }
                (FREE, ..) => {
                    // It may have been given an SA, and then did not come.
                    if spd.sas.get(index).is_some() {
                        spd.sas.point(index, By::Nothing, None);
                    }
                    self.free_policies.push(index);
                }
                (_, policy, _) => {
                    if let Some(policy) = policy.filter(|p| spd.is_linked(index, p)) {
                        spd.unlink(index, &policy);
                    }
                    slot.retire();
                    gone.push(Limbo::Policy(index));
                }
            }
        }
        // Now, and no sooner: until here readers had what the predecessor knew of each tuple, which is never too
        // strict for a policy that lives.
        for (at, slot) in self.map.spd().tuples.iter().enumerate() {
            let bits = slot.bits.load(Ordering::Relaxed);
            match self.tuples.get(&bits) {
                Some(t) if t.at == at % MAX_TUPLES => slot.set(bits, t.best(), t.policies),
                // Counted for a policy that never came: it is free, and leaves no gap.
                _ if slot.count.load(Ordering::Relaxed) != 0 => slot.set(bits, u32::MAX, 0),
                _ => {}
            }
        }
        self.tuples.retain(|_, t| t.policies > 0);
        let look_inside = self.policies().filter(|(index, _)| self.populate(*index).looks_inside()).count();
        self.map.header().looks_inside.store(look_inside as u32, Ordering::Relaxed);
        gone
    }
}
