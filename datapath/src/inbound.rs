//! Inbound ESP, a batch at a time: SA, replay check, open, replay commit, decapsulate, policy check.
//!
//! The order is RFC 4303 §3.4 and RFC 4301 §5.2. Nothing of an SA changes before the packet's ICV is verified:
//! whatever does takes the [`IcvVerified`] that only [`Aead::open`](crate::crypto::Aead::open) makes.

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    classify::Class,
    crypto::{self, IcvVerified, Job},
    drop::DropReason,
    esp,
    meter::{Hop, Meter},
    policy::{FlowCache, FlowKey},
    sa::{SaState, SaTable},
    wire,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Direction, Reader, Runtime, SaCounters, SlotIndex, Spi};

/// Where the parts of an inbound packet are; the frame starts at the outer IP header.
#[derive(Clone, Copy)]
struct Parts {
    spi: u32,
    seq_lo: u32,
    esp: usize,
    udp: bool,
    tos: u8,
    len: usize,
}

impl Parts {
    #[inline]
    fn of(meta: &Meta) -> Option<Parts> {
        let Class::Esp { spi, seq_lo, esp, udp, tos, len, .. } = meta.class else { return None };
        (meta.stage == Stage::Inbound).then_some(Parts {
            spi,
            seq_lo,
            esp: esp as usize,
            udp,
            tos,
            len: len as usize,
        })
    }

    fn text(&self) -> usize {
        self.esp + wire::ESP + esp::IV
    }
}

/// Takes the frames of stage `Inbound` to `Forward`, or drops them.
pub fn run(
    batch: &mut Batch,
    sas: &mut SaTable,
    flows: &mut FlowCache,
    (reader, runtime): (&Reader, &Runtime),
    meter: &mut impl Meter,
) {
    if !batch.metas.iter().any(|m| m.stage == Stage::Inbound) {
        return;
    }
    find_sas(batch, sas, reader, runtime);
    meter.mark(Hop::Sa);
    check_replay(batch, sas, runtime);
    meter.mark(Hop::Sequence);
    let mut verified = Verified::new();
    open(batch, sas, &mut verified);
    meter.mark(Hop::Crypto);
    commit(batch, sas, runtime, &verified);
    meter.mark(Hop::Sequence);
    let mut keys = ArrayVec::new();
    decapsulate(batch, flows, &mut keys);
    meter.mark(Hop::Headers);
    let_in(batch, (sas, flows), &keys, reader, runtime);
    meter.mark(Hop::Policy);
}

/// Of each frame that was opened, in order: the proof that it may be used, if it may.
type Verified = ArrayVec<Option<IcvVerified>, BATCH>;

/// RFC 4303 §3.4.2: the SA, by its SPI. Each step of the search asks memory for all packets before the next.
fn find_sas(batch: &mut Batch, sas: &mut SaTable, reader: &Reader, runtime: &Runtime) {
    let mut slots = ArrayVec::<Option<SlotIndex>, BATCH>::new();
    for meta in &batch.metas {
        if let Some(parts) = Parts::of(meta) {
            reader.prefetch_spi(Spi(parts.spi));
        }
    }
    for meta in &batch.metas {
        let slot = Parts::of(meta).and_then(|parts| reader.find(Spi(parts.spi)));
        slots.push(slot);
        if let Some(slot) = slot {
            sas.prefetch(slot);
        }
    }
    for slot in slots.iter().flatten() {
        sas.prefetch_state(*slot, runtime);
    }
    for ((frame, meta), slot) in batch.frames.iter_mut().zip(&mut batch.metas).zip(&slots) {
        let Some(parts) = Parts::of(meta) else { continue };
        frame.truncate(parts.len);
        let Some(i) = slot.and_then(|slot| sas.find(slot, reader, runtime)) else {
            meta.stage = Stage::Drop(DropReason::UnknownSpi);
            continue;
        };
        let sa = sas.get(i);
        if sa.spi != parts.spi || sa.direction != Direction::Inbound {
            // A slot that was taken over by another SA between the look at the index and at the slot.
            meta.stage = Stage::Drop(DropReason::UnknownSpi);
        } else if parts.udp != sa.udp || meta.ip.dst() != sa.outer.dst() {
            // It did not come the way that its SA was made for. Its source is not looked at: a peer behind a NAT
            // may move, and the ICV tells who it is.
            meta.stage = Stage::Drop(DropReason::SaMismatch);
        } else {
            meta.sa = i;
        }
    }
}

fn check_replay(batch: &mut Batch, sas: &SaTable, runtime: &Runtime) {
    for (frame, meta) in batch.frames.iter().zip(&mut batch.metas) {
        let Some(parts) = Parts::of(meta) else { continue };
        let sa = sas.get(meta.sa);
        let text = frame.len() as isize - parts.text() as isize;
        // RFC 4303 §2.4: the encrypted part ends on a 4-octet boundary.
        if text < (esp::SMALLEST - wire::ESP - esp::IV) as isize || text % 4 != 0 {
            meta.stage = Stage::Drop(DropReason::Malformed);
            continue;
        }
        meta.seq = sa.window.infer(parts.seq_lo);
        if let Err(reason) = sa.window.check(meta.seq) {
            meta.stage = refused_by_window(sa, runtime, reason);
        }
    }
}

#[cold]
fn refused_by_window(sa: &SaState, runtime: &Runtime, reason: DropReason) -> Stage {
    let counters = match reason {
        DropReason::ReplayDuplicate => SaCounters { replay_duplicates: 1, ..SaCounters::default() },
        _ => SaCounters { replay_too_old: 1, ..SaCounters::default() },
    };
    runtime.sa(sa.slot).count(&counters);
    Stage::Drop(reason)
}

/// RFC 4303 §3.4.4: verifies and decrypts. Answers are in the order of the frames still inbound.
fn open(batch: &mut Batch, sas: &SaTable, verified: &mut Verified) {
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        let Some(parts) = Parts::of(meta) else { continue };
        let sa = sas.get(meta.sa);
        let packet = &mut frame.bytes_mut()[parts.text() - crypto::HEAD..];
        let iv = *packet[..crypto::HEAD].last_chunk().expect("checked in check_replay");
        let aad = crypto::aad(parts.spi, meta.seq, sa.esn);
        match Job::new(&sa.key, iv, aad, crypto::ICV as u8, packet) {
            Some(job) => jobs.push(job),
            None => meta.stage = Stage::Drop(DropReason::Malformed),
        }
    }
    sas.aead().open(&mut jobs, verified);
}

/// RFC 4303 §3.4.3: moves the windows, and puts their tops where a restarted datapath will find them.
fn commit(batch: &mut Batch, sas: &mut SaTable, runtime: &Runtime, verified: &Verified) {
    let mut verified = verified.iter();
    for meta in batch.metas.iter_mut().filter(|m| m.stage == Stage::Inbound) {
        let sa = sas.get_mut(meta.sa);
        let Some(proof) = verified.next().copied().flatten() else {
            runtime.sa(sa.slot).count(&SaCounters { icv_failures: 1, ..SaCounters::default() });
            meta.stage = Stage::Drop(DropReason::IcvMismatch);
            continue;
        };
        let top = sa.window.top();
        match sa.window.commit(meta.seq, proof) {
            Ok(()) if sa.window.top() > top => runtime.sa(sa.slot).see(sa.window.top()),
            Ok(()) => {}
            Err(reason) => meta.stage = refused_by_window(sa, runtime, reason),
        }
        meta.proof = Some(proof);
    }
}

/// The inner packets, in place of the outer ones, and their flows. A frame that has none says so by
/// [`Stage::Refused`].
fn decapsulate(batch: &mut Batch, flows: &FlowCache, keys: &mut ArrayVec<FlowKey, BATCH>) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        let mut key = FlowKey::NONE;
        if let (Some(parts), Some(proof)) = (Parts::of(meta), meta.proof) {
            match esp::decap(frame, parts.text(), parts.tos, &mut meta.ip, proof) {
                Ok(()) => {
                    key = FlowKey::of(&meta.ip, frame.bytes());
                    flows.prefetch_inner(&key);
                }
                Err(reason) => meta.stage = Stage::Refused(reason),
            }
        }
        keys.push(key);
    }
}

/// RFC 4301 §5.2: whether the policies let the inner packets in.
fn let_in(
    batch: &mut Batch,
    (sas, flows): (&SaTable, &mut FlowCache),
    keys: &[FlowKey],
    reader: &Reader,
    runtime: &Runtime,
) {
    for ((frame, meta), key) in batch.frames.iter_mut().zip(&mut batch.metas).zip(keys) {
        if !matches!(meta.stage, Stage::Inbound | Stage::Refused(_)) {
            continue;
        }
        let sa = sas.get(meta.sa);
        let refused = match meta.stage {
            Stage::Refused(reason) => Err(reason),
            _ if flows.inner(reader, key) != Some(sa.reqid) => Err(DropReason::SelectorMismatch),
            _ => wire::decrement_ttl(frame.bytes_mut()),
        };
        let line = runtime.sa(sa.slot);
        match refused {
            Ok(()) => {
                line.count(&SaCounters { packets: 1, bytes: meta.ip.len as u64, ..SaCounters::default() });
                meta.dst = meta.ip.dst();
                meta.stage = Stage::Forward;
            }
            Err(reason) => {
                let refused = u64::from(reason != DropReason::Dummy);
                line.count(&SaCounters { refused, ..SaCounters::default() });
                meta.stage = Stage::Drop(reason);
            }
        }
    }
}
