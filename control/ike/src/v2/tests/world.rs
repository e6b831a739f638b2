//! Two ends, and what is between them.

use super::kept::Kept;
use crate::{
    connection::{
        Child, Childless, Configuration, Connection, Hosts, LocalAuth, RemoteAuth, SharedKey, Unique,
    },
    crypto::{
        key_log::KeyLog,
        vectors::{Known, seeded},
    },
    message::{ExchangeType, Flags, Header},
    proposal::{Order, Proposals},
    traffic_selector::ConfiguredSelectors,
    v2::{
        child::{ChildSa, EndedBy, Install},
        context::Context,
        engine::Engine,
        ike_sa::{IkeSa, IkeSaId},
        job::{Job, Outcome},
        output::{ChildChange, Datagram, Event, JobId, Move, Output},
        refused::Refused,
        window::Retransmission,
    },
};
use portcullis_sadb::{Handling, Mode};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

pub const LEFT: usize = 0;
pub const RIGHT: usize = 1;

/// When it begins.
pub const START_SECS: u64 = crate::pki::tests::authority::NOW;

/// The commit bit (RFC 2408 §3.1), and where it is.
const COMMIT: u8 = 2;
const FLAGS_AT: usize = 19;

/// Where an end is.
pub fn address(end: usize) -> IpAddr {
    [192, 0, 2, 1 + end as u8].into()
}

pub fn ike(proposal: &str) -> Proposals {
    Proposals::ike([proposal]).unwrap()
}

pub fn child(name: &str, local: &str, remote: &str) -> Arc<Child> {
    let selectors = |text: &str| ConfiguredSelectors::parse([text]).unwrap();
    Arc::new(Child {
        name: name.into(),
        mark: 0,
        proposals: Proposals::esp(["aes128gcm16-x25519-esn-noesn", "aes256-sha256"]).unwrap(),
        around: None,
        local: selectors(local),
        remote: selectors(remote),
        mode: Mode::Tunnel,
        handling: Handling::default(),
        per_worker: false,
        replay_window: 1024,
        priority: 0,
        rekey_ms: 0,
        rand_ms: 0,
    })
}

/// SplitMix64: what the network does has nothing to do with what the ends draw.
fn below(chance: &mut u64, end: u64) -> u64 {
    *chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*chance ^ *chance >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) % end.max(1)
}

/// The connection of an end to the other.
pub fn connection(name: &str, end: usize) -> Connection {
    let (ids, nets) = (["left.example.org", "right.example.org"], ["10.1.0.0/16", "10.2.0.0/16"]);
    Connection {
        name: name.into(),
        edition: 0,
        mark: 0,
        ikev1: None,
        local: Hosts::one(address(end)),
        remote: Hosts::one(address(1 - end)),
        local_port: 500,
        remote_port: 500,
        proposals: ike("aes128gcm16-sha256-x25519"),
        order: Order::Ours,
        local_id: ids[end].parse().unwrap(),
        remote_id: ids[1 - end].parse().unwrap(),
        ppk_id: None,
        ppk_required: false,
        unique: Unique::No,
        childless: Childless::Allow,
        mobike: false,
        local_auth: LocalAuth::SharedKey,
        remote_auth: RemoteAuth::SharedKey,
        further: Default::default(),
        vips: vec![],
        pools: vec![],
        children: vec![child("net", nets[end], nets[1 - end])],
        retransmission: Retransmission::default(),
        dpd_ms: 0,
        reauth_ms: 0,
        over_ms: 0,
        rekey_ms: 0,
        rand_ms: 0,
        resumes: false,
        follows_redirects: true,
        redirect_to: vec![],
        forces_udp: false,
        fragment_octets: 1280,
        says_fragments: true,
        keying_tries: 1,
        dscp: 0,
        sends_certificates: Default::default(),
        asks_for_certificates: true,
    }
}

pub fn config(connection: Connection) -> Configuration {
    Configuration {
        connections: vec![Arc::new(connection)],
        shared_keys: vec![SharedKey { ids: vec![], key: b"a key that both have".to_vec().into() }],
        ppks: vec![],
        workers: 2,
        pools: vec![],
        eap_secrets: Default::default(),
        cookies_from: 10,
        puzzles_from: 0,
        most_half_open: 100,
        most_half_open_of_one: 5,
        most_ike_sas: 100,
        firsts_a_second: 0,
        half_open_ms: 30_000,
        here: vec![],
        tells_keys: false,
    }
}

/// An end, and what its datapath has.
pub struct End {
    pub engine: Engine,
    pub config: Configuration,
    pub events: Vec<(IkeSaId, Event)>,
    pub refused: Vec<Refused>,
    pub keys: Vec<KeyLog>,
    /// By our SPI.
    pub installed: BTreeMap<u32, Install>,
    /// What packets leave by.
    pub sends: BTreeSet<u32>,
    pub moves: Vec<Move>,
    /// Those that are gone, by our SPI, and whether others are in their place.
    pub gone: Vec<(u32, bool)>,
    /// By whom those have ended that nobody here has.
    pub ended: Vec<EndedBy>,
    /// Those that there is no room for, and what each was to take the place of.
    pub withdrawn: Vec<(u32, Option<u32>)>,
    pub next_spi: u32,
    pub jobs: Vec<(u64, JobId, Job)>,
}

impl End {
    pub fn send_by(&mut self, spi: u32) {
        let old = self.installed[&spi].replaces;
        old.into_iter().for_each(|old| _ = self.sends.remove(&old));
        self.sends.insert(spi);
    }
}

/// Two ends and what is between them.
pub struct World {
    pub ends: [End; 2],
    pub now_ms: u64,
    /// In hundredths, of what is lost, and of what comes twice.
    pub loss: u32,
    pub again: u32,
    /// What comes, and jobs, take up to so long.
    pub late_ms: u64,
    /// Jobs of this end take so much longer.
    pub slow: Option<(usize, u64)>,
    /// This end has no room for so many in a hundred of what is to replace another, whether it is asked before or finds out as it
    /// puts it in.
    pub full: Option<(usize, u64)>,
    /// Nothing from this end comes through.
    pub one_way: Option<usize>,
    /// Nothing of this exchange comes through.
    pub lost: Option<ExchangeType>,
    /// No response of this end to CREATE_CHILD_SA comes through.
    pub unanswered: Option<usize>,
    /// Where each end is: what is sent elsewhere is lost, and nothing leaves from elsewhere unless it is said so.
    pub addresses: [IpAddr; 2],
    /// Where the right end is besides.
    pub further: Option<IpAddr>,
    /// Where a gateway of any name is.
    pub named: Vec<IpAddr>,
    /// A NAT in front of the left end: its place for port 500, and one port higher for 4500.
    pub nat: Option<SocketAddr>,
    /// What these ends send has the commit bit of IKEv1.
    pub commits: [bool; 2],
    /// What packets leave by is there at the other end.
    pub is_steady: bool,
    /// Messages that came.
    pub carried: usize,
    /// Requests that were sent, each once.
    pub requests: Vec<Vec<u8>>,
    /// What is kept of an end's IKE SAs, if it is.
    pub kept: [Option<Kept>; 2],
    network: Vec<(u64, usize, Datagram)>,
    rng: Known,
    chance: u64,
}

impl World {
    pub fn new(seed: u64, configs: [Configuration; 2]) -> World {
        let mut rng = seeded(seed);
        let ends = configs.map(|config| {
            let mut out = VecDeque::new();
            let mut cx = Context {
                now_ms: 0,
                unix_secs: 0,
                rng: &mut rng,
                config: &config,
                child_spi: &mut || None,
                child_room: &mut |_| false,
                out: &mut out,
            };
            let engine = Engine::new(&mut cx);
            End {
                engine,
                config,
                events: vec![],
                refused: vec![],
                keys: vec![],
                installed: BTreeMap::new(),
                sends: BTreeSet::new(),
                moves: vec![],
                gone: vec![],
                ended: vec![],
                withdrawn: vec![],
                next_spi: 0x100,
                jobs: vec![],
            }
        });
        World {
            ends,
            now_ms: 0,
            loss: 0,
            again: 0,
            late_ms: 0,
            slow: None,
            full: None,
            one_way: None,
            lost: None,
            unanswered: None,
            addresses: [address(LEFT), address(RIGHT)],
            further: None,
            named: vec![],
            nat: None,
            commits: [false; 2],
            is_steady: false,
            carried: 0,
            requests: vec![],
            kept: [None, None],
            network: vec![],
            rng,
            chance: seed,
        }
    }

    /// An end knows nothing any more.
    pub fn restart(&mut self, end: usize) {
        self.with(end, |engine, cx| *engine = Engine::new(cx));
        let end = &mut self.ends[end];
        (end.installed, end.sends, end.jobs) = Default::default();
    }

    /// Changes the connection of an end.
    pub fn configure(&mut self, end: usize, change: impl FnOnce(&mut Connection)) {
        change(Arc::make_mut(&mut self.ends[end].config.connections[0]));
    }

    pub fn below(&mut self, end: u64) -> u64 {
        below(&mut self.chance, end)
    }

    /// Has an engine do something, and takes what it wants done.
    pub fn with<T>(&mut self, at: usize, does: impl FnOnce(&mut Engine, &mut Context<'_>) -> T) -> T {
        let done = self.ask(at, does);
        while let Some((spi, replaces)) = self.ends[at].withdrawn.pop() {
            self.ask(at, |engine, cx| engine.withdraw_child(spi, replaces, cx));
        }
        done
    }

    fn ask<T>(&mut self, at: usize, does: impl FnOnce(&mut Engine, &mut Context<'_>) -> T) -> T {
        let (end, mut out) = (&mut self.ends[at], VecDeque::new());
        let next = &mut end.next_spi;
        let mut spi = || {
            *next += 1;
            Some(*next)
        };
        let full = self.full.filter(|(end, _)| *end == at).map(|(_, chance)| chance);
        let chance = &mut self.chance;
        let mut has_room = |install: &Install| match full.filter(|_| install.replaces.is_some()) {
            Some(full) => below(chance, 100) >= full,
            None => true,
        };
        let mut cx = Context {
            now_ms: self.now_ms,
            unix_secs: START_SECS + self.now_ms / 1000,
            rng: &mut self.rng,
            config: &end.config,
            child_spi: &mut spi,
            child_room: &mut has_room,
            out: &mut out,
        };
        let done = does(&mut end.engine, &mut cx);
        assert!(end.engine.knows_children());
        let fate = self.keep(at, &out);
        let outputs = out.into_iter().take(fate.unwrap_or(usize::MAX));
        outputs.for_each(|output| self.take(at, output));
        if fate.is_some() {
            self.come_back(at);
        }
        done
    }

    pub fn take(&mut self, at: usize, output: Output) {
        match output {
            Output::Keys(keys) => self.ends[at].keys.push(*keys),
            Output::Send(mut datagram) => {
                if self.commits[at] {
                    datagram.octets[FLAGS_AT] |= COMMIT;
                }
                self.check_sealed_once(at, &datagram.octets);
                let exchange = Header::parse(&datagram.octets).ok().map(|(header, ..)| header.exchange);
                let is_request = Header::parse(&datagram.octets)
                    .is_ok_and(|(header, ..)| !header.flags.contains(Flags::RESPONSE));
                if is_request && !self.requests.contains(&datagram.octets) {
                    self.requests.push(datagram.octets.clone());
                }
                if let Some(nat) = self.nat.filter(|_| at == LEFT) {
                    let port = nat.port() + u16::from(datagram.local.port() == 4500);
                    datagram.local = SocketAddr::new(nat.ip(), port);
                }
                let copies = 1 + usize::from(self.below(100) < self.again.into());
                for _ in 0..copies {
                    let is_lost = self.below(100) < self.loss.into()
                        || self.one_way == Some(at)
                        || self.lost.is_some() && self.lost == exchange
                        || self.unanswered == Some(at)
                            && !is_request
                            && exchange == Some(ExchangeType::CREATE_CHILD_SA);
                    let arrives = self.now_ms + 1 + self.below(self.late_ms + 1);
                    if !is_lost {
                        self.network.push((arrives, 1 - at, datagram.clone()));
                    }
                }
            }
            Output::Job(id, job) => {
                let slow = self.slow.filter(|(end, _)| *end == at).map_or(0, |(_, ms)| ms);
                let done = self.now_ms + slow + self.below(self.late_ms + 1);
                self.ends[at].jobs.push((done, id, job));
            }
            Output::Child(ChildChange::Install(install)) => {
                let chance = self.full.filter(|(end, _)| *end == at && install.replaces.is_some());
                let is_full = chance.is_some_and(|(_, chance)| self.below(100) < chance);
                let end = &mut self.ends[at];
                assert!(install.replaces.is_none_or(|old| end.installed.contains_key(&old)));
                let (spi, sends) = (install.sa.spi_in, install.sends && !is_full);
                if is_full {
                    end.withdrawn.push((spi, install.replaces));
                }
                assert!(end.installed.insert(spi, *install).is_none());
                if sends {
                    end.send_by(spi);
                }
            }
            Output::Child(ChildChange::Move(moved)) => {
                let Move { spi_in, local, peer, is_in_udp, nat } = moved;
                let install = self.ends[at].installed.get_mut(&spi_in).expect("what moves is there");
                (install.local, install.peer) = (local, peer);
                (install.is_in_udp, install.nat) = (is_in_udp, nat);
                self.ends[at].moves.push(moved);
            }
            Output::Child(ChildChange::Use(spi)) => self.ends[at].send_by(spi),
            Output::Child(ChildChange::Remove(child)) => {
                let (spi, end) = (child.spi_in, &mut self.ends[at]);
                let is_last = end.sends.remove(&spi) && end.sends.is_empty();
                assert!(end.installed.remove(&spi).is_some());
                end.gone.push((spi, child.is_replaced));
                end.ended.extend(child.ended_by);
                assert!(!self.is_steady || !is_last, "packets have an SA to leave by");
            }
            Output::Event(id, event) => self.ends[at].events.push((id, event)),
            Output::Closed(_) | Output::Refused(_) => {}
        }
    }

    pub fn initiate(&mut self, at: usize, child: Option<usize>) {
        let connection = self.ends[at].config.connections[0].clone();
        let child = child.map(|n| connection.children[n].clone());
        let addresses = (address(at), address(1 - at));
        self.with(at, |engine, cx| engine.initiate(&connection, child.as_ref(), addresses, cx));
    }

    /// The next thing happens. False if there is none until then.
    pub fn step(&mut self, until_ms: u64) -> bool {
        let arrival = self.network.iter().map(|(ms, ..)| *ms).min();
        let job = self.ends.iter().flat_map(|end| end.jobs.iter().map(|(ms, ..)| *ms)).min();
        let due = self.ends.iter().filter_map(|end| end.engine.due_ms()).min();
        let Some(next) = [arrival, job, due].into_iter().flatten().min().filter(|ms| *ms <= until_ms) else {
            return false;
        };
        self.now_ms = self.now_ms.max(next);
        let now = self.now_ms;
        for at in [LEFT, RIGHT] {
            // What is done at the same time is told in any order, and one behind the other.
            let jobs = &self.ends[at].jobs;
            let done: Vec<usize> = (0..jobs.len()).filter(|n| jobs[*n].0 <= now).collect();
            if !done.is_empty() {
                let n = done[if done.len() > 1 { self.below(done.len() as u64) as usize } else { 0 }];
                let (_, id, job) = self.ends[at].jobs.remove(n);
                let outcome = match job {
                    Job::LookUp(_) => Outcome::LookedUp(self.named.clone()),
                    job => job.run(&mut self.rng),
                };
                self.with(at, |engine, cx| engine.done(id, outcome, cx));
                return true;
            }
        }
        if let Some(n) = self.network.iter().position(|(ms, ..)| *ms <= now) {
            let (_, at, Datagram { local, mut peer, octets, .. }) = self.network.remove(n);
            if let Some(nat) = self.nat.filter(|nat| at == LEFT && nat.ip() == peer.ip()) {
                let port = if peer.port() == nat.port() { 500 } else { 4500 };
                peer = SocketAddr::new(self.addresses[LEFT], port);
            }
            let is_further = at == RIGHT && self.further == Some(peer.ip());
            if peer.ip() != self.addresses[at] && !is_further {
                return true;
            }
            self.carried += 1;
            // Theirs is ours.
            let datagram = Datagram { local: peer, peer: local, octets, dscp: 0 };
            if let Err(refused) = self.with(at, |engine, cx| engine.receive(&datagram, cx)) {
                self.ends[at].refused.push(refused);
            }
            return true;
        }
        for at in [LEFT, RIGHT] {
            self.with(at, |engine, cx| engine.tick(cx));
        }
        true
    }

    pub fn run_for(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        let mut steps = 0;
        while self.step(until) {
            steps += 1;
            self.check_steady();
            assert!(steps < 1_000_000, "it ends");
        }
        self.now_ms = until;
    }

    /// Until nothing is under way, for ten minutes at most.
    pub fn run_until_quiet(&mut self) {
        self.run_for(600_000);
    }

    pub fn only_sa(&self, at: usize) -> &IkeSa {
        let mut all = self.ends[at].engine.sas();
        let sa = all.next().expect("there is an IKE SA");
        assert!(all.next().is_none(), "there is one IKE SA");
        sa
    }

    /// The keys that an end has told, of one IKE SA, and whether the other end has told the same.
    pub fn only_keys(&self, at: usize) -> (&KeyLog, bool) {
        let [keys] = &self.ends[at].keys[..] else { panic!("{:?}", self.ends[at].keys) };
        (keys, self.ends[1 - at].keys == self.ends[at].keys)
    }

    /// Messages that an end has asked, each once.
    pub fn messages_of(&self, end: usize) -> usize {
        let is_by_initiator =
            |octets: &&Vec<u8>| Header::parse(octets).is_ok_and(|(h, ..)| h.flags.contains(Flags::INITIATOR));
        let ids = self.requests.iter().filter(|octets| is_by_initiator(octets) == (end == LEFT));
        ids.filter_map(|octets| Some(Header::parse(octets).ok()?.0.message_id)).collect::<BTreeSet<_>>().len()
    }

    fn check_steady(&self) {
        let is_alive = self.ends.iter().all(|end| end.engine.ike_sas().count() > 0);
        for at in [LEFT, RIGHT].into_iter().filter(|_| self.is_steady && is_alive) {
            // What another IKE SA has the place of is not sent by.
            let children = self.ends[at].engine.ike_sas().flat_map(|sa| sa.children());
            let has_heir = |c: &&ChildSa| {
                c.is_replaced || c.successor.is_some_and(|new| self.ends[at].sends.contains(&new))
            };
            let replaced: BTreeSet<u32> = children.filter(has_heir).map(|c| c.spi_in).collect();
            for spi in self.ends[at].sends.difference(&replaced) {
                let out = self.ends[at].installed[spi].sa.spi_out;
                let now = self.now_ms;
                assert!(self.ends[1 - at].installed.contains_key(&out), "{now} ms: {at} sends into nothing");
            }
        }
    }

    /// Both have so many child SAs, packets leave by each of them, and what one seals with the other opens with.
    pub fn check_children(&self, children: usize) {
        let [left, right] = &self.ends;
        assert_eq!((left.installed.len(), right.installed.len()), (children, children));
        assert!([left, right].iter().all(|end| end.sends.iter().eq(end.installed.keys())));
        for ours in left.installed.values() {
            let theirs = &right.installed[&ours.sa.spi_out];
            assert_eq!(theirs.sa.spi_out, ours.sa.spi_in);
            assert_eq!(ours.key_in.bytes(), theirs.key_out.bytes());
            assert_eq!(ours.key_out.bytes(), theirs.key_in.bytes());
            assert_ne!(ours.key_in.bytes(), ours.key_out.bytes());
            assert_eq!((ours.local, ours.peer), (theirs.peer, theirs.local));
            assert_eq!(
                (&ours.sa.policy.local, &ours.sa.policy.remote),
                (&theirs.sa.policy.remote, &theirs.sa.policy.local)
            );
            assert_eq!(ours.algorithm, theirs.algorithm);
            assert_eq!(ours.sa.agreement.esn(), theirs.sa.agreement.esn());
        }
    }
}
