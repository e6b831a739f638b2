//! A worker: one thread on one core, its ports, its SAs, and the loop that packets go through.

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    classify,
    crypto::Aead,
    drop::DropReason,
    frame::Frame,
    general::{Env, General, To},
    handoff::Handoff,
    idle, inbound,
    jumbo::Jumbo,
    loan::Lending,
    meter::{Hop, Meter},
    nexthop::{NextHops, Routed, Via},
    outbound,
    outlets::{Drops, Outlets, Was},
    policy::FlowCache,
    pool::FrameCache,
    port::Port,
    sa::SaTable,
    wire::UdpPorts,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{PortCounters, Prefix, Reader, Runtime, Traffic, WorkerRuntime};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

/// Turns without a frame before a worker sleeps.
const IDLE_TURNS: u32 = 256;
/// The longest sleep: epochs, held frames and the sweep want a look now and then.
const SLEEP_MS: i32 = 50;
/// While a frame waits for its neighbour.
const SLEEP_HELD_MS: i32 = 2;

/// Loans of others that a worker does in a turn, at most.
const HELPED_PER_TURN: usize = 4;

/// Own loans that nobody has taken, at most, before their owner does one.
const MOST_WAITING: usize = 3;

/// SAs of which others are told what is new, at most, in a turn.
const TOLD_PER_TURN: usize = 4;

/// How often the kernel is asked what it counts of the ports.
const PORTS_MS: u64 = 1000;

/// The hops that need SAs and policies, and what they need.
pub struct Hops {
    who: (u32, u32),
    reader: Reader,
    runtime: Runtime,
    pub(crate) sas: SaTable,
    flows: FlowCache,
}

/// A worker and all that it alone touches.
pub struct Worker<M = ()> {
    meter: M,
    hops: Hops,
    mine: WorkerRuntime,
    ports: Vec<Box<dyn Port>>,
    /// The port that frames are next taken from first.
    first_port: usize,
    handoff: Handoff,
    next_hops: NextHops,
    cache: FrameCache,
    lending: Lending,
    /// Packets and octets that came in this turn.
    received: (usize, usize),
    /// Whether there are jumbos in the batch.
    has_jumbos: bool,
    batch: Box<Batch>,
    /// What was lent and is back.
    back: Box<Batch>,
    to_send: Vec<ArrayVec<Frame, BATCH>>,
    jumbo: Jumbo,
    general: General,
    drops: Drops,
    traffic: Traffic,
    /// When the kernel's counters of the ports are next asked for.
    ports_due_ms: u64,
    /// When the clock of its turns began, by the machine's boot clock: with the machine, where nobody says.
    start_ms: u64,
}

impl Worker {
    /// Worker `me` of `workers`, with its half of each port.
    pub fn new(
        who: (u32, u32),
        ends: (Reader, Runtime),
        ports: Vec<Box<dyn Port>>,
        handoff: Handoff,
        next_hops: NextHops,
        cache: FrameCache,
        aead: Aead,
    ) -> Worker {
        Worker::metered(who, ends, ports, handoff, next_hops, cache, aead, ())
    }
}

impl<M: Meter> Worker<M> {
    /// The same, and what it does is metered.
    #[allow(clippy::too_many_arguments, reason = "all that is a worker's own")]
    pub fn metered(
        who: (u32, u32),
        (reader, runtime): (Reader, Runtime),
        ports: Vec<Box<dyn Port>>,
        handoff: Handoff,
        next_hops: NextHops,
        cache: FrameCache,
        aead: Aead,
        meter: M,
    ) -> Worker<M> {
        let sizes = reader.sizes();
        let hops = Hops {
            who,
            sas: SaTable::new(who, sizes.max_sas, aead),
            flows: FlowCache::new(sizes.max_policies),
            reader,
            runtime: runtime.clone(),
        };
        Worker {
            meter,
            lending: Lending::new(&handoff, sizes.max_sas, aead),
            hops,
            mine: runtime.worker(who.0 as usize),
            to_send: ports.iter().map(|_| ArrayVec::new()).collect(),
            ports,
            first_port: 0,
            handoff,
            next_hops,
            cache,
            received: (0, 0),
            has_jumbos: false,
            batch: Box::default(),
            back: Box::default(),
            jumbo: Jumbo::new(),
            general: General::new(who, sizes.max_policies),
            drops: Drops::default(),
            traffic: Traffic::default(),
            ports_due_ms: 0,
            start_ms: 0,
        }
    }

    /// Takes ESP in UDP at these ports, and not at 4500 alone.
    pub fn set_udp_ports(&mut self, ports: UdpPorts) {
        self.hops.sas.set_udp_ports(ports);
    }

    /// Identifications of what is cut begin here: with a number that nobody can guess.
    pub fn identify_from(&mut self, first: u32) {
        self.general.identify_from(first);
    }

    /// From now on, hosts in these networks are told of packets that policies forbid (RFC 4301 §5.1.1).
    pub fn tell_prohibited(&mut self, hosts: &[Prefix]) {
        self.general.tell_prohibited(hosts);
    }

    /// Lends from now on, whatever it gives: for tests.
    #[doc(hidden)]
    pub fn lend_always(&mut self) {
        self.lending.force();
    }

    /// What meters it.
    pub fn meter(&mut self) -> &mut M {
        &mut self.meter
    }

    /// Why its keys can be swapped out.
    pub fn keys_not_locked(&self) -> Option<&io::Error> {
        self.hops.sas.keys_not_locked().or(self.lending.keys_not_locked())
    }

    /// Turns until told to stop, and gives all frames back.
    pub fn run(&mut self, stop: &AtomicBool) {
        let start = Instant::now();
        self.start_ms = idle::boot_ms();
        let (mut idle_turns, mut now) = (0, start.elapsed());
        // Relaxed: nothing else is read on the strength of the flag.
        while !stop.load(Ordering::Relaxed) {
            let (begun, now_ms) = (now, now.as_millis() as u64);
            let is_busy = self.turn(now_ms);
            idle_turns = if is_busy { 0 } else { idle_turns + 1 };
            if idle_turns > IDLE_TURNS && !self.hops.tell(TOLD_PER_TURN) {
                self.sweep();
                self.sleep(stop, now_ms);
            } else if idle_turns > 0 {
                // Where the core is not its own alone, who else is to run need not wait for it to be taken away: the
                // kernel's own thread for packets, which may be what this worker waits for.
                thread::yield_now();
            }
            now = start.elapsed();
            if is_busy {
                self.mine.count_busy(now - begun);
            }
        }
        self.close();
    }

    /// One turn: a batch from the ports and the other workers, all the way through. False if there was none.
    pub fn turn(&mut self, now_ms: u64) -> bool {
        self.mine.quiesce();
        self.hops.turn();
        let was_out = self.take_back(now_ms);
        self.received = (0, 0);
        if self.lending.has_room() {
            self.receive();
        }
        self.meter.mark(Hop::Rx);
        // What goes through by itself must not overtake what is lent.
        if !(self.lending.is_out() && self.has_jumbos) {
            self.pass(now_ms);
        }
        let worked = self.work();
        if now_ms >= self.ports_due_ms {
            self.ports_due_ms = now_ms + PORTS_MS;
            self.tell_ports();
            self.hops.sas.age(now_ms);
            let now_secs = self.boot_secs(now_ms);
            let Hops { sas, reader, runtime, .. } = &mut self.hops;
            sas.look_at_lives((reader, runtime, &self.mine), now_secs);
            self.hops.sas.seek(&self.hops.reader, &self.hops.runtime);
            self.sweep();
        }
        self.hops.tell(TOLD_PER_TURN);
        if self.hops.sas.has_moves() {
            self.hops.sas.tell_moves(&self.mine);
        }
        let busy = self.settle() | worked | was_out | self.lending.is_out();
        self.meter.mark(Hop::Settle);
        busy
    }

    /// The batch goes through, or as far as to be lent.
    fn pass(&mut self, now_ms: u64) {
        let (packets, octets) = self.received;
        let has_jumbos = std::mem::take(&mut self.has_jumbos);
        self.lending.observe(if has_jumbos { 1 } else { packets }, octets, now_ms);
        if has_jumbos {
            self.pass_jumbos();
        }
        self.meter.mark(Hop::Jumbo);
        if !has_jumbos && self.lending.is_on() && !self.batch.frames.is_empty() {
            self.hops.prepare(&mut self.batch, &mut self.meter);
            self.lending.lend(&mut self.batch, &self.hops.sas);
            self.handoff.call();
            return self.handoff.ring();
        }
        self.hops.run(&mut self.batch, &mut self.meter);
        self.route(now_ms);
        self.meter.mark(Hop::NextHop);
        self.transmit();
        self.meter.mark(Hop::Tx);
    }

    /// Jumbos go through by themselves, each after what came before it: numbers and windows are in that order.
    #[cold]
    fn pass_jumbos(&mut self) {
        let mut waits = false;
        for frame in std::mem::take(&mut self.batch.frames) {
            let is_jumbo = Jumbo::is_one(&frame);
            if is_jumbo && waits {
                self.hops.run(&mut self.batch, &mut self.meter);
            }
            waits = !is_jumbo;
            let Batch { frames, metas } = &mut *self.batch;
            let at = frames.len();
            frames.push(frame);
            if is_jumbo {
                self.jumbo.run(&mut frames[at], &mut metas[at], &mut self.hops, &mut self.cache);
            }
        }
    }

    /// What was lent and is back goes the rest of its way, before what came in later. False if there was none.
    fn take_back(&mut self, now_ms: u64) -> bool {
        let (mut verified, mut found) = (inbound::Verified::new(), false);
        while self.lending.is_out()
            && self.lending.take_back(&mut self.back, &mut verified, (&self.hops.sas, &self.hops.reader))
        {
            self.hops.finish(&mut self.back, &verified, &mut self.meter);
            verified.clear();
            found = true;
            std::mem::swap(&mut self.batch, &mut self.back);
            self.route(now_ms);
            self.transmit();
            std::mem::swap(&mut self.batch, &mut self.back);
        }
        found
    }

    /// Loans, of its own or, with time to spare, of others. False if there was none.
    fn work(&mut self) -> bool {
        let (reader, idle) = (&self.hops.reader, self.received.0 == 0);
        if self.lending.is_on() {
            // The owner has the rest of the way to do as well: others come first.
            let must = idle || !self.lending.has_room() || self.lending.waiting() > MOST_WAITING;
            if must && self.lending.work(reader) {
                return true;
            }
        }
        (idle || !self.lending.is_on())
            && (0..HELPED_PER_TURN).take_while(|_| self.lending.help(reader)).count() > 0
    }

    fn receive(&mut self) {
        let Batch { frames, .. } = &mut *self.batch;
        let before = frames.len();
        // Whatever others hand on, ports have half of the batch, and another is the first in each turn.
        let most = BATCH.min(before + BATCH / 2);
        while frames.len() < most
            && let Some(frame) = self.handoff.receive()
        {
            frames.push(frame);
        }
        let handed = frames.len();
        let (later, first) = self.ports.split_at_mut(self.first_port);
        for port in first.iter_mut().chain(later) {
            port.rx(frames, &mut self.cache);
        }
        self.first_port = if self.first_port + 1 < self.ports.len() { self.first_port + 1 } else { 0 };
        let look = |frames: &[Frame]| {
            let see = |(octets, jumbos): (usize, bool), frame: &Frame| {
                (octets + frame.total_len(), jumbos | Jumbo::is_one(frame))
            };
            frames.iter().fold((0, false), see)
        };
        let (handed_octets, handed_jumbos) = look(&frames[before..handed]);
        let (octets, jumbos) = look(&frames[handed..]);
        self.has_jumbos |= handed_jumbos | jumbos;
        self.traffic.handed += (handed - before) as u64;
        self.traffic.rx_packets += (frames.len() - handed) as u64;
        self.traffic.rx_bytes += octets as u64;
        self.received = (frames.len() - before, octets + handed_octets);
        self.batch.receive(before);
        self.batch.receive_nested(before..handed);
    }

    /// What is routed goes to its port's list, what was held before too; what belongs to others goes to them.
    fn route(&mut self, now_ms: u64) {
        let Worker { next_hops, hops, handoff, to_send, general, drops, cache, traffic, .. } = self;
        let mut outlets = Outlets { to_send, general, drops, cache, traffic, now_ms };
        next_hops.turn(now_ms, |held| outlets.take_held(held));
        for (frame, meta) in self.batch.frames.drain(..).zip(&mut self.batch.metas) {
            if meta.stage == Stage::Sealed {
                let sa = hops.sas.get_mut(meta.sa);
                let routed = match next_hops.last(sa.via) {
                    Some(neighbour) => neighbour.send(frame),
                    None => next_hops.look_up(frame, &mut sa.via, sa.outer.dst()),
                };
                outlets.take(routed, Was::Sealed(meta.sa));
                continue;
            }
            match meta.stage {
                Stage::Forward => {
                    let before = meta.via;
                    let was = if meta.proof.is_some() { Was::Opened } else { Was::Clear };
                    let routed = next_hops.route(frame, &mut meta.via, || meta.ip.dst());
                    outlets.take(routed, was);
                    if meta.via != before {
                        hops.remember(meta);
                    }
                }
                Stage::Handoff(to) => {
                    if let Err(frame) = handoff.send(to as usize, frame) {
                        outlets.drop(frame, DropReason::HandoffFull);
                    }
                }
                Stage::General(why) => outlets.go_generally(frame, why, meta.sa),
                Stage::Unkeyed => outlets.ask(frame, meta.policy, &hops.reader),
                Stage::Drop(reason) => outlets.refuse(frame, reason, meta),
                // No hop leaves a frame at these.
                Stage::Received | Stage::Inbound | Stage::Outbound | Stage::Refused(_) | Stage::Sealed => {
                    outlets.drop(frame, DropReason::Malformed);
                }
            }
        }
        if !self.general.is_idle() || self.general.is_due(now_ms, &self.hops.sas) {
            self.work_generally(now_ms);
        }
        self.handoff.ring();
    }

    /// Takes what the plain path does not take through the general one.
    #[cold]
    fn work_generally(&mut self, now_ms: u64) {
        let now_secs = self.boot_secs(now_ms);
        let Worker { general, hops, mine, next_hops, cache, drops, .. } = self;
        let Hops { sas, flows, reader, runtime, who } = hops;
        let mut env =
            Env { sas, flows, reader, runtime, iked: mine, cache, fib: next_hops.fib(), now_ms, now_secs };
        if general.is_late(now_ms) {
            general.look(&mut env);
        }
        general.work(&mut env, |frame, n, reason, cache| drops.count(frame, n, reason, cache));
        let me = who.0;
        while let Some((frame, to)) = self.general.poll_outgoing() {
            let routed = match to {
                To::Route(dst) => self.next_hops.look_up(frame, &mut Via::NONE.clone(), dst),
                To::Kernel(src) => self.next_hops.deliver(frame, src),
                To::Receive => self.hand(me, frame),
                To::Worker { owner, .. } | To::Onward { owner } => self.hand(owner, frame),
            };
            if let Routed::Send { port, .. } = routed
                && self.to_send.get(port as usize).is_some_and(ArrayVec::is_full)
            {
                self.transmit();
            }
            let Worker { to_send, general, drops, cache, traffic, .. } = self;
            match routed {
                Routed::Drop { frame, reason } => drops.drop(frame, reason, cache),
                routed => {
                    Outlets { to_send, general, drops, cache, traffic, now_ms }.take(routed, Was::Clear)
                }
            }
        }
    }

    fn hand(&mut self, to: u32, frame: Frame) -> Routed {
        match self.handoff.send(to as usize, frame) {
            Ok(()) => Routed::Held,
            Err(frame) => Routed::Drop { frame, reason: DropReason::HandoffFull },
        }
    }

    fn transmit(&mut self) {
        for (port, list) in self.ports.iter_mut().zip(&mut self.to_send) {
            let frames = list.len();
            if frames > 0 {
                port.tx(list);
                self.traffic.tx_packets += (frames - list.len()) as u64;
                for frame in list.drain(..) {
                    self.traffic.tx_bytes -= frame.total_len() as u64;
                    self.drops.drop(frame, DropReason::TxFull, &mut self.cache);
                }
            }
            port.maintain(&mut self.cache);
        }
    }

    /// Puts this turn's counts where others see them. False if there was nothing.
    fn settle(&mut self) -> bool {
        let traffic = std::mem::take(&mut self.traffic);
        let moved = traffic != Traffic::default();
        if moved {
            self.mine.count_traffic(&traffic);
        }
        self.drops.settle(&self.mine) || moved
    }

    /// Lets go of SAs that are gone.
    fn sweep(&mut self) {
        self.hops.sas.sweep(&self.hops.reader, &self.hops.runtime);
        self.lending.sweep(&self.hops.reader);
    }

    /// Now, by the machine's boot clock.
    fn boot_secs(&self, now_ms: u64) -> u32 {
        ((self.start_ms + now_ms) / 1000) as u32
    }

    fn tell_ports(&self) {
        let mut total = PortCounters::default();
        for stats in self.ports.iter().map(|p| p.stats()) {
            total.rx_ring_full += stats.rx_ring_full;
            total.rx_no_chunk += stats.rx_no_chunk;
            total.rx_dropped += stats.rx_dropped;
            total.invalid += stats.invalid;
        }
        self.mine.set_port_counters(&total);
    }

    fn sleep(&mut self, stop: &AtomicBool, now_ms: u64) {
        let mut fds = ArrayVec::<libc::pollfd, 64>::new();
        fds.push(idle::readable(self.handoff.bell().fd()));
        for port in &self.ports {
            port.poll_fds(&mut |fd| {
                // More sockets than this wake up by the time-out alone.
                let _ = fds.try_push(idle::readable(fd));
            });
        }
        self.mine.offline();
        self.lending.sleep();
        self.handoff.bell().announce();
        if self.handoff.is_empty() && !stop.load(Ordering::Relaxed) {
            let most = if self.next_hops.held() > 0 { SLEEP_HELD_MS } else { SLEEP_MS };
            // What leaves by the clock is not to wait for a packet.
            let due = self.general.next_ms(&self.hops.sas).saturating_sub(now_ms);
            idle::sleep_on(&mut fds, most.min(due.clamp(1, SLEEP_MS as u64) as i32));
        }
        self.handoff.bell().awake();
    }

    /// The end: every frame goes back.
    fn close(&mut self) {
        let (drops, cache) = (&mut self.drops, &mut self.cache);
        self.next_hops.drain(|routed| {
            if let Routed::Drop { frame, reason } = routed {
                drops.drop(frame, reason, cache);
            }
        });
        while let Some(frame) = self.handoff.receive() {
            drops.drop(frame, DropReason::HandoffFull, cache);
        }
        self.lending.close(|frame| drops.drop(frame, DropReason::HandoffFull, cache));
        self.general.close(|frame| drops.drop(frame, DropReason::HandoffFull, cache));
        for frame in self.batch.frames.drain(..) {
            drops.drop(frame, DropReason::HandoffFull, cache);
        }
        for port in &mut self.ports {
            port.close(cache);
        }
        self.settle();
        // Whose slot has another SA since the worker slept is not told of.
        self.mine.quiesce();
        self.hops.turn();
        self.hops.sas.tell_all(&self.hops.reader, &self.hops.runtime);
        self.mine.offline();
    }
}

impl Hops {
    /// Once per turn, after the worker's epoch was announced.
    fn turn(&mut self) {
        self.flows.turn(&self.reader);
        self.sas.turn(&self.reader);
    }

    /// Puts what is new of some SAs where others see it. True if there are more.
    fn tell(&mut self, sas: usize) -> bool {
        self.sas.tell(sas, &self.reader, &self.runtime)
    }

    /// Classify, inbound, outbound.
    fn run(&mut self, batch: &mut Batch, meter: &mut impl Meter) {
        if batch.frames.is_empty() {
            return;
        }
        let Hops { who, reader, runtime, sas, flows } = self;
        let found = classify::run(batch, *who, flows, sas);
        meter.mark(Hop::Classify);
        if found.inbound {
            inbound::run(batch, (sas, flows), (reader, runtime), meter);
        }
        if found.outbound {
            outbound::run(batch, (sas, flows), (reader, runtime), meter);
        }
    }

    /// The same, as far as to be sealed or opened elsewhere.
    pub(crate) fn prepare(&mut self, batch: &mut Batch, meter: &mut impl Meter) {
        let Hops { who, reader, runtime, sas, flows } = self;
        classify::run(batch, *who, flows, sas);
        meter.mark(Hop::Classify);
        inbound::prepare(batch, sas, (reader, runtime), meter);
        outbound::prepare(batch, (sas, flows), (reader, runtime), None, meter);
    }

    /// The rest of the way of that.
    pub(crate) fn finish(&mut self, batch: &mut Batch, verified: &inbound::Verified, meter: &mut impl Meter) {
        let Hops { reader, runtime, sas, flows, .. } = self;
        // One for each packet that was opened.
        if !verified.is_empty() {
            inbound::finish(batch, (sas, flows), (reader, runtime), verified, meter);
        }
        if verified.len() < batch.frames.len() {
            outbound::finish(batch, sas, (reader, runtime));
        }
        meter.mark(Hop::Settle);
    }

    /// Where the packets of a flow go.
    #[cold]
    fn remember(&mut self, Meta { ip, via, homes, proof, .. }: &Meta) {
        let key = if proof.is_some() { ip.key().inner() } else { ip.key() };
        self.flows.keep(homes[0], key, |decision| decision.went(*via));
    }
}

/// Runs a worker on its own thread, pinned to a core.
///
/// # Errors
/// What the system says about the thread, or about its confinement.
pub fn spawn(
    mut worker: Worker,
    core: usize,
    stop: Arc<AtomicBool>,
    confine: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let (confined, outcome) = std::sync::mpsc::sync_channel(1);
    let thread =
        std::thread::Builder::new().name(format!("worker-{}", worker.hops.who.0)).spawn(move || {
            let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
            let result = if pinned {
                confine()
            } else {
                Err(std::io::Error::other(format!("core {core} is not to be had")))
            };
            let go = result.is_ok();
            // Whoever started us waits for this, or is gone.
            let _ = confined.send(result);
            if go {
                worker.run(&stop);
            }
        })?;
    outcome.recv().unwrap_or_else(|_| Err(std::io::Error::other("the worker ended at once")))?;
    Ok(thread)
}
