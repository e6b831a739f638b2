//! A device on interfaces: gateways that stand between two of this host's, over veth or NICs. Frames go out by one and are
//! counted at the other, both by AF_XDP; what the gateways are is not known here. Each sender has a core; the first receives, too.
//!
//! Time is real: what was due and could not be sent within a thousandth of the trial after its end was not offered, and is
//! lost. So a source that is too slow never shows a rate that it cannot send.

use crate::{
    clock::{self, Machine},
    generator::{
        Generator,
        pace::Pace,
        receiver::{Received, Receiver},
        times::Times,
        writer::Stream,
    },
    interface::{Interfaces, pin},
    trial::{Device, Load, Trial},
};
use portcullis_datapath::{
    batch::BATCH,
    pool::FrameCache,
    port::{Port, af_xdp::AfXdpPort},
};
use std::{
    error::Error,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Nothing has come for so long, and no more will. What does is of another run, and not counted in the next trial.
const SETTLED: Duration = Duration::from_millis(200);
/// Part of a trial after its end, in which what is late may still leave: but so long at least, which a source may be held up for.
const GRACE: u64 = 1000;
const LEAST_GRACE: Duration = Duration::from_micros(100);

/// Two interfaces, and what goes from one to the other.
pub struct Wire {
    interfaces: Interfaces,
    /// One for each lane.
    generators: Vec<Generator>,
    receiver: Receiver,
    waits: Times,
    first_core: Option<usize>,
    hz: f64,
    run: u64,
}

/// What was seen of a load.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Seen {
    /// Frames offered, and those that the interface had no room for among them.
    pub offered: u64,
    /// Frames that came, each once.
    pub received: u64,
    /// For how long frames were due.
    pub duration: Duration,
    /// The longest time in which none came, up to when the last was due.
    pub silence: Duration,
    /// That at the end of it.
    pub last_silence: Duration,
}

/// What senders tell each other of a load.
struct Shared {
    /// When it began.
    start: u64,
    /// Clocks after that when it ends, once that is known.
    end: AtomicU64,
    /// Clocks behind the end, at least, in which what is late may still leave.
    least_grace: u64,
    /// Senders that have not ended.
    sending: AtomicUsize,
    /// Frames offered by those that have.
    offered: AtomicU64,
}

impl Shared {
    /// Sends a burst of what is due. True, if that was all.
    fn send(&self, generator: &mut Generator, port: &mut AfXdpPort, cache: &mut FrameCache) -> bool {
        // Relaxed: nothing else is read on the strength of it.
        let end = self.end.load(Ordering::Relaxed);
        let last = self.start.saturating_add(end) - 1;
        let sent = generator.turn(port, cache, || clock::now().min(last));
        let now = clock::now() - self.start;
        let grace = self.least_grace.max(end / GRACE);
        let is_over = now >= end && (sent == 0 || now - end >= grace);
        if is_over {
            self.offered.fetch_add(generator.sent().offered(), Ordering::Relaxed);
            // Release: who sees nobody sending sees what all have offered.
            self.sending.fetch_sub(1, Ordering::Release);
        }
        is_over
    }
}

impl Wire {
    /// Sends these streams, each from a core of its own, out of the first interface, and counts at the second; their source
    /// address is set to the interface's own. A run is a number that no other program's is at the same time.
    ///
    /// # Errors
    /// Interfaces that cannot be opened; a stream that there is not.
    pub fn open(
        [out, back]: [&str; 2],
        streams: Vec<Stream>,
        run: u64,
        first_core: Option<usize>,
    ) -> Result<Wire, Box<dyn Error>> {
        if out == back {
            return Err(format!(
                "--out and --in are both {out}: what is sent would not be told from what comes"
            )
            .into());
        }
        let interfaces = Interfaces::open(&[out.to_owned(), back.to_owned()], &[back], streams.len())?;
        let (hz, src_mac) = (Machine::this().hz, interfaces.links[0].mac);
        let flows = streams.iter().map(|stream| stream.flows.count as usize).sum();
        let generators =
            streams.into_iter().map(|stream| Generator::new(&Stream { src_mac, run, ..stream }, hz));
        let generators: Vec<Generator> = generators.collect::<Result<_, _>>()?;
        let receiver = Receiver::new(run, flows, hz);
        Ok(Wire { interfaces, generators, receiver, waits: Times::new(hz), first_core, hz, run })
    }

    /// Latency of the last load's packets, from when they were due.
    pub fn latency(&self) -> &Times {
        &self.receiver.latency
    }

    /// By how much the last load's frames were late, each as the first of its burst.
    pub fn lateness(&self) -> Times {
        let mut all = self.generators[0].lateness.clone();
        self.generators[1..].iter().for_each(|generator| all.add(&generator.lateness));
        all
    }

    /// How long the last load's packets may have waited until they were received: since it was looked for them before. That is part
    /// of their latency, and the generator's own.
    pub fn waits(&self) -> &Times {
        &self.waits
    }

    /// All that came of the last load.
    pub fn received(&self) -> Received {
        self.receiver.received()
    }

    /// Offers a load until the end, which is asked for all the time: told the time since the start, `end` says when after it
    /// the load ends or has ended, once it knows.
    ///
    /// # Errors
    /// What is no load; what `end` says.
    pub fn offer(
        &mut self,
        load: Load,
        mut end: impl FnMut(Duration) -> Result<Option<Duration>, Box<dyn Error>>,
    ) -> Result<Seen, Box<dyn Error>> {
        if !(load.0 > 0.0 && load.0.is_finite()) {
            return Err(format!("{} frames per second are no load", load.0).into());
        }
        let Wire { interfaces, generators, receiver, waits, first_core, hz, run } = self;
        let (hz, senders) = (*hz, generators.len());
        // Another than any load had before, so that what is left of that is foreign.
        *run += 1;
        receiver.restart(*run);
        waits.clear();
        let shared = Shared {
            start: clock::now(),
            end: AtomicU64::new(u64::MAX),
            least_grace: (LEAST_GRACE.as_secs_f64() * hz) as u64,
            sending: AtomicUsize::new(senders),
            offered: AtomicU64::new(0),
        };
        for (n, generator) in generators.iter_mut().enumerate() {
            generator.restart(*run);
            // Between those of the others.
            let start = shared.start + (n as f64 * hz / load.0) as u64;
            generator.set_pace(Some(Pace::new(start, hz, load.0 / senders as f64)));
        }
        let lanes = &mut interfaces.lanes;
        thread::scope(|scope| {
            let [first, others @ ..] = lanes.as_mut_slice() else { unreachable!("one lane at least") };
            let [generator, other_generators @ ..] = generators.as_mut_slice() else {
                unreachable!("one for each lane")
            };
            for (n, (lane, generator)) in others.iter_mut().zip(other_generators).enumerate() {
                let (shared, core) = (&shared, first_core.map(|first| first + 1 + n));
                scope.spawn(move || {
                    // A core that is not to be had was told of when it was opened.
                    _ = pin(core);
                    while !shared.send(generator, &mut lane.ports[0], &mut lane.cache) {}
                });
            }
            let time = |clocks: u64| Duration::from_secs_f64(clocks as f64 / hz);
            let (mut last, mut silence, mut duration) = (0, 0, None);
            let (ports, cache) = (&mut first.ports, &mut first.cache);
            let [out, back] = ports.as_mut_slice() else { unreachable!("two were opened") };
            let (mut is_sending, mut looked) = (true, 0);
            loop {
                let now = clock::now() - shared.start;
                if duration.is_none() {
                    let told = end(time(now)).inspect_err(|_| shared.end.store(now, Ordering::Relaxed))?;
                    duration = told.map(|end| (end.as_secs_f64() * hz) as u64);
                    duration.iter().for_each(|end| shared.end.store(*end, Ordering::Relaxed));
                }
                if is_sending {
                    is_sending = !shared.send(generator, out, cache);
                } else {
                    out.maintain(cache);
                }
                // What others send there is neither a sign of life nor what is still to come.
                let ours = receiver.own();
                let frames = receiver.receive(back, cache, clock::now);
                if receiver.own() > ours {
                    waits.record_many(clock::now() - shared.start - looked, receiver.own() - ours);
                    let before = duration.is_none_or(|end| now < end);
                    silence = if before { silence.max(now - last) } else { silence };
                    last = now;
                }
                // What there was no room for in a burst was there before, too.
                looked = if frames < BATCH { now } else { looked };
                // Acquire: with what all have offered.
                let Some(end) = duration.filter(|_| shared.sending.load(Ordering::Acquire) == 0) else {
                    continue;
                };
                let offered = shared.offered.load(Ordering::Relaxed);
                let is_settled = now.saturating_sub(last.max(end)) > (SETTLED.as_secs_f64() * hz) as u64;
                let received = receiver.received().tally.received;
                if received >= offered || is_settled {
                    let last_silence = end.saturating_sub(last);
                    let (duration, silence) = (time(end), time(silence.max(last_silence)));
                    let last_silence = time(last_silence);
                    return Ok(Seen { offered, received, duration, silence, last_silence });
                }
            }
        })
    }
}

impl Device for Wire {
    fn trial(&mut self, load: Load, duration: Duration) -> Result<Trial, Box<dyn Error>> {
        let wall = Instant::now();
        let Seen { offered: sent, received, .. } = self.offer(load, |_| Ok(Some(duration)))?;
        Ok(Trial { offered: load, sent, received, duration, taken: wall.elapsed() })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // What cannot be detached now is when the process ends.
        _ = self.interfaces.detach();
    }
}
