//! Pools of addresses for peers, and who has which.
//!
//! An address is given in constant time, however many there are: from those that were never given, behind the last one,
//! or from those that are free again, the one that is free for the longest. Who had one gets it again where it is free.

use crate::{
    kept::{Damaged, Keep, Reader, Writer},
    message::ConfigurationAttribute,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

/// Free addresses of a pool of which it is remembered who had them, at most. Of a pool with more of them, no others are
/// given then.
const MOST_REMEMBERED: usize = 1 << 16;

/// Addresses, and what else is told to who gets one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The first address.
    pub first: IpAddr,
    /// The last one, of the same family.
    pub last: IpAddr,
    /// What else.
    pub attributes: Vec<ConfigurationAttribute>,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Pool {
    /// How many addresses it has.
    pub fn size(&self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    fn at(&self, offset: u128) -> IpAddr {
        match self.first {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + offset as u32).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + offset).into()),
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u128> {
        let is_in = address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address);
        is_in.then(|| bits(address) - bits(self.first))
    }
}

/// An address that somebody has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Of which pool.
    pub pool: Arc<Pool>,
    /// The address.
    pub address: IpAddr,
}

/// Who wants an address.
#[derive(Clone, Copy, Debug)]
pub struct Applicant<'a> {
    /// Who it is, as it was proven.
    pub who: &'a str,
    /// The number of who has it from then on; others of the same `who` have other numbers.
    pub holder: u64,
    /// Numbers of those that are to end for this one, and whose addresses it may have.
    pub before: &'a [u64],
    /// Numbers of those beside which it may have an address that it asks for, until they give it back.
    pub beside: &'a [u64],
}

/// An address, who has it or had it, and whether it has it now.
pub type Told<'a> = (IpAddr, &'a str, bool);

/// Who has which addresses, pool by pool.
#[derive(Debug, Default)]
pub struct Leases(HashMap<String, OfPool>);

/// Addresses are by how many are in front of them.
#[derive(Debug)]
struct OfPool {
    pool: Arc<Pool>,
    /// From here on all are free, and were given to nobody who has not asked for just that one.
    next: u128,
    /// Those that somebody has: who, by which number.
    held: HashMap<u128, (Arc<str>, u64)>,
    holders: BTreeSet<(Arc<str>, u128)>,
    /// Those that others of the same have besides, by their numbers.
    shared: BTreeSet<(u128, u64)>,
    /// Those that are free again, the one that is so for the longest first, and who had each.
    free: BTreeMap<u64, (u128, Arc<str>)>,
    freed: HashMap<u128, u64>,
    former: BTreeSet<(Arc<str>, u64)>,
    clock: u64,
}

impl Leases {
    /// Gives an address of one of these pools, of the family of the address that is asked for: that one, if it was the
    /// applicant's or is nobody's; nothing if there is none left.
    pub fn give(&mut self, pools: &[Arc<Pool>], asked: IpAddr, to: Applicant<'_>) -> Option<Lease> {
        let of_family = || pools.iter().filter(|pool| pool.first.is_ipv4() == asked.is_ipv4());
        let known = of_family().find_map(|pool| self.of(pool).give_again(asked, to));
        known.or_else(|| of_family().find_map(|pool| self.of(pool).give(to)))
    }

    /// Who had an address before all was forgotten has it again, if nobody else has.
    pub fn hold_again(&mut self, lease: &Lease, who: &str, holder: u64) {
        let of = self.of(&lease.pool);
        let offset = of.pool.offset(lease.address);
        let is_free = |offset: &u128| !of.held.contains_key(offset) && !of.freed.contains_key(offset);
        if let Some(offset) = offset.filter(is_free) {
            of.hold(offset, who.into(), holder);
        } else if let Some(offset) = offset.filter(|offset| of.is_of(*offset, who)) {
            of.shared.insert((offset, holder));
        }
    }

    /// Who had an address has it no more. Nothing happens if another has it by now.
    pub fn take_back(&mut self, lease: &Lease, holder: u64) {
        if let Some(of) = self.0.get_mut(&lease.pool.name) {
            of.take_back(lease, holder);
        }
    }

    /// An address goes on to another number of the same.
    pub fn pass_on(&mut self, lease: &Lease, from: u64, to: u64) {
        let Some(of) = self.0.get_mut(&lease.pool.name) else { return };
        let Some(offset) = of.pool.offset(lease.address) else { return };
        if of.shared.remove(&(offset, from)) {
            of.shared.insert((offset, to));
        } else if let Some((_, holder)) = of.held.get_mut(&offset).filter(|(_, holder)| *holder == from) {
            *holder = to;
        }
    }

    /// A pool is gone, or has other addresses from now on, and nobody has one of it.
    pub fn forget(&mut self, pool: &str) {
        self.0.remove(pool);
    }

    /// Addresses of a pool that somebody has, and those that are free again.
    pub fn counts(&self, pool: &str) -> (usize, usize) {
        self.0.get(pool).map_or((0, 0), |of| (of.held.len(), of.free.len()))
    }

    /// All of them, in the order of the pool.
    pub fn told(&self, pool: &str) -> Vec<Told<'_>> {
        let Some(of) = self.0.get(pool) else { return vec![] };
        let held = of.held.iter().map(|(offset, (who, _))| (of.pool.at(*offset), &**who, true));
        let free = of.free.values().map(|(offset, who)| (of.pool.at(*offset), &**who, false));
        let mut all: Vec<_> = held.chain(free).collect();
        all.sort_unstable();
        all
    }

    /// What is known of a pool. Where it has other addresses than before, all is forgotten.
    fn of(&mut self, pool: &Arc<Pool>) -> &mut OfPool {
        let of = self.0.entry(pool.name.clone()).or_insert_with(|| OfPool::new(pool));
        if (of.pool.first, of.pool.last) != (pool.first, pool.last) {
            *of = OfPool::new(pool);
        }
        // It may have other attributes.
        of.pool = pool.clone();
        of
    }
}

impl OfPool {
    fn new(pool: &Arc<Pool>) -> OfPool {
        OfPool {
            pool: pool.clone(),
            next: 0,
            held: HashMap::new(),
            holders: BTreeSet::new(),
            shared: BTreeSet::new(),
            free: BTreeMap::new(),
            freed: HashMap::new(),
            former: BTreeSet::new(),
            clock: 0,
        }
    }

    /// One that the applicant had, or asks for and nobody had.
    fn give_again(&mut self, asked: IpAddr, to: Applicant<'_>) -> Option<Lease> {
        let who: Arc<str> = to.who.into();
        let mine = self.holders.range((who.clone(), 0)..=(who.clone(), u128::MAX)).map(|(_, offset)| *offset);
        let is_left = |offset: &u128| self.held.get(offset).is_some_and(|(_, by)| to.before.contains(by));
        let left: Vec<u128> = mine.filter(is_left).collect();
        let asked = self.pool.offset(asked);
        if let Some(offset) = asked.filter(|offset| left.contains(offset)).or(left.first().copied()) {
            return Some(self.hold(offset, who, to.holder));
        }
        let is_beside = |offset: &u128| self.held.get(offset).is_some_and(|(_, by)| to.beside.contains(by));
        if let Some(offset) = asked.filter(|offset| self.is_of(*offset, to.who) && is_beside(offset)) {
            self.shared.insert((offset, to.holder));
            return Some(self.lease(offset));
        }
        let is_mine = |at: &u64| self.free.get(at).is_some_and(|(_, by)| *by == who);
        let of_asked = asked.and_then(|offset| self.freed.get(&offset)).copied().filter(is_mine);
        let last =
            || self.former.range((who.clone(), 0)..=(who.clone(), u64::MAX)).next_back().map(|(_, at)| *at);
        if let Some(offset) = of_asked.or_else(last).and_then(|at| self.take_free(at)) {
            return Some(self.hold(offset, who, to.holder));
        }
        let is_new = |offset: &u128| {
            *offset >= self.next && !self.held.contains_key(offset) && !self.freed.contains_key(offset)
        };
        let offset = asked.filter(is_new).filter(|_| self.free.len() < MOST_REMEMBERED)?;
        Some(self.hold(offset, who, to.holder))
    }

    /// One that nobody had, or the one that is free for the longest.
    fn give(&mut self, to: Applicant<'_>) -> Option<Lease> {
        // Those that were asked for are passed once.
        while self.held.contains_key(&self.next) || self.freed.contains_key(&self.next) {
            self.next += 1;
        }
        let is_new = self.next < self.pool.size() && self.free.len() < MOST_REMEMBERED;
        let offset = match is_new {
            true => self.next,
            false => self.free.first_key_value().map(|(at, _)| *at).and_then(|at| self.take_free(at))?,
        };
        self.next += u128::from(is_new);
        Some(self.hold(offset, to.who.into(), to.holder))
    }

    fn take_free(&mut self, at: u64) -> Option<u128> {
        let (offset, who) = self.free.remove(&at)?;
        self.freed.remove(&offset);
        self.former.remove(&(who, at));
        Some(offset)
    }

    fn hold(&mut self, offset: u128, who: Arc<str>, holder: u64) -> Lease {
        self.holders.insert((who.clone(), offset));
        if let Some((_, before)) = self.held.insert(offset, (who, holder)) {
            self.shared.insert((offset, before));
        }
        self.lease(offset)
    }

    fn lease(&self, offset: u128) -> Lease {
        Lease { pool: self.pool.clone(), address: self.pool.at(offset) }
    }

    /// Whether this one has it.
    fn is_of(&self, offset: u128, who: &str) -> bool {
        self.held.get(&offset).is_some_and(|(by, _)| **by == *who)
    }

    fn take_back(&mut self, lease: &Lease, holder: u64) {
        let Some(offset) = self.pool.offset(lease.address) else { return };
        let Some((_, by)) = self.held.get_mut(&offset) else { return };
        if self.shared.remove(&(offset, holder)) || *by != holder {
            return;
        }
        // Who has it besides has it from then on.
        if let Some(next) = self.shared.range((offset, 0)..=(offset, u64::MAX)).next().copied() {
            self.shared.remove(&next);
            *by = next.1;
            return;
        }
        if let Some((who, _)) = self.held.remove(&offset) {
            self.holders.remove(&(who.clone(), offset));
            self.clock += 1;
            self.former.insert((who.clone(), self.clock));
            self.freed.insert(offset, self.clock);
            self.free.insert(self.clock, (offset, who));
        }
    }
}

/// Of its pool there are the name and the addresses.
impl Keep for Lease {
    fn keep(&self, to: &mut Writer) {
        let Pool { name, first, last, attributes: _ } = &*self.pool;
        name.keep(to);
        [*first, *last, self.address].iter().for_each(|address| address.keep(to));
    }

    fn kept(from: &mut Reader<'_>) -> Result<Lease, Damaged> {
        let (name, first, last) = (Keep::kept(from)?, Keep::kept(from)?, Keep::kept(from)?);
        let (pool, address) = (Pool { name, first, last, attributes: vec![] }, Keep::kept(from)?);
        let is_one = first.is_ipv4() == last.is_ipv4() && pool.offset(address).is_some();
        let lease = Lease { pool: Arc::new(pool), address };
        is_one.then_some(lease).ok_or(Damaged("address of a pool"))
    }
}

#[cfg(test)]
mod tests;
