//! Shunts: policies of children with `mode = pass` and `mode = drop`, whose packets go in clear or not at all (RFC 4301
//! §4.4.1).
//!
//! Those that pass come before the children's policies, and those that are dropped behind them, if nothing else is said
//! ([`super::priority`]). They hold for both directions, as a child's do.

use super::{Children, FIRST_REQID, priority, selectors};
use crate::install::back;
use portcullis_ike::traffic_selector::Policy as Traffic;
use portcullis_sadb::{Action, Direction, Policy, PolicyIndex, Sadb, SadbError, Selector};
use std::collections::{HashMap, HashSet};

/// A policy that has no SA.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Shunt {
    /// Its connection.
    pub connection: String,
    /// The child's name.
    pub child: String,
    /// Bypass or Discard.
    pub action: Action,
    /// What it is for.
    pub traffic: Traffic,
    /// Where it stands among others; 0 is where its selectors say.
    pub priority: u32,
}

impl Shunt {
    fn policies(&self) -> Result<Vec<Policy>, SadbError> {
        let all = selectors(&self.traffic).ok_or(super::TOO_MANY)?;
        let each = |selector: Selector| {
            let policy = |direction, selector: Selector| Policy {
                direction,
                priority: priority(&selector, self.action, self.priority),
                selector,
                action: self.action,
                // It ties nothing to it, but tells whose it is.
                reqid: FIRST_REQID,
                sa: None,
            };
            [policy(Direction::Inbound, back(&selector)), policy(Direction::Outbound, selector)]
        };
        Ok(all.into_iter().flat_map(each).collect())
    }
}

/// What tells a policy from all others.
type Place = (Direction, u32, Selector, Action);

fn place(policy: &Policy) -> Place {
    (policy.direction, policy.priority, policy.selector.clone(), policy.action)
}

impl Children {
    /// There are these shunts from now on, and no others. Returns those that cannot be. What is new is there before anything
    /// goes, but where the two cannot be together.
    pub fn set_shunts<'a>(&mut self, sadb: &mut Sadb, wanted: &'a [Shunt]) -> Vec<(&'a Shunt, SadbError)> {
        let all: HashSet<_> = wanted.iter().collect();
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.shunts).into_iter().partition(|(shunt, _)| all.contains(shunt));
        self.shunts = kept;
        let there: HashSet<_> = self.shunts.iter().map(|(shunt, _)| shunt).collect();
        let fresh: Vec<_> = wanted.iter().filter(|shunt| !there.contains(shunt)).collect();
        let mut left = if fresh.is_empty() { HashMap::new() } else { self.left_shunts(sadb) };
        let add = |children: &mut Children, sadb: &mut Sadb, shunt: &'a Shunt, left: &mut _| {
            let policies = add(sadb, shunt, left).map_err(|error| (shunt, error))?;
            children.shunts.push((shunt.clone(), policies));
            Ok(())
        };
        let again: Vec<_> =
            fresh.into_iter().filter(|shunt| add(self, sadb, shunt, &mut left).is_err()).collect();
        let ours = self.of_shunts();
        for index in gone.into_iter().flat_map(|(_, policies)| policies).filter(|index| !ours.contains(index))
        {
            let _ = sadb.remove_policy(index);
        }
        left.retain(|_, index| sadb.policy(*index).is_some());
        again.into_iter().filter_map(|shunt| add(self, sadb, shunt, &mut left).err()).collect()
    }

    fn of_shunts(&self) -> HashSet<PolicyIndex> {
        self.shunts.iter().flat_map(|(_, policies)| policies).copied().collect()
    }

    /// Policies that a predecessor has left, or a shunt that goes: they are taken as they are, so that none is missing for a moment.
    fn left_shunts(&self, sadb: &Sadb) -> HashMap<Place, PolicyIndex> {
        let ours = self.of_shunts();
        let of_shunts =
            sadb.policies().filter(|(_, p)| p.action != Action::Protect && p.reqid == FIRST_REQID);
        of_shunts
            .filter(|(index, _)| !ours.contains(index))
            .map(|(index, policy)| (place(&policy), index))
            .collect()
    }
}

fn add(
    sadb: &mut Sadb,
    shunt: &Shunt,
    left: &mut HashMap<Place, PolicyIndex>,
) -> Result<Vec<PolicyIndex>, SadbError> {
    let policies = shunt.policies()?;
    let (mut there, mut added) = (vec![], vec![]);
    for policy in &policies {
        if let Some(index) = left.get(&place(policy)) {
            there.push(*index);
            continue;
        }
        match sadb.add_policy(policy) {
            Ok(index) => added.push(index),
            Err(error) => {
                added.into_iter().for_each(|index| _ = sadb.remove_policy(index));
                return Err(error);
            }
        }
    }
    policies.iter().for_each(|policy| _ = left.remove(&place(policy)));
    there.extend(added);
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, install, nets, traffic};
    use super::*;
    use portcullis_sadb::Flow;

    fn shunt(action: Action, remote: &str) -> Shunt {
        let traffic = traffic(&["0.0.0.0/0"], &[remote]);
        Shunt { connection: "lan".into(), child: remote.into(), action, traffic, priority: 0 }
    }

    /// What becomes of a packet of 10.1.0.1 to there, and of its answer.
    fn fate(bench: &Bench, dst: &str) -> [Option<Action>; 2] {
        let [src, dst] = ["10.1.0.1", dst].map(|text| text.parse().unwrap());
        let flow = |src, dst| Flow { src, dst, protocol: 17, ports: Some((1, 2)) };
        [
            bench.reader.lookup(Direction::Outbound, &flow(src, dst)).map(|hit| hit.action),
            bench.reader.lookup(Direction::Inbound, &flow(dst, src)).map(|hit| hit.action),
        ]
    }

    fn indices(bench: &Bench) -> Vec<PolicyIndex> {
        bench.sadb.policies().map(|(index, _)| index).collect()
    }

    #[test]
    fn what_passes_comes_before_children_and_what_is_dropped_behind_them() {
        let mut bench = Bench::new(16, 64);
        bench.install(&install(0x1001, 0x2001, nets(), None, true)).unwrap();
        let wanted = [
            shunt(Action::Bypass, "10.2.7.0/24"),
            shunt(Action::Discard, "10.2.8.0/24"),
            shunt(Action::Discard, "10.0.0.0/8"),
            Shunt { priority: 1, ..shunt(Action::Discard, "10.2.7.9/32") },
        ];
        assert!(bench.children.set_shunts(&mut bench.sadb, &wanted).is_empty());
        for (dst, action) in [
            ("10.2.0.1", Some(Action::Protect)),
            ("10.2.7.1", Some(Action::Bypass)),
            // A child comes first, however wide it is.
            ("10.2.8.1", Some(Action::Protect)),
            ("10.4.0.1", Some(Action::Discard)),
            ("10.2.7.9", Some(Action::Discard)),
            ("192.0.2.1", None),
        ] {
            assert_eq!(fate(&bench, dst), [action; 2], "{dst}");
        }
        bench.children.remove(&mut bench.sadb, 0x1001);
        assert_eq!(fate(&bench, "10.2.0.1"), [Some(Action::Discard); 2]);
        bench.children.clear(&mut bench.sadb);
        assert_eq!(bench.has(), (vec![], 0));
    }

    #[test]
    fn what_stays_is_not_touched_and_another_process_takes_it_over() {
        let mut bench = Bench::new(16, 64);
        let all = [shunt(Action::Bypass, "10.2.7.0/24"), shunt(Action::Discard, "10.0.0.0/8")];
        assert!(bench.children.set_shunts(&mut bench.sadb, &all).is_empty());
        let before = indices(&bench);
        assert_eq!((before.len(), bench.children.policies().count()), (4, 4));
        let other = [all[1].clone(), shunt(Action::Bypass, "10.2.6.0/24"), all[0].clone()];
        assert!(bench.children.set_shunts(&mut bench.sadb, &other).is_empty());
        assert!(before.iter().all(|index| indices(&bench).contains(index)));
        assert!(bench.children.set_shunts(&mut bench.sadb, &all).is_empty());
        assert_eq!(indices(&bench), before);
        bench.children = Children::default();
        assert!(bench.children.set_shunts(&mut bench.sadb, &all).is_empty());
        assert_eq!((indices(&bench), bench.children.policies().count()), (before, 4));
        assert!(bench.children.set_shunts(&mut bench.sadb, &[]).is_empty());
        assert_eq!(bench.has().1, 0);
    }

    #[test]
    fn a_shunt_of_another_name_keeps_its_policies() {
        let mut bench = Bench::new(16, 4);
        let of = |connection: &str, action| Shunt {
            connection: connection.into(),
            priority: 7,
            ..shunt(action, "10.2.7.0/24")
        };
        let set = |bench: &mut Bench, wanted: &[Shunt]| {
            assert!(bench.children.set_shunts(&mut bench.sadb, wanted).is_empty());
            (indices(bench), bench.children.policies().count())
        };
        let before = set(&mut bench, &[of("lan", Action::Discard)]);
        assert_eq!(set(&mut bench, &[of("other", Action::Discard)]), before);
        // One that cannot be takes nothing of what goes away with it.
        let wide = Shunt {
            traffic: traffic(&["0.0.0.0/0"], &["10.2.7.0/24", "10.4.0.0/16", "10.6.0.0/16"]),
            ..of("wide", Action::Discard)
        };
        let all = [wide, of("lan", Action::Discard)];
        let failed = bench.children.set_shunts(&mut bench.sadb, &all);
        assert_eq!(failed.iter().map(|(shunt, _)| *shunt).collect::<Vec<_>>(), [&all[0]]);
        assert_eq!((indices(&bench), bench.children.policies().count()), before);
        assert_eq!(set(&mut bench, &[]), (vec![], 0));
    }

    #[test]
    fn what_is_in_the_way_of_its_own_successor_goes_and_what_cannot_be_is_told() {
        let mut bench = Bench::new(16, 4);
        let fixed = |action| Shunt { priority: 7, ..shunt(action, "10.2.7.0/24") };
        assert!(bench.children.set_shunts(&mut bench.sadb, &[fixed(Action::Bypass)]).is_empty());
        assert!(bench.children.set_shunts(&mut bench.sadb, &[fixed(Action::Discard)]).is_empty());
        assert_eq!(fate(&bench, "10.2.7.1"), [Some(Action::Discard); 2]);
        // There is room for two, and a third has the place of another.
        let all = [
            fixed(Action::Discard),
            shunt(Action::Bypass, "10.2.0.0/16"),
            shunt(Action::Bypass, "10.3.0.0/16"),
        ];
        let failed = bench.children.set_shunts(&mut bench.sadb, &all);
        assert_eq!(failed.iter().map(|(shunt, _)| *shunt).collect::<Vec<_>>(), [&all[2]]);
        assert_eq!(bench.has().1, 4);
    }
}
