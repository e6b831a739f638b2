//! Child SAs that a predecessor has put into the SADB. What is there says itself what belongs together, by the numbers that tie
//! SAs to policies: nothing of it is touched. What was still to be put there is put there now.

use super::{
    Children, FIRST_REQID, Group, Installed, LINGER_SECS, Outbound, Purpose, publish, sas, selectors,
    shared::sends,
};
use portcullis_ike::v2::{
    child::{ChildSa, Install},
    kept::Untold,
};
use portcullis_sadb::{Action, Direction, PolicyIndex, Sadb, SadbError, SlotIndex, Spi};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// A child SA that there must be.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The name of its connection.
    pub connection: &'a str,
    /// What it is.
    pub sa: &'a ChildSa,
    /// Its number, if it had one.
    pub number: Option<u32>,
    /// The peer is known to have it: it may be sent by.
    pub is_known: bool,
}

/// What is in the SADB of children.
struct Present {
    /// By SPI and number.
    outbound: HashMap<(Spi, u32), SlotIndex>,
    /// By number.
    inbound: HashMap<u32, Vec<SlotIndex>>,
}

impl Present {
    fn of(sadb: &Sadb) -> Present {
        let mut present = Present { outbound: HashMap::new(), inbound: HashMap::new() };
        for (slot, _, sa) in sadb.sas().filter(|(.., sa)| sa.reqid >= FIRST_REQID) {
            match sa.direction {
                Direction::Outbound => _ = present.outbound.insert((sa.spi, sa.reqid), slot),
                Direction::Inbound => present.inbound.entry(sa.reqid).or_default().push(slot),
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
        let (mut missing, mut unknown) = (vec![], HashSet::new());
        for Wanted { connection, sa, number, is_known } in wanted {
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
            let group = self.group_of(sadb, Purpose::of(connection, sa), reqid);
            let outbound = present.outbound.get(&(Spi(sa.spi_out), reqid)).copied();
            // It was killed between the two: only what was never there may be made of a key.
            let outbound = outbound.or_else(|| {
                let install = installs.get(&sa.spi_in)?;
                let worker = self.worker_for(install, group, sadb);
                let [_, outbound] = sas(install, (reqid, worker), now_secs);
                publish(sadb, install, outbound).ok().map(|(slot, _)| slot)
            });
            let Some(outbound) = outbound else {
                missing.push(sa.spi_in);
                continue;
            };
            unknown.extend(Some(outbound).filter(|_| !is_known));
            let id = number.unwrap_or(self.last + 1);
            self.last = self.last.max(id);
            let (before_outbound, worker) =
                sadb.sa(outbound).map_or((None, None), |(_, sa)| (sa.around, sa.worker));
            let around = published.around.zip(before_outbound).map(|(one, other)| [one.slot, other.slot]);
            self.groups
                .entry(group)
                .and_modify(|group| group.put_sa(Outbound { worker, id, slot: outbound }));
            self.note(sa.spi_in, Installed { id, worker, inbound, outbound, around, group });
        }
        // One whose outbound SA is lost.
        self.groups.retain(|_, group| !group.sas.is_empty());
        self.numbers.retain(|_, number| self.groups.contains_key(number));
        let until = now_secs.saturating_add(LINGER_SECS);
        self.claim(sadb);
        let mut numbers: Vec<_> = self.groups.keys().copied().collect();
        numbers.sort_unstable();
        let mut left = present.inbound;
        for number in numbers {
            if let Err(error) = self.complete(sadb, number, &unknown) {
                let connection = self.groups.get(&number).map_or("", |group| &group.purpose.connection);
                tracing::error!("connection '{connection}': {error}");
            }
            let Some(group) = self.groups.get_mut(&number) else { continue };
            let of_group = left.remove(&group.reqid).unwrap_or_default().into_iter();
            let lingers = of_group.filter(|slot| !self.spis.contains_key(slot));
            let around = |slot| sadb.sa(slot)?.1.around.map(|around| around.slot);
            let lingers = lingers.flat_map(|slot| [Some(slot), around(slot)]).flatten();
            group.lingering = lingers.map(|slot| (until, slot)).collect();
            if !group.lingering.is_empty() {
                self.lingering.push_back((until, number));
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

impl Children {
    /// The group of a child SA that has this number that ties.
    fn group_of(&mut self, sadb: &Sadb, purpose: Purpose, reqid: u32) -> u32 {
        let known = self
            .numbers
            .get(&purpose)
            .filter(|number| self.groups.get(number).is_some_and(|group| group.reqid == reqid));
        if let Some(number) = known {
            return *number;
        }
        let number = if self.groups.contains_key(&reqid) { self.free_number(sadb) } else { reqid };
        self.put_group(Group::new(purpose, (number, reqid)));
        number
    }

    /// Each group has its policies that are there. Of several that are for one, that has it by whose SA packets leave.
    fn claim(&mut self, sadb: &Sadb) {
        let mut claims: HashMap<PolicyIndex, Vec<(bool, bool, u32)>> = HashMap::new();
        let connections: HashMap<u32, Arc<Purpose>> =
            self.groups.values().map(|group| (group.reqid, group.purpose.clone())).collect();
        for group in self.groups.values_mut() {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let wanted = group.purpose.policies(direction, group.reqid).unwrap_or_default();
                let there = wanted.iter().filter_map(|policy| {
                    let index = sadb.find_policy(policy)?;
                    let found = sadb.policy(index).filter(|found| found.action == Action::Protect)?;
                    let of = connections.get(&found.reqid)?;
                    let is_own = found.reqid == group.reqid;
                    (of.connection == group.purpose.connection).then_some((index, is_own, found.sa))
                });
                let there: Vec<_> = there.collect();
                let is_its = |sa: &Option<SlotIndex>| group.sas.iter().any(|its| Some(its.slot) == *sa);
                // What is not sent by it yet has no policies of what is sent.
                let sends = there.iter().any(|(_, is_own, sa)| *is_own && (sa.is_none() || is_its(sa)));
                if direction == Direction::Outbound && !sends {
                    continue;
                }
                for (index, is_own, sa) in &there {
                    claims.entry(*index).or_default().push((*is_own, is_its(sa), group.number));
                }
                let indices = there.into_iter().map(|(index, ..)| index).collect();
                match direction {
                    Direction::Inbound => group.inbound = indices,
                    Direction::Outbound => group.outbound = indices,
                }
            }
        }
        for (index, mut groups) in claims.into_iter().filter(|(_, groups)| groups.len() > 1) {
            groups.sort_unstable();
            self.shared.insert(index, groups.into_iter().map(|(.., number)| number).collect());
        }
    }

    /// All its policies, if it was killed before they were there, and an SA for what is sent, but none that is `unknown` to the peer.
    fn complete(
        &mut self,
        sadb: &mut Sadb,
        number: u32,
        unknown: &HashSet<SlotIndex>,
    ) -> Result<(), SadbError> {
        let Some(group) = self.groups.get(&number) else { return Ok(()) };
        let count = selectors(&group.purpose.traffic).map_or(0, |all| all.len());
        let (reqid, is_whole) = (group.reqid, (group.outbound.len(), group.inbound.len()) == (count, count));
        let is_unknown = group.sas.iter().all(|sa| unknown.contains(&sa.slot));
        let is_other = |other: &Group| other.number != number && other.reqid == reqid;
        let is_first =
            group.outbound.is_empty() && (is_unknown || self.groups.values().any(|other| is_other(other)));
        // What another was to go on by, or nothing was sent by, until the peer has this.
        if is_first {
            return self.let_in(sadb, number);
        }
        if !is_whole {
            self.forget_policies(sadb, number);
            self.let_in(sadb, number)?;
        }
        // It may have been killed in the middle of its policies.
        let Some(group) = self.groups.get(&number) else { return Ok(()) };
        let workers: BTreeSet<_> = group.sas.iter().map(|sa| sa.worker).chain([None]).collect();
        for worker in workers {
            let Some(group) = self.groups.get(&number) else { return Ok(()) };
            let first = self.owned(number).first().copied();
            let sends = first.and_then(|first| sends(sadb, first, worker));
            let is_there = |slot: &SlotIndex| group.sas.iter().any(|sa| sa.slot == *slot);
            match sends.filter(is_there).or_else(|| group.last_but(worker, unknown)) {
                Some(by) if is_whole => self.lead_by(sadb, number, worker, by)?,
                Some(by) => self.point(sadb, number, worker, by)?,
                None => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        sa_around,
        tests::{Bench, bundle, further, install, nets},
    };
    use super::*;

    /// Another process takes over what there is of these, which were installed as if by `installs`.
    fn adopted(bench: &mut Bench, wanted: &[&Install], installs: &[&Install]) -> Vec<u32> {
        bench.children = Children::default();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|install| Wanted {
                connection: &install.connection,
                sa: &install.sa,
                number: Some(install.sa.spi_in),
                is_known: install.sends || install.replaces.is_some(),
            })
            .collect();
        let untold =
            Untold { installs: installs.iter().map(|install| (*install).clone()).collect(), moves: vec![] };
        bench.children.adopt(&mut bench.sadb, &wanted, &untold, 100)
    }

    /// RFC 2409 §5.5: until the third message of quick mode.
    #[test]
    fn what_the_peer_may_not_have_is_not_sent_by() {
        let mut bench = Bench::new(16, 64);
        let new = install(0x1001, 0x2001, nets(), None, false);
        bench.install(&new).unwrap();
        for _ in 0..2 {
            assert!(adopted(&mut bench, &[&new], &[]).is_empty());
            assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), None);
        }
        bench.children.send_by(&mut bench.sadb, 0x1001);
        for _ in 0..2 {
            assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
            assert!(adopted(&mut bench, &[&new], &[]).is_empty());
        }
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let mut bench = Bench::new(16, 64);
        let [old, new] =
            [(0x1001, 0x2001, None), (0x1002, 0x2002, Some(0x1001))].map(|(spi_in, spi_out, replaces)| {
                install(spi_in, spi_out, nets(), replaces, replaces.is_none())
            });
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

    /// RFC 2401 §4.3: what is around an SA stays with it, and what was half put in is put in.
    #[test]
    fn a_bundle_stays_one() {
        let all = vec![0x1001, 0x1101, 0x2001, 0x2101];
        let of = |sends| bundle(0x1001, 0x2001, None, sends);
        let mut bench = Bench::new(16, 64);
        bench.install(&of(true)).unwrap();
        assert!(adopted(&mut bench, &[&of(true)], &[]).is_empty());
        assert_eq!((bench.has().0, bench.children.slots().count()), (all.clone(), 4));
        bench.children.remove(&mut bench.sadb, 0x1001);
        assert_eq!(bench.has(), (vec![], 0));
        // Killed behind each of the first three of its SAs.
        for there in 1..4 {
            let mut bench = Bench::new(16, 64);
            let [inbound, outbound] = sas(&of(true), (FIRST_REQID, None), 7);
            let [before_inbound, before_outbound] =
                [&inbound, &outbound].map(|sa| sa_around(&of(true), sa).unwrap());
            let slot = bench.sadb.publish(&before_inbound).unwrap();
            if there > 1 {
                let around = Some(portcullis_sadb::Around { slot, spi: before_inbound.spi });
                bench.sadb.publish(&portcullis_sadb::Sa { around, ..inbound }).unwrap();
            }
            if there > 2 {
                bench.sadb.publish(&before_outbound).unwrap();
            }
            assert!(adopted(&mut bench, &[&of(true)], &[&of(true)]).is_empty());
            let owned: HashSet<_> = bench.children.slots().collect();
            let mut spis: Vec<_> =
                bench.sadb.sas().filter(|(slot, ..)| owned.contains(slot)).map(|(.., sa)| sa.spi.0).collect();
            spis.sort_unstable();
            assert_eq!(spis, all, "{there}");
            assert_eq!(bench.leaves_by("10.1.0.1", "10.2.0.1"), Some(0x2001));
        }
        // What another has replaced is still opened, with what is around it.
        let mut bench = Bench::new(16, 64);
        let new = bundle(0x1002, 0x2002, Some(0x1001), true);
        bench.install(&of(true)).unwrap();
        bench.install(&new).unwrap();
        bench.children.remove_replaced(&mut bench.sadb, 0x1001, 100);
        assert!(adopted(&mut bench, &[&new], &[]).is_empty());
        assert_eq!(bench.children.slots().count(), 6);
        bench.children.expire(&mut bench.sadb, 100 + LINGER_SECS);
        assert_eq!(bench.has().0, [0x1002, 0x1102, 0x2002, 0x2102]);
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
