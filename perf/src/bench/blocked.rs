//! For how long nothing goes through while something is done to gateways: frames lost, divided by the rate that they were
//! offered at (the frame-loss method of RFC 6201).

use super::{Measure, pairs::Workers, progress::Bar};
use crate::{
    clock::seconds,
    report::{Report, Table},
    trial::Load,
    wire::{Seen, Wire},
};
use clap::Args;
use serde_json::json;
use std::{
    error::Error,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How often it is looked whether a command has ended.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What is done, and to which gateways.
#[derive(Args, Debug)]
#[command(
    after_help = "Between interfaces only. The command is run by sh, and ends when what it does is done.\n\nExample:\n  \
                  portcullis bench blocked --out eth1 --in eth2 --dst-mac 02:00:00:00:00:01 --src 10.0.1.2 --dst 10.0.2.2 \
                  --event 'rekey=ssh gateway swanctl --rekey --child net' --event 'nothing=true'"
)]
pub struct Options {
    #[command(flatten)]
    workers: Workers,
    /// What is done, its name and a command; several times.
    #[arg(long, value_name = "NAME=COMMAND", num_args = 1, required = true, value_parser = event)]
    event: Vec<Event>,
    /// Frames per second.
    #[arg(long, value_name = "PPS", default_value_t = 10_000.0)]
    rate: f64,
    /// So often each, in turns with the others.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// How long frames are sent before the command.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    before: Duration,
    /// And after it has ended.
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    after: Duration,
}

/// Something to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Event {
    name: String,
    command: String,
}

fn event(text: &str) -> Result<Event, String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => {
            Ok(Event { name: name.to_owned(), command: command.to_owned() })
        }
        _ => Err("say NAME=COMMAND, as 'restart=systemctl restart portcullis'".to_owned()),
    }
}

/// What came of a command.
struct Came {
    seen: Seen,
    /// How long it took.
    took: Duration,
}

impl Came {
    fn lost(&self) -> u64 {
        self.seen.offered - self.seen.received.min(self.seen.offered)
    }

    /// Milliseconds.
    fn blocked(&self, rate: f64) -> f64 {
        1e3 * self.lost() as f64 / rate
    }
}

/// A command on its way.
struct Running {
    child: Child,
    since: Duration,
    looked: Duration,
}

impl Options {
    /// Offers the load, does it, and goes on for a while.
    fn once(&self, wire: &mut Wire, event: &Event) -> Result<Came, Box<dyn Error>> {
        let (mut running, mut took) = (None::<Running>, None::<(Duration, Duration)>);
        let seen = wire.offer(Load(self.rate), |now| {
            if let Some((_, end)) = took {
                return Ok(Some(end));
            }
            let Some(run) = &mut running else {
                if now >= self.before {
                    running = Some(Running { child: event.start()?, since: now, looked: now });
                }
                return Ok(None);
            };
            if now - run.looked >= LOOK_EVERY {
                run.looked = now;
                if event.has_ended(&mut run.child)? {
                    took = Some((now - run.since, now + self.after));
                }
            }
            Ok(None)
        });
        if let Some(mut run) = running.filter(|_| took.is_none()) {
            // Only where the load ended with an error.
            _ = run.child.kill();
            _ = run.child.wait();
        }
        Ok(Came { seen: seen?, took: took.map_or(Duration::ZERO, |(took, _)| took) })
    }
}

impl Event {
    fn start(&self) -> Result<Child, String> {
        let Event { name, command } = self;
        let child =
            Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        child.map_err(|e| format!("--event '{name}': sh: {e}"))
    }

    fn has_ended(&self, child: &mut Child) -> Result<bool, Box<dyn Error>> {
        let Some(status) = child.try_wait()? else { return Ok(false) };
        if status.success() {
            return Ok(true);
        }
        Err(format!("--event '{}': the command ended with {status}; what it said is above", self.name).into())
    }
}

impl Measure for Options {
    fn measure(&self, core: Option<usize>) -> Result<Report, Box<dyn Error>> {
        if !self.workers.between.is_used() {
            return Err(
                "blocked time is measured between interfaces: say --out, --in, --dst-mac, --src and --dst"
                    .into(),
            );
        }
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Err(format!("--rate {}: a rate is above 0", self.rate).into());
        }
        let mut pairs = self.workers.pairs(core)?;
        let mut came: Vec<Vec<Came>> = self.event.iter().map(|_| vec![]).collect();
        let mut bar = Bar::default();
        for n in 0..self.repeat {
            for (event, came) in self.event.iter().zip(&mut came) {
                let left = (self.before + self.after) * (self.repeat - n) * self.event.len() as u32;
                bar.tell(&format!("{}, {} of {}", event.name, n + 1, self.repeat), left);
                let wire = pairs.wire().ok_or("no interfaces")?;
                came.push(self.once(wire, event)?);
                pairs.noise.time();
            }
        }
        drop(bar);
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        let mut table = Table::new(&[
            "What was done",
            "Blocked, ms: least",
            "Median",
            "Most",
            "Longest silence, ms",
            "Frames lost",
            "Command, ms",
            "Came back",
        ]);
        let (mut figures, mut rows) = (vec![], vec![]);
        for (event, came) in self.event.iter().zip(&came) {
            let mut blocked: Vec<f64> = came.iter().map(|came| came.blocked(self.rate)).collect();
            figures.push((format!("blocked by {}", event.name), blocked.clone()));
            blocked.sort_by(f64::total_cmp);
            let most = |of: &dyn Fn(&Came) -> f64| came.iter().map(of).fold(0.0, f64::max);
            // Frames are due more often than that, but for rates that are no load.
            let is_back = |came: &Came| came.seen.last_silence.as_secs_f64() < 0.1f64.max(3.0 / self.rate);
            let back = came.iter().filter(|came| is_back(came)).count();
            table.rows.push(vec![
                event.name.clone(),
                format!("{:.1}", blocked[0]),
                format!("{:.1}", blocked[blocked.len() / 2]),
                format!("{:.1}", blocked[blocked.len() - 1]),
                format!("{:.1}", most(&|came| ms(came.seen.silence))),
                came.iter().map(Came::lost).sum::<u64>().to_string(),
                format!("{:.1}", most(&|came| ms(came.took))),
                format!("{back} of {}", came.len()),
            ]);
            let each = came.iter().map(|came| {
                json!({
                    "offered": came.seen.offered, "lost": came.lost(), "blocked_ms": came.blocked(self.rate),
                    "silence_ms": ms(came.seen.silence), "command_ms": ms(came.took), "back": is_back(came),
                })
            });
            rows.push(
                json!({ "event": event.name, "command": event.command, "each": each.collect::<Vec<_>>() }),
            );
        }
        let data = json!({ "rate_pps": self.rate, "events": rows });
        let note = "Frames lost, divided by the rate that they were offered at (RFC 6201); the longest time in which none came \
                    beside it. What has not come back at the end of the time after the command may have been blocked for longer.";
        let mut report =
            self.workers.report(("blocked", "Blocked time", note), data, table, vec![], &[&pairs.noise]);
        figures.into_iter().for_each(|(name, blocked)| report.measure(&name, "ms", false, blocked));
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    #[test]
    fn what_makes_no_sense_is_said() {
        let tried = |words: &[&str]| {
            let options = parsed::<Options>(words)?;
            options.measure(None).map(|_| ()).map_err(|e| e.to_string())
        };
        for (words, told) in [
            (&["--event", "nothing=true"][..], "between interfaces: say --out"),
            (&["--event", "nothing"], "say NAME=COMMAND"),
            (&["--event", "a=b", "--after=-1"], "from 0 to 100000 seconds"),
            (&["--event", "a=b", "--out", "eth9"], "--in"),
            (&["--event", "a=b", "--in", "eth9"], "--out"),
        ] {
            let error = tried(words).unwrap_err();
            assert!(error.contains(told), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_command_that_fails_is_told() {
        let event = event("dies=exit 3").unwrap();
        let mut child = event.start().unwrap();
        let told = loop {
            match event.has_ended(&mut child) {
                Ok(false) => std::thread::yield_now(),
                other => break other.unwrap_err().to_string(),
            }
        };
        assert_eq!(told, "--event 'dies': the command ended with exit status: 3; what it said is above");
    }

    #[test]
    fn what_is_lost_is_time_at_the_rate() {
        let second = Duration::from_secs(1);
        let seen = Seen {
            offered: 10_000,
            received: 9_000,
            duration: second,
            silence: second,
            last_silence: second,
        };
        assert_eq!(Came { seen, took: second }.blocked(10_000.0), 100.0);
    }
}
