//! Inbound ESP, a batch at a time: SA, replay check, open, replay commit, decapsulate, policy check.
//!
//! The order is RFC 4303 §3.4 and RFC 4301 §5.2. Nothing of an SA changes before the packet's ICV is verified:
//! whatever does takes the [`IcvVerified`] that only [`Aead::open`](crate::crypto::Aead::open) makes.

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    crypto::{self, IcvVerified, Job},
    drop::DropReason,
    esp,
    general::Why,
    meter::{Hop, Meter},
    policy::{Decision, FlowCache},
    sa::{Found, SaTable},
    wire::{self, Ip},
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Reader, Runtime, SaCounters};

/// Takes the frames of stage `Inbound` to `Forward`, or drops them.
pub fn run(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    meter: &mut impl Meter,
) {
    let aead = sas.aead();
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    prepare(batch, sas, (reader, runtime), meter);
    open(batch, sas, &mut jobs);
    meter.mark(Hop::Headers);
    let mut verified = Verified::new();
    aead.open(&mut jobs, &mut verified);
    drop(jobs);
    meter.mark(Hop::Crypto);
    finish(batch, (sas, flows), (reader, runtime), &verified, meter);
}

/// As far as to be opened.
pub fn prepare(
    batch: &mut Batch,
    sas: &mut SaTable,
    (reader, runtime): (&Reader, &Runtime),
    meter: &mut impl Meter,
) {
    find_sas(batch, sas, reader, runtime);
    meter.mark(Hop::Sa);
    check(batch, sas, reader, runtime);
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
    // Where no peer is followed, no packet pays for it.
    let outer = sas.has_followed().then(|| outer_headers(batch));
    decapsulate(batch, (sas, flows), (reader, runtime), verified);
    if let Some(outer) = outer {
        follow(batch, sas, &outer);
    }
    meter.mark(Hop::Headers);
    let_in(batch, (sas, flows), reader, runtime);
    meter.mark(Hop::Policy);
}

/// Of each frame that was opened, in order: the proof that it may be used, if it may.
pub type Verified = ArrayVec<Option<IcvVerified>, BATCH>;

/// RFC 4303 §3.4.2: the SA, by its SPI: where it was the last time, as a rule.
fn find_sas(batch: &mut Batch, sas: &mut SaTable, reader: &Reader, runtime: &Runtime) {
    for (_, meta) in batch.frames.iter().zip(&mut batch.metas) {
        if meta.stage != Stage::Inbound {
            continue;
        }
        match sas.expect(meta.esp.spi) {
            Some(i) => meta.sa = i,
            None => find_sa(meta, sas, reader, runtime),
        }
    }
}

/// An SA that has not been met yet, that is no more, or that does not go the plain way.
#[cold]
fn find_sa(meta: &mut Meta, sas: &mut SaTable, reader: &Reader, runtime: &Runtime) {
    match sas.find_spi(meta.esp.spi, reader, runtime) {
        Found::Here(i) => meta.sa = i,
        Found::General(_) => meta.stage = Stage::General(Why::Inbound),
        // RFC 2401 §5.2.1: an SA in another has that one's worker; this is not in it.
        Found::At(_) => meta.stage = Stage::Drop(DropReason::SaMismatch),
        Found::Nowhere => meta.stage = Stage::Drop(DropReason::UnknownSpi),
    }
}

/// Where the encrypted part of a packet begins.
#[inline]
fn text_at(meta: &Meta) -> usize {
    meta.esp.at as usize + wire::ESP + esp::IV
}

/// Whether the SAs live and the packets came their way, and RFC 4303 §3.4.3: whether they may be new.
fn check(batch: &mut Batch, sas: &mut SaTable, reader: &Reader, runtime: &Runtime) {
    for (frame, meta) in batch.frames.iter().zip(&mut batch.metas) {
        if meta.stage != Stage::Inbound {
            continue;
        }
        if let Err(reason) = check_one(frame.len(), meta, sas, reader, runtime) {
            refused(meta, sas, runtime, reason);
        }
    }
}

#[inline]
fn check_one(
    len: usize,
    meta: &mut Meta,
    sas: &mut SaTable,
    reader: &Reader,
    runtime: &Runtime,
) -> Result<(), DropReason> {
    let spi = meta.esp.spi;
    if !sas.is_of(meta.sa, spi) {
        find_sa(meta, sas, reader, runtime);
        if meta.stage != Stage::Inbound {
            return Err(DropReason::UnknownSpi);
        }
    }
    let (sa, ring) = sas.inbound(meta.sa).ok_or(DropReason::UnknownSpi)?;
    if !sa.is_way_of(meta.ip.dst(), meta.esp.udp) {
        return Err(DropReason::SaMismatch);
    }
    // RFC 4303 §2.4: the encrypted part ends on a 4-octet boundary.
    match len.checked_sub(text_at(meta)) {
        Some(text) if text >= esp::SMALLEST - wire::ESP - esp::IV && text.is_multiple_of(4) => {}
        _ => return Err(DropReason::Malformed),
    }
    meta.seq = sa.check(meta.esp.seq_lo, ring, runtime)?;
    if sas.is_far() {
        sas.prefetch_key(meta.sa);
    }
    Ok(())
}

/// What is to be opened.
fn open<'a>(batch: &'a mut Batch, sas: &'a SaTable, jobs: &mut ArrayVec<Job<'a>, BATCH>) {
    let is_far = sas.is_far();
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Inbound {
            continue;
        }
        let packet = &mut frame.bytes_mut()[text_at(meta) - crypto::HEAD..];
        let job = sas.opens(meta.sa).and_then(|(key, esn)| {
            if is_far {
                key.prefetch_powers();
            }
            let iv = *packet.first_chunk::<{ crypto::HEAD }>()?.last_chunk()?;
            Job::new(key, iv, crypto::aad(meta.esp.spi, meta.seq, esn), crypto::ICV as u8, packet)
        });
        match job {
            Some(job) => jobs.push(job),
            None => meta.stage = Stage::Drop(DropReason::Malformed),
        }
    }
}

#[cold]
fn refused(meta: &mut Meta, sas: &SaTable, runtime: &Runtime, reason: DropReason) {
    if meta.stage == Stage::Inbound {
        meta.stage = refused_by_window(meta, sas, runtime, reason);
    }
}

#[cold]
fn refused_by_window(meta: &Meta, sas: &SaTable, runtime: &Runtime, reason: DropReason) -> Stage {
    let counters = match reason {
        DropReason::ReplayDuplicate => SaCounters { replay_duplicates: 1, ..SaCounters::default() },
        DropReason::ReplayTooOld => SaCounters { replay_too_old: 1, ..SaCounters::default() },
        _ => return Stage::Drop(reason),
    };
    runtime.sa(sas.get(meta.sa).slot).count(&counters);
    Stage::Drop(reason)
}

#[cold]
fn refused_by_icv(meta: &Meta, sas: &mut SaTable, runtime: &Runtime) -> Stage {
    let counters = SaCounters { icv_failures: 1, ..SaCounters::default() };
    runtime.sa(sas.get(meta.sa).slot).count(&counters);
    sas.note_wrong(meta.sa, false);
    Stage::Drop(DropReason::IcvMismatch)
}

/// Those that decapsulation takes away.
#[cold]
fn outer_headers(batch: &Batch) -> ArrayVec<Ip, BATCH> {
    batch.metas[..batch.frames.len()].iter().map(|meta| meta.ip).collect()
}

/// RFC 7296 §2.23: where the newest packets in UDP came from.
#[cold]
fn follow(batch: &Batch, sas: &mut SaTable, outer: &[Ip]) {
    for (meta, outer) in batch.metas.iter().zip(outer) {
        // What went into its window.
        if let (Stage::Inbound | Stage::Refused(_), Some(proof)) = (meta.stage, meta.proof)
            && meta.esp.udp
        {
            sas.follow(meta.sa, meta.seq, outer, proof);
        }
    }
}

/// RFC 4303 §3.4.3: moves the windows. Then the inner packets, in place of the outer ones. A frame that has none says so by
/// [`Stage::Refused`].
fn decapsulate(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    verified: &Verified,
) {
    let mut verified = verified.iter();
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Inbound {
            continue;
        }
        let Some(proof) = verified.next().copied().flatten() else {
            meta.stage = refused_by_icv(meta, sas, runtime);
            continue;
        };
        meta.proof = Some(proof);
        if let Err(reason) = sas.commit(meta.sa, meta.seq, proof, (reader, runtime)) {
            meta.stage = refused_by_window(meta, sas, runtime, reason);
            continue;
        }
        let outer_tos = meta.ip.tos;
        match esp::decap(frame, text_at(meta), outer_tos, &mut meta.ip, proof) {
            Ok(()) => meta.homes = flows.homes(&meta.ip.key().inner()),
            Err(reason) => meta.stage = Stage::Refused(reason),
        }
    }
}

/// RFC 4301 §5.2: whether the policies let the inner packets in.
fn let_in(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    reader: &Reader,
    runtime: &Runtime,
) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        let let_in = match meta.stage {
            Stage::Inbound => {
                let (line, decision) = flows.inner(reader, meta.homes, meta.ip.key().inner());
                meta.homes[0] = line;
                match decision {
                    Decision::LetIn { reqid, via } if sas.serves(meta.sa, reqid) => {
                        meta.via = via;
                        wire::decrement_ttl(frame.bytes_mut()).map(|()| Stage::Forward)
                    }
                    decision => let_on(meta, sas, decision),
                }
            }
            Stage::Refused(reason) => Err(reason),
            _ => continue,
        };
        meta.stage = match let_in {
            Ok(stage) => {
                sas.count_inbound(meta.sa, meta.ip.len(), reader, runtime);
                stage
            }
            Err(reason) => refused_inside(meta, sas, runtime, reason),
        };
    }
}

/// What is let in and wanted by the outbound policies again.
#[cold]
fn let_on(meta: &Meta, sas: &SaTable, decision: Decision) -> Result<Stage, DropReason> {
    match decision {
        Decision::LetOn { reqid } if sas.serves(meta.sa, reqid) => Ok(Stage::General(Why::Onward)),
        _ => Err(DropReason::SelectorMismatch),
    }
}

#[cold]
fn refused_inside(meta: &Meta, sas: &SaTable, runtime: &Runtime, reason: DropReason) -> Stage {
    let refused = u64::from(reason != DropReason::Dummy);
    runtime.sa(sas.get(meta.sa).slot).count(&SaCounters { refused, ..SaCounters::default() });
    Stage::Drop(reason)
}
