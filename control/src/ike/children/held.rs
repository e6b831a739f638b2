//! Policies that a predecessor has laid for traps, while it is not known yet which of them there are to be: where a trap is for the ends
//! themselves, and these have names, that is when the names are looked up. Until then what they are for is dropped, and does not
//! pass in clear.

use super::{Children, FIRST_REQID};
use portcullis_sadb::{Action, MAX_WORKERS, PolicyIndex, Sadb};
use std::collections::HashSet;

impl Children {
    /// Holds the policies of children that are nobody's: they stay, without an SA, until a trap or a child SA takes them, or
    /// [`Children::let_go`]. Returns how many.
    pub fn hold(&mut self, sadb: &mut Sadb) -> usize {
        self.held = self.left(sadb);
        for index in &self.held {
            for worker in 0..MAX_WORKERS as u8 {
                if sadb.worker_sa(*index, worker).is_some() {
                    let _ = sadb.set_worker_sa(*index, worker, None);
                }
            }
            if sadb.policy(*index).is_some_and(|policy| policy.sa.is_some()) {
                let _ = sadb.set_policy_sa(*index, None);
            }
        }
        self.held.len()
    }

    /// Those that are held and still nobody's.
    pub fn held(&self) -> impl Iterator<Item = PolicyIndex> {
        self.held.iter().copied()
    }

    /// What is held and still nobody's goes. Returns how many.
    pub fn let_go(&mut self, sadb: &mut Sadb) -> usize {
        let held = std::mem::take(&mut self.held);
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

#[cfg(test)]
mod tests {
    use super::super::{
        Trap,
        tests::{Bench, install, nets, traffic},
    };
    use super::*;

    fn trap() -> Trap {
        Trap { connection: "peer".into(), child: "net".into(), traffic: nets(), priority: 0 }
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
            assert_eq!(bench.children.hold(&mut bench.sadb), before.len());
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
    fn what_is_not_wanted_goes_and_nothing_else() {
        let (mut bench, before) = killed(false);
        bench.children.hold(&mut bench.sadb);
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
