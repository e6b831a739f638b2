//! Initiators: many tunnels, begun with a gateway by IKE, and packets through each as soon as it is there.
//!
//! All are of one connection, by our own engine, in one thread: what takes long, as a signature, is done at once and holds up
//! the others. So the rate is that of the slower of the two ends; where it is to be the gateway's, that must have less to do it
//! with than this program.

use crate::{
    clock::{self, Machine},
    generator::{
        Generator,
        flows::{Flow, Flows},
        pace::Pace,
        receiver::Receiver,
        sealer::Sealer,
        times::Times,
        writer::Stream,
    },
    interface::Interfaces,
    traffic::Mix,
};
use portcullis_control::{
    ike::{configured, credentials::Credentials, sockets::Sockets},
    swanctl,
};
use portcullis_datapath::{crypto::Aead, fib::Mac};
use portcullis_ike::{
    child::Install,
    connection::{Configuration, Connection},
    context::Context,
    ike_sa::IkeSaId,
    job::Job,
    output::{ChildChange, Event, JobId, Output},
    v2::engine::Engine,
};
use portcullis_sadb::{Direction, Handling, Name, Protocol, Sa, Spi, UdpEncap};
use rand_core::UnwrapErr;
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error,
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// SPIs of ours begin here: those below are reserved (RFC 4303 §2.1).
const FIRST_SPI: u32 = 0x1000;
/// Messages that are taken on end, at most, before others have their turn.
const MESSAGES_A_TURN: usize = 64;
/// The run that packets are of: there is one in a process.
const RUN: u64 = 1;
/// Octets of a chunk.
const CHUNK: u16 = 4096;
/// How long tunnels have to end.
const ENDING: Duration = Duration::from_secs(20);

/// What is to be done.
#[derive(Clone, PartialEq, Debug)]
pub struct Load {
    /// Tunnels.
    pub tunnels: u32,
    /// Tunnels that are begun and not there yet, at most.
    pub at_once: u32,
    /// Tunnels that are begun in a second, at most, if that is limited.
    pub rate: Option<f64>,
    /// After so long without another one it is over.
    pub patience: Duration,
    /// How often each child SA is rekeyed, when all are there.
    pub rekeys: u32,
    /// What goes through them.
    pub traffic: Option<Traffic>,
}

/// Packets through tunnels.
#[derive(Clone, PartialEq, Debug)]
pub struct Traffic {
    /// The interface that ESP is sent by.
    pub out: String,
    /// Where packets come out.
    pub back: String,
    /// The gateway that ESP is sent to.
    pub dst_mac: Mac,
    /// Where packets go, inside.
    pub dst: IpAddr,
    /// Lengths of packets.
    pub sizes: Mix,
    /// Packets per second of each tunnel.
    pub rate: f64,
    /// How long after the last tunnel.
    pub hold: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Tunnels that were there.
    pub up: u32,
    /// Why others were not, and how many.
    pub failed: BTreeMap<String, u32>,
    /// From the first that was begun to the last that was there.
    pub taken: Duration,
    /// From when each was begun to when it was there.
    pub setup: Times,
    /// From when each was there to when its first packet came out; nothing of those whose none did.
    pub first_packet: Times,
    /// Packets sent, and those that came out.
    pub packets: [u64; 2],
    /// Child SAs that others took the place of.
    pub rekeyed: u32,
    /// From the first that was to be rekeyed to the last that was.
    pub rekeys_taken: Duration,
}

/// A client's configuration: connections of swanctl.conf, with its keys and certificates.
pub struct Client {
    config: Configuration,
}

impl Client {
    /// Of a directory, as iked and swanctl have it.
    ///
    /// # Errors
    /// What of it cannot be read or used.
    pub fn read(directory: &Path) -> Result<Client, Box<dyn Error>> {
        let swanctl = swanctl::Configuration::read(&directory.join(portcullis_control::ike::FILE))?;
        let mut credentials = Credentials::default();
        credentials.read(directory)?;
        let config = configured::configuration(&swanctl, &credentials)?;
        Ok(Client { config })
    }

    /// The names of its connections.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.config.connections.iter().map(|connection| &*connection.name)
    }

    /// Begins tunnels by one of its connections, rekeys them, and ends them again; how many are there, and child SAs rekeyed, is
    /// told on the way.
    ///
    /// # Errors
    /// A connection that there is not, or that cannot begin; sockets or interfaces that cannot be opened.
    pub fn run(
        &self,
        name: &str,
        load: &Load,
        told: &mut dyn FnMut(u32, u32),
    ) -> Result<Outcome, Box<dyn Error>> {
        let connection = self.config.connections.iter().find(|connection| connection.name == name);
        let connection = connection.ok_or_else(|| {
            format!("no connection '{name}'; there are {}", self.names().collect::<Vec<_>>().join(", "))
        })?;
        let mut run = Run::new(&self.config, connection, load)?;
        run.begin_all(&mut |there| told(there, 0));
        run.rekey_all(told);
        let outcome = run.outcome();
        run.end_all();
        Ok(outcome)
    }
}

/// A tunnel on its way.
struct Begun {
    since: u64,
    /// The address that the gateway has given to it.
    address: Option<IpAddr>,
}

/// Packets through the tunnels that are there.
struct Sending<'a> {
    traffic: &'a Traffic,
    interfaces: Interfaces,
    /// Once there is a tunnel.
    generator: Option<Generator>,
    receiver: Receiver,
    /// Flows of which none has come out yet, and since when they are there.
    silent: Vec<(u32, u64)>,
    flows: u32,
}

/// All tunnels of a connection.
struct Run<'a> {
    config: &'a Configuration,
    connection: &'a Arc<Connection>,
    load: &'a Load,
    between: (IpAddr, IpAddr),
    engine: Engine,
    sockets: Sockets,
    epoch: Instant,
    hz: f64,
    next_spi: u32,
    begun: HashMap<IkeSaId, Begun>,
    /// Child SAs that are installed and not told of yet, by our SPI.
    installed: HashMap<u32, Box<Install>>,
    /// The child SAs of those that are there, by our SPI.
    there: Vec<u32>,
    /// Child SAs that others have taken the place of and that is not told of yet: which, and by which, by our SPI.
    replaced: Vec<(u32, u32)>,
    rekeyed: u32,
    rekeys_taken: Duration,
    /// Those that are not, and never will be.
    lost: u32,
    /// Why, and how many; and why no packets go through some that are there.
    failed: BTreeMap<String, u32>,
    setup: Times,
    first_packet: Times,
    /// When the first was begun and the last was there.
    span: (u64, u64),
    sending: Option<Sending<'a>>,
}

fn rng() -> UnwrapErr<getrandom::SysRng> {
    UnwrapErr(getrandom::SysRng)
}

impl<'a> Run<'a> {
    fn new(
        config: &'a Configuration,
        connection: &'a Arc<Connection>,
        load: &'a Load,
    ) -> Result<Run<'a>, Box<dyn Error>> {
        let name = &connection.name;
        let one = |hosts: &portcullis_ike::connection::Hosts, key: &str| {
            let address = hosts.addresses().next();
            address.ok_or_else(|| format!("{name}.{key}: it takes one address to begin tunnels"))
        };
        let between = (one(&connection.local, "local_addrs")?, one(&connection.remote, "remote_addrs")?);
        if connection.children.is_empty() {
            return Err(format!("{name}.children: a tunnel is of a child, and there is none").into());
        }
        let hz = Machine::this().hz;
        let sending = load.traffic.as_ref().map(|traffic| Sending::open(traffic, load.tunnels, hz));
        let mut rng = rng();
        let engine = Engine::new(&mut Context {
            now_ms: 0,
            unix_secs: unix_secs(),
            rng: &mut rng,
            config,
            child_spi: &mut || None,
            child_room: &mut |_| false,
            out: &mut VecDeque::new(),
        });
        Ok(Run {
            config,
            connection,
            load,
            between,
            engine,
            sockets: Sockets::open()?,
            epoch: Instant::now(),
            hz,
            next_spi: FIRST_SPI,
            begun: HashMap::new(),
            installed: HashMap::new(),
            there: vec![],
            replaced: vec![],
            rekeyed: 0,
            rekeys_taken: Duration::ZERO,
            lost: 0,
            failed: BTreeMap::new(),
            setup: Times::new(hz),
            first_packet: Times::new(hz),
            span: (clock::now(), 0),
            sending: sending.transpose()?,
        })
    }

    /// Has the engine do something, and what it wants done, with what comes of that.
    fn with(&mut self, does: impl FnOnce(&mut Engine, &mut Context<'_>)) {
        let mut jobs = self.once(does);
        while let Some((id, job)) = jobs.pop_front() {
            let outcome = job.run(&mut rng());
            jobs.extend(self.once(|engine, cx| engine.done(id, outcome, cx)));
        }
    }

    /// Has the engine do something; what takes long of what it wants done.
    fn once(&mut self, does: impl FnOnce(&mut Engine, &mut Context<'_>)) -> VecDeque<(JobId, Job)> {
        let (mut out, mut rng) = (VecDeque::new(), rng());
        let Run { config, engine, next_spi, epoch, .. } = self;
        let mut spi = || {
            *next_spi = next_spi.checked_add(1).unwrap_or(FIRST_SPI);
            Some(*next_spi)
        };
        let now_ms = epoch.elapsed().as_millis() as u64;
        let mut cx = Context {
            now_ms,
            unix_secs: unix_secs(),
            rng: &mut rng,
            config,
            child_spi: &mut spi,
            child_room: &mut |_| true,
            out: &mut out,
        };
        does(engine, &mut cx);
        let mut jobs = VecDeque::new();
        for output in out {
            match output {
                // What cannot be sent is as lost as what is lost on its way: it is sent again.
                Output::Send(datagram) => _ = self.sockets.send(&datagram),
                Output::Job(id, job) => jobs.push_back((id, job)),
                Output::Child(ChildChange::Install(install)) => {
                    self.installed.insert(install.sa.spi_in, install);
                }
                Output::Event(id, event) => self.heard(id, event),
                Output::Child(_) | Output::Keys(_) | Output::Refused(_) | Output::Closed(_) => {}
            }
        }
        jobs
    }

    fn heard(&mut self, id: IkeSaId, event: Event) {
        match event {
            Event::Configured(addresses, _) => {
                if let Some(begun) = self.begun.get_mut(&id) {
                    begun.address = addresses.first().copied();
                }
            }
            Event::ChildUp(_, spi) => self.is_up(id, spi),
            Event::ChildReplaced(_, old, new) => {
                self.installed.remove(&new);
                self.replaced.push((old, new));
            }
            Event::ChildFailed(_, why) | Event::Closed(why) if self.begun.remove(&id).is_some() => {
                self.lost += 1;
                *self.failed.entry(why).or_default() += 1;
            }
            _ => {}
        }
    }

    /// A child SA is there.
    fn is_up(&mut self, id: IkeSaId, spi: u32) {
        let (Some(begun), Some(install)) = (self.begun.remove(&id), self.installed.remove(&spi)) else {
            return;
        };
        let now = clock::now();
        self.setup.record(now - begun.since);
        self.span.1 = now;
        self.there.push(spi);
        let source = begun.address.unwrap_or(self.between.0);
        let added =
            self.sending.as_mut().map_or(Ok(()), |sending| sending.add(source, &install, now, self.hz));
        if let Err(why) = added {
            *self.failed.entry(format!("no packets: {why}")).or_default() += 1;
        }
    }

    /// Messages and time.
    fn turn(&mut self) {
        for _ in 0..MESSAGES_A_TURN {
            let Some(datagram) = self.sockets.receive() else { break };
            self.with(|engine, cx| _ = engine.receive(&datagram, cx));
        }
        if self.engine.due_ms().is_some_and(|due| due <= self.epoch.elapsed().as_millis() as u64) {
            self.with(Engine::tick);
        }
        match &mut self.sending {
            Some(sending) => sending.turn(&mut self.first_packet),
            None => {
                let mut fds: Vec<_> =
                    self.sockets.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
                let millisecond = rustix::time::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
                _ = poll(&mut fds, Some(&millisecond));
            }
        }
    }

    /// All tunnels, until they are there or nothing happens any more; then packets for as long as told.
    fn begin_all(&mut self, told: &mut dyn FnMut(u32)) {
        let (mut count, mut last, mut done) = (0, Instant::now(), 0);
        let start = Instant::now();
        self.span.0 = clock::now();
        while done < self.load.tunnels && last.elapsed() < self.load.patience {
            let allowed = self.load.rate.map_or(f64::INFINITY, |rate| start.elapsed().as_secs_f64() * rate);
            while count < self.load.tunnels
                && self.begun.len() < self.load.at_once as usize
                && f64::from(count) <= allowed
            {
                count += 1;
                let (connection, between) = (self.connection, self.between);
                let id = self.engine.reserve();
                self.begun.insert(id, Begun { since: clock::now(), address: None });
                self.with(|engine, cx| {
                    engine.initiate_as(id, connection, Some((&connection.children[0]).into()), between, cx);
                });
            }
            self.turn();
            let now_done = self.there.len() as u32 + self.lost;
            if now_done != done {
                (done, last) = (now_done, Instant::now());
                told(done);
            }
        }
        if done < self.load.tunnels {
            let left = self.load.tunnels - done;
            *self.failed.entry("not there in time".to_owned()).or_default() += left;
        }
        let hold = self.sending.as_ref().map_or(Duration::ZERO, |sending| sending.traffic.hold);
        let end = Instant::now() + hold;
        while Instant::now() < end {
            self.turn();
        }
        if let Some(sending) = &mut self.sending {
            sending.finish(&mut self.first_packet);
        }
    }

    /// All child SAs as often as told, or until nothing happens any more.
    fn rekey_all(&mut self, told: &mut dyn FnMut(u32, u32)) {
        let wanted = self.load.rekeys;
        let mut waiting: VecDeque<(u32, u32)> = self.there.iter().map(|spi| (*spi, wanted)).collect();
        waiting.retain(|(_, left)| *left > 0);
        let mut under_way: HashMap<u32, u32> = HashMap::new();
        let (start, mut last) = (Instant::now(), Instant::now());
        while !(waiting.is_empty() && under_way.is_empty()) && last.elapsed() < self.load.patience {
            while under_way.len() < self.load.at_once as usize
                && let Some((spi, left)) = waiting.pop_front()
            {
                under_way.insert(spi, left);
                self.with(|engine, cx| _ = engine.rekey_child(spi, cx));
            }
            self.turn();
            for (old, new) in std::mem::take(&mut self.replaced) {
                let Some(left) = under_way.remove(&old) else { continue };
                last = Instant::now();
                self.rekeyed += 1;
                self.rekeys_taken = start.elapsed();
                told(self.there.len() as u32, self.rekeyed);
                if left > 1 {
                    waiting.push_back((new, left - 1));
                }
            }
        }
        let left: u32 = waiting.iter().map(|(_, left)| *left).chain(under_way.into_values()).sum();
        if left > 0 {
            *self.failed.entry("not rekeyed in time".to_owned()).or_default() += left;
        }
    }

    fn outcome(&self) -> Outcome {
        let packets = self.sending.as_ref().map_or([0; 2], Sending::packets);
        Outcome {
            up: self.there.len() as u32,
            failed: self.failed.clone(),
            taken: Duration::from_secs_f64(self.span.1.saturating_sub(self.span.0) as f64 / self.hz),
            setup: self.setup.clone(),
            first_packet: self.first_packet.clone(),
            packets,
            rekeyed: self.rekeyed,
            rekeys_taken: self.rekeys_taken,
        }
    }

    /// Ends all, so that the gateway has none of them when others are begun.
    fn end_all(&mut self) {
        let deadline = Instant::now() + ENDING;
        self.sending = None;
        let all: Vec<_> = self.engine.ike_sas().map(|sa| sa.id()).collect();
        for some in all.chunks(self.load.at_once.max(1) as usize) {
            for id in some {
                self.with(|engine, cx| _ = engine.terminate(*id, cx));
            }
            while some.iter().any(|id| self.engine.ike_sa(*id).is_some()) && Instant::now() < deadline {
                self.turn();
            }
        }
    }
}

impl<'a> Sending<'a> {
    fn open(traffic: &'a Traffic, tunnels: u32, hz: f64) -> Result<Sending<'a>, Box<dyn Error>> {
        let names = [traffic.out.clone(), traffic.back.clone()];
        let interfaces = Interfaces::open(&names, &[&traffic.back], 1)?;
        let receiver = Receiver::new(RUN, tunnels as usize, hz);
        Ok(Sending { traffic, interfaces, generator: None, receiver, silent: vec![], flows: 0 })
    }

    /// A tunnel is there, whose packets are from an address.
    fn add(&mut self, source: IpAddr, install: &Install, now: u64, hz: f64) -> Result<(), Box<dyn Error>> {
        let (sa, traffic) = (outbound(install), self.traffic);
        let Flows { src_ports, dst_ports, .. } = Flows::one(source, traffic.dst);
        let flow =
            Flow { src: source, dst: traffic.dst, src_port: src_ports.first, dst_port: dst_ports.first };
        match &mut self.generator {
            Some(generator) => generator.add(&flow, &sa)?,
            None => {
                let (src_mac, dst_mac, mix) =
                    (self.interfaces.links[0].mac, traffic.dst_mac, traffic.sizes.clone());
                let flows = Flows::one(source, traffic.dst);
                let stream = Stream { dst_mac, src_mac, mix, flows, stamped: true, first_flow: 0, run: RUN };
                let sealer = Sealer::new(&[sa], (src_mac, dst_mac), Aead::best())?;
                self.generator = Some(Generator::new(&stream, hz)?.sealed(sealer, CHUNK)?);
            }
        }
        self.silent.push((self.flows, now));
        self.flows += 1;
        if let Some(generator) = &mut self.generator {
            generator.set_pace(Some(Pace::new(now, hz, traffic.rate * f64::from(self.flows))));
        }
        // One that was due now, of this flow.
        self.send();
        Ok(())
    }

    /// What is due is sent.
    fn send(&mut self) {
        let lane = &mut self.interfaces.lanes[0];
        if let Some(generator) = &mut self.generator {
            generator.turn(&mut lane.ports[0], &mut lane.cache, clock::now);
        }
    }

    fn turn(&mut self, first_packet: &mut Times) {
        self.send();
        let lane = &mut self.interfaces.lanes[0];
        if self.receiver.receive(&mut lane.ports[1], &mut lane.cache, clock::now) > 0 {
            let (receiver, now) = (&self.receiver, clock::now());
            self.silent.retain(|(flow, since)| {
                let is_silent = receiver.flow(*flow).received == 0;
                if !is_silent {
                    first_packet.record(now - since);
                }
                is_silent
            });
        }
    }

    /// What is on its way comes.
    fn finish(&mut self, first_packet: &mut Times) {
        if let Some(generator) = &mut self.generator {
            let (due, hz) = (u64::MAX / 2, Machine::this().hz);
            generator.set_pace(Some(Pace::new(due, hz, 1.0)));
        }
        let end = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end && self.packets()[1] < self.packets()[0] {
            self.turn(first_packet);
        }
    }

    fn packets(&self) -> [u64; 2] {
        let sent = self.generator.as_ref().map_or(0, |generator| generator.sent().frames);
        [sent, self.receiver.received().tally.received]
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(generator) = &mut self.generator {
            generator.close(&mut self.interfaces.lanes[0].cache);
        }
        // What cannot be detached now is when the process ends.
        _ = self.interfaces.detach();
    }
}

/// What seals the packets of a child SA.
fn outbound(install: &Install) -> Sa {
    let Install { sa: child, algorithm, local, peer, key_out, .. } = install;
    Sa {
        spi: Spi(child.spi_out),
        direction: Direction::Outbound,
        protocol: Protocol::Esp,
        mode: child.mode,
        algorithm: *algorithm,
        src: local.ip(),
        dst: peer.ip(),
        udp: install.is_in_udp.then(|| UdpEncap::between(local.port(), peer.port())),
        esn: child.agreement.esn(),
        replay_window: 0,
        reqid: 0,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("bench").expect("a short name"),
        key: key_out.clone(),
    }
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
