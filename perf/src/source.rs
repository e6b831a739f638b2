//! The generator on interfaces: sends by AF_XDP, and counts what comes.

use crate::{
    clock::{self, Machine},
    generator::{
        Generator, Sent,
        pace::Pace,
        receiver::Receiver,
        replay::{Replay, Timing},
        times::Times,
        writer::Stream,
    },
    interface::{Interfaces, Lane},
};
use arrayvec::ArrayVec;
use portcullis_datapath::{idle, port::Port};
use std::{
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Turns without a frame before a receiver sleeps, and how long: as a worker does.
const IDLE_TURNS: u32 = 256;
const SLEEP_MS: i32 = 50;

/// Sends a stream at a rate, in frames per second, or as fast as the interface takes it. What was sent, and by how much
/// bursts left late.
///
/// # Errors
/// A stream that there is not.
pub fn send(
    interfaces: &mut Interfaces,
    stream: &Stream,
    rate: Option<f64>,
    duration: Duration,
) -> Result<(Sent, Times), Box<dyn Error>> {
    let hz = Machine::this().hz;
    let mut generator = Generator::new(stream, hz)?;
    let Lane { ports, cache } = &mut interfaces.lanes[0];
    let port = &mut ports[0];
    let start = clock::now();
    let end = start + (duration.as_secs_f64() * hz) as u64;
    generator.set_pace(rate.map(|rate| Pace::new(start, hz, rate)));
    while clock::now() < end {
        generator.turn(port, cache, || clock::now().min(end - 1));
    }
    generator.close(cache);
    Ok((generator.sent(), generator.lateness))
}

/// How long the kernel has to take what is left at the end.
const LEAVES: Duration = Duration::from_secs(1);

/// Sends a capture by the first of the interfaces, until all was sent that is to be or the time is over. Times are made of a
/// start and of clocks per second. How long that took, and how many of the last frames the kernel never took.
pub fn replay(
    interfaces: &mut Interfaces,
    replay: &mut Replay,
    timing: impl FnOnce(u64, f64) -> Timing,
    most: Option<Duration>,
) -> (Duration, u32) {
    let hz = Machine::this().hz;
    let Lane { ports, cache } = &mut interfaces.lanes[0];
    let clocks = |time: Duration| (time.as_secs_f64() * hz) as u64;
    let (port, start) = (&mut ports[0], clock::now());
    let end = most.map_or(u64::MAX, |most| start.saturating_add(clocks(most)));
    replay.set_timing(timing(start, hz));
    while !replay.is_done() && clock::now() < end {
        replay.turn(port, cache, || clock::now().min(end - 1));
    }
    replay.close(cache);
    let over = clock::now();
    while port.unsent() > 0 && clock::now() < over.saturating_add(clocks(LEAVES)) {
        port.maintain(cache);
    }
    (Duration::from_secs_f64((over - start) as f64 / hz), port.unsent())
}

/// Counts the packets of a run, in so many flows, until told to stop.
pub fn receive(interfaces: &mut Interfaces, (run, flows): (u64, u32), stop: &AtomicBool) -> Receiver {
    let mut receiver = Receiver::new(run, flows as usize, Machine::this().hz);
    let (Lane { ports, cache }, mut idle_turns) = (&mut interfaces.lanes[0], 0);
    let port = &mut ports[0];
    // Relaxed: nothing else is read on the strength of the flag.
    while !stop.load(Ordering::Relaxed) {
        idle_turns = if receiver.receive(port, cache, clock::now) > 0 { 0 } else { idle_turns + 1 };
        if idle_turns > IDLE_TURNS {
            let mut fds = ArrayVec::<libc::pollfd, 8>::new();
            port.poll_fds(&mut |fd| fds.push(idle::readable(fd)));
            idle::sleep_on(&mut fds, SLEEP_MS);
        }
    }
    receiver
}
