//! A gateway in memory: a real SADB, real forwarding tables, real workers, and ports whose other ends we hold.

use crate::clocks::{Clocks, HOPS};
use anyhow::{Context, Result};
use portcullis_datapath::{
    crypto::Aead,
    drop::DropReason,
    fib::{Fib, Hop, Mac, PortLink, Prefix as Destination, Route, RoutesBuilder},
    handoff,
    nexthop::{NextHops, Publisher},
    pool::FramePool,
    port::{Port, memory::MemoryPort},
    wire::{FlowKey, Ip, NAT_T_PORT},
    worker::Worker,
};
use portcullis_ebpf::worker_of_spi;
use portcullis_sadb::{
    Action, Algorithm, Direction, Handling, Key, MAX_POLICIES, Mode, Name, Policy, PolicyIndex, Prefix,
    Protocol, Reader, Sa, Sadb, Selector, Sizes, SlotIndex, Spi, UdpEncap,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

/// The largest packet that the ports take.
pub const MTU: u16 = 9600;
/// Policies, at most: there is no room in the SPD for as many as for SAs.
pub const MAX_FLOWS: u32 = 100_000;
const _: () = assert!(MAX_FLOWS < MAX_POLICIES);

const LAN: u8 = 0;
const WAN: u8 = 1;
const REQID: u32 = 1;

/// The source of all clear packets.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

/// What a pair of gateways is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// SAs from one to the other.
    pub sas: u32,
    /// Workers of each.
    pub workers: u32,
    /// Whether each hop is metered.
    pub metered: bool,
    /// What packets are sealed with.
    pub algorithm: Algorithm,
    /// What does that.
    pub aead: Aead,
    /// Whether ESP is in UDP (RFC 3948).
    pub nat_t: bool,
}

impl Setup {
    /// Flows, each with policies of its own.
    pub fn flows(&self) -> u32 {
        self.sas.min(MAX_FLOWS)
    }

    /// SA `i`.
    pub fn sa(&self, i: u32, direction: Direction) -> Sa {
        let udp = UdpEncap {
            src_port: NAT_T_PORT,
            dst_port: NAT_T_PORT,
            follow_peer: false,
            keepalive_secs: 0,
            zero_checksum: false,
        };
        Sa { udp: self.nat_t.then_some(udp), ..sa(i, direction, self.algorithm) }
    }
}

/// What takes a worker's packets through.
pub enum Engine {
    /// As it is in production.
    Plain(Box<Worker>),
    /// With the clocks of each hop.
    Metered(Box<Worker<Clocks>>),
}

impl Engine {
    /// One turn. False if there was nothing.
    pub fn turn(&mut self, now_ms: u64) -> bool {
        match self {
            Engine::Plain(worker) => worker.turn(now_ms),
            Engine::Metered(worker) => {
                worker.meter().start();
                worker.turn(now_ms)
            }
        }
    }

    /// Clocks of each hop since they were last asked for.
    pub fn take_clocks(&mut self) -> Option<[u64; HOPS]> {
        match self {
            Engine::Plain(_) => None,
            Engine::Metered(worker) => Some(worker.meter().take()),
        }
    }
}

/// One worker and the other ends of its ports.
pub struct Lane {
    /// What does the work.
    pub engine: Engine,
    /// Clear packets.
    pub lan: MemoryPort,
    /// ESP.
    pub wan: MemoryPort,
    /// How long the worker took turns: what it is told of the time.
    pub driven: Duration,
    _publisher: Publisher,
}

/// One gateway, without its workers.
pub struct Gateway {
    sadb: Sadb,
    reader: Reader,
    slots: Vec<SlotIndex>,
    policies: Vec<PolicyIndex>,
    direction: Direction,
}

/// Where the packets of a flow go.
pub fn destination(flow: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(11, 0, 0, 0).to_bits() + flow)
}

/// A flow, as a worker knows it.
pub fn flow_key(flow: u32) -> FlowKey {
    let (src, dst) = (IpAddr::from(SOURCE).into(), IpAddr::from(destination(flow)).into());
    Ip::NONE.between(src, dst).key()
}

impl Gateway {
    /// The gateway that sends with all SAs, or the one that receives with them, and its workers. Their ports
    /// have room for `room` frames each way.
    ///
    /// # Errors
    /// What there is no memory for, or the SADB refuses.
    pub fn new(
        setup: &Setup,
        direction: Direction,
        pool: &Arc<FramePool>,
        room: usize,
    ) -> Result<(Gateway, Vec<Lane>)> {
        let sizes = Sizes { max_sas: setup.sas, max_policies: setup.flows() + 1 };
        let (mut sadb, reader, runtime) = Sadb::heap(&sizes)?;
        let slots = (0..setup.sas).map(|i| sadb.publish(&setup.sa(i, direction)));
        let slots = slots.collect::<Result<Vec<_>, _>>()?;
        let mut policies = vec![];
        for flow in 0..setup.flows() {
            let sa = (direction == Direction::Outbound).then(|| slots[flow as usize]);
            policies.push(sadb.add_policy(&policy(direction, destination(flow), sa))?);
        }
        // What comes the other way, so that both directions are looked up in something.
        let back = match direction {
            Direction::Outbound => Direction::Inbound,
            Direction::Inbound => Direction::Outbound,
        };
        let selector = Selector::between(net(destination(0), 8), net(SOURCE, 8));
        sadb.add_policy(&Policy { selector, ..policy(back, SOURCE, None) })?;

        let fib = fib(if direction == Direction::Outbound { WAN } else { LAN });
        let mut lanes = vec![];
        for (me, handoff) in (0..setup.workers).zip(handoff::between(setup.workers as usize)?) {
            let ((lan, lan_end), (wan, wan_end)) =
                (MemoryPort::pair("lan", room), MemoryPort::pair("wan", room));
            let ports: Vec<Box<dyn Port>> = vec![Box::new(lan), Box::new(wan)];
            let (hops, publisher) = NextHops::new(fib.clone());
            let ends = (reader.clone(), runtime.clone());
            let (who, cache, aead) = ((me, setup.workers), pool.cache(), setup.aead);
            let engine = if setup.metered {
                let clocks = Clocks::default();
                let worker = Worker::metered(who, ends, ports, handoff, hops, cache, aead, clocks);
                Engine::Metered(Box::new(worker))
            } else {
                Engine::Plain(Box::new(Worker::new(who, ends, ports, handoff, hops, cache, aead)))
            };
            lanes.push(Lane {
                engine,
                lan: lan_end,
                wan: wan_end,
                driven: Duration::ZERO,
                _publisher: publisher,
            });
        }
        Ok((Gateway { sadb, reader, slots, policies, direction }, lanes))
    }

    /// Makes a flow use an SA, where there are more SAs than flows. Only who sends has to know.
    ///
    /// # Errors
    /// None, for flows and SAs of the set-up.
    pub fn point(&mut self, flow: u32, sa: u32) -> Result<()> {
        let sends = self.direction == Direction::Outbound;
        let (policy, slot) = (self.policies[flow as usize], self.slots[sa as usize]);
        if sends {
            self.sadb.set_policy_sa(policy, Some(slot)).context("pointing a flow to an SA")?;
        }
        Ok(())
    }

    /// Which of the workers owns each SA.
    pub fn owners(&self, workers: u32) -> Vec<u8> {
        let spis = self.slots.iter().map_while(|slot| self.reader.spi(*slot));
        spis.map(|spi| worker_of_spi(spi.0, workers) as u8).collect()
    }

    /// Packets that the workers dropped so far.
    pub fn drops(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.dropped(*reason)).sum()
    }

    /// Those of them for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let records = (0..).map_while(|w| self.sadb.runtime().worker(w));
        records.map(|r| r.drops[reason as usize]).sum()
    }
}

fn net(addr: Ipv4Addr, len: u8) -> Prefix {
    Prefix::new(addr.into(), len).expect("a length for IPv4")
}

/// The policy of all packets to `dst`.
pub fn policy(direction: Direction, dst: Ipv4Addr, sa: Option<SlotIndex>) -> Policy {
    let selector = Selector::between(net(SOURCE, 8), net(dst, 32));
    Policy { direction, selector, priority: 1000, action: Action::Protect, reqid: REQID, sa }
}

/// SA `i`: each has a peer of its own, as in a gateway of many.
pub fn sa(i: u32, direction: Direction, algorithm: Algorithm) -> Sa {
    let octet = |n: usize| (i.wrapping_mul(0x9e37_79b9) >> (n % 4 * 8)) as u8 ^ n as u8;
    let key: Vec<u8> = (0..algorithm.key_len() + algorithm.salt_len()).map(octet).collect();
    Sa {
        spi: Spi(0x1000_0000 + i),
        direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        algorithm,
        src: Ipv4Addr::new(192, 0, 2, 1).into(),
        dst: Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + i).into(),
        udp: None,
        esn: true,
        replay_window: 1024,
        reqid: REQID,
        worker: None,
        around: None,
        mtu: 0,
        handling: Handling::default(),
        name: Name::new("path").expect("a short name"),
        key: Key::new(&key).expect("as long as the algorithm wants"),
    }
}

/// A default route by one router, which is known, out of this port.
fn fib(port: u8) -> Arc<Fib> {
    let router = Ipv4Addr::new(192, 0, 2, 254).into();
    let hop = Hop { port: Some(port), gateway: Some(router), mtu: 0, weight: 1, kernel: None };
    let mut routes = RoutesBuilder::default();
    routes.route(Destination { addr: Ipv4Addr::UNSPECIFIED.into(), len: 0 }, &Route::Unicast(vec![hop]));
    let link = |n: u8| PortLink {
        interface: format!("p{n}"),
        ifindex: 10 + n as u32,
        mac: Mac([2, 0, 0, 0, 1, n]),
        mtu: MTU,
        up: true,
        kernel: None,
    };
    let neighbours = [((port, router), Mac([2, 9, 9, 9, 9, 9]))].into_iter().collect();
    Arc::new(Fib::new(1, Arc::new(vec![link(0), link(1)]), Arc::new(routes.build()), Arc::new(neighbours)))
}
