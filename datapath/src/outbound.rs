//! Clear traffic, a batch at a time: policy, SA, sequence number, encapsulate, seal.
//!
//! The order is RFC 4301 §5.1 and RFC 4303 §3.3.

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    classify::Class,
    crypto::{self, Job},
    drop::DropReason,
    frame::Frame,
    meter::{Hop, Meter},
    policy::{Clear, FlowCache, FlowKey},
    sa::SaTable,
    wire,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Reader, Runtime, SaCounters, SlotIndex};

/// Takes the frames of stage `Outbound` to `Forward`, hands them to the worker of their SA, or drops them.
pub fn run(
    batch: &mut Batch,
    me: u32,
    sas: &mut SaTable,
    flows: &mut FlowCache,
    (reader, runtime): (&Reader, &Runtime),
    meter: &mut impl Meter,
) {
    if !batch.metas.iter().any(|m| m.stage == Stage::Outbound) {
        return;
    }
    let mut slots = Slots::new();
    decide(batch, me, (sas, flows), reader, &mut slots);
    meter.mark(Hop::Policy);
    find_sas(batch, sas, &slots, reader, runtime);
    meter.mark(Hop::Sa);
    encapsulate(batch, sas, runtime);
    meter.mark(Hop::Headers);
    seal(batch, sas);
    meter.mark(Hop::Crypto);
    finish(batch, sas, runtime);
    meter.mark(Hop::Settle);
}

/// The slots of the SAs to use, by index in the batch.
type Slots = ArrayVec<Option<SlotIndex>, BATCH>;

/// RFC 4301 §5.1: what the policies say.
fn decide(
    batch: &mut Batch,
    me: u32,
    (sas, flows): (&SaTable, &mut FlowCache),
    reader: &Reader,
    slots: &mut Slots,
) {
    let mut keys = ArrayVec::<FlowKey, BATCH>::new();
    for (frame, meta) in batch.frames.iter().zip(&batch.metas) {
        keys.push(match meta.stage {
            Stage::Outbound => FlowKey::of(&meta.ip, frame.bytes()),
            _ => FlowKey::NONE,
        });
        flows.prefetch(&keys[keys.len() - 1]);
    }
    for ((frame, meta), key) in batch.frames.iter_mut().zip(&mut batch.metas).zip(&keys) {
        let mut to_use = None;
        if meta.stage == Stage::Outbound {
            meta.stage = match flows.clear(reader, key) {
                Clear::Protect { owner, .. } if owner != me => hand_off(frame, meta, owner),
                Clear::Protect { slot, .. } => {
                    to_use = Some(slot);
                    sas.prefetch(slot);
                    Stage::Outbound
                }
                Clear::NoSa => Stage::Drop(DropReason::NoSa),
                Clear::Bypass => Stage::Forward,
                Clear::Discard => Stage::Drop(DropReason::PolicyDiscard),
                Clear::Unprotected => Stage::Drop(DropReason::Unprotected),
                Clear::NoPolicy => Stage::Drop(DropReason::NoPolicy),
            };
            if matches!(meta.stage, Stage::Outbound | Stage::Forward) {
                // A bypassed packet is routed as it is; one to be protected is forwarded into the tunnel.
                if let Err(reason) = wire::decrement_ttl(frame.bytes_mut()) {
                    meta.stage = Stage::Drop(reason);
                }
                frame.truncate(meta.ip.len);
                meta.dst = meta.ip.dst();
            }
        }
        slots.push(to_use);
    }
}

/// The frame is whole again, from its Ethernet header, for the other worker to classify.
fn hand_off(frame: &mut Frame, meta: &Meta, owner: u32) -> Stage {
    match meta.class {
        Class::Clear { l3 } if frame.push(l3 as usize) => Stage::Handoff(owner as u8),
        _ => Stage::Drop(DropReason::NoHeadroom),
    }
}

fn find_sas(batch: &mut Batch, sas: &mut SaTable, slots: &Slots, reader: &Reader, runtime: &Runtime) {
    for slot in slots.iter().flatten() {
        sas.prefetch_state(*slot, runtime);
    }
    for (meta, slot) in batch.metas.iter_mut().zip(slots) {
        if let (Stage::Outbound, Some(slot)) = (meta.stage, slot) {
            match sas.find(*slot, reader, runtime) {
                Some(i) => meta.sa = i,
                None => meta.stage = Stage::Drop(DropReason::NoSa),
            }
        }
    }
}

fn encapsulate(batch: &mut Batch, sas: &mut SaTable, runtime: &Runtime) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let sa = sas.get_mut(meta.sa);
        if sa.mtu != 0 && sa.outer.outer_len(meta.ip.len) > sa.mtu as usize {
            meta.stage = Stage::Drop(DropReason::TooBig);
            continue;
        }
        // RFC 4303 §3.3.3. A number that is assigned is used up, whatever becomes of the packet.
        let Some(seq) = sa.next_seq(runtime) else {
            meta.stage = Stage::Drop(DropReason::SeqExhausted);
            continue;
        };
        meta.seq = seq;
        if let Err(reason) = sa.outer.encap(frame, &meta.ip, sa.spi, seq) {
            meta.stage = Stage::Drop(reason);
        }
    }
}

fn seal(batch: &mut Batch, sas: &SaTable) {
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let sa = sas.get(meta.sa);
        let packet = &mut frame.bytes_mut()[sa.outer.text() - crypto::HEAD..];
        let (iv, aad) = (meta.seq.to_be_bytes(), crypto::aad(sa.spi, meta.seq, sa.esn));
        match Job::new(&sa.key, iv, aad, crypto::ICV as u8, packet) {
            Some(job) => jobs.push(job),
            // What is not sealed does not leave.
            None => meta.stage = Stage::Drop(DropReason::Malformed),
        }
    }
    sas.aead().seal(&mut jobs);
}

fn finish(batch: &mut Batch, sas: &SaTable, runtime: &Runtime) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let sa = sas.get(meta.sa);
        sa.outer.sealed(frame);
        let counted = SaCounters { packets: 1, bytes: meta.ip.len as u64, ..SaCounters::default() };
        runtime.sa(sa.slot).count(&counted);
        meta.dst = sa.outer.dst();
        meta.stage = Stage::Forward;
    }
}
