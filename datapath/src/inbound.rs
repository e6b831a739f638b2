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
    frame::Frame,
    policy::FlowCache,
    sa::{SaState, SaTable},
    wire,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Direction, Reader, Runtime, Spi};

/// Where the parts of an inbound packet are; the frame starts at the outer IP header.
#[derive(Clone, Copy)]
struct Parts {
    spi: u32,
    esp: usize,
    udp: bool,
    tos: u8,
    len: usize,
}

impl Parts {
    fn of(meta: &Meta) -> Option<Parts> {
        let Class::Esp { spi, esp, udp, tos, len, .. } = meta.class else { return None };
        (meta.stage == Stage::Inbound).then_some(Parts {
            spi,
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
pub fn run(batch: &mut Batch, sas: &mut SaTable, flows: &mut FlowCache, reader: &Reader, runtime: &Runtime) {
    if !batch.metas.iter().any(|m| m.stage == Stage::Inbound) {
        return;
    }
    find_sas(batch, sas, reader, runtime);
    check_replay(batch, sas);
    let verified = open(batch, sas);
    commit(batch, sas, runtime, &verified);
    decapsulate(batch, sas, flows, reader);
}

/// RFC 4303 §3.4.2: the SA, by its SPI.
fn find_sas(batch: &mut Batch, sas: &mut SaTable, reader: &Reader, runtime: &Runtime) {
    for meta in &batch.metas {
        if let Some(parts) = Parts::of(meta) {
            reader.prefetch_spi(Spi(parts.spi));
        }
    }
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        let Some(parts) = Parts::of(meta) else { continue };
        frame.truncate(parts.len);
        let found = reader.find(Spi(parts.spi)).and_then(|slot| sas.find(slot, reader, runtime));
        match found {
            // A slot that was taken over by another SA between the look at the index and at the slot.
            Some(i) if sas.get(i).spi != parts.spi || sas.get(i).direction != Direction::Inbound => {
                meta.stage = Stage::Drop(DropReason::UnknownSpi);
            }
            Some(i) if !is_for(frame, &parts, sas, i) => meta.stage = Stage::Drop(DropReason::SaMismatch),
            Some(i) => meta.sa = i,
            None => meta.stage = Stage::Drop(DropReason::UnknownSpi),
        }
    }
}

/// Whether a packet came the way that its SA was made for. Its source is not looked at: a peer behind a NAT
/// may move, and the ICV tells who it is.
fn is_for(frame: &Frame, parts: &Parts, sas: &SaTable, i: u32) -> bool {
    let sa = sas.get(i);
    parts.udp == sa.udp.is_some() && wire::Ip::parse(frame.bytes()).is_ok_and(|ip| ip.dst == sa.local)
}

fn check_replay(batch: &mut Batch, sas: &mut SaTable) {
    for (frame, meta) in batch.frames.iter().zip(&mut batch.metas) {
        let Some(parts) = Parts::of(meta) else { continue };
        let (sa, bytes) = (sas.get_mut(meta.sa), frame.bytes());
        let text = bytes.len() as isize - parts.text() as isize;
        // RFC 4303 §2.4: the encrypted part ends on a 4-octet boundary.
        if text < (esp::SMALLEST - wire::ESP - esp::IV) as isize || text % 4 != 0 {
            meta.stage = Stage::Drop(DropReason::Malformed);
            continue;
        }
        meta.seq = sa.window.infer(wire::be32(bytes, parts.esp + 4));
        if let Err(reason) = sa.window.check(meta.seq) {
            meta.stage = refused_by_window(sa, reason);
        }
    }
}

fn refused_by_window(sa: &mut SaState, reason: DropReason) -> Stage {
    match reason {
        DropReason::ReplayDuplicate => sa.counters.replay_duplicates += 1,
        _ => sa.counters.replay_too_old += 1,
    }
    Stage::Drop(reason)
}

/// RFC 4303 §3.4.4: verifies and decrypts. Answers are in the order of the frames still inbound.
fn open(batch: &mut Batch, sas: &SaTable) -> ArrayVec<Option<IcvVerified>, BATCH> {
    let mut jobs = ArrayVec::<Job<'_>, BATCH>::new();
    for (frame, meta) in batch.frames.iter_mut().zip(&batch.metas) {
        let Some(parts) = Parts::of(meta) else { continue };
        let sa = sas.get(meta.sa);
        let packet = &mut frame.bytes_mut()[parts.text() - crypto::HEAD..];
        let iv = *packet[..crypto::HEAD].last_chunk().expect("checked in check_replay");
        let aad = crypto::aad(parts.spi, meta.seq, sa.esn);
        jobs.push(Job { key: &sa.key, iv, aad, icv: crypto::ICV as u8, packet });
    }
    let mut verified = ArrayVec::new();
    sas.aead().open(&mut jobs, &mut verified);
    verified
}

/// RFC 4303 §3.4.3: moves the windows, and puts their tops where a restarted datapath will find them.
fn commit(
    batch: &mut Batch,
    sas: &mut SaTable,
    runtime: &Runtime,
    verified: &ArrayVec<Option<IcvVerified>, BATCH>,
) {
    let mut verified = verified.iter();
    for meta in batch.metas.iter_mut().filter(|m| m.stage == Stage::Inbound) {
        let sa = sas.get_mut(meta.sa);
        let Some(proof) = verified.next().copied().flatten() else {
            sa.counters.icv_failures += 1;
            meta.stage = Stage::Drop(DropReason::IcvMismatch);
            continue;
        };
        let top = sa.window.top();
        match sa.window.commit(meta.seq, proof) {
            Ok(()) if sa.window.top() > top => runtime.sa(sa.slot).see(sa.window.top()),
            Ok(()) => {}
            Err(reason) => meta.stage = refused_by_window(sa, reason),
        }
        meta.proof = Some(proof);
    }
}

/// RFC 4301 §5.2: the inner packet, and whether the policies let it in.
fn decapsulate(batch: &mut Batch, sas: &mut SaTable, flows: &mut FlowCache, reader: &Reader) {
    for (frame, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
        let (Some(parts), Some(proof)) = (Parts::of(meta), meta.proof) else { continue };
        let sa = sas.get_mut(meta.sa);
        let inner = esp::decap(frame, parts.text(), parts.tos, proof).and_then(|ip| {
            let flow = ip.flow(frame.bytes());
            match flows.inner(reader, &flow) {
                Some(reqid) if reqid == sa.reqid => Ok(ip),
                _ => Err(DropReason::SelectorMismatch),
            }
        });
        let forwarded = inner.and_then(|ip| wire::decrement_ttl(frame.bytes_mut()).map(|()| ip));
        meta.stage = match forwarded {
            Ok(ip) => {
                sa.counters.packets += 1;
                sa.counters.bytes += ip.len as u64;
                meta.dst = ip.dst;
                Stage::Forward
            }
            Err(reason) => {
                sa.counters.refused += u64::from(reason != DropReason::Dummy);
                Stage::Drop(reason)
            }
        };
    }
}
