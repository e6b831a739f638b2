//! Clear traffic, a batch at a time: policy, SA, sequence number, encapsulate, seal.
//!
//! The order is RFC 4301 §5.1 and RFC 4303 §3.3.

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    crypto::{self, Job},
    drop::DropReason,
    frame::Frame,
    meter::{Hop, Meter},
    policy::{Decision, FlowCache},
    sa::{Found, SaTable},
    wire,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Direction, Reader, Runtime};

/// Takes the frames of stage `Outbound` to `Sealed` or `Forward`, hands them to the worker of their SA, or drops them.
pub fn run(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    meter: &mut impl Meter,
) {
    if !batch.metas.iter().any(|m| m.stage == Stage::Outbound) {
        return;
    }
    let aead = sas.aead();
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    prepare(batch, (sas, flows), (reader, runtime), Some(&mut jobs), meter);
    aead.seal(&mut jobs);
    drop(jobs);
    meter.mark(Hop::Crypto);
    finish(batch, sas, (reader, runtime));
    meter.mark(Hop::Settle);
}

/// As far as to be sealed; what is to be, if that is asked.
pub fn prepare<'a>(
    batch: &'a mut Batch,
    (sas, flows): (&'a mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    jobs: Option<&mut ArrayVec<Job<'a>, BATCH>>,
    meter: &mut impl Meter,
) {
    decide(batch, (sas, flows), reader);
    meter.mark(Hop::Policy);
    find_sas(batch, (sas, flows), reader, runtime);
    meter.mark(Hop::Sa);
    encapsulate(batch, sas, runtime, jobs);
    meter.mark(Hop::Headers);
}

/// RFC 4301 §5.1: what the policies say. Asks memory for what is known of the SA.
fn decide(batch: &mut Batch, (sas, flows): (&SaTable, &mut FlowCache), reader: &Reader) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let (line, decision) = flows.clear(reader, meta.homes, meta.ip.key());
        meta.homes[0] = line;
        match decision {
            Decision::Protect { policy, state } => {
                (meta.policy, meta.sa) = (policy, state);
                reader.prefetch_policy_sa(policy);
                sas.prefetch(state);
            }
            Decision::Bypass { via } => {
                meta.via = via;
                meta.stage = match wire::decrement_ttl(frame.bytes_mut()) {
                    Ok(()) => Stage::Forward,
                    Err(reason) => Stage::Drop(reason),
                };
            }
            Decision::Drop(reason) => meta.stage = Stage::Drop(reason),
            Decision::LetIn { .. } => meta.stage = Stage::Drop(DropReason::NoPolicy),
        }
    }
}

/// The SA that the policy has now: where it was the last time, as a rule.
fn find_sas(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    reader: &Reader,
    runtime: &Runtime,
) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let Some(slot) = reader.policy_sa(meta.policy) else {
            meta.stage = Stage::Drop(DropReason::NoSa);
            continue;
        };
        if sas.is_at(meta.sa, slot) {
            sas.prefetch_key(meta.sa);
            continue;
        }
        match sas.find(slot, reader, runtime) {
            Found::Here(state) if sas.get(state).direction == Direction::Outbound => {
                meta.sa = state;
                flows.keep(meta.homes[0], meta.ip.key(), |decision| decision.found_at(state));
            }
            Found::At(owner) => meta.stage = hand_off(frame, meta, owner),
            Found::Here(_) | Found::Nowhere => meta.stage = Stage::Drop(DropReason::NoSa),
        }
    }
}

/// The frame is whole again, from its Ethernet header, for the other worker to classify.
#[cold]
fn hand_off(frame: &mut Frame, meta: &Meta, owner: u32) -> Stage {
    match frame.push(meta.l3 as usize) {
        true => Stage::Handoff(owner as u8),
        false => Stage::Drop(DropReason::NoHeadroom),
    }
}

/// Headers and trailers, and what is to be sealed.
fn encapsulate<'a>(
    batch: &'a mut Batch,
    sas: &'a mut SaTable,
    runtime: &Runtime,
    mut jobs: Option<&mut ArrayVec<Job<'a>, BATCH>>,
) {
    let (states, keys) = sas.split();
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let (Some(Some(sa)), Some(Some(key))) =
            (states.get_mut(meta.sa as usize), keys.get(meta.sa as usize))
        else {
            meta.stage = Stage::Drop(DropReason::NoSa);
            continue;
        };
        // A packet that is forwarded into the tunnel (RFC 4301 §5.1.2.1).
        if let Err(reason) = wire::decrement_ttl(frame.bytes_mut()) {
            meta.stage = Stage::Drop(reason);
            continue;
        }
        if sa.mtu != 0 && sa.outer.outer_len(meta.ip.len()) > sa.mtu as usize {
            meta.stage = Stage::Drop(DropReason::TooBig);
            continue;
        }
        // RFC 4303 §3.3.3. A number that is assigned is used up, whatever becomes of the packet.
        let Some(seq) = sa.next_seq(runtime) else {
            meta.stage = Stage::Drop(DropReason::SeqExhausted);
            continue;
        };
        (meta.seq, meta.esp.at) = (seq, sa.outer.len() as u16);
        if let Err(reason) = sa.outer.encap(frame, &meta.ip, sa.spi, seq) {
            meta.stage = Stage::Drop(reason);
            continue;
        }
        let Some(jobs) = &mut jobs else { continue };
        key.prefetch_powers();
        let packet = &mut frame.bytes_mut()[sa.outer.text() - crypto::HEAD..];
        let (iv, aad) = (seq.to_be_bytes(), crypto::aad(sa.spi, seq, sa.esn));
        match Job::new(key, iv, aad, crypto::ICV as u8, packet) {
            Some(job) => jobs.push(job),
            // What is not sealed does not leave.
            None => meta.stage = Stage::Drop(DropReason::Malformed),
        }
    }
}

/// What was sealed is counted, and can leave.
pub fn finish(batch: &mut Batch, sas: &mut SaTable, (reader, runtime): (&Reader, &Runtime)) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let sa = sas.get_mut(meta.sa);
        sa.outer.sealed(frame);
        if sa.count(meta.ip.len()) {
            sas.note(meta.sa, reader, runtime);
        }
        meta.stage = Stage::Sealed;
    }
}
