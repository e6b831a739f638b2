//! The control process: it takes over the regions or makes them, installs what is configured, and does what it is
//! asked on its socket.

use crate::{
    acquire::{self, Acquire},
    config::{Connections, ConnectionsError},
    connection::Connection,
    ike::{self, Ike, IkeError},
    install::{self, Changes, InstallError, Installer},
    interface::path_of,
    keying::Pair,
    news::thread_time,
    report::{
        ConnectionReport, EventReport, IkeReport, InterfaceReport, PairReport, Report, SaReport, StockReport,
    },
    routes::{RouteSelectors, Routes},
    spent::{self, Spent, SpentError},
    state::{self, StateError},
};
use portcullis_machine::{Machine, strict::ConfigError};
use portcullis_sadb::{
    Direction, Endpoint, Event, Mode, Protocol, RUNTIME_FILE, RegionError, SADB_FILE, Sa, Sadb, Sizes, Spi,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use thiserror::Error;

/// The control socket, in the regions' directory.
pub const SOCKET_FILE: &str = "iked.sock";

/// Why iked does not run.
#[derive(Debug, Error)]
pub enum IkedError {
    /// IKE.
    #[error(transparent)]
    Ike(#[from] Box<IkeError>),
    /// `connections.toml`.
    #[error(transparent)]
    Connections(#[from] ConnectionsError),
    /// `portcullis.toml`.
    #[error(transparent)]
    Machine(#[from] ConfigError),
    /// The regions.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// What is kept of IKE SAs.
    #[error(transparent)]
    State(#[from] StateError),
    /// Which keys were used.
    #[error(transparent)]
    Spent(#[from] SpentError),
    /// What is configured does not go into the SADB.
    #[error("{file}: {source}")]
    Install {
        /// `connections.toml`.
        file: PathBuf,
        /// Why.
        source: InstallError,
    },
    /// Something with a file.
    #[error("{path}: cannot {what}: {source}{}", hint(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The kernel's routes, which are to be selectors.
    #[error("cannot follow the kernel's routes: {source}{}", hint(.source))]
    Routes {
        /// What the system says.
        source: io::Error,
    },
    /// Another size is configured than the regions have.
    #[error(
        "{directory}: the regions were made for max_sas = {} and max_policies = {}, portcullis.toml has {max_sas} and \
         {max_policies}; put the old numbers back, or `portcullis down --forget`, which ends their SAs", .found.max_sas,
        .found.max_policies
    )]
    Resized {
        /// The regions' directory.
        directory: PathBuf,
        /// As configured.
        max_sas: u32,
        /// As configured.
        max_policies: u32,
        /// What they were made for.
        found: Sizes,
    },
    /// The SADB is there, and the record of used numbers that belongs to it is not.
    #[error(
        "{source}. The sequence numbers that the SAs in {sadb} have used are lost, so these SAs must not go on: \
         `portcullis down --forget` removes both"
    )]
    Orphaned {
        /// The `sadb` region.
        sadb: PathBuf,
        /// What is wrong with the `runtime` region.
        source: RegionError,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run as root, or make it writable",
        _ => "",
    }
}

/// What may be asked on the control socket: a line of JSON, such as `{"command": "up", "name": "site-b"}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is installed.
    Status {},
    /// Takes a connection up again.
    Up {
        /// Its name.
        name: String,
    },
    /// Takes a connection down: its traffic is dropped, its SAs stay.
    Down {
        /// Its name.
        name: String,
    },
    /// Has the child SAs of a name replaced by new ones, or the IKE SAs of a connection.
    Rekey {
        /// Its name.
        name: String,
    },
    /// Reads the connections anew.
    Reload {},
    /// The IKE SAs, with their child SAs.
    List {},
    /// A line for each event of IKE SAs from now on ([`EventReport`]).
    Monitor {},
    /// Ends iked; the SAs stay.
    Stop {},
}

/// What it answers: a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// `{"error": WHY}`: it was not done.
    Error {
        /// Why.
        error: String,
    },
    /// `{"done": WHAT}`: it was done.
    Done {
        /// What was done.
        done: String,
    },
    /// `{"events": "follow"}`: a line for each event follows.
    Events {
        /// `follow`.
        events: String,
    },
    /// What was asked for.
    Report(Box<Report>),
    /// The IKE SAs.
    List(IkeReport),
}

impl Answer {
    /// What was done, but for what is as before all the same: why, of each.
    fn but(self, held: Vec<String>) -> Answer {
        match self {
            Answer::Done { done } => Answer::Done { done: [vec![done], held].concat().join("; ") },
            other => other,
        }
    }
}

/// The state of the process.
#[derive(Debug)]
pub struct Iked {
    sadb: Sadb,
    installer: Installer,
    config: PathBuf,
    directory: PathBuf,
    connections: Connections,
    /// Connections that were taken down by hand.
    down: BTreeSet<String>,
    /// How often packets asked for more SAs than there are in the stock of a connection, since it was read.
    refused: HashMap<String, u64>,
    /// Follows the routes to interfaces of connections, if there are any.
    routes: Option<Routes>,
    /// Not all policies of routes are there, for this reason.
    routes_problem: Option<String>,
    /// Ports of the datapath.
    ports: Vec<String>,
    /// IKE, if there is a configuration of it.
    ike: Option<Ike>,
    stopping: bool,
    start: Instant,
}

impl Iked {
    /// Takes over the regions that a predecessor left, or makes new ones, and installs what is configured.
    ///
    /// # Errors
    /// [`IkedError`]. What a predecessor installed is then as it was; new regions are removed.
    pub fn start(config: &Path, random: [u64; 2]) -> Result<Iked, IkedError> {
        let connections = connections(config)?;
        let machine = Machine::load(config)?;
        connections.check_udp_ports(&machine.datapath.udp_encap_ports)?;
        let ports = machine.ports.iter().map(|port| port.interface.clone()).collect();
        let directory = machine.regions.directory.clone();
        let sizes = Sizes { max_sas: machine.regions.max_sas, max_policies: machine.regions.max_policies };
        let io = |source| IkedError::Io { path: directory.clone(), what: "make it", source };
        fs::create_dir_all(&directory).map_err(io)?;
        let (sadb, is_new) = match take_over(&directory, &sizes)? {
            Some(sadb) => (sadb, false),
            None => {
                let failed = |source| IkedError::Install { file: config.join(crate::config::FILE), source };
                install::check(&connections, &sizes).map_err(failed)?;
                (Sadb::create(&directory, &sizes, random)?, true)
            }
        };
        let (mut ike, mut sadb) = (Ike::open(config, &machine).map_err(Box::new)?, sadb);
        match &mut ike {
            Some(ike) => ike.take_up(&directory, &mut sadb),
            None => state::forget(&directory)?,
        }
        let (config, down) = (config.to_owned(), BTreeSet::new());
        let installer = Installer::new(Spent::open(&directory, sadb.runtime().instance())?);
        let (routes, routes_problem, stopping) = (None, None, false);
        let mut iked = Iked {
            sadb,
            installer,
            config,
            directory,
            connections,
            down,
            refused: HashMap::new(),
            routes,
            routes_problem,
            ports,
            ike,
            stopping,
            start: Instant::now(),
        };
        let connections = iked.connections.clone();
        let config_file = iked.config.join(crate::config::FILE);
        let failed = |source| IkedError::Install { file: config_file, source };
        let installed = match iked.follow_routes(&connections) {
            Ok(()) => iked.install(&connections, &BTreeSet::new()).map_err(failed),
            // Without them, the policies that a predecessor has made of routes would go.
            Err(source) => Err(IkedError::Routes { source }),
        };
        match installed {
            Ok(changes) => {
                let did = if is_new { "made" } else { "took over" };
                tracing::info!("{did} the regions in {}: {}", iked.directory.display(), told(&changes));
                iked.tell_guard();
                if let Some(ike) = &mut iked.ike {
                    ike.begin(&mut iked.sadb);
                }
                Ok(iked)
            }
            Err(e) => {
                if is_new {
                    install::clear(&mut iked.sadb);
                    remove_regions(&iked.directory)?;
                }
                Err(e)
            }
        }
    }

    /// The directory of the regions.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether somebody asked it to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// What has something to read for [`Iked::turn`].
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let routes = self.routes.as_ref().map(AsFd::as_fd);
        routes.into_iter().chain(self.ike.iter().flat_map(Ike::fds)).collect()
    }

    /// In how long [`Iked::turn`] is to be called at the latest, if that matters.
    pub fn due(&self) -> Option<Duration> {
        let routes = self.routes.as_ref().and_then(Routes::due);
        let routes = routes.map(|due| due.saturating_duration_since(Instant::now()));
        routes.into_iter().chain(self.ike.as_ref().and_then(Ike::due)).min()
    }

    /// Opens what follows the routes to the interfaces of these connections, and reads them.
    ///
    /// # Errors
    /// What the system says; what was followed before still is.
    fn follow_routes(&mut self, connections: &Connections) -> io::Result<()> {
        let (mut routes, mut selectors) = (None, RouteSelectors::default());
        if connections.interfaces().next().is_some() {
            let mut opened = Routes::open(connections.interfaces().cloned())?;
            selectors = opened.read()?;
            routes = Some(opened);
        }
        self.routes_problem = None;
        self.take_routes(connections, selectors);
        self.routes = routes;
        Ok(())
    }

    fn take_routes(&mut self, connections: &Connections, selectors: RouteSelectors) {
        let count = selectors.len();
        let fits = self.installer.set_routes(&self.sadb, connections, selectors);
        let before = self.routes_problem.take();
        if !fits {
            let room = self.installer.routes().len();
            let problem =
                format!("{count} prefixes of routes, room for {room}; raise [regions] max_policies");
            if before.as_ref() != Some(&problem) {
                tracing::warn!("{problem}");
            }
            self.routes_problem = Some(problem);
        }
    }

    /// Has the policies follow the routes.
    fn turn_routes(&mut self) {
        let start = thread_time();
        let Some(selectors) = self.routes.as_mut().and_then(Routes::turn) else { return };
        let connections = std::mem::take(&mut self.connections);
        let mut result = Ok(Changes::default());
        if selectors != *self.installer.routes() || self.routes_problem.is_some() {
            self.take_routes(&connections, selectors);
            let down = std::mem::take(&mut self.down);
            result = self.install(&connections, &down);
            self.down = down;
        }
        self.connections = connections;
        let Some(routes) = &mut self.routes else { return };
        routes.rest(start);
        match result {
            Ok(Changes { policies: 0, .. }) => {}
            Ok(Changes { policies, .. }) => tracing::info!("routes: {policies} policies changed"),
            Err(e) => {
                tracing::error!("routes: {e}");
                self.routes_problem = Some(e.to_string());
                routes.retry();
            }
        }
    }

    /// Does what waited for the workers, and takes what they tell, and what the kernel tells of routes. To be called now
    /// and then.
    pub fn turn(&mut self) {
        self.sadb.reclaim();
        self.turn_routes();
        let mut moved = HashMap::new();
        for _ in 0..EVENTS_A_TURN {
            let Some(event) = self.sadb.poll_event() else { break };
            if let Some(acquire) = Acquire::of(&event) {
                let is_of_ike =
                    self.ike.as_mut().is_some_and(|ike| ike.hear_packet(&acquire, &mut self.sadb));
                if !is_of_ike {
                    self.acquire(&acquire);
                }
                continue;
            }
            let sa = self.sadb.sa(event.slot).filter(|(generation, _)| *generation == event.generation);
            if let Some(to) = event.endpoint() {
                let sa = sa.map(|(_, sa)| sa).filter(|sa| sa.udp.is_some_and(|udp| udp.follow_peer));
                sa.into_iter().for_each(|sa| self.follow(&event, to, &sa, &mut moved));
                continue;
            }
            let is_heard =
                sa.is_some() && self.ike.as_mut().is_some_and(|ike| ike.hear(&event, &mut self.sadb));
            if is_heard {
                continue;
            }
            let name = sa.map_or_else(|| "(gone)".to_owned(), |(_, sa)| sa.name.to_string());
            tracing::warn!("connection '{name}': {:?} at {}", event.kind, event.value);
        }
        if !moved.is_empty() {
            self.installer.lead(&mut self.sadb, &moved);
        }
        if let Some(ike) = &mut self.ike {
            ike.turn(&mut self.sadb);
        }
    }

    /// A peer has moved, and is to be followed. What several SAs of one connection of `connections.toml` say, the last one says.
    fn follow(&mut self, event: &Event, to: Endpoint, sa: &Sa, moved: &mut HashMap<u32, Endpoint>) {
        let (Sa { name, spi, .. }, slot) = (sa, event.slot);
        tracing::info!("connection '{name}': its peer is at {to} now, by SA {spi} in slot {}", slot.0);
        let ike = self.ike.as_mut();
        if !ike.is_some_and(|ike| ike.follow_packet(slot, sa, to, &mut self.sadb)) {
            moved.insert(sa.reqid, to);
        }
    }

    /// A packet asks for an SA, which is made of the next keys in the stock.
    fn acquire(&mut self, acquire: &Acquire) {
        let Some(child) = acquire.child(&self.sadb, &self.connections) else {
            return tracing::debug!("no SA is wanted for {:?}", acquire.flow);
        };
        let (name, pairs) = (&child.connection.name, child.connection.keys.stock.len());
        let Some(pair) = self.installer.next_pair(&self.sadb, child.connection) else {
            let refused = self.refused.entry(name.clone()).or_default();
            *refused += 1;
            if *refused == 1 {
                tracing::error!(
                    "connection '{name}': no SA for {}: all {pairs} pairs of its stock are used up; add [[connection.sas]] and reload",
                    child.selector
                );
            }
            return;
        };
        let now = boot_secs();
        match self.installer.establish(&mut self.sadb, &child, pair, now) {
            Ok(()) => tracing::info!("connection '{name}': SA {} for {}", pair.outbound.spi, child.selector),
            Err(e) => tracing::error!("{e}"),
        }
    }

    /// Answers a line.
    pub fn answer(&mut self, line: &str) -> Answer {
        let result = match serde_json::from_str(line) {
            Ok(request) => self.handle(request),
            Err(e) => Err(format!("not a request: {e}; such as {{\"command\": \"status\"}}")),
        };
        result.unwrap_or_else(|error| {
            tracing::warn!("refused: {error}");
            Answer::Error { error }
        })
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn handle(&mut self, request: Request) -> Result<Answer, String> {
        match request {
            Request::Status {} => Ok(Answer::Report(Box::new(self.report()))),
            Request::List {} => {
                let report = self.ike.as_ref().map(|ike| ike.report(&self.sadb));
                report.map(Answer::List).ok_or_else(no_ike)
            }
            Request::Monitor {} => {
                self.ike.as_ref().ok_or_else(no_ike)?;
                Ok(Answer::Events { events: "follow".into() })
            }
            Request::Up { name } if self.is_of_ike(&name) => self.ask_ike(|ike, sadb| ike.up(&name, sadb)),
            Request::Down { name } if self.is_of_ike(&name) => {
                self.ask_ike(|ike, sadb| ike.down(&name, sadb))
            }
            Request::Rekey { name } => self.ask_ike(|ike, sadb| ike.rekey(&name, sadb)),
            Request::Up { name } => {
                self.expect_known(&name)?;
                let mut down = self.down.clone();
                down.remove(&name);
                self.change(None, down, format!("connection '{name}' is up"))
            }
            Request::Down { name } => {
                self.expect_known(&name)?;
                let mut down = self.down.clone();
                down.insert(name.clone());
                self.change(None, down, format!("connection '{name}' is down"))
            }
            Request::Reload {} => {
                let connections = connections(&self.config).map_err(|e| e.to_string())?;
                let machine = Machine::load(&self.config).map_err(|e| e.to_string())?;
                connections.check_udp_ports(&machine.datapath.udp_encap_ports).map_err(|e| e.to_string())?;
                // Before anything is changed: either all is as the files say, or as it was.
                if let Some(ike) = &self.ike {
                    ike.usable(&self.config).map_err(|e| e.to_string())?;
                }
                let mut down = self.down.clone();
                down.retain(|name| connections.find(name).is_some());
                let answer = self.change(Some(connections), down, "connections are reloaded".into())?;
                let held = self.reload_ike(&machine).map_err(|e| e.to_string())?;
                self.ports = machine.ports.into_iter().map(|port| port.interface).collect();
                Ok(answer.but(held))
            }
            Request::Stop {} => {
                self.stopping = true;
                Ok(Answer::Done { done: "iked stops; its SAs stay".into() })
            }
        }
    }

    /// What is as before all the same, and why.
    fn reload_ike(&mut self, machine: &Machine) -> Result<Vec<String>, IkeError> {
        match &mut self.ike {
            Some(ike) => {
                ike.limit(machine);
                ike.reload(&self.config, &mut self.sadb)
            }
            None => {
                self.ike = Ike::open(&self.config, machine)?;
                if let Some(ike) = &mut self.ike {
                    ike.take_up(&self.directory, &mut self.sadb);
                    ike.begin(&mut self.sadb);
                }
                Ok(vec![])
            }
        }
    }

    /// How long it runs.
    pub fn running(&self) -> Duration {
        self.start.elapsed()
    }

    /// IKE, and what it does it with.
    pub fn ike(&mut self) -> Option<(&mut Ike, &mut Sadb)> {
        Some((self.ike.as_mut()?, &mut self.sadb))
    }

    /// What has happened to IKE SAs since it was last asked.
    pub fn take_events(&mut self) -> VecDeque<EventReport> {
        self.ike.as_mut().map(Ike::take_events).unwrap_or_default()
    }

    /// Whether it is a connection or a child of IKE, and not one of `connections.toml`.
    fn is_of_ike(&self, name: &str) -> bool {
        self.connections.find(name).is_none() && self.ike.as_ref().is_some_and(|ike| ike.knows(name))
    }

    fn ask_ike(
        &mut self,
        asks: impl FnOnce(&mut Ike, &mut Sadb) -> Result<String, String>,
    ) -> Result<Answer, String> {
        let done = asks(self.ike.as_mut().ok_or_else(no_ike)?, &mut self.sadb)?;
        Ok(Answer::Done { done })
    }

    fn expect_known(&self, name: &str) -> Result<(), String> {
        if self.connections.find(name).is_some() {
            return Ok(());
        }
        let names: Vec<_> = self.connections.connections.iter().map(|c| c.name.as_str()).collect();
        Err(format!("no connection '{name}'; there are: {}", names.join(", ")))
    }

    /// Goes over to other connections, or others that are down; on an error what was before is still wanted.
    fn change(
        &mut self,
        connections: Option<Connections>,
        down: BTreeSet<String>,
        done: String,
    ) -> Result<Answer, String> {
        let is_reload = connections.is_some();
        let wanted = connections.unwrap_or_else(|| self.connections.clone());
        let followed = |e: io::Error| format!("the kernel's routes are not followed: {e}");
        if is_reload {
            self.follow_routes(&wanted).map_err(followed)?;
        }
        let result = self.install(&wanted, &down);
        if is_reload && result.is_err() {
            let before = self.connections.clone();
            if let Err(e) = self.follow_routes(&before).map_err(followed) {
                tracing::error!("{e}");
                self.routes_problem = Some(e);
            }
        }
        let changes = result.map_err(|e| e.to_string())?;
        (self.connections, self.down) = (wanted, down);
        self.refused.clear();
        tracing::info!("{done}: {}", told(&changes));
        Ok(Answer::Done { done: format!("{done}: {}", told(&changes)) })
    }

    fn install(
        &mut self,
        connections: &Connections,
        down: &BTreeSet<String>,
    ) -> Result<Changes, InstallError> {
        if let Some(ike) = &self.ike {
            self.installer.set_apart(ike.owned());
        }
        self.installer.install(&mut self.sadb, connections, down, boot_secs())
    }

    fn tell_guard(&self) {
        let guard = self.sadb.guard();
        if let Some(why) = &guard.not_locked {
            tracing::warn!(
                "the keys can be swapped out: {why}; give portcullis-iked CAP_IPC_LOCK or LimitMEMLOCK=infinity"
            );
        }
        if let Some(why) = &guard.dumpable {
            tracing::warn!("the keys can be in core dumps: {why}");
        }
    }

    fn interface_report(&self, name: &str) -> InterfaceReport {
        let path = path_of(name);
        let problem = self.routes.as_ref().and_then(|routes| routes.problem(name)).map(str::to_owned);
        let problem = problem.or_else(|| self.routes_problem.clone()).or_else(|| {
            (!self.ports.contains(&path))
                .then(|| format!("portcullis.toml has no [[port]] interface = \"{path}\""))
        });
        InterfaceReport { name: name.to_owned(), routes: self.installer.routes().of(name).len(), problem }
    }

    fn private_octets(&self) -> usize {
        let down = self.down.iter().map(|name| size_of::<String>() + name.capacity()).sum::<usize>();
        self.connections.heap_octets() + self.installer.heap_octets() + self.sadb.private_octets() + down
    }

    fn report(&self) -> Report {
        let mut installed: HashMap<(String, Direction, Spi), SaReport> = HashMap::new();
        for (slot, generation, sa) in self.sadb.sas() {
            let peer = self.sadb.endpoint(slot).map(|to| to.to_string());
            let report = SaReport { peer, ..sa_report(slot.0, generation.0, &sa) };
            installed.insert((sa.name.to_string(), sa.direction, sa.spi), report);
        }
        let populated: HashMap<u32, String> = self
            .sadb
            .policies()
            .filter(|(index, p)| {
                p.direction == Direction::Outbound && self.sadb.populate(*index).above().is_some()
            })
            .map(|(_, p)| (p.reqid, p.selector.to_string()))
            .collect();
        let mut of = |name: &str, pair: &Pair| {
            let mut find = |direction, spi| installed.remove(&(name.to_owned(), direction, spi));
            let inbound = find(Direction::Inbound, pair.inbound.spi);
            let outbound = find(Direction::Outbound, pair.outbound.spi);
            let selector = outbound.as_ref().and_then(|sa| populated.get(&sa.reqid).cloned());
            PairReport { dscp: pair.dscps.clone(), selector, inbound, outbound }
        };
        let mut pairs = |c: &Connection| {
            let mut pairs: Vec<_> = c.keys.pairs().map(|pair| of(&c.name, pair)).collect();
            // Of a stock only what was taken.
            pairs.retain(|pair| !c.keys.own.is_empty() || pair.inbound.is_some() || pair.outbound.is_some());
            pairs
        };
        let stock = |c: &Connection| StockReport {
            pairs: c.keys.stock.len(),
            taken: acquire::taken(&self.sadb, c),
            refused: self.refused.get(&c.name).copied().unwrap_or(0),
        };
        let connections = self.connections.connections.iter().map(|c| (c, pairs(c))).map(|(c, mut pairs)| {
            ConnectionReport {
                name: c.name.clone(),
                up: !self.down.contains(&c.name),
                local: c.local.to_string(),
                remote: c.remote.to_string(),
                interface: c.interface.as_ref().map(|name| self.interface_report(name)),
                local_ts: c.local_ts.iter().map(ToString::to_string).collect(),
                remote_ts: c.remote_ts.iter().map(ToString::to_string).collect(),
                next_layer: c.next_layer.to_string(),
                protocol: match c.protocol {
                    Protocol::Esp => "esp",
                    Protocol::Ah => "ah",
                }
                .to_owned(),
                mode: match c.mode {
                    Mode::Tunnel => "tunnel",
                    Mode::Transport => "transport",
                }
                .to_owned(),
                algorithm: c.algorithm.name().to_owned(),
                key: "(hidden)".to_owned(),
                // The first pair as it was before there were others.
                inbound: pairs.first_mut().filter(|_| !c.keys.own.is_empty()).and_then(|p| p.inbound.take()),
                outbound: pairs
                    .first_mut()
                    .filter(|_| !c.keys.own.is_empty())
                    .and_then(|p| p.outbound.take()),
                stock: (!c.keys.stock.is_empty()).then(|| stock(c)),
                pairs: pairs.split_off(c.keys.own.len().min(1)),
            }
        });
        Report {
            pid: std::process::id(),
            keys_locked: self.sadb.guard().not_locked.is_none(),
            sas: self.sadb.live_sas(),
            policies: self.sadb.policies().count(),
            private_bytes: self.private_octets(),
            connections: connections.collect(),
            ike: self.ike.as_ref().map(|ike| ike.report(&self.sadb)),
        }
    }
}

/// Why there is no IKE.
pub(crate) fn no_ike() -> String {
    format!("there is no {}; an empty one is enough to begin with: make it, and reload", ike::FILE)
}

/// The connections of `connections.toml`, without which there may be those of IKE alone.
fn connections(config: &Path) -> Result<Connections, ConnectionsError> {
    let has = |file| config.join(file).exists();
    if !has(crate::config::FILE) && has(ike::FILE) {
        return Ok(Connections::default());
    }
    Connections::load(config)
}

/// Seconds of the clock that SAs' ages are of.
pub(crate) fn boot_secs() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec as u32
}

/// Events that are taken in a turn, at most, so that whoever asks is answered meanwhile.
const EVENTS_A_TURN: usize = 256;

/// The regions of a predecessor, if there are any.
fn take_over(directory: &Path, sizes: &Sizes) -> Result<Option<Sadb>, IkedError> {
    let sadb_path = directory.join(SADB_FILE);
    match Sadb::open(directory) {
        Ok(sadb) if sadb.sizes() == *sizes => Ok(Some(sadb)),
        Ok(sadb) => {
            let (max_sas, max_policies, found) = (sizes.max_sas, sizes.max_policies, sadb.sizes());
            Err(IkedError::Resized { directory: directory.to_owned(), max_sas, max_policies, found })
        }
        Err(RegionError::Missing { path }) if path == sadb_path => Ok(None),
        Err(source @ (RegionError::Missing { .. } | RegionError::Stale { .. })) => {
            Err(IkedError::Orphaned { sadb: sadb_path, source })
        }
        Err(e) => Err(e.into()),
    }
}

fn told(changes: &Changes) -> String {
    let Changes { kept, published, retired, policies } = changes;
    format!("SAs: {kept} kept, {published} published, {retired} retired; {policies} policies changed")
}

fn sa_report(slot: u32, generation: u64, sa: &Sa) -> SaReport {
    SaReport {
        spi: sa.spi.to_string(),
        slot,
        generation,
        reqid: sa.reqid,
        esn: sa.esn,
        replay_window: sa.replay_window,
        udp_encap: sa.udp.is_some(),
        peer: None,
    }
}

/// Removes the regions of a directory, for good: their SAs end, and with them the record of used numbers. False: there
/// were none.
///
/// # Errors
/// [`RegionError::InUse`] while iked has them.
pub fn forget(directory: &Path) -> Result<bool, IkedError> {
    let sadb = match Sadb::open(directory) {
        Ok(mut sadb) => {
            install::clear(&mut sadb);
            Some(sadb)
        }
        Err(RegionError::InUse { path, pid }) => return Err(RegionError::InUse { path, pid }.into()),
        Err(_) => None,
    };
    state::forget(directory)?;
    sadb.iter().for_each(|sadb| state::forget_key(sadb.runtime().instance()));
    let were_there = remove_regions(directory)?;
    drop(sadb);
    Ok(were_there)
}

fn remove_regions(directory: &Path) -> Result<bool, IkedError> {
    let mut were_there = false;
    for file in [SADB_FILE, RUNTIME_FILE, spent::FILE] {
        let path = directory.join(file);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(IkedError::Io { path, what: "remove it", source });
            }
            result => were_there |= result.is_ok(),
        }
    }
    Ok(were_there)
}
