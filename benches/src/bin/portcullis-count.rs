//! Packets through a worker of each gateway, for valgrind's callgrind to count instructions: only while
//! [`counted_encap_turn`] or [`counted_decap_turn`] runs, whichever it is told (`--toggle-collect`). The same run
//! with twice the packets, less this one, is what the packets cost: set-up cancels out.
//! `scripts/prove speed/instructions` does all that.
//!
//! AES-NI seals and opens: valgrind knows neither VAES nor AVX-512. So the counts are comparable on all machines.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use clap::Parser;
use portcullis_datapath::{
    crypto::Aead,
    pool::FramePool,
    port::BURST,
    umem::{HugePages, Umem},
};
use portcullis_perf::{
    gateway::{Engine, Gateway, Lane, SOURCE, Setup, destination},
    traffic::{Size, Template},
};
use portcullis_sadb::{Algorithm, Direction};
use std::hint::black_box;

/// SAs, which the packets use in turn.
const SAS: u32 = 64;
const CHUNKS: u32 = 4096;
const FRAME_SIZE: u16 = 4096;

/// Takes packets through a worker that encapsulates and one that decapsulates, in memory.
#[derive(Parser)]
#[command(name = "portcullis-count", version)]
struct Options {
    /// Octets of clear IP packets, or `imix`.
    size: Size,
    /// How many of them: a multiple of a burst.
    packets: usize,
    /// What packets are sealed and opened by.
    #[arg(long, default_value = "aes-ni", value_parser = |name: &str| name.parse::<Aead>().map_err(|()| "no such AEAD"))]
    aead: Aead,
}

// The times differ so that the two are not one and the same code.
#[inline(never)]
fn counted_encap_turn(engine: &mut Engine) -> bool {
    engine.turn(black_box(1))
}

#[inline(never)]
fn counted_decap_turn(engine: &mut Engine) -> bool {
    engine.turn(black_box(2))
}

fn main() -> Result<()> {
    let Options { size, packets, aead } = Options::parse();
    ensure!(aead.is_available(), "this CPU has no {aead}");
    ensure!(packets.is_multiple_of(BURST), "packets come in bursts of {BURST}");
    let pool = FramePool::new(Umem::new(CHUNKS, FRAME_SIZE, HugePages::Off)?.0);
    let setup =
        Setup { sas: SAS, workers: 1, metered: false, algorithm: Algorithm::AES_GCM_128, aead, nat_t: false };
    let lane = |direction| -> Result<(Gateway, Lane)> {
        let (gateway, mut lanes) = Gateway::new(&setup, direction, &pool, 2 * BURST)?;
        Ok((gateway, lanes.pop().context("one worker has one lane")?))
    };
    let (_sender, mut left) = lane(Direction::Outbound)?;
    let (_receiver, mut right) = lane(Direction::Inbound)?;

    let (mut template, mut cache) = (Template::new(SOURCE), pool.cache());
    let mut lengths = size.pattern().into_iter().cycle();
    let mut flows = (0..SAS).cycle();
    let mut arrived = 0;
    for _ in 0..packets / BURST {
        for (len, flow) in lengths.by_ref().zip(flows.by_ref()).take(BURST) {
            let mut frame = cache.take().context("free chunks")?;
            ensure!(template.fill(&mut frame, len, destination(flow), &mut cache), "free chunks");
            ensure!(left.lan.send(frame).is_ok(), "room for a burst");
        }
        while left.wan.waiting() < BURST && counted_encap_turn(&mut left.engine) {}
        while let Some(frame) = left.wan.receive() {
            ensure!(right.wan.send(frame).is_ok(), "room for a burst");
        }
        while right.lan.waiting() < BURST && counted_decap_turn(&mut right.engine) {}
        while let Some(frame) = right.lan.receive() {
            cache.give(frame);
            arrived += 1;
        }
    }
    ensure!(arrived == packets, "of {packets} packets {arrived} arrived");
    println!("{packets} packets of {size} octets went through");
    Ok(())
}
