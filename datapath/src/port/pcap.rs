//! Ports over capture files: what one file holds is received, what is sent goes to another. For replaying
//! captures and for tests; not for speed, except where a capture is repeated from memory and nothing is written.
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
    ops::Range,
    os::fd::BorrowedFd,
    path::Path,
    time::Duration,
};

/// Where a port's packets come from.
enum Source {
    /// The next packet of a file.
    File(PcapReader<BufReader<File>>),
    /// A capture in memory, over and over.
    Repeat(Repeat),
    /// Nothing, or nothing more.
    None,
}

/// The packets of a capture, one behind the other, and which is next.
struct Repeat {
    bytes: Vec<u8>,
    packets: Vec<Range<usize>>,
    next: usize,
}

/// A port that reads one capture and writes another.
pub struct PcapPort {
    name: String,
    rx: Source,
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
        let rx = rx.map(reader).transpose()?.map_or(Source::None, Source::File);
        let writer = tx
            .map(|path| PcapWriter::new(BufWriter::new(File::create(path).map_err(PcapError::IoError)?)))
            .transpose()?;
        let (sent, stats) = (ArrayVec::new(), PortStats::default());
        Ok(PcapPort { name, rx, tx: writer, sent, stats, packets_sent: 0 })
    }

    /// Reads all of `rx` into memory and receives it without end; what is sent goes nowhere.
    ///
    /// # Errors
    /// A file that cannot be read, is no capture, is damaged, or holds no packet.
    pub fn repeat(rx: &Path) -> Result<PcapPort, PcapError> {
        let mut port = PcapPort::open(None, None)?;
        let (mut bytes, mut packets) = (vec![], vec![]);
        let mut reader = reader(rx)?;
        while let Some(packet) = reader.next_packet() {
            let start = bytes.len();
            bytes.extend_from_slice(&packet?.data);
            packets.push(start..bytes.len());
        }
        if packets.is_empty() {
            return Err(PcapError::IncompleteBuffer);
        }
        port.rx = Source::Repeat(Repeat { bytes, packets, next: 0 });
        port.name = rx.display().to_string();
        Ok(port)
    }

    /// Whether all packets of the capture were received: never, if it is repeated.
    pub fn is_exhausted(&self) -> bool {
        matches!(self.rx, Source::None)
    }
}

fn reader(path: &Path) -> Result<PcapReader<BufReader<File>>, PcapError> {
    PcapReader::new(BufReader::new(File::open(path).map_err(PcapError::IoError)?))
}

impl Repeat {
    fn next(&mut self) -> &[u8] {
        let packet = self.packets[self.next].clone();
        self.next = if self.next + 1 < self.packets.len() { self.next + 1 } else { 0 };
        &self.bytes[packet]
    }
}

/// Adds a frame of these bytes, or counts that there was no chunk for it.
fn receive(bytes: &[u8], out: &mut ArrayVec<Frame, BATCH>, cache: &mut FrameCache, stats: &mut PortStats) {
    let Some(mut frame) = cache.take() else {
        stats.rx_no_chunk += 1;
        return;
    };
    if frame.scatter(bytes, cache) {
        out.push(frame);
    } else {
        stats.rx_no_chunk += 1;
        cache.give(frame);
    }
}

impl Port for PcapPort {
    fn name(&self) -> &str {
        &self.name
    }

    fn rx(&mut self, out: &mut ArrayVec<Frame, BATCH>, cache: &mut FrameCache) {
        for _ in 0..BURST.min(out.remaining_capacity()) {
            match &mut self.rx {
                Source::Repeat(capture) => receive(capture.next(), out, cache, &mut self.stats),
                Source::File(reader) => match reader.next_packet() {
                    Some(Ok(packet)) => receive(&packet.data, out, cache, &mut self.stats),
                    Some(Err(_)) => {
                        self.stats.invalid += 1;
                        self.rx = Source::None;
                    }
                    None => self.rx = Source::None,
                },
                Source::None => return,
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
