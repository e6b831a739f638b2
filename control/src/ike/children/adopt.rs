//! Child SAs that a predecessor has put into the SADB. What is there says itself what belongs together, by the numbers that tie
//! SAs to policies: nothing of it is touched. What was still to be put there is put there now.

use super::{Children, FIRST_REQID, Group, Installed, LINGER_SECS, Pair, sas, selectors};
use portcullis_ike::v2::{
    child::{ChildSa, Install},
    kept::Untold,
};
use portcullis_sadb::{Action, Direction, PolicyIndex, Sadb, SlotIndex, Spi};
use std::collections::{HashMap, HashSet};

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
        let (mut missing, mut groups) = (vec![], HashMap::<u32, usize>::new());
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
                let [_, outbound] = sas(installs.get(&sa.spi_in)?, reqid, now_secs);
                sadb.publish(&outbound).ok()
            });
            let Some(outbound) = outbound else {
                missing.push(sa.spi_in);
                continue;
            };
            let at = *groups.entry(reqid).or_insert_with(|| {
                let [outbound, inbound] = present.policies.get(&reqid).cloned().unwrap_or_default();
                self.groups.push(Group {
                    connection: (*connection).to_owned(),
                    traffic: sa.policy.clone(),
                    reqid,
                    outbound,
                    inbound,
                    pairs: vec![],
                    lingering: vec![],
                });
                self.groups.len() - 1
            });
            self.groups[at].pairs.push(Pair { spi_in: sa.spi_in, inbound, outbound });
            let id = number.unwrap_or(self.last + 1);
            self.last = self.last.max(id);
            self.installed.insert(sa.spi_in, Installed { id, inbound, outbound });
        }
        for group in &mut self.groups {
            group.complete(sadb);
            let own: HashSet<SlotIndex> = group.pairs.iter().map(|pair| pair.inbound).collect();
            let until = now_secs.saturating_add(LINGER_SECS);
            let left =
                present.inbound.get(&group.reqid).into_iter().flatten().filter(|slot| !own.contains(slot));
            group.lingering = left.map(|slot| (until, *slot)).collect();
            if !group.lingering.is_empty() {
                self.soonest = Some(until);
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
        let Some(last) = self.pairs.last().copied() else { return };
        let count = selectors(&self.traffic).map_or(0, |all| all.len());
        if (self.outbound.len(), self.inbound.len()) != (count, count) {
            self.forget_policies(sadb);
            if let Err(error) = self.add_policies(sadb, last.outbound) {
                tracing::error!("connection '{}': {error}", self.connection);
            }
        }
        let sends = self.outbound.first().and_then(|index| sadb.policy(*index)?.sa);
        if !self.pairs.iter().any(|pair| Some(pair.outbound) == sends) {
            self.point(sadb, last.outbound);
        }
    }
}
