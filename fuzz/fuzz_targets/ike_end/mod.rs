//! An end of IKE, of either version, as the targets have it: an engine, its jobs, and what its datapath has.
#![allow(dead_code, reason = "each target has some of it")]

use portcullis_ike::{
    connection::{
        Child, Childless, Configuration, Connection, Hosts, Ikev1, LocalAuth, RemoteAuth, SharedKey, Unique,
        Xauth,
    },
    eap::Secrets,
    pool::Pool,
    proposal::{Order, Proposals},
    traffic_selector::ConfiguredSelectors,
    v2::{
        context::Context,
        engine::Engine,
        ike_sa::IkeSaId,
        job::Job,
        output::{ChildChange, Datagram, JobId, Output},
        window::Retransmission,
    },
};
use portcullis_sadb::{Handling, Mode};
use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

/// The key that both have.
pub const KEY: &[u8] = b"a key that both have";

/// The user that there is, if there is one, and its password.
pub const USER: [&str; 2] = ["carol", "a password of hers"];

/// Randomness of a number (SplitMix64).
pub struct Rng(pub u64);

impl rand_core::TryRng for Rng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.try_next_u64().map(|n| n as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(z ^ z >> 31)
    }

    fn try_fill_bytes(&mut self, octets: &mut [u8]) -> Result<(), Self::Error> {
        for part in octets.chunks_mut(8) {
            let random = self.try_next_u64()?.to_le_bytes();
            part.copy_from_slice(&random[..part.len()]);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Rng {}

/// IKE SAs of an end, at most, that a target begins.
const MOST: usize = 8;

/// An end.
pub struct End {
    pub engine: Engine,
    config: Configuration,
    at: usize,
    jobs: Vec<(JobId, Job)>,
    /// What is sent, until the target takes it.
    pub sent: Vec<Datagram>,
    installed: BTreeSet<u32>,
    next_spi: u32,
}

/// Where an end is.
pub fn address(at: usize) -> IpAddr {
    [192, 0, 2, 1 + at as u8].into()
}

/// Who an end is.
pub fn id(at: usize) -> &'static str {
    ["left.example.org", "right.example.org"][at]
}

fn config(at: usize, ikev1: Option<Ikev1>) -> Configuration {
    let nets = ["10.1.0.0/16", "10.2.0.0/16"];
    let selectors = |at: usize| ConfiguredSelectors::parse([nets[at]]).unwrap();
    let child = Child {
        name: "net".into(),
        mark: 0,
        proposals: Proposals::esp(["aes128gcm16-x25519-ecp256", "aes128gcm16"]).unwrap(),
        around: None,
        local: selectors(at),
        remote: selectors(1 - at),
        mode: Mode::Tunnel,
        handling: Handling::default(),
        per_worker: false,
        replay_window: 64,
        priority: 0,
        rekey_ms: 60_000,
        rand_ms: 30_000,
    };
    let mut eap_secrets = Secrets::default();
    assert!(eap_secrets.add_text(&[USER[0].to_owned()], USER[1]));
    let pool = Pool {
        name: "v4".into(),
        first: [10, 3, 0, 1].into(),
        last: [10, 3, 0, 9].into(),
        attributes: vec![],
    };
    let xauth = ikev1.as_ref().and_then(|v1| v1.xauth.as_ref());
    let (has_users, is_user) =
        (matches!(xauth, Some(Xauth::Theirs(_))), matches!(xauth, Some(Xauth::Ours(_))));
    let connection = Connection {
        proposals: Proposals::ike([match ikev1 {
            None => "aes128gcm16-prfsha256-x25519",
            Some(_) => "aes128-sha256-x25519",
        }])
        .unwrap(),
        ikev1,
        name: "peer".into(),
        edition: 0,
        mark: 0,
        local: Hosts::Any,
        remote: Hosts::Any,
        local_port: 500,
        remote_port: 500,
        order: Order::Ours,
        local_id: id(at).parse().unwrap(),
        remote_id: id(1 - at).parse().unwrap(),
        local_auth: LocalAuth::SharedKey,
        remote_auth: RemoteAuth::SharedKey,
        further: Default::default(),
        ppk_id: None,
        ppk_required: false,
        unique: Unique::No,
        childless: Childless::Allow,
        mobike: true,
        vips: is_user.then_some([0; 4].into()).into_iter().collect(),
        pools: has_users.then(|| pool.name.clone()).into_iter().collect(),
        children: vec![Arc::new(child)],
        retransmission: Retransmission::default(),
        dpd_ms: 20_000,
        reauth_ms: 300_000,
        over_ms: 60_000,
        rekey_ms: 120_000,
        rand_ms: 60_000,
        resumes: true,
        follows_redirects: true,
        redirect_to: vec![],
        forces_udp: at == 1,
        fragment_octets: 1280,
        says_fragments: true,
        keying_tries: 1,
        dscp: 0,
        sends_certificates: Default::default(),
        asks_for_certificates: true,
    };
    Configuration {
        connections: vec![Arc::new(connection)],
        shared_keys: vec![SharedKey { ids: vec![], key: KEY.to_vec().into() }],
        ppks: vec![],
        workers: 2,
        pools: vec![Arc::new(pool)],
        eap_secrets: Arc::new(eap_secrets),
        cookies_from: 4,
        puzzles_from: 0,
        most_half_open: 6,
        most_half_open_of_one: 4,
        most_ike_sas: 100,
        firsts_a_second: 0,
        half_open_ms: 30_000,
        here: vec![],
        tells_keys: false,
    }
}

impl End {
    /// Of IKEv1, if so.
    pub fn new(at: usize, ikev1: Option<Ikev1>, rng: &mut Rng) -> End {
        let (config, mut out) = (config(at, ikev1), VecDeque::new());
        let mut cx = Context {
            now_ms: 0,
            unix_secs: 0,
            rng,
            config: &config,
            child_spi: &mut || None,
            child_room: &mut |_| false,
            out: &mut out,
        };
        let engine = Engine::new(&mut cx);
        // RFC 2409 §5.5: keys of two SAs with one SPI would be the same.
        let next_spi = 0x100 + 0x1_0000 * at as u32;
        End { engine, config, at, jobs: vec![], sent: vec![], installed: BTreeSet::new(), next_spi }
    }

    fn with(&mut self, rng: &mut Rng, now_ms: u64, does: impl FnOnce(&mut Engine, &mut Context<'_>)) {
        let mut out = VecDeque::new();
        let next = &mut self.next_spi;
        let mut spi = || {
            *next += 1;
            Some(*next)
        };
        let mut cx = Context {
            now_ms,
            unix_secs: 0,
            rng,
            config: &self.config,
            child_spi: &mut spi,
            child_room: &mut |_| true,
            out: &mut out,
        };
        does(&mut self.engine, &mut cx);
        for output in out {
            match output {
                Output::Send(datagram) => self.sent.push(datagram),
                Output::Job(id, job) => self.jobs.push((id, job)),
                Output::Child(ChildChange::Install(install)) => {
                    assert!(install.replaces.is_none_or(|old| self.installed.contains(&old)));
                    assert!(self.installed.insert(install.sa.spi_in), "an SPI is of one child SA");
                }
                Output::Child(ChildChange::Use(spi)) => assert!(self.installed.contains(&spi)),
                Output::Child(ChildChange::Remove(child)) => assert!(self.installed.remove(&child.spi_in)),
                #[allow(unreachable_patterns, reason = "more may come")]
                Output::Child(_)
                | Output::Event(..)
                | Output::Refused(_)
                | Output::Keys(_)
                | Output::Closed(_) => {}
            }
        }
    }

    pub fn receive(&mut self, datagram: &Datagram, rng: &mut Rng, now_ms: u64) {
        self.with(rng, now_ms, |engine, cx| _ = engine.receive(datagram, cx));
    }

    pub fn job_done(&mut self, n: usize, rng: &mut Rng, now_ms: u64) {
        if self.jobs.is_empty() {
            return;
        }
        let (id, job) = self.jobs.remove(n % self.jobs.len());
        let outcome = job.run(rng);
        self.with(rng, now_ms, |engine, cx| engine.done(id, outcome, cx));
    }

    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    pub fn tick(&mut self, rng: &mut Rng, now_ms: u64) {
        self.with(rng, now_ms, Engine::tick);
    }

    pub fn begin(&mut self, rng: &mut Rng, now_ms: u64) {
        if self.engine.ike_sas().count() < MOST {
            let connection = self.config.connections[0].clone();
            let (child, at) = (connection.children[0].clone(), self.at);
            self.with(rng, now_ms, |engine, cx| {
                engine.initiate(&connection, Some(&child), (address(at), address(1 - at)), cx);
            });
        }
    }

    fn pick(&self, n: u8) -> Option<IkeSaId> {
        let mut ids: Vec<_> = self.engine.ike_sas().map(|sa| sa.id()).collect();
        ids.sort_unstable();
        ids.get(usize::from(n) % ids.len().max(1)).copied()
    }

    fn pick_child(&self, n: u8) -> u32 {
        self.installed.iter().nth(usize::from(n) % self.installed.len().max(1)).copied().unwrap_or(1)
    }

    pub fn child(&mut self, rng: &mut Rng, now_ms: u64) {
        let (Some(id), child) = (self.pick(0), self.config.connections[0].children[0].clone()) else {
            return;
        };
        if self.installed.len() < 4 * MOST {
            self.with(rng, now_ms, |engine, cx| _ = engine.initiate_child(id, &child, cx));
        }
    }

    pub fn rekey(&mut self, n: u8, rng: &mut Rng, now_ms: u64) {
        let Some(id) = self.pick(n) else { return };
        self.with(rng, now_ms, |engine, cx| _ = engine.rekey(id, cx));
    }

    pub fn rekey_child(&mut self, n: u8, rng: &mut Rng, now_ms: u64) {
        let spi = self.pick_child(n);
        self.with(rng, now_ms, |engine, cx| _ = engine.rekey_child(spi, cx));
    }

    pub fn delete(&mut self, n: u8, rng: &mut Rng, now_ms: u64) {
        let Some(id) = self.pick(n) else { return };
        self.with(rng, now_ms, |engine, cx| _ = engine.terminate(id, cx));
    }

    pub fn delete_child(&mut self, n: u8, rng: &mut Rng, now_ms: u64) {
        let spi = self.pick_child(n);
        self.with(rng, now_ms, |engine, cx| _ = engine.terminate_child(spi, cx));
    }

    /// What it has is its IKE SAs', and has an end.
    pub fn check(&self) {
        let children: BTreeSet<u32> =
            self.engine.ike_sas().flat_map(|sa| sa.children().iter().map(|child| child.spi_in)).collect();
        assert_eq!(children, self.installed);
        assert!(self.engine.half_open() <= 6);
    }
}
