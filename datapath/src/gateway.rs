//! A whole datapath: regions, memory, sockets, the XDP program, workers and the mirror, in the order in which
//! they need each other, and their end in the reverse.

use crate::{
    confine::{self, ConfineError},
    crypto::Aead,
    drop::DropReason,
    fib::{self, Fib},
    handoff,
    mirror::{Mirror, MirrorError, MirrorThread, Notice},
    pool::FramePool,
    port::{
        Port,
        af_xdp::{self, Copying, Interface, XskError},
    },
    sa::{BytesPerSa, SaTable, owner_of},
    steering::{Mode, Owner, Steering, SteeringError, Wanted},
    umem::{self, UmemError},
    wire::UdpPorts,
    worker::{self, Worker},
};
use portcullis_ebpf::Reason;
use portcullis_machine::{Crypto, HugePages, Machine, XdpMode, strict::ConfigError};
use portcullis_sadb::{Action, Direction, Guard, Prefix, Reader, RegionError, Runtime};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use thiserror::Error;

/// Ticks of the mirror from one look at the XDP program's counters to the next: about half a second.
const COUNT_TICKS: u32 = 100;

/// How long a predecessor may take to be gone.
const PREDECESSOR: Duration = Duration::from_millis(500);

/// What the datapath tells of itself, in the regions' directory.
pub const REPORT_FILE: &str = "datapath.json";

/// Why there is no datapath.
#[derive(Debug, Error)]
#[allow(missing_docs)]
pub enum GatewayError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Region(#[from] RegionError),
    #[error(transparent)]
    Umem(#[from] UmemError),
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error(transparent)]
    Xsk(#[from] XskError),
    #[error(transparent)]
    Steering(#[from] SteeringError),
    #[error(transparent)]
    Confine(#[from] ConfineError),
    #[error("[datapath] frames = {frames} is too few: rings of these ports and workers hold {needed}")]
    Frames { frames: u32, needed: u32 },
    #[error("[datapath] crypto = \"{wanted}\": this CPU cannot do it; the fastest that it can is \"{best}\"")]
    Crypto { wanted: &'static str, best: &'static str },
    #[error("[datapath] udp_encap_ports are {ports}; there must be 1 to {most}")]
    UdpPorts { ports: usize, most: usize },
    #[error("cannot start worker {worker} on core {core}: {source}; see [datapath] workers and cores")]
    Worker { worker: u32, core: usize, source: io::Error },
    #[error("{path}: {source}")]
    Report { path: PathBuf, source: io::Error },
    #[error("{what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

/// How a port came up.
#[derive(Clone, Debug, Serialize)]
pub struct PortReport {
    /// The interface.
    pub interface: String,
    /// `driver` or `generic`.
    pub mode: &'static str,
    /// Why it is not driver mode.
    pub mode_fallback: Option<String>,
    /// Whether the kernel does without copies.
    pub zero_copy: bool,
    /// Whether the kernel is woken only when it wants to be.
    pub need_wakeup: bool,
    /// Queues in use.
    pub queues: u32,
    /// The interface's MTU.
    pub mtu: u16,
}

/// What was really got, for `portcullis status`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Process.
    pub pid: u32,
    /// Workers.
    pub workers: u32,
    /// Their cores.
    pub cores: Vec<usize>,
    /// What does the AEAD.
    pub crypto: &'static str,
    /// What an SA takes of the workers' own memory.
    pub bytes_per_sa: BytesPerSa,
    /// Whether the umem is of huge pages.
    pub huge_pages: bool,
    /// Why it is not.
    pub huge_pages_fallback: Option<String>,
    /// Why the kernel copies.
    pub copy_reason: Option<String>,
    /// Whether the keys are kept out of swap and core dumps, and why not.
    pub keys_locked: bool,
    /// Why the keys are not locked in memory.
    pub keys_not_locked: Option<String>,
    /// The ports.
    pub ports: Vec<PortReport>,
    /// Names of the drop counters, in their order.
    pub drop_reasons: Vec<&'static str>,
    /// Names of the XDP program's counters, in their order.
    pub steering_reasons: Vec<&'static str>,
}

/// A running datapath.
pub struct Gateway {
    stop: Arc<AtomicBool>,
    /// Whether the program stays at the end.
    hands_over: Arc<AtomicBool>,
    inboxes: Arc<[handoff::Inbox]>,
    workers: Vec<JoinHandle<()>>,
    mirror: MirrorThread,
    runtime: Runtime,
    /// What was got.
    pub report: Report,
    // After the threads: the memory of all frames.
    _pool: Arc<FramePool>,
}

impl Gateway {
    /// Brings everything up. When this returns, packets flow.
    ///
    /// # Errors
    /// [`GatewayError`] says what is missing and what to do.
    pub fn start(config: &Machine) -> Result<Gateway, GatewayError> {
        let aead = aead(config.datapath.crypto, Aead::is_available)?;
        let cores = cores(config);
        let workers = cores.len() as u32;
        let (reader, runtime, mut guard) = attach(&config.regions.directory)?;
        let names: Vec<String> = config.ports.iter().map(|p| p.interface.clone()).collect();
        let mut mirror = Mirror::open(&names)?;
        let interfaces = interfaces(config, mirror.fib())?;

        let (umem, huge_pages_fallback) = af_xdp::umem(
            &interfaces,
            config.datapath.frames,
            config.datapath.frame_size as u16,
            match config.datapath.huge_pages {
                HugePages::Auto => umem::HugePages::Auto,
                HugePages::Require => umem::HugePages::Require,
                HugePages::Off => umem::HugePages::Off,
            },
        )?;
        let needed = config.datapath.ring * interfaces.iter().map(|i| i.queues).sum::<u32>() + 256 * workers;
        if config.datapath.frames < needed {
            return Err(GatewayError::Frames { frames: config.datapath.frames, needed });
        }
        let pool = FramePool::new(umem);
        let ends = handoff::between(workers as usize)
            .map_err(|source| GatewayError::Io { what: "cannot make a worker's bell", source })?;
        let inboxes = ends[0].inboxes();
        let opened = af_xdp::open(pool.umem(), &interfaces, &inboxes, config.datapath.ring, Copying::Auto)?;
        let mut steering = Steering::load(workers)?;
        steering.set_udp_ports(config.datapath.udp_encap_ports.iter().copied())?;
        let udp_ports = udp_ports(&config.datapath.udp_encap_ports)?;
        let prohibited = config.datapath.icmp_prohibited.iter();
        let told: Vec<_> = prohibited.filter_map(|(addr, len)| Prefix::new(*addr, *len)).collect();
        for (port, queue, worker, socket) in &opened.sockets {
            steering.set_socket(*port, *queue, *worker, socket.fd())?;
        }

        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = vec![];
        for ((me, ports), handoff) in (0..workers).zip(opened.ports).zip(ends) {
            let ports = ports.into_iter().map(|p| Box::new(p) as Box<dyn Port>).collect();
            let ends = (reader.clone(), runtime.clone());
            let mut worker =
                Worker::new((me, workers), ends, ports, handoff, mirror.worker(), pool.cache(), aead);
            guard.not_locked = guard.not_locked.or(worker.keys_not_locked().map(io::Error::to_string));
            worker.set_udp_ports(udp_ports);
            worker.tell_prohibited(&told);
            // By keys that the system has drawn for this process (RFC 7739 §5).
            worker.identify_from(RandomState::new().hash_one(me) as u32);
            let core = cores[me as usize];
            let confine = || confine::worker().map_err(io::Error::other);
            let thread = worker::spawn(worker, core, stop.clone(), confine)
                .map_err(|source| GatewayError::Worker { worker: me, core, source })?;
            threads.push(thread);
        }

        // Frames come in from here on: what is protected is known before.
        let (versions, known, rests_until) = (None, BTreeMap::new(), Instant::now());
        let mut sync = PolicySync { reader, workers, versions, known, rests_until };
        sync.run(&mut steering, mirror.fib())?;
        let mut ports = vec![];
        for (number, (port, interface)) in config.ports.iter().zip(&interfaces).enumerate() {
            let wanted = match config.datapath.xdp_mode {
                XdpMode::Auto => Wanted::Auto,
                XdpMode::Driver => Wanted::Driver,
                XdpMode::Generic => Wanted::Generic,
            };
            let attached = match steering.attach(number as u32, &port.interface, wanted) {
                Ok(attached) => attached,
                Err(e) => {
                    // The earlier ports are as before; why this one fails is what counts.
                    let _ = steering.give_up();
                    return Err(e.into());
                }
            };
            ports.push(PortReport {
                interface: port.interface.clone(),
                mode: if attached.mode == Mode::Driver { "driver" } else { "generic" },
                mode_fallback: attached.fallback,
                zero_copy: opened.zero_copy,
                need_wakeup: true,
                queues: interface.queues,
                mtu: mirror.fib().ports().get(number).map_or(0, |p| p.mtu),
            });
        }
        let report = report(config, aead, cores, huge_pages_fallback, opened.told, guard, ports);
        write_report(&config.regions.directory.join(REPORT_FILE), &report)?;
        let counted = runtime.clone();
        let hands_over = Arc::new(AtomicBool::new(false));
        let stays = hands_over.clone();
        let confine = || {
            // How many CPUs there are is read from a file, once in each thread, and then no more.
            let _ = aya::util::nr_cpus();
            confine::mirror()
        };
        let mut ticks = 0u32;
        let mirror = mirror.start(confine, move |notice| {
            let result = match notice {
                Notice::Published(fib) => sync.run(&mut steering, fib),
                Notice::Tick(fib) => {
                    ticks = ticks.wrapping_add(1);
                    sync.run(&mut steering, fib).and_then(|()| match ticks % COUNT_TICKS {
                        0 => steering.counters().map(|c| counted.set_steering(c.iter().map(|(_, n)| n))),
                        _ => Ok(()),
                    })
                }
                // Relaxed: nothing else is read on the strength of it, and who sets it ends the thread after.
                Notice::Stopping if stays.load(Ordering::Relaxed) => Ok(()),
                Notice::Stopping => steering.detach(),
            };
            if let Err(e) = result {
                tracing::error!("steering: {e}");
            }
        })?;
        runtime.set_ready(workers);
        Ok(Gateway { stop, hands_over, inboxes, workers: threads, mirror, runtime, report, _pool: pool })
    }

    /// Whether a thread has ended that should run.
    pub fn is_broken(&self) -> bool {
        self.mirror.is_finished() || self.workers.iter().any(JoinHandle::is_finished)
    }

    /// The same as [`Gateway::stop`], but for the program: it stays on the interfaces, and drops what is protected until the
    /// next datapath puts its own in its place.
    pub fn hand_over(self) {
        self.hands_over.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Takes the program off the interfaces and ends the threads. Nobody sends any more when this returns.
    pub fn stop(self) {
        self.runtime.set_ready(0);
        if self.mirror.stop().is_err() {
            tracing::error!("the mirror had ended before");
        }
        self.stop.store(true, Ordering::Relaxed);
        self.inboxes.iter().for_each(|i| i.bell.ring_always());
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker had ended before");
            }
        }
    }
}

/// Attaches to the regions. A predecessor that was killed may take a moment to be gone.
fn attach(directory: &Path) -> Result<(Reader, Runtime, Guard), RegionError> {
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match Reader::attach(directory) {
            Err(RegionError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// What the configuration asks for, if this CPU can do it.
fn aead(wanted: Crypto, can: impl Fn(Aead) -> bool) -> Result<Aead, GatewayError> {
    let wanted = match wanted {
        Crypto::Auto => return Ok(Aead::best()),
        Crypto::VaesAvx512 => Aead::Avx512,
        Crypto::VaesAvx2 => Aead::Avx2,
        Crypto::AesNi => Aead::AesNi,
        Crypto::Portable => Aead::Portable,
    };
    match can(wanted) {
        true => Ok(wanted),
        false => Err(GatewayError::Crypto { wanted: wanted.name(), best: Aead::best().name() }),
    }
}

fn udp_ports(ports: &[u16]) -> Result<UdpPorts, GatewayError> {
    UdpPorts::new(ports).ok_or(GatewayError::UdpPorts { ports: ports.len(), most: UdpPorts::MOST })
}

fn cores(config: &Machine) -> Vec<usize> {
    let available = std::thread::available_parallelism().map_or(1, |n| n.get());
    config.datapath.worker_cores(available).into_iter().map(|c| c as usize).collect()
}

fn interfaces(config: &Machine, fib: &Fib) -> Result<Vec<Interface>, GatewayError> {
    let one = |(port, link): (&portcullis_machine::Port, &fib::PortLink)| {
        let failed = |source| {
            let (interface, what) = (port.interface.clone(), "count its queues");
            XskError::Io { interface, queue: 0, what, source }
        };
        let there = af_xdp::queues(&port.interface).map_err(failed)?;
        let queues = port.queues.map_or(there, |q| q.get());
        Ok(Interface { name: port.interface.clone(), ifindex: link.ifindex, queues })
    };
    config.ports.iter().zip(fib.ports()).map(one).collect()
}

/// Keeps the XDP program's tables of protected prefixes as the SPD and the kernel's addresses are.
struct PolicySync {
    reader: Reader,
    workers: u32,
    /// Of the SPD, of the policies' SAs and of the kernel's tables: those that `known` is of.
    versions: Option<(u64, u64, u64)>,
    /// What the program has.
    known: BTreeMap<fib::Prefix, Owner>,
    /// No walk before, so that a large SPD which changes all the time costs at most a tenth of a core.
    rests_until: Instant,
}

impl PolicySync {
    /// Until it has run, what a new policy protects is the kernel's: so it is asked every few milliseconds.
    fn run(&mut self, steering: &mut Steering, fib: &Fib) -> Result<(), SteeringError> {
        // A rekey changes who owns a policy's SA, and not the SPD.
        let versions = (self.reader.spd_version(), self.reader.policy_sas_version(), fib.version());
        let begun = Instant::now();
        if self.versions == Some(versions) || begun < self.rests_until {
            return Ok(());
        }
        let result = self.walk(steering, fib, versions);
        self.rests_until = Instant::now() + 9 * begun.elapsed();
        result
    }

    fn walk(
        &mut self,
        steering: &mut Steering,
        fib: &Fib,
        versions: (u64, u64, u64),
    ) -> Result<(), SteeringError> {
        let mut wanted = BTreeMap::new();
        for (index, policy) in self.reader.policies() {
            // Clear traffic to what an outbound policy names; and from it too, since the program looks at
            // sources as well. Discard and Bypass are looked at where they share a prefix with a Protect.
            if policy.direction != Direction::Outbound || policy.action == Action::Bypass {
                continue;
            }
            let owner = match self.reader.is_for_workers(index) {
                // RFC 9611: each has an SA, or hands on what it gets.
                true => Owner::Workers,
                false => {
                    let whose = policy.sa.and_then(|sa| self.reader.whose(sa));
                    Owner::Worker(whose.map_or(0, |whose| owner_of(whose, self.workers)))
                }
            };
            let dst = policy.selector.dst;
            wanted.insert(fib::Prefix { addr: dst.addr(), len: dst.len() }, owner);
        }
        for own in fib.own() {
            wanted.insert(*own, Owner::Kernel);
        }
        if versions.0 != self.reader.spd_version() {
            // The SPD changed under the walk, which may have missed a policy and its successor: until a walk has
            // seen one SPD, nothing that was protected is given up.
            for (prefix, owner) in &self.known {
                wanted.entry(*prefix).or_insert(*owner);
            }
            steering.set_protected(&wanted)?;
            self.known = wanted;
            return Ok(());
        }
        steering.set_protected(&wanted)?;
        self.known = wanted;
        self.versions = Some(versions);
        Ok(())
    }
}

fn report(
    config: &Machine,
    aead: Aead,
    cores: Vec<usize>,
    huge_pages_fallback: Option<String>,
    copy_reason: Option<String>,
    guard: Guard,
    ports: Vec<PortReport>,
) -> Report {
    Report {
        pid: std::process::id(),
        workers: cores.len() as u32,
        cores,
        crypto: aead.name(),
        bytes_per_sa: SaTable::bytes_per_sa(aead),
        huge_pages: huge_pages_fallback.is_none() && !matches!(config.datapath.huge_pages, HugePages::Off),
        huge_pages_fallback,
        copy_reason,
        keys_locked: guard.not_locked.is_none(),
        keys_not_locked: guard.not_locked,
        ports,
        drop_reasons: DropReason::ALL.iter().map(|r| r.metric()).collect(),
        steering_reasons: Reason::ALL.iter().map(|r| r.metric()).collect(),
    }
}

fn write_report(path: &Path, report: &Report) -> Result<(), GatewayError> {
    let failed = |source| GatewayError::Report { path: path.to_owned(), source };
    let text = serde_json::to_string_pretty(report).map_err(|e| failed(io::Error::other(e)))?;
    std::fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `portcullis status` reads these keys.
    #[test]
    fn what_an_sa_takes_is_told() {
        let of = |aead| serde_json::to_value(SaTable::bytes_per_sa(aead)).unwrap();
        let (best, portable) = (of(Aead::best()), of(Aead::Portable));
        println!("{}: {best}, portable: {portable}", Aead::best().name());
        assert!(best["state"].as_u64() >= Some(size_of::<crate::sa::SaState>() as u64));
        assert!(portable["state"].as_u64() > best["state"].as_u64() || Aead::best() == Aead::Portable);
        assert_eq!(best["index"], 74);
    }

    #[test]
    fn udp_ports_that_are_too_many_are_refused_by_name() {
        assert_eq!(udp_ports(&[4500]).unwrap(), UdpPorts::default());
        for ports in [0, UdpPorts::MOST + 1] {
            let error = udp_ports(&vec![4500; ports]).unwrap_err().to_string();
            assert!(
                error.contains("[datapath] udp_encap_ports") && error.contains(&ports.to_string()),
                "{error}"
            );
        }
    }

    #[test]
    fn what_the_cpu_cannot_do_is_refused_by_name() {
        let error = aead(Crypto::VaesAvx512, |_| false).unwrap_err().to_string();
        assert!(error.contains("[datapath] crypto = \"vaes-avx512\""), "{error}");
        assert!(error.contains(Aead::best().name()), "{error}");
        assert_eq!(aead(Crypto::AesNi, |a| a == Aead::AesNi).unwrap(), Aead::AesNi);
        assert_eq!(aead(Crypto::Auto, |_| false).unwrap(), Aead::best());
    }
}
