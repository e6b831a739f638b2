//! Clear traffic, a batch at a time: policy, SA, sequence number, encapsulate, seal.
//!
//! The order is RFC 4301 §5.1 and RFC 4303 §3.3.

use crate::{
    batch::{BATCH, Batch, Meta, Stage},
    crypto::{self, AeadKey, Job},
    drop::DropReason,
    frame::Frame,
    general::Why,
    meter::{Hop, Meter},
    policy::{Decision, FlowCache},
    sa::{Found, SaState, SaTable},
    wire::{self, Place, UdpPorts, protocol},
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Direction, PolicyIndex, Reader, Runtime};

/// Takes the frames of stage `Outbound` to `Sealed` or `Forward`, hands them to the worker of their SA, or drops them.
pub fn run(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    meter: &mut impl Meter,
) {
    let aead = sas.aead();
    let (mut jobs, mut noted) = (ArrayVec::<Job<'_>, BATCH>::new(), Noted::new());
    prepare(batch, (sas, flows), (reader, runtime), Some((&mut jobs, &mut noted)), meter);
    aead.seal(&mut jobs);
    drop(jobs);
    meter.mark(Hop::Crypto);
    noted.iter().for_each(|i| sas.note(*i, reader, runtime));
    if sas.has_checksums() {
        finish(batch, sas, (reader, runtime));
    }
    meter.mark(Hop::Settle);
}

/// SAs that [`SaTable::note`] is to be told of.
type Noted = ArrayVec<u32, BATCH>;

/// As far as to be sealed; what is to be, if that is asked.
pub fn prepare<'a>(
    batch: &'a mut Batch,
    (sas, flows): (&'a mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    jobs: Option<(&mut ArrayVec<Job<'a>, BATCH>, &mut Noted)>,
    meter: &mut impl Meter,
) {
    let is_far = sas.is_far();
    decide(batch, (sas, flows), (reader, runtime), is_far);
    meter.mark(Hop::Policy);
    if is_far {
        find_sas(batch, (sas, flows), (reader, runtime));
    }
    meter.mark(Hop::Sa);
    encapsulate(batch, sas, runtime, jobs);
    meter.mark(Hop::Headers);
}

/// RFC 4301 §5.1: what the policies say. Where there are many SAs, asks memory for what is known of each; else finds it.
fn decide(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
    is_far: bool,
) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let (line, decision) = flows.clear(reader, meta.homes, meta.ip.key());
        meta.homes[0] = line;
        let Decision::Protect { policy, state } = decision else {
            let_by(frame, meta, decision, sas.udp_ports());
            continue;
        };
        (meta.policy, meta.sa) = (policy, state);
        if is_far {
            reader.prefetch_policy_sa(policy);
            sas.prefetch(state);
        } else if !is_current(state, policy, sas, reader) {
            find_sa(frame, meta, (sas, flows), (reader, runtime));
        }
    }
}

/// What is not to be protected.
#[inline(never)]
fn let_by(frame: &mut Frame, meta: &mut Meta, decision: Decision, ports: &UdpPorts) {
    meta.stage = match decision {
        Decision::Bypass { via } => {
            meta.via = via;
            match wire::decrement_ttl(frame.bytes_mut()) {
                Ok(()) => Stage::Forward,
                Err(reason) => Stage::Drop(reason),
            }
        }
        Decision::Drop(DropReason::NoPolicy | DropReason::Unprotected)
            if is_keepalive(frame, meta, ports) =>
        {
            Stage::Drop(DropReason::Keepalive)
        }
        // The rest of ESP in UDP does not say so.
        Decision::Drop(DropReason::NoPolicy | DropReason::Unprotected)
            if meta.ip.place == Place::Later && meta.ip.protocol() == protocol::UDP =>
        {
            Stage::General(Why::Received)
        }
        Decision::Drop(reason) => Stage::Drop(reason),
        Decision::Protect { .. } | Decision::LetIn { .. } | Decision::LetOn { .. } => {
            Stage::Drop(DropReason::NoPolicy)
        }
    };
}

/// A NAT-keepalive (RFC 3948 §2.3), which a receiver ignores: what nobody wants is that, and not a packet in clear.
fn is_keepalive(frame: &Frame, meta: &Meta, ports: &UdpPorts) -> bool {
    let udp = frame.bytes().get(meta.ip.payload()..);
    meta.ip.protocol() == protocol::UDP
        && ports.has_some(meta.ip.dst_port())
        && udp.is_some_and(|udp| udp.len() == wire::UDP + 1 && udp[wire::UDP] == 0xff)
}

/// The SAs that the policies have now, in a pass of its own.
fn find_sas(
    batch: &mut Batch,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        if is_current(meta.sa, meta.policy, sas, reader) {
            sas.prefetch_key(meta.sa);
        } else {
            find_sa(frame, meta, (sas, flows), (reader, runtime));
        }
    }
}

/// Whether a state is of the SA that a policy has now.
#[inline(always)]
fn is_current(state: u32, policy: PolicyIndex, sas: &SaTable, reader: &Reader) -> bool {
    reader.policy_sa(policy).is_some_and(|slot| sas.is_at(state, slot))
}

/// An SA that is not where it was the last time, or that of a packet's class, or of this worker. A packet without one is
/// dropped.
#[inline(never)]
fn find_sa(
    frame: &mut Frame,
    meta: &mut Meta,
    (sas, flows): (&mut SaTable, &mut FlowCache),
    (reader, runtime): (&Reader, &Runtime),
) {
    let slot = reader.sa_for(meta.policy, meta.ip.dscp(), sas.worker());
    if slot.is_some_and(|slot| sas.is_at(meta.sa, slot)) {
        return;
    }
    match slot.map_or(Found::Nowhere, |slot| sas.find(slot, reader, runtime)) {
        Found::Here(state) if sas.get(state).direction == Direction::Outbound => {
            meta.sa = state;
            // The next packet of the flow may be of another class.
            if !reader.has_classes(meta.policy) {
                flows.keep(meta.homes[0], meta.ip.key(), |decision| decision.found_at(state));
            }
        }
        Found::General(_) => meta.stage = Stage::General(Why::Outbound),
        Found::At(owner) => meta.stage = hand_off(frame, meta, owner),
        Found::Here(_) | Found::Nowhere => meta.stage = Stage::Unkeyed,
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

/// Headers and trailers, and what is to be sealed. A call, so that the loop has the registers to itself.
#[inline(never)]
fn encapsulate<'a>(
    batch: &'a mut Batch,
    sas: &'a mut SaTable,
    runtime: &Runtime,
    mut jobs: Option<(&mut ArrayVec<Job<'a>, BATCH>, &mut Noted)>,
) {
    let is_far = sas.is_far();
    let (states, keys) = sas.split();
    let keys = &keys[..states.len()];
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        let i = meta.sa as usize;
        // A state without a key is of an SA that has taken another's place, and goes the general way.
        let (Some(Some(sa)), Some(Some(key))) = (states.get_mut(i), keys.get(i)) else {
            meta.stage = Stage::General(Why::Outbound);
            continue;
        };
        if is_far {
            key.prefetch_powers();
        }
        let jobs = jobs.as_mut().map(|(jobs, noted)| (&mut **jobs, &mut **noted));
        if let Err(reason) = protect(frame, meta, (sa, key), runtime, jobs) {
            meta.stage = refused(reason);
        }
    }
}

/// What does not fit is cut, or its source is told; whether an SA is at its end is for the general path to say.
#[cold]
fn refused(reason: DropReason) -> Stage {
    match reason {
        DropReason::TooBig | DropReason::SeqExhausted => Stage::General(Why::Outbound),
        reason => Stage::Drop(reason),
    }
}

/// One packet.
#[inline(always)]
fn protect<'a>(
    frame: &'a mut Frame,
    meta: &mut Meta,
    (sa, key): (&mut SaState, &'a AeadKey),
    runtime: &Runtime,
    jobs: Option<(&mut ArrayVec<Job<'a>, BATCH>, &mut Noted)>,
) -> Result<(), DropReason> {
    if sa.mtu != 0 && sa.outer.outer_len(meta.ip.len()) > sa.mtu as usize {
        return Err(DropReason::TooBig);
    }
    if !sa.has_seq(runtime) {
        return Err(DropReason::SeqExhausted);
    }
    // A packet that is forwarded into the tunnel (RFC 4301 §5.1.2.1).
    wire::decrement_ttl(frame.bytes_mut())?;
    // RFC 4303 §3.3.3. A number that is assigned is used up, whatever becomes of the packet.
    let seq = sa.next_seq();
    let packet = sa.outer.encap(frame, &meta.ip, sa.spi, seq)?;
    let Some((jobs, noted)) = jobs else {
        (meta.seq, meta.esp.at) = (seq, sa.outer.len() as u16);
        return Ok(());
    };
    let (iv, aad) = (seq.to_be_bytes(), crypto::aad(sa.spi, seq, sa.esn));
    let Some(job) = Job::new(key, iv, aad, crypto::ICV as u8, packet) else {
        return Err(DropReason::Malformed); // what is not sealed does not leave
    };
    jobs.push(job);
    if !sa.outer.has_checksum() {
        // What there is a job for is sealed before anyone looks at it again.
        if sa.count(1, meta.ip.len()) {
            noted.push(meta.sa);
        }
        meta.stage = Stage::Sealed;
    }
    Ok(())
}

/// What was sealed and could not leave yet.
pub fn finish(batch: &mut Batch, sas: &mut SaTable, (reader, runtime): (&Reader, &Runtime)) {
    let has_checksums = sas.has_checksums();
    // Of the SA that the last packets were of.
    let (mut last, mut packets, mut octets) = (u32::MAX, 0, 0);
    let count = |sas: &mut SaTable, i, packets, octets| {
        if packets > 0 && sas.get_mut(i).count(packets, octets) {
            sas.note(i, reader, runtime);
        }
    };
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        if meta.stage != Stage::Outbound {
            continue;
        }
        frame.prefetch_in_front();
        if has_checksums {
            sas.get(meta.sa).outer.sealed(frame);
        }
        if meta.sa != last {
            count(sas, last, packets, octets);
            (last, packets, octets) = (meta.sa, 0, 0);
        }
        (packets, octets) = (packets + 1, octets + meta.ip.len());
        meta.stage = Stage::Sealed;
    }
    count(sas, last, packets, octets);
}
