//! A million operations against plain maps and a linear search, in one process and one order: whatever the
//! writer returns and the reader finds is what the model says.

use portcullis_sadb::*;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const SEED: u64 = 0x5ad_b0de;
const OPERATIONS: usize = 1_000_000;
const SIZES: Sizes = Sizes { max_sas: 96, max_policies: 72 };
const WORKERS: usize = 3;

struct Rng(u64);

impl Rng {
    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    /// Few addresses, so that prefixes of all lengths often have them.
    fn address(&mut self, v4: bool) -> IpAddr {
        let [a, b, c] = [0; 3].map(|_| self.below(3) as u8);
        match v4 {
            true => Ipv4Addr::new(10, a, b, c).into(),
            false => Ipv6Addr::new(0xfd00, 0, a as u16, 0, b as u16, 0, 0, c as u16).into(),
        }
    }

    fn prefix(&mut self, v4: bool) -> Prefix {
        let len =
            if v4 { self.of(&[0, 8, 15, 16, 24, 31, 32]) } else { self.of(&[0, 16, 48, 64, 80, 127, 128]) };
        Prefix::new(self.address(v4), len).unwrap()
    }

    fn ports(&mut self) -> std::ops::RangeInclusive<u16> {
        let first = self.below(4) as u16;
        let opaque = (u16::MAX, 0);
        self.of(&[(0, u16::MAX), (0, u16::MAX), opaque, (first, first), (first, first + 1)]).into_range()
    }

    fn direction(&mut self) -> Direction {
        self.of(&[Direction::Inbound, Direction::Outbound])
    }

    fn policy(&mut self, sa: Option<SlotIndex>) -> Policy {
        let v4 = self.below(3) > 0;
        let selector = Selector {
            src: self.prefix(v4),
            dst: self.prefix(v4),
            protocol: self.of(&[None, None, Some(0), Some(6), Some(17)]),
            src_ports: self.ports(),
            dst_ports: self.ports(),
        };
        Policy {
            direction: self.direction(),
            selector,
            priority: self.of(&[0, 1, 1, 2, 1000, u32::MAX]),
            action: self.of(&[Action::Protect, Action::Bypass, Action::Discard]),
            reqid: self.next() as u32,
            sa,
        }
    }

    fn flow(&mut self) -> Flow {
        let v4 = self.below(3) > 0;
        let ports = (self.below(6) as u16, self.below(6) as u16);
        Flow {
            src: self.address(v4),
            dst: self.address(v4),
            protocol: self.of(&[0, 6, 17, 50]),
            ports: self.of(&[None, Some(ports), Some(ports)]),
        }
    }

    fn sa(&mut self) -> Sa {
        let algorithm = self.of(&Algorithm::all().collect::<Vec<_>>());
        let (v4, spi) = (self.below(2) == 0, 256 + self.below(160) as u32);
        let key: Vec<u8> =
            (0..algorithm.key_len() + algorithm.salt_len()).map(|_| self.next() as u8).collect();
        let mut sa = Sa {
            spi: Spi(if self.below(8) == 0 { u32::MAX - spi } else { spi }),
            direction: self.of(&[Direction::Inbound, Direction::Inbound, Direction::Outbound]),
            protocol: if algorithm.is_for(Protocol::Esp) { Protocol::Esp } else { Protocol::Ah },
            mode: self.of(&[Mode::Tunnel, Mode::Transport]),
            algorithm,
            src: self.address(v4),
            dst: self.address(v4),
            udp: self.of(&[
                None,
                Some(UdpEncap::between(4500, 4501)),
                Some(UdpEncap {
                    follow_peer: true,
                    keepalive_secs: 20,
                    zero_checksum: true,
                    ..UdpEncap::between(0, u16::MAX)
                }),
            ]),
            esn: self.below(2) == 0,
            replay_window: self.of(&[0, 64, 128, 65_536]),
            reqid: self.next() as u32,
            worker: None,
            around: None,
            mtu: self.next() as u16,
            handling: Handling {
                df: self.of(&[DfBit::Copy, DfBit::Set, DfBit::Clear]),
                dscp: self.of(&[Dscp::Copy, Dscp::Set(63), Dscp::Map([63; 64])]),
                born_secs: self.next() as u32,
                ..Handling::default()
            },
            name: Name::new(self.of(&["a", "site", "0123456789abcdef0123456789abcdef"])).unwrap(),
            key: Key::new(&key).unwrap(),
        };
        if sa.direction == Direction::Outbound {
            sa.worker = self.of(&[None, Some(0), Some(0), Some(1), Some(63)]);
        }
        if (sa.protocol, sa.udp, sa.worker) == (Protocol::Esp, None, None) {
            let around = Around { slot: SlotIndex(self.below(1 << 20) as u32), spi: Spi(self.next() as u32) };
            sa.around = self.of(&[None, Some(around)]);
        }
        if let (0, Some(udp)) = (sa.replay_window, &mut sa.udp) {
            udp.follow_peer = false; // whoever copies a packet would be followed
        }
        sa
    }
}

trait IntoRange {
    fn into_range(self) -> std::ops::RangeInclusive<u16>;
}

impl IntoRange for (u16, u16) {
    fn into_range(self) -> std::ops::RangeInclusive<u16> {
        self.0..=self.1
    }
}

fn matches(selector: &Selector, flow: &Flow) -> bool {
    let ports = |range: &std::ops::RangeInclusive<u16>, port: Option<u16>| match (range.start(), range.end())
    {
        (0, &u16::MAX) => true,
        (&u16::MAX, 0) => port.is_none(),
        (first, last) => port.is_some_and(|p| (*first..=*last).contains(&p)),
    };
    selector.src.contains(flow.src)
        && selector.dst.contains(flow.dst)
        && selector.protocol.is_none_or(|p| p == flow.protocol)
        && ports(&selector.src_ports, flow.ports.map(|p| p.0))
        && ports(&selector.dst_ports, flow.ports.map(|p| p.1))
}

/// Numbers of a table: free, in use, or waiting for the workers.
#[derive(Default)]
struct Numbers {
    free: HashSet<u32>,
    used: u32,
}

impl Numbers {
    fn may_give(&self, max: u32) -> bool {
        !self.free.is_empty() || self.used < max
    }

    fn gave(&mut self, number: u32) {
        if !self.free.remove(&number) {
            assert_eq!(number, self.used, "neither free nor the next");
            self.used += 1;
        }
    }
}

/// Given once: policies of one index, one after the other, are not the same.
type PolicyId = usize;

/// What the SAs of a policy are asked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Nothing,
    Dscp,
    Worker,
}

/// The SAs that a policy points to: one, and those of DSCPs or of workers.
#[derive(Clone, Debug)]
struct Pointed {
    by: By,
    one: Option<SlotIndex>,
    own: [Option<SlotIndex>; DSCPS],
}

impl Pointed {
    fn to(one: Option<SlotIndex>) -> Pointed {
        Pointed { by: By::Nothing, one, own: [None; DSCPS] }
    }

    fn sa_for(&self, dscp: usize, worker: usize) -> Option<SlotIndex> {
        match self.by {
            By::Nothing => self.one,
            By::Dscp => self.own[dscp],
            By::Worker => self.own[worker].or(self.one),
        }
    }

    /// Whether it pointed to an SA that goes.
    fn forget(&mut self, sa: SlotIndex) -> bool {
        let uses = self.one == Some(sa) || self.own.contains(&Some(sa));
        let left = |own: &mut Option<SlotIndex>| *own = own.filter(|own| *own != sa);
        left(&mut self.one);
        self.own.iter_mut().for_each(left);
        self.end();
        uses
    }

    /// Without an SA of its own no worker is asked for.
    fn end(&mut self) {
        if self.by == By::Worker && self.own == [None; DSCPS] {
            self.by = By::Nothing;
        }
    }
}

#[derive(Default)]
struct Model {
    sas: HashMap<SlotIndex, (Generation, Sa)>,
    inbound: HashMap<Spi, SlotIndex>,
    /// Where peers have moved to.
    moved: HashMap<SlotIndex, Endpoint>,
    policies: Vec<(PolicyIndex, Policy)>,
    slots: Numbers,
    indexes: Numbers,
    /// How often each changed: the SPD, SAs of policies.
    changes: (u64, u64),
    ids: HashMap<PolicyIndex, PolicyId>,
    /// What each policy that ever was points to, or did when it went.
    pointed: Vec<Pointed>,
    /// What each worker has kept: the version of the SPD, and a policy of it.
    kept: [Option<(u64, PolicyIndex, PolicyId)>; WORKERS],
    last_generation: HashMap<SlotIndex, Generation>,
    epoch: u64,
    /// Epoch, whether an SA, number.
    limbo: VecDeque<(u64, bool, u32)>,
    workers: [Option<u64>; WORKERS],
}

impl Model {
    fn reclaim(&mut self) -> usize {
        let passed = self.workers.iter().flatten().min().copied().unwrap_or(u64::MAX);
        while let Some((_, is_sa, number)) = self.limbo.pop_front_if(|(e, ..)| *e <= passed) {
            if is_sa {
                self.slots.free.insert(number)
            } else {
                self.indexes.free.insert(number)
            };
        }
        self.limbo.len()
    }

    fn wait(&mut self, is_sa: bool, number: u32) {
        self.epoch += 1;
        self.limbo.push_back((self.epoch, is_sa, number));
    }

    fn lookup(&self, direction: Direction, flow: &Flow) -> Option<PolicyHit> {
        let matching =
            self.policies.iter().filter(|(_, p)| p.direction == direction && matches(&p.selector, flow));
        let rank = |(i, p): &&(PolicyIndex, Policy)| {
            (p.priority, 256 - p.selector.src.len() as u32 - p.selector.dst.len() as u32, i.0)
        };
        matching.min_by_key(rank).map(|(index, p)| PolicyHit {
            index: *index,
            action: p.action,
            sa: p.sa,
            reqid: p.reqid,
            priority: p.priority,
        })
    }

    fn any_slot(&self, rng: &mut Rng) -> SlotIndex {
        SlotIndex(rng.below(SIZES.max_sas as usize + 2) as u32)
    }
}

fn publish(m: &mut Model, rng: &mut Rng, sadb: &mut Sadb) {
    let sa = rng.sa();
    let got = sadb.publish(&sa);
    if let (Direction::Inbound, Some(slot)) = (sa.direction, m.inbound.get(&sa.spi)) {
        let by = m.sas[slot].1.name.to_string();
        return assert_eq!(got, Err(SadbError::SpiInUse { spi: sa.spi, by }));
    }
    if m.slots.free.is_empty() {
        m.reclaim();
    }
    if !m.slots.may_give(SIZES.max_sas) {
        return assert_eq!(got, Err(SadbError::Full { what: "SAD", capacity: SIZES.max_sas }));
    }
    let slot = got.unwrap();
    m.slots.gave(slot.0);
    let (generation, copy) = sadb.sa(slot).unwrap();
    assert_eq!(copy, sa);
    assert!(m.last_generation.insert(slot, generation).is_none_or(|g| g < generation));
    if sa.direction == Direction::Inbound {
        m.inbound.insert(sa.spi, slot);
    }
    assert!(m.sas.insert(slot, (generation, sa)).is_none(), "{slot:?} is in use");
}

fn retire(m: &mut Model, rng: &mut Rng, sadb: &mut Sadb) {
    let slot = m.any_slot(rng);
    let Some((_, sa)) = m.sas.remove(&slot) else {
        return assert_eq!(sadb.retire(slot), Err(SadbError::NoSuchSa { slot }));
    };
    // No policy points to it any more.
    for (index, policy) in &mut m.policies {
        policy.sa = policy.sa.filter(|sa| *sa != slot);
        m.changes.1 += u64::from(m.pointed[m.ids[index]].forget(slot));
    }
    sadb.retire(slot).unwrap();
    m.moved.remove(&slot);
    if sa.direction == Direction::Inbound {
        m.inbound.remove(&sa.spi);
    }
    m.wait(true, slot.0);
}

fn move_peer(m: &mut Model, rng: &mut Rng, sadb: &mut Sadb) {
    let (slot, v4, port) = (m.any_slot(rng), rng.below(2) == 0, 1 + rng.below(3) as u16);
    let Some(to) = Endpoint::new(rng.address(v4), port) else { return };
    let got = sadb.set_endpoint(slot, to);
    match m.sas.get(&slot) {
        None => assert_eq!(got, Err(SadbError::NoSuchSa { slot })),
        Some((_, sa)) if sa.udp.is_none() || sa.src.is_ipv4() != v4 => {
            assert!(matches!(got, Err(SadbError::Invalid { .. })), "{got:?}");
        }
        Some(_) => {
            got.unwrap();
            m.moved.insert(slot, to);
        }
    }
    assert_eq!(sadb.endpoint(slot), m.moved.get(&slot).copied());
}

/// An SA as workers see it.
fn where_it_is(mut sa: Sa, moved: Option<&Endpoint>) -> Sa {
    if let (Some(to), Some(udp)) = (moved, &mut sa.udp) {
        match sa.direction {
            Direction::Inbound => (sa.src, udp.src_port) = (to.addr(), to.port()),
            Direction::Outbound => (sa.dst, udp.dst_port) = (to.addr(), to.port()),
        }
    }
    sa
}

fn add_policy(m: &mut Model, rng: &mut Rng, sadb: &mut Sadb) {
    let slot = m.any_slot(rng);
    let policy = rng.policy(m.sas.contains_key(&slot).then_some(slot));
    let got = sadb.add_policy(&policy);
    let key = |p: &Policy| (p.direction, p.selector.clone(), p.priority);
    if let Some((with, _)) = m.policies.iter().find(|(_, p)| key(p) == key(&policy)) {
        return assert!(matches!(got, Err(SadbError::Overlap { with: w, .. }) if w == *with), "{got:?}");
    }
    if m.indexes.free.is_empty() {
        m.reclaim();
    }
    if !m.indexes.may_give(SIZES.max_policies) {
        return assert_eq!(got, Err(SadbError::Full { what: "SPD", capacity: SIZES.max_policies }));
    }
    let index = got.unwrap();
    m.indexes.gave(index.0);
    assert!(m.policies.iter().all(|(i, _)| *i != index), "{index:?} is in use");
    m.changes.0 += 1;
    m.ids.insert(index, m.pointed.len());
    m.pointed.push(Pointed::to(policy.sa));
    m.policies.push((index, policy));
}

fn change_policy(m: &mut Model, rng: &mut Rng, sadb: &mut Sadb, remove: bool) {
    let index = PolicyIndex(rng.below(SIZES.max_policies as usize + 2) as u32);
    let at = m.policies.iter().position(|(i, _)| *i == index);
    let slot = m.any_slot(rng);
    let sa = m.sas.contains_key(&slot).then_some(slot);
    let got = if remove { sadb.remove_policy(index) } else { sadb.set_policy_sa(index, sa) };
    assert_eq!(got, at.map(|_| ()).ok_or(SadbError::NoSuchPolicy { index }));
    match (at, remove) {
        (Some(at), true) => {
            m.policies.swap_remove(at);
            m.ids.remove(&index);
            m.changes.0 += 1;
            m.wait(false, index.0);
        }
        (Some(at), false) => {
            m.policies[at].1.sa = sa;
            let pointed = &mut m.pointed[m.ids[&index]];
            match pointed.by {
                By::Worker => pointed.one = sa,
                By::Nothing | By::Dscp => *pointed = Pointed::to(sa),
            }
            m.changes.1 += 1;
        }
        (None, _) => {}
    }
}

/// RFC 4301 §4.1: an SA for each class. Some are none, and some classes have no DSCP left.
fn change_classes(m: &mut Model, rng: &mut Rng, sadb: &mut Sadb) {
    let index = PolicyIndex(rng.below(SIZES.max_policies as usize + 2) as u32);
    let mut target = |m: &Model| {
        let slot = m.any_slot(rng);
        m.sas.contains_key(&slot).then_some(slot)
    };
    let default = target(m);
    let (mut classes, mut own) = (Classes::new(default), [default; DSCPS]);
    for class in 0..7 {
        let sa = target(m);
        let dscps = [class, (7 * class + default.map_or(0, |s| s.0 as usize)) % 9, 63];
        classes.add(&dscps.map(|d| d as u8), sa);
        dscps.iter().for_each(|dscp| own[*dscp] = sa);
    }
    let got = sadb.set_policy_classes(index, &classes);
    let Some(at) = m.policies.iter().position(|(i, _)| *i == index) else {
        return assert_eq!(got, Err(SadbError::NoSuchPolicy { index }));
    };
    got.unwrap();
    assert_eq!(sadb.policy_classes(index), Some(classes));
    let id = m.ids[&index];
    m.policies[at].1.sa = default;
    m.pointed[id] = Pointed { by: By::Dscp, one: default, own };
    m.changes.1 += 1;
}

/// RFC 9611: a worker has an SA of its own, another one, or none any more.
fn change_worker(m: &mut Model, rng: &mut Rng, sadb: &mut Sadb) {
    let index = PolicyIndex(rng.below(SIZES.max_policies as usize + 2) as u32);
    let worker = rng.of(&[0u8, 0, 1, 63, 64]);
    let slot = m.any_slot(rng);
    let sa = m.sas.get(&slot).filter(|_| rng.below(4) > 0);
    let is_its = sa.is_none_or(|(_, sa)| sa.worker == Some(worker)) && worker < 64;
    let sa = sa.map(|_| slot);
    let got = sadb.set_worker_sa(index, worker, sa);
    if !m.policies.iter().any(|(i, _)| *i == index) {
        return assert_eq!(got, Err(SadbError::NoSuchPolicy { index }));
    }
    if !is_its {
        return assert_eq!(got, Err(SadbError::Invalid { field: "worker", value: worker.into() }));
    }
    got.unwrap();
    let pointed = &mut m.pointed[m.ids[&index]];
    if pointed.by != By::Worker {
        *pointed = Pointed { by: By::Worker, ..Pointed::to(pointed.one) };
    }
    pointed.own[worker as usize] = sa;
    pointed.end();
    assert_eq!(sadb.worker_sa(index, worker), sa);
    m.changes.1 += 1;
}

/// A worker begins a turn: it goes on with what it has kept of this version of the SPD, or decides anew.
fn turn(m: &mut Model, rng: &mut Rng, reader: &Reader, w: usize) {
    m.workers[w] = Some(m.epoch);
    let version = reader.spd_version();
    if m.kept[w].is_none_or(|(kept, ..)| kept != version) {
        m.kept[w] = (!m.policies.is_empty()).then(|| {
            let index = m.policies[rng.below(m.policies.len())].0;
            (version, index, m.ids[&index])
        });
    }
}

fn look(m: &Model, rng: &mut Rng, reader: &Reader) {
    let (direction, flow) = (rng.direction(), rng.flow());
    assert_eq!(reader.lookup(direction, &flow), m.lookup(direction, &flow), "{direction:?} {flow:?}");
    let spi = rng.sa().spi;
    assert_eq!(reader.find(spi), m.inbound.get(&spi).copied());
    let slot = m.any_slot(rng);
    let sa = m.sas.get(&slot).cloned();
    assert_eq!(reader.copy_sa(slot), sa.map(|(g, sa)| (g, where_it_is(sa, m.moved.get(&slot)))));
    for (_, kept) in m.workers.iter().zip(m.kept).filter(|(worker, _)| worker.is_some()) {
        if let Some((_, index, id)) = kept {
            let (dscp, worker) = (rng.below(DSCPS), rng.of(&[0, 1, 2, 63]));
            let (pointed, one) = (&m.pointed[id], reader.policy_sa(index));
            assert_eq!(
                (reader.has_classes(index), reader.is_for_workers(index)),
                (pointed.by == By::Dscp, pointed.by == By::Worker)
            );
            match pointed.by {
                By::Nothing => assert_eq!(one, pointed.one),
                By::Dscp | By::Worker => assert!(one.is_some_and(|slot| slot.0 >= SIZES.max_sas)),
            }
            let sa = reader.sa_for(index, dscp as u8, worker as u32);
            assert_eq!(sa, pointed.sa_for(dscp, worker), "the SA of another policy");
        }
    }
}

#[test]
fn a_million_operations_do_what_plain_maps_do() {
    println!("seed {SEED:#x}");
    let (mut sadb, reader, runtime) = Sadb::heap(&SIZES).unwrap();
    let workers: [WorkerRuntime; WORKERS] = std::array::from_fn(|w| runtime.worker(w));
    let (mut rng, mut m) = (Rng(SEED), Model::default());
    let (mut version, mut hits) = (0, 0u64);
    for step in 0..OPERATIONS {
        match rng.below(100) {
            0..14 => publish(&mut m, &mut rng, &mut sadb),
            14..26 => retire(&mut m, &mut rng, &mut sadb),
            26..40 => add_policy(&mut m, &mut rng, &mut sadb),
            40..48 => change_policy(&mut m, &mut rng, &mut sadb, true),
            48..50 => change_policy(&mut m, &mut rng, &mut sadb, false),
            50..52 => change_classes(&mut m, &mut rng, &mut sadb),
            72..80 => change_worker(&mut m, &mut rng, &mut sadb),
            52..56 => assert_eq!(sadb.reclaim(), m.reclaim()),
            56..64 => {
                let w = rng.below(WORKERS);
                workers[w].quiesce();
                turn(&mut m, &mut rng, &reader, w);
            }
            64..70 => move_peer(&mut m, &mut rng, &mut sadb),
            70..72 => {
                let w = rng.below(WORKERS);
                workers[w].offline();
                m.workers[w] = None;
            }
            _ => look(&m, &mut rng, &reader),
        }
        if step % 10_000 == 0 {
            assert!(reader.sad_version() >= version);
            version = reader.sad_version();
            assert_eq!((reader.spd_version(), reader.policy_sas_version()), m.changes);
            assert_eq!(sadb.live_sas() as usize, m.sas.len());
            let sas: HashMap<_, _> = sadb.sas().map(|(slot, g, sa)| (slot, (g, sa))).collect();
            assert_eq!(sas, m.sas);
            let mut policies = m.policies.clone();
            policies.sort_by_key(|(i, _)| *i);
            assert_eq!(reader.policies().collect::<Vec<_>>(), policies);
            hits += (m.policies.len() as u64) << 32 | m.sas.len() as u64;
        }
    }
    let samples = (OPERATIONS / 10_000) as u64;
    let (policies, sas) = ((hits >> 32) / samples, (hits & 0xffff_ffff) / samples);
    println!("{OPERATIONS} operations, {sas} SAs and {policies} policies alive on average");
    assert!(policies > 20 && sas > 30, "the model must be busy to prove anything");
}
