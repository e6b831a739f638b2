//! A part of a batch, on loan: frames, and what a borrower has to know of them.
//!
//! It goes from core to core and back, and each cache line of it costs both of them. So packets are told of in runs, which
//! have the length of a batch where it is of one SA; and a borrower writes nothing but what became of each run.

use crate::{
    batch::{Batch, Meta, Stage},
    crypto::IcvVerified,
    drop::DropReason,
    esp,
    frame::Frame,
    inbound::Verified,
    sa::SaTable,
    wire,
};
use arrayvec::ArrayVec;
use portcullis_sadb::{Generation, Reader, SlotIndex, prefetch_at};

/// Packets of a loan, at most.
pub const PACKETS: usize = 32;

/// What is to be done with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Seal,
    Open,
    /// It only keeps its place.
    Nothing,
}

impl Work {
    #[inline]
    fn of(stage: Stage) -> Work {
        match stage {
            Stage::Outbound => Work::Seal,
            Stage::Inbound => Work::Open,
            _ => Work::Nothing,
        }
    }
}

/// Packets one after the other, of one SA and with numbers one after the other.
pub(super) struct Run {
    pub(super) work: Work,
    /// Whether it was done. If not, its SA is gone.
    pub(super) is_done: bool,
    pub(super) packets: u8,
    /// Where their ESP headers start.
    pub(super) esp: u16,
    /// Its owner's index of the SA.
    index: u32,
    /// The number of the first packet.
    pub(super) seq: u64,
    /// The SA, unless the rest of their way does without.
    pub(super) sa: Option<(SlotIndex, Generation)>,
}

/// A part of a batch, on loan.
#[repr(C, align(64))]
pub struct Loan {
    pub(super) owner: usize,
    /// Which batch of its owner's, and which part of it.
    pub(super) batch: u64,
    pub(super) part: usize,
    pub(super) runs: ArrayVec<Run, PACKETS>,
    pub(super) frames: ArrayVec<Frame, PACKETS>,
    /// Of the packets that were opened, whether the ICV is right.
    pub(super) verified: ArrayVec<Option<IcvVerified>, PACKETS>,
}

impl Loan {
    /// An empty one.
    pub(super) fn new(owner: usize) -> Loan {
        let (runs, frames, verified) = Default::default();
        Loan { owner, batch: 0, part: 0, runs, frames, verified }
    }

    /// Takes the frames with these metas, as many as there are.
    #[inline]
    pub(super) fn fill(&mut self, frames: &mut impl Iterator<Item = Frame>, metas: &[Meta], sas: &SaTable) {
        self.frames.extend(frames.take(metas.len()));
        for meta in metas {
            match self.runs.last_mut() {
                Some(run) if run.is_continued_by(meta) => run.packets += 1,
                _ => self.runs.push(Run::new(meta, sas)),
            }
        }
    }

    /// Brings what a borrower reads into the CPU's cache, all at once: it comes from another core's.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch_at(&raw const self.owner);
        let frames = (&raw const self.frames).cast::<[u8; 64]>();
        (0..=PACKETS * size_of::<Frame>() / 64).for_each(|line| prefetch_at(frames.wrapping_add(line)));
    }

    /// The same of what a borrower has written, in the loan and in the packets, as far as their owner looks at it.
    #[inline]
    pub(super) fn prefetch_done(&self) {
        prefetch_at(&raw const self.verified);
        let mut rest = &self.frames[..];
        for run in &self.runs {
            let (frames, behind) = rest.split_at(run.packets as usize);
            rest = behind;
            if run.work == Work::Open {
                let text = run.esp as usize + wire::ESP + esp::IV;
                frames.iter().for_each(|frame| esp::prefetch_opened(frame, text));
            }
        }
    }

    /// Gives the packets back to the batch that they were lent of. What was not done, or has lost its SA meanwhile, is
    /// dropped.
    pub(super) fn empty_into(
        &mut self,
        batch: &mut Batch,
        verified: &mut Verified,
        (sas, reader): (&SaTable, &Reader),
    ) {
        let (mut icvs, mut at) = (self.verified.drain(..), batch.frames.len());
        for run in self.runs.drain(..) {
            let metas = &mut batch.metas[at..at + run.packets as usize];
            at += metas.len();
            let Some(sa) = run.sa else { continue };
            let opened = if run.work == Work::Open && run.is_done { metas.len() } else { 0 };
            let icvs = icvs.by_ref().take(opened);
            if run.is_done && sas.is_alive(run.index, sa, reader) {
                verified.extend(icvs);
            } else {
                icvs.for_each(drop);
                let gone = if run.work == Work::Open { DropReason::UnknownSpi } else { DropReason::NoSa };
                metas.iter_mut().for_each(|meta| meta.stage = Stage::Drop(gone));
            }
        }
        drop(icvs);
        batch.frames.extend(self.frames.drain(..));
    }
}

impl Run {
    #[inline]
    fn new(meta: &Meta, sas: &SaTable) -> Run {
        let work = Work::of(meta.stage);
        let sa = (work != Work::Nothing).then(|| sas.get(meta.sa)).map(|sa| (sa.slot, sa.generation));
        Run { work, is_done: false, packets: 1, esp: meta.esp.at, index: meta.sa, seq: meta.seq, sa }
    }

    #[inline]
    fn is_continued_by(&self, meta: &Meta) -> bool {
        self.work != Work::Nothing
            && self.work == Work::of(meta.stage)
            && (self.index, self.esp) == (meta.sa, meta.esp.at)
            && self.seq.wrapping_add(self.packets as u64) == meta.seq
    }
}
