//! Ports over capture files: what one file holds is received, what is sent goes to another. For replaying
//! captures and for tests; not for speed.
//!
//! The classic pcap format, read in either byte order and written in ours, Ethernet, microseconds.

use super::{BURST, Port, PortStats};
use crate::{batch::BATCH, frame::Frame, pool::FrameCache};
use arrayvec::ArrayVec;
use pcap_file::{
    PcapError,
    pcap::{PcapPacket, PcapReader, PcapWriter},
};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Write},
    os::fd::BorrowedFd,
    path::Path,
    time::Duration,
};

/// A port that reads one capture and writes another.
pub struct PcapPort {
    name: String,
    rx: Option<PcapReader<BufReader<File>>>,
    tx: Option<PcapWriter<BufWriter<File>>>,
    /// Sent frames, until the next `maintain` gives them back.
    sent: ArrayVec<Frame, BATCH>,
    stats: PortStats,
    packets_sent: u64,
}

impl PcapPort {
    /// Reads `rx`, if given, and writes `tx`, if given.
    ///
    /// # Errors
    /// A file that cannot be opened, or is no capture.
    pub fn open(rx: Option<&Path>, tx: Option<&Path>) -> Result<PcapPort, PcapError> {
        let name = rx.or(tx).map_or_else(String::new, |p| p.display().to_string());
        let reader = rx
            .map(|path| PcapReader::new(BufReader::new(File::open(path).map_err(PcapError::IoError)?)))
            .transpose()?;
        let writer = tx
            .map(|path| PcapWriter::new(BufWriter::new(File::create(path).map_err(PcapError::IoError)?)))
            .transpose()?;
        let (sent, stats) = (ArrayVec::new(), PortStats::default());
        Ok(PcapPort { name, rx: reader, tx: writer, sent, stats, packets_sent: 0 })
    }

    /// Whether all packets of the capture were received.
    pub fn is_exhausted(&self) -> bool {
        self.rx.is_none()
    }
}

impl Port for PcapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx(&mut self, out: &mut ArrayVec<Frame, BATCH>, cache: &mut FrameCache) {
        for _ in 0..BURST.min(out.remaining_capacity()) {
            let Some(reader) = &mut self.rx else { return };
            match reader.next_packet() {
                Some(Ok(packet)) => {
                    let Some(mut frame) = cache.take() else {
                        self.stats.rx_no_chunk += 1;
                        continue;
                    };
                    if frame.scatter(&packet.data, cache) {
                        out.push(frame);
                    } else {
                        self.stats.rx_no_chunk += 1;
                        cache.give(frame);
                    }
                }
                Some(Err(_)) => {
                    self.stats.invalid += 1;
                    self.rx = None;
                }
                None => self.rx = None,
            }
        }
    }

    fn tx(&mut self, frames: &mut ArrayVec<Frame, BATCH>) {
        let room = self.sent.remaining_capacity();
        for frame in frames.drain(..room.min(frames.len())) {
            if let Some(writer) = &mut self.tx {
                let mut data = vec![0; frame.total_len()];
                frame.gather(&mut data);
                // There is no clock here: packets are a microsecond apart.
                let at = Duration::from_micros(self.packets_sent);
                let packet = PcapPacket::new_owned(at, data.len() as u32, data);
                self.stats.invalid += u64::from(writer.write_packet(&packet).is_err());
                self.packets_sent += 1;
            }
            self.sent.push(frame);
        }
    }

    fn maintain(&mut self, cache: &mut FrameCache) {
        self.sent.drain(..).for_each(|f| cache.give(f));
    }

    fn poll_fds(&self, _tell: &mut dyn FnMut(BorrowedFd<'_>)) {}

    fn stats(&self) -> PortStats {
        self.stats
    }

    fn close(&mut self, cache: &mut FrameCache) {
        self.maintain(cache);
        if let Some(writer) = self.tx.take() {
            self.stats.invalid += u64::from(writer.into_writer().flush().is_err());
        }
    }
}
