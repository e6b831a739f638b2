//! The mirror: a thread that keeps the workers' forwarding table equal to the kernel's.
//!
//! Routes stay the kernel's. This thread reads its links, routes (tables `local` and `main`, both families) and
//! neighbours by netlink, in the network namespace of the thread that called [`Mirror::open`]; it listens for
//! changes, gathers those of about [`GATHER`], and publishes a new [`Fib`] to every worker. Policy rules
//! (`ip rule`), other tables and VRFs, VLAN devices on top of ports, and routes by type of service or source are
//! not mirrored.
//!
//! Neighbours are taken in one by one as they change. Routes are dumped anew whenever one changes: their changes
//! do not say enough (a link that goes down, or an address that goes away, takes routes with it untold). A dump
//! that takes long is not repeated at once, so that a large table costs at most a tenth of a core.
//!
//! The kernel does not see the packets that workers send, hence it would not keep their neighbours resolved.
//! So it is asked to: for a neighbour that a worker has a packet for, and again and again for one that is used and
//! has gone stale (`NTF_USE`, as if the kernel had a packet for it itself). It then solicits IPv6 neighbours from
//! the device's link-local address, so a port without one resolves none.

mod error;
mod tables;
mod thread;

pub use error::MirrorError;
pub use thread::MirrorThread;

use crate::{
    confine::ConfineError,
    fib::{Fib, Neighbours, PortLink, Routes},
    nexthop::{NextHops, Publisher},
};
use netlink_packet_route::{RouteNetlinkMessage, neighbour::NeighbourMessage};
use portcullis_netlink::{Device, Event, Events, FAMILIES, Requests, Route, Topic};
use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tables::{NeighbourChange, RouteDump, Tables};

/// How long changes are gathered before they are published.
pub const GATHER: Duration = Duration::from_millis(10);
/// How often [`Notice::Tick`] comes, and the thread looks at the workers' requests.
pub const TICK: Duration = Duration::from_millis(5);

/// How often used neighbours that went stale are confirmed.
const CONFIRM: Duration = Duration::from_secs(2);
/// For how long after a worker's request one that failed is tried again: as long as frames may wait for it.
const RETRY: Duration = Duration::from_millis(1500);
/// The same neighbour is not asked for more often, however many workers want it.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// Requests of one worker that are handed on per turn, so that a scan of addresses does not keep us busy.
const ASKS_PER_TURN: usize = 16;
/// After an error of the kernel, the tables are read anew after this long.
const RECOVER: Duration = Duration::from_secs(1);
/// A dump of routes that the kernel calls incomplete is repeated this often before it is taken.
const WHOLE_DUMPS: usize = 5;

/// What the mirror thread tells its owner, on the thread itself.
#[derive(Debug)]
pub enum Notice<'a> {
    /// Workers got this snapshot. Also comes first of all, with the one they began with.
    Published(&'a Fib),
    /// About every [`TICK`].
    Tick(&'a Fib),
    /// The thread ends after this.
    Stopping,
}

/// When what is to be done.
#[derive(Default, Debug)]
struct Due {
    everything: Option<Instant>,
    routes: Option<Instant>,
    publish: Option<Instant>,
}

/// The kernel's tables, read once; a thread once started.
pub struct Mirror {
    requests: Requests,
    events: Events,
    tables: Tables,
    fib: Arc<Fib>,
    ports: Arc<Vec<PortLink>>,
    routes: Arc<Routes>,
    neighbours: Arc<Neighbours>,
    publishers: Vec<Publisher>,
    due: Due,
    /// Ports, routes or neighbours are not those of `fib`.
    changed: bool,
    /// Neighbours that the kernel was asked for, and when.
    asked: HashMap<(u8, IpAddr), Instant>,
    /// No dump of routes before.
    routes_rest_until: Instant,
}

impl Mirror {
    /// Opens the sockets and reads the tables. Ports are these devices, in this order.
    pub fn open(interfaces: &[String]) -> Result<Mirror, MirrorError> {
        // First to be told of changes, then to read: nothing falls between.
        let events = Events::subscribe().map_err(MirrorError::Socket)?;
        let mut requests = Requests::open().map_err(MirrorError::Socket)?;
        let devices = requests.devices().map_err(MirrorError::Dump)?;
        for (i, name) in interfaces.iter().enumerate() {
            match devices.iter().find(|d| d.name == *name) {
                None => {
                    let existing = devices.iter().map(|d| d.name.clone()).collect();
                    return Err(MirrorError::UnknownInterface { name: name.clone(), existing });
                }
                Some(d) if !d.is_ethernet => return Err(MirrorError::NotEthernet { name: name.clone() }),
                Some(_) if interfaces[..i].contains(name) => {
                    return Err(MirrorError::Twice { name: name.clone() });
                }
                Some(_) => {}
            }
        }
        let mut mirror = Mirror {
            requests,
            events,
            tables: Tables::new(interfaces),
            fib: Arc::default(),
            ports: Arc::default(),
            routes: Arc::default(),
            neighbours: Arc::default(),
            publishers: vec![],
            due: Due::default(),
            changed: false,
            asked: HashMap::new(),
            routes_rest_until: Instant::now(),
        };
        mirror.read_everything().map_err(MirrorError::Dump)?;
        mirror.publish();
        Ok(mirror)
    }

    /// The newest snapshot.
    pub fn fib(&self) -> &Arc<Fib> {
        &self.fib
    }

    /// A worker's view of the tables, kept up to date once the mirror is started.
    pub fn worker(&mut self) -> NextHops {
        let (hops, publisher) = NextHops::new(self.fib.clone());
        self.publishers.push(publisher);
        hops
    }

    /// Starts the thread. It runs `confine` ([`confine::mirror`](crate::confine::mirror)) first, and then tells `tell` what happens.
    pub fn start(
        self,
        confine: impl FnOnce() -> Result<(), ConfineError> + Send + 'static,
        tell: impl FnMut(Notice<'_>) + Send + 'static,
    ) -> Result<MirrorThread, MirrorError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (confined, outcome) = std::sync::mpsc::sync_channel(1);
        let run = {
            let stop = stop.clone();
            move || {
                let result = confine();
                let go = result.is_ok();
                // The starter waits for it, unless it is being torn down itself.
                let _ = confined.send(result);
                if go {
                    self.run(&stop, tell);
                }
            }
        };
        let thread =
            std::thread::Builder::new().name("mirror".into()).spawn(run).map_err(MirrorError::Thread)?;
        let thread = MirrorThread { stop, thread: Some(thread) };
        match outcome.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(e)) => Err(MirrorError::Confine(e)),
            Err(_) => Err(MirrorError::Thread(io::Error::other("it ended before it began"))),
        }
    }

    fn run(mut self, stop: &AtomicBool, mut tell: impl FnMut(Notice<'_>)) {
        tell(Notice::Published(&self.fib));
        let (mut tick, mut confirm) = (Instant::now(), Instant::now());
        // Relaxed: the flag orders nothing, and the join that follows it does.
        while !stop.load(Ordering::Relaxed) {
            let version = self.fib.version();
            let turn = self.events.wait(TICK.as_millis() as i32).and_then(|()| self.turn(Instant::now()));
            let now = Instant::now();
            if let Err(e) = turn {
                tracing::warn!("netlink: {e}; the kernel's tables are read again");
                self.due = Due { everything: Some(now + RECOVER), ..Due::default() };
                std::thread::sleep(GATHER);
            }
            if self.fib.version() != version {
                tell(Notice::Published(&self.fib));
            }
            if now >= tick {
                tick = now + TICK;
                tell(Notice::Tick(&self.fib));
            }
            if now >= confirm {
                confirm = now + CONFIRM;
                self.confirm_used();
            }
        }
        tell(Notice::Stopping);
    }

    fn turn(&mut self, now: Instant) -> io::Result<()> {
        let mut events = vec![];
        self.events.read(|event| events.push(event))?;
        for event in events {
            self.take_in(event, now);
        }
        self.ask_wanted(now);

        let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if is_due(self.due.everything) {
            self.read_everything()?;
        } else if is_due(self.due.routes) {
            self.read_routes()?;
        }
        if is_due(self.due.publish) {
            self.publish();
        }
        for publisher in &self.publishers {
            publisher.reclaim();
        }
        Ok(())
    }

    fn take_in(&mut self, event: Event, now: Instant) {
        use RouteNetlinkMessage::*;
        let gathered = now + GATHER;
        let mut routes = false;
        match event {
            Event::Overrun => {
                tracing::debug!("netlink: changes were lost, so the kernel's tables are read again");
                self.due.everything.get_or_insert(gathered);
            }
            Event::Message(NewLink(m)) => {
                let before = self.tables.port_of(m.header.index);
                self.changed |= Device::of(&m).is_some_and(|d| self.tables.link(d));
                if self.tables.port_of(m.header.index) != before {
                    // Another device by a port's name: its neighbours are not known.
                    self.due.everything.get_or_insert(gathered);
                }
                routes = true;
            }
            Event::Message(DelLink(m)) => {
                self.changed |= self.tables.link_gone(m.header.index);
                routes = true;
            }
            Event::Message(NewNeighbour(m)) => self.take_in_neighbour(&m, false, now),
            Event::Message(DelNeighbour(m)) => self.take_in_neighbour(&m, true, now),
            Event::Message(NewAddress(_) | DelAddress(_) | NewRoute(_) | DelRoute(_)) | Event::Unread => {
                routes = true;
            }
            Event::Message(_) => {}
        }
        if routes {
            self.due.routes.get_or_insert(gathered.max(self.routes_rest_until));
        }
        if self.changed {
            self.due.publish.get_or_insert(gathered);
        }
    }

    fn take_in_neighbour(&mut self, message: &NeighbourMessage, gone: bool, now: Instant) {
        match self.tables.neighbour(message, gone) {
            NeighbourChange::Nothing => {}
            NeighbourChange::Usable => self.changed = true,
            NeighbourChange::Failed { port, addr } => {
                self.changed = true;
                // Frames may still wait for it.
                if self.asked.get(&(port, addr)).is_some_and(|at| now < *at + RETRY) {
                    self.resolve(port, addr);
                }
            }
        }
    }

    /// Hands on the workers' requests.
    fn ask_wanted(&mut self, now: Instant) {
        self.asked.retain(|_, at| now < *at + RETRY);
        for i in 0..self.publishers.len() {
            for _ in 0..ASKS_PER_TURN {
                let Some((port, addr)) = self.publishers[i].wanted() else { break };
                if self.asked.get(&(port, addr)).is_none_or(|at| now >= *at + ASK_AGAIN) {
                    self.asked.insert((port, addr), now);
                    self.resolve(port, addr);
                }
            }
        }
    }

    /// Has the kernel look again for neighbours that are in use and that it has not heard of for a while.
    fn confirm_used(&mut self) {
        let mut stale = vec![];
        self.neighbours.take_used(|port, addr| {
            if self.tables.is_stale(port, addr) {
                stale.push((port, addr));
            }
        });
        for (port, addr) in stale {
            self.resolve(port, addr);
        }
    }

    fn resolve(&mut self, port: u8, addr: IpAddr) {
        let Some(link) = self.tables.ports().get(port as usize).filter(|l| l.up) else { return };
        if let Err(e) = self.requests.resolve_neighbour(link.ifindex, addr) {
            tracing::debug!("cannot ask the kernel for neighbour {addr} on {}: {e}", link.interface);
        }
    }

    fn read_everything(&mut self) -> io::Result<()> {
        let devices = self.requests.devices()?;
        self.tables.links(devices);
        self.tables.forget_neighbours();
        for family in FAMILIES {
            let tables = &mut self.tables;
            self.requests.dump(Topic::Neighbours(family), |m| {
                if let RouteNetlinkMessage::NewNeighbour(m) = m {
                    tables.neighbour(&m, false);
                }
            })?;
        }
        self.read_routes()?;
        self.changed = true;
        self.due = Due { publish: Some(Instant::now()), ..Due::default() };
        Ok(())
    }

    fn read_routes(&mut self) -> io::Result<()> {
        let start = Instant::now();
        for attempt in 1.. {
            let (mut routes, mut whole) = (RouteDump::default(), true);
            for family in FAMILIES {
                let tables = &self.tables;
                whole &= self.requests.dump(Topic::Routes(family), |m| {
                    if let RouteNetlinkMessage::NewRoute(m) = m
                        && let Some(route) = Route::of(&m)
                    {
                        routes.add(route, tables);
                    }
                })?;
            }
            // What changed in between has been told as well, so an incomplete dump is followed by another.
            if whole || attempt == WHOLE_DUMPS {
                let routes = routes.build();
                if routes != *self.routes {
                    self.routes = Arc::new(routes);
                    self.changed = true;
                }
                break;
            }
        }
        let end = Instant::now();
        self.routes_rest_until = end + (end - start) * 9;
        self.due.routes = None;
        self.due.publish = Some(end);
        Ok(())
    }

    /// Gives the workers a snapshot of what changed.
    fn publish(&mut self) {
        self.due.publish = None;
        if !std::mem::take(&mut self.changed) {
            return;
        }
        if *self.ports != self.tables.ports() {
            self.ports = Arc::new(self.tables.ports().to_vec());
        }
        self.neighbours = Arc::new(self.tables.usable());
        let parts = (self.ports.clone(), self.routes.clone(), self.neighbours.clone());
        self.fib = Arc::new(Fib::new(self.fib.version() + 1, parts.0, parts.1, parts.2));
        for publisher in &self.publishers {
            publisher.publish(&self.fib);
        }
    }
}
