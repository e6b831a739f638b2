//! Policies that a predecessor has laid for traps, while it is not known yet which of them there are to be: where a trap is for the ends
//! themselves, and these have names, that is when the names are looked up. Until then what they are for is dropped, and does not
//! pass in clear.

use super::{Children, FIRST_REQID, Group};
use portcullis_sadb::{Action, MAX_WORKERS, PolicyIndex, Sadb};
use std::collections::HashSet;

impl Children {
    /// Holds the policies of children that are nobody's, and what child SAs of these connections leave: they stay, without an SA,
    /// until a trap or a child SA takes them, or [`Children::let_go`]. Returns how many there are.
    pub fn hold(&mut self, sadb: &mut Sadb, connections: HashSet<String>) -> usize {
        (self.held, self.holding) = (self.left(sadb), connections);
        take_sas(sadb, &self.held);
        self.held.len()
    }

    /// Holds those of a group that goes, if it is of such a connection.
    pub(super) fn hold_group(&mut self, sadb: &mut Sadb, number: u32) {
        let is_held = |group: &&mut Box<Group>| self.holding.contains(&group.purpose.connection);
        let Some(group) = self.groups.get_mut(&number).filter(is_held) else { return };
        let mut alone = vec![];
        for of in [&mut group.outbound, &mut group.inbound] {
            alone.extend(of.extract_if(.., |index| !self.shared.contains_key(index)));
        }
        take_sas(sadb, &alone);
        self.held.extend(alone);
    }

    /// Those that are held and still nobody's.
    pub fn held(&self) -> impl Iterator<Item = PolicyIndex> {
        self.held.iter().copied()
    }

    /// What is held and still nobody's goes. Returns how many.
    pub fn let_go(&mut self, sadb: &mut Sadb) -> usize {
        let held = std::mem::take(&mut self.held);
        self.holding.clear();
        let left: Vec<_> = self.left(sadb).into_iter().filter(|index| held.contains(index)).collect();
        left.iter().for_each(|index| _ = sadb.remove_policy(*index));
        left.len()
    }

    /// Policies of child SAs that none has.
    fn left(&self, sadb: &Sadb) -> Vec<PolicyIndex> {
        let ours: HashSet<_> = self.policies().collect();
        let of_children =
            sadb.policies().filter(|(_, p)| p.action == Action::Protect && p.reqid >= FIRST_REQID);
        of_children.map(|(index, _)| index).filter(|index| !ours.contains(index)).collect()
    }
}

/// Nothing leaves by an SA of these policies.
fn take_sas(sadb: &mut Sadb, policies: &[PolicyIndex]) {
    for index in policies {
        for worker in 0..MAX_WORKERS as u8 {
            if sadb.worker_sa(*index, worker).is_some() {
                let _ = sadb.set_worker_sa(*index, worker, None);
            }
        }
        if sadb.policy(*index).is_some_and(|policy| policy.sa.is_some()) {
            let _ = sadb.set_policy_sa(*index, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Trap,
        tests::{Bench, install, nets, traffic},
    };
    use super::*;
    use portcullis_ike::v2::child::Install;

    fn trap() -> Trap {
        Trap { connection: "peer".into(), child: "net".into(), traffic: nets(), priority: 0 }
    }

    fn hold(bench: &mut Bench) -> usize {
        bench.children.hold(&mut bench.sadb, HashSet::from(["peer".to_owned()]))
    }

    fn indices(bench: &Bench) -> Vec<PolicyIndex> {
        bench.sadb.policies().map(|(index, _)| index).collect()
    }

    /// One that is killed while it has this trap, with or without an SA.
    fn killed(has_sa: bool) -> (Bench, Vec<PolicyIndex>) {
        let mut bench = Bench::new(16, 64);
        assert!(bench.children.set_traps(&mut bench.sadb, &[trap()]).is_empty());
        if has_sa {
            bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
        }
        bench.children = Children::default();
        let before = indices(&bench);
        (bench, before)
    }

    #[test]
    fn what_is_left_stays_until_its_trap_is_known() {
        for has_sa in [false, true] {
            let (mut bench, before) = killed(has_sa);
            assert!(bench.children.set_traps(&mut bench.sadb, &[]).is_empty());
            assert_eq!(hold(&mut bench), before.len());
            assert_eq!((indices(&bench), bench.children.policies().count()), (before.clone(), 0));
            assert!(bench.children.held().eq(before.iter().copied()));
            // Nothing leaves by an SA that nobody has any more.
            assert!(bench.sadb.policies().all(|(_, policy)| policy.sa.is_none()));
            assert!(bench.children.set_traps(&mut bench.sadb, &[trap()]).is_empty());
            assert_eq!(bench.children.let_go(&mut bench.sadb), 0);
            assert_eq!((indices(&bench), bench.children.held().count()), (before, 0));
        }
    }

    #[test]
    fn what_a_child_sa_leaves_meanwhile_stays_too() {
        for is_replaced in [false, true] {
            let (mut bench, before) = killed(false);
            hold(&mut bench);
            // Another connection's go as ever.
            let others = traffic(&["10.1.0.0/16"], &["10.9.0.0/16"]);
            let other = install(0x1002, 0x2002, others, None, true);
            bench.install(&Install { connection: "other".into(), ..other }).unwrap();
            bench.children.remove(&mut bench.sadb, 0x1002);
            bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
            assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
            match is_replaced {
                true => bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100),
                false => bench.children.remove(&mut bench.sadb, 0x1001),
            }
            bench.children.expire(&mut bench.sadb, u32::MAX);
            assert_eq!((bench.has().0, indices(&bench)), (vec![], before.clone()));
            assert!(bench.sadb.policies().all(|(_, policy)| policy.sa.is_none()));
            assert!(bench.children.set_traps(&mut bench.sadb, &[trap()]).is_empty());
            assert_eq!((bench.children.let_go(&mut bench.sadb), indices(&bench)), (0, before));
            // From now on they go.
            assert!(bench.children.set_traps(&mut bench.sadb, &[]).is_empty());
            assert_eq!(bench.has(), (vec![], 0));
        }
    }

    #[test]
    fn what_is_not_wanted_goes_and_nothing_else() {
        let (mut bench, before) = killed(false);
        hold(&mut bench);
        // A child SA takes some of them, and another trap is laid.
        let (narrow, other) = (traffic(&["10.1.0.0/16"], &["10.2.0.0/16"]), ["10.1.0.0/16", "10.9.0.0/16"]);
        bench.install(&install(0x1001, 0x2001, narrow, None, true)).unwrap();
        let other = Trap { traffic: traffic(&other[..1], &other[1..]), ..trap() };
        assert!(bench.children.set_traps(&mut bench.sadb, &[other]).is_empty());
        assert_eq!(bench.children.let_go(&mut bench.sadb), before.len() - 2);
        let owned: HashSet<_> = bench.children.policies().collect();
        assert_eq!(owned, indices(&bench).into_iter().collect());
        assert_eq!((owned.len(), bench.leaves_by("10.1.0.1", "10.2.0.1")), (4, Some(0x2001)));
    }
}
