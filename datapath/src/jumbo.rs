//! Jumbo packets, in several chunks of the umem: together for the hops, and apart again.

use crate::{
    batch::{Batch, Stage},
    drop::DropReason,
    esp,
    frame::Frame,
    pool::{FrameCache, RX_OFFSET},
    worker::Hops,
};

/// Packets in several segments, or that fill their chunk, go through the hops one by one, in a buffer with room.
pub(crate) struct Jumbo {
    batch: Batch,
    buffer: Option<Frame>,
}

impl Jumbo {
    /// Octets of the buffer: the largest IP packet does not fit, the largest jumbo frame does.
    const ROOM: u16 = 16 * 1024;

    pub(crate) fn new() -> Jumbo {
        Jumbo { batch: Batch::default(), buffer: Some(Frame::boxed(Jumbo::ROOM)) }
    }

    /// Whether a frame is one.
    pub(crate) fn is_one(frame: &Frame) -> bool {
        frame.segments() > 1 || frame.tailroom() < esp::TRAILER_ROOM
    }

    /// Takes the jumbos of a batch through.
    pub(crate) fn run(&mut self, batch: &mut Batch, hops: &mut Hops, cache: &mut FrameCache) {
        for (chain, meta) in batch.frames.iter_mut().zip(&mut batch.metas) {
            if !Jumbo::is_one(chain) {
                continue;
            }
            let Some(mut buffer) = self.buffer.take() else { continue };
            buffer.reset(RX_OFFSET);
            if !buffer.extend(chain.total_len()) {
                meta.stage = Stage::Drop(DropReason::NoFrame);
                self.buffer = Some(buffer);
                continue;
            }
            chain.gather(buffer.bytes_mut());
            self.batch.frames.push(buffer);
            self.batch.receive();
            hops.run(&mut self.batch, &mut ());
            if let Some(buffer) = self.batch.frames.pop() {
                *meta = self.batch.metas[0];
                if matches!(meta.stage, Stage::Sealed | Stage::Forward)
                    && !chain.scatter(buffer.bytes(), cache)
                {
                    meta.stage = Stage::Drop(DropReason::NoFrame);
                }
                self.buffer = Some(buffer);
            }
        }
    }
}
