//! Inbound ESP, a batch at a time: SA, replay check, open, replay commit, decapsulate, policy check.
//!
//! The order is RFC 4303 §3.4 and RFC 4301 §5.2. Nothing of an SA changes before the packet's ICV is verified:
//! whatever does takes the [`IcvVerified`] that only [`Aead::open`](crate::crypto::Aead::open) makes.

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    crypto::{self, IcvVerified, Job},
    drop::DropReason,
    esp,
    meter::{Hop, Meter},
    policy::{Decision, FlowCache},
    sa::{Found, SaTable},
    wire,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Direction, Reader, Runtime, SaCounters, SlotIndex, Spi};

/// Takes the frames of stage `Inbound` to `Forward`, or drops them.
pub fn run(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    meter: &mut impl Meter,
) {
    if !batch.metas.iter().any(|m| m.stage == Stage::Inbound) {
        return;
    }
    let aead = sas.aead();
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    prepare(batch, sas, (reader, runtime), Some(&mut jobs), meter);
    let mut verified = Verified::new();
    aead.open(&mut jobs, &mut verified);
    drop(jobs);
    meter.mark(Hop::Crypto);
    finish(batch, (sas, flows), (reader, runtime), &verified, meter);
}

/// As far as to be opened; what is to be, if that is asked.
pub fn prepare<'a>(
    batch: &'a mut Batch,
    sas: &'a mut SaTable,
    (reader, runtime): (&Reader, &Runtime),
    jobs: Option<&mut ArrayVec<Job<'a>, BATCH>>,
    meter: &mut impl Meter,
) {
    find_sas(batch, sas, reader, runtime);
    meter.mark(Hop::Sa);
    check_replay(batch, sas, runtime, jobs);
    meter.mark(Hop::Sequence);
}

/// What was opened: windows, decapsulation, policies.
pub fn finish(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    verified: &Verified,
    meter: &mut impl Meter,
) {
    commit(batch, sas, runtime, verified);
    meter.mark(Hop::Sequence);
    decapsulate(batch, flows);
    meter.mark(Hop::Headers);
    let_in(batch, (sas, flows), reader, runtime);
    meter.mark(Hop::Policy);
}

/// Of each frame that was opened, in order: the proof that it may be used, if it may.
pub type Verified = ArrayVec<Option<IcvVerified>, BATCH>;

/// RFC 4303 §3.4.2: the SA, by its SPI. Each step of the search asks memory for all packets before the next.
fn find_sas(batch: &mut Batch, sas: &mut SaTable, reader: &Reader, runtime: &Runtime) {
    let mut slots = ArrayVec::<Option<SlotIndex>, BATCH>::new();
    for meta in &batch.metas {
        let slot = match meta.stage {
            Stage::Inbound => reader.find(Spi(meta.esp.spi)),
            _ => None,
        };
        slots.push(slot);
        if let Some(slot) = slot {
            sas.prefetch_index(slot);
            runtime.prefetch_sa(slot);
        }
    }
    for slot in slots.iter().flatten() {
        if let Some(state) = sas.index(*slot) {
            sas.prefetch(state);
            sas.prefetch_window(state);
        }
    }
    for (meta, slot) in batch.metas.iter_mut().zip(&slots) {
        if meta.stage != Stage::Inbound {
            continue;
        }
        let Some(Found::Here(i)) = slot.map(|slot| sas.find(slot, reader, runtime)) else {
            meta.stage = Stage::Drop(DropReason::UnknownSpi);
            continue;
        };
        let sa = sas.get(i);
        if sa.spi != meta.esp.spi || sa.direction != Direction::Inbound {
            // A slot that was taken over by another SA between the look at the index and at the slot.
            meta.stage = Stage::Drop(DropReason::UnknownSpi);
        } else if meta.esp.udp != sa.udp || meta.ip.dst() != sa.outer.dst() {
            // It did not come the way that its SA was made for. Its source is not looked at: a peer behind a NAT
            // may move, and the ICV tells who it is.
            meta.stage = Stage::Drop(DropReason::SaMismatch);
        } else {
            meta.sa = i;
        }
    }
}

/// Where the encrypted part of a packet begins.
#[inline]
fn text_at(meta: &Meta) -> usize {
    meta.esp.at as usize + wire::ESP + esp::IV
}

/// RFC 4303 §3.4.3: whether the packets may be new; then what is to be opened.
fn check_replay<'a>(
    batch: &'a mut Batch,
    sas: &'a mut SaTable,
    runtime: &Runtime,
    mut jobs: Option<&mut ArrayVec<Job<'a>, BATCH>>,
) {
    let (states, keys, windows) = sas.split();
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Inbound {
            continue;
        }
        let i = meta.sa as usize;
        let (Some(Some(sa)), Some(Some(key)), Some(Some(window))) =
            (states.get(i), keys.get(i), windows.get(i))
        else {
            meta.stage = Stage::Drop(DropReason::UnknownSpi);
            continue;
        };
        let text = text_at(meta);
        // RFC 4303 §2.4: the encrypted part ends on a 4-octet boundary.
        let is_whole = frame.len() >= text + esp::SMALLEST - wire::ESP - esp::IV;
        if !is_whole || !(frame.len() - text).is_multiple_of(4) {
            meta.stage = Stage::Drop(DropReason::Malformed);
            continue;
        }
        meta.seq = window.infer(meta.esp.seq_lo);
        if let Err(reason) = window.check(meta.seq) {
            meta.stage = refused_by_window(sa.slot, runtime, reason);
            continue;
        }
        let Some(jobs) = &mut jobs else { continue };
        let packet = &mut frame.bytes_mut()[text - crypto::HEAD..];
        let iv = *packet[..crypto::HEAD].last_chunk().expect("8 of 16 octets");
        let aad = crypto::aad(sa.spi, meta.seq, sa.esn);
        match Job::new(key, iv, aad, crypto::ICV as u8, packet) {
            Some(job) => jobs.push(job),
            None => meta.stage = Stage::Drop(DropReason::Malformed),
        }
    }
}

#[cold]
fn refused_by_window(slot: SlotIndex, runtime: &Runtime, reason: DropReason) -> Stage {
    let counters = match reason {
        DropReason::ReplayDuplicate => SaCounters { replay_duplicates: 1, ..SaCounters::default() },
        _ => SaCounters { replay_too_old: 1, ..SaCounters::default() },
    };
    runtime.sa(slot).count(&counters);
    Stage::Drop(reason)
}

/// RFC 4303 §3.4.3: moves the windows, and puts their tops where a restarted datapath will find them.
fn commit(batch: &mut Batch, sas: &mut SaTable, runtime: &Runtime, verified: &Verified) {
    let mut verified = verified.iter();
    for meta in batch.metas.iter_mut().filter(|m| m.stage == Stage::Inbound) {
        let slot = sas.get(meta.sa).slot;
        let Some(proof) = verified.next().copied().flatten() else {
            runtime.sa(slot).count(&SaCounters { icv_failures: 1, ..SaCounters::default() });
            meta.stage = Stage::Drop(DropReason::IcvMismatch);
            continue;
        };
        let window = sas.window(meta.sa);
        let top = window.top();
        match window.commit(meta.seq, proof) {
            Ok(()) if window.top() > top => runtime.sa(slot).see(window.top()),
            Ok(()) => {}
            Err(reason) => meta.stage = refused_by_window(slot, runtime, reason),
        }
        meta.proof = Some(proof);
    }
}

/// The inner packets, in place of the outer ones. A frame that has none says so by [`Stage::Refused`].
fn decapsulate(batch: &mut Batch, flows: &FlowCache) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        let (Stage::Inbound, Some(proof)) = (meta.stage, meta.proof) else { continue };
        let outer_tos = meta.ip.tos;
        match esp::decap(frame, text_at(meta), outer_tos, &mut meta.ip, proof) {
            Ok(()) => meta.homes = flows.homes(&meta.ip.key().inner()),
            Err(reason) => meta.stage = Stage::Refused(reason),
        }
    }
}

/// RFC 4301 §5.2: whether the policies let the inner packets in.
fn let_in(batch: &mut Batch, (sas, flows): (&SaTable, &mut FlowCache), reader: &Reader, runtime: &Runtime) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if !matches!(meta.stage, Stage::Inbound | Stage::Refused(_)) {
            continue;
        }
        let sa = sas.get(meta.sa);
        let refused = match meta.stage {
            Stage::Refused(reason) => Err(reason),
            _ => {
                let (line, decision) = flows.inner(reader, meta.homes, meta.ip.key().inner());
                meta.homes[0] = line;
                match decision {
                    Decision::LetIn { reqid, via } if reqid == sa.reqid => {
                        meta.via = via;
                        wire::decrement_ttl(frame.bytes_mut())
                    }
                    _ => Err(DropReason::SelectorMismatch),
                }
            }
        };
        let line = runtime.sa(sa.slot);
        match refused {
            Ok(()) => {
                line.count(&SaCounters { packets: 1, bytes: meta.ip.len() as u64, ..SaCounters::default() });
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
