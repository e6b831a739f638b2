//! The whole path of one worker over captures: what one file holds comes in at one port, again and again from
//! memory, and what the worker makes of it goes out at the other and is let go. Real SADB, real crypto; no NIC.

use portcullis_datapath::{
    crypto::Aead,
    drop::DropReason,
    fib::{self, Fib, Hop, Mac, PortLink, Route, RoutesBuilder},
    handoff,
    nexthop::NextHops,
    pool::FramePool,
    port::{Port, pcap::PcapPort},
    umem::{HugePages, Umem},
    worker::Worker,
};
use portcullis_sadb::{
    Action, Algorithm, Direction, Handling, Key, Mode, Name, Policy, Prefix, Protocol, Sa, Sadb, Selector,
    Sizes, Spi,
};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Port numbers of the worker.
const LAN: u8 = 0;
const WAN: u8 = 1;
/// Chunks, and the octets of one: what a gateway has by default.
const FRAMES: u32 = 16_384;
const FRAME_SIZE: u16 = 4096;
const MTU: u16 = 1500;
const REQID: u32 = 1;

/// The tunnel: one SA of AES-GCM-128, without ESN. A capture that is repeated repeats its sequence numbers, so
/// there is no replay window either.
pub struct Tunnel {
    /// Outbound: clear packets come in and are encapsulated. Inbound: ESP comes in and is decapsulated.
    pub direction: Direction,
    /// The SPI.
    pub spi: u32,
    /// Key and salt.
    pub key: Vec<u8>,
    /// Outer addresses.
    pub src: Ipv4Addr,
    /// Outer addresses.
    pub dst: Ipv4Addr,
}

/// What came of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets dropped, by reason, where there are any.
    pub drops: BTreeMap<&'static str, u64>,
    /// How long it took.
    pub elapsed: Duration,
    /// How much of that the thread had the core.
    pub on_core: Duration,
}

/// Runs the capture through the tunnel, over and over, for as long as told.
///
/// # Errors
/// A capture that cannot be read, a tunnel that cannot be.
pub fn measure(tunnel: &Tunnel, capture: &Path, duration: Duration) -> Result<Report, Box<dyn Error>> {
    let (mut worker, sadb) = worker(tunnel, PcapPort::repeat(capture)?, PcapPort::open(None, None)?)?;
    let stop = AtomicBool::new(false);
    let (start, on_core) = (Instant::now(), time_on_core()?);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            std::thread::sleep(duration);
            stop.store(true, Ordering::Relaxed);
        });
        worker.run(&stop);
    });
    report(&sadb, start.elapsed(), time_on_core()? - on_core)
}

/// Sends the capture through the tunnel once, and writes what comes out.
///
/// # Errors
/// As for [`measure`]; a file that cannot be written.
pub fn convert(tunnel: &Tunnel, capture: &Path, out: &Path) -> Result<Report, Box<dyn Error>> {
    let ports = (PcapPort::open(Some(capture), None)?, PcapPort::open(None, Some(out))?);
    let (mut worker, sadb) = worker(tunnel, ports.0, ports.1)?;
    let (start, on_core) = (Instant::now(), time_on_core()?);
    while worker.turn(0) {}
    // Stopped before it runs: it closes its ports, and the file is whole.
    worker.run(&AtomicBool::new(true));
    report(&sadb, start.elapsed(), time_on_core()? - on_core)
}

/// A worker with the tunnel's SA and policy, that receives from one port and sends to the other.
fn worker(tunnel: &Tunnel, from: PcapPort, to: PcapPort) -> Result<(Worker, Sadb), Box<dyn Error>> {
    let (mut sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas: 16, max_policies: 16 })?;
    let sa = sadb.publish(&Sa {
        spi: Spi(tunnel.spi),
        direction: tunnel.direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm: Algorithm::AES_GCM_128,
        src: tunnel.src.into(),
        dst: tunnel.dst.into(),
        udp: None,
        esn: false,
        replay_window: 0,
        reqid: REQID,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("peer").ok_or("no name")?,
        key: Key::new(&tunnel.key).ok_or("the key is too long")?,
    })?;
    let any = Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0).ok_or("no prefix")?;
    let (selector, action) = (Selector::between(any, any), Action::Protect);
    let outbound = tunnel.direction == Direction::Outbound;
    let sa = outbound.then_some(sa);
    sadb.add_policy(&Policy {
        direction: tunnel.direction,
        selector,
        priority: 1,
        action,
        reqid: REQID,
        sa,
    })?;

    let ports: Vec<Box<dyn Port>> =
        if outbound { vec![Box::new(from), Box::new(to)] } else { vec![Box::new(to), Box::new(from)] };
    let handoff = handoff::between(1)?.remove(0);
    let (next_hops, _publisher) = NextHops::new(fib(tunnel.dst.into()));
    let cache = FramePool::new(Umem::new(FRAMES, FRAME_SIZE, HugePages::Auto)?.0).cache();
    Ok((Worker::new((0, 1), (reader, runtime), ports, handoff, next_hops, cache, Aead::best()), sadb))
}

/// The tunnel's other end is on the WAN, all else behind a gateway on the LAN; both neighbours are known.
fn fib(peer: IpAddr) -> Arc<Fib> {
    let link = |n: u8| PortLink {
        interface: format!("pcap{n}"),
        ifindex: 1 + n as u32,
        mac: Mac([2, 0, 0, 0, 1, n]),
        mtu: MTU,
        up: true,
        kernel: None,
    };
    let inside = IpAddr::V4(Ipv4Addr::new(10, 255, 255, 254));
    let hop = |port, gateway| {
        Route::Unicast(vec![Hop { port: Some(port), gateway, mtu: 0, weight: 1, kernel: None }])
    };
    let mut routes = RoutesBuilder::default();
    routes.route(fib::Prefix { addr: Ipv4Addr::UNSPECIFIED.into(), len: 0 }, &hop(LAN, Some(inside)));
    routes.route(fib::Prefix { addr: peer, len: 32 }, &hop(WAN, None));
    let neighbours = [((LAN, inside), Mac([2, 0, 0, 0, 2, LAN])), ((WAN, peer), Mac([2, 0, 0, 0, 2, WAN]))];
    let neighbours = neighbours.into_iter().collect();
    Arc::new(Fib::new(
        1,
        Arc::new(vec![link(LAN), link(WAN)]),
        Arc::new(routes.build()),
        Arc::new(neighbours),
    ))
}

fn report(sadb: &Sadb, elapsed: Duration, on_core: Duration) -> Result<Report, Box<dyn Error>> {
    let record = sadb.runtime().worker(0).ok_or("no worker 0")?;
    let mut drops: BTreeMap<_, _> = DropReason::ALL
        .iter()
        .map(|r| (r.metric(), record.drops[*r as usize]))
        .filter(|(_, n)| *n > 0)
        .collect();
    for (name, n) in [("rx_no_chunk", record.ports.rx_no_chunk), ("invalid", record.ports.invalid)] {
        if n > 0 {
            drops.insert(name, n);
        }
    }
    let (received, sent) = (record.traffic.rx_packets, record.traffic.tx_packets);
    Ok(Report { received, sent, drops, elapsed, on_core })
}

/// How long this thread has had a core. Others may want ours meanwhile; that is not the path's to answer for.
fn time_on_core() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanos))
}
