//! Traps: policies of child SAs that are not there, whose first packet asks for them (RFC 4301 §5.1).
//!
//! A trap has the policies that its child SA will have, so that the SA comes under them and packets go at once; when the last is
//! gone the policies stay. Where the peer has narrowed what the child is for, the SA has of the trap's
//! policies those that are for the same, and else its own in front of them ([`super::shared`]).

use super::{Children, FIRST_REQID, Group, Purpose};
use crate::install::back;
use portcullis_ike::traffic_selector::Policy as Traffic;
use portcullis_sadb::{Action, Direction, PolicyIndex, Sadb, SadbError, Selector};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// A child whose first packet asks for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trap {
    /// Its connection.
    pub connection: String,
    /// Its name.
    pub child: String,
    /// What it is for.
    pub traffic: Traffic,
    /// As it is configured; 0 is where the selectors say.
    pub priority: u32,
}

impl Trap {
    fn purpose(&self) -> Purpose {
        let (connection, traffic) = (self.connection.clone(), Arc::new(self.traffic.clone()));
        Purpose { connection, traffic, priority: self.priority }
    }
}

impl Children {
    /// There are these traps from now on, and no others. Returns those that cannot be.
    pub fn set_traps<'a>(&mut self, sadb: &mut Sadb, wanted: &'a [Trap]) -> Vec<(&'a Trap, SadbError)> {
        let trapped = self.groups.values().filter(|group| group.trap.is_some());
        let gone = trapped.filter(|group| !wanted.iter().any(|trap| group.is_trap(trap)));
        for number in gone.map(|group| group.number).collect::<Vec<_>>() {
            self.groups.entry(number).and_modify(|group| group.trap = None);
            self.tidy(sadb, number);
        }
        let mut failed = vec![];
        let mut left = None;
        for trap in wanted {
            let known = self.numbers.get(&trap.purpose()).copied();
            if let Some(group) = known.and_then(|number| self.groups.get_mut(&number)) {
                group.trap = Some(trap.child.clone());
                continue;
            }
            let left = left.get_or_insert_with(|| Left::of(sadb, &self.policies().collect()));
            if let Err(error) = self.lay(sadb, trap, left) {
                failed.push((trap, error));
            }
        }
        failed
    }

    fn lay(&mut self, sadb: &mut Sadb, trap: &Trap, left: &mut Left) -> Result<(), SadbError> {
        let there = super::selectors(&trap.traffic).unwrap_or_default();
        let left = there.first().and_then(|first| left.take(first, &there));
        // One that is in use as it is, another group's is not.
        let left = left.filter(|(reqid, _)| !self.groups.contains_key(reqid));
        let number = left.as_ref().map_or_else(|| self.free_number(sadb), |(reqid, _)| *reqid);
        let mut group =
            Group { trap: Some(trap.child.clone()), ..Group::new(trap.purpose(), (number, number)) };
        if let Some((_, [outbound, inbound])) = left {
            (group.outbound, group.inbound) = (outbound, inbound);
            self.put_group(group);
            return Ok(());
        }
        self.put_group(group);
        let mut laid = Ok(());
        for direction in [Direction::Inbound, Direction::Outbound] {
            laid = laid.and_then(|()| self.have_policies(sadb, number, direction, None));
        }
        laid.inspect_err(|_| {
            self.groups.entry(number).and_modify(|group| group.trap = None);
            self.tidy(sadb, number);
        })
    }

    /// The connection and the child whose trap has this policy, if it has no SA.
    pub fn trapped(&self, sadb: &Sadb, policy: PolicyIndex) -> Option<(String, String)> {
        let there = sadb.policy(policy).filter(|p| p.reqid >= FIRST_REQID && p.sa.is_none());
        let group = there.and_then(|_| self.owner(sadb, policy))?;
        Some((group.purpose.connection.clone(), group.trap.clone()?))
    }
}

/// Policies that a predecessor has left: those of traps are taken as they are, so that none is missing for a moment.
struct Left {
    reqids: HashMap<Selector, u32>,
    policies: HashMap<u32, [HashMap<Selector, PolicyIndex>; 2]>,
}

impl Left {
    fn of(sadb: &Sadb, owned: &HashSet<PolicyIndex>) -> Left {
        let mut left = Left { reqids: HashMap::new(), policies: HashMap::new() };
        let is_left = |index: &PolicyIndex| !owned.contains(index);
        for (index, policy) in sadb.policies().filter(|(index, p)| is_left(index) && p.reqid >= FIRST_REQID) {
            if policy.action == Action::Protect && policy.sa.is_none() {
                let is_inbound = policy.direction == Direction::Inbound;
                if !is_inbound {
                    left.reqids.insert(policy.selector.clone(), policy.reqid);
                }
                let of = left.policies.entry(policy.reqid).or_default();
                of[usize::from(is_inbound)].insert(policy.selector, index);
            }
        }
        left
    }

    /// Those of a trap, if they are all there.
    fn take(&mut self, first: &Selector, there: &[Selector]) -> Option<(u32, [Vec<PolicyIndex>; 2])> {
        let reqid = *self.reqids.get(first)?;
        let [outbound, inbound] = self.policies.get(&reqid)?;
        if (outbound.len(), inbound.len()) != (there.len(), there.len()) {
            return None;
        }
        let all = |of: &HashMap<Selector, PolicyIndex>, way: fn(&Selector) -> Selector| {
            there.iter().map(|selector| of.get(&way(selector)).copied()).collect::<Option<Vec<_>>>()
        };
        let found = [all(outbound, Selector::clone)?, all(inbound, back)?];
        self.policies.remove(&reqid);
        Some((reqid, found))
    }
}

impl Group {
    /// Whether it is the trap's.
    fn is_trap(&self, trap: &Trap) -> bool {
        self.trap.as_ref() == Some(&trap.child) && *self.purpose == trap.purpose()
    }

    /// Whether there is anything of it.
    pub(super) fn is_needed(&self) -> bool {
        !self.sas.is_empty() || self.trap.is_some() || !self.lingering.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, install, nets};
    use super::*;

    fn trap() -> Trap {
        Trap { connection: "peer".into(), child: "net".into(), traffic: nets(), priority: 0 }
    }

    #[test]
    fn an_sa_comes_under_the_policies_of_its_trap_and_leaves_them_there() {
        let mut bench = Bench::new(16, 64);
        let wanted = [trap()];
        assert!(bench.children.set_traps(&mut bench.sadb, &wanted).is_empty());
        let policies: Vec<_> = bench.sadb.policies().map(|(index, _)| index).collect();
        assert_eq!((bench.has().0.len(), policies.len()), (0, 2 * 4));
        assert_eq!(bench.children.policies().count(), policies.len());
        let outbound: Vec<_> = policies
            .iter()
            .copied()
            .filter(|index| bench.sadb.policy(*index).is_some_and(|p| p.direction == Direction::Outbound))
            .collect();
        let asked = |bench: &Bench| bench.children.trapped(&bench.sadb, outbound[0]);
        let named = Some(("peer".to_owned(), "net".to_owned()));
        assert_eq!(asked(&bench), named);
        for spi in [0x1001, 0x1002] {
            bench.install(&install(spi, spi + 0x1000, nets(), None, true)).unwrap();
            assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(spi + 0x1000));
            assert_eq!(asked(&bench), None, "it is there");
            bench.children.remove(&mut bench.sadb, spi);
            assert_eq!((bench.has().0.len(), asked(&bench)), (0, named.clone()));
            assert_eq!(bench.sadb.policies().map(|(index, _)| index).collect::<Vec<_>>(), policies);
        }
        // Another process takes them over as they are.
        bench.children = Children::default();
        assert!(bench.children.set_traps(&mut bench.sadb, &wanted).is_empty());
        assert_eq!(bench.sadb.policies().map(|(index, _)| index).collect::<Vec<_>>(), policies);
        assert_eq!(asked(&bench), named);
        // With an SA, the policies stay until that is gone.
        bench.install(&install(0x1003, 0x2003, nets(), None, true)).unwrap();
        assert!(bench.children.set_traps(&mut bench.sadb, &[]).is_empty());
        assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2003));
        bench.children.remove(&mut bench.sadb, 0x1003);
        assert_eq!(bench.has(), (vec![], 0));
    }

    #[test]
    fn a_trap_that_is_not_wanted_any_more_goes_and_one_that_cannot_be_is_told() {
        let mut bench = Bench::new(16, 8);
        let (first, second) = (trap(), Trap { child: "other".into(), connection: "other".into(), ..trap() });
        assert!(bench.children.set_traps(&mut bench.sadb, std::slice::from_ref(&first)).is_empty());
        // The same policies are another's.
        let both = [first, second.clone()];
        let failed = bench.children.set_traps(&mut bench.sadb, &both);
        assert_eq!(failed.iter().map(|(trap, _)| *trap).collect::<Vec<_>>(), [&second]);
        assert_eq!(bench.has().1, 8);
        assert!(bench.children.set_traps(&mut bench.sadb, &[]).is_empty());
        assert_eq!(bench.has(), (vec![], 0));
    }
}
