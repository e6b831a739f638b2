//! A gateway in memory: real SADB, real workers, real crypto; ports whose other ends the test holds.
#![allow(dead_code)] // each test file uses its part

pub mod pair;

use portcullis_datapath::{
    crypto::Aead,
    drop::DropReason,
    fib::{Fib, Hop, KernelEnd, Mac, PortLink, Prefix as Route4, Route, RoutesBuilder},
    frame::Frame,
    handoff,
    nexthop::{NextHops, Publisher},
    pool::{FrameCache, FramePool},
    port::{Port, memory::MemoryPort},
    umem::{HugePages, Umem},
    worker::Worker,
};
use portcullis_sadb::*;
use std::{net::IpAddr, sync::Arc};

/// Port numbers of a gateway.
pub const LAN: usize = 0;
/// Port numbers of a gateway.
pub const WAN: usize = 1;
/// What is behind gateway N, by N: 10.N.0.0/16 and fd00:N::/32.
pub fn inside(n: u8, v4: bool) -> IpAddr {
    if v4 { ip(&format!("10.{n}.0.9")) } else { ip(&format!("fd00:{n}::9")) }
}

/// Inner address of gateway N.
pub fn lan(n: u8, v4: bool) -> IpAddr {
    if v4 { ip(&format!("10.{n}.0.1")) } else { ip(&format!("fd00:{n}::1")) }
}

/// Outer address of gateway N.
pub fn outer(n: u8, v4: bool) -> IpAddr {
    if v4 { ip(&format!("192.0.2.{n}")) } else { ip(&format!("2001:db8::{n}")) }
}

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// How the two gateways speak with each other.
#[derive(Clone, Copy)]
pub struct Tunnel {
    pub algorithm: Algorithm,
    pub esn: bool,
    pub udp: bool,
    /// How it is in UDP, if it is.
    pub encap: UdpEncap,
    pub outer_v4: bool,
    pub window: u32,
    pub workers: u32,
    /// Whether workers lend what is to be sealed and opened, always.
    pub lends: bool,
    pub mtu: u16,
    pub protocol: Protocol,
    pub mode: Mode,
    pub handling: Handling,
    /// Whether the gateways have addresses, from which they tell others what is wrong.
    pub tells: bool,
    /// Whether the kernel is at the other end of the LAN's port too, with the address [`KERNEL`].
    pub has_kernel: bool,
}

/// The Ethernet address of the kernel's end.
pub const KERNEL: [u8; 6] = [4, 0, 0, 0, 0, 7];

impl Default for Tunnel {
    fn default() -> Tunnel {
        let algorithm = Algorithm::AES_GCM_128;
        // The same tests again, with packets that are sealed and opened by whoever has time.
        let lends = std::env::var_os("PORTCULLIS_TEST_LENDS").is_some();
        let workers = if lends { 2 } else { 1 };
        Tunnel {
            algorithm,
            esn: true,
            udp: false,
            encap: UdpEncap::between(4500, 4500),
            outer_v4: true,
            window: 1024,
            workers,
            lends,
            mtu: 1500,
            protocol: Protocol::Esp,
            mode: Mode::Tunnel,
            handling: Handling::default(),
            tells: false,
            has_kernel: false,
        }
    }
}

impl Tunnel {
    /// Where packets of an SA begin and end at gateway N: there, or at the host behind it.
    fn end(&self, n: u8) -> IpAddr {
        match self.mode {
            Mode::Transport if !self.handling.gre => inside(n, self.outer_v4),
            _ => outer(n, self.outer_v4),
        }
    }
}

/// SPI that gateway N receives with.
pub fn spi(n: u8) -> u32 {
    0x1000_0000 + n as u32
}

/// Key and salt of packets to gateway N.
pub fn key(n: u8, algorithm: Algorithm) -> Vec<u8> {
    (0..algorithm.key_len() + algorithm.salt_len()).map(|i| i as u8 ^ n).collect()
}

/// The SA of packets from one gateway to the other, as `me` has it.
pub fn sa(t: &Tunnel, me: u8, from: u8, to: u8) -> Sa {
    Sa {
        spi: Spi(spi(to)),
        direction: if me == to { Direction::Inbound } else { Direction::Outbound },
        protocol: t.protocol,
        mode: t.mode,
        algorithm: t.algorithm,
        src: t.end(from),
        dst: t.end(to),
        udp: t.udp.then_some(t.encap),
        esn: t.esn,
        replay_window: t.window,
        reqid: 1,
        worker: None,
        around: None,
        mtu: 0,
        handling: t.handling,
        name: Name::new("peer").unwrap(),
        key: Key::new(&key(to, t.algorithm)).unwrap(),
    }
}

/// Gateway `me` of 1 and 2.
pub struct Gateway {
    pub sadb: Sadb,
    pub reader: Reader,
    pub runtime: Runtime,
    pub workers: Vec<Worker>,
    /// The other ends of each worker's ports.
    pub ends: Vec<[MemoryPort; 2]>,
    pub publishers: Vec<Publisher>,
    pub inbound: SlotIndex,
    pub outbound: SlotIndex,
    tunnel: Tunnel,
    pub now_ms: u64,
}

/// Chunks of memory for all gateways of a test.
pub fn memory(frames: u32) -> Arc<FramePool> {
    FramePool::new(Umem::new(frames, 4096, HugePages::Auto).unwrap().0)
}

fn links(t: &Tunnel) -> Arc<Vec<PortLink>> {
    let mtu = t.mtu;
    let end = |n| KernelEnd { ifindex: 20 + n as u32, mac: Mac(KERNEL), mtu: 1400, up: true };
    let link = |n: u8| PortLink {
        interface: format!("p{n}"),
        ifindex: 10 + n as u32,
        mac: Mac([2, 0, 0, 0, 1, n]),
        mtu,
        up: true,
        kernel: (t.has_kernel && n as usize == LAN).then(|| end(n)),
    };
    Arc::new(vec![link(0), link(1)])
}

/// Routes: what is inside gateway `me` on the LAN, all else on the WAN; all neighbours are known.
fn fib(t: &Tunnel, me: u8) -> Arc<Fib> {
    let mut routes = RoutesBuilder::default();
    let mut neighbours = vec![];
    for v4 in [true, false] {
        let len = if v4 { 16 } else { 32 };
        for (addr, len, port) in [(inside(me, v4), len, LAN), (inside(3 - me, v4), 0, WAN)] {
            let net = Prefix::new(addr, len).unwrap();
            // The peer is the gateway to all that is not here.
            let gateway = (port == WAN).then(|| outer(3 - me, v4));
            let hop = Hop { port: Some(port as u8), gateway, mtu: 0, weight: 1, kernel: None };
            routes.route(Route4 { addr: net.addr(), len }, &Route::Unicast(vec![hop]));
        }
        // What the kernel sends there, it sends to us.
        if t.has_kernel {
            let net = Prefix::new(inside(3 - me, v4), len).unwrap();
            let hop = Hop { port: None, gateway: None, mtu: 0, weight: 1, kernel: Some(LAN as u8) };
            routes.route(Route4 { addr: net.addr(), len }, &Route::Unicast(vec![hop]));
        }
        for own in [lan(me, v4), outer(me, v4)].into_iter().filter(|_| t.tells) {
            routes.local(Route4::host(own));
        }
        neighbours.push(((LAN as u8, inside(me, v4)), Mac([2, 9, 9, 9, 9, 9])));
        neighbours.push(((WAN as u8, outer(3 - me, v4)), Mac([2, 8, 8, 8, 8, 8])));
    }
    let neighbours = neighbours.into_iter().collect();
    Arc::new(Fib::new(1, links(t), Arc::new(routes.build()), Arc::new(neighbours)))
}

impl Gateway {
    pub fn new(t: Tunnel, me: u8, pool: &Arc<FramePool>) -> Gateway {
        let (mut sadb, reader, runtime) = Sadb::heap(&Sizes { max_sas: 16, max_policies: 64 }).unwrap();
        let other = 3 - me;
        let inbound = sadb.publish(&sa(&t, me, other, me)).unwrap();
        let outbound = sadb.publish(&sa(&t, me, me, other)).unwrap();
        for v4 in [true, false] {
            let len = if v4 { 16 } else { 32 };
            let net = |n| Prefix::new(inside(n, v4), len).unwrap();
            for (direction, src, dst, sa) in [
                (Direction::Inbound, net(other), net(me), None),
                (Direction::Outbound, net(me), net(other), Some(outbound)),
            ] {
                let selector = Selector::between(src, dst);
                let (action, reqid) = (Action::Protect, 1);
                sadb.add_policy(&Policy { direction, selector, priority: 1000, action, reqid, sa }).unwrap();
            }
        }
        let mut gateway = Gateway {
            sadb,
            reader,
            runtime,
            workers: vec![],
            ends: vec![],
            publishers: vec![],
            inbound,
            outbound,
            tunnel: t,
            now_ms: 0,
        };
        gateway.start(me, pool);
        gateway
    }

    /// Workers over the regions as they are: at first, and after a restart.
    pub fn start(&mut self, me: u8, pool: &Arc<FramePool>) {
        let t = self.tunnel;
        self.workers.clear();
        self.ends.clear();
        for (w, handoff) in (0..t.workers).zip(handoff::between(t.workers as usize).unwrap()) {
            let (lan, lan_end) = MemoryPort::pair("lan", 512);
            let (wan, wan_end) = MemoryPort::pair("wan", 512);
            let ports: Vec<Box<dyn Port>> = vec![Box::new(lan), Box::new(wan)];
            let (hops, publisher) = NextHops::new(fib(&t, me));
            let ends = (self.reader.clone(), self.runtime.clone());
            self.workers.push(Worker::new(
                (w, t.workers),
                ends,
                ports,
                handoff,
                hops,
                pool.cache(),
                Aead::best(),
            ));
            if let Some(worker) = self.workers.last_mut().filter(|_| t.lends) {
                worker.lend_always();
            }
            self.ends.push([lan_end, wan_end]);
            self.publishers.push(publisher);
        }
    }

    /// Turns of all workers, until none finds anything.
    pub fn turn(&mut self) {
        self.now_ms += 1;
        let now_ms = self.now_ms;
        while self.workers.iter_mut().fold(false, |busy, w| w.turn(now_ms) | busy) {}
    }

    /// Sends a frame in at a port of worker 0, lets the workers turn, and returns what came out where.
    pub fn pass(&mut self, port: usize, frame: Frame) -> Vec<(usize, Frame)> {
        self.ends[0][port].send(frame).unwrap();
        self.turn();
        self.collect()
    }

    /// What has come out of the ports.
    pub fn collect(&mut self) -> Vec<(usize, Frame)> {
        let mut out = vec![];
        for ends in &mut self.ends {
            for (port, end) in ends.iter_mut().enumerate() {
                while let Some(frame) = end.receive() {
                    out.push((port, frame));
                }
            }
        }
        out
    }

    /// Drops counted so far, by reason.
    pub fn drops(&self) -> [u64; DROP_COUNTERS] {
        let mut total = [0; DROP_COUNTERS];
        for w in 0..self.workers.len() {
            let record = self.sadb.runtime().worker(w).unwrap();
            total.iter_mut().zip(record.drops).for_each(|(t, n)| *t += n);
        }
        total
    }

    /// The reason that was counted since `before`, if it was one and counted once.
    pub fn dropped_since(&self, before: &[u64; DROP_COUNTERS]) -> Option<DropReason> {
        let now = self.drops();
        let mut moved = DropReason::ALL.iter().filter(|r| now[**r as usize] != before[**r as usize]);
        let reason = *moved.next()?;
        let more: Vec<_> = moved.map(|r| (*r, now[*r as usize] - before[*r as usize])).collect();
        assert!(
            more.is_empty() && now[reason as usize] == before[reason as usize] + 1,
            "{reason:?} {} and {more:?}",
            now[reason as usize] - before[reason as usize]
        );
        Some(reason)
    }

    /// The end of all workers; what is in the ports goes back too.
    pub fn stop(&mut self, cache: &mut FrameCache) {
        let stop = std::sync::atomic::AtomicBool::new(true);
        for worker in &mut self.workers {
            worker.run(&stop);
        }
        for (_, frame) in self.collect() {
            cache.give(frame);
        }
        self.workers.clear();
        for mut end in self.ends.drain(..).flatten() {
            end.close(cache);
        }
    }
}

/// A frame of these bytes.
pub fn frame(cache: &mut FrameCache, bytes: &[u8]) -> Frame {
    let mut frame = cache.take().expect("the test has memory enough");
    assert!(frame.scatter(bytes, cache));
    frame
}

/// A UDP packet in its Ethernet frame, with `payload` octets.
pub fn udp(src: IpAddr, dst: IpAddr, payload: usize, ttl: u8) -> Vec<u8> {
    let mut udp = vec![0x12, 0x34, 0, 53];
    udp.extend(((payload + 8) as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend((0..payload).map(|i| i as u8));
    let mut frame = vec![2; 12];
    frame.extend(ethernet_ip(src, dst, 17, ttl, &udp));
    frame
}

/// EtherType and IP packet.
pub fn ethernet_ip(src: IpAddr, dst: IpAddr, protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    use portcullis_datapath::wire;
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let mut h = vec![0x45, 0];
            h.extend(((20 + payload.len()) as u16).to_be_bytes());
            h.extend([0, 1, 0, 0, ttl, protocol, 0, 0]);
            h.extend(s.octets());
            h.extend(d.octets());
            let checksum = !wire::fold(wire::sum(&h));
            h[10..12].copy_from_slice(&checksum.to_be_bytes());
            [&[8, 0], &h[..], payload].concat()
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let mut h = vec![0x60, 0, 0, 0];
            h.extend((payload.len() as u16).to_be_bytes());
            h.extend([protocol, ttl]);
            h.extend(s.octets());
            h.extend(d.octets());
            [&[0x86, 0xdd], &h[..], payload].concat()
        }
        _ => panic!("families differ"),
    }
}

/// A deterministic stream of numbers (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
}
