//! Child SAs that a predecessor has put into the SADB. What is there says itself what belongs together, by the numbers that tie
//! SAs to policies: nothing of it is touched. What was still to be put there is put there now.

use super::{Children, FIRST_REQID, Group, Installed, LINGER_SECS, Outbound, Purpose, sas, selectors};
use portcullis_ike::v2::{
    child::{ChildSa, Install},
    kept::Untold,
};
use portcullis_sadb::{Action, Direction, PolicyIndex, Sadb, SlotIndex, Spi};
use std::collections::{BTreeSet, HashMap};

/// A child SA that there must be.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The name of its connection.
    pub connection: &'a str,
    /// What it is.
    pub sa: &'a ChildSa,
    /// Its number, if it had one.
    pub number: Option<u32>,
}

/// What is in the SADB of children.
struct Present {
    /// By SPI and number.
    outbound: HashMap<(Spi, u32), SlotIndex>,
    /// By number.
    inbound: HashMap<u32, Vec<SlotIndex>>,
    /// By number, those of each direction.
    policies: HashMap<u32, [Vec<PolicyIndex>; 2]>,
}

impl Present {
    fn of(sadb: &Sadb) -> Present {
        let mut present =
            Present { outbound: HashMap::new(), inbound: HashMap::new(), policies: HashMap::new() };
        for (slot, _, sa) in sadb.sas().filter(|(.., sa)| sa.reqid >= FIRST_REQID) {
            match sa.direction {
                Direction::Outbound => _ = present.outbound.insert((sa.spi, sa.reqid), slot),
                Direction::Inbound => present.inbound.entry(sa.reqid).or_default().push(slot),
            }
        }
        for (index, policy) in sadb.policies().filter(|(_, policy)| policy.reqid >= FIRST_REQID) {
            if policy.action == Action::Protect {
                let of = present.policies.entry(policy.reqid).or_default();
                of[usize::from(policy.direction == Direction::Inbound)].push(index);
            }
        }
        present
    }
}

impl Children {
    /// Takes over what is there of these, and puts in what is not and was to be. Those are returned, by our SPIs, of which there
    /// is nothing to be had any more.
    pub fn adopt(
        &mut self,
        sadb: &mut Sadb,
        wanted: &[Wanted<'_>],
        untold: &Untold,
        now_secs: u32,
    ) -> Vec<u32> {
        let present = Present::of(sadb);
        let installs: HashMap<u32, &Install> =
            untold.installs.iter().map(|install| (install.sa.spi_in, install)).collect();
        let mut missing = vec![];
        for Wanted { connection, sa, number } in wanted {
            let inbound = sadb.find(Spi(sa.spi_in)).filter(|slot| {
                let reqid = sadb.sa(*slot).map(|(_, sa)| sa.reqid);
                reqid.is_some_and(|reqid| present.inbound.get(&reqid).is_some_and(|of| of.contains(slot)))
            });
            let Some((inbound, (_, published))) = inbound.and_then(|slot| Some((slot, sadb.sa(slot)?)))
            else {
                missing.push(sa.spi_in);
                continue;
            };
            let reqid = published.reqid;
            let outbound = present.outbound.get(&(Spi(sa.spi_out), reqid)).copied();
            // It was killed between the two: only what was never there may be made of a key.
            let outbound = outbound.or_else(|| {
                let install = installs.get(&sa.spi_in)?;
                let worker = self.worker_for(install, reqid, sadb);
                let [_, outbound] = sas(install, (reqid, worker), now_secs);
                sadb.publish(&outbound).ok()
            });
            let Some(outbound) = outbound else {
                missing.push(sa.spi_in);
                continue;
            };
            if !self.groups.contains_key(&reqid) {
                let [outbound, inbound] = present.policies.get(&reqid).cloned().unwrap_or_default();
                let purpose = Purpose::of(connection, sa);
                self.put_group(Group { outbound, inbound, ..Group::new(purpose, reqid) });
            }
            let id = number.unwrap_or(self.last + 1);
            self.last = self.last.max(id);
            let worker = sadb.sa(outbound).and_then(|(_, sa)| sa.worker);
            self.groups
                .entry(reqid)
                .and_modify(|group| group.put_sa(Outbound { worker, id, slot: outbound }));
            self.spis.extend([(inbound, sa.spi_in), (outbound, sa.spi_in)]);
            self.installed.insert(sa.spi_in, Installed { id, worker, inbound, outbound, reqid });
        }
        let until = now_secs.saturating_add(LINGER_SECS);
        for group in self.groups.values_mut() {
            group.complete(sadb);
            let of_group = present.inbound.get(&group.reqid).into_iter().flatten();
            let left = of_group.filter(|slot| !self.spis.contains_key(slot));
            group.lingering = left.map(|slot| (until, *slot)).collect();
            if !group.lingering.is_empty() {
                self.lingering.push_back((until, group.reqid));
            }
        }
        missing.retain(|spi_in| {
            let install = installs.get(spi_in);
            install.is_none_or(|install| self.install(sadb, install, now_secs).is_err())
        });
        for moved in &untold.moves {
            self.lead(sadb, moved);
        }
        missing
    }
}

impl Group {
    /// All its policies, if it was killed before they were there, and an SA for what is sent.
    fn complete(&mut self, sadb: &mut Sadb) {
        let Some(last) = self.last(None) else { return };
        let count = selectors(&self.purpose.traffic).map_or(0, |all| all.len());
        if (self.outbound.len(), self.inbound.len()) != (count, count) {
            self.forget_policies(sadb);
            if let Err(error) = self.add_policies(sadb, Some(last)) {
                tracing::error!("connection '{}': {error}", self.purpose.connection);
            }
        }
        // It may have been killed in the middle of its policies.
        let workers: BTreeSet<_> = self.sas.iter().map(|sa| sa.worker).chain([None]).collect();
        for worker in workers {
            let sends = self.sends_by(sadb, worker);
            let is_there = |slot: &SlotIndex| self.sas.iter().any(|sa| sa.slot == *slot);
            if let Some(by) = sends.filter(is_there).or_else(|| self.last(worker)) {
                self.point(sadb, worker, by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, further, install, nets};
    use super::*;
    use std::collections::HashSet;

    /// Another process takes over what there is of these, which were installed as if by `installs`.
    fn adopted(bench: &mut Bench, wanted: &[&Install], installs: &[&Install]) -> Vec<u32> {
        bench.children = Children::default();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|install| Wanted {
                connection: &install.connection,
                sa: &install.sa,
                number: Some(install.sa.spi_in),
            })
            .collect();
        let untold =
            Untold { installs: installs.iter().map(|install| (*install).clone()).collect(), moves: vec![] };
        bench.children.adopt(&mut bench.sadb, &wanted, &untold, 100)
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let mut bench = Bench::new(16, 64);
        let [old, new] = [(0x1001, 0x2001, None), (0x1002, 0x2002, Some(0x1001))]
            .map(|(spi_in, spi_out, replaces)| install(spi_in, spi_out, nets(), replaces, false));
        bench.install(&old).unwrap();
        bench.install(&new).unwrap();
        let all = |bench: &Bench| {
            let sas: Vec<_> = bench.sadb.sas().collect();
            (sas, bench.sadb.policies().collect::<Vec<_>>())
        };
        let before = all(&bench);
        assert!(adopted(&mut bench, &[&old, &new], &[]).is_empty());
        assert_eq!(all(&bench), before);
        assert_eq!((bench.children.slots().count(), bench.children.policies().count()), (4, before.1.len()));
        assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
        assert_eq!(bench.children.installed(0x1002).map(|installed| installed.id), Some(0x1002));
        // And it goes on as before.
        bench.children.send_by(&mut bench.sadb, 0x1002);
        bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
        assert_eq!(bench.has().0, [0x1001, 0x1002, 0x2002]);
        bench.children.remove(&mut bench.sadb, 0x1002);
        assert_eq!(bench.has(), (vec![], 0));
    }

    #[test]
    fn what_was_being_put_in_is_put_in_and_what_was_lost_is_told() {
        let of = |n: u32| install(0x1000 + n, 0x2000 + n, nets(), None, true);
        let (one, two) = (of(1), of(2));
        // Killed before anything of it was there, and behind the inbound SA.
        for is_half in [false, true] {
            let mut bench = Bench::new(16, 64);
            if is_half {
                let [inbound, _] = sas(&one, (FIRST_REQID, None), 7);
                bench.sadb.publish(&inbound).unwrap();
            }
            assert!(adopted(&mut bench, &[&one], &[&one]).is_empty());
            assert_eq!(bench.has(), (vec![0x1001, 0x2001], 2 * 4));
            assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
            // Its keys are not put in again.
            bench.children.remove(&mut bench.sadb, 0x1001);
            assert_eq!(adopted(&mut bench, &[&one], &[]), [0x1001]);
            assert_eq!(bench.has(), (vec![], 0));
        }
        // What it was to take out: packets leave by what is left.
        let mut bench = Bench::new(16, 64);
        bench.install(&two).unwrap();
        bench.install(&one).unwrap();
        assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
        assert!(adopted(&mut bench, &[&two], &[]).is_empty());
        assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2002));
        bench.children.expire(&mut bench.sadb, 100 + LINGER_SECS);
        let owned: Vec<_> = bench.children.slots().collect();
        let left: Vec<_> = bench.sadb.sas().filter(|(slot, ..)| owned.contains(slot)).collect();
        assert_eq!(
            left.iter().map(|(_, _, sa)| sa.spi.0).collect::<HashSet<_>>(),
            HashSet::from([0x1002, 0x2002])
        );
        assert!(bench.sadb.find(Spi(0x1001)).is_none(), "it has stayed long enough");
    }

    /// RFC 9611: workers go on by what they have, and what was half done of it is done.
    #[test]
    fn workers_keep_their_own() {
        let mut bench = Bench::new(32, 64);
        bench.runtime.set_ready(2);
        let all = install(0x1001, 0x2001, nets(), None, true);
        let own = [further(0x1002, 0x2002, None, 0), further(0x1003, 0x2003, None, 1)];
        let new = further(0x1004, 0x2004, Some(0x1002), 0);
        bench.install(&all).unwrap();
        own.iter().for_each(|own| bench.install(own).unwrap());
        bench.install(&new).unwrap();
        let wanted = [&all, &own[0], &own[1], &new];
        assert!(adopted(&mut bench, &wanted, &[]).is_empty());
        assert_eq!(bench.workers_send_by(), [0x2002, 0x2003, 0x2001]);
        bench.children.send_by(&mut bench.sadb, 0x1004);
        assert_eq!(bench.workers_send_by(), [0x2004, 0x2003, 0x2001]);
        // Killed between the policies of one, and before those of the other.
        let outbound: Vec<_> = bench.sadb.policies().filter(|(_, policy)| policy.sa.is_some()).collect();
        outbound[1..].iter().for_each(|(index, _)| bench.sadb.set_worker_sa(*index, 0, None).unwrap());
        outbound.iter().for_each(|(index, _)| bench.sadb.set_worker_sa(*index, 1, None).unwrap());
        assert!(adopted(&mut bench, &wanted, &[]).is_empty());
        assert_eq!(bench.workers_send_by(), [0x2004, 0x2003, 0x2001]);
        // Killed before its outbound SA was there: it is for the worker of the one that it replaces.
        let next = further(0x1005, 0x2005, Some(0x1003), 1);
        let reqid = bench.sadb.sas().next().unwrap().2.reqid;
        let [inbound, _] = sas(&next, (reqid, Some(1)), 7);
        bench.sadb.publish(&inbound).unwrap();
        assert!(adopted(&mut bench, &[&all, &own[0], &own[1], &new, &next], &[&next]).is_empty());
        let worker = bench.children.installed(0x1005).and_then(|installed| installed.worker);
        assert_eq!((worker, bench.workers_send_by()), (Some(1), [0x2004, 0x2003, 0x2001]));
    }
}
