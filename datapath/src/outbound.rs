//! Clear traffic, a batch at a time: policy, SA, sequence number, encapsulate, seal.
//!
//! The order is RFC 4301 §5.1 and RFC 4303 §3.3.

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    classify::Class,
    crypto::{self, Job},
    drop::DropReason,
    frame::Frame,
    policy::{Clear, FlowCache},
    sa::SaTable,
    wire::{self, Ip},
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Reader, Runtime};

/// Takes the frames of stage `Outbound` to `Forward`, hands them to the worker of their SA, or drops them.
pub fn run(
    batch: &mut Batch,
    me: u32,
    sas: &mut SaTable,
    flows: &mut FlowCache,
    reader: &Reader,
    runtime: &Runtime,
) {
    if !batch.metas.iter().any(|m| m.stage == Stage::Outbound) {
        return;
    }
    let inner = decide(batch, me, sas, flows, reader, runtime);
    encapsulate(batch, sas, runtime, &inner);
    seal(batch, sas);
    finish(batch, sas, &inner);
}

/// The headers of the inner packets, by index in the batch; only what is still outbound has one.
type Inner = ArrayVec<Option<Ip>, BATCH>;

/// RFC 4301 §5.1: what the policies say.
fn decide(
    batch: &mut Batch,
    me: u32,
    sas: &mut SaTable,
    flows: &mut FlowCache,
    reader: &Reader,
    runtime: &Runtime,
) -> Inner {
    let mut inner = Inner::new();
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        let inner = {
            inner.push(None);
            inner.last_mut().expect("pushed")
        };
        if meta.stage != Stage::Outbound {
            continue;
        }
        let ip = match Ip::parse(frame.bytes()) {
            Ok(ip) => ip,
            Err(reason) => {
                meta.stage = Stage::Drop(reason);
                continue;
            }
        };
        let flow = ip.flow(frame.bytes());
        meta.stage = match flows.clear(reader, &flow) {
            Clear::Protect { owner, .. } if owner != me => hand_off(frame, meta, owner),
            Clear::Protect { slot, .. } => match sas.find(slot, reader, runtime) {
                Some(i) => {
                    meta.sa = i;
                    Stage::Outbound
                }
                None => Stage::Drop(DropReason::NoSa),
            },
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
                continue;
            }
            frame.truncate(ip.len);
            meta.dst = ip.dst;
            *inner = Some(ip);
        }
    }
    inner
}

/// The frame is whole again, from its Ethernet header, for the other worker to classify.
fn hand_off(frame: &mut Frame, meta: &Meta, owner: u32) -> Stage {
    match meta.class {
        Class::Clear { l3 } if frame.push(l3 as usize) => Stage::Handoff(owner as u8),
        _ => Stage::Drop(DropReason::NoHeadroom),
    }
}

fn encapsulate(batch: &mut Batch, sas: &mut SaTable, runtime: &Runtime, inner: &Inner) {
    for ((frame, meta), ip) in batch.frames.iter_mut().zip(&mut batch.metas).zip(inner) {
        let (Stage::Outbound, Some(ip)) = (meta.stage, ip) else { continue };
        let sa = sas.get_mut(meta.sa);
        if sa.mtu != 0 && sa.outer.outer_len(ip.len) > sa.mtu as usize {
            meta.stage = Stage::Drop(DropReason::TooBig);
            continue;
        }
        // RFC 4303 §3.3.3. A number that is assigned is used up, whatever becomes of the packet.
        let Some(seq) = sa.next_seq(runtime) else {
            meta.stage = Stage::Drop(DropReason::SeqExhausted);
            continue;
        };
        meta.seq = seq;
        if let Err(reason) = sa.outer.encap(frame, ip, sa.spi, seq) {
            meta.stage = Stage::Drop(reason);
        }
    }
}

fn seal(batch: &mut Batch, sas: &SaTable) {
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    for (frame, meta) in batch.frames.iter_mut().zip(&batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let sa = sas.get(meta.sa);
        let packet = &mut frame.bytes_mut()[sa.outer.text() - crypto::HEAD..];
        jobs.push(Job {
            key: &sa.key,
            iv: meta.seq.to_be_bytes(),
            aad: crypto::aad(sa.spi, meta.seq, sa.esn),
            icv: crypto::ICV as u8,
            packet,
        });
    }
    sas.aead().seal(&mut jobs);
}

fn finish(batch: &mut Batch, sas: &mut SaTable, inner: &Inner) {
    for ((frame, meta), ip) in batch.frames.iter_mut().zip(&mut batch.metas).zip(inner) {
        let (Stage::Outbound, Some(ip)) = (meta.stage, ip) else { continue };
        let sa = sas.get_mut(meta.sa);
        sa.outer.sealed(frame);
        sa.counters.packets += 1;
        sa.counters.bytes += ip.len as u64;
        meta.dst = sa.outer.dst();
        meta.stage = Stage::Forward;
    }
}
