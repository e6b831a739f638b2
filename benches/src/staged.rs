//! A worker's hops one by one over a whole batch, with the clocks that each takes.
//!
//! The order and the functions are those of `worker.rs`, `inbound.rs` and `outbound.rs` of the datapath; what
//! differs is that a hop there may do two things to a packet before it goes to the next one (policy and SA, say),
//! and here it is one. So the sum of these hops is not quite the clocks of a worker, and the results show both.

use crate::clock;
use arrayvec::ArrayVec;
use portcullis_datapath::{
    batch::{BATCH, Batch, Stage},
    classify::{Class, classify},
    crypto::{self, Aead, HEAD, IcvVerified, Job},
    drop::DropReason,
    esp,
    frame::Frame,
    nexthop::{NextHops, Routed},
    policy::{Clear, FlowCache},
    pool::{FrameCache, RX_OFFSET},
    port::Port,
    sa::SaTable,
    wire::{self, Ip},
};
use portcullis_sadb::{Reader, Runtime, SlotIndex, Spi};

/// A part of a packet's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // their names say it
pub enum Hop {
    Rx,
    Gather,
    Classify,
    Policy,
    Sa,
    Sequence,
    Headers,
    Crypto,
    NextHop,
    Tx,
    Settle,
}

/// How many hops there are.
pub const HOPS: usize = 11;

impl Hop {
    /// All of them, in about the order of the packet's way.
    pub const ALL: [Hop; HOPS] = [
        Hop::Rx,
        Hop::Gather,
        Hop::Classify,
        Hop::Policy,
        Hop::Sa,
        Hop::Sequence,
        Hop::Headers,
        Hop::Crypto,
        Hop::NextHop,
        Hop::Tx,
        Hop::Settle,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Hop::Rx => "rx",
            Hop::Gather => "gather, scatter",
            Hop::Classify => "classify",
            Hop::Policy => "policy",
            Hop::Sa => "SA",
            Hop::Sequence => "sequence, replay",
            Hop::Headers => "encap, decap",
            Hop::Crypto => "crypto",
            Hop::NextHop => "next hop",
            Hop::Tx => "tx",
            Hop::Settle => "settle",
        }
    }
}

/// Whose clocks are counted now.
struct Marks {
    last: u64,
    overhead: u64,
    clocks: [u64; HOPS],
}

impl Marks {
    /// Counts what has passed since the last mark.
    fn mark(&mut self, hop: Hop) {
        let now = clock::now();
        self.clocks[hop as usize] += (now - self.last).saturating_sub(self.overhead);
        self.last = now;
    }
}

/// What the hops need between them.
struct Hops {
    me: u32,
    reader: Reader,
    runtime: Runtime,
    sas: SaTable,
    flows: FlowCache,
    marks: Marks,
}

/// A worker in stages.
pub struct Staged {
    hops: Hops,
    ports: Vec<Box<dyn Port>>,
    next_hops: NextHops,
    cache: FrameCache,
    batch: Batch,
    /// For what is in several chunks, one by one.
    one: Batch,
    buffer: Option<Frame>,
    to_send: Vec<ArrayVec<Frame, BATCH>>,
}

impl Staged {
    /// Worker `me` of `workers`, as [`Worker::new`](portcullis_datapath::worker::Worker::new) makes it.
    pub fn new(
        (me, workers): (u32, u32),
        (reader, runtime): (Reader, Runtime),
        ports: Vec<Box<dyn Port>>,
        next_hops: NextHops,
        cache: FrameCache,
    ) -> Staged {
        let marks = Marks { last: 0, overhead: clock::overhead(), clocks: [0; HOPS] };
        let (sas, flows) = (SaTable::new(reader.sizes().max_sas, Aead::best()), FlowCache::new(workers));
        Staged {
            hops: Hops { me, reader, runtime, sas, flows, marks },
            to_send: ports.iter().map(|_| ArrayVec::new()).collect(),
            ports,
            next_hops,
            cache,
            batch: Batch::default(),
            one: Batch::default(),
            buffer: Some(Frame::boxed(16 * 1024)),
        }
    }

    /// Clocks of each hop since this was last called.
    pub fn take_clocks(&mut self) -> [u64; HOPS] {
        std::mem::take(&mut self.hops.marks.clocks)
    }

    /// One turn. False if there was nothing.
    pub fn turn(&mut self, now_ms: u64) -> bool {
        self.hops.marks.last = clock::now();
        for port in &mut self.ports {
            port.rx(&mut self.batch.frames, &mut self.cache);
        }
        self.batch.receive();
        self.hops.flows.turn(&self.hops.reader);
        self.hops.marks.mark(Hop::Rx);
        let busy = !self.batch.frames.is_empty();
        self.jumbo();
        self.hops.run(&mut self.batch);
        self.route(now_ms);
        self.hops.marks.mark(Hop::NextHop);
        for (port, list) in self.ports.iter_mut().zip(&mut self.to_send) {
            if !list.is_empty() {
                port.tx(list);
            }
            list.drain(..).for_each(|frame| self.cache.give(frame));
            port.maintain(&mut self.cache);
        }
        self.hops.marks.mark(Hop::Tx);
        for meta in self.batch.metas.drain(..) {
            self.hops.sas.settle(meta.sa, &self.hops.runtime);
        }
        self.hops.marks.mark(Hop::Settle);
        busy
    }

    fn jumbo(&mut self) {
        for (chain, meta) in self.batch.frames.iter_mut().zip(&mut self.batch.metas) {
            if chain.segments() == 1 && chain.tailroom() >= esp::TRAILER_ROOM {
                continue;
            }
            let Some(mut buffer) = self.buffer.take() else { continue };
            buffer.reset(RX_OFFSET);
            assert!(buffer.extend(chain.total_len()), "the buffer has room for all sizes");
            chain.gather(buffer.bytes_mut());
            self.one.frames.push(buffer);
            self.one.receive();
            self.hops.marks.mark(Hop::Gather);
            self.hops.run(&mut self.one);
            if let (Some(result), Some(buffer)) = (self.one.metas.pop(), self.one.frames.pop()) {
                *meta = result;
                if meta.stage == Stage::Forward && !chain.scatter(buffer.bytes(), &mut self.cache) {
                    meta.stage = Stage::Drop(DropReason::NoFrame);
                }
                self.buffer = Some(buffer);
            }
            self.hops.marks.mark(Hop::Gather);
        }
    }

    fn route(&mut self, now_ms: u64) {
        self.next_hops.turn(now_ms, |_| unreachable!("all neighbours are known: nothing is held"));
        for (frame, meta) in self.batch.frames.drain(..).zip(&self.batch.metas) {
            match (meta.stage, self.next_hops.route(frame, meta.dst)) {
                (Stage::Forward, Routed::Send { port, frame }) => self.to_send[port as usize].push(frame),
                (_, Routed::Send { frame, .. } | Routed::Drop { frame, .. }) => self.cache.give(frame),
                (_, Routed::Held) => {}
            }
        }
    }
}

impl Hops {
    fn run(&mut self, batch: &mut Batch) {
        for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
            if meta.stage != Stage::Received {
                continue;
            }
            meta.class = classify(frame.bytes());
            meta.stage = match meta.class {
                Class::Esp { l3, .. } => {
                    frame.pull(l3 as usize);
                    Stage::Inbound
                }
                Class::Clear { l3 } => {
                    frame.pull(l3 as usize);
                    Stage::Outbound
                }
                _ => Stage::Drop(DropReason::Malformed),
            };
        }
        self.marks.mark(Hop::Classify);
        self.inbound(batch);
        self.outbound(batch);
    }

    fn outbound(&mut self, batch: &mut Batch) {
        if !batch.metas.iter().any(|m| m.stage == Stage::Outbound) {
            return;
        }
        let mut found = ArrayVec::<Option<(Ip, SlotIndex)>, BATCH>::new();
        for (frame, meta) in batch.frames.iter().zip(&mut batch.metas) {
            let ip = (meta.stage == Stage::Outbound).then(|| Ip::parse(frame.bytes()).ok()).flatten();
            let decided = ip.map(|ip| (ip, self.flows.clear(&self.reader, &ip.flow(frame.bytes()))));
            found.push(match decided {
                Some((ip, Clear::Protect { slot, owner })) if owner == self.me => Some((ip, slot)),
                _ => None,
            });
        }
        self.marks.mark(Hop::Policy);
        for (meta, found) in batch.metas.iter_mut().zip(&mut found) {
            let sa = found.and_then(|(_, slot)| self.sas.find(slot, &self.reader, &self.runtime));
            match sa {
                Some(i) => meta.sa = i,
                None => *found = None,
            }
        }
        self.marks.mark(Hop::Sa);
        for (meta, found) in batch.metas.iter_mut().zip(&found) {
            if found.is_some() {
                let seq = self.sas.get_mut(meta.sa).next_seq(&self.runtime);
                meta.seq = seq.expect("numbers for longer than this runs");
            }
        }
        self.marks.mark(Hop::Sequence);
        for ((frame, meta), found) in batch.frames.iter_mut().zip(&mut batch.metas).zip(&found) {
            let sealable = found.is_some_and(|(ip, _)| {
                let sa = self.sas.get_mut(meta.sa);
                wire::decrement_ttl(frame.bytes_mut()).is_ok()
                    && sa.outer.encap(frame, &ip, sa.spi, meta.seq).is_ok()
            });
            if !sealable {
                meta.stage = Stage::Drop(DropReason::NoSa);
            }
        }
        self.marks.mark(Hop::Headers);
        seal(batch, &self.sas);
        self.marks.mark(Hop::Crypto);
        for ((frame, meta), found) in batch.frames.iter_mut().zip(&mut batch.metas).zip(&found) {
            let (Stage::Outbound, Some((ip, _))) = (meta.stage, found) else { continue };
            let sa = self.sas.get_mut(meta.sa);
            sa.outer.sealed(frame);
            sa.counters.packets += 1;
            sa.counters.bytes += ip.len as u64;
            meta.dst = sa.outer.dst();
            meta.stage = Stage::Forward;
        }
        self.marks.mark(Hop::Headers);
    }

    fn inbound(&mut self, batch: &mut Batch) {
        if !batch.metas.iter().any(|m| m.stage == Stage::Inbound) {
            return;
        }
        for meta in &batch.metas {
            if let Class::Esp { spi, .. } = meta.class {
                self.reader.prefetch_spi(Spi(spi));
            }
        }
        for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
            let Class::Esp { spi, len, .. } = meta.class else { continue };
            frame.truncate(len as usize);
            let slot = self.reader.find(Spi(spi));
            let found = slot.and_then(|slot| self.sas.find(slot, &self.reader, &self.runtime));
            let is_for = |i: &u32| Ip::parse(frame.bytes()).is_ok_and(|ip| ip.dst == self.sas.get(*i).local);
            match found.filter(is_for) {
                Some(i) => meta.sa = i,
                None => meta.stage = Stage::Drop(DropReason::UnknownSpi),
            }
        }
        self.marks.mark(Hop::Sa);
        for (frame, meta) in batch.frames.iter().zip(&mut batch.metas) {
            let (Class::Esp { esp, .. }, Stage::Inbound) = (meta.class, meta.stage) else { continue };
            let window = &self.sas.get(meta.sa).window;
            meta.seq = window.infer(wire::be32(frame.bytes(), esp as usize + 4));
            if let Err(reason) = window.check(meta.seq) {
                meta.stage = Stage::Drop(reason);
            }
        }
        self.marks.mark(Hop::Sequence);
        let verified = open(batch, &self.sas);
        self.marks.mark(Hop::Crypto);
        let mut proofs = verified.iter();
        for meta in batch.metas.iter_mut().filter(|m| m.stage == Stage::Inbound) {
            meta.proof = proofs.next().copied().flatten();
            let sa = self.sas.get_mut(meta.sa);
            let top = sa.window.top();
            match meta.proof.map(|proof| sa.window.commit(meta.seq, proof)) {
                Some(Ok(())) if sa.window.top() > top => self.runtime.sa(sa.slot).see(sa.window.top()),
                Some(Ok(())) => {}
                Some(Err(reason)) => meta.stage = Stage::Drop(reason),
                None => meta.stage = Stage::Drop(DropReason::IcvMismatch),
            }
        }
        self.marks.mark(Hop::Sequence);
        let mut inner = ArrayVec::<Option<Ip>, BATCH>::new();
        for (frame, meta) in batch.frames.iter_mut().zip(&batch.metas) {
            inner.push(match (meta.class, meta.proof, meta.stage) {
                (Class::Esp { esp, tos, .. }, Some(proof), Stage::Inbound) => {
                    esp::decap(frame, text_at(esp), tos, proof).ok()
                }
                _ => None,
            });
        }
        self.marks.mark(Hop::Headers);
        for ((frame, meta), ip) in batch.frames.iter().zip(&mut batch.metas).zip(&inner) {
            let reqid = ip.and_then(|ip| self.flows.inner(&self.reader, &ip.flow(frame.bytes())));
            if reqid.is_none_or(|reqid| reqid != self.sas.get(meta.sa).reqid) {
                meta.stage = Stage::Drop(DropReason::SelectorMismatch);
            }
        }
        self.marks.mark(Hop::Policy);
        for ((frame, meta), ip) in batch.frames.iter_mut().zip(&mut batch.metas).zip(&inner) {
            let (Stage::Inbound, Some(ip)) = (meta.stage, ip) else { continue };
            let forwarded = wire::decrement_ttl(frame.bytes_mut());
            let sa = self.sas.get_mut(meta.sa);
            sa.counters.packets += 1;
            sa.counters.bytes += ip.len as u64;
            meta.dst = ip.dst;
            meta.stage = forwarded.map_or_else(Stage::Drop, |()| Stage::Forward);
        }
        self.marks.mark(Hop::Headers);
    }
}

/// Where the encrypted part of a packet starts, of which ESP starts at `esp`.
fn text_at(esp: u16) -> usize {
    esp as usize + wire::ESP + esp::IV
}

fn seal(batch: &mut Batch, sas: &SaTable) {
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    for (frame, meta) in batch.frames.iter_mut().zip(&batch.metas) {
        if meta.stage == Stage::Outbound {
            let sa = sas.get(meta.sa);
            let (iv, aad) = (meta.seq.to_be_bytes(), crypto::aad(sa.spi, meta.seq, sa.esn));
            let packet = &mut frame.bytes_mut()[sa.outer.text() - HEAD..];
            jobs.push(Job { key: &sa.key, iv, aad, icv: 16, packet });
        }
    }
    sas.aead().seal(&mut jobs);
}

/// Answers are in the order of the frames still inbound.
fn open(batch: &mut Batch, sas: &SaTable) -> ArrayVec<Option<IcvVerified>, BATCH> {
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    for (frame, meta) in batch.frames.iter_mut().zip(&batch.metas) {
        let (Class::Esp { spi, esp, .. }, Stage::Inbound) = (meta.class, meta.stage) else { continue };
        let sa = sas.get(meta.sa);
        let packet = &mut frame.bytes_mut()[text_at(esp) - HEAD..];
        let iv = *packet[..HEAD].last_chunk().expect("a packet that was sealed");
        jobs.push(Job { key: &sa.key, iv, aad: crypto::aad(spi, meta.seq, sa.esn), icv: 16, packet });
    }
    let mut verified = ArrayVec::new();
    sas.aead().open(&mut jobs, &mut verified);
    verified
}
