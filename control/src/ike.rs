//! IKE as a part of iked: its engine, with sockets, threads, and the SADB.
//!
//! ```text
//!  sockets ──▶ engine ──▶ sockets, children (SADB), pool, the log
//!  pool    ──▶    ▲
//!  commands ──────┘
//! ```

mod actions;
mod children;
pub mod configured;
pub mod credentials;
mod eap;
pub mod events;
mod failures;
mod idle;
mod keeping;
pub mod keylog;
mod loading;
mod names;
mod paths;
mod placement;
mod pool;
mod pools;
mod report;
mod rounds;
pub mod sockets;
mod virtual_ips;

use crate::{install::Apart, swanctl};
use actions::Actions;
use children::Children;
use configured::Unusable;
use credentials::Credentials;
use events::Events;
use failures::Failures;
use idle::Idle;
use keeping::Keeping;
use keylog::KeyLog;
use names::{Names, Waiting};
use paths::Watch;
use placement::Placement;
use pool::Pool;
use portcullis_ike::{
    child::{EndedBy, Wanted},
    connection::{Child, Configuration, Connection},
    crypto::keys::Role,
    ike_sa::{IkeSa, IkeSaId, Phase},
    retransmission::Retransmission,
    v2::{
        context::Context,
        engine::Engine,
        job::Job,
        output::{ChildChange, JobId, Output},
        refused::Refused,
    },
};
use portcullis_machine::{Ike as Limits, Machine};
use portcullis_sadb::{self as sadb, Endpoint, EventKind, Flow, Sa, Sadb, SlotIndex, Spi};
use rand_core::UnwrapErr;
use sockets::{SocketError, Sockets};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};
use thiserror::Error;
use virtual_ips::VirtualIps;

/// The file of connections in the configuration directory.
pub const FILE: &str = "swanctl.conf";

/// Messages that are taken in a turn, at most, before others have theirs.
const MESSAGES_A_TURN: usize = 256;

/// How often it is looked whether packets have come by child SAs that are not sent by yet.
const LOOK_MS: u64 = 10;
/// Of more of them than this it is looked more rarely, so that looking takes no more of a CPU.
const LOOKED_AT: u64 = 1000;

/// Why there is no IKE.
#[derive(Debug, Error)]
pub enum IkeError {
    /// `swanctl.conf`.
    #[error(transparent)]
    Swanctl(#[from] swanctl::SwanctlError),
    /// What of it cannot be used.
    #[error("{FILE}: {0}")]
    Unusable(#[from] Unusable),
    /// Keys and certificates.
    #[error("{0}")]
    Credentials(String),
    /// Others may read the secrets.
    #[error("{file}: has secrets, and everybody may read it (mode {mode:04o}); run `chmod o= {file}`", file = .file.display())]
    Mode {
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The sockets.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The threads, or the file's mode.
    #[error("cannot start threads for key exchange, or see the mode of {FILE}: {0}")]
    Io(#[from] io::Error),
}

/// Randomness that nobody knows. Without the system's there is no security, and nothing goes on.
fn rng() -> UnwrapErr<getrandom::SysRng> {
    UnwrapErr(getrandom::SysRng)
}

/// Now, by which certificates are valid.
fn unix_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Now, of a clock that goes on while no iked runs, as what is kept of IKE SAs needs it.
fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// What is done about a child SA that the datapath does not have as the engine wants it, by our SPI.
enum Remedy {
    /// There is no room for it; what it was to take the place of.
    Withdraw(u32, Option<u32>),
    /// Its SAs cannot go between other addresses: others must.
    Rekey(u32),
}

/// IKE.
#[derive(Debug)]
pub struct Ike {
    engine: Engine,
    config: Configuration,
    /// What `config` is made of.
    swanctl: swanctl::Configuration,
    /// What the file had when it was last read.
    file: swanctl::Configuration,
    /// The last edition of a connection.
    edition: u64,
    credentials: Credentials,
    sockets: Sockets,
    pool: Pool,
    /// When packets are looked for next by which peers say that they have child SAs.
    look_at_ms: u64,
    /// Jobs that wait for the end of a turn.
    jobs: VecDeque<(JobId, Job)>,
    children: Children,
    placement: Placement,
    keylog: Option<KeyLog>,
    events: Events,
    /// What did not come about.
    failures: Failures,
    /// Messages that nothing came of, by why.
    refused: BTreeMap<&'static str, u64>,
    keeping: Keeping,
    actions: Actions,
    idle: Idle,
    /// Addresses and routes of this machine, if they can be followed.
    watch: Option<Watch>,
    names: Names,
    /// What begins when names are looked up, or when it can be.
    waiting: Vec<Waiting>,
    retransmission: Retransmission,
    virtual_ips: VirtualIps,
}

impl Ike {
    /// Reads the configuration, and begins to listen. Nothing if there is no configuration.
    ///
    /// # Errors
    /// [`IkeError`].
    pub fn open(directory: &Path, machine: &Machine) -> Result<Option<Ike>, IkeError> {
        let file = directory.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let swanctl = loading::read(&file)?;
        let mut credentials = Credentials::default();
        credentials.read(directory).map_err(IkeError::Credentials)?;
        for authority in &swanctl.authorities {
            credentials.load_authority(authority).map_err(IkeError::Credentials)?;
        }
        let config = configured::configuration(&swanctl, &credentials)?;
        let (sockets, pool) = (Sockets::open()?, Pool::new(threads(&machine.ike))?);
        let mut out = VecDeque::new();
        let mut cx = Context {
            now_ms: now_ms(),
            unix_secs: unix_secs(),
            rng: &mut rng(),
            config: &config,
            child_spi: &mut || None,
            child_room: &mut |_| false,
            out: &mut out,
        };
        let engine = Engine::new(&mut cx);
        let mut ike = Ike {
            engine,
            config,
            file: swanctl.clone(),
            swanctl,
            edition: 0,
            credentials,
            sockets,
            pool,
            look_at_ms: 0,
            jobs: VecDeque::new(),
            children: Children::default(),
            placement: Placement::default(),
            keylog: None,
            events: Events::default(),
            failures: Failures::default(),
            refused: BTreeMap::new(),
            keeping: Keeping::default(),
            actions: Actions::default(),
            idle: Idle::default(),
            watch: Watch::open()
                .inspect_err(|e| tracing::warn!("IKE SAs stay when addresses change: netlink: {e}"))
                .ok(),
            names: Names::new(names::look_up)?,
            waiting: vec![],
            retransmission: Retransmission::default(),
            virtual_ips: VirtualIps::default(),
        };
        ike.limit(machine);
        ike.note_names();
        Ok(Some(ike))
    }

    /// Others may take so much from now on, and the datapath will have so many workers when it starts. Threads are as many as
    /// before.
    pub fn limit(&mut self, machine: &Machine) {
        let limits = &machine.ike;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = machine.datapath.worker_cores(cores).len() as u16;
        self.placement.usual = workers;
        self.children.usual_workers = workers.into();
        self.config.most_half_open = limits.half_open;
        self.config.most_half_open_of_one = limits.half_open_per_host;
        self.config.most_ike_sas = limits.ike_sas;
        self.config.cookies_from = limits.cookies_from;
        self.config.firsts_a_second = limits.init_per_second;
        self.virtual_ips.set_interface(limits.vip_interface.as_deref());
        let retransmission = Retransmission {
            timeout_ms: limits.retransmit_timeout_ms,
            base: limits.retransmit_base,
            tries: limits.retransmit_tries,
            limit_ms: limits.retransmit_limit_ms,
            jitter: limits.retransmit_jitter,
        };
        if std::mem::replace(&mut self.retransmission, retransmission) != retransmission {
            self.make_connections();
        }
    }

    /// Writes down the keys of the IKE SAs that are there, and of all SAs from now on.
    pub fn log_keys(&mut self, log: KeyLog, sadb: &mut Sadb) {
        self.config.tells_keys = true;
        self.keylog = Some(log);
        self.with(sadb, |engine, cx| engine.tell_keys(cx));
    }

    /// What is to be waited for.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let watch = self.watch.iter().map(|watch| watch.news.as_fd());
        self.sockets.fds().chain([self.pool.fd(), self.names.fd()]).chain(watch)
    }

    /// In how long [`Ike::turn`] is to be called at the latest.
    pub fn due(&self) -> Option<Duration> {
        if !self.jobs.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = [
            self.engine.due_ms(),
            self.names.due_ms(),
            self.waiting.iter().map(|waiting| waiting.again_ms).filter(|ms| *ms > 0).min(),
            self.actions.due_ms(),
            self.idle.due_ms(),
            self.virtual_ips.due_ms(),
        ];
        let due = due.into_iter().flatten().min().map(|ms| ms.saturating_sub(self.now_ms()));
        let watch = self.watch.as_ref().and_then(Watch::due);
        // Packets say nothing: they are counted.
        let look_ms = self.look_at_ms.saturating_sub(self.now_ms());
        let packets = self.engine.committing().next().map(|_| Duration::from_millis(look_ms));
        due.map(Duration::from_millis).into_iter().chain(watch).chain(packets).min()
    }

    /// The SAs and policies in the SADB that are IKE's.
    pub fn owned(&self) -> Apart {
        let policies = self.children.policies().chain(self.children.held()).collect();
        Apart { slots: self.children.slots().collect(), policies }
    }

    /// The IKE SAs, the oldest first.
    pub fn ids(&self) -> Vec<IkeSaId> {
        let mut ids: Vec<_> = self.engine.ike_sas().map(|sa| sa.id()).collect();
        ids.sort_unstable();
        ids
    }

    /// The IKE SAs.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the threads have to do: jobs that are not done, and threads.
    pub fn jobs(&self) -> (usize, usize) {
        (self.jobs.len() + self.pool.waiting(), self.pool.threads())
    }

    /// Messages that nothing came of, by why.
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// The number of a child SA, by our SPI.
    pub fn child_id(&self, spi_in: u32) -> Option<u32> {
        self.children.installed(spi_in).map(|installed| installed.id)
    }

    /// Whether a connection or a child has this name.
    pub fn knows(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    /// The connection and the child of a name: of a child, or of a connection, which is its first child.
    fn named(&self, name: &str) -> Option<(Arc<Connection>, Option<Arc<Child>>)> {
        let all = &self.config.connections;
        let of_child = all.iter().find_map(|c| {
            let child = c.children.iter().find(|child| child.name == name)?;
            Some((c.clone(), Some(child.clone())))
        });
        of_child.or_else(|| {
            let connection = all.iter().find(|c| c.name == name)?;
            Some((connection.clone(), connection.children.first().cloned()))
        })
    }

    /// Begins a child by its name, or the first one of a connection.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn up(&mut self, name: &str, sadb: &mut Sadb) -> Result<String, String> {
        let (connection, child) = self.named(name).ok_or_else(|| format!("nothing is named '{name}'"))?;
        let child = child.as_ref().map(|child| &*child.name);
        let id = self.initiate(Some(&connection.name), child, sadb)?;
        let when = if self.is_waiting(id) { " when its names are looked up" } else { "" };
        Ok(format!("IKE SA {} of connection '{}' is begun{when}", id.0, connection.name))
    }

    /// Deletes the child SAs of a name, or the IKE SAs of a connection.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn down(&mut self, name: &str, sadb: &mut Sadb) -> Result<String, String> {
        let is_its = |waiting: &Waiting| {
            waiting.connection == name
                || waiting.child.as_ref().is_some_and(|child| child.config.name == name)
        };
        self.waiting.retain(|waiting| !(waiting.is_to_be_up && is_its(waiting)));
        self.ask_all(name, sadb, "deleted", Engine::terminate, Engine::terminate_child)
    }

    /// Has the child SAs of a name replaced, or the IKE SAs of a connection.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn rekey(&mut self, name: &str, sadb: &mut Sadb) -> Result<String, String> {
        self.ask_all(name, sadb, "being replaced", Engine::rekey, Engine::rekey_child)
    }

    /// Asks the same of all that have a name.
    fn ask_all(
        &mut self,
        name: &str,
        sadb: &mut Sadb,
        what: &str,
        of_ike_sa: impl Fn(&mut Engine, IkeSaId, &mut Context<'_>) -> bool,
        of_child: impl Fn(&mut Engine, u32, &mut Context<'_>) -> bool,
    ) -> Result<String, String> {
        let (ike_sas, children) = self.having(name);
        for id in &ike_sas {
            self.with(sadb, |engine, cx| of_ike_sa(engine, *id, cx));
        }
        for spi in &children {
            self.with(sadb, |engine, cx| of_child(engine, *spi, cx));
        }
        done(what, &ike_sas, &children, name)
    }

    /// The IKE SAs of a connection, or the child SAs of a name.
    fn having(&self, name: &str) -> (Vec<IkeSaId>, Vec<u32>) {
        let of_connection = self.engine.ike_sas().filter(|sa| sa.connection().name == name);
        let of_child =
            self.engine.ike_sas().flat_map(|sa| sa.children()).filter(|child| child.config.name == name);
        (of_connection.map(|sa| sa.id()).collect(), of_child.map(|child| child.spi_in).collect())
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    /// The datapath says that an SA is old, or at its end. False if it is none of IKE's.
    pub fn hear(&mut self, event: &sadb::Event, sadb: &mut Sadb) -> bool {
        let Some(spi) = self.children.spi_of(event.slot) else { return false };
        match event.kind {
            EventKind::SoftLifetime | EventKind::SeqLow => {
                self.with(sadb, |engine, cx| engine.rekey_child(spi, cx));
            }
            // Of one of its SAs.
            EventKind::Idle => self.end_if_idle(spi, sadb),
            EventKind::HardLifetime | EventKind::SeqExhausted => {
                tracing::info!("child SA {}: {:?}", Spi(spi), event.kind);
                self.with(sadb, |engine, cx| engine.expire_child(spi, cx));
            }
            EventKind::PeerMoved | EventKind::Acquire => return false,
        }
        true
    }

    /// The newest packet of an SA in UDP, in this slot, has come from elsewhere. False if the SA is none of IKE's.
    pub fn follow_packet(&mut self, slot: SlotIndex, sa: &Sa, to: Endpoint, sadb: &mut Sadb) -> bool {
        if let Some(spi) = self.children.follow(sadb, slot, to) {
            let peer = SocketAddr::new(to.addr(), to.port());
            self.with(sadb, |engine, cx| engine.follow_packet(spi, peer, cx));
        }
        Children::is_of_one(sa)
    }

    /// Takes what came, and what has come to its time.
    pub fn turn(&mut self, sadb: &mut Sadb) {
        self.follow_addresses(sadb);
        self.turn_names(sadb);
        for _ in 0..MESSAGES_A_TURN {
            let Some(datagram) = self.sockets.receive() else { break };
            let mut received = Ok(());
            self.with(sadb, |engine, cx| received = engine.receive(&datagram, cx));
            if let Err(refused) = received {
                self.note(&refused, datagram.peer);
            }
        }
        for (job, outcome) in self.pool.take() {
            self.with(sadb, |engine, cx| engine.done(job, outcome, cx));
        }
        self.with(sadb, Engine::tick);
        self.hear_children(sadb);
        self.end_idle(sadb);
        self.give_jobs(sadb);
        self.children.expire(sadb, crate::iked::boot_secs());
        self.act(sadb);
        self.put_virtual_ips();
        self.tidy();
    }

    /// Packets may say that peers have child SAs.
    fn hear_children(&mut self, sadb: &mut Sadb) {
        let now_ms = self.now_ms();
        if now_ms < self.look_at_ms {
            return;
        }
        let is_used = |spi: &u32| {
            let installed = self.children.installed(*spi);
            installed.is_some_and(|child| report::counters(sadb, child.inbound).packets > 0)
        };
        let used: Vec<_> = self.engine.committing().filter(is_used).collect();
        for spi in used {
            self.with(sadb, |engine, cx| engine.hear_child(spi, cx));
        }
        self.look_at_ms = now_ms + LOOK_MS * (1 + self.engine.committing().count() as u64 / LOOKED_AT);
    }

    /// Has jobs done by other threads, but for a short one that nobody waits for: it is done at once.
    fn give_jobs(&mut self, sadb: &mut Sadb) {
        while let Some((id, job)) = self.jobs.pop_front() {
            if let Job::LookUp(name) = job {
                self.names.look_up_for(id, name);
            } else if job.is_short() && self.jobs.is_empty() && self.pool.waiting() == 0 {
                let outcome = job.run(&mut rng());
                self.with(sadb, |engine, cx| engine.done(id, outcome, cx));
            } else {
                self.pool.give(id, job);
            }
        }
    }

    /// Begins a child of a connection, or an IKE SA alone; where there is an IKE SA of the connection, under that.
    ///
    /// # Errors
    /// Why it cannot be begun, for people.
    pub fn initiate(
        &mut self,
        connection: Option<&str>,
        child: Option<&str>,
        sadb: &mut Sadb,
    ) -> Result<IkeSaId, String> {
        self.initiate_for(connection, child, None, sadb)
    }

    /// The same, for a packet if one wants it.
    fn initiate_for(
        &mut self,
        connection: Option<&str>,
        child: Option<&str>,
        packet: Option<Flow>,
        sadb: &mut Sadb,
    ) -> Result<IkeSaId, String> {
        let of = |c: &&Arc<Connection>| {
            connection.is_none_or(|name| c.name == name)
                && child.is_none_or(|name| c.children.iter().any(|child| child.name == name))
        };
        let found = self.config.connections.iter().find(of).cloned();
        let found = found.ok_or_else(|| match (connection, child) {
            (Some(connection), Some(child)) => format!("no connection '{connection}' with a child '{child}'"),
            (Some(connection), None) => format!("no connection '{connection}'"),
            (None, Some(child)) => format!("no connection has a child '{child}'"),
            (None, None) => "no connection is configured".to_owned(),
        })?;
        let child = child.and_then(|name| found.children.iter().find(|child| child.name == name));
        let child = child.map(|config| Wanted { config: config.clone(), packet: packet.map(Box::new) });
        let begun = self.begin_or_wait(&found, child.clone(), sadb)?;
        // It need not be tried any more.
        self.waiting.retain(|waiting| waiting.again_ms == 0 || !waiting.is_for(&found.name, &child));
        Ok(begun)
    }

    fn begin_or_wait(
        &mut self,
        found: &Arc<Connection>,
        child: Option<Wanted>,
        sadb: &mut Sadb,
    ) -> Result<IkeSaId, String> {
        if let Some(id) = self.begin_under(found, child.as_ref(), sadb) {
            return Ok(id);
        }
        if let Some(unusable) = self.unusable(&found.name) {
            return Err(unusable.to_string());
        }
        // What is tried again has failed, which is to be told now.
        let is_it = |waiting: &&Waiting| waiting.connection == found.name && waiting.again_ms == 0;
        if let Some(waiting) = self.waiting.iter().find(|w| is_it(w) && w.is_for(&found.name, &child)) {
            return Ok(waiting.id);
        }
        if self.waits_for_names(&found.name) {
            // Children that wait are to be under one IKE SA, too.
            let begun = self.waiting.iter().find(is_it).map(|waiting| waiting.id);
            let id = begun.unwrap_or_else(|| self.engine.reserve());
            let connection = found.name.clone();
            self.waiting.push(Waiting { id, connection, child, is_to_be_up: false, again_ms: 0 });
            return Ok(id);
        }
        let between = self.ends(found)?;
        let id = self.engine.reserve();
        self.begin_between(id, found, child, between, sadb);
        Ok(id)
    }

    /// Begins a child under the IKE SA of a connection, if there is one.
    fn begin_under(
        &mut self,
        connection: &Connection,
        child: Option<&Wanted>,
        sadb: &mut Sadb,
    ) -> Option<IkeSaId> {
        let id = under(&self.engine, connection)?;
        if let Some(child) = child {
            self.with(sadb, |engine, cx| engine.initiate_child(id, child.clone(), cx));
        }
        Some(id)
    }

    /// Begins an IKE SA between two addresses, of a number that was reserved.
    fn begin_between(
        &mut self,
        id: IkeSaId,
        connection: &Arc<Connection>,
        child: Option<Wanted>,
        between: (IpAddr, IpAddr),
        sadb: &mut Sadb,
    ) {
        self.with(sadb, |engine, cx| engine.initiate_as(id, connection, child, between, cx));
        self.tell_begun(id);
    }

    /// Whether an IKE SA is to be begun when it is known where the peer is.
    pub fn is_waiting(&self, id: IkeSaId) -> bool {
        self.waiting.iter().any(|waiting| waiting.id == id)
    }

    /// Has an engine do something, keeps what has changed by it, and does what it wants done.
    pub fn with<T>(&mut self, sadb: &mut Sadb, does: impl FnOnce(&mut Engine, &mut Context<'_>) -> T) -> T {
        let mut out = VecDeque::new();
        let done = self.ask(sadb, &mut out, does);
        while !out.is_empty() || self.engine.has_changed() {
            self.keep_closed(&mut out);
            self.keep(&out);
            let remedies: Vec<_> =
                std::mem::take(&mut out).into_iter().filter_map(|output| self.take(sadb, output)).collect();
            for remedy in remedies {
                self.ask(sadb, &mut out, |engine, cx| match remedy {
                    Remedy::Withdraw(spi, replaces) => engine.withdraw_child(spi, replaces, cx),
                    Remedy::Rekey(spi) => engine.rekey_child(spi, cx),
                });
            }
        }
        self.drop_closed();
        done
    }

    /// Has an engine do something; what it wants done is in `out`.
    fn ask<T>(
        &mut self,
        sadb: &Sadb,
        out: &mut VecDeque<Output>,
        does: impl FnOnce(&mut Engine, &mut Context<'_>) -> T,
    ) -> T {
        let now_ms = self.now_ms();
        let (placement, children) = (&mut self.placement, &self.children);
        self.config.workers = placement.workers();
        let mut cx = Context {
            now_ms,
            unix_secs: unix_secs(),
            rng: &mut rng(),
            config: &self.config,
            child_spi: &mut || placement.spi(sadb, now_ms, &mut rng()),
            child_room: &mut |install| children.has_room(sadb, install),
            out,
        };
        does(&mut self.engine, &mut cx)
    }

    /// Does what the engine wants done; or what is to be asked of it instead.
    fn take(&mut self, sadb: &mut Sadb, output: Output) -> Option<Remedy> {
        match output {
            Output::Send(datagram) => {
                if let Err(error) = self.sockets.send(&datagram) {
                    tracing::debug!("{} to {}: {error}", datagram.local, datagram.peer);
                }
            }
            Output::Keys(keys) => self.keylog.iter_mut().for_each(|log| log.ike_sa(&keys)),
            Output::Job(id, job) => self.jobs.push_back((id, job)),
            Output::Child(ChildChange::Install(install)) => {
                self.keylog.iter_mut().for_each(|log| log.child_sa(&install));
                let now = crate::iked::boot_secs();
                if let Err(error) = self.children.install(sadb, &install, now) {
                    let (connection, child) = (&install.connection, &install.sa.config.name);
                    tracing::error!("connection '{connection}': child '{child}': {error}");
                    return Some(Remedy::Withdraw(install.sa.spi_in, install.replaces));
                }
                let idle_secs = install.sa.config.handling.lifetime.idle_secs;
                self.idle.begin(install.sa.spi_in, idle_secs, self.now_ms());
            }
            Output::Child(ChildChange::Use(spi)) => self.children.send_by(sadb, spi),
            Output::Child(ChildChange::Move(moved)) => {
                if !self.children.lead(sadb, &moved) {
                    return Some(Remedy::Rekey(moved.spi_in));
                }
            }
            Output::Child(ChildChange::Remove(child)) => {
                self.note_gone(&child, sadb);
                self.idle.forget(child.spi_in);
                self.note_end(&child);
                // What the peer has sent by it before it said so may still come.
                match child.is_replaced || child.ended_by == Some(EndedBy::Peer) {
                    true => self.children.remove_replaced(sadb, child.spi_in, crate::iked::boot_secs()),
                    false => self.children.remove(sadb, child.spi_in),
                }
            }
            Output::Event(id, event) => self.tell(sadb, id, event),
            Output::Refused(stranger) => self.note_stranger(&stranger),
            Output::Closed(_) => {}
        }
        None
    }

    fn note(&mut self, refused: &Refused, peer: SocketAddr) {
        tracing::debug!("a message of {peer} is dropped: {refused}");
        let times = self.refused.entry(refused.kind()).or_default();
        *times += 1;
        if *refused == Refused::Full && *times == 1 {
            tracing::warn!(
                "{peer} begins no IKE SA, nor does anybody: there are as many as ike_sas says in [ike]"
            );
        }
    }

    /// Takes its SAs and policies out of the SADB.
    pub fn clear(&mut self, sadb: &mut Sadb) {
        self.children.clear(sadb);
    }
}

fn threads(limits: &Limits) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    limits.threads.map_or_else(cores, |threads| threads.get() as usize)
}

fn done(what: &str, ike_sas: &[IkeSaId], children: &[u32], name: &str) -> Result<String, String> {
    match (ike_sas.len(), children.len()) {
        (0, 0) => Err(format!("there is no SA of '{name}'")),
        (ike, children) => Ok(format!("{ike} IKE SAs and {children} child SAs of '{name}' are {what}")),
    }
}

/// The IKE SA that children of a connection are begun under. What somebody else has half open may be anybody's.
fn under(engine: &Engine, connection: &Connection) -> Option<IkeSaId> {
    let is_up = |sa: &&dyn IkeSa| {
        let is_there = match sa.phase() {
            Phase::Connecting => sa.role() == Role::Initiator,
            phase => *phase == Phase::Established,
        };
        is_there && (&sa.connection().name, sa.connection().edition) == (&connection.name, connection.edition)
    };
    Some(engine.ike_sas().find(is_up)?.id())
}

#[cfg(test)]
mod tests;
