//! What the generator takes itself, in memory, on one core: it must be faster than what it measures, and what it writes
//! into packets must not make them dearer.

use super::{
    Generator,
    flows::{Addresses, Choice, Flows},
    receiver::Receiver,
    writer::Stream,
};
use crate::{
    clock::{self, Machine},
    device::{InMemory, Way},
    gateway::{SOURCE, Setup, destination},
    traffic::{Random, Size},
};
use arrayvec::ArrayVec;
use portcullis_datapath::{
    batch::BATCH,
    crypto::Aead,
    fib::Mac,
    frame::Frame,
    pool::FramePool,
    port::{BURST, Port, memory::MemoryPort},
    umem::{HugePages, Umem},
};
use portcullis_sadb::Algorithm;
use std::error::Error;

/// Frames of a run: long enough that reading the clock is nothing.
const FRAMES: usize = 65_536;
/// Chunks, which go round.
const CHUNKS: u32 = 1024;
const CHUNK: u16 = 4096;
/// Bursts of a run through a device.
const BURSTS: usize = 256;

/// Frames per second of one core.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// Written, sent, and given back at the other end.
    pub sent: f64,
    /// The same without stamps.
    pub unstamped: f64,
    /// The same with stamps, and counted at the other end: by flow, with their latency.
    pub counted: f64,
}

/// What stamps do to a gateway that seals packets with one SA.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stamps {
    /// Clocks for a packet with a stamp.
    pub stamped: f64,
    /// Clocks for one without.
    pub unstamped: f64,
    /// What stamps add to one without, as a part of it: the median over pairs of runs.
    pub added: f64,
}

fn stream(octets: u16, flows: u32, stamped: bool) -> Stream {
    Stream {
        dst_mac: Mac([2, 0, 0, 0, 1, 0]),
        src_mac: Mac([2, 0, 0, 0, 2, 0]),
        mix: Size::Octets(octets).into(),
        flows: Flows {
            dst: Addresses { first: destination(0).into(), count: flows },
            count: flows,
            packets: Choice::Random,
            ..Flows::one(SOURCE.into(), destination(0).into())
        },
        stamped,
        first_flow: 0,
        run: 1,
    }
}

/// How fast IP packets of so many octets are sent, of so many flows at random; each run in turn with the others.
///
/// # Errors
/// A stream that there is not.
pub fn rates(octets: u16, flows: u32, rounds: usize) -> Result<Rates, Box<dyn Error>> {
    let hz = Machine::this().hz;
    let pool = FramePool::new(Umem::new(CHUNKS, CHUNK, HugePages::Auto)?.0);
    let (mut cache, (mut near, mut far)) = (pool.cache(), MemoryPort::pair("memory", CHUNKS as usize));
    let mut stamped = Generator::new(&stream(octets, flows, true), hz)?;
    let mut unstamped = Generator::new(&stream(octets, flows, false), hz)?;
    let mut receiver = Receiver::new(1, flows as usize, hz);
    let mut clocks = [vec![], vec![], vec![]];
    let (mut order, mut turns) = (Random::new(1), [0, 1, 2]);
    // The first round is not counted.
    for round in 0..=rounds {
        order.shuffle(&mut turns);
        for kind in turns {
            let mut list = ArrayVec::<Frame, BATCH>::new();
            let (start, mut frames) = (clock::now(), 0);
            while frames < FRAMES {
                let generator = if kind == 1 { &mut unstamped } else { &mut stamped };
                generator.turn(&mut near, &mut cache, clock::now);
                if kind == 2 {
                    frames += receiver.receive(&mut far, &mut cache, clock::now);
                } else {
                    far.rx(&mut list, &mut cache);
                    frames += list.len();
                    list.drain(..).for_each(|frame| cache.give(frame));
                }
            }
            if round > 0 {
                clocks[kind].push((clock::now() - start) as f64 / frames as f64);
            }
        }
    }
    let [sent, unstamped, counted] = clocks.map(|clocks| hz / median(clocks));
    Ok(Rates { sent, unstamped, counted })
}

/// What stamps add to what a gateway takes for packets of so many octets.
///
/// # Errors
/// As of a device in memory.
pub fn stamps(octets: u16, rounds: usize) -> Result<Stamps, Box<dyn Error>> {
    let (algorithm, aead) = (Algorithm::AES_GCM_128, Aead::best());
    let setup = Setup { sas: 1, workers: 1, metered: false, algorithm, aead, nat_t: false };
    let mut device = InMemory::new(&setup, Way::Encap, &Size::Octets(octets).into(), 1)?;
    // The same gateway and the same chunks for both: neither has better memory.
    let with = |stamped| Generator::new(&stream(octets, 1, stamped), device.hz());
    let mut generators = [with(true)?, with(false)?];
    let mut clocks = [vec![], vec![]];
    for round in 0..=rounds {
        for kind in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            device.swap(&mut generators[kind]);
            let run: u64 = (0..BURSTS).map(|_| device.burst()).sum();
            device.swap(&mut generators[kind]);
            if round > 0 {
                clocks[kind].push(run as f64 / (BURSTS * BURST) as f64);
            }
        }
    }
    let added = clocks[0].iter().zip(&clocks[1]).map(|(with, without)| with / without - 1.0).collect();
    let [stamped, unstamped] = clocks.map(median);
    Ok(Stamps { stamped, unstamped, added: median(added) })
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}
