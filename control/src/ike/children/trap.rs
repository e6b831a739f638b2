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
    /// There are these traps from now on, and no others. Returns those that cannot be. What is new is there before anything goes,
    /// but where the two cannot be together.
    pub fn set_traps<'a>(&mut self, sadb: &mut Sadb, wanted: &'a [Trap]) -> Vec<(&'a Trap, SadbError)> {
        let fresh: Vec<_> = wanted.iter().filter(|trap| !self.name_trap(trap)).collect();
        let purposes: HashSet<_> = wanted.iter().map(Trap::purpose).collect();
        let is_gone = |group: &Group| group.trap.is_some() && !purposes.contains(&*group.purpose);
        let gone: Vec<_> = self.groups.values().filter(|group| is_gone(group)).map(|g| g.number).collect();
        // What goes is left for others to take.
        let over: Vec<_> = gone.into_iter().flat_map(|number| self.release(sadb, number)).collect();
        if fresh.is_empty() && over.is_empty() {
            return vec![];
        }
        let fresh = self.lay_all(sadb, fresh);
        let placed: HashSet<_> = self.policies().collect();
        for index in over.into_iter().filter(|index| !placed.contains(index)) {
            let _ = sadb.remove_policy(index);
        }
        self.lay_all(sadb, fresh.into_iter().map(|(trap, _)| trap).collect())
    }

    /// A group is no trap's any more. Returns the policies that are nobody's then, and still there.
    fn release(&mut self, sadb: &mut Sadb, number: u32) -> Vec<PolicyIndex> {
        let Some(group) = self.groups.get_mut(&number) else { return vec![] };
        group.trap = None;
        if group.is_needed() {
            return vec![];
        }
        let mut alone = vec![];
        for of in [&mut group.outbound, &mut group.inbound] {
            alone.extend(of.extract_if(.., |index| !self.shared.contains_key(index)));
        }
        self.tidy(sadb, number);
        alone
    }

    /// Has a trap the child's whose policies are there. False if they are not: of one whose inbound SAs only linger, those of
    /// what goes out are gone.
    fn name_trap(&mut self, trap: &Trap) -> bool {
        let known = self.numbers.get(&trap.purpose()).and_then(|number| self.groups.get_mut(number));
        let known = known.filter(|group| !group.outbound.is_empty());
        known.map(|group| group.trap = Some(trap.child.clone())).is_some()
    }

    /// Lays traps, first those whose policies are all there. Returns those that cannot be.
    fn lay_all<'a>(&mut self, sadb: &mut Sadb, traps: Vec<&'a Trap>) -> Vec<(&'a Trap, SadbError)> {
        if traps.is_empty() {
            return vec![];
        }
        let mut left = Left::of(sadb, &self.policies().collect());
        let fresh: Vec<_> = traps.into_iter().filter(|trap| !self.take_left(trap, &mut left)).collect();
        fresh.into_iter().filter_map(|trap| Some((trap, self.lay(sadb, trap).err()?))).collect()
    }

    /// A trap has what is left, if that is all that it has. False if it is not.
    fn take_left(&mut self, trap: &Trap, left: &mut Left) -> bool {
        if self.numbers.contains_key(&trap.purpose()) {
            return false;
        }
        let taken = trap.purpose().places().and_then(|places| left.take(&places));
        // One that is in use as it is, another group's is not.
        let Some((reqid, [outbound, inbound])) = taken.filter(|(reqid, _)| !self.groups.contains_key(reqid))
        else {
            return false;
        };
        let group = Group::new(trap.purpose(), (reqid, reqid));
        self.put_group(Group { trap: Some(trap.child.clone()), outbound, inbound, ..group });
        true
    }

    fn lay(&mut self, sadb: &mut Sadb, trap: &Trap) -> Result<(), SadbError> {
        // Several children can be for the same.
        if self.name_trap(trap) {
            return Ok(());
        }
        let lingers = self.numbers.get(&trap.purpose()).copied();
        let number = lingers.unwrap_or_else(|| {
            let number = self.free_number(sadb);
            self.put_group(Group::new(trap.purpose(), (number, number)));
            number
        });
        self.groups.entry(number).and_modify(|group| group.trap = Some(trap.child.clone()));
        let mut laid = Ok(());
        for direction in [Direction::Inbound, Direction::Outbound] {
            laid = laid.and_then(|()| self.have_policies(sadb, number, direction, None));
        }
        laid.inspect_err(|_| {
            self.groups.entry(number).and_modify(|group| group.trap = None);
            self.tidy(sadb, number);
        })
    }

    /// The connection and the child whose trap has this policy, if it has no SA, and none that is not sent by yet.
    pub fn trapped(&self, sadb: &Sadb, policy: PolicyIndex) -> Option<(String, String)> {
        let has_sa = |number: &u32| self.groups.get(number).is_some_and(|group| !group.sas.is_empty());
        let all = self.shared.get(&policy).map_or(&[][..], |groups| groups);
        if self.owner(sadb, policy).is_some_and(|group| !group.sas.is_empty()) || all.iter().any(has_sa) {
            return None;
        }
        let there = sadb.policy(policy).filter(|p| p.reqid >= FIRST_REQID && p.sa.is_none());
        let group = there.and_then(|_| self.owner(sadb, policy))?;
        Some((group.purpose.connection.clone(), group.trap.clone()?))
    }
}

/// Where a policy stands, and what it is for.
type Place = (u32, Selector);

impl Purpose {
    /// Those of its policies of what goes out; nothing if they are too many.
    fn places(&self) -> Option<Vec<Place>> {
        let policies = self.policies(Direction::Outbound, 0)?;
        Some(policies.into_iter().map(|policy| (policy.priority, policy.selector)).collect())
    }
}

/// Policies that a predecessor has left, or a trap that goes: those of traps are taken as they are, so that none is missing for a
/// moment.
struct Left {
    reqids: HashMap<Place, u32>,
    policies: HashMap<u32, [HashMap<Place, PolicyIndex>; 2]>,
}

impl Left {
    fn of(sadb: &Sadb, owned: &HashSet<PolicyIndex>) -> Left {
        let mut left = Left { reqids: HashMap::new(), policies: HashMap::new() };
        let is_left = |index: &PolicyIndex| !owned.contains(index);
        for (index, policy) in sadb.policies().filter(|(index, p)| is_left(index) && p.reqid >= FIRST_REQID) {
            if policy.action == Action::Protect && policy.sa.is_none() {
                let is_inbound = policy.direction == Direction::Inbound;
                let place = (policy.priority, policy.selector);
                if !is_inbound {
                    left.reqids.insert(place.clone(), policy.reqid);
                }
                let of = left.policies.entry(policy.reqid).or_default();
                of[usize::from(is_inbound)].insert(place, index);
            }
        }
        left
    }

    /// Those of a trap, if they are all there.
    fn take(&mut self, places: &[Place]) -> Option<(u32, [Vec<PolicyIndex>; 2])> {
        let reqid = *self.reqids.get(places.first()?)?;
        let [outbound, inbound] = self.policies.get(&reqid)?;
        if (outbound.len(), inbound.len()) != (places.len(), places.len()) {
            return None;
        }
        let all = |of: &HashMap<Place, PolicyIndex>, way: fn(&Selector) -> Selector| {
            let at = |(priority, selector): &Place| of.get(&(*priority, way(selector))).copied();
            places.iter().map(at).collect::<Option<Vec<_>>>()
        };
        let found = [all(outbound, Selector::clone)?, all(inbound, back)?];
        self.policies.remove(&reqid);
        Some((reqid, found))
    }
}

impl Group {
    /// Whether there is anything of it.
    pub(super) fn is_needed(&self) -> bool {
        !self.sas.is_empty() || self.trap.is_some() || !self.lingering.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, install, nets, traffic};
    use super::*;
    use portcullis_ike::v2::child::Install;

    fn trap() -> Trap {
        Trap { connection: "peer".into(), child: "net".into(), traffic: nets(), priority: 0 }
    }

    #[test]
    fn a_trap_is_laid_where_an_sa_only_lingers() {
        let mut bench = Bench::new(16, 64);
        bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
        bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
        assert_eq!(bench.has().0, [0x1001]);
        assert!(bench.children.set_traps(&mut bench.sadb, &[trap()]).is_empty());
        let is_trapped = |bench: &Bench| {
            let outbound = bench.sadb.policies().filter(|(_, p)| p.direction == Direction::Outbound);
            let trapped: Vec<_> =
                outbound.map(|(index, _)| bench.children.trapped(&bench.sadb, index)).collect();
            trapped == vec![Some(("peer".into(), "net".into())); 4]
        };
        assert!(is_trapped(&bench));
        bench.children.expire(&mut bench.sadb, 1000);
        assert!(is_trapped(&bench) && bench.has() == (vec![], 2 * 4));
        bench.install(&install(0x1002, 0x2002, nets(), None, true)).unwrap();
        assert_eq!(bench.has(), (vec![0x1002, 0x2002], 2 * 4));
        bench.children.remove(&mut bench.sadb, 0x1002);
        assert!(bench.children.set_traps(&mut bench.sadb, &[]).is_empty());
        assert!(bench.is_empty());
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

    /// What the peer has begun, and is not known to have yet, is not asked for a second time.
    #[test]
    fn a_trap_asks_for_nothing_that_is_not_sent_by_yet() {
        for to in [nets(), traffic(&["10.1.0.0/16"], &["10.2.0.0/16"])] {
            let mut bench = Bench::new(16, 64);
            assert!(bench.children.set_traps(&mut bench.sadb, &[trap()]).is_empty());
            let outbound = |bench: &Bench| -> Vec<_> {
                let all = bench.sadb.policies().filter(|(_, p)| p.direction == Direction::Outbound);
                all.map(|(index, policy)| (index, policy.selector)).collect()
            };
            let is_its = |selector: &Selector| {
                to.pairs().any(|(local, remote)| {
                    let (src, dst) = (selector.src.addr(), selector.dst.addr());
                    local.addresses().0 == src && remote.addresses().0 == dst
                })
            };
            let install = install(0x1001, 0x2001, to.clone(), None, false);
            bench.install(&Install { is_alone: true, ..install }).unwrap();
            let asks = |bench: &Bench| {
                let of = outbound(bench).into_iter().filter(|(_, selector)| is_its(selector));
                of.filter(|(index, _)| bench.children.trapped(&bench.sadb, *index).is_some()).count()
            };
            assert_eq!((asks(&bench), bench.leaves_by("10.1.0.1", "10.2.0.1")), (0, None));
            bench.children.send_by(&mut bench.sadb, 0x1001);
            assert_eq!((asks(&bench), bench.leaves_by("10.1.0.1", "10.2.0.1")), (0, Some(0x2001)));
            bench.children.remove(&mut bench.sadb, 0x1001);
            assert!(asks(&bench) > 0, "it is gone");
        }
    }

    fn indices(bench: &Bench) -> Vec<PolicyIndex> {
        bench.sadb.policies().map(|(index, _)| index).collect()
    }

    fn set(bench: &mut Bench, wanted: &[Trap]) -> Vec<PolicyIndex> {
        assert!(bench.children.set_traps(&mut bench.sadb, wanted).is_empty());
        let owned: HashSet<_> = bench.children.policies().collect();
        assert_eq!(owned, indices(bench).into_iter().collect());
        indices(bench)
    }

    #[test]
    fn a_trap_of_another_name_keeps_its_policies() {
        let mut bench = Bench::new(16, 64);
        let before = set(&mut bench, &[trap()]);
        let child = Trap { child: "other".into(), ..trap() };
        assert_eq!(set(&mut bench, std::slice::from_ref(&child)), before);
        let connection = Trap { connection: "other".into(), ..child };
        assert_eq!(set(&mut bench, std::slice::from_ref(&connection)), before);
        let named = Some(("other".to_owned(), "other".to_owned()));
        let is_outbound =
            |index: &PolicyIndex| bench.sadb.policy(*index).unwrap().direction == Direction::Outbound;
        let outbound = before.iter().copied().find(is_outbound).unwrap();
        assert_eq!(bench.children.trapped(&bench.sadb, outbound), named);
        // In another place it has others.
        let after = set(&mut bench, &[Trap { priority: 7, ..connection }]);
        assert_eq!(after.len(), before.len());
        assert!(bench.sadb.policies().all(|(_, policy)| policy.priority == 4007));
    }

    #[test]
    fn what_is_new_has_of_what_goes_what_is_the_same() {
        let mut bench = Bench::new(16, 64);
        let wide = Trap { traffic: traffic(&["10.1.0.0/16"], &["10.2.0.0/16", "10.8.0.0/16"]), ..trap() };
        let of_both = |bench: &Bench| {
            let to = traffic(&["10.1.0.0/16"], &["10.2.0.0/16"]);
            let purpose = Trap { traffic: to, ..trap() }.purpose();
            [Direction::Outbound, Direction::Inbound].map(|direction| {
                let policy = purpose.policies(direction, 0).unwrap().remove(0);
                bench.sadb.find_policy(&policy).unwrap()
            })
        };
        for name in ["peer", "other"] {
            set(&mut bench, &[trap()]);
            let before = of_both(&bench);
            let next = Trap { connection: name.into(), ..wide.clone() };
            assert_eq!(set(&mut bench, std::slice::from_ref(&next)).len(), 4);
            assert_eq!(of_both(&bench), before);
            let asked = bench.children.trapped(&bench.sadb, before[0]);
            assert_eq!(asked, Some((name.to_owned(), "net".to_owned())));
            assert!(set(&mut bench, &[]).is_empty());
        }
    }

    #[test]
    fn one_that_cannot_be_takes_nothing_of_what_goes_with_it() {
        let mut bench = Bench::new(16, 4);
        let to = |connection: &str, remote: &[&str]| Trap {
            connection: connection.into(),
            traffic: traffic(&["10.1.0.0/16"], remote),
            ..trap()
        };
        let before = set(&mut bench, &[to("peer", &["10.2.0.0/16"])]);
        let wanted =
            [to("wide", &["10.2.0.0/16", "10.4.0.0/16", "10.6.0.0/16"]), to("other", &["10.2.0.0/16"])];
        let failed = bench.children.set_traps(&mut bench.sadb, &wanted);
        assert_eq!(failed.iter().map(|(trap, _)| *trap).collect::<Vec<_>>(), [&wanted[0]]);
        assert_eq!(indices(&bench), before);
        assert!(set(&mut bench, &[]).is_empty());
    }

    #[test]
    fn where_there_is_no_room_for_both_what_goes_makes_it() {
        let mut bench = Bench::new(16, 8);
        let other = Trap { traffic: traffic(&["10.1.0.0/16"], &["10.8.0.0/16"]), ..trap() };
        assert_eq!(set(&mut bench, &[trap()]).len(), 8);
        assert_eq!(set(&mut bench, std::slice::from_ref(&other)).len(), 2);
    }
}
